//! The CUDA kernels without a GPU: compiled for the CPU by a C++ compiler, each against the CPU operator that it replaces.
//!
//! A thread of a kernel is a fibre here (`tests/emulator`), so barriers and shuffles are tried as well; what cannot be seen this
//! way is what the hardware adds: races between threads, speed, and nvcc itself. Where there is no C++ compiler, the tests say
//! so and pass.
#![allow(clippy::print_stdout, reason = "a test that is skipped says why")]

mod common;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use candle_core::{DType, Device, Tensor};
use common::{dot, gradients, normal};
use sde_nets::Result;
use sde_nets::ops::{self, GroupNormArgs, Window};

/// The emulator, compiled once; none without a C++ compiler.
fn emulator() -> Option<&'static Path> {
    static PROGRAM: OnceLock<Option<PathBuf>> = OnceLock::new();
    PROGRAM.get_or_init(compile).as_deref()
}

fn compile() -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/emulator");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("emulator-{}", std::process::id()));
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    let mut command = Command::new(&compiler);
    command
        .args(["-std=c++17", "-O1", "-I"])
        .arg(&source)
        .arg("-o")
        .arg(&program)
        .arg(source.join("main.cpp"));
    match command.output() {
        Err(e) => {
            println!(
                "skipped: the kernels are emulated with a C++ compiler, and {compiler} does not run ({e})"
            );
            None
        }
        Ok(output) => {
            assert!(output.status.success(), "{compiler}: {}", String::from_utf8_lossy(&output.stderr));
            Some(program)
        }
    }
}

/// The number type of a kernel.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    F32,
    F64,
    Bf16,
}

const KINDS: [Kind; 3] = [Kind::F32, Kind::F64, Kind::Bf16];

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::Bf16 => "bf16",
        }
    }

    fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F64 => DType::F64,
            Self::Bf16 => DType::BF16,
        }
    }

    /// The type that arithmetic is done in.
    fn wide(self) -> Self {
        if self == Self::Bf16 { Self::F32 } else { self }
    }

    /// What rounding may change, relative to the largest value: an ulp of the result for bf16 (2⁻⁸), some hundred operations in
    /// f32 (2⁻²⁴ each) and f64 (2⁻⁵³ each).
    fn tolerance(self) -> f64 {
        match self {
            Self::F32 => 1e-5,
            Self::F64 => 1e-13,
            Self::Bf16 => 4e-3,
        }
    }

    /// Values as the kernel sees them: rounded to its type.
    fn round(self, x: &Tensor) -> Result<Tensor> {
        Ok(x.to_dtype(self.dtype())?.to_dtype(DType::F64)?)
    }

    fn bytes(self, x: &Tensor) -> Result<Vec<u8>> {
        let values = x.flatten_all()?;
        Ok(match self {
            Self::F64 => values.to_vec1::<f64>()?.into_iter().flat_map(f64::to_le_bytes).collect(),
            Self::F32 => self.words(&values)?.into_iter().flat_map(u32::to_le_bytes).collect(),
            // The upper half of the same number in f32.
            Self::Bf16 => {
                self.words(&values)?.into_iter().flat_map(|w| ((w >> 16) as u16).to_le_bytes()).collect()
            }
        })
    }

    fn words(self, x: &Tensor) -> Result<Vec<u32>> {
        let values = x.to_dtype(self.dtype())?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
        Ok(values.into_iter().map(f32::to_bits).collect())
    }

    fn tensor(self, bytes: &[u8], shape: &[usize]) -> Result<Tensor> {
        let values: Vec<f64> = match self {
            Self::F64 => bytes.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect(),
            Self::F32 => {
                bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()).into()).collect()
            }
            Self::Bf16 => bytes
                .chunks_exact(2)
                .map(|b| f32::from_bits(u32::from(u16::from_le_bytes(b.try_into().unwrap())) << 16).into())
                .collect(),
        };
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
    }
}

