//! Every suite runs, at sizes too small to say anything of speed, and its record has what docs/records.md promises.

use std::process::Command;

use serde_json::Value;

use crate::support::Place;

const TINY: &str = "--quick --repeats 2 --threads 1";

/// The Python of this machine that has PyTorch, if there is one.
fn python() -> Option<String> {
    let named = std::env::var("SDE_BENCH_PYTHON").unwrap_or_else(|_| "python3".into());
    let found = Command::new(&named).args(["-c", "import torch"]).output().is_ok_and(|o| o.status.success());
    found.then_some(named)
}

fn finite(value: &Value) -> f64 {
    value
        .as_f64()
        .filter(|v| v.is_finite() && *v > 0.0)
        .unwrap_or_else(|| panic!("{value} is no positive number"))
}

/// A case's own numbers.
fn check_case(case: &Value) {
    for clock in ["wall_seconds", "cpu_seconds"] {
        let spread = &case["ours"][clock];
        let [min, median, max] = ["min", "median", "max"].map(|key| finite(&spread[key]));
        assert!(min <= median && median <= max, "{spread}");
    }
    assert_eq!(case["clock"], "cpu", "one thread is compared by CPU time");
}

/// What every record of a bench has.
fn check_record(record: &Value, suite: &str) {
    assert_eq!(record["command"], format!("bench {suite}"));
    assert_eq!(record["repeats"], 2);
    assert!(record["command_line"].as_str().is_some_and(|line| line.starts_with("cargo xtask bench ")));
    for key in ["machine", "device", "versions", "code_revision", "quick"] {
        assert!(!record[key].is_null(), "no {key} in {record}");
    }
    finite(&record["gemm_peak_flops"]["1"]);
    finite(&record["machine"]["cores"]);
}

#[test]
fn without_pytorch_one_line_says_so_and_this_project_is_timed_alone() {
    let place = Place::new();
    let line = format!("bench unet {TINY} --batch 1,2 --python no-such-python --out record.json");
    let called = place.run(&line);
    let told: Vec<&str> = called.stderr.lines().filter(|line| line.contains("PyTorch")).collect();
    assert!(
        matches!(told[..], [line] if line.contains("no-such-python") && line.contains("--python PATH")),
        "{told:?}"
    );
    let record = place.json("record.json");
    check_record(&record, "unet");
    for what in ["forward", "train"] {
        assert!(record[what]["ratio_to_pytorch"].is_null());
        let cases = record[what]["cases"].as_array().expect("cases");
        assert_eq!(cases.iter().map(|case| &case["batch"]).collect::<Vec<_>>(), [1, 2]);
        for case in cases {
            check_case(case);
            finite(&case["flops_per_second"]);
            finite(&case["fraction_of_gemm_peak"]);
        }
    }
    let [forward, train] = ["forward", "train"].map(|what| finite(&record[what]["cases"][1]["flops"]));
    assert!((2.9..3.0).contains(&(train / forward)), "the image needs no gradient: {train} / {forward}");
}

#[cfg(unix)]
#[test]
fn a_python_without_torch_is_named_with_its_reason() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    place.write("python", "#!/bin/sh\necho '{\"error\": \"No module named torch\"}'\n");
    let file = place.path("python");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).expect("a program");
    let called = place.run(&format!("bench mlp {TINY} --batch 4 --python ./python"));
    assert!(called.stderr.contains("no PyTorch (./python: No module named torch)"), "{}", called.stderr);
    assert!(called.stdout.contains("330 parameters"), "{}", called.stdout);
}

#[test]
fn operators_are_weighted_by_a_training_step() {
    let place = Place::new();
    let record = place.record(&format!("bench ops {TINY} --batch 1 --python no-such-python"));
    check_record(&record, "ops");
    let [threads] = record["threads"].as_array().expect("threads").as_slice() else { panic!("{record}") };
    let operators = threads["operators"].as_array().expect("operators");
    let mut total = 0.0;
    for row in operators {
        check_case(row);
        let time = finite(&row["ours"]["cpu_seconds"]["median"]);
        total += row["per_step"].as_f64().expect("a count") * time;
        finite(&row[if row["flops"].is_null() { "bytes_per_second" } else { "fraction_of_gemm_peak" }]);
    }
    let sum = finite(&threads["step_seconds"]["ours"]);
    assert!((sum - total).abs() < 1e-9 * total, "{sum} {total}");
    let has = |name: &str, pass: &str| {
        operators
            .iter()
            .any(|row| row["operator"].as_str().is_some_and(|o| o.starts_with(name)) && row["pass"] == pass)
    };
    for pass in ["forward", "input_gradient", "weight_gradient"] {
        assert!(has("conv 3x3", pass) && has("conv 3x3 /2", pass) && has("conv 1x1", pass), "{pass}");
    }
    for name in
        ["group norm+SiLU", "attention", "softmax", "SiLU", "upsample", "dropout", "add", "concat", "linear"]
    {
        assert!(has(name, "forward") && has(name, "backward"), "{name}");
    }
    assert!(has("Adam", "forward") && has("average", "forward"));

    let few =
        place.run(&format!("bench ops {TINY} --batch 1 --python no-such-python --only softmax --markdown"));
    let rows = few.stdout.lines().filter(|line| line.starts_with("| softmax")).count();
    assert_eq!(
        (rows, few.stdout.lines().filter(|line| line.starts_with("| ")).count()),
        (2, 3),
        "{}",
        few.stdout
    );
    assert!(
        few.stdout.contains("`cargo xtask bench ops") && !few.stdout.contains("no-such-python"),
        "{}",
        few.stdout
    );
}

