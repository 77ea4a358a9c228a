//! The variational bound of the reverse SDE of a model, a lower bound of its log density at each point.
//!
//! With s the model's score, π the prior and `X_t` the forward process from `X_{t₀} = x`,
//!
//! `log p(x) ≥ E log π(X_T) − ∫_{t₀}^T E[½ sᵀ G Gᵀ s + ∇·(G Gᵀ s) − tr F] dt`,
//!
//! an equality for every x when the score is exact and π the law at T. The divergence is integrated by parts,
//! `E ∇·(G Gᵀ s) = E (G Gᵀ s)·L⁻ᵀ z` for `X_t = Ψ x + L z`, and evaluated at z and −z: where L is small that is the
//! difference quotient of a Hutchinson probe, so nothing diverges at t₀ and no derivative is taken. t is stratified and
//! uniform in the clock, log ρ, which is the density `∝ g²/σ²`. For scalar processes `‖z‖² − D`, whose mean is 0, is
//! added with the factor that would leave no variance if the data were `N(0, v I)`, v the mean square of x.
//!
//! Reference: Song, Durkan, Murray, Ermon 2021, arXiv 2101.09258, Theorem 3; Huang, Lim, Courville 2021, arXiv
//! 2106.02808, Eq. (20).
//! Differs: from t₀ on, like the likelihood by the flow, of which this is the counterpart; the last term of Theorem 3
//! stands for the part below t₀.

use candle_core::{DType, Device, Tensor};
use sde_core::noise::{BatchNoise, Draws, Stream, host_tensor};
use sde_core::{Converted, Field, LinearSde, Op, Prediction};

use crate::bound::bound;
use crate::{Error, LogDensity, PointDensity, Prior, Result};

/// The bound, its ends and its draws.
#[derive(Clone, Copy)]
pub struct Elbo<'a> {
    /// The process.
    pub sde: &'a dyn LinearSde,
    /// A prediction of it.
    pub field: &'a dyn Field,
    /// The law at the end.
    pub prior: Prior<'a>,
    /// t₀, the time whose density is bounded.
    pub start: f64,
    /// T, the time at which the prior is taken.
    pub end: f64,
    /// Times drawn for each point, two evaluations each.
    pub draws: usize,
}

/// The forward process from x at t₀ to a time t.
struct Conditional {
    transition: Op,
    /// L, a factor of the covariance.
    factor: Op,
    /// L⁻ᵀ.
    inverse: Op,
}

impl Conditional {
    fn new(sde: &dyn LinearSde, start: f64, t: f64) -> sde_core::Result<Self> {
        let transition = sde.transition(t, start);
        let carried = transition.mul(&sde.covariance(start))?.mul(&transition.transpose())?;
        let factor = sde.covariance(t).sub(&carried)?.cholesky()?;
        let inverse = factor.inverse()?.transpose();
        Ok(Self { transition, factor, inverse })
    }

