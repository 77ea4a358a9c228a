//! Every sampler by its name, with what a user has to know to choose: order, cost, noise, the processes it accepts, its source.
//!
//! The one list of samplers: the runner finds them here, docs/solvers.md has this table, and tests measure the orders that it states.

mod adaptive;
mod calibrated;
mod langevin;
mod multistep;
mod one_step;
mod stages;

use sde_core::MomentField;

use crate::adaptive::Adaptive;
use crate::calibration::Residual;
use crate::flow::Chart;
use crate::predictor_corrector::Langevin;
use crate::sampler::Sampler;
use crate::table::{Clipping, Multistep};
use crate::variance::{LearnedVariance, WithMoments};
use crate::{Error, Result};

/// The numbers that samplers are built from; each takes those it knows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Stochasticity of DDIM and its kin, 0 to 1.
    pub eta: f64,
    /// Stochasticity of the family with equal marginals, 0 or more.
    pub lambda: f64,
    /// Whether multistep rules in log ρ and UniPC lower their order on the last steps, as is usual for fewer than 15.
    pub lower_final: bool,
    /// The noise that EDM's stochastic sampler adds.
    pub churn: ChurnSettings,
    /// The weight of the large variance in what lies between the two of DDPM, 0 to 1.
    pub between: f64,
    /// The corrector of predictor–corrector samplers.
    pub corrector: Langevin,
    /// ε and T of annealed Langevin dynamics.
    pub annealed: (f64, usize),
    /// Bounds of variances that were estimated.
    pub clipping: Clipping,
    /// Relative and absolute tolerance of the adaptive solver of the SDE.
    pub sde_tolerances: [f64; 2],
    /// Tolerances and limits of adaptive solvers of the flow; their limits hold for the SDE, too.
    pub adaptive: Adaptive,
    /// The variable that adaptive solvers of the flow step in; `None` takes what suits the process.
    pub chart: Option<Chart>,
}

/// The noise of EDM's stochastic sampler, in the names of its paper.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChurnSettings {
    /// S_churn.
    pub amount: f64,
    /// S_min.
    pub lowest: f64,
    /// S_max.
    pub highest: f64,
    /// S_noise.
    pub noise: f64,
}

impl ChurnSettings {
    /// The published numbers for a VP network on CIFAR-10 (Karras et al. 2022, arXiv 2206.00364, Table 5).
    pub const CIFAR10_VP: Self = Self { amount: 30.0, lowest: 0.01, highest: 1.0, noise: 1.007 };
}

/// When a sampler draws noise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stochastic {
    /// Never.
    No,
    /// Always.
    Yes,
    /// When the setting is not zero.
    If(&'static str),
}

/// Which processes a sampler accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepts {
    /// Wherever the velocity exists.
    Velocity,
    /// Every linear process with signal at every time.
    Linear,
    /// The same, and noise at every time: the grid ends above 0 where Σ does.
    LinearNoise,
    /// Every linear process with noise at the start of every step; the signal may vanish.
    LinearData,
    /// Processes with a published chain: VP and VE.
    Chain,
    /// Processes that treat all coordinates alike, with signal at every time.
    Scalar,
    /// The same, and noise at every time.
    ScalarNoise,
    /// Processes that treat all coordinates alike, with noise at the start of every step; the signal may vanish.
    ScalarData,
}

impl Accepts {
    /// In words.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Velocity => "wherever the velocity exists",
            Self::Linear => "linear, α(T) > 0",
            Self::LinearNoise => "linear, α(T) > 0, σ > 0",
            Self::LinearData => "linear, σ > 0 before the last time",
            Self::Chain => "VP and VE",
            Self::Scalar => "scalar, α(T) > 0",
            Self::ScalarNoise => "scalar, α(T) > 0, σ > 0",
            Self::ScalarData => "scalar, σ > 0 before the last time",
        }
    }
}

/// How a sampler is made.
#[derive(Clone, Copy)]
pub enum Make {
    /// A rule for tables.
    Table(fn(&Settings) -> Box<dyn Multistep>),
    /// Another sampler on a fixed grid.
    Fixed(fn(&Settings) -> Box<dyn Sampler>),
    /// A sampler on a fixed grid that knows how uncertain the field is at every time of it.
    Calibrated(fn(&Settings, &[Residual]) -> Box<dyn Sampler>),
    /// A rule on a fixed grid for fields that know how uncertain they are.
    Moments(fn(&Settings) -> LearnedVariance),
    /// A sampler that chooses its steps between the ends of the grid.
    Adaptive(fn(&Settings) -> Box<dyn Sampler>),
}

