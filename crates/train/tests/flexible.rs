//! Learned forward processes: gradients from an independent computation, the bound where it is an equality, the loss
//! that has no minimum, and penalties in closed form.

#[path = "support/linear.rs"]
mod linear;

use candle_core::{DType, Device, Tensor};
use linear::{Linear, host};
use nalgebra::{DMatrix, DVector};
use sde_core::noise::{BatchNoise, Noise};
use sde_core::quadrature::GaussLegendre;
use sde_core::{Model, Pass, Prediction};
use sde_data::Batch;
use sde_nets::{MlpConfig, NetConfig, OrthogonalConfig, Params, TimeFeatures, Weights};
use sde_train::loss::{Flexible, Loss, PathPenalty, Reduction, TimeLaw, Times, Weighting};
use sde_train::{Family, Forward, ForwardConfig, Result};
use std::sync::Arc;

const BOUND: TimeLaw = TimeLaw::ImportanceSampled { from: 1e-5, to: 1.0 };

/// Values of parameters, by name.
type Values<'a> = &'a [(&'a str, &'a [f64])];

/// A process with given parameters.
fn given(family: Family, dim: usize, values: Values<'_>) -> Result<(Forward, Params)> {
    let config = ForwardConfig { beta_0: 0.1, beta_1: 20.0, family };
    let weights: Weights = values.iter().map(|(name, v)| ((*name).to_owned(), host(v, &[v.len()]))).collect();
    Ok(Params::restore(&weights, DType::F64, &Device::Cpu, |b| Forward::new(b, &config, &[dim]))?)
}

const EXPONENTIAL: OrthogonalConfig = OrthogonalConfig::Exponential { std: 0.0 };
const NOISE: Family = Family::Noise { map: EXPONENTIAL, std: 0.0, normalise: false, floor: 0.0 };
const ROTATION: Family = Family::Rotation { std: 0.0 };
const OMEGA: [f64; 3] = [0.7, -0.4, 1.1];

/// The data of the closed forms: N(m, S).
fn data() -> (DVector<f64>, DMatrix<f64>) {
    let m = DVector::from_vec(vec![0.5, -1.0, 0.2]);
    (m, DMatrix::from_row_slice(3, 3, &[0.5, 0.2, 0.0, 0.2, 0.8, -0.1, 0.0, -0.1, 0.3]))
}

