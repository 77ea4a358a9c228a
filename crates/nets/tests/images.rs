//! Operators of networks that look at images: kernels of any shape, the positive part taken on the way, pooling.

mod common;

use candle_core::{DType, Tensor};
use common::{check_first, distance, normal};
use sde_nets::ops::{self, Window};
use sde_nets::{Error, Result};

/// Sizes [B, C, O, H, W], kernels and windows as in Inception, at sizes that need bands of rows and groups of channels.
fn convolutions() -> Vec<([usize; 5], [usize; 2], Window)> {
    let window =
        |stride, [down, across]: [usize; 2]| Window { stride, padding: [down, down, across, across] };
    vec![
        ([2, 3, 5, 67, 61], [3, 3], window(2, [0, 0])),
        ([2, 80, 6, 17, 17], [1, 7], window(1, [0, 3])),
        ([2, 80, 6, 17, 17], [7, 1], window(1, [3, 0])),
        ([9, 4, 6, 8, 8], [1, 3], window(1, [0, 1])),
        ([9, 4, 6, 8, 8], [3, 1], window(1, [1, 0])),
        ([2, 24, 5, 35, 37], [5, 5], window(1, [2, 2])),
        ([1, 2, 3, 9, 150], [3, 3], window(1, [0, 0])),
        ([2, 17, 16, 43, 41], [3, 3], window(1, [0, 0])),
        ([2, 16, 18, 33, 35], [3, 3], window(1, [1, 1])),
        ([3, 5, 4, 9, 8], [1, 1], window(1, [0, 0])),
        ([2, 60, 4, 9, 9], [3, 3], window(2, [0, 0])),
        ([2, 3, 4, 40, 40], [3, 2], window(3, [1, 0])),
    ]
}

fn inputs(
    [batch, channels, filters, height, width]: [usize; 5],
    [kh, kw]: [usize; 2],
) -> Result<[Tensor; 3]> {
    let (x, w) = (normal(&[batch, channels, height, width], 1)?, normal(&[filters, channels, kh, kw], 2)?);
    Ok([x, w, normal(&[filters], 3)?])
}

#[test]
fn kernels_of_any_shape_agree_with_candles_own() -> Result<()> {
    for (sizes, kernel, window) in convolutions() {
        let [x, w, bias] = inputs(sizes, kernel)?;
        let [top, bottom, left, right] = window.padding;
        let padded = x.pad_with_zeros(2, top, bottom)?.pad_with_zeros(3, left, right)?;
        let expected = padded.conv2d(&w, 0, window.stride, 1, 1)?;
        let expected = expected.broadcast_add(&bias.reshape((1, (), 1, 1))?)?;
        let what = format!("{sizes:?} {kernel:?} {window:?}");
        assert!(distance(&ops::conv2d(&x, &w, Some(&bias), window)?, &expected)? < 1e-11, "{what}");
        let positive = ops::conv2d_relu(&x, &w, Some(&bias), window)?;
        assert!(distance(&positive, &expected.relu()?)? < 1e-11, "{what}");

        let [x, w, bias] = [&x, &w, &bias].map(|t| t.to_dtype(DType::F32));
        let single = ops::conv2d_relu(&x?, &w?, Some(&bias?), window)?;
        // Values of size up to 100.
        assert!(distance(&single, &expected.relu()?)? < 5e-4, "{what} in f32");
    }
    Ok(())
}

#[test]
fn a_sample_does_not_depend_on_its_batch() -> Result<()> {
    for (sizes, kernel, window) in convolutions() {
        let [x, w, bias] = inputs(sizes, kernel)?.map(|t| t.to_dtype(DType::F32));
        let (x, w, bias) = (x?, w?, bias?);
        let all = ops::conv2d_relu(&x, &w, Some(&bias), window)?;
        let last = x.dim(0)? - 1;
        let alone = ops::conv2d_relu(&x.narrow(0, last, 1)?, &w, Some(&bias), window)?;
        assert_eq!(distance(&alone, &all.narrow(0, last, 1)?)?, 0.0, "{sizes:?} {kernel:?} {window:?}");
    }
    Ok(())
}

