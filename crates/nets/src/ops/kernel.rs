//! What every CPU kernel needs: the number type, access to a tensor's values, run-time choice of the
//! instruction set, and the matrix product.
//!
//! Loops over values are written so that the compiler vectorises them, and are compiled once for each
//! instruction set that the running machine may have. Sums are kept in [`LANES`] partial sums, the same on
//! every machine: the instruction set changes the speed of a loop, never its result.

// The one unsafe call is the matrix product, whose library takes pointers.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::thread::LocalKey;

use candle_core::{CpuStorage, DType, Device, Layout, Result, Tensor, WithDType};

/// The number of partial sums of a reduction.
pub(super) const LANES: usize = 16;

/// The number types that have kernels: f32 and f64.
pub(super) trait Real: WithDType + std::ops::Neg<Output = Self> {
    /// This thread's buffers that wait for their next use.
    fn pool() -> &'static LocalKey<RefCell<Vec<Vec<Self>>>>;

    /// The square root.
    fn sqrt(self) -> Self;
    /// The exponential.
    fn exp(self) -> Self;

    /// The logistic function `1 / (1 + e⁻ˣ)`.
    #[inline(always)]
    fn sigmoid(self) -> Self {
        Self::one() / (Self::one() + (-self).exp())
    }
}

impl Real for f32 {
    fn pool() -> &'static LocalKey<RefCell<Vec<Vec<Self>>>> {
        thread_local! {
            static POOL: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
        }
        &POOL
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        f32::sqrt(self)
    }

    /// `2ⁿ eʳ` with `x = n ln 2 + r`, |r| ≤ ½ ln 2, and the Taylor polynomial of degree 7 for eʳ: relative
    /// error below 1.2e-7. It vectorises, which a call into the mathematics library does not. Arguments are
    /// clamped to where the result is a normal number.
    #[inline(always)]
    fn exp(self) -> Self {
        // Adding and subtracting 1.5 · 2²³ rounds to the nearest integer and leaves it in the low bits.
        const ROUND: f32 = 12_582_912.0;
        // ln 2 in two parts, the first with trailing zeros: n times it is exact.
        const LN2_HIGH: f32 = 0.693_359_4;
        const LN2_LOW: f32 = -2.121_944_4e-4;
        let x = if self > 88.0 { 88.0 } else { self };
        let x = if x < -87.0 { -87.0 } else { x };
        let shifted = x * std::f32::consts::LOG2_E + ROUND;
        let n = shifted - ROUND;
        let r = (x - n * LN2_HIGH) - n * LN2_LOW;
        let series = 1.0 / 120.0 + r * (1.0 / 720.0 + r * (1.0 / 5040.0));
        let series = 1.0 + r * (1.0 + r * (0.5 + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * series))));
        let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
        series * power
    }
}

impl Real for f64 {
    fn pool() -> &'static LocalKey<RefCell<Vec<Vec<Self>>>> {
        thread_local! {
            static POOL: RefCell<Vec<Vec<f64>>> = const { RefCell::new(Vec::new()) };
        }
        &POOL
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        f64::sqrt(self)
    }
    #[inline(always)]
    fn exp(self) -> Self {
        f64::exp(self)
    }
}

/// The longest sum of one call of the matrix product.
pub(super) const INNER: usize = 512;

/// Whether tensors of this type on this device have kernels here.
pub(super) fn has_kernels(x: &Tensor) -> bool {
    matches!(x.device(), Device::Cpu) && matches!(x.dtype(), DType::F32 | DType::F64)
}

/// Whether an operator that has kernels on both devices has one for this tensor: here, or on CUDA.
pub(super) fn is_accelerated(x: &Tensor) -> bool {
    let on_cuda = cfg!(feature = "cuda") && x.device().is_cuda();
    has_kernels(x) || (on_cuda && matches!(x.dtype(), DType::F32 | DType::F64 | DType::BF16))
}

/// The values of a contiguous argument of a kernel.
pub(super) fn values<'a, T: Real>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    let (start, end) = layout.contiguous_offsets().ok_or_else(|| {
        candle_core::Error::Msg("a kernel was given a tensor that is not contiguous".into())
    })?;
    Ok(&T::cpu_storage_as_slice(storage)?[start..end])
}

/// Runs `f` on the values of contiguous CPU tensors of one type.
pub(super) fn with_values<T: Real, const N: usize, R>(
    tensors: [&Tensor; N],
    f: impl FnOnce([&[T]; N]) -> Result<R>,
) -> Result<R> {
    let guards = tensors.map(Tensor::storage_and_layout);
    let mut slices = [[].as_slice(); N];
    for (slice, (storage, layout)) in slices.iter_mut().zip(&guards) {
        let candle_core::Storage::Cpu(storage) = &**storage else {
            return Err(candle_core::Error::Msg("a CPU kernel was given a tensor of another device".into()));
        };
        *slice = values(storage, layout)?;
    }
    f(slices)
}

/// The result of a generic kernel, a vector of T, as storage; T is the number type of the given storage.
macro_rules! for_real {
    ($storage:expr, $T:ident => $call:expr) => {
        match $storage {
            candle_core::CpuStorage::F32(_) => {
                type $T = f32;
                $call.map(candle_core::CpuStorage::F32)
            }
            candle_core::CpuStorage::F64(_) => {
                type $T = f64;
                $call.map(candle_core::CpuStorage::F64)
            }
            other => Err(candle_core::Error::UnsupportedDTypeForOp(
                candle_core::backend::BackendStorage::dtype(other),
                "CPU kernel",
            )),
        }
    };
}
pub(super) use for_real;

