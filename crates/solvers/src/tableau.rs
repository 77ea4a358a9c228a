//! Explicit Runge–Kutta methods as data: `k_i = f(s + c_i h, y + h Σ_{j<i} a_ij k_j)`, `y' = y + h Σ_i b_i k_i`, `c_i = Σ_j a_ij`.
//!
//! Reference: Butcher 2016, Numerical Methods for Ordinary Differential Equations, section 23; Ralston 1962 (minimum error bounds); van der
//! Houwen 1972 (also known as Wray's method); Shu, Osher 1988 (SSPRK3); Kutta 1901 (the classic rules of order three and four, and 3/8).

/// An explicit Runge–Kutta method.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tableau {
    /// Its name in t, in ρ and in log ρ.
    pub names: [&'static str; 3],
    /// Its order of convergence.
    pub order: usize,
    /// a, the rows below the diagonal: row i has i entries.
    pub a: &'static [&'static [f64]],
    /// b, the weights of the stages.
    pub b: &'static [f64],
}

macro_rules! tableau {
    ($name:literal, $order:literal, $a:expr, $b:expr) => {
        Tableau {
            names: [$name, concat!("rho-", $name), concat!("log-rho-", $name)],
            order: $order,
            a: &$a,
            b: &$b,
        }
    };
}

impl Tableau {
    /// Euler: one stage. In ρ it is DDIM.
    pub const EULER: Self = tableau!("euler", 1, [&[]], [1.0]);
    /// The midpoint rule.
    pub const MIDPOINT: Self = tableau!("midpoint", 2, [&[], &[0.5]], [0.0, 1.0]);
    /// Heun's rule of order two, the trapezoidal one: EDM's.
    pub const HEUN2: Self = tableau!("heun2", 2, [&[], &[1.0]], [0.5, 0.5]);
    /// Ralston's rule of order two.
    pub const RALSTON2: Self = tableau!("ralston2", 2, [&[], &[2.0 / 3.0]], [0.25, 0.75]);
    /// Ralston's rule of order three.
    pub const RALSTON3: Self =
        tableau!("ralston3", 3, [&[], &[0.5], &[0.0, 0.75]], [2.0 / 9.0, 1.0 / 3.0, 4.0 / 9.0]);
    /// Heun's rule of order three.
    pub const HEUN3: Self = tableau!("heun3", 3, [&[], &[1.0 / 3.0], &[0.0, 2.0 / 3.0]], [0.25, 0.0, 0.75]);
    /// Kutta's rule of order three.
    pub const KUTTA3: Self =
        tableau!("kutta3", 3, [&[], &[0.5], &[-1.0, 2.0]], [1.0 / 6.0, 2.0 / 3.0, 1.0 / 6.0]);
    /// Van der Houwen's rule of order three, also known as Wray's.
    pub const HOUWEN3: Self =
        tableau!("houwen3", 3, [&[], &[8.0 / 15.0], &[0.25, 5.0 / 12.0]], [0.25, 0.0, 0.75]);
    /// The strong-stability-preserving rule of order three.
    pub const SSPRK3: Self =
        tableau!("ssprk3", 3, [&[], &[1.0], &[0.25, 0.25]], [1.0 / 6.0, 1.0 / 6.0, 2.0 / 3.0]);
    /// The classic rule of order four.
    pub const RK4: Self = tableau!(
        "rk4",
        4,
        [&[], &[0.5], &[0.0, 0.5], &[0.0, 0.0, 1.0]],
        [1.0 / 6.0, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 6.0]
    );
    /// Kutta's 3/8 rule.
    pub const THREE_EIGHTHS: Self = tableau!(
        "rk38",
        4,
        [&[], &[1.0 / 3.0], &[-1.0 / 3.0, 1.0], &[1.0, -1.0, 1.0]],
        [0.125, 0.375, 0.375, 0.125]
    );

    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::EULER,
        Self::MIDPOINT,
        Self::HEUN2,
        Self::RALSTON2,
        Self::RALSTON3,
        Self::HEUN3,
        Self::KUTTA3,
        Self::HOUWEN3,
        Self::SSPRK3,
        Self::RK4,
        Self::THREE_EIGHTHS,
    ];

    /// Evaluations a step.
    pub fn stages(&self) -> usize {
        self.b.len()
    }

    /// c_i, where stage i stands in the step.
    pub fn node(&self, stage: usize) -> f64 {
        self.a[stage].iter().sum()
    }

    /// What the point of stage `stage` has of slope j; the point after the last stage is the end of the step.
    pub fn weight(&self, stage: usize, j: usize) -> f64 {
        let row = if stage == self.stages() { self.b } else { self.a[stage] };
        row.get(j).copied().unwrap_or(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The defects of the order conditions up to the order claimed, one rooted tree each.
    fn defects(rule: &Tableau, order: usize) -> Vec<f64> {
        let stages = rule.stages();
        let (b, c) = (|i: usize| rule.b[i], |i: usize| rule.node(i));
        let a = |i: usize, j: usize| rule.weight(i, j);
        let over = |f: &dyn Fn(usize) -> f64| (0..stages).map(f).sum::<f64>();
        let ac = |i: usize| over(&|j| a(i, j) * c(j));
        let conditions: [(usize, f64, f64); 8] = [
            (1, over(&b), 1.0),
            (2, over(&|i| b(i) * c(i)), 1.0 / 2.0),
            (3, over(&|i| b(i) * c(i) * c(i)), 1.0 / 3.0),
            (3, over(&|i| b(i) * ac(i)), 1.0 / 6.0),
            (4, over(&|i| b(i) * c(i).powi(3)), 1.0 / 4.0),
            (4, over(&|i| b(i) * c(i) * ac(i)), 1.0 / 8.0),
            (4, over(&|i| b(i) * over(&|j| a(i, j) * c(j) * c(j))), 1.0 / 12.0),
            (4, over(&|i| b(i) * over(&|j| a(i, j) * ac(j))), 1.0 / 24.0),
        ];
        conditions.iter().filter(|c| c.0 <= order).map(|(_, found, right)| (found - right).abs()).collect()
    }

    #[test]
    fn every_rule_satisfies_the_conditions_of_its_order_and_not_of_the_next() {
        for rule in Tableau::ALL {
            let name = rule.names[0];
            assert!(rule.a.iter().enumerate().all(|(i, row)| row.len() == i), "{name}: not explicit");
            assert_eq!(rule.a.len(), rule.stages(), "{name}");
            assert!(defects(&rule, rule.order).iter().all(|d| *d < 1e-15), "{name}");
            if rule.order < 4 {
                assert!(defects(&rule, rule.order + 1).iter().any(|d| *d > 1e-3), "{name}");
            }
        }
    }
}
