//! The Fokker–Planck penalty against closed forms, its gradients against differences, its estimators against each other.
//!
//! What needs gradients of gradients runs itself again in a process that keeps them.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use sde_core::noise::{BatchNoise, Law, Noise, Stream};
use sde_core::oracle::Mixture;
use sde_core::process::{Blurring, Cld, Ve, Vp};
use sde_core::{Converted, Field, LinearSde, Model, OracleField, Pass, Prediction, lift};
use sde_data::Batch;
use sde_nets::{
    Builder, MlpConfig, NetConfig, Params, StateFeatures, TimeFeatures, UnetConfig, Weights, backward,
};
use sde_train::loss::{
    Dsm, Estimator, FokkerPlanck, FokkerPlanckConfig, Loss, Penalty, Points, RateStep, Reduction, Route,
    ScoreFpe, TimeLaw, TimeWeight, Weighting,
};
use sde_train::{Error, Result};

const SWITCH: &str = "CANDLE_GRAD_DO_NOT_DETACH";

/// Runs the test `name` with gradients of gradients kept; true in the process that has them.
fn nested(name: &str) -> bool {
    if std::env::var_os(SWITCH).is_some() {
        return true;
    }
    let program = std::env::current_exe().expect("a running test has a program");
    let run = std::process::Command::new(program).args([name, "--exact"]).env(SWITCH, "1").output();
    let output = run.expect("the test's program can be started");
    let talk = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && talk.contains("1 passed"), "{talk}");
    false
}

/// A score by its formula, in operations on the tape.
struct Formula<F>(F);

impl<F: Fn(&Tensor, &[f64]) -> sde_core::Result<Tensor>> Model for Formula<F> {
    fn prediction(&self) -> Prediction {
        Prediction::Score
    }
    fn forward(&self, x: &Tensor, t: &Tensor, _: Pass<'_>) -> sde_core::Result<Tensor> {
        (self.0)(x, &t.to_vec1::<f64>()?)
    }
}

/// A field that is not on the tape: for differences alone.
struct FieldModel<F>(F);

impl<F: Field> Model for FieldModel<F> {
    fn prediction(&self) -> Prediction {
        self.0.prediction()
    }
    fn forward(&self, x: &Tensor, t: &Tensor, _: Pass<'_>) -> sde_core::Result<Tensor> {
        self.0.eval(x, &t.to_vec1::<f64>()?)
    }
}

const DIFFERENCES: Route = Route::Differences { step: 3e-4 };
const MIXED: Route = Route::Mixed { step: 1e-3 };

/// ‖ϵ‖² or |L| alone.
fn config(route: Route, estimator: Estimator) -> FokkerPlanckConfig {
    FokkerPlanckConfig {
        alpha: 1.0,
        beta: 0.0,
        m: 2.0,
        weight: TimeWeight::Constant,
        weight_inside: false,
        penalty: Penalty::Residual,
        estimator,
        route,
        rate: RateStep::Clock { step: 1e-3 },
        points: Points::Noised,
    }
}

fn around(t: f64) -> TimeLaw {
    TimeLaw::Uniform { from: t * (1.0 - 1e-12), to: t }
}

fn host(values: &[f64], dims: &[usize]) -> Tensor {
    Tensor::from_slice(values, dims, &Device::Cpu).expect("a tensor")
}

fn batch(x: Tensor) -> Batch {
    Batch { x, labels: None, augment: None }
}

/// `w_t [ … ]` of each sample.
fn measured(
    sde: &Arc<dyn LinearSde>,
    time: TimeLaw,
    config: FokkerPlanckConfig,
    model: &dyn Model,
    data: &Batch,
) -> Result<Vec<f64>> {
    let noise = BatchNoise::new(Noise::new(3), 0, 0..data.x.dim(0)? as u32);
    Ok(FokkerPlanck::new(sde.clone(), time, config)?.per_sample(model, data, &noise)?.to_vec1()?)
}

/// The processes of the paper: V − α² v₀ and α of Gaussian data.
fn processes() -> [(Arc<dyn LinearSde>, bool); 2] {
    [(Arc::new(Ve::STANDARD), true), (Arc::new(Vp::STANDARD), false)]
}

/// V of data N(0, v₀ I).
fn variance(sde: &dyn LinearSde, v0: f64, t: f64) -> f64 {
    let scalar = |op: sde_core::Op| op.as_scalar().expect("a scalar");
    scalar(sde.signal(t)).powi(2) * v0 + scalar(sde.covariance(t))
}

