//! The states that a denoising loss looks at: `u_t = S_t x₀ + R_t ε`, t and ε drawn for each sample at its own address. Data is lifted to states: of
//! velocities R ε holds what they start from, so they are marginalised (hybrid score matching).
//!
//! Reference: Song et al. 2021, arXiv 2011.13456, Eq. (7), for any linear process; Dockhorn, Vahdat, Kreis 2022, arXiv 2112.07068, Eq. (8).

use candle_core::Tensor;
use sde_core::noise::{BatchNoise, Law, Stream, host_tensor};
use sde_core::{LinearSde, Op, apply_each, lift};

use super::{DrawnTime, TimeLaw};
use crate::Result;

/// A noised batch.
pub(super) struct Noised {
    pub drawn: Vec<DrawnTime>,
    /// The times of `drawn`.
    pub t: Vec<f64>,
    /// The same, as the model takes them.
    pub times: Tensor,
    /// The data as states.
    pub data: Tensor,
    pub eps: Tensor,
    pub state: Tensor,
}

impl Noised {
    pub(super) fn new(sde: &dyn LinearSde, law: &TimeLaw, data: &Tensor, noise: &BatchNoise) -> Result<Self> {
        let drawn: Vec<DrawnTime> =
            noise.draws(Stream::Time, 0).iter_mut().map(|draws| law.draw(sde, draws)).collect();
        let t: Vec<f64> = drawn.iter().map(|d| d.t).collect();
        let data = lift(sde, data)?;
        let shape = &data.dims()[1..];
        let eps = noise.tensor(Law::Normal, Stream::Diffusion, 0, shape, data.dtype(), data.device())?;
        let signal: Vec<Op> = t.iter().map(|&t| sde.signal(t)).collect();
        let factor: Vec<Op> = t.iter().map(|&t| sde.factor(t)).collect();
        let state = (apply_each(&signal, &data)? + apply_each(&factor, &eps)?)?;
        let times = host_tensor(t.clone(), &[t.len()], data.dtype(), data.device())?;
        Ok(Self { drawn, t, times, data, eps, state })
    }
}
