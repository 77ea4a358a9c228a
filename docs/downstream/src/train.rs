//! Training by hand: denoising score matching with the likelihood weighting, Adam with a linear decay to zero.

use std::sync::Arc;

use sde_core::noise::{BatchNoise, Noise};
use sde_core::{LinearSde, Model};
use sde_data::{Dataset, Order};
use sde_nets::Params;
use sde_train::loss::{Dsm, Loss, Reduction, TimeLaw, Weighting};
use sde_train::{Adam, AdamConfig, AdamKind, Gradients, Result};

const STEPS: u32 = 2000;
const BATCH: usize = 256;

/// Trains `model`, whose parameters are `params`.
pub fn train(
    model: &dyn Model,
    params: &Params,
    sde: impl LinearSde + 'static,
    data: &dyn Dataset,
) -> Result<()> {
    let span = sde.span();
    let time = TimeLaw::ImportanceSampled { from: span.sampling, to: span.end };
    let loss = Dsm::new(Arc::new(sde), time, Weighting::Likelihood, Reduction::Mean)?;
    let lr = 3e-3;
    let config =
        AdamConfig { kind: AdamKind::Adam, lr, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 };
    let (mut adam, order) = (Adam::new(config, params)?, Order::new(data.len(), 0)?);
    for step in 0..STEPS {
        let noise = BatchNoise::new(Noise::new(1), step, 0..BATCH as u32);
        let batch = data.batch(&order.indices(u64::from(step), BATCH), &noise)?;
        let tape = loss.loss(model, &batch, &noise)?.total.backward()?;
        let gradients: Gradients =
            params.iter().filter_map(|(name, var)| Some((name.to_owned(), tape.get(var)?.clone()))).collect();
        let decay = 1.0 - f64::from(step) / f64::from(STEPS);
        adam.update(params, &gradients, u64::from(step) + 1, lr * decay)?;
    }
    Ok(())
}
