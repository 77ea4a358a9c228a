//! Processes by name: the published constants, and how a configuration becomes a process.

use sde_core::process::{
    Blurring, Cld, CldParameters, Cosine, Discrete, Edm, Heat, LinearPath, SubVp, Ve, Vp, signal_left,
};
use sde_core::{LinearSde, state_shape};
use sde_train::ForwardConfig;
use serde::{Deserialize, Serialize};

use super::flexible::{self, FpDrift, FpNoise, LangevinBlocks, Pair};

/// A forward process, with every constant spelled out.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum ProcessConfig {
    /// Variance preserving, linear β.
    Vp {
        /// β at t = 0.
        beta_0: f64,
        /// β at t = 1.
        beta_1: f64,
    },
    /// Sub-variance-preserving.
    Subvp {
        /// β at t = 0.
        beta_0: f64,
        /// β at t = 1.
        beta_1: f64,
    },
    /// Variance exploding.
    Ve {
        /// σ at t = 0.
        sigma_min: f64,
        /// σ at t = 1.
        sigma_max: f64,
    },
    /// σ = t.
    Edm {
        /// Where sampling stops.
        sigma_min: f64,
        /// Where it starts.
        sigma_max: f64,
    },
    /// The cosine schedule.
    Cosine {},
    /// The straight path.
    Linear {},
    /// The discrete chain.
    Ddpm {
        /// First β.
        beta_start: f64,
        /// Last β.
        beta_end: f64,
        /// Number of steps.
        steps: usize,
    },
    /// Langevin diffusion of positions and velocities.
    Cld {
        /// β at t = 0.
        beta_0: f64,
        /// β at t = 1.
        beta_1: f64,
        /// M.
        mass: f64,
        /// Γ; critical at 2√M.
        friction: f64,
        /// γ: velocities start with the variance γM.
        gamma: f64,
        /// Added to both variances at t = 0.
        jitter: f64,
    },
    /// Blurring diffusion of images of one size.
    Blurring {
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
        /// The blur at the end, in pixels.
        sigma_blur: f64,
        /// The part of every frequency that is not blurred.
        d_min: f64,
    },
    /// Noise alone, of a colour: its power at a frequency falls with `(1 + λ)^−slope`, λ the frequency's eigenvalue of −Δ.
    Heat {
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
        /// 0 for white noise.
        slope: f64,
        /// Where sampling stops.
        sigma_min: f64,
        /// Where it starts.
        sigma_max: f64,
    },
    /// A process whose parameters are trained with the network.
    Learned(ForwardConfig),
    /// FP-Noise of the flexible diffusions.
    #[serde(rename = "fp-noise")]
    FpNoise(FpNoise),
    /// FP-Drift of the flexible diffusions.
    #[serde(rename = "fp-drift")]
    FpDrift(FpDrift),
    /// Damped oscillators of pairs of coordinates.
    Langevin(LangevinBlocks),
    /// Any linear pair.
    Pair(Pair),
}

impl ProcessConfig {
    /// The names, as on the command line.
    pub const NAMES: &[&str] = &[
        "vp", "subvp", "ve", "edm", "cosine", "linear", "ddpm", "cld", "blurring", "heat", "fp-noise",
        "fp-drift", "langevin", "pair",
    ];

    /// The published constants of a process.
    pub fn published(name: &str) -> Option<Self> {
        Some(match name {
            "vp" => Self::Vp { beta_0: 0.1, beta_1: 20.0 },
            "subvp" => Self::Subvp { beta_0: 0.1, beta_1: 20.0 },
            "ve" => Self::Ve { sigma_min: 0.01, sigma_max: 50.0 },
            "edm" => Self::Edm { sigma_min: 0.002, sigma_max: 80.0 },
            "cosine" => Self::Cosine {},
            "linear" => Self::Linear {},
            "ddpm" => Self::Ddpm { beta_start: 1e-4, beta_end: 0.02, steps: 1000 },
            "cld" => {
                let CldParameters { beta_0, beta_1, mass, friction, gamma, jitter } =
                    CldParameters::PUBLISHED;
                Self::Cld { beta_0, beta_1, mass, friction, gamma, jitter }
            }
            "blurring" => Self::Blurring { height: 32, width: 32, sigma_blur: 10.0, d_min: 0.001 },
            "heat" => Self::Heat { height: 32, width: 32, slope: 1.0, sigma_min: 0.002, sigma_max: 80.0 },
            "fp-noise" | "fp-drift" | "langevin" | "pair" => return flexible::standard(name),
            _ => return None,
        })
    }

