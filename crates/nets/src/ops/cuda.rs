//! The operators on CUDA: kernels of our own where Candle composes, cuDNN and cuBLAS for products.
//!
//! Each function here is the forward pass of an operator whose derivatives stand beside its CPU kernel, or the fused backward
//! of one; the kernels are in `cuda/*.cu`. Values are f32, f64 or bf16; what is summed is summed in f32 for bf16. No kernel adds
//! atomically, and of cuDNN's algorithms only those with a fixed order of summation are taken.
//!
//! **None of this has run on a GPU yet.** What was checked without one: it compiles, PTX assembles, and the kernels themselves,
//! compiled for the CPU, agree with the CPU operators (`tests/emulated_kernels.rs`). `tests/cuda.rs` compares every operator
//! and its derivatives with the CPU where there is a device.

// Launching a kernel and calling cuBLAS or cuDNN is unsafe: they are given pointers and sizes.
#![allow(unsafe_code)]

pub(super) mod convolution;
#[cfg(feature = "cudnn")]
mod cudnn;
mod group_norm;
mod launch;
mod pointwise;
mod products;
mod softmax;

pub(super) use group_norm::{group_norm_backward, group_norm_forward};
pub(super) use pointwise::{doubled, halved, silu_backward, silu_forward};
pub(super) use softmax::{softmax_backward, softmax_forward};
