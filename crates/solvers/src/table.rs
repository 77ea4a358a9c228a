//! Coefficient tables: every fixed-grid linear sampler, as data, and the one executor that runs them.
//!
//! `u ← A_k u + Σ_j B_kj p_{k−j} + N_k z`, with p the model's prediction (ε, x₀, velocity or score) at the times already visited, newest
//! first, and z ~ N(0, I). A table is built on the host, in f64, from a process and a grid; it can be printed, compared, and tested exactly by
//! propagating mean and covariance through it, without a network and without Monte Carlo.

mod analytic_diagonal;
mod analytic_dpm;
mod cholesky_ab;
mod churn;
mod contraction;
mod ddim;
mod ddpm;
mod dpm2;
mod dpm_solver;
mod ei;
mod euler;
mod euler_maruyama;
mod exponential;
mod langevin;
mod log_ab;
mod pndm;
mod renoise;
mod rho_ab;
mod runge_kutta;
mod score_sde;
mod sde_dpm_solver;
mod stochastic_ddim;
mod tab;
mod tab_pc;
mod unipc;

use std::collections::VecDeque;

use candle_core::Tensor;
use sde_core::noise::NormalSource;
use sde_core::{Converted, Field, LinearSde, Op, Prediction, TimeGrid, combine};

pub use analytic_diagonal::AnalyticDiagonal;
pub(crate) use analytic_dpm::step as ddim_step;
pub use analytic_dpm::{AnalyticDpm, Clipping, ResidualVariance};
pub use cholesky_ab::CholeskyAb;
pub use churn::Churn;
pub use ddim::{Ddim, Form};
pub use ddpm::{Ddpm, Variance};
pub use dpm_solver::DpmSolver;
pub use dpm2::Dpm2;
pub use ei::Ei;
pub use euler::Euler;
pub use euler_maruyama::EulerMaruyama;
pub use langevin::AnnealedLangevin;
pub use log_ab::LogAb;
pub use pndm::{Pndm, Start};
pub use renoise::Renoise;
pub use rho_ab::RhoAb;
pub use runge_kutta::{Axis, RungeKutta};
pub use score_sde::ScoreSde;
pub(crate) use score_sde::chain_step;
pub use sde_dpm_solver::{SdeDpmSolver, Slope};
pub use stochastic_ddim::StochasticDdim;
pub use tab::Tab;
pub use tab_pc::TabPc;
pub use unipc::UniPc;

use crate::sampler::{Path, Sampler, Solution};
use crate::{Error, Result};

/// One row of a table: the model is evaluated at `from`, the state moves to `to`.
///
/// A one-step rule has one row a step of the grid. A rule with stages has one for each, which moves the state from the point of one
/// evaluation to that of the next, not always downwards in time. A row without terms moves the state without an evaluation.
#[derive(Debug, Clone, PartialEq)]
pub struct Update {
    /// The step of the grid the row belongs to, from 0; its number among the draws of noise, too.
    pub step: usize,
    /// Where the row starts.
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

impl Update {
    /// A row without noise, of step 0.
    pub fn new(from: f64, to: f64, carry: Op, terms: Vec<Op>) -> Self {
        Self { step: 0, from, to, carry, terms, inject: None }
    }

    /// The same with noise, unless its factor is zero.
    pub fn with_noise(self, factor: Op) -> Self {
        Self { inject: (factor.max_abs() != 0.0).then_some(factor), ..self }
    }

    /// The same as part of another step of the grid.
    pub fn of_step(self, step: usize) -> Self {
        Self { step, ..self }
    }
}

/// A sampler on a grid, as its coefficients.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// The prediction that the terms multiply.
    pub of: Prediction,
    /// The rows, from noise to data.
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

impl<M: Multistep + ?Sized> Multistep for Box<M> {
    fn name(&self) -> &'static str {
        (**self).name()
    }

    fn table(&self, sde: &dyn LinearSde, grid: &TimeGrid) -> Result<Table> {
        (**self).table(sde, grid)
    }
}

impl<M: Multistep + ?Sized> Sampler for M {
    fn sample(&self, path: &Path<'_>, x: &Tensor, noise: &dyn NormalSource) -> Result<Solution> {
        self.table(path.sde, path.grid)?.sample(path.sde, path.field, x, noise)
    }
}

impl Table {
    /// A table of one-step updates, one for each step of the grid.
    pub(crate) fn of_steps(
        name: &'static str,
        of: Prediction,
        grid: &TimeGrid,
        step: impl Fn(f64, f64) -> Result<Update>,
    ) -> Result<Self> {
        let pairs = grid.times().windows(2).enumerate();
        let updates = pairs.map(|(i, pair)| Ok(checked(name, step(pair[0], pair[1])?)?.of_step(i)));
        Ok(Self { of, updates: updates.collect::<Result<_>>()? })
    }

