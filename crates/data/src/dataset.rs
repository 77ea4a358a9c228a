//! The trait that every data set implements: examples by index, and noise by address.
//!
//! An example is a pure function of its index and of its noise address. Dequantisation draws from
//! [`Stream::Dequantise`](sde_core::noise::Stream) and flips from
//! [`Stream::Augment`](sde_core::noise::Stream), so a batch cut in two is the same batch.

use candle_core::Tensor;
use sde_core::noise::BatchNoise;

use crate::{Encoding, Error, Result};

/// Some examples.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The examples, f32 on the host, `[B, C, H, W]` or `[B, D]`.
    pub x: Tensor,
    /// Their classes, u32 `[B]`, if the data is labelled.
    pub labels: Option<Tensor>,
    /// What was done to them, f32 `[B, K]`, if the data is augmented and says so; zeros where nothing was.
    pub augment: Option<Tensor>,
}

/// Which part of the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// What is fitted.
    Train,
    /// What is held out.
    Test,
}

impl Split {
    /// `"train"` or `"test"`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Test => "test",
        }
    }
}

/// A finite data set with random access.
pub trait Dataset: Send + Sync {
    /// The number of examples.
    fn len(&self) -> usize;

    /// Whether there are no examples.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The shape of one example: `[C, H, W]` or `[D]`.
    fn shape(&self) -> &[usize];

    /// What the values are.
    fn encoding(&self) -> Encoding;

    /// The number of classes; 0 if unlabelled.
    fn classes(&self) -> usize;

    /// The examples `indices`; example `i` of the batch draws its noise at address `noise.samples[i]`.
    ///
    /// # Errors
    /// If an index is out of range, or `noise` has not one address an example.
    fn batch(&self, indices: &[usize], noise: &BatchNoise) -> Result<Batch>;
}

/// Checks what every `batch` demands of its arguments.
pub(crate) fn check_batch(len: usize, indices: &[usize], noise: &BatchNoise) -> Result<()> {
    if let Some(&index) = indices.iter().find(|&&i| i >= len) {
        return Err(Error::Index { index, len });
    }
    if indices.len() != noise.samples.len() {
        return Err(Error::mismatch(
            "noise of a batch",
            format!("{} addresses", indices.len()),
            noise.samples.len().to_string(),
        ));
    }
    Ok(())
}
