//! gDDIM on critically damped Langevin, against an independent computation to 30 digits: coefficients, maps and covariances, and whole runs with given noise; then
//! what its authors' comparison of factors rests on, on point masses.
//!
//! The files fix the gauge, R_0 = diag(√ε₀, √(γM + ε₀)). A factor of ε is compared as what it does to the score, `C R(t)ᵀ`, and Ψ̂ − Ψ as `C R(t)⁻¹`, which no gauge
//! changes.

mod support;

use candle_core::Tensor;
use nalgebra::DMatrix;
use sde_core::noise::{BatchNoise, Noise, Recorded};
use sde_core::oracle::Mixture;
use sde_core::process::Cld;
use sde_core::{Field, LinearSde, Op, OracleField, TimeGrid};
use sde_solvers::{
    Adaptive, Chart, CholeskyAb, Ddim, Euler, Multistep, ProbabilityFlow, StochasticDdim, Tab, TabPc, Table,
};
use support::{Golden, largest_gap, tensor};

const FILES: [&str; 3] = ["gddim_cld_t1_N10", "gddim_cld_t2_N10", "gddim_cld_t2_N5"];

fn cld() -> Cld {
    Cld::published().expect("a process")
}

/// The 2×2 matrix number `at` of an array.
fn block(values: &[f64], at: usize) -> Op {
    Op::Block(DMatrix::from_row_slice(2, 2, &values[4 * at..4 * at + 4]))
}

fn gap(a: &Op, b: &Op) -> f64 {
    a.sub(b).expect("one kind").max_abs()
}

fn product(a: &Op, b: &Op) -> Op {
    a.mul(b).expect("one kind")
}

/// N Nᵀ of a row.
fn injected(table: &Table, row: usize) -> Op {
    table.updates[row].inject.as_ref().map_or(Op::ZERO, |n| product(n, &n.transpose()))
}

/// Three Gaussians of positions; the process gives the velocities.
fn data(golden: &Golden) -> Mixture {
    let means: Vec<Vec<f64>> = golden.flat("data_mu").iter().map(|m| vec![*m, 0.0]).collect();
    let variances = golden.flat("data_var").iter().map(|v| vec![*v, 0.0]).collect();
    Mixture::of_diagonals(&golden.flat("data_w"), &means, variances).expect("a mixture")
}

#[test]
fn predictor_coefficients_of_both_factors_agree_with_30_digit_values() {
    let sde = cld();
    let mut worst = [0.0; 4];
    let mut see = |kind: usize, gap: f64| worst[kind] = f64::max(worst[kind], gap);
    for file in FILES {
        let golden = Golden::load(file);
        let times = golden.flat("t");
        let grid = TimeGrid::new(times.clone()).expect("a grid");
        let (psi, sigma, r) = (golden.flat("Psi"), golden.flat("Sigma"), golden.flat("R"));
        for (at, &t) in times.iter().enumerate() {
            see(0, gap(&sde.covariance(t), &block(&sigma, at)));
        }
        for degree in 0..4 {
            let table = Tab { degree }.table(&sde, &grid).expect("a table");
            let baseline = CholeskyAb { degree }.table(&sde, &grid).expect("a table");
            let (c_r, c_l) = (golden.flat("C_R"), golden.flat("C_L"));
            for (i, update) in table.updates.iter().enumerate() {
                see(1, gap(&update.carry, &block(&psi, i)));
                for (j, term) in update.terms.iter().enumerate() {
                    let at = (degree * grid.steps() + i) * 4 + j;
                    let t = times[i - j];
                    let expected = product(&block(&c_r, at), &block(&r, i - j).transpose());
                    see(
                        2,
                        gap(&product(term, &sde.factor(t).transpose()), &expected)
                            / expected.max_abs().max(1.0),
                    );
                    let l = sde.covariance(t).cholesky().expect("a factor").transpose();
                    let expected = product(&block(&c_l, at), &l).scale(-1.0);
                    see(3, gap(&baseline.updates[i].terms[j], &expected) / expected.max_abs().max(1.0));
                }
            }
        }
    }
    assert!(worst.iter().all(|gap| *gap < 1e-10), "{worst:?}");
}

