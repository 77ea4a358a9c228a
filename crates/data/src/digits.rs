//! The 8×8 handwritten digits that are built into this crate: 1,797 grey images of 17 levels (0 to 16), ten
//! classes.
//!
//! The split is fixed: the permutation of 0..1797 at address (seed 0, [`Stream::Shuffle`], 0, 0); its first
//! 1,437 entries are the training images, in that order, the other 360 the test images.
//!
//! Reference: Alpaydin, Kaynak 1998, "Optical Recognition of Handwritten Digits", UCI Machine Learning
//! Repository, doi 10.24432/C50P49 (CC BY 4.0; its test part).

use std::path::Path;

use ndarray::Array4;
use sde_core::noise::{Noise, Stream};

use crate::read::csv::{Header, parse_csv};
use crate::{Encoding, Error, Images, Range, Result, Split};

const FILE: &[u8] = include_bytes!("../assets/digits.csv.gz");
const SIDE: usize = 8;
const TRAIN: usize = 1437;
const SPLIT_SEED: u64 = 0;

/// The digits of a split: `[1, 8, 8]`, 17 levels, quantised in [−1, 1] unless given another encoding.
///
/// # Errors
/// Only if the embedded file is damaged.
pub fn digits(split: Split) -> Result<Images> {
    let table = parse_csv(FILE.to_vec(), Path::new("digits.csv.gz (embedded)"), Header::Absent)?.values;
    let (n, columns) = table.dim();
    if columns != SIDE * SIDE + 1 {
        return Err(Error::mismatch("embedded digits", "65 columns", columns.to_string()));
    }
    let pixels = Array4::from_shape_fn((n, 1, SIDE, SIDE), |(i, _, y, x)| table[[i, y * SIDE + x]] as u8);
    let labels = table.column(columns - 1).iter().map(|&v| v as u32).collect();
    let all = Images::new(pixels, Some(labels))?
        .with_encoding(Encoding::Quantised { levels: 17, range: Range::SIGNED })?;
    let order = Noise::new(SPLIT_SEED).draws(Stream::Shuffle, 0, 0).permutation(n);
    let (train, test) = order.split_at(TRAIN.min(n));
    all.subset(match split {
        Split::Train => train.iter().copied(),
        Split::Test => test.iter().copied(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dataset;

    #[test]
    fn the_digits_are_those_of_the_publication() -> Result<()> {
        let (train, test) = (digits(Split::Train)?, digits(Split::Test)?);
        assert_eq!(
            (train.len(), test.len(), train.classes(), train.shape()),
            (1437, 360, 10, [1, 8, 8].as_slice())
        );
        let mut counts = [0; 10];
        let (mut sum, mut top) = (0u32, 0);
        for set in [&train, &test] {
            for i in 0..set.len() {
                counts[set.label(i)?.unwrap_or(99) as usize] += 1;
                let pixels = set.pixels(i)?;
                sum += pixels.iter().map(|&p| u32::from(p)).sum::<u32>();
                top = top.max(pixels.iter().copied().max().unwrap_or(0));
            }
        }
        // The class counts of the UCI description; sum and maximum by numpy from the same file.
        assert_eq!(counts, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);
        assert_eq!((sum, top), (561_718, 16));
        Ok(())
    }

    #[test]
    fn the_split_does_not_move() -> Result<()> {
        let (train, test) = (digits(Split::Train)?, digits(Split::Test)?);
        let labels = |set: &Images| (0..12).map(|i| set.label(i)).collect::<Result<Option<Vec<u32>>>>();
        assert_eq!(labels(&train)?, Some(vec![5, 8, 4, 3, 1, 4, 5, 0, 1, 5, 0, 5]));
        assert_eq!(labels(&test)?, Some(vec![5, 2, 8, 8, 3, 5, 3, 6, 5, 4, 9, 0]));
        Ok(())
    }
}
