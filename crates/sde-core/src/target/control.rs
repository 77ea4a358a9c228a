//! Controls: drifts that carry Brownian motion from the origin to a target.
//!
//! ```text
//! dx = g u_t(x) dt + g dw        x₀ = 0        u = 0: x_T ~ μ⁰ = N(0, g² T I)
//! u* = g ∇ log φ_t(x)            φ_t(x) = E[μ/μ⁰(x_T) | x_t = x, u = 0]
//! ```
//!
//! The best control u* is the Föllmer drift: under it x_T has the law μ, and no control that arrives there costs less. Of a mixture
//! `μ = Σ_k w_k N(m_k, v_k)` it is known: with V = g²T, s = g²(T − t), and in each axis of each component A = 1/v − 1/V, b = m/v, c = 1 + A s,
//!
//! ```text
//! log φ_k = Σ_axes {[−½ A x² + b x + ½ s b²]/c − ½ log c − ½ m²/v − ½ log(v/V)}        ∇ log φ = Σ_k r_k (b − A x)/c
//! ```
//!
//! Reference: Dai Pra 1991 (the optimal control); Zhang, Chen 2022, arXiv 2111.15141; Zhang 2023 (thesis), Eqs. (5.2)–(5.16).

use candle_core::Tensor;

use super::{LogDensity, by_rows};
use crate::error::in_range;
use crate::oracle::{Axes, Mixture};
use crate::{Error, Result};

/// A control u_t(x) of the diffusion with noise g dw.
pub trait Control {
    /// Whether it looks at ∇ log μ̂, which is then evaluated at each step.
    fn needs_score(&self) -> bool;

    /// u at the states `x` and the time `t`, of which 0 is the start. `score` is ∇ log μ̂ at `x`, given where it is needed.
    ///
    /// # Shapes
    /// `x` and `score` `[B, D]`, as is the control.
    ///
    /// # Errors
    /// When the states do not fit, or no score is given where it is needed.
    fn control(&self, x: &Tensor, t: f64, score: Option<&Tensor>) -> Result<Tensor>;
}

impl<C: Control + ?Sized> Control for &C {
    fn needs_score(&self) -> bool {
        (**self).needs_score()
    }
    fn control(&self, x: &Tensor, t: f64, score: Option<&Tensor>) -> Result<Tensor> {
        (**self).control(x, t, score)
    }
}

impl<C: Control + ?Sized> Control for Box<C> {
    fn needs_score(&self) -> bool {
        (**self).needs_score()
    }
    fn control(&self, x: &Tensor, t: f64, score: Option<&Tensor>) -> Result<Tensor> {
        (**self).control(x, t, score)
    }
}

/// One component of φ.
#[derive(Debug, Clone)]
struct Component {
    axes: Axes,
    /// Qᵀ m.
    mean: Vec<f64>,
    /// A.
    pull: Vec<f64>,
    /// log w − Σ [½ m²/v + ½ log(v/V)].
    constant: f64,
}

impl Component {
    fn of(axes: Axes, spread: f64) -> Result<Self> {
        for &value in &axes.variances {
            in_range("the variance of a component to be steered to", value, f64::MIN_POSITIVE, f64::MAX)?;
        }
        let mean = axes.rotated(&axes.mean);
        let pull = axes.variances.iter().map(|v| 1.0 / v - 1.0 / spread).collect();
        let each = mean.iter().zip(&axes.variances).map(|(m, v)| 0.5 * (m * m / v + (v / spread).ln()));
        let constant = axes.log_weight - each.sum::<f64>();
        Ok(Self { mean, pull, constant, axes })
    }

    /// log w_k φ_k, and its gradient.
    fn log_potential(&self, x: &[f64], left: f64) -> (f64, Vec<f64>) {
        let (mut log, rotated) = (self.constant, self.axes.rotated(x));
        let mut gradient = vec![0.0; x.len()];
        for (j, x) in rotated.iter().enumerate() {
            let (a, b) = (self.pull[j], self.mean[j] / self.axes.variances[j]);
            let c = 1.0 + a * left;
            log += (-0.5 * a * x * x + b * x + 0.5 * left * b * b) / c - 0.5 * c.ln();
            gradient[j] = (b - a * x) / c;
        }
        (log, self.axes.back(&gradient))
    }
}

/// u*, the Föllmer drift of a mixture.
#[derive(Debug, Clone)]
pub struct FollmerDrift {
    components: Vec<Component>,
    noise: f64,
    horizon: f64,
}

impl FollmerDrift {
    /// The drift to `mixture` under the noise g in the time T.
    ///
    /// # Errors
    /// When a covariance is singular (nothing arrives there at a finite cost), or g or T is not positive.
    pub fn new(mixture: &Mixture, noise: f64, horizon: f64) -> Result<Self> {
        in_range("the noise of a controlled diffusion", noise, f64::MIN_POSITIVE, f64::MAX)?;
        in_range("the horizon of a controlled diffusion", horizon, f64::MIN_POSITIVE, f64::MAX)?;
        let spread = noise * noise * horizon;
        let components = mixture.axes().map(|axes| Component::of(axes, spread)).collect::<Result<_>>()?;
        Ok(Self { components, noise, horizon })
    }

    /// log φ_t and ∇ log φ_t.
    ///
    /// # Shapes
    /// `x` `[B, D]`, f64.
    ///
    /// # Errors
    /// When `x` does not fit, or `t` is not a time from 0 to T.
    pub fn log_potential(&self, x: &Tensor, t: f64) -> Result<LogDensity> {
        let left = self.noise * self.noise * (self.horizon - in_range("time", t, 0.0, self.horizon)?);
        by_rows(x, self.components[0].mean.len(), |x, score| {
            let each: Vec<_> = self.components.iter().map(|c| c.log_potential(x, left)).collect();
            let top = each.iter().map(|(log, _)| *log).fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = each.iter().map(|(log, _)| (log - top).exp()).sum();
            score.fill(0.0);
            for (log, gradient) in &each {
                let share = (log - top).exp() / total;
                score.iter_mut().zip(gradient).for_each(|(s, g)| *s += share * g);
            }
            top + total.ln()
        })
    }
}

impl Control for FollmerDrift {
    fn needs_score(&self) -> bool {
        false
    }

    fn control(&self, x: &Tensor, t: f64, _score: Option<&Tensor>) -> Result<Tensor> {
        Ok((self.log_potential(x, t)?.score * self.noise)?)
    }
}

/// A closure of state, time and score as a control.
pub struct ControlFn<F> {
    needs_score: bool,
    control: F,
}

impl<F: Fn(&Tensor, f64, Option<&Tensor>) -> Result<Tensor>> ControlFn<F> {
    /// A control that does not look at the target.
    pub fn blind(control: F) -> Self {
        Self { needs_score: false, control }
    }

    /// A control that is given ∇ log μ̂.
    pub fn guided(control: F) -> Self {
        Self { needs_score: true, control }
    }
}

impl<F: Fn(&Tensor, f64, Option<&Tensor>) -> Result<Tensor>> Control for ControlFn<F> {
    fn needs_score(&self) -> bool {
        self.needs_score
    }

    fn control(&self, x: &Tensor, t: f64, score: Option<&Tensor>) -> Result<Tensor> {
        if self.needs_score && score.is_none() {
            return Err(Error::Mismatch {
                what: "control",
                expected: "the score of the target".into(),
                found: "none".into(),
            });
        }
        (self.control)(x, t, score)
    }
}
