//! Probes of the divergence on a known Jacobian: unbiased, with the variances that their documentation states, and what follows from them.

use candle_core::{DType, Device, Tensor};
use nalgebra::DMatrix;
use sde_core::noise::{BatchNoise, Law, Noise, Stream};
use sde_core::{FieldFn, Prediction};
use sde_solvers::Divergence;

const DIM: usize = 8;
const SAMPLES: u32 = 20_000;

/// A matrix without structure.
fn jacobian() -> DMatrix<f64> {
    let mut draws = Noise::new(11).draws(Stream::User, 0, 0);
    DMatrix::from_fn(DIM, DIM, |i, j| draws.normal() + if i == j { 1.5 } else { 0.0 })
}

/// Mean and variance of the estimates of many samples, each with its standard error.
fn moments(divergence: Divergence) -> [(f64, f64); 2] {
    let entries: Vec<f64> = jacobian().iter().copied().collect();
    // nalgebra stores columns: this is the transpose, so that x · this is J x.
    let transpose = Tensor::from_vec(entries, (DIM, DIM), &Device::Cpu).expect("a tensor");
    let field = FieldFn::new(Prediction::Velocity, |x: &Tensor, _: &[f64]| Ok(x.matmul(&transpose)?));
    let x = Tensor::zeros((SAMPLES as usize, DIM), DType::F64, &Device::Cpu).expect("a tensor");
    let noise = BatchNoise::new(Noise::new(4), 0, 0..SAMPLES);
    let probes = divergence.probes(&noise, &x).expect("probes");
    assert_eq!(probes.len(), divergence.products(DIM));
    let (_, trace) = divergence.value_and_divergence(&field, &x, &[0.5], &probes).expect("a divergence");
    let values = trace.to_vec1::<f64>().expect("numbers");
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let central = |k: i32| values.iter().map(|v| (v - mean).powi(k)).sum::<f64>() / n;
    let (second, fourth) = (central(2), central(4));
    [(mean, (second / n).sqrt()), (second, ((fourth - second * second) / n).sqrt())]
}

#[test]
fn they_are_unbiased_and_have_the_variances_that_are_stated() {
    let j = jacobian();
    let s = (&j + j.transpose()) * 0.5;
    let (square, trace) = (s.norm_squared(), s.trace());
    let off = 2.0 * (square - s.diagonal().norm_squared());
    let sphere = 2.0 * (DIM as f64 * square - trace * trace) / (DIM as f64 + 2.0);
    let (hutchinson, d) = (|law, probes| Divergence::Hutchinson { law, probes }, DIM as f64);
    let part = |k: f64| (d - k) / (d - 1.0) / k;
    let cases = [
        (hutchinson(Law::Rademacher, 4), off / 4.0),
        (hutchinson(Law::Normal, 4), 2.0 * square / 4.0),
        (Divergence::Antithetic { probes: 2 }, off * part(2.0)),
        (Divergence::Antithetic { probes: 4 }, off * part(4.0)),
        // Three independent pairs.
        (Divergence::Antithetic { probes: 6 }, off * part(2.0) / 3.0),
        (Divergence::Orthogonal { probes: 1 }, sphere),
        (Divergence::Orthogonal { probes: 4 }, sphere * part(4.0)),
    ];
    for (divergence, expected) in cases {
        let [(mean, mean_error), (variance, variance_error)] = moments(divergence);
        assert!(
            (mean - trace).abs() < 4.0 * mean_error,
            "{divergence:?}: {mean} ± {mean_error}, not {trace}"
        );
        let gap = (variance - expected).abs();
        assert!(gap < 4.0 * variance_error, "{divergence:?}: {variance} ± {variance_error}, not {expected}");
    }
    // What is stated says which is smaller, by far more than the errors of the measurement.
    assert!(off * part(4.0) < 0.6 * off / 4.0 && sphere * part(4.0) < 0.6 * 2.0 * square / 4.0);
}

#[test]
fn as_many_as_entries_are_exact() {
    for divergence in [Divergence::Antithetic { probes: DIM }, Divergence::Orthogonal { probes: 2 * DIM }] {
        let [(mean, _), (variance, _)] = moments(divergence);
        assert!((mean - jacobian().trace()).abs() < 1e-10 && variance < 1e-20, "{divergence:?}: {variance}");
    }
}

#[test]
fn probes_belong_to_their_samples_and_bad_numbers_are_refused() {
    let like = |n: usize| Tensor::zeros((n, 2, 3), DType::F64, &Device::Cpu).expect("a tensor");
    for divergence in [Divergence::Antithetic { probes: 4 }, Divergence::Orthogonal { probes: 9 }] {
        let of = |samples: Vec<u32>| {
            let noise = BatchNoise::new(Noise::new(1), 7, samples);
            let probes = divergence.probes(&noise, &like(noise.samples.len())).expect("probes");
            probes
                .iter()
                .map(|p| p.get(0).expect("a row").to_vec2::<f64>().expect("numbers"))
                .collect::<Vec<_>>()
        };
        assert_eq!(of(vec![3]), of(vec![3, 1, 2]));
        assert_ne!(of(vec![3]), of(vec![2]));
    }
    let noise = BatchNoise::new(Noise::new(1), 0, 0..1);
    let refused = [
        Divergence::Antithetic { probes: 3 },
        Divergence::Antithetic { probes: 0 },
        Divergence::Orthogonal { probes: 0 },
    ];
    for divergence in refused {
        assert!(divergence.probes(&noise, &like(1)).is_err(), "{divergence:?}");
    }
}
