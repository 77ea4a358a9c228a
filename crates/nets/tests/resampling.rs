//! Resampling behind the filter [1, 3, 3, 1]: against a plain convolution, against its adjoint, against differences.

mod common;

use candle_core::{DType, Tensor};
use common::{check_first, distance, dot, gradients, normal};
use sde_nets::{Error, Result, ops};

type Operator = fn(&Tensor) -> Result<Tensor>;

/// Operator, zeros between pixels, padding before and after, stride, sum of the filter along an axis.
type Case = (&'static str, Operator, bool, [usize; 2], usize, f64);
const OPERATORS: [Case; 3] = [
    ("up", ops::fir_up_2x, true, [2, 1], 1, 2.0),
    ("down", ops::fir_down_2x, false, [1, 1], 2, 1.0),
    ("blur", ops::fir_blur, false, [2, 2], 1, 1.0),
];

/// The published definition: zeros between pixels, zeros around, one convolution a channel.
fn by_convolution(x: &Tensor, spread: bool, padding: [usize; 2], stride: usize, sum: f64) -> Result<Tensor> {
    let mut z = x.clone();
    if spread {
        for axis in [2, 3] {
            let mut dims = z.dims().to_vec();
            dims[axis] *= 2;
            z = Tensor::stack(&[&z, &z.zeros_like()?], axis + 1)?.reshape(dims)?;
        }
    }
    for axis in [2, 3] {
        z = z.pad_with_zeros(axis, padding[0], padding[1])?;
    }
    let k = Tensor::new(&[1.0, 3.0, 3.0, 1.0], x.device())?.affine(sum / 8.0, 0.0)?;
    let channels = x.dim(1)?;
    let filter = k.unsqueeze(1)?.matmul(&k.unsqueeze(0)?)?.reshape((1, 1, 4, 4))?;
    Ok(z.conv2d(&filter.repeat((channels, 1, 1, 1))?, 0, stride, 1, channels)?)
}

#[test]
fn filters_are_plain_convolutions_of_each_channel() -> Result<()> {
    for shape in [[2, 3, 8, 6], [1, 2, 2, 4], [1, 1, 16, 16]] {
        let x = normal(&shape, 1)?;
        for (name, operator, spread, padding, stride, sum) in OPERATORS {
            let (found, expected) = (operator(&x)?, by_convolution(&x, spread, padding, stride, sum)?);
            assert_eq!(found.dims(), expected.dims(), "{name}");
            assert!(distance(&found, &expected)? < 1e-13, "{name} {shape:?}");
            // Where there is no kernel, Candle's operators compose the same function; f16 has 11 bits.
            let halves = operator(&x.to_dtype(DType::F16)?)?;
            assert!(distance(&halves, &expected)? < 2e-2, "{name} {shape:?} in half precision");
            let single = operator(&x.to_dtype(DType::F32)?)?;
            assert!(distance(&single, &expected)? < 4e-6, "{name} {shape:?} in single precision");
        }
    }
    Ok(())
}

#[test]
fn backward_is_the_adjoint_and_its_backward_the_operator() -> Result<()> {
    let x = normal(&[2, 3, 6, 4], 1)?;
    for (name, operator, ..) in OPERATORS {
        let y = operator(&x)?;
        let v = normal(y.dims(), 2)?;
        let adjoint = &gradients(|i| Ok((operator(&i[0])? * &v)?.sum_all()?), std::slice::from_ref(&x))?[0];
        let (left, right) = (dot(&y, &v)?, dot(&x, adjoint)?);
        assert!((left - right).abs() < 1e-12 * (1.0 + left.abs()), "{name}: {left} {right}");
        check_first(name, |i| Ok(operator(&i[0])?.sqr()?), std::slice::from_ref(&x))?;
    }
    // Down is a quarter of the adjoint of up: what the one loses in squares of four the other spreads.
    let small = normal(&[2, 3, 3, 2], 3)?;
    let (up, down) = (ops::fir_up_2x(&small)?, ops::fir_down_2x(&x)?);
    let (left, right) = (dot(&up, &x)?, 4.0 * dot(&small, &down)?);
    assert!((left - right).abs() < 1e-12 * (1.0 + left.abs()));
    Ok(())
}

#[test]
fn constants_pass_away_from_the_border_and_views_are_taken() -> Result<()> {
    let ones = Tensor::ones((1, 1, 16, 16), DType::F64, &candle_core::Device::Cpu)?;
    for (name, operator, ..) in OPERATORS {
        let y = operator(&ones)?;
        let inner = y.narrow(2, 2, y.dim(2)? - 4)?.narrow(3, 2, y.dim(3)? - 4)?;
        assert!(distance(&inner, &inner.ones_like()?)? < 1e-15, "{name}");
        let x = normal(&[2, 6, 8, 3], 4)?.permute((0, 3, 2, 1))?;
        assert_eq!(distance(&operator(&x)?, &operator(&x.contiguous()?)?)?, 0.0, "{name}");
    }
    assert!(matches!(ops::fir_down_2x(&normal(&[1, 1, 3, 4], 1)?), Err(Error::Shape { .. })));
    Ok(())
}
