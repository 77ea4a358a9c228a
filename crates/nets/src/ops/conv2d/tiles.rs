//! The linear maps of Winograd's convolution F(4×4, 3×3), on many tiles at once.
//!
//! A 3×3 kernel g and a 6×6 tile d of the input make a 4×4 tile of the output with 36 products instead of 144:
//!
//! ```text
//! y = Aᵀ [ (G g Gᵀ) ⊙ (Bᵀ d B) ] A
//! ```
//!
//! Each matrix evaluates a polynomial at, or interpolates it from, the points 0, ±1, ±2, ∞. The maps are applied
//! first to the columns of a tile, then to its rows; a [`Lane`] holds the same entry of [`LANES`] tiles.
//!
//! Reference: Lavin, Gray 2016, arXiv 1509.09308, equations 8–16.

use std::ops::{Add, Mul, Sub};

use super::super::kernel::{LANES, Real};

/// One entry of [`LANES`] tiles.
#[derive(Clone, Copy)]
pub(super) struct Lane<T>(pub [T; LANES]);

impl<T: Real> Lane<T> {
    /// Zeros.
    #[inline(always)]
    pub(super) fn zero() -> Self {
        Self([T::zero(); LANES])
    }

    /// The first entries from a slice; zeros where it ends.
    #[inline(always)]
    pub(super) fn load(values: &[T]) -> Self {
        match values.first_chunk::<LANES>() {
            Some(whole) => Self(*whole),
            None => {
                let mut lane = Self::zero();
                lane.0.iter_mut().zip(values).for_each(|(to, &from)| *to = from);
                lane
            }
        }
    }

    /// As many entries as the slice takes.
    #[inline(always)]
    pub(super) fn store(self, values: &mut [T]) {
        match values.first_chunk_mut::<LANES>() {
            Some(whole) => *whole = self.0,
            None => values.iter_mut().zip(self.0).for_each(|(to, from)| *to = from),
        }
    }
}

impl<T: Real> Add for Lane<T> {
    type Output = Self;
    #[inline(always)]
    fn add(mut self, other: Self) -> Self {
        for i in 0..LANES {
            self.0[i] += other.0[i];
        }
        self
    }
}

impl<T: Real> Sub for Lane<T> {
    type Output = Self;
    #[inline(always)]
    fn sub(mut self, other: Self) -> Self {
        for i in 0..LANES {
            self.0[i] -= other.0[i];
        }
        self
    }
}

impl<T: Real> Mul<f64> for Lane<T> {
    type Output = Self;
    #[inline(always)]
    fn mul(mut self, factor: f64) -> Self {
        let factor = T::from_f64(factor);
        for i in 0..LANES {
            self.0[i] *= factor;
        }
        self
    }
}

/// A map along one side of a tile, from N entries to M.
pub(super) trait Side<T, const N: usize, const M: usize> {
    /// The image of one column or row.
    fn apply(x: [Lane<T>; N]) -> [Lane<T>; M];
}

/// Bᵀ: an input tile to the points.
pub(super) struct Input;
/// Aᵀ: products at the points to an output tile.
pub(super) struct Output;
/// A: the adjoint of [`Output`].
pub(super) struct OutputAdjoint;
/// G: a kernel to the points.
pub(super) struct Kernel;
/// Gᵀ: the adjoint of [`Kernel`].
pub(super) struct KernelAdjoint;

impl<T: Real> Side<T, 6, 6> for Input {
    #[inline(always)]
    fn apply([d0, d1, d2, d3, d4, d5]: [Lane<T>; 6]) -> [Lane<T>; 6] {
        let (even, odd) = (d4 - d2 * 4.0, d3 - d1 * 4.0);
        let (even2, odd2) = (d4 - d2, (d3 - d1) * 2.0);
        [
            d0 * 4.0 - d2 * 5.0 + d4,
            even + odd,
            even - odd,
            even2 + odd2,
            even2 - odd2,
            d1 * 4.0 - d3 * 5.0 + d5,
        ]
    }
}

impl<T: Real> Side<T, 6, 4> for Output {
    #[inline(always)]
    fn apply([m0, m1, m2, m3, m4, m5]: [Lane<T>; 6]) -> [Lane<T>; 4] {
        let (sum, difference) = (m1 + m2, m1 - m2);
        let (sum2, difference2) = (m3 + m4, m3 - m4);
        [
            m0 + sum + sum2,
            difference + difference2 * 2.0,
            sum + sum2 * 4.0,
            difference + difference2 * 8.0 + m5,
        ]
    }
}