    /// The grid that samplers of an order err least on in few steps, measured on eight narrow Gaussians (docs/solvers.md).
    pub fn grid(&self, order: u32) -> &'static str {
        match self {
            Self::Ve { .. } => "uniform",
            Self::Edm { .. } | Self::Heat { .. } => "karras",
            Self::Vp { .. }
            | Self::Ddpm { .. }
            | Self::Learned(_)
            | Self::FpNoise(_)
            | Self::FpDrift(_)
            | Self::Pair(_)
                if order > 1 =>
            {
                "cubic"
            }
            _ => "quadratic",
        }
    }

    /// The shape of a state for data of the shape `data`.
    pub fn state_shape(&self, data: &[usize]) -> sde_core::Result<Vec<usize>> {
        match self {
            // It has no velocities, whatever it will be.
            Self::Learned(_) => Ok(data.to_vec()),
            known => state_shape(known.build()?.as_ref(), data),
        }
    }

    /// The process; a learned one is made by [`super::learned`].
    pub fn build(&self) -> sde_core::Result<Box<dyn LinearSde>> {
        Ok(match *self {
            Self::FpNoise(ref law) => law.build()?,
            Self::FpDrift(ref law) => law.build()?,
            Self::Langevin(ref law) => law.build()?,
            Self::Pair(ref law) => law.build()?,
            Self::Vp { beta_0, beta_1 } => Box::new(Vp::new(beta_0, beta_1)?),
            Self::Subvp { beta_0, beta_1 } => Box::new(SubVp::new(beta_0, beta_1)?),
            Self::Ve { sigma_min, sigma_max } => Box::new(Ve::new(sigma_min, sigma_max)?),
            Self::Edm { sigma_min, sigma_max } => Box::new(Edm::new(sigma_min, sigma_max)?),
            Self::Cosine {} => Box::new(Cosine),
            Self::Linear {} => Box::new(LinearPath),
            Self::Ddpm { beta_start, beta_end, steps } => {
                let last = steps.saturating_sub(1).max(1) as f64;
                let beta = |n: usize| beta_start + (beta_end - beta_start) * n as f64 / last;
                Box::new(Discrete::new(&(0..steps).map(beta).collect::<Vec<_>>())?)
            }
            Self::Learned(_) => {
                return Err(sde_core::Error::Mismatch {
                    what: "process of this preset",
                    expected: "one that is known without training".into(),
                    found: "a learned one: open a run of it".into(),
                });
            }
            Self::Cld { beta_0, beta_1, mass, friction, gamma, jitter } => {
                Box::new(Cld::new(CldParameters { beta_0, beta_1, mass, friction, gamma, jitter })?)
            }
            Self::Blurring { height, width, sigma_blur, d_min } => {
                Box::new(Blurring::new((height, width), sigma_blur, d_min)?)
            }
            Self::Heat { height, width, slope, sigma_min, sigma_max } => {
                Box::new(Heat::new(Heat::of_slope((height, width), slope)?, [sigma_min, sigma_max])?)
            }
        })
    }
}

/// What there is to say of a process that does not reach its prior, from which sampling starts.
pub fn unfinished(sde: &dyn LinearSde) -> sde_core::Result<Option<String>> {
    let left = signal_left(sde)?;
    let text = || {
        format!(
            "the process keeps {:.0} % of unit data in some direction at its end, and sampling starts from its prior, without any; \
             make the slowest rate or β larger",
            100.0 * left
        )
    };
    Ok((left > 0.1).then(text))
}
