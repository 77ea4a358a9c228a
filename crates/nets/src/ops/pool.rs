//! Pooling over 3×3 squares: the largest value, and the mean of those inside of the image.
//!
//! ```text
//! max:  y[p] = max over (i, j) of x[p·stride + (i, j) − padding]
//! mean: y[p] = mean over the pixels among x[p + (i, j) − 1] that exist
//! ```
//!
//! Made for networks that are not trained here: what is on the tape is composed of Candle's operators, whose largest value has
//! no gradient and says so.

use std::ops::Range;

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Shape, Tensor};
use rayon::prelude::*;

use super::kernel::{Real, for_real, has_kernels, values, vectorised, with_scratch};
use crate::{Error, Result};

/// The side of a square.
const SIDE: usize = 3;

/// Pixels that one thread takes at a time.
const PIXELS: usize = 1 << 14;

/// The largest value of each 3×3 square; what is not a number is larger than any.
///
/// # Shapes
/// `[B, C, H, W]` to `[B, C, (H − 3) / stride + 1, (W − 3) / stride + 1]`; with `padded` H and W are larger by two, and squares at the
/// edge have fewer pixels.
///
/// # Errors
/// [`Error::Shape`] for an image smaller than a square, and for a stride of 0.
pub fn max_pool_3x3(x: &Tensor, stride: usize, padded: bool) -> Result<Tensor> {
    let padding = usize::from(padded);
    fits(x, stride, padding)?;
    if has_kernels(x) && !x.track_op() {
        return Ok(x.contiguous()?.apply_op1_no_bwd(&Pool { rule: Largest, stride, padding })?);
    }
    // A pixel at the edge stands for the padding beside it: it is in every square that has the padding.
    let x = if padded { x.pad_with_same(2, 1, 1)?.pad_with_same(3, 1, 1)? } else { x.clone() };
    Ok(x.max_pool2d_with_stride(SIDE, stride)?)
}

/// The mean of the pixels in the 3×3 square around each.
///
/// # Shapes
/// `[B, C, H, W]`, and so is the result.
///
/// # Errors
/// [`Error::Shape`] for an image without pixels.
pub fn avg_pool_3x3(x: &Tensor) -> Result<Tensor> {
    fits(x, 1, 1)?;
    if has_kernels(x) && !x.track_op() {
        return Ok(x.contiguous()?.apply_op1_no_bwd(&Pool { rule: Mean, stride: 1, padding: 1 })?);
    }
    let (_, _, height, width) = x.dims4()?;
    let sums = |x: &Tensor| -> Result<Tensor> {
        let padded = x.pad_with_zeros(2, 1, 1)?.pad_with_zeros(3, 1, 1)?;
        let rows = (padded.narrow(2, 0, height)? + padded.narrow(2, 1, height)?)?;
        let rows = (rows + padded.narrow(2, 2, height)?)?;
        let sums = (rows.narrow(3, 0, width)? + rows.narrow(3, 1, width)?)?;
        Ok((sums + rows.narrow(3, 2, width)?)?)
    };
    let ones = Tensor::ones((1, 1, height, width), DType::F32, x.device())?.to_dtype(x.dtype())?;
    Ok(sums(x)?.broadcast_div(&sums(&ones)?)?)
}

fn fits(x: &Tensor, stride: usize, padding: usize) -> Result<()> {
    let (_, _, height, width) = x.dims4()?;
    let fits = |size: usize| size > 0 && size + 2 * padding >= SIDE;
    if stride > 0 && fits(height) && fits(width) {
        return Ok(());
    }
    Err(Error::Shape {
        what: "pooling over 3×3 squares",
        expected: format!("a stride, and at least {} rows and columns", SIDE - 2 * padding),
        found: format!("stride {stride}, {height}×{width}"),
    })
}

/// What is made of the pixels of a square.
trait Rule: Copy + Sync {
    /// Of two parts of a square.
    fn join<T: Real>(self, a: T, b: T) -> T;

