//! `bench unet`: forward pass and training step of the CIFAR-10 U-Net of Ho et al., on random images.
//!
//! Reference: Ho, Jain, Abbeel 2020, arXiv 2006.11239, appendix B.

use anyhow::Result;
use serde_json::Map;

use super::network::{finish, measure};
use super::session::Session;
use crate::cli::Unet;
use crate::config::{Preset, Source};
use crate::output::Output;

/// The shape of one image.
pub const SHAPE: [usize; 3] = [3, 32, 32];

/// Song's network with Ho's attention is Ho's; `quick` has its structure at a fraction of the size.
pub fn preset(quick: bool, sets: &[String]) -> Result<Preset> {
    let mut source = Source::find("cifar10")?;
    source.set("net.up_attention=every_block")?;
    if quick {
        ["channels=8", "blocks=1", "groups=4"].iter().try_for_each(|s| source.set(&format!("net.{s}")))?;
    }
    sets.iter().try_for_each(|set| source.set(set))?;
    source.parse()
}

/// Runs the suite.
pub fn run(args: &Unet, output: Output) -> Result<()> {
    let preset = preset(args.measuring.quick, &args.sets)?;
    let mut session = Session::open("unet", &args.measuring, output)?;
    let rows = measure(&mut session, &preset, &SHAPE, &args.batch, true)?;
    let titles =
        ["U-Net of Ho et al. on 3×32×32 images", "forward pass without a tape; training step by `fit`"];
    finish(session, &rows, titles, Map::new())
}

#[cfg(test)]
mod tests {
    use sde_nets::NetConfig;

    use super::*;
    use crate::bench::inventory::{flops, inventory, parameters};

    #[test]
    fn the_inventory_is_the_published_network() -> Result<()> {
        let NetConfig::Unet(config) = preset(false, &[])?.net else { anyhow::bail!("no U-Net") };
        let items = inventory(&config, 3, 32);
        assert_eq!(parameters(&items), 35_746_307);
        // 99.5 and 298.6 GFLOP for 8 images, by counting the operations of a run with other tools.
        let [forward, step] = flops(&items).map(|f| 8.0 * f / 1e9);
        assert!((forward - 99.5).abs() < 0.5, "{forward}");
        assert!((step - 298.6).abs() < 1.5, "{step}");
        Ok(())
    }
}
