//! Tables: aligned for the terminal, as Markdown, and as part of a record.

use serde_json::{Value, json};

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
        let line = |cells: &Vec<String>| {
            let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
            format!("| {} |", cells.join(" | "))
        };
        let headers = line(&self.headers);
        let rule = format!("|{}", "---|".repeat(self.headers.len()));
        let rows = self.rows.iter().map(line);
        [headers, rule].into_iter().chain(rows).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_each_other() {
        let mut table = Table::new(&["a", "ε̂", ""]);
        table.row(["long", "1", "2"].map(str::to_owned));
        assert_eq!(table.text(), "a     ε̂\nlong   1  2");
    }

    #[test]
    fn a_bar_in_a_cell_is_no_column() {
        let mut table = Table::new(&["|x|"]);
        table.row(["1".to_owned()]);
        assert_eq!(table.markdown(), "| \\|x\\| |\n|---|\n| 1 |");
    }
}
