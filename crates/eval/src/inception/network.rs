//! Inception-V3 as the FID has it: the blocks of the 2015 graph, which are not those of the paper or of other ports.
//!
//! ```text
//! 1a /2 · 2a · 2b · max /2 → 64     3b · 4a · max /2 → 192     5b 5c 5d · 6a /2 · 6b 6c 6d 6e → 768     7a /2 · 7b 7c · mean → 2048
//! ```
//!
//! A mean over a 3×3 square counts the pixels inside of the image only, and the last block has a largest value where
//! the block before has a mean.
//!
//! Reference: Szegedy et al. 2015, arXiv 1512.00567; Heusel et al. 2017, arXiv 1706.08500, and the weights they published.
//! Differs: a mean of pixels and a 1×1 convolution commute, and the convolution, which leaves fewer channels, comes first.

use candle_core::{Device, Tensor};
use sde_nets::ops::{avg_pool_3x3, linear, max_pool_3x3};
use sde_nets::{Builder, Result, Weights};

use super::layer::{Fit, Layer, Place};

const ONE: [usize; 2] = [1, 1];
const THREE: [usize; 2] = [3, 3];

/// Layers in a row.
type Chain = Vec<Layer>;

/// The convolutions `names` at a place, each with its outputs, kernel and fit.
fn chain(place: &Place<'_>, inputs: usize, layers: &[(&str, usize, [usize; 2], Fit)]) -> Result<Chain> {
    let mut inputs = inputs;
    let make = |&(name, outputs, kernel, fit): &(&str, usize, [usize; 2], Fit)| {
        let layer = Layer::new(&place.at(name), [inputs, outputs], kernel, fit);
        inputs = outputs;
        layer
    };
    layers.iter().map(make).collect()
}

fn run(chain: &[Layer], x: &Tensor) -> Result<Tensor> {
    chain.iter().try_fold(x.clone(), |x, layer| layer.forward(&x))
}

/// The network.
#[derive(Debug, Clone)]
pub(super) struct Network {
    /// Up to the first and to the second pooling.
    stem: [Chain; 2],
    mixed_5: Vec<BlockA>,
    mixed_6a: BlockB,
    mixed_6: Vec<BlockC>,
    mixed_7a: BlockD,
    mixed_7: Vec<BlockE>,
    /// Weight and bias of the classifier.
    classifier: Option<[Tensor; 2]>,
}

