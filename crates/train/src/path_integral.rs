//! Training of a control by what its paths cost: the objective of the path integral sampler.
//!
//! ```text
//! J = E[Σ_k ½ |u_k|² Δ + log μ⁰(x_N) − log μ̂(x_N)] ≥ −log Z        x_{k+1} = x_k + g u_k Δ + g √Δ ξ_k        x₀ = 0
//! ```
//!
//! J is the expected Ŝ of the sampler's paths but for a term of mean zero, so the training's loss is minus the bound of log Z, in nats, and the best control
//! makes it −log Z. Gradients go through the states; the target's score is a constant to them, in the control, and gives the gradient of the last term.
//!
//! There is no data: the examples are the starts, all of them the origin.
//!
//! Reference: Zhang, Chen 2022, arXiv 2111.15141; Zhang 2023 (thesis), Algorithm 3.
//! Differs: the gradient is that of the stochastic adjoint (or of one tape), exact for the discrete paths, and not that of an SDE solved backwards.

use std::cell::RefCell;
use std::sync::Arc;

use candle_core::Tensor;
use sde_core::Target;
use sde_core::noise::{BatchNoise, Law, Stream};
use sde_core::target::{Bridge, Control};
use sde_data::Batch;

use crate::Result;
use crate::adjoint::{Chain, Route, roll, trace};
use crate::loss::LossValue;
use crate::objective::Objective;

/// The objective of a control, which it owns.
pub struct PathCost<C> {
    /// The control, built on the parameters that are trained.
    pub control: C,
    /// The diffusion that it steers.
    pub bridge: Bridge,
    /// Where to.
    pub target: Arc<dyn Target>,
    /// How gradients are found.
    pub route: Route,
}

impl<C: Control> PathCost<C> {
    fn chain<'a>(&'a self, noise: &'a BatchNoise) -> Paths<'a> {
        let guides = RefCell::new(vec![None; self.bridge.steps]);
        Paths { control: &self.control, bridge: self.bridge, target: self.target.as_ref(), noise, guides }
    }
}

impl<C: Control> Objective for PathCost<C> {
    /// # Shapes
    /// `batch.x` `[B, D]` are the starts.
    fn value(&self, batch: &Batch, noise: &BatchNoise) -> Result<LossValue> {
        trace(&self.chain(noise), std::slice::from_ref(&batch.x), self.route)?.into_value()
    }

    fn held_out(&self, batch: &Batch, noise: &BatchNoise) -> Result<LossValue> {
        let (cost, _) = roll(&self.chain(noise), std::slice::from_ref(&batch.x))?;
        Ok(LossValue { total: cost.mean_all()?, terms: Vec::new(), gradients: None })
    }
}

/// The paths of one batch.
struct Paths<'a> {
    control: &'a dyn Control,
    bridge: Bridge,
    target: &'a dyn Target,
    noise: &'a BatchNoise,
    /// What the target said at each step: the way back asks at the same states again.
    guides: RefCell<Vec<Option<Tensor>>>,
}

impl Paths<'_> {
    fn guide(&self, k: usize, x: &Tensor) -> Result<Option<Tensor>> {
        if !self.control.needs_score() {
            return Ok(None);
        }
        let kept = self.guides.borrow().get(k).cloned().flatten();
        if kept.is_some() {
            return Ok(kept);
        }
        let guide = self.bridge.guide(self.target, x)?.score;
        if let Some(place) = self.guides.borrow_mut().get_mut(k) {
            *place = Some(guide.clone());
        }
        Ok(Some(guide))
    }
}

impl Chain for Paths<'_> {
    fn steps(&self) -> usize {
        self.bridge.steps
    }

    fn step(&self, k: usize, state: &[Tensor]) -> Result<(Vec<Tensor>, Tensor)> {
        let x = one(state)?;
        let (dt, g) = (self.bridge.step(), self.bridge.noise);
        let guide = self.guide(k, x)?;
        let u = self.control.control(x, k as f64 * dt, guide.as_ref())?;
        let shape = &x.dims()[1..];
        let xi = self.noise.tensor(Law::Normal, Stream::Diffusion, k as u32, shape, x.dtype(), x.device())?;
        let cost = (u.sqr()?.sum(1)? * (0.5 * dt))?;
        let next = ((x + (u * (g * dt))?)? + (xi * (g * dt.sqrt()))?)?;
        Ok((vec![next], cost))
    }

    fn terminal(&self, state: &[Tensor]) -> Result<Tensor> {
        let x = one(state)?;
        let density = self.bridge.density(self.target, x)?;
        // A number whose gradient is the score: the target itself is not on the tape.
        let slope = ((x - x.detach())? * density.score)?.sum(1)?;
        Ok((self.bridge.log_reference(x)? - (density.value + slope)?)?)
    }
}

/// The one part of a state.
fn one(state: &[Tensor]) -> Result<&Tensor> {
    let [x] = state else {
        let (expected, found) = ("one tensor".into(), format!("{} tensors", state.len()));
        return Err(sde_core::Error::Mismatch { what: "state of a path", expected, found }.into());
    };
    Ok(x)
}
