//! The header of a safetensors file, checked before anything is allocated.
//!
//! The safetensors parser refuses holes, overlaps, overflows and wrong lengths. It takes the last of two tensors of
//! one name in silence, and any number of dimensions; those are refused here.
//!
//! Reference: the safetensors format, version 0.8 of its crate.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use safetensors::SafeTensors;
use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};

use crate::{Error, Result};

const LONGEST: u64 = 1 << 20;
const MOST_DIMS: usize = 8;

/// Refuses what the parser does not, and returns the metadata.
///
/// # Errors
/// [`Error::Format`].
pub(crate) fn check(bytes: &[u8]) -> Result<BTreeMap<String, String>> {
    let refused = |why: String| Error::Format(why.into());
    let length = bytes.first_chunk().map_or(0, |n| u64::from_le_bytes(*n));
    if length > LONGEST {
        return Err(refused(format!("header of {length} bytes, allowed are {LONGEST}")));
    }
    let (header_length, metadata) =
        SafeTensors::read_metadata(bytes).map_err(|error| Error::Format(error.into()))?;
    let header = bytes.get(8..8 + header_length).unwrap_or_default();
    serde_json::Deserializer::from_slice(header)
        .deserialize_map(NoDuplicates)
        .map_err(|error| Error::Format(error.into()))?;
    match metadata.tensors().iter().find(|(_, info)| info.shape.len() > MOST_DIMS) {
        None => Ok(metadata.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect()),
        Some((name, info)) => {
            let dims = info.shape.len();
            Err(refused(format!("tensor {name:?} has {dims} dimensions, allowed are {MOST_DIMS}")))
        }
    }
}

/// Visits the keys of a map and refuses a second one of the same name.
struct NoDuplicates;

impl<'de> Visitor<'de> for NoDuplicates {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
        let mut seen = BTreeSet::new();
        while let Some((name, _)) = map.next_entry::<String, IgnoredAny>()? {
            if seen.contains(&name) {
                return Err(serde::de::Error::custom(format!("two tensors are named {name:?}")));
            }
            seen.insert(name);
        }
        Ok(())
    }
}
