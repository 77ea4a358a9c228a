//! Derivatives by differences at five points, with those at three points beside them: what the two differ by bounds the error of the
//! former, rounding included.

use sde_core::LinearSde;

use crate::{Error, Result};

/// Distances of differences, in units of what the score changes over.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Steps {
    /// Between states: in units of the noise, R.
    pub state: f64,
    /// Between times: of the process's clock (log ρ).
    pub clock: f64,
}

impl Steps {
    /// For fields evaluated in f64: truncation and rounding about 1e-10 of the derivative.
    pub const DOUBLE: Self = Self { state: 1e-3, clock: 3e-3 };
    /// For networks in f32: truncation 1e-6, rounding 1e-5 of the derivative.
    pub const SINGLE: Self = Self { state: 0.03, clock: 0.03 };
}

/// Nodes and weights of a derivative.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Stencil {
    /// Where the function is taken.
    pub nodes: Vec<f64>,
    /// Weights of the nodes in the derivative of order four.
    pub fine: Vec<f64>,
    /// Those in the derivative of order two, from the three nodes next to the centre.
    pub coarse: Vec<f64>,
}

impl Stencil {
    /// Symmetric around 0, without the centre, whose weight is 0.
    pub fn central(step: f64) -> Self {
        let nodes = [-2.0, -1.0, 1.0, 2.0].map(|k| k * step).to_vec();
        let [outer, inner, half] = [1.0 / (12.0 * step), 8.0 / (12.0 * step), 0.5 / step];
        Self { nodes, fine: vec![outer, -inner, inner, -outer], coarse: vec![0.0, -half, half, 0.0] }
    }

    /// In the clock of a process around `t`, moved inside `[from, to]` where it would look beyond; nodes are times, and the derivative is
    /// that in t.
    pub fn in_clock(sde: &dyn LinearSde, t: f64, step: f64, (from, to): (f64, f64)) -> Result<Self> {
        if !(from <= t && t <= to && step > 0.0) {
            let found = format!("{t}, with a step of {step}");
            return Err(Error::mismatch("time of a residual", format!("{from} to {to}"), found));
        }
        let (centre, low, high) = (sde.clock(t), sde.clock(from), sde.clock(to));
        let rate = sde.clock_rate(t);
        if !(centre.is_finite() && rate.is_finite()) {
            let expected = "a time with signal and noise: stay inside the process's span";
            return Err(Error::mismatch("time of a residual", expected, t));
        }
        let step = step.min((high - low) / 4.0);
        let shift = (low - (centre - 2.0 * step)).max(0.0) + (high - (centre + 2.0 * step)).min(0.0);
        let clocks: Vec<f64> =
            (-2..=2).map(|k| (centre + shift + f64::from(k) * step).clamp(low, high)).collect();
        // The three around the centre, wherever it came to lie.
        let first = (0..3).min_by(|&i, &j| {
            let far = |i: usize| (clocks[i + 1] - centre).abs();
            far(i).total_cmp(&far(j))
        });
        let first = first.unwrap_or(1);
        let mut coarse = vec![0.0; clocks.len()];
        coarse[first..first + 3].copy_from_slice(&derivative(&clocks[first..first + 3], centre));
        let scaled = |weights: Vec<f64>| weights.into_iter().map(|w| w * rate).collect();
        Ok(Self {
            fine: scaled(derivative(&clocks, centre)),
            coarse: scaled(coarse),
            nodes: clocks.iter().map(|&c| sde.time_of_clock(c).clamp(from, to)).collect(),
        })
    }
}

/// The derivatives at `at` of the Lagrange basis on `nodes`.
fn derivative(nodes: &[f64], at: f64) -> Vec<f64> {
    let others = |j: usize| (0..nodes.len()).filter(move |&l| l != j);
    let weight = |j: usize| {
        let without = |m: usize| {
            others(j).filter(|&l| l != m).map(|l| (at - nodes[l]) / (nodes[j] - nodes[l])).product::<f64>()
        };
        others(j).map(|m| without(m) / (nodes[j] - nodes[m])).sum()
    };
    (0..nodes.len()).map(weight).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sde_core::process::{Ve, Vp};

    fn apply(stencil: &Stencil, weights: &[f64], f: impl Fn(f64) -> f64) -> f64 {
        stencil.nodes.iter().zip(weights).map(|(&x, w)| w * f(x)).sum()
    }

    #[test]
    fn differences_are_exact_for_polynomials_of_their_order() {
        let stencil = Stencil::central(0.1);
        for (power, slope) in [(0, 0.0), (1, 1.0), (2, 0.0), (3, 0.0), (4, 0.0)] {
            assert!((apply(&stencil, &stencil.fine, |x| x.powi(power)) - slope).abs() < 1e-13, "{power}");
        }
        // On x³ the three-point difference errs by h².
        assert!((apply(&stencil, &stencil.coarse, |x| x.powi(3)) - 0.01).abs() < 1e-13);
        let nodes = [0.3, 0.5, 0.6, 1.1, 1.4];
        for power in 0..5 {
            let found: f64 = derivative(&nodes, 0.7).iter().zip(nodes).map(|(w, x)| w * x.powi(power)).sum();
            let exact = f64::from(power) * 0.7f64.powi(power - 1);
            assert!((found - exact).abs() < 1e-12, "{power}: {found}");
        }
    }

    #[test]
    fn times_stay_inside_and_derivatives_right_at_the_ends() -> Result<()> {
        let (vp, ve) = (Vp::STANDARD, Ve::STANDARD);
        for (sde, t) in [(&vp as &dyn LinearSde, 1e-5), (&vp, 0.3), (&vp, 1.0), (&ve, 1e-5), (&ve, 1.0)] {
            let stencil = Stencil::in_clock(sde, t, 0.01, (1e-5, 1.0))?;
            assert!(stencil.nodes.iter().all(|t| (1e-5..=1.0).contains(t)), "{:?}", stencil.nodes);
            // A function of the clock, and so smooth in it: error h⁴ f⁗ and h² f‴.
            let f = |t: f64| sde.clock(t).sin();
            let exact = sde.clock_rate(t) * sde.clock(t).cos();
            let fine = apply(&stencil, &stencil.fine, f) - exact;
            let coarse = apply(&stencil, &stencil.coarse, f) - exact;
            assert!(fine.abs() < 1e-7 * sde.clock_rate(t), "{t}: {fine}");
            assert!(coarse.abs() < 4e-4 * sde.clock_rate(t), "{t}: {coarse}");
        }
        assert!(Stencil::in_clock(&vp, 0.0, 0.01, (1e-5, 1.0)).is_err());
        Ok(())
    }
}
