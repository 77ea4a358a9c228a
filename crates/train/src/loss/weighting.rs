//! What an error at time t costs: a weight on a stated error, whatever the network predicts.
//!
//! Each weighting is an operator W on the error of one prediction (noise, score, velocity or data). A network that
//! predicts `p` has the error `e`, and since predictions are affine images of each other, `to = A u + B p`, its error
//! there is `B e`. The cost is `‖W B e‖²`. For scalar processes and λ on the noise error this is the dictionary:
//! score λσ², data λ/ρ², velocity λ/(σ̇ − σα̇/α)². SNR is 1/ρ².
//!
//! Reference: Ho et al. 2020, arXiv 2006.11239, Eq. (14) (simple); Song et al. 2021, arXiv 2101.09258, Theorem 1
//! (likelihood); Karras et al. 2022, arXiv 2206.00364, Table 1 (EDM); Lipman et al. 2022, arXiv 2210.02747, Eq. (9)
//! (flow); Hang et al. 2023, arXiv 2303.09556, section 3 (min-SNR-γ); Crowson et al. 2024, arXiv 2401.11605
//! (soft-min-SNR); Zhang 2023 (thesis), ch. 6.2.

use sde_core::{LinearSde, Op, Prediction};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// How errors at different times compare.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Weighting {
    /// 1 on the noise error.
    Simple,
    /// G Gᵀ on the score error (g²/σ² on the noise error of a scalar process): half of it, summed over dimensions and
    /// integrated over time, bounds the negative log likelihood up to a constant.
    Likelihood,
    /// `(ρ² + σ_data²)/(ρ σ_data)²` on the data error, ρ the noise-to-signal ratio (EDM's σ); scalar processes only.
    Edm {
        /// The standard deviation of the data; EDM has 0.5.
        sigma_data: f64,
    },
    /// 1 on the velocity error: flow matching.
    Flow,
    /// `min(SNR, γ)` on the data error, so 1 on the noise error until the signal-to-noise ratio exceeds γ; scalar
    /// processes only.
    MinSnr {
        /// γ; Hang et al. have 5.
        gamma: f64,
    },
    /// `1/(ρ² + σ_data²) = SNR γ/(SNR + γ)`, γ = 1/σ_data², on the data error: the smooth min-SNR; scalar processes
    /// only.
    SoftMinSnr {
        /// The standard deviation of the data; 0.5 makes γ = 4.
        sigma_data: f64,
    },
}

impl Weighting {
    /// The prediction whose error is weighted, and W at time t.
    fn norm(&self, sde: &dyn LinearSde, t: f64) -> Result<(Prediction, Op)> {
        Ok(match self {
            Self::Simple => (Prediction::Noise, Op::IDENTITY),
            Self::Flow => (Prediction::Velocity, Op::IDENTITY),
            Self::Likelihood => (Prediction::Score, sde.diffusion(t).sqrt()?),
            Self::Edm { sigma_data } => {
                let rho = rho(sde, t, "weighting \"edm\"")?;
                (Prediction::Data, Op::Scalar(rho.hypot(*sigma_data) / (rho * sigma_data)))
            }
            // On the error of whatever is finite: the noise error where the signal is gone, as ρ is infinite there.
            Self::MinSnr { gamma } => {
                let rho = rho(sde, t, "weighting \"min_snr\"")?;
                (Prediction::Noise, Op::Scalar((gamma.sqrt() * rho).min(1.0)))
            }
            Self::SoftMinSnr { sigma_data } => {
                let rho = rho(sde, t, "weighting \"soft_min_snr\"")?;
                // ρ²/(ρ² + σ_data²) without a quotient of infinities.
                (Prediction::Noise, Op::Scalar((sigma_data / rho).hypot(1.0).recip()))
            }
        })
    }

    /// Refuses constants that are no weights.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub(crate) fn check(&self) -> Result<()> {
        let (field, value) = match *self {
            Self::Simple | Self::Likelihood | Self::Flow => return Ok(()),
            Self::MinSnr { gamma } => ("weighting.gamma", gamma),
            Self::Edm { sigma_data } | Self::SoftMinSnr { sigma_data } => {
                ("weighting.sigma_data", sigma_data)
            }
        };
        let fits = value > 0.0 && value.is_finite();
        if fits { Ok(()) } else { Err(Error::config(field, "a positive number", value)) }
    }

    /// M with cost `‖M e‖²`, e the error of a network that predicts `prediction`.
    ///
    /// # Errors
    /// Where the conversion between the two errors does not exist, or a weighting for scalar processes meets another.
    pub fn operator(&self, prediction: Prediction, sde: &dyn LinearSde, t: f64) -> Result<Op> {
        let (weighted, w) = self.norm(sde, t)?;
        Ok(w.mul(&prediction.conversion(weighted, sde, t)?.value)?)
    }
}

