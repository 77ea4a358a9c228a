//! Diffusions whose noise depends on the state: the stationary law, to the digits of differences and by long runs.

use candle_core::{D, DType, Device, Tensor};
use nalgebra::DMatrix;
use sde_core::noise::{BatchNoise, Law, Noise, Stream};
use sde_core::process::{Homogeneous, LinearPair, Vp};
use sde_core::state_sde::{
    Derivative, Diagonal, DiffusionMatrix, Linear, LowRank, StateSde, Turning, TurningFn,
};
use sde_core::{Op, Result};

fn points(dim: usize, n: u32) -> Result<Tensor> {
    let noise = BatchNoise::new(Noise::new(5), 0, 0..n);
    noise.tensor(Law::Normal, Stream::User, 0, &[dim], DType::F64, &Device::Cpu)
}

/// `Σ_i c_i(x)` of a smooth wave in all coordinates.
fn wave(x: &Tensor, phase: f64) -> Result<Tensor> {
    let dim = x.dim(1)?;
    let slopes: Vec<f64> = (0..dim).map(|j| 0.7 + 0.4 * j as f64).collect();
    let along = x.broadcast_mul(&Tensor::new(slopes, x.device())?)?.sum_keepdim(D::Minus1)?;
    Ok((along + phase)?.sin()?)
}

/// q_i(x) = 1.2 + ½ sin(a·x + i), all coordinates in all entries.
fn entries(x: &Tensor) -> Result<Tensor> {
    let columns = (0..x.dim(1)?).map(|i| Ok(((wave(x, i as f64)? * 0.5)? + 1.2)?));
    Ok(Tensor::cat(&columns.collect::<Result<Vec<_>>>()?, 1)?)
}

/// ∂_i q_i.
fn slopes(x: &Tensor) -> Result<Tensor> {
    let half_pi = std::f64::consts::FRAC_PI_2;
    let columns =
        (0..x.dim(1)?).map(|i| Ok((wave(x, i as f64 + half_pi)? * (0.5 * (0.7 + 0.4 * i as f64)))?));
    Ok(Tensor::cat(&columns.collect::<Result<Vec<_>>>()?, 1)?)
}

fn columns(x: &Tensor) -> Result<Tensor> {
    let parts = (0..2 * x.dim(1)?).map(|i| wave(x, 0.3 - 0.9 * i as f64));
    Ok(Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, 1)?.reshape((x.dim(0)?, x.dim(1)?, 2))?)
}

/// ω(x) = w(x) J in the first two coordinates, w = sin(a·x + 0.4).
fn turning(derivative: Derivative) -> Box<dyn Turning> {
    let apply = |x: &Tensor, u: &Tensor| {
        let w = wave(x, 0.4)?;
        let (a, b) = (u.narrow(1, 0, 1)?, u.narrow(1, 1, 1)?);
        let rest = (u.narrow(1, 2, u.dim(1)? - 2)? * 0.0)?;
        Ok(Tensor::cat(&[(&w * b)?, (&w * a)?.neg()?, rest], 1)?)
    };
    Box::new(TurningFn::new(apply, derivative))
}

/// `(−∇·(f p) + ½ Σ ∂_i∂_j (Q_ij p)) / p` for `p = N(0, I/m)`, by central differences of f and ∇·Q.
fn residual(sde: &StateSde, drift: &dyn Fn(&Tensor) -> Result<Tensor>, x: &Tensor) -> Result<f64> {
    let (dim, h, m) = (x.dim(1)?, 1e-3, sde.precision());
    let divergence_of = |f: &dyn Fn(&Tensor) -> Result<Tensor>| -> Result<Tensor> {
        let units = Tensor::eye(dim, DType::F64, x.device())?;
        let parts = (0..dim).map(|j| {
            let e = (units.get(j)? * h)?;
            let slope = (f(&x.broadcast_add(&e)?)? - f(&x.broadcast_sub(&e)?)?)?;
            Ok((slope.narrow(1, j, 1)? * (0.5 / h))?)
        });
        Ok(Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, 1)?.sum_keepdim(1)?)
    };
    let of_q = |x: &Tensor| Ok(sde.diffusion().divergence(x)?.map_or_else(|| x.zeros_like(), Ok)?);
    let along = |a: &Tensor, b: &Tensor| (a * b)?.sum_keepdim(1);
    let mut trace = Tensor::zeros((x.dim(0)?, 1), DType::F64, x.device())?;
    for j in 0..dim {
        let e = Tensor::eye(dim, DType::F64, x.device())?.get(j)?.broadcast_as(x.dims())?.contiguous()?;
        trace = (trace + along(&sde.diffuse(x, &e)?, &e)?)?;
    }
    let flux = (along(&drift(x)?, x)? * m)?.sub(&divergence_of(drift)?)?;
    let spread = ((divergence_of(&of_q)? - (along(&of_q(x)?, x)? * (2.0 * m))?)?
        + ((along(&sde.diffuse(x, x)?, x)? * (m * m))? - (trace * m)?)?)?;
    Ok((flux + (spread * 0.5)?)?.abs()?.max_all()?.to_scalar::<f64>()?)
}

