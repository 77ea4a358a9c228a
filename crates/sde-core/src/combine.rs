//! Linear combinations of states, `Σ_j A_j x_j`, in one pass: each operand is read once, the sum written once, and its finiteness
//! checked on the way.
//!
//! The pass exists for factors `c·I` and blocks over groups on contiguous tensors of one type on the CPU; anything else is composed of Candle's operators, to
//! which it is equal but for rounding (the products here are summed in the order given, in the tensors' type). A tensor on the
//! tape is composed, too, and so keeps its gradient.

mod groups;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{CpuStorage, Device, Storage, Tensor, WithDType};
use rayon::prelude::*;

use crate::op::{Representation, same_basis};
use crate::tensor::{coordinates, from_coordinates, in_coordinates};
use crate::{Basis, Error, Op, Result};

/// Entries written together, the unit that threads share out.
const LANES: usize = 64;
/// Fewest groups of lanes worth a thread.
const GRAIN: usize = 128;

/// A linear combination, and whether all its entries are finite.
#[derive(Debug, Clone)]
pub struct Combined {
    /// The sum.
    pub sum: Tensor,
    /// No entry is infinite or NaN.
    pub finite: bool,
}

/// `Σ_j A_j x_j`; operators that are zero do not read their operand, the first excepted.
///
/// # Shapes
/// All `x_j` have one shape and type; the sum has them, too.
///
/// # Errors
/// For no terms at all, and operands that do not fit each other or their operator.
pub fn combine(terms: &[(&Op, &Tensor)]) -> Result<Combined> {
    let Some((&first, rest)) = terms.split_first() else {
        return Err(Error::Mismatch {
            what: "terms of a linear combination",
            expected: "one or more".into(),
            found: "none".into(),
        });
    };
    if let Some((_, x)) = rest.iter().find(|(_, x)| x.dims() != first.1.dims()) {
        return Err(Error::Mismatch {
            what: "operands of a linear combination",
            expected: format!("{:?}", first.1.dims()),
            found: format!("{:?}", x.dims()),
        });
    }
    let used: Vec<(&Op, &Tensor)> =
        std::iter::once(first).chain(rest.iter().copied().filter(|(op, _)| op.max_abs() != 0.0)).collect();
    let fused = match first.1.dtype() {
        candle_core::DType::F64 => in_one_pass::<f64>(&used)?,
        candle_core::DType::F32 => in_one_pass::<f32>(&used)?,
        _ => None,
    };
    fused.map_or_else(|| composed(&used), Ok)
}

/// The same, by Candle's operators; terms in one basis are summed there, so that they share the way back.
fn composed(terms: &[(&Op, &Tensor)]) -> Result<Combined> {
    if let Ok(Representation::Groups(groups)) = Representation::of(terms.iter().map(|(op, _)| *op)) {
        return checked(groups::product(terms, groups)?);
    }
    let like = terms[0].1;
    let mut sum: Option<Tensor> = None;
    let mut in_basis: Option<(Arc<Basis>, Tensor)> = None;
    for (op, x) in terms {
        if let Op::Spectral(spectral) = op {
            let basis = spectral.basis();
            let y = in_coordinates(basis, std::slice::from_ref(*op), &coordinates(basis, x)?)?;
            in_basis = Some(match in_basis.take() {
                None => (basis.clone(), y),
                Some((first, sum)) if same_basis(&first, basis) => (first, (sum + y)?),
                Some((first, before)) => {
                    sum = added(sum, from_coordinates(basis, &y, like)?)?;
                    (first, before)
                }
            });
        } else {
            sum = added(sum, op.apply(x)?)?;
        }
    }
    if let Some((basis, y)) = in_basis {
        sum = added(sum, from_coordinates(&basis, &y, like)?)?;
    }
    checked(sum.unwrap_or_else(|| like.clone()))
}

fn checked(sum: Tensor) -> Result<Combined> {
    // A sum of absolute values overflows only far beyond any state; an infinity or a NaN always shows in it.
    let finite = sum.to_dtype(candle_core::DType::F64)?.abs()?.sum_all()?.to_scalar::<f64>()?.is_finite();
    Ok(Combined { sum, finite })
}

fn added(sum: Option<Tensor>, term: Tensor) -> Result<Option<Tensor>> {
    Ok(Some(match sum {
        None => term,
        Some(sum) => (sum + term)?,
    }))
}

