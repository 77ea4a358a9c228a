//! One process with two factors: noises differ as stated, and everything else is the same.

#[path = "support/rotating.rs"]
mod rotating;

use candle_core::{Device, Tensor};
use nalgebra::DMatrix;
use rotating::Rotating;
use sde_core::oracle::Mixture;
use sde_core::process::{Cholesky, Cld, change_of_factor};
use sde_core::{Converted, Field, LinearSde, Op, OracleField, Prediction, Result, check_process};

const TIMES: [f64; 3] = [0.05, 0.4, 0.9];

/// Processes of two groups whose R is not triangular.
fn processes() -> Result<[Box<dyn LinearSde>; 2]> {
    Ok([Box::new(Rotating { omega: 1.7 }), Box::new(Cld::published()?)])
}

fn data() -> Mixture {
    let covariances =
        [[0.25, 0.1, 0.1, 0.3], [0.4, -0.1, -0.1, 0.2]].map(|c| DMatrix::from_row_slice(2, 2, &c));
    Mixture::new(&[0.6, 0.4], &[vec![0.7, -0.2], vec![-0.5, 0.4]], &covariances).expect("a mixture")
}

fn gap(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).and_then(|d| d.abs()?.flatten_all()?.max(0)?.to_scalar::<f64>()).expect("one shape")
}

#[test]
fn the_noise_of_one_factor_is_that_of_the_other_by_its_formula() -> Result<()> {
    for sde in processes()? {
        for t in TIMES {
            let (r, l) = (sde.factor(t), Cholesky(sde.as_ref()).factor(t));
            // R ε_R = u − S x₀ = L ε_L.
            let direct = l.inverse()?.mul(&r)?;
            assert!(change_of_factor(&r, &l)?.sub(&direct)?.max_abs() < 1e-12);
            let there_and_back = change_of_factor(&l, &r)?.mul(&change_of_factor(&r, &l)?)?;
            assert!(there_and_back.sub(&Op::IDENTITY)?.max_abs() < 1e-12);
        }
    }
    assert!(change_of_factor(&Op::ZERO, &Op::IDENTITY).is_err());
    Ok(())
}

#[test]
fn a_field_of_one_factor_serves_the_process_with_the_other() -> Result<()> {
    let data = data();
    for sde in processes()? {
        serves(sde.as_ref(), &data)?;
    }
    Ok(())
}

fn serves(sde: &dyn LinearSde, data: &Mixture) -> Result<()> {
    let seen = Cholesky(sde);
    let x = Tensor::new(&[[0.4, -0.3], [1.2, 0.8]], &Device::Cpu)?;
    let trained = OracleField::noise(data, &seen);
    let score = Converted::new(&trained, &seen, Prediction::Score);
    for t in TIMES {
        let exact = OracleField::noise(data, sde).eval(&x, &[t])?;
        let converted = change_of_factor(&seen.factor(t), &sde.factor(t))?.apply(&trained.eval(&x, &[t])?)?;
        assert!(gap(&converted, &exact) < 1e-12);
        assert!(gap(&trained.eval(&x, &[t])?, &exact) > 1e-2, "the factors are different");
        for to in [Prediction::Noise, Prediction::Data, Prediction::Velocity] {
            let expected = Converted::new(OracleField::noise(data, sde), sde, to).eval(&x, &[t])?;
            assert!(gap(&Converted::new(&score, sde, to).eval(&x, &[t])?, &expected) < 1e-11, "{to:?}");
        }
        // Data and velocity do not ask which factor it was.
        for to in [Prediction::Data, Prediction::Velocity] {
            let expected = Converted::new(OracleField::noise(data, sde), sde, to).eval(&x, &[t])?;
            assert!(gap(&Converted::new(&trained, &seen, to).eval(&x, &[t])?, &expected) < 1e-11, "{to:?}");
        }
    }
    Ok(())
}

#[test]
fn only_the_equation_of_the_factor_is_not_its_own() -> Result<()> {
    for sde in processes()? {
        let defects = check_process(&Cholesky(sde.as_ref()), &[1e-2, 0.1, 0.5, 0.9])?;
        assert!(defects.rates > 0.1, "{defects:?}");
        let others = [
            defects.composition,
            defects.transition_rate,
            defects.covariance_rate,
            defects.factor,
            defects.clock,
        ];
        assert!(others.into_iter().all(|defect| defect < 1e-7), "{defects:?}");
    }
    // Of a scalar process it is the process.
    let vp = sde_core::process::Vp::STANDARD;
    assert!(check_process(&Cholesky(&vp), &[1e-2, 0.1, 0.5])?.largest() < 1e-7);
    Ok(())
}
