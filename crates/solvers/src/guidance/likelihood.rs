//! What guides: a log-likelihood `log p(y | x)` of a state, differentiable in the state, up to a constant.

use candle_core::Tensor;
use sde_core::{Error, Field, Result, reverse_mode};

/// A log-likelihood log p(y | x) of states, y being what is wanted. Of noised states it depends on the time.
pub trait LogLikelihood {
    /// The value for each sample, up to a constant.
    ///
    /// # Shapes
    /// `x` `[B, …]`; `t` holds one time a sample, or one for all; the result is `[B]`.
    ///
    /// # Errors
    /// Whatever the classifier returns.
    fn log_likelihood(&self, x: &Tensor, t: &[f64]) -> Result<Tensor>;

    /// Its gradient in x. The default takes it from Candle's tape.
    ///
    /// # Shapes
    /// `x` `[B, …]`, and so the result.
    ///
    /// # Errors
    /// [`Error::NoGradient`] when the value does not depend on `x` through the tape.
    fn gradient(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        let batch = x.dim(0)?;
        let ones = |value: &Tensor| {
            if value.dims() == [batch] {
                return Ok(vec![value.ones_like()?]);
            }
            Err(Error::Mismatch {
                what: "value of a log-likelihood",
                expected: format!("[{batch}], one number a sample"),
                found: format!("{:?}", value.dims()),
            })
        };
        let (_, gradients) = reverse_mode(|x| self.log_likelihood(x, t), x, &ones)?;
        gradients.into_iter().next().ok_or(Error::NoGradient { hint: "one cotangent makes one gradient" })
    }

    /// The Hessian in x, times `v`: what the gradient of a guided field needs. There is no default, because Candle's tape
    /// does not hold gradients of gradients unless asked to.
    ///
    /// # Shapes
    /// `x` and `v` `[B, …]`, and so the result.
    ///
    /// # Errors
    /// [`Error::NoGradient`] where it was not implemented.
    fn hessian_product(&self, x: &Tensor, t: &[f64], v: &Tensor) -> Result<Tensor> {
        let _ = (x, t, v);
        Err(Error::NoGradient {
            hint: "the gradient of a guided field is a second derivative: implement `LogLikelihood::hessian_product`",
        })
    }

    /// The log-likelihood of some samples of its batch, as [`Field::restrict`](sde_core::Field::restrict).
    ///
    /// # Errors
    /// When it holds nothing for one of `samples`.
    fn restrict<'a>(&'a self, samples: &[usize]) -> Result<Option<Box<dyn LogLikelihood + 'a>>> {
        let _ = samples;
        Ok(None)
    }
}

macro_rules! forward {
    ($($pointer:ty),*) => {$(
        impl<L: LogLikelihood + ?Sized> LogLikelihood for $pointer {
            fn log_likelihood(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
                (**self).log_likelihood(x, t)
            }
            fn gradient(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
                (**self).gradient(x, t)
            }
            fn hessian_product(&self, x: &Tensor, t: &[f64], v: &Tensor) -> Result<Tensor> {
                (**self).hessian_product(x, t, v)
            }
            fn restrict<'a>(&'a self, samples: &[usize]) -> Result<Option<Box<dyn LogLikelihood + 'a>>> {
                (**self).restrict(samples)
            }
        }
    )*};
}
forward!(&L, Box<L>);

/// A closure as a log-likelihood that treats all samples alike.
pub struct LogLikelihoodFn<F>(pub F);

impl<F: Fn(&Tensor, &[f64]) -> Result<Tensor>> LogLikelihood for LogLikelihoodFn<F> {
    fn log_likelihood(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        (self.0)(x, t)
    }
}

/// A field and the likelihood that guides it.
type Parts<'a> = (Box<dyn Field + 'a>, Box<dyn LogLikelihood + 'a>);

/// Both for some samples of the batch; none where neither holds anything of a sample.
pub(super) fn restricted<'a>(
    field: &'a dyn Field,
    likelihood: &'a dyn LogLikelihood,
    samples: &[usize],
) -> Result<Option<Parts<'a>>> {
    Ok(match (field.restrict(samples)?, likelihood.restrict(samples)?) {
        (None, None) => None,
        (own, known) => {
            Some((own.unwrap_or_else(|| Box::new(field)), known.unwrap_or_else(|| Box::new(likelihood))))
        }
    })
}
