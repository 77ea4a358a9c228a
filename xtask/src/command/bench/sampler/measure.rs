//! One sampler at one number of network calls: its error and its distance to the data.

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use sde_core::noise::BatchNoise;
use sde_core::{Field, LinearSde, TimeGrid, project, state_shape};
use sde_eval::{Estimate, SlicedWasserstein};
use sde_solvers::calibration::{Residual, calibrate};
use sde_solvers::catalog::{Entry, Evidence, Make};
use sde_solvers::{Adaptive, Chart, Path, ProbabilityFlow, denoise, prior_sample};
use serde_json::{Value, json};

use crate::build::SamplerConfig;
use crate::exit::Failure;

/// Few groups, because starts are few.
const DISTANCE: SlicedWasserstein = SlicedWasserstein { groups: 4, directions: 200 };

/// Tolerances tried to meet a number of calls.
const TOLERANCES: usize = 10;

/// A law to sample: starts, and where the flow takes them.
pub struct Law<'a> {
    /// The data.
    pub points: &'a Tensor,
    /// Of the reference.
    pub tolerance: f64,
    /// Mean evaluations of the reference.
    pub reference_nfe: f64,
    sde: &'a dyn LinearSde,
    field: &'a dyn Field,
    noise: BatchNoise,
    start: Tensor,
    end: Tensor,
}

/// What was reached.
pub struct Cell {
    /// Network calls made, of the step count nearest above those asked for.
    pub nfe: usize,
    /// Root-mean-square distance of an entry from the flow's end; none for a stochastic sampler.
    pub error: Option<Estimate>,
    /// Centred SW₂² to the data.
    distance: Estimate,
    grid: &'static str,
}

impl Cell {
    /// `1.2e-2 t2`.
    pub fn error_text(&self) -> String {
        self.error.as_ref().map_or("–".into(), |e| format!("{:.1e} {}", e.value, self.grid))
    }

    /// `3.1 ± 0.4`.
    pub fn distance_text(&self) -> String {
        let (value, error) = (1e3 * self.distance.value, self.distance.standard_error.unwrap_or(f64::NAN));
        format!("{value:.1} ± {:.1}", 1e3 * error)
    }

    /// As in the record.
    pub fn record(&self) -> Value {
        json!({ "nfe": self.nfe, "grid": self.grid, "error": self.error, "sliced_w2_squared": self.distance })
    }
}

impl<'a> Law<'a> {
    /// Draws starts and solves the flow from them.
    pub fn new(
        points: &'a Tensor,
        sde: &'a dyn LinearSde,
        field: &'a dyn Field,
        noise: BatchNoise,
        tolerance: f64,
    ) -> Result<Self> {
        let start =
            prior_sample(sde, &noise, &state_shape(sde, &points.dims()[1..])?, DType::F64, &Device::Cpu)?;
        let span = sde.span();
        let flow = ProbabilityFlow::new(sde, field, Chart::natural(sde));
        let solution = flow.solve(&Adaptive::new(tolerance, tolerance), &start, span.end, span.sampling)?;
        if let Some((sample, report)) = solution.unfinished().next() {
            let text =
                format!("the reference of start {sample} stopped at t = {}: {:?}", report.t, report.outcome);
            return Err(Failure::NonFinite(text).into());
        }
        let total: usize = solution.reports.iter().map(|report| report.nfe).sum();
        let reference_nfe = total as f64 / solution.reports.len() as f64;
        Ok(Self { points, tolerance, reference_nfe, sde, field, noise, start, end: solution.y })
    }

