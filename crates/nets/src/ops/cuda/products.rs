//! Convolution by patch matrices and cuBLAS: `y = W U(x)`, `x̄ = Uᵀ(Wᵀ ȳ)`, `W̄ = ȳ U(x)ᵀ`, U the patches of an image as columns.
//!
//! The batch is taken in parts whose patch matrix fits [`COLUMN_BYTES`]; the parts follow from the shapes, and the weight
//! gradient adds them in their order. cuBLAS stores matrices by columns, so what it is asked for is the transpose of each
//! product.

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::cublas::sys::{cublasMath_t, cublasOperation_t, cublasSetMathMode};
use candle_core::cuda_backend::cudarc::cublas::{GemmConfig, StridedBatchedConfig};
use candle_core::cuda_backend::cudarc::driver::{
    CudaSlice, CudaView, CudaViewMut, DeviceRepr, PushKernelArg,
};
use candle_core::{CudaDevice, Result};

use super::convolution::{Pass, Problem};
#[cfg(feature = "cudnn")]
use super::launch::grid;
use super::launch::{Element, Module, int, kernel, memory, over};
use crate::ops::patches::Geometry;
use crate::ops::precision::tf32;

/// Memory for the patch matrix of a part of the batch.
const COLUMN_BYTES: usize = 256 << 20;

