//! Embedded Runge–Kutta pairs, as data: `k_i = f(t + c_i h, y + h Σ_j a_ij k_j)`, the solution `y + h Σ b_i k_i` and, from the same stages,
//! another of lower order, `y + h Σ b̂_i k_i`; their difference `h Σ e_i k_i`, `e = b − b̂`, estimates the error.
//!
//! In every pair here the last row of a is b: the last stage is taken at the new state and serves as the first of the next step.
//!
//! Reference: Dormand, Prince 1980, doi 10.1016/0771-050X(80)90013-3; Bogacki, Shampine 1989, doi 10.1016/0893-9659(89)90079-7;
//! Tsitouras 2011, doi 10.1016/j.camwa.2011.06.002.

/// An embedded pair whose last stage is the first of the next step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    name: &'static str,
    order: usize,
    estimate: usize,
    c: &'static [f64],
    a: &'static [&'static [f64]],
    e: &'static [f64],
}

impl Pair {
    /// Dormand–Prince 5(4): six evaluations a step.
    pub const DORMAND_PRINCE: Self = Self {
        name: "dopri5",
        order: 5,
        estimate: 4,
        c: &[0.0, 1.0 / 5.0, 3.0 / 10.0, 4.0 / 5.0, 8.0 / 9.0, 1.0, 1.0],
        a: &[
            &[],
            &[1.0 / 5.0],
            &[3.0 / 40.0, 9.0 / 40.0],
            &[44.0 / 45.0, -56.0 / 15.0, 32.0 / 9.0],
            &[19372.0 / 6561.0, -25360.0 / 2187.0, 64448.0 / 6561.0, -212.0 / 729.0],
            &[9017.0 / 3168.0, -355.0 / 33.0, 46732.0 / 5247.0, 49.0 / 176.0, -5103.0 / 18656.0],
            &[35.0 / 384.0, 0.0, 500.0 / 1113.0, 125.0 / 192.0, -2187.0 / 6784.0, 11.0 / 84.0],
        ],
        e: &[
            71.0 / 57600.0,
            0.0,
            -71.0 / 16695.0,
            71.0 / 1920.0,
            -17253.0 / 339200.0,
            22.0 / 525.0,
            -1.0 / 40.0,
        ],
    };

    /// Bogacki–Shampine 3(2): three evaluations a step; for loose tolerances.
    pub const BOGACKI_SHAMPINE: Self = Self {
        name: "bosh3",
        order: 3,
        estimate: 2,
        c: &[0.0, 1.0 / 2.0, 3.0 / 4.0, 1.0],
        a: &[&[], &[1.0 / 2.0], &[0.0, 3.0 / 4.0], &[2.0 / 9.0, 1.0 / 3.0, 4.0 / 9.0]],
        e: &[-5.0 / 72.0, 1.0 / 12.0, 1.0 / 9.0, -1.0 / 8.0],
    };

    /// Tsitouras 5(4): six evaluations a step, with smaller error constants than Dormand–Prince's.
    pub const TSITOURAS: Self = Self {
        name: "tsit5",
        order: 5,
        estimate: 4,
        c: &[0.0, 0.161, 0.327, 0.9, 0.9800255409045097, 1.0, 1.0],
        a: &[
            &[],
            &[0.161],
            &[-0.008480655492356989, 0.335480655492357],
            &[2.8971530571054935, -6.359448489975075, 4.3622954328695815],
            &[5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525],
            &[
                5.86145544294642,
                -12.92096931784711,
                8.159367898576159,
                -0.071584973281401,
                -0.028269050394068383,
            ],
            &[
                0.09646076681806523,
                0.01,
                0.4798896504144996,
                1.379008574103742,
                -3.290069515436081,
                2.324710524099774,
            ],
        ],
        e: &[
            -0.001780011052225777,
            -0.0008164344596567469,
            0.007880878010261995,
            -0.1447110071732629,
            0.5823571654525552,
            -0.45808210592918697,
            1.0 / 66.0,
        ],
    };

    /// All of them.
    pub const ALL: [Self; 3] = [Self::DORMAND_PRINCE, Self::BOGACKI_SHAMPINE, Self::TSITOURAS];

    /// A short name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The order of the solution that is carried on.
    pub fn order(&self) -> usize {
        self.order
    }

    /// The exponent that a step must have to scale its error estimate: 1 / (order of the lower formula + 1).
    pub(crate) fn exponent(&self) -> f64 {
        1.0 / (self.estimate as f64 + 1.0)
    }

