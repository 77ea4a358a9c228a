//! Derivatives against central differences, in f64, and parameters by recipe.
#![allow(dead_code, reason = "every test program uses a part")]

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor, Var};
use sde_core::noise::{BatchNoise, Law, Noise, Stream};
use sde_nets::Result;

/// Standard normals, other ones for each `seed`.
pub fn normal(shape: &[usize], seed: u64) -> Result<Tensor> {
    let noise = BatchNoise::new(Noise::new(seed), 0, [0]);
    let row = noise.tensor(Law::Normal, Stream::User, 0, shape, DType::F64, &Device::Cpu)?;
    Ok(row.squeeze(0)?)
}

/// Σ a b.
pub fn dot(a: &Tensor, b: &Tensor) -> Result<f64> {
    Ok((a * b)?.sum_all()?.to_scalar()?)
}

/// The largest difference of two tensors.
pub fn distance(a: &Tensor, b: &Tensor) -> Result<f64> {
    let (a, b) = (a.to_dtype(DType::F64)?, b.to_dtype(DType::F64)?);
    Ok((a - b)?.abs()?.flatten_all()?.max(0)?.to_scalar()?)
}

/// A function of several tensors.
pub trait Function: Fn(&[Tensor]) -> Result<Tensor> {}
impl<F: Fn(&[Tensor]) -> Result<Tensor>> Function for F {}

fn variables(inputs: &[Tensor]) -> Result<(Vec<Var>, Vec<Tensor>)> {
    let vars = inputs.iter().map(Var::from_tensor).collect::<candle_core::Result<Vec<_>>>()?;
    let tensors = vars.iter().map(|v| v.as_tensor().clone()).collect();
    Ok((vars, tensors))
}

/// The gradients of the scalar `loss` of `inputs`.
pub fn gradients(loss: impl Function, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
    let (vars, tensors) = variables(inputs)?;
    let store = loss(&tensors)?.backward()?;
    vars.iter()
        .enumerate()
        .map(|(i, var)| {
            let gradient = store.get(var.as_tensor()).unwrap_or_else(|| panic!("no gradient for input {i}"));
            Ok(gradient.clone())
        })
        .collect()
}

/// Σ_k f(inputs)_k v_k with fixed random v.
fn projected(f: &impl Function) -> impl Function + '_ {
    move |inputs| {
        let y = f(inputs)?;
        let v = normal(y.dims(), 1_000)?;
        Ok((y * v)?.sum_all()?)
    }
}

/// Checks the gradient of a scalar function along a random direction in each input.
fn check_scalar(what: &str, loss: impl Function, gradients: &[Tensor], inputs: &[Tensor]) -> Result<()> {
    const STEP: f64 = 1e-5;
    for (i, (input, gradient)) in inputs.iter().zip(gradients).enumerate() {
        let direction = normal(input.dims(), 2_000 + i as u64)?;
        let at = |step: f64| -> Result<f64> {
            let mut moved = inputs.to_vec();
            moved[i] = (input + (&direction * step)?)?;
            Ok(loss(&moved)?.to_scalar()?)
        };
        let difference = (at(STEP)? - at(-STEP)?) / (2.0 * STEP);
        let found = dot(gradient, &direction)?;
        // Rounding of the difference is about 1e-16 / 1e-5 of the values, truncation 1e-10 of third
        // derivatives.
        assert!(
            (found - difference).abs() < 1e-7 * (1.0 + difference.abs()),
            "{what}, input {i}: {found} by the tape, {difference} by differences"
        );
        assert!(found.abs() > 1e-6, "{what}, input {i}: the derivative vanishes and proves nothing");
    }
    Ok(())
}

/// Checks the first derivatives of `f` in every input.
pub fn check_first(what: &str, f: impl Function, inputs: &[Tensor]) -> Result<()> {
    let loss = projected(&f);
    check_scalar(what, &loss, &gradients(&loss, inputs)?, inputs)
}

/// Checks the second derivatives of `f` in every pair of inputs.
pub fn check_second(what: &str, f: impl Function, inputs: &[Tensor]) -> Result<()> {
    // ⟨∂L/∂x, u⟩ summed over the inputs: its gradient has every block of the Hessian.
    let slope = |inputs: &[Tensor]| -> Result<Tensor> {
        // Variables stay themselves, so the gradient flows to them.
        let (_, tensors) = variables(inputs)?;
        let store = projected(&f)(&tensors)?.backward()?;
        let mut sum = Tensor::zeros((), DType::F64, &Device::Cpu)?;
        for (i, input) in tensors.iter().enumerate() {
            let gradient = store.get(input).unwrap_or_else(|| panic!("no gradient for input {i}"));
            sum = (sum + (gradient * normal(input.dims(), 3_000 + i as u64)?)?.sum_all()?)?;
        }
        Ok(sum)
    };
    check_scalar(what, slope, &gradients(slope, inputs)?, inputs)
}

/// Parameters by the recipe of `golden/README.md`, in the order of their names.
pub fn by_recipe(shapes: &BTreeMap<String, Vec<usize>>, seed: u64) -> Result<Vec<(String, Tensor)>> {
    let tensor = |(k, (name, shape)): (usize, (&String, &Vec<usize>))| {
        let fan_in: usize = shape.iter().skip(1).product();
        let (offset, scale) = match shape.len() {
            1 if name.ends_with("frequencies") => (0.0, 0.5),
            1 if name.contains("norm") && name.ends_with("weight") => (1.0, 0.2),
            1 => (0.0, 0.1),
            _ => (0.0, (3.0 / fan_in as f64).sqrt()),
        };
        let value = |j: usize| f64::from((offset + scale * uniform(seed, k, j + 1)) as f32);
        let values: Vec<f64> = (0..shape.iter().product()).map(value).collect();
        Ok((name.clone(), Tensor::from_vec(values, shape.as_slice(), &Device::Cpu)?))
    };
    shapes.iter().enumerate().map(tensor).collect()
}

fn uniform(seed: u64, k: usize, j: usize) -> f64 {
    let position = ((k as u64) << 40).wrapping_add(j as u64);
    let mut z = seed.wrapping_add(position.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    (z >> 11) as f64 * 2f64.powi(-52) - 1.0
}
