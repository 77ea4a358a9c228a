//! Training does not depend on the number of threads, and what is adopted stays its owner's.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use candle_core::{DType, Device};
use sde_core::noise::Noise;
use sde_core::process::Vp;
use sde_data::{Split, digits};
use sde_nets::{Builder, Params, Resampling, Unet, UnetConfig, Weights};
use sde_train::checkpoint::{Checkpoint, Keep, Origin};
use sde_train::loss::{Dsm, Reduction, TimeLaw, Weighting};
use sde_train::*;

fn config() -> TrainConfig {
    let average = |name: &str, decay| EmaConfig { name: name.into(), law: EmaLaw::Ramp { decay } };
    TrainConfig {
        steps: 20,
        batch: 12,
        micro_batch: None,
        label_dropout: None,
        optimiser: AdamConfig {
            kind: AdamKind::Adam,
            lr: 1e-3,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.0,
        },
        schedule: Schedule { warmup_steps: 5.0, decay: Decay::Constant },
        clip: Some(1.0),
        replace_non_finite: None,
        ema: vec![average("short", 0.9), average("long", 0.999)],
        groups: vec![],
        log_every: 20,
        checkpoint_every: 20,
        sample_every: None,
        keep: Keep { last: 2, every: None },
        held_out: None,
        tensorboard: None,
    }
}

/// A network that reaches every operator of the published ones: dropout, attention, both algorithms of convolution.
fn network() -> Result<(Unet, Params)> {
    let net = UnetConfig {
        channels: 16,
        multipliers: vec![1, 2],
        blocks: 1,
        attention: vec![8],
        dropout: 0.1,
        groups: Some(4),
        resampling: Resampling::Conv,
        ..UnetConfig::ho_ddpm()
    };
    let build = |b: &Builder| Unet::new(b, &net, &[1, 8, 8]);
    Ok(Params::initialise(Noise::new(5), DType::F32, &Device::Cpu, build)?)
}

/// Trains from a state of the network's parameters; the weights at the end.
fn train(path: &Path, begin: impl FnOnce(&TrainConfig, &Params) -> Result<State>) -> Result<Weights> {
    let (config, origin) = (config(), Origin { seed: 5, config_sha256: "c".into(), code: "test".into() });
    let (model, params) = network()?;
    let mut state = begin(&config, &params)?;
    let mut run = RunDir::create_at(path, "", &BTreeMap::new())?;
    let time = TimeLaw::Uniform { from: 1e-5, to: 1.0 };
    let loss = Dsm::new(Arc::new(Vp::STANDARD), time, Weighting::Simple, Reduction::Mean)?;
    let task = Task {
        config: &config,
        origin: &origin,
        objective: &Scored { model: &model, loss: &loss },
        classes: None,
        data: Arc::new(digits(Split::Train)?),
        held_out: None,
    };
    fit(&task, &mut state, &mut run, 20, &AtomicBool::new(false), &mut ())?;
    Checkpoint::open(&path.join("checkpoints/step-20"))?.weights(WEIGHTS)
}

#[test]
fn twenty_steps_are_the_same_on_one_thread_and_on_two() -> Result<()> {
    let root = tempfile::tempdir().expect("a temporary directory");
    let on = |threads: usize| {
        // The tape is walked recursively.
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).stack_size(1 << 26).build();
        pool.expect("threads")
            .install(|| hash::weights_hash(&train(&root.path().join(threads.to_string()), State::new)?))
    };
    assert_eq!(on(1)?, on(2)?);
    let (_, fresh) = network()?;
    assert_ne!(on(3)?, hash::weights_hash(&fresh.to_weights()?)?);
    Ok(())
}

#[test]
fn training_leaves_adopted_weights_as_they_were_given() -> Result<()> {
    let root = tempfile::tempdir().expect("a temporary directory");
    let average = network()?.1.to_weights()?;
    let given = hash::weights_hash(&average)?;
    // Two averages start from the same weights.
    let trained = train(&root.path().join("run"), |config, params| {
        State::adopt(config, params, Some(&average), None, 0)
    })?;
    assert_eq!(hash::weights_hash(&average)?, given);
    assert_ne!(hash::weights_hash(&trained)?, given);
    Ok(())
}
