//! The choices of the Fokker–Planck penalty, as a preset has them.
//!
//! Reference: Lai et al. 2022, arXiv 2210.04296, Eq. (19), section 5, appendix C.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The penalty `w_t [ α D⁻ᵐ λ(t) ‖ϵ‖₂ᵐ + β |L| ]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FokkerPlanckConfig {
    /// α, of the residual; with β = 0 as well the loss is the plain one, bit for bit.
    pub alpha: f64,
    /// β, of the rate of the log density.
    pub beta: f64,
    /// m, the power of the norm.
    pub m: f64,
    /// λ.
    pub weight: TimeWeight,
    /// Whether λ stands inside the power, `(λ ‖ϵ‖)ᵐ`, as the paper prints it, or outside, as its authors compute.
    pub weight_inside: bool,
    /// What is penalised with α.
    pub penalty: Penalty,
    /// How sums over directions are taken.
    pub estimator: Estimator,
    /// How derivatives by the state are taken.
    pub route: Route,
    /// How ∂s/∂t is taken.
    pub rate: RateStep,
    /// Where.
    pub points: Points,
}

/// λ(t).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeWeight {
    /// 1.
    Constant,
    /// g.
    G,
    /// g².
    G2,
}

/// What is to be small.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Penalty {
    /// The residual ϵ = ∂s/∂t − ∇L.
    Residual,
    /// ∂s/∂t alone: two evaluations more than the plain loss, and no derivative by the state.
    Rate,
}

/// How sums over directions are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Estimator {
    /// Along all axes.
    Exact,
    /// The trace from random signs, ϵ as a vector.
    Probes {
        /// Signs an estimate.
        count: usize,
        /// Whether ‖ϵ‖² is the product of two independent estimates, which is right on average, or the square of one, which
        /// counts its variance as a residual.
        unbiased: bool,
    },
    /// ⟨ϵ, z⟩ along one normal z, the trace in it from random signs: `E ⟨ϵ, z⟩² = ‖ϵ‖²`, `√(π/2) E |⟨ϵ, z⟩| = ‖ϵ‖`.
    Projected {
        /// Signs an estimate.
        count: usize,
        /// As of `Probes`.
        unbiased: bool,
    },
}

/// How derivatives by the state are taken.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Route {
    /// On the tape, three times over with the parameters' own.
    Reverse,
    /// Traces by differences, their gradient on the tape.
    Mixed {
        /// The distance, in σ_t.
        step: f64,
    },
    /// All by differences: an ordinary backward pass of more states. For `exact` and `projected`.
    Differences {
        /// The distance, in σ_t.
        step: f64,
    },
}

/// The times of the three-point difference.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum RateStep {
    /// Evenly in the process's clock (log ρ).
    Clock {
        /// The distance.
        step: f64,
    },
    /// In t.
    Time {
        /// h_s, to the time before; the paper has 0.001.
        before: f64,
        /// h_d, to the time after; the paper has 0.0005.
        after: f64,
    },
}

/// Where the penalty looks.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Points {
    /// At the noised states.
    Noised,
    /// At the data, whatever the time.
    Data,
    /// Evenly in a box.
    Box {
        /// The lowest value of a coordinate.
        low: f64,
        /// The highest.
        high: f64,
    },
}

impl FokkerPlanckConfig {
    /// Whether there is a penalty at all.
    pub fn is_on(&self) -> bool {
        self.alpha != 0.0 || self.beta != 0.0
    }

    /// Whether the tape has to keep gradients of gradients for it.
    pub fn needs_nested(&self) -> bool {
        let by_state = self.beta != 0.0 || (self.alpha != 0.0 && self.penalty == Penalty::Residual);
        by_state && !matches!(self.route, Route::Differences { .. })
    }

    /// Refuses what is no penalty.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn check(&self) -> Result<()> {
        let numbers = [
            ("loss.fokker_planck.alpha", self.alpha, true),
            ("loss.fokker_planck.beta", self.beta, true),
            ("loss.fokker_planck.m", self.m, false),
        ];
        let steps = match self.route {
            Route::Reverse => None,
            Route::Mixed { step } | Route::Differences { step } => {
                Some(("loss.fokker_planck.route.step", step, false))
            }
        };
        let times = match self.rate {
            RateStep::Clock { step } => [("loss.fokker_planck.rate.step", step, false); 2],
            RateStep::Time { before, after } => [
                ("loss.fokker_planck.rate.before", before, false),
                ("loss.fokker_planck.rate.after", after, false),
            ],
        };
        for (field, value, zero) in numbers.into_iter().chain(steps).chain(times) {
            if !(value.is_finite() && (value > 0.0 || zero && value == 0.0)) {
                return Err(Error::config(
                    field,
                    if zero { "0 or more" } else { "a positive number" },
                    value,
                ));
            }
        }
        if let Points::Box { low, high } = self.points
            && !(low.is_finite() && high.is_finite() && low < high)
        {
            return Err(Error::config(
                "loss.fokker_planck.points",
                "finite, low below high",
                format!("{low} to {high}"),
            ));
        }
        match (self.estimator, self.route) {
            (Estimator::Probes { .. }, Route::Differences { .. }) => Err(Error::config(
                "loss.fokker_planck.route",
                "\"mixed\" or \"reverse\" for a vector in any dimension, or the estimator \"projected\"",
                "\"differences\" with the estimator \"probes\"",
            )),
            (Estimator::Probes { count: 0, .. } | Estimator::Projected { count: 0, .. }, _) => {
                Err(Error::config("loss.fokker_planck.estimator.count", "1 or more", 0))
            }
            _ => Ok(()),
        }
    }
}