    /// The sampler at `nfe` calls or the next more it can make: on the grid it errs least on if it is deterministic, on the first if not. None where it
    /// is not for this process.
    pub fn best(&self, entry: &Entry, config: &SamplerConfig, nfe: usize) -> Result<Option<Cell>> {
        let config = SamplerConfig { name: entry.name.into(), ..config.clone() };
        if entry.is_adaptive() {
            return self.tolerant(&config, entry, nfe);
        }
        let mut best: Option<Cell> = None;
        for grid in ["t2", "t1", "t3", "r", "l"] {
            match self.cell(entry, &config, nfe, grid) {
                Ok(cell) => {
                    let deterministic = cell.error.is_some();
                    let worst = |cell: &Cell| cell.error.as_ref().map_or(f64::INFINITY, |e| e.value);
                    if best.as_ref().is_none_or(|best| worst(&cell) < worst(best)) {
                        best = Some(cell);
                    }
                    if !deterministic {
                        break;
                    }
                }
                // A rule may not exist on a grid, or blow up there.
                Err(error) if error.is::<sde_solvers::Error>() || error.is::<sde_core::Error>() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(best)
    }

    /// An adaptive solver at the tolerance that makes it take the calls wanted, or the next fewer: by bisection, for the calls of a solve fall as its tolerance rises.
    fn tolerant(&self, config: &SamplerConfig, entry: &Entry, wanted: usize) -> Result<Option<Cell>> {
        let ends = TimeGrid::new(vec![self.sde.span().end, self.sde.span().sampling])?;
        let mut best: Option<Cell> = None;
        // log₁₀ of tolerances: the first is finer than any that is looked for, the last coarser.
        let (mut fine, mut coarse) = (-8.0, 2.0);
        for _ in 0..TOLERANCES {
            let middle: f64 = 0.5 * (fine + coarse);
            let tolerance = 10f64.powf(middle);
            let config = SamplerConfig {
                rtol: tolerance,
                atol: tolerance,
                sde_tolerances: Some([tolerance; 2]),
                ..config.clone()
            };
            match self.ended(entry, &config, &ends, "") {
                Ok(cell) if cell.nfe <= wanted => {
                    coarse = middle;
                    best = Some(cell);
                }
                Ok(_) => fine = middle,
                // Too coarse to arrive.
                Err(error) if error.is::<sde_solvers::Error>() || error.is::<sde_core::Error>() => {
                    coarse = middle
                }
                Err(error) => return Err(error),
            }
        }
        Ok(best)
    }

    fn grid(&self, name: &str, steps: usize) -> Result<TimeGrid> {
        let (from, to) = (self.sde.span().end, self.sde.span().sampling);
        Ok(match name {
            "t1" => TimeGrid::uniform(from, to, steps)?,
            "t2" => TimeGrid::power(from, to, steps, 2.0)?,
            "t3" => TimeGrid::power(from, to, steps, 3.0)?,
            "r" => TimeGrid::karras(self.sde, from, to, steps, 7.0)?,
            _ => TimeGrid::log_rho(self.sde, from, to, steps)?,
        })
    }

    fn cell(&self, entry: &Entry, config: &SamplerConfig, wanted: usize, grid: &'static str) -> Result<Cell> {
        let settings = config.settings()?;
        let steps = match entry.make {
            // The fewest steps that make the calls wanted.
            Make::Table(make) => {
                let calls = |steps: usize| -> Result<usize> {
                    Ok(make(&settings).table(self.sde, &self.grid(grid, steps)?)?.nfe())
                };
                let mut steps = 1;
                while calls(steps)? < wanted {
                    steps += 1;
                }
                steps
            }
            Make::Fixed(_) => (wanted / (1 + settings.corrector.steps)).max(2),
            Make::Calibrated(_) | Make::Moments(_) | Make::Adaptive(_) => wanted,
        };
        self.ended(entry, config, &self.grid(grid, steps)?, grid)
    }

    /// What a sampler reaches on these times.
    fn ended(
        &self,
        entry: &Entry,
        config: &SamplerConfig,
        times: &TimeGrid,
        grid: &'static str,
    ) -> Result<Cell> {
        let settings = config.settings()?;
        let path = Path { sde: self.sde, field: self.field, grid: times };
        let residuals = if entry.is_calibrated() { self.residuals(times)? } else { Vec::new() };
        let known = Evidence { residuals: &residuals, moments: None };
        let solution = entry.sampler(&settings, known)?.sample(&path, &self.start, &self.noise)?;
        let error = match entry.draws_noise(&settings) {
            true => None,
            false => Some(self.error(&solution.x)?),
        };
        let clean = project(self.sde, &denoise(self.sde, self.field, &solution.x, times.stop())?)?;
        let distance = DISTANCE.squared(&clean, self.points, self.noise.noise)?;
        // One number where all samples took the same.
        let nfe = solution.nfe.iter().sum::<usize>().div_ceil(solution.nfe.len().max(1));
        Ok(Cell { nfe, error, distance, grid })
    }

    /// The field measured on the data at the times that steps start from.
    fn residuals(&self, grid: &TimeGrid) -> Result<Vec<Residual>> {
        let times = &grid.times()[..grid.steps()];
        let once = |batch: usize| Ok((batch == 0).then(|| self.points.clone()));
        Ok(calibrate(self.sde, self.field, times, &once, self.noise.noise)?)
    }

    /// Mean over starts of the root mean square over entries.
    fn error(&self, x: &Tensor) -> Result<Estimate> {
        let squares = (x - &self.end)?.sqr()?.flatten_from(1)?.mean(1)?;
        let errors: Vec<f64> = squares.to_vec1::<f64>()?.into_iter().map(f64::sqrt).collect();
        if errors.iter().any(|e| !e.is_finite()) {
            return Err(Failure::NonFinite("the sampler's end is not finite".into()).into());
        }
        Ok(Estimate::mean(&errors)?)
    }
}