/// Each entry of a sample times a number of its own sample.
fn scaled(x: &Tensor, factors: Vec<f64>) -> sde_core::Result<Tensor> {
    Ok(x.broadcast_mul(&Tensor::from_vec(factors, (x.dim(0)?, 1), &Device::Cpu)?)?)
}

#[test]
fn residuals_of_perturbed_scores_are_the_closed_forms() -> Result<()> {
    if !nested("residuals_of_perturbed_scores_are_the_closed_forms") {
        return Ok(());
    }
    let (x, v0, delta, t) = ([0.7, -1.1, 0.4], 0.25, 0.1, 0.4);
    let turn = host(&[0.0, 0.3, -0.2, -0.3, 0.0, 0.5, 0.2, -0.5, 0.0], &[3, 3]);
    let shift = host(&[0.5, -1.0, 2.0], &[1, 3]);
    // Golden vectors, VE and VP: (1 + δ)s*, s* + A x, s* + c.
    let golden = [
        [[-1.02662683, 1.61327074, -0.58664390], [-0.85226573, 1.33927472, -0.48700899]],
        [[-0.21863597, 0.72568534, -0.11939695], [-1.13646, 3.77208, -0.62062]],
        [[2.27343319, -4.54686638, 9.09373276], [2.70758382, -5.41516764, 10.83033528]],
    ];
    for (place, (sde, _)) in processes().iter().enumerate() {
        let exact = |x: &Tensor, t: &[f64], factor: f64| {
            scaled(x, t.iter().map(|&t| -factor / variance(sde.as_ref(), v0, t)).collect())
        };
        let models: [Box<dyn Model + '_>; 3] = [
            Box::new(Formula(|x: &Tensor, t: &[f64]| exact(x, t, 1.0 + delta))),
            Box::new(Formula(|x: &Tensor, t: &[f64]| Ok((exact(x, t, 1.0)? + x.matmul(&turn.t()?)?)?))),
            Box::new(Formula(|x: &Tensor, t: &[f64]| Ok(exact(x, t, 1.0)?.broadcast_add(&shift)?))),
        ];
        for (model, golden) in models.iter().zip(&golden) {
            let expected: f64 = golden[place].iter().map(|e| e * e).sum::<f64>() / 9.0;
            for route in [Route::Reverse, MIXED, DIFFERENCES] {
                let at = FokkerPlanckConfig { points: Points::Data, ..config(route, Estimator::Exact) };
                let found = measured(sde, around(t), at, model.as_ref(), &batch(host(&x, &[1, 3])))?[0];
                // Digits of the golden values; rounding of second differences is 1e-16/1e-7.
                assert!((found / expected - 1.0).abs() < 2e-5, "{place} {route:?}: {found}, not {expected}");
            }
        }
    }
    Ok(())
}

/// The score of `Σ w N(m, v I)` under a process, on the tape.
fn mixture_score<'a>(sde: &'a dyn LinearSde, parts: &'a [(f64, Vec<f64>, f64)]) -> impl Model + 'a {
    Formula(move |x: &Tensor, t: &[f64]| {
        let scalar = |op: sde_core::Op| op.as_scalar().expect("a scalar");
        let mut logs = Vec::new();
        let mut pulls = Vec::new();
        for (w, mean, v0) in parts {
            let centres: Vec<f64> =
                t.iter().flat_map(|&t| mean.iter().map(move |m| scalar(sde.signal(t)) * m)).collect();
            let v: Vec<f64> = t.iter().map(|&t| variance(sde, *v0, t)).collect();
            let gap = (Tensor::from_vec(centres, x.dims(), &Device::Cpu)? - x)?;
            let pull = scaled(&gap, v.iter().map(|v| 1.0 / v).collect())?;
            let constants: Vec<f64> = v.iter().map(|v| w.ln() - 0.5 * mean.len() as f64 * v.ln()).collect();
            let square = ((&gap * &pull)?.sum_keepdim(1)? * -0.5)?;
            logs.push((square + Tensor::from_vec(constants, (t.len(), 1), &Device::Cpu)?)?);
            pulls.push(pull);
        }
        let logs = Tensor::cat(&logs, 1)?;
        let shares = logs.broadcast_sub(&logs.max_keepdim(1)?.detach())?.exp()?;
        let shares = shares.broadcast_div(&shares.sum_keepdim(1)?)?;
        let mut sum = x.zeros_like()?;
        for (k, pull) in pulls.iter().enumerate() {
            sum = (sum + pull.broadcast_mul(&shares.narrow(1, k, 1)?)?)?;
        }
        Ok(sum)
    })
}

