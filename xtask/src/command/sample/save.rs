//! Samples as files: a sheet and npz for images, a cloud and npy for points.

use std::path::{Path, PathBuf};

use anyhow::Result;
use candle_core::{DType, Tensor};
use ndarray::Array2;
use sde_data::{Picture, Range, read};

use crate::files::{make_folder, write_tensor};
use crate::output::{Output, write};
use crate::run::Run;

/// Whether samples go to one array.
pub fn is_npy(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "npy")
}

/// Writes samples, values or levels, as what they are: a sheet and npz for images, a cloud and npy for points; or just the array.
pub fn save(run: &Run, x: &Tensor, out: &Path, output: Output) -> Result<Vec<String>> {
    if is_npy(out) {
        write_tensor(out, x)?;
        return Ok(vec![out.display().to_string()]);
    }
    make_folder(out)?;
    let mut files = Vec::new();
    let mut keep = |path: PathBuf| files.push(path.display().to_string());
    if let Some(picture) = picture(run, x, output)? {
        let path = out.join("samples.png");
        write(&path, &picture.to_png()?)?;
        keep(path);
    }
    match run.image_levels() {
        Some(_) => {
            let path = out.join("samples.npz");
            let levels = if x.dtype() == DType::U8 { x.clone() } else { run.encoding.quantise(x)? };
            read::npz::write_samples(&path, &levels)?;
            keep(path);
        }
        None => {
            let path = out.join("samples.npy");
            write_tensor(&path, x)?;
            keep(path);
        }
    }
    Ok(files)
}

/// The picture of samples: a sheet of images, or a cloud of points of the plane.
pub fn picture(run: &Run, x: &Tensor, output: Output) -> Result<Option<Picture>> {
    if let Some((range, levels)) = run.image_levels() {
        let range = if x.dtype() == DType::U8 { Range::new(0.0, f64::from(levels) - 1.0)? } else { range };
        return sheet(x, range).map(Some);
    }
    if let &[dim] = run.shape.as_slice()
        && dim > 2
    {
        // A section along the first and the last axis.
        let section = Tensor::cat(&[x.narrow(1, 0, 1)?, x.narrow(1, dim - 1, 1)?], 1)?;
        return cloud(&section).map(Some);
    }
    if run.shape != [2] {
        output.say(format!("no picture for samples of shape {:?}", run.shape));
        return Ok(None);
    }
    cloud(x).map(Some)
}

/// A sheet of at most 100 images, zoomed to a size one can see.
pub fn sheet(x: &Tensor, range: Range) -> Result<Picture> {
    let shown = x.dim(0)?.min(100);
    let columns = (shown as f64).sqrt().ceil() as usize;
    let zoom = (64 / x.dim(2)?.max(1)).clamp(1, 6);
    Ok(Picture::sheet(&x.narrow(0, 0, shown)?.to_dtype(DType::F32)?, range, columns, zoom)?)
}

/// Points of the plane, in the square of three standard deviations.
pub fn cloud(x: &Tensor) -> Result<Picture> {
    let values = x.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
    let points = Array2::from_shape_vec((x.dim(0)?, 2), values)?;
    let side = Range::new(-3.0, 3.0)?;
    Ok(Picture::cloud(points.view(), side, side, 256, 2)?)
}
