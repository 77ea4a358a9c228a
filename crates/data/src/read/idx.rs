//! The IDX format of MNIST and its kin: a big-endian header, then the entries in row-major order.
//!
//! ```text
//! 0 0 type rank   size₁ … size_rank (u32)   entries
//! ```
//!
//! Only type 0x08 (u8) is read, of any rank from 1, gzipped or not. Reference: LeCun, Cortes, Burges, "The
//! MNIST database", section on file formats.

use std::path::Path;

use ndarray::{ArrayD, Axis, Ix1, Ix3, IxDyn};

use super::source::{gunzip, read_file};
use crate::error::Place;
use crate::{Error, Images, Result};

/// The array of an IDX file.
///
/// # Errors
/// Unless the file is IDX of u8 and exactly as long as its header says.
pub fn read_idx(path: &Path) -> Result<ArrayD<u8>> {
    parse_idx(&gunzip(read_file(path)?, path)?, path)
}

/// Images `[N, H, W]` and their labels `[N]`, as [`Images`] of one channel.
///
/// # Errors
/// If either file is malformed, has another rank, or they do not belong together.
pub fn read_idx_pair(images: &Path, labels: &Path) -> Result<Images> {
    images_of(read_idx(images)?, images, read_idx(labels)?, labels)
}

/// [`read_idx_pair`] of arrays in memory.
pub(crate) fn images_of(
    pixels: ArrayD<u8>,
    image_file: &Path,
    labels: ArrayD<u8>,
    label_file: &Path,
) -> Result<Images> {
    let rank = |file: &Path, expected: &str, shape: &[usize]| {
        Error::malformed(file, Place::Byte(3), expected, format!("shape {shape:?}"))
    };
    let (shape, label_shape) = (pixels.shape().to_vec(), labels.shape().to_vec());
    let pixels =
        pixels.into_dimensionality::<Ix3>().map_err(|_| rank(image_file, "images of rank 3", &shape))?;
    let labels = labels
        .into_dimensionality::<Ix1>()
        .map_err(|_| rank(label_file, "labels of rank 1", &label_shape))?;
    Images::new(pixels.insert_axis(Axis(1)), Some(labels.iter().map(|&l| u32::from(l)).collect()))
}

/// Parses the bytes of an IDX file that is not compressed.
pub(crate) fn parse_idx(bytes: &[u8], file: &Path) -> Result<ArrayD<u8>> {
    let wrong = |at: usize, expected: &str, found: String| {
        Err(Error::malformed(file, Place::Byte(at as u64), expected, found))
    };
    let Some((&[zero, zero_too, kind, rank], rest)) = bytes.split_first_chunk::<4>() else {
        return wrong(bytes.len(), "a header of 4 bytes", "the end of the file".into());
    };
    if (zero, zero_too, kind) != (0, 0, 8) {
        return wrong(0, "00 00 08 (IDX of unsigned bytes)", format!("{zero:02x} {zero_too:02x} {kind:02x}"));
    }
    let header = 4 * usize::from(rank);
    if rank == 0 || rest.len() < header {
        return wrong(
            4,
            "one size of 4 bytes for each of 1 to 255 axes",
            format!("rank {rank}, {} bytes", rest.len()),
        );
    }
    let (sizes, entries) = rest.split_at(header);
    let shape: Vec<usize> =
        sizes.as_chunks::<4>().0.iter().map(|size| u32::from_be_bytes(*size) as usize).collect();
    let count = shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
    if count != Some(entries.len()) {
        return wrong(
            4 + header,
            &format!("the entries of shape {shape:?}"),
            format!("{} bytes", entries.len()),
        );
    }
    ArrayD::from_shape_vec(IxDyn(&shape), entries.to_vec())
        .or_else(|e| wrong(4, "a shape that fits memory", format!("{shape:?} ({e})")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dataset;
    use crate::read::source::gzip;

    fn idx(shape: &[u32], entries: &[u8]) -> Vec<u8> {
        let sizes = shape.iter().flat_map(|s| s.to_be_bytes());
        [0, 0, 8, shape.len() as u8].into_iter().chain(sizes).chain(entries.iter().copied()).collect()
    }

    #[test]
    fn any_rank_compressed_or_not() -> Result<()> {
        let directory = tempfile::tempdir().map_err(Error::io(Path::new("temporary directory")))?;
        let entries: Vec<u8> = (0..24).collect();
        for shape in [vec![24u32], vec![4, 6], vec![2, 3, 4], vec![1, 2, 3, 2, 2]] {
            for (name, bytes) in [("a", idx(&shape, &entries)), ("a.gz", gzip(&idx(&shape, &entries)))] {
                let path = directory.path().join(name);
                std::fs::write(&path, bytes).map_err(Error::io(&path))?;
                let array = read_idx(&path)?;
                assert_eq!(array.shape(), shape.iter().map(|&s| s as usize).collect::<Vec<_>>());
                assert!(array.iter().copied().eq(0..24));
            }
        }
        let (images, labels) = (directory.path().join("images"), directory.path().join("labels"));
        std::fs::write(&images, idx(&[2, 3, 4], &entries)).map_err(Error::io(&images))?;
        std::fs::write(&labels, idx(&[2], &[7, 3])).map_err(Error::io(&labels))?;
        let set = read_idx_pair(&images, &labels)?;
        assert_eq!((set.len(), set.shape(), set.label(1)?), (2, [1, 3, 4].as_slice(), Some(3)));
        assert_eq!(set.pixels(1)?[[0, 2, 1]], 12 + 9);
        assert!(read_idx_pair(&labels, &labels).is_err() && read_idx_pair(&images, &images).is_err());
        Ok(())
    }

    #[test]
    fn every_prefix_and_every_lie_is_an_error() {
        let file = Path::new("train-images-idx3-ubyte");
        let good = idx(&[2, 3], &[1, 2, 3, 4, 5, 6]);
        for cut in 0..good.len() {
            assert!(parse_idx(&good[..cut], file).is_err(), "cut at {cut}");
        }
        let longer = [good.as_slice(), &[0]].concat();
        for bad in [
            longer,
            idx(&[u32::MAX, u32::MAX, u32::MAX, u32::MAX], &[]),
            idx(&[0, u32::MAX, u32::MAX, u32::MAX, u32::MAX], &[]),
            idx(&[], &[]),
            vec![0, 0, 13, 1, 0, 0, 0, 0],
            [0, 0, 8, 255].to_vec(),
        ] {
            assert!(parse_idx(&bad, file).is_err(), "{bad:?}");
        }
        let message = parse_idx(&good[..15], file).err().map(|e| e.to_string()).unwrap_or_default();
        assert_eq!(
            message,
            "train-images-idx3-ubyte, byte 12: expected the entries of shape [2, 3], found 3 bytes"
        );
    }
}
