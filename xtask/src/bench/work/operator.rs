//! One operator, forward or backward. A backward pass is the tape's, from gradients of one.

use anyhow::{Result, bail};
use candle_core::{DType, Device, Tensor, Var};
use sde_core::noise::{BatchNoise, Noise};
use sde_nets::ops::{self, GroupNormArgs, Window};
use sde_nets::{Builder, Init, Params};
use sde_train::{Adam, AdamConfig, AdamKind, Ema, EmaConfig, EmaLaw, Gradients};

use super::{Plain, Work, normal};
use crate::bench::case::{Operator, Pass, Update};

/// An operator on tensors.
type Apply = Box<dyn Fn(&[Tensor]) -> Result<Tensor>>;

/// Makes an operator ready.
pub fn prepare(op: &Operator, pass: Pass, batch: usize, device: &Device) -> Result<Box<dyn Work>> {
    if let Operator::Update { what, sizes } = op {
        return update(*what, sizes, device);
    }
    let (inputs, apply) = parts(op, batch, device)?;
    // Which inputs want a gradient.
    let wanted = match pass {
        Pass::Forward => 0..0,
        Pass::Backward => 0..inputs.len(),
        Pass::InputGradient => 0..1,
        Pass::WeightGradient => 1..inputs.len(),
    };
    if pass == Pass::Forward {
        return Ok(Box::new(Plain(move || apply(&inputs).map(drop))));
    }
    let inputs = inputs
        .iter()
        .enumerate()
        .map(|(i, x)| {
            Ok(if wanted.contains(&i) { Var::from_tensor(x)?.as_tensor().clone() } else { x.clone() })
        })
        .collect::<Result<Vec<_>>>()?;
    let y = apply(&inputs)?;
    Ok(Box::new(Plain(move || Ok(y.backward().map(drop)?))))
}

/// The inputs, and the function of them.
fn parts(op: &Operator, batch: usize, device: &Device) -> Result<(Vec<Tensor>, Apply)> {
    let image = |seed, channels: usize, size: usize| normal(seed, batch, &[channels, size, size], device);
    Ok(match *op {
        Operator::Conv { inputs, outputs, kernel, stride, size } => {
            let window = if stride == 2 { Window::HALVE } else { Window::same(kernel) };
            let weight = normal(1, outputs, &[inputs, kernel, kernel], device)?;
            let tensors = vec![image(0, inputs, size)?, weight, normal(2, outputs, &[], device)?];
            (tensors, Box::new(move |t| Ok(ops::conv2d(&t[0], &t[1], Some(&t[2]), window)?)))
        }
        Operator::GroupNorm { channels, groups, silu, size } => {
            let args = GroupNormArgs { groups, epsilon: 1e-6, silu };
            let by_channel = |seed| normal(seed, channels, &[], device);
            let tensors = vec![image(0, channels, size)?, by_channel(1)?, by_channel(2)?];
            (tensors, Box::new(move |t| Ok(ops::group_norm(&t[0], &t[1], &t[2], args)?)))
        }
        Operator::Attention { channels, heads, size } => {
            let of = |seed| normal(seed, batch, &[channels, size * size], device);
            let tensors = vec![of(0)?, of(1)?, of(2)?];
            (tensors, Box::new(move |t| Ok(ops::attention(&t[0], &t[1], &t[2], heads)?)))
        }
        Operator::Softmax { positions } => {
            let scores = normal(0, batch, &[positions, positions], device)?;
            (vec![scores], Box::new(|t| Ok(ops::softmax(&t[0])?)))
        }
        Operator::Upsample { channels, size } => {
            (vec![image(0, channels, size)?], Box::new(|t| Ok(ops::upsample_nearest_2x(&t[0])?)))
        }
        Operator::Silu { channels, size } => {
            (vec![image(0, channels, size)?], Box::new(|t| Ok(ops::silu(&t[0])?)))
        }
        Operator::Dropout { channels, size } => {
            let noise = BatchNoise::new(Noise::new(1), 0, 0..batch as u32);
            (vec![image(0, channels, size)?], Box::new(move |t| Ok(ops::dropout(&t[0], 0.1, &noise, 0)?)))
        }
        Operator::Add { channels, size } => {
            let tensors = vec![image(0, channels, size)?, image(1, channels, size)?];
            (tensors, Box::new(|t| Ok((&t[0] + &t[1])?)))
        }
        Operator::Concat { left, right, size } => {
            let tensors = vec![image(0, left, size)?, image(1, right, size)?];
            (tensors, Box::new(|t| Ok(Tensor::cat(&[&t[0], &t[1]], 1)?)))
        }
        Operator::Linear { inputs, outputs } => {
            let weight = normal(1, outputs, &[inputs], device)?;
            let tensors =
                vec![normal(0, batch, &[inputs], device)?, weight, normal(2, outputs, &[], device)?];
            (tensors, Box::new(|t| Ok(ops::linear(&t[0], &t[1], &t[2])?)))
        }
        Operator::Rotation { size } => {
            let m = size * size.saturating_sub(1) / 2;
            let upper = (normal(0, 1, &[m], device)?.flatten_all()? / (size as f64).sqrt())?;
            (
                vec![upper.to_dtype(DType::F64)?],
                Box::new(move |t| Ok(ops::orthogonal_exponential(&t[0], size)?)),
            )
        }
        Operator::Update { .. } => bail!("an update has no inputs"),
    })
}

/// Adam's constants in the operators' bench; they do not change the time.
const ADAM: AdamConfig =
    AdamConfig { kind: AdamKind::Adam, lr: 2e-4, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 };

fn update(what: Update, sizes: &[usize], device: &Device) -> Result<Box<dyn Work>> {
    let build = |b: &Builder| {
        let get = |(i, &n): (usize, &usize)| b.get(&[n], &format!("p{i:04}"), Init::Normal { std: 1.0 });
        sizes.iter().enumerate().map(get).collect::<sde_nets::Result<Vec<_>>>()
    };
    let (_, params) = Params::initialise(Noise::new(0), DType::F32, device, build)?;
    if what == Update::Ema {
        let config = EmaConfig { name: "main".into(), law: EmaLaw::Constant { decay: 0.9999 } };
        let mut ema = Ema::new(config, &params)?;
        return Ok(Box::new(Plain(move || Ok(ema.update(&params, 1)?))));
    }
    let gradients: Gradients = params
        .iter()
        .map(|(name, var)| Ok((name.to_owned(), var.as_tensor().copy()?)))
        .collect::<Result<_>>()?;
    let mut adam = Adam::new(ADAM, &params)?;
    let mut n = 0;
    Ok(Box::new(Plain(move || {
        n += 1;
        Ok(adam.update(&params, &gradients, n, ADAM.lr)?)
    })))
}
