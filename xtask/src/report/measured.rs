//! What was measured, as charts: the course of the training, the likelihood of each example, the score against time.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::html::{chart, note, table};
use super::told::figure_of;
use crate::figures::{number, with_error};
use crate::plot::{Axis, Chart, Mark, Series, loss_chart, read_log};
use crate::records::{Records, per_example};

/// Bars of a histogram at most.
const BARS: usize = 40;

fn charts(figures: &str) -> String {
    if figures.is_empty() { String::new() } else { format!("<div class=\"charts\">\n{figures}</div>\n") }
}

/// Loss, norm of the gradients and learning rate.
pub fn training(run: &Records) -> Result<String> {
    let log = run.path.join("log.jsonl");
    if !log.is_file() {
        return Ok(String::new());
    }
    let points = read_log(&log)?;
    let Some(loss) = loss_chart(&points, "Loss") else { return Ok(String::new()) };
    let mut figures = chart(&loss, "the highest hundredth is cut off")?;
    let line = |title: &str, y: Axis, of: fn(&crate::plot::LossPoint) -> Option<f64>| Chart {
        title: title.into(),
        x: Axis::linear("update"),
        y,
        series: vec![Series {
            name: String::new(),
            points: points.iter().filter_map(|p| Some((p.step, of(p)?, 0.0))).collect(),
            mark: Mark::Line,
        }],
    };
    figures.push_str(&chart(
        &line("Norm of the gradients", Axis::log("before clipping"), |p| p.gradient_norm),
        "",
    )?);
    figures.push_str(&chart(&line("Learning rate", Axis::linear("learning rate"), |p| p.learning_rate), "")?);
    Ok(charts(&figures))
}

/// A histogram of examples for each record of likelihoods that has its csv, and the density in the plane.
pub fn likelihood(run: &Records) -> Result<String> {
    let (mut figures, mut html) = (String::new(), String::new());
    for (name, record) in run.all.iter().filter(|(name, _)| name.starts_with("nll")) {
        let file = run.path.join("records").join(format!("{name}.csv"));
        if file.is_file() {
            figures.push_str(&histogram(&file, name, record)?);
        }
        let of = |key: &str| {
            record.get(key).map_or("–".into(), |v| v.as_str().map_or(v.to_string(), str::to_owned))
        };
        html.push_str(&note(&format!(
            "{name}: n = {}, divergence {}, {} probes, {} repeats, prior {}, {} unfinished",
            of("n"),
            of("divergence"),
            of("probes"),
            of("repeats"),
            of("prior"),
            of("unfinished"),
        )));
    }
    let density = run.path.join("records/density.png");
    if density.is_file() {
        let figure = figure_of(&density, "Density of the model in the plane", "")?;
        html = format!("<div class=\"pictures\">{figure}</div>\n{html}");
    }
    Ok(charts(&figures) + &html)
}

/// How many examples have which negative log likelihood.
fn histogram(file: &Path, name: &str, record: &Value) -> Result<String> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let of = |key: &str| record.get(key).and_then(Value::as_f64);
    // The same affine map that made bits/dim of the mean makes them of each.
    let dim = of("dim").unwrap_or(1.0);
    let scale = 1.0 / (dim * std::f64::consts::LN_2);
    let either = |key: &str| of(key).or_else(|| of(&format!("bound_{key}")));
    let bits = either("bits_per_dim").zip(either("nats")).map(|(bits, nats)| bits - nats * scale);
    let values: Vec<f64> = per_example(&text)
        .into_values()
        .map(|nats| bits.map_or(nats, |offset| nats * scale + offset))
        .collect();
    let unit = if bits.is_some() { "bits/dim" } else { "nats" };
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if values.is_empty() || high <= low {
        return Ok(String::new());
    }
    let bars = ((2.0 * (values.len() as f64).sqrt()).ceil() as usize).clamp(4, BARS);
    let width = (high - low) / bars as f64;
    let mut counts = vec![0.0; bars];
    for value in &values {
        counts[(((value - low) / width) as usize).min(bars - 1)] += 1.0;
    }
    let places = counts.iter().enumerate().map(|(i, &count)| (low + (i as f64 + 0.5) * width, count, 0.0));
    let drawn = Chart {
        title: format!("Negative log likelihood, {name}"),
        x: Axis::linear(unit),
        y: Axis::linear("examples"),
        series: vec![Series { name: String::new(), points: places.collect(), mark: Mark::Bars }],
    };
    let mean = either("bits_per_dim").or(either("nats")).map_or(String::new(), |mean| {
        format!("mean {} {unit}, n = {}", with_error(mean, of("stderr")), values.len())
    });
    chart(&drawn, &mean)
}

