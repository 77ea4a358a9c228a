//! Labelled pictures in Parquet, laid out as on the hub: a column `{bytes, path}` of picture files, and
//! `label` as an integer.
//!
//! The picture column may have any name: it is the one group with a field `bytes`. Rows keep their order,
//! pictures are upright (`[C, H, W]`, not transposed). Reference: the Apache Parquet format; the `Image`
//! feature of the `datasets` library.
//!
//! Some damaged pages make the decoder of the `parquet` crate panic; that becomes an error like any other
//! (the panic hook still speaks).

use std::path::Path;

use ndarray::{Array3, Array4, Axis};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::DataType;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use parquet::schema::types::SchemaDescriptor;

use super::picture::{Channels, decode};
use super::source::unfolded_limit;
use crate::error::Place;
use crate::{Error, Images, Result};

const ROWS_AT_ONCE: usize = 256;

/// The pictures of a file on a background of this colour, with labels if there is a column `label`.
///
/// # Errors
/// If the file is malformed, a value is missing, or the pictures are not of one size.
pub fn read_parquet(path: &Path, channels: Channels, background: [u8; 3]) -> Result<Images> {
    // Unwinding is safe: nothing that the decoder touches outlives the call.
    let read = || read(path, channels, background);
    std::panic::catch_unwind(read).unwrap_or_else(|_| {
        Err(Error::malformed(path, Place::File, "a Parquet file", "pages that break its decoder"))
    })
}

fn read(path: &Path, channels: Channels, background: [u8; 3]) -> Result<Images> {
    let file = std::fs::File::open(path).map_err(Error::io(path))?;
    let length = file.metadata().map_err(Error::io(path))?.len();
    let reader = SerializedFileReader::new(file).map_err(|e| malformed(path, &e))?;
    let (bytes, label) = find_columns(reader.metadata().file_metadata().schema_descr(), path)?;
    let (mut pictures, mut labels) = (Stack::new(path, unfolded_limit(length)), Vec::new());
    for index in 0..reader.num_row_groups() {
        let group = reader.get_row_group(index).map_err(|e| malformed(path, &e))?;
        read_pictures(group.as_ref(), &bytes, path, |file| {
            let place = Place::Row(pictures.count());
            pictures.push(decode(file, channels, background, path, place)?)
        })?;
        if let Some(label) = &label {
            read_labels(group.as_ref(), label, path, &mut labels)?;
        }
    }
    Images::new(pictures.done()?, label.map(|_| labels))
}

fn malformed(path: &Path, e: &ParquetError) -> Error {
    Error::malformed(path, Place::File, "a Parquet file", e.to_string())
}

/// A column of the file, without its name's groups.
struct Column {
    index: usize,
    name: String,
    /// The definition level of a value that is there.
    level: i16,
}

impl Column {
    fn wrong(&self, path: &Path, expected: &str, found: impl Into<String>) -> Error {
        Error::malformed(path, Place::Entry(self.name.clone()), expected, found)
    }
}

/// The column of picture files, and that of labels.
fn find_columns(schema: &SchemaDescriptor, path: &Path) -> Result<(Column, Option<Column>)> {
    let (mut bytes, mut label) = (Vec::new(), None);
    for (index, leaf) in schema.columns().iter().enumerate().filter(|(_, leaf)| leaf.max_rep_level() == 0) {
        let column = Column { index, name: leaf.path().string(), level: leaf.max_def_level() };
        match leaf.path().parts() {
            [_, field] if field == "bytes" => bytes.push(column),
            [field] if field == "label" => label = Some(column),
            _ => {}
        }
    }
    match (bytes.pop(), bytes.pop()) {
        (Some(bytes), None) => Ok((bytes, label)),
        (last, _) => {
            let names: Vec<String> = schema.columns().iter().map(|leaf| leaf.path().string()).collect();
            let found = if last.is_some() { "several" } else { "none" };
            let found = format!("{found} among {}", names.join(", "));
            Err(Error::malformed(path, Place::File, "one column {bytes, path} of pictures", found))
        }
    }
}

fn read_pictures(
    group: &dyn RowGroupReader,
    column: &Column,
    path: &Path,
    mut each: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    match group.get_column_reader(column.index).map_err(|e| malformed(path, &e))? {
        ColumnReader::ByteArrayColumnReader(reader) => {
            for_each_value(reader, column, path, |file| each(file.data()))
        }
        _ => Err(column.wrong(path, "bytes", "another type")),
    }
}

