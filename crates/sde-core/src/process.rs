//! Linear diffusion processes `du = F_t u dt + G_t dw`, as the handful of operators that everything else is made of.
//!
//! With data at `t = 0` and noise at `t = T`: `u_t = S_t u_data + R_t ε`, where `S_t` is the signal (α for scalar
//! processes), `Σ_t` the covariance, `R_t` the factor whose noise is constant along the flow of a point mass,
//!
//! `R Rᵀ = Σ`, `Ṙ = (F + ½ G Gᵀ Σ⁻¹) R`, and `Ψ(t, s)` the transition, `∂_t Ψ(t, s) = F_t Ψ(t, s)`, `S_t = Ψ(t, s) S_s`.
//!
//! Reference: Zhang 2023 (thesis), ch. 6.2 and 7.2; Zhang, Tao, Chen 2022, arXiv 2206.05564, Eq. (17) for R.
//! Differs: the signal is its own method, because some published schedules do not start at 1 (the cosine starts at
//! α(0) = 0.99992, with Σ_0 = 1.6e-4; VE starts at Σ_0 = σ_min²).

mod blurring;
mod cholesky;
mod cld;
mod commuting;
mod cosine;
mod discrete;
mod edm;
mod ends;
mod gramian;
mod heat;
mod homogeneous;
mod langevin;
mod linear_pair;
mod linear_path;
mod prior_gap;
mod sub_vp;
mod ve;
mod vp;

pub use blurring::Blurring;
pub use cholesky::{Cholesky, change_of_factor};
pub use cld::{Cld, CldParameters};
pub use commuting::Commuting;
pub use cosine::Cosine;
pub use discrete::Discrete;
pub use edm::Edm;
pub use ends::Ends;
pub use heat::Heat;
pub use homogeneous::{Clocked, Homogeneous};
pub use langevin::Langevin;
pub use linear_pair::LinearPair;
pub use linear_path::LinearPath;
pub use prior_gap::{prior_divergence, signal_left};
pub use sub_vp::SubVp;
pub use ve::Ve;
pub use vp::Vp;

use crate::{Op, Result};

/// The times that matter: where noise ends, where sampling stops, where likelihood starts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    /// T, where sampling starts.
    pub end: f64,
    /// Where sampling stops (the "sampling ε").
    pub sampling: f64,
    /// Where the likelihood of a network starts, and the smallest time it is trained at.
    pub likelihood: f64,
}

/// One step `x_k = A x_{k−1} + √Q z` of a process as its authors discretised it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChainStep {
    /// A.
    pub factor: f64,
    /// Q.
    pub variance: f64,
    /// The variance of the published ancestral step back.
    pub ancestral: f64,
}

/// Groups of a state that are no data: the velocities of a position.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Auxiliary {
    /// How many of the groups they are: the last ones.
    pub groups: usize,
    /// At t = 0 they are `N(0, variance·I)`, independent of the data; Σ_0 contains it, so the signal starts from zeros there.
    pub variance: f64,
}

/// A linear diffusion process.
///
/// All operators are host f64; `t` runs from 0 (data) to `span().end` (noise).
pub trait LinearSde: Send + Sync {
    /// The times that matter.
    fn span(&self) -> Span;
    /// F.
    fn drift(&self, t: f64) -> Op;
    /// G Gᵀ.
    fn diffusion(&self, t: f64) -> Op;
    /// Ψ(to, from).
    fn transition(&self, to: f64, from: f64) -> Op;
    /// S, the factor of the data in `u_t = S u_data + R ε`.
    fn signal(&self, t: f64) -> Op;
    /// dS/dt.
    fn signal_rate(&self, t: f64) -> Op;
    /// Σ.
    fn covariance(&self, t: f64) -> Op;
    /// R.
    fn factor(&self, t: f64) -> Op;
    /// dR/dt.
    fn factor_rate(&self, t: f64) -> Op;
    /// The covariance of the standard prior, the law that sampling starts from.
    fn prior(&self) -> Op;
    /// The number of groups of the state: 2 for position and velocity.
    fn groups(&self) -> usize {
        1
    }
    /// Which groups of the state are no data; none, unless said otherwise.
    fn auxiliary(&self) -> Option<Auxiliary> {
        None
    }
    /// A time in which the process moves evenly, increasing in t: log ρ for scalar processes. Integrals and grids are smooth in it.
    fn clock(&self, t: f64) -> f64;
    /// The inverse of [`LinearSde::clock`].
    fn time_of_clock(&self, clock: f64) -> f64;
    /// d clock / dt.
    fn clock_rate(&self, t: f64) -> f64;
    /// Times where the operators have a kink (tables of a discrete process), increasing; quadrature splits there.
    fn knots(&self) -> &[f64] {
        &[]
    }
    /// Step `k`, from 0, of the chain of `steps` steps that was published for the process; `None` where none was.
    fn chain(&self, k: usize, steps: usize) -> Option<ChainStep> {
        let _ = (k, steps);
        None
    }
}

