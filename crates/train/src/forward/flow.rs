//! A learned forward process at given values of its parameters: states, errors, weights and the ends of the bound, all
//! differentiable by the parameters.
//!
//! Everything that depends on λ and b is computed in f64, where 1 − e^{−λb} is right to 1e-10 from b = 1e-6 on, and cast
//! where it meets states. Noise is drawn in the coordinates of P for [`Family::Noise`](super::Family), in those of the state
//! otherwise; a network predicts noise, and v = a ε − σ x₀, in the frame of the state: those of the symmetric root of Σ.
//!
//! With c the clock ½ log(e^b − 1), `½ ḃ ‖s − ∇log q‖²_Q dt = Σ_i λ_i (1 − e^{−b})/(1 − e^{−λ_i b}) e_i² dc`, e the error of the
//! noise: the weights of the likelihood are bounded in c, between 1 and λ_i.
//!
//! Reference: "A Flexible Diffusion Model", Eq. (14), (17), (19).

use candle_core::{DType, Device, Tensor};
use sde_core::Prediction;
use sde_nets::Frame;
use sde_nets::ops::{antisymmetric, orthogonal_exponential};

use crate::{Error, Result};

/// A process with a tape to its parameters.
#[derive(Debug, Clone)]
pub struct Flow {
    form: Form,
    dim: usize,
}

/// The forms that a process has.
#[derive(Debug, Clone)]
pub(super) enum Form {
    /// P and λ, `[D]` in f64.
    Noise(Frame, Tensor),
    /// P and the rate of each pair of coordinates.
    Drift(Frame, Tensor),
    /// The entries of ω above its diagonal.
    Rotation(Tensor),
}

/// A batch on its way.
#[derive(Debug, Clone)]
pub struct Diffused {
    /// x_t, `[B, D]`.
    pub state: Tensor,
    /// x₀ and ε in the coordinates that errors are in.
    data: Tensor,
    eps: Tensor,
    /// a and σ, `[B, D]` or `[B, 1]`.
    signal: Tensor,
    pub(crate) sigma: Tensor,
}

/// A host vector as a column in f64, beside a tensor.
fn column(values: &[f64], like: &Tensor) -> Result<Tensor> {
    Ok(Tensor::from_slice(values, (values.len(), 1), &Device::Cpu)?.to_device(like.device())?)
}

/// What there is to say of a prediction that a learned process has not.
fn refused(prediction: Prediction) -> Error {
    Error::Core(sde_core::Error::Mismatch {
        what: "prediction for a learned process",
        expected: "noise, v or score, or data where ω = 0".into(),
        found: format!("{prediction:?}").to_lowercase(),
    })
}

impl Flow {
    pub(super) fn noise(frame: Frame, rates: Tensor) -> Self {
        let dim = rates.elem_count();
        Self { form: Form::Noise(frame, rates), dim }
    }

    pub(super) fn drift(frame: Frame, rates: Tensor, dim: usize) -> Self {
        Self { form: Form::Drift(frame, rates), dim }
    }

    pub(super) fn rotation(upper: Tensor, dim: usize) -> Self {
        Self { form: Form::Rotation(upper), dim }
    }

    /// The same without a tape.
    pub fn detach(&self) -> Self {
        let form = match &self.form {
            Form::Noise(frame, rates) => Form::Noise(frame.detach(), rates.detach()),
            Form::Drift(frame, rates) => Form::Drift(frame.detach(), rates.detach()),
            Form::Rotation(upper) => Form::Rotation(upper.detach()),
        };
        Self { form, dim: self.dim }
    }

    /// Whether its parameters are variables.
    pub(crate) fn is_taped(&self) -> bool {
        match &self.form {
            Form::Noise(_, like) | Form::Drift(_, like) | Form::Rotation(like) => like.track_op(),
        }
    }

    /// What it is made of.
    pub(super) fn into_form(self) -> Form {
        self.form
    }

