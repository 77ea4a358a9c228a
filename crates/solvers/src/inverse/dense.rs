//! Any matrix with independent rows, by the spectrum of `A Aᵀ = Q Λ Qᵀ`.

use candle_core::{DType, Device, Tensor};
use nalgebra::DMatrix;
use sde_core::noise::host_tensor;
use sde_core::{Error, Result};

use super::Measurement;

/// A matrix on states seen as vectors.
#[derive(Debug, Clone)]
pub struct Dense {
    /// A, `[m, d]`.
    matrix: Tensor,
    /// Q, `[m, m]`, columns the eigenvectors.
    basis: Tensor,
    /// Λ.
    spectrum: Vec<f64>,
    /// The shape of one state.
    shape: Vec<usize>,
}

impl Dense {
    /// The measurement `y = A x` of states of `shape`.
    ///
    /// # Shapes
    /// `matrix` `[m, d]`, d the number of entries of a state; measurements are `[B, m]`.
    ///
    /// # Errors
    /// When d is another number, or the rows of A depend on each other.
    pub fn new(matrix: &Tensor, shape: &[usize]) -> Result<Self> {
        let matrix = matrix.to_dtype(DType::F64)?.to_device(&Device::Cpu)?;
        let ((rows, columns), expected) = (matrix.dims2()?, shape.iter().product::<usize>());
        if columns != expected || rows == 0 {
            return Err(Error::Mismatch {
                what: "matrix of a measurement",
                expected: format!("one row or more, {expected} columns for the entries of a state {shape:?}"),
                found: format!("{rows} rows, {columns} columns"),
            });
        }
        let entries = matrix.flatten_all()?.to_vec1::<f64>()?;
        if let Some(&found) = entries.iter().find(|v| !v.is_finite()) {
            return Err(Error::NonFinite { what: "an entry of the matrix of a measurement".into(), found });
        }
        let host = DMatrix::from_row_slice(rows, columns, &entries);
        let eigen = (&host * host.transpose()).symmetric_eigen();
        let eigenvalues = eigen.eigenvalues.iter().copied();
        let (smallest, largest) =
            (eigenvalues.clone().fold(f64::MAX, f64::min), eigenvalues.fold(0.0, f64::max));
        if smallest <= 1e-12 * largest {
            return Err(Error::Mismatch {
                what: "matrix of a measurement",
                expected: "independent rows; leave out those that follow from others".into(),
                found: format!("A Aᵀ with eigenvalues from {smallest} to {largest}"),
            });
        }
        let spectrum = eigen.eigenvalues.as_slice().to_vec();
        let basis = eigen.eigenvectors.transpose().as_slice().to_vec();
        let basis = Tensor::from_vec(basis, (rows, rows), &Device::Cpu)?;
        Ok(Self { matrix, basis, spectrum, shape: shape.to_vec() })
    }

    /// A matrix of this measurement, beside a tensor that it is to multiply.
    fn beside(&self, matrix: &Tensor, other: &Tensor) -> Result<Tensor> {
        Ok(matrix.to_dtype(other.dtype())?.to_device(other.device())?)
    }
}

impl Measurement for Dense {
    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        if x.dims()[1..] != self.shape {
            return Err(Error::Mismatch {
                what: "states to measure",
                expected: format!("the shape {:?}", self.shape),
                found: format!("{:?}", &x.dims()[1..]),
            });
        }
        Ok(x.flatten_from(1)?.matmul(&self.beside(&self.matrix, x)?.t()?)?)
    }

    fn adjoint(&self, y: &Tensor) -> Result<Tensor> {
        let dims: Vec<usize> = [y.dim(0)?].into_iter().chain(self.shape.iter().copied()).collect();
        Ok(y.matmul(&self.beside(&self.matrix, y)?)?.reshape(dims)?)
    }

    fn weigh(&self, y: &Tensor, a: &[f64], b: f64) -> Result<Tensor> {
        let basis = self.beside(&self.basis, y)?;
        let factors = a.iter().flat_map(|a| self.spectrum.iter().map(move |v| 1.0 / (a * v + b)));
        let dims = [a.len(), self.spectrum.len()];
        let factors = host_tensor(factors.collect(), &dims, y.dtype(), y.device())?;
        Ok(y.matmul(&basis)?.broadcast_mul(&factors)?.matmul(&basis.t()?)?)
    }
}
