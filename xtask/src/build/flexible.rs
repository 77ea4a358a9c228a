//! Flexible diffusions from a configuration: bases, rates and matrices, given or drawn from a seed.
//!
//! All of them run on the clock of VP, `b = β₀ t + ½ (β₁ − β₀) t²`, and end at N(0, I/m), m the `precision`.

use std::sync::Arc;

use nalgebra::DMatrix;
use sde_core::noise::{Noise, Stream};
use sde_core::process::{Clocked, Commuting, Langevin, LinearPair, Vp};
use sde_core::{Basis, Error, LinearSde, Result};
use serde::{Deserialize, Serialize};

use super::ProcessConfig;

/// The process of a name, with VP's usual clock, in two dimensions; `process.basis` and its like change that.
pub(super) fn standard(name: &str) -> Option<ProcessConfig> {
    let (beta_0, beta_1, precision) = (0.1, 20.0, 1.0);
    let basis = BasisConfig::Axes { size: 2 };
    let all = |value: f64| Numbers::Given { values: vec![value] };
    Some(match name {
        "fp-noise" => {
            // Rates as the paper draws them, exp(N(0, 1)), leave most of the data at T in many dimensions.
            let eigenvalues = Numbers::LogNormal { std: 0.1, seed: 0 };
            ProcessConfig::FpNoise(FpNoise {
                beta_0,
                beta_1,
                precision,
                basis,
                eigenvalues,
                normalised: true,
            })
        }
        "fp-drift" => {
            ProcessConfig::FpDrift(FpDrift { beta_0, beta_1, precision, basis, rotations: all(1.0) })
        }
        "langevin" => {
            let (frequencies, frictions) = (all(1.0), all(2.0));
            let blocks = LangevinBlocks { beta_0, beta_1, precision, basis, frequencies, frictions };
            ProcessConfig::Langevin(blocks)
        }
        "pair" => {
            // A diffusion matrix and a rotation that do not commute.
            let (drift, diffusion) =
                (vec![vec![-1.0, -1.0], vec![1.0, -0.25]], vec![vec![2.0, 0.0], vec![0.0, 0.5]]);
            ProcessConfig::Pair(Pair { beta_0, beta_1, precision, drift, diffusion, acts_on: ActsOn::State })
        }
        _ => return None,
    })
}

/// The orthonormal basis that a process lives in.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum BasisConfig {
    /// The entries of a state.
    Axes {
        /// How many: of a whole state, or of one of its equal parts.
        size: usize,
    },
    /// The cosines of an image.
    Dct {
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
    },
    /// exp(H), H antisymmetric with normal entries.
    Random {
        /// How many entries.
        size: usize,
        /// The standard deviation of an entry of H, times √size.
        std: f64,
        /// Of the draws.
        seed: u64,
    },
    /// The columns of a matrix.
    Given {
        /// Its rows.
        rows: Vec<Vec<f64>>,
    },
}

/// Numbers of a process, one for each coordinate or pair of coordinates.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Numbers {
    /// These; a single one is for all.
    Given {
        /// In the order of the coordinates.
        values: Vec<f64>,
    },
    /// mean + std · N(0, 1).
    Normal {
        /// The mean.
        mean: f64,
        /// The standard deviation.
        std: f64,
        /// Of the draws.
        seed: u64,
    },
    /// exp(std · N(0, 1)).
    LogNormal {
        /// The standard deviation of the logarithm.
        std: f64,
        /// Of the draws.
        seed: u64,
    },
}

/// FP-Noise: Q diagonal in a basis.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FpNoise {
    /// β at t = 0.
    pub beta_0: f64,
    /// β at t = 1.
    pub beta_1: f64,
    /// m.
    pub precision: f64,
    /// The eigenvectors of Q.
    pub basis: BasisConfig,
    /// The eigenvalues of Q.
    pub eigenvalues: Numbers,
    /// Whether the eigenvalues are scaled to `‖Λ‖ = √n`.
    pub normalised: bool,
}

/// FP-Drift: Q = I, and pairs of coordinates that turn.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FpDrift {
    /// β at t = 0.
    pub beta_0: f64,
    /// β at t = 1.
    pub beta_1: f64,
    /// m.
    pub precision: f64,
    /// Its columns (1, 2), (3, 4), … turn into each other.
    pub basis: BasisConfig,
    /// λ of each pair, in turns of 2π for each 2π of b.
    pub rotations: Numbers,
}

/// Langevin blocks: damped oscillators of pairs of coordinates.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LangevinBlocks {
    /// β at t = 0.
    pub beta_0: f64,
    /// β at t = 1.
    pub beta_1: f64,
    /// m.
    pub precision: f64,
    /// Its columns (1, 2), (3, 4), … are the pairs; the second of each sees the noise.
    pub basis: BasisConfig,
    /// γ of each pair.
    pub frequencies: Numbers,
    /// c of each pair; critical at 2 |γ|.
    pub frictions: Numbers,
}

