//! Augmentation that does not leak: random geometric transformations of images, and features that tell a network
//! which one it sees. Samples are drawn, and everything is measured, with the features of the identity, which are
//! zeros.
//!
//! In this order, about the centre of the image; a, b ~ N(0, 1), φ ~ U(−π, π), i ~ U{0, 1}:
//!
//! | transformation | parameters | features |
//! |---|---|---|
//! | mirror left and right | i | i |
//! | mirror up and down | i | i |
//! | scale by (2^s)^a | a | a |
//! | rotate by φ, anticlockwise as seen | φ | cos φ − 1, sin φ |
//! | stretch by (2^r)^a along φ, by the inverse across it; in half of the cases φ is 0 instead | a, φ | a cos φ, a sin φ |
//! | shift by t times the size, (a, b) | a, b | a, b |
//!
//! Each is made with a probability, otherwise its parameters are those of the identity. The
//! mirror images are exact, the others are interpolated together, at once (`warp`).
//!
//! Reference: Karras et al. 2022, arXiv 2206.00364, appendix F.2 and Table 6; Karras et al. 2020, arXiv
//! 2006.06676, appendix B.

mod warp;

use std::f64::consts::{PI, TAU};
use std::sync::Arc;

use candle_core::{Device, Tensor};
use rayon::prelude::*;
use sde_core::noise::{BatchNoise, Draws, Stream};

use self::warp::{Affine, warp};
use crate::{Batch, Dataset, Encoding, Error, Result};

/// The number of features.
const FEATURES: usize = 9;
/// The site of the draws in their stream; flips of [`Images`](crate::Images) have site 0.
const SITE: u32 = 1;

/// How often and how strongly images are transformed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Augmentation {
    /// The probability that mirroring left and right comes into question; half of those are mirrored.
    pub mirror: f64,
    /// The probability of each of the others; mirroring up and down is made in half of those.
    pub probability: f64,
    /// s, in octaves.
    pub scale: f64,
    /// r, in octaves.
    pub stretch: f64,
    /// t, in widths and heights.
    pub shift: f64,
}

impl Augmentation {
    /// Karras et al.'s for CIFAR-10.
    pub const CIFAR10: Self = Self { mirror: 1.0, probability: 0.12, scale: 0.2, stretch: 0.2, shift: 0.125 };

    fn check(&self) -> Result<()> {
        let numbers = [
            ("probability of an augmentation", self.mirror, 1.0),
            ("probability of an augmentation", self.probability, 1.0),
            ("scale of an augmentation", self.scale, 2.0),
            ("stretch of an augmentation", self.stretch, 2.0),
            ("shift of an augmentation", self.shift, 2.0),
        ];
        for (what, value, most) in numbers {
            if !(0.0..=most).contains(&value) {
                return Err(Error::mismatch(what, format!("a number from 0 to {most}"), value.to_string()));
            }
        }
        Ok(())
    }

    /// A transformation. Everything is drawn, needed or not, so that a probability changes no other draw.
    fn draw(&self, draws: &mut Draws) -> Transformation {
        let p = self.probability;
        let [mirror, upset, scale, rotate, stretch, shift] =
            [self.mirror, p, p, p, p, p].map(|p| if draws.uniform() < p { 1.0 } else { 0.0 });
        let coins = [draws.sign(), draws.sign()].map(|sign| sign < 0.0);
        let angles = [draws.uniform(), draws.uniform()].map(|u| TAU * u - PI);
        let normals = [draws.normal(), draws.normal(), draws.normal(), draws.normal()];
        // Half of the stretches are along the axes.
        let turned = if draws.uniform() < 0.5 { 1.0 } else { 0.0 };
        Transformation {
            mirror: coins[0] && mirror > 0.0,
            upset: coins[1] && upset > 0.0,
            scale: scale * normals[0],
            angle: rotate * angles[0],
            stretch: stretch * normals[1],
            along: turned * angles[1],
            shift: [shift * normals[2], shift * normals[3]],
        }
    }
}

/// The parameters of one transformation.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Transformation {
    mirror: bool,
    upset: bool,
    scale: f64,
    angle: f64,
    stretch: f64,
    along: f64,
    shift: [f64; 2],
}