/// What is known of a field besides its prediction.
#[derive(Clone, Copy)]
pub struct Evidence<'a> {
    /// What [`calibrate`](crate::calibration::calibrate) found at the times of the grid.
    pub residuals: &'a [Residual],
    /// The variances that it was trained for.
    pub moments: Option<&'a dyn MomentField>,
}

impl Evidence<'_> {
    /// Nothing.
    pub const NONE: Self = Self { residuals: &[], moments: None };
}

/// One sampler.
#[derive(Clone, Copy)]
pub struct Entry {
    /// Its name, as on the command line.
    pub name: &'static str,
    /// What it is, in a few words.
    pub what: &'static str,
    /// The order of its global error, with full history if it has one; of a stochastic sampler, of mean and covariance. 0: the notion does not apply.
    pub order: u32,
    /// Evaluations of the network for a step.
    pub nfe: &'static str,
    /// Whether it draws noise.
    pub stochastic: Stochastic,
    /// Which processes it accepts.
    pub accepts: Accepts,
    /// Where it is from.
    pub reference: &'static str,
    /// What it is for.
    pub advice: &'static str,
    /// Its constructor.
    pub make: Make,
}

impl Entry {
    /// The sampler with these settings; a calibrated one, or one of learned variances, is made of what is known of the field besides.
    ///
    /// # Errors
    /// [`Error::NoMoments`] for one of learned variances without them. A calibrated one complains itself, of times that are missing.
    pub fn sampler<'a>(&self, settings: &Settings, known: Evidence<'a>) -> Result<Box<dyn Sampler + 'a>> {
        Ok(match self.make {
            Make::Table(make) => Box::new(make(settings)),
            Make::Calibrated(make) => make(settings, known.residuals),
            Make::Moments(make) => {
                let field = known.moments.ok_or(Error::NoMoments { sampler: self.name })?;
                Box::new(WithMoments { rule: make(settings), field })
            }
            Make::Fixed(make) | Make::Adaptive(make) => make(settings),
        })
    }

    /// Whether it draws noise with these settings.
    pub fn draws_noise(&self, settings: &Settings) -> bool {
        match self.stochastic {
            Stochastic::No => false,
            Stochastic::Yes => true,
            Stochastic::If("eta") => settings.eta > 0.0,
            Stochastic::If("churn") => settings.churn.amount > 0.0,
            Stochastic::If(_) => settings.lambda > 0.0,
        }
    }

    /// Whether it needs a calibration.
    pub fn is_calibrated(&self) -> bool {
        matches!(self.make, Make::Calibrated(_))
    }

    /// Whether it is for fields that know how uncertain they are.
    pub fn wants_moments(&self) -> bool {
        matches!(self.make, Make::Moments(_))
    }

    /// Whether it chooses its steps, so that a grid is its two ends.
    pub fn is_adaptive(&self) -> bool {
        matches!(self.make, Make::Adaptive(_))
    }

    /// The row of the table in docs/solvers.md.
    pub fn markdown(&self) -> String {
        let order = if self.order == 0 { "–".into() } else { self.order.to_string() };
        let noise = match self.stochastic {
            Stochastic::No => "no".into(),
            Stochastic::Yes => "yes".into(),
            Stochastic::If(setting) => format!("if `{setting}` > 0"),
        };
        let cells =
            [self.what, &order, self.nfe, &noise, self.accepts.describe(), self.reference, self.advice];
        format!("| `{}` | {} |", self.name, cells.join(" | "))
    }
}

/// All samplers, in the order of the documentation.
pub fn all() -> impl Iterator<Item = &'static Entry> {
    one_step::ENTRIES
        .iter()
        .chain(multistep::ENTRIES)
        .chain(stages::ENTRIES)
        .chain(calibrated::ENTRIES)
        .chain(langevin::ENTRIES)
        .chain(adaptive::ENTRIES)
}

/// The sampler of a name.
pub fn find(name: &str) -> Option<&'static Entry> {
    all().find(|entry| entry.name == name)
}
