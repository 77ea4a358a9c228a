//! Alanine dipeptide against OpenMM's energies and forces (`golden/alanine_dipeptide.json`: double precision, reference
//! platform, no cutoff, ff96, OBC1), and its mirror image.

use sde_core::molecule::{ForceField, dihedral};
use sde_data::{ALANINE_TORSIONS, alanine_dipeptide};
use serde_json::Value;

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn golden(solvent: &str) -> Result<Value, Box<dyn std::error::Error>> {
    let all: Value = serde_json::from_str(include_str!("golden/alanine_dipeptide.json"))?;
    Ok(all[solvent].clone())
}

fn close(what: &str, found: f64, expected: f64, scale: f64) {
    assert!((found - expected).abs() <= 1e-6 * scale.abs(), "{what}: {found} against {expected}");
}

/// All parts to 1e-6 of themselves, forces to 1e-6 of the largest: the peer's own constants differ from CODATA by 2e-7.
fn compare(force_field: &ForceField, places: &[f64], expected: &Value) -> Outcome {
    let mut forces = vec![0.0; places.len()];
    let found = force_field.energy(places, &mut forces)?;
    let parts = &expected["parts"];
    let part = |name: &str| parts[name].as_f64().ok_or_else(|| format!("no part {name}"));
    close("total", found.total(), expected["total_kJ_mol"].as_f64().ok_or("no total")?, found.total());
    close("bonds", found.bonds, part("HarmonicBondForce0")?, found.bonds);
    close("angles", found.angles, part("HarmonicAngleForce1")?, found.angles);
    close("torsions", found.torsions, part("PeriodicTorsionForce2")?, found.torsions);
    close("pairs", found.pairs, part("NonbondedForce3")?, found.pairs);
    close("solvent", found.solvent, part("CustomGBForce4").unwrap_or(0.0), found.solvent);
    let wanted: Vec<Vec<f64>> = serde_json::from_value(expected["forces"].clone())?;
    let largest = wanted.iter().flatten().fold(0.0, |m: f64, f| m.max(f.abs()));
    assert_eq!(wanted.len() * 3, forces.len());
    for (i, (found, wanted)) in forces.iter().zip(wanted.iter().flatten()).enumerate() {
        close(&format!("force {i}"), *found, *wanted, largest);
    }
    Ok(())
}

#[test]
fn energies_and_forces_are_openmms() -> Outcome {
    let (molecule, places) = alanine_dipeptide()?;
    compare(&molecule.force_field, &places, &golden("obc1")?)?;
    compare(&molecule.force_field.in_vacuum(), &places, &golden("vacuum")?)
}

#[test]
fn the_mirror_image_has_the_same_energy_and_torsions_turned_round() -> Outcome {
    let (molecule, places) = alanine_dipeptide()?;
    let mirrored: Vec<f64> =
        places.iter().enumerate().map(|(i, v)| if i % 3 == 2 { -v } else { *v }).collect();
    let mut forces = vec![0.0; places.len()];
    let (here, there) = (
        molecule.force_field.energy(&places, &mut forces)?,
        molecule.force_field.energy(&mirrored, &mut forces)?,
    );
    // The file writes π as 3.141594, so a torsion may see its mirror image shifted by twice what is amiss.
    let amiss = |phase: f64| (phase - std::f64::consts::PI).abs().min(phase.abs());
    let terms = molecule.force_field.terms();
    let bound: f64 = terms.torsions.iter().map(|t| 2.0 * t.barrier * amiss(t.phase)).sum();
    assert!(
        bound < 1e-3 && (here.total() - there.total()).abs() < bound + 1e-10,
        "{bound} {here:?} {there:?}"
    );
    for (name, atoms) in ALANINE_TORSIONS {
        let turned = dihedral(&places, atoms)? + dihedral(&mirrored, atoms)?;
        assert!(turned.sin().abs() < 1e-9 && turned.cos() > 0.0, "{name}: {turned}");
    }
    Ok(())
}

#[test]
fn torsions_turn_what_their_names_say() -> Outcome {
    let (molecule, places) = alanine_dipeptide()?;
    let names = |atoms: [usize; 4]| atoms.map(|atom| molecule.names[atom].clone());
    let expected = [
        ["C", "N", "CA", "C"],
        ["N", "CA", "CB", "HB1"],
        ["N", "CA", "C", "N"],
        ["C", "N", "CH3", "HH31"],
        ["N", "C", "CH3", "HH31"],
    ];
    for ((name, atoms), expected) in ALANINE_TORSIONS.into_iter().zip(expected) {
        assert_eq!(names(atoms), expected.map(String::from), "{name}");
    }
    // The file's chain is stretched: φ and ψ are 180° in the published picture of it, but for the last digits.
    assert!(dihedral(&places, ALANINE_TORSIONS[2].1)?.cos() < -0.999);
    Ok(())
}
