//! Flows: there and back, log-determinants against finite differences, densities that integrate to one.

use candle_core::{DType, Device, Tensor};
use nalgebra::DMatrix;
use sde_core::noise::{BatchNoise, Law, Noise, Stream};
use sde_nets::{CouplingFlow, FlowConfig, Params, Result};

fn config() -> FlowConfig {
    FlowConfig { couplings: 5, hidden: vec![16, 16], bound: 2.0 }
}

/// A flow with parameters of N(0, s²), far from the identity.
fn flow(dim: usize, s: f64) -> Result<CouplingFlow> {
    let (flow, params) = Params::initialise(Noise::new(1), DType::F64, &Device::Cpu, |b| {
        CouplingFlow::new(b, &config(), dim)
    })?;
    for (i, (_, var)) in params.iter().enumerate() {
        let noise = BatchNoise::new(Noise::new(2), i as u32, 0..1);
        let drawn = noise.tensor(Law::Normal, Stream::User, 0, var.dims(), DType::F64, &Device::Cpu)?;
        var.set(&(drawn.squeeze(0)? * s)?)?;
    }
    Ok(flow)
}

fn points(count: u32, dim: usize) -> Result<Tensor> {
    let noise = BatchNoise::new(Noise::new(3), 0, 0..count);
    Ok(noise.tensor(Law::Normal, Stream::User, 0, &[dim], DType::F64, &Device::Cpu)?)
}

fn largest(tensor: &Tensor) -> Result<f64> {
    Ok(tensor.abs()?.flatten_all()?.max(0)?.to_scalar::<f64>()?)
}

#[test]
fn there_and_back_is_nothing() -> Result<()> {
    for dim in [2, 5] {
        let (flow, z) = (flow(dim, 0.3)?, points(40, dim)?);
        let there = flow.forward(&z)?;
        let back = flow.inverse(&there.points)?;
        assert!(largest(&(&there.points - &z)?)? > 0.5);
        assert!(largest(&(back.points - &z)?)? < 1e-12);
        assert!(largest(&(back.log_determinant + there.log_determinant)?)? < 1e-12);
    }
    Ok(())
}

/// Central differences with h = 1e-5: a truncation of h² times third derivatives, rounding of 1e-16/h.
#[test]
fn log_determinants_are_those_of_the_jacobian() -> Result<()> {
    for dim in [2, 5] {
        let (flow, z) = (flow(dim, 0.3)?, points(6, dim)?);
        let expected = flow.forward(&z)?.log_determinant.to_vec1::<f64>()?;
        for (i, expected) in expected.iter().enumerate() {
            let at = z.narrow(0, i, 1)?;
            let mut jacobian = DMatrix::zeros(dim, dim);
            for k in 0..dim {
                let mut step = vec![0.0; dim];
                step[k] = 1e-5;
                let step = Tensor::from_slice(&step, (1, dim), &Device::Cpu)?;
                let up = flow.forward(&(&at + &step)?)?.points;
                let column = ((up - flow.forward(&(&at - &step)?)?.points)? / 2e-5)?;
                jacobian.set_column(k, &nalgebra::DVector::from_vec(column.squeeze(0)?.to_vec1::<f64>()?));
            }
            let found = jacobian.determinant().abs().ln();
            assert!((found - expected).abs() < 1e-7, "{dim}, {i}: {found} {expected}");
        }
    }
    Ok(())
}

#[test]
fn the_density_integrates_to_one() -> Result<()> {
    let flow = flow(2, 0.15)?;
    let (side, reach) = (600, 15.0);
    let step = 2.0 * reach / f64::from(side);
    let place = |i: u32| -reach + (f64::from(i) + 0.5) * step;
    let grid: Vec<f64> = (0..side).flat_map(|i| (0..side).flat_map(move |j| [i, j])).map(place).collect();
    let grid = Tensor::from_vec(grid, ((side * side) as usize, 2), &Device::Cpu)?;
    let total = flow.log_density(&grid)?.exp()?.sum_all()?.to_scalar::<f64>()? * step * step;
    // The midpoint rule of a smooth density that vanishes at the edges.
    assert!((total - 1.0).abs() < 1e-3, "{total}");
    Ok(())
}

#[test]
fn a_new_flow_is_the_identity_and_nonsense_is_refused() -> Result<()> {
    let build = |config: FlowConfig, dim| {
        Params::initialise(Noise::new(1), DType::F64, &Device::Cpu, |b| CouplingFlow::new(b, &config, dim))
    };
    let (new, _) = build(config(), 3)?;
    let z = points(4, 3)?;
    assert!(largest(&(new.forward(&z)?.points - &z)?)? < 1e-4);
    for (config, dim) in [
        (FlowConfig { couplings: 0, ..config() }, 3),
        (FlowConfig { hidden: vec![], ..config() }, 3),
        (FlowConfig { bound: 0.0, ..config() }, 3),
        (config(), 1),
    ] {
        assert!(build(config, dim).is_err());
    }
    assert!(new.forward(&points(4, 2)?).is_err());
    Ok(())
}
