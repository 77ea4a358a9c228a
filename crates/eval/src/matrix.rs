//! The few dense products and decompositions behind the metrics on features, in f64.
//!
//! Features stand as columns, `[D, N]`. Products are cut into a fixed number of parts and decompositions run on one thread (a
//! caller has several at once), so that no result depends on the number of threads.

use std::ops::Range;

use faer::diag::Diag;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::evd::{ComputeEigenvectors, self_adjoint_evd, self_adjoint_evd_scratch};
use faer::linalg::matmul::matmul;
use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::linalg::svd::{ComputeSvdVectors, svd, svd_scratch};
use faer::{Accum, Mat, MatMut, MatRef, Par};

use crate::{Error, Result};

/// The parts of a product, whatever the number of threads.
const PARTS: usize = 8;

fn parts() -> Par {
    Par::rayon(PARTS)
}

/// Adds `Z Zᵀ` to the lower triangle of a square matrix.
pub(crate) fn add_gram(lower: MatMut<'_, f64>, z: MatRef<'_, f64>) {
    let (all, tri) = (BlockStructure::Rectangular, BlockStructure::TriangularLower);
    triangular::matmul(lower, tri, Accum::Add, z, all, z.transpose(), all, 1.0, parts());
}

/// `Aᵀ B`.
pub(crate) fn product(a: MatRef<'_, f64>, b: MatRef<'_, f64>) -> Mat<f64> {
    let mut out = Mat::zeros(a.ncols(), b.ncols());
    matmul(out.as_mut(), Accum::Replace, a.transpose(), b, 1.0, parts());
    out
}

/// `Aᵀ B` on one thread, for a caller that runs many.
pub(crate) fn small_product(a: MatRef<'_, f64>, b: MatRef<'_, f64>) -> Mat<f64> {
    let mut out = Mat::zeros(a.ncols(), b.ncols());
    matmul(out.as_mut(), Accum::Replace, a.transpose(), b, 1.0, Par::Seq);
    out
}

/// Eigenvalues, ascending, and eigenvectors, in columns, of the symmetric matrix whose lower triangle is given.
///
/// # Errors
/// When the iteration does not converge.
pub(crate) fn eigen(lower: MatRef<'_, f64>) -> Result<(Vec<f64>, Mat<f64>)> {
    let n = lower.nrows();
    let (mut values, mut vectors) = (Diag::<f64>::zeros(n), Mat::<f64>::zeros(n, n));
    let scratch = self_adjoint_evd_scratch::<f64>(n, ComputeEigenvectors::Yes, Par::Seq, Default::default());
    let mut memory = MemBuffer::new(scratch);
    let stack = MemStack::new(&mut memory);
    self_adjoint_evd(lower, values.as_mut(), Some(vectors.as_mut()), Par::Seq, stack, Default::default())
        .map_err(|_| no_convergence("eigenvalues of a covariance"))?;
    Ok((values.column_vector().iter().copied().collect(), vectors))
}

/// The nuclear norm, the sum of the singular values.
///
/// # Errors
/// When the iteration does not converge.
pub(crate) fn nuclear_norm(matrix: MatRef<'_, f64>) -> Result<f64> {
    let (rows, columns) = (matrix.nrows(), matrix.ncols());
    if rows == 0 || columns == 0 {
        return Ok(0.0);
    }
    let mut values = Diag::<f64>::zeros(rows.min(columns));
    let no = ComputeSvdVectors::No;
    let mut memory = MemBuffer::new(svd_scratch::<f64>(rows, columns, no, no, Par::Seq, Default::default()));
    let stack = MemStack::new(&mut memory);
    svd(matrix, values.as_mut(), None, None, Par::Seq, stack, Default::default())
        .map_err(|_| no_convergence("singular values of a product of covariances"))?;
    // Small ones first.
    let sum = values.column_vector().iter().rev().sum::<f64>();
    Ok(sum)
}

fn no_convergence(what: &'static str) -> Error {
    Error::NoConvergence { what, way_out: "look for features that are huge or hardly vary" }
}

/// `0..n` in pieces of at most `size`.
pub(crate) fn pieces(n: usize, size: usize) -> impl Iterator<Item = Range<usize>> {
    (0..n).step_by(size).map(move |start| start..(start + size).min(n))
}
