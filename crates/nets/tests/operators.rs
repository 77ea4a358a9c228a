//! Every operator: its value against another formula, its first derivatives against differences.

mod common;

use candle_core::{DType, Device, Tensor};
use common::{check_first, distance, gradients, normal};
use sde_core::noise::{BatchNoise, Noise};
use sde_nets::ops::{self, GroupNormArgs, Window};
use sde_nets::{Error, Result};

/// Sizes [B, C, O, H, W, kernel] and windows that between them reach every path of the convolution.
fn convolutions() -> Vec<([usize; 6], Window)> {
    let window = |stride, padding| Window { stride, padding };
    vec![
        ([3, 2, 4, 8, 8, 3], Window::same(3)),
        ([2, 3, 2, 4, 4, 3], Window::same(3)),
        ([2, 1, 2, 16, 16, 3], Window::same(3)),
        ([2, 3, 2, 5, 7, 3], Window::same(3)),
        ([2, 2, 3, 8, 8, 3], Window::HALVE),
        ([2, 2, 3, 7, 5, 3], window(2, [1; 4])),
        ([2, 4, 3, 4, 6, 1], Window::same(1)),
        ([1, 2, 2, 6, 5, 2], window(3, [1, 2, 0, 1])),
        ([2, 2, 2, 5, 5, 3], window(1, [3, 0, 1, 4])),
        ([70, 2, 3, 4, 4, 3], Window::same(3)),
        ([2, 16, 17, 8, 12, 3], Window::same(3)),
        ([3, 2, 16, 8, 8, 3], Window::same(3)),
    ]
}

fn conv_inputs([batch, channels, filters, height, width, kernel]: [usize; 6]) -> Result<[Tensor; 3]> {
    Ok([
        normal(&[batch, channels, height, width], 1)?,
        normal(&[filters, channels, kernel, kernel], 2)?,
        normal(&[filters], 3)?,
    ])
}

#[test]
fn convolution_agrees_with_candles_own() -> Result<()> {
    for (sizes, window) in convolutions() {
        let [x, w, bias] = conv_inputs(sizes)?;
        let [top, bottom, left, right] = window.padding;
        let padded = x.pad_with_zeros(2, top, bottom)?.pad_with_zeros(3, left, right)?;
        let expected = padded.conv2d(&w, 0, window.stride, 1, 1)?;
        let expected = expected.broadcast_add(&bias.reshape((1, (), 1, 1))?)?;
        let found = ops::conv2d(&x, &w, Some(&bias), window)?;
        assert!(distance(&found, &expected)? < 1e-12, "{sizes:?} {window:?}");

        let [x, w, bias] = [&x, &w, &bias].map(|t| t.to_dtype(DType::F32));
        let single = ops::conv2d(&x?, &w?, Some(&bias?), window)?;
        // Values of size up to 40; in f32 the wide ones go by Winograd's algorithm.
        let tolerance = if sizes[1].min(sizes[2]) < 16 { 1e-5 } else { 2e-4 };
        assert!(distance(&single, &expected)? < tolerance, "{sizes:?} {window:?} in f32");
    }
    Ok(())
}

#[test]
fn convolution_first_derivatives() -> Result<()> {
    for (sizes, window) in convolutions() {
        let what = format!("convolution {sizes:?} {window:?}");
        check_first(&what, |i| ops::conv2d(&i[0], &i[1], Some(&i[2]), window), &conv_inputs(sizes)?)?;
    }
    let (sizes, window) = ([40, 2, 3, 8, 8, 3], Window::same(3));
    let [x, w, _] = conv_inputs(sizes)?;
    let bias_of_samples = normal(&[40, 3], 4)?;
    check_first(
        "bias of samples",
        |i| ops::conv2d(&i[0], &i[1], Some(&i[2]), window),
        &[x.clone(), w.clone(), bias_of_samples],
    )?;
    check_first("without bias", |i| ops::conv2d(&i[0], &i[1], None, window), &[x, w])
}

#[test]
fn convolution_refuses_what_does_not_fit() -> Result<()> {
    let [x, w, bias] = conv_inputs([2, 3, 4, 8, 8, 3])?;
    let same = Window::same(3);
    let refused = |x: &Tensor, w: &Tensor, b: &Tensor, window| ops::conv2d(x, w, Some(b), window).is_err();
    assert!(refused(&x, &w.narrow(1, 0, 2)?, &bias, same));
    assert!(refused(&x, &w, &bias.narrow(0, 0, 3)?, same));
    assert!(refused(&x, &w, &normal(&[3, 4], 0)?, same));
    assert!(refused(&x.narrow(2, 0, 2)?, &w, &bias, Window { stride: 1, padding: [0; 4] }));
    assert!(refused(&x, &w, &bias, Window { stride: 0, padding: [1; 4] }));
    assert!(refused(&x.get(0)?, &w, &bias, same));
    Ok(())
}

