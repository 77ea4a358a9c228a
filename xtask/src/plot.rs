//! Curves as SVG: the loss of a run, the errors of samplers, and charts of whatever.

mod chart;

pub use chart::{Axis, Chart, Mark, Series};

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

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
    let failed = |e: DrawingAreaErrorKind<std::io::Error>| anyhow!("cannot draw {}: {e}", path.display());
    let all = || curves.iter().flat_map(|curve| &curve.points);
    let extent = |pick: fn(&(f64, f64)) -> f64| {
        all().map(pick).fold((f64::INFINITY, 0.0_f64), |(low, high), v| (low.min(v), high.max(v)))
    };
    let ((left, right), (low, high)) = (extent(|p| p.0), extent(|p| p.1));
    if right <= left || high <= 0.0 {
        return Err(anyhow!("cannot draw {}: there are no two points to join", path.display()));
    }
    let area = SVGBackend::new(path, (860, 520)).into_drawing_area();
    area.fill(&WHITE).map_err(failed)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(66)
        .build_cartesian_2d((left..right).log_scale(), (0.8 * low..1.25 * high).log_scale())
        .map_err(failed)?;
    chart
        .configure_mesh()
        .x_desc("network calls")
        .y_desc("root-mean-square error")
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| format!("{y:.0e}"))
        .light_line_style(WHITE)
        .draw()
        .map_err(failed)?;
    for (i, curve) in curves.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        chart
            .draw_series(LineSeries::new(curve.points.iter().copied(), colour.stroke_width(2)).point_size(3))
            .map_err(failed)?
            .label(curve.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerLeft)
        .border_style(BLACK.mix(0.2))
        .background_style(WHITE.mix(0.85))
        .draw()
        .map_err(failed)?;
    area.present().map_err(failed)
}
