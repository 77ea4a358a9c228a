//! Coefficients against values computed to 34 digits, and against the identities that any choice of them satisfies.

mod support;

use sde_core::process::{LinearPath, Vp};
use sde_core::{Error as CoreError, LinearSde, Op, TimeGrid};
use sde_solvers::{Ddim, Ddpm, Error, Form, Multistep, StochasticDdim, Tab, Variance};
use support::{Golden, process, scalar};

const FILES: [&str; 16] = [
    "deis_vp_t1_N5_t01e-3",
    "deis_vp_t2_N5_t01e-3",
    "deis_vp_rho7_N5_t01e-3",
    "deis_vp_t1_N10_t01e-3",
    "deis_vp_t2_N10_t01e-3",
    "deis_vp_rho7_N10_t01e-3",
    "deis_vp_log1_N10_t01e-3",
    "deis_vp_t2_N20_t01e-3",
    "deis_ve_t1_N10_t01e-5",
    "deis_ve_rho7_N10_t01e-5",
    "deis_ve_log1_N5_t01e-5",
    "deis_cosine_t1_N5_t01e-3",
    "deis_cosine_t2_N10_t01e-3",
    "deis_cosine_rho7_N10_t01e-3",
    "deis_cosine_log1_N10_t01e-3",
    "deis_subvp_t2_N10_t01e-3",
];

/// The grid that a file's name stands for.
fn grid_of(file: &str, sde: &dyn LinearSde, from: f64, to: f64, steps: usize) -> TimeGrid {
    let kind = file.split('_').nth(2).expect("a grid in the name");
    match kind {
        "t1" => TimeGrid::uniform(from, to, steps),
        "t2" => TimeGrid::power(from, to, steps, 2.0),
        "rho7" => TimeGrid::karras(sde, from, to, steps, 7.0),
        _ => TimeGrid::log_rho(sde, from, to, steps),
    }
    .expect("a grid")
}

#[test]
fn tab_coefficients_and_grids_agree_with_34_digit_values() {
    for file in FILES {
        let golden = Golden::load(file);
        let sde = process(file.split('_').nth(1).expect("a process in the name"));
        let times = golden.flat("t");
        let steps = times.len() - 1;
        let grid = grid_of(file, sde.as_ref(), times[0], times[steps], steps);
        for (found, expected) in grid.times().iter().zip(&times) {
            assert!((found / expected - 1.0).abs() < 1e-12, "{file}: grid {found} for {expected}");
        }
        let (psi, c) = (golden.flat("psi"), golden.flat("C_tab"));
        for degree in 0..4 {
            let table = Tab { degree }.table(sde.as_ref(), &grid).expect("a table");
            for (i, update) in table.updates.iter().enumerate() {
                assert!((scalar(&update.carry) / psi[i] - 1.0).abs() < 1e-12);
                for (j, term) in update.terms.iter().enumerate() {
                    let expected = c[(degree * steps + i) * 4 + j];
                    let error = (scalar(term) - expected).abs();
                    assert!(error < 1e-12 * expected.abs().max(1.0), "{file} r{degree} {i},{j}: {error:e}");
                }
            }
        }
    }
}

#[test]
fn tab_coefficients_of_the_specification() {
    let grid = TimeGrid::power(1.0, 1e-3, 5, 2.0).expect("a grid");
    let table = Tab { degree: 3 }.table(&Vp::STANDARD, &grid).expect("a table");
    let expected: [&[f64]; 5] = [
        &[-16.9913710745],
        &[-4.1067896922, 0.8891861258],
        &[-1.5149368240, 0.6736787694, -0.1579610837],
        &[-0.6970106058, 0.3856631912, -0.1469715287, 0.0229046651],
        &[-0.2268882360, 0.0817181376, -0.0240441275, 0.0031062901],
    ];
    for (update, row) in table.updates.iter().zip(expected) {
        assert_eq!(update.terms.len(), row.len());
        for (term, value) in update.terms.iter().zip(row) {
            assert!((scalar(term) - value).abs() < 6e-11, "{term:?} for {value}");
        }
    }
}

#[test]
fn stochastic_ddim_agrees_with_34_digit_values() {
    let golden = Golden::load("stoch_ddim_vp");
    let (coefficient, variance) = (golden.flat("mean_eps_coef"), golden.flat("var"));
    for (l, &lambda) in golden.flat("lam").iter().enumerate() {
        for (p, pair) in golden.rows("s_t").iter().enumerate() {
            let grid = TimeGrid::new(pair.clone()).expect("a grid");
            let table = StochasticDdim { lambda }.table(&Vp::STANDARD, &grid).expect("a table");
            let update = &table.updates[0];
            let at = l * golden.rows("s_t").len() + p;
            assert!((scalar(&update.terms[0]) - coefficient[at]).abs() < 1e-12 * coefficient[at].abs());
            let injected = update.inject.as_ref().map_or(0.0, |n| scalar(n).powi(2));
            assert!((injected - variance[at]).abs() < 1e-13, "lambda {lambda}");
        }
    }
}

