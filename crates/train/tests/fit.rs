//! The training loop: a run that is interrupted and resumed is the run that is not, bit for bit.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{DType, Device};
use sde_core::noise::{BatchNoise, Noise, Stream};
use sde_core::process::Vp;
use sde_core::{Model, Prediction};
use sde_data::{Batch, Dataset, Split, Toy, ToySet, digits};
use sde_nets::{MlpConfig, NetConfig, Params, TimeFeatures, UnetConfig, UpAttention};
use sde_train::checkpoint::{Checkpoint, Keep, Origin};
use sde_train::loss::{Dsm, Loss, LossValue, Reduction, TimeLaw, Weighting};
use sde_train::*;

const SEED: u64 = 11;

fn config() -> TrainConfig {
    TrainConfig {
        steps: 100,
        batch: 16,
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
        schedule: Schedule { warmup_steps: 5.0, decay: Decay::Cosine },
        clip: Some(1.0),
        replace_non_finite: None,
        ema: vec![
            EmaConfig { name: "short".into(), law: EmaLaw::Ramp { decay: 0.9 } },
            EmaConfig { name: "long".into(), law: EmaLaw::HalfLife { steps: 50.0, ramp: Some(0.05) } },
        ],
        groups: vec![],
        log_every: 4,
        checkpoint_every: 7,
        sample_every: Some(9),
        keep: Keep { last: 2, every: None },
        held_out: Some(HeldOut { every: 6, examples: 20 }),
        tensorboard: None,
    }
}

fn origin() -> Origin {
    Origin { seed: SEED, config_sha256: "c".into(), code: "test".into() }
}

fn points(split: Split) -> Arc<dyn Dataset> {
    Arc::new(ToySet::new(Toy::by_name("checkerboard").expect("a set"), 3, split, 50))
}

fn small_net() -> Result<(Box<dyn Model + Send + Sync>, Params)> {
    let time = TimeFeatures::Fourier { std: 1.0, log: false, time_scale: 1.0, time_shift: 0.0 };
    let net = NetConfig::Mlp(MlpConfig {
        prediction: Prediction::Noise,
        hidden: vec![16, 16],
        time_dim: 8,
        time,
        state: None,
        classes: None,
    });
    Ok(Params::initialise(Noise::new(SEED), DType::F32, &Device::Cpu, |b| net.build(b, &[2]))?)
}

fn dsm() -> Result<Dsm> {
    let time = TimeLaw::Uniform { from: 1e-5, to: 1.0 };
    Dsm::new(Arc::new(Vp::STANDARD), time, Weighting::Simple, Reduction::Mean)
}

/// Ends the training after a number of sample sheets and log lines, as a crash would.
struct Crash {
    after: Option<u64>,
}

impl Hooks for Crash {
    fn on_sample(&mut self, state: &State) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        match self.after {
            Some(after) if state.step() >= after => Err("power cut".into()),
            _ => Ok(()),
        }
    }
}

/// One process: opens the run at `path`, resumes it, trains until `until`, or crashes.
fn process(path: &Path, config: &TrainConfig, until: u64, crash: Option<u64>) -> Result<Ended> {
    let mut run =
        if path.exists() { RunDir::open(path)? } else { RunDir::create_at(path, "", &BTreeMap::new())? };
    let (model, params) = small_net()?;
    let mut state = State::new(config, &params)?;
    resume(&mut run, &mut state, &origin())?;
    let task = Task {
        config,
        origin: &origin(),
        objective: &Scored { model: &model, loss: &dsm()? },
        classes: None,
        data: points(Split::Train),
        held_out: Some(points(Split::Test)),
    };
    fit(&task, &mut state, &mut run, until, &AtomicBool::new(false), &mut Crash { after: crash })
}

/// Every file that a run is judged by: the last checkpoint and the log.
fn outcome(path: &Path, step: u64) -> Vec<(String, Vec<u8>)> {
    let checkpoint = path.join(format!("checkpoints/step-{step}"));
    let mut files: Vec<_> = fs::read_dir(&checkpoint)
        .expect("a checkpoint")
        .map(|entry| entry.expect("a file").path())
        .chain([path.join("log.jsonl")])
        .map(|file| {
            (
                file.file_name().expect("a name").to_string_lossy().into_owned(),
                fs::read(&file).expect("a file"),
            )
        })
        .collect();
    files.sort();
    files
}

