//! A rotation P at given values of its parameters, applied to batches: coordinates `Pᵀx` and entries `P y`.
//!
//! Rows of a batch are vectors, so coordinates are `X P` and entries `Y Pᵀ`. A product of factors is applied one axis at
//! a time; reflections one at a time, each two products with a vector.
//!
//! Reference: Golub, Van Loan 2013, section 5.1, for reflections.

use candle_core::{DType, Device, Tensor};

use crate::Result;
use crate::ops::linear;

/// P, ready to be applied.
#[derive(Debug, Clone)]
pub struct Frame(Form);

#[derive(Debug, Clone)]
enum Form {
    /// One factor for each axis of the sample; none stands for the identity.
    Factors(Vec<usize>, Vec<Option<Factor>>),
    /// `[n, k, k]`: blocks of k neighbouring entries.
    Blocks(Tensor),
    /// `[k, D]`: unit vectors, P = H₁ H₂ … H_k.
    Reflections(Tensor),
}

/// A square factor, both ways round, and the bias that a linear map wants.
#[derive(Debug, Clone)]
struct Factor {
    p: Tensor,
    transposed: Tensor,
    nothing: Tensor,
}

impl Factor {
    fn new(p: Tensor) -> Result<Self> {
        let nothing = Tensor::zeros(p.dim(0)?, p.dtype(), p.device())?;
        Ok(Self { transposed: p.t()?.contiguous()?, p, nothing })
    }
}

/// The direction of an application.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    /// `Pᵀ x`.
    Coordinates,
    /// `P y`.
    Entries,
}

impl Frame {
    /// P as one matrix `[D, D]`.
    pub(super) fn dense(p: Tensor) -> Result<Self> {
        let dim = p.dim(0)?;
        Self::kronecker(&[dim], vec![Some(p)])
    }

    pub(super) fn kronecker(shape: &[usize], factors: Vec<Option<Tensor>>) -> Result<Self> {
        let factors = factors.into_iter().map(|p| p.map(Factor::new).transpose());
        Ok(Self(Form::Factors(shape.to_vec(), factors.collect::<Result<_>>()?)))
    }

    pub(super) fn blocks(p: Tensor) -> Self {
        Self(Form::Blocks(p))
    }

    pub(super) fn reflections(vectors: Tensor) -> Self {
        Self(Form::Reflections(vectors))
    }

    /// `Pᵀ x` of each row.
    ///
    /// # Shapes
    /// `[B, D]` to `[B, D]`.
    pub fn coordinates(&self, x: &Tensor) -> Result<Tensor> {
        self.apply(x, Way::Coordinates)
    }

    /// `P y` of each row.
    ///
    /// # Shapes
    /// `[B, D]` to `[B, D]`.
    pub fn entries(&self, y: &Tensor) -> Result<Tensor> {
        self.apply(y, Way::Entries)
    }

    /// The same without a tape.
    pub fn detach(&self) -> Self {
        let plain = |factor: &Factor| Factor {
            p: factor.p.detach(),
            transposed: factor.transposed.detach(),
            nothing: factor.nothing.clone(),
        };
        Self(match &self.0 {
            Form::Factors(shape, factors) => {
                Form::Factors(shape.clone(), factors.iter().map(|f| f.as_ref().map(plain)).collect())
            }
            Form::Blocks(p) => Form::Blocks(p.detach()),
            Form::Reflections(v) => Form::Reflections(v.detach()),
        })
    }

    fn apply(&self, x: &Tensor, way: Way) -> Result<Tensor> {
        match &self.0 {
            Form::Factors(shape, factors) => {
                let mut x = x.clone();
                for (axis, factor) in factors.iter().enumerate() {
                    if let Some(factor) = factor {
                        x = along(&x, shape, axis, factor, way)?;
                    }
                }
                Ok(x)
            }
            Form::Blocks(p) => {
                let (n, k, _) = p.dims3()?;
                let rows = x.reshape(((), n, k))?.transpose(0, 1)?.contiguous()?;
                let p = if way == Way::Coordinates { p.clone() } else { p.transpose(1, 2)?.contiguous()? };
                Ok(rows.matmul(&p)?.transpose(0, 1)?.contiguous()?.reshape(x.dims())?)
            }
            Form::Reflections(v) => {
                let k = v.dim(0)?;
                let mut x = x.clone();
                for step in 0..k {
                    // P y applies the last reflection first.
                    let v = v.narrow(0, if way == Way::Entries { k - 1 - step } else { step }, 1)?;
                    let along = (x.broadcast_mul(&v)?.sum_keepdim(1)? * -2.0)?;
                    x = (x + along.broadcast_mul(&v)?)?;
                }
                Ok(x)
            }
        }
    }

    /// P as matrices on the host, by rows, whose Kronecker product it is: each with its number of rows.
    pub fn factors(&self) -> Result<Vec<(usize, Vec<f64>)>> {
        let host = |p: &Tensor| -> Result<Vec<f64>> {
            Ok(p.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
        };
        let identity = |n: usize| (0..n * n).map(|at| f64::from(u8::from(at / n == at % n))).collect();
        match &self.0 {
            Form::Factors(shape, factors) => {
                let factor = |(&n, factor): (&usize, &Option<Factor>)| match factor {
                    Some(factor) => Ok((n, host(&factor.p)?)),
                    None => Ok((n, identity(n))),
                };
                shape.iter().zip(factors).map(factor).collect()
            }
            Form::Blocks(v) | Form::Reflections(v) => {
                let dim = match &self.0 {
                    Form::Blocks(p) => p.dim(0)? * p.dim(1)?,
                    _ => v.dim(1)?,
                };
                // Row i of the identity becomes P e_i, which is column i.
                let columns = self.entries(&Tensor::eye(dim, v.dtype(), v.device())?)?;
                Ok(vec![(dim, host(&columns.t()?.contiguous()?)?)])
            }
        }
    }
}

/// One factor along one axis.
fn along(x: &Tensor, shape: &[usize], axis: usize, factor: &Factor, way: Way) -> Result<Tensor> {
    let (n, inner) = (shape[axis], shape[axis + 1..].iter().product::<usize>());
    // `linear` has the weight transposed: x Wᵀ.
    let weight = if way == Way::Coordinates { &factor.transposed } else { &factor.p };
    if inner == 1 {
        let rows = linear(&x.reshape(((), n))?, weight, &factor.nothing)?;
        return Ok(rows.reshape(x.dims())?);
    }
    let rows = x.reshape(((), n, inner))?.transpose(1, 2)?.contiguous()?.reshape(((), n))?;
    let rows = linear(&rows, weight, &factor.nothing)?;
    Ok(rows.reshape(((), inner, n))?.transpose(1, 2)?.contiguous()?.reshape(x.dims())?)
}
