//! Images held in memory as bytes, with optional classes.
//!
//! Bytes become numbers when a batch is asked for: flip, then dequantise (see [`Encoding`]). A flip mirrors
//! left and right with probability ½. The uniform noise of a pixel is addressed by its place in the flipped
//! image.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use ndarray::{Array4, ArrayView3, Axis};
use rayon::prelude::*;
use sde_core::noise::{BatchNoise, Stream};

use crate::dataset::check_batch;
use crate::encoding::Decoder;
use crate::{Batch, Dataset, Encoding, Error, Range, Result};

/// A data set of images of one size, `[C, H, W]`, one byte a channel.
#[derive(Debug, Clone)]
pub struct Images {
    pixels: Arc<Array4<u8>>,
    labels: Option<Arc<[u32]>>,
    /// The rows of `pixels` that belong to this data set, in order.
    rows: Vec<usize>,
    shape: [usize; 3],
    classes: usize,
    encoding: Encoding,
    flips: bool,
}

impl Images {
    /// Images as read: 256 levels in [−1, 1], quantised, never flipped, as many classes as the largest label
    /// says.
    ///
    /// # Shapes
    /// `pixels` is `[N, C, H, W]`, `labels` `[N]`.
    ///
    /// # Errors
    /// If there are no pixels, or not one label an image.
    pub fn new(pixels: Array4<u8>, labels: Option<Vec<u32>>) -> Result<Self> {
        let (n, c, h, w) = pixels.dim();
        if pixels.is_empty() {
            return Err(Error::Empty("the image array"));
        }
        if let Some(labels) = labels.as_ref().filter(|l| l.len() != n) {
            return Err(Error::mismatch(
                "labels",
                format!("one for each of {n} images"),
                labels.len().to_string(),
            ));
        }
        let classes = labels.iter().flatten().max().map_or(0, |&top| top as usize + 1);
        Ok(Self {
            pixels: Arc::new(if pixels.is_standard_layout() {
                pixels
            } else {
                pixels.as_standard_layout().into_owned()
            }),
            labels: labels.map(Arc::from),
            rows: (0..n).collect(),
            shape: [c, h, w],
            classes,
            encoding: Encoding::Quantised { levels: 256, range: Range::SIGNED },
            flips: false,
        })
    }

    /// The same images in another encoding.
    ///
    /// # Errors
    /// If the encoding is continuous, or some byte is not one of its levels.
    pub fn with_encoding(self, encoding: Encoding) -> Result<Self> {
        encoding.check()?;
        let levels = encoding.levels().ok_or_else(|| {
            Error::mismatch("encoding of images", "quantised or dequantised", "continuous: bytes have levels")
        })?;
        let top = self.pixels.iter().copied().max().unwrap_or(0);
        if u32::from(top) >= levels {
            return Err(Error::mismatch(
                "encoding of images",
                format!("bytes below {levels}"),
                top.to_string(),
            ));
        }
        Ok(Self { encoding, ..self })
    }

    /// The same images, mirrored at random or not.
    pub fn with_flips(self, flips: bool) -> Self {
        Self { flips, ..self }
    }

    /// The same images with a number of classes that need not all occur.
    ///
    /// # Errors
    /// If the images are not labelled, or a label is not below `classes`.
    pub fn with_classes(self, classes: usize) -> Result<Self> {
        if self.labels.is_none() || classes < self.classes {
            let expected = if self.labels.is_none() {
                "labelled images".into()
            } else {
                format!("at least {}", self.classes)
            };
            return Err(Error::mismatch("number of classes", expected, classes.to_string()));
        }
        Ok(Self { classes, ..self })
    }

    /// Some of the images, in the order given; the bytes are shared.
    ///
    /// # Errors
    /// If an index is out of range.
    pub fn subset(&self, indices: impl IntoIterator<Item = usize>) -> Result<Self> {
        let len = self.rows.len();
        let row = |index: usize| self.rows.get(index).copied().ok_or(Error::Index { index, len });
        let rows = indices.into_iter().map(row).collect::<Result<_>>()?;
        Ok(Self { rows, ..self.clone() })
    }

    /// The bytes of one image, `[C, H, W]`.
    ///
    /// # Errors
    /// If the index is out of range.
    pub fn pixels(&self, index: usize) -> Result<ArrayView3<'_, u8>> {
        let row = self.rows.get(index).ok_or(Error::Index { index, len: self.rows.len() })?;
        Ok(self.pixels.index_axis(Axis(0), *row))
    }

    /// The class of one image; none if the images are not labelled.
    ///
    /// # Errors
    /// If the index is out of range.
    pub fn label(&self, index: usize) -> Result<Option<u32>> {
        let row = self.rows.get(index).ok_or(Error::Index { index, len: self.rows.len() })?;
        Ok(self.labels.as_ref().map(|labels| labels[*row]))
    }
}

