//! Every operator of a U-Net and how often it occurs, found by walking its configuration as `sde_nets::Unet` does.
//!
//! The number of parameters that the inventory implies is a check on the walk.

use sde_nets::{Resampling, UnetConfig, UpAttention};

use super::case::{Operator, Pass};
use super::flops::Work;

/// An operator, and how often one forward pass and one training step use it.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// The operator.
    pub op: Operator,
    /// How often it occurs.
    pub count: usize,
    /// How often the gradient of its input is wanted: not where the input is data.
    pub differentiated: usize,
}

impl Item {
    /// The passes that a training step makes, and how often.
    pub fn passes(&self) -> Vec<(Pass, usize)> {
        match self.op {
            Operator::Conv { .. } => vec![
                (Pass::Forward, self.count),
                (Pass::InputGradient, self.differentiated),
                (Pass::WeightGradient, self.count),
            ],
            _ => vec![(Pass::Forward, self.count), (Pass::Backward, self.differentiated)],
        }
    }
}

/// The operators of a U-Net for images of `channels`×`size`×`size`, by first occurrence.
pub fn inventory(config: &UnetConfig, channels: usize, size: usize) -> Vec<Item> {
    let mut walk = Walk { config, items: Vec::new(), channels: config.channels, size };
    walk.run(channels);
    walk.items
}

/// Operations of a forward pass over one sample, and of forward and backward.
pub fn flops(items: &[Item]) -> [f64; 2] {
    let of = |item: &Item, pass, count: usize| match item.op.work(pass, 1) {
        Work::Flops(n) => n * count as f64,
        Work::Bytes(_) => 0.0,
    };
    let forward = items.iter().map(|item| of(item, Pass::Forward, item.count)).sum();
    let all = items.iter().flat_map(|item| item.passes().into_iter().map(move |(p, n)| of(item, p, n))).sum();
    [forward, all]
}

/// Trainable scalars.
pub fn parameters(items: &[Item]) -> usize {
    let of = |op: &Operator| match *op {
        Operator::Conv { inputs, outputs, kernel, .. } => (inputs * kernel * kernel + 1) * outputs,
        Operator::GroupNorm { channels, .. } => 2 * channels,
        Operator::Linear { inputs, outputs } => (inputs + 1) * outputs,
        _ => 0,
    };
    items.iter().map(|item| item.count * of(&item.op)).sum()
}

struct Walk<'a> {
    config: &'a UnetConfig,
    items: Vec<Item>,
    /// Channels of the state.
    channels: usize,
    size: usize,
}

impl Walk<'_> {
    fn run(&mut self, image: usize) {
        let config = self.config;
        let (channels, embedding) = (config.channels, 4 * config.channels);
        self.add(Operator::Linear { inputs: channels, outputs: embedding });
        self.add(Operator::Linear { inputs: embedding, outputs: embedding });
        self.push(self.conv(image, channels, 3), 0);
        let mut skips = vec![channels];
        let last = config.multipliers.len().saturating_sub(1);
        for (level, multiplier) in config.multipliers.iter().enumerate() {
            for _ in 0..config.blocks {
                self.block(self.channels, channels * multiplier);
                self.attention(config.attention.contains(&self.size));
                skips.push(self.channels);
            }
            if level < last {
                if config.resampling == Resampling::Conv {
                    let (inputs, size) = (self.channels, self.size);
                    self.add(Operator::Conv { inputs, outputs: inputs, kernel: 3, stride: 2, size });
                }
                self.size /= 2;
                skips.push(self.channels);
            }
        }
        for with_attention in [true, false] {
            self.block(self.channels, self.channels);
            self.attention(with_attention);
        }
        for (level, multiplier) in config.multipliers.iter().enumerate().rev() {
            for block in 0..=config.blocks {
                let (left, right) = (self.channels, skips.pop().unwrap_or_default());
                self.add(Operator::Concat { left, right, size: self.size });
                self.block(left + right, channels * multiplier);
                let here = config.up_attention == UpAttention::EveryBlock || block == config.blocks;
                self.attention(here && config.attention.contains(&self.size));
            }
            if level > 0 {
                self.add(Operator::Upsample { channels: self.channels, size: self.size });
                self.size *= 2;
                if config.resampling == Resampling::Conv {
                    self.add(self.conv(self.channels, self.channels, 3));
                }
            }
        }
        self.add(self.norm(self.channels, true));
        self.add(self.conv(self.channels, image, 3));
    }

    fn block(&mut self, inputs: usize, outputs: usize) {
        self.add(self.norm(inputs, true));
        self.add(self.conv(inputs, outputs, 3));
        self.add(Operator::Linear { inputs: 4 * self.config.channels, outputs });
        self.add(self.norm(outputs, true));
        if self.config.dropout > 0.0 {
            self.add(Operator::Dropout { channels: outputs, size: self.size });
        }
        self.add(self.conv(outputs, outputs, 3));
        if inputs != outputs {
            self.add(self.conv(inputs, outputs, 1));
        }
        self.add(Operator::Add { channels: outputs, size: self.size });
        self.channels = outputs;
    }

    fn attention(&mut self, here: bool) {
        if !here {
            return;
        }
        let (channels, size) = (self.channels, self.size);
        self.add(self.norm(channels, false));
        self.add(Operator::Attention { channels, heads: self.config.heads, size });
        for _ in 0..4 {
            self.add(self.conv(channels, channels, 1));
        }
        self.add(Operator::Add { channels, size });
    }

    fn conv(&self, inputs: usize, outputs: usize, kernel: usize) -> Operator {
        Operator::Conv { inputs, outputs, kernel, stride: 1, size: self.size }
    }

    fn norm(&self, channels: usize, silu: bool) -> Operator {
        let groups = self.config.groups.unwrap_or((channels / 4).clamp(1, 32));
        Operator::GroupNorm { channels, groups, silu, size: self.size }
    }

    fn add(&mut self, op: Operator) {
        self.push(op, 1);
    }

    fn push(&mut self, op: Operator, differentiated: usize) {
        match self.items.iter_mut().find(|item| item.op == op) {
            Some(item) => {
                item.count += 1;
                item.differentiated += differentiated;
            }
            None => self.items.push(Item { op, count: 1, differentiated }),
        }
    }
}
