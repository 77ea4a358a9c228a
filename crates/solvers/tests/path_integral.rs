//! The path integral sampler: weights that are exact in discrete time, and the best control of mixtures against closed forms.

use candle_core::{Device, Tensor};
use nalgebra::DMatrix;
use sde_core::Target;
use sde_core::noise::{BatchNoise, Noise};
use sde_core::oracle::Mixture;
use sde_core::target::{
    Bridge, Control, ControlFn, FollmerDrift, MixtureTarget, Rings, TargetSampler, gaussian,
};
use sde_solvers::{PathIntegral, Result};

fn bridge(steps: usize, horizon: f64, noise: f64) -> Bridge {
    Bridge { steps, horizon, noise, clip: 1e4 }
}

fn nine() -> Result<Mixture> {
    let at = [-5.0, 0.0, 5.0];
    let means: Vec<Vec<f64>> = at.iter().flat_map(|&a| at.map(|b| vec![a, b])).collect();
    Ok(Mixture::of_diagonals(&[1.0; 9], &means, vec![vec![0.3; 2]; 9])?)
}

fn skewed() -> Result<Mixture> {
    let full = DMatrix::from_row_slice(2, 2, &[0.5, 0.2, 0.2, 0.3]);
    let wide = DMatrix::from_row_slice(2, 2, &[2.5, -0.3, -0.3, 0.4]);
    Ok(Mixture::new(&[0.4, 0.6], &[vec![1.0, 0.2], vec![-0.8, 0.5]], &[full, wide])?)
}

#[test]
fn the_mean_weight_is_z_for_every_step_count_and_control() -> Result<()> {
    let target = MixtureTarget::new("mixture", &skewed()?, 2.0)?;
    let best = FollmerDrift::new(&skewed()?, 1.3, 0.8)?;
    for steps in [1, 4, 8] {
        for share in [0.0, 0.5, 1.0] {
            let control = ControlFn::blind(|x: &Tensor, t, _| Ok((best.control(x, t, None)? * share)?));
            let sampler = PathIntegral::new("test", bridge(steps, 0.8, 1.3), control, 3000)?;
            let drawn = sampler.draw(&target, 20_000, Noise::new(3))?;
            let Some(weights) = &drawn.weights else { panic!("a path integral has weights") };
            let mean = weights.log_mean();
            let error = mean.standard_error.unwrap_or(f64::NAN);
            assert!((mean.value - 2.0).abs() < 4.0 * error, "{steps} {share}: {} ± {error}", mean.value);
            assert!(error < 0.03 && drawn.bound.unwrap_or(f64::NAN) < mean.value);
            assert_eq!((drawn.evaluations, drawn.samples.dims()), (20_000, &[20_000, 2][..]));
        }
    }
    Ok(())
}

#[test]
fn a_control_by_the_score_has_exact_weights_too() -> Result<()> {
    let target = gaussian(vec![1.0, -0.5], vec![0.25, 0.5], -1.0)?;
    let control = ControlFn::guided(|_: &Tensor, t, score: Option<&Tensor>| {
        let score = score.ok_or(sde_core::Error::NoGradient { hint: "a score" })?;
        Ok((score * (0.4 * t))?)
    });
    let drawn = PathIntegral::new("test", bridge(6, 1.0, 1.0), control, 20_000)?.draw(
        &target,
        20_000,
        Noise::new(4),
    )?;
    let Some(weights) = &drawn.weights else { panic!("a path integral has weights") };
    let mean = weights.log_mean();
    assert!((mean.value + 1.0).abs() < 4.0 * mean.standard_error.unwrap_or(f64::NAN), "{mean:?}");
    assert_eq!(drawn.evaluations, 7 * 20_000);
    Ok(())
}

