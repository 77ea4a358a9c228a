//! Features that are kept: what the metrics by pairs of samples (KID, nearest neighbours) and by resampling need.

use std::ops::Range;

use candle_core::{DType, Device, Tensor};
use faer::Mat;

use crate::{Error, FeatureSpace, Result};

/// Kept features, in the number type they were computed in.
#[derive(Debug, Clone)]
pub struct FeatureSet {
    space: FeatureSpace,
    dim: usize,
    values: Values,
}

#[derive(Debug, Clone)]
enum Values {
    F32(Vec<f32>),
    F64(Vec<f64>),
}

impl FeatureSet {
    /// Of the first features.
    ///
    /// # Shapes
    /// `features` `[N, D]`, f32 or f64.
    ///
    /// # Errors
    /// For another shape or type, no features, or entries that are not finite.
    pub fn new(space: FeatureSpace, features: &Tensor) -> Result<Self> {
        let dim = features.dims().last().copied().unwrap_or(0);
        let values = match features.dtype() {
            DType::F64 => Values::F64(Vec::new()),
            _ => Values::F32(Vec::new()),
        };
        let mut set = Self { space, dim, values };
        set.push(features)?;
        Ok(set)
    }

    /// More features of the same kind, behind the others.
    ///
    /// # Shapes
    /// As [`new`](Self::new).
    ///
    /// # Errors
    /// As [`new`](Self::new); then nothing was added.
    pub fn push(&mut self, features: &Tensor) -> Result<()> {
        let fits = matches!(*features.dims(), [n, d] if n > 0 && d > 0 && d == self.dim);
        let flat = features.to_device(&Device::Cpu)?.flatten_all()?;
        let non_finite = match (&mut self.values, flat.dtype()) {
            (Values::F32(kept), DType::F32) if fits => append(kept, flat.to_vec1()?, |v| f64::from(*v)),
            (Values::F64(kept), DType::F64) if fits => append(kept, flat.to_vec1()?, |v| *v),
            (values, _) => {
                let name = if matches!(values, Values::F32(_)) { "F32" } else { "F64" };
                let expected = format!("{name} [N, {}] of at least one", self.dim.max(1));
                let found = format!("{:?} {:?}", features.dtype(), features.dims());
                return Err(Error::mismatch("features", expected, found));
            }
        };
        non_finite.map_or(Ok(()), |(at, found)| {
            Err(Error::NonFinite { what: "features", row: at / self.dim, entry: at % self.dim, found })
        })
    }

    /// What they are features of.
    pub fn space(&self) -> &FeatureSpace {
        &self.space
    }

    /// N.
    pub fn len(&self) -> usize {
        let entries = match &self.values {
            Values::F32(kept) => kept.len(),
            Values::F64(kept) => kept.len(),
        };
        entries / self.dim
    }

    /// Never true: there is no set without features.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// D.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Some of them, in the order given; repetitions are allowed.
    ///
    /// # Errors
    /// For none, and for an index that does not exist.
    pub fn select(&self, indices: &[usize]) -> Result<Self> {
        let n = self.len();
        if let Some(wrong) = indices.iter().find(|i| **i >= n) {
            return Err(Error::mismatch("index of a feature", format!("less than {n}"), wrong));
        }
        if indices.is_empty() {
            return Err(Error::mismatch("selected features", "at least one", 0));
        }
        let at = |i: &usize| i * self.dim..(i + 1) * self.dim;
        let values = match &self.values {
            Values::F32(kept) => Values::F32(indices.iter().flat_map(|i| &kept[at(i)]).copied().collect()),
            Values::F64(kept) => Values::F64(indices.iter().flat_map(|i| &kept[at(i)]).copied().collect()),
        };
        Ok(Self { space: self.space.clone(), dim: self.dim, values })
    }

    /// Some of them in f64, as columns `[D, B]`.
    pub(crate) fn block(&self, rows: Range<usize>) -> Mat<f64> {
        let (start, count) = (rows.start * self.dim, rows.len());
        match &self.values {
            Values::F32(kept) => {
                Mat::from_fn(self.dim, count, |i, k| f64::from(kept[start + k * self.dim + i]))
            }
            Values::F64(kept) => Mat::from_fn(self.dim, count, |i, k| kept[start + k * self.dim + i]),
        }
    }

    /// Refuses sets that cannot be compared.
    ///
    /// # Errors
    /// For two spaces, or features of different length.
    pub(crate) fn check_pair(&self, other: &Self) -> Result<()> {
        self.space.check_same(&other.space)?;
        if self.dim == other.dim {
            return Ok(());
        }
        let expected = format!("{} entries each, as in the first set", self.dim);
        Err(Error::mismatch("features of the second set", expected, other.dim))
    }
}

/// Appends finite values; otherwise the first other one, and where it is.
fn append<T>(kept: &mut Vec<T>, values: Vec<T>, wide: impl Fn(&T) -> f64) -> Option<(usize, f64)> {
    let wrong = values.iter().position(|v| !wide(v).is_finite()).map(|at| (at, wide(&values[at])));
    if wrong.is_none() {
        kept.extend(values);
    }
    wrong
}
