//! Checkpoints that are either whole or not there.
//!
//! A checkpoint is a directory `step-N` with tensor files and a `manifest.json` of their lengths and SHA-256 hashes.
//! It is written as `step-N.tmp-ATTEMPT`, manifest last, every file and the directory forced to the disk, and then
//! renamed: whatever happens in between, no `step-N` is half a checkpoint. The latest checkpoint is that of the
//! highest N whose files all verify. Equal states give equal bytes: there is no date and no path in any file.
//!
//! ```text
//! step-40/manifest.json          {"manifest": {…}, "sha256": hash of the manifest's compact JSON}
//! step-40/weights.safetensors    …
//! ```

mod keep;
mod tensors;

pub use keep::Keep;
pub(crate) use tensors::{decode, encode, same_layout};

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use sde_nets::Weights;
use serde::{Deserialize, Serialize};

use crate::hash::sha256;
use crate::{Error, Result, durable};

const FORMAT: u32 = 1;
const MANIFEST: &str = "manifest.json";
/// No manifest is near this large; a longer one is not read.
const LONGEST_MANIFEST: u64 = 1 << 20;

/// What a checkpoint is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// The seed of the run.
    pub seed: u64,
    /// The SHA-256 of the configuration, as far as it bears on the result.
    pub config_sha256: String,
    /// The version of the code.
    pub code: String,
}

/// What is known of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256.
    pub sha256: String,
}

/// The table of contents of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The version of this layout.
    pub format: u32,
    /// The number of updates made.
    pub step: u64,
    /// What the checkpoint is of.
    pub origin: Origin,
    /// The files, by name.
    pub files: BTreeMap<String, FileRecord>,
}

/// The manifest with its own hash, so that a flipped bit in it is found as well.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    manifest: Manifest,
    sha256: String,
}

impl Manifest {
    fn to_json(&self) -> Vec<u8> {
        // Strings and integers under string keys: serialisation has no way to fail.
        let text = serde_json::to_vec(self).unwrap_or_default();
        let signed = Signed { manifest: self.clone(), sha256: sha256(&text) };
        let mut json = serde_json::to_vec_pretty(&signed).unwrap_or_default();
        json.push(b'\n');
        json
    }

    fn read(file: &Path) -> Result<Self> {
        let json = read_file(file, None)?;
        let signed: Signed =
            serde_json::from_slice(&json).map_err(|error| Error::corrupt(file, error.to_string()))?;
        let manifest = signed.manifest;
        if manifest.format != FORMAT {
            let why = format!("checkpoint format {}, this program reads {FORMAT}", manifest.format);
            return Err(Error::corrupt(file, why));
        }
        // Byte for byte what would be written: that covers the hash, and any whitespace too.
        if manifest.to_json() != json {
            return Err(Error::corrupt(file, "the manifest does not match its own hash"));
        }
        Ok(manifest)
    }
}

/// A checkpoint whose files have all been verified.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    path: PathBuf,
    manifest: Manifest,
}

impl Checkpoint {
    /// Verifies the checkpoint in a directory: nothing missing, nothing else there, every length and hash as written.
    ///
    /// # Errors
    /// [`Error::Corrupt`] naming the file, [`Error::Io`].
    pub fn open(path: &Path) -> Result<Self> {
        let file = path.join(MANIFEST);
        let manifest = Manifest::read(&file)?;
        if path.file_name().and_then(|name| name.to_str()).and_then(step_of) != Some(manifest.step) {
            return Err(Error::corrupt(
                &file,
                format!("step {} in a directory of another name", manifest.step),
            ));
        }
        let expected: BTreeSet<&str> = manifest.files.keys().map(String::as_str).chain([MANIFEST]).collect();
        let found = durable::names(path)?;
        let found: BTreeSet<&str> = found.iter().map(String::as_str).collect();
        if let Some(name) = expected.difference(&found).next() {
            return Err(Error::corrupt(&path.join(name), "the file is missing"));
        }
        if let Some(name) = found.difference(&expected).next() {
            return Err(Error::corrupt(
                &path.join(name),
                "the file does not belong to the checkpoint; move it away",
            ));
        }
        let checkpoint = Self { path: path.to_owned(), manifest };
        for name in checkpoint.manifest.files.keys() {
            checkpoint.read(name)?;
        }
        Ok(checkpoint)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The contents of a file, verified again: the bytes returned are those that were hashed.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        let file = self.path.join(name);
        let Some(record) = self.manifest.files.get(name) else {
            let known = self.manifest.files.keys().cloned().collect::<Vec<_>>().join(", ");
            return Err(Error::corrupt(&file, format!("not in the checkpoint, which has {known}")));
        };
        let contents = read_file(&file, Some(record.bytes))?;
        let found = sha256(&contents);
        if found != record.sha256 {
            return Err(Error::corrupt(&file, format!("SHA-256 is {found}, written was {}", record.sha256)));
        }
        Ok(contents)
    }

    /// The tensors of a file: of safe layout, and all finite.
    pub fn weights(&self, name: &str) -> Result<Weights> {
        decode(&self.path.join(name), &self.read(name)?)
    }
}

/// Reads a file of an expected length, or a manifest, without trusting it to be small.
fn read_file(file: &Path, expected: Option<u64>) -> Result<Vec<u8>> {
    let found = fs::metadata(file).map_err(Error::io("read", file))?.len();
    match expected {
        Some(expected) if found != expected => {
            Err(Error::corrupt(file, format!("{found} bytes, written were {expected}")))
        }
        None if found > LONGEST_MANIFEST => {
            Err(Error::corrupt(file, format!("{found} bytes, a manifest has {LONGEST_MANIFEST} at most")))
        }
        _ => fs::read(file).map_err(Error::io("read", file)),
    }
}