fn read_labels(
    group: &dyn RowGroupReader,
    column: &Column,
    path: &Path,
    labels: &mut Vec<u32>,
) -> Result<()> {
    let mut push = |label: i64| {
        let class =
            u32::try_from(label).map_err(|_| column.wrong(path, "classes from 0", label.to_string()))?;
        labels.push(class);
        Ok(())
    };
    match group.get_column_reader(column.index).map_err(|e| malformed(path, &e))? {
        ColumnReader::Int64ColumnReader(reader) => for_each_value(reader, column, path, |&label| push(label)),
        ColumnReader::Int32ColumnReader(reader) => {
            for_each_value(reader, column, path, |&label| push(i64::from(label)))
        }
        _ => Err(column.wrong(path, "integers", "another type")),
    }
}

/// Calls `each` with every value of a column, and refuses a missing one.
fn for_each_value<T: DataType>(
    mut reader: ColumnReaderImpl<T>,
    column: &Column,
    path: &Path,
    mut each: impl FnMut(&T::T) -> Result<()>,
) -> Result<()> {
    loop {
        let (mut values, mut levels) = (Vec::new(), Vec::new());
        let read = reader.read_records(ROWS_AT_ONCE, Some(&mut levels), None, &mut values);
        let (records, _, _) = read.map_err(|e| malformed(path, &e))?;
        if records == 0 {
            return Ok(());
        }
        if levels.iter().any(|&level| level < column.level) || values.len() != records {
            return Err(column.wrong(path, "a value in every row", "a missing one"));
        }
        values.iter().try_for_each(&mut each)?;
    }
}

/// Pictures of one size, gathered.
struct Stack<'a> {
    path: &'a Path,
    limit: u64,
    pixels: Option<Array4<u8>>,
}

impl<'a> Stack<'a> {
    fn new(path: &'a Path, limit: u64) -> Self {
        Self { path, limit, pixels: None }
    }

    fn count(&self) -> u64 {
        self.pixels.as_ref().map_or(0, |pixels| pixels.len_of(Axis(0)) as u64)
    }

    fn push(&mut self, picture: Array3<u8>) -> Result<()> {
        let place = Place::Row(self.count());
        let (c, h, w) = picture.dim();
        let pixels = self.pixels.get_or_insert_with(|| Array4::zeros((0, c, h, w)));
        if (pixels.len() + picture.len()) as u64 > self.limit {
            return Err(Error::TooLarge { file: self.path.to_owned(), limit: self.limit });
        }
        let (_, first_c, first_h, first_w) = pixels.dim();
        pixels.push(Axis(0), picture.view()).map_err(|_| {
            let expected = format!("shape [{first_c}, {first_h}, {first_w}] as in row 0");
            Error::malformed(self.path, place, expected, format!("[{c}, {h}, {w}]"))
        })
    }

    fn done(self) -> Result<Array4<u8>> {
        self.pixels.ok_or_else(|| Error::malformed(self.path, Place::File, "rows", "none"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dataset;
    use std::path::PathBuf;

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
    }

    fn read_rgb(path: &Path) -> Result<Images> {
        read_parquet(path, Channels::Rgb, [0; 3])
    }

    #[test]
    fn a_file_of_pyarrow() -> Result<()> {
        // Written by tests/fixtures/make.py: 7 pictures of 5×4 (width × height), pixel (x, y) of picture i is
        // [10 x, 10 y, i], label i mod 3, row groups of 3.
        let images = read_rgb(&fixture("pictures.parquet"))?;
        assert_eq!((images.len(), images.classes(), images.shape()), (7, 3, [3, 4, 5].as_slice()));
        for i in 0..7 {
            assert_eq!(images.label(i)?, Some(i as u32 % 3));
            let expected = Array3::from_shape_fn((3, 4, 5), |(c, y, x)| [10 * x, 10 * y, i][c] as u8);
            assert_eq!(images.pixels(i)?, expected);
        }
        Ok(())
    }

    #[test]
    fn missing_values_and_columns_are_errors() {
        for (name, part) in [
            ("missing.parquet", "\"image.bytes\": expected a value in every row"),
            ("text.parquet", "expected one column {bytes, path} of pictures, found none among text, label"),
        ] {
            let message = read_rgb(&fixture(name)).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn prefixes_and_flips_are_survived() -> Result<()> {
        let path = fixture("pictures.parquet");
        let good = std::fs::read(&path).map_err(Error::io(&path))?;
        let directory = tempfile::tempdir().map_err(Error::io(&path))?;
        let damaged = directory.path().join("damaged.parquet");
        let write = |bytes: &[u8]| std::fs::write(&damaged, bytes).map_err(Error::io(&damaged));
        for cut in 0..good.len() {
            write(&good[..cut])?;
            assert!(read_rgb(&damaged).is_err(), "cut at {cut}");
        }
        for at in (0..good.len()).step_by(11) {
            let mut flipped = good.clone();
            flipped[at] ^= 1 << (at % 8);
            write(&flipped)?;
            // Values carry no checksum here: the promise is an answer, not a panic.
            let _ = read_rgb(&damaged);
        }
        Ok(())
    }
}
