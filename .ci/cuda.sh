#!/usr/bin/env bash
# Builds, checks and tests the workspace with the `cuda` and `cudnn` features on a machine without CUDA and without a GPU.
#
#   .ci/cuda.sh check                 what .ci/run does: clippy and the tests of that build, on the CPU
#   .ci/cuda.sh check COMMAND...      a command in that environment: type checks, lints, tests; kernels are placeholders
#   .ci/cuda.sh fast COMMAND...       real kernels, by an nvcc from the package index (100 MB); without Candle's
#                                     quantised and mixture-of-experts kernels, which nothing here uses
#   .ci/cuda.sh full COMMAND...       real kernels, all of them
#   .ci/cuda.sh kernels               compiles our own kernels, and assembles them with registers and spills shown
#   .ci/cuda.sh MODE env              prints the environment of a mode, for `eval`
#
# For example:   .ci/cuda.sh fast cargo build --release --features cuda,cudnn --package xtask
#
# check needs Rust, cc, ar and python3; the other modes pip, too. x86-64 Linux. The programs of fast and full start on any machine:
# they look for the driver and the libraries of CUDA when they first use them (docs/cuda.md).
#
# Settings: CUDA_COMPUTE_CAP, the architecture of Candle's kernels (90, which is compiled as sm_90a and runs on no other);
# CUDA_KIT, where compiler and link libraries go (target/cuda-kit); CARGO_TARGET_DIR (target/cuda-MODE); PYTHON.
set -euo pipefail

usage() { sed -n '2,/^set /s/^# \{0,1\}//p' "$0" >&2; exit 2; }

root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
tools=$root/.ci/cuda
kit=${CUDA_KIT:-$root/target/cuda-kit}
python=${PYTHON:-python3}
toolkit=$kit/toolkit/nvidia/cu13

mode=${1:-}
case "$mode" in check | fast | full | kernels) shift ;; *) usage ;; esac

# The compiler: one CUDA-like tree unpacked from wheels. A driver refuses what a newer compiler than itself made: 13.0 is what
# drivers from 580 on take.
if [ "$mode" != check ] && [ ! -e "$kit/toolkit.done" ]; then
  rm -rf "$kit/toolkit"
  mkdir -p "$kit"
  "$python" -m pip install --quiet --no-deps --only-binary=:all: --target "$kit/toolkit" \
    nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88 \
    nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85
  ln -sfn lib "$toolkit/lib64"
  chmod +x "$toolkit"/bin/* "$toolkit"/nvvm/bin/*
  touch "$kit/toolkit.done"
fi

if [ "$mode" = kernels ]; then
  mkdir -p "$kit/kernels"
  for source in crates/nets/cuda/*.cu; do
    ptx=$kit/kernels/$(basename "${source%.cu}").ptx
    # The flags of crates/nets/build.rs.
    "$toolkit/bin/nvcc" --ptx --std=c++17 -O3 --gpu-architecture=compute_80 -o "$ptx" "$source"
    for arch in ${CUDA_ARCHITECTURES:-sm_80 sm_90a}; do
      echo "== $source for $arch"
      "$toolkit/bin/ptxas" --verbose --gpu-name "$arch" --output-file "${ptx%.ptx}.$arch.cubin" "$ptx" 2>&1 |
        awk '/Compiling entry/ { split($0, part, "\047"); name = part[2] }
             /bytes stack frame/ { spill = $5 + $9 }
             /Used .* registers/ { for (i = 1; i < NF; i++) if ($i == "Used") used = $(i + 1)
                                   printf "%-44s %3d registers, %d bytes spilled\n", name, used, spill }
             /error|warning/'
    done
  done
  exit
fi

# What the linker takes for libcuda, libcublas and the others: one folder for each version of cudarc.
cudarc=$(cargo metadata --format-version 1 --locked --all-features --filter-platform x86_64-unknown-linux-gnu |
  "$python" -c 'import json, os, sys
print(next(os.path.dirname(p["manifest_path"]) for p in json.load(sys.stdin)["packages"] if p["name"] == "cudarc"))')
link=$kit/link-$(basename "$cudarc")-$([ "$mode" = full ] && echo full || echo plain)
if [ ! -e "$link/done" ]; then
  mkdir -p "$link/lib"
  "$python" "$tools/link_libraries.py" "$cudarc" "$link/lib" >&2
  # Only the kernels that `full` adds call the CUDA runtime; it is linked statically.
  if [ "$mode" = full ]; then cp "$toolkit/lib/libcudart_static.a" "$link/lib/libcudart.a"; else ar rcs "$link/lib/libcudart.a"; fi
  touch "$link/done"
fi

environment=(
  CUDA_HOME="$link"                   # where cudarc looks for libraries
  CUDARC_CUDA_VERSION=13000           # spares it a compiler on the path
  NVCC="$tools/nvcc"                  # what build scripts run
  SDE_NVCC="$toolkit/bin/nvcc" SDE_NVCC_MODE="$mode"
  CUDA_COMPUTE_CAP="${CUDA_COMPUTE_CAP:-90}"
  CUDAFORGE_THREADS="${CUDAFORGE_THREADS:-$(nproc)}"
  CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$root/target/cuda-$mode}"
)
if [ "${1:-}" = env ]; then printf 'export %q\n' "${environment[@]}"; exit; fi
if [ $# -gt 0 ]; then exec env "${environment[@]}" "$@"; fi
[ "$mode" = check ] || usage

# Code that depends on the feature is in sde-nets alone, and the choice of a device in sde-core; the other packages only pass it on.
in_build() { printf '\n== %s\n' "$*"; env "${environment[@]}" "$@"; }
in_build cargo clippy --release --locked --package sde-core --package sde-nets --all-targets --features cuda,cudnn -- -D warnings
# One call: another choice of packages is another choice of features, and builds the dependencies again.
in_build cargo test --release --locked --package sde-core --package sde-nets --features cuda,cudnn \
  --lib --test device --test cuda --test operators --test second_derivatives --test precision