/// A process that treats all coordinates alike: `x_t = α_t x_data + σ_t ε`.
pub trait ScalarSde: Send + Sync {
    /// The times that matter.
    fn span(&self) -> Span;
    /// α.
    fn alpha(&self, t: f64) -> f64;
    /// σ, a standard deviation.
    fn sigma(&self, t: f64) -> f64;
    /// dα/dt.
    fn alpha_rate(&self, t: f64) -> f64;
    /// dσ/dt.
    fn sigma_rate(&self, t: f64) -> f64;
    /// ρ = σ/α, the noise-to-signal ratio; infinite where α is 0.
    fn rho(&self, t: f64) -> f64 {
        self.sigma(t) / self.alpha(t)
    }
    /// The inverse of [`ScalarSde::rho`].
    fn t_of_rho(&self, rho: f64) -> f64;
    /// The variance of the standard prior.
    fn prior_variance(&self) -> f64 {
        1.0
    }
    /// Times where α or σ has a kink.
    fn kinks(&self) -> &[f64] {
        &[]
    }
    /// Step `k` of the published chain of `steps` steps, as [`LinearSde::chain`].
    fn chain(&self, k: usize, steps: usize) -> Option<ChainStep> {
        let _ = (k, steps);
        None
    }
}

impl<P: ScalarSde + ?Sized> LinearSde for P {
    fn span(&self) -> Span {
        ScalarSde::span(self)
    }
    fn drift(&self, t: f64) -> Op {
        Op::Scalar(self.alpha_rate(t) / self.alpha(t))
    }
    fn diffusion(&self, t: f64) -> Op {
        // g² = α² d(ρ²)/dt
        let sigma = self.sigma(t);
        Op::Scalar(2.0 * sigma * (self.sigma_rate(t) - sigma * self.alpha_rate(t) / self.alpha(t)))
    }
    fn transition(&self, to: f64, from: f64) -> Op {
        Op::Scalar(self.alpha(to) / self.alpha(from))
    }
    fn signal(&self, t: f64) -> Op {
        Op::Scalar(self.alpha(t))
    }
    fn signal_rate(&self, t: f64) -> Op {
        Op::Scalar(self.alpha_rate(t))
    }
    fn covariance(&self, t: f64) -> Op {
        Op::Scalar(self.sigma(t).powi(2))
    }
    fn factor(&self, t: f64) -> Op {
        Op::Scalar(self.sigma(t))
    }
    fn factor_rate(&self, t: f64) -> Op {
        Op::Scalar(self.sigma_rate(t))
    }
    fn prior(&self) -> Op {
        Op::Scalar(self.prior_variance())
    }
    fn clock(&self, t: f64) -> f64 {
        self.rho(t).ln()
    }
    fn time_of_clock(&self, clock: f64) -> f64 {
        self.t_of_rho(clock.exp())
    }
    fn clock_rate(&self, t: f64) -> f64 {
        self.sigma_rate(t) / self.sigma(t) - self.alpha_rate(t) / self.alpha(t)
    }
    fn knots(&self) -> &[f64] {
        self.kinks()
    }
    fn chain(&self, k: usize, steps: usize) -> Option<ChainStep> {
        ScalarSde::chain(self, k, steps)
    }
}

