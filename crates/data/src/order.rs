//! The order of examples: an endless sequence of permutations, one an epoch.
//!
//! Position `p` of the sequence is entry `p mod n` of the permutation of epoch `p div n`, which is drawn at
//! address ([`Stream::Shuffle`], epoch). Step `k` with batch size `B` takes positions `kB … kB + B − 1`:
//! resuming needs no state.

use std::sync::{Arc, Mutex, PoisonError};

use sde_core::noise::{Noise, Stream};

use crate::{Error, Result};

type Permutation = Arc<[usize]>;

/// A deterministic shuffle of `0..len`, epoch after epoch.
#[derive(Debug)]
pub struct Order {
    len: usize,
    noise: Noise,
    /// The permutation used last; a saving of time that no result depends on.
    last: Mutex<Option<(u64, Permutation)>>,
}

impl Order {
    /// The order of `len` examples that a seed stands for.
    ///
    /// # Errors
    /// If there are no examples.
    pub fn new(len: usize, seed: u64) -> Result<Self> {
        if len == 0 {
            return Err(Error::Empty("the data set to shuffle"));
        }
        Ok(Self { len, noise: Noise::new(seed), last: Mutex::new(None) })
    }

    /// The examples of a step.
    pub fn indices(&self, step: u64, batch: usize) -> Vec<usize> {
        let (len, first) = (self.len as u128, u128::from(step) * batch as u128);
        let mut position = first;
        let mut indices = Vec::with_capacity(batch);
        while indices.len() < batch {
            let permutation = self.permutation((position / len) as u64);
            let rest = permutation.iter().skip((position % len) as usize);
            indices.extend(rest.take(batch - indices.len()));
            position = first + indices.len() as u128;
        }
        indices
    }

    /// The permutation of an epoch.
    fn permutation(&self, epoch: u64) -> Permutation {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match last.as_ref() {
            Some((known, permutation)) if *known == epoch => permutation.clone(),
            _ => {
                let mut draws = self.noise.draws(Stream::Shuffle, epoch as u32, (epoch >> 32) as u32);
                let permutation: Permutation = draws.permutation(self.len).into();
                *last = Some((epoch, permutation.clone()));
                permutation
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_is_another_permutation() -> Result<()> {
        let order = Order::new(10, 5)?;
        // Batches of 7 straddle the epochs; 70 positions are 7 epochs.
        let sequence: Vec<usize> = (0..10).flat_map(|step| order.indices(step, 7)).collect();
        let epochs: Vec<&[usize]> = sequence.chunks(10).collect();
        for (i, epoch) in epochs.iter().enumerate() {
            let mut sorted = epoch.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..10).collect::<Vec<_>>());
            assert!(epochs.iter().skip(i + 1).all(|other| other != epoch));
        }
        Ok(())
    }

    #[test]
    fn any_step_can_be_asked_for_at_any_time() -> Result<()> {
        let (ahead, fresh) = (Order::new(13, 1)?, Order::new(13, 1)?);
        let later: Vec<Vec<usize>> = (0..40).rev().map(|step| ahead.indices(step, 4)).collect();
        let forward: Vec<Vec<usize>> = (0..40).map(|step| fresh.indices(step, 4)).collect();
        assert!(later.iter().rev().eq(&forward));
        // The same sequence at another batch size, larger than the set.
        assert_eq!(fresh.indices(1, 40), forward[10..20].concat());
        assert_ne!(Order::new(13, 2)?.indices(0, 13), fresh.indices(0, 13));
        assert_eq!(fresh.indices(u64::MAX, 4).len(), 4);
        assert!(Order::new(0, 0).is_err());
        Ok(())
    }
}
