//! Products, powers and the exponential of dense square matrices in f64, with the derivative along a direction.
//!
//! A jet is a value and its derivative, `(A, E)`; its product rule `(A, E)(B, F) = (AB, EB + AF)` turns any
//! algorithm made of sums and products into one for the derivative, at three times the cost. So the exponential by
//! scaling and squaring of a Taylor polynomial, run on `(A, E)`, gives the Fréchet derivative `L(A, E)` without the
//! matrix of twice the size.
//!
//! The scaling comes from norms of powers, `α = min(‖A‖, max(d₂, d₃), max(d₃, d₄))`, `d_k = ‖A^k‖^{1/k}`, which for
//! normal matrices is close to the spectral radius where `‖A‖` is √n above it.
//!
//! Reference: Al-Mohy, Higham 2009, "Computing the Fréchet derivative of the matrix exponential", Algorithm 6.4, and
//! 2009, "A new scaling and squaring algorithm for the matrix exponential", Theorem 4.2 for α; Paterson, Stockmeyer
//! 1973.
//! Differs: a Taylor polynomial of degree 16 instead of a Padé approximant, so that nothing is solved: six products.

use rayon::prelude::*;

use super::kernel::{Matrix, product};

/// Rows that one task of a product computes: a function of nothing, so that sums do not depend on the threads.
const ROWS: usize = 112;

/// The largest α of a matrix that is not scaled: `α¹⁶/16! < 2e-16`, the error of the derivative.
const THETA: f64 = 0.7;

/// `1/k!`.
const TAYLOR: [f64; 17] = {
    let mut factors = [1.0; 17];
    let mut k = 1;
    while k < 17 {
        factors[k] = factors[k - 1] / k as f64;
        k += 1;
    }
    factors
};

/// A square matrix by rows.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Square {
    /// The number of rows.
    pub n: usize,
    /// The entries.
    pub values: Vec<f64>,
}

impl Square {
    /// The matrix with these entries.
    pub(super) fn from_fn(n: usize, f: impl Fn(usize, usize) -> f64) -> Self {
        Self { n, values: (0..n * n).map(|at| f(at / n, at % n)).collect() }
    }

    /// The entry in row `i`, column `j`.
    pub(super) fn at(&self, i: usize, j: usize) -> f64 {
        self.values[i * self.n + j]
    }

    /// The antisymmetric matrix with `upper`, by rows, above its diagonal.
    pub(super) fn antisymmetric(n: usize, upper: &[f64]) -> Self {
        let mut values = vec![0.0; n * n];
        let mut at = 0;
        for i in 0..n {
            for j in i + 1..n {
                values[i * n + j] = upper[at];
                values[j * n + i] = -upper[at];
                at += 1;
            }
        }
        Self { n, values }
    }

    /// The derivative of `tr(selfᵀ H)` by the entries above the diagonal of an antisymmetric H: `M_ij − M_ji`.
    pub(super) fn antisymmetric_part(&self) -> Vec<f64> {
        let n = self.n;
        (0..n).flat_map(|i| (i + 1..n).map(move |j| self.at(i, j) - self.at(j, i))).collect()
    }

    /// The transpose.
    pub(super) fn transpose(&self) -> Self {
        Self::from_fn(self.n, |i, j| self.at(j, i))
    }

    /// `c · self`.
    pub(super) fn scale(mut self, c: f64) -> Self {
        self.values.iter_mut().for_each(|v| *v *= c);
        self
    }

    /// `self + c · other`.
    pub(super) fn plus(mut self, c: f64, other: &Self) -> Self {
        self.values.iter_mut().zip(&other.values).for_each(|(v, o)| *v += c * o);
        self
    }

    /// `self + c · I`.
    pub(super) fn plus_identity(mut self, c: f64) -> Self {
        self.values.iter_mut().step_by(self.n + 1).for_each(|v| *v += c);
        self
    }

    /// The largest sum of absolute values of a row.
    pub(super) fn norm(&self) -> f64 {
        self.values.chunks(self.n.max(1)).map(|row| row.iter().map(|v| v.abs()).sum()).fold(0.0, f64::max)
    }

    /// The product.
    pub(super) fn times(&self, other: &Self) -> Self {
        let mut out = Self { n: self.n, values: vec![0.0; self.values.len()] };
        out.accumulate(self, Matrix::rows(&other.values, self.n), false);
        out
    }

    /// `selfᵀ self`.
    pub(super) fn gram(&self) -> Self {
        let mut out = Self { n: self.n, values: vec![0.0; self.values.len()] };
        out.accumulate(&self.transpose(), Matrix::rows(&self.values, self.n), false);
        out
    }

    /// `self = left · right`, or `self += left · right`.
    fn accumulate(&mut self, left: &Self, right: Matrix<'_, f64>, add: bool) {
        let n = self.n;
        let tasks =
            self.values.par_chunks_mut((ROWS * n).max(1)).zip(left.values.par_chunks((ROWS * n).max(1)));
        tasks.for_each(|(out, left)| {
            product(out, (out.len() / n, n, n), Matrix::rows(left, n), right, add);
        });
    }

    /// `½ P (3I − PᵀP)`: the orthogonal matrix next to one that is orthogonal but for rounding.
    ///
    /// Reference: Björck, Bowie 1971, one step of the iteration for the polar factor.
    pub(super) fn polished(&self) -> Self {
        self.times(&self.gram().scale(-0.5).plus_identity(1.5))
    }