/// The three operators.
pub(super) fn run<T: Element>(
    device: &CudaDevice,
    problem: &Problem,
    pass: Pass,
    arguments: [&CudaView<'_, T>; 2],
) -> Result<CudaSlice<T>> {
    match pass {
        Pass::Forward => forward(device, problem, arguments),
        Pass::InputGradient => input_gradient(device, problem, arguments),
        Pass::WeightGradient => weight_gradient(device, problem, arguments),
    }
}

/// Parts of the batch as (first sample, number of samples).
fn parts<T>(problem: &Problem) -> impl Iterator<Item = (usize, usize)> + use<T> {
    let sample = problem.geometry.taps() * problem.positions() * size_of::<T>();
    let (batch, step) = (problem.batch, (COLUMN_BYTES / sample.max(1)).clamp(1, problem.batch.max(1)));
    (0..batch).step_by(step).map(move |first| (first, step.min(batch - first)))
}

fn forward<T: Element>(
    device: &CudaDevice,
    problem: &Problem,
    [x, w]: [&CudaView<'_, T>; 2],
) -> Result<CudaSlice<T>> {
    let (sample, taps, positions) =
        (problem.geometry.sample_len(), problem.geometry.taps(), problem.positions());
    let (filters, mut y) = (problem.filters, memory::<T>(device, problem.outputs())?);
    for (first, count) in parts::<T>(problem) {
        let images = x.slice(first * sample..(first + count) * sample);
        let mut target = y.slice_mut(first * filters * positions..(first + count) * filters * positions);
        let columns;
        let patches = if problem.is_pointwise() {
            images
        } else {
            let strides = [taps * positions, positions];
            columns = unfold(device, problem, &images, count, strides)?;
            columns.as_view()
        };
        let product = Product {
            size: [filters, taps, positions],
            transposed: [false, false],
            strides: [0, taps * positions, filters * positions],
            count,
            accumulate: false,
        };
        product.run(device, w, &patches, &mut target)?;
    }
    Ok(y)
}

fn input_gradient<T: Element>(
    device: &CudaDevice,
    problem: &Problem,
    [grad, w]: [&CudaView<'_, T>; 2],
) -> Result<CudaSlice<T>> {
    let (sample, taps, positions) =
        (problem.geometry.sample_len(), problem.geometry.taps(), problem.positions());
    let (filters, mut x) = (problem.filters, memory::<T>(device, problem.inputs())?);
    for (first, count) in parts::<T>(problem) {
        let gradients = grad.slice(first * filters * positions..(first + count) * filters * positions);
        let mut target = x.slice_mut(first * sample..(first + count) * sample);
        let product = Product {
            size: [taps, filters, positions],
            transposed: [true, false],
            strides: [0, filters * positions, taps * positions],
            count,
            accumulate: false,
        };
        if problem.is_pointwise() {
            product.run(device, w, &gradients, &mut target)?;
        } else {
            let mut columns = memory::<T>(device, count * taps * positions)?;
            product.run(device, w, &gradients, &mut columns.as_view_mut())?;
            fold(device, problem, &columns.as_view(), &mut target, count)?;
        }
    }
    Ok(x)
}

fn weight_gradient<T: Element>(
    device: &CudaDevice,
    problem: &Problem,
    [x, grad]: [&CudaView<'_, T>; 2],
) -> Result<CudaSlice<T>> {
    let (sample, taps, positions) =
        (problem.geometry.sample_len(), problem.geometry.taps(), problem.positions());
    let (filters, mut w) = (problem.filters, device.alloc_zeros::<T>(problem.weights())?);
    for (first, count) in parts::<T>(problem) {
        let images = x.slice(first * sample..(first + count) * sample);
        let gradients = grad.slice(first * filters * positions..(first + count) * filters * positions);
        // Rows over (sample, position), so that one product sums over both.
        let columns = unfold(device, problem, &images, count, [positions, count * positions])?;
        let rows = exchange(device, &gradients, [count, filters, positions])?;
        let product = Product {
            size: [filters, count * positions, taps],
            transposed: [false, true],
            strides: [0; 3],
            count: 1,
            accumulate: first > 0,
        };
        product.run(device, &rows.as_view(), &columns.as_view(), &mut w.as_view_mut())?;
    }
    Ok(w)
}

/// `count` products `C = A B` of matrices by rows, A m×k, B k×n, C m×n; a factor that is marked is stored transposed.
struct Product {
    /// m, k, n.
    size: [usize; 3],
    transposed: [bool; 2],
    /// From one A, B, C to the next.
    strides: [usize; 3],
    count: usize,
    accumulate: bool,
}

impl Product {
    fn run<T: Element>(
        &self,
        device: &CudaDevice,
        a: &CudaView<'_, T>,
        b: &CudaView<'_, T>,
        c: &mut CudaViewMut<'_, T>,
    ) -> Result<()> {
        if self.count == 0 || self.size.contains(&0) {
            return Ok(());
        }
        let config = self.config()?;
        let blas = device.cublas_handle();
        let mode = match tf32() {
            true => cublasMath_t::CUBLAS_TF32_TENSOR_OP_MATH,
            false => cublasMath_t::CUBLAS_DEFAULT_MATH,
        };
        // SAFETY: the handle lives as long as the device. The views hold `count` matrices at these strides: A and B are the
        // arguments whose shapes `conv2d` has compared, or made here for this product, as C is.
        unsafe {
            cublasSetMathMode(*blas.handle(), mode).result().w()?;
            T::products(&blas, config, b, a, c).w()
        }
    }

    /// What cuBLAS is asked for. By columns the same memory is Cᵀ = Bᵀ Aᵀ: the factors change places, and so do rows and columns.
    fn config<T: Element>(&self) -> Result<StridedBatchedConfig<T>> {
        let [m, k, n] = self.size;
        let operation = |transposed| match transposed {
            true => cublasOperation_t::CUBLAS_OP_T,
            false => cublasOperation_t::CUBLAS_OP_N,
        };
        let gemm = GemmConfig {
            transa: operation(self.transposed[1]),
            transb: operation(self.transposed[0]),
            m: int(n)?,
            n: int(m)?,
            k: int(k)?,
            alpha: T::ONE,
            lda: int(if self.transposed[1] { k } else { n })?,
            ldb: int(if self.transposed[0] { m } else { k })?,
            beta: if self.accumulate { T::ONE } else { T::ZERO },
            ldc: int(n)?,
        };
        Ok(StridedBatchedConfig {
            gemm,
            batch_size: int(self.count)?,
            stride_a: int(self.strides[1])?,
            stride_b: int(self.strides[0])?,
            stride_c: int(self.strides[2])?,
        })
    }
}

/// The sizes of a convolution as the kernels take them: `Sizes` of `cuda/patches.cu`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Sizes([u32; 10]);

// SAFETY: ten words, in the order of the kernels' structure of ten words.
unsafe impl DeviceRepr for Sizes {}

impl Sizes {
    fn new(geometry: &Geometry, output: [usize; 2]) -> Result<Self> {
        let Geometry { channels, height, width, kernel: [kh, kw], stride, padding: [top, _, left, _] } =
            *geometry;
        let sizes = [channels, height, width, kh, kw, stride, top, left, output[0], output[1]];
        let mut words = [0; 10];
        for (word, size) in words.iter_mut().zip(sizes) {
            *word = int(size)?;
        }
        Ok(Self(words))
    }
}

/// The patch matrix of `count` samples; entry (s, k, p) lies at `s · strides[0] + k · strides[1] + p`.
pub(super) fn unfold<T: Element>(
    device: &CudaDevice,
    problem: &Problem,
    images: &CudaView<'_, T>,
    count: usize,
    strides: [usize; 2],
) -> Result<CudaSlice<T>> {
    let n = count * problem.geometry.taps() * problem.positions();
    let mut columns = memory::<T>(device, n)?;
    if n == 0 {
        return Ok(columns);
    }
    let function = kernel::<T>(device, Module::Patches, "unfold")?;
    let sizes = Sizes::new(&problem.geometry, problem.output)?;
    let [sample, tap, entries]: [u64; 3] = [int(strides[0])?, int(strides[1])?, int(n)?];
    let mut arguments = function.builder();
    arguments.arg(images).arg(&mut columns).arg(&sizes).arg(&sample).arg(&tap).arg(&entries);
    // SAFETY: `images` holds `count` samples of this geometry, and the strides arrange the n entries in n places.
    unsafe { arguments.launch(over(n)) }.w()?;
    drop(arguments);
    Ok(columns)
}

/// The adjoint of [`unfold`] with the patch matrices one after the other; overwrites `images`.
pub(super) fn fold<T: Element>(
    device: &CudaDevice,
    problem: &Problem,
    columns: &CudaView<'_, T>,
    images: &mut CudaViewMut<'_, T>,
    count: usize,
) -> Result<()> {
    let n = count * problem.geometry.sample_len();
    if n == 0 {
        return Ok(());
    }
    let function = kernel::<T>(device, Module::Patches, "fold")?;
    let sizes = Sizes::new(&problem.geometry, problem.output)?;
    let strides = [problem.geometry.taps() * problem.positions(), problem.positions()];
    let [sample, tap, entries]: [u64; 3] = [int(strides[0])?, int(strides[1])?, int(n)?];
    let mut arguments = function.builder();
    arguments.arg(columns).arg(images).arg(&sizes).arg(&sample).arg(&tap).arg(&entries);
    // SAFETY: the kernel writes the n values of `images` and reads the patch matrices of `count` samples.
    unsafe { arguments.launch(over(n)) }.w()?;
    Ok(())
}

/// `[first, second, inner]` to `[second, first, inner]`.
fn exchange<T: Element>(
    device: &CudaDevice,
    from: &CudaView<'_, T>,
    [first, second, inner]: [usize; 3],
) -> Result<CudaSlice<T>> {
    let n = first * second * inner;
    let mut to = memory::<T>(device, n)?;
    if n == 0 {
        return Ok(to);
    }
    let function = kernel::<T>(device, Module::Patches, "exchange")?;
    let sizes: [u32; 3] = [int(first)?, int(second)?, int(inner)?];
    let entries: u64 = int(n)?;
    let mut arguments = function.builder();
    arguments.arg(from).arg(&mut to).arg(&sizes[0]).arg(&sizes[1]).arg(&sizes[2]).arg(&entries);
    // SAFETY: both have n values.
    unsafe { arguments.launch(over(n)) }.w()?;
    drop(arguments);
    Ok(to)
}

/// `count` matrices, each transposed: `[count, rows, columns]` to `[count, columns, rows]`.
#[cfg(feature = "cudnn")]
pub(super) fn transpose<T: Element>(
    device: &CudaDevice,
    from: &CudaView<'_, T>,
    [count, rows, columns]: [usize; 3],
) -> Result<CudaSlice<T>> {
    let n = count * rows * columns;
    let mut to = memory::<T>(device, n)?;
    if n == 0 {
        return Ok(to);
    }
    let function = kernel::<T>(device, Module::Patches, "transpose")?;
    let sizes: [u32; 3] = [int(count)?, int(rows)?, int(columns)?];
    let mut config = grid(1, 1);
    config.grid_dim = (int(columns.div_ceil(32))?, int(rows.div_ceil(32))?, sizes[0].min(65_535));
    config.block_dim = (32, 8, 1);
    let mut arguments = function.builder();
    arguments.arg(from).arg(&mut to).arg(&sizes[0]).arg(&sizes[1]).arg(&sizes[2]);
    // SAFETY: both have n values, and the kernel leaves out what a tile has beyond the matrix.
    unsafe { arguments.launch(config) }.w()?;
    drop(arguments);
    Ok(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// cuBLAS by its definition: `C = α op(A) op(B) + β C`, matrices by columns.
    fn by_definition(config: &StridedBatchedConfig<f64>, a: &[f64], b: &[f64], c: &mut [f64]) {
        let g = &config.gemm;
        let at = |transposed: bool, i: i32, j: i32, ld: i32| if transposed { j + i * ld } else { i + j * ld };
        let [ta, tb] = [g.transa, g.transb].map(|op| op == cublasOperation_t::CUBLAS_OP_T);
        for p in 0..i64::from(config.batch_size) {
            let start = |stride: i64| (p * stride) as usize;
            for i in 0..g.m {
                for j in 0..g.n {
                    let sum: f64 = (0..g.k)
                        .map(|l| {
                            a[start(config.stride_a) + at(ta, i, l, g.lda) as usize]
                                * b[start(config.stride_b) + at(tb, l, j, g.ldb) as usize]
                        })
                        .sum();
                    let c = &mut c[start(config.stride_c) + (i + j * g.ldc) as usize];
                    *c = g.alpha * sum + if g.beta == 0.0 { 0.0 } else { g.beta * *c };
                }
            }
        }
    }

    #[test]
    fn products_by_rows_are_what_cublas_is_asked_for() -> Result<()> {
        let wave = |n: usize, f: f64| (0..n).map(|i| (f * i as f64).sin()).collect::<Vec<_>>();
        let (m, k, n, count) = (3, 4, 5, 2);
        for (transposed, shared, accumulate) in
            [([false, false], true, false), ([true, false], true, false), ([false, true], false, true)]
        {
            // The weights are one for all; everything else is one for each.
            let count = if shared { count } else { 1 };
            let strides = [if shared { 0 } else { m * k }, k * n, m * n];
            let product = Product { size: [m, k, n], transposed, strides, count, accumulate };
            let (a, b) = (wave(m * k * count, 0.7), wave(k * n * count, 1.3));
            let mut found = wave(m * n * count, 0.3);
            let mut expected = found.clone();
            by_definition(&product.config()?, &b, &a, &mut found);
            for (p, i, j) in (0..count).flat_map(|p| (0..m).flat_map(move |i| (0..n).map(move |j| (p, i, j))))
            {
                let sum: f64 = (0..k)
                    .map(|l| {
                        let a = a[p * strides[0] + if transposed[0] { l * m + i } else { i * k + l }];
                        a * b[p * strides[1] + if transposed[1] { j * k + l } else { l * n + j }]
                    })
                    .sum();
                let c = &mut expected[p * strides[2] + i * n + j];
                *c = sum + if accumulate { *c } else { 0.0 };
            }
            let error = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(error < 1e-13, "{transposed:?}: {error:e}");
        }
        Ok(())
    }

    #[test]
    fn parts_cover_the_batch_once_in_order() {
        let geometry =
            Geometry { channels: 256, height: 32, width: 32, kernel: [3, 3], stride: 1, padding: [1; 4] };
        let problem = Problem { geometry, batch: 100, filters: 8, output: [32, 32] };
        let found: Vec<_> = parts::<f32>(&problem).collect();
        assert!(found.len() > 1);
        let mut next = 0;
        for (first, count) in found {
            assert_eq!(first, next);
            assert!(count * geometry.taps() * problem.positions() * 4 <= COLUMN_BYTES);
            next += count;
        }
        assert_eq!(next, 100);
    }
}
