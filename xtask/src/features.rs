//! Features of pictures: computed once, kept in f32 on the disk while they are needed, so that work that is cut off goes on where it
//! stood, and no more than a block of them is in memory unless a metric wants them all.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use anyhow::Result;
use candle_core::Tensor;
use sde_eval::inception::{
    INCEPTION, Inception, InceptionFeatures, InceptionInput, InceptionLayer, InputRange,
};
use sde_eval::{FeatureNetwork, FeatureSet, FeatureSpace, GroupedMoments, Moments};
use sde_train::hash::{sha256, weights_hash};
use serde_json::{Value, json};

use crate::build::sampler::unknown;
use crate::cli::FeatureArgs;
use crate::device;
use crate::exit::Failure;
use crate::gallery::Gallery;
use crate::inception;
use crate::output::Output;
use crate::run::ROOT;
use crate::signals;
use crate::stash::{Entries, Stash};

/// Features read together.
const BLOCK: usize = 1024;
const LAYERS: &[&str] = &["64", "192", "768", "2048", "spatial"];

/// The features of the options, and with `classes` the logits of the same network, whose layer of classes their hash includes.
pub fn networks(
    args: &FeatureArgs,
    classes: bool,
    output: Output,
) -> Result<(InceptionFeatures, Option<InceptionFeatures>)> {
    if !LAYERS.contains(&args.dims.as_str()) {
        return Err(unknown("layer of features", &args.dims, LAYERS).into());
    }
    let input = input(args)?;
    let device = device::select(&args.device.name, output)?;
    let found = inception::locate(args.weights.as_deref(), args.other_weights)?;
    let network = Inception::new(&found.weights, &device)?;
    if classes && network.classes().is_none() {
        let text = "is: these weights have no layer of classes; pytorch-fid's file has it: `weights inception --from FILE`";
        return Err(Failure::Usage(text.into()).into());
    }
    let logits = if classes {
        let sha256 = weights_hash(&found.weights)?;
        Some(InceptionFeatures::new(network.clone(), &sha256, InceptionLayer::Logits, input)?)
    } else {
        None
    };
    let layer = args.dims.parse::<InceptionLayer>()?;
    Ok((InceptionFeatures::new(network, &found.sha256, layer, input)?, logits))
}

fn input(args: &FeatureArgs) -> Result<InceptionInput> {
    let range = match args.range.as_str() {
        "pytorch" => InputRange::Symmetric,
        "tf" => InputRange::Tf,
        other => return Err(unknown("input range", other, &["pytorch", "tf"]).into()),
    };
    Ok(InceptionInput { resize: args.resize.parse()?, range })
}

/// Features of some pictures.
pub struct Features {
    stash: Stash,
    identity: Value,
    space: FeatureSpace,
    dim: usize,
    /// Of what.
    pub source: String,
    /// Of which part of it.
    pub split: String,
}

/// Where features of this name are kept while they are needed.
fn place(identity: &Value) -> PathBuf {
    let hash = sha256(identity.to_string().as_bytes());
    Path::new(ROOT).join("features").join(&hash[..16])
}

impl Features {
    /// Computes the features of all pictures, `batch` at a time; goes on where an earlier call was cut off.
    pub fn of(network: &dyn FeatureNetwork, gallery: &Gallery, batch: usize, output: Output) -> Result<Self> {
        let identity = Self::identity_of(network, gallery)?;
        let stash = Stash::open(&place(&identity), &identity, Entries::Single, &[network.dim()])?;
        let mut features = Self {
            stash,
            identity,
            space: network.space().clone(),
            dim: network.dim(),
            source: gallery.name.clone(),
            split: gallery.split.map_or("", |split| split.name()).into(),
        };
        features.complete(network, gallery, batch, output)?;
        Ok(features)
    }

    fn identity_of(network: &dyn FeatureNetwork, gallery: &Gallery) -> Result<Value> {
        let mut identity = gallery.identity()?;
        identity["space"] = json!(network.space());
        Ok(identity)
    }

    /// Whether they are the features of these pictures.
    pub fn are_of(&self, network: &dyn FeatureNetwork, gallery: &Gallery) -> Result<bool> {
        Ok(self.identity == Self::identity_of(network, gallery)?)
    }

    /// SHA-256 of the pictures.
    pub fn pictures_sha256(&self) -> &Value {
        &self.identity["sha256"]
    }

    fn complete(
        &mut self,
        network: &dyn FeatureNetwork,
        gallery: &Gallery,
        batch: usize,
        output: Output,
    ) -> Result<()> {
        let (there, n) = (self.stash.len(), gallery.len());
        if (1..n).contains(&there) {
            output.say(format!("{}: going on after {there} of {n} features", gallery.name));
        }
        let stop = signals::stop_flag()?;
        let bar = output.bar(n as u64, "features");
        for first in (there..n).step_by(batch) {
            bar.set_position(first as u64);
            if stop.load(Ordering::Relaxed) {
                bar.finish_and_clear();
                let text = format!("{first} of {n} features are safe; the same command goes on");
                return Err(Failure::Stopped(text).into());
            }
            let blocks = gallery.block(first..n.min(first + batch))?;
            let found =
                blocks.iter().map(|images| network.features(images)).collect::<Result<Vec<_>, _>>()?;
            self.stash.append(&Tensor::cat(&found, 0)?, &[])?;
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// What they are features of.
    pub fn space(&self) -> &FeatureSpace {
        &self.space
    }

    /// Entries of each.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// All of them in memory, as a tensor.
    pub fn rows(&self) -> Result<Tensor> {
        self.stash.rows()
    }

    /// Their number.
    pub fn len(&self) -> usize {
        self.stash.len()
    }

    fn each_block(&self, mut take: impl FnMut(&Tensor) -> sde_eval::Result<()>) -> Result<()> {
        for first in (0..self.len()).step_by(BLOCK) {
            take(&self.stash.block(first..self.len().min(first + BLOCK))?)?;
        }
        Ok(())
    }

    /// Their moments.
    pub fn moments(&self) -> Result<Moments> {
        let mut moments = Moments::new(self.dim);
        self.each_block(|block| moments.push(block))?;
        Ok(moments)
    }

    /// The moments of disjoint groups of them.
    pub fn grouped(&self, groups: usize) -> Result<GroupedMoments> {
        let mut moments = GroupedMoments::new(self.dim, groups)?;
        self.each_block(|block| moments.push(block))?;
        Ok(moments)
    }

    /// All of them in memory.
    pub fn kept(&self) -> Result<FeatureSet> {
        Ok(FeatureSet::new(self.space.clone(), &self.stash.rows()?)?)
    }

    /// Removes them from the disk, once what was wanted of them stands elsewhere.
    pub fn remove(self) -> Result<()> {
        self.stash.remove()
    }
}

/// The space in words.
pub fn words(space: &FeatureSpace) -> String {
    let name = if space.network == INCEPTION { "Inception" } else { &space.network };
    format!("{name} {}, {}, {}", space.layer, space.resize, space.range)
}
