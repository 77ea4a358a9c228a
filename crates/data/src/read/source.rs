//! Getting the bytes of a file into memory, within limits.
//!
//! Gzip is recognised by its first two bytes, not by the name. A stream may grow to 200 times its compressed
//! size (or to 32 MiB if that is more), and never beyond 8 GiB: a decompression bomb ends in an error, not in
//! an empty machine.

use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::Place;
use crate::{Error, Result};

/// The most bytes that one file may hold once read: 8 GiB.
pub(crate) const LIMIT: u64 = 8 << 30;
const RATIO: u64 = 200;
const FLOOR: u64 = 32 << 20;

/// The largest size allowed for what `compressed` bytes unfold to.
pub(crate) fn unfolded_limit(compressed: u64) -> u64 {
    compressed.saturating_mul(RATIO).clamp(FLOOR, LIMIT)
}

/// Reads to the end, or to an error at `limit`; what goes wrong in between is for `failed` to name.
pub(crate) fn read_within(
    stream: impl Read,
    limit: u64,
    file: &Path,
    failed: impl FnOnce(std::io::Error) -> Error,
) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(Error::TooLarge { file: file.to_owned(), limit });
    }
    Ok(bytes)
}

/// The bytes of a file.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>> {
    let file = std::fs::File::open(path).map_err(Error::io(path))?;
    read_within(file, LIMIT, path, Error::io(path))
}

/// The bytes themselves, or what they unfold to if they are gzip.
pub(crate) fn gunzip(bytes: Vec<u8>, file: &Path) -> Result<Vec<u8>> {
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return Ok(bytes);
    }
    let damaged =
        |e: std::io::Error| Error::malformed(file, Place::File, "a whole gzip stream", e.to_string());
    let stream = flate2::read::MultiGzDecoder::new(bytes.as_slice());
    read_within(stream, unfolded_limit(bytes.len() as u64), file, damaged)
}

/// SHA-256 in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Refuses bytes that have the length of a published file, but not its hash.
pub(crate) fn check_published(bytes: &[u8], file: &Path, length: u64, expected: &str) -> Result<()> {
    if bytes.len() as u64 != length {
        return Ok(());
    }
    let found = sha256(bytes);
    if found == expected {
        Ok(())
    } else {
        Err(Error::Hash { file: file.to_owned(), expected: expected.into(), found })
    }
}

#[cfg(test)]
pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let done = encoder.write_all(bytes).and_then(|()| encoder.finish());
    done.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_bombs_and_cut_streams_are_errors() -> Result<()> {
        let file = Path::new("bomb.gz");
        let bomb = gzip(&vec![0; 64 << 20]);
        assert!(matches!(gunzip(bomb, file), Err(Error::TooLarge { .. })));
        let plain: Vec<u8> = (0..=255).collect();
        let whole = gzip(&plain);
        assert_eq!(gunzip(whole.clone(), file)?, plain);
        for cut in 2..whole.len() {
            let cut_short = gunzip(whole[..cut].to_vec(), file);
            assert!(matches!(cut_short, Err(Error::Malformed { .. })), "cut at {cut}");
        }
        assert_eq!(gunzip(plain.clone(), file)?, plain);
        Ok(())
    }
}
