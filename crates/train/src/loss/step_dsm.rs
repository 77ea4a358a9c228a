//! Score matching on the steps of a simulated chain, for processes without a transition density: with `X_{k+1} = X_k + Δ f(X_k) + √Δ L(X_k) ξ_k`,
//!
//! `L = ½ Σ_k E ‖√Δ_k L(X_k)ᵀ s(X_{k+1}, t_{k+1}) + ξ_k‖²`, one k drawn for each sample and the term multiplied by their number.
//!
//! The score of one step is `−(Δ Q)⁻¹ (X_{k+1} − X_k − Δ f) = −(√Δ L)⁻ᵀ ξ_k`, so this is its squared error in the metric Δ Q: no inverse, and a
//! degenerate L is as good as any other. The minimiser is the exact score of the chain (of it, not of the process: they differ by O(Δ)). Parameters of
//! Q(x) and ω(x) on the tape get their gradient through the simulated path.
//!
//! Reference: Du, Zhang, Yang, Du 2023, arXiv 2206.10365, appendix A.2; Zhang, Chen 2021, arXiv 2110.07579, Eq. (14) for the same sum without weights.
//! Differs: the reference divides by the step's covariance.

use std::rc::Rc;

use candle_core::{D, Tensor};
use sde_core::noise::{BatchNoise, Stream, host_tensor};
use sde_core::state_sde::Chain;
use sde_core::{Model, Pass, Prediction, StateSde, convert};
use sde_data::Batch;

use super::{Loss, LossValue};
use crate::{Error, Result};

/// Step score matching of a process whose noise depends on the state.
#[derive(Clone)]
pub struct StepDsm {
    sde: Rc<StateSde>,
    times: Vec<f64>,
}

impl StepDsm {
    /// The loss on the chain through `times`, t_0 = 0 < t_1 < … < t_N ≤ 1.
    ///
    /// # Errors
    /// [`Error::Config`] for other times.
    pub fn new(sde: Rc<StateSde>, times: Vec<f64>) -> Result<Self> {
        let increase = times.windows(2).all(|pair| pair[0] < pair[1]);
        let inside = times.first() == Some(&0.0) && times.last().is_some_and(|t| *t <= 1.0);
        if times.len() < 2 || !increase || !inside {
            return Err(Error::Config {
                field: "times of the chain",
                expected: "0 and at least one more, increasing to 1 at most".into(),
                found: format!("{:?}", &times[..times.len().min(4)]),
            });
        }
        Ok(Self { sde, times })
    }

    /// The loss of each sample; [`Loss::loss`] is its mean.
    ///
    /// # Shapes
    /// `[B]`.
    ///
    /// # Errors
    /// When batch and noise differ in size, or the model or the process fails.
    pub fn per_sample(&self, model: &dyn Model, batch: &Batch, noise: &BatchNoise) -> Result<Tensor> {
        let x = &batch.x;
        let steps = self.times.len() - 1;
        let draw = |draws: &mut sde_core::noise::Draws| draws.below(steps as u64) as usize;
        let drawn: Vec<usize> = noise.draws(Stream::Time, 0).iter_mut().map(draw).collect();
        let last = drawn.iter().max().map_or(0, |k| k + 1);
        let Chain { states, noises, steps: sizes } = self.sde.simulate(x, &self.times[..=last], noise)?;
        let before = at_rows(&states, &drawn)?;
        let after = at_rows(&states, &drawn.iter().map(|k| k + 1).collect::<Vec<_>>())?;
        let xi = at_rows(&noises, &drawn)?;
        let roots: Vec<f64> = drawn.iter().map(|&k| sizes[k].sqrt()).collect();
        let t: Vec<f64> = drawn.iter().map(|&k| self.times[k + 1]).collect();
        let times = host_tensor(t.clone(), &[t.len()], x.dtype(), x.device())?;
        let pass =
            Pass { labels: batch.labels.as_ref(), augment: batch.augment.as_ref(), dropout: Some(noise) };
        let predicted = model.forward(&after, &times, pass)?;
        // A prediction other than the score is read as VP's of the same clock: one parametrisation of the score among others.
        let kinds = (model.prediction(), Prediction::Score);
        let score = convert(self.sde.vp(), kinds, &t, &after, &predicted)?;
        let through = self.sde.diffusion().root_transposed(&before, &score)?;
        let mut column = vec![1; through.rank()];
        column[0] = roots.len();
        let roots = host_tensor(roots, &column, x.dtype(), x.device())?;
        let error = (through.broadcast_mul(&roots)? + xi)?;
        Ok((error.flatten_from(1)?.sqr()?.sum(D::Minus1)? * (0.5 * steps as f64))?)
    }
}

impl Loss for StepDsm {
    fn loss(&self, model: &dyn Model, batch: &Batch, noise: &BatchNoise) -> Result<LossValue> {
        let total = self.per_sample(model, batch, noise)?.mean_all()?;
        Ok(LossValue::on_tape(total))
    }
}

/// Row b of the tensor number `which[b]`.
fn at_rows(tensors: &[Tensor], which: &[usize]) -> Result<Tensor> {
    let rows = which.iter().enumerate().map(|(row, &k)| tensors[k].narrow(0, row, 1));
    Ok(Tensor::cat(&rows.collect::<candle_core::Result<Vec<_>>>()?, 0)?)
}
