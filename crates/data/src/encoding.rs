//! How stored values become the real numbers a model sees, and back.
//!
//! A level `k` of `L` in a range `[a, b]` is encoded
//!
//! ```text
//! quantised     x = a + (b − a) k / (L − 1)
//! dequantised   x = a + (b − a) (k + u) / L,   u ~ U(0, 1)
//! ```
//!
//! Only dequantised data has a density, and only its likelihood can be told in bits per dimension of the
//! levels: with D dimensions, `bits/dim = NLL / (D ln 2) + log2(L / (b − a))`, an upper bound on the code
//! length of the levels. Both the levels and the range are part of the type, so the offset cannot be
//! forgotten.
//!
//! Reference: Theis, van den Oord, Bethge 2016, arXiv 1511.01844 (uniform dequantisation).

use candle_core::{DType, Device, Tensor};

use crate::{Error, Result};

/// The interval that the levels are spread over.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    low: f64,
    high: f64,
}

impl Range {
    /// \[−1, 1\].
    pub const SIGNED: Self = Self { low: -1.0, high: 1.0 };
    /// \[0, 1\].
    pub const UNIT: Self = Self { low: 0.0, high: 1.0 };

    /// `[low, high]`.
    ///
    /// # Errors
    /// Unless `low < high`, both finite.
    pub fn new(low: f64, high: f64) -> Result<Self> {
        if low < high && low.is_finite() && high.is_finite() {
            Ok(Self { low, high })
        } else {
            Err(Error::mismatch(
                "range of values",
                "two finite numbers, low < high",
                format!("{low}, {high}"),
            ))
        }
    }

    /// The lower end.
    pub fn low(&self) -> f64 {
        self.low
    }

    /// The upper end.
    pub fn high(&self) -> f64 {
        self.high
    }

    /// The length.
    pub fn width(&self) -> f64 {
        self.high - self.low
    }
}

/// What the values of a data set are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Encoding {
    /// Real numbers to begin with.
    Continuous,
    /// Levels, as points of the range: good for training, without a density.
    Quantised {
        /// The number of levels, 2 to 256.
        levels: u32,
        /// The interval they span.
        range: Range,
    },
    /// Levels, each spread uniformly over its cell of the range.
    Dequantised {
        /// The number of levels, 2 to 256.
        levels: u32,
        /// The interval they divide.
        range: Range,
    },
}

impl Encoding {
    /// What to add to `NLL / (D ln 2)` for bits per dimension; none unless dequantised.
    pub fn bits_offset(&self) -> Option<f64> {
        match self {
            Self::Dequantised { levels, range } => Some((f64::from(*levels) / range.width()).log2()),
            _ => None,
        }
    }

    /// The number of levels, if there are any.
    pub fn levels(&self) -> Option<u32> {
        match self {
            Self::Continuous => None,
            Self::Quantised { levels, .. } | Self::Dequantised { levels, .. } => Some(*levels),
        }
    }

    /// The levels nearest to `x`: of quantised data the nearest level (halves round up), of dequantised data
    /// the level whose cell holds the value; values outside the range go to its ends.
    ///
    /// # Shapes
    /// Any; u8 on the host.
    ///
    /// # Errors
    /// For continuous data, for less than 2 or more than 256 levels, and on a NaN.
    pub fn quantise(&self, x: &Tensor) -> Result<Tensor> {
        self.check()?;
        let (levels, range, scale, shift) = match *self {
            Self::Continuous => {
                return Err(Error::mismatch(
                    "levels of a tensor",
                    "quantised or dequantised data",
                    "continuous data",
                ));
            }
            Self::Quantised { levels, range } => (levels, range, f64::from(levels) - 1.0, 0.5),
            Self::Dequantised { levels, range } => (levels, range, f64::from(levels), 0.0),
        };
        let top = f64::from(levels) - 1.0;
        let values = x.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
        if let Some(at) = values.iter().position(|v| v.is_nan()) {
            let row_length = x.elem_count() / x.dims().first().copied().unwrap_or(1).max(1);
            return Err(Error::NonFinite { row: at / row_length, column: at % row_length, found: f64::NAN });
        }
        let level = |v: f64| ((v - range.low) / range.width() * scale + shift).floor().clamp(0.0, top) as u8;
        let levels: Vec<u8> = values.into_iter().map(level).collect();
        Ok(Tensor::from_vec(levels, x.dims(), &Device::Cpu)?)
    }

    /// Refuses a number of levels that does not fit u8 data.
    pub(crate) fn check(&self) -> Result<()> {
        match self.levels() {
            Some(levels) if !(2..=256).contains(&levels) => {
                Err(Error::mismatch("encoding", "2 to 256 levels", levels.to_string()))
            }
            _ => Ok(()),
        }
    }
}

