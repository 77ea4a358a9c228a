//! Training of a variational autoencoder of binary data: minus the bound of log p(x), with one code for each example.
//!
//! ```text
//! J = −E[log p(x | z) − KL(q(z | x) ‖ N(0, I))]        z = m(x) + e^{v(x)/2} ξ
//! ```
//!
//! Reference: Kingma, Welling 2014, arXiv 1312.6114, Eq. (10).

use candle_core::Tensor;
use sde_core::noise::{BatchNoise, Law, Stream};
use sde_data::Batch;
use sde_nets::Vae;

use crate::Result;
use crate::loss::LossValue;
use crate::objective::Objective;

/// The objective of an autoencoder, which it owns.
pub struct VaeBound {
    /// The networks, built on the parameters that are trained.
    pub vae: Vae,
    /// Entries above are ones, the others zeros.
    pub threshold: f64,
}

/// Examples as vectors of zeros and ones.
///
/// # Shapes
/// `[B, …]` to `[B, D]`.
///
/// # Errors
/// Those of the tensors.
pub fn binarised(x: &Tensor, threshold: f64) -> Result<Tensor> {
    Ok(x.flatten_from(1)?.gt(threshold)?.to_dtype(x.dtype())?)
}

impl Objective for VaeBound {
    fn value(&self, batch: &Batch, noise: &BatchNoise) -> Result<LossValue> {
        let x = binarised(&batch.x, self.threshold)?;
        let shape = [self.vae.code()];
        let xi = noise.tensor(Law::Normal, Stream::Diffusion, 0, &shape, x.dtype(), x.device())?;
        let total = self.vae.bound(&x, &xi)?.mean_all()?.neg()?;
        Ok(LossValue { total, terms: Vec::new(), gradients: None })
    }
}
