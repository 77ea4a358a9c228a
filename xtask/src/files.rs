//! Arrays from and to npy files.

use std::path::Path;

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use ndarray::{ArrayD, IxDyn};
use sde_core::noise::host_tensor;
use sde_data::read::npy::{NpyArray, read_npy, write_npy};

use crate::exit::Failure;

/// An npy file as an f64 tensor.
pub fn read_tensor(path: &Path) -> Result<Tensor> {
    let array = read_npy(path)?.to_f64();
    if let Some(at) = array.iter().position(|v| !v.is_finite()) {
        return Err(Failure::Data(format!("{}: entry {at} is not finite", path.display())).into());
    }
    let dims = array.shape().to_vec();
    Ok(host_tensor(array.into_iter().collect(), &dims, DType::F64, &Device::Cpu)?)
}

/// An npy file of one dimension.
pub fn read_vector(path: &Path) -> Result<Vec<f64>> {
    let tensor = read_tensor(path)?;
    tensor.to_vec1::<f64>().map_err(|_| {
        Failure::Data(format!("{}: expected one dimension, found {:?}", path.display(), tensor.dims())).into()
    })
}

/// Makes the folder that a file is to be in.
pub fn make_folder_of(path: &Path) -> Result<()> {
    match path.parent().filter(|p| !p.as_os_str().is_empty()) {
        Some(folder) => make_folder(folder),
        None => Ok(()),
    }
}

/// Makes a folder, unless it is there.
pub fn make_folder(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))
}

/// Writes a tensor as f64.
pub fn write_tensor(path: &Path, tensor: &Tensor) -> Result<()> {
    let values = tensor.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
    let array = ArrayD::from_shape_vec(IxDyn(tensor.dims()), values)?;
    make_folder_of(path)?;
    Ok(write_npy(path, &NpyArray::F64(array))?)
}
