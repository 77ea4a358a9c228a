//! Tensor files: what is written is finite, and what is read is checked before anything is allocated.
//!
//! [`Weights::from_safetensors`] refuses what is no such file, or ambiguous; here a value that is not finite is, too.
//!
//! Reference: the safetensors format, version 0.8 of its crate.

use std::path::Path;

use candle_core::{Device, Tensor};
use sde_nets::Weights;
use sde_nets::ops::sums_of_squares;

use crate::{Error, Result};

/// The bytes of a tensor file.
///
/// # Errors
/// [`Error::NonFinite`] for a value that must not be saved.
pub(crate) fn encode(what: &str, step: u64, weights: &Weights) -> Result<Vec<u8>> {
    if let Some((name, found)) = first_not_finite(weights)? {
        return Err(Error::NonFinite { what: format!("{what}, {name}"), step, found, checkpoint: None });
    }
    Ok(weights.to_safetensors()?)
}

/// The tensors of a file that was read from `file`, on the host.
///
/// # Errors
/// [`Error::Corrupt`].
pub(crate) fn decode(file: &Path, bytes: &[u8]) -> Result<Weights> {
    let weights = Weights::from_safetensors(bytes, &Device::Cpu)
        .map_err(|error| Error::corrupt(file, error.to_string()))?;
    match first_not_finite(&weights)? {
        None => Ok(weights),
        Some((name, found)) => Err(Error::corrupt(file, format!("tensor {name:?} holds {found}"))),
    }
}

/// Refuses `found`, read from `file`, unless it has exactly the names, shapes and types of `expected`.
pub(crate) fn same_layout(file: &Path, expected: &Weights, found: &Weights) -> Result<()> {
    let layout = |tensor: &Tensor| format!("{:?} {:?}", tensor.dtype(), tensor.dims());
    for (name, wanted) in expected.iter() {
        let wanted = layout(wanted);
        let there = found.get(name).map_or("nothing".into(), layout);
        if there != wanted {
            return Err(Error::corrupt(file, format!("tensor {name:?}: expected {wanted}, found {there}")));
        }
    }
    match found.iter().find(|(name, _)| expected.get(name).is_none()) {
        None => Ok(()),
        Some((name, _)) => Err(Error::corrupt(file, format!("tensor {name:?} is none of this network's"))),
    }
}

/// The first tensor that has a value which is not finite, and the sum of its squares.
fn first_not_finite(weights: &Weights) -> Result<Option<(String, f64)>> {
    let (names, tensors): (Vec<&str>, Vec<&Tensor>) = weights.iter().unzip();
    let mut sums = names.into_iter().zip(sums_of_squares(&tensors)?);
    Ok(sums.find(|(_, sum)| !sum.is_finite()).map(|(name, sum)| (name.to_owned(), sum)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::DType;

    fn file(header: &str, data: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(vec![0; data]);
        bytes
    }

    fn refusal(bytes: &[u8]) -> String {
        decode(Path::new("w"), bytes).err().map_or("accepted".into(), |error| error.to_string())
    }

    #[test]
    fn hostile_files_are_refused() -> Result<()> {
        let entry = |name: &str, from: usize| {
            format!(r#""{name}":{{"dtype":"F32","shape":[1],"data_offsets":[{from},{}]}}"#, from + 4)
        };
        assert!(decode(Path::new("w"), &file(&format!("{{{}}}", entry("a", 0)), 4)).is_ok());
        let empty = r#""a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}"#;
        let deep = r#"{"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}}"#;
        let huge = r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,4]}}"#;
        let cases = [
            (file(&format!("{{{empty},{}}}", entry("a", 0)), 4), "two tensors are named"),
            (file(&format!("{{{},{}}}", entry("a", 0), entry("b", 8)), 12), "offset"),
            (file(deep, 4), "9 dimensions"),
            (file(huge, 4), "overflow"),
            (file(&format!("{{{}}}", entry("a", 0)), 5), "incomplete"),
            (u64::MAX.to_le_bytes().to_vec(), "header of"),
            (vec![], "header"),
        ];
        for (bytes, why) in cases {
            let found = refusal(&bytes);
            assert!(found.to_lowercase().contains(why), "expected {why:?}: {found}");
        }
        let mut nan = file(&format!("{{{}}}", entry("a", 0)), 0);
        nan.extend(f32::NAN.to_le_bytes());
        assert!(refusal(&nan).contains("holds NaN"), "{}", refusal(&nan));
        let weights: Weights =
            [("a".to_owned(), Tensor::new(&[f32::INFINITY], &Device::Cpu)?)].into_iter().collect();
        assert!(matches!(encode("weights", 3, &weights), Err(Error::NonFinite { step: 3, .. })));
        Ok(())
    }

    #[test]
    fn another_layout_is_named() -> Result<()> {
        let weights = |entries: &[(&str, Tensor)]| -> Weights {
            entries.iter().map(|(name, t)| ((*name).to_owned(), t.clone())).collect()
        };
        let t = Tensor::zeros((2, 3), DType::F32, &Device::Cpu)?;
        let expected = weights(&[("a", t.clone()), ("b", t.clone())]);
        let check = |found: &[(&str, Tensor)]| {
            let error = same_layout(Path::new("w"), &expected, &weights(found)).err();
            error.map_or("accepted".into(), |error| error.to_string())
        };
        assert_eq!(check(&[("b", t.clone()), ("a", t.clone())]), "accepted");
        assert_eq!(check(&[("b", t.clone())]), r#"w: tensor "a": expected F32 [2, 3], found nothing"#);
        let double = t.to_dtype(DType::F64)?;
        assert_eq!(
            check(&[("a", double), ("b", t.clone())]),
            r#"w: tensor "a": expected F32 [2, 3], found F64 [2, 3]"#
        );
        assert_eq!(
            check(&[("a", t.t()?), ("b", t.clone())]),
            r#"w: tensor "a": expected F32 [2, 3], found F32 [3, 2]"#
        );
        let extra = [("a", t.clone()), ("b", t.clone()), ("c", t)];
        assert_eq!(check(&extra), r#"w: tensor "c" is none of this network's"#);
        Ok(())
    }
}
