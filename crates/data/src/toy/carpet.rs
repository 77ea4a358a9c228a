//! Sierpiński carpet of level 3: uniform on the 8³ small squares that are left of the unit square.
//!
//! In base 3, the three leading digits of (x₁, x₂) are never both 1 at one place; the rest is uniform. A
//! digit is 0, 1, 2 with probabilities ⅜, ¼, ⅜: an axis has mean ½ and variance ¾ (9⁻¹ + 9⁻² + 9⁻³) + 9⁻³/12.
//! Entropy 3 ln(8/9).
//!
//! Reference: the set is shown in Zhang, Chen 2021 (DiffFlow), arXiv 2110.07579.
//! Differs: exactly uniform, where the published code blurs a picture.

use sde_core::noise::Draws;

use super::{Corners, Recipe};

const LEVEL: i32 = 3;

/// The carpet.
#[derive(Debug)]
pub(super) struct Carpet;

/// The logarithm of the area left.
fn log_area() -> f64 {
    f64::from(LEVEL) * (8.0f64 / 9.0).ln()
}

impl Recipe for Carpet {
    fn sample(&self, draws: &mut Draws) -> Vec<f64> {
        let (mut x, mut y, mut side) = (0.0, 0.0, 1.0);
        for _ in 0..LEVEL {
            side /= 3.0;
            // Cells 0 to 8 row by row, without the middle one.
            let cell = match draws.below(8) {
                k @ 0..4 => k,
                k => k + 1,
            };
            x += side * (cell % 3) as f64;
            y += side * (cell / 3) as f64;
        }
        vec![x + side * draws.uniform(), y + side * draws.uniform()]
    }

    fn moments(&self) -> (Vec<f64>, Vec<f64>) {
        let digits: f64 = (1..=LEVEL).map(|k| 0.75 * 9f64.powi(-k)).sum();
        (vec![0.5; 2], vec![digits + 9f64.powi(-LEVEL) / 12.0; 2])
    }

    fn log_density(&self, point: &[f64]) -> Option<f64> {
        let &[mut x, mut y] = point else { return None };
        let inside = |v: f64| (0.0..1.0).contains(&v);
        if !inside(x) || !inside(y) {
            return Some(f64::NEG_INFINITY);
        }
        for _ in 0..LEVEL {
            (x, y) = (3.0 * x, 3.0 * y);
            if x.floor() == 1.0 && y.floor() == 1.0 {
                return Some(f64::NEG_INFINITY);
            }
            (x, y) = (x.fract(), y.fract());
        }
        Some(-log_area())
    }

    fn entropy(&self) -> Option<f64> {
        Some(log_area())
    }

    fn boxes(&self) -> Option<Corners> {
        let mut corners = vec![([0.0, 0.0], 1.0)];
        for _ in 0..LEVEL {
            let kept =
                (0..9).filter(|cell| *cell != 4).map(|cell| [f64::from(cell % 3), f64::from(cell / 3)]);
            let split = |([x, y], side): ([f64; 2], f64)| {
                let side = side / 3.0;
                kept.clone().map(move |[i, j]| ([x + side * i, y + side * j], side))
            };
            corners = corners.into_iter().flat_map(split).collect();
        }
        Some(corners.into_iter().map(|([x, y], side)| (vec![x, y], vec![x + side, y + side])).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sde_core::noise::{Noise, Stream};

    #[test]
    fn every_small_square_gets_its_share_and_no_hole_any() {
        let n = 100_000;
        let mut counts = [[0u32; 27]; 27];
        for i in 0..n {
            let point = Carpet.sample(&mut Noise::new(0).draws(Stream::Data, 0, i));
            counts[(27.0 * point[0]) as usize][(27.0 * point[1]) as usize] += 1;
        }
        let is_hole =
            |i: usize, j: usize| [9, 3, 1].iter().any(|unit| i / unit % 3 == 1 && j / unit % 3 == 1);
        let mut chi_square = 0.0;
        for (i, row) in counts.iter().enumerate() {
            for (j, &count) in row.iter().enumerate() {
                let expected = f64::from(n) / 512.0;
                if is_hole(i, j) {
                    assert_eq!(count, 0, "{i} {j}");
                } else {
                    chi_square += (f64::from(count) - expected).powi(2) / expected;
                }
            }
        }
        // χ² with 511 degrees of freedom: mean 511, standard deviation √1022.
        assert!((chi_square - 511.0).abs() < 5.0 * 1022f64.sqrt(), "{chi_square}");
    }
}
