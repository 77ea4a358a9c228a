//! Each command does what it says, and leaves the files and the record that it says.

use std::collections::BTreeSet;

use sde_data::read::npy::NpyArray;
use sde_data::read::npz::read_npz;
use sde_nets::{NetConfig, UnetConfig};
use serde_json::Value;

use crate::support::{IMAGES, POINTS, Place, gap, rows};

fn number(record: &Value, key: &str) -> f64 {
    record[key].as_f64().unwrap_or_else(|| panic!("no number {key} in {record}"))
}

fn has_keys(record: &Value, keys: &[&str]) {
    for key in keys {
        assert!(record.get(key).is_some(), "no {key} in {record}");
    }
}

/// The network calls of a sampler on a fixed grid.
fn calls(sampler: &Value) -> u64 {
    sampler["steps"].as_u64().expect("steps") + u64::from(sampler["denoise"] == true)
}

#[test]
fn every_preset_resolves_and_its_network_is_counted_without_its_data() {
    let place = Place::new();
    let list = place.record("presets");
    let names: Vec<&str> =
        list.as_array().expect("a list").iter().filter_map(|p| p["name"].as_str()).collect();
    let wanted = ["digits", "mnist", "fashion-mnist", "cifar10", "cifar10-tiny", "checkerboard"];
    assert!(names.len() >= 17 && wanted.iter().all(|name| names.contains(name)), "{names:?}");
    for name in names {
        let preset = place.record(&format!("show {name}"));
        assert_eq!(preset["name"], *name);
        let parameters = number(&preset, "parameters");
        match name {
            "cifar10" => assert_eq!(parameters, 35_218_947.0, "score_sde's ddpm"),
            "cifar10-ddpm" => assert_eq!(parameters, 35_746_307.0),
            "cifar10-ddpmpp" | "cifar10-subvp" => assert_eq!(parameters, 61_804_419.0),
            "cifar10-ddpmpp-deep" => assert_eq!(parameters, 106_632_579.0),
            "cifar10-ncsnpp-ve" => assert_eq!(parameters, 62_758_787.0),
            "cifar10-ncsnpp-ve-deep" | "cifar10-blurring" => assert_eq!(parameters, 107_586_947.0),
            "cifar10-edm" => assert_eq!(parameters, 55_733_891.0),
            "digits" => {
                assert!(parameters >= 3e5);
                assert!(preset["net"]["multipliers"].as_array().is_some_and(|levels| levels.len() >= 2));
            }
            "cifar10-tiny" => assert!((5e5..2e6).contains(&parameters), "{parameters}"),
            _ => assert!(parameters > 1e3, "{name}: {parameters}"),
        }
    }
    assert!(place.names("").is_empty(), "looking at presets leaves something behind");
}

#[test]
fn presets_of_published_networks_are_those_of_the_library() {
    let place = Place::new();
    for (name, published) in [
        ("cifar10-ddpm", UnetConfig::ho_ddpm()),
        ("cifar10-ddpmpp", UnetConfig::ddpmpp(4)),
        ("cifar10-ddpmpp-deep", UnetConfig::ddpmpp(8)),
        ("cifar10-subvp", UnetConfig::ddpmpp(4)),
        ("cifar10-ncsnpp-ve", UnetConfig::ncsnpp(4)),
        ("cifar10-ncsnpp-ve-deep", UnetConfig::ncsnpp(8)),
        ("cifar10-edm", UnetConfig::edm_ddpmpp(None)),
        ("cifar10", UnetConfig { groups: Some(32), ..UnetConfig::song_ddpm() }),
    ] {
        let net = place.record(&format!("show {name}"))["net"].clone();
        let net: NetConfig = serde_json::from_value(net).expect("a network's configuration");
        assert_eq!(net, NetConfig::Unet(published), "{name}");
    }
}

