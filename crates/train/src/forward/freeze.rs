//! A learned process at its present values as a process like any other, for samplers, likelihoods and tables.
//!
//! P becomes a basis of operators (a Kronecker product stays one), λ the spectrum there; ω by its entries is brought into
//! its own basis of planes.
//!
//! Reference: "A Flexible Diffusion Model", section 4.2: sampling needs the network and the frozen (P, λ) alone.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use nalgebra::DMatrix;
use sde_core::process::{Clocked, Commuting};
use sde_core::{Basis, LinearSde};
use sde_nets::Frame;

use super::{Form, Forward};
use crate::Result;

impl Forward {
    /// The process at the present values of the parameters, without a tape.
    ///
    /// # Errors
    /// Where a parameter is not finite, or a speed beyond the range of processes.
    pub fn process(&self) -> Result<Arc<dyn LinearSde>> {
        let law = match self.flow(DType::F64)?.into_form() {
            Form::Noise(frame, rates) => Commuting::fp_noise(basis(&frame)?, host(&rates)?, 1.0)?,
            Form::Drift(frame, rates) => {
                Commuting::new(basis(&frame)?, vec![1.0; self.dim], host(&rates)?, 1.0)?
            }
            Form::Rotation(upper) => {
                let upper = host(&upper)?;
                let mut omega = DMatrix::zeros(self.dim, self.dim);
                let pairs = (0..self.dim).flat_map(|i| (i + 1..self.dim).map(move |j| (i, j)));
                for ((i, j), value) in pairs.zip(upper) {
                    omega[(i, j)] = value;
                    omega[(j, i)] = -value;
                }
                Commuting::fp_drift(&omega, 1.0)?
            }
        };
        Ok(Arc::new(Clocked::new(law, self.clock)?))
    }
}

fn basis(frame: &Frame) -> Result<Arc<Basis>> {
    let factors = frame.factors()?.into_iter().map(|(n, rows)| DMatrix::from_row_slice(n, n, &rows));
    Ok(Arc::new(Basis::kronecker(factors.collect())?))
}

fn host(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(tensor.detach().to_device(&Device::Cpu)?.to_vec1()?)
}
