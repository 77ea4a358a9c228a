//! Linear maps: `y = x Wᵀ + b`, and backwards `x̄ = ȳ W`, `W̄ = ȳᵀ x`, `b̄ = Σ ȳ` over rows.
//!
//! The fused backward leaves the tape; where second derivatives are taped, it is composed of Candle's operators.
//! A row of y does not depend on the other rows, nor on their number.

use candle_core::{CpuStorage, CustomOp3, DType, Layout, Shape, Tensor};
use rayon::prelude::*;

use super::kernel::{
    Matrix, Real, for_real, has_kernels, product, values, vectorised, with_scratch, with_values,
};
use super::tape::second_derivatives_are_taped;
use crate::{Error, Result};

/// Multiplications of one task, a product of a block of rows; few enough to share, many enough to be worth it.
const BLOCK: usize = 1 << 22;

/// Multiplications below which another thread is not worth waking.
const WORK: usize = 1 << 23;

/// Products of at most this many entries take another path in the matrix product, which sums in another order; so do
/// those of one row.
const SMALL_PRODUCT: usize = 256;

/// The linear map of each row of `x`.
///
/// # Shapes
/// `x` `[B, I]`, `weight` `[O, I]`, `bias` `[O]`; the output is `[B, O]`.
///
/// # Errors
/// [`Error::Shape`] where these do not fit each other.
pub fn linear(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let ((rows, inputs), (outputs, expected)) = (x.dims2()?, weight.dims2()?);
    if inputs != expected || inputs == 0 || outputs == 0 || bias.dims() != [outputs] {
        return Err(Error::Shape {
            what: "linear map",
            expected: format!(
                "one or more inputs and outputs, weight [O, {inputs}] and bias [O] for input [{rows}, {inputs}]"
            ),
            found: format!("weight {:?}, bias {:?}", weight.dims(), bias.dims()),
        });
    }
    if !has_kernels(x) {
        return Ok(x.matmul(&weight.t()?)?.broadcast_add(bias)?);
    }
    Ok(x.contiguous()?.apply_op3(&weight.contiguous()?, &bias.contiguous()?, Linear)?)
}

struct Linear;

type CandleResult<T> = candle_core::Result<T>;
/// Gradients with respect to x, weight and bias.
type Gradients = (Option<Tensor>, Option<Tensor>, Option<Tensor>);

impl CustomOp3 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let (rows, inputs, outputs) = (x_layout.dims()[0], x_layout.dims()[1], w_layout.dims()[0]);
        let y = for_real!(x, T => {
            let (x, w, b) = (values::<T>(x, x_layout)?, values(w, w_layout)?, values(b, b_layout)?);
            CandleResult::Ok(by_rows(x, [rows, inputs], Matrix::rows(w, inputs).transposed(), outputs, Some(b)))
        })?;
        Ok((y, Shape::from((rows, outputs))))
    }

    fn bwd(&self, x: &Tensor, w: &Tensor, b: &Tensor, _y: &Tensor, grad: &Tensor) -> CandleResult<Gradients> {
        if second_derivatives_are_taped() {
            return Ok((Some(grad.matmul(w)?), Some(grad.t()?.matmul(x)?), Some(grad.sum(0)?)));
        }
        match x.dtype() {
            DType::F64 => backward::<f64>(x, w, b, &grad.contiguous()?),
            _ => backward::<f32>(x, w, b, &grad.contiguous()?),
        }
    }
}

/// `x right + bias`, `x` of `size` rows and columns; rows in blocks, which few rows fill up with zeros.
fn by_rows<T: Real>(
    x: &[T],
    [rows, inner]: [usize; 2],
    right: Matrix<'_, T>,
    columns: usize,
    bias: Option<&[T]>,
) -> Vec<T> {
    let mut y = vec![T::zero(); rows * columns];
    let enough = (SMALL_PRODUCT / columns.max(1) + 1).max(2);
    let block = (BLOCK / (inner * columns).max(1)).max(enough);
    let tasks = y.par_chunks_mut((block * columns).max(1)).zip(x.par_chunks(block * inner));
    tasks.with_min_len(WORK / (block * inner * columns).max(1) + 1).for_each(|(y, x)| {
        let rows = x.len() / inner;
        if rows >= enough {
            product(y, (rows, inner, columns), Matrix::rows(x, inner), right, false);
        } else {
            with_scratch(enough * (inner + columns), |scratch| {
                let (padded, result) = scratch.split_at_mut(enough * inner);
                padded[..x.len()].copy_from_slice(x);
                padded[x.len()..].fill(T::zero());
                product(result, (enough, inner, columns), Matrix::rows(padded, inner), right, false);
                y.copy_from_slice(&result[..y.len()]);
            });
        }
        if let Some(bias) = bias {
            vectorised(
                #[inline(always)]
                || {
                    y.chunks_exact_mut(columns)
                        .for_each(|y| y.iter_mut().zip(bias).for_each(|(y, &b)| *y += b))
                },
            );
        }
    });
    y
}

fn backward<T: Real>(x: &Tensor, w: &Tensor, b: &Tensor, grad: &Tensor) -> CandleResult<Gradients> {
    let ((rows, inputs), outputs) = (x.dims2()?, w.dim(0)?);
    let (device, tracked) = (x.device(), x.track_op());
    let (for_x, for_w, for_b) = with_values([x, w, grad], |[x, w, grad]: [&[T]; 3]| {
        let for_x = match tracked {
            true => by_rows(grad, [rows, outputs], Matrix::rows(w, inputs), inputs, None),
            false => Vec::new(),
        };
        let mut for_w = vec![T::zero(); outputs * inputs];
        let block = (BLOCK / (inputs * rows).max(1)).max(16);
        let blocks = for_w.par_chunks_mut(block * inputs).enumerate();
        blocks.with_min_len(WORK / (block * inputs * rows).max(1) + 1).for_each(|(index, for_w)| {
            let grad =
                Matrix { values: &grad[(index * block).min(grad.len())..], ..Matrix::rows(grad, outputs) };
            let size = (for_w.len() / inputs, rows, inputs);
            product(for_w, size, grad.transposed(), Matrix::rows(x, inputs), false);
        });
        let mut for_b = vec![T::zero(); outputs];
        vectorised(
            #[inline(always)]
            || grad.chunks_exact(outputs).for_each(|g| for_b.iter_mut().zip(g).for_each(|(b, &g)| *b += g)),
        );
        Ok((for_x, for_w, for_b))
    })?;
    let wanted = |tensor: &Tensor, values: Vec<T>| {
        tensor.track_op().then(|| Tensor::from_vec(values, tensor.dims(), device)).transpose()
    };
    Ok((wanted(x, for_x)?, wanted(w, for_w)?, wanted(b, for_b)?))
}
