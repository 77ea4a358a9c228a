//! Training, top to bottom: batch → labels → loss → backward → Adam → averages → log → checkpoint.
//!
//! Everything random is a function of (seed, step, position in the batch) and all that changes is in the [`State`],
//! so a run that was stopped anywhere and resumed is bit for bit the run that was not.
//!
//! Candle walks its tape recursively: call [`fit`] on a thread with a large stack (64 MiB serves a deep network).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{DType, Device, Tensor};
use sde_core::noise::{BatchNoise, Noise};
use sde_data::{Batch, Dataset, Order, Prefetch};
use sde_nets::Params;

use crate::adam::Gradients;
use crate::checkpoint::{self, Origin};
use crate::clip::{factor, global_norm, replace_non_finite};
use crate::config::TrainConfig;
use crate::events::Events;
use crate::group::Groups;
use crate::labels;
use crate::loss::LossValue;
use crate::objective::Objective;
use crate::run_dir::{LogRecord, RunDir};
use crate::state::State;
use crate::{Error, Result};

/// Batches that wait, beside the one in work.
const PREFETCHED: usize = 2;
/// The step at which noise for held-out data is drawn; no update has it, so a loss knows held-out data by it.
pub(crate) const HELD_OUT_STEP: u32 = u32::MAX;

/// What is trained, on what, how.
pub struct Task<'a> {
    /// How.
    pub config: &'a TrainConfig,
    /// What it is part of: the seed, and what a checkpoint must agree with.
    pub origin: &'a Origin,
    /// What is minimised, with the networks that it trains, built on the parameters of the [`State`].
    pub objective: &'a dyn Objective,
    /// The number of classes of a conditional network, which is given the labels of the data; an unconditional one does without.
    pub classes: Option<usize>,
    /// The training data.
    pub data: Arc<dyn Dataset>,
    /// The held-out data, if its loss is measured.
    pub held_out: Option<Arc<dyn Dataset>>,
}

/// What a caller does while training goes on.
pub trait Hooks {
    /// After a line of the log was written.
    fn on_log(&mut self, _record: &LogRecord) {}

    /// Every [`sample_every`](TrainConfig::sample_every) updates: time for a sample sheet.
    ///
    /// # Errors
    /// Any; it ends the training with [`Error::Hook`].
    fn on_sample(&mut self, _state: &State) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Ok(())
    }

    /// After a checkpoint was committed.
    fn on_checkpoint(&mut self, _path: &Path) {}
}

/// Does nothing.
impl Hooks for () {}

/// How a call of [`fit`] ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The number of updates made, those of earlier calls included.
    pub step: u64,
    /// Whether the stop flag ended it.
    pub stopped: bool,
    /// The last checkpoint; none only if no update was ever made.
    pub checkpoint: Option<PathBuf>,
}

/// How a resumed run starts.
#[derive(Debug)]
pub struct Resumed {
    /// The checkpoint; none if the run had none yet.
    pub checkpoint: Option<PathBuf>,
    /// Later checkpoints that do not verify, latest first, and why.
    pub skipped: Vec<(PathBuf, Error)>,
}

/// Puts `state` where the run was, at its latest checkpoint that verifies, and the log with it. For a new run this
/// changes nothing.
///
/// # Errors
/// Those of [`checkpoint::latest`] and [`State::restore`].
pub fn resume(run: &mut RunDir, state: &mut State, origin: &Origin) -> Result<Resumed> {
    checkpoint::clean(&run.checkpoints())?;
    let latest = checkpoint::latest(&run.checkpoints())?;
    if let Some(saved) = &latest.checkpoint {
        state.restore(saved, origin)?;
    }
    run.truncate_log(state.step())?;
    let checkpoint = latest.checkpoint.map(|saved| saved.path().to_owned());
    Ok(Resumed { checkpoint, skipped: latest.skipped })
}

