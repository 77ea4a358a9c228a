//! Drawing samples: a configured sampler run on a field, in batches whose size changes nothing.

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use sde_core::noise::{BatchNoise, Noise, NormalSource};
use sde_core::{Field, LinearSde, TimeGrid};
use sde_solvers::{ProbabilityFlow, denoise, prior_sample};
use serde_json::{Value, json};

use crate::build::{Sampler, SamplerConfig};
use crate::exit::Failure;

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
        match self.config.build()? {
            Sampler::Table(_) => self.config.time_grid(self.sde, span.end, span.sampling),
            Sampler::Flow(..) => Ok(TimeGrid::new(vec![span.end, span.sampling])?),
        }
    }

    /// Runs the sampler from `x`.
    pub fn run(&self, field: &dyn Field, x: &Tensor, noise: &dyn NormalSource) -> Result<Drawn> {
        let grid = self.grid()?;
        let mut drawn = match self.config.build()? {
            Sampler::Table(rule) => {
                let solution = rule.table(self.sde, &grid)?.sample(self.sde, field, x, noise)?;
                Drawn { x: solution.x, nfe: solution.nfe }
            }
            Sampler::Flow(solver, chart) => {
                let flow = ProbabilityFlow::new(self.sde, field, chart.resolve(self.sde));
                let solution = flow.solve(&solver, x, grid.start(), grid.stop())?;
                if let Some((sample, report)) = solution.unfinished().next() {
                    let text = format!(
                        "sample {sample} stopped at t = {} after {} evaluations: {:?}; raise sampler.max_nfe or the tolerances",
                        report.t, report.nfe, report.outcome
                    );
                    return Err(Failure::NonFinite(text).into());
                }
                Drawn { x: solution.y, nfe: solution.reports.iter().map(|r| r.nfe).collect() }
            }
        };
        // A grid that ends at the data leaves nothing to denoise.
        if self.config.denoise && grid.stop() > 0.0 {
            drawn.x = denoise(self.sde, field, &drawn.x, grid.stop())?;
            drawn.nfe.iter_mut().for_each(|n| *n += 1);
        }
        Ok(drawn)
    }

    /// Draws the samples at addresses `addresses` of `noise`, `batch` at a time.
    pub fn draw(
        &self,
        field: &dyn Field,
        shape: &[usize],
        noise: Noise,
        addresses: &[u32],
        batch: usize,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Drawn> {
        let (mut parts, mut nfe) = (Vec::new(), Vec::new());
        for samples in addresses.chunks(batch.max(1)) {
            let noise = BatchNoise::new(noise, 0, samples.iter().copied());
            let x = prior_sample(self.sde, &noise, shape, DType::F64, &Device::Cpu)?;
            let drawn = self.run(field, &x, &noise)?;
            parts.push(drawn.x);
            nfe.extend(drawn.nfe);
            progress(nfe.len());
        }
        Ok(Drawn { x: Tensor::cat(&parts, 0)?, nfe })
    }
}