impl Dataset for Images {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn encoding(&self) -> Encoding {
        self.encoding
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn batch(&self, indices: &[usize], noise: &BatchNoise) -> Result<Batch> {
        check_batch(self.len(), indices, noise)?;
        let decoder = Decoder::new(self.encoding).ok_or(Error::Empty("the table of levels"))?;
        let [c, h, w] = self.shape;
        let mut x = vec![0f32; indices.len() * c * h * w];
        let draws = noise.draws(Stream::Dequantise, 0).into_par_iter().zip(noise.draws(Stream::Augment, 0));
        x.par_chunks_mut(c * h * w).zip(indices).zip(draws).for_each(
            |((out, &index), (mut uniform, mut coin))| {
                let mut image = self.pixels.index_axis(Axis(0), self.rows[index]);
                if self.flips && coin.sign() < 0.0 {
                    image.invert_axis(Axis(2));
                }
                for (value, &level) in out.iter_mut().zip(image) {
                    *value = decoder.value(level, || uniform.uniform());
                }
            },
        );
        let labels = match &self.labels {
            None => None,
            Some(labels) => {
                let chosen: Vec<u32> = indices.iter().map(|&i| labels[self.rows[i]]).collect();
                Some(Tensor::from_vec(chosen, indices.len(), &Device::Cpu)?)
            }
        };
        Ok(Batch { x: Tensor::from_vec(x, (indices.len(), c, h, w), &Device::Cpu)?, labels, augment: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array4;
    use sde_core::noise::Noise;

    fn ramp() -> Result<Images> {
        let pixels = Array4::from_shape_fn((6, 2, 3, 4), |(n, c, h, w)| (n * 24 + c * 12 + h * 4 + w) as u8);
        Images::new(pixels, Some(vec![0, 1, 2, 0, 1, 2]))
    }

    fn dequantised() -> Result<Images> {
        Ok(ramp()?.with_encoding(Encoding::Dequantised { levels: 256, range: Range::UNIT })?.with_flips(true))
    }

    fn noise(samples: impl IntoIterator<Item = u32>) -> BatchNoise {
        BatchNoise::new(Noise::new(9), 4, samples)
    }

    #[test]
    fn a_batch_does_not_depend_on_how_it_is_cut() -> Result<()> {
        let images = dequantised()?;
        let indices: Vec<usize> = (0..6).chain(0..6).collect();
        let whole = images.batch(&indices, &noise(0..12))?.x;
        let (head, tail) =
            (images.batch(&indices[..5], &noise(0..5))?.x, images.batch(&indices[5..], &noise(5..12))?.x);
        let parts = Tensor::cat(&[head, tail], 0)?;
        assert_eq!(whole.flatten_all()?.to_vec1::<f32>()?, parts.flatten_all()?.to_vec1::<f32>()?);
        // The same image at another address is dequantised otherwise.
        assert_ne!(
            whole.get(0)?.flatten_all()?.to_vec1::<f32>()?,
            whole.get(6)?.flatten_all()?.to_vec1::<f32>()?
        );
        Ok(())
    }

    #[test]
    fn half_of_the_images_are_mirrored_and_keep_their_bytes() -> Result<()> {
        let images = dequantised()?;
        let n = 2000;
        let x = images.batch(&vec![1; n], &noise(0..n as u32))?.x;
        let bytes = images.encoding().quantise(&x)?.reshape((n, 6, 4))?.to_vec3::<u8>()?;
        let upright: Vec<Vec<u8>> = (0..6).map(|r| (0..4).map(|w| 24 + r * 4 + w).collect()).collect();
        let mirrored: Vec<Vec<u8>> = upright.iter().map(|row| row.iter().rev().copied().collect()).collect();
        let flips = bytes.iter().filter(|image| **image == mirrored).count();
        assert_eq!(flips + bytes.iter().filter(|image| **image == upright).count(), n);
        // Binomial: standard error √n/2.
        assert!((flips as f64 - n as f64 / 2.0).abs() < 5.0 * (n as f64).sqrt() / 2.0, "{flips} of {n}");
        Ok(())
    }

    #[test]
    fn subsets_share_and_keep_order() -> Result<()> {
        let subset = ramp()?.subset([4, 2])?.subset([1, 0, 1])?;
        assert_eq!((subset.len(), subset.classes(), subset.shape()), (3, 3, [2, 3, 4].as_slice()));
        assert_eq!(subset.pixels(0)?[[0, 0, 0]], 48);
        let batch = subset.batch(&[0, 1, 2], &noise(0..3))?;
        assert_eq!(batch.labels.map(|l| l.to_vec1::<u32>()).transpose()?, Some(vec![2, 1, 2]));
        assert_eq!(batch.x.dims(), [3, 2, 3, 4]);
        // Level k is −1 + 2k/255.
        assert_eq!(batch.x.get(1)?.flatten_all()?.to_vec1::<f32>()?[0], (-1.0 + 2.0 * 96.0 / 255.0) as f32);
        Ok(())
    }

    #[test]
    fn wrong_use_is_an_error() -> Result<()> {
        let images = ramp()?;
        assert!(matches!(images.batch(&[6], &noise([0])), Err(Error::Index { index: 6, len: 6 })));
        assert!(matches!(images.batch(&[1, 2], &noise([0])), Err(Error::Mismatch { .. })));
        assert!(images.subset([6]).is_err() && images.pixels(6).is_err() && images.label(6).is_err());
        assert!(images.clone().with_classes(2).is_err());
        for encoding in [
            Encoding::Continuous,
            Encoding::Quantised { levels: 17, range: Range::UNIT },
            Encoding::Dequantised { levels: 1, range: Range::UNIT },
            Encoding::Dequantised { levels: 257, range: Range::UNIT },
        ] {
            assert!(images.clone().with_encoding(encoding).is_err(), "{encoding:?}");
        }
        assert!(Images::new(Array4::zeros((0, 1, 2, 2)), None).is_err());
        assert!(Images::new(Array4::zeros((2, 1, 2, 2)), Some(vec![0])).is_err());
        Ok(())
    }
}
