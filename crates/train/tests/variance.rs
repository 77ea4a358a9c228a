//! A second output learned on a frozen mean: close to its closed form, whatever the mean is worth, and resumed bit for bit.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use candle_core::{DType, Device, Tensor};
use sde_core::noise::{BatchNoise, Law, Noise, Stream};
use sde_core::oracle::Mixture;
use sde_core::process::Vp;
use sde_core::*;
use sde_data::{Batch, Dataset, Encoding, digits};
use sde_nets::{
    MlpConfig, NetConfig, Params, Resampling, RezeroConfig, SecondHead, TimeFeatures, UnetConfig, UpAttention,
};
use sde_train::checkpoint::{Keep, Origin};
use sde_train::loss::{Dsm, Loss, Reduction, TimeLaw, VarianceLoss, Weighting};
use sde_train::{
    AdamConfig, AdamKind, Decay, Result, RunDir, Schedule, Scored, State, Task, TrainConfig, fit, resume,
};

/// ½ N((−0.9, 0.2), diag(0.03, 0.3)) + ½ N((0.8, −0.2), diag(0.2, 0.05)).
struct TwoModes;

const MEANS: [[f64; 2]; 2] = [[-0.9, 0.2], [0.8, -0.2]];
const VARIANCES: [[f64; 2]; 2] = [[0.03, 0.3], [0.2, 0.05]];

fn law() -> Mixture {
    let diagonal =
        VARIANCES.map(|v| nalgebra::DMatrix::from_diagonal(&nalgebra::DVector::from_vec(v.to_vec())));
    Mixture::new(&[1.0, 1.0], &MEANS.map(|m| m.to_vec()), &diagonal).expect("a mixture")
}

impl Dataset for TwoModes {
    fn len(&self) -> usize {
        1 << 20
    }
    fn shape(&self) -> &[usize] {
        &[2]
    }
    fn encoding(&self) -> Encoding {
        Encoding::Continuous
    }
    fn classes(&self) -> usize {
        0
    }
    fn batch(&self, _: &[usize], noise: &BatchNoise) -> sde_data::Result<Batch> {
        let rows: Vec<f64> = noise
            .draws(Stream::Data, 0)
            .iter_mut()
            .flat_map(|draws| {
                let k = draws.below(2) as usize;
                [0, 1].map(|i| MEANS[k][i] + VARIANCES[k][i].sqrt() * draws.normal())
            })
            .collect();
        Ok(Batch {
            x: Tensor::from_vec(rows, (noise.samples.len(), 2), &Device::Cpu)?,
            labels: None,
            augment: None,
        })
    }
}

fn config(steps: u64, batch: usize) -> TrainConfig {
    TrainConfig {
        steps,
        batch,
        micro_batch: None,
        label_dropout: None,
        optimiser: AdamConfig {
            kind: AdamKind::Adam,
            lr: 3e-3,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.0,
        },
        schedule: Schedule { warmup_steps: 20.0, decay: Decay::Cosine },
        clip: None,
        replace_non_finite: None,
        ema: Vec::new(),
        groups: vec![],
        log_every: 1000,
        checkpoint_every: 100_000,
        sample_every: None,
        keep: Keep { last: 2, every: None },
        held_out: None,
        tensorboard: None,
    }
}

fn mlp() -> NetConfig {
    let time = TimeFeatures::Fourier { std: 1.0, log: true, time_scale: 1.0, time_shift: 0.0 };
    let (hidden, prediction) = (vec![48, 48], Prediction::V);
    NetConfig::Mlp(MlpConfig { prediction, hidden, time_dim: 16, time, state: None, classes: None })
}

/// One process: goes on with the run at `path` until `until`.
fn train(
    path: &Path,
    config: &TrainConfig,
    (model, params): (&dyn Model, &Params),
    loss: &dyn Loss,
    data: Arc<dyn Dataset>,
    until: u64,
) -> Result<()> {
    let mut run =
        if path.exists() { RunDir::open(path)? } else { RunDir::create_at(path, "", &BTreeMap::new())? };
    let origin = Origin { seed: 5, config_sha256: "c".into(), code: "test".into() };
    let mut state = State::new(config, params)?;
    resume(&mut run, &mut state, &origin)?;
    let objective = &Scored { model, loss };
    let task = Task { config, origin: &origin, objective, classes: None, data, held_out: None };
    fit(&task, &mut state, &mut run, until, &AtomicBool::new(false), &mut ())?;
    Ok(())
}

