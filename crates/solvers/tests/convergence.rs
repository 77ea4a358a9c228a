//! Orders of convergence, without a network: for Gaussian data the exact ε is affine in the state and the flow is known.

mod support;

use candle_core::{Device, Tensor};
use nalgebra::DMatrix;
use sde_core::noise::{BatchNoise, Noise};
use sde_core::oracle::Mixture;
use sde_core::process::Vp;
use sde_core::{Field, LinearSde, Op, OracleField, TimeGrid};
use sde_solvers::{Axis, Ddim, Ei, Euler, Form, Multistep, RhoAb, RungeKutta, Tab, Tableau};
use support::{largest_gap, process, rotating::Rotating, tensor};

/// One run of tAB from `from` to `to` on a uniform grid whose polynomial starts with its full history: ε at the times before `from`, from the
/// exact flow.
fn tab_with_history(
    sde: &dyn LinearSde,
    data: &Mixture,
    degree: usize,
    (from, to): (f64, f64),
    n: usize,
    x: &[f64],
) -> f64 {
    let field = OracleField::noise(data, sde);
    let h = (from - to) / n as f64;
    let time = |i: i64| from - h * i as f64;
    let exact = |t: f64| tensor(&[exact_flow(sde, data, from, t, x)]);
    let noise = |x: &Tensor, t: f64| field.eval(x, &[t]).expect("an oracle");
    let mut history: Vec<Tensor> = (1..=degree as i64).map(|k| noise(&exact(time(-k)), time(-k))).collect();
    let mut u = exact(from);
    for i in 0..n as i64 {
        history.insert(0, noise(&u, time(i)));
        history.truncate(degree + 1);
        let nodes: Vec<f64> = (0..=degree as i64).map(|j| time(i - j)).collect();
        let terms = Tab::coefficients(sde, &nodes, time(i + 1)).expect("coefficients");
        u = sde.transition(time(i + 1), time(i)).apply(&u).expect("a step");
        for (term, eps) in terms.iter().zip(&history) {
            u = (u + term.apply(eps).expect("a term")).expect("one shape");
        }
    }
    largest_gap(&u, &exact(to))
}

/// The closed-form flow; under the rotating process, for isotropic data, it is the scalar flow in the rotating frame.
fn exact_flow(sde: &dyn LinearSde, data: &Mixture, from: f64, to: f64, x: &[f64]) -> Vec<f64> {
    if sde.groups() == 1 {
        return data.flow(sde, from, to, x).expect("one Gaussian");
    }
    let (turn, vp) = (Rotating { omega: OMEGA }, Vp::new(1.0, 1.0).expect("a range"));
    let back = turn.signal(from).inverse().expect("a rotation").scale((-0.5 * from).exp());
    let still = data.flow(&vp, from, to, &back.apply_host(x).expect("a state")).expect("one Gaussian");
    turn.signal(to).scale((0.5 * to).exp()).apply_host(&still).expect("a state")
}

const OMEGA: f64 = 1.3;

