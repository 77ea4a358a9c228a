//! Decoding one picture, PNG, JPEG or WebP, to bytes of one or three channels.
//!
//! Palettes are looked up, 16 bits are rounded to 8, transparency is composed on a background, `c ← αc + (1 −
//! α) b` per byte, and grey is the luminance 0.2126 R + 0.7152 G + 0.0722 B. The format is told by the
//! contents, not by the name.

use std::io::Cursor;
use std::path::Path;

use image::{DynamicImage, ImageFormat, ImageReader, Limits};
use ndarray::Array3;

use crate::error::Place;
use crate::{Error, Result};

/// The largest side of a picture.
const SIDE_LIMIT: u32 = 16_384;
/// The most bytes that decoding one picture may take.
const ALLOCATION_LIMIT: u64 = 1 << 30;

/// What pictures are turned into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channels {
    /// One channel, luminance.
    Grey,
    /// Red, green, blue.
    Rgb,
}

/// The bytes of a picture, `[C, H, W]`, on a background of this colour.
pub(crate) fn decode(
    bytes: &[u8],
    channels: Channels,
    background: [u8; 3],
    file: &Path,
    place: Place,
) -> Result<Array3<u8>> {
    let wrong = |found: String| Error::malformed(file, place.clone(), "a PNG, JPEG or WebP picture", found);
    let format = image::guess_format(bytes).map_err(|_| wrong("none of these".into()))?;
    if !matches!(format, ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::WebP) {
        return Err(wrong(format!("{format:?}")));
    }
    if is_cut_off(bytes, format) {
        return Err(wrong(format!("a {format:?} that is cut off")));
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::default();
    limits.max_image_width = Some(SIDE_LIMIT);
    limits.max_image_height = Some(SIDE_LIMIT);
    limits.max_alloc = Some(ALLOCATION_LIMIT);
    reader.limits(limits);
    let picture = reader.decode().map_err(|e| wrong(e.to_string()))?;
    let opaque = if picture.color().has_alpha() { on_background(&picture, background) } else { picture };
    let (width, height) = (opaque.width() as usize, opaque.height() as usize);
    let (count, rows) = match channels {
        Channels::Grey => (1, opaque.into_luma8().into_raw()),
        Channels::Rgb => (3, opaque.into_rgb8().into_raw()),
    };
    let rows = Array3::from_shape_vec((height, width, count), rows).map_err(|e| wrong(e.to_string()))?;
    Ok(rows.permuted_axes([2, 0, 1]))
}

/// Whether the end is missing where a decoder would fill the picture up in silence.
fn is_cut_off(bytes: &[u8], format: ImageFormat) -> bool {
    match format {
        // In a scan a byte FF is never followed by D9, so after the last one only the end marker looks so.
        ImageFormat::Jpeg => {
            let is = |marker: u8| move |pair: &[u8]| pair == [0xff, marker];
            let last_scan = bytes.windows(2).rposition(is(0xda));
            !last_scan.is_some_and(|start| bytes[start..].windows(2).any(is(0xd9)))
        }
        // "RIFF", then the number of bytes that follow; the last may be padding.
        ImageFormat::WebP => match bytes {
            [_, _, _, _, a, b, c, d, rest @ ..] => {
                (rest.len() as u64) + 1 < u64::from(u32::from_le_bytes([*a, *b, *c, *d]))
            }
            _ => true,
        },
        _ => false,
    }
}

fn on_background(picture: &DynamicImage, background: [u8; 3]) -> DynamicImage {
    let mut pixels = picture.to_rgba8();
    for pixel in pixels.pixels_mut() {
        let [red, green, blue, alpha] = pixel.0;
        let blend = |colour: u8, behind: u8| {
            let sum = u32::from(colour) * u32::from(alpha) + u32::from(behind) * (255 - u32::from(alpha));
            ((sum + 127) / 255) as u8
        };
        let [r, g, b] = background;
        pixel.0 = [blend(red, r), blend(green, g), blend(blue, b), 255];
    }
    DynamicImage::ImageRgba8(pixels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{GrayImage, ImageBuffer, Luma, Rgb, RgbImage, Rgba, RgbaImage};

    fn encoded(picture: DynamicImage, format: ImageFormat) -> Result<Vec<u8>> {
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, format).map_err(Error::Picture)?;
        Ok(bytes.into_inner())
    }

    fn decoded(bytes: &[u8], channels: Channels, background: [u8; 3]) -> Result<Array3<u8>> {
        decode(bytes, channels, background, Path::new("p"), Place::File)
    }

    #[test]
    fn rows_columns_and_channels_are_in_their_places() -> Result<()> {
        let rgb = RgbImage::from_fn(3, 2, |x, y| Rgb([x as u8, 10 + y as u8, 100]));
        for format in [ImageFormat::Png, ImageFormat::WebP] {
            let array = decoded(&encoded(rgb.clone().into(), format)?, Channels::Rgb, [0; 3])?;
            assert_eq!(array.dim(), (3, 2, 3));
            assert_eq!((array[[0, 1, 2]], array[[1, 1, 2]], array[[2, 0, 0]]), (2, 11, 100), "{format:?}");
        }
        let flat = RgbImage::from_pixel(8, 8, Rgb([200, 200, 200]));
        let jpeg = decoded(&encoded(flat.into(), ImageFormat::Jpeg)?, Channels::Grey, [0; 3])?;
        assert!(jpeg.dim() == (1, 8, 8) && jpeg.iter().all(|v| v.abs_diff(200) <= 2));
        Ok(())
    }

    #[test]
    fn grey_deep_and_transparent_pictures() -> Result<()> {
        let grey = encoded(GrayImage::from_pixel(1, 1, Luma([77])).into(), ImageFormat::Png)?;
        assert_eq!(decoded(&grey, Channels::Rgb, [0; 3])?.into_raw_vec_and_offset().0, [77, 77, 77]);
        let deep: ImageBuffer<Luma<u16>, Vec<u16>> = ImageBuffer::from_pixel(1, 1, Luma([0x4d4d]));
        let deep = encoded(deep.into(), ImageFormat::Png)?;
        assert_eq!(decoded(&deep, Channels::Grey, [0; 3])?[[0, 0, 0]], 0x4d);
        let half = encoded(RgbaImage::from_pixel(1, 1, Rgba([255, 0, 100, 51])).into(), ImageFormat::Png)?;
        // α = 0.2 on (0, 50, 100).
        let array = decoded(&half, Channels::Rgb, [0, 50, 100])?;
        assert_eq!(array.into_raw_vec_and_offset().0, [51, 40, 100]);
        Ok(())
    }

    #[test]
    fn damaged_pictures_are_errors() -> Result<()> {
        let rgb = RgbImage::from_fn(5, 4, |x, y| Rgb([x as u8 * 40, y as u8 * 50, 9]));
        let png = encoded(rgb.into(), ImageFormat::Png)?;
        for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP] {
            let picture = RgbImage::from_fn(21, 17, |x, y| Rgb([(x * y) as u8, (y * 50) as u8, 9]));
            let whole = encoded(picture.into(), format)?;
            // The end marker of a PNG and the padding of a WebP hold no pixels.
            let needed = match format {
                ImageFormat::Png => whole.len() - 12,
                ImageFormat::WebP => whole.len() - 1,
                _ => whole.len(),
            };
            for cut in 0..needed {
                let outcome = decoded(&whole[..cut], Channels::Rgb, [0; 3]);
                assert!(outcome.is_err(), "{format:?}, {cut} of {} bytes", whole.len());
            }
        }
        // A header that claims 65535 × 65535 pixels.
        let mut huge = png.clone();
        huge[16..24].copy_from_slice(&[0, 0, 255, 255, 0, 0, 255, 255]);
        assert!(decoded(&huge, Channels::Rgb, [0; 3]).is_err());
        assert!(decoded(b"GIF89a\x01\0\x01\0", Channels::Rgb, [0; 3]).is_err());
        Ok(())
    }
}
