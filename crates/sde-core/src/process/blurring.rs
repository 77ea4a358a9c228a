//! Blurring diffusion: the data loses its fine detail first. In the cosine basis of an image, frequency by frequency,
//!
//! `y_t = α_t d_t y_data + σ_t ε`, `α = cos φ`, `σ = sin φ`, `φ = (t + s)/(1 + 2s)·π/2`, `d = (1 − d_min) e^{−λ τ} + d_min`, `λ = π² (i²/h² + j²/w²)`,
//! `τ = σ_B²/2`, `σ_B = σ_B,max sin²(π t/2)`, s = 0.004.
//!
//! `exp(−λ τ)` is the heat equation on the pixels run for a time τ, which is a Gaussian blur of σ_B pixels. The noise is white: `R = σ_t I`, `F = ȧ/a` with a = α d, and
//! `G Gᵀ = 2 σ (σ̇ − σ ȧ/a)`, positive because a falls and σ rises.
//!
//! Reference: Hoogeboom, Salimans 2022, arXiv 2209.05557, Eq. (17)–(20) and appendix A; Zhang 2023 (thesis), Eq. (7.11); Rissanen, Heinonen, Solin 2022, arXiv 2206.13397, for
//! the heat equation.
//! Differs: G Gᵀ is the one that belongs to F and σ; the constants of the cosine are those of gDDIM's experiments. The span ends where the ratio of noise to signal is 80,
//! as there.

use std::f64::consts::{FRAC_PI_2, PI};
use std::sync::Arc;

use crate::error::{Result, in_range};
use crate::{Basis, LinearSde, Op, Span};

const OFFSET: f64 = 0.004;
const RATE: f64 = FRAC_PI_2 / (1.0 + 2.0 * OFFSET);
/// ρ at the end of the span.
const LAST_RHO: f64 = 80.0;

/// Blurring diffusion of images of one size.
#[derive(Debug, Clone)]
pub struct Blurring {
    basis: Arc<Basis>,
    /// λ of each frequency.
    decay: Vec<f64>,
    sigma_blur: f64,
    d_min: f64,
}

impl Blurring {
    /// For images `[C, height, width]` that end blurred by `sigma_blur` pixels, except for a part `d_min` of every frequency. Published for 32×32: 10 and 0.001
    /// (gDDIM), 20 and 0.001.
    ///
    /// # Errors
    /// Unless height and width are from 1 to 4096, `0 ≤ sigma_blur ≤ 1000` and `1e-6 ≤ d_min ≤ 1`.
    pub fn new((height, width): (usize, usize), sigma_blur: f64, d_min: f64) -> Result<Self> {
        in_range("sigma_blur", sigma_blur, 0.0, 1000.0)?;
        in_range("d_min", d_min, 1e-6, 1.0)?;
        let decay = frequencies(height, width)?;
        Ok(Self { basis: Arc::new(Basis::dct(height, width)), decay, sigma_blur, d_min })
    }

    fn phase(t: f64) -> f64 {
        (t + OFFSET) * RATE
    }

    /// d and ḋ of each frequency.
    fn dissipation(&self, t: f64) -> impl Iterator<Item = (f64, f64)> + '_ {
        let (sin, cos) = (FRAC_PI_2 * t).sin_cos();
        let (blur, blur_rate) = (self.sigma_blur * sin * sin, self.sigma_blur * PI * sin * cos);
        let (tau, tau_rate) = (0.5 * blur * blur, blur * blur_rate);
        self.decay.iter().map(move |lambda| {
            let kept = (1.0 - self.d_min) * (-lambda * tau).exp();
            (kept + self.d_min, -lambda * tau_rate * kept)
        })
    }

    /// ȧ/a of each frequency.
    fn rates(&self, t: f64) -> impl Iterator<Item = f64> + '_ {
        let common = -RATE * Self::phase(t).tan();
        self.dissipation(t).map(move |(d, rate)| common + rate / d)
    }

    /// V diag(values) Vᵀ.
    fn op(&self, values: impl Iterator<Item = f64>) -> Op {
        // One value for each frequency, by construction.
        Op::diagonal(&self.basis, values.collect()).unwrap_or(Op::Scalar(f64::NAN))
    }
}

