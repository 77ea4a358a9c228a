//! Chains on targets whose every moment and whose log Z are known. Tolerances are standard errors: √(v/N) of a mean of N independent samples, v√(2/N) of a
//! variance; five of them.

use candle_core::{Device, Tensor};
use sde_core::noise::Noise;
use sde_core::target::{Drawn, TargetSampler, gaussian};
use sde_core::{Target, TargetFn};
use sde_solvers::mcmc::bridge::{Fit, log_normaliser};
use sde_solvers::mcmc::{Annealed, Base, Hmc, Mala, Mass, Nuts, Resampling, StepSize, Temperatures, Ula};

type Outcome = Result<(), Box<dyn std::error::Error>>;

const LOG_Z: f64 = 3.5;
const MEAN: [f64; 3] = [1.0, -0.5, 0.2];
const VARIANCES: [f64; 3] = [0.25, 1.5, 0.8];

fn target() -> Result<impl Target, sde_core::Error> {
    gaussian(MEAN.to_vec(), VARIANCES.to_vec(), LOG_Z)
}

fn base() -> Result<Base, sde_solvers::Error> {
    Base::isotropic(3, 1.0)
}

fn hmc() -> Result<Hmc, sde_solvers::Error> {
    let (steps, step_size, acceptance) = (8, 0.2, 0.8);
    let mass = Mass::Diagonal(VARIANCES.iter().map(|v| 1.0 / v).collect());
    Ok(Hmc {
        base: base()?,
        warmup: 40,
        iterations: 20,
        steps,
        step_size,
        acceptance,
        jitter: 0.2,
        mass,
        fit: Fit::Full,
    })
}

fn nuts() -> Result<Nuts, sde_solvers::Error> {
    let (step_size, acceptance, depth) = (0.2, 0.8, 8);
    Ok(Nuts {
        base: base()?,
        warmup: 40,
        iterations: 15,
        step_size,
        acceptance,
        depth,
        mass: Mass::Unit,
        fit: Fit::Full,
    })
}

fn mala() -> Result<Mala, sde_solvers::Error> {
    Ok(Mala { base: base()?, warmup: 60, iterations: 60, time_step: 0.1, acceptance: 0.574, fit: Fit::Full })
}

fn annealed(resampling: Resampling) -> Result<Annealed, sde_solvers::Error> {
    Ok(Annealed {
        base: base()?,
        temperatures: Temperatures::Linear(20),
        moves: 1,
        steps: 4,
        step_size: StepSize::Adaptive { first: 0.3, acceptance: 0.8 },
        mass: Mass::Unit,
        resampling,
        pilot: 200,
    })
}

/// Means and variances, weighted where there are weights; `counts` independent samples are worth as many.
fn check_moments(name: &str, drawn: &Drawn) -> Outcome {
    let rows = drawn.samples.to_vec2::<f64>()?;
    let weights =
        drawn.weights.as_ref().map_or(vec![1.0 / rows.len() as f64; rows.len()], |w| w.normalised());
    let count = rows.len() as f64 * drawn.weights.as_ref().map_or(1.0, |w| w.effective_share());
    let moment = |f: &dyn Fn(&[f64]) -> f64| rows.iter().zip(&weights).map(|(x, w)| w * f(x)).sum::<f64>();
    for k in 0..3 {
        let mean = moment(&|x| x[k]);
        let variance = moment(&|x| (x[k] - MEAN[k]).powi(2));
        assert!((mean - MEAN[k]).abs() < 5.0 * (VARIANCES[k] / count).sqrt(), "{name}: mean {k} is {mean}");
        let error = VARIANCES[k] * (2.0 / count).sqrt();
        assert!((variance - VARIANCES[k]).abs() < 5.0 * error, "{name}: variance {k} is {variance}");
    }
    let covariance = moment(&|x| (x[0] - MEAN[0]) * (x[1] - MEAN[1]));
    let error = (VARIANCES[0] * VARIANCES[1] / count).sqrt();
    assert!(covariance.abs() < 5.0 * error, "{name}: covariance {covariance}");
    Ok(())
}