#[test]
fn derivatives_pass_where_the_result_is_positive() -> Result<()> {
    let window = Window { stride: 1, padding: [1, 0, 0, 2] };
    for window in [
        Window::same(3),
        Window { stride: 2, padding: [0; 4] },
        Window { stride: 1, padding: [0; 4] },
        window,
    ] {
        let [x, w, bias] = inputs([2, 2, 3, 6, 5], [3, 3])?;
        let what = format!("positive part of a convolution {window:?}");
        check_first(&what, |i| ops::conv2d_relu(&i[0], &i[1], Some(&i[2]), window), &[x, w, bias])?;
    }
    Ok(())
}

/// By definition.
fn pooled(x: &Tensor, stride: usize, padding: usize, rule: impl Fn(&[f64]) -> f64) -> Result<Tensor> {
    let (batch, channels, height, width) = x.dims4()?;
    let out = |size: usize| (size + 2 * padding - 3) / stride + 1;
    let inside = |i: usize, size| (i * stride).saturating_sub(padding)..(i * stride + 3 - padding).min(size);
    let mut values = Vec::new();
    for plane in x.reshape((batch * channels, height, width))?.to_vec3::<f64>()? {
        for i in 0..out(height) {
            for j in 0..out(width) {
                let seen = plane[inside(i, height)].iter().flat_map(|row| &row[inside(j, width)]);
                values.push(rule(&seen.copied().collect::<Vec<_>>()));
            }
        }
    }
    Ok(Tensor::from_vec(values, (batch, channels, out(height), out(width)), x.device())?)
}

#[test]
fn pooling_is_that_of_the_definition() -> Result<()> {
    let largest = |seen: &[f64]| seen.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mean = |seen: &[f64]| seen.iter().sum::<f64>() / seen.len() as f64;
    for [height, width] in [[3, 3], [8, 8], [35, 34], [1, 5], [6, 1], [2, 2], [1, 1]] {
        let x = normal(&[2, 3, height, width], 5)?;
        for (stride, padded) in [(1, false), (2, false), (1, true), (2, true), (3, true)] {
            if !padded && height.min(width) < 3 {
                assert!(matches!(ops::max_pool_3x3(&x, stride, padded), Err(Error::Shape { .. })));
                continue;
            }
            let expected = pooled(&x, stride, usize::from(padded), largest)?;
            assert_eq!(distance(&ops::max_pool_3x3(&x, stride, padded)?, &expected)?, 0.0);
            // What is not f32 or f64 on a CPU is composed.
            let half = ops::max_pool_3x3(&x.to_dtype(DType::BF16)?, stride, padded)?;
            let expected = expected.to_dtype(DType::BF16)?.to_dtype(DType::F64)?;
            assert_eq!(distance(&half.to_dtype(DType::F64)?, &expected)?, 0.0);
        }
        let expected = pooled(&x, 1, 1, mean)?;
        assert!(distance(&ops::avg_pool_3x3(&x)?, &expected)? < 1e-14);
        check_first("mean", |i| ops::avg_pool_3x3(&i[0]), std::slice::from_ref(&x))?;
        let transposed = ops::avg_pool_3x3(&x.transpose(2, 3)?)?.transpose(2, 3)?;
        assert!(distance(&transposed, &expected)? < 1e-14);
    }
    let x = Tensor::new(&[[1f32, f32::NAN, 2.0], [0.0; 3], [0.0; 3]], &candle_core::Device::Cpu)?;
    assert!(
        ops::max_pool_3x3(&x.reshape((1, 1, 3, 3))?, 1, false)?.flatten_all()?.to_vec1::<f32>()?[0].is_nan()
    );
    Ok(())
}
