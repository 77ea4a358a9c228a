//! Convolution by cuDNN: its three operators on the device's stream, the algorithm picked once for each shape.
//!
//! Only algorithms that sum in a fixed order are taken: of the backward passes, those numbered 0 (and 3, for the weights) add
//! atomically. f32 is computed in f32 unless [`crate::ops::allow_tf32`] says otherwise; bf16 is computed on tensor cores with
//! sums in f32, channels last where their numbers are multiples of 8. cuDNN pads both sides alike: other paddings are
//! written out first.
//!
//! Reference: NVIDIA cuDNN documentation, legacy convolution API.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use candle_core::cuda_backend::DeviceId;
use candle_core::cuda_backend::cudarc::cudnn::sys::{
    cudnnConvolutionBwdDataAlgo_t as DataAlgorithm, cudnnConvolutionBwdFilterAlgo_t as FilterAlgorithm,
    cudnnConvolutionFwdAlgo_t as ForwardAlgorithm, cudnnConvolutionMode_t, cudnnMathType_t,
    cudnnTensorFormat_t,
};
use candle_core::cuda_backend::cudarc::cudnn::{
    ConvBackwardData, ConvBackwardFilter, ConvDescriptor, ConvForward, Cudnn, CudnnDataType, CudnnError,
    FilterDescriptor, TensorDescriptor,
};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView};
use candle_core::{CudaDevice, DType, Error, Result};

use super::convolution::{Pass, Problem};
use super::launch::{Element, int, memory};
use super::products::{fold, transpose, unfold};
use crate::ops::patches::Geometry;
use crate::ops::precision::tf32;

/// The largest workspace that an algorithm may ask for.
const WORKSPACE_BYTES: usize = 1 << 30;

/// A number type that cuDNN convolves.
pub(in crate::ops) trait Number:
    Element<Wide: CudnnDataType> + CudnnDataType + candle_core::WithDType
{
}
impl<T: Element<Wide: CudnnDataType> + CudnnDataType + candle_core::WithDType> Number for T {}

/// What a choice of algorithm depends on.
type Key = (Problem, DType, bool);

/// An algorithm with the bytes of its workspace; `None` where there is none for a shape.
type Plans<A> = HashMap<Key, Option<(A, usize)>>;

/// What a thread keeps for a device. Handles must not move between threads; the workspace serves one call after the other, since
/// all run on one stream.
struct State {
    handle: Arc<Cudnn>,
    workspace: Option<CudaSlice<u8>>,
    forward: Plans<ForwardAlgorithm>,
    data: Plans<DataAlgorithm>,
    filter: Plans<FilterAlgorithm>,
}

thread_local! {
    static STATES: RefCell<HashMap<DeviceId, State>> = RefCell::default();
}

