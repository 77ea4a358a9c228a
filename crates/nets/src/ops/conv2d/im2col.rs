//! Convolutions of any shape as matrix products with patches.
//!
//! With U the patch matrix of x ([`super::super::patches`]) and W the weights as a matrix,
//!
//! ```text
//! y = W U(x)        x̄ = Uᵀ(Wᵀ ȳ)        W̄ = ȳ U(x)ᵀ
//! ```
//!
//! Samples are grouped so that a matrix product has about [`COLUMNS`] columns; the groups depend on shapes
//! alone, and the weight gradient adds a fixed number of partial sums in a fixed order. A 1×1 convolution of a large
//! enough image is a product with the image itself, sample by sample.

use rayon::prelude::*;

use super::super::kernel::{Matrix, Real, product, with_scratch};
use super::super::patches::Geometry;
use super::CandleResult;

/// Columns of the patch matrix that one matrix product aims at.
const COLUMNS: usize = 512;

/// Positions from which an image is its own patch matrix.
const DIRECT: usize = 64;

/// The number of partial sums of the weight gradient, which bounds its parallelism.
const PARTS: usize = 16;

/// How many samples one matrix product takes.
fn group(positions: usize, batch: usize) -> usize {
    (COLUMNS / positions.max(1)).clamp(1, batch.max(1))
}

/// The convolution of samples with kernels `w` `[filters, channels, k_h, k_w]`.
///
/// `bias` has one value a filter, or one for each sample and filter.
pub(super) fn forward<T: Real>(
    geometry: &Geometry,
    x: &[T],
    w: &[T],
    bias: Option<&[T]>,
    filters: usize,
) -> CandleResult<Vec<T>> {
    let output = geometry.output()?;
    let batch = x.len() / geometry.sample_len().max(1);
    let (positions, taps) = (output[0] * output[1], geometry.taps());
    let direct = geometry.is_pointwise() && positions >= DIRECT;
    let samples = if direct { 1 } else { group(positions, batch) };
    let mut y = vec![T::zero(); batch * filters * positions];
    let inputs = x.par_chunks((samples * geometry.sample_len()).max(1)).enumerate();
    y.par_chunks_mut((samples * filters * positions).max(1)).zip(inputs).for_each(|(y, (index, x))| {
        let columns = y.len() / filters;
        let (size, w) = ((filters, taps, columns), Matrix::rows(w, taps));
        if direct {
            product(y, size, w, Matrix::rows(x, columns), false);
        } else {
            with_scratch(taps * columns, |patches| {
                geometry.unfold(x, output, patches);
                with_scratch(y.len(), |rows| {
                    product(rows, size, w, Matrix::rows(patches, columns), false);
                    scatter(rows, y, filters, positions);
                });
            });
        }
        if let Some(bias) = bias {
            let first = if bias.len() == filters { 0 } else { index * samples * filters };
            add_bias(y, bias[first..].iter().cycle(), positions);
        }
    });
    Ok(y)
}

/// The gradient with respect to the samples.
pub(super) fn input_gradient<T: Real>(
    geometry: &Geometry,
    grad: &[T],
    w: &[T],
    filters: usize,
) -> CandleResult<Vec<T>> {
    match geometry.adjoint(filters)? {
        Some(adjoint) if !geometry.is_pointwise() => {
            let len = w.len();
            with_scratch(len, |turned| {
                turn(geometry, w, filters, turned);
                forward(&adjoint, grad, turned, None, geometry.channels)
            })
        }
        _ => by_folding(geometry, grad, w, filters),
    }
}

/// The kernels of the convolution that is the adjoint at stride 1: turned by 180°, inputs and outputs exchanged.
fn turn<T: Copy>(geometry: &Geometry, w: &[T], filters: usize, turned: &mut [T]) {
    let (taps, area) = (geometry.taps(), geometry.kernel[0] * geometry.kernel[1]);
    for (c, turned) in turned.chunks_exact_mut(filters * area).enumerate() {
        for (o, turned) in turned.chunks_exact_mut(area).enumerate() {
            let kernel = &w[o * taps + c * area..][..area];
            turned.iter_mut().zip(kernel.iter().rev()).for_each(|(to, &from)| *to = from);
        }
    }
}