impl Transformation {
    fn features(&self) -> [f32; FEATURES] {
        let coin = |i: bool| if i { 1.0 } else { 0.0 };
        [
            coin(self.mirror),
            coin(self.upset),
            self.scale,
            // cos φ − 1 without cancellation.
            -2.0 * libm::sin(0.5 * self.angle).powi(2),
            libm::sin(self.angle),
            self.stretch * libm::cos(self.along),
            self.stretch * libm::sin(self.along),
            self.shift[0],
            self.shift[1],
        ]
        .map(|feature| feature as f32)
    }

    /// The map from a place in the new image to one in the old, both relative to the centre; none for the identity.
    fn inverse(&self, law: &Augmentation, height: usize, width: usize) -> Option<Affine> {
        let still = self.scale == 0.0 && self.angle == 0.0 && self.stretch == 0.0 && self.shift == [0.0; 2];
        if still {
            return None;
        }
        let shrink = libm::exp2(-law.scale * self.scale);
        let squeeze = libm::exp2(-law.stretch * self.stretch);
        let [right, down] = [self.shift[0] * width as f64, self.shift[1] * height as f64];
        Some(
            Affine::shift(-law.shift * right, -law.shift * down)
                .then(Affine::rotation(-self.along))
                .then(Affine::diagonal(squeeze, 1.0 / squeeze))
                .then(Affine::rotation(self.along))
                .then(Affine::rotation(self.angle))
                .then(Affine::diagonal(shrink, shrink)),
        )
    }

    /// Transforms an image `[C, H, W]` in place.
    fn apply(&self, law: &Augmentation, image: &mut [f32], [height, width]: [usize; 2]) {
        if self.mirror {
            image.chunks_mut(width).for_each(<[f32]>::reverse);
        }
        if self.upset {
            for plane in image.chunks_mut(height * width) {
                plane.reverse();
                plane.chunks_mut(width).for_each(<[f32]>::reverse);
            }
        }
        if let Some(inverse) = self.inverse(law, height, width) {
            image.chunks_mut(height * width).for_each(|plane| warp(plane, height, width, &inverse));
        }
    }
}

/// A data set of images, transformed at random, whose batches say how.
pub struct Augmented {
    images: Arc<dyn Dataset>,
    law: Augmentation,
    shape: [usize; 3],
}

impl Augmented {
    /// The same images, transformed.
    ///
    /// # Errors
    /// If they are not images, or the law has a probability outside [0, 1] or an effect outside [0, 2].
    pub fn new(images: Arc<dyn Dataset>, law: Augmentation) -> Result<Self> {
        law.check()?;
        let &[channels, height, width] = images.shape() else {
            let found = format!("{:?}", images.shape());
            return Err(Error::mismatch("examples to augment", "images [C, H, W]", found));
        };
        Ok(Self { images, law, shape: [channels, height, width] })
    }
}