/// The definition, of Candle's operators.
fn group_norm_by_definition(i: &[Tensor], args: GroupNormArgs) -> Result<Tensor> {
    let grouped = i[0].reshape((i[0].dim(0)?, args.groups, ()))?;
    let centred = grouped.broadcast_sub(&grouped.mean_keepdim(2)?)?;
    let variance = centred.sqr()?.mean_keepdim(2)?;
    let normalised = centred.broadcast_div(&(variance + args.epsilon)?.sqrt()?)?.reshape(i[0].dims())?;
    let z = normalised.broadcast_mul(&i[1].reshape((1, (), 1, 1))?)?.broadcast_add(&i[2].reshape((
        1,
        (),
        1,
        1,
    ))?)?;
    Ok(if args.silu { z.silu()? } else { z })
}

#[test]
fn group_norm_value_and_first_derivatives() -> Result<()> {
    for (shape, groups) in [([3, 6, 5, 3], 2), ([2, 8, 4, 4], 8), ([2, 4, 3, 3], 1)] {
        for silu in [false, true] {
            let args = GroupNormArgs { groups, epsilon: 1e-3, silu };
            let inputs = [normal(&shape, 5)?, normal(&shape[1..2], 6)?, normal(&shape[1..2], 7)?];
            let f = |i: &[Tensor]| ops::group_norm(&i[0], &i[1], &i[2], args);
            let expected = group_norm_by_definition(&inputs, args)?;
            assert!(distance(&f(&inputs)?, &expected)? < 1e-13);
            check_first(&format!("group norm {shape:?} {args:?}"), f, &inputs)?;

            let single: Vec<Tensor> =
                inputs.iter().map(|t| t.to_dtype(DType::F32)).collect::<Result<_, _>>()?;
            assert!(distance(&f(&single)?, &expected)? < 2e-5);
        }
    }
    Ok(())
}

#[test]
fn group_norm_stands_a_large_mean() -> Result<()> {
    let args = GroupNormArgs { groups: 2, epsilon: 1e-6, silu: false };
    let (x, one, zero) =
        (normal(&[2, 4, 8, 8], 1)?, Tensor::ones(4, DType::F64, &Device::Cpu)?, normal(&[4], 2)?);
    let expected = ops::group_norm(&x, &one, &zero, args)?;
    let single = |t: &Tensor| t.to_dtype(DType::F32);
    let shifted = ops::group_norm(&single(&(x + 1e3)?)?, &single(&one)?, &single(&zero)?, args)?;
    // The input itself is rounded to 1e3 · 2⁻²⁴ = 6e-5.
    assert!(distance(&shifted, &expected)? < 5e-4);
    Ok(())
}

#[test]
fn pointwise_and_row_operators() -> Result<()> {
    let x = normal(&[3, 4, 5], 8)?;
    assert!(distance(&ops::silu(&x)?, &x.silu()?)? < 1e-14);
    check_first("silu", |i| ops::silu(&i[0]), std::slice::from_ref(&x))?;

    let softmax = ops::softmax(&x)?;
    let exponentials = x.exp()?;
    let expected = exponentials.broadcast_div(&exponentials.sum_keepdim(2)?)?;
    assert!(distance(&softmax, &expected)? < 1e-15);
    check_first("softmax", |i| ops::softmax(&i[0]), std::slice::from_ref(&x))?;
    let far = ops::softmax(&Tensor::new(&[[1e4f32, 0.0, -1e4]], &Device::Cpu)?)?;
    assert!(distance(&far, &Tensor::new(&[[1f32, 0.0, 0.0]], &Device::Cpu)?)? < 1e-30);
    let nan = ops::softmax(&Tensor::new(&[[0f32, f32::NAN, 1.0]], &Device::Cpu)?)?;
    assert!(nan.to_vec2::<f32>()?[0].iter().all(|v| v.is_nan()));
    Ok(())
}

