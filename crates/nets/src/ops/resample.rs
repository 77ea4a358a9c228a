//! Doubling by nearest neighbour and halving by 2×2 sums: two linear operators, each the adjoint of the
//! other.
//!
//! Candle's own `upsample_nearest2d` overwrites a gradient that has accumulated, and its pooling
//! differentiates through it.

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};
use rayon::prelude::*;

use super::kernel::{Real, for_real, is_accelerated, values};
use crate::{Error, Result};

/// Each pixel becomes a square of four.
///
/// # Shapes
/// `[B, C, H, W]` to `[B, C, 2H, 2W]`.
pub fn upsample_nearest_2x(x: &Tensor) -> Result<Tensor> {
    let (batch, channels, height, width) = x.dims4()?;
    if is_accelerated(x) {
        return Ok(x.contiguous()?.apply_op1(Double)?);
    }
    Ok(x.reshape((batch * channels, height, 1, width, 1))?
        .broadcast_as((batch * channels, height, 2, width, 2))?
        .reshape((batch, channels, 2 * height, 2 * width))?)
}

/// The mean of each square of four pixels.
///
/// # Shapes
/// `[B, C, 2H, 2W]` to `[B, C, H, W]`.
///
/// # Errors
/// [`Error::Shape`] for an odd height or width.
pub fn avg_pool_2x(x: &Tensor) -> Result<Tensor> {
    let (batch, channels, height, width) = x.dims4()?;
    if !height.is_multiple_of(2) || !width.is_multiple_of(2) {
        return Err(Error::Shape {
            what: "pooling by two",
            expected: "an even height and width".into(),
            found: format!("{height}×{width}"),
        });
    }
    let sums = if is_accelerated(x) {
        x.contiguous()?.apply_op1(Halve)?
    } else {
        let squares = x.reshape((batch * channels, height / 2, 2, width / 2, 2))?;
        squares.sum((2, 4))?.reshape((batch, channels, height / 2, width / 2))?
    };
    Ok((sums * 0.25)?)
}

/// Rows that one thread takes at a time.
const ROWS: usize = 256;

/// Nearest-neighbour doubling.
struct Double;

/// Sums of 2×2 squares.
struct Halve;

/// The shape with the last two sizes mapped.
fn resized(layout: &Layout, f: impl Fn(usize) -> usize) -> Shape {
    let mut dims = layout.dims().to_vec();
    dims.iter_mut().rev().take(2).for_each(|size| *size = f(*size));
    dims.into()
}

/// The width of the rows of a layout.
fn width(layout: &Layout) -> usize {
    layout.dims().last().copied().unwrap_or(1).max(1)
}

impl CustomOp1 for Double {
    fn name(&self) -> &'static str {
        "nearest upsampling"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let y = for_real!(x, T => doubled::<T>(x, layout))?;
        Ok((y, resized(layout, |size| 2 * size)))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> candle_core::Result<(candle_core::CudaStorage, Shape)> {
        Ok((super::cuda::doubled(x, layout)?, resized(layout, |size| 2 * size)))
    }

    fn bwd(&self, _x: &Tensor, _y: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        grad.contiguous()?.apply_op1(Halve).map(Some)
    }
}

impl CustomOp1 for Halve {
    fn name(&self) -> &'static str {
        "sums of 2×2 squares"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let y = for_real!(x, T => halved::<T>(x, layout))?;
        Ok((y, resized(layout, |size| size / 2)))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> candle_core::Result<(candle_core::CudaStorage, Shape)> {
        Ok((super::cuda::halved(x, layout)?, resized(layout, |size| size / 2)))
    }

    fn bwd(&self, _x: &Tensor, _y: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        grad.contiguous()?.apply_op1(Double).map(Some)
    }
}

fn doubled<T: Real>(x: &CpuStorage, layout: &Layout) -> candle_core::Result<Vec<T>> {
    let (x, width) = (values::<T>(x, layout)?, width(layout));
    let mut y = vec![T::zero(); 4 * x.len()];
    y.par_chunks_mut(4 * width).zip(x.par_chunks(width)).with_min_len(ROWS).for_each(|(rows, x)| {
        let (first, second) = rows.split_at_mut(2 * width);
        first.chunks_exact_mut(2).zip(x).for_each(|(pair, &v)| pair.fill(v));
        second.copy_from_slice(first);
    });
    Ok(y)
}

fn halved<T: Real>(x: &CpuStorage, layout: &Layout) -> candle_core::Result<Vec<T>> {
    let (x, width) = (values::<T>(x, layout)?, width(layout));
    let mut y = vec![T::zero(); x.len() / 4];
    let rows = y.par_chunks_mut((width / 2).max(1)).zip(x.par_chunks(2 * width));
    rows.with_min_len(ROWS).for_each(|(y, rows)| {
        let (first, second) = rows.split_at(width);
        let pairs = first.chunks_exact(2).zip(second.chunks_exact(2));
        y.iter_mut().zip(pairs).for_each(|(y, (a, b))| *y = (a[0] + a[1]) + (b[0] + b[1]));
    });
    Ok(y)
}
