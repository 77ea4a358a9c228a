//! Diagnostics of scores against closed forms: exact scores of mixtures have none of these defects, wrong ones have those that were
//! computed for them to twelve digits, and Gaussians flow along known paths.

use candle_core::{DType, Device, Tensor};
use nalgebra::DMatrix;
use sde_core::noise::{Noise, Stream};
use sde_core::oracle::Mixture;
use sde_core::process::{LinearPath, SubVp, Ve, Vp};
use sde_core::{FieldFn, LinearSde, OracleField, Prediction, ScalarSde};
use sde_eval::score::{
    Boxes, Directions, ErrorMap, KnownLaw, Noised, Steps, asymmetry, dsm_loss, fokker_planck,
    fokker_planck_residual, score_error, trajectories,
};
use sde_eval::{Result, Window};
use sde_solvers::{Adaptive, Chart};

const AXES: Directions = Directions::Axes;
const SIGNS: Directions = Directions::Random { probes: 4 };

/// ⅕ N((−5, −5), I) + ⅘ N((5, 5), I).
fn two_modes() -> Result<Mixture> {
    let identity = DMatrix::identity(2, 2);
    Ok(Mixture::new(&[0.2, 0.8], &[vec![-5.0, -5.0], vec![5.0, 5.0]], &[identity.clone(), identity])?)
}

fn draw(law: &Mixture, n: u32) -> Result<Tensor> {
    let points: Vec<f64> =
        (0..n).flat_map(|i| law.sample(&mut Noise::new(3).draws(Stream::User, 0, i))).collect();
    Ok(Tensor::from_vec(points, (n as usize, law.dim()), &Device::Cpu)?)
}

fn row(x: &Tensor) -> Result<Vec<f64>> {
    Ok(x.flatten_all()?.to_vec1()?)
}

/// The score `M u + c` of every state, at a time that decides M and c.
fn affine_score(f: impl Fn(f64) -> (Vec<f64>, Vec<f64>)) -> impl sde_core::Field {
    FieldFn::new(Prediction::Score, move |u: &Tensor, t: &[f64]| {
        let (matrix, shift) = f(t[0]);
        let d = shift.len();
        let matrix = Tensor::from_vec(matrix, (d, d), &Device::Cpu)?.t()?;
        Ok(u.matmul(&matrix)?.broadcast_add(&Tensor::from_vec(shift, (1, d), &Device::Cpu)?)?)
    })
}

#[test]
fn an_exact_score_solves_its_equation() -> Result<()> {
    let law = two_modes()?;
    let x = draw(&law, 24)?;
    let processes: [&dyn LinearSde; 4] = [&Vp::STANDARD, &Ve::STANDARD, &SubVp::STANDARD, &LinearPath];
    for sde in processes {
        let field = OracleField::noise(&law, sde);
        let points = Noised { sde, field: &field, data: &x, noise: Noise::new(0), batch: 7 };
        for t in [1e-5, 0.05, 0.3, 0.6, 0.9] {
            let axes = fokker_planck(&points, t, AXES, Steps::DOUBLE)?;
            // Close to the data the score hardly changes in a step of the clock, and rounding is more of the change.
            let least = if t < 1e-3 { 1e-6 } else { 1e-7 };
            assert!(axes.relative() < least, "{t}: {}", axes.relative());
            let told = axes.difference_error / axes.rate_squared.value.sqrt();
            assert!(axes.relative() <= told + 1e-12 && told < 1e-3, "{t}: {} of {told}", axes.relative());
            assert!(axes.norm.is_some_and(|norm| norm.value < least * axes.rate_squared.value.sqrt()));
        }
    }
    Ok(())
}

