//! The labels of a conditional network's examples: within its classes, and some of them dropped.
//!
//! With a probability p, each on its own, a label becomes that of no class, n for n classes. The network then learns the law of a class and the
//! law of all data, which classifier-free guidance plays off against each other.
//!
//! Reference: Ho, Salimans 2022, arXiv 2207.12598, Algorithm 1.

use candle_core::Tensor;
use sde_core::noise::{BatchNoise, Stream};
use sde_data::Batch;

use crate::config::TrainConfig;
use crate::{Error, Result};

impl TrainConfig {
    /// Refuses data with labels that the network has no class for, and dropping labels where there are none.
    ///
    /// `network` is the number of classes of the network, if it is conditional; `data` that of the data, 0 if it has no labels.
    ///
    /// # Errors
    /// [`Error::Config`] with the field.
    pub fn check_labels(&self, network: Option<usize>, data: usize) -> Result<()> {
        if let Some(probability) = self.label_dropout
            && (network.is_none() || data == 0)
        {
            let expected = if network.is_none() {
                "absent for a network without classes: set net.classes"
            } else {
                "absent for data without labels"
            };
            return Err(Error::config("label_dropout", expected, probability));
        }
        match network {
            Some(classes) if data > classes => {
                let expected = format!("{data} at least, the number of classes of the data");
                Err(Error::config("net.classes", expected, classes))
            }
            _ => Ok(()),
        }
    }
}

/// The batch with some of its labels dropped, where that is configured. A label's fate is a function of its noise address.
pub(crate) fn dropped(
    batch: Batch,
    config: &TrainConfig,
    classes: Option<usize>,
    noise: &BatchNoise,
) -> Result<Batch> {
    let (Some(probability), Some(none), Some(labels)) = (config.label_dropout, classes, &batch.labels) else {
        return Ok(batch);
    };
    let mut kept = labels.to_vec1::<u32>()?;
    for (label, mut draws) in kept.iter_mut().zip(noise.draws(Stream::LabelDrop, 0)) {
        if draws.uniform() < probability {
            *label = none as u32;
        }
    }
    let labels = Some(Tensor::new(kept, labels.device())?);
    Ok(Batch { labels, ..batch })
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};
    use sde_core::noise::Noise;

    fn config(label_dropout: Option<f64>) -> Result<TrainConfig> {
        let text = r#"{"steps": 1, "batch": 1, "log_every": 1, "checkpoint_every": 1, "keep": {"last": 1},
            "optimiser": {"kind": "adam", "lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0},
            "schedule": {"warmup_steps": 0.0, "decay": "constant"}}"#;
        let config: TrainConfig = serde_json::from_str(text).map_err(|e| Error::config("text", "JSON", e))?;
        Ok(TrainConfig { label_dropout, ..config })
    }

    fn labels(samples: std::ops::Range<u32>, probability: Option<f64>) -> Result<Vec<u32>> {
        let given: Vec<u32> = samples.clone().map(|i| i % 10).collect();
        let x = Tensor::zeros((given.len(), 1), DType::F32, &Device::Cpu)?;
        let labels = Some(Tensor::new(given, &Device::Cpu)?);
        let noise = BatchNoise::new(Noise::new(5), 3, samples);
        let batch = dropped(Batch { x, labels, augment: None }, &config(probability)?, Some(10), &noise)?;
        Ok(batch.labels.map(|labels| labels.to_vec1()).transpose()?.unwrap_or_default())
    }

    #[test]
    fn labels_are_dropped_as_often_as_asked_and_by_address() -> Result<()> {
        let found = labels(0..4000, Some(0.15))?;
        let lost = found.iter().filter(|&&label| label == 10).count() as f64;
        // A binomial count: 600, with a standard deviation of √(4000 · 0.15 · 0.85) = 22.6.
        assert!((lost - 600.0).abs() < 5.0 * 22.6, "{lost}");
        assert!(found.iter().enumerate().all(|(i, &label)| label == 10 || label == i as u32 % 10));
        // A batch cut in two loses the same ones.
        assert_eq!([labels(0..1000, Some(0.15))?, labels(1000..4000, Some(0.15))?].concat(), found);
        assert!(labels(0..50, Some(1.0))?.iter().all(|&label| label == 10));
        assert!(labels(0..50, None)?.iter().all(|&label| label < 10));
        Ok(())
    }

    #[test]
    fn what_cannot_be_dropped_or_learned_is_refused() -> Result<()> {
        let field = |dropout, network, data| match config(dropout)?.check_labels(network, data) {
            Err(Error::Config { field, .. }) => Ok(Some(field)),
            other => other.map(|()| None),
        };
        assert_eq!(field(Some(0.1), Some(10), 10)?, None);
        assert_eq!(field(None, None, 10)?, None);
        assert_eq!(field(None, Some(12), 10)?, None);
        assert_eq!(field(Some(0.1), None, 10)?, Some("label_dropout"));
        assert_eq!(field(Some(0.1), Some(10), 0)?, Some("label_dropout"));
        assert_eq!(field(None, Some(9), 10)?, Some("net.classes"));
        Ok(())
    }
}
