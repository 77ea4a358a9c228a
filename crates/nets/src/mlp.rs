//! A score network for points: fully connected layers over the state, with the time, and the class if there are any, added to the first.
//!
//! ```text
//! h₁ = A x + e(t) + c_y        h_{i+1} = W_i SiLU(h_i) + b_i        output = W SiLU(h_n) + b
//! ```
//!
//! e(t) is a two-layer network on the features of the time, c_y a learned vector. With Fourier features of the state, x is followed by `sin 2πΩx` and
//! `cos 2πΩx`, Ω random and fixed: without them a network of the plane learns sharp edges very slowly.
//!
//! Reference: Zhang, Chen 2021, arXiv 2110.07579, appendix (the networks of the two-dimensional data sets);
//! Tancik et al. 2020, arXiv 2006.10739, Eq. (5), for the features of the state.
//! Differs: SiLU in the place of GELU.

use std::f64::consts::TAU;

use candle_core::Tensor;
use sde_core::{Model, Pass, Prediction};
use serde::{Deserialize, Serialize};

use crate::classes::{ClassVectors, check_labels};
use crate::embedding::{TimeEmbedding, TimeFeatures};
use crate::head::{Last, Trunk};
use crate::layers::{Linear, NOTHING, matmul_by_rows};
use crate::{Builder, Error, Init, Result, ops, points};

/// Random Fourier features of the state.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateFeatures {
    /// The number of frequencies, each a sine and a cosine.
    pub count: usize,
    /// Their standard deviation, in cycles per unit of the state.
    pub std: f64,
}

/// A fully connected network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MlpConfig {
    /// What the output means.
    #[serde(with = "crate::config::prediction")]
    pub prediction: Prediction,
    /// The width of each hidden layer; at least one.
    pub hidden: Vec<usize>,
    /// The number of time features; even.
    pub time_dim: usize,
    /// The features of the time.
    pub time: TimeFeatures,
    /// Fourier features of the state, beside the state itself; none if absent.
    pub state: Option<StateFeatures>,
    /// The number of classes; where absent, the network is unconditional.
    pub classes: Option<usize>,
}

/// The network of a [`MlpConfig`].
#[derive(Debug)]
pub struct Mlp {
    prediction: Prediction,
    time: TimeEmbedding,
    classes: Option<ClassVectors>,
    /// Ωᵀ, `[D, count]`.
    frequencies: Option<Tensor>,
    layers: Vec<Linear>,
    last: Last,
}

impl Mlp {
    /// The network for samples of `sample_shape`, which it sees as vectors.
    ///
    /// # Errors
    /// [`crate::Error::Config`] where the configuration describes no network.
    pub fn new(b: &Builder, config: &MlpConfig, sample_shape: &[usize]) -> Result<Self> {
        Self::with_last(b, config, sample_shape, 1.0)
    }

    /// The same network with a last layer that is zero at first.
    pub(crate) fn starting_at_zero(b: &Builder, config: &MlpConfig, sample_shape: &[usize]) -> Result<Self> {
        Self::with_last(b, config, sample_shape, NOTHING)
    }

    fn with_last(b: &Builder, config: &MlpConfig, sample_shape: &[usize], scale: f64) -> Result<Self> {
        let dim = points::dimension(sample_shape)?;
        let Some(&first) = config.hidden.first().filter(|_| !config.hidden.contains(&0)) else {
            return Err(Error::config(
                "hidden",
                "one or more positive widths",
                format!("{:?}", config.hidden),
            ));
        };
        let time = TimeEmbedding::new(&b.pp("time"), &config.time, config.time_dim, first)?;
        let classes = match config.classes {
            Some(0) => return Err(Error::config("classes", "positive, or absent", 0)),
            Some(n) => Some(ClassVectors::new(&b.pp("classes"), n, first)?),
            None => None,
        };
        let frequencies = config
            .state
            .map(|state| b.buffer(&[dim, state.count], "frequencies", Init::Normal { std: state.std }))
            .transpose()?;
        let inputs = dim + 2 * config.state.map_or(0, |state| state.count);
        let widths: Vec<usize> =
            [inputs].into_iter().chain(config.hidden.iter().copied()).chain([dim]).collect();
        let layers = widths
            .iter()
            .zip(widths.iter().skip(1))
            .enumerate()
            .map(|(i, (&inputs, &outputs))| {
                let scale = if i == config.hidden.len() { scale } else { 1.0 };
                Linear::new(&b.pp("layer").pp(i), inputs, outputs, scale)
            })
            .collect::<Result<_>>()?;
        let last = Last::Vector { width: config.hidden.last().copied().unwrap_or(first), outputs: dim };
        Ok(Self { prediction: config.prediction, time, classes, frequencies, layers, last })
    }

    /// The output, and the last hidden state.
    fn run(&self, x: &Tensor, t: &Tensor, pass: Pass<'_>) -> Result<(Tensor, Tensor)> {
        check_labels(self.classes.is_some(), pass.labels, x.dim(0)?)?;
        points::unaugmented(pass)?;
        let (mut hidden, mut last) = (x.flatten_from(1)?, x.clone());
        if let Some(frequencies) = &self.frequencies {
            let phases = (matmul_by_rows(&hidden, frequencies)? * TAU)?;
            hidden = Tensor::cat(&[&hidden, &ops::sinusoids(&phases)?], 1)?;
        }
        for (i, layer) in self.layers.iter().enumerate() {
            last = hidden.clone();
            hidden = match i {
                0 => self.conditioned(layer.forward(&hidden)?, t, pass)?,
                _ => layer.forward(&ops::silu(&hidden)?)?,
            };
        }
        Ok((hidden.reshape(x.dims())?, last))
    }

    /// The first layer, told of time and class.
    fn conditioned(&self, first: Tensor, t: &Tensor, pass: Pass<'_>) -> Result<Tensor> {
        let told = first.broadcast_add(&self.time.forward(t)?)?;
        match &self.classes {
            Some(vectors) => Ok(told.broadcast_add(&vectors.forward(pass.labels)?)?),
            None => Ok(told),
        }
    }
}

impl Model for Mlp {
    fn prediction(&self) -> Prediction {
        self.prediction
    }

    /// Labels run from 0 to `classes` − 1; the label `classes`, and no labels at all, mean no class.
    fn forward(&self, x: &Tensor, t: &Tensor, pass: Pass<'_>) -> sde_core::Result<Tensor> {
        Ok(self.run(x, t, pass)?.0)
    }
}

impl Trunk for Mlp {
    fn features(&self, x: &Tensor, t: &Tensor, pass: Pass<'_>) -> Result<(Tensor, Tensor)> {
        self.run(x, t, pass)
    }

    fn last(&self) -> Last {
        self.last
    }
}