impl Dataset for Augmented {
    fn len(&self) -> usize {
        self.images.len()
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The range of the images. What is interpolated lies between their levels, and is no dequantised data, so it
    /// counts as quantised: a likelihood of it is refused.
    fn encoding(&self) -> Encoding {
        match self.images.encoding() {
            Encoding::Dequantised { levels, range } => Encoding::Quantised { levels, range },
            other => other,
        }
    }

    fn classes(&self) -> usize {
        self.images.classes()
    }

    fn batch(&self, indices: &[usize], noise: &BatchNoise) -> Result<Batch> {
        let Batch { x, labels, .. } = self.images.batch(indices, noise)?;
        let [channels, height, width] = self.shape;
        let mut values = x.flatten_all()?.to_vec1::<f32>()?;
        let mut features = vec![0f32; indices.len() * FEATURES];
        values
            .par_chunks_mut(channels * height * width)
            .zip(features.par_chunks_mut(FEATURES))
            .zip(noise.draws(Stream::Augment, SITE))
            .for_each(|((image, features), mut draws)| {
                let transformation = self.law.draw(&mut draws);
                features.copy_from_slice(&transformation.features());
                transformation.apply(&self.law, image, [height, width]);
            });
        let augment = Some(Tensor::from_vec(features, (indices.len(), FEATURES), &Device::Cpu)?);
        Ok(Batch { x: Tensor::from_vec(values, x.shape(), &Device::Cpu)?, labels, augment })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Images, Range};
    use ndarray::Array4;
    use sde_core::noise::Noise;

    const IDENTITY: Transformation = Transformation {
        mirror: false,
        upset: false,
        scale: 0.0,
        angle: 0.0,
        stretch: 0.0,
        along: 0.0,
        shift: [0.0; 2],
    };

    fn images() -> Result<Arc<dyn Dataset>> {
        let pixels =
            Array4::from_shape_fn((4, 3, 8, 6), |(n, c, h, w)| (n * 60 + c * 20 + h * 7 + w * w) as u8);
        Ok(Arc::new(Images::new(pixels, Some(vec![0, 1, 2, 0]))?))
    }

    fn noise(samples: impl IntoIterator<Item = u32>) -> BatchNoise {
        BatchNoise::new(Noise::new(9), 4, samples)
    }

    fn numbers(x: &Tensor) -> Result<Vec<f32>> {
        Ok(x.flatten_all()?.to_vec1()?)
    }

    #[test]
    fn without_probability_nothing_changes_and_the_features_are_zeros() -> Result<()> {
        let law = Augmentation { mirror: 0.0, probability: 0.0, ..Augmentation::CIFAR10 };
        let (plain, augmented) = (images()?, Augmented::new(images()?, law)?);
        let (found, expected) =
            (augmented.batch(&[3, 0], &noise(0..2))?, plain.batch(&[3, 0], &noise(0..2))?);
        assert_eq!(numbers(&found.x)?, numbers(&expected.x)?);
        assert_eq!(found.augment.map(|a| numbers(&a)).transpose()?, Some(vec![0.0; 18]));
        assert!(found.labels.is_some() && expected.augment.is_none());
        Ok(())
    }

    #[test]
    fn features_are_zeros_exactly_where_the_image_is_as_it_was() -> Result<()> {
        let (plain, augmented) = (images()?, Augmented::new(images()?, Augmentation::CIFAR10)?);
        let n = 2000;
        let indices: Vec<usize> = (0..n).map(|i| i % 4).collect();
        let batch = augmented.batch(&indices, &noise(0..n as u32))?;
        let (x, originals) = (numbers(&batch.x)?, numbers(&plain.batch(&indices, &noise(0..n as u32))?.x)?);
        let features = numbers(&batch.augment.ok_or(Error::Empty("the features"))?)?;
        let mut mirrored = 0;
        for ((image, original), features) in x.chunks(144).zip(originals.chunks(144)).zip(features.chunks(9))
        {
            assert_eq!(features.iter().all(|f| *f == 0.0), image == original, "{features:?}");
            mirrored += usize::from(features[0] == 1.0);
        }
        // Binomial: standard error √n/2.
        assert!(
            (mirrored as f64 - n as f64 / 2.0).abs() < 5.0 * (n as f64).sqrt() / 2.0,
            "{mirrored} of {n}"
        );
        Ok(())
    }

    #[test]
    fn mirror_images_are_exact() {
        let image: Vec<f32> = (0..24).map(|i| i as f32).collect();
        let apply = |transformation: Transformation| {
            let mut image = image.clone();
            transformation.apply(&Augmentation::CIFAR10, &mut image, [3, 4]);
            image
        };
        let at = |c: usize, h: usize, w: usize| (c * 12 + h * 4 + w) as f32;
        let (left_right, up_down) = (
            apply(Transformation { mirror: true, ..IDENTITY }),
            apply(Transformation { upset: true, ..IDENTITY }),
        );
        for (i, (a, b)) in left_right.iter().zip(&up_down).enumerate() {
            let (c, h, w) = (i / 12, i / 4 % 3, i % 4);
            assert_eq!((*a, *b), (at(c, h, 3 - w), at(c, 2 - h, w)));
        }
    }

    /// What was at the top comes to the left by a quarter turn.
    #[test]
    fn transformations_act_as_their_features_say() {
        let (law, size) = (Augmentation::CIFAR10, 9usize);
        // Smooth, and through the border: no frequency above one period an image.
        let wave = |x: f64, y: f64| {
            let k = PI / (size as f64 - 1.0);
            (k * x).cos() + 0.5 * (k * y).cos()
        };
        let picture: Vec<f32> =
            (0..size * size).map(|i| wave((i % size) as f64, (i / size) as f64) as f32).collect();
        let (middle, n) = (4.0, size as f64);
        // What stands at (x, y) after each, from the table of the module.
        type Place = Box<dyn Fn(f64, f64) -> (f64, f64)>;
        let cases: [(Transformation, [f64; FEATURES], Place); 4] = [
            (
                Transformation { angle: 0.5 * PI, ..IDENTITY },
                [0.0, 0.0, 0.0, -1.0, 1.0, 0.0, 0.0, 0.0, 0.0],
                Box::new(move |x, y| (2.0 * middle - y, x)),
            ),
            (
                Transformation { scale: 1.5, ..IDENTITY },
                [0.0, 0.0, 1.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
                Box::new(move |x, y| {
                    let s = 2f64.powf(-0.3);
                    (middle + s * (x - middle), middle + s * (y - middle))
                }),
            ),
            (
                Transformation { stretch: 1.5, along: 0.5 * PI, ..IDENTITY },
                [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.5, 0.0, 0.0],
                Box::new(move |x, y| {
                    let s = 2f64.powf(0.3);
                    (middle + s * (x - middle), middle + (y - middle) / s)
                }),
            ),
            (
                Transformation { shift: [0.7, -0.4], ..IDENTITY },
                [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.7, -0.4],
                Box::new(move |x, y| (x - 0.7 * n / 8.0, y + 0.4 * n / 8.0)),
            ),
        ];
        // The bound of `warp`'s own test for k = π/8: 1.9 · 1.5 k²/32 + 1.5 · 1.1 (½ k)³/3.
        let k: f64 = PI / 8.0;
        let bound = 1.9 * 1.5 * k * k / 32.0 + 1.5 * 1.1 * (0.5 * k).powi(3) / 3.0;
        for (transformation, features, from) in cases {
            let mut image = picture.clone();
            transformation.apply(&law, &mut image, [size, size]);
            for (i, value) in image.iter().enumerate() {
                let (x, y) = from((i % size) as f64, (i / size) as f64);
                let gap = (f64::from(*value) - wave(x, y)).abs();
                assert!(gap < bound, "{transformation:?} at {i}: {gap}, bound {bound}");
            }
            for (found, expected) in transformation.features().iter().zip(features) {
                assert!((f64::from(*found) - expected).abs() < 1e-6, "{transformation:?}");
            }
        }
    }

    #[test]
    fn a_batch_does_not_depend_on_how_it_is_cut() -> Result<()> {
        let augmented =
            Augmented::new(images()?, Augmentation { probability: 0.9, ..Augmentation::CIFAR10 })?;
        let parts = |cuts: &[(u32, u32)]| -> Result<Vec<f32>> {
            let mut all = Vec::new();
            for &(from, to) in cuts {
                let indices: Vec<usize> = (from..to).map(|i| i as usize % 4).collect();
                let batch = augmented.batch(&indices, &noise(from..to))?;
                let features = numbers(&batch.augment.ok_or(Error::Empty("the features"))?)?;
                for (image, features) in numbers(&batch.x)?.chunks(144).zip(features.chunks(9)) {
                    all.extend_from_slice(image);
                    all.extend_from_slice(features);
                }
            }
            Ok(all)
        };
        assert_eq!(parts(&[(0, 12)])?, parts(&[(0, 5), (5, 12)])?);
        Ok(())
    }

    #[test]
    fn what_cannot_be_augmented_is_refused_and_what_was_is_not_dequantised() -> Result<()> {
        for law in [
            Augmentation { probability: 1.5, ..Augmentation::CIFAR10 },
            Augmentation { mirror: f64::NAN, ..Augmentation::CIFAR10 },
            Augmentation { scale: -0.1, ..Augmentation::CIFAR10 },
        ] {
            assert!(Augmented::new(images()?, law).is_err());
        }
        let points: Arc<dyn Dataset> =
            Arc::new(crate::Points::new(ndarray::arr2(&[[1.0, 2.0], [3.0, 4.0]]).view())?);
        assert!(Augmented::new(points, Augmentation::CIFAR10).is_err());
        let dequantised = Encoding::Dequantised { levels: 256, range: Range::SIGNED };
        let images: Arc<dyn Dataset> =
            Arc::new(Images::new(Array4::zeros((1, 1, 2, 2)), None)?.with_encoding(dequantised)?);
        let augmented = Augmented::new(images, Augmentation::CIFAR10)?;
        assert_eq!(augmented.encoding(), Encoding::Quantised { levels: 256, range: Range::SIGNED });
        Ok(())
    }
}