/// The mixture of the paper in two dimensions.
fn two_modes() -> Vec<(f64, Vec<f64>, f64)> {
    vec![(0.2, vec![-5.0; 2], 1.0), (0.8, vec![5.0; 2], 1.0)]
}

fn draws(parts: &[(f64, Vec<f64>, f64)], n: u32) -> Batch {
    let noise = Noise::new(11);
    let rows = (0..n).flat_map(|i| {
        let mut draws = noise.draws(Stream::Data, 0, i);
        let (_, mean, v) = if draws.uniform() < parts[0].0 { &parts[0] } else { &parts[1] };
        mean.iter().map(|m| m + v.sqrt() * draws.normal()).collect::<Vec<_>>()
    });
    let dim = parts[0].1.len();
    batch(Tensor::from_vec(rows.collect::<Vec<_>>(), (n as usize, dim), &Device::Cpu).expect("a tensor"))
}

#[test]
fn an_exact_mixture_solves_its_equation_by_every_route() -> Result<()> {
    if !nested("an_exact_mixture_solves_its_equation_by_every_route") {
        return Ok(());
    }
    let parts = two_modes();
    let data = draws(&parts, 32);
    // L at (.3, .4): VE at t = .6, VP at t = .3.
    let generators = [(0.6, 60.4599663), (0.3, 53.4968162)];
    for ((sde, _), (t0, generator)) in processes().iter().zip(generators) {
        let model = mixture_score(sde.as_ref(), &parts);
        for t in [0.05, 0.3, 0.6, 0.9] {
            for route in [Route::Reverse, MIXED, DIFFERENCES] {
                let residual = config(route, Estimator::Exact);
                let rate = FokkerPlanckConfig { penalty: Penalty::Rate, ..residual.clone() };
                let found = measured(sde, around(t), residual, &model, &data)?;
                let scale = measured(sde, around(t), rate, &model, &data)?;
                let largest = |values: &[f64]| values.iter().copied().fold(0.0, f64::max).sqrt();
                // Differences of order two err by (1e-3)² of third derivatives, which between the modes are several times the rest.
                let (found, scale) = (largest(&found), largest(&scale));
                assert!(found < 2e-5 * scale, "{route:?} at {t}: {found:e} of {scale:e}");
            }
        }
        for route in [Route::Reverse, MIXED, DIFFERENCES] {
            let rate = FokkerPlanckConfig {
                alpha: 0.0,
                beta: 1.0,
                points: Points::Data,
                ..config(route, Estimator::Exact)
            };
            let found = measured(sde, around(t0), rate, &model, &batch(host(&[0.3, 0.4], &[1, 2])))?[0];
            assert!((found / generator - 1.0).abs() < 1e-6, "{route:?}: L = {found}, not {generator}");
        }
    }
    Ok(())
}

#[test]
fn the_equation_is_that_of_every_linear_process() -> Result<()> {
    // Data of two entries, states of four; and a process with a rate for each frequency.
    let data = Mixture::diagonal(vec![0.5, -0.3], vec![0.4, 0.2])?;
    let image = Mixture::diagonal(vec![0.2; 4], vec![0.5, 0.1, 0.3, 0.2])?;
    let cases: [(Arc<dyn LinearSde>, &Mixture, Vec<usize>); 2] = [
        (Arc::new(Cld::published()?), &data, vec![2]),
        (Arc::new(Blurring::new((2, 2), 1.0, 0.01)?), &image, vec![1, 2, 2]),
    ];
    for (sde, law, shape) in cases {
        let lifted = law.lift(sde.as_ref())?;
        let noise = Noise::new(2);
        let rows: Vec<f64> = (0..16).flat_map(|i| law.sample(&mut noise.draws(Stream::Data, 0, i))).collect();
        let dims: Vec<usize> = std::iter::once(16).chain(shape).collect();
        let data = batch(Tensor::from_vec(rows, dims, &Device::Cpu)?);
        let exact = OracleField::noise(&lifted, sde.as_ref());
        let model = FieldModel(Converted::new(exact, sde.as_ref(), Prediction::Score));
        for t in [0.2, 0.6] {
            let residual = config(DIFFERENCES, Estimator::Exact);
            let rate = FokkerPlanckConfig { penalty: Penalty::Rate, ..residual.clone() };
            let mean = |config| -> Result<f64> {
                let found = measured(&sde, around(t), config, &model, &data)?;
                Ok(found.iter().sum::<f64>() / found.len() as f64)
            };
            let (found, scale) = (mean(residual)?.sqrt(), mean(rate)?.sqrt());
            assert!(found < 1e-4 * scale, "{t}: {found:e} of {scale:e}");
        }
        assert!(lift(sde.as_ref(), &data.x)?.dim(0)? == 16);
    }
    Ok(())
}

