//! How likelihood is measured, as configured.

use sde_core::noise::Law;
use sde_solvers::Divergence;
use serde::{Deserialize, Serialize};

use super::sampler::unknown;
use crate::exit::Failure;

/// The settings of a likelihood; tolerances, limits and chart are those of the section `sampler`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LikelihoodConfig {
    /// `exact`, `rademacher` or `normal`.
    pub divergence: String,
    /// Probes of a random divergence, K.
    pub probes: usize,
    /// Solves of each example, R.
    pub repeats: usize,
    /// Examples solved together.
    pub batch: usize,
}

impl LikelihoodConfig {
    /// The way the divergence is measured.
    pub fn divergence(&self) -> Result<Divergence, Failure> {
        let hutchinson = |law| Divergence::Hutchinson { law, probes: self.probes };
        match self.divergence.as_str() {
            "exact" => Ok(Divergence::Exact),
            "rademacher" => Ok(hutchinson(Law::Rademacher)),
            "normal" => Ok(hutchinson(Law::Normal)),
            other => Err(unknown("divergence", other, &["exact", "rademacher", "normal"])),
        }
    }
}
