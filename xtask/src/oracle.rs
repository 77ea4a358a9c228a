//! Known densities from files: mixtures of Gaussians as npz or JSON with keys `w [K]`, `mu [K, D]`, `cov [K, D, D]`.
//!
//! `w` may be missing (equal weights), and a single component may drop its leading dimension.

use std::path::Path;

use anyhow::{Context, Result};
use nalgebra::DMatrix;
use ndarray::{ArrayD, IxDyn};
use sde_core::oracle::Mixture;
use serde_json::Value;

use crate::exit::Failure;

/// Reads a mixture.
pub fn read(path: &Path) -> Result<Mixture> {
    let json = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("json"));
    let arrays = if json { from_json(path)? } else { from_npz(path)? };
    let get = |key: &str| arrays.iter().find(|(name, _)| name == key).map(|(_, array)| array);
    let missing = |key: &str| {
        bad(
            path,
            format!("no array \"{key}\"; a density has mu [K, D], cov [K, D, D] and, unless equal, w [K]"),
        )
    };
    let mu = get("mu").ok_or_else(|| missing("mu"))?;
    let cov = get("cov").ok_or_else(|| missing("cov"))?;
    let (k, d) = match mu.shape() {
        [d] => (1, *d),
        [k, d] => (*k, *d),
        other => return Err(bad(path, format!("\"mu\": expected [K, D] or [D], found {other:?}"))),
    };
    let single = k == 1 && cov.shape() == [d, d];
    if !(single || cov.shape() == [k, d, d]) || d == 0 {
        let found = cov.shape();
        return Err(bad(
            path,
            format!("\"cov\": expected [{k}, {d}, {d}] to go with \"mu\", found {found:?}"),
        ));
    }
    let weights = match get("w") {
        Some(w) if w.shape() == [k] => w.iter().copied().collect(),
        Some(w) => {
            return Err(bad(path, format!("\"w\": expected [{k}] to go with \"mu\", found {:?}", w.shape())));
        }
        None => vec![1.0; k],
    };
    let flat = |array: &ArrayD<f64>| array.iter().copied().collect::<Vec<f64>>();
    let means: Vec<Vec<f64>> = flat(mu).chunks(d).map(<[f64]>::to_vec).collect();
    let covariances: Vec<_> = flat(cov).chunks(d * d).map(|c| DMatrix::from_row_slice(d, d, c)).collect();
    Mixture::new(&weights, &means, &covariances).map_err(|e| bad(path, e.to_string()))
}

fn bad(path: &Path, text: String) -> anyhow::Error {
    Failure::Data(format!("{}: {text}", path.display())).into()
}

fn from_npz(path: &Path) -> Result<Vec<(String, ArrayD<f64>)>> {
    let arrays = sde_data::read::npz::read_npz(path)?;
    Ok(arrays.into_iter().map(|(name, array)| (name, array.to_f64())).collect())
}

fn from_json(path: &Path) -> Result<Vec<(String, ArrayD<f64>)>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let value: Value = serde_json::from_str(&text).map_err(|e| bad(path, e.to_string()))?;
    let Value::Object(map) = value else {
        return Err(bad(path, "expected an object with the keys w, mu and cov".into()));
    };
    let known = |name: &String| ["w", "mu", "cov"].contains(&name.as_str());
    map.into_iter().filter(|(name, _)| known(name)).map(|(name, value)| nested(path, name, &value)).collect()
}

/// A nested list of numbers as an array.
fn nested(path: &Path, name: String, value: &Value) -> Result<(String, ArrayD<f64>)> {
    let (mut shape, mut level) = (Vec::new(), value);
    while let Value::Array(items) = level {
        shape.push(items.len());
        level = items.first().unwrap_or(&Value::Null);
    }
    let mut flat = Vec::new();
    let regular = flatten(value, &shape, &mut flat);
    let array = regular.then(|| ArrayD::from_shape_vec(IxDyn(&shape), flat).ok()).flatten();
    let array =
        array.ok_or_else(|| bad(path, format!("\"{name}\": expected a regular nested list of numbers")))?;
    Ok((name, array))
}

fn flatten(value: &Value, shape: &[usize], into: &mut Vec<f64>) -> bool {
    match (value, shape.split_first()) {
        (Value::Array(items), Some((n, rest))) => {
            items.len() == *n && items.iter().all(|item| flatten(item, rest, into))
        }
        (Value::Number(number), None) => number.as_f64().map(|x| into.push(x)).is_some(),
        _ => false,
    }
}
