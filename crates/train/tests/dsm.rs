//! Denoising score matching against closed forms: exact models on Gaussian and point-mass data.

#[path = "../../sde-core/tests/support/rotating.rs"]
mod rotating;

use std::sync::Arc;

use candle_core::{DType, Device, Tensor, Var};
use rotating::Rotating;
use sde_core::noise::{BatchNoise, Law, Noise, Stream};
use sde_core::oracle::Mixture;
use sde_core::process::{Cld, Cosine, Discrete, Edm, LinearPath, SubVp, Ve, Vp};
use sde_core::{
    Converted, Field, LinearSde, Model, Op, OracleField, Pass, Prediction, ScalarSde, apply_each,
};
use sde_data::Batch;
use sde_train::Result;
use sde_train::loss::{Dsm, Loss, Reduction, TimeLaw, Weighting};

const ALL: [Prediction; 4] = [Prediction::Noise, Prediction::Data, Prediction::Velocity, Prediction::Score];

/// A field as a model.
struct FieldModel<F>(F);

impl<F: Field> Model for FieldModel<F> {
    fn prediction(&self) -> Prediction {
        self.0.prediction()
    }
    fn forward(&self, x: &Tensor, t: &Tensor, _: Pass<'_>) -> sde_core::Result<Tensor> {
        self.0.eval(x, &t.to_vec1::<f64>()?)
    }
}

/// A model by its formula.
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

/// Mean and standard error.
fn estimate(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean, (variance / n).sqrt())
}

fn losses(dsm: &Dsm, model: &dyn Model, batch: &Batch, seed: u64) -> Result<Vec<f64>> {
    let noise = BatchNoise::new(Noise::new(seed), 0, 0..batch.x.dim(0)? as u32);
    Ok(dsm.per_sample(model, batch, &noise)?.to_vec1()?)
}

fn around(t: f64) -> TimeLaw {
    TimeLaw::Uniform { from: t * (1.0 - 1e-12), to: t }
}

#[test]
fn the_least_loss_is_the_variance_of_noise_given_the_state() -> Result<()> {
    let (mean, variance) = (0.7, 0.25);
    let data = Mixture::diagonal(vec![mean; 2], vec![variance; 2])?;
    let batch = gaussian(20_000, mean, variance)?;
    let processes: [Arc<dyn ScalarSde>; 3] =
        [Arc::new(Vp::STANDARD), Arc::new(Ve::STANDARD), Arc::new(LinearPath)];
    for scalar in processes {
        let sde: Arc<dyn LinearSde> = Arc::new(Shared(scalar.clone()));
        for t in [0.05, 0.4, 0.9] {
            let dsm = Dsm::new(sde.clone(), around(t), Weighting::Simple, Reduction::Mean)?;
            let (alpha, sigma) = (scalar.alpha(t), scalar.sigma(t));
            let least = alpha * alpha * variance / (alpha * alpha * variance + sigma * sigma);
            let exact = OracleField::noise(&data, sde.as_ref());
            let of_noise = losses(&dsm, &FieldModel(exact), &batch, 1)?;
            let (found, error) = estimate(&of_noise);
            assert!((found - least).abs() < 4.0 * error, "t = {t}: {found} ± {error}, expected {least}");
            // What the same model calls its output does not matter.
            for to in ALL {
                let model = FieldModel(Converted::new(&exact, sde.as_ref(), to));
                for (a, b) in losses(&dsm, &model, &batch, 1)?.iter().zip(&of_noise) {
                    assert!((a - b).abs() < 1e-8 * (1.0 + b), "t = {t}, {to:?}: {a} {b}");
                }
            }
        }
    }
    Ok(())
}

