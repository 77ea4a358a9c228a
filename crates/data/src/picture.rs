//! Pictures of results: a sheet of images, a map of a function of two variables, a cloud of points.
//!
//! The colour map runs from dark blue through green to yellow with steadily rising luminance, so that order
//! can be seen also without colour: nine anchors of viridis, interpolated linearly. Reference: Smith, van der
//! Walt 2015, "viridis" (public domain, CC0).

use std::io::Cursor;
use std::path::Path;

use candle_core::Tensor;
use image::{ImageFormat, Rgb, RgbImage};
use ndarray::ArrayView2;

use crate::{Encoding, Error, Range, Result};

const GAP: usize = 2;
const GAP_COLOUR: Rgb<u8> = Rgb([24, 24, 27]);
/// No picture has more pixels than this on a side.
const SIDE_LIMIT: usize = 32_768;

/// An RGB picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture(RgbImage);

impl Picture {
    /// A sheet of images, `columns` in a row, each pixel drawn as a square of side `zoom`, on a dark ground.
    ///
    /// # Shapes
    /// `x` is `[B, C, H, W]` with 1 or 3 channels; values are in `range`, what is outside is clipped.
    ///
    /// # Errors
    /// If the tensor has another shape or holds a NaN, or `columns` or `zoom` is 0.
    pub fn sheet(x: &Tensor, range: Range, columns: usize, zoom: usize) -> Result<Self> {
        let wrong = || {
            let found = format!("{:?}, {columns} columns, zoom {zoom}", x.dims());
            Error::mismatch("sheet of images", "[B, 1 or 3, H, W], columns and zoom not 0", found)
        };
        let &[n, c, h, w] = x.dims() else { return Err(wrong()) };
        if !matches!(c, 1 | 3) || x.elem_count() == 0 || columns == 0 || zoom == 0 {
            return Err(wrong());
        }
        let levels =
            Encoding::Quantised { levels: 256, range }.quantise(x)?.flatten_all()?.to_vec1::<u8>()?;
        let columns = columns.min(n);
        let (cell_w, cell_h) = (w.saturating_mul(zoom), h.saturating_mul(zoom));
        let mut sheet = canvas(span(columns, cell_w), span(n.div_ceil(columns), cell_h))?;
        for (i, image) in levels.chunks_exact(c * h * w).enumerate() {
            let (left, top) = (GAP + i % columns * (cell_w + GAP), GAP + i / columns * (cell_h + GAP));
            for y in 0..cell_h {
                for x in 0..cell_w {
                    let at = y / zoom * w + x / zoom;
                    let value = |channel: usize| image[(channel % c) * h * w + at];
                    sheet.put_pixel((left + x) as u32, (top + y) as u32, Rgb([value(0), value(1), value(2)]));
                }
            }
        }
        Ok(Self(sheet))
    }

    /// The values of a function on a grid, in colour from their smallest finite to their largest; −∞ is drawn
    /// as the smallest.
    ///
    /// # Shapes
    /// `values` is `[rows, columns]`; row 0 is at the bottom, as the y axis has it.
    ///
    /// # Errors
    /// If there are no values, one is NaN or +∞, or `zoom` is 0.
    pub fn map(values: ArrayView2<'_, f64>, zoom: usize) -> Result<Self> {
        let (rows, columns) = values.dim();
        if values.is_empty() || zoom == 0 {
            return Err(Error::Empty("the map to draw"));
        }
        let is_wrong = |v: f64| v.is_nan() || v == f64::INFINITY;
        if let Some(((row, column), &found)) = values.indexed_iter().find(|(_, v)| is_wrong(**v)) {
            return Err(Error::NonFinite { row, column, found });
        }
        let finite = || values.iter().copied().filter(|v| v.is_finite());
        let (low, high) =
            (finite().fold(f64::INFINITY, f64::min), finite().fold(f64::NEG_INFINITY, f64::max));
        let mut picture = canvas(columns.saturating_mul(zoom), rows.saturating_mul(zoom))?;
        for (x, y, pixel) in picture.enumerate_pixels_mut() {
            let value = values[[rows - 1 - y as usize / zoom, x as usize / zoom]];
            *pixel = colour(if high > low { (value - low) / (high - low) } else { 0.0 });
        }
        Ok(Self(picture))
    }

