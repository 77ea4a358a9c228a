//! The chain that a diffusers model was trained on, `scheduler_config.json`, as far as it concerns the network.

use sde_core::Prediction;
use serde_json::{Map, Value, json};

use super::settings::Settings;
use crate::{Error, Result};

/// A discrete chain with β linear in the index: the process `ddpm`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// First β.
    pub beta_start: f64,
    /// Last β.
    pub beta_end: f64,
    /// Number of steps.
    pub steps: usize,
}

const PREDICTIONS: [(&str, Prediction); 3] =
    [("epsilon", Prediction::Noise), ("sample", Prediction::Data), ("v_prediction", Prediction::V)];

impl Schedule {
    pub(super) fn read(what: &str, object: &Map<String, Value>) -> Result<Self> {
        let mut settings = Settings::new(what, object);
        settings.one_of("beta_schedule", &json!("linear"), &[json!("linear")])?;
        settings.one_of("trained_betas", &Value::Null, &[Value::Null])?;
        settings.one_of("rescale_betas_zero_snr", &json!(false), &[json!(false)])?;
        Ok(Self {
            beta_start: settings.number("beta_start", Some(1e-4))?,
            beta_end: settings.number("beta_end", Some(0.02))?,
            steps: settings.count("num_train_timesteps", Some(1000))?,
        })
    }

    pub(super) fn write(&self, prediction: &str) -> Value {
        json!({
            "_class_name": "DDPMScheduler",
            "beta_end": self.beta_end,
            "beta_schedule": "linear",
            "beta_start": self.beta_start,
            "num_train_timesteps": self.steps,
            "prediction_type": prediction,
        })
    }
}

/// What a network of this chain predicts.
pub(super) fn prediction(what: &str, object: &Map<String, Value>) -> Result<Prediction> {
    let names = PREDICTIONS.map(|(name, _)| json!(name));
    let found = Settings::new(what, object).one_of("prediction_type", &json!("epsilon"), &names)?;
    let known = PREDICTIONS.iter().find(|(name, _)| found == *name);
    Ok(known.map_or(Prediction::Noise, |(_, prediction)| *prediction))
}

/// Its name.
pub(super) fn prediction_name(prediction: Prediction) -> Result<&'static str> {
    let known = PREDICTIONS.iter().find(|(_, known)| *known == prediction);
    known.map(|(name, _)| *name).ok_or_else(|| {
        Error::unsupported("diffusers", "prediction", format!("{prediction:?}"), "noise, data and v")
    })
}
