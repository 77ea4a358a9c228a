//! Implicit solvent: the generalised Born model with the effective radii of Onufriev, Bashford and Case (variant I),
//! and a surface term.
//!
//! ρ̃ = ρ − 0.009 nm, s_j = S_j ρ̃_j; I_i = Σ_j ½[1/L − 1/U + ¼(r − s_j²/r)(1/U² − 1/L²) + ½ ln(L/U)/r] with
//! U = r + s_j, L = max(ρ̃_i, |r − s_j|); ψ = I ρ̃; 1/R = 1/ρ̃ − tanh(αψ + γψ³)/ρ, (α, γ) = (0.8, 2.909125).
//! E = −½C(1/ε_in − 1/ε_out) Σ_ij q_i q_j / √(r² + R_i R_j e^{−r²/4R_iR_j}) + σ Σ_i (ρ_i + 0.14)² (ρ_i/R_i)⁶,
//! i = j included. Forces go through the radii: −∂E/∂x = −∂E/∂r − Σ_i (∂E/∂R_i)(∂R_i/∂I_i)(∂I_i/∂r).
//!
//! Reference: Onufriev, Bashford, Case 2004, doi 10.1002/prot.20033, eq. 2, 4–6; surface term: Schaefer, Bartels, Karplus
//! 1998, doi 10.1006/jmbi.1998.2172.
//! Differs: an atom that lies whole inside the sphere of another (ρ̃_i < s_j − r) would add 1/ρ̃_i − 1/(s_j − r) to I_i; that term is left out, for atoms at the
//! distance of a bond are never that close.

use super::vector::{dot, minus, place, push};
use crate::{Error, Result};

const OFFSET: f64 = 0.009;
const PROBE: f64 = 0.14;
const ALPHA: f64 = 0.8;
const GAMMA: f64 = 2.909_125;

/// An atom in the solvent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BornAtom {
    /// Its charge, in elementary charges.
    pub charge: f64,
    /// ρ, its radius, in nanometres; above 0.009.
    pub radius: f64,
    /// S, how much of it screens others.
    pub screen: f64,
}

/// A molecule in a polar solvent.
#[derive(Debug, Clone, PartialEq)]
pub struct GeneralizedBorn {
    /// C(1/ε_in − 1/ε_out), in kJ/mol·nm.
    pub prefactor: f64,
    /// σ, in kJ/mol/nm² (4π times a surface tension).
    pub surface: f64,
    /// One entry an atom.
    pub atoms: Vec<BornAtom>,
}

/// I between an atom of reduced radius ρ̃ and one of screening radius s at distance r, and its derivative by r.
fn descreening(r: f64, reduced: f64, s: f64) -> (f64, f64) {
    let upper = r + s;
    if upper <= reduced {
        return (0.0, 0.0);
    }
    let inside = (r - s).abs();
    let (lower, slope) = if inside > reduced { (inside, (r - s).signum()) } else { (reduced, 0.0) };
    let (u, l, log) = (1.0 / upper, 1.0 / lower, (lower / upper).ln());
    let (u2, l2) = (u * u, l * l);
    let value = l - u + 0.25 * (r - s * s / r) * (u2 - l2) + 0.5 * log / r;
    let derivative = u2 - slope * l2
        + 0.25 * (1.0 + s * s / (r * r)) * (u2 - l2)
        + 0.5 * (r - s * s / r) * (slope * l2 * l - u2 * u)
        + 0.5 * (slope * l - u) / r
        - 0.5 * log / (r * r);
    (0.5 * value, 0.5 * derivative)
}

impl GeneralizedBorn {
    pub(super) fn check(&self, atoms: usize) -> Result<()> {
        if self.atoms.len() != atoms {
            return Err(Error::Mismatch {
                what: "atoms in a solvent",
                expected: atoms.to_string(),
                found: self.atoms.len().to_string(),
            });
        }
        for atom in &self.atoms {
            crate::error::in_range("radius of an atom in a solvent", atom.radius, OFFSET * 1.001, 1e3)?;
            crate::error::in_range("screening of an atom", atom.screen, 0.0, 1e3)?;
            crate::error::in_range("charge of an atom", atom.charge, -1e6, 1e6)?;
        }
        crate::error::in_range("prefactor of a solvent", self.prefactor, -1e9, 1e9)?;
        crate::error::in_range("surface term of a solvent", self.surface, -1e9, 1e9)?;
        Ok(())
    }

