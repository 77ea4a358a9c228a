//! Score networks on Candle: the U-Nets of DDPM, DDPM++, NCSN++ and EDM, networks for points, parameters, fast operators.
//!
//! A network is a configuration ([`NetConfig`]), built on a [`Builder`]: with fresh parameters
//! ([`Params::initialise`]), with given ones ([`Params::restore`]), or without a tape ([`Weights::freeze`]).
//! It knows no process, solver or optimiser.
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use sde_core::{Model, Pass, Prediction, noise::Noise};
//! use sde_nets::{MlpConfig, NetConfig, Params, TimeFeatures};
//!
//! # fn main() -> sde_nets::Result<()> {
//! let time = TimeFeatures::Fourier { std: 1.0, log: false, time_scale: 1.0, time_shift: 0.0 };
//! let config =
//!     NetConfig::Mlp(MlpConfig { prediction: Prediction::Noise, hidden: vec![64, 64], time_dim: 16, time, state: None, classes: None });
//! let device = Device::Cpu;
//! let (net, params) = Params::initialise(Noise::new(0), DType::F32, &device, |b| config.build(b, &[2]))?;
//! let (x, t) = (Tensor::zeros((5, 2), DType::F32, &device)?, Tensor::ones(5, DType::F32, &device)?);
//! let taped = net.forward(&x, &t, Pass::EVAL)?;
//!
//! let frozen = params.to_weights()?.freeze(DType::F32, &device, |b| config.build(b, &[2]))?;
//! assert_eq!(frozen.forward(&x, &t, Pass::EVAL)?.to_vec2::<f32>()?, taped.to_vec2::<f32>()?);
//! # Ok(())
//! # }
//! ```

mod builder;
mod classes;
mod config;
mod control;
pub mod derivatives;
mod embedding;
mod error;
mod flow;
mod head;
mod header;
mod layers;
mod mlp;
pub mod ops;
mod orthogonal;
mod params;
mod points;
mod precondition;
pub mod pretrained;
mod replay;
mod rezero;
mod unet;
mod vae;

pub use builder::{Builder, Init};
pub use config::NetConfig;
pub use control::{ControlConfig, ControlNet};
pub use embedding::TimeFeatures;
pub use error::{Error, Result, WeightsMismatch};
pub use flow::{CouplingFlow, FlowConfig, Mapped, standard_normal_log};
pub use head::SecondHead;
pub use mlp::{Mlp, MlpConfig, StateFeatures};
pub use orthogonal::{Frame, OrthogonalConfig, OrthogonalMap, in_f64};
pub use params::{Params, Weights, count_parameters};
pub use precondition::{Precondition, Preconditioned};
pub use replay::backward;
pub use rezero::{Rezero, RezeroConfig};
pub use unet::{Resampling, Unet, UnetConfig, UpAttention};
pub use vae::{Vae, VaeConfig, VaePosterior};

/// The snippet of the crate's README, run as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