#[test]
fn sinusoids_value_and_first_derivatives() -> Result<()> {
    let x = (normal(&[3, 5], 8)? * 20.0)?;
    let expected = Tensor::cat(&[x.sin()?, x.cos()?], 1)?;
    assert!(distance(&ops::sinusoids(&x)?, &expected)? < 1e-15);
    let single = x.to_dtype(DType::F32)?;
    let expected = single.to_dtype(DType::F64)?;
    let expected = Tensor::cat(&[expected.sin()?, expected.cos()?], 1)?;
    assert!(distance(&ops::sinusoids(&single)?, &expected)? < 1.2e-7);
    check_first("sinusoids", |i| ops::sinusoids(&i[0]), &[normal(&[3, 5], 8)?])
}

#[test]
fn linear_value_and_first_derivatives() -> Result<()> {
    for [rows, inputs, outputs] in [[3, 5, 2], [70, 3, 4], [130, 2, 1], [1, 6, 300]] {
        let inputs = [normal(&[rows, inputs], 1)?, normal(&[outputs, inputs], 2)?, normal(&[outputs], 3)?];
        let f = |i: &[Tensor]| ops::linear(&i[0], &i[1], &i[2]);
        let expected = inputs[0].matmul(&inputs[1].t()?)?.broadcast_add(&inputs[2])?;
        assert!(distance(&f(&inputs)?, &expected)? < 1e-13);
        check_first(&format!("linear, {rows} rows"), f, &inputs)?;
    }
    let (x, w) = (normal(&[3, 5], 1)?, normal(&[2, 5], 2)?);
    assert!(matches!(ops::linear(&x, &w, &normal(&[3], 3)?), Err(Error::Shape { .. })));
    assert!(matches!(ops::linear(&x, &w.t()?, &normal(&[5], 3)?), Err(Error::Shape { .. })));
    Ok(())
}

#[test]
fn a_row_of_a_linear_map_does_not_depend_on_the_number_of_rows() -> Result<()> {
    for (inputs, outputs) in
        [(2, 64), (130, 16), (16, 2), (128, 1), (128, 2), (64, 128), (96, 96), (128, 512), (900, 48)]
    {
        let single = |t: Tensor| t.to_dtype(DType::F32);
        let (x, w) = (single(normal(&[512, inputs], 1)?)?, single(normal(&[outputs, inputs], 2)?)?);
        let bias = single(normal(&[outputs], 3)?)?;
        let all = ops::linear(&x, &w, &bias)?;
        for rows in [1, 2, 3, 8, 17, 64, 65, 200, 300] {
            let part = ops::linear(&x.narrow(0, 0, rows)?, &w, &bias)?;
            let same = part.to_vec2::<f32>()? == all.narrow(0, 0, rows)?.to_vec2::<f32>()?;
            assert!(same, "{rows} rows of {inputs} times {outputs}");
        }
    }
    Ok(())
}

#[test]
fn attention_value_and_first_derivatives() -> Result<()> {
    let inputs = [normal(&[2, 6, 4], 1)?, normal(&[2, 6, 4], 2)?, normal(&[2, 6, 4], 3)?];
    for heads in [1, 3] {
        check_first(
            &format!("attention, {heads} heads"),
            |i| ops::attention(&i[0], &i[1], &i[2], heads),
            &inputs,
        )?;
    }
    // Some entries by the definition.
    let [q, k, v] = inputs.each_ref().map(|t| t.to_vec3::<f64>());
    let (q, k, v) = (q?, k?, v?);
    let found = ops::attention(&inputs[0], &inputs[1], &inputs[2], 3)?.to_vec3::<f64>()?;
    let (dim, positions) = (2, 4);
    for (b, c, n) in [(0, 0, 0), (1, 5, 3), (0, 2, 1)] {
        let head = c / dim * dim..c / dim * dim + dim;
        let score =
            |m: usize| head.clone().map(|d| q[b][d][n] * k[b][d][m]).sum::<f64>() / (dim as f64).sqrt();
        let total: f64 = (0..positions).map(|m| score(m).exp()).sum();
        let expected: f64 = (0..positions).map(|m| score(m).exp() / total * v[b][c][m]).sum();
        assert!((found[b][c][n] - expected).abs() < 1e-14);
    }
    assert!(matches!(ops::attention(&inputs[0], &inputs[1], &inputs[2], 4), Err(Error::Shape { .. })));
    Ok(())
}

#[test]
fn resampling_value_and_first_derivatives() -> Result<()> {
    let x = normal(&[2, 3, 4, 6], 1)?;
    assert_eq!(distance(&ops::upsample_nearest_2x(&x)?, &x.upsample_nearest2d(8, 12)?)?, 0.0);
    assert!(distance(&ops::avg_pool_2x(&x)?, &x.avg_pool2d(2)?)? < 1e-15);
    check_first("upsampling", |i| ops::upsample_nearest_2x(&i[0]), std::slice::from_ref(&x))?;
    check_first("pooling", |i| ops::avg_pool_2x(&i[0]), std::slice::from_ref(&x))?;
    assert!(matches!(ops::avg_pool_2x(&x.narrow(3, 0, 5)?), Err(Error::Shape { .. })));
    Ok(())
}

