//! Targets: scores against finite differences, normalisers against quadrature, forms that must agree, points that are refused.

use candle_core::{Device, Tensor};
use nalgebra::DMatrix;
use sde_core::noise::{Noise, Stream};
use sde_core::oracle::Mixture;
use sde_core::process::Vp;
use sde_core::target::{Cox, CoxGrid, Funnel, LogWeights, MixtureTarget, Rings, gaussian};
use sde_core::{Error, OracleField, Result, Target, TargetFn};

fn at(target: &dyn Target, x: &[f64]) -> Result<(f64, Vec<f64>)> {
    let x = Tensor::from_vec(x.to_vec(), (1, x.len()), &Device::Cpu)?;
    let density = target.finite_log_density(&x)?;
    Ok((density.value.to_vec1::<f64>()?[0], density.score.flatten_all()?.to_vec1()?))
}

fn skewed() -> Result<Mixture> {
    let full = DMatrix::from_row_slice(2, 2, &[0.5, 0.2, 0.2, 0.3]);
    let narrow = DMatrix::from_row_slice(2, 2, &[0.1, -0.05, -0.05, 0.2]);
    Mixture::new(&[0.3, 0.7], &[vec![1.0, 0.0], vec![-1.0, 0.5]], &[full, narrow])
}

fn points(n: usize, dim: usize, scale: f64) -> Vec<Vec<f64>> {
    let mut draws = Noise::new(5).draws(Stream::User, 0, dim as u32);
    (0..n).map(|_| (0..dim).map(|_| scale * draws.normal()).collect()).collect()
}

#[test]
fn scores_are_the_gradients() -> Result<()> {
    let counts: Vec<f64> = (0..16).map(|i| f64::from(i % 3)).collect();
    let grid = CoxGrid::published(4, 16);
    let targets: Vec<(Box<dyn Target>, f64)> = vec![
        (Box::new(MixtureTarget::new("mixture", &skewed()?, 0.7)?), 1.0),
        (Box::new(gaussian(vec![0.3, -1.0, 2.0], vec![0.2, 1.0, 4.0], -2.0)?), 1.0),
        (Box::new(Funnel::new(10, 9.0)?), 1.5),
        (Box::new(Rings), 2.0),
        (Box::new(Cox::new(grid, &counts, false)?), 1.0),
        (Box::new(Cox::new(grid, &counts, true)?), 1.0),
    ];
    for (target, scale) in &targets {
        for x in points(5, target.dim(), *scale) {
            let (_, score) = at(target, &x)?;
            for i in 0..x.len() {
                let moved = |h: f64| {
                    let mut x = x.clone();
                    x[i] += h;
                    Ok::<_, Error>(at(target, &x)?.0)
                };
                let h = 1e-4;
                // Central differences of fourth order: h⁴ of a fifth derivative.
                let found =
                    (8.0 * (moved(h)? - moved(-h)?) - (moved(2.0 * h)? - moved(-2.0 * h)?)) / (12.0 * h);
                let scale = score.iter().fold(1.0, |a: f64, s| a.max(s.abs()));
                assert!(
                    (found - score[i]).abs() < 1e-7 * scale,
                    "{} {i}: {found} {}",
                    target.name(),
                    score[i]
                );
            }
        }
    }
    Ok(())
}

#[test]
fn a_mixture_as_a_target_is_the_oracle_without_noise() -> Result<()> {
    let (mixture, sde) = (skewed()?, Vp::STANDARD);
    let target = MixtureTarget::new("mixture", &mixture, 1.5)?;
    for x in points(8, 2, 1.0) {
        let batch = Tensor::from_vec(x.clone(), (1, 2), &Device::Cpu)?;
        // The noise at this time has a variance of 1e-9.
        let oracle = OracleField::noise(&mixture, &sde).log_density(&batch, &[1e-8])?[0];
        assert!((at(&target, &x)?.0 - 1.5 - oracle).abs() < 1e-6);
    }
    Ok(())
}

/// ∫ f over [a, b] by the trapezium rule, which converges exponentially for what vanishes at both ends.
fn integral(a: f64, b: f64, n: usize, f: impl Fn(f64) -> Result<f64>) -> Result<f64> {
    let h = (b - a) / n as f64;
    Ok(h * (0..=n).map(|i| f(a + h * i as f64)).sum::<Result<f64>>()?)
}

