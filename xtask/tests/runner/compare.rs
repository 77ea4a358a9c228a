//! Runs side by side: differences with their errors, and none where the measurements differ.

use serde_json::{Value, json};

use crate::support::{POINTS, Place};

/// A run's directory with these records, by what they hold.
fn put(place: &Place, run: &str, data: &str, records: &[(&str, Value)]) {
    place.write(&format!("{run}/config.toml"), format!("name = \"{run}\"\n[data]\nname = \"{data}\"\n"));
    for (name, record) in records {
        place.write(&format!("{run}/records/{name}.json"), record.to_string());
    }
}

fn nll(bits: f64, error: f64, split: &str, n: u32) -> Value {
    json!({
        "command": "eval-nll", "step": 10, "weights": "raw", "split": split, "n": n, "divergence": "exact",
        "bits_per_dim": bits, "stderr": error, "nats": 10.0 * bits, "nats_stderr": 10.0 * error,
    })
}

fn metric<'a>(record: &'a Value, name: &str) -> &'a Value {
    let all = record["metrics"].as_array().expect("metrics");
    all.iter().find(|row| row["metric"] == name).unwrap_or_else(|| panic!("no {name} in {record}"))
}

#[test]
fn differences_come_with_errors_and_probabilities() {
    let place = Place::new();
    put(
        &place,
        "a",
        "digits",
        &[("nll-test", nll(2.0, 0.03, "test", 100)), ("train", json!({"parameters": 7}))],
    );
    put(
        &place,
        "b",
        "digits",
        &[("nll-test", nll(2.1, 0.04, "test", 100)), ("train", json!({"parameters": 9}))],
    );
    let record = place.record("compare a b");
    let bits = metric(&record, "bits_per_dim");
    let found = &bits["differences"][0];
    let number = |key: &str| found[key].as_f64().expect("a number");
    assert!((number("difference") - 0.1).abs() < 1e-12 && (number("standard_error") - 0.05).abs() < 1e-12);
    // Two standard errors: 4.55 %.
    assert!((number("p") - 0.045_500_264).abs() < 1e-8 && (number("z") - 2.0).abs() < 1e-10);
    let parameters = &metric(&record, "parameters")["differences"][0];
    assert_eq!((&parameters["difference"], &parameters["p"]), (&json!(2.0), &Value::Null));

    let text = place.run("compare a b").stdout;
    assert!(text.contains("A  a (a, step 10, raw weights)"), "{text}");
    let line = text.lines().find(|line| line.starts_with("nll-test bits_per_dim")).expect("a line");
    for cell in ["2.000 ± 0.030", "2.100 ± 0.040", "+0.100 ± 0.050", "0.046 *"] {
        assert!(line.contains(cell), "no {cell} in {line}");
    }
    let markdown = place.run("compare a b --markdown").stdout;
    assert!(
        markdown
            .contains("| nll-test bits_per_dim | 2.000 ± 0.030 | 2.100 ± 0.040 | +0.100 ± 0.050 | 0.046 * |"),
        "{markdown}"
    );
}

/// Two runs that are far apart example by example in the same way: the spread of the examples is not that of the difference.
#[test]
fn the_same_examples_are_compared_one_by_one() {
    let place = Place::new();
    let spread = [-8.0, -4.0, 0.0, 4.0, 8.0];
    for (run, shift) in [("a", [0.0; 5]), ("b", [0.9, 1.0, 1.1, 1.0, 1.0])] {
        let each: Vec<f64> = spread.iter().zip(shift).map(|(s, d)| s + d).collect();
        let mut record = nll(0.0, 0.1, "test", 5);
        record["dim"] = json!(2);
        record["nats"] = json!(each.iter().sum::<f64>() / 5.0);
        record["nats_stderr"] = json!(8f64.sqrt());
        record["bits_per_dim"] = json!(each.iter().sum::<f64>() / 5.0 / (2.0 * std::f64::consts::LN_2));
        put(&place, run, "digits", &[("nll-test", record)]);
        let lines = each.iter().enumerate().map(|(i, v)| format!("{i},0,{},9,finished\n", -v));
        let text = lines.collect::<String>();
        place.write(
            &format!("{run}/records/nll-test.csv"),
            format!("index,repeat,log_density,nfe,outcome\n{text}"),
        );
    }
    let of = |name: &str| metric(&place.record("compare a b"), name)["differences"][0].clone();
    let (nats, bits) = (of("nats"), of("bits_per_dim"));
    let number = |value: &Value, key: &str| value[key].as_f64().expect("a number");
    // The differences 0.9, 1, 1.1, 1, 1 have the variance 0.005.
    assert!(
        (number(&nats, "standard_error") - 0.001f64.sqrt()).abs() < 1e-12 && nats["paired"] == true,
        "{nats}"
    );
    assert!((number(&nats, "z") - number(&bits, "z")).abs() < 1e-9, "{bits}");
    // Without the same examples the errors count as independent.
    place.write("b/records/nll-test.csv", "index,repeat,log_density,nfe,outcome\n0,0,1.0,9,finished\n");
    let nats = of("nats");
    assert!((number(&nats, "standard_error") - 4.0).abs() < 1e-12 && nats["paired"] == false, "{nats}");
}

