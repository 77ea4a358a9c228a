//! Activation checkpointing: the same output bit for bit, the same gradients to rounding.

mod common;

use candle_core::{DType, Device, Tensor, Var};
use common::{distance, dot, normal};
use sde_core::noise::{BatchNoise, Noise};
use sde_core::{Model, Pass};
use sde_nets::{
    Builder, Error, Params, Result, TimeFeatures, Unet, UnetConfig, UpAttention, Weights, backward,
};

const CPU: Device = Device::Cpu;
const BATCH: usize = 3;

/// Small networks that between them have every kind of stage.
fn configs() -> [UnetConfig; 3] {
    let small = |published: UnetConfig| UnetConfig {
        channels: 8,
        multipliers: vec![1, 2],
        blocks: 2,
        attention: vec![4],
        dropout: 0.3,
        time_dim: published.time_dim.map(|_| 8),
        time: TimeFeatures::Fourier { std: 0.5, log: false, time_scale: 1.0, time_shift: 0.0 },
        precondition: None,
        ..published
    };
    let ho = UnetConfig { classes: Some(4), ..small(UnetConfig::ho_ddpm()) };
    let song = UnetConfig { up_attention: UpAttention::EveryBlock, ..small(UnetConfig::song_ddpm()) };
    [ho, song, small(UnetConfig::edm_ncsnpp(Some(4)))]
}

/// Weights like trained ones: none is zero.
fn weights(config: &UnetConfig) -> Result<Weights> {
    let build = |b: &Builder| Unet::new(b, config, &[2, 8, 8]);
    let (_, params) = Params::initialise(Noise::new(3), DType::F64, &CPU, build)?;
    let moved = |(i, (name, w)): (usize, (String, Tensor))| {
        let noise = (normal(w.dims(), i as u64)? * 0.2)?;
        Ok((name, (w + noise)?))
    };
    params.to_weights()?.into_iter().enumerate().map(moved).collect()
}

struct Found {
    output: Tensor,
    /// Of the state, then of each parameter.
    gradients: Vec<(String, Tensor)>,
}

fn run(config: &UnetConfig, weights: &Weights, dtype: DType) -> Result<Found> {
    let build = |b: &Builder| Unet::new(b, config, &[2, 8, 8]);
    let (net, params) = Params::restore(weights, dtype, &CPU, build)?;
    let x = Var::from_tensor(&normal(&[BATCH, 2, 8, 8], 1)?.to_dtype(dtype)?)?;
    let t = normal(&[BATCH], 2)?.to_dtype(dtype)?;
    let labels = Tensor::new(&[0u32, 3, 1], &CPU)?;
    let augment = normal(&[BATCH, 9], 4)?.to_dtype(dtype)?;
    let noise = BatchNoise::new(Noise::new(5), 7, 0..BATCH as u32);
    let pass = Pass {
        labels: config.classes.map(|_| &labels),
        augment: config.augment.map(|_| &augment),
        dropout: Some(&noise),
    };
    let output = net.forward(&x, &t, pass)?;
    let v = normal(output.dims(), 6)?.to_dtype(dtype)?;
    let store = backward(&(&output * v)?.sum_all()?)?;
    let of = |name: &str, var: &Var| {
        let gradient = store.get(var).unwrap_or_else(|| panic!("no gradient for {name}"));
        (name.to_owned(), gradient.clone())
    };
    let gradients = [of("x", &x)].into_iter().chain(params.iter().map(|(name, var)| of(name, var))).collect();
    Ok(Found { output: output.detach(), gradients })
}

#[test]
fn outputs_are_the_same_bits_and_gradients_the_same_to_rounding() -> Result<()> {
    for config in configs() {
        let weights = weights(&config)?;
        // Of the norm of all gradients: 1e-6 where a value has 24 bits.
        for (dtype, tolerance) in [(DType::F64, 1e-14), (DType::F32, 1e-6)] {
            let kept = run(&config, &weights, dtype)?;
            let replayed = run(&UnetConfig { checkpoint: true, ..config.clone() }, &weights, dtype)?;
            assert_eq!(distance(&kept.output, &replayed.output)?, 0.0);
            let (mut error, mut norm, mut same) = (0.0, 0.0, 0);
            for ((name, expected), (_, found)) in kept.gradients.iter().zip(&replayed.gradients) {
                let expected = expected.to_dtype(DType::F64)?;
                let difference = (found.to_dtype(DType::F64)? - &expected)?;
                let squares = dot(&difference, &difference)?;
                assert!(squares.is_finite(), "{name}");
                error += squares;
                norm += dot(&expected, &expected)?;
                same += usize::from(squares == 0.0);
            }
            assert!(error.sqrt() <= tolerance * norm.sqrt(), "{dtype:?}: {error:e} of {norm:e}, squared");
            // What lies behind the last state that is used twice has the same sums in the same order.
            assert!((8..kept.gradients.len()).contains(&same), "{same} of {}", kept.gradients.len());
        }
    }
    Ok(())
}

#[test]
fn gradients_that_would_be_lost_are_an_error() -> Result<()> {
    let config = UnetConfig { checkpoint: true, classes: None, ..configs()[0].clone() };
    let weights = weights(&config)?;
    let build = |b: &Builder| Unet::new(b, &config, &[2, 8, 8]);
    let (net, _) = Params::restore(&weights, DType::F64, &CPU, build)?;
    let (x, t) = (normal(&[BATCH, 2, 8, 8], 1)?, normal(&[BATCH], 2)?);
    let loss = net.forward(&x, &t, Pass::EVAL)?.sum_all()?;
    let told = loss.backward().expect_err("gradients were lost").to_string();
    assert!(told.contains("sde_nets::backward"), "{told}");
    assert!(backward(&loss).is_ok());

    // A frozen network has no such gradients: Candle's own backward is enough, for samplers.
    let frozen = weights.freeze(DType::F64, &CPU, build)?;
    let kept = weights.freeze(DType::F64, &CPU, |b| {
        Unet::new(b, &UnetConfig { checkpoint: false, ..config.clone() }, &[2, 8, 8])
    })?;
    let x = Var::from_tensor(&x)?;
    let slope = |net: &Unet| -> Result<Tensor> {
        let store = net.forward(&x, &t, Pass::EVAL)?.sqr()?.sum_all()?.backward()?;
        Ok(store.get(&x).expect("the input has a gradient").clone())
    };
    assert!(distance(&slope(&frozen)?, &slope(&kept)?)? < 1e-11);
    assert!(!frozen.forward(&normal(&[1, 2, 8, 8], 1)?, &t.narrow(0, 0, 1)?, Pass::EVAL)?.track_op());
    Ok(())
}

/// A thread whose tape keeps second derivatives refuses, rather than being silently partial.
#[test]
fn second_derivatives_are_refused() -> Result<()> {
    const SWITCH: &str = "CANDLE_GRAD_DO_NOT_DETACH";
    if std::env::var_os(SWITCH).is_none() {
        let program = std::env::current_exe().expect("a running test has a program");
        let run = std::process::Command::new(program)
            .args(["second_derivatives_are_refused", "--exact"])
            .env(SWITCH, "1")
            .output()
            .expect("the test's program can be started");
        let talk = String::from_utf8_lossy(&run.stdout);
        assert!(run.status.success() && talk.contains("1 passed"), "{talk}");
        return Ok(());
    }
    let config = UnetConfig { checkpoint: true, ..configs()[2].clone() };
    let refused = run(&config, &weights(&config)?, DType::F64);
    assert!(matches!(refused, Err(Error::SecondDerivatives)));
    Ok(())
}
