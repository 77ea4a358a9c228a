//! Diagnostics of a score at noised points, `u_t = S_t x₀ + R_t ε`: what it costs, whether it is a gradient, whether it solves its own
//! equation, how straight its flow is.
//!
//! The noise of a point is the same at every time, so that a curve over t is smooth; neighbouring values then share most of their error.

mod conservative;
mod dsm;
mod error_map;
mod fokker_planck;
mod generator;
mod law;
mod stencil;
mod theory;
mod trajectory;

use candle_core::{DType, Tensor};
use sde_core::noise::{BatchNoise, Law, Noise, Stream};
use sde_core::{Converted, Field, LinearSde, Prediction};
use sde_solvers::Divergence;

pub use conservative::{Asymmetry, asymmetry};
pub use dsm::{DsmLoss, dsm_loss};
pub use error_map::{ErrorMap, ScoreError, score_error};
pub use fokker_planck::{FokkerPlanck, fokker_planck, fokker_planck_residual};
pub use generator::{density_by_generator, generator, time_nodes};
pub use law::{Boxes, KnownLaw};
pub use stencil::Steps;
pub use theory::{Known, Theory, TheoryGrid};
pub use trajectory::{Trajectories, trajectories};

use crate::rows::Rows;
use crate::{Error, Result};

/// Sites of the noise of diagnostics in the stream of metrics.
const EPS: u32 = 1 << 16;
const PROBES: u32 = EPS + 1;

/// How derivatives of a score are summed over directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Directions {
    /// All axes: exact, at a cost that grows with the dimension (its square for the Fokker–Planck residual).
    Axes,
    /// Random signs: unbiased estimates of squares, of any dimension.
    Random {
        /// Independent draws for each point.
        probes: usize,
    },
}

/// A field of a process, at noised points of a data set.
#[derive(Clone, Copy)]
pub struct Noised<'a> {
    /// The process.
    pub sde: &'a dyn LinearSde,
    /// A prediction of it.
    pub field: &'a dyn Field,
    /// x₀, `[N, …]`.
    pub data: &'a Tensor,
    /// Point i has the noise at address i.
    pub noise: Noise,
    /// Points in work together; changes nothing but memory.
    pub batch: usize,
}

/// Some of the points at one time.
struct Part<'a> {
    sde: &'a dyn LinearSde,
    field: &'a dyn Field,
    t: f64,
    /// The noised state, `[b, …]`, f64.
    u: Tensor,
    /// Its noise.
    eps: Tensor,
    /// The addresses of its points.
    noise: BatchNoise,
}

impl Part<'_> {
    /// The score, as a field.
    fn score(&self) -> Converted<'_, &dyn Field> {
        Converted::new(self.field, self.sde, Prediction::Score)
    }

    /// Random signs, one direction for each point.
    fn signs(&self, k: usize) -> Result<Tensor> {
        let site = PROBES + k as u32;
        let (dims, device) = (&self.u.dims()[1..], self.u.device());
        Ok(self.noise.tensor(Law::Rademacher, Stream::Metric, site, dims, DType::F64, device)?)
    }

    /// The axes, each for all points.
    fn axes(&self) -> Result<Vec<Tensor>> {
        Ok(Divergence::Exact.probes(&self.noise, &self.u)?)
    }
}

impl Noised<'_> {
    /// D.
    fn dim(&self) -> usize {
        self.data.dims().iter().skip(1).product()
    }

    /// The noised points at time `t`, all of them.
    ///
    /// # Shapes
    /// `[N, …]` f64.
    ///
    /// # Errors
    /// For no points, or a batch of none.
    pub fn states(&self, t: f64) -> Result<Tensor> {
        let parts = self.at(t, |part| Ok(vec![part.u.clone()]))?;
        Ok(Tensor::cat(&parts, 0)?)
    }

    /// What `measure` says of each point at time `t`, batch after batch.
    fn at<T>(&self, t: f64, mut measure: impl FnMut(&Part<'_>) -> Result<Vec<T>>) -> Result<Vec<T>> {
        let n = Rows::new(self.data, "points of a diagnostic")?.len();
        if self.batch == 0 {
            return Err(Error::mismatch("batch size", "at least 1", 0));
        }
        let (signal, factor) = (self.sde.signal(t), self.sde.factor(t));
        let mut found = Vec::with_capacity(n);
        for first in (0..n).step_by(self.batch) {
            let count = self.batch.min(n - first);
            let x = self.data.narrow(0, first, count)?.to_dtype(DType::F64)?.contiguous()?;
            let samples: Vec<usize> = (first..first + count).collect();
            let noise = BatchNoise::new(self.noise, 0, samples.iter().map(|&i| i as u32));
            let eps =
                noise.tensor(Law::Normal, Stream::Metric, EPS, &x.dims()[1..], DType::F64, x.device())?;
            let u = (signal.apply(&x)? + factor.apply(&eps)?)?;
            let restricted = self.field.restrict(&samples)?;
            let field = restricted.as_deref().unwrap_or(self.field);
            found.extend(measure(&Part { sde: self.sde, field, t, u, eps, noise })?);
        }
        Ok(found)
    }
}

/// `Σ a·b` of each point.
fn dot(a: &Tensor, b: &Tensor) -> Result<Vec<f64>> {
    Ok((a * b)?.flatten_from(1)?.sum(1)?.to_vec1::<f64>()?)
}

/// `‖a‖²` of each point.
fn squares(a: &Tensor) -> Result<Vec<f64>> {
    dot(a, a)
}
