//! Features of the time: sinusoids of fixed or random frequencies, or of learned phases.
//!
//! The time t is first mapped to `τ = time_scale · t + time_shift` (or of ln t). With H = dim / 2
//! frequencies,
//!
//! ```text
//! sinusoidal   ω_i = max_period^(−i / (H − freq_shift))    [sin τω, cos τω], or flipped [cos τω, sin τω]
//! fourier      ω_i = 2π · std · z_i, z_i ~ N(0, 1) fixed   [sin τω, cos τω]
//! phases       ω_i even from slowest to fastest, φ_i learned   [sin(τω + φ), cos(τω + φ)]
//! ```
//!
//! The published networks read as: Ho et al., discrete times 1…N: sinusoidal, freq_shift 1, scale 1, shift
//! −1. Song et al., continuous VP: sinusoidal, freq_shift 1, scale 999. Song et al., VE: Fourier of ln σ(t),
//! which is affine in t. EDM: Fourier or sinusoidal of ¼ ln σ.
//!
//! Reference: Vaswani et al. 2017, arXiv 1706.03762, section 3.5; Tancik et al. 2020, arXiv 2006.10739; Song
//! et al. 2021, arXiv 2011.13456, appendix C; Zhang, Chen 2021, arXiv 2110.07579, for learned phases.

use std::f64::consts::TAU;

use candle_core::Tensor;
use sde_core::noise::host_tensor;
use serde::{Deserialize, Serialize};

use crate::layers::Linear;
use crate::{Builder, Error, Init, Result, ops};

/// What a network sees of the time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum TimeFeatures {
    /// Frequencies in a geometric sequence.
    Sinusoidal {
        /// The slowest frequency is about 1 / `max_period`.
        max_period: f64,
        /// 1 makes the last frequency exactly 1 / `max_period`; 0 stops one short of it.
        freq_shift: usize,
        /// Cosines first.
        flip_sin_to_cos: bool,
        /// The factor of the time.
        time_scale: f64,
        /// Added after the factor.
        time_shift: f64,
    },
    /// Random frequencies, drawn once and kept as a buffer.
    Fourier {
        /// The standard deviation of the frequencies, in cycles per unit of τ.
        std: f64,
        /// Whether the logarithm of the time is taken first.
        log: bool,
        /// The factor of the time.
        time_scale: f64,
        /// Added after the factor.
        time_shift: f64,
    },
    /// Frequencies in an arithmetic sequence, with learned phases.
    Phases {
        /// The first frequency, in radians per unit of the time.
        slowest: f64,
        /// The last frequency.
        fastest: f64,
    },
}

/// The features of [`TimeFeatures`], followed by a two-layer network.
#[derive(Debug)]
pub(crate) struct TimeEmbedding {
    features: Features,
    first: Linear,
    second: Linear,
}

impl TimeEmbedding {
    /// `dim` features to vectors of `width` values.
    pub(crate) fn new(b: &Builder, config: &TimeFeatures, dim: usize, width: usize) -> Result<Self> {
        Ok(Self {
            features: Features::new(b, config, dim)?,
            first: Linear::new(&b.pp(0), dim, width, 1.0)?,
            second: Linear::new(&b.pp(1), width, width, 1.0)?,
        })
    }

    /// `[B]` to `[B, width]`; one time for all samples, `[1]`, to `[1, width]`.
    pub(crate) fn forward(&self, t: &Tensor) -> Result<Tensor> {
        self.of_features(&self.features(t)?)
    }

    /// The features alone: `[B]` to `[B, dim]`.
    pub(crate) fn features(&self, t: &Tensor) -> Result<Tensor> {
        self.features.forward(t)
    }

    /// The network behind the features: `[B, dim]` to `[B, width]`.
    pub(crate) fn of_features(&self, features: &Tensor) -> Result<Tensor> {
        let hidden = ops::silu(&self.first.forward(features)?)?;
        self.second.forward(&hidden)
    }
}

/// The features themselves.
#[derive(Debug)]
struct Features {
    frequencies: Tensor,
    /// φ, `[1, H]`, where they are learned.
    phases: Option<Tensor>,
    cosines_first: bool,
    log: bool,
    time_scale: f64,
    time_shift: f64,
}

