//! Penalties on the paths of the probability flow of a learned process, `λ₁ ∫ E‖v‖² dt + λ₂ ∫ E‖∇v‖_F² dt`, with
//!
//! `v = −ḃ (½ Q (x + s) + ω x)`, `∇v = −ḃ (½ Q (I + ∇s) + ω)`.
//!
//! They form the process, not the network: s and ∇s are constants, but for `s(x_t) ≈ s + ∇s δx_t`, by which the kinetic term sees
//! how the states move with the parameters of the process. ∇s is taken whole, one backward pass for each dimension.
//!
//! Reference: "A Flexible Diffusion Model", section 4.1, Eq. (20), (21); Finlay et al. 2020, arXiv 2002.02798, for the weights.
//! Differs: the paper prints εᵀv in the second term; E‖εᵀ∇v‖² = ‖∇v‖_F² is taken in closed form.

use candle_core::{Tensor, Var};
use sde_core::noise::host_tensor;
use sde_core::{Model, Pass};
use sde_data::Batch;
use serde::{Deserialize, Serialize};

use crate::forward::{Diffused, Flow};
use crate::{Error, Result};

/// The most dimensions whose Jacobian is taken whole.
const MOST: usize = 16;

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
    /// Refuses weights that are none, and samples of too many dimensions.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn check(&self, dim: usize) -> Result<()> {
        for (field, value) in [("loss.path.kinetic", self.kinetic), ("loss.path.jacobian", self.jacobian)] {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(Error::config(field, "0 or more", value));
            }
        }
        if dim > MOST {
            return Err(Error::config("loss.path", format!("absent above {MOST} dimensions"), dim));
        }
        Ok(())
    }

    /// `λ₁ ‖v‖² + λ₂ ‖∇v‖_F²` of each sample at its time.
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
    ) -> Result<Tensor> {
        let (score, slopes) = score_and_slopes(flow, model, batch, at, times)?;
        let moved = (&at.state - at.state.detach())?.unsqueeze(2)?;
        let score = (score + slopes.matmul(&moved)?.squeeze(2)?)?;
        let rate =
            |dims: &[usize]| host_tensor(times.rate.to_vec(), dims, at.state.dtype(), at.state.device());
        let count = times.t.len();
        let velocity = flow.velocity(&at.state, &score)?.broadcast_mul(&rate(&[count, 1])?)?;
        let kinetic = velocity.sqr()?.sum(1)?;
        let jacobian = flow.velocity_slopes(&slopes)?.broadcast_mul(&rate(&[count, 1, 1])?)?;
        let jacobian = jacobian.sqr()?.sum((1, 2))?;
        Ok(((kinetic * self.kinetic)? + (jacobian * self.jacobian)?)?)
    }
}

/// s `[B, D]` and ∇s `[B, D, D]` (∂s_i/∂x_j) at the states, both constants.
fn score_and_slopes(
    flow: &Flow,
    model: &dyn Model,
    batch: &Batch,
    at: &Diffused,
    times: Times<'_>,
) -> Result<(Tensor, Tensor)> {
    let leaf = Var::from_tensor(&at.state.detach().copy()?)?;
    let t = host_tensor(times.t.to_vec(), &[times.t.len()], leaf.dtype(), leaf.device())?;
    let pass = Pass { labels: batch.labels.as_ref(), augment: batch.augment.as_ref(), dropout: None };
    let output = model.forward(&leaf.reshape(batch.x.dims())?, &t, pass)?.flatten_from(1)?;
    let score = flow.score(model.prediction(), &output, &leaf, times.b)?;
    let row = |i: usize| {
        let gradients = sde_nets::backward(&score.narrow(1, i, 1)?.sum_all()?)?;
        Ok(gradients.get(&leaf).map_or_else(|| leaf.zeros_like(), |row| Ok(row.detach()))?)
    };
    let rows = (0..score.dim(1)?).map(row).collect::<Result<Vec<_>>>()?;
    Ok((score.detach(), Tensor::stack(&rows, 1)?))
}
