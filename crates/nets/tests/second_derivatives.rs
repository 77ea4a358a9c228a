//! Second derivatives of every operator and of a whole network, against differences of first ones.
//!
//! Candle keeps what they need only with an environment variable that is set before the first `backward`;
//! each test runs itself again in a process that has it.

mod common;

use candle_core::{DType, Device, Tensor};
use common::{check_second, normal};
use sde_core::noise::Noise;
use sde_core::{Model, Pass};
use sde_nets::ops::{self, GroupNormArgs, Window};
use sde_nets::{Builder, Params, Resampling, Result, TimeFeatures, Unet, UnetConfig, Weights};

const SWITCH: &str = "CANDLE_GRAD_DO_NOT_DETACH";

/// Runs the test `name` with second derivatives kept; true in the process that has them.
fn with_second_derivatives(name: &str) -> bool {
    if std::env::var_os(SWITCH).is_some() {
        assert!(ops::second_derivatives_are_taped());
        return true;
    }
    let program = std::env::current_exe().expect("a running test has a program");
    let output = std::process::Command::new(program)
        .args([name, "--exact"])
        .env(SWITCH, "1")
        .output()
        .expect("the test's program can be started");
    let talk = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && talk.contains("1 passed"), "{talk}");
    false
}

#[test]
fn without_the_switch_the_tape_says_so() {
    if std::env::var_os(SWITCH).is_none() {
        assert!(!ops::second_derivatives_are_taped());
    }
}

#[test]
fn convolution() -> Result<()> {
    if !with_second_derivatives("convolution") {
        return Ok(());
    }
    for (window, size) in [(Window::same(3), [5, 6]), (Window::HALVE, [6, 4]), (Window::same(1), [3, 3])] {
        let kernel = if window == Window::same(1) { 1 } else { 3 };
        let [x, w] = [normal(&[2, 3, size[0], size[1]], 1)?, normal(&[4, 3, kernel, kernel], 2)?];
        let bias = normal(&[4], 3)?;
        // A square behind it, so that no second derivative vanishes.
        let f = |i: &[Tensor]| Ok(ops::conv2d(&i[0], &i[1], Some(&i[2]), window)?.sqr()?);
        check_second(&format!("{window:?}"), f, &[x, w, bias])?;
    }
    Ok(())
}

#[test]
fn normalisation() -> Result<()> {
    if !with_second_derivatives("normalisation") {
        return Ok(());
    }
    for silu in [false, true] {
        let args = GroupNormArgs { groups: 2, epsilon: 1e-2, silu };
        let inputs = [normal(&[2, 4, 3, 3], 1)?, normal(&[4], 2)?, normal(&[4], 3)?];
        check_second(
            &format!("{args:?}"),
            |i| Ok(ops::group_norm(&i[0], &i[1], &i[2], args)?.sqr()?),
            &inputs,
        )?;
    }
    Ok(())
}

#[test]
fn other_operators() -> Result<()> {
    if !with_second_derivatives("other_operators") {
        return Ok(());
    }
    let x = [normal(&[2, 3, 4, 4], 1)?];
    check_second("silu", |i| ops::silu(&i[0]), &x)?;
    check_second("sinusoids", |i| ops::sinusoids(&i[0]), &x)?;
    check_second("softmax", |i| ops::softmax(&i[0]), &x)?;
    let map = [normal(&[3, 4], 1)?, normal(&[2, 4], 2)?, normal(&[2], 3)?];
    check_second("linear", |i| Ok(ops::linear(&i[0], &i[1], &i[2])?.sqr()?), &map)?;
    check_second("upsampling", |i| Ok(ops::upsample_nearest_2x(&i[0].sqr()?)?.sqr()?), &x)?;
    check_second("filtering up", |i| Ok(ops::fir_up_2x(&i[0].sqr()?)?.sqr()?), &x)?;
    check_second("filtering down", |i| Ok(ops::fir_down_2x(&i[0].sqr()?)?.sqr()?), &x)?;
    check_second("filtering", |i| Ok(ops::fir_blur(&i[0].sqr()?)?.sqr()?), &x)?;
    check_second("pooling", |i| Ok(ops::avg_pool_2x(&i[0].sqr()?)?.sqr()?), &x)?;
    let inputs = [normal(&[2, 6, 4], 1)?, normal(&[2, 6, 4], 2)?, normal(&[2, 6, 4], 3)?];
    check_second("attention", |i| ops::attention(&i[0], &i[1], &i[2], 2), &inputs)
}

#[test]
fn whole_network() -> Result<()> {
    if !with_second_derivatives("whole_network") {
        return Ok(());
    }
    let plain = UnetConfig {
        channels: 4,
        multipliers: vec![1, 2],
        blocks: 1,
        attention: vec![2],
        heads: 2,
        dropout: 0.0,
        groups: Some(2),
        time: TimeFeatures::Fourier { std: 0.3, log: false, time_scale: 1.0, time_shift: 0.0 },
        ..UnetConfig::ho_ddpm()
    };
    let filtered = UnetConfig {
        resampling: Resampling::BlockFir,
        pyramid: true,
        rescale: true,
        scale_shift: true,
        ..plain.clone()
    };
    for config in [plain, filtered] {
        second_derivatives_of(&config)?;
    }
    Ok(())
}

fn second_derivatives_of(config: &UnetConfig) -> Result<()> {
    let build = |b: &Builder| Unet::new(b, config, &[1, 4, 4]);
    let (_, params) = Params::initialise(Noise::new(1), DType::F64, &Device::Cpu, build)?;
    // Weights of the size that training gives them, also where they start as nothing.
    let weights: Weights = params
        .to_weights()?
        .into_iter()
        .enumerate()
        .map(|(i, (name, w))| Ok((name, (&w + (normal(w.dims(), i as u64)? * 0.3)?)?)))
        .collect::<Result<_>>()?;
    let net = weights.freeze(DType::F64, &Device::Cpu, build)?;
    let f = |i: &[Tensor]| Ok(net.forward(&i[0], &i[1], Pass::EVAL)?);
    check_second("U-Net", f, &[normal(&[2, 1, 4, 4], 1)?, normal(&[2], 2)?])
}
