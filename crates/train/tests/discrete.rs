//! The losses of discrete chains, DDPM's and SMLD's, restated as published and in closed form.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use sde_core::noise::{BatchNoise, Law, Noise, Stream};
use sde_core::oracle::Mixture;
use sde_core::process::{Discrete, Ve};
use sde_core::{Field, LinearSde, Model, OracleField, Pass, Prediction};
use sde_data::Batch;
use sde_nets::{MlpConfig, NetConfig, Params, TimeFeatures};
use sde_train::Result;
use sde_train::loss::{Dsm, Reduction, TimeLaw, Weighting};

/// Calls a function of state and times a model.
struct Formula<F>(Prediction, F);

impl<F: Fn(&Tensor, &[f64]) -> sde_core::Result<Tensor>> Model for Formula<F> {
    fn prediction(&self) -> Prediction {
        self.0
    }
    fn forward(&self, x: &Tensor, t: &Tensor, _: Pass<'_>) -> sde_core::Result<Tensor> {
        (self.1)(x, &t.to_vec1::<f64>()?)
    }
}

/// `n` examples of N(mean, variance) in two dimensions.
fn gaussian(n: u32, mean: f64, variance: f64) -> Result<Batch> {
    let noise = BatchNoise::new(Noise::new(5), 0, 0..n);
    let z = noise.tensor(Law::Normal, Stream::User, 0, &[2], DType::F64, &Device::Cpu)?;
    Ok(Batch { x: ((z * variance.sqrt())? + mean)?, labels: None, augment: None })
}

/// DDPM with N steps: its process and times.
fn ddpm() -> (Arc<dyn LinearSde>, TimeLaw) {
    (Arc::new(Discrete::ddpm()), TimeLaw::DiscreteIndices { n: 1000 })
}

/// SMLD with the levels of NCSN: ten, from 1 down to 0.01.
fn smld() -> Result<(Arc<dyn LinearSde>, TimeLaw)> {
    Ok((Arc::new(Ve::new(0.01, 1.0)?), TimeLaw::Levels { from: 0.0, to: 1.0, n: 10 }))
}

/// The published β_n = 1e-4 + (0.02 − 1e-4)(n − 1)/999 and ᾱ_n = ∏ (1 − β_k).
fn alpha_bar() -> Vec<f64> {
    let betas = (0..1000).map(|n| 1e-4 + (0.02 - 1e-4) * f64::from(n) / 999.0);
    betas
        .scan(1.0, |product, beta| {
            *product *= 1.0 - beta;
            Some(*product)
        })
        .collect()
}

fn times(law: TimeLaw, sde: &dyn LinearSde, noise: &BatchNoise) -> Vec<f64> {
    noise.draws(Stream::Time, 0).iter_mut().map(|draws| law.draw(sde, draws).t).collect()
}

#[test]
fn levels_are_the_geometric_sequence_and_equally_likely() -> Result<()> {
    let (sde, law) = smld()?;
    let noise = BatchNoise::new(Noise::new(6), 0, 0..20_000);
    let mut counts = [0u32; 10];
    for t in times(law, sde.as_ref(), &noise) {
        let level = (9.0 * t).round();
        counts[level as usize] += 1;
        let sigma = sde.factor(t).as_scalar().unwrap_or(f64::NAN);
        // exp of an even grid from ln 0.01 to ln 1.
        let published = (0.01f64.ln() * (1.0 - level / 9.0)).exp();
        assert!((sigma / published - 1.0).abs() < 1e-14, "{sigma} {published}");
    }
    // Binomial standard error √(20000 · 0.1 · 0.9) = 42.
    assert!(counts.iter().all(|c| (f64::from(*c) - 2000.0).abs() < 5.0 * 42.0), "{counts:?}");
    Ok(())
}

#[test]
fn losses_are_the_published_formulas() -> Result<()> {
    let batch = gaussian(32, 0.7, 0.25)?;
    let (x0, noise) = (batch.x.to_vec2::<f64>()?, BatchNoise::new(Noise::new(9), 3, 0..32));
    let eps = noise.tensor(Law::Normal, Stream::Diffusion, 0, &[2], DType::F64, &Device::Cpu)?;
    let eps = eps.to_vec2::<f64>()?;

    // L_simple: the mean of (ε − ε_θ(√ᾱ x₀ + √(1 − ᾱ) ε, n))², here with ε_θ(x) = 0.3 x.
    let (sde, law) = ddpm();
    let chain = alpha_bar();
    let model = Formula(Prediction::Noise, |x: &Tensor, _: &[f64]| Ok((x * 0.3)?));
    let dsm = Dsm::new(sde.clone(), law, Weighting::Simple, Reduction::Mean)?;
    let found = dsm.per_sample(&model, &batch, &noise)?.to_vec1::<f64>()?;
    for (i, t) in times(law, sde.as_ref(), &noise).into_iter().enumerate() {
        let bar: f64 = chain[t as usize - 1];
        let squares = |d: usize| {
            let state = bar.sqrt() * x0[i][d] + (1.0 - bar).sqrt() * eps[i][d];
            (eps[i][d] - 0.3 * state).powi(2)
        };
        let expected = 0.5 * (squares(0) + squares(1));
        assert!((found[i] / expected - 1.0).abs() < 1e-9, "{i}: {} {expected}", found[i]);
    }

    // SMLD: ½ σ² Σ (s_θ(x₀ + σ z) + z/σ)², here with s_θ(x) = −x/(1 + σ²).
    let (sde, law) = smld()?;
    let model = Formula(Prediction::Score, |x: &Tensor, t: &[f64]| {
        let factors = t.iter().map(|t| -1.0 / (1.0 + 0.01f64.powf(2.0 * (1.0 - t)))).collect::<Vec<_>>();
        Ok(x.broadcast_mul(&Tensor::from_vec(factors, (t.len(), 1), &Device::Cpu)?)?)
    });
    let dsm = Dsm::new(sde.clone(), law, Weighting::Simple, Reduction::HalfSum)?;
    let found = dsm.per_sample(&model, &batch, &noise)?.to_vec1::<f64>()?;
    for (i, t) in times(law, sde.as_ref(), &noise).into_iter().enumerate() {
        let sigma = 0.01f64.powf(1.0 - t);
        let squares = |d: usize| {
            let score = -(x0[i][d] + sigma * eps[i][d]) / (1.0 + sigma * sigma);
            (score + eps[i][d] / sigma).powi(2)
        };
        let expected = 0.5 * sigma * sigma * (squares(0) + squares(1));
        assert!((found[i] / expected - 1.0).abs() < 1e-9, "{i}: {} {expected}", found[i]);
    }
    Ok(())
}

