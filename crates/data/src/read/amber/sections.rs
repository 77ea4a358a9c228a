//! The sections of a `prmtop` file: `%FLAG NAME`, `%FORMAT(10I8)`, then lines of fields of that width.

use std::collections::HashMap;
use std::path::Path;

use crate::error::Place;
use crate::{Error, Result};

/// A field with the line it stands in.
struct Cell<'a> {
    line: usize,
    text: &'a str,
}

/// A section: where it begins and what it holds.
struct Section<'a> {
    line: usize,
    width: usize,
    cells: Vec<Cell<'a>>,
}

/// A file cut into sections.
pub(super) struct Sections<'a> {
    file: &'a Path,
    named: HashMap<&'a str, Section<'a>>,
}

/// The pieces of a line, `width` bytes each; a line that is no ASCII is one piece.
pub(super) fn columns(line: &str, width: usize) -> impl Iterator<Item = &str> {
    let line = line.trim_end();
    let width = if line.is_ascii() { width } else { line.len() };
    (0..line.len()).step_by(width.max(1)).filter_map(move |at| line.get(at..(at + width).min(line.len())))
}

/// The width of a Fortran format such as `(20a4)`, `(10I8)`, `(5E16.8)`.
fn width(format: &str) -> Option<usize> {
    let inside = format.trim().strip_prefix('(')?.split_once(')')?.0;
    let kind = inside.find(|c: char| c.is_ascii_alphabetic())?;
    let (count, rest) = inside.split_at(kind);
    let digits = rest.get(1..)?.split('.').next()?;
    let width = digits.parse::<usize>().ok().filter(|w| (1..=1000).contains(w))?;
    count.parse::<u32>().ok().map(|_| width)
}

impl<'a> Sections<'a> {
    /// Cuts a file.
    pub(super) fn new(text: &'a str, file: &'a Path) -> Result<Self> {
        let wrong = |line: usize, expected: &str, found: String| {
            Error::malformed(file, Place::Line(line as u64), expected, found)
        };
        let mut named: HashMap<&str, Section> = HashMap::new();
        let (mut current, mut wide) = (None, None);
        for (i, line) in text.lines().enumerate().map(|(i, line)| (i + 1, line)) {
            if let Some(rest) = line.strip_prefix("%FLAG") {
                let name = rest.trim();
                if named.insert(name, Section { line: i, width: 0, cells: Vec::new() }).is_some() {
                    return Err(wrong(i, "each section once", format!("{name:?} again")));
                }
                (current, wide) = (Some(name), None);
            } else if let Some(format) = line.strip_prefix("%FORMAT") {
                wide = Some(
                    width(format)
                        .ok_or_else(|| wrong(i, "a format such as (10I8)", format!("{format:?}")))?,
                );
            } else if !line.starts_with('%') && !line.trim().is_empty() {
                let (Some(section), Some(wide)) = (current.and_then(|name| named.get_mut(name)), wide) else {
                    return Err(wrong(i, "%FLAG and %FORMAT before fields", format!("{:?}", clip(line))));
                };
                section.width = wide;
                section.cells.extend(columns(line, wide).map(|text| Cell { line: i, text }));
            }
        }
        Ok(Self { file, named })
    }

    /// The names of all sections.
    pub(super) fn names(&self) -> impl Iterator<Item = &'a str> {
        self.named.keys().copied()
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.named.contains_key(name)
    }

    fn section(&self, name: &str) -> Result<&Section<'a>> {
        self.named
            .get(name)
            .ok_or_else(|| Error::malformed(self.file, Place::Entry(name.into()), "this section", "none"))
    }

    /// What is wrong with a section as a whole.
    pub(super) fn wrong(&self, name: &str, expected: impl Into<String>, found: impl Into<String>) -> Error {
        let line = self.named.get(name).map_or(0, |section| section.line);
        let expected = format!("{} in {name}", expected.into());
        Error::malformed(self.file, Place::Line(line as u64), expected, found)
    }

    /// The fields of a section, read by `parse`, which is given the field and the width that it should have.
    fn read<T>(&self, name: &str, what: &str, parse: impl Fn(&str, usize) -> Option<T>) -> Result<Vec<T>> {
        let section = self.section(name)?;
        let cell = |(i, cell): (usize, &Cell)| {
            parse(cell.text, section.width).ok_or_else(|| {
                let expected = format!("{what} as field {i} of {name}");
                Error::malformed(
                    self.file,
                    Place::Line(cell.line as u64),
                    expected,
                    format!("{:?}", clip(cell.text)),
                )
            })
        };
        section.cells.iter().enumerate().map(cell).collect()
    }

    fn counted<T>(&self, name: &str, count: usize, found: Vec<T>) -> Result<Vec<T>> {
        if found.len() == count {
            return Ok(found);
        }
        Err(self.wrong(name, format!("{count} fields"), found.len().to_string()))
    }

    /// All integers of a section.
    pub(super) fn integers(&self, name: &str) -> Result<Vec<i64>> {
        self.read(name, "an integer", |text, width| whole(text, width)?.parse().ok())
    }

    /// The integers of a section, whose number is known.
    pub(super) fn counted_integers(&self, name: &str, count: usize) -> Result<Vec<i64>> {
        self.counted(name, count, self.integers(name)?)
    }

    /// The numbers of a section, whose number is known; all finite.
    pub(super) fn numbers(&self, name: &str, count: usize) -> Result<Vec<f64>> {
        let number =
            |text: &str, width: usize| whole(text, width)?.parse::<f64>().ok().filter(|v| v.is_finite());
        self.counted(name, count, self.read(name, "a finite number", number)?)
    }

    /// The words of a section, whose number is known.
    pub(super) fn words(&self, name: &str, count: usize) -> Result<Vec<String>> {
        self.counted(name, count, self.read(name, "a word", |text, _| Some(text.trim().to_owned()))?)
    }
}

/// A number's field without its blanks; numbers stand at the right, so that a shorter field has been cut.
fn whole(text: &str, width: usize) -> Option<&str> {
    (text.len() == width).then(|| text.trim())
}

/// The beginning of a text that may be long.
fn clip(text: &str) -> String {
    text.chars().take(40).collect()
}
