//! Matrices that depend on the state: `Q = L Lᵀ` by a factor L, antisymmetric ω, and their divergences `Σ_j ∂_j Q_ij`.
//!
//! A divergence is given, or taken by central differences, `Σ_j [Q(x + h e_j) e_j − Q(x − h e_j) e_j] / 2h`: 2D products, at once, differentiable
//! in whatever Q is made of by one way back (a derivative on the tape would need a second one).

use candle_core::{D, Tensor};
use nalgebra::DMatrix;

use crate::op::largest;
use crate::{Error, Op, Result};

/// A symmetric positive semi-definite matrix of the state, by a factor.
pub trait DiffusionMatrix {
    /// L(x) z.
    ///
    /// # Shapes
    /// `x` `[B, …]`, `z` `[B, K…]`; the product has the shape of `x`.
    fn root(&self, x: &Tensor, z: &Tensor) -> Result<Tensor>;

    /// L(x)ᵀ u.
    ///
    /// # Shapes
    /// `x` and `u` `[B, …]`; the product is `[B, K…]`.
    fn root_transposed(&self, x: &Tensor, u: &Tensor) -> Result<Tensor>;

    /// The shape K… of the noise of one sample whose state has `shape`.
    fn noise_shape(&self, shape: &[usize]) -> Vec<usize> {
        shape.to_vec()
    }

    /// ∇·Q(x); none where it is 0.
    ///
    /// # Shapes
    /// That of `x`.
    fn divergence(&self, x: &Tensor) -> Result<Option<Tensor>>;
}

/// An antisymmetric matrix of the state.
pub trait Turning {
    /// ω(x) u.
    ///
    /// # Shapes
    /// `x` and `u` `[B, …]`; the product has their shape.
    fn apply(&self, x: &Tensor, u: &Tensor) -> Result<Tensor>;

    /// ∇·ω(x); none where it is 0.
    ///
    /// # Shapes
    /// That of `x`.
    fn divergence(&self, x: &Tensor) -> Result<Option<Tensor>>;
}

/// A function of the state.
type StateFn = Box<dyn Fn(&Tensor) -> Result<Tensor>>;

/// Where a divergence comes from.
pub enum Derivative {
    /// It is 0: no entry (i, j) depends on coordinate j.
    Zero,
    /// This function of the state.
    Given(StateFn),
    /// Central differences of this step. Their error is of order h²; in f32 rounding adds 1e-7/h.
    Differences(f64),
}

impl Derivative {
    /// The divergence of the matrix that `apply(x, u)` multiplies by.
    fn of(&self, apply: impl Fn(&Tensor, &Tensor) -> Result<Tensor>, x: &Tensor) -> Result<Option<Tensor>> {
        match self {
            Self::Zero => Ok(None),
            Self::Given(divergence) => Ok(Some(divergence(x)?)),
            Self::Differences(h) => Ok(Some(by_differences(apply, x, *h)?)),
        }
    }
}

/// `Σ_j [M(x + h e_j) e_j − M(x − h e_j) e_j] / 2h`, all j in one batch.
fn by_differences(apply: impl Fn(&Tensor, &Tensor) -> Result<Tensor>, x: &Tensor, h: f64) -> Result<Tensor> {
    crate::error::in_range("step of a difference", h, f64::MIN_POSITIVE, 1.0)?;
    let (batch, shape) = (x.dim(0)?, &x.dims()[1..]);
    let dim: usize = shape.iter().product();
    let flat = x.flatten_from(1)?;
    let units = Tensor::eye(dim, x.dtype(), x.device())?.unsqueeze(0)?;
    let all: Vec<usize> = [&[batch * dim][..], shape].concat();
    let units = units.broadcast_as((batch, dim, dim))?.contiguous()?;
    let centre = flat.unsqueeze(1)?;
    let columns = |h: f64| -> Result<Tensor> {
        let moved = centre.broadcast_add(&(&units * h)?)?.reshape(all.as_slice())?;
        Ok(apply(&moved, &units.reshape(all.as_slice())?)?.reshape((batch, dim, dim))?)
    };
    let sum = ((columns(h)? - columns(-h)?)?.sum(1)? * (0.5 / h))?;
    Ok(sum.reshape(x.dims())?)
}

/// `Q = diag(q(x))`, q positive.
pub struct Diagonal {
    entries: StateFn,
    divergence: Derivative,
}

impl Diagonal {
    /// The matrix with the entries `q(x)`, of the shape of x; its divergence is `∂_i q_i`, so zero where no q_i depends on x_i.
    pub fn new(entries: impl Fn(&Tensor) -> Result<Tensor> + 'static, divergence: Derivative) -> Self {
        Self { entries: Box::new(entries), divergence }
    }
}

impl DiffusionMatrix for Diagonal {
    fn root(&self, x: &Tensor, z: &Tensor) -> Result<Tensor> {
        Ok(((self.entries)(x)?.sqrt()? * z)?)
    }
    fn root_transposed(&self, x: &Tensor, u: &Tensor) -> Result<Tensor> {
        self.root(x, u)
    }
    fn divergence(&self, x: &Tensor) -> Result<Option<Tensor>> {
        self.divergence.of(|x, u| Ok(((self.entries)(x)? * u)?), x)
    }
}

