//! The equation that the score of every linear process solves, of a network at the states of a batch:
//!
//! ```text
//! L[s] = ½ tr(𝒟 ∇s) + ½ sᵀ𝒟 s − (F x)·s − tr F          ϵ[s] = ∂s/∂t − ∇L[s]          𝒟 = G Gᵀ
//! z·∇L = ½ Σ (𝒟a)·∂_z∂_a s + (∂_z s)·(𝒟 s − F x) − (F z)·s
//! ```
//!
//! The sum is over all axes a, or the mean over random ones. The first line is differentiated on the tape; the second
//! is what differences make of it.
//!
//! Reference: Lai et al. 2022, arXiv 2210.04296, Proposition 3.1, for F = f(t) and 𝒟 = g² I.
//! Differs: any linear process; tr F is kept.

use candle_core::Tensor;
use sde_core::noise::host_tensor;
use sde_core::{LinearSde, Model, Op, Pass, Prediction, apply_each, convert};
use sde_data::Batch;
use sde_nets::derivatives::{Differences, Jet, Taped, per_sample};

use super::rate::TimeDifference;
use super::{RateStep, Route};
use crate::Result;

/// A network's score as a solution.
pub(super) struct Equation<'a> {
    pub sde: &'a dyn LinearSde,
    pub model: &'a dyn Model,
    /// Labels and features of the samples.
    pub batch: &'a Batch,
    /// The time of each sample.
    pub t: &'a [f64],
    /// F and 𝒟 of each sample.
    pub drift: Vec<Op>,
    pub diffusion: Vec<Op>,
}

/// Directions whose mean, or sum, is one estimate of the trace.
pub(super) struct Directions {
    pub vectors: Vec<Tensor>,
    /// What each counts: 1 for axes.
    pub share: f64,
}

/// ϵ, as far as it was asked for: one for each estimate of the trace.
pub(super) enum Residual {
    None,
    /// Of the shape of the states.
    Vectors(Vec<Tensor>),
    /// ⟨ϵ, z⟩, `[B]`.
    Along(Vec<Tensor>),
}

/// What is asked for.
pub(super) enum Asked<'a> {
    /// L alone.
    Generator,
    /// ϵ.
    Vector { rate: &'a Tensor },
    /// ⟨ϵ, z⟩.
    Along { rate: &'a Tensor, z: &'a Tensor },
}

impl<'a> Equation<'a> {
    pub fn new(sde: &'a dyn LinearSde, model: &'a dyn Model, batch: &'a Batch, t: &'a [f64]) -> Self {
        let drift = t.iter().map(|&t| sde.drift(t)).collect();
        let diffusion = t.iter().map(|&t| sde.diffusion(t)).collect();
        Self { sde, model, batch, t, drift, diffusion }
    }

    /// The score at as many batches of states as there are in `x`, one behind the other, dropout off.
    fn score(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        let copies = x.dim(0)? / self.t.len().max(1);
        let repeated = |tensor: &Option<Tensor>| -> Result<Option<Tensor>> {
            Ok(tensor.as_ref().map(|tensor| Tensor::cat(&vec![tensor; copies], 0)).transpose()?)
        };
        let (labels, augment) = (repeated(&self.batch.labels)?, repeated(&self.batch.augment)?);
        let t = if t.len() == x.dim(0)? { t.to_vec() } else { t.repeat(copies) };
        let times = host_tensor(t.clone(), &[t.len()], x.dtype(), x.device())?;
        let pass = Pass { labels: labels.as_ref(), augment: augment.as_ref(), dropout: None };
        let value = self.model.forward(x, &times, pass)?;
        Ok(convert(self.sde, (self.model.prediction(), Prediction::Score), &t, x, &value)?)
    }

    /// ∂s/∂t at `x`, by one evaluation at three times.
    pub fn rate(&self, x: &Tensor, step: RateStep) -> Result<Tensor> {
        let batch = x.dim(0)?;
        let differences =
            self.t.iter().map(|&t| TimeDifference::new(self.sde, t, step)).collect::<Result<Vec<_>>>()?;
        let pick = |f: &dyn Fn(&TimeDifference) -> [f64; 3]| -> Vec<f64> {
            (0..3).flat_map(|k| differences.iter().map(move |d| f(d)[k])).collect()
        };
        let score = self.score(&Tensor::cat(&[x, x, x], 0)?, &pick(&|d| d.times))?;
        let mut dims = vec![1; x.rank()];
        dims[0] = 3 * batch;
        let weights = host_tensor(pick(&|d| d.weights), &dims, x.dtype(), x.device())?;
        let terms = score.broadcast_mul(&weights)?;
        Ok(((terms.narrow(0, 0, batch)? + terms.narrow(0, batch, batch)?)?
            + terms.narrow(0, 2 * batch, batch)?)?)
    }

