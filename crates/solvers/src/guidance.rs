//! Guidance and conditioning: fields made of fields, which any sampler takes in their place.
//!
//! | field | what it adds to a field of x |
//! |---|---|
//! | [`Guided`] | `ε̃ = ε − γ Rᵀ ∇ log p(y \| u)`, of a log-likelihood of noised states |
//! | [`CleanGuided`] | the same, of a log-likelihood of clean data, through `x̂₀(u)` |
//! | [`ClassifierFree`] | `p̃ = (1 + ω) p(u, y) − ω p(u, ∅)`, of a network that knows classes |
//! | [`Clipped`] | x̂₀ kept in the range of the data |
//!
//! [`Similarity`] is a log-likelihood up to a constant. All of them change the field and not the sampler: the same guidance serves tables,
//! Runge–Kutta and stochastic samplers, and every linear process. A field that holds something of each sample
//! forwards [`Field::restrict`](sde_core::Field::restrict), so adaptive solvers, which drop samples that have arrived, take it, too.
//!
//! Reference: Dhariwal, Nichol 2021, arXiv 2105.05233, section 4; Ho, Salimans 2022, arXiv 2207.12598.

mod classifier;
mod classifier_free;
mod clean;
mod clip;
mod likelihood;
mod similarity;

pub use classifier::Guided;
pub use classifier_free::{ClassifierFree, Interval};
pub use clean::CleanGuided;
pub use clip::{Clip, Clipped};
pub use likelihood::{LogLikelihood, LogLikelihoodFn};
pub use similarity::Similarity;
