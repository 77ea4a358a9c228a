//! The layout of diffusers: a folder of a `UNet2DModel`, alone or in a pipeline.
//!
//! ```text
//! config.json, diffusion_pytorch_model.safetensors       or .bin, a .pth file; here, or below unet/
//! scheduler_config.json                                  here, or below scheduler/
//! ```
//!
//! Its times are indices 0 … N − 1 of a discrete chain whose first state has been made noisy once, so they are ours of
//! the process `ddpm` less one: τ = t − 1. Attention's maps are `[out, in]`, ours `[out, in, 1, 1]`; files before 2023
//! call them `query, key, value, proj_attn`, later ones `to_q, to_k, to_v, to_out.0`. The levels of the path up are
//! counted from the lowest resolution, ours from the highest.
//!
//! Reference: diffusers 0.42, the documented settings of `UNet2DModel` and `DDPMScheduler`.

mod names;
mod schedule;
mod settings;

use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use serde_json::{Map, Value, json};

use self::names::dictionary;
pub use self::schedule::Schedule;
use super::{Pretrained, pickle, read_file};
use crate::{Error, Result, UnetConfig, Weights};

/// The files of a model without its folder, the first that is there counts.
pub const WEIGHTS: [&str; 2] = ["diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"];
/// The settings of the network.
pub const CONFIG: &str = "config.json";
/// The settings of the chain.
pub const SCHEDULER: &str = "scheduler_config.json";

/// A folder that holds a `UNet2DModel`.
#[derive(Debug, Clone)]
pub struct Folder {
    config: PathBuf,
    weights: PathBuf,
    scheduler: Option<PathBuf>,
}

/// Whether a folder looks like one of diffusers.
pub fn is_folder(path: &Path) -> bool {
    [path.to_owned(), path.join("unet")].iter().any(|folder| folder.join(CONFIG).is_file())
}

impl Folder {
    /// Finds the files.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where some are missing, with what is looked for.
    pub fn open(path: &Path) -> Result<Self> {
        let absent =
            |key: &str, supported: String| Error::unsupported(path.display(), key, "absent", supported);
        let model = [path.to_owned(), path.join("unet")];
        let model = model.into_iter().find(|folder| folder.join(CONFIG).is_file());
        let model = model.ok_or_else(|| absent(CONFIG, "there, or below unet/".into()))?;
        let weights = WEIGHTS.iter().map(|name| model.join(name)).find(|file| file.is_file());
        let weights = weights.ok_or_else(|| {
            absent(WEIGHTS[0], format!("there, or {}; several shards in one folder are not read", WEIGHTS[1]))
        })?;
        let scheduler = [path.join(SCHEDULER), path.join("scheduler").join(SCHEDULER)];
        let scheduler = scheduler.into_iter().find(|file| file.is_file());
        Ok(Self { config: model.join(CONFIG), weights, scheduler })
    }

    /// The file of the weights.
    pub fn weights_file(&self) -> &Path {
        &self.weights
    }

    /// The discrete chain; none where the folder says nothing of it.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where it is another than ours.
    pub fn schedule(&self) -> Result<Option<Schedule>> {
        let Some(file) = &self.scheduler else { return Ok(None) };
        Schedule::read(&file.display().to_string(), &object(file)?).map(Some)
    }

    /// The network for the process `ddpm`, and its weights. Where there is no schedule, the network predicts noise,
    /// which is what diffusers assumes.
    ///
    /// # Errors
    /// [`Error::Unsupported`] naming the setting that we have no network for; [`Error::Weights`].
    pub fn read(&self) -> Result<Pretrained> {
        let mut config = settings::read(&self.config.display().to_string(), &object(&self.config)?)?;
        if let Some(file) = &self.scheduler {
            config.net.prediction = schedule::prediction(&file.display().to_string(), &object(file)?)?;
        }
        let settings::Network { net, sample_shape } = config;
        let bytes = read_file(&self.weights)?;
        let pickled = self.weights.extension().is_some_and(|extension| extension == "bin");
        let file = match pickled {
            true => pickle::read_pth(bytes)?.to_weights()?,
            false => Weights::from_safetensors(&bytes, &Device::Cpu)?,
        };
        let weights = dictionary(&net, &sample_shape)?.read(&file, |_| false)?;
        Ok(Pretrained { net, sample_shape, weights, average: None, moments: None, step: 0 })
    }
}

/// A network as a pipeline of diffusers: its files, by their paths in the folder.
///
/// # Errors
/// [`Error::Unsupported`] naming the setting that diffusers has no network for; [`Error::Weights`].
pub fn write(
    net: &UnetConfig,
    sample_shape: &[usize],
    schedule: Option<Schedule>,
    weights: &Weights,
) -> Result<Vec<(String, Vec<u8>)>> {
    let config = settings::write(net, sample_shape)?;
    let prediction = schedule::prediction_name(net.prediction)?;
    // Weights of another network are found before anything is written.
    weights.freeze(DType::F32, &Device::Cpu, |b| crate::Unet::new(b, net, sample_shape))?;
    let tensors = dictionary(net, sample_shape)?.write(weights)?;
    let mut files = vec![
        (format!("unet/{CONFIG}"), text(&config)),
        (format!("unet/{}", WEIGHTS[0]), tensors.to_safetensors_with(Some(("format", "pt".into())))?),
    ];
    if let Some(schedule) = schedule {
        let index = json!({
            "_class_name": "DDPMPipeline",
            "scheduler": ["diffusers", "DDPMScheduler"],
            "unet": ["diffusers", "UNet2DModel"],
        });
        files.push((format!("scheduler/{SCHEDULER}"), text(&schedule.write(prediction))));
        files.push(("model_index.json".into(), text(&index)));
    }
    Ok(files)
}

/// JSON as a file.
fn text(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}

/// The object in a JSON file.
fn object(path: &Path) -> Result<Map<String, Value>> {
    const LONGEST: usize = 1 << 20;
    let bytes = read_file(path)?;
    let refused = |found: String| Error::unsupported(path.display(), "the file", found, "an object in JSON");
    if bytes.len() > LONGEST {
        return Err(refused(format!("{} bytes", bytes.len())));
    }
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(refused("of another kind".into())),
        Err(error) => Err(refused(format!("no JSON ({error})"))),
    }
}
