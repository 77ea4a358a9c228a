//! Checkpoints under damage: whatever happens to one, it is noticed, named, and the one before it is there.

use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use sde_nets::Weights;
use sde_train::checkpoint::{self, Checkpoint, Keep, Origin, latest, save};
use sde_train::{Error, Result, hash};
use tempfile::TempDir;

fn temporary() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn origin() -> Origin {
    Origin { seed: u64::MAX, config_sha256: hash::sha256(b"config"), code: "0.1.0".into() }
}

fn weights(step: u64) -> Result<Weights> {
    let values = (0..6).map(|k| (step * 10 + k) as f32);
    let tensor = Tensor::from_iter(values, &Device::Cpu)?.reshape((2, 3))?;
    Ok([("layer.weight".to_owned(), tensor.clone()), ("layer.bias".to_owned(), tensor.get(0)?)]
        .into_iter()
        .collect())
}

type Maker = Box<dyn FnOnce() -> Result<Vec<u8>>>;

fn files(step: u64) -> Result<Vec<(String, Maker)>> {
    let bytes = weights(step)?.to_safetensors()?;
    let other = bytes.clone();
    Ok(vec![
        ("a.safetensors".into(), Box::new(|| Ok(bytes))),
        ("b.safetensors".into(), Box::new(|| Ok(other))),
    ])
}

/// A root with checkpoints at steps 10 and 20; returns the path of the latter.
fn two(root: &Path) -> Result<PathBuf> {
    save(root, 10, &origin(), files(10)?)?;
    save(root, 20, &origin(), files(20)?)
}

/// What `latest` falls back to, and the name of the file it complains about.
fn fallback(root: &Path) -> Result<(u64, PathBuf)> {
    let mut found = latest(root)?;
    let step = found.checkpoint.expect("a checkpoint").manifest().step;
    match found.skipped.pop() {
        Some((_, Error::Corrupt { file, .. })) => Ok((step, file)),
        other => panic!("expected a corrupt file, found {other:?}"),
    }
}

#[test]
fn what_is_saved_is_loaded() -> Result<()> {
    let root = temporary();
    assert!(latest(root.path())?.checkpoint.is_none());
    let path = two(root.path())?;
    let found = latest(root.path())?;
    let checkpoint = found.checkpoint.expect("a checkpoint");
    assert_eq!(checkpoint.path(), path);
    assert_eq!((checkpoint.manifest().step, &checkpoint.manifest().origin), (20, &origin()));
    assert!(found.skipped.is_empty());
    let loaded = checkpoint.weights("b.safetensors")?;
    assert_eq!(hash::weights_hash(&loaded)?, hash::weights_hash(&weights(20)?)?);
    assert!(matches!(checkpoint.weights("c.safetensors"), Err(Error::Corrupt { .. })));
    Ok(())
}

#[test]
fn equal_states_are_equal_bytes() -> Result<()> {
    let (first, second) = (temporary(), temporary());
    let (a, b) = (two(first.path())?, two(second.path())?);
    for name in ["manifest.json", "a.safetensors", "b.safetensors"] {
        assert_eq!(fs::read(a.join(name)).ok(), fs::read(b.join(name)).ok(), "{name}");
    }
    Ok(())
}

#[test]
fn every_flipped_bit_is_found() -> Result<()> {
    let root = temporary();
    let path = two(root.path())?;
    for name in ["manifest.json", "a.safetensors"] {
        let file = path.join(name);
        let good = fs::read(&file).expect("a file");
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            fs::write(&file, &bad).expect("a write");
            assert_eq!(fallback(root.path())?, (10, file.clone()), "{name}, byte {at}");
        }
        fs::write(&file, &good).expect("a write");
    }
    assert!(latest(root.path())?.skipped.is_empty());
    Ok(())
}

#[test]
fn every_truncation_is_found() -> Result<()> {
    let root = temporary();
    let path = two(root.path())?;
    for name in ["manifest.json", "a.safetensors"] {
        let file = path.join(name);
        let good = fs::read(&file).expect("a file");
        for length in (0..good.len()).step_by(7) {
            fs::write(&file, &good[..length]).expect("a write");
            assert_eq!(fallback(root.path())?, (10, file.clone()), "{name}, {length} bytes");
        }
        // And a zeroed file of the right length, as a power cut leaves it where nothing was forced to the disk.
        fs::write(&file, vec![0; good.len()]).expect("a write");
        assert_eq!(fallback(root.path())?, (10, file.clone()));
        fs::write(&file, &good).expect("a write");
    }
    Ok(())
}