fn same(a: &Op, b: &Op) -> bool {
    a.sub(b).is_ok_and(|d| d.max_abs() <= 1e-12 * a.max_abs().max(1.0))
}

#[test]
fn samplers_that_are_one_are_one() {
    for name in ["vp", "subvp", "ve", "edm", "cosine"] {
        let sde = process(name);
        let span = sde.span();
        let grid = TimeGrid::karras(sde.as_ref(), span.end, span.sampling, 7, 7.0).expect("a grid");
        let table = |rule: &dyn Multistep| rule.table(sde.as_ref(), &grid).expect("a table");
        let pairs = [
            (table(&Tab { degree: 0 }), table(&Ddim::DETERMINISTIC)),
            (table(&StochasticDdim { lambda: 0.0 }), table(&Ddim::DETERMINISTIC)),
            (table(&StochasticDdim { lambda: 1.0 }), table(&Ddim { eta: 1.0, form: Form::Noise })),
            (table(&Ddpm { variance: Variance::Small }), table(&Ddim { eta: 1.0, form: Form::Noise })),
        ];
        for (a, b) in pairs {
            for (a, b) in a.updates.iter().zip(&b.updates) {
                assert!(same(&a.carry, &b.carry) && same(&a.terms[0], &b.terms[0]), "{name}");
                let noise = |u: &Option<Op>| u.as_ref().map_or(0.0, scalar);
                assert!((noise(&a.inject) - noise(&b.inject)).abs() < 1e-7 * sde.factor(a.from).max_abs());
            }
        }
    }
}

#[test]
fn the_terms_of_any_degree_add_up_to_ddim() {
    // A constant ε must be carried exactly: Σ_j C_j = R' − Ψ R.
    let rotating = support::rotating::Rotating { omega: 1.7 };
    let vp = Vp::STANDARD;
    for sde in [&rotating as &dyn LinearSde, &vp] {
        let grid = TimeGrid::power(0.9, 1e-2, 8, 2.0).expect("a grid");
        let table = Tab { degree: 3 }.table(sde, &grid).expect("a table");
        for update in &table.updates {
            let sum = update.terms.iter().fold(Op::ZERO, |sum, c| sum.add(c).expect("one kind"));
            let expected = update.carry.mul(&sde.factor(update.from)).expect("one kind");
            assert!(same(&sum, &sde.factor(update.to).sub(&expected).expect("one kind")));
        }
    }
}

#[test]
fn where_the_signal_is_gone_noise_tables_are_refused_and_the_data_form_holds() {
    let grid = TimeGrid::uniform(1.0, 1e-3, 4).expect("a grid");
    let noise_forms: [&dyn Multistep; 4] = [
        &Ddim::DETERMINISTIC,
        &Tab { degree: 2 },
        &Ddpm { variance: Variance::Small },
        &StochasticDdim { lambda: 0.5 },
    ];
    for rule in noise_forms {
        let refused = rule.table(&LinearPath, &grid);
        assert!(matches!(refused, Err(Error::Core(CoreError::Undefined { .. }))), "{}", rule.name());
    }
    let data = Ddim { eta: 0.0, form: Form::Data }.table(&LinearPath, &grid).expect("a table");
    // x' = t' x + (1 − t') x₀ at t = 1.
    let (first, to) = (&data.updates[0], data.updates[0].to);
    assert!((scalar(&first.carry) - to).abs() < 1e-15);
    assert!((scalar(&first.terms[0]) - (1.0 - to)).abs() < 1e-15);
}

#[test]
fn parameters_out_of_range_are_errors() {
    let grid = TimeGrid::uniform(1.0, 0.1, 3).expect("a grid");
    let bad: [&dyn Multistep; 3] =
        [&Ddim { eta: 1.5, form: Form::Noise }, &Tab { degree: 4 }, &StochasticDdim { lambda: -1.0 }];
    for rule in bad {
        assert!(
            matches!(rule.table(&Vp::STANDARD, &grid), Err(Error::Core(CoreError::Range { .. }))),
            "{}",
            rule.name()
        );
    }
    let rotating = support::rotating::Rotating { omega: 1.0 };
    let refused = StochasticDdim { lambda: 0.5 }.table(&rotating, &grid);
    assert!(matches!(refused, Err(Error::NotScalar { .. })));
}
