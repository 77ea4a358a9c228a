//! The norm of all gradients together, and its clipping: `g ← g · min(1, max/(‖g‖ + 1e-6))`.
//!
//! The norm is summed in f64, within a tensor in memory order and over tensors in the order of their names, so it is
//! the same in every run and with any number of threads.
//!
//! Reference: Pascanu, Mikolov, Bengio 2013, arXiv 1211.5063, Algorithm 1; the 1e-6 is PyTorch's.

use candle_core::{CpuStorage, DType, Device, Storage, Tensor};
use rayon::prelude::*;

use crate::Result;
use crate::adam::Gradients;
use crate::in_place::elements;

/// The Euclidean norm of all gradients together.
pub fn global_norm(gradients: &Gradients) -> Result<f64> {
    let squares = sums_of_squares(&gradients.values().collect::<Vec<_>>())?;
    Ok(squares.into_iter().sum::<f64>().sqrt())
}

/// Scales all gradients so that their norm, which is `norm`, is `max` at most.
pub fn clip(gradients: &mut Gradients, norm: f64, max: f64) -> Result<()> {
    let scale = max / (norm + 1e-6);
    if scale < 1.0 {
        for gradient in gradients.values_mut() {
            *gradient = (&*gradient * scale)?;
        }
    }
    Ok(())
}

/// Σ v² of each tensor; not finite if a value is not. One transfer, if they are on another device.
pub(crate) fn sums_of_squares(tensors: &[&Tensor]) -> Result<Vec<f64>> {
    let on_host = |t: &&Tensor| t.device().is_cpu() && matches!(t.dtype(), DType::F32 | DType::F64);
    if tensors.iter().all(on_host) {
        // Collected in order: a parallel sum would depend on how the threads divide it.
        return Ok(tensors
            .par_iter()
            .map(|tensor| sum_on_host(tensor))
            .collect::<candle_core::Result<_>>()?);
    }
    let sums = tensors.iter().map(|tensor| tensor.to_dtype(DType::F32)?.sqr()?.sum_all());
    let sums = Tensor::stack(&sums.collect::<candle_core::Result<Vec<_>>>()?, 0)?;
    Ok(sums.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_vec1()?)
}

fn sum_on_host(tensor: &Tensor) -> candle_core::Result<f64> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    Ok(match &*storage {
        Storage::Cpu(CpuStorage::F32(values)) => {
            elements(values, layout)?.iter().map(|&v| f64::from(v).powi(2)).sum()
        }
        Storage::Cpu(CpuStorage::F64(values)) => elements(values, layout)?.iter().map(|v| v.powi(2)).sum(),
        _ => {
            candle_core::bail!("sum of squares: expected f32 or f64 on the host, found {:?}", tensor.dtype())
        }
    })
}