#[test]
fn missing_extra_and_swapped_files_are_found() -> Result<()> {
    let root = temporary();
    let path = two(root.path())?;
    let (file, aside) = (path.join("a.safetensors"), root.path().join("aside"));
    fs::rename(&file, &aside).expect("a rename");
    assert_eq!(fallback(root.path())?, (10, file.clone()));
    fs::copy(root.path().join("step-10/a.safetensors"), &file).expect("a copy");
    assert_eq!(fallback(root.path())?, (10, file.clone()));
    fs::rename(&aside, &file).expect("a rename");
    fs::write(path.join("note.txt"), "mine").expect("a write");
    assert_eq!(fallback(root.path())?, (10, path.join("note.txt")));
    fs::remove_file(path.join("note.txt")).expect("a removal");
    assert!(latest(root.path())?.skipped.is_empty());
    // A checkpoint under the name of another step.
    fs::rename(&path, root.path().join("step-30")).expect("a rename");
    assert_eq!(fallback(root.path())?, (10, root.path().join("step-30/manifest.json")));
    Ok(())
}

#[test]
fn a_directory_without_a_manifest_is_passed_over() -> Result<()> {
    let root = temporary();
    fs::remove_file(two(root.path())?.join("manifest.json")).expect("a removal");
    let found = latest(root.path())?;
    assert_eq!(found.checkpoint.map(|c| c.manifest().step), Some(10));
    assert!(matches!(&found.skipped[..], [(_, Error::Io { path, .. })] if path.ends_with("manifest.json")));
    Ok(())
}

#[test]
fn when_none_verifies_nothing_is_started_anew() -> Result<()> {
    let root = temporary();
    two(root.path())?;
    for step in [10, 20] {
        fs::write(root.path().join(format!("step-{step}/a.safetensors")), "").expect("a write");
    }
    let error = latest(root.path()).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(
        error.contains("none of the 2 checkpoints") && error.contains("step-20/a.safetensors: 0 bytes"),
        "{error}"
    );
    Ok(())
}

#[test]
fn hostile_manifests_are_refused() -> Result<()> {
    let root = temporary();
    let file = two(root.path())?.join("manifest.json");
    let good = fs::read_to_string(&file).expect("a file");
    let resigned = |text: &str| {
        let mut json: serde_json::Value = serde_json::from_str(text).expect("json");
        // The manifest as the program would sign it: compact, keys in the order of its fields.
        let start = text.find("\"manifest\": ").expect("the manifest") + 12;
        let end = text.rfind(",\n  \"sha256\"").expect("the hash");
        let mut compact = String::new();
        let mut quoted = false;
        for c in text[start..end].chars() {
            quoted ^= c == '"';
            if quoted || !c.is_whitespace() {
                compact.push(c);
            }
        }
        json["sha256"] = hash::sha256(compact.as_bytes()).into();
        let old = text.rfind("\"sha256\": \"").expect("the hash") + 11;
        format!("{}{}{}", &text[..old], json["sha256"].as_str().expect("a hash"), &text[old + 64..])
    };
    // The signer of this test agrees with the program.
    assert_eq!(resigned(&good), good);
    let cases = [
        resigned(&good.replace("\"format\": 1", "\"format\": 2")),
        resigned(&good.replace("a.safetensors", "../step-10/a.safetensors")),
        resigned(&good.replace("a.safetensors", "/dev/zero")),
        resigned(&good.replace("\"step\": 20", "\"step\": 21")),
        good.replace("\"step\": 20", "\"step\": 20, \"more\": 1"),
        "[".repeat(100_000),
        " ".repeat(2_000_000),
    ];
    for case in cases {
        assert_ne!(case, good);
        fs::write(&file, &case).expect("a write");
        let (step, _) = fallback(root.path())?;
        assert_eq!(step, 10);
    }
    Ok(())
}

