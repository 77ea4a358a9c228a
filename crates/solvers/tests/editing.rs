//! Images from images, encoding and decoding, and paths between latents.

mod support;

use candle_core::{DType, Device, Tensor};
use nalgebra::DMatrix;
use sde_core::noise::{BatchNoise, Law, Noise, Stream};
use sde_core::oracle::Mixture;
use sde_core::process::{LinearPath, Vp};
use sde_core::{OracleField, Result, TimeGrid};
use sde_solvers::edit::{grid_from, noised, slerp};
use sde_solvers::{Adaptive, Chart, Ddim, Multistep, Path, ProbabilityFlow, Sampler, Tab, prior_sample};
use support::largest_gap;

fn normals(shape: &[usize], site: u32) -> Tensor {
    let noise = BatchNoise::new(Noise::new(31), 0, 0..shape[0] as u32);
    noise.tensor(Law::Normal, Stream::User, site, &shape[1..], DType::F64, &Device::Cpu).expect("normals")
}

fn mixture() -> Result<Mixture> {
    let covariance = DMatrix::identity(2, 2) * 0.1;
    Mixture::new(&[0.5, 0.5], &[vec![1.0, 0.0], vec![-1.0, 0.4]], &[covariance.clone(), covariance])
}

#[test]
fn a_noised_start_is_the_forward_process_and_its_limit_is_the_prior() -> sde_solvers::Result<()> {
    let noise = BatchNoise::new(Noise::new(1), 0, 0..2000);
    let x = Tensor::new(&[[0.7, -1.1]], &Device::Cpu)?.broadcast_as((2000, 2))?.contiguous()?;
    let u = noised(&Vp::STANDARD, &x, 0.3, &noise)?;
    let (alpha, sigma) = (
        support::scalar(&sde_core::LinearSde::signal(&Vp::STANDARD, 0.3)),
        support::scalar(&sde_core::LinearSde::factor(&Vp::STANDARD, 0.3)),
    );
    let mean = u.mean(0)?.to_vec1::<f64>()?;
    for (found, expected) in mean.iter().zip([0.7 * alpha, -1.1 * alpha]) {
        assert!((found - expected).abs() < 5.0 * sigma / 2000f64.sqrt());
    }
    // The path of rectified flow has no signal at its end: whatever x is, that is a draw of the prior, and the same one.
    let start = prior_sample(&LinearPath, &noise, &[2], DType::F64, &Device::Cpu)?;
    assert_eq!(largest_gap(&noised(&LinearPath, &x, 1.0, &noise)?, &start), 0.0);
    assert!(noised(&LinearPath, &x.narrow(0, 0, 3)?, 1.0, &noise).is_err());
    Ok(())
}

#[test]
fn a_grid_from_within_keeps_its_times() -> sde_solvers::Result<()> {
    let grid = TimeGrid::new(vec![1.0, 0.6, 0.3, 0.1])?;
    assert_eq!(grid_from(&grid, 0.5)?.times(), [0.5, 0.3, 0.1]);
    assert_eq!(grid_from(&grid, 0.6)?.times(), [0.6, 0.3, 0.1]);
    assert_eq!(grid_from(&grid, 1.0)?, grid);
    for outside in [0.1, 0.05, 1.1, f64::NAN] {
        assert!(grid_from(&grid, outside).is_err(), "{outside}");
    }
    Ok(())
}

#[test]
fn the_later_the_start_the_less_is_left() -> sde_solvers::Result<()> {
    let (sde, data) = (Vp::STANDARD, mixture()?);
    let field = OracleField::noise(&data, &sde);
    let grid = TimeGrid::power(1.0, 1e-3, 40, 2.0)?;
    let noise = BatchNoise::new(Noise::new(2), 0, 0..500);
    let x = Tensor::new(&[[1.3, 0.2]], &Device::Cpu)?.broadcast_as((500, 2))?.contiguous()?;
    let moved = |t: f64| -> sde_solvers::Result<f64> {
        let tail = grid_from(&grid, t)?;
        let path = Path { sde: &sde, field: &field, grid: &tail };
        let edited = Ddim::DETERMINISTIC.sample(&path, &noised(&sde, &x, t, &noise)?, &noise)?.x;
        Ok((edited - &x)?.sqr()?.sum(1)?.mean_all()?.to_scalar::<f64>()?)
    };
    let distances = [0.02, 0.2, 0.5, 0.9].into_iter().map(moved).collect::<sde_solvers::Result<Vec<_>>>()?;
    assert!(distances.windows(2).all(|pair| pair[0] < pair[1]), "{distances:?}");
    assert!(distances[0] < 0.05, "{distances:?}");
    Ok(())
}

