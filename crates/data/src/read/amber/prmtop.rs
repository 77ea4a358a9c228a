//! The fields of a `prmtop` file as a force field.
//!
//! Reference: "prmtop file format", the AMBER project's reference manual (2024), appendix; generalised Born defaults
//! (ε 1 and 78.5, surface term 28.3919551 kJ/mol/nm²): those of OpenMM for this file format.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use sde_core::molecule::{Angle, Bond, BornAtom, COULOMB, ForceField, GeneralizedBorn, Pair, Terms, Torsion};

use super::ANGSTROM;
use super::sections::Sections;
use crate::Result;

/// Kilojoules in a kilocalorie.
const KCAL: f64 = 4.184;
/// What charges are multiplied with in the file.
const CHARGE: f64 = 18.2223;
/// What 1–4 pairs are divided by where the file does not say: Coulomb, Lennard-Jones.
const SCALES: [f64; 2] = [1.2, 2.0];
/// The largest molecule read; pairs are listed, so memory grows with the square.
const MOST_ATOMS: i64 = 2000;
const WATER: f64 = 78.5;
const SURFACE: f64 = 28.391_955_1;

/// A molecule as read.
#[derive(Debug, Clone, PartialEq)]
pub struct Prmtop {
    /// The names of its atoms.
    pub names: Vec<String>,
    /// Their masses, in g/mol.
    pub masses: Vec<f64>,
    /// Its force field, in water.
    pub force_field: ForceField,
}

/// The counts at the head of the file.
struct Counts {
    atoms: usize,
    types: usize,
    bonds: [usize; 2],
    angles: [usize; 2],
    torsions: [usize; 2],
    exclusions: usize,
    kinds: [usize; 3],
}

/// An atom's place as the file writes it: three times its number.
fn atom(sections: &Sections, name: &str, atoms: usize, coordinate: i64) -> Result<usize> {
    let index = coordinate.unsigned_abs() as usize;
    if !index.is_multiple_of(3) || index / 3 >= atoms {
        let expected = format!("three times an atom's number below {atoms}");
        return Err(sections.wrong(name, expected, coordinate.to_string()));
    }
    Ok(index / 3)
}

/// An index from 1 into a table of `len` entries.
fn index(sections: &Sections, name: &str, len: usize, found: i64) -> Result<usize> {
    if found < 1 || found as u64 > len as u64 {
        return Err(sections.wrong(name, format!("an index from 1 to {len}"), found.to_string()));
    }
    Ok(found as usize - 1)
}

fn counts(sections: &Sections) -> Result<Counts> {
    const NAME: &str = "POINTERS";
    let all = sections.integers(NAME)?;
    if all.len() < 30 {
        return Err(sections.wrong(NAME, "at least 30 fields", all.len().to_string()));
    }
    for (at, what) in [(20, "no perturbation (IFPERT 0)"), (27, "no box (IFBOX 0)"), (29, "no cap (IFCAP 0)")]
    {
        if all[at] != 0 {
            return Err(sections.wrong(NAME, what, all[at].to_string()));
        }
    }
    // Left out by old files.
    if let Some(&extra) = all.get(30).filter(|&&extra| extra != 0) {
        return Err(sections.wrong(NAME, "no extra points (NUMEXTRA 0)", extra.to_string()));
    }
    let count = |at: usize| {
        let most = MOST_ATOMS * MOST_ATOMS;
        let least = i64::from(at == 0);
        let most = if at == 0 { MOST_ATOMS } else { most };
        let found = all[at];
        if found < least || found > most {
            return Err(sections.wrong(
                NAME,
                format!("a count from {least} to {most} as field {at}"),
                found.to_string(),
            ));
        }
        Ok(found as usize)
    };
    Ok(Counts {
        atoms: count(0)?,
        types: count(1)?,
        bonds: [count(2)?, count(12)?],
        angles: [count(4)?, count(13)?],
        torsions: [count(6)?, count(14)?],
        exclusions: count(10)?,
        kinds: [count(15)?, count(16)?, count(17)?],
    })
}

/// Rows of a list that is cut into terms with hydrogen and terms without.
fn rows<const N: usize>(
    sections: &Sections,
    what: &str,
    lengths: [usize; 2],
) -> Result<Vec<(String, [i64; N])>> {
    let mut rows = Vec::new();
    for (part, length) in ["INC_HYDROGEN", "WITHOUT_HYDROGEN"].into_iter().zip(lengths) {
        let name = format!("{what}_{part}");
        let fields = sections.counted_integers(&name, N.saturating_mul(length))?;
        rows.extend(fields.as_chunks::<N>().0.iter().map(|row| (name.clone(), *row)));
    }
    Ok(rows)
}

