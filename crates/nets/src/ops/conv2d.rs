//! Two-dimensional convolution (cross-correlation), and its two gradients.
//!
//! `y[b,o,p] = bias[b,o] + Σ_{c,i,j} w[o,c,i,j] x[b,c,p·stride + (i,j) − padding]`.
//!
//! Convolution is bilinear in (x, w), so it and its two gradients are closed under differentiation: the derivative
//! of each is made of the other two. All three are operators on the tape, so derivatives of any order are right. The
//! gradient with respect to x exists for any number of channels.
//!
//! On the CPU each is computed by products with patches ([`im2col`]) or at the points of a polynomial
//! ([`winograd`]), by [`Algorithm::of`]; both in blocks that depend on shapes alone.

mod bands;
mod epilogue;
mod im2col;
mod tiles;
mod winograd;

use candle_core::{CpuStorage, CustomOp2, CustomOp3, D, DType, Layout, Shape, Tensor};

use self::epilogue::Epilogue;
use super::kernel::{Real, for_real, has_kernels, is_accelerated, values};
use super::patches::Geometry;
use crate::{Error, Result};

/// Stride and zero padding of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The step between output positions, in both directions.
    pub stride: usize,
    /// Zeros above, below, left and right of the image.
    pub padding: [usize; 4],
}

impl Window {
    /// Stride 1 and the padding that keeps the size under an odd kernel k×k.
    pub fn same(kernel: usize) -> Self {
        Self { stride: 1, padding: [kernel / 2; 4] }
    }

    /// Stride 2 with zeros below and right only, which halves an even size under a 3×3 kernel as the DDPM
    /// networks do.
    pub const HALVE: Self = Self { stride: 2, padding: [0, 1, 0, 1] };
}

/// The convolution of `x` with `weight`, plus `bias`.
///
/// # Shapes
/// `x` `[B, C, H, W]`, `weight` `[O, C, k_h, k_w]`, `bias` `[O]`, or `[B, O]` for one of each sample; the
/// output is `[B, O, H', W']`.
///
/// # Errors
/// [`Error::Shape`] where these do not fit each other.
pub fn conv2d(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, window: Window) -> Result<Tensor> {
    convolution(x, weight, bias, window, false)
}

/// The same with negative values of the result made zero, in one pass on the CPU.
///
/// # Shapes
/// Those of [`conv2d`].
///
/// # Errors
/// Those of [`conv2d`].
pub fn conv2d_relu(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, window: Window) -> Result<Tensor> {
    if !has_kernels(x) {
        return Ok(conv2d(x, weight, bias, window)?.relu()?);
    }
    convolution(x, weight, bias, window, true)
}

fn convolution(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    window: Window,
    relu: bool,
) -> Result<Tensor> {
    let (batch, channels, height, width) = x.dims4()?;
    let (filters, weight_channels, kh, kw) = weight.dims4()?;
    let bias =
        bias.map(|bias| if bias.rank() == 1 { bias.unsqueeze(0) } else { Ok(bias.clone()) }).transpose()?;
    let bias_fits =
        bias.as_ref().is_none_or(|bias| bias.dims() == [1, filters] || bias.dims() == [batch, filters]);
    if channels == 0 || height * width == 0 || channels != weight_channels || !bias_fits {
        return Err(Error::Shape {
            what: "convolution",
            expected: format!(
                "one or more channels and pixels, weight [O, {channels}, k, k], bias [O] or [{batch}, O] for input {:?}",
                x.dims()
            ),
            found: format!("weight {:?}, bias {:?}", weight.dims(), bias.map(|bias| bias.dims().to_vec())),
        });
    }
    let Window { stride, padding } = window;
    let geometry = Geometry { channels, height, width, kernel: [kh, kw], stride, padding };
    let convolution = Conv { geometry, relu };
    geometry.output()?;
    if !is_accelerated(x) {
        return composed(x, weight, bias.as_ref(), window);
    }
    let (x, weight) = (x.contiguous()?, weight.contiguous()?);
    Ok(match bias {
        Some(bias) => x.apply_op3(&weight, &bias.contiguous()?, convolution)?,
        None => x.apply_op2(&weight, convolution)?,
    })
}

