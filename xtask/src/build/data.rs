//! Data sets by name.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use sde_data::named::Named;
use sde_data::{
    Augmentation, Augmented, Dataset, Encoding, Images, Points, Range, Split, Tabular, Toy, ToySet, digits,
    read,
};
use serde::{Deserialize, Serialize};

use super::sampler::unknown;
use crate::exit::Failure;
use crate::output::Output;

/// A data set and how it is served.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// `digits`, `mnist`, `fashion-mnist`, `cifar10`, a synthetic set, a table or its stand-in, or `folder`, `npy`, `csv`, `parquet` with a path.
    pub name: String,
    /// Where it is, if not in its own folder under `datasets`; for `folder` and the formats the training data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// For `folder` and the formats: the test data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_path: Option<PathBuf>,
    /// Images: `signed` for [−1, 1], `unit` for [0, 1].
    pub range: String,
    /// Images: whether training adds uniform noise to the levels. Likelihood always does.
    pub dequantise: bool,
    /// Images: whether training mirrors at random.
    pub flips: bool,
    /// Images: random transformations that the network is told of, in training; where absent, none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub augment: Option<AugmentConfig>,
    /// CIFAR-10: whether a folder without all five training files will do.
    pub allow_partial: bool,
    /// Synthetic sets: the number of training points; as many are held out.
    pub points: usize,
}

/// How often and how strongly training images are transformed.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AugmentConfig {
    /// The probability that mirroring left and right comes into question; half of those are mirrored.
    pub mirror: f64,
    /// The probability of each other transformation.
    pub probability: f64,
    /// The standard deviation of the scale, in octaves.
    pub scale: f64,
    /// The standard deviation of the stretch, in octaves.
    pub stretch: f64,
    /// The standard deviation of the shift, in widths and heights.
    pub shift: f64,
}

impl AugmentConfig {
    fn law(self) -> Augmentation {
        let Self { mirror, probability, scale, stretch, shift } = self;
        Augmentation { mirror, probability, scale, stretch, shift }
    }
}

/// A data set, and what can be said of it besides.
pub struct Loaded {
    /// The examples.
    pub set: Arc<dyn Dataset>,
    /// The synthetic law, if it is one.
    pub toy: Option<Toy>,
}

/// What the data is read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Training: as configured.
    Training,
    /// Likelihood: dequantised, never mirrored.
    Likelihood,
    /// A bound of a chain: levels or dequantised, as configured; never mirrored.
    Bound,
}

impl DataConfig {
    /// A split; `seed` draws the points of a synthetic set.
    pub fn load(&self, split: Split, purpose: Use, seed: u64, output: Output) -> Result<Loaded> {
        let of_points =
            ["npy", "csv"].into_iter().chain(tables()).chain(Toy::names()).any(|name| name == self.name);
        if of_points && self.augment.is_some() {
            let text = format!("data.augment is for images; `{}` has points", self.name);
            return Err(Failure::Config(text).into());
        }
        if Toy::names().any(|name| name == self.name) {
            let set = ToySet::new(Toy::by_name(&self.name)?, seed, split, self.points);
            let toy = Some(Toy::by_name(&self.name)?);
            return Ok(Loaded { set: Arc::new(set), toy });
        }
        if let Some(table) = self.table(split, seed)? {
            return Ok(Loaded { set: Arc::new(table), toy: None });
        }
        let images = match self.name.as_str() {
            "folder" => read::folder::read_folder(self.file(split)?, read::Channels::Rgb, [255; 3])?.0,
            "parquet" => read::parquet::read_parquet(self.file(split)?, read::Channels::Rgb, [255; 3])?,
            "npy" => return points(&read::npy::read_npy(self.file(split)?)?.to_f64(), self.file(split)?),
            "csv" => {
                let table = read::csv::read_csv(self.file(split)?, read::csv::Header::Detect)?;
                return points(&table.values.into_dyn(), self.file(split)?);
            }
            name => named(name, split, self.path.as_deref(), self.allow_partial, output)?,
        };
        // What is held out is measured as it is.
        self.serve(
            images,
            purpose,
            self.augment.filter(|_| split == Split::Train && purpose == Use::Training),
        )
    }

    /// Rows of a table that goes by name, or of its stand-in.
    fn table(&self, split: Split, seed: u64) -> Result<Option<Points>> {
        let by_name = |set: &Tabular| self.name == set.name() || self.name == set.stand_in_name();
        let Some(set) = Tabular::ALL.into_iter().find(by_name) else { return Ok(None) };
        let tables = if self.name == set.name() {
            let folder = self.path.clone().unwrap_or_else(|| Path::new("datasets").join(set.name()));
            set.load(&folder)?
        } else {
            set.stand_in(seed, self.points)?
        };
        Ok(Some(match split {
            Split::Train => tables.train,
            Split::Test => tables.test,
        }))
    }

