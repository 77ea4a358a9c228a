//! Samplers and grids by name, with their settings.

use sde_core::{LinearSde, TimeGrid};
use sde_solvers::catalog::{self, ChurnSettings, Entry, Make, Settings};
use sde_solvers::{Adaptive, AdaptiveSde, Chart, Clipping, Control, Langevin, Norms};
use serde::{Deserialize, Serialize};

use super::ProcessConfig;
use crate::config::nearest;
use crate::exit::Failure;

/// The grids, as on the command line.
pub const GRIDS: &[&str] =
    &["auto", "uniform", "power", "quadratic", "cubic", "karras", "log-rho", "discrete"];

/// A sampler and all its settings; those it does not use are ignored.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SamplerConfig {
    /// A name of [`catalog`].
    pub name: String,
    /// Steps of a fixed grid.
    pub steps: usize,
    /// One of [`GRIDS`].
    pub grid: String,
    /// The exponent of the power and Karras grids.
    pub kappa: f64,
    /// Stochasticity of ddim, 0 to 1.
    pub eta: f64,
    /// Stochasticity of stochastic-ddim and em, 0 or more.
    pub lambda: f64,
    /// Whether multistep rules in log ρ and UniPC lower their order on the last steps; not if absent.
    pub lower_final: Option<bool>,
    /// The weight of the large variance in ddpm-between; a half if absent.
    pub between: Option<f64>,
    /// Examples that calibrated samplers look at first; 1000 if absent.
    pub calibration: Option<usize>,
    /// The corrector of pc-…; if absent, what was published for images, with the norms of each sample.
    pub corrector: Option<CorrectorConfig>,
    /// Step and repeats of annealed-langevin; if absent, what was published for CIFAR-10.
    pub annealed: Option<AnnealedConfig>,
    /// Damping of the step control of adaptive solvers of the flow, 0 to 1; elementary control if absent.
    pub damping: Option<f64>,
    /// Relative and absolute tolerance of adaptive-sde; what was published for images if absent.
    pub sde_tolerances: Option<[f64; 2]>,
    /// The noise of edm-churn; if absent, what was published for a VP network on CIFAR-10.
    pub churn: Option<ChurnConfig>,
    /// Relative tolerance of rk45.
    pub rtol: f64,
    /// Absolute tolerance of rk45.
    pub atol: f64,
    /// Smallest step of rk45; 0 is rounding's.
    pub min_step: f64,
    /// Most evaluations of rk45 for a sample.
    pub max_nfe: usize,
    /// The variable adaptive solvers step in: `time`, `clock` (log ρ), or `auto`, what suits the process.
    pub chart: String,
    /// Whether to end with the expected data given the last state (one more call).
    pub denoise: bool,
}

/// The Langevin corrector of a predictor–corrector sampler.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CorrectorConfig {
    /// Signal-to-noise ratio.
    pub snr: f64,
    /// Steps at each time.
    pub steps: usize,
    /// Whose norms set the step: `sample`, or `batch` as published.
    pub norms: String,
}

/// Annealed Langevin dynamics.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AnnealedConfig {
    /// ε, the step of the last level.
    pub step: f64,
    /// T, the steps of a level.
    pub repeats: usize,
}

/// The noise of EDM's stochastic sampler, in the names of its paper.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ChurnConfig {
    /// S_churn.
    pub amount: f64,
    /// S_min.
    pub lowest: f64,
    /// S_max.
    pub highest: f64,
    /// S_noise.
    pub noise: f64,
}

