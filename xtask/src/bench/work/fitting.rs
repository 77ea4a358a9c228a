//! Updates by `fit` itself on a preset: batches prepared ahead, loss, backward, clipping, update, averages.
//!
//! A call of `fit` would end with a checkpoint, which nobody wants timed; so it is ended by its hook after the last update instead.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Result, anyhow};
use candle_core::{DType, Device};
use sde_core::noise::Noise;
use sde_data::{Dataset, Split};
use sde_nets::Params;
use sde_train::checkpoint::Origin;
use sde_train::loss::Loss;
use sde_train::{Hooks, RunDir, Scored, State, Task, TrainConfig, fit};
use tempfile::TempDir;

use super::Work;
use crate::bench::clock::{Clock, Elapsed};
use crate::bench::stand_in;
use crate::build::{Use, learned};
use crate::config::Preset;
use crate::output::Output;
use crate::run::{Network, build_network};

/// A run of a preset, in a directory that goes with it.
pub struct Fitting {
    config: TrainConfig,
    classes: Option<usize>,
    origin: Origin,
    data: Arc<dyn Dataset>,
    loss: Box<dyn Loss>,
    model: Network,
    state: State,
    run: RunDir,
    _place: TempDir,
}

impl Fitting {
    /// A run that has not begun; `synthetic` makes the images up.
    pub fn new(preset: &Preset, synthetic: bool, device: &Device) -> Result<Self> {
        let data = if synthetic {
            stand_in::images(&preset.data)?.set
        } else {
            preset.data.load(Split::Train, Use::Training, 0, Output { json: false })?.set
        };
        let ((model, forward), params) = Params::initialise(Noise::new(0), DType::F32, device, |b| {
            Ok((
                build_network(preset, b, data.shape(), None)?,
                learned::forward(&preset.process, b, data.shape())?,
            ))
        })?;
        let loss: Box<dyn Loss> = match forward {
            Some(forward) => preset.loss.learned(None, forward, (&params, &preset.train))?,
            None => preset.loss.of(None, Arc::from(preset.process.build()?), None)?,
        };
        let place = tempfile::tempdir()?;
        // Nothing but updates.
        let never = u64::MAX;
        let config = TrainConfig {
            checkpoint_every: never,
            log_every: never,
            held_out: None,
            tensorboard: None,
            ..preset.train.clone()
        };
        Ok(Self {
            classes: preset.net.classes(),
            origin: Origin { seed: 0, config_sha256: String::new(), code: String::new() },
            loss,
            state: State::new(&config, &params)?,
            run: directory(place.path())?,
            _place: place,
            config,
            data,
            model,
        })
    }
}

fn directory(place: &Path) -> Result<RunDir> {
    Ok(RunDir::create_at(&place.join("run"), "", &BTreeMap::new())?)
}

impl Work for Fitting {
    fn run(&mut self) -> Result<()> {
        self.measure(1, &Device::Cpu).map(drop)
    }

    fn parameters(&self) -> Option<usize> {
        Some(self.state.params().count())
    }

    fn measure(&mut self, iterations: usize, _device: &Device) -> Result<Elapsed> {
        let until = self.state.step() + iterations as u64;
        let config = TrainConfig { sample_every: Some(until), ..self.config.clone() };
        let task = Task {
            config: &config,
            origin: &self.origin,
            objective: &Scored { model: &self.model, loss: self.loss.as_ref() },
            classes: self.classes,
            data: self.data.clone(),
            held_out: None,
        };
        let mut stopwatch = Stopwatch { clock: Clock::start(), elapsed: None };
        let ended =
            fit(&task, &mut self.state, &mut self.run, until, &AtomicBool::new(false), &mut stopwatch);
        match stopwatch.elapsed {
            Some(elapsed) => Ok(elapsed),
            None => Err(ended.map_or_else(Into::into, |_| anyhow!("no call after the last update"))),
        }
    }
}

/// Stops the clock, and the call, after the last update.
struct Stopwatch {
    clock: Clock,
    elapsed: Option<Elapsed>,
}

impl Hooks for Stopwatch {
    fn on_sample(&mut self, state: &State) -> Result<(), Box<dyn StdError + Send + Sync>> {
        state.params().device().synchronize()?;
        self.elapsed = Some(self.clock.elapsed());
        Err("enough".into())
    }
}
