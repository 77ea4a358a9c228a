//! A leapfrog trajectory from a fresh momentum, accepted or rejected: the one move of HMC, MALA and their unadjusted forms.
//!
//! ```text
//! p ~ N(0, M)        p ← p + ½ε∇log π        (x ← x + ε M⁻¹p,  p ← p + ε∇log π) × L, the last p by ½ε
//! accepted with probability min(1, e^{−ΔH})        H = −log π + ½ pᵀM⁻¹p
//! ```
//!
//! One leapfrog step is a Langevin step of time h = ½ε²: x + hM⁻¹∇log π + √(2hM⁻¹) ξ, and its e^{−ΔH} is that of MALA.
//!
//! Reference: Neal 2011, arXiv 1206.1901, sections 5.2–5.3, eq. 5.18–5.20; for one step: section 5.5.2.

use sde_core::noise::{Noise, Stream};

use super::law::{Law, Points};
use crate::error::in_range;
use crate::{Error, Result};

/// M, the mass of the coordinates.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Mass {
    /// The identity.
    Unit,
    /// One positive number a coordinate; the inverse of the target's variances is best.
    Diagonal(Vec<f64>),
}

impl Mass {
    pub(super) fn of(&self, k: usize) -> f64 {
        match self {
            Self::Unit => 1.0,
            Self::Diagonal(masses) => masses[k],
        }
    }

    pub(super) fn check(&self, dim: usize) -> Result<()> {
        let Self::Diagonal(masses) = self else { return Ok(()) };
        if masses.len() != dim {
            let (expected, found) = (format!("{dim} masses"), masses.len().to_string());
            return Err(sde_core::Error::Mismatch { what: "masses of a chain", expected, found }.into());
        }
        masses.iter().try_for_each(|m| in_range("a mass", *m, f64::MIN_POSITIVE, f64::MAX).map(|_| ()))
    }

    pub(super) fn kinetic(&self, p: &[f64]) -> f64 {
        0.5 * p.iter().enumerate().map(|(k, p)| p * p / self.of(k)).sum::<f64>()
    }
}

/// How chains move.
#[derive(Debug, Clone)]
pub(super) struct Move<'a> {
    /// The sampler's name, for errors.
    pub(super) name: &'static str,
    /// L.
    pub(super) steps: usize,
    /// Whether a move can be rejected.
    pub(super) adjusted: bool,
    /// Each move's ε is its chain's times 1 + jitter·U(−1, 1).
    pub(super) jitter: f64,
    /// M.
    pub(super) mass: &'a Mass,
}

/// Where the randomness of an iteration lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct At {
    pub(super) noise: Noise,
    pub(super) site: u32,
    pub(super) iteration: u32,
}

