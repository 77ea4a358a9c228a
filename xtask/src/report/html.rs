//! Pieces of a page: whatever comes from outside is escaped here, and nothing refers to anything outside the page.

use anyhow::Result;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::plot::{COLOURS, Chart, Series};

/// Text that stands for itself in an element and in an attribute.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // Not allowed in a document at all.
            c if c.is_control() && !matches!(c, '\n' | '\t') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

/// A table of numbers, with a head.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let head: String = head.iter().map(|cell| format!("<th scope=\"col\">{}</th>", escape(cell))).collect();
    format!(
        "<div class=\"scroll\"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{}</tbody></table></div>\n",
        body(rows)
    )
}

/// A table of names and texts.
pub fn texts(rows: &[Vec<String>]) -> String {
    format!("<div class=\"scroll\"><table class=\"texts\"><tbody>\n{}</tbody></table></div>\n", body(rows))
}

fn body(rows: &[Vec<String>]) -> String {
    let cells =
        |row: &Vec<String>| row.iter().map(|cell| format!("<td>{}</td>", escape(cell))).collect::<String>();
    rows.iter().map(|row| format!("<tr>{}</tr>\n", cells(row))).collect()
}

/// A chart with title and legend below; nothing if there is nothing to draw.
pub fn chart(chart: &Chart, note: &str) -> Result<String> {
    if chart.is_empty() {
        return Ok(String::new());
    }
    let key = |(i, series): (usize, &Series)| {
        format!("<span class=\"key k{}\">{}</span> ", i % COLOURS.len(), escape(&series.name))
    };
    let keys = match chart.series.len() {
        1 => String::new(),
        _ => format!(
            "<div class=\"keys\">{}</div>\n",
            chart.series.iter().enumerate().map(key).collect::<String>()
        ),
    };
    Ok(figure(&(chart.themed()? + &keys), &chart.title, note))
}

/// A picture in PNG, which becomes part of the page.
pub fn picture(png: &[u8], title: &str, note: &str) -> String {
    let image =
        format!("<img alt=\"{}\" src=\"data:image/png;base64,{}\">", escape(title), STANDARD.encode(png));
    figure(&image, title, note)
}

fn figure(content: &str, title: &str, note: &str) -> String {
    let note = if note.is_empty() { String::new() } else { format!(" {}", escape(note)) };
    format!("<figure>\n{content}\n<figcaption><b>{}</b>{note}</figcaption>\n</figure>\n", escape(title))
}

/// A text that is shown on demand.
pub fn folded(title: &str, text: &str) -> String {
    format!("<details><summary>{}</summary><pre>{}</pre></details>\n", escape(title), escape(text))
}

/// A paragraph.
pub fn note(text: &str) -> String {
    format!("<p class=\"note\">{}</p>\n", escape(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_from_outside_is_text() {
        assert_eq!(escape("<b a='1' b=\"2\">&\u{0}"), "&lt;b a=&#39;1&#39; b=&quot;2&quot;&gt;&amp;\u{fffd}");
        assert!(!table(&["<i>"], &[vec!["<script>".into()]]).contains("<script>"));
        assert!(picture(b"", "\" onload=\"x", "").contains("alt=\"&quot; onload=&quot;x\""));
    }
}
