//! An affine map of a plane of values: `new(z) = old(A z + b)`, z relative to the centre.
//!
//! The plane goes on beyond its border by reflection (without repeating the border), is doubled in resolution by
//! the low-pass filter g of a wavelet, read by bilinear interpolation on a grid twice as fine as the result, and
//! halved in resolution by the same filter, reversed:
//!
//! ```text
//! U[m] = 2 Σ_n g[m − 2n + c] x[n]        V[m] = U(A z_m + b)        y[k] = Σ_m g[m − 2k + c] V[m]
//! ```
//!
//! in both directions, m standing for the place `(m + c − μ)/2`, μ = Σ j g[j]. The filter is orthonormal, so the
//! identity gives the plane back; it has six vanishing moments, so planes of linear ramps are mapped exactly, and
//! what is left for smooth ones is the error of the bilinear step, `(f_xx + f_yy)/32`.
//!
//! Reference: Karras et al. 2020, arXiv 2006.06676, appendix B.2 (sym6, two times oversampling); Daubechies 1992,
//! "Ten lectures on wavelets", Table 6.3 (the filter).
//! Differs: the filter stands at its centre of mass μ, 0.4 of a fine sample from the middle of its twelve taps; the
//! reflection goes on for ever, where theirs ends after one image and zeros follow.

/// c: any integer would do; this one makes m about twice the place.
const OFFSET: i64 = 5;

/// g, the low-pass filter of the wavelet sym6, with sum 1.
const TAPS: [f64; 12] = {
    let mut taps = [
        0.015404109327027373,
        0.0034907120842174702,
        -0.11799011114819057,
        -0.048311742585633,
        0.4910559419267466,
        0.787641141030194,
        0.3379294217276218,
        -0.07263752278646252,
        -0.021060292512300564,
        0.04472490177066578,
        0.0017677118642428036,
        -0.007800708325034148,
    ];
    let mut i = 0;
    while i < 12 {
        taps[i] *= std::f64::consts::FRAC_1_SQRT_2;
        i += 1;
    }
    taps
};

/// μ = Σ j g[j].
const CENTRE: f64 = {
    let (mut centre, mut j) = (0.0, 0);
    while j < 12 {
        centre += j as f64 * TAPS[j];
        j += 1;
    }
    centre
};

/// `z ↦ A z + b`, z = (to the right, down).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Affine {
    a: [[f64; 2]; 2],
    b: [f64; 2],
}

impl Affine {
    /// A shift.
    pub(super) fn shift(right: f64, down: f64) -> Self {
        Self { a: [[1.0, 0.0], [0.0, 1.0]], b: [right, down] }
    }

    /// A factor for each direction.
    pub(super) fn diagonal(right: f64, down: f64) -> Self {
        Self { a: [[right, 0.0], [0.0, down]], b: [0.0; 2] }
    }

    /// A rotation that takes right to (cos φ, sin φ).
    pub(super) fn rotation(angle: f64) -> Self {
        let (sin, cos) = (libm::sin(angle), libm::cos(angle));
        Self { a: [[cos, -sin], [sin, cos]], b: [0.0; 2] }
    }

    /// This map, then another.
    pub(super) fn then(self, next: Self) -> Self {
        let column = |j: usize| next.linear([self.a[0][j], self.a[1][j]]);
        let ([a00, a10], [a01, a11]) = (column(0), column(1));
        Self { a: [[a00, a01], [a10, a11]], b: next.of(self.b) }
    }

    fn linear(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        [self.a[0][0] * x + self.a[0][1] * y, self.a[1][0] * x + self.a[1][1] * y]
    }

    fn of(&self, z: [f64; 2]) -> [f64; 2] {
        let [x, y] = self.linear(z);
        [x + self.b[0], y + self.b[1]]
    }
}

/// Replaces each plane of an image, of `height` rows, by what stands where `inverse` leads to.
pub(super) fn warp(image: &mut [f32], height: usize, width: usize, inverse: &Affine) {
    let sources = sources(height, width, inverse);
    for plane in image.chunks_mut(height * width) {
        let old = doubled_plane(plane, height, width);
        let new: Vec<f64> = sources.iter().map(|source| source.read(&old)).collect();
        halve_plane(&new, plane, height, width);
    }
}

/// A place between four fine samples.
struct Source {
    corners: [usize; 4],
    across: f64,
    along: f64,
}

impl Source {
    /// The value there, by bilinear interpolation.
    fn read(&self, fine: &[f64]) -> f64 {
        let [a, b, c, d] = self.corners.map(|corner| fine[corner]);
        let (upper, lower) = (a + self.across * (b - a), c + self.across * (d - c));
        upper + self.along * (lower - upper)
    }
}

