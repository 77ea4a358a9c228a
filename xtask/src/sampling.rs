//! Drawing samples: a configured sampler run on a field, in batches whose size changes nothing.

use std::collections::BTreeMap;

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use sde_core::noise::{BatchNoise, Noise, NormalSource};
use sde_core::{Field, LinearSde, MomentField, TimeGrid, lift, project, rows_of, state_shape};
use sde_solvers::calibration::Residual;
use sde_solvers::catalog::{Evidence, Make};
use sde_solvers::edit::{grid_from, noised};
use sde_solvers::inverse::{Measurement, Replacement, Resampled};
use sde_solvers::{Clipping, Path, Sampler, Solution, denoise, prior_sample};
use serde_json::{Value, json};

use crate::build::SamplerConfig;
use crate::calibration;
use crate::exit::Failure;
use crate::method::diffflow::is_chain;
use crate::output::Output;
use crate::run::Run;

/// Samples, and what they cost.
pub struct Drawn {
    /// `[N, …]`, f64: data, without what else a state has.
    pub x: Tensor,
    /// Evaluations of the field for each sample, the denoising one included.
    pub nfe: Vec<usize>,
}

impl Drawn {
    /// Evaluations as they stand in a record: one number where all samples took the same, else mean, least and most.
    pub fn nfe_record(&self) -> Value {
        let (min, max) = (self.nfe.iter().min().unwrap_or(&0), self.nfe.iter().max().unwrap_or(&0));
        if min == max {
            return json!(min);
        }
        let mean = self.nfe.iter().sum::<usize>() as f64 / self.nfe.len() as f64;
        json!({ "mean": mean, "min": min, "max": max, "samples_by_calls": self.histogram() })
    }

    /// Evaluations in words.
    pub fn nfe_text(&self) -> String {
        let (min, max) = (self.nfe.iter().min().unwrap_or(&0), self.nfe.iter().max().unwrap_or(&0));
        if min == max { min.to_string() } else { format!("{min} to {max}") }
    }

    /// The number of samples for each number of evaluations.
    fn histogram(&self) -> BTreeMap<usize, usize> {
        let mut counts = BTreeMap::new();
        self.nfe.iter().for_each(|nfe| *counts.entry(*nfe).or_default() += 1);
        counts
    }
}

/// What samples start from.
pub enum Start {
    /// The prior.
    Prior,
    /// One image `[1, …]`, noised to a time.
    Noised(Tensor, f64),
    /// Given states (not data), one a sample.
    States(Tensor),
}

/// A known part of every sample.
pub struct Known {
    /// What is known.
    pub measurement: Box<dyn Measurement>,
    /// Its value, `[1, …]`.
    pub y: Tensor,
    /// How often a step is run if the known part is put into its place after every step; 0 leaves that to guidance.
    pub replacements: usize,
}

/// What is known of the field besides its prediction, for samplers whose variance was estimated.
pub struct Calibration<'a> {
    /// Measured at the times that steps start from; empty unless the sampler wants it.
    pub residuals: Vec<Residual>,
    /// Learned; none unless the sampler wants it.
    pub moments: Option<Box<dyn MomentField + 'a>>,
    /// The bounds of the variance.
    pub clipping: Clipping,
}

impl Calibration<'_> {
    /// The mean variance at each time, which tells one calibration from another.
    pub fn summary(&self) -> Vec<f64> {
        self.residuals.iter().map(|residual| residual.best().kappa).collect()
    }
}

/// A sampler on a process.
pub struct Recipe<'a> {
    /// The process.
    pub sde: &'a dyn LinearSde,
    /// The sampler's settings.
    pub config: &'a SamplerConfig,
    /// Explicit times instead of the configured grid.
    pub times: Option<&'a TimeGrid>,
    /// Where it starts.
    pub start: Start,
    /// What samples have to agree with.
    pub known: Option<&'a Known>,
    /// Of a sampler whose variance was estimated.
    pub calibration: Option<&'a Calibration<'a>>,
}

impl<'a> Recipe<'a> {
    /// A sampler from the prior.
    pub fn new(sde: &'a dyn LinearSde, config: &'a SamplerConfig, times: Option<&'a TimeGrid>) -> Self {
        Self { sde, config, times, start: Start::Prior, known: None, calibration: None }
    }

    /// The times of a fixed grid; of an adaptive solve, its two ends.
    pub fn grid(&self) -> Result<TimeGrid> {
        match self.start {
            Start::Noised(_, t) => Ok(grid_from(&self.whole_grid()?, t)?),
            Start::Prior | Start::States(_) => self.whole_grid(),
        }
    }

    /// The time from which a part of the steps of the grid is left.
    pub fn time_of_strength(&self, strength: f64) -> Result<f64> {
        let grid = match self.times {
            Some(times) => times.clone(),
            None => self.config.time_grid(self.sde, self.sde.span().end, self.sde.span().sampling)?,
        };
        let left = (strength * grid.steps() as f64).round().clamp(1.0, grid.steps() as f64) as usize;
        Ok(grid.times()[grid.steps() - left])
    }

    fn whole_grid(&self) -> Result<TimeGrid> {
        if let Some(times) = self.times {
            return Ok(times.clone());
        }
        let span = self.sde.span();
        if self.config.entry()?.is_adaptive() {
            return Ok(TimeGrid::new(vec![span.end, span.sampling])?);
        }
        self.config.time_grid(self.sde, span.end, span.sampling)
    }

