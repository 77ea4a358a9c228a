//! Networks that steer a diffusion to a target: PIS-NN and PIS-Grad.
//!
//! ```text
//! PIS-NN      u_t(x) = NN₁(t/T, x)
//! PIS-Grad    u_t(x) = NN₁(t/T, x) + NN₂(t/T) · ∇ log μ̂(x)
//! ```
//!
//! NN₁ is an [`Mlp`] whose output starts at zero; NN₂ is a number, made of the features of the time by three layers, that starts at 0.01. The score comes in as
//! it is given and is a constant to differentiation.
//!
//! Reference: Zhang, Chen 2022, arXiv 2111.15141, Eq. (16); Zhang 2023 (thesis), Eq. (5.16).

use candle_core::{DType, Device, Tensor};
use sde_core::noise::host_tensor;
use sde_core::target::Control;
use sde_core::{Model, Pass, Prediction};
use serde::{Deserialize, Serialize};

use crate::embedding::{TimeEmbedding, TimeFeatures};
use crate::layers::NOTHING;
use crate::mlp::{Mlp, MlpConfig, StateFeatures};
use crate::{Builder, Init, Result, ops};

/// What NN₂ starts at.
const FIRST_SHARE: f64 = 0.01;

/// A control network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControlConfig {
    /// Whether the control is given the target's score: PIS-Grad; if not, PIS-NN.
    pub gradient: bool,
    /// The width of each hidden layer of NN₁; at least one.
    pub hidden: Vec<usize>,
    /// The number of time features; even. NN₂ is as wide.
    pub time_dim: usize,
    /// The features of t/T, which runs from 0 to 1.
    pub time: TimeFeatures,
    /// Fourier features of the state, beside the state itself; none if absent.
    pub state: Option<StateFeatures>,
}

/// The network of a [`ControlConfig`].
#[derive(Debug)]
pub struct ControlNet {
    horizon: f64,
    drift: Mlp,
    share: Option<Share>,
    dtype: DType,
    device: Device,
}

/// NN₂.
#[derive(Debug)]
struct Share {
    time: TimeEmbedding,
    weight: Tensor,
    bias: Tensor,
}

impl Share {
    fn new(b: &Builder, config: &ControlConfig) -> Result<Self> {
        let width = config.time_dim;
        Ok(Self {
            time: TimeEmbedding::new(&b.pp("time"), &config.time, width, width)?,
            weight: b.get(&[1, width], "weight", Init::FanAverage { scale: NOTHING })?,
            bias: b.get(&[1], "bias", Init::Constant(FIRST_SHARE))?,
        })
    }

    /// `[1]` to `[1, 1]`.
    fn forward(&self, t: &Tensor) -> Result<Tensor> {
        ops::linear(&ops::silu(&self.time.forward(t)?)?, &self.weight, &self.bias)
    }
}

impl ControlNet {
    /// The network for states of `dim` entries and times up to `horizon`.
    ///
    /// # Errors
    /// [`crate::Error::Config`] where the configuration describes no network.
    pub fn new(b: &Builder, config: &ControlConfig, dim: usize, horizon: f64) -> Result<Self> {
        let drift = MlpConfig {
            // A control is no prediction of a process; nobody asks.
            prediction: Prediction::Score,
            hidden: config.hidden.clone(),
            time_dim: config.time_dim,
            time: config.time.clone(),
            state: config.state,
            classes: None,
        };
        Ok(Self {
            horizon,
            drift: Mlp::starting_at_zero(&b.pp("drift"), &drift, &[dim])?,
            share: config.gradient.then(|| Share::new(&b.pp("share"), config)).transpose()?,
            dtype: b.dtype(),
            device: b.device().clone(),
        })
    }

    /// The time as the networks see it, `[n]`.
    fn time(&self, t: f64, n: usize) -> sde_core::Result<Tensor> {
        host_tensor(vec![t / self.horizon; n], &[n], self.dtype, &self.device)
    }
}

impl Control for ControlNet {
    fn needs_score(&self) -> bool {
        self.share.is_some()
    }

    fn control(&self, x: &Tensor, t: f64, score: Option<&Tensor>) -> sde_core::Result<Tensor> {
        let here = |x: &Tensor| x.to_device(&self.device)?.to_dtype(self.dtype);
        let mut control = self.drift.forward(&here(x)?, &self.time(t, x.dim(0)?)?, Pass::EVAL)?;
        if let Some(share) = &self.share {
            let score = score.ok_or_else(|| sde_core::Error::Mismatch {
                what: "control",
                expected: "the score of the target".into(),
                found: "none".into(),
            })?;
            let of_score = here(&score.detach())?.broadcast_mul(&share.forward(&self.time(t, 1)?)?)?;
            control = (control + of_score)?;
        }
        Ok(control.to_device(x.device())?.to_dtype(x.dtype())?)
    }
}
