//! Drawing samples: a configured sampler run on a field, in batches whose size changes nothing.

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use sde_core::noise::{BatchNoise, Noise, NormalSource};
use sde_core::{Field, LinearSde, TimeGrid};
use sde_solvers::{Path, Solution, denoise, prior_sample};
use serde_json::{Value, json};

use crate::build::SamplerConfig;

/// Samples, and what they cost.
pub struct Drawn {
    /// `[N, …]`, f64.
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
        json!({ "mean": mean, "min": min, "max": max })
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
}

impl Recipe<'_> {
    /// The times of a fixed grid; of an adaptive solve, its two ends.
    pub fn grid(&self) -> Result<TimeGrid> {
        if let Some(times) = self.times {
            return Ok(times.clone());
        }
        let span = self.sde.span();
        if self.config.entry()?.is_adaptive() {
            return Ok(TimeGrid::new(vec![span.end, span.sampling])?);
        }
        self.config.time_grid(self.sde, span.end, span.sampling)
    }

    /// Runs the sampler from `x`.
    pub fn run(&self, field: &dyn Field, x: &Tensor, noise: &dyn NormalSource) -> Result<Drawn> {
        let grid = self.grid()?;
        let sampler = self.config.entry()?.sampler(&self.config.settings()?);
        let path = Path { sde: self.sde, field, grid: &grid };
        let Solution { mut x, mut nfe } = sampler.sample(&path, x, noise)?;
        // A grid that ends at the data leaves nothing to denoise.
        if self.config.denoise && grid.stop() > 0.0 {
            x = denoise(self.sde, field, &x, grid.stop())?;
            nfe.iter_mut().for_each(|n| *n += 1);
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
            let x = prior_sample(self.sde, &noise, shape, DType::F64, &Device::Cpu)?;
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
