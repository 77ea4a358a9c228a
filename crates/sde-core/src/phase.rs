//! Between data and the states of a process with auxiliary groups: velocities beside positions, `u = (x, v)`.
//!
//! Lifted data has zeros there, their mean: the covariance at t = 0 holds what they really are, so whatever starts from lifted data sees
//! them marginalised. For a process without auxiliary groups, all of this is the identity.
//!
//! Reference: Dockhorn, Vahdat, Kreis 2022, arXiv 2112.07068, section 3.2, hybrid score matching.

use candle_core::Tensor;

use crate::{Error, LinearSde, Result};

/// The groups that are data, and all of them, if some are not.
fn groups(sde: &dyn LinearSde) -> Option<(usize, usize)> {
    let all = sde.groups();
    sde.auxiliary().map(|auxiliary| (all.saturating_sub(auxiliary.groups), all))
}

/// `first` entries of one kind as entries of the other: `from` of them are `to` there.
fn resized(
    first: Option<usize>,
    (from, to): (usize, usize),
    what: &'static str,
    shape: &[usize],
) -> Result<usize> {
    match first {
        Some(n) if from > 0 && n.is_multiple_of(from) => Ok(n / from * to),
        _ => Err(Error::Mismatch {
            what,
            expected: format!("a first dimension (after that of the batch) divisible by {from}"),
            found: format!("{shape:?}"),
        }),
    }
}

/// The shape of a state for data of the shape `shape`, both without the dimension of the batch.
///
/// # Errors
/// When the groups do not divide the first dimension.
pub fn state_shape(sde: &dyn LinearSde, shape: &[usize]) -> Result<Vec<usize>> {
    let mut state = shape.to_vec();
    if let Some(sizes) = groups(sde) {
        let first =
            resized(shape.first().copied(), sizes, "shape of data of a process with velocities", shape)?;
        state[0] = first;
    }
    Ok(state)
}

/// Data as states, with zeros in the auxiliary groups.
///
/// # Shapes
/// `x` `[B, C, …]`; the result `[B, k·C, …]`.
///
/// # Errors
/// As [`state_shape`].
pub fn lift(sde: &dyn LinearSde, x: &Tensor) -> Result<Tensor> {
    let data = x.dims().get(1..).unwrap_or_default();
    let state = state_shape(sde, data)?;
    if state == data {
        return Ok(x.clone());
    }
    let mut rest = x.dims().to_vec();
    rest[1] = state[0] - data[0];
    Ok(Tensor::cat(&[x, &Tensor::zeros(rest, x.dtype(), x.device())?], 1)?)
}

/// The data of states: what is left without the auxiliary groups.
///
/// # Shapes
/// `u` `[B, k·C, …]`; the result `[B, C, …]`.
///
/// # Errors
/// When the groups do not divide the second dimension.
pub fn project(sde: &dyn LinearSde, u: &Tensor) -> Result<Tensor> {
    let Some((data, all)) = groups(sde) else { return Ok(u.clone()) };
    let shape = u.dims().get(1..).unwrap_or_default();
    let kept = resized(shape.first().copied(), (all, data), "state of a process with velocities", shape)?;
    Ok(u.narrow(1, 0, kept)?.contiguous()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Cld, Vp};
    use candle_core::{DType, Device};

    #[test]
    fn positions_come_back_and_velocities_start_from_zero() -> Result<()> {
        let cld = Cld::published()?;
        let x = Tensor::arange(0.0, 24.0, &Device::Cpu)?.reshape((2, 3, 2, 2))?;
        let u = lift(&cld, &x)?;
        assert_eq!((u.dims(), state_shape(&cld, &[3, 2, 2])?), (&[2, 6, 2, 2][..], vec![6, 2, 2]));
        assert_eq!(u.narrow(1, 3, 3)?.abs()?.sum_all()?.to_scalar::<f64>()?, 0.0);
        assert_eq!(project(&cld, &u)?.flatten_all()?.to_vec1::<f64>()?, x.flatten_all()?.to_vec1::<f64>()?);
        assert!(project(&cld, &x).is_err() && state_shape(&cld, &[]).is_err());
        Ok(())
    }

    #[test]
    fn a_process_of_data_alone_is_left_as_it_is() -> Result<()> {
        let x = Tensor::zeros((2, 5), DType::F32, &Device::Cpu)?;
        assert_eq!(lift(&Vp::STANDARD, &x)?.dims(), [2, 5]);
        assert_eq!(project(&Vp::STANDARD, &x)?.dims(), [2, 5]);
        assert_eq!(state_shape(&Vp::STANDARD, &[5])?, [5]);
        Ok(())
    }
}
