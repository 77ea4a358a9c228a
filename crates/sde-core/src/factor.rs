//! The flow-constant factor R of a process with small matrices, `Ṙ = (F + ½ G Gᵀ Σ⁻¹) R`, `R Rᵀ = Σ`: as `R = L Q` with L the Cholesky
//! factor of Σ, which is known, and Q orthogonal, which is the only thing left to integrate.
//!
//! With `X = L⁻¹ F L + ½ L⁻¹ G Gᵀ L⁻ᵀ`, differentiating `R = L Q` and `L Lᵀ = Σ` gives `Q̇ = Ω Q`, `Ω = U − Uᵀ`, U the part of X strictly
//! above its diagonal: no derivative of L, no Σ⁻¹. Q is integrated in `√t`, in which it is smooth from t = 0 on wherever the noise
//! starts like t or like a constant, on panels that are halved until they agree with their halves; a value is one part of a
//! panel away from the nearest edge. The rule is Gauss–Legendre collocation of order 16, which keeps `Qᵀ Q = I` to rounding; two groups turn in a plane,
//! so their angle is a plain integral.
//!
//! Reference: Zhang, Tao, Chen 2022, arXiv 2206.05564, Eq. (17); Hairer, Lubich, Wanner 2006, *Geometric Numerical Integration*, II.1.3
//! and IV.2 for collocation.
//! Differs: the reference integrates R itself by many small explicit steps from t = 0 and interpolates, so `R Rᵀ = Σ` holds to 1e-5.

use nalgebra::DMatrix;

use crate::quadrature::Collocation;
use crate::{Error, Result};

/// Nodes of a panel.
const NODES: usize = 8;
/// A panel is short enough when it agrees with its two halves to this; only the halves are used, which are 2¹⁶ times better.
const AGREEMENT: f64 = 1e-12;
/// How often a panel may be halved.
const HALVINGS: usize = 48;

/// What the factor of a process is made of, at one time.
#[derive(Debug, Clone, PartialEq)]
pub struct FlowParts {
    /// L, lower triangular, `L Lᵀ = Σ`.
    pub cholesky: DMatrix<f64>,
    /// F.
    pub drift: DMatrix<f64>,
    /// G Gᵀ.
    pub diffusion: DMatrix<f64>,
}

impl FlowParts {
    /// The parts of a process whose covariance is `covariance`; L is NaN where that is not positive definite.
    ///
    /// Digits that the covariance has lost are lost to the factor: near t = 0 compute it without differences of large numbers.
    pub fn new(drift: DMatrix<f64>, diffusion: DMatrix<f64>, covariance: &DMatrix<f64>) -> Self {
        let nowhere = || DMatrix::from_element(covariance.nrows(), covariance.ncols(), f64::NAN);
        let cholesky = covariance.clone().cholesky().map_or_else(nowhere, |c| c.l());
        Self { cholesky, drift, diffusion }
    }

    /// Ω, antisymmetric.
    fn generator(&self) -> DMatrix<f64> {
        let l = &self.cholesky;
        let solve = |m: &DMatrix<f64>| l.solve_lower_triangular(m);
        let x = solve(&(&self.drift * l)).zip(solve(&self.diffusion)).and_then(|(flow, half)| {
            // L⁻¹ (L⁻¹ G Gᵀ)ᵀ = L⁻¹ G Gᵀ L⁻ᵀ
            Some(flow + solve(&half.transpose())? * 0.5)
        });
        let Some(x) = x else { return DMatrix::from_element(l.nrows(), l.ncols(), f64::NAN) };
        DMatrix::from_fn(l.nrows(), l.ncols(), |i, j| match i.cmp(&j) {
            std::cmp::Ordering::Less => x[(i, j)],
            std::cmp::Ordering::Equal => 0.0,
            std::cmp::Ordering::Greater => -x[(j, i)],
        })
    }

    /// Ω₁₂ of two groups, by hand: it is evaluated for every sample of a batch.
    fn turning(&self) -> f64 {
        let (l, f, g) = (&self.cholesky, &self.drift, &self.diffusion);
        let (a, b, c) = (l[(0, 0)], l[(1, 0)], l[(1, 1)]);
        f[(0, 1)] * c / a + 0.5 * (g[(0, 1)] - g[(0, 0)] * b / a) / (a * c)
    }

    /// dR/dt of the factor `R = L Q`: `F R + ½ G Gᵀ L⁻ᵀ Q`.
    pub fn factor_rate(&self, rotation: &DMatrix<f64>) -> DMatrix<f64> {
        let nowhere = || DMatrix::from_element(rotation.nrows(), rotation.ncols(), f64::NAN);
        let pulled = self.cholesky.transpose().solve_upper_triangular(rotation).unwrap_or_else(nowhere);
        &self.drift * &self.cholesky * rotation + &self.diffusion * pulled * 0.5
    }
}