fn times() -> TimeLaw {
    TimeLaw::Uniform { from: 0.01, to: 1.0 }
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().and_then(|t| t.to_dtype(DType::F64)?.to_vec1()).expect("values")
}

#[test]
fn both_estimates_come_close_to_their_closed_forms() -> Result<()> {
    let root = tempfile::tempdir().expect("a temporary directory");
    let (sde, data, device) = (Vp::STANDARD, law(), Device::Cpu);
    // A mean that is not well trained.
    let (mean, params) = Params::initialise(Noise::new(1), DType::F32, &device, |b| mlp().build(b, &[2]))?;
    let dsm = Dsm::new(Arc::new(sde), times(), Weighting::Simple, Reduction::Mean)?;
    train(&root.path().join("mean"), &config(600, 128), (&mean, &params), &dsm, Arc::new(TwoModes), 600)?;
    let frozen = params.to_weights()?;
    let x = Tensor::new(&[[0.3f32, -0.4], [1.0, 0.1]], &device)?;
    let t = Tensor::new(&[0.3f32, 0.8], &device)?;
    let before = values(&mean.forward(&x, &t, Pass::EVAL)?);

    for second in [SecondMoment::Residual, SecondMoment::Square] {
        let build = |b: &sde_nets::Builder| SecondHead::new(b, &mlp(), &frozen, &[2]);
        let (model, head) = Params::initialise(Noise::new(2), DType::F32, &device, build)?;
        assert!(head.iter().all(|(name, _)| name.starts_with("head.")) && head.iter().count() == 4);
        let loss = VarianceLoss::new(Arc::new(sde), second, times(), Reduction::Mean)?;
        let path = root.path().join(format!("{second:?}"));
        train(&path, &config(2500, 256), (&model, &head), &loss, Arc::new(TwoModes), 2500)?;
        // The mean is what it was, bit for bit, in either kind of pass and beside the network that was frozen.
        assert_eq!(values(&model.forward(&x, &t, Pass::EVAL)?), before);
        assert_eq!(values(&model.forward_with_second(&x, &t, Pass::EVAL)?.0), before);
        assert_eq!(values(&mean.forward(&x, &t, Pass::EVAL)?), before);

        let field = ModelMoments::new(&model, second, &sde, DType::F32, &device);
        let oracle = OracleField::noise(&data, &sde);
        for t in [0.15, 0.3, 0.5, 0.8] {
            let noise = BatchNoise::new(Noise::new(9), 0, 0..2000);
            let clean = TwoModes.batch(&[], &noise)?.x;
            let eps = noise.tensor(Law::Normal, Stream::Diffusion, 0, &[2], DType::F64, &device)?;
            let x = ((clean * sde.alpha(t))? + (eps * sde.sigma(t))?)?;
            let (found, exact) = (field.moments(&x, &[t])?, oracle.moments(&x, &[t])?);
            // E[(ε − ε̂)² | x] = κ + (ε̂ − ε̂*)², and E[ε² | x] − ε̂² = κ + ε̂*² − ε̂².
            let of_mean = match second {
                SecondMoment::Residual => (&found.noise - &exact.noise)?.sqr()?,
                SecondMoment::Square => (exact.noise.sqr()? - found.noise.sqr()?)?,
            };
            let closed = values(&(&exact.variance + of_mean)?);
            let found = values(&found.variance);
            let n = closed.len() as f64;
            let mean = closed.iter().sum::<f64>() / n;
            let spread = (closed.iter().map(|c| (c - mean).powi(2)).sum::<f64>() / n).sqrt();
            let off = (closed.iter().zip(&found).map(|(c, f)| (c - f).powi(2)).sum::<f64>() / n).sqrt();
            let bias = found.iter().sum::<f64>() / n - mean;
            // An average over states has a standard error near sd(y)/√(examples near t): of 640,000 a twentieth, sd(y) is 1 for NPR and 2 for SN, so
            // 0.006 and 0.011. Five of the larger.
            assert!(bias.abs() < 0.056 * second.scale(&sde, t)?, "{second:?} at {t}: {bias}");
            // State by state. Where there is little noise κ changes faster with the state than the features of this small mean do.
            let bound = match second {
                SecondMoment::Residual if t < 0.4 => 0.8,
                SecondMoment::Residual => 0.3,
                SecondMoment::Square if t < 0.4 => 1.5,
                SecondMoment::Square => 0.6,
            };
            assert!(off < bound * spread, "{second:?} at {t}: {off} of {spread}");
        }
    }
    Ok(())
}

