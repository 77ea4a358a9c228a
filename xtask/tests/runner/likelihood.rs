//! `eval-nll`: killed and started again, in parts, by every integrator, and its bounds.

use std::time::{Duration, Instant};

use ndarray::ArrayD;
use serde_json::Value;

use crate::support::Place;

const LOOSE: &str = "--set sampler.rtol=1e-2 --set sampler.atol=1e-2";

/// Record and csv of an evaluation, which are then out of the way.
fn taken(place: &Place, name: &str) -> [String; 2] {
    ["json", "csv"].map(|ending| {
        let file = format!("run/records/{name}.{ending}");
        let text = place.text(&file);
        std::fs::remove_file(place.path(&file)).unwrap_or_else(|e| panic!("{file}: {e}"));
        text
    })
}

fn number(record: &Value, key: &str) -> f64 {
    record[key].as_f64().unwrap_or_else(|| panic!("{key} of {record}"))
}

#[test]
fn an_evaluation_that_is_killed_goes_on_and_ends_the_same() {
    let place = Place::with_run();
    let line = format!("eval-nll run --n 40 --repeats 2 {LOOSE} --batch 1");
    place.run(&line.replace("--batch 1", "--batch 40"));
    let together = taken(&place, "nll-test");
    place.run(&line);
    let whole = taken(&place, "nll-test");
    assert_eq!((&whole[1], whole[1].lines().count()), (&together[1], 1 + 80));

    let note = "run/records/nll-test.csv.partial.json";
    let mut kills = 0;
    loop {
        let mut child = place.start(&line);
        let (before, begun) = (place.text(note), Instant::now());
        // Killed as soon as it has got further than the call before.
        while (place.text(note) == before || place.text(note).contains("\"examples\":0"))
            && child.try_wait().expect("a child").is_none()
            && begun.elapsed().as_secs() < 60
        {
            std::thread::sleep(Duration::from_millis(1));
        }
        if kills == 4 || child.try_wait().expect("a child").is_some() {
            child.wait().expect("an end");
            break;
        }
        child.kill().expect("a running child");
        child.wait().expect("an end");
        kills += 1;
        if kills == 1 {
            // What a write that was cut off leaves.
            let rows = place.text("run/records/nll-test.csv.partial");
            place.write("run/records/nll-test.csv.partial", rows + "17,0,-3");
            // Other options are another evaluation.
            let other = place.call(&format!("{line} --seed 5"));
            other.fails(78, &["nll-test.csv.partial", "something else"]);
        }
    }
    assert!(kills >= 1, "the evaluations ended too soon to be killed");
    assert_eq!(taken(&place, "nll-test"), whole);
    assert!(place.names("run/records").iter().all(|name| !name.contains("partial")));
}

#[test]
fn parts_make_the_whole() {
    let place = Place::with_run();
    let line = format!("eval-nll run --n 11 {LOOSE}");
    place.run(&line);
    let whole = taken(&place, "nll-test");

    let first = place.record(&format!("{line} --shard 2/3"));
    assert_eq!((&first["shard"], &first["missing"]), (&"2/3".into(), &serde_json::json!([1, 3])));
    place.call(&format!("{line} --merge")).fails(64, &["parts", "1, 3 are missing", "--shard I/N"]);
    place.run(&format!("{line} --shard 3/3"));
    place.call(&format!("{line} --seed 1 --shard 3/3")).fails(78, &["another evaluation", "--merge"]);
    place.run(&format!("{line} --shard 1/3"));
    assert_eq!(taken(&place, "nll-test"), whole);
    assert!(place.names("run/records").iter().all(|name| !name.contains("shard")));

    // Parts that were done elsewhere: brought here, they are put together by --merge.
    for part in 1..=2 {
        place.run(&format!("{line} --shard {part}/3"));
    }
    let kept: Vec<(String, String)> = place
        .names("run/records")
        .into_iter()
        .filter(|name| name.contains("shard"))
        .map(|name| (name.clone(), place.text(&format!("run/records/{name}"))))
        .collect();
    assert_eq!(kept.len(), 4);
    place.run(&format!("{line} --shard 3/3"));
    assert_eq!(taken(&place, "nll-test"), whole);
    for (name, text) in &kept {
        place.write(&format!("run/records/{name}"), text);
    }
    let again = place.run(&format!("{line} --shard 1/3"));
    assert!(again.stderr.contains("there already"), "{}", again.stderr);
    place.run(&format!("{line} --shard 3/3"));
    assert_eq!(taken(&place, "nll-test"), whole);
    place.call(&format!("{line} --merge")).fails(64, &["no part of nll-test is there"]);
}