    /// Evaluations of the model for each sample.
    pub fn nfe(&self) -> usize {
        self.updates.iter().filter(|update| !update.terms.is_empty()).count()
    }

    /// Runs the table: one evaluation of the field for each row that has terms.
    ///
    /// `field` may predict anything that converts to the table's prediction; `noise` is asked for one draw for each row that
    /// injects noise, by its step.
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
        self.sample_with(sde, field, x, noise, &mut |_, x| Ok(x))
    }

    /// As [`Table::sample`], with `after` applied to the state at the end of every step of the grid; it is told the step's last row.
    ///
    /// # Errors
    /// As [`Table::sample`], and whatever `after` returns.
    pub fn sample_with(
        &self,
        sde: &dyn LinearSde,
        field: &dyn Field,
        x: &Tensor,
        noise: &dyn NormalSource,
        after: &mut dyn FnMut(&Update, Tensor) -> Result<Tensor>,
    ) -> Result<Solution> {
        let field = Converted::new(field, sde, self.of);
        let depth = self.updates.iter().map(|update| update.terms.len()).max().unwrap_or(0);
        let mut history: VecDeque<Tensor> = VecDeque::with_capacity(depth + 1);
        let mut x = x.clone();
        for (row, update) in self.updates.iter().enumerate() {
            if !update.terms.is_empty() {
                history.truncate(depth.saturating_sub(1));
                history.push_front(field.eval(&x, &[update.from])?);
            }
            x = update.apply(&x, &history, noise)?;
            if self.updates.get(row + 1).is_none_or(|next| next.step != update.step) {
                x = after(update, x)?;
            }
        }
        let nfe = vec![self.nfe(); x.dim(0)?];
        Ok(Solution { x, nfe })
    }
}

impl Update {
    /// The next state, in one pass over its operands.
    fn apply(&self, x: &Tensor, history: &VecDeque<Tensor>, noise: &dyn NormalSource) -> Result<Tensor> {
        let drawn = self.inject.as_ref().map(|_| noise.normal(self.step, x)).transpose()?;
        let terms = self.terms.iter().zip(history);
        let injected = self.inject.iter().zip(&drawn);
        let sum: Vec<(&Op, &Tensor)> =
            std::iter::once((&self.carry, x)).chain(terms).chain(injected).collect();
        let next = combine(&sum)?;
        if next.finite { Ok(next.sum) } else { Err(Error::NonFinite { step: self.step, t: self.to }) }
    }
}

/// The expected data x₀ given the state: the last step without noise (Tweedie's formula). One evaluation.
///
/// # Errors
/// As the conversion of the field's prediction to data.
pub fn denoise(sde: &dyn LinearSde, field: &dyn Field, x: &Tensor, t: f64) -> Result<Tensor> {
    Ok(Converted::new(field, sde, Prediction::Data).eval(x, &[t])?)
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

/// Whether a process treats all coordinates alike.
pub(crate) fn is_scalar(sde: &dyn LinearSde, t: f64) -> bool {
    sde.signal(t).as_scalar().is_some() && sde.factor(t).as_scalar().is_some()
}

/// (α, σ) of a scalar process, for rules that are defined for nothing else.
pub(crate) fn alpha_sigma(sampler: &'static str, sde: &dyn LinearSde, t: f64) -> Result<(f64, f64)> {
    match (sde.signal(t).as_scalar(), sde.factor(t).as_scalar()) {
        (Some(alpha), Some(sigma)) => Ok((alpha, sigma)),
        _ => Err(Error::NotScalar { sampler, t, hint: instead(sampler) }),
    }
}

/// What to take for other processes.
fn instead(sampler: &str) -> &'static str {
    let kind = sampler.trim_end_matches(|c: char| c.is_ascii_digit());
    match kind {
        "ddim" => "take stochastic-ddim, which has lambda in place of eta, or eta 0",
        "ddpm" => "take ddpm or ddpm-large",
        "unipc" => "take tab1-pc or tab2-pc, which correct as well, or data-ab2",
        "analytic-dpm" | "analytic-diagonal" | "learned variance" | "calibration" => {
            "take stochastic-ddim or ddpm, whose variance needs no estimate"
        }
        _ if kind.starts_with("sde-dpm") => "take stochastic-ddim, or adaptive-sde",
        "annealed-langevin" => "take pc-ddpm, whose corrector is the same",
        "replacement" => {
            "guide by a likelihood instead: sde_solvers::inverse::Reconstruction with Spread::None"
        }
        _ => {
            "take data-ab1 or data-ab2 for x₀, log-ab1 or log-ab2 for ε: the same with exact weights, for every linear process"
        }
    }
}
