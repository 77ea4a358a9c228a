//! A batch of samples by a sampler on a frozen network.

use anyhow::Result;
use candle_core::{DType, Device};
use sde_core::noise::Noise;
use sde_core::{LinearSde, ModelField};
use sde_nets::NetConfig;

use super::Work;
use super::network::frozen;
use crate::build::{ProcessConfig, SamplerConfig};
use crate::run::Network;
use crate::sampling::Recipe;

/// Drawing a batch.
pub struct Sampling {
    sde: Box<dyn LinearSde>,
    sampler: SamplerConfig,
    field: ModelField<Network>,
    parameters: usize,
    shape: Vec<usize>,
    addresses: Vec<u32>,
}

impl Sampling {
    /// The sampler on a network with fresh weights.
    pub fn new(
        net: &NetConfig,
        shape: Vec<usize>,
        batch: usize,
        (process, sampler): (&ProcessConfig, SamplerConfig),
        device: &Device,
    ) -> Result<Self> {
        let sde = process.build()?;
        let (network, parameters) = frozen(net, &process.state_shape(&shape)?, device)?;
        let field = ModelField::new(network, DType::F32, device);
        let addresses = (0..batch as u32).collect();
        Ok(Self { sde, sampler, field, parameters, shape, addresses })
    }
}

impl Work for Sampling {
    fn run(&mut self) -> Result<()> {
        let recipe = Recipe::new(self.sde.as_ref(), &self.sampler, None);
        let batch = self.addresses.len();
        recipe.collect(&self.field, &self.shape, Noise::new(0), &self.addresses, batch)?;
        Ok(())
    }

    fn parameters(&self) -> Option<usize> {
        Some(self.parameters)
    }
}
