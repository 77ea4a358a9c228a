//! The exponential integrator with a polynomial through past predictions, for ε or for x₀, in any variable, for any linear process.
//!
//! With p the prediction, interpolated by `Σ_j ℓ_j p_j` in a variable of time, `u' = A u + Σ_j C_j p_j` solves the probability flow. For ε,
//! `A = Ψ(t',t)` and `T_τ = Ψ(t',τ) R_τ`; for x₀, `A = R' R⁻¹` and `T_τ = R' R_τ⁻¹ S_τ`. In both, integrating by parts, without a singular integrand,
//!
//! `C_j = ∫_t^{t'} ℓ_j dT = ℓ_j(t') T_{t'} − ℓ_j(t) T_t − ∫_t^{t'} ℓ̇_j T_τ`,
//!
//! the integral by Gauss–Legendre in the process's clock (log ρ), where the integrand is analytic, or in ρ where the polynomial is one in
//! ρ: for a scalar process the integrand is then a polynomial, too. Degree 0 is DDIM, exactly.
//!
//! Reference: Zhang, Chen 2022, arXiv 2204.13902, Eq. (15), Proposition 3; Zhang, Tao, Chen 2022, arXiv 2206.05564, Eq. (19); Lu et al. 2022,
//! arXiv 2211.01095, Proposition 4.1, for x₀.

use sde_core::quadrature::{GaussLegendre, lagrange, lagrange_rate};
use sde_core::{LinearSde, Op, Prediction, TimeGrid};

use super::{Form, Table, Update, checked, is_scalar};
use crate::{Error, Result};

/// Nodes of one quadrature panel, and the longest panel, in units of the clock: the integrand's nearest singularity lies π/2 off the
/// real axis, so a panel of length 1 converges like 6⁻²ⁿ.
const NODES: usize = 20;
const PANEL: f64 = 1.0;

/// The variable that the polynomial is one in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Variable {
    /// t.
    Time,
    /// ρ, the exponential of the clock.
    Rho,
    /// The clock, log ρ.
    Clock,
}

impl Variable {
    fn of(self, sde: &dyn LinearSde, t: f64) -> f64 {
        match self {
            Self::Time => t,
            Self::Rho => sde.clock(t).exp(),
            Self::Clock => sde.clock(t),
        }
    }
}

impl Form {
    pub(super) fn prediction(self) -> Prediction {
        match self {
            Self::Noise => Prediction::Noise,
            Self::Data => Prediction::Data,
        }
    }

    /// A: what a step does to the state.
    pub(super) fn carry(self, sde: &dyn LinearSde, from: f64, to: f64) -> Result<Op> {
        Ok(match self {
            Self::Noise => sde.transition(to, from),
            Self::Data => sde.factor(to).mul(&sde.factor(from).inverse()?)?,
        })
    }

    /// T_τ.
    fn transported(self, sde: &dyn LinearSde, tau: f64, to: f64) -> Result<Op> {
        let moving = match self {
            Self::Noise => sde.factor(tau),
            Self::Data => sde.signal(tau),
        };
        Ok(self.carry(sde, tau, to)?.mul(&moving)?)
    }
}

/// C_j of a step between two times, with the polynomial through all `nodes`, which need not be among them.
pub(super) fn coefficients(
    sde: &dyn LinearSde,
    (form, variable): (Form, Variable),
    nodes: &[f64],
    (from, to): (f64, f64),
) -> Result<Vec<Op>> {
    let start = form.transported(sde, from, to)?;
    let end = match form {
        Form::Noise => sde.factor(to),
        Form::Data => sde.signal(to),
    };
    let places: Vec<f64> = nodes.iter().map(|&t| variable.of(sde, t)).collect();
    let samples = match (nodes.len(), variable) {
        (1, _) => Vec::new(),
        (_, Variable::Rho) => in_rho(sde, form, from, to)?,
        _ => in_clock(sde, (form, variable), from, to)?,
    };
    let (first, last) = (variable.of(sde, from), variable.of(sde, to));
    (0..nodes.len())
        .map(|j| {
            // ℓ is 1 for one node, and the variable may be infinite at the end of a step that ends without noise.
            let at = |place: f64| if nodes.len() == 1 { 1.0 } else { lagrange(&places, j, place) };
            let mut c = end.scale(at(last)).sub(&start.scale(at(first)))?;
            for (place, value) in &samples {
                c = c.sub(&value.scale(lagrange_rate(&places, j, *place)))?;
            }
            Ok(c)
        })
        .collect()
}

/// Quadrature in the clock: places in the variable, and T there times the weight and the variable's rate.
fn in_clock(
    sde: &dyn LinearSde,
    (form, variable): (Form, Variable),
    from: f64,
    to: f64,
) -> Result<Vec<(f64, Op)>> {
    // In the clock itself a scalar process has no kinks.
    let smooth = variable == Variable::Clock && is_scalar(sde, from);
    let sample = |node: Node| {
        let value = form.transported(sde, node.t, to)?;
        Ok(match variable {
            Variable::Time => (node.t, value.scale(node.weight / sde.clock_rate(node.t))),
            _ => (node.clock, value.scale(node.weight)),
        })
    };
    nodes_in_clock(sde, (from, to), !smooth)?.into_iter().map(sample).collect()
}

