//! Annealed Langevin dynamics: at each level ρ_i, T steps `y ← y + ½ a_i ∇ log q_i(y) + √a_i z`, `a_i = ε ρ_i²/ρ_L²`, with y = x/α and q_i the
//! law of the data with noise of deviation ρ_i; at the last, the mean `y + ρ_L² ∇ log q_L(y)`.
//!
//! In the state of a scalar process: `x ← x + ½ α² a s + α √a z`, and x ← (α'/α) x from level to level. The levels are the times of the
//! grid. The step of the noise is `i T + j`, i the level, j the step in it.
//!
//! Reference: Song, Ermon 2019, arXiv 1907.05600, algorithm 1; 2020, arXiv 2006.09011, for the last mean and the choice of ε.
//! Differs: defined through ρ and not σ, so that it exists for every scalar process; the mean at the end can be left out.

use sde_core::{LinearSde, Op, Prediction, TimeGrid};

use super::{Multistep, Table, Update, alpha_sigma, checked};
use crate::Result;
use crate::error::in_range;

/// Annealed Langevin dynamics through the levels of a grid.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AnnealedLangevin {
    /// ε, the step of the last level.
    pub step: f64,
    /// T, the steps of a level.
    pub repeats: usize,
    /// Whether the expected data given the last state is returned instead of that state; one more evaluation.
    pub denoise: bool,
}

impl Multistep for AnnealedLangevin {
    fn name(&self) -> &'static str {
        "annealed-langevin"
    }

    fn table(&self, sde: &dyn LinearSde, grid: &TimeGrid) -> Result<Table> {
        in_range("step of annealed langevin dynamics", self.step, f64::MIN_POSITIVE, f64::MAX)?;
        in_range("steps of a level", self.repeats as f64, 1.0, f64::from(u32::MAX))?;
        sde_core::grid::require_signal(sde, grid.start(), "annealed langevin dynamics")?;
        let name = self.name();
        let (alpha_last, sigma_last) = alpha_sigma(name, sde, grid.stop())?;
        let mut updates = Vec::new();
        for (level, &t) in grid.times().iter().enumerate() {
            let (alpha, sigma) = alpha_sigma(name, sde, t)?;
            let length = self.step * (sigma / alpha * alpha_last / sigma_last).powi(2);
            for repeat in 0..self.repeats {
                let next = grid.times().get(level + 1).filter(|_| repeat + 1 == self.repeats);
                let to = next.copied().unwrap_or(t);
                let psi = sde.transition(to, t);
                let term = psi.scale(0.5 * alpha * alpha * length);
                let noise = psi.scale(alpha * length.sqrt());
                let update = Update::new(t, to, psi, vec![term]).with_noise(noise);
                updates.push(checked(name, update)?.of_step(level * self.repeats + repeat));
            }
        }
        if self.denoise {
            // Tweedie: x₀ = (x + σ² s)/α.
            let (carry, term) =
                (Op::Scalar(1.0 / alpha_last), Op::Scalar(sigma_last * sigma_last / alpha_last));
            let update = Update::new(grid.stop(), grid.stop(), carry, vec![term]);
            updates.push(checked(name, update)?.of_step(grid.times().len() * self.repeats));
        }
        Ok(Table { of: Prediction::Score, updates })
    }
}