/// Mean and standard error.
fn estimate(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean, (variance / n).sqrt())
}

#[test]
fn one_estimate_squared_is_biased_and_a_product_of_two_is_not() -> Result<()> {
    let parts = two_modes();
    let data = draws(&parts, 4000);
    let sde: Arc<dyn LinearSde> = Arc::new(Ve::STANDARD);
    let model = mixture_score(sde.as_ref(), &parts);
    let run = |unbiased| {
        let estimator = Estimator::Projected { count: 1, unbiased };
        measured(&sde, around(0.7), config(DIFFERENCES, estimator), &model, &data)
    };
    let rate = FokkerPlanckConfig { penalty: Penalty::Rate, ..config(DIFFERENCES, Estimator::Exact) };
    let (scale, _) = estimate(&measured(&sde, around(0.7), rate, &model, &data)?);
    let ((biased, _), (right, error)) = (estimate(&run(false)?), estimate(&run(true)?));
    assert!(biased > 0.02 * scale, "{biased} of {scale}");
    assert!(right.abs() < 4.0 * error && error < 0.5 * biased, "{right} ± {error}, biased {biased}");
    Ok(())
}

#[test]
fn a_projection_by_differences_is_that_by_reverse_mode() -> Result<()> {
    if !nested("a_projection_by_differences_is_that_by_reverse_mode") {
        return Ok(());
    }
    let parts = two_modes();
    let data = draws(&parts, 64);
    for (sde, _) in processes() {
        // A score that is wrong, so that there is something to be measured.
        let inner = mixture_score(sde.as_ref(), &parts);
        let model = Formula(|x: &Tensor, t: &[f64]| {
            let times = Tensor::from_slice(t, t.len(), &Device::Cpu)?;
            Ok((inner.forward(x, &times, Pass::EVAL)? * 1.2)?)
        });
        for (m, unbiased) in [(2.0, true), (2.0, false), (1.0, false)] {
            let run = |route| {
                let config = FokkerPlanckConfig {
                    m,
                    beta: 0.3,
                    ..config(route, Estimator::Projected { count: 2, unbiased })
                };
                measured(&sde, around(0.5), config, &model, &data)
            };
            let (reverse, differences) = (run(Route::Reverse)?, run(DIFFERENCES)?);
            let scale = reverse.iter().map(|v| v.abs()).fold(0.0, f64::max);
            // The ridge between the modes is a tenth of σ wide, and z two or three long: (3e-3)² of third derivatives.
            for (a, b) in reverse.iter().zip(&differences) {
                assert!((a - b).abs() < 1e-4 * scale, "m = {m}: {a} and {b}");
            }
        }
    }
    Ok(())
}

