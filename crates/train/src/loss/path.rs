//! Penalties on the paths of the probability flow of a learned process, `λ₁ ∫ E‖v‖² dt + λ₂ ∫ E‖∇v‖_F² dt`, with
//!
//! `v = −ḃ (½ Q (x + s) + ω x)`, `∇v = −ḃ (½ Q (I + ∇s) + ω)`.
//!
//! They form the process, not the network: s and ∇s are constants, but for `s(x_t) ≈ s + ∇s δx_t`, by which the kinetic term sees
//! how the states move with the parameters of the process. Up to 16 dimensions ∇s is taken whole, one backward pass for each; beyond, it is
//! met by one random probe ε, `‖∇v‖_F² = E‖εᵀ∇v‖²`, by two backward passes and a difference of two scores.
//!
//! Reference: "A Flexible Diffusion Model", section 4.1, Eq. (20), (21); Finlay et al. 2020, arXiv 2002.02798, for the weights.
//! Differs: the paper prints εᵀv in the second term; ∇ is meant.

use candle_core::{Tensor, Var};
use sde_core::noise::{BatchNoise, Law, Stream, host_tensor};
use sde_core::{Model, Pass};
use sde_data::Batch;
use serde::{Deserialize, Serialize};

use crate::forward::{Diffused, Flow};
use crate::{Error, Result};

/// The most dimensions whose Jacobian is taken whole.
const MOST: usize = 16;

/// The distance of a difference, in σ.
const STEP: f64 = 0.01;

/// The weights of the penalties.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathPenalty {
    /// λ₁, of the kinetic energy.
    pub kinetic: f64,
    /// λ₂, of the Jacobian.
    pub jacobian: f64,
}

/// The times of a batch: t, b and ḃ of each sample.
#[derive(Debug, Clone, Copy)]
pub struct Times<'a> {
    /// t.
    pub t: &'a [f64],
    /// b.
    pub b: &'a [f64],
    /// ḃ.
    pub rate: &'a [f64],
}

impl PathPenalty {
    /// Refuses weights that are none.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn check(&self) -> Result<()> {
        for (field, value) in [("loss.path.kinetic", self.kinetic), ("loss.path.jacobian", self.jacobian)] {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(Error::config(field, "0 or more", value));
            }
        }
        Ok(())
    }

    /// `λ₁ ‖v‖² + λ₂ ‖∇v‖_F²` of each sample at its time; with `noise` for probes.
    ///
    /// # Shapes
    /// `[B]`.
    ///
    /// # Errors
    /// Those of the model, and of a prediction that a learned process has not.
    pub fn of(
        &self,
        flow: &Flow,
        model: &dyn Model,
        batch: &Batch,
        at: &Diffused,
        times: Times<'_>,
        noise: &BatchNoise,
    ) -> Result<Tensor> {
        let here = Here { flow, model, batch, at, times };
        match at.state.dim(1)? {
            dim if dim <= MOST => self.whole(&here),
            _ => self.probed(&here, noise),
        }
    }

    /// With the whole Jacobian.
    fn whole(&self, here: &Here<'_>) -> Result<Tensor> {
        let Here { flow, at, .. } = *here;
        let (leaf, score) = here.score()?;
        let rows = (0..score.dim(1)?).map(|i| pulled_back(&leaf, &score.narrow(1, i, 1)?.sum_all()?));
        let slopes = Tensor::stack(&rows.collect::<Result<Vec<_>>>()?, 1)?;
        let moved = (&at.state - at.state.detach())?.unsqueeze(2)?;
        let score = (score.detach() + slopes.matmul(&moved)?.squeeze(2)?)?;
        let velocity = flow.velocity(&at.state, &score)?.broadcast_mul(&here.rates(2)?)?;
        let kinetic = velocity.sqr()?.sum(1)?;
        let jacobian = flow.velocity_slopes(&slopes)?.broadcast_mul(&here.rates(3)?)?;
        let jacobian = jacobian.sqr()?.sum((1, 2))?;
        Ok(((kinetic * self.kinetic)? + (jacobian * self.jacobian)?)?)
    }

    /// With one probe a sample. Where ∇s meets something that is on the tape, the derivative is put in by a term whose value is 0.
    fn probed(&self, here: &Here<'_>, noise: &BatchNoise) -> Result<Tensor> {
        let Here { flow, at, .. } = *here;
        let (state, rates) = (&at.state, here.rates(2)?);
        let (leaf, score) = here.score()?;
        let velocity = flow.velocity(state, &score.detach())?.broadcast_mul(&rates)?;
        // d‖v‖² by way of s(x_t) is −ḃ (∇sᵀ Q v)ᵀ dx_t.
        let through = flow.diffused_by(&velocity)?.broadcast_mul(&rates)?.neg()?.detach();
        let through = pulled_back(&leaf, &(&score * through)?.sum_all()?)?;
        let moved = (through * (state - state.detach())?)?;
        let kinetic = (velocity.sqr()? + moved)?.sum(1)?;

        let probe = noise.tensor(
            Law::Rademacher,
            Stream::Probe,
            0,
            &state.dims()[1..],
            state.dtype(),
            state.device(),
        )?;
        // εᵀ∇v = ḃ (−½ w + ωε − ½ ∇sᵀ w), w = Qε.
        let w = flow.diffused_by(&probe)?;
        let back = pulled_back(&leaf, &(&score * w.detach())?.sum_all()?)?;
        let row = ((flow.turned_by(&probe)? - (&w * 0.5)?)? - (back * 0.5)?)?.broadcast_mul(&rates)?;
        // d‖row‖² by way of ∇sᵀ w is −ḃ (∇s row)ᵀ dw.
        let ahead = here.pushed_forward(&row.detach())?.broadcast_mul(&rates)?;
        let turned = (ahead * (&w - w.detach())?)?.neg()?;
        let jacobian = (row.sqr()? + turned)?.sum(1)?;
        Ok(((kinetic * self.kinetic)? + (jacobian * self.jacobian)?)?)
    }
}