    /// P and, by coordinate, λ (noise) or, by pair of coordinates, the rate (drift); none for a rotation by its entries.
    pub fn spectrum(&self) -> Option<(&Frame, &Tensor)> {
        match &self.form {
            Form::Noise(frame, rates) | Form::Drift(frame, rates) => Some((frame, rates)),
            Form::Rotation(_) => None,
        }
    }

    /// λ b of each coordinate, `[B, D]`, or b, `[B, 1]`, in f64.
    fn exponents(&self, b: &[f64]) -> Result<Tensor> {
        match &self.form {
            Form::Noise(_, rates) => Ok(column(b, rates)?.broadcast_mul(rates)?),
            Form::Drift(_, like) | Form::Rotation(like) => column(b, like),
        }
    }

    /// Σ in the coordinates of errors: `1 − e^{−λb}`.
    fn variance(&self, b: &[f64]) -> Result<Tensor> {
        Ok(self.exponents(b)?.neg()?.exp()?.affine(-1.0, 1.0)?)
    }

    /// `x_t` for each sample at its b.
    ///
    /// # Shapes
    /// `x0` and `eps` `[B, D]`, of the type of the flow.
    pub fn diffuse(&self, x0: &Tensor, eps: &Tensor, b: &[f64]) -> Result<Diffused> {
        let here = |coefficients: Tensor| -> Result<Tensor> {
            Ok(coefficients.to_dtype(x0.dtype())?.to_device(x0.device())?)
        };
        let signal = here((self.exponents(b)? * -0.5)?.exp()?)?;
        let sigma = here(self.variance(b)?.sqrt()?)?;
        let data = match &self.form {
            Form::Noise(frame, _) => frame.coordinates(x0)?,
            _ => self.turned(x0, b)?,
        };
        let sum = (data.broadcast_mul(&signal)? + eps.broadcast_mul(&sigma)?)?;
        let state = match &self.form {
            Form::Noise(frame, _) => frame.entries(&sum)?,
            _ => sum,
        };
        Ok(Diffused { state, data, eps: eps.clone(), signal, sigma })
    }

    /// `e^{−ωb} x` of each row.
    fn turned(&self, x: &Tensor, b: &[f64]) -> Result<Tensor> {
        match &self.form {
            Form::Noise(..) => Ok(x.clone()),
            Form::Drift(frame, rates) => {
                let angles = column(b, rates)?.broadcast_mul(rates)?;
                let here = |t: Tensor| -> Result<Tensor> {
                    Ok(t.to_dtype(x.dtype())?.to_device(x.device())?.unsqueeze(2)?)
                };
                let (cos, sin) = (here(angles.cos()?)?, here(angles.sin()?)?);
                let (y, paired) = (frame.coordinates(x)?, 2 * rates.elem_count());
                let pairs = y.narrow(1, 0, paired)?.reshape((b.len(), paired / 2, 2))?;
                let (first, second) = (pairs.narrow(2, 0, 1)?, pairs.narrow(2, 1, 1)?);
                let turned = Tensor::cat(
                    &[((&first * &cos)? - (&second * &sin)?)?, ((&first * &sin)? + (&second * &cos)?)?],
                    2,
                )?;
                let turned = turned.reshape((b.len(), paired))?;
                let rest = y.narrow(1, paired, self.dim - paired)?;
                frame.entries(&Tensor::cat(&[turned, rest], 1)?).map_err(Error::from)
            }
            Form::Rotation(upper) => {
                let angles = column(b, upper)?.neg()?.broadcast_mul(upper)?;
                let turns = orthogonal_exponential(&angles, self.dim)?;
                let turns = turns.to_dtype(x.dtype())?.to_device(x.device())?;
                Ok(turns.matmul(&x.unsqueeze(2)?.contiguous()?)?.squeeze(2)?)
            }
        }
    }

