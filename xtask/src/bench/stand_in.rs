//! Images made up where a preset's data is not on the disk: the same shape, random levels.

use anyhow::Result;
use ndarray::Array4;
use sde_core::noise::{Noise, Stream};
use sde_data::{Images, Split};

use crate::build::{DataConfig, Loaded, Use};
use crate::exit::Failure;
use crate::output::Output;

/// Enough for batches to differ.
const IMAGES: usize = 512;

/// Whether a preset's images must be made up: they would have to be fetched.
pub fn needed(data: &DataConfig) -> bool {
    let folder = data.path.clone().unwrap_or_else(|| std::path::Path::new("datasets").join(&data.name));
    data.published_shape().is_some()
        && !(folder.is_dir() && data.load(Split::Train, Use::Training, 0, Output { json: true }).is_ok())
}

/// Random images as the preset would serve its own.
pub fn images(data: &DataConfig) -> Result<Loaded> {
    let [c, h, w] = data
        .published_shape()
        .ok_or_else(|| Failure::Config(format!("data set `{}`: nothing stands in for it", data.name)))?;
    let mut draws = Noise::new(0).draws(Stream::User, 0, 0);
    let pixels = Array4::from_shape_simple_fn((IMAGES, c, h, w), || draws.next_u32() as u8);
    data.serve(Images::new(pixels, None)?, Use::Training, data.augment)
}
