//! Stochastic samplers without Monte Carlo: for Gaussian data the exact ε is affine in the state, so mean and covariance pass through a table exactly.

mod support;

use nalgebra::{DMatrix, DVector};
use sde_core::oracle::Mixture;
use sde_core::process::Discrete;
use sde_core::{LinearSde, Op, Prediction, TimeGrid};
use sde_solvers::{Ddim, Ddpm, EulerMaruyama, Form, Multistep, StochasticDdim, Table, Variance};
use support::{process, rotating::Rotating};

fn dense(op: &Op, dim: usize) -> DMatrix<f64> {
    let columns: Vec<DVector<f64>> = (0..dim)
        .map(|j| {
            let unit: Vec<f64> = (0..dim).map(|i| f64::from(u8::from(i == j))).collect();
            DVector::from_vec(op.apply_host(&unit).expect("a state"))
        })
        .collect();
    DMatrix::from_columns(&columns)
}

/// The exact prediction as the affine map `bias + slope u`, read off the oracle.
fn affine(data: &Mixture, sde: &dyn LinearSde, of: Prediction, t: f64) -> (DVector<f64>, DMatrix<f64>) {
    let marginal = data.marginal(sde, t).expect("a density");
    let value = |u: &[f64]| {
        let exact = marginal.at(u).expect("a state");
        DVector::from_vec(if of == Prediction::Score { exact.score } else { exact.noise })
    };
    let dim = data.dim();
    let bias = value(&vec![0.0; dim]);
    let columns: Vec<DVector<f64>> = (0..dim)
        .map(|j| value(&(0..dim).map(|i| f64::from(u8::from(i == j))).collect::<Vec<_>>()) - &bias)
        .collect();
    (bias, DMatrix::from_columns(&columns))
}

struct Moments {
    mean: DVector<f64>,
    covariance: DMatrix<f64>,
}

/// The exact moments of the noised state.
fn exact(data: (&DVector<f64>, &DMatrix<f64>), sde: &dyn LinearSde, t: f64) -> Moments {
    let dim = data.0.len();
    let (s, sigma) = (dense(&sde.signal(t), dim), dense(&sde.covariance(t), dim));
    Moments { mean: &s * data.0, covariance: &s * data.1 * s.transpose() + sigma }
}

/// Moments after a table of one-step updates, started from `start`.
fn propagate(table: &Table, data: &Mixture, sde: &dyn LinearSde, start: Moments) -> Moments {
    let dim = data.dim();
    table.updates.iter().fold(start, |m, update| {
        assert_eq!(update.terms.len(), 1, "one-step tables only");
        let (bias, slope) = affine(data, sde, table.of, update.from);
        let term = dense(&update.terms[0], dim);
        let map = dense(&update.carry, dim) + &term * slope;
        let inject = update.inject.as_ref().map_or(DMatrix::zeros(dim, dim), |n| dense(n, dim));
        Moments {
            mean: &map * &m.mean + term * bias,
            covariance: &map * m.covariance * map.transpose() + &inject * inject.transpose(),
        }
    })
}

fn error(a: &Moments, b: &Moments) -> f64 {
    (&a.mean - &b.mean).amax().max((&a.covariance - &b.covariance).amax())
}

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
    let rules: [&dyn Multistep; 7] = [
        &Ddpm { variance: Variance::Small },
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
