//! Variances that depend on the state, without Monte Carlo: laws through the sampler for Gaussian data, quadrature for mixtures.

mod support;

use candle_core::{Device, Tensor};
use nalgebra::{DMatrix, DVector};
use sde_core::noise::Recorded;
use sde_core::oracle::Mixture;
use sde_core::process::{Discrete, Vp};
use sde_core::{LinearSde, MomentField, Moments, OracleField, ScalarSde, SecondMoment, TimeGrid};
use sde_solvers::{Clipping, Error, LearnedVariance};
use support::moments::response;
use support::{process, scalar, tensor};

/// What becomes of (ε̂, κ) of a state.
type Change = fn(Moments) -> sde_core::Result<Moments>;

/// A field of moments with another κ or ε̂.
struct Changed<'a>(OracleField<'a>, Change);

impl MomentField for Changed<'_> {
    fn moments(&self, x: &Tensor, t: &[f64]) -> sde_core::Result<Moments> {
        (self.1)(self.0.moments(x, t)?)
    }
}

fn chain() -> Discrete {
    let betas: Vec<f64> = (1..=1000).map(|t| 0.02 * f64::from(t) / 1000.0).collect();
    Discrete::new(&betas).expect("betas")
}

/// Mean and covariance of the samples, from the exact law at the start of the grid.
fn law(
    sde: &dyn LinearSde,
    field: &dyn MomentField,
    grid: &TimeGrid,
    eta: f64,
    (mean, variances): ([f64; 2], [f64; 2]),
) -> (Vec<f64>, DMatrix<f64>) {
    let rule = LearnedVariance { eta, clipping: Clipping::NONE };
    let (alpha, square) = (scalar(&sde.signal(grid.start())), scalar(&sde.covariance(grid.start())));
    let start = (mean.map(|m| alpha * m), variances.map(|v| alpha * alpha * v + square));
    let run = |x: &Tensor, noise: &Recorded| {
        let solution = rule.sample(sde, field, grid, x, noise).expect("a run");
        assert_eq!(solution.nfe, vec![grid.steps(); x.dims()[0]]);
        solution
    };
    response(&run, grid.steps(), (&start.0, &start.1))
}

const MEAN: [f64; 2] = [0.3, -0.5];
const VARIANCES: [f64; 2] = [0.01, 1.0];

#[test]
fn gaussians_along_the_axes_are_exact_with_any_steps_stochasticity_and_process() {
    let data = Mixture::diagonal(MEAN.to_vec(), VARIANCES.to_vec()).expect("a Gaussian");
    let check = |sde: &dyn LinearSde, grid: &TimeGrid| {
        let (alpha, square) = (scalar(&sde.signal(grid.stop())), scalar(&sde.covariance(grid.stop())));
        let right = DVector::from_vec(VARIANCES.map(|v| alpha * alpha * v + square).to_vec());
        for eta in [0.0, 0.4, 1.0] {
            let field = OracleField::noise(&data, sde);
            let (mean, covariance) = law(sde, &field, grid, eta, (MEAN, VARIANCES));
            let gap = (covariance - DMatrix::from_diagonal(&right)).amax();
            assert!(gap < 1e-10, "{} steps, eta {eta}: {gap:e}", grid.steps());
            assert!(mean.iter().zip(MEAN).all(|(a, b)| (a - alpha * b).abs() < 1e-10));
        }
    };
    for steps in [1, 2, 10, 100] {
        check(&chain(), &TimeGrid::discrete(1000, steps).expect("a grid"));
    }
    for name in ["vp", "subvp", "edm", "cosine"] {
        let sde = process(name);
        let (end, stop) = (sde.span().end, sde.span().sampling);
        check(sde.as_ref(), &TimeGrid::karras(sde.as_ref(), end, stop, 7, 7.0).expect("a grid"));
    }
}

