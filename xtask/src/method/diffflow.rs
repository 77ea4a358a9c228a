//! DiffFlow: a drift and a score, trained together along simulated paths.
//!
//! What is sampled and measured by an ODE sees the run as a network that predicts a velocity, carried by VP between the ends of its time.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use sde_core::noise::{BatchNoise, Law, Noise, NormalSource, Stream};
use sde_core::process::{Ends, Vp};
use sde_core::{LinearSde, ModelField, TimeGrid};
use sde_data::{Encoding, Split};
use sde_eval::{LogDensity, PointDensity};
use sde_nets::{Builder, NetConfig, Params, Weights, count_parameters};
use sde_solvers::{DriftAndScore, Outcome, prior_sample};
use sde_train::loss::{Reduction, TimeLaw, Weighting};
use sde_train::{DiffFlow, DiffFlowConfig, State, TrainConfig};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Facts, Method, Parts, Running, sampled_weights, tells_its_preset};
use crate::build::{DataConfig, LikelihoodConfig, LossConfig, ProcessConfig, SamplerConfig, Use};
use crate::command::picture;
use crate::config::Preset;
use crate::exit::Failure;
use crate::output::Output;
use crate::run::{Network, Run};

/// The key `method` of its presets.
pub const NAME: &str = "diffflow";
/// How many samples a picture shows while training: images, points.
const SHEET: u32 = 36;
const CLOUD: u32 = 4096;
/// The sampler that is the backward chain itself.
const CHAIN: &str = "em";

/// A preset.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DiffFlowPreset {
    /// `diffflow`.
    pub method: String,
    /// Its name, which is also its file's.
    pub name: String,
    /// One line: what it is and where its numbers are from.
    pub about: String,
    /// The data.
    pub data: DataConfig,
    /// f, which predicts a velocity.
    pub drift: NetConfig,
    /// s, which predicts a score.
    pub score: NetConfig,
    /// Times, noise and steps.
    pub process: DiffFlowConfig,
    /// How they are trained.
    pub train: TrainConfig,
    /// How samples are drawn: `em`, the backward chain with λ, or an adaptive solver of the flow.
    pub sampler: SamplerConfig,
    /// How likelihood is measured: by the flow, or its bound `elbo`.
    pub likelihood: LikelihoodConfig,
}

/// The networks on a builder.
fn networks(preset: &DiffFlowPreset, b: &Builder, shape: &[usize]) -> sde_nets::Result<[Network; 2]> {
    Ok([preset.drift.build(&b.pp("drift"), shape)?, preset.score.build(&b.pp("score"), shape)?])
}

/// What a run of this method has beside the flow.
pub struct Diffusion {
    /// Its process.
    pub process: DiffFlowConfig,
    drift: Arc<Network>,
    score: Arc<Network>,
    device: Device,
}

/// Drift and score as a sampler sees them.
pub type Fields = DriftAndScore<ModelField<Arc<Network>>, ModelField<Arc<Network>>>;

impl Diffusion {
    /// Drift and score.
    pub fn fields(&self) -> Result<Fields> {
        let field = |network: &Arc<Network>| ModelField::new(network.clone(), DType::F32, &self.device);
        Ok(DriftAndScore::new(field(&self.drift), field(&self.score), self.process.rate()?)?)
    }

    /// The grid of `steps` steps.
    pub fn grid(&self, steps: usize) -> Result<TimeGrid> {
        Ok(self.process.grid(steps)?)
    }

    /// The bound by `draws` paths for each example.
    pub fn bound(&self, draws: usize) -> Result<Bound> {
        let flow = DiffFlow::new(self.drift.clone(), self.score.clone(), self.process.clone())?;
        Ok(Bound { grid: self.grid(self.process.steps())?, flow, draws, device: self.device.clone() })
    }

