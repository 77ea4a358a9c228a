//! How images come to 299×299, and what their levels become: three resizings and two ranges that the field's tools have.
//!
//! All are separable, `y[i] = Σ_k w_ik x[first_i + k]` along rows, then along columns, with p = (i + ½) s − ½ and
//! s the size before over the size after:
//!
//! ```text
//! bilinear             between ⌊p⌋ and ⌊p⌋ + 1, p not below 0
//! bilinear-tf1         the same with p = i s
//! bicubic-antialiased  h((k − p) / max(s, 1)) over the pixels inside, divided by their sum; h is Keys' kernel with a = −½
//! ```
//!
//! The last is cut to [0, 255], since it overshoots. Levels are never rounded in between.
//!
//! Reference: Keys 1981, equation 4; Parmar, Zhang, Zhu 2022, arXiv 2104.11222, on what a resizing does to the FID.

use std::str::FromStr;

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use crate::{Error, Result};

/// The size of the network's images.
pub(super) const SIZE: usize = 299;

/// How images come to the network's size. Features by different ones cannot be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resize {
    /// Bilinear between pixel centres, without antialiasing: pytorch-fid's, which is PyTorch's with `align_corners=False`.
    Bilinear,
    /// TensorFlow 1's bilinear, which has no pixel centres: that of torch-fidelity, of NVIDIA's tools, and of clean-fid's
    /// `legacy_tensorflow`.
    BilinearTf1,
    /// Bicubic with antialiasing, in floating point: clean-fid's `clean`.
    BicubicAntialiased,
}

/// What levels 0 … 255 become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputRange {
    /// `2x/255-1`, pytorch-fid's: from −1 to 1.
    Symmetric,
    /// `(x-128)/128`, the published graph's: from −1 to 127/128.
    Tf,
}

/// The thing of this name, among those that there are.
fn by_name<T: Copy>(what: &'static str, all: &[(&str, T)], name: &str) -> Result<T> {
    all.iter().find(|(known, _)| *known == name).map(|&(_, found)| found).ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|&(known, _)| known).collect();
        Error::mismatch(what, names.join(", "), name)
    })
}

impl Resize {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Bilinear, Self::BilinearTf1, Self::BicubicAntialiased];

    /// Its name, as in a feature space.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bilinear => "bilinear",
            Self::BilinearTf1 => "bilinear-tf1",
            Self::BicubicAntialiased => "bicubic-antialiased",
        }
    }

    /// What each entry of the result is made of.
    fn taps(self, from: usize, to: usize) -> Vec<Taps> {
        let scale = from as f64 / to as f64;
        let between = |p: f64| {
            let first = (p as usize).min(from - 1);
            let part = if first + 1 < from { p - first as f64 } else { 0.0 };
            Taps { first, weights: vec![(1.0 - part) as f32, part as f32] }.inside(from)
        };
        let taps = |i: usize| {
            let i = i as f64;
            match self {
                Self::Bilinear => between(((i + 0.5) * scale - 0.5).max(0.0)),
                Self::BilinearTf1 => between(i * scale),
                Self::BicubicAntialiased => antialiased((i + 0.5) * scale, scale.max(1.0), from),
            }
        };
        (0..to).map(taps).collect()
    }
}

impl FromStr for Resize {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        by_name("resizing", &Self::ALL.map(|resize| (resize.name(), resize)), name)
    }
}

impl InputRange {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Symmetric, Self::Tf];

    /// Its name, as in a feature space.
    pub fn name(self) -> &'static str {
        match self {
            Self::Symmetric => "2x/255-1",
            Self::Tf => "(x-128)/128",
        }
    }

    /// A level x becomes `scale · x + shift`.
    fn affine(self) -> [f32; 2] {
        match self {
            Self::Symmetric => [2.0 / 255.0, -1.0],
            Self::Tf => [1.0 / 128.0, -1.0],
        }
    }
}

impl FromStr for InputRange {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        by_name("input range", &Self::ALL.map(|range| (range.name(), range)), name)
    }
}

/// The weights of neighbours, from the first one on.
struct Taps {
    first: usize,
    weights: Vec<f32>,
}

impl Taps {
    /// Without neighbours beyond the last.
    fn inside(mut self, size: usize) -> Self {
        self.weights.truncate(size - self.first);
        self
    }
}

/// Keys' kernel, made as wide as `scale` says, around `centre`; pixel k has its own centre at k + ½.
fn antialiased(centre: f64, scale: f64, size: usize) -> Taps {
    let support = 2.0 * scale;
    let first = (centre - support + 0.5).max(0.0) as usize;
    let last = ((centre + support + 0.5) as usize).min(size);
    let weights: Vec<f64> = (first..last).map(|k| keys((k as f64 + 0.5 - centre) / scale)).collect();
    let sum: f64 = weights.iter().sum();
    Taps { first, weights: weights.into_iter().map(|w| (w / sum) as f32).collect() }
}

/// Keys' cubic with a = −½.
fn keys(x: f64) -> f64 {
    let (a, x) = (-0.5, x.abs());
    match x {
        0.0..1.0 => ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0,
        1.0..2.0 => a * (((x - 5.0) * x + 8.0) * x - 4.0),
        _ => 0.0,
    }
}

