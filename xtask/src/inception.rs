//! The weights of FID's Inception network on this machine: where they are, and whether they are the published ones.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sde_nets::Weights;
use sde_nets::pretrained::inception::{of_features, read};
use sde_train::hash::weights_hash;

use crate::exit::Failure;
use crate::run::ROOT;

/// The name of the file below [`ROOT`].
const FILE: &str = "inception-2015-12-05.safetensors";

/// SHA-256 of the published weights without their layer of classes, in our layout.
pub const PUBLISHED: &str = "1187e428a82651e94409755c27b92440b550fcfcd0a628d7ad802b646edce2ed";

/// Where `weights inception` puts them.
pub fn place() -> PathBuf {
    Path::new(ROOT).join(FILE)
}

/// Weights, and the hash of those that features depend on.
pub struct Found {
    /// All of them.
    pub weights: Weights,
    /// SHA-256 in our layout, without the layer of classes: the same for every file they come from.
    pub sha256: String,
}

/// The published weights in a file of any layout.
///
/// # Errors
/// When it holds others, such as torchvision's.
pub fn verified(path: &Path) -> Result<Found> {
    let found = read_any(path)?;
    let sha256 = &found.sha256;
    if sha256 != PUBLISHED {
        let text = format!(
            "{}: a network of this shape, but not the weights of 2015-12-05 that FID is defined by (torchvision's are others): their hash is {sha256}, expected {PUBLISHED}",
            path.display()
        );
        return Err(Failure::Data(text).into());
    }
    Ok(found)
}

/// Weights in a file of any layout, and their hash.
fn read_any(path: &Path) -> Result<Found> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let weights = read(bytes).with_context(|| path.display().to_string())?;
    let sha256 = weights_hash(&of_features(&weights))?;
    Ok(Found { weights, sha256 })
}

/// The weights in the file named, or where `weights inception` put them; `other` ones only if that is allowed.
pub fn locate(file: Option<&Path>, other: bool) -> Result<Found> {
    match file {
        Some(file) if other => return read_any(file),
        Some(file) => return verified(file),
        None => {}
    }
    let place = place();
    if place.is_file() {
        return verified(&place);
    }
    let text = format!(
        "{}: no weights of the Inception network yet; `cargo xtask weights inception` fetches them, or with --from FILE converts a file that you have",
        place.display()
    );
    Err(Failure::Usage(text).into())
}
