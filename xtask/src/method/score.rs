//! Score models: a network, its process, and a loss that is one of score matching.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use candle_core::{DType, Device};
use sde_core::LinearSde;
use sde_core::noise::{BatchNoise, Noise};
use sde_data::{Batch, Split, Toy};
use sde_nets::ops::{Products, allow_tf32};
use sde_nets::{Params, Weights, count_parameters};
use sde_train::hash::weights_hash;
use sde_train::loss::{Loss, LossValue};
use sde_train::{Objective, Scored, State};
use serde_json::json;

use super::{Facts, Method, Parts, Running, sampled_weights, tells_its_preset};
use crate::build::{Loaded, ProcessConfig, StartConfig, Use, VarianceConfig, learned, unfinished};
use crate::command::picture;
use crate::config::Preset;
use crate::exit::Failure;
use crate::figures::grouped;
use crate::output::Output;
use crate::run::{Network, Run, build_network};
use crate::sampling;

/// How many samples a picture shows while training: images, points.
const SHEET: u32 = 36;
const CLOUD: u32 = 4096;

/// A score model, the network that it is a second output of, if it is one, and the weights that it starts from, if they are another run's.
pub struct Score {
    preset: Preset,
    frozen: Option<Weights>,
    start: Option<Weights>,
}

impl Score {
    /// The method of a preset.
    pub fn new(preset: Preset) -> Self {
        Self { preset, frozen: None, start: None }
    }

    /// The run with the weights that samplers take.
    fn run(&self, state: &State, running: &Running<'_>) -> Result<Run> {
        let weights = sampled_weights(state)?;
        let (path, preset) = (running.directory.clone(), self.preset.clone());
        let facts = (running.data.shape().to_vec(), running.data.encoding());
        Run::of_weights(path, preset, facts, &weights, running.seed, running.device, json!({}))
    }

    /// The loss, of a learned process or a known one.
    fn loss(
        &self,
        forward: Option<Arc<sde_train::Forward>>,
        params: &Params,
        toy: Option<Toy>,
        output: Output,
    ) -> Result<Box<dyn Loss>> {
        let preset = &self.preset;
        if let Some(forward) = forward {
            return preset.loss.learned(preset.variance.as_ref(), forward, (params, &preset.train));
        }
        let sde: Arc<dyn LinearSde> = Arc::from(preset.process.build()?);
        if let Some(warning) = unfinished(sde.as_ref())? {
            output.say(warning);
        }
        let law = toy.map(|toy| toy.mixture()).transpose()?.flatten();
        preset.loss.of(preset.variance.as_ref(), sde, law)
    }
}

impl Method for Score {
    tells_its_preset!(preset);

    fn check(&self) -> Result<()> {
        self.preset.train.check()?;
        if self.preset.mixed_score.is_some() && matches!(self.preset.process, ProcessConfig::Learned(_)) {
            let text = "mixed_score: its exact ε is that of a known process, and process.kind is \"learned\"; \
                        remove it, and take net.prediction = \"v\", which holds the state for late times just so";
            return Err(Failure::Config(text.into()).into());
        }
        Ok(())
    }

    fn needs_nested(&self) -> bool {
        self.preset.loss.needs_nested()
    }

    /// The weights that a run or its second output stands on, of a new run from its base, and their hash in the preset.
    fn prepare(&mut self, existing: Option<&Path>) -> Result<()> {
        self.start = StartConfig::resolve(&mut self.preset, existing)?;
        let Some(variance) = self.preset.variance.clone() else { return Ok(()) };
        variance.moment()?;
        if let Some(path) = existing.filter(|path| VarianceConfig::is_kept(path)) {
            self.frozen = Some(variance.kept_weights(path)?);
            return Ok(());
        }
        let weights = variance.base_weights(&self.preset)?;
        let hash = weights_hash(&weights)?;
        if variance.weights_sha256.as_ref().is_some_and(|started| *started != hash) {
            let text =
                "variance.base: its weights are not those that the run was started with; start a new run";
            return Err(Failure::Config(text.into()).into());
        }
        self.preset.variance = Some(VarianceConfig { weights_sha256: Some(hash), ..variance });
        self.frozen = Some(weights);
        Ok(())
    }