/// Where every fine sample of the new plane comes from, row by row.
fn sources(height: usize, width: usize, inverse: &Affine) -> Vec<Source> {
    let [middle_x, middle_y] = [width, height].map(|n| (n as f64 - 1.0) / 2.0);
    let (rows, columns) = (2 * period(height), 2 * period(width));
    let source = |m: usize, n: usize| {
        let [x, y] = inverse.of([place(n) - middle_x, place(m) - middle_y]);
        let (left, right, across) = neighbours(x + middle_x, columns);
        let (up, low, along) = neighbours(y + middle_y, rows);
        let corners =
            [up * columns + left, up * columns + right, low * columns + left, low * columns + right];
        Source { corners, across, along }
    };
    (0..fine_samples(height))
        .flat_map(|m| (0..fine_samples(width)).map(move |n| (m, n)))
        .map(|(m, n)| source(m, n))
        .collect()
}

/// The fine samples before and after a place, and the part of the way between them.
fn neighbours(place: f64, samples: usize) -> (usize, usize, f64) {
    let m = 2.0 * place - OFFSET as f64 + CENTRE;
    let index = (m.floor() as i64).rem_euclid(samples as i64) as usize;
    (index, (index + 1) % samples, m - m.floor())
}

/// The number of fine samples that n values are made from: m = −c … 2(n − 1) − c + 11.
fn fine_samples(n: usize) -> usize {
    2 * (n - 1) + TAPS.len()
}

/// The place of the i-th of those: m = i − c stands at (m + c − μ)/2.
fn place(i: usize) -> f64 {
    (i as f64 - CENTRE) / 2.0
}

/// The period of the reflections of n values.
fn period(n: usize) -> usize {
    (2 * n).saturating_sub(2).max(1)
}

/// For each of one period of fine samples, the factors of the values that it is made of.
fn doubling(n: usize) -> Vec<[(usize, f64); 6]> {
    let period = period(n) as i64;
    let of_sample = |m: i64| {
        let from = m + OFFSET;
        std::array::from_fn(|i| {
            let j = 2 * i + from.rem_euclid(2) as usize;
            let index = ((from - j as i64) / 2).rem_euclid(period) as usize;
            // Beyond the last value they come in reverse.
            (if index < n { index } else { period as usize - index }, 2.0 * TAPS[j])
        })
    };
    (0..2 * period).map(of_sample).collect()
}

/// A plane at twice its resolution, one period of its reflections in both directions.
fn doubled_plane(plane: &[f32], height: usize, width: usize) -> Vec<f64> {
    let (down, across) = (doubling(height), doubling(width));
    let columns = across.len();
    let mut wide = vec![0.0; height * columns];
    for (wide, row) in wide.chunks_mut(columns).zip(plane.chunks(width)) {
        for (value, terms) in wide.iter_mut().zip(&across) {
            *value = terms.iter().map(|(n, g)| g * f64::from(row[*n])).sum();
        }
    }
    let mut fine = vec![0.0; down.len() * columns];
    for (row, terms) in fine.chunks_mut(columns).zip(&down) {
        for (n, g) in terms {
            row.iter_mut().zip(&wide[n * columns..]).for_each(|(value, v)| *value += g * v);
        }
    }
    fine
}

