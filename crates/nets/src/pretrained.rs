//! Published weights, and files for others: from their names and shapes to ours and back.
//!
//! | layout | read | written |
//! |---|---|---|
//! | [`diffusers`]: a folder of `UNet2DModel`, old and new names of attention | yes | yes |
//! | [`score_sde`]: a `.pth` checkpoint, its model and the list of its averages | yes | no |
//! | [`inception`]: FID's network, in its published layouts | yes | as safetensors |
//! | [`single_file`]: our own, weights with their configuration in one safetensors file | yes | yes |
//!
//! A reader knows the network first, from the file or from its caller, and then asks the file for exactly its tensors:
//! what is missing, of another shape or left over is listed under the file's own names. [`pickle`] reads `.pth` files
//! without running them.

pub(crate) mod dictionary;
pub mod diffusers;
pub mod inception;
pub mod pickle;
pub mod score_sde;
pub mod single_file;

use std::path::Path;

use crate::{Error, Result, UnetConfig, Weights};

/// A network of another project, in our terms.
#[derive(Debug, Clone)]
pub struct Pretrained {
    /// The network.
    pub net: UnetConfig,
    /// The shape of one sample, `[C, H, W]`.
    pub sample_shape: Vec<usize>,
    /// The weights, in the types of the file.
    pub weights: Weights,
    /// Their average over training, buffers included, where the file has one.
    pub average: Option<Weights>,
    /// The moments of Adam, where the file has them.
    pub moments: Option<Moments>,
    /// The number of updates made; 0 where the file does not say.
    pub step: u64,
}

/// The moments of Adam, by the names of the trainable parameters.
#[derive(Debug, Clone)]
pub struct Moments {
    /// The average of the gradients.
    pub first: Weights,
    /// The average of their squares.
    pub second: Weights,
}

/// The bytes of a file. Not a memory map: a file that is cut while it is mapped ends the process.
fn read_file(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(Error::io(path))
}
