//! Coefficient tables: every fixed-grid linear sampler, as data, and the one executor that runs them.
//!
//! `u ← A_k u + Σ_j B_kj p_{k−j} + N_k z`, with p the model's prediction (ε, x₀, velocity or score) at the times already visited, newest
//! first, and z ~ N(0, I). A table is built on the host, in f64, from a process and a grid; it can be printed, compared, and tested exactly by
//! propagating mean and covariance through it, without a network and without Monte Carlo.

mod ddim;
mod ddpm;
mod ei;
mod euler;
mod euler_maruyama;
mod stochastic_ddim;
mod tab;

use std::collections::VecDeque;

use candle_core::{DType, Tensor};
use sde_core::noise::NormalSource;
use sde_core::{Converted, Field, LinearSde, Op, Prediction, TimeGrid};

pub use ddim::{Ddim, Form};
pub use ddpm::{Ddpm, Variance};
pub use ei::Ei;
pub use euler::Euler;
pub use euler_maruyama::EulerMaruyama;
pub use stochastic_ddim::StochasticDdim;
pub use tab::Tab;

use crate::{Error, Result};

/// One step of a table: the model is evaluated at `from`, the state moves to `to`.
#[derive(Debug, Clone, PartialEq)]
pub struct Update {
    /// Where the step starts.
    pub from: f64,
    /// Where it ends.
    pub to: f64,
    /// A, the factor of the state.
    pub carry: Op,
    /// B, the factors of the predictions, that at `from` first, then the earlier ones.
    pub terms: Vec<Op>,
    /// N, the factor of fresh noise, if any is drawn.
    pub inject: Option<Op>,
}

/// A sampler on a grid, as its coefficients.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// The prediction that the terms multiply.
    pub of: Prediction,
    /// The steps, from noise to data.
    pub updates: Vec<Update>,
}

/// A rule that makes a table of a process and a grid.
pub trait Multistep {
    /// The sampler's name, as on the command line.
    fn name(&self) -> &'static str;

    /// The table on `grid`.
    ///
    /// # Errors
    /// When the sampler does not exist for this process or on this grid.
    fn table(&self, sde: &dyn LinearSde, grid: &TimeGrid) -> Result<Table>;
}

/// What a sampler returns.
#[derive(Debug, Clone)]
pub struct Solution {
    /// The final state, of the shape and type of the initial one.
    pub x: Tensor,
    /// Evaluations of the field, for each sample.
    pub nfe: usize,
}

impl Table {
    /// A table of one-step updates, one for each step of the grid.
    pub(crate) fn of_steps(
        name: &'static str,
        of: Prediction,
        grid: &TimeGrid,
        step: impl Fn(f64, f64) -> Result<Update>,
    ) -> Result<Self> {
        let updates = grid.times().windows(2).map(|pair| checked(name, step(pair[0], pair[1])?));
        Ok(Self { of, updates: updates.collect::<Result<_>>()? })
    }

    /// Runs the table: one evaluation of the field a step.
    ///
    /// `field` may predict anything that converts to the table's prediction; `noise` is asked for one draw for each step that
    /// injects noise, by the step's index.
    ///
    /// # Shapes
    /// `x` `[B, …]`, in f64 where the device has it; the field sees the same shape and type.
    ///
    /// # Errors
    /// [`Error::NonFinite`] as soon as the state is not finite; whatever the field returns.
    pub fn sample(
        &self,
        sde: &dyn LinearSde,
        field: &dyn Field,
        x: &Tensor,
        noise: &dyn NormalSource,
    ) -> Result<Solution> {
        let field = Converted::new(field, sde, self.of);
        let mut history: VecDeque<Tensor> = VecDeque::new();
        let mut x = x.clone();
        for (step, update) in self.updates.iter().enumerate() {
            history.push_front(field.eval(&x, &[update.from])?);
            history.truncate(update.terms.len());
            let mut next = update.carry.apply(&x)?;
            for (term, prediction) in update.terms.iter().zip(&history) {
                next = (next + term.apply(prediction)?)?;
            }
            if let Some(inject) = &update.inject {
                next = (next + inject.apply(&noise.normal(step, &x)?)?)?;
            }
            if !is_finite(&next)? {
                return Err(Error::NonFinite { step, t: update.to });
            }
            x = next;
        }
        Ok(Solution { x, nfe: self.updates.len() })
    }
}

/// The expected data x₀ given the state: the last step without noise (Tweedie's formula). One evaluation.
///
/// # Errors
/// As the conversion of the field's prediction to data.
pub fn denoise(sde: &dyn LinearSde, field: &dyn Field, x: &Tensor, t: f64) -> Result<Tensor> {
    Ok(Converted::new(field, sde, Prediction::Data).eval(x, &[t])?)
}

fn is_finite(x: &Tensor) -> Result<bool> {
    // A sum of finite f64 can overflow only far beyond any state; a NaN or an infinity always shows in it.
    Ok(x.to_dtype(DType::F64)?.abs()?.sum_all()?.to_scalar::<f64>()?.is_finite())
}

/// Refuses an update with a coefficient that is not finite.
pub(crate) fn checked(sampler: &'static str, update: Update) -> Result<Update> {
    let mut ops = std::iter::once(&update.carry).chain(&update.terms).chain(&update.inject);
    if ops.all(Op::is_finite) {
        return Ok(update);
    }
    Err(Error::Coefficient {
        sampler,
        from: update.from,
        to: update.to,
        hint: "the signal or the noise vanishes at an end of the step; move that end, or use the data form of ddim",
    })
}

/// (α, σ) of a scalar process, for rules that are defined for nothing else.
pub(crate) fn alpha_sigma(sampler: &'static str, sde: &dyn LinearSde, t: f64) -> Result<(f64, f64)> {
    match (sde.signal(t).as_scalar(), sde.factor(t).as_scalar()) {
        (Some(alpha), Some(sigma)) => Ok((alpha, sigma)),
        _ => Err(Error::NotScalar {
            sampler,
            groups: sde.groups(),
            t,
            hint: "take ddpm, ddim with eta 0, or tab, which exist for every linear process",
        }),
    }
}
