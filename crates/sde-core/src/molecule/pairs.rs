//! What acts through space: A/r¹² − B/r⁶ + q/r between two atoms.

use super::vector::{dot, minus, place, push};

/// A/r¹² − B/r⁶ + q/r.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    /// The two atoms.
    pub atoms: [usize; 2],
    /// A, in kJ/mol·nm¹².
    pub twelve: f64,
    /// B, in kJ/mol·nm⁶.
    pub six: f64,
    /// q: Coulomb's constant times both charges, in kJ/mol·nm.
    pub coulomb: f64,
}

impl Pair {
    pub(super) fn add(&self, places: &[f64], forces: &mut [f64]) -> f64 {
        let [i, j] = self.atoms;
        let between = minus(place(places, i), place(places, j));
        let inverse2 = 1.0 / dot(between, between);
        let inverse6 = inverse2 * inverse2 * inverse2;
        let (repulsion, attraction) = (self.twelve * inverse6 * inverse6, self.six * inverse6);
        let charges = self.coulomb * inverse2.sqrt();
        let force = (12.0 * repulsion - 6.0 * attraction + charges) * inverse2;
        push(forces, i, force, between);
        push(forces, j, -force, between);
        repulsion - attraction + charges
    }
}
