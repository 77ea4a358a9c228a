//! Samples on their way to a file: rows are appended to `NAME.partial` as they are drawn, and `NAME.partial.json` says how many are safe
//! and what they are samples of, so that a run of hours that is cut off goes on where it stood.
//!
//! Images are kept as levels (u8), points as f64. The note is replaced by a rename, after the rows are on the disk; rows beyond those
//! it counts are cut off when work goes on.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use sde_core::noise::host_tensor;
use sde_data::Encoding;
use sde_train::hash::sha256;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::exit::Failure;

/// What is known of the rows that are safe.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    /// SHA-256 of what the samples are samples of.
    identity: String,
    /// Network calls of each row.
    nfe: Vec<usize>,
}

/// Samples under way.
pub struct Stash {
    path: PathBuf,
    file: File,
    note: Note,
    /// Rows are levels of this encoding; values where there is none.
    encoding: Option<Encoding>,
    shape: Vec<usize>,
}

fn partial(name: &Path) -> PathBuf {
    let mut path = name.as_os_str().to_owned();
    path.push(".partial");
    path.into()
}

impl Stash {
    /// The stash of samples that will be called `name`: a new one, or what an earlier call with the same `identity` left.
    ///
    /// # Errors
    /// When samples of something else are there.
    pub fn open(name: &Path, identity: &Value, encoding: Encoding, shape: &[usize]) -> Result<Self> {
        let path = partial(name);
        if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        let identity = sha256(identity.to_string().as_bytes());
        let there = Self::note_of(&path)?;
        if there.as_ref().is_some_and(|note| note.identity != identity) {
            let text = format!(
                "{}: an unfinished set of other samples is there; finish it with its own options, remove it, or name another --out",
                path.display()
            );
            return Err(Failure::Config(text).into());
        }
        let note = there.unwrap_or(Note { identity, nfe: Vec::new() });
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        let encoding = encoding.levels().map(|_| encoding);
        let mut stash = Self { path, file, note, encoding, shape: shape.to_vec() };
        let length = (stash.len() * stash.row_bytes()) as u64;
        if stash.file.metadata()?.len() < length {
            let text =
                format!("{}: shorter than its note says; remove it and begin anew", stash.path.display());
            return Err(Failure::Data(text).into());
        }
        stash.file.set_len(length)?;
        stash.file.seek(SeekFrom::End(0))?;
        Ok(stash)
    }

    fn note_of(path: &Path) -> Result<Option<Note>> {
        let place = path.with_added_extension("json");
        match fs::read(&place) {
            Ok(bytes) => {
                let note = serde_json::from_slice(&bytes);
                note.map(Some).map_err(|e| Failure::Data(format!("{}: {e}", place.display())).into())
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(anyhow::Error::from(e).context(format!("cannot read {}", place.display()))),
        }
    }

    /// The number of rows that are safe.
    pub fn len(&self) -> usize {
        self.note.nfe.len()
    }

    /// Network calls of each row.
    pub fn nfe(&self) -> &[usize] {
        &self.note.nfe
    }

    fn row_bytes(&self) -> usize {
        let size = if self.encoding.is_some() { 1 } else { size_of::<f64>() };
        self.shape.iter().product::<usize>() * size
    }

    /// Appends rows `[b, shape…]`, for good.
    pub fn append(&mut self, x: &Tensor, nfe: &[usize]) -> Result<()> {
        let bytes = match &self.encoding {
            Some(encoding) => encoding.quantise(x)?.flatten_all()?.to_vec1::<u8>()?,
            None => {
                let values = x.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
                values.iter().flat_map(|v| v.to_le_bytes()).collect()
            }
        };
        let failed = || format!("cannot write {}", self.path.display());
        self.file.write_all(&bytes).and_then(|()| self.file.sync_data()).with_context(failed)?;
        self.note.nfe.extend(nfe);
        let (place, fresh) =
            (self.path.with_added_extension("json"), self.path.with_added_extension("json.new"));
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&fresh)?;
            file.write_all(serde_json::to_string(&self.note)?.as_bytes())?;
            file.sync_data()?;
            fs::rename(&fresh, &place)
        };
        write().with_context(|| format!("cannot write {}", place.display()))
    }

    /// All rows `[N, shape…]`: levels u8, or values f64.
    pub fn rows(&self) -> Result<Tensor> {
        let bytes = fs::read(&self.path).with_context(|| format!("cannot read {}", self.path.display()))?;
        let dims: Vec<usize> = std::iter::once(self.len()).chain(self.shape.iter().copied()).collect();
        if self.encoding.is_some() {
            return Ok(Tensor::from_vec(bytes, dims, &Device::Cpu)?);
        }
        let values = bytes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect();
        Ok(host_tensor(values, &dims, DType::F64, &Device::Cpu)?)
    }

    /// Removes the stash, once what was in it stands elsewhere.
    pub fn remove(self) -> Result<()> {
        fs::remove_file(self.path.with_added_extension("json"))?;
        Ok(fs::remove_file(&self.path)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sde_data::Range;
    use serde_json::json;

    #[test]
    fn rows_come_back_and_another_set_is_refused() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let name = folder.path().join("samples");
        let levels = Encoding::Quantised { levels: 3, range: Range::new(-1.0, 1.0)? };
        let x = Tensor::new(&[[-1.0, 0.0], [1.0, 0.1]], &Device::Cpu)?;
        let open = |what: &str| Stash::open(&name, &json!(what), levels, &[2]);
        open("a")?.append(&x, &[5, 5])?;
        // A write cut off in the middle leaves bytes that no note counts.
        let mut bytes = fs::read(partial(&name))?;
        bytes.push(9);
        fs::write(partial(&name), bytes)?;
        let mut again = open("a")?;
        assert_eq!((again.len(), again.nfe()), (2, &[5, 5][..]));
        again.append(&x.narrow(0, 1, 1)?, &[6])?;
        assert_eq!(again.rows()?.to_vec2::<u8>()?, [[0, 1], [2, 1], [2, 1]]);
        assert!(open("b").is_err_and(|e| e.to_string().contains("other samples")));
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
        let mut stash = Stash::open(&folder.path().join("x.npy"), &json!(0), Encoding::Continuous, &[2])?;
        stash.append(&x, &[1, 1])?;
        assert_eq!(stash.rows()?.to_vec2::<f64>()?, x.to_vec2::<f64>()?);
        Ok(())
    }
}