/// Trains until `until` updates have been made in all, or `stop` is raised; then saves a checkpoint and returns.
///
/// `until` may lie before the horizon [`TrainConfig::steps`], or behind it; the schedule goes by the horizon. `stop`
/// is looked at between updates.
///
/// # Errors
/// [`Error::NonFinite`] and [`Error::NoGradient`]; those of data, model, hooks and files. What was trained since the
/// last checkpoint is then in `state` alone.
pub fn fit(
    task: &Task<'_>,
    state: &mut State,
    run: &mut RunDir,
    until: u64,
    stop: &AtomicBool,
    hooks: &mut dyn Hooks,
) -> Result<Ended> {
    let config = task.config;
    config.check_labels(task.classes, task.data.classes())?;
    let mut saved = Saved::before(&run.checkpoints(), state.step())?;
    let mut events = match config.tensorboard {
        Some(true) => Some(Events::create(run.path(), state.step())?),
        _ => None,
    };
    let mut stopped = false;

    for batch in batches(task, state.step(), until)? {
        if stop.load(Ordering::Relaxed) {
            stopped = true;
            break;
        }
        let noise =
            BatchNoise::new(Noise::new(task.origin.seed), state.step() as u32, 0..config.batch as u32);
        let batch = labels::dropped(batch?, config, task.classes, &noise)?;
        let Step { loss, terms, mut gradients } = loss_and_gradients(task, state.params(), &batch, &noise)?;

        saved.require_finite("the loss", loss, state.step() + 1)?;
        let mut gradient_norm = global_norm(&gradients)?;
        if let Some(bound) = config.replace_non_finite.filter(|_| !gradient_norm.is_finite()) {
            replace_non_finite(&mut gradients, bound)?;
            gradient_norm = global_norm(&gradients)?;
        }
        saved.require_finite("the norm of the gradients", gradient_norm, state.step() + 1)?;
        let scale = config.clip.map_or(1.0, |max| factor(gradient_norm, max));
        let learning_rate = config.learning_rate(state.step());
        state.update(&gradients, scale, learning_rate)?;
        state.window.add(loss);

        let step = state.step();
        let due = |every: Option<u64>| every.is_some_and(|every| step.is_multiple_of(every));
        let measured = due(config.held_out.map(|held_out| held_out.every));
        if measured || due(Some(config.log_every)) {
            let held_out_loss = if measured { held_out_loss(task, state.params())? } else { None };
            saved.require_finite("the held-out loss", held_out_loss.unwrap_or(0.0), step)?;
            let loss = state.window.take_mean();
            let record = LogRecord { step, loss, gradient_norm, learning_rate, terms, held_out_loss };
            run.log(&record)?;
            events.as_mut().map_or(Ok(()), |events| events.log(&record))?;
            hooks.on_log(&record);
        }
        if due(config.sample_every) {
            hooks.on_sample(state).map_err(Error::Hook)?;
        }
        if due(Some(config.checkpoint_every)) {
            saved.save(task, state, run, hooks)?;
        }
    }
    if saved.step != state.step() {
        saved.save(task, state, run, hooks)?;
    }
    Ok(Ended { step: state.step(), stopped, checkpoint: saved.path })
}

/// The last checkpoint of this run.
struct Saved {
    step: u64,
    path: Option<PathBuf>,
}

impl Saved {
    /// What was there when the call began.
    fn before(root: &Path, step: u64) -> Result<Self> {
        let path = root.join(format!("step-{step}"));
        Ok(Self { step, path: path.is_dir().then_some(path) })
    }

    fn save(&mut self, task: &Task<'_>, state: &State, run: &RunDir, hooks: &mut dyn Hooks) -> Result<()> {
        run.sync_log()?;
        let path = state.save(&run.checkpoints(), task.origin).map_err(|error| match error {
            // The tensor file knows what is not finite, and not what came before it.
            Error::NonFinite { what, step, found, .. } => self.not_finite(&what, found, step),
            other => other,
        })?;
        checkpoint::prune(&run.checkpoints(), state.step(), task.config.keep)?;
        hooks.on_checkpoint(&path);
        *self = Self { step: state.step(), path: Some(path) };
        Ok(())
    }

    fn require_finite(&self, what: &str, found: f64, step: u64) -> Result<()> {
        if found.is_finite() { Ok(()) } else { Err(self.not_finite(what, found, step)) }
    }

    fn not_finite(&self, what: &str, found: f64, step: u64) -> Error {
        Error::NonFinite { what: what.to_owned(), step, found, checkpoint: self.path.clone() }
    }
}

/// The batches of the updates from `done` to `until`, prepared ahead.
fn batches(task: &Task<'_>, done: u64, until: u64) -> Result<Prefetch<Batch, sde_data::Error>> {
    let limit = u64::from(HELD_OUT_STEP);
    if until > limit {
        return Err(Error::config("steps", format!("{limit} updates at most"), until));
    }
    let (data, size) = (task.data.clone(), task.config.batch);
    let noise = Noise::new(task.origin.seed);
    let order = Order::new(data.len(), task.origin.seed)?;
    let make = move |step: u64| {
        data.batch(&order.indices(step, size), &BatchNoise::new(noise, step as u32, 0..size as u32))
    };
    Prefetch::spawn(done..until, PREFETCHED, make)
        .map_err(Error::io("start a thread for", Path::new("batches")))
}

