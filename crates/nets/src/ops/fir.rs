//! Resampling behind the filter k = [1, 3, 3, 1] along height and width: a linear operator of the form "insert zeros,
//! pad, filter, keep some", which is closed under taking adjoints.
//!
//! Along one axis, with z the input with `up − 1` zeros behind each value,
//!
//! ```text
//! y_o = g Σ_j k_j z_{o·down + j − before},   j = 0 … 3
//! ```
//!
//! and zeros outside. Since k is symmetric, the adjoint has the same form with `up` and `down` exchanged and
//! `before` ↦ 3 − `before`, so that each operator here is its own backward's backward.
//!
//! Reference: Zhang 2019, arXiv 1904.11486; Karras et al. 2020, arXiv 1912.04958, appendix B; Song et al. 2021, arXiv
//! 2011.13456, appendix H.

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};
use rayon::prelude::*;

use super::kernel::{Real, for_real, has_kernels, values, vectorised};
use crate::{Error, Result};

/// The filter, before its gain.
const TAPS: [f64; 4] = [1.0, 3.0, 3.0, 1.0];

/// Twice the size, by the filter with sum 4: constants stay what they are away from the border.
///
/// # Shapes
/// `[B, C, H, W]` to `[B, C, 2H, 2W]`.
pub fn fir_up_2x(x: &Tensor) -> Result<Tensor> {
    let (_, _, height, width) = x.dims4()?;
    Fir { up: 2, down: 1, before: 2, gain: 0.25, output: [2 * height, 2 * width] }.apply(x)
}

/// Half the size, by the filter with sum 1.
///
/// # Shapes
/// `[B, C, 2H, 2W]` to `[B, C, H, W]`.
///
/// # Errors
/// [`Error::Shape`] for an odd height or width.
pub fn fir_down_2x(x: &Tensor) -> Result<Tensor> {
    let (_, _, height, width) = x.dims4()?;
    if !height.is_multiple_of(2) || !width.is_multiple_of(2) {
        return Err(Error::Shape {
            what: "filtering down by two",
            expected: "an even height and width".into(),
            found: format!("{height}×{width}"),
        });
    }
    Fir { up: 1, down: 2, before: 1, gain: 0.125, output: [height / 2, width / 2] }.apply(x)
}

/// The filter with sum 1 at every place between pixels, the border's outer sides too: what a 3×3 convolution of stride
/// 2 without padding then halves.
///
/// # Shapes
/// `[B, C, H, W]` to `[B, C, H + 1, W + 1]`.
pub fn fir_blur(x: &Tensor) -> Result<Tensor> {
    let (_, _, height, width) = x.dims4()?;
    Fir { up: 1, down: 1, before: 2, gain: 0.125, output: [height + 1, width + 1] }.apply(x)
}

/// The operator. `before` is at most 3; `gain` is that of one axis.
#[derive(Debug, Clone, Copy)]
struct Fir {
    up: usize,
    down: usize,
    before: usize,
    gain: f64,
    output: [usize; 2],
}

impl Fir {
    fn apply(self, x: &Tensor) -> Result<Tensor> {
        if has_kernels(x) {
            return Ok(x.contiguous()?.apply_op1(self)?);
        }
        self.along(&self.along(x, 2)?, 3)
    }

    /// The adjoint, for inputs of this operator of this size.
    fn adjoint(self, input: [usize; 2]) -> Self {
        Self { up: self.down, down: self.up, before: 3 - self.before, output: input, ..self }
    }

    /// Along one axis, of Candle's own operators.
    fn along(&self, x: &Tensor, axis: usize) -> Result<Tensor> {
        let (size, output) = (x.dim(axis)?, self.output[axis - 2]);
        let mut z = x.clone();
        if self.up == 2 {
            z = Tensor::stack(&[&z, &z.zeros_like()?], axis + 1)?;
            let mut dims = x.dims().to_vec();
            dims[axis] = 2 * size;
            z = z.reshape(dims)?;
        }
        // Room for the last output's last tap, and for the last output to be one of `down`.
        let after = (output * self.down + 3).saturating_sub(self.before + self.up * size);
        let z = z.pad_with_zeros(axis, self.before, after)?;
        let mut sum: Option<Tensor> = None;
        for (j, tap) in TAPS.iter().enumerate() {
            let shifted = z.narrow(axis, j, output * self.down)?;
            let kept = if self.down == 2 {
                let mut dims = shifted.dims().to_vec();
                dims[axis] = output;
                dims.insert(axis + 1, 2);
                shifted.reshape(dims)?.narrow(axis + 1, 0, 1)?.squeeze(axis + 1)?
            } else {
                shifted
            };
            let term = (kept * (tap * self.gain))?;
            sum = Some(match sum {
                None => term,
                Some(sum) => (sum + term)?,
            });
        }
        sum.ok_or_else(|| candle_core::Error::Msg("a filter without taps".into()).into())
    }

    /// One image: along the height into rows `z` with zeros around, then along the width.
    #[inline(always)]
    fn image<T: Real>(&self, x: &[T], y: &mut [T], z: &mut [T], width: usize) {
        let taps = TAPS.map(|tap| T::from_f64(tap * self.gain));
        let height = x.len() / width.max(1);
        for (o, y) in y.chunks_exact_mut(self.output[1].max(1)).enumerate() {
            z.fill(T::zero());
            for (j, &tap) in taps.iter().enumerate() {
                let Some(i) = (o * self.down + j).checked_sub(self.before) else { continue };
                if i.is_multiple_of(self.up) && i / self.up < height {
                    let row = &x[i / self.up * width..][..width];
                    let places = z[self.before..].iter_mut().step_by(self.up);
                    places.zip(row).for_each(|(z, &x)| *z += tap * x);
                }
            }
            self.row(z, y, taps);
        }
    }

    #[inline(always)]
    fn row<T: Real>(&self, z: &[T], y: &mut [T], taps: [T; 4]) {
        let [a, b, c, d] = taps;
        if self.down == 1 {
            for (y, z) in y.iter_mut().zip(z.windows(4)) {
                *y = (a * z[0] + b * z[1]) + (c * z[2] + d * z[3]);
            }
        } else {
            for (o, y) in y.iter_mut().enumerate() {
                let z = &z[o * self.down..][..4];
                *y = (a * z[0] + b * z[1]) + (c * z[2] + d * z[3]);
            }
        }
    }

    fn run<T: Real>(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<Vec<T>> {
        let (x, (batch, channels, height, width)) = (values::<T>(x, layout)?, layout.shape().dims4()?);
        let [rows, columns] = self.output;
        let mut y = vec![T::zero(); batch * channels * rows * columns];
        if y.is_empty() || x.is_empty() {
            return Ok(y);
        }
        let length = (columns * self.down + 3).max(self.before + self.up * width);
        let images = y.par_chunks_mut(rows * columns).zip(x.par_chunks(height * width));
        images
            .for_each_init(|| vec![T::zero(); length], |z, (y, x)| vectorised(|| self.image(x, y, z, width)));
        Ok(y)
    }
}

impl CustomOp1 for Fir {
    fn name(&self) -> &'static str {
        "filtered resampling"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (batch, channels, _, _) = layout.shape().dims4()?;
        let y = for_real!(x, T => self.run::<T>(x, layout))?;
        let [height, width] = self.output;
        Ok((y, (batch, channels, height, width).into()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let (_, _, height, width) = x.dims4()?;
        grad.contiguous()?.apply_op1(self.adjoint([height, width])).map(Some)
    }
}
