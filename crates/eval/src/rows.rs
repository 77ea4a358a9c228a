//! A tensor of points as host rows of f64, checked finite: what every metric of this crate reads.

use candle_core::{DType, Device, Tensor};

use crate::{Error, Result};

/// N points of D entries each, row after row.
#[derive(Debug, Clone)]
pub(crate) struct Rows {
    values: Vec<f64>,
    dim: usize,
}

impl Rows {
    /// The rows of `[N, …]`, each flattened; `what` names them in errors.
    pub(crate) fn new(points: &Tensor, what: &'static str) -> Result<Self> {
        let n = points.dims().first().copied().unwrap_or(0);
        if points.rank() < 2 || points.elem_count() == 0 {
            return Err(Error::mismatch(
                what,
                "a tensor [N, …] of at least one point",
                format!("{:?}", points.dims()),
            ));
        }
        let host = points.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?;
        let rows = Self { values: host.to_vec1()?, dim: points.elem_count() / n };
        match rows.values.iter().position(|v| !v.is_finite()) {
            Some(at) => Err(Error::NonFinite {
                what,
                row: at / rows.dim,
                entry: at % rows.dim,
                found: rows.values[at],
            }),
            None => Ok(rows),
        }
    }

    /// Two sets of points, which must live in the same space.
    pub(crate) fn pair(x: &Tensor, y: &Tensor) -> Result<(Self, Self)> {
        let (x, y) = (Self::new(x, "first set of points")?, Self::new(y, "second set of points")?);
        if x.dim == y.dim {
            return Ok((x, y));
        }
        let expected = format!("{} entries a point, as in the first", x.dim);
        Err(Error::mismatch("second set of points", expected, y.dim))
    }

    /// N.
    pub(crate) fn len(&self) -> usize {
        self.values.len() / self.dim
    }

    /// D.
    pub(crate) fn dim(&self) -> usize {
        self.dim
    }

    /// Row `i`.
    pub(crate) fn row(&self, i: usize) -> &[f64] {
        &self.values[i * self.dim..(i + 1) * self.dim]
    }

    /// `count` rows from `start`.
    pub(crate) fn slice(&self, start: usize, count: usize) -> Self {
        Self { values: self.values[start * self.dim..(start + count) * self.dim].to_vec(), dim: self.dim }
    }

    /// All entries, row after row.
    pub(crate) fn values(&self) -> &[f64] {
        &self.values
    }
}
