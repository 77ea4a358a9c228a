//! The density of data under a model of states with velocities, as a bound by the joint density of both:
//!
//! `log p(x) ≥ E_{v₀}[log p(x, v₀) − log q(v₀)] = E_{v₀} log p(x, v₀) + H(q)`, `q = N(0, γM I)`, the law that velocities start from,
//!
//! and, above it and below `log p(x)` still, `E log (1/K) Σ_k p(x, v_k)/q(v_k)`, which rises with K towards it. What the first lacks is
//! `E KL(q ‖ p(v | x))`, almost nothing for a model that is right at t₀, where velocities know little of positions.
//!
//! Reference: Dockhorn, Vahdat, Kreis 2022, arXiv 2112.07068, section 3.3 and appendix E; Burda, Grosse, Salakhutdinov 2016, arXiv
//! 1509.00519, Theorem 1.
//! Differs: −log q is taken at the draws instead of its mean, the entropy: the two errors cancel where the model is right.

use candle_core::{DType, Tensor};
use sde_core::noise::{BatchNoise, Law, Stream};
use sde_core::{LinearSde, state_shape};
use sde_solvers::Outcome;

use crate::estimate::{mean, variance};
use crate::likelihood::checked_points;
use crate::{Error, LogDensity, PointDensity, Result};

/// How the draws of an example become one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Average {
    /// The mean of log densities.
    Logs,
    /// The log of the mean density: importance-weighted.
    Densities,
}

/// A bound of the density of data by the density of states.
pub struct Augmented<'a, D> {
    sde: &'a dyn LinearSde,
    joint: D,
    deviation: f64,
    draws: usize,
    average: Average,
}

impl<'a, D: PointDensity> Augmented<'a, D> {
    /// The bound by `draws` velocities for each example; `joint` tells the density of states of `sde`.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for no draws, a process without auxiliary groups, or one in which they start from a point, so that no law
    /// has a density there; and for densities to be averaged that are estimates themselves.
    pub fn new(sde: &'a dyn LinearSde, joint: D, draws: usize, average: Average) -> Result<Self> {
        if draws == 0 {
            return Err(Error::mismatch("velocities of an example", "at least 1", 0));
        }
        let what = "likelihood of a process with velocities";
        let deviation = match sde.auxiliary() {
            Some(auxiliary) if auxiliary.variance > 0.0 => auxiliary.variance.sqrt(),
            Some(auxiliary) => {
                let expected = "velocities that start with a variance (γ > 0, or a jitter)";
                return Err(Error::mismatch(what, expected, auxiliary.variance));
            }
            None => return Err(Error::mismatch(what, "velocities", "a process of data alone")),
        };
        if average == Average::Densities && draws > 1 && !joint.is_exact() {
            let found = "estimates, whose exponentials are too large on average";
            return Err(Error::mismatch(
                "importance-weighted velocities",
                "a density by exact divergence (or the mean of logs)",
                found,
            ));
        }
        Ok(Self { sde, joint, deviation, draws, average })
    }

    /// `log p(x, v_k) − log q(v_k)` of each example, as the joint density came out.
    fn draw(&self, x: &Tensor, noise: &BatchNoise) -> Result<Vec<LogDensity>> {
        let mut shape = state_shape(self.sde, &x.dims()[1..])?;
        shape[0] -= x.dim(1)?;
        let z = noise.tensor(Law::Normal, Stream::Auxiliary, 0, &shape, DType::F64, x.device())?;
        let state = Tensor::cat(&[x, &(&z * self.deviation)?], 1)?;
        let squares = z.flatten_from(1)?.sqr()?.sum(1)?.to_vec1::<f64>()?;
        let volume =
            shape.iter().product::<usize>() as f64 * (0.5 * std::f64::consts::TAU.ln() + self.deviation.ln());
        let joint = self.joint.log_density(&state, noise)?;
        let without = |(found, square): (LogDensity, f64)| LogDensity {
            value: found.value.map(|value| value + 0.5 * square + volume),
            ..found
        };
        Ok(joint.into_iter().zip(squares).map(without).collect())
    }

    /// The draws of one example as one number.
    fn together(&self, draws: &[LogDensity]) -> LogDensity {
        let outcome = draws.iter().map(|d| d.outcome).find(|o| *o != Outcome::Finished);
        let nfe = draws.iter().map(|d| d.nfe).sum();
        let values: Vec<f64> = draws.iter().filter_map(|d| d.value).collect();
        if let [only] = draws {
            return *only;
        }
        if values.len() < draws.len() {
            return LogDensity {
                value: None,
                standard_error: None,
                nfe,
                outcome: outcome.unwrap_or(Outcome::NonFinite),
            };
        }
        let count = values.len() as f64;
        let error = |of: &[f64]| variance(of).map(|v| (v / count).sqrt());
        let (value, standard_error) = match self.average {
            Average::Logs => (mean(&values), error(&values)),
            Average::Densities => {
                let top = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let relative: Vec<f64> = values.iter().map(|v| (v - top).exp()).collect();
                let centre = mean(&relative);
                (top + centre.ln(), error(&relative).map(|e| e / centre))
            }
        };
        LogDensity { standard_error, ..LogDensity::new(value, nfe, outcome.unwrap_or(Outcome::Finished)) }
    }
}

impl<D: PointDensity> PointDensity for Augmented<'_, D> {
    /// The bound of each row of `x`, data without velocities; draw k of step n has the address (step n K + k).
    fn log_density(&self, x: &Tensor, noise: &BatchNoise) -> Result<Vec<LogDensity>> {
        checked_points(x, noise)?;
        let x = x.to_dtype(DType::F64)?;
        let addresses = || {
            let draws = u32::try_from(self.draws).ok()?;
            let first = noise.step.checked_mul(draws)?;
            Some(first..first.checked_add(draws)?)
        };
        let Some(steps) = addresses() else {
            return Err(Error::mismatch("velocities of all repeats", "less than 2³²", self.draws));
        };
        let of_step = |step: u32| self.draw(&x, &BatchNoise { step, ..noise.clone() });
        let found = steps.map(of_step).collect::<Result<Vec<_>>>()?;
        let of_example = |i: usize| self.together(&found.iter().map(|draw| draw[i]).collect::<Vec<_>>());
        Ok((0..x.dim(0)?).map(of_example).collect())
    }

    fn is_exact(&self) -> bool {
        false
    }

    fn is_of_levels(&self) -> bool {
        self.joint.is_of_levels()
    }
}
