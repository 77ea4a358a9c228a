//! The parameters of a network: a store sorted by name, and weights without a tape.
//!
//! [`Params`] holds what training changes, as variables, in the order of their names: a sum over parameters
//! is the same in every run. [`Weights`] holds plain tensors under the same names: an average of weights, the
//! content of a file. A network built from weights by [`Weights::freeze`] leaves nothing on the tape.
//!
//! Buffers are tensors of a network that no training changes, such as fixed random frequencies. They are
//! stored and loaded with the rest, but are neither counted nor differentiated.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor, Var};
use sde_core::noise::Noise;

use crate::builder::{Builder, Entry, Role, Source};
use crate::error::WeightsMismatch;
use crate::{Error, Result, header};

/// The variables of a network, sorted by name.
#[derive(Debug, Clone)]
pub struct Params {
    trainable: BTreeMap<String, Var>,
    buffers: BTreeMap<String, Var>,
    dtype: DType,
    device: Device,
}

impl Params {
    /// Builds a network with fresh parameters. An initial value depends on the seed of `noise` and the
    /// parameter's name alone.
    ///
    /// # Errors
    /// Those of `build`, and [`Error::DuplicateName`].
    pub fn initialise<N>(
        noise: Noise,
        dtype: DType,
        device: &Device,
        build: impl FnOnce(&Builder) -> Result<N>,
    ) -> Result<(N, Self)> {
        Self::build(Source::Initial(noise), dtype, device, build)
    }

    /// Builds a network whose parameters start at given weights.
    ///
    /// # Errors
    /// [`Error::Weights`] unless names and shapes are exactly those of the network.
    pub fn restore<N>(
        weights: &Weights,
        dtype: DType,
        device: &Device,
        build: impl FnOnce(&Builder) -> Result<N>,
    ) -> Result<(N, Self)> {
        Self::build(Source::Given(weights.clone()), dtype, device, build)
    }

    fn build<N>(
        source: Source,
        dtype: DType,
        device: &Device,
        build: impl FnOnce(&Builder) -> Result<N>,
    ) -> Result<(N, Self)> {
        let builder = Builder::new(source, true, dtype, device);
        let network = build(&builder)?;
        let mut params =
            Self { trainable: BTreeMap::new(), buffers: BTreeMap::new(), dtype, device: device.clone() };
        for (name, entry) in builder.finish()? {
            let Some(var) = entry.var else { continue };
            match entry.role {
                Role::Trainable => params.trainable.insert(name, var),
                Role::Buffer => params.buffers.insert(name, var),
            };
        }
        Ok((network, params))
    }

    /// The trainable parameters in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Var)> {
        self.trainable.iter().map(|(name, var)| (name.as_str(), var))
    }

    /// The trainable parameter of this name.
    pub fn get(&self, name: &str) -> Option<&Var> {
        self.trainable.get(name)
    }

    /// The number of trainable scalars.
    pub fn count(&self) -> usize {
        self.trainable.values().map(|var| var.elem_count()).sum()
    }

    /// The type of every parameter.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Where the parameters live.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// A copy of every value, buffers too.
    pub fn to_weights(&self) -> Result<Weights> {
        self.all().map(|(name, var)| Ok((name.clone(), var.as_detached_tensor().copy()?))).collect()
    }

    /// Overwrites every value, buffers too; networks built on these parameters see the new ones. On an error
    /// nothing changes.
    ///
    /// # Errors
    /// [`Error::Weights`] unless names and shapes are exactly those of the network.
    pub fn load(&self, weights: &Weights) -> Result<()> {
        let mut mismatch = WeightsMismatch::default();
        let mut values = Vec::new();
        for (name, var) in self.all() {
            match weights.get(name) {
                None => mismatch.missing.push(name.clone()),
                Some(value) if value.dims() != var.dims() => {
                    mismatch.misshapen.push((name.clone(), var.dims().to_vec(), value.dims().to_vec()));
                }
                // A copy: a variable cannot be set from a view of its own memory.
                Some(value) => {
                    values.push((var, value.to_dtype(self.dtype)?.to_device(&self.device)?.copy()?));
                }
            }
        }
        let known = |name: &str| self.trainable.contains_key(name) || self.buffers.contains_key(name);
        mismatch.unexpected =
            weights.iter().map(|(name, _)| name).filter(|n| !known(n)).map(Into::into).collect();
        mismatch.check()?;
        values.into_iter().try_for_each(|(var, value)| Ok(var.set(&value)?))
    }

    fn all(&self) -> impl Iterator<Item = (&String, &Var)> {
        self.trainable.iter().chain(&self.buffers)
    }
}

