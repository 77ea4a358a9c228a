//! Whole runs from given starts and given noise, against an independent implementation in f64, and the probability flow against
//! integrations to 1e-11.

mod support;

use candle_core::{Device, Tensor};
use sde_core::noise::BatchNoise;
use sde_core::noise::{Law, Noise, Recorded};
use sde_core::process::Vp;
use sde_core::{Field, OracleField, Prediction, TimeGrid};
use sde_solvers::{
    Adaptive, Axis, Chart, Divergence, Ei, Error, Euler, EulerMaruyama, Multistep, Outcome, ProbabilityFlow,
    RungeKutta, StochasticDdim, Tab, Tableau,
};
use support::{Golden, largest_gap, process};

fn rule(name: &str) -> Option<Box<dyn Multistep>> {
    let number = |prefix: &str| name.strip_prefix(prefix).and_then(|n| n.parse::<f64>().ok());
    if let Some(degree) = number("tab") {
        return Some(Box::new(Tab { degree: degree as usize }));
    }
    if let Some(lambda) = number("stochddim_lam") {
        return Some(Box::new(StochasticDdim { lambda }));
    }
    if let Some(lambda) = number("em_lam") {
        return Some(Box::new(EulerMaruyama { lambda }));
    }
    match name {
        "euler_t" => Some(Box::new(Euler)),
        "ei_score" => Some(Box::new(Ei)),
        "rhork_2heun" => Some(Box::new(rho_rk(Tableau::HEUN2))),
        "rhork_3kutta" => Some(Box::new(rho_rk(Tableau::KUTTA3))),
        "rhork_4rk" => Some(Box::new(rho_rk(Tableau::RK4))),
        _ => None,
    }
}

fn rho_rk(tableau: Tableau) -> RungeKutta {
    RungeKutta { tableau, axis: Axis::Rho, last_euler: false }
}

#[test]
fn runs_agree_with_an_independent_implementation() {
    let mut compared = 0;
    for name in ["vp_gmm8", "vp_ani4", "ve_gmm8", "ve_ani4", "subvp_gmm8", "subvp_ani4"] {
        let golden = Golden::load(&format!("cont_{name}"));
        let sde = process(name.split('_').next().expect("a process"));
        let data = golden.mixture();
        let field = OracleField::noise(&data, sde.as_ref());
        let recorded = Recorded(golden.get("noise").clone());
        for key in golden.keys() {
            let Some((grid, method)) = key.split_once("__") else { continue };
            let Some(rule) = rule(method) else { continue };
            let times = TimeGrid::new(golden.flat(&format!("{grid}__t"))).expect("a grid");
            let table = rule.table(sde.as_ref(), &times).expect("a table");
            let start = golden.get("xT");
            let found = table.sample(sde.as_ref(), &field, start, &recorded).expect("a run").x;
            let scale = golden.flat(key).iter().fold(1.0, |m: f64, v| m.max(v.abs()));
            let gap = largest_gap(&found, golden.get(key));
            assert!(gap < 1e-11 * scale, "{name} {key}: {gap:e}");
            compared += 1;
        }
    }
    // 13 methods on 6 grids for VP, 12 on 3 for the others (the score integrator was run for VP alone), two data laws each.
    assert_eq!(compared, 2 * (13 * 6 + 2 * 12 * 3));
}

#[test]
fn the_probability_flow_reaches_reference_states() {
    for name in
        ["vp_gmm8", "vp_ani4", "ve_gmm8", "ve_ani4", "subvp_gmm8", "subvp_ani4", "edm_gmm8", "edm_ani4"]
    {
        let golden = Golden::load(&format!("pfode_{name}"));
        let sde = process(name.split('_').next().expect("a process"));
        let data = golden.mixture();
        let field = OracleField::noise(&data, sde.as_ref());
        let times = golden.flat("times");
        let solver = Adaptive::new(1e-13, 1e-14);
        let flow = ProbabilityFlow::new(sde.as_ref(), &field, Chart::Clock);
        let solution = flow.solve(&solver, golden.get("xT"), times[0], times[1]).expect("a solve");
        assert_eq!(solution.unfinished().count(), 0);
        let gap = largest_gap(&solution.y, golden.get("x_best"));
        assert!(gap < 2e-11, "{name}: {gap:e}");
        // And in t, at an everyday tolerance.
        let flow = ProbabilityFlow::new(sde.as_ref(), &field, Chart::Time);
        let solution =
            flow.solve(&Adaptive::new(1e-5, 1e-5), golden.get("xT"), times[0], times[1]).expect("a solve");
        let gap = largest_gap(&solution.y, golden.get("x_best"));
        assert!(gap < 2e-3, "{name} at 1e-5: {gap:e}");
    }
}

