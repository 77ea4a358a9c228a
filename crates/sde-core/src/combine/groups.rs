//! Linear combinations with small blocks over the groups of a state, `u'_i = Σ_j Σ_g K^j_ig x^j_g`: one pass over all operands on the CPU, one product of matrices
//! elsewhere.

use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::Tensor;
use rayon::prelude::*;

use super::Lane;
use crate::noise::host_tensor;
use crate::{Error, Op, Result};

/// Fewest entries worth a thread.
const GRAIN: usize = 8192;

/// Entries of one group of one sample, for states of `groups` groups.
///
/// # Errors
/// When the groups do not divide the second dimension.
pub(super) fn group_len(groups: usize, like: &Tensor) -> Result<usize> {
    let batch = like.dim(0)?;
    if like.rank() > 1 && like.dim(1)?.is_multiple_of(groups) {
        return Ok(like.elem_count() / (batch * groups).max(1));
    }
    Err(Error::Mismatch {
        what: "state of a process with groups",
        expected: format!("a second dimension divisible by {groups}"),
        found: format!("{:?}", like.dims()),
    })
}

/// The sum over contiguous operands, and whether it is finite.
pub(super) fn sum_of<T: Lane>(
    ops: &[&Op],
    operands: &[&[T]],
    groups: usize,
    len: usize,
) -> Result<(Vec<T>, bool)> {
    let blocks = ops.iter().map(|op| op.matrix(groups)).collect::<Result<Vec<_>>>()?;
    let spoilt = AtomicBool::new(false);
    let mut sum = vec![T::zero(); operands[0].len()];
    let chunk = |(at, sum): (usize, &mut [T])| {
        let (first, row) = (at / groups * groups, at % groups);
        for (block, x) in blocks.iter().zip(operands) {
            for column in 0..groups {
                let c = block[(row, column)];
                if c != 0.0 {
                    let x = &x[(first + column) * len..(first + column + 1) * len];
                    sum.iter_mut().zip(x).for_each(|(sum, x)| *sum = sum.add_product(T::of(c), *x));
                }
            }
        }
        if !sum.iter().fold(true, |fine, v| fine & v.is_finite()) {
            spoilt.store(true, Ordering::Relaxed);
        }
    };
    sum.par_chunks_mut(len.max(1)).enumerate().with_min_len(GRAIN.div_ceil(len.max(1))).for_each(chunk);
    Ok((sum, !spoilt.into_inner()))
}

/// The sum as one product: the operands above each other, the blocks beside each other.
pub(super) fn product(terms: &[(&Op, &Tensor)], groups: usize) -> Result<Tensor> {
    let like = terms[0].1;
    let (batch, len) = (like.dim(0)?, group_len(groups, like)?);
    let operands = terms
        .iter()
        .map(|(_, x)| x.reshape((batch, groups, len)))
        .collect::<candle_core::Result<Vec<_>>>()?;
    let width = groups * terms.len();
    let blocks = terms.iter().map(|(op, _)| op.matrix(groups)).collect::<Result<Vec<_>>>()?;
    let entry = |at: usize| blocks[at % width / groups][(at / width, at % groups)];
    let matrix = host_tensor(
        (0..groups * width).map(entry).collect(),
        &[1, groups, width],
        like.dtype(),
        like.device(),
    )?;
    let stacked = Tensor::cat(&operands, 1)?;
    Ok(matrix.broadcast_as((batch, groups, width))?.contiguous()?.matmul(&stacked)?.reshape(like.dims())?)
}