#[test]
fn end_states_of_the_predictors_agree() {
    let sde = cld();
    for file in FILES {
        let golden = Golden::load(file);
        let (grid, data) = (TimeGrid::new(golden.flat("t")).expect("a grid"), data(&golden));
        let field = OracleField::noise(&data, &sde);
        for key in golden.keys().filter(|key| key.starts_with("u_final")) {
            let degree = key[key.len() - 1..].parse::<usize>().expect("q") - 1;
            let rule: Box<dyn Multistep> =
                if key.contains("_R_") { Box::new(Tab { degree }) } else { Box::new(CholeskyAb { degree }) };
            let table = rule.table(&sde, &grid).expect("a table");
            let noise = BatchNoise::new(Noise::new(0), 0, 0..6);
            let end = table.sample(&sde, &field, golden.get("uT"), &noise).expect("a run").x;
            let scale = golden.flat(key).iter().fold(1.0, |m: f64, v| m.max(v.abs()));
            let gap = largest_gap(&end, golden.get(key)) / scale;
            assert!(gap < 1e-10, "{file} {key}: {gap:e}");
        }
    }
}

#[test]
fn stochastic_maps_and_covariances_agree_with_30_digit_values() {
    let sde = cld();
    let golden = Golden::load("gddim_cld_stoch");
    let pairs = golden.rows("s_t");
    let mut worst = [0.0; 2];
    for (l, &lambda) in golden.flat("lam").iter().enumerate() {
        for (p, pair) in pairs.iter().enumerate() {
            let table = StochasticDdim { lambda }.table(&sde, &TimeGrid::new(pair.clone()).expect("a grid"));
            let table = table.expect("a table");
            let inverse = sde.factor(pair[0]).inverse().expect("an inverse");
            let psi_hat =
                product(&table.updates[0].terms[0], &inverse).add(&table.updates[0].carry).expect("one kind");
            let at = l * pairs.len() + p;
            worst[0] = f64::max(worst[0], gap(&psi_hat, &block(&golden.flat("Psihat"), at)));
            worst[1] = f64::max(worst[1], gap(&injected(&table, 0), &block(&golden.flat("cov"), at)));
        }
    }
    assert!(worst.iter().all(|gap| *gap < 1e-10), "{worst:?}");
}

#[test]
fn whole_stochastic_runs_with_given_noise_agree() {
    let sde = cld();
    let golden = Golden::load("gddim_cld_stoch_run");
    let (grid, data) = (TimeGrid::new(golden.flat("t")).expect("a grid"), data(&golden));
    let field = OracleField::noise(&data, &sde);
    for (lambda, key) in [(0.0, "lam0"), (0.3, "lam0.3"), (1.0, "lam1")] {
        let table = StochasticDdim { lambda }.table(&sde, &grid).expect("a table");
        let (covariance, root) = (golden.flat(&format!("{key}__cov")), golden.flat(&format!("{key}__chol")));
        // The file's roots are triangular, ours are not: z' = N⁻¹ L z makes the same step.
        let mut noise = Vec::new();
        for (i, update) in table.updates.iter().enumerate() {
            let gap = gap(&injected(&table, i), &block(&covariance, i));
            assert!(gap < 1e-13, "{key} {i}: {gap:e}");
            let given = golden.get("noise").get(i).expect("a step");
            noise.push(match &update.inject {
                Some(n) => {
                    product(&n.inverse().expect("a root"), &block(&root, i)).apply(&given).expect("noise")
                }
                None => given,
            });
        }
        let noise = Recorded(Tensor::stack(&noise, 0).expect("noise"));
        let end = table.sample(&sde, &field, golden.get("uT"), &noise).expect("a run").x;
        let gap = largest_gap(&end, golden.get(&format!("{key}__u_final")));
        assert!(gap < 1e-10, "{key}: {gap:e}");
    }
}