/// Candle's own upsampling loses the gradient of an input's other uses (it finds 16 here).
#[test]
fn upsampling_adds_to_a_gradient() -> Result<()> {
    let x = normal(&[1, 1, 2, 2], 1)?;
    let both = |i: &[Tensor]| Ok((ops::upsample_nearest_2x(&i[0])?.sum_all()? + (&i[0] * 3.0)?.sum_all()?)?);
    let gradient = &gradients(both, &[x])?[0];
    assert_eq!(gradient.sum_all()?.to_scalar::<f64>()?, 28.0);
    Ok(())
}

#[test]
fn inputs_need_not_be_contiguous() -> Result<()> {
    let wide = normal(&[2, 8, 8, 4], 1)?;
    let x = wide.permute((0, 3, 1, 2))?.narrow(2, 1, 6)?;
    let w = normal(&[3, 3, 4, 5], 2)?.permute((3, 2, 0, 1))?;
    let packed = (x.contiguous()?, w.contiguous()?);
    let same = Window::same(3);
    let pairs = [
        (ops::conv2d(&x, &w, None, same)?, ops::conv2d(&packed.0, &packed.1, None, same)?),
        (ops::silu(&x)?, ops::silu(&packed.0)?),
        (ops::softmax(&x)?, ops::softmax(&packed.0)?),
        (ops::upsample_nearest_2x(&x)?, ops::upsample_nearest_2x(&packed.0)?),
        (ops::avg_pool_2x(&x)?, ops::avg_pool_2x(&packed.0)?),
    ];
    for (strided, contiguous) in pairs {
        assert_eq!(distance(&strided, &contiguous)?, 0.0);
    }
    let args = GroupNormArgs { groups: 2, epsilon: 1e-5, silu: true };
    let f = |i: &[Tensor]| {
        let x = ops::conv2d(&i[0].permute((0, 3, 1, 2))?.narrow(2, 1, 6)?, &w, None, same)?;
        let x = Tensor::cat(&[&x, &x], 1)?.narrow(1, 2, 6)?.transpose(2, 3)?;
        let y = ops::group_norm(&x, &i[1], &i[2], args)?.transpose(2, 3)?;
        ops::softmax(&ops::avg_pool_2x(&ops::silu(&y)?)?.transpose(1, 2)?)
    };
    check_first("a chain of views", f, &[wide, normal(&[6], 3)?, normal(&[6], 4)?])
}

#[test]
fn a_sample_of_a_convolution_does_not_depend_on_its_batch() -> Result<()> {
    // Long sums over patches, and tiles.
    for (sizes, window) in
        [([33, 96, 48, 4, 4, 3], Window::same(3)), ([33, 32, 48, 8, 8, 3], Window::same(3))]
    {
        let [x, w, bias] = conv_inputs(sizes)?.map(|t| t.to_dtype(DType::F32));
        let (x, w, bias) = (x?, w?, bias?);
        let values = |x: &Tensor| -> Result<Vec<f32>> {
            Ok(ops::conv2d(x, &w, Some(&bias), window)?.flatten_all()?.to_vec1()?)
        };
        let all = values(&x)?;
        let one = all.len() / sizes[0];
        for (first, samples) in [(0, 1), (5, 1), (2, 4), (3, 30)] {
            let part = values(&x.narrow(0, first, samples)?)?;
            assert!(part == all[first * one..(first + samples) * one], "{sizes:?}: {samples} from {first}");
        }
    }
    Ok(())
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() -> Result<()> {
    // By patches, and by tiles.
    threads_change_nothing([70, 3, 8, 8, 8, 3])?;
    threads_change_nothing([5, 16, 16, 16, 16, 3])
}

fn threads_change_nothing(sizes: [usize; 6]) -> Result<()> {
    let [x, w, bias] = conv_inputs(sizes)?;
    let map = normal(&[300, sizes[4]], 6)?;
    let inputs =
        [x, w, bias, normal(&[sizes[2]], 5)?, map, normal(&[300], 7)?].map(|t| t.to_dtype(DType::F32));
    let inputs = inputs.into_iter().collect::<Result<Vec<_>, _>>()?;
    let args = GroupNormArgs { groups: 2, epsilon: 1e-5, silu: true };
    let run = || -> Result<Vec<Vec<f32>>> {
        let loss = |i: &[Tensor]| {
            let h = ops::conv2d(&i[0], &i[1], Some(&i[2]), Window::same(3))?;
            let h = ops::group_norm(&h, &i[3], &i[2], args)?;
            let rows = ops::softmax(&ops::silu(&h)?)?.reshape(((), sizes[4]))?;
            Ok(ops::linear(&rows, &i[4], &i[5])?.sqr()?.sum_all()?)
        };
        gradients(loss, &inputs)?.iter().map(|g| Ok(g.flatten_all()?.to_vec1()?)).collect()
    };
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.map(|pool| pool.install(run))
    };
    let (one, five) = (on(1).map_err(sde_core::Error::model)??, on(5).map_err(sde_core::Error::model)??);
    assert_eq!(one, five);
    Ok(())
}

