//! Rows on their way to a file, batch after batch: a [`Journal`] of rows and of the network calls of each.
//!
//! Images are kept as levels (u8), features as f32, points as f64.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use sde_data::Encoding;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::journal::Journal;

/// What is kept of the rows that are safe.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Facts {
    /// Their number.
    rows: usize,
    /// Network calls of each, where that is of interest.
    nfe: Vec<usize>,
}

/// How the entries of a row are kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Entries {
    /// As levels of an encoding, u8.
    Levels(Encoding),
    /// In f32.
    Single,
    /// In f64.
    Double,
}

impl Entries {
    /// Images as levels, anything else to the last bit.
    pub fn of(encoding: Encoding) -> Self {
        encoding.levels().map_or(Self::Double, |_| Self::Levels(encoding))
    }

    fn dtype(self) -> DType {
        match self {
            Self::Levels(_) => DType::U8,
            Self::Single => DType::F32,
            Self::Double => DType::F64,
        }
    }
}

/// Rows under way.
pub struct Stash {
    journal: Journal<Facts>,
    entries: Entries,
    shape: Vec<usize>,
}

impl Stash {
    /// The stash of rows that will be called `name`: a new one, or what an earlier call with the same `identity` left.
    ///
    /// # Errors
    /// When rows of something else are there.
    pub fn open(name: &Path, identity: &Value, entries: Entries, shape: &[usize]) -> Result<Self> {
        let other = "an unfinished file of something else is there; finish it with its own options, remove it, or name another --out";
        Ok(Self { journal: Journal::open(name, identity, other)?, entries, shape: shape.to_vec() })
    }

    /// The number of rows that are safe.
    pub fn len(&self) -> usize {
        self.journal.facts().rows
    }

    /// Network calls of each row.
    pub fn nfe(&self) -> &[usize] {
        &self.journal.facts().nfe
    }

    fn row_bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.entries.dtype().size_in_bytes()
    }

    /// Appends rows `[b, shape…]`, for good; `nfe` of each where that is of interest.
    pub fn append(&mut self, x: &Tensor, nfe: &[usize]) -> Result<()> {
        let bytes: Vec<u8> = match &self.entries {
            Entries::Levels(encoding) => encoding.quantise(x)?.flatten_all()?.to_vec1()?,
            Entries::Single => {
                let values = x.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
                values.iter().flat_map(|v| v.to_le_bytes()).collect()
            }
            Entries::Double => {
                let values = x.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
                values.iter().flat_map(|v| v.to_le_bytes()).collect()
            }
        };
        let count = x.dim(0)?;
        self.journal.append(&bytes, |facts| {
            facts.rows += count;
            facts.nfe.extend(nfe);
        })
    }

    /// All rows `[N, shape…]`.
    pub fn rows(&self) -> Result<Tensor> {
        self.block(0..self.len())
    }

    /// Some rows `[n, shape…]`.
    pub fn block(&self, rows: Range<usize>) -> Result<Tensor> {
        let failed = || format!("cannot read {}", self.journal.path().display());
        let mut bytes = vec![0; rows.len() * self.row_bytes()];
        let mut file = File::open(self.journal.path()).with_context(failed)?;
        file.seek(SeekFrom::Start((rows.start * self.row_bytes()) as u64)).with_context(failed)?;
        file.read_exact(&mut bytes).with_context(failed)?;
        let dims: Vec<usize> = std::iter::once(rows.len()).chain(self.shape.iter().copied()).collect();
        Ok(Tensor::from_raw_buffer(&bytes, self.entries.dtype(), &dims, &Device::Cpu)?)
    }

    /// Removes the stash, once what was in it stands elsewhere. Another stash of the same rows may have done it.
    pub fn remove(self) -> Result<()> {
        self.journal.remove()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::fs;
    use std::path::PathBuf;

    fn partial(name: &Path) -> PathBuf {
        name.with_added_extension("partial")
    }

    #[test]
    fn rows_come_back_and_another_set_is_refused() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let name = folder.path().join("samples");
        let levels = Entries::of(Encoding::Quantised { levels: 3, range: sde_data::Range::new(-1.0, 1.0)? });
        let x = Tensor::new(&[[-1.0, 0.0], [1.0, 0.1]], &Device::Cpu)?;
        let open = |what: &str| Stash::open(&name, &json!(what), levels, &[2]);
        open("a")?.append(&x, &[5, 5])?;
        // A write cut off in the middle leaves bytes that no note counts.
        let mut bytes = fs::read(partial(&name))?;
        bytes.push(9);
        fs::write(partial(&name), bytes)?;
        let mut again = open("a")?;
        assert!(open("a").is_err_and(|e| e.to_string().contains("another process")));
        assert_eq!((again.len(), again.nfe()), (2, &[5, 5][..]));
        again.append(&x.narrow(0, 1, 1)?, &[6])?;
        assert_eq!(again.rows()?.to_vec2::<u8>()?, [[0, 1], [2, 1], [2, 1]]);
        drop(again);
        assert!(open("b").is_err_and(|e| e.to_string().contains("something else")));
        fs::write(partial(&name), [0])?;
        assert!(open("a").is_err_and(|e| e.to_string().contains("shorter")));
        fs::write(partial(&name), [0; 6])?;
        open("a")?.remove()?;
        assert_eq!(fs::read_dir(folder.path())?.count(), 0);
        Ok(())
    }

    #[test]
    fn points_keep_every_bit() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let x = Tensor::new(&[[0.1, -1e-300], [f64::MAX, 3.0]], &Device::Cpu)?;
        let values = Entries::of(Encoding::Continuous);
        let mut stash = Stash::open(&folder.path().join("x.npy"), &json!(0), values, &[2])?;
        stash.append(&x, &[1, 1])?;
        assert_eq!(stash.rows()?.to_vec2::<f64>()?, x.to_vec2::<f64>()?);
        assert_eq!(stash.block(1..2)?.to_vec2::<f64>()?, [[f64::MAX, 3.0]]);
        Ok(())
    }
}
