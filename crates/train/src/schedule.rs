//! The learning rate as a function of the number of updates done: `η_n = η · min(1, n/warm-up) · decay(n)`.
//!
//! Reference: Loshchilov, Hutter 2017, arXiv 1608.03983, Eq. (5), one cycle, for the cosine. The warm-up is that of
//! the code of Song et al. 2021, arXiv 2011.13456: the first update has n = 0, so rate 0.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// What follows the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// Nothing.
    Constant,
    /// Half a cosine, from 1 at the end of the warm-up to 0 at the horizon.
    Cosine,
}

/// A learning-rate schedule.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// The updates of the linear warm-up; 0 for none, a fraction where it stands for a number of images.
    pub warmup_steps: f64,
    /// What follows.
    pub decay: Decay,
}

impl Schedule {
    pub(crate) fn check(&self) -> Result<()> {
        if self.warmup_steps >= 0.0 && self.warmup_steps.is_finite() {
            return Ok(());
        }
        Err(Error::config("schedule.warmup_steps", "a number of updates, 0 or more", self.warmup_steps))
    }

    /// The factor of the learning rate when `done` updates have been made, of `horizon` planned. The horizon is the
    /// configuration's, not where a call happens to stop.
    pub fn factor(&self, done: u64, horizon: u64) -> f64 {
        let (done, horizon) = (done as f64, horizon as f64);
        if done < self.warmup_steps {
            return done / self.warmup_steps;
        }
        match self.decay {
            Decay::Constant => 1.0,
            Decay::Cosine => {
                let length = (horizon - self.warmup_steps).max(f64::MIN_POSITIVE);
                let progress = ((done - self.warmup_steps) / length).min(1.0);
                0.5 + 0.5 * (std::f64::consts::PI * progress).cos()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosine_meets_its_ends() {
        let schedule = Schedule { warmup_steps: 10.0, decay: Decay::Cosine };
        let expected = [(0, 0.0), (5, 0.5), (10, 1.0), (60, 0.5), (110, 0.0), (500, 0.0)];
        for (done, factor) in expected {
            assert!((schedule.factor(done, 110) - factor).abs() < 1e-15, "{done}");
        }
        // A horizon inside the warm-up leaves nothing to decay.
        assert_eq!(schedule.factor(10, 5), 1.0);
        assert_eq!(schedule.factor(11, 5), 0.0);
    }
}
