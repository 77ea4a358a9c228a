//! `config.json` of a `UNet2DModel` and our configuration, either from the other.
//!
//! A setting that is absent has diffusers' default. One that neither side has a network for is an error that names it,
//! its value and what is supported; so is an unknown one.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::{Error, Resampling, Result, TimeFeatures, UnetConfig, UpAttention};

const MAX_PERIOD: f64 = 10_000.0;

/// The settings of a file, each looked at once.
pub(super) struct Settings<'a> {
    what: &'a str,
    object: &'a Map<String, Value>,
    seen: BTreeSet<&'static str>,
}

impl<'a> Settings<'a> {
    pub(super) fn new(what: &'a str, object: &'a Map<String, Value>) -> Self {
        Self { what, object, seen: BTreeSet::new() }
    }

    fn get(&mut self, key: &'static str) -> Option<&'a Value> {
        self.seen.insert(key);
        self.object.get(key)
    }

    fn refused(&self, key: &str, found: impl std::fmt::Display, supported: impl std::fmt::Display) -> Error {
        Error::unsupported(self.what, key, found, supported)
    }

    /// The value, which must be among those supported.
    pub(super) fn one_of(&mut self, key: &'static str, absent: &Value, supported: &[Value]) -> Result<Value> {
        let found = self.get(key).unwrap_or(absent);
        let same = |a: &Value| a == found || a.as_f64().is_some_and(|a| Some(a) == found.as_f64());
        if supported.iter().any(same) {
            return Ok(found.clone());
        }
        let list: Vec<String> = supported.iter().map(Value::to_string).collect();
        Err(self.refused(key, found, list.join(", ")))
    }

    pub(super) fn number(&mut self, key: &'static str, absent: Option<f64>) -> Result<f64> {
        match self.get(key) {
            None => absent.ok_or_else(|| self.refused(key, "absent", "a number")),
            Some(value) => value.as_f64().ok_or_else(|| self.refused(key, value, "a number")),
        }
    }

    pub(super) fn count(&mut self, key: &'static str, absent: Option<usize>) -> Result<usize> {
        match self.get(key) {
            None => absent.ok_or_else(|| self.refused(key, "absent", "a whole number")),
            Some(value) => count(value).ok_or_else(|| self.refused(key, value, "a whole number")),
        }
    }

    fn list<T>(
        &mut self,
        key: &'static str,
        of: &str,
        entry: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Vec<T>> {
        let found = self.get(key).unwrap_or(&Value::Null);
        let list = found.as_array().and_then(|list| list.iter().map(entry).collect());
        list.ok_or_else(|| self.refused(key, found, format!("a list of {of}")))
    }

    /// Refuses settings that were not looked at; null is no setting, and what begins with `_` is about the file.
    fn finish(self) -> Result<()> {
        let unknown = |(key, value): &(&String, &Value)| {
            !self.seen.contains(key.as_str()) && !key.starts_with('_') && !value.is_null()
        };
        match self.object.iter().find(unknown) {
            None => Ok(()),
            Some((key, value)) => Err(self.refused(key, value, "none; the setting is not known")),
        }
    }
}

fn count(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|n| usize::try_from(n).ok())
}

/// A network as `config.json` describes it.
pub(super) struct Network {
    pub net: UnetConfig,
    pub sample_shape: Vec<usize>,
}

/// Settings that have one value in every network of ours: key, default, and the values that mean it.
fn fixed() -> Vec<(&'static str, Value, Vec<Value>)> {
    let null = || Value::Null;
    vec![
        ("center_input_sample", json!(false), vec![json!(false)]),
        ("time_embedding_type", json!("positional"), vec![json!("positional")]),
        ("mid_block_type", json!("UNetMidBlock2D"), vec![json!("UNetMidBlock2D")]),
        ("mid_block_scale_factor", json!(1), vec![json!(1)]),
        ("downsample_type", json!("conv"), vec![json!("conv")]),
        ("upsample_type", json!("conv"), vec![json!("conv")]),
        ("act_fn", json!("silu"), vec![json!("silu"), json!("swish")]),
        ("resnet_time_scale_shift", json!("default"), vec![json!("default")]),
        ("add_attention", json!(true), vec![json!(true)]),
        ("attn_norm_num_groups", null(), vec![null()]),
        ("class_embed_type", null(), vec![null()]),
        ("num_class_embeds", null(), vec![null()]),
        ("num_train_timesteps", null(), vec![null()]),
    ]
}

pub(super) fn read(what: &str, object: &Map<String, Value>) -> Result<Network> {
    let mut settings = Settings::new(what, object);
    settings.one_of("_class_name", &Value::Null, &[json!("UNet2DModel")])?;
    for (key, absent, supported) in fixed() {
        settings.one_of(key, &absent, &supported)?;
    }
    let image_channels = settings.count("in_channels", Some(3))?;
    settings.one_of("out_channels", &json!(3), &[json!(image_channels)])?;
    let [height, width] = sample_size(&mut settings)?;
    let widths = settings.list("block_out_channels", "whole numbers", count)?;
    let channels = widths.first().copied().filter(|&n| n > 0).unwrap_or(1);
    if widths.is_empty() || widths.iter().any(|n| n % channels != 0) {
        return Err(settings.refused("block_out_channels", json!(widths), "multiples of the first"));
    }
    settings.one_of("time_embedding_dim", &Value::Null, &[Value::Null, json!(4 * channels)])?;
    let attention = attention(&mut settings, &widths, height)?;
    let padding = settings.one_of("downsample_padding", &json!(1), &[json!(0), json!(1)])?;
    let head_channels = match settings.get("attention_head_dim").unwrap_or(&json!(8)) {
        Value::Null => None,
        value => Some(count(value).ok_or_else(|| settings.refused("attention_head_dim", value, "a number"))?),
    };
    let time = TimeFeatures::Sinusoidal {
        max_period: MAX_PERIOD,
        freq_shift: settings.count("freq_shift", Some(0))?,
        flip_sin_to_cos: settings.one_of("flip_sin_to_cos", &json!(true), &[json!(true), json!(false)])?
            == json!(true),
        time_scale: 1.0,
        time_shift: -1.0,
    };
    let net = UnetConfig {
        channels,
        multipliers: widths.iter().map(|n| n / channels).collect(),
        blocks: settings.count("layers_per_block", Some(2))?,
        attention,
        up_attention: UpAttention::EveryBlock,
        head_channels,
        dropout: settings.number("dropout", Some(0.0))?,
        resampling: if padding == json!(0) { Resampling::Conv } else { Resampling::ConvCentred },
        groups: Some(settings.count("norm_num_groups", Some(32))?),
        epsilon: Some(settings.number("norm_eps", Some(1e-5))?),
        time,
        ..UnetConfig::ho_ddpm()
    };
    settings.finish()?;
    Ok(Network { net, sample_shape: vec![image_channels, height, width] })
}

/// Height and width, one number where they are the same.
fn sample_size(settings: &mut Settings<'_>) -> Result<[usize; 2]> {
    const KEY: &str = "sample_size";
    let found = settings.get(KEY).unwrap_or(&Value::Null);
    let size = match found {
        Value::Array(sizes) => match sizes.as_slice() {
            [height, width] => count(height).zip(count(width)),
            _ => None,
        },
        number => count(number).map(|n| (n, n)),
    };
    size.map(|(height, width)| [height, width])
        .ok_or_else(|| settings.refused(KEY, found, "a whole number, or height and width"))
}

/// The heights with attention. The path up has the blocks of the path down in reverse order.
fn attention(settings: &mut Settings<'_>, widths: &[usize], height: usize) -> Result<Vec<usize>> {
    let types = |settings: &mut Settings<'_>, key: &'static str, plain: &str, attending: &str| {
        let attends = |value: &Value| match value.as_str()? {
            name if name == plain => Some(false),
            name if name == attending => Some(true),
            _ => None,
        };
        settings.list(key, &format!("{plain} and {attending}"), attends)
    };
    let down = types(settings, "down_block_types", "DownBlock2D", "AttnDownBlock2D")?;
    let mut up = types(settings, "up_block_types", "UpBlock2D", "AttnUpBlock2D")?;
    up.reverse();
    if down.len() != widths.len() || up != down {
        let supported = "as many blocks as there are `block_out_channels`, attention at the same resolutions";
        let found = settings.get("up_block_types").unwrap_or(&Value::Null);
        return Err(settings.refused("up_block_types", found, supported));
    }
    let heights = down.iter().enumerate().filter(|(_, attends)| **attends);
    Ok(heights.filter_map(|(level, _)| height.checked_shr(level as u32)).collect())
}

/// `config.json` of our network.
pub(super) fn write(net: &UnetConfig, sample_shape: &[usize]) -> Result<Value> {
    let &[channels, height, width] = sample_shape else {
        return Err(refused("sample shape", format!("{sample_shape:?}"), "channels, height and width"));
    };
    let padding = expressible(net)?;
    let (freq_shift, flip_sin_to_cos) = time(net)?;
    let attends = |level: &usize| net.attention.contains(&(height >> level));
    let levels: Vec<usize> = (0..net.multipliers.len()).collect();
    let types = |levels: &mut dyn Iterator<Item = &usize>, path: &str| -> Vec<String> {
        levels.map(|l| format!("{}{path}Block2D", if attends(l) { "Attn" } else { "" })).collect()
    };
    let mut config = json!({
        "_class_name": "UNet2DModel",
        "attention_head_dim": head_channels(net, height)?,
        "block_out_channels": net.multipliers.iter().map(|m| m * net.channels).collect::<Vec<_>>(),
        "down_block_types": types(&mut levels.iter(), "Down"),
        "downsample_padding": padding,
        "dropout": net.dropout,
        "flip_sin_to_cos": flip_sin_to_cos,
        "freq_shift": freq_shift,
        "in_channels": channels,
        "layers_per_block": net.blocks,
        "norm_eps": net.epsilon.unwrap_or(1e-6),
        "norm_num_groups": groups(net)?,
        "out_channels": channels,
        "sample_size": if height == width { json!(height) } else { json!([height, width]) },
        "up_block_types": types(&mut levels.iter().rev(), "Up"),
    });
    for (key, value, _) in fixed() {
        config[key] = value;
    }
    Ok(config)
}

fn refused(key: &str, found: impl std::fmt::Display, supported: &str) -> Error {
    Error::unsupported("diffusers' UNet2DModel", key, found, supported)
}

/// Refuses what `UNet2DModel` has not; the padding of its downsampling.
fn expressible(net: &UnetConfig) -> Result<u8> {
    let switches = [
        ("pyramid", net.pyramid),
        ("rescale", net.rescale),
        ("scale_shift", net.scale_shift),
        ("centre", net.centre),
        ("classes", net.classes.is_some()),
        ("augment", net.augment.is_some()),
        ("precondition", net.precondition.is_some()),
    ];
    if let Some((key, _)) = switches.iter().find(|(_, on)| *on) {
        return Err(refused(key, "on", "off"));
    }
    if net.up_attention == UpAttention::LastBlock && !net.attention.is_empty() {
        return Err(refused("up_attention", "last_block", "every_block"));
    }
    if net.time_dim.is_some_and(|dim| dim != net.channels) {
        return Err(refused("time_dim", format!("{:?}", net.time_dim), "as many as channels"));
    }
    match net.resampling {
        Resampling::Conv => Ok(0),
        Resampling::ConvCentred => Ok(1),
        other => Err(refused("resampling", format!("{other:?}"), "conv and conv_centred")),
    }
}

/// `freq_shift` and `flip_sin_to_cos`.
fn time(net: &UnetConfig) -> Result<(usize, bool)> {
    match net.time {
        TimeFeatures::Sinusoidal {
            max_period: MAX_PERIOD,
            freq_shift,
            flip_sin_to_cos,
            time_scale: 1.0,
            time_shift: -1.0,
        } => Ok((freq_shift, flip_sin_to_cos)),
        ref other => {
            let supported = "sinusoids with max_period 10000, time_scale 1 and time_shift −1: indices of the process ddpm";
            Err(refused("time", format!("{other:?}"), supported))
        }
    }
}

/// One number of groups for every normalisation.
fn groups(net: &UnetConfig) -> Result<usize> {
    let least = net.channels * net.multipliers.iter().min().copied().unwrap_or(1);
    match net.groups {
        Some(groups) => Ok(groups),
        // A quarter of any number of channels is 32 at least.
        None if least >= 128 => Ok(32),
        None => Err(refused("groups", "absent", "one number; here it differs between layers")),
    }
}

/// One number of channels of a head for every attention.
fn head_channels(net: &UnetConfig, height: usize) -> Result<Option<usize>> {
    if net.head_channels.is_some() || net.heads == 1 {
        return Ok(net.head_channels);
    }
    let levels = net.multipliers.iter().enumerate();
    let last = net.multipliers.len() - 1;
    let mut widths = levels
        .filter(|(level, _)| *level == last || net.attention.contains(&(height >> level)))
        .map(|(_, multiplier)| multiplier * net.channels / net.heads);
    match widths.next() {
        Some(width) if widths.all(|other| other == width) => Ok(Some(width)),
        _ => Err(refused("heads", net.heads, "1, or `head_channels`, or attention of one width")),
    }
}
