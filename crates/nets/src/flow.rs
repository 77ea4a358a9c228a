//! A normalising flow of affine couplings: an invertible map with a triangular Jacobian, exact both ways.
//!
//! ```text
//! x_b = z_b ⊙ e^{s(z_a)} + m(z_a),   x_a = z_a        log|det ∂x/∂z| = Σ s        z_b = (x_b − m(x_a)) ⊙ e^{−s(x_a)}
//! q(x) = N(z; 0, I) / |det ∂x/∂z|
//! ```
//!
//! s and m are a fully connected network of the half that is kept; s is bounded, c tanh(·/c). Which half is kept goes round: the first, the second, the even
//! and the odd coordinates. The last map scales and shifts every coordinate. A new flow is the identity.
//!
//! Reference: Dinh, Sohl-Dickstein, Bengio 2017, arXiv 1605.08803, Eqs. (7)–(8).
//! Differs: no batch normalisation; s is bounded.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::layers::{Linear, NOTHING};
use crate::{Builder, Error, Init, Result, ops};

/// A flow's configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowConfig {
    /// The number of couplings; four go round once.
    pub couplings: usize,
    /// The width of each hidden layer of a coupling; at least one.
    pub hidden: Vec<usize>,
    /// c, the largest logarithm of a scale.
    pub bound: f64,
}

/// One coupling: which coordinates are kept, which are changed, and how they are put together again.
#[derive(Debug)]
struct Coupling {
    kept: Tensor,
    changed: Tensor,
    together: Tensor,
    layers: Vec<Linear>,
    bound: f64,
}

/// The flow of a [`FlowConfig`].
#[derive(Debug)]
pub struct CouplingFlow {
    couplings: Vec<Coupling>,
    log_scale: Tensor,
    shift: Tensor,
    dim: usize,
}

/// Points, and log|det| of the map that led to them.
#[derive(Debug, Clone)]
pub struct Mapped {
    /// The points, `[B, D]`.
    pub points: Tensor,
    /// log|det|, `[B]`.
    pub log_determinant: Tensor,
}

/// Whether coupling i keeps coordinate k.
fn keeps(i: usize, k: usize, dim: usize) -> bool {
    match i % 4 {
        0 => k < dim.div_ceil(2),
        1 => k >= dim / 2,
        2 => k.is_multiple_of(2),
        _ => !k.is_multiple_of(2),
    }
}

impl Coupling {
    fn new(b: &Builder, i: usize, dim: usize, config: &FlowConfig) -> Result<Self> {
        let (kept, changed): (Vec<u32>, Vec<u32>) = (0..dim as u32).partition(|&k| keeps(i, k as usize, dim));
        let order: Vec<u32> = kept.iter().chain(&changed).copied().collect();
        let mut together = vec![0u32; dim];
        order.iter().enumerate().for_each(|(place, &k)| together[k as usize] = place as u32);
        let widths: Vec<usize> = [kept.len()]
            .into_iter()
            .chain(config.hidden.iter().copied())
            .chain([2 * changed.len()])
            .collect();
        let last = widths.len() - 2;
        let layer = |(j, pair): (usize, &[usize])| {
            let scale = if j == last { NOTHING } else { 1.0 };
            Linear::new(&b.pp("layer").pp(j), pair[0], pair[1], scale)
        };
        let layers = widths.windows(2).enumerate().map(layer).collect::<Result<_>>()?;
        let index = |list: &[u32]| Tensor::from_slice(list, list.len(), b.device());
        Ok(Self {
            kept: index(&kept)?,
            changed: index(&changed)?,
            together: index(&together)?,
            layers,
            bound: config.bound,
        })
    }

    /// s and m of the coordinates that are kept.
    fn scale_and_shift(&self, kept: &Tensor) -> Result<(Tensor, Tensor)> {
        let mut hidden = kept.clone();
        for (j, layer) in self.layers.iter().enumerate() {
            let input = if j == 0 { hidden } else { ops::silu(&hidden)? };
            hidden = layer.forward(&input)?;
        }
        let half = hidden.dim(1)? / 2;
        let raw = (hidden.narrow(1, 0, half)? / self.bound)?;
        Ok(((raw.tanh()? * self.bound)?, hidden.narrow(1, half, half)?))
    }

    fn halves(&self, x: &Tensor) -> Result<(Tensor, Tensor)> {
        Ok((x.index_select(&self.kept, 1)?, x.index_select(&self.changed, 1)?))
    }

    fn joined(&self, kept: &Tensor, changed: &Tensor) -> Result<Tensor> {
        Ok(Tensor::cat(&[kept, changed], 1)?.index_select(&self.together, 1)?)
    }