#[test]
fn dropout_masks_belong_to_samples_and_layers() -> Result<()> {
    let noise = |ids: std::ops::Range<u32>| BatchNoise::new(Noise::new(9), 4, ids);
    let x = Tensor::ones((6, 3, 40), DType::F32, &Device::Cpu)?;
    let whole = ops::dropout(&x, 0.3, &noise(0..6), 2)?;
    let parts = [0..2, 2..5, 5..6].map(|ids: std::ops::Range<u32>| {
        ops::dropout(&x.narrow(0, ids.start as usize, ids.len())?, 0.3, &noise(ids), 2)
    });
    let parts = parts.into_iter().collect::<Result<Vec<_>>>()?;
    assert_eq!(distance(&whole, &Tensor::cat(&parts, 0)?)?, 0.0);
    assert!(distance(&whole, &ops::dropout(&x, 0.3, &noise(0..6), 3)?)? > 0.0);
    assert!(distance(&whole.get(0)?, &whole.get(1)?)? > 0.0);
    assert!(matches!(ops::dropout(&x, 0.3, &noise(0..5), 2), Err(Error::Shape { .. })));

    let some = |i: &[Tensor]| Ok(ops::dropout(&i[0], 0.3, &noise(0..6), 2)?.sqr()?);
    check_first("dropout", some, &[normal(&[6, 3, 4], 1)?])?;
    let halves = ops::dropout(&x.to_dtype(DType::F16)?, 0.3, &noise(0..6), 2)?;
    assert!(distance(&halves, &whole)? < 1e-3);

    let values: Vec<f32> = whole.flatten_all()?.to_vec1()?;
    let n = values.len() as f64;
    let kept = values.iter().filter(|&&v| v > 0.0).count() as f64 / n;
    // Binomial standard error.
    assert!((kept - 0.7).abs() < 5.0 * (0.7 * 0.3 / n).sqrt(), "{kept}");
    assert!(values.iter().all(|&v| v == 0.0 || (v - 1.0 / 0.7).abs() < 1e-6));
    Ok(())
}

/// Where there is no kernel for a type, Candle's operators make the same function.
#[test]
fn half_precision_composes_the_same_functions() -> Result<()> {
    let [x, w, bias] = conv_inputs([2, 4, 4, 4, 4, 3])?;
    let half = |t: &Tensor| t.to_dtype(DType::F16);
    let args = GroupNormArgs { groups: 2, epsilon: 1e-5, silu: true };
    let norm = |x: &Tensor, b: &Tensor| ops::group_norm(x, b, b, args);
    let halves = (half(&x)?, half(&w)?, half(&bias)?);
    for window in [Window::same(3), Window::HALVE] {
        let expected = ops::conv2d(&x, &w, Some(&bias), window)?;
        let found = ops::conv2d(&halves.0, &halves.1, Some(&halves.2), window)?;
        // Values of size up to 15 with 11 bits.
        assert!(distance(&found, &expected)? < 0.03);
    }
    assert!(distance(&norm(&halves.0, &halves.2)?, &norm(&x, &bias)?)? < 0.02);
    assert!(distance(&ops::softmax(&halves.0)?, &ops::softmax(&x)?)? < 3e-3);
    assert!(distance(&ops::silu(&halves.0)?, &ops::silu(&x)?)? < 5e-3);
    assert!(distance(&ops::upsample_nearest_2x(&halves.0)?, &ops::upsample_nearest_2x(&x)?)? < 3e-3);
    assert!(distance(&ops::avg_pool_2x(&halves.0)?, &ops::avg_pool_2x(&x)?)? < 3e-3);
    Ok(())
}
