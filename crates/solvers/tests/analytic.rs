//! Optimal variances: exact where the theory says so, for any number of steps and any stochasticity; and the pass over data that finds them.

mod support;

use candle_core::{Device, Tensor};
use nalgebra::{DMatrix, DVector};
use sde_core::noise::{Noise, Recorded, Stream};
use sde_core::oracle::Mixture;
use sde_core::process::{Discrete, Vp};
use sde_core::{LinearSde, OracleField, ScalarSde, TimeGrid};
use sde_solvers::calibration::{calibrate, residual_variance};
use sde_solvers::{
    AnalyticDiagonal, AnalyticDpm, Clipping, Error, Multistep, Path, ResidualVariance, Sampler,
};
use support::moments::{exact, propagate, response};
use support::{process, scalar, tensor};

/// κ of Gaussian data of variance `variance`: α² s²/(α² s² + σ²).
fn gaussian_kappa(sde: &dyn LinearSde, t: f64, variance: f64) -> f64 {
    let signal = scalar(&sde.signal(t)).powi(2) * variance;
    signal / (signal + scalar(&sde.covariance(t)))
}

fn exact_residual(sde: &dyn LinearSde, grid: &TimeGrid, variance: f64) -> ResidualVariance {
    let times = grid.times().to_vec();
    let kappa = times.iter().map(|&t| gaussian_kappa(sde, t, variance)).collect();
    ResidualVariance { times, kappa }
}

#[test]
fn isotropic_gaussians_are_reproduced_exactly_with_any_steps_and_stochasticity() {
    let betas: Vec<f64> = (1..=1000).map(|t| 0.02 * f64::from(t) / 1000.0).collect();
    let discrete = Discrete::new(&betas).expect("betas");
    let data = Mixture::diagonal(vec![0.6], vec![0.25]).expect("a Gaussian");
    let law = (DVector::from_vec(vec![0.6]), DMatrix::from_element(1, 1, 0.25));
    let check = |sde: &dyn LinearSde, grid: &TimeGrid| {
        for eta in [0.0, 0.3, 1.0] {
            let residual = exact_residual(sde, grid, 0.25);
            let rule = AnalyticDpm { eta, residual, clipping: Clipping::NONE };
            let table = rule.table(sde, grid).expect("a table");
            let end = propagate(&table, &data, sde, exact((&law.0, &law.1), sde, grid.start()));
            let right = exact((&law.0, &law.1), sde, grid.stop());
            assert!((&end.mean - &right.mean).amax() < 1e-10, "{} steps, eta {eta}", grid.steps());
            let gap = (&end.covariance - &right.covariance).amax();
            assert!(gap < 1e-10, "{} steps, eta {eta}: {gap:e}", grid.steps());
        }
    };
    for steps in [1, 2, 5, 10, 100, 1000] {
        check(&discrete, &TimeGrid::discrete(1000, steps).expect("a grid"));
    }
    for name in ["vp", "subvp", "edm", "cosine"] {
        let sde = process(name);
        let span = sde.span();
        check(
            sde.as_ref(),
            &TimeGrid::karras(sde.as_ref(), span.end, span.sampling, 7, 7.0).expect("a grid"),
        );
    }
}

#[test]
fn a_diagonal_variance_is_exact_where_a_scalar_one_is_not() {
    // Variances (0.01, 1), 10 steps, η = 1: values of the specification.
    let betas: Vec<f64> = (1..=1000).map(|t| 0.02 * f64::from(t) / 1000.0).collect();
    let sde = Discrete::new(&betas).expect("betas");
    let (mean, variances) = ([0.3, -0.5], [0.01, 1.0]);
    let data = Mixture::diagonal(mean.to_vec(), variances.to_vec()).expect("a Gaussian");
    let field = OracleField::noise(&data, &sde);
    let grid = TimeGrid::discrete(1000, 10).expect("a grid");
    let (alpha, square) = (sde.alpha(grid.start()), sde.sigma(grid.start()).powi(2));
    let start = (mean.map(|m| alpha * m), variances.map(|v| alpha * alpha * v + square));
    let path = Path { sde: &sde, field: &field, grid: &grid };
    let vectors: Vec<Vec<f64>> =
        grid.times().iter().map(|&t| variances.map(|v| gaussian_kappa(&sde, t, v)).to_vec()).collect();
    let scalars = vectors.iter().map(|v| (v[0] + v[1]) / 2.0).collect();
    let residual = ResidualVariance { times: grid.times().to_vec(), kappa: scalars };
    let isotropic = AnalyticDpm { eta: 1.0, residual, clipping: Clipping::NONE };
    let law = |rule: &dyn Sampler| {
        let run = |x: &Tensor, noise: &Recorded| rule.sample(&path, x, noise).expect("a run");
        response(&run, grid.steps(), (&start.0, &start.1))
    };
    let (_, covariance) = law(&isotropic);
    assert!((covariance[(0, 0)] - 0.0652).abs() < 6e-5 && (covariance[(1, 1)] - 0.769).abs() < 6e-4);
    for eta in [0.0, 0.5, 1.0] {
        let kappa =
            vectors.iter().map(|v| Tensor::new(v.as_slice(), &Device::Cpu).expect("a vector")).collect();
        let rule = AnalyticDiagonal { eta, times: grid.times().to_vec(), kappa, clipping: Clipping::NONE };
        let (found, covariance) = law(&rule);
        let right = DMatrix::from_diagonal(&DVector::from_vec(variances.to_vec()));
        assert!((covariance - right).amax() < 1e-10, "eta {eta}");
        assert!(found.iter().zip(mean).all(|(a, b)| (a - b).abs() < 1e-10));
    }
}