#[test]
fn what_was_measured_differently_is_not_compared() {
    let place = Place::new();
    put(&place, "a", "digits", &[("nll-test", nll(2.0, 0.03, "test", 100))]);
    put(&place, "n", "digits", &[("nll-test", nll(2.1, 0.04, "test", 90))]);
    put(&place, "data", "mnist", &[("nll-test", nll(2.1, 0.04, "test", 100))]);
    put(
        &place,
        "other",
        "digits",
        &[("score", json!({"loss": {"value": 1.0, "standard_error": 0.1, "n": 3}}))],
    );
    let mut way = nll(2.1, 0.04, "test", 100);
    way["divergence"] = json!("rademacher");
    put(&place, "way", "digits", &[("nll-test", way)]);
    for (run, why) in
        [("n", "n 100 and 90"), ("data", "data digits and mnist"), ("way", "divergence exact and rademacher")]
    {
        let record = place.record(&format!("compare a {run}"));
        let found = &metric(&record, "bits_per_dim")["differences"][0];
        assert_eq!(found, &json!({"comparable": false, "why": why}), "{run}");
        let text = place.run(&format!("compare a {run}")).stdout;
        assert!(text.contains(&format!("nll-test of A and B not comparable: {why}")), "{text}");
    }
    // Three at once; what a run lacks is left open.
    let record = place.record("compare a n other");
    assert_eq!(metric(&record, "bits_per_dim")["differences"][1], Value::Null);
    assert_eq!(metric(&record, "bits_per_dim")["values"][2], Value::Null);
    assert_eq!(metric(&record, "loss")["values"][2]["n"], 3);
    assert_eq!(record["runs"].as_array().map(Vec::len), Some(3));
}

#[test]
fn real_records_are_understood() {
    let place = Place::new();
    for (run, seed) in [("one", 0), ("two", 1)] {
        place.run(&format!("train {POINTS} --seed {seed} --out {run}"));
        place.run(&format!("eval-score {run} --n 10 --count 3"));
    }
    let record = place.record("compare one two");
    for name in ["held_out_loss", "paths.energy"] {
        assert!(metric(&record, name)["differences"][0]["difference"].is_number(), "{record}");
    }
    let few = record["metrics"].as_array().map(Vec::len);
    let all = place.record("compare one two --all");
    assert!(all["metrics"].as_array().map(Vec::len) > few);
    let times = all["metrics"].as_array().expect("metrics").iter();
    assert_eq!(
        times.filter(|row| row["metric"].as_str().is_some_and(|m| m.ends_with(".asymmetry"))).count(),
        3
    );
    // A run and itself.
    let same = place.record("compare one one");
    let found = &metric(&same, "paths.energy")["differences"][0];
    assert_eq!((&found["difference"], &found["p"]), (&json!(0.0), &json!(1.0)));
}

#[test]
fn what_cannot_be_compared_is_an_error() {
    let place = Place::new();
    put(&place, "a", "digits", &[("nll-test", nll(2.0, 0.03, "test", 100))]);
    put(&place, "bare", "digits", &[]);
    put(&place, "torn", "digits", &[]);
    place.write("torn/records/nll-test.json", r#"{"nats": "#);
    place.call("compare a").fails(64, &["2"]);
    place.call("compare a nowhere").fails(64, &["nowhere", "no run"]);
    place.call("compare a bare").fails(64, &["bare", "nothing was measured"]);
    place.call("compare a torn").fails(65, &["nll-test.json", "EOF"]);
}
