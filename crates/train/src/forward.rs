//! Learned linear forward processes: `dx = −ḃ (½ Q + ω) x dt + √(ḃ Q) dw`, whose law at the end is N(0, I) whatever Q and ω are.
//!
//! ```text
//! noise     Q = P diag(λ) Pᵀ, ω = 0     x_t = P (a ⊙ Pᵀx₀ + σ ⊙ ε̃)     a_i² = e^{−λ_i b}, σ_i² = 1 − a_i²
//! drift     Q = I, ω = P blockdiag(λ_i J) Pᵀ     x_t = a e^{−ωb} x₀ + σ ε     J = ((0, 1), (−1, 0))
//! rotation  Q = I, ω = U − Uᵀ, for few dimensions: an exponential for each sample
//! ```
//!
//! b is the clock, the integral of β over [0, t]: the processes of λ = 1, or ω = 0, are the variance-preserving one. P is an
//! [`OrthogonalMap`], λ of noise `floor + (1 − floor) e^ℓ`. The parameters are variables beside the network's, below a
//! path of their own; [`Forward::flow`] is the process at their present values, with a tape.
//!
//! Reference: "A Flexible Diffusion Model", Theorem 3.5 and Eq. (19), sections A.4 and B.2.
//! Differs: initial values are small. With log λ ~ N(0, 1), as there, the slowest of 784 coordinates has λ = 0.04 and has
//! kept 81 % of its signal at the end.

mod flow;
mod freeze;
mod state_frame;

pub use flow::{Diffused, Flow};
pub use state_frame::StateFrame;

use flow::Form;

use std::sync::Mutex;

use candle_core::{DType, Device, Tensor};
use sde_core::process::Vp;
use sde_core::{LinearSde, ScalarSde};
use sde_nets::{Builder, Init, OrthogonalConfig, OrthogonalMap, in_f64};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A learned process: its clock and its family.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForwardConfig {
    /// β at t = 0.
    pub beta_0: f64,
    /// β at t = 1.
    pub beta_1: f64,
    /// What is learned.
    pub family: Family,
}

/// Which of Q and ω is learned.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Family {
    /// Q, in a learned basis.
    Noise {
        /// P.
        map: OrthogonalConfig,
        /// The initial standard deviation of ℓ = log λ, around 0.
        std: f64,
        /// Whether λ is divided by its root mean square, so that ‖Λ‖_F = √D.
        normalise: bool,
        /// The smallest λ, before it is normalised; 0 for none.
        floor: f64,
    },
    /// ω, in a learned basis.
    Drift {
        /// P.
        map: OrthogonalConfig,
        /// The initial standard deviation of the rates λ, around 0.
        std: f64,
    },
    /// ω, by its entries above the diagonal.
    Rotation {
        /// The initial standard deviation of the entries.
        std: f64,
    },
}

/// The most dimensions of [`Family::Rotation`]: each sample has an exponential of that size.
const MOST_ROTATED: usize = 64;

/// The parameters of a family.
#[derive(Debug)]
enum Parts {
    Noise { map: OrthogonalMap, log_rates: Tensor, normalise: bool, floor: f64 },
    Drift { map: OrthogonalMap, rates: Tensor },
    Rotation { upper: Tensor },
}

/// A learned forward process.
#[derive(Debug)]
pub struct Forward {
    clock: Vp,
    dim: usize,
    parts: Parts,
    /// The last flow that was asked for without a tape, and the values that it was made of.
    kept: Mutex<Option<(Vec<f64>, Flow)>>,
}

impl ForwardConfig {
    /// Refuses what is no process for samples of `sample_shape`.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn check(&self, sample_shape: &[usize]) -> Result<()> {
        let dim: usize = sample_shape.iter().product();
        let (Family::Noise { std, .. } | Family::Drift { std, .. } | Family::Rotation { std }) = self.family;
        if !(std >= 0.0 && std.is_finite()) {
            return Err(Error::config("process.family.std", "0 or more", std));
        }
        match self.family {
            Family::Noise { floor, .. } if !(0.0..1.0).contains(&floor) => {
                Err(Error::config("process.family.floor", "0 or more, below 1", floor))
            }
            Family::Drift { .. } | Family::Rotation { .. } if dim < 2 => {
                let expected = "\"noise\" where there is one dimension, which has nothing to turn";
                Err(Error::config("process.family.kind", expected, "a rotation"))
            }
            Family::Rotation { .. } if dim > MOST_ROTATED => {
                let expected = format!("\"drift\" above {MOST_ROTATED} dimensions");
                Err(Error::config("process.family.kind", expected, format!("\"rotation\" of {dim}")))
            }
            _ => Ok(()),
        }
    }
}

