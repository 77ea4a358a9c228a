//! NumPy's archives of arrays: zip files of `.npy` entries, stored or deflated.
//!
//! All entries together may unfold to 200 times the size of the archive (32 MiB at least, 8 GiB at most);
//! nothing is ever written to a path that an archive names. Written archives hold no date: equal arrays, equal bytes.

use std::collections::BTreeMap;
use std::io::{Cursor, Write};
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use ndarray::{ArrayD, IxDyn};
use zip::result::ZipError;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::npy::{NpyArray, parse_npy};
use super::source::{read_file, read_within, unfolded_limit};
use crate::error::Place;
use crate::{Error, Result};

/// All arrays of an archive, by their names without `.npy`.
///
/// # Errors
/// If the archive or an entry is malformed, an entry is not an array, or it unfolds to too much.
pub fn read_npz(path: &Path) -> Result<BTreeMap<String, NpyArray>> {
    parse_npz(&read_file(path)?, path)
}

/// The names of the arrays of an archive, without `.npy`; none of them is unfolded.
///
/// # Errors
/// If it is no archive.
pub fn names(path: &Path) -> Result<Vec<String>> {
    let file = std::fs::File::open(path).map_err(Error::io(path))?;
    let wrong = |e: ZipError| Error::malformed(path, Place::File, "a zip archive", e.to_string());
    let archive = ZipArchive::new(std::io::BufReader::new(file)).map_err(wrong)?;
    let plain = |name: &str| name.strip_suffix(".npy").unwrap_or(name).to_owned();
    archive.file_names().map(|name| name.map(|name| plain(&name)).map_err(wrong)).collect()
}

/// [`read_npz`] of bytes.
fn parse_npz(bytes: &[u8], file: &Path) -> Result<BTreeMap<String, NpyArray>> {
    let wrong = |place: Place, expected: &str, found: String| Error::malformed(file, place, expected, found);
    let mut archive = ZipArchive::new(Cursor::new(bytes))
        .map_err(|e| wrong(Place::File, "a zip archive", e.to_string()))?;
    let mut arrays = BTreeMap::new();
    let mut left = unfolded_limit(bytes.len() as u64);
    for index in 0..archive.len() {
        let entry = archive
            .by_index(index)
            .map_err(|e| wrong(Place::Row(index as u64), "a readable entry", e.to_string()))?;
        let name = String::from_utf8_lossy(entry.name_raw()).into_owned();
        let place = Place::Entry(name.clone());
        let Some(key) = name.strip_suffix(".npy").map(str::to_owned) else {
            return Err(wrong(place, "an array, NAME.npy", "another file".into()));
        };
        let damaged = |e: std::io::Error| wrong(place.clone(), "an intact entry", e.to_string());
        let unfolded = read_within(entry, left, file, damaged)?;
        left -= unfolded.len() as u64;
        let array = parse_npy(&unfolded, &file.join(&name))?;
        if arrays.insert(key, array).is_some() {
            return Err(wrong(place, "every name once", "it twice".into()));
        }
    }
    Ok(arrays)
}

/// Writes an archive of deflated arrays.
///
/// # Errors
/// If two names are equal, or the system refuses.
pub fn write_npz<'a>(path: &Path, arrays: impl IntoIterator<Item = (&'a str, &'a NpyArray)>) -> Result<()> {
    let failed = |e: ZipError| Error::Io { path: path.to_owned(), source: e.into() };
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    for (name, array) in arrays {
        let bytes = array.to_npy();
        let options = options.large_file(bytes.len() >= u32::MAX as usize);
        archive.start_file(format!("{name}.npy"), options).map_err(failed)?;
        archive.write_all(&bytes).map_err(Error::io(path))?;
    }
    let bytes = archive.finish().map_err(failed)?.into_inner();
    std::fs::write(path, bytes).map_err(Error::io(path))
}

