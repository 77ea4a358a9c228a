//! Fields that also know how uncertain they are: ε̂ and, for each entry, the variance κ that ε has left given the state.
//!
//! A second output f of a network becomes κ by one of two estimates, with `w = α²/(α² + σ²)`, the κ of data of unit variance:
//!
//! - [`SecondMoment::Residual`] (NPR): `g = w f ≈ E[(ε − ε̂)² | x]`, and κ = g, right for an imperfect ε̂, too;
//! - [`SecondMoment::Square`] (SN): `h = ε̂² + √w f ≈ E[ε² | x]`, and κ = h − ε̂² = √w f, right for a perfect ε̂ and negative where it is not.
//!
//! Reference: Bao, Li, Sun, Zhu, Zhang 2022, arXiv 2206.07309, Eq. (6)–(12).
//! Differs: networks there put out g and h themselves; f is of order one at every time, so that κ is precise relative to w where noise is all there
//! is and an error of κ is multiplied by σ²/α².

use candle_core::{DType, Device, Tensor};

use crate::noise::host_tensor;
use crate::tensor::convert;
use crate::{Error, LinearSde, Model, Op, OracleField, Pass, Prediction, Result, apply_each, per_sample};

/// What is known of the noise in a state.
#[derive(Debug, Clone)]
pub struct Moments {
    /// ε̂, its expectation, of the shape of the state.
    pub noise: Tensor,
    /// κ, its variance by entry, of the same shape; an estimate may be negative.
    pub variance: Tensor,
}

/// Mean and variance of the noise as functions of state and time, as a sampler sees them.
pub trait MomentField {
    /// Both at `x`, in one evaluation.
    ///
    /// # Shapes
    /// `x` `[B, …]`; `t` holds one time a sample, or one for all. Both outputs have the shape, type and device of `x`.
    ///
    /// # Errors
    /// When the model fails, or the process is not scalar.
    fn moments(&self, x: &Tensor, t: &[f64]) -> Result<Moments>;
}

impl<F: MomentField + ?Sized> MomentField for &F {
    fn moments(&self, x: &Tensor, t: &[f64]) -> Result<Moments> {
        (**self).moments(x, t)
    }
}

impl<F: MomentField + ?Sized> MomentField for Box<F> {
    fn moments(&self, x: &Tensor, t: &[f64]) -> Result<Moments> {
        (**self).moments(x, t)
    }
}

/// The second moment that a network's second output estimates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecondMoment {
    /// g ≈ E[(ε − ε̂)² | x]: NPR, the noise prediction residual.
    Residual,
    /// h ≈ E[ε² | x]: SN, the squared noise.
    Square,
}

impl SecondMoment {
    /// The factor of f in κ at time t: w or √w.
    ///
    /// # Errors
    /// [`Error::Mismatch`] unless the process is scalar; [`Error::Undefined`] where it has no signal.
    pub fn scale(self, sde: &dyn LinearSde, t: f64) -> Result<f64> {
        let (Some(alpha), Some(sigma)) = (sde.signal(t).as_scalar(), sde.factor(t).as_scalar()) else {
            return Err(Error::Mismatch {
                what: "variance by entry",
                expected: "a process that treats all coordinates alike".into(),
                found: format!("{}; use a sampler of a table", sde.signal(t).describe()),
            });
        };
        if alpha == 0.0 {
            return Err(Error::Undefined {
                what: "the uncertainty of the noise relative to the signal's",
                t,
                hint: "the signal vanishes there; start where there is some",
            });
        }
        let w = alpha * alpha / (alpha * alpha + sigma * sigma);
        Ok(match self {
            Self::Residual => w,
            Self::Square => w.sqrt(),
        })
    }

