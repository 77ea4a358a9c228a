//! Our own file for weights that travel: one safetensors file with the network's configuration and its history in the
//! metadata.
//!
//! The metadata has one key, `sde`, and under it JSON, so that equal contents are equal bytes; any reader of safetensors
//! reads the tensors.
//!
//! ```text
//! {"format": 1, "net": {…}, "sample_shape": [3, 32, 32], "preset": "TOML", "step": 1000, "average": "main",
//!  "provenance": {"code_revision": …, "source": …, "source_sha256": …}}
//! ```

use std::collections::BTreeMap;

use candle_core::{DType, Device};
use serde::{Deserialize, Serialize};

use crate::{Error, NetConfig, Result, Weights, header};

const FORMAT: u32 = 1;
const KEY: &str = "sde";

/// What is known of the weights in a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// The version of this layout.
    pub format: u32,
    /// The network.
    pub net: NetConfig,
    /// The shape of one sample.
    pub sample_shape: Vec<usize>,
    /// The whole configuration that the network was trained with, as its owner writes it.
    pub preset: Option<String>,
    /// The number of updates made.
    pub step: u64,
    /// Which average of the weights these are; none if they are the weights themselves.
    pub average: Option<String>,
    /// Where they come from: code revision, source, its hash.
    pub provenance: BTreeMap<String, String>,
}

impl Card {
    /// What is known of the weights of `net`, for a start.
    pub fn new(net: NetConfig, sample_shape: &[usize]) -> Self {
        let (sample_shape, provenance) = (sample_shape.to_vec(), BTreeMap::new());
        Self { format: FORMAT, net, sample_shape, preset: None, step: 0, average: None, provenance }
    }

    /// Refuses weights that are not those of the network.
    fn check(&self, weights: &Weights) -> Result<()> {
        weights.freeze(DType::F32, &Device::Cpu, |b| self.net.build(b, &self.sample_shape)).map(drop)
    }
}

/// Whether this is such a file, as far as its header tells.
pub fn is_single_file(bytes: &[u8]) -> bool {
    header::check(bytes).is_ok_and(|metadata| metadata.contains_key(KEY))
}

/// The file.
///
/// # Errors
/// [`Error::Weights`] where the weights are not those of the network.
pub fn write(card: &Card, weights: &Weights) -> Result<Vec<u8>> {
    card.check(weights)?;
    let text = serde_json::to_string(card).map_err(|error| Error::Format(error.into()))?;
    weights.to_safetensors_with(Some((KEY, text)))
}

/// What [`write()`] has written.
///
/// # Errors
/// [`Error::Format`] for another file or another version, [`Error::Weights`] where the weights are not those of the
/// network that the file describes.
pub fn read(bytes: &[u8]) -> Result<(Card, Weights)> {
    let metadata = header::check(bytes)?;
    let text = metadata.get(KEY).ok_or_else(|| {
        Error::Format("it says nothing of its network: there is no key `sde` in its metadata".into())
    })?;
    let card: Card = serde_json::from_str(text).map_err(|error| Error::Format(error.into()))?;
    if card.format != FORMAT {
        let why = format!("format {} of our own files, this program reads {FORMAT}", card.format);
        return Err(Error::Format(why.into()));
    }
    let weights = Weights::from_safetensors(bytes, &Device::Cpu)?;
    card.check(&weights)?;
    Ok((card, weights))
}
