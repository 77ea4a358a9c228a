//! Likelihoods of the flexible diffusions: one density, whatever the process; of diffusions whose noise depends on the state, by their velocity.

use candle_core::{DType, Device, Tensor};
use nalgebra::DMatrix;
use sde_core::noise::{BatchNoise, Law, Noise, Stream};
use sde_core::oracle::Mixture;
use sde_core::process::{Clocked, Commuting, LinearPair, Vp};
use sde_core::state_sde::{Derivative, Diagonal, Linear, StateSde, Turning, TurningFn};
use sde_core::{Converted, FieldFn, LinearSde, Op, OracleField, Prediction};
use sde_eval::{Likelihood, Prior, Result};
use sde_solvers::{Adaptive, Divergence, StateVelocity};

fn q1() -> DMatrix<f64> {
    DMatrix::from_row_slice(3, 3, &[2.0, 0.3, 0.1, 0.3, 1.0, -0.2, 0.1, -0.2, 0.5])
}

fn omega1() -> DMatrix<f64> {
    DMatrix::from_row_slice(3, 3, &[0.0, 0.7, -0.4, -0.7, 0.0, 1.1, 0.4, -1.1, 0.0])
}

fn data() -> Mixture {
    let covariance = DMatrix::from_row_slice(3, 3, &[0.5, 0.2, 0.0, 0.2, 0.8, -0.1, 0.0, -0.1, 0.3]);
    Mixture::new(&[1.0], &[vec![0.5, -1.0, 0.2]], &[covariance]).expect("a Gaussian")
}

fn value(likelihood: &Likelihood<'_>, x: &Tensor) -> Result<Vec<f64>> {
    let noise = BatchNoise::new(Noise::new(0), 0, 0..x.dim(0)? as u32);
    let found = likelihood.log_density(x, &noise)?;
    Ok(found.iter().map(|density| density.value.expect("a finished solve")).collect())
}

#[test]
fn one_density_by_every_law() -> Result<()> {
    let (data, vp) = (data(), Vp::new(3.0, 3.0)?);
    let x = Tensor::new(&[[1.0, -2.0, 0.5]], &Device::Cpu)?;
    let processes: [Box<dyn LinearSde>; 4] = [
        Box::new(Clocked::new(LinearPair::of(q1(), &omega1(), 1.0)?, vp)?),
        Box::new(Clocked::new(Commuting::fp_drift(&omega1(), 1.0)?, vp)?),
        Box::new(Clocked::new(Commuting::of(&q1(), &DMatrix::zeros(3, 3), 1.0)?, vp)?),
        Box::new(vp),
    ];
    for sde in &processes {
        let field = OracleField::noise(&data, sde.as_ref());
        let prior = Prior::Exact(&data);
        let likelihood = Likelihood::new(sde.as_ref(), &field, Divergence::Exact, Adaptive::new(1e-9, 1e-9));
        let found = value(&Likelihood { prior, start: 1e-10, ..likelihood }, &x)?[0];
        assert!((found + 2.9013704154).abs() < 1e-8, "{found}");
    }
    Ok(())
}

#[test]
fn constant_matrices_have_the_likelihood_of_their_linear_pair() -> Result<()> {
    let (data, vp) = (data(), Vp::new(3.0, 3.0)?);
    let pair = Clocked::new(LinearPair::of(q1(), &omega1(), 1.0)?, vp)?;
    let turning: Box<dyn Turning> = Box::new(Linear::turning(omega1())?);
    let sde = StateSde::new(vp, 1.0, Box::new(Linear::root(Op::Dense(q1()).cholesky()?)), Some(turning))?;
    let noise = OracleField::noise(&data, &pair);
    let flow = StateVelocity::new(&sde, Converted::new(noise, &pair, Prediction::Score))?;
    let x = Tensor::new(&[[1.0, -2.0, 0.5]], &Device::Cpu)?;
    let solver = Adaptive::new(1e-7, 1e-7);
    let by_state = value(&Likelihood::new(&vp, &flow, Divergence::Exact, solver), &x)?;
    let by_pair = value(&Likelihood::new(&pair, &noise, Divergence::Exact, solver), &x)?;
    assert!(by_state.iter().zip(&by_pair).all(|(a, b)| (a - b).abs() < 1e-5), "{by_state:?} {by_pair:?}");
    Ok(())
}

#[test]
fn the_stationary_law_has_its_own_density_under_any_noise_and_rotation() -> Result<()> {
    // Data N(0, I): the score is −x at every time, and the flow turns by ω(x) alone.
    let entries = |x: &Tensor| Ok((x.sin()? * 0.5)?.affine(1.0, 1.1)?);
    let apply = |x: &Tensor, u: &Tensor| {
        let w = x.sum_keepdim(1)?.sin()?;
        Ok(Tensor::cat(&[(&w * u.narrow(1, 1, 1)?)?, (&w * u.narrow(1, 0, 1)?)?.neg()?], 1)?)
    };
    let turning: Box<dyn Turning> = Box::new(TurningFn::new(
        apply,
        Derivative::Given(Box::new(|x| {
            let slope = x.sum_keepdim(1)?.cos()?;
            Ok(Tensor::cat(&[slope.clone(), slope.neg()?], 1)?)
        })),
    ));
    let matrix = Box::new(Diagonal::new(entries, Derivative::Differences(1e-4)));
    let (vp, unit) = (Vp::new(2.0, 2.0)?, |x: &Tensor, _: &[f64]| Ok(x.neg()?));
    let sde = StateSde::new(vp, 1.0, matrix, Some(turning))?;
    let flow = StateVelocity::new(&sde, FieldFn::new(Prediction::Score, unit))?;
    let noise = BatchNoise::new(Noise::new(3), 0, 0..6);
    let x = noise.tensor(Law::Normal, Stream::User, 0, &[2], DType::F64, &Device::Cpu)?;
    let found = value(&Likelihood::new(&vp, &flow, Divergence::Exact, Adaptive::new(1e-9, 1e-9)), &x)?;
    for (found, row) in found.iter().zip(x.to_vec2::<f64>()?) {
        let expected = -0.5 * (row[0] * row[0] + row[1] * row[1]) - std::f64::consts::TAU.ln();
        assert!((found - expected).abs() < 1e-6, "{found} for {expected}");
    }
    Ok(())
}