/// One of the three operators; `None` where cuDNN has no algorithm for it.
pub(super) fn run<T: Number>(
    device: &CudaDevice,
    problem: &Problem,
    pass: Pass,
    arguments: [&CudaView<'_, T>; 2],
) -> Result<Option<CudaSlice<T>>> {
    let [top, bottom, left, right] = problem.geometry.padding;
    if top == bottom && left == right {
        return evenly_padded(device, problem, pass, arguments);
    }
    // The border as a convolution with one tap, whose adjoint cuts it off.
    let Geometry { height, width, .. } = problem.geometry;
    let output = [height + top + bottom, width + left + right];
    let border =
        Problem { geometry: Geometry { kernel: [1, 1], stride: 1, ..problem.geometry }, output, ..*problem };
    let geometry = Geometry { height: output[0], width: output[1], padding: [0; 4], ..problem.geometry };
    let inner = Problem { geometry, ..*problem };
    let area = output[0] * output[1];
    let pad = |images| unfold(device, &border, images, problem.batch, [geometry.channels * area, area]);
    let [first, second] = arguments;
    match pass {
        Pass::Forward | Pass::WeightGradient => {
            evenly_padded(device, &inner, pass, [&pad(first)?.as_view(), second])
        }
        Pass::InputGradient => {
            let Some(padded) = evenly_padded(device, &inner, pass, arguments)? else { return Ok(None) };
            let mut x = memory::<T>(device, problem.inputs())?;
            fold(device, &border, &padded.as_view(), &mut x.as_view_mut(), problem.batch)?;
            Ok(Some(x))
        }
    }
}

fn evenly_padded<T: Number>(
    device: &CudaDevice,
    problem: &Problem,
    pass: Pass,
    [first, second]: [&CudaView<'_, T>; 2],
) -> Result<Option<CudaSlice<T>>> {
    let (channels, filters) = (problem.geometry.channels, problem.filters);
    let channels_last = T::DTYPE == DType::BF16 && channels.is_multiple_of(8) && filters.is_multiple_of(8);
    if !channels_last {
        return convolve(device, problem, pass, false, [first, second]);
    }
    let image = [problem.batch, channels, problem.geometry.height * problem.geometry.width];
    let output = [problem.batch, filters, problem.positions()];
    let kernel = [filters, channels, problem.geometry.kernel[0] * problem.geometry.kernel[1]];
    let (arguments, result) = match pass {
        Pass::Forward => ([image, kernel], output),
        Pass::InputGradient => ([output, kernel], image),
        Pass::WeightGradient => ([image, output], kernel),
    };
    let first = transpose(device, first, arguments[0])?;
    let second = transpose(device, second, arguments[1])?;
    let last = convolve(device, problem, pass, true, [&first.as_view(), &second.as_view()])?;
    let [count, channels, inner] = result;
    last.map(|last| transpose(device, &last.as_view(), [count, inner, channels])).transpose()
}

/// The call itself, in one of the two layouts.
fn convolve<T: Number>(
    device: &CudaDevice,
    problem: &Problem,
    pass: Pass,
    channels_last: bool,
    [first, second]: [&CudaView<'_, T>; 2],
) -> Result<Option<CudaSlice<T>>> {
    STATES.with_borrow_mut(|states| {
        let state = match states.entry(device.id()) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => entry.insert(State::new(device)?),
        };
        let descriptors = Descriptors::<T>::new(&state.handle, problem, channels_last)?;
        let Descriptors { conv, x, w, y } = &descriptors;
        let key = (*problem, T::DTYPE, tf32());
        let scales = (T::ONE, T::ZERO);
        let len = match pass {
            Pass::Forward => problem.outputs(),
            Pass::InputGradient => problem.inputs(),
            Pass::WeightGradient => problem.weights(),
        };
        let mut result = memory::<T>(device, len)?;
        // In each arm — SAFETY: the descriptors are of this problem in this layout, whose sizes the arguments and `result` have;
        // the workspace is as large as the algorithm has said.
        match pass {
            Pass::Forward => {
                let call = ConvForward { conv, x, w, y };
                let plan =
                    plan(&mut state.forward, key, forward_candidates(call.pick_algorithm()), |algorithm| {
                        call.get_workspace_size(algorithm)
                    });
                let Some((algorithm, bytes)) = plan else { return Ok(None) };
                let workspace = workspace(&mut state.workspace, device, bytes)?;
                // SAFETY: above.
                unsafe { call.launch(algorithm, workspace, scales, first, second, &mut result) }?;
            }
            Pass::InputGradient => {
                let call = ConvBackwardData { conv, dx: x, w, dy: y };
                let plan = plan(&mut state.data, key, data_candidates(call.pick_algorithm()), |algorithm| {
                    call.get_workspace_size(algorithm)
                });
                let Some((algorithm, bytes)) = plan else { return Ok(None) };
                let workspace = workspace(&mut state.workspace, device, bytes)?;
                // SAFETY: above.
                unsafe { call.launch(algorithm, workspace, scales, &mut result, second, first) }?;
            }
            Pass::WeightGradient => {
                let call = ConvBackwardFilter { conv, x, dw: w, dy: y };
                let plan =
                    plan(&mut state.filter, key, filter_candidates(call.pick_algorithm()), |algorithm| {
                        call.get_workspace_size(algorithm)
                    });
                let Some((algorithm, bytes)) = plan else { return Ok(None) };
                let workspace = workspace(&mut state.workspace, device, bytes)?;
                // SAFETY: above.
                unsafe { call.launch(algorithm, workspace, scales, first, &mut result, second) }?;
            }
        }
        Ok(Some(result))
    })
}

impl State {
    fn new(device: &CudaDevice) -> Result<Self> {
        let handle = Cudnn::new(device.cuda_stream()).map_err(|e| {
            Error::Msg(format!(
                "cuDNN cannot be used ({e:?}): put libcudnn.so.9 where the loader looks (LD_LIBRARY_PATH, docs/cuda.md), or \
                 build without the feature cudnn"
            ))
        })?;
        Ok(Self {
            handle,
            workspace: None,
            forward: HashMap::new(),
            data: HashMap::new(),
            filter: HashMap::new(),
        })
    }
}

/// cuDNN's word for one convolution.
struct Descriptors<T: Number> {
    conv: ConvDescriptor<T::Wide>,
    x: TensorDescriptor<T>,
    w: FilterDescriptor<T>,
    y: TensorDescriptor<T>,
}

impl<T: Number> Descriptors<T> {
    fn new(handle: &Arc<Cudnn>, problem: &Problem, channels_last: bool) -> Result<Self> {
        let Geometry { channels, height, width, kernel: [kh, kw], stride, padding: [top, _, left, _] } =
            problem.geometry;
        let format = match channels_last {
            true => cudnnTensorFormat_t::CUDNN_TENSOR_NHWC,
            false => cudnnTensorFormat_t::CUDNN_TENSOR_NCHW,
        };
        let dims = |dims: [usize; 4]| -> Result<[i32; 4]> {
            Ok([int(dims[0])?, int(dims[1])?, int(dims[2])?, int(dims[3])?])
        };
        let stride = int(stride)?;
        let mut conv = handle.create_conv2d::<T::Wide>(
            [int(top)?, int(left)?],
            [stride, stride],
            [1, 1],
            cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION,
        )?;
        conv.set_math_type(match T::DTYPE {
            DType::BF16 => cudnnMathType_t::CUDNN_TENSOR_OP_MATH,
            // The default allows TF32.
            DType::F32 if !tf32() => cudnnMathType_t::CUDNN_FMA_MATH,
            _ => cudnnMathType_t::CUDNN_DEFAULT_MATH,
        })?;
        let [out_height, out_width] = problem.output;
        Ok(Self {
            conv,
            x: handle.create_4d_tensor(format, dims([problem.batch, channels, height, width])?)?,
            w: handle.create_4d_filter(format, dims([problem.filters, channels, kh, kw])?)?,
            y: handle
                .create_4d_tensor(format, dims([problem.batch, problem.filters, out_height, out_width])?)?,
        })
    }
}

/// The first candidate that works for this shape, remembered.
fn plan<A: Copy, K: Hash + Eq>(
    plans: &mut HashMap<K, Option<(A, usize)>>,
    key: K,
    candidates: Vec<A>,
    workspace: impl Fn(A) -> std::result::Result<usize, CudnnError>,
) -> Option<(A, usize)> {
    *plans.entry(key).or_insert_with(|| {
        let sized = |algorithm| Some((algorithm, workspace(algorithm).ok()?));
        candidates.into_iter().filter_map(sized).find(|&(_, bytes)| bytes <= WORKSPACE_BYTES)
    })
}

fn forward_candidates(picked: std::result::Result<ForwardAlgorithm, CudnnError>) -> Vec<ForwardAlgorithm> {
    let others = [
        ForwardAlgorithm::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM,
        ForwardAlgorithm::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM,
    ];
    picked.into_iter().chain(others).collect()
}

fn data_candidates(picked: std::result::Result<DataAlgorithm, CudnnError>) -> Vec<DataAlgorithm> {
    let fixed = |algorithm: &DataAlgorithm| *algorithm != DataAlgorithm::CUDNN_CONVOLUTION_BWD_DATA_ALGO_0;
    let picked = picked.into_iter().filter(fixed);
    picked.chain([DataAlgorithm::CUDNN_CONVOLUTION_BWD_DATA_ALGO_1]).collect()
}

fn filter_candidates(picked: std::result::Result<FilterAlgorithm, CudnnError>) -> Vec<FilterAlgorithm> {
    let atomic = [
        FilterAlgorithm::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_0,
        FilterAlgorithm::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_3,
    ];
    let picked = picked.into_iter().filter(|algorithm| !atomic.contains(algorithm));
    picked.chain([FilterAlgorithm::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1]).collect()
}

/// At least `bytes` of memory, kept from call to call; none where none is needed.
fn workspace<'a>(
    kept: &'a mut Option<CudaSlice<u8>>,
    device: &CudaDevice,
    bytes: usize,
) -> Result<Option<&'a mut CudaSlice<u8>>> {
    if bytes == 0 {
        return Ok(None);
    }
    if kept.as_ref().is_none_or(|kept| kept.len() < bytes) {
        *kept = None;
        // SAFETY: bytes hold anything, and cuDNN does not read what it has not written.
        *kept = Some(unsafe { device.alloc::<u8>(bytes) }?);
    }
    Ok(kept.as_mut())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn algorithms_that_add_atomically_are_never_taken() {
        let data = data_candidates(Ok(DataAlgorithm::CUDNN_CONVOLUTION_BWD_DATA_ALGO_0));
        assert_eq!(data, [DataAlgorithm::CUDNN_CONVOLUTION_BWD_DATA_ALGO_1]);
        let filter = filter_candidates(Ok(FilterAlgorithm::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_3));
        assert_eq!(filter, [FilterAlgorithm::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1]);
    }

    #[test]
    fn a_plan_is_the_first_that_fits_and_is_made_once() {
        let mut plans = HashMap::new();
        let size = |algorithm: u32| match algorithm {
            0 => Ok(WORKSPACE_BYTES + 1),
            other => Ok(other as usize),
        };
        assert_eq!(plan(&mut plans, 7, vec![0, 3, 4], size), Some((3, 3)));
        assert_eq!(plan(&mut plans, 7, vec![4], size), Some((3, 3)));
        assert_eq!(plan(&mut plans, 8, vec![0], size), None);
    }
}