fn bonds(sections: &Sections, counts: &Counts) -> Result<Vec<Bond>> {
    let stiffness = sections.numbers("BOND_FORCE_CONSTANT", counts.kinds[0])?;
    let length = sections.numbers("BOND_EQUIL_VALUE", counts.kinds[0])?;
    let bond = |(name, [i, j, kind]): (String, [i64; 3])| {
        let kind = index(sections, &name, counts.kinds[0], kind)?;
        let place = |coordinate| atom(sections, &name, counts.atoms, coordinate);
        Ok(Bond {
            atoms: [place(i)?, place(j)?],
            stiffness: 2.0 * stiffness[kind] * KCAL / (ANGSTROM * ANGSTROM),
            length: length[kind] * ANGSTROM,
        })
    };
    rows::<3>(sections, "BONDS", counts.bonds)?.into_iter().map(bond).collect()
}

fn angles(sections: &Sections, counts: &Counts) -> Result<Vec<Angle>> {
    let stiffness = sections.numbers("ANGLE_FORCE_CONSTANT", counts.kinds[1])?;
    let size = sections.numbers("ANGLE_EQUIL_VALUE", counts.kinds[1])?;
    let angle = |(name, [i, j, k, kind]): (String, [i64; 4])| {
        let kind = index(sections, &name, counts.kinds[1], kind)?;
        let place = |coordinate| atom(sections, &name, counts.atoms, coordinate);
        Ok(Angle {
            atoms: [place(i)?, place(j)?, place(k)?],
            stiffness: 2.0 * stiffness[kind] * KCAL,
            angle: size[kind],
        })
    };
    rows::<4>(sections, "ANGLES", counts.angles)?.into_iter().map(angle).collect()
}

/// Torsions, and the 1–4 pairs that they imply with what those are divided by.
type Torsions = (Vec<Torsion>, BTreeMap<[usize; 2], [f64; 2]>);

fn torsions(sections: &Sections, counts: &Counts) -> Result<Torsions> {
    let kinds = counts.kinds[2];
    let table = |name: &str| sections.numbers(name, kinds);
    let (barrier, multiplicity) = (table("DIHEDRAL_FORCE_CONSTANT")?, table("DIHEDRAL_PERIODICITY")?);
    let phase = table("DIHEDRAL_PHASE")?;
    let scale =
        |name: &str, usual: f64| if sections.has(name) { table(name) } else { Ok(vec![usual; kinds]) };
    let scales = [scale("SCEE_SCALE_FACTOR", SCALES[0])?, scale("SCNB_SCALE_FACTOR", SCALES[1])?];
    let (mut found, mut ends) = (Vec::new(), BTreeMap::new());
    for (name, [i, j, k, l, kind]) in rows::<5>(sections, "DIHEDRALS", counts.torsions)? {
        let kind = index(sections, &name, kinds, kind)?;
        let place = |coordinate| atom(sections, &name, counts.atoms, coordinate);
        let atoms = [place(i)?, place(j)?, place(k)?, place(l)?];
        if k >= 0 && l >= 0 {
            let divisors = [scales[0][kind], scales[1][kind]];
            if divisors.iter().any(|&divisor| divisor <= 0.0) {
                return Err(sections.wrong(&name, "positive 1-4 scale factors", format!("{divisors:?}")));
            }
            ends.insert([atoms[0].min(atoms[3]), atoms[0].max(atoms[3])], divisors);
        }
        let multiplicity = multiplicity[kind].abs();
        found.push(Torsion { atoms, barrier: barrier[kind] * KCAL, multiplicity, phase: phase[kind] });
    }
    Ok((found, ends))
}

/// The pairs that the file excludes.
fn exclusions(sections: &Sections, counts: &Counts) -> Result<BTreeSet<[usize; 2]>> {
    const NAME: &str = "EXCLUDED_ATOMS_LIST";
    let numbers = sections.counted_integers("NUMBER_EXCLUDED_ATOMS", counts.atoms)?;
    let list = sections.counted_integers(NAME, counts.exclusions)?;
    let (mut excluded, mut rest) = (BTreeSet::new(), list.as_slice());
    for (i, &number) in numbers.iter().enumerate() {
        let own = usize::try_from(number).ok().and_then(|number| rest.split_at_checked(number));
        let Some((own, after)) = own else {
            return Err(sections.wrong("NUMBER_EXCLUDED_ATOMS", "counts that add up", number.to_string()));
        };
        // 0 stands for none.
        for &other in own.iter().filter(|&&other| other != 0) {
            let other = index(sections, NAME, counts.atoms, other)?;
            excluded.insert([i.min(other), i.max(other)]);
        }
        rest = after;
    }
    if rest.is_empty() {
        return Ok(excluded);
    }
    Err(sections.wrong(
        NAME,
        "as many fields as NUMBER_EXCLUDED_ATOMS adds up to",
        format!("{} more", rest.len()),
    ))
}

