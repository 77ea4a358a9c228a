//! The exact prediction of a finite data set: p_t is a mixture of one kernel for each point, and x₀ = E[x₀ | u] a weighted mean of points.
//!
//! With y = R⁻¹ u and c_i = R⁻¹ S x_i: weights w_i ∝ exp(−‖y − c_i‖²/2), x₀ = Σ w_i x_i, and for a vector v
//! vᵀ ∂x₀/∂u = Σ w_i ⟨v, x_i − x₀⟩ c_iᵀ R⁻¹. A "training-free" model: what a network of unlimited capacity would learn from these points. All
//! is matrix products over the set, in the state's type (f64 for a sampler).
//!
//! Reference: Su 2025, *Topics on Diffusion Generative Models*, Eq. (5.12), (18.3); Karras et al. 2022, arXiv 2206.00364, Eq. (57).

use candle_core::{D, Tensor};

use crate::model::{Cotangents, per_sample};
use crate::{Error, Field, LinearSde, Op, Prediction, Result};

/// The exact x₀ of the uniform law on given points.
pub struct EmpiricalField<'a> {
    points: Tensor,
    sde: &'a dyn LinearSde,
}

/// What one evaluation computes for one time.
struct Posterior {
    /// w, `[b, N]`.
    weights: Tensor,
    /// c, `[N, D]`.
    centres: Tensor,
    /// R⁻¹.
    whiten: Op,
}

impl<'a> EmpiricalField<'a> {
    /// The field of `points` under `sde`.
    ///
    /// # Shapes
    /// `points` `[N, shape…]`, in f64 for a sampler; states are `[B, shape…]` of the same type.
    ///
    /// # Errors
    /// When there is no point.
    pub fn new(points: &Tensor, sde: &'a dyn LinearSde) -> Result<Self> {
        if points.rank() < 2 || points.dim(0)? == 0 {
            return Err(Error::Mismatch {
                what: "points of a finite law",
                expected: "[N, …] with N at least 1".into(),
                found: format!("{:?}", points.dims()),
            });
        }
        Ok(Self { points: points.contiguous()?, sde })
    }

    /// The posterior of the points given states `u` `[b, …]` at one time.
    fn posterior(&self, u: &Tensor, t: f64) -> Result<Posterior> {
        let whiten = self.sde.factor(t).inverse()?;
        let centres = whiten.mul(&self.sde.signal(t))?.apply(&self.points)?.flatten_from(1)?;
        let y = whiten.apply(u)?.flatten_from(1)?;
        // −½‖y − c‖² without what is the same for all points.
        let half = (centres.sqr()?.sum(1)? * 0.5)?;
        let logits = y.matmul(&centres.t()?)?.broadcast_sub(&half)?;
        let top = logits.max_keepdim(D::Minus1)?;
        let weights = logits.broadcast_sub(&top)?.exp()?;
        let weights = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?;
        Ok(Posterior { weights, centres, whiten })
    }

    fn flat_points(&self) -> Result<Tensor> {
        Ok(self.points.flatten_from(1)?)
    }

    /// Runs `f` on the rows of each time: all at once where there is one.
    fn by_time(
        &self,
        x: &Tensor,
        t: &[f64],
        f: impl Fn(&Tensor, f64, usize) -> Result<Tensor>,
    ) -> Result<Tensor> {
        if t.len() == 1 {
            return f(x, t[0], 0);
        }
        let times = per_sample(t, x.dim(0)?)?;
        let rows = times.iter().enumerate().map(|(i, &t)| f(&x.narrow(0, i, 1)?.contiguous()?, t, i));
        Ok(Tensor::cat(&rows.collect::<Result<Vec<_>>>()?, 0)?)
    }
}

impl Field for EmpiricalField<'_> {
    fn prediction(&self) -> Prediction {
        Prediction::Data
    }

    fn eval(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        self.by_time(x, t, |u, t, _| {
            let mean = self.posterior(u, t)?.weights.matmul(&self.flat_points()?)?;
            Ok(mean.reshape(u.dims())?)
        })
    }

    fn pull_back(&self, x: &Tensor, t: &[f64], cotangents: &Cotangents<'_>) -> Result<(Tensor, Vec<Tensor>)> {
        let value = self.eval(x, t)?;
        let points = self.flat_points()?;
        let vs = cotangents(&value)?;
        let products = vs.iter().map(|v| {
            self.by_time(x, t, |u, t, first| {
                let b = u.dim(0)?;
                let Posterior { weights, centres, whiten } = self.posterior(u, t)?;
                let v = v.narrow(0, first, b)?.flatten_from(1)?.contiguous()?;
                let mean = value.narrow(0, first, b)?.flatten_from(1)?;
                // ⟨v, x_i − x₀⟩ for every point.
                let along = v.matmul(&points.t()?)?.broadcast_sub(&(v * mean)?.sum_keepdim(1)?)?;
                let back = (weights * along)?.matmul(&centres)?.reshape(u.dims())?;
                whiten.transpose().apply(&back)
            })
        });
        let products = products.collect::<Result<Vec<_>>>()?;
        Ok((value, products))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::Mixture;
    use crate::process::{LinearPath, SubVp, Ve, Vp};
    use crate::{Converted, OracleField};
    use candle_core::Device;

    fn gap(a: &Tensor, b: &Tensor) -> Result<f64> {
        Ok((a - b)?.abs()?.max_all()?.to_scalar()?)
    }

    #[test]
    fn it_is_the_mixture_of_its_points() -> Result<()> {
        let rows = [vec![0.4, -1.0, 0.1], vec![-0.3, 0.2, 0.9], vec![0.5, 0.5, -0.7]];
        let points = Tensor::from_vec(rows.concat(), (3, 3), &Device::Cpu)?;
        let mixture = Mixture::points(&rows)?;
        let x = Tensor::new(&[[0.3, -0.2, 0.5], [1.0, 0.7, -0.9]], &Device::Cpu)?;
        let v = Tensor::new(&[[1.0, -0.5, 0.2], [0.3, 0.8, -1.0]], &Device::Cpu)?;
        let processes: [&dyn LinearSde; 4] = [&Vp::STANDARD, &SubVp::STANDARD, &Ve::STANDARD, &LinearPath];
        for sde in processes {
            let (field, oracle) = (EmpiricalField::new(&points, sde)?, OracleField::data(&mixture, sde));
            for times in [vec![0.4], vec![0.2, 0.6]] {
                let (value, products) = field.vjps(&x, &times, std::slice::from_ref(&v))?;
                let (expected, expected_products) = oracle.vjps(&x, &times, std::slice::from_ref(&v))?;
                assert!(gap(&value, &expected)? < 1e-12);
                assert!(gap(&products[0], &expected_products[0])? < 1e-11);
                let noise = Converted::new(&field, sde, Prediction::Noise).eval(&x, &times)?;
                assert!(gap(&noise, &OracleField::noise(&mixture, sde).eval(&x, &times)?)? < 1e-11);
            }
        }
        assert!(EmpiricalField::new(&points.narrow(0, 0, 0)?, &Vp::STANDARD).is_err());
        Ok(())
    }
}