#[test]
fn random_directions_are_unbiased_where_one_estimate_is_not() -> Result<()> {
    let law = two_modes()?;
    let x = draw(&law, 400)?;
    let sde = Ve::STANDARD;
    let field = OracleField::noise(&law, &sde);
    let points = Noised { sde: &sde, field: &field, data: &x, noise: Noise::new(0), batch: 200 };
    let found = fokker_planck(&points, 0.7, SIGNS, Steps::DOUBLE)?;
    let error = found.squared.standard_error.unwrap_or(0.0);
    assert!(found.squared.value.abs() < 4.0 * error, "{:?}", found.squared);
    // The square of a single estimate would be 1.46/4, as the specification of this diagnostic found.
    assert!(found.squared.value.abs() < 0.2, "{:?}", found.squared);
    assert!(found.norm.is_none());

    // A wrong score: along axes and from random signs the same, within the error.
    let wrong = affine_score(|t| {
        let v = 0.25 + Ve::STANDARD.sigma(t).powi(2);
        (vec![-1.1 / v, 0.3, -0.3, -1.1 / v], vec![0.0, 0.2])
    });
    let points = Noised { field: &wrong, ..points };
    let (axes, signs) = (
        fokker_planck(&points, 0.4, AXES, Steps::DOUBLE)?,
        fokker_planck(&points, 0.4, SIGNS, Steps::DOUBLE)?,
    );
    let error = signs.squared.standard_error.unwrap_or(0.0);
    assert!(axes.relative() > 0.1);
    let gap = axes.squared.value - signs.squared.value;
    assert!(gap.abs() < 4.0 * error, "{} and {}", axes.squared.value, signs.squared.value);
    Ok(())
}

/// Wrong scores on N(0, v₀ I), v₀ = 0.25, at t = 0.4 and x = (0.7, −1.1, 0.4): their residuals to nine digits.
#[test]
fn residuals_of_wrong_scores_are_the_known_ones() -> Result<()> {
    let x = Tensor::new(&[[0.7, -1.1, 0.4]], &Device::Cpu)?;
    let skew = [0.0, 0.3, -0.2, -0.3, 0.0, 0.5, 0.2, -0.5, 0.0];
    let (ve, vp) = (Ve::STANDARD, Vp::STANDARD);
    let cases: [(&dyn LinearSde, [[f64; 3]; 2], f64); 2] = [
        (
            &ve,
            [[-1.026_626_83, 1.613_270_74, -0.586_643_90], [-0.218_635_97, 0.725_685_34, -0.119_396_95]],
            2.273_433_19,
        ),
        (&vp, [[-0.852_265_73, 1.339_274_72, -0.487_008_99], [-1.136_46, 3.772_08, -0.620_62]], 2.707_583_82),
    ];
    for (sde, [scaled, rotated], shifted) in cases {
        let variance = |t: f64| {
            let (a, v) = (sde.signal(t).as_scalar(), sde.covariance(t).as_scalar());
            a.unwrap_or(0.0).powi(2) * 0.25 + v.unwrap_or(0.0)
        };
        let of = |factor: f64, skewed: f64, shift: [f64; 3]| {
            affine_score(move |t| {
                let matrix = (0..9).map(|k| {
                    let diagonal = if k % 4 == 0 { -factor / variance(t) } else { 0.0 };
                    diagonal + skewed * skew[k]
                });
                (matrix.collect(), shift.to_vec())
            })
        };
        let residual =
            |field: &dyn sde_core::Field| row(&fokker_planck_residual(sde, field, &x, 0.4, Steps::DOUBLE)?);
        for (found, expected) in [
            (residual(&of(1.1, 0.0, [0.0; 3]))?, scaled),
            (residual(&of(1.0, 1.0, [0.0; 3]))?, rotated),
            (residual(&of(1.0, 0.0, [0.5, -1.0, 2.0]))?, [shifted, -2.0 * shifted, 4.0 * shifted]),
        ] {
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-5 * expected.abs(), "{found}, not {expected}");
            }
        }
    }
    Ok(())
}

