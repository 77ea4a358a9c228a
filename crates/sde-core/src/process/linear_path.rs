//! The straight path of rectified flow and flow matching: `α = 1 − t`, `σ = t`.
//!
//! Reference: Liu, Gong, Liu 2022, arXiv 2209.03003, Eq. (1); Lipman et al. 2022, arXiv 2210.02747, Eq. (20).
//! Differs: time runs from data at 0 to noise at 1. At t = 1 the signal is gone: α = 0, F and ρ are infinite, the velocity is not.

use crate::{ScalarSde, Span};

/// The linear path, t in [0, 1].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LinearPath;

impl ScalarSde for LinearPath {
    fn span(&self) -> Span {
        Span { end: 1.0, sampling: 1e-3, likelihood: 1e-5 }
    }
    fn alpha(&self, t: f64) -> f64 {
        1.0 - t
    }
    fn sigma(&self, t: f64) -> f64 {
        t
    }
    fn alpha_rate(&self, _: f64) -> f64 {
        -1.0
    }
    fn sigma_rate(&self, _: f64) -> f64 {
        1.0
    }
    fn t_of_rho(&self, rho: f64) -> f64 {
        if rho.is_infinite() { 1.0 } else { rho / (1.0 + rho) }
    }
}