#[test]
fn chains_have_the_moments_of_a_gaussian() -> Outcome {
    let samplers: [Box<dyn TargetSampler>; 5] = [
        Box::new(hmc()?),
        Box::new(nuts()?),
        Box::new(mala()?),
        Box::new(annealed(Resampling::Never)?),
        Box::new(annealed(Resampling::Below(0.5))?),
    ];
    for sampler in samplers {
        check_moments(&sampler.name(), &sampler.draw(&target()?, 3000, Noise::new(1))?)?;
    }
    Ok(())
}

/// Each estimate of log Z is of 20 runs: their mean is right within five of its standard errors, which come from the runs themselves. The bias of a logarithm,
/// half a run's variance, is below them.
#[test]
fn each_gives_log_z_within_its_error() -> Outcome {
    let samplers: [Box<dyn TargetSampler>; 5] = [
        Box::new(Hmc { warmup: 30, iterations: 10, ..hmc()? }),
        Box::new(Nuts { warmup: 30, iterations: 8, ..nuts()? }),
        Box::new(mala()?),
        Box::new(annealed(Resampling::Never)?),
        Box::new(annealed(Resampling::Below(0.6))?),
    ];
    for sampler in samplers {
        let run = |seed| sampler.draw(&target()?, 200, Noise::new(seed));
        let runs = (0..20).map(run).collect::<Result<Vec<_>, _>>()?;
        let logs: Vec<f64> = runs.iter().filter_map(|run| run.log_normaliser).collect();
        let mean = logs.iter().sum::<f64>() / 20.0;
        let variance = logs.iter().map(|l| (l - mean).powi(2)).sum::<f64>() / 19.0;
        let error = (variance / 20.0).sqrt();
        assert!((mean - LOG_Z).abs() < 5.0 * error + 0.5 * variance, "{}: {mean} ± {error}", sampler.name());
        assert!(error < 0.03, "{}: {error}", sampler.name());
        // A bound in expectation.
        let bounds: Vec<f64> = runs.iter().filter_map(|run| run.bound).collect();
        let count = bounds.len().max(2) as f64;
        let mean = bounds.iter().sum::<f64>() / count;
        let error = (bounds.iter().map(|b| (b - mean).powi(2)).sum::<f64>() / (count - 1.0) / count).sqrt();
        assert_eq!(bounds.len(), if sampler.name() == "smc" { 0 } else { 20 }, "{}", sampler.name());
        assert!(bounds.is_empty() || mean < LOG_Z + 5.0 * error, "{}: {mean} ± {error}", sampler.name());
    }
    Ok(())
}

/// Unadjusted Langevin in steps h of N(m, v) has the variance v/(1 − h/2v) exactly.
#[test]
fn unadjusted_langevin_has_the_variance_of_its_step() -> Outcome {
    let (h, count) = (0.1, 4000);
    let ula = Ula { base: base()?, iterations: 100, time_step: h, fit: Fit::None };
    let drawn = ula.draw(&target()?, count, Noise::new(4))?;
    assert!(drawn.log_normaliser.is_none());
    let rows = drawn.samples.to_vec2::<f64>()?;
    // After 100 steps of 0.1 the slowest coordinate has forgotten its start but for (1 − h/v)^100 = 1e-3.
    for k in [0, 2] {
        let expected = VARIANCES[k] / (1.0 - 0.5 * h / VARIANCES[k]);
        let variance = rows.iter().map(|x| (x[k] - MEAN[k]).powi(2)).sum::<f64>() / count as f64;
        let error = expected * (2.0 / count as f64).sqrt();
        assert!((variance - expected).abs() < 5.0 * error, "{k}: {variance} {expected}");
    }
    let wild = Ula { time_step: 1e3, iterations: 400, ..ula };
    let message = wild.draw(&target()?, 2, Noise::new(4)).err().map(|e| e.to_string()).unwrap_or_default();
    assert!(
        message.contains("is not finite after iteration") && message.contains("smaller step"),
        "{message}"
    );
    Ok(())
}