    /// How densely points lie in a window, as a histogram of `side` × `side` cells; colour is the square root
    /// of the count.
    ///
    /// # Shapes
    /// `points` is `[N, 2]`; the first axis is drawn to the right, the second upwards.
    ///
    /// # Errors
    /// If points have not two coordinates, or `side` or `zoom` is 0.
    pub fn cloud(
        points: ArrayView2<'_, f64>,
        horizontal: Range,
        vertical: Range,
        side: usize,
        zoom: usize,
    ) -> Result<Self> {
        if points.ncols() != 2 || side == 0 || side > SIDE_LIMIT {
            let found = format!("{} axes, {side} cells", points.ncols());
            return Err(Error::mismatch(
                "cloud of points",
                format!("2 axes, 1 to {SIDE_LIMIT} cells"),
                found,
            ));
        }
        let mut counts = ndarray::Array2::<f64>::zeros((side, side));
        let cell = |v: f64, range: Range| {
            let place = (v - range.low()) / range.width() * side as f64;
            (place >= 0.0 && place < side as f64).then_some(place as usize)
        };
        for point in points.rows() {
            if let (Some(column), Some(row)) = (cell(point[0], horizontal), cell(point[1], vertical)) {
                counts[[row, column]] += 1.0;
            }
        }
        Self::map(counts.mapv(f64::sqrt).view(), zoom)
    }

    /// Width and height in pixels.
    pub fn size(&self) -> (u32, u32) {
        self.0.dimensions()
    }

    /// Red, green and blue of a pixel; (0, 0) is the upper left.
    pub fn pixel(&self, x: u32, y: u32) -> Option<[u8; 3]> {
        self.0.get_pixel_checked(x, y).map(|pixel| pixel.0)
    }

    /// The bytes of a PNG file.
    ///
    /// # Errors
    /// If the picture cannot be encoded.
    pub fn to_png(&self) -> Result<Vec<u8>> {
        let mut bytes = Cursor::new(Vec::new());
        self.0.write_to(&mut bytes, ImageFormat::Png).map_err(Error::Picture)?;
        Ok(bytes.into_inner())
    }

    /// Writes a PNG file.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn save(&self, path: &Path) -> Result<()> {
        std::fs::write(path, self.to_png()?).map_err(Error::io(path))
    }
}

/// The pixels that `n` cells take with a gap around each.
fn span(n: usize, cell: usize) -> usize {
    cell.saturating_add(GAP).saturating_mul(n).saturating_add(GAP)
}

fn canvas(width: usize, height: usize) -> Result<RgbImage> {
    if width > SIDE_LIMIT || height > SIDE_LIMIT {
        let found = format!("{width}×{height}; draw less or at a lower zoom");
        return Err(Error::mismatch(
            "size of a picture",
            format!("at most {SIDE_LIMIT} pixels a side"),
            found,
        ));
    }
    Ok(RgbImage::from_pixel(width as u32, height as u32, GAP_COLOUR))
}

