//! Gauss–Legendre quadrature and Lagrange bases, the two tools that multistep coefficients are made of, and the collocation method that both make.
//!
//! `∫_a^b f ≈ Σ_k w_k f(x_k)`, exact for polynomials of degree 2n − 1; `ℓ_j(t) = ∏_{m≠j} (t − t_m)/(t_j − t_m)`.
//!
//! Reference: Golub, Welsch 1969; the nodes here by Newton's iteration on the Legendre recurrence.

use std::f64::consts::PI;

/// Nodes and weights on [−1, 1].
#[derive(Debug, Clone, PartialEq)]
pub struct GaussLegendre {
    nodes: Vec<(f64, f64)>,
}

impl GaussLegendre {
    /// The rule with `n` nodes, n ≥ 1.
    pub fn new(n: usize) -> Self {
        let node = |i: usize| {
            let mut x = (PI * (i as f64 + 0.75) / (n as f64 + 0.5)).cos();
            // Newton converges quadratically from this start; six rounds reach the last bit for every n in use.
            for _ in 0..6 {
                let (p, slope) = legendre(n, x);
                x -= p / slope;
            }
            let (_, slope) = legendre(n, x);
            (x, 2.0 / ((1.0 - x * x) * slope * slope))
        };
        Self { nodes: (0..n.max(1)).map(node).collect() }
    }

    /// `∫_a^b f`.
    pub fn integrate(&self, a: f64, b: f64, f: impl Fn(f64) -> f64) -> f64 {
        self.on(a, b).map(|(x, w)| w * f(x)).sum()
    }

    /// The nodes and weights on [a, b].
    pub fn on(&self, a: f64, b: f64) -> impl Iterator<Item = (f64, f64)> + '_ {
        let (middle, half) = (0.5 * (a + b), 0.5 * (b - a));
        self.nodes.iter().map(move |&(x, w)| (middle + half * x, half * w))
    }
}

/// The Gauss–Legendre collocation method on [0, 1], of order twice its number of stages: `k_i = f(c_i, y + h Σ_j a_ij k_j)`, `y' = y + h Σ_i b_i k_i`.
#[derive(Debug, Clone, PartialEq)]
pub struct Collocation {
    /// Nodes c and weights b.
    pub nodes: Vec<(f64, f64)>,
    /// `a_ij = ∫_0^{c_i} ℓ_j`, by rows.
    pub stages: Vec<Vec<f64>>,
}

impl Collocation {
    /// The method with `n` stages, n ≥ 1.
    pub fn new(n: usize) -> Self {
        let rule = GaussLegendre::new(n);
        let nodes: Vec<(f64, f64)> = rule.on(0.0, 1.0).collect();
        let places: Vec<f64> = nodes.iter().map(|&(c, _)| c).collect();
        let row = |&c: &f64| -> Vec<f64> {
            (0..places.len()).map(|j| rule.integrate(0.0, c, |x| lagrange(&places, j, x))).collect()
        };
        Self { stages: places.iter().map(row).collect(), nodes }
    }
}

/// P_n(x) and its derivative.
fn legendre(n: usize, x: f64) -> (f64, f64) {
    let (mut previous, mut current) = (1.0, x);
    for k in 2..=n {
        let k = k as f64;
        (previous, current) = (current, ((2.0 * k - 1.0) * x * current - (k - 1.0) * previous) / k);
    }
    (current, n as f64 * (x * current - previous) / (x * x - 1.0))
}

/// ℓ_j(t) on `nodes`.
pub fn lagrange(nodes: &[f64], j: usize, t: f64) -> f64 {
    let others = nodes.iter().enumerate().filter(|&(m, _)| m != j);
    others.map(|(_, &node)| (t - node) / (nodes[j] - node)).product()
}

/// dℓ_j/dt on `nodes`.
pub fn lagrange_rate(nodes: &[f64], j: usize, t: f64) -> f64 {
    let without = |skip: usize| -> f64 {
        let others = nodes.iter().enumerate().filter(|&(m, _)| m != j && m != skip);
        others.map(|(_, &node)| (t - node) / (nodes[j] - node)).product()
    };
    let others = (0..nodes.len()).filter(|&m| m != j);
    others.map(|m| without(m) / (nodes[j] - nodes[m])).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_for_polynomials_up_to_its_degree_and_not_beyond() {
        for n in 1..=12 {
            let rule = GaussLegendre::new(n);
            let error = |degree: usize| {
                let exact = if degree.is_multiple_of(2) { 2.0 / (degree as f64 + 1.0) } else { 0.0 };
                rule.integrate(-1.0, 1.0, |x| x.powi(degree as i32)) - exact
            };
            assert!((0..2 * n).all(|d| error(d).abs() < 1e-14), "n = {n}");
            assert!(error(2 * n).abs() > 1e-9, "n = {n}");
        }
    }

    #[test]
    fn smooth_integrals_to_rounding() {
        let rule = GaussLegendre::new(60);
        assert!((rule.integrate(0.0, 3.0, f64::exp) - (3f64.exp() - 1.0)).abs() < 1e-13);
        assert!((rule.integrate(1.0, -1.0, |x| 1.0 / (1.0 + x * x)) + PI / 2.0).abs() < 1e-14);
    }

    #[test]
    fn stages_integrate_polynomials_to_their_nodes() {
        let Collocation { nodes, stages } = Collocation::new(5);
        for degree in 0..5 {
            let power = |x: f64, d: i32| x.powi(d);
            for (&(c, _), row) in nodes.iter().zip(&stages) {
                let sum: f64 = nodes.iter().zip(row).map(|(node, a)| a * power(node.0, degree)).sum();
                assert!((sum - power(c, degree + 1) / f64::from(degree + 1)).abs() < 1e-15);
            }
        }
    }

    #[test]
    fn lagrange_basis_interpolates_and_differentiates() {
        let nodes = [0.9, 0.4, 0.35, 0.1];
        let cubic = |t: f64| 1.0 - 2.0 * t + 0.5 * t * t - 3.0 * t * t * t;
        let rate = |t: f64| -2.0 + t - 9.0 * t * t;
        for t in [0.0, 0.1, 0.62, 1.3] {
            let value: f64 = (0..4).map(|j| cubic(nodes[j]) * lagrange(&nodes, j, t)).sum();
            let slope: f64 = (0..4).map(|j| cubic(nodes[j]) * lagrange_rate(&nodes, j, t)).sum();
            assert!((value - cubic(t)).abs() < 1e-12 && (slope - rate(t)).abs() < 1e-11);
        }
        assert_eq!(lagrange(&[0.5], 0, 0.1), 1.0);
        assert_eq!(lagrange_rate(&[0.5], 0, 0.1), 0.0);
    }
}
