//! A small network trained on one Gaussian by a loop written out, and what it learned next to the truth.
//!
//! For data N(m, v) under a scalar process the exact noise prediction is `ε(u, t) = σ (u − α m) / (α² v + σ²)`.
//!
//! `cargo run --release -p sde-train --example gaussian`
#![allow(clippy::print_stdout, reason = "an example that reports")]

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use sde_core::noise::{BatchNoise, Law, Noise, Stream};
use sde_core::{Field, ModelField, OracleField, Prediction, ScalarSde, oracle::Mixture, process::Vp};
use sde_data::Batch;
use sde_nets::{Builder, MlpConfig, NetConfig, Params, TimeFeatures};
use sde_train::loss::{Dsm, Loss, Reduction, TimeLaw, Weighting};
use sde_train::{Adam, AdamConfig, AdamKind, Gradients, Result};

const MEAN: f64 = 0.8;
const STD: f64 = 0.3;
const STEPS: u32 = 2000;
const BATCH: u32 = 256;

fn main() -> Result<()> {
    let device = Device::Cpu;
    // Features of log t: on t itself times below 0.1 look alike.
    let time = TimeFeatures::Fourier { std: 1.0, log: true, time_scale: 1.0, time_shift: 0.0 };
    let mlp = MlpConfig {
        prediction: Prediction::Noise,
        hidden: vec![32, 32],
        time_dim: 16,
        time,
        state: None,
        classes: None,
    };
    let build = |b: &Builder| NetConfig::Mlp(mlp.clone()).build(b, &[1]);
    let (net, params) = Params::initialise(Noise::new(0), DType::F32, &device, build)?;

    let sde = Vp::STANDARD;
    let times = TimeLaw::Uniform { from: 1e-3, to: 1.0 };
    let loss = Dsm::new(Arc::new(sde), times, Weighting::Simple, Reduction::Mean)?;
    let config =
        AdamConfig { kind: AdamKind::Adam, lr: 3e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 };
    let mut adam = Adam::new(config, &params)?;
    for step in 0..STEPS {
        let noise = BatchNoise::new(Noise::new(1), step, 0..BATCH);
        let normal = noise.tensor(Law::Normal, Stream::Data, 0, &[1], DType::F32, &device)?;
        let batch = Batch { x: normal.affine(STD, MEAN)?, labels: None, augment: None };
        let value = loss.loss(&net, &batch, &noise)?.total;
        let tape = value.backward()?;
        let gradients: Gradients =
            params.iter().filter_map(|(name, var)| Some((name.to_owned(), tape.get(var)?.clone()))).collect();
        // Linear decay to zero.
        let lr = config.lr * (1.0 - f64::from(step) / f64::from(STEPS));
        adam.update(&params, &gradients, u64::from(step) + 1, lr)?;
    }

    // The learned field, on plain tensors, against the exact one, at the mean and two deviations to each side. Where t is
    // small almost no noise is left to be seen, and a network learns it last:
    //
    //      t        u    exact  learned
    //   0.01    0.193   -0.295   -0.367
    //    0.1   -0.101   -1.500   -1.554
    //    0.3   -1.096   -1.943   -1.936
    //      1   -1.995   -2.000   -2.020
    let frozen = params.to_weights()?.freeze(DType::F32, &device, build)?;
    let learned = ModelField::new(frozen, DType::F32, &device);
    let data = Mixture::diagonal(vec![MEAN], vec![STD * STD])?;
    let exact = OracleField::noise(&data, &sde);
    println!("     t        u    exact  learned");
    for t in [0.01, 0.1, 0.3, 1.0] {
        let (alpha, sigma) = (sde.alpha(t), sde.sigma(t));
        for side in [-2.0, 0.0, 2.0] {
            let u = alpha * MEAN + side * (alpha * STD).hypot(sigma);
            let x = Tensor::new(&[[u]], &device)?;
            let at = |field: &dyn Field| -> Result<f64> {
                Ok(field.eval(&x, &[t])?.flatten_all()?.to_vec1::<f64>()?[0])
            };
            println!("{t:>6} {u:>8.3} {:>8.3} {:>8.3}", at(&exact)?, at(&learned)?);
        }
    }
    Ok(())
}
