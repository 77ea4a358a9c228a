//! Langevin diffusion of positions and velocities: its joint density and its flow against an independent solver.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use nalgebra::DMatrix;
use sde_core::noise::{BatchNoise, Law, Noise};
use sde_core::oracle::Mixture;
use sde_core::process::{Blurring, Cld, CldParameters};
use sde_core::{LinearSde, Op, OracleField};
use sde_eval::{Augmented, Average, Error, Likelihood, LogDensity, PointDensity, Prior, Result};
use sde_solvers::{Adaptive, Chart, Divergence, Outcome, ProbabilityFlow};

/// The density is then right to 5e-7; at 1e-11 it agrees with the peer to 8e-10, its own error.
const TIGHT: Adaptive = Adaptive::new(1e-8, 1e-8);
const START: f64 = 1e-3;

fn golden(name: &str) -> HashMap<String, Tensor> {
    let path = format!("{}/tests/golden/{name}.npz", env!("CARGO_MANIFEST_DIR"));
    Tensor::read_npz(path).expect("golden file").into_iter().collect()
}

fn mixture(arrays: &HashMap<String, Tensor>) -> Result<Mixture> {
    let (weights, means) = (arrays["w"].to_vec1::<f64>()?, arrays["mu"].to_vec2::<f64>()?);
    let dim = means[0].len();
    let matrix = |cov: &Vec<Vec<f64>>| DMatrix::from_fn(dim, dim, |i, j| cov[i][j]);
    let covariances: Vec<DMatrix<f64>> = arrays["cov"].to_vec3::<f64>()?.iter().map(matrix).collect();
    Ok(Mixture::new(&weights, &means, &covariances)?)
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
        let data = mixture(&arrays)?.lift(&cld)?;
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

/// The joint density of states at one time, known exactly.
struct Joint<'a>(OracleField<'a>, f64);

impl PointDensity for Joint<'_> {
    fn log_density(&self, x: &Tensor, _: &BatchNoise) -> Result<Vec<LogDensity>> {
        let told = |value| LogDensity {
            value: Some(value),
            standard_error: None,
            nfe: 1,
            outcome: Outcome::Finished,
        };
        Ok(self.0.log_density(x, &[self.1])?.into_iter().map(told).collect())
    }
    fn is_exact(&self) -> bool {
        true
    }
}

/// log N(x; 0, v I) of two coordinates.
fn normal(x: [f64; 2], v: f64) -> f64 {
    -(std::f64::consts::TAU * v).ln() - 0.5 * (x[0] * x[0] + x[1] * x[1]) / v
}

#[test]
fn the_bound_lacks_the_divergence_of_velocities_from_their_law() -> Result<()> {
    let (cld, variance) = (Cld::published()?, 0.3);
    let data = Mixture::diagonal(vec![0.0; 2], vec![variance; 2])?.lift(&cld)?;
    // Late enough for velocities to be correlated with positions and to have another variance than at t = 0.
    let t = 0.03;
    let signal = cld.signal(t);
    let spread = signal.mul(&Op::block([[variance, 0.0], [0.0, 0.0]]))?.mul(&signal.transpose())?;
    let v = spread.add(&cld.covariance(t))?.matrix(2)?;
    let at = [[0.4, -0.7], [1.1, 0.2]];
    let x = Tensor::new(&at, &Device::Cpu)?;
    let noise = BatchNoise::new(Noise::new(4), 3, 0..2);
    let started = cld.auxiliary().expect("velocities").variance;
    let (slope, left) = (v[(0, 1)] / v[(0, 0)], v[(1, 1)] - v[(0, 1)] * v[(0, 1)] / v[(0, 0)]);
    let joint = || Joint(OracleField::noise(&data, &cld), t);
    let draws = 4000;
    let logs = Augmented::new(&cld, joint(), draws, Average::Logs)?.log_density(&x, &noise)?;
    let densities = Augmented::new(&cld, joint(), draws, Average::Densities)?.log_density(&x, &noise)?;
    for (i, x) in at.into_iter().enumerate() {
        let whole = normal(x, v[(0, 0)]);
        // KL(N(0, γM) ‖ N(slope x, left)), coordinate by coordinate.
        let gap: f64 = x
            .iter()
            .map(|x| 0.5 * ((left / started).ln() + (started + (slope * x).powi(2)) / left - 1.0))
            .sum();
        let (found, error) = (logs[i].value.expect("a value"), logs[i].standard_error.expect("an error"));
        assert!((found - (whole - gap)).abs() < 4.0 * error, "{found} ± {error} for {}", whole - gap);
        assert!(error < 0.05 * gap, "{error} {gap}");
        let (found, error) =
            (densities[i].value.expect("a value"), densities[i].standard_error.expect("an error"));
        assert!((found - whole).abs() < 4.0 * error, "{found} ± {error} for {whole}");
        assert!(error < 0.2 * gap && logs[i].nfe == draws, "{error} {gap}");
    }
    Ok(())
}

