//! What a network predicts, and every conversion between the four meanings, once.
//!
//! With `u = S x₀ + R ε`: noise ε; data x₀; score `s = −R⁻ᵀ ε`; velocity `Ṡ x₀ + Ṙ ε`, the drift of the probability flow; and `v = α ε − σ x₀`, for any linear
//! process `v = C ε − C Kᵀ x₀` with `K = S⁻¹ R`, `C = (I + Kᵀ K)^{−1/2}`: what (x₀, ε) are beside u, of the size of the data. Then `ε = Rᵀ V⁻¹ u + C v` and
//! `x₀ = Sᵀ V⁻¹ u − K C v`, `V = S Sᵀ + R Rᵀ`: the best linear estimates given u, for data of unit covariance, and what is left of each.
//! Each prediction is an affine image of each other at the same (u, t): `to = A u + B from`.
//!
//! Reference: Karras et al. 2022, arXiv 2206.00364, appendix B; Salimans, Ho 2022, arXiv 2202.00512, for velocities and v.
//! Differs: "velocity" is the path's own time derivative (flow matching), [`Prediction::V`] the v of Salimans and Ho; they are proportional
//! only where α² + σ² = 1 and up to the rate of the angle. For scalar processes v is not divided by √(α² + σ²); for others it is, by C.

use crate::{Error, LinearSde, Op, Result};

/// The meaning of a network's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prediction {
    /// ε, the noise in `u = S x₀ + R ε`.
    Noise,
    /// x₀, the data.
    Data,
    /// `dS/dt x₀ + dR/dt ε`, the velocity of the path.
    Velocity,
    /// The gradient of the log density.
    Score,
    /// `v = α ε − σ x₀`, or its like for any linear process: the one that neither end of the process amplifies.
    V,
}

/// An affine map of a state and a prediction: `state · u + value · p`.
#[derive(Debug, Clone, PartialEq)]
pub struct Conversion {
    /// The factor of the state.
    pub state: Op,
    /// The factor of the prediction.
    pub value: Op,
}

impl Conversion {
    fn new(state: Op, value: Op) -> Self {
        Self { state, value }
    }

    /// `left · a + right · b`, maps of the same (u, p).
    fn combine(left: &Op, a: &Self, right: &Op, b: &Self) -> Result<Self> {
        let state = left.mul(&a.state)?.add(&right.mul(&b.state)?)?;
        let value = left.mul(&a.value)?.add(&right.mul(&b.value)?)?;
        Ok(Self { state, value })
    }

    fn is_finite(&self) -> bool {
        self.state.is_finite() && self.value.is_finite()
    }
}

impl Prediction {
    /// The factors of (x₀, ε) in this prediction: what a perfect knowledge of both would predict.
    ///
    /// # Errors
    /// A score without noise; [`Prediction::V`] without signal, unless the process is scalar.
    pub fn of_data_and_noise(self, sde: &dyn LinearSde, t: f64) -> Result<(Op, Op)> {
        Ok(match self {
            Self::Noise => (Op::ZERO, Op::IDENTITY),
            Self::Data => (Op::IDENTITY, Op::ZERO),
            Self::Velocity => (sde.signal_rate(t), sde.factor_rate(t)),
            Self::Score => (Op::ZERO, sde.factor(t).inverse()?.transpose().scale(-1.0)),
            Self::V => {
                let turn = Turn::new(sde, t)?;
                (turn.of_data, turn.of_noise)
            }
        })
    }

    /// The map from this prediction to another one, at time t.
    ///
    /// # Errors
    /// [`Error::Undefined`] where it does not exist: data from noise where the signal vanishes, noise from data where the
    /// noise does.
    pub fn conversion(self, to: Self, sde: &dyn LinearSde, t: f64) -> Result<Conversion> {
        if self == to {
            return Ok(Conversion::new(Op::ZERO, Op::IDENTITY));
        }
        match self.convert(to, sde, t) {
            Ok(conversion) if conversion.is_finite() => Ok(conversion),
            Ok(_) | Err(Error::Mismatch { what: "inverse of an operator", .. }) => Err(Error::Undefined {
                what: "this conversion between predictions",
                t,
                hint: "the signal or the noise vanishes there; stay inside the process's span or train another prediction",
            }),
            Err(other) => Err(other),
        }
    }

