//! A variational autoencoder of binary data, and the law of the code of one example as a target.
//!
//! ```text
//! z ~ N(0, I)      x_i | z ~ Bernoulli(σ(f_i(z)))      q(z | x) = N(m(x), diag e^{v(x)})
//! log p(x) ≥ E_q[log p(x | z)] − KL(q(z | x) ‖ p(z))              μ̂(z) = p(z) p(x | z),  Z = p(x)
//! ```
//!
//! Encoder and decoder are fully connected, with SiLU between their layers.
//!
//! Reference: Kingma, Welling 2014, arXiv 1312.6114; Zhang 2023 (thesis), Eq. (5.22), for the posterior as a target.

use std::f64::consts::TAU;

use candle_core::{DType, Tensor};
use sde_core::target::{LogDensity, Target};
use sde_core::{Error as CoreError, reverse_mode};
use serde::{Deserialize, Serialize};

use crate::layers::Linear;
use crate::{Builder, Error, Result, ops};

/// An autoencoder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaeConfig {
    /// K, the number of entries of a code.
    pub code: usize,
    /// The width of each hidden layer of the encoder, and backwards of the decoder.
    pub hidden: Vec<usize>,
}

/// Linear maps with SiLU between them.
#[derive(Debug)]
struct Layers(Vec<Linear>);

impl Layers {
    fn new(b: &Builder, widths: &[usize]) -> Result<Self> {
        let pairs = widths.iter().zip(widths.iter().skip(1)).enumerate();
        pairs.map(|(i, (&m, &n))| Linear::new(&b.pp(i), m, n, 1.0)).collect::<Result<_>>().map(Self)
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut hidden = x.clone();
        for (i, layer) in self.0.iter().enumerate() {
            hidden = layer.forward(&if i == 0 { hidden } else { ops::silu(&hidden)? })?;
        }
        Ok(hidden)
    }
}

/// The networks of a [`VaeConfig`].
#[derive(Debug)]
pub struct Vae {
    encoder: Layers,
    decoder: Layers,
    code: usize,
}

impl Vae {
    /// The autoencoder of examples of `dim` entries.
    ///
    /// # Errors
    /// [`Error::Config`] for a code or a layer of no width.
    pub fn new(b: &Builder, config: &VaeConfig, dim: usize) -> Result<Self> {
        if config.code == 0 || config.hidden.contains(&0) {
            let found = format!("a code of {}, layers {:?}", config.code, config.hidden);
            return Err(Error::config("code and hidden", "positive widths", found));
        }
        let outer = |first: usize, last: usize, hidden: &mut dyn Iterator<Item = usize>| {
            [first].into_iter().chain(hidden).chain([last]).collect::<Vec<_>>()
        };
        let down = outer(dim, 2 * config.code, &mut config.hidden.iter().copied());
        let up = outer(config.code, dim, &mut config.hidden.iter().rev().copied());
        Ok(Self {
            encoder: Layers::new(&b.pp("encoder"), &down)?,
            decoder: Layers::new(&b.pp("decoder"), &up)?,
            code: config.code,
        })
    }

    /// K.
    pub fn code(&self) -> usize {
        self.code
    }

    /// Mean and logarithm of the variance of q(z | x).
    ///
    /// # Shapes
    /// `[B, D]` to twice `[B, K]`.
    ///
    /// # Errors
    /// When the examples do not fit.
    pub fn encode(&self, x: &Tensor) -> Result<(Tensor, Tensor)> {
        let both = self.encoder.forward(x)?;
        Ok((both.narrow(1, 0, self.code)?, both.narrow(1, self.code, self.code)?))
    }

    /// f, the log odds of each entry.
    ///
    /// # Shapes
    /// `[B, K]` to `[B, D]`.
    ///
    /// # Errors
    /// When the codes do not fit.
    pub fn decode(&self, z: &Tensor) -> Result<Tensor> {
        self.decoder.forward(z)
    }

    /// log p(x | z).
    ///
    /// # Shapes
    /// `x` `[B, D]` or `[1, D]`, of zeros and ones, `z` `[B, K]`; the result is `[B]`.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn log_likelihood(&self, x: &Tensor, z: &Tensor) -> Result<Tensor> {
        let odds = self.decode(z)?;
        // log(1 + e^f) without overflow.
        let softplus = (odds.relu()? + (odds.abs()?.neg()?.exp()? + 1.0)?.log()?)?;
        Ok((odds.broadcast_mul(x)? - softplus)?.sum(1)?)
    }

    /// The bound of log p(x) with one code for each example, z = m + e^{v/2} ξ.
    ///
    /// # Shapes
    /// `x` `[B, D]` of zeros and ones, `xi` `[B, K]` standard normal; the bound is `[B]`.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn bound(&self, x: &Tensor, xi: &Tensor) -> Result<Tensor> {
        let (mean, log_variance) = self.encode(x)?;
        let z = (&mean + (xi * (&log_variance * 0.5)?.exp()?)?)?;
        let divergence = (((mean.sqr()? + log_variance.exp()?)? - log_variance)? - 1.0)?.sum(1)?;
        Ok((self.log_likelihood(x, &z)? - (divergence * 0.5)?)?)
    }
}

/// The law of the code of one example.
#[derive(Debug)]
pub struct VaePosterior {
    vae: Vae,
    example: Tensor,
}

impl VaePosterior {
    /// The posterior of `example`; the network is one of f64 that is not trained.
    ///
    /// # Shapes
    /// `example` `[1, D]`, f64, of zeros and ones.
    ///
    /// # Errors
    /// When the example is of another type or rank, or not binary.
    pub fn new(vae: Vae, example: Tensor) -> Result<Self> {
        let binary = || {
            Ok::<_, Error>(example.flatten_all()?.to_vec1::<f64>()?.iter().all(|v| *v == 0.0 || *v == 1.0))
        };
        if example.dtype() != DType::F64 || example.rank() != 2 || example.dim(0)? != 1 || !binary()? {
            let found = format!("{:?} in {:?}", example.dims(), example.dtype());
            return Err(Error::config("example", "zeros and ones, [1, D] in f64", found));
        }
        Ok(Self { vae, example })
    }
}

impl Target for VaePosterior {
    fn name(&self) -> &str {
        "vae"
    }

    fn dim(&self) -> usize {
        self.vae.code()
    }

    fn log_normaliser(&self) -> Option<f64> {
        None
    }

    fn log_density(&self, z: &Tensor) -> sde_core::Result<LogDensity> {
        if z.rank() != 2 || z.dim(1)? != self.dim() || z.dtype() != DType::F64 {
            return Err(CoreError::Mismatch {
                what: "codes given to a posterior",
                expected: format!("[B, {}] in f64", self.dim()),
                found: format!("{:?} in {:?}", z.dims(), z.dtype()),
            });
        }
        let constant = -0.5 * self.dim() as f64 * TAU.ln();
        let density = |z: &Tensor| {
            let prior = z.sqr()?.sum(1)?.affine(-0.5, constant)?;
            Ok((prior + self.vae.log_likelihood(&self.example, z)?)?)
        };
        let (value, slopes) = reverse_mode(density, z, &|value| Ok(vec![value.ones_like()?]))?;
        let score = slopes.into_iter().next().ok_or(CoreError::NoGradient { hint: "a code is needed" })?;
        Ok(LogDensity { value, score })
    }
}
