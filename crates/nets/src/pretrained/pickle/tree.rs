//! From the nodes of a pickle, which refer to each other by number, to a tree of values.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use super::machine::{Id, MOST_NODES, Node, Storage};
use super::tensor::StoredTensor;
use super::{Value, refused};
use crate::Result;

const DEEPEST: usize = 64;

/// A tree in the making.
pub(super) struct Unfolding<'a> {
    pub nodes: &'a [Node],
    pub file: &'a Arc<Vec<u8>>,
    pub locate: &'a mut dyn FnMut(&Storage) -> Result<Range<usize>>,
    /// The nodes that it may still have.
    pub budget: usize,
}

impl Unfolding<'_> {
    /// What a node holds, `depth` below the root.
    pub(super) fn value(&mut self, id: Id, depth: usize) -> Result<Value> {
        if depth > DEEPEST {
            return Err(refused(format!("nested more than {DEEPEST} deep")));
        }
        self.budget = self.budget.checked_sub(1).ok_or_else(|| {
            refused(format!("things that refer to each other until they are more than {MOST_NODES}"))
        })?;
        let nodes = self.nodes;
        Ok(match &nodes[id] {
            Node::Leaf(value) => value.clone(),
            Node::List(items) => Value::List(self.values(items, depth)?),
            Node::Tuple(items) => Value::Tuple(self.values(items, depth)?),
            Node::Dict(entries) => Value::Dict(self.entries(entries, depth)?),
            Node::Object(None) => Value::Module(Vec::new()),
            Node::Object(Some(attributes)) => match self.value(*attributes, depth + 1)? {
                Value::Dict(entries) => Value::Module(entries),
                _ => return Err(refused("attributes of a module that are no dict")),
            },
            Node::Tensor(storage, claims) => {
                let Node::Storage(storage) = &nodes[*storage] else {
                    return Err(refused("a tensor without a storage"));
                };
                let bytes = (self.locate)(storage)?;
                Value::Tensor(StoredTensor::new(self.file, bytes, storage.dtype, claims)?)
            }
            Node::Global(name) => {
                return Err(refused(format!("the bare name {name:?}, where data was expected")));
            }
            Node::Storage(storage) => {
                return Err(refused(format!("the bare storage {:?}, where data was expected", storage.key)));
            }
        })
    }

    fn entries(&mut self, entries: &[(Id, Id)], depth: usize) -> Result<Vec<(Value, Value)>> {
        let mut keys = BTreeSet::new();
        let mut unfolded = Vec::new();
        for &(key, value) in entries {
            let (key, value) = (self.value(key, depth + 1)?, self.value(value, depth + 1)?);
            if let Value::Text(text) = &key
                && !keys.insert(text.clone())
            {
                return Err(refused(format!("the key {text:?} stands twice in a dict")));
            }
            unfolded.push((key, value));
        }
        Ok(unfolded)
    }

    fn values(&mut self, items: &[Id], depth: usize) -> Result<Vec<Value>> {
        items.iter().map(|&id| self.value(id, depth + 1)).collect()
    }
}
