//! Arrays that other programs made.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use sde_data::read::npy::NpyArray;
use sde_data::read::npz::read_npz;
use sde_eval::Result;

/// A file of `tests/golden`.
pub fn golden(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file)
}

/// The arrays of a file.
pub struct Arrays(BTreeMap<String, NpyArray>);

impl Arrays {
    /// Of `tests/golden`.
    pub fn open(file: &str) -> Result<Self> {
        Ok(Self(read_npz(&golden(file))?))
    }

    /// An array in f64.
    pub fn tensor(&self, key: &str) -> Result<Tensor> {
        let array = self.0[key].to_f64();
        Ok(Tensor::from_vec(array.iter().copied().collect(), array.shape(), &Device::Cpu)?)
    }

    /// Levels.
    pub fn levels(&self, key: &str) -> Result<Tensor> {
        Ok(self.tensor(key)?.to_dtype(DType::U8)?)
    }
}