/// Any linear pair: `du = ḃ F u dt + √ḃ G dw` with `F + Fᵀ + m G Gᵀ = 0`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    /// β at t = 0.
    pub beta_0: f64,
    /// β at t = 1.
    pub beta_1: f64,
    /// m.
    pub precision: f64,
    /// F, by its rows.
    pub drift: Vec<Vec<f64>>,
    /// G Gᵀ, by its rows.
    pub diffusion: Vec<Vec<f64>>,
    /// What the matrices act on.
    pub acts_on: ActsOn,
}

/// What the matrices of a pair act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ActsOn {
    /// All entries of a state: D×D.
    State,
    /// Its groups, equal parts of the second dimension: k×k.
    Groups,
}

impl BasisConfig {
    fn build(&self) -> Result<Arc<Basis>> {
        Ok(Arc::new(match self {
            Self::Axes { size } => Basis::axes(*size),
            Self::Dct { height, width } => Basis::dct(*height, *width),
            Self::Random { size, std, seed } => {
                let mut draws = Noise::new(*seed).draws_named(Stream::Init, "process.basis");
                let scale = std / (*size as f64).max(1.0).sqrt();
                let entries = DMatrix::from_fn(*size, *size, |_, _| scale * draws.normal());
                let upper = entries.upper_triangle();
                Basis::new((&upper - upper.transpose()).exp())?
            }
            Self::Given { rows } => Basis::new(matrix("rows of a basis", rows)?)?,
        }))
    }
}

impl Numbers {
    /// `n` of them; `name` is the address of those that are drawn.
    fn build(&self, name: &'static str, n: usize) -> Result<Vec<f64>> {
        let draw = |seed: u64, of: &dyn Fn(f64) -> f64| {
            let mut draws = Noise::new(seed).draws_named(Stream::Init, name);
            (0..n).map(|_| of(draws.normal())).collect()
        };
        Ok(match self {
            Self::Given { values } if values.len() == 1 => vec![values[0]; n],
            Self::Given { values } if values.len() == n => values.clone(),
            Self::Given { values } => {
                return Err(Error::Mismatch {
                    what: name,
                    expected: format!("one value for all, or {n}"),
                    found: values.len().to_string(),
                });
            }
            Self::Normal { mean, std, seed } => draw(*seed, &|z| mean + std * z),
            Self::LogNormal { std, seed } => draw(*seed, &|z| (std * z).exp()),
        })
    }
}

impl FpNoise {
    /// The process.
    pub fn build(&self) -> Result<Box<dyn LinearSde>> {
        let basis = self.basis.build()?;
        let eigenvalues = self.eigenvalues.build("process.eigenvalues", basis.dim())?;
        let law = Commuting::fp_noise(basis, eigenvalues, self.precision)?;
        let law = if self.normalised { law.normalised() } else { law };
        Ok(Box::new(Clocked::new(law, Vp::new(self.beta_0, self.beta_1)?)?))
    }
}

impl FpDrift {
    /// The process.
    pub fn build(&self) -> Result<Box<dyn LinearSde>> {
        let basis = self.basis.build()?;
        let n = basis.dim();
        let rotations = self.rotations.build("process.rotations", n / 2)?;
        let law = Commuting::new(basis, vec![1.0; n], rotations, self.precision)?;
        Ok(Box::new(Clocked::new(law, Vp::new(self.beta_0, self.beta_1)?)?))
    }
}

impl LangevinBlocks {
    /// The process.
    pub fn build(&self) -> Result<Box<dyn LinearSde>> {
        let basis = self.basis.build()?;
        let pairs = basis.dim() / 2;
        let frequencies = self.frequencies.build("process.frequencies", pairs)?;
        let frictions = self.frictions.build("process.frictions", pairs)?;
        let oscillators: Vec<(f64, f64)> = frequencies.into_iter().zip(frictions).collect();
        let law = Langevin::new(basis, &oscillators, self.precision)?;
        Ok(Box::new(Clocked::new(law, Vp::new(self.beta_0, self.beta_1)?)?))
    }
}

impl Pair {
    /// The process.
    pub fn build(&self) -> Result<Box<dyn LinearSde>> {
        let drift = matrix("process.drift", &self.drift)?;
        let diffusion = matrix("process.diffusion", &self.diffusion)?;
        let law = match self.acts_on {
            ActsOn::State => LinearPair::on_state(drift, diffusion, self.precision)?,
            ActsOn::Groups => LinearPair::on_groups(drift, diffusion, self.precision)?,
        };
        Ok(Box::new(Clocked::new(law, Vp::new(self.beta_0, self.beta_1)?)?))
    }
}

/// The matrix with these rows.
fn matrix(what: &'static str, rows: &[Vec<f64>]) -> Result<DMatrix<f64>> {
    let columns = rows.first().map_or(0, Vec::len);
    if let Some((i, row)) = rows.iter().enumerate().find(|(_, row)| row.len() != columns) {
        return Err(Error::Mismatch {
            what,
            expected: format!("rows of {columns} numbers, as the first"),
            found: format!("{} in row {}", row.len(), i + 1),
        });
    }
    Ok(DMatrix::from_fn(rows.len(), columns, |i, j| rows[i][j]))
}
