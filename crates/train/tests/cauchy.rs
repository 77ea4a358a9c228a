//! The score's equation from an initial score alone: what it leaves of the score is nothing, and training on it finds the score.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor, Var};
use sde_core::noise::{BatchNoise, Law, Noise, Stream};
use sde_core::oracle::Mixture;
use sde_core::process::Vp;
use sde_core::{LinearSde, Model, Pass, Prediction, ScalarSde};
use sde_data::Batch;
use sde_nets::backward;
use sde_train::Result;
use sde_train::loss::{
    Cauchy, Dsm, Estimator, FokkerPlanck, FokkerPlanckConfig, Loss, Penalty, Points, RateStep, Reduction,
    Route, TimeLaw, TimeWeight, Weighting,
};

/// A score by its formula.
struct Formula<F>(F);

impl<F: Fn(&Tensor, &[f64]) -> sde_core::Result<Tensor>> Model for Formula<F> {
    fn prediction(&self) -> Prediction {
        Prediction::Score
    }
    fn forward(&self, x: &Tensor, t: &Tensor, _: Pass<'_>) -> sde_core::Result<Tensor> {
        (self.0)(x, &t.to_vec1::<f64>()?)
    }
}

/// V of data N(0, v₀) under VP.
fn variance(v0: f64, t: f64) -> f64 {
    Vp::STANDARD.alpha(t).powi(2) * v0 + Vp::STANDARD.sigma(t).powi(2)
}

/// Each entry of a sample times a number of its own sample.
fn scaled(x: &Tensor, factors: Vec<f64>) -> sde_core::Result<Tensor> {
    Ok(x.broadcast_mul(&Tensor::from_vec(factors, (x.dim(0)?, 1), &Device::Cpu)?)?)
}

/// The Cauchy problem of data N(0, v₀) on the line under VP, with the weight 1.
fn on_a_line(v0: f64) -> Result<(Cauchy, Batch)> {
    let sde: Arc<dyn LinearSde> = Arc::new(Vp::STANDARD);
    let time = TimeLaw::Uniform { from: 1e-5, to: 1.0 };
    let law = Arc::new(Mixture::diagonal(vec![0.0], vec![v0])?);
    let equation = FokkerPlanckConfig {
        alpha: 1.0,
        beta: 0.0,
        m: 2.0,
        weight: TimeWeight::Constant,
        weight_inside: false,
        penalty: Penalty::Residual,
        estimator: Estimator::Exact,
        route: Route::Differences { step: 1e-3 },
        rate: RateStep::Clock { step: 1e-3 },
        points: Points::Noised,
    };
    let equation = FokkerPlanck::new(sde.clone(), time, equation)?;
    let dsm = Dsm::new(sde, time, Weighting::Simple, Reduction::Mean)?;
    let noise = BatchNoise::new(Noise::new(8), 0, 0..64);
    let x = noise.tensor(Law::Normal, Stream::User, 0, &[1], DType::F64, &Device::Cpu)?;
    Ok((Cauchy::new(equation, law, 1.0, dsm)?, Batch { x: (x * v0.sqrt())?, labels: None, augment: None }))
}

#[test]
fn a_cauchy_problem_is_solved_by_the_score_and_by_nothing_else() -> Result<()> {
    let v0 = 0.25;
    let (cauchy, data) = on_a_line(v0)?;
    let noise = BatchNoise::new(Noise::new(3), 0, 0..64);
    let value = |factor: f64| -> Result<f64> {
        let exact =
            move |x: &Tensor, t: &[f64]| scaled(x, t.iter().map(|&t| -factor / variance(v0, t)).collect());
        Ok(cauchy.loss(&Formula(exact), &data, &noise)?.total.to_scalar()?)
    };
    // Of a scaled score the initial error alone is (0.1 σ₀)² x²/V²; its residual is known to be of order one.
    let (right, wrong) = (value(1.0)?, value(1.1)?);
    assert!(right < 1e-4 * wrong && wrong > 0.1, "{right:e} and {wrong}");
    Ok(())
}

#[test]
fn training_on_the_equation_alone_finds_the_score_at_all_times() -> Result<()> {
    let v0 = 0.25;
    let (cauchy, data) = on_a_line(v0)?;
    // s = −x (4 + Σ w_k φ_k): right at 0, where φ_k = T_k(2σ² − 1) − T_k(−1) vanishes, so that all else is the equation's to tell.
    let features = |t: f64| {
        let angle = (2.0 * Vp::STANDARD.sigma(t).powi(2) - 1.0).clamp(-1.0, 1.0).acos();
        [1, 2, 3, 4, 5].map(|k: i32| (f64::from(k) * angle).cos() - (-1f64).powi(k))
    };
    let weights = Var::from_tensor(&Tensor::zeros((5, 1), DType::F64, &Device::Cpu)?)?;
    let model = Formula(|x: &Tensor, t: &[f64]| {
        let rows: Vec<f64> = t.iter().flat_map(|&t| features(t)).collect();
        let slope =
            (Tensor::from_vec(rows, (t.len(), 5), &Device::Cpu)?.matmul(weights.as_tensor())? + 1.0 / v0)?;
        Ok((x * slope)?.neg()?)
    });
    let off = || -> Result<f64> {
        let w = weights.flatten_all()?.to_vec1::<f64>()?;
        let at = |t: f64| 1.0 / v0 + features(t).iter().zip(&w).map(|(f, w)| f * w).sum::<f64>();
        let gap = |t: &f64| (at(*t) * variance(v0, *t) - 1.0).abs();
        Ok([0.1, 0.25, 0.5, 0.75, 1.0].iter().map(gap).fold(0.0, f64::max))
    };
    let before = off()?;
    let (mut mean, mut square) = (weights.zeros_like()?, weights.zeros_like()?);
    for step in 0..2000u32 {
        let noise = BatchNoise::new(Noise::new(3), step, 0..64);
        let store = backward(&cauchy.loss(&model, &data, &noise)?.total)?;
        let gradient = store.get(weights.as_tensor()).expect("a gradient").detach();
        mean = ((mean * 0.9)? + (&gradient * 0.1)?)?;
        square = ((square * 0.99)? + (gradient.sqr()? * 0.01)?)?;
        let rate = 0.2 * (1.0 - f64::from(step) / 2000.0);
        let bias = [0.9f64, 0.99].map(|b| 1.0 - b.powi(step as i32 + 1));
        let update = ((&mean * (rate / bias[0]))? / ((&square / bias[1])?.sqrt()? + 1e-12)?)?;
        weights.set(&(weights.as_tensor() - update)?.detach())?;
    }
    // The pole of 1/V at σ² = −1/3 lets a polynomial of degree five come as near as 3⁻⁵; from nothing it is off by a factor of several.
    let after = off()?;
    assert!(before > 1.0 && after < 0.05, "{before} before, {after} after");
    Ok(())
}
