//! Analytic-DPM: DDIM's family with the variance of the reverse step that is optimal for an isotropic one, for scalar processes.
//!
//! `x' = (α'/α) x − c ε + √(s² + c² κ) z`, `c = (α'/α) σ − √(σ'² − s²)`, s = η σ' √(1 − ρ'²/ρ²) as in DDIM, and κ the mean over states and coordinates of the
//! variance that ε has left given the state; `κ σ²/α²` is the same of x₀. Exact for isotropic Gaussian data with any steps and any η.
//!
//! κ is known from a pass over data ([`calibrate`](crate::calibration::calibrate)), at the times of the grid or of a finer one: coefficients are those of the
//! step taken. It lies between 0 and 1, and for data in a range of half-width b below b² α²/σ².
//!
//! Reference: Bao, Li, Zhu, Zhang 2022, arXiv 2201.06503, Theorems 1 and 2; the authors' code for the clipping.

use sde_core::{LinearSde, Op, Prediction, TimeGrid};

use super::{Ddim, Form, Multistep, Table, Update, alpha_sigma, checked};
use crate::Result;
use crate::error::in_range;

/// κ at some times.
#[derive(Debug, Clone, PartialEq)]
pub struct ResidualVariance {
    /// The times.
    pub times: Vec<f64>,
    /// κ at each.
    pub kappa: Vec<f64>,
}

/// What the variance is kept within.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Clipping {
    /// Half the width of the data's range, which bounds the deviation of x₀ given the state: 1 for data in [−1, 1].
    pub half_range: Option<f64>,
    /// Whether the last step draws noise, too. The theory says so; images look better without.
    pub last_noise: bool,
    /// The largest deviation injected by the last of the steps that draw noise, and how many they are. [`Clipping::pixels`] has the published one.
    pub cap: Option<(usize, f64)>,
}

impl Clipping {
    /// No clipping beyond 0 ≤ κ ≤ 1: the theorem's sampler.
    pub const NONE: Self = Self { half_range: None, last_noise: true, cap: None };

    /// As published for images in [−1, 1] of 256 levels: no noise on the last step, and on the one before it a mean absolute value of at most
    /// `levels` (1 or 2).
    pub fn pixels(levels: f64) -> Self {
        let deviation = levels * (2.0 / 255.0) * std::f64::consts::FRAC_PI_2.sqrt();
        Self { half_range: Some(1.0), last_noise: false, cap: Some((1, deviation)) }
    }

    /// κ within its bounds; an estimate may lie outside, but not nowhere.
    pub(super) fn kappa(&self, kappa: f64, alpha: f64, sigma: f64) -> Result<f64> {
        let kappa = in_range("residual variance", kappa, f64::MIN, f64::MAX)?;
        Ok(kappa.clamp(0.0, self.largest_kappa(alpha, sigma)))
    }

    /// The upper bound of κ.
    pub(crate) fn largest_kappa(&self, alpha: f64, sigma: f64) -> f64 {
        self.half_range.map_or(1.0, |b| (b * alpha / sigma).powi(2).min(1.0))
    }

    /// Refuses bounds that are not numbers.
    pub(crate) fn check(&self) -> Result<()> {
        in_range("half the range of the data", self.half_range.unwrap_or(1.0), 0.0, f64::MAX)?;
        in_range("cap of the injected deviation", self.cap.map_or(0.0, |cap| cap.1), 0.0, f64::MAX)?;
        Ok(())
    }

    /// The largest deviation at step `i` of `n`, 0 if it draws none.
    pub(crate) fn largest(&self, i: usize, n: usize) -> f64 {
        if i + 1 == n && !self.last_noise {
            return 0.0;
        }
        let noisy = if self.last_noise { n } else { n - 1 };
        match self.cap {
            Some((steps, deviation)) if i + steps >= noisy => deviation,
            _ => f64::INFINITY,
        }
    }
}

/// DDIM with the optimal variance.
#[derive(Debug, Clone, PartialEq)]
pub struct AnalyticDpm {
    /// η of DDIM: 0 or 1 in the paper.
    pub eta: f64,
    /// κ, at every time that a step starts from.
    pub residual: ResidualVariance,
    /// What the variance is kept within.
    pub clipping: Clipping,
}

/// The place of `t` among `times`.
pub(super) fn place(times: &[f64], t: f64) -> Result<usize> {
    let same = |s: f64| (s - t).abs() <= 1e-9 * t.abs();
    times.iter().position(|&s| same(s)).ok_or_else(|| {
        sde_core::Error::Mismatch {
            what: "times at which the residual variance is known",
            expected: format!("t = {t} among them, where a step starts"),
            found: format!("{} other times; calibrate at the times of the grid", times.len()),
        }
        .into()
    })
}

/// The deterministic part of a step, its s² and its c².
pub(crate) fn step(
    name: &'static str,
    (eta, sde): (f64, &dyn LinearSde),
    from: f64,
    to: f64,
) -> Result<(Update, f64, f64)> {
    let (alpha, sigma) = alpha_sigma(name, sde, from)?;
    let (alpha_next, _) = alpha_sigma(name, sde, to)?;
    let (_, kept, spread) = Ddim { eta, form: Form::Noise }.parts(sde, from, to)?;
    let psi = alpha_next / alpha;
    let (kept, spread) = (kept.max_abs(), spread.max_abs());
    let term = kept - psi * sigma;
    let update = checked(name, Update::new(from, to, Op::Scalar(psi), vec![Op::Scalar(term)]))?;
    Ok((update, spread * spread, term * term))
}

impl Multistep for AnalyticDpm {
    fn name(&self) -> &'static str {
        "analytic-dpm"
    }

    fn table(&self, sde: &dyn LinearSde, grid: &TimeGrid) -> Result<Table> {
        in_range("eta", self.eta, 0.0, 1.0)?;
        let known = self.residual.times.len() as f64;
        in_range(
            "residual variances, one for each of their times,",
            self.residual.kappa.len() as f64,
            known,
            known,
        )?;
        self.clipping.check()?;
        sde_core::grid::require_signal(sde, grid.start(), "analytic-dpm")?;
        let (name, times, steps) = (self.name(), grid.times(), grid.steps());
        let update = |i: usize| {
            let (alpha, sigma) = alpha_sigma(name, sde, times[i])?;
            let known = self.residual.kappa[place(&self.residual.times, times[i])?];
            let kappa = self.clipping.kappa(known, alpha, sigma)?;
            let (update, spread, square) = step(name, (self.eta, sde), times[i], times[i + 1])?;
            let deviation = (spread + square * kappa).sqrt().min(self.clipping.largest(i, steps));
            checked(name, update.with_noise(Op::Scalar(deviation)).of_step(i))
        };
        Ok(Table { of: Prediction::Noise, updates: (0..steps).map(update).collect::<Result<_>>()? })
    }
}
