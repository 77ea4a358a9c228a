//! Which checkpoints stay: a pure function of their steps.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The rule by which old checkpoints are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keep {
    /// How many of the latest stay, 2 at least: one to fall back on.
    pub last: usize,
    /// Steps that are a multiple of this stay for ever.
    pub every: Option<u64>,
}

impl Keep {
    pub(crate) fn check(&self) -> Result<()> {
        if self.last < 2 {
            return Err(Error::config(
                "keep.last",
                "2 or more, so that there is one to fall back on",
                self.last,
            ));
        }
        if self.every == Some(0) {
            return Err(Error::config("keep.every", "a number of steps", 0));
        }
        Ok(())
    }

    /// The steps to delete, of `steps` in increasing order.
    pub fn to_delete(&self, steps: &[u64]) -> Vec<u64> {
        let old = &steps[..steps.len().saturating_sub(self.last)];
        old.iter().copied().filter(|step| self.every.is_none_or(|every| step % every != 0)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_and_the_milestones_stay() {
        let steps: Vec<u64> = (1..=10).map(|k| 10 * k).collect();
        assert_eq!(Keep { last: 3, every: None }.to_delete(&steps), [10, 20, 30, 40, 50, 60, 70]);
        assert_eq!(Keep { last: 3, every: Some(50) }.to_delete(&steps), [10, 20, 30, 40, 60, 70]);
        assert!(Keep { last: 10, every: None }.to_delete(&steps).is_empty());
        assert!(Keep { last: 11, every: None }.to_delete(&steps).is_empty());
        assert!(Keep { last: 1, every: None }.check().is_err());
    }
}
