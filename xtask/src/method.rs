//! What can be trained: each method has presets of its own type, and one trait tells `train`, `presets` and `show` what they need.
//!
//! The key `method` at the top of a preset says which it is; a score model has none.

pub mod diffflow;
pub mod path_integral;
mod score;
pub mod vae;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use candle_core::Device;
use sde_data::Dataset;
use sde_nets::{Params, Weights};
use sde_train::{Objective, State, TrainConfig};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::config::{Preset, Source, did_you_mean, nearest};
use crate::exit::Failure;
use crate::output::Output;

/// What a training is made of.
pub struct Parts {
    /// What is trained on; the starts of a method without data are its data.
    pub data: Arc<dyn Dataset>,
    /// The held-out data, where its value is measured.
    pub held_out: Option<Arc<dyn Dataset>>,
    /// What is minimised, with the networks.
    pub objective: Box<dyn Objective>,
    /// Their parameters.
    pub params: Params,
    /// The number of classes of a conditional network.
    pub classes: Option<usize>,
}

/// What a run in training is drawn from, beside its state.
pub struct Running<'a> {
    /// Its directory.
    pub directory: PathBuf,
    /// Its training data.
    pub data: Arc<dyn Dataset>,
    /// Where its networks are.
    pub device: &'a Device,
    /// Its seed.
    pub seed: u64,
    /// For warnings.
    pub output: Output,
}

impl Running<'_> {
    /// Where the picture of a state belongs.
    pub fn sheet(&self, state: &State) -> PathBuf {
        self.directory.join("samples").join(format!("step-{:07}.png", state.step()))
    }
}

/// What `show` tells beside the configuration.
pub struct Facts {
    /// The number of trainable parameters.
    pub parameters: usize,
    /// What there is to say of it, one line.
    pub line: String,
    /// More for the record.
    pub record: Vec<(&'static str, Value)>,
}

/// A configuration of something that can be trained.
pub trait Method {
    /// Its preset's name.
    fn name(&self) -> &str;

    /// One line on it.
    fn about(&self) -> &str;

    /// How it is trained.
    fn train(&self) -> &TrainConfig;

    /// The configuration as it is written down.
    fn to_toml(&self) -> Result<String>;

    /// The configuration as a value.
    fn to_value(&self) -> Result<Value>;

    /// Refuses what cannot be, before anything is opened.
    fn check(&self) -> Result<()> {
        Ok(self.train().check()?)
    }

    /// Whether its loss has derivatives by its input, for which the tape is to keep gradients of gradients.
    fn needs_nested(&self) -> bool {
        false
    }

    /// Looks up what a run stands on and writes it into the configuration; `existing` is the run that is gone on with.
    fn prepare(&mut self, existing: Option<&Path>) -> Result<()> {
        let _ = existing;
        Ok(())
    }

    /// Leaves what the run stands on in its directory.
    fn keep(&self, run: &Path) -> Result<()> {
        let _ = run;
        Ok(())
    }

    /// Data, networks and objective.
    fn build(&self, seed: u64, device: &Device, output: Output) -> Result<Parts>;

    /// Draws what the state makes, for `train.sample_every`.
    fn sheet(&self, state: &State, running: &Running<'_>) -> Result<()>;

    /// What is to be said when the training has ended.
    fn ended(&self, state: &State, running: &Running<'_>) -> Result<()> {
        let _ = (state, running);
        Ok(())
    }

    /// What `show` tells.
    fn facts(&self, output: Output) -> Result<Facts>;
}

/// The methods by the key `method`.
const METHODS: &[&str] = &[diffflow::NAME, path_integral::NAME, vae::NAME];

/// The configuration of a source, of whichever method it is.
///
/// # Errors
/// For a method that there is not, and for what does not fit its preset.
pub fn of(source: &Source) -> Result<Box<dyn Method>> {
    match source.method() {
        None => Ok(Box::new(score::Score::new(source.score()?))),
        Some(diffflow::NAME) => Ok(Box::new(diffflow::DiffFlowMethod(source.parse()?))),
        Some(path_integral::NAME) => Ok(Box::new(path_integral::PathIntegralMethod(source.parse()?))),
        Some(vae::NAME) => Ok(Box::new(vae::VaeMethod(source.parse()?))),
        Some(unknown) => {
            let hint = did_you_mean(nearest(unknown, METHODS.iter().copied()));
            let known = METHODS.join(", ");
            let text =
                format!("method = \"{unknown}\" is none of: {known}; absent, it is a score model{hint}");
            Err(Failure::Config(text).into())
        }
    }
}

/// A score model's preset as a method.
pub fn score(preset: &Preset) -> impl Method {
    score::Score::new(preset.clone())
}

/// The preset in a run's directory, of `method`; `what` ends "this run is no …".
fn of_run<P: DeserializeOwned>(path: &Path, method: &str, what: &str) -> Result<P> {
    let source = Source::read(&path.join("config.toml"))?;
    if source.method() != Some(method) {
        return Err(Failure::Usage(format!("{}: this run is no {what}", path.display())).into());
    }
    source.parse()
}

/// The weights that samples are drawn with: the first average, if there is one.
fn sampled_weights(state: &State) -> Result<Weights> {
    Ok(match state.averages().first() {
        Some(average) => average.to_weights()?,
        None => state.params().to_weights()?,
    })
}

/// What every [`Method`] tells of its preset, a field of it.
macro_rules! tells_its_preset {
    ($preset:tt) => {
        fn name(&self) -> &str {
            &self.$preset.name
        }

        fn about(&self) -> &str {
            &self.$preset.about
        }

        fn train(&self) -> &sde_train::TrainConfig {
            &self.$preset.train
        }

        fn to_toml(&self) -> anyhow::Result<String> {
            Ok(toml::to_string(&self.$preset)?)
        }

        fn to_value(&self) -> anyhow::Result<serde_json::Value> {
            Ok(serde_json::to_value(&self.$preset)?)
        }
    };
}
use tells_its_preset;
