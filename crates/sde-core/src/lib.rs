//! The mathematics of linear diffusion processes, and the types that the other crates meet on.
//!
//! A process is a handful of operators, functions of time ([`LinearSde`]); a network is a [`Model`] in training and a [`Field`] in
//! sampling; what it predicts is a [`Prediction`]; all randomness is addressed ([`noise::Noise`]); data whose every marginal is known
//! ([`oracle::Mixture`]) proves samplers and likelihoods without a network.
//!
//! ```
//! use candle_core::{Device, Tensor};
//! use sde_core::{Field, LinearSde, OracleField, oracle::Mixture, process::Vp};
//!
//! # fn main() -> sde_core::Result<()> {
//! let data = Mixture::diagonal(vec![0.6, -0.2], vec![0.25, 0.01])?;
//! let field = OracleField::noise(&data, &Vp::STANDARD);
//! let x = Tensor::new(&[[0.1, 0.3]], &Device::Cpu)?;
//! let noise = field.eval(&x, &[0.5])?;
//! assert_eq!(noise.dims(), [1, 2]);
//! # Ok(())
//! # }
//! ```

mod combine;
mod device;
mod empirical;
mod error;
mod factor;
pub mod grid;
mod mixed;
mod model;
pub mod molecule;
mod moments;
pub mod noise;
mod noise_rate;
mod op;
pub mod oracle;
mod oracle_field;
mod phase;
mod prediction;
pub mod process;
pub mod quadrature;
mod rotating_frame;
pub mod state_sde;
pub mod target;
mod tensor;

pub use combine::{Combined, combine};
pub use device::{DeviceName, Opened};
pub use empirical::EmpiricalField;
pub use error::{Error, Result};
pub use factor::{FlowFactor, FlowParts};
pub use grid::TimeGrid;
pub use mixed::MixedScore;
pub use model::{Cotangents, Field, FieldFn, Model, ModelField, Pass, per_sample, reverse_mode, rows_of};
pub use moments::{ModelMoments, MomentField, Moments, SecondMoment, required};
pub use noise_rate::NoiseRate;
pub use op::{Basis, Op, Spectral};
pub use oracle_field::OracleField;
pub use phase::{lift, project, state_shape};
pub use prediction::{Conversion, Prediction};
pub use process::{Auxiliary, LinearSde, ScalarSde, Span, check_process};
pub use rotating_frame::RotatingFrame;
pub use state_sde::StateSde;
pub use target::{LogDensity, Target, TargetFn};
pub use tensor::{Converted, apply_each, convert, operators_at};

/// The snippet of the crate's README, run as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