/// The rotation Q of a process, `Q = I` at its first time.
#[derive(Debug, Clone)]
pub struct FlowFactor {
    rule: Turning,
    /// √t at the edges of the panels, increasing, and Q there.
    edges: Vec<f64>,
    rotations: Vec<DMatrix<f64>>,
}

impl FlowFactor {
    /// The rotation of the process that `parts` describes, from `first` (the time with `Q = I`, 0 included) to `last`; `knots` are
    /// times where the operators have a kink, increasing.
    ///
    /// # Errors
    /// [`Error::Range`] unless `0 ≤ first < last`; [`Error::Undefined`] where halving does not settle: at a rotation without end in finite time (a
    /// degenerate process without noise at t = 0), or because the parts are not known well enough.
    pub fn new(parts: &impl Fn(f64) -> FlowParts, (first, last): (f64, f64), knots: &[f64]) -> Result<Self> {
        crate::error::in_range("first time of a factor", first, 0.0, f64::MAX)?;
        crate::error::in_range("last time of a factor", last, first.next_up(), f64::MAX)?;
        let groups = parts(last).drift.nrows();
        let mut flow = Self {
            rule: Turning::new(groups),
            edges: vec![first.sqrt()],
            rotations: vec![DMatrix::identity(groups, groups)],
        };
        let inner = knots.iter().copied().filter(|&knot| first < knot && knot < last);
        for stop in inner.chain(std::iter::once(last)) {
            let start = flow.edges[flow.edges.len() - 1];
            let whole = flow.rule.turn(parts, start, stop.sqrt());
            flow.extend(parts, (start, stop.sqrt()), &whole, HALVINGS)?;
        }
        Ok(flow)
    }

    /// Appends panels that cover `span`, whose rotation in one piece is `whole`.
    fn extend(
        &mut self,
        parts: &impl Fn(f64) -> FlowParts,
        (from, to): (f64, f64),
        whole: &DMatrix<f64>,
        halvings: usize,
    ) -> Result<()> {
        let middle = 0.5 * (from + to);
        let (left, right) = (self.rule.turn(parts, from, middle), self.rule.turn(parts, middle, to));
        let both = &right * &left;
        let gap = (&both - whole)
            .iter()
            .fold(0.0, |gap: f64, d| if d.is_nan() { f64::NAN } else { gap.max(d.abs()) });
        if gap <= AGREEMENT {
            self.rotations.push(both * &self.rotations[self.rotations.len() - 1]);
            self.edges.push(to);
            return Ok(());
        }
        if halvings == 0 {
            return Err(Error::Undefined {
                what: "the flow-constant factor",
                t: from * from,
                hint: "it turns without end or its covariance has lost its digits there; let it start at a later time",
            });
        }
        self.extend(parts, (from, middle), &left, halvings - 1)?;
        self.extend(parts, (middle, to), &right, halvings - 1)
    }

    /// Q at time t.
    ///
    /// Before the first time and after the last one the outer panel is prolonged, which is right near it only.
    pub fn rotation(&self, parts: &impl Fn(f64) -> FlowParts, t: f64) -> DMatrix<f64> {
        let s = t.sqrt();
        let after = self.edges.partition_point(|&edge| edge < s).clamp(1, self.edges.len() - 1);
        let nearest = if s - self.edges[after - 1] < self.edges[after] - s { after - 1 } else { after };
        if s == self.edges[nearest] {
            return self.rotations[nearest].clone();
        }
        self.rule.turn(parts, self.edges[nearest], s) * &self.rotations[nearest]
    }

    /// R = L Q at time t.
    pub fn at(&self, parts: &impl Fn(f64) -> FlowParts, t: f64) -> DMatrix<f64> {
        parts(t).cholesky * self.rotation(parts, t)
    }
}

/// Collocation of `dQ/ds = 2 s Ω Q`, s = √t, for rotations of so many groups.
#[derive(Debug, Clone)]
struct Turning {
    groups: usize,
    scheme: Collocation,
}

impl Turning {
    fn new(groups: usize) -> Self {
        Self { groups, scheme: Collocation::new(NODES) }
    }

    /// The rotation from √t = `from` to √t = `to`: `dQ/ds = 2 s Ω Q`.
    fn turn(&self, parts: &impl Fn(f64) -> FlowParts, from: f64, to: f64) -> DMatrix<f64> {
        let h = to - from;
        let place = |c: f64| from + h * c;
        let at = |c: f64| parts(place(c) * place(c));
        match self.groups {
            1 => DMatrix::identity(1, 1),
            2 => {
                let angle: f64 =
                    self.scheme.nodes.iter().map(|&(c, b)| b * h * 2.0 * place(c) * at(c).turning()).sum();
                let (sin, cos) = angle.sin_cos();
                DMatrix::from_row_slice(2, 2, &[cos, sin, -sin, cos])
            }
            groups => {
                let generators: Vec<DMatrix<f64>> = self
                    .scheme
                    .nodes
                    .iter()
                    .map(|&(c, _)| at(c).generator() * (h * 2.0 * place(c)))
                    .collect();
                self.collocate(groups, &generators)
            }
        }
    }

