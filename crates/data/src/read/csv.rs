//! Tables of numbers as comma-separated text, gzipped or not.

use std::path::Path;

use ndarray::Array2;

use super::source::{gunzip, read_file};
use crate::error::Place;
use crate::{Error, Result};

/// Whether the first line names the columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// It does.
    Present,
    /// It holds numbers.
    Absent,
    /// It does if one of its fields is not a number.
    Detect,
}

/// A table of numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// The names of the columns, if the file has them.
    pub names: Option<Vec<String>>,
    /// The numbers, `[rows, columns]`, all finite.
    pub values: Array2<f64>,
}

/// The table in a file.
///
/// # Errors
/// If a field is not a finite number, lines differ in length, or there is none.
pub fn read_csv(path: &Path, header: Header) -> Result<Table> {
    parse_csv(read_file(path)?, path, header)
}

/// [`read_csv`] of bytes.
pub(crate) fn parse_csv(bytes: Vec<u8>, file: &Path, header: Header) -> Result<Table> {
    let bytes = gunzip(bytes, file)?;
    let mut builder = csv::ReaderBuilder::new();
    builder.has_headers(false).flexible(true).trim(csv::Trim::All);
    let (mut names, mut values, mut columns) = (None, Vec::new(), None);
    for (i, record) in builder.from_reader(bytes.as_slice()).records().enumerate() {
        let at = |position: Option<&csv::Position>| {
            Place::Line(position.map_or(i as u64 + 1, csv::Position::line))
        };
        let record = record.map_err(|e| {
            Error::malformed(file, at(e.position()), "comma-separated fields in UTF-8", e.to_string())
        })?;
        let wrong =
            |expected: String, found: String| Error::malformed(file, at(record.position()), expected, found);
        if *columns.get_or_insert(record.len()) != record.len() {
            let expected = format!("{} fields as in the first line", columns.unwrap_or_default());
            return Err(wrong(expected, record.len().to_string()));
        }
        let is_header = match header {
            Header::Present => i == 0,
            Header::Absent => false,
            Header::Detect => i == 0 && record.iter().any(|field| field.parse::<f64>().is_err()),
        };
        if is_header {
            names = Some(record.iter().map(str::to_owned).collect());
            continue;
        }
        for (column, field) in record.iter().enumerate() {
            let number = field.parse::<f64>().ok().filter(|v| v.is_finite());
            let number = number
                .ok_or_else(|| wrong("a finite number".into(), format!("{field:?} in column {column}")))?;
            values.push(number);
        }
    }
    let columns = columns.unwrap_or(0);
    if values.is_empty() {
        return Err(Error::malformed(file, Place::File, "a line of numbers", "none"));
    }
    let values = Array2::from_shape_vec((values.len() / columns, columns), values)
        .map_err(|e| Error::malformed(file, Place::File, "a rectangular table", e.to_string()))?;
    Ok(Table { names, values })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::source::gzip;
    use ndarray::array;

    fn parse(text: &str, header: Header) -> Result<Table> {
        parse_csv(text.into(), Path::new("t.csv"), header)
    }

    #[test]
    fn tables_with_and_without_names() -> Result<()> {
        let expected = array![[1.0, -2.5], [3e4, 0.0]];
        let plain = parse("1, -2.5\n3e4,0\n", Header::Detect)?;
        assert_eq!((plain.names, &plain.values), (None, &expected));
        let named = parse("a,b\n1,-2.5\r\n3e4,0", Header::Detect)?;
        assert_eq!((named.names, &named.values), (Some(vec!["a".into(), "b".into()]), &expected));
        assert_eq!(parse("1,2\n3,4\n", Header::Present)?.values, array![[3.0, 4.0]]);
        assert_eq!(
            parse_csv(gzip(b"1\n2\n"), Path::new("t.csv.gz"), Header::Absent)?.values,
            array![[1.0], [2.0]]
        );
        Ok(())
    }

    #[test]
    fn errors_name_the_line() {
        for (text, header, place) in [
            (
                "1,2\n3,x\n",
                Header::Absent,
                "t.csv, line 2: expected a finite number, found \"x\" in column 1",
            ),
            (
                "a,b\n1,nan\n",
                Header::Detect,
                "t.csv, line 2: expected a finite number, found \"nan\" in column 1",
            ),
            ("1,2\n3\n", Header::Absent, "t.csv, line 2: expected 2 fields as in the first line, found 1"),
            ("a,b\n", Header::Absent, "t.csv, line 1"),
            ("a,b\n", Header::Present, "t.csv: expected a line of numbers, found none"),
            ("", Header::Detect, "t.csv: expected a line of numbers"),
        ] {
            let message = parse(text, header).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(message.starts_with(place), "{text:?}: {message}");
        }
        assert!(parse_csv(b"1,\xff\n".to_vec(), Path::new("t.csv"), Header::Absent).is_err());
    }
}
