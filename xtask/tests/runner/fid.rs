//! `weights`, `fid-stats` and `eval-fid`, with a network of the right shape and random weights: the published ones are 87 MB that no test
//! should need.

use std::sync::OnceLock;

use candle_core::{Device, Tensor};
use sde_core::noise::Noise;
use sde_data::read::npy::NpyArray;
use sde_data::read::npz::{read_npz, write_npz, write_samples};
use sde_eval::inception::Inception;
use serde_json::Value;

use crate::support::Place;

/// A safetensors file of random weights.
fn weights() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let weights = Inception::untrained_weights(Noise::new(0)).expect("weights");
        weights.to_safetensors().expect("a file")
    })
}

/// The options that stand for these weights, and for the cheapest layer.
const CHEAP: &str = "--inception weights.safetensors --other-weights --dims 64 --feature-batch 4";

fn place() -> Place {
    let place = Place::new();
    place.write("weights.safetensors", weights());
    place
}

fn number(record: &Value, key: &str) -> f64 {
    record[key].as_f64().unwrap_or_else(|| panic!("no number {key} in {record}"))
}

#[test]
fn weights_that_are_not_the_published_ones_are_refused() {
    let place = place();
    let call = |line: &str| place.call(line);
    call("weights inception --from weights.safetensors")
        .fails(65, &["not the weights of 2015-12-05", "torchvision"]);
    call("eval-fid digits:test --ref digits:train --dims 64")
        .fails(64, &["weights inception", "--from FILE"]);
    let line = "eval-fid digits:test --ref digits:train --dims 64 --inception weights.safetensors";
    call(line).fails(65, &["weights.safetensors", "hash"]);
    call("weights resnet").fails(64, &["resnet", "inception"]);
    assert!(place.names("checkpoints").iter().all(|name| !name.ends_with("safetensors")));
}

#[test]
fn statistics_of_the_same_pictures_are_at_no_distance() {
    let place = place();
    place.run(&format!("fid-stats digits:test --n 70 --out stats/test.npz {CHEAP}"));
    let arrays = read_npz(&place.path("stats/test.npz")).expect("an archive");
    assert_eq!((arrays["mu"].shape(), arrays["sigma"].shape()), (&[64][..], &[64, 64][..]));
    let same = place.record(&format!("eval-fid digits:test --n 70 --ref stats/test.npz {CHEAP}"));
    // Of 70 pictures and 64 entries rounding is all there is.
    assert!(number(&same, "fid").abs() < 1e-6, "{same}");
    assert_eq!(same["reference"]["about"]["n"], 70);
    assert_eq!(place.names("checkpoints/features"), Vec::<String>::new());
    // Another part of the data is at some distance, and the same by statistics as by pictures.
    let [by_file, by_pictures] = ["stats/test.npz", "digits:test --ref-n 70"]
        .map(|reference| place.record(&format!("eval-fid digits:train --n 80 --ref {reference} {CHEAP}")));
    let [a, b] = [&by_file, &by_pictures].map(|record| number(record, "fid"));
    assert!(a > 1e-6 && ((a - b) / b).abs() < 1e-9, "{a} {b}");
    assert!(number(&by_file, "fid_stderr") > 0.0 && by_file["space"]["layer"] == "64");
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let place = place();
    place.run(&format!("fid-stats digits:test --n 70 --out test.npz {CHEAP}"));
    let line = format!("eval-fid digits:train --n 80 --ref test.npz {CHEAP}");
    let call = |more: &str| place.call(&format!("{line} {more}"));
    call("--resize bilinear-tf1").fails(78, &["test.npz", "resizing", "bilinear-tf1"]);
    call("--range tf").fails(78, &["input range"]);
    call("--metrics kid").fails(64, &["kid", "statistics", "fid-infinity"]);
    call("--steps 5").fails(64, &["--steps", "run", "digits:train"]);
    call("--ref-n 70").fails(64, &["--ref-n", "test.npz"]);
    call("--metrics fid,fid-infinity").fails(78, &["fid-infinity", "80", "260"]);
    call("--metrics fod").fails(64, &["fod", "fid"]);
    call("--range pytorhc").fails(64, &["pytorhc", "pytorch"]);
    place
        .call(&format!("eval-fid digits:train --n 2000 --ref test.npz {CHEAP}"))
        .fails(65, &["digits", "1437", "2000"]);
    let few = place.call(&format!("eval-fid digits:train --n 60 --ref test.npz {CHEAP}"));
    few.fails(78, &["60", "65", "kid", "--allow-small"]);
    place.run(&format!("eval-fid digits:train --n 60 --ref test.npz {CHEAP} --allow-small"));
    place.call(&format!("eval-fid nowhere --ref test.npz {CHEAP}")).fails(64, &["nowhere", "digits"]);
    place.call(&format!("eval-fid digits:tset --n 70 --ref test.npz {CHEAP}")).fails(64, &["tset", "test"]);
}

