//! What is timed, as both workers are told: one operator, a forward pass, a training step, a call of `fit`, a sampler.

use sde_nets::NetConfig;
use sde_train::AdamConfig;
use serde::{Deserialize, Serialize};

use crate::build::{ProcessConfig, SamplerConfig};
use crate::config::Preset;

/// Something that can be done again and again.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Case {
    /// A large matrix product on every thread at once: what the machine can do.
    Gemm {
        /// Rows and columns of the three matrices.
        size: usize,
    },
    /// One operator.
    Op {
        /// Which, at which shape.
        op: Operator,
        /// Forward or backward.
        pass: Pass,
        /// Samples.
        batch: usize,
    },
    /// A forward pass without a tape.
    Forward {
        /// The network.
        net: NetConfig,
        /// The shape of one sample.
        shape: Vec<usize>,
        /// Samples.
        batch: usize,
    },
    /// Features of square images by the FID's Inception network, from levels on.
    Features {
        /// Images.
        batch: usize,
        /// Their side.
        size: usize,
    },
    /// Updates by `fit` on a preset, its data pipeline included.
    Fit {
        /// The preset.
        preset: Box<Preset>,
        /// Whether images are made up rather than read.
        synthetic: bool,
    },
    /// The same in PyTorch: loss, backward, clipping, Adam, one average of the weights, on data that is there already.
    Step {
        /// The network.
        net: NetConfig,
        /// The shape of one sample.
        shape: Vec<usize>,
        /// Samples.
        batch: usize,
        /// Adam's constants.
        optimiser: AdamConfig,
        /// The largest norm of the gradients.
        clip: Option<f64>,
        /// The decay of the average.
        ema: f64,
    },
    /// One batch of samples.
    Sampling {
        /// The network.
        net: NetConfig,
        /// The shape of one sample.
        shape: Vec<usize>,
        /// Samples.
        batch: usize,
        /// Network calls.
        nfe: usize,
        /// The process.
        process: ProcessConfig,
        /// The sampler, with as many steps as there are calls.
        sampler: Box<SamplerConfig>,
    },
}

/// The direction of an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pass {
    /// The operator itself.
    Forward,
    /// All its gradients at once.
    Backward,
    /// Of a convolution: the gradient of the image.
    InputGradient,
    /// Of a convolution: the gradients of weight and bias.
    WeightGradient,
}

impl Pass {
    /// A short name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Backward => "backward",
            Self::InputGradient => "input grad",
            Self::WeightGradient => "weight grad",
        }
    }
}

/// An operator at a shape; images are `size`×`size`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Operator {
    Conv {
        inputs: usize,
        outputs: usize,
        kernel: usize,
        stride: usize,
        size: usize,
    },
    GroupNorm {
        channels: usize,
        groups: usize,
        silu: bool,
        size: usize,
    },
    Attention {
        channels: usize,
        heads: usize,
        size: usize,
    },
    Softmax {
        positions: usize,
    },
    Upsample {
        channels: usize,
        size: usize,
    },
    Silu {
        channels: usize,
        size: usize,
    },
    Dropout {
        channels: usize,
        size: usize,
    },
    Add {
        channels: usize,
        size: usize,
    },
    Concat {
        left: usize,
        right: usize,
        size: usize,
    },
    Linear {
        inputs: usize,
        outputs: usize,
    },
    /// A rotation `exp(U − Uᵀ)` of `size` rows in f64, of entries that turn by about two radians at most.
    Rotation {
        size: usize,
    },
    /// The update of all parameters by Adam, or of their average; `sizes` are those of the tensors.
    Update {
        what: Update,
        sizes: Vec<usize>,
    },
}

/// What is updated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Update {
    /// The parameters, by Adam.
    Adam,
    /// Their exponential moving average.
    Ema,
}

impl Operator {
    /// Its name and shape, as in `conv 3x3 128→256 at 16²`.
    pub fn label(&self) -> String {
        match self {
            Self::Conv { inputs, outputs, kernel, stride, size } => {
                let stride = if *stride == 1 { "" } else { " /2" };
                format!("conv {kernel}x{kernel}{stride} {inputs}→{outputs} at {size}²")
            }
            Self::GroupNorm { channels, silu, size, .. } => {
                format!("group norm{} {channels} at {size}²", if *silu { "+SiLU" } else { "" })
            }
            Self::Attention { channels, size, .. } => format!("attention {channels} at {size}²"),
            Self::Softmax { positions } => format!("softmax {positions}x{positions}"),
            Self::Upsample { channels, size } => format!("upsample {channels} from {size}²"),
            Self::Silu { channels, size } => format!("SiLU {channels} at {size}²"),
            Self::Dropout { channels, size } => format!("dropout {channels} at {size}²"),
            Self::Add { channels, size } => format!("add {channels} at {size}²"),
            Self::Concat { left, right, size } => format!("concat {left}+{right} at {size}²"),
            Self::Linear { inputs, outputs } => format!("linear {inputs}→{outputs}"),
            Self::Rotation { size } => format!("rotation exp(H) {size}"),
            Self::Update { what: Update::Adam, sizes } => {
                format!("Adam, {:.1} M", sizes.iter().sum::<usize>() as f64 / 1e6)
            }
            Self::Update { what: Update::Ema, sizes } => {
                format!("average, {:.1} M", sizes.iter().sum::<usize>() as f64 / 1e6)
            }
        }
    }
}