/// EDM's loss, optimiser and augmentation on small images; v with min-SNR as options of another preset.
#[test]
fn published_choices_train_on_small_networks() {
    let place = Place::new();
    let small = "--set net.channels=8 --set net.blocks=1 --set net.attention=[4] --set train.batch=8 --set train.log_every=1 \
         --set train.sample_every=2 --set train.held_out.every=2 --set train.held_out.examples=8 --steps 2";
    let edm = "cifar10-edm --set data.name=digits --set net.multipliers=[1,1] --set sampler.steps=4";
    let record = place.record(&format!("train {edm} {small} --out edm"));
    assert!(record["loss"].is_f64() && record["held_out_loss"].is_f64(), "{record}");
    assert_eq!(place.names("edm/samples"), ["step-0000002.png"]);
    // The configuration of a run is a preset again, the augmentation included.
    assert_eq!(place.record("show edm/config.toml")["data"]["augment"]["probability"], 0.12);

    for weighting in ["{kind=\"min_snr\",gamma=5.0}", "{kind=\"soft_min_snr\",sigma_data=0.5}"] {
        let options = format!("--set net.prediction=\"v\" --set loss.weighting={weighting}");
        let record = place.record(&format!("train digits {options} --set net.groups=4 {small}"));
        assert!(record["loss"].is_f64(), "{record}");
    }
    // A network that is not told of augmentations is not trained on them.
    let untold = "--set data.augment={mirror=1.0,probability=0.12,scale=0.2,stretch=0.2,shift=0.125}";
    let refused = place.call(&format!("train digits {untold} --set net.groups=4 {small}"));
    assert!(refused.code != Some(0) && refused.stderr.contains("augmentation"), "{}", refused.stderr);
    let points = place.call(&format!("train {POINTS} {untold} --steps 2"));
    assert!(points.code != Some(0) && points.stderr.contains("for images"), "{}", points.stderr);
}

#[test]
fn what_show_and_dry_run_print_is_a_preset_again() {
    let place = Place::new();
    for name in ["digits", "cifar10", "three-modes"] {
        let set = "--set train.batch=3 --set sampler.rtol=1e-3";
        place.write("shown.toml", place.run(&format!("show {name} {set}")).stdout);
        place.write("resolved.toml", place.run(&format!("train {name} {set} --dry-run")).stdout);
        let expected = place.record(&format!("show {name} {set}"));
        assert_eq!((&expected["train"]["batch"], &expected["sampler"]["rtol"]), (&3.into(), &1e-3.into()));
        for file in ["shown.toml", "resolved.toml"] {
            assert_eq!(place.record(&format!("show {file}")), expected, "{name}, {file}");
        }
        assert_eq!(place.record(&format!("train {name} {set} --dry-run"))["train"], expected["train"]);
    }
    assert_eq!(place.names(""), ["resolved.toml", "shown.toml"], "a dry run leaves something behind");
}

