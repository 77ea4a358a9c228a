//! The predictors of the published score-SDE code, whose steps are those of a discretised chain and not of the grid.
//!
//! At each of N times from T to the end, both included, with A and Q of the chain's step k = ⌊t/T (N − 1)⌋ ([`LinearSde::chain`]):
//!
//! - Euler–Maruyama: `m = x − h [F x − G Gᵀ s]`, noise `√h G z`, h = T/N;
//! - reverse diffusion: `m = (2 − A) x + Q s`, noise `√Q z`; without a chain A = 1 + h F, Q = h G Gᵀ;
//! - ancestral: `m = A⁻¹ (x + Q s)`, noise of the chain's own variance.
//!
//! There are as many steps as times: the last is taken at the end of the grid and is called to stay there.
//!
//! Reference: Song et al. 2021, arXiv 2011.13456, appendix E (reverse diffusion), F (ancestral) and G.
//! Differs: nothing, for the sake of parity; on other grids than N even times take [`EulerMaruyama`](super::EulerMaruyama) and
//! [`Ddpm`](super::Ddpm), whose steps are the grid's.

use sde_core::process::ChainStep;
use sde_core::{LinearSde, Op, Prediction, TimeGrid};

use super::{Multistep, Table, Update, checked};
use crate::{Error, Result};

/// A published predictor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScoreSde {
    /// Euler–Maruyama with h = T/N.
    EulerMaruyama,
    /// The chain's step, reversed.
    ReverseDiffusion,
    /// The chain's ancestral step; for processes that have a chain.
    Ancestral,
}

/// The step of its chain that a process takes at t, of N.
pub(crate) fn chain_step(sde: &dyn LinearSde, t: f64, steps: usize) -> Option<ChainStep> {
    // In the order in which the published code rounds: t (N − 1) / T.
    let k = (t * (steps as f64 - 1.0) / sde.span().end).floor();
    sde.chain(k as usize, steps)
}

impl Multistep for ScoreSde {
    fn name(&self) -> &'static str {
        match self {
            Self::EulerMaruyama => "score-sde-em",
            Self::ReverseDiffusion => "reverse-diffusion",
            Self::Ancestral => "score-sde-ancestral",
        }
    }

    fn table(&self, sde: &dyn LinearSde, grid: &TimeGrid) -> Result<Table> {
        sde_core::grid::require_signal(sde, grid.start(), "a predictor of the reverse process")?;
        let times = grid.times();
        let h = sde.span().end / times.len() as f64;
        let row = |(i, &t): (usize, &f64)| -> Result<Update> {
            let chain = chain_step(sde, t, times.len());
            let fallback = || -> Result<(Op, Op)> {
                Ok((Op::IDENTITY.add(&sde.drift(t).scale(h))?, sde.diffusion(t).scale(h)))
            };
            let known = |step: &ChainStep| (Op::Scalar(step.factor), Op::Scalar(step.variance));
            let (carry, term, variance) = match (self, &chain) {
                (Self::Ancestral, Some(step)) => {
                    let (factor, variance) = known(step);
                    let inverse = factor.inverse()?;
                    (inverse.clone(), inverse.mul(&variance)?, Op::Scalar(step.ancestral))
                }
                (Self::Ancestral, None) => {
                    return Err(Error::NoChain {
                        sampler: self.name(),
                        hint: "take reverse-diffusion, or ddpm, which exist for every process with signal",
                    });
                }
                (Self::ReverseDiffusion, Some(step)) => {
                    let (factor, variance) = known(step);
                    (Op::Scalar(2.0).sub(&factor)?, variance.clone(), variance)
                }
                (Self::ReverseDiffusion, None) | (Self::EulerMaruyama, _) => {
                    let (factor, variance) = fallback()?;
                    (Op::Scalar(2.0).sub(&factor)?, variance.clone(), variance)
                }
            };
            let to = times.get(i + 1).copied().unwrap_or(t);
            let update = Update::new(t, to, carry, vec![term]).with_noise(variance.sqrt()?);
            Ok(checked(self.name(), update)?.of_step(i))
        };
        Ok(Table {
            of: Prediction::Score,
            updates: times.iter().enumerate().map(row).collect::<Result<_>>()?,
        })
    }
}
