//! The cost of controlled paths: its gradient by both routes and by finite differences, and training that reaches log Z.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use sde_core::Target;
use sde_core::noise::{BatchNoise, Noise};
use sde_core::oracle::Mixture;
use sde_core::target::{Bridge, Control, ControlFn, FollmerDrift, TargetFn, gaussian};
use sde_data::Batch;
use sde_nets::{Builder, ControlConfig, ControlNet, Params, TimeFeatures};
use sde_train::adjoint::Route;
use sde_train::{Objective, PathCost, Result};

const BATCH: usize = 5;

fn config(gradient: bool) -> ControlConfig {
    let time = TimeFeatures::Fourier { std: 1.0, log: false, time_scale: 1.0, time_shift: 0.0 };
    ControlConfig { gradient, hidden: vec![8, 8], time_dim: 8, time, state: None }
}

fn task(gradient: bool, target: Arc<dyn Target>, route: Route) -> Result<(PathCost<ControlNet>, Params)> {
    let bridge = Bridge { steps: 12, horizon: 1.5, noise: 0.8, clip: 1e4 };
    let build = |b: &Builder| ControlNet::new(b, &config(gradient), target.dim(), bridge.horizon);
    let (control, params) = Params::initialise(Noise::new(3), DType::F64, &Device::Cpu, build)?;
    // Away from the start, where the last layers are zero.
    for (i, (name, var)) in params.iter().enumerate() {
        if name.ends_with("weight") {
            let count = var.elem_count();
            let shift: Vec<f64> = (0..count).map(|j| 0.2 * ((i + 3 * j) as f64).sin()).collect();
            let shift = Tensor::from_vec(shift, var.dims(), &Device::Cpu)?;
            var.set(&(var.as_tensor() + shift)?)?;
        }
    }
    Ok((PathCost { control, bridge, target, route }, params))
}

fn batch(dim: usize) -> Result<(Batch, BatchNoise)> {
    let x = Tensor::zeros((BATCH, dim), DType::F64, &Device::Cpu)?;
    Ok((Batch { x, labels: None, augment: None }, BatchNoise::new(Noise::new(4), 0, 0..BATCH as u32)))
}

/// An affine log density has a constant score, so that a constant score in the control hides no dependence.
fn slope() -> Arc<dyn Target> {
    Arc::new(TargetFn::new("slope", 2, None, |x: &[f64], score: &mut [f64]| {
        score.copy_from_slice(&[0.7, -0.4]);
        0.7 * x[0] - 0.4 * x[1]
    }))
}

fn entries(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(tensor.flatten_all()?.to_vec1()?)
}

#[test]
fn the_adjoint_is_backpropagation() -> Result<()> {
    for gradient in [false, true] {
        let target: Arc<dyn Target> = Arc::new(gaussian(vec![1.0, -0.5], vec![0.3, 0.6], 0.0)?);
        let (batch, noise) = batch(2)?;
        let (adjoint, params) = task(gradient, target.clone(), Route::Adjoint)?;
        let tape = PathCost { route: Route::Backpropagation, ..adjoint };
        let on_tape = tape.value(&batch, &noise)?;
        let adjoint = PathCost { route: Route::Adjoint, ..tape };
        let by_steps = adjoint.value(&batch, &noise)?;
        assert_eq!(entries(&by_steps.total)?, entries(&on_tape.total)?);
        assert_eq!(entries(&by_steps.total)?, entries(&adjoint.held_out(&batch, &noise)?.total)?);
        let (Some(a), Some(b)) = (&by_steps.gradients, &on_tape.gradients) else { panic!("gradients") };
        for (name, var) in params.iter() {
            let (Some(a), Some(b)) = (a.get(var), b.get(var)) else { panic!("no gradient of {name}") };
            let (a, b) = (entries(a)?, entries(b)?);
            let size = b.iter().fold(0.0f64, |s, v| s.max(v.abs()));
            assert!(size > 0.0, "{name}");
            assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-11 * size), "{name}");
        }
    }
    Ok(())
}

#[test]
fn gradients_are_those_of_differences() -> Result<()> {
    // Where the score in the control is a constant anyway: of PIS-NN for a Gaussian, of PIS-Grad for an affine log density.
    let normal: Arc<dyn Target> = Arc::new(gaussian(vec![1.0, -0.5], vec![0.3, 0.6], 0.0)?);
    for (gradient, target) in [(false, normal), (true, slope())] {
        let (batch, noise) = batch(2)?;
        let (cost, params) = task(gradient, target, Route::Adjoint)?;
        let Some(gradients) = cost.value(&batch, &noise)?.gradients else { panic!("gradients") };
        for (name, var) in params.iter() {
            let Some(found) = gradients.get(var) else { panic!("no gradient of {name}") };
            let (found, at) = (entries(found)?, entries(var)?);
            for i in [0, at.len() - 1] {
                let moved = |h: f64| {
                    let mut values = at.clone();
                    values[i] += h;
                    var.set(&Tensor::from_vec(values, var.dims(), &Device::Cpu)?)?;
                    Ok::<_, sde_train::Error>(entries(&cost.held_out(&batch, &noise)?.total)?[0])
                };
                let h = 1e-5;
                let difference = (moved(h)? - moved(-h)?) / (2.0 * h);
                moved(0.0)?;
                let error = (difference - found[i]).abs();
                assert!(error < 1e-7 * (1.0 + found[i].abs()), "{name}[{i}]: {difference} {}", found[i]);
            }
        }
    }
    Ok(())
}

#[test]
fn the_best_control_costs_minus_log_z() -> Result<()> {
    // The Föllmer drift's expected cost tends to −log Z; at 400 steps it is 0.0028169 above it, of which the term of mean zero makes noise.
    let bridge = Bridge { steps: 400, horizon: 1.0, noise: 1.0, clip: 1e4 };
    let mixture = Mixture::diagonal(vec![1.0, -0.5], vec![0.25; 2])?;
    let drift = FollmerDrift::new(&mixture, 1.0, 1.0)?;
    let control = ControlFn::blind(move |x: &Tensor, t, _| drift.control(x, t, None));
    let target = Arc::new(gaussian(vec![1.0, -0.5], vec![0.25; 2], 3.0)?);
    let cost = PathCost { control, bridge, target, route: Route::Adjoint };
    let x = Tensor::zeros((2000, 2), DType::F64, &Device::Cpu)?;
    let noise = BatchNoise::new(Noise::new(1), 0, 0..2000);
    let value = entries(&cost.held_out(&Batch { x, labels: None, augment: None }, &noise)?.total)?[0];
    // Without the term in ξ the cost of a path varies like its ½∫|u|², by about one.
    assert!((value + 3.0 - 0.0028).abs() < 5.0 / 2000f64.sqrt(), "{value}");
    Ok(())
}
