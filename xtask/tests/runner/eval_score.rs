//! Diagnostics of a score: what is exact has no defect, and a network has those of its weights.

use serde_json::Value;

use crate::support::{POINTS, Place, array};

const LAW: &str =
    r#"{"w": [0.3, 0.7], "mu": [[1, 0], [-1, 0]], "cov": [[[0.1, 0], [0, 0.1]], [[0.2, 0], [0, 0.1]]]}"#;

fn rows(record: &Value) -> &Vec<Value> {
    record["times"].as_array().expect("times")
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("no number: {value}"))
}

#[test]
fn an_exact_score_has_no_defect_under_any_process() {
    let place = Place::new();
    place.write("law.json", LAW);
    for process in ["vp", "subvp", "ve", "edm", "cosine", "linear", "ddpm"] {
        let line = format!("eval-score --oracle law.json --process {process} --n 20 --count 4");
        let record = place.record(&line);
        assert_eq!((rows(&record).len(), &record["directions"]), (4, &Value::from("axes")));
        for row in rows(&record) {
            assert!(number(&row["relative_residual"]) < 1e-6, "{process}: {row}");
            assert!(number(&row["asymmetry"]["value"]) < 1e-12, "{process}: {row}");
            assert!(number(&row["error"]["value"]) < 1e-20, "{process}: {row}");
        }
        assert_eq!(record["paths"]["unfinished"], 0, "{process}");
    }
}

#[test]
fn random_directions_are_unbiased_and_pictures_are_written_where_asked() {
    let place = Place::new();
    place.write("law.json", LAW);
    let line = "eval-score --oracle law.json --n 60 --count 3 --probes 2";
    let record = place.record(&format!("{line} --out found"));
    for row in rows(&record) {
        let squared = &row["residual_squared"];
        let bar = number(&squared["standard_error"]);
        // Of single Gaussians the trace is constant: then nothing but rounding is left.
        assert!(number(&squared["value"]).abs() < 4.0 * bar + 1e-12, "{row}");
        assert!(row["residual_norm"].is_null(), "a norm of an estimate is biased: {row}");
    }
    let names = place.names("found");
    for name in ["score.json", "score-loss.svg", "score-residual.svg", "score-error-2.png"] {
        assert!(names.iter().any(|found| found == name), "{name} is not in {names:?}");
    }
    assert_eq!(place.json("found/score.json"), record);
    // Nothing is written where nothing was asked for.
    place.run(line);
    assert_eq!(place.names("."), ["found", "law.json"]);
}

#[test]
fn a_run_on_a_known_law_is_told_its_error() {
    let place = Place::new();
    place.run(&format!("train {} --out run", POINTS.replace("checkerboard", "eight-modes")));
    let line = "eval-score run --n 40 --count 3";
    let record = place.record(line);
    for row in rows(&record) {
        let (loss, error) = (number(&row["loss"]["value"]), number(&row["error"]["value"]));
        assert!(error > 0.0 && error < loss + 1.0, "{row}");
        assert!(number(&row["relative_residual"]) > number(&row["asymmetry"]["standard_error"]), "{row}");
    }
    assert_eq!(record["error_maps"].as_array().map(Vec::len), Some(3));
    assert_eq!(place.json("run/records/score.json"), record);
    // The batch changes nothing but memory.
    let again = place.record(&format!("{line} --batch 7"));
    assert_eq!(rows(&again), rows(&record));
    // A law that is not the data's is further away.
    place.write("other.json", r#"{"mu": [3, 0], "cov": [[0.01, 0], [0, 0.01]]}"#);
    let other = place.record(&format!("{line} --law other.json"));
    assert!(number(&rows(&other)[1]["error"]["value"]) > number(&rows(&record)[1]["error"]["value"]));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let place = Place::new();
    place.write("law.json", LAW);
    place.write("line.json", r#"{"mu": [0], "cov": [[1]]}"#);
    place.put("times.npy", &array(&[2], [1.5, 0.5]));
    place
        .call("eval-score --oracle law.json --times times.npy")
        .fails(78, &["time of a residual", "0.00001 to 1"]);
    place.call("eval-score --oracle law.json --n 0").fails(64, &["1 or more"]);
    place.call("eval-score --oracle law.json --law line.json").fails(64, &["--law"]);
    place.call("eval-score").fails(64, &["no run"]);
    place.run(&format!("train {POINTS} --steps 1 --out run"));
    place.call("eval-score run --law line.json").fails(65, &["1 dimensions", "2"]);
    place.call("eval-score run --split half").fails(64, &["split", "train", "test"]);
    place.run(&format!("train {} --steps 1 --out spirals", POINTS.replace("checkerboard", "two-spirals")));
    let record = place.record("eval-score spirals --n 5 --count 2");
    assert!(rows(&record).iter().all(|row| row["error"].is_null()), "scores of spirals are not known");
    let record = place.record("eval-score run --n 5 --count 2");
    assert!(rows(&record).iter().all(|row| row["error"].is_object()), "those of a checkerboard are");
}