/// The colour of a fraction; below 0 (−∞ among it) that of 0.
fn colour(fraction: f64) -> Rgb<u8> {
    const ANCHORS: [[u8; 3]; 9] = [
        [68, 1, 84],
        [71, 44, 122],
        [59, 81, 139],
        [44, 113, 142],
        [33, 144, 141],
        [39, 173, 129],
        [92, 200, 99],
        [170, 220, 50],
        [253, 231, 37],
    ];
    let place = fraction.clamp(0.0, 1.0) * (ANCHORS.len() - 1) as f64;
    let below = (place as usize).min(ANCHORS.len() - 2);
    let share = place - below as f64;
    let mix = |channel: usize| {
        let [from, to] = [ANCHORS[below], ANCHORS[below + 1]].map(|anchor| f64::from(anchor[channel]));
        (from + share * (to - from)).round() as u8
    };
    Rgb([mix(0), mix(1), mix(2)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use ndarray::array;

    #[test]
    fn a_sheet_puts_every_pixel_in_its_place() -> Result<()> {
        // Three images of two channels' worth of difference: value = level, so that bytes can be told.
        let x =
            Tensor::from_iter((0..3 * 3 * 2 * 4).map(|v| v as f32), &Device::Cpu)?.reshape((3, 3, 2, 4))?;
        let range = Range::new(0.0, 255.0)?;
        let sheet = Picture::sheet(&x, range, 2, 3)?;
        assert_eq!(sheet.size(), (2 + 2 * (12 + 2), 2 + 2 * (6 + 2)));
        assert_eq!(sheet.pixel(0, 0), Some(GAP_COLOUR.0));
        // Image 1, row 1, column 2: channels 24 + 6, + 8, + 16; drawn from (16 + 6, 2 + 3) on.
        for (dx, dy) in [(0, 0), (2, 2)] {
            assert_eq!(sheet.pixel(22 + dx, 5 + dy), Some([30, 38, 46]));
        }
        // The second row of the sheet holds one image; the place beside it stays dark.
        assert_eq!(sheet.pixel(2, 10), Some([48, 56, 64]));
        assert_eq!(sheet.pixel(20, 12), Some(GAP_COLOUR.0));
        let grey = Picture::sheet(&x.narrow(1, 0, 1)?, range, 5, 1)?;
        assert_eq!(grey.pixel(3, 2), Some([1, 1, 1]));
        let decoded = image::load_from_memory(&sheet.to_png()?).map_err(Error::Picture)?;
        assert_eq!(decoded.into_rgb8(), sheet.0);
        assert!(Picture::sheet(&x.narrow(1, 0, 2)?, range, 2, 1).is_err());
        assert!(Picture::sheet(&x, range, 2, 0).is_err() && Picture::sheet(&x, range, 0, 1).is_err());
        assert!(Picture::sheet(&x, range, 2, 1 << 20).is_err());
        Ok(())
    }

    #[test]
    fn maps_have_the_y_axis_upwards() -> Result<()> {
        let map = Picture::map(array![[0.0, 1.0], [f64::NEG_INFINITY, 0.5]].view(), 2)?;
        assert_eq!(map.size(), (4, 4));
        assert_eq!(map.pixel(0, 3), Some([68, 1, 84]));
        assert_eq!(map.pixel(3, 3), Some([253, 231, 37]));
        assert_eq!(map.pixel(0, 0), map.pixel(0, 3));
        assert_eq!(map.pixel(2, 0), Some([33, 144, 141]));
        assert!(matches!(
            Picture::map(array![[0.0], [f64::NAN]].view(), 1),
            Err(Error::NonFinite { row: 1, .. })
        ));
        assert!(Picture::map(array![[1.0, 1.0]].view(), 1).is_ok());
        Ok(())
    }

    #[test]
    fn clouds_count_points_inside_the_window() -> Result<()> {
        let window = Range::SIGNED;
        let points = array![[0.9, -0.9], [0.9, -0.8], [-0.5, 0.5], [3.0, 0.0], [f64::NAN, 0.0]];
        let cloud = Picture::cloud(points.view(), window, window, 2, 1)?;
        assert_eq!(cloud.pixel(1, 1), Some([253, 231, 37]), "lower right, twice");
        assert_eq!(cloud.pixel(0, 1), Some([68, 1, 84]), "lower left, never");
        assert_eq!(cloud.pixel(0, 0), Some(colour(0.5f64.sqrt()).0));
        assert!(Picture::cloud(array![[1.0]].view(), window, window, 2, 1).is_err());
        Ok(())
    }

    #[test]
    fn luminance_rises_along_the_colour_map() {
        let luminance = |i: u32| {
            let [r, g, b] = colour(f64::from(i) / 100.0).0.map(f64::from);
            0.2126 * r + 0.7152 * g + 0.0722 * b
        };
        assert!((0..100).all(|i| luminance(i + 1) > luminance(i)));
    }
}