#[test]
fn of_a_right_model_one_draw_is_the_density() -> Result<()> {
    let cld = Cld::published()?;
    let data = Mixture::diagonal(vec![0.6, -0.2], vec![0.25, 0.04])?;
    let states = data.lift(&cld)?;
    let field = OracleField::noise(&states, &cld);
    let flow = Likelihood::new(&cld, &field, Divergence::Exact, Adaptive::new(1e-6, 1e-6));
    let flow = Likelihood { prior: Prior::Exact(&states), chart: Chart::Clock, ..flow };
    let x = Tensor::new(&[[0.1, -0.3], [0.9, 0.1]], &Device::Cpu)?;
    let noise = BatchNoise::new(Noise::new(4), 0, 0..2);
    let found = Augmented::new(&cld, flow, 1, Average::Logs)?.log_density(&x, &noise)?;
    // At t = 1e-5 velocities have gained a variance of 8e-5 on 1e-2, and positions, whose own is 1e-6, know as little of them.
    let exact = OracleField::noise(&data, &sde_core::process::Vp::STANDARD).log_density(&x, &[1e-9])?;
    for (found, exact) in found.iter().zip(exact) {
        assert!((found.value.expect("a value") - exact).abs() < 0.03, "{found:?} {exact}");
    }
    Ok(())
}

#[test]
fn what_has_no_velocities_has_no_such_bound() -> Result<()> {
    let (vp, data) = (sde_core::process::Vp::STANDARD, Mixture::diagonal(vec![0.0; 2], vec![1.0; 2])?);
    let joint = || Joint(OracleField::noise(&data, &vp), 0.5);
    assert!(matches!(Augmented::new(&vp, joint(), 1, Average::Logs), Err(Error::Mismatch { .. })));
    let still = Cld::new(CldParameters { gamma: 0.0, jitter: 0.0, ..CldParameters::PUBLISHED })?;
    assert!(Augmented::new(&still, joint(), 1, Average::Logs).is_err());
    assert!(Augmented::new(&Cld::published()?, joint(), 0, Average::Logs).is_err());
    Ok(())
}

#[test]
fn random_probes_do_not_pay_for_the_turning_of_a_process() -> Result<()> {
    // Of normal data the control variate is the flow itself: one probe tells what all axes do.
    let blurring = Blurring::new((2, 3), 2.0, 0.01)?;
    let normal = Mixture::diagonal(vec![0.0; 6], vec![1.0; 6])?;
    let points = Tensor::new(
        vec![vec![0.3, -1.0, 0.2, 0.8, -0.4, 1.7], vec![0.0, 0.1, -0.6, 2.0, 0.5, -0.2]],
        &Device::Cpu,
    )?;
    let field = OracleField::noise(&normal, &blurring);
    let noise = BatchNoise::new(Noise::new(3), 0, 0..2);
    let probes = Divergence::Hutchinson { law: Law::Normal, probes: 1 };
    let of = |divergence| {
        values(&Likelihood::new(&blurring, &field, divergence, TIGHT).log_density(&points, &noise)?)
    };
    // The random and the exact divergence are solved to 1e-8 each, on other steps.
    assert!(gap(&of(probes)?, &of(Divergence::Exact)?)? < 1e-6);

    // Of other data it leaves the mean, and most of the spread goes. Without it a Rademacher probe has the variance (F_xv + F_vx)² of each coordinate at each
    // time, the same z all along: |∫β (1/M − 1) dt| = 12 nats.
    let cld = Cld::published()?;
    let data = Mixture::diagonal(vec![0.2, -0.1], vec![0.5, 0.3])?.lift(&cld)?;
    let field = OracleField::noise(&data, &cld);
    let copies = 64;
    let state = Tensor::new(vec![vec![0.4, -0.3, 0.1, 0.05]; copies], &Device::Cpu)?;
    let noise = BatchNoise::new(Noise::new(4), 0, 0..copies as u32);
    let solver = Adaptive::new(1e-5, 1e-5);
    let of = |divergence| -> Result<Vec<f64>> {
        let likelihood = Likelihood { start: START, ..Likelihood::new(&cld, &field, divergence, solver) };
        Ok(values(&likelihood.log_density(&state, &noise)?)?.to_vec1()?)
    };
    let exact = of(Divergence::Exact)?[0];
    let errors: Vec<f64> =
        of(Divergence::Hutchinson { law: Law::Rademacher, probes: 1 })?.iter().map(|v| v - exact).collect();
    let mean = errors.iter().sum::<f64>() / copies as f64;
    let spread = (errors.iter().map(|e| (e - mean).powi(2)).sum::<f64>() / (copies - 1) as f64).sqrt();
    assert!(spread < 2.0, "{spread}");
    // Four standard errors, and the solver's.
    assert!(mean.abs() < 4.0 * spread / (copies as f64).sqrt() + 1e-3, "{mean} ± {spread}");
    Ok(())
}
