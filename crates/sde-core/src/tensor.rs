//! Operators applied to tensors, and fields converted from one prediction to another: where host mathematics meets Candle.
//!
//! A state of k groups is `[B, k·C, …]`: the groups divide the second dimension evenly.

use std::cell::RefCell;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use crate::combine::combine;
use crate::model::{Cotangents, per_sample};
use crate::noise::host_tensor;
use crate::op::{Representation, partner};
use crate::{Basis, Conversion, Error, Field, LinearSde, Op, Prediction, Result};

impl Op {
    /// The operator applied to a batch.
    ///
    /// # Shapes
    /// `u` `[B, k·C, …]`; the result has its shape.
    ///
    /// # Errors
    /// When the operator does not act on states of this shape.
    pub fn apply(&self, u: &Tensor) -> Result<Tensor> {
        match self {
            Self::Scalar(c) => Ok(u.affine(*c, 0.0)?),
            _ => apply_each(std::slice::from_ref(self), u),
        }
    }
}

/// One operator a sample (or one for all), applied to a batch.
///
/// # Shapes
/// `u` `[B, k·C, …]`; the result has its shape.
///
/// # Errors
/// When the number of operators is another, or they do not act on states of this shape.
pub fn apply_each(ops: &[Op], u: &Tensor) -> Result<Tensor> {
    let batch = u.dim(0)?;
    if ops.len() != 1 && ops.len() != batch {
        return Err(Error::Mismatch {
            what: "operators of a batch",
            expected: format!("1 or {batch}"),
            found: ops.len().to_string(),
        });
    }
    match Representation::of(ops)? {
        Representation::Scalar => {
            let factors = ops.iter().map(|op| op.as_scalar().unwrap_or(f64::NAN)).collect();
            let mut dims = vec![1; u.rank()];
            dims[0] = ops.len();
            Ok(u.broadcast_mul(&host_tensor(factors, &dims, u.dtype(), u.device())?)?)
        }
        Representation::Basis(basis) => {
            let y = coordinates(&basis, u)?;
            from_coordinates(&basis, &in_coordinates(&basis, ops, &y)?, u)
        }
        Representation::Groups(n) => by_matrices(ops, n, (n, u.elem_count() / (batch * n).max(1)), u),
        Representation::Dense(n) => by_matrices(ops, n, (n, 1), u),
    }
}

/// The operators of a network's times: one a sample, or one for all where they are the same, as in sampling.
///
/// # Shapes
/// `t` `[B]`.
///
/// # Errors
/// Whatever `of` returns.
pub fn operators_at(t: &Tensor, of: impl Fn(f64) -> Result<Op>) -> Result<Vec<Op>> {
    let times = t.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
    match times.as_slice() {
        [first, rest @ ..] if rest.iter().all(|t| t == first) => Ok(vec![of(*first)?]),
        times => times.iter().map(|&t| of(t)).collect(),
    }
}

/// Matrices n×n on the states as `[B, rows, columns]`.
fn by_matrices(ops: &[Op], n: usize, (rows, columns): (usize, usize), u: &Tensor) -> Result<Tensor> {
    let batch = u.dim(0)?;
    let grouped = columns == 1 || (u.rank() > 1 && u.dim(1)?.is_multiple_of(n));
    if u.elem_count() != batch * rows * columns || !grouped {
        return Err(Error::Mismatch {
            what: "state that an operator is applied to",
            expected: format!("{n} entries, or a second dimension divisible by {n}"),
            found: format!("{:?}", u.dims()),
        });
    }
    // Row-major, as the tensor wants it; nalgebra stores columns. A transposed factor on the right serves all samples in one product.
    let shared = ops.len() == 1 && columns == 1;
    let mut entries = Vec::with_capacity(ops.len() * n * n);
    for op in ops {
        let matrix = op.matrix(n)?;
        let stored = if shared { matrix } else { matrix.transpose() };
        entries.extend(stored.iter());
    }
    let matrices = host_tensor(entries, &[ops.len(), n, n], u.dtype(), u.device())?;
    if shared {
        let flat = u.contiguous()?.reshape((batch, n))?;
        return Ok(flat.matmul(&matrices.squeeze(0)?)?.reshape(u.dims())?);
    }
    let states = u.contiguous()?.reshape((batch, rows, columns))?;
    let matrices = matrices.broadcast_as((batch, n, n))?.contiguous()?;
    Ok(matrices.matmul(&states)?.reshape(u.dims())?)
}

/// The coordinates of a batch in a basis of n: `[B, m, n]` for states of m·n entries.
pub(crate) fn coordinates(basis: &Basis, u: &Tensor) -> Result<Tensor> {
    let (n, batch) = (basis.dim(), u.dim(0)?);
    let entries = u.elem_count() / batch.max(1);
    if !entries.is_multiple_of(n.max(1)) {
        return Err(Error::Mismatch {
            what: "state that an operator in a basis is applied to",
            expected: format!("parts of {n} entries"),
            found: format!("{:?}", u.dims()),
        });
    }
    through(basis, &u.contiguous()?.reshape((batch, entries / n.max(1), n))?, Side::Analysis)
}

/// The states of the shape of `like` that have these coordinates.
pub(crate) fn from_coordinates(basis: &Basis, y: &Tensor, like: &Tensor) -> Result<Tensor> {
    Ok(through(basis, y, Side::Synthesis)?.reshape(like.dims())?)
}

