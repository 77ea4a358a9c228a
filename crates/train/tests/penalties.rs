//! Penalties on paths in many dimensions, where the Jacobian is met by probes: six copies of a law whose closed forms are known, and
//! finite differences of everything that depends on the process.

#[path = "support/linear.rs"]
mod linear;

use candle_core::{DType, Device, Tensor};
use linear::{Linear, host};
use nalgebra::{DMatrix, DVector};
use sde_core::noise::{BatchNoise, Noise};
use sde_data::Batch;
use sde_nets::{OrthogonalConfig, Params, Weights};
use sde_train::loss::{PathPenalty, Times};
use sde_train::{Family, Forward, ForwardConfig, Result};

const COPIES: usize = 6;
const DIM: usize = 3 * COPIES;
const OMEGA: [f64; 3] = [0.7, -0.4, 1.1];

/// A matrix in each place of the diagonal.
fn copies(block: &DMatrix<f64>) -> DMatrix<f64> {
    DMatrix::identity(COPIES, COPIES).kronecker(block)
}

fn exact_score(b: f64) -> (Linear, DVector<f64>, DMatrix<f64>) {
    let m = DVector::from_vec(vec![0.5, -1.0, 0.2]);
    let s = DMatrix::from_row_slice(3, 3, &[0.5, 0.2, 0.0, 0.2, 0.8, -0.1, 0.0, -0.1, 0.3]);
    let [u, v, w] = OMEGA;
    let omega = DMatrix::from_row_slice(3, 3, &[0.0, u, v, -u, 0.0, w, -v, -w, 0.0]);
    let psi = (&omega * -b).exp() * (-0.5 * b).exp();
    let marginal = &psi * &s * psi.transpose() + DMatrix::identity(3, 3) * (1.0 - (-b).exp());
    let repeated = |v: DVector<f64>| DVector::from_fn(DIM, |i, _| v[i % 3]);
    let model = Linear { w: copies(&marginal.try_inverse().expect("an inverse")), m: repeated(&psi * &m) };
    (model, repeated(m), copies(&s.cholesky().expect("a factor").l()))
}

fn process(family: Family, values: Option<Weights>) -> Result<(Forward, Params)> {
    let config = ForwardConfig { beta_0: 0.1, beta_1: 20.0, family };
    let build = |b: &sde_nets::Builder| Forward::new(b, &config, &[DIM]);
    Ok(match values {
        Some(weights) => Params::restore(&weights, DType::F64, &Device::Cpu, build)?,
        None => Params::initialise(Noise::new(3), DType::F64, &Device::Cpu, build)?,
    })
}