#[test]
fn a_sample_does_not_depend_on_its_batch() {
    let golden = Golden::load("pfode_vp_gmm8");
    let (sde, data) = (Vp::STANDARD, golden.mixture());
    let field = OracleField::noise(&data, &sde);
    let flow = ProbabilityFlow::new(&sde, &field, Chart::Time);
    let solver = Adaptive::new(1e-5, 1e-5);
    let x = golden.get("xT");
    let batch = Tensor::cat(&[x, x, x, x], 0).expect("64 samples");
    let together = flow.solve(&solver, &batch, 1.0, 1e-3).expect("a solve");
    for row in [0, 7, 40] {
        let alone =
            flow.solve(&solver, &batch.narrow(0, row, 1).expect("a row"), 1.0, 1e-3).expect("a solve");
        let there = together.y.get(row).and_then(|t| t.to_vec1::<f64>()).expect("a row");
        assert_eq!(alone.y.get(0).and_then(|t| t.to_vec1::<f64>()).expect("a row"), there);
        assert_eq!(alone.reports[0], together.reports[row]);
    }
    let nfe: Vec<usize> = together.reports.iter().map(|r| r.nfe).collect();
    assert!(nfe.iter().any(|n| *n != nfe[0]), "samples should take their own number of steps: {nfe:?}");
}

/// dy/dt = f(t) y + g(t), in closed form where needed.
struct Plain<F>(F);

impl<F: Fn(f64, f64) -> f64> sde_solvers::adaptive::Ode for Plain<F> {
    fn rhs(&self, y: &Tensor, t: &[f64], _: &[usize]) -> sde_core::Result<Tensor> {
        let rows = y.to_vec2::<f64>()?;
        let slopes: Vec<f64> = rows.iter().zip(t).map(|(row, &t)| (self.0)(t, row[0])).collect();
        Ok(Tensor::from_vec(slopes, y.dims(), &Device::Cpu)?)
    }
}

#[test]
fn the_pair_has_order_five_and_arrives_exactly() {
    let y = Tensor::new(&[[1.0]], &Device::Cpu).expect("a tensor");
    let ode = Plain(|t: f64, y: f64| -2.0 * t * y);
    let error = |rtol: f64| {
        let solution = Adaptive::new(rtol, 0.0).integrate(&ode, &y, 0.0, 1.5).expect("a solve");
        assert_eq!((solution.reports[0].outcome, solution.reports[0].t), (Outcome::Finished, 1.5));
        let value = solution.y.to_vec2::<f64>().expect("a number")[0][0];
        ((value / (-2.25f64).exp() - 1.0).abs(), solution.reports[0].accepted as f64)
    };
    let ((coarse, n1), (fine, n2)) = (error(1e-6), error(1e-12));
    let order = (coarse / fine).ln() / (n2 / n1).ln();
    assert!((4.5..6.5).contains(&order), "order {order} from {coarse:e}, {n1} to {fine:e}, {n2}");
}