/// Weights have E[Ẑ] = Z for any number of levels and however bad the moves: two levels, far too long a step.
#[test]
fn weights_are_unbiased_however_bad_the_moves() -> Outcome {
    for resampling in [Resampling::Never, Resampling::Below(0.9)] {
        let bad = Annealed {
            temperatures: Temperatures::Given(vec![0.3, 1.0]),
            step_size: StepSize::Fixed(1.2),
            pilot: 0,
            ..annealed(resampling)?
        };
        let runs = 400;
        let ratio = |seed| -> Result<f64, Box<dyn std::error::Error>> {
            let drawn = bad.draw(&target()?, 50, Noise::new(seed))?;
            Ok((drawn.log_normaliser.ok_or("no log Z")? - LOG_Z).exp())
        };
        let ratios = (0..runs).map(ratio).collect::<Result<Vec<_>, _>>()?;
        let mean = ratios.iter().sum::<f64>() / runs as f64;
        let error =
            (ratios.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / (runs * (runs - 1)) as f64).sqrt();
        assert!((mean - 1.0).abs() < 5.0 * error && error < 0.05, "{resampling:?}: {mean} ± {error}");
    }
    Ok(())
}

#[test]
fn adaptive_levels_end_at_one_and_are_right() -> Outcome {
    let smc =
        Annealed { temperatures: Temperatures::Adaptive(0.9), moves: 2, ..annealed(Resampling::Below(0.5))? };
    let drawn = smc.draw(&target()?, 4000, Noise::new(3))?;
    let estimate = drawn.log_normaliser.ok_or("no log Z")?;
    // Each of about ten levels adds a relative variance of (1/0.9 − 1)/N at most.
    let error = (20.0 * 0.112 / 4000.0_f64).sqrt();
    assert!((estimate - LOG_Z).abs() < 5.0 * error, "{estimate} ± {error}");
    // A level of length δ leaves the share 1/(1 + δ² Var log(μ̂/π₀)), for short ones: there are ∫ √Var dβ / √(1/0.9 − 1) of them, the last cut off, and a pilot
    // of 200 knows a variance within √(2/200) = 0.1 or, of a χ², twice that, its root within half of it.
    let levels = (drawn.evaluations as f64 / 4200.0 - 1.0) / 8.0;
    let expected = path_length() / 0.1111_f64.sqrt();
    assert!((levels - expected).abs() < 1.0 + 0.1 * expected, "{levels} {expected}");
    // Resampled: the share has fallen below a half, from above. Of log-normal weights a share e^{−σ²} is a half at σ² = ln 2; a level adds σ² = ln 1/0.9, and where
    // both go together the σ add up.
    let least = (-(2f64.ln().sqrt() + (1.0 / 0.9_f64).ln().sqrt()).powi(2)).exp();
    let share = drawn.effective_share().ok_or("no weights")?;
    assert!(share < 0.5 && share > least, "{share} {least}");
    check_moments("adaptive", &drawn)
}

/// ∫ √Var_β(log μ̂/π₀) dβ from N(0, 1) in each coordinate. There log μ̂/π₀ = a x² + b x + c with a = ½(1 − 1/v) and b = m/v, and under N(μ, s) its variance is
/// 2a²s² + (2aμ + b)²s; the law at β has 1/s = 1 − β + β/v and μ = sβm/v.
fn path_length() -> f64 {
    let n = 1000;
    let rate = |beta: f64| {
        let of = |(m, v): (&f64, &f64)| {
            let (a, b, s) = (0.5 * (1.0 - 1.0 / v), m / v, 1.0 / (1.0 - beta + beta / v));
            let mean = s * beta * m / v;
            2.0 * a * a * s * s + (2.0 * a * mean + b).powi(2) * s
        };
        MEAN.iter().zip(&VARIANCES).map(of).sum::<f64>().sqrt()
    };
    (0..n).map(|i| rate((f64::from(i) + 0.5) / f64::from(n))).sum::<f64>() / f64::from(n)
}