    /// The error of the noise that an output of a network stands for, in the coordinates that [`Flow::weights`] are in.
    ///
    /// # Shapes
    /// `output` `[B, D]`; so is the error.
    ///
    /// # Errors
    /// [`Error::Core`] for a velocity, and for data where ω is not 0.
    pub fn error(&self, prediction: Prediction, output: &Tensor, at: &Diffused) -> Result<Tensor> {
        let own = self.coordinates(output)?;
        match prediction {
            Prediction::Noise => Ok((own - &at.eps)?),
            Prediction::Score => Ok((own.broadcast_mul(&at.sigma)?.neg()? - &at.eps)?),
            Prediction::Data if matches!(self.form, Form::Noise(..)) => {
                let gap = (&at.data - own)?;
                Ok((gap * at.signal.div(&at.sigma)?)?)
            }
            Prediction::V => {
                let v = (at.eps.broadcast_mul(&at.signal)? - at.data.broadcast_mul(&at.sigma)?)?;
                Ok((own - v)?.broadcast_mul(&at.signal)?)
            }
            other => Err(refused(other)),
        }
    }

    /// Rows in the coordinates that errors are in.
    fn coordinates(&self, x: &Tensor) -> Result<Tensor> {
        match &self.form {
            Form::Noise(frame, _) => Ok(frame.coordinates(x)?),
            _ => Ok(x.clone()),
        }
    }

    /// The weights of the likelihood for squared errors in the clock: `λ_i (1 − e^{−b})/(1 − e^{−λ_i b})`.
    ///
    /// # Shapes
    /// `[B, D]`, or `[B, 1]` where they are all 1; f64.
    pub fn weights(&self, b: &[f64]) -> Result<Tensor> {
        match &self.form {
            Form::Noise(_, rates) => {
                let own: Vec<f64> = b.iter().map(|b| -(-b).exp_m1()).collect();
                let ratio = column(&own, rates)?.broadcast_div(&self.variance(b)?)?;
                Ok(ratio.broadcast_mul(rates)?)
            }
            Form::Drift(_, like) | Form::Rotation(like) => {
                Ok(Tensor::ones((b.len(), 1), DType::F64, like.device())?)
            }
        }
    }

    /// The ends of the bound of `−log p(x₀)`, in nats: `KL(q_T|0 ‖ N(0, I))` at `b_end`, and what `E[−log p(x₀ | x_ε)]` at `b_start` is without
    /// the error of the noise there, `½ log |2π Σ_ε| − log |Ψ_ε|`.
    ///
    /// # Shapes
    /// `x0` `[B, D]`; the result `[B]`, f64.
    pub fn ends(&self, x0: &Tensor, b_start: f64, b_end: f64) -> Result<Tensor> {
        let dim = self.dim as f64;
        let data = match &self.form {
            Form::Noise(frame, _) => frame.coordinates(x0)?,
            _ => x0.clone(),
        };
        let all = |per_coordinate: Tensor| -> Result<Tensor> {
            // One entry stands for every coordinate where they are alike.
            let copies = dim / per_coordinate.dim(1)? as f64;
            Ok((per_coordinate.sum(1)? * copies)?)
        };
        let (start, end) = (self.variance(&[b_start])?, self.variance(&[b_end])?);
        let data = data.to_dtype(DType::F64)?.to_device(end.device())?;
        let kept = (self.exponents(&[b_end])? * -1.0)?.exp()?;
        let signal = (data.sqr()?.broadcast_mul(&kept)?.sum(1)? * 0.5)?;
        let spread = all(((&end - end.log()?)? * 0.5)?)?;
        let decoder = all(((start.log()? + self.exponents(&[b_start])?)? * 0.5)?)?;
        let constant = 0.5 * dim * (std::f64::consts::TAU.ln() - 1.0);
        Ok(signal.broadcast_add(&((spread + decoder)? + constant)?)?)
    }

