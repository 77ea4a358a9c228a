//! Similarity guidance: the cosine between an encoding of the state and a wanted one, in the place of a log-likelihood.
//!
//! `sim(x, y) = ⟨E(x), y⟩ / (‖E(x)‖ ‖y‖)`; with [`Guided`](super::Guided), `ε̃ = ε − γ Rᵀ ∇ sim(u, y)`. The encoder should know noised states,
//! and is told the time; one of clean data goes through [`CleanGuided`](super::CleanGuided).
//!
//! Reference: Liu et al. 2021, arXiv 2112.05744, section 3; Nichol et al. 2021, arXiv 2112.10741, section 2.4. Differs: the encodings are
//! normalised here, so their scale does not matter. An encoding of length zero has no direction, and gives NaN.

use candle_core::{D, Tensor};
use sde_core::{Result, rows_of};

use super::LogLikelihood;

/// The cosine between encodings of states and wanted encodings; −1 to 1 for each sample.
pub struct Similarity<E> {
    encoder: E,
    wanted: Tensor,
}

impl<E: Fn(&Tensor, &[f64]) -> Result<Tensor>> Similarity<E> {
    /// The similarity of `encoder(x, t)`, a function on Candle's tape, to `wanted`.
    ///
    /// # Shapes
    /// The encoder makes `[B, K]` of `[B, …]`; `wanted` is `[B, K]`, or `[1, K]` for all samples.
    pub fn new(encoder: E, wanted: Tensor) -> Self {
        Self { encoder, wanted }
    }
}

impl<E: Fn(&Tensor, &[f64]) -> Result<Tensor>> LogLikelihood for Similarity<E> {
    fn log_likelihood(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        let encoded = (self.encoder)(x, t)?;
        let wanted = self.wanted.to_dtype(encoded.dtype())?;
        let length = |e: &Tensor| e.sqr()?.sum(D::Minus1)?.sqrt();
        let product = encoded.broadcast_mul(&wanted)?.sum(D::Minus1)?;
        Ok(product.div(&length(&encoded)?)?.broadcast_div(&length(&wanted)?)?)
    }

    fn restrict<'a>(&'a self, samples: &[usize]) -> Result<Option<Box<dyn LogLikelihood + 'a>>> {
        if self.wanted.dim(0)? == 1 {
            return Ok(None);
        }
        let encoder: &dyn Fn(&Tensor, &[f64]) -> Result<Tensor> = &self.encoder;
        Ok(Some(Box::new(Similarity::new(encoder, rows_of(&self.wanted, samples)?))))
    }
}
