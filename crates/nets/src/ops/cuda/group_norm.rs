//! Group normalisation with SiLU fused behind it, and its backward: a block to a group of a sample.

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView, LaunchConfig, PushKernelArg};
use candle_core::{CudaDevice, CudaStorage, Layout, Result, Tensor};

use super::launch::{
    Element, Module, THREADS, dtype, for_element, grid, int, kernel, memory, same_type, tensor, view,
    with_storages,
};
use crate::ops::GroupNormArgs;

/// The normalisation; `w` and `b` are of the type that arithmetic on `x` is done in.
pub(in crate::ops) fn group_norm_forward(
    args: GroupNormArgs,
    (x, x_layout): (&CudaStorage, &Layout),
    (w, w_layout): (&CudaStorage, &Layout),
    (b, b_layout): (&CudaStorage, &Layout),
) -> Result<CudaStorage> {
    let launch = Launch::new(args, x_layout.dims())?;
    for_element!(x, T => {
        launch.forward::<T>(x.device(), &view(x, x_layout)?, &view(w, w_layout)?, &view(b, b_layout)?)
    })
}

/// The gradients for x, weight and bias, off the tape.
pub(in crate::ops) fn group_norm_backward(
    args: GroupNormArgs,
    [x, w, b, grad]: [&Tensor; 4],
) -> Result<[Tensor; 3]> {
    let grad = grad.contiguous()?;
    let launch = Launch::new(args, x.dims())?;
    let mut by_sample = None;
    let for_x = with_storages([x, w, b, &grad], |[(x, x_l), (w, w_l), (b, b_l), (grad, grad_l)]| {
        same_type("gradient of a group normalisation", &[dtype(x), dtype(grad)])?;
        for_element!(x, T => {
            let inputs = (&view(x, x_l)?, &view(w, w_l)?, &view(b, b_l)?, &view(grad, grad_l)?);
            launch.backward::<T>(x.device(), inputs).map(|(for_x, parts)| {
                by_sample = Some(parts.map(|part| CudaStorage::wrap_cuda_slice(part, x.device().clone())));
                for_x
            })
        })
    })?;
    let Some(parts) = by_sample else {
        return Err(candle_core::Error::Msg("a backward pass gives three gradients".into()));
    };
    // Over the samples, in the order of the batch.
    let [for_w, for_b] = parts.map(|part| tensor(part, (x.dims()[0], launch.all_channels())).sum(0));
    Ok([tensor(for_x, x.dims()), for_w?, for_b?])
}

/// The sizes of a launch.
#[derive(Clone, Copy)]
struct Launch {
    samples: usize,
    groups: u32,
    channels: u32,
    positions: u32,
    epsilon: f64,
    silu: u32,
}

impl Launch {
    fn new(args: GroupNormArgs, dims: &[usize]) -> Result<Self> {
        Ok(Self {
            samples: dims[0],
            groups: int(args.groups)?,
            channels: int(dims[1] / args.groups)?,
            positions: int(dims[2..].iter().product())?,
            epsilon: args.epsilon,
            silu: args.silu.into(),
        })
    }

    fn all_channels(&self) -> usize {
        (self.groups * self.channels) as usize
    }

    /// A block for each group of each sample.
    fn config(&self, threads: u32) -> Result<LaunchConfig> {
        Ok(grid(int(self.samples * self.groups as usize)?, threads))
    }

    fn forward<T: Element>(
        &self,
        device: &CudaDevice,
        x: &CudaView<'_, T>,
        w: &CudaView<'_, T::Wide>,
        b: &CudaView<'_, T::Wide>,
    ) -> Result<CudaSlice<T>> {
        let mut y = memory::<T>(device, x.len())?;
        if x.is_empty() {
            return Ok(y);
        }
        let function = kernel::<T>(device, Module::GroupNorm, "group_norm_forward")?;
        let mut arguments = function.builder();
        arguments.arg(x).arg(w).arg(b).arg(&mut y);
        arguments
            .arg(&self.groups)
            .arg(&self.channels)
            .arg(&self.positions)
            .arg(&self.epsilon)
            .arg(&self.silu);
        // SAFETY: x and y have samples · groups · channels · positions values, w and b groups · channels: `group_norm` has
        // compared the shapes.
        unsafe { arguments.launch(self.config(THREADS)?) }.w()?;
        drop(arguments);
        Ok(y)
    }

    /// x̄, and [w̄, b̄] of each sample.
    #[allow(clippy::type_complexity, reason = "four arguments of three types")]
    fn backward<T: Element>(
        &self,
        device: &CudaDevice,
        (x, w, b, grad): (&CudaView<'_, T>, &CudaView<'_, T::Wide>, &CudaView<'_, T::Wide>, &CudaView<'_, T>),
    ) -> Result<(CudaSlice<T>, [CudaSlice<T::Wide>; 2])> {
        let mut for_x = memory::<T>(device, x.len())?;
        let parts = self.samples * self.all_channels();
        let (mut for_w, mut for_b) =
            (device.alloc_zeros::<T::Wide>(parts)?, device.alloc_zeros::<T::Wide>(parts)?);
        if x.is_empty() {
            return Ok((for_x, [for_w, for_b]));
        }
        let function = kernel::<T>(device, Module::GroupNorm, "group_norm_backward")?;
        let mut arguments = function.builder();
        arguments.arg(x).arg(w).arg(b).arg(grad).arg(&mut for_x).arg(&mut for_w).arg(&mut for_b);
        arguments
            .arg(&self.groups)
            .arg(&self.channels)
            .arg(&self.positions)
            .arg(&self.epsilon)
            .arg(&self.silu);
        // A warp to a channel, up to eight.
        let threads = 32 * self.channels.clamp(1, THREADS / 32);
        // SAFETY: x, grad and for_x have samples · groups · channels · positions values, w and b groups · channels, for_w and
        // for_b samples · groups · channels.
        unsafe { arguments.launch(self.config(threads)?) }.w()?;
        drop(arguments);
        Ok((for_x, [for_w, for_b]))
    }
}
