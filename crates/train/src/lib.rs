//! Training of score models: losses, optimiser, averages of weights, and runs that survive whatever happens to them.
//!
//! - [`loss`]: denoising score matching for any linear process and any prediction.
//! - [`Adam`], [`clip`](mod@clip), [`Ema`], [`Schedule`]: what an update is made of.
//! - [`fit`](fn@fit): the training loop; [`TrainConfig`] is its configuration.
//! - [`RunDir`], [`checkpoint`]: what a run leaves on the disk; [`resume`] continues it bit for bit.
//! - [`hash`]: the hash that stands for weights in records.
//!
//! ```
//! use std::collections::BTreeMap;
//! use std::sync::{Arc, atomic::AtomicBool};
//! use candle_core::{DType, Device};
//! use sde_core::{Prediction, noise::Noise, process::Vp};
//! use sde_data::{Split, Toy, ToySet};
//! use sde_nets::{MlpConfig, NetConfig, Params, TimeFeatures};
//! use sde_train::{checkpoint::*, loss::*, *};
//!
//! # fn main() -> Result<()> {
//! # let directory = tempfile::tempdir().expect("a temporary directory");
//! # let root = directory.path();
//! let time = TimeFeatures::Fourier { std: 1.0, log: false, time_scale: 1.0, time_shift: 0.0 };
//! let net = MlpConfig { prediction: Prediction::Noise, hidden: vec![32, 32], time_dim: 16, time, state: None, classes: None };
//! let (model, params) =
//!     Params::initialise(Noise::new(0), DType::F32, &Device::Cpu, |b| NetConfig::Mlp(net).build(b, &[2]))?;
//! let config = TrainConfig {
//!     steps: 20,
//!     batch: 64,
//!     micro_batch: None,
//!     label_dropout: None,
//!     optimiser: AdamConfig {
//!         kind: AdamKind::Adam, lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0
//!     },
//!     schedule: Schedule { warmup_steps: 0.0, decay: Decay::Constant },
//!     clip: Some(1.0),
//!     replace_non_finite: None,
//!     ema: vec![EmaConfig { name: "main".into(), law: EmaLaw::Ramp { decay: 0.999 } }],
//!     groups: vec![],
//!     log_every: 10,
//!     checkpoint_every: 20,
//!     sample_every: None,
//!     keep: Keep { last: 2, every: None },
//!     held_out: None,
//!     tensorboard: None,
//! };
//! let times = TimeLaw::Uniform { from: 1e-5, to: 1.0 };
//! let loss = Dsm::new(Arc::new(Vp::STANDARD), times, Weighting::Simple, Reduction::Mean)?;
//! let task = Task {
//!     config: &config,
//!     origin: &Origin { seed: 0, config_sha256: hash::sha256(b"the preset"), code: "0.1.0".into() },
//!     objective: &Scored { model: &model, loss: &loss },
//!     classes: None,
//!     data: Arc::new(ToySet::new(Toy::by_name("checkerboard")?, 0, Split::Train, 1000)),
//!     held_out: None,
//! };
//! let mut state = State::new(&config, &params)?;
//! let mut run = RunDir::create(root, "checkerboard", "the preset", &BTreeMap::new())?;
//! let ended = fit(&task, &mut state, &mut run, config.steps, &AtomicBool::new(false), &mut ())?;
//! assert_eq!(ended.checkpoint, Some(run.checkpoints().join("step-20")));
//! # Ok(())
//! # }
//! ```

mod adam;
pub mod adjoint;
pub mod checkpoint;
pub mod clip;
mod config;
mod diffflow;
mod durable;
mod ema;
mod error;
mod events;
mod fit;
mod forward;
mod group;
pub mod hash;
mod labels;
pub mod loss;
mod objective;
mod path_integral;
mod run_dir;
mod schedule;
mod state;
mod vae;
mod variational;

pub use adam::{Adam, AdamConfig, AdamKind, Gradients};
pub use config::{HeldOut, TrainConfig};
pub use diffflow::{DiffFlow, DiffFlowConfig, NoiseConfig, NoiseLaw, Stage};
pub use ema::{Ema, EmaConfig, EmaLaw};
pub use error::{Error, Result};
pub use fit::{Ended, Hooks, Resumed, Task, fit, resume};
pub use forward::{Diffused, Family, Flow, Forward, ForwardConfig, StateFrame};
pub use group::Group;
pub use objective::{Objective, Scored};
pub use path_integral::PathCost;
pub use run_dir::{LogRecord, RunDir, Target, newest_run};
pub use schedule::{Decay, Schedule};
pub use state::{State, WEIGHTS, ema_file};
pub use vae::{VaeBound, binarised};
pub use variational::{ReverseDivergence, VariationalFlow};

/// The snippet of the crate's README, run as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
