//! What the networks for points share: their view of a sample as one vector, without classes or augmentation.

use sde_core::Pass;

use crate::{Error, Result};

/// The number of values of a sample.
pub(crate) fn dimension(sample_shape: &[usize]) -> Result<usize> {
    match sample_shape.iter().product() {
        0 => Err(Error::config("sample shape", "one or more values", format!("{sample_shape:?}"))),
        dim => Ok(dim),
    }
}

/// Refuses labels and features of an augmentation, rather than not looking at them.
pub(crate) fn unconditional(pass: Pass<'_>) -> Result<()> {
    if let Some(labels) = pass.labels {
        return Err(Error::Shape {
            what: "class labels",
            expected: "none, since this network has no classes".into(),
            found: format!("labels {:?}", labels.dims()),
        });
    }
    unaugmented(pass)
}

/// Refuses features of an augmentation.
pub(crate) fn unaugmented(pass: Pass<'_>) -> Result<()> {
    match pass.augment {
        None => Ok(()),
        Some(features) => Err(Error::Shape {
            what: "features of the augmentation",
            expected: "none, since this network is not told of augmentations: a U-Net with `augment` is, or leave out `data.augment`".into(),
            found: format!("features {:?}", features.dims()),
        }),
    }
}
