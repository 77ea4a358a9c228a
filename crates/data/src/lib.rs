//! Data sets for training generative models: synthetic laws, embedded digits, readers of common formats, and
//! pictures of results.
//!
//! - [`Dataset`] serves examples by index; [`Images`], [`Points`], [`ToySet`] implement it.
//! - [`Encoding`] says what the numbers are, so that a likelihood in bits per dimension is never off by a
//!   convention.
//! - [`Augmented`] transforms images at random and says how, so that a network can be told.
//! - [`Order`] shuffles by (seed, epoch) without state, [`Prefetch`] prepares batches ahead.
//! - [`digits`](fn@digits) are built in; [`named`] finds MNIST, Fashion-MNIST and CIFAR-10 on the disk, or
//!   fetches them (feature `hub`); [`read`] holds the readers.
//! - [`Tabular`] are the tables that density estimators are compared on, with stand-ins.
//! - [`alanine_dipeptide`] is built in, too; [`read::amber`] reads other molecules.
//! - [`Picture`] draws sheets of images, maps and clouds of points.
//!
//! Nothing here is random but through the addresses of [`sde_core::noise`]: an example is a pure function of
//! its index and its address.

mod affine;
mod alanine;
mod augment;
mod dataset;
mod digits;
mod encoding;
mod error;
#[cfg(feature = "hub")]
pub mod hub;
mod images;
pub mod named;
mod order;
mod picture;
mod points;
mod prefetch;
pub mod read;
mod tabular;
mod toy;

pub use affine::Affine;
pub use alanine::{ALANINE_TORSIONS, alanine_dipeptide};
pub use augment::{Augmentation, Augmented};
pub use dataset::{Batch, Dataset, Split};
pub use digits::digits;
pub use encoding::{Encoding, Range};
pub use error::{Error, Place, Result};
pub use images::Images;
pub use order::Order;
pub use picture::Picture;
pub use points::Points;
pub use prefetch::Prefetch;
pub use tabular::{Tables, Tabular};
pub use toy::{Toy, ToySet};

/// The snippet of the crate's README, run as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
