//! What is measured, as configured: the density by the flow, adaptively or on a fixed grid, or a bound.

use anyhow::Result;
use sde_core::{Field, LinearSde, TimeGrid, state_shape};
use sde_data::Encoding;
use sde_eval::{Augmented, Average, DiscreteBound, Elbo, Integrator, Likelihood, Nll, PointDensity, Prior};
use sde_solvers::{Adaptive, Chart, Divergence, Table};
use serde_json::{Value, json};

use crate::build::{Kind, LikelihoodConfig, ProcessConfig, SamplerConfig};
use crate::exit::Failure;
use crate::method::diffflow::Diffusion;

/// What a measurement is made of.
#[derive(Clone, Copy)]
pub struct Setting<'a> {
    /// The process.
    pub sde: &'a dyn LinearSde,
    /// Its constants.
    pub process: &'a ProcessConfig,
    /// A prediction of it.
    pub field: &'a dyn Field,
    /// The law at T.
    pub prior: Prior<'a>,
    /// The section `likelihood`.
    pub config: &'a LikelihoodConfig,
    /// The section `sampler`.
    pub sampler: &'a SamplerConfig,
    /// The time whose density is told, unless times are given.
    pub start: f64,
    /// Drift and score, of a run that has them: the bound is that of their paths.
    pub diffusion: Option<&'a Diffusion>,
}

/// A measurement, made once and lent to whoever evaluates.
pub struct Method<'a> {
    setting: Setting<'a>,
    kind: Kind,
    ends: (f64, f64),
    /// Of a process that has them: how many are drawn, and what is averaged.
    velocities: Option<(usize, Average)>,
    adaptive: Option<Adaptive>,
    table: Option<Table>,
    chain: Option<TimeGrid>,
}

impl<'a> Method<'a> {
    /// The configured measurement; explicit `times` stand for its grid, or give its ends.
    pub fn new(setting: Setting<'a>, times: Option<&TimeGrid>) -> Result<Self> {
        let Setting { sde, process, config, sampler, start, .. } = setting;
        let (kind, velocities) = (config.kind()?, config.velocities(sde)?);
        let ends = times.map_or((start, sde.span().end), |grid| (grid.stop(), grid.start()));
        let (mut adaptive, mut table, mut chain) = (None, None, None);
        if setting.diffusion.is_some() {
            refuse_of_diffusion(kind, times.is_some() || config.adaptive(sampler)?.is_none())?;
        }
        match kind {
            Kind::Flow => {
                adaptive = config.adaptive(sampler)?;
                if adaptive.is_none() {
                    table = Some(config.table((sde, process), sampler, times, ends)?);
                }
            }
            Kind::Elbo => {}
            Kind::Discrete => {
                let stop = sde.span().sampling;
                chain = Some(match times {
                    Some(times) => times.clone(),
                    None => config.chain((sde, process), sampler, (stop, ends.1))?,
                });
            }
        }
        Ok(Self { setting, kind, ends, velocities, adaptive, table, chain })
    }

    /// What is measured.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Draws of velocities for each example, of a process that has them; the number is a bound then.
    pub fn velocities(&self) -> Option<usize> {
        self.velocities.map(|(draws, _)| draws)
    }

    /// Whether the number is the density's own.
    fn is_density(&self) -> bool {
        self.kind == Kind::Flow && self.velocities.is_none()
    }

