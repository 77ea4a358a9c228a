//! Coefficients against values computed to 34 digits, and against the identities that any choice of them satisfies.

mod support;

use sde_core::process::{LinearPath, Vp};
use sde_core::{Error as CoreError, LinearSde, Op, TimeGrid};
use sde_solvers::{
    Axis, Churn, Ddim, Ddpm, Dpm2, DpmSolver, Error, Form, LogAb, Multistep, Pndm, RhoAb, RungeKutta,
    SdeDpmSolver, Slope, Start, StochasticDdim, Tab, Tableau, UniPc, Variance,
};
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
fn multistep_coefficients_and_grids_agree_with_34_digit_values() {
    for file in FILES {
        let golden = Golden::load(file);
        let sde = process(file.split('_').nth(1).expect("a process in the name"));
        let times = golden.flat("t");
        let steps = times.len() - 1;
        let grid = grid_of(file, sde.as_ref(), times[0], times[steps], steps);
        for (found, expected) in grid.times().iter().zip(&times) {
            assert!((found / expected - 1.0).abs() < 1e-12, "{file}: grid {found} for {expected}");
        }
        let psi = golden.flat("psi");
        for degree in 0..4 {
            let log_ab = LogAb { form: Form::Noise, degree, lower_final: false };
            let rules: [(&dyn Multistep, &str); 3] =
                [(&Tab { degree }, "C_tab"), (&RhoAb { degree }, "C_rhoab"), (&log_ab, "C_logrho")];
            for (rule, key) in rules {
                let c = golden.flat(key);
                let table = rule.table(sde.as_ref(), &grid).expect("a table");
                for (i, update) in table.updates.iter().enumerate() {
                    // Those in ρ are given for y = u/α.
                    let scale = if key == "C_rhoab" { scalar(&sde.signal(update.to)) } else { 1.0 };
                    assert!((scalar(&update.carry) / psi[i] - 1.0).abs() < 1e-12);
                    for (j, term) in update.terms.iter().enumerate() {
                        let expected = c[(degree * steps + i) * 4 + j] * scale;
                        let error = (scalar(term) - expected).abs();
                        assert!(
                            error < 1e-12 * expected.abs().max(1.0),
                            "{file} {key} r{degree} {i},{j}: {error:e}"
                        );
                    }
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
    let log_ab = |form, degree| LogAb { form, degree, lower_final: false };
    let dpm = |form, order| DpmSolver { form, order, lower_final: false };
    let sde_dpm = |slope| SdeDpmSolver { lambda: 0.0, slope, lower_final: false };
    let rho_euler = RungeKutta { tableau: Tableau::EULER, axis: Axis::Rho, last_euler: false };
    let churn = Churn { solver: RungeKutta::EDM, churn: 0.0, lowest: 0.0, highest: 1e9, noise: 1.0 };
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
            (table(&RhoAb { degree: 0 }), table(&Ddim::DETERMINISTIC)),
            (table(&log_ab(Form::Noise, 0)), table(&Ddim::DETERMINISTIC)),
            (table(&log_ab(Form::Data, 0)), table(&Ddim { eta: 0.0, form: Form::Data })),
            (table(&rho_euler), table(&Ddim::DETERMINISTIC)),
            (table(&Pndm { start: Start::Lower, order: 1 }), table(&Ddim::DETERMINISTIC)),
            (table(&dpm(Form::Noise, 1)), table(&Ddim::DETERMINISTIC)),
            (table(&dpm(Form::Data, 1)), table(&Ddim { eta: 0.0, form: Form::Data })),
            (table(&sde_dpm(Slope::Midpoint)), table(&dpm(Form::Data, 2))),
            (table(&sde_dpm(Slope::Heun)), table(&log_ab(Form::Data, 1))),
            (table(&churn), table(&RungeKutta::EDM)),
        ];
        for (a, b) in pairs {
            assert_eq!((a.of, a.updates.len()), (b.of, b.updates.len()));
            for (a, b) in a.updates.iter().zip(&b.updates) {
                assert!(same(&a.carry, &b.carry) && a.terms.len() == b.terms.len(), "{name}");
                assert!(a.terms.iter().zip(&b.terms).all(|(a, b)| same(a, b)), "{name}: {a:?} {b:?}");
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
        let log_ab = LogAb { form: Form::Noise, degree: 3, lower_final: false };
        let others = [RhoAb { degree: 3 }.table(sde, &grid), log_ab.table(sde, &grid)];
        let others = others.iter().flat_map(|table| &table.as_ref().expect("a table").updates);
        for update in table.updates.iter().chain(others) {
            let sum = update.terms.iter().fold(Op::ZERO, |sum, c| sum.add(c).expect("one kind"));
            let expected = update.carry.mul(&sde.factor(update.from)).expect("one kind");
            assert!(same(&sum, &sde.factor(update.to).sub(&expected).expect("one kind")));
        }
    }
}

#[test]
fn where_the_signal_is_gone_noise_tables_are_refused_and_the_data_form_holds() {
    let grid = TimeGrid::uniform(1.0, 1e-3, 4).expect("a grid");
    let noise_forms: [&dyn Multistep; 11] = [
        &RhoAb { degree: 2 },
        &LogAb { form: Form::Data, degree: 1, lower_final: false },
        &RungeKutta::EDM,
        &DpmSolver { form: Form::Data, order: 2, lower_final: false },
        &UniPc { order: 2, lower_final: false },
        &Pndm { start: Start::RungeKutta, order: 4 },
        &Dpm2 { eta: 0.0 },
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
    let bad: [&dyn Multistep; 10] = [
        &Ddim { eta: 1.5, form: Form::Noise },
        &Tab { degree: 4 },
        &RhoAb { degree: 4 },
        &LogAb { form: Form::Data, degree: 4, lower_final: false },
        &StochasticDdim { lambda: -1.0 },
        &DpmSolver { form: Form::Data, order: 0, lower_final: false },
        &UniPc { order: 4, lower_final: false },
        &Pndm { start: Start::Lower, order: 5 },
        &Dpm2 { eta: 2.0 },
        &Churn { solver: RungeKutta::EDM, churn: -1.0, lowest: 0.0, highest: 1.0, noise: 1.0 },
    ];
    for rule in bad {
        assert!(
            matches!(rule.table(&Vp::STANDARD, &grid), Err(Error::Core(CoreError::Range { .. }))),
            "{}",
            rule.name()
        );
    }
    let rotating = support::rotating::Rotating { omega: 1.0 };
    let refused = UniPc { order: 2, lower_final: false }.table(&rotating, &grid);
    assert!(matches!(refused, Err(Error::NotScalar { .. })));
}
