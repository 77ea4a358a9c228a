//! How likelihood is measured, as configured.

use anyhow::Result;
use sde_core::noise::Law;
use sde_core::{LinearSde, TimeGrid};
use sde_eval::{Average, ReverseVariance};
use sde_solvers::catalog::{self, Make};
use sde_solvers::{Adaptive, Divergence, Pair, Table, upward};
use serde::{Deserialize, Serialize};

use super::sampler::unknown;
use super::{ProcessConfig, SamplerConfig};
use crate::exit::Failure;

/// The settings of a likelihood; tolerances, limits, chart and the exponent of a grid are those of the section `sampler`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LikelihoodConfig {
    /// `exact`, `rademacher`, `normal`, `antithetic` or `orthogonal`.
    pub divergence: String,
    /// Probes of a random divergence, K.
    pub probes: usize,
    /// Solves of each example, R.
    pub repeats: usize,
    /// Examples solved together.
    pub batch: usize,
    /// What solves the flow: `rk45`, `tsit5`, `rk23`, or a deterministic sampler on a fixed grid; `rk45` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sampler: Option<String>,
    /// Steps of a fixed grid, which has to be given for one; of the discrete bound, if absent the process's own, or 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<usize>,
    /// The fixed grid; if absent the one that suits process and sampler.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grid: Option<String>,
    /// `elbo` or `discrete` for a bound; the flow's density if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bound: Option<String>,
    /// Draws of a bound for each example; 100 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub draws: Option<usize>,
    /// Variances of the discrete bound's chain: `small`, also if absent, or `large`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variance: Option<String>,
    /// Places in an example's cell whose densities are averaged; 1 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dequantise_samples: Option<usize>,
    /// Draws of the velocities of each example, of a process that has them; 1 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub velocities: Option<usize>,
    /// What is averaged over them: `densities` (importance-weighted), or `logs`; if absent `densities`, or `logs` where the density
    /// is an estimate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub velocity_average: Option<String>,
}

/// What the settings measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The density by the flow.
    Flow,
    /// The bound of the reverse SDE.
    Elbo,
    /// The bound of the reverse chain.
    Discrete,
}

/// The adaptive methods.
const PAIRS: [(&str, Pair); 3] =
    [("rk45", Pair::DORMAND_PRINCE), ("tsit5", Pair::TSITOURAS), ("rk23", Pair::BOGACKI_SHAMPINE)];

impl LikelihoodConfig {
    /// What is measured.
    pub fn kind(&self) -> Result<Kind, Failure> {
        let kind = match self.bound.as_deref() {
            None => Kind::Flow,
            Some("elbo") => Kind::Elbo,
            Some("discrete") => Kind::Discrete,
            Some(other) => return Err(unknown("bound", other, &["elbo", "discrete"])),
        };
        let unused = match kind {
            Kind::Elbo if self.steps.is_some() || self.grid.is_some() => Some("steps and grid"),
            Kind::Elbo | Kind::Flow if self.variance.is_some() => Some("variance"),
            _ => None,
        };
        match unused {
            Some(what) if kind == Kind::Elbo => Err(Failure::Usage(format!(
                "{what}: the bound elbo has none; they are of the bound discrete"
            ))),
            Some(what) => Err(Failure::Usage(format!("{what}: for the bound discrete only"))),
            None => Ok(kind),
        }
    }

    /// How many velocities are drawn for each example of a process that has them, and what is averaged over them.
    pub fn velocities(&self, sde: &dyn LinearSde) -> Result<Option<(usize, Average)>, Failure> {
        if sde.auxiliary().is_none() {
            return match (self.velocities, &self.velocity_average) {
                (None, None) => Ok(None),
                _ => Err(Failure::Usage("velocities: this process has none; cld has".into())),
            };
        }
        let exact = self.kind()? == Kind::Flow && self.divergence()? == Divergence::Exact;
        let average = match self.velocity_average.as_deref() {
            None if exact => Average::Densities,
            None | Some("logs") => Average::Logs,
            Some("densities") => Average::Densities,
            Some(other) => return Err(unknown("velocity average", other, &["densities", "logs"])),
        };
        Ok(Some((self.velocities.unwrap_or(1), average)))
    }

    /// Its name in records.
    pub fn integrator(&self) -> &str {
        self.sampler.as_deref().unwrap_or("rk45")
    }

    /// Draws of a bound for each example.
    pub fn draws(&self) -> usize {
        self.draws.unwrap_or(100)
    }