/// An argument of a kernel.
enum Argument<'a> {
    In(Kind, &'a Tensor),
    /// An output, full of NaN before the launch.
    Out(Kind, &'a [usize]),
    /// Read and written.
    InOut(Kind, &'a Tensor),
    Word(u32),
    Long(u64),
    Double(f64),
    Words(&'a [u32]),
}

impl Argument<'_> {
    fn bytes(&self) -> Result<(bool, Vec<u8>)> {
        Ok(match self {
            Self::In(kind, x) | Self::InOut(kind, x) => (true, kind.bytes(x)?),
            Self::Out(kind, shape) => {
                (true, vec![0xff; kind.dtype().size_in_bytes() * shape.iter().product::<usize>()])
            }
            Self::Word(value) => (false, value.to_le_bytes().into()),
            Self::Long(value) => (false, value.to_le_bytes().into()),
            Self::Double(value) => (false, value.to_le_bytes().into()),
            Self::Words(values) => (false, values.iter().flat_map(|v| v.to_le_bytes()).collect()),
        })
    }
}

/// Launches a kernel and returns its outputs; none without an emulator.
fn launch(
    kernel: &str,
    kind: Kind,
    grid: [u32; 3],
    block: [u32; 3],
    arguments: &[Argument<'_>],
) -> Result<Vec<Tensor>> {
    let program = emulator().expect("asked before");
    let name = format!("{kernel}_{}", kind.name());
    let mut input = Vec::new();
    input.extend((name.len() as u32).to_le_bytes());
    input.extend(name.as_bytes());
    [grid, block].iter().flatten().for_each(|v| input.extend(v.to_le_bytes()));
    input.extend((arguments.len() as u32).to_le_bytes());
    for argument in arguments {
        let (buffer, bytes) = argument.bytes()?;
        input.extend(u32::from(buffer).to_le_bytes());
        input.extend((bytes.len() as u64).to_le_bytes());
        input.extend(bytes);
    }
    let mut child = Command::new(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the emulator starts");
    let mut stdin = child.stdin.take().expect("piped");
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().expect("the emulator ends");
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {} {talk}", output.status);
    writer.join().expect("a thread that writes").expect("the emulator reads all");
    let mut rest = output.stdout.as_slice();
    let mut found = Vec::new();
    for argument in arguments {
        let (kind, shape) = match argument {
            Argument::In(kind, x) | Argument::InOut(kind, x) => (kind, x.dims()),
            Argument::Out(kind, shape) => (kind, *shape),
            _ => continue,
        };
        let (bytes, after) = rest.split_at(kind.dtype().size_in_bytes() * shape.iter().product::<usize>());
        rest = after;
        if !matches!(argument, Argument::In(..)) {
            found.push(kind.tensor(bytes, shape)?);
        }
    }
    Ok(found)
}

/// Whether there is an emulator.
fn there_is_one() -> bool {
    emulator().is_some()
}

fn agree(what: &str, kind: Kind, found: &Tensor, expected: &Tensor) -> Result<()> {
    let scale = expected.abs()?.flatten_all()?.max(0)?.to_scalar::<f64>()?;
    let error = common::distance(found, expected)? / scale;
    assert!(error <= kind.tolerance(), "{what} in {}: {error:e}", kind.name());
    Ok(())
}

#[test]
fn group_normalisation() -> Result<()> {
    if !there_is_one() {
        return Ok(());
    }
    // Fewer and more channels of a group than warps, positions that are no multiple of a warp, a single channel.
    for (dims, groups) in [([2, 8, 5, 7], 2), ([3, 24, 4, 4], 2), ([1, 2, 6, 6], 2), ([2, 6, 1, 1], 2)] {
        for silu in [false, true] {
            for kind in KINDS {
                let args = GroupNormArgs { groups, epsilon: 1e-3, silu };
                let (samples, channels, positions) = (dims[0], dims[1], dims[2] * dims[3]);
                let x = kind.round(&(normal(&dims, 1)? + 0.5)?)?;
                let [w, b] = [2, 3].map(|seed| normal(&[channels], seed).and_then(|t| kind.wide().round(&t)));
                let (w, b, grad) = (w?, b?, kind.round(&normal(&dims, 4)?)?);
                let sizes = [groups, channels / groups, positions].map(|size| Argument::Word(size as u32));
                let [s0, s1, s2] = sizes;
                let tail = [s0, s1, s2, Argument::Double(1e-3), Argument::Word(silu.into())];
                let grid = [(samples * groups) as u32, 1, 1];
                let head =
                    [Argument::In(kind, &x), Argument::In(kind.wide(), &w), Argument::In(kind.wide(), &b)];
                let arguments: Vec<_> =
                    head.into_iter().chain([Argument::Out(kind, &dims)]).chain(tail).collect();
                let found = launch("group_norm_forward", kind, grid, [256, 1, 1], &arguments)?;
                agree("normalisation", kind, &found[0], &ops::group_norm(&x, &w, &b, args)?)?;

                let loss =
                    |i: &[Tensor]| Ok((ops::group_norm(&i[0], &i[1], &i[2], args)? * &grad)?.sum_all()?);
                let expected = gradients(loss, &[x.clone(), w.clone(), b.clone()])?;
                let parts = [samples, channels];
                let [s0, s1, s2] =
                    [groups, channels / groups, positions].map(|size| Argument::Word(size as u32));
                let arguments = [
                    Argument::In(kind, &x),
                    Argument::In(kind.wide(), &w),
                    Argument::In(kind.wide(), &b),
                    Argument::In(kind, &grad),
                    Argument::Out(kind, &dims),
                    Argument::Out(kind.wide(), &parts),
                    Argument::Out(kind.wide(), &parts),
                    s0,
                    s1,
                    s2,
                    Argument::Double(1e-3),
                    Argument::Word(silu.into()),
                ];
                let threads = 32 * (channels / groups).clamp(1, 8) as u32;
                let found = launch("group_norm_backward", kind, grid, [threads, 1, 1], &arguments)?;
                if positions > 1 {
                    agree("x̄", kind, &found[0], &expected[0])?;
                }
                agree("w̄", kind.wide(), &found[1].sum(0)?, &expected[1])?;
                agree("b̄", kind.wide(), &found[2].sum(0)?, &expected[2])?;
            }
        }
    }
    Ok(())
}

#[test]
fn silu_and_resampling() -> Result<()> {
    if !there_is_one() {
        return Ok(());
    }
    let dims = [2, 3, 4, 6];
    for kind in KINDS {
        let (x, grad) = (kind.round(&(normal(&dims, 1)? * 3.0)?)?, kind.round(&normal(&dims, 2)?)?);
        let n = Argument::Long(144);
        // Fewer threads than entries: the loops of the kernels take the rest.
        let (grid, block) = ([2, 1, 1], [32, 1, 1]);
        let found = launch(
            "silu_forward",
            kind,
            grid,
            block,
            &[Argument::In(kind, &x), Argument::Out(kind, &dims), n],
        )?;
        agree("SiLU", kind, &found[0], &ops::silu(&x)?)?;
        let arguments = [
            Argument::In(kind, &x),
            Argument::In(kind, &grad),
            Argument::Out(kind, &dims),
            Argument::Long(144),
        ];
        let found = launch("silu_backward", kind, grid, block, &arguments)?;
        let expected = gradients(|i| Ok((ops::silu(&i[0])? * &grad)?.sum_all()?), std::slice::from_ref(&x))?;
        agree("gradient of SiLU", kind, &found[0], &expected[0])?;

        let large = [2, 3, 8, 12];
        let arguments =
            [Argument::In(kind, &x), Argument::Out(kind, &large), Argument::Word(6), Argument::Long(576)];
        let found = launch("doubled", kind, grid, block, &arguments)?;
        assert_eq!(common::distance(&found[0], &ops::upsample_nearest_2x(&x)?)?, 0.0);
        let small = [2, 3, 2, 3];
        let arguments =
            [Argument::In(kind, &x), Argument::Out(kind, &small), Argument::Word(3), Argument::Long(36)];
        let found = launch("halved", kind, grid, block, &arguments)?;
        agree("sums of squares", kind, &found[0], &(ops::avg_pool_2x(&x)? * 4.0)?)?;
    }
    Ok(())
}

#[test]
fn biases() -> Result<()> {
    if !there_is_one() {
        return Ok(());
    }
    for (shape, kind) in
        [[3].as_slice(), &[2, 3]].into_iter().flat_map(|shape| KINDS.map(|kind| (shape, kind)))
    {
        let y = kind.round(&normal(&[2, 3, 4, 5], 1)?)?;
        let bias = kind.round(&normal(shape, 2)?)?;
        let biases = bias.elem_count() as u32;
        let arguments = [
            Argument::InOut(kind, &y),
            Argument::In(kind, &bias),
            Argument::Word(biases),
            Argument::Word(20),
            Argument::Long(120),
        ];
        let found = launch("add_bias", kind, [1, 1, 1], [64, 1, 1], &arguments)?;
        let expected = y.broadcast_add(&bias.reshape(((), 3, 1, 1))?)?;
        agree("bias", kind, &found[0], &expected)?;
    }
    Ok(())
}

#[test]
fn softmax() -> Result<()> {
    if !there_is_one() {
        return Ok(());
    }
    for (rows, width) in [(5, 7), (3, 64), (17, 100)] {
        for kind in KINDS {
            let shape = [rows, width];
            let (x, grad) = (kind.round(&(normal(&shape, 1)? * 4.0)?)?, kind.round(&normal(&shape, 2)?)?);
            let (grid, block) = ([rows.div_ceil(8) as u32, 1, 1], [256, 1, 1]);
            let sizes = || [Argument::Word(width as u32), Argument::Long(rows as u64)];
            let [a, b] = sizes();
            let arguments = [Argument::In(kind, &x), Argument::Out(kind, &shape), a, b];
            let y = launch("softmax_forward", kind, grid, block, &arguments)?.remove(0);
            agree("softmax", kind, &y, &ops::softmax(&x)?)?;
            let [a, b] = sizes();
            let arguments =
                [Argument::In(kind, &y), Argument::In(kind, &grad), Argument::Out(kind, &shape), a, b];
            let found = launch("softmax_backward", kind, grid, block, &arguments)?;
            let weighted = (&y * &grad)?;
            let expected = (&weighted - y.broadcast_mul(&weighted.sum_keepdim(1)?)?)?;
            agree("gradient of softmax", kind, &found[0], &expected)?;
        }
    }
    Ok(())
}

#[test]
fn patches_give_convolutions_and_folding_is_their_adjoint() -> Result<()> {
    if !there_is_one() {
        return Ok(());
    }
    let cases = [
        ([5, 7], [3, 3], Window::same(3)),
        ([6, 4], [3, 3], Window::HALVE),
        ([5, 5], [2, 3], Window { stride: 3, padding: [2, 0, 1, 3] }),
        ([4, 4], [1, 1], Window { stride: 1, padding: [0, 1, 2, 0] }),
    ];
    let (samples, channels, filters) = (2, 3, 4);
    for ([height, width], [kh, kw], window) in cases {
        for kind in KINDS {
            let image_shape = [samples, channels, height, width];
            let x = kind.round(&normal(&image_shape, 1)?)?;
            let w = kind.round(&normal(&[filters, channels, kh, kw], 2)?)?;
            let expected = ops::conv2d(&x, &w, None, window)?;
            let (_, _, out_height, out_width) = expected.dims4()?;
            let (taps, positions) = (channels * kh * kw, out_height * out_width);
            let [top, _, left, _] = window.padding;
            let sizes = [channels, height, width, kh, kw, window.stride, top, left, out_height, out_width];
            let sizes = sizes.map(|size| size as u32);
            let run = |name: &str, from: &Tensor, to: &[usize], strides: [usize; 2]| -> Result<Tensor> {
                let entries = to.iter().product::<usize>() as u64;
                let [sample, tap] = strides.map(|stride| Argument::Long(stride as u64));
                let arguments = [
                    Argument::In(kind, from),
                    Argument::Out(kind, to),
                    Argument::Words(&sizes),
                    sample,
                    tap,
                    Argument::Long(entries),
                ];
                Ok(launch(name, kind, [3, 1, 1], [64, 1, 1], &arguments)?.remove(0))
            };
            let by_sample = [samples, taps, positions];
            let columns = run("unfold", &x, &by_sample, [taps * positions, positions])?;
            let product = w.reshape((1, filters, taps))?.broadcast_matmul(&columns)?;
            assert!(
                common::distance(&product.reshape(expected.dims())?, &expected)? < 1e-12,
                "{window:?} {kind:?}"
            );
            let by_tap = [taps, samples, positions];
            let rows = run("unfold", &x, &by_tap, [positions, samples * positions])?;
            assert_eq!(common::distance(&rows.transpose(0, 1)?.contiguous()?, &columns)?, 0.0);
            let weights = kind.round(&normal(&by_sample, 3)?)?;
            let folded = run("fold", &weights, &image_shape, [taps * positions, positions])?;
            let (left, right) = (dot(&columns, &weights)?, dot(&x, &folded)?);
            let scale = dot(&x.abs()?, &folded.abs()?)?;
            assert!((left - right).abs() <= kind.tolerance() * scale, "{window:?} {kind:?}: {left} {right}");
        }
    }
    Ok(())
}

#[test]
fn transposes() -> Result<()> {
    if !there_is_one() {
        return Ok(());
    }
    for (count, rows, columns) in [(3, 5, 70), (1, 64, 32), (4, 33, 1)] {
        for kind in KINDS {
            let x = kind.round(&normal(&[count, rows, columns], 1)?)?;
            let shape = [count, columns, rows];
            let sizes = [count, rows, columns].map(|size| Argument::Word(size as u32));
            let [a, b, c] = sizes;
            let arguments = [Argument::In(kind, &x), Argument::Out(kind, &shape), a, b, c];
            // Fewer layers of the grid than matrices.
            let grid = [columns.div_ceil(32) as u32, rows.div_ceil(32) as u32, count.min(2) as u32];
            let found = launch("transpose", kind, grid, [32, 8, 1], &arguments)?;
            assert_eq!(common::distance(&found[0], &x.transpose(1, 2)?.contiguous()?)?, 0.0);

            let shape = [rows, count, columns];
            let [a, b, c] = [count, rows, columns].map(|size| Argument::Word(size as u32));
            let entries = Argument::Long((count * rows * columns) as u64);
            let arguments = [Argument::In(kind, &x), Argument::Out(kind, &shape), a, b, c, entries];
            let found = launch("exchange", kind, [2, 1, 1], [64, 1, 1], &arguments)?;
            assert_eq!(common::distance(&found[0], &x.transpose(0, 1)?.contiguous()?)?, 0.0);
        }
    }
    Ok(())
}

#[test]
fn a_barrier_that_not_all_reach_and_a_write_outside_are_seen() {
    // The emulator's own alarms: a warp of a row too many would write outside of the buffer.
    if !there_is_one() {
        return;
    }
    let program = emulator().expect("asked before");
    let mut input = Vec::new();
    let name = "silu_forward_f32";
    input.extend((name.len() as u32).to_le_bytes());
    input.extend(name.as_bytes());
    [1u32, 1, 1, 32, 1, 1, 3].iter().for_each(|v| input.extend(v.to_le_bytes()));
    for (buffer, bytes) in [(1u32, vec![0u8; 16]), (1, vec![0; 16]), (0, 5u64.to_le_bytes().to_vec())] {
        input.extend(buffer.to_le_bytes());
        input.extend((bytes.len() as u64).to_le_bytes());
        input.extend(bytes);
    }
    let mut child = Command::new(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the emulator starts");
    child.stdin.take().expect("piped").write_all(&input).expect("the emulator reads");
    assert_eq!(child.wait().expect("the emulator ends").code(), Some(4));
}