/// Particles that all lie where there is no density end a run at its first level, and settings that no run can keep are told by name.
#[test]
fn annealing_refuses_what_cannot_work() -> Outcome {
    let nowhere = TargetFn::new("nowhere", 3, None, |_: &[f64], score: &mut [f64]| {
        score.fill(0.0);
        f64::NEG_INFINITY
    });
    let calm = annealed(Resampling::Never)?;
    let told = |sampler: &Annealed, target: &dyn Target| {
        sampler.draw(target, 50, Noise::new(0)).err().map(|e| e.to_string()).unwrap_or_default()
    };
    let lost = told(&Annealed { temperatures: Temperatures::Adaptive(0.9), ..calm.clone() }, &nowhere);
    assert!(lost.contains("no particle has a positive weight at a level of 0.000000001"), "{lost}");
    for share in [0.0, 1.1, f64::NAN] {
        let message = told(&annealed(Resampling::Below(share))?, &target()?);
        assert!(message.contains("effective share to resample below must lie in"), "{message}");
    }
    let many = Temperatures::Given((1..=100_001).map(|k| f64::from(k) / 100_001.0).collect());
    let message = told(&Annealed { temperatures: many, ..calm.clone() }, &target()?);
    assert!(message.contains("number of levels given must lie in [1, 100000]: got 100001"), "{message}");
    let message = told(&Annealed { moves: 1_000_000, ..calm }, &target()?);
    assert!(message.contains("moves a level must lie in [1, 42949]"), "{message}");
    Ok(())
}

/// Chain i is the same alone and among others, on one thread and on many.
#[test]
fn a_chain_does_not_depend_on_its_batch_or_threads() -> Outcome {
    let samplers: [Box<dyn TargetSampler + Sync>; 4] = [
        Box::new(Hmc { fit: Fit::None, ..hmc()? }),
        Box::new(Nuts { fit: Fit::None, ..nuts()? }),
        Box::new(Mala { fit: Fit::None, ..mala()? }),
        Box::new(Annealed { step_size: StepSize::Fixed(0.3), ..annealed(Resampling::Never)? }),
    ];
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build()?;
    for sampler in samplers {
        let many = pool.install(|| sampler.draw(&target()?, 70, Noise::new(8)))?.samples.to_vec2::<f64>()?;
        let few = sampler.draw(&target()?, 3, Noise::new(8))?.samples.to_vec2::<f64>()?;
        assert_eq!(few[..], many[..3], "{}", sampler.name());
    }
    Ok(())
}

/// Two Gaussians in one dimension: bridged from exact samples of both, log Ẑ is right within its own error bar, which is that of repeated estimates.
#[test]
fn bridges_know_their_error() -> Outcome {
    let (count, runs) = (400, 60);
    let mut estimates = Vec::new();
    for seed in 0..runs {
        let mut draws = Noise::new(seed).draws(sde_core::noise::Stream::User, 0, 0);
        // μ = N(0, 1) with Z = e², q = N(0.7, 1.3²): l = log μ̂ − log q.
        let l = |x: f64| 2.0 - 0.5 * x * x + 0.5 * ((x - 0.7) / 1.3).powi(2) + 1.3_f64.ln();
        let of_target: Vec<f64> = (0..count).map(|_| l(draws.normal())).collect();
        let of_gaussian: Vec<f64> = (0..count / 2).map(|_| l(0.7 + 1.3 * draws.normal())).collect();
        estimates.push(log_normaliser(&of_target, &of_gaussian)?);
    }
    let stated = estimates.iter().filter_map(|e| e.standard_error).map(|e| e * e).sum::<f64>() / runs as f64;
    let seen = estimates.iter().map(|e| (e.value - 2.0).powi(2)).sum::<f64>() / runs as f64;
    // A variance of 60 numbers has a relative standard error of √(2/60) = 0.18.
    assert!((seen / stated - 1.0).abs() < 5.0 * 0.18, "{seen} {stated}");
    assert!(log_normaliser(&[f64::NEG_INFINITY], &[0.0]).is_err());
    // What cannot be a sample of the target does not count as one.
    let (inside, outside) = ([0.3, -0.2, 0.1], [0.0, 0.4]);
    let with = log_normaliser(&[0.3, f64::NEG_INFINITY, -0.2, f64::NEG_INFINITY, 0.1], &outside)?;
    assert_eq!(with, log_normaliser(&inside, &outside)?);
    Ok(())
}