    /// `I + Σ b_i K_i` with `K_i = Ω_i (I + Σ_j a_ij K_j)`, the Ω times the step.
    fn collocate(&self, groups: usize, generators: &[DMatrix<f64>]) -> DMatrix<f64> {
        let size = NODES * groups;
        let mut system = DMatrix::identity(size, size);
        let mut right = DMatrix::zeros(size, groups);
        for (i, generator) in generators.iter().enumerate() {
            right.view_mut((i * groups, 0), (groups, groups)).copy_from(generator);
            for j in 0..NODES {
                let mut block = system.view_mut((i * groups, j * groups), (groups, groups));
                block -= generator * self.scheme.stages[i][j];
            }
        }
        let Some(slopes) = system.lu().solve(&right) else {
            return DMatrix::from_element(groups, groups, f64::NAN);
        };
        let terms = self.scheme.nodes.iter().enumerate();
        terms.fold(DMatrix::identity(groups, groups), |sum, (i, &(_, b))| {
            sum + slopes.view((i * groups, 0), (groups, groups)) * b
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quadrature::GaussLegendre;

    fn gap(a: &DMatrix<f64>, b: &DMatrix<f64>) -> f64 {
        (a - b).amax()
    }

    /// `du = −A u dt + √(A + Aᵀ) dw` from a point mass: `Σ = I − ΨΨᵀ` by its own series, `Ψ = exp(−A t)`.
    fn stationary(a: &DMatrix<f64>) -> impl Fn(f64) -> FlowParts + use<> {
        let (drift, diffusion) = (-a, a + a.transpose());
        move |t| {
            // Σ = ∫_0^t exp(F τ) G Gᵀ exp(F τ)ᵀ dτ, all terms positive.
            let flow = |tau: f64| (&drift * tau).exp();
            let covariance = GaussLegendre::new(24).on(0.0, t).fold(drift.clone() * 0.0, |sum, (tau, w)| {
                sum + flow(tau) * &diffusion * flow(tau).transpose() * w
            });
            FlowParts::new(drift.clone(), diffusion.clone(), &covariance)
        }
    }

    /// A pair that commutes with nothing.
    fn tilted() -> DMatrix<f64> {
        let q = DMatrix::from_row_slice(3, 3, &[2.0, 0.3, 0.1, 0.3, 1.0, -0.2, 0.1, -0.2, 0.5]);
        let omega = DMatrix::from_row_slice(3, 3, &[0.0, 0.7, -0.4, -0.7, 0.0, 1.1, 0.4, -1.1, 0.0]);
        q * 0.5 + omega
    }

    /// Ṙ = (F + ½ G Gᵀ Σ⁻¹) R by many small steps of the classical Runge–Kutta method, in log t.
    fn by_small_steps(
        parts: &impl Fn(f64) -> FlowParts,
        from: f64,
        to: f64,
        r: &DMatrix<f64>,
    ) -> DMatrix<f64> {
        let steps = 4000;
        let h = (to / from).ln() / f64::from(steps);
        let rate = |clock: f64, r: &DMatrix<f64>| {
            let t = clock.exp();
            let FlowParts { cholesky, drift, diffusion } = parts(t);
            let precision = (&cholesky * cholesky.transpose()).try_inverse().expect("a definite covariance");
            (drift + diffusion * precision * 0.5) * r * t
        };
        (0..steps).fold(r.clone(), |r, i| {
            let clock = from.ln() + h * f64::from(i);
            let k1 = rate(clock, &r);
            let k2 = rate(clock + 0.5 * h, &(&r + &k1 * (0.5 * h)));
            let k3 = rate(clock + 0.5 * h, &(&r + &k2 * (0.5 * h)));
            let k4 = rate(clock + h, &(&r + &k3 * h));
            r + (k1 + k2 * 2.0 + k3 * 2.0 + k4) * (h / 6.0)
        })
    }

    #[test]
    fn three_groups_that_commute_with_nothing() -> Result<()> {
        let parts = stationary(&tilted());
        let flow = FlowFactor::new(&parts, (0.0, 2.0), &[])?;
        for t in [1e-4, 0.03, 0.31, 0.8, 2.0] {
            let r = flow.at(&parts, t);
            let sigma = &parts(t).cholesky * parts(t).cholesky.transpose();
            assert!(gap(&(&r * r.transpose()), &sigma) < 1e-14, "{t}");
            let q = flow.rotation(&parts, t);
            assert!(gap(&(q.transpose() * &q), &DMatrix::identity(3, 3)) < 1e-14, "{t}");
        }
        let start = flow.at(&parts, 0.1);
        let reference = by_small_steps(&parts, 0.1, 0.9, &start);
        assert!(gap(&reference, &flow.at(&parts, 0.9)) < 1e-11, "{reference}");
        Ok(())
    }

    #[test]
    fn the_rate_is_the_derivative() -> Result<()> {
        let parts = stationary(&tilted());
        let flow = FlowFactor::new(&parts, (0.0, 2.0), &[])?;
        let (t, h) = (0.4, 1e-3);
        let at = |t: f64| flow.at(&parts, t);
        let slope =
            (at(t + h) - at(t - h)) * (2.0 / (3.0 * h)) - (at(t + 2.0 * h) - at(t - 2.0 * h)) / (12.0 * h);
        assert!(gap(&slope, &parts(t).factor_rate(&flow.rotation(&parts, t))) < 1e-10);
        Ok(())
    }

    /// Position and velocity, critically damped, with a little noise at t = 0, beside a coordinate of its own.
    fn phase_space(groups: usize) -> impl Fn(f64) -> FlowParts {
        move |t| {
            let b = 2.0 * t;
            let psi = DMatrix::from_row_slice(2, 2, &[1.0 + b, b, -b, 1.0 - b]) * (-b).exp();
            let spread = DMatrix::from_row_slice(2, 2, &[1e-2, 0.0, 0.0, 0.3]);
            let mut covariance = DMatrix::identity(groups, groups);
            let mut drift = DMatrix::identity(groups, groups) * -1.0;
            let mut diffusion = DMatrix::identity(groups, groups) * 2.0;
            let unit = DMatrix::identity(2, 2);
            covariance
                .view_mut((0, 0), (2, 2))
                .copy_from(&(&unit + &psi * (spread - &unit) * psi.transpose()));
            drift.view_mut((0, 0), (2, 2)).copy_from_slice(&[0.0, -2.0, 2.0, -4.0]);
            diffusion.view_mut((0, 0), (2, 2)).copy_from_slice(&[0.0, 0.0, 0.0, 8.0]);
            FlowParts::new(drift, diffusion, &covariance)
        }
    }

    #[test]
    fn the_angle_of_two_groups_is_what_collocation_finds() -> Result<()> {
        let (two, three) = (phase_space(2), phase_space(3));
        let angle = FlowFactor::new(&two, (0.0, 1.5), &[0.7])?;
        let matrix = FlowFactor::new(&three, (0.0, 1.5), &[])?;
        for t in [0.0, 1e-3, 0.2, 0.7, 1.1, 1.5] {
            let found = matrix.rotation(&three, t);
            assert!(gap(&found.view((0, 0), (2, 2)).into_owned(), &angle.rotation(&two, t)) < 1e-12, "{t}");
            assert!((found[(2, 2)] - 1.0).abs() < 1e-14);
        }
        let start = angle.at(&two, 0.1);
        assert!(gap(&by_small_steps(&two, 0.1, 1.2, &start), &angle.at(&two, 1.2)) < 1e-10);
        Ok(())
    }

    #[test]
    fn independent_coordinates_do_not_turn() -> Result<()> {
        let parts =
            stationary(&DMatrix::from_diagonal(&nalgebra::DVector::from_row_slice(&[0.3, 1.0, 2.0, 0.1])));
        let flow = FlowFactor::new(&parts, (0.0, 2.0), &[])?;
        let expected = [0.6f64, 2.0, 4.0, 0.2].map(|rate| (-(-rate * 0.9f64).exp_m1()).sqrt());
        let r = flow.at(&parts, 0.9);
        assert!(gap(&r, &DMatrix::from_diagonal(&nalgebra::DVector::from_row_slice(&expected))) < 1e-14);
        Ok(())
    }

    #[test]
    fn a_rotation_without_end_is_refused_with_the_way_out() {
        // Without noise at t = 0 the position's is of order t³, and the angle grows like log t.
        let degenerate = stationary(&DMatrix::from_row_slice(2, 2, &[0.0, -2.0, 2.0, 4.0]));
        let text = FlowFactor::new(&degenerate, (0.0, 1.0), &[]).map(|_| ()).map_err(|e| e.to_string());
        assert!(text.clone().is_err_and(|text| text.contains("start at a later time")), "{text:?}");
        assert!(FlowFactor::new(&degenerate, (1e-4, 1.0), &[]).is_ok());
        assert!(FlowFactor::new(&degenerate, (1.0, 1.0), &[]).is_err());
    }
}