/// Loss, residual and asymmetry of the score against time, and where in the plane it is wrong.
pub fn score(run: &Records) -> Result<String> {
    let Some(record) = run.all.get("score") else { return Ok(String::new()) };
    let rows: Vec<&Value> = record.get("times").and_then(Value::as_array).into_iter().flatten().collect();
    let number_at = |row: &Value, path: &str| row.pointer(path).and_then(Value::as_f64);
    let series = |name: &str, value: &dyn Fn(&Value) -> Option<(f64, f64)>| {
        let points = rows.iter().filter_map(|row| {
            let (y, error) = value(row)?;
            Some((number_at(row, "/t")?, y, error))
        });
        Series { name: name.into(), points: points.collect(), mark: Mark::Dots }
    };
    let estimate = |key: &'static str| {
        move |row: &Value| {
            let of = |part: &str| row.get(key)?.get(part)?.as_f64();
            Some((of("value")?, of("standard_error").unwrap_or(0.0)))
        }
    };
    let root = |key: &'static str| {
        move |row: &Value| Some((row.get(key)?.get("value")?.as_f64()?.max(0.0).sqrt(), 0.0))
    };
    let bare = |row: &Value| Some((row.get("difference_error")?.as_f64()?, 0.0));
    let kinds = [
        (
            "Denoising loss",
            "E‖ε̂ − ε‖² / D",
            vec![series("loss", &estimate("loss")), series("error of the score", &estimate("error"))],
        ),
        (
            "Fokker–Planck residual",
            "root mean square / D",
            vec![
                series("residual", &root("residual_squared")),
                series("∂s/∂t", &root("rate_squared")),
                series("bound of the differences' error", &bare),
            ],
        ),
        ("Asymmetry of the Jacobian", "‖J − Jᵀ‖ / ‖J‖", vec![series("", &estimate("asymmetry"))]),
    ];
    let mut figures = String::new();
    for (title, label, mut series) in kinds {
        series.retain(|series| !series.points.is_empty());
        let drawn = Chart { title: title.into(), x: Axis::log("t"), y: Axis::log(label), series };
        figures.push_str(&chart(&drawn, "")?);
    }
    let mut html = charts(&figures);
    html.push_str(&score_table(&rows));
    if let Some(paths) = record.get("paths") {
        html.push_str(&note(&paths_text(paths)));
    }
    html.push_str(&error_maps(run, record)?);
    Ok(html)
}

fn score_table(rows: &[&Value]) -> String {
    let estimate = |row: &Value, key: &str| {
        let of = |part: &str| row.get(key)?.get(part)?.as_f64();
        of("value").map_or("–".into(), |value| with_error(value, of("standard_error")))
    };
    let bare = |row: &Value, key: &str| row.get(key).and_then(Value::as_f64).map_or("–".into(), number);
    let known = rows.iter().any(|row| row.get("error").is_some_and(Value::is_object));
    let cells = |row: &&Value| {
        let mut cells = vec![bare(row, "t"), bare(row, "clock"), estimate(row, "loss")];
        cells.extend(known.then(|| estimate(row, "error")));
        cells.extend([bare(row, "relative_residual"), estimate(row, "asymmetry")]);
        cells
    };
    let mut head = vec!["t", "log ρ", "loss"];
    head.extend(known.then_some("error of the score"));
    head.extend(["residual / ∂s/∂t", "asymmetry"]);
    table(&head, &rows.iter().map(cells).collect::<Vec<_>>())
}

fn paths_text(paths: &Value) -> String {
    let of = |key: &str| {
        let part = |part: &str| paths.get(key)?.get(part)?.as_f64();
        part("value").map_or("–".into(), |value| with_error(value, part("standard_error")))
    };
    format!(
        "Paths of the probability flow: energy {}, straightness {}, length over distance {}",
        of("energy"),
        of("straightness"),
        of("length_ratio")
    )
}

fn error_maps(run: &Records, record: &Value) -> Result<String> {
    let mut figures = String::new();
    for map in record.get("error_maps").and_then(Value::as_array).into_iter().flatten() {
        let of = |key: &str| map.get(key).and_then(Value::as_f64).map_or("–".into(), number);
        let name = map.get("picture").and_then(Value::as_str).and_then(|path| Path::new(path).file_name());
        let path = name.map(|name| run.path.join("records").join(name)).filter(|path| path.is_file());
        if let Some(path) = path {
            let words = format!("root mean square {}, largest {}", of("rms"), of("largest"));
            figures.push_str(&figure_of(&path, &format!("Error ‖ε̂ − ε‖ at t = {}", of("t")), &words)?);
        }
    }
    Ok(if figures.is_empty() { figures } else { format!("<div class=\"pictures\">\n{figures}</div>\n") })
}
