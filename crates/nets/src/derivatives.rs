//! Derivatives of a function of states, f: x ↦ f(x), of whatever order a loss or a measurement asks for: the one place of this workspace that makes them.
//!
//! With J = ∂f/∂x, and all states of a batch at once (no sample sees another):
//!
//! ```text
//! vᵀJ         one backward pass                                         Taped::vjp
//! J v         the derivative of vᵀJ w along w, two backward passes      Taped::jvp
//!             (f(x + h v) − f(x − h v)) / 2h, two evaluations           Differences
//! ∇·f         Σ aᵀJ a over the axes, or E of it over random a           Taped::trace
//! ∇φ, ∇(∇·f)  one backward pass more                                    Taped::gradient
//! ∂_a∂_b f    second differences: seven evaluations for a, b and both   Differences
//! H v         the gradient of v·∇φ, or the difference of two gradients  hessian_vector
//! ```
//!
//! Everything of [`Taped`] but the value of [`Taped::vjp`] needs Candle's tape to keep the gradients of gradients. Where it does
//! not, that is an error and never a number: see [`require_nested`].
//!
//! Differences of order two have the error h² times a third or fourth derivative, and rounding of ϵ/h and ϵ/h²; h belongs
//! in units of the length over which f changes. For a score that is σ_t, and h = c σ_t with c about 0.03 in f32, 1e-4 in f64.
//! States, distances and shifts are rounded to a grid on which their sums are exact: else x + h a and x − h a lie at different distances
//! from x, and a second difference sees the slope.
//!
//! Reference: Pearlmutter 1994, doi 10.1162/neco.1994.6.1.147 (H v); Hutchinson 1990 (traces); Abramowitz, Stegun 1964,
//! 25.3.23 to 25.3.27 (differences).

use candle_core::{DType, Device, Tensor, Var};
use sde_core::noise::host_tensor;

use crate::ops::second_derivatives_are_taped;
use crate::{Error, Result, backward};

/// Refuses to go on where the tape does not keep the gradients of gradients.
///
/// # Errors
/// [`Error::NotTaped`], which says how to make it keep them.
pub fn require_nested(what: &'static str) -> Result<()> {
    if second_derivatives_are_taped() { Ok(()) } else { Err(Error::NotTaped { what }) }
}

/// A function's value at states that are a variable of their own, on the tape.
#[derive(Debug)]
pub struct Taped {
    x: Var,
    value: Tensor,
}

impl Taped {
    /// f at `x`.
    ///
    /// # Errors
    /// Those of `f`.
    pub fn new<E: From<candle_core::Error>>(
        f: impl FnOnce(&Tensor) -> Result<Tensor, E>,
        x: &Tensor,
    ) -> Result<Self, E> {
        let x = Var::from_tensor(&x.detach().copy()?)?;
        let value = f(x.as_tensor())?;
        Ok(Self { x, value })
    }

    /// x, on the tape.
    pub fn x(&self) -> &Tensor {
        self.x.as_tensor()
    }

    /// f(x).
    pub fn value(&self) -> &Tensor {
        &self.value
    }

    /// vᵀJ; on the tape where the tape keeps gradients of gradients, a constant elsewhere.
    ///
    /// # Errors
    /// Those of the backward pass.
    pub fn vjp(&self, v: &Tensor) -> Result<Tensor> {
        self.slope(&(&self.value * v)?)
    }

    /// J v, as the derivative of wᵀJ v by w.
    ///
    /// # Errors
    /// [`Error::NotTaped`].
    pub fn jvp(&self, v: &Tensor) -> Result<Tensor> {
        require_nested("a Jacobian-vector product by two backward passes")?;
        // Any w serves: wᵀJ is linear in it.
        let w = Var::from_tensor(&self.value.zeros_like()?.detach())?;
        let pulled = self.vjp(w.as_tensor())?;
        let store = backward(&(pulled * v)?.sum_all()?)?;
        Ok(match store.get(&w) {
            Some(product) => product.clone(),
            None => self.value.zeros_like()?,
        })
    }

