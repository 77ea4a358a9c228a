//! What `eval-score` prints: a row for each time, and the paths below.

use sde_eval::Estimate;

use super::{Found, Row};
use crate::command::eval_nll::estimate;

/// The whole of it.
pub fn text(found: &Found) -> String {
    let exact = found.rows.iter().any(|row| row.error.is_some());
    let mut head = vec!["t", "log ρ", "loss"];
    head.extend(exact.then_some("error"));
    head.extend(["residual", "of ∂s/∂t", "asymmetry"]);
    let mut lines: Vec<Vec<String>> = vec![head.into_iter().map(str::to_owned).collect()];
    lines.extend(found.rows.iter().map(|row| cells(row, exact)));
    let widths: Vec<usize> = (0..lines[0].len())
        .map(|c| lines.iter().map(|line| line[c].chars().count()).max().unwrap_or(0))
        .collect();
    let row = |line: &Vec<String>| {
        let padded = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:>width$}"));
        padded.collect::<Vec<_>>().join("  ")
    };
    let paths = &found.paths;
    let mut text = lines.iter().map(row).collect::<Vec<_>>().join("\n");
    text.push_str(&format!(
        "\nloss: E‖ε̂−ε‖²/D{}; residual: r.m.s. of the Fokker–Planck residual over D, and as a part of ∂s/∂t; asymmetry: ‖J−Jᵀ‖/‖J‖\n",
        if exact { ", error: what of it is the score's" } else { "" }
    ));
    text.push_str(&format!(
        "paths from t = {} to {}: energy {}, straightness {} ({:.1} % of it), length {} of the distance",
        number(paths.from),
        number(paths.to),
        estimate(&paths.energy),
        estimate(&paths.straightness),
        100.0 * paths.relative_straightness,
        estimate(&paths.length_ratio),
    ));
    if paths.unfinished > 0 {
        text.push_str(&format!("; {} not finished and left out", paths.unfinished));
    }
    text
}

fn cells(row: &Row, exact: bool) -> Vec<String> {
    let mut cells = vec![number(row.t), format!("{:.2}", row.clock), short(&row.loss.noise)];
    cells.extend(exact.then(|| row.error.map_or(String::new(), |e| short(&e.noise))));
    cells.push(number(row.residual.squared.value.max(0.0).sqrt()));
    cells.push(number(row.residual.relative()));
    cells.push(short(&row.asymmetry.ratio));
    cells
}

/// Four digits that matter.
fn number(value: f64) -> String {
    let size = value.abs();
    if size < 1e-15 {
        return "0".into();
    }
    if (1e-3..1e5).contains(&size) {
        let digits = (3 - size.max(1e-3).log10().floor() as i32).clamp(0, 6) as usize;
        format!("{value:.digits$}")
    } else {
        format!("{value:.3e}")
    }
}

/// A value with its error, as many digits as the error leaves.
fn short(value: &Estimate) -> String {
    match value.standard_error {
        _ if value.value.abs() < 1e-15 => "0".into(),
        Some(error) if error > 0.0 && (1e-4..1e4).contains(&value.value.abs()) => {
            let digits = (1 - error.log10().floor() as i32).clamp(0, 8) as usize;
            format!("{:.digits$} ± {error:.digits$}", value.value)
        }
        Some(error) if error > 0.0 => format!("{:.1e} ± {error:.0e}", value.value),
        _ => number(value.value),
    }
}
