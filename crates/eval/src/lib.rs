//! Likelihood and sample quality of diffusion models, each number with its error bar.
//!
//! [`nll()`] measures the likelihood of a data set under a model by its probability flow ([`Likelihood`]), or bounds that of its
//! reverse SDE ([`Elbo`]) or chain ([`DiscreteBound`]), of data with velocities by that of states ([`Augmented`]);
//! [`Gaussian`] is the baseline for it; [`DensityMap`] shows the density of a model of the plane;
//! [`SlicedWasserstein`] and [`mmd()`] compare two samples. [`fid`], [`Extrapolation`] and [`kid`] compare features of images, of a
//! published network or of your own ([`FeatureNetwork`]); [`Statistics`] keeps them in a file; [`prdc()`] and [`memorisation()`] look at
//! nearest neighbours. [`Transport`], [`Sinkhorn`] and [`energy_distance`] compare point sets. [`score`] judges a
//! score by itself: its loss, the equation it should solve, its asymmetry, its paths.
//!
//! ```
//! use candle_core::{Device, Tensor};
//! use sde_core::noise::{BatchNoise, Noise};
//! use sde_core::{OracleField, oracle::Mixture, process::Vp};
//! use sde_eval::{Likelihood, Prior};
//! use sde_solvers::{Adaptive, Divergence};
//!
//! # fn main() -> sde_eval::Result<()> {
//! let sde = Vp::STANDARD;
//! let data = Mixture::diagonal(vec![0.6, -0.2], vec![0.25, 0.04])?;
//! let field = OracleField::noise(&data, &sde);
//! let standard = Likelihood::new(&sde, &field, Divergence::Exact, Adaptive::new(1e-8, 1e-10));
//! let likelihood = Likelihood { prior: Prior::Exact(&data), ..standard };
//! let x = Tensor::new(&[[0.1, 0.3]], &Device::Cpu)?;
//! let found = likelihood.log_density(&x, &BatchNoise::new(Noise::new(0), 0, 0..1))?;
//! let exact = data.marginal(&sde, likelihood.start)?.at(&[0.1, 0.3])?.log_density;
//! assert!(found[0].value.is_some_and(|value| (value - exact).abs() < 1e-6));
//! # Ok(())
//! # }
//! ```

mod approach;
mod augmented;
mod bound;
mod centred;
mod circular;
mod density;
mod discrete_bound;
mod distances;
mod elbo;
mod energy;
mod error;
mod estimate;
mod extrapolation;
mod feature_set;
mod features;
mod frechet;
mod gaussian;
pub mod inception;
mod inception_score;
mod kernel;
mod likelihood;
mod likelihood_table;
mod matrix;
mod memorisation;
mod mmd;
mod moments;
mod nll;
mod nll_csv;
mod normal;
mod prdc;
mod rows;
pub mod score;
mod score_gap;
mod significance;
mod sinkhorn;
mod sliced;
mod statistics;
mod transport;
mod u_statistic;

pub use approach::{Approach, Plane, approach};
pub use augmented::{Augmented, Average};
pub use circular::angle_divergence;
pub use density::{DensityMap, Window};
pub use discrete_bound::{DiscreteBound, ReverseVariance};
pub use elbo::Elbo;
pub use energy::energy_distance;
pub use error::{Error, Result};
pub use estimate::Estimate;
pub use extrapolation::{Extrapolation, FidInfinity, Reference};
pub use feature_set::FeatureSet;
pub use features::{FeatureNetwork, FeatureSpace};
pub use frechet::{Allow, FeatureGaussian, Fid, fid, fid_bootstrap, frechet_distance};
pub use gaussian::{Gaussian, GaussianNll};
pub use inception_score::{InceptionScore, inception_score};
pub use kernel::{KidBySubsets, KidSubsets, kid, kid_of_subsets};
pub use likelihood::{Integrator, Likelihood, LogDensity, PointDensity, Prior};
pub use memorisation::{Memorisation, Suspect, memorisation, memorisation_bytes};
pub use mmd::{Bandwidth, Mmd, mmd};
pub use moments::{GroupedMoments, Moments};
pub use nll::{Evaluation, Nfe, Nll, Protocol, Solve, nll, nll_of_points};
pub use prdc::{Prdc, prdc, prdc_bytes};
pub use score_gap::ScoreGap;
pub use significance::{ErrorBar, two_sided};
pub use sinkhorn::{Entropic, Sinkhorn};
pub use sliced::{SlicedWasserstein, sliced_wasserstein_squared};
pub use statistics::{About, Statistics};
pub use transport::{MOST_POINTS, Power, Transport, wasserstein};

/// The snippet of the crate's README, run as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
