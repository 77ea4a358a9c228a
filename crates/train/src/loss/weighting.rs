//! What an error at time t costs: a weight on a stated error, whatever the network predicts.
//!
//! Each weighting is an operator W on the error of one prediction (noise, score, velocity or data). A network that
//! predicts `p` has the error `e`, and since predictions are affine images of each other, `to = A u + B p`, its error
//! there is `B e`. The cost is `‖W B e‖²`. For scalar processes and λ on the noise error this is the dictionary:
//! score λσ², data λ/ρ², velocity λ/(σ̇ − σα̇/α)².
//!
//! Reference: Ho et al. 2020, arXiv 2006.11239, Eq. (14) (simple); Song et al. 2021, arXiv 2101.09258, Theorem 1
//! (likelihood); Karras et al. 2022, arXiv 2206.00364, Table 1 (EDM); Lipman et al. 2022, arXiv 2210.02747, Eq. (9)
//! (flow); Zhang 2023 (thesis), ch. 6.2.

use sde_core::{LinearSde, Op, Prediction};
use serde::{Deserialize, Serialize};

use crate::Result;

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
}

impl Weighting {
    /// The prediction whose error is weighted, and W at time t.
    fn norm(&self, sde: &dyn LinearSde, t: f64) -> Result<(Prediction, Op)> {
        Ok(match self {
            Self::Simple => (Prediction::Noise, Op::IDENTITY),
            Self::Flow => (Prediction::Velocity, Op::IDENTITY),
            Self::Likelihood => (Prediction::Score, sde.diffusion(t).sqrt()?),
            Self::Edm { sigma_data } => {
                let (Some(alpha), Some(sigma)) = (sde.signal(t).as_scalar(), sde.factor(t).as_scalar())
                else {
                    return Err(sde_core::Error::Mismatch {
                        what: "weighting \"edm\"",
                        expected: "a scalar process".into(),
                        found: format!("{} groups; use \"simple\" or \"likelihood\"", sde.groups()),
                    }
                    .into());
                };
                let rho = sigma / alpha;
                (Prediction::Data, Op::Scalar(rho.hypot(*sigma_data) / (rho * sigma_data)))
            }
        })
    }

    /// M with cost `‖M e‖²`, e the error of a network that predicts `prediction`.
    ///
    /// # Errors
    /// Where the conversion between the two errors does not exist, or [`Weighting::Edm`] meets a process that is not
    /// scalar.
    pub fn operator(&self, prediction: Prediction, sde: &dyn LinearSde, t: f64) -> Result<Op> {
        let (weighted, w) = self.norm(sde, t)?;
        Ok(w.mul(&prediction.conversion(weighted, sde, t)?.value)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sde_core::ScalarSde;
    use sde_core::process::{Edm, Vp};

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
    fn edm_weight_is_the_published_one() {
        for sigma in [0.002f64, 0.3, 80.0] {
            let found = scalar(Weighting::Edm { sigma_data: 0.5 }, Prediction::Data, &Edm::STANDARD, sigma);
            let expected = (sigma * sigma + 0.25) / (sigma * 0.5).powi(2);
            assert!((found / expected - 1.0).abs() < 1e-12);
        }
    }
}
