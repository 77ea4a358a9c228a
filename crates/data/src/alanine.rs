//! Alanine dipeptide (N-acetyl-alanine-N′-methylamide, 22 atoms) in AMBER's ff96, built into this crate.
//!
//! The parameter file names generalised Born radii, so its force field is in water; [`ForceField::in_vacuum`] leaves it.
//! The files are those of openmmtools 0.27.0, unchanged (MIT licence; `assets/README.md`).
//!
//! [`ForceField::in_vacuum`]: sde_core::molecule::ForceField::in_vacuum

use std::path::Path;

use crate::Result;
use crate::read::amber::{Prmtop, parse_inpcrd, parse_prmtop};

const PARAMETERS: &str = include_str!("../assets/alanine/alanine-dipeptide.prmtop");
const COORDINATES: &str = include_str!("../assets/alanine/alanine-dipeptide.crd");

/// The torsions with more than one basin, by name: φ and ψ of the backbone; η1, η2, η3, by which the methyl groups turn:
/// that on the α carbon, that of the amide, that of the acetyl group.
pub const ALANINE_TORSIONS: [(&str, [usize; 4]); 5] = [
    ("phi", [4, 6, 8, 14]),
    ("eta1", [6, 8, 10, 11]),
    ("psi", [6, 8, 14, 16]),
    ("eta2", [14, 16, 18, 19]),
    ("eta3", [6, 4, 1, 0]),
];

/// The molecule, and places of its atoms close to a minimum (x, y, z of each in turn, nanometres).
///
/// # Errors
/// Only if an embedded file is damaged.
pub fn alanine_dipeptide() -> Result<(Prmtop, Vec<f64>)> {
    let molecule = parse_prmtop(PARAMETERS, Path::new("alanine-dipeptide.prmtop (embedded)"))?;
    Ok((molecule, parse_inpcrd(COORDINATES, Path::new("alanine-dipeptide.crd (embedded)"))?))
}
