//! tAB-DEIS: the exponential integrator with a polynomial of degree r in t through the last r + 1 predicted ε, for any linear process.
//!
//! `u' = Ψ u + Σ_j C_j ε_j`, and integrating by parts, without an inverse or a singular integrand,
//!
//! `C_j = ℓ_j(t') R' − ℓ_j(t) Ψ(t',t) R − ∫_t^{t'} ℓ̇_j(τ) Ψ(t',τ) R_τ dτ`,
//!
//! the integral by Gauss–Legendre in the process's clock (log ρ), where the integrand is analytic. For a scalar process this is `α' ∫ ℓ_j(t(ρ)) dρ`; degree 0 is DDIM,
//! exactly. The first steps use the degree their history allows.
//!
//! Reference: Zhang, Chen 2022, arXiv 2204.13902, Eq. (15) and Algorithm 1; Zhang, Tao, Chen 2022, arXiv 2206.05564, Eq. (19).
//! Differs: the authors' code integrates in t by a left Riemann sum of 10 000 nodes, right to about 1e-4; this is right to 1e-12.

use sde_core::quadrature::{GaussLegendre, lagrange, lagrange_rate};
use sde_core::{LinearSde, Op, Prediction, TimeGrid};

use super::{Multistep, Table, Update, checked};
use crate::error::in_range;
use crate::{Error, Result};

/// Nodes of one quadrature panel, and the longest panel, in units of the clock: the integrand's nearest singularity lies π/2 off the
/// real axis, so a panel of length 1 converges like 6⁻²ⁿ.
const NODES: usize = 20;
const PANEL: f64 = 1.0;

/// tAB-DEIS of a polynomial degree: r = 0 … 3 in the paper; order of convergence r + 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tab {
    /// r, the degree of the polynomial.
    pub degree: usize,
}

impl Tab {
    /// The coefficients C_j of a step from `nodes[0]` to `to`, with the polynomial through all `nodes` (newest first).
    ///
    /// # Errors
    /// When a coefficient is not finite, or the clock is not, at an end of the step.
    pub fn coefficients(sde: &dyn LinearSde, nodes: &[f64], to: f64) -> Result<Vec<Op>> {
        let from = nodes[0];
        let psi = sde.transition(to, from);
        let (start, end) = (psi.mul(&sde.factor(from))?, sde.factor(to));
        let samples = if nodes.len() > 1 { weighted_factors(sde, from, to)? } else { Vec::new() };
        (0..nodes.len())
            .map(|j| {
                let mut c = end.scale(lagrange(nodes, j, to)).sub(&start.scale(lagrange(nodes, j, from)))?;
                for (tau, factor) in &samples {
                    c = c.sub(&factor.scale(lagrange_rate(nodes, j, *tau)))?;
                }
                Ok(c)
            })
            .collect()
    }
}

/// The quadrature of `∫_from^to f(τ) Ψ(to,τ) R_τ dτ`: times τ, and `w Ψ R / rate` at each.
fn weighted_factors(sde: &dyn LinearSde, from: f64, to: f64) -> Result<Vec<(f64, Op)>> {
    let clocks = [sde.clock(from), sde.clock(to)];
    if !clocks.iter().all(|c| c.is_finite()) {
        return Err(Error::Coefficient {
            sampler: "tab",
            from,
            to,
            hint: "the noise vanishes at the end of the step; end the grid above it, or take degree 0",
        });
    }
    let mut ends = vec![clocks[0]];
    ends.extend(sde.knots().iter().rev().filter(|k| to < **k && **k < from).map(|&k| sde.clock(k)));
    ends.push(clocks[1]);
    let rule = GaussLegendre::new(NODES);
    let mut samples = Vec::new();
    for pair in ends.windows(2) {
        let panels = ((pair[0] - pair[1]).abs() / PANEL).ceil().max(1.0) as usize;
        let edge = |i: usize| pair[0] + (pair[1] - pair[0]) * i as f64 / panels as f64;
        for i in 0..panels {
            for (clock, weight) in rule.on(edge(i), edge(i + 1)) {
                let tau = sde.time_of_clock(clock);
                let value = sde.transition(to, tau).mul(&sde.factor(tau))?;
                samples.push((tau, value.scale(weight / sde.clock_rate(tau))));
            }
        }
    }
    Ok(samples)
}

impl Multistep for Tab {
    fn name(&self) -> &'static str {
        ["tab0", "tab1", "tab2", "tab3"].get(self.degree).copied().unwrap_or("tab")
    }

    fn table(&self, sde: &dyn LinearSde, grid: &TimeGrid) -> Result<Table> {
        in_range("degree", self.degree as f64, 0.0, 3.0)?;
        sde_core::grid::require_signal(sde, grid.start(), "tab")?;
        let times = grid.times();
        let update = |i: usize| {
            let oldest = i.saturating_sub(self.degree);
            let nodes: Vec<f64> = times[oldest..=i].iter().rev().copied().collect();
            let (from, to) = (times[i], times[i + 1]);
            let terms = Self::coefficients(sde, &nodes, to)?;
            let update = Update::new(from, to, sde.transition(to, from), terms).of_step(i);
            checked(self.name(), update)
        };
        let updates = (0..grid.steps()).map(update).collect::<Result<_>>()?;
        Ok(Table { of: Prediction::Noise, updates })
    }
}
