//! Where the pickle and the storages of a `.pth` file are.
//!
//! ```text
//! torch ≥ 1.6: a zip archive, nothing compressed      before: one after the other
//! NAME/data.pkl      the pickle                       pickles: magic, 1001, system, the object, keys of storages
//! NAME/data/KEY      a storage                        for each key: its count, 8 bytes, and its bytes
//! NAME/byteorder     "little"
//! ```
//!
//! TorchScript's archive is the first with code beside it, which may be compressed, and is not looked at.

use std::collections::HashMap;
use std::io::{Cursor, Read};
use std::ops::Range;
use std::sync::Arc;

use zip::{CompressionMethod, ZipArchive};

use super::machine::{Machine, Storage};
use super::{Value, refused};
use crate::Result;

/// The pickles of the old layout's magic number and version.
const MAGIC: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.";

/// Whether a file begins as one of these.
pub(crate) fn is_pth(file: &[u8]) -> bool {
    file.starts_with(b"PK\x03\x04") || file.starts_with(MAGIC)
}

pub(super) fn read(file: &Arc<Vec<u8>>) -> Result<Value> {
    if file.starts_with(b"PK\x03\x04") {
        return read_archive(file);
    }
    if file.starts_with(MAGIC) {
        return read_legacy(file);
    }
    Err(refused(
        "neither a zip archive nor torch's older layout; a bare pickle, such as EDM's, holds code: convert it in Python",
    ))
}

fn read_archive(file: &Arc<Vec<u8>>) -> Result<Value> {
    let damaged = |error: &dyn std::fmt::Display| refused(format!("zip archive: {error}"));
    let mut archive = ZipArchive::new(Cursor::new(file.as_slice())).map_err(|error| damaged(&error))?;
    let mut entries = HashMap::new();
    let mut total = 0;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(|error| damaged(&error))?;
        let name = String::from_utf8_lossy(entry.name_raw()).into_owned();
        if name.split('/').nth(1) == Some("code") {
            continue;
        }
        if entry.compression() != CompressionMethod::Stored || entry.encrypted() {
            return Err(refused(format!("zip archive: {name:?} is compressed, which torch never does")));
        }
        let data = entry.data_start().and_then(|start| {
            let start = usize::try_from(start).ok()?;
            let end = start.checked_add(usize::try_from(entry.size()).ok()?)?;
            (end <= file.len()).then_some(start..end)
        });
        let data = data.ok_or_else(|| refused(format!("zip archive: {name:?} is not all there")))?;
        total += data.len();
        if total > file.len() {
            return Err(refused("zip archive: entries overlap"));
        }
        // Reads it all, which compares it with its checksum.
        std::io::copy(&mut entry.by_ref(), &mut std::io::sink())
            .map_err(|error| damaged(&format!("{name:?}: {error}")))?;
        if entries.insert(name.clone(), data).is_some() {
            return Err(refused(format!("zip archive: {name:?} stands twice")));
        }
    }
    of_entries(file, &entries)
}

fn of_entries(file: &Arc<Vec<u8>>, entries: &HashMap<String, Range<usize>>) -> Result<Value> {
    let mut pickles = entries.iter().filter_map(|(name, data)| Some((name.strip_suffix("data.pkl")?, data)));
    let (Some((folder, pickle)), None) = (pickles.next(), pickles.next()) else {
        return Err(refused("zip archive: expected one data.pkl"));
    };
    let order = entries.get(&format!("{folder}byteorder")).map_or(&b"little"[..], |at| &file[at.clone()]);
    if order != b"little" {
        return Err(refused(format!("byte order {:?}; little is read", String::from_utf8_lossy(order))));
    }
    let (machine, root, _) = Machine::run(&file[pickle.clone()], 0)?;
    machine.tree(root, file, &mut |storage| {
        let data = entries.get(&format!("{folder}data/{}", storage.key));
        let data = data.ok_or_else(|| refused(format!("storage {:?} is not in the archive", storage.key)))?;
        fits(storage, data)
    })
}

fn read_legacy(file: &Arc<Vec<u8>>) -> Result<Value> {
    let none = &mut |_: &Storage| Err(refused("a tensor where there is none"));
    let (system, root, end) = Machine::run(file, MAGIC.len())?;
    let system = system.tree(root, file, none)?;
    if !matches!(system.get("little_endian"), Some(Value::Bool(true))) {
        return Err(refused("the file was written on a machine of another byte order; little is read"));
    }
    let (machine, root, end) = Machine::run(file, end)?;
    let (keys, list, mut at) = Machine::run(file, end)?;
    let keys = keys.tree(list, file, none)?;
    let sizes: HashMap<&str, usize> =
        machine.storages().map(|storage| (&*storage.key, storage.dtype.size_in_bytes())).collect();
    let mut storages = HashMap::new();
    for key in keys.as_list().unwrap_or_default() {
        let Value::Text(key) = key else {
            return Err(refused(format!("{} as the key of a storage", key.kind())));
        };
        let data = legacy_storage(file, at, sizes.get(&**key).copied())
            .ok_or_else(|| refused(format!("storage {key:?}, at byte {at}, is not all there")))?;
        at = data.end;
        storages.insert(key.clone(), data);
    }
    if at != file.len() {
        return Err(refused(format!("{} bytes after the last storage", file.len() - at)));
    }
    machine.tree(root, file, &mut |storage| {
        let data = storages.get(&storage.key);
        fits(storage, data.ok_or_else(|| refused(format!("storage {:?} is not in the file", storage.key)))?)
    })
}

/// A storage that begins, with its count, at `at`.
fn legacy_storage(file: &[u8], at: usize, element: Option<usize>) -> Option<Range<usize>> {
    let count = u64::from_le_bytes(*file.get(at..)?.first_chunk()?);
    let start = at + 8;
    let end = usize::try_from(count).ok()?.checked_mul(element?)?.checked_add(start)?;
    (end <= file.len()).then_some(start..end)
}

/// The bytes of a storage, if they are as many as the pickle says.
fn fits(storage: &Storage, data: &Range<usize>) -> Result<Range<usize>> {
    let size = storage.dtype.size_in_bytes();
    let announced = usize::try_from(storage.count).ok().and_then(|count| count.checked_mul(size));
    if announced == Some(data.len()) {
        return Ok(data.clone());
    }
    let Storage { key, dtype, count } = storage;
    Err(refused(format!("storage {key:?} of {count} {dtype:?} has {} bytes", data.len())))
}
