//! Time grids of samplers: strictly decreasing times from noise to data.
//!
//! - uniform and power-κ in t: `t_i = [T^{1/κ} + (i/N)(t₀^{1/κ} − T^{1/κ})]^κ` (κ = 2 is the quadratic grid of DEIS);
//! - Karras: the same power law in ρ, κ = 7; log-ρ: uniform in log ρ;
//! - drawn power-κ: the inner times uniform, in the same warped variable, in N − 1 cells of one size;
//! - discrete: given indices.
//!
//! Reference: Zhang, Chen 2022, arXiv 2204.13902, section 4 (power-t, power-ρ, log-ρ); Karras et al. 2022, arXiv 2206.00364,
//! Eq. (5); Zhang, Chen 2021, arXiv 2110.07579, section 3 (drawn, κ = 1/0.9). Differs: where a process is not scalar, ρ is the exponential of its clock.

use crate::error::{Error, Result, in_range};
use crate::noise::Draws;
use crate::{LinearSde, Op};

/// Strictly decreasing times `t_0 > t_1 > … > t_N ≥ 0`: N steps.
#[derive(Debug, Clone, PartialEq)]
pub struct TimeGrid(Vec<f64>);

impl TimeGrid {
    /// Checks and takes given times.
    ///
    /// # Errors
    /// Unless there are two times at least, all finite and not negative, strictly decreasing.
    pub fn new(times: Vec<f64>) -> Result<Self> {
        in_range("number of times in a grid", times.len() as f64, 2.0, f64::MAX)?;
        for &t in &times {
            in_range("time", t, 0.0, f64::MAX)?;
        }
        for (index, pair) in times.windows(2).enumerate() {
            if pair[1] >= pair[0] {
                return Err(Error::Grid { index: index + 1, before: pair[0], after: pair[1] });
            }
        }
        Ok(Self(times))
    }

    fn through(
        from: f64,
        to: f64,
        steps: usize,
        chart: impl Fn(f64) -> f64,
        inverse: impl Fn(f64) -> f64,
    ) -> Result<Self> {
        in_range("number of steps", steps as f64, 1.0, f64::from(u32::MAX))?;
        let (start, stop) = (chart(from), chart(to));
        for end in [start, stop] {
            if !end.is_finite() {
                return Err(Error::NonFinite {
                    what: format!(
                        "an end of the grid from t = {from} to t = {to}, in the grid's own variable,"
                    ),
                    found: end,
                });
            }
        }
        let inner = (1..steps).map(|i| inverse(start + i as f64 / steps as f64 * (stop - start)));
        Self::new(std::iter::once(from).chain(inner).chain(std::iter::once(to)).collect())
    }

    /// Uniform in t.
    ///
    /// # Errors
    /// As [`TimeGrid::new`]; so for the other constructors.
    pub fn uniform(from: f64, to: f64, steps: usize) -> Result<Self> {
        Self::through(from, to, steps, |t| t, |t| t)
    }

    /// Uniform in `t^{1/κ}`.
    pub fn power(from: f64, to: f64, steps: usize, kappa: f64) -> Result<Self> {
        in_range("kappa", kappa, 1e-3, 1e3)?;
        Self::through(from, to, steps, |t| t.powf(1.0 / kappa), |s| s.powf(kappa))
    }

    /// The grid of [`TimeGrid::power`] with random inner times: `t_i^{1/κ}` is uniform in the i-th of N − 1 cells of one size.
    pub fn power_drawn(from: f64, to: f64, steps: usize, kappa: f64, draws: &mut Draws) -> Result<Self> {
        in_range("kappa", kappa, 1e-3, 1e3)?;
        let (start, stop) = (from.powf(1.0 / kappa), to.powf(1.0 / kappa));
        let cells = steps.saturating_sub(1).max(1) as f64;
        let inner =
            (1..steps).map(|i| (start + (i as f64 - draws.uniform()) / cells * (stop - start)).powf(kappa));
        Self::new(std::iter::once(from).chain(inner).chain(std::iter::once(to)).collect())
    }

    /// Uniform in `ρ^{1/κ}`; the published κ is 7.
    pub fn karras(sde: &dyn LinearSde, from: f64, to: f64, steps: usize, kappa: f64) -> Result<Self> {
        in_range("kappa", kappa, 1e-3, 1e3)?;
        let chart = |t: f64| (sde.clock(t) / kappa).exp();
        Self::through(from, to, steps, chart, |s| sde.time_of_clock(kappa * s.ln()))
    }

    /// Uniform in log ρ.
    pub fn log_rho(sde: &dyn LinearSde, from: f64, to: f64, steps: usize) -> Result<Self> {
        Self::through(from, to, steps, |t| sde.clock(t), |u| sde.time_of_clock(u))
    }

    /// K indices spread evenly over `1 … n`, `round(1 + i (n − 1)/(K − 1))`, then 0: the sub-sequences of DDIM.
    pub fn discrete(n: usize, steps: usize) -> Result<Self> {
        in_range("number of steps", steps as f64, 1.0, n as f64)?;
        let spread = |i: usize| 1.0 + (i * (n - 1)) as f64 / (steps - 1) as f64;
        let mut times: Vec<f64> = match steps {
            1 => vec![n as f64],
            _ => (0..steps).rev().map(|i| spread(i).round()).collect(),
        };
        times.push(0.0);
        Self::new(times)
    }

