//! SiLU, its backward, and resampling by two, entry by entry.

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView, PushKernelArg};
use candle_core::{CudaDevice, CudaStorage, Layout, Result, Tensor};

use super::launch::{
    Element, Module, dtype, for_element, int, kernel, memory, over, same_type, tensor, view, with_storages,
};

/// SiLU of every entry.
pub(in crate::ops) fn silu_forward(x: &CudaStorage, layout: &Layout) -> Result<CudaStorage> {
    for_element!(x, T => {
        let n = layout.shape().elem_count();
        map::<T>(x.device(), "silu_forward", &view(x, layout)?, None, n)
    })
}

/// The gradient of SiLU at `x`, off the tape.
pub(in crate::ops) fn silu_backward(x: &Tensor, grad: &Tensor) -> Result<Tensor> {
    let (x, grad) = (x.contiguous()?, grad.contiguous()?);
    let storage = with_storages([&x, &grad], |[(x, x_layout), (grad, grad_layout)]| {
        same_type("gradient of SiLU", &[dtype(x), dtype(grad)])?;
        for_element!(x, T => gradient::<T>(x.device(), &view(x, x_layout)?, &view(grad, grad_layout)?))
    })?;
    Ok(tensor(storage, x.dims()))
}

/// Each pixel becomes four; the width is that of `layout`.
pub(in crate::ops) fn doubled(x: &CudaStorage, layout: &Layout) -> Result<CudaStorage> {
    let (n, width) = (layout.shape().elem_count(), layout.dims().last().copied().unwrap_or(1));
    for_element!(x, T => map::<T>(x.device(), "doubled", &view(x, layout)?, Some(width), 4 * n))
}

/// Sums of 2×2 squares.
pub(in crate::ops) fn halved(x: &CudaStorage, layout: &Layout) -> Result<CudaStorage> {
    let (n, width) = (layout.shape().elem_count(), layout.dims().last().copied().unwrap_or(2));
    for_element!(x, T => map::<T>(x.device(), "halved", &view(x, layout)?, Some(width / 2), n / 4))
}

/// Adds `bias` `[O]` or `[B, O]` to `y` `[B, O, …]`.
pub(super) fn add_bias<T: Element>(
    device: &CudaDevice,
    y: &mut CudaSlice<T>,
    bias: &CudaView<'_, T>,
    positions: usize,
) -> Result<()> {
    let (n, biases, positions): (u64, u32, u32) = (int(y.len())?, int(bias.len())?, int(positions)?);
    if n == 0 {
        return Ok(());
    }
    let function = kernel::<T>(device, Module::Pointwise, "add_bias")?;
    let config = over(y.len());
    let mut arguments = function.builder();
    arguments.arg(y).arg(bias).arg(&biases).arg(&positions).arg(&n);
    // SAFETY: the kernel writes the n values of y, and reads bias modulo its length.
    unsafe { arguments.launch(config) }.w()?;
    Ok(())
}

/// A kernel (x, y, width if there is one, n) whose output has `n` values.
fn map<T: Element>(
    device: &CudaDevice,
    name: &str,
    x: &CudaView<'_, T>,
    width: Option<usize>,
    n: usize,
) -> Result<CudaSlice<T>> {
    let mut y = memory::<T>(device, n)?;
    if n == 0 {
        return Ok(y);
    }
    let function = kernel::<T>(device, Module::Pointwise, name)?;
    let (count, width): (u64, Option<u32>) = (int(n)?, width.map(int).transpose()?);
    let mut arguments = function.builder();
    arguments.arg(x).arg(&mut y);
    if let Some(width) = &width {
        arguments.arg(width);
    }
    arguments.arg(&count);
    // SAFETY: the kernel writes the n values of y; x has n values, or as many as the resampling to n reads.
    unsafe { arguments.launch(over(n)) }.w()?;
    drop(arguments);
    Ok(y)
}

fn gradient<T: Element>(
    device: &CudaDevice,
    x: &CudaView<'_, T>,
    grad: &CudaView<'_, T>,
) -> Result<CudaSlice<T>> {
    let n = x.len();
    let mut for_x = memory::<T>(device, n)?;
    if n == 0 {
        return Ok(for_x);
    }
    let function = kernel::<T>(device, Module::Pointwise, "silu_backward")?;
    let count: u64 = int(n)?;
    let mut arguments = function.builder();
    arguments.arg(x).arg(grad).arg(&mut for_x).arg(&count);
    // SAFETY: all three have n values, since a gradient has the shape of its tensor.
    unsafe { arguments.launch(over(n)) }.w()?;
    drop(arguments);
    Ok(for_x)
}
