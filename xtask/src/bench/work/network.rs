//! A whole network: a forward pass without a tape.

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use sde_core::noise::Noise;
use sde_core::{Model, Pass};
use sde_nets::{NetConfig, Params};

use super::{Work, normal};
use crate::run::Network;

/// A forward pass of a frozen network.
pub struct Forward {
    net: Network,
    x: Tensor,
    t: Tensor,
    parameters: usize,
}

impl Forward {
    /// The pass over standard normal input.
    pub fn new(net: &NetConfig, shape: &[usize], batch: usize, device: &Device) -> Result<Self> {
        let (net, parameters) = frozen(net, shape, device)?;
        let x = normal(0, batch, shape, device)?;
        let t = normal(1, batch, &[], device)?.sqr()?;
        Ok(Self { net, x, t, parameters })
    }
}

/// A network with fresh weights and no tape, and the number of its parameters.
pub fn frozen(net: &NetConfig, shape: &[usize], device: &Device) -> Result<(Network, usize)> {
    let initial = Params::initialise(Noise::new(0), DType::F32, device, |b| net.build(b, shape));
    let (_, params) = initial?;
    let frozen = params.to_weights()?.freeze(DType::F32, device, |b| net.build(b, shape))?;
    Ok((frozen, params.count()))
}

impl Work for Forward {
    fn run(&mut self) -> Result<()> {
        self.net.forward(&self.x, &self.t, Pass::EVAL)?;
        Ok(())
    }

    fn parameters(&self) -> Option<usize> {
        Some(self.parameters)
    }
}
