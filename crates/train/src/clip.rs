//! The norm of all gradients together, and its clipping: `g ← g · min(1, max/(‖g‖ + 1e-6))`.
//!
//! The norm is summed in f64, in an order fixed by the shape of each tensor and over tensors in the order of their
//! names, so it is the same in every run and with any number of threads.
//!
//! Where asked, gradients that are not finite are replaced first: nan by 0, ±∞ by ± a bound.
//!
//! Reference: Pascanu, Mikolov, Bengio 2013, arXiv 1211.5063, Algorithm 1; the 1e-6 is PyTorch's. The
//! replacement is that of the code of Karras et al. 2022, arXiv 2206.00364, with the bound 1e5.

use sde_nets::ops::sums_of_squares;

use crate::Result;
use crate::adam::Gradients;

/// The Euclidean norm of all gradients together.
pub fn global_norm(gradients: &Gradients) -> Result<f64> {
    let squares = sums_of_squares(&gradients.values().collect::<Vec<_>>())?;
    Ok(squares.into_iter().sum::<f64>().sqrt())
}

/// The factor that makes a norm `max` at most; never above 1.
pub fn factor(norm: f64, max: f64) -> f64 {
    (max / (norm + 1e-6)).min(1.0)
}

/// Scales all gradients so that their norm, which is `norm`, is `max` at most: for a loop of one's own. [`fit`](crate::fit())
/// hands the [`factor`] to the update instead, which spares a pass over memory.
pub fn clip(gradients: &mut Gradients, norm: f64, max: f64) -> Result<()> {
    let scale = factor(norm, max);
    if scale < 1.0 {
        for gradient in gradients.values_mut() {
            *gradient = (&*gradient * scale)?;
        }
    }
    Ok(())
}

/// Replaces what is not finite in every gradient: nan by 0, ∞ by `bound`, −∞ by −`bound`. What is finite stays.
pub fn replace_non_finite(gradients: &mut Gradients, bound: f64) -> Result<()> {
    for gradient in gradients.values_mut() {
        // Only a nan differs from itself.
        let numbers = gradient.eq(&*gradient)?;
        let without_nan = numbers.where_cond(gradient, &gradient.zeros_like()?)?;
        let infinite = without_nan.abs()?.eq(f64::INFINITY)?;
        let bounded = (without_nan.sign()? * bound)?;
        *gradient = infinite.where_cond(&bounded, &without_nan)?;
    }
    Ok(())
}