    /// Samples at addresses by the backward chain, `batch` at a time.
    pub fn draw(
        &self,
        (steps, lambda): (usize, f64),
        shape: &[usize],
        noise: Noise,
        addresses: &[u32],
        batch: usize,
    ) -> Result<Tensor> {
        let (fields, grid) = (self.fields()?, self.grid(steps)?);
        let drawn = addresses.chunks(batch).map(|part| {
            let noise = BatchNoise::new(noise, 0, part.iter().copied());
            let start = prior_sample(&Vp::STANDARD, &noise, shape, DType::F64, &Device::Cpu)?;
            Ok(fields.sample(&grid, lambda, &start, &noise)?.x)
        });
        Ok(Tensor::cat(&drawn.collect::<Result<Vec<_>>>()?, 0)?)
    }
}

impl DiffFlowPreset {
    /// What the commands that know one network make of it; nothing there is trained.
    pub fn as_score(&self) -> Result<Preset> {
        let unused = LossConfig {
            weighting: Weighting::Simple,
            time: TimeLaw::Uniform { from: self.process.start, to: self.process.end },
            reduction: Reduction::Sum,
            path: None,
            fokker_planck: None,
            cauchy: None,
        };
        Ok(Preset {
            name: self.name.clone(),
            about: self.about.clone(),
            products: None,
            tf32: None,
            mixed_score: None,
            start: None,
            data: self.data.clone(),
            process: ProcessConfig::Vp { beta_0: 0.1, beta_1: 20.0 },
            net: self.drift.clone(),
            loss: unused,
            variance: None,
            train: self.train.clone(),
            // The chain's last step is its mean; the flow has nothing to denoise.
            sampler: SamplerConfig { denoise: false, ..self.sampler.clone() },
            likelihood: self.likelihood.clone(),
        })
    }

    /// A run around given weights, with shape and encoding of its data.
    pub fn open(
        &self,
        path: PathBuf,
        (shape, encoding): (Vec<usize>, Encoding),
        weights: &Weights,
        seed: u64,
        device: &Device,
        origin: Value,
    ) -> Result<Run> {
        let [drift, score] = weights
            .freeze(DType::F32, device, |b| networks(self, b, &shape))
            .with_context(|| format!("{}: the weights do not fit the configured networks", path.display()))?;
        let (drift, score) = (Arc::new(drift), Arc::new(score));
        let network: Network =
            Box::new(DriftAndScore::of_models(drift.clone(), score.clone(), self.process.rate()?)?);
        let sde: Arc<dyn LinearSde> =
            Arc::new(Ends::new(Vp::STANDARD, self.process.start, self.process.end)?);
        let diffusion = Diffusion { process: self.process.clone(), drift, score, device: device.clone() };
        let parts = (sde, network, diffusion);
        Run::of_flow(path, self.as_score()?, (shape, encoding), parts, (seed, origin), device)
    }
}

/// A preset as a method.
pub struct DiffFlowMethod(pub DiffFlowPreset);

impl Method for DiffFlowMethod {
    tells_its_preset!(0);

    fn check(&self) -> Result<()> {
        self.0.train.check()?;
        self.0.process.check()?;
        let known = [("drift", &self.0.drift), ("score", &self.0.score)];
        if let Some((key, _)) = known.iter().find(|(_, net)| net.classes().is_some()) {
            let text = format!("{key}.classes: a DiffFlow has no classes; leave it out");
            return Err(Failure::Config(text).into());
        }
        check_sampler(&self.0.sampler)
    }

    fn build(&self, seed: u64, device: &Device, output: Output) -> Result<Parts> {
        let preset = &self.0;
        let load = |split| Ok::<_, anyhow::Error>(preset.data.load(split, Use::Training, seed, output)?.set);
        let data = load(Split::Train)?;
        let held_out = preset.train.held_out.map(|_| load(Split::Test)).transpose()?;
        let build = |b: &Builder| networks(preset, b, data.shape());
        let ([drift, score], params) = Params::initialise(Noise::new(seed), DType::F32, device, build)?;
        preset.train.check_groups(&params)?;
        let objective = Box::new(DiffFlow::new(drift, score, preset.process.clone())?);
        Ok(Parts { data, held_out, objective, params, classes: None })
    }

