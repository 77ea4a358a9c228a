//! Oracles against independently computed values, finite differences, and each other.

#[path = "support/rotating.rs"]
mod rotating;

use std::collections::HashMap;

use candle_core::{Device, Tensor};
use nalgebra::DMatrix;
use rotating::Rotating;
use sde_core::noise::{Noise, Stream};
use sde_core::oracle::Mixture;
use sde_core::process::{SubVp, Ve, Vp};
use sde_core::{Converted, Field, LinearSde, OracleField, Prediction, Result};

struct Golden(HashMap<String, Tensor>);

impl Golden {
    fn load(name: &str) -> Self {
        let path = format!("{}/tests/golden/{name}.npz", env!("CARGO_MANIFEST_DIR"));
        Self(Tensor::read_npz(path).expect("golden file").into_iter().collect())
    }
    fn flat(&self, key: &str) -> Vec<f64> {
        self.0[key].flatten_all().and_then(|t| t.to_vec1()).expect("f64 array")
    }
    fn rows(&self, key: &str) -> Vec<Vec<f64>> {
        let width = *self.0[key].dims().last().expect("an array");
        self.flat(key).chunks(width).map(<[f64]>::to_vec).collect()
    }
    fn mixture(&self) -> Result<Mixture> {
        let means = self.rows("mu");
        let dim = means[0].len();
        let covariances: Vec<_> =
            self.flat("cov").chunks(dim * dim).map(|c| DMatrix::from_row_slice(dim, dim, c)).collect();
        let weights = if self.0.contains_key("w") { self.flat("w") } else { vec![1.0] };
        Mixture::new(&weights, &means, &covariances)
    }
}

fn near(found: &[f64], expected: &[f64], tolerance: f64) {
    for (f, e) in found.iter().zip(expected) {
        assert!((f - e).abs() <= tolerance * e.abs().max(1.0), "{f} for {e}");
    }
    assert_eq!(found.len(), expected.len());
}

#[test]
fn density_score_hessian_noise_and_data_agree_with_reference_values() -> Result<()> {
    let cases: [(&str, &dyn LinearSde); 4] = [
        ("cont_vp_gmm8", &Vp::STANDARD),
        ("cont_vp_ani4", &Vp::STANDARD),
        ("cont_ve_gmm8", &Ve::STANDARD),
        ("cont_subvp_gmm8", &SubVp::STANDARD),
    ];
    for (name, sde) in cases {
        let golden = Golden::load(name);
        let mixture = golden.mixture()?;
        let marginal = mixture.marginal(sde, golden.flat("oracle_t")[0])?;
        let dim = mixture.dim();
        let hessians = golden.flat("oracle_hessian");
        for (row, x) in golden.rows("oracle_x").iter().enumerate() {
            let exact = marginal.at(x)?;
            near(&[exact.log_density], &[golden.flat("oracle_logp")[row]], 1e-11);
            near(&exact.score, &golden.rows("oracle_score")[row], 1e-11);
            near(&exact.noise, &golden.rows("oracle_eps")[row], 1e-11);
            near(&exact.data, &golden.rows("oracle_x0hat")[row], 1e-11);
            for j in 0..dim {
                let unit: Vec<f64> = (0..dim).map(|i| f64::from(u8::from(i == j))).collect();
                let start = row * dim * dim + j * dim;
                near(&marginal.hessian_product(x, &unit)?, &hessians[start..start + dim], 1e-10);
            }
        }
    }
    Ok(())
}

