//! Convolutions of any shape as matrix products with patches.
//!
//! With U the patch matrix of x ([`super::super::patches`]) and W the weights as a matrix,
//!
//! ```text
//! y = W U(x)        x̄ = Uᵀ(Wᵀ ȳ)        W̄ = ȳ U(x)ᵀ
//! ```
//!
//! Samples are grouped, and large images cut into bands of rows, so that a matrix product has about [`COLUMNS`]
//! columns; a convolution takes its patches by channels, so that a part of U stays in a cache until it is used. The
//! groups depend on shapes alone, and the weight gradient adds a fixed number of partial sums in a fixed order. A 1×1
//! convolution of a large enough image is a product with the image itself, sample by sample.

use std::ops::Range;

use rayon::prelude::*;

use super::super::kernel::{INNER, Matrix, Real, product, vectorised, with_scratch};
use super::super::patches::{Geometry, Part};
use super::CandleResult;
use super::epilogue::Epilogue;

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
pub(super) fn forward<T: Real>(
    geometry: &Geometry,
    x: &[T],
    w: &[T],
    epilogue: Epilogue<'_, T>,
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
        let first_plane = index * samples * filters;
        if direct {
            product(y, (filters, taps, positions), Matrix::rows(w, taps), Matrix::rows(x, positions), false);
            epilogue.planes(y, first_plane, filters, positions);
            return;
        }
        for rows in bands(output, samples) {
            if samples == 1 && rows.len() == output[0] {
                by_channels(geometry, x, w, rows, y);
                epilogue.planes(y, first_plane, filters, positions);
                continue;
            }
            let len = y.len() / output[0] * rows.len();
            with_scratch(len, |result| {
                by_channels(geometry, x, w, rows.clone(), result);
                scatter(result, y, (filters, positions), rows.start * output[1], |from, to, plane| {
                    epilogue.store(from, to, epilogue.shift(first_plane + plane, filters));
                });
            });
        }
    });
    Ok(y)
}

/// The rows of the output that one matrix product makes: all of them, or even parts of a large image.
fn bands([height, width]: [usize; 2], samples: usize) -> impl Iterator<Item = Range<usize>> {
    let parts = (samples * height * width).div_ceil(2 * COLUMNS).clamp(1, height.max(1));
    let rows = height.div_ceil(parts).max(1);
    (0..height).step_by(rows).map(move |first| first..(first + rows).min(height))
}

/// `W U(x)` for some rows of the output: the sum over groups of channels, whose patches come one group after another.
fn by_channels<T: Real>(geometry: &Geometry, x: &[T], w: &[T], rows: Range<usize>, y: &mut [T]) {
    let (channels, area, taps) =
        (geometry.channels, geometry.kernel[0] * geometry.kernel[1], geometry.taps());
    let (filters, parts) = (w.len() / taps, taps.div_ceil(INNER).min(channels));
    let (columns, group) = (y.len() / filters, channels.div_ceil(parts));
    with_scratch(group * area * columns, |patches| {
        for first in (0..channels).step_by(group) {
            let part = Part { channels: first..(first + group).min(channels), rows: rows.clone() };
            let inner = part.channels.len() * area;
            let patches = &mut patches[..inner * columns];
            geometry.unfold_part(x, &part, patches);
            let w = Matrix { values: &w[first * area..], row_stride: taps, column_stride: 1 };
            product(y, (filters, inner, columns), w, Matrix::rows(patches, columns), first > 0);
        }
    });
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
                forward(&adjoint, grad, turned, Epilogue::NONE, geometry.channels)
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

/// From rows of filters over (sample, position) to samples of (filter, position), at positions from `first` on;
/// `store(from, to, plane)` moves those of one plane.
fn scatter<T: Real>(
    rows: &[T],
    samples: &mut [T],
    (filters, positions): (usize, usize),
    first: usize,
    store: impl Fn(&[T], &mut [T], usize),
) {
    let columns = rows.len() / filters;
    let count = columns * positions * filters / samples.len();
    vectorised(
        #[inline(always)]
        || {
            for (plane, to) in samples.chunks_exact_mut(positions).enumerate() {
                let (sample, filter) = (plane / filters, plane % filters);
                let from = &rows[filter * columns + sample * count..][..count];
                store(from, &mut to[first..first + count], plane);
            }
        },
    );
}

/// The inverse of [`scatter`] of whole planes.
fn gather<T: Copy>(samples: &[T], rows: &mut [T], channels: usize, positions: usize) {
    let columns = samples.len() / channels;
    for (s, sample) in samples.chunks_exact(channels * positions).enumerate() {
        for (from, to) in sample.chunks_exact(positions).zip(rows.chunks_exact_mut(columns)) {
            to[s * positions..][..positions].copy_from_slice(from);
        }
    }
}