#[test]
fn without_weights_it_is_the_plain_loss_bit_for_bit() -> Result<()> {
    let sde: Arc<dyn LinearSde> = Arc::new(Vp::STANDARD);
    let (net, _, data) = points_network()?;
    let noise = BatchNoise::new(Noise::new(3), 0, 0..8);
    let dsm = Dsm::new(sde.clone(), LAW, Weighting::Likelihood, Reduction::HalfSum)?;
    let off = FokkerPlanckConfig { alpha: 0.0, ..config(Route::Reverse, Estimator::Exact) };
    let loss = ScoreFpe::new(dsm.clone(), FokkerPlanck::new(sde.clone(), LAW, off)?);
    let plain = dsm.loss(net.as_ref(), &data, &noise)?.total.to_scalar::<f64>()?;
    assert_eq!(loss.loss(net.as_ref(), &data, &noise)?.total.to_scalar::<f64>()?.to_bits(), plain.to_bits());
    // Held-out data have no penalty; what is trained has one, in the units of the reduction.
    let on = config(DIFFERENCES, Estimator::Exact);
    for (reduction, scale) in [(Reduction::HalfSum, 1.0), (Reduction::Sum, 2.0), (Reduction::Mean, 2.0 / 2.0)]
    {
        let dsm = Dsm::new(sde.clone(), LAW, Weighting::Likelihood, reduction)?;
        let penalty = FokkerPlanck::new(sde.clone(), LAW, on.clone())?;
        let added = penalty.per_sample(net.as_ref(), &data, &noise)?.mean_all()?.to_scalar::<f64>()?;
        let plain = dsm.loss(net.as_ref(), &data, &noise)?.total.to_scalar::<f64>()?;
        let loss = ScoreFpe::new(dsm.clone(), penalty);
        let value = loss.loss(net.as_ref(), &data, &noise)?;
        assert!((value.total.to_scalar::<f64>()? / (plain + scale * added) - 1.0).abs() < 1e-12);
        assert_eq!(value.terms[0].0, "fokker_planck");
        let held_out = BatchNoise::new(Noise::new(3), u32::MAX, 0..8);
        let plain = dsm.loss(net.as_ref(), &data, &held_out)?.total.to_scalar::<f64>()?;
        assert_eq!(loss.loss(net.as_ref(), &data, &held_out)?.total.to_scalar::<f64>()?, plain);
    }
    Ok(())
}

#[test]
fn what_cannot_be_is_refused_with_the_way_out() -> Result<()> {
    let sde: Arc<dyn LinearSde> = Arc::new(Vp::STANDARD);
    let probes = Estimator::Probes { count: 1, unbiased: true };
    let refused = [
        config(DIFFERENCES, probes),
        config(Route::Differences { step: 0.0 }, Estimator::Exact),
        config(DIFFERENCES, Estimator::Projected { count: 0, unbiased: true }),
        FokkerPlanckConfig { m: 0.0, ..config(DIFFERENCES, Estimator::Exact) },
        FokkerPlanckConfig { alpha: -1.0, ..config(DIFFERENCES, Estimator::Exact) },
        FokkerPlanckConfig {
            points: Points::Box { low: 1.0, high: 1.0 },
            ..config(DIFFERENCES, Estimator::Exact)
        },
    ];
    for config in refused {
        let error = FokkerPlanck::new(sde.clone(), LAW, config).err();
        assert!(matches!(error, Some(Error::Config { .. })), "{error:?}");
    }
    if std::env::var_os(SWITCH).is_none() {
        let error = FokkerPlanck::new(sde, LAW, config(Route::Reverse, probes)).err();
        assert!(error.is_some_and(|e| e.to_string().contains(SWITCH)));
    }
    Ok(())
}

const LAW: TimeLaw = TimeLaw::Uniform { from: 0.05, to: 1.0 };

type Network = Box<dyn Model + Send + Sync>;

/// Weights of the size that training gives them, also where they start as nothing.
fn stirred(params: &Params) -> Result<Weights> {
    let stir = |(i, (name, w)): (usize, (String, Tensor))| {
        let noise = BatchNoise::new(Noise::new(i as u64), 0, [0]);
        let shift = noise.tensor(Law::Normal, Stream::User, 0, w.dims(), DType::F64, &Device::Cpu)?;
        Ok((name, (w + (shift.squeeze(0)? * 0.2)?)?))
    };
    params.to_weights()?.into_iter().enumerate().map(stir).collect()
}

fn network(config: &NetConfig, shape: &[usize]) -> Result<(Network, Params, Batch)> {
    let (net, params) =
        Params::initialise(Noise::new(1), DType::F64, &Device::Cpu, |b: &Builder| config.build(b, shape))?;
    params.load(&stirred(&params)?)?;
    let noise = BatchNoise::new(Noise::new(9), 0, 0..8);
    let x = noise.tensor(Law::Normal, Stream::User, 0, shape, DType::F64, &Device::Cpu)?;
    Ok((net, params, batch(x)))
}

fn points_network() -> Result<(Network, Params, Batch)> {
    let time = TimeFeatures::Fourier { std: 0.3, log: true, time_scale: 1.0, time_shift: 0.0 };
    let state = Some(StateFeatures { count: 3, std: 0.2 });
    let config =
        MlpConfig { prediction: Prediction::V, hidden: vec![8, 8], time_dim: 8, time, state, classes: None };
    network(&NetConfig::Mlp(config), &[2])
}