#[test]
fn a_gradient_has_no_asymmetry_and_a_rotation_all_of_it() -> Result<()> {
    let law = two_modes()?;
    let x = draw(&law, 300)?;
    let sde = Vp::STANDARD;
    let exact = OracleField::noise(&law, &sde);
    let points = Noised { sde: &sde, field: &exact, data: &x, noise: Noise::new(0), batch: 300 };
    for directions in [AXES, SIGNS] {
        let found = asymmetry(&points, 0.3, directions)?;
        assert!(found.ratio.value < 1e-12 && found.jacobian.value > 0.0, "{found:?}");
    }
    let rotation = affine_score(|_| (vec![0.0, -1.0, 1.0, 0.0], vec![0.0, 0.0]));
    let found = asymmetry(&Noised { field: &rotation, ..points }, 0.3, AXES)?;
    assert!((found.ratio.value - 2.0).abs() < 1e-14 && (found.antisymmetric.value - 8.0).abs() < 1e-13);

    // ‖J − Jᵀ‖² = 26.08, ‖J‖² = 17.29.
    let matrix = vec![1.0, 2.0, 0.0, -1.0, 0.5, 3.0, 0.2, 1.0, -1.0];
    let given = affine_score(move |_| (matrix.clone(), vec![0.0; 3]));
    let space = Tensor::zeros((500, 3), DType::F64, &Device::Cpu)?;
    let points = Noised { field: &given, data: &space, ..points };
    let axes = asymmetry(&points, 0.3, AXES)?;
    assert!((axes.antisymmetric.value - 26.08).abs() < 1e-12);
    assert!((axes.ratio.value.powi(2) / 4.0 - 26.08 / 69.16).abs() < 1e-14);
    let signs = asymmetry(&points, 0.3, SIGNS)?;
    for (found, exact) in [
        (signs.antisymmetric, axes.antisymmetric),
        (signs.jacobian, axes.jacobian),
        (signs.ratio, axes.ratio),
    ] {
        let error = found.standard_error.unwrap_or(0.0);
        assert!(error > 0.0 && (found.value - exact.value).abs() < 4.0 * error, "{found:?}, {exact:?}");
    }
    Ok(())
}

/// Of N(0, v I): ε given the state has the variance α²v/V left, which no prediction can go below.
#[test]
fn the_loss_of_an_exact_score_is_the_variance_that_is_left() -> Result<()> {
    let (sde, v) = (Vp::STANDARD, 0.25);
    let law = Mixture::diagonal(vec![0.0; 4], vec![v; 4])?;
    let x = draw(&law, 2000)?;
    let exact = OracleField::noise(&law, &sde);
    let points = Noised { sde: &sde, field: &exact, data: &x, noise: Noise::new(1), batch: 999 };
    for t in [0.01, 0.3, 0.8] {
        let (alpha, sigma) = (ScalarSde::alpha(&sde, t), ScalarSde::sigma(&sde, t));
        let left = alpha * alpha * v / (alpha * alpha * v + sigma * sigma);
        let found = dsm_loss(&points, t)?;
        let error = found.noise.standard_error.unwrap_or(0.0);
        assert!((found.noise.value - left).abs() < 4.0 * error, "{t}: {:?}, not {left}", found.noise);
        assert_eq!(found.noise.n, 2000);
        assert!(score_error(&points, &law, t)?.noise.value < 1e-25);

        // A prediction that is wrong by a factor has that much above the least.
        let wrong = FieldFn::new(Prediction::Noise, |u: &Tensor, t: &[f64]| {
            Ok((sde_core::Field::eval(&OracleField::noise(&law, &Vp::STANDARD), u, t)? * 1.2)?)
        });
        let wrong = Noised { field: &wrong, ..points };
        let excess = score_error(&wrong, &law, t)?.noise;
        // E ε̂² = σ²/V.
        let expected = 0.04 * (1.0 - left);
        assert!((excess.value - expected).abs() < 4.0 * excess.standard_error.unwrap_or(0.0), "{t}");
        // But for the mean of 2 · 0.2 ε̂ (ε̂ − ε), whose factors are independent, of variance 1 − left and left.
        let more = dsm_loss(&wrong, t)?.noise.value - found.noise.value - excess.value;
        assert!(more.abs() < 4.0 * 0.4 * (left * (1.0 - left) / 8000.0).sqrt(), "{t}: {more}");
    }
    Ok(())
}

