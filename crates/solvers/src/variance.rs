//! NPR-DPM and SN-DPM: DDIM's family with the variance that the state itself leaves to each entry, for scalar processes.
//!
//! `x' = (α'/α) x − c ε̂(x) + √(s² + c² κ(x)) ⊙ z`, with c and s of [`AnalyticDpm`](crate::AnalyticDpm) and κ(x) the variance of ε given the state, from a
//! [`MomentField`]: the optimal diagonal covariance of the reverse step. Which estimate of κ it is, that field knows. κ depends on the state, so this is
//! no table; one evaluation a step gives ε̂ and κ.
//!
//! Exact for Gaussian data along the axes with any steps and any η.
//!
//! Reference: Bao, Li, Sun, Zhu, Zhang 2022, arXiv 2206.07309, Theorems 1 and 2, section 4.

use candle_core::Tensor;
use sde_core::noise::NormalSource;
use sde_core::{LinearSde, MomentField, Op, TimeGrid, combine};

use crate::error::in_range;
use crate::sampler::{Path, Sampler, Solution};
use crate::table::{Clipping, alpha_sigma, ddim_step};
use crate::{Error, Result};

/// DDIM with a variance that depends on the state.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LearnedVariance {
    /// η of DDIM: 0 or 1 in the paper.
    pub eta: f64,
    /// What the variance is kept within; κ is at least 0 in any case.
    pub clipping: Clipping,
}

/// A rule with the field whose variances it takes, as a sampler; the field of its path is not asked.
#[derive(Clone, Copy)]
pub struct WithMoments<'a> {
    /// The rule.
    pub rule: LearnedVariance,
    /// Mean and variance of the noise.
    pub field: &'a dyn MomentField,
}

impl Sampler for WithMoments<'_> {
    fn sample(&self, path: &Path<'_>, x: &Tensor, noise: &dyn NormalSource) -> Result<Solution> {
        self.rule.sample(path.sde, self.field, path.grid, x, noise)
    }
}

impl LearnedVariance {
    const NAME: &'static str = "learned variance";

    /// Carries `x` from the start of the grid to its end: one evaluation of `field` a step, one draw of `noise` for each step that injects any, by its
    /// number.
    ///
    /// # Shapes
    /// `x` `[B, …]`, in f64 where the device has it.
    ///
    /// # Errors
    /// For processes that are not scalar or have no signal at the start, [`Error::NonFinite`] as soon as a state is not finite, and whatever the field
    /// returns.
    pub fn sample(
        &self,
        sde: &dyn LinearSde,
        field: &dyn MomentField,
        grid: &TimeGrid,
        x: &Tensor,
        noise: &dyn NormalSource,
    ) -> Result<Solution> {
        in_range("eta", self.eta, 0.0, 1.0)?;
        self.clipping.check()?;
        sde_core::grid::require_signal(sde, grid.start(), Self::NAME)?;
        let (times, steps) = (grid.times(), grid.steps());
        let mut x = x.clone();
        for i in 0..steps {
            let (alpha, sigma) = alpha_sigma(Self::NAME, sde, times[i])?;
            let (update, spread, square) = ddim_step(Self::NAME, (self.eta, sde), times[i], times[i + 1])?;
            let moments = field.moments(&x, &times[i..=i])?;
            let mut sum = vec![(update.carry, x), (update.terms[0].clone(), moments.noise)];
            let largest = self.clipping.largest(i, steps);
            if largest > 0.0 {
                let kappa = moments.variance.clamp(0.0, self.clipping.largest_kappa(alpha, sigma))?;
                let deviation = kappa.affine(square, spread)?.sqrt()?.minimum(largest)?;
                sum.push((Op::IDENTITY, (noise.normal(i, &deviation)? * deviation)?));
            }
            let terms: Vec<(&Op, &Tensor)> = sum.iter().map(|(op, term)| (op, term)).collect();
            let next = combine(&terms)?;
            if !next.finite {
                return Err(Error::NonFinite { step: i, t: times[i + 1] });
            }
            x = next.sum;
        }
        let nfe = vec![steps; x.dim(0)?];
        Ok(Solution { x, nfe })
    }
}
