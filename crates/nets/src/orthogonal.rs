//! Learned orthonormal bases: a rotation P of the entries of a sample, from free parameters, by a choice of maps.
//!
//! ```text
//! exponential   P = exp(U − Uᵀ)                  every rotation of D entries; D (D − 1)/2 parameters
//! cayley        P = (I − H/2)⁻¹ (I + H/2)        those without the eigenvalue −1
//! householder   P = Π (I − 2 v vᵀ/‖v‖²)          pairs of reflections: k vectors of D
//! blocks        P = blockdiag(P₁, P₂, …)         of neighbouring entries
//! kronecker     P = P_c ⊗ P_h ⊗ P_w              one rotation for each axis of an image
//! cosine, axes                                   nothing to learn
//! ```
//!
//! A [`Frame`] is P at the present values of the parameters, in the type that it is to be applied in.
//!
//! Reference: "A Flexible Diffusion Model", section A.4 and B.2 (exponential); Householder 1958; Cayley 1846.
//! Differs: initial values are small, `H ~ N(0, std²/n)`, whose largest angle is about `2 std` for every size; those of
//! the paper, N(0, 1), start at a random rotation. Reflections come in pairs that start close to each other, so that P
//! starts close to the identity.

mod frame;

pub use frame::Frame;

use candle_core::{DType, Device, Tensor};
use sde_core::Basis;
use serde::{Deserialize, Serialize};

use crate::ops::{orthogonal_cayley, orthogonal_exponential};
use crate::{Builder, Error, Init, Result};

/// Which map.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum OrthogonalConfig {
    /// `exp(U − Uᵀ)`.
    Exponential {
        /// √D times the initial standard deviation of the entries of U.
        std: f64,
    },
    /// Cayley's map of `U − Uᵀ`.
    Cayley {
        /// √D times the initial standard deviation of the entries of U.
        std: f64,
    },
    /// Reflections, in pairs.
    Householder {
        /// The number of reflections, even.
        reflections: usize,
        /// The initial standard deviation of the difference between the two of a pair, whose entries are N(0, 1).
        std: f64,
    },
    /// An exponential for each block of neighbouring entries.
    Blocks {
        /// The number of entries of a block, a divisor of D.
        size: usize,
        /// √size times the initial standard deviation of the entries of each U.
        std: f64,
    },
    /// An exponential for each axis of the sample.
    Kronecker {
        /// √n times the initial standard deviation of the entries of each U.
        std: f64,
    },
    /// The cosines (DCT-II) along the axes of an image, without those of channels, or along all of a point.
    Cosine {},
    /// The axes themselves.
    Axes {},
}

impl OrthogonalConfig {
    /// The map for samples of `sample_shape`, with parameters from `b`.
    ///
    /// # Errors
    /// [`Error::Config`] where it does not fit such samples.
    pub fn build(&self, b: &Builder, sample_shape: &[usize]) -> Result<OrthogonalMap> {
        self.check(sample_shape)?;
        let dim: usize = sample_shape.iter().product();
        let upper = |b: &Builder, rows: Option<usize>, n: usize, std: f64| {
            let m = n * (n - 1) / 2;
            let shape: Vec<usize> = rows.into_iter().chain([m]).collect();
            b.get(&shape, "upper", Init::Normal { std: std / (n as f64).sqrt() })
        };
        let parts = match *self {
            Self::Exponential { std } => Parts::Exponential(upper(b, None, dim, std)?),
            Self::Cayley { std } => Parts::Cayley(upper(b, None, dim, std)?),
            Self::Householder { reflections, std } => {
                let shape = [reflections / 2, dim];
                let vectors = b.get(&shape, "vectors", Init::Normal { std: 1.0 })?;
                Parts::Householder(vectors, b.get(&shape, "differences", Init::Normal { std })?)
            }
            Self::Blocks { size, std } => Parts::Blocks(upper(b, Some(dim / size), size, std)?, size),
            Self::Kronecker { std } => {
                let axes = sample_shape.iter().enumerate();
                // An axis of one entry has nothing to turn.
                let axes = axes.map(|(axis, &n)| {
                    (n > 1).then(|| upper(&b.pp(axis), None, n, std)).transpose().map(|upper| (upper, n))
                });
                Parts::Kronecker(axes.collect::<Result<_>>()?)
            }
            Self::Cosine {} => Parts::Fixed(cosines(sample_shape)?),
            Self::Axes {} => Parts::Fixed(sample_shape.iter().map(|_| None).collect()),
        };
        Ok(OrthogonalMap { parts, shape: sample_shape.to_vec(), device: b.device().clone() })
    }

