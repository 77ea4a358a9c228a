//! DDIM, for any linear process: `u' = Ψ u + (R' − Ψ R) ε`, exact for a point mass; with η > 0 the scalar family of the paper.
//!
//! η: `x' = α' x₀ + √(σ'² − s²) ε + s z`, `s = η σ' √(1 − ρ'²/ρ²)`; η = 1 is ancestral sampling with the small variance.
//! The data form `u' = R' R⁻¹ u + (S' − R' R⁻¹ S) x₀` is the same step without a division by the signal: it also starts where α(T) = 0.
//!
//! Reference: Song, Meng, Ermon 2020, arXiv 2010.02502, Eq. (12) and (16); Zhang, Tao, Chen 2022, arXiv 2206.05564, Eq. (18), for
//! any linear process.

use sde_core::{LinearSde, Op, Prediction, TimeGrid};

use super::{Multistep, Table, Update, alpha_sigma};
use crate::Result;
use crate::error::in_range;

/// Which prediction a table multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// ε: needs a signal at every time of the grid.
    Noise,
    /// x₀: needs noise at the start of every step.
    Data,
}

/// DDIM with stochasticity η in [0, 1].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ddim {
    /// 0: deterministic; 1: ancestral.
    pub eta: f64,
    /// Noise or data form; the same sampler where both exist.
    pub form: Form,
}

impl Ddim {
    /// The deterministic sampler in its noise form.
    pub const DETERMINISTIC: Self = Self { eta: 0.0, form: Form::Noise };

    /// Factors of (x₀, ε) and of fresh noise in the next state.
    pub(super) fn parts(&self, sde: &dyn LinearSde, from: f64, to: f64) -> Result<(Op, Op, Op)> {
        if self.eta == 0.0 {
            return Ok((sde.signal(to), sde.factor(to), Op::ZERO));
        }
        let (alpha, sigma) = alpha_sigma(self.name(), sde, from)?;
        let (alpha_next, sigma_next) = alpha_sigma(self.name(), sde, to)?;
        // ρ'/ρ without dividing by an α that may vanish at the start.
        let ratio = sigma_next * alpha / (alpha_next * sigma);
        let spread = self.eta * sigma_next * (1.0 - ratio * ratio).max(0.0).sqrt();
        let kept = (sigma_next * sigma_next - spread * spread).max(0.0).sqrt();
        Ok((Op::Scalar(alpha_next), Op::Scalar(kept), Op::Scalar(spread)))
    }
}

impl Multistep for Ddim {
    fn name(&self) -> &'static str {
        "ddim"
    }

    fn table(&self, sde: &dyn LinearSde, grid: &TimeGrid) -> Result<Table> {
        in_range("eta", self.eta, 0.0, 1.0)?;
        let of = match self.form {
            Form::Noise => Prediction::Noise,
            Form::Data => Prediction::Data,
        };
        if self.form == Form::Noise {
            sde_core::grid::require_signal(sde, grid.start(), "the noise form of ddim")?;
        }
        Table::of_steps(self.name(), of, grid, |from, to| {
            let (data, noise, inject) = self.parts(sde, from, to)?;
            let (carry, term) = match self.form {
                Form::Noise => {
                    // x₀ = S⁻¹ (u − R ε), and S' S⁻¹ = Ψ
                    let psi = sde.transition(to, from);
                    let term = noise.sub(&psi.mul(&sde.factor(from))?)?;
                    (psi, term)
                }
                Form::Data => {
                    let carry = noise.mul(&sde.factor(from).inverse()?)?;
                    let term = data.sub(&carry.mul(&sde.signal(from))?)?;
                    (carry, term)
                }
            };
            Ok(Update::new(from, to, carry, vec![term]).with_noise(inject))
        })
    }
}
