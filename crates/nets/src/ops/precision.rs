//! The type in which products are formed: that of the network, or bf16 with everything else as it was.
//!
//! With [`Products::Bf16`], convolutions, linear maps and the two products of attention take factors rounded to bf16 and give
//! results rounded to bf16; their sums are in f32, and so is whatever lies between them: normalisation, activations, softmax,
//! residual sums, the loss. Parameters stay what they are (*master weights*): the rounding is on the tape, a gradient passes
//! through it and is rounded, too.
//!
//! ```text
//! r(x): x rounded to 8 significant bits        y = r( r(x) · r(w) )        x̄ = r( r(ȳ) · r(w) )
//! ```
//!
//! On CUDA the products run on tensor cores. On a CPU the same function is computed in f32 with rounded values: it is there for
//! tests, and is no faster than without.
//!
//! Reference: Micikevicius et al. 2018, arXiv 1710.03740; Kalamkar et al. 2019, arXiv 1905.12322, for bf16, which needs no
//! scaling of the loss.
//! Differs: activations between products stay in the network's type.

use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

use super::attention::attention_by;
use super::{Window, conv2d, linear};
use crate::Result;

/// The type in which a network forms its products.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Products {
    /// The network's own.
    Full,
    /// bf16, with sums in f32.
    Bf16,
}

impl Products {
    /// [`conv2d`] with its product in this type.
    ///
    /// # Errors
    /// Those of [`conv2d`].
    pub fn conv2d(
        self,
        x: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        window: Window,
    ) -> Result<Tensor> {
        if self == Self::Full {
            return conv2d(x, weight, bias, window);
        }
        let bias = bias.map(narrowed).transpose()?;
        widened(conv2d(&narrowed(x)?, &narrowed(weight)?, bias.as_ref(), window)?, x)
    }

    /// [`linear`] with its product in this type; the bias is added to the rounded product.
    ///
    /// # Errors
    /// Those of [`linear`].
    pub fn linear(self, x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
        match self {
            Self::Full => linear(x, weight, bias),
            Self::Bf16 => Ok(self.matmul(x, &weight.t()?)?.broadcast_add(bias)?),
        }
    }

    /// The matrix product in this type.
    ///
    /// # Shapes
    /// `a` `[…, M, K]`, `b` `[…, K, N]`; the output is `[…, M, N]`.
    ///
    /// # Errors
    /// Where these do not fit.
    pub fn matmul(self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        match self {
            Self::Full => Ok(a.matmul(b)?),
            Self::Bf16 => widened(narrowed(a)?.matmul(&narrowed(b)?)?, a),
        }
    }

    /// [`attention`](super::attention()) with its products in this type, and the softmax between them in that of the arguments.
    ///
    /// # Errors
    /// Those of [`attention`](super::attention()).
    pub fn attention(self, query: &Tensor, key: &Tensor, value: &Tensor, heads: usize) -> Result<Tensor> {
        attention_by(self, query, key, value, heads)
    }
}

/// A factor as a product takes it: rounded, and of type bf16 where products have that type.
fn narrowed(x: &Tensor) -> Result<Tensor> {
    let rounded = x.to_dtype(DType::BF16)?;
    Ok(if x.device().is_cuda() { rounded } else { rounded.to_dtype(x.dtype())? })
}

/// A product rounded, and of the type of `like`.
fn widened(product: Tensor, like: &Tensor) -> Result<Tensor> {
    Ok(product.to_dtype(DType::BF16)?.to_dtype(like.dtype())?)
}

static TF32: AtomicBool = AtomicBool::new(false);

/// Lets f32 products on CUDA round their factors to TF32, which has f32's range and 11 significant bits, and runs on tensor
/// cores. It holds for the whole process, is off at the start, and changes nothing on other devices.
pub fn allow_tf32(allow: bool) {
    TF32.store(allow, Ordering::Relaxed);
    #[cfg(feature = "cuda")]
    candle_core::cuda_backend::set_gemm_reduced_precision_f32(allow);
}

/// Whether [`allow_tf32`] has been given leave.
pub fn tf32() -> bool {
    TF32.load(Ordering::Relaxed)
}
