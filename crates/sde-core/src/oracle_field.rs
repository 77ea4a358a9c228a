//! The exact oracle as a field: a "network" that is right, so that whatever error remains is the sampler's.
//!
//! Predicts ε, or x₀, which also exists where the signal is gone. Vector–Jacobian products are closed forms: `vᵀ ∂ε/∂u = −H R v` with H
//! the Hessian of the log density, and `∂x₀/∂u = Cov(x₀ | u) Sᵀ Σ⁻¹`.

use candle_core::{DType, Tensor};
use rayon::prelude::*;

use crate::model::{Cotangents, per_sample};
use crate::noise::host_tensor;
use crate::oracle::{Marginal, Mixture};
use crate::{Field, LinearSde, Prediction, Result};

/// The exact prediction of a mixture's noise or data under a process.
#[derive(Clone, Copy)]
pub struct OracleField<'a> {
    data: &'a Mixture,
    sde: &'a dyn LinearSde,
    prediction: Prediction,
}

impl<'a> OracleField<'a> {
    /// The exact ε of `data` under `sde`.
    pub fn noise(data: &'a Mixture, sde: &'a dyn LinearSde) -> Self {
        Self { data, sde, prediction: Prediction::Noise }
    }

    /// The exact x₀ = E[x₀ | u] of `data` under `sde`.
    pub fn data(data: &'a Mixture, sde: &'a dyn LinearSde) -> Self {
        Self { data, sde, prediction: Prediction::Data }
    }

    /// Maps each row of a batch, in parallel, on the host and in f64.
    pub(crate) fn rows<R: Send>(
        &self,
        x: &Tensor,
        t: &[f64],
        f: impl Fn(&Marginal<'a>, usize, &[f64]) -> Result<R> + Sync,
    ) -> Result<Vec<R>> {
        let batch = x.dim(0)?;
        let shared = t.len() == 1;
        let times = if shared { t.to_vec() } else { per_sample(t, batch)? };
        let marginals =
            times.iter().map(|&t| self.data.marginal(self.sde, t)).collect::<Result<Vec<Marginal<'a>>>>()?;
        let values = host_rows(x)?;
        let dim = values.len() / batch.max(1);
        (0..batch)
            .into_par_iter()
            .map(|row| f(&marginals[if shared { 0 } else { row }], row, &values[row * dim..(row + 1) * dim]))
            .collect()
    }

    /// log p_t at each row of `x`.
    ///
    /// # Errors
    /// As [`Mixture::marginal`].
    pub fn log_density(&self, x: &Tensor, t: &[f64]) -> Result<Vec<f64>> {
        self.rows(x, t, |marginal, _, u| Ok(marginal.at(u)?.log_density))
    }
}

fn host_rows(x: &Tensor) -> Result<Vec<f64>> {
    Ok(x.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?)
}

impl Field for OracleField<'_> {
    fn prediction(&self) -> Prediction {
        self.prediction
    }

    fn eval(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        let rows = self.rows(x, t, |marginal, _, u| {
            let exact = marginal.at(u)?;
            Ok(if self.prediction == Prediction::Data { exact.data } else { exact.noise })
        })?;
        host_tensor(rows.concat(), x.dims(), x.dtype(), x.device())
    }

    fn pull_back(&self, x: &Tensor, t: &[f64], cotangents: &Cotangents<'_>) -> Result<(Tensor, Vec<Tensor>)> {
        let value = self.eval(x, t)?;
        let products = cotangents(&value)?
            .iter()
            .map(|v| {
                let probes = host_rows(v)?;
                let rows = self.rows(x, t, |marginal, row, u| {
                    let probe = &probes[row * u.len()..(row + 1) * u.len()];
                    if self.prediction == Prediction::Data {
                        return marginal.data_vjp(u, probe);
                    }
                    let scaled = marginal.factor().scale(-1.0).apply_host(probe)?;
                    marginal.hessian_product(u, &scaled)
                })?;
                host_tensor(rows.concat(), x.dims(), x.dtype(), x.device())
            })
            .collect::<Result<Vec<_>>>()?;
        Ok((value, products))
    }
}
