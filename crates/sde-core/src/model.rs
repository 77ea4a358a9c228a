//! Networks and fields: what training sees, what a sampler sees, and the bridge between the two.
//!
//! A [`Model`] is the training view: one time a sample, as a tensor, in the network's own type. A [`Field`] is the
//! sampling view: a state (f64 where the backend has it) and host times, in the state's type. [`ModelField`] makes a field of
//! a model; guidance, conversions and collages wrap fields.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor, Var};

use crate::noise::{BatchNoise, host_tensor};
use crate::{Error, Prediction, Result};

/// What accompanies the input of one forward pass.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pass<'a> {
    /// Class labels, `[B]` u32; `None` for an unconditional pass.
    pub labels: Option<&'a Tensor>,
    /// Features of the augmentation of each sample, `[B, K]`; `None` for data as it is, which zeros mean, too.
    pub augment: Option<&'a Tensor>,
    /// The source of dropout masks; `None` turns dropout off.
    pub dropout: Option<&'a BatchNoise>,
}

impl Pass<'_> {
    /// An unconditional pass without augmentation and dropout.
    pub const EVAL: Self = Self { labels: None, augment: None, dropout: None };
}

/// A network, as training sees it.
pub trait Model {
    /// What the output means.
    fn prediction(&self) -> Prediction;

    /// The prediction at state `x` and time `t`.
    ///
    /// # Shapes
    /// `x` `[B, …]`, `t` `[B]`, for which the networks of `sde-nets` also take `[1]`; the output has the shape of `x`.
    fn forward(&self, x: &Tensor, t: &Tensor, pass: Pass<'_>) -> Result<Tensor>;

    /// The prediction and the second output beside it, in one pass; what it means is a [`SecondMoment`](crate::SecondMoment). Models of the mean
    /// alone, the default, have none.
    ///
    /// # Shapes
    /// Both outputs have the shape of `x`.
    fn forward_with_second(
        &self,
        x: &Tensor,
        t: &Tensor,
        pass: Pass<'_>,
    ) -> Result<(Tensor, Option<Tensor>)> {
        Ok((self.forward(x, t, pass)?, None))
    }
}

/// A pointer to a model is that model.
macro_rules! points_to_model {
    ($($pointer:ty),*) => {$(
        impl<M: Model + ?Sized> Model for $pointer {
            fn prediction(&self) -> Prediction {
                (**self).prediction()
            }
            fn forward(&self, x: &Tensor, t: &Tensor, pass: Pass<'_>) -> Result<Tensor> {
                (**self).forward(x, t, pass)
            }
            fn forward_with_second(
                &self,
                x: &Tensor,
                t: &Tensor,
                pass: Pass<'_>,
            ) -> Result<(Tensor, Option<Tensor>)> {
                (**self).forward_with_second(x, t, pass)
            }
        }
    )*};
}
points_to_model!(&M, Box<M>, Arc<M>);

/// A prediction as a function of state and time, as a sampler sees it.
pub trait Field {
    /// What the output means.
    fn prediction(&self) -> Prediction;

    /// The prediction at `x`.
    ///
    /// # Shapes
    /// `x` `[B, …]`; `t` holds one time a sample, or one for all. The output has the shape, type and device of `x`.
    fn eval(&self, x: &Tensor, t: &[f64]) -> Result<Tensor>;

    /// The prediction `f` and the vector–Jacobian products `vᵀ ∂f/∂x`, one for each `v` that `cotangents` makes of `f`: what a loss of
    /// the prediction needs, in one evaluation.
    ///
    /// The default differentiates [`Field::eval`] on Candle's tape, with one evaluation however many `v` there are.
    ///
    /// # Errors
    /// [`Error::NoGradient`] when the output does not depend on `x` through the tape.
    fn pull_back(&self, x: &Tensor, t: &[f64], cotangents: &Cotangents<'_>) -> Result<(Tensor, Vec<Tensor>)> {
        reverse_mode(|x| self.eval(x, t), x, cotangents)
    }

    /// [`Field::pull_back`] of given `v` (of the shape of `x`).
    ///
    /// # Errors
    /// As [`Field::pull_back`].
    fn vjps(&self, x: &Tensor, t: &[f64], vs: &[Tensor]) -> Result<(Tensor, Vec<Tensor>)> {
        self.pull_back(x, t, &|_| Ok(vs.to_vec()))
    }

    /// The field of some samples of its batch, for a field that holds something of each sample (a label, a measurement). `None`: the
    /// field treats all samples alike and serves as it is.
    ///
    /// # Errors
    /// When it holds nothing for one of `samples`.
    fn restrict<'a>(&'a self, samples: &[usize]) -> Result<Option<Box<dyn Field + 'a>>> {
        let _ = samples;
        Ok(None)
    }
}

/// What makes cotangents of a value.
pub type Cotangents<'a> = dyn Fn(&Tensor) -> Result<Vec<Tensor>> + 'a;