#[test]
fn normalisers_are_those_of_quadrature() -> Result<()> {
    let mixture = MixtureTarget::new("mixture", &skewed()?, 0.7)?;
    let z = integral(-8.0, 8.0, 400, |y| integral(-8.0, 8.0, 400, |x| Ok(at(&mixture, &[x, y])?.0.exp())))?;
    assert!((z.ln() - 0.7).abs() < 1e-9, "{}", z.ln());

    // In polar coordinates, along one ray; the cusps between rings hold e^-100.
    let z = integral(1e-9, 8.0, 40_000, |r| Ok(std::f64::consts::TAU * r * at(&Rings, &[r, 0.0])?.0.exp()))?;
    assert!((z.ln() - 2.304_881_5).abs() < 1e-7, "{}", z.ln());
    assert!((Rings.log_normaliser().unwrap_or(0.0) - z.ln()).abs() < 1e-9);

    for variance in [1.0, 9.0] {
        let funnel = Funnel::new(2, variance)?;
        let z = integral(-24.0, 24.0, 200, |neck| {
            let spread = (0.5 * neck).exp();
            Ok(spread * integral(-9.0, 9.0, 120, |v| Ok(at(&funnel, &[neck, v * spread])?.0.exp()))?)
        })?;
        assert!(z.ln().abs() < 1e-9, "{}", z.ln());
    }
    Ok(())
}

#[test]
fn a_cox_process_on_one_cell_is_poisson_under_a_log_normal() -> Result<()> {
    // Exchanging the integration over x for that over z changes nothing.
    let grid = CoxGrid::published(1, 3);
    let [field, white] = [false, true].map(|whitened| Cox::new(grid, &[3.0], whitened));
    let z = |target: Cox| integral(-15.0, 15.0, 4000, move |x| Ok(at(&target, &[x])?.0.exp()));
    let (field, white) = (z(field?)?, z(white?)?);
    let direct = integral(-12.0, 12.0, 4000, |z| {
        let x = grid.mean + 1.91f64.sqrt() * z;
        Ok((3.0 * x - x.exp() - 0.5 * z * z).exp() / std::f64::consts::TAU.sqrt())
    })?;
    assert!((field / direct - 1.0).abs() < 1e-9 && (white / direct - 1.0).abs() < 1e-9);
    Ok(())
}

#[test]
fn whitening_is_a_change_of_variables() -> Result<()> {
    let grid = CoxGrid::published(4, 16);
    let counts: Vec<f64> = (0..16).map(|i| f64::from(i % 2)).collect();
    let (field, white) = (Cox::new(grid, &counts, false)?, Cox::new(grid, &counts, true)?);
    let mut jacobian = Vec::new();
    for z in points(4, 16, 1.0) {
        let x = white.field(&Tensor::from_vec(z.clone(), (1, 16), &Device::Cpu)?)?;
        jacobian.push(at(&white, &z)?.0 - at(&field, &x.flatten_all()?.to_vec1::<f64>()?)?.0);
    }
    assert!(jacobian.iter().all(|j| (j - jacobian[0]).abs() < 1e-10), "{jacobian:?}");
    Ok(())
}

/// On 2 × 2 cells of sides 1/2, in the order (0,0), (0,1), (1,0), (1,1), K is block circulant, and the products of (1, ±1) diagonalise it: its eigenvalues are
/// v (1 ± 2e + f) with e = e^{−1/2ℓ}, f = e^{−1/√2ℓ}, and v (1 − f) twice. The whitening constant is half their logarithms' sum.
#[test]
fn a_cox_process_knows_its_neighbours() -> Result<()> {
    let (v, length, mean) = (1.3, 0.4, 0.2);
    let grid = CoxGrid { side: 2, variance: v, length, mean };
    let counts = [1.0, 0.0, 2.0, 3.0];
    let (field, white) = (Cox::new(grid, &counts, false)?, Cox::new(grid, &counts, true)?);
    let (e, f) = ((-0.5 / length).exp(), (-std::f64::consts::FRAC_1_SQRT_2 / length).exp());
    let axes = [[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, -1.0, -1.0], [1.0, -1.0, 1.0, -1.0], [1.0, -1.0, -1.0, 1.0]];
    let eigenvalues = [1.0 + 2.0 * e + f, 1.0 - f, 1.0 - f, 1.0 - 2.0 * e + f].map(|lambda| v * lambda);
    let half_log_det = 0.5 * eigenvalues.iter().map(|lambda| lambda.ln()).sum::<f64>();
    for x in points(4, 4, 1.0) {
        let along = |axis: &[f64; 4]| 0.5 * axis.iter().zip(&x).map(|(a, x)| a * (x - mean)).sum::<f64>();
        let square: f64 = axes.iter().zip(eigenvalues).map(|(axis, l)| along(axis).powi(2) / l).sum();
        let likelihood: f64 = x.iter().zip(counts).map(|(x, y)| x * y - 0.25 * x.exp()).sum();
        let prior = -0.5 * square - 2.0 * std::f64::consts::TAU.ln() - half_log_det;
        let found = at(&field, &x)?.0;
        assert!((found - prior - likelihood).abs() < 1e-12, "{found} {}", prior + likelihood);

        let moved = white.field(&Tensor::from_vec(x.clone(), (1, 4), &Device::Cpu)?)?;
        let moved = moved.flatten_all()?.to_vec1::<f64>()?;
        let jacobian = at(&white, &x)?.0 - at(&field, &moved)?.0;
        assert!((jacobian - half_log_det).abs() < 1e-12, "{jacobian} {half_log_det}");
    }
    Ok(())
}