#[test]
fn the_score_is_the_gradient_of_the_log_density_for_a_process_with_groups() -> Result<()> {
    let sde = Rotating { omega: 1.3 };
    let covariance = DMatrix::from_row_slice(2, 2, &[0.5, 0.2, 0.2, 0.3]);
    let mixture = Mixture::new(
        &[0.3, 0.7],
        &[vec![1.0, -0.5], vec![-0.4, 0.8]],
        &[covariance.clone(), covariance * 0.2],
    )?;
    let marginal = mixture.marginal(&sde, 0.4)?;
    let u = [0.3, 0.1];
    let exact = marginal.at(&u)?;
    let h = 1e-5;
    for i in 0..2 {
        let shifted = |sign: f64| {
            let mut v = u;
            v[i] += sign * h;
            marginal.at(&v)
        };
        let (up, down) = (shifted(1.0)?, shifted(-1.0)?);
        assert!(((up.log_density - down.log_density) / (2.0 * h) - exact.score[i]).abs() < 1e-8);
        let unit: Vec<f64> = (0..2).map(|j| f64::from(u8::from(i == j))).collect();
        let column = marginal.hessian_product(&u, &unit)?;
        for (j, entry) in column.iter().enumerate() {
            assert!(((up.score[j] - down.score[j]) / (2.0 * h) - entry).abs() < 1e-7);
        }
    }
    // u = S x₀ + R ε must hold for the posterior means too.
    let rebuilt: Vec<f64> = sde
        .signal(0.4)
        .apply_host(&exact.data)?
        .iter()
        .zip(sde.factor(0.4).apply_host(&exact.noise)?)
        .map(|(a, b)| a + b)
        .collect();
    near(&rebuilt, &u, 1e-13);
    Ok(())
}

#[test]
fn the_flow_of_a_gaussian_solves_the_probability_flow() -> Result<()> {
    let golden = Golden::load("cont_vp_ani4");
    let mixture = golden.mixture()?;
    let sde = Vp::STANDARD;
    let field = OracleField::noise(&mixture, &sde);
    let velocity = Converted::new(&field, &sde, Prediction::Velocity);
    let x = golden.rows("oracle_x")[0].clone();
    let (t, h) = (0.4, 1e-5);
    let at = |tau: f64| mixture.flow(&sde, t, tau, &x);
    let here = Tensor::from_vec(x.clone(), (1, 4), &Device::Cpu)?;
    let rate = velocity.eval(&here, &[t])?.flatten_all()?.to_vec1::<f64>()?;
    for ((up, down), v) in at(t + h)?.iter().zip(at(t - h)?).zip(rate) {
        assert!(((up - down) / (2.0 * h) - v).abs() < 1e-8);
    }
    near(&mixture.flow(&sde, 0.9, 0.2, &mixture.flow(&sde, 0.2, 0.9, &x)?)?, &x, 1e-11);
    Ok(())
}

#[test]
fn vector_jacobian_products_agree_with_finite_differences() -> Result<()> {
    let golden = Golden::load("cont_vp_gmm8");
    let mixture = golden.mixture()?;
    let sde = Vp::STANDARD;
    let (noise, data) = (OracleField::noise(&mixture, &sde), OracleField::data(&mixture, &sde));
    let cases = [
        (noise, Prediction::Noise),
        (noise, Prediction::Velocity),
        (noise, Prediction::Score),
        (data, Prediction::Data),
        (data, Prediction::Noise),
    ];
    for (field, to) in cases {
        let field = Converted::new(&field, &sde, to);
        let x = Tensor::new(&[[0.4, -0.7], [1.1, 0.2]], &Device::Cpu)?;
        let v = Tensor::new(&[[0.3, 1.2], [-0.8, 0.5]], &Device::Cpu)?;
        let times = [0.3, 0.6];
        let (_, products) = field.vjps(&x, &times, std::slice::from_ref(&v))?;
        let product = products[0].to_vec2::<f64>()?;
        let h = 1e-6;
        for i in 0..2 {
            let mut unit = [0.0; 2];
            unit[i] = h;
            let shift = Tensor::new(&[unit, unit], &Device::Cpu)?;
            let slope =
                ((field.eval(&(&x + &shift)?, &times)? - field.eval(&(&x - &shift)?, &times)?)? / (2.0 * h))?;
            let expected = (slope * &v)?.sum(1)?.to_vec1::<f64>()?;
            for row in 0..2 {
                assert!((product[row][i] - expected[row]).abs() < 1e-6, "{to:?}");
            }
        }
    }
    Ok(())
}