impl<F: Field + ?Sized> Field for &F {
    fn prediction(&self) -> Prediction {
        (**self).prediction()
    }
    fn eval(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        (**self).eval(x, t)
    }
    fn pull_back(&self, x: &Tensor, t: &[f64], cotangents: &Cotangents<'_>) -> Result<(Tensor, Vec<Tensor>)> {
        (**self).pull_back(x, t, cotangents)
    }
    fn restrict<'a>(&'a self, samples: &[usize]) -> Result<Option<Box<dyn Field + 'a>>> {
        (**self).restrict(samples)
    }
}

impl<F: Field + ?Sized> Field for Box<F> {
    fn prediction(&self) -> Prediction {
        (**self).prediction()
    }
    fn eval(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        (**self).eval(x, t)
    }
    fn pull_back(&self, x: &Tensor, t: &[f64], cotangents: &Cotangents<'_>) -> Result<(Tensor, Vec<Tensor>)> {
        (**self).pull_back(x, t, cotangents)
    }
    fn restrict<'a>(&'a self, samples: &[usize]) -> Result<Option<Box<dyn Field + 'a>>> {
        (**self).restrict(samples)
    }
}

/// Value and vector–Jacobian products of `f` at `x`, on Candle's tape.
///
/// # Errors
/// [`Error::NoGradient`] when the value does not depend on `x` through the tape.
pub fn reverse_mode(
    f: impl Fn(&Tensor) -> Result<Tensor>,
    x: &Tensor,
    cotangents: &Cotangents<'_>,
) -> Result<(Tensor, Vec<Tensor>)> {
    let input = Var::from_tensor(&x.detach())?;
    let value = f(input.as_tensor())?;
    let products = cotangents(&value.detach())?
        .iter()
        .map(|v| {
            let gradients = (&value * v)?.sum_all()?.backward()?;
            let product = gradients.get(&input).ok_or(Error::NoGradient {
                hint: "the field must be a differentiable function of its input on the tape, or implement `pull_back` itself",
            })?;
            Ok(product.detach())
        })
        .collect::<Result<Vec<_>>>()?;
    Ok((value.detach(), products))
}

/// A closure as a field.
pub struct FieldFn<F> {
    prediction: Prediction,
    eval: F,
}

impl<F: Fn(&Tensor, &[f64]) -> Result<Tensor>> FieldFn<F> {
    /// The field that predicts `prediction` by `eval`.
    pub fn new(prediction: Prediction, eval: F) -> Self {
        Self { prediction, eval }
    }
}

impl<F: Fn(&Tensor, &[f64]) -> Result<Tensor>> Field for FieldFn<F> {
    fn prediction(&self) -> Prediction {
        self.prediction
    }
    fn eval(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        (self.eval)(x, t)
    }
}

/// A model as a field: the one place that casts between the state's type and the network's.
///
/// Build the model from frozen weights (plain tensors): whatever is computed from a `Var` is taped.
pub struct ModelField<M> {
    model: M,
    dtype: DType,
    device: Device,
    labels: Option<Tensor>,
}

impl<M: Model> ModelField<M> {
    /// The field of a network whose parameters have type `dtype` and live on `device`.
    pub fn new(model: M, dtype: DType, device: &Device) -> Self {
        Self { model, dtype, device: device.clone(), labels: None }
    }

    /// The class-conditional field; `labels` is `[B]` u32, one for each sample of the states it will be given.
    pub fn with_labels(self, labels: Tensor) -> Self {
        Self { labels: Some(labels), ..self }
    }
}

impl<M: Model> Field for ModelField<M> {
    fn prediction(&self) -> Prediction {
        self.model.prediction()
    }

    fn eval(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        let batch = x.dim(0)?;
        let times = host_tensor(per_sample(t, batch)?, &[batch], self.dtype, &self.device)?;
        let input = x.to_device(&self.device)?.to_dtype(self.dtype)?;
        let pass = Pass { labels: self.labels.as_ref(), ..Pass::EVAL };
        let output = self.model.forward(&input, &times, pass)?;
        Ok(output.to_device(x.device())?.to_dtype(x.dtype())?)
    }

    fn restrict<'a>(&'a self, samples: &[usize]) -> Result<Option<Box<dyn Field + 'a>>> {
        let Some(labels) = &self.labels else { return Ok(None) };
        let labels = rows_of(labels, samples)?;
        let model: &dyn Model = &self.model;
        Ok(Some(Box::new(ModelField::new(model, self.dtype, &self.device).with_labels(labels))))
    }
}

/// The rows `samples` of a tensor with one row a sample.
///
/// # Errors
/// When there is no such row.
pub fn rows_of(tensor: &Tensor, samples: &[usize]) -> Result<Tensor> {
    let index: Vec<u32> = samples.iter().map(|&i| i as u32).collect();
    Ok(tensor.index_select(&Tensor::new(index, tensor.device())?, 0)?)
}

/// One time a sample from one time a sample, or one for all.
pub fn per_sample(t: &[f64], batch: usize) -> Result<Vec<f64>> {
    match t.len() {
        1 => Ok(vec![t[0]; batch]),
        n if n == batch => Ok(t.to_vec()),
        n => Err(Error::Mismatch {
            what: "times of a batch",
            expected: format!("1 or {batch}"),
            found: n.to_string(),
        }),
    }
}
