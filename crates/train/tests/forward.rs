//! Learned processes after training: the process that is frozen is the one that was trained, and parameters that are
//! frozen stay as they are, whatever happens in between.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use candle_core::{DType, Device, Tensor};
use sde_core::noise::Noise;
use sde_core::process::Vp;
use sde_core::{Model, Pass, Prediction, check_process, convert};
use sde_data::{Split, Toy, ToySet};
use sde_nets::{Builder, MlpConfig, NetConfig, OrthogonalConfig, Params, TimeFeatures, Weights};
use sde_train::checkpoint::{Checkpoint, Keep, Origin};
use sde_train::loss::{Flexible, Reduction, TimeLaw, Weighting};
use sde_train::*;

fn config(family: Family) -> ForwardConfig {
    ForwardConfig { beta_0: 0.1, beta_1: 20.0, family }
}

fn wave(count: usize, phase: f64) -> Vec<f64> {
    (0..count).map(|k| (1.3 * k as f64 + phase).sin()).collect()
}

/// Every family and every map, on a sample of 3 × 2 × 2 but for the small ones.
fn cases() -> Vec<(Family, Vec<usize>)> {
    use OrthogonalConfig::*;
    let maps = [
        Exponential { std: 1.0 },
        Cayley { std: 1.0 },
        Householder { reflections: 2, std: 0.5 },
        Blocks { size: 4, std: 1.0 },
        Kronecker { std: 1.0 },
        Cosine {},
        Axes {},
    ];
    let noise = maps.map(|map| (Family::Noise { map, std: 0.4, normalise: true, floor: 0.1 }, vec![3, 2, 2]));
    let drift = maps.map(|map| (Family::Drift { map, std: 0.4 }, vec![3, 2, 2]));
    let odd = (Family::Drift { map: Exponential { std: 1.0 }, std: 0.4 }, vec![5]);
    noise.into_iter().chain(drift).chain([odd, (Family::Rotation { std: 0.5 }, vec![5])]).collect()
}

/// Zeros, and as many beside them.
struct Twofold;

impl Model for Twofold {
    fn prediction(&self) -> Prediction {
        Prediction::Noise
    }
    fn forward(&self, x: &Tensor, _t: &Tensor, _pass: Pass<'_>) -> sde_core::Result<Tensor> {
        Ok(x.zeros_like()?)
    }
    fn forward_with_second(
        &self,
        x: &Tensor,
        _t: &Tensor,
        _pass: Pass<'_>,
    ) -> sde_core::Result<(Tensor, Option<Tensor>)> {
        Ok((x.zeros_like()?, Some(x.zeros_like()?)))
    }
}

#[test]
fn a_second_output_is_not_seen_in_a_frame_that_turns() -> Result<()> {
    let build = |b: &Builder| Forward::new(b, &config(Family::Rotation { std: 0.5 }), &[3]);
    let (forward, _) = Params::initialise(Noise::new(4), DType::F64, &Device::Cpu, build)?;
    let sde = forward.process()?;
    let x = Tensor::from_vec(wave(6, 0.3), (2, 3), &Device::Cpu)?;
    let times = Tensor::new(&[0.2, 0.4], &Device::Cpu)?;
    let twofold = StateFrame::new(Twofold, sde.clone()).forward_with_second(&x, &times, Pass::EVAL);
    let error = twofold.expect_err("a second output").to_string();
    assert!(error.contains("second output") && error.contains("noise"), "{error}");
    // Without one, it is the model that it is otherwise.
    let single = StateFrame::new(Constant(Prediction::Noise, x.clone()), sde);
    let (output, second) = single.forward_with_second(&x, &times, Pass::EVAL)?;
    assert!(second.is_none());
    assert_eq!(largest(&output, &single.forward(&x, &times, Pass::EVAL)?)?, 0.0);
    Ok(())
}

#[test]
fn a_process_is_frozen_when_the_last_of_its_parameters_is() {
    let names = ["forward.log_rates", "forward.map.upper"];
    let frozen = |groups: &[(&str, Option<u64>)]| {
        let group = |&(prefix, freeze_after): &(&str, Option<u64>)| Group {
            prefix: prefix.to_owned(),
            rate: 1.0,
            freeze_after,
        };
        let groups = groups.iter().map(group).collect();
        TrainConfig { groups, ..training(1) }.frozen_after(names.into_iter())
    };
    assert_eq!(frozen(&[("forward.", Some(5))]), Some(5));
    assert_eq!(frozen(&[("forward.map.", Some(9)), ("forward.", Some(5))]), Some(9));
    assert_eq!(frozen(&[("forward.map.", None), ("forward.", Some(5))]), None);
    assert_eq!(frozen(&[("forward.map.", Some(3)), ("forward.log", Some(4))]), Some(4));
    assert_eq!(frozen(&[("forward.map.", Some(3))]), None);
    // The first group that fits counts, not the narrowest.
    assert_eq!(frozen(&[("forward.", Some(5)), ("forward.map.", None)]), Some(5));
    assert_eq!(frozen(&[]), None);
}

