//! Preconditioning against the closed formulas.

mod common;

use candle_core::{DType, Device, Tensor};
use common::{check_first, distance, normal};
use sde_core::{Model, Pass, Prediction};
use sde_nets::{Error, Precondition, Preconditioned, Result};

/// F(x, c) = 0.3 x + c.
struct Affine;

impl Model for Affine {
    fn prediction(&self) -> Prediction {
        Prediction::Noise
    }
    fn forward(&self, x: &Tensor, t: &Tensor, _: Pass<'_>) -> sde_core::Result<Tensor> {
        Ok((x * 0.3)?.broadcast_add(&t.reshape((t.dim(0)?, 1, 1))?)?)
    }
}

/// [c_skip, c_out, c_in, c_noise].
fn closed(form: Precondition, sigma: f64) -> [f64; 4] {
    match form {
        Precondition::Edm { sigma_data: d } => {
            let root = sigma.hypot(d);
            [d * d / (root * root), sigma * d / root, 1.0 / root, sigma.ln() / 4.0]
        }
        Precondition::Vp { beta_0, beta_1, steps } => {
            // t(σ) by bisection of σ(t)² = exp(β_0 t + ½ (β_1 − β_0) t²) − 1.
            let (mut low, mut high) = (0.0, 2.0);
            for _ in 0..200 {
                let t: f64 = 0.5 * (low + high);
                let found = (beta_0 * t + 0.5 * (beta_1 - beta_0) * t * t).exp_m1().sqrt();
                if found < sigma { low = t } else { high = t }
            }
            [1.0, -sigma, 1.0 / sigma.hypot(1.0), (steps - 1.0) * low]
        }
        Precondition::Ve {} => [1.0, sigma, 1.0, (sigma / 2.0).ln()],
    }
}

const FORMS: [Precondition; 3] = [
    Precondition::Edm { sigma_data: 0.5 },
    Precondition::Vp { beta_0: 0.1, beta_1: 20.0, steps: 1000.0 },
    Precondition::Ve {},
];

#[test]
fn every_form_is_its_closed_formula() -> Result<()> {
    let sigmas = [0.002, 0.05, 1.0, 10.0, 80.0];
    let (x, t) = (normal(&[5, 2, 3], 1)?, Tensor::new(&sigmas, &Device::Cpu)?);
    for form in FORMS {
        let net = Preconditioned::new(form, Affine)?;
        assert_eq!(net.prediction(), Prediction::Data);
        let found = net.forward(&x, &t, Pass::EVAL)?;
        for (i, &sigma) in sigmas.iter().enumerate() {
            let [skip, out, input, noise] = closed(form, sigma);
            let x = x.get(i)?;
            let expected = ((&x * skip)? + x.affine(out * 0.3 * input, out * noise)?)?;
            let error = distance(&found.get(i)?, &expected)?;
            // ln(1 + σ²) loses σ⁻² of its digits at σ = 0.002, which 999 t multiplies.
            assert!(error < 1e-9 * (1.0 + out.abs() * (1.0 + noise.abs())), "{form:?} at {sigma}: {error:e}");
        }
        let f = |i: &[Tensor]| Ok(net.forward(&i[0], &i[1], Pass::EVAL)?);
        check_first(&format!("{form:?}"), f, &[x.narrow(0, 1, 2)?, t.narrow(0, 1, 2)?])?;
    }
    Ok(())
}

/// At σ → 0 the data is the state itself, at σ → ∞ it is what F says; the loss that Karras et al. weight is then of unit
/// size: λ c_out² = 1 with λ = (σ² + σ_d²)/(σ σ_d)².
#[test]
fn limits_and_the_weight_that_goes_with_it() {
    for sigma in [1e-4f64, 0.3, 5.0, 80.0] {
        let [skip, out, input, _] = closed(FORMS[0], sigma);
        let weight = (sigma * sigma + 0.25) / (sigma * 0.5).powi(2);
        assert!((weight * out * out - 1.0).abs() < 1e-12);
        // c_in x has unit variance, and the target (x₀ − c_skip x)/c_out too.
        assert!((input * input * (sigma * sigma + 0.25) - 1.0).abs() < 1e-12);
        let target = ((1.0 - skip).powi(2) * 0.25 + (skip * sigma).powi(2)) / (out * out);
        assert!((target - 1.0).abs() < 1e-9, "{target}");
    }
}

#[test]
fn single_precision_keeps_small_noise() -> Result<()> {
    let t = Tensor::new(&[0.002f32, 80.0], &Device::Cpu)?;
    let x = normal(&[2, 2, 3], 1)?;
    for form in FORMS {
        let net = Preconditioned::new(form, Affine)?;
        let exact = net.forward(&x, &t.to_dtype(DType::F64)?, Pass::EVAL)?;
        let found = net.forward(&x.to_dtype(DType::F32)?, &t, Pass::EVAL)?;
        for i in 0..2 {
            let scale = exact.get(i)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f64>()?;
            assert!(distance(&found.get(i)?, &exact.get(i)?)? < 1e-6 * (1.0 + scale), "{form:?}");
        }
    }
    Ok(())
}

#[test]
fn constants_without_a_meaning_are_refused() {
    for form in [
        Precondition::Edm { sigma_data: 0.0 },
        Precondition::Edm { sigma_data: f64::NAN },
        Precondition::Vp { beta_0: 0.0, beta_1: 20.0, steps: 1000.0 },
        Precondition::Vp { beta_0: 20.0, beta_1: 0.1, steps: 1000.0 },
        Precondition::Vp { beta_0: 0.1, beta_1: 20.0, steps: 1.0 },
    ] {
        assert!(matches!(Preconditioned::new(form, Affine), Err(Error::Config { .. })), "{form:?}");
    }
}