/// Operators of one basis on coordinates `[B, m, n]`.
pub(crate) fn in_coordinates(basis: &Arc<Basis>, ops: &[Op], y: &Tensor) -> Result<Tensor> {
    let representation = Representation::Basis(basis.clone());
    let (mut own, mut cross, mut crossed) = (Vec::new(), Vec::new(), false);
    for op in ops {
        if let Op::Spectral(op) = op.represented(&representation)?.as_ref() {
            let (mine, partners) = op.coefficients();
            crossed |= partners.is_some();
            cross.extend(partners.unwrap_or_else(|| vec![0.0; mine.len()]));
            own.extend(mine);
        }
    }
    let n = basis.dim();
    let dims = [ops.len(), 1, n];
    let own = y.broadcast_mul(&host_tensor(own, &dims, y.dtype(), y.device())?)?;
    if !crossed {
        return Ok(own);
    }
    let swap: Vec<u32> = (0..n).map(|i| partner(i, n) as u32).collect();
    let partners = y.index_select(&Tensor::new(swap, y.device())?, 2)?;
    Ok((own + partners.broadcast_mul(&host_tensor(cross, &dims, y.dtype(), y.device())?)?)?)
}

/// Which way a basis is applied.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    /// `Vᵀ x`.
    Analysis,
    /// `V y`.
    Synthesis,
}

/// `Vᵀ` or `V` on the last dimension of `[B, m, n]`: a product of matrices for each factor, each of which turns its dimension to the front.
fn through(basis: &Basis, x: &Tensor, side: Side) -> Result<Tensor> {
    let (batch, parts, n) = x.dims3()?;
    let mut y = x.clone();
    for v in basis.factors().iter().rev() {
        let size = v.ncols();
        // As the right factor, row-major: V for the coordinates x V of a row, Vᵀ for the way back.
        let stored = if side == Side::Analysis { v.transpose() } else { v.clone() };
        let matrix = host_tensor(stored.as_slice().to_vec(), &[size, size], x.dtype(), x.device())?;
        let rows = y.reshape((batch * parts * n / size, size))?.matmul(&matrix)?;
        y = match basis.factors().len() {
            1 => rows,
            _ => rows.reshape((batch * parts, n / size, size))?.transpose(1, 2)?.contiguous()?,
        };
    }
    Ok(y.reshape((batch, parts, n))?)
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

    /// Two samples of two groups of six entries, and operators of every form on them.
    fn cases() -> Result<(Vec<f64>, Vec<[Op; 2]>)> {
        let values: Vec<f64> = (0..24).map(|i| (0.7 * f64::from(i)).sin()).collect();
        let (image, odd) = (Arc::new(Basis::dct(2, 3)), Arc::new(Basis::dct(1, 3)));
        let diagonal = |c: f64| Op::diagonal(&image, (0..6).map(|i| c + f64::from(i)).collect());
        let odd = |c: f64| Op::pairs(&odd, vec![[[c, 0.3], [-0.6, 1.0]]], Some(2.0));
        let dense = |c: f64| Op::Dense(nalgebra::DMatrix::from_fn(12, 12, |i, j| c + (i * j) as f64 * 0.1));
        Ok((
            values,
            vec![
                [Op::block([[1.0, 2.0], [-0.5, 0.25]]), Op::Scalar(3.0)],
                [diagonal(0.3)?, diagonal(-2.0)?],
                [Op::pairs(&image, vec![[[1.0, 2.0], [-0.5, 0.25]]; 3], None)?, diagonal(1.0)?],
                [odd(0.5)?, Op::Scalar(0.1)],
                [dense(0.5), dense(-1.0)],
            ],
        ))
    }

    #[test]
    fn tensors_and_host_states_agree() -> Result<()> {
        let (values, cases) = cases()?;
        let u = Tensor::from_vec(values.clone(), (2, 2, 2, 3), &Device::Cpu)?;
        for ops in cases {
            let found = apply_each(&ops, &u)?.flatten_from(1)?.to_vec2::<f64>()?;
            for (row, op) in ops.iter().enumerate() {
                let expected = op.apply_host(&values[12 * row..12 * row + 12])?;
                let alone = op.apply(&u)?.flatten_from(1)?.to_vec2::<f64>()?;
                for (found, expected) in found[row].iter().chain(&alone[row]).zip(expected.iter().cycle()) {
                    assert!((found - expected).abs() < 1e-13, "{op:?}");
                }
            }
            // The sum in one pass is the sum of the two.
            let terms = [(&ops[0], &u), (&Op::Scalar(0.5), &u), (&ops[1], &u)];
            let sum = (ops[0].apply(&u)? + (&u * 0.5)? + ops[1].apply(&u)?)?;
            let gap = (combine(&terms)?.sum - sum)?.abs()?.max_all()?.to_scalar::<f64>()?;
            assert!(gap < 1e-13, "{gap:e}");
        }
        let block = Op::block([[1.0, 2.0], [-0.5, 0.25]]);
        assert!(apply_each(&[block], &u.narrow(1, 0, 1)?).is_err());
        assert!(apply_each(&[Op::IDENTITY, Op::IDENTITY, Op::IDENTITY], &u).is_err());
        let five = Op::diagonal(&Arc::new(Basis::dct(1, 5)), vec![1.0; 5])?;
        assert!(five.apply(&u).is_err());
        Ok(())
    }
}
