//! Patches of images as columns of a matrix, and back: the two adjoint halves of a convolution by matrix
//! products.
//!
//! For n samples of C×H×W, a kernel of k_h×k_w and an output of H'×W', column (s, p) of the matrix holds the
//! C·k_h·k_w values that output position p of sample s sees; row (c, i, j) is one tap. [`Geometry::unfold`]
//! reads patches (zero outside of the image), [`Geometry::fold`] adds columns back to where they were read.
//!
//! Both go through one zero-bordered plane at a time, so that no row has a special case at the edge. Patches can be had in
//! parts ([`Part`]), so that a large image does not need a large matrix.

use std::ops::Range;

use candle_core::Result;

use super::kernel::Real;

/// The sizes of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Geometry {
    pub channels: usize,
    pub height: usize,
    pub width: usize,
    pub kernel: [usize; 2],
    pub stride: usize,
    /// Top, bottom, left, right.
    pub padding: [usize; 4],
}

impl Geometry {
    /// Height and width of the output, or an error where the padded image is smaller than the kernel.
    pub(super) fn output(&self) -> Result<[usize; 2]> {
        let [height, width] = self.padded();
        let [kh, kw] = self.kernel;
        if kh == 0 || kw == 0 || self.stride == 0 || height < kh || width < kw {
            let found = format!(
                "convolution: kernel {kh}×{kw}, stride {} does not fit a padded image of {height}×{width}: enlarge the image or the padding",
                self.stride
            );
            return Err(candle_core::Error::Msg(found));
        }
        Ok([(height - kh) / self.stride + 1, (width - kw) / self.stride + 1])
    }

    /// The convolution that is the adjoint in x, on `filters` channels; `None` where it is not one: with a
    /// stride, or with positions that see only padding.
    pub(super) fn adjoint(&self, filters: usize) -> Result<Option<Self>> {
        let [height, width] = self.output()?;
        let [kh, kw] = self.kernel;
        let [top, bottom, left, right] = self.padding;
        if self.stride != 1 || top.max(bottom) >= kh || left.max(right) >= kw {
            return Ok(None);
        }
        let padding = [kh - 1 - top, kh - 1 - bottom, kw - 1 - left, kw - 1 - right];
        Ok(Some(Self { channels: filters, height, width, padding, ..*self }))
    }

    /// The number of values of one sample.
    pub(super) fn sample_len(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// The number of rows of the patch matrix.
    pub(super) fn taps(&self) -> usize {
        self.channels * self.kernel[0] * self.kernel[1]
    }

    fn padded(&self) -> [usize; 2] {
        let [top, bottom, left, right] = self.padding;
        [self.height + top + bottom, self.width + left + right]
    }

    /// Whether the patch matrix of one sample is the sample itself.
    pub(super) fn is_pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.stride == 1 && self.padding == [0; 4]
    }

    /// Writes the patch matrix of the samples in `images`: `taps` rows of (samples · positions).
    pub(super) fn unfold<T: Real>(&self, images: &[T], output: [usize; 2], columns: &mut [T]) {
        self.unfold_part(images, &Part { channels: 0..self.channels, rows: 0..output[0] }, columns);
    }

    /// Writes a part of the patch matrix: the rows of some channels, the columns of some rows of the output.
    pub(super) fn unfold_part<T: Real>(&self, images: &[T], part: &Part, columns: &mut [T]) {
        let area = self.kernel[0] * self.kernel[1];
        let width = columns.len() / (part.channels.len() * area);
        let positions = width / (images.len() / self.sample_len());
        let (out_width, plane_len) = (positions / part.rows.len(), self.height * self.width);
        let mut padded = Plane::new(self, part.rows.len());
        for (sample, image) in images.chunks_exact(self.sample_len()).enumerate() {
            let channels = image.chunks_exact(plane_len).skip(part.channels.start);
            for (plane, rows) in channels.zip(columns.chunks_exact_mut(width * area)) {
                let at = sample * positions..(sample + 1) * positions;
                if self.is_pointwise() {
                    rows[at].copy_from_slice(&plane[part.rows.start * self.width..][..positions]);
                    continue;
                }
                padded.load(plane, part.rows.start);
                for (tap, row) in padded.taps().zip(rows.chunks_exact_mut(width)) {
                    padded.read(tap, out_width, &mut row[at.clone()]);
                }
            }
        }
    }

