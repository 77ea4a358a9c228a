//! The published networks for CIFAR-10, as configurations, with the number of their parameters.
//!
//! Reference: Ho, Jain, Abbeel 2020, arXiv 2006.11239, appendix B; Song et al. 2021, arXiv 2011.13456,
//! appendix H; Karras et al. 2022, arXiv 2206.00364, Table 7 and appendix F.

use sde_core::Prediction;

use super::{Resampling, UnetConfig, UpAttention};
use crate::{Precondition, TimeFeatures};

/// The sinusoids of all published networks for CIFAR-10 that have sinusoids.
fn sinusoids(time_scale: f64, time_shift: f64) -> TimeFeatures {
    let (max_period, freq_shift, flip_sin_to_cos) = (10_000.0, 1, false);
    TimeFeatures::Sinusoidal { max_period, freq_shift, flip_sin_to_cos, time_scale, time_shift }
}

impl UnetConfig {
    /// Ho et al.'s DDPM, for the process `ddpm` with times 1 … 1000: 35,746,307 parameters.
    pub fn ho_ddpm() -> Self {
        Self {
            prediction: Prediction::Noise,
            channels: 128,
            multipliers: vec![1, 2, 2, 2],
            blocks: 2,
            attention: vec![16],
            up_attention: UpAttention::EveryBlock,
            heads: 1,
            head_channels: None,
            dropout: 0.1,
            resampling: Resampling::Conv,
            pyramid: false,
            rescale: false,
            scale_shift: false,
            groups: None,
            epsilon: None,
            pointwise_scale: None,
            classes: None,
            one_hot: false,
            augment: None,
            centre: false,
            checkpoint: false,
            time_dim: None,
            time: sinusoids(1.0, -1.0),
            precondition: None,
        }
    }

    /// Song et al.'s DDPM, for the processes `vp` and `subvp`: 35,218,947 parameters.
    pub fn song_ddpm() -> Self {
        Self {
            up_attention: UpAttention::LastBlock,
            pointwise_scale: Some(0.1),
            time: sinusoids(999.0, 0.0),
            ..Self::ho_ddpm()
        }
    }

    /// DDPM++, for the processes `vp` and `subvp`: 61,804,419 parameters with four blocks, 106,632,579 with eight
    /// ("deep").
    pub fn ddpmpp(blocks: usize) -> Self {
        Self { blocks, resampling: Resampling::BlockPool, rescale: true, ..Self::song_ddpm() }
    }

    /// NCSN++, for the process `ve` with σ from 0.01 to 50 and data in [0, 1]: 62,758,787 parameters with four blocks,
    /// 107,586,947 with eight ("deep"). Its features are of log σ, which is affine in t.
    pub fn ncsnpp(blocks: usize) -> Self {
        let (sigma_min, sigma_max) = (0.01f64, 50.0f64);
        Self {
            resampling: Resampling::BlockFir,
            pyramid: true,
            centre: true,
            time_dim: Some(256),
            time: TimeFeatures::Fourier {
                std: 16.0,
                log: false,
                time_scale: (sigma_max / sigma_min).ln(),
                time_shift: sigma_min.ln(),
            },
            ..Self::ddpmpp(blocks)
        }
    }

    /// Karras et al.'s DDPM++, for the process `edm`, with the label of augmentations: 55,733,891 parameters, or
    /// 55,735,299 with ten classes.
    pub fn edm_ddpmpp(classes: Option<usize>) -> Self {
        Self {
            prediction: Prediction::Data,
            multipliers: vec![2, 2, 2],
            dropout: 0.13,
            classes,
            one_hot: classes.is_some(),
            augment: Some(9),
            time: sinusoids(1.0, 0.0),
            precondition: Some(Precondition::Edm { sigma_data: 0.5 }),
            ..Self::ddpmpp(4)
        }
    }

    /// Karras et al.'s NCSN++, likewise: 56,397,827 parameters, or 56,400,643 with ten classes.
    pub fn edm_ncsnpp(classes: Option<usize>) -> Self {
        Self {
            resampling: Resampling::BlockFir,
            pyramid: true,
            time_dim: Some(256),
            time: TimeFeatures::Fourier { std: 16.0, log: false, time_scale: 1.0, time_shift: 0.0 },
            ..Self::edm_ddpmpp(classes)
        }
    }
}
