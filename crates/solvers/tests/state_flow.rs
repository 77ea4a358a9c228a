//! Backwards along diffusions whose noise depends on the state: against linear pairs, differences, and the stationary law.

mod support;

use candle_core::{DType, Device, Tensor};
use nalgebra::DMatrix;
use sde_core::noise::{BatchNoise, Law, Noise, Recorded, Stream};
use sde_core::oracle::Mixture;
use sde_core::process::{Clocked, LinearPair, Vp};
use sde_core::state_sde::{Derivative, Diagonal, Linear, LowRank, StateSde, Turning, TurningFn};
use sde_core::{Converted, Field, FieldFn, Op, OracleField, Prediction, TimeGrid};
use sde_solvers::{
    Adaptive, Chart, EulerMaruyama, Multistep, ProbabilityFlow, Result, StateEulerMaruyama, StateVelocity,
};
use support::{largest_gap, tensor};

fn q1() -> DMatrix<f64> {
    DMatrix::from_row_slice(3, 3, &[2.0, 0.3, 0.1, 0.3, 1.0, -0.2, 0.1, -0.2, 0.5])
}

fn omega1() -> DMatrix<f64> {
    DMatrix::from_row_slice(3, 3, &[0.0, 0.7, -0.4, -0.7, 0.0, 1.1, 0.4, -1.1, 0.0])
}

fn constant(vp: Vp, m: f64) -> Result<(StateSde, Clocked<LinearPair>)> {
    let root = Linear::root(Op::Dense(q1()).sqrt()?);
    let turning: Box<dyn Turning> = Box::new(Linear::turning(omega1())?);
    let sde = StateSde::new(vp, m, Box::new(root), Some(turning))?;
    Ok((sde, Clocked::new(LinearPair::of(q1(), &omega1(), m)?, vp)?))
}

fn data() -> Mixture {
    let covariance = DMatrix::from_row_slice(3, 3, &[0.5, 0.2, 0.0, 0.2, 0.8, -0.1, 0.0, -0.1, 0.3]);
    Mixture::new(
        &[0.4, 0.6],
        &[vec![0.5, -1.0, 0.2], vec![-0.3, 0.2, 0.9]],
        &[covariance.clone(), covariance],
    )
    .expect("a mixture")
}

fn points() -> Tensor {
    tensor(&[vec![0.3, 0.1, -0.7], vec![-1.2, 0.4, 2.0]])
}

#[test]
fn constant_matrices_are_a_linear_pair() -> Result<()> {
    let (sde, pair) = constant(Vp::STANDARD, 1.6)?;
    let data = data();
    let noise = OracleField::noise(&data, &pair);
    let score = Converted::new(noise, &pair, Prediction::Score);
    let (flow, exact) =
        (StateVelocity::new(&sde, &score)?, Converted::new(noise, &pair, Prediction::Velocity));
    let (x, times) = (points(), [0.2, 0.7]);
    assert!(largest_gap(&flow.eval(&x, &times)?, &exact.eval(&x, &times)?) < 1e-11);
    let v = tensor(&[vec![1.0, -0.3, 0.2], vec![0.5, 2.0, -1.0]]);
    let (a, b) = (flow.vjps(&x, &times, std::slice::from_ref(&v))?, exact.vjps(&x, &times, &[v])?);
    assert!(largest_gap(&a.0, &b.0) < 1e-11 && largest_gap(&a.1[0], &b.1[0]) < 1e-10);
    // The flow of both, each by the process it is a field of.
    let solver = Adaptive::new(1e-10, 1e-10);
    let of_vp = ProbabilityFlow::new(sde.vp(), &flow, Chart::Time).solve(&solver, &x, 1e-3, 0.6)?;
    let of_pair = ProbabilityFlow::new(&pair, &noise, Chart::Time).solve(&solver, &x, 1e-3, 0.6)?;
    assert!(largest_gap(&of_vp.y, &of_pair.y) < 1e-7);
    assert!(StateVelocity::new(&sde, noise).is_err_and(|e| e.to_string().contains("sde.vp()")));
    Ok(())
}

#[test]
fn euler_maruyama_is_the_table_of_the_linear_pair() -> Result<()> {
    // With a constant β a step of b is a step of t times β, as the table has it.
    let (sde, pair) = constant(Vp::new(3.0, 3.0)?, 1.6)?;
    let data = data();
    let noise = OracleField::noise(&data, &pair);
    let score = Converted::new(noise, &pair, Prediction::Score);
    let grid = TimeGrid::uniform(1.0, 1e-3, 40)?;
    let draws = BatchNoise::new(Noise::new(4), 0, 0..80)
        .tensor(Law::Normal, Stream::User, 0, &[3], DType::F64, &Device::Cpu)?
        .reshape((40, 2, 3))?;
    for lambda in [0.0, 0.5, 1.0, 1.7] {
        let source = Recorded(draws.clone());
        let found = StateEulerMaruyama { lambda }.sample(&sde, &score, &grid, &points(), &source)?;
        let table = EulerMaruyama { lambda }.table(&pair, &grid)?;
        let expected = table.sample(&pair, &score, &points(), &source)?;
        assert!(largest_gap(&found.x, &expected.x) < 1e-10, "{lambda}");
        assert_eq!(found.nfe, [40, 40]);
    }
    assert!(
        StateEulerMaruyama { lambda: -1.0 }.sample(&sde, &score, &grid, &points(), &Recorded(draws)).is_err()
    );
    Ok(())
}

