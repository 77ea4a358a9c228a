//! Langevin diffusion of positions and velocities: its joint density and its flow against an independent solver.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use nalgebra::DMatrix;
use sde_core::OracleField;
use sde_core::noise::{BatchNoise, Noise};
use sde_core::oracle::Mixture;
use sde_core::process::{Cld, CldParameters};
use sde_eval::{Likelihood, LogDensity, Prior, Result};
use sde_solvers::{Adaptive, Chart, Divergence, ProbabilityFlow};

/// The density is then right to 5e-7; at 1e-11 it agrees with the peer to 8e-10, its own error.
const TIGHT: Adaptive = Adaptive::new(1e-8, 1e-8);
const START: f64 = 1e-3;

fn golden(name: &str) -> HashMap<String, Tensor> {
    let path = format!("{}/tests/golden/{name}.npz", env!("CARGO_MANIFEST_DIR"));
    Tensor::read_npz(path).expect("golden file").into_iter().collect()
}

/// The law of (x, v = 0), whose velocities the process spreads.
fn lifted(arrays: &HashMap<String, Tensor>) -> Result<Mixture> {
    let (weights, means) = (arrays["w"].to_vec1::<f64>()?, arrays["mu"].to_vec2::<f64>()?);
    let dim = means[0].len();
    let with_rest = |mean: &Vec<f64>| mean.iter().copied().chain(vec![0.0; dim]).collect::<Vec<f64>>();
    let block = |cov: &Vec<Vec<f64>>| {
        DMatrix::from_fn(2 * dim, 2 * dim, |i, j| if i.max(j) < dim { cov[i][j] } else { 0.0 })
    };
    let covariances: Vec<DMatrix<f64>> = arrays["cov"].to_vec3::<f64>()?.iter().map(block).collect();
    Ok(Mixture::new(&weights, &means.iter().map(with_rest).collect::<Vec<_>>(), &covariances)?)
}

fn values(found: &[LogDensity]) -> Result<Tensor> {
    let all: Vec<f64> = found.iter().map(|one| one.value.unwrap_or(f64::NAN)).collect();
    Ok(Tensor::new(all, &Device::Cpu)?)
}

fn gap(a: &Tensor, b: &Tensor) -> Result<f64> {
    Ok((a - b)?.abs()?.flatten_all()?.max(0)?.to_dtype(DType::F64)?.to_scalar()?)
}

#[test]
fn the_joint_density_and_the_flow_are_an_independent_solvers() -> Result<()> {
    for (set, law, jitter, chart) in [
        ("", "gmm8", 1e-6, Chart::Time),
        ("eps0_", "gmm8", 0.0, Chart::Clock),
        ("", "ani4", 1e-6, Chart::Clock),
    ] {
        let cld = Cld::new(CldParameters { jitter, ..CldParameters::PUBLISHED })?;
        let arrays = golden(&format!("pfode_cld_{set}{law}"));
        let data = lifted(&arrays)?;
        let field = OracleField::noise(&data, &cld);
        let at = &arrays["u0"];
        let closed = Tensor::new(field.log_density(at, &[START])?, &Device::Cpu)?;
        assert!(gap(&closed, &arrays["logp_closed_t0"])? < 1e-10, "{set}{law}");
        let likelihood =
            Likelihood { start: START, chart, ..Likelihood::new(&cld, &field, Divergence::Exact, TIGHT) };
        let exact = Likelihood { prior: Prior::Exact(&data), ..likelihood };
        let noise = BatchNoise::new(Noise::new(1), 0, 0..at.dim(0)? as u32);
        for (likelihood, key) in [(likelihood, "logp_ode_stdprior"), (exact, "logp_ode_exactprior")] {
            let found = values(&likelihood.log_density(at, &noise)?)?;
            let off = gap(&found, &arrays[key])?;
            assert!(off < 1e-6, "{set}{law} {key}: {off:e}");
        }
        let flow = ProbabilityFlow::new(&cld, &field, chart);
        let end = flow.solve(&TIGHT, &arrays["uT"], 1.0, START)?.y;
        let off = gap(&end, &arrays["u_best"])?;
        assert!(off < 1e-6, "{set}{law} {chart:?}: {off:e}");
    }
    Ok(())
}