/// The noise-to-signal ratio of a scalar process.
fn rho(sde: &dyn LinearSde, t: f64, what: &'static str) -> Result<f64> {
    match (sde.signal(t).as_scalar(), sde.factor(t).as_scalar()) {
        (Some(alpha), Some(sigma)) => Ok(sigma / alpha),
        _ => Err(sde_core::Error::Mismatch {
            what,
            expected: "a scalar process".into(),
            found: format!("{}; use \"simple\" or \"likelihood\"", sde.signal(t).describe()),
        }
        .into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sde_core::ScalarSde;
    use sde_core::process::{Edm, LinearPath, Vp};

    fn scalar(weighting: Weighting, prediction: Prediction, sde: &dyn LinearSde, t: f64) -> f64 {
        weighting.operator(prediction, sde, t).unwrap().as_scalar().unwrap().powi(2)
    }

    #[test]
    fn dictionary_between_predictions() {
        let (sde, t) = (Vp::STANDARD, 0.3);
        let (alpha, sigma, beta) = (sde.alpha(t), sde.sigma(t), sde.beta(t));
        let velocity = (sde.sigma_rate(t) - sigma * sde.alpha_rate(t) / alpha).powi(2);
        let cases = [
            (Prediction::Noise, 1.0),
            (Prediction::Score, sigma.powi(2)),
            (Prediction::Data, (alpha / sigma).powi(2)),
            (Prediction::Velocity, 1.0 / velocity),
            (Prediction::V, alpha.powi(2)),
        ];
        for (prediction, expected) in cases {
            let simple = scalar(Weighting::Simple, prediction, &sde, t);
            assert!((simple / expected - 1.0).abs() < 1e-12, "{prediction:?}: {simple} {expected}");
            // For VP g² = β: likelihood is β/σ² on the noise error, whatever is predicted.
            let likelihood = scalar(Weighting::Likelihood, prediction, &sde, t);
            assert!((likelihood / (expected * beta / sigma.powi(2)) - 1.0).abs() < 1e-12, "{prediction:?}");
            let flow = scalar(Weighting::Flow, prediction, &sde, t);
            assert!((flow / (expected * velocity) - 1.0).abs() < 1e-12, "{prediction:?}");
        }
    }

    #[test]
    fn min_snr_weights_are_the_published_ones_for_every_prediction() {
        let sde = Vp::STANDARD;
        for t in [0.02, 0.1, 0.3, 0.9] {
            let (alpha, sigma, beta) = (sde.alpha(t), sde.sigma(t), sde.beta(t));
            let snr = (alpha / sigma).powi(2);
            let sigma_data = 0.5f64;
            let weightings = [
                (Weighting::MinSnr { gamma: 5.0 }, snr.min(5.0)),
                (Weighting::SoftMinSnr { sigma_data }, snr * 4.0 / (snr + 4.0)),
            ];
            for (weighting, on_data) in weightings {
                // Hang et al. for data, noise and the v of a process with α² + σ² = 1. For VP σ̇ − σα̇/α = ½ β/σ.
                let cases = [
                    (Prediction::Data, on_data),
                    (Prediction::Noise, on_data / snr),
                    (Prediction::V, on_data / (snr + 1.0)),
                    (Prediction::Score, on_data / snr * sigma.powi(2)),
                    (Prediction::Velocity, on_data / snr / (0.5 * beta / sigma).powi(2)),
                ];
                for (prediction, expected) in cases {
                    let found = scalar(weighting, prediction, &sde, t);
                    assert!((found / expected - 1.0).abs() < 1e-12, "{weighting:?} {prediction:?} at {t}");
                }
            }
        }
    }

    #[test]
    fn min_snr_weights_exist_where_the_signal_is_gone() {
        for weighting in [Weighting::MinSnr { gamma: 5.0 }, Weighting::SoftMinSnr { sigma_data: 0.5 }] {
            assert_eq!(scalar(weighting, Prediction::Noise, &LinearPath, 1.0), 1.0);
            assert_eq!(scalar(weighting, Prediction::V, &LinearPath, 1.0), 0.0);
        }
    }

    #[test]
    fn the_soft_weight_is_that_of_karras_times_the_square_of_c_out() {
        // With EDM's preconditioning the published form is (σ σ_d)²/(σ² + σ_d²)² on F, D = c_skip x + c_out F.
        for sigma in [0.002f64, 0.3, 80.0] {
            let found =
                scalar(Weighting::SoftMinSnr { sigma_data: 0.5 }, Prediction::Data, &Edm::STANDARD, sigma);
            let sum = sigma * sigma + 0.25;
            let c_out = sigma * 0.5 / sum.sqrt();
            let on_f = (sigma * 0.5 / sum).powi(2);
            assert!((found * c_out * c_out / on_f - 1.0).abs() < 1e-12, "{sigma}");
        }
    }

    #[test]
    fn edm_weight_is_the_published_one() {
        for sigma in [0.002f64, 0.3, 80.0] {
            let found = scalar(Weighting::Edm { sigma_data: 0.5 }, Prediction::Data, &Edm::STANDARD, sigma);
            let expected = (sigma * sigma + 0.25) / (sigma * 0.5).powi(2);
            assert!((found / expected - 1.0).abs() < 1e-12);
        }
    }
}
