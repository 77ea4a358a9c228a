//! Run directories: numbered, held by one process.

use std::collections::BTreeMap;
use std::fs;

use sde_train::{Error, Result, RunDir, newest_run};

#[test]
fn runs_are_numbered_and_the_newest_is_found_by_number() -> Result<()> {
    let root = tempfile::tempdir().expect("a temporary directory");
    let root = root.path().join("checkpoints");
    let provenance = BTreeMap::from([("code".to_owned(), "abc".to_owned())]);
    let first = RunDir::create(&root, "digits", "steps = 3\n", &provenance)?;
    let second = RunDir::create(&root, "cifar10-tiny", "steps = 4\n", &provenance)?;
    assert!(first.path().ends_with("00000-digits") && second.path().ends_with("00001-cifar10-tiny"));
    assert_eq!(second.config_toml()?, "steps = 4\n");
    assert!(second.checkpoints().is_dir() && second.samples().is_dir() && second.records().is_dir());
    let written = fs::read_to_string(first.path().join("provenance.json")).expect("a file");
    assert_eq!(serde_json::from_str::<BTreeMap<String, String>>(&written).ok(), Some(provenance.clone()));
    // By number, not by age or name; a directory without a configuration is not a run.
    for other in ["00007-unfinished", "notes", "README.md-1"] {
        fs::create_dir(root.join(other)).expect("a directory");
    }
    assert_eq!(newest_run(&root)?.as_deref(), Some(second.path()));
    let next = RunDir::create(&root, "digits", "", &provenance)?;
    assert!(next.path().ends_with("00008-digits"));
    Ok(())
}

#[test]
fn one_process_holds_a_run() -> Result<()> {
    let root = tempfile::tempdir().expect("a temporary directory");
    let path = root.path().join("mine");
    let held = RunDir::create_at(&path, "", &BTreeMap::new())?;
    match RunDir::open(&path) {
        Err(Error::InUse { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
        other => panic!("expected a held directory, found {other:?}"),
    }
    drop(held);
    drop(RunDir::open(&path)?);
    // A run is not made over another one, and a directory that is none is not opened.
    assert!(matches!(RunDir::create_at(&path, "", &BTreeMap::new()), Err(Error::Io { .. })));
    assert!(matches!(RunDir::open(root.path()), Err(Error::Io { .. })));
    Ok(())
}
