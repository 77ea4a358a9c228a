//! Panels of a plane that cuts through a space of states: paths, arrows of a field, points.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;

use super::COLOURS;

/// Side of a panel, and the space around it, in pixels.
const SIDE: f64 = 230.0;
const GAP: f64 = 34.0;
/// Panels in a row.
const COLUMNS: usize = 4;

/// A point of the plane.
pub type Place = [f64; 2];

/// What one panel shows.
#[derive(Debug, Clone, Default)]
pub struct Panel {
    /// Above it.
    pub title: String,
    /// Points that are there for comparison.
    pub faint: Vec<Place>,
    /// Arrows from a place along a vector; the longest of the panel, but for a tenth, are as long as half the distance between neighbours.
    pub arrows: Vec<(Place, Place)>,
    /// Lines, each with its last point marked.
    pub paths: Vec<Vec<Place>>,
    /// Points.
    pub dots: Vec<Place>,
}

/// Panels of one window.
#[derive(Debug, Clone)]
pub struct Sections {
    /// Above all.
    pub title: String,
    /// What is to the right and upwards.
    pub axes: [String; 2],
    /// The lower left and the upper right corner.
    pub window: [Place; 2],
    /// From left to right, row by row.
    pub panels: Vec<Panel>,
}

impl Sections {
    /// Writes the picture as SVG, on white.
    pub fn save(&self, path: &Path) -> Result<()> {
        crate::output::write(path, self.svg().as_bytes())
    }

    fn svg(&self) -> String {
        let columns = self.panels.len().clamp(1, COLUMNS);
        let rows = self.panels.len().div_ceil(COLUMNS);
        let width = GAP + columns as f64 * (SIDE + GAP);
        let height = 2.0 * GAP + rows as f64 * (SIDE + GAP + 14.0);
        let mut text = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
             font-family=\"sans-serif\" font-size=\"12\" fill=\"#222\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
        );
        let _ = writeln!(text, "<text x=\"{GAP}\" y=\"22\" font-size=\"15\">{}</text>", escaped(&self.title));
        for (i, panel) in self.panels.iter().enumerate() {
            let left = GAP + (i % COLUMNS) as f64 * (SIDE + GAP);
            let top = 1.6 * GAP + (i / COLUMNS) as f64 * (SIDE + GAP + 14.0);
            let _ = writeln!(text, "<svg x=\"{left}\" y=\"{top}\" width=\"{SIDE}\" height=\"{SIDE}\">");
            self.panel(&mut text, panel);
            text.push_str("</svg>\n");
            let _ = writeln!(text, "<text x=\"{left}\" y=\"{}\">{}</text>", top - 5.0, escaped(&panel.title));
            self.frame(&mut text, left, top);
        }
        text.push_str("</svg>\n");
        text
    }

    /// The box, the window's corners and the names of the axes.
    fn frame(&self, text: &mut String, left: f64, top: f64) {
        let [[x0, y0], [x1, y1]] = self.window;
        let bottom = top + SIDE;
        let _ = writeln!(
            text,
            "<rect x=\"{left}\" y=\"{top}\" width=\"{SIDE}\" height=\"{SIDE}\" fill=\"none\" stroke=\"#999\"/>\
             <g font-size=\"10\" fill=\"#666\"><text x=\"{left}\" y=\"{label}\">{x0:.3}</text>\
             <text x=\"{right}\" y=\"{label}\" text-anchor=\"end\">{x1:.3}</text>\
             <text x=\"{middle}\" y=\"{label}\" text-anchor=\"middle\">{xname}</text>\
             <text transform=\"translate({beside} {bottom}) rotate(-90)\">{y0:.3}</text>\
             <text transform=\"translate({beside} {top}) rotate(-90)\" text-anchor=\"end\">{y1:.3}</text>\
             <text transform=\"translate({beside} {height}) rotate(-90)\" text-anchor=\"middle\">{yname}</text></g>",
            label = bottom + 12.0,
            right = left + SIDE,
            middle = left + 0.5 * SIDE,
            xname = escaped(&self.axes[0]),
            beside = left - 4.0,
            height = top + 0.5 * SIDE,
            yname = escaped(&self.axes[1]),
        );
    }

    fn panel(&self, text: &mut String, panel: &Panel) {
        let hex = |i: usize| format!("#{:02x}{:02x}{:02x}", COLOURS[i].0, COLOURS[i].1, COLOURS[i].2);
        for [x, y] in panel.faint.iter().map(|p| self.place(*p)) {
            let _ = writeln!(text, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"1.1\" fill=\"#bbb\"/>");
        }
        let scale = self.arrow_scale(&panel.arrows);
        for (from, along) in &panel.arrows {
            let [x, y] = self.place(*from);
            let (dx, dy) = (along[0] * scale, -along[1] * scale);
            let (tip_x, tip_y) = (x + dx, y + dy);
            // Two short strokes back from the tip.
            let barb = |side: f64| (tip_x - 0.3 * dx + side * 0.18 * dy, tip_y - 0.3 * dy - side * 0.18 * dx);
            let ((ax, ay), (bx, by)) = (barb(1.0), barb(-1.0));
            let _ = writeln!(
                text,
                "<path d=\"M{x:.1} {y:.1}L{tip_x:.1} {tip_y:.1}M{ax:.1} {ay:.1}L{tip_x:.1} {tip_y:.1}L{bx:.1} {by:.1}\" fill=\"none\" \
                 stroke=\"#8a94a6\" stroke-width=\"0.9\"/>"
            );
        }
        for path in &panel.paths {
            let points: Vec<String> =
                path.iter().map(|p| self.place(*p)).map(|[x, y]| format!("{x:.1},{y:.1}")).collect();
            let _ = writeln!(
                text,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"0.8\" stroke-opacity=\"0.7\"/>",
                points.join(" "),
                hex(0)
            );
        }
        let ends = panel.paths.iter().filter_map(|path| path.last());
        for [x, y] in ends.chain(&panel.dots).map(|p| self.place(*p)) {
            let _ = writeln!(text, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"1.9\" fill=\"{}\"/>", hex(1));
        }
    }

    /// Pixels of a panel.
    fn place(&self, [x, y]: Place) -> Place {
        let [[x0, y0], [x1, y1]] = self.window;
        [(x - x0) / (x1 - x0) * SIDE, (y1 - y) / (y1 - y0) * SIDE]
    }

    /// Pixels for a unit of a vector.
    fn arrow_scale(&self, arrows: &[(Place, Place)]) -> f64 {
        let mut lengths: Vec<f64> = arrows.iter().map(|(_, v)| v[0].hypot(v[1])).collect();
        lengths.sort_by(f64::total_cmp);
        let long = lengths.get(lengths.len() * 9 / 10).copied().unwrap_or(0.0);
        let spacing = SIDE / (arrows.len() as f64).sqrt().max(1.0);
        if long > 0.0 { 0.8 * spacing / long } else { 0.0 }
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corners_of_the_window_are_corners_of_the_panel() {
        let panel = Panel { title: "a < b".into(), dots: vec![[-1.0, -2.0], [3.0, 2.0]], ..Panel::default() };
        let sections = Sections {
            title: "two corners".into(),
            axes: ["x1".into(), "x2".into()],
            window: [[-1.0, -2.0], [3.0, 2.0]],
            panels: vec![panel],
        };
        let text = sections.svg();
        assert!(text.contains("cx=\"0.0\" cy=\"230.0\"") && text.contains("cx=\"230.0\" cy=\"0.0\""));
        assert!(text.contains("a &lt; b") && !text.contains("a < b"));
    }
}
