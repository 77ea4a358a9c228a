//! Any explicit Runge–Kutta method on the probability flow, in one of three charts of it:
//!
//! in ρ on y = S⁻¹ u, `dy/dρ = (dt/dρ) S⁻¹ ½ G Gᵀ R⁻ᵀ ε`, for a scalar process `dy/dρ = ε` (ρRK); in log ρ, the same times ρ; in t, `du/dt = v`. Where a process
//! is not scalar, ρ is the exponential of its clock.
//!
//! The point of a stage is that of the one before it plus differences of coefficients, so a step is as many rows as stages: with g the
//! factor of the prediction p in the chart's slope and c the chart's factor of the state (y = c⁻¹ u),
//! `u_{i+1} = c_{i+1} c_i⁻¹ u_i + c_{i+1} h Σ_{j≤i} (a_{i+1,j} − a_ij) g_j p_j`, where the last a is b.
//!
//! Reference: Zhang, Chen 2022, arXiv 2204.13902, section 4 (ρRK); Karras et al. 2022, arXiv 2206.00364, Algorithm 1, which is Heun in ρ
//! with an Euler step at the end.
//! Differs: a step that ends without noise is DDIM's (for a scalar process Euler's in ρ) for every method, because the slope does not exist there.

use sde_core::{LinearSde, Op, Prediction, TimeGrid};

use super::{Ddim, Multistep, Table, Update, alpha_sigma, checked, is_scalar};
use crate::Result;
use crate::tableau::Tableau;

/// The independent variable of a Runge–Kutta step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axis {
    /// t, on the state.
    Time,
    /// ρ, on S⁻¹ u.
    Rho,
    /// log ρ, on S⁻¹ u.
    LogRho,
}

/// A Runge–Kutta method on the probability flow.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RungeKutta {
    /// The method.
    pub tableau: Tableau,
    /// Its independent variable.
    pub axis: Axis,
    /// Whether the last step is Euler's, which evaluates nothing at the end of the grid.
    pub last_euler: bool,
}

/// A point of the flow, seen in a chart.
struct Point {
    t: f64,
    /// The chart's factor of the state.
    scale: Op,
    /// The factor of the prediction in the slope.
    slope: Op,
}

impl RungeKutta {
    /// The heun sampler of EDM: Heun in ρ, Euler at the end.
    pub const EDM: Self = Self { tableau: Tableau::HEUN2, axis: Axis::Rho, last_euler: true };

    /// The prediction that its rows multiply.
    pub(super) fn of(&self) -> Prediction {
        if self.axis == Axis::Time { Prediction::Velocity } else { Prediction::Noise }
    }

    /// The rows of a step between two times, in either direction.
    pub(super) fn rows(&self, sde: &dyn LinearSde, from: f64, to: f64, step: usize) -> Result<Vec<Update>> {
        let (tableau, stages) = (&self.tableau, self.tableau.stages());
        let (start, stop) = (self.variable(sde, from)?, self.variable(sde, to)?);
        let h = stop - start;
        // The ends are met exactly, not by way of the chart's inverse.
        let points = (0..=stages).map(|i| {
            let c = if i == stages { 1.0 } else { tableau.node(i) };
            let t = match c {
                0.0 => from,
                1.0 => to,
                _ => self.time(sde, start + c * h),
            };
            self.point(sde, t)
        });
        let points = points.collect::<Result<Vec<_>>>()?;
        let row = |i: usize| {
            let (here, next) = (&points[i], &points[i + 1]);
            let term = |j: usize| -> Result<Op> {
                let change = tableau.weight(i + 1, j) - tableau.weight(i, j);
                Ok(next.scale.mul(&points[j].slope)?.scale(h * change))
            };
            let terms = (0..=i).rev().map(term).collect::<Result<_>>()?;
            let carry = if self.axis == Axis::Time { Op::IDENTITY } else { sde.transition(next.t, here.t) };
            checked(self.name(), Update::new(here.t, next.t, carry, terms).of_step(step))
        };
        (0..stages).map(row).collect()
    }

    /// The rows of the last step: those of any step, or Euler's.
    pub(super) fn last_rows(
        &self,
        sde: &dyn LinearSde,
        from: f64,
        to: f64,
        step: usize,
    ) -> Result<Vec<Update>> {
        if !self.last_euler && sde.factor(to).max_abs() != 0.0 {
            return self.rows(sde, from, to, step);
        }
        if self.axis != Axis::Time && !is_scalar(sde, from) {
            let mut table = Ddim::DETERMINISTIC.table(sde, &TimeGrid::new(vec![from, to])?)?;
            table.updates.iter_mut().for_each(|update| update.step = step);
            return Ok(table.updates);
        }
        let axis = if self.axis == Axis::Time { Axis::Time } else { Axis::Rho };
        Self { tableau: Tableau::EULER, axis, last_euler: true }.rows(sde, from, to, step)
    }

    fn variable(&self, sde: &dyn LinearSde, t: f64) -> Result<f64> {
        if self.axis == Axis::Time {
            return Ok(t);
        }
        let clock = sde.clock(t);
        if self.axis == Axis::LogRho {
            return Ok(clock);
        }
        if !is_scalar(sde, t) {
            return Ok(clock.exp());
        }
        let (alpha, sigma) = alpha_sigma(self.name(), sde, t)?;
        Ok(sigma / alpha)
    }

    fn time(&self, sde: &dyn LinearSde, variable: f64) -> f64 {
        match self.axis {
            Axis::Time => variable,
            Axis::Rho => sde.time_of_clock(variable.ln()),
            Axis::LogRho => sde.time_of_clock(variable),
        }
    }

    fn point(&self, sde: &dyn LinearSde, t: f64) -> Result<Point> {
        if self.axis == Axis::Time {
            return Ok(Point { t, scale: Op::IDENTITY, slope: Op::IDENTITY });
        }
        let scale = sde.signal(t);
        // In log ρ.
        let slope = match (scale.as_scalar(), sde.factor(t).as_scalar()) {
            (Some(alpha), Some(sigma)) if self.axis == Axis::LogRho => Op::Scalar(sigma / alpha),
            (Some(_), Some(_)) => return Ok(Point { t, scale, slope: Op::IDENTITY }),
            _ => {
                let half = sde.diffusion(t).mul(&sde.factor(t).inverse()?.transpose())?.scale(0.5);
                scale.inverse()?.mul(&half)?.scale(1.0 / sde.clock_rate(t))
            }
        };
        let slope = if self.axis == Axis::Rho { slope.scale((-sde.clock(t)).exp()) } else { slope };
        Ok(Point { t, scale, slope })
    }
}

impl Multistep for RungeKutta {
    fn name(&self) -> &'static str {
        self.tableau.names[self.axis as usize]
    }

    fn table(&self, sde: &dyn LinearSde, grid: &TimeGrid) -> Result<Table> {
        if self.axis != Axis::Time {
            sde_core::grid::require_signal(sde, grid.start(), "a runge–kutta method in rho")?;
        }
        let mut updates = Vec::new();
        for (step, pair) in grid.times().windows(2).enumerate() {
            let rows = if step + 1 == grid.steps() { Self::last_rows } else { Self::rows };
            updates.extend(rows(self, sde, pair[0], pair[1], step)?);
        }
        Ok(Table { of: self.of(), updates })
    }
}
