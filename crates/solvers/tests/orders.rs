//! The order of convergence of every deterministic table on every process it accepts, without a network: the data is a mixture of two Gaussians, whose ε is
//! exact and not linear, and its flow is integrated to 1e-13. (On one Gaussian some rules do better than their order.)
//!
//! A table is entered in its middle, with the exact state there and exact predictions at all times before, so that what is measured is the rule and not
//! its start; the start is measured apart.

mod support;

use sde_core::{LinearSde, TimeGrid};
use sde_solvers::catalog::{self, Accepts, ChurnSettings, Make, Settings};
use sde_solvers::{
    Axis, Churn, Ddim, Dpm2, DpmSolver, Ei, Euler, Form, LogAb, Multistep, Pndm, RhoAb, RungeKutta,
    SdeDpmSolver, Slope, Start, Tab, TabPc, Tableau, UniPc,
};
use support::orders::{Case, LEAD, assert_orders, boxed, cases, settings};
use support::{process, rotating::Rotating};

fn adams_bashforth() -> Vec<(Box<dyn Multistep>, f64)> {
    let mut rules = Vec::new();
    for degree in 0..4 {
        let order = degree as f64 + 1.0;
        rules.push(boxed(Tab { degree }, order));
        if degree < 3 {
            rules.push(boxed(TabPc { degree }, order + 1.0));
        }
        rules.push(boxed(RhoAb { degree }, order));
        for form in [Form::Noise, Form::Data] {
            rules.push(boxed(LogAb { form, degree, lower_final: false }, order));
        }
    }
    rules
}

#[test]
fn runge_kutta_has_the_order_of_its_tableau_on_every_axis() {
    let mut rules = Vec::new();
    for tableau in Tableau::ALL {
        for axis in [Axis::Time, Axis::Rho, Axis::LogRho] {
            rules.push(boxed(RungeKutta { tableau, axis, last_euler: false }, tableau.order as f64));
        }
    }
    // One step of order 1 costs nothing against a rule of order 2.
    rules.push(boxed(RungeKutta::EDM, 2.0));
    let churn = Churn { solver: RungeKutta::EDM, churn: 0.0, lowest: 0.0, highest: 1e9, noise: 1.0 };
    rules.push(boxed(churn, 2.0));
    assert_orders(&cases(), &rules, 0, 160);
}

#[test]
fn adams_bashforth_of_degree_r_has_order_r_plus_1_in_every_variable() {
    assert_orders(&cases(), &adams_bashforth(), LEAD, 320);
}

#[test]
fn one_step_rules_and_dpm_solvers_have_their_orders() {
    let mut rules = vec![
        boxed(Ddim::DETERMINISTIC, 1.0),
        boxed(Ddim { eta: 0.0, form: Form::Data }, 1.0),
        boxed(Euler, 1.0),
        boxed(Ei, 1.0),
        boxed(Dpm2 { eta: 0.0 }, 2.0),
    ];
    for form in [Form::Noise, Form::Data] {
        // The published third order halves the weight of the second difference.
        for (order, measured) in [(1, 1.0), (2, 2.0), (3, 2.0)] {
            rules.push(boxed(DpmSolver { form, order, lower_final: false }, measured));
        }
    }
    for slope in [Slope::Midpoint, Slope::Heun] {
        rules.push(boxed(SdeDpmSolver { lambda: 0.0, slope, lower_final: false }, 2.0));
    }
    for order in 1..4 {
        rules.push(boxed(UniPc { order, lower_final: false }, order as f64 + 1.0));
    }
    assert_orders(&cases(), &rules, LEAD, 320);
}

