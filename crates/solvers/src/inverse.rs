//! Inverse problems with any model: data of which a linear measurement `y = A x₀` is known.
//!
//! | A | known | |
//! |---|---|---|
//! | [`Mask`] | some entries | inpainting |
//! | [`Grey`] | the grey direction of every pixel | colourisation |
//! | [`Pool`] | means of squares | super-resolution |
//! | [`Dense`] | any matrix | |
//!
//! [`Reconstruction`] is the likelihood of y for [`CleanGuided`](crate::guidance::CleanGuided): any sampler, one more
//! derivative of the network. [`Replacement`] puts the known part, noised, into the state after every step of a table: no derivative, and
//! a worse law, which the jumps of [`Resampled`] mend at the price of evaluations.
//!
//! Reference: Song et al. 2021, arXiv 2011.13456, appendix I; Kawar et al. 2022, arXiv 2201.11793, for the measurements.

mod dense;
mod grey;
mod mask;
mod pool;
mod reconstruction;
mod replacement;
mod resampling;

use candle_core::Tensor;
use sde_core::{Op, Result, apply_each};

pub use dense::Dense;
pub use grey::Grey;
pub use mask::Mask;
pub use pool::Pool;
pub use reconstruction::{Reconstruction, Spread};
pub use replacement::Replacement;
pub use resampling::Resampled;

/// A linear map A of clean states whose rows are independent.
pub trait Measurement {
    /// `A x`.
    ///
    /// # Shapes
    /// `x` `[B, …]`; the result is `[B, …]`, of the measurement's own shape.
    ///
    /// # Errors
    /// When A is not a map of such states; so for the others.
    fn apply(&self, x: &Tensor) -> Result<Tensor>;

    /// `Aᵀ y`.
    ///
    /// # Shapes
    /// `y` as [`Measurement::apply`] returns it; the result has the shape of states.
    fn adjoint(&self, y: &Tensor) -> Result<Tensor>;

    /// `(a A Aᵀ + b I)⁻¹ y`: y as a deviation, weighed by its covariance if x has the variance a about its mean and y noise of variance b.
    ///
    /// # Shapes
    /// `y` as [`Measurement::apply`] returns it, and so the result; `a` holds one number a sample, or one for all.
    fn weigh(&self, y: &Tensor, a: &[f64], b: f64) -> Result<Tensor>;

    /// The state nearest to `x` of which `y` is the measurement: `x + Aᵀ (A Aᵀ)⁻¹ (y − A x)`.
    ///
    /// # Shapes
    /// `x` `[B, …]`, and so the result; `y` `[B, …]` or `[1, …]`.
    fn project(&self, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        let missing = y.broadcast_sub(&self.apply(x)?)?;
        Ok((x + self.adjoint(&self.weigh(&missing, &[1.0], 0.0)?)?)?)
    }
}

impl<A: Measurement + ?Sized> Measurement for &A {
    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        (**self).apply(x)
    }
    fn adjoint(&self, y: &Tensor) -> Result<Tensor> {
        (**self).adjoint(y)
    }
    fn weigh(&self, y: &Tensor, a: &[f64], b: f64) -> Result<Tensor> {
        (**self).weigh(y, a, b)
    }
    fn project(&self, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        (**self).project(x, y)
    }
}

impl<A: Measurement + ?Sized> Measurement for Box<A> {
    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        (**self).apply(x)
    }
    fn adjoint(&self, y: &Tensor) -> Result<Tensor> {
        (**self).adjoint(y)
    }
    fn weigh(&self, y: &Tensor, a: &[f64], b: f64) -> Result<Tensor> {
        (**self).weigh(y, a, b)
    }
    fn project(&self, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        (**self).project(x, y)
    }
}

/// [`Measurement::weigh`] where `A Aᵀ = c I`.
fn weigh_evenly(y: &Tensor, a: &[f64], b: f64, c: f64) -> Result<Tensor> {
    let ops: Vec<Op> = a.iter().map(|a| Op::Scalar(1.0 / (a * c + b))).collect();
    apply_each(&ops, y)
}
