//! What `eval-score` prints: a row for each time, and the paths below.

use super::{Found, Row};
use crate::figures::{number, short};
use crate::table::Table;

/// The whole of it.
pub fn text(found: &Found) -> String {
    let exact = found.rows.iter().any(|row| row.error.is_some());
    let mut head = vec!["t", "log ρ", "loss"];
    head.extend(exact.then_some("error"));
    head.extend(["residual", "of ∂s/∂t", "asymmetry"]);
    let mut table = Table::new(&head);
    found.rows.iter().for_each(|row| table.row(cells(row, exact)));
    let paths = &found.paths;
    let mut text = table.text();
    text.push_str(&format!(
        "\nloss: E‖ε̂−ε‖²/D{}; residual: r.m.s. of the Fokker–Planck residual over D, and as a part of ∂s/∂t; asymmetry: ‖J−Jᵀ‖/‖J‖\n",
        if exact { ", error: what of it is the score's" } else { "" }
    ));
    text.push_str(&format!(
        "paths from t = {} to {}: energy {}, straightness {} ({:.1} % of it), length {} of the distance",
        number(paths.from),
        number(paths.to),
        short(&paths.energy),
        short(&paths.straightness),
        100.0 * paths.relative_straightness,
        short(&paths.length_ratio),
    ));
    if paths.unfinished > 0 {
        text.push_str(&format!("; {} not finished and left out", paths.unfinished));
    }
    if let Some(theory) = &found.theory {
        text.push_str("\n\n");
        text.push_str(&super::theory::text(theory));
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
