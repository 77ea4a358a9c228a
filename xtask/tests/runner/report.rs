//! The page of a run: everything that is there is on it, nothing comes from elsewhere, and no name breaks it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{POINTS, Place};

const HOSTILE: &str = r#"</title><script src="http://evil.example/x.js">alert('1')</script> & "{{style}}""#;

/// A run of made-up records with a name that would like to be more than a name.
fn made_up() -> Place {
    let place = Place::new();
    let name = Value::String(HOSTILE.into());
    place.write(
        "run/config.toml",
        format!("name = {name}\nabout = {name}\n[data]\nname = \"digits\"\n[net.time]\nstd = 0.3\n"),
    );
    place.write("run/provenance.json", json!({"code_revision": "abc123", "device": HOSTILE}).to_string());
    let line = |k: u32| json!({"step": 10 * k, "loss": 3.0 / f64::from(k), "gradient_norm": 2.0, "learning_rate": 1e-3, "held_out_loss": 2.5});
    place.write("run/log.jsonl", (1..9).map(|k| format!("{}\n", line(k))).collect::<String>());
    let nll = json!({
        "command": "eval-nll", "n": 12, "dim": 64, "bits_per_dim": 2.25, "stderr": 0.13, "nats": -32.0, "split": "test",
        "weights_sha256": "0123abcd", "preset": HOSTILE,
    });
    place.write("run/records/nll-test.json", nll.to_string());
    let csv = (0..12).map(|i| format!("{i},0,{}.5,60,finished\n", 20 + i)).collect::<String>();
    place.write("run/records/nll-test.csv", format!("index,repeat,log_density,nfe,outcome\n{csv}"));
    let estimate = |value: f64| json!({"value": value, "standard_error": 0.01, "n": 5});
    let row = |t: f64| {
        json!({
            "t": t, "clock": t.ln(), "loss": estimate(0.4321), "error": null, "residual_squared": estimate(0.3), "difference_error": 1e-4,
            "rate_squared": estimate(0.5), "relative_residual": 0.7777, "asymmetry": estimate(0.0654),
        })
    };
    let paths =
        json!({"energy": estimate(7.1), "straightness": estimate(3.2), "length_ratio": estimate(1.3)});
    let score = json!({"command": "eval-score", "times": [row(0.01), row(0.1), row(0.9)], "paths": paths});
    place.write("run/records/score.json", score.to_string());
    let cell = |nfe: u32, error: f64| json!({"nfe": nfe, "error": estimate(error), "sliced_w2_squared": estimate(0.2)});
    let samplers = json!({
        "command": "bench sampler", "points": 8, "starts": 4,
        "samplers": [{"sampler": "tab3", "cells": [cell(5, 0.2), cell(10, 0.04)]}, {"sampler": "<ddim>", "cells": [cell(5, 0.3), cell(10, 0.1)]}],
    });
    place.write("run/records/samplers.json", samplers.to_string());
    std::fs::create_dir_all(place.path("run/samples/tab3-10")).expect("a folder");
    let sheet = image::RgbImage::from_fn(16, 16, |x, y| image::Rgb([x as u8 * 15, y as u8 * 15, 90]));
    sheet.save(place.path("run/samples/tab3-10/samples.png")).expect("a picture");
    place.write(
        "run/samples/tab3-10/record.json",
        json!({"sampler": {"name": "tab3"}, "nfe": 11, "n": 64}).to_string(),
    );
    place
}

