//! A run that is killed, stopped or cut short and resumed is, bit for bit, the run that was not.

use std::process::{Command, Stdio};
use std::time::Instant;

use sde_core::noise::{Noise, Stream};

use crate::support::{Called, IMAGES, Outcome, Place};

#[test]
fn a_run_killed_at_twenty_random_moments_is_the_run_that_was_not() {
    let place = Place::new();
    let begun = Instant::now();
    place.run(&format!("train {IMAGES} --out whole"));
    // Kills are to fall everywhere: at the start, amid updates, amid checkpoints.
    let longest = begun.elapsed() / 3;
    let whole = Outcome::of(&place, "whole");
    assert_eq!((whole.log.lines().count(), whole.files.len()), (60, 4));

    let mut draws = Noise::new(7).draws(Stream::User, 0, 0);
    let (mut kills, mut run) = (0, "run-0".to_owned());
    loop {
        let resume = if place.path(&format!("{run}/config.toml")).is_file() { "--resume" } else { "" };
        if resume.is_empty() {
            // Killed before there was a run: what there is of it is in the way.
            let _ = std::fs::remove_dir_all(place.path(&run));
        }
        let mut command = place.command(&format!("train {IMAGES} --out {run} {resume}"));
        // The number of threads is nobody's concern either.
        command.env("RAYON_NUM_THREADS", (1 + draws.below(2)).to_string());
        let mut child =
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the runner starts");
        std::thread::sleep(longest.mul_f64(draws.uniform()));
        if kills < 20 && child.try_wait().expect("a child").is_none() {
            child.kill().expect("it runs");
            kills += 1;
        }
        let status = child.wait().expect("it ends");
        assert!(status.success() || status.code().is_none(), "{run} failed by itself, after {kills} kills");
        if status.success() {
            assert_eq!(Outcome::of(&place, &run), whole, "{run}, after {kills} kills");
            if kills == 20 {
                break;
            }
            run = format!("run-after-{kills}-kills");
        }
    }
}

#[test]
fn a_signal_stops_at_an_update_and_loses_none() {
    let place = Place::new();
    let line = format!("train {IMAGES} --set train.steps=100000");
    for signal in ["TERM", "INT", "HUP"] {
        let run = format!("stopped-by-{signal}");
        let mut command = place.command(&format!("{line} --out {run}"));
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the runner starts");
        place.await_log(&run, 4);
        let kill = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status();
        assert!(kill.expect("kill runs").success());
        let called = Called::of(&line, child.wait_with_output().expect("it ends"));
        called.fails(75, &["stopped by a signal at update", "--resume"]);

        let steps = place.text(&format!("{run}/log.jsonl")).lines().count();
        assert!(
            place.path(&format!("{run}/checkpoints/step-{steps}")).is_dir(),
            "{signal}: update {steps} is lost"
        );
        assert_eq!(place.json(&format!("{run}/records/train.json"))["step"], steps);

        let until = steps + 3;
        place.run(&format!("{line} --out {run} --resume --steps {until}"));
        let whole = format!("whole-{signal}");
        place.run(&format!("{line} --out {whole} --steps {until}"));
        let (stopped, whole) = (Outcome::of(&place, &run), Outcome::of(&place, &whole));
        assert_eq!((stopped.log, stopped.files), (whole.log, whole.files), "{signal}");
    }
}

#[test]
fn forty_updates_are_twenty_and_twenty_and_where_a_call_stops_is_no_horizon() {
    let place = Place::new();
    let line = format!("train {IMAGES} --set train.steps=40");
    place.run(&format!("{line} --out whole"));
    place.run(&format!("{line} --out halves --steps 20"));
    let whole = place.text("whole/log.jsonl");
    let first: String = whole.split_inclusive('\n').take(20).collect();
    assert_eq!(place.text("halves/log.jsonl"), first);
    assert_eq!(place.names("halves/checkpoints"), ["step-18", "step-20"]);
    let rate = |line: usize| -> f64 {
        let record: serde_json::Value =
            serde_json::from_str(whole.lines().nth(line - 1).expect("a line")).expect("JSON");
        record["learning_rate"].as_f64().expect("a rate")
    };
    // Half a cosine from 1e-3 after the warm-up of 5 to 0 at 40; update n has made n − 1 before it.
    let expected = |n: usize| 1e-3 * (0.5 + 0.5 * (std::f64::consts::PI * (n as f64 - 6.0) / 35.0).cos());
    for n in [6, 20, 21, 40] {
        assert!((rate(n) - expected(n)).abs() < 1e-15, "update {n}: {} for {}", rate(n), expected(n));
    }

    place.run(&format!("{line} --out halves --resume"));
    assert_eq!(Outcome::of(&place, "halves"), Outcome::of(&place, "whole"));
}