    /// The times, decreasing.
    pub fn times(&self) -> &[f64] {
        &self.0
    }

    /// N.
    pub fn steps(&self) -> usize {
        self.0.len() - 1
    }

    /// The first time, T.
    pub fn start(&self) -> f64 {
        self.0[0]
    }

    /// The last time, t₀.
    pub fn stop(&self) -> f64 {
        self.0[self.steps()]
    }
}

/// Refuses a process and a time at which the signal vanishes, for methods whose coefficients divide by it.
pub fn require_signal(sde: &dyn LinearSde, t: f64, what: &'static str) -> Result<()> {
    let psi: Op = sde.signal(t);
    match psi.inverse() {
        Ok(inverse) if inverse.is_finite() => Ok(()),
        _ => Err(Error::Undefined {
            what,
            t,
            hint: "the signal is zero there; start the grid a little below, or use the data form",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Edm, Vp};

    fn close(a: &[f64], b: &[f64], tolerance: f64) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= tolerance)
    }

    #[test]
    fn published_grids() -> Result<()> {
        // DEIS, quadratic, 10 steps, ε = 1e-3.
        let expected =
            [1.0, 0.8157, 0.65016, 0.50337, 0.37534, 0.26606, 0.17554, 0.10377, 0.05076, 0.0165, 0.001];
        assert!(close(TimeGrid::power(1.0, 1e-3, 10, 2.0)?.times(), &expected, 5e-5));
        // EDM, 18 values of σ.
        let edm = TimeGrid::karras(&Edm::STANDARD, 80.0, 0.002, 17, 7.0)?;
        assert!(close(&edm.times()[..3], &[80.0, 57.586, 40.786], 1e-3), "{edm:?}");
        assert!(close(&edm.times()[16..], &[0.0075, 0.002], 1e-4), "{edm:?}");
        Ok(())
    }

    #[test]
    fn drawn_times_lie_in_their_cells() -> Result<()> {
        let (kappa, n) = (1.0 / 0.9, 7);
        let warp = |t: f64| t.powf(0.9);
        let mut draws = crate::noise::Noise::new(3).draws(crate::noise::Stream::Time, 0, 0);
        for _ in 0..50 {
            let grid = TimeGrid::power_drawn(0.9, 0.01, n, kappa, &mut draws)?;
            assert_eq!((grid.start(), grid.stop(), grid.steps()), (0.9, 0.01, n));
            for (i, &t) in grid.times().iter().enumerate().take(n).skip(1) {
                let place = (warp(t) - warp(0.9)) / (warp(0.01) - warp(0.9)) * (n - 1) as f64;
                assert!((i as f64 - 1.0..=i as f64).contains(&place), "{i}: {place}");
            }
        }
        assert_eq!(TimeGrid::power_drawn(1.0, 0.1, 1, kappa, &mut draws)?.times(), [1.0, 0.1]);
        // Steps grow towards the prior, as published: with N = 6 from 0 to 0.9 the first is 0.123, the last 0.165.
        let grid = TimeGrid::power(0.9, 0.0, 6, kappa)?;
        assert!(close(&grid.times()[5..], &[0.1229, 0.0], 1e-4), "{grid:?}");
        assert!((0.9 - grid.times()[1] - 0.165).abs() < 1e-3, "{grid:?}");
        Ok(())
    }

    #[test]
    fn log_rho_is_even_in_its_clock() -> Result<()> {
        let grid = TimeGrid::log_rho(&Vp::STANDARD, 1.0, 1e-3, 7)?;
        let clocks: Vec<f64> = grid.times().iter().map(|&t| LinearSde::clock(&Vp::STANDARD, t)).collect();
        let gaps: Vec<f64> = clocks.windows(2).map(|w| w[0] - w[1]).collect();
        assert!(gaps.iter().all(|g| (g / gaps[0] - 1.0).abs() < 1e-10), "{gaps:?}");
        Ok(())
    }

    #[test]
    fn discrete_sub_sequences_end_at_the_data() -> Result<()> {
        let grid = TimeGrid::discrete(1000, 10)?;
        assert_eq!(grid.times(), [1000., 889., 778., 667., 556., 445., 334., 223., 112., 1., 0.]);
        assert_eq!(TimeGrid::discrete(1000, 1)?.times(), [1000.0, 0.0]);
        assert_eq!(TimeGrid::discrete(4, 4)?.times(), [4., 3., 2., 1., 0.]);
        Ok(())
    }

    #[test]
    fn bad_grids_say_what_is_wrong() {
        let text = TimeGrid::new(vec![1.0, 0.4, 0.41]).map_err(|e| e.to_string());
        assert_eq!(text, Err("time grid must decrease strictly: t[2] = 0.41 after t[1] = 0.4".into()));
        assert!(TimeGrid::new(vec![1.0]).is_err());
        assert!(TimeGrid::new(vec![1.0, f64::NAN]).is_err());
        assert!(TimeGrid::uniform(1.0, 0.0, 0).is_err());
        assert!(TimeGrid::log_rho(&Vp::STANDARD, 1.0, 0.0, 5).is_err());
        assert!(TimeGrid::discrete(10, 11).is_err());
    }
}
