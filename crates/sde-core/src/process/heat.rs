//! The heat equation of the density, `∂_t p = ∇·(t C ∇p)`: noise of any colour C and nothing else, `u_t = x_data + t C^{1/2} ε`.
//!
//! `F = 0`, `G Gᵀ = 2 t C`, `Σ = t² C`, `R = t C^{1/2}`, and the flow is `du/dt = −t C ∇log p_t(u)`. C = I is EDM's process. This heat acts on the law of the data,
//! not on its pixels, which is [`Blurring`](super::Blurring).
//!
//! Reference: Su 2025, *Topics on Diffusion Generative Models*, Eq. (12.10)–(12.20), where C may be a matrix and is worked out for numbers.

use std::sync::Arc;

use super::blurring::frequencies;
use crate::error::{Error, Result, in_range};
use crate::{Basis, LinearSde, Op, Span};

/// The heat equation with a constant diffusivity up to the factor t.
#[derive(Debug, Clone)]
pub struct Heat {
    colour: Op,
    root: Op,
    ends: [f64; 2],
}

impl Heat {
    /// With diffusivity `t C`, `colour` = C, sampled from t = `ends[1]` to `ends[0]`.
    ///
    /// # Errors
    /// Unless C is symmetric and positive definite and `0 < ends[0] < ends[1]`.
    pub fn new(colour: Op, ends: [f64; 2]) -> Result<Self> {
        in_range("first time", ends[0], f64::MIN_POSITIVE, f64::MAX)?;
        in_range("last time", ends[1], ends[0] * (1.0 + 1e-9), f64::MAX)?;
        let asymmetry = colour.sub(&colour.transpose())?.max_abs();
        if asymmetry > 1e-12 * colour.max_abs() || colour.inverse().is_err() {
            return Err(Error::Mismatch {
                what: "colour of the noise",
                expected: "a symmetric positive definite operator".into(),
                found: colour.describe(),
            });
        }
        let root = colour.sqrt()?;
        Ok(Self { colour, root, ends })
    }

    /// The colour of noise on images `[C, height, width]` whose power falls with `(1 + λ)^−slope`, λ the eigenvalue of −Δ: white for slope 0.
    ///
    /// # Errors
    /// Unless height and width are from 1 to 4096 and the slope is from −8 to 8.
    pub fn of_slope((height, width): (usize, usize), slope: f64) -> Result<Op> {
        in_range("slope", slope, -8.0, 8.0)?;
        let values = frequencies(height, width)?.into_iter().map(|lambda| (1.0 + lambda).powf(-slope));
        Op::diagonal(&Arc::new(Basis::dct(height, width)), values.collect())
    }
}

impl LinearSde for Heat {
    fn span(&self) -> Span {
        Span { end: self.ends[1], sampling: self.ends[0], likelihood: self.ends[0] }
    }
    fn drift(&self, _: f64) -> Op {
        Op::ZERO
    }
    fn diffusion(&self, t: f64) -> Op {
        self.colour.scale(2.0 * t)
    }
    fn transition(&self, _: f64, _: f64) -> Op {
        Op::IDENTITY
    }
    fn signal(&self, _: f64) -> Op {
        Op::IDENTITY
    }
    fn signal_rate(&self, _: f64) -> Op {
        Op::ZERO
    }
    fn covariance(&self, t: f64) -> Op {
        self.colour.scale(t * t)
    }
    fn factor(&self, t: f64) -> Op {
        self.root.scale(t)
    }
    fn factor_rate(&self, _: f64) -> Op {
        self.root.clone()
    }
    fn prior(&self) -> Op {
        self.covariance(self.ends[1])
    }
    fn groups(&self) -> usize {
        self.colour.groups()
    }
    fn clock(&self, t: f64) -> f64 {
        t.ln()
    }
    fn time_of_clock(&self, clock: f64) -> f64 {
        clock.exp()
    }
    fn clock_rate(&self, t: f64) -> f64 {
        1.0 / t
    }
}
