//! The law that the examples sample, and the error they report.

use candle_core::Tensor;
use nalgebra::DMatrix;
use sde_core::oracle::Mixture;
use sde_solvers::Result;

/// Eight Gaussians of deviation 0.05 on a circle of radius 1.4: thin, as data is, and of unit variance nearly.
pub fn eight_modes() -> Result<Mixture> {
    let angle = |k: u32| f64::from(k) * std::f64::consts::FRAC_PI_4;
    let means: Vec<Vec<f64>> = (0..8).map(|k| vec![1.4 * angle(k).cos(), 1.4 * angle(k).sin()]).collect();
    Ok(Mixture::new(&[1.0; 8], &means, &vec![DMatrix::identity(2, 2) * 0.05f64.powi(2); 8])?)
}

/// The mean distance between the points of two samples, `[N, D]` each.
pub fn distance(x: &Tensor, y: &Tensor) -> Result<f64> {
    Ok((x - y)?.sqr()?.sum(1)?.sqrt()?.mean_all()?.to_scalar()?)
}
