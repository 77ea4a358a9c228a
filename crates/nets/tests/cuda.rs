//! Every operator and its derivatives on CUDA against the CPU, and a whole network.
//!
//! Where there is no CUDA device the tests say so and pass. Second derivatives need a process with an environment variable that
//! Candle reads; each test of them runs itself again in one.
#![cfg(feature = "cuda")]
#![allow(clippy::print_stdout, reason = "a test that is skipped says why")]

mod common;

use candle_core::{DType, Device, Tensor, Var};
use common::normal;
use sde_core::noise::Noise;
use sde_core::{DeviceName, Model, Pass};
use sde_nets::ops::{self, GroupNormArgs, Products, Window};
use sde_nets::{Builder, NetConfig, Params, Result, Weights};

const SWITCH: &str = "CANDLE_GRAD_DO_NOT_DETACH";

/// The first CUDA device, or a line that says why there is none.
fn device() -> Option<Device> {
    match DeviceName::Cuda(0).open() {
        Ok(opened) => Some(opened.device),
        Err(error) => {
            println!("skipped: {error}");
            None
        }
    }
}

/// The CPU, against which every comparison must hold as well, and CUDA where there is one.
fn devices() -> Vec<Device> {
    [Some(Device::Cpu), device()].into_iter().flatten().collect()
}

type Operator = Box<dyn Fn(&[Tensor]) -> Result<Tensor>>;

/// An operator under a name, with its inputs on the CPU in f64.
struct Case {
    name: String,
    operator: Operator,
    inputs: Vec<Tensor>,
}

fn case(
    name: impl Into<String>,
    inputs: impl IntoIterator<Item = Result<Tensor>>,
    operator: impl Fn(&[Tensor]) -> Result<Tensor> + 'static,
) -> Result<Case> {
    let inputs = inputs.into_iter().collect::<Result<_>>()?;
    Ok(Case { name: name.into(), operator: Box::new(operator), inputs })
}

fn cases() -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    let window = |stride, padding| Window { stride, padding };
    for (sizes, window) in [
        ([3, 2, 4, 8, 8, 3], Window::same(3)),
        // Channels that are multiples of 8: channels last in bf16.
        ([2, 16, 8, 8, 8, 3], Window::same(3)),
        ([2, 3, 2, 5, 7, 3], Window::same(3)),
        ([2, 8, 16, 8, 8, 3], Window::HALVE),
        ([2, 2, 3, 7, 5, 3], window(2, [1; 4])),
        ([2, 4, 3, 4, 6, 1], Window::same(1)),
        ([1, 2, 2, 6, 5, 2], window(3, [1, 2, 0, 1])),
        ([2, 2, 2, 5, 5, 3], window(1, [3, 0, 1, 4])),
    ] {
        let [batch, channels, filters, height, width, kernel] = sizes;
        let name = format!("convolution {sizes:?} {window:?}");
        let x = || normal(&[batch, channels, height, width], 1);
        let w = || normal(&[filters, channels, kernel, kernel], 2);
        cases.push(case(&name, [x(), w(), normal(&[filters], 3)], move |i| {
            ops::conv2d(&i[0], &i[1], Some(&i[2]), window)
        })?);
        cases.push(case(
            format!("{name}, bias of samples"),
            [x(), w(), normal(&[batch, filters], 3)],
            move |i| ops::conv2d(&i[0], &i[1], Some(&i[2]), window),
        )?);
        cases.push(case(format!("{name}, no bias"), [x(), w()], move |i| {
            ops::conv2d(&i[0], &i[1], None, window)
        })?);
    }
    for silu in [false, true] {
        for (shape, groups) in [([2, 8, 5, 7], 2), ([3, 24, 4, 4], 2), ([2, 64, 8, 8], 32)] {
            let args = GroupNormArgs { groups, epsilon: 1e-3, silu };
            let parts = [normal(&shape, 1), normal(&[shape[1]], 2), normal(&[shape[1]], 3)];
            cases.push(case(format!("{args:?} {shape:?}"), parts, move |i| {
                ops::group_norm(&i[0], &i[1], &i[2], args)
            })?);
        }
    }
    let image = || [normal(&[2, 3, 4, 6], 1)];
    cases.push(case("SiLU", image(), |i| ops::silu(&i[0]))?);
    cases.push(case("softmax", [normal(&[5, 100], 1)], |i| ops::softmax(&i[0]))?);
    cases.push(case("upsampling", image(), |i| Ok(ops::upsample_nearest_2x(&i[0].sqr()?)?.sqr()?))?);
    cases.push(case("pooling", image(), |i| Ok(ops::avg_pool_2x(&i[0].sqr()?)?.sqr()?))?);
    let triple = || [1, 2, 3].map(|seed| normal(&[2, 6, 9], seed));
    cases.push(case("attention", triple(), |i| ops::attention(&i[0], &i[1], &i[2], 2))?);
    // Not contiguous.
    cases.push(case("transposed SiLU", image(), |i| ops::silu(&i[0].transpose(2, 3)?))?);
    Ok(cases)
}