    fn convert(self, to: Self, sde: &dyn LinearSde, t: f64) -> Result<Conversion> {
        let (s, r) = (sde.signal(t), sde.factor(t));
        let state = Conversion::new(Op::IDENTITY, Op::ZERO);
        let same = Conversion::new(Op::ZERO, Op::IDENTITY);
        let data_of_noise = |noise: &Conversion| {
            let inverse = s.inverse()?;
            Conversion::combine(&inverse, &state, &inverse.mul(&r)?.scale(-1.0), noise)
        };
        let noise_of_data = |data: &Conversion| {
            let inverse = r.inverse()?;
            Conversion::combine(&inverse, &state, &inverse.mul(&s)?.scale(-1.0), data)
        };
        // What is known of (data, noise) without dividing by what may vanish and is not needed.
        let noise = || match self {
            Self::Noise => Ok(same.clone()),
            Self::Score => Ok(Conversion::new(Op::ZERO, r.transpose().scale(-1.0))),
            Self::Data => noise_of_data(&same),
            Self::Velocity => noise_of_data(&data_of_velocity(sde, t)?),
            Self::V => Ok(Turn::new(sde, t)?.noise),
        };
        let data = || match self {
            Self::Data => Ok(same.clone()),
            Self::Velocity => data_of_velocity(sde, t),
            Self::V => Ok(Turn::new(sde, t)?.data),
            Self::Noise | Self::Score => data_of_noise(&noise()?),
        };
        match to {
            Self::Noise => noise(),
            Self::Data => data(),
            Self::Score | Self::Velocity | Self::V => {
                let (of_data, of_noise) = to.of_data_and_noise(sde, t)?;
                // A score needs no data, and where the signal is gone there is none.
                let data = if to == Self::Score { state.clone() } else { data()? };
                Conversion::combine(&of_data, &data, &of_noise, &noise()?)
            }
        }
    }
}

/// How v turns (x₀, ε), and (u, v) back.
struct Turn {
    /// v of (x₀, ε).
    of_data: Op,
    of_noise: Op,
    /// ε and x₀ of (u, v).
    noise: Conversion,
    data: Conversion,
}

impl Turn {
    fn new(sde: &dyn LinearSde, t: f64) -> Result<Self> {
        let (s, r) = (sde.signal(t), sde.factor(t));
        if let (Some(alpha), Some(sigma)) = (s.as_scalar(), r.as_scalar()) {
            let square = alpha * alpha + sigma * sigma;
            let map = |state: f64, value: f64| Conversion::new(Op::Scalar(state), Op::Scalar(value));
            return Ok(Self {
                of_data: Op::Scalar(-sigma),
                of_noise: Op::Scalar(alpha),
                noise: map(sigma / square, alpha / square),
                data: map(alpha / square, -sigma / square),
            });
        }
        // C and K C by the singular values of K, which may be of any size; Sᵀ V⁻¹ and Rᵀ V⁻¹ by V = S Sᵀ + R Rᵀ, which has no cancellation.
        let (c, kc) = s.inverse()?.mul(&r)?.cosine_and_sine()?;
        let whole = s.mul(&s.transpose())?.add(&r.mul(&r.transpose())?)?.inverse()?;
        Ok(Self {
            of_data: kc.transpose().scale(-1.0),
            of_noise: c.clone(),
            noise: Conversion::new(r.transpose().mul(&whole)?, c),
            data: Conversion::new(s.transpose().mul(&whole)?, kc.scale(-1.0)),
        })
    }
}