    /// `Σ aᵀJ b` over pairs (a, b) of directions: ∇·f for a = b along all axes, an unbiased estimate of it for one random a = b
    /// with E aaᵀ = I, and of tr(𝒟J) for b = a and 𝒟a in a's place.
    ///
    /// # Shapes
    /// `[B]`.
    ///
    /// # Errors
    /// [`Error::NotTaped`].
    pub fn trace<'t>(&self, pairs: impl IntoIterator<Item = (&'t Tensor, &'t Tensor)>) -> Result<Tensor> {
        require_nested("the gradient of a divergence")?;
        let mut sum = Tensor::zeros(self.x().dim(0)?, self.x().dtype(), self.x().device())?;
        for (a, b) in pairs {
            sum = (sum + per_sample(&(self.vjp(a)? * b)?)?)?;
        }
        Ok(sum)
    }

    /// The gradient by x of what was made of x and f(x), one number a sample.
    ///
    /// # Shapes
    /// `scalars` `[B]`, each of its own sample alone; the gradient has the shape of x.
    ///
    /// # Errors
    /// [`Error::NotTaped`].
    pub fn gradient(&self, scalars: &Tensor) -> Result<Tensor> {
        require_nested("a gradient that is to be differentiated again")?;
        self.slope(scalars)
    }

    /// The gradient of a sum; zero where it does not depend on x.
    fn slope(&self, terms: &Tensor) -> Result<Tensor> {
        let total = terms.sum_all()?;
        if !total.track_op() {
            return Ok(self.x().zeros_like()?);
        }
        let store = backward(&total)?;
        Ok(match store.get(&self.x) {
            Some(gradient) => gradient.clone(),
            None => self.x().zeros_like()?,
        })
    }
}

/// H v, H the matrix of second derivatives of a function with one value a sample, by a second backward pass.
///
/// # Shapes
/// `potential` maps `[B, …]` to `[B]`; `x` and `v` `[B, …]`, and so is H v.
///
/// # Errors
/// [`Error::NotTaped`].
pub fn hessian_vector<E: From<candle_core::Error> + From<Error>>(
    potential: impl FnOnce(&Tensor) -> Result<Tensor, E>,
    x: &Tensor,
    v: &Tensor,
) -> Result<Tensor, E> {
    let taped = Taped::new(potential, x)?;
    let gradient = taped.gradient(taped.value())?;
    Ok(taped.slope(&(gradient * v)?)?)
}

/// What derivatives by differences are wanted.
#[derive(Debug, Clone)]
pub struct Differences<'a> {
    /// The distance h between states, of each sample.
    pub steps: &'a [f64],
    /// a: the directions of the first derivatives.
    pub along: &'a [Tensor],
    /// (i, j), i ≤ j: the second derivatives along the i-th and the j-th of them.
    pub mixed: &'a [(usize, usize)],
}

/// f and its derivatives.
#[derive(Debug, Clone)]
pub struct Jet {
    /// f(x).
    pub value: Tensor,
    /// `J a`, for each direction.
    pub first: Vec<Tensor>,
    /// `∂_a∂_b f`, for each pair.
    pub second: Vec<Tensor>,
}