/// The loss of an update, its parts, and its gradients.
struct Step {
    loss: f64,
    terms: BTreeMap<&'static str, f64>,
    gradients: Gradients,
}

/// Goes through the batch in micro-batches. Each counts by its share of the examples, and noise is addressed by the
/// place in the whole batch, so the sum is that of the whole batch but for rounding.
fn loss_and_gradients(task: &Task<'_>, params: &Params, batch: &Batch, noise: &BatchNoise) -> Result<Step> {
    let mut gradients = Gradients::new();
    let mut terms = BTreeMap::new();
    let mut losses = Vec::new();
    for (part, noise, share) in micro_batches(task, params, batch, noise)? {
        let LossValue { total, terms: parts, gradients: made } = task.objective.value(&part, &noise)?;
        let total = (total * share)?;
        // Gradients that came with the value are of it, and not yet of its share.
        let (store, factor) = match made {
            Some(made) => (made, share),
            None => (sde_nets::backward(&total)?, 1.0),
        };
        let groups = Groups(&task.config.groups);
        for (name, var) in
            params.iter().filter(|(name, _)| groups.rate(name, u64::from(noise.step)).is_some())
        {
            let gradient = store.get(var).ok_or_else(|| Error::NoGradient { name: name.to_owned() })?;
            let gradient = if factor == 1.0 { gradient.clone() } else { (gradient * factor)? };
            let sum = match gradients.get(name) {
                None => gradient.detach(),
                Some(sum) => (sum + gradient)?.detach(),
            };
            gradients.insert(name.to_owned(), sum);
        }
        losses.push(total.detach());
        for (name, value) in parts {
            *terms.entry(name).or_insert(0.0) += share * value;
        }
    }
    Ok(Step { loss: sum_on_host(&losses)?, terms, gradients })
}

/// The mean loss over the held-out examples, dropout off.
fn held_out_loss(task: &Task<'_>, params: &Params) -> Result<Option<f64>> {
    let (Some(data), Some(held_out)) = (&task.held_out, task.config.held_out) else { return Ok(None) };
    let examples: Vec<usize> = (0..held_out.examples.min(data.len())).collect();
    let noise = BatchNoise::new(Noise::new(task.origin.seed), HELD_OUT_STEP, 0..examples.len() as u32);
    let batch = data.batch(&examples, &noise)?;
    let mut losses = Vec::new();
    for (part, noise, share) in micro_batches(task, params, &batch, &noise)? {
        losses.push((task.objective.held_out(&part, &noise)?.total.detach() * share)?);
    }
    sum_on_host(&losses).map(Some)
}

/// Cuts a batch into parts that fit the tape, on the device and in the type of the parameters, each with its share of
/// the examples.
fn micro_batches(
    task: &Task<'_>,
    params: &Params,
    batch: &Batch,
    noise: &BatchNoise,
) -> Result<Vec<(Batch, BatchNoise, f64)>> {
    let examples = noise.samples.len();
    let part = |samples: &[u32], from: usize| {
        let here = |tensor: &Tensor| tensor.narrow(0, from, samples.len())?.to_device(params.device());
        let x = here(&batch.x)?.to_dtype(params.dtype())?;
        let labels = batch.labels.as_ref().filter(|_| task.classes.is_some()).map(here).transpose()?;
        let noise = BatchNoise::new(noise.noise, noise.step, samples.iter().copied());
        let augment = batch.augment.as_ref().map(here).transpose()?;
        let augment = augment.map(|features| features.to_dtype(params.dtype())).transpose()?;
        Ok((Batch { x, labels, augment }, noise, samples.len() as f64 / examples as f64))
    };
    let size = task.config.micro_batch.unwrap_or(task.config.batch).max(1);
    noise.samples.chunks(size).enumerate().map(|(i, samples)| part(samples, i * size)).collect()
}

/// The sum of scalars, brought to the host in one transfer.
fn sum_on_host(scalars: &[Tensor]) -> Result<f64> {
    Ok(Tensor::stack(scalars, 0)?.sum_all()?.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_scalar()?)
}