/// The same output at every state.
struct Constant(Prediction, Tensor);

impl Model for Constant {
    fn prediction(&self) -> Prediction {
        self.0
    }
    fn forward(&self, _x: &Tensor, _t: &Tensor, _pass: Pass<'_>) -> sde_core::Result<Tensor> {
        Ok(self.1.clone())
    }
}

fn largest(a: &Tensor, b: &Tensor) -> Result<f64> {
    Ok((a - b)?.abs()?.max_all()?.to_scalar()?)
}

#[test]
fn the_frozen_process_is_the_trained_one() -> Result<()> {
    for (family, shape) in cases() {
        let dim: usize = shape.iter().product();
        let build = |b: &Builder| Forward::new(b, &config(family), &shape);
        let (forward, params) = Params::initialise(Noise::new(4), DType::F64, &Device::Cpu, build)?;
        let sde = forward.process()?;
        let defects = check_process(sde.as_ref(), &[0.01, 0.2, 0.5, 0.9]).expect("operators");
        assert!(defects.largest() < 1e-6, "{family:?}: {defects:?}");
        // States: without noise the signal, and with it the symmetric root of Σ in the family's own frame.
        let x0 = Tensor::from_vec(wave(2 * dim, 0.3), (2, dim), &Device::Cpu)?;
        let eps = Tensor::from_vec(wave(2 * dim, 0.9), (2, dim), &Device::Cpu)?;
        let flow = forward.flow(DType::F64)?;
        for t in [1e-3, 0.3, 1.0] {
            let b = [forward.integral(t); 2];
            let still = flow.diffuse(&x0, &eps.zeros_like()?, &b)?.state;
            assert!(largest(&still, &sde.signal(t).apply(&x0)?)? < 1e-12, "{family:?} at {t}");
            let at = flow.diffuse(&x0, &eps, &b)?;
            // What a network of each kind says there, seen by training and by a sampler.
            for prediction in [Prediction::Noise, Prediction::V, Prediction::Score] {
                let output = Tensor::from_vec(wave(2 * dim, 2.2), (2, dim), &Device::Cpu)?;
                let trained = flow.score(prediction, &output, &at.state, &b)?;
                let model = Constant(prediction, output.clone());
                let times = Tensor::new(&[t, t], &Device::Cpu)?;
                let seen = match forward.is_rotation() {
                    true => StateFrame::new(model, sde.clone()).forward(&at.state, &times, Pass::EVAL)?,
                    false => output,
                };
                let sampled = convert(sde.as_ref(), (prediction, Prediction::Score), &[t], &at.state, &seen)?;
                let scale = 1.0 + trained.abs()?.max_all()?.to_scalar::<f64>()?;
                let gap = largest(&trained, &sampled)? / scale;
                assert!(gap < 1e-9, "{family:?} {prediction:?} at {t}: {gap:e}");
            }
        }
        // f32 parameters make the same process as their values in f64.
        let weights = params.to_weights()?;
        let single: Weights = weights
            .iter()
            .map(|(name, tensor)| Ok((name.to_owned(), tensor.to_dtype(DType::F32)?)))
            .collect::<Result<_>>()?;
        let coarse = single.freeze(DType::F32, &Device::Cpu, build)?.process()?;
        let gap = coarse.signal(0.5).sub(&sde.signal(0.5)).map(|op| op.max_abs());
        // Both have a basis of their own; what is compared is the effect.
        let gap = gap.unwrap_or(f64::NAN);
        assert!(gap < 1e-5, "{family:?}: {gap:e}");
    }
    Ok(())
}

#[test]
fn nothing_learned_is_the_variance_preserving_process() -> Result<()> {
    let family = Family::Noise {
        map: OrthogonalConfig::Exponential { std: 0.0 },
        std: 0.0,
        normalise: false,
        floor: 0.0,
    };
    let build = |b: &Builder| Forward::new(b, &config(family), &[4]);
    let (forward, _) = Params::initialise(Noise::new(1), DType::F32, &Device::Cpu, build)?;
    let sde = forward.process()?;
    for t in [1e-3, 0.4, 1.0] {
        let vp: &dyn sde_core::LinearSde = &Vp::STANDARD;
        assert!(sde.factor(t).sub(&vp.factor(t)).expect("operators").max_abs() < 1e-14);
    }
    Ok(())
}

const SEED: u64 = 6;

fn training(freeze_after: u64) -> TrainConfig {
    TrainConfig {
        steps: 40,
        batch: 16,
        micro_batch: Some(6),
        label_dropout: None,
        optimiser: AdamConfig {
            kind: AdamKind::Adam,
            lr: 1e-2,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 1e-3,
        },
        schedule: Schedule { warmup_steps: 0.0, decay: Decay::Constant },
        clip: Some(1.0),
        replace_non_finite: None,
        ema: vec![EmaConfig { name: "main".into(), law: EmaLaw::Constant { decay: 0.9 } }],
        groups: vec![Group { prefix: "forward.".into(), rate: 0.5, freeze_after: Some(freeze_after) }],
        log_every: 5,
        checkpoint_every: 10,
        sample_every: None,
        keep: Keep { last: 2, every: Some(10) },
        held_out: Some(HeldOut { every: 8, examples: 12 }),
        tensorboard: None,
    }
}