#[test]
fn forty_steps_are_twenty_and_twenty() -> Result<()> {
    let root = tempfile::tempdir().expect("a temporary directory");
    let (whole, halves) = (root.path().join("whole"), root.path().join("halves"));
    let ended = process(&whole, &config(), 40, None)?;
    assert_eq!((ended.step, ended.stopped), (40, false));
    process(&halves, &config(), 20, None)?;
    process(&halves, &config(), 40, None)?;
    let files = outcome(&whole, 40);
    assert_eq!(files, outcome(&halves, 40));
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    let expected = [
        "adam.safetensors",
        "ema-long.safetensors",
        "ema-short.safetensors",
        "log.jsonl",
        "manifest.json",
        "weights.safetensors",
        "window.safetensors",
    ];
    assert_eq!(names, expected);
    // Something was learned, so equality is not that of two runs that did nothing.
    let (_, fresh) = small_net()?;
    let trained = Checkpoint::open(&whole.join("checkpoints/step-40"))?.weights(WEIGHTS)?;
    assert_ne!(hash::weights_hash(&fresh.to_weights()?)?, hash::weights_hash(&trained)?);
    assert_eq!(checkpoint::steps(&whole.join("checkpoints"))?, [35, 40]);
    Ok(())
}

#[test]
fn a_run_survives_twenty_crashes() -> Result<()> {
    let root = tempfile::tempdir().expect("a temporary directory");
    let (whole, broken) = (root.path().join("whole"), root.path().join("broken"));
    let config = TrainConfig { sample_every: Some(1), checkpoint_every: 3, ..config() };
    process(&whole, &config, 60, None)?;
    let mut draws = Noise::new(1).draws(Stream::User, 0, 0);
    for _ in 0..20 {
        // Crashes come a few steps after the last checkpoint, which may be before, at, or after the next one.
        let last = checkpoint::steps(&broken.join("checkpoints")).ok().and_then(|s| s.last().copied());
        let after = last.unwrap_or(0) + 1 + draws.below(5);
        let crashed = process(&broken, &config, 60, Some(after.min(60)));
        assert!(matches!(crashed, Err(Error::Hook(_))), "{crashed:?}");
        // A crash in the middle of a line of the log.
        let log = broken.join("log.jsonl");
        let torn = [fs::read(&log).expect("a log"), b"{\"step\":5".to_vec()].concat();
        fs::write(&log, torn).expect("a write");
    }
    process(&broken, &config, 60, None)?;
    assert_eq!(outcome(&whole, 60), outcome(&broken, 60));
    let log = String::from_utf8(fs::read(whole.join("log.jsonl")).expect("a log")).expect("text");
    let steps: Vec<u64> = log
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).expect("json")["step"].as_u64().expect("a step")
        })
        .collect();
    let expected: Vec<u64> = (1..=60).filter(|s| s % 4 == 0 || s % 6 == 0).collect();
    assert_eq!(steps, expected);
    Ok(())
}

#[test]
fn resume_falls_back_past_a_damaged_checkpoint() -> Result<()> {
    let root = tempfile::tempdir().expect("a temporary directory");
    let (whole, damaged) = (root.path().join("whole"), root.path().join("damaged"));
    process(&whole, &config(), 20, None)?;
    process(&damaged, &config(), 17, None)?;
    let file = damaged.join("checkpoints/step-17/adam.safetensors");
    let mut bytes = fs::read(&file).expect("a file");
    *bytes.last_mut().expect("a byte") ^= 1;
    fs::write(&file, bytes).expect("a write");
    let (_, params) = small_net()?;
    let mut state = State::new(&config(), &params)?;
    let mut run = RunDir::open(&damaged)?;
    let resumed = resume(&mut run, &mut state, &origin())?;
    assert_eq!(resumed.checkpoint, Some(damaged.join("checkpoints/step-14")));
    assert!(matches!(&resumed.skipped[..], [(_, Error::Corrupt { file: found, .. })] if *found == file));
    drop(run);
    process(&damaged, &config(), 20, None)?;
    assert_eq!(outcome(&whole, 20), outcome(&damaged, 20));
    Ok(())
}