/// One coordinate of N(0, v₀) flows as √(V_t/V_a) x: energy ∫ V̇²/(4V) dt, displacement (√V_b − √V_a)².
#[test]
fn gaussians_flow_along_known_paths() -> Result<()> {
    let (v0, ends) = (0.25, (1e-3, 1.0));
    let law = Mixture::diagonal(vec![0.0; 2], vec![v0; 2])?;
    let x = draw(&law, 500)?;
    let processes: [&dyn LinearSde; 2] = [&Vp::STANDARD, &Ve::new(0.01, 5.0)?];
    for sde in processes {
        let exact = OracleField::noise(&law, sde);
        let points = Noised { sde, field: &exact, data: &x, noise: Noise::new(1), batch: 500 };
        let variance = |t: f64| {
            let (a, s) = (sde.signal(t).as_scalar(), sde.covariance(t).as_scalar());
            a.unwrap_or(0.0).powi(2) * v0 + s.unwrap_or(0.0)
        };
        // The same integral over the points there are: their x² instead of its mean.
        let start = points_at(&points, ends.0)?;
        let mean_square: f64 = start.iter().map(|u| u * u).sum::<f64>() / 500.0 / variance(ends.0);
        let cells = 20_000;
        let h = (ends.1 - ends.0) / f64::from(cells);
        let speed = |t: f64| {
            let slope = (variance(t + 1e-5) - variance(t - 1e-5)) / 2e-5;
            slope * slope / (4.0 * variance(t))
        };
        let energy: f64 =
            (0..cells).map(|k| speed(ends.0 + (f64::from(k) + 0.5) * h) * h).sum::<f64>() * mean_square;
        let moved = (variance(ends.1).sqrt() - variance(ends.0).sqrt()).powi(2) * mean_square;
        let found = trajectories(&points, &Adaptive::new(1e-9, 1e-10), Chart::Time, ends)?;
        assert!((found.energy.value / energy - 1.0).abs() < 1e-5, "{} of {energy}", found.energy.value);
        let straightness = energy - moved / (ends.1 - ends.0);
        assert!((found.straightness.value / straightness - 1.0).abs() < 1e-4, "{straightness}");
        assert!(found.length_ratio.value >= 1.0 - 1e-9 && found.unfinished == 0);
        let clock = trajectories(&points, &Adaptive::new(1e-9, 1e-10), Chart::Clock, ends)?;
        assert!((clock.energy.value / found.energy.value - 1.0).abs() < 1e-6);
    }
    Ok(())
}

fn points_at(points: &Noised<'_>, t: f64) -> Result<Vec<f64>> {
    // A field that says where it was asked.
    let seen = std::cell::RefCell::new(Vec::new());
    let field = FieldFn::new(Prediction::Noise, |u: &Tensor, _: &[f64]| {
        seen.borrow_mut().extend(u.flatten_all()?.to_vec1::<f64>()?);
        Ok(u.clone())
    });
    dsm_loss(&Noised { field: &field, ..*points }, t)?;
    Ok(seen.into_inner())
}

#[test]
fn a_straight_line_has_no_curvature_at_all() -> Result<()> {
    let line = FieldFn::new(Prediction::Velocity, |u: &Tensor, _: &[f64]| {
        Ok(Tensor::new(&[3.0, -4.0], &Device::Cpu)?.broadcast_as(u.dims())?.contiguous()?)
    });
    let x = Tensor::zeros((5, 2), DType::F64, &Device::Cpu)?;
    let points = Noised { sde: &LinearPath, field: &line, data: &x, noise: Noise::new(0), batch: 5 };
    let found = trajectories(&points, &Adaptive::new(1e-6, 1e-6), Chart::Time, (0.0, 1.0))?;
    // Rounding of sums of size 25 is all there is.
    assert!((found.energy.value - 25.0).abs() < 1e-13 && found.straightness.value.abs() < 1e-13, "{found:?}");
    assert!((found.length_ratio.value - 1.0).abs() < 1e-14);
    Ok(())
}

#[test]
fn error_maps_show_the_error_and_weigh_it_by_the_density() -> Result<()> {
    let sde = Vp::STANDARD;
    let law = Mixture::diagonal(vec![0.3, -0.1], vec![0.2, 0.4])?;
    let off = FieldFn::new(Prediction::Noise, |u: &Tensor, t: &[f64]| {
        let exact = sde_core::Field::eval(&OracleField::noise(&law, &Vp::STANDARD), u, t)?;
        Ok(exact.broadcast_add(&Tensor::new(&[[0.3, -0.4]], &Device::Cpu)?)?)
    });
    let side = [-6.0, 6.0];
    let window = Window { x: side, y: side, nx: 60, ny: 50 };
    let map = ErrorMap::new(&sde, &off, &law, &window, 0.2, 77)?;
    assert_eq!(map.values.dim(), (50, 60));
    assert!(map.values.iter().all(|e| (e - 0.5).abs() < 1e-13));
    assert!((map.root_mean_square() - 0.5).abs() < 1e-13 && (map.mass() - 1.0).abs() < 1e-9);
    Ok(())
}