/// The tags of a page, each with its attributes; every element is closed, in order, and no id stands twice.
fn tags(html: &str) -> Vec<(String, Vec<(String, String)>)> {
    let (mut rest, mut open, mut found, mut ids) = (html, Vec::new(), Vec::new(), BTreeSet::new());
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        if rest.starts_with("!doctype") {
            continue;
        }
        let (mut end, mut quoted) = (0, false);
        for (i, c) in rest.char_indices() {
            quoted ^= c == '"';
            if c == '>' && !quoted {
                end = i;
                break;
            }
        }
        let tag = &rest[..end];
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "closed out of order");
            continue;
        }
        let alone = tag.ends_with('/');
        let tag = tag.trim_end_matches('/');
        let (name, mut inside) = tag.split_once(char::is_whitespace).unwrap_or((tag, ""));
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric()), "no tag: <{tag}>");
        let mut attributes = Vec::new();
        while let Some((key, after)) = inside.trim_start().split_once("=\"") {
            let (value, after) = after.split_once('"').expect("a quoted value");
            assert!(!value.contains('<'), "{key}=\"{value}\"");
            if key == "id" {
                assert!(ids.insert(value.to_owned()), "the id {value} stands twice");
            }
            attributes.push((key.to_owned(), value.to_owned()));
            inside = after;
        }
        assert_eq!(inside.trim(), "", "an attribute without quotes in <{tag}>");
        if !alone && !["meta", "img", "br"].contains(&name) {
            open.push(name.to_owned());
        }
        found.push((name.to_owned(), attributes));
        // What stands in a style sheet is no tag.
        if name == "style" {
            rest = &rest[rest.find("</style>").expect("the end of the style sheet")..];
        }
    }
    assert!(open.is_empty(), "never closed: {open:?}");
    found
}

/// That a page is well formed, and refers to nothing outside itself.
fn stands_alone(html: &str) {
    let tags = tags(html);
    let anchors: BTreeSet<&str> =
        tags.iter().flat_map(|(_, a)| a).filter(|(key, _)| key == "id").map(|(_, v)| v.as_str()).collect();
    for (name, attributes) in &tags {
        assert!(
            !["script", "link", "iframe", "object", "embed", "base", "form"].contains(&name.as_str()),
            "<{name}>"
        );
        for (key, value) in attributes {
            assert!(!key.starts_with("on"), "{name} {key}");
            match key.as_str() {
                "src" => assert!(value.starts_with("data:image/png;base64,"), "{name} {value}"),
                "href" => {
                    assert!(value.strip_prefix('#').is_some_and(|id| anchors.contains(id)), "{name} {value}")
                }
                "style" | "srcset" | "action" | "poster" | "background" => panic!("{name} {key}=\"{value}\""),
                _ => assert!(!value.contains("://"), "{name} {key}=\"{value}\""),
            }
        }
    }
    let style = html
        .split_once("<style>")
        .and_then(|(_, rest)| rest.split_once("</style>"))
        .expect("a style sheet")
        .0;
    for word in ["url(", "@import", "@font-face", "://"] {
        assert!(!style.contains(word), "{word} in the style sheet");
    }
}

#[test]
fn everything_is_on_the_page_and_nothing_comes_from_elsewhere() {
    let place = made_up();
    let record = place.record("report run");
    let sections = [
        "samples",
        "training",
        "likelihood",
        "score",
        "samplers",
        "numbers",
        "configuration",
        "provenance",
        "records",
    ];
    assert_eq!((&record["sections"], &record["missing"]), (&json!(sections), &json!([])));
    let html = place.text("run/report.html");
    assert_eq!(record["bytes"], html.len());
    stands_alone(&html);
    for section in sections {
        assert!(html.contains(&format!("<section id=\"{section}\">")), "{section}");
    }
    // Loss, gradients, learning rate; a histogram; loss, residual, asymmetry; samplers.
    assert_eq!(html.matches("<svg").count(), 8);
    let words = [
        "&lt;/title&gt;&lt;script src=&quot;http://evil.example/x.js&quot;&gt;alert(&#39;1&#39;)&lt;/script&gt; &amp; &quot;{{style}}&quot;",
        "2.25 ± 0.13",
        "held out",
        "tab3, 11 network calls, 64 samples",
        "n = 12",
        "0.432 ± 0.010",
        "0.7777",
        "0.065 ± 0.010",
        "7.100 ± 0.010",
        "&lt;ddim&gt;",
        "0.040 ± 0.010",
        "paths.straightness",
        "time.std",
        "abc123",
        "0123abcd",
        "nll-test.json",
        "score.json",
        "samplers.json",
        "bits_per_dim",
    ];
    for word in words {
        assert!(html.contains(word), "no {word}");
    }
    // Twelve examples in the bars of the histogram.
    assert!(html.contains("Negative log likelihood, nll-test"));
    // The same run has the same page.
    place.run("report run --out again.html");
    assert_eq!(place.text("again.html"), html);
}

