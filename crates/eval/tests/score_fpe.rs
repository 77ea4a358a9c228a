//! The density, the divergence and the bounds that a score's own equation gives, against values computed to twelve digits.

use candle_core::{Device, Tensor};
use nalgebra::DMatrix;
use sde_core::noise::{Noise, Stream};
use sde_core::oracle::Mixture;
use sde_core::process::{Ve, Vp};
use sde_core::{Field, FieldFn, LinearSde, OracleField, Prediction, ScalarSde};
use sde_eval::Result;
use sde_eval::score::{
    Directions, Known, Noised, Steps, Theory, TheoryGrid, density_by_generator, fokker_planck,
    fokker_planck_residual, generator, time_nodes,
};

/// ⅕ N((−5, −5), I) + ⅘ N((5, 5), I).
fn two_modes() -> Result<Mixture> {
    let identity = DMatrix::identity(2, 2);
    Ok(Mixture::new(&[0.2, 0.8], &[vec![-5.0, -5.0], vec![5.0, 5.0]], &[identity.clone(), identity])?)
}

fn rows(values: &[[f64; 2]]) -> Result<Tensor> {
    Ok(Tensor::from_vec(values.concat(), (values.len(), 2), &Device::Cpu)?)
}

/// c times the score of data N(0, v₀ I) under VP.
fn scaled(c: f64, v0: f64) -> impl Field {
    FieldFn::new(Prediction::Score, move |u: &Tensor, t: &[f64]| {
        let v = Vp::STANDARD.alpha(t[0]).powi(2) * v0 + Vp::STANDARD.sigma(t[0]).powi(2);
        Ok(u.affine(-c / v, 0.0)?)
    })
}

#[test]
fn the_density_is_the_integral_of_its_rate() -> Result<()> {
    let law = two_modes()?;
    let x = rows(&[[1.0, -2.0], [0.3, 0.4], [-4.0, -5.5], [6.0, 4.0]])?;
    // VE, at t = 1e-5.
    let golden = [-25.944983067724, -23.683729873541, -4.072352486482, -3.061020622725];
    for (sde, golden) in [(&Ve::STANDARD as &dyn LinearSde, Some(golden)), (&Vp::STANDARD, None)] {
        let field = OracleField::noise(&law, sde);
        let end = field.log_density(&x, &[1.0])?;
        let start = field.log_density(&x, &[1e-5])?;
        let found = density_by_generator(sde, &field, &x, (1e-5, 1.0), 24)?;
        for (i, found) in found.iter().enumerate() {
            assert!((end[i] + found - start[i]).abs() < 1e-9, "{i}: {}", end[i] + found - start[i]);
            assert!(golden.is_none_or(|golden| (end[i] + found - golden[i]).abs() < 1e-9), "{i}");
        }
    }
    // Its rate at one place and time.
    let there = rows(&[[0.3, 0.4]])?;
    for (sde, t, expected) in
        [(&Ve::STANDARD as &dyn LinearSde, 0.6, 60.4599663), (&Vp::STANDARD, 0.3, 53.4968162)]
    {
        let found = generator(sde, &OracleField::noise(&law, sde), &there, t)?[0];
        assert!((found - expected).abs() < 1e-6, "{found}");
    }
    Ok(())
}

/// States of N(0, V I) in the plane that have its second moments: everything here is quadratic.
fn cubature(t: f64) -> Result<Tensor> {
    let v = Vp::STANDARD.alpha(t).powi(2) * 0.25 + Vp::STANDARD.sigma(t).powi(2);
    let r = (2.0 * v).sqrt();
    rows(&[[r, 0.0], [-r, 0.0], [0.0, r], [0.0, -r]])
}

