//! What every launch needs: the number types, the compiled kernels, views of arguments, and grids.

use std::sync::Arc;

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::CudaDType;
use candle_core::cuda_backend::cudarc::cublas::result::CublasError;
use candle_core::cuda_backend::cudarc::cublas::{CudaBlas, Gemm, StridedBatchedConfig};
use candle_core::cuda_backend::cudarc::driver::{
    CudaFunction, CudaSlice, CudaStream, CudaView, CudaViewMut, DeviceRepr, LaunchArgs, LaunchConfig,
    ValidAsZeroBits,
};
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, CudaStorage, DType, Error, Layout, Result, Shape, Storage, Tensor};
use half::bf16;

/// The threads of a block where nothing asks for another number.
pub(super) const THREADS: u32 = 256;

/// More blocks than any card runs at once; the loops of the kernels take the rest.
const BLOCKS: usize = 1 << 14;

/// A number type of the kernels.
pub(in crate::ops) trait Element:
    CudaDType + DeviceRepr + ValidAsZeroBits + Copy + 'static
{
    /// How the names of its kernels end.
    const NAME: &'static str;
    /// 1.
    const ONE: Self;
    /// 0.
    const ZERO: Self;
    /// The type that arithmetic on it is done in.
    type Wide: Element;

    /// Matrix products by cuBLAS.
    ///
    /// # Safety
    /// The configuration must describe matrices inside the views.
    unsafe fn products(
        blas: &CudaBlas,
        config: StridedBatchedConfig<Self>,
        a: &CudaView<'_, Self>,
        b: &CudaView<'_, Self>,
        c: &mut CudaViewMut<'_, Self>,
    ) -> std::result::Result<(), CublasError>;
}

macro_rules! element {
    ($type:ty, $wide:ty, $name:literal, $one:expr, $zero:expr) => {
        impl Element for $type {
            const NAME: &'static str = $name;
            const ONE: Self = $one;
            const ZERO: Self = $zero;
            type Wide = $wide;

            unsafe fn products(
                blas: &CudaBlas,
                config: StridedBatchedConfig<Self>,
                a: &CudaView<'_, Self>,
                b: &CudaView<'_, Self>,
                c: &mut CudaViewMut<'_, Self>,
            ) -> std::result::Result<(), CublasError> {
                // SAFETY: the caller's promise is the one that is asked for.
                unsafe { blas.gemm_strided_batched(config, a, b, c) }
            }
        }
    };
}

element!(f32, f32, "f32", 1.0, 0.0);
element!(f64, f64, "f64", 1.0, 0.0);
element!(bf16, f32, "bf16", bf16::ONE, bf16::ZERO);

/// The result of a generic function, values of T, as storage; T is the number type of the given storage.
macro_rules! for_element {
    ($storage:expr, $T:ident => $call:expr) => {{
        use candle_core::backend::BackendStorage as _;
        let device = $storage.device().clone();
        match $storage.dtype() {
            candle_core::DType::F32 => {
                type $T = f32;
                $call.map(|values| candle_core::CudaStorage::wrap_cuda_slice(values, device))
            }
            candle_core::DType::F64 => {
                type $T = f64;
                $call.map(|values| candle_core::CudaStorage::wrap_cuda_slice(values, device))
            }
            candle_core::DType::BF16 => {
                type $T = half::bf16;
                $call.map(|values| candle_core::CudaStorage::wrap_cuda_slice(values, device))
            }
            other => Err(candle_core::Error::UnsupportedDTypeForOp(other, "CUDA kernel")),
        }
    }};
}
pub(super) use for_element;

/// A file of kernels.
#[derive(Debug, Clone, Copy)]
pub(super) enum Module {
    GroupNorm,
    Patches,
    Pointwise,
    Softmax,
}

impl Module {
    /// Its name on a device, and its PTX.
    fn text(self) -> (&'static str, &'static str) {
        macro_rules! ptx {
            ($name:literal) => {
                (concat!("sde-nets ", $name), include_str!(concat!(env!("OUT_DIR"), "/", $name, ".ptx")))
            };
        }
        match self {
            Self::GroupNorm => ptx!("group_norm"),
            Self::Patches => ptx!("patches"),
            Self::Pointwise => ptx!("pointwise"),
            Self::Softmax => ptx!("softmax"),
        }
    }
}