    fn sheet(&self, state: &State, running: &Running<'_>) -> Result<()> {
        let weights = sampled_weights(state)?;
        let facts = (running.data.shape().to_vec(), running.data.encoding());
        let run = self.0.open(
            running.directory.clone(),
            facts,
            &weights,
            running.seed,
            running.device,
            json!({}),
        )?;
        let Some(diffusion) = &run.diffusion else { return Ok(()) };
        let addresses: Vec<u32> = (0..if run.shape.len() == 1 { CLOUD } else { SHEET }).collect();
        let chain = (self.0.process.steps(), self.0.sampler.lambda);
        let drawn =
            diffusion.draw(chain, &run.shape, Noise::new(running.seed), &addresses, addresses.len())?;
        if let Some(picture) = picture(&run, &drawn, running.output)? {
            picture.save(&running.sheet(state))?;
        }
        Ok(())
    }

    fn facts(&self, output: Output) -> Result<Facts> {
        let preset = &self.0;
        let (shape, _) = preset.data.facts(output)?;
        let parameters = count_parameters(|b| networks(preset, b, &shape))?;
        let of_drift = count_parameters(|b| preset.drift.build(b, &shape))?;
        let steps: Vec<usize> = preset.process.stages.iter().map(|stage| stage.steps).collect();
        let line = format!(
            "on samples of shape {shape:?}, {of_drift} of them of the drift; steps of the chain: {steps:?}"
        );
        Ok(Facts { parameters, line, record: vec![("sample_shape", json!(shape)), ("steps", json!(steps))] })
    }
}

/// Whether samples are drawn by the backward chain; an adaptive solver follows the flow, and nothing else is for a drift and a score.
pub fn is_chain(sampler: &SamplerConfig) -> Result<bool> {
    check_sampler(sampler)?;
    Ok(sampler.name == CHAIN)
}

fn check_sampler(sampler: &SamplerConfig) -> Result<()> {
    if sampler.name == CHAIN || sampler.entry()?.is_adaptive() && sampler.name != "adaptive-sde" {
        return Ok(());
    }
    let text = format!(
        "sampler {}: of a DiffFlow there are em, its backward chain with any λ, and rk45 and its like, its flow",
        sampler.name
    );
    Err(Failure::Usage(text).into())
}

/// The noise of paths, step k at a site of its own: the step of `noise` tells repeats and dequantisations apart.
struct PathNoise<'a> {
    noise: &'a BatchNoise,
    first: usize,
}

impl NormalSource for PathNoise<'_> {
    fn normal(&self, step: usize, like: &Tensor) -> sde_core::Result<Tensor> {
        let (site, dims) = ((self.first + step) as u32, &like.dims()[1..]);
        self.noise.tensor(Law::Normal, Stream::Sampler, site, dims, like.dtype(), like.device())
    }
}

/// The bound of the log density by simulated paths.
pub struct Bound {
    flow: DiffFlow<Arc<Network>, Arc<Network>>,
    grid: TimeGrid,
    draws: usize,
    device: Device,
}

impl PointDensity for Bound {
    fn log_density(&self, x: &Tensor, noise: &BatchNoise) -> sde_eval::Result<Vec<LogDensity>> {
        let input = x.to_dtype(DType::F32)?.to_device(&self.device)?;
        let mut draws: Vec<Vec<f64>> = Vec::with_capacity(self.draws);
        for draw in 0..self.draws {
            let paths = PathNoise { noise, first: draw * self.grid.steps() };
            let bound = self.flow.bound(&self.grid, &input, &paths).map_err(|error| match error {
                sde_train::Error::Core(error) => error,
                other => sde_core::Error::Model(Box::new(other)),
            })?;
            draws.push(bound.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_vec1()?);
        }
        let n = self.draws as f64;
        Ok((0..noise.samples.len())
            .map(|i| {
                let mean = draws.iter().map(|of| -of[i]).sum::<f64>() / n;
                let square = draws.iter().map(|of| (-of[i] - mean).powi(2)).sum::<f64>() / (n - 1.0) / n;
                LogDensity {
                    value: mean.is_finite().then_some(mean),
                    standard_error: (self.draws > 1).then_some(square.sqrt()),
                    nfe: (2 * self.grid.steps() + 1) * self.draws,
                    outcome: if mean.is_finite() { Outcome::Finished } else { Outcome::NonFinite },
                }
            })
            .collect())
    }

    fn is_exact(&self) -> bool {
        false
    }
}
