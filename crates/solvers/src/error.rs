//! The error type of samplers.

use crate::adaptive::Report;

/// What can go wrong while a sampler is built or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A sampler that is defined for scalar processes only was asked for another.
    #[error(
        "{sampler} is defined for processes that treat all coordinates alike, which this one does not at t = {t}: {hint}"
    )]
    NotScalar {
        /// The sampler.
        sampler: &'static str,
        /// The time.
        t: f64,
        /// The way out.
        hint: &'static str,
    },
    /// A coefficient came out infinite or NaN.
    #[error("a coefficient of {sampler} is not finite on the step from t = {from} to t = {to}: {hint}")]
    Coefficient {
        /// The sampler.
        sampler: &'static str,
        /// Where the step starts.
        from: f64,
        /// Where it ends.
        to: f64,
        /// The way out.
        hint: &'static str,
    },
    /// A sampler that looks back was asked to jump.
    #[error("{sampler} uses predictions of earlier steps: {hint}")]
    History {
        /// The sampler.
        sampler: &'static str,
        /// The way out.
        hint: &'static str,
    },
    /// A rule of a discretised chain was asked for a process that has none.
    #[error("{sampler} takes the steps of a discretised chain, and this process has none published: {hint}")]
    NoChain {
        /// The sampler.
        sampler: &'static str,
        /// The way out.
        hint: &'static str,
    },
    /// A predictor that looks at earlier steps.
    #[error(
        "{sampler} looks at earlier steps (on step {step} first), whose states a corrector has changed; a predictor must look at its own step \
         only: take ddpm, em, ddim or a Runge–Kutta rule"
    )]
    NotOneStep {
        /// The predictor.
        sampler: &'static str,
        /// The first step that looks back.
        step: usize,
    },
    /// The state became infinite or NaN.
    #[error(
        "the state is not finite after step {step}, at t = {t}; the field or the noise given to the sampler is at fault"
    )]
    NonFinite {
        /// The step, from 0.
        step: usize,
        /// The time the step led to.
        t: f64,
    },
    /// A sampler of learned variances was given a field without them.
    #[error(
        "{sampler} takes the variances of a network that was trained for them; this field has none: train a second output, or take analytic-dpm"
    )]
    NoMoments {
        /// The sampler.
        sampler: &'static str,
    },
    /// A rule that draws noise was asked to run from data to noise.
    #[error(
        "{sampler} draws noise, and the way from data to noise is that of the probability flow: take a deterministic rule, or eta or lambda 0"
    )]
    Upward {
        /// The sampler.
        sampler: &'static str,
    },
    /// An adaptive solve did not arrive.
    #[error(
        "sample {sample} stopped at t = {} after {} evaluations: {:?}; raise max_nfe or the tolerances (settings of the sampler)",
        report.t, report.nfe, report.outcome
    )]
    Unfinished {
        /// The sample's place in its batch.
        sample: usize,
        /// How far it came.
        report: Report,
    },
    /// A chain that cannot reject has left the finite numbers.
    #[error(
        "{sampler}: chain {chain} is not finite after iteration {iteration}; take a smaller step, or a sampler that can reject (mala, hmc)"
    )]
    Diverged {
        /// The sampler.
        sampler: &'static str,
        /// The chain.
        chain: usize,
        /// The iteration, from 0.
        iteration: u32,
    },
    /// A chain that has ended where the target has no density.
    #[error(
        "{sampler}: the log density of chain {chain} is still {found} at the end: start where the target has mass (the law that chains start from), or run longer"
    )]
    NoDensity {
        /// The sampler.
        sampler: &'static str,
        /// The first such chain.
        chain: usize,
        /// What the target said last.
        found: f64,
    },
    /// No Gaussian could be fitted to samples.
    #[error(
        "no Gaussian in {dim} dimensions fits {samples} samples (half of those drawn): draw more, or fit variances only, or estimate no log Z"
    )]
    Fit {
        /// How many samples there were to fit to.
        samples: usize,
        /// D.
        dim: usize,
    },
    /// Samples of two laws, of which one has density nowhere the other has samples.
    #[error(
        "no sample has a finite density under both the target and the Gaussian fitted to it: log Z cannot be bridged"
    )]
    NoOverlap,
    /// Annealing none of whose particles has density.
    #[error(
        "annealing: no particle has a positive weight at a level of {beta}: start from a law that covers the target, or with more particles"
    )]
    NoWeight {
        /// β.
        beta: f64,
    },
    /// Annealing that does not get on.
    #[error(
        "annealing stands at a level of {beta} after as many levels as are allowed: ask for a smaller share, or start from another law"
    )]
    Levels {
        /// β.
        beta: f64,
    },
    /// Mathematics or a model failed.
    #[error(transparent)]
    Core(#[from] sde_core::Error),
    /// A tensor operation failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl Error {
    /// As an error of the mathematics crate, whose traits samplers implement.
    pub(crate) fn into_core(self) -> sde_core::Error {
        match self {
            Self::Core(error) => error,
            Self::Candle(error) => error.into(),
            other => sde_core::Error::model(other),
        }
    }
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

pub(crate) fn in_range(what: &'static str, found: f64, low: f64, high: f64) -> Result<f64> {
    let refused = sde_core::Error::Range { what, found, low, high };
    if found >= low && found <= high { Ok(found) } else { Err(refused.into()) }
}
