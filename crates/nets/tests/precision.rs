//! Products in bf16 with master weights, on the CPU: the operators against values rounded by hand, and a network's gradients
//! against those of f32.

mod common;

use candle_core::{DType, Device, Tensor, Var};
use common::normal;
use sde_core::noise::Noise;
use sde_core::{Model, Pass, Prediction};
use sde_nets::ops::{self, Products, Window};
use sde_nets::{Builder, NetConfig, Params, Result, Weights};

/// Unit roundoff of bf16: half an ulp of a number with 8 significant bits.
const ROUNDOFF: f64 = 1.0 / 256.0;

fn rounded(x: &Tensor) -> Result<Tensor> {
    Ok(x.to_dtype(DType::BF16)?.to_dtype(DType::F32)?)
}

fn single(shape: &[usize], seed: u64) -> Result<Tensor> {
    Ok(normal(shape, seed)?.to_dtype(DType::F32)?)
}

fn relative(a: &Tensor, b: &Tensor) -> Result<f64> {
    let (a, b) = (a.to_dtype(DType::F64)?, b.to_dtype(DType::F64)?);
    let norm = |t: &Tensor| -> Result<f64> { Ok(t.sqr()?.sum_all()?.to_scalar::<f64>()?.sqrt()) };
    Ok(norm(&(&a - &b)?)? / norm(&b)?)
}

#[test]
fn factors_and_results_are_rounded_and_nothing_else() -> Result<()> {
    let (x, w, bias) = (single(&[2, 3, 6, 5], 1)?, single(&[4, 3, 3, 3], 2)?, single(&[4], 3)?);
    let window = Window::same(3);
    let found = Products::Bf16.conv2d(&x, &w, Some(&bias), window)?;
    let expected = ops::conv2d(&rounded(&x)?, &rounded(&w)?, Some(&rounded(&bias)?), window)?;
    assert_eq!(found.flatten_all()?.to_vec1::<f32>()?, rounded(&expected)?.flatten_all()?.to_vec1::<f32>()?);
    let (a, b) = (single(&[3, 7], 4)?, single(&[7, 5], 5)?);
    let found = Products::Bf16.matmul(&a, &b)?;
    assert_eq!(found.to_vec2::<f32>()?, rounded(&rounded(&a)?.matmul(&rounded(&b)?)?)?.to_vec2::<f32>()?);
    let (w, bias) = (single(&[5, 7], 6)?, single(&[5], 7)?);
    let found = Products::Bf16.linear(&a, &w, &bias)?;
    let expected = rounded(&rounded(&a)?.matmul(&rounded(&w)?.t()?)?)?.broadcast_add(&bias)?;
    assert_eq!(found.to_vec2::<f32>()?, expected.to_vec2::<f32>()?);
    let (w, bias) = (single(&[4, 3, 3, 3], 2)?, single(&[4], 3)?);
    // With the network's own type these are the operators themselves.
    let same = Products::Full.conv2d(&x, &w, Some(&bias), window)?;
    let plain = ops::conv2d(&x, &w, Some(&bias), window)?;
    assert_eq!(same.flatten_all()?.to_vec1::<f32>()?, plain.flatten_all()?.to_vec1::<f32>()?);
    Ok(())
}

#[test]
fn attention_rounds_at_its_two_products() -> Result<()> {
    let [q, k, v] = [1, 2, 3].map(|seed| single(&[2, 8, 9], seed));
    let (q, k, v) = (q?, k?, v?);
    let full = ops::attention(&q, &k, &v, 2)?;
    let found = Products::Bf16.attention(&q, &k, &v, 2)?;
    // Scores of size √d · 1/√d = 1 are off by three roundings, weights by as much and one more, the result by two: less than
    // eight in all, and more than none.
    let error = relative(&found, &full)?;
    assert!(error > 1e-4 && error < 8.0 * ROUNDOFF, "{error:e}");
    assert_eq!(found.flatten_all()?.to_vec1::<f32>()?, rounded(&found)?.flatten_all()?.to_vec1::<f32>()?);
    assert!(Products::Bf16.attention(&q, &k, &v, 3).is_err());
    Ok(())
}