    fn check(&self, sample_shape: &[usize]) -> Result<()> {
        let dim: usize = sample_shape.iter().product();
        if dim == 0 {
            return Err(Error::config("map", "made for samples with entries", format!("{sample_shape:?}")));
        }
        match *self {
            Self::Exponential { std }
            | Self::Cayley { std }
            | Self::Blocks { std, .. }
            | Self::Kronecker { std }
            | Self::Householder { std, .. }
                if !(std >= 0.0 && std.is_finite()) =>
            {
                Err(Error::config("map.std", "0 or more", std))
            }
            Self::Householder { reflections, .. } if reflections == 0 || reflections % 2 == 1 => {
                Err(Error::config("map.reflections", "an even number, 2 or more", reflections))
            }
            Self::Blocks { size, .. } if size < 2 || !dim.is_multiple_of(size) => {
                Err(Error::config("map.size", format!("a divisor of {dim}, 2 or more"), size))
            }
            _ => Ok(()),
        }
    }
}

/// The parameters.
#[derive(Debug)]
enum Parts {
    Exponential(Tensor),
    Cayley(Tensor),
    Householder(Tensor, Tensor),
    Blocks(Tensor, usize),
    Kronecker(Vec<(Option<Tensor>, usize)>),
    /// One constant factor for each axis.
    Fixed(Vec<Option<Tensor>>),
}

/// A rotation of the entries of a sample, with its parameters.
#[derive(Debug)]
pub struct OrthogonalMap {
    parts: Parts,
    shape: Vec<usize>,
    device: Device,
}

impl OrthogonalMap {
    /// The parameters.
    pub fn parameters(&self) -> Vec<&Tensor> {
        match &self.parts {
            Parts::Exponential(upper) | Parts::Cayley(upper) | Parts::Blocks(upper, _) => vec![upper],
            Parts::Householder(vectors, differences) => vec![vectors, differences],
            Parts::Kronecker(axes) => axes.iter().filter_map(|(upper, _)| upper.as_ref()).collect(),
            Parts::Fixed(_) => Vec::new(),
        }
    }

    /// P at the present values, on the tape where the parameters are variables; made in f64, to be applied in `dtype`.
    pub fn frame(&self, dtype: DType) -> Result<Frame> {
        let dim = self.shape.iter().product();
        let cast = |p: Tensor| Ok::<_, Error>(p.to_dtype(dtype)?.to_device(&self.device)?);
        Ok(match &self.parts {
            Parts::Exponential(upper) => Frame::dense(cast(orthogonal_exponential(&in_f64(upper)?, dim)?)?)?,
            Parts::Cayley(upper) => Frame::dense(cast(orthogonal_cayley(&in_f64(upper)?, dim)?)?)?,
            Parts::Householder(vectors, differences) => {
                let (first, second) = (in_f64(vectors)?, in_f64(differences)?);
                let second = (&first + second)?;
                let dims = (2 * first.dim(0)?, dim);
                let v = Tensor::stack(&[first, second], 1)?.reshape(dims)?;
                let norms = v.sqr()?.sum_keepdim(1)?.sqrt()?;
                Frame::reflections(cast(v.broadcast_div(&norms)?)?)
            }
            Parts::Blocks(upper, size) => {
                Frame::blocks(cast(orthogonal_exponential(&in_f64(upper)?, *size)?)?)
            }
            Parts::Kronecker(axes) => {
                let factor = |(upper, n): &(Option<Tensor>, usize)| {
                    upper.as_ref().map(|u| cast(orthogonal_exponential(&in_f64(u)?, *n)?)).transpose()
                };
                Frame::kronecker(&self.shape, axes.iter().map(factor).collect::<Result<_>>()?)?
            }
            Parts::Fixed(factors) => {
                let factors = factors.iter().map(|p| p.clone().map(cast).transpose());
                Frame::kronecker(&self.shape, factors.collect::<Result<_>>()?)?
            }
        })
    }
}

/// A parameter in f64, on a device that has it.
///
/// # Errors
/// Where it cannot be moved there.
pub fn in_f64(parameter: &Tensor) -> Result<Tensor> {
    let here = match parameter.device() {
        Device::Metal(_) => parameter.to_device(&Device::Cpu)?,
        _ => parameter.clone(),
    };
    Ok(here.to_dtype(DType::F64)?)
}

/// The cosine basis of each axis but that of channels.
fn cosines(sample_shape: &[usize]) -> Result<Vec<Option<Tensor>>> {
    let channels = usize::from(sample_shape.len() == 3);
    let factor = |(axis, &n): (usize, &usize)| {
        if axis < channels || n == 1 {
            return Ok(None);
        }
        let basis = Basis::dct(n, 1);
        let values: Vec<f64> = (0..n * n).map(|at| basis.factors()[0][(at / n, at % n)]).collect();
        Ok(Some(Tensor::from_vec(values, (n, n), &Device::Cpu)?))
    };
    sample_shape.iter().enumerate().map(factor).collect()
}
