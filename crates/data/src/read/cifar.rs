//! The binary CIFAR-10 files: records of one label byte and 3 × 32 × 32 pixel bytes, planes red, green, blue,
//! rows from the top.
//!
//! Reference: Krizhevsky 2009, "Learning multiple layers of features from tiny images", and the published
//! description of the binary version.

use std::path::{Path, PathBuf};

use ndarray::Array4;

use super::source::{check_published, read_file};
use crate::error::Place;
use crate::{Error, Images, Result, Split};

const CHANNELS: usize = 3;
const SIDE: usize = 32;
const RECORD: usize = 1 + CHANNELS * SIDE * SIDE;
const CLASSES: usize = 10;
const OFFICIAL_LENGTH: u64 = 10_000 * RECORD as u64;
/// The SHA-256 of official files, of those that were at hand to measure it.
const PUBLISHED: [(&str, &str); 2] = [
    ("data_batch_1.bin", "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5"),
    ("test_batch.bin", "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b"),
];

/// The official file names of a split.
pub fn file_names(split: Split) -> &'static [&'static str] {
    match split {
        Split::Train => &[
            "data_batch_1.bin",
            "data_batch_2.bin",
            "data_batch_3.bin",
            "data_batch_4.bin",
            "data_batch_5.bin",
        ],
        Split::Test => &["test_batch.bin"],
    }
}

/// A split of a directory with the official file names.
///
/// # Errors
/// If a file is malformed, has the official length but other contents, or is not there and `allow_partial`
/// does not permit that (one is needed in any case).
pub fn read_cifar10(directory: &Path, split: Split, allow_partial: bool) -> Result<Images> {
    let (there, missing): (Vec<&str>, Vec<&str>) =
        file_names(split).iter().partition(|name| directory.join(name).is_file());
    if there.is_empty() || !(missing.is_empty() || allow_partial) {
        return Err(Error::Missing {
            set: "CIFAR-10",
            files: missing.join(", "),
            directory: directory.to_owned(),
            reason: if there.is_empty() {
                "the binary version's files, any number of records each".into()
            } else {
                format!(
                    "there are only {} of {} files; `allow_partial = true` does without",
                    there.len(),
                    there.len() + missing.len()
                )
            },
        });
    }
    let files: Vec<PathBuf> = there.iter().map(|name| directory.join(name)).collect();
    read_cifar10_files(&files)
}

/// The records of some files, one after another.
///
/// # Errors
/// If a file is not a whole number of records, at least one, or a label is not below 10.
pub fn read_cifar10_files(files: &[PathBuf]) -> Result<Images> {
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for file in files {
        let bytes = read_file(file)?;
        if let Some((_, sha256)) = PUBLISHED.iter().find(|(name, _)| file.ends_with(name)) {
            check_published(&bytes, file, OFFICIAL_LENGTH, sha256)?;
        }
        parse_records(&bytes, file, &mut pixels, &mut labels)?;
    }
    let shape = (labels.len(), CHANNELS, SIDE, SIDE);
    let pixels = Array4::from_shape_vec(shape, pixels)
        .map_err(|e| Error::mismatch("CIFAR-10 records", format!("{shape:?}"), e.to_string()))?;
    Images::new(pixels, Some(labels))?.with_classes(CLASSES)
}

fn parse_records(bytes: &[u8], file: &Path, pixels: &mut Vec<u8>, labels: &mut Vec<u32>) -> Result<()> {
    let (records, rest) = bytes.as_chunks::<RECORD>();
    if records.is_empty() || !rest.is_empty() {
        let whole = (bytes.len() - rest.len()) as u64;
        return Err(Error::malformed(
            file,
            Place::Byte(whole),
            format!("whole records of {RECORD} bytes, at least one"),
            format!("{} bytes of a record at the end of the file", rest.len()),
        ));
    }
    for (i, record) in records.iter().enumerate() {
        let [label, image @ ..] = record;
        if usize::from(*label) >= CLASSES {
            let place = Place::Byte((i * RECORD) as u64);
            return Err(Error::malformed(file, place, "a label from 0 to 9", label.to_string()));
        }
        labels.push(u32::from(*label));
        pixels.extend_from_slice(image);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dataset;

    /// A record whose pixel (c, y, x) tells c, y and x apart.
    fn record(label: u8) -> Vec<u8> {
        let pixel = |i: usize| (i / 1024 * 64 + i % 1024 / 32 + (i % 32) * 2) as u8;
        std::iter::once(label).chain((0..3072).map(pixel)).collect()
    }

    #[test]
    fn images_are_upright() -> Result<()> {
        let directory = tempfile::tempdir().map_err(Error::io(Path::new("temporary directory")))?;
        let write = |name: &str, bytes: &[u8]| {
            let path = directory.path().join(name);
            std::fs::write(&path, bytes).map_err(Error::io(&path))
        };
        write("test_batch.bin", &[record(9), record(0), record(4)].concat())?;
        let test = read_cifar10(directory.path(), Split::Test, false)?;
        assert_eq!((test.len(), test.classes(), test.label(0)?), (3, 10, Some(9)));
        let image = test.pixels(2)?;
        assert_eq!((image[[0, 5, 0]], image[[0, 0, 5]], image[[2, 1, 0]]), (5, 10, 129));

        // Files of any number of records, but all of them unless told otherwise.
        write("data_batch_1.bin", &record(1))?;
        write("data_batch_3.bin", &[record(2), record(3)].concat())?;
        assert_eq!(read_cifar10(directory.path(), Split::Train, true)?.len(), 3);
        let message = read_cifar10(directory.path(), Split::Train, false).err().map(|e| e.to_string());
        let message = message.unwrap_or_default();
        assert!(
            message.contains("put data_batch_2.bin, data_batch_4.bin, data_batch_5.bin into"),
            "{message}"
        );
        assert!(message.contains("2 of 5"), "{message}");
        let empty = directory.path().join("nowhere");
        assert!(matches!(read_cifar10(&empty, Split::Train, true), Err(Error::Missing { .. })));
        Ok(())
    }

    #[test]
    fn truncated_files_and_wrong_labels_are_errors() {
        let file = Path::new("data_batch_1.bin");
        let two = [record(3), record(8)].concat();
        let parse = |bytes: &[u8]| parse_records(bytes, file, &mut Vec::new(), &mut Vec::new());
        for cut in (0..two.len()).filter(|&cut| cut != RECORD) {
            assert!(parse(&two[..cut]).is_err(), "cut at {cut}");
        }
        assert!(parse(&two).is_ok());
        let message = parse(&[record(3), record(10)].concat()).err().map(|e| e.to_string());
        assert_eq!(
            message.as_deref(),
            Some("data_batch_1.bin, byte 3073: expected a label from 0 to 9, found 10")
        );
    }
}
