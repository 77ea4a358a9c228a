//! The pictures of `eval-score`: curves against time, and of the plane where the score is wrong.

use std::path::{Path, PathBuf};

use anyhow::Result;
use candle_core::DType;
use sde_data::Picture;
use sde_eval::Window;
use sde_eval::score::{ErrorMap, KnownLaw, Noised};
use serde_json::{Value, json};

use super::Row;
use crate::files::make_folder;
use crate::plot::{Axis, Chart, Mark, Series};

/// Cells along a side of an error map.
const CELLS: usize = 120;
/// Half its side, in root mean squares of the noised points.
const REACH: f64 = 2.5;
/// Where the law has less than this part of its largest density nothing is drawn: there no state comes by.
const DENSE: f64 = 1e-4;
/// Cells in work together.
const BATCH: usize = 2400;

/// Writes the curves, those that have something to show.
pub fn save(rows: &[Row], folder: &Path) -> Result<Vec<PathBuf>> {
    make_folder(folder)?;
    let of = |f: &dyn Fn(&Row) -> (f64, f64)| {
        rows.iter().map(|row| (row.t, f(row).0, f(row).1)).collect::<Vec<_>>()
    };
    let bar = |estimate: sde_eval::Estimate| (estimate.value, estimate.standard_error.unwrap_or(0.0));
    let series = |name: &str, points| Series { name: name.into(), points, mark: Mark::Dots };
    let mut loss = vec![series("loss", of(&|row| bar(row.loss.noise)))];
    if rows.iter().all(|row| row.error.is_some()) {
        let error = of(&|row| row.error.map_or((f64::NAN, 0.0), |e| bar(e.noise)));
        loss.push(series("error of the score", error));
    }
    let residual = vec![
        series("residual", of(&|row| (row.residual.squared.value.max(0.0).sqrt(), 0.0))),
        series("∂s/∂t", of(&|row| (row.residual.rate_squared.value.sqrt(), 0.0))),
        series("bound of the differences' error", of(&|row| (row.residual.difference_error, 0.0))),
    ];
    let asymmetry = vec![series("", of(&|row| bar(row.asymmetry.ratio)))];
    let charts = [
        ("score-loss.svg", "Denoising loss", "E‖ε̂ − ε‖² / D", loss),
        ("score-residual.svg", "Fokker–Planck residual", "root mean square / D", residual),
        ("score-asymmetry.svg", "Asymmetry of the Jacobian", "‖J − Jᵀ‖ / ‖J‖", asymmetry),
    ];
    let mut files = Vec::new();
    for (name, title, label, series) in charts {
        let chart = Chart { title: title.into(), x: Axis::log("t"), y: Axis::log(label), series };
        if !chart.is_empty() {
            chart.save(&folder.join(name))?;
            files.push(folder.join(name));
        }
    }
    Ok(files)
}

/// Draws where the score is wrong at three times, and says how wrong it is.
pub fn error_maps(
    points: &Noised<'_>,
    law: &dyn KnownLaw,
    times: &[f64],
    folder: &Path,
) -> Result<(Vec<PathBuf>, Value)> {
    let (mut files, mut told) = (Vec::new(), Vec::new());
    let square = points.data.to_dtype(DType::F64)?.sqr()?.mean_all()?.to_scalar::<f64>()?;
    for (k, quarter) in [1, 2, 3].into_iter().enumerate() {
        let Some(&t) = times.get((times.len() - 1) * quarter / 4) else { continue };
        let (signal, noise) = (points.sde.signal(t), points.sde.covariance(t));
        let variance = signal.max_abs().powi(2) * square + noise.max_abs();
        let side = [-REACH * variance.sqrt(), REACH * variance.sqrt()];
        let window = Window { x: side, y: side, nx: CELLS, ny: CELLS };
        let map = ErrorMap::new(points.sde, points.field, law, &window, t, BATCH)?;
        let path = folder.join(format!("score-error-{}.png", k + 1));
        let least = DENSE * map.density.iter().copied().fold(0.0, f64::max);
        let mut seen = map.values.clone();
        seen.zip_mut_with(&map.density, |error, &p| *error = if p < least { 0.0 } else { *error });
        Picture::map(seen.view(), 3)?.save(&path)?;
        let largest = seen.iter().copied().fold(0.0, f64::max);
        told.push(json!({
            "t": t, "side": side[1], "rms": map.root_mean_square(), "largest": largest, "mass": map.mass(),
            "picture": path.display().to_string(),
        }));
        files.push(path);
    }
    Ok((files, Value::Array(told)))
}
