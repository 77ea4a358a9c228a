//! Molecules in the formats of AMBER: parameters and topology (`prmtop`), and coordinates (`inpcrd`, `crd`).
//!
//! Both are text in columns of fixed width, in ångströms, kcal/mol and charges times 18.2223; what is read comes in the units of
//! [`sde_core::molecule`]. Every count that a file states is compared with the fields that are there, every atom and type that is
//! named is looked up; what the files can hold and this force field cannot (boxes, polarisation, 10–12 terms, CHARMM's
//! terms) is an error. `amber/sections.rs`: text to fields; `amber/prmtop.rs`: fields to a force field.

mod prmtop;
mod sections;

use std::path::Path;

use super::source::read_file;
use crate::error::Place;
use crate::{Error, Result};

pub use prmtop::Prmtop;

/// Nanometres in an ångström.
const ANGSTROM: f64 = 0.1;

/// The molecule of a `prmtop` file.
///
/// # Errors
/// If the file cannot be read, is damaged, or holds terms that the force field does not have.
pub fn read_prmtop(path: &Path) -> Result<Prmtop> {
    prmtop::parse(&text(read_file(path)?, path)?, path)
}

/// The places of the atoms in an `inpcrd` or `crd` file: x, y, z of each in turn, in nanometres.
///
/// # Errors
/// If the file cannot be read or is damaged, or holds more than coordinates (velocities, a box).
pub fn read_inpcrd(path: &Path) -> Result<Vec<f64>> {
    parse_inpcrd(&text(read_file(path)?, path)?, path)
}

/// [`read_prmtop`] of text.
pub(crate) fn parse_prmtop(text: &str, file: &Path) -> Result<Prmtop> {
    prmtop::parse(text, file)
}

fn text(bytes: Vec<u8>, file: &Path) -> Result<String> {
    String::from_utf8(bytes).map_err(|e| {
        Error::malformed(
            file,
            Place::Byte(e.utf8_error().valid_up_to() as u64),
            "text",
            "bytes that are none",
        )
    })
}

/// [`read_inpcrd`] of text.
pub(crate) fn parse_inpcrd(text: &str, file: &Path) -> Result<Vec<f64>> {
    const WIDTH: usize = 12;
    let wrong = |line: usize, expected: &str, found: String| {
        Error::malformed(file, Place::Line(line as u64), expected, found)
    };
    let count = text.lines().nth(1).and_then(|line| line.split_whitespace().next()).unwrap_or_default();
    let atoms: usize =
        count.parse().map_err(|_| wrong(2, "the number of atoms, below a title", format!("{count:?}")))?;
    let mut places = Vec::new();
    for (i, line) in text.lines().enumerate().skip(2).filter(|(_, line)| !line.trim().is_empty()) {
        for field in sections::columns(line, WIDTH) {
            let number = field.trim().parse::<f64>().ok().filter(|v| v.is_finite() && field.len() == WIDTH);
            let number = number
                .ok_or_else(|| wrong(i + 1, "finite numbers, 12 columns each", format!("{field:?}")))?;
            places.push(number * ANGSTROM);
        }
    }
    if atoms.checked_mul(3) != Some(places.len()) {
        let expected =
            format!("3 coordinates for each of {atoms} atoms and nothing else (no velocities, no box)");
        return Err(Error::malformed(file, Place::File, expected, places.len().to_string()));
    }
    Ok(places)
}

#[cfg(test)]
mod tests;