    /// Adds up, for each value of the images, the entries of the patch matrix that were read from it;
    /// overwrites `images`.
    pub(super) fn fold<T: Real>(&self, columns: &[T], output: [usize; 2], images: &mut [T]) {
        let positions = output[0] * output[1];
        let width = images.len() / self.sample_len() * positions;
        let plane_len = self.height * self.width;
        let mut padded = Plane::new(self, output[0]);
        for (sample, image) in images.chunks_exact_mut(self.sample_len()).enumerate() {
            for (channel, plane) in image.chunks_exact_mut(plane_len).enumerate() {
                if self.is_pointwise() {
                    let at = channel * width + sample * positions;
                    plane.copy_from_slice(&columns[at..at + positions]);
                    continue;
                }
                padded.values.fill(T::zero());
                let rows = columns.chunks_exact(width).skip(channel * self.kernel[0] * self.kernel[1]);
                for (tap, row) in padded.taps().zip(rows) {
                    padded.add(tap, output[1], &row[sample * positions..][..positions]);
                }
                padded.store(plane);
            }
        }
    }
}

/// A part of a patch matrix.
pub(super) struct Part {
    pub channels: Range<usize>,
    /// Of the output.
    pub rows: Range<usize>,
}

/// One channel of one sample with its border, as far as some rows of the output see it.
///
/// With a stride s the columns of a row are kept in s phases: column c is entry c / s of phase c mod s. So what a tap
/// sees lies side by side.
struct Plane<T> {
    geometry: Geometry,
    /// The values of a phase.
    phase: usize,
    values: Vec<T>,
}

impl<T: Real> Plane<T> {
    fn new(geometry: &Geometry, rows: usize) -> Self {
        let Geometry { stride, kernel, .. } = *geometry;
        let (height, phase) = ((rows - 1) * stride + kernel[0], geometry.padded()[1].div_ceil(stride));
        Self { geometry: *geometry, phase, values: vec![T::zero(); height * stride * phase] }
    }

    /// The offsets of the kernel's taps, row by row.
    fn taps(&self) -> impl Iterator<Item = [usize; 2]> + use<T> {
        let [kh, kw] = self.geometry.kernel;
        (0..kh).flat_map(move |i| (0..kw).map(move |j| [i, j]))
    }

    /// Where a tap sees its first value.
    fn place(&self, [i, j]: [usize; 2]) -> usize {
        let stride = self.geometry.stride;
        (i * stride + j % stride) * self.phase + j / stride
    }

    /// The entries of a row's phase that are inside of the border, and the first column of the image that they are.
    fn inside(&self, phase: usize) -> (usize, usize) {
        let Geometry { stride, padding: [_, _, left, _], .. } = self.geometry;
        let column = (phase + stride - left % stride) % stride;
        ((left + column) / stride, column)
    }

    /// Copies the rows of an image that are seen from row `first` of the output on; the border stays zero.
    fn load(&mut self, plane: &[T], first: usize) {
        let Geometry { width, stride, padding: [top, _, left, _], .. } = self.geometry;
        let entries: Vec<_> = (0..stride).map(|phase| self.inside(phase)).collect();
        for (i, row) in self.values.chunks_exact_mut(stride * self.phase).enumerate() {
            let source = (first * stride + i).checked_sub(top);
            let source = source.and_then(|r| plane.get(r * width..(r + 1) * width));
            match source {
                None => row.fill(T::zero()),
                Some(source) if stride == 1 => row[left..left + width].copy_from_slice(source),
                Some(source) => {
                    for (phase, &(entry, column)) in row.chunks_exact_mut(self.phase).zip(&entries) {
                        let source = source.get(column..).unwrap_or_default().iter().step_by(stride);
                        phase[entry..].iter_mut().zip(source).for_each(|(to, &from)| *to = from);
                    }
                }
            }
        }
    }

    /// Copies the inside of the border to an image.
    fn store(&self, plane: &mut [T]) {
        let Geometry { width, stride, padding: [top, _, left, _], .. } = self.geometry;
        plane.fill(T::zero());
        let inside = self.values.chunks_exact(stride * self.phase).skip(top);
        for (row, target) in inside.zip(plane.chunks_exact_mut(width)) {
            if stride == 1 {
                target.copy_from_slice(&row[left..left + width]);
                continue;
            }
            for (i, phase) in row.chunks_exact(self.phase).enumerate() {
                let (entry, column) = self.inside(i);
                let target = target.get_mut(column..).unwrap_or_default().iter_mut().step_by(stride);
                target.zip(&phase[entry..]).for_each(|(to, &from)| *to = from);
            }
        }
    }

