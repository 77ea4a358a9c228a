//! Vectors of real numbers held in memory, as tables are; standardised if asked.

use candle_core::{DType, Device, Tensor};
use ndarray::{Array2, ArrayView2, Axis};
use sde_core::noise::BatchNoise;

use crate::dataset::check_batch;
use crate::{Affine, Batch, Dataset, Encoding, Error, Result};

/// A data set of points, `[D]`.
#[derive(Debug, Clone)]
pub struct Points {
    values: Array2<f64>,
    affine: Affine,
    shape: [usize; 1],
}

impl Points {
    /// Points as given.
    ///
    /// # Shapes
    /// `[N, D]`, f32 or f64.
    ///
    /// # Errors
    /// If there are none, or a value is not finite.
    pub fn new<T: Copy + Into<f64>>(values: ArrayView2<'_, T>) -> Result<Self> {
        let values = values.mapv(Into::into);
        if values.is_empty() {
            return Err(Error::Empty("the array of points"));
        }
        if let Some(((row, column), &found)) = values.indexed_iter().find(|(_, v)| !v.is_finite()) {
            return Err(Error::NonFinite { row, column, found });
        }
        let dim = values.ncols();
        Ok(Self { values, affine: Affine::identity(dim), shape: [dim] })
    }

    /// The points at zero mean and unit variance, measured on themselves.
    ///
    /// # Errors
    /// If an axis is constant.
    pub fn standardised(self) -> Result<Self> {
        let affine = Affine::standardising(self.values.view())?;
        self.mapped(&affine)
    }

    /// The points under a map measured elsewhere: held-out data takes the map of the training data.
    ///
    /// # Errors
    /// If the map has another number of axes, or the points are mapped already.
    pub fn mapped(mut self, affine: &Affine) -> Result<Self> {
        if affine.dim() != self.shape[0] {
            return Err(Error::mismatch(
                "map of points",
                format!("{} axes", self.shape[0]),
                affine.dim().to_string(),
            ));
        }
        if self.affine != Affine::identity(self.shape[0]) {
            return Err(Error::mismatch("map of points", "points as given", "points already mapped"));
        }
        for mut row in self.values.rows_mut() {
            row.iter_mut().zip(affine.shift()).zip(affine.scale()).for_each(|((v, m), s)| *v = (*v - m) / s);
        }
        Ok(Self { affine: affine.clone(), ..self })
    }

    /// The map from the points as given to the points as served.
    pub fn affine(&self) -> &Affine {
        &self.affine
    }

    /// The points as served, `[N, D]`.
    pub fn values(&self) -> ArrayView2<'_, f64> {
        self.values.view()
    }
}

impl Dataset for Points {
    fn len(&self) -> usize {
        self.values.nrows()
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn encoding(&self) -> Encoding {
        Encoding::Continuous
    }

    fn classes(&self) -> usize {
        0
    }

    fn batch(&self, indices: &[usize], noise: &BatchNoise) -> Result<Batch> {
        check_batch(self.len(), indices, noise)?;
        let rows = self.values.select(Axis(0), indices);
        let x = Tensor::from_iter(rows.iter().copied(), &Device::Cpu)?;
        Ok(Batch {
            x: x.reshape((indices.len(), self.shape[0]))?.to_dtype(DType::F32)?,
            labels: None,
            augment: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;
    use sde_core::noise::Noise;

    #[test]
    fn standardised_and_back() -> Result<()> {
        let given = array![[1.0, -4.0], [2.0, 8.0], [6.0, 2.0]];
        let points = Points::new(given.view())?.standardised()?;
        for column in points.values().columns() {
            assert!(column.sum().abs() < 1e-12 && (column.mapv(|v| v * v).sum() / 3.0 - 1.0).abs() < 1e-12);
        }
        let mut row = points.values().row(1).to_vec();
        points.affine().invert(&mut row);
        assert!((row[0] - 2.0).abs() < 1e-12 && (row[1] - 8.0).abs() < 1e-12);
        points.affine().apply(&mut row);
        assert!((row[0] - points.values()[[1, 0]]).abs() < 1e-12);

        let held_out = Points::new(array![[1f32, 8.0]].view())?.mapped(points.affine())?;
        let x = held_out.batch(&[0], &BatchNoise::new(Noise::new(0), 0, [0]))?.x;
        assert_eq!(x.dims(), [1, 2]);
        let expected = [points.values()[[0, 0]] as f32, points.values()[[1, 1]] as f32];
        assert_eq!(x.flatten_all()?.to_vec1::<f32>()?, expected);
        Ok(())
    }

    #[test]
    fn wrong_values_are_named() -> Result<()> {
        let bad = array![[0.0, 1.0], [2.0, f64::NEG_INFINITY]];
        let error = Points::new(bad.view()).err().map(|e| e.to_string());
        assert_eq!(error.as_deref(), Some("row 1, column 1: -inf is not finite; remove or replace it"));
        assert!(Points::new(array![[1.0, 2.0], [1.0, 3.0]].view())?.standardised().is_err());
        assert!(Points::new(Array2::<f32>::zeros((0, 2)).view()).is_err());
        let standardised = Points::new(array![[1.0], [3.0]].view())?.standardised()?;
        assert!(standardised.clone().mapped(&Affine::identity(1)).is_err());
        assert!(standardised.batch(&[2], &BatchNoise::new(Noise::new(0), 0, [0])).is_err());
        Ok(())
    }
}