/// One process: opens the run, resumes it, and trains until `until`.
fn process(path: &Path, train: &TrainConfig, until: u64) -> Result<()> {
    let mut run =
        if path.exists() { RunDir::open(path)? } else { RunDir::create_at(path, "", &BTreeMap::new())? };
    let family = Family::Noise {
        map: OrthogonalConfig::Exponential { std: 0.2 },
        std: 0.2,
        normalise: false,
        floor: 0.0,
    };
    let time = TimeFeatures::Fourier { std: 1.0, log: false, time_scale: 1.0, time_shift: 0.0 };
    let net = NetConfig::Mlp(MlpConfig {
        prediction: Prediction::Noise,
        hidden: vec![16],
        time_dim: 8,
        time,
        state: None,
        classes: None,
    });
    let ((model, forward), params) = Params::initialise(Noise::new(SEED), DType::F32, &Device::Cpu, |b| {
        Ok((net.build(b, &[2])?, Forward::new(&b.pp("forward"), &config(family), &[2])?))
    })?;
    let time = TimeLaw::ImportanceSampled { from: 1e-5, to: 1.0 };
    let loss = Flexible::new(Arc::new(forward), time, Weighting::Likelihood, Reduction::Mean, None)?;
    let mut state = State::new(train, &params)?;
    let origin = Origin { seed: SEED, config_sha256: "c".into(), code: "test".into() };
    resume(&mut run, &mut state, &origin)?;
    let points = |split| Arc::new(ToySet::new(Toy::by_name("checkerboard").expect("a set"), 3, split, 50));
    let task = Task {
        config: train,
        origin: &origin,
        objective: &Scored { model: &model, loss: &loss },
        classes: None,
        data: points(Split::Train),
        held_out: Some(points(Split::Test)),
    };
    fit(&task, &mut state, &mut run, until, &AtomicBool::new(false), &mut ()).map(drop)
}

fn file(path: &Path, step: u64, name: &str) -> Result<BTreeMap<String, Vec<f32>>> {
    let weights = Checkpoint::open(&path.join(format!("checkpoints/step-{step}")))?.weights(name)?;
    weights.iter().map(|(name, t)| Ok((name.to_owned(), t.flatten_all()?.to_vec1()?))).collect()
}

fn of_forward(values: BTreeMap<String, Vec<f32>>) -> BTreeMap<String, Vec<f32>> {
    values.into_iter().filter(|(name, _)| name.contains("forward.")).collect()
}

#[test]
fn frozen_parameters_stay_and_a_resumed_run_is_the_whole_one() -> Result<()> {
    let root = tempfile::tempdir().expect("a temporary directory");
    let (whole, parts) = (root.path().join("whole"), root.path().join("parts"));
    let train = training(15);
    process(&whole, &train, 40)?;
    // Once before the freeze, once after it.
    for until in [12, 22, 40] {
        process(&parts, &train, until)?;
    }
    for name in [WEIGHTS, "ema-main.safetensors", "adam.safetensors"] {
        assert_eq!(file(&whole, 40, name)?, file(&parts, 40, name)?, "{name}");
        // From update 15 on nothing of the process changes, not even a moment.
        assert_eq!(of_forward(file(&whole, 20, name)?), of_forward(file(&whole, 40, name)?), "{name}");
        assert_ne!(file(&whole, 20, name)?, file(&whole, 40, name)?, "{name}");
    }
    assert_ne!(of_forward(file(&whole, 10, WEIGHTS)?), of_forward(file(&whole, 20, WEIGHTS)?));
    // The average holds what the network is trained on.
    let average = of_forward(file(&whole, 20, "ema-main.safetensors")?);
    assert_eq!(average.len(), 2);
    assert_eq!(average, of_forward(file(&whole, 20, WEIGHTS)?));
    assert_ne!(of_forward(file(&whole, 10, "ema-main.safetensors")?), of_forward(file(&whole, 10, WEIGHTS)?));
    Ok(())
}

#[test]
fn groups_without_parameters_and_without_sense_are_errors() {
    let refuse = |group: Group| {
        let root = tempfile::tempdir().expect("a temporary directory");
        let train = TrainConfig { groups: vec![group], ..training(1) };
        process(&root.path().join("run"), &train, 1).err().map(|e| e.to_string()).unwrap_or_default()
    };
    let group = |prefix: &str, rate| Group { prefix: prefix.into(), rate, freeze_after: None };
    assert!(refuse(group("foward.", 1.0)).contains("foward."));
    assert!(refuse(group("", 1.0)).contains("groups.prefix"));
    assert!(refuse(group("forward.", -1.0)).contains("groups.rate"));
}