#[test]
fn less_than_the_variance_by_entry_gives_the_tabulated_errors() {
    // Variances (0.01, 1), 10 steps, η = 1: no κ is ancestral sampling, one κ for all entries is Analytic-DPM.
    let (sde, grid) = (chain(), TimeGrid::discrete(1000, 10).expect("a grid"));
    let data = Mixture::diagonal(MEAN.to_vec(), VARIANCES.to_vec()).expect("a Gaussian");
    let none: Change = |m| Ok(Moments { variance: m.variance.zeros_like()?, ..m });
    let shared: Change =
        |m| Ok(Moments { variance: m.variance.mean_keepdim(1)?.broadcast_as(m.variance.shape())?, ..m });
    for (change, expected) in [(none, [0.00068, 0.521]), (shared, [0.0652, 0.769])] {
        let field = Changed(OracleField::noise(&data, &sde), change);
        let (_, covariance) = law(&sde, &field, &grid, 1.0, (MEAN, VARIANCES));
        for (i, value) in expected.iter().enumerate() {
            // Half a unit of the last digit that is known.
            let tolerance = if *value < 0.001 {
                5e-6
            } else if *value < 0.1 {
                5e-5
            } else {
                5e-4
            };
            assert!((covariance[(i, i)] - value).abs() <= tolerance, "{covariance}");
        }
    }
}

/// Points and weights for integrals over the line, by the trapezoidal rule: exact to rounding for what falls off like a Gaussian.
fn line(low: f64, high: f64, n: usize) -> (Vec<f64>, f64) {
    let h = (high - low) / n as f64;
    ((0..=n).map(|i| low + h * i as f64).collect(), h)
}

fn column(values: &[f64]) -> Tensor {
    Tensor::from_slice(values, (values.len(), 1), &Device::Cpu).expect("a column")
}

fn values(column: &Tensor) -> Vec<f64> {
    column.flatten_all().and_then(|v| v.to_vec1()).expect("f64")
}

#[test]
fn one_step_keeps_mean_and_variance_of_any_data() {
    // Two unequal modes: κ is near 0 at either and large between them, and its mean over states is Analytic-DPM's.
    let narrow = || DMatrix::from_element(1, 1, 0.02);
    let data = Mixture::new(&[0.3, 0.7], &[vec![-1.0], vec![0.8]], &[narrow(), narrow()]).expect("a mixture");
    let sde = Vp::STANDARD;
    let (from, to) = (0.5, 0.2);
    let grid = TimeGrid::new(vec![from, to]).expect("a grid");
    let (points, h) = line(-9.0, 9.0, 1800);
    let x = column(&points);
    let field = OracleField::noise(&data, &sde);
    let density: Vec<f64> =
        field.log_density(&x, &[from]).expect("densities").iter().map(|l| h * l.exp()).collect();
    let mean_of = |f: &dyn Fn(usize) -> f64| (0..points.len()).map(|i| density[i] * f(i)).sum::<f64>();

    let Moments { noise, variance } = field.moments(&x, &[from]).expect("moments");
    let (noise, kappa) = (values(&noise), values(&variance));
    // The law of total variance, E κ + E ε̂² = 1.
    let total = mean_of(&|i| kappa[i] + noise[i] * noise[i]);
    assert!((total - 1.0).abs() < 1e-12, "{total:e}");
    let (least, most) = kappa.iter().fold((1.0f64, 0.0f64), |(a, b), k| (a.min(*k), b.max(*k)));
    assert!(least > 0.0 && most > 3.0 * least, "{least} {most}");

    let exact = |t: f64| {
        let (a, s) = (sde.alpha(t), sde.sigma(t));
        let mean = 0.7 * 0.8 - 0.3;
        let spread = 0.02 + 0.3 * (-1.0f64 - mean).powi(2) + 0.7 * (0.8f64 - mean).powi(2);
        (a * mean, a * a * spread + s * s)
    };
    for eta in [0.0, 0.6, 1.0] {
        let rule = LearnedVariance { eta, clipping: Clipping::NONE };
        let run = |z: f64| {
            let noise = Recorded(Tensor::full(z, (1, points.len(), 1), &Device::Cpu).expect("noise"));
            values(&rule.sample(&sde, &field, &grid, &x, &noise).expect("a run").x)
        };
        let (centre, deviation) = (run(0.0), run(1.0));
        let injected = |i: usize| (deviation[i] - centre[i]).powi(2);
        let mean = mean_of(&|i| centre[i]);
        let spread = mean_of(&|i| (centre[i] - mean).powi(2) + injected(i));
        let right = exact(to);
        assert!((mean - right.0).abs() < 1e-12 && (spread - right.1).abs() < 1e-12, "eta {eta}: {spread}");
        // On the state itself: s² + c² κ(x).
        let (rho, next) = (sde.sigma(from) / sde.alpha(from), sde.sigma(to) / sde.alpha(to));
        let s2 = (eta * sde.sigma(to)).powi(2) * (1.0 - (next / rho).powi(2));
        let c = sde.sigma(from) * sde.alpha(to) / sde.alpha(from) - (sde.sigma(to).powi(2) - s2).sqrt();
        for i in (0..points.len()).step_by(100) {
            assert!((injected(i) - s2 - c * c * kappa[i]).abs() < 1e-12);
        }
    }
}