/// Up to D + 1 samples have no covariance of full rank, which rounding hides from a factorisation: whatever the seed, they are refused.
#[test]
fn a_covariance_of_too_few_samples_is_refused() -> Outcome {
    let short = Hmc { warmup: 2, iterations: 1, ..hmc()? };
    for seed in 0..40 {
        for samples in [4, 6, 8] {
            let found = short.draw(&target()?, samples, Noise::new(seed));
            let message = found.err().map(|e| e.to_string()).unwrap_or_default();
            assert!(
                message.contains(&format!("fits {} samples", samples / 2)),
                "{seed} {samples}: {message}"
            );
        }
    }
    assert!(short.draw(&target()?, 10, Noise::new(0))?.log_normaliser.is_some_and(f64::is_finite));
    Ok(())
}

/// Flat on (−1, 1) and not a number outside, from starts of which nine in ten lie outside and many too far: an error that names a chain, and no samples. From
/// just outside the no-U-turn sampler finds its way in, and its law is right: E x² = 1/3, Var x² = 4/45.
#[test]
fn chains_that_never_arrive_are_an_error() -> Outcome {
    let flat = TargetFn::new("interval", 1, None, |x: &[f64], score: &mut [f64]| {
        score[0] = 0.0;
        if x[0].abs() < 1.0 { 0.0 } else { f64::NAN }
    });
    let far = Base::isotropic(1, 10.0)?;
    let start = Hmc { base: far.clone(), mass: Mass::Unit, fit: Fit::None, ..hmc()? };
    let samplers: [Box<dyn TargetSampler>; 4] = [
        Box::new(Nuts { base: far.clone(), fit: Fit::None, step_size: 1e-3, depth: 3, ..nuts()? }),
        Box::new(Mala { base: far.clone(), fit: Fit::None, ..mala()? }),
        Box::new(Hmc { warmup: 0, iterations: 1, ..start.clone() }),
        Box::new(start),
    ];
    for sampler in samplers {
        let found = sampler.draw(&flat, 200, Noise::new(5));
        let message = found.err().map(|e| e.to_string()).unwrap_or_default();
        let expected =
            [": the log density of chain ", " is still NaN at the end: start where the target has mass"];
        assert!(expected.iter().all(|part| message.contains(part)), "{}: {message}", sampler.name());
    }
    let near = Nuts { base: Base::isotropic(1, 2.0)?, warmup: 60, fit: Fit::None, step_size: 0.3, ..nuts()? };
    let count = 2000;
    let rows = near.draw(&flat, count, Noise::new(5))?.samples.to_vec2::<f64>()?;
    let square = rows.iter().map(|x| x[0] * x[0]).sum::<f64>() / count as f64;
    assert!((square - 1.0 / 3.0).abs() < 5.0 * (4.0 / 45.0 / count as f64).sqrt(), "{square}");
    Ok(())
}

/// A target whose score is that of another shape.
struct Crooked;

impl Target for Crooked {
    fn name(&self) -> &str {
        "crooked"
    }
    fn dim(&self) -> usize {
        3
    }
    fn log_normaliser(&self) -> Option<f64> {
        None
    }
    fn log_density(&self, x: &Tensor) -> sde_core::Result<sde_core::target::LogDensity> {
        Ok(sde_core::target::LogDensity { value: x.sum(1)?, score: x.narrow(1, 0, 2)? })
    }
}

#[test]
fn shapes_that_do_not_fit_are_refused() -> Outcome {
    let message = hmc()?.draw(&Crooked, 9, Noise::new(0)).err().map(|e| e.to_string()).unwrap_or_default();
    assert!(
        message.contains("[9] and [9, 3] in f64 of the target crooked, found [9] in F64 and [9, 2]"),
        "{message}"
    );
    assert!(Base::isotropic(0, 1.0).is_err());
    for sampler in [&hmc()? as &dyn TargetSampler, &nuts()?, &mala()?, &annealed(Resampling::Never)?] {
        let message =
            sampler.draw(&target()?, 0, Noise::new(0)).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(message.contains("samples drawn from a target must lie in"), "{}: {message}", sampler.name());
    }
    Ok(())
}

