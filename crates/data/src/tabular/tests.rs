//! Generated files of the published widths, and files that are something else.

use std::fmt::Write as _;

use super::*;
use crate::Dataset;
use crate::read::npy::{NpyArray, write_npy};

fn normal(rows: usize, columns: usize) -> Array2<f64> {
    let mut draws = Noise::new(3).draws(Stream::Data, 0, 0);
    Array2::from_shape_simple_fn((rows, columns), || draws.normal())
}

fn write(folder: &Path, file: &str, table: &Array2<f64>) -> Result<()> {
    write_npy(&folder.join(file), &NpyArray::F64(table.clone().into_dyn()))
}

fn folder() -> Result<tempfile::TempDir> {
    tempfile::tempdir().map_err(Error::io(Path::new("temporary folder")))
}

fn sizes(tables: &Tables) -> [usize; 3] {
    [tables.train.len(), tables.validation.len(), tables.test.len()]
}

#[test]
fn power_keeps_six_columns_and_adds_less_than_a_level() -> Result<()> {
    let folder = folder()?;
    // Every column counts rows, so that order and noise can be read off.
    let raw = Array2::from_shape_fn((100, 8), |(i, j)| (i + 1000 * j) as f64);
    write(folder.path(), "data.npy", &raw)?;
    let tables = Tabular::Power.load(folder.path())?;
    assert_eq!((sizes(&tables), tables.train.shape()), ([81, 9, 10], [6].as_slice()));
    let mut seen = Vec::new();
    for part in [&tables.train, &tables.validation, &tables.test] {
        for row in part.values().rows() {
            let mut row = row.to_vec();
            part.affine().invert(&mut row);
            let index = (row[5] - 7000.0).round();
            seen.push(index as usize);
            for ((v, column), width) in row.iter().zip([0, 2, 4, 5, 6]).zip([0.001, 0.01, 1.0, 1.0, 1.0]) {
                let noise = v - index - 1000.0 * f64::from(column);
                assert!((-1e-9..=width + 1e-9).contains(&noise), "column {column}: {noise}");
            }
        }
    }
    assert_ne!(seen, (0..100).collect::<Vec<_>>());
    seen.sort_unstable();
    assert_eq!(seen, (0..100).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn gas_drops_what_another_column_follows() -> Result<()> {
    let folder = folder()?;
    let mut raw = normal(200, 10);
    let copy = raw.column(4).mapv(|v| 3.0 * v + 1.0);
    raw.column_mut(0).assign(&copy);
    let copy = raw.column(4).to_owned();
    raw.column_mut(9).assign(&copy);
    write(folder.path(), "data.npy", &raw)?;
    let tables = Tabular::Gas.load(folder.path())?;
    assert_eq!((sizes(&tables), tables.train.shape()), ([162, 18, 20], [8].as_slice()));
    Ok(())
}

#[test]
fn hepmass_keeps_signal_and_continuous_columns() -> Result<()> {
    let folder = folder()?;
    for (file, extra) in [("1000_train.csv", 0), ("1000_test.csv", 1)] {
        let mut text = (0..27 + extra).fold("# label".to_owned(), |text, j| format!("{text},f{j}"));
        for (i, row) in normal(100, 27 + extra).rows().into_iter().enumerate() {
            let _ = write!(text, "\n{}", i % 2);
            for (j, v) in row.iter().enumerate() {
                let _ = write!(text, ",{}", if j < 6 { v.signum() } else { *v });
            }
        }
        let path = folder.path().join(file);
        std::fs::write(&path, text).map_err(Error::io(&path))?;
    }
    let tables = Tabular::Hepmass.load(folder.path())?;
    assert_eq!((sizes(&tables), tables.test.shape()), ([45, 5, 50], [21].as_slice()));
    Ok(())
}

#[test]
fn the_rest_are_given() -> Result<()> {
    let folder = folder()?;
    write(folder.path(), "data.npy", &normal(100, 43))?;
    assert_eq!(sizes(&Tabular::Miniboone.load(folder.path())?), [81, 9, 10]);
    for (file, rows) in [("train.npy", 80), ("validation.npy", 7), ("test.npy", 11)] {
        write(folder.path(), file, &normal(rows, 63))?;
    }
    assert_eq!(sizes(&Tabular::Bsds300.load(folder.path())?), [80, 7, 11]);
    Ok(())
}

#[test]
fn hostile_folders_are_told() -> Result<()> {
    let folder = folder()?;
    let told =
        |set: Tabular| set.load(folder.path()).err().map(|error| error.to_string()).unwrap_or_default();
    for set in Tabular::ALL {
        assert!(told(set).contains("there is no"), "{}", told(set));
    }
    assert!(told(Tabular::Gas).contains("read_pickle") && told(Tabular::Bsds300).contains("h5py"));
    write(folder.path(), "data.npy", &normal(100, 7))?;
    for (set, text) in [
        (Tabular::Power, "expected 8 columns"),
        (Tabular::Gas, "expected 8 columns"),
        (Tabular::Miniboone, "expected 43 columns"),
    ] {
        assert!(told(set).contains(text) && told(set).contains('7'), "{}", told(set));
    }
    let mut bad = normal(100, 43);
    bad[[4, 2]] = f64::NAN;
    write(folder.path(), "data.npy", &bad)?;
    for set in [Tabular::Power, Tabular::Gas, Tabular::Miniboone] {
        assert!(told(set).contains("row 4, column 2: NaN is not finite"), "{}", told(set));
    }
    Ok(())
}

#[test]
fn stand_ins_have_the_widths_and_one_law() -> Result<()> {
    for set in Tabular::ALL {
        let [a, b] = [set.stand_in(0, 500)?, set.stand_in(0, 500)?];
        assert_eq!((a.train.values(), a.test.shape()), (b.train.values(), [set.width()].as_slice()));
        assert_ne!(a.train.values(), a.test.values());
        assert_ne!(a.train.values(), set.stand_in(1, 500)?.train.values());
    }
    Ok(())
}
