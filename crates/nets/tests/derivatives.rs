//! Derivatives by the tape against differences and closed forms, to third order through every fast operator.
//!
//! What needs gradients of gradients runs itself again in a process that keeps them.

mod common;

use candle_core::{DType, Device, Tensor, Var};
use common::{distance, dot, normal};
use sde_core::noise::Noise;
use sde_core::{Model, Pass};
use sde_nets::derivatives::{Differences, Taped, hessian_vector, per_sample};
use sde_nets::ops::{self, GroupNormArgs, Window};
use sde_nets::{
    Builder, Error, Params, Resampling, Result, TimeFeatures, Unet, UnetConfig, Weights, backward,
};

const SWITCH: &str = "CANDLE_GRAD_DO_NOT_DETACH";

/// Runs the test `name` with gradients of gradients kept; true in the process that has them.
fn nested(name: &str) -> bool {
    if std::env::var_os(SWITCH).is_some() {
        return true;
    }
    let program = std::env::current_exe().expect("a running test has a program");
    let output = std::process::Command::new(program)
        .args([name, "--exact"])
        .env(SWITCH, "1")
        .output()
        .expect("the test's program can be started");
    let talk = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && talk.contains("1 passed"), "{talk}");
    false
}

/// f(x) = tanh(x A) ⊙ x, of which everything is known.
fn f(x: &Tensor) -> Result<Tensor> {
    Ok((x.matmul(&normal(&[3, 3], 7)?)?.tanh()? * x)?)
}

fn axes(like: &Tensor) -> Result<Vec<Tensor>> {
    let identity = Tensor::eye(like.dim(1)?, DType::F64, &Device::Cpu)?;
    (0..like.dim(1)?)
        .map(|i| Ok(identity.get(i)?.unsqueeze(0)?.broadcast_as(like.dims())?.contiguous()?))
        .collect()
}

#[test]
fn without_the_switch_there_is_an_error_and_no_number() -> Result<()> {
    if std::env::var_os(SWITCH).is_some() {
        return Ok(());
    }
    let x = normal(&[2, 3], 1)?;
    let taped = Taped::new(f, &x)?;
    let scalars = per_sample(taped.value())?;
    let refused = [
        taped.jvp(&x).err(),
        taped.trace([(&x, &x)]).err(),
        taped.gradient(&scalars).err(),
        hessian_vector(|x| per_sample(&f(x)?), &x, &x).err(),
    ];
    for error in refused {
        assert!(matches!(error, Some(Error::NotTaped { .. })), "{error:?}");
        assert!(error.is_some_and(|e| e.to_string().contains(SWITCH)));
    }
    // First order is right either way.
    let v = normal(&[2, 3], 2)?;
    let jet = Differences { steps: &[1e-5; 2], along: &axes(&x)?, mixed: &[] }.jet(f, &x)?;
    let columns: Vec<Tensor> =
        jet.first.iter().map(|column| per_sample(&(column * &v)?)).collect::<Result<_>>()?;
    assert!(distance(&taped.vjp(&v)?, &Tensor::stack(&columns, 1)?)? < 1e-9);
    Ok(())
}

#[test]
fn second_differences_in_f32_do_not_see_the_slope() -> Result<()> {
    // A steep line with a small bend: 1e3 x + x²/2, at states where x ± h would be rounded to different distances.
    let x = (normal(&[64, 3], 1)? * 0.7)?.to_dtype(DType::F32)?;
    let along: Vec<Tensor> =
        axes(&normal(&[64, 3], 1)?)?.iter().map(|a| a.to_dtype(DType::F32)).collect::<Result<_, _>>()?;
    let h = 3e-4;
    let jet = Differences { steps: &[h; 64], along: &along, mixed: &[(0, 0)] }.jet(
        // In f64 inside, so that nothing but the states is rounded.
        |x| -> Result<Tensor> {
            let x = x.to_dtype(DType::F64)?;
            Ok(((&x * 1e3)? + (x.sqr()? * 0.5)?)?)
        },
        &x,
    )?;
    let bent = jet.second[0].narrow(1, 0, 1)?;
    let off = (bent - 1.0)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f64>()?;
    // Without the grid the states' rounding of 3e-8 makes 1e3 · 3e-8 / h² = 300 of it.
    assert!(off < 1e-3, "{off}");
    Ok(())
}

