//! A residual network for points and tabular data whose every layer starts as the identity.
//!
//! ```text
//! h₀ = A x + e(t)        h_{ℓ+1} = h_ℓ + α_ℓ SiLU(W_ℓ h_ℓ + b_ℓ), α_ℓ = 0 at first        output = W h_L + b
//! ```
//!
//! Reference: Bachlechner et al. 2020, arXiv 2003.04887, equation 1; used on tabular data by Zhang, Chen
//! 2021, arXiv 2110.07579.

use candle_core::Tensor;
use sde_core::{Model, Pass, Prediction};
use serde::{Deserialize, Serialize};

use crate::embedding::{TimeEmbedding, TimeFeatures};
use crate::head::{Last, Trunk};
use crate::layers::Linear;
use crate::{Builder, Error, Init, Result, ops, points};

/// A residual network with learned step sizes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RezeroConfig {
    /// What the output means.
    #[serde(with = "crate::config::prediction")]
    pub prediction: Prediction,
    /// The width of every layer.
    pub width: usize,
    /// The number of residual layers.
    pub layers: usize,
    /// The number of time features; even.
    pub time_dim: usize,
    /// The features of the time.
    pub time: TimeFeatures,
}

/// The network of a [`RezeroConfig`].
#[derive(Debug)]
pub struct Rezero {
    prediction: Prediction,
    time: TimeEmbedding,
    input: Linear,
    layers: Vec<(Linear, Tensor)>,
    output: Linear,
    last: Last,
}

impl Rezero {
    /// The network for samples of `sample_shape`, which it sees as vectors.
    ///
    /// # Errors
    /// [`crate::Error::Config`] where the configuration describes no network.
    pub fn new(b: &Builder, config: &RezeroConfig, sample_shape: &[usize]) -> Result<Self> {
        let (dim, width) = (points::dimension(sample_shape)?, config.width);
        if width == 0 {
            return Err(Error::config("width", "positive", width));
        }
        let layer = |i: usize| {
            let b = b.pp("layer").pp(i);
            Ok((Linear::new(&b, width, width, 1.0)?, b.get(&[1], "alpha", Init::Constant(0.0))?))
        };
        Ok(Self {
            prediction: config.prediction,
            time: TimeEmbedding::new(&b.pp("time"), &config.time, config.time_dim, width)?,
            input: Linear::new(&b.pp("input"), dim, width, 1.0)?,
            layers: (0..config.layers).map(layer).collect::<Result<_>>()?,
            output: Linear::new(&b.pp("output"), width, dim, 1.0)?,
            last: Last::Vector { width, outputs: dim },
        })
    }

    /// The output, and the last hidden state.
    fn run(&self, x: &Tensor, t: &Tensor, pass: Pass<'_>) -> Result<(Tensor, Tensor)> {
        points::unconditional(pass)?;
        let mut hidden = self.input.forward(&x.flatten_from(1)?)?.broadcast_add(&self.time.forward(t)?)?;
        for (linear, alpha) in &self.layers {
            let step = ops::silu(&linear.forward(&hidden)?)?.broadcast_mul(alpha)?;
            hidden = (hidden + step)?;
        }
        Ok((self.output.forward(&hidden)?.reshape(x.dims())?, hidden))
    }
}

impl Model for Rezero {
    fn prediction(&self) -> Prediction {
        self.prediction
    }

    fn forward(&self, x: &Tensor, t: &Tensor, pass: Pass<'_>) -> sde_core::Result<Tensor> {
        Ok(self.run(x, t, pass)?.0)
    }
}

impl Trunk for Rezero {
    fn features(&self, x: &Tensor, t: &Tensor, pass: Pass<'_>) -> Result<(Tensor, Tensor)> {
        self.run(x, t, pass)
    }

    fn last(&self) -> Last {
        self.last
    }
}
