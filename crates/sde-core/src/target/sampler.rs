//! What every method for a target has in common: it draws samples, perhaps with weights, and may know log Z.
//!
//! A run is a function of its noise. Whoever compares methods makes many runs, each with noise of its own seed, and looks at the bias and the standard
//! deviation of their log Ẑ.

use candle_core::Tensor;

use super::{LogWeights, Target};
use crate::Result;
use crate::noise::Noise;

/// What one run of a method has found.
#[derive(Debug, Clone)]
pub struct Drawn {
    /// The samples, `[N, D]`, f64.
    pub samples: Tensor,
    /// Their weights; none where all count alike. Where samples have been resampled these are only what the weights have become since: they are nearly equal, and
    /// neither their effective share nor their standard error says how good the run was ([`Drawn::effective_share`] does).
    pub weights: Option<LogWeights>,
    /// The smallest effective share that weights had before a resampling; none where there was none.
    pub lowest_share: Option<f64>,
    /// The estimate of log Z; none from a method that cannot tell.
    pub log_normaliser: Option<f64>,
    /// An estimate of a lower bound of log Z, for methods that have one.
    pub bound: Option<f64>,
    /// How many times the target was evaluated, at one point each, for all samples together.
    pub evaluations: u64,
}

impl Drawn {
    /// The smallest effective share that weights have had, those before each resampling included; none without weights.
    pub fn effective_share(&self) -> Option<f64> {
        let last = self.weights.as_ref()?.effective_share();
        Some(self.lowest_share.map_or(last, |lowest| lowest.min(last)))
    }
}

/// A method that samples from a target.
pub trait TargetSampler {
    /// What it is called in tables and records.
    fn name(&self) -> String;

    /// Draws `samples` samples.
    ///
    /// # Errors
    /// Those of the target; when the method breaks down, or cannot handle such a target.
    fn draw(&self, target: &dyn Target, samples: usize, noise: Noise) -> Result<Drawn>;
}