/// A half line: half of the starts have no density, and no sample has left it.
#[test]
fn points_outside_the_support_are_never_kept() -> Outcome {
    let half = TargetFn::new("half", 1, None, |x: &[f64], score: &mut [f64]| {
        score[0] = -x[0];
        if x[0] < 0.0 { f64::NAN } else { -0.5 * x[0] * x[0] }
    });
    let (base, mass) = (Base::isotropic(1, 1.0)?, Mass::Unit);
    let hmc = Hmc { base: base.clone(), warmup: 0, mass, step_size: 0.3, fit: Fit::None, ..hmc()? };
    let rows = hmc.draw(&half, 300, Noise::new(2))?.samples.to_vec2::<f64>()?;
    let inside = rows.iter().filter(|x| x[0] >= 0.0).count();
    assert_eq!(inside, 300);
    let smc = Annealed { base, step_size: StepSize::Fixed(0.3), ..annealed(Resampling::Below(0.5))? };
    let log = smc.draw(&half, 4000, Noise::new(2))?.log_normaliser.ok_or("no log Z")?;
    // Inside, the base is the target: Ẑ is that of N(0, 1), √(2π), times the share of starts inside, and nothing else.
    let noise = Noise::new(2);
    let inside = |i: &u32| noise.draws_at(sde_core::noise::Stream::Prior, 0, 0, *i).normal() >= 0.0;
    let share = (0..4000).filter(inside).count() as f64 / 4000.0;
    assert!((log - (0.5 * std::f64::consts::TAU.ln() + share.ln())).abs() < 1e-10, "{log}");
    Ok(())
}

/// Steps so long that a trajectory overflows to NaN: the warm-up shortens them, and the law is right. E x² of e^{−x⁴/4} is 2 Γ(¾)/Γ(¼), E x⁴ is 1.
#[test]
fn a_warm_up_comes_back_from_steps_that_overflow() -> Outcome {
    let quartic = TargetFn::new("quartic", 1, None, |x: &[f64], score: &mut [f64]| {
        score[0] = -x[0].powi(3);
        -0.25 * x[0].powi(4)
    });
    let (base, mass) = (Base::isotropic(1, 1.0)?, Mass::Unit);
    let hmc = Hmc { base, warmup: 100, mass, step_size: 50.0, fit: Fit::None, ..hmc()? };
    let count = 3000;
    let rows = hmc.draw(&quartic, count, Noise::new(6))?.samples.to_vec2::<f64>()?;
    let square = rows.iter().map(|x| x[0] * x[0]).sum::<f64>() / count as f64;
    let expected = 0.675_978_240_067_285;
    let error = ((1.0 - expected * expected) / count as f64).sqrt();
    assert!((square - expected).abs() < 5.0 * error, "{square}");
    Ok(())
}

#[test]
fn settings_are_refused_with_the_way_out() -> Outcome {
    let point = Tensor::zeros((1, 3), candle_core::DType::F64, &Device::Cpu)?;
    assert_eq!(target()?.log_density(&point)?.value.dims(), [1]);
    let refused = |sampler: &dyn TargetSampler, samples| -> Result<String, Box<dyn std::error::Error>> {
        Ok(sampler.draw(&target()?, samples, Noise::new(0)).err().map(|e| e.to_string()).unwrap_or_default())
    };
    let levels = Temperatures::Given(vec![0.5, 0.4, 1.0]);
    let falling = Annealed { temperatures: levels, ..annealed(Resampling::Never)? };
    assert!(refused(&falling, 9)?.contains("rising numbers in (0, 1] that end with 1"));
    let wide = Hmc { base: Base::isotropic(4, 1.0)?, ..hmc()? };
    assert!(refused(&wide, 9)?.contains("expected 3 dimensions, as the target gaussian, found 4"));
    assert!(
        refused(&Hmc { mass: Mass::Diagonal(vec![1.0]), ..hmc()? }, 9)?
            .contains("expected 3 masses, found 1")
    );
    assert!(refused(&Hmc { step_size: 0.0, ..hmc()? }, 9)?.contains("step size must lie in"));
    assert!(refused(&hmc()?, 2)?.contains("no Gaussian in 3 dimensions fits 1 samples"));
    Ok(())
}
