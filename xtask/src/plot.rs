//! Curves as SVG: the loss of a run, the errors of samplers, and charts of whatever.

mod chart;
mod section;

pub use chart::{Axis, Chart, Mark, Series};
pub use section::{Panel, Place, Sections};

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::style::RGBColor;

/// One line of a log: the step, the training loss, the held-out loss if it was measured.
pub struct LossPoint {
    /// Updates made.
    pub step: f64,
    /// Mean training loss since the point before.
    pub train: f64,
    /// Held-out loss.
    pub held_out: Option<f64>,
    /// Norm of the gradients before clipping.
    pub gradient_norm: Option<f64>,
    /// The learning rate.
    pub learning_rate: Option<f64>,
}

/// Reads a run's log.
pub fn read_log(path: &Path) -> Result<Vec<LossPoint>> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| anyhow!(e).context(format!("cannot read {}", path.display())))?;
    let point = |line: &str| {
        let value: serde_json::Value = serde_json::from_str(line).ok()?;
        let number = |key: &str| value.get(key).and_then(serde_json::Value::as_f64);
        Some(LossPoint {
            step: number("step")?,
            train: number("loss")?,
            held_out: number("held_out_loss"),
            gradient_norm: number("gradient_norm"),
            learning_rate: number("learning_rate"),
        })
    };
    // A line torn by a crash is no point.
    Ok(text.lines().filter_map(point).collect())
}

/// Training and held-out loss against the step; none of an empty log. The scale leaves out the highest hundredth, so that a first spike
/// does not flatten the rest.
pub fn loss_chart(points: &[LossPoint], title: &str) -> Option<Chart> {
    let mut losses: Vec<f64> = points.iter().flat_map(|p| [Some(p.train), p.held_out]).flatten().collect();
    losses.sort_by(f64::total_cmp);
    let high = *losses.get(losses.len() * 99 / 100)?;
    let series = |name: &str, loss: &dyn Fn(&LossPoint) -> Option<f64>| {
        let points = points.iter().filter_map(|p| Some((p.step, loss(p)?.min(high), 0.0)));
        Series { name: name.into(), points: points.collect(), mark: Mark::Line }
    };
    let series = [series("training", &|p| Some(p.train)), series("held out", &|p| p.held_out)];
    Some(Chart {
        title: title.into(),
        x: Axis::linear("update"),
        y: Axis::linear("loss"),
        series: series.into_iter().filter(|series| !series.points.is_empty()).collect(),
    })
}

/// Draws training and held-out loss, if there are any.
pub fn loss_curve(points: &[LossPoint], title: &str, path: &Path) -> Result<()> {
    loss_chart(points, title).map_or(Ok(()), |chart| chart.save(path))
}

/// Colours that can be told apart on white.
pub const COLOURS: [RGBColor; 10] = [
    RGBColor(38, 84, 163),
    RGBColor(204, 84, 40),
    RGBColor(46, 125, 50),
    RGBColor(123, 31, 162),
    RGBColor(0, 131, 143),
    RGBColor(194, 24, 91),
    RGBColor(121, 85, 72),
    RGBColor(96, 125, 139),
    RGBColor(158, 140, 0),
    RGBColor(0, 0, 0),
];

/// A named curve.
pub struct Curve {
    /// Its name.
    pub name: &'static str,
    /// Points (x, y), both positive.
    pub points: Vec<(f64, f64)>,
}

/// Draws errors against network calls, both axes logarithmic.
pub fn error_curves(curves: &[Curve], title: &str, path: &Path) -> Result<()> {
    let series = |curve: &Curve| Series {
        name: curve.name.into(),
        points: curve.points.iter().map(|&(x, y)| (x, y, 0.0)).collect(),
        mark: Mark::Dots,
    };
    let (x, y) = (Axis::log("network calls"), Axis::log("root mean square error"));
    Chart { title: title.into(), x, y, series: curves.iter().map(series).collect() }.save(path)
}
