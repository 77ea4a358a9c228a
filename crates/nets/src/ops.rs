//! The operators that networks are made of: hand-made kernels on the CPU, Candle's own operators elsewhere.
//!
//! Every operator here but [`max_pool_3x3`] can be differentiated, twice where Candle's tape is asked to keep second
//! derivatives ([`second_derivatives_are_taped`]). On the CPU in f32 and f64 each is made of kernels of its own, parallel over
//! samples; the order of every sum is fixed, so a result does not depend on the number of threads. On CUDA,
//! with the feature `cuda`, they are kernels, cuDNN and cuBLAS. Other devices and types compose Candle's
//! operators into the same function.

mod attention;
mod conv2d;
#[cfg(feature = "cuda")]
mod cuda;
mod dropout;
mod fir;
mod group_norm;
mod kernel;
mod linear;
mod optimiser;
mod orthogonal;
mod patches;
mod pool;
mod precision;
mod process;
mod resample;
mod silu;
mod sinusoids;
mod softmax;
mod square;
mod tape;

pub use attention::attention;
pub use conv2d::{Window, conv2d, conv2d_relu};
pub use dropout::dropout;
pub use fir::{fir_blur, fir_down_2x, fir_up_2x};
pub use group_norm::{GroupNormArgs, group_norm};
pub use linear::linear;
pub use optimiser::{AdamUpdate, Averaged, lerp, sums_of_squares};
pub use orthogonal::{antisymmetric, orthogonal_cayley, orthogonal_exponential};
pub use pool::{avg_pool_3x3, max_pool_3x3};
pub use precision::{Products, allow_tf32, tf32};
pub use process::{keep_second_derivatives, prepare_process};
pub use resample::{avg_pool_2x, upsample_nearest_2x};
pub use silu::silu;
pub use sinusoids::sinusoids;
pub use softmax::softmax;
pub use tape::second_derivatives_are_taped;