fn entries(x: &Tensor) -> sde_core::Result<Tensor> {
    Ok(((x * 1.3)?.sin()? * 0.5)?.affine(1.0, 1.1)?)
}

fn slopes(x: &Tensor) -> sde_core::Result<Tensor> {
    Ok(((x * 1.3)?.cos()? * 0.65)?)
}

fn columns(x: &Tensor) -> sde_core::Result<Tensor> {
    Ok((x.sum_keepdim(1)?.broadcast_mul(&x.ones_like()?)?.sin()? * 0.4)?.unsqueeze(2)?)
}

/// ω(x) = sin(x₁ + x₂) J in two coordinates; ∇·ω = cos(x₁ + x₂) (1, −1).
fn swirl() -> Box<dyn Turning> {
    let apply = |x: &Tensor, u: &Tensor| {
        let w = x.sum_keepdim(1)?.sin()?;
        Ok(Tensor::cat(&[(&w * u.narrow(1, 1, 1)?)?, (&w * u.narrow(1, 0, 1)?)?.neg()?], 1)?)
    };
    let divergence = |x: &Tensor| {
        let slope = x.sum_keepdim(1)?.cos()?;
        Ok(Tensor::cat(&[slope.clone(), slope.neg()?], 1)?)
    };
    Box::new(TurningFn::new(apply, Derivative::Given(Box::new(divergence))))
}

#[test]
fn products_with_the_jacobian_are_differences() -> Result<()> {
    let matrix = LowRank::new(entries, columns, 1, Derivative::Zero);
    let sde = StateSde::new(Vp::STANDARD, 1.4, Box::new(matrix), Some(swirl()))?;
    // Any smooth function serves as the score.
    let score =
        FieldFn::new(Prediction::Score, |x: &Tensor, _: &[f64]| Ok(((x * 0.7)?.cos()? - (x * 0.8)?)?));
    let flow = StateVelocity::new(&sde, score)?;
    let x = tensor(&[vec![0.3, -0.7], vec![1.2, 0.4]]);
    let (h, times) = (1e-5, [0.3, 0.9]);
    let v = tensor(&[vec![1.0, -0.3], vec![0.5, 2.0]]);
    let (value, products) = flow.vjps(&x, &times, std::slice::from_ref(&v))?;
    assert!(largest_gap(&value, &flow.eval(&x, &times)?) < 1e-14);
    let columns = (0..2).map(|j| {
        let e = (Tensor::eye(2, DType::F64, &Device::Cpu)?.get(j)? * h)?;
        let slope =
            (flow.eval(&x.broadcast_add(&e)?, &times)? - flow.eval(&x.broadcast_sub(&e)?, &times)?)?;
        Ok(((slope * 0.5)? * (1.0 / h))?.mul(&v)?.sum_keepdim(1)?)
    });
    let expected = Tensor::cat(&columns.collect::<sde_core::Result<Vec<_>>>()?, 1)?;
    assert!(largest_gap(&products[0], &expected) < 1e-7);
    Ok(())
}

#[test]
fn the_reverse_sde_keeps_the_stationary_law_and_needs_the_divergence() -> Result<()> {
    // Data from the stationary law: the score is −m x at every time, and every λ must leave N(0, I/m) as it is.
    let n = 20_000;
    let m = 1.0;
    let score = FieldFn::new(Prediction::Score, move |x: &Tensor, _: &[f64]| Ok((x * -m)?));
    let grid = TimeGrid::uniform(1.0, 0.0, 400)?;
    let noise = BatchNoise::new(Noise::new(8), 0, 0..n);
    let start = noise.tensor(Law::Normal, Stream::User, 0, &[2], DType::F64, &Device::Cpu)?;
    let ends = |lambda: f64, divergence: Derivative| -> Result<(Vec<f64>, Vec<f64>)> {
        let matrix = Box::new(Diagonal::new(entries, divergence));
        let sde = StateSde::new(Vp::new(4.0, 4.0)?, m, matrix, Some(swirl()))?;
        let x = StateEulerMaruyama { lambda }.sample(&sde, &score, &grid, &start, &noise)?.x;
        Ok((x.mean(0)?.to_vec1()?, x.sqr()?.mean(0)?.to_vec1()?))
    };
    let given = || Derivative::Given(Box::new(slopes));
    // Standard errors 1/√n and √2/√n; steps of Δ = 0.01 in b add a bias of their size.
    let error = 1.0 / f64::from(n).sqrt();
    for lambda in [0.0, 1.0] {
        let (mean, second) = ends(lambda, given())?;
        assert!(mean.iter().all(|v| v.abs() < 5.0 * error + 0.01), "{lambda}: {mean:?}");
        assert!(second.iter().all(|v| (v - 1.0).abs() < 5.0 * 1.42 * error + 0.02), "{lambda}: {second:?}");
    }
    let (mean, _) = ends(1.0, Derivative::Zero)?;
    assert!(mean.iter().any(|v| v.abs() > 0.1), "{mean:?}");
    Ok(())
}
