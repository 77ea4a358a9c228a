//! A whole network: a forward pass without a tape, and a training step made of what `fit` is made of.

use std::sync::Arc;

use anyhow::{Result, anyhow};
use candle_core::{DType, Device, Tensor};
use sde_core::noise::{BatchNoise, Noise};
use sde_core::process::Vp;
use sde_core::{Model, Pass};
use sde_data::Batch;
use sde_nets::{NetConfig, Params};
use sde_train::clip::{clip, global_norm};
use sde_train::loss::{Dsm, Loss, Reduction, TimeLaw, Weighting};
use sde_train::{Adam, AdamConfig, Ema, EmaConfig, EmaLaw, Gradients};

use super::{Work, normal};

type Network = Box<dyn Model + Send + Sync>;

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

/// A training step.
pub struct Step {
    net: Network,
    params: Params,
    loss: Dsm,
    batch: Batch,
    adam: Adam,
    lr: f64,
    clip: Option<f64>,
    ema: Ema,
    n: u64,
}

impl Step {
    /// The step with Adam's constants, the largest norm of the gradients, and the decay of the average.
    pub fn new(
        net: &NetConfig,
        shape: &[usize],
        batch: usize,
        (optimiser, clip, decay): (AdamConfig, Option<f64>, f64),
        device: &Device,
    ) -> Result<Self> {
        let (net, params) = Params::initialise(Noise::new(0), DType::F32, device, |b| net.build(b, shape))?;
        let times = TimeLaw::Uniform { from: 1e-5, to: 1.0 };
        let ema = EmaConfig { name: "main".into(), law: EmaLaw::Constant { decay } };
        Ok(Self {
            loss: Dsm::new(Arc::new(Vp::STANDARD), times, Weighting::Simple, Reduction::Mean)?,
            batch: Batch { x: normal(0, batch, shape, device)?, labels: None },
            adam: Adam::new(optimiser, &params)?,
            lr: optimiser.lr,
            clip,
            ema: Ema::new(ema, &params)?,
            n: 0,
            net,
            params,
        })
    }
}

impl Work for Step {
    fn run(&mut self) -> Result<()> {
        let noise = BatchNoise::new(Noise::new(0), self.n as u32, 0..self.batch.x.dim(0)? as u32);
        let loss = self.loss.loss(&self.net, &self.batch, &noise)?.total;
        let store = loss.backward()?;
        let of = |(name, var): (&str, &candle_core::Var)| {
            let gradient = store.get(var).ok_or_else(|| anyhow!("{name} has no gradient"))?;
            Ok((name.to_owned(), gradient.detach()))
        };
        let mut gradients = self.params.iter().map(of).collect::<Result<Gradients>>()?;
        drop(store);
        loss.to_scalar::<f32>()?;
        let norm = global_norm(&gradients)?;
        if let Some(max) = self.clip {
            clip(&mut gradients, norm, max)?;
        }
        self.n += 1;
        self.adam.update(&self.params, &gradients, self.n, self.lr)?;
        Ok(self.ema.update(&self.params, self.n)?)
    }

    fn parameters(&self) -> Option<usize> {
        Some(self.params.count())
    }
}