#[test]
fn many_dimensions_have_the_closed_forms_of_their_parts() -> Result<()> {
    let b = 0.8;
    let (model, m, l) = exact_score(b);
    let mut upper = Vec::new();
    for i in 0..DIM {
        for j in i + 1..DIM {
            let same = i / 3 == j / 3;
            // Places (0, 1), (0, 2), (1, 2) of a block.
            upper.push(if same { OMEGA[i % 3 + j % 3 - 1] } else { 0.0 });
        }
    }
    let weights: Weights = [("upper".to_owned(), host(&upper, &[upper.len()]))].into_iter().collect();
    let (forward, _) = process(Family::Rotation { std: 0.0 }, Some(weights))?;
    // Sigma points of (x₀, ε), exact for second moments; over and over, for the probes.
    let (mut data, mut eps) = (Vec::new(), Vec::new());
    for sign in [((2 * DIM) as f64).sqrt(), -((2 * DIM) as f64).sqrt()] {
        for i in 0..DIM {
            data.extend((&m + l.column(i) * sign).iter());
            eps.extend([0.0; DIM]);
            data.extend(m.iter());
            eps.extend((0..DIM).map(|j| if i == j { sign } else { 0.0 }));
        }
    }
    let (points, rounds) = (4 * DIM, 20);
    let count = points * rounds;
    let x = host(&data.repeat(rounds), &[count, DIM]);
    let flow = forward.flow(DType::F64)?;
    let at = flow.diffuse(&x, &host(&eps.repeat(rounds), &[count, DIM]), &vec![b; count])?;
    let batch = Batch { x, labels: None, augment: None };
    let (t, bs, rates) = (vec![0.5; count], vec![b; count], vec![1.0; count]);
    let times = Times { t: &t, b: &bs, rate: &rates };
    let noise = BatchNoise::new(Noise::new(1), 0, 0..count as u32);
    let of = |penalty: PathPenalty| -> Result<Vec<f64>> {
        Ok(penalty.of(&flow, &model, &batch, &at, times, &noise)?.to_vec1()?)
    };
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let kinetic = mean(&of(PathPenalty { kinetic: 1.0, jacobian: 0.0 })?) / COPIES as f64;
    assert!((kinetic - 4.185219940472).abs() < 1e-10, "{kinetic}");
    let probed = of(PathPenalty { kinetic: 0.0, jacobian: 1.0 })?;
    let jacobian = mean(&probed);
    let variance = probed.iter().map(|v| (v - jacobian).powi(2)).sum::<f64>() / count as f64;
    let error = (variance / count as f64).sqrt();
    let expected = COPIES as f64 * 3.811331453844;
    assert!((jacobian - expected).abs() < 4.0 * error && error < 0.01 * expected, "{jacobian} ± {error}");
    Ok(())
}

#[test]
fn gradients_of_probed_penalties_are_those_of_finite_differences() -> Result<()> {
    let (model, ..) = exact_score(0.8);
    let map = OrthogonalConfig::Exponential { std: 0.8 };
    let families =
        [Family::Noise { map, std: 0.5, normalise: false, floor: 0.0 }, Family::Drift { map, std: 0.5 }];
    let wave = |phase: f64| (0..2 * DIM).map(|k| (1.1 * k as f64 + phase).sin()).collect::<Vec<_>>();
    let (x, eps) = (host(&wave(0.2), &[2, DIM]), host(&wave(1.0), &[2, DIM]));
    let noise = BatchNoise::new(Noise::new(7), 0, 0..2);
    let batch = Batch { x: x.clone(), labels: None, augment: None };
    let times = Times { t: &[0.3, 0.6], b: &[0.4, 2.0], rate: &[1.0, 3.0] };
    for family in families {
        let (forward, params) = process(family, None)?;
        for penalty in
            [PathPenalty { kinetic: 1.0, jacobian: 0.0 }, PathPenalty { kinetic: 0.0, jacobian: 1.0 }]
        {
            // The score is linear: its Jacobian is the constant that the penalty takes it for.
            let total = || -> Result<Tensor> {
                let flow = forward.flow(DType::F64)?;
                let at = flow.diffuse(&x, &eps, times.b)?;
                Ok(penalty.of(&flow, &model, &batch, &at, times, &noise)?.sum_all()?)
            };
            let gradients = total()?.backward()?;
            for (name, var) in params.iter() {
                let gradient = gradients.get(var).expect("a gradient").flatten_all()?.to_vec1::<f64>()?;
                let values = var.flatten_all()?.to_vec1::<f64>()?;
                let place = values.len() / 2;
                let at = |step: f64| -> Result<f64> {
                    let mut moved = values.clone();
                    moved[place] += step;
                    var.set(&host(&moved, var.dims()))?;
                    Ok(total()?.to_scalar()?)
                };
                let h = 1e-4;
                let expected = (at(h)? - at(-h)?) / (2.0 * h);
                var.set(&host(&values, var.dims()))?;
                let gap = (gradient[place] - expected).abs();
                assert!(
                    gap < 1e-5 * (1.0 + expected.abs()),
                    "{family:?} {penalty:?} {name}: {gap:e} {expected}"
                );
            }
        }
    }
    Ok(())
}