#[test]
fn pseudo_numerical_methods_have_order_2() {
    let rules = |start: Start, of: fn(usize) -> f64| -> Vec<_> {
        (1..5).map(|order| boxed(Pndm { start, order }, of(order))).collect()
    };
    let (even, uneven): (Vec<Case>, Vec<Case>) = cases().into_iter().partition(|case| case.name == "edm");
    // The transfer carries a constant ε only, so more than two predictions do not raise the order …
    let two = |order: usize| if order == 1 { 1.0 } else { 2.0 };
    assert_orders(&uneven, &rules(Start::Lower, two), LEAD, 320);
    // … but where steps that are equal in t are equal in ρ, the weights are those of Adams and Bashforth.
    assert_orders(&even, &rules(Start::Lower, |order| order as f64), LEAD, 320);
    // A pseudo Runge–Kutta start is of order four there, and of order 2 elsewhere; a pseudo Heun start has error h³.
    assert_orders(&even, &[boxed(Pndm { start: Start::RungeKutta, order: 4 }, 4.0)], 0, 320);
    for start in [Start::Heun, Start::RungeKutta] {
        assert_orders(&uneven, &rules(start, two)[1..], 0, 320);
    }
}

#[test]
fn without_a_history_the_start_caps_the_order() {
    // One step of order 1 has error h², whatever follows; that of UniPC is corrected, and has h³.
    let mut rules = vec![boxed(UniPc { order: 2, lower_final: false }, 3.0)];
    for degree in [2, 3] {
        rules.push(boxed(Tab { degree }, 2.0));
        rules.push(boxed(RhoAb { degree }, 2.0));
        rules.push(boxed(LogAb { form: Form::Noise, degree, lower_final: false }, 2.0));
        rules.push(boxed(LogAb { form: Form::Data, degree, lower_final: false }, 2.0));
    }
    rules.push(boxed(Pndm { start: Start::Lower, order: 4 }, 2.0));
    assert_orders(&cases(), &rules, 0, 1280);
}

#[test]
fn the_orders_of_the_catalog_are_those_measured() {
    let still = ChurnSettings { amount: 0.0, ..ChurnSettings::CIFAR10_VP };
    let settings = Settings { churn: still, ..settings() };
    let cases = cases();
    let vp: Vec<Case> = cases.into_iter().filter(|case| case.name == "vp").collect();
    let mut measured = 0;
    for entry in catalog::all().filter(|e| e.order > 0 && !e.draws_noise(&settings)) {
        let Make::Table(make) = entry.make else { continue };
        // A rule with a start of its own is measured with it.
        let lead = if entry.nfe.contains("start") { 0 } else { LEAD };
        assert_orders(&vp, &[(make(&settings), f64::from(entry.order))], lead, 320);
        measured += 1;
    }
    assert!(measured >= 40, "{measured} samplers of the catalog were measured");
}

#[test]
fn the_processes_of_the_catalog_are_those_accepted() {
    let settings = settings();
    let grid = |from: f64, to: f64| TimeGrid::uniform(from, to, 6).expect("a grid");
    let (rotating, straight, vp) = (Rotating { omega: 1.3 }, process("linear"), process("vp"));
    let mut wrong = Vec::new();
    for entry in catalog::all() {
        let Make::Table(make) = entry.make else { continue };
        let rule = make(&settings);
        let exists = |sde: &dyn LinearSde, grid: &TimeGrid| rule.table(sde, grid).is_ok();
        let (name, accepts) = (entry.name, entry.accepts);
        assert!(exists(vp.as_ref(), &grid(1.0, 1e-3)), "{name} on VP");
        let scalar =
            matches!(accepts, Accepts::Chain | Accepts::Scalar | Accepts::ScalarNoise | Accepts::ScalarData);
        let mut agree = |found: bool, stated: bool, what: &str| {
            if found != stated {
                wrong.push(format!("{name}: {what} {found}, not {stated}"));
            }
        };
        agree(exists(&rotating, &grid(1.0, 0.2)), !scalar, "groups");
        // No signal at T = 1 of the straight path.
        let without_signal = matches!(accepts, Accepts::Velocity | Accepts::LinearData | Accepts::ScalarData);
        agree(exists(straight.as_ref(), &grid(1.0, 0.1)), without_signal, "without signal");
        // No noise at t = 0 of VP.
        let needs_noise = matches!(accepts, Accepts::LinearNoise | Accepts::ScalarNoise);
        agree(exists(vp.as_ref(), &grid(1.0, 0.0)), !needs_noise, "without noise");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