/// Under an affine control moments pass through the steps in closed form: E[−Ŝ], and mean and variance of the ends, in one dimension.
fn affine_moments(steps: usize, mean: f64, variance: f64) -> Result<(f64, f64, f64)> {
    let drift = FollmerDrift::new(&Mixture::diagonal(vec![mean], vec![variance])?, 1.0, 1.0)?;
    let dt = 1.0 / steps as f64;
    let (mut m, mut v, mut cost) = (0.0, 0.0, 0.0);
    for k in 0..steps {
        let at = Tensor::new(&[[0.0], [1.0]], &Device::Cpu)?;
        let u = drift.control(&at, k as f64 * dt, None)?.flatten_all()?.to_vec1::<f64>()?;
        let (b, a) = (u[0], u[1] - u[0]);
        cost += 0.5 * dt * ((b + a * m).powi(2) + a * a * v);
        (m, v) = (m + dt * (b + a * m), (1.0 + a * dt).powi(2) * v + dt);
    }
    let log_density = |mean: f64, variance: f64| {
        -0.5 * (((m - mean).powi(2) + v) / variance + (std::f64::consts::TAU * variance).ln())
    };
    Ok((log_density(mean, variance) - log_density(0.0, 1.0) - cost, m, v))
}

#[test]
fn the_bound_of_a_gaussian_is_the_closed_form() -> Result<()> {
    // From an independent computation, to the digits given.
    let golden = [
        (10, -0.119_466_7, 0.30171),
        (25, -0.046_123_3, 0.26954),
        (50, -0.022_781_1, 0.25957),
        (100, -0.011_320_3, 0.25474),
        (200, -0.005_642_6, 0.25236),
        (400, -0.002_816_9, 0.25117),
    ];
    for (steps, bound, variance) in golden {
        let [first, second] = [1.0, -0.5].map(|mean| affine_moments(steps, mean, 0.25));
        let ((b1, m1, v1), (b2, m2, v2)) = (first?, second?);
        assert!((b1 + b2 - bound).abs() < 1e-7, "{steps}: {}", b1 + b2);
        assert!((m1 - 1.0).abs() < 1e-12 && (m2 + 0.5).abs() < 1e-12, "{m1} {m2}");
        assert!((v1 - variance).abs() < 6e-6 && (v1 - v2).abs() < 1e-12, "{v1} {v2}");
    }

    // The sampler arrives at the same, within its error.
    let target = gaussian(vec![1.0, -0.5], vec![0.25; 2], 0.0)?;
    let mixture = Mixture::diagonal(vec![1.0, -0.5], vec![0.25; 2])?;
    for (steps, bound, share) in [(10, -0.119_466_7f64, 0.83), (400, -0.002_816_9, 0.9945)] {
        let drift = FollmerDrift::new(&mixture, 1.0, 1.0)?;
        let drawn = PathIntegral::new("pis-gt", bridge(steps, 1.0, 1.0), drift, 4000)?.draw(
            &target,
            4000,
            Noise::new(5),
        )?;
        let Some(weights) = &drawn.weights else { panic!("a path integral has weights") };
        // The variance of log w is about 2 × its mean's distance from log Z.
        let error = (2.0 * bound.abs() / 4000.0).sqrt();
        assert!((drawn.bound.unwrap_or(f64::NAN) - bound).abs() < 5.0 * error);
        assert!((weights.effective_share() - share).abs() < 0.02, "{}", weights.effective_share());
    }
    Ok(())
}

#[test]
fn the_nine_modes_under_the_best_control() -> Result<()> {
    let target = MixtureTarget::new("mg", &nine()?, 0.0)?;
    let drift = FollmerDrift::new(&nine()?, 1.0, 5.0)?;
    let drawn = PathIntegral::new("pis-gt", bridge(100, 5.0, 1.0), drift, 2000)?.draw(
        &target,
        8000,
        Noise::new(6),
    )?;
    let Some(weights) = &drawn.weights else { panic!("a path integral has weights") };
    // Standard errors: about √0.2/√8000 of the bound; the share varies by a few times 0.01.
    assert!((drawn.bound.unwrap_or(f64::NAN) + 0.10).abs() < 0.02, "{:?}", drawn.bound);
    assert!((weights.effective_share() - 0.84).abs() < 0.05, "{}", weights.effective_share());
    let mean = weights.log_mean();
    assert!(mean.value.abs() < 4.0 * mean.standard_error.unwrap_or(f64::NAN), "{mean:?}");
    let ends = drawn.samples.to_vec2::<f64>()?;
    let mut share = [0.0; 9];
    for (x, w) in ends.iter().zip(weights.normalised()) {
        let cell = |v: f64| ((v + 7.5) / 5.0).floor().clamp(0.0, 2.0) as usize;
        share[3 * cell(x[0]) + cell(x[1])] += w;
    }
    // A binomial share of one ninth, of 0.84 × 8000 samples, has the standard error 0.004.
    assert!(share.iter().all(|s| (s - 1.0 / 9.0).abs() < 5.0 * 0.004), "{share:?}");
    Ok(())
}