#[test]
fn presets_are_trained_and_sampled() {
    let place = Place::new();
    let record = place.record(&format!("bench train {TINY} --set train.batch=2 --python no-such-python"));
    check_record(&record, "train");
    assert_eq!((&record["preset"], &record["synthetic_data"]), (&"cifar10-tiny".into(), &true.into()));
    check_case(&record["train"]["cases"][0]);
    finite(&record["train"]["cases"][0]["samples_per_second"]);
    let line = format!("bench sample digits {TINY} --nfe 2 --batch 3 --sampler ddim --python no-such-python");
    let record = place.record(&line);
    check_record(&record, "sample");
    assert_eq!((&record["nfe"], &record["sampler"]["name"]), (&2.into(), &"ddim".into()));
    check_case(&record["sample"]["cases"][0]);
    let record = place.record(&format!("bench inception {TINY} --batch 2 --size 8 --python no-such-python"));
    check_record(&record, "inception");
    check_case(&record["features"]["cases"][0]);
    // Convolutions of 21,751,136 entries, and 17,216 channels of normalisations.
    assert_eq!(record["parameters"], 21_785_568);
    assert!(place.names("").is_empty(), "a bench leaves something behind: {:?}", place.names(""));
}

#[test]
fn the_networks_of_both_sides_are_the_same_size() {
    // Different numbers of parameters are an error; this test needs a Python with PyTorch.
    let Some(python) = python() else { return };
    let place = Place::new();
    for (suite, what) in [
        ("unet --batch 1", "train"),
        ("mlp --batch 4", "train"),
        ("inception --batch 1", "features"),
        ("sample digits --nfe 1 --batch 1", "sample"),
        ("sample cifar10-tiny --nfe 1 --batch 1 --set net.resampling=pool", "sample"),
        ("sample checkerboard --nfe 1 --batch 1", "sample"),
    ] {
        let record = place.record(&format!("bench {suite} {TINY} --python {python}"));
        let ratio = &record[what]["ratio_to_pytorch"];
        let [min, median, max] = ["min", "median", "max"].map(|key| finite(&ratio[key]));
        assert!(
            min <= median && median <= max && ratio["cases"].as_array().is_some_and(|c| c.len() == 1),
            "{ratio}"
        );
        assert!(record["versions"]["torch"].is_string());
        finite(&record["parameters"]);
    }
    let record = place.record(&format!("bench ops {TINY} --batch 1 --python {python}"));
    for row in record["threads"][0]["operators"].as_array().expect("operators") {
        finite(&row["ratio_to_pytorch"]["median"]);
    }
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_timed() {
    let place = Place::new();
    let cases: [(&str, &[&str]); 4] = [
        ("bench unet --batch 0", &["1 or more"]),
        ("bench unet --autocast fp8", &["--autocast fp8", "bf16"]),
        ("bench ops --only conv9", &["--only conv9"]),
        ("bench sample digits --sampler rk45", &["rk45"]),
    ];
    for (line, words) in cases {
        place.call(line).fails(64, words);
    }
    assert!(!place.run("bench --help").stdout.contains("worker"), "a worker is nobody's command");
}

#[test]
fn samplers_are_measured_with_error_bars_and_a_picture() {
    let place = Place::new();
    let record = place.record(
        "bench sampler digits --points 32 --starts 32 --nfe 4,8 --only ddim,tab2,ddpm,analytic-dpm --plot plot.svg --out record.json",
    );
    assert_eq!(record, place.json("record.json"));
    let samplers = record["samplers"].as_array().expect("a list");
    let names: Vec<&str> = samplers.iter().filter_map(|s| s["sampler"].as_str()).collect();
    assert_eq!(names, ["ddim", "tab2", "ddpm", "analytic-dpm"]);
    for sampler in samplers {
        let stochastic = ["ddpm", "analytic-dpm"].contains(&sampler["sampler"].as_str().expect("a name"));
        for (cell, calls) in sampler["cells"].as_array().expect("cells").iter().zip([4, 8]) {
            assert_eq!(cell["nfe"], calls);
            assert!(cell["sliced_w2_squared"]["standard_error"].is_number());
            assert_eq!(cell["error"].is_null(), stochastic, "{cell}");
        }
    }
    // More calls, less error.
    let error = |cell: usize| samplers[1]["cells"][cell]["error"]["value"].as_f64().expect("an error");
    assert!(error(1) < error(0));
    assert!(place.text("plot.svg").contains("tab2"));
    // An adaptive solver takes no more calls than it is given.
    let adaptive = place.record("bench sampler digits --points 32 --starts 32 --nfe 40 --only rk45");
    assert!(
        adaptive["samplers"][0]["cells"][0]["nfe"].as_u64().is_some_and(|calls| calls <= 40),
        "{adaptive}"
    );
    // States with velocities are compared by their positions.
    let phase = place.record("bench sampler digits-cld --points 32 --starts 32 --nfe 8 --only tab1,chol-ab1");
    assert_eq!(phase["samplers"].as_array().map(Vec::len), Some(2));
    let refused = place.call("bench sampler digits --only rk54");
    assert!(refused.stderr.contains("rk54"), "{}", refused.stderr);
}

#[test]
fn a_step_is_measured_against_streaming() {
    let place = Place::new();
    let record = place.record("bench step cifar10-tiny --batch 2 --repeats 2");
    // 2 to 5 predictions and the state are read, the state is written; 12 steps, of which 3 have a shorter history.
    let arrays = (3 + 4 + 5 + 9 * 6) as f64;
    assert_eq!(record["bytes"].as_f64(), Some((arrays * 8.0 * 2.0 * 3072.0 / 12.0).floor()));
    assert!(record["share_outside_the_network"].as_f64().is_some_and(|share| (0.0..1.0).contains(&share)));
}
