//! Adam and AdamW, with a state that can be saved.
//!
//! `m ← m + (1 − β₁)(g − m)`, `v ← v + (1 − β₂)(g² − v)`, and at the n-th update `p ← p − η m/(1 − β₁ⁿ) / (√(v/(1 −
//! β₂ⁿ)) + ε)`. Weight decay λ is `g + λp` for Adam and `p ← (1 − ηλ) p` before the step for AdamW.
//!
//! Reference: Kingma, Ba 2015, arXiv 1412.6980, Algorithm 1; Loshchilov, Hutter 2019, arXiv 1711.05101, Algorithm 2.

use std::collections::BTreeMap;

use candle_core::Tensor;
use sde_nets::ops::{AdamUpdate, Averaged};
use sde_nets::{Params, Weights};
use serde::{Deserialize, Serialize};

use crate::ema::Ema;
use crate::group::Groups;
use crate::{Error, Result};

/// A gradient for every trainable parameter, by name.
pub type Gradients = BTreeMap<String, Tensor>;

/// How weight decay enters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AdamKind {
    /// As an L2 penalty, in the gradient.
    Adam,
    /// Decoupled from the gradient.
    AdamW,
}

/// The constants of Adam.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdamConfig {
    /// How weight decay enters.
    pub kind: AdamKind,
    /// η, before the schedule.
    pub lr: f64,
    /// β₁.
    pub beta1: f64,
    /// β₂.
    pub beta2: f64,
    /// ε.
    pub eps: f64,
    /// λ.
    pub weight_decay: f64,
}

impl AdamConfig {
    pub(crate) fn check(&self) -> Result<()> {
        let require = |field, value: f64, low: f64, high: f64| {
            let fits = value >= low && value < high;
            if fits {
                Ok(())
            } else {
                Err(Error::config(field, format!("a number in [{low}, {high})"), value))
            }
        };
        require("optimiser.lr", self.lr, 0.0, f64::INFINITY)?;
        require("optimiser.beta1", self.beta1, 0.0, 1.0)?;
        require("optimiser.beta2", self.beta2, 0.0, 1.0)?;
        require("optimiser.eps", self.eps, f64::MIN_POSITIVE, f64::INFINITY)?;
        require("optimiser.weight_decay", self.weight_decay, 0.0, f64::INFINITY)
    }
}

/// The optimiser and its moments.
#[derive(Debug)]
pub struct Adam {
    config: AdamConfig,
    first: BTreeMap<String, Tensor>,
    second: BTreeMap<String, Tensor>,
}

impl Adam {
    /// The optimiser of `params` before its first update.
    pub fn new(config: AdamConfig, params: &Params) -> Result<Self> {
        let zeros = || -> Result<BTreeMap<String, Tensor>> {
            params.iter().map(|(name, var)| Ok((name.to_owned(), var.zeros_like()?))).collect()
        };
        Ok(Self { config, first: zeros()?, second: zeros()? })
    }

    /// The n-th update, n = 1, 2, …, with learning rate `lr`.
    ///
    /// # Errors
    /// [`Error::NoGradient`] when a parameter has none; nothing has changed then.
    pub fn update(&mut self, params: &Params, gradients: &Gradients, n: u64, lr: f64) -> Result<()> {
        self.update_all(params, gradients, 1.0, n, lr, Groups(&[]), &mut [])
    }

    /// The same with gradients scaled by `gradient_scale`, the rates of `groups`, and the `averages` of the new parameters.
    #[expect(clippy::too_many_arguments, reason = "all that an update depends on, handed through once")]
    pub(crate) fn update_all(
        &mut self,
        params: &Params,
        gradients: &Gradients,
        gradient_scale: f64,
        n: u64,
        lr: f64,
        groups: Groups<'_>,
        averages: &mut [Ema],
    ) -> Result<()> {
        let AdamConfig { kind, beta1, beta2, eps, weight_decay, .. } = self.config;
        let gradient =
            |name: &str| gradients.get(name).ok_or_else(|| Error::NoGradient { name: name.to_owned() });
        let trained = |name: &str| groups.rate(name, n - 1);
        params
            .iter()
            .filter(|(name, _)| trained(name).is_some())
            .try_for_each(|(name, _)| gradient(name).map(drop))?;
        // 1 − βⁿ without cancellation, and without a limit on n.
        let bias = |beta: f64| -f64::exp_m1(n as f64 * beta.ln());
        let update = |factor: f64| AdamUpdate {
            gradient_scale,
            penalty: if kind == AdamKind::Adam { weight_decay } else { 0.0 },
            first: 1.0 - beta1,
            second: 1.0 - beta2,
            keep: if kind == AdamKind::AdamW { 1.0 - factor * lr * weight_decay } else { 1.0 },
            rate: factor * (lr / bias(beta1)),
            scale: bias(beta2).sqrt().recip(),
            eps,
        };
        let moments = self.first.values_mut().zip(self.second.values_mut());
        for ((name, var), (first, second)) in params.iter().zip(moments) {
            let Some(factor) = trained(name) else {
                averages.iter_mut().try_for_each(|average| average.hold(name, var))?;
                continue;
            };
            let mut averaged: Vec<Averaged<'_>> =
                averages.iter_mut().filter_map(|average| average.of(name, n)).collect();
            update(factor).apply(var, gradient(name)?, [first, second], &mut averaged)?;
        }
        Ok(())
    }

    /// The moments, `first.NAME` and `second.NAME`; a copy.
    pub fn to_weights(&self) -> Result<Weights> {
        let named = |prefix: &'static str, moments: &BTreeMap<String, Tensor>| {
            let copies =
                moments.iter().map(|(name, tensor)| Ok((format!("{prefix}.{name}"), tensor.copy()?)));
            copies.collect::<Result<Vec<_>>>()
        };
        Ok(named("first", &self.first)?.into_iter().chain(named("second", &self.second)?).collect())
    }

    /// Takes over moments of the names, shapes and types of [`Adam::to_weights`], which the caller has checked.
    pub(crate) fn load(&mut self, weights: &Weights) -> Result<()> {
        for (prefix, moments) in [("first", &mut self.first), ("second", &mut self.second)] {
            for (name, moment) in moments {
                if let Some(tensor) = weights.get(&format!("{prefix}.{name}")) {
                    *moment = tensor.to_device(moment.device())?;
                }
            }
        }
        Ok(())
    }
}
