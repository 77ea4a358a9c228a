//! Samplers of diffusion models.
//!
//! Every fixed-grid linear sampler is a [`Table`] of coefficients, built once on the host from a process and a time grid and run by one
//! executor; [`adaptive`] integrates ordinary differential equations with an error control of its own for each
//! sample; [`divergence`] measures how a field spreads volume.
//!
//! ```
//! use candle_core::{DType, Device};
//! use sde_core::noise::{BatchNoise, Noise};
//! use sde_core::{OracleField, TimeGrid, oracle::Mixture, process::Vp};
//! use sde_solvers::{Multistep, Tab, prior_sample};
//!
//! # fn main() -> sde_solvers::Result<()> {
//! let sde = Vp::STANDARD;
//! let data = Mixture::diagonal(vec![0.6, -0.2], vec![0.25, 0.01])?;
//! let noise = BatchNoise::new(Noise::new(0), 0, 0..16);
//! let table = Tab { degree: 3 }.table(&sde, &TimeGrid::power(1.0, 1e-3, 10, 2.0)?)?;
//! let x = prior_sample(&sde, &noise, &[2], DType::F64, &Device::Cpu)?;
//! let solution = table.sample(&sde, &OracleField::noise(&data, &sde), &x, &noise)?;
//! assert_eq!((solution.x.dims(), solution.nfe[0]), (&[16, 2][..], 10));
//! # Ok(())
//! # }
//! ```

pub mod adaptive;
mod adaptive_sde;
mod brownian;
pub mod calibration;
pub mod catalog;
pub mod divergence;
mod drift_and_score;
pub mod edit;
mod error;
pub mod flow;
pub mod guidance;
pub mod inverse;
pub mod mcmc;
mod path_integral;
mod predictor_corrector;
mod prior;
mod sampler;
mod state_flow;
pub mod table;
mod tableau;
mod upward;
mod variance;

pub use adaptive::{Adaptive, Control, Outcome, Pair};
pub use adaptive_sde::AdaptiveSde;
pub use divergence::Divergence;
pub use drift_and_score::DriftAndScore;
pub use error::{Error, Result};
pub use flow::{AdaptiveFlow, Chart, ProbabilityFlow};
pub use path_integral::{PathIntegral, Paths};
pub use predictor_corrector::{Langevin, Norms, PredictorCorrector};
pub use prior::prior_sample;
pub use sampler::{Path, Sampler, Solution};
pub use state_flow::{StateEulerMaruyama, StateVelocity};
pub use table::{
    AnalyticDiagonal, AnalyticDpm, AnnealedLangevin, Axis, CholeskyAb, Churn, Clipping, Ddim, Ddpm, Dpm2,
    DpmSolver, Ei, Euler, EulerMaruyama, Form, LogAb, Multistep, Pndm, Renoise, ResidualVariance, RhoAb,
    RungeKutta, ScoreSde, SdeDpmSolver, Slope, Start, StochasticDdim, Tab, TabPc, Table, UniPc, Update,
    Variance, denoise,
};
pub use tableau::Tableau;
pub use upward::upward;
pub use variance::{LearnedVariance, WithMoments};

/// The snippet of the crate's README, run as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
