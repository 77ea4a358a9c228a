//! Draws what a data set holds: a sheet of images, or a cloud of points.
//!
//! `cargo run --release -p sde-data --example sheet -- NAME OUT.png`, NAME one of `digits`, `mnist`,
//! `fashion-mnist`, `cifar10` or a synthetic set such as `checkerboard`. Data sets with files are looked for
//! in `datasets/`.

use std::path::Path;

use ndarray::Array2;
use sde_core::noise::{BatchNoise, Noise};
use sde_data::named::Named;
use sde_data::{Dataset, Images, Picture, Range, Result, Split, Toy, ToySet, digits};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_else(|| "digits".into());
    let out = arguments.next().unwrap_or_else(|| format!("{name}.png"));
    let picture = match name.as_str() {
        "digits" => sheet(&digits(Split::Train)?)?,
        _ if Toy::names().any(|known| known == name) => cloud(Toy::by_name(&name)?)?,
        _ => {
            let folder = Path::new("datasets").join(&name);
            sheet(&Named::by_name(&name)?.load(Split::Test, &folder, false, &mut |_| {})?)?
        }
    };
    picture.save(Path::new(&out))
}

/// The first 100 images, drawn at least 256 pixels wide in all.
fn sheet(images: &Images) -> Result<Picture> {
    let indices: Vec<usize> = (0..images.len().min(100)).collect();
    let noise = BatchNoise::new(Noise::new(0), 0, 0..indices.len() as u32);
    let zoom = 32usize.div_ceil(images.shape()[2]);
    Picture::sheet(&images.batch(&indices, &noise)?.x, Range::SIGNED, 10, zoom)
}

/// 200,000 points; a set of one dimension is drawn on the diagonal.
fn cloud(toy: Toy) -> Result<Picture> {
    let (n, last) = (200_000, toy.dim() - 1);
    let set = ToySet::new(toy, 0, Split::Train, n);
    let noise = BatchNoise::new(Noise::new(0), 0, 0..n as u32);
    let rows = set.batch(&(0..n).collect::<Vec<_>>(), &noise)?.x.to_vec2::<f32>()?;
    let points = Array2::from_shape_fn((n, 2), |(i, axis)| f64::from(rows[i][axis.min(last)]));
    let window = Range::new(-3.0, 3.0)?;
    Picture::cloud(points.view(), window, window, 300, 2)
}
