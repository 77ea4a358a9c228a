//! Transition and covariance of `du = F u db + G dw` from a point, together: `Ψ = exp(F b)`, `Σ = ∫_0^b exp(F τ) G Gᵀ exp(F τ)ᵀ dτ`.
//!
//! Both by their Taylor series over a short time and doubling, `Ψ_{2b} = Ψ_b Ψ_b`, `Σ_{2b} = Σ_b + Ψ_b Σ_b Ψ_bᵀ`: sums of positive
//! semi-definite matrices. Where the stationary law is N(0, I/m), Σ is (I − ΨΨᵀ)/m, too, but that difference loses all digits of
//! the entries that are small at short times; these here keep theirs, entry by entry (a position of Langevin dynamics has b³).
//!
//! Reference: Van Loan 1978, "Computing integrals involving the matrix exponential", for the pair from one exponential.
//! Differs: doubling from a short time, which has no block that grows like exp(−F b).

use nalgebra::allocator::Allocator;
use nalgebra::{DefaultAllocator, Dim, OMatrix};

/// The largest `‖F‖₁ b` of the short time; with terms of order k below 2ᵏ θᵏ / k!, [`TERMS`] of them reach rounding.
const THETA: f64 = 0.5;
const TERMS: u32 = 20;

/// `(Ψ, Σ)` after the time `b ≥ 0` with drift F and diffusion `G Gᵀ`.
pub(super) fn propagate<N: Dim>(
    drift: &OMatrix<f64, N, N>,
    diffusion: &OMatrix<f64, N, N>,
    b: f64,
) -> (OMatrix<f64, N, N>, OMatrix<f64, N, N>)
where
    DefaultAllocator: Allocator<N, N>,
{
    let norm = drift.column_iter().map(|column| column.iter().map(|v| v.abs()).sum()).fold(0.0, f64::max);
    let doublings = (norm * b / THETA).log2().ceil().clamp(0.0, 1000.0) as i32;
    let step = b * 0.5f64.powi(doublings);
    let mut power = OMatrix::identity_generic(drift.shape_generic().0, drift.shape_generic().1);
    let mut spread = diffusion * step;
    let (mut transition, mut covariance) = (power.clone(), spread.clone());
    for k in 1..=TERMS {
        power = drift * power * (step / f64::from(k));
        transition += &power;
        let moved = drift * &spread * (step / f64::from(k + 1));
        spread = &moved + moved.transpose();
        covariance += &spread;
    }
    for _ in 0..doublings {
        covariance += &transition * &covariance * transition.transpose();
        transition = &transition * &transition;
    }
    (transition, covariance)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nalgebra::{DMatrix, Matrix2};

    #[test]
    fn transition_and_covariance_of_long_and_short_times() {
        // G1 of the flexible diffusions: a pair that commutes with nothing.
        let q = DMatrix::from_row_slice(3, 3, &[2.0, 0.3, 0.1, 0.3, 1.0, -0.2, 0.1, -0.2, 0.5]);
        let omega = DMatrix::from_row_slice(3, 3, &[0.0, 0.7, -0.4, -0.7, 0.0, 1.1, 0.4, -1.1, 0.0]);
        let drift = -(&q * 0.5 + omega);
        for b in [0.0, 1e-9, 0.01, 0.8, 3.0, 10.05, 400.0] {
            let (psi, sigma) = propagate(&drift, &q, b);
            assert!((&psi - (&drift * b).exp()).amax() < 2e-14, "{b}");
            assert!((&sigma - (DMatrix::identity(3, 3) - &psi * psi.transpose())).amax() < 2e-14, "{b}");
        }
        // To first orders Σ = b Q + b²/2 (F Q + Q Fᵀ).
        let (b, through) = (1e-9, &drift * &q);
        let expected = &q * b + (&through + through.transpose()) * (0.5 * b * b);
        assert!((propagate(&drift, &q, b).1 - &expected).amax() < 1e-15 * b);
    }

    #[test]
    fn small_entries_keep_their_digits() {
        // Critically damped: Var x = 1 − e^{−2b} (1 + 2b + 2b²) = 4/3 b³ (1 − 3/2 b …), all of it cancellation at b = 1e-6.
        let (drift, q) = (Matrix2::new(0.0, 1.0, -1.0, -2.0), Matrix2::new(0.0, 0.0, 0.0, 4.0));
        for b in [1e-6, 1e-4] {
            let position = propagate(&drift, &q, b).1[(0, 0)];
            let series = 4.0 / 3.0 * b.powi(3) * (1.0 - 1.5 * b + 1.2 * b * b);
            assert!((position / series - 1.0).abs() < 10.0 * b.powi(3) + 1e-15, "{b}: {position:e}");
        }
    }
}
