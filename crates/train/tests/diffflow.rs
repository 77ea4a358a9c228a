//! DiffFlow: bounds of linear chains, whose laws are known; the adjoint against backpropagation and differences; grids and stages.

use candle_core::{DType, Device, Tensor};
use sde_core::noise::{BatchNoise, Law, Noise, Recorded, Stream};
use sde_core::{Model, Pass, Prediction, TimeGrid};
use sde_data::Batch;
use sde_nets::{Builder, Mlp, MlpConfig, Params, TimeFeatures};
use sde_train::adjoint::Route;
use sde_train::{DiffFlow, DiffFlowConfig, NoiseConfig, NoiseLaw, Objective, Result, Stage};

const CPU: Device = Device::Cpu;

/// `slope(t) x + offset(t)`.
struct Affine<F> {
    prediction: Prediction,
    at: F,
}

impl<F: Fn(f64) -> (f64, f64)> Model for Affine<F> {
    fn prediction(&self) -> Prediction {
        self.prediction
    }
    fn forward(&self, x: &Tensor, t: &Tensor, _: Pass<'_>) -> sde_core::Result<Tensor> {
        let (slope, offset) = (self.at)(t.to_vec1::<f64>()?[0]);
        Ok(x.affine(slope, offset)?)
    }
}

fn drift<F: Fn(f64) -> (f64, f64)>(at: F) -> Affine<F> {
    Affine { prediction: Prediction::Velocity, at }
}

fn score<F: Fn(f64) -> (f64, f64)>(at: F) -> Affine<F> {
    Affine { prediction: Prediction::Score, at }
}

fn config(end: f64, kappa: f64, noise: [f64; 2], steps: usize) -> DiffFlowConfig {
    DiffFlowConfig {
        start: 0.0,
        end,
        kappa,
        drawn_grid: false,
        noise: NoiseConfig { law: NoiseLaw::Linear, start: noise[0], end: noise[1] },
        stages: vec![Stage { from: 0, steps }],
        route: Route::Adjoint,
    }
}

/// The mean of the bound over data N(m, v) and all noise, exactly: it is quadratic in n = N + 1 normals, and so its mean is that over ±√n e_i.
fn mean_bound<D: Model, S: Model>(flow: &DiffFlow<D, S>, grid: &TimeGrid, (m, v): (f64, f64)) -> Result<f64> {
    let n = grid.steps() + 1;
    let entry = |i: usize, k: usize| match i == k {
        true => (n as f64).sqrt(),
        false => 0.0,
    };
    let point = |p: usize, k: usize| if p < n { entry(p, k) } else { -entry(p - n, k) };
    let x: Vec<f64> = (0..2 * n).map(|p| m + v.sqrt() * point(p, 0)).collect();
    let xi: Vec<f64> = (1..n).flat_map(|k| (0..2 * n).map(move |p| point(p, k))).collect();
    let x = Tensor::from_vec(x, (2 * n, 1), &CPU)?;
    let xi = Recorded(Tensor::from_vec(xi, (n - 1, 2 * n, 1), &CPU)?);
    Ok(flow.bound(grid, &x, &xi)?.mean_all()?.to_scalar::<f64>()?)
}

/// The entropy of N(m, v).
fn entropy(v: f64) -> f64 {
    0.5 * (std::f64::consts::TAU * std::f64::consts::E * v).ln()
}

#[test]
fn the_bound_is_the_kl_of_the_joint_gaussians() -> Result<()> {
    // KL of the two joint laws of (x_0, …, x_6) by their means and covariances, computed in numpy: 0.37008; the times are (k/6)^0.9 · 0.9.
    let flow = DiffFlow::new(
        drift(|t| (-0.8 + 0.3 * t, 0.1)),
        score(|t| (-1.1 - 0.5 * t, -0.2)),
        config(0.9, 1.0 / 0.9, [0.5, 0.5 + 0.7 * 0.9], 6),
    )?;
    let grid = flow.config().grid(6)?;
    let kl = mean_bound(&flow, &grid, (0.4, 0.6))? - entropy(0.6);
    assert!((kl - 0.37008).abs() < 5e-6, "{kl}");
    Ok(())
}