#[test]
fn images_are_trained_sampled_and_measured() {
    let place = Place::new();
    let run = "checkpoints/00000-digits";
    let record = place.record(&format!("train {IMAGES} --steps 6 --set train.sample_every=6"));
    has_keys(
        &record,
        &["run", "loss", "held_out_loss", "seconds", "weights_sha256", "code_revision", "device"],
    );
    assert_eq!(
        (&record["step"], &record["seed"], &record["parameters"]),
        (&6.into(), &0.into(), &41_609.into())
    );
    assert_eq!(place.json(&format!("{run}/records/train.json")), record);
    assert_eq!(place.names(&format!("{run}/samples")), ["step-0000006.png"]);
    assert!(place.text(&format!("{run}/loss.svg")).starts_with("<svg"));
    has_keys(
        &place.json(&format!("{run}/provenance.json")),
        &["code_revision", "version", "candle", "device", "seed"],
    );

    // Without a name it is the newest run, without options the preset's sampler.
    let record = place.record("sample --n 10");
    assert_eq!((&record["run"], &record["n"]), (&run.into(), &10.into()));
    assert_eq!(record["nfe"], calls(&record["sampler"]));
    let weights = record["weights_sha256"].as_str().expect("a hash").to_owned();
    let folder = format!("{run}/samples/tab3-{}", record["sampler"]["steps"]);
    assert_eq!(place.json(&format!("{folder}/record.json")), record);
    let sheet = image::open(place.path(&format!("{folder}/samples.png"))).expect("a picture").into_luma8();
    // Ten images of 8×8 in a sheet of four columns and three rows, at least as many pixels.
    assert!(sheet.width() >= 32 && sheet.height() >= 24, "{:?}", sheet.dimensions());
    let values: BTreeSet<u8> = sheet.pixels().map(|pixel| pixel.0[0]).collect();
    assert!(values.len() > 4, "the sheet is blank");
    let arrays = read_npz(&place.path(&format!("{folder}/samples.npz"))).expect("an archive");
    let Some(NpyArray::U8(levels)) = arrays.get("arr_0") else { panic!("no arr_0 of u8 in {arrays:?}") };
    assert_eq!(levels.shape(), [10, 8, 8, 1]);
    assert!(levels.iter().all(|level| *level < 17), "digits have 17 levels");

    let record = place.record("eval-nll --n 6");
    has_keys(
        &record,
        &["nats", "nats_stderr", "prior", "divergence", "probes", "repeats", "t_start", "unfinished"],
    );
    assert_eq!((&record["n"], &record["seed"], &record["split"]), (&6.into(), &0.into(), &"test".into()));
    assert_eq!(record["weights_sha256"], *weights);
    assert!(number(&record, "t_start") == 1e-5 && number(&record, "stderr") > 0.0);
    assert!(number(&record["nfe"], "mean") > 10.0);
    // The record tells nats of the dequantised data in the network's range, one unit for 8 levels; bits/dim are of the levels.
    let bits = number(&record, "nats") / 64.0 / std::f64::consts::LN_2 + (17.0_f64 / 2.0).log2();
    assert!((number(&record, "bits_per_dim") - bits).abs() < 1e-9, "{record}");
    assert!(record["code_revision"].as_str().is_some_and(|revision| !revision.is_empty()));
    assert_eq!(place.json(&format!("{run}/records/nll-test.json")), record);
    assert_eq!(place.text(&format!("{run}/records/nll-test.csv")).lines().count(), 1 + 6);
}

#[test]
fn points_are_trained_sampled_and_measured() {
    let place = Place::new();
    place.run(&format!("train {POINTS} --out run"));
    let record = place.record("sample run --sampler ddim --steps 3 --n 50 --out drawn");
    assert_eq!(
        (&record["n"], &record["nfe"], &record["sampler"]["name"]),
        (&50.into(), &4.into(), &"ddim".into())
    );
    assert_eq!(record["files"], serde_json::json!(["drawn/samples.png", "drawn/samples.npy"]));
    assert_eq!(place.get("drawn/samples.npy").shape(), [50, 2]);
    image::open(place.path("drawn/samples.png")).expect("a picture");

    let record = place.record("eval-nll run --n 12 --split train --out log_p.npy --set sampler.rtol=1e-3");
    has_keys(&record, &["stderr", "nfe", "weights_sha256", "code_revision", "device", "entropy_nats"]);
    assert!(record.get("bits_per_dim").is_none(), "points have no bits");
    let mean = place.get("log_p.npy").mean().expect("some points");
    assert!((number(&record, "nats") + mean).abs() < 1e-12);
    assert_eq!(place.json("run/records/nll-train.json"), record);

    let weights = |name: &str| {
        let record = place.record(&format!("sample run --n 1 --steps 1 --weights {name} --out x.npy"));
        record["weights_sha256"].as_str().expect("a hash").to_owned()
    };
    assert_ne!(weights("raw"), weights("main"));
    place.call("sample run --weights man").fails(64, &["--weights man", "raw, main"]);
}