impl Move<'_> {
    /// One leapfrog trajectory of every point, momenta `p` with it.
    pub(super) fn integrate(
        &self,
        law: &Law,
        points: Points,
        p: &mut [f64],
        sizes: &[f64],
    ) -> Result<Points> {
        let dim = points.dim();
        let mut points = points;
        let kick = |points: &Points, p: &mut [f64], share: f64| {
            for (at, p) in p.iter_mut().enumerate() {
                let (i, k) = (at / dim, at % dim);
                *p += share * sizes[i] * law.slope(points, i, k);
            }
        };
        kick(&points, p, 0.5);
        for step in 1..=self.steps {
            let drift = |(at, p): (usize, &f64)| {
                let (i, k) = (at / dim, at % dim);
                points.x[at] + sizes[i] * p / self.mass.of(k)
            };
            let moved = p.iter().enumerate().map(drift).collect();
            points = Points::at(law.target, moved)?;
            kick(&points, p, if step == self.steps { 0.5 } else { 1.0 });
        }
        Ok(points)
    }

    /// Moves every chain once; returns its probability of acceptance.
    ///
    /// # Errors
    /// Those of the target; [`Error::Diverged`] where a chain that cannot reject has left the finite numbers.
    pub(super) fn apply(&self, law: &Law, points: &mut Points, sizes: &[f64], at: At) -> Result<Vec<f64>> {
        let (n, dim) = (points.len(), points.dim());
        let draws = |i: u32| at.noise.draws_at(Stream::Sampler, at.site, at.iteration, i);
        let mut draws: Vec<_> = (0..n as u32).map(draws).collect();
        let (mut p, mut own) = (Vec::with_capacity(n * dim), Vec::with_capacity(n));
        for (draws, size) in draws.iter_mut().zip(sizes) {
            p.extend((0..dim).map(|k| self.mass.of(k).sqrt() * draws.normal()));
            own.push(size * (1.0 + self.jitter * (2.0 * draws.uniform() - 1.0)));
        }
        let energy = |points: &Points, p: &[f64], i: usize| {
            law.log(points, i) - self.mass.kinetic(&p[i * dim..(i + 1) * dim])
        };
        let before: Vec<f64> = (0..n).map(|i| energy(points, &p, i)).collect();
        let ends = self.integrate(law, points.clone(), &mut p, &own)?;
        let mut acceptance = Vec::with_capacity(n);
        for (i, draws) in draws.iter_mut().enumerate() {
            let change = energy(&ends, &p, i) - before[i];
            let finite = ends.value[i].is_finite() || law.beta == 0.0;
            // From a point without density any other is a way out. What has overflowed is lost, and the warm-up must hear of it.
            let rate = match before[i] {
                _ if !finite || change.is_nan() => 0.0,
                f64::NEG_INFINITY => 1.0,
                _ => change.exp().min(1.0),
            };
            if !self.adjusted && !ends.row(i).iter().all(|v| v.is_finite()) {
                return Err(Error::Diverged { sampler: self.name, chain: i, iteration: at.iteration });
            }
            if !self.adjusted || draws.uniform() < rate {
                points.take(i, &ends, i);
            }
            acceptance.push(rate);
        }
        Ok(acceptance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcmc::Base;
    use sde_core::TargetFn;

    fn quartic() -> impl sde_core::Target {
        TargetFn::new("quartic", 2, None, |x: &[f64], score: &mut [f64]| {
            score[0] = -x[0].powi(3) - x[1];
            score[1] = -x[0] - 2.0 * x[1];
            -0.25 * x[0].powi(4) - x[0] * x[1] - x[1] * x[1]
        })
    }

    fn run(steps: usize, size: f64, x: &[f64], p: &mut [f64]) -> Result<(Points, f64)> {
        let (target, base, mass) = (quartic(), Base::isotropic(2, 1.0)?, Mass::Diagonal(vec![1.0, 2.5]));
        let law = Law::new(&target, &base)?;
        let kernel = Move { name: "test", steps, adjusted: true, jitter: 0.0, mass: &mass };
        let start = Points::at(&target, x.to_vec())?;
        let before = law.log(&start, 0) - mass.kinetic(p);
        let ends = kernel.integrate(&law, start, p, &[size])?;
        let change = law.log(&ends, 0) - mass.kinetic(p) - before;
        Ok((ends, change))
    }

    #[test]
    fn leapfrog_goes_back_the_way_it_came() -> Result<()> {
        let (x, mut p) = ([0.7, -0.4], [0.3, 1.1]);
        let (ends, _) = run(40, 0.1, &x, &mut p)?;
        p.iter_mut().for_each(|p| *p = -*p);
        let (back, _) = run(40, 0.1, &ends.x, &mut p)?;
        assert!((ends.x[0] - x[0]).abs() > 0.1);
        for (found, expected) in back.x.iter().chain(&p).zip([0.7, -0.4, -0.3, -1.1]) {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
        Ok(())
    }

    /// The energy error at a fixed time is of second order: halving ε divides it by four, up to the next order.
    #[test]
    fn the_energy_error_is_of_second_order() -> Result<()> {
        let error =
            |steps: usize| run(steps, 2.0 / steps as f64, &[0.7, -0.4], &mut [0.3, 1.1]).map(|r| r.1.abs());
        for steps in [40, 80, 160] {
            let ratio = error(steps)? / error(2 * steps)?;
            assert!((ratio - 4.0).abs() < 0.2, "{steps}: {ratio}");
        }
        Ok(())
    }

    /// The volume of phase space is kept: the Jacobian of a trajectory, by central differences, has determinant 1.
    #[test]
    fn leapfrog_keeps_volume() -> Result<()> {
        let at = [0.7, -0.4, 0.3, 1.1];
        let mut jacobian = nalgebra::Matrix4::zeros();
        for j in 0..4 {
            let moved = |shift: f64| -> Result<[f64; 4]> {
                let mut z = at;
                z[j] += shift;
                let mut p = [z[2], z[3]];
                let (ends, _) = run(15, 0.15, &z[..2], &mut p)?;
                Ok([ends.x[0], ends.x[1], p[0], p[1]])
            };
            let (up, down) = (moved(1e-5)?, moved(-1e-5)?);
            (0..4).for_each(|i| jacobian[(i, j)] = (up[i] - down[i]) / 2e-5);
        }
        assert!((jacobian.determinant() - 1.0).abs() < 1e-7, "{}", jacobian.determinant());
        Ok(())
    }
}