/// The same function by Candle's own convolution.
fn composed(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, window: Window) -> Result<Tensor> {
    let [top, bottom, left, right] = window.padding;
    let symmetric = top == bottom && left == right && top == left;
    let (x, padding) = if symmetric {
        (x.clone(), top)
    } else {
        (x.pad_with_zeros(2, top, bottom)?.pad_with_zeros(3, left, right)?, 0)
    };
    let y = x.conv2d(weight, padding, window.stride, 1, 1)?;
    Ok(match bias {
        Some(bias) => y.broadcast_add(&bias.unsqueeze(2)?.unsqueeze(3)?)?,
        None => y,
    })
}

/// (x, w) ↦ y, and (x, w, bias) ↦ y; with `relu` its positive part, which kernels on the CPU have.
#[derive(Debug, Clone, Copy)]
struct Conv {
    geometry: Geometry,
    relu: bool,
}

/// (ȳ, w) ↦ x̄: the adjoint in x.
#[derive(Debug, Clone, Copy)]
struct InputGradient {
    geometry: Geometry,
}

/// (x, ȳ) ↦ w̄: the adjoint in w.
#[derive(Debug, Clone, Copy)]
struct WeightGradient {
    geometry: Geometry,
}

type CandleResult<T> = candle_core::Result<T>;

/// Applies a bilinear operator where the gradient of one of its arguments is wanted.
fn gradient<C: CustomOp2 + Send + Sync + 'static>(
    wanted: &Tensor,
    left: &Tensor,
    right: &Tensor,
    operator: C,
) -> CandleResult<Option<Tensor>> {
    if !wanted.track_op() {
        return Ok(None);
    }
    // A gradient on the tape remembers, and so keeps alive, the gradient that it was computed from.
    let taped = super::second_derivatives_are_taped();
    let argument = |x: &Tensor| if taped { x.contiguous() } else { x.detach().contiguous() };
    argument(left)?.apply_op2(&argument(right)?, operator).map(Some)
}

impl CustomOp2 for Conv {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let filters = w_layout.dims()[0];
        let y = for_real!(x, T => self.run::<T>(values(x, x_layout)?, values(w, w_layout)?, None, filters))?;
        Ok((y, self.output_shape(x_layout, w_layout)?))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &candle_core::CudaStorage,
        x_layout: &Layout,
        w: &candle_core::CudaStorage,
        w_layout: &Layout,
    ) -> CandleResult<(candle_core::CudaStorage, Shape)> {
        super::cuda::convolution::forward(&self.geometry, (x, x_layout), (w, w_layout), None)
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        y: &Tensor,
        grad: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>)> {
        let (geometry, grad) = (self.geometry, &self.passed(y, grad)?);
        let for_x = gradient(x, grad, w, InputGradient { geometry })?;
        let for_w = gradient(w, x, grad, WeightGradient { geometry })?;
        Ok((for_x, for_w))
    }
}

impl CustomOp3 for Conv {
    fn name(&self) -> &'static str {
        "conv2d with bias"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let filters = w_layout.dims()[0];
        let y = for_real!(x, T => {
            let bias = Some(values::<T>(bias, bias_layout)?);
            self.run(values(x, x_layout)?, values(w, w_layout)?, bias, filters)
        })?;
        Ok((y, self.output_shape(x_layout, w_layout)?))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &candle_core::CudaStorage,
        x_layout: &Layout,
        w: &candle_core::CudaStorage,
        w_layout: &Layout,
        bias: &candle_core::CudaStorage,
        bias_layout: &Layout,
    ) -> CandleResult<(candle_core::CudaStorage, Shape)> {
        let bias = Some((bias, bias_layout));
        super::cuda::convolution::forward(&self.geometry, (x, x_layout), (w, w_layout), bias)
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        bias: &Tensor,
        y: &Tensor,
        grad: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (for_x, for_w) = CustomOp2::bwd(self, x, w, y, grad)?;
        let for_bias = if bias.track_op() {
            let by_sample = self.passed(y, grad)?.flatten_from(2)?.sum(D::Minus1)?;
            // Sums over a batch are never in bf16.
            let (own, wide) = match by_sample.dtype() {
                DType::BF16 => (DType::BF16, DType::F32),
                own => (own, own),
            };
            Some(match bias.dim(0)? {
                1 => by_sample.to_dtype(wide)?.sum_keepdim(0)?.to_dtype(own)?,
                _ => by_sample,
            })
        } else {
            None
        };
        Ok((for_x, for_w, for_bias))
    }
}