#[test]
fn the_best_control_solves_its_equation() -> Result<()> {
    // ∂φ/∂t + ½ g² Δφ = 0 and ∇ log φ by central differences; φ = μ/μ⁰ at the end, 1 at the start.
    let (g, horizon) = (1.3, 0.8);
    let drift = FollmerDrift::new(&skewed()?, g, horizon)?;
    let log = |x: [f64; 2], t: f64| -> Result<f64> {
        Ok(drift.log_potential(&Tensor::new(&[x], &Device::Cpu)?, t)?.value.to_vec1::<f64>()?[0])
    };
    assert!(log([0.0; 2], 0.0)?.abs() < 1e-12);
    let target = MixtureTarget::new("mixture", &skewed()?, 0.0)?;
    let h = 1e-3;
    for x in [[0.3, -0.4], [1.5, 0.7], [-2.0, 0.1]] {
        let at = Tensor::new(&[x], &Device::Cpu)?;
        let density = target.log_density(&at)?.value.to_vec1::<f64>()?[0];
        let reference = bridge(1, horizon, g).log_reference(&at)?.to_vec1::<f64>()?[0];
        assert!((log(x, horizon)? - density + reference).abs() < 1e-10);

        let phi = |x, t| Ok::<_, sde_solvers::Error>(log(x, t)?.exp());
        let t = 0.3;
        let dt = (phi(x, t + h)? - phi(x, t - h)?) / (2.0 * h);
        let mut laplacian = 0.0;
        let u = drift.control(&at, t, None)?.flatten_all()?.to_vec1::<f64>()?;
        for i in 0..2 {
            let moved = |h: f64| {
                let mut x = x;
                x[i] += h;
                x
            };
            laplacian += (phi(moved(h), t)? + phi(moved(-h), t)? - 2.0 * phi(x, t)?) / (h * h);
            let slope = (log(moved(h), t)? - log(moved(-h), t)?) / (2.0 * h);
            assert!((u[i] - g * slope).abs() < 1e-4);
        }
        assert!((dt + 0.5 * g * g * laplacian).abs() < 1e-4 * (1.0 + dt.abs()), "{dt} {laplacian}");
    }
    Ok(())
}

#[test]
fn a_path_does_not_depend_on_its_batch() -> Result<()> {
    let zero = || ControlFn::blind(|x: &Tensor, _, _| Ok(x.zeros_like()?));
    let whole =
        PathIntegral::new("zero", bridge(5, 1.0, 2.0), zero(), 64)?.draw(&Rings, 64, Noise::new(1))?;
    let parts = PathIntegral::new("zero", bridge(5, 1.0, 2.0), zero(), 7)?.draw(&Rings, 64, Noise::new(1))?;
    assert_eq!(whole.samples.to_vec2::<f64>()?, parts.samples.to_vec2::<f64>()?);
    assert_eq!(whole.weights, parts.weights);

    let mut seen = 0;
    let noise = BatchNoise::new(Noise::new(1), 0, [3]);
    let alone =
        PathIntegral::new("zero", bridge(5, 1.0, 2.0), zero(), 7)?.paths(&Rings, &noise, &mut |x| {
            seen += 1;
            assert_eq!(x.dims(), [1, 2]);
            Ok(())
        })?;
    assert_eq!(alone.ends.to_vec2::<f64>()?[0], whole.samples.to_vec2::<f64>()?[3]);
    assert_eq!(seen, 6);
    assert!(PathIntegral::new("zero", bridge(0, 1.0, 2.0), zero(), 7).is_err());
    assert!(PathIntegral::new("zero", bridge(5, f64::NAN, 2.0), zero(), 7).is_err());
    Ok(())
}