/// A process, and the interval its order is measured on.
type Case = (&'static str, Box<dyn LinearSde>, (f64, f64));

#[test]
fn tab_of_degree_r_converges_with_order_r_plus_1_on_every_process() {
    // Gaussian data with unlike axes, except under the rotation, where only isotropic data has a closed form.
    let covariance = DMatrix::from_row_slice(2, 2, &[0.25, 0.1, 0.1, 0.3]);
    let tilted = Mixture::new(&[1.0], &[vec![0.7, -0.2]], &[covariance]).expect("a Gaussian");
    let round = Mixture::diagonal(vec![0.7, -0.2], vec![0.25, 0.25]).expect("a Gaussian");
    let cases: [Case; 7] = [
        ("vp", process("vp"), (0.6, 0.1)),
        ("ve", process("ve"), (0.8, 0.4)),
        ("subvp", process("subvp"), (0.6, 0.1)),
        ("edm", process("edm"), (2.0, 0.3)),
        ("linear", process("linear"), (0.7, 0.2)),
        ("cosine", process("cosine"), (0.7, 0.2)),
        ("rotating", Box::new(Rotating { omega: OMEGA }), (1.0, 0.2)),
    ];
    for (name, sde, span) in &cases {
        let data = if *name == "rotating" { &round } else { &tilted };
        let scale = sde.factor(span.0).max_abs();
        let x = [1.3 * scale, -0.6 * scale];
        for degree in 0..4 {
            let error = |n: usize| tab_with_history(sde.as_ref(), data, degree, *span, n, &x) / scale;
            let (coarse, fine) = (error(80), error(160));
            assert!(fine > 1e-13, "{name}: at the floor, the order would mean nothing");
            let order = (coarse / fine).log2();
            let expected = degree as f64 + 1.0;
            assert!((order - expected).abs() < 0.25, "{name} tab{degree}: order {order:.3} ({fine:e})");
        }
    }
}

/// The error at `n` steps of a rule on the setting of the specification's table, from T = 1 to 1e-3 on the quadratic grid.
fn table_error(rule: &dyn Multistep, data: &Mixture, grid: &TimeGrid, x: f64) -> f64 {
    let sde = Vp::STANDARD;
    let field = OracleField::noise(data, &sde);
    let noise = BatchNoise::new(Noise::new(0), 0, [0]);
    let table = rule.table(&sde, grid).expect("a table");
    let start = Tensor::new(&[[x]], &Device::Cpu).expect("a tensor");
    let end = table.sample(&sde, &field, &start, &noise).expect("a run").x;
    let exact = data.flow(&sde, grid.start(), grid.stop(), &[x]).expect("one Gaussian")[0];
    (end.flatten_all().and_then(|t| t.to_vec1::<f64>()).expect("a number")[0] - exact).abs()
}

#[test]
fn errors_of_the_published_setting() {
    // Gaussian data m = 0.7, s = 0.5, x_T = 1.3; values printed in the specification to three digits.
    let data = Mixture::diagonal(vec![0.7], vec![0.25]).expect("a Gaussian");
    let rules: [(&dyn Multistep, [f64; 2]); 6] = [
        (&Euler, [1.14e-2, 3.17e-4]),
        (&Ei, [8.46e-2, 2.54e-3]),
        (&Tab { degree: 0 }, [9.60e-2, 3.23e-3]),
        (&Tab { degree: 1 }, [3.73e-2, 5.10e-5]),
        (&Tab { degree: 2 }, [1.81e-2, 1.15e-6]),
        (&Tab { degree: 3 }, [1.01e-2, 7.67e-8]),
    ];
    for (rule, expected) in rules {
        for (steps, expected) in [10, 320].into_iter().zip(expected) {
            let grid = TimeGrid::power(1.0, 1e-3, steps, 2.0).expect("a grid");
            let error = table_error(rule, &data, &grid, 1.3);
            assert!((error / expected - 1.0).abs() < 6e-3, "{} {steps}: {error:e}", rule.name());
        }
    }
    // The rules in ρ are printed at 320 steps only.
    let rho = |tableau| RungeKutta { tableau, axis: Axis::Rho, last_euler: false };
    let rules: [(&dyn Multistep, f64); 6] = [
        (&RhoAb { degree: 1 }, 6.79e-5),
        (&RhoAb { degree: 2 }, 2.72e-6),
        (&RhoAb { degree: 3 }, 2.15e-7),
        (&rho(Tableau::HEUN2), 2.77e-5),
        (&rho(Tableau::KUTTA3), 4.42e-8),
        (&rho(Tableau::RK4), 9.44e-10),
    ];
    for (rule, expected) in rules {
        let grid = TimeGrid::power(1.0, 1e-3, 320, 2.0).expect("a grid");
        let error = table_error(rule, &data, &grid, 1.3);
        assert!((error / expected - 1.0).abs() < 6e-3, "{}: {error:e}", rule.name());
    }
}

#[test]
fn the_ramp_of_lower_degrees_caps_the_order_at_two() {
    let data = Mixture::diagonal(vec![0.7], vec![0.25]).expect("a Gaussian");
    let error = |steps: usize| {
        let grid = TimeGrid::uniform(0.6, 0.1, steps).expect("a grid");
        table_error(&Tab { degree: 3 }, &data, &grid, 1.3)
    };
    let order = (error(160) / error(320)).log2();
    assert!((order - 2.04).abs() < 0.1, "order {order}");
    assert!((error(320) / 2.17e-7 - 1.0).abs() < 0.1, "{:e}", error(320));
}

#[test]
fn one_ddim_step_is_exact_for_a_point_mass() {
    let (x0, eps) = (vec![0.4, -1.1], vec![1.3, 0.2]);
    let point = Mixture::points(std::slice::from_ref(&x0)).expect("a point");
    let noise = BatchNoise::new(Noise::new(0), 0, [0]);
    let state = |sde: &dyn LinearSde, t: f64| {
        let (s, r) = (sde.signal(t), sde.factor(t));
        let parts = |op: Op, v: &[f64]| op.apply_host(v).expect("a state");
        let sum = parts(s, &x0).iter().zip(parts(r, &eps)).map(|(a, b)| a + b).collect();
        tensor(&[sum])
    };
    for name in ["vp", "subvp", "ve", "edm", "cosine", "linear"] {
        let sde = process(name);
        let gone = name == "linear";
        let form = if gone { Form::Data } else { Form::Noise };
        let field = if gone {
            OracleField::data(&point, sde.as_ref())
        } else {
            OracleField::noise(&point, sde.as_ref())
        };
        let span = sde.span();
        for to in [span.sampling, 0.3 * span.end] {
            let grid = TimeGrid::new(vec![span.end, to]).expect("a grid");
            let table = Ddim { eta: 0.0, form }.table(sde.as_ref(), &grid).expect("a table");
            let start = state(sde.as_ref(), span.end);
            let end = table.sample(sde.as_ref(), &field, &start, &noise).expect("a run").x;
            let gap = largest_gap(&end, &state(sde.as_ref(), to));
            assert!(gap < 1e-12, "{name} to {to}: {gap:e}");
        }
    }
}
