//! A diffusion given by drift and score: against the Ornstein–Uhlenbeck process, whose score is known, and the identities of completion.

mod support;

use candle_core::{DType, Device, Tensor};
use sde_core::noise::{BatchNoise, Noise, Recorded};
use sde_core::process::Vp;
use sde_core::{Field, FieldFn, NoiseRate, Prediction, TimeGrid, per_sample};
use sde_solvers::{Adaptive, Chart, DriftAndScore, ProbabilityFlow, Result};
use support::{largest_gap, tensor};

const V0: f64 = 0.3;
const G: f64 = 1.3;

/// The variance at t of `dx = −x dt + g dw` from N(0, v₀).
fn variance(t: f64) -> f64 {
    let stationary = G * G / 2.0;
    stationary + (V0 - stationary) * (-2.0 * t).exp()
}

/// The process with its exact score.
fn process() -> Result<DriftAndScore<impl Field, impl Field>> {
    let drift = FieldFn::new(Prediction::Velocity, |x: &Tensor, _: &[f64]| Ok((x * -1.0)?));
    let score = FieldFn::new(Prediction::Score, |x: &Tensor, t: &[f64]| {
        let precisions = per_sample(t, x.dim(0)?)?.iter().map(|&t| -1.0 / variance(t)).collect::<Vec<f64>>();
        Ok(x.broadcast_mul(&Tensor::new(precisions, x.device())?.unsqueeze(1)?)?)
    });
    DriftAndScore::new(drift, score, NoiseRate::constant(G)?)
}

fn noise(samples: u32) -> BatchNoise {
    BatchNoise::new(Noise::new(5), 0, 0..samples)
}

#[test]
fn every_lambda_comes_back_to_the_variance_of_the_data() -> Result<()> {
    // The end is linear in start and noise: sample 0 answers to the start, sample k to the noise of step k.
    let ends = |n: usize, lambda: f64| -> Result<f64> {
        let grid = TimeGrid::power(1.0, 0.0, n, 1.0 / 0.9)?;
        let mut start = vec![0.0; n + 1];
        start[0] = variance(1.0).sqrt();
        let unit = |k: usize| (0..=n).map(move |i| if i == k + 1 { 1.0 } else { 0.0 });
        let recorded = Recorded(Tensor::from_vec(
            (0..n).flat_map(unit).collect::<Vec<f64>>(),
            (n, n + 1, 1),
            &Device::Cpu,
        )?);
        let x = Tensor::from_vec(start, (n + 1, 1), &Device::Cpu)?;
        let end = process()?.sample(&grid, lambda, &x, &recorded)?.x;
        Ok(end.sqr()?.sum_all()?.to_scalar::<f64>()?)
    };
    for lambda in [0.0, 0.5, 1.0, 2.0] {
        let errors = [ends(100, lambda)? - V0, ends(200, lambda)? - V0];
        // First order at least: half the step, half the error, but for terms of higher order.
        assert!(
            errors[1].abs() < 0.03 && errors[1].abs() < 0.6 * errors[0].abs(),
            "λ = {lambda}: {errors:?}"
        );
    }
    Ok(())
}

#[test]
fn the_flow_scales_by_the_ratio_of_the_deviations() -> Result<()> {
    let (flow, sde) = (process()?, Vp::STANDARD);
    let x = tensor(&[vec![0.4, -1.0], vec![2.0, 0.1]]);
    // A velocity is a velocity under every process.
    let solver = Adaptive::new(1e-10, 1e-12);
    let ode = ProbabilityFlow::new(&sde, &flow, Chart::Time).solve(&solver, &x, 0.0, 0.8)?;
    let expected = (&x * (variance(0.8) / V0).sqrt())?;
    assert!(largest_gap(&ode.y, &expected) < 1e-9);
    Ok(())
}

#[test]
fn forward_steps_are_those_of_the_scheme() -> Result<()> {
    let grid = TimeGrid::new(vec![0.5, 0.2, 0.1])?;
    let rows: Vec<f64> = vec![9.0, 9.0, 0.7, -1.1];
    let path = process()?.forward(
        &grid,
        &tensor(&[vec![2.0]]),
        &Recorded(Tensor::from_vec(rows, (4, 1, 1), &Device::Cpu)?),
    )?;
    let first = 2.0 * (1.0 - 0.1) + G * 0.1f64.sqrt() * 0.7;
    let second = first * (1.0 - 0.3) + G * 0.3f64.sqrt() * -1.1;
    let found: Vec<f64> =
        path.iter().map(|x| x.flatten_all()?.get(0)?.to_scalar::<f64>()).collect::<Result<_, _>>()?;
    assert_eq!(found.len(), 3);
    for (found, expected) in found.iter().zip([2.0, first, second]) {
        assert!((found - expected).abs() < 1e-14, "{found} {expected}");
    }
    Ok(())
}

#[test]
fn completion_keeps_what_is_known_and_is_sampling_where_nothing_is() -> Result<()> {
    let (flow, grid, noise) = (process()?, TimeGrid::power(1.0, 0.01, 12, 1.0 / 0.9)?, noise(2));
    let known = tensor(&[vec![0.4, -1.0, 0.3], vec![2.0, 0.1, -0.2]]);
    let prior = tensor(&[vec![1.0, 0.2, -0.7], vec![-0.6, 0.9, 0.5]]);
    let ones = Tensor::ones((1, 3), DType::F64, &Device::Cpu)?;
    let whole = flow.complete(&grid, 1.0, (&known, &ones), &prior, &noise)?;
    assert_eq!(whole.to_vec2::<f64>()?, known.to_vec2::<f64>()?);
    let nothing = flow.complete(&grid, 1.0, (&known, &ones.zeros_like()?), &prior, &noise)?;
    let sampled = flow.sample(&grid, 1.0, &prior, &noise)?.x;
    assert_eq!(nothing.to_vec2::<f64>()?, sampled.to_vec2::<f64>()?);
    // The parts of a mask are independent here: what is known stays, the rest is as if nothing were.
    let half = tensor(&[vec![1.0, 0.0, 0.0]]);
    let mixed = flow.complete(&grid, 1.0, (&known, &half), &prior, &noise)?.to_vec2::<f64>()?;
    for (i, row) in mixed.iter().enumerate() {
        assert_eq!(row[0], known.to_vec2::<f64>()?[i][0]);
        assert_eq!(row[1..], sampled.to_vec2::<f64>()?[i][1..]);
    }
    Ok(())
}

#[test]
fn fields_of_another_meaning_are_refused() -> Result<()> {
    let field = |prediction| FieldFn::new(prediction, |x: &Tensor, _: &[f64]| Ok(x.clone()));
    let noise = NoiseRate::constant(1.0)?;
    let text = |result: Result<_>| result.map(|_: DriftAndScore<_, _>| ()).map_err(|error| error.to_string());
    let wrong = DriftAndScore::new(field(Prediction::Score), field(Prediction::Score), noise);
    let expected = "drift of a diffusion: expected a prediction of Velocity, found one of Score";
    assert_eq!(text(wrong), Err(expected.into()));
    assert!(DriftAndScore::new(field(Prediction::Velocity), field(Prediction::Noise), noise).is_err());
    Ok(())
}
