//! What `import` was pointed at: a folder, a file, or a repository on the hub, and its layout.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sde_nets::pretrained::diffusers::{self, Folder};
use sde_nets::pretrained::{pickle, single_file};
use sde_train::hash::sha256;

use crate::build::sampler;
use crate::exit::Failure;
use crate::output::Output;

const FORMATS: &[&str] = &["auto", "diffusers", "score-sde", "single"];

/// The contents, by layout, and the SHA-256 of the file of weights.
pub enum Found {
    Diffusers(Folder, String),
    ScoreSde(pickle::Value, String),
    Single(Vec<u8>, String),
}

impl Found {
    /// Finds and reads the source; its layout is `format`, or if that is `auto` what it looks like.
    pub fn locate(source: &str, format: &str, output: Output) -> Result<Self> {
        if !FORMATS.contains(&format) {
            return Err(sampler::unknown("format", format, FORMATS).into());
        }
        let path = PathBuf::from(source);
        if path.is_file() {
            return Self::file(&path, format);
        }
        let folder = if path.is_dir() { path } else { fetch(source, output)? };
        if !matches!(format, "auto" | "diffusers") {
            return Err(Failure::Usage(format!(
                "{source}: --format {format} is of a file, and this is none"
            ))
            .into());
        }
        if !diffusers::is_folder(&folder) {
            let text = format!(
                "{source}: expected a folder of diffusers, with a {} in it or below unet/",
                diffusers::CONFIG
            );
            return Err(Failure::Usage(text).into());
        }
        let folder = Folder::open(&folder)?;
        let hash = sha256(&read(folder.weights_file())?);
        Ok(Self::Diffusers(folder, hash))
    }

    fn file(path: &Path, format: &str) -> Result<Self> {
        let bytes = read(path)?;
        let hash = sha256(&bytes);
        let safetensors = path.extension().is_some_and(|e| e == "safetensors");
        match format {
            "single" => Ok(Self::Single(bytes, hash)),
            "auto" if single_file::is_single_file(&bytes) => Ok(Self::Single(bytes, hash)),
            "auto" if safetensors => {
                let text = format!(
                    "{}: the file says nothing of its network; name the folder that has a {} beside it",
                    path.display(),
                    diffusers::CONFIG
                );
                Err(Failure::Usage(text).into())
            }
            "auto" | "score-sde" => {
                let value = pickle::read_pth(bytes).with_context(|| path.display().to_string())?;
                Ok(Self::ScoreSde(value, hash))
            }
            _ => {
                let text =
                    format!("{}: --format {format} is of a folder, and this is a file", path.display());
                Err(Failure::Usage(text).into())
            }
        }
    }

    /// The layout's name.
    pub fn format(&self) -> &'static str {
        match self {
            Self::Diffusers(..) => "diffusers",
            Self::ScoreSde(..) => "score-sde",
            Self::Single(..) => "single",
        }
    }

    /// The SHA-256 of the file of weights.
    pub fn sha256(&self) -> &str {
        let (Self::Diffusers(_, hash) | Self::ScoreSde(_, hash) | Self::Single(_, hash)) = self;
        hash
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The folder in the hub's cache with the files of a model, which are fetched if need be.
fn fetch(repository: &str, output: Output) -> Result<PathBuf> {
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    if !repository.split_once('/').is_some_and(|(owner, name)| plain(owner) && plain(name)) {
        let text = format!("{repository}: neither a file, nor a folder, nor a repository OWNER/NAME");
        return Err(Failure::Usage(text).into());
    }
    let get = |file: &str| {
        output.say(format!("{repository}: {file}"));
        sde_data::hub::model_file(repository, file, &mut |_| ())
    };
    // In a pipeline the network has a folder of its own.
    let (config, unet) = match get(&format!("unet/{}", diffusers::CONFIG)) {
        Ok(path) => (path, "unet/"),
        Err(other) if !matches!(other, sde_data::Error::Fetch { .. }) => return Err(other.into()),
        Err(_) => {
            let path = get(diffusers::CONFIG)
                .with_context(|| format!("{repository}: no such path here, and as a repository"))?;
            (path, "")
        }
    };
    let [first, second] = diffusers::WEIGHTS.map(|name| format!("{unet}{name}"));
    // What was fetched and is not what it should be is an error; what is not there may be there in the other format.
    if let Err(missing) = get(&first) {
        let fetch = matches!(missing, sde_data::Error::Fetch { .. });
        if !fetch {
            return Err(missing.into());
        }
        get(&second).with_context(|| missing.to_string())?;
    }
    let scheduler = if unet.is_empty() { "" } else { "scheduler/" };
    if let Err(error) = get(&format!("{scheduler}{}", diffusers::SCHEDULER)) {
        output.say(error.to_string());
    }
    let levels = if unet.is_empty() { 1 } else { 2 };
    let root = config.ancestors().nth(levels);
    Ok(root.map(Path::to_owned).unwrap_or(config))
}
