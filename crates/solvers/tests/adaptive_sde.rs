//! The adaptive solver of the reverse SDE: its law on Gaussian data, its independence of the batch, and what it is without noise.

mod support;

use candle_core::{DType, Device, Tensor};
use sde_core::noise::{BatchNoise, Noise};
use sde_core::oracle::Mixture;
use sde_core::process::Vp;
use sde_core::{FieldFn, LinearSde, OracleField, Prediction, TimeGrid};
use sde_solvers::{
    Adaptive, AdaptiveSde, Chart, Error, Outcome, Path, ProbabilityFlow, Sampler, prior_sample,
};
use support::{largest_gap, process, rotating::Rotating};

const SOLVER: AdaptiveSde = AdaptiveSde { lambda: 1.0, rtol: 5e-3, atol: 5e-3, max_nfe: 100_000 };

/// Ends of `n` samples, and their evaluations.
fn ends(
    sde: &dyn LinearSde,
    data: &Mixture,
    solver: AdaptiveSde,
    grid: &TimeGrid,
    n: u32,
) -> (Tensor, Vec<usize>) {
    let noise = BatchNoise::new(Noise::new(11), 0, 0..n);
    let field = OracleField::noise(data, sde);
    let x = prior_sample(sde, &noise, &[data.dim()], DType::F64, &Device::Cpu).expect("a prior");
    let path = Path { sde, field: &field, grid };
    let solution = solver.sample(&path, &x, &noise).expect("a run");
    (solution.x, solution.nfe)
}

/// Mean and variance of each coordinate against the exact marginal of N(m, v): the prior is the marginal at T but for α(T) = 0.007.
fn assert_law(name: &str, sde: &dyn LinearSde, solver: AdaptiveSde, grid: &TimeGrid) {
    let (m, v, n) = (0.7, 0.25, 1000);
    let data = Mixture::diagonal(vec![m, m], vec![v, v]).expect("a Gaussian");
    let (x, _) = ends(sde, &data, solver, grid, n);
    let values = x.flatten_all().and_then(|x| x.to_vec1::<f64>()).expect("numbers");
    let t = grid.stop();
    let (alpha, sigma) = (sde.signal(t).max_abs(), sde.factor(t).max_abs());
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
    let exact = alpha * alpha * v + sigma * sigma;
    // Standard errors of mean and variance of normal samples, and a hundredth for the step.
    let (mean_error, variance_error) = ((exact / count).sqrt(), exact * (2.0 / count).sqrt());
    assert!((mean - alpha * m).abs() < 4.0 * mean_error + 1e-3, "{name}: mean {mean}, not {}", alpha * m);
    assert!(
        (variance - exact).abs() < 4.0 * variance_error + 0.01 * exact,
        "{name}: {variance}, not {exact}"
    );
}

#[test]
fn the_law_is_that_of_the_data() {
    for name in ["vp", "subvp", "ve"] {
        let sde = process(name);
        let span = sde.span();
        // Of VE the prior is far wider than the data, and the start a small part of the error.
        let grid = TimeGrid::new(vec![span.end, span.sampling.max(1e-3)]).expect("a grid");
        for lambda in [0.5, 1.0] {
            assert_law(&format!("{name} {lambda}"), sde.as_ref(), AdaptiveSde { lambda, ..SOLVER }, &grid);
        }
    }
}

#[test]
fn it_runs_on_groups() {
    let sde = Rotating { omega: 1.3 };
    let data = Mixture::diagonal(vec![0.7, -0.2], vec![0.25, 0.25]).expect("a Gaussian");
    let grid = TimeGrid::new(vec![1.0, 0.1]).expect("a grid");
    let (x, nfe) = ends(&sde, &data, SOLVER, &grid, 8);
    assert_eq!((x.dims(), nfe.len()), (&[8, 2][..], 8));
}

#[test]
fn a_sample_does_not_depend_on_its_batch() {
    let data = Mixture::diagonal(vec![0.7, -0.2], vec![0.25, 0.01]).expect("a Gaussian");
    let (sde, grid) = (Vp::STANDARD, TimeGrid::new(vec![1.0, 1e-3]).expect("a grid"));
    let (all, counts) = ends(&sde, &data, SOLVER, &grid, 32);
    assert!(counts.iter().any(|n| *n != counts[0]), "samples should take their own number of steps");
    let field = OracleField::noise(&data, &sde);
    for sample in [0, 9, 31] {
        let noise = BatchNoise::new(Noise::new(11), 0, [sample]);
        let x = prior_sample(&sde, &noise, &[2], DType::F64, &Device::Cpu).expect("a prior");
        let path = Path { sde: &sde, field: &field, grid: &grid };
        let alone = SOLVER.sample(&path, &x, &noise).expect("a run");
        let there = all.narrow(0, sample as usize, 1).expect("a row");
        assert_eq!(largest_gap(&alone.x, &there), 0.0);
        assert_eq!(alone.nfe[0], counts[sample as usize]);
    }
}

#[test]
fn without_noise_it_solves_the_flow() {
    let data = Mixture::points(&[vec![0.8, 0.1], vec![-0.9, 0.4]]).expect("points");
    let (sde, grid) = (Vp::STANDARD, TimeGrid::new(vec![1.0, 0.05]).expect("a grid"));
    let noise = BatchNoise::new(Noise::new(2), 0, 0..16);
    let field = OracleField::noise(&data, &sde);
    let x = prior_sample(&sde, &noise, &[2], DType::F64, &Device::Cpu).expect("a prior");
    let flow = ProbabilityFlow::new(&sde, &field, Chart::Time);
    let exact = flow.solve(&Adaptive::new(1e-10, 1e-10), &x, 1.0, 0.05).expect("a solve").y;
    let path = Path { sde: &sde, field: &field, grid: &grid };
    let gap = |tolerance: f64| {
        let solver = AdaptiveSde { lambda: 0.0, rtol: tolerance, atol: tolerance, max_nfe: 100_000 };
        largest_gap(&solver.sample(&path, &x, &noise).expect("a run").x, &exact)
    };
    let (coarse, fine) = (gap(1e-2), gap(1e-4));
    assert!(coarse < 0.1 && fine < 1e-3 && fine < 0.1 * coarse, "{coarse:e} {fine:e}");
}

#[test]
fn a_solve_that_cannot_go_on_says_so() {
    let (sde, grid) = (Vp::STANDARD, TimeGrid::new(vec![1.0, 1e-3]).expect("a grid"));
    let noise = BatchNoise::new(Noise::new(0), 0, 0..2);
    let x = prior_sample(&sde, &noise, &[2], DType::F64, &Device::Cpu).expect("a prior");
    let nan = FieldFn::new(Prediction::Noise, |x: &Tensor, t: &[f64]| {
        Ok(if t.iter().any(|t| *t < 0.5) { (x * f64::NAN)? } else { x.clone() })
    });
    let path = Path { sde: &sde, field: &nan, grid: &grid };
    let outcome = |solver: AdaptiveSde| match solver.sample(&path, &x, &noise) {
        Err(Error::Unfinished { report, .. }) => report.outcome,
        other => panic!("{other:?}"),
    };
    assert_eq!(outcome(SOLVER), Outcome::NonFinite);
    assert_eq!(outcome(AdaptiveSde { max_nfe: 5, ..SOLVER }), Outcome::NfeCap);
    assert!(AdaptiveSde { rtol: 0.0, ..SOLVER }.sample(&path, &x, &noise).is_err());
}
