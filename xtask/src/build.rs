//! From names to things: what a configuration calls a process, a sampler, a grid or a data set.

pub mod data;
mod flexible;
mod kept;
pub mod learned;
mod likelihood;
mod loss;
mod process;
pub mod sampler;
mod start;
mod variance;

pub use data::{DataConfig, Loaded, Use};
pub use likelihood::{Kind, LikelihoodConfig};
pub use loss::LossConfig;
pub use process::{ProcessConfig, unfinished};
pub use sampler::{SamplerConfig, unknown};
pub use start::StartConfig;
pub use variance::VarianceConfig;
