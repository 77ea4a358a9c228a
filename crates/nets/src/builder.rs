//! What a network's constructor asks its tensors from, by path and shape: fresh values, given values, or
//! shapes only.
//!
//! ```text
//! down.0.weight
//! builder.pp("down").pp(0).get(&[64, 64, 3, 3], "weight", Init::FanAverage { scale: 1.0 })?
//! ```
//!
//! Wrong weights do not stop the construction: everything asked for is noted, and one error at the end lists
//! all names.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use candle_core::{DType, Device, Tensor, Var};
use sde_core::noise::{Draws, Noise, Stream, host_tensor};

use crate::error::WeightsMismatch;
use crate::ops::Products;
use crate::params::Weights;
use crate::{Error, Result};

/// The law of a parameter's initial value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// The same number everywhere.
    Constant(f64),
    /// Independent N(0, std²).
    Normal {
        /// The standard deviation.
        std: f64,
    },
    /// Uniform with variance `2 scale / (fan_in + fan_out)`, for weights `[out, in, …]`.
    ///
    /// Reference: Glorot, Bengio 2010, with the scale of Ho et al. 2020, arXiv 2006.11239.
    FanAverage {
        /// The scale; 1 keeps the variance of a signal.
        scale: f64,
    },
}

impl Init {
    fn values(self, shape: &[usize], mut draws: Draws) -> Vec<f64> {
        let count = shape.iter().product();
        match self {
            Self::Constant(value) => vec![value; count],
            Self::Normal { std } => (0..count).map(|_| std * draws.normal()).collect(),
            Self::FanAverage { scale } => {
                let taps: usize = shape.iter().skip(2).product();
                let fans: usize = shape.iter().take(2).map(|n| n * taps).sum();
                let bound = (6.0 * scale / fans.max(1) as f64).sqrt();
                (0..count).map(|_| bound * (2.0 * draws.uniform() - 1.0)).collect()
            }
        }
    }
}

/// Where values come from.
#[derive(Debug)]
pub(crate) enum Source {
    Initial(Noise),
    Given(Weights),
    /// Zeros that take no memory.
    Shapes,
}

/// Whether training changes a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Trainable,
    Buffer,
}

/// A tensor that a network asked for.
#[derive(Debug)]
pub(crate) struct Entry {
    pub role: Role,
    pub shape: Vec<usize>,
    /// The variable, where values are kept for training.
    pub var: Option<Var>,
}

#[derive(Debug)]
struct Store {
    source: Source,
    trainable: bool,
    dtype: DType,
    device: Device,
    entries: RefCell<BTreeMap<String, Entry>>,
    mismatch: RefCell<WeightsMismatch>,
}

/// A path below which a network finds its tensors.
#[derive(Debug, Clone)]
pub struct Builder {
    store: std::rc::Rc<Store>,
    path: String,
    products: Products,
}

impl Builder {
    pub(crate) fn new(source: Source, trainable: bool, dtype: DType, device: &Device) -> Self {
        let store = Store {
            source,
            trainable,
            dtype,
            device: device.clone(),
            entries: RefCell::default(),
            mismatch: RefCell::default(),
        };
        Self { store: store.into(), path: String::new(), products: Products::Full }
    }

    /// The path `name` below this one.
    pub fn pp(&self, name: impl Display) -> Self {
        Self { path: self.join(name), ..self.clone() }
    }

    /// The same place, for layers that form their products in the given type; a builder starts with the network's own.
    pub fn with_products(&self, products: Products) -> Self {
        Self { products, ..self.clone() }
    }

    /// The type in which a layer built here forms its products.
    pub fn products(&self) -> Products {
        self.products
    }

    /// The type of the network's tensors.
    pub fn dtype(&self) -> DType {
        self.store.dtype
    }

    /// The device of the network's tensors.
    pub fn device(&self) -> &Device {
        &self.store.device
    }