/// Compiles `loops` for each instruction set and runs the best one that this machine has. What it calls must
/// be `#[inline(always)]` to be part of that.
pub(super) fn vectorised<R>(loops: impl FnOnce() -> R) -> R {
    use std::sync::OnceLock;
    static ARCH: OnceLock<pulp::Arch> = OnceLock::new();
    ARCH.get_or_init(pulp::Arch::new).dispatch(loops)
}

/// Runs `f` on `len` values of memory that is kept for the next use; what they hold is left over from the last.
///
/// The buffer leaves the pool while `f` runs, so that `f` may ask for another, and so may a task that this thread takes
/// over while `f` waits for others.
pub(super) fn with_scratch<T: Real, R>(len: usize, f: impl FnOnce(&mut [T]) -> R) -> R {
    let mut buffer = T::pool().with_borrow_mut(|pool| {
        // The smallest that is large enough, or else the largest.
        let fitting = (0..pool.len()).filter(|&i| pool[i].len() >= len).min_by_key(|&i| pool[i].len());
        let best = fitting.or_else(|| (0..pool.len()).max_by_key(|&i| pool[i].len()));
        best.map(|i| pool.swap_remove(i)).unwrap_or_default()
    });
    if buffer.len() < len {
        buffer.resize(len, T::zero());
    }
    let result = f(&mut buffer[..len]);
    T::pool().with_borrow_mut(|pool| pool.push(buffer));
    result
}

/// The sums over `i` of `f(i)`, M at once, in [`LANES`] partial sums each.
#[inline(always)]
pub(super) fn sums<T: Real, const M: usize>(n: usize, f: impl Fn(usize) -> [T; M]) -> [T; M] {
    let mut lanes = [[T::zero(); LANES]; M];
    let whole = n - n % LANES;
    let mut start = 0;
    while start < whole {
        for (lane, terms) in (start..start + LANES).map(&f).enumerate() {
            for m in 0..M {
                lanes[m][lane] += terms[m];
            }
        }
        start += LANES;
    }
    for i in whole..n {
        let terms = f(i);
        for m in 0..M {
            lanes[m][i - whole] += terms[m];
        }
    }
    lanes.map(|lane| lane.into_iter().fold(T::zero(), |a, b| a + b))
}

/// A matrix in a slice: entry (i, j) at `i · row_stride + j · column_stride`.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a, T> {
    pub values: &'a [T],
    pub row_stride: usize,
    pub column_stride: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// Rows one after the other, each of `columns` values.
    pub(super) fn rows(values: &'a [T], columns: usize) -> Self {
        Self { values, row_stride: columns, column_stride: 1 }
    }

    /// The transpose.
    pub(super) fn transposed(self) -> Self {
        Self { row_stride: self.column_stride, column_stride: self.row_stride, ..self }
    }

    fn holds(&self, rows: usize, columns: usize) -> bool {
        rows == 0
            || columns == 0
            || (rows - 1) * self.row_stride + (columns - 1) * self.column_stride < self.values.len()
    }
}

/// `out = left · right`, or `out += left · right`, on one thread; `size` is (m, k, n) and `out` m × n by
/// rows.
///
/// Long sums are cut at [`INNER`] here, since the library cuts them at a place that depends on m and n: an entry must not
/// depend on how many others there are.
pub(super) fn product<T: Real>(
    out: &mut [T],
    size: (usize, usize, usize),
    left: Matrix<'_, T>,
    right: Matrix<'_, T>,
    accumulate: bool,
) {
    let (m, k, n) = size;
    assert!(out.len() == m * n && left.holds(m, k) && right.holds(k, n), "matrix product out of bounds");
    if k > INNER && m * n > 0 {
        for first in (0..k).step_by(INNER) {
            let left = Matrix { values: &left.values[first * left.column_stride..], ..left };
            let right = Matrix { values: &right.values[first * right.row_stride..], ..right };
            product(out, (m, INNER.min(k - first), n), left, right, accumulate || first > 0);
        }
        return;
    }
    // SAFETY: the assertion above bounds every entry that is read or written; `out` is exclusively borrowed,
    // so it overlaps neither factor; f32 and f64 are the types `Real` has and the library supports.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            accumulate,
            left.values.as_ptr(),
            left.column_stride as isize,
            left.row_stride as isize,
            right.values.as_ptr(),
            right.column_stride as isize,
            right.row_stride as isize,
            T::one(),
            T::one(),
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponential_of_f32_is_accurate_to_an_ulp_and_saturates() {
        for i in -8_700..8_800 {
            let x = i as f32 * 0.01;
            let exact = f64::from(x).exp();
            let relative = (f64::from(Real::exp(x)) - exact).abs() / exact;
            assert!(relative < 1.8e-7, "exp({x}): {relative:e}");
        }
        assert_eq!(Real::sigmoid(-1e30f32), Real::sigmoid(-88.0f32));
        assert!(Real::sigmoid(-1e30f32) < 1e-37);
        assert_eq!(Real::sigmoid(1e30f32), 1.0);
        assert!(Real::exp(f32::NAN).is_nan());
    }

    #[test]
    fn sums_take_every_term_once() {
        for n in [0, 1, 15, 16, 17, 100] {
            let [plain, squares] = vectorised(|| sums(n, |i| [i as f64, (i * i) as f64]));
            assert_eq!(plain, (0..n).sum::<usize>() as f64);
            assert_eq!(squares, (0..n).map(|i| i * i).sum::<usize>() as f64);
        }
    }
}
