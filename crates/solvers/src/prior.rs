//! Draws from the law that sampling starts from, `u_T ~ N(0, P)`, P the covariance of the process's standard prior.

use candle_core::{DType, Device, Tensor};
use sde_core::LinearSde;
use sde_core::noise::{BatchNoise, Law, Stream};

use crate::Result;

/// One draw for each sample of `noise`.
///
/// # Shapes
/// `shape` is that of one state; the result is `[B, shape…]`.
///
/// # Errors
/// When the prior's covariance does not fit the state.
pub fn prior_sample(
    sde: &dyn LinearSde,
    noise: &BatchNoise,
    shape: &[usize],
    dtype: DType,
    device: &Device,
) -> Result<Tensor> {
    let normal = noise.tensor(Law::Normal, Stream::Prior, 0, shape, dtype, device)?;
    Ok(sde.prior().sqrt()?.apply(&normal)?)
}
