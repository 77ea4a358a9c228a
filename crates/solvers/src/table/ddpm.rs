//! Ancestral sampling: the Gaussian posterior of the next state given the state and the predicted data, for any linear process.
//!
//! Small variance (that of the posterior): `u' = Ψ u + (Ψ̂ − Ψ) R ε + P^{1/2} z`, `Ψ̂ = Σ' Ψ(t,t')ᵀ Σ⁻¹`, `P = Σ' − Ψ̂ Σ Ψ̂ᵀ`. Large variance: the same
//! mean with the variance of the forward step, `Σ − Ψ(t,t') Σ' Ψ(t,t')ᵀ` (β in the paper; DDIM's σ̂), and no noise on the last step. Between them, for scalar
//! processes: their geometric mean with weight v, which is what networks with a learned range put out.
//!
//! Reference: Ho, Jain, Abbeel 2020, arXiv 2006.11239, Eq. (6)–(7), section 3.2; Nichol, Dhariwal 2021, arXiv 2102.09672, Eq. (15), for the mean of both; Zhang, Tao, Chen 2022, arXiv 2206.05564, Eq. (22) with λ = 1.
//! Differs: on a sub-sequence every coefficient is that of the step taken, never one of the stored table.

use sde_core::{LinearSde, Op, Prediction, TimeGrid};

use super::{Multistep, Table, Update, alpha_sigma};
use crate::Result;
use crate::error::in_range;

/// The variance of a reverse step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Variance {
    /// That of the posterior given the data: exact for a point mass.
    Small,
    /// That of the forward step: exact for N(0, I).
    Large,
    /// `β^v β̃^{1−v}`, β the large and β̃ the small one, v in [0, 1]; no noise on the last step.
    Between(f64),
}

/// DDPM's ancestral sampler.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ddpm {
    /// Which variance to inject.
    pub variance: Variance,
}

impl Multistep for Ddpm {
    fn name(&self) -> &'static str {
        "ddpm"
    }

    fn table(&self, sde: &dyn LinearSde, grid: &TimeGrid) -> Result<Table> {
        if let Variance::Between(v) = self.variance {
            in_range("weight of the large variance", v, 0.0, 1.0)?;
        }
        sde_core::grid::require_signal(sde, grid.start(), "ancestral sampling")?;
        Table::of_steps(self.name(), Prediction::Noise, grid, |from, to| {
            let psi = sde.transition(to, from);
            let forward = sde.transition(from, to);
            let (now, next) = (sde.covariance(from), sde.covariance(to));
            let psi_hat = next.mul(&forward.transpose())?.mul(&now.inverse()?)?;
            let term = psi_hat.sub(&psi)?.mul(&sde.factor(from))?;
            let small = || next.sub(&psi_hat.mul(&now)?.mul(&psi_hat.transpose())?);
            let large = || now.sub(&forward.mul(&next)?.mul(&forward.transpose())?);
            let injected = match self.variance {
                Variance::Small => small()?,
                Variance::Large | Variance::Between(_) if to == grid.stop() => Op::ZERO,
                Variance::Large => large()?,
                Variance::Between(v) => {
                    alpha_sigma(self.name(), sde, from)?;
                    Op::Scalar(large()?.max_abs().powf(v) * small()?.max_abs().powf(1.0 - v))
                }
            };
            Ok(Update::new(from, to, psi, vec![term]).with_noise(injected.sqrt()?))
        })
    }
}