#[test]
fn a_signal_stops_between_batches() {
    let place = Place::with_run();
    let line = "eval-nll run --n 60 --batch 1 --set sampler.rtol=1e-6";
    let child = place.start(line);
    let begun = Instant::now();
    while !place.text("run/records/nll-test.csv.partial").contains("\n1,0,") && begun.elapsed().as_secs() < 60
    {
        std::thread::sleep(Duration::from_millis(1));
    }
    let kill = std::process::Command::new("kill").args(["-s", "TERM", &child.id().to_string()]).status();
    assert!(kill.expect("kill runs").success());
    let status = child.wait_with_output().expect("it ends").status;
    assert_eq!(status.code(), Some(75));
}

#[test]
fn every_divergence_and_integrator_measures_the_same_network() {
    let place = Place::with_run();
    let line = "eval-nll run --n 1 --set sampler.rtol=1e-4 --set sampler.atol=1e-4";
    let exact = place.record(&format!("{line} --divergence exact"));
    assert_eq!((&exact["products_per_call"], &exact["integrator"]), (&64.into(), &"rk45".into()));
    for options in [
        "--divergence exact --sampler tab3 --steps 60",
        "--divergence antithetic --probes 64 --sampler tsit5",
        "--divergence orthogonal --probes 64 --sampler rk4 --steps 20",
    ] {
        let found = place.record(&format!("{line} {options}"));
        let gap = number(&found, "bits_per_dim") - number(&exact, "bits_per_dim");
        assert!(gap.abs() < 0.02, "{options}: {gap}");
    }
    let fixed = place.record(&format!("{line} --sampler tab3 --steps 10"));
    assert_eq!(
        (&fixed["steps"], &fixed["grid"], &fixed["nfe"]["max"]),
        (&10.into(), &"auto".into(), &10.into())
    );
    assert!(fixed.get("rtol").is_none());
    let told = place.run("eval-nll run --n 6 --repeats 2 --divergence exact --sampler tab3 --steps 5");
    assert!(
        told.stderr.contains("5 network calls × 64 vector–Jacobian products × 12 solves = 3840"),
        "{}",
        told.stderr
    );
    assert!(told.stderr.contains("s more, by the first 4 examples"), "{}", told.stderr);
    let averaged =
        place.record("eval-nll run --n 2 --divergence exact --sampler tab3 --steps 5 --dequantise-samples 3");
    assert_eq!((&averaged["dequantise_samples"], &averaged["nfe"]["max"]), (&3.into(), &15.into()));
}

#[test]
fn bounds_have_records_of_their_own() {
    let place = Place::with_run();
    let elbo = place.record("eval-nll run --n 4 --bound elbo --draws 20");
    assert_eq!(place.json("run/records/nll-test-elbo.json"), elbo);
    assert_eq!(
        (&elbo["bound"], &elbo["draws"], &elbo["nfe"]["max"]),
        (&"elbo".into(), &20.into(), &40.into())
    );
    assert!(elbo.get("bits_per_dim").is_none() && elbo.get("nats").is_none(), "a bound is no likelihood");
    assert!(number(&elbo, "bound_bits_per_dim") > 0.0 && number(&elbo, "estimator_error_nats") > 0.0);
    let rows = place.text("run/records/nll-test-elbo.csv");
    assert!(
        rows.lines()
            .skip(1)
            .all(|row| row.split(',').nth(5).is_some_and(|error| error.parse::<f64>().is_ok())),
        "{rows}"
    );

    let line = "eval-nll run --n 4 --bound discrete --steps 30 --draws 10";
    let spread = place.record(line);
    assert_eq!((&spread["steps"], &spread["variance"]), (&30.into(), &"small".into()));
    // Levels as they are have a probability, which needs no offset; in nats it is that of the levels.
    let levels = place.record(&format!("{line} --variance large --set data.dequantise=false"));
    let bits = number(&levels, "bound_nats") / 64.0 / std::f64::consts::LN_2;
    assert!((number(&levels, "bound_bits_per_dim") - bits).abs() < 1e-9, "{levels}");
}

