//! What an operator must do at least: operations of its arithmetic (a convolution's counted directly, whatever the algorithm), and bytes that
//! must move where there is little arithmetic.

use super::case::{Operator, Pass, Update};

const F32: f64 = 4.0;

/// The least work of one pass.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Work {
    /// Floating-point operations.
    Flops(f64),
    /// Bytes read and written.
    Bytes(f64),
}

impl Operator {
    /// The work of one pass over `batch` samples.
    pub fn work(&self, pass: Pass, batch: usize) -> Work {
        let b = batch as f64;
        let backward = pass == Pass::Backward;
        let values = |channels: usize, size: usize| b * (channels * size * size) as f64;
        // Arrays of one size read and written: forward, backward.
        let moved =
            |n: f64, [forward, back]: [f64; 2]| Work::Bytes(F32 * n * if backward { back } else { forward });
        match *self {
            Self::Conv { inputs, outputs, kernel, stride, size } => {
                let output = values(outputs, size / stride);
                Work::Flops(2.0 * output * (inputs * kernel * kernel) as f64)
            }
            Self::Attention { channels, size, .. } => {
                let products = if backward { 4.0 } else { 2.0 };
                Work::Flops(products * 2.0 * values(channels, size) * (size * size) as f64)
            }
            Self::Linear { inputs, outputs } => {
                let products = if backward { 2.0 } else { 1.0 };
                Work::Flops(products * 2.0 * b * (inputs * outputs) as f64)
            }
            Self::GroupNorm { channels, size, .. } | Self::Silu { channels, size } => {
                moved(values(channels, size), [2.0, 3.0])
            }
            Self::Softmax { positions } => moved(b * (positions * positions) as f64, [2.0, 3.0]),
            Self::Upsample { channels, size } => moved(values(channels, size), [5.0, 5.0]),
            Self::Dropout { channels, size } => moved(values(channels, size), [2.0, 2.0]),
            Self::Add { channels, size } => moved(values(channels, size), [3.0, 3.0]),
            Self::Concat { left, right, size } => moved(values(left + right, size), [2.0, 2.0]),
            Self::Rotation { size } => {
                // Six products of Taylor's polynomial and, for a norm of two, two squarings; thrice that of a jet, backward.
                let products = if backward { 24.0 } else { 8.0 };
                Work::Flops(products * 2.0 * (size as f64).powi(3))
            }
            Self::Update { what, ref sizes } => {
                let n = sizes.iter().sum::<usize>() as f64;
                // Adam reads parameter, gradient and two moments and writes three of them; an average reads two and writes one.
                Work::Bytes(F32 * n * if what == Update::Adam { 7.0 } else { 3.0 })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_convolution_counts_a_multiplication_and_an_addition_for_each_tap() {
        let conv = Operator::Conv { inputs: 3, outputs: 5, kernel: 3, stride: 2, size: 8 };
        assert_eq!(conv.work(Pass::Forward, 2), Work::Flops(2.0 * (2 * 5 * 16 * 3 * 9) as f64));
        assert_eq!(conv.work(Pass::WeightGradient, 2), conv.work(Pass::Forward, 2));
    }
}