/// Value and gradients of Σ f v, v fixed, on a device in a type; on the CPU in f64.
fn first(case: &Case, device: &Device, dtype: DType) -> Result<Vec<Tensor>> {
    let vars = variables(case, device, dtype)?;
    let y = (case.operator)(&tensors(&vars))?;
    let v = normal(y.dims(), 100)?.to_dtype(dtype)?.to_device(device)?;
    let store = (&y * v)?.sum_all()?.backward()?;
    let mut found = vec![home(&y)?];
    for (i, var) in vars.iter().enumerate() {
        let gradient = store.get(var).unwrap_or_else(|| panic!("{}: no gradient for input {i}", case.name));
        found.push(home(gradient)?);
    }
    Ok(found)
}

/// The gradients of Σ ⟨∂/∂xᵢ Σ f² v, uᵢ⟩.
fn second(case: &Case, device: &Device, dtype: DType) -> Result<Vec<Tensor>> {
    let vars = variables(case, device, dtype)?;
    let y = (case.operator)(&tensors(&vars))?.sqr()?;
    let fixed = |dims: &[usize], seed| -> Result<Tensor> {
        Ok(normal(dims, seed)?.to_dtype(dtype)?.to_device(device)?)
    };
    let store = (&y * fixed(y.dims(), 100)?)?.sum_all()?.backward()?;
    let mut sum = Tensor::zeros((), dtype, device)?;
    for (i, var) in vars.iter().enumerate() {
        let gradient = store.get(var).unwrap_or_else(|| panic!("{}: no gradient for input {i}", case.name));
        sum = (sum + (gradient * fixed(var.dims(), 200 + i as u64)?)?.sum_all()?)?;
    }
    let store = sum.backward()?;
    vars.iter()
        .map(|var| home(store.get(var).unwrap_or_else(|| panic!("{}: a second gradient", case.name))))
        .collect()
}

fn variables(case: &Case, device: &Device, dtype: DType) -> Result<Vec<Var>> {
    case.inputs.iter().map(|x| Ok(Var::from_tensor(&x.to_dtype(dtype)?.to_device(device)?)?)).collect()
}

fn tensors(vars: &[Var]) -> Vec<Tensor> {
    vars.iter().map(|var| var.as_tensor().clone()).collect()
}

fn home(x: &Tensor) -> Result<Tensor> {
    Ok(x.to_device(&Device::Cpu)?.to_dtype(DType::F64)?)
}

fn agree(what: &str, found: &[Tensor], expected: &[Tensor], tolerance: f64) -> Result<()> {
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(found.dims(), expected.dims(), "{what}, part {i}");
        let scale = expected.abs()?.flatten_all()?.max(0)?.to_scalar::<f64>()?;
        let error = common::distance(found, expected)? / scale;
        assert!(error <= tolerance, "{what}, part {i}: {error:e}");
    }
    Ok(())
}

#[test]
fn operators_and_their_first_derivatives() -> Result<()> {
    let devices = devices();
    for (case, device) in cases()?.iter().flat_map(|case| devices.iter().map(move |device| (case, device))) {
        let expected = first(case, &Device::Cpu, DType::F64)?;
        // Some hundred operations, each rounded to 2⁻⁵³ or 2⁻²⁴; cuDNN may take Winograd's algorithm.
        for (dtype, tolerance) in [(DType::F64, 1e-11), (DType::F32, 5e-5)] {
            agree(
                &format!("{} in {dtype:?}", case.name),
                &first(case, device, dtype)?,
                &expected,
                tolerance,
            )?;
        }
    }
    Ok(())
}

#[test]
fn operators_in_bf16() -> Result<()> {
    let Some(device) = device() else { return Ok(()) };
    for case in cases()? {
        // Inputs rounded first: what is left is the rounding of results and of what passes between kernels, an ulp (2⁻⁸) each.
        let inputs = case.inputs.iter().map(|x| Ok(x.to_dtype(DType::BF16)?.to_dtype(DType::F64)?));
        let case = Case { inputs: inputs.collect::<Result<_>>()?, ..case };
        let expected = first(&case, &Device::Cpu, DType::F64)?;
        agree(&format!("{} in bf16", case.name), &first(&case, &device, DType::BF16)?, &expected, 3e-2)?;
    }
    Ok(())
}