/// A compiled kernel, and the stream that it runs on.
pub(super) struct Kernel {
    function: CudaFunction,
    stream: Arc<CudaStream>,
}

impl Kernel {
    /// Takes the arguments of a launch, in their order.
    pub(super) fn builder(&self) -> LaunchArgs<'_> {
        self.stream.launch_builder(&self.function)
    }
}

/// The kernel `name` for values of T.
pub(super) fn kernel<T: Element>(device: &CudaDevice, module: Module, name: &str) -> Result<Kernel> {
    let (module, ptx) = module.text();
    if ptx.starts_with("// placeholder") {
        return Err(Error::Msg(
            "this program was built without nvcc and has no CUDA kernels: build it with nvcc, or by `.ci/cuda.sh fast` \
             (docs/cuda.md), or take --device cpu"
                .into(),
        ));
    }
    let function = device.get_or_load_custom_func(&format!("{name}_{}", T::NAME), module, ptx)?;
    Ok(Kernel { function: function.into_cuda_function(), stream: device.cuda_stream() })
}

/// The values of a contiguous argument.
pub(super) fn view<'a, T: Element>(storage: &'a CudaStorage, layout: &Layout) -> Result<CudaView<'a, T>> {
    let (start, end) = layout
        .contiguous_offsets()
        .ok_or_else(|| Error::Msg("a CUDA kernel was given a tensor that is not contiguous".into()))?;
    Ok(storage.as_cuda_slice::<T>()?.slice(start..end))
}

/// Memory for `len` values, which hold anything.
pub(super) fn memory<T: Element>(device: &CudaDevice, len: usize) -> Result<CudaSlice<T>> {
    // SAFETY: every bit pattern is a value of the number types; what is read of them has been written by a kernel before.
    unsafe { device.alloc::<T>(len) }
}

/// Runs `f` on contiguous tensors of one CUDA device.
pub(super) fn with_storages<const N: usize, R>(
    tensors: [&Tensor; N],
    f: impl FnOnce([(&CudaStorage, &Layout); N]) -> Result<R>,
) -> Result<R> {
    let guards = tensors.map(Tensor::storage_and_layout);
    let mut found = Vec::with_capacity(N);
    for (storage, layout) in &guards {
        let Storage::Cuda(storage) = &**storage else {
            return Err(Error::Msg("a CUDA kernel was given a tensor of another device".into()));
        };
        found.push((storage, *layout));
    }
    match found.try_into() {
        Ok(arguments) => f(arguments),
        Err(_) => Err(Error::Msg("as many storages as tensors".into())),
    }
}

/// A tensor off the tape.
pub(super) fn tensor(storage: CudaStorage, shape: impl Into<Shape>) -> Tensor {
    Tensor::from_storage(Storage::Cuda(storage), shape, BackpropOp::none(), false)
}

/// A grid for loops over `n` entries.
pub(super) fn over(n: usize) -> LaunchConfig {
    let blocks = n.div_ceil(THREADS as usize).clamp(1, BLOCKS) as u32;
    grid(blocks, THREADS)
}

/// A grid of `blocks` blocks of `threads` threads.
pub(super) fn grid(blocks: u32, threads: u32) -> LaunchConfig {
    LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (threads, 1, 1), shared_mem_bytes: 0 }
}

/// A size as the kernels and libraries take it.
pub(super) fn int<I: TryFrom<usize>>(size: usize) -> Result<I> {
    I::try_from(size).map_err(|_| Error::Msg(format!("a size of {size} is too large for a CUDA kernel")))
}

/// Refuses arguments of different number types.
pub(super) fn same_type(what: &str, dtypes: &[DType]) -> Result<()> {
    if dtypes.windows(2).all(|pair| pair[0] == pair[1]) {
        return Ok(());
    }
    Err(Error::Msg(format!("{what}: expected tensors of one type, found {dtypes:?}")))
}

/// The type of a storage, for [`same_type`].
pub(super) fn dtype(storage: &CudaStorage) -> DType {
    storage.dtype()
}