    /// The sampler, made to keep to what is known.
    fn sampler(&self) -> Result<Box<dyn Sampler + 'a>> {
        let (entry, mut settings) = (self.config.entry()?, self.config.settings()?);
        let replaced = self.known.filter(|known| known.replacements > 0);
        if let (Some(calibration), None) = (self.calibration, replaced) {
            settings.clipping = calibration.clipping;
            let (residuals, moments) = (calibration.residuals.as_slice(), calibration.moments.as_deref());
            return Ok(entry.sampler(&settings, Evidence { residuals, moments })?);
        }
        if entry.is_calibrated() && replaced.is_none() {
            let text = format!("{} looks at data first, which only a run has", entry.name);
            return Err(Failure::Usage(text).into());
        }
        let Some(known) = replaced else {
            return Ok(entry.sampler(&settings, Evidence::NONE)?);
        };
        let Make::Table(make) = entry.make else {
            let text = format!(
                "{} is no plain table of steps, after which a known part could be put into its place; take --by gradient, or another sampler",
                entry.name
            );
            return Err(Failure::Usage(text).into());
        };
        let rule = Resampled { rule: make(&settings), jump: 1, times: known.replacements };
        Ok(Box::new(Replacement::new(rule, known.measurement.as_ref(), known.y.clone())))
    }

    /// The initial states of samples of `shape` at `places` among all.
    fn first(&self, noise: &BatchNoise, places: &[usize], shape: &[usize]) -> Result<Tensor> {
        Ok(match &self.start {
            Start::Prior => {
                prior_sample(self.sde, noise, &state_shape(self.sde, shape)?, DType::F64, &Device::Cpu)?
            }
            Start::Noised(image, t) => {
                let copies = image.broadcast_as([&[places.len()], shape].concat())?.contiguous()?;
                noised(self.sde, &lift(self.sde, &copies)?, *t, noise)?
            }
            Start::States(states) => rows_of(states, places)?,
        })
    }

    /// Runs the sampler from the states `x`, to data.
    pub fn run(&self, field: &dyn Field, x: &Tensor, noise: &dyn NormalSource) -> Result<Drawn> {
        let grid = self.grid()?;
        let sampler = self.sampler()?;
        let path = Path { sde: self.sde, field, grid: &grid };
        let Solution { mut x, mut nfe } = sampler.sample(&path, x, noise)?;
        // A grid that ends at the data leaves nothing to denoise.
        if self.config.denoise && grid.stop() > 0.0 {
            x = denoise(self.sde, field, &x, grid.stop())?;
            nfe.iter_mut().for_each(|n| *n += 1);
        }
        x = project(self.sde, &x)?;
        if let Some(known) = self.known {
            x = known.measurement.project(&x, &known.y)?;
        }
        Ok(Drawn { x, nfe })
    }

    /// Draws samples, `batch` at a time, each batch given to `keep`.
    ///
    /// The samples are those at all addresses of `noise` but the first few, which are there already; a field that knows its samples knows
    /// them by their place among all.
    pub fn draw(
        &self,
        field: &dyn Field,
        shape: &[usize],
        noise: Noise,
        (addresses, there): (&[u32], usize),
        batch: usize,
        keep: &mut dyn FnMut(Drawn) -> Result<()>,
    ) -> Result<()> {
        let places: Vec<usize> = (there..addresses.len()).collect();
        for places in places.chunks(batch.max(1)) {
            let noise = BatchNoise::new(noise, 0, places.iter().map(|&i| addresses[i]));
            let x = self.first(&noise, places, shape)?;
            let restricted = field.restrict(places)?;
            keep(self.run(restricted.as_deref().unwrap_or(field), &x, &noise)?)?;
        }
        Ok(())
    }

    /// Draws the samples at `addresses`, and keeps them in memory.
    pub fn collect(
        &self,
        field: &dyn Field,
        shape: &[usize],
        noise: Noise,
        addresses: &[u32],
        batch: usize,
    ) -> Result<Drawn> {
        let (mut parts, mut nfe) = (Vec::new(), Vec::new());
        self.draw(field, shape, noise, (addresses, 0), batch, &mut |drawn| {
            parts.push(drawn.x);
            nfe.extend(drawn.nfe);
            Ok(())
        })?;
        Ok(Drawn { x: Tensor::cat(&parts, 0)?, nfe })
    }
}

/// Samples of a run as it is configured: what a sheet or a comparison shows.
pub fn of_run(run: &Run, noise: Noise, addresses: &[u32], batch: usize, output: Output) -> Result<Drawn> {
    if let Some(diffusion) = &run.diffusion
        && is_chain(&run.preset.sampler)?
    {
        let (steps, lambda) = (run.preset.sampler.steps, run.preset.sampler.lambda);
        let x = diffusion.draw((steps, lambda), &run.shape, noise, addresses, batch)?;
        return Ok(Drawn { x, nfe: vec![steps; addresses.len()] });
    }
    let recipe = Recipe::new(run.sde.as_ref(), &run.preset.sampler, None);
    let calibration = calibration::of_run(run, &recipe, output)?;
    let recipe = Recipe { calibration: calibration.as_ref(), ..recipe };
    recipe.collect(&run.field(), &run.shape, noise, addresses, batch)
}
