//! Patches of images as columns of a matrix, and back: the two adjoint halves of a convolution by matrix
//! products.
//!
//! For n samples of C×H×W, a kernel of k_h×k_w and an output of H'×W', column (s, p) of the matrix holds the
//! C·k_h·k_w values that output position p of sample s sees; row (c, i, j) is one tap. [`Geometry::unfold`]
//! reads patches (zero outside of the image), [`Geometry::fold`] adds columns back to where they were read.
//!
//! Both go through one zero-bordered plane at a time, so that no row has a special case at the edge.

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
        let positions = output[0] * output[1];
        let width = images.len() / self.sample_len() * positions;
        let plane_len = self.height * self.width;
        let mut padded = Plane::new(self);
        for (sample, image) in images.chunks_exact(self.sample_len()).enumerate() {
            for (channel, plane) in image.chunks_exact(plane_len).enumerate() {
                if self.is_pointwise() {
                    let at = channel * width + sample * positions;
                    columns[at..at + positions].copy_from_slice(plane);
                    continue;
                }
                padded.load(plane);
                let rows = columns.chunks_exact_mut(width).skip(channel * self.kernel[0] * self.kernel[1]);
                for (tap, row) in padded.taps().zip(rows) {
                    padded.read(tap, output, &mut row[sample * positions..][..positions]);
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
        let mut padded = Plane::new(self);
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
                    padded.add(tap, output, &row[sample * positions..][..positions]);
                }
                padded.store(plane);
            }
        }
    }
}

/// One channel of one sample with its border.
struct Plane<T> {
    geometry: Geometry,
    width: usize,
    values: Vec<T>,
}

impl<T: Real> Plane<T> {
    fn new(geometry: &Geometry) -> Self {
        let [height, width] = geometry.padded();
        Self { geometry: *geometry, width, values: vec![T::zero(); height * width] }
    }

    /// The offsets of the kernel's taps, row by row.
    fn taps(&self) -> impl Iterator<Item = [usize; 2]> + use<T> {
        let [kh, kw] = self.geometry.kernel;
        (0..kh).flat_map(move |i| (0..kw).map(move |j| [i, j]))
    }

    /// Copies an image inside the border, which stays zero.
    fn load(&mut self, plane: &[T]) {
        let [top, _, left, _] = self.geometry.padding;
        let inside = self.values.chunks_exact_mut(self.width).skip(top);
        for (row, source) in inside.zip(plane.chunks_exact(self.geometry.width)) {
            row[left..left + source.len()].copy_from_slice(source);
        }
    }

    /// Copies the inside of the border to an image.
    fn store(&self, plane: &mut [T]) {
        let [top, _, left, _] = self.geometry.padding;
        let inside = self.values.chunks_exact(self.width).skip(top);
        for (row, target) in inside.zip(plane.chunks_exact_mut(self.geometry.width)) {
            target.copy_from_slice(&row[left..left + target.len()]);
        }
    }

    /// What one tap sees at every output position.
    fn read(&self, [i, j]: [usize; 2], [_, width]: [usize; 2], out: &mut [T]) {
        let stride = self.geometry.stride;
        let rows = self.values[i * self.width..].chunks(stride * self.width);
        let rows = rows.zip(out.chunks_exact_mut(width));
        match (stride, width) {
            // Widths known to the compiler become a few moves; these are the widths of small images.
            (1, 4) => rows.for_each(|(row, out)| copy::<T, 4>(&row[j..], out)),
            (1, 8) => rows.for_each(|(row, out)| copy::<T, 8>(&row[j..], out)),
            (1, 16) => rows.for_each(|(row, out)| copy::<T, 16>(&row[j..], out)),
            (1, _) => rows.for_each(|(row, out)| out.copy_from_slice(&row[j..j + width])),
            _ => rows.for_each(|(row, out)| {
                out.iter_mut().zip(row[j..].iter().step_by(stride)).for_each(|(out, &v)| *out = v);
            }),
        }
    }

    /// Adds to what one tap sees: the adjoint of [`Plane::read`].
    fn add(&mut self, [i, j]: [usize; 2], [_, width]: [usize; 2], values: &[T]) {
        let stride = self.geometry.stride;
        let rows = self.values[i * self.width..].chunks_mut(stride * self.width);
        let rows = rows.zip(values.chunks_exact(width));
        match stride {
            1 => rows.for_each(|(row, values)| {
                row[j..j + width].iter_mut().zip(values).for_each(|(sum, &v)| *sum += v);
            }),
            _ => rows.for_each(|(row, values)| {
                row[j..].iter_mut().step_by(stride).zip(values).for_each(|(sum, &v)| *sum += v);
            }),
        }
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
        }
        Ok(())
    }
}