#[test]
fn even_in_the_clock_is_the_likelihood_weighting_of_a_scalar_process() -> Result<()> {
    let (from, to) = (1e-3, 1.0);
    let vp: Arc<dyn LinearSde> = Arc::new(Vp::STANDARD);
    let batch = gaussian(20_000, 0.7, 0.25)?;
    // A model that errs differently at every time.
    let model = Formula(Prediction::Noise, |x: &Tensor, t: &[f64]| {
        let half: Vec<Op> = t.iter().map(|t| Op::Scalar(1.0 - 0.5 * t)).collect();
        apply_each(&half, x)
    });
    let run = |weighting, time| {
        let dsm = Dsm::new(vp.clone(), time, weighting, Reduction::Sum)?;
        Ok::<_, sde_train::Error>(estimate(&losses(&dsm, &model, &batch, 1)?))
    };
    let (even, even_error) = run(Weighting::Simple, TimeLaw::EvenClock { from, to })?;
    let (likelihood, error) = run(Weighting::Likelihood, TimeLaw::ImportanceSampled { from, to })?;
    // g²/σ² = 2 d(log ρ)/dt: the two differ by twice the length of the clock over that of the time.
    let scale = 2.0 * (vp.clock(to) - vp.clock(from)) / (to - from);
    let gap = (even - likelihood / scale).abs();
    assert!(
        gap < 4.0 * even_error.hypot(error / scale),
        "{even} ± {even_error}, {} ± {}",
        likelihood / scale,
        error / scale
    );
    Ok(())
}

#[test]
fn velocities_are_marginalised() -> Result<()> {
    let (mean, variance) = (0.7, 0.25);
    // Velocities are no part of the data: the process spreads them around zero.
    let data = Mixture::diagonal(vec![mean, mean, 0.0, 0.0], vec![variance, variance, 0.0, 0.0])?;
    let batch = gaussian(20_000, mean, variance)?;
    let cld: Arc<dyn LinearSde> = Arc::new(Cld::published()?);
    for t in [0.01, 0.2, 0.9] {
        let dsm = Dsm::new(cld.clone(), around(t), Weighting::Simple, Reduction::Sum)?;
        // Σ over entries of the variance of ε given the state: tr(I − Rᵀ V⁻¹ R), two coordinates each.
        let (signal, factor) = (cld.signal(t), cld.factor(t));
        let spread = signal.mul(&Op::block([[variance, 0.0], [0.0, 0.0]]))?.mul(&signal.transpose())?;
        let total = spread.add(&cld.covariance(t))?;
        let seen = factor.transpose().mul(&total.inverse()?)?.mul(&factor)?;
        let least = 4.0 - seen.trace(4);
        let exact = OracleField::noise(&data, cld.as_ref());
        let of_noise = losses(&dsm, &FieldModel(exact), &batch, 1)?;
        let (found, error) = estimate(&of_noise);
        assert!((found - least).abs() < 4.0 * error, "t = {t}: {found} ± {error}, expected {least}");
        for to in [Prediction::Data, Prediction::Score] {
            let model = FieldModel(Converted::new(&exact, cld.as_ref(), to));
            let found = estimate(&losses(&dsm, &model, &batch, 1)?).0;
            assert!((found - estimate(&of_noise).0).abs() < 1e-6, "t = {t}, {to:?}: {found}");
        }
        // A velocity of the flow knows the score of the velocities alone: it does not tell ε.
        assert!(Prediction::Velocity.conversion(Prediction::Noise, cld.as_ref(), t).is_err());
    }
    Ok(())
}

/// A shared scalar process as one of its own.
struct Shared(Arc<dyn ScalarSde>);

impl ScalarSde for Shared {
    fn span(&self) -> sde_core::Span {
        self.0.span()
    }
    fn alpha(&self, t: f64) -> f64 {
        self.0.alpha(t)
    }
    fn sigma(&self, t: f64) -> f64 {
        self.0.sigma(t)
    }
    fn alpha_rate(&self, t: f64) -> f64 {
        self.0.alpha_rate(t)
    }
    fn sigma_rate(&self, t: f64) -> f64 {
        self.0.sigma_rate(t)
    }
    fn t_of_rho(&self, rho: f64) -> f64 {
        self.0.t_of_rho(rho)
    }
}