#[test]
fn the_standard_law_is_stationary_for_any_noise_and_rotation() -> Result<()> {
    for (dim, m) in [(2, 1.0), (3, 2.5), (3, 0.4)] {
        let x = points(dim, 40)?;
        let diagonal = || Box::new(Diagonal::new(entries, Derivative::Given(Box::new(slopes))));
        let low_rank = || Box::new(LowRank::new(entries, columns, 2, Derivative::Differences(1e-4)));
        let matrices: [Box<dyn DiffusionMatrix>; 2] = [diagonal(), low_rank()];
        for matrix in matrices {
            let sde = StateSde::new(Vp::STANDARD, m, matrix, Some(turning(Derivative::Differences(1e-4))))?;
            let found = residual(&sde, &|x| sde.drift(x), &x)?;
            assert!(found < 2e-5, "{dim} {m}: {found:e}");
            // As printed, ½ m ∇·Q, it is stationary for m = 1 alone; without ∇·ω for none.
            let printed = |x: &Tensor| {
                let divergence = sde.diffusion().divergence(x)?.expect("a divergence");
                Ok((sde.drift(x)? + (divergence * (0.5 * (m - 1.0)))?)?)
            };
            assert!(m == 1.0 || residual(&sde, &printed, &x)? > 0.05);
            let turning = turning(Derivative::Differences(1e-4));
            let without = |x: &Tensor| Ok((sde.drift(x)? - turning.divergence(x)?.expect("a divergence"))?);
            assert!(residual(&sde, &without, &x)? > 0.05);
        }
    }
    Ok(())
}

#[test]
fn a_divergence_by_differences_is_the_given_one() -> Result<()> {
    let x = points(3, 8)?;
    let given = Diagonal::new(entries, Derivative::Given(Box::new(slopes))).divergence(&x)?;
    let found = Diagonal::new(entries, Derivative::Differences(1e-4)).divergence(&x)?;
    let gap = (given.expect("given") - found.expect("found"))?.abs()?.max_all()?.to_scalar::<f64>()?;
    assert!(gap < 1e-8, "{gap:e}");
    assert!(Diagonal::new(entries, Derivative::Zero).divergence(&x)?.is_none());
    assert!(Diagonal::new(entries, Derivative::Differences(0.0)).divergence(&x).is_err());
    // Images: entries of any shape.
    let images = points(12, 2)?.reshape((2, 3, 2, 2))?;
    let cubes = |x: &Tensor| Ok((x.powf(2.0)? + 1.0)?);
    let matrix = Diagonal::new(cubes, Derivative::Differences(1e-4));
    let gap = (matrix.divergence(&images)?.expect("found") - (&images * 2.0)?)?.abs()?.max_all()?;
    assert!(gap.to_scalar::<f64>()? < 1e-8);
    Ok(())
}

#[test]
fn a_root_and_its_transpose_are_one_matrix() -> Result<()> {
    let x = points(3, 5)?;
    let matrix = LowRank::new(entries, columns, 2, Derivative::Zero);
    let (z, u) = (points(5, 5)?, (points(3, 5)? * 0.7)?);
    let left = (matrix.root(&x, &z)? * &u)?.sum(1)?.to_vec1::<f64>()?;
    let right = (matrix.root_transposed(&x, &u)? * &z)?.sum(1)?.to_vec1::<f64>()?;
    assert!(left.iter().zip(&right).all(|(a, b)| (a - b).abs() < 1e-13));
    assert_eq!(matrix.noise_shape(&[3]), [5]);
    let wrong = LowRank::new(entries, columns, 1, Derivative::Zero);
    assert!(wrong.root(&x, &z).is_err_and(|e| e.to_string().contains("columns of a diffusion matrix")));
    Ok(())
}

/// `Q = [[2 + sin x₁, 0.3], [0.3, 1 + ½ cos x₂]]`, by its Cholesky factor, with or without its divergence.
struct Waves {
    divergence: bool,
}

impl Waves {
    fn factor(x: &Tensor) -> Result<[Tensor; 3]> {
        let (a, c) = ((x.narrow(1, 0, 1)?.sin()? + 2.0)?, ((x.narrow(1, 1, 1)?.cos()? * 0.5)? + 1.0)?);
        let first = a.sqrt()?;
        let low = (first.recip()? * 0.3)?;
        let last = (c - low.sqr()?)?.sqrt()?;
        Ok([first, low, last])
    }
}