/// A network for images, small enough to train in a blink.
fn unet() -> NetConfig {
    let config = UnetConfig {
        prediction: Prediction::Noise,
        channels: 8,
        multipliers: vec![1, 2],
        blocks: 1,
        attention: vec![],
        up_attention: UpAttention::LastBlock,
        heads: 1,
        head_channels: None,
        dropout: 0.3,
        resampling: Resampling::Conv,
        pyramid: false,
        rescale: false,
        scale_shift: false,
        groups: Some(4),
        epsilon: None,
        pointwise_scale: None,
        classes: None,
        one_hot: false,
        augment: None,
        centre: false,
        checkpoint: false,
        time_dim: None,
        time: TimeFeatures::Fourier { std: 1.0, log: true, time_scale: 1.0, time_shift: 0.0 },
        precondition: None,
    };
    NetConfig::Unet(config)
}

#[test]
fn heads_stand_on_every_network_and_their_training_is_resumed_bit_for_bit() -> Result<()> {
    let root = tempfile::tempdir().expect("a temporary directory");
    let data: Arc<dyn Dataset> = Arc::new(digits(sde_data::Split::Train)?);
    let rezero = NetConfig::Rezero(RezeroConfig {
        prediction: Prediction::Data,
        width: 16,
        layers: 2,
        time_dim: 8,
        time: TimeFeatures::Fourier { std: 1.0, log: true, time_scale: 1.0, time_shift: 0.0 },
    });
    let shape = data.shape().to_vec();
    for (name, net) in [("unet", unet()), ("rezero", rezero)] {
        let (mean, params) =
            Params::initialise(Noise::new(1), DType::F32, &Device::Cpu, |b| net.build(b, &shape))?;
        let frozen = params.to_weights()?;
        let loss =
            VarianceLoss::new(Arc::new(Vp::STANDARD), SecondMoment::Residual, times(), Reduction::Mean)?;
        let outcome = |path: &Path, stops: &[u64]| -> Result<Vec<u8>> {
            for until in stops {
                let build = |b: &sde_nets::Builder| SecondHead::new(b, &net, &frozen, &shape);
                let (model, head) = Params::initialise(Noise::new(2), DType::F32, &Device::Cpu, build)?;
                train(path, &config(8, 4), (&model, &head), &loss, data.clone(), *until)?;
                let batch =
                    data.batch(&[0, 1], &BatchNoise::new(Noise::new(0), 0, 0..2))?.x.to_dtype(DType::F32)?;
                let t = Tensor::new(&[0.2f32, 0.7], &Device::Cpu)?;
                // Dropout is off in the frozen network, asked for or not.
                let noise = BatchNoise::new(Noise::new(3), 0, 0..2);
                let (first, second) =
                    model.forward_with_second(&batch, &t, Pass { dropout: Some(&noise), ..Pass::EVAL })?;
                assert_eq!(values(&first), values(&mean.forward(&batch, &t, Pass::EVAL)?));
                assert!(second.is_some_and(
                    |second| second.dims() == batch.dims() && values(&second).iter().all(|v| *v != 0.0)
                ));
            }
            Ok(fs::read(path.join("checkpoints/step-8/weights.safetensors")).expect("weights"))
        };
        let whole = outcome(&root.path().join(format!("{name}-whole")), &[8])?;
        assert_eq!(whole, outcome(&root.path().join(format!("{name}-halves")), &[3, 8])?);
        // A model of the mean alone is refused.
        let batch = data.batch(&[0], &BatchNoise::new(Noise::new(0), 0, 0..1))?;
        let batch = Batch { x: batch.x.to_dtype(DType::F32)?, labels: None, ..batch };
        let refused = loss.loss(&mean, &batch, &BatchNoise::new(Noise::new(0), 0, 0..1));
        let refused = refused.expect_err("there is no second output").to_string();
        assert!(refused.starts_with("second output of a model"), "{refused}");
    }
    Ok(())
}
