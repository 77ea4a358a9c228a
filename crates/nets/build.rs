//! Compiles the CUDA kernels of `cuda/` to PTX, where the feature `cuda` is on.
//!
//! nvcc is the program named by `NVCC`, else that of `CUDA_HOME` or `CUDA_PATH`, else the one on the path: where Candle's own
//! build looks for it. The PTX is for compute capability 8.0; the driver compiles it for whatever newer card it finds.

#![allow(clippy::print_stdout, reason = "cargo reads what a build script prints")]

use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=cuda");
    for name in ["NVCC", "CUDA_HOME", "CUDA_PATH", "NVCC_CCBIN", "SDE_NVCC", "SDE_NVCC_MODE"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return Ok(());
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    for entry in std::fs::read_dir("cuda")? {
        let source = entry?.path();
        if source.extension().is_some_and(|extension| extension == "cu") {
            let name = source.file_stem().ok_or("a kernel without a name")?;
            compile(&source, &out.join(name).with_extension("ptx"))?;
        }
    }
    Ok(())
}

fn compile(source: &Path, ptx: &Path) -> Result<(), Box<dyn Error>> {
    let nvcc = nvcc();
    let mut command = Command::new(&nvcc);
    command.args(["--ptx", "--std=c++17", "-O3", "--gpu-architecture=compute_80", "-o"]).arg(ptx).arg(source);
    if let Some(compiler) = env::var_os("NVCC_CCBIN") {
        command.arg("-ccbin").arg(compiler);
    }
    let output = command.output().map_err(|e| {
        format!(
            "{}: {e}; the feature `cuda` needs nvcc: install the CUDA toolkit, or build by .ci/cuda.sh (docs/cuda.md)",
            nvcc.display()
        )
    })?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{} on {}: {message}", nvcc.display(), source.display()).into());
    }
    Ok(())
}

fn nvcc() -> PathBuf {
    let installed = ["CUDA_HOME", "CUDA_PATH"]
        .into_iter()
        .filter_map(env::var_os)
        .map(|home| Path::new(&home).join("bin").join("nvcc"))
        .find(|nvcc| nvcc.exists());
    env::var_os("NVCC").map(PathBuf::from).or(installed).unwrap_or_else(|| "nvcc".into())
}
