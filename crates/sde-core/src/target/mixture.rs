//! A mixture of Gaussians, not noised, as a target: `μ̂ = Z Σ_k w_k N(m_k, C_k)`.
//!
//! `∇ log μ̂ = −Σ_k r_k C_k⁻¹ (x − m_k)` with the posterior weights r_k.

use candle_core::Tensor;

use super::{LogDensity, Target, by_rows};
use crate::error::in_range;
use crate::oracle::{Axes, Mixture};
use crate::{Error, Result};

/// A component as a density.
#[derive(Debug, Clone)]
struct Component {
    /// log w − ½ log det 2πC
    log_weight: f64,
    precisions: Vec<f64>,
    axes: Axes,
}

impl Component {
    fn of(axes: Axes) -> Result<Self> {
        for &value in &axes.variances {
            in_range("the variance of a target's component", value, f64::MIN_POSITIVE, f64::MAX)?;
        }
        let log_det: f64 = axes.variances.iter().map(|v| (std::f64::consts::TAU * v).ln()).sum();
        let precisions = axes.variances.iter().map(|v| 1.0 / v).collect();
        Ok(Self { log_weight: axes.log_weight - 0.5 * log_det, precisions, axes })
    }

    /// log w N(x; m, C); writes −C⁻¹(x − m).
    fn density(&self, x: &[f64], score: &mut [f64]) -> f64 {
        let mut square = 0.0;
        match &self.axes.basis {
            None => {
                for (((s, x), m), p) in score.iter_mut().zip(x).zip(&self.axes.mean).zip(&self.precisions) {
                    *s = (m - x) * p;
                    square += *s * (m - x);
                }
            }
            Some(basis) => {
                score.fill(0.0);
                for (j, p) in self.precisions.iter().enumerate() {
                    let column = || basis.iter().skip(j).step_by(x.len());
                    let along: f64 =
                        column().zip(x.iter().zip(&self.axes.mean)).map(|(q, (x, m))| q * (m - x)).sum();
                    square += p * along * along;
                    score.iter_mut().zip(column()).for_each(|(s, q)| *s += q * p * along);
                }
            }
        }
        self.log_weight - 0.5 * square
    }
}

/// A mixture with a normaliser of one's own.
#[derive(Debug, Clone)]
pub struct MixtureTarget {
    name: String,
    components: Vec<Component>,
    log_normaliser: f64,
}

impl MixtureTarget {
    /// `Z` times the density of `mixture`.
    ///
    /// # Errors
    /// When a covariance is singular, or log Z is not finite.
    pub fn new(name: impl Into<String>, mixture: &Mixture, log_normaliser: f64) -> Result<Self> {
        if !log_normaliser.is_finite() {
            return Err(Error::NonFinite {
                what: "log Z of a mixture as a target".into(),
                found: log_normaliser,
            });
        }
        let components = mixture.axes().map(Component::of).collect::<Result<_>>()?;
        Ok(Self { name: name.into(), components, log_normaliser })
    }
}

impl Target for MixtureTarget {
    fn name(&self) -> &str {
        &self.name
    }

    fn dim(&self) -> usize {
        self.components[0].axes.mean.len()
    }

    fn log_normaliser(&self) -> Option<f64> {
        Some(self.log_normaliser)
    }

    fn log_density(&self, x: &Tensor) -> Result<LogDensity> {
        by_rows(x, self.dim(), |x, score| {
            // One pass: the sum is kept relative to its largest term so far.
            let (mut top, mut total, mut each) = (f64::NEG_INFINITY, 0.0, vec![0.0; x.len()]);
            score.fill(0.0);
            for component in &self.components {
                let log = component.density(x, &mut each);
                if log == f64::NEG_INFINITY {
                    continue;
                }
                if log > top {
                    let fade = (top - log).exp();
                    total *= fade;
                    score.iter_mut().for_each(|s| *s *= fade);
                    top = log;
                }
                let weight = (log - top).exp();
                total += weight;
                score.iter_mut().zip(&each).for_each(|(s, e)| *s += weight * e);
            }
            score.iter_mut().for_each(|s| *s /= total);
            self.log_normaliser + top + total.ln()
        })
    }
}
