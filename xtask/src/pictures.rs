//! A user's pictures as states: bytes to the range of a run's data, a mask to ones and zeros.

use std::path::{Path, PathBuf};

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use sde_core::noise::host_tensor;
use sde_data::{Dataset, Images, Range, read};

use crate::exit::Failure;
use crate::run::Run;

/// The range of a run's images.
fn range(run: &Run) -> Result<Range> {
    let range = run.image_levels().map(|(range, _)| range);
    range.ok_or_else(|| {
        let text = format!("{}: its samples of shape {:?} are no images", run.path.display(), run.shape);
        Failure::Usage(text).into()
    })
}

/// Pictures `[N, C, H, W]` in the run's range, f64.
///
/// # Errors
/// If the run has no images, or a picture another size than they.
pub fn images(run: &Run, files: &[PathBuf]) -> Result<Tensor> {
    let range = range(run)?;
    let pixels = bytes(run, files, colours(run))?;
    Ok(pixels.affine(range.width() / 255.0, range.low())?)
}

/// A mask `[1, 1, H, W]`: 1 where the picture is dark, which is known, 0 where it is light, which is to be painted.
///
/// # Errors
/// As [`images`].
pub fn mask(run: &Run, file: &Path) -> Result<Tensor> {
    range(run)?;
    let pixels = bytes(run, &[file.to_owned()], read::Channels::Grey)?;
    Ok(pixels.lt(128.0)?.to_dtype(DType::F64)?)
}

/// A picture `[1, C, h, w]` in the run's range, whose sides go k times into those of the run's images.
///
/// # Errors
/// If the run has no images, or the sides do not.
pub fn small_image(run: &Run, file: &Path) -> Result<Tensor> {
    let range = range(run)?;
    let images = read::folder::read_pictures(&[file.to_owned()], colours(run), [255; 3])?;
    let (large, small) = (&run.shape[1..], &images.shape()[1..]);
    let k = large[0] / small[0].max(1);
    if k == 0 || small.iter().zip(large).any(|(small, large)| small * k != *large) {
        let text = format!(
            "{}: {}×{} pixels do not go evenly into {}×{}",
            file.display(),
            small[1],
            small[0],
            large[1],
            large[0],
        );
        return Err(Failure::Data(text).into());
    }
    Ok(tensor(&images, 1)?.affine(range.width() / 255.0, range.low())?)
}

fn colours(run: &Run) -> read::Channels {
    if run.shape.first() == Some(&1) { read::Channels::Grey } else { read::Channels::Rgb }
}

/// Bytes `[N, C, H, W]` as f64, of the height and width of the run's images.
fn bytes(run: &Run, files: &[PathBuf], colours: read::Channels) -> Result<Tensor> {
    let images = read::folder::read_pictures(files, colours, [255; 3])?;
    let (expected, found) = (&run.shape[1..], &images.shape()[1..]);
    if expected != found {
        let text = format!(
            "{}: {}×{} pixels; the images of {} have {}×{}: resize it",
            files.first().map(|f| f.display().to_string()).unwrap_or_default(),
            found[1],
            found[0],
            run.path.display(),
            expected[1],
            expected[0],
        );
        return Err(Failure::Data(text).into());
    }
    tensor(&images, files.len())
}

fn tensor(images: &Images, n: usize) -> Result<Tensor> {
    let mut values = Vec::new();
    for index in 0..n {
        values.extend(images.pixels(index)?.iter().map(|&byte| f64::from(byte)));
    }
    let dims: Vec<usize> = std::iter::once(n).chain(images.shape().iter().copied()).collect();
    Ok(host_tensor(values, &dims, DType::F64, &Device::Cpu)?)
}
