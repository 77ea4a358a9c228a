//! Scaled dot-product self-attention over positions: `o = v softmax(qᵀ k / √d)ᵀ`, one head at a time.
//!
//! Reference: Vaswani et al. 2017, arXiv 1706.03762, equation 1.

use candle_core::Tensor;

use super::{Products, softmax};
use crate::{Error, Result};

/// Attention of every position to every position, with the channels split into heads.
///
/// # Shapes
/// `query`, `key`, `value` and the output are `[B, C, N]`: channels by positions.
///
/// # Errors
/// [`Error::Shape`] where the heads do not divide the channels.
pub fn attention(query: &Tensor, key: &Tensor, value: &Tensor, heads: usize) -> Result<Tensor> {
    Products::Full.attention(query, key, value, heads)
}

/// [`attention`] with its two products in a type of their own.
pub(super) fn attention_by(
    products: Products,
    query: &Tensor,
    key: &Tensor,
    value: &Tensor,
    heads: usize,
) -> Result<Tensor> {
    let (batch, channels, positions) = query.dims3()?;
    if heads == 0 || !channels.is_multiple_of(heads) {
        return Err(Error::Shape {
            what: "attention",
            expected: format!("a number of heads that divides {channels} channels"),
            found: heads.to_string(),
        });
    }
    let dim = channels / heads;
    let split = |x: &Tensor| x.reshape((batch * heads, dim, positions));
    let (query, key, value) = (split(query)?, split(key)?, split(value)?);
    let scores = (products.matmul(&query.transpose(1, 2)?, &key)? * (1.0 / (dim as f64).sqrt()))?;
    let weights = softmax(&scores)?;
    Ok(products.matmul(&value, &weights.transpose(1, 2)?)?.reshape((batch, channels, positions))?)
}