#[test]
fn the_exact_model_has_the_known_loss() -> Result<()> {
    let (mean, variance) = (0.7, 0.25);
    let data = Mixture::diagonal(vec![mean; 2], vec![variance; 2])?;
    let batch = gaussian(40_000, mean, variance)?;
    let noise = BatchNoise::new(Noise::new(1), 0, 0..40_000);
    // Var(ε | x_t) = α² v/(α² v + σ²), averaged over all indices, or levels.
    let of_ddpm =
        alpha_bar().iter().map(|bar| bar * variance / (bar * variance + 1.0 - bar)).sum::<f64>() / 1e3;
    let level = |i: u32| variance / (variance + 0.01f64.powf(2.0 * (1.0 - f64::from(i) / 9.0)));
    let of_smld = (0..10).map(level).sum::<f64>() / 10.0;
    // In two dimensions half the sum is the mean.
    for ((sde, law), reduction, least) in [
        (ddpm(), Reduction::Mean, of_ddpm),
        (smld()?, Reduction::HalfSum, of_smld),
        (ddpm(), Reduction::Sum, 2.0 * of_ddpm),
    ] {
        let exact = OracleField::noise(&data, sde.as_ref());
        let model = Formula(Prediction::Noise, |x: &Tensor, t: &[f64]| exact.eval(x, t));
        let losses = Dsm::new(sde.clone(), law, Weighting::Simple, reduction)?
            .per_sample(&model, &batch, &noise)?
            .to_vec1::<f64>()?;
        let n = losses.len() as f64;
        let found = losses.iter().sum::<f64>() / n;
        let error = (losses.iter().map(|l| (l - found).powi(2)).sum::<f64>() / (n * (n - 1.0))).sqrt();
        assert!((found - least).abs() < 4.0 * error, "{law:?}: {found} ± {error}, expected {least}");
    }
    Ok(())
}

/// Published networks are given labels: n − 1 for DDPM, and N − 1 − i for the i-th smallest σ of SMLD.
#[test]
fn scale_and_shift_of_the_time_make_the_published_labels() -> Result<()> {
    let output = |time_scale: f64, time_shift: f64, t: Vec<f32>| -> Result<Vec<Vec<f32>>> {
        let time = TimeFeatures::Sinusoidal {
            max_period: 10_000.0,
            freq_shift: 1,
            flip_sin_to_cos: false,
            time_scale,
            time_shift,
        };
        let config = MlpConfig {
            prediction: Prediction::Noise,
            hidden: vec![8],
            time_dim: 16,
            time,
            state: None,
            classes: None,
        };
        let build = |b: &sde_nets::Builder| NetConfig::Mlp(config.clone()).build(b, &[2]);
        let (net, _) = Params::initialise(Noise::new(0), DType::F32, &Device::Cpu, build)?;
        let x = Tensor::ones((t.len(), 2), DType::F32, &Device::Cpu)?;
        Ok(net.forward(&x, &Tensor::new(t, &Device::Cpu)?, Pass::EVAL)?.to_vec2()?)
    };
    let indices = [1u16, 2, 500, 1000];
    let by_label = output(1.0, 0.0, indices.iter().map(|n| f32::from(n - 1)).collect())?;
    assert_eq!(output(1.0, -1.0, indices.iter().map(|n| f32::from(*n)).collect())?, by_label);

    let t = indices.iter().map(|n| f32::from(n - 1) / 999.0).collect();
    let by_label = output(1.0, 0.0, indices.iter().map(|n| f32::from(1000 - n)).collect())?;
    for (found, expected) in output(-999.0, 999.0, t)?.iter().flatten().zip(by_label.iter().flatten()) {
        // The time is rounded to f32 before it is scaled: 999 · 2⁻²⁴ = 6e-5 in the phase of unit frequency.
        assert!((found - expected).abs() < 2e-4, "{found} {expected}");
    }
    Ok(())
}

#[test]
fn impossible_levels_are_refused() {
    let refused = |from, to, n| {
        let time = TimeLaw::Levels { from, to, n };
        Dsm::new(Arc::new(Ve::STANDARD), time, Weighting::Simple, Reduction::HalfSum).is_err()
    };
    assert!(refused(0.0, 1.0, 1) && refused(0.0, 1.0, 0) && refused(0.0, 1.5, 10) && refused(0.5, 0.5, 10));
    assert!(!refused(0.0, 1.0, 2));
    for weighting in [Weighting::MinSnr { gamma: 0.0 }, Weighting::SoftMinSnr { sigma_data: f64::NAN }] {
        let time = TimeLaw::Levels { from: 0.0, to: 1.0, n: 10 };
        let error = Dsm::new(Arc::new(Ve::STANDARD), time, weighting, Reduction::HalfSum).err();
        assert!(error.is_some_and(|e| e.to_string().contains("positive")));
    }
}
