//! What the λ-family keeps of ε over a step, `X = R'⁻¹ Ψ̂ R`, Ψ̂ the transition of `F + ½ (1 + λ²) G Gᵀ Σ⁻¹`, and what it draws afresh, `(I − X Xᵀ)^{1/2}`.
//!
//! Because R absorbs F and the half of `G Gᵀ Σ⁻¹`, X is a contraction that begins at I,
//!
//! `Ẋ = ½ λ² (R⁻¹ G Gᵀ R⁻ᵀ) X`, run from t down to t',
//!
//! with `X = I` at λ = 0, `(R⁻¹ Ψ(t,t') R')ᵀ` at λ = 1, and `(ρ'/ρ)^{λ²}` for a scalar process. Otherwise it is integrated in the clock by Gauss collocation, in
//! panels so short that the stages are found by Picard's iteration; `X − I` is what is carried, so that `I − X Xᵀ` does not cancel for short steps.
//!
//! Reference: Zhang, Tao, Chen 2022, arXiv 2206.05564, Eq. (22)–(23), for Ψ̂ and the equation of the covariance.
//! Differs: X in place of Ψ̂, and the covariance by its closed form `Σ' − Ψ̂ Σ Ψ̂ᵀ` instead of a second integration.

use sde_core::quadrature::Collocation;
use sde_core::{LinearSde, Op};

use super::exponential::ends_in_clock;
use crate::{Error, Result};

/// Stages of the collocation, of order 2 NODES; the longest panel in the clock; the most that a panel may contract.
const NODES: usize = 10;
const PANEL: f64 = 0.5;
const LARGEST: f64 = 0.5;
/// Picard's iteration gains a factor of about LARGEST/k in round k.
const ROUNDS: usize = 40;

/// A step of the λ-family, seen from ε.
pub(super) struct Contraction {
    /// X.
    pub(super) kept: Op,
    /// `(I − X Xᵀ)^{1/2}`.
    pub(super) fresh: Op,
}

impl Contraction {
    /// That of a step that ends with noise.
    pub(super) fn new(sde: &dyn LinearSde, lambda: f64, (from, to): (f64, f64)) -> Result<Self> {
        if lambda == 0.0 {
            return Ok(Self { kept: Op::IDENTITY, fresh: Op::ZERO });
        }
        let scalars = [sde.transition(to, from), sde.factor(from), sde.factor(to)].map(|op| op.as_scalar());
        if let [Some(psi), Some(sigma), Some(sigma_next)] = scalars {
            // ρ'/ρ without overflow where α is small.
            let (ratio, power) = (sigma_next / sigma / psi, lambda * lambda);
            let fresh = (-(2.0 * power * ratio.ln()).exp_m1()).max(0.0).sqrt();
            return Ok(Self { kept: Op::Scalar(ratio.powf(power)), fresh: Op::Scalar(fresh) });
        }
        if lambda == 1.0 {
            let back = sde.factor(from).inverse()?.mul(&sde.transition(from, to))?.mul(&sde.factor(to))?;
            // Of a very short step too much of the difference is rounding; the integral has no difference.
            if let Ok(found) = Self::of_change(&back.transpose().sub(&Op::IDENTITY)?) {
                return Ok(found);
            }
        }
        let integral = Integral { sde, half: 0.5 * lambda * lambda, scheme: Collocation::new(NODES) };
        Self::of_change(&integral.change(from, to)?)
    }

    /// `I − X Xᵀ` with `X = I + D`.
    fn of_change(change: &Op) -> Result<Self> {
        let lost = change.add(&change.transpose())?.add(&change.mul(&change.transpose())?)?;
        Ok(Self { kept: Op::IDENTITY.add(change)?, fresh: lost.scale(-1.0).sqrt()? })
    }
}

/// `X − I` of `dX/dc = A X`, c the clock.
struct Integral<'a> {
    sde: &'a dyn LinearSde,
    /// ½ λ².
    half: f64,
    scheme: Collocation,
}

impl Integral<'_> {
    fn change(&self, from: f64, to: f64) -> Result<Op> {
        let mut change = Op::ZERO;
        for pair in ends_in_clock(self.sde, (from, to), true)?.windows(2) {
            let panels = ((pair[0] - pair[1]).abs() / PANEL).ceil().max(1.0) as usize;
            let edge = |i: usize| pair[0] + (pair[1] - pair[0]) * i as f64 / panels as f64;
            for i in 0..panels {
                change = after(&self.panel((edge(i), edge(i + 1)))?, &change)?;
            }
        }
        Ok(change)
    }

    /// A at a clock.
    fn rate(&self, clock: f64) -> Result<Op> {
        let t = self.sde.time_of_clock(clock);
        let inverse = self.sde.factor(t).inverse()?;
        let rate = inverse.mul(&self.sde.diffusion(t))?.mul(&inverse.transpose())?;
        let rate = rate.scale(self.half / self.sde.clock_rate(t));
        if rate.is_finite() {
            return Ok(rate);
        }
        let hint = "the noise vanishes inside the step; end the grid above it, or take lambda 0 or 1";
        Err(Error::Coefficient { sampler: "stochastic-ddim", from: t, to: t, hint })
    }

    /// `X − I` over a panel, halved until it contracts little.
    fn panel(&self, (from, to): (f64, f64)) -> Result<Op> {
        let h = to - from;
        let rates = self.scheme.nodes.iter().map(|(c, _)| Ok(self.rate(from + c * h)?.scale(h)));
        let rates = rates.collect::<Result<Vec<Op>>>()?;
        let size: f64 = rates.iter().zip(&self.scheme.nodes).map(|(a, node)| node.1 * a.max_abs()).sum();
        if size > LARGEST {
            let middle = from + 0.5 * h;
            let first = self.panel((from, middle))?;
            return Ok(after(&self.panel((middle, to))?, &first)?);
        }
        // The slopes A X at the nodes.
        let (mut slopes, mut moved) = (rates.clone(), f64::INFINITY);
        for _ in 0..ROUNDS {
            if moved <= f64::EPSILON * size {
                break;
            }
            let stage = |(rate, row): (&Op, &Vec<f64>)| rate.add(&rate.mul(&weighted(&slopes, row)?)?);
            let next = rates.iter().zip(&self.scheme.stages).map(|pair| Ok(stage(pair)?));
            let next = next.collect::<Result<Vec<Op>>>()?;
            let gaps = next.iter().zip(&slopes).map(|(a, b)| Ok(a.sub(b)?.max_abs()));
            moved = gaps.collect::<Result<Vec<f64>>>()?.into_iter().fold(0.0, f64::max);
            slopes = next;
        }
        let weights: Vec<f64> = self.scheme.nodes.iter().map(|node| node.1).collect();
        Ok(weighted(&slopes, &weights)?)
    }
}

/// `Σ_j w_j A_j`.
fn weighted(ops: &[Op], weights: &[f64]) -> sde_core::Result<Op> {
    ops.iter().zip(weights).try_fold(Op::ZERO, |sum, (op, w)| sum.add(&op.scale(*w)))
}

/// `X₂ X₁ − I` from `X − I` of both.
fn after(second: &Op, first: &Op) -> sde_core::Result<Op> {
    second.add(first)?.add(&second.mul(first)?)
}
