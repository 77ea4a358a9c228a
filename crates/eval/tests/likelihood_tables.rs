//! The log density along the numerical flow of a table, of a mixture whose density is known: the orders of convergence, and what does not fit.

use candle_core::{Device, Tensor};
use nalgebra::DMatrix;
use sde_core::noise::{BatchNoise, Noise};
use sde_core::oracle::Mixture;
use sde_core::process::{Edm, LinearPath, SubVp, Ve, Vp};
use sde_core::{FieldFn, LinearSde, OracleField, Prediction, TimeGrid};
use sde_eval::{Likelihood, LogDensity, Prior, Result};
use sde_solvers::catalog::{self, ChurnSettings, Make, Settings};
use sde_solvers::{
    Adaptive, Clipping, Ddim, Divergence, Euler, EulerMaruyama, Form, Langevin, Multistep, Norms, Outcome,
    StochasticDdim, Tab, Table, upward,
};

fn two_modes() -> Result<Mixture> {
    let covariances =
        [[0.25, 0.1, 0.1, 0.3], [0.4, -0.1, -0.1, 0.2]].map(|c| DMatrix::from_row_slice(2, 2, &c));
    Ok(Mixture::new(&[0.6, 0.4], &[vec![0.7, -0.2], vec![-0.5, 0.4]], &covariances)?)
}

fn points() -> Result<Tensor> {
    Ok(Tensor::new(&[[0.3, -0.8], [-1.1, 0.6], [0.9, 0.2], [0.0, 0.1]], &Device::Cpu)?)
}

fn addresses() -> BatchNoise {
    BatchNoise::new(Noise::new(0), 0, 0..4)
}

/// From `start` to `end`, with steps that grow from `start` on as multistep rules, which begin with low orders, want it.
fn grid(start: f64, end: f64, steps: usize) -> Result<TimeGrid> {
    let time = |i: usize| start + (end - start) * (i as f64 / steps as f64).powi(3);
    let inner = (1..steps).rev().map(time);
    Ok(TimeGrid::new(std::iter::once(end).chain(inner).chain([start]).collect())?)
}

fn settings() -> Settings {
    Settings {
        eta: 0.0,
        lambda: 0.0,
        lower_final: false,
        churn: ChurnSettings { amount: 0.0, ..ChurnSettings::CIFAR10_VP },
        between: 0.5,
        corrector: Langevin { snr: 0.16, steps: 1, norms: Norms::Sample },
        annealed: (2e-5, 1),
        clipping: Clipping::NONE,
        sde_tolerances: [1e-2; 2],
        adaptive: Adaptive::new(1e-6, 1e-6),
        chart: None,
    }
}

/// The largest error of a table's log densities.
fn error(sde: &dyn LinearSde, data: &Mixture, table: &Table) -> Result<f64> {
    let field = OracleField::noise(data, sde);
    let (start, end) = (table.updates[0].from, table.updates[table.updates.len() - 1].to);
    let base = Likelihood::new(sde, &field, Divergence::Exact, table);
    let likelihood = Likelihood { prior: Prior::Exact(data), start, end, ..base };
    let x = points()?;
    let found = likelihood.log_density(&x, &addresses())?;
    assert!(found.iter().all(|one| one.nfe == table.nfe()));
    let expected = field.log_density(&x, &[start])?;
    let gap =
        |(one, exact): (&LogDensity, &f64)| one.value.map_or(f64::INFINITY, |value| (value - exact).abs());
    Ok(found.iter().zip(&expected).map(gap).fold(0.0, f64::max))
}

