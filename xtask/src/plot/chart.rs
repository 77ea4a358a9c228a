//! A chart of lines or bars with linear or logarithmic axes, as SVG: on white in a file, in the colours around it in a page.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::prelude::*;

use super::COLOURS;

/// Of a file, and of a page, where it is one of two beside each other.
const SIZE: (u32, u32) = (760, 420);
const IN_PAGE: (u32, u32) = (560, 330);

/// An axis.
#[derive(Debug, Clone)]
pub struct Axis {
    /// What is along it.
    pub label: String,
    /// Whether it is logarithmic; what is not positive is then not drawn.
    pub log: bool,
}

impl Axis {
    /// A linear axis.
    pub fn linear(label: &str) -> Self {
        Self { label: label.into(), log: false }
    }

    /// A logarithmic axis.
    pub fn log(label: &str) -> Self {
        Self { label: label.into(), log: true }
    }

    fn place(&self, value: f64) -> Option<f64> {
        let place = if self.log { value.log10() } else { value };
        place.is_finite().then_some(place)
    }

    /// The number at a place.
    fn text(&self, place: f64) -> String {
        let value = if self.log { 10f64.powf(place) } else { place };
        let size = value.abs();
        if size != 0.0 && !(1e-3..1e5).contains(&size) {
            return format!("{value:.0e}");
        }
        if size == 0.0 {
            return "0".into();
        }
        // Three digits that matter, and no zeros behind them.
        let digits = (2 - size.log10().floor() as i32).clamp(0, 6) as usize;
        let text = format!("{value:.digits$}");
        if digits == 0 { text } else { text.trim_end_matches('0').trim_end_matches('.').to_owned() }
    }

    /// The scale for these places.
    fn scale(&self, places: impl Iterator<Item = f64> + Clone, margin: f64) -> Option<Scale> {
        let low = places.clone().fold(f64::INFINITY, f64::min);
        let high = places.fold(f64::NEG_INFINITY, f64::max);
        if low > high {
            return None;
        }
        let reach = (high - low).max(1e-9 * high.abs()).max(1e-12);
        let (low, high) = (low - margin * reach, high + margin * reach);
        Some(Scale { axis: self.clone(), low, high, ticks: self.ticks(low, high) })
    }

    fn ticks(&self, low: f64, high: f64) -> Vec<f64> {
        if !self.log {
            let raw = (high - low) / 6.0;
            let power = 10f64.powf(raw.log10().floor());
            let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|s| *s >= raw);
            let step = step.unwrap_or(raw);
            let first = (low / step).ceil() as i64;
            return (first..first + 12).map(|k| k as f64 * step).take_while(|v| *v <= high).collect();
        }
        let decades = high - low;
        let within: &[f64] = match decades {
            d if d < 1.2 => &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0],
            d if d < 2.5 => &[1.0, 2.0, 5.0],
            _ => &[1.0],
        };
        let stride = (decades / 8.0).ceil().max(1.0) as usize;
        let all = (low.floor() as i32..=high.ceil() as i32).step_by(stride);
        all.flat_map(|d| within.iter().map(move |m| f64::from(d) + m.log10()))
            .filter(|v| (low..=high).contains(v))
            .collect()
    }
}

/// An axis with its ends and ticks.
struct Scale {
    axis: Axis,
    low: f64,
    high: f64,
    ticks: Vec<f64>,
}

impl Ranged for Scale {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, place: &f64, (from, to): (i32, i32)) -> i32 {
        let part = (place - self.low) / (self.high - self.low);
        from + (part * f64::from(to - from)).round() as i32
    }

    fn key_points<H: KeyPointHint>(&self, _: H) -> Vec<f64> {
        self.ticks.clone()
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.low..self.high
    }
}

impl ValueFormatter<f64> for Scale {
    fn format(place: &f64) -> String {
        place.to_string()
    }

    fn format_ext(&self, place: &f64) -> String {
        self.axis.text(*place)
    }
}

/// What is drawn of a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// A line.
    Line,
    /// A line with dots at its points, and error bars where there are any.
    Dots,
    /// Bars as wide as their distance, from 0 up.
    Bars,
}

/// A named series.
#[derive(Debug, Clone)]
pub struct Series {
    /// Its name; a single series without one has no legend.
    pub name: String,
    /// x, y, and the standard error of y or 0.
    pub points: Vec<(f64, f64, f64)>,
    /// How it is drawn.
    pub mark: Mark,
}

/// A chart.
#[derive(Debug, Clone)]
pub struct Chart {
    /// The title.
    pub title: String,
    /// To the right.
    pub x: Axis,
    /// Upwards.
    pub y: Axis,
    /// What is drawn.
    pub series: Vec<Series>,
}