impl<T: Real> Side<T, 4, 6> for OutputAdjoint {
    #[inline(always)]
    fn apply([y0, y1, y2, y3]: [Lane<T>; 4]) -> [Lane<T>; 6] {
        let (even, odd) = (y0 + y2, y1 + y3);
        let (even2, odd2) = (y0 + y2 * 4.0, y1 * 2.0 + y3 * 8.0);
        [y0, even + odd, even - odd, even2 + odd2, even2 - odd2, y3]
    }
}

impl<T: Real> Side<T, 3, 6> for Kernel {
    #[inline(always)]
    fn apply([g0, g1, g2]: [Lane<T>; 3]) -> [Lane<T>; 6] {
        let (even, odd) = ((g0 + g2) * (-1.0 / 6.0), g1 * (-1.0 / 6.0));
        let (even2, odd2) = (g0 * (1.0 / 24.0) + g2 * (1.0 / 6.0), g1 * (1.0 / 12.0));
        [g0 * 0.25, even + odd, even - odd, even2 + odd2, even2 - odd2, g2]
    }
}

impl<T: Real> Side<T, 6, 3> for KernelAdjoint {
    #[inline(always)]
    fn apply([u0, u1, u2, u3, u4, u5]: [Lane<T>; 6]) -> [Lane<T>; 3] {
        let (sum, difference) = ((u1 + u2) * (-1.0 / 6.0), (u2 - u1) * (1.0 / 6.0));
        let (sum2, difference2) = (u3 + u4, (u3 - u4) * (1.0 / 12.0));
        [u0 * 0.25 + sum + sum2 * (1.0 / 24.0), difference + difference2, sum + sum2 * (1.0 / 6.0) + u5]
    }
}

/// The map along both sides: `tile(i, j)` are the entries of an N×N tile, `out(i, j, entry)` takes those of an M×M
/// one.
#[inline(always)]
pub(super) fn both_sides<T: Real, S: Side<T, N, M>, const N: usize, const M: usize>(
    tile: impl Fn(usize, usize) -> Lane<T>,
    mut out: impl FnMut(usize, usize, Lane<T>),
) {
    let mut columns = [[Lane::zero(); N]; M];
    for j in 0..N {
        let mut column = [Lane::zero(); N];
        for (i, entry) in column.iter_mut().enumerate() {
            *entry = tile(i, j);
        }
        for (row, entry) in columns.iter_mut().zip(S::apply(column)) {
            row[j] = entry;
        }
    }
    for (i, row) in columns.into_iter().enumerate() {
        for (j, entry) in S::apply(row).into_iter().enumerate() {
            out(i, j, entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(n: usize, k: f64) -> Vec<f64> {
        (0..n).map(|i| (i as f64 * k).sin()).collect()
    }

    fn map<S: Side<f64, N, M>, const N: usize, const M: usize>(tile: &[f64]) -> Vec<f64> {
        let mut out = vec![f64::NAN; M * M];
        both_sides::<f64, S, N, M>(|i, j| Lane([tile[i * N + j]; LANES]), |i, j, v| out[i * M + j] = v.0[3]);
        out
    }

    fn dot(a: &[f64], b: &[f64]) -> f64 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }

    #[test]
    fn a_tile_is_the_convolution_by_definition() {
        let (d, g) = (wave(36, 1.3), wave(9, 0.7));
        let (at_points, kernel) = (map::<Input, 6, 6>(&d), map::<Kernel, 3, 6>(&g));
        let products: Vec<f64> = at_points.iter().zip(kernel).map(|(a, b)| a * b).collect();
        let y = map::<Output, 6, 4>(&products);
        for i in 0..4 {
            for j in 0..4 {
                let taps = (0..3).flat_map(|k| (0..3).map(move |l| (k, l)));
                let expected: f64 = taps.map(|(k, l)| g[k * 3 + l] * d[(i + k) * 6 + j + l]).sum();
                assert!((y[i * 4 + j] - expected).abs() < 1e-13);
            }
        }
    }

    #[test]
    fn adjoints_are_adjoint() {
        let (points, y, g) = (wave(36, 0.9), wave(16, 1.1), wave(9, 0.4));
        let output = dot(&map::<Output, 6, 4>(&points), &y) - dot(&points, &map::<OutputAdjoint, 4, 6>(&y));
        let kernel = dot(&map::<Kernel, 3, 6>(&g), &points) - dot(&g, &map::<KernelAdjoint, 6, 3>(&points));
        assert!(output.abs() < 1e-12 && kernel.abs() < 1e-12, "{output:e} {kernel:e}");
    }
}
