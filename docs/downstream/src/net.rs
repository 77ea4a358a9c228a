//! Two hidden layers on the state and the logarithm of the time: `ε = C SiLU(B SiLU(A [x, log t, 1]) + b) + c`.

use candle_core::Tensor;
use sde_core::{Model, Pass, Prediction};
use sde_nets::{Builder, Init, Result, ops};

/// The network, for points of the plane.
pub struct Net {
    layers: Vec<(Tensor, Tensor)>,
}

impl Net {
    /// The network on the tensors of `b`.
    pub fn new(b: &Builder) -> Result<Self> {
        let layer = |(i, [inputs, outputs]): (usize, [usize; 2])| {
            let weight = b.pp(i).get(&[outputs, inputs], "weight", Init::FanAverage { scale: 1.0 })?;
            Ok((weight, b.pp(i).get(&[outputs], "bias", Init::Constant(0.0))?))
        };
        let layers = [[3, 128], [128, 128], [128, 2]].into_iter().enumerate().map(layer);
        Ok(Self { layers: layers.collect::<Result<_>>()? })
    }
}

impl Model for Net {
    fn prediction(&self) -> Prediction {
        Prediction::Noise
    }

    fn forward(&self, x: &Tensor, t: &Tensor, _: Pass<'_>) -> sde_core::Result<Tensor> {
        let mut hidden = Tensor::cat(&[x, &t.log()?.unsqueeze(1)?], 1)?;
        for (i, (weight, bias)) in self.layers.iter().enumerate() {
            let input = if i == 0 { hidden } else { ops::silu(&hidden)? };
            hidden = input.matmul(&weight.t()?)?.broadcast_add(bias)?;
        }
        Ok(hidden)
    }
}