#[test]
fn sample_k_of_a_network_is_the_same_at_any_batch_size() {
    let place = Place::new();
    for (preset, sampler) in [(IMAGES, "ddpm"), (POINTS, "tab3")] {
        let run = &preset[..6];
        place.run(&format!("train {preset} --steps 3 --out {run}"));
        let drawn = |options: &str| {
            place.run(&format!("sample {run} --sampler {sampler} --steps 5 --out x.npy {options}"));
            place.get("x.npy")
        };
        let all = drawn("--n 64 --batch 64");
        let scale = all.iter().fold(1.0, |most: f64, x| most.max(x.abs()));
        for batch in [1, 8] {
            let gap = gap(&drawn(&format!("--n 64 --batch {batch}")), &all);
            assert!(gap < 1e-6 * scale, "{run}, batch {batch}: {gap:e}");
        }
        let gap = gap(&drawn("--seeds 20-22"), &rows(&all, 20..23));
        assert!(gap < 1e-6 * scale, "{run}, a range: {gap:e}");
    }
}

#[test]
fn the_newest_run_is_meant_where_none_is_named() {
    let place = Place::new();
    for _ in 0..2 {
        place.run(&format!("train {POINTS} --steps 1"));
    }
    let run = |line: &str| place.record(&format!("sample --n 1 --steps 1 {line}"))["run"].clone();
    assert_eq!(run(""), "checkpoints/00001-checkerboard");
    assert_eq!(run("00000-checkerboard"), "checkpoints/00000-checkerboard");
    assert_eq!(run("checkpoints/00000-checkerboard"), "checkpoints/00000-checkerboard");
}

#[test]
fn the_demo_leaves_samples_a_curve_and_a_likelihood_beside_that_of_a_gaussian() {
    let place = Place::new();
    let (_, sets) = IMAGES.split_once(' ').expect("a preset and its settings");
    let record = place.record(&format!(
        "demo {sets} --set train.steps=5 --set sampler.rtol=0.05 --set sampler.atol=0.05 --out tour"
    ));
    has_keys(
        &record,
        &["bits_per_dim", "stderr", "gaussian_stderr", "n", "nfe", "seed", "code_revision", "files"],
    );
    // What a Gaussian of full covariance reaches on this split of the digits; the network has hardly begun.
    let gaussian = number(&record, "gaussian_bits_per_dim");
    assert!((gaussian - 2.96).abs() < 0.1, "{gaussian}");
    assert_eq!(
        (&record["sample_nfe"], &record["samples"]),
        (&10.into(), &64.into()),
        "samples in ten network calls"
    );
    image::open(place.path("tour/samples.png")).expect("a picture");
    assert!(place.text("tour/loss.svg").starts_with("<svg"));
    assert_eq!(place.json("tour/records/demo.json"), record);
}

#[test]
fn help_is_help_and_says_what_there_is() {
    let place = Place::new();
    let help = place.run("--help").stdout;
    for command in ["demo", "train", "sample", "eval-nll", "import", "export", "presets", "show"] {
        assert!(help.contains(&format!("\n  {command} ")), "{command} is not in:\n{help}");
        let own = place.run(&format!("{command} --help")).stdout;
        assert!(own.contains(&format!("Usage: cargo xtask {command}")), "{own}");
    }
    assert!(place.run("--version").stdout.contains(env!("CARGO_PKG_VERSION")));
    let bare = place.call("");
    assert_eq!((bare.code, bare.stdout.as_str()), (Some(64), ""));
    assert!(bare.stderr.contains("Usage: cargo xtask"), "{}", bare.stderr);
}