/// A number type of the fused pass.
trait Lane: WithDType + Send + Sync {
    fn of(c: f64) -> Self;
    fn add_product(self, c: Self, x: Self) -> Self;
    fn is_finite(self) -> bool;
}

macro_rules! lane {
    ($t:ty) => {
        impl Lane for $t {
            fn of(c: f64) -> Self {
                c as Self
            }
            fn add_product(self, c: Self, x: Self) -> Self {
                self + c * x
            }
            fn is_finite(self) -> bool {
                Self::is_finite(self)
            }
        }
    };
}
lane!(f32);
lane!(f64);

/// The fused pass, `None` where it does not exist.
fn in_one_pass<T: Lane>(terms: &[(&Op, &Tensor)]) -> Result<Option<Combined>> {
    let representation = Representation::of(terms.iter().map(|(op, _)| *op));
    let plain = |x: &Tensor| x.dtype() == T::DTYPE && x.device().is_cpu() && !x.track_op();
    if !matches!(representation, Ok(Representation::Scalar | Representation::Groups(_)))
        || !terms.iter().all(|(_, x)| plain(x))
    {
        return Ok(None);
    }
    let guards: Vec<_> = terms.iter().map(|(_, x)| x.storage_and_layout()).collect();
    let mut slices: Vec<&[T]> = Vec::with_capacity(guards.len());
    for (storage, layout) in &guards {
        let (Storage::Cpu(cpu), Some((from, to))) = (&**storage, layout.contiguous_offsets()) else {
            return Ok(None);
        };
        slices.push(&CpuStorage::as_slice::<T>(cpu)?[from..to]);
    }
    let like = terms[0].1;
    let (values, finite) = if let Ok(Representation::Groups(groups)) = representation {
        let ops: Vec<&Op> = terms.iter().map(|(op, _)| *op).collect();
        groups::sum_of(&ops, &slices, groups, groups::group_len(groups, like)?)?
    } else {
        let factors: Vec<T> = terms.iter().filter_map(|(op, _)| op.as_scalar().map(T::of)).collect();
        sum_of(&factors, &slices)
    };
    Ok(Some(Combined { sum: Tensor::from_vec(values, like.shape(), &Device::Cpu)?, finite }))
}