/// Level to value, in f32, as a table.
///
/// A dequantised value is kept inside its own cell when it is rounded to f32, so that
/// [`quantise`](Encoding::quantise) finds its level again, always.
#[derive(Debug, Clone)]
pub(crate) struct Decoder {
    low: f64,
    cell: f64,
    spread: bool,
    bounds: Vec<(f32, f32)>,
}

impl Decoder {
    /// The table of an encoding; none for continuous data.
    pub(crate) fn new(encoding: Encoding) -> Option<Self> {
        let (levels, range, cells, spread) = match encoding {
            Encoding::Continuous => return None,
            Encoding::Quantised { levels, range } => (levels, range, levels - 1, false),
            Encoding::Dequantised { levels, range } => (levels, range, levels, true),
        };
        let cell = range.width() / f64::from(cells);
        // Far more than the rounding error of `quantise`, far less than a step of f32.
        let margin = 1e-12;
        let inner = |k: u32| {
            let from = range.low + cell * (f64::from(k) + margin);
            let to = range.low + cell * (f64::from(k + 1) - margin);
            let (first, last) = (from as f32, to as f32);
            let first = if f64::from(first) < from { first.next_up() } else { first };
            let last = if f64::from(last) > to { last.next_down() } else { last };
            (first, last)
        };
        Some(Self { low: range.low, cell, spread, bounds: (0..levels).map(inner).collect() })
    }

    /// The value of a level; `uniform` is drawn from only if the data is dequantised.
    pub(crate) fn value(&self, level: u8, uniform: impl FnOnce() -> f64) -> f32 {
        if !self.spread {
            return (self.low + self.cell * f64::from(level)) as f32;
        }
        let (first, last) = self.bounds[usize::from(level)];
        ((self.low + self.cell * (f64::from(level) + uniform())) as f32).clamp(first, last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sde_core::noise::{Noise, Stream};

    #[test]
    fn levels_survive_the_round_trip() -> Result<()> {
        let mut draws = Noise::new(3).draws(Stream::User, 0, 0);
        for range in [Range::SIGNED, Range::UNIT, Range::new(-0.3, 2.2)?] {
            for levels in [2, 17, 256] {
                for encoding in
                    [Encoding::Quantised { levels, range }, Encoding::Dequantised { levels, range }]
                {
                    let decoder = Decoder::new(encoding).ok_or(Error::Empty("decoder"))?;
                    for level in 0..=(levels - 1) as u8 {
                        // The ends of the cell are where rounding to f32 could leave it.
                        let near_one = 1.0 - f64::EPSILON / 2.0;
                        for u in [f64::MIN_POSITIVE, draws.uniform(), near_one] {
                            let x = Tensor::new(&[decoder.value(level, || u)], &Device::Cpu)?;
                            assert_eq!(encoding.quantise(&x)?.to_vec1::<u8>()?, [level], "{encoding:?} {u}");
                        }
                    }
                }
            }
        }
        Ok(())
    }

    #[test]
    fn ends_of_the_range() -> Result<()> {
        let quantised = Encoding::Quantised { levels: 256, range: Range::SIGNED };
        let x = Tensor::new(&[-1f32, 1.0, -7.0, 7.0, 0.0, f32::INFINITY], &Device::Cpu)?;
        assert_eq!(quantised.quantise(&x)?.to_vec1::<u8>()?, [0, 255, 0, 255, 128, 255]);
        let nan = Tensor::new(&[[0f32, 0.0], [f32::NAN, 0.0]], &Device::Cpu)?;
        assert!(matches!(quantised.quantise(&nan), Err(Error::NonFinite { row: 1, column: 0, .. })));
        assert!(Encoding::Continuous.quantise(&x).is_err());
        assert!(Encoding::Quantised { levels: 0, range: Range::UNIT }.quantise(&x).is_err());
        Ok(())
    }

    #[test]
    fn offsets_differ_by_one_bit_between_the_ranges() {
        // A uniform density on the range is NLL = D ln(b − a): log2 L bits a dimension, whatever the range.
        for range in [Range::SIGNED, Range::UNIT] {
            let offset = Encoding::Dequantised { levels: 256, range }.bits_offset();
            assert_eq!(offset.map(|o| o + range.width().log2()), Some(8.0));
        }
        assert_eq!(Encoding::Quantised { levels: 256, range: Range::UNIT }.bits_offset(), None);
        assert_eq!(Encoding::Continuous.bits_offset(), None);
    }
}
