//! Mixed scores: a network that predicts what the exact ε of Gaussian data leaves over,
//!
//! `ε̂(u, t) = Rᵀ (S C Sᵀ + Σ)⁻¹ u + ε_net(u, t)`, `C = σ_d² I` on the groups that are data and 0 on those that are not.
//!
//! The first part is right for data `N(0, σ_d² I)` under any linear process, and where the noise has swallowed the data, whatever it is: there the
//! network learns zero.
//!
//! Reference: Vahdat, Kreis, Kautz 2021, arXiv 2106.05931, section 3.2; Dockhorn, Vahdat, Kreis 2022, arXiv 2112.07068, section 3.2.
//! Differs: for any linear process, all groups of ε, and data of any variance.

use std::sync::Arc;

use candle_core::Tensor;
use nalgebra::DMatrix;

use crate::error::in_range;
use crate::{Error, LinearSde, Model, Op, Pass, Prediction, Result, apply_each, operators_at};

/// A network of the rest of ε.
pub struct MixedScore<M> {
    model: M,
    sde: Arc<dyn LinearSde>,
    data: Op,
}

impl<M: Model> MixedScore<M> {
    /// The rest that `model`, which predicts noise, puts out, on the exact ε of data of this variance about zero.
    ///
    /// # Errors
    /// Unless the variance is positive and the model predicts noise.
    pub fn new(model: M, sde: Arc<dyn LinearSde>, variance: f64) -> Result<Self> {
        in_range("variance of the data of a mixed score", variance, f64::MIN_POSITIVE, f64::MAX)?;
        if model.prediction() != Prediction::Noise {
            return Err(Error::Mismatch {
                what: "network of a mixed score",
                expected: "one that predicts noise".into(),
                found: format!("{:?}", model.prediction()),
            });
        }
        let data = match sde.auxiliary() {
            None => Op::Scalar(variance),
            Some(auxiliary) => {
                let groups = sde.groups();
                let is_data = |i: usize| i + auxiliary.groups < groups;
                let entry = |i: usize, j: usize| if i == j && is_data(i) { variance } else { 0.0 };
                Op::Block(DMatrix::from_fn(groups, groups, entry))
            }
        };
        Ok(Self { model, sde, data })
    }

    /// `Rᵀ (S C Sᵀ + Σ)⁻¹` at time t.
    fn known(&self, t: f64) -> Result<Op> {
        let signal = self.sde.signal(t);
        let total = signal.mul(&self.data)?.mul(&signal.transpose())?.add(&self.sde.covariance(t))?;
        self.sde.factor(t).transpose().mul(&total.inverse()?)
    }

    fn add(&self, x: &Tensor, t: &Tensor, rest: &Tensor) -> Result<Tensor> {
        Ok((apply_each(&operators_at(t, |t| self.known(t))?, x)? + rest)?)
    }
}

impl<M: Model> Model for MixedScore<M> {
    fn prediction(&self) -> Prediction {
        Prediction::Noise
    }

    fn forward(&self, x: &Tensor, t: &Tensor, pass: Pass<'_>) -> Result<Tensor> {
        self.add(x, t, &self.model.forward(x, t, pass)?)
    }

    fn forward_with_second(
        &self,
        x: &Tensor,
        t: &Tensor,
        pass: Pass<'_>,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let (rest, second) = self.model.forward_with_second(x, t, pass)?;
        Ok((self.add(x, t, &rest)?, second))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::Mixture;
    use crate::process::{Blurring, Cld, Vp};
    use crate::{Field, OracleField, state_shape};
    use candle_core::Device;

    struct Nothing(Prediction);

    impl Model for Nothing {
        fn prediction(&self) -> Prediction {
            self.0
        }
        fn forward(&self, x: &Tensor, _: &Tensor, _: Pass<'_>) -> Result<Tensor> {
            Ok(x.zeros_like()?)
        }
    }

    #[test]
    fn with_nothing_to_add_it_is_the_oracle_of_gaussian_data() -> Result<()> {
        let processes: [Arc<dyn LinearSde>; 3] = [
            Arc::new(Vp::STANDARD),
            Arc::new(Cld::published()?),
            Arc::new(Blurring::new((2, 2), 1.0, 0.001)?),
        ];
        let variance = 0.3;
        let data = Mixture::diagonal(vec![0.0; 4], vec![variance; 4])?;
        for sde in processes {
            let (law, dim) = (data.lift(sde.as_ref())?, state_shape(sde.as_ref(), &[4])?[0]);
            let x: Vec<f64> = (0..2 * dim).map(|i| (1.7 * i as f64).sin()).collect();
            let x = Tensor::from_vec(x, (2, dim), &Device::Cpu)?;
            let model = MixedScore::new(Nothing(Prediction::Noise), sde.clone(), variance)?;
            let times = [1e-3, 0.7];
            let found = model.forward(&x, &Tensor::new(&times, &Device::Cpu)?, Pass::EVAL)?;
            let exact = OracleField::noise(&law, sde.as_ref()).eval(&x, &times)?;
            let gap = (found - exact)?.abs()?.max_all()?.to_scalar::<f64>()?;
            assert!(gap < 1e-10, "{gap:e}");
        }
        Ok(())
    }

    #[test]
    fn what_is_no_rest_of_noise_is_refused() {
        let vp: Arc<dyn LinearSde> = Arc::new(Vp::STANDARD);
        assert!(MixedScore::new(Nothing(Prediction::Data), vp.clone(), 1.0).is_err());
        assert!(MixedScore::new(Nothing(Prediction::Noise), vp, 0.0).is_err());
    }
}
