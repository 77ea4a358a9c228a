//! NumPy's array files.
//!
//! `\x93NUMPY`, version, header length (u16 in version 1, u32 in 2 and 3), a Python dictionary `{'descr':
//! '<f4', 'fortran_order': False, 'shape': (2, 3), }`, then the entries in row-major order. Read and written
//! are u8, i32, i64, f32 and f64, little-endian. Reference: numpy.lib.format.

use std::path::Path;

use ndarray::{ArrayD, IxDyn};

use super::source::read_file;
use crate::error::Place;
use crate::{Error, Result};

const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// An array of one of the types that are read and written.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum NpyArray {
    /// `|u1`.
    U8(ArrayD<u8>),
    /// `<i4`.
    I32(ArrayD<i32>),
    /// `<i8`.
    I64(ArrayD<i64>),
    /// `<f4`.
    F32(ArrayD<f32>),
    /// `<f8`.
    F64(ArrayD<f64>),
}

impl NpyArray {
    /// The shape.
    pub fn shape(&self) -> &[usize] {
        match self {
            Self::U8(a) => a.shape(),
            Self::I32(a) => a.shape(),
            Self::I64(a) => a.shape(),
            Self::F32(a) => a.shape(),
            Self::F64(a) => a.shape(),
        }
    }

    /// The entries as f64 (i64 beyond 2⁵³ is rounded).
    pub fn to_f64(&self) -> ArrayD<f64> {
        match self {
            Self::U8(a) => a.mapv(f64::from),
            Self::I32(a) => a.mapv(f64::from),
            Self::I64(a) => a.mapv(|v| v as f64),
            Self::F32(a) => a.mapv(f64::from),
            Self::F64(a) => a.clone(),
        }
    }

    /// NumPy's name of the type of the entries, such as `<f8`.
    pub fn descr(&self) -> &'static str {
        match self {
            Self::U8(_) => "|u1",
            Self::I32(_) => "<i4",
            Self::I64(_) => "<i8",
            Self::F32(_) => "<f4",
            Self::F64(_) => "<f8",
        }
    }

    /// The bytes of an array file of version 1.
    pub fn to_npy(&self) -> Vec<u8> {
        let shape: String = self.shape().iter().map(|n| format!("{n}, ")).collect();
        // One axis is "(3,)", more are "(2, 3)", none is "()".
        let shape = if self.shape().len() == 1 { shape.trim_end() } else { shape.trim_end_matches(", ") };
        let mut header =
            format!("{{'descr': '{}', 'fortran_order': False, 'shape': ({shape}), }}", self.descr());
        // Entries begin at a multiple of 64 bytes.
        let end = (MAGIC.len() + 4 + header.len() + 1).next_multiple_of(64);
        header.extend(std::iter::repeat_n(' ', end - MAGIC.len() - 4 - header.len() - 1));
        header.push('\n');
        let mut bytes =
            [MAGIC.as_slice(), &[1, 0], &(header.len() as u16).to_le_bytes(), header.as_bytes()].concat();
        match self {
            Self::U8(a) => bytes.extend(a),
            Self::I32(a) => bytes.extend(a.iter().flat_map(|v| v.to_le_bytes())),
            Self::I64(a) => bytes.extend(a.iter().flat_map(|v| v.to_le_bytes())),
            Self::F32(a) => bytes.extend(a.iter().flat_map(|v| v.to_le_bytes())),
            Self::F64(a) => bytes.extend(a.iter().flat_map(|v| v.to_le_bytes())),
        }
        bytes
    }
}

/// The array in a file.
///
/// # Errors
/// Unless the file is an array of a known type in row-major order and exactly as long as its header says.
pub fn read_npy(path: &Path) -> Result<NpyArray> {
    parse_npy(&read_file(path)?, path)
}

/// Writes an array file.
///
/// # Errors
/// If the system refuses.
pub fn write_npy(path: &Path, array: &NpyArray) -> Result<()> {
    std::fs::write(path, array.to_npy()).map_err(Error::io(path))
}