#[test]
fn at_the_exact_model_the_gradient_has_zero_mean() -> Result<()> {
    let sde: Arc<dyn LinearSde> = Arc::new(Vp::STANDARD);
    let data = Mixture::diagonal(vec![0.7; 2], vec![0.25; 2])?;
    let exact = OracleField::noise(&data, sde.as_ref());
    let (gain, offset) = (Var::new(&[1.0], &Device::Cpu)?, Var::new(&[0.0], &Device::Cpu)?);
    let model = Formula(Prediction::Noise, |x: &Tensor, t: &[f64]| {
        Ok(exact.eval(x, t)?.broadcast_mul(&gain)?.broadcast_add(&offset)?)
    });
    let dsm =
        Dsm::new(sde.clone(), TimeLaw::Uniform { from: 1e-5, to: 1.0 }, Weighting::Simple, Reduction::Mean)?;
    let mut slopes = [Vec::new(), Vec::new()];
    for chunk in 0..40u32 {
        let noise = BatchNoise::new(Noise::new(2), chunk, 0..500);
        let batch = gaussian(20_000, 0.7, 0.25)?.x.narrow(0, 500 * chunk as usize, 500)?;
        let gradients =
            dsm.loss(&model, &Batch { x: batch, labels: None, augment: None }, &noise)?.total.backward()?;
        for (slopes, var) in slopes.iter_mut().zip([&gain, &offset]) {
            slopes.push(gradients.get(var).expect("a gradient").to_vec1::<f64>()?[0]);
        }
    }
    for slopes in slopes {
        let (mean, error) = estimate(&slopes);
        assert!(mean.abs() < 4.0 * error && error < 0.02, "{mean} ± {error}");
    }
    Ok(())
}

#[test]
fn states_and_targets_fit_each_other_for_every_process() -> Result<()> {
    // Data at one point: what the state says about it is exact, in every prediction, so the loss is zero.
    let point = Tensor::new(&[[0.8, -1.1]], &Device::Cpu)?.broadcast_as((64, 2))?.contiguous()?;
    let processes: [(Arc<dyn LinearSde>, f64); 8] = [
        (Arc::new(Vp::STANDARD), 0.9),
        (Arc::new(SubVp::STANDARD), 0.9),
        (Arc::new(Ve::STANDARD), 1.0),
        (Arc::new(Edm::STANDARD), 5.0),
        (Arc::new(LinearPath), 0.9),
        (Arc::new(Cosine), 0.9),
        (Arc::new(Discrete::ddpm()), 900.0),
        (Arc::new(Rotating { omega: 1.3 }), 4.0),
    ];
    for (index, (sde, to)) in processes.into_iter().enumerate() {
        for prediction in ALL {
            let time = TimeLaw::Uniform { from: 0.05 * to, to };
            let dsm = Dsm::new(sde.clone(), time, Weighting::Simple, Reduction::Mean)?;
            let model = Formula(prediction, |x: &Tensor, t: &[f64]| {
                let maps = t.iter().map(|&t| Prediction::Data.conversion(prediction, sde.as_ref(), t));
                let maps = maps.collect::<sde_core::Result<Vec<_>>>()?;
                let state: Vec<_> = maps.iter().map(|m| m.state.clone()).collect();
                let value: Vec<_> = maps.iter().map(|m| m.value.clone()).collect();
                Ok((apply_each(&state, x)? + apply_each(&value, &point)?)?)
            });
            let batch = Batch { x: point.clone(), labels: None, augment: None };
            let worst = losses(&dsm, &model, &batch, 3)?.into_iter().fold(0.0, f64::max);
            assert!(worst < 1e-18, "process {index}, {prediction:?}: {worst}");
        }
    }
    Ok(())
}