    /// The way the divergence is measured.
    pub fn divergence(&self) -> Result<Divergence, Failure> {
        let probes = self.probes;
        let hutchinson = |law| Divergence::Hutchinson { law, probes };
        match self.divergence.as_str() {
            "exact" => Ok(Divergence::Exact),
            "rademacher" => Ok(hutchinson(Law::Rademacher)),
            "normal" => Ok(hutchinson(Law::Normal)),
            "antithetic" if probes % 2 == 1 => {
                let text =
                    format!("antithetic probes come in pairs, and {probes} is odd: give --probes 2, 4, …");
                Err(Failure::Config(text))
            }
            "antithetic" => Ok(Divergence::Antithetic { probes }),
            "orthogonal" => Ok(Divergence::Orthogonal { probes }),
            other => {
                let known = ["exact", "rademacher", "normal", "antithetic", "orthogonal"];
                Err(unknown("divergence", other, &known))
            }
        }
    }

    /// The variances of a reverse chain.
    pub fn variances(&self) -> Result<ReverseVariance, Failure> {
        match self.variance.as_deref() {
            None | Some("small") => Ok(ReverseVariance::Small),
            Some("large") => Ok(ReverseVariance::Large),
            Some(other) => Err(unknown("variance", other, &["small", "large"])),
        }
    }

    /// The adaptive solver, unless a fixed grid is wanted.
    pub fn adaptive(&self, sampler: &SamplerConfig) -> Result<Option<Adaptive>, Failure> {
        let pair = PAIRS.iter().find(|(name, _)| *name == self.integrator());
        if let (Some(_), true) = (pair, self.steps.is_some() || self.grid.is_some()) {
            let text = format!(
                "{} chooses its steps; steps and grid are for --sampler tab3 and its like",
                self.integrator()
            );
            return Err(Failure::Usage(text));
        }
        Ok(pair.map(|&(_, pair)| Adaptive { pair, ..sampler.adaptive() }))
    }

    /// The table of a sampler on a fixed grid, from data to noise; `times` stands for the configured grid.
    pub fn table(
        &self,
        (sde, process): (&dyn LinearSde, &ProcessConfig),
        sampler: &SamplerConfig,
        times: Option<&TimeGrid>,
        (start, end): (f64, f64),
    ) -> Result<Table> {
        let name = self.integrator();
        let (entry, settings) = (catalog::find(name), sampler.settings()?);
        let Some((entry, Make::Table(make))) = entry.map(|entry| (entry, entry.make)) else {
            let usable = |entry: &&catalog::Entry| {
                matches!(entry.make, Make::Table(_)) && !entry.draws_noise(&settings)
            };
            let tables = catalog::all().filter(usable).map(|entry| entry.name);
            let known: Vec<&str> = PAIRS.iter().map(|(name, _)| *name).chain(tables).collect();
            return Err(unknown("integrator of a likelihood", name, &known).into());
        };
        let grid = match (times, self.steps) {
            (Some(times), _) => times.clone(),
            (None, Some(steps)) => self.grid((sde, process), sampler, steps, entry.order, (start, end))?,
            (None, None) => {
                let text = format!("--sampler {name} runs on a fixed grid: give --steps N");
                return Err(Failure::Usage(text).into());
            }
        };
        Ok(upward(make(&settings).as_ref(), sde, &grid)?)
    }

    /// The times of the discrete bound's chain.
    pub fn chain(
        &self,
        (sde, process): (&dyn LinearSde, &ProcessConfig),
        sampler: &SamplerConfig,
        ends: (f64, f64),
    ) -> Result<TimeGrid> {
        match *process {
            ProcessConfig::Ddpm { steps, .. } if self.grid.is_none() => {
                Ok(TimeGrid::discrete(steps, self.steps.unwrap_or(steps))?)
            }
            // The last step leads from the end of the grid to the data.
            _ => match self.steps.unwrap_or(1000) {
                1 => Err(Failure::Usage("a chain of the bound discrete has 2 steps at least".into()).into()),
                steps => self.grid((sde, process), sampler, steps - 1, 1, ends),
            },
        }
    }

    fn grid(
        &self,
        (sde, process): (&dyn LinearSde, &ProcessConfig),
        sampler: &SamplerConfig,
        steps: usize,
        order: u32,
        (start, end): (f64, f64),
    ) -> Result<TimeGrid> {
        let grid = match self.grid.as_deref() {
            None | Some("auto") => process.grid(order),
            Some(name) => name,
        };
        let settings = SamplerConfig { steps, grid: grid.into(), ..sampler.clone() };
        let grid = settings.time_grid(sde, end, start)?;
        // The grid of indices ends at the data, where the likelihood of a chain does not begin.
        let inside = grid.times().iter().copied().filter(|t| *t >= start).collect();
        Ok(TimeGrid::new(inside)?)
    }
}
