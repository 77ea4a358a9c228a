//! Paths onto a plane, by exact flows of Gaussians: the values that an independent computation found.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use sde_core::noise::{Noise, Stream};
use sde_core::oracle::Mixture;
use sde_core::process::{Clocked, Commuting, Vp};
use sde_core::{Basis, FieldFn, LinearSde, OracleField, Prediction, TimeGrid};
use sde_eval::{Plane, Result, approach};

fn starts(n: u32) -> Result<Tensor> {
    let noise = Noise::new(8);
    let rows: Vec<f64> = (0..n)
        .flat_map(|i| {
            let mut draws = noise.draws(Stream::User, 0, i);
            [draws.normal(), draws.normal(), draws.normal()]
        })
        .collect();
    Ok(Tensor::from_vec(rows, (n as usize, 3), &Device::Cpu)?)
}

#[test]
fn exact_flows_have_the_shape_of_an_independent_computation() -> Result<()> {
    // Tangential variances, λ, verticality and straightness, each of 2000 other points.
    let cases = [
        ([1.0, 1.0], [1.0, 1.0, 1.0], 1.0, 0.8708),
        ([0.25, 0.25], [1.0, 1.0, 1.0], 0.9184, 0.8758),
        ([0.25, 0.25], [0.5, 0.5, 2f64.sqrt()], 0.9377, 0.8917),
        ([4.0, 0.25], [1.0, 1.0, 1.0], 0.8649, 0.8925),
    ];
    let starts = starts(500)?;
    for ([u, v], rates, vertical, straight) in cases {
        let law = Mixture::diagonal(vec![0.0, 0.0, 2.0], vec![u, v, 1e-6])?;
        let noise = Commuting::fp_noise(Arc::new(Basis::axes(3)), rates.to_vec(), 1.0)?;
        let sde = Clocked::new(noise, Vp::STANDARD)?;
        let grid = TimeGrid::power(1.0, 1e-3, 60, 2.0)?;
        let plane = Plane { axis: 2, height: 2.0 };
        let found = approach(&sde, &OracleField::noise(&law, &sde), &starts, &grid, plane)?;
        // The other sample has four times the points.
        let close = |estimate: sde_eval::Estimate, expected: f64| {
            let error = estimate.standard_error.unwrap_or(0.0) * 1.25f64.sqrt();
            assert!(
                (estimate.value - expected).abs() < 4.0 * error + 2e-4,
                "{rates:?}: {found:?} {expected}"
            );
        };
        close(found.verticality, vertical);
        close(found.straightness, straight);
        assert_eq!(found.nfe, 240);
    }
    Ok(())
}

#[test]
fn the_sense_is_that_of_generation() -> Result<()> {
    // v = dx/dt of the forward process: away from z = 2, so that the way from t = 1 to 0 goes there.
    let forward = |sign: f64| {
        FieldFn::new(Prediction::Velocity, move |x: &Tensor, _t: &[f64]| {
            let plane = Tensor::new(&[[0.0, 0.0, 2.0]], &Device::Cpu)?;
            let only = Tensor::new(&[[0.0, 0.0, sign]], &Device::Cpu)?;
            Ok(x.broadcast_sub(&plane)?.broadcast_mul(&only)?)
        })
    };
    let grid = TimeGrid::uniform(1.0, 0.5, 20)?;
    for (sign, sense) in [(1.0, 1.0), (-1.0, 0.0)] {
        let (field, plane) = (forward(sign), Plane { axis: 2, height: 2.0 });
        let found = approach(&Vp::STANDARD as &dyn LinearSde, &field, &starts(50)?, &grid, plane)?;
        assert_eq!(found.sense.value, sense);
        assert!(
            (found.verticality.value - 1.0).abs() < 1e-12 && (found.straightness.value - 1.0).abs() < 1e-12
        );
    }
    let plane = Plane { axis: 3, height: 2.0 };
    assert!(approach(&Vp::STANDARD, &forward(1.0), &starts(2)?, &grid, plane).is_err());
    Ok(())
}
