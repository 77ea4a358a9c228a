//! Softmax over the last dimension, and its backward: a warp to a row.

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView, PushKernelArg};
use candle_core::{CudaDevice, CudaStorage, Layout, Result, Tensor};

use super::launch::{
    Element, Module, THREADS, dtype, for_element, grid, int, kernel, memory, same_type, tensor, view,
    with_storages,
};

/// Softmax over the last dimension of `layout`.
pub(in crate::ops) fn softmax_forward(x: &CudaStorage, layout: &Layout) -> Result<CudaStorage> {
    let width = layout.dims().last().copied().unwrap_or(1);
    for_element!(x, T => rows::<T>(x.device(), "softmax_forward", [Some(&view(x, layout)?), None], width))
}

/// `x̄ = y (ȳ − Σ y ȳ)`, off the tape.
pub(in crate::ops) fn softmax_backward(y: &Tensor, grad: &Tensor) -> Result<Tensor> {
    let (y, grad) = (y.contiguous()?, grad.contiguous()?);
    let width = y.dims().last().copied().unwrap_or(1);
    let storage = with_storages([&y, &grad], |[(y, y_layout), (grad, grad_layout)]| {
        same_type("gradient of softmax", &[dtype(y), dtype(grad)])?;
        for_element!(y, T => {
            let arguments = [Some(&view(y, y_layout)?), Some(&view(grad, grad_layout)?)];
            rows::<T>(y.device(), "softmax_backward", arguments, width)
        })
    })?;
    Ok(tensor(storage, y.dims()))
}

/// A kernel (inputs, output, width, rows) on rows of `width` values.
fn rows<T: Element>(
    device: &CudaDevice,
    name: &str,
    inputs: [Option<&CudaView<'_, T>>; 2],
    width: usize,
) -> Result<CudaSlice<T>> {
    let n = inputs[0].map_or(0, CudaView::len);
    let mut output = memory::<T>(device, n)?;
    if n == 0 {
        return Ok(output);
    }
    let function = kernel::<T>(device, Module::Softmax, name)?;
    let (count, width): (u64, u32) = (int(n / width)?, int(width)?);
    let blocks = int((n / width as usize).div_ceil(THREADS as usize / 32))?;
    let mut arguments = function.builder();
    for input in inputs.into_iter().flatten() {
        arguments.arg(input);
    }
    arguments.arg(&mut output).arg(&width).arg(&count);
    // SAFETY: inputs and output have rows · width values, of which each warp takes one row below `rows`.
    unsafe { arguments.launch(grid(blocks, THREADS)) }.w()?;
    drop(arguments);
    Ok(output)
}