#[test]
fn the_divergence_of_a_flow_is_the_sum_of_its_terms() -> Result<()> {
    let law = Mixture::diagonal(vec![0.0; 2], vec![0.25; 2])?;
    let field = scaled(1.1, 0.25);
    let known = Known { sde: &Vp::STANDARD, field: &field, law: &law, states: &cubature };
    let grid = TheoryGrid { panels: 6, path_steps: 60, places: 3 };
    // Times begin at 1e-5, and the golden integrals at 0: on so short a way they are straight lines. 60 steps of a path leave 2e-8.
    let [found, later] = [1e-5, 2e-5].map(|from| known.theory((from, 1.0), grid, Steps::DOUBLE));
    let (mut found, later) = (found?, later?);
    for (value, later) in [
        (&mut found.matching, later.matching),
        (&mut found.difference, later.difference),
        (&mut found.fisher, later.fisher),
        (&mut found.residual, later.residual),
    ] {
        *value += *value - later;
    }
    let golden = Theory {
        end: 5.2455e-10,
        matching: 0.114362619713,
        difference: 0.880069156631,
        fisher: 11.036948290958,
        residual: 5.29407,
        generator: f64::NAN,
    };
    let near = |found: f64, expected: f64, off: f64| (found / expected - 1.0).abs() < off;
    assert!((found.end - golden.end).abs() < 1e-12, "{}", found.end);
    assert!(near(found.matching, golden.matching, 1e-7), "{}", found.matching);
    assert!(near(found.difference, golden.difference, 1e-7), "{}", found.difference);
    assert!(near(found.fisher, golden.fisher, 1e-7), "{}", found.fisher);
    assert!(near(found.residual, golden.residual, 1e-5), "{}", found.residual);
    assert!(near(found.divergence(), 0.994431776867, 1e-7), "{}", found.divergence());
    assert!(found.difference.powi(2) <= found.matching * found.fisher && found.generator > 0.0);
    Ok(())
}

#[test]
fn the_residual_of_a_scaled_score_has_the_known_mean() -> Result<()> {
    let law = Mixture::diagonal(vec![0.0; 2], vec![0.25; 2])?;
    let draws: Vec<f64> =
        (0..8000).flat_map(|i| law.sample(&mut Noise::new(3).draws(Stream::User, 0, i))).collect();
    let data = Tensor::from_vec(draws, (8000, 2), &Device::Cpu)?;
    let field = scaled(1.1, 0.25);
    let points = Noised { sde: &Vp::STANDARD, field: &field, data: &data, noise: Noise::new(0), batch: 8000 };
    let norm = fokker_planck(&points, 0.5, Directions::Axes, Steps::DOUBLE)?
        .norm
        .expect("along axes there is a norm");
    let error = norm.standard_error.expect("of many points there is an error");
    assert!((norm.value - 0.759294914809).abs() < 4.0 * error && error < 0.01, "{} ± {error}", norm.value);
    Ok(())
}

#[test]
fn residuals_add_up_to_what_a_score_departs_from_a_gradient_by() -> Result<()> {
    // Proposition 4.4: s(x, t) − ∇Φ(x, t) = ∫ ϵ dτ from where s is the score, Φ = log q + ∫ L dτ. Here s is the score at t' and departs
    // from it by (t − t')(A x + c), A antisymmetric: not a gradient.
    let (from, to, v0) = (0.2, 0.7, 0.25);
    let vp = Vp::STANDARD;
    let variance = move |t: f64| vp.alpha(t).powi(2) * v0 + vp.sigma(t).powi(2);
    let field = FieldFn::new(Prediction::Score, move |u: &Tensor, t: &[f64]| {
        let (d, v) = (t[0] - from, variance(t[0]));
        let matrix = Tensor::from_vec(vec![-1.0 / v, -0.4 * d, 0.4 * d, -1.0 / v], (2, 2), &Device::Cpu)?;
        Ok(u.matmul(&matrix)?.broadcast_add(&Tensor::from_vec(vec![0.5 * d, -d], (1, 2), &Device::Cpu)?)?)
    });
    let nodes = time_nodes(&vp, (from, to), 4)?;
    let x = [0.7, -0.4];
    let at = rows(&[x])?;
    let mut gathered = [0.0; 2];
    for &(t, weight) in &nodes {
        let epsilon =
            fokker_planck_residual(&vp, &field, &at, t, Steps::DOUBLE)?.flatten_all()?.to_vec1::<f64>()?;
        gathered.iter_mut().zip(epsilon).for_each(|(sum, e)| *sum += weight * e);
    }
    // Φ is quadratic, so central differences of it are exact.
    let potential = |x: [f64; 2]| -> Result<f64> {
        let mut sum = -0.5 * (x[0] * x[0] + x[1] * x[1]) / variance(from);
        for &(t, weight) in &nodes {
            sum += weight * generator(&vp, &field, &rows(&[x])?, t)?[0];
        }
        Ok(sum)
    };
    let score = field.eval(&at, &[to])?.flatten_all()?.to_vec1::<f64>()?;
    for i in 0..2 {
        let moved = |h: f64| {
            let mut x = x;
            x[i] += h;
            potential(x)
        };
        let slope = (moved(0.5)? - moved(-0.5)?) / 1.0;
        let departs = score[i] - slope;
        assert!(
            (departs - gathered[i]).abs() < 1e-8 && departs.abs() > 1e-3,
            "{i}: {departs} and {}",
            gathered[i]
        );
    }
    Ok(())
}
