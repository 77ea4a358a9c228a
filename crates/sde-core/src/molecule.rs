//! Molecular mechanics on the host: the energy of a molecule by its atoms' places, and the forces, in f64.
//!
//! E(x) = Σ_bonds ½k(r−r₀)² + Σ_angles ½k(θ−θ₀)² + Σ_torsions k(1+cos(nφ−δ)) + Σ_pairs (A/r¹² − B/r⁶ + q/r) \[+ a solvent\].
//! The force on an atom is −∂E/∂x, analytic for every term. Units: nanometres, kJ/mol, elementary charges. One file an idea:
//! `bonded.rs` what bonds hold together, `pairs.rs` what acts through space, `born.rs` the solvent, `boltzmann.rs` the law at a temperature, `vector.rs` arithmetic.
//!
//! Reference: Cornell, Cieplak et al. 1995, "A Second Generation Force Field", doi 10.1021/ja00124a002, eq. 1.

mod boltzmann;
mod bonded;
mod born;
mod pairs;
mod vector;

pub use boltzmann::Boltzmann;
pub use bonded::{Angle, Bond, Torsion, dihedral};
pub use born::{BornAtom, GeneralizedBorn};
pub use pairs::Pair;

use crate::error::in_range;
use crate::{Error, Result};

/// Coulomb's constant N_A e² / (4π ε₀), in kJ/mol · nm (CODATA 2018).
pub const COULOMB: f64 = 138.935_457_644_381_98;

/// The gas constant, in kJ/mol/K (exact since 2019).
pub const GAS: f64 = 8.314_462_618_153_24e-3;

/// What a force field consists of; [`ForceField::new`] checks it.
#[derive(Debug, Clone, PartialEq)]
pub struct Terms {
    /// The number of atoms.
    pub atoms: usize,
    /// Harmonic bonds.
    pub bonds: Vec<Bond>,
    /// Harmonic angles.
    pub angles: Vec<Angle>,
    /// Periodic torsions, proper and improper.
    pub torsions: Vec<Torsion>,
    /// Pairs that act through space: what is excluded is left out, what is scaled comes scaled.
    pub pairs: Vec<Pair>,
    /// The solvent, if there is one.
    pub solvent: Option<GeneralizedBorn>,
}

/// The energy of a molecule with analytic forces.
#[derive(Debug, Clone, PartialEq)]
pub struct ForceField {
    terms: Terms,
}

/// An energy by its parts, in kJ/mol.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Parts {
    /// Of the bonds.
    pub bonds: f64,
    /// Of the angles.
    pub angles: f64,
    /// Of the torsions.
    pub torsions: f64,
    /// Of the pairs: Lennard-Jones and Coulomb.
    pub pairs: f64,
    /// Of the solvent.
    pub solvent: f64,
}

impl Parts {
    /// Their sum.
    pub fn total(&self) -> f64 {
        self.bonds + self.angles + self.torsions + self.pairs + self.solvent
    }
}

impl ForceField {
    /// A force field of checked terms.
    ///
    /// # Errors
    /// If there is no atom, if a term names one that does not exist or one twice, or holds a number that is not finite, a
    /// negative stiffness or a multiplicity that is not whole, or if the solvent has not one entry an atom.
    pub fn new(terms: Terms) -> Result<Self> {
        let atoms = terms.atoms;
        in_range("atoms of a molecule", atoms as f64, 1.0, 1e9)?;
        for bond in &terms.bonds {
            check("a bond", &bond.atoms, atoms, &[bond.stiffness, bond.length])?;
            in_range("stiffness of a bond", bond.stiffness, 0.0, f64::MAX)?;
        }
        for angle in &terms.angles {
            check("an angle", &angle.atoms, atoms, &[angle.stiffness, angle.angle])?;
            in_range("stiffness of an angle", angle.stiffness, 0.0, f64::MAX)?;
        }
        for torsion in &terms.torsions {
            check(
                "a torsion",
                &torsion.atoms,
                atoms,
                &[torsion.barrier, torsion.multiplicity, torsion.phase],
            )?;
            if torsion.multiplicity.fract() != 0.0 {
                let expected = "a whole number, so that a turn changes nothing".into();
                let found = torsion.multiplicity.to_string();
                return Err(Error::Mismatch { what: "multiplicity of a torsion", expected, found });
            }
        }
        for pair in &terms.pairs {
            check("a pair", &pair.atoms, atoms, &[pair.twelve, pair.six, pair.coulomb])?;
        }
        if let Some(solvent) = &terms.solvent {
            solvent.check(atoms)?;
        }
        Ok(Self { terms })
    }

    /// The number of atoms.
    pub fn atoms(&self) -> usize {
        self.terms.atoms
    }

    /// What it consists of.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// The same molecule without a solvent.
    #[must_use]
    pub fn in_vacuum(mut self) -> Self {
        self.terms.solvent = None;
        self
    }

    /// The energy by parts at `places` (x, y, z of each atom in turn, nanometres); `forces` is overwritten with −∂E/∂x.
    ///
    /// Where the atoms of a pair or of the solvent coincide, their energy is infinite or not a number, and so are the forces. A bond of no length has its
    /// finite energy and no direction, so its force is taken as zero.
    ///
    /// # Errors
    /// If `places` or `forces` have not three entries an atom.
    pub fn energy(&self, places: &[f64], forces: &mut [f64]) -> Result<Parts> {
        let wanted = 3 * self.terms.atoms;
        if places.len() != wanted || forces.len() != wanted {
            return Err(Error::Mismatch {
                what: "places and forces of a molecule",
                expected: format!("{wanted} numbers each"),
                found: format!("{} and {}", places.len(), forces.len()),
            });
        }
        forces.fill(0.0);
        Ok(Parts {
            bonds: self.terms.bonds.iter().map(|term| term.add(places, forces)).sum(),
            angles: self.terms.angles.iter().map(|term| term.add(places, forces)).sum(),
            torsions: self.terms.torsions.iter().map(|term| term.add(places, forces)).sum(),
            pairs: self.terms.pairs.iter().map(|term| term.add(places, forces)).sum(),
            solvent: self.terms.solvent.as_ref().map_or(0.0, |solvent| solvent.add(places, forces)),
        })
    }
}

/// Refuses atoms that do not exist or stand twice, and numbers that are not finite.
fn check(what: &'static str, named: &[usize], atoms: usize, numbers: &[f64]) -> Result<()> {
    let twice = named.iter().enumerate().any(|(i, atom)| named[..i].contains(atom));
    if twice || named.iter().any(|&atom| atom >= atoms) {
        let expected = format!("different atoms below {atoms}");
        return Err(Error::Mismatch { what, expected, found: format!("{named:?}") });
    }
    match numbers.iter().find(|number| !number.is_finite()) {
        Some(&found) => Err(Error::NonFinite { what: format!("a number of {what}"), found }),
        None => Ok(()),
    }
}
