//! The modules of a score_sde network in the order of their numbers, and the tensors of each in the order of their
//! parameters.

use crate::{Error, Resampling, Result, TimeFeatures, UnetConfig, UpAttention};

/// A module; paths are ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Module {
    /// Fixed random frequencies.
    Frequencies,
    /// A linear map, a convolution or a normalisation, whose tensors have no further name.
    Plain(String),
    /// The last convolution.
    Output,
    /// A residual block of the DDPM network, whose shortcut is a `NIN`, or of NCSN++, whose is a convolution.
    Block { path: String, shortcut: &'static str },
    /// Attention.
    Attention(String),
    /// A change of resolution: its one layer's name, if it has a layer.
    Resample(String, Option<&'static str>),
}

impl Module {
    /// Our names and theirs below the module. `exists` tells whether we have a tensor.
    pub(super) fn tensors(&self, exists: impl Fn(&str) -> bool) -> Vec<(String, String)> {
        let mut names = Vec::new();
        let mut add = |ours: String, theirs: &str| {
            // `NIN` has W and b, everything else weight and bias.
            let kinds = if theirs.starts_with("NIN") { ["W", "b"] } else { ["weight", "bias"] };
            for (ours_kind, theirs_kind) in ["weight", "bias"].into_iter().zip(kinds) {
                let separator = if theirs.is_empty() { "" } else { "." };
                names.push((format!("{ours}.{ours_kind}"), format!("{theirs}{separator}{theirs_kind}")));
            }
        };
        match self {
            Self::Frequencies => names.push(("time.frequencies".into(), "W".into())),
            Self::Plain(path) => add(path.clone(), ""),
            Self::Output => add("conv_out".into(), ""),
            Self::Block { path, shortcut } => {
                let layers = [
                    ("norm1", "GroupNorm_0"),
                    ("conv1", "Conv_0"),
                    ("embedding", "Dense_0"),
                    ("norm2", "GroupNorm_1"),
                    ("conv2", "Conv_1"),
                    ("shortcut", shortcut),
                ];
                for (ours, theirs) in layers {
                    add(format!("{path}.{ours}"), theirs);
                }
            }
            Self::Attention(path) => {
                let layers = [
                    ("norm", "GroupNorm_0"),
                    ("query", "NIN_0"),
                    ("key", "NIN_1"),
                    ("value", "NIN_2"),
                    ("output", "NIN_3"),
                ];
                for (ours, theirs) in layers {
                    add(format!("{path}.{ours}"), theirs);
                }
            }
            Self::Resample(path, layer) => layer.iter().for_each(|layer| add(path.clone(), layer)),
        }
        names.retain(|(ours, _)| exists(ours));
        names
    }
}

/// The modules of a network.
///
/// # Errors
/// [`Error::Unsupported`] where no network of theirs is like it.
pub(super) fn modules(net: &UnetConfig, sample_shape: &[usize]) -> Result<Vec<Module>> {
    check(net)?;
    let height = sample_shape.get(1).copied().unwrap_or(0);
    let big = matches!(net.resampling, Resampling::BlockPool | Resampling::BlockFir);
    let shortcut = if big { "Conv_2" } else { "NIN_0" };
    let plain = |path: &str| Module::Plain(path.into());
    let block = |path: String| Module::Block { path, shortcut };
    let resample = |path: String| match net.resampling {
        Resampling::Conv => Module::Resample(path, Some("Conv_0")),
        Resampling::Pool | Resampling::ConvCentred => Module::Resample(path, None),
        Resampling::BlockPool | Resampling::BlockFir => block(path),
    };
    let attends = |level: usize| net.attention.contains(&(height >> level));
    let mut modules = Vec::new();
    if matches!(net.time, TimeFeatures::Fourier { .. }) {
        modules.push(Module::Frequencies);
    }
    modules.extend(["time.0", "time.1", "conv_in"].map(plain));
    let last = net.multipliers.len() - 1;
    for level in 0..=last {
        for j in 0..net.blocks {
            modules.push(block(format!("down.{level}.block.{j}")));
            if attends(level) {
                modules.push(Module::Attention(format!("down.{level}.attention.{j}")));
            }
        }
        if level < last {
            modules.push(resample(format!("down.{level}.downsample")));
            if net.pyramid {
                modules.push(Module::Resample(format!("down.{level}.pyramid"), Some("Conv2d_0")));
            }
        }
    }
    modules.push(block("mid.block.0".into()));
    modules.push(Module::Attention("mid.attention".into()));
    modules.push(block("mid.block.1".into()));
    for level in (0..=last).rev() {
        modules.extend((0..=net.blocks).map(|j| block(format!("up.{level}.block.{j}"))));
        if attends(level) {
            modules.push(Module::Attention(format!("up.{level}.attention.{}", net.blocks)));
        }
        if level > 0 {
            modules.push(resample(format!("up.{level}.upsample")));
        }
    }
    modules.extend([plain("norm_out"), Module::Output]);
    Ok(modules)
}

/// Refuses networks that score_sde has not.
fn check(net: &UnetConfig) -> Result<()> {
    let refused = |key: &str, found: &str, supported: &str| {
        Err(Error::unsupported("score_sde's networks", key, found, supported))
    };
    let switches = [
        ("scale_shift", net.scale_shift),
        ("classes", net.classes.is_some()),
        ("augment", net.augment.is_some()),
        ("precondition", net.precondition.is_some()),
    ];
    if let Some((key, _)) = switches.iter().find(|(_, on)| *on) {
        return refused(key, "on", "off");
    }
    if net.up_attention == UpAttention::EveryBlock && !net.attention.is_empty() {
        return refused("up_attention", "every_block", "last_block");
    }
    if net.resampling == Resampling::ConvCentred {
        return refused("resampling", "conv_centred", "conv, pool, block_pool and block_fir");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_networks_have_as_many_modules() -> Result<()> {
        let cases = [
            (UnetConfig::song_ddpm(), 37),
            (UnetConfig::ddpmpp(4), 55),
            (UnetConfig::ddpmpp(8), 91),
            (UnetConfig::ncsnpp(4), 59),
            (UnetConfig::ncsnpp(8), 95),
        ];
        for (net, count) in cases {
            assert_eq!(modules(&net, &[3, 32, 32])?.len(), count);
        }
        assert!(modules(&UnetConfig::ho_ddpm(), &[3, 32, 32]).is_err());
        Ok(())
    }
}