/// Distances of the ends of a rule's runs from `exact`, Euclidean; the largest.
fn miss(
    rule: &dyn Multistep,
    steps: usize,
    (sde, field): (&Cld, &OracleField<'_>),
    x: &Tensor,
    exact: &Tensor,
) -> f64 {
    let grid = TimeGrid::power(1.0, 1e-3, steps, 2.0).expect("a grid");
    let noise = BatchNoise::new(Noise::new(0), 0, 0..4);
    let end = rule.table(sde, &grid).expect("a table").sample(sde, field, x, &noise).expect("a run").x;
    let rows = (end - exact).and_then(|d| d.to_vec2::<f64>()).expect("rows");
    rows.iter().map(|row| row.iter().map(|v| v * v).sum::<f64>().sqrt()).fold(0.0, f64::max)
}

/// Asserts a number of the specification, given to as many digits as it has.
fn tells(found: f64, stated: f64, what: &str) {
    // Two digits are right to 5 %, three to half a percent.
    let digits =
        format!("{stated:e}").split('e').next().map_or(0, |m| m.chars().filter(char::is_ascii_digit).count());
    let unit = 10f64.powf(stated.abs().log10().floor() + 1.0 - digits as f64);
    assert!((found - stated).abs() <= 0.51 * unit, "{what}: {found:e}, not {stated:e}");
}

#[test]
fn on_a_point_mass_the_flow_constant_factor_is_exact_and_the_cholesky_factor_fails() {
    // Values of the specification.
    let sde = cld();
    let data = Mixture::points(&[vec![0.6, 0.0]]).expect("a point");
    let field = OracleField::noise(&data, &sde);
    let (x, exact) = (tensor(&[vec![0.9, -0.4]]), tensor(&[vec![0.599065, -0.137399]]));
    let noise = field.eval(&x, &[1.0]).expect("a prediction");
    assert!(largest_gap(&noise, &tensor(&[vec![0.829651, -0.869419]])) < 1e-6);
    assert!(miss(&Tab { degree: 0 }, 1, (&sde, &field), &x, &exact) < 1e-6);
    let grid = TimeGrid::uniform(1.0, 1e-3, 1).expect("a grid");
    let table = Ddim::DETERMINISTIC.table(&sde, &grid).expect("a table");
    let zero = BatchNoise::new(Noise::new(0), 0, 0..1);
    let exact = table.sample(&sde, &field, &x, &zero).expect("a run").x;
    let cases = [
        (1, 3.8e4, 7.5),
        (5, 1.0e5, 67.9),
        (10, 60.6, 74.0),
        (20, 0.205, 17.5),
        (50, 0.239, 0.855),
        (100, 0.095, 0.142),
    ];
    for (steps, cholesky, euler) in cases {
        for degree in 0..4 {
            assert!(miss(&Tab { degree }, steps, (&sde, &field), &x, &exact) < 2e-11, "{steps} {degree}");
        }
        let found = |rule: &dyn Multistep| miss(rule, steps, (&sde, &field), &x, &exact);
        tells(found(&CholeskyAb { degree: 0 }), cholesky, &format!("L, {steps} steps"));
        tells(found(&Euler), euler, &format!("Euler, {steps} steps"));
    }
}

#[test]
fn on_three_points_every_rule_errs_as_specified() {
    let sde = cld();
    let data = Mixture::points(&[vec![-1.0, 0.0], vec![-0.2, 0.0], vec![0.7, 0.0]]).expect("points");
    let field = OracleField::noise(&data, &sde);
    let x = tensor(&[vec![0.9, -0.4], vec![-0.7, 0.2], vec![0.1, 0.6], vec![1.5, -0.1]]);
    let flow = ProbabilityFlow::new(&sde, &field, Chart::Clock);
    let exact = flow.solve(&Adaptive::new(1e-11, 1e-13), &x, 1.0, 1e-3).expect("a solve");
    assert_eq!(exact.unfinished().count(), 0);
    let cases: [(&dyn Multistep, &[f64]); 7] = [
        (&Tab { degree: 0 }, &[0.185, 0.0516, 0.0223, 0.0104]),
        (&Tab { degree: 1 }, &[0.158, 0.0214, 0.0046, 0.0013]),
        (&Tab { degree: 2 }, &[0.235, 0.256, 0.00433, 2.8e-4]),
        (&CholeskyAb { degree: 1 }, &[1.1e4, 0.90, 0.0915, 0.0252]),
        (&Euler, &[70.7, 14.3, 2.43, 0.83]),
        (&TabPc { degree: 1 }, &[f64::NAN, 0.0105, 0.00126]),
        (&StochasticDdim { lambda: 0.0 }, &[0.185, 0.0516, 0.0223, 0.0104]),
    ];
    for (rule, stated) in cases {
        for (steps, stated) in [10, 20, 40, 80].into_iter().zip(stated).filter(|pair| !pair.1.is_nan()) {
            let found = miss(rule, steps, (&sde, &field), &x, &exact.y);
            tells(found, *stated, &format!("{}, {steps} steps", rule.name()));
        }
    }
}