#[test]
fn gradients_are_rounded_where_they_pass_a_product_and_reach_the_master_weights() -> Result<()> {
    let (x, w, v) = (single(&[2, 3, 6, 6], 1)?, single(&[4, 3, 3, 3], 2)?, single(&[2, 4, 6, 6], 3)?);
    let (x, w) = (Var::from_tensor(&x)?, Var::from_tensor(&w)?);
    let window = Window::same(3);
    let gradients = |y: Tensor| -> Result<[Tensor; 2]> {
        let store = (y * &v)?.sum_all()?.backward()?;
        Ok([&x, &w].map(|var| store.get(var).expect("a gradient").clone()))
    };
    let found = gradients(Products::Bf16.conv2d(&x, &w, None, window)?)?;
    // The same by hand: the gradient is bilinear in the rounded factors.
    let (xr, wr) = (Var::from_tensor(&rounded(&x)?)?, Var::from_tensor(&rounded(&w)?)?);
    let store = (ops::conv2d(&xr, &wr, None, window)? * rounded(&v)?)?.sum_all()?.backward()?;
    for (found, var) in found.iter().zip([&xr, &wr]) {
        let expected = rounded(store.get(var).expect("a gradient"))?;
        assert_eq!(found.dtype(), DType::F32);
        assert_eq!(found.flatten_all()?.to_vec1::<f32>()?, expected.flatten_all()?.to_vec1::<f32>()?);
    }
    Ok(())
}

/// A U-Net with every layer there is, its weights of the size that training gives them.
fn unet(products: Products, weights: Option<&Weights>) -> Result<(Box<dyn Model + Send + Sync>, Params)> {
    let text = r#"
        kind = "unet"
        prediction = "noise"
        channels = 16
        multipliers = [1, 2]
        blocks = 1
        attention = [4]
        up_attention = "every_block"
        heads = 2
        dropout = 0.0
        resampling = "conv"
        groups = 4
        time = { kind = "sinusoidal", max_period = 10000.0, freq_shift = 0, flip_sin_to_cos = false, time_scale = 1000.0, time_shift = 0.0 }
    "#;
    let config: NetConfig = toml::from_str(text).expect("a configuration");
    let build = |b: &Builder| config.build(&b.with_products(products), &[3, 8, 8]);
    match weights {
        None => Params::initialise(Noise::new(1), DType::F32, &Device::Cpu, build),
        Some(weights) => Params::restore(weights, DType::F32, &Device::Cpu, build),
    }
}

#[test]
fn a_network_has_the_same_gradients_within_the_rounding_of_bf16() -> Result<()> {
    let weights: Weights = unet(Products::Full, None)?
        .1
        .to_weights()?
        .into_iter()
        .enumerate()
        .map(|(i, (name, w))| {
            let fan = w.elem_count() / w.dims()[0].max(1);
            let noise = (single(w.dims(), 10 + i as u64)? * (0.5 / (fan as f64).sqrt()))?;
            Ok((name, (w + noise)?))
        })
        .collect::<Result<_>>()?;
    let (x, t, v) = (
        single(&[4, 3, 8, 8], 1)?,
        Tensor::new(&[0.1f32, 0.4, 0.7, 1.0], &Device::Cpu)?,
        single(&[4, 3, 8, 8], 2)?,
    );
    let run = |products| -> Result<(Tensor, Vec<(String, Tensor)>)> {
        let (net, params) = unet(products, Some(&weights))?;
        assert_eq!(net.prediction(), Prediction::Noise);
        let y = net.forward(&x, &t, Pass::EVAL)?;
        let store = (&y * &v)?.sum_all()?.backward()?;
        let gradients = params.iter().map(|(name, var)| {
            assert_eq!(var.dtype(), DType::F32, "master weights");
            (name.to_owned(), store.get(var).expect("a gradient for every parameter").clone())
        });
        Ok((y, gradients.collect()))
    };
    let (full, full_gradients) = run(Products::Full)?;
    let (found, found_gradients) = run(Products::Bf16)?;
    assert_eq!(found.dtype(), DType::F32);
    // Each product rounds its two factors and its result, in norm by about ROUNDOFF / √3 each, independently; a path from input
    // to output passes some 20 products, and the errors add as squares: √60 · ROUNDOFF / √3 ≈ 4.5 ROUNDOFF = 1.7 %. A gradient
    // goes there and back. Sums over positions average it out; a factor of two is left for what does not.
    let error = relative(&found, &full)?;
    assert!(error > ROUNDOFF / 10.0, "nothing was rounded: {error:e}");
    assert!(error < 9.0 * ROUNDOFF, "output: {error:e}");
    let all = |gradients: &[(String, Tensor)]| -> Result<Tensor> {
        let flat = gradients.iter().map(|(_, g)| Ok(g.flatten_all()?)).collect::<Result<Vec<_>>>()?;
        Ok(Tensor::cat(&flat, 0)?)
    };
    let error = relative(&all(&found_gradients)?, &all(&full_gradients)?)?;
    assert!(error < 13.0 * ROUNDOFF, "gradients: {error:e}");
    Ok(())
}