fn pairs(
    sections: &Sections,
    counts: &Counts,
    charges: &[f64],
    ends: &BTreeMap<[usize; 2], [f64; 2]>,
) -> Result<Vec<Pair>> {
    const TABLE: &str = "NONBONDED_PARM_INDEX";
    let types = sections.counted_integers("ATOM_TYPE_INDEX", counts.atoms)?;
    let types = types.iter().map(|&kind| index(sections, "ATOM_TYPE_INDEX", counts.types, kind));
    let types = types.collect::<Result<Vec<_>>>()?;
    let square = counts.types.saturating_mul(counts.types);
    let half = square.saturating_add(counts.types) / 2;
    let table = sections.counted_integers(TABLE, square)?;
    let twelve = sections.numbers("LENNARD_JONES_ACOEF", half)?;
    let six = sections.numbers("LENNARD_JONES_BCOEF", half)?;
    let excluded = exclusions(sections, counts)?;
    let mut pairs = Vec::new();
    for i in 0..counts.atoms {
        for j in i + 1..counts.atoms {
            let scaled = ends.get(&[i, j]);
            if scaled.is_none() && excluded.contains(&[i, j]) {
                continue;
            }
            let [electric, steric] = scaled.copied().unwrap_or([1.0, 1.0]);
            // A negative entry asks for a 10–12 term, which is refused here.
            let kind = index(sections, TABLE, half, table[counts.types * types[i] + types[j]])?;
            pairs.push(Pair {
                atoms: [i, j],
                twelve: twelve[kind] * KCAL * ANGSTROM.powi(12) / steric,
                six: six[kind] * KCAL * ANGSTROM.powi(6) / steric,
                coulomb: COULOMB * charges[i] * charges[j] / electric,
            });
        }
    }
    Ok(pairs)
}

fn solvent(sections: &Sections, charges: &[f64]) -> Result<GeneralizedBorn> {
    let radii = sections.numbers("RADII", charges.len())?;
    let screens = sections.numbers("SCREEN", charges.len())?;
    let atom = |((&charge, radius), screen): ((&f64, f64), f64)| BornAtom {
        charge,
        radius: radius * ANGSTROM,
        screen,
    };
    let atoms = charges.iter().zip(radii).zip(screens).map(atom).collect();
    Ok(GeneralizedBorn { prefactor: COULOMB * (1.0 - 1.0 / WATER), surface: SURFACE, atoms })
}

/// The molecule that a text describes.
pub(super) fn parse(text: &str, file: &Path) -> Result<Prmtop> {
    let sections = Sections::new(text, file)?;
    let foreign = |name: &&str| {
        ["CTITLE", "POLARIZABILITY", "LENNARD_JONES_CCOEF"].contains(name)
            || ["CMAP_", "CHARMM_"].iter().any(|prefix| name.starts_with(prefix))
    };
    // Terms that are left out make wrong energies, so none is. The first by name: which one is told does not hang on a hash.
    if let Some(name) = sections.names().filter(foreign).min() {
        return Err(sections.wrong(name, "no terms but those of AMBER's fixed charges", "some"));
    }
    let counts = counts(&sections)?;
    let charges: Vec<f64> =
        sections.numbers("CHARGE", counts.atoms)?.iter().map(|charge| charge / CHARGE).collect();
    let (torsions, ends) = torsions(&sections, &counts)?;
    let terms = Terms {
        atoms: counts.atoms,
        bonds: bonds(&sections, &counts)?,
        angles: angles(&sections, &counts)?,
        torsions,
        pairs: pairs(&sections, &counts, &charges, &ends)?,
        solvent: Some(solvent(&sections, &charges)?),
    };
    Ok(Prmtop {
        names: sections.words("ATOM_NAME", counts.atoms)?,
        masses: sections.numbers("MASS", counts.atoms)?,
        force_field: ForceField::new(terms)?,
    })
}