#[test]
fn every_derivative_agrees_with_differences() -> Result<()> {
    if !nested("every_derivative_agrees_with_differences") {
        return Ok(());
    }
    let (x, v) = (normal(&[4, 3], 1)?, normal(&[4, 3], 2)?);
    let axes = axes(&x)?;
    let taped = Taped::new(f, &x)?;
    let steps = [1e-4; 4];
    let along = Differences { steps: &steps, along: std::slice::from_ref(&v), mixed: &[] };
    assert_eq!(along.evaluations(), 3);
    assert!(distance(&taped.jvp(&v)?, &along.jet(f, &x)?.first[0])? < 1e-7);

    let divergence = taped.trace(axes.iter().map(|a| (a, a)))?;
    let pairs: Vec<(usize, usize)> = (0..3).flat_map(|i| (i..3).map(move |j| (i, j))).collect();
    let whole = Differences { steps: &steps, along: &axes, mixed: &pairs };
    assert_eq!(whole.evaluations(), 13);
    let jet = whole.jet(f, &x)?;
    let column = |t: &Tensor, i: usize| -> Result<Tensor> { Ok(t.narrow(1, i, 1)?.squeeze(1)?) };
    let mut trace = divergence.zeros_like()?;
    for i in 0..3 {
        trace = (trace + column(&jet.first[i], i)?)?;
    }
    assert!(distance(&divergence, &trace)? < 1e-7);
    // ∂_k ∇·f = Σ_i (∂_k∂_i f)_i.
    let gradient = taped.gradient(&divergence)?;
    for k in 0..3 {
        let mut sum = trace.zeros_like()?;
        for i in 0..3 {
            let place = pairs.iter().position(|&p| p == (i.min(k), i.max(k))).expect("all pairs are there");
            sum = (sum + column(&jet.second[place], i)?)?;
        }
        // Rounding of a second difference is 1e-16 / h², truncation h².
        assert!(distance(&column(&gradient, k)?, &sum)? < 1e-6);
    }
    let potential = |x: &Tensor| per_sample(&f(x)?.sqr()?);
    let product = hessian_vector(potential, &x, &v)?;
    let slope = |x: &Tensor| -> Result<Tensor> {
        let taped = Taped::new(potential, x)?;
        taped.gradient(taped.value())
    };
    assert!(distance(&product, &along.jet(slope, &x)?.first[0])? < 1e-6);
    Ok(())
}

/// What a network's second derivatives make of its parameters: ‖∇(∇·f)‖², estimated by a probe, whose gradient is of third order.
fn roughness(f: impl Fn(&Tensor) -> Result<Tensor>, x: &Tensor) -> Result<Tensor> {
    let probe = normal(x.dims(), 40)?;
    let taped = Taped::new(f, x)?;
    let bent = taped.gradient(&taped.trace([(&probe, &probe)])?)?;
    Ok((bent.sqr()?.sum_all()? + taped.value().sqr()?.sum_all()?)?)
}

/// Checks the gradient of [`roughness`] by the parameters `inputs` against differences of order four.
fn check_third(
    what: &str,
    f: impl Fn(&Tensor, &[Tensor]) -> Result<Tensor>,
    x: &Tensor,
    inputs: &[Tensor],
) -> Result<()> {
    let vars = inputs.iter().map(Var::from_tensor).collect::<candle_core::Result<Vec<_>>>()?;
    let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let store = backward(&roughness(|x| f(x, &tensors), x)?)?;
    for (i, var) in vars.iter().enumerate() {
        let direction = normal(inputs[i].dims(), 50 + i as u64)?;
        let at = |step: f64| -> Result<f64> {
            let mut moved = inputs.to_vec();
            moved[i] = (&inputs[i] + (&direction * step)?)?;
            Ok(roughness(|x| f(x, &moved), x)?.to_scalar()?)
        };
        let h = 1e-3;
        let difference = (8.0 * (at(h)? - at(-h)?) - (at(2.0 * h)? - at(-2.0 * h)?)) / (12.0 * h);
        let gradient =
            store.get(var.as_tensor()).unwrap_or_else(|| panic!("{what}: no gradient for input {i}"));
        let found = dot(gradient, &direction)?;
        assert!(found.abs() > 1e-6, "{what}, input {i}: the derivative vanishes and proves nothing");
        assert!(
            (found - difference).abs() < 1e-6 * difference.abs().max(1.0),
            "{what}, input {i}: {found}, not {difference}"
        );
    }
    Ok(())
}

