//! Statistics of features in a file: mean and covariance, and what they are of.
//!
//! The file is the archive that pytorch-fid and clean-fid read and write, `mu` `[D]` and `sigma` `[D, D]` in f64 with the divisor
//! n − 1. Beside them stands `about`, JSON as bytes: the feature space, the number of samples, their source and split. Files of
//! others lack it: their space is unknown until somebody says it.

use std::path::Path;

use faer::Mat;
use ndarray::{Array1, ArrayD, Ix1, Ix2};
use sde_data::read::npy::NpyArray;
use sde_data::read::npz::{read_npz, write_npz};
use serde::{Deserialize, Serialize};

use crate::{Error, FeatureSpace, Moments, Result};

/// How far, against the larger of the variances, a covariance read may be from symmetric: some are written in f32.
const ASYMMETRY: f64 = 1e-5;

/// What statistics are of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// Of which features.
    pub space: FeatureSpace,
    /// Of how many samples; none for a law that is known.
    pub n: Option<usize>,
    /// Of what, such as `cifar10` or the name of a folder.
    pub source: String,
    /// Of which part of it, such as `train`; empty where there are no parts.
    pub split: String,
}

/// Mean and unbiased covariance of features.
#[derive(Debug, Clone, PartialEq)]
pub struct Statistics {
    mean: Vec<f64>,
    covariance: Mat<f64>,
    about: Option<About>,
}

impl Statistics {
    /// Of the rows that moments were taken of.
    ///
    /// # Errors
    /// For fewer than two rows.
    pub fn new(
        moments: &Moments,
        space: &FeatureSpace,
        source: impl Into<String>,
        split: impl Into<String>,
    ) -> Result<Self> {
        let (mean, covariance) = moments.mean_and_covariance()?;
        let about = About {
            space: space.clone(),
            n: Some(moments.len()),
            source: source.into(),
            split: split.into(),
        };
        Ok(Self { mean, covariance, about: Some(about) })
    }

    /// Of a law whose moments are known, row after row; of no samples.
    ///
    /// # Errors
    /// Unless there are D means and D × D covariances, finite, symmetric, and no variance negative.
    pub fn known(mean: &[f64], covariance: &[f64]) -> Result<Self> {
        let d = mean.len();
        if d == 0 || covariance.len() != d * d {
            let expected = format!("{d} × {d} entries, and at least one");
            return Err(Error::mismatch("covariance", expected, covariance.len()));
        }
        let covariance = Mat::from_fn(d, d, |i, j| covariance[i * d + j]);
        Self::checked(mean.to_vec(), covariance, None)
    }

    fn checked(mean: Vec<f64>, covariance: Mat<f64>, about: Option<About>) -> Result<Self> {
        let d = mean.len();
        let wrong =
            |what, found: String| Error::mismatch(what, "finite, symmetric, no variance negative", found);
        if let Some(found) = mean.iter().find(|v| !v.is_finite()) {
            return Err(wrong("mean of features", found.to_string()));
        }
        for (i, j) in (0..d).flat_map(|j| (j..d).map(move |i| (i, j))) {
            let (lower, upper) = (covariance[(i, j)], covariance[(j, i)]);
            let scale = covariance[(i, i)].max(covariance[(j, j)]);
            // A comparison with NaN is false.
            if !((lower - upper).abs() <= ASYMMETRY * scale && lower.is_finite() && scale >= 0.0) {
                let found = format!("{lower} at ({i}, {j}), {upper} at ({j}, {i})");
                return Err(wrong("covariance of features", found));
            }
        }
        Ok(Self { mean, covariance, about })
    }

    /// The statistics in a file.
    ///
    /// # Errors
    /// Unless it is an archive with `mu` and `sigma` of the same dimension, finite and symmetric, and `about`, if it is there, is ours.
    pub fn read(path: &Path) -> Result<Self> {
        let arrays = read_npz(path)?;
        let what = "statistics file";
        let array = |key: &'static str| {
            let names: Vec<&str> = arrays.keys().map(String::as_str).collect();
            arrays.get(key).ok_or_else(|| {
                let found = format!("{} in {}", names.join(", "), path.display());
                Error::mismatch(what, "`mu` [D] and `sigma` [D, D]", found)
            })
        };
        let shaped = |array: &NpyArray, key: &str| {
            let found = format!("`{key}` {:?} in {}", array.shape(), path.display());
            Error::mismatch(what, "`mu` [D] and `sigma` [D, D]", found)
        };
        let (mu, sigma) = (array("mu")?, array("sigma")?);
        let mean: Array1<f64> = mu.to_f64().into_dimensionality::<Ix1>().map_err(|_| shaped(mu, "mu"))?;
        let covariance = sigma.to_f64().into_dimensionality::<Ix2>().map_err(|_| shaped(sigma, "sigma"))?;
        let d = mean.len();
        if d == 0 || covariance.shape() != [d, d] {
            return Err(shaped(sigma, "sigma"));
        }
        let about = match arrays.get("about") {
            Some(NpyArray::U8(bytes)) => {
                let bytes: Vec<u8> = bytes.iter().copied().collect();
                let found = |e: serde_json::Error| {
                    let expected = "JSON of the feature space, `n`, `source` and `split`";
                    Error::mismatch(
                        "`about` of a statistics file",
                        expected,
                        format!("{e}, in {}", path.display()),
                    )
                };
                Some(serde_json::from_slice(&bytes).map_err(found)?)
            }
            Some(other) => return Err(shaped(other, "about")),
            None => None,
        };
        Self::checked(mean.to_vec(), Mat::from_fn(d, d, |i, j| covariance[[i, j]]), about)
    }

    /// Writes them; equal statistics are equal bytes.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn write(&self, path: &Path) -> Result<()> {
        let d = self.dim();
        let entries = (0..d).flat_map(|i| (0..d).map(move |j| self.covariance[(i, j)]));
        let mu = NpyArray::F64(Array1::from_vec(self.mean.clone()).into_dyn());
        let sigma = ArrayD::from_shape_vec(vec![d, d], entries.collect())
            .map_err(|e| Error::mismatch("covariance", format!("{d} × {d}"), e))?;
        let sigma = NpyArray::F64(sigma);
        let mut arrays = vec![("mu", &mu), ("sigma", &sigma)];
        let about = match &self.about {
            Some(about) => {
                let bytes = serde_json::to_vec(about)
                    .map_err(|e| Error::mismatch("`about` of statistics", "JSON", e))?;
                Some(NpyArray::U8(Array1::from_vec(bytes).into_dyn()))
            }
            None => None,
        };
        arrays.extend(about.iter().map(|about| ("about", about)));
        Ok(write_npz(path, arrays)?)
    }

    /// The same, with what a file of others does not say.
    pub fn described(self, about: About) -> Self {
        Self { about: Some(about), ..self }
    }

    /// What they are of, where it is known.
    pub fn about(&self) -> Option<&About> {
        self.about.as_ref()
    }

    /// D.
    pub fn dim(&self) -> usize {
        self.mean.len()
    }

    /// The mean.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// Entry (i, j) of the covariance; none beyond it.
    pub fn covariance(&self, i: usize, j: usize) -> Option<f64> {
        (i.max(j) < self.dim()).then(|| self.covariance[(i, j)])
    }

    /// The whole covariance.
    pub(crate) fn matrix(&self) -> &Mat<f64> {
        &self.covariance
    }
}