    /// The density of the flow.
    fn flow(&self) -> Result<Likelihood<'_>> {
        let Setting { sde, field, prior, config, sampler, .. } = self.setting;
        let chart = sampler.chart()?.unwrap_or_else(|| Chart::natural(sde));
        let solver = match &self.table {
            Some(table) => Integrator::Table(table),
            None => Integrator::Adaptive(self.adaptive.unwrap_or_else(|| sampler.adaptive())),
        };
        let (start, end) = self.ends;
        let standard = Likelihood::new(sde, field, config.divergence()?, solver);
        Ok(Likelihood { prior, chart, start, end, ..standard })
    }

    /// What tells the densities of data with an encoding.
    pub fn density(&self, encoding: Encoding) -> Result<Box<dyn PointDensity + '_>> {
        let states = self.of_states(encoding)?;
        Ok(match self.velocities {
            Some((draws, average)) => Box::new(Augmented::new(self.setting.sde, states, draws, average)?),
            None => states,
        })
    }

    /// What tells the densities of states, which are data but for velocities.
    fn of_states(&self, encoding: Encoding) -> Result<Box<dyn PointDensity + '_>> {
        let Setting { sde, field, prior, config, .. } = self.setting;
        let (start, end) = self.ends;
        if let (Kind::Elbo, Some(diffusion)) = (self.kind, self.setting.diffusion) {
            return Ok(Box::new(diffusion.bound(config.draws())?));
        }
        Ok(match (self.kind, &self.chain) {
            (Kind::Discrete, Some(chain)) => {
                let (variances, draws) = (config.variances()?, config.draws());
                Box::new(DiscreteBound::new((sde, field), prior, chain, &variances, encoding, draws)?)
            }
            (Kind::Elbo, _) => Box::new(Elbo { prior, start, end, ..Elbo::new(sde, field, config.draws()) }),
            _ => Box::new(self.flow()?),
        })
    }

    /// Vector–Jacobian products of one network call, where the divergence is exact.
    pub fn exact_products(&self, dim: usize) -> Result<Option<usize>> {
        let exact = self.kind == Kind::Flow && self.setting.config.divergence()? == Divergence::Exact;
        Ok(exact.then_some(dim))
    }

    /// Network calls of a solve, where they are known beforehand.
    pub fn calls(&self) -> Option<usize> {
        self.table.as_ref().map(Table::nfe)
    }

    /// What tells this measurement from others, but for the data, the noise and the network.
    pub fn identity(&self) -> Value {
        let Setting { process, prior, config, sampler, .. } = self.setting;
        // How many are solved together changes nothing.
        let config = LikelihoodConfig { batch: 0, ..config.clone() };
        json!({
            "process": process,
            "prior": prior.name(),
            "likelihood": config,
            "sampler": sampler,
            "ends": self.ends,
            "times": self.table.as_ref().map(|table| table.updates.iter().map(|u| u.from).collect::<Vec<_>>()),
            "chain": self.chain.as_ref().map(TimeGrid::times),
        })
    }

    /// A measured likelihood as the keys of a record.
    pub fn record(&self, found: &Nll) -> Result<Value> {
        let Setting { prior, config, sampler, .. } = self.setting;
        let main = found.bits_per_dim.as_ref().unwrap_or(&found.nats);
        let mut record = json!({
            "command": "eval-nll",
            "stderr": main.standard_error,
            "n": found.nats.n,
            "dim": found.dim,
            "nfe": found.nfe,
            "unfinished": found.unfinished,
            "estimator_error_nats": found.estimator_error,
            "prior": prior.name(),
            "repeats": config.repeats,
            "dequantise_samples": config.dequantise_samples.unwrap_or(1),
            "t_start": self.ends.0,
            "t_stop": self.ends.1,
        });
        // A bound is told under names of its own, so that nobody takes it for the likelihood.
        let of = if self.is_density() { "" } else { "bound_" };
        record[format!("{of}nats")] = json!(found.nats.value);
        record[format!("{of}nats_stderr")] = json!(found.nats.standard_error);
        if let Some(bits) = &found.bits_per_dim {
            record[format!("{of}bits_per_dim")] = json!(bits.value);
        }
        if let Some((draws, average)) = self.velocities {
            record["bound"] = json!("velocities");
            record["velocities"] = json!(draws);
            record["velocity_average"] = json!(match average {
                Average::Logs => "logs",
                Average::Densities => "densities",
            });
        }
        if self.kind != Kind::Flow {
            record["bound"] = json!(config.bound);
            record["draws"] = json!(config.draws());
        }
        if let Some(chain) = &self.chain {
            record["variance"] = json!(config.variance.as_deref().unwrap_or("small"));
            record["t_start"] = json!(chain.stop());
            record["steps"] = json!(chain.times().iter().filter(|t| **t > 0.0).count());
        }
        if self.kind == Kind::Flow {
            record["divergence"] = json!(config.divergence);
            record["probes"] = json!(config.probes);
            record["products_per_call"] =
                json!(config.divergence()?.products(state_shape(self.setting.sde, &[found.dim])?[0]));
            record["integrator"] = json!(config.integrator());
        }
        if let Some(table) = &self.table {
            record["steps"] = json!(table.updates.last().map_or(0, |update| update.step + 1));
            record["grid"] = json!(config.grid.as_deref().unwrap_or("auto"));
        } else if self.kind == Kind::Flow {
            record["rtol"] = json!(sampler.rtol);
            record["atol"] = json!(sampler.atol);
            record["chart"] = json!(sampler.chart);
        }
        Ok(record)
    }
}

/// A drift and a score have the density of their flow, by an adaptive solver, and the bound of their paths.
fn refuse_of_diffusion(kind: Kind, fixed: bool) -> Result<()> {
    let text = match kind {
        Kind::Discrete => "bound discrete: of a DiffFlow there is the bound elbo, that of its chain's paths",
        Kind::Flow if fixed => {
            "a fixed grid: the flow of a DiffFlow is solved adaptively, by rk45 or its like"
        }
        _ => return Ok(()),
    };
    Err(Failure::Usage(text.into()).into())
}