    /// The score that an output of a network stands for.
    ///
    /// # Shapes
    /// `output` and `state` `[B, D]`; so is the score.
    ///
    /// # Errors
    /// As [`Flow::error`].
    pub fn score(
        &self,
        prediction: Prediction,
        output: &Tensor,
        state: &Tensor,
        b: &[f64],
    ) -> Result<Tensor> {
        if prediction == Prediction::Score {
            return Ok(output.clone());
        }
        let zeros = state.zeros_like()?;
        let Diffused { signal, sigma, .. } = self.diffuse(&zeros, &zeros, b)?;
        let (own, state) = (self.coordinates(output)?, self.coordinates(state)?);
        // Nothing is divided by a: late in a fast coordinate it is 0. For v, a v + σ x = (a² + σ²) ε.
        let noise = match prediction {
            Prediction::Noise => own,
            Prediction::V => (own.broadcast_mul(&signal)? + state.broadcast_mul(&sigma)?)?,
            Prediction::Data if matches!(self.form, Form::Noise(..)) => {
                (state - own.broadcast_mul(&signal)?)?.broadcast_div(&sigma)?
            }
            other => return Err(refused(other)),
        };
        let whitened = noise.broadcast_div(&sigma)?.neg()?;
        match &self.form {
            Form::Noise(frame, _) => Ok(frame.entries(&whitened)?),
            _ => Ok(whitened),
        }
    }

    /// `v/ḃ = −½ Q (x + s) − ω x`, the velocity of the probability flow in the clock b.
    ///
    /// # Shapes
    /// `[B, D]`.
    pub fn velocity(&self, x: &Tensor, score: &Tensor) -> Result<Tensor> {
        let pulled = self.diffused_by(&(x + score)?)?;
        Ok(((pulled * -0.5)? - self.turned_by(x)?)?)
    }

    /// `∇v/ḃ = −½ Q (I + ∇s) − ω`, for `slopes` ∂s_i/∂x_j.
    ///
    /// # Shapes
    /// `[B, D, D]`.
    pub fn velocity_slopes(&self, slopes: &Tensor) -> Result<Tensor> {
        let (batch, dim, _) = slopes.dims3()?;
        let identity = Tensor::eye(dim, slopes.dtype(), slopes.device())?;
        // Columns of I + ∇s as rows, since Q and ω act on rows of a batch.
        let columns = slopes.broadcast_add(&identity)?.transpose(1, 2)?.contiguous()?;
        let pulled = self.diffused_by(&columns.reshape((batch * dim, dim))?)?;
        let pulled = (pulled.reshape((batch, dim, dim))? * -0.5)?;
        Ok(pulled.broadcast_sub(&self.turned_by(&identity)?)?.transpose(1, 2)?)
    }

    /// `Q x` of each row.
    pub(crate) fn diffused_by(&self, x: &Tensor) -> Result<Tensor> {
        match &self.form {
            Form::Noise(frame, rates) => {
                let rates = rates.to_dtype(x.dtype())?.to_device(x.device())?;
                Ok(frame.entries(&frame.coordinates(x)?.broadcast_mul(&rates)?)?)
            }
            _ => Ok(x.clone()),
        }
    }

    /// `ω x` of each row.
    pub(crate) fn turned_by(&self, x: &Tensor) -> Result<Tensor> {
        match &self.form {
            Form::Noise(..) => Ok(x.zeros_like()?),
            Form::Drift(frame, rates) => {
                let rates = rates.to_dtype(x.dtype())?.to_device(x.device())?.unsqueeze(1)?;
                let (y, paired, rows) = (frame.coordinates(x)?, 2 * rates.elem_count(), x.dim(0)?);
                let pairs = y.narrow(1, 0, paired)?.reshape((rows, paired / 2, 2))?;
                let turned = Tensor::cat(&[pairs.narrow(2, 1, 1)?, pairs.narrow(2, 0, 1)?.neg()?], 2)?;
                let turned = turned.broadcast_mul(&rates)?.reshape((rows, paired))?;
                let rest = y.narrow(1, paired, self.dim - paired)?.zeros_like()?;
                Ok(frame.entries(&Tensor::cat(&[turned, rest], 1)?)?)
            }
            Form::Rotation(upper) => {
                let omega = antisymmetric(upper, self.dim)?.to_dtype(x.dtype())?.to_device(x.device())?;
                // Rows times ωᵀ = −ω.
                Ok(x.matmul(&omega)?.neg()?)
            }
        }
    }
}