#[test]
fn third_derivatives_of_operators() -> Result<()> {
    if !nested("third_derivatives_of_operators") {
        return Ok(());
    }
    let x = normal(&[2, 4, 4, 4], 1)?;
    let kernel = normal(&[4, 4, 3, 3], 2)?;
    for window in [Window::same(3), Window::HALVE] {
        check_third(
            "convolution",
            |x, p| ops::silu(&ops::conv2d(x, &p[0], Some(&p[1]), window)?).and_then(|y| up(&y, x)),
            &x,
            &[(&kernel * 0.3)?, normal(&[4], 3)?],
        )?;
    }
    for silu in [false, true] {
        let args = GroupNormArgs { groups: 2, epsilon: 1e-2, silu };
        check_third(
            "normalisation",
            |x, p| ops::group_norm(x, &p[0], &p[1], args),
            &x,
            &[normal(&[4], 4)?, normal(&[4], 5)?],
        )?;
    }
    let scaled = |x: &Tensor, p: &[Tensor]| -> Result<Tensor> { Ok(x.broadcast_mul(&p[0])?) };
    let p = [normal(&[4, 1, 1], 6)?];
    check_third("softmax", |x, p| ops::softmax(&scaled(x, p)?), &x, &p)?;
    check_third(
        "sinusoids",
        |x, p| Ok(ops::sinusoids(&scaled(x, p)?)?.narrow(3, 0, 4)?.contiguous()?),
        &x,
        &p,
    )?;
    check_third(
        "up and down",
        |x, p| ops::avg_pool_2x(&ops::silu(&ops::upsample_nearest_2x(&scaled(x, p)?)?)?),
        &x,
        &p,
    )?;
    check_third("filters", |x, p| ops::fir_down_2x(&ops::silu(&ops::fir_up_2x(&scaled(x, p)?)?)?), &x, &p)?;
    // A blur makes one row and one column more.
    let blur = |x: &Tensor, p: &[Tensor]| -> Result<Tensor> {
        Ok(ops::silu(&ops::fir_blur(&scaled(x, p)?)?)?.narrow(2, 0, 4)?.narrow(3, 0, 4)?.contiguous()?)
    };
    check_third("blur", blur, &x, &p)?;
    let attend = |x: &Tensor, p: &[Tensor]| -> Result<Tensor> {
        let flat = x.reshape((2, 4, 16))?;
        let keys = flat.broadcast_mul(&p[0].reshape((4, 1))?)?;
        Ok(ops::attention(&keys, &flat, &keys, 2)?.reshape((2, 4, 4, 4))?)
    };
    check_third("attention", attend, &(&x * 0.5)?, &p)?;
    let map = |x: &Tensor, p: &[Tensor]| -> Result<Tensor> {
        ops::linear(&ops::silu(&ops::linear(x, &p[0], &p[1])?)?, &p[2], &p[3])
    };
    let maps = [normal(&[5, 3], 7)?, normal(&[5], 8)?, normal(&[3, 5], 9)?, normal(&[3], 10)?];
    // A bias behind everything has no second derivative, but a value.
    check_third("linear", map, &normal(&[4, 3], 11)?, &maps)
}

/// A smaller image brought to the size of `like`.
fn up(y: &Tensor, like: &Tensor) -> Result<Tensor> {
    if y.dims() == like.dims() { Ok(y.clone()) } else { ops::upsample_nearest_2x(y) }
}

#[test]
fn third_derivatives_of_a_network() -> Result<()> {
    if !nested("third_derivatives_of_a_network") {
        return Ok(());
    }
    let plain = UnetConfig {
        channels: 4,
        multipliers: vec![1, 2],
        blocks: 1,
        attention: vec![2],
        heads: 2,
        dropout: 0.0,
        groups: Some(2),
        time: TimeFeatures::Fourier { std: 0.3, log: false, time_scale: 1.0, time_shift: 0.0 },
        ..UnetConfig::ho_ddpm()
    };
    let filtered = UnetConfig {
        resampling: Resampling::BlockFir,
        pyramid: true,
        rescale: true,
        scale_shift: true,
        ..plain.clone()
    };
    for config in [plain, filtered] {
        let build = |b: &Builder| Unet::new(b, &config, &[1, 4, 4]);
        let (net, params) = Params::initialise(Noise::new(1), DType::F64, &Device::Cpu, build)?;
        // Weights of the size that training gives them, also where they start as nothing.
        let weights: Weights = params
            .to_weights()?
            .into_iter()
            .enumerate()
            .map(|(i, (name, w))| Ok((name, (&w + (normal(w.dims(), i as u64)? * 0.3)?)?)))
            .collect::<Result<_>>()?;
        params.load(&weights)?;
        let (x, t) = (normal(&[2, 1, 4, 4], 1)?, normal(&[2], 2)?);
        let value = |net: &Unet| roughness(|x| Ok(net.forward(x, &t, Pass::EVAL)?), &x);
        let store = backward(&value(&net)?)?;
        // One random direction through all parameters together.
        let direction =
            |i: usize, w: &Tensor| -> Result<Tensor> { Ok((normal(w.dims(), 900 + i as u64)? * 0.1)?) };
        let names: Vec<&str> = params.iter().map(|(name, _)| name).collect();
        let mut found = 0.0;
        for (i, (_, var)) in params.iter().enumerate() {
            found += dot(store.get(var.as_tensor()).expect("a gradient"), &direction(i, var)?)?;
        }
        let at = |step: f64| -> Result<f64> {
            let moved = weights.iter().map(|(name, w)| match names.iter().position(|n| *n == name) {
                Some(i) => Ok((name.to_owned(), (w + (direction(i, w)? * step)?)?)),
                None => Ok((name.to_owned(), w.clone())),
            });
            let net = moved.collect::<Result<Weights>>()?.freeze(DType::F64, &Device::Cpu, build)?;
            Ok(value(&net)?.to_scalar()?)
        };
        let h = 2e-4;
        let difference = (8.0 * (at(h)? - at(-h)?) - (at(2.0 * h)? - at(-2.0 * h)?)) / (12.0 * h);
        assert!((found / difference - 1.0).abs() < 1e-6, "{found}, not {difference}");
    }
    Ok(())
}