/// A Gaussian in the plane, whose density is a formula; what its bound is, too, with the exact field.
#[test]
fn a_known_density_is_found_on_a_grid_and_by_its_bound() {
    let place = Place::new();
    place.write("density.json", r#"{"mu":[[0.3,-0.2]],"cov":[[[0.5,0.1],[0.1,0.2]]],"w":[1.0]}"#);
    place.put("points.npy", &ArrayD::from_shape_vec(vec![2, 2], vec![0.3, -0.2, 1.0, 0.5]).expect("a shape"));
    let line = "eval-nll --oracle density.json --points points.npy --prior exact --out out.npy";
    place.run(line);
    let adaptive = place.get("out.npy");
    place.run(&format!("{line} --sampler tab3 --steps 200"));
    let table = place.get("out.npy");
    // A method of order four in 200 steps.
    assert!((&adaptive - &table).iter().all(|gap| gap.abs() < 1e-3), "{adaptive} {table}");
    let record = place.record(&format!("{line} --bound elbo --draws 2000"));
    let (gap, error) =
        (number(&record, "bound_nats") + adaptive.sum() / 2.0, number(&record, "estimator_error_nats"));
    assert!(gap.abs() < 4.0 * error && error < 0.1, "{gap} ± {error}");
    let record = place.record(&format!("{line} --process ddpm --bound discrete"));
    assert_eq!(record["steps"], 1000);
}

#[test]
fn options_that_do_not_fit_are_refused() {
    let place = Place::with_run();
    let usage: [(&str, &[&str]); 14] = [
        ("--shard 5/4", &["5/4", "--shard <I/N>", "such as 2/8"]),
        ("--shard 0/4", &["expected I/N"]),
        ("--shard 1/2 --merge", &["--merge"]),
        ("--shard 1/2 --out x.npy", &["--out"]),
        ("--draws 3", &["--bound <NAME>"]),
        ("--bound elbow", &["unknown bound `elbow`", "did you mean `elbo`?"]),
        ("--bound elbo --sampler tab3", &["--sampler <NAME>"]),
        ("--bound elbo --steps 3", &["steps and grid", "discrete"]),
        ("--bound elbo --variance large", &["variance", "discrete"]),
        ("--bound discrete --variance larg", &["unknown variance `larg`", "did you mean `large`?"]),
        ("--sampler tab3", &["tab3", "--steps N"]),
        ("--sampler rk45 --steps 4", &["rk45 chooses its steps"]),
        ("--sampler ddpm --steps 4", &["draws noise"]),
        ("--sampler tab9 --steps 4", &["unknown integrator of a likelihood `tab9`", "tab"]),
    ];
    for (options, words) in usage {
        let code = if options.contains("ddpm") { 78 } else { 64 };
        place.call(&format!("eval-nll run --n 2 {options}")).fails(code, words);
    }
    let configured: [(&str, &[&str]); 3] = [
        ("--divergence antithetic --probes 3", &["antithetic probes come in pairs", "--probes 2"]),
        ("--dequantise-samples 4 --divergence rademacher", &["exact divergence"]),
        ("--dequantise-samples 4 --bound elbo", &["exact divergence"]),
    ];
    for (options, words) in configured {
        place.call(&format!("eval-nll run --n 2 {options}")).fails(78, words);
    }
    place.write("density.json", r#"{"mu":[[0.0]],"cov":[[[1.0]]],"w":[1.0]}"#);
    place.put("points.npy", &ArrayD::from_shape_vec(vec![1, 1], vec![0.5]).expect("a shape"));
    let line = "eval-nll --oracle density.json --points points.npy";
    place
        .call(&format!("{line} --process linear --bound elbo"))
        .fails(78, &["signal and noise left at both"]);
    place.call(&format!("{line} --dequantise-samples 2")).fails(78, &["dequantised levels"]);
    assert!(place.names("run/records").iter().all(|name| !name.contains("nll")), "nothing is left behind");
}
