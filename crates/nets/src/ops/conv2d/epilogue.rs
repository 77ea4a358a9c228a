//! What is done to a plane of outputs while it is still in a cache: the bias is added, and what is negative becomes zero.

use super::super::kernel::{Real, vectorised};

/// The end of a convolution.
#[derive(Clone, Copy)]
pub(super) struct Epilogue<'a, T> {
    /// One value a filter, or one for each sample and filter.
    pub(super) bias: Option<&'a [T]>,
    /// Whether negative values become zero.
    pub(super) relu: bool,
}

impl<T: Real> Epilogue<'_, T> {
    /// Nothing.
    pub(super) const NONE: Self = Self { bias: None, relu: false };

    /// The bias of a plane, counted over samples and filters.
    #[inline(always)]
    pub(super) fn shift(&self, plane: usize, filters: usize) -> T {
        match self.bias {
            None => T::zero(),
            Some(bias) if bias.len() == filters => bias[plane % filters],
            Some(bias) => bias[plane],
        }
    }

    /// One value's result. What is not a number stays so.
    #[inline(always)]
    pub(super) fn value(&self, v: T, shift: T) -> T {
        let v = v + shift;
        if self.relu && v < T::zero() { T::zero() } else { v }
    }

    /// All planes of `positions` values in `y`, the first of which is plane `first`.
    pub(super) fn planes(&self, y: &mut [T], first: usize, filters: usize, positions: usize) {
        if self.bias.is_none() && !self.relu {
            return;
        }
        vectorised(
            #[inline(always)]
            || {
                for (plane, y) in y.chunks_exact_mut(positions.max(1)).enumerate() {
                    let shift = self.shift(first + plane, filters);
                    y.iter_mut().for_each(|v| *v = self.value(*v, shift));
                }
            },
        );
    }

    /// `from` with its end, to `to`.
    #[inline(always)]
    pub(super) fn store(&self, from: &[T], to: &mut [T], shift: T) {
        to.iter_mut().zip(from).for_each(|(to, &from)| *to = self.value(from, shift));
    }
}