    /// What one tap sees at every output position, in rows of `width`.
    fn read(&self, tap: [usize; 2], width: usize, out: &mut [T]) {
        let step = self.geometry.stride * self.geometry.stride * self.phase;
        let values = &self.values[self.place(tap)..];
        if step == width {
            return out.copy_from_slice(&values[..out.len()]);
        }
        let rows = values.chunks(step).zip(out.chunks_exact_mut(width));
        match width {
            // Widths known to the compiler become a few moves; these are the widths of small images.
            4 => rows.for_each(|(row, out)| copy::<T, 4>(row, out)),
            8 => rows.for_each(|(row, out)| copy::<T, 8>(row, out)),
            16 => rows.for_each(|(row, out)| copy::<T, 16>(row, out)),
            17 => rows.for_each(|(row, out)| copy::<T, 17>(row, out)),
            35 => rows.for_each(|(row, out)| copy::<T, 35>(row, out)),
            _ => rows.for_each(|(row, out)| out.copy_from_slice(&row[..width])),
        }
    }

    /// Adds to what one tap sees: the adjoint of [`Plane::read`].
    fn add(&mut self, tap: [usize; 2], width: usize, values: &[T]) {
        let (step, place) = (self.geometry.stride * self.geometry.stride * self.phase, self.place(tap));
        let rows = self.values[place..].chunks_mut(step).zip(values.chunks_exact(width));
        rows.for_each(|(row, values)| {
            row[..width].iter_mut().zip(values).for_each(|(sum, &v)| *sum += v);
        });
    }
}

/// Copies the first N values.
#[inline(always)]
fn copy<T: Copy, const N: usize>(from: &[T], to: &mut [T]) {
    if let (Some(from), Some(to)) = (from.first_chunk::<N>(), to.first_chunk_mut::<N>()) {
        *to = *from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fold_is_the_adjoint_of_unfold() -> Result<()> {
        for (size, kernel, stride, padding) in [
            ([5, 7], [3, 3], 1, [1, 1, 1, 1]),
            ([4, 4], [3, 3], 2, [0, 1, 0, 1]),
            ([8, 8], [3, 3], 1, [1, 1, 1, 1]),
            ([4, 6], [1, 1], 1, [0, 0, 0, 0]),
            ([5, 5], [2, 3], 2, [2, 0, 1, 3]),
            ([9, 8], [3, 3], 2, [0, 0, 0, 0]),
            ([9, 7], [7, 1], 1, [3, 3, 0, 0]),
            ([7, 11], [2, 2], 3, [0, 1, 2, 0]),
            ([17, 17], [1, 7], 1, [0, 0, 3, 3]),
        ] {
            let [height, width] = size;
            let geometry = Geometry { channels: 3, height, width, kernel, stride, padding };
            let output = geometry.output()?;
            let (samples, positions) = (2, output[0] * output[1]);
            let images: Vec<f64> =
                (0..samples * geometry.sample_len()).map(|i| (i as f64 * 0.7).sin()).collect();
            let weights: Vec<f64> =
                (0..geometry.taps() * samples * positions).map(|i| (i as f64 * 1.3).cos()).collect();
            let mut columns = vec![0.0; weights.len()];
            geometry.unfold(&images, output, &mut columns);
            let mut folded = vec![f64::NAN; images.len()];
            geometry.fold(&weights, output, &mut folded);
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            let (left, right) = (dot(&columns, &weights), dot(&images, &folded));
            assert!((left - right).abs() < 1e-10, "{geometry:?}: {left} {right}");
            assert!(dot(&columns, &columns) > 0.0);
            let inside = |p: usize, edge: [usize; 2], size| p >= edge[0] && p < size + edge[0];
            let [top, bottom, left, right] = padding;
            for (i, &found) in columns.iter().enumerate() {
                let (row, column) = (i / (samples * positions), i % (samples * positions));
                let (channel, tap) = (row / (kernel[0] * kernel[1]), row % (kernel[0] * kernel[1]));
                let (sample, position) = (column / positions, column % positions);
                let y = position / output[1] * stride + tap / kernel[1];
                let x = position % output[1] * stride + tap % kernel[1];
                let seen = inside(y, [top, bottom], height) && inside(x, [left, right], width);
                let expected = match seen {
                    true => images[((sample * 3 + channel) * height + y - top) * width + x - left],
                    false => 0.0,
                };
                assert_eq!(found, expected, "{geometry:?}: {i}");
            }
        }
        Ok(())
    }
}