#[test]
fn little_noise_leaves_the_volume_of_the_flow() -> Result<()> {
    // x ↦ 1.4 x in unit time, from N(0.4, 0.6), and the score that gives the chain its Bayes mean. Without noise the bound less the prior's part
    // is −log 1.4; with noise that adds g² to the variance it is −½ log((1.96 · 0.6 + g²) / 0.6): published values of Theorem 1.
    let (rate, v0) = (1.4f64.ln(), 0.6);
    for (g, expected) in [(1.0, -0.64416), (0.3, -0.37334), (0.1, -0.34071), (0.01, -0.33651)] {
        let strength = g * (2.0 * rate / 0.96f64).sqrt();
        let found = |n: usize| -> Result<f64> {
            let step = 1.0 / n as f64;
            let (factor, added) = (1.0 + rate * step, strength * strength * step);
            let laws: Vec<(f64, f64)> = std::iter::successors(Some((0.4, v0)), |(m, v)| {
                Some((factor * m, factor * factor * v + added))
            })
            .take(n + 1)
            .collect();
            let bayes = |t: f64| {
                let k = (t * n as f64).round() as usize;
                let ((m, v), (mean, variance)) = (laws[k - 1], laws[k]);
                // E[x_{k−1} | x_k] = m + gain (x_k − mean), which the backward step is set to have.
                let gain = factor * v / variance;
                ((gain - 1.0 + rate * step) / added, (m - gain * mean) / added)
            };
            let flow =
                DiffFlow::new(drift(|_| (rate, 0.0)), score(bayes), config(1.0, 1.0, [strength; 2], n))?;
            let bound = mean_bound(&flow, &TimeGrid::uniform(1.0, 0.0, n)?, (0.4, v0))?;
            let (mean, variance) = laws[n];
            let prior = 0.5 * (std::f64::consts::TAU.ln() + mean * mean + variance);
            Ok(bound - prior)
        };
        // Errors of the first and the second order in the step are taken out; the values have five digits.
        let [coarse, middle, fine] = [found(50)?, found(100)?, found(200)?];
        let limit = (8.0 * fine - 6.0 * middle + coarse) / 3.0;
        assert!(
            (limit - expected).abs() < 6e-6,
            "g = {g}: {coarse}, {middle}, {fine} → {limit}, not {expected}"
        );
    }
    Ok(())
}

type Flow = DiffFlow<Mlp, Mlp>;

fn networks(config: &DiffFlowConfig) -> Result<(Flow, Params)> {
    let net = |prediction| MlpConfig {
        prediction,
        hidden: vec![16, 16],
        time_dim: 8,
        time: TimeFeatures::Phases { slowest: 0.1, fastest: 10.0 },
        state: None,
        classes: None,
    };
    let build = |b: &Builder| {
        let drift = Mlp::new(&b.pp("drift"), &net(Prediction::Velocity), &[2])?;
        Ok((drift, Mlp::new(&b.pp("score"), &net(Prediction::Score), &[2])?))
    };
    let ((drift, score), params) = Params::initialise(Noise::new(2), DType::F64, &CPU, build)?;
    Ok((DiffFlow::new(drift, score, config.clone())?, params))
}

fn batch(samples: u32, step: u32) -> Result<(Batch, BatchNoise)> {
    let noise = BatchNoise::new(Noise::new(9), step, 0..samples);
    let x = noise.tensor(Law::Normal, Stream::User, 0, &[2], DType::F64, &CPU)?;
    Ok((Batch { x, labels: None, augment: None }, noise))
}

#[test]
fn the_adjoint_has_the_gradients_of_backpropagation() -> Result<()> {
    for (steps, drawn_grid) in [(5, false), (30, true), (100, false)] {
        let of = |route| -> Result<(f64, Vec<Vec<f64>>)> {
            let noise = NoiseConfig { law: NoiseLaw::Geometric, start: 0.1, end: 0.4 };
            let config = config(1.0, 0.9, [0.1, 0.4], steps);
            let (flow, params) = networks(&DiffFlowConfig { drawn_grid, noise, route, ..config })?;
            let (batch, noise) = batch(7, 3)?;
            let value = flow.value(&batch, &noise)?;
            let store = value.gradients.expect("gradients");
            let of_var = |var| store.get(var).expect("a gradient").flatten_all()?.to_vec1::<f64>();
            let gradients = params.iter().map(|(_, var)| Ok(of_var(var)?)).collect::<Result<_>>()?;
            Ok((value.total.to_scalar()?, gradients))
        };
        let ((value, adjoint), (expected, tape)) = (of(Route::Adjoint)?, of(Route::Backpropagation)?);
        assert!((value - expected).abs() < 1e-12 * expected.abs());
        for (adjoint, tape) in adjoint.iter().zip(&tape) {
            let largest = tape.iter().fold(0.0f64, |max, g| max.max(g.abs()));
            assert!(largest > 0.0);
            for (a, b) in adjoint.iter().zip(tape) {
                assert!((a - b).abs() < 1e-10 * largest, "N = {steps}: {a} {b}, of {largest}");
            }
        }
    }
    Ok(())
}