impl Chart {
    /// Writes the chart on white.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut text = String::new();
        self.draw(&mut text, SIZE, Some(WHITE))?;
        crate::output::write(path, text.as_bytes())
    }

    /// The chart for inside a page: on nothing, of any width, black being the colour of the text around it, without title and
    /// legend.
    pub fn themed(&self) -> Result<String> {
        let mut text = String::new();
        Self { title: String::new(), ..self.clone() }.draw(&mut text, IN_PAGE, None)?;
        let size = format!("<svg width=\"{}\" height=\"{}\" ", IN_PAGE.0, IN_PAGE.1);
        let text = text.replacen(&size, "<svg role=\"img\" ", 1);
        let text = text.replace(" xmlns=\"http://www.w3.org/2000/svg\"", "");
        Ok(text.replace("\"#000000\"", "\"currentColor\""))
    }

    /// Whether there is anything to draw.
    pub fn is_empty(&self) -> bool {
        !self.series.iter().any(|series| self.places(series).count() > 0)
    }

    /// The points of a series that can be drawn, with the ends of their error bars.
    fn places<'a>(&'a self, series: &'a Series) -> impl Iterator<Item = (f64, f64, [f64; 2])> + Clone + 'a {
        series.points.iter().filter_map(|&(x, y, e)| {
            let (x, y) = (self.x.place(x)?, self.y.place(y)?);
            let raw = if self.y.log { 10f64.powf(y) } else { y };
            let end = |value: f64| self.y.place(value).unwrap_or(y);
            Some((x, y, [end(raw - e), end(raw + e)]))
        })
    }

    fn draw(&self, into: &mut String, size: (u32, u32), ground: Option<RGBColor>) -> Result<()> {
        let failed = |e: &dyn std::fmt::Display| anyhow!("cannot draw \"{}\": {e}", self.title);
        let all = || self.series.iter().flat_map(|series| self.places(series));
        let bars = self.series.iter().any(|series| series.mark == Mark::Bars);
        let ys: Vec<f64> = all().flat_map(|(_, _, ends)| ends).chain(bars.then_some(0.0)).collect();
        let xs: Vec<f64> = all().map(|(x, ..)| x).collect();
        let (Some(x), Some(y)) =
            (self.x.scale(xs.iter().copied(), 0.03), self.y.scale(ys.iter().copied(), 0.05))
        else {
            return Err(failed(&"there is nothing to draw"));
        };
        let area = SVGBackend::with_string(into, size).into_drawing_area();
        if let Some(colour) = ground {
            area.fill(&colour).map_err(|e| failed(&e))?;
        }
        let mut builder = ChartBuilder::on(&area);
        builder.margin(10).x_label_area_size(42).y_label_area_size(66);
        if !self.title.is_empty() {
            builder.caption(&self.title, ("sans-serif", 18));
        }
        let mut chart = builder.build_cartesian_2d(x, y).map_err(|e| failed(&e))?;
        chart
            .configure_mesh()
            .x_desc(&self.x.label)
            .y_desc(&self.y.label)
            .bold_line_style(RGBColor(128, 128, 128).mix(0.25))
            .light_line_style(TRANSPARENT)
            .axis_style(RGBColor(128, 128, 128))
            .label_style(("sans-serif", 15))
            .axis_desc_style(("sans-serif", 15))
            .draw()
            .map_err(|e| failed(&e))?;
        for (i, series) in self.series.iter().enumerate() {
            let colour = COLOURS[i % COLOURS.len()];
            let points: Vec<_> = self.places(series).collect();
            if series.mark == Mark::Bars {
                let width = points.windows(2).map(|w| w[1].0 - w[0].0).fold(f64::INFINITY, f64::min);
                let half = 0.47 * if width.is_finite() { width } else { 1.0 };
                let bars = points.iter().map(|&(x, y, _)| {
                    Rectangle::new([(x - half, 0.0), (x + half, y)], colour.mix(0.8).filled())
                });
                chart.draw_series(bars).map_err(|e| failed(&e))?;
                continue;
            }
            let line = LineSeries::new(points.iter().map(|&(x, y, _)| (x, y)), colour.stroke_width(2));
            let dot = if series.mark == Mark::Dots { 3 } else { 0 };
            let drawn = chart.draw_series(line.point_size(dot)).map_err(|e| failed(&e))?;
            if self.series.len() > 1 || !series.name.is_empty() {
                drawn
                    .label(&series.name)
                    .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
            }
            let bars = points.iter().filter(|(_, _, ends)| ends[1] > ends[0]);
            let bars = bars.map(|&(x, _, [low, high])| PathElement::new([(x, low), (x, high)], colour));
            chart.draw_series(bars).map_err(|e| failed(&e))?;
        }
        let named = self.series.len() > 1 || self.series.iter().any(|series| !series.name.is_empty());
        // A page has its own legend.
        if named && ground.is_some() {
            chart
                .configure_series_labels()
                .position(emptiest(&all().map(|(x, y, _)| (x, y)).collect::<Vec<_>>()))
                .border_style(RGBColor(128, 128, 128).mix(0.4))
                .label_font(("sans-serif", 14))
                .draw()
                .map_err(|e| failed(&e))?;
        }
        area.present().map_err(|e| failed(&e))
    }
}

/// The corner that points stay away from most.
fn emptiest(points: &[(f64, f64)]) -> SeriesLabelPosition {
    use SeriesLabelPosition::{LowerLeft, LowerRight, UpperLeft, UpperRight};
    let ends = |pick: fn(&(f64, f64)) -> f64| {
        let values = points.iter().map(pick);
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        (low, (high - low).max(f64::MIN_POSITIVE))
    };
    let ((left, width), (bottom, height)) = (ends(|p| p.0), ends(|p| p.1));
    // A legend is wider than it is high.
    let room = |x: f64, y: f64| {
        let far = |p: &(f64, f64)| f64::hypot(((p.0 - left) / width - x) * 0.6, (p.1 - bottom) / height - y);
        points.iter().map(far).fold(f64::INFINITY, f64::min)
    };
    let corners =
        [(UpperRight, 1.0, 1.0), (UpperLeft, 0.0, 1.0), (LowerLeft, 0.0, 0.0), (LowerRight, 1.0, 0.0)];
    let rooms = corners.into_iter().map(|(corner, x, y)| (room(x, y), corner));
    // Of equals the first.
    rooms
        .reduce(|best, next| if next.0 > best.0 { next } else { best })
        .map_or(UpperRight, |(_, corner)| corner)
}
