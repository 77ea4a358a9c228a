//! Sinkhorn divergence of two samples: optimal transport smoothed by entropy, and debiased,
//!
//! `S_ε(x, y) = O_ε(x, y) − ½ O_ε(x, x) − ½ O_ε(y, y)`,  `O_ε = min_P ⟨P, C⟩ + ε KL(P | a ⊗ b)`,  `C = |x − y|²`,
//!
//! with uniform weights a, b. It is zero only for equal samples, W₂² as ε → 0, and an MMD as ε → ∞. The dual potentials solve `f = −ε log Σ_j b_j
//! exp((g_j − C_ij)/ε)` and the same for g, in turns, in the log domain; the iteration ends when the plan's marginals are right, or it is
//! an error. `O_ε = ⟨a, f⟩ + ⟨b, g⟩`.
//!
//! Reference: Feydy et al. 2019, arXiv 1810.08278, Eq. (3), (10), and (25) for the symmetric case; Cuturi 2013, arXiv 1306.0895.

use candle_core::Tensor;
use rayon::prelude::*;

use crate::centred::centred;
use crate::rows::Rows;
use crate::{Error, Estimate, Result};

/// The most costs: 1 GiB of them.
const MOST_COSTS: usize = 1 << 27;

/// How transport is smoothed, and when it counts as solved.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sinkhorn {
    /// ε, in the units of squared distances. Small ones take `O(max C / ε)` iterations.
    pub epsilon: f64,
    /// The largest L1 error of the plan's marginals.
    pub tolerance: f64,
    /// The iterations after which it is an error.
    pub most_iterations: usize,
}

/// Entropic transport between two samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Entropic {
    /// `O_ε`, entropy included.
    pub value: f64,
    /// `⟨P, C⟩`, the cost of the plan alone.
    pub cost: f64,
}

impl Sinkhorn {
    /// The divergence of two samples themselves; as one of their laws it is too large ([`estimate`](Self::estimate) is not).
    ///
    /// # Shapes
    /// `x` `[N, …]`, `y` `[M, …]`.
    ///
    /// # Errors
    /// For settings that are not positive, too many points, and when it does not converge.
    pub fn divergence(&self, x: &Tensor, y: &Tensor) -> Result<f64> {
        let (x, y) = Rows::pair(x, y)?;
        self.divergence_of_rows(&x, &y)
    }

    /// The centred estimate between the laws of two samples, which may be negative: each group takes two blocks of `N / (2 · groups)` of each,
    /// in the order given.
    ///
    /// # Shapes
    /// As [`divergence`](Self::divergence).
    ///
    /// # Errors
    /// As [`divergence`](Self::divergence), and unless there are two groups and two points a block.
    pub fn estimate(&self, x: &Tensor, y: &Tensor, groups: usize) -> Result<Estimate> {
        centred("centred Sinkhorn divergence", groups, x, y, |a, b| self.divergence_of_rows(a, b))
    }

    /// Entropic transport, not debiased.
    ///
    /// # Shapes
    /// As [`divergence`](Self::divergence).
    ///
    /// # Errors
    /// As [`divergence`](Self::divergence).
    pub fn transport(&self, x: &Tensor, y: &Tensor) -> Result<Entropic> {
        let (x, y) = Rows::pair(x, y)?;
        self.entropic(&x, &y, false)
    }

    fn divergence_of_rows(&self, x: &Rows, y: &Rows) -> Result<f64> {
        let across = self.entropic(x, y, false)?.value;
        Ok(across - 0.5 * (self.entropic(x, x, true)?.value + self.entropic(y, y, true)?.value))
    }

    fn check(&self, n: usize, m: usize) -> Result<()> {
        let positive = |v: f64| v > 0.0 && v.is_finite();
        if !positive(self.epsilon) || !positive(self.tolerance) || self.most_iterations == 0 {
            return Err(Error::mismatch("entropic transport", "positive settings", format!("{self:?}")));
        }
        match n.checked_mul(m) {
            Some(costs) if costs <= MOST_COSTS => Ok(()),
            _ => Err(Error::TooMany {
                what: "pairs of points of a transport",
                found: n.saturating_mul(m),
                most: MOST_COSTS,
                instead: "take fewer points or more groups, or the sliced distance",
            }),
        }
    }

    fn entropic(&self, x: &Rows, y: &Rows, symmetric: bool) -> Result<Entropic> {
        let (n, m) = (x.len(), y.len());
        self.check(n, m)?;
        let square =
            |i: usize, j: usize| x.row(i).iter().zip(y.row(j)).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
        let costs: Vec<f64> =
            (0..n * m).into_par_iter().with_min_len(m).map(|k| square(k / m, k % m)).collect();
        let turned: Vec<f64> = match symmetric {
            true => Vec::new(),
            false => (0..n * m).map(|k| costs[k % n * m + k / n]).collect(),
        };
        let mut f = vec![0.0; n];
        let mut g = if symmetric { vec![0.0; m] } else { self.potential(&turned, &f) };
        for _ in 0..self.most_iterations {
            let wanted = self.potential(&costs, &g);
            // Row i of the plan has the mass a_i exp((f_i − wanted_i)/ε), and the columns are right.
            let error = f.iter().zip(&wanted).map(|(f, w)| (((f - w) / self.epsilon).exp() - 1.0).abs());
            let error = error.sum::<f64>() / n as f64;
            if error <= self.tolerance {
                return Ok(self.plan(&costs, &f, &g));
            }
            if symmetric {
                f.iter_mut().zip(wanted).for_each(|(f, w)| *f = 0.5 * (*f + w));
                g.clone_from(&f);
            } else {
                f = wanted;
                g = self.potential(&turned, &f);
            }
        }
        let way_out = "raise epsilon, the tolerance or the iterations";
        Err(Error::NoConvergence { what: "entropic transport", way_out })
    }

    /// `−ε log mean_j exp((g_j − C_ij)/ε)` for each row.
    fn potential(&self, costs: &[f64], g: &[f64]) -> Vec<f64> {
        let row = |costs: &[f64]| {
            let exponent = |(c, g): (&f64, &f64)| (g - c) / self.epsilon;
            let most = costs.iter().zip(g).map(exponent).fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = costs.iter().zip(g).map(|pair| (exponent(pair) - most).exp()).sum();
            -self.epsilon * (most + (sum / g.len() as f64).ln())
        };
        costs.par_chunks(g.len()).with_min_len(16).map(row).collect()
    }

    fn plan(&self, costs: &[f64], f: &[f64], g: &[f64]) -> Entropic {
        let weight = 1.0 / (f.len() * g.len()) as f64;
        let row = |(f, costs): (&f64, &[f64])| -> f64 {
            costs.iter().zip(g).map(|(c, g)| ((f + g - c) / self.epsilon).exp() * c).sum()
        };
        let rows: Vec<f64> = f.par_iter().zip(costs.par_chunks(g.len())).map(row).collect();
        let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
        Entropic { value: mean(f) + mean(g), cost: weight * rows.iter().sum::<f64>() }
    }
}