/// A network at states of a process.
#[derive(Clone, Copy)]
struct Here<'a> {
    flow: &'a Flow,
    model: &'a dyn Model,
    batch: &'a Batch,
    at: &'a Diffused,
    times: Times<'a>,
}

impl Here<'_> {
    /// ḃ, one for each sample, beside tensors of a rank.
    fn rates(&self, rank: usize) -> Result<Tensor> {
        let dims: Vec<usize> = std::iter::once(self.times.t.len()).chain(vec![1; rank - 1]).collect();
        Ok(host_tensor(self.times.rate.to_vec(), &dims, self.at.state.dtype(), self.at.state.device())?)
    }

    /// The states as a variable of their own, and the score there.
    fn score(&self) -> Result<(Var, Tensor)> {
        let leaf = Var::from_tensor(&self.at.state.detach().copy()?)?;
        let score = self.score_at(&leaf)?;
        Ok((leaf, score))
    }

    fn score_at(&self, x: &Tensor) -> Result<Tensor> {
        let Self { model, batch, times, .. } = *self;
        let t = host_tensor(times.t.to_vec(), &[times.t.len()], x.dtype(), x.device())?;
        let pass = Pass { labels: batch.labels.as_ref(), augment: batch.augment.as_ref(), dropout: None };
        let output = model.forward(&x.reshape(batch.x.dims())?, &t, pass)?.flatten_from(1)?;
        self.flow.detach().score(model.prediction(), &output, x, times.b)
    }

    /// ∇s d, by a difference of two scores, [`STEP`] σ to each side.
    fn pushed_forward(&self, direction: &Tensor) -> Result<Tensor> {
        let size = direction.sqr()?.mean_keepdim(1)?.sqrt()?;
        let size = size.maximum(f64::from(f32::MIN_POSITIVE))?;
        let step = (self.at.sigma.detach().mean_keepdim(1)? * STEP)?;
        let shift = direction.broadcast_div(&size)?.broadcast_mul(&step)?;
        let state = self.at.state.detach();
        let (right, left) = (self.score_at(&(&state + &shift)?)?, self.score_at(&(&state - &shift)?)?);
        Ok((right - left)?.detach().broadcast_mul(&size.broadcast_div(&(step * 2.0)?)?)?)
    }
}

/// The gradient of a scalar by the states, a constant; zero where it does not depend on them.
fn pulled_back(leaf: &Var, scalar: &Tensor) -> Result<Tensor> {
    let gradients = sde_nets::backward(scalar)?;
    Ok(gradients.get(leaf).map_or_else(|| leaf.zeros_like(), |gradient| Ok(gradient.detach()))?)
}