/// A plane from its fine samples: halved along each row, then along each column.
fn halve_plane(fine: &[f64], plane: &mut [f32], height: usize, width: usize) {
    let columns = fine_samples(width);
    let mut narrow = vec![0.0; fine_samples(height) * width];
    for (narrow, row) in narrow.chunks_mut(width).zip(fine.chunks(columns)) {
        for (k, value) in narrow.iter_mut().enumerate() {
            *value = TAPS.iter().zip(&row[2 * k..]).map(|(g, v)| g * v).sum();
        }
    }
    let mut sums = vec![0.0; width];
    for (k, row) in plane.chunks_mut(width).enumerate() {
        sums.fill(0.0);
        for (g, narrow) in TAPS.iter().zip(narrow[2 * k * width..].chunks(width)) {
            sums.iter_mut().zip(narrow).for_each(|(sum, v)| *sum += g * v);
        }
        row.iter_mut().zip(&sums).for_each(|(value, sum)| *value = *sum as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::PI;

    const IDENTITY: Affine = Affine { a: [[1.0, 0.0], [0.0, 1.0]], b: [0.0; 2] };

    /// The conditions that define the filter, up to which roots of its polynomial are taken. The published taps are
    /// right to about 1e-12.
    #[test]
    fn the_filter_is_orthonormal_and_has_six_vanishing_moments() {
        assert!((TAPS.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        for shift in 0..6 {
            let product: f64 = TAPS.iter().zip(&TAPS[2 * shift..]).map(|(a, b)| a * b).sum();
            let expected = if shift == 0 { 0.5 } else { 0.0 };
            assert!((product - expected).abs() < 1e-12, "{shift}: {product}");
        }
        for power in 0..6 {
            let term =
                |(j, g): (usize, &f64)| g * (1.0 - 2.0 * (j % 2) as f64) * (j as f64 - 5.5).powi(power);
            let moment: f64 = TAPS.iter().enumerate().map(term).sum();
            assert!(moment.abs() < 1e-11 * 5.5f64.powi(power), "{power}: {moment}");
        }
    }

    /// A plane of `f(x, y)`, mapped, against `f` of the place that the map leads to.
    fn gap(f: impl Fn(f64, f64) -> f64, height: usize, width: usize, map: &Affine, margin: usize) -> f64 {
        let mut plane: Vec<f32> =
            (0..height * width).map(|i| f((i % width) as f64, (i / width) as f64) as f32).collect();
        warp(&mut plane, height, width, map);
        let [middle_x, middle_y] = [width, height].map(|n| (n as f64 - 1.0) / 2.0);
        let mut worst = 0.0f64;
        for y in margin..height - margin {
            for x in margin..width - margin {
                let [u, v] = map.of([x as f64 - middle_x, y as f64 - middle_y]);
                worst = worst.max((f64::from(plane[y * width + x]) - f(u + middle_x, v + middle_y)).abs());
            }
        }
        worst
    }

    #[test]
    fn the_identity_gives_every_plane_back() {
        // No pattern: the remainders of a multiplication.
        let f = |x: f64, y: f64| ((7.0 * x + 31.0 * y + x * y) % 17.0) / 17.0;
        for (height, width) in [(32, 32), (5, 8), (2, 3), (1, 6), (1, 1)] {
            assert!(gap(f, height, width, &IDENTITY, 0) < 1e-6, "{height}×{width}");
        }
    }

    #[test]
    fn whole_shifts_reflect_at_the_border() {
        // Far from zero and many sizes away, the reflection still holds.
        let mut plane: Vec<f32> = (0..5).map(|x| x as f32 * x as f32).collect();
        warp(&mut plane, 1, 5, &Affine::shift(-2.0 - 8.0 * 5.0, 0.0));
        let expected = [4.0, 1.0, 0.0, 1.0, 4.0];
        assert!(plane.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5), "{plane:?}");
    }

    #[test]
    fn ramps_are_mapped_exactly() {
        let map = Affine::rotation(0.4).then(Affine::diagonal(0.9, 0.8)).then(Affine::shift(0.3, -0.7));
        // Away from the border, where a ramp turns back: the filters reach 12 fine samples, the map √2 · 1.5.
        assert!(gap(|x, y| 0.02 * x - 0.03 * y + 0.1, 40, 40, &map, 13) < 1e-6);
    }

    /// Cosines go on smoothly through the reflection, so the whole plane is compared. The bilinear step errs by
    /// (½)²/8 (|f_xx| + |f_yy|) at most, which the halving may magnify by (Σ |g|)² = 1.9; the filters' own error is
    /// of the third order, 1.1 (½ k)³ with k the wave number.
    #[test]
    fn smooth_planes_are_mapped_within_the_interpolation_error() {
        for (height, width) in [(32, 32), (24, 40)] {
            let (kx, ky) = (PI / (width as f64 - 1.0), 2.0 * PI / (height as f64 - 1.0));
            let f = |x: f64, y: f64| (kx * x).cos() * (ky * y).cos();
            let filters = 2.0 * 1.1 * ((0.5 * kx).powi(3) + (0.5 * ky).powi(3)) / 6.0;
            let bound = 1.9 * (kx * kx + ky * ky) / 32.0 + filters;
            for angle in [0.5 * PI, 0.3, -2.0, 3.0] {
                let found = gap(f, height, width, &Affine::rotation(angle), 0);
                assert!(found < bound, "{angle}: {found}, bound {bound}");
            }
            let stretched =
                Affine::rotation(0.7).then(Affine::diagonal(1.3, 0.8)).then(Affine::shift(9.0, -4.5));
            let found = gap(f, height, width, &stretched, 0);
            assert!(found < bound, "{found}, bound {bound}");
        }
    }

    #[test]
    fn maps_compose_from_left_to_right() {
        let [first, second] =
            [Affine::rotation(0.4).then(Affine::shift(1.0, 2.0)), Affine::diagonal(2.0, -3.0)];
        let z = [0.3, -0.8];
        let (found, expected) = (first.then(second).of(z), second.of(first.of(z)));
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-14));
        // Right goes to (cos, sin), which is downwards for a positive angle.
        assert!((Affine::rotation(0.5 * PI).of([1.0, 0.0])[1] - 1.0).abs() < 1e-15);
    }
}