impl Differences<'_> {
    /// How many evaluations of f a jet takes.
    pub fn evaluations(&self) -> usize {
        1 + 2 * self.along.len() + 2 * self.mixed.iter().filter(|(i, j)| i != j).count()
    }

    /// The jet, from one evaluation of f at all states together: x, then what lies around it.
    ///
    /// The result is on the tape wherever f is, by first order alone.
    ///
    /// # Shapes
    /// f maps `[K·B, …]`, K batches one behind the other, to the same; `x` is `[B, …]`.
    ///
    /// # Errors
    /// Those of `f`; when there is another number of steps than samples, or no such direction.
    pub fn jet<E: From<candle_core::Error> + From<Error>>(
        &self,
        f: impl FnOnce(&Tensor) -> Result<Tensor, E>,
        x: &Tensor,
    ) -> Result<Jet, E> {
        let batch = x.dim(0)?;
        let grid = self.grid(x)?;
        let values = f(&Tensor::cat(&self.states(x, &grid)?, 0)?)?;
        let steps = grid.steps.to_dtype(values.dtype())?;
        let at = |k: usize| values.narrow(0, k * batch, batch);
        let value = at(0)?;
        let (half, square) = ((steps.recip()? * 0.5)?, steps.sqr()?.recip()?);
        let mut first = Vec::with_capacity(self.along.len());
        let mut sums = Vec::with_capacity(self.along.len());
        for i in 0..self.along.len() {
            let (ahead, behind) = (at(1 + 2 * i)?, at(2 + 2 * i)?);
            first.push((&ahead - &behind)?.broadcast_mul(&half)?);
            sums.push((ahead + behind)?);
        }
        let mut corner = 1 + 2 * self.along.len();
        let mut second = Vec::with_capacity(self.mixed.len());
        for &(i, j) in self.mixed {
            let bent = if i == j {
                (&sums[i] - (&value * 2.0)?)?
            } else {
                // Both corners on the diagonal, less what bends along each direction alone.
                let corners = (at(corner)? + at(corner + 1)?)?;
                corner += 2;
                (((corners - &sums[i])? - &sums[j])? * 0.5)?.add(&value)?
            };
            second.push(bent.broadcast_mul(&square)?);
        }
        Ok(Jet { value, first, second })
    }

    /// x, x ± h a for each direction, then x ± h (a + b) for each pair of different ones.
    fn states(&self, x: &Tensor, grid: &Grid) -> Result<Vec<Tensor>> {
        // A constant shift by less than the grid, so that x may be on the tape.
        let x = (x + (grid.round(&x.detach())? - x.detach())?)?;
        let shift = |a: &Tensor| grid.round(&a.broadcast_mul(&grid.steps)?);
        let shifts = self.along.iter().map(shift).collect::<Result<Vec<_>>>()?;
        let mut states = vec![x.clone()];
        for shift in &shifts {
            states.extend([(&x + shift)?, (&x - shift)?]);
        }
        for &(i, j) in self.mixed {
            let (Some(a), Some(b)) = (shifts.get(i), shifts.get(j)) else {
                let expected = format!("one of {}", self.along.len());
                return Err(Error::Shape {
                    what: "direction of a difference",
                    expected,
                    found: i.max(j).to_string(),
                });
            };
            if i != j {
                let shift = (a + b)?;
                states.extend([(&x + &shift)?, (&x - &shift)?]);
            }
        }
        Ok(states)
    }

    /// The grid of each sample: powers of two, so small that no entry loses a bit it has, and so large that sums of a few are exact.
    fn grid(&self, x: &Tensor) -> Result<Grid> {
        let mut dims = vec![1; x.rank()];
        dims[0] = x.dim(0)?;
        if self.steps.len() != dims[0] {
            let (expected, found) = (format!("{} of them", dims[0]), self.steps.len().to_string());
            return Err(Error::Shape { what: "distances of differences", expected, found });
        }
        // A factor of four is room for x and its shifts.
        let digits = if x.dtype() == DType::F64 { 50 } else { 21 };
        let largest = x.detach().flatten_from(1)?.abs()?.max(1)?.to_device(&Device::Cpu)?;
        let largest = largest.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        let unit =
            |(&largest, &step): (&f64, &f64)| ((largest + step).log2().ceil() - f64::from(digits)).exp2();
        let units: Vec<f64> = largest.iter().zip(self.steps).map(unit).collect();
        let whole = |(&step, &unit): (&f64, &f64)| (step / unit).round().max(1.0) * unit;
        let steps = self.steps.iter().zip(&units).map(whole).collect();
        let tensor = |values| host_tensor(values, &dims, x.dtype(), x.device());
        Ok(Grid { units: tensor(units)?, steps: tensor(steps)? })
    }
}

/// What states are multiples of, and the distances, which are such, too; beside tensors like the states.
struct Grid {
    units: Tensor,
    steps: Tensor,
}

impl Grid {
    fn round(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.broadcast_div(&self.units)?.round()?.broadcast_mul(&self.units)?)
    }
}

/// The sum over the entries of each sample.
///
/// # Shapes
/// `[B, …]` to `[B]`.
///
/// # Errors
/// Those of Candle.
pub fn per_sample(terms: &Tensor) -> Result<Tensor> {
    Ok(terms.flatten_from(1)?.sum(1)?)
}
