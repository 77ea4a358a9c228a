//! Operators applied to tensors, and fields converted from one prediction to another: where host mathematics meets Candle.
//!
//! A state of k groups is `[B, k·C, …]`: the groups divide the second dimension evenly.

use std::cell::RefCell;

use candle_core::Tensor;

use crate::combine::combine;
use crate::model::{Cotangents, per_sample};
use crate::noise::host_tensor;
use crate::{Conversion, Error, Field, LinearSde, Op, Prediction, Result};

impl Op {
    /// The operator applied to a batch.
    ///
    /// # Shapes
    /// `u` `[B, k·C, …]`; the result has its shape.
    ///
    /// # Errors
    /// When the groups do not divide the second dimension.
    pub fn apply(&self, u: &Tensor) -> Result<Tensor> {
        match self {
            Self::Scalar(c) => Ok(u.affine(*c, 0.0)?),
            Self::Block(_) => apply_each(std::slice::from_ref(self), u),
        }
    }
}

/// One operator a sample (or one for all), applied to a batch.
///
/// # Shapes
/// `u` `[B, k·C, …]`; the result has its shape.
pub fn apply_each(ops: &[Op], u: &Tensor) -> Result<Tensor> {
    let batch = u.dim(0)?;
    if ops.len() != 1 && ops.len() != batch {
        return Err(Error::Mismatch {
            what: "operators of a batch",
            expected: format!("1 or {batch}"),
            found: ops.len().to_string(),
        });
    }
    let groups = ops.iter().map(Op::groups).max().unwrap_or(1);
    let mut entries = Vec::with_capacity(ops.len() * groups * groups);
    for op in ops {
        // Row-major, as the tensor wants it; nalgebra stores columns.
        entries.extend(op.matrix(groups)?.transpose().iter());
    }
    let coefficients = |dims: &[usize]| host_tensor(entries.clone(), dims, u.dtype(), u.device());
    if groups == 1 {
        let mut dims = vec![1; u.rank()];
        dims[0] = ops.len();
        return Ok(u.broadcast_mul(&coefficients(&dims)?)?);
    }
    if u.rank() < 2 || u.dim(1)? % groups != 0 {
        return Err(Error::Mismatch {
            what: "state of a process with groups",
            expected: format!("a second dimension divisible by {groups}"),
            found: format!("{:?}", u.dims()),
        });
    }
    let rows = u.contiguous()?.reshape((batch, groups, u.elem_count() / (batch * groups).max(1)))?;
    let blocks = coefficients(&[ops.len(), groups, groups])?.broadcast_as((batch, groups, groups))?;
    Ok(blocks.contiguous()?.matmul(&rows)?.reshape(u.dims())?)
}

/// A field seen as another prediction of the same process.
pub struct Converted<'a, F> {
    field: F,
    sde: &'a dyn LinearSde,
    to: Prediction,
}

/// The state's and the value's operators of a conversion, one a sample or one for all.
struct Maps {
    state: Vec<Op>,
    value: Vec<Op>,
}

impl Maps {
    fn new(
        sde: &dyn LinearSde,
        (from, to): (Prediction, Prediction),
        t: &[f64],
        batch: usize,
    ) -> Result<Self> {
        let times = if t.len() == 1 { t.to_vec() } else { per_sample(t, batch)? };
        let maps = times.iter().map(|&t| from.conversion(to, sde, t)).collect::<Result<Vec<Conversion>>>()?;
        let (state, value) = maps.into_iter().map(|m| (m.state, m.value)).unzip();
        Ok(Self { state, value })
    }

    fn apply(&self, x: &Tensor, value: &Tensor) -> Result<Tensor> {
        if let ([state], [factor]) = (self.state.as_slice(), self.value.as_slice()) {
            return Ok(combine(&[(state, x), (factor, value)])?.sum);
        }
        Ok((apply_each(&self.state, x)? + apply_each(&self.value, value)?)?)
    }

