//! UniPC with B(h) = e^{−h} − 1 on x₀, for scalar processes: every prediction, made for the next step anyway, first corrects the state it was made at.
//!
//! With `h = log ρ − log ρ'`, `D_i = x₀ at place r_i − x₀`, places in units of the step, 0 at its start and 1 at its end:
//! `u' = (σ'/σ) u − α' (e^{−h} − 1) [x₀ + Σ_i w_i D_i / r_i]`, w the solution of `Σ_i w_i r_i^{k−1} = z k! φ_{k+1}(z)/(e^z − 1)`, z = −h, k = 1, …. The predictor of order p
//! has the places of the p − 1 predictions before; the corrector has r = 1, too. As a row of a table: the state is a prediction already, so what is added
//! is the corrector's coefficients less the predictor's, then the next predictor. The last state is not corrected, so N steps are N evaluations.
//!
//! Order of convergence p + 1, when started by p predictions.
//!
//! Reference: Zhao, Bai, Rao, Zhou, Lu 2023, arXiv 2302.04867, Algorithms 1 and 2 (bh2), with w = ½ for one difference, as in the authors' code.

use sde_core::{LinearSde, Op, Prediction, TimeGrid};

use super::dpm_solver::scales;
use super::exponential::{Degrees, moment};
use super::{Multistep, Table, Update, checked};
use crate::Result;
use crate::error::in_range;

/// UniPC of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UniPc {
    /// p, the order of the predictor, 1 … 3.
    pub order: usize,
    /// Whether the last steps are of lower order; a step that ends without noise is of order 1 anyway.
    pub lower_final: bool,
}

/// Weights of the differences: `Σ_i w_i r_i^{k−1} = b_k`.
fn weights(places: &[f64], z: f64) -> Vec<f64> {
    if let [_] = places {
        return vec![0.5];
    }
    let b: Vec<f64> = (1..=places.len()).map(|k| moment(k, z) / moment(0, z)).collect();
    let weight = |i: usize| {
        // The functional with moments b, applied to the Lagrange polynomial of place i.
        let mut polynomial = vec![1.0];
        for (_, r) in places.iter().enumerate().filter(|(m, _)| *m != i) {
            let mut next = vec![0.0; polynomial.len() + 1];
            for (power, c) in polynomial.iter().enumerate() {
                next[power] -= c * r / (places[i] - r);
                next[power + 1] += c / (places[i] - r);
            }
            polynomial = next;
        }
        polynomial.iter().zip(&b).map(|(c, b)| c * b).sum()
    };
    (0..places.len()).map(weight).collect()
}

/// A step from the newest of `nodes` to `to`.
struct Step<'a> {
    sde: &'a dyn LinearSde,
    name: &'static str,
    nodes: &'a [f64],
    to: f64,
}

impl Step<'_> {
    /// The factor of the state, and those of the predictions: that at `to`, which only the corrector uses, then at `nodes`.
    fn coefficients(&self, corrector: bool) -> Result<(f64, Vec<f64>)> {
        let (_, sigma, clock) = scales(self.name, self.sde, self.nodes[0])?;
        let (alpha_next, sigma_next, clock_next) = scales(self.name, self.sde, self.to)?;
        let h = clock - clock_next;
        let mut places: Vec<f64> = self.nodes[1..].iter().map(|&t| (clock - self.sde.clock(t)) / h).collect();
        if corrector {
            places.push(1.0);
        }
        let scale = -alpha_next * moment(0, -h);
        let differences: Vec<f64> =
            weights(&places, -h).iter().zip(&places).map(|(w, r)| scale * w / r).collect();
        let mut terms = vec![0.0, scale];
        for (i, difference) in differences.iter().enumerate() {
            terms[1] -= difference;
            if i + 1 < self.nodes.len() { terms.push(*difference) } else { terms[0] = *difference }
        }
        Ok((sigma_next / sigma, terms))
    }
}

impl Multistep for UniPc {
    fn name(&self) -> &'static str {
        ["unipc1", "unipc2", "unipc3"].get(self.order.wrapping_sub(1)).copied().unwrap_or("unipc")
    }

    fn table(&self, sde: &dyn LinearSde, grid: &TimeGrid) -> Result<Table> {
        in_range("order", self.order as f64, 1.0, 3.0)?;
        sde_core::grid::require_signal(sde, grid.start(), "unipc")?;
        let (name, times) = (self.name(), grid.times());
        let degrees = Degrees { degree: self.order - 1, lower_final: self.lower_final };
        let mut updates: Vec<Update> = Vec::new();
        let mut before: Option<(Vec<f64>, f64)> = None;
        for i in 0..grid.steps() {
            let nodes: Vec<f64> = times[i - degrees.at(sde, grid, i)..=i].iter().rev().copied().collect();
            let (from, to) = (times[i], times[i + 1]);
            let (carry, predictor) = Step { sde, name, nodes: &nodes, to }.coefficients(false)?;
            // Of the predictions at `from` and before.
            let mut terms = predictor[1..].to_vec();
            if let Some((nodes, to)) = &before {
                let step = Step { sde, name, nodes, to: *to };
                let (corrected, predicted) = (step.coefficients(true)?.1, step.coefficients(false)?.1);
                terms.resize(terms.len().max(corrected.len()), 0.0);
                for (term, (c, p)) in terms.iter_mut().zip(corrected.iter().zip(&predicted)) {
                    *term += carry * (c - p);
                }
            }
            let terms = terms.into_iter().map(Op::Scalar).collect();
            updates.push(checked(name, Update::new(from, to, Op::Scalar(carry), terms).of_step(i))?);
            before = Some((nodes, to));
        }
        Ok(Table { of: Prediction::Data, updates })
    }
}