/// The largest relative defects of the identities that define a linear process, over `times`.
///
/// Meant for tests of processes, one's own included: every field should be small (1e-6 for the derivatives, which are taken by
/// central differences; 1e-10 for the rest).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Defects {
    /// Ψ(t, s) Ψ(s, r) = Ψ(t, r), and S_t = Ψ(t, s) S_s.
    pub composition: f64,
    /// dΨ/dt = F Ψ.
    pub transition_rate: f64,
    /// Σ̇ = F Σ + Σ Fᵀ + G Gᵀ.
    pub covariance_rate: f64,
    /// R Rᵀ = Σ.
    pub factor: f64,
    /// Ṙ = (F + ½ G Gᵀ Σ⁻¹) R, both as given and by differences; and the same for Ṡ = F S.
    pub rates: f64,
    /// time_of_clock ∘ clock = id, and the clock's rate.
    pub clock: f64,
}

impl Defects {
    /// The largest of all; NaN if an operator was not a number.
    pub fn largest(&self) -> f64 {
        [self.composition, self.transition_rate, self.covariance_rate, self.factor, self.rates, self.clock]
            .into_iter()
            .fold(0.0, worse)
    }
}

/// The larger of two defects; NaN is the largest.
fn worse(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

fn gap(a: &Op, b: &Op) -> Result<f64> {
    Ok(a.sub(b)?.max_abs() / a.max_abs().max(b.max_abs()).max(1e-300))
}

fn slope(f: impl Fn(f64) -> Op, t: f64) -> Result<Op> {
    let h = 1e-4 * t;
    let central = |h: f64| f(t + h).sub(&f(t - h)).map(|d| d.scale(0.5 / h));
    // Richardson: (4 D(h/2) − D(h)) / 3 has error O(h⁴).
    central(0.5 * h)?.scale(4.0).sub(&central(h)?).map(|d| d.scale(1.0 / 3.0))
}

/// Measures how well a process satisfies its own identities at `times` (increasing, inside the span, at least two).
///
/// # Errors
/// When its operators do not fit each other, or a covariance is singular.
pub fn check_process(sde: &dyn LinearSde, times: &[f64]) -> Result<Defects> {
    let mut worst = Defects::default();
    let r = times[0];
    for pair in times.windows(2) {
        let (s, t) = (pair[0], pair[1]);
        let composed = sde.transition(t, s).mul(&sde.transition(s, r))?;
        worst.composition = worse(worst.composition, gap(&composed, &sde.transition(t, r))?);
        worst.composition =
            worse(worst.composition, gap(&sde.transition(t, s).mul(&sde.signal(s))?, &sde.signal(t))?);
        let (drift, diffusion) = (sde.drift(t), sde.diffusion(t));
        let psi_rate = slope(|t| sde.transition(t, s), t)?;
        let flow = drift.mul(&sde.transition(t, s))?;
        let scale = flow.max_abs().max(sde.transition(t, s).max_abs() / t);
        worst.transition_rate = worse(worst.transition_rate, psi_rate.sub(&flow)?.max_abs() / scale);
        let (sigma, factor) = (sde.covariance(t), sde.factor(t));
        let through_drift = drift.mul(&sigma)?;
        let lyapunov = through_drift.add(&through_drift.transpose())?.add(&diffusion)?;
        worst.covariance_rate =
            worse(worst.covariance_rate, gap(&slope(|t| sde.covariance(t), t)?, &lyapunov)?);
        worst.factor = worse(worst.factor, gap(&factor.mul(&factor.transpose())?, &sigma)?);
        let half = diffusion.mul(&sigma.inverse()?)?.scale(0.5);
        let factor_rate = drift.add(&half)?.mul(&factor)?;
        let signal_rate = drift.mul(&sde.signal(t))?;
        let pieces = [
            (sde.factor_rate(t).sub(&factor_rate)?, factor.max_abs() / t),
            (sde.factor_rate(t).sub(&slope(|t| sde.factor(t), t)?)?, factor.max_abs() / t),
            (sde.signal_rate(t).sub(&signal_rate)?, sde.signal(t).max_abs() / t),
        ];
        for (defect, scale) in pieces {
            worst.rates = worse(worst.rates, defect.max_abs() / scale);
        }
        let back = sde.time_of_clock(sde.clock(t));
        let rate = slope(|t| Op::Scalar(sde.clock(t)), t)?;
        worst.clock =
            worse(worse(worst.clock, (back / t - 1.0).abs()), gap(&rate, &Op::Scalar(sde.clock_rate(t)))?);
    }
    Ok(worst)
}