    /// The states at z and at −z.
    fn pair(&self, x: &[f64], z: &[f64]) -> sde_core::Result<[Vec<f64>; 2]> {
        let (centre, step) = (self.transition.apply_host(x)?, self.factor.apply_host(z)?);
        let at = |sign: f64| centre.iter().zip(&step).map(|(c, s)| c + sign * s).collect();
        Ok([at(1.0), at(-1.0)])
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

impl<'a> Elbo<'a> {
    /// From the process's likelihood t₀ to its end, with the standard prior.
    pub fn new(sde: &'a dyn LinearSde, field: &'a dyn Field, draws: usize) -> Self {
        let span = sde.span();
        Self { sde, field, prior: Prior::Standard, start: span.likelihood, end: span.end, draws }
    }

    fn check(&self) -> Result<()> {
        if self.draws == 0 {
            return Err(Error::mismatch("draws of a bound", "at least 1", 0));
        }
        let clocks = [self.start, self.end].map(|t| self.sde.clock(t));
        if self.start < self.end && clocks.iter().all(|clock| clock.is_finite()) {
            return Ok(());
        }
        let expected = "start < end, with signal and noise left at both (give other times)";
        let found = format!("start {}, end {}", self.start, self.end);
        Err(Error::mismatch("times of a bound", expected, found))
    }

    /// The integrand at one draw for each point, over the density of its time.
    fn draw(&self, points: &[&[f64]], noise: &BatchNoise, j: usize, dims: &[usize]) -> Result<Vec<f64>> {
        let first = self.sde.clock(self.start);
        let length = self.sde.clock(self.end) - first;
        let streams = |site: usize| noise.draws(Stream::Metric, (2 * j + site) as u32).into_iter();
        let drawn = |(x, (mut place, mut normals)): (&&[f64], (Draws, Draws))| {
            let clock = first + length * (j as f64 + place.uniform()) / self.draws as f64;
            let t = self.sde.time_of_clock(clock).clamp(self.start, self.end);
            let z: Vec<f64> = x.iter().map(|_| normals.normal()).collect();
            Ok((z, t, Conditional::new(self.sde, self.start, t)?))
        };
        let drawn = points.iter().zip(streams(0).zip(streams(1))).map(drawn).collect::<Result<Vec<_>>>()?;
        let (mut times, mut states) = (Vec::new(), Vec::new());
        for (x, (z, t, there)) in points.iter().zip(&drawn) {
            states.extend(there.pair(x, z)?.concat());
            times.extend([*t, *t]);
        }
        let dims: Vec<usize> = std::iter::once(times.len()).chain(dims.iter().copied()).collect();
        let states = host_tensor(states, &dims, DType::F64, &Device::Cpu)?;
        let score = Converted::new(self.field, self.sde, Prediction::Score).eval(&states, &times)?;
        let scores = score.flatten_from(1)?.to_vec2::<f64>()?;
        let mut values = Vec::with_capacity(points.len());
        for ((pair, x), (z, t, there)) in scores.chunks(2).zip(points).zip(&drawn) {
            let integrand = self.integrand(x, z, *t, there, pair)?;
            values.push(integrand * length / self.sde.clock_rate(*t) + self.prior_at(x, z)?);
        }
        Ok(values)
    }

    /// `½ sᵀ G Gᵀ s + ∇·(G Gᵀ s)` from the scores at z and at −z.
    fn integrand(
        &self,
        x: &[f64],
        z: &[f64],
        t: f64,
        there: &Conditional,
        scores: &[Vec<f64>],
    ) -> sde_core::Result<f64> {
        let (diffusion, along) = (self.sde.diffusion(t), there.inverse.apply_host(z)?);
        let mut total = control(&diffusion, there, x, z);
        for (score, sign) in scores.iter().zip([1.0, -1.0]) {
            let drift = diffusion.apply_host(score)?;
            total += 0.5 * (0.5 * dot(score, &drift) + sign * dot(&drift, &along));
        }
        Ok(total)
    }

    /// The negative log density of an exact prior at two draws of the state at T; the standard prior's mean is known.
    fn prior_at(&self, x: &[f64], z: &[f64]) -> sde_core::Result<f64> {
        if matches!(self.prior, Prior::Standard) {
            return Ok(0.0);
        }
        let pair = Conditional::new(self.sde, self.start, self.end)?.pair(x, z)?;
        let densities = self.prior.log_density(self.sde, self.end, pair.iter().map(Vec::as_slice))?;
        Ok(-0.5 * (densities[0] + densities[1]))
    }

    /// What needs no draw: the mean of the standard prior's log density, and ∫ tr F.
    fn known(&self, x: &[f64]) -> sde_core::Result<f64> {
        let there = Conditional::new(self.sde, self.start, self.end)?;
        let volume = there.transition.log_abs_det(x.len());
        if !matches!(self.prior, Prior::Standard) {
            return Ok(volume);
        }
        let centre = [there.transition.apply_host(x)?];
        let density = self.prior.log_density(self.sde, self.end, centre.iter().map(Vec::as_slice))?[0];
        let spread = self.sde.prior().inverse()?.mul(&there.factor.mul(&there.factor.transpose())?)?;
        let trace = spread.trace(x.len());
        Ok(density - 0.5 * trace + volume)
    }
}

/// `‖z‖² − D` times what cancels it for data `N(0, v I)`.
fn control(diffusion: &Op, there: &Conditional, x: &[f64], z: &[f64]) -> f64 {
    let (Some(g), Some(psi), Some(l)) =
        (diffusion.as_scalar(), there.transition.as_scalar(), there.factor.as_scalar())
    else {
        return 0.0;
    };
    let part = l * l / (psi * psi * dot(x, x) / x.len() as f64 + l * l);
    g / (l * l) * part * (1.0 - 0.5 * part) * (dot(z, z) - z.len() as f64)
}

impl PointDensity for Elbo<'_> {
    /// The bound of each point, a mean over stratified draws.
    fn log_density(&self, x: &Tensor, noise: &BatchNoise) -> Result<Vec<LogDensity>> {
        self.check()?;
        let known = |x: &[f64]| Ok(self.known(x)?);
        bound(x, noise, self.draws, known, |points, j| self.draw(points, noise, j, &x.dims()[1..]))
    }

    fn is_exact(&self) -> bool {
        false
    }
}
