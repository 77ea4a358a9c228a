//! What samples are measured against: statistics in a file, features in a file, or pictures.

use std::path::Path;

use anyhow::{Context, Result};
use candle_core::{DType, Device};
use sde_core::noise::host_tensor;
use sde_data::read::npz;
use sde_eval::{Allow, FeatureGaussian, FeatureNetwork, FeatureSet, Statistics};
use sde_train::hash::sha256;
use serde_json::{Value, json};

use super::metric::Metrics;
use crate::cli::EvalFid;
use crate::exit::Failure;
use crate::features::Features;
use crate::gallery::Gallery;
use crate::output::Output;

/// What score_sde calls its features.
const FEATURES: &str = "pool_3";

/// The other side of a comparison.
pub struct Reference {
    /// What it is called.
    pub name: String,
    /// Its normal law.
    pub law: FeatureGaussian,
    /// Its features, if they were wanted.
    pub kept: Option<FeatureSet>,
    /// Features of held-out data, if there is some.
    pub held_out: Option<FeatureSet>,
    /// The features as they were computed, if they were.
    pub computed: Option<Features>,
    record: Value,
}

impl Reference {
    /// Opens it, and computes features where there are none.
    pub fn open(
        args: &EvalFid,
        network: &dyn FeatureNetwork,
        metrics: &Metrics,
        output: Output,
    ) -> Result<Self> {
        let path = Path::new(&args.reference);
        if path.extension().is_some_and(|e| e == "npz") && path.is_file() {
            let holds = |name: &str, names: &[String]| names.iter().any(|n| n == name);
            let names = npz::names(path)?;
            if holds("mu", &names) {
                return Self::of_statistics(args, path, network, metrics);
            }
            if holds(FEATURES, &names) {
                return Self::of_features(args, path, network, metrics);
            }
        }
        let gallery = Gallery::open(&args.reference, args.ref_n, &args.features, output)?;
        metrics.check_pictures(gallery.len(), "pictures of the reference", network.dim(), args)?;
        let held_out = match &args.held_out {
            Some(source) => Some(Gallery::open(source, None, &args.features, output)?),
            None => None,
        };
        let found = Features::of(network, &gallery, args.features.feature_batch, output)?;
        let statistics = Statistics::new(&found.moments()?, found.space(), &found.source, &found.split)?;
        let kept = if metrics.likes_reference() { Some(found.kept()?) } else { None };
        let held_out = match held_out {
            Some(gallery) if found.are_of(network, &gallery)? => Some(found.kept()?),
            Some(gallery) => {
                let others = Features::of(network, &gallery, args.features.feature_batch, output)?;
                let kept = others.kept()?;
                others.remove()?;
                Some(kept)
            }
            None => None,
        };
        let record = json!({
            "source": found.source,
            "split": found.split,
            "n": found.len(),
            "pictures_sha256": found.pictures_sha256(),
        });
        let name = match found.split.as_str() {
            "" => found.source.clone(),
            split => format!("{}:{split}", found.source),
        };
        let law = FeatureGaussian::new(&statistics)?;
        Ok(Self { name, law, kept, held_out, record, computed: Some(found) })
    }

    fn of_statistics(
        args: &EvalFid,
        path: &Path,
        network: &dyn FeatureNetwork,
        metrics: &Metrics,
    ) -> Result<Self> {
        let statistics = Statistics::read(path)?;
        refuse_of_pictures(args, path)?;
        if !metrics.names_of_kept().is_empty() {
            let text = format!(
                "{}: {} needs the pictures of the reference, or their features; statistics are enough for fid and fid-infinity",
                path.display(),
                metrics.names_of_kept().join(", ")
            );
            return Err(Failure::Usage(text).into());
        }
        match statistics.about() {
            Some(about) => {
                about.space.check_same(network.space()).with_context(|| path.display().to_string())?
            }
            None => assume(args, path)?,
        }
        check_dim(path, statistics.dim(), network.dim())?;
        if let Some(n) = statistics.about().and_then(|about| about.n) {
            metrics.check_pictures(n, "pictures behind the reference", network.dim(), args)?;
        }
        let hash = sha256(&std::fs::read(path)?);
        let record =
            json!({ "statistics": path.display().to_string(), "sha256": hash, "about": statistics.about() });
        let law = FeatureGaussian::new(&statistics)?;
        Ok(Self { name: path.display().to_string(), law, kept: None, held_out: None, record, computed: None })
    }

    fn of_features(
        args: &EvalFid,
        path: &Path,
        network: &dyn FeatureNetwork,
        metrics: &Metrics,
    ) -> Result<Self> {
        assume(args, path)?;
        refuse_of_pictures(args, path)?;
        let values = npz::read_npz(path)?[FEATURES].to_f64();
        let dims = values.shape().to_vec();
        let tensor = host_tensor(values.into_iter().collect(), &dims, DType::F64, &Device::Cpu)?;
        let features = FeatureSet::new(network.space().clone(), &tensor)?;
        metrics.check_pictures(features.len(), "features of the reference", network.dim(), args)?;
        check_dim(path, features.dim(), network.dim())?;
        let hash = sha256(&std::fs::read(path)?);
        let record = json!({ "features": path.display().to_string(), "sha256": hash, "n": features.len() });
        let law = FeatureGaussian::of_features(&features)?;
        Ok(Self {
            name: path.display().to_string(),
            law,
            kept: Some(features),
            held_out: None,
            record,
            computed: None,
        })
    }

    /// What may be compared with it.
    pub fn allow(&self, args: &EvalFid) -> Allow {
        Allow { small: args.allow_small, unknown_space: args.assume_same_features }
    }

    /// What a record says of it.
    pub fn record(&self) -> Value {
        self.record.clone()
    }

    /// Removes what was computed for it.
    pub fn remove(self) -> Result<()> {
        self.computed.map_or(Ok(()), Features::remove)
    }
}

/// Features of another layer are no reference.
fn check_dim(path: &Path, found: usize, expected: usize) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    let text = format!(
        "{}: of features of {found} entries, and these have {expected}; name the layer with --dims",
        path.display()
    );
    Err(Failure::Data(text).into())
}

/// Options of pictures say nothing of what was computed of them before.
fn refuse_of_pictures(args: &EvalFid, path: &Path) -> Result<()> {
    let given = [("--ref-n", args.ref_n.is_some()), ("--held-out", args.held_out.is_some())];
    match given.iter().find(|(_, given)| *given) {
        Some((option, _)) => {
            let text =
                format!("{option} goes with pictures of the reference, and {} holds none", path.display());
            Err(Failure::Usage(text).into())
        }
        None => Ok(()),
    }
}

/// Of files that do not say it, somebody has to.
fn assume(args: &EvalFid, path: &Path) -> Result<()> {
    if args.assume_same_features {
        return Ok(());
    }
    let text = format!(
        "{}: it does not say of which features it is (network, layer, resizing, input range); if they are those of --dims {} --resize {} --range {}, say --assume-same-features",
        path.display(),
        args.features.dims,
        args.features.resize,
        args.features.range
    );
    Err(Failure::Usage(text).into())
}
