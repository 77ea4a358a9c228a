//! Fractal tree: a trunk that forks, and whose branches fork, eight levels deep.
//!
//! The trunk runs from (0, 0) to (0, 1). Every branch forks into two at its end, turned by ±28° and 0.72
//! times as long. A point is uniform along all 255 branches (by length) plus N(0, σ² I), σ = 0.01. With `a`
//! the coordinate along a branch of length ℓ and `b` the one across, the density of a branch is `ℓ⁻¹ [Φ(a/σ)
//! − Φ((a − ℓ)/σ)] N(b; 0, σ²)`.
//!
//! Reference: the set is shown in Zhang, Chen 2021 (DiffFlow), arXiv 2110.07579.
//! Differs: that tree is a picture; this one is a recipe of our own, with a density in closed form.

use std::f64::consts::{SQRT_2, TAU};

use sde_core::noise::Draws;

use super::Recipe;

/// How many times branches follow one another.
pub(super) const LEVELS: u32 = 8;
const RATIO: f64 = 0.72;
const TURN: f64 = 28.0 * TAU / 360.0;
const DEVIATION: f64 = 0.01;

#[derive(Debug, Clone, Copy)]
struct Branch {
    start: [f64; 2],
    direction: [f64; 2],
    length: f64,
}

impl Branch {
    fn at(&self, along: f64) -> [f64; 2] {
        [self.start[0] + along * self.direction[0], self.start[1] + along * self.direction[1]]
    }

    fn child(&self, turn: f64) -> Self {
        let (sin, cos) = (libm::sin(turn), libm::cos(turn));
        let [x, y] = self.direction;
        Self {
            start: self.at(self.length),
            direction: [cos * x - sin * y, sin * x + cos * y],
            length: RATIO * self.length,
        }
    }
}

/// All branches, and the length up to the end of each.
#[derive(Debug)]
pub(super) struct Tree {
    branches: Vec<Branch>,
    ends: Vec<f64>,
}

impl Tree {
    /// A tree of `levels` levels, one at least.
    pub(super) fn new(levels: u32) -> Self {
        let mut branches = vec![Branch { start: [0.0, 0.0], direction: [0.0, 1.0], length: 1.0 }];
        let mut parents = 0..1;
        for _ in 1..levels {
            let children: Vec<Branch> =
                branches[parents.clone()].iter().flat_map(|b| [b.child(TURN), b.child(-TURN)]).collect();
            parents = parents.end..parents.end + children.len();
            branches.extend(children);
        }
        let ends = branches.iter().scan(0.0, |sum, b| {
            *sum += b.length;
            Some(*sum)
        });
        Self { ends: ends.collect(), branches }
    }

    fn length(&self) -> f64 {
        self.ends.last().copied().unwrap_or(0.0)
    }
}

impl Recipe for Tree {
    fn sample(&self, draws: &mut Draws) -> Vec<f64> {
        let along = self.length() * draws.uniform();
        let index = self.ends.partition_point(|&end| end < along).min(self.branches.len() - 1);
        let branch = self.branches[index];
        let point = branch.at(branch.length - (self.ends[index] - along));
        point.iter().map(|v| v + DEVIATION * draws.normal()).collect()
    }

    /// A branch has its middle as mean and ℓ² dᵢ²/12 as variance along axis i.
    fn moments(&self) -> (Vec<f64>, Vec<f64>) {
        let (mut mean, mut second) = (vec![0.0; 2], vec![0.0; 2]);
        for branch in &self.branches {
            let weight = branch.length / self.length();
            for (axis, middle) in branch.at(branch.length / 2.0).into_iter().enumerate() {
                mean[axis] += weight * middle;
                second[axis] +=
                    weight * (middle.powi(2) + (branch.length * branch.direction[axis]).powi(2) / 12.0);
            }
        }
        let variance = second.iter().zip(&mean).map(|(s, m)| s - m * m + DEVIATION.powi(2)).collect();
        (mean, variance)
    }

    fn log_density(&self, point: &[f64]) -> Option<f64> {
        let &[x, y] = point else { return None };
        let phi = |v: f64| libm::erfc(-v / (DEVIATION * SQRT_2)) / 2.0;
        let line = |branch: &Branch| {
            let [u, v] = [x - branch.start[0], y - branch.start[1]];
            let along = u * branch.direction[0] + v * branch.direction[1];
            let across = u * branch.direction[1] - v * branch.direction[0];
            (phi(along) - phi(along - branch.length)) * (-0.5 * (across / DEVIATION).powi(2)).exp()
        };
        let sum: f64 = self.branches.iter().map(line).sum();
        Some((sum / (self.length() * TAU.sqrt() * DEVIATION)).ln())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shape_of_the_tree() {
        let tree = Tree::new(LEVELS);
        assert_eq!(tree.branches.len(), 255);
        let expected: f64 = (0..8).map(|k| (2.0 * RATIO).powi(k)).sum();
        assert!((tree.length() - expected).abs() < 1e-9);
        assert!(tree.moments().0[0].abs() < 1e-12, "the tree is symmetric");
    }

    #[test]
    fn density_has_mass_one_and_the_stated_moments() {
        let tree = Tree::new(2);
        let (step, n) = (0.008, 250);
        let mut sums = [0.0; 5];
        for i in 0..n * n {
            let point = [-1.0 + step * f64::from(i % n), -0.1 + step * f64::from(i / n)];
            let mass = tree.log_density(&point).unwrap_or(f64::NAN).exp() * step * step;
            let terms = [1.0, point[0], point[1], point[0].powi(2), point[1].powi(2)];
            sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += mass * term);
        }
        let (mean, variance) = tree.moments();
        assert!((sums[0] - 1.0).abs() < 1e-6, "{}", sums[0]);
        for axis in 0..2 {
            assert!((sums[1 + axis] - mean[axis]).abs() < 1e-6);
            assert!((sums[3 + axis] - mean[axis].powi(2) - variance[axis]).abs() < 1e-6);
        }
    }
}