#[test]
fn the_variance_of_the_noise_is_one_plus_the_scaled_curvature() -> Result<()> {
    // Cov(ε | u) = I + Rᵀ H R, H the Hessian of the log density: the diagonal, with and without groups, and for axes and points.
    let skew = DMatrix::from_row_slice(2, 2, &[0.4, 0.2, 0.2, 0.3]);
    let mixture =
        Mixture::new(&[0.4, 0.6], &[vec![0.5, -0.3], vec![-0.7, 0.1]], &[skew, DMatrix::zeros(2, 2)])?;
    let axes = Mixture::diagonal(vec![0.3, 0.1], vec![0.5, 0.02])?;
    let points = Mixture::points(&[vec![1.0, 0.0], vec![-1.0, 0.5], vec![0.2, 0.3]])?;
    let rotating = Rotating { omega: 1.3 };
    for sde in [&Vp::STANDARD as &dyn LinearSde, &Ve::STANDARD, &rotating] {
        for data in [&mixture, &axes, &points] {
            let (t, u) = (0.6, [0.35, -0.2]);
            let marginal = data.marginal(sde, t)?;
            let found = marginal.noise_variance(&u)?;
            let curved = |j: usize| -> Result<f64> {
                let unit: Vec<f64> = (0..2).map(|i| f64::from(u8::from(i == j))).collect();
                let seen = marginal.factor().apply_host(&unit)?;
                let curvature = marginal.hessian_product(&u, &seen)?;
                Ok(1.0 + seen.iter().zip(curvature).map(|(a, b)| a * b).sum::<f64>())
            };
            near(&found, &[curved(0)?, curved(1)?], 1e-12);
        }
    }
    assert!(mixture.marginal(&rotating, 0.6)?.noise_variance(&[0.0]).is_err());
    Ok(())
}

#[test]
fn degenerate_and_malformed_laws_are_refused() -> Result<()> {
    let point = Mixture::points(&[vec![1.0, 2.0]])?;
    assert!(point.marginal(&Vp::STANDARD, 0.0).is_err());
    assert!(point.marginal(&Vp::STANDARD, 0.5)?.at(&[1.0]).is_err());
    assert!(Mixture::diagonal(vec![0.0], vec![-1.0]).is_err());
    assert!(Mixture::points(&[]).is_err());
    let indefinite = DMatrix::from_row_slice(2, 2, &[1.0, 2.0, 2.0, 1.0]);
    let skewed = DMatrix::from_row_slice(2, 2, &[1.0, 0.5, 0.0, 1.0]);
    for bad in [indefinite, skewed, DMatrix::from_element(2, 2, f64::NAN)] {
        assert!(Mixture::new(&[1.0], &[vec![0.0, 0.0]], &[bad]).is_err());
    }
    Ok(())
}

/// Mean and covariance of draws, each within five of their standard errors; the same draw at the same address.
#[test]
fn draws_have_the_moments_of_their_law() -> Result<()> {
    let covariances =
        [DMatrix::from_row_slice(2, 2, &[0.5, 0.3, 0.3, 0.4]), DMatrix::from_diagonal_element(2, 2, 0.01)];
    let law = Mixture::new(&[0.25, 0.75], &[vec![-1.0, 2.0], vec![1.0, 0.0]], &covariances)?;
    let n = 40_000;
    let draw = |i: u32| law.sample(&mut Noise::new(5).draws(Stream::Data, 0, i));
    assert_eq!(draw(7), draw(7));
    let points: Vec<Vec<f64>> = (0..n).map(draw).collect();
    let check = |f: &dyn Fn(&[f64]) -> f64, expected: f64| {
        let values: Vec<f64> = points.iter().map(|p| f(p)).collect();
        let mean = values.iter().sum::<f64>() / f64::from(n);
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / f64::from(n - 1);
        let error = (variance / f64::from(n)).sqrt();
        assert!((mean - expected).abs() < 5.0 * error, "{mean} ± {error}, not {expected}");
    };
    check(&|p| p[0], 0.5);
    check(&|p| p[1], 0.5);
    // Σ w (C + m mᵀ).
    check(&|p| p[0] * p[0], 0.25 * 1.5 + 0.75 * 1.01);
    check(&|p| p[0] * p[1], 0.25 * (0.3 - 2.0));
    check(&|p| p[1] * p[1], 0.25 * 4.4 + 0.75 * 0.01);
    Ok(())
}