    /// The parameter `name` at this path.
    ///
    /// # Errors
    /// [`Error::DuplicateName`] where it was asked for before.
    pub fn get(&self, shape: &[usize], name: &str, init: Init) -> Result<Tensor> {
        self.tensor(shape, name, init, Role::Trainable)
    }

    /// The tensor `name` at this path, which training leaves as it is.
    ///
    /// # Errors
    /// [`Error::DuplicateName`] where it was asked for before.
    pub fn buffer(&self, shape: &[usize], name: &str, init: Init) -> Result<Tensor> {
        self.tensor(shape, name, init, Role::Buffer)
    }

    /// The variables asked for so far below this path.
    pub(crate) fn variables(&self) -> Vec<Tensor> {
        let (entries, prefix) = (self.store.entries.borrow(), format!("{}.", self.path));
        let below =
            entries.iter().filter(|(name, entry)| entry.role == Role::Trainable && name.starts_with(&prefix));
        below.filter_map(|(_, entry)| Some(entry.var.as_ref()?.as_tensor().clone())).collect()
    }

    fn join(&self, name: impl Display) -> String {
        if self.path.is_empty() { name.to_string() } else { format!("{}.{name}", self.path) }
    }

    fn tensor(&self, shape: &[usize], name: &str, init: Init, role: Role) -> Result<Tensor> {
        let name = self.join(name);
        let store = &*self.store;
        if store.entries.borrow().contains_key(&name) {
            return Err(Error::DuplicateName(name));
        }
        let value = match &store.source {
            Source::Initial(noise) => {
                let draws = noise.draws_named(Stream::Init, &name);
                host_tensor(init.values(shape, draws), shape, store.dtype, &store.device)?
            }
            Source::Given(weights) => store.given(weights, &name, shape)?,
            Source::Shapes => store.placeholder(shape)?,
        };
        let var = if store.trainable { Some(Var::from_tensor(&value)?) } else { None };
        let tensor = match (&var, role) {
            (Some(var), Role::Trainable) => var.as_tensor().clone(),
            (Some(var), Role::Buffer) => var.as_detached_tensor(),
            (None, _) => value,
        };
        store.entries.borrow_mut().insert(name, Entry { role, shape: shape.to_vec(), var });
        Ok(tensor)
    }

    /// Everything that was asked for.
    ///
    /// # Errors
    /// [`Error::Weights`] where the weights given are not exactly that.
    pub(crate) fn finish(&self) -> Result<BTreeMap<String, Entry>> {
        let entries = self.store.entries.take();
        let mut mismatch = self.store.mismatch.take();
        if let Source::Given(weights) = &self.store.source {
            let asked: BTreeSet<&str> = entries.keys().map(String::as_str).collect();
            let unexpected = weights.iter().map(|(name, _)| name).filter(|name| !asked.contains(name));
            mismatch.unexpected = unexpected.map(Into::into).collect();
        }
        mismatch.check()?;
        Ok(entries)
    }
}

impl Store {
    /// The weight of this name, or a placeholder and a note.
    fn given(&self, weights: &Weights, name: &str, shape: &[usize]) -> Result<Tensor> {
        match weights.get(name) {
            Some(value) if value.dims() == shape => {
                Ok(value.detach().to_dtype(self.dtype)?.to_device(&self.device)?)
            }
            Some(value) => {
                let found = value.dims().to_vec();
                self.mismatch.borrow_mut().misshapen.push((name.to_owned(), shape.to_vec(), found));
                self.placeholder(shape)
            }
            None => {
                self.mismatch.borrow_mut().missing.push(name.to_owned());
                self.placeholder(shape)
            }
        }
    }

    /// One zero, seen under any shape.
    fn placeholder(&self, shape: &[usize]) -> Result<Tensor> {
        Ok(Tensor::zeros((), self.dtype, &self.device)?.broadcast_as(shape)?)
    }
}
