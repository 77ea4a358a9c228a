//! What samples are measured against: statistics in a file, features in a file, or pictures.

use std::path::Path;

use anyhow::{Context, Result};
use candle_core::{DType, Device};
use sde_core::noise::host_tensor;
use sde_data::read::npz::read_npz;
use sde_eval::{Allow, FeatureGaussian, FeatureNetwork, FeatureSet, Statistics};
use sde_train::hash::sha256;
use serde_json::{Value, json};

use super::measure::Metrics;
use crate::cli::EvalFid;
use crate::exit::Failure;
use crate::features::Features;
use crate::gallery::Gallery;
use crate::output::Output;

/// The other side of a comparison.
pub struct Reference {
    /// What it is called.
    pub name: String,
    /// Its normal law.
    pub law: FeatureGaussian,
    /// Its features, if they were wanted.
    pub kept: Option<FeatureSet>,
    record: Value,
    computed: Option<Features>,
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
            let arrays = read_npz(path)?;
            if arrays.contains_key("mu") {
                return Self::of_statistics(args, path, network, metrics);
            }
            if let Some(features) = arrays.get("pool_3") {
                let values = features.to_f64();
                let dims = values.shape().to_vec();
                let tensor = host_tensor(values.into_iter().collect(), &dims, DType::F64, &Device::Cpu)?;
                return Self::of_array(args, path, FeatureSet::new(network.space().clone(), &tensor)?);
            }
        }
        let gallery = Gallery::open(&args.reference, args.ref_n, &args.features, output)?;
        let found = Features::of(network, &gallery, args.features.feature_batch, output)?;
        let statistics = Statistics::new(&found.moments()?, found.space(), &found.source, &found.split)?;
        let kept = if metrics.keep_features() { Some(found.kept()?) } else { None };
        let record = json!({ "source": found.source, "split": found.split, "n": found.len() });
        let name = if found.split.is_empty() || found.source.contains(':') {
            found.source.clone()
        } else {
            format!("{}:{}", found.source, found.split)
        };
        Ok(Self { name, law: FeatureGaussian::new(&statistics)?, kept, record, computed: Some(found) })
    }

    fn of_statistics(
        args: &EvalFid,
        path: &Path,
        network: &dyn FeatureNetwork,
        metrics: &Metrics,
    ) -> Result<Self> {
        let statistics = Statistics::read(path)?;
        if metrics.keep_features() {
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
        if statistics.dim() != network.dim() {
            let text = format!(
                "{}: of features of {} entries, and these have {}; name the layer with --dims",
                path.display(),
                statistics.dim(),
                network.dim()
            );
            return Err(Failure::Data(text).into());
        }
        let hash = sha256(&std::fs::read(path)?);
        let record =
            json!({ "statistics": path.display().to_string(), "sha256": hash, "about": statistics.about() });
        let law = FeatureGaussian::new(&statistics)?;
        Ok(Self { name: path.display().to_string(), law, kept: None, record, computed: None })
    }

    fn of_array(args: &EvalFid, path: &Path, features: FeatureSet) -> Result<Self> {
        assume(args, path)?;
        let hash = sha256(&std::fs::read(path)?);
        let record = json!({ "features": path.display().to_string(), "sha256": hash, "n": features.len() });
        let law = FeatureGaussian::of_features(&features)?;
        Ok(Self { name: path.display().to_string(), law, kept: Some(features), record, computed: None })
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