    /// What f is the conditional expectation of: `(ε − ε̂)²/w` or `(ε² − ε̂²)/√w`.
    ///
    /// # Shapes
    /// `eps` and `predicted` (ε̂) `[B, …]`; `t` one time a sample, or one for all.
    ///
    /// # Errors
    /// As [`SecondMoment::scale`].
    pub fn target(self, sde: &dyn LinearSde, t: &[f64], eps: &Tensor, predicted: &Tensor) -> Result<Tensor> {
        let moment = match self {
            Self::Residual => (eps - predicted)?.sqr()?,
            Self::Square => (eps.sqr()? - predicted.sqr()?)?,
        };
        let inverse =
            t.iter().map(|&t| Ok(Op::Scalar(1.0 / self.scale(sde, t)?))).collect::<Result<Vec<_>>>()?;
        apply_each(&inverse, &moment)
    }

    /// κ from f.
    ///
    /// # Shapes
    /// `f` `[B, …]`; `t` one time a sample, or one for all.
    ///
    /// # Errors
    /// As [`SecondMoment::scale`].
    pub fn variance(self, sde: &dyn LinearSde, t: &[f64], f: &Tensor) -> Result<Tensor> {
        let scale = t.iter().map(|&t| Ok(Op::Scalar(self.scale(sde, t)?))).collect::<Result<Vec<_>>>()?;
        apply_each(&scale, f)
    }
}

/// A model with a second output as a field of moments.
pub struct ModelMoments<'a, M> {
    model: M,
    second: SecondMoment,
    sde: &'a dyn LinearSde,
    dtype: DType,
    device: Device,
    labels: Option<Tensor>,
}

impl<'a, M: Model> ModelMoments<'a, M> {
    /// The moments that a network of `sde` puts out, whose parameters have type `dtype` and live on `device`; `second` is what it was trained for.
    pub fn new(
        model: M,
        second: SecondMoment,
        sde: &'a dyn LinearSde,
        dtype: DType,
        device: &Device,
    ) -> Self {
        Self { model, second, sde, dtype, device: device.clone(), labels: None }
    }

    /// The class-conditional field; `labels` is `[B]` u32, one for each sample of the states it will be given.
    pub fn with_labels(self, labels: Tensor) -> Self {
        Self { labels: Some(labels), ..self }
    }
}

impl<M: Model> MomentField for ModelMoments<'_, M> {
    fn moments(&self, x: &Tensor, t: &[f64]) -> Result<Moments> {
        let batch = x.dim(0)?;
        let times = host_tensor(per_sample(t, batch)?, &[batch], self.dtype, &self.device)?;
        let input = x.to_device(&self.device)?.to_dtype(self.dtype)?;
        let pass = Pass { labels: self.labels.as_ref(), ..Pass::EVAL };
        let (first, second) = self.model.forward_with_second(&input, &times, pass)?;
        let home = |y: Tensor| y.to_device(x.device())?.to_dtype(x.dtype());
        let (first, second) = (home(first)?, home(required(second)?)?);
        let noise = convert(self.sde, (self.model.prediction(), Prediction::Noise), t, x, &first)?;
        Ok(Moments { noise, variance: self.second.variance(self.sde, t, &second)? })
    }
}

/// The second output of a model that must have one.
///
/// # Errors
/// [`Error::Mismatch`] where it has none.
pub fn required(second: Option<Tensor>) -> Result<Tensor> {
    second.ok_or_else(|| Error::Mismatch {
        what: "second output of a model",
        expected: "a second moment, from a head trained for it".into(),
        found: "a model of the mean alone; train a head on it first".into(),
    })
}

/// The exact moments: κ is the variance of ε given the state.
impl MomentField for OracleField<'_> {
    fn moments(&self, x: &Tensor, t: &[f64]) -> Result<Moments> {
        let pairs =
            self.rows(x, t, |marginal, _, u| Ok((marginal.at(u)?.noise, marginal.noise_variance(u)?)))?;
        let (noise, variance): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
        let tensor = |rows: Vec<Vec<f64>>| host_tensor(rows.concat(), x.dims(), x.dtype(), x.device());
        Ok(Moments { noise: tensor(noise)?, variance: tensor(variance)? })
    }
}