/// `π² (i²/h² + j²/w²)`: the eigenvalues of −Δ on an image whose borders reflect.
///
/// # Errors
/// Unless height and width are from 1 to 4096.
pub(super) fn frequencies(height: usize, width: usize) -> Result<Vec<f64>> {
    in_range("height", height as f64, 1.0, 4096.0)?;
    in_range("width", width as f64, 1.0, 4096.0)?;
    let square = |k: usize, n: usize| (PI * k as f64 / n as f64).powi(2);
    Ok((0..height * width).map(|at| square(at / width, height) + square(at % width, width)).collect())
}

impl LinearSde for Blurring {
    fn span(&self) -> Span {
        Span { end: LAST_RHO.atan() / RATE - OFFSET, sampling: 1e-3, likelihood: 1e-5 }
    }
    fn drift(&self, t: f64) -> Op {
        self.op(self.rates(t))
    }
    fn diffusion(&self, t: f64) -> Op {
        let (sigma, sigma_rate) = Self::phase(t).sin_cos();
        self.op(self.rates(t).map(|rate| 2.0 * sigma * (RATE * sigma_rate - sigma * rate)))
    }
    fn transition(&self, to: f64, from: f64) -> Op {
        let common = Self::phase(to).cos() / Self::phase(from).cos();
        let pairs = self.dissipation(to).zip(self.dissipation(from));
        self.op(pairs.map(|((to, _), (from, _))| common * to / from))
    }
    fn signal(&self, t: f64) -> Op {
        let alpha = Self::phase(t).cos();
        self.op(self.dissipation(t).map(|(d, _)| alpha * d))
    }
    fn signal_rate(&self, t: f64) -> Op {
        let (sin, alpha) = Self::phase(t).sin_cos();
        self.op(self.dissipation(t).map(|(d, rate)| alpha * rate - RATE * sin * d))
    }
    fn covariance(&self, t: f64) -> Op {
        Op::Scalar(Self::phase(t).sin().powi(2))
    }
    fn factor(&self, t: f64) -> Op {
        Op::Scalar(Self::phase(t).sin())
    }
    fn factor_rate(&self, t: f64) -> Op {
        Op::Scalar(RATE * Self::phase(t).cos())
    }
    fn prior(&self) -> Op {
        Op::IDENTITY
    }
    fn clock(&self, t: f64) -> f64 {
        Self::phase(t).tan().ln()
    }
    fn time_of_clock(&self, clock: f64) -> f64 {
        clock.exp().atan() / RATE - OFFSET
    }
    fn clock_rate(&self, t: f64) -> f64 {
        2.0 * RATE / (2.0 * Self::phase(t)).sin()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_frequency_is_not_blurred_and_a_bump_spreads_as_a_gaussian() -> Result<()> {
        let (n, t) = (65, 0.4);
        let sde = Blurring::new((1, n), 6.0, 1e-6)?;
        let alpha = Blurring::phase(t).cos();
        let width = 6.0 * (FRAC_PI_2 * t).sin().powi(2);
        // A Gaussian bump of variance v far from the borders becomes one of variance v + σ_B².
        let bump = |v: f64| -> Vec<f64> {
            (0..n).map(|i| (-0.5 * (i as f64 - 32.0).powi(2) / v).exp() / v.sqrt()).collect()
        };
        let blurred = sde.signal(t).apply_host(&bump(9.0))?;
        let expected = bump(9.0 + width * width);
        let gap = blurred.iter().zip(&expected).map(|(a, b)| (a / alpha - b).abs()).fold(0.0, f64::max);
        // Of a bump of height a third a part d_min stays as it is.
        assert!(gap < 1e-6, "{gap:e}");
        let flat = sde.signal(t).apply_host(&vec![1.0; n])?;
        assert!(flat.iter().all(|v| (v / alpha - 1.0).abs() < 1e-13));
        Ok(())
    }

    #[test]
    fn without_blur_it_is_a_scalar_process() -> Result<()> {
        let sde = Blurring::new((2, 3), 0.0, 0.001)?;
        let alpha = Blurring::phase(0.3).cos();
        assert!(sde.signal(0.3).sub(&Op::Scalar(alpha))?.max_abs() < 1e-15);
        // g² = 2 φ̇ tan φ, as for every process with α² + σ² = 1.
        let expected = 2.0 * RATE * Blurring::phase(0.3).tan();
        assert!(sde.diffusion(0.3).sub(&Op::Scalar(expected))?.max_abs() < 1e-13);
        Ok(())
    }
}