/// `Q = diag(q(x)) + U(x) U(x)ᵀ`, U of a few columns; `L = [diag(√q), U]`, so noise has D + r entries.
pub struct LowRank {
    diagonal: StateFn,
    columns: StateFn,
    rank: usize,
    divergence: Derivative,
}

impl LowRank {
    /// The matrix with the diagonal `q(x)` `[B, D]`, not negative, and the columns `U(x)` `[B, D, r]`, for states `[B, D]`.
    pub fn new(
        diagonal: impl Fn(&Tensor) -> Result<Tensor> + 'static,
        columns: impl Fn(&Tensor) -> Result<Tensor> + 'static,
        rank: usize,
        divergence: Derivative,
    ) -> Self {
        Self { diagonal: Box::new(diagonal), columns: Box::new(columns), rank, divergence }
    }

    /// U(x), checked.
    fn columns(&self, x: &Tensor) -> Result<Tensor> {
        let columns = (self.columns)(x)?;
        let expected = [x.dims(), &[self.rank]].concat();
        if columns.dims() != expected {
            return Err(Error::Mismatch {
                what: "columns of a diffusion matrix",
                expected: format!("{expected:?}, for a state of two dimensions"),
                found: format!("{:?}", columns.dims()),
            });
        }
        Ok(columns)
    }
}

impl DiffusionMatrix for LowRank {
    fn root(&self, x: &Tensor, z: &Tensor) -> Result<Tensor> {
        let dim = x.dim(1)?;
        let (own, shared) = (z.narrow(1, 0, dim)?, z.narrow(1, dim, self.rank)?);
        let through = self.columns(x)?.broadcast_mul(&shared.unsqueeze(1)?)?.sum(D::Minus1)?;
        Ok((((self.diagonal)(x)?.sqrt()? * own)? + through)?)
    }
    fn root_transposed(&self, x: &Tensor, u: &Tensor) -> Result<Tensor> {
        let own = ((self.diagonal)(x)?.sqrt()? * u)?;
        let shared = self.columns(x)?.broadcast_mul(&u.unsqueeze(2)?)?.sum(1)?;
        Ok(Tensor::cat(&[own, shared], 1)?)
    }
    fn noise_shape(&self, shape: &[usize]) -> Vec<usize> {
        vec![shape.iter().product::<usize>() + self.rank]
    }
    fn divergence(&self, x: &Tensor) -> Result<Option<Tensor>> {
        self.divergence.of(|x, u| self.root(x, &self.root_transposed(x, u)?), x)
    }
}

/// A matrix that does not depend on the state: a factor L of Q, or ω.
pub struct Linear {
    matrix: Op,
}

impl Linear {
    /// L, any factor of Q.
    pub fn root(matrix: Op) -> Self {
        Self { matrix }
    }

    /// ω, antisymmetric.
    ///
    /// # Errors
    /// When it is not, to 1e-9 of its size.
    pub fn turning(matrix: DMatrix<f64>) -> Result<Self> {
        let square = matrix.is_square();
        let defect =
            if square { largest((&matrix + matrix.transpose()).iter().copied()) } else { f64::INFINITY };
        if defect.is_nan() || defect > 1e-9 * matrix.amax() {
            return Err(Error::Mismatch {
                what: "rotation ω",
                expected: "an antisymmetric matrix".into(),
                found: format!("{:?}, ω + ωᵀ with entries of {defect:.2e}", matrix.shape()),
            });
        }
        Ok(Self { matrix: Op::Dense(matrix) })
    }
}

impl DiffusionMatrix for Linear {
    fn root(&self, _: &Tensor, z: &Tensor) -> Result<Tensor> {
        self.matrix.apply(z)
    }
    fn root_transposed(&self, _: &Tensor, u: &Tensor) -> Result<Tensor> {
        self.matrix.transpose().apply(u)
    }
    fn divergence(&self, _: &Tensor) -> Result<Option<Tensor>> {
        Ok(None)
    }
}

impl Turning for Linear {
    fn apply(&self, _: &Tensor, u: &Tensor) -> Result<Tensor> {
        self.matrix.apply(u)
    }
    fn divergence(&self, _: &Tensor) -> Result<Option<Tensor>> {
        Ok(None)
    }
}

/// ω(x) by a function `(x, u) ↦ ω(x) u`, linear in u and antisymmetric: `uᵀ ω(x) u = 0`.
pub struct TurningFn<F> {
    apply: F,
    divergence: Derivative,
}

impl<F: Fn(&Tensor, &Tensor) -> Result<Tensor>> TurningFn<F> {
    /// The matrix that `apply` multiplies by.
    pub fn new(apply: F, divergence: Derivative) -> Self {
        Self { apply, divergence }
    }
}

impl<F: Fn(&Tensor, &Tensor) -> Result<Tensor>> Turning for TurningFn<F> {
    fn apply(&self, x: &Tensor, u: &Tensor) -> Result<Tensor> {
        (self.apply)(x, u)
    }
    fn divergence(&self, x: &Tensor) -> Result<Option<Tensor>> {
        self.divergence.of(&self.apply, x)
    }
}