#[test]
fn a_failed_save_leaves_everything_as_it_was() -> Result<()> {
    let root = temporary();
    two(root.path())?;
    let failing: Vec<(String, Maker)> = vec![
        ("a.safetensors".into(), Box::new(|| Ok(vec![1; 100]))),
        (
            "b.safetensors".into(),
            Box::new(|| {
                Err(Error::NonFinite { what: "weights".into(), step: 30, found: f64::NAN, checkpoint: None })
            }),
        ),
    ];
    assert!(matches!(save(root.path(), 30, &origin(), failing), Err(Error::NonFinite { .. })));
    // The disk refuses the second file: a directory is in its way.
    let aside = root.path().join("step-30.tmp-0");
    let obstacle = aside.join("b.safetensors");
    let obstructed: Vec<(String, Maker)> = vec![
        (
            "a.safetensors".into(),
            Box::new(move || {
                fs::create_dir(obstacle).expect("a directory");
                Ok(vec![1; 100])
            }),
        ),
        ("b.safetensors".into(), Box::new(|| Ok(vec![2; 100]))),
    ];
    match save(root.path(), 30, &origin(), obstructed) {
        Err(Error::Io { path, .. }) => assert_eq!(path, aside.join("b.safetensors")),
        other => panic!("expected an I/O error, found {other:?}"),
    }
    assert_eq!(checkpoint::steps(root.path())?, [10, 20]);
    assert!(!aside.exists());
    assert!(latest(root.path())?.skipped.is_empty());
    // A root that is a file, as good as one that cannot be written.
    let file = root.path().join("file");
    fs::write(&file, "").expect("a write");
    assert!(matches!(save(&file, 1, &origin(), files(1)?), Err(Error::Io { .. })));
    Ok(())
}

#[test]
fn what_interrupted_saves_leave_is_removed_and_nothing_else() -> Result<()> {
    let root = temporary();
    two(root.path())?;
    for name in ["step-30.tmp-0", "step-30.tmp-1", "step-x.tmp-0", "mine"] {
        fs::create_dir(root.path().join(name)).expect("a directory");
    }
    fs::write(root.path().join("step-30.tmp-0/a.safetensors"), "half").expect("a write");
    assert_eq!(latest(root.path())?.checkpoint.map(|c| c.manifest().step), Some(20));
    // An attempt that is taken does not stop the next one.
    save(root.path(), 30, &origin(), files(30)?)?;
    let removed = checkpoint::clean(root.path())?;
    assert_eq!(removed, ["step-30.tmp-0", "step-30.tmp-1"].map(|name| root.path().join(name)));
    assert_eq!(checkpoint::steps(root.path())?, [10, 20, 30]);
    assert!(root.path().join("mine").exists());
    Ok(())
}

#[test]
fn a_checkpoint_of_a_future_that_was_given_up_is_replaced() -> Result<()> {
    let root = temporary();
    let path = two(root.path())?;
    fs::write(path.join("a.safetensors"), "").expect("a write");
    save(root.path(), 20, &origin(), files(20)?)?;
    assert!(latest(root.path())?.skipped.is_empty());
    assert_eq!(fs::read_dir(root.path()).expect("a directory").count(), 2);
    // Pruning at step 20 does not count what lies ahead of it.
    save(root.path(), 30, &origin(), files(30)?)?;
    save(root.path(), 40, &origin(), files(40)?)?;
    checkpoint::prune(root.path(), 20, Keep { last: 2, every: None })?;
    assert_eq!(checkpoint::steps(root.path())?, [10, 20, 30, 40]);
    checkpoint::prune(root.path(), 40, Keep { last: 2, every: Some(20) })?;
    assert_eq!(checkpoint::steps(root.path())?, [20, 30, 40]);
    assert_eq!(fs::read_dir(root.path()).expect("a directory").count(), 3);
    Ok(())
}

#[test]
fn values_that_are_not_finite_are_found_behind_a_right_hash() -> Result<()> {
    let root = temporary();
    let nan = Tensor::new(&[1.0, f64::NAN], &Device::Cpu)?.to_dtype(DType::F32)?;
    let bytes = [("w".to_owned(), nan)].into_iter().collect::<Weights>().to_safetensors()?;
    let path = save(root.path(), 1, &origin(), [("a.safetensors".to_owned(), || Ok(bytes))])?;
    let error =
        Checkpoint::open(&path)?.weights("a.safetensors").err().map(|e| e.to_string()).unwrap_or_default();
    assert!(error.ends_with("a.safetensors: tensor \"w\" holds NaN"), "{error}");
    Ok(())
}