#[test]
fn another_seed_or_configuration_or_network_is_refused_and_changes_nothing() -> Result<()> {
    let root = tempfile::tempdir().expect("a temporary directory");
    let path = root.path().join("run");
    process(&path, &config(), 5, None)?;
    let saved = Checkpoint::open(&path.join("checkpoints/step-5"))?;
    let (_, params) = small_net()?;
    let before = hash::weights_hash(&params.to_weights()?)?;
    let mut state = State::new(&config(), &params)?;
    for other in [Origin { seed: 1, ..origin() }, Origin { config_sha256: "d".into(), ..origin() }] {
        assert!(matches!(state.restore(&saved, &other), Err(Error::Resume { .. })));
    }
    let time = TimeFeatures::Fourier { std: 1.0, log: false, time_scale: 1.0, time_shift: 0.0 };
    let wider = MlpConfig {
        prediction: Prediction::Noise,
        hidden: vec![16, 17],
        time_dim: 8,
        time,
        state: None,
        classes: None,
    };
    let build = |b: &sde_nets::Builder| NetConfig::Mlp(wider).build(b, &[2]);
    let (_, wider) = Params::initialise(Noise::new(SEED), DType::F32, &Device::Cpu, build)?;
    let mut other = State::new(&config(), &wider)?;
    assert!(matches!(other.restore(&saved, &origin()), Err(Error::Corrupt { .. })));
    assert_eq!((other.step(), state.step()), (0, 0));
    assert_eq!(hash::weights_hash(&params.to_weights()?)?, before);
    state.restore(&saved, &origin())?;
    assert_eq!(state.step(), 5);
    assert_ne!(hash::weights_hash(&params.to_weights()?)?, before);
    Ok(())
}

/// A loss that goes wrong at one step.
struct Broken {
    loss: Dsm,
    at: u32,
    factor: f64,
}

impl Loss for Broken {
    fn loss(&self, model: &dyn Model, batch: &Batch, noise: &BatchNoise) -> Result<LossValue> {
        let LossValue { total, terms, gradients } = self.loss.loss(model, batch, noise)?;
        let factor = if noise.step == self.at { self.factor } else { 1.0 };
        Ok(LossValue { total: (total * factor)?, terms, gradients })
    }
}

#[test]
fn a_loss_that_is_not_finite_changes_nothing() -> Result<()> {
    // The loss overflows f32, or is not a number; at step index 9, so in the tenth update.
    for factor in [f64::NAN, 1e39] {
        let root = tempfile::tempdir().expect("a temporary directory");
        let mut run = RunDir::create_at(&root.path().join("run"), "", &BTreeMap::new())?;
        let (model, params) = small_net()?;
        let config = config();
        let mut state = State::new(&config, &params)?;
        let loss = Broken { loss: dsm()?, at: 9, factor };
        let task = Task {
            config: &config,
            origin: &origin(),
            objective: &Scored { model: &model, loss: &loss },
            classes: None,
            data: points(Split::Train),
            held_out: None,
        };
        let error = fit(&task, &mut state, &mut run, 20, &AtomicBool::new(false), &mut ());
        match error {
            Err(Error::NonFinite { step: 10, checkpoint: Some(path), .. }) => {
                assert!(path.ends_with("step-7"))
            }
            other => panic!("expected a loss that is not finite, found {other:?}"),
        }
        assert_eq!(state.step(), 9);
        assert!(params.to_weights()?.iter().all(|(_, w)| {
            w.flatten_all().and_then(|w| w.to_vec1::<f32>()).is_ok_and(|w| w.iter().all(|v| v.is_finite()))
        }));
        assert_eq!(checkpoint::steps(&run.checkpoints())?, [7]);
    }
    Ok(())
}

/// A loss whose gradient at one step is infinite in one direction and not a number in the others, its value zero.
struct Overflowing(Dsm);

impl Loss for Overflowing {
    fn loss(&self, model: &dyn Model, batch: &Batch, noise: &BatchNoise) -> Result<LossValue> {
        let LossValue { total, terms, gradients } = self.0.loss(model, batch, noise)?;
        // The slope of √x at 0 is infinite.
        let root = ((&total - &total.detach())?.sqrt())?;
        Ok(LossValue { total: if noise.step == 3 { root } else { total }, terms, gradients })
    }
}