/// Parses the bytes of an array file.
pub(crate) fn parse_npy(bytes: &[u8], file: &Path) -> Result<NpyArray> {
    let wrong = |at: usize, expected: &str, found: String| {
        Error::malformed(file, Place::Byte(at as u64), expected, found)
    };
    let short = |at: usize| wrong(at, "the header of an array file", "the end of the file".into());
    let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| wrong(0, "\\x93NUMPY", "other bytes".into()))?;
    let (length, rest) = match rest {
        [1, 0, a, b, rest @ ..] => (usize::from(u16::from_le_bytes([*a, *b])), rest),
        [2 | 3, 0, a, b, c, d, rest @ ..] => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, rest),
        [1..=3, 0, ..] | [_] | [] => return Err(short(bytes.len())),
        [major, minor, ..] => return Err(wrong(6, "version 1.0, 2.0 or 3.0", format!("{major}.{minor}"))),
    };
    let start = bytes.len() - rest.len();
    let (header, entries) = rest.split_at_checked(length).ok_or_else(|| short(bytes.len()))?;
    let header = str::from_utf8(header).map_err(|e| wrong(start, "text", e.to_string()))?;
    let header = Header::parse(header)
        .map_err(|found| wrong(start, "{'descr': …, 'fortran_order': …, 'shape': (…), }", found))?;
    if header.fortran_order {
        let expected = "row-major order (write it with numpy.ascontiguousarray)";
        return Err(wrong(start, expected, "fortran_order: True".into()));
    }
    let size = match header.descr {
        "|u1" | "u1" => 1,
        "<i4" | "<f4" => 4,
        "<i8" | "<f8" => 8,
        other => {
            let expected = "type |u1, <i4, <i8, <f4 or <f8 (convert with numpy's astype)";
            return Err(wrong(start, expected, other.to_owned()));
        }
    };
    let count = header.shape.iter().try_fold(size, |product: usize, &n| product.checked_mul(n));
    if count != Some(entries.len()) {
        let expected = format!("the entries of shape {:?}, type {}", header.shape, header.descr);
        return Err(wrong(start + length, &expected, format!("{} bytes", entries.len())));
    }
    let shape = IxDyn(&header.shape);
    let array = match header.descr {
        "<i4" => ArrayD::from_shape_vec(shape, decode(entries, i32::from_le_bytes)).map(NpyArray::I32),
        "<i8" => ArrayD::from_shape_vec(shape, decode(entries, i64::from_le_bytes)).map(NpyArray::I64),
        "<f4" => ArrayD::from_shape_vec(shape, decode(entries, f32::from_le_bytes)).map(NpyArray::F32),
        "<f8" => ArrayD::from_shape_vec(shape, decode(entries, f64::from_le_bytes)).map(NpyArray::F64),
        _ => ArrayD::from_shape_vec(shape, entries.to_vec()).map(NpyArray::U8),
    };
    array.map_err(|e| wrong(start, "a shape that fits memory", format!("{:?} ({e})", header.shape)))
}

fn decode<T, const N: usize>(bytes: &[u8], of: fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|chunk| of(*chunk)).collect()
}

/// What the dictionary says.
#[derive(Debug)]
struct Header<'a> {
    descr: &'a str,
    fortran_order: bool,
    shape: Vec<usize>,
}

impl<'a> Header<'a> {
    /// Each of the three keys once, in any order, and nothing else; the error says what was found instead.
    fn parse(text: &'a str) -> Result<Self, String> {
        let body = text.trim().strip_prefix('{').and_then(|t| t.strip_suffix('}'));
        let mut rest = body.ok_or("no dictionary")?.trim();
        let (mut descr, mut fortran_order, mut shape) = (None, None, None);
        while !rest.is_empty() {
            let (key, value) = rest.split_once(':').ok_or_else(|| format!("{rest:?}"))?;
            let value = value.trim_start();
            let end = if value.starts_with('(') { value.find(')').map(|i| i + 1) } else { value.find(',') };
            let (value, after) = value.split_at(end.unwrap_or(value.len()));
            let after = after.trim_start();
            let twice = match key.trim().trim_matches(['\'', '"']) {
                "descr" => descr.replace(value.trim().trim_matches(['\'', '"'])).is_some(),
                "fortran_order" => fortran_order.replace(parse_bool(value.trim())?).is_some(),
                "shape" => shape.replace(parse_shape(value)?).is_some(),
                other => return Err(format!("key {other:?}")),
            };
            if twice {
                return Err(format!("{} twice", key.trim()));
            }
            rest = match after.strip_prefix(',') {
                Some(next) => next.trim_start(),
                None if after.is_empty() => after,
                None => return Err(format!("{after:?}")),
            };
        }
        match (descr, fortran_order, shape) {
            (Some(descr), Some(fortran_order), Some(shape)) => Ok(Self { descr, fortran_order, shape }),
            _ => Err("a missing key".into()),
        }
    }
}

fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "False" => Ok(false),
        "True" => Ok(true),
        other => Err(format!("{other:?} for a truth value")),
    }
}