impl Network {
    /// The network of the given weights, whose classifier has so many classes.
    pub(super) fn new(
        builder: &Builder,
        weights: &Weights,
        classes: Option<usize>,
        device: &Device,
    ) -> Result<Self> {
        let top = Place::new(builder, weights, device);
        let (same, inside) = (Fit::Same, Fit::Inside(1));
        let first = [
            ("Conv2d_1a_3x3", 32, THREE, Fit::Inside(2)),
            ("Conv2d_2a_3x3", 32, THREE, inside),
            ("Conv2d_2b_3x3", 64, THREE, same),
        ];
        let second = [("Conv2d_3b_1x1", 80, ONE, same), ("Conv2d_4a_3x3", 192, THREE, inside)];
        let a = [("5b", 192, 32), ("5c", 256, 64), ("5d", 288, 64)];
        let c = [("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)];
        let e = [("7b", 1280, false), ("7c", 2048, true)];
        let mixed = |name: &str| top.at(&format!("Mixed_{name}"));
        let classifier = match classes {
            None => None,
            Some(classes) => {
                let fc = top.at("fc");
                Some([fc.get(&[classes, 2048], "weight")?, fc.get(&[classes], "bias")?])
            }
        };
        Ok(Self {
            stem: [chain(&top, 3, &first)?, chain(&top, 64, &second)?],
            mixed_5: a
                .map(|(name, inputs, pool)| BlockA::new(&mixed(name), inputs, pool))
                .into_iter()
                .collect::<Result<_>>()?,
            mixed_6a: BlockB::new(&mixed("6a"))?,
            mixed_6: c
                .map(|(name, width)| BlockC::new(&mixed(name), width))
                .into_iter()
                .collect::<Result<_>>()?,
            mixed_7a: BlockD::new(&mixed("7a"))?,
            mixed_7: e
                .map(|(name, inputs, last)| BlockE::new(&mixed(name), inputs, last))
                .into_iter()
                .collect::<Result<_>>()?,
            classifier,
        })
    }

    /// Up to 64 channels.
    pub(super) fn to_64(&self, x: &Tensor) -> Result<Tensor> {
        max_pool_3x3(&run(&self.stem[0], x)?, 2, false)
    }

    /// From 64 channels to 192.
    pub(super) fn to_192(&self, x: &Tensor) -> Result<Tensor> {
        max_pool_3x3(&run(&self.stem[1], x)?, 2, false)
    }

    /// From 192 channels to the input of `Mixed_6d`.
    pub(super) fn to_mixed_6d(&self, x: &Tensor) -> Result<Tensor> {
        let x = self.mixed_5.iter().try_fold(x.clone(), |x, block| block.forward(&x))?;
        let x = self.mixed_6a.forward(&x)?;
        self.mixed_6.iter().take(2).try_fold(x, |x, block| block.forward(&x))
    }

    /// The first branch of `Mixed_6d`, of its input.
    pub(super) fn mixed_6d_first(&self, x: &Tensor) -> Result<Tensor> {
        run(self.mixed_6.get(2).map(|block| block.first.as_slice()).unwrap_or_default(), x)
    }

    /// From the input of `Mixed_6d` to 768 channels.
    pub(super) fn to_768(&self, x: &Tensor) -> Result<Tensor> {
        self.mixed_6.iter().skip(2).try_fold(x.clone(), |x, block| block.forward(&x))
    }

    /// From 768 channels to 2048.
    pub(super) fn to_2048(&self, x: &Tensor) -> Result<Tensor> {
        let x = self.mixed_7a.forward(x)?;
        self.mixed_7.iter().try_fold(x, |x, block| block.forward(&x))
    }

    /// The classes that the classifier tells apart.
    pub(super) fn classes(&self) -> Option<usize> {
        self.classifier.as_ref().and_then(|[weight, _]| weight.dims().first().copied())
    }

    /// Logits from means over 2048 channels, with the bias or without.
    pub(super) fn logits(&self, means: &Tensor, biased: bool) -> Result<Option<Tensor>> {
        let Some([weight, bias]) = &self.classifier else { return Ok(None) };
        let bias = if biased { bias.clone() } else { bias.zeros_like()? };
        linear(means, weight, &bias).map(Some)
    }
}

/// The mean of pixels and a 1×1 convolution.
fn mean_branch(layer: &Layer, x: &Tensor) -> Result<Tensor> {
    Ok(avg_pool_3x3(&layer.linear(x)?)?.relu()?)
}

/// 35×35: kernels of 1, 5, and twice 3.
#[derive(Debug, Clone)]
struct BlockA {
    branches: [Chain; 3],
    pool: Layer,
}

impl BlockA {
    fn new(place: &Place<'_>, inputs: usize, pool: usize) -> Result<Self> {
        let same = Fit::Same;
        Ok(Self {
            branches: [
                chain(place, inputs, &[("branch1x1", 64, ONE, same)])?,
                chain(place, inputs, &[("branch5x5_1", 48, ONE, same), ("branch5x5_2", 64, [5, 5], same)])?,
                chain(
                    place,
                    inputs,
                    &[
                        ("branch3x3dbl_1", 64, ONE, same),
                        ("branch3x3dbl_2", 96, THREE, same),
                        ("branch3x3dbl_3", 96, THREE, same),
                    ],
                )?,
            ],
            pool: Layer::new(&place.at("branch_pool"), [inputs, pool], ONE, same)?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let [a, b, c] = &self.branches;
        Ok(Tensor::cat(&[run(a, x)?, run(b, x)?, run(c, x)?, mean_branch(&self.pool, x)?], 1)?)
    }
}

/// From 35×35 to 17×17.
#[derive(Debug, Clone)]
struct BlockB {
    branches: [Chain; 2],
}

impl BlockB {
    fn new(place: &Place<'_>) -> Result<Self> {
        let (same, halve) = (Fit::Same, Fit::Inside(2));
        let double = [
            ("branch3x3dbl_1", 64, ONE, same),
            ("branch3x3dbl_2", 96, THREE, same),
            ("branch3x3dbl_3", 96, THREE, halve),
        ];
        let branches = [chain(place, 288, &[("branch3x3", 384, THREE, halve)])?, chain(place, 288, &double)?];
        Ok(Self { branches })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let [a, b] = &self.branches;
        Ok(Tensor::cat(&[run(a, x)?, run(b, x)?, max_pool_3x3(x, 2, false)?], 1)?)
    }
}

/// 17×17: kernels of 1, and of 7 in one direction after the other.
#[derive(Debug, Clone)]
struct BlockC {
    first: Chain,
    branches: [Chain; 2],
    pool: Layer,
}

impl BlockC {
    fn new(place: &Place<'_>, width: usize) -> Result<Self> {
        let (same, across, down) = (Fit::Same, [1, 7], [7, 1]);
        let single = [
            ("branch7x7_1", width, ONE, same),
            ("branch7x7_2", width, across, same),
            ("branch7x7_3", 192, down, same),
        ];
        let double = [
            ("branch7x7dbl_1", width, ONE, same),
            ("branch7x7dbl_2", width, down, same),
            ("branch7x7dbl_3", width, across, same),
            ("branch7x7dbl_4", width, down, same),
            ("branch7x7dbl_5", 192, across, same),
        ];
        Ok(Self {
            first: chain(place, 768, &[("branch1x1", 192, ONE, same)])?,
            branches: [chain(place, 768, &single)?, chain(place, 768, &double)?],
            pool: Layer::new(&place.at("branch_pool"), [768, 192], ONE, same)?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let [b, c] = &self.branches;
        Ok(Tensor::cat(&[run(&self.first, x)?, run(b, x)?, run(c, x)?, mean_branch(&self.pool, x)?], 1)?)
    }
}

/// From 17×17 to 8×8.
#[derive(Debug, Clone)]
struct BlockD {
    branches: [Chain; 2],
}

impl BlockD {
    fn new(place: &Place<'_>) -> Result<Self> {
        let (same, halve) = (Fit::Same, Fit::Inside(2));
        let single = [("branch3x3_1", 192, ONE, same), ("branch3x3_2", 320, THREE, halve)];
        let long = [
            ("branch7x7x3_1", 192, ONE, same),
            ("branch7x7x3_2", 192, [1, 7], same),
            ("branch7x7x3_3", 192, [7, 1], same),
            ("branch7x7x3_4", 192, THREE, halve),
        ];
        Ok(Self { branches: [chain(place, 768, &single)?, chain(place, 768, &long)?] })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let [a, b] = &self.branches;
        Ok(Tensor::cat(&[run(a, x)?, run(b, x)?, max_pool_3x3(x, 2, false)?], 1)?)
    }
}

/// 8×8: kernels of 1, and of 3 in both directions side by side.
#[derive(Debug, Clone)]
struct BlockE {
    first: Chain,
    /// What leads to a pair, and the pair.
    pairs: [(Chain, [Layer; 2]); 2],
    pool: Layer,
    /// Whether it pools by the largest value.
    largest: bool,
}

impl BlockE {
    fn new(place: &Place<'_>, inputs: usize, largest: bool) -> Result<Self> {
        let same = Fit::Same;
        let pair = |names: [&str; 2]| -> Result<[Layer; 2]> {
            let [across, down] = names.map(|name| place.at(name));
            let size = [384, 384];
            Ok([Layer::new(&across, size, [1, 3], same)?, Layer::new(&down, size, [3, 1], same)?])
        };
        let single = [("branch3x3_1", 384, ONE, same)];
        let double = [("branch3x3dbl_1", 448, ONE, same), ("branch3x3dbl_2", 384, THREE, same)];
        Ok(Self {
            first: chain(place, inputs, &[("branch1x1", 320, ONE, same)])?,
            pairs: [
                (chain(place, inputs, &single)?, pair(["branch3x3_2a", "branch3x3_2b"])?),
                (chain(place, inputs, &double)?, pair(["branch3x3dbl_3a", "branch3x3dbl_3b"])?),
            ],
            pool: Layer::new(&place.at("branch_pool"), [inputs, 192], ONE, same)?,
            largest,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut parts = vec![run(&self.first, x)?];
        for (lead, pair) in &self.pairs {
            let x = run(lead, x)?;
            pair.iter().try_for_each(|layer| layer.forward(&x).map(|part| parts.push(part)))?;
        }
        parts.push(match self.largest {
            true => self.pool.forward(&max_pool_3x3(x, 1, true)?)?,
            false => mean_branch(&self.pool, x)?,
        });
        Ok(Tensor::cat(&parts, 1)?)
    }
}