impl Forward {
    /// The process for samples of `sample_shape`, with parameters from `b`.
    ///
    /// # Errors
    /// Where the configuration describes no process for such samples.
    pub fn new(b: &Builder, config: &ForwardConfig, sample_shape: &[usize]) -> sde_nets::Result<Self> {
        config.check(sample_shape).map_err(sde_core::Error::model)?;
        let clock = Vp::new(config.beta_0, config.beta_1)?;
        let dim: usize = sample_shape.iter().product();
        let normal = |name: &str, count: usize, std: f64| b.get(&[count], name, Init::Normal { std });
        let parts = match config.family {
            Family::Noise { map, std, normalise, floor } => Parts::Noise {
                map: map.build(&b.pp("map"), sample_shape)?,
                log_rates: normal("log_rates", dim, std)?,
                normalise,
                floor,
            },
            Family::Drift { map, std } => Parts::Drift {
                map: map.build(&b.pp("map"), sample_shape)?,
                rates: normal("rates", dim / 2, std)?,
            },
            Family::Rotation { std } => Parts::Rotation { upper: normal("upper", dim * (dim - 1) / 2, std)? },
        };
        Ok(Self { clock, dim, parts, kept: Mutex::new(None) })
    }

    /// The process of the clock, λ = 1 and ω = 0.
    pub fn clock(&self) -> &Vp {
        &self.clock
    }

    /// b, the integral of β over [0, t].
    pub fn integral(&self, t: f64) -> f64 {
        // ρ² = e^b − 1, which keeps its digits where b is small.
        self.clock.rho(t).powi(2).ln_1p()
    }

    /// The process at the present values of its parameters, on the tape where they are variables, for states of `dtype`.
    pub fn flow(&self, dtype: DType) -> Result<Flow> {
        Ok(match &self.parts {
            Parts::Noise { map, log_rates, .. } => {
                Flow::noise(map.frame(dtype)?, self.speeds(&in_f64(log_rates)?)?)
            }
            Parts::Drift { map, rates } => Flow::drift(map.frame(dtype)?, in_f64(rates)?, self.dim),
            Parts::Rotation { upper } => Flow::rotation(in_f64(upper)?, self.dim),
        })
    }

    /// The same without a tape, made again only where a parameter has changed: what a process costs that is trained no more.
    pub fn fixed_flow(&self, dtype: DType) -> Result<Flow> {
        let mut values = vec![dtype.size_in_bytes() as f64];
        for parameter in self.parameters() {
            let host = parameter.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
            values.extend(host.flatten_all()?.to_vec1::<f64>()?);
        }
        let kept = || self.kept.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some((of, flow)) = kept().as_ref()
            && *of == values
        {
            return Ok(flow.clone());
        }
        let flow = self.flow(dtype)?.detach();
        *kept() = Some((values, flow.clone()));
        Ok(flow)
    }

    fn parameters(&self) -> Vec<&Tensor> {
        match &self.parts {
            Parts::Noise { map, log_rates, .. } => map.parameters().into_iter().chain([log_rates]).collect(),
            Parts::Drift { map, rates } => map.parameters().into_iter().chain([rates]).collect(),
            Parts::Rotation { upper } => vec![upper],
        }
    }

    /// λ of noise from ℓ.
    fn speeds(&self, log_rates: &Tensor) -> Result<Tensor> {
        let Parts::Noise { normalise, floor, .. } = self.parts else { return Ok(log_rates.clone()) };
        let rates = log_rates.exp()?.affine(1.0 - floor, floor)?;
        if !normalise {
            return Ok(rates);
        }
        let root_mean_square = rates.sqr()?.mean_keepdim(0)?.sqrt()?;
        Ok(rates.broadcast_div(&root_mean_square)?)
    }

    /// ḃ, that is β.
    pub fn rate(&self, t: f64) -> f64 {
        self.clock.beta(t)
    }

    /// The number of dimensions.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Whether Q is fixed at I, so that x_t is a variance-preserving process in a frame that turns.
    pub fn is_rotation(&self) -> bool {
        !matches!(self.parts, Parts::Noise { .. })
    }

    /// Whether ‖Λ‖_F is fixed.
    pub fn is_normalised(&self) -> bool {
        !matches!(self.parts, Parts::Noise { normalise: false, .. })
    }

    /// The time at which c = ½ log(e^b − 1) is `clock`.
    pub(crate) fn time(&self, clock: f64) -> f64 {
        self.clock.time_of_clock(clock)
    }

    /// c at two times.
    pub(crate) fn clocks(&self, from: f64, to: f64) -> [f64; 2] {
        [from, to].map(|t| LinearSde::clock(&self.clock, t))
    }

    /// dc/dt.
    pub(crate) fn clock_rate(&self, t: f64) -> f64 {
        LinearSde::clock_rate(&self.clock, t)
    }
}
