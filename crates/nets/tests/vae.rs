//! The autoencoder: its bound below the evidence by quadrature, its posterior's score by differences, its evidence as the target's normaliser.

use candle_core::{DType, Device, Tensor};
use sde_core::Target;
use sde_core::noise::{BatchNoise, Law, Noise, Stream};
use sde_nets::{Builder, Params, Result, Vae, VaeConfig, VaePosterior};

const DIM: usize = 6;

fn network(code: usize) -> Result<Vae> {
    let config = VaeConfig { code, hidden: vec![5, 4] };
    Ok(Params::initialise(Noise::new(2), DType::F64, &Device::Cpu, |b: &Builder| Vae::new(b, &config, DIM))?
        .0)
}

fn example() -> Result<Tensor> {
    Ok(Tensor::new(&[[1.0, 0.0, 0.0, 1.0, 1.0, 0.0]], &Device::Cpu)?)
}

fn entries(x: &Tensor) -> Result<Vec<f64>> {
    Ok(x.flatten_all()?.to_vec1()?)
}

/// log ∫ p(z) p(x | z) dz of one entry by the trapezium rule.
fn evidence(x: &Tensor) -> Result<f64> {
    let target = VaePosterior::new(network(1)?, x.clone())?;
    let n = 2000;
    let z: Vec<f64> = (0..=n).map(|i| -10.0 + 20.0 * f64::from(i) / f64::from(n)).collect();
    let density = target.finite_log_density(&Tensor::from_vec(z, (n as usize + 1, 1), &Device::Cpu)?)?;
    Ok((entries(&density.value)?.iter().map(|v| v.exp()).sum::<f64>() * 20.0 / f64::from(n)).ln())
}

#[test]
fn the_evidence_is_a_law_of_examples_and_the_bound_is_below() -> Result<()> {
    // Over all 2⁶ examples the evidence adds up to one.
    let mut total = 0.0;
    for bits in 0..1u32 << DIM {
        let x: Vec<f64> = (0..DIM).map(|i| f64::from(bits >> i & 1)).collect();
        total += evidence(&Tensor::from_vec(x, (1, DIM), &Device::Cpu)?)?.exp();
    }
    assert!((total - 1.0).abs() < 1e-10, "{total}");

    let n = 4000;
    let x = example()?.repeat((n, 1))?;
    let noise = BatchNoise::new(Noise::new(1), 0, 0..n as u32);
    let xi = noise.tensor(Law::Normal, Stream::User, 0, &[1], DType::F64, &Device::Cpu)?;
    let bound = entries(&network(1)?.bound(&x, &xi)?)?;
    let mean = bound.iter().sum::<f64>() / n as f64;
    let log_evidence = evidence(&example()?)?;
    // The gap is KL(q ‖ posterior) > 0; by quadrature here.
    let vae = network(1)?;
    let (m, v) = vae.encode(&example()?)?;
    let (m, v) = (entries(&m)?[0], entries(&v)?[0]);
    let target = VaePosterior::new(network(1)?, example()?)?;
    let mut gap = 0.0;
    for i in 0..=2000 {
        let z = -10.0 + 0.01 * f64::from(i);
        let q = -0.5 * ((z - m).powi(2) / v.exp() + v + std::f64::consts::TAU.ln());
        let p = entries(&target.log_density(&Tensor::new(&[[z]], &Device::Cpu)?)?.value)?[0] - log_evidence;
        gap += 0.01 * q.exp() * (q - p);
    }
    let variance = bound.iter().map(|b| (b - mean).powi(2)).sum::<f64>() / (n - 1) as f64;
    let error = (variance / n as f64).sqrt();
    assert!(gap > 0.0 && (log_evidence - gap - mean).abs() < 5.0 * error, "{log_evidence} {gap} {mean}");
    Ok(())
}

#[test]
fn the_posterior_has_the_gradient_as_its_score() -> Result<()> {
    let target = VaePosterior::new(network(3)?, example()?)?;
    let z = [0.3, -1.2, 0.7];
    let at = |z: [f64; 3]| target.finite_log_density(&Tensor::new(&[z], &Device::Cpu)?);
    let score = entries(&at(z)?.score)?;
    for i in 0..3 {
        let moved = |h: f64| {
            let mut z = z;
            z[i] += h;
            Ok::<_, sde_nets::Error>(entries(&at(z)?.value)?[0])
        };
        let found = (moved(1e-5)? - moved(-1e-5)?) / 2e-5;
        assert!((found - score[i]).abs() < 1e-8, "{found} {}", score[i]);
    }
    assert!(VaePosterior::new(network(3)?, (example()? * 0.5)?).is_err());
    assert!(target.log_density(&Tensor::new(&[[1.0, 2.0]], &Device::Cpu)?).is_err());
    Ok(())
}