#[test]
fn points_are_counted_in_their_cells() -> Result<()> {
    let grid = CoxGrid::published(2, 4);
    let counts = grid.counts(&[[0.1, 0.9], [0.5, 0.0], [1.0, 1.0], [0.2, 0.6]])?;
    assert_eq!(counts, [0.0, 2.0, 1.0, 1.0]);
    assert!(CoxGrid::published(0, 4).counts(&[[0.1, 0.1]]).is_err());
    assert!(grid.counts(&[[0.1, 1.1]]).is_err() && grid.counts(&[[f64::NAN, 0.1]]).is_err());
    Ok(())
}

#[test]
fn what_is_not_a_density_is_refused() -> Result<()> {
    let half = TargetFn::new("half line", 1, None, |x: &[f64], score: &mut [f64]| {
        score[0] = -1.0;
        if x[0] < 0.0 { f64::NEG_INFINITY } else { -x[0] }
    });
    let x = Tensor::new(&[[1.0], [2.0], [-1.0]], &Device::Cpu)?;
    assert_eq!(half.log_density(&x)?.value.to_vec1::<f64>()?, [-1.0, -2.0, f64::NEG_INFINITY]);
    let error = half.finite_log_density(&x).err().map(|e| e.to_string()).unwrap_or_default();
    assert!(error.contains("half line") && error.contains("sample 2"), "{error}");

    let nothing = TargetFn::new("nothing", 0, None, |_: &[f64], _: &mut [f64]| 0.0);
    let empty = Tensor::zeros((3, 0), candle_core::DType::F64, &Device::Cpu)?;
    assert!(matches!(nothing.log_density(&empty), Err(Error::Range { .. })));
    assert!(Rings.log_density(&Tensor::new(&[[1f64, 2.0, 3.0]], &Device::Cpu)?).is_err());
    assert!(Rings.log_density(&Tensor::new(&[[1f32, 2.0]], &Device::Cpu)?).is_err());
    assert!(gaussian(vec![0.0], vec![0.0], 0.0).is_err() && Funnel::new(1, 9.0).is_err());
    let grid = CoxGrid::published(2, 4);
    assert!(Cox::new(grid, &[1.0; 3], true).is_err() && Cox::new(grid, &[-1.0; 4], true).is_err());
    assert!(Cox::new(CoxGrid { length: f64::NAN, ..grid }, &[1.0; 4], false).is_err());
    Ok(())
}

#[test]
fn weights_say_what_their_sums_say() -> Result<()> {
    let logs = [1.0f64, 2.0, 4.0].map(f64::ln);
    // The same far from one, where the sums would overflow.
    for shift in [0.0, 800.0, -800.0] {
        let weights = LogWeights::new(logs.iter().map(|l| l + shift).chain([f64::NEG_INFINITY]).collect())?;
        let mean = weights.log_mean();
        assert!((mean.value - shift - 1.75f64.ln()).abs() < 1e-12);
        // Σ(w − 1.75)² = 0.5625 + 0.0625 + 5.0625 + 3.0625, over 3·4.
        assert!((mean.standard_error.unwrap_or(0.0) - (8.75f64 / 12.0).sqrt() / 1.75).abs() < 1e-12);
        assert!((weights.effective_share() - 49.0 / (4.0 * 21.0)).abs() < 1e-12);
        let chosen = weights.resample(70, &mut Noise::new(1).draws(Stream::User, 0, 0));
        let counts: Vec<usize> = (0..4).map(|i| chosen.iter().filter(|c| **c == i).count()).collect();
        let close = counts.iter().zip([10, 20, 40, 0]).all(|(&a, b): (_, usize)| a.abs_diff(b) <= 1);
        assert!(close && counts[3] == 0, "{counts:?}");
    }
    assert_eq!(LogWeights::new(vec![-3.0; 5])?.effective_share(), 1.0);
    assert!(LogWeights::new(vec![f64::NAN, 0.0]).is_err() && LogWeights::new(vec![f64::INFINITY]).is_err());
    assert!(LogWeights::new(vec![f64::NEG_INFINITY; 2]).is_err() && LogWeights::new(Vec::new()).is_err());
    Ok(())
}
