//! Path integral samplers: a training that is killed and resumed, the best control and a trained one by `target`, and what is refused.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::{Outcome, Place};

/// A control so small that an update takes milliseconds.
const SMALL: &str = "train pis-gaussian --set net.hidden=[8] --set net.time_dim=8 --set process.steps=10 --set train.batch=16 \
                     --set train.steps=60 --set train.log_every=1 --set train.checkpoint_every=7";

#[test]
fn a_killed_training_of_a_control_is_the_one_that_was_not() {
    let place = Place::new();
    let begun = Instant::now();
    place.run(&format!("{SMALL} --out whole"));
    let whole = Outcome::of(&place, "whole");
    let each: Duration = begun.elapsed() / 4;
    for kill in 0..8 {
        let resume = if place.path("killed/config.toml").is_file() { "--resume" } else { "" };
        let mut command = place.command(&format!("{SMALL} --out killed {resume}"));
        let mut child =
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the runner starts");
        std::thread::sleep(each.mul_f64(0.5 + 0.2 * f64::from(kill)));
        if child.try_wait().expect("a child").is_none() {
            child.kill().expect("it runs");
        }
        child.wait().expect("it ends");
        if !place.path("killed/config.toml").is_file() {
            let _ = std::fs::remove_dir_all(place.path("killed"));
        }
    }
    let resume = if place.path("killed").is_dir() { "--resume" } else { "" };
    place.run(&format!("{SMALL} --out killed {resume}"));
    assert_eq!(Outcome::of(&place, "killed"), whole);
}

#[test]
fn the_best_control_and_a_trained_one_are_right_about_z() {
    let place = Place::new();
    let record = place
        .record("target mixture --sampler pis-gt --set process.noise=1 --runs 6 --n 400 --picture p.png");
    let number = |value: &serde_json::Value| value.as_f64().unwrap_or(f64::NAN);
    let right = |record: &serde_json::Value, z: f64| {
        let (mean, deviation) =
            (number(&record["log_z"]["mean"]["value"]), number(&record["log_z"]["standard_deviation"]));
        // The mean of six runs within five of its errors.
        (mean - z).abs() < 5.0 * deviation / 6f64.sqrt()
    };
    assert!(right(&record, 0.0), "{record}");
    assert!(place.path("p.png").is_file());
    // Of N = 100 steps: the bound is near −0.10, the share 0.84; errors √(0.2/2400) and some hundredths.
    assert!((number(&record["bound"]["mean"]["value"]) + 0.10).abs() < 0.05, "{record}");
    assert!((number(&record["effective_share"]["value"]) - 0.84).abs() < 0.08, "{record}");

    place.run(&format!("{SMALL} --out control"));
    let record = place.record("target gaussian --sampler pis-grad --run control --runs 6 --n 2000");
    let truth = number(&record["truth"]);
    assert!(right(&record, truth), "{record}");
    assert!(number(&record["bound"]["mean"]["value"]) < truth, "{record}");
}

#[test]
fn controls_that_do_not_fit_are_refused() {
    let place = Place::new();
    place.run(&format!("{SMALL} --out control --steps 2"));
    for (line, expected) in [
        ("target mixture --sampler pis-grad --run control", "a run for the target gaussian, not mixture"),
        ("target gaussian --sampler pis-nn --run control", "this is pis-grad"),
        ("target funnel --sampler pis-gt", "the best control is known for mixtures of Gaussians"),
        ("sample control", "needs a score model"),
        ("train pis-mixture --set process.stepz=3 --dry-run", "process.stepz"),
        ("train pis-mixture --set process.horizon=-1", "the horizon of a path must lie in"),
    ] {
        let called = place.call(line);
        assert!(called.code != Some(0) && called.stderr.contains(expected), "{line}: {}", called.stderr);
    }
}

#[test]
fn the_posterior_of_an_autoencoder_is_a_target() {
    let place = Place::new();
    place.run("train vae-digits --set net.code=2 --set net.hidden=[16] --steps 40 --out vae");
    assert!(place.path("vae/checkpoints/step-40").is_dir());
    let of = |line: &str| {
        let record = place.record(line);
        let value = |key: &str| record["log_z"][key].as_f64().unwrap_or(f64::NAN);
        (record["log_z"]["mean"]["value"].as_f64().unwrap_or(f64::NAN), value("standard_deviation"))
    };
    let line = "target vae --vae vae --image 3 --runs 4 --n 1000 --sampler";
    let small = "--set net.hidden=[8] --set net.time_dim=8 --set process.steps=10 --set train.batch=16 --set train.steps=20";
    let ((smc, s), (pis, p)) = (of(&format!("{line} smc")), of(&format!("{line} pis-grad {small}")));
    // log p(x) by two methods, each of four runs: within five errors of the difference.
    assert!((smc - pis).abs() < 5.0 * s.hypot(p) / 2.0 && smc < 0.0, "{smc} ± {s}, {pis} ± {p}");

    for (line, expected) in [
        ("target vae", "the target vae needs --vae RUN"),
        ("target vae --vae vae --image 100000", "image 100000: there are"),
        ("train vae-digits --set data.name=checkerboard --dry-run --set net.cod=3", "net.cod"),
    ] {
        let called = place.call(line);
        assert!(called.code != Some(0) && called.stderr.contains(expected), "{line}: {}", called.stderr);
    }
}