    /// At the end, of a square that has so many pixels.
    fn finish<T: Real>(self, value: T, pixels: usize) -> T;
}

/// The largest value.
#[derive(Clone, Copy)]
struct Largest;

/// The mean.
#[derive(Clone, Copy)]
struct Mean;

impl Rule for Largest {
    #[inline(always)]
    fn join<T: Real>(self, a: T, b: T) -> T {
        // What is not a number is not equal to itself.
        if a < b || b.partial_cmp(&b).is_none() { b } else { a }
    }

    #[inline(always)]
    fn finish<T: Real>(self, value: T, _pixels: usize) -> T {
        value
    }
}

impl Rule for Mean {
    #[inline(always)]
    fn join<T: Real>(self, a: T, b: T) -> T {
        a + b
    }

    #[inline(always)]
    fn finish<T: Real>(self, value: T, pixels: usize) -> T {
        value * T::from_f64(1.0 / pixels as f64)
    }
}

/// Pooling by a rule.
struct Pool<R> {
    rule: R,
    stride: usize,
    padding: usize,
}

impl<R: Rule> CustomOp1 for Pool<R> {
    fn name(&self) -> &'static str {
        "pooling over 3×3 squares"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (batch, channels, height, width) = layout.shape().dims4()?;
        let out = [height, width].map(|size| (size + 2 * self.padding - SIDE) / self.stride + 1);
        let y = for_real!(x, T => values::<T>(x, layout).map(|x| self.planes(x, [height, width], out)))?;
        Ok((y, Shape::from((batch, channels, out[0], out[1]))))
    }
}

impl<R: Rule> Pool<R> {
    fn planes<T: Real>(&self, x: &[T], [height, width]: [usize; 2], out: [usize; 2]) -> Vec<T> {
        let (from, to) = (height * width, out[0] * out[1]);
        let mut y = vec![T::zero(); x.len() / from * to];
        let planes = y.par_chunks_mut(to).zip(x.par_chunks(from));
        planes.with_min_len((PIXELS / from).max(1)).for_each(|(y, x)| {
            with_scratch(width, |column| {
                vectorised(
                    #[inline(always)]
                    || {
                        for (i, y) in y.chunks_exact_mut(out[1]).enumerate() {
                            let rows = self.inside(i, height);
                            self.row(&x[rows.start * width..rows.end * width], rows.len(), column, y);
                        }
                    },
                );
            });
        });
        y
    }

    /// The rows or columns that output position `i` sees.
    #[inline(always)]
    fn inside(&self, i: usize, size: usize) -> Range<usize> {
        let first = i * self.stride;
        first.saturating_sub(self.padding)..(first + SIDE - self.padding).min(size)
    }

    /// One row of the output, from the rows that it sees: joined first over rows, to `column`, then over columns.
    #[inline(always)]
    fn row<T: Real>(&self, x: &[T], rows: usize, column: &mut [T], y: &mut [T]) {
        let (rule, width) = (self.rule, column.len());
        column.copy_from_slice(&x[..width]);
        for row in x.chunks_exact(width).skip(1) {
            column.iter_mut().zip(row).for_each(|(a, &b)| *a = rule.join(*a, b));
        }
        // Squares that have all their columns, which is all but the first and the last of a padded image.
        let whole = self.padding..(y.len() - self.padding).max(self.padding);
        let first = self.padding * (self.stride - 1);
        let columns = |j: usize| column.get(first + j..).unwrap_or_default().iter().step_by(self.stride);
        let [a, b, c] = [columns(0), columns(1), columns(2)];
        for (y, ((&a, &b), &c)) in y[whole.clone()].iter_mut().zip(a.zip(b).zip(c)) {
            *y = rule.finish(rule.join(rule.join(a, b), c), SIDE * rows);
        }
        for i in (0..whole.start).chain(whole.end..y.len()) {
            let seen = &column[self.inside(i, width)];
            let value = seen.iter().skip(1).fold(seen[0], |a, &b| rule.join(a, b));
            y[i] = rule.finish(value, seen.len() * rows);
        }
    }
}
