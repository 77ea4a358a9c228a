//! Checkerboard: uniform on the eight dark squares of side 2 of a 4×4 board over [−4, 4]².
//!
//! `x₁ = 2a`, `x₂ = 2 (u − 2b + ⌊a⌋ mod 2)` with a ~ U[−2, 2], u ~ U[0, 1], b ~ Bernoulli(½). Both axes are
//! uniform on [−4, 4]: mean 0, variance 16/3. Entropy ln 32.
//!
//! Reference: Grathwohl et al. 2019 (FFJORD), arXiv 1810.01367, and its published code.

use sde_core::noise::Draws;

use super::{Corners, Recipe};

const SIDE: f64 = 2.0;
const AREA: f64 = 32.0;

/// The board.
#[derive(Debug)]
pub(super) struct Checkerboard;

impl Recipe for Checkerboard {
    fn sample(&self, draws: &mut Draws) -> Vec<f64> {
        let a = 4.0 * draws.uniform() - 2.0;
        let u = draws.uniform();
        let b = if draws.sign() < 0.0 { 2.0 } else { 0.0 };
        vec![SIDE * a, SIDE * (u - b + a.floor().rem_euclid(2.0))]
    }

    fn moments(&self) -> (Vec<f64>, Vec<f64>) {
        (vec![0.0; 2], vec![16.0 / 3.0; 2])
    }

    fn log_density(&self, point: &[f64]) -> Option<f64> {
        let on_board = point.iter().all(|v| v.abs() <= 2.0 * SIDE);
        let cell: f64 = point.iter().map(|v| (v / SIDE).floor()).sum();
        Some(if on_board && cell.rem_euclid(2.0) == 0.0 { -AREA.ln() } else { f64::NEG_INFINITY })
    }

    fn entropy(&self) -> Option<f64> {
        Some(AREA.ln())
    }

    fn boxes(&self) -> Option<Corners> {
        let cells = (-2..2).flat_map(|i| (-2..2).map(move |j| [i, j]));
        let dark = cells.filter(|[i, j]| (i + j) % 2 == 0).map(|cell| cell.map(f64::from));
        let corners = dark.map(|[i, j]| (vec![SIDE * i, SIDE * j], vec![SIDE * (i + 1.0), SIDE * (j + 1.0)]));
        Some(corners.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sde_core::noise::{Noise, Stream};

    #[test]
    fn every_dark_square_gets_an_eighth_and_no_light_one_any() {
        let n = 80_000;
        let mut counts = [[0u32; 4]; 4];
        for i in 0..n {
            let point = Checkerboard.sample(&mut Noise::new(0).draws(Stream::Data, 0, i));
            let cell = |v: f64| (v / SIDE + 2.0).floor() as usize;
            counts[cell(point[0])][cell(point[1])] += 1;
        }
        // Binomial standard error √(n·⅛·⅞) = 93.5.
        for (i, row) in counts.iter().enumerate() {
            for (j, &count) in row.iter().enumerate() {
                let expected = if (i + j) % 2 == 0 { f64::from(n) / 8.0 } else { 0.0 };
                assert!((f64::from(count) - expected).abs() <= expected.min(5.0 * 93.5), "{i} {j}: {count}");
            }
        }
    }
}
