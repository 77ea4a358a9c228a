//! Stochastic samplers without Monte Carlo: for Gaussian data the exact ε is affine in the state, so mean and covariance pass through a table exactly.

mod support;

use nalgebra::{DMatrix, DVector};
use sde_core::oracle::Mixture;
use sde_core::process::Discrete;
use sde_core::{LinearSde, TimeGrid};
use sde_solvers::{
    Axis, Churn, Ddim, Ddpm, Dpm2, EulerMaruyama, Form, Multistep, Renoise, RungeKutta, SdeDpmSolver, Slope,
    StochasticDdim, Tableau, Variance,
};
use support::moments::{error, exact, propagate};
use support::{process, rotating::Rotating};

#[test]
fn ddpm_and_ddim_on_sub_sequences_give_the_tabulated_variances() {
    // Schedule b_t² = 0.02 t/T, data N(0.6, 0.25), exact start.
    let betas: Vec<f64> = (1..=1000).map(|t| 0.02 * f64::from(t) / 1000.0).collect();
    let sde = Discrete::new(&betas).expect("betas");
    let data = Mixture::diagonal(vec![0.6], vec![0.25]).expect("a Gaussian");
    let law = (DVector::from_vec(vec![0.6]), DMatrix::from_element(1, 1, 0.25));
    let rules: [&dyn Multistep; 4] = [
        &Ddim::DETERMINISTIC,
        &Ddim { eta: 0.5, form: Form::Noise },
        &Ddpm { variance: Variance::Small },
        &Ddpm { variance: Variance::Large },
    ];
    let expected = [
        (10, [0.13070908, 0.12615782, 0.10503244, 0.35788932]),
        (20, [0.18540983, 0.17856348, 0.15085428, 0.29851263]),
        (50, [0.22280730, 0.21732148, 0.19659837, 0.26797177]),
        (100, [0.23614914, 0.23252541, 0.21912046, 0.25873724]),
        (1000, [0.24857545, 0.24806843, 0.24622610, 0.25083268]),
    ];
    for (steps, row) in expected {
        let grid = TimeGrid::discrete(1000, steps).expect("a grid");
        for (rule, value) in rules.iter().zip(row) {
            let table = rule.table(&sde, &grid).expect("a table");
            let start = exact((&law.0, &law.1), &sde, 1000.0);
            let end = propagate(&table, &data, &sde, start);
            let found = end.covariance[(0, 0)];
            assert!((found - value).abs() < 6e-9, "{} at {steps}: {found}", rule.name());
        }
    }
}

#[test]
fn stochastic_samplers_converge_to_the_exact_marginal_at_first_order() {
    let law = (DVector::from_vec(vec![0.6, -0.3]), DMatrix::from_row_slice(2, 2, &[0.25, 0.1, 0.1, 0.4]));
    let data =
        Mixture::new(&[1.0], &[law.0.as_slice().to_vec()], std::slice::from_ref(&law.1)).expect("a Gaussian");
    let rules: [&dyn Multistep; 9] = [
        &Ddpm { variance: Variance::Small },
        &Ddpm { variance: Variance::Large },
        &Ddpm { variance: Variance::Between(0.5) },
        &Ddim { eta: 0.5, form: Form::Noise },
        &StochasticDdim { lambda: 0.3 },
        &StochasticDdim { lambda: 1.7 },
        &EulerMaruyama { lambda: 0.0 },
        &EulerMaruyama { lambda: 0.5 },
        &EulerMaruyama { lambda: 1.0 },
    ];
    let cases: [(&str, Box<dyn LinearSde>, f64, f64); 6] = [
        ("vp", process("vp"), 0.9, 0.05),
        ("ve", process("ve"), 0.8, 0.4),
        ("subvp", process("subvp"), 0.9, 0.1),
        ("edm", process("edm"), 2.0, 0.2),
        ("cosine", process("cosine"), 0.8, 0.05),
        ("linear", process("linear"), 0.8, 0.05),
    ];
    for (name, sde, from, to) in &cases {
        for rule in rules {
            let run = |n: usize| {
                let grid = TimeGrid::log_rho(sde.as_ref(), *from, *to, n).expect("a grid");
                let table = rule.table(sde.as_ref(), &grid).expect("a table");
                let start = exact((&law.0, &law.1), sde.as_ref(), *from);
                let end = propagate(&table, &data, sde.as_ref(), start);
                error(&end, &exact((&law.0, &law.1), sde.as_ref(), *to))
            };
            let (coarse, fine) = (run(200), run(400));
            let order = (coarse / fine).log2();
            assert!((order - 1.0).abs() < 0.15, "{name} {}: order {order:.3}, {fine:e}", rule.name());
            assert!(fine < 0.02, "{name} {}: {fine:e}", rule.name());
        }
    }
}