    /// The exponential.
    pub(super) fn exp(self) -> Self {
        Jet { value: self, slope: None }.exp().value
    }

    /// The Fréchet derivative of the exponential along `direction`.
    pub(super) fn exp_derivative(self, direction: Self) -> Self {
        let n = self.n;
        let slope = Jet { value: self, slope: Some(direction) }.exp().slope;
        slope.unwrap_or_else(|| Self::from_fn(n, |_, _| 0.0))
    }
}

/// A matrix and, where it is wanted, its derivative.
struct Jet {
    value: Square,
    slope: Option<Square>,
}

impl Jet {
    fn times(&self, other: &Self) -> Self {
        let n = self.value.n;
        let slope = self.slope.as_ref().zip(other.slope.as_ref()).map(|(e, f)| {
            let mut sum = e.times(&other.value);
            sum.accumulate(&self.value, Matrix::rows(&f.values, n), true);
            sum
        });
        Self { value: self.value.times(&other.value), slope }
    }

    fn map(self, f: impl Fn(Square) -> Square) -> Self {
        Self { value: f(self.value), slope: self.slope.map(f) }
    }

    /// `c₀ I + Σ c_k A^k`.
    fn polynomial(coefficients: &[f64], powers: &[Self]) -> Self {
        let combined = |of: &dyn Fn(&Self) -> Option<&Square>| {
            let mut terms = coefficients[1..].iter().zip(powers);
            let (c, first) = terms.next()?;
            let first = of(first)?.clone().scale(*c);
            terms.try_fold(first, |sum, (c, power)| Some(sum.plus(*c, of(power)?)))
        };
        let value = combined(&|jet| Some(&jet.value)).unwrap_or_else(|| Square::from_fn(0, |_, _| 0.0));
        Self { value: value.plus_identity(coefficients[0]), slope: combined(&|jet| jet.slope.as_ref()) }
    }

    /// The exponential: powers, scaling, the polynomial in three Horner steps of A⁴, squaring.
    fn exp(self) -> Self {
        let second = self.times(&self);
        let third = second.times(&self);
        let fourth = second.times(&second);
        let squarings = squarings(&self.value, &second.value, &third.value, &fourth.value);
        let unit = 0.5f64.powi(squarings);
        let powers = [self, second, third, fourth];
        let mut k = 0;
        let powers = powers.map(|power| {
            k += 1;
            power.map(|m| m.scale(unit.powi(k)))
        });
        let mut sum = Self::polynomial(&TAYLOR[12..], &powers);
        for first in [8, 4, 0] {
            let lower = Self::polynomial(&TAYLOR[first..first + 4], &powers[..3]);
            let upper = sum.times(&powers[3]);
            let slope = upper.slope.zip(lower.slope).map(|(a, b)| a.plus(1.0, &b));
            sum = Self { value: upper.value.plus(1.0, &lower.value), slope };
        }
        for _ in 0..squarings {
            sum = sum.times(&sum);
        }
        sum
    }
}

/// The number of halvings that make α at most [`THETA`].
fn squarings(first: &Square, second: &Square, third: &Square, fourth: &Square) -> i32 {
    let (d2, d3, d4) = (second.norm().sqrt(), third.norm().cbrt(), fourth.norm().sqrt().sqrt());
    let alpha = first.norm().min(d2.max(d3)).min(d3.max(d4));
    // What is not finite stays so without being halved.
    if alpha > THETA && alpha.is_finite() { (alpha / THETA).log2().ceil() as i32 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(n: usize, size: f64) -> Square {
        Square::from_fn(n, |i, j| size * ((3 * i + 7 * j) as f64 * 0.37 + 0.1).sin())
    }

    fn largest(a: &Square, b: &Square) -> f64 {
        a.clone().plus(-1.0, b).values.iter().fold(0.0, |m, v| f64::max(m, v.abs()))
    }

    #[test]
    fn exponentials_multiply() {
        // Of a matrix that is neither normal nor small, across the border of a task of the product.
        for (n, size) in [(1, 3.0), (2, 1.0), (5, 2.0), (ROWS + 3, 0.1)] {
            let a = wave(n, size);
            let (whole, third) = (a.clone().exp(), a.clone().scale(1.0 / 3.0).exp());
            let cubed = third.times(&third).times(&third);
            let scale = whole.norm().max(1.0);
            assert!(largest(&whole, &cubed) < 1e-13 * scale, "{n}: {:e}", largest(&whole, &cubed) / scale);
        }
        assert_eq!(Square::from_fn(3, |_, _| 0.0).exp(), Square::from_fn(3, |i, j| f64::from(i == j)));
        assert!((wave(1, 1.0).exp().at(0, 0) - 0.1f64.sin().exp()).abs() < 1e-15);
    }

    #[test]
    fn the_derivative_is_the_block_of_the_exponential_of_twice_the_size() {
        let (n, size) = (6, 0.9);
        let (a, e) = (wave(n, size), wave(n, 1.0).transpose());
        let block = Square::from_fn(2 * n, |i, j| match (i < n, j < n) {
            (true, true) => a.at(i, j),
            (false, false) => a.at(i - n, j - n),
            (true, false) => e.at(i, j - n),
            (false, true) => 0.0,
        })
        .exp();
        let corner = Square::from_fn(n, |i, j| block.at(i, j + n));
        let found = a.exp_derivative(e);
        assert!(largest(&corner, &found) < 1e-13 * corner.norm(), "{:e}", largest(&corner, &found));
    }
}
