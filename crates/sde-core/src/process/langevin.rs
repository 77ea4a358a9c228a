//! Langevin blocks: pairs of coordinates of which only the second sees noise, `F = [[0, γ], [−γ, −c]]`, `G Gᵀ = diag(0, 2c/m)`, in an orthonormal basis.
//!
//! A damped oscillator of frequency γ ≠ 0 and friction c > 0 in each pair, underdamped (c < 2|γ|), critical or overdamped. With `Δ = c²/4 − γ²`,
//! `exp(F b) = e^{−cb/2} [C I + S [[c/2, γ], [−γ, −c/2]]]`, C and S being cosh and sinh of √Δ b (S over √Δ), or cos and sin. The noise is degenerate, but the law
//! converges to N(0, I/m), and `Σ = (I − ΨΨᵀ)/m`.
//!
//! Reference: Du, Zhang, Yang, Du 2023, arXiv 2206.10365, Corollary 3.4; Dockhorn, Vahdat, Kreis 2022, arXiv 2112.07068, for critical damping.
//! Differs: the pairs are coordinates of the data itself, not data and velocity; any damping.

use std::sync::Arc;

use nalgebra::DMatrix;

use super::homogeneous::{Homogeneous, NOWHERE};
use super::linear_pair::LinearPair;
use crate::error::{Result, in_range};
use crate::op::Basis;
use crate::{Error, Op};

/// A law of damped oscillators; a process by [`super::Clocked`].
#[derive(Debug, Clone)]
pub struct Langevin {
    basis: Arc<Basis>,
    /// The different ones.
    oscillators: Vec<LinearPair>,
    /// Which one each pair of coordinates is.
    kinds: Vec<usize>,
    precision: f64,
}

impl Langevin {
    /// The law with a `(frequency, friction)` γ, c for the coordinates (1, 2), (3, 4), … along the columns of `basis`, and the stationary law N(0, I/m), m the `precision`.
    ///
    /// # Errors
    /// [`Error::Mismatch`] unless there is one for each pair and the number of coordinates is even; [`Error::Range`] unless |γ| and c lie in [1e-6, 1e6] and m in [1e-12, 1e12].
    pub fn new(basis: Arc<Basis>, oscillators: &[(f64, f64)], precision: f64) -> Result<Self> {
        if basis.dim() != 2 * oscillators.len() || oscillators.is_empty() {
            return Err(Error::Mismatch {
                what: "oscillators of a Langevin law",
                expected: format!("one for each pair of the {} coordinates", basis.dim()),
                found: oscillators.len().to_string(),
            });
        }
        let mut different: Vec<(f64, f64)> = Vec::new();
        let mut kinds = Vec::with_capacity(oscillators.len());
        for oscillator in oscillators {
            let known = different.iter().position(|other| other == oscillator);
            kinds.push(known.unwrap_or(different.len()));
            if known.is_none() {
                different.push(*oscillator);
            }
        }
        let law = |&(frequency, friction): &(f64, f64)| {
            in_range("size of an oscillator's frequency", frequency.abs(), 1e-6, 1e6)?;
            in_range("friction of an oscillator", friction, 1e-6, 1e6)?;
            let drift = DMatrix::from_row_slice(2, 2, &[0.0, frequency, -frequency, -friction]);
            let diffusion = DMatrix::from_row_slice(2, 2, &[0.0, 0.0, 0.0, 2.0 * friction / precision]);
            LinearPair::on_state(drift, diffusion, precision)
        };
        let oscillators = different.iter().map(law).collect::<Result<_>>()?;
        Ok(Self { basis, oscillators, kinds, precision })
    }

    fn op(&self, of: impl Fn(&LinearPair) -> Option<DMatrix<f64>>) -> Op {
        let blocks: Option<Vec<[[f64; 2]; 2]>> = (self.oscillators.iter())
            .map(|o| of(o).map(|k| [[k[(0, 0)], k[(0, 1)]], [k[(1, 0)], k[(1, 1)]]]))
            .collect();
        let of_pairs = blocks.map(|blocks| self.kinds.iter().map(|&kind| blocks[kind]).collect());
        of_pairs.and_then(|blocks| Op::pairs(&self.basis, blocks, None).ok()).unwrap_or(NOWHERE)
    }
}

impl Homogeneous for Langevin {
    fn drift(&self) -> Op {
        self.op(|o| Some(o.drift_matrix().clone()))
    }
    fn diffusion(&self) -> Op {
        self.op(|o| Some(o.diffusion_matrix().clone()))
    }
    fn precision(&self) -> f64 {
        self.precision
    }
    fn transition(&self, b: f64) -> Op {
        self.op(|o| Some(o.transition_matrix(b)))
    }
    fn covariance(&self, b: f64) -> Op {
        self.op(|o| Some(o.moments(b).1))
    }
    fn factor(&self, b: f64) -> Op {
        self.op(|o| o.factor_matrix(b))
    }
    fn factor_rate(&self, b: f64) -> Op {
        self.op(|o| o.factor_rate_matrix(b))
    }
    fn prepare(&mut self, longest: f64) -> Result<()> {
        self.oscillators.iter_mut().try_for_each(|o| o.prepare(longest))
    }
}