#[test]
fn work_that_is_killed_goes_on_and_says_the_same() {
    let place = place();
    let line =
        format!("eval-fid digits:train --n 100 --ref digits:test --ref-n 80 --metrics fid,kid {CHEAP}");
    place.run(&format!("{line} --out whole.json"));
    place.run_through_kills(&format!("{line} --out parts.json"), 4, |place| {
        let rows = |name: &String| {
            let note = place.text(&format!("checkpoints/features/{name}"));
            serde_json::from_str::<Value>(&note).ok().and_then(|note| note["rows"].as_u64()).unwrap_or(0)
        };
        place
            .names("checkpoints/features")
            .iter()
            .filter(|name| name.ends_with("json"))
            .map(rows)
            .sum::<u64>() as usize
    });
    assert_eq!(place.json("parts.json"), place.json("whole.json"));
    assert_eq!(place.names("checkpoints/features"), Vec::<String>::new());
}

#[test]
fn samples_of_a_run_are_drawn_and_measured() {
    let place = Place::with_run();
    place.write("weights.safetensors", weights());
    let line = format!("eval-fid run --ref digits:train --ref-n 70 --n 70 --sampler tab2 --steps 3 {CHEAP}");
    let record = place.record(&line);
    assert!(number(&record, "fid") > 0.0);
    assert_eq!((&record["nfe"], &record["n"], &record["preset"]), (&4.into(), &70.into(), &"digits".into()));
    let name = "run/records/fid-tab2-3-64-70-digits-train.json";
    let kept = place.json(name);
    assert_eq!(kept["fid"], record["fid"]);
    assert!(kept["command_line"].as_str().is_some_and(|line| line.starts_with("cargo xtask eval-fid run")));
    // Nothing is left of the samples and their features.
    assert_eq!(place.names("run/samples/fid-tab2-3"), Vec::<String>::new());
    // What is asked of samples is done to them, and not just told.
    let clipped = place.record(&format!("{line} --clip"));
    assert!(
        clipped["guidance"]["clip"] == true && number(&clipped, "fid") != number(&record, "fid"),
        "{clipped}"
    );
    // Another metric of the same samples joins the record, another seed has one of its own.
    place.run(&format!("{line} --metrics kid"));
    let both = place.json(name);
    assert!(both["fid"] == record["fid"] && both["kid"].is_number(), "{both}");
    place.run(&format!("{line} --seed 1"));
    assert_eq!(place.json("run/records/fid-tab2-3-64-70-digits-train-3.json")["seed"], 1);
    assert_eq!(place.json(name), both);
    let points = Place::new();
    points.run(&format!("train {} --out points", crate::support::POINTS));
    points.write("weights.safetensors", weights());
    points.call(&format!("eval-fid points --ref digits:test {CHEAP} --n 70")).fails(64, &["no pictures"]);
}

#[test]
fn neighbours_are_counted_and_copies_found() {
    let place = place();
    let line =
        format!("eval-fid digits:train --n 60 --ref digits:train --ref-n 200 --held-out digits:test {CHEAP}");
    let record = place.record(&format!("{line} --metrics prdc,memorisation,kid --neighbours 3"));
    // Every sample is one of the references.
    assert_eq!(record["prdc"]["precision"]["value"], 1.0);
    assert_eq!(record["memorisation"]["closer"]["value"], 1.0);
    assert_eq!(record["memorisation"]["authentic"]["value"], 0.0);
    let suspect = &record["memorisation"]["suspects"][0];
    assert!(suspect["distance"] == 0.0 && suspect["sample"] == suspect["training"], "{suspect}");
    let line = format!("eval-fid digits:train --n 60 --ref digits:test --ref-n 70 {CHEAP}");
    place.call(&format!("{line} --metrics memorisation")).fails(64, &["--held-out"]);
    place.call(&format!("{line} --metrics is")).fails(64, &["layer of classes"]);
    place.call(&format!("{line} --metrics prdc --neighbours 20")).fails(78, &["prdc", "60", "105"]);
}

#[test]
fn archives_of_samples_are_pictures() {
    let place = place();
    let bytes: Vec<u8> =
        (0..66 * 3 * 4 * 4).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let levels = Tensor::from_vec(bytes, (66, 3, 4, 4), &Device::Cpu).expect("levels");
    write_samples(&place.path("samples.npz"), &levels).expect("an archive");
    let line = format!("eval-fid samples.npz --ref samples.npz {CHEAP}");
    assert!(number(&place.record(&line), "fid").abs() < 1e-6);
    // Features of another length are no reference.
    let narrow = NpyArray::F64(crate::support::array(&[70, 8], (0..560).map(f64::from)));
    write_npz(&place.path("narrow.npz"), [("pool_3", &narrow)]).expect("an archive");
    let line = format!("eval-fid samples.npz --ref narrow.npz {CHEAP}");
    place.call(&line).fails(64, &["--assume-same-features"]);
    place.call(&format!("{line} --assume-same-features")).fails(65, &["8 entries", "64"]);
    // What holds neither pictures nor statistics is named.
    place.put("x.npy", &crate::support::array(&[1], [0.0]));
    place.call(&format!("eval-fid x.npy --ref samples.npz {CHEAP}")).fails(65, &["x.npy"]);
}