#[test]
fn gradients_that_are_not_finite_stop_the_training_or_are_replaced_where_asked() -> Result<()> {
    for replace_non_finite in [None, Some(1e5)] {
        let root = tempfile::tempdir().expect("a temporary directory");
        let mut run = RunDir::create_at(&root.path().join("run"), "", &BTreeMap::new())?;
        let (model, params) = small_net()?;
        let config = TrainConfig { replace_non_finite, clip: None, ..config() };
        let mut state = State::new(&config, &params)?;
        let loss = Overflowing(dsm()?);
        let task = Task {
            config: &config,
            origin: &origin(),
            objective: &Scored { model: &model, loss: &loss },
            classes: None,
            data: points(Split::Train),
            held_out: None,
        };
        let ended = fit(&task, &mut state, &mut run, 6, &AtomicBool::new(false), &mut ());
        match replace_non_finite {
            None => assert!(matches!(ended, Err(Error::NonFinite { step: 4, .. })), "{ended:?}"),
            Some(_) => assert_eq!(ended?.step, 6),
        }
        assert!(params.to_weights()?.iter().all(|(_, w)| {
            w.flatten_all().and_then(|w| w.to_vec1::<f32>()).is_ok_and(|w| w.iter().all(|v| v.is_finite()))
        }));
    }
    Ok(())
}

#[test]
fn a_raised_flag_stops_at_the_next_step_with_a_checkpoint() -> Result<()> {
    struct Raise<'a>(&'a AtomicBool);
    impl Hooks for Raise<'_> {
        fn on_log(&mut self, record: &LogRecord) {
            self.0.store(record.step >= 6, Ordering::Relaxed);
        }
    }
    let root = tempfile::tempdir().expect("a temporary directory");
    let mut run = RunDir::create_at(&root.path().join("run"), "", &BTreeMap::new())?;
    let (model, params) = small_net()?;
    let config = config();
    let mut state = State::new(&config, &params)?;
    let task = Task {
        config: &config,
        origin: &origin(),
        objective: &Scored { model: &model, loss: &dsm()? },
        classes: None,
        data: points(Split::Train),
        held_out: Some(points(Split::Test)),
    };
    let flag = AtomicBool::new(false);
    let ended = fit(&task, &mut state, &mut run, 20, &flag, &mut Raise(&flag))?;
    assert_eq!((ended.step, ended.stopped), (6, true));
    assert_eq!(ended.checkpoint, Some(run.checkpoints().join("step-6")));
    Ok(())
}

#[test]
fn micro_batches_add_up_to_the_batch_dropout_included() -> Result<()> {
    let time = TimeFeatures::Sinusoidal {
        max_period: 1e4,
        freq_shift: 1,
        flip_sin_to_cos: false,
        time_scale: 999.0,
        time_shift: 0.0,
    };
    let net = UnetConfig {
        channels: 8,
        multipliers: vec![1, 2],
        blocks: 1,
        attention: vec![4],
        up_attention: UpAttention::LastBlock,
        dropout: 0.0,
        groups: Some(4),
        classes: Some(10),
        time,
        ..UnetConfig::ho_ddpm()
    };
    let run = |micro_batch: Option<usize>, dropout: f64, checkpoint: bool| -> Result<(Vec<f64>, Vec<f64>)> {
        struct Losses(Vec<f64>);
        impl Hooks for Losses {
            fn on_log(&mut self, record: &LogRecord) {
                self.0.extend([record.loss, record.gradient_norm]);
                self.0.extend(record.held_out_loss);
            }
        }
        let root = tempfile::tempdir().expect("a temporary directory");
        let mut run = RunDir::create_at(&root.path().join("run"), "", &BTreeMap::new())?;
        let net = NetConfig::Unet(UnetConfig { dropout, checkpoint, ..net.clone() });
        // In f64, so that a wrong mask or share is not taken for rounding.
        let (model, params) =
            Params::initialise(Noise::new(SEED), DType::F64, &Device::Cpu, |b| net.build(b, &[1, 8, 8]))?;
        let config = TrainConfig {
            batch: 10,
            micro_batch,
            groups: vec![],
            log_every: 1,
            held_out: Some(HeldOut { every: 2, examples: 7 }),
            ..config()
        };
        let mut state = State::new(&config, &params)?;
        let task = Task {
            config: &config,
            origin: &origin(),
            objective: &Scored { model: &model, loss: &dsm()? },
            classes: net.classes(),
            data: Arc::new(digits(Split::Train)?),
            held_out: Some(Arc::new(digits(Split::Test)?)),
        };
        let mut losses = Losses(Vec::new());
        fit(&task, &mut state, &mut run, 4, &AtomicBool::new(false), &mut losses)?;
        let mut weights = Vec::new();
        for (_, tensor) in params.to_weights()?.iter() {
            weights.extend(tensor.flatten_all()?.to_vec1::<f64>()?);
        }
        Ok((losses.0, weights))
    };
    let gap = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    let whole = run(None, 0.3, false)?;
    // 4 does not divide 10: the last part counts less.
    let parts = run(Some(4), 0.3, false)?;
    assert!(gap(&whole.0, &parts.0) < 1e-9 && gap(&whole.1, &parts.1) < 1e-9, "{:?} {:?}", whole.0, parts.0);
    // Activation checkpointing sums in another order, and nothing else.
    let replayed = run(Some(4), 0.3, true)?;
    assert!(gap(&whole.0, &replayed.0) < 1e-9 && gap(&whole.1, &replayed.1) < 1e-9, "{:?}", replayed.0);
    // The masks have left their mark.
    let without = run(None, 0.0, false)?;
    assert!(gap(&whole.0, &without.0) > 1e-6 && gap(&whole.1, &without.1) > 1e-6);
    Ok(())
}

