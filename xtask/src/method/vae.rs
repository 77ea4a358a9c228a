//! Variational autoencoders of binarised images, whose posteriors are targets.

use std::path::Path;

use anyhow::{Context, Result};
use candle_core::{DType, Device};
use sde_core::noise::{BatchNoise, Noise};
use sde_data::{Encoding, Split};
use sde_nets::{Params, Vae, VaeConfig, VaePosterior, count_parameters};
use sde_train::{State, TrainConfig, VaeBound, binarised};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Facts, Method, Parts, Running, of_run, tells_its_preset};
use crate::build::{DataConfig, Use};
use crate::exit::Failure;
use crate::output::Output;
use crate::run::{Saved, locate};

/// The key `method` of its presets.
pub const NAME: &str = "vae";

/// A preset.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct VaePreset {
    /// `vae`.
    pub method: String,
    /// Its name, which is also its file's.
    pub name: String,
    /// One line: what it is and where its numbers are from.
    pub about: String,
    /// The images, which are binarised in the middle of their range.
    pub data: DataConfig,
    /// The networks.
    pub net: VaeConfig,
    /// How they are trained.
    pub train: TrainConfig,
}

impl VaePreset {
    /// The number of entries of an example, and what is one of them.
    fn facts(&self, output: Output) -> Result<(usize, f64)> {
        let (shape, encoding) = self.data.facts(output)?;
        match encoding {
            Encoding::Quantised { range, .. } | Encoding::Dequantised { range, .. } => {
                Ok((shape.iter().product(), range.low() + 0.5 * range.width()))
            }
            Encoding::Continuous => {
                let text = format!("data.name: `{}` has points; a vae is of images", self.data.name);
                Err(Failure::Config(text).into())
            }
        }
    }
}

/// The posterior of the code of test image `image` under a trained autoencoder.
///
/// # Errors
/// Where there is no such run or image, or the run is of another method.
pub fn posterior(run: &Path, image: usize) -> Result<VaePosterior> {
    let output = Output { json: false };
    let path = locate(Some(run))?;
    let preset: VaePreset = of_run(&path, NAME, "vae; `train vae-digits` makes one")?;
    let Saved { weights, .. } = Saved::latest(&path, &preset.train, None, output)?;
    let (dim, threshold) = preset.facts(output)?;
    let vae = weights
        .freeze(DType::F64, &Device::Cpu, |b| Vae::new(b, &preset.net, dim))
        .with_context(|| format!("{}: the weights do not fit the configured vae", path.display()))?;
    let data = preset.data.load(Split::Test, Use::Likelihood, 0, output)?.set;
    if image >= data.len() {
        let text = format!("image {image}: there are {} test images", data.len());
        return Err(Failure::Usage(text).into());
    }
    let x = data.batch(&[image], &BatchNoise::new(Noise::new(0), 0, [0]))?.x.to_dtype(DType::F64)?;
    Ok(VaePosterior::new(vae, binarised(&x, threshold)?)?)
}

/// A preset as a method.
pub struct VaeMethod(pub VaePreset);

impl Method for VaeMethod {
    tells_its_preset!(0);

    fn build(&self, seed: u64, device: &Device, output: Output) -> Result<Parts> {
        let preset = &self.0;
        let (dim, threshold) = preset.facts(output)?;
        let load = |split| Ok::<_, anyhow::Error>(preset.data.load(split, Use::Training, seed, output)?.set);
        let (vae, params) =
            Params::initialise(Noise::new(seed), DType::F32, device, |b| Vae::new(b, &preset.net, dim))?;
        preset.train.check_groups(&params)?;
        let held_out = preset.train.held_out.map(|_| load(Split::Test)).transpose()?;
        let objective = Box::new(VaeBound { vae, threshold });
        Ok(Parts { data: load(Split::Train)?, held_out, objective, params, classes: None })
    }

    /// There is no picture: its samples are codes.
    fn sheet(&self, _: &State, _: &Running<'_>) -> Result<()> {
        Ok(())
    }

    fn facts(&self, output: Output) -> Result<Facts> {
        let (dim, _) = self.0.facts(output)?;
        let parameters = count_parameters(|b| Vae::new(b, &self.0.net, dim))?;
        let line = format!("of {dim} binary entries in codes of {}", self.0.net.code);
        Ok(Facts { parameters, line, record: vec![("dimensions", json!(self.0.net.code))] })
    }
}
