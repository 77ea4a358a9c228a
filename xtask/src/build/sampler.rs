//! Samplers and grids by name, with their settings.

use sde_core::{LinearSde, TimeGrid};
use sde_solvers::{
    Adaptive, Chart, Ddim, Ddpm, Ei, Euler, EulerMaruyama, Form, Multistep, StochasticDdim, Tab, Variance,
};
use serde::{Deserialize, Serialize};

use crate::config::nearest;
use crate::exit::Failure;

/// The samplers, as on the command line.
pub const NAMES: &[&str] = &[
    "ddim",
    "ddim-data",
    "ddpm",
    "ddpm-large",
    "stochastic-ddim",
    "tab0",
    "tab1",
    "tab2",
    "tab3",
    "ei-score",
    "euler",
    "em",
    "rk45",
];

/// The grids, as on the command line.
pub const GRIDS: &[&str] = &["uniform", "power", "quadratic", "karras", "log-rho", "discrete"];

/// A sampler and all its settings; those it does not use are ignored.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SamplerConfig {
    /// One of [`NAMES`].
    pub name: String,
    /// Steps of a fixed grid, each one network call.
    pub steps: usize,
    /// One of [`GRIDS`].
    pub grid: String,
    /// The exponent of the power and Karras grids.
    pub kappa: f64,
    /// Stochasticity of ddim, 0 to 1.
    pub eta: f64,
    /// Stochasticity of stochastic-ddim and em, 0 or more.
    pub lambda: f64,
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

/// A sampler ready to run.
pub enum Sampler {
    /// A rule for tables.
    Table(Box<dyn Multistep>),
    /// The probability flow, adaptively.
    Flow(Adaptive, ChartChoice),
}

/// A chart, or none for what suits the process.
#[derive(Debug, Clone, Copy)]
pub struct ChartChoice(Option<Chart>);

impl ChartChoice {
    /// The chart for a process.
    pub fn resolve(self, sde: &dyn LinearSde) -> Chart {
        self.0.unwrap_or_else(|| Chart::natural(sde))
    }
}

impl SamplerConfig {
    /// The sampler.
    pub fn build(&self) -> Result<Sampler, Failure> {
        let rule: Box<dyn Multistep> = match self.name.as_str() {
            "ddim" => Box::new(Ddim { eta: self.eta, form: Form::Noise }),
            "ddim-data" => Box::new(Ddim { eta: self.eta, form: Form::Data }),
            "ddpm" => Box::new(Ddpm { variance: Variance::Small }),
            "ddpm-large" => Box::new(Ddpm { variance: Variance::Large }),
            "stochastic-ddim" => Box::new(StochasticDdim { lambda: self.lambda }),
            "tab0" => Box::new(Tab { degree: 0 }),
            "tab1" => Box::new(Tab { degree: 1 }),
            "tab2" => Box::new(Tab { degree: 2 }),
            "tab3" => Box::new(Tab { degree: 3 }),
            "ei-score" => Box::new(Ei),
            "euler" => Box::new(Euler),
            "em" => Box::new(EulerMaruyama { lambda: self.lambda }),
            "rk45" => return Ok(Sampler::Flow(self.adaptive(), self.chart()?)),
            other => return Err(unknown("sampler", other, NAMES)),
        };
        Ok(Sampler::Table(rule))
    }

    /// The adaptive solver these settings describe.
    pub fn adaptive(&self) -> Adaptive {
        Adaptive { min_step: self.min_step, max_nfe: self.max_nfe, ..Adaptive::new(self.rtol, self.atol) }
    }

    /// The variable the adaptive solver steps in.
    pub fn chart(&self) -> Result<ChartChoice, Failure> {
        match self.chart.as_str() {
            "auto" => Ok(ChartChoice(None)),
            "time" => Ok(ChartChoice(Some(Chart::Time))),
            "clock" => Ok(ChartChoice(Some(Chart::Clock))),
            other => Err(unknown("sampler.chart", other, &["auto", "time", "clock"])),
        }
    }

    /// The grid from `from` to `to`.
    pub fn time_grid(&self, sde: &dyn LinearSde, from: f64, to: f64) -> anyhow::Result<TimeGrid> {
        let steps = self.steps;
        Ok(match self.grid.as_str() {
            "uniform" => TimeGrid::uniform(from, to, steps)?,
            "power" => TimeGrid::power(from, to, steps, self.kappa)?,
            "quadratic" => TimeGrid::power(from, to, steps, 2.0)?,
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