fn parse_shape(text: &str) -> Result<Vec<usize>, String> {
    let inner =
        text.strip_prefix('(').and_then(|t| t.strip_suffix(')')).ok_or_else(|| format!("{text:?}"))?;
    let sizes = inner.trim().trim_end_matches(',');
    if sizes.is_empty() {
        return Ok(Vec::new());
    }
    sizes.split(',').map(|n| n.trim().parse().map_err(|_| format!("size {:?}", n.trim()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array, array};

    fn raw(header: &str, entries: &[u8]) -> Vec<u8> {
        let length = (header.len() as u16).to_le_bytes();
        [MAGIC.as_slice(), &[1, 0], &length, header.as_bytes(), entries].concat()
    }

    fn parse(bytes: &[u8]) -> Result<NpyArray> {
        parse_npy(bytes, Path::new("a.npy"))
    }

    #[test]
    fn what_is_written_is_read() -> Result<()> {
        let directory = tempfile::tempdir().map_err(Error::io(Path::new("temporary directory")))?;
        let path = directory.path().join("a.npy");
        for array in [
            NpyArray::U8(array![[1u8, 2, 3], [4, 5, 6]].into_dyn()),
            NpyArray::I32(array![i32::MIN, 7].into_dyn()),
            NpyArray::I64(array![[[i64::MAX]]].into_dyn()),
            NpyArray::F32(Array::from_elem(IxDyn(&[]), 1.5f32)),
            NpyArray::F64(array![[f64::MIN_POSITIVE, -0.1]].reversed_axes().into_dyn()),
            NpyArray::F64(Array::zeros(IxDyn(&[0, 3]))),
        ] {
            write_npy(&path, &array)?;
            assert_eq!(read_npy(&path)?, array);
            assert_eq!(array.to_npy().len() % 64, array.to_f64().len() * entry_size(&array) % 64);
        }
        Ok(())
    }

    fn entry_size(array: &NpyArray) -> usize {
        array.descr()[2..].parse().unwrap_or(0)
    }

    #[test]
    fn written_bytes_are_numpys() {
        // numpy.save of numpy.array([[1, 2]], dtype='<i4'), numpy 2.
        let expected = [
            b"\x93NUMPY\x01\0v\0{'descr': '<i4', 'fortran_order': False, 'shape': (1, 2), }".as_slice(),
            &[b' '; 58],
            b"\n\x01\0\0\0\x02\0\0\0",
        ]
        .concat();
        assert_eq!(NpyArray::I32(array![[1, 2]].into_dyn()).to_npy(), expected);
    }

    #[test]
    fn every_prefix_is_an_error() {
        let good = NpyArray::F32(array![[1f32, 2.0], [3.0, 4.0]].into_dyn()).to_npy();
        for cut in 0..good.len() {
            assert!(parse(&good[..cut]).is_err(), "cut at {cut}");
        }
        assert!(parse(&[good.as_slice(), &[0]].concat()).is_err());
    }

    #[test]
    fn hostile_and_foreign_headers_are_errors() {
        let entries = [0u8; 8];
        let header = |descr: &str, fortran: &str, shape: &str| {
            raw(&format!("{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}"), &entries)
        };
        assert!(parse(&header("'<f8'", "False", "(1,)")).is_ok());
        let message = |bytes: &[u8]| parse(bytes).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(message(&header("'<f4'", "True", "(1, 2)")).contains("ascontiguousarray"));
        assert!(message(&header("'>f4'", "False", "(2,)")).contains("found >f4"));
        for bad in [
            header("'<f8'", "False", "(1099511627776,)"),
            header("'<f8'", "False", "(4294967296, 4294967296, 4)"),
            header("'<f8'", "False", "(-1,)"),
            header("'<f8'", "False", "(1"),
            header("'<f8'", "Maybe", "(1,)"),
            header("'|O'", "False", "(1,)"),
            header("[('a', '<f8')]", "False", "(1,)"),
            raw("{'descr': '<f8', 'descr': '<f8', 'fortran_order': False, 'shape': (1,), }", &entries),
            raw("{'descr': '<f8', 'shape': (1,), }", &entries),
            raw("{}", &entries),
            raw("", &entries),
            raw("\u{fc}", &entries),
            [MAGIC.as_slice(), &[2, 0, 255, 255, 255, 255]].concat(),
            [MAGIC.as_slice(), &[9, 0, 0, 0]].concat(),
        ] {
            assert!(parse(&bad).is_err(), "{}", String::from_utf8_lossy(&bad));
        }
    }
}
