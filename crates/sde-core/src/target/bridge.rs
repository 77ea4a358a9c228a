//! The discretised diffusion that a control acts on: what training and sampling of controlled paths have in common.
//!
//! ```text
//! x' = x + g u Δ + g √Δ ξ        x₀ = 0        Δ = T/N        u = 0: x_N ~ μ⁰ = N(0, g² T I)
//! ```

use candle_core::{DType, Device, Tensor};

use super::{LogDensity, Target};
use crate::{Error, Result};

/// The discretised diffusion that a control acts on, which starts at the origin.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bridge {
    /// N.
    pub steps: usize,
    /// T.
    pub horizon: f64,
    /// g.
    pub noise: f64,
    /// Entries of ∇ log μ̂ are kept within ± this before the control sees them.
    pub clip: f64,
}

impl Bridge {
    /// Refuses what is no diffusion.
    ///
    /// # Errors
    /// [`Error::Range`].
    pub fn check(&self) -> Result<()> {
        let values = [
            ("the number of steps of a path", self.steps as f64),
            ("the horizon of a path", self.horizon),
            ("the noise of a path", self.noise),
            ("the bound of a target's score", self.clip),
        ];
        for (what, found) in values {
            if !(found > 0.0 && found.is_finite()) {
                let (low, high) = (f64::MIN_POSITIVE, f64::MAX);
                return Err(Error::Range { what, found, low, high });
            }
        }
        Ok(())
    }

    /// Δ.
    pub fn step(&self) -> f64 {
        self.horizon / self.steps as f64
    }

    /// log μ⁰ of the end of an uncontrolled path.
    ///
    /// # Shapes
    /// `[B, D]` to `[B]`.
    ///
    /// # Errors
    /// Those of the tensors.
    pub fn log_reference(&self, x: &Tensor) -> Result<Tensor> {
        let spread = self.noise * self.noise * self.horizon;
        let constant = -0.5 * x.dim(1)? as f64 * (std::f64::consts::TAU * spread).ln();
        Ok(x.sqr()?.sum(1)?.affine(-0.5 / spread, constant)?)
    }

    /// log μ̂, and ∇ log μ̂ as a control sees it: clipped, of the type and place of `x`, and a constant to differentiation.
    ///
    /// # Shapes
    /// `x` `[B, D]`; the density is `[B]`, the score `[B, D]`.
    ///
    /// # Errors
    /// When the target's density or score is not finite.
    pub fn guide(&self, target: &dyn Target, x: &Tensor) -> Result<LogDensity> {
        let LogDensity { value, score } = self.density(target, x)?;
        Ok(LogDensity { value, score: score.clamp(-self.clip, self.clip)? })
    }

    /// log μ̂ and ∇ log μ̂ as they are, of the type and place of `x`, and constants to differentiation.
    ///
    /// # Shapes
    /// As [`Bridge::guide`].
    ///
    /// # Errors
    /// As [`Bridge::guide`].
    pub fn density(&self, target: &dyn Target, x: &Tensor) -> Result<LogDensity> {
        let host = x.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
        let LogDensity { value, score } = target.finite_log_density(&host)?;
        let here = |y: &Tensor| y.to_dtype(x.dtype())?.to_device(x.device());
        Ok(LogDensity { value: here(&value)?, score: here(&score)? })
    }
}