#[test]
fn of_a_wrong_mean_the_residual_is_the_likeliest_variance_and_the_square_goes_negative() {
    // Data N(0, 0.25), ε̂ = ε̂* + 0.3 sin 2x, t = 300 of 1000. In units of x₀ the variance is 0.2137, the likeliest one for this mean 0.2797, and the
    // formula for a right mean gives a negative number.
    let sde = chain();
    let t = 300.0;
    let data = Mixture::diagonal(vec![0.0], vec![0.25]).expect("a Gaussian");
    let field = OracleField::noise(&data, &sde);
    let (points, h) = line(-8.0, 8.0, 640);
    let x = column(&points);
    let density: Vec<f64> =
        field.log_density(&x, &[t]).expect("densities").iter().map(|l| h * l.exp()).collect();
    let Moments { noise, variance } = field.moments(&x, &[t]).expect("moments");
    let wrong: Vec<f64> = points.iter().zip(values(&noise)).map(|(x, e)| e + 0.3 * (2.0 * x).sin()).collect();
    // ε given the state is normal: its nodes at every state, `[states, nodes]`.
    let (nodes, width) = line(-9.0, 9.0, 180);
    let weights: Vec<f64> =
        nodes.iter().map(|u| width * (-0.5 * u * u).exp() / std::f64::consts::TAU.sqrt()).collect();
    let (n, m) = (points.len(), nodes.len());
    let nodes = Tensor::new(nodes, &Device::Cpu).and_then(|u| u.reshape((1, m))).expect("nodes");
    let eps = variance.sqrt().and_then(|s| s.broadcast_mul(&nodes)?.broadcast_add(&noise)).expect("draws");
    let predicted = column(&wrong).broadcast_as((n, m)).and_then(|p| p.contiguous()).expect("predictions");
    let unit = (sde.sigma(t) / sde.alpha(t)).powi(2);
    let estimate = |second: SecondMoment| {
        let target = second.target(&sde, &[t], &eps, &predicted).expect("a target");
        let weights = column(&weights);
        let f = target.matmul(&weights).expect("expectations");
        let kappa = values(&second.variance(&sde, &[t], &f).expect("variances"));
        let mean: f64 = kappa.iter().zip(&density).map(|(k, p)| unit * k * p).sum();
        (mean, kappa.into_iter().fold(f64::INFINITY, f64::min))
    };
    let right: f64 = values(&variance).iter().zip(&density).map(|(k, p)| unit * k * p).sum();
    assert!((right - 0.2137).abs() < 6e-5, "{right}");
    let (residual, least) = estimate(SecondMoment::Residual);
    assert!((residual - 0.2797).abs() < 6e-5 && least > 0.1, "{residual} {least}");
    let (square, least) = estimate(SecondMoment::Square);
    // 1 − E ε̂², by the moments of sin 2x and x sin 2x under N(0, V).
    let sigma = sde.sigma(t);
    let v = 0.25 * sde.alpha(t).powi(2) + sigma * sigma;
    let closed = 1.0 - sigma * sigma / v - 0.045 * (1.0 - (-8.0 * v).exp()) - 1.2 * sigma * (-2.0 * v).exp();
    assert!((square - unit * closed).abs() < 1e-10 && square < -0.18, "{square}");
    assert!(least < -1.0, "{least}");
}

