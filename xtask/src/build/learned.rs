//! Learned forward processes in a run: their parameters beside the network's, and the process that they make.

use std::sync::Arc;

use anyhow::Result;
use sde_core::LinearSde;
use sde_nets::Builder;
use sde_train::{Forward, StateFrame};

use super::ProcessConfig;
use crate::run::Network;

/// Where the parameters of a learned process are in a checkpoint.
const PATH: &str = "forward";
/// How their names begin.
pub const PREFIX: &str = "forward.";

/// The learned process of a configuration, with its parameters from `b`; none where nothing of it is learned.
pub fn forward(
    process: &ProcessConfig,
    b: &Builder,
    shape: &[usize],
) -> sde_nets::Result<Option<Arc<Forward>>> {
    match process {
        ProcessConfig::Learned(config) => Ok(Some(Arc::new(Forward::new(&b.pp(PATH), config, shape)?))),
        _ => Ok(None),
    }
}

/// The process of a run, and its network as one of that process.
pub fn frozen(
    process: &ProcessConfig,
    forward: Option<&Forward>,
    network: Network,
) -> Result<(Arc<dyn LinearSde>, Network)> {
    let Some(forward) = forward else { return Ok((Arc::from(process.build()?), network)) };
    let sde = forward.process()?;
    let network: Network = match forward.is_rotation() {
        true => Box::new(StateFrame::new(network, sde.clone())),
        false => network,
    };
    Ok((sde, network))
}