#[test]
fn likelihood_weighting_is_the_norm_of_the_diffusion() -> Result<()> {
    // For the rotating process G Gᵀ = I and R Rᵀ = σ² I: a model that predicts no noise costs ‖ε‖²/σ².
    let sde = Arc::new(Rotating { omega: 1.3 });
    let t: f64 = 0.8;
    let dsm = Dsm::new(sde, around(t), Weighting::Likelihood, Reduction::HalfSum)?;
    let nothing = Formula(Prediction::Noise, |x: &Tensor, _: &[f64]| Ok(x.zeros_like()?));
    let batch = gaussian(16, 0.0, 1.0)?;
    let noise = BatchNoise::new(Noise::new(9), 0, 0..16);
    let eps = noise.tensor(Law::Normal, Stream::Diffusion, 0, &[2], DType::F64, &Device::Cpu)?;
    let expected = (eps.sqr()?.sum(1)? * (0.5 / -f64::exp_m1(-t)))?.to_vec1::<f64>()?;
    for (found, expected) in losses(&dsm, &nothing, &batch, 9)?.iter().zip(&expected) {
        assert!((found / expected - 1.0).abs() < 1e-9, "{found} {expected}");
    }
    // EDM's weight is a function of σ/α, which this process does not have.
    let edm = Weighting::Edm { sigma_data: 0.5 };
    let dsm = Dsm::new(Arc::new(Rotating { omega: 1.3 }), around(t), edm, Reduction::Mean)?;
    assert!(losses(&dsm, &nothing, &batch, 9).is_err());
    Ok(())
}

#[test]
fn importance_sampling_keeps_the_mean_and_lowers_the_variance() -> Result<()> {
    let batch = gaussian(40_000, 0.0, 1.0)?;
    let wrong = Formula(Prediction::Noise, |x: &Tensor, _: &[f64]| Ok((x * 0.3)?));
    let (from, to) = (1e-3, 1.0);
    for sde in [Arc::new(Vp::STANDARD) as Arc<dyn LinearSde>, Arc::new(SubVp::STANDARD)] {
        let run = |time| -> Result<(f64, f64)> {
            let dsm = Dsm::new(sde.clone(), time, Weighting::Likelihood, Reduction::Mean)?;
            Ok(estimate(&losses(&dsm, &wrong, &batch, 4)?))
        };
        let (uniform, uniform_error) = run(TimeLaw::Uniform { from, to })?;
        let (sampled, sampled_error) = run(TimeLaw::ImportanceSampled { from, to })?;
        assert!((uniform - sampled).abs() < 4.0 * uniform_error.hypot(sampled_error), "{uniform} {sampled}");
        // At most a quarter of the variance.
        assert!(sampled_error < 0.5 * uniform_error, "{uniform_error} {sampled_error}");
    }
    Ok(())
}

#[test]
fn times_follow_their_laws() -> Result<()> {
    let sde = Vp::STANDARD;
    let draw = |time: TimeLaw| -> Vec<f64> {
        let noise = BatchNoise::new(Noise::new(6), 0, 0..20_000);
        noise.draws(Stream::Time, 0).iter_mut().map(|draws| time.draw(&sde, draws).t).collect()
    };
    let log_rho: Vec<f64> =
        draw(TimeLaw::LogNormal { mean: -1.2, std: 1.2 }).into_iter().map(|t| sde.rho(t).ln()).collect();
    let (mean, error) = estimate(&log_rho);
    assert!((mean + 1.2).abs() < 4.0 * error, "{mean}");
    // The variance of a sample variance of n normals is 2 s⁴/(n − 1).
    let variance = error.powi(2) * log_rho.len() as f64;
    assert!((variance - 1.44).abs() < 4.0 * 1.44 * (2.0f64 / 20_000.0).sqrt(), "{variance}");
    let (mean, error) = estimate(&draw(TimeLaw::Uniform { from: 0.2, to: 0.6 }));
    assert!((mean - 0.4).abs() < 4.0 * error, "{mean}");
    let chain = Discrete::ddpm();
    let noise = BatchNoise::new(Noise::new(6), 0, 0..20_000);
    let indices = TimeLaw::DiscreteIndices { n: 4 };
    let mut counts = [0; 5];
    noise
        .draws(Stream::Time, 0)
        .iter_mut()
        .for_each(|draws| counts[indices.draw(&chain, draws).t as usize] += 1);
    // Binomial standard error √(20000·¼·¾) = 61.
    assert!(
        counts[0] == 0 && counts[1..].iter().all(|c| (f64::from(*c) - 5000.0).abs() < 5.0 * 61.0),
        "{counts:?}"
    );
    Ok(())
}

