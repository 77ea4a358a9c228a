//! `results`: a page of measured numbers, each taken from the record that a command has written.
//!
//! `page.md` in the folder of records is Markdown with places between double braces, which are filled in:
//!
//! ```text
//! {{demo bits_per_dim ± stderr .4}}     of demo.json a value and its error, with four digits behind the point
//! {{demo nfe.mean .0}}                  a key of a key
//! {{bench-ops threads.0.peak .2e}}      an element of a list, with an exponent
//! {{table bench-unet 0}}                the first table of a record
//! ```

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::cli::Results;
use crate::exit::Failure;
use crate::figures::grouped;
use crate::output::{Output, write_whole};
use crate::table::Table;

const NOTE: &str = "<!-- Written by `cargo xtask results` from docs/results; change page.md there. -->\n\n";

/// Runs the command.
pub fn run(args: &Results, output: Output) -> Result<()> {
    let place = args.from.join("page.md");
    let page = std::fs::read_to_string(&place).with_context(|| format!("cannot read {}", place.display()))?;
    let (text, places) = fill(&page, &place, &mut |stem| record(&args.from, stem))?;
    let text = NOTE.to_owned() + &text;
    if args.check {
        let there = std::fs::read_to_string(&args.out).unwrap_or_default();
        if there != text {
            let told = format!(
                "{}: not what the records say; `cargo xtask results` writes it anew",
                args.out.display()
            );
            return Err(Failure::Data(told).into());
        }
    } else {
        write_whole(&args.out, text.as_bytes())?;
    }
    let record = json!({ "command": "results", "places": places, "out": args.out.display().to_string() });
    output.result(format!("{}: {places} numbers and tables", args.out.display()), &record)
}

fn record(folder: &Path, stem: &str) -> Result<Value> {
    let path = folder.join(stem).with_added_extension("json");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).map_err(|e| Failure::Data(format!("{}: {e}", path.display())).into())
}

/// The page with every place filled in, and their number.
fn fill(page: &str, name: &Path, record: &mut dyn FnMut(&str) -> Result<Value>) -> Result<(String, usize)> {
    let mut lines = Vec::new();
    let mut places = 0;
    for (number, line) in page.lines().enumerate() {
        let at = || format!("{}:{}", name.display(), number + 1);
        let (mut done, mut rest) = (String::new(), line);
        while let Some((before, after)) = rest.split_once("{{") {
            let (place, after) = after
                .split_once("}}")
                .ok_or_else(|| Failure::Data(format!("{}: braces that are not closed", at())))?;
            done += before;
            done += &filled(place.trim(), record).with_context(at)?;
            places += 1;
            rest = after;
        }
        lines.push(done + rest);
    }
    Ok((lines.join("\n") + "\n", places))
}

fn filled(place: &str, record: &mut dyn FnMut(&str) -> Result<Value>) -> Result<String> {
    let mut words = place.split_whitespace();
    let first = words.next().unwrap_or_default();
    if first == "table" {
        let (Some(stem), index) = (words.next(), words.next().unwrap_or("0")) else {
            return Err(Failure::Data(format!("`{place}`: expected `table RECORD INDEX`")).into());
        };
        let found = record(stem)?;
        let table = index.parse::<usize>().ok().and_then(|i| Table::of_record(found["tables"].get(i)?));
        let (_, table) = table.ok_or_else(|| Failure::Data(format!("{stem}: no table {index}")))?;
        return Ok(table.markdown());
    }
    let found = record(first)?;
    let words: Vec<&str> = words.collect();
    let (words, digits) = match words.split_last() {
        Some((last, words)) if last.starts_with('.') => (words, Some(&last[1..])),
        _ => (words.as_slice(), None),
    };
    let value = |path: &str| number(&found, path, digits).with_context(|| format!("record {first}"));
    match words {
        [path] => value(path),
        [path, "±", error] => Ok(format!("{} ± {}", value(path)?, value(error)?)),
        _ => Err(Failure::Data(format!("`{place}`: expected `RECORD KEY`, or `RECORD KEY ± KEY`")).into()),
    }
}

/// What stands under a path of keys and places in lists.
fn number(record: &Value, path: &str, digits: Option<&str>) -> Result<String> {
    let mut value = record;
    for key in path.split('.') {
        let next = match key.parse::<usize>() {
            Ok(index) if value.is_array() => value.get(index),
            _ => value.get(key),
        };
        value = next.ok_or_else(|| Failure::Data(format!("no `{key}` of `{path}`")))?;
    }
    let wrong = || Failure::Data(format!("`{path}` is {value}, which is neither a number nor a text"));
    if let Some(text) = value.as_str() {
        return Ok(text.to_owned());
    }
    if let (Some(whole), None) = (value.as_u64(), digits) {
        return Ok(grouped(whole as usize));
    }
    let number = value.as_f64().ok_or_else(wrong)?;
    let bad = || {
        Failure::Data(format!(
            "`.{}`: expected digits behind the point, such as .4 or .2e",
            digits.unwrap_or_default()
        ))
    };
    let count = |digits: &str| digits.parse::<u8>().map(usize::from).map_err(|_| bad());
    Ok(match digits.map(|d| d.strip_suffix('e').map_or((d, false), |d| (d, true))) {
        None => format!("{number}"),
        Some((digits, true)) => format!("{number:.*e}", count(digits)?),
        Some((digits, false)) => format!("{number:.*}", count(digits)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled_in(page: &str) -> Result<String> {
        let mut table = Table::new(&["what", "time"]);
        table.row(["a step".into(), "2 s".into()]);
        let found = json!({
            "bits": 2.18284, "stderr": 0.0142, "n": 5000, "nfe": { "mean": 169.4 }, "list": [1e-3, 2.5e-3],
            "command_line": "cargo xtask demo", "tables": [table.record("")],
        });
        fill(page, Path::new("page.md"), &mut |stem| {
            assert_eq!(stem, "demo");
            Ok(found.clone())
        })
        .map(|(text, _)| text)
    }

    #[test]
    fn places_are_filled_in() -> Result<()> {
        let page = "`{{demo command_line}}`: {{demo bits ± stderr .4}}, n = {{demo n}}, {{demo nfe.mean .0}} calls, {{ demo list.1 .1e }}";
        let text = "`cargo xtask demo`: 2.1828 ± 0.0142, n = 5,000, 169 calls, 2.5e-3\n";
        assert_eq!(filled_in(page)?, text);
        assert_eq!(filled_in("{{table demo 0}}")?, "| what | time |\n|---|---|\n| a step | 2 s |\n");
        Ok(())
    }

    #[test]
    fn what_is_missing_is_named_with_its_line() {
        let cases = [
            ("a\n{{demo bit}}", "page.md:2: record demo: no `bit`"),
            ("{{demo nfe}}", "neither a number"),
            ("{{table demo 1}}", "no table 1"),
            ("{{demo bits", "not closed"),
            ("{{demo bits .x}}", "`.x`"),
            ("{{demo bits .70000}}", "`.70000`"),
            ("{{demo bits stderr}}", "RECORD KEY"),
        ];
        for (page, words) in cases {
            let error = filled_in(page).map_err(|e| crate::exit::one_line(&e));
            assert!(error.as_ref().is_err_and(|e| e.contains(words)), "{page}: {error:?}");
        }
    }
}
