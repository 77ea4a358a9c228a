//! Exponential moving averages of the weights: `w̄ ← d w̄ + (1 − d) w`, after every update n = 1, 2, …
//!
//! Reference: the ramp is that of the code of Song et al. 2021, arXiv 2011.13456; half-life and its ramp are those of
//! the code of Karras et al. 2022, arXiv 2206.00364.

use std::collections::BTreeMap;

use candle_core::Tensor;
use sde_nets::ops::{Averaged, lerp};
use sde_nets::{Params, Weights};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// How fast an average forgets.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum EmaLaw {
    /// The same d always.
    Constant {
        /// d.
        decay: f64,
    },
    /// `min(d, (1 + n)/(10 + n))`.
    Ramp {
        /// d.
        decay: f64,
    },
    /// What is averaged halves its weight in a number of updates, at first in a fraction of the updates done.
    HalfLife {
        /// The half-life; a number of images divided by the batch size.
        steps: f64,
        /// The half-life is at most `ramp · (n − 1)`; EDM has 0.05.
        ramp: Option<f64>,
    },
}

impl EmaLaw {
    /// d at update n = 1, 2, …
    pub fn decay(&self, n: u64) -> f64 {
        match *self {
            Self::Constant { decay } => decay,
            Self::Ramp { decay } => decay.min((1.0 + n as f64) / (10.0 + n as f64)),
            Self::HalfLife { steps, ramp } => {
                let half_life = ramp.map_or(steps, |ramp| steps.min(ramp * n.saturating_sub(1) as f64));
                // A half-life of 0, before the first update, forgets everything.
                if half_life > 0.0 { 0.5f64.powf(half_life.recip()) } else { 0.0 }
            }
        }
    }
}

/// A named average.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmaConfig {
    /// Its name, lower-case letters, digits and `-`: a part of a file name.
    pub name: String,
    /// How fast it forgets.
    pub law: EmaLaw,
}

impl EmaConfig {
    pub(crate) fn check(&self) -> Result<()> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if self.name.is_empty() || !self.name.chars().all(plain) {
            return Err(Error::config(
                "ema.name",
                "lower-case letters, digits and `-`",
                format!("{:?}", self.name),
            ));
        }
        let fits = match self.law {
            EmaLaw::Constant { decay } | EmaLaw::Ramp { decay } => (0.0..1.0).contains(&decay),
            EmaLaw::HalfLife { steps, ramp } => steps > 0.0 && ramp.is_none_or(|ramp| ramp > 0.0),
        };
        let expected = "a decay in [0, 1), or a positive half-life and ramp";
        if fits { Ok(()) } else { Err(Error::config("ema.law", expected, format!("{:?}", self.law))) }
    }
}

/// A running average of the weights of a network.
#[derive(Debug)]
pub struct Ema {
    config: EmaConfig,
    weights: BTreeMap<String, Tensor>,
}

impl Ema {
    /// The average before the first update: the weights themselves.
    pub fn new(config: EmaConfig, params: &Params) -> Result<Self> {
        Ok(Self { config, weights: params.to_weights()?.into_iter().collect() })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// Takes in the weights after update n = 1, 2, …; buffers stay as they are.
    pub fn update(&mut self, params: &Params, n: u64) -> Result<()> {
        for (name, var) in params.iter() {
            if let Some((average, share)) = self.of(name, n) {
                lerp(average, &var.as_detached_tensor(), share)?;
            }
        }
        Ok(())
    }

    /// The average of one parameter, and the share that its value after update n has in it.
    pub(crate) fn of(&mut self, name: &str, n: u64) -> Option<Averaged<'_>> {
        let share = 1.0 - self.config.law.decay(n);
        self.weights.get_mut(name).map(|average| (average, share))
    }

    /// Holds the value of a parameter that is not trained any more.
    pub(crate) fn hold(&mut self, name: &str, value: &Tensor) -> Result<()> {
        if let Some(average) = self.weights.get_mut(name) {
            *average = value.detach().copy()?;
        }
        Ok(())
    }

    /// The average, buffers included; a copy, which later updates leave alone.
    pub fn to_weights(&self) -> Result<Weights> {
        self.weights.iter().map(|(name, tensor)| Ok((name.clone(), tensor.copy()?))).collect()
    }

    /// Takes over an average of the names, shapes and types of [`Ema::to_weights`], which the caller has checked.
    pub(crate) fn load(&mut self, weights: &Weights) -> Result<()> {
        for (name, average) in &mut self.weights {
            if let Some(tensor) = weights.get(name) {
                *average = tensor.to_device(average.device())?;
            }
        }
        Ok(())
    }
}