fn by_folding<T: Real>(geometry: &Geometry, grad: &[T], w: &[T], filters: usize) -> CandleResult<Vec<T>> {
    let output = geometry.output()?;
    let (positions, taps) = (output[0] * output[1], geometry.taps());
    let batch = grad.len() / (filters * positions).max(1);
    let direct = geometry.is_pointwise() && positions >= DIRECT;
    let samples = if direct { 1 } else { group(positions, batch) };
    let mut x = vec![T::zero(); batch * geometry.sample_len()];
    let gradients = grad.par_chunks((samples * filters * positions).max(1));
    x.par_chunks_mut((samples * geometry.sample_len()).max(1)).zip(gradients).for_each(|(x, grad)| {
        let columns = grad.len() / filters;
        let (size, w) = ((taps, filters, columns), Matrix::rows(w, taps).transposed());
        if direct {
            return product(x, size, w, Matrix::rows(grad, columns), false);
        }
        with_scratch(taps * columns, |patches| {
            with_scratch(grad.len(), |rows| {
                gather(grad, rows, filters, positions);
                product(patches, size, w, Matrix::rows(rows, columns), false);
            });
            geometry.fold(patches, output, x);
        });
    });
    Ok(x)
}

/// The gradient with respect to the kernels, `[filters, channels, k_h, k_w]`.
pub(super) fn weight_gradient<T: Real>(
    geometry: &Geometry,
    x: &[T],
    grad: &[T],
    filters: usize,
) -> CandleResult<Vec<T>> {
    let output = geometry.output()?;
    let (positions, taps) = (output[0] * output[1], geometry.taps());
    let [x_len, grad_len] = [geometry.sample_len(), filters * positions].map(|len| len.max(1));
    let batch = x.len() / x_len;
    let direct = geometry.is_pointwise() && positions >= COLUMNS;
    let samples = group(positions, batch);
    // Whole groups a part, as even as they go.
    let part = batch.div_ceil(samples).div_ceil(PARTS).max(1) * samples;
    let parts: Vec<Vec<T>> = x
        .par_chunks(part * x_len)
        .zip(grad.par_chunks(part * grad_len))
        .map(|(x, grad)| {
            let mut sum = vec![T::zero(); filters * taps];
            for (x, grad) in x.chunks(samples * x_len).zip(grad.chunks(samples * grad_len)) {
                let columns = grad.len() / filters;
                let mut add = |grad: &[T], patches: &[T]| {
                    let patches = Matrix::rows(patches, columns).transposed();
                    product(&mut sum, (filters, columns, taps), Matrix::rows(grad, columns), patches, true);
                };
                if direct {
                    add(grad, x);
                    continue;
                }
                with_scratch(taps * columns, |patches| {
                    geometry.unfold(x, output, patches);
                    with_scratch(grad.len(), |rows| {
                        gather(grad, rows, filters, positions);
                        add(rows, patches);
                    });
                });
            }
            sum
        })
        .collect();
    let mut parts = parts.into_iter();
    let mut w = parts.next().unwrap_or_else(|| vec![T::zero(); filters * taps]);
    for part in parts {
        w.iter_mut().zip(part).for_each(|(sum, v)| *sum += v);
    }
    Ok(w)
}

/// From rows of channels over (sample, position) to samples of (channel, position).
fn scatter<T: Copy>(rows: &[T], samples: &mut [T], channels: usize, positions: usize) {
    let columns = rows.len() / channels;
    for (s, sample) in samples.chunks_exact_mut(channels * positions).enumerate() {
        for (to, from) in sample.chunks_exact_mut(positions).zip(rows.chunks_exact(columns)) {
            to.copy_from_slice(&from[s * positions..][..positions]);
        }
    }
}

/// The inverse of [`scatter`].
fn gather<T: Copy>(samples: &[T], rows: &mut [T], channels: usize, positions: usize) {
    let columns = samples.len() / channels;
    for (s, sample) in samples.chunks_exact(channels * positions).enumerate() {
        for (from, to) in sample.chunks_exact(positions).zip(rows.chunks_exact_mut(columns)) {
            to[s * positions..][..positions].copy_from_slice(from);
        }
    }
}

fn add_bias<'a, T: Real>(y: &mut [T], bias: impl Iterator<Item = &'a T>, positions: usize) {
    for (plane, &bias) in y.chunks_exact_mut(positions).zip(bias) {
        plane.iter_mut().for_each(|v| *v += bias);
    }
}