#[test]
fn gradients_are_those_of_differences() -> Result<()> {
    let config = config(1.0, 0.9, [0.3, 0.5], 5);
    let (flow, params) = networks(&config)?;
    let (batch, noise) = batch(4, 1)?;
    let store = flow.value(&batch, &noise)?.gradients.expect("gradients");
    for name in ["drift.layer.1.weight", "drift.time.phases", "score.layer.0.weight", "score.time.phases"] {
        let var = params.get(name).unwrap_or_else(|| panic!("{name}"));
        let gradient = store.get(var).expect("a gradient").flatten_all()?.to_vec1::<f64>()?;
        let start = var.as_detached_tensor().copy()?;
        let direction = BatchNoise::new(Noise::new(1), 0, 0..1);
        let v = direction.tensor(Law::Normal, Stream::User, 0, start.dims(), DType::F64, &CPU)?.squeeze(0)?;
        let at = |h: f64| -> Result<f64> {
            var.set(&(&start + (&v * h)?)?)?;
            Ok(flow.value(&batch, &noise)?.total.to_scalar::<f64>()?)
        };
        let (h, along) = (1e-5, v.flatten_all()?.to_vec1::<f64>()?);
        let difference = (at(h)? - at(-h)?) / (2.0 * h);
        var.set(&start)?;
        let expected: f64 = gradient.iter().zip(&along).map(|(g, v)| g * v).sum();
        assert!(
            (difference - expected).abs() < 1e-6 * expected.abs().max(1.0),
            "{name}: {difference} {expected}"
        );
    }
    Ok(())
}

#[test]
fn parts_of_a_batch_have_the_noise_and_the_grid_of_the_whole() -> Result<()> {
    let (flow, _) = networks(&DiffFlowConfig { drawn_grid: true, ..config(1.0, 0.9, [0.3, 0.5], 6) })?;
    let (whole, noise) = batch(6, 4)?;
    let value = |from: usize, len: usize| -> Result<f64> {
        let x = whole.x.narrow(0, from, len)?;
        let noise = BatchNoise::new(noise.noise, noise.step, noise.samples[from..from + len].to_vec());
        Ok(flow.value(&Batch { x, labels: None, augment: None }, &noise)?.total.to_scalar::<f64>()?)
    };
    let parts = (2.0 * value(0, 2)? + 4.0 * value(2, 4)?) / 6.0;
    assert!((value(0, 6)? - parts).abs() < 1e-12 * parts.abs());
    Ok(())
}

#[test]
fn steps_grow_and_held_out_data_has_the_last_fixed_grid() -> Result<()> {
    let stages = vec![Stage { from: 0, steps: 2 }, Stage { from: 5, steps: 4 }];
    let (flow, _) =
        networks(&DiffFlowConfig { drawn_grid: true, stages, ..config(1.0, 0.9, [0.3, 0.5], 1) })?;
    let (held_out, noise) = batch(3, u32::MAX)?;
    let found = flow.held_out(&held_out, &noise)?;
    assert!(found.gradients.is_none());
    // The same paths, by the noise of their stream.
    let xi: Vec<Tensor> = (0..4)
        .map(|k| noise.tensor(Law::Normal, Stream::Diffusion, k, &[2], DType::F64, &CPU))
        .collect::<sde_core::Result<_>>()?;
    let xi = Recorded(Tensor::stack(&xi, 0)?);
    let expected = flow.bound(&flow.config().grid(4)?, &held_out.x, &xi)?.mean_all()?;
    assert_eq!(found.total.to_scalar::<f64>()?, expected.to_scalar::<f64>()?);
    // Another number of steps is another value; within a stage the drawn grid is another each time.
    let mut values = Vec::new();
    for step in [4, 5, 6] {
        let (x, _) = batch(3, 0)?;
        values.push(flow.value(&x, &BatchNoise::new(Noise::new(9), step, 0..3))?.total.to_scalar::<f64>()?);
    }
    assert!(values[0] != values[1] && values[1] != values[2]);
    Ok(())
}

#[test]
fn what_is_no_process_is_refused() {
    let refused = |config: DiffFlowConfig| config.check().err().map(|error| error.to_string());
    let good = config(1.0, 0.9, [0.3, 0.5], 6);
    assert_eq!(refused(good.clone()), None);
    let stage = |from, steps| Stage { from, steps };
    for (bad, word) in [
        (DiffFlowConfig { end: 0.0, ..good.clone() }, "start < end"),
        (DiffFlowConfig { kappa: 0.0, ..good.clone() }, "kappa"),
        (DiffFlowConfig { stages: vec![], ..good.clone() }, "from update 0"),
        (DiffFlowConfig { stages: vec![stage(1, 5)], ..good.clone() }, "from update 0"),
        (DiffFlowConfig { stages: vec![stage(0, 5), stage(0, 6)], ..good.clone() }, "stage before"),
        (DiffFlowConfig { stages: vec![stage(0, 0)], ..good.clone() }, "stages.steps"),
        (config(1.0, 0.9, [0.0, 0.5], 6), "strength g"),
    ] {
        let text = refused(bad).unwrap_or_default();
        assert!(text.contains(word), "{text}");
    }
    let wrong = DiffFlow::new(drift(|_| (0.0, 0.0)), drift(|_| (0.0, 0.0)), good);
    let text = wrong.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(text.contains("score.prediction") && text.contains("\"score\""), "{text}");
}
