//! Gradients of a cost along a chain of random steps, in the memory of one step: the stochastic adjoint.
//!
//! For `z_{k+1} = φ_k(z_k; θ, ξ_k)`, fixed noise ξ, and the loss `J = E[Σ_k c_k(z_k; θ) + C(z_N; θ)]`, only the states are kept.
//! Backwards, each step is made again from its state as a leaf, and one `backward` of
//!
//! ```text
//! c_k(z_k) + a_{k+1} · φ_k(z_k)        gives        a_k = ∂/∂z_k,   dJ/dθ += ∂/∂θ,        a_N = ∂C/∂z_N
//! ```
//!
//! This is backpropagation cut into steps: exact but for rounding, with no noise to store and nothing solved twice. It costs one
//! more pass forwards than the whole tape.
//!
//! A cost between two neighbouring states, as DiffFlow's, is a cost of one state that carries what it needs of the other.
//!
//! Reference: Zhang, Chen 2021 (DiffFlow), arXiv 2110.07579, Algorithm 2.
//! Differs: its second line adds the last step's gradient, which its loop adds again; it is left out.

use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};

use crate::Result;
use crate::loss::LossValue;

/// A chain whose noise is fixed: a step taken twice is the same step.
pub trait Chain {
    /// N.
    fn steps(&self) -> usize;

    /// State k + 1 from state k, and what state k costs each sample.
    ///
    /// # Shapes
    /// The parts of a state have one row a sample; the cost is `[B]`.
    ///
    /// # Errors
    /// Those of its networks.
    fn step(&self, k: usize, state: &[Tensor]) -> Result<(Vec<Tensor>, Tensor)>;

    /// What the last state costs each sample.
    ///
    /// # Shapes
    /// `[B]`.
    ///
    /// # Errors
    /// Those of its networks.
    fn terminal(&self, state: &[Tensor]) -> Result<Tensor>;
}

/// How the gradient is found; both are exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Route {
    /// Step by step, from the states: memory for one step and N states.
    Adjoint,
    /// On one tape: memory for N steps, and one pass less.
    Backpropagation,
}

/// A chain that was run, and the gradient of its mean cost.
#[derive(Debug)]
pub struct Traced {
    /// What each sample cost, `[B]`, off the tape.
    pub cost: Tensor,
    /// The last state, off the tape.
    pub last: Vec<Tensor>,
    /// Gradients of the mean cost with respect to every variable that it depends on.
    pub gradients: GradStore,
}

impl Traced {
    /// The mean cost with its gradients, as [`fit`](fn@crate::fit) takes it.
    ///
    /// # Errors
    /// Those of Candle.
    pub fn into_value(self) -> Result<LossValue> {
        let total = self.cost.mean_all()?;
        Ok(LossValue { total, terms: Vec::new(), gradients: Some(self.gradients) })
    }
}

/// Runs the chain from `start`, and differentiates the mean of its cost over the samples.
///
/// # Errors
/// Those of the chain.
pub fn trace(chain: &dyn Chain, start: &[Tensor], route: Route) -> Result<Traced> {
    match route {
        Route::Adjoint => by_steps(chain, start),
        Route::Backpropagation => on_one_tape(chain, start),
    }
}

/// Runs the chain from `start` without differentiating it: the cost of each sample, `[B]`, and the last state.
///
/// # Errors
/// Those of the chain.
pub fn roll(chain: &dyn Chain, start: &[Tensor]) -> Result<(Tensor, Vec<Tensor>)> {
    walk(chain, start, |_| ())
}

fn on_one_tape(chain: &dyn Chain, start: &[Tensor]) -> Result<Traced> {
    let mut state = detached(start);
    let mut costs = Vec::with_capacity(chain.steps() + 1);
    for k in 0..chain.steps() {
        let (next, cost) = chain.step(k, &state)?;
        costs.push(cost);
        state = next;
    }
    costs.push(chain.terminal(&state)?);
    let cost = sum(&costs)?;
    let gradients = sde_nets::backward(&cost.mean_all()?)?;
    Ok(Traced { cost: cost.detach(), last: detached(&state), gradients })
}

fn by_steps(chain: &dyn Chain, start: &[Tensor]) -> Result<Traced> {
    let mut states = Vec::with_capacity(chain.steps() + 1);
    let (cost, last) = walk(chain, start, |state| states.push(state.to_vec()))?;
    states.push(last.clone());

    let mut gradients = GradStore::default();
    let mut adjoint: Vec<Option<Tensor>> = Vec::new();
    for (k, state) in states.iter().enumerate().rev() {
        let leaves = state.iter().map(Var::from_tensor).collect::<candle_core::Result<Vec<Var>>>()?;
        let here: Vec<Tensor> = leaves.iter().map(|leaf| leaf.as_tensor().clone()).collect();
        let scalar = if k == chain.steps() {
            chain.terminal(&here)?.mean_all()?
        } else {
            let (next, cost) = chain.step(k, &here)?;
            lagrangian(&cost, &next, &adjoint)?
        };
        let mut store = sde_nets::backward(&scalar)?;
        adjoint = here.iter().map(|leaf| store.remove(leaf).map(|gradient| gradient.detach())).collect();
        add(&mut gradients, &store)?;
    }
    Ok(Traced { cost, last, gradients })
}

/// The states one after another, off the tape.
fn walk(
    chain: &dyn Chain,
    start: &[Tensor],
    mut visit: impl FnMut(&[Tensor]),
) -> Result<(Tensor, Vec<Tensor>)> {
    let mut costs = Vec::with_capacity(chain.steps() + 1);
    let mut state = detached(start);
    for k in 0..chain.steps() {
        visit(&state);
        let (next, cost) = chain.step(k, &state)?;
        costs.push(cost.detach());
        state = detached(&next);
    }
    costs.push(chain.terminal(&state)?.detach());
    Ok((sum(&costs)?, state))
}

/// The mean of c, plus a·z′; an absent a is zero.
fn lagrangian(cost: &Tensor, next: &[Tensor], adjoint: &[Option<Tensor>]) -> Result<Tensor> {
    let mut scalar = cost.mean_all()?;
    for (part, adjoint) in next.iter().zip(adjoint) {
        if let Some(adjoint) = adjoint {
            scalar = (scalar + (part * adjoint)?.sum_all()?)?;
        }
    }
    Ok(scalar)
}

/// Adds one step's gradients. They are detached: a gradient remembers what it was computed from, and would keep its tape.
fn add(sums: &mut GradStore, of_step: &GradStore) -> Result<()> {
    for &id in of_step.get_ids() {
        let Some(gradient) = of_step.get_id(id) else { continue };
        let sum = match sums.get_id(id) {
            Some(sum) => (sum + gradient)?.detach(),
            None => gradient.detach(),
        };
        sums.insert_id(id, sum);
    }
    Ok(())
}

fn detached(state: &[Tensor]) -> Vec<Tensor> {
    state.iter().map(Tensor::detach).collect()
}

fn sum(costs: &[Tensor]) -> Result<Tensor> {
    Ok(Tensor::stack(costs, 0)?.sum(0)?)
}