/// The number of trainable scalars of a network, without making any of their values.
///
/// # Errors
/// Those of `build`, and [`Error::DuplicateName`].
pub fn count_parameters<N>(build: impl FnOnce(&Builder) -> Result<N>) -> Result<usize> {
    let trainable = layout(build)?.into_values().filter(|entry| entry.role == Role::Trainable);
    Ok(trainable.map(|entry| entry.shape.iter().product::<usize>()).sum())
}

/// Name, shape, and whether training changes it, of every tensor of a network, without making any.
///
/// # Errors
/// Those of `build`, and [`Error::DuplicateName`].
pub(crate) fn layout<N>(build: impl FnOnce(&Builder) -> Result<N>) -> Result<BTreeMap<String, Entry>> {
    let builder = Builder::new(Source::Shapes, false, DType::F32, &Device::Cpu);
    build(&builder)?;
    builder.finish()
}

/// Plain tensors by name, sorted.
#[derive(Debug, Clone, Default)]
pub struct Weights(BTreeMap<String, Tensor>);

impl Weights {
    /// Builds a network from these weights with nothing on the tape, for sampling and evaluation.
    ///
    /// # Errors
    /// [`Error::Weights`] unless names and shapes are exactly those of the network.
    pub fn freeze<N>(
        &self,
        dtype: DType,
        device: &Device,
        build: impl FnOnce(&Builder) -> Result<N>,
    ) -> Result<N> {
        let builder = Builder::new(Source::Given(self.clone()), false, dtype, device);
        let network = build(&builder)?;
        builder.finish()?;
        Ok(network)
    }

    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.0.get(name)
    }

    /// The tensors in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.0.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// The number of tensors.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A safetensors file: no metadata, so equal weights are equal bytes.
    pub fn to_safetensors(&self) -> Result<Vec<u8>> {
        self.to_safetensors_with(None)
    }

    /// The same with one entry of metadata, a key and a text. (Of several the order would be another each time.)
    pub(crate) fn to_safetensors_with(&self, metadata: Option<(&str, String)>) -> Result<Vec<u8>> {
        let metadata = metadata.map(|(key, text)| [(key.to_owned(), text)].into());
        let contiguous: BTreeMap<&String, Tensor> =
            self.0.iter().map(|(name, tensor)| Ok((name, tensor.contiguous()?))).collect::<Result<_>>()?;
        safetensors::serialize(&contiguous, metadata).map_err(|error| Error::Format(error.into()))
    }

    /// The tensors of a safetensors file, in the types that it holds.
    ///
    /// # Errors
    /// [`Error::Format`] for anything that is not one, two tensors of one name, and more than 8 dimensions.
    pub fn from_safetensors(bytes: &[u8], device: &Device) -> Result<Self> {
        header::check(bytes)?;
        let tensors = candle_core::safetensors::load_buffer(bytes, device);
        Ok(Self(tensors.map_err(|error| Error::Format(error.into()))?.into_iter().collect()))
    }
}

impl FromIterator<(String, Tensor)> for Weights {
    fn from_iter<I: IntoIterator<Item = (String, Tensor)>>(tensors: I) -> Self {
        Self(tensors.into_iter().collect())
    }
}

impl IntoIterator for Weights {
    type Item = (String, Tensor);
    type IntoIter = std::collections::btree_map::IntoIter<String, Tensor>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