    /// L, the mean over its estimates, and ϵ with each of them.
    ///
    /// # Shapes
    /// L `[B]`.
    pub fn solve(
        &self,
        x: &Tensor,
        groups: &[Directions],
        route: Route,
        asked: &Asked<'_>,
    ) -> Result<(Tensor, Residual)> {
        match route {
            Route::Reverse => self.on_tape(x, groups, None, asked),
            Route::Mixed { step } => self.on_tape(x, groups, Some(step), asked),
            Route::Differences { step } => self.by_differences(x, groups, step, asked),
        }
    }

    fn on_tape(
        &self,
        x: &Tensor,
        groups: &[Directions],
        step: Option<f64>,
        asked: &Asked<'_>,
    ) -> Result<(Tensor, Residual)> {
        let (taped, traces) = match step {
            None => {
                let taped = Taped::new(|x| self.score(x, self.t), x)?;
                let traces = groups.iter().map(|group| self.trace(&taped, group));
                let traces = traces.collect::<Result<Vec<_>>>()?;
                (taped, traces)
            }
            Some(step) => {
                let mut slopes = Vec::new();
                let taped = Taped::new(
                    |x| {
                        let jet = self.jet(
                            x,
                            groups.iter().flat_map(|g| &g.vectors).cloned().collect(),
                            &[],
                            step,
                        )?;
                        slopes = jet.first;
                        Ok::<_, crate::Error>(jet.value)
                    },
                    x,
                )?;
                (taped, self.traces_of_slopes(groups, &slopes)?)
            }
        };
        let smooth = self.smooth(taped.x(), taped.value())?;
        let mut generators = Vec::with_capacity(groups.len());
        for trace in traces {
            generators.push((&smooth + trace)?);
        }
        let vectors = |rate: &Tensor| -> Result<Vec<Tensor>> {
            generators.iter().map(|generator| Ok((rate - taped.gradient(generator)?)?)).collect()
        };
        let residual = match asked {
            Asked::Generator => Residual::None,
            Asked::Vector { rate } => Residual::Vectors(vectors(rate)?),
            Asked::Along { rate, z } => {
                let along =
                    vectors(rate)?.iter().map(|v| Ok(per_sample(&(v * *z)?)?)).collect::<Result<_>>()?;
                Residual::Along(along)
            }
        };
        Ok((mean(&generators)?, residual))
    }

    fn by_differences(
        &self,
        x: &Tensor,
        groups: &[Directions],
        step: f64,
        asked: &Asked<'_>,
    ) -> Result<(Tensor, Residual)> {
        let mut along: Vec<Tensor> = groups.iter().flat_map(|group| &group.vectors).cloned().collect();
        let traced = along.len();
        // Pairs of places in `along`.
        let (heads, mixed): (Vec<usize>, Vec<(usize, usize)>) = match asked {
            Asked::Generator => (Vec::new(), Vec::new()),
            // Along all axes, which the one group consists of.
            Asked::Vector { .. } => {
                ((0..traced).collect(), (0..traced).flat_map(|i| (i..traced).map(move |j| (i, j))).collect())
            }
            Asked::Along { z, .. } => {
                along.push((*z).clone());
                (vec![traced], (0..traced).map(|j| (j, traced)).collect())
            }
        };
        let jet = self.jet(x, along.clone(), &mixed, step)?;
        let smooth = self.smooth(x, &jet.value)?;
        let traces = self.traces_of_slopes(groups, &jet.first)?;
        let generators = traces.iter().map(|trace| Ok((&smooth + trace)?)).collect::<Result<Vec<_>>>()?;
        let slope = |head: usize, group: usize| self.slope(x, &jet, (&along, &mixed), groups, (head, group));
        let residual = match asked {
            Asked::Generator => Residual::None,
            Asked::Vector { rate } => {
                let parts = heads.iter().map(|&head| slope(head, 0)).collect::<Result<Vec<_>>>()?;
                Residual::Vectors(vec![(*rate - Tensor::stack(&parts, 1)?.reshape(x.dims())?)?])
            }
            Asked::Along { rate, z } => {
                let rate = per_sample(&(*rate * *z)?)?;
                let slopes = (0..groups.len()).map(|group| Ok((&rate - slope(traced, group)?)?));
                Residual::Along(slopes.collect::<Result<_>>()?)
            }
        };
        Ok((mean(&generators)?, residual))
    }