impl CustomOp2 for InputGradient {
    fn name(&self) -> &'static str {
        "conv2d input gradient"
    }

    fn cpu_fwd(
        &self,
        grad: &CpuStorage,
        grad_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let Geometry { channels, height, width, .. } = self.geometry;
        let dims = grad_layout.dims();
        let x =
            for_real!(grad, T => self.run::<T>(values(grad, grad_layout)?, values(w, w_layout)?, dims[1]))?;
        Ok((x, Shape::from((dims[0], channels, height, width))))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        grad: &candle_core::CudaStorage,
        grad_layout: &Layout,
        w: &candle_core::CudaStorage,
        w_layout: &Layout,
    ) -> CandleResult<(candle_core::CudaStorage, Shape)> {
        super::cuda::convolution::input_gradient(&self.geometry, (grad, grad_layout), (w, w_layout))
    }

    fn bwd(
        &self,
        grad: &Tensor,
        w: &Tensor,
        _x: &Tensor,
        grad_x: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>)> {
        let geometry = self.geometry;
        let for_grad = gradient(grad, grad_x, w, Conv { geometry, relu: false })?;
        let for_w = gradient(w, grad_x, grad, WeightGradient { geometry })?;
        Ok((for_grad, for_w))
    }
}

impl CustomOp2 for WeightGradient {
    fn name(&self) -> &'static str {
        "conv2d weight gradient"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        grad: &CpuStorage,
        grad_layout: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let Geometry { channels, kernel: [kh, kw], .. } = self.geometry;
        let dims = grad_layout.dims();
        let w = for_real!(x, T => self.run::<T>(values(x, x_layout)?, values(grad, grad_layout)?, dims[1]))?;
        Ok((w, Shape::from((dims[1], channels, kh, kw))))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &candle_core::CudaStorage,
        x_layout: &Layout,
        grad: &candle_core::CudaStorage,
        grad_layout: &Layout,
    ) -> CandleResult<(candle_core::CudaStorage, Shape)> {
        super::cuda::convolution::weight_gradient(&self.geometry, (x, x_layout), (grad, grad_layout))
    }

    fn bwd(
        &self,
        x: &Tensor,
        grad: &Tensor,
        _w: &Tensor,
        grad_w: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>)> {
        let geometry = self.geometry;
        let for_x = gradient(x, grad, grad_w, InputGradient { geometry })?;
        let for_grad = gradient(grad, x, grad_w, Conv { geometry, relu: false })?;
        Ok((for_x, for_grad))
    }
}

impl Conv {
    fn output_shape(&self, x: &Layout, w: &Layout) -> CandleResult<Shape> {
        let [height, width] = self.geometry.output()?;
        Ok(Shape::from((x.dims()[0], w.dims()[0], height, width)))
    }

    /// The part of a gradient that passes the positive part.
    fn passed(&self, y: &Tensor, grad: &Tensor) -> CandleResult<Tensor> {
        match self.relu {
            true => grad.mul(&y.gt(0.0)?.to_dtype(grad.dtype())?),
            false => Ok(grad.clone()),
        }
    }

    fn run<T: Real>(&self, x: &[T], w: &[T], bias: Option<&[T]>, filters: usize) -> CandleResult<Vec<T>> {
        let (geometry, epilogue) = (&self.geometry, Epilogue { bias, relu: self.relu });
        match Algorithm::of::<T>(geometry, filters) {
            Algorithm::Winograd => winograd::forward(geometry, x, w, epilogue, filters),
            Algorithm::Im2col => im2col::forward(geometry, x, w, epilogue, filters),
        }
    }
}