impl DiffusionMatrix for Waves {
    fn root(&self, x: &Tensor, z: &Tensor) -> Result<Tensor> {
        let ([first, low, last], a, b) = (Self::factor(x)?, z.narrow(1, 0, 1)?, z.narrow(1, 1, 1)?);
        Ok(Tensor::cat(&[(first * &a)?, ((low * a)? + (last * b)?)?], 1)?)
    }
    fn root_transposed(&self, x: &Tensor, u: &Tensor) -> Result<Tensor> {
        let ([first, low, last], a, b) = (Self::factor(x)?, u.narrow(1, 0, 1)?, u.narrow(1, 1, 1)?);
        Ok(Tensor::cat(&[((first * a)? + (low * &b)?)?, (last * b)?], 1)?)
    }
    fn divergence(&self, x: &Tensor) -> Result<Option<Tensor>> {
        let (a, b) = (x.narrow(1, 0, 1)?.cos()?, (x.narrow(1, 1, 1)?.sin()? * -0.5)?);
        self.divergence.then(|| Ok(Tensor::cat(&[a, b], 1)?)).transpose()
    }
}

#[test]
fn a_long_run_keeps_the_standard_law_and_needs_the_divergence() -> Result<()> {
    let n = 20_000;
    let ends = |divergence: bool| -> Result<(Vec<f64>, Vec<f64>)> {
        let sde = StateSde::new(Vp::new(4.0, 4.0)?, 1.0, Box::new(Waves { divergence }), None)?;
        let times: Vec<f64> = (0..=400).map(|k| f64::from(k) / 400.0).collect();
        let start = points(2, n)?;
        let chain = sde.simulate(&start, &times, &BatchNoise::new(Noise::new(1), 0, 0..n))?;
        let x = &chain.states[400];
        let products = (x.narrow(1, 0, 1)? * x.narrow(1, 1, 1)?)?;
        let second = Tensor::cat(&[x.sqr()?, products], 1)?.mean(0)?.to_vec1()?;
        Ok((x.mean(0)?.to_vec1()?, second))
    };
    // Standard errors 1/√n of a mean, √2/√n of a variance; steps of Δ = 0.01 in b add Δ q/4 to a variance.
    let error = 1.0 / f64::from(n).sqrt();
    let (mean, second) = ends(true)?;
    assert!(mean.iter().all(|v| v.abs() < 5.0 * error), "{mean:?}");
    for (found, expected) in second.iter().zip([1.0, 1.0, 0.0]) {
        assert!((found - expected).abs() < 5.0 * 1.5 * error + 0.0075, "{second:?}");
    }
    let (mean, second) = ends(false)?;
    let off = mean.iter().chain(&[second[0] - 1.0, second[1] - 1.0]).fold(0.0, |m: f64, v| m.max(v.abs()));
    assert!(off > 0.1, "{mean:?} {second:?}");
    Ok(())
}

#[test]
fn constant_matrices_are_a_linear_pair() -> Result<()> {
    let q = DMatrix::from_row_slice(3, 3, &[2.0, 0.3, 0.1, 0.3, 1.0, -0.2, 0.1, -0.2, 0.5]);
    let omega = DMatrix::from_row_slice(3, 3, &[0.0, 0.7, -0.4, -0.7, 0.0, 1.1, 0.4, -1.1, 0.0]);
    let pair = LinearPair::of(q.clone(), &omega, 1.7)?;
    let root = Op::Dense(q).cholesky()?;
    let turning: Box<dyn Turning> = Box::new(Linear::turning(omega.clone())?);
    let sde = StateSde::new(Vp::STANDARD, 1.7, Box::new(Linear::root(root.clone())), Some(turning))?;
    let x = points(3, 4)?;
    let gap = |a: Tensor, b: Tensor| Ok::<_, sde_core::Error>((a - b)?.abs()?.max_all()?.to_scalar::<f64>()?);
    assert!(gap(sde.drift(&x)?, Homogeneous::drift(&pair).apply(&x)?)? < 1e-13);
    // A step, with the noise of its address, whatever the batch.
    let (noise, times) = (BatchNoise::new(Noise::new(2), 7, 0..4), [0.0, 0.1, 0.25]);
    let chain = sde.simulate(&x, &times, &noise)?;
    let step = Vp::STANDARD.integral(0.25) - Vp::STANDARD.integral(0.1);
    let xi = noise.tensor(Law::Normal, Stream::Diffusion, 1, &[3], DType::F64, &Device::Cpu)?;
    let last = &chain.states[1];
    let expected = ((last + (sde.drift(last)? * step)?)? + (root.apply(&xi)? * step.sqrt())?)?;
    assert!(gap(chain.states[2].clone(), expected)? < 1e-14 && (chain.steps[1] - step).abs() < 1e-15);
    let alone = sde.simulate(&x.narrow(0, 2, 1)?, &times, &BatchNoise::new(Noise::new(2), 7, [2]))?;
    assert!(gap(alone.states[2].clone(), chain.states[2].narrow(0, 2, 1)?)? < 1e-14);
    assert!(sde.simulate(&x, &[0.1, 0.1], &noise).is_err());
    assert!(Linear::turning(omega.abs()).is_err() && Linear::turning(DMatrix::zeros(2, 3)).is_err());
    assert!(StateSde::new(Vp::STANDARD, 0.0, Box::new(Waves { divergence: true }), None).is_err());
    Ok(())
}
