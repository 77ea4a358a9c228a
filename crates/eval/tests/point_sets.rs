//! Transport and energy between point sets: other programs' numbers, shifts in closed form, equal laws, what is refused.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use sde_core::noise::{BatchNoise, Law, Noise, Stream};
use sde_data::read::npz::read_npz;
use sde_eval::{
    Error, Estimate, MOST_POINTS, Power, Result, Sinkhorn, Transport, energy_distance,
    sliced_wasserstein_squared, wasserstein,
};

const SINKHORN: Sinkhorn = Sinkhorn { epsilon: 1.0, tolerance: 1e-11, most_iterations: 20_000 };

fn golden(key: &str) -> Result<Tensor> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/metrics.npz");
    let array = read_npz(&path)?[key].to_f64();
    Ok(Tensor::from_vec(array.iter().copied().collect(), array.shape(), &Device::Cpu)?)
}

fn number(key: &str) -> Result<f64> {
    Ok(golden(key)?.flatten_all()?.to_vec1::<f64>()?[0])
}

fn normal(seed: u64, n: u32, dim: usize, shift: f64) -> Result<Tensor> {
    let noise = BatchNoise::new(Noise::new(seed), 0, 0..n);
    Ok((noise.tensor(Law::Normal, Stream::User, 0, &[dim], DType::F64, &Device::Cpu)? + shift)?)
}

fn within(estimate: Estimate, expected: f64, standard_errors: f64) -> bool {
    let bar = estimate.standard_error.unwrap_or(0.0);
    bar > 0.0 && (estimate.value - expected).abs() < standard_errors * bar
}

#[test]
fn reproduces_other_programs() -> Result<()> {
    let (x, y) = (golden("ot_P")?, golden("ot_S")?);
    let close = |found: f64, key: &str, tolerance: f64| -> Result<()> {
        let expected = number(key)?;
        assert!((found - expected).abs() < tolerance, "{key}: {found} against {expected}");
        Ok(())
    };
    close(wasserstein(&x, &y, Power::Two)?, "ot_W2sq", 1e-12)?;
    close(wasserstein(&x, &y, Power::One)?, "ot_W1", 1e-12)?;
    let sharp = Sinkhorn { epsilon: number("ot_sinkhorn_reg")?, ..SINKHORN };
    close(sharp.transport(&x, &y)?.cost, "ot_sinkhorn", 1e-7)?;
    close(sharp.divergence(&x, &y)?, "sinkhorn_divergence_0.1", 1e-9)?;
    close(SINKHORN.divergence(&x, &y)?, "sinkhorn_divergence_1.0", 1e-10)?;
    close(SINKHORN.divergence(&x, &golden("ot_S3")?)?, "sinkhorn_divergence_sizes", 1e-10)?;
    close(energy_distance(&x, &y)?.value, "energy_unbiased", 1e-13)?;
    Ok(())
}

/// Moving every point by s costs |s|² and nothing less, with entropy or without.
#[test]
fn a_shift_costs_its_square() -> Result<()> {
    let x = normal(1, 200, 3, 0.0)?;
    let y = (&x + 0.7)?;
    let expected = 3.0 * 0.49;
    assert!((wasserstein(&x, &y, Power::Two)? - expected).abs() < 1e-12);
    assert!((wasserstein(&x, &y, Power::One)? - expected.sqrt()).abs() < 1e-12);
    assert!((SINKHORN.divergence(&x, &y)? - expected).abs() < 1e-9);
    assert!(SINKHORN.divergence(&x, &x)?.abs() < 1e-9);
    Ok(())
}

#[test]
fn on_a_line_the_best_assignment_is_the_order() -> Result<()> {
    let (x, y) = (normal(1, 500, 1, 0.0)?, (normal(2, 500, 1, 0.2)? * 1.5)?);
    let line = Tensor::new(&[[1.0]], &Device::Cpu)?;
    let sorted = sliced_wasserstein_squared(&x, &y, &line)?;
    assert!((wasserstein(&x, &y, Power::Two)? - sorted).abs() < 1e-12);
    Ok(())
}