    /// Stages of a step, the one shared with the next included.
    pub(crate) fn stages(&self) -> usize {
        self.c.len()
    }

    /// c_i.
    pub(crate) fn node(&self, stage: usize) -> f64 {
        self.c[stage]
    }

    /// a_ij of a stage.
    pub(crate) fn row(&self, stage: usize) -> &'static [f64] {
        self.a[stage]
    }

    /// b, without the last stage, whose weight is 0.
    pub(crate) fn weights(&self) -> &'static [f64] {
        self.a[self.c.len() - 1]
    }

    /// e.
    pub(crate) fn error(&self) -> &'static [f64] {
        self.e
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A rooted tree, as the trees that hang from its root.
    #[derive(Clone)]
    struct Tree(Vec<Tree>);

    impl Tree {
        fn size(&self) -> usize {
            1 + self.0.iter().map(Tree::size).sum::<usize>()
        }

        /// γ: the product of the sizes of all subtrees.
        fn density(&self) -> f64 {
            self.size() as f64 * self.0.iter().map(Tree::density).product::<f64>()
        }

        /// The product over the children of `Σ_j a_ij φ_j(child)`, for stage i.
        fn weight(&self, pair: &Pair, stage: usize) -> f64 {
            let inner = |child: &Tree| -> f64 {
                pair.row(stage).iter().enumerate().map(|(j, a)| a * child.weight(pair, j)).sum()
            };
            self.0.iter().map(inner).product()
        }
    }

    /// All forests of `size` nodes whose trees have at most `largest`; large trees come first, so each forest comes once.
    fn forests(size: usize, largest: usize, before: usize) -> Vec<Vec<Tree>> {
        if size == 0 {
            return vec![Vec::new()];
        }
        let mut found = Vec::new();
        for first in (1..=largest.min(size)).rev() {
            for (index, tree) in trees(first).into_iter().enumerate() {
                let limit = if first == largest { before } else { usize::MAX };
                if index > limit {
                    continue;
                }
                for mut rest in forests(size - first, first, index) {
                    rest.insert(0, tree.clone());
                    found.push(rest);
                }
            }
        }
        found
    }

    fn trees(size: usize) -> Vec<Tree> {
        forests(size - 1, size, usize::MAX).into_iter().map(Tree).collect()
    }

    /// The largest defect of `Σ_i b_i φ_i(τ) = 1/γ(τ)` among the trees of one size.
    fn defect(pair: &Pair, weights: &[f64], size: usize) -> f64 {
        let of = |tree: Tree| {
            let sum: f64 = weights.iter().enumerate().map(|(i, b)| b * tree.weight(pair, i)).sum();
            (sum - 1.0 / tree.density()).abs()
        };
        trees(size).into_iter().map(of).fold(0.0, f64::max)
    }

    #[test]
    fn trees_are_counted_as_they_should_be() {
        assert_eq!([1, 2, 3, 4, 5, 6].map(|size| trees(size).len()), [1, 1, 2, 4, 9, 20]);
    }

    #[test]
    fn both_formulas_have_their_orders_and_no_more() {
        for pair in Pair::ALL {
            let name = pair.name();
            let b: Vec<f64> = pair.weights().iter().copied().chain([0.0]).collect();
            let lower: Vec<f64> = b.iter().zip(pair.error()).map(|(b, e)| b - e).collect();
            for (weights, order) in [(&b, pair.order), (&lower, pair.estimate)] {
                // Coefficients up to 13 are given to 16 digits: 2e-15 each, and a tree sums products of seven of them.
                let kept = (1..=order).map(|size| defect(&pair, weights, size)).fold(0.0, f64::max);
                assert!(kept < 5e-14, "{name} at order {order}: {kept:e}");
                let missed = defect(&pair, weights, order + 1);
                assert!(missed > 1e-5, "{name} beyond order {order}: {missed:e}");
            }
        }
    }

    #[test]
    fn every_stage_stands_where_its_node_says_and_the_last_at_the_new_state() {
        for pair in Pair::ALL {
            assert_eq!(pair.stages(), pair.error().len());
            for stage in 0..pair.stages() {
                let sum: f64 = pair.row(stage).iter().sum();
                assert_eq!(pair.row(stage).len(), stage);
                assert!((sum - pair.node(stage)).abs() < 1e-14, "{} stage {stage}", pair.name());
            }
            assert_eq!(pair.node(pair.stages() - 1), 1.0);
        }
    }
}
