//! Preconditioning: `D(x; σ) = c_skip x + c_out F(c_in x; c_noise)`, the data that is expected behind x = x₀ + σ ε, from
//! a network F whose inputs and targets have unit variance.
//!
//! ```text
//!        c_skip            c_out              c_in            c_noise
//! EDM    σ_d²/(σ² + σ_d²)  σ σ_d/√(σ² + σ_d²) 1/√(σ² + σ_d²)  ¼ ln σ
//! VP     1                 −σ                 1/√(σ² + 1)     (N − 1) t(σ), σ(t)² = e^(β_0 t + ½ (β_1 − β_0) t²) − 1
//! VE     1                 σ                  1               ln(σ/2)
//! ```
//!
//! The time of a preconditioned network is σ: that of the process `edm`.
//!
//! Reference: Karras, Aittala, Aila, Laine 2022, arXiv 2206.00364, Eq. (7) and Table 1.

use candle_core::{DType, Tensor};
use sde_core::{Model, Pass, Prediction};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A form of preconditioning.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Precondition {
    /// Unit variance of input and target at every σ.
    Edm {
        /// The standard deviation of the data; 0.5 as published.
        sigma_data: f64,
    },
    /// That of a variance-preserving network for the noise.
    Vp {
        /// β at t = 0; 0.1 as published.
        beta_0: f64,
        /// β at t = 1; 20 as published.
        beta_1: f64,
        /// The number N of steps that the network counts times in; 1000 as published.
        steps: f64,
    },
    /// That of a variance-exploding network for the negative noise.
    Ve {},
}

/// The coefficients at each sample's σ.
struct Coefficients {
    skip: Tensor,
    out: Tensor,
    input: Tensor,
    noise: Tensor,
}

impl Precondition {
    /// Refuses constants without a meaning.
    ///
    /// # Errors
    /// [`Error::Config`] with the key.
    pub fn check(&self) -> Result<()> {
        let constants = match *self {
            Self::Edm { sigma_data } => vec![("precondition.sigma_data", sigma_data)],
            Self::Vp { beta_0, beta_1, steps } => vec![
                ("precondition.beta_0", beta_0),
                ("precondition.beta_1", beta_1 - beta_0),
                ("precondition.steps", steps - 1.0),
            ],
            Self::Ve {} => vec![],
        };
        for (field, value) in constants {
            if !(value.is_finite() && value > 0.0) {
                let expected = "positive (beta_1 above beta_0, steps above 1)";
                return Err(Error::config(field, expected, format!("{self:?}")));
            }
        }
        Ok(())
    }

    /// D at `x` and σ = `t`, from F.
    ///
    /// # Shapes
    /// `x` `[B, …]`, `t` `[B]`; F is called with the same two shapes.
    ///
    /// # Errors
    /// Those of `network`.
    pub fn apply(
        &self,
        x: &Tensor,
        t: &Tensor,
        network: impl FnOnce(&Tensor, &Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        // σ² spans ten decades, and 1 − c_skip is small where the noise is: f64 where the device has it.
        let wide = if t.device().is_metal() { t.dtype() } else { DType::F64 };
        let c = self.coefficients(&t.to_dtype(wide)?)?;
        let mut column = vec![1; x.rank()];
        column[0] = t.dim(0)?;
        let column = |c: &Tensor| c.to_dtype(x.dtype())?.reshape(column.as_slice());
        let output = network(&x.broadcast_mul(&column(&c.input)?)?, &c.noise.to_dtype(t.dtype())?)?;
        Ok((x.broadcast_mul(&column(&c.skip)?)? + output.broadcast_mul(&column(&c.out)?)?)?)
    }

    fn coefficients(&self, sigma: &Tensor) -> Result<Coefficients> {
        let one = sigma.ones_like()?;
        Ok(match *self {
            Self::Edm { sigma_data } => {
                let variance = (sigma.sqr()? + sigma_data.powi(2))?;
                let input = variance.sqrt()?.recip()?;
                Coefficients {
                    skip: (variance.recip()? * sigma_data.powi(2))?,
                    out: ((sigma * &input)? * sigma_data)?,
                    input,
                    noise: (sigma.log()? * 0.25)?,
                }
            }
            Self::Vp { beta_0, beta_1, steps } => {
                let (slope, variance) = (beta_1 - beta_0, (sigma.sqr()? + 1.0)?);
                // The positive root of ½ slope t² + β_0 t = ln(1 + σ²).
                let root = ((variance.log()? * (2.0 * slope))? + beta_0.powi(2))?.sqrt()?;
                let time = ((root - beta_0)? / slope)?;
                Coefficients {
                    skip: one,
                    out: sigma.neg()?,
                    input: variance.sqrt()?.recip()?,
                    noise: (time * (steps - 1.0))?,
                }
            }
            Self::Ve {} => Coefficients {
                skip: one.clone(),
                out: sigma.clone(),
                input: one,
                noise: (sigma * 0.5)?.log()?,
            },
        })
    }
}

/// A network behind its preconditioning: it predicts the data, and its time is σ.
#[derive(Debug, Clone)]
pub struct Preconditioned<M> {
    form: Precondition,
    network: M,
}

impl<M: Model> Preconditioned<M> {
    /// D of the network F; what `network` says that it predicts is not asked.
    ///
    /// # Errors
    /// Those of [`Precondition::check`].
    pub fn new(form: Precondition, network: M) -> Result<Self> {
        form.check()?;
        Ok(Self { form, network })
    }
}

impl<M: Model> Model for Preconditioned<M> {
    fn prediction(&self) -> Prediction {
        Prediction::Data
    }

    fn forward(&self, x: &Tensor, t: &Tensor, pass: Pass<'_>) -> sde_core::Result<Tensor> {
        Ok(self.form.apply(x, t, |x, t| Ok(self.network.forward(x, t, pass)?))?)
    }
}