/// Writes images in the layout that published metrics read: `arr_0`, uint8, `[N, H, W, C]`.
///
/// # Shapes
/// `levels` is u8 `[N, C, H, W]`, as [`Encoding::quantise`](crate::Encoding::quantise) makes it.
///
/// # Errors
/// If the tensor has another shape or type, or the system refuses.
pub fn write_samples(path: &Path, levels: &Tensor) -> Result<()> {
    if levels.dtype() != DType::U8 || levels.rank() != 4 {
        let found = format!("{:?} {:?}", levels.dtype(), levels.dims());
        return Err(Error::mismatch("samples to write", "u8 [N, C, H, W]", found));
    }
    let rows = levels.to_device(&Device::Cpu)?.permute((0, 2, 3, 1))?.contiguous()?;
    let array = ArrayD::from_shape_vec(IxDyn(rows.dims()), rows.flatten_all()?.to_vec1::<u8>()?)
        .map_err(|e| Error::mismatch("samples to write", format!("{:?}", rows.dims()), e.to_string()))?;
    write_npz(path, [("arr_0", &NpyArray::U8(array))])
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array, array};

    const FILE: &str = "samples.npz";

    fn directory() -> Result<tempfile::TempDir> {
        tempfile::tempdir().map_err(Error::io(Path::new("temporary directory")))
    }

    fn zip_of(entries: &[(&str, &[u8])], method: CompressionMethod) -> Result<Vec<u8>> {
        let failed = |e: ZipError| Error::Io { path: FILE.into(), source: e.into() };
        let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in entries {
            let options = SimpleFileOptions::default().compression_method(method);
            archive.start_file(*name, options).map_err(failed)?;
            archive.write_all(bytes).map_err(Error::io(Path::new(FILE)))?;
        }
        Ok(archive.finish().map_err(failed)?.into_inner())
    }

    #[test]
    fn archives_survive_the_round_trip_and_hold_no_date() -> Result<()> {
        let directory = directory()?;
        let (first, second) = (directory.path().join("a.npz"), directory.path().join("b.npz"));
        let w = NpyArray::F64(array![0.2, 0.8].into_dyn());
        let mu = NpyArray::F32(Array::zeros(IxDyn(&[2, 3])));
        write_npz(&first, [("w", &w), ("mu", &mu)])?;
        write_npz(&second, [("w", &w), ("mu", &mu)])?;
        assert_eq!(read_npz(&first)?, BTreeMap::from([("w".into(), w.clone()), ("mu".into(), mu)]));
        assert_eq!(read_file(&first)?, read_file(&second)?);
        assert!(write_npz(&first, [("w", &w), ("w", &w)]).is_err());
        let stored = zip_of(&[("w.npy", &w.to_npy())], CompressionMethod::Stored)?;
        assert_eq!(parse_npz(&stored, Path::new(FILE))?.get("w"), Some(&w));
        Ok(())
    }

    #[test]
    fn samples_are_rows_of_pixels() -> Result<()> {
        let directory = directory()?;
        let path = directory.path().join(FILE);
        let levels = Tensor::from_iter(0..24u8, &Device::Cpu)?.reshape((2, 3, 1, 4))?;
        write_samples(&path, &levels)?;
        let arrays = read_npz(&path)?;
        let Some(NpyArray::U8(array)) = arrays.get("arr_0") else {
            return Err(Error::Empty("arr_0"));
        };
        assert_eq!((array.shape(), arrays.len()), ([2, 1, 4, 3].as_slice(), 1));
        // Image 1, channel 2, column 3.
        assert_eq!(array[[1, 0, 3, 2]], 12 + 2 * 4 + 3);
        assert!(write_samples(&path, &levels.to_dtype(DType::F32)?).is_err());
        Ok(())
    }

    #[test]
    fn damaged_archives_are_errors() -> Result<()> {
        let file = Path::new(FILE);
        let array = NpyArray::I32(array![1, 2, 3].into_dyn()).to_npy();
        for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
            let good = zip_of(&[("a.npy", &array)], method)?;
            for cut in 0..good.len() {
                assert!(parse_npz(&good[..cut], file).is_err(), "cut at {cut}");
            }
            // A flipped bit is found by the checksum, or is in a field that does not matter.
            let expected = parse_npz(&good, file)?;
            for at in 0..good.len() {
                let mut flipped = good.clone();
                flipped[at] ^= 1;
                if let Ok(arrays) = parse_npz(&flipped, file) {
                    let same = arrays.values().eq(expected.values());
                    assert!(same || arrays.is_empty(), "flip at {at}: {arrays:?}");
                }
            }
        }
        Ok(())
    }

    #[test]
    fn bombs_and_strangers_are_errors() -> Result<()> {
        let file = Path::new(FILE);
        let bomb = NpyArray::U8(Array::zeros(IxDyn(&[64 << 20]))).to_npy();
        let bomb = zip_of(&[("a.npy", &bomb)], CompressionMethod::Deflated)?;
        assert!(matches!(parse_npz(&bomb, file), Err(Error::TooLarge { .. })));
        for name in ["../a.txt", "a.npy/", "/etc/passwd"] {
            let stranger = zip_of(&[(name, b"x")], CompressionMethod::Stored)?;
            assert!(parse_npz(&stranger, file).is_err(), "{name}");
        }
        Ok(())
    }
}