#[test]
fn ancestral_sampling_and_euler_maruyama_hold_for_a_process_with_groups() {
    let sde = Rotating { omega: 1.3 };
    let law = (DVector::from_vec(vec![0.6, -0.3]), DMatrix::from_row_slice(2, 2, &[0.25, 0.1, 0.1, 0.4]));
    let data =
        Mixture::new(&[1.0], &[law.0.as_slice().to_vec()], std::slice::from_ref(&law.1)).expect("a Gaussian");
    let rules: [&dyn Multistep; 3] =
        [&Ddpm { variance: Variance::Small }, &Ddim::DETERMINISTIC, &EulerMaruyama { lambda: 1.0 }];
    for rule in rules {
        let run = |n: usize| {
            let grid = TimeGrid::log_rho(&sde, 2.0, 0.05, n).expect("a grid");
            let table = rule.table(&sde, &grid).expect("a table");
            let end = propagate(&table, &data, &sde, exact((&law.0, &law.1), &sde, 2.0));
            error(&end, &exact((&law.0, &law.1), &sde, 0.05))
        };
        let order = (run(200) / run(400)).log2();
        assert!((order - 1.0).abs() < 0.15, "{}: order {order:.3}", rule.name());
    }
}

/// The order of mean and covariance of a rule on some processes.
fn orders(rule: &dyn Multistep) -> Vec<(&'static str, f64, f64)> {
    let law = (DVector::from_vec(vec![0.6, -0.3]), DMatrix::from_row_slice(2, 2, &[0.25, 0.1, 0.1, 0.4]));
    let data =
        Mixture::new(&[1.0], &[law.0.as_slice().to_vec()], std::slice::from_ref(&law.1)).expect("a Gaussian");
    let order = |(name, from, to): (&'static str, f64, f64)| {
        let sde = process(name);
        let run = |n: usize| {
            let grid = TimeGrid::log_rho(sde.as_ref(), from, to, n).expect("a grid");
            let table = rule.table(sde.as_ref(), &grid).expect("a table");
            let start = exact((&law.0, &law.1), sde.as_ref(), from);
            let end = propagate(&table, &data, sde.as_ref(), start);
            error(&end, &exact((&law.0, &law.1), sde.as_ref(), to))
        };
        let (coarse, fine) = (run(200), run(400));
        (name, (coarse / fine).log2(), fine)
    };
    [("vp", 0.9, 0.05), ("ve", 0.8, 0.4), ("subvp", 0.9, 0.1), ("edm", 2.0, 0.2), ("cosine", 0.8, 0.05)]
        .map(order)
        .to_vec()
}

#[test]
fn stochastic_rules_that_see_several_predictions_are_of_second_order() {
    let heun = RungeKutta { tableau: Tableau::HEUN2, axis: Axis::Rho, last_euler: false };
    let churn = Churn { solver: heun, churn: 30.0, lowest: 0.0, highest: 1e9, noise: 1.0 };
    let sde = |lambda, slope| SdeDpmSolver { lambda, slope, lower_final: false };
    let rules: [&dyn Multistep; 6] = [
        &churn,
        &sde(1.0, Slope::Midpoint),
        &sde(1.0, Slope::Heun),
        &sde(0.5, Slope::Midpoint),
        &Dpm2 { eta: 1.0 },
        &Dpm2 { eta: 0.5 },
    ];
    for rule in rules {
        for (name, order, fine) in orders(rule) {
            assert!((order - 2.0).abs() < 0.15, "{name} {}: order {order:.3}, {fine:e}", rule.name());
        }
    }
}

#[test]
fn noising_again_loses_the_tabulated_variance() {
    // With the schedule and data of the table above; values of the specification.
    let betas: Vec<f64> = (1..=1000).map(|t| 0.02 * f64::from(t) / 1000.0).collect();
    let sde = Discrete::new(&betas).expect("betas");
    let data = Mixture::diagonal(vec![0.6], vec![0.25]).expect("a Gaussian");
    let law = (DVector::from_vec(vec![0.6]), DMatrix::from_element(1, 1, 0.25));
    for (steps, expected) in [(10, 0.079), (100, 0.114), (1000, 0.1225)] {
        let grid = TimeGrid::discrete(1000, steps).expect("a grid");
        let start = exact((&law.0, &law.1), &sde, grid.start());
        let end = propagate(&Renoise.table(&sde, &grid).expect("a table"), &data, &sde, start);
        assert!((end.covariance[(0, 0)] - expected).abs() < 6e-4, "{steps}: {}", end.covariance[(0, 0)]);
    }
}

#[test]
fn the_learned_range_of_variances_lies_between_its_ends() {
    let sde = process("vp");
    let grid = TimeGrid::uniform(0.9, 0.05, 6).expect("a grid");
    let injected = |variance: Variance| -> Vec<f64> {
        let table = Ddpm { variance }.table(sde.as_ref(), &grid).expect("a table");
        table.updates.iter().map(|u| u.inject.as_ref().map_or(0.0, support::scalar)).collect()
    };
    let (small, large, between) =
        (injected(Variance::Small), injected(Variance::Large), injected(Variance::Between(0.3)));
    for i in 0..5 {
        assert!((between[i] / (large[i].powf(0.3) * small[i].powf(0.7)) - 1.0).abs() < 1e-12);
    }
    assert_eq!((injected(Variance::Between(1.0)), between[5]), (large, 0.0));
    assert!(Ddpm { variance: Variance::Between(1.1) }.table(sde.as_ref(), &grid).is_err());
    let refused = Ddpm { variance: Variance::Between(0.5) }.table(&Rotating { omega: 1.0 }, &grid);
    assert!(matches!(refused, Err(sde_solvers::Error::NotScalar { .. })));
}