fn image_network() -> Result<(Network, Params, Batch)> {
    let config = UnetConfig {
        prediction: Prediction::V,
        channels: 4,
        multipliers: vec![1, 2],
        blocks: 1,
        attention: vec![2],
        heads: 2,
        dropout: 0.1,
        groups: Some(2),
        time: TimeFeatures::Fourier { std: 0.3, log: false, time_scale: 1.0, time_shift: 0.0 },
        ..UnetConfig::ho_ddpm()
    };
    network(&NetConfig::Unet(config), &[1, 4, 4])
}

/// Checks the gradient of the loss along one direction through all parameters against differences of order four.
fn check_gradient((net, params, data): &(Network, Params, Batch), config: &FokkerPlanckConfig) -> Result<()> {
    let sde: Arc<dyn LinearSde> = Arc::new(Vp::STANDARD);
    let noise = BatchNoise::new(Noise::new(3), 0, 0..8);
    let penalty = FokkerPlanck::new(sde, LAW, config.clone())?;
    let value = || -> Result<Tensor> { Ok(penalty.per_sample(net.as_ref(), data, &noise)?.mean_all()?) };
    let store = backward(&value()?)?;
    let weights = params.to_weights()?;
    let direction = |i: usize, w: &Tensor| -> Result<Tensor> {
        let noise = BatchNoise::new(Noise::new(70 + i as u64), 0, [0]);
        Ok(noise.tensor(Law::Normal, Stream::User, 0, w.dims(), DType::F64, &Device::Cpu)?.squeeze(0)?)
    };
    let mut found = 0.0;
    let names: Vec<&str> = params.iter().map(|(name, _)| name).collect();
    for (i, (_, var)) in params.iter().enumerate() {
        if let Some(gradient) = store.get(var.as_tensor()) {
            found += (gradient * direction(i, var)?)?.sum_all()?.to_scalar::<f64>()?;
        }
    }
    let at = |step: f64| -> Result<f64> {
        let moved = weights.iter().map(|(name, w)| match names.iter().position(|n| *n == name) {
            Some(i) => Ok((name.to_owned(), (w + (direction(i, w)? * step)?)?)),
            None => Ok((name.to_owned(), w.clone())),
        });
        params.load(&moved.collect::<Result<Weights>>()?)?;
        let found = value()?.to_scalar()?;
        params.load(&weights)?;
        Ok(found)
    };
    let h = 1e-4;
    let difference = (8.0 * (at(h)? - at(-h)?) - (at(2.0 * h)? - at(-2.0 * h)?)) / (12.0 * h);
    // Penalties by differences have the noise of second differences, about 1e-16/1e-6 of themselves and 1e4 times as much in
    // a difference of theirs.
    assert!((found / difference - 1.0).abs() < 1e-6, "{config:?}: {found}, not {difference}");
    Ok(())
}

#[test]
fn gradients_by_parameters_agree_with_differences() -> Result<()> {
    if !nested("gradients_by_parameters_agree_with_differences") {
        return Ok(());
    }
    let (points, image) = (points_network()?, image_network()?);
    let (probes, projected) =
        (Estimator::Probes { count: 1, unbiased: true }, Estimator::Projected { count: 1, unbiased: true });
    let cases = [
        config(Route::Reverse, Estimator::Exact),
        FokkerPlanckConfig { m: 1.0, beta: 0.5, weight: TimeWeight::G2, ..config(Route::Reverse, probes) },
        config(Route::Mixed { step: 0.01 }, probes),
        FokkerPlanckConfig { beta: 0.1, ..config(Route::Differences { step: 0.03 }, projected) },
        FokkerPlanckConfig { penalty: Penalty::Rate, ..config(Route::Reverse, probes) },
    ];
    for (k, config) in cases.iter().enumerate() {
        check_gradient(&points, config)?;
        if k > 0 {
            check_gradient(&image, config)?;
        }
    }
    check_gradient(&points, &config(Route::Differences { step: 0.03 }, Estimator::Exact))
}

#[test]
fn by_differences_gradients_need_no_switch() -> Result<()> {
    let projected = Estimator::Projected { count: 1, unbiased: true };
    check_gradient(&image_network()?, &config(Route::Differences { step: 0.03 }, projected))?;
    check_gradient(&points_network()?, &config(Route::Differences { step: 0.03 }, Estimator::Exact))
}