#[test]
fn second_derivatives() -> Result<()> {
    let devices = devices();
    if std::env::var_os(SWITCH).is_none() {
        let program = std::env::current_exe().expect("a running test has a program");
        let mut command = std::process::Command::new(program);
        let output =
            command.args(["second_derivatives", "--exact"]).env(SWITCH, "1").output().expect("it starts");
        let talk = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && talk.contains("1 passed"), "{talk}");
        return Ok(());
    }
    assert!(ops::second_derivatives_are_taped());
    for (case, device) in cases()?.iter().flat_map(|case| devices.iter().map(move |device| (case, device))) {
        let expected = second(case, &Device::Cpu, DType::F64)?;
        agree(&case.name, &second(case, device, DType::F64)?, &expected, 1e-10)?;
    }
    Ok(())
}

#[test]
fn products_in_bf16_are_those_of_the_cpu() -> Result<()> {
    let Some(device) = device() else { return Ok(()) };
    let window = Window::same(3);
    let parts = || [normal(&[2, 16, 8, 8], 1), normal(&[8, 16, 3, 3], 2), normal(&[8], 3)];
    let convolution =
        case("convolution", parts(), move |i| Products::Bf16.conv2d(&i[0], &i[1], Some(&i[2]), window))?;
    let linear = case("linear map", [normal(&[5, 24], 1), normal(&[24, 16], 2)], |i| {
        Products::Bf16.matmul(&i[0], &i[1])
    })?;
    let triple = [1, 2, 3].map(|seed| normal(&[2, 16, 9], seed));
    let attention = case("attention", triple, |i| Products::Bf16.attention(&i[0], &i[1], &i[2], 2))?;
    for case in [convolution, linear, attention] {
        let expected = first(&case, &Device::Cpu, DType::F32)?;
        // The same roundings, of sums that differ in their last bits: now and then to the other neighbour, 2⁻⁸ away. The
        // bias is added before the rounding here, and after one there.
        agree(&case.name, &first(&case, &device, DType::F32)?, &expected, 3e-2)?;
    }
    Ok(())
}

#[test]
fn tf32_is_off_until_it_is_allowed() -> Result<()> {
    let Some(device) = device() else { return Ok(()) };
    let linear =
        case("linear map", [normal(&[64, 256], 1), normal(&[256, 64], 2)], |i| Ok(i[0].matmul(&i[1])?))?;
    let expected = first(&linear, &Device::Cpu, DType::F64)?;
    assert!(!ops::tf32());
    agree("f32", &first(&linear, &device, DType::F32)?, &expected, 1e-5)
}

#[test]
fn results_are_the_same_from_run_to_run() -> Result<()> {
    let Some(device) = device() else { return Ok(()) };
    for case in cases()? {
        let [a, b] = [(), ()].map(|()| first(&case, &device, DType::F32));
        for (a, b) in a?.iter().zip(&b?) {
            assert_eq!(common::distance(a, b)?, 0.0, "{}", case.name);
        }
    }
    Ok(())
}

#[test]
fn a_network_has_the_same_output_and_gradients() -> Result<()> {
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
        time = { kind = "fourier", std = 0.3, log = false, time_scale = 1.0, time_shift = 0.0 }
    "#;
    let config: NetConfig = toml::from_str(text).expect("a configuration");
    let build = |b: &Builder| config.build(b, &[3, 8, 8]);
    let (_, params) = Params::initialise(Noise::new(1), DType::F64, &Device::Cpu, build)?;
    let weights: Weights = params
        .to_weights()?
        .into_iter()
        .enumerate()
        .map(|(i, (name, w))| Ok((name, (&w + (normal(w.dims(), 10 + i as u64)? * 0.1)?)?)))
        .collect::<Result<_>>()?;
    let run = |device: &Device, dtype| -> Result<Vec<Tensor>> {
        let (net, params) = Params::restore(&weights, dtype, device, build)?;
        let input = |shape: &[usize], seed| -> Result<Tensor> {
            Ok(normal(shape, seed)?.to_dtype(dtype)?.to_device(device)?)
        };
        let y = net.forward(&input(&[4, 3, 8, 8], 1)?, &input(&[4], 2)?, Pass::EVAL)?;
        let store = (&y * input(&[4, 3, 8, 8], 3)?)?.sum_all()?.backward()?;
        let gradients =
            params.iter().map(|(_, var)| home(store.get(var).expect("a gradient for every parameter")));
        // One vector: some gradients vanish, such as those of the biases of keys, and have no size of their own.
        let gradients = gradients.map(|g| Ok(g?.flatten_all()?)).collect::<Result<Vec<_>>>()?;
        Ok(vec![home(&y)?, Tensor::cat(&gradients, 0)?])
    };
    let expected = run(&Device::Cpu, DType::F64)?;
    for device in devices() {
        agree("network in f64", &run(&device, DType::F64)?, &expected, 1e-9)?;
        agree("network in f32", &run(&device, DType::F32)?, &expected, 1e-3)?;
    }
    Ok(())
}