/// Images for the network.
///
/// # Shapes
/// `images` `[B, C, H, W]` in u8, C 3, or 1 for grey, which becomes three equal ones; the output is `[B, 3, size, size]`.
pub(super) fn prepared(images: &Tensor, size: usize, resize: Resize, range: InputRange) -> Result<Tensor> {
    let &[batch, channels, height, width] = images.dims() else {
        return Err(Error::mismatch("images", "[B, C, H, W]", format!("{:?}", images.dims())));
    };
    if images.dtype() != DType::U8 || !matches!(channels, 1 | 3) || height * width == 0 {
        let found = format!("{:?} {:?}", images.dtype(), images.dims());
        return Err(Error::mismatch("images", "levels in u8, one channel or three, and pixels", found));
    }
    let levels = images.to_device(&Device::Cpu)?.flatten_all()?.to_vec1::<u8>()?;
    let (across, down) = (resize.taps(width, size), resize.taps(height, size));
    let mut out = vec![0f32; batch * channels * size * size];
    out.par_chunks_mut(size * size).zip(levels.par_chunks(height * width)).for_each(|(out, plane)| {
        resized(plane, width, [&across, &down], out);
        let [scale, shift] = range.affine();
        let cut = resize == Resize::BicubicAntialiased;
        for v in out {
            let level = if cut { v.clamp(0.0, 255.0) } else { *v };
            *v = level * scale + shift;
        }
    });
    let out = Tensor::from_vec(out, (batch, channels, size, size), &Device::Cpu)?;
    Ok(if channels == 3 { out } else { out.broadcast_as((batch, 3, size, size))?.contiguous()? })
}

/// One channel: first along rows, then along columns.
fn resized(plane: &[u8], width: usize, [across, down]: [&[Taps]; 2], out: &mut [f32]) {
    let size = across.len();
    let mut rows = vec![0f32; plane.len() / width * size];
    let mut row = vec![0f32; width];
    for (levels, out) in plane.chunks_exact(width).zip(rows.chunks_exact_mut(size)) {
        row.iter_mut().zip(levels).for_each(|(to, &level)| *to = f32::from(level));
        for (out, taps) in out.iter_mut().zip(across) {
            *out = row[taps.first..].iter().zip(&taps.weights).map(|(v, w)| v * w).sum();
        }
    }
    for (out, taps) in out.chunks_exact_mut(size).zip(down) {
        out.fill(0.0);
        for (row, &weight) in rows.chunks_exact(size).skip(taps.first).zip(&taps.weights) {
            out.iter_mut().zip(row).for_each(|(sum, &v)| *sum += weight * v);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use sde_data::read::npz::read_npz;

    use super::*;

    /// One channel of levels, resized and back in levels.
    fn levels(image: Vec<u8>, [height, width]: [usize; 2], size: usize, resize: Resize) -> Result<Vec<f32>> {
        let image = Tensor::from_vec(image, (1, 1, height, width), &Device::Cpu)?;
        let values = prepared(&image, size, resize, InputRange::Symmetric)?.get(0)?.get(0)?;
        Ok(values.affine(127.5, 127.5)?.flatten_all()?.to_vec1()?)
    }

    #[test]
    fn reproduces_other_programs() -> Result<()> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/inception_resize.npz");
        let arrays = read_npz(&path)?;
        for case in 0..3 {
            let images = arrays[&format!("{case}.images")].to_f64();
            let (shape, images) = (images.shape().to_vec(), images.iter().map(|&v| v as u8).collect());
            let images = Tensor::from_vec(images, shape, &Device::Cpu)?;
            for resize in Resize::ALL {
                let expected = arrays[&format!("{case}.{}", resize.name())].to_f64();
                let size = expected.shape()[3];
                let found = prepared(&images, size, resize, InputRange::Tf)?.flatten_all()?;
                // Levels up to 255 in f32.
                for (found, expected) in found.to_vec1::<f32>()?.iter().zip(&expected) {
                    let error = (f64::from(*found) * 128.0 + 128.0 - expected).abs();
                    assert!(error < 1e-4, "{case} {}: {error:e}", resize.name());
                }
            }
        }
        Ok(())
    }

    #[test]
    fn what_all_have_in_common() -> Result<()> {
        for resize in Resize::ALL {
            let constant = levels(vec![77; 15], [3, 5], 11, resize)?;
            assert!(constant.iter().all(|v| (v - 77.0).abs() < 1e-4), "{}", resize.name());
            let same: Vec<u8> = (0..49).map(|i| (i * 5) as u8).collect();
            let kept = levels(same.clone(), [7, 7], 7, resize)?;
            let error = kept.iter().zip(&same).fold(0f32, |m, (a, &b)| m.max((a - f32::from(b)).abs()));
            assert!(error < 1e-4, "{}: {error}", resize.name());
            // A ramp stays one away from its ends, from −½ or from 0 on.
            let (size, width) = (40usize, 10usize);
            let ramp = levels((0..width).map(|i| 20 * i as u8).collect(), [1, width], size, resize)?;
            for (i, found) in ramp[..size].iter().enumerate().take(28).skip(12) {
                let centre = if resize == Resize::BilinearTf1 { 0.0 } else { 0.5 };
                let expected = 20.0 * ((i as f32 + centre) / 4.0 - centre);
                assert!((found - expected).abs() < 1e-3, "{} {i}: {found} {expected}", resize.name());
            }
        }
        Ok(())
    }

    #[test]
    fn an_overshoot_is_cut_and_an_unknown_name_told() -> Result<()> {
        let edge = levels(vec![0, 0, 255, 255], [1, 4], 16, Resize::BicubicAntialiased)?;
        assert!(edge.iter().all(|v| (-1e-4..255.001).contains(v)), "{edge:?}");
        let error = "lanczos".parse::<Resize>().map_err(|e| e.to_string());
        assert!(error.is_err_and(|e| e.contains("bilinear-tf1") && e.contains("lanczos")));
        for range in InputRange::ALL {
            assert_eq!(range.name().parse::<InputRange>()?, range);
        }
        Ok(())
    }
}