/// A node of a quadrature in the clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node {
    pub(super) clock: f64,
    pub(super) t: f64,
    /// In units of the clock.
    pub(super) weight: f64,
}

/// The nodes between two times, in panels that are short enough for a smooth process, and cut at its knots if it has any.
pub(super) fn nodes_in_clock(
    sde: &dyn LinearSde,
    (from, to): (f64, f64),
    has_knots: bool,
) -> Result<Vec<Node>> {
    let ends = ends_in_clock(sde, (from, to), has_knots)?;
    let rule = GaussLegendre::new(NODES);
    let mut nodes = Vec::new();
    for pair in ends.windows(2) {
        let panels = ((pair[0] - pair[1]).abs() / PANEL).ceil().max(1.0) as usize;
        let edge = |i: usize| pair[0] + (pair[1] - pair[0]) * i as f64 / panels as f64;
        for i in 0..panels {
            let panel = rule.on(edge(i), edge(i + 1));
            nodes.extend(panel.map(|(clock, weight)| Node { clock, t: sde.time_of_clock(clock), weight }));
        }
    }
    Ok(nodes)
}

/// The clock at both ends of a step and at the knots between them.
pub(super) fn ends_in_clock(
    sde: &dyn LinearSde,
    (from, to): (f64, f64),
    has_knots: bool,
) -> Result<Vec<f64>> {
    let clocks = [sde.clock(from), sde.clock(to)];
    if !clocks.iter().all(|c| c.is_finite()) {
        return Err(Error::Coefficient {
            sampler: "an integral in the clock",
            from,
            to,
            hint: "the clock (log ρ) is not finite there; end the grid above it, or take ddim, or ddpm for noise, which need no integral",
        });
    }
    let mut ends = vec![clocks[0]];
    if has_knots {
        ends.extend(sde.knots().iter().rev().filter(|k| to < **k && **k < from).map(|&k| sde.clock(k)));
    }
    ends.push(clocks[1]);
    Ok(ends)
}

/// Quadrature in ρ, which may end at 0.
fn in_rho(sde: &dyn LinearSde, form: Form, from: f64, to: f64) -> Result<Vec<(f64, Op)>> {
    let rule = GaussLegendre::new(NODES);
    let mut ends = vec![from];
    // For a scalar process the integrand is a polynomial in ρ, kinks in t or not.
    if !is_scalar(sde, from) {
        ends.extend(sde.knots().iter().rev().filter(|k| to < **k && **k < from));
    }
    ends.push(to);
    let mut samples = Vec::new();
    for pair in ends.windows(2) {
        for (rho, weight) in rule.on(sde.clock(pair[0]).exp(), sde.clock(pair[1]).exp()) {
            let value = form.transported(sde, sde.time_of_clock(rho.ln()), to)?;
            samples.push((rho, value.scale(weight)));
        }
    }
    Ok(samples)
}

/// How many past predictions beside the newest one a step may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Degrees {
    /// In the middle of the grid.
    pub(super) degree: usize,
    /// Whether the last steps use fewer: none the last one, one the last but one, ….
    pub(super) lower_final: bool,
}

impl Degrees {
    /// That of step `i`, and 0 for a step that ends without noise.
    pub(super) fn at(self, sde: &dyn LinearSde, grid: &TimeGrid, i: usize) -> usize {
        if sde.factor(grid.times()[i + 1]).max_abs() == 0.0 {
            return 0;
        }
        let left = if self.lower_final { grid.steps() - 1 - i } else { usize::MAX };
        self.degree.min(i).min(left)
    }
}

/// A table of one evaluation a step: `row` makes it from the times of the predictions that the step may use (newest first) and its end.
pub(super) fn multistep(
    (name, of): (&'static str, Prediction),
    grid: &TimeGrid,
    degree: impl Fn(usize) -> usize,
    row: impl Fn(&[f64], f64) -> Result<Update>,
) -> Result<Table> {
    let times = grid.times();
    let update = |i: usize| {
        let nodes: Vec<f64> = times[i - degree(i)..=i].iter().rev().copied().collect();
        checked(name, row(&nodes, times[i + 1])?.of_step(i))
    };
    Ok(Table { of, updates: (0..grid.steps()).map(update).collect::<Result<_>>()? })
}

/// `z k! φ_{k+1}(z) = z ∫₀¹ e^{(1−s)z} s^k ds`, with `φ₁ = (e^z − 1)/z`: what z u^k contributes to an exponential step of length z.
pub(super) fn moment(k: usize, z: f64) -> f64 {
    if k == 0 {
        return z.exp_m1();
    }
    if z.abs() > PANEL {
        // z φ_{k+1} k! = k (z φ_k (k−1)!)/z − 1, which loses digits where z is small.
        return k as f64 * moment(k - 1, z) / z - 1.0;
    }
    z * GaussLegendre::new(NODES).integrate(0.0, 1.0, |s| ((1.0 - s) * z).exp() * s.powi(k as i32))
}