    /// `z·∇L` for the direction at place `head`, with the traces of one group.
    fn slope(
        &self,
        x: &Tensor,
        jet: &Jet,
        (along, mixed): (&[Tensor], &[(usize, usize)]),
        groups: &[Directions],
        (head, group): (usize, usize),
    ) -> Result<Tensor> {
        let (z, turned) = (&along[head], &jet.first[head]);
        let pull = (apply_each(&self.diffusion, &jet.value)? - apply_each(&self.drift, x)?)?;
        let mut sum =
            (per_sample(&(turned * pull)?)? - per_sample(&(apply_each(&self.drift, z)? * &jet.value)?)?)?;
        let first: usize = groups[..group].iter().map(|g| g.vectors.len()).sum();
        for (k, a) in groups[group].vectors.iter().enumerate() {
            let pair = ((first + k).min(head), (first + k).max(head));
            let place = mixed.iter().position(|&found| found == pair);
            let Some(bent) = place.and_then(|place| jet.second.get(place)) else {
                return Err(crate::Error::config(
                    "loss.fokker_planck",
                    "all second differences",
                    format!("none for {pair:?}"),
                ));
            };
            let term = per_sample(&(apply_each(&self.diffusion, a)? * bent)?)?;
            sum = (sum + (term * (0.5 * groups[group].share))?)?;
        }
        Ok(sum)
    }

    fn jet(&self, x: &Tensor, along: Vec<Tensor>, mixed: &[(usize, usize)], step: f64) -> Result<Jet> {
        // In units of the length over which the score changes most.
        let length = |&t: &f64| Ok(step / self.sde.factor(t).inverse()?.max_abs());
        let steps = self.t.iter().map(length).collect::<Result<Vec<f64>>>()?;
        Differences { steps: &steps, along: &along, mixed }.jet(|x| self.score(x, self.t), x)
    }

    /// `½ sᵀ𝒟 s − (F x)·s − tr F`.
    fn smooth(&self, x: &Tensor, s: &Tensor) -> Result<Tensor> {
        let pull = ((apply_each(&self.diffusion, s)? * 0.5)? - apply_each(&self.drift, x)?)?;
        let dim = x.dims()[1..].iter().product();
        let traces: Vec<f64> = self.drift.iter().map(|drift| drift.trace(dim)).collect();
        let traces = host_tensor(traces, &[self.t.len()], x.dtype(), x.device())?;
        Ok((per_sample(&(pull * s)?)? - traces)?)
    }

    /// `½ tr(𝒟 ∇s)` by backward passes.
    fn trace(&self, taped: &Taped, group: &Directions) -> Result<Tensor> {
        let turned =
            group.vectors.iter().map(|a| Ok(apply_each(&self.diffusion, a)?)).collect::<Result<Vec<_>>>()?;
        Ok((taped.trace(turned.iter().zip(&group.vectors))? * (0.5 * group.share))?)
    }

    /// `½ tr(𝒟 ∇s)` of each group from the derivatives along all their directions.
    fn traces_of_slopes(&self, groups: &[Directions], slopes: &[Tensor]) -> Result<Vec<Tensor>> {
        let mut slopes = slopes.iter();
        let of_group = |group: &Directions| -> Result<Tensor> {
            let mut terms = Vec::with_capacity(group.vectors.len());
            for (a, slope) in group.vectors.iter().zip(slopes.by_ref()) {
                terms.push(per_sample(&(apply_each(&self.diffusion, a)? * slope)?)?);
            }
            Ok((Tensor::stack(&terms, 0)?.sum(0)? * (0.5 * group.share))?)
        };
        groups.iter().map(of_group).collect()
    }
}

/// The mean of tensors of one shape.
fn mean(terms: &[Tensor]) -> Result<Tensor> {
    match terms {
        [one] => Ok(one.clone()),
        several => Ok(Tensor::stack(several, 0)?.mean(0)?),
    }
}
