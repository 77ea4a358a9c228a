//! The variational flow: its gradient against differences, and log Z of a Gaussian that it can match.

use candle_core::{DType, Device, Tensor};
use sde_core::noise::{BatchNoise, Noise};
use sde_core::target::{TargetSampler, gaussian};
use sde_core::{Target, TargetFn};
use sde_data::Batch;
use sde_nets::{CouplingFlow, FlowConfig, Params};
use sde_train::{AdamConfig, AdamKind, Decay, Objective, ReverseDivergence, VariationalFlow};

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn config() -> FlowConfig {
    FlowConfig { couplings: 4, hidden: vec![16], bound: 2.0 }
}

fn sampler(steps: u64) -> VariationalFlow {
    let optimiser =
        AdamConfig { kind: AdamKind::Adam, lr: 1e-2, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 };
    VariationalFlow { flow: config(), optimiser, steps, batch: 64, decay: Decay::Cosine, clip: 10.0 }
}

/// θ-gradients, through the target's own score, against central differences of the value: h = 1e-5, rounding 1e-11.
#[test]
fn the_gradient_goes_through_the_target() -> Outcome {
    let target = TargetFn::new("quartic", 3, None, |x: &[f64], score: &mut [f64]| {
        x.iter()
            .zip(score)
            .map(|(x, s)| {
                *s = -x.powi(3) + 1.0;
                x - 0.25 * x.powi(4)
            })
            .sum()
    });
    let build = |b: &sde_nets::Builder| CouplingFlow::new(b, &config(), 3);
    let (flow, params) = Params::initialise(Noise::new(1), DType::F64, &Device::Cpu, build)?;
    let objective = ReverseDivergence { flow: &flow, target: &target };
    let batch = Batch { x: Tensor::zeros((8, 1), DType::F64, &Device::Cpu)?, labels: None, augment: None };
    let noise = BatchNoise::new(Noise::new(2), 0, 0..8);
    let store = sde_nets::backward(&objective.value(&batch, &noise)?.total)?;
    let value = || -> Result<f64, Box<dyn std::error::Error>> {
        Ok(objective.value(&batch, &noise)?.total.to_scalar::<f64>()?)
    };
    let mut seen = 0;
    for (name, var) in params.iter() {
        let gradient = store.get(var).ok_or(name.to_owned())?.flatten_all()?.to_vec1::<f64>()?;
        let (before, dims) = (var.flatten_all()?.to_vec1::<f64>()?, var.dims().to_vec());
        for i in [0, before.len() / 2] {
            let at = |shift: f64| {
                let mut moved = before.clone();
                moved[i] += shift;
                var.set(&Tensor::from_vec(moved, dims.clone(), &Device::Cpu)?)?;
                value()
            };
            let difference = (at(1e-5)? - at(-1e-5)?) / 2e-5;
            at(0.0)?;
            assert!(
                (difference - gradient[i]).abs() < 1e-8 * difference.abs().max(1.0),
                "{name}, {i}: {difference} {}",
                gradient[i]
            );
            seen += usize::from(gradient[i] != 0.0);
        }
    }
    assert!(seen > 10, "{seen}");
    Ok(())
}

#[test]
fn log_z_of_a_gaussian() -> Outcome {
    let target = gaussian(vec![1.0, -0.5, 0.3], vec![0.25, 1.5, 0.6], 3.5)?;
    let drawn = sampler(600).draw(&target, 4000, Noise::new(5))?;
    let weights = drawn.weights.as_ref().ok_or("no weights")?;
    let log = weights.log_mean();
    let error = log.standard_error.ok_or("no error")?;
    assert!((log.value - 3.5).abs() < 5.0 * error && error < 0.01, "{log:?}");
    // The bound is below log Z by KL(q ‖ μ), small once fitted; its own error is the deviation of log w over √N.
    let bound = drawn.bound.ok_or("no bound")?;
    assert!(bound < 3.5 + 5.0 * error && bound > 3.45, "{bound}");
    assert_eq!(drawn.evaluations, 600 * 64 + 4000);
    // Before any update q is N(0, I): the weights are still exact, and worth far less.
    let raw = sampler(0).draw(&target, 4000, Noise::new(5))?;
    let raw = raw.weights.as_ref().ok_or("no weights")?.log_mean();
    assert!((raw.value - 3.5).abs() < 5.0 * raw.standard_error.ok_or("no error")?, "{raw:?}");
    assert!(target.log_normaliser() == Some(3.5));
    Ok(())
}

/// On a half line half of the draws of N(0, I) weigh nothing, and the others say Z = √(2π)/2: the final draw takes what no gradient could.
#[test]
fn draws_without_density_weigh_nothing() -> Outcome {
    let half = TargetFn::new("half", 2, None, |x: &[f64], score: &mut [f64]| {
        score.iter_mut().zip(x).for_each(|(s, x)| *s = -x);
        if x[0] < 0.0 { f64::NAN } else { -0.5 * (x[0] * x[0] + x[1] * x[1]) }
    });
    let drawn = sampler(0).draw(&half, 4000, Noise::new(5))?;
    let expected = std::f64::consts::TAU.ln() - 2f64.ln();
    // A share of one half has the relative error 1/√N.
    let log = drawn.log_normaliser.ok_or("no log Z")?;
    assert!((log - expected).abs() < 5.0 / 4000f64.sqrt() && drawn.bound.is_none(), "{log} {expected}");
    let message = |sampler: VariationalFlow, samples| {
        sampler.draw(&half, samples, Noise::new(5)).err().map(|e| e.to_string()).unwrap_or_default()
    };
    for clip in [0.0, -1.0, f64::NAN] {
        let found = message(VariationalFlow { clip, ..sampler(0) }, 10);
        assert!(found.contains("clip") && found.contains("positive"), "{found}");
    }
    assert!(message(sampler(0), 0).contains("samples"));
    Ok(())
}
