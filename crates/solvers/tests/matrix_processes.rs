//! Every rule of any linear process on processes that are not scalar: orders of convergence, mean and covariance through the table, and what has to be equal.

mod support;

use std::sync::Arc;

use nalgebra::{DMatrix, DVector};
use sde_core::noise::{BatchNoise, Noise};
use sde_core::oracle::Mixture;
use sde_core::process::{Blurring, Cld, Clocked, Commuting, Heat, Langevin, LinearPair, Vp};
use sde_core::{Basis, LinearSde, Op, OracleField, Prediction, TimeGrid};
use sde_solvers::{
    Axis, CholeskyAb, Churn, Ddim, Ddpm, Dpm2, Ei, Euler, EulerMaruyama, Form, LogAb, Multistep, Pndm, RhoAb,
    RungeKutta, Start, StochasticDdim, Tab, TabPc, Table, Tableau, Variance, upward,
};
use support::moments::{dense, error, exact, propagate};
use support::orders::{Case, LEAD, assert_orders, boxed};
use support::rotating::Rotating;
use support::{largest_gap, tensor};

/// A process for states of two entries, and the interval it is looked at on.
type Example = (&'static str, Box<dyn LinearSde>, (f64, f64));

/// The families of flexible diffusions, on the clock of VP.
fn flexible() -> Vec<Example> {
    let (sin, cos) = 0.6f64.sin_cos();
    let basis =
        || Arc::new(Basis::new(DMatrix::from_row_slice(2, 2, &[cos, -sin, sin, cos])).expect("a basis"));
    let (q, omega) = ([2.0, 0.5, 0.5, 0.7], [0.0, 0.4, -0.4, 0.0]);
    let matrix = |m: &[f64]| DMatrix::from_row_slice(2, 2, m);
    let vp = Vp::STANDARD;
    let noise = Commuting::fp_noise(basis(), vec![1.6, 0.7], 1.0).expect("a law");
    let drift = Commuting::fp_drift(&matrix(&omega), 1.0).expect("a law");
    let pair = LinearPair::of(matrix(&q), &matrix(&omega), 1.0).expect("a law");
    let oscillator = Langevin::new(basis(), &[(0.8, 1.1)], 1.0).expect("a law");
    let ends = (0.6, 0.15);
    vec![
        ("fp-noise", Box::new(Clocked::new(noise, vp).expect("a process")), ends),
        ("fp-drift", Box::new(Clocked::new(drift, vp).expect("a process")), ends),
        ("linear pair", Box::new(Clocked::new(pair, vp).expect("a process")), ends),
        ("langevin block", Box::new(Clocked::new(oscillator, vp).expect("a process")), ends),
    ]
}

fn examples() -> Vec<Example> {
    let heat = Op::block([[1.0, 0.4], [0.4, 0.5]]);
    let mut examples: Vec<Example> = vec![
        ("rotating", Box::new(Rotating { omega: 1.3 }), (1.0, 0.2)),
        ("cld", Box::new(Cld::published().expect("a process")), (0.6, 0.1)),
        ("blurring", Box::new(Blurring::new((1, 2), 1.5, 0.01).expect("a process")), (0.6, 0.2)),
        ("heat", Box::new(Heat::new(heat, [1e-3, 50.0]).expect("a process")), (2.0, 0.4)),
    ];
    examples.extend(flexible());
    examples
}

fn cases() -> Vec<Case> {
    examples().into_iter().map(|(name, sde, ends)| Case::new(name, sde, ends)).collect()
}

#[test]
fn predictors_correctors_and_the_cholesky_baseline_have_their_orders() {
    let cases = cases();
    let of_degree = |degree: usize| {
        let order = degree as f64 + 1.0;
        vec![
            boxed(Tab { degree }, order),
            boxed(CholeskyAb { degree }, order),
            boxed(RhoAb { degree }, order),
            boxed(LogAb { form: Form::Data, degree, lower_final: false }, order),
        ]
    };
    let mut rules = vec![boxed(Ddim::DETERMINISTIC, 1.0), boxed(Ei, 1.0)];
    for degree in 0..3 {
        rules.extend(of_degree(degree));
        rules.push(boxed(TabPc { degree }, degree as f64 + 2.0));
    }
    assert_orders(&cases, &rules, LEAD, 160);
    assert_orders(&cases, &of_degree(3), LEAD, 320);
}

#[test]
fn rules_of_one_step_have_their_orders() {
    let mut rules = vec![boxed(Euler, 1.0), boxed(Dpm2 { eta: 0.0 }, 2.0)];
    rules.push(boxed(EulerMaruyama { lambda: 0.0 }, 1.0));
    rules.push(boxed(StochasticDdim { lambda: 0.0 }, 1.0));
    for tableau in [Tableau::HEUN2, Tableau::KUTTA3, Tableau::RK4] {
        for axis in [Axis::Time, Axis::Rho, Axis::LogRho] {
            rules.push(boxed(RungeKutta { tableau, axis, last_euler: false }, tableau.order as f64));
        }
    }
    assert_orders(&cases(), &rules, 0, 160);
    // The weights of iPNDM are those of equal steps in ρ; ρ is t for the heat equation alone.
    let (even, uneven): (Vec<Case>, Vec<Case>) = cases().into_iter().partition(|case| case.name == "heat");
    let ipndm = |order| [boxed(Pndm { start: Start::Lower, order: 4 }, order)];
    assert_orders(&even, &ipndm(4.0), LEAD, 160);
    assert_orders(&uneven, &ipndm(2.0), LEAD, 320);
}

fn law() -> (DVector<f64>, DMatrix<f64>) {
    (DVector::from_vec(vec![0.6, -0.3]), DMatrix::from_row_slice(2, 2, &[0.25, 0.1, 0.1, 0.4]))
}

/// The error of mean and covariance after `n` steps, even in the clock.
fn miss(rule: &dyn Multistep, sde: &dyn LinearSde, (from, to): (f64, f64), n: usize) -> f64 {
    let law = law();
    let data = Mixture::new(&[1.0], &[law.0.as_slice().to_vec()], std::slice::from_ref(&law.1));
    let table = rule.table(sde, &TimeGrid::log_rho(sde, from, to, n).expect("a grid")).expect("a table");
    let start = exact((&law.0, &law.1), sde, from);
    let end = propagate(&table, &data.expect("a Gaussian"), sde, start);
    error(&end, &exact((&law.0, &law.1), sde, to))
}

#[test]
fn mean_and_covariance_converge_to_the_exact_marginal_at_first_order() {
    let rules: [&dyn Multistep; 9] = [
        &StochasticDdim { lambda: 0.0 },
        &StochasticDdim { lambda: 0.5 },
        &StochasticDdim { lambda: 1.0 },
        &StochasticDdim { lambda: 1.7 },
        &Ddpm { variance: Variance::Small },
        &Ddpm { variance: Variance::Large },
        &EulerMaruyama { lambda: 0.0 },
        &EulerMaruyama { lambda: 0.5 },
        &EulerMaruyama { lambda: 1.0 },
    ];
    for (name, sde, ends) in examples() {
        for rule in rules {
            let (coarse, fine) = (miss(rule, sde.as_ref(), ends, 200), miss(rule, sde.as_ref(), ends, 400));
            let order = (coarse / fine).log2();
            assert!((order - 1.0).abs() < 0.15, "{name} {}: order {order:.3}, {fine:e}", rule.name());
            assert!(fine < 0.05, "{name} {}: {fine:e}", rule.name());
        }
        let solver = RungeKutta { tableau: Tableau::HEUN2, axis: Axis::Rho, last_euler: false };
        let churn = Churn { solver, churn: 3.0, lowest: 0.0, highest: 1e9, noise: 1.0 };
        let order = (miss(&churn, sde.as_ref(), ends, 200) / miss(&churn, sde.as_ref(), ends, 400)).log2();
        assert!((order - 2.0).abs() < 0.15, "{name} churn: order {order:.3}");
    }
}

/// Ψ̂ and P of a step, as matrices.
fn step(sde: &dyn LinearSde, lambda: f64, (from, to): (f64, f64)) -> (DMatrix<f64>, DMatrix<f64>) {
    let grid = TimeGrid::new(vec![from, to]).expect("a grid");
    let table = StochasticDdim { lambda }.table(sde, &grid).expect("a table");
    let row = &table.updates[0];
    let inverse = dense(&sde.factor(from), 2).try_inverse().expect("an inverse");
    let root = row.inject.as_ref().map_or(DMatrix::zeros(2, 2), |op| dense(op, 2));
    (dense(&row.carry, 2) + dense(&row.terms[0], 2) * inverse, &root * root.transpose())
}

#[test]
fn one_step_carries_the_covariance_of_a_point_mass_exactly_for_every_lambda() {
    for (name, sde, (from, to)) in examples() {
        let sigma = |t: f64| dense(&sde.covariance(t), 2);
        let middle = 0.4 * from + 0.6 * to;
        for lambda in [0.0, 0.1, 0.5, 1.0, 1.7, 4.0] {
            let (psi_hat, noise) = step(sde.as_ref(), lambda, (from, to));
            let carried = &psi_hat * sigma(from) * psi_hat.transpose() + &noise;
            assert!((carried - sigma(to)).amax() < 1e-13, "{name} {lambda}");
            // Two steps are one.
            let (first, second) =
                (step(sde.as_ref(), lambda, (from, middle)), step(sde.as_ref(), lambda, (middle, to)));
            let scale = psi_hat.amax().max(1.0);
            assert!((&second.0 * &first.0 - &psi_hat).amax() < 1e-11 * scale, "{name} {lambda}");
            let both = &second.0 * &first.1 * second.0.transpose() + &second.1;
            assert!((both - &noise).amax() < 1e-11, "{name} {lambda}");
        }
    }
}

/// P by its equation, `Ṗ = F̂ P + P F̂ᵀ − λ² G Gᵀ`, from `from` down, in small steps; without the transposition if so asked.
fn integrated(sde: &dyn LinearSde, lambda: f64, (from, to): (f64, f64), transposed: bool) -> DMatrix<f64> {
    let rate = |t: f64, p: &DMatrix<f64>| {
        let half = sde.diffusion(t).mul(&sde.covariance(t).inverse().expect("an inverse")).expect("one kind");
        let drift = sde.drift(t).add(&half.scale(0.5 * (1.0 + lambda * lambda))).expect("one kind");
        let drift = dense(&drift, 2);
        let back = if transposed { p * drift.transpose() } else { p * &drift };
        &drift * p + back - dense(&sde.diffusion(t), 2) * (lambda * lambda)
    };
    let n = 4000;
    let h = (to - from) / f64::from(n);
    (0..n).fold(DMatrix::zeros(2, 2), |p, i| {
        let t = from + h * f64::from(i);
        let k1 = rate(t, &p);
        let k2 = rate(t + 0.5 * h, &(&p + &k1 * (0.5 * h)));
        let k3 = rate(t + 0.5 * h, &(&p + &k2 * (0.5 * h)));
        let k4 = rate(t + h, &(&p + &k3 * h));
        p + (k1 + k2 * 2.0 + k3 * 2.0 + k4) * (h / 6.0)
    })
}

#[test]
fn a_covariance_without_its_transposition_is_caught() {
    let (sde, ends) = (Cld::published().expect("a process"), (0.6, 0.2));
    let (psi_hat, noise) = step(&sde, 0.5, ends);
    let (right, wrong) = (integrated(&sde, 0.5, ends, true), integrated(&sde, 0.5, ends, false));
    assert!((&right - &noise).amax() < 1e-9);
    // Values of the specification: a variance of −0.167 where it is 0.505.
    assert!((right[(0, 0)] - 0.505).abs() < 6e-4 && (wrong[(0, 0)] + 0.167).abs() < 6e-4, "{right} {wrong}");
    assert!((&wrong - wrong.transpose()).amax() > 1e-2, "not even symmetric");
    // The marginal is missed by as much, however many steps there are: the test above would see it.
    let carried = |p: &DMatrix<f64>| &psi_hat * dense(&sde.covariance(0.6), 2) * psi_hat.transpose() + p;
    assert!((carried(&right) - dense(&sde.covariance(0.2), 2)).amax() < 1e-9);
    assert!((carried(&wrong) - dense(&sde.covariance(0.2), 2)).amax() > 0.5);
}

fn same(a: &Table, b: &Table, sde: &dyn LinearSde) {
    assert_eq!((a.of, a.updates.len()), (b.of, b.updates.len()));
    let close = |a: &Op, b: &Op, what: &str| {
        let (a, b) = (dense(a, 2), dense(b, 2));
        assert!((&a - &b).amax() < 1e-12 * a.amax().max(1.0), "{what}: {a} {b}");
    };
    for (a, b) in a.updates.iter().zip(&b.updates) {
        close(&a.carry, &b.carry, "carry");
        a.terms.iter().zip(&b.terms).for_each(|(a, b)| close(a, b, "term"));
        assert_eq!((a.terms.len(), a.inject.is_some()), (b.terms.len(), b.inject.is_some()));
        let square = |n: &Op| n.mul(&n.transpose()).expect("one kind");
        a.inject.iter().zip(&b.inject).for_each(|(a, b)| close(&square(a), &square(b), "covariance"));
    }
    assert!(sde.span().end > 0.0);
}

#[test]
fn rules_that_are_one_are_one_on_every_process() {
    for (_, sde, (from, to)) in examples() {
        let sde = sde.as_ref();
        let grid = TimeGrid::power(from, to, 6, 2.0).expect("a grid");
        let table = |rule: &dyn Multistep| rule.table(sde, &grid).expect("a table");
        let ddim = table(&Ddim::DETERMINISTIC);
        same(&table(&Tab { degree: 0 }), &ddim, sde);
        same(&table(&StochasticDdim { lambda: 0.0 }), &ddim, sde);
        same(&table(&StochasticDdim { lambda: 1.0 }), &table(&Ddpm { variance: Variance::Small }), sde);
    }
    // Of a scalar process any factor is R, and the noise that is a polynomial in t is carried exactly either way.
    let (vp, grid) = (Vp::STANDARD, TimeGrid::power(0.9, 1e-2, 6, 2.0).expect("a grid"));
    for degree in 0..4 {
        let found = CholeskyAb { degree }.table(&vp, &grid).expect("a table");
        let expected = Tab { degree }.table(&vp, &grid).expect("a table");
        for (found, expected) in found.updates.iter().zip(&expected.updates) {
            for ((score, noise), lag) in found.terms.iter().zip(&expected.terms).zip(0..) {
                let at = grid.times()[expected.step - lag];
                let score = score.scale(-1.0 / vp.factor(at).max_abs());
                assert!(score.sub(noise).expect("numbers").max_abs() < 1e-12 * noise.max_abs().max(1.0));
            }
        }
    }
}

#[test]
fn a_noise_that_is_a_polynomial_in_t_is_carried_exactly() {
    // Of degree r + 1 for the corrector, whose table sees it through.
    for (name, sde, (from, to)) in examples() {
        let sde = sde.as_ref();
        let times: Vec<f64> = (0..4).map(|i| from + (to - from) * f64::from(i) / 3.0).collect();
        for degree in 0..3 {
            let table =
                TabPc { degree }.table(sde, &TimeGrid::new(times.clone()).expect("a grid")).expect("a table");
            assert_eq!((table.of, table.nfe()), (Prediction::Noise, 6));
            let last: Vec<_> = table.updates.iter().filter(|update| update.step == 2).collect();
            let power = degree as i32 + 1;
            let noise = |t: f64| DVector::from_vec(vec![1.0, -0.5]) * t.powi(power);
            // All predictions of the table are at the times that its rows start from.
            let visited: Vec<f64> = table.updates.iter().map(|update| update.from).collect();
            let (mut u, mut seen) = (DVector::zeros(2), visited.len() - 2);
            for row in last {
                seen += 1;
                u = dense(&row.carry, 2) * u;
                for (term, t) in row.terms.iter().zip(visited[..seen].iter().rev()) {
                    u += dense(term, 2) * noise(*t);
                }
            }
            // u' = ∫ ½ Ψ G Gᵀ R⁻ᵀ ε(τ) dτ from u = 0.
            let rule = sde_core::quadrature::GaussLegendre::new(40);
            let exact = rule.on(times[2], times[3]).fold(DVector::zeros(2), |sum: DVector<f64>, (tau, w)| {
                let back = dense(&sde.factor(tau), 2).try_inverse().expect("an inverse").transpose();
                let slope = dense(&sde.transition(times[3], tau), 2) * dense(&sde.diffusion(tau), 2) * back;
                sum + slope * noise(tau) * (0.5 * w)
            });
            assert!((&u - &exact).amax() < 1e-11, "{name} {degree}: {u} {exact}");
        }
    }
}

#[test]
fn tables_from_data_to_noise_undo_those_from_noise_to_data() {
    let rk4 = RungeKutta { tableau: Tableau::RK4, axis: Axis::Rho, last_euler: false };
    let rules: [(&dyn Multistep, f64); 4] = [
        (&Tab { degree: 1 }, 2.0),
        (&TabPc { degree: 0 }, 2.0),
        (&CholeskyAb { degree: 1 }, 2.0),
        (&rk4, 4.0),
    ];
    let data = Mixture::diagonal(vec![0.6, -0.3], vec![0.25, 0.4]).expect("a Gaussian");
    let (x, none) = (tensor(&[vec![0.9, -0.4]]), BatchNoise::new(Noise::new(0), 0, 0..1));
    for (name, sde, (from, to)) in examples() {
        let sde = sde.as_ref();
        let field = OracleField::noise(&data, sde);
        for (rule, order) in rules {
            let gap = |steps: usize| {
                let grid = TimeGrid::uniform(from, to, steps).expect("a grid");
                let up = upward(rule, sde, &grid).and_then(|table| table.sample(sde, &field, &x, &none));
                let down = rule.table(sde, &grid);
                let back = down.and_then(|table| table.sample(sde, &field, &up?.x, &none)).expect("a run");
                largest_gap(&back.x, &x)
            };
            let (coarse, fine) = (gap(40), gap(80));
            let found = (coarse / fine).log2();
            assert!(found > order - 0.4 && fine < 0.05, "{name} {}: {found:.2}, {fine:e}", rule.name());
        }
    }
    assert!(upward(&StochasticDdim { lambda: 0.5 }, &Cld::published().expect("a process"), &unit()).is_err());
    assert!(upward(&StochasticDdim { lambda: 0.0 }, &Cld::published().expect("a process"), &unit()).is_ok());
}

fn unit() -> TimeGrid {
    TimeGrid::uniform(1.0, 0.1, 3).expect("a grid")
}
