//! Pictures to be measured, wherever they are: a data set by name, a folder of any sizes, an npz of samples. As bytes in three colours,
//! which networks of features take; grey is repeated.

use std::cell::OnceCell;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use ndarray::{Array3, Array4, ArrayView3, Axis, s};
use rayon::prelude::*;
use sde_core::noise::{Draws, Noise, Stream};
use sde_data::read::Channels;
use sde_data::read::folder::{decode_pictures, find_pictures};
use sde_data::read::npy::NpyArray;
use sde_data::read::npz::read_npz;
use sde_data::{Dataset, Encoding, Images, Split};
use sde_train::hash::sha256;
use serde_json::{Value, json};

use crate::build::data::{IMAGE_SETS, named};
use crate::build::sampler::unknown;
use crate::cli::FeatureArgs;
use crate::exit::Failure;
use crate::output::Output;

/// Pictures, in a fixed order.
#[derive(Clone)]
pub struct Gallery {
    /// What they are called in records.
    pub name: String,
    /// The split, of a data set by name.
    pub split: Option<Split>,
    kind: Kind,
    len: usize,
    /// The seed of random squares, of which one is cut out of every picture.
    squares: Option<Noise>,
    /// That of the pictures, once it was asked for.
    hash: OnceCell<String>,
}

#[derive(Clone)]
enum Kind {
    /// Of one size, with this many levels.
    Images(Images, u32),
    Files(Vec<PathBuf>),
}

/// What an npz may hold besides pictures.
pub enum Archive {
    /// Pictures.
    Pictures(Gallery),
    /// Anything else: statistics, or features.
    Other,
}

impl Gallery {
    /// The first `n` pictures of what a command line names: a data set, a folder, or an npz.
    pub fn open(source: &str, n: Option<usize>, args: &FeatureArgs, output: Output) -> Result<Self> {
        let place = (args.data.as_deref(), args.allow_partial);
        if let Some(gallery) = data_set(source, n, place, output)? {
            return Ok(gallery);
        }
        let path = Path::new(source);
        if path.is_dir() {
            return Self::of_folder(path, n, output);
        }
        if path.is_file() {
            return match Self::of_archive(path, n)? {
                Archive::Pictures(gallery) => Ok(gallery),
                Archive::Other => {
                    let text = format!(
                        "{source}: no pictures in it, which would be called arr_0, samples or images"
                    );
                    Err(Failure::Data(text).into())
                }
            };
        }
        let sets = IMAGE_SETS.join(", ");
        let text = format!(
            "{source}: no folder or file of this name (and no run, where one is meant), and none of the data sets {sets} (with :train or :test)"
        );
        Err(Failure::Usage(text).into())
    }

    /// Pictures as levels, `[N, C, H, W]` in u8, as they were drawn.
    pub fn of_levels(name: &str, levels: &Tensor, encoding: Encoding) -> Result<Self> {
        let (n, c, h, w) = levels.dims4()?;
        let pixels = Array4::from_shape_vec((n, c, h, w), levels.flatten_all()?.to_vec1()?)?;
        let kind = Kind::Images(Images::new(pixels, None)?, encoding.levels().unwrap_or(256));
        Ok(Self { name: name.into(), split: None, kind, len: n, squares: None, hash: OnceCell::new() })
    }

    /// The first `n` pictures of a data set.
    fn of_data(name: &str, images: Images, split: Split, n: Option<usize>) -> Result<Self> {
        let levels = images.encoding().levels().unwrap_or(256);
        let there = images.len();
        let kind = Kind::Images(images, levels);
        Self { name: name.into(), split: Some(split), kind, len: there, squares: None, hash: OnceCell::new() }
            .first(n)
    }

    /// The first `n` pictures in a folder.
    fn of_folder(path: &Path, n: Option<usize>, output: Output) -> Result<Self> {
        let (files, others) = find_pictures(path)?;
        if others > 0 {
            output.say(format!("{}: {others} files that are no pictures are passed over", path.display()));
        }
        let len = files.len();
        Self {
            name: path.display().to_string(),
            split: None,
            kind: Kind::Files(files),
            len,
            squares: None,
            hash: OnceCell::new(),
        }
        .first(n)
    }

