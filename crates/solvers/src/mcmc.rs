//! Markov chains for targets that are known up to their normaliser, as baselines of the learned samplers.
//!
//! Each chain leaves μ invariant (but [`Ula`]) and each sampler is a [`TargetSampler`](sde_core::target::TargetSampler): sample i is the last state of chain
//! i, and chain i, its step size included, is a function of the noise at the address (iteration, i): it is the same alone and among a thousand, on one thread
//! and on many. Only particles that are resampled ([`Annealed`]) know of each other.
//!
//! - [`Hmc`], [`Mala`], [`Ula`], [`Nuts`]: no weights. They say nothing about Z by themselves: log Z is estimated by *bridge sampling* between their
//!   samples and a Gaussian fitted to one half of them ([`bridge`]).
//! - [`Annealed`]: annealed importance sampling and sequential Monte Carlo, whose weights have E\[Ẑ\] = Z exactly.
//!
//! A point where the target is not a number counts as one without density, and is never accepted.

mod annealed;
pub mod bridge;
mod hmc;
mod langevin;
mod law;
mod nuts;
mod step_size;
mod trajectory;

pub use annealed::{Annealed, Resampling, StepSize, Temperatures};
pub use hmc::Hmc;
pub use langevin::{Mala, Ula};
pub use law::Base;
pub use nuts::Nuts;
pub use trajectory::Mass;