#[test]
fn clipping_and_negative_estimates_and_nan() {
    let data = Mixture::diagonal(vec![0.0, 0.2], vec![0.3, 0.5]).expect("a Gaussian");
    let sde = Vp::STANDARD;
    let grid = TimeGrid::new(vec![0.9, 0.5, 0.1]).expect("a grid");
    let x = tensor(&[vec![0.4, -1.0]]);
    let run = |change: Change, eta: f64, clipping: Clipping, z: [f64; 2]| {
        let noise = Tensor::new(&[[[z[0]; 2]], [[z[1]; 2]]], &Device::Cpu).map(Recorded).expect("noise");
        let field = Changed(OracleField::noise(&data, &sde), change);
        let solution = LearnedVariance { eta, clipping }.sample(&sde, &field, &grid, &x, &noise)?;
        Ok::<_, Error>(values(&solution.x))
    };
    let same: Change = Ok;
    let negative: Change = |m| Ok(Moments { variance: m.variance.neg()?, ..m });
    let huge: Change = |m| Ok(Moments { variance: (m.variance * 1e9)?, ..m });
    let nan: Change = |m| Ok(Moments { variance: (m.variance * f64::NAN)?, ..m });
    // A negative estimate is none: with η = 0 no noise is left.
    let quiet = run(same, 0.0, Clipping::NONE, [0.0, 0.0]).expect("a run");
    assert_eq!(run(negative, 0.0, Clipping::NONE, [1.0, 1.0]).expect("a run"), quiet);
    // The last step without noise.
    let silent = Clipping { last_noise: false, ..Clipping::NONE };
    let loud = run(same, 1.0, silent, [0.0, 1.0]).expect("a run");
    assert_eq!(loud, run(same, 1.0, silent, [0.0, 0.0]).expect("a run"));
    assert_ne!(loud, run(same, 1.0, Clipping::NONE, [0.0, 1.0]).expect("a run"));
    // κ at its bound: all of the variance of x₀ is that of the range.
    let shift = |clipping: Clipping| {
        let (a, b) = (run(huge, 0.0, clipping, [0.0, 1.0]), run(huge, 0.0, clipping, [0.0, 0.0]));
        a.expect("a run")[0] - b.expect("a run")[0]
    };
    let (a, s) = (sde.alpha(0.5), sde.sigma(0.5));
    let c = s * sde.alpha(0.1) / a - sde.sigma(0.1);
    assert!((shift(Clipping::NONE) - c).abs() < 1e-12);
    let half = Clipping { half_range: Some(0.5), ..Clipping::NONE };
    assert!((shift(half) - c * 0.5 * a / s).abs() < 1e-12);
    let capped = Clipping { cap: Some((1, 0.01)), ..Clipping::NONE };
    assert!((shift(capped) - 0.01).abs() < 1e-12);
    assert!(matches!(run(nan, 0.0, Clipping::NONE, [1.0, 1.0]), Err(Error::NonFinite { step: 0, .. })));
    assert!(run(same, 1.5, Clipping::NONE, [0.0, 0.0]).is_err());
    let groups = support::rotating::Rotating { omega: 1.0 };
    let field = OracleField::noise(&data, &groups);
    let noise = Recorded(Tensor::zeros((2, 1, 2), candle_core::DType::F64, &Device::Cpu).expect("noise"));
    let refused =
        LearnedVariance { eta: 1.0, clipping: Clipping::NONE }.sample(&groups, &field, &grid, &x, &noise);
    assert!(matches!(refused, Err(Error::NotScalar { .. })));
}
