//! The baselines by name, with every number from `presets/baselines.defaults` and `--set` on top.

use anyhow::Result;
use sde_core::target::TargetSampler;
use sde_nets::FlowConfig;
use sde_solvers::mcmc::bridge::Fit;
use sde_solvers::mcmc::{Annealed, Base, Hmc, Mala, Mass, Nuts, Resampling, StepSize, Temperatures, Ula};
use sde_train::{AdamConfig, Decay, VariationalFlow};
use serde::{Deserialize, Serialize};

use crate::config::Source;

/// Their names.
pub const NAMES: &[&str] = &["hmc", "nuts", "mala", "langevin", "ais", "smc", "vi-nf"];

const DEFAULTS: &str = include_str!("../../presets/baselines.defaults");

#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum FitName {
    Full,
    Diagonal,
    None,
}

impl From<FitName> for Fit {
    fn from(name: FitName) -> Self {
        match name {
            FitName::Full => Self::Full,
            FitName::Diagonal => Self::Diagonal,
            FitName::None => Self::None,
        }
    }
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct HmcConfig {
    warmup: u32,
    iterations: u32,
    steps: usize,
    step_size: f64,
    acceptance: f64,
    jitter: f64,
    fit: FitName,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct NutsConfig {
    warmup: u32,
    iterations: u32,
    step_size: f64,
    acceptance: f64,
    depth: u32,
    fit: FitName,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct MalaConfig {
    warmup: u32,
    iterations: u32,
    time_step: f64,
    acceptance: f64,
    fit: FitName,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct LangevinConfig {
    iterations: u32,
    time_step: f64,
    fit: FitName,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct AnnealedConfig {
    levels: u32,
    /// The share of the conditional effective sample size that a level keeps, in the place of `levels`.
    share: Option<f64>,
    moves: u32,
    steps: usize,
    step_size: f64,
    acceptance: f64,
    pilot: usize,
    /// The effective share below which particles are resampled; never where absent.
    resample_below: Option<f64>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct FlowRun {
    steps: u64,
    batch: usize,
    clip: f64,
    decay: Decay,
    flow: FlowConfig,
    optimiser: AdamConfig,
}

/// The settings of all baselines.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Baselines {
    hmc: HmcConfig,
    nuts: NutsConfig,
    mala: MalaConfig,
    langevin: LangevinConfig,
    ais: AnnealedConfig,
    smc: AnnealedConfig,
    #[serde(rename = "vi-nf")]
    flow: FlowRun,
}

impl Baselines {
    /// The built-in numbers, changed.
    ///
    /// # Errors
    /// For an unknown key, and a value of another type.
    pub fn new(sets: &[String]) -> Result<Self> {
        let mut source = Source::of_text("baselines", DEFAULTS)?;
        sets.iter().try_for_each(|assignment| source.set(assignment))?;
        source.parse()
    }

    /// The settings of one of them, for the record.
    ///
    /// # Errors
    /// Never; numbers can be written down.
    pub fn record(&self, name: &str) -> Result<serde_json::Value> {
        Ok(serde_json::to_value(self)?.get(name).cloned().unwrap_or_default())
    }

    /// A baseline by name, from a law to start from and masses.
    pub fn sampler(&self, name: &str, base: Base, mass: Mass) -> Option<Box<dyn TargetSampler>> {
        Some(match name {
            "hmc" => Box::new(Hmc {
                base,
                warmup: self.hmc.warmup,
                iterations: self.hmc.iterations,
                steps: self.hmc.steps,
                step_size: self.hmc.step_size,
                acceptance: self.hmc.acceptance,
                jitter: self.hmc.jitter,
                mass,
                fit: self.hmc.fit.into(),
            }),
            "nuts" => Box::new(Nuts {
                base,
                warmup: self.nuts.warmup,
                iterations: self.nuts.iterations,
                step_size: self.nuts.step_size,
                acceptance: self.nuts.acceptance,
                depth: self.nuts.depth,
                mass,
                fit: self.nuts.fit.into(),
            }),
            "mala" => Box::new(Mala {
                base,
                warmup: self.mala.warmup,
                iterations: self.mala.iterations,
                time_step: self.mala.time_step,
                acceptance: self.mala.acceptance,
                fit: self.mala.fit.into(),
            }),
            "langevin" => Box::new(Ula {
                base,
                iterations: self.langevin.iterations,
                time_step: self.langevin.time_step,
                fit: self.langevin.fit.into(),
            }),
            "ais" => Box::new(self.ais.annealed(base, mass)),
            "smc" => Box::new(self.smc.annealed(base, mass)),
            "vi-nf" => Box::new(VariationalFlow {
                flow: self.flow.flow.clone(),
                optimiser: self.flow.optimiser,
                steps: self.flow.steps,
                batch: self.flow.batch,
                decay: self.flow.decay,
                clip: self.flow.clip,
            }),
            _ => return None,
        })
    }
}

impl AnnealedConfig {
    fn annealed(&self, base: Base, mass: Mass) -> Annealed {
        Annealed {
            base,
            temperatures: self.share.map_or(Temperatures::Linear(self.levels), Temperatures::Adaptive),
            moves: self.moves,
            steps: self.steps,
            step_size: StepSize::Adaptive { first: self.step_size, acceptance: self.acceptance },
            mass,
            resampling: self.resample_below.map_or(Resampling::Never, Resampling::Below),
            pilot: self.pilot,
        }
    }
}
