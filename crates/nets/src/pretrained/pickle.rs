//! PyTorch's `.pth` files, read without running what is in them.
//!
//! A `.pth` file is a pickle, a program for a small stack machine, and the bytes of its tensors beside it. Python's
//! machine can be made to call anything; this one knows the opcodes of plain data and a handful of names,
//! calls nothing, and names whatever else it meets with its offset. A tensor is looked at in the file's bytes, which
//! stay where they are, and copied when it is asked for; no size is believed before it was compared with the bytes
//! present.
//!
//! Reference: the Python standard library, `pickletools` (protocols 0–5, facts only); PyTorch's serialisation notes.
//! Differs: a key that stands twice in a dictionary, a tensor that shows more elements than its storage has, and an
//! archive whose storages overlap are refused.

pub(crate) mod container;
mod machine;
mod tensor;
mod tree;

use std::sync::Arc;

use candle_core::Tensor;

pub use tensor::StoredTensor;

use crate::{Error, Result, Weights};

/// What a pickle holds.
#[derive(Debug, Clone)]
pub enum Value {
    /// `None`.
    None,
    /// A truth value.
    Bool(bool),
    /// An integer of 64 bits at most.
    Int(i64),
    /// A float.
    Float(f64),
    /// A text.
    Text(Arc<str>),
    /// Bytes.
    Bytes(Arc<[u8]>),
    /// A list.
    List(Vec<Value>),
    /// A tuple, or a shape.
    Tuple(Vec<Value>),
    /// A dictionary, in the order of its making.
    Dict(Vec<(Value, Value)>),
    /// A module of TorchScript, by its attributes.
    Module(Vec<(Value, Value)>),
    /// A tensor, or a parameter.
    Tensor(StoredTensor),
}

/// The contents of a `.pth` file, as torch 1.6 and later write it (a zip archive) or as it was before.
///
/// # Errors
/// [`Error::Pth`] for anything else than plain data and tensors, with the offset in the pickle.
pub fn read_pth(bytes: Vec<u8>) -> Result<Value> {
    container::read(&Arc::new(bytes))
}

impl Value {
    /// The entry of a dictionary under a text.
    pub fn get(&self, key: &str) -> Option<&Self> {
        let Self::Dict(entries) = self else { return None };
        entries.iter().find_map(|(k, value)| matches!(k, Self::Text(k) if &**k == key).then_some(value))
    }

    /// The integer, if it is one.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(i) => Some(*i),
            _ => None,
        }
    }

    /// The elements of a list or tuple.
    pub fn as_list(&self) -> Option<&[Self]> {
        match self {
            Self::List(items) | Self::Tuple(items) => Some(items),
            _ => None,
        }
    }

    /// What it is, in a word or two.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Bool(_) => "a bool",
            Self::Int(_) => "an int",
            Self::Float(_) => "a float",
            Self::Text(_) => "a str",
            Self::Bytes(_) => "bytes",
            Self::List(_) => "a list",
            Self::Tuple(_) => "a tuple",
            Self::Dict(_) => "a dict",
            Self::Module(_) => "a module",
            Self::Tensor(_) => "a tensor",
        }
    }

    /// The tensors of a dictionary from names to tensors, or of a module and the modules in it under names such as
    /// `layers.conv.weight`, on the host.
    ///
    /// # Errors
    /// [`Error::Pth`] where it is none, or a tensor cannot be had.
    pub fn to_weights(&self) -> Result<Weights> {
        if let Self::Module(_) = self {
            let mut tensors = Vec::new();
            self.collect("", &mut tensors)?;
            return Ok(tensors.into_iter().collect());
        }
        let Self::Dict(entries) = self else {
            return Err(refused(format!("expected a dict of tensors, found {}", self.kind())));
        };
        let tensor = |(key, value): &(Self, Self)| match (key, value) {
            (Self::Text(key), Self::Tensor(tensor)) => Ok((key.to_string(), tensor.to_tensor()?)),
            (Self::Text(key), other) => {
                Err(refused(format!("{key:?}: expected a tensor, found {}", other.kind())))
            }
            (key, _) => {
                Err(refused(format!("expected a dict whose keys are str, found {} as a key", key.kind())))
            }
        };
        entries.iter().map(tensor).collect()
    }

    /// Tensors of a module; its other attributes are settings of its code.
    fn collect(&self, prefix: &str, tensors: &mut Vec<(String, Tensor)>) -> Result<()> {
        let Self::Module(attributes) = self else { return Ok(()) };
        for (key, value) in attributes {
            let Self::Text(key) = key else { continue };
            match value {
                Self::Tensor(tensor) => tensors.push((format!("{prefix}{key}"), tensor.to_tensor()?)),
                other => other.collect(&format!("{prefix}{key}."), tensors)?,
            }
        }
        Ok(())
    }
}

/// An error of a `.pth` file.
fn refused(why: impl Into<String>) -> Error {
    Error::Pth(why.into())
}