impl InputGradient {
    fn run<T: Real>(&self, grad: &[T], w: &[T], filters: usize) -> CandleResult<Vec<T>> {
        let geometry = &self.geometry;
        match Algorithm::of_input_gradient::<T>(geometry, filters) {
            Algorithm::Winograd => winograd::input_gradient(geometry, grad, w, filters),
            Algorithm::Im2col => im2col::input_gradient(geometry, grad, w, filters),
        }
    }
}

impl WeightGradient {
    fn run<T: Real>(&self, x: &[T], grad: &[T], filters: usize) -> CandleResult<Vec<T>> {
        let geometry = &self.geometry;
        match Algorithm::of_weight_gradient::<T>(geometry, filters) {
            Algorithm::Winograd => winograd::weight_gradient(geometry, x, grad, filters),
            Algorithm::Im2col => im2col::weight_gradient(geometry, x, grad, filters),
        }
    }
}

/// How a convolution is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Im2col,
    Winograd,
}

impl Algorithm {
    /// The faster one of a convolution, measured at batch 8 and 32 on the shapes of the published networks. It does not
    /// ask for the batch: a sample must not depend on it.
    fn of<T: Real>(geometry: &Geometry, filters: usize) -> Self {
        Self::winograd_where::<T>(geometry, geometry.channels.min(filters) >= WIDE)
    }

    /// The same of an input gradient, which is a convolution with the padding of its adjoint.
    fn of_input_gradient<T: Real>(geometry: &Geometry, filters: usize) -> Self {
        match geometry.padding {
            [1, 1, 1, 1] => Self::of::<T>(geometry, filters),
            _ => Self::Im2col,
        }
    }

    /// The faster one of a weight gradient: patches of many channels for a few filters are mostly copying.
    fn of_weight_gradient<T: Real>(geometry: &Geometry, filters: usize) -> Self {
        Self::winograd_where::<T>(geometry, geometry.channels.max(filters) >= WIDE)
    }

    fn winograd_where<T: Real>(geometry: &Geometry, wide: bool) -> Self {
        let large = geometry.height.min(geometry.width) >= LARGE;
        // In f64 convolutions are for checking, and exact to rounding.
        match T::DTYPE == DType::F32 && winograd::applies(geometry) && wide && large {
            true => Self::Winograd,
            false => Self::Im2col,
        }
    }
}

/// Channels from which the products at the points outweigh the maps to them.
const WIDE: usize = 16;

/// The side of an image from which its tiles outweigh the transformed kernels.
const LARGE: usize = 8;

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    #[test]
    fn the_composition_for_other_devices_has_the_same_gradients() -> Result<()> {
        let device = Device::Cpu;
        let wave = |n: usize| Tensor::from_iter((0..n).map(|i| (1.7 * i as f64).sin()), &device);
        for window in [Window::same(3), Window::HALVE] {
            let x = Var::from_tensor(&wave(2 * 3 * 36)?.reshape((2, 3, 6, 6))?)?;
            let w = Var::from_tensor(&wave(4 * 3 * 9)?.reshape((4, 3, 3, 3))?)?;
            let bias = Var::from_tensor(&wave(4)?.reshape((1, 4))?)?;
            let composed = composed(&x, &w, Some(&bias), window)?.sqr()?.sum_all()?.backward()?;
            let kernels = conv2d(&x, &w, Some(&bias.squeeze(0)?), window)?.sqr()?.sum_all()?.backward()?;
            for var in [&x, &w, &bias] {
                let (Some(a), Some(b)) = (composed.get(var), kernels.get(var)) else {
                    panic!("a gradient is missing");
                };
                let error = (a - b)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f64>()?;
                assert!(error < 1e-10, "{window:?}: {error:e}");
            }
        }
        Ok(())
    }
}
