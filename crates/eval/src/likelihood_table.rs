//! The log density along the numerical flow of a table: states and `∫∇·v` by one and the same rule.
//!
//! A row `u ← A_k u + Σ_j B_kj p_{k−j}` is, in `y = u/c` with c the product of the carries A so far, a row
//! `y ← y + Σ_j (B_kj/c_{k+1}) p_{k−j}` of a rule for `dy/ds = p(c y, s)`, whose log density changes by
//! `∫ tr ∂p/∂y ds = ∫ c tr(∂p/∂u) ds`. The rule takes that integral along as one more coordinate:
//!
//! `log p(u_0) = log p_T(u_K) + Σ_k Σ_j B_kj (c_{k−j}/c_{k+1}) tr(∂p/∂u)_{k−j} + D Σ_k log |A_k|`,
//!
//! c_{k−j} that at the evaluation. It holds for multistep and Runge–Kutta rows alike, for ε, x₀ and the velocity,
//! and converges with the order of the rule. (It is not the log determinant of the discrete map, which for a
//! multistep rule is no map of one state.)
//!
//! Reference: Zhang 2023 (thesis), section 3.4: any DEIS scheme integrates the augmented flow.

use std::collections::VecDeque;

use candle_core::Tensor;
use sde_core::{Converted, Op, combine};
use sde_solvers::Table;

use crate::{Error, Likelihood, Result};

/// One evaluation: the prediction, its trace for each sample, and c where it was made.
struct Evaluated {
    value: Tensor,
    trace: Vec<f64>,
    scale: f64,
}

/// The state at the end of the table, and for each sample the sums above.
pub(crate) fn along(
    table: &Table,
    likelihood: &Likelihood<'_>,
    x: &Tensor,
    probes: &[Tensor],
) -> Result<(Tensor, Vec<f64>)> {
    check(table, likelihood)?;
    let field = Converted::new(likelihood.field, likelihood.sde, table.of);
    let depth = table.updates.iter().map(|update| update.terms.len()).max().unwrap_or(0);
    let dim = x.elem_count() / x.dim(0)?;
    let mut history: VecDeque<Evaluated> = VecDeque::with_capacity(depth + 1);
    let (mut x, mut scale, mut sums) = (x.clone(), 1.0, vec![0.0; x.dim(0)?]);
    for update in &table.updates {
        if !update.terms.is_empty() {
            history.truncate(depth.saturating_sub(1));
            let (value, trace) =
                likelihood.divergence.value_and_divergence(&field, &x, &[update.from], probes)?;
            history.push_front(Evaluated { value, trace: trace.to_vec1()?, scale });
        }
        let carry = scalar(&update.carry)?;
        scale *= carry;
        let volume = dim as f64 * carry.abs().ln();
        sums.iter_mut().for_each(|sum| *sum += volume);
        for (term, evaluated) in update.terms.iter().zip(&history) {
            let factor = scalar(term)? * (evaluated.scale / scale);
            sums.iter_mut().zip(&evaluated.trace).for_each(|(sum, trace)| *sum += factor * trace);
        }
        let terms = update.terms.iter().zip(history.iter().map(|evaluated| &evaluated.value));
        x = combine(&std::iter::once((&update.carry, &x)).chain(terms).collect::<Vec<_>>())?.sum;
    }
    Ok((x, sums))
}

/// Refuses a table that does not go the way of the likelihood.
fn check(table: &Table, likelihood: &Likelihood<'_>) -> Result<()> {
    let ends = table.updates.first().zip(table.updates.last()).map(|(first, last)| (first.from, last.to));
    let expected = (likelihood.start, likelihood.end);
    if ends != Some(expected) {
        let wanted = format!("from t = {} to t = {}, as upward() makes them", expected.0, expected.1);
        let found = ends.map_or("no rows".into(), |(from, to)| format!("from t = {from} to t = {to}"));
        return Err(Error::mismatch("table of a likelihood", wanted, found));
    }
    if table.updates.iter().any(|update| update.inject.is_some()) {
        let found = "one that draws noise";
        return Err(Error::mismatch("table of a likelihood", "a deterministic table", found));
    }
    Ok(())
}

fn scalar(op: &Op) -> Result<f64> {
    op.as_scalar().ok_or_else(|| {
        let expected = "a process that treats all coordinates alike (an adaptive solver takes any)";
        Error::mismatch("table of a likelihood", expected, op.describe())
    })
}