    fn forward(&self, z: &Tensor) -> Result<(Tensor, Tensor)> {
        let (kept, changed) = self.halves(z)?;
        let (s, m) = self.scale_and_shift(&kept)?;
        let changed = ((changed * s.exp()?)? + m)?;
        Ok((self.joined(&kept, &changed)?, s.sum(1)?))
    }

    fn inverse(&self, x: &Tensor) -> Result<(Tensor, Tensor)> {
        let (kept, changed) = self.halves(x)?;
        let (s, m) = self.scale_and_shift(&kept)?;
        let changed = ((changed - m)? * s.neg()?.exp()?)?;
        Ok((self.joined(&kept, &changed)?, s.sum(1)?.neg()?))
    }
}

impl CouplingFlow {
    /// The flow of `dim` dimensions.
    ///
    /// # Errors
    /// [`Error::Config`] where the configuration describes no flow: no coupling, no hidden layer, fewer than two dimensions.
    pub fn new(b: &Builder, config: &FlowConfig, dim: usize) -> Result<Self> {
        if config.hidden.is_empty() || config.hidden.contains(&0) {
            let found = format!("{:?}", config.hidden);
            return Err(Error::config("hidden", "one or more positive widths", found));
        }
        if config.couplings == 0 {
            return Err(Error::config("couplings", "positive", 0));
        }
        if !(config.bound > 0.0 && config.bound.is_finite()) {
            return Err(Error::config("bound", "a positive number", config.bound));
        }
        if dim < 2 {
            return Err(Error::config("dimension of a flow of couplings", "2 or more", dim));
        }
        let coupling = |i: usize| Coupling::new(&b.pp("coupling").pp(i), i, dim, config);
        Ok(Self {
            couplings: (0..config.couplings).map(coupling).collect::<Result<_>>()?,
            log_scale: b.get(&[dim], "log_scale", Init::Constant(0.0))?,
            shift: b.get(&[dim], "shift", Init::Constant(0.0))?,
            dim,
        })
    }

    /// D.
    pub fn dim(&self) -> usize {
        self.dim
    }

    fn check(&self, x: &Tensor) -> Result<()> {
        if x.rank() == 2 && x.dim(1)? == self.dim {
            return Ok(());
        }
        let expected = format!("[B, {}]", self.dim);
        Err(Error::Shape { what: "points of a flow", expected, found: format!("{:?}", x.dims()) })
    }

    /// From noise z to x, with log|det ∂x/∂z|.
    ///
    /// # Shapes
    /// `z` `[B, D]`.
    ///
    /// # Errors
    /// Where z has another shape.
    pub fn forward(&self, z: &Tensor) -> Result<Mapped> {
        self.check(z)?;
        let mut points = z.clone();
        let mut log_determinant = self.log_scale.sum_all()?.broadcast_as(z.dim(0)?)?;
        for coupling in &self.couplings {
            let (next, log) = coupling.forward(&points)?;
            (points, log_determinant) = (next, (log_determinant + log)?);
        }
        let points = points.broadcast_mul(&self.log_scale.exp()?)?.broadcast_add(&self.shift)?;
        Ok(Mapped { points, log_determinant })
    }

    /// From x to noise z, with log|det ∂z/∂x|.
    ///
    /// # Shapes
    /// `x` `[B, D]`.
    ///
    /// # Errors
    /// Where x has another shape.
    pub fn inverse(&self, x: &Tensor) -> Result<Mapped> {
        self.check(x)?;
        let mut points = x.broadcast_sub(&self.shift)?.broadcast_mul(&self.log_scale.neg()?.exp()?)?;
        let mut log_determinant = self.log_scale.sum_all()?.neg()?.broadcast_as(x.dim(0)?)?;
        for coupling in self.couplings.iter().rev() {
            let (next, log) = coupling.inverse(&points)?;
            (points, log_determinant) = (next, (log_determinant + log)?);
        }
        Ok(Mapped { points, log_determinant })
    }

    /// log q at x, `[B]`.
    ///
    /// # Errors
    /// Where x has another shape.
    pub fn log_density(&self, x: &Tensor) -> Result<Tensor> {
        let Mapped { points, log_determinant } = self.inverse(x)?;
        Ok((standard_normal_log(&points)? + log_determinant)?)
    }
}

/// log N(z; 0, I) of each row.
///
/// # Errors
/// Where z has no rows.
pub fn standard_normal_log(z: &Tensor) -> Result<Tensor> {
    let constant = 0.5 * z.dim(1)? as f64 * std::f64::consts::TAU.ln();
    Ok(z.sqr()?.sum(1)?.affine(-0.5, -constant)?)
}