    /// The pictures of an npz, as samplers write them: `arr_0`, `samples` or `images`, bytes `[N, H, W, C]`.
    pub fn of_archive(path: &Path, n: Option<usize>) -> Result<Archive> {
        let arrays = read_npz(path)?;
        let Some((key, array)) =
            ["arr_0", "samples", "images"].iter().find_map(|key| Some((key, arrays.get(*key)?)))
        else {
            return Ok(Archive::Other);
        };
        let wrong = || {
            let text = format!(
                "{}: `{key}` is expected to hold bytes [N, height, width, 1 or 3], found {} {:?}",
                path.display(),
                array.descr(),
                array.shape()
            );
            anyhow::Error::from(Failure::Data(text))
        };
        let NpyArray::U8(bytes) = array else { return Err(wrong()) };
        let rows = bytes.view().into_dimensionality::<ndarray::Ix4>().map_err(|_| wrong())?;
        if ![1, 3].contains(&rows.dim().3) {
            return Err(wrong());
        }
        let images = Images::new(rows.permuted_axes([0, 3, 1, 2]).to_owned(), None)
            .with_context(|| path.display().to_string())?;
        let len = images.len();
        let name = path.display().to_string();
        Ok(Archive::Pictures(
            Self {
                name,
                split: None,
                kind: Kind::Images(images, 256),
                len,
                squares: None,
                hash: OnceCell::new(),
            }
            .first(n)?,
        ))
    }

    fn first(self, n: Option<usize>) -> Result<Self> {
        match n {
            Some(n) if n > self.len => {
                let text = format!("{}: {} pictures, {n} were asked for", self.name, self.len);
                Err(Failure::Data(text).into())
            }
            n => Ok(Self { len: n.unwrap_or(self.len), ..self }),
        }
    }

    /// A random square of every picture instead of the whole, as high as the picture or as wide: what FID+ measures of panoramas.
    ///
    /// Reference: Zhang et al. 2023, arXiv 2303.17076, section 5.
    pub fn squares(self, seed: u64) -> Self {
        Self { squares: Some(Noise::new(seed)), ..self }
    }

    /// The number of pictures.
    pub fn len(&self) -> usize {
        self.len
    }

    /// What tells these pictures from others: their number, and a hash of their bytes or their files.
    pub fn identity(&self) -> Result<Value> {
        let squares = self.squares.map(|noise| noise.seed());
        Ok(json!({ "n": self.len, "sha256": self.sha256()?, "squares": squares }))
    }

    /// SHA-256 of the bytes of the pictures, or of the hashes of their files; read once.
    pub fn sha256(&self) -> Result<&str> {
        if let Some(hash) = self.hash.get() {
            return Ok(hash);
        }
        let hash = self.hashed()?;
        Ok(self.hash.get_or_init(|| hash))
    }

    fn hashed(&self) -> Result<String> {
        Ok(match &self.kind {
            Kind::Images(images, levels) => {
                let mut bytes = levels.to_le_bytes().to_vec();
                images.shape().iter().for_each(|n| bytes.extend((*n as u64).to_le_bytes()));
                for i in 0..self.len {
                    bytes.extend(images.pixels(i)?.iter());
                }
                sha256(&bytes)
            }
            Kind::Files(files) => {
                let of_file = |file: &PathBuf| {
                    let bytes =
                        std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
                    Ok(sha256(&bytes))
                };
                let hashes = files[..self.len].par_iter().map(of_file).collect::<Result<Vec<_>>>()?;
                sha256(hashes.concat().as_bytes())
            }
        })
    }

    /// Some pictures, `[b, 3, H, W]` in u8, as many tensors as sizes alternate.
    pub fn block(&self, range: Range<usize>) -> Result<Vec<Tensor>> {
        let first = range.start;
        let mut pictures: Vec<Array3<u8>> = match &self.kind {
            Kind::Images(images, levels) => {
                range.map(|i| Ok(spread(images.pixels(i)?, *levels))).collect::<Result<_>>()?
            }
            Kind::Files(files) => decode_pictures(&files[range], Channels::Rgb, [255; 3])?,
        };
        if let Some(noise) = self.squares {
            for (picture, i) in pictures.iter_mut().zip(first..) {
                *picture = square(picture, &mut noise.draws(Stream::Metric, 0, i as u32));
            }
        }
        pictures.chunk_by(|a, b| a.dim() == b.dim()).map(tensor).collect()
    }
}

/// A square cut out at random, of the picture's shorter side.
fn square(picture: &Array3<u8>, draws: &mut Draws) -> Array3<u8> {
    let (_, height, width) = picture.dim();
    let side = height.min(width);
    let [top, left] = [height, width].map(|length| draws.below((length - side + 1) as u64) as usize);
    picture.slice(s![.., top..top + side, left..left + side]).to_owned()
}

/// Levels as bytes: the highest becomes 255.
fn spread(levels: ArrayView3<'_, u8>, count: u32) -> Array3<u8> {
    let top = f64::from(count - 1);
    levels.mapv(|level| if count == 256 { level } else { (f64::from(level) * 255.0 / top).round() as u8 })
}

