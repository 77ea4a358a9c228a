//! The Boltzmann law of a molecule as a target.
//!
//! ```text
//! log μ̂(x, v) = −E(x)/RT − ½|x̄|²/τ² − ½|v|²        x ∈ R^{3n} in nanometres, v ∈ R^m
//! ```
//!
//! v are auxiliary coordinates, of which some samplers want as many as places. The energy does not change when the molecule is moved as a whole, so that
//! e^{−E/RT} alone has no normaliser; the tether, a Gaussian of the width τ for the mean place x̄ of the atoms, gives it one and changes no law of a shape.
//! Mirror images have the same energy: a molecule and its other hand are two modes.
//!
//! Reference: Zhang 2023 (thesis), section 5.4: μ̂ = exp(−E(x_{0:65}) − ½|x_{66:131}|²) for 22 atoms, d = 132.
//! Differs: the text has no units and no tether; ours are stated, and RT is made explicit.

use candle_core::Tensor;

use super::{ForceField, GAS};
use crate::error::in_range;
use crate::target::{LogDensity, by_rows};
use crate::{Result, Target};

/// The Boltzmann law of a molecule.
#[derive(Debug, Clone, PartialEq)]
pub struct Boltzmann {
    name: String,
    force_field: ForceField,
    temperature: f64,
    tether: f64,
    auxiliary: usize,
}

impl Boltzmann {
    /// The law at `temperature` kelvin with the mean place of the atoms kept within about `tether` nanometres of the origin, and `auxiliary` standard normal
    /// coordinates behind those of the atoms.
    ///
    /// # Errors
    /// If temperature or tether are not positive numbers.
    pub fn new(
        name: impl Into<String>,
        force_field: ForceField,
        temperature: f64,
        tether: f64,
        auxiliary: usize,
    ) -> Result<Self> {
        in_range("temperature in kelvin", temperature, 1e-3, 1e9)?;
        in_range("tether in nanometres", tether, 1e-6, 1e9)?;
        Ok(Self { name: name.into(), force_field, temperature, tether, auxiliary })
    }

    /// The molecule.
    pub fn force_field(&self) -> &ForceField {
        &self.force_field
    }

    /// The number of coordinates that are places.
    pub fn places(&self) -> usize {
        3 * self.force_field.atoms()
    }

    fn density(&self, x: &[f64], score: &mut [f64]) -> f64 {
        let split = self.places();
        let (places, auxiliary) = x.split_at(split);
        let (forces, rest) = score.split_at_mut(split);
        let Ok(parts) = self.force_field.energy(places, forces) else { return f64::NAN };
        let thermal = GAS * self.temperature;
        let atoms = self.force_field.atoms() as f64;
        let spread = 1.0 / (self.tether * self.tether);
        let mut log = -parts.total() / thermal;
        for axis in 0..3 {
            let mean = places.iter().skip(axis).step_by(3).sum::<f64>() / atoms;
            log -= 0.5 * spread * mean * mean;
            for force in forces.iter_mut().skip(axis).step_by(3) {
                *force = *force / thermal - spread * mean / atoms;
            }
        }
        for (slope, v) in rest.iter_mut().zip(auxiliary) {
            *slope = -v;
            log -= 0.5 * v * v;
        }
        log
    }
}

impl Target for Boltzmann {
    fn name(&self) -> &str {
        &self.name
    }

    fn dim(&self) -> usize {
        self.places() + self.auxiliary
    }

    fn log_normaliser(&self) -> Option<f64> {
        None
    }

    fn log_density(&self, x: &Tensor) -> Result<LogDensity> {
        by_rows(x, self.dim(), |x, score| self.density(x, score))
    }
}