impl SamplerConfig {
    /// The sampler of the configured name.
    pub fn entry(&self) -> Result<&'static Entry, Failure> {
        catalog::find(&self.name).ok_or_else(|| {
            let names: Vec<&str> = catalog::all().map(|entry| entry.name).collect();
            unknown("sampler", &self.name, &names)
        })
    }

    /// Replaces the grid `auto` by the one that suits process and sampler.
    pub fn resolve(&mut self, process: &ProcessConfig) -> Result<(), Failure> {
        if self.grid == "auto" {
            self.grid = process.grid(self.entry()?.order).into();
        }
        Ok(())
    }

    /// The numbers it is built from.
    pub fn settings(&self) -> Result<Settings, Failure> {
        let (eta, lambda) = (self.eta, self.lambda);
        let lower_final = self.lower_final.unwrap_or(false);
        let churn = self.churn.map_or(ChurnSettings::CIFAR10_VP, |c| ChurnSettings {
            amount: c.amount,
            lowest: c.lowest,
            highest: c.highest,
            noise: c.noise,
        });
        let (between, clipping) = (self.between.unwrap_or(0.5), Clipping::NONE);
        let corrector = match &self.corrector {
            None => Langevin { snr: 0.16, steps: 1, norms: Norms::Sample },
            Some(CorrectorConfig { snr, steps, norms }) => {
                let norms = match norms.as_str() {
                    "sample" => Norms::Sample,
                    "batch" => Norms::Batch,
                    other => return Err(unknown("sampler.corrector.norms", other, &["sample", "batch"])),
                };
                Langevin { snr: *snr, steps: *steps, norms }
            }
        };
        let annealed = self.annealed.map_or((2e-5, 100), |a| (a.step, a.repeats));
        let sde_tolerances = self.sde_tolerances.unwrap_or({
            let published = AdaptiveSde::PUBLISHED;
            [published.rtol, published.atol]
        });
        let (adaptive, chart) = (self.adaptive(), self.chart()?);
        Ok(Settings {
            eta,
            lambda,
            lower_final,
            churn,
            between,
            corrector,
            annealed,
            clipping,
            sde_tolerances,
            adaptive,
            chart,
        })
    }

    /// The adaptive solver these settings describe.
    pub fn adaptive(&self) -> Adaptive {
        let control = self.damping.map_or(Control::Elementary, |damping| Control::Pi { damping });
        let (min_step, max_nfe) = (self.min_step, self.max_nfe);
        Adaptive { control, min_step, max_nfe, ..Adaptive::new(self.rtol, self.atol) }
    }

    /// The variable the adaptive solver steps in; none for what suits the process.
    pub fn chart(&self) -> Result<Option<Chart>, Failure> {
        match self.chart.as_str() {
            "auto" => Ok(None),
            "time" => Ok(Some(Chart::Time)),
            "clock" => Ok(Some(Chart::Clock)),
            other => Err(unknown("sampler.chart", other, &["auto", "time", "clock"])),
        }
    }

    /// The network calls of a sampler whose table is known beforehand, without the last denoising one.
    pub fn nfe(&self, sde: &dyn LinearSde) -> anyhow::Result<Option<usize>> {
        let Make::Table(make) = self.entry()?.make else { return Ok(None) };
        let grid = self.time_grid(sde, sde.span().end, sde.span().sampling)?;
        Ok(Some(make(&self.settings()?).table(sde, &grid)?.nfe()))
    }

    /// The grid from `from` to `to`.
    pub fn time_grid(&self, sde: &dyn LinearSde, from: f64, to: f64) -> anyhow::Result<TimeGrid> {
        let steps = self.steps;
        Ok(match self.grid.as_str() {
            "uniform" => TimeGrid::uniform(from, to, steps)?,
            "power" => TimeGrid::power(from, to, steps, self.kappa)?,
            "quadratic" => TimeGrid::power(from, to, steps, 2.0)?,
            "cubic" => TimeGrid::power(from, to, steps, 3.0)?,
            "karras" => TimeGrid::karras(sde, from, to, steps, self.kappa)?,
            "log-rho" => TimeGrid::log_rho(sde, from, to, steps)?,
            "discrete" => TimeGrid::discrete(from as usize, steps)?,
            other => return Err(unknown("grid", other, GRIDS).into()),
        })
    }
}

/// The complaint about a name that is not known.
pub fn unknown(what: &str, found: &str, known: &[&str]) -> Failure {
    let hint =
        nearest(found, known.iter().copied()).map_or(String::new(), |n| format!(" (did you mean `{n}`?)"));
    Failure::Usage(format!("unknown {what} `{found}`{hint}; known: {}", known.join(", ")))
}