impl Features {
    fn new(b: &Builder, config: &TimeFeatures, dim: usize) -> Result<Self> {
        if dim == 0 || dim % 2 == 1 {
            return Err(Error::config("time features", "an even number of dimensions", dim));
        }
        let half = dim / 2;
        match *config {
            TimeFeatures::Sinusoidal { max_period, freq_shift, flip_sin_to_cos, time_scale, time_shift } => {
                if freq_shift >= half {
                    return Err(Error::config(
                        "freq_shift",
                        format!("less than {half} frequencies"),
                        freq_shift,
                    ));
                }
                if !(max_period.is_finite() && max_period > 0.0) {
                    return Err(Error::config("max_period", "positive", max_period));
                }
                let step = -max_period.ln() / (half - freq_shift) as f64;
                let frequencies = (0..half).map(|i| (step * i as f64).exp()).collect();
                let frequencies = host_tensor(frequencies, &[1, half], b.dtype(), b.device())?;
                let cosines_first = flip_sin_to_cos;
                Ok(Self { frequencies, phases: None, cosines_first, log: false, time_scale, time_shift })
            }
            TimeFeatures::Fourier { std, log, time_scale, time_shift } => {
                let cycles = b.buffer(&[half], "frequencies", Init::Normal { std })?;
                Ok(Self {
                    frequencies: cycles.unsqueeze(0)?,
                    phases: None,
                    cosines_first: false,
                    log,
                    time_scale: TAU * time_scale,
                    time_shift: TAU * time_shift,
                })
            }
            TimeFeatures::Phases { slowest, fastest } => {
                let step = (fastest - slowest) / half.max(2).saturating_sub(1) as f64;
                if !(slowest.is_finite() && step.is_finite()) {
                    return Err(Error::config(
                        "slowest and fastest",
                        "finite",
                        format!("{slowest}, {fastest}"),
                    ));
                }
                let frequencies = (0..half).map(|i| slowest + step * i as f64).collect();
                let phases = b.get(&[half], "phases", Init::Normal { std: TAU / 2.0 })?;
                Ok(Self {
                    frequencies: host_tensor(frequencies, &[1, half], b.dtype(), b.device())?,
                    phases: Some(phases.unsqueeze(0)?),
                    cosines_first: false,
                    log: false,
                    time_scale: 1.0,
                    time_shift: 0.0,
                })
            }
        }
    }

    /// `[B]` to `[B, dim]`.
    fn forward(&self, t: &Tensor) -> Result<Tensor> {
        let t = if self.log { t.log()? } else { t.clone() };
        let phases =
            t.affine(self.time_scale, self.time_shift)?.unsqueeze(1)?.broadcast_mul(&self.frequencies)?;
        let phases = match &self.phases {
            Some(learned) => phases.broadcast_add(learned)?,
            None => phases,
        };
        let (sines_first, half) = (ops::sinusoids(&phases)?, phases.dim(1)?);
        if !self.cosines_first {
            return Ok(sines_first);
        }
        let [sin, cos] = [0, half].map(|from| sines_first.narrow(1, from, half));
        Ok(Tensor::cat(&[cos?, sin?], 1)?)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};
    use sde_core::noise::Noise;

    use super::*;
    use crate::Params;

    fn features(config: &TimeFeatures, dim: usize, t: f64) -> Result<Vec<f64>> {
        let build = |b: &Builder| Features::new(b, config, dim);
        let (features, _) = Params::initialise(Noise::new(3), DType::F64, &Device::Cpu, build)?;
        Ok(features.forward(&Tensor::new(&[t], &Device::Cpu)?)?.squeeze(0)?.to_vec1()?)
    }

    fn sinusoidal(freq_shift: usize, flip_sin_to_cos: bool) -> TimeFeatures {
        let (max_period, time_scale, time_shift) = (10_000.0, 999.0, -1.0);
        TimeFeatures::Sinusoidal { max_period, freq_shift, flip_sin_to_cos, time_scale, time_shift }
    }

    #[test]
    fn sinusoids_are_those_of_the_definition() -> Result<()> {
        let tau = 999.0 * 0.3 - 1.0;
        for freq_shift in [0, 1] {
            let found = features(&sinusoidal(freq_shift, false), 8, 0.3)?;
            let flipped = features(&sinusoidal(freq_shift, true), 8, 0.3)?;
            for i in 0..4 {
                let omega = 10_000f64.powf(-(i as f64) / (4 - freq_shift) as f64);
                for (index, expected) in [(i, (tau * omega).sin()), (4 + i, (tau * omega).cos())] {
                    assert!((found[index] - expected).abs() < 1e-10);
                    assert_eq!(flipped[(index + 4) % 8], found[index]);
                }
            }
        }
        Ok(())
    }

    #[test]
    fn random_frequencies_are_fixed_and_of_the_stated_scale() -> Result<()> {
        let config = TimeFeatures::Fourier { std: 16.0, log: true, time_scale: 0.25, time_shift: 0.1 };
        assert_eq!(features(&config, 6, 0.7)?, features(&config, 6, 0.7)?);
        let mut draws = Noise::new(3).draws_named(sde_core::noise::Stream::Init, "frequencies");
        let found = features(&config, 6, 0.7)?;
        for i in 0..3 {
            let phase = TAU * 16.0 * draws.normal() * (0.25 * 0.7f64.ln() + 0.1);
            assert!((found[i] - phase.sin()).abs() < 1e-10 && (found[3 + i] - phase.cos()).abs() < 1e-10);
        }
        Ok(())
    }

    #[test]
    fn impossible_features_are_refused() {
        assert!(features(&sinusoidal(0, false), 7, 0.5).is_err());
        assert!(features(&sinusoidal(1, false), 2, 0.5).is_err());
    }
}