#[test]
fn editing_keeps_what_is_known_and_comes_back() {
    let place = Place::with_run();
    let picture = |name: &str, side: u32, of: fn(u32, u32) -> u8| {
        let pixels = image::GrayImage::from_fn(side, side, |x, y| image::Luma([of(x, y)]));
        pixels.save(place.path(name)).expect("a picture");
    };
    picture("image.png", 8, |x, y| ((x * 37 + y * 11) % 16 * 16) as u8);
    picture("mask.png", 8, |_, y| if y < 4 { 0 } else { 255 });
    picture("small.png", 4, |x, y| (x * 40 + y * 20) as u8);
    let rows = |out: &str| match &read_npz(&place.path(&format!("{out}/samples.npz"))).expect("samples")["arr_0"]
    {
        NpyArray::U8(array) => array.clone(),
        other => panic!("{other:?}"),
    };
    // What is dark in the mask is the image, to the level, however it is kept to.
    let wanted = |x: usize, y: usize| ((x * 37 + y * 11) % 16 * 16) as f64 / 255.0 * 17.0;
    for (i, how) in
        ["--sampler ddim", "--sampler tab2 --by gradient", "--sampler ddpm --resample 2"].iter().enumerate()
    {
        let out = format!("in{i}");
        let record = place
            .record(&format!("sample run --inpaint mask.png image.png --n 3 --steps 4 {how} --out {out}"));
        assert_eq!(record["edit"]["inpaint"][0], "mask.png");
        let calls = if how.contains("resample") { 9.0 } else { 5.0 };
        assert_eq!(number(&record, "nfe"), calls, "{how}");
        let rows = rows(&out);
        for (place, &level) in rows.indexed_iter().filter(|(place, _)| place[1] < 4) {
            let (y, x) = (place[1], place[2]);
            assert_eq!(f64::from(level), wanted(x, y).floor().min(16.0), "{how} at {x}, {y}");
        }
    }
    place.run("sample run --enlarge small.png --n 2 --steps 3 --sampler ddim --out large");
    place.run("sample run --image image.png --strength 0.3 --n 2 --steps 6 --out varied");
    let record =
        place.record("sample run --encode image.png --sampler rk45 --out coded --set sampler.denoise=false");
    assert!(number(&record, "round_trip_rms") < 0.51, "{record}");
    let record = place.record("sample run --interpolate 4 --seeds 2-4 --steps 3 --out path");
    assert_eq!(number(&record, "n"), 7.0);
    // The ends of the path are the samples of their seeds.
    place.run("sample run --seeds 2-4 --steps 3 --out ends");
    let (path, ends) = (rows("path"), rows("ends"));
    for (on_path, end) in [(0, 0), (3, 1), (6, 2)] {
        assert_eq!(path.index_axis(ndarray::Axis(0), on_path), ends.index_axis(ndarray::Axis(0), end));
    }
    for (line, what) in [
        ("sample run --inpaint mask.png small.png", "resize"),
        ("sample run --inpaint mask.png image.png --sampler rk45", "gradient"),
        ("sample run --inpaint mask.png image.png --resample 2 --sampler tab2", "one-step"),
        ("sample run --inpaint mask.png image.png --sampler analytic-dpm", "no plain table"),
        ("sample run --inpaint mask.png image.png --by gradient --resample 2", "--resample"),
        ("sample run --by gradient", "nothing is known"),
        ("sample run --interpolate 3 --seeds 1-1", "two"),
        ("sample run --interpolate 3 --seeds 1-2 --sampler ddpm", "deterministic"),
        ("sample run --image image.png --strength 2", "--strength"),
        ("sample run --class 3", "no classes"),
    ] {
        let called = place.call(line);
        assert!(called.code.is_some_and(|code| code > 1), "{line}: {:?} {}", called.code, called.stderr);
        assert!(called.stderr.contains(what), "{line}: {}", called.stderr);
    }
}

#[test]
fn a_grid_that_suits_is_found_in_training_too() {
    let place = Place::new();
    place.run(&format!("train {POINTS} --set sampler.grid=auto --set train.sample_every=10 --out run"));
    assert!(
        place.names("run/samples").contains(&"step-0000010.png".to_owned()),
        "{:?}",
        place.names("run/samples")
    );
}
