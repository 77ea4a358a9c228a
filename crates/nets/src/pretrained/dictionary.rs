//! Two layouts of the same network: every tensor under our name and under theirs, and how one becomes the other.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::Tensor;

use crate::error::WeightsMismatch;
use crate::{Error, Result, Weights};

/// How their tensor holds what ours, `[out, in, 1, 1]` where forms differ, does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// The same numbers in the same shape.
    Same,
    /// `[out, in]`: a linear map of channels.
    Linear,
    /// `[in, out]`: a linear map that multiplies from the right.
    Transposed,
    /// The same shape, every number negated.
    Negative,
}

impl Form {
    /// Their shape of our tensor.
    fn shape(self, ours: &[usize]) -> Vec<usize> {
        match (self, ours) {
            (Self::Linear, &[out, inputs, ..]) => vec![out, inputs],
            (Self::Transposed, &[out, inputs, ..]) => vec![inputs, out],
            _ => ours.to_vec(),
        }
    }

    /// Our tensor of theirs, which has the right shape.
    fn read(self, theirs: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::Same => theirs.clone(),
            Self::Linear => theirs.unsqueeze(2)?.unsqueeze(3)?,
            Self::Transposed => theirs.t()?.contiguous()?.unsqueeze(2)?.unsqueeze(3)?,
            Self::Negative => theirs.neg()?,
        })
    }

    /// Their tensor of ours.
    fn write(self, ours: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::Same => ours.clone(),
            Self::Linear => ours.squeeze(3)?.squeeze(2)?,
            Self::Transposed => ours.squeeze(3)?.squeeze(2)?.t()?.contiguous()?,
            Self::Negative => ours.neg()?,
        })
    }
}

/// A tensor of a network in two layouts.
#[derive(Debug, Clone)]
pub(crate) struct Word {
    /// Our name.
    pub ours: String,
    /// Our shape.
    pub shape: Vec<usize>,
    /// Their names: the one that is written, and older ones.
    pub theirs: Vec<String>,
    /// How their tensor is related to ours.
    pub form: Form,
}

/// Every tensor of a network.
#[derive(Debug, Clone)]
pub(crate) struct Dictionary(pub Vec<Word>);

impl Dictionary {
    /// Our weights of theirs; names for which `ignored` holds may be left over.
    ///
    /// # Errors
    /// [`Error::Weights`] under their names and shapes.
    pub(crate) fn read(&self, file: &Weights, ignored: impl Fn(&str) -> bool) -> Result<Weights> {
        let shapes = file.iter().map(|(name, tensor)| (name.to_owned(), tensor.dims().to_vec())).collect();
        self.check(&shapes, ignored)?;
        let found = |word: &Word| word.theirs.iter().find_map(|name| file.get(name));
        let words = self.0.iter().filter_map(|word| Some((word, found(word)?)));
        words.map(|(word, tensor)| Ok((word.ours.clone(), word.form.read(tensor)?))).collect()
    }

    /// Compares their names and shapes with those that are there.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(crate) fn check(
        &self,
        shapes: &BTreeMap<String, Vec<usize>>,
        ignored: impl Fn(&str) -> bool,
    ) -> Result<()> {
        let (mut mismatch, mut used) = (WeightsMismatch::default(), BTreeSet::new());
        for Word { shape, theirs, form, .. } in &self.0 {
            let Some((name, found)) = theirs.iter().find_map(|name| shapes.get_key_value(name)) else {
                mismatch.missing.push(theirs.first().cloned().unwrap_or_default());
                continue;
            };
            used.insert(name.as_str());
            let expected = form.shape(shape);
            if *found != expected {
                mismatch.misshapen.push((name.clone(), expected, found.clone()));
            }
        }
        let left = shapes.keys().filter(|name| !used.contains(name.as_str()) && !ignored(name));
        mismatch.unexpected = left.cloned().collect();
        mismatch.check()
    }

    /// Their weights of ours.
    ///
    /// # Errors
    /// [`Error::Weights`] where ours are not those of the network.
    pub(crate) fn write(&self, weights: &Weights) -> Result<Weights> {
        let ours: BTreeMap<&str, &Tensor> = weights.iter().collect();
        let write = |word: &Word| match (ours.get(word.ours.as_str()), word.theirs.first()) {
            (Some(tensor), Some(name)) => Ok((name.clone(), word.form.write(tensor)?)),
            _ => Err(Error::Weights(WeightsMismatch {
                missing: vec![word.ours.clone()],
                ..Default::default()
            })),
        };
        self.0.iter().map(write).collect()
    }
}