#[test]
fn impossible_choices_are_refused() {
    let vp = || Arc::new(Vp::STANDARD);
    let refused =
        |sde: Arc<dyn LinearSde>, time| Dsm::new(sde, time, Weighting::Simple, Reduction::Mean).is_err();
    assert!(refused(vp(), TimeLaw::Uniform { from: 0.5, to: 0.5 }));
    assert!(refused(vp(), TimeLaw::Uniform { from: f64::NAN, to: 0.5 }));
    assert!(refused(vp(), TimeLaw::Uniform { from: 0.0, to: 1.5 }));
    assert!(refused(vp(), TimeLaw::ImportanceSampled { from: 0.0, to: 1.0 }));
    assert!(refused(vp(), TimeLaw::EvenClock { from: 0.0, to: 1.0 }));
    assert!(refused(Arc::new(LinearPath), TimeLaw::ImportanceSampled { from: 0.1, to: 1.0 }));
    assert!(refused(vp(), TimeLaw::LogNormal { mean: 0.0, std: 0.0 }));
    assert!(refused(Arc::new(Discrete::ddpm()), TimeLaw::DiscreteIndices { n: 1001 }));
    let edm = Weighting::Edm { sigma_data: 0.0 };
    assert!(Dsm::new(vp(), TimeLaw::Uniform { from: 0.1, to: 1.0 }, edm, Reduction::Mean).is_err());
}

#[test]
fn a_batch_cut_in_two_is_the_same_batch() -> Result<()> {
    let time = TimeLaw::Uniform { from: 1e-5, to: 1.0 };
    let dsm = Dsm::new(Arc::new(Vp::STANDARD), time, Weighting::Simple, Reduction::Mean)?;
    let model = Formula(Prediction::Noise, |x: &Tensor, _: &[f64]| Ok((x * 0.3)?));
    let batch = gaussian(8, 0.0, 1.0)?;
    let whole = losses(&dsm, &model, &batch, 7)?;
    let mut parts = Vec::new();
    for from in [0u32, 3] {
        let to = if from == 0 { 3 } else { 8 };
        let part =
            Batch { x: batch.x.narrow(0, from as usize, (to - from) as usize)?, labels: None, augment: None };
        let noise = BatchNoise::new(Noise::new(7), 0, from..to);
        parts.extend(dsm.per_sample(&model, &part, &noise)?.to_vec1::<f64>()?);
    }
    assert_eq!(whole, parts);
    Ok(())
}

#[test]
fn the_model_is_told_of_the_augmentation() -> Result<()> {
    /// Predicts the features it is told of.
    struct Told;
    impl Model for Told {
        fn prediction(&self) -> Prediction {
            Prediction::Noise
        }
        fn forward(&self, x: &Tensor, _: &Tensor, pass: Pass<'_>) -> sde_core::Result<Tensor> {
            Ok(pass.augment.map_or_else(|| x.zeros_like(), |features| Ok(features.clone()))?)
        }
    }
    let time = TimeLaw::Uniform { from: 1e-5, to: 1.0 };
    let dsm = Dsm::new(Arc::new(Vp::STANDARD), time, Weighting::Simple, Reduction::Mean)?;
    let plain = gaussian(8, 0.0, 1.0)?;
    let noise = BatchNoise::new(Noise::new(7), 0, 0..8);
    // A model that predicts the noise itself, because it is told, has no loss.
    let eps = noise.tensor(Law::Normal, Stream::Diffusion, 0, &[2], DType::F64, &Device::Cpu)?;
    let told = Batch { augment: Some(eps), ..plain.clone() };
    assert!(dsm.per_sample(&Told, &told, &noise)?.to_vec1::<f64>()?.iter().all(|loss| *loss == 0.0));
    assert!(dsm.per_sample(&Told, &plain, &noise)?.to_vec1::<f64>()?.iter().all(|loss| *loss > 0.0));
    Ok(())
}