#[test]
fn clipping_keeps_the_variance_in_its_bounds() {
    let sde = Vp::STANDARD;
    let grid = TimeGrid::uniform(0.9, 0.01, 5).expect("a grid");
    let table = |kappa: f64, clipping: Clipping| {
        let residual = ResidualVariance { times: grid.times().to_vec(), kappa: vec![kappa; 6] };
        AnalyticDpm { eta: 1.0, residual, clipping }.table(&sde, &grid).expect("a table")
    };
    let injected = |kappa, clipping| {
        table(kappa, clipping)
            .updates
            .iter()
            .map(|u| u.inject.as_ref().map_or(0.0, scalar))
            .collect::<Vec<_>>()
    };
    // An estimate outside of [0, 1] is one of the ends, and κ = 0 is DDPM's small variance.
    assert_eq!(injected(-0.2, Clipping::NONE), injected(0.0, Clipping::NONE));
    assert_eq!(injected(1.7, Clipping::NONE), injected(1.0, Clipping::NONE));
    let bounded = injected(1.0, Clipping { half_range: Some(0.5), ..Clipping::NONE });
    for (update, deviation) in table(1.0, Clipping::NONE).updates.iter().zip(bounded) {
        let t = update.from;
        let residual = (0.5 / sde.rho(t)).powi(2).min(1.0);
        let small = injected(0.0, Clipping::NONE)[update.step];
        let expected = (small * small + scalar(&update.terms[0]).powi(2) * residual).sqrt();
        assert!((deviation - expected).abs() < 1e-14, "{t}");
    }
    let pixels = injected(1.0, Clipping::pixels(2.0));
    // E|N(0, s²)| = s √(2/π): two levels of 2/255 each.
    assert!((pixels[3] * std::f64::consts::FRAC_2_PI.sqrt() - 4.0 / 255.0).abs() < 1e-15);
    assert!(pixels[4] == 0.0 && pixels[2] > pixels[3]);
    let residual = ResidualVariance { times: vec![0.9], kappa: vec![0.5] };
    let missing = AnalyticDpm { eta: 1.0, residual, clipping: Clipping::NONE }.table(&sde, &grid);
    let Err(Error::Core(found)) = missing else { panic!("a table without its variances") };
    assert!(found.to_string().contains("calibrate at the times of the grid"), "{found}");
    // A value that is not a number must not pass for the cap.
    for kappa in [vec![f64::NAN; 6], vec![0.5; 5]] {
        let residual = ResidualVariance { times: grid.times().to_vec(), kappa };
        let rule = AnalyticDpm { eta: 1.0, residual, clipping: Clipping::pixels(1.0) };
        let refused = rule.table(&sde, &grid);
        assert!(matches!(refused, Err(Error::Core(sde_core::Error::Range { .. }))), "{refused:?}");
    }
}

#[test]
fn both_estimates_agree_with_the_truth_and_the_better_one_decides() {
    let sde = Vp::STANDARD;
    let (mean, variances) = ([0.6, -0.2], [0.25, 0.04]);
    let data = Mixture::diagonal(mean.to_vec(), variances.to_vec()).expect("a Gaussian");
    let noise = Noise::new(7);
    let batch = |index: usize| {
        let row = |sample: usize| {
            let mut draws = noise.draws(Stream::Data, 0, sample as u32);
            (0..2).map(|i| mean[i] + variances[i].sqrt() * draws.normal()).collect()
        };
        let rows: Vec<Vec<f64>> = (0..500).map(|i| row(500 * index + i)).collect();
        Ok((index < 8).then(|| tensor(&rows)))
    };
    let times = [0.9, 0.6, 0.3, 0.1, 0.01];
    let field = OracleField::data(&data, &sde);
    let found = calibrate(&sde, &field, &times, &batch, noise).expect("a calibration");
    for residual in &found {
        let truth = variances.map(|v| gaussian_kappa(&sde, residual.t, v));
        let mean = (truth[0] + truth[1]) / 2.0;
        for estimate in [residual.of_data, residual.of_noise] {
            let deviations = (estimate.kappa - mean) / estimate.standard_error;
            assert!(deviations.abs() < 4.0, "t = {}: {estimate:?} for {mean}", residual.t);
        }
        let diagonal = residual.diagonal.to_vec1::<f64>().expect("a vector");
        assert!(((diagonal[0] + diagonal[1]) / 2.0 - residual.best().kappa).abs() < 1e-12);
        // A mean over two coordinates has half the deviation of their sum, so one coordinate is off by at most twice as much.
        let bound = 8.0 * residual.best().standard_error;
        assert!(diagonal.iter().zip(truth).all(|(a, b)| (a - b).abs() < bound), "{diagonal:?} for {truth:?}");
    }
    // Much noise: the data; little noise: the noise.
    let by_data = |i: usize| found[i].of_data.standard_error < found[i].of_noise.standard_error;
    assert!(by_data(0) && !by_data(4));
    assert!(found[0].best().standard_error < 0.02 * found[0].of_noise.standard_error);
    assert_eq!(residual_variance(&found).times, times);
    let lone = |index: usize| Ok((index == 0).then(|| tensor(&[vec![0.1, 0.2]])));
    assert!(calibrate(&sde, &field, &times, &lone, noise).is_err());
}
