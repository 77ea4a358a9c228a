//! The full-covariance Gaussian of a data set, the baseline that a learned density has to beat:
//!
//! `−log p(x) = ½ (x − m)ᵀ C⁻¹ (x − m) + ½ log det 2πC`,
//!
//! with m and C the moments of the training data (divisor N).
//!
//! Where C is singular, `λ I` is added, λ the smallest of 1e-6, 1e-5, … times the mean variance that makes it
//! regular; `ridge` tells it.

use nalgebra::{Cholesky, DMatrix, DMatrixView, DVector, Dyn};
use sde_core::noise::{BatchNoise, Noise};
use sde_data::{Dataset, Encoding};
use serde::Serialize;

use crate::rows::Rows;
use crate::{Error, Estimate, Result};

/// Examples read together.
const BLOCK: usize = 1024;
/// A coordinate of which others explain all but this fraction of its variance makes the covariance singular.
const SINGULAR: f64 = 1e-12;
/// The step of the noise that dequantises training data. Test data has step 0, which is what repeat 0 of
/// [`nll`](crate::nll::nll) draws from: baseline and model see the same points.
const TRAIN_STEP: u32 = 1;

/// A Gaussian with a full covariance.
#[derive(Debug, Clone)]
pub struct Gaussian {
    mean: DVector<f64>,
    factor: Cholesky<f64, Dyn>,
    ridge: f64,
}

/// The negative log likelihood of the Gaussian baseline.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct GaussianNll {
    /// Nats an example.
    pub nats: Estimate,
    /// Bits per dimension, if the data is dequantised levels.
    pub bits_per_dim: Option<Estimate>,
    /// What was added to each variance; 0 unless the covariance is singular.
    pub ridge: f64,
}

impl Gaussian {
    /// Fitted to a training set.
    ///
    /// # Errors
    /// [`Error::Quantised`] for levels that were not dequantised; when the data set is empty, constant or
    /// cannot be read.
    pub fn fit(train: &dyn Dataset, noise: Noise) -> Result<Self> {
        let n = train.len() as f64;
        let dim: usize = train.shape().iter().product();
        let mut mean = DVector::zeros(dim);
        each_block(train, noise, TRAIN_STEP, |rows| {
            (0..rows.len()).for_each(|i| mean += DVector::from_row_slice(rows.row(i)));
        })?;
        mean /= n;
        let mut covariance = DMatrix::zeros(dim, dim);
        each_block(train, noise, TRAIN_STEP, |rows| {
            let centred = centred(rows, &mean);
            covariance.gemm(1.0 / n, &centred, &centred.transpose(), 1.0);
        })?;
        Self::new(mean, covariance)
    }

    fn new(mean: DVector<f64>, covariance: DMatrix<f64>) -> Result<Self> {
        if let Some(factor) = regular(&covariance) {
            return Ok(Self { mean, factor, ridge: 0.0 });
        }
        let variance = covariance.trace() / mean.len() as f64;
        for exponent in -6..=0 {
            let ridge = variance * 10f64.powi(exponent);
            let added = &covariance + DMatrix::identity(mean.len(), mean.len()) * ridge;
            if let Some(factor) = regular(&added) {
                return Ok(Self { mean, factor, ridge });
            }
        }
        Err(Error::mismatch(
            "data of a Gaussian",
            "a covariance that is not zero",
            format!("the mean variance {variance}"),
        ))
    }

    /// What was added to each variance; 0 unless the covariance is singular.
    pub fn ridge(&self) -> f64 {
        self.ridge
    }

    /// The mean negative log likelihood of a test set.
    ///
    /// # Errors
    /// As [`Gaussian::fit`], and when the test set has another dimension.
    pub fn nll(&self, test: &dyn Dataset, noise: Noise) -> Result<GaussianNll> {
        let dim: usize = test.shape().iter().product();
        if dim != self.mean.len() {
            let expected = format!("{} entries an example, as in training", self.mean.len());
            return Err(Error::mismatch("test set of a Gaussian", expected, dim));
        }
        let mut values = Vec::with_capacity(test.len());
        each_block(test, noise, 0, |rows| {
            values.extend(self.log_density(rows).iter().map(|v| -v));
        })?;
        let nats = Estimate::mean(&values)?;
        let bits = |offset| nats.affine(1.0 / (dim as f64 * std::f64::consts::LN_2), offset);
        Ok(GaussianNll { nats, bits_per_dim: test.encoding().bits_offset().map(bits), ridge: self.ridge })
    }

    fn log_density(&self, rows: &Rows) -> Vec<f64> {
        let mut white = centred(rows, &self.mean);
        // L z = x − m; a Cholesky factor has no zero on its diagonal.
        self.factor.l_dirty().solve_lower_triangular_mut(&mut white);
        let log_det = 2.0 * self.factor.l_dirty().diagonal().map(f64::ln).sum();
        let norm = rows.dim() as f64 * std::f64::consts::TAU.ln() + log_det;
        white.column_iter().map(|z| -0.5 * (z.norm_squared() + norm)).collect()
    }
}

/// The points as columns, less the mean.
fn centred(rows: &Rows, mean: &DVector<f64>) -> DMatrix<f64> {
    let mut columns = DMatrixView::from_slice(rows.values(), rows.dim(), rows.len()).into_owned();
    columns.column_iter_mut().for_each(|mut x| x -= mean);
    columns
}

/// The Cholesky factor, unless the matrix is singular to working accuracy.
fn regular(covariance: &DMatrix<f64>) -> Option<Cholesky<f64, Dyn>> {
    let factor = covariance.clone().cholesky()?;
    // L_ii² / C_ii is the fraction of variance i that the coordinates before it leave unexplained.
    let fractions = factor.l_dirty().diagonal().zip_map(&covariance.diagonal(), |l, c| l * l / c);
    fractions.iter().all(|f| *f > SINGULAR).then_some(factor)
}

fn each_block(data: &dyn Dataset, noise: Noise, step: u32, mut use_rows: impl FnMut(&Rows)) -> Result<()> {
    if let Encoding::Quantised { levels, .. } = data.encoding() {
        return Err(Error::Quantised { levels });
    }
    if data.is_empty() {
        return Err(Error::mismatch("data of a Gaussian", "at least one example", 0));
    }
    let indices: Vec<usize> = (0..data.len()).collect();
    for block in indices.chunks(BLOCK) {
        let addresses = BatchNoise::new(noise, step, block.iter().map(|&i| i as u32));
        let rows = Rows::new(&data.batch(block, &addresses)?.x, "examples");
        use_rows(&rows.map_err(|error| error.of_examples(block))?);
    }
    Ok(())
}
