//! A stage of the U-Net: blocks and attentions one after the other, with the state that comes back at their head.
//!
//! A stage is what activation checkpointing runs again.

use std::sync::Arc;

use candle_core::Tensor;
use sde_core::noise::BatchNoise;

use super::attention_block::AttentionBlock;
use super::residual_block::ResidualBlock;
use crate::replay::{self, Segment};
use crate::{Builder, Result};

#[derive(Debug)]
enum Part {
    Block(ResidualBlock),
    Attention(AttentionBlock),
}

/// What the path of a stage holds.
#[derive(Debug, Default)]
struct Parts {
    parts: Vec<Part>,
    variables: Vec<Tensor>,
}

#[derive(Debug)]
pub(super) struct Stage {
    parts: Arc<Parts>,
    checkpoint: bool,
}

/// The parts of a stage that is being built.
pub(super) struct Stages(Parts);

impl Stages {
    pub(super) fn new() -> Self {
        Self(Parts::default())
    }

    /// Adds a block, whose parameters are below `b`.
    pub(super) fn block(mut self, b: &Builder, block: ResidualBlock) -> Self {
        self.0.parts.push(Part::Block(block));
        self.0.variables.extend(b.variables());
        self
    }

    /// Adds attention, where there is any, whose parameters are below `b`.
    pub(super) fn attention(mut self, b: &Builder, attention: Option<AttentionBlock>) -> Self {
        if let Some(attention) = attention {
            self.0.parts.push(Part::Attention(attention));
            self.0.variables.extend(b.variables());
        }
        self
    }

    /// The stage; with `checkpoint` it keeps no tape and is run again.
    pub(super) fn stage(self, checkpoint: bool) -> Stage {
        Stage { parts: Arc::new(self.0), checkpoint }
    }
}

impl Stage {
    /// From the state `x`, to which `skip` is concatenated if there is one.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        skip: Option<&Tensor>,
        embedding: &Tensor,
        dropout: Option<&BatchNoise>,
    ) -> Result<Tensor> {
        let inputs: Vec<&Tensor> = [Some(x), skip, Some(embedding)].into_iter().flatten().collect();
        if !self.checkpoint {
            return self.parts.run(&inputs, dropout);
        }
        let pass = OnePass { parts: self.parts.clone(), dropout: dropout.cloned() };
        replay::checkpointed(Arc::new(pass), &inputs)
    }
}

impl Parts {
    /// `inputs`: the state, the one that comes back if any, the embedding.
    fn run(&self, inputs: &[&Tensor], dropout: Option<&BatchNoise>) -> Result<Tensor> {
        let [states @ .., embedding] = inputs else {
            return Err(candle_core::Error::Msg("a stage without inputs".into()).into());
        };
        let mut h = Tensor::cat(states, 1)?;
        for part in &self.parts {
            h = match part {
                Part::Block(block) => block.forward(&h, embedding, dropout)?,
                Part::Attention(attention) => attention.forward(&h)?,
            };
        }
        Ok(h)
    }
}

/// A stage in one forward pass: what its replay needs besides its inputs.
struct OnePass {
    parts: Arc<Parts>,
    dropout: Option<BatchNoise>,
}

impl Segment for OnePass {
    fn run(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        self.parts.run(inputs, self.dropout.as_ref())
    }

    fn variables(&self) -> &[Tensor] {
        &self.parts.variables
    }
}
