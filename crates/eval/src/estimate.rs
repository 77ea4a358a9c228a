//! A number with its error bar: the mean of n independent values, and its standard error `s/√n`, `s² = Σ (v −
//! v̄)²/(n − 1)`.

use serde::Serialize;

use crate::{Error, Result};

/// An estimate from independent samples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// The value.
    pub value: f64,
    /// Its standard error; unknown for a single sample.
    pub standard_error: Option<f64>,
    /// The number of independent samples behind it.
    pub n: usize,
}

impl Estimate {
    /// The mean of `values`.
    ///
    /// # Errors
    /// When there are none.
    pub fn mean(values: &[f64]) -> Result<Self> {
        let n = values.len();
        if n == 0 {
            return Err(Error::mismatch("values to average", "at least one", 0));
        }
        let value = mean(values);
        Ok(Self { value, standard_error: variance(values).map(|v| (v / n as f64).sqrt()), n })
    }

    /// `scale · self + shift`, a change of units.
    pub fn affine(self, scale: f64, shift: f64) -> Self {
        Self {
            value: scale * self.value + shift,
            standard_error: self.standard_error.map(|e| e * scale.abs()),
            ..self
        }
    }
}

/// The mean; NaN of nothing.
pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The unbiased variance; none of fewer than two values.
pub(crate) fn variance(values: &[f64]) -> Option<f64> {
    let centre = mean(values);
    let squares: f64 = values.iter().map(|v| (v - centre).powi(2)).sum();
    (values.len() > 1).then(|| squares / (values.len() - 1) as f64)
}

/// The standard error of the mean of values drawn one from each of as many equal strata, in order: `Σ (v_{j+1} − v_j)²
/// / 2`, per pair of neighbours, stands for their variance, and is rather too large by what the strata differ.
///
/// Reference: Wolter 2007, Introduction to Variance Estimation, section 8.2 (successive differences).
pub(crate) fn stratified_error(values: &[f64]) -> Option<f64> {
    let n = values.len() as f64;
    let squares: f64 = values.windows(2).map(|pair| (pair[1] - pair[0]).powi(2)).sum();
    (values.len() > 1).then(|| (0.5 * squares / (n - 1.0) / n).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_and_standard_error() -> Result<()> {
        let estimate = Estimate::mean(&[1.0, 2.0, 3.0, 6.0])?;
        // Variance 14/3, of the mean 14/12.
        assert_eq!((estimate.value, estimate.n), (3.0, 4));
        assert!((estimate.standard_error.unwrap_or(0.0) - (14.0f64 / 12.0).sqrt()).abs() < 1e-15);
        let turned = estimate.affine(-2.0, 1.0);
        assert_eq!(turned.value, -5.0);
        assert!((turned.standard_error.unwrap_or(0.0) - (14.0f64 / 3.0).sqrt()).abs() < 1e-15);
        assert_eq!(Estimate::mean(&[7.0])?.standard_error, None);
        assert!(Estimate::mean(&[]).is_err());
        Ok(())
    }
}
