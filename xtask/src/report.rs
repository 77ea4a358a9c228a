//! A run as one page of HTML that needs nothing else: text, tables and charts in it, pictures as data, no script, no address.

mod html;
mod measured;
mod samplers;
mod told;

use anyhow::Result;
use serde_json::Value;

use crate::provenance::revision;
use crate::records::Records;

const PAGE: &str = include_str!("report/page.html");
const STYLE: &str = include_str!("report/style.css");

/// A section of the page.
pub struct Section {
    /// Its anchor, and its name in records.
    pub id: &'static str,
    title: &'static str,
    /// HTML; empty where there is nothing to show.
    body: String,
    /// What makes what is missing.
    command: &'static str,
}

/// A page, and what is on it.
pub struct Page {
    /// The document.
    pub html: String,
    /// The sections shown.
    pub shown: Vec<&'static str>,
    /// The sections that there is nothing for, and the command that would make it.
    pub missing: Vec<(&'static str, &'static str)>,
}

impl Page {
    /// The page of a run; `benches` are records of `bench sampler` from elsewhere.
    pub fn of(run: &Records, benches: &[(String, Value)]) -> Result<Self> {
        let section = |id, title, body, command| Section { id, title, body, command };
        let sections = [
            section("samples", "Samples", told::samples(run)?, "sample"),
            section("training", "Training", measured::training(run)?, "train"),
            section("likelihood", "Likelihood", measured::likelihood(run)?, "eval-nll"),
            section("score", "Score", measured::score(run)?, "eval-score"),
            section(
                "samplers",
                "Samplers",
                samplers::section(run, benches)?,
                "bench sampler --out RUN/records/samplers.json",
            ),
            section("numbers", "All numbers", told::numbers(run), "eval-nll"),
            section("configuration", "Configuration", told::configuration(run), "train"),
            section("provenance", "Provenance", told::provenance(run)?, "train"),
            section("records", "Records", told::records(run), "eval-nll"),
        ];
        let (shown, missing): (Vec<&Section>, Vec<&Section>) =
            sections.iter().partition(|section| !section.body.is_empty());
        let nav: String = shown
            .iter()
            .map(|s| format!("<a href=\"#{}\">{}</a>", s.id, s.title))
            .collect::<Vec<_>>()
            .join("");
        let bodies: String = shown
            .iter()
            .map(|s| format!("<section id=\"{}\">\n<h2>{}</h2>\n{}</section>\n", s.id, s.title, s.body))
            .collect();
        let name = run.path.file_name().map_or("run".into(), |name| name.to_string_lossy().into_owned());
        let title = if name.contains(run.preset()) { name } else { format!("{name} · {}", run.preset()) };
        let about = run.config.get("about").and_then(toml::Value::as_str).unwrap_or_default();
        let parts = [
            ("title", html::escape(&title)),
            ("style", STYLE.to_owned()),
            ("about", html::escape(about)),
            ("tiles", told::tiles(run)),
            ("nav", nav),
            ("sections", bodies),
            ("footer", footer(&missing)),
        ];
        let missing = missing.iter().map(|s| (s.id, s.command)).collect();
        Ok(Self { html: fill(&parts), shown: shown.iter().map(|s| s.id).collect(), missing })
    }
}

fn footer(missing: &[&Section]) -> String {
    let mut text =
        format!("Made by <code>cargo xtask report</code>, revision {}.", html::escape(&revision()));
    if !missing.is_empty() {
        let each = missing.iter().map(|s| format!("{} (<code>{}</code>)", s.title.to_lowercase(), s.command));
        text.push_str(&format!(" Nothing there yet for: {}.", each.collect::<Vec<_>>().join(", ")));
    }
    text
}

/// The template with its places filled, in one pass: what is put in is not looked at again.
fn fill(parts: &[(&str, String)]) -> String {
    let mut page = String::new();
    let mut rest = PAGE;
    while let Some((before, after)) = rest.split_once("{{") {
        page.push_str(before);
        let (name, after) = after.split_once("}}").unwrap_or((after, ""));
        page.push_str(parts.iter().find(|(known, _)| *known == name).map_or("", |(_, text)| text));
        rest = after;
    }
    page + rest
}
