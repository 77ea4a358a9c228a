//! Concentric rings in the plane.
//!
//! ```text
//! log μ̂ = −min_k (‖x‖ − c_k)² / v        c = 1, 3, 5        v = 0.01
//! ```
//!
//! With ρ_k the radii nearest to c_k, `Z = 2π Σ_k ∫_{ρ_k} r exp(−(r − c_k)²/v) dr`; the sections between two rings hold e^{−100}, so log Z is
//! `log(2π √(πv) Σ c_k)` to more digits than a double has.
//!
//! Reference: Zhang 2023 (thesis), Figure 5.2, with the numbers of its public code.

use std::f64::consts::{PI, TAU};

use candle_core::Tensor;

use super::{LogDensity, Target, by_rows};
use crate::Result;

const RADII: [f64; 3] = [1.0, 3.0, 5.0];
const WIDTH: f64 = 0.01;

/// The three rings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rings;

impl Target for Rings {
    fn name(&self) -> &str {
        "rings"
    }

    fn dim(&self) -> usize {
        2
    }

    fn log_normaliser(&self) -> Option<f64> {
        Some((TAU * (PI * WIDTH).sqrt() * RADII.iter().sum::<f64>()).ln())
    }

    fn log_density(&self, x: &Tensor) -> Result<LogDensity> {
        by_rows(x, 2, |x, score| {
            let radius = x[0].hypot(x[1]);
            let off = RADII
                .map(|c| radius - c)
                .into_iter()
                .fold(f64::INFINITY, |a, b| if b.abs() < a.abs() { b } else { a });
            // The centre has no direction; the force vanishes there on average.
            let along = if radius > 0.0 { -2.0 * off / (WIDTH * radius) } else { 0.0 };
            for (s, v) in score.iter_mut().zip(x) {
                *s = along * v;
            }
            -off * off / WIDTH
        })
    }
}
