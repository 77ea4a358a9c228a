//! What every block is told besides the state: `e = SiLU(MLP(features(t) + …))`.
//!
//! The time as features. The class either as a learned vector added behind the MLP, or as a unit vector
//! mapped linearly and added to the features, `W √n 1_c + b` for n classes. Augmentations as `A a`, added to
//! the features.
//!
//! Reference: Ho, Jain, Abbeel 2020, arXiv 2006.11239, appendix B; Karras et al. 2022, arXiv 2206.00364,
//! appendix F.1 (classes and augmentations).

use candle_core::Tensor;
use sde_core::Pass;

use super::UnetConfig;
use crate::classes::{ClassVectors, check_labels};
use crate::embedding::TimeEmbedding;
use crate::layers::{Linear, matmul_by_rows};
use crate::{Builder, Error, Init, Result, ops, points};

/// How a class enters.
#[derive(Debug)]
enum Classes {
    /// Added to the embedding.
    Vectors(ClassVectors),
    /// A linear map of unit vectors, added to the features; no class is the zero vector.
    Features(Linear),
}

#[derive(Debug)]
pub(super) struct Conditioning {
    time: TimeEmbedding,
    classes: Option<Classes>,
    /// `[features, entries]`.
    augment: Option<Tensor>,
}

impl Conditioning {
    pub(super) fn new(b: &Builder, config: &UnetConfig) -> Result<Self> {
        let (features, width) = (config.time_dim.unwrap_or(config.channels), config.embedding());
        let classes = |n: usize| -> Result<Classes> {
            let b = b.pp("classes");
            Ok(match config.one_hot {
                true => Classes::Features(Linear::new(&b, n, features, 1.0)?),
                false => Classes::Vectors(ClassVectors::new(&b, n, width)?),
            })
        };
        let augment = |entries: usize| {
            b.pp("augment").get(&[features, entries], "weight", Init::FanAverage { scale: 1.0 })
        };
        Ok(Self {
            time: TimeEmbedding::new(&b.pp("time"), &config.time, features, width)?,
            classes: config.classes.map(classes).transpose()?,
            augment: config.augment.map(augment).transpose()?,
        })
    }

    /// `[B]`, or `[1]` for all, to `[B, E]`. SiLU comes before every use of the embedding, so it comes here.
    pub(super) fn forward(&self, t: &Tensor, pass: Pass<'_>, batch: usize) -> Result<Tensor> {
        check_labels(self.classes.is_some(), pass.labels, batch)?;
        let mut features = self.time.features(t)?;
        if let Some(Classes::Features(map)) = &self.classes {
            features = features.broadcast_add(&map.of_units(pass.labels)?)?;
        }
        match (&self.augment, pass.augment) {
            (None, _) => points::unaugmented(pass)?,
            (Some(_), None) => (),
            (Some(map), Some(augment)) if augment.dims() == [batch, map.dim(1)?] => {
                features = features.broadcast_add(&matmul_by_rows(augment, &map.t()?)?)?;
            }
            (Some(map), Some(augment)) => {
                return Err(Error::Shape {
                    what: "features of the augmentation",
                    expected: format!("[{batch}, {}]", map.dim(1)?),
                    found: format!("{:?}", augment.dims()),
                });
            }
        }
        let mut embedding = self.time.of_features(&features)?;
        if let Some(Classes::Vectors(vectors)) = &self.classes {
            embedding = embedding.broadcast_add(&vectors.forward(pass.labels)?)?;
        }
        let embedding = ops::silu(&embedding)?;
        let (rows, width) = embedding.dims2()?;
        // One time for all, and nothing that tells samples apart.
        Ok(if rows == batch { embedding } else { embedding.broadcast_as((batch, width))?.contiguous()? })
    }
}