fn sum_of<T: Lane>(factors: &[T], slices: &[&[T]]) -> (Vec<T>, bool) {
    let n = slices[0].len();
    let spoilt = AtomicBool::new(false);
    let group = |i: usize, width: usize| {
        let mut sum = [T::zero(); LANES];
        for (c, x) in factors.iter().zip(slices) {
            let x = &x[i * LANES..i * LANES + width];
            sum.iter_mut().zip(x).for_each(|(sum, x)| *sum = sum.add_product(*c, *x));
        }
        // 0·v is 0 unless v is infinite or NaN, and NaN then: sums of whole registers instead of comparisons.
        let mut zero = [T::zero(); 8];
        for lanes in sum.as_chunks::<8>().0 {
            zero.iter_mut().zip(lanes).for_each(|(zero, v)| *zero = zero.add_product(T::zero(), *v));
        }
        if !zero.iter().fold(true, |fine, v| fine & v.is_finite()) {
            spoilt.store(true, Ordering::Relaxed);
        }
        sum
    };
    // Collected as arrays, the entries are written once, and nothing is zeroed first.
    let mut groups: Vec<[T; LANES]> = Vec::with_capacity(n.div_ceil(LANES));
    let whole = (0..n / LANES).into_par_iter().with_min_len(GRAIN);
    whole.map(|i| group(i, LANES)).collect_into_vec(&mut groups);
    if !n.is_multiple_of(LANES) {
        groups.push(group(n / LANES, n % LANES));
    }
    let mut values = groups.into_flattened();
    values.truncate(n);
    (values, !spoilt.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Var};

    fn wave(n: usize, phase: f64) -> Tensor {
        let values: Vec<f64> = (0..n).map(|i| (0.37 * i as f64 + phase).sin()).collect();
        Tensor::from_vec(values, n, &Device::Cpu).expect("a tensor")
    }

    #[test]
    fn one_pass_equals_the_composition() -> Result<()> {
        // Lengths around the width of a group, and many groups.
        for n in [1, 63, 64, 65, 40_003] {
            let operands: Vec<Tensor> = (0..5).map(|j| wave(n, f64::from(j))).collect();
            let ops = [0.5, -1.25, 0.0, 3.0, 1e-3].map(Op::Scalar);
            let terms: Vec<(&Op, &Tensor)> = ops.iter().zip(&operands).collect();
            for (dtype, bound) in [(DType::F64, 1e-15), (DType::F32, 1e-6)] {
                let cast: Vec<Tensor> =
                    operands.iter().map(|x| x.to_dtype(dtype)).collect::<candle_core::Result<_>>()?;
                let terms: Vec<(&Op, &Tensor)> =
                    terms.iter().zip(&cast).map(|((op, _), x)| (*op, x)).collect();
                let (fused, plain) = (combine(&terms)?, composed(&terms)?);
                assert!(fused.finite && plain.finite && fused.sum.dtype() == dtype);
                let gap =
                    (fused.sum - plain.sum)?.abs()?.max_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
                assert!(gap <= 4.0 * bound, "{n} {dtype:?}: {gap:e}");
            }
        }
        Ok(())
    }

    #[test]
    fn blocks_in_one_pass_equal_their_application() -> Result<()> {
        // Few entries of a group, and many.
        for (batch, len) in [(7, 1), (3, 5), (4, 6000)] {
            let dims = (batch, 2 * len);
            let operands: Vec<Tensor> = (0..3)
                .map(|j| wave(2 * batch * len, f64::from(j)).reshape(dims))
                .collect::<candle_core::Result<_>>()?;
            let ops =
                [Op::block([[0.5, -1.0], [2.0, 0.0]]), Op::Scalar(0.3), Op::block([[0.0, 1.0], [-1.0, 4.0]])];
            let terms: Vec<(&Op, &Tensor)> = ops.iter().zip(&operands).collect();
            let mut expected = ops[0].apply(&operands[0])?;
            for (op, x) in &terms[1..] {
                expected = (expected + op.apply(x)?)?;
            }
            for found in [combine(&terms)?, composed(&terms)?] {
                let gap = (found.sum - &expected)?.abs()?.max_all()?.to_scalar::<f64>()?;
                assert!(found.finite && gap < 1e-14, "{batch}×{len}: {gap:e}");
            }
            let spoilt = (&operands[1] * f64::NAN)?;
            assert!(!combine(&[(&ops[0], &operands[0]), (&ops[1], &spoilt)])?.finite);
        }
        let odd = wave(6, 0.0).reshape((2, 3))?;
        assert!(combine(&[(&Op::block([[1.0, 0.0], [0.0, 1.0]]), &odd)]).is_err());
        Ok(())
    }

    #[test]
    fn what_is_not_plain_is_composed() -> Result<()> {
        let square = wave(12, 0.0).reshape((3, 4))?;
        // Transposed: not contiguous. Narrowed rows are contiguous with an offset.
        let turned = square.t()?;
        let sum = combine(&[(&Op::Scalar(2.0), &turned), (&Op::IDENTITY, &turned.contiguous()?)])?.sum;
        assert_eq!(sum.to_vec2::<f64>()?, (turned * 3.0)?.to_vec2::<f64>()?);
        let rows = square.narrow(0, 1, 2)?;
        let double = combine(&[(&Op::Scalar(2.0), &rows)])?.sum;
        assert_eq!(double.to_vec2::<f64>()?, (rows * 2.0)?.to_vec2::<f64>()?);
        // A variable keeps its gradient.
        let x = Var::from_tensor(&wave(3, 1.0))?;
        let loss =
            combine(&[(&Op::Scalar(3.0), x.as_tensor()), (&Op::IDENTITY, x.as_tensor())])?.sum.sum_all()?;
        let gradient = loss.backward()?.get(&x).expect("a gradient").to_vec1::<f64>()?;
        assert_eq!(gradient, [4.0; 3]);
        Ok(())
    }

    #[test]
    fn an_infinity_or_a_nan_anywhere_shows() -> Result<()> {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            for at in [0, 100, 1022] {
                let mut values = vec![1.0; 1023];
                values[at] = bad;
                let x = Tensor::new(values, &Device::Cpu)?;
                assert!(!combine(&[(&Op::IDENTITY, &wave(1023, 0.0)), (&Op::Scalar(0.5), &x)])?.finite);
            }
        }
        assert!(combine(&[]).is_err());
        assert!(combine(&[(&Op::IDENTITY, &wave(2, 0.0)), (&Op::IDENTITY, &wave(3, 0.0))]).is_err());
        Ok(())
    }
}
