//! Tables for the terminal and for docs/results.md, and how their numbers are written.

use serde_json::{Value, json};

use super::statistics::Spread;

/// A table.
#[derive(Debug, Clone, Default)]
pub struct Table {
    headers: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    pub fn new<S: Into<String> + Clone>(headers: &[S]) -> Self {
        Self { headers: headers.iter().cloned().map(Into::into).collect(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Aligned by spaces: the first column to the left, numbers to the right.
    pub fn text(&self) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
            cells.chain([self.headers[column].chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.headers.len()).map(width).collect();
        let line = |cells: &[String]| {
            let cell = |(i, text): (usize, &String)| match widths[i] {
                w if i == 0 => format!("{text:w$}"),
                w => format!("{text:>w$}"),
            };
            cells.iter().enumerate().map(cell).collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        std::iter::once(&self.headers).chain(&self.rows).map(|row| line(row)).collect::<Vec<_>>().join("\n")
    }

    /// As in a record, under a title.
    pub fn record(&self, title: &str) -> Value {
        json!({ "title": title, "headers": self.headers, "rows": self.rows })
    }

    /// A table of a record, and its title.
    pub fn of_record(record: &Value) -> Option<(String, Self)> {
        let strings = |value: &Value| {
            value.as_array()?.iter().map(|cell| Some(cell.as_str()?.to_owned())).collect::<Option<Vec<_>>>()
        };
        let rows = record["rows"].as_array()?.iter().map(strings).collect::<Option<_>>()?;
        Some((record["title"].as_str()?.to_owned(), Self { headers: strings(&record["headers"])?, rows }))
    }

    /// As Markdown.
    pub fn markdown(&self) -> String {
        let line = |cells: Vec<String>| format!("| {} |", cells.join(" | "));
        let headers = line(self.headers.clone());
        let rule = format!("|{}", "---|".repeat(self.headers.len()));
        let rows = self.rows.iter().map(|row| line(row.clone()));
        [headers, rule].into_iter().chain(rows).collect::<Vec<_>>().join("\n")
    }
}

/// `2.43 s`, `13.1 ms`, `87.0 µs`.
pub fn seconds(s: f64) -> String {
    match s {
        s if s >= 1.0 => format!("{s:.2} s"),
        s if s >= 1e-3 => format!("{:.*} ms", usize::from(s < 0.1), s * 1e3),
        s => format!("{:.1} µs", s * 1e6),
    }
}

/// `0.85 (0.83–0.88)`: the median and the quartiles; `–` where there is nothing to compare with.
pub fn ratio(spread: Option<Spread>) -> String {
    spread.map_or("–".into(), |s| format!("{:.2} ({:.2}–{:.2})", s.median, s.quartiles[0], s.quartiles[1]))
}

/// `1127 MB`.
pub fn megabytes(bytes: Option<u64>) -> String {
    bytes.map_or("–".into(), |b| format!("{:.0} MB", b as f64 / 1e6))
}