#[test]
fn every_deterministic_table_converges_with_its_order() -> Result<()> {
    let data = two_modes()?;
    let processes: [(&str, &dyn LinearSde, f64, f64); 5] = [
        ("vp", &Vp::STANDARD, 0.1, 0.6),
        ("subvp", &SubVp::STANDARD, 0.15, 0.5),
        ("ve", &Ve::STANDARD, 0.4, 0.8),
        ("edm", &Edm::STANDARD, 0.3, 2.0),
        ("linear", &LinearPath, 0.2, 0.7),
    ];
    let rules: Vec<_> = catalog::all()
        // EDM's stochastic sampler is listed without an order.
        .filter(|entry| !entry.draws_noise(&settings()) && entry.order > 0)
        .filter_map(
            |entry| if let Make::Table(make) = entry.make { Some((entry, make(&settings()))) } else { None },
        )
        .collect();
    assert!(rules.len() > 40, "{} rules", rules.len());
    let mut wrong = Vec::new();
    for (name, sde, start, end) in processes {
        // All of them on one process, and those of one kind on the others.
        for (entry, rule) in rules.iter().filter(|(entry, _)| {
            name == "vp" || ["tab", "rk4", "hue", "dpm"].iter().any(|kind| entry.name.starts_with(kind))
        }) {
            let mut pair = [f64::NAN; 2];
            for steps in [20, 40, 80, 160] {
                let found = error(sde, &data, &upward(rule.as_ref(), sde, &grid(start, end, steps)?)?)?;
                if found < 1e-10 {
                    break;
                }
                pair = [pair[1], found];
            }
            let order = (pair[0] / pair[1]).log2();
            if (order - f64::from(entry.order)).abs() > 0.5 {
                let (rule, expected) = (entry.name, entry.order);
                wrong.push(format!("{name} {rule}: order {order:.2}, not {expected} ({:.1e})", pair[1]));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn estimates_of_the_trace_do_as_well() -> Result<()> {
    let data = two_modes()?;
    let sde = Vp::STANDARD;
    let table = upward(&Tab { degree: 3 }, &sde, &grid(1e-3, 1.0, 40)?)?;
    let field = OracleField::noise(&data, &sde);
    let base = Likelihood::new(&sde, &field, Divergence::Exact, &table);
    let exact = Likelihood { prior: Prior::Exact(&data), start: 1e-3, ..base };
    let x = points()?;
    let expected = exact.log_density(&x, &addresses())?;
    // Two antithetic probes of two entries are exact.
    let divergence = Divergence::Antithetic { probes: 2 };
    let found = Likelihood { divergence, ..exact }.log_density(&x, &addresses())?;
    for (one, other) in found.iter().zip(&expected) {
        assert!((one.value.unwrap_or(f64::NAN) - other.value.unwrap_or(f64::NAN)).abs() < 1e-12);
    }
    Ok(())
}

/// A velocity that has no value in a half of the plane.
#[test]
fn a_state_that_is_not_finite_is_told_and_its_neighbours_are_solved() -> Result<()> {
    let sde = Vp::STANDARD;
    let table = upward(&Euler, &sde, &grid(1e-3, 1.0, 5)?)?;
    let field = FieldFn::new(Prediction::Velocity, |x: &Tensor, _: &[f64]| {
        let factor = |row: &Vec<f64>| if row[0] < -1.0 { f64::NAN } else { 0.0 };
        let factors: Vec<f64> = x.to_vec2()?.iter().map(factor).collect();
        Ok(x.broadcast_mul(&Tensor::new(factors, x.device())?.unsqueeze(1)?)?)
    });
    let likelihood = Likelihood { start: 1e-3, ..Likelihood::new(&sde, &field, Divergence::Exact, &table) };
    let outcomes: Vec<Outcome> =
        likelihood.log_density(&points()?, &addresses())?.iter().map(|one| one.outcome).collect();
    let (good, bad) = (Outcome::Finished, Outcome::NonFinite);
    assert_eq!(outcomes, [good, bad, good, good]);
    Ok(())
}

#[test]
fn a_table_that_does_not_fit_is_refused() -> Result<()> {
    let data = two_modes()?;
    let sde = Vp::STANDARD;
    let field = OracleField::noise(&data, &sde);
    let falling = grid(1e-3, 1.0, 10)?;
    let message = |table: &Table| {
        let likelihood =
            Likelihood { start: 1e-3, ..Likelihood::new(&sde, &field, Divergence::Exact, table) };
        points()
            .and_then(|x| likelihood.log_density(&x, &addresses()))
            .err()
            .map(|e| e.to_string())
            .unwrap_or_default()
    };
    let down = Tab { degree: 1 }.table(&sde, &falling)?;
    let told = message(&down);
    assert!(
        told.contains("from t = 0.001 to t = 1, as upward()") && told.contains("found from t = 1"),
        "{told}"
    );
    let elsewhere = upward(&Tab { degree: 1 }, &sde, &grid(0.1, 1.0, 10)?)?;
    assert!(message(&elsewhere).contains("found from t = 0.1"));
    let rules: [Box<dyn Multistep>; 3] = [
        Box::new(StochasticDdim { lambda: 1.0 }),
        Box::new(EulerMaruyama { lambda: 0.5 }),
        Box::new(Ddim { eta: 0.3, form: Form::Noise }),
    ];
    for rule in rules {
        let refused = upward(rule.as_ref(), &sde, &falling);
        assert!(refused.is_err_and(|e| e.to_string().contains("draws noise")), "{}", rule.name());
    }
    Ok(())
}