#[test]
fn outcomes_say_what_happened_and_keep_the_partial_result() {
    let y = Tensor::new(&[[1.0], [2.0]], &Device::Cpu).expect("a tensor");
    // y' = y² blows up at t = 1/y₀: the second sample cannot pass 0.5, the first cannot pass 1.
    let blowup = Plain(|_: f64, y: f64| y * y);
    let solution = Adaptive::new(1e-8, 1e-8).integrate(&blowup, &y, 0.0, 0.75).expect("a solve");
    assert_eq!(solution.reports[0].outcome, Outcome::Finished);
    let value = solution.y.to_vec2::<f64>().expect("numbers")[0][0];
    assert!((value - 4.0).abs() < 1e-5, "{value}");
    assert!(matches!(solution.reports[1].outcome, Outcome::StepTooSmall | Outcome::NonFinite));
    assert!((solution.reports[1].t - 0.5).abs() < 1e-3, "{:?}", solution.reports[1]);
    let capped = Adaptive { max_nfe: 20, ..Adaptive::new(1e-10, 1e-10) };
    let solution =
        capped.integrate(&Plain(|t: f64, y: f64| (40.0 * t).cos() * y), &y, 0.0, 9.0).expect("a solve");
    assert_eq!(solution.reports[0].outcome, Outcome::NfeCap);
    assert!(solution.reports[0].nfe <= 20 + 6 && solution.reports[0].t > 0.0);
    let nan = Plain(|t: f64, y: f64| if t > 0.4 { f64::NAN } else { y });
    let solution = Adaptive::new(1e-6, 1e-6).integrate(&nan, &y, 0.0, 1.0).expect("a solve");
    assert_eq!(solution.reports[0].outcome, Outcome::NonFinite);
    assert!(solution.reports[0].t <= 0.4 && solution.reports[0].t > 0.2);
    assert!(matches!(
        Adaptive::new(-1.0, 0.0).integrate(&nan, &y, 0.0, 1.0),
        Err(Error::Core(sde_core::Error::Range { .. }))
    ));
    assert!(Adaptive::new(1e-5, 1e-5).integrate(&nan, &y, 0.0, f64::INFINITY).is_err());
}

#[test]
fn hutchinson_agrees_with_the_exact_divergence_within_its_error() {
    let golden = Golden::load("pfode_vp_ani4");
    let (sde, data) = (Vp::STANDARD, golden.mixture());
    let field = OracleField::noise(&data, &sde);
    let x = golden.get("xT");
    let batch = x.dim(0).expect("a batch");
    let noise = BatchNoise::new(Noise::new(3), 0, 0..batch as u32);
    let measure = |divergence: Divergence| {
        let probes = divergence.probes(&noise, x).expect("probes");
        let (value, trace) =
            divergence.value_and_divergence(&field, x, &[0.4], &probes).expect("a divergence");
        assert!(largest_gap(&value, &field.eval(x, &[0.4]).expect("a value")) == 0.0);
        trace.to_vec1::<f64>().expect("numbers")
    };
    let exact = measure(Divergence::Exact);
    // For a Gaussian the Jacobian J is constant: a Rademacher probe has variance 2 Σ_{i≠j} J_ij², a normal one 2 ‖J‖².
    let column = |j: usize| {
        let mut unit = [0.0; 4];
        unit[j] = 1.0;
        let unit = Tensor::from_vec(unit.repeat(batch), (batch, 4), &Device::Cpu).expect("a tensor");
        let (_, products) = field.vjps(x, &[0.4], &[unit]).expect("a product");
        products[0].to_vec2::<f64>().expect("numbers")[0].clone()
    };
    let jacobian: Vec<Vec<f64>> = (0..4).map(column).collect();
    let square: f64 = jacobian.concat().iter().map(|v| v * v).sum();
    let diagonal: f64 = (0..4).map(|i| jacobian[i][i].powi(2)).sum();
    let probes = 500;
    for (law, variance) in [(Law::Rademacher, 2.0 * (square - diagonal)), (Law::Normal, 2.0 * square)] {
        let estimate = measure(Divergence::Hutchinson { law, probes });
        let standard_error = (variance / probes as f64).sqrt();
        let spread =
            estimate.iter().zip(&exact).map(|(e, x)| ((e - x) / standard_error).powi(2)).sum::<f64>()
                / batch as f64;
        // Mean of B squared standard normals: 1 with standard error √(2/B).
        assert!((spread - 1.0).abs() < 4.0 * (2.0 / batch as f64).sqrt(), "{law:?}: {spread}");
    }
    assert!(Divergence::Hutchinson { law: Law::Uniform, probes: 1 }.probes(&noise, x).is_err());
    assert_eq!(field.prediction(), Prediction::Noise);
}