fn tensor(pictures: &[Array3<u8>]) -> Result<Tensor> {
    let (_, height, width) = pictures.first().map_or((0, 0, 0), Array3::dim);
    let mut bytes: Vec<u8> = Vec::with_capacity(pictures.len() * 3 * height * width);
    for picture in pictures {
        let colours = if picture.dim().0 == 1 { [0; 3] } else { [0, 1, 2] };
        colours.iter().for_each(|&c| bytes.extend(picture.index_axis(Axis(0), c).iter()));
    }
    Ok(Tensor::from_vec(bytes, (pictures.len(), 3, height, width), &Device::Cpu)?)
}

/// The pictures of a data set by name, `NAME` or `NAME:SPLIT`; none if no set of pictures is called so.
fn data_set(
    spec: &str,
    n: Option<usize>,
    (path, allow_partial): (Option<&Path>, bool),
    output: Output,
) -> Result<Option<Gallery>> {
    let (name, split) = spec.split_once(':').unwrap_or((spec, "train"));
    if !IMAGE_SETS.contains(&name) {
        return Ok(None);
    }
    let split = match split {
        "train" => Split::Train,
        "test" => Split::Test,
        other => return Err(unknown("split", other, &["train", "test"]).into()),
    };
    let images = named(name, split, path, allow_partial, output)?;
    Gallery::of_data(name, images, split, n).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array4;

    #[test]
    fn bytes_come_in_three_colours_and_over_the_whole_range() -> Result<()> {
        let images =
            Images::new(Array4::from_shape_fn((2, 1, 1, 2), |(i, _, _, x)| (8 * (i + x)) as u8), None)?;
        let encoding = Encoding::Quantised { levels: 17, range: sde_data::Range::SIGNED };
        let gallery = Gallery::of_data("digits", images.with_encoding(encoding)?, Split::Test, None)?;
        let blocks = gallery.block(0..2)?;
        assert_eq!(blocks.len(), 1);
        // 8 of 16 levels is 127.5, rounded away from zero.
        let bytes: Vec<u8> = blocks[0].flatten_all()?.to_vec1()?;
        assert_eq!(bytes, [0, 128, 0, 128, 0, 128, 128, 255, 128, 255, 128, 255]);
        Ok(())
    }

    #[test]
    fn pictures_of_changing_sizes_come_in_blocks_of_one() -> Result<()> {
        let folder = tempfile::tempdir()?;
        for (name, width) in [("a", 2), ("b", 2), ("c", 3), ("d", 2)] {
            image(&folder.path().join(name).with_extension("png"), width)?;
        }
        let gallery = Gallery::of_folder(folder.path(), None, Output { json: true })?;
        let sizes: Vec<_> = gallery.block(0..4)?.iter().map(|t| t.dims().to_vec()).collect();
        assert_eq!(sizes, [[2, 3, 1, 2], [1, 3, 1, 3], [1, 3, 1, 2]]);
        assert!(Gallery::of_folder(folder.path(), Some(5), Output { json: true }).is_err());
        Ok(())
    }

    #[test]
    fn squares_are_cut_anywhere_and_stay_the_same() -> Result<()> {
        let wide = Array4::from_shape_fn((400, 1, 2, 5), |(_, _, _, x)| x as u8);
        let gallery = || {
            Ok::<_, anyhow::Error>(
                Gallery::of_data("wide", Images::new(wide.clone(), None)?, Split::Test, None)?.squares(3),
            )
        };
        let blocks = gallery()?.block(0..400)?;
        assert_eq!(blocks[0].dims(), [400, 3, 2, 2]);
        let lefts =
            blocks[0].narrow(1, 0, 1)?.narrow(2, 0, 1)?.narrow(3, 0, 1)?.flatten_all()?.to_vec1::<u8>()?;
        for left in 0..4u8 {
            // Binomial of 400 and a quarter: standard deviation 8.7.
            let count = lefts.iter().filter(|&&l| l == left).count() as f64;
            assert!((count - 100.0).abs() < 5.0 * 8.7, "{left}: {count}");
        }
        let later = gallery()?.block(7..9)?[0].flatten_all()?.to_vec1::<u8>()?;
        assert_eq!(later, blocks[0].narrow(0, 7, 2)?.flatten_all()?.to_vec1::<u8>()?);
        assert_ne!(
            gallery()?.identity()?,
            Gallery::of_data("wide", Images::new(wide.clone(), None)?, Split::Test, None)?.identity()?
        );
        Ok(())
    }

    fn image(path: &Path, width: usize) -> Result<()> {
        let picture = sde_data::Picture::map(ndarray::Array2::zeros((1, width)).view(), 1)?;
        Ok(std::fs::write(path, picture.to_png()?)?)
    }
}