    fn transpose(&self) -> Self {
        let transposed = |ops: &[Op]| ops.iter().map(Op::transpose).collect();
        Self { state: transposed(&self.state), value: transposed(&self.value) }
    }
}

/// A value of one prediction at `x` as that of another: `(from, to)`.
///
/// # Shapes
/// `x` and `value` `[B, …]`; `t` one time a sample, or one for all.
///
/// # Errors
/// As [`Prediction::conversion`].
pub fn convert(
    sde: &dyn LinearSde,
    (from, to): (Prediction, Prediction),
    t: &[f64],
    x: &Tensor,
    value: &Tensor,
) -> Result<Tensor> {
    if from == to {
        return Ok(value.clone());
    }
    Maps::new(sde, (from, to), t, x.dim(0)?)?.apply(x, value)
}

impl<'a, F: Field> Converted<'a, F> {
    /// `field`, a field of `sde`, as a prediction of `to`.
    pub fn new(field: F, sde: &'a dyn LinearSde, to: Prediction) -> Self {
        Self { field, sde, to }
    }

    fn maps(&self, x: &Tensor, t: &[f64]) -> Result<Maps> {
        Maps::new(self.sde, (self.field.prediction(), self.to), t, x.dim(0)?)
    }
}

impl<F: Field> Field for Converted<'_, F> {
    fn prediction(&self) -> Prediction {
        self.to
    }

    fn eval(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        if self.field.prediction() == self.to {
            return self.field.eval(x, t);
        }
        self.maps(x, t)?.apply(x, &self.field.eval(x, t)?)
    }

    fn pull_back(&self, x: &Tensor, t: &[f64], cotangents: &Cotangents<'_>) -> Result<(Tensor, Vec<Tensor>)> {
        if self.field.prediction() == self.to {
            return self.field.pull_back(x, t, cotangents);
        }
        let maps = self.maps(x, t)?;
        let back = maps.transpose();
        // What the closure makes on its way through the inner field.
        let made = RefCell::new((None, Vec::new()));
        let through = |f: &Tensor| {
            let value = maps.apply(x, f)?;
            let vs = cotangents(&value)?;
            let pulled = vs.iter().map(|v| apply_each(&back.value, v)).collect();
            made.replace((Some(value), vs));
            pulled
        };
        let (f, products) = self.field.pull_back(x, t, &through)?;
        let (value, vs) = made.into_inner();
        let value = value.map_or_else(|| maps.apply(x, &f), Ok)?;
        let products =
            vs.iter().zip(products).map(|(v, product)| Ok((apply_each(&back.state, v)? + product)?));
        Ok((value, products.collect::<Result<_>>()?))
    }

    fn restrict<'b>(&'b self, samples: &[usize]) -> Result<Option<Box<dyn Field + 'b>>> {
        let inner = self.field.restrict(samples)?;
        Ok(inner
            .map(|field| Box::new(Converted { field, sde: self.sde, to: self.to }) as Box<dyn Field + 'b>))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn tensors_and_host_states_agree() -> Result<()> {
        let values: Vec<f64> = (0..12).map(f64::from).collect();
        let u = Tensor::from_vec(values.clone(), (2, 2, 3), &Device::Cpu)?;
        let ops = [Op::block([[1.0, 2.0], [-0.5, 0.25]]), Op::Scalar(3.0)];
        let found = apply_each(&ops, &u)?.to_vec3::<f64>()?;
        for (row, op) in ops.iter().enumerate() {
            let expected = op.apply_host(&values[6 * row..6 * row + 6])?;
            assert_eq!(found[row].concat(), expected);
        }
        assert!(apply_each(&ops, &u.narrow(1, 0, 1)?).is_err());
        assert!(apply_each(&[Op::IDENTITY, Op::IDENTITY, Op::IDENTITY], &u).is_err());
        Ok(())
    }
}