#[test]
fn decoding_undoes_encoding_as_far_as_tolerance_and_steps_allow() -> sde_solvers::Result<()> {
    let (sde, data) = (Vp::STANDARD, mixture()?);
    let field = OracleField::noise(&data, &sde);
    let flow = ProbabilityFlow::new(&sde, &field, Chart::Time);
    let x = normals(&[6, 2], 0);
    let solver =
        |tolerance| Adaptive { max_nfe: 100_000, first_step: None, ..Adaptive::new(tolerance, tolerance) };
    let mut errors = Vec::new();
    for tolerance in [1e-4, 1e-6, 1e-8] {
        let up = flow.solve(&solver(tolerance), &x, 1e-3, 1.0)?;
        assert_eq!(up.unfinished().count(), 0);
        let down = flow.solve(&solver(tolerance), &up.y, 1.0, 1e-3)?;
        errors.push(largest_gap(&down.y, &x));
    }
    // Errors of fifth-order steps go about with the tolerance; two decades of it are one of the error at least.
    assert!(errors[2] < 1e-6 && errors.windows(2).all(|e| e[1] < e[0] / 10.0), "{errors:?}");
    // Another sampler decodes the same latents.
    let latent = flow.solve(&solver(1e-8), &x, 1e-3, 1.0)?.y;
    let noise = BatchNoise::new(Noise::new(0), 0, 0..6);
    let decoded = |steps| -> sde_solvers::Result<f64> {
        let grid = TimeGrid::power(1.0, 1e-3, steps, 2.0)?;
        let table = Tab { degree: 3 }.table(&sde, &grid)?;
        Ok(largest_gap(&table.sample(&sde, &field, &latent, &noise)?.x, &x))
    };
    let (coarse, fine) = (decoded(40)?, decoded(80)?);
    assert!(fine < 1e-2 && fine < coarse / 2.0, "{coarse} {fine}");
    Ok(())
}

fn norms(x: &Tensor) -> Result<Vec<f64>> {
    Ok(x.flatten_from(1)?.sqr()?.sum(1)?.sqrt()?.to_vec1::<f64>()?)
}

#[test]
fn the_path_between_latents_follows_the_sphere() -> sde_solvers::Result<()> {
    let (a, b) = (normals(&[5, 2, 3], 1), normals(&[5, 2, 3], 2));
    assert_eq!(largest_gap(&slerp(&a, &b, 0.0)?, &a), 0.0);
    assert_eq!(largest_gap(&slerp(&a, &b, 1.0)?, &b), 0.0);
    for weight in [0.1, 0.5, 0.8] {
        let c = slerp(&a, &b, weight)?;
        let there = norms(&a)?.into_iter().zip(norms(&b)?).map(|(a, b)| (1.0 - weight) * a + weight * b);
        for (found, expected) in norms(&c)?.into_iter().zip(there) {
            assert!((found - expected).abs() < 1e-13 * expected);
        }
        assert!(largest_gap(&c, &slerp(&b, &a, 1.0 - weight)?) < 1e-13);
        // Of one norm: Shoemake's formula.
        let unit = |x: &Tensor| {
            x.broadcast_div(&Tensor::new(norms(x).expect("norms"), &Device::Cpu)?.reshape((5, 1, 1))?)
        };
        let (a, b) = (unit(&a)?, unit(&b)?);
        let cosines = (&a * &b)?.flatten_from(1)?.sum(1)?.to_vec1::<f64>()?;
        let c = slerp(&a, &b, weight)?;
        for (sample, cosine) in cosines.iter().enumerate() {
            let angle = cosine.acos();
            let (left, right) =
                (((1.0 - weight) * angle).sin() / angle.sin(), (weight * angle).sin() / angle.sin());
            let expected = ((a.get(sample)? * left)? + (b.get(sample)? * right)?)?;
            assert!(largest_gap(&c.get(sample)?, &expected) < 1e-12);
        }
    }
    Ok(())
}

#[test]
fn vectors_without_an_angle_between_them_have_a_path_too() -> sde_solvers::Result<()> {
    let a = Tensor::new(
        &[[3.0, 0.0, 4.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0, 2.0, 2.0], [1.0, 2.0, 2.0]],
        &Device::Cpu,
    )?;
    let b = Tensor::new(
        &[[-6.0, 0.0, -8.0], [0.0, 2.0, 0.0], [0.0, 0.0, 0.0], [2.0, 4.0, 4.0], [1.0, 2.0, 2.0]],
        &Device::Cpu,
    )?;
    let middle = slerp(&a, &b, 0.5)?.to_vec2::<f64>()?;
    // Opposite: half way it stands at a right angle to both, with the mean of the norms.
    let along = middle[0][0] * 3.0 + middle[0][2] * 4.0;
    let length = middle[0].iter().map(|x| x * x).sum::<f64>().sqrt();
    assert!(along.abs() < 1e-12 && (length - 7.5).abs() < 1e-12, "{:?}", middle[0]);
    assert_eq!(middle[1], [0.0, 1.0, 0.0]);
    assert_eq!(middle[2], [0.0; 3]);
    for (found, expected) in middle[3].iter().chain(&middle[4]).zip([1.5, 3.0, 3.0, 1.0, 2.0, 2.0]) {
        assert!((found - expected).abs() < 1e-14);
    }
    // Just short of opposite, the path is still the one through the plane of the two.
    let near = Tensor::new(&[[-1.0, 1e-5, 0.0]], &Device::Cpu)?;
    let middle = slerp(&Tensor::new(&[[1.0, 0.0, 0.0]], &Device::Cpu)?, &near, 0.5)?.to_vec2::<f64>()?;
    assert!((middle[0][1] - 1.0).abs() < 1e-9 && middle[0][2].abs() < 1e-12);
    assert!(slerp(&a, &b.narrow(0, 0, 2)?, 0.5).is_err());
    Ok(())
}
