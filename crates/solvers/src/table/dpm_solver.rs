//! DPM-Solver and DPM-Solver++ of multistep type, as published, for scalar processes. With h = log ρ − log ρ' > 0 and z = h for ε, z = −h for x₀:
//!
//! `u' = A u − s [(e^z − 1) D₀ + …]`, where `A = α'/α, s = σ'` for ε and `A = σ'/σ, s = α'` for x₀, and the dots are
//!
//! - order 2 ("midpoint"): `½ (e^z − 1) D₁`;
//! - order 3: `((e^z − 1)/z − 1) D₁ + ((e^z − 1 − z)/z² − ½) D₂`,
//!
//! D₀ the newest prediction, D₁ the slope of the polynomial through the past ones and D₂ its second divided
//! difference, half the second derivative, in units of the step.
//! The first steps use the order their history allows.
//!
//! Reference: Lu et al. 2022, arXiv 2206.00927 and arXiv 2211.01095, Algorithm 2; the authors' code for the third order.
//! Differs: nothing, on purpose: the exact weight of D₂ is twice the published one, so that the published third order converges with order 2; the exact
//! ones are [`LogAb`](super::LogAb).

use sde_core::{LinearSde, Op, TimeGrid};

use super::exponential::{Degrees, moment, multistep};
use super::{Form, Multistep, Table, Update, alpha_sigma};
use crate::Result;
use crate::error::in_range;

/// Multistep DPM-Solver (ε) or DPM-Solver++ (x₀).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DpmSolver {
    /// Noise: DPM-Solver; data: DPM-Solver++.
    pub form: Form,
    /// Predictions used, 1 … 3.
    pub order: usize,
    /// Whether the last steps use fewer, as is usual for fewer than 15 steps; a step that ends without noise uses one anyway.
    pub lower_final: bool,
}

/// (α, σ, log ρ).
pub(super) fn scales(name: &'static str, sde: &dyn LinearSde, t: f64) -> Result<(f64, f64, f64)> {
    let (alpha, sigma) = alpha_sigma(name, sde, t)?;
    Ok((alpha, sigma, sde.clock(t)))
}

/// Weights on the past predictions of `a D₀ + b D₁ + c D₂`, D₁ and D₂ those of the polynomial through as many predictions as there are places.
///
/// `places` are the times of the predictions after the newest, in units of the step, negative: −r₀, −(r₀ + r₁).
pub(super) fn differences(places: &[f64], [a, b, c]: [f64; 3]) -> Vec<f64> {
    match *places {
        [] => vec![a],
        [p] => vec![a - b / p, b / p],
        // Newton: p₀ + f[0,p] u + f[0,p,q] u (u − p), so D₁ = f[0,p] − p f[0,p,q] and D₂ = f[0,p,q].
        [p, q, ..] => {
            let second = c - b * p;
            let (first_pair, last_pair) = (1.0 / p, 1.0 / (q - p));
            // f[0,p] = (f_p − f_0)/p, f[p,q] = (f_q − f_p)/(q − p), f[0,p,q] = (f[p,q] − f[0,p])/q.
            let newest = a - b * first_pair + second * first_pair / q;
            let middle = b * first_pair - second * (last_pair + first_pair) / q;
            vec![newest, middle, second * last_pair / q]
        }
    }
}

impl Multistep for DpmSolver {
    fn name(&self) -> &'static str {
        let names = match self.form {
            Form::Noise => ["dpm-1m", "dpm-2m", "dpm-3m"],
            Form::Data => ["dpm++-1m", "dpm++-2m", "dpm++-3m"],
        };
        names.get(self.order.wrapping_sub(1)).copied().unwrap_or("dpm")
    }

    fn table(&self, sde: &dyn LinearSde, grid: &TimeGrid) -> Result<Table> {
        in_range("order", self.order as f64, 1.0, 3.0)?;
        sde_core::grid::require_signal(sde, grid.start(), "dpm-solver")?;
        let name = self.name();
        let degrees = Degrees { degree: self.order - 1, lower_final: self.lower_final };
        multistep(
            (name, self.form.prediction()),
            grid,
            |i| degrees.at(sde, grid, i),
            |nodes, to| {
                let (alpha, sigma, clock) = scales(name, sde, nodes[0])?;
                let (alpha_next, sigma_next, clock_next) = scales(name, sde, to)?;
                let h = clock - clock_next;
                let (carry, scale, z) = match self.form {
                    Form::Noise => (alpha_next / alpha, sigma_next, h),
                    Form::Data => (sigma_next / sigma, alpha_next, -h),
                };
                // u/log-ratio runs against the clock: earlier times lie at negative places.
                let places: Vec<f64> = nodes[1..].iter().map(|&t| (clock - sde.clock(t)) / h).collect();
                let weights = match places.len() {
                    2 => [moment(0, z), moment(1, z), 0.5 * moment(2, z)],
                    _ => [moment(0, z), 0.5 * moment(0, z), 0.0],
                };
                let terms = differences(&places, weights);
                let terms = terms.into_iter().map(|w| Op::Scalar(-scale * w)).collect();
                Ok(Update::new(nodes[0], to, Op::Scalar(carry), terms))
            },
        )
    }
}
