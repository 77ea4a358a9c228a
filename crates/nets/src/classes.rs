//! A class as a learned vector: one row a class, and one for none.
//!
//! Labels run from 0 to n − 1. The label n, and no labels at all, mean no class: a network trained with some of its labels dropped is
//! conditional and unconditional at once (Ho, Salimans 2022, arXiv 2207.12598).

use candle_core::Tensor;

use crate::{Builder, Error, Init, Result};

/// The vectors of n classes and of none, `[n + 1, width]`.
#[derive(Debug)]
pub(crate) struct ClassVectors(Tensor);

impl ClassVectors {
    pub(crate) fn new(b: &Builder, classes: usize, width: usize) -> Result<Self> {
        Ok(Self(b.get(&[classes + 1, width], "weight", Init::Normal { std: 1.0 })?))
    }

    /// `[B]` to `[B, width]`, or `[1, width]` for no labels.
    pub(crate) fn forward(&self, labels: Option<&Tensor>) -> Result<Tensor> {
        match labels {
            None => Ok(self.0.narrow(0, self.0.dim(0)? - 1, 1)?),
            Some(labels) => Ok(self.0.index_select(labels, 0)?),
        }
    }
}

/// Refuses labels where none are taken, and those that are not one a sample.
pub(crate) fn check_labels(taken: bool, labels: Option<&Tensor>, batch: usize) -> Result<()> {
    let (expected, found) = match labels {
        None => return Ok(()),
        Some(_) if !taken => {
            ("none, since the network was configured without `classes`".into(), "labels".into())
        }
        Some(labels) if labels.dims() == [batch] => return Ok(()),
        Some(labels) => (format!("[{batch}]"), format!("{:?}", labels.dims())),
    };
    Err(Error::Shape { what: "class labels", expected, found })
}
