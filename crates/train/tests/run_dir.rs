//! Run directories: numbered, held by one process.

use std::collections::BTreeMap;
use std::fs;

use sde_train::{Error, Result, RunDir, Target, newest_run};

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

#[test]
fn a_whole_run_is_there_with_all_that_is_in_it_or_not_at_all() -> Result<()> {
    let root = tempfile::tempdir().unwrap();
    let (path, nothing) = (root.path().join("run"), BTreeMap::new());
    let names = || {
        let entries = fs::read_dir(root.path()).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let fill = |run: &RunDir| {
        // Nobody sees it yet under its name.
        assert!(!path.exists() && run.path() != path);
        fs::write(run.checkpoints().join("x"), b"x").unwrap();
        Ok(())
    };
    assert_eq!(RunDir::create_whole(Target::At(&path), "a = 1", &nothing, fill)?, path);
    assert!(path.join("checkpoints/x").is_file() && path.join("config.toml").is_file());
    // It is free to be held, and in nobody's way.
    drop(RunDir::open(&path)?);
    assert!(RunDir::create_whole(Target::At(&path), "a = 1", &nothing, |_| Ok(())).is_err());
    let broken = |_: &RunDir| Err(Error::Hook("full".into()));
    assert!(RunDir::create_whole(Target::Below(root.path(), "b"), "a = 1", &nothing, broken).is_err());
    assert_eq!(names(), ["run"]);
    for number in ["00000-b", "00001-b"] {
        let made = RunDir::create_whole(Target::Below(root.path(), "b"), "a = 1", &nothing, |_| Ok(()))?;
        assert_eq!(made, root.path().join(number));
    }
    assert_eq!(names(), ["00000-b", "00001-b", "run"]);
    Ok(())
}
