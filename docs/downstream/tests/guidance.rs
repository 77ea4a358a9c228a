//! Classifier-free guidance on the digits: with the weight, samples become more like their class and more like each other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use candle_core::{DType, Device};
use downstream::classes::{Classifier, measure};
use sde_core::Prediction;
use sde_core::noise::Noise;
use sde_core::process::Vp;
use sde_data::{Split, digits};
use sde_nets::{MlpConfig, NetConfig, Params, TimeFeatures};
use sde_train::checkpoint::{Keep, Origin};
use sde_train::loss::{Dsm, Reduction, TimeLaw, Weighting};
use sde_train::{
    AdamConfig, AdamKind, Decay, EmaConfig, EmaLaw, RunDir, Schedule, Scored, State, Task, TrainConfig, fit,
};

const STEPS: u64 = 6000;

fn config() -> TrainConfig {
    TrainConfig {
        steps: STEPS,
        batch: 128,
        micro_batch: None,
        label_dropout: Some(0.15),
        optimiser: AdamConfig {
            kind: AdamKind::Adam,
            lr: 2e-3,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.0,
        },
        schedule: Schedule { warmup_steps: 50.0, decay: Decay::Cosine },
        clip: Some(1.0),
        replace_non_finite: None,
        ema: vec![EmaConfig { name: "main".into(), law: EmaLaw::Ramp { decay: 0.995 } }],
        groups: vec![],
        log_every: STEPS,
        checkpoint_every: STEPS,
        sample_every: None,
        keep: Keep { last: 2, every: None },
        held_out: None,
        tensorboard: None,
    }
}

#[test]
fn guidance_trades_diversity_for_the_class() -> Result<(), Box<dyn std::error::Error>> {
    let classifier = Classifier::train(Noise::new(7))?;
    let judge = classifier.held_out()?;
    assert!(judge.value > 0.95, "the classifier is right on {} of the held-out digits", judge.value);

    let time = TimeFeatures::Fourier { std: 0.3, log: true, time_scale: 1.0, time_shift: 0.0 };
    let net = NetConfig::Mlp(MlpConfig {
        prediction: Prediction::V,
        hidden: vec![192, 192, 192],
        time_dim: 32,
        time,
        state: None,
        classes: Some(10),
    });
    let build = |b: &sde_nets::Builder| net.build(b, &[1, 8, 8]);
    let (model, params) = Params::initialise(Noise::new(0), DType::F32, &Device::Cpu, build)?;
    let (config, place) = (config(), tempfile::tempdir()?);
    let mut run = RunDir::create_at(&place.path().join("run"), "", &BTreeMap::new())?;
    let mut state = State::new(&config, &params)?;
    let (sde, times) = (Vp::STANDARD, TimeLaw::Uniform { from: 1e-3, to: 1.0 });
    let loss = Dsm::new(Arc::new(sde), times, Weighting::Simple, Reduction::Mean)?;
    let task = Task {
        config: &config,
        origin: &Origin { seed: 0, config_sha256: String::new(), code: String::new() },
        objective: &Scored { model: &model, loss: &loss },
        classes: net.classes(),
        data: Arc::new(digits(Split::Train)?),
        held_out: None,
    };
    fit(&task, &mut state, &mut run, STEPS, &AtomicBool::new(false), &mut ())?;

    let weights = state.averages()[0].to_weights()?.freeze(DType::F32, &Device::Cpu, build)?;
    let rows = measure(&weights, &sde, &classifier, &[-1.0, 0.0, 0.5], 100)?;
    // Each step up the weights is told from the noise of both its ends.
    for pair in rows.windows(2) {
        let error = |a: Option<f64>, b: Option<f64>| a.unwrap_or(f64::NAN).hypot(b.unwrap_or(f64::NAN));
        let more = pair[1].accuracy.value - pair[0].accuracy.value;
        let of_more = error(pair[0].accuracy.standard_error, pair[1].accuracy.standard_error);
        let less = pair[0].diversity.value - pair[1].diversity.value;
        let of_less = error(pair[0].diversity.standard_error, pair[1].diversity.standard_error);
        assert!(more > 3.0 * of_more && less > 3.0 * of_less, "{rows:#?}");
    }
    Ok(())
}