    /// Effective radii R and ∂R/∂I.
    fn radii(&self, places: &[f64]) -> Vec<(f64, f64)> {
        let n = self.atoms.len();
        let radius = |i: usize| {
            let (here, reduced) = (place(places, i), self.atoms[i].radius - OFFSET);
            let from = |j: usize| {
                let between = minus(here, place(places, j));
                let s = self.atoms[j].screen * (self.atoms[j].radius - OFFSET);
                descreening(dot(between, between).sqrt(), reduced, s).0
            };
            let psi = reduced * (0..n).filter(|&j| j != i).map(from).sum::<f64>();
            let bend = (psi * (ALPHA + GAMMA * psi * psi)).tanh();
            let effective = 1.0 / (1.0 / reduced - bend / self.atoms[i].radius);
            let by_psi = (1.0 - bend * bend) * (ALPHA + 3.0 * GAMMA * psi * psi) / self.atoms[i].radius;
            (effective, effective * effective * by_psi * reduced)
        };
        (0..n).map(radius).collect()
    }

    pub(super) fn add(&self, places: &[f64], forces: &mut [f64]) -> f64 {
        let radii = self.radii(places);
        let mut by_radius = vec![0.0; radii.len()];
        let mut energy = 0.0;
        for (i, (atom, &(r_i, _))) in self.atoms.iter().zip(&radii).enumerate() {
            let own = -0.5 * self.prefactor * atom.charge * atom.charge / r_i;
            let skin = self.surface * (atom.radius + PROBE).powi(2) * (atom.radius / r_i).powi(6);
            energy += own + skin;
            by_radius[i] -= (own + 6.0 * skin) / r_i;
            for j in 0..i {
                energy += self.pair([i, j], places, &radii, &mut by_radius, forces);
            }
        }
        for (i, atom) in self.atoms.iter().enumerate() {
            let by_sum = by_radius[i] * radii[i].1;
            for j in (0..self.atoms.len()).filter(|&j| j != i) {
                let between = minus(place(places, i), place(places, j));
                let r = dot(between, between).sqrt();
                let s = self.atoms[j].screen * (self.atoms[j].radius - OFFSET);
                let force = -by_sum * descreening(r, atom.radius - OFFSET, s).1 / r;
                push(forces, i, force, between);
                push(forces, j, -force, between);
            }
        }
        energy
    }

    /// The energy of a pair at fixed radii: its force, and what it adds to ∂E/∂R.
    fn pair(
        &self,
        [i, j]: [usize; 2],
        places: &[f64],
        radii: &[(f64, f64)],
        by_radius: &mut [f64],
        forces: &mut [f64],
    ) -> f64 {
        let between = minus(place(places, i), place(places, j));
        let r2 = dot(between, between);
        let product = radii[i].0 * radii[j].0;
        let fade = (-0.25 * r2 / product).exp();
        let inverse2 = 1.0 / (r2 + product * fade);
        let energy = -self.prefactor * self.atoms[i].charge * self.atoms[j].charge * inverse2.sqrt();
        // E ∝ f^{-1/2}: ∂E = −½ E ∂f/f, ∂f/∂r² = 1 − ¼ fade, ∂f/∂(R_i R_j) = fade (1 + r²/4R_iR_j).
        let force = energy * inverse2 * (1.0 - 0.25 * fade);
        push(forces, i, force, between);
        push(forces, j, -force, between);
        let by_product = -0.5 * energy * inverse2 * fade * (1.0 + 0.25 * r2 / product);
        by_radius[i] += by_product * radii[j].0;
        by_radius[j] += by_product * radii[i].0;
        energy
    }
}