/// x₀ from (u, velocity): eliminating ε from `u = S x₀ + R ε`, `v = Ṡ x₀ + Ṙ ε` gives `(Ṡ − Q S) x₀ = v − Q u`, `Q = Ṙ R⁻¹`. No division
/// by S, so it holds where the signal is gone. `Ṡ − Q S = −½ G Gᵀ Σ⁻¹ S`: where noise enters some groups alone, the velocity knows their score only.
fn data_of_velocity(sde: &dyn LinearSde, t: f64) -> Result<Conversion> {
    let diffusion = sde.diffusion(t);
    if diffusion.as_scalar().is_none() {
        diffusion.inverse()?;
    }
    let q = sde.factor_rate(t).mul(&sde.factor(t).inverse()?)?;
    let inverse = sde.signal_rate(t).sub(&q.mul(&sde.signal(t))?)?.inverse()?;
    Ok(Conversion::new(inverse.mul(&q)?.scale(-1.0), inverse))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Cosine, Edm, LinearPath, SubVp, Ve, Vp};
    use Prediction::{Data, Noise, Score, V, Velocity};

    #[test]
    fn every_conversion_agrees_with_the_definitions() -> Result<()> {
        let processes: [&dyn LinearSde; 6] =
            [&Vp::STANDARD, &SubVp::STANDARD, &Ve::STANDARD, &Edm::STANDARD, &LinearPath, &Cosine];
        let (x0, eps) = (0.7, -1.3);
        for sde in processes {
            for t in [1e-3, 0.1, 0.5, 0.9] {
                let of = |op: Op| op.as_scalar().unwrap_or(f64::NAN);
                let u = of(sde.signal(t)) * x0 + of(sde.factor(t)) * eps;
                let value = |p: Prediction| match p {
                    Noise => eps,
                    Data => x0,
                    Score => -eps / of(sde.factor(t)),
                    Velocity => of(sde.signal_rate(t)) * x0 + of(sde.factor_rate(t)) * eps,
                    V => of(sde.signal(t)) * eps - of(sde.factor(t)) * x0,
                };
                for from in [Noise, Data, Velocity, Score, V] {
                    for to in [Noise, Data, Velocity, Score, V] {
                        let map = from.conversion(to, sde, t)?;
                        let found = of(map.state) * u + of(map.value) * value(from);
                        let scale = value(to).abs().max(1.0) / of(sde.factor(t)).min(1.0);
                        assert!((found - value(to)).abs() < 1e-12 * scale, "{from:?} to {to:?} at {t}");
                    }
                }
            }
        }
        Ok(())
    }

    #[test]
    fn every_conversion_holds_for_matrices() -> Result<()> {
        let sde = crate::process::Blurring::new((2, 3), 2.0, 0.001)?;
        let x0 = [0.7, -0.2, 1.1, 0.4, -0.9, 0.1];
        let eps = [-1.3, 0.6, 0.2, -0.4, 0.8, 1.9];
        let plus = |a: Vec<f64>, b: Vec<f64>| -> Vec<f64> { a.iter().zip(&b).map(|(a, b)| a + b).collect() };
        for t in [1e-3, 0.1, 0.5, 0.9] {
            let u = plus(sde.signal(t).apply_host(&x0)?, sde.factor(t).apply_host(&eps)?);
            let value = |p: Prediction| -> Result<Vec<f64>> {
                let (of_data, of_noise) = p.of_data_and_noise(&sde, t)?;
                Ok(plus(of_data.apply_host(&x0)?, of_noise.apply_host(&eps)?))
            };
            // v is no larger than data and noise, and the weight of its error in either is at most 1.
            let (of_data, of_noise) = V.of_data_and_noise(&sde, t)?;
            assert!(of_data.max_abs() < 1.0 && of_noise.max_abs() < 1.0);
            for from in [Noise, Data, Velocity, Score, V] {
                for to in [Noise, Data, Velocity, Score, V] {
                    let map = from.conversion(to, &sde, t)?;
                    let found = plus(map.state.apply_host(&u)?, map.value.apply_host(&value(from)?)?);
                    let expected = value(to)?;
                    // Data from noise is divided by the signal, and so is its rounding.
                    let scale = (map.value.max_abs() + map.state.max_abs()) * 4.0;
                    let gap = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                    assert!(gap < 1e-14 * scale.max(20.0), "{from:?} to {to:?} at {t}: {gap:e}");
                }
            }
            let bounds = [V.conversion(Noise, &sde, t)?, V.conversion(Data, &sde, t)?];
            assert!(bounds.iter().all(|map| map.value.max_abs() <= 1.0 && map.state.is_finite()));
        }
        Ok(())
    }

    #[test]
    fn where_the_signal_is_gone_only_what_exists_is_given() -> Result<()> {
        let data = Velocity.conversion(Data, &LinearPath, 1.0)?;
        assert_eq!((data.state, data.value), (Op::Scalar(1.0), Op::Scalar(-1.0)));
        assert!(matches!(Noise.conversion(Data, &LinearPath, 1.0), Err(Error::Undefined { .. })));
        assert!(Data.conversion(Noise, &LinearPath, 1.0).is_ok());
        let data = V.conversion(Data, &LinearPath, 1.0)?;
        assert_eq!((data.state, data.value), (Op::Scalar(0.0), Op::Scalar(-1.0)));
        assert!(matches!(Data.conversion(Noise, &LinearPath, 0.0), Err(Error::Undefined { .. })));
        Ok(())
    }
}
