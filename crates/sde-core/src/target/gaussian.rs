//! A Gaussian with independent coordinates as a target: the one whose every estimate has a closed form.

use super::{MixtureTarget, Target};
use crate::Result;
use crate::oracle::Mixture;

/// `Z · N(m, diag v)`, for any log Z.
///
/// # Errors
/// As [`Mixture::diagonal`], and when a variance is zero.
pub fn gaussian(mean: Vec<f64>, variances: Vec<f64>, log_normaliser: f64) -> Result<impl Target> {
    MixtureTarget::new("gaussian", &Mixture::diagonal(mean, variances)?, log_normaliser)
}