    /// The shape of one example and what its numbers are for a likelihood; without the data where its name says both.
    pub fn facts(&self, output: Output) -> Result<(Vec<usize>, Encoding)> {
        match self.published_shape() {
            Some(shape) => Ok((shape.to_vec(), Encoding::Dequantised { levels: 256, range: self.range()? })),
            None => {
                let set = self.load(Split::Test, Use::Likelihood, 0, output)?.set;
                Ok((set.shape().to_vec(), set.encoding()))
            }
        }
    }

    /// Whether its examples are pictures that are found by name or in a folder.
    pub fn is_pictures(&self) -> bool {
        self.name == "folder" || IMAGE_SETS.contains(&self.name.as_str())
    }

    /// The shape of one image of a set that is fetched by name.
    pub fn published_shape(&self) -> Option<[usize; 3]> {
        match self.name.as_str() {
            "cifar10" => Some([3, 32, 32]),
            "mnist" | "fashion-mnist" => Some([1, 28, 28]),
            _ => None,
        }
    }

    fn range(&self) -> Result<Range> {
        match self.range.as_str() {
            "signed" => Ok(Range::SIGNED),
            "unit" => Ok(Range::UNIT),
            other => Err(unknown("data.range", other, &["signed", "unit"]).into()),
        }
    }

    /// Images as the configuration wants them encoded.
    pub fn serve(&self, images: Images, purpose: Use, augment: Option<AugmentConfig>) -> Result<Loaded> {
        let range = self.range()?;
        let levels = images.encoding().levels().unwrap_or(256);
        let encoding = if self.dequantise || purpose == Use::Likelihood {
            Encoding::Dequantised { levels, range }
        } else {
            Encoding::Quantised { levels, range }
        };
        let flips = self.flips && purpose == Use::Training;
        let set: Arc<dyn Dataset> = Arc::new(images.with_encoding(encoding)?.with_flips(flips));
        let set = match augment {
            Some(augment) => Arc::new(Augmented::new(set, augment.law())?),
            None => set,
        };
        Ok(Loaded { set, toy: None })
    }

    fn file(&self, split: Split) -> Result<&Path> {
        let (key, path) = match split {
            Split::Train => ("data.path", &self.path),
            Split::Test => ("data.test_path", &self.test_path),
        };
        let text = || format!("data set `{}` needs a file: --set {key}=…", self.name);
        path.as_deref().ok_or_else(|| Failure::Config(text()).into())
    }
}

fn points(values: &ndarray::ArrayD<f64>, path: &Path) -> Result<Loaded> {
    let table = values.view().into_dimensionality::<ndarray::Ix2>().map_err(|_| {
        Failure::Data(format!("{}: expected an array [N, D], found {:?}", path.display(), values.shape()))
    })?;
    let points = Points::new(table).with_context(|| path.display().to_string())?;
    Ok(Loaded { set: Arc::new(points), toy: None })
}

/// Images by the name of their data set, as they are; `path` where they are not in their own folder.
pub fn named(
    name: &str,
    split: Split,
    path: Option<&Path>,
    allow_partial: bool,
    output: Output,
) -> Result<Images> {
    if name == "digits" {
        return Ok(digits(split)?);
    }
    let Ok(named) = Named::by_name(name) else {
        return Err(unknown("data set", name, &known()).into());
    };
    let folder = path.map_or_else(|| Path::new("datasets").join(named.name()), Path::to_owned);
    let mut told = String::new();
    let mut progress = |p: sde_data::named::Progress<'_>| {
        let line = format!("fetching {}", p.file);
        if told != line {
            output.say(&line);
            told = line;
        }
    };
    Ok(named.load(split, &folder, allow_partial, &mut progress)?)
}

/// The data sets of images that go by a name of their own.
pub const IMAGE_SETS: [&str; 4] = ["digits", "mnist", "fashion-mnist", "cifar10"];

/// Tables and their stand-ins.
fn tables() -> impl Iterator<Item = &'static str> {
    Tabular::ALL.into_iter().flat_map(|set| [set.name(), set.stand_in_name()])
}

fn known() -> Vec<&'static str> {
    let formats = ["digits", "mnist", "fashion-mnist", "cifar10", "folder", "parquet", "npy", "csv"];
    formats.into_iter().chain(tables()).chain(Toy::names()).collect()
}
