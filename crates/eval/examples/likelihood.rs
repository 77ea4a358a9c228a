//! The negative log likelihood of a mixture by its probability flow, next to the closed form: what the divergence's
//! estimator costs and what it adds to the error bar.
//!
//! All rows measure the same 200 points, so "± points", the error bar of a population, is common to them; "± probes" is
//! the part that the estimator alone is responsible for, and the difference from the first row is to be judged by it.
//!
//! `cargo run --release -p sde-eval --example likelihood`
#![allow(clippy::print_stdout, reason = "an example that reports")]

use candle_core::{Device, Tensor};
use nalgebra::{DMatrix, DVector};
use sde_core::noise::{Law, Noise, Stream};
use sde_core::{OracleField, oracle::Mixture, process::Vp};
use sde_eval::{Estimate, Likelihood, Prior, Protocol, Result, nll_of_points};
use sde_solvers::{Adaptive, Divergence};

const POINTS: u32 = 200;
const DIM: usize = 4;

fn main() -> Result<()> {
    // Two Gaussians in four dimensions, stretched along the diagonal: covariance 0.04 (I + 2 · 1 1ᵀ / 4).
    let means = [vec![-1.0; DIM], vec![0.5; DIM]];
    let covariance = (DMatrix::identity(DIM, DIM) + DMatrix::repeat(DIM, DIM, 0.5)) * 0.04;
    let data = Mixture::new(&[1.0, 3.0], &means, &[covariance.clone(), covariance])?;
    let points: Vec<f64> = (0..POINTS).flat_map(|i| sample(&means, i)).collect();

    let sde = Vp::STANDARD;
    let field = OracleField::noise(&data, &sde);
    let x = Tensor::from_vec(points.clone(), (POINTS as usize, DIM), &Device::Cpu)?;
    let standard = Likelihood::new(&sde, &field, Divergence::Exact, Adaptive::new(1e-6, 1e-6));
    let marginal = data.marginal(&sde, standard.start)?;
    let density = |point: &[f64]| Ok(-marginal.at(point)?.log_density);
    let closed = Estimate::mean(&points.chunks(DIM).map(density).collect::<Result<Vec<_>>>()?)?;

    //                                      nats  ± points  ± probes   NFE
    // closed form                        0.5180    0.1040
    // exact divergence                   0.5180    0.1040         -    88
    // 1 Gaussian probe, 2 repeats        0.2791    0.2462    0.2025    89
    // 1 Rademacher probe, 2 repeats      0.6349    0.1263    0.0767    88
    // 16 Rademacher probes, 2 repeats    0.5337    0.1075    0.0205    88
    let error = |error: Option<f64>| error.map_or("-".into(), |e| format!("{e:.4}"));
    println!("{:<32}{:>9}{:>10}{:>10}{:>6}", "", "nats", "± points", "± probes", "NFE");
    println!("{:<32}{:>9.4}{:>10}", "closed form", closed.value, error(closed.standard_error));
    let hutchinson = |law, probes| Divergence::Hutchinson { law, probes };
    for (name, divergence, repeats) in [
        ("exact divergence", Divergence::Exact, 1),
        ("1 Gaussian probe, 2 repeats", hutchinson(Law::Normal, 1), 2),
        ("1 Rademacher probe, 2 repeats", hutchinson(Law::Rademacher, 1), 2),
        ("16 Rademacher probes, 2 repeats", hutchinson(Law::Rademacher, 16), 2),
    ] {
        let protocol = Protocol { noise: Noise::new(0), repeats, dequantisations: 1, batch: 100 };
        let likelihood = Likelihood { divergence, prior: Prior::Exact(&data), ..standard };
        let nll = nll_of_points(&likelihood, &x, &protocol, &mut |_| {})?;
        let (points, probes) = (error(nll.nats.standard_error), error(nll.estimator_error));
        println!("{name:<32}{:>9.4}{points:>10}{probes:>10}{:>6.0}", nll.nats.value, nll.nfe.mean);
    }
    Ok(())
}

/// Point `index` of the mixture.
fn sample(means: &[Vec<f64>; 2], index: u32) -> Vec<f64> {
    let mut draws = Noise::new(7).draws(Stream::Data, 0, index);
    let mean = DVector::from_column_slice(&means[usize::from(draws.uniform() > 0.25)]);
    // (I + 2 d dᵀ)^{1/2} = I + (√3 − 1) d dᵀ for the unit vector d of the diagonal.
    let z = DVector::from_fn(DIM, |_, _| draws.normal());
    let along = z.sum() / DIM as f64;
    (mean + (z.add_scalar((3f64.sqrt() - 1.0) * along)) * 0.2).as_slice().to_vec()
}