#[test]
fn an_unused_parameter_is_named() -> Result<()> {
    let root = tempfile::tempdir().expect("a temporary directory");
    let mut run = RunDir::create_at(&root.path().join("run"), "", &BTreeMap::new())?;
    let time = TimeFeatures::Fourier { std: 1.0, log: false, time_scale: 1.0, time_shift: 0.0 };
    let net = NetConfig::Mlp(MlpConfig {
        prediction: Prediction::Noise,
        hidden: vec![4],
        time_dim: 4,
        time,
        state: None,
        classes: None,
    });
    let build = |b: &sde_nets::Builder| {
        b.get(&[3], "unused", sde_nets::Init::Constant(0.0))?;
        net.build(b, &[2])
    };
    let (model, params) = Params::initialise(Noise::new(SEED), DType::F32, &Device::Cpu, build)?;
    let config = config();
    let mut state = State::new(&config, &params)?;
    let task = Task {
        config: &config,
        origin: &origin(),
        objective: &Scored { model: &model, loss: &dsm()? },
        classes: None,
        data: points(Split::Train),
        held_out: None,
    };
    let error = fit(&task, &mut state, &mut run, 20, &AtomicBool::new(false), &mut ());
    assert!(matches!(error, Err(Error::NoGradient { name }) if name == "unused"));
    Ok(())
}

#[test]
fn configurations_that_cannot_be_run_are_refused_by_field() {
    let field = |config: TrainConfig| match config.check() {
        Err(Error::Config { field, .. }) => field,
        other => panic!("expected a refused configuration, found {other:?}"),
    };
    assert!(config().check().is_ok());
    assert_eq!(field(TrainConfig { batch: 0, ..config() }), "batch");
    assert_eq!(field(TrainConfig { micro_batch: Some(0), ..config() }), "micro_batch");
    assert_eq!(field(TrainConfig { steps: 1 << 33, ..config() }), "steps");
    assert_eq!(field(TrainConfig { log_every: 0, ..config() }), "log_every");
    assert_eq!(field(TrainConfig { clip: Some(f64::NAN), ..config() }), "clip");
    let infinite = Some(f64::INFINITY);
    assert_eq!(field(TrainConfig { replace_non_finite: infinite, ..config() }), "replace_non_finite");
    assert_eq!(field(TrainConfig { label_dropout: Some(1.5), ..config() }), "label_dropout");
    assert_eq!(field(TrainConfig { label_dropout: Some(0.0), ..config() }), "label_dropout");
    let ema = |name: &str| EmaConfig { name: name.into(), law: EmaLaw::Constant { decay: 0.9 } };
    assert_eq!(field(TrainConfig { ema: vec![ema("../a")], ..config() }), "ema.name");
    assert_eq!(field(TrainConfig { ema: vec![ema("a"), ema("a")], ..config() }), "ema.name");
    let law = EmaLaw::Constant { decay: 1.0 };
    assert_eq!(field(TrainConfig { ema: vec![EmaConfig { name: "a".into(), law }], ..config() }), "ema.law");
    let optimiser = AdamConfig { beta2: 1.0, ..config().optimiser };
    assert_eq!(field(TrainConfig { optimiser, ..config() }), "optimiser.beta2");
}