#[test]
fn gradients_are_those_of_an_independent_computation() -> Result<()> {
    let w = DMatrix::from_row_slice(3, 3, &[1.1, 0.2, 0.0, 0.1, 0.9, -0.3, 0.0, 0.2, 1.4]);
    let model = Linear { w, m: DVector::zeros(3) };
    let x0 = host(&[1.0, -2.0, 0.5, 0.2, 0.3, -1.0], &[2, 3]);
    let eps = host(&[0.5, -1.2, 0.3, -0.7, 0.1, 0.9], &[2, 3]);
    let noise = [("log_rates", [0.5, -0.25, 0.1].as_slice()), ("map.upper", &[0.3, -0.2, 0.5])];
    let cases: [(Family, Values<'_>, bool, f64, Vec<f64>); 4] = [
        (
            NOISE,
            &noise,
            true,
            1.404831222328,
            vec![
                0.5177934939155,
                -0.2051253187754,
                0.2583284795076,
                2.6793395502283,
                -0.7542101717040,
                2.5438183846276,
            ],
        ),
        (
            NOISE,
            &noise,
            false,
            0.106664271918,
            vec![0.014529802, -0.015925669, 0.002636807, 0.175986339, -0.063168346, 0.200998306],
        ),
        (ROTATION, &[("upper", &OMEGA)], true, 2.917567653537, vec![-0.475461366, -1.183403638, 0.984157484]),
        (
            ROTATION,
            &[("upper", &OMEGA)],
            false,
            0.242264646549,
            vec![-0.036559849, -0.100604723, 0.086762097],
        ),
    ];
    for (family, values, likelihood, expected, gradient) in cases {
        let (forward, params) = given(family, 3, values)?;
        let b = [0.2, 0.6].map(|t| forward.integral(t));
        let flow = forward.flow(DType::F64)?;
        let at = flow.diffuse(&x0, &eps, &b)?;
        let output = model.forward(&at.state, &x0, Pass::EVAL)?;
        let squares = flow.error(Prediction::Score, &output, &at)?.sqr()?;
        let weights = match likelihood {
            // ½ ḃ Q on the score is the weight in the clock times the clock's rate, ½ ḃ/(1 − e^{−b}).
            true => {
                let rates: Vec<f64> = [0.2, 0.6]
                    .iter()
                    .zip(b)
                    .map(|(&t, b)| 0.5 * forward.rate(t) / (1.0 - (-b).exp()))
                    .collect();
                flow.weights(&b)?.broadcast_mul(&host(&rates, &[2, 1]))?
            }
            false => Tensor::new(&[[0.5], [0.5]], &Device::Cpu)?,
        };
        let loss = (squares.broadcast_mul(&weights)?.sum_all()? / 2.0)?;
        let found = loss.to_scalar::<f64>()?;
        assert!((found - expected).abs() < 1e-11, "{family:?}: {found} {expected}");
        let gradients = loss.backward()?;
        let mut all = Vec::new();
        for (_, var) in params.iter() {
            all.extend(gradients.get(var).expect("a gradient").to_vec1::<f64>()?);
        }
        for (found, expected) in all.iter().zip(&gradient) {
            assert!((found - expected).abs() < 1e-9, "{family:?}: {all:?} {gradient:?}");
        }
        assert_eq!(all.len(), gradient.len());
    }
    Ok(())
}

/// The bound at x₀ by quadrature in the clock, with the exact score of N(m, S): the expectation over ε of a square of what
/// is linear in it is a mean over ± √D e_i.
fn bound(forward: &Forward, psi: impl Fn(f64) -> DMatrix<f64>, x0: &[f64], b_end: f64) -> Result<f64> {
    let (m, s) = data();
    let b_start = 1e-7f64;
    let clock = |b: f64| 0.5 * b.exp_m1().ln();
    let (first, last) = (clock(b_start), clock(b_end));
    let flow = forward.flow(DType::F64)?;
    let cost = |b: f64, weighted: bool| -> Result<f64> {
        let psi = psi(b);
        let marginal = &psi * &s * psi.transpose() + DMatrix::identity(3, 3) - &psi * psi.transpose();
        let model = Linear { w: marginal.try_inverse().expect("an inverse"), m: &psi * &m };
        let root = 3f64.sqrt();
        let eps: Vec<f64> = (0..18)
            .map(|at| if at % 3 == at / 6 { if at / 3 % 2 == 0 { root } else { -root } } else { 0.0 })
            .collect();
        let data = host(&x0.repeat(6), &[6, 3]);
        let at = flow.diffuse(&data, &host(&eps, &[6, 3]), &[b; 6])?;
        let output = model.forward(&at.state, &data, Pass::EVAL)?;
        let squares = flow.error(Prediction::Score, &output, &at)?.sqr()?;
        let squares = if weighted { squares.broadcast_mul(&flow.weights(&[b; 6])?)? } else { squares };
        Ok(squares.sum_all()?.to_scalar::<f64>()? / 6.0)
    };
    let mut total = 0.5 * cost(b_start, false)?;
    let pieces = 8;
    for piece in 0..pieces {
        let width = (last - first) / f64::from(pieces);
        let from = first + width * f64::from(piece);
        for (c, weight) in GaussLegendre::new(12).on(from, from + width) {
            total += weight * cost((2.0 * c).exp().ln_1p(), true)?;
        }
    }
    let ends = flow.ends(&host(x0, &[1, 3]), b_start, b_end)?.to_vec1::<f64>()?[0];
    Ok(total + ends)
}

#[test]
fn the_bound_is_what_an_independent_computation_finds_at_the_exact_score() -> Result<()> {
    let x0 = [1.0, -2.0, 0.5];
    // Of the decoder's law the mean is exact, the variance but for O(b²) at the start.
    let (forward, _) = given(ROTATION, 3, &[("upper", &OMEGA)])?;
    let [u, v, w] = OMEGA;
    let omega = DMatrix::from_row_slice(3, 3, &[0.0, u, v, -u, 0.0, w, -v, -w, 0.0]);
    let drift = bound(&forward, |b| (&omega * -b).exp() * (-0.5 * b).exp(), &x0, 3.0)?;
    assert!((drift - 2.999252342917).abs() < 1e-6, "{drift}");
    // The same, with ω in a basis: there it is the variance-preserving process turned, so the bound is the same.
    let (turned, _) = given(
        Family::Drift { map: EXPONENTIAL, std: 0.0 },
        3,
        &[("rates", &[0.8]), ("map.upper", &[0.3, -0.2, 0.5])],
    )?;
    let p = DMatrix::from_row_slice(3, 3, &[0.0, 0.3, -0.2, -0.3, 0.0, 0.5, 0.2, -0.5, 0.0]).exp();
    let j = DMatrix::from_row_slice(3, 3, &[0.0, 0.8, 0.0, -0.8, 0.0, 0.0, 0.0, 0.0, 0.0]);
    let omega = &p * j * p.transpose();
    let found = bound(&turned, |b| (&omega * -b).exp() * (-0.5 * b).exp(), &x0, 3.0)?;
    assert!((found - 2.999252342917).abs() < 1e-6, "{found}");
    // Q = ((2, .3, .1), (.3, 1, −.2), (.1, −.2, .5)), by its logarithm and spectrum.
    let q = DMatrix::from_row_slice(3, 3, &[2.0, 0.3, 0.1, 0.3, 1.0, -0.2, 0.1, -0.2, 0.5]);
    let (forward, _) = given(
        NOISE,
        3,
        &[
            ("log_rates", &[-0.9042144110770296, 0.01078915220560044, 0.7344295273809708]),
            ("map.upper", &[-0.5186707005248087, -1.6191795304663328, 0.11323574927711363]),
        ],
    )?;
    let noise = bound(&forward, |b| (&q * (-0.5 * b)).exp(), &x0, 3.0)?;
    assert!((noise - 3.033688447013).abs() < 1e-6, "{noise}");
    Ok(())
}

/// The exact score of N(0, ¼) under the one-dimensional process of λ.
struct Narrow {
    lambda: f64,
    integral: Box<dyn Fn(f64) -> f64>,
}

impl Model for Narrow {
    fn prediction(&self) -> Prediction {
        Prediction::Score
    }
    fn forward(&self, x: &Tensor, t: &Tensor, _pass: Pass<'_>) -> sde_core::Result<Tensor> {
        let inverse = |t: &f64| {
            let kept = (-self.lambda * (self.integral)(*t)).exp();
            -1.0 / (0.25 * kept + 1.0 - kept)
        };
        let factors: Vec<f64> = t.to_vec1::<f64>()?.iter().map(inverse).collect();
        Ok(x.broadcast_mul(&host(&factors, &[factors.len(), 1]))?)
    }
}

#[test]
fn the_simple_loss_falls_for_ever_and_the_bound_does_not() -> Result<()> {
    let noise = Family::Noise { map: OrthogonalConfig::Axes {}, std: 0.0, normalise: false, floor: 0.0 };
    // λ, ∫ of the simple loss from 1e-3 on and −ELBO at the optimal score, in closed form; the entropy is 0.725791.
    let table: [(f64, f64, f64); 5] = [
        (0.1, 0.516, 0.748995),
        (0.3, 0.3176, 0.726138),
        (1.0, 0.172, 0.725791),
        (3.0, 0.097, 0.725791),
        (10.0, 0.051, 0.725791),
    ];
    for (lambda, simple, negative_bound) in table {
        let (forward, _) = given(noise, 1, &[("log_rates", &[lambda.ln()])])?;
        let forward = Arc::new(forward);
        let clock = forward.clone();
        let model = Narrow { lambda, integral: Box::new(move |t| clock.integral(t)) };
        let flow = forward.flow(DType::F64)?;
        // Means over x₀ = ±½ and ε = ±1 of a square of what is linear in both are exact.
        let (data, eps) = (host(&[0.5, 0.5], &[2, 1]), host(&[1.0, -1.0], &[2, 1]));
        let cost = |t: f64, weighted: bool| -> Result<f64> {
            let b = [forward.integral(t); 2];
            let at = flow.diffuse(&data, &eps, &b)?;
            let output = model.forward(&at.state, &host(&[t, t], &[2]), Pass::EVAL)?;
            let squares = flow.error(Prediction::Score, &output, &at)?.sqr()?;
            let weights = if weighted { flow.weights(&b)? } else { squares.ones_like()? };
            Ok((squares * weights)?.mean_all()?.to_scalar()?)
        };
        let mut of_noise = 0.0;
        let mut in_clock = 0.5 * cost(1e-5, false)?;
        let (first, last) =
            (0.5 * forward.integral(1e-5).exp_m1().ln(), 0.5 * forward.integral(1.0).exp_m1().ln());
        let rule = GaussLegendre::new(60);
        // t = z⁴ resolves the start.
        for (z, weight) in rule.on(1e-3f64.powf(0.25), 1.0) {
            of_noise += weight * 4.0 * z.powi(3) * cost(z.powi(4), false)?;
        }
        for (c, weight) in rule.on(first, last) {
            let t = sde_core::LinearSde::time_of_clock(forward.clock(), c).clamp(1e-5, 1.0);
            in_clock += weight * cost(t, true)?;
        }
        let [start, end] = [1e-5, 1.0].map(|t| forward.integral(t));
        let found = in_clock + flow.ends(&data, start, end)?.mean_all()?.to_scalar::<f64>()?;
        // The table has three and six decimals.
        assert!((of_noise - simple).abs() < 6e-4, "{lambda}: {of_noise} {simple}");
        assert!((found - negative_bound).abs() < 2e-6, "{lambda}: {found} {negative_bound}");
        // The loss draws times at random, and finds the same within its own error.
        let loss = Flexible::new(forward.clone(), BOUND, Weighting::Likelihood, Reduction::Mean, None)?;
        let count = 4000;
        let noise = BatchNoise::new(Noise::new(3), 0, 0..count as u32);
        let x = host(&[0.5, -0.5].repeat(count / 2), &[count, 1]);
        let each =
            loss.per_sample(&model, &Batch { x, labels: None, augment: None }, &noise)?.to_vec1::<f64>()?;
        let mean = each.iter().sum::<f64>() / count as f64;
        let variance = each.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / count as f64;
        let error = (variance / count as f64).sqrt();
        assert!((mean - found).abs() < 4.0 * error, "{lambda}: {mean} ± {error}, {found}");
    }
    Ok(())
}

#[test]
fn penalties_are_those_of_gaussian_data_in_closed_form() -> Result<()> {
    let (m, s) = data();
    let b = 0.8f64;
    let turned = [("upper", OMEGA.as_slice())];
    let zeros = [("upper", [0.0; 3].as_slice())];
    // E‖v‖² and ‖∇v‖² for ḃ = 1.
    let cases: [(Values<'_>, f64, f64); 2] =
        [(&turned, 4.185219940472, 3.811331453844), (&zeros, 0.208518303272, 0.091331453843)];
    for (values, kinetic, jacobian) in cases {
        let (forward, params) = given(ROTATION, 3, values)?;
        let [u, v, w] = [0, 1, 2].map(|i| values[0].1[i]);
        let omega = DMatrix::from_row_slice(3, 3, &[0.0, u, v, -u, 0.0, w, -v, -w, 0.0]);
        let psi = (&omega * -b).exp() * (-0.5 * b).exp();
        let marginal = &psi * &s * psi.transpose() + DMatrix::identity(3, 3) * (1.0 - (-b).exp());
        let model = Linear { w: marginal.try_inverse().expect("an inverse"), m: &psi * &m };
        // Sigma points of (x₀, ε): exact for the second moments of what is linear.
        let l = s.clone().cholesky().expect("a factor").l();
        let (mut data, mut eps) = (Vec::new(), Vec::new());
        for sign in [6f64.sqrt(), -(6f64.sqrt())] {
            for i in 0..3 {
                data.extend((&m + l.column(i) * sign).iter());
                eps.extend([0.0; 3]);
                data.extend(m.iter());
                eps.extend((0..3).map(|j| if i == j { sign } else { 0.0 }));
            }
        }
        let x = host(&data, &[12, 3]);
        let flow = forward.flow(DType::F64)?;
        let at = flow.diffuse(&x, &host(&eps, &[12, 3]), &[b; 12])?;
        let batch = Batch { x, labels: None, augment: None };
        let times = Times { t: &[0.5; 12], b: &[b; 12], rate: &[1.0; 12] };
        for (penalty, expected) in [
            (PathPenalty { kinetic: 1.0, jacobian: 0.0 }, kinetic),
            (PathPenalty { kinetic: 0.0, jacobian: 1.0 }, jacobian),
        ] {
            let noise = BatchNoise::new(Noise::new(1), 0, 0..12);
            let total = penalty.of(&flow, &model, &batch, &at, times, &noise)?.mean_all()?;
            let found = total.to_scalar::<f64>()?;
            assert!((found - expected).abs() < 1e-10, "{penalty:?}: {found} {expected}");
            let gradients = total.backward()?;
            assert!(params.iter().all(|(_, var)| gradients.get(var).is_some()));
        }
    }
    Ok(())
}

fn small_net(prediction: Prediction) -> NetConfig {
    let time = TimeFeatures::Fourier { std: 1.0, log: false, time_scale: 1.0, time_shift: 0.0 };
    NetConfig::Mlp(MlpConfig { prediction, hidden: vec![8], time_dim: 4, time, state: None, classes: None })
}

#[test]
fn gradients_of_the_bound_are_those_of_finite_differences() -> Result<()> {
    let map = OrthogonalConfig::Exponential { std: 0.5 };
    let families = [
        Family::Noise { map, std: 0.3, normalise: false, floor: 0.05 },
        Family::Noise {
            map: OrthogonalConfig::Householder { reflections: 2, std: 0.3 },
            std: 0.3,
            normalise: true,
            floor: 0.0,
        },
        Family::Drift { map, std: 0.3 },
        Family::Rotation { std: 0.3 },
    ];
    let x = host(&(0..15).map(|k| (0.9 * f64::from(k)).sin()).collect::<Vec<_>>(), &[5, 3]);
    let batch = Batch { x, labels: None, augment: None };
    let noise = BatchNoise::new(Noise::new(9), 4, 0..5);
    for prediction in [Prediction::Noise, Prediction::V, Prediction::Score, Prediction::Data] {
        for family in families {
            if prediction == Prediction::Data && !matches!(family, Family::Noise { .. }) {
                continue;
            }
            let config = ForwardConfig { beta_0: 0.1, beta_1: 20.0, family };
            let ((net, forward), params) =
                Params::initialise(Noise::new(2), DType::F64, &Device::Cpu, |b| {
                    let net = small_net(prediction).build(b, &[3])?;
                    Ok((net, Arc::new(Forward::new(&b.pp("forward"), &config, &[3])?)))
                })?;
            // Times where errors of data and score are of order one.
            let time = TimeLaw::ImportanceSampled { from: 0.05, to: 1.0 };
            let loss = Flexible::new(forward, time, Weighting::Likelihood, Reduction::Mean, None)?;
            let total = || -> Result<Tensor> { Ok(loss.loss(net.as_ref(), &batch, &noise)?.total) };
            let gradients = total()?.backward()?;
            for (name, var) in params.iter().filter(|(name, _)| name.starts_with("forward.")) {
                let gradient = gradients.get(var).expect("a gradient").flatten_all()?.to_vec1::<f64>()?;
                let values = var.flatten_all()?.to_vec1::<f64>()?;
                let place = values.len() - 1;
                let at = |step: f64| -> Result<f64> {
                    let mut moved = values.clone();
                    moved[place] += step;
                    var.set(&host(&moved, var.dims()))?;
                    Ok(total()?.to_scalar()?)
                };
                let h = 1e-4;
                let expected = (at(h)? - at(-h)?) / (2.0 * h);
                var.set(&host(&values, var.dims()))?;
                let gap = (gradient[place] - expected).abs();
                assert!(gap < 1e-5 * (1.0 + expected.abs()), "{family:?} {prediction:?} {name}: {gap:e}");
            }
        }
    }
    Ok(())
}

/// Everywhere −x.
struct Centred;

impl Model for Centred {
    fn prediction(&self) -> Prediction {
        Prediction::Score
    }
    fn forward(&self, x: &Tensor, _t: &Tensor, _pass: Pass<'_>) -> sde_core::Result<Tensor> {
        Ok(x.neg()?)
    }
}

const PENALTY: PathPenalty = PathPenalty { kinetic: 0.3, jacobian: 0.2 };

fn points(count: usize) -> Batch {
    let wave = (0..3 * count).map(|k| (0.9 * k as f64).sin()).collect::<Vec<_>>();
    Batch { x: host(&wave, &[count, 3]), labels: None, augment: None }
}

#[test]
fn a_score_is_finite_where_a_coordinate_has_no_signal_left() -> Result<()> {
    // λ b / 2 is 2000 in the first coordinate: a is 0 in f64, too.
    let (forward, _) =
        given(NOISE, 3, &[("log_rates", &[400f64.ln(), 0.0, 0.0]), ("map.upper", &[0.3, -0.2, 0.5])])?;
    let flow = forward.flow(DType::F64)?;
    let b = [forward.integral(1.0); 2];
    let (x0, eps) = (points(2).x, host(&[0.4, -0.8, 1.1, 0.2, 0.9, -0.3], &[2, 3]));
    let at = flow.diffuse(&x0, &eps, &b)?;
    let (frame, rates) = flow.spectrum().expect("a spectrum");
    let signal = (rates * (-0.5 * b[0]))?.exp()?;
    let sigma = signal.sqr()?.affine(-1.0, 1.0)?.sqrt()?;
    assert_eq!(signal.to_vec1::<f64>()?[0], 0.0);
    // What an exact network puts out, and the score that it stands for: −ε/σ.
    let data = frame.coordinates(&x0)?;
    let v = frame.entries(&(eps.broadcast_mul(&signal)? - data.broadcast_mul(&sigma)?)?)?;
    let expected = frame.entries(&eps.broadcast_div(&sigma)?.neg()?)?;
    for (prediction, output) in
        [(Prediction::V, v), (Prediction::Data, x0), (Prediction::Noise, frame.entries(&eps)?)]
    {
        let score = flow.score(prediction, &output, &at.state, &b)?;
        let gap = (score - &expected)?.abs()?.max_all()?.to_scalar::<f64>()?;
        assert!(gap < 1e-12, "{prediction:?}: {gap:e}");
    }
    Ok(())
}

#[test]
fn the_penalty_of_a_simple_loss_is_an_integral_over_its_times() -> Result<()> {
    let (forward, _) = given(ROTATION, 3, &[("upper", &OMEGA)])?;
    let forward = Arc::new(forward);
    let loss = |time| Flexible::new(forward.clone(), time, Weighting::Simple, Reduction::Mean, Some(PENALTY));
    // Times so close that the integrand is one number, all but for what lies between them.
    let (middle, count) = (0.5, 4);
    let noise = BatchNoise::new(Noise::new(2), 4, 0..count as u32);
    let term = |width: f64| -> Result<f64> {
        let time = TimeLaw::Uniform { from: middle - 0.5 * width, to: middle + 0.5 * width };
        Ok(loss(time)?.loss(&Centred, &points(count), &noise)?.terms[0].1)
    };
    let ratio = term(2e-6)? / term(1e-6)?;
    assert!((ratio - 2.0).abs() < 1e-3, "{ratio}");
    for time in [TimeLaw::EvenClock { from: 1e-5, to: 1.0 }, BOUND] {
        let error = loss(time).err().map_or(String::new(), |error| error.to_string());
        assert!(error.contains("time.kind") && error.contains("uniform"), "{error}");
    }
    Ok(())
}

#[test]
fn held_out_data_are_without_penalty_and_the_log_tells_it_apart() -> Result<()> {
    let (forward, _) = given(ROTATION, 3, &[("upper", &OMEGA)])?;
    let forward = Arc::new(forward);
    let loss =
        |penalty| Flexible::new(forward.clone(), BOUND, Weighting::Likelihood, Reduction::Mean, penalty);
    let (plain, penalised) = (loss(None)?, loss(Some(PENALTY))?);
    let frozen = penalised.clone().frozen_after(Some(5));
    let at = |loss: &Flexible, step: u32| -> Result<(f64, Vec<(&'static str, f64)>)> {
        let value = loss.loss(&Centred, &points(4), &BatchNoise::new(Noise::new(2), step, 0..4))?;
        Ok((value.total.to_scalar()?, value.terms))
    };
    // Held-out data have the last step of all.
    for loss in [&penalised, &frozen] {
        assert_eq!(at(loss, u32::MAX)?, at(&plain, u32::MAX)?);
    }
    let ((total, terms), (without, none)) = (at(&penalised, 4)?, at(&plain, 4)?);
    let [("path_penalty", penalty)] = terms[..] else { panic!("{terms:?}") };
    assert!(penalty > 0.0 && (total - without - penalty).abs() < 1e-12 * total.abs(), "{total} {penalty}");
    assert!(none.is_empty());
    // Once the process is frozen there is nothing to penalise.
    let ((total, terms), (without, _)) = (at(&frozen, 5)?, at(&plain, 5)?);
    assert!(terms.is_empty() && (total - without).abs() < 1e-12 * total.abs(), "{total} {without}");
    Ok(())
}

#[test]
fn what_cannot_be_learned_is_an_error_that_says_why() -> Result<()> {
    let (free, _) = given(NOISE, 3, &[("log_rates", &[0.0; 3]), ("map.upper", &[0.0; 3])])?;
    let free = Arc::new(free);
    let message = |time, weighting, reduction| {
        let loss = Flexible::new(free.clone(), time, weighting, reduction, None);
        loss.err().map_or(String::new(), |error| error.to_string())
    };
    let uniform = TimeLaw::Uniform { from: 1e-5, to: 1.0 };
    assert!(message(uniform, Weighting::Simple, Reduction::Mean).contains("normalise"));
    assert!(message(uniform, Weighting::Likelihood, Reduction::Mean).contains("importance_sampled"));
    assert!(message(BOUND, Weighting::Likelihood, Reduction::HalfSum).contains("reduction"));
    assert!(message(BOUND, Weighting::Flow, Reduction::Mean).contains("weighting.kind"));
    let family = Family::Noise { map: OrthogonalConfig::Axes {}, std: 0.1, normalise: false, floor: 1.5 };
    let error = ForwardConfig { beta_0: 0.1, beta_1: 20.0, family }.check(&[3]).expect_err("a floor above 1");
    assert!(error.to_string().contains("floor"), "{error}");
    assert!(given(ROTATION, 1, &[]).is_err());
    Ok(())
}
