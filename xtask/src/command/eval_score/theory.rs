//! What a score costs the likelihood of its flow, for the record and the table of `eval-score --theory`.

use anyhow::Result;
use sde_eval::score::{Known, Noised, Theory, TheoryGrid};
use serde_json::{Value, json};

use super::{EXACT, Settings};
use crate::exit::Failure;
use crate::figures::number;
use crate::table::Table;

/// Fine enough for three digits of a network's.
const GRID: TheoryGrid = TheoryGrid { panels: 4, path_steps: 40, places: 5 };

/// The terms between two times.
pub fn measure(points: &Noised<'_>, how: &Settings<'_>, ends: (f64, f64)) -> Result<Theory> {
    let Some(law) = how.law else {
        let text = "--theory compares with the exact score: name the law of the data by --law, or take a synthetic set of Gaussians or boxes";
        return Err(Failure::Usage(text.into()).into());
    };
    let shape = &points.data.dims()[1..];
    if shape.len() != 1 || shape[0] > EXACT {
        let text = format!(
            "--theory differentiates along all axes, of points in up to {EXACT} dimensions; found {shape:?}"
        );
        return Err(Failure::Usage(text).into());
    }
    let states = |t: f64| points.states(t);
    let known = Known { sde: points.sde, field: points.field, law, states: &states };
    Ok(known.theory(ends, GRID, how.steps)?)
}

/// The terms by name.
pub fn record(theory: &Theory) -> Value {
    json!({
        "kl": theory.divergence(),
        "kl_end": theory.end,
        "j_sm": theory.matching,
        "j_diff": theory.difference,
        "j_fisher": theory.fisher,
        "m_residual": theory.residual,
        "m_rate": theory.generator,
    })
}

/// The terms as a table.
pub fn text(theory: &Theory) -> String {
    let mut table = Table::new(&["KL(data, flow)", "KL(q_T, prior)", "J_SM", "J_Diff", "J_Fisher", "M", "m"]);
    let values = [theory.divergence(), theory.end, theory.matching, theory.difference, theory.fisher];
    table.row(values.into_iter().chain([theory.residual, theory.generator]).map(number));
    table.text()
}