    fn keep(&self, run: &Path) -> Result<()> {
        self.start.as_ref().map_or(Ok(()), |start| StartConfig::keep(run, start))?;
        self.frozen.as_ref().map_or(Ok(()), |frozen| VarianceConfig::keep(run, frozen))
    }

    fn build(&self, seed: u64, device: &Device, output: Output) -> Result<Parts> {
        let preset = &self.preset;
        let load = |split| preset.data.load(split, Use::Training, seed, output);
        let Loaded { set: data, toy } = load(Split::Train)?;
        preset.train.check_labels(preset.net.classes(), data.classes())?;
        let held_out = preset.train.held_out.map(|_| load(Split::Test)).transpose()?.map(|loaded| loaded.set);
        allow_tf32(preset.tf32.unwrap_or(false));
        let products = preset.products.unwrap_or(Products::Full);
        let ((model, forward), params) = Params::initialise(Noise::new(seed), DType::F32, device, |b| {
            let network =
                build_network(preset, &b.with_products(products), data.shape(), self.frozen.as_ref())?;
            Ok((network, learned::forward(&preset.process, b, data.shape())?))
        })?;
        preset.train.check_groups(&params)?;
        self.start.as_ref().map_or(Ok(()), |weights| params.load(weights))?;
        let loss = self.loss(forward, &params, toy, output)?;
        let objective = Box::new(Owned { model, loss });
        Ok(Parts { data, held_out, objective, params, classes: preset.net.classes() })
    }

    fn sheet(&self, state: &State, running: &Running<'_>) -> Result<()> {
        let run = self.run(state, running)?;
        let addresses: Vec<u32> = (0..if run.shape.len() == 1 { CLOUD } else { SHEET }).collect();
        let noise = Noise::new(running.seed);
        let drawn = sampling::of_run(&run, noise, &addresses, addresses.len(), running.output)?;
        if let Some(picture) = picture(&run, &drawn.x, running.output)? {
            picture.save(&running.sheet(state))?;
        }
        Ok(())
    }

    /// Says so where a learned process does not reach its prior: what is known of others from the start, is known of it now.
    fn ended(&self, state: &State, running: &Running<'_>) -> Result<()> {
        if matches!(self.preset.process, ProcessConfig::Learned(_))
            && let Some(warning) = unfinished(self.run(state, running)?.sde.as_ref())?
        {
            running.output.say(warning);
        }
        Ok(())
    }

    fn facts(&self, output: Output) -> Result<Facts> {
        let preset = &self.preset;
        let (shape, _) = preset.data.facts(output)?;
        let state = preset.process.state_shape(&shape)?;
        let of_process = count_parameters(|b| learned::forward(&preset.process, b, &shape))?;
        let parameters = count_parameters(|b| preset.net.build(b, &state))? + of_process;
        let learned = match of_process {
            0 => String::new(),
            n => format!(", {} of them of the process", grouped(n)),
        };
        let line = format!("on states of shape {state:?}{learned}");
        let record = vec![("sample_shape", json!(shape)), ("state_shape", json!(state))];
        Ok(Facts { parameters, line, record })
    }
}

/// A network and its loss.
struct Owned {
    model: Network,
    loss: Box<dyn Loss>,
}

impl Owned {
    fn scored(&self) -> Scored<'_> {
        Scored { model: &self.model, loss: self.loss.as_ref() }
    }
}

impl Objective for Owned {
    fn value(&self, batch: &Batch, noise: &BatchNoise) -> sde_train::Result<LossValue> {
        self.scored().value(batch, noise)
    }

    fn held_out(&self, batch: &Batch, noise: &BatchNoise) -> sde_train::Result<LossValue> {
        self.scored().held_out(batch, noise)
    }
}
