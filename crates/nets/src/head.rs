//! A second output on a network that is frozen: a head of its own on the last state of the network, whose one pass gives both outputs.
//!
//! ```text
//! U-Net              f = conv₃ₓ₃ SiLU(norm h), h the state before the network's own last normalisation
//! networks of points f = W₂ SiLU(W₁ SiLU(h) + b₁) + b₂, h the last hidden state
//! ```
//!
//! The network's tensors are plain, so that training changes the head alone, whose parameters are `head.*`; dropout is off. The head starts as
//! nothing.
//!
//! Reference: Bao, Li, Sun, Zhu, Zhang 2022, arXiv 2206.07309, section 4.3: a second prediction that shares the network of the first.
//! Differs: a layer between the last state and the head for networks of points.

use candle_core::Tensor;
use sde_core::{Model, Pass, Prediction};

use crate::layers::{Conv2d, GroupNorm, Linear, NOTHING};
use crate::ops::{self, GroupNormArgs, Window};
use crate::{Builder, NetConfig, Result, Weights};

/// What a head stands on.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Last {
    /// A map of `channels`, for images of `outputs`.
    Map { channels: usize, outputs: usize, norm: GroupNormArgs },
    /// A vector of `width`, for points of `outputs`.
    Vector { width: usize, outputs: usize },
}

/// A network that shows its last state.
pub(crate) trait Trunk: Model {
    /// The output, and the state that the last layers make it of.
    fn features(&self, x: &Tensor, t: &Tensor, pass: Pass<'_>) -> Result<(Tensor, Tensor)>;

    /// What that state is.
    fn last(&self) -> Last;
}

#[derive(Debug)]
enum Head {
    Map { norm: GroupNorm, output: Conv2d },
    Vector { hidden: Linear, output: Linear },
}

impl Head {
    fn new(b: &Builder, last: Last) -> Result<Self> {
        Ok(match last {
            Last::Map { channels, outputs, norm } => Self::Map {
                norm: GroupNorm::new(&b.pp("norm"), channels, norm)?,
                output: Conv2d::new(&b.pp("conv"), [channels, outputs], 3, Window::same(3), NOTHING)?,
            },
            Last::Vector { width, outputs } => Self::Vector {
                hidden: Linear::new(&b.pp("hidden"), width, width, 1.0)?,
                output: Linear::new(&b.pp("output"), width, outputs, NOTHING)?,
            },
        })
    }

    fn forward(&self, state: &Tensor) -> Result<Tensor> {
        match self {
            Self::Map { norm, output } => output.forward(&norm.forward(state)?),
            Self::Vector { hidden, output } => {
                output.forward(&ops::silu(&hidden.forward(&ops::silu(state)?)?)?)
            }
        }
    }
}

/// A frozen network with a second output.
pub struct SecondHead {
    trunk: Box<dyn Trunk + Send + Sync>,
    head: Head,
}

impl SecondHead {
    /// A head with parameters from `b` on the network of `config` with the weights `frozen`.
    ///
    /// # Errors
    /// [`crate::Error::Weights`] unless `frozen` are exactly the network's; [`crate::Error::Config`] where the configuration describes no network.
    pub fn new(b: &Builder, config: &NetConfig, frozen: &Weights, sample_shape: &[usize]) -> Result<Self> {
        let products = b.products();
        let trunk = frozen.freeze(b.dtype(), b.device(), |trunk| {
            config.trunk(&trunk.with_products(products), sample_shape)
        })?;
        let head = Head::new(&b.pp("head"), trunk.last())?;
        Ok(Self { trunk, head })
    }
}

impl Model for SecondHead {
    fn prediction(&self) -> Prediction {
        self.trunk.prediction()
    }

    /// The frozen network's output.
    fn forward(&self, x: &Tensor, t: &Tensor, pass: Pass<'_>) -> sde_core::Result<Tensor> {
        self.trunk.forward(x, t, Pass { dropout: None, ..pass })
    }

    fn forward_with_second(
        &self,
        x: &Tensor,
        t: &Tensor,
        pass: Pass<'_>,
    ) -> sde_core::Result<(Tensor, Option<Tensor>)> {
        let (output, state) = self.trunk.features(x, t, Pass { dropout: None, ..pass })?;
        let second = self.head.forward(&state)?.reshape(x.dims())?;
        Ok((output, Some(second)))
    }
}