#[test]
fn what_makes_no_sense_is_refused() -> Result<()> {
    let (sde, law) = (Vp::STANDARD, two_modes()?);
    let x = draw(&law, 3)?;
    let field = OracleField::noise(&law, &sde);
    let points = Noised { sde: &sde, field: &field, data: &x, noise: Noise::new(0), batch: 3 };
    let none = Directions::Random { probes: 0 };
    assert!(fokker_planck(&points, 0.3, none, Steps::DOUBLE).is_err());
    assert!(asymmetry(&points, 0.3, none).is_err());
    assert!(fokker_planck(&points, 1.5, AXES, Steps::DOUBLE).is_err());
    assert!(dsm_loss(&Noised { batch: 0, ..points }, 0.3).is_err());
    let other = Mixture::diagonal(vec![0.0], vec![1.0])?;
    assert!(score_error(&points, &other, 0.3).is_err());
    let window = Window { x: [0.0, 1.0], y: [0.0, 1.0], nx: 2, ny: 2 };
    assert!(ErrorMap::new(&sde, &field, &other, &window, 0.3, 4).is_err());
    Ok(())
}

/// Of boxes: the density of the noised law is a mean over its points, ε the slope of its logarithm, and no loss is below its own.
#[test]
fn boxes_are_known_at_every_time() -> Result<()> {
    let corner = |x: f64, y: f64| (vec![x, y], vec![x + 0.5, y + 1.0]);
    let boxes = Boxes::new(vec![corner(-1.0, 0.0), corner(0.25, -1.5)])?;
    let draw = |i: u32| {
        let mut draws = Noise::new(3).draws(Stream::User, 1, i);
        let [x, y] = if draws.sign() > 0.0 { [-1.0, 0.0] } else { [0.25, -1.5] };
        [x + 0.5 * draws.uniform(), y + draws.uniform()]
    };
    let n = 20_000;
    let points: Vec<[f64; 2]> = (0..n).map(draw).collect();
    for (sde, t) in [(&Vp::STANDARD as &dyn LinearSde, 0.2), (&Ve::STANDARD, 0.6), (&LinearPath, 0.4)] {
        let (alpha, sigma) =
            (sde.signal(t).as_scalar().unwrap_or(0.0), sde.factor(t).as_scalar().unwrap_or(0.0));
        for u in [[0.3, -0.2], [-0.6, 0.4], [1.0, 1.5]] {
            let at = |x: f64, y: f64| boxes.noised(sde, &Tensor::new(&[[x, y]], &Device::Cpu)?, t);
            let (log, noise) = at(u[0], u[1])?;
            let terms: Vec<f64> = points
                .iter()
                .map(|x| {
                    let square: f64 = x.iter().zip(u).map(|(x, u)| (u - alpha * x).powi(2)).sum();
                    (-0.5 * square / (sigma * sigma)).exp() / (std::f64::consts::TAU * sigma * sigma)
                })
                .collect();
            let mean = sde_eval::Estimate::mean(&terms)?;
            let bar = mean.standard_error.unwrap_or(0.0);
            assert!((log[0].exp() - mean.value).abs() < 4.0 * bar, "{t} {u:?}: {} {mean:?}", log[0].exp());
            let h = 1e-4 * sigma;
            let slope = |x: f64, y: f64| -> Result<f64> {
                let difference = at(u[0] + x, u[1] + y)?.0[0] - at(u[0] - x, u[1] - y)?.0[0];
                Ok(-sigma * difference / (2.0 * h))
            };
            for (found, expected) in row(&noise)?.into_iter().zip([slope(h, 0.0)?, slope(0.0, h)?]) {
                assert!((found - expected).abs() < 1e-6, "{t} {u:?}: {found}, not {expected}");
            }
        }
    }
    let far = Tensor::new(&[[60.0, -80.0]], &Device::Cpu)?;
    let (log, noise) = boxes.noised(&Vp::STANDARD, &far, 0.01)?;
    assert!(log[0].is_finite() && log[0] < -1e5 && row(&noise)?.iter().all(|e| e.is_finite()), "{log:?}");
    assert!(Boxes::new(vec![(vec![0.0], vec![0.0])]).is_err() && Boxes::new(vec![]).is_err());
    assert!(boxes.noised(&Vp::STANDARD, &far, 0.0).is_err());
    Ok(())
}