#[test]
fn a_real_run_has_a_page_that_says_what_is_missing() {
    let place = Place::new();
    place.run(&format!("train {POINTS} --out run"));
    place.run("eval-score run --n 10 --count 3");
    let record = place.record("report run");
    let missing: Vec<&str> =
        record["missing"].as_array().expect("a list").iter().filter_map(|m| m["section"].as_str()).collect();
    assert_eq!(missing, ["samples", "likelihood", "samplers"]);
    let html = place.text("run/report.html");
    stands_alone(&html);
    assert!(html.contains("likelihood (<code>eval-nll</code>)") && !html.contains("id=\"likelihood\""));
    place.run("sample run --steps 3 --n 50");
    place.run(
        "bench sampler checkerboard --points 16 --starts 16 --nfe 5,10 --only ddim,tab2 --out bench.json",
    );
    let record = place.record("report run --bench bench.json --out page.html");
    assert_eq!(record["files"], json!(["page.html"]));
    let html = place.text("page.html");
    stands_alone(&html);
    assert!(html.contains("data:image/png;base64,") && html.contains("tab2"));
}

#[test]
fn what_is_no_run_or_no_record_is_refused() {
    let place = made_up();
    place.call("report nowhere").fails(64, &["nowhere", "no run"]);
    place.call("report").fails(64, &["no run"]);
    place.call("report run --bench run/records/score.json").fails(65, &["score.json", "bench sampler"]);
    place.call("report run --bench none.json").fails(74, &["none.json"]);
    place.write("run/records/fid.json", "[1, 2");
    place.call("report run").fails(65, &["fid.json"]);
}

fn browser() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let all = std::env::split_paths(&path).flat_map(|folder| names.map(|name| folder.join(name)));
    all.into_iter().find(|file| file.is_file())
}

/// In a browser, if there is one: the sections are there, and what would have been a script is text.
#[test]
#[expect(clippy::print_stderr, reason = "a test that is passed over says so")]
fn a_browser_opens_it() {
    let Some(browser) = browser() else {
        eprintln!("no chromium, chromium-browser or google-chrome on PATH: the page is not opened");
        return;
    };
    let place = made_up();
    place.run("report run");
    let page = format!("file://{}", place.path("run/report.html").display());
    let open = |options: &[&str]| {
        let profile = format!("--user-data-dir={}", place.path("profile").display());
        let mut command = Command::new(&browser);
        // Without a sandbox it also starts where it must not make one, as in a container.
        command
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", &profile])
            .args(options)
            .arg(&page);
        let output = command.output().expect("the browser starts");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{told}");
        (String::from_utf8_lossy(&output.stdout).into_owned(), told)
    };
    let (document, told) = open(&["--dump-dom", "--enable-logging=stderr"]);
    assert_eq!(document.matches("<section id=").count(), 9, "{told}");
    assert_eq!((document.matches("<svg").count(), document.matches("<script").count()), (8, 0));
    // The policy of the page forbids everything from elsewhere; nothing asked for it.
    assert!(!told.contains("CONSOLE"), "{told}");

    let picture = place.path("page.png");
    open(&[&format!("--screenshot={}", picture.display()), "--window-size=1000,2400"]);
    let seen = image::open(&picture).expect("a picture of the page").to_rgb8();
    let colours: BTreeSet<[u8; 3]> = seen.pixels().map(|p| p.0).collect();
    // Text, curves and the sheet: not an empty page, nor an error's.
    assert!(seen.width() == 1000 && colours.len() > 100, "{} colours", colours.len());
    let sheet = seen.pixels().filter(|p| p.0[2] == 90 && p.0[0] % 15 == 0 && p.0[1] % 15 == 0).count();
    assert!(sheet > 10_000, "{sheet} pixels of the sheet");
}