/// Writes the checkpoint `step-N` below `root` and returns its path. The files are made one at a time, so that only
/// one is in memory. A directory of that name, from a future that was given up, is replaced.
///
/// # Errors
/// [`Error::Io`], or that of a file's maker. What was written is removed then, and every earlier checkpoint is as
/// before.
pub fn save(
    root: &Path,
    step: u64,
    origin: &Origin,
    files: impl IntoIterator<Item = (String, impl FnOnce() -> Result<Vec<u8>>)>,
) -> Result<PathBuf> {
    let attempts = || (0..u32::MAX).map(|attempt| root.join(format!("step-{step}.tmp-{attempt}")));
    let aside = durable::create_first_free(attempts())?;
    let target = root.join(format!("step-{step}"));
    let committed = write(&aside, step, origin, files).and_then(|()| {
        if target.exists() {
            let old = durable::create_first_free(attempts())?;
            durable::rename(&target, &old.join("replaced"))?;
            durable::rename(&aside, &target)?;
            // What cannot be removed now, here and below, is removed by `clean` at the next start.
            let _ = fs::remove_dir_all(&old);
            return Ok(());
        }
        durable::rename(&aside, &target)
    });
    if committed.is_err() {
        let _ = fs::remove_dir_all(&aside);
    }
    committed.map(|()| target)
}

fn write(
    aside: &Path,
    step: u64,
    origin: &Origin,
    files: impl IntoIterator<Item = (String, impl FnOnce() -> Result<Vec<u8>>)>,
) -> Result<()> {
    let mut records = BTreeMap::new();
    for (name, make) in files {
        let contents = make()?;
        durable::create(&aside.join(&name), &contents)?;
        records.insert(name, FileRecord { bytes: contents.len() as u64, sha256: sha256(&contents) });
    }
    let manifest = Manifest { format: FORMAT, step, origin: origin.clone(), files: records };
    durable::create(&aside.join(MANIFEST), &manifest.to_json())?;
    durable::sync_directory(aside)
}

/// The latest checkpoint that verifies, and what was passed over.
#[derive(Debug)]
pub struct Latest {
    /// The checkpoint; none in a directory without any.
    pub checkpoint: Option<Checkpoint>,
    /// Later directories that do not verify, latest first, and why.
    pub skipped: Vec<(PathBuf, Error)>,
}

/// Finds the latest checkpoint below `root` that verifies.
///
/// # Errors
/// [`Error::NoneVerifies`] when there are checkpoints but none can be read: starting anew would be a silent loss.
pub fn latest(root: &Path) -> Result<Latest> {
    let mut skipped = Vec::new();
    for step in steps(root)?.into_iter().rev() {
        let path = root.join(format!("step-{step}"));
        match Checkpoint::open(&path) {
            Ok(checkpoint) => return Ok(Latest { checkpoint: Some(checkpoint), skipped }),
            Err(error) => skipped.push((path, error)),
        }
    }
    let count = skipped.len();
    match skipped.into_iter().next() {
        None => Ok(Latest { checkpoint: None, skipped: Vec::new() }),
        Some((_, newest)) => Err(Error::NoneVerifies { path: root.to_owned(), count, newest: newest.into() }),
    }
}

/// The steps that have a checkpoint below `root`, increasing; nothing is verified.
pub fn steps(root: &Path) -> Result<Vec<u64>> {
    let mut steps: Vec<u64> = durable::names(root)?.iter().filter_map(|name| step_of(name)).collect();
    steps.sort_unstable();
    Ok(steps)
}

/// Removes what interrupted saves have left below `root`; for the holder of the run's lock. Returns what was removed.
pub fn clean(root: &Path) -> Result<Vec<PathBuf>> {
    let is_stale = |name: &String| {
        name.split_once(".tmp-")
            .is_some_and(|(step, attempt)| step_of(step).is_some() && attempt.parse::<u32>().is_ok())
    };
    let stale: Vec<PathBuf> =
        durable::names(root)?.into_iter().filter(is_stale).map(|name| root.join(name)).collect();
    for path in &stale {
        fs::remove_dir_all(path).map_err(Error::io("remove", path))?;
    }
    Ok(stale)
}

/// Removes the checkpoints up to `step` that `keep` has no use for. Later ones, of a future that was given up, stay.
pub fn prune(root: &Path, step: u64, keep: Keep) -> Result<()> {
    let past: Vec<u64> = steps(root)?.into_iter().filter(|&s| s <= step).collect();
    for step in keep.to_delete(&past) {
        let path = root.join(format!("step-{step}"));
        // Renamed first, so that a half-removed checkpoint is never taken for a corrupt one.
        let attempts = (0..u32::MAX).map(|attempt| root.join(format!("step-{step}.tmp-{attempt}")));
        let aside = durable::create_first_free(attempts)?;
        durable::rename(&path, &aside.join("removed"))?;
        fs::remove_dir_all(&aside).map_err(Error::io("remove", &aside))?;
    }
    Ok(())
}

fn step_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("step-")?;
    // One name a step: no sign, no leading zero.
    digits.parse().ok().filter(|step: &u64| step.to_string() == digits)
}