#[test]
fn shifted_laws_and_equal_ones() -> Result<()> {
    let (x, y, far) = (normal(3, 1600, 3, 0.0)?, normal(4, 1600, 3, 0.0)?, normal(5, 1600, 3, 0.4)?);
    let two = Transport { groups: 8, power: Power::Two };
    assert!(within(two.estimate(&x, &y)?, 0.0, 4.5));
    assert!(within(two.estimate(&x, &far)?, 3.0 * 0.16, 4.5));
    assert!(within(Transport { power: Power::One, ..two }.estimate(&x, &y)?, 0.0, 4.5));
    // The distance of the samples themselves is far from zero.
    let plain = wasserstein(&x.narrow(0, 0, 100)?, &y.narrow(0, 0, 100)?, Power::Two)?;
    assert!(plain > 10.0 * two.estimate(&x, &y)?.standard_error.unwrap_or(f64::NAN), "{plain}");
    let fast = Sinkhorn { tolerance: 1e-6, ..SINKHORN };
    assert!(within(fast.estimate(&x, &y, 8)?, 0.0, 4.5));
    assert!(within(fast.estimate(&x, &far, 8)?, 3.0 * 0.16, 4.5));
    assert!(within(energy_distance(&x, &y)?, 0.0, 4.0));
    Ok(())
}

/// In one dimension, 2 E|x − y| − E|x − x'| − E|y − y'| of N(0, 1) and N(δ, 1): with z ~ N(δ, 2).
#[test]
fn energy_distance_of_normals_in_closed_form() -> Result<()> {
    let (x, y) = (normal(6, 2000, 1, 0.0)?, normal(7, 1500, 1, 2.0)?);
    // E|z| = 2 φ(√2)·√2 + δ (2Φ(δ/√2) − 1), δ = 2: Φ(√2) = 0.921350396474857.
    let phi = (-1.0f64).exp() / std::f64::consts::TAU.sqrt();
    let across = 2.0 * 2f64.sqrt() * phi + 2.0 * (2.0 * 0.921_350_396_474_857 - 1.0);
    let expected = 2.0 * across - 4.0 / std::f64::consts::PI.sqrt();
    assert!(within(energy_distance(&x, &y)?, expected, 4.0));
    Ok(())
}

#[test]
fn what_makes_no_sense_is_refused() -> Result<()> {
    let (x, y) = (normal(1, 40, 2, 0.0)?, normal(2, 30, 2, 0.0)?);
    let message = wasserstein(&x, &y, Power::Two).map_err(|e| e.to_string());
    assert!(message.is_err_and(|text| text.contains("40 points") && text.contains("sliced")));
    let many = Tensor::zeros((MOST_POINTS + 1, 1), DType::F64, &Device::Cpu)?;
    assert!(matches!(wasserstein(&many, &many, Power::One), Err(Error::TooMany { found: 4097, .. })));
    let transport = Transport { groups: 8, power: Power::Two };
    assert!(transport.estimate(&x, &y).is_err());
    assert!(Transport { groups: 1, ..transport }.estimate(&x, &y).is_err());
    assert!(Transport { groups: 0, ..transport }.estimate(&x, &y).is_err());
    let hasty = Sinkhorn { most_iterations: 2, epsilon: 0.01, ..SINKHORN }.divergence(&x, &y);
    assert!(matches!(hasty, Err(Error::NoConvergence { .. })));
    for wrong in [
        Sinkhorn { epsilon: 0.0, ..SINKHORN },
        Sinkhorn { tolerance: f64::NAN, ..SINKHORN },
        Sinkhorn { most_iterations: 0, ..SINKHORN },
    ] {
        assert!(matches!(wrong.divergence(&x, &y), Err(Error::Mismatch { .. })));
    }
    assert!(SINKHORN.divergence(&x, &normal(1, 5, 3, 0.0)?).is_err());
    Ok(())
}
