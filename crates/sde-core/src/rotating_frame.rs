//! A field of VP as one of FP-Drift: `y = e^{ωb} x` turns `dx = ḃ(−½ − ω) x dt + √ḃ dw` into VP, so a network trained on VP knows every FP-Drift.
//!
//! `q^FP_t(x) = q^VP_t(e^{ωb} x)`, hence `s^FP(x, t) = e^{−ωb} s^VP(e^{ωb} x, t)`; ε and x₀ are those of VP at the turned state, because the factors are `R = e^{−ωb} σ` and
//! `S = e^{−ωb} α`. Density, likelihood and every gap of exact scores are VP's: ω can help through what a network learns easily, not otherwise.
//!
//! Reference: Du, Zhang, Yang, Du 2023, arXiv 2206.10365, Theorem 3.5 with Q = I (FP-Drift). The frame is ours.

use candle_core::Tensor;

use crate::model::{Cotangents, Field, per_sample};
use crate::process::{Clocked, Commuting, Homogeneous};
use crate::{Error, Op, Prediction, Result, apply_each};

/// A field of an FP-Drift process, made of one of the VP process with its clock.
pub struct RotatingFrame<F> {
    field: F,
    process: Clocked<Commuting>,
}

impl<F: Field> RotatingFrame<F> {
    /// `field`, which predicts noise, data or score of `process.vp()`, in the frame of `process`.
    ///
    /// # Errors
    /// [`Error::Mismatch`] unless the process has Q = I and m = 1, and for other predictions.
    pub fn new(field: F, process: Clocked<Commuting>) -> Result<Self> {
        let law = process.law();
        if law.diffusion() != Op::IDENTITY || law.precision() != 1.0 {
            return Err(Error::Mismatch {
                what: "process of a rotating frame",
                expected: "FP-Drift: Q = I, m = 1".into(),
                found: format!(
                    "m = {} and the rates {:?}",
                    law.precision(),
                    &law.eigenvalues()[..law.eigenvalues().len().min(4)]
                ),
            });
        }
        if !matches!(field.prediction(), Prediction::Noise | Prediction::Data | Prediction::Score) {
            return Err(Error::Mismatch {
                what: "field in a rotating frame",
                expected: "a prediction of noise, data or score (convert it: `Converted::new(field, process.vp(), Prediction::Noise)`)".into(),
                found: format!("{:?}", field.prediction()),
            });
        }
        Ok(Self { field, process })
    }

    /// `e^{ωb}` of each time.
    fn turns(&self, x: &Tensor, t: &[f64]) -> Result<Vec<Op>> {
        let times = if t.len() == 1 { t.to_vec() } else { per_sample(t, x.dim(0)?)? };
        let (law, vp) = (self.process.law(), self.process.vp());
        Ok(times.iter().map(|&t| law.rotation(vp.integral(t)).transpose()).collect())
    }

    fn is_turned(&self) -> bool {
        self.field.prediction() == Prediction::Score
    }
}

fn transposed(ops: &[Op]) -> Vec<Op> {
    ops.iter().map(Op::transpose).collect()
}

impl<F: Field> Field for RotatingFrame<F> {
    fn prediction(&self) -> Prediction {
        self.field.prediction()
    }

    fn eval(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        let turns = self.turns(x, t)?;
        let value = self.field.eval(&apply_each(&turns, x)?, t)?;
        if self.is_turned() { apply_each(&transposed(&turns), &value) } else { Ok(value) }
    }

    fn pull_back(&self, x: &Tensor, t: &[f64], cotangents: &Cotangents<'_>) -> Result<(Tensor, Vec<Tensor>)> {
        let turns = self.turns(x, t)?;
        let back = transposed(&turns);
        let through = |value: &Tensor| {
            if !self.is_turned() {
                return cotangents(value);
            }
            cotangents(&apply_each(&back, value)?)?.iter().map(|v| apply_each(&turns, v)).collect()
        };
        let (value, products) = self.field.pull_back(&apply_each(&turns, x)?, t, &through)?;
        let value = if self.is_turned() { apply_each(&back, &value)? } else { value };
        Ok((value, products.iter().map(|p| apply_each(&back, p)).collect::<Result<_>>()?))
    }

    fn restrict<'b>(&'b self, samples: &[usize]) -> Result<Option<Box<dyn Field + 'b>>> {
        let inner = self.field.restrict(samples)?;
        let process = &self.process;
        Ok(inner.map(|field| Box::new(RotatingFrame { field, process: process.clone() }) as Box<dyn Field>))
    }
}