#[test]
fn a_run_is_resumed_with_its_own_seed_and_settings() {
    let place = Place::new();
    place.run(&format!("train {IMAGES} --seed 3 --steps 6"));
    place.run("train digits --resume --steps 9");
    place.run(&format!("train {IMAGES} --seed 3 --steps 9"));
    assert_eq!(place.names("checkpoints"), ["00000-digits", "00001-digits"]);
    assert_eq!(
        Outcome::of(&place, "checkpoints/00000-digits"),
        Outcome::of(&place, "checkpoints/00001-digits")
    );
}

#[test]
fn a_run_of_samples_that_is_killed_goes_on_and_ends_the_same() {
    let place = Place::with_run();
    let line = "sample run --n 60 --sampler ddim --eta 0.5 --steps 3 --seed 4";
    place.run(&format!("{line} --batch 60 --out whole"));
    place.run_through_kills(&format!("{line} --batch 2 --out parts"), 4, |place| {
        place.text("parts/samples.partial.json").len()
    });
    assert_eq!(place.names("parts"), ["record.json", "samples.npz", "samples.png"]);
    for file in ["samples.npz", "samples.png"] {
        let bytes = |folder: &str| std::fs::read(place.path(&format!("{folder}/{file}"))).expect("a file");
        assert_eq!(bytes("parts"), bytes("whole"), "{file}");
    }
    // Other samples are not mixed in.
    place.write("mixed/samples.partial", "");
    place.write("mixed/samples.partial.json", r#"{"identity":"other","length":0,"rows":0,"nfe":[]}"#);
    let refused = place.call(&format!("{line} --out mixed"));
    assert_eq!(refused.code, Some(78), "{}", refused.stderr);
    assert!(refused.stderr.contains("something else"), "{}", refused.stderr);
}

#[test]
fn a_second_output_stands_on_another_run_and_keeps_its_own_copy() {
    let place = Place::with_run();
    let head = IMAGES.replacen("digits", "digits-npr", 1);
    let missing = place.call(&format!("train {head} --steps 3 --out head"));
    assert_eq!(missing.code, Some(78), "{}", missing.stderr);
    assert!(missing.stderr.contains("--set variance.base=RUN"), "{}", missing.stderr);
    let other =
        place.call(&format!("train {head} --set net.groups=8 --set variance.base=run --steps 3 --out head"));
    assert_eq!(other.code, Some(78), "{}", other.stderr);
    assert!(
        other.stderr.contains("[net]") && place.names("").iter().all(|name| name != "head"),
        "{}",
        other.stderr
    );

    place.run(&format!("train {head} --set variance.base=run --steps 3 --out head"));
    // What becomes of the base afterwards is its own affair.
    std::fs::rename(place.path("run"), place.path("elsewhere")).expect("a rename");
    place.run("train head --resume --steps 6");
    assert_eq!(place.names("head/checkpoints"), ["step-3", "step-6"]);
    // The samples of the mean are those of the base.
    for run in ["head", "elsewhere"] {
        place.run(&format!("sample {run} --n 2 --steps 3 --sampler ddim --out {run}.npy"));
    }
    let bytes = |name: &str| std::fs::read(place.path(name)).expect("samples");
    assert_eq!(bytes("head.npy"), bytes("elsewhere.npy"));
    std::fs::write(place.path("head/frozen.safetensors"), b"other").expect("a write");
    assert_eq!(place.call("sample head --n 2").code, Some(65));
}

#[test]
fn a_drift_and_a_score_killed_and_resumed_are_those_that_were_not() {
    const FLOW: &str = "two-spirals-diffflow --set train.steps=30 --set train.batch=32 --set train.checkpoint_every=5 \
                        --set train.log_every=1 --set train.sample_every=20 --set train.held_out.every=10";
    let place = Place::new();
    let begun = Instant::now();
    place.run(&format!("train {FLOW} --out whole"));
    let longest = begun.elapsed();
    for part in [2, 3] {
        let mut command = place.command(&format!("train {FLOW} --out killed-{part}"));
        let mut child =
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the runner starts");
        std::thread::sleep(longest * part / 4);
        // It may be done already; resuming then changes nothing.
        let _ = child.kill();
        child.wait().expect("an end");
        let there = place.path(&format!("killed-{part}/config.toml")).is_file();
        let resume = if there { "--resume" } else { "" };
        place.run(&format!("train {FLOW} --out killed-{part} {resume}"));
        let (killed, whole) = (Outcome::of(&place, &format!("killed-{part}")), Outcome::of(&place, "whole"));
        assert_eq!((killed.log, killed.files), (whole.log, whole.files));
    }
    let nll = place.run("eval-nll whole --n 20 --set sampler.rtol=1e-3 --set sampler.atol=1e-3");
    assert!(nll.stdout.contains("nats"), "{}", nll.stdout);
    place.run("eval-nll whole --n 20 --bound elbo --draws 2");
    place.run("sample whole --n 8 --lambda 0.5 --steps 5 --out drawn");
    place.run("paths whole --n 30");
    place.call("sample whole --sampler tab3").fails(64, &["tab3", "em"]);
}
