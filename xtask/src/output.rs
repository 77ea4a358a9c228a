//! Where talk and results go: talk to stderr, one summary or one JSON record to stdout, and a full disk or a closed pipe is no panic.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use crate::files::make_folder_of;
use crate::provenance::command_line;

/// How a command speaks.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// One JSON record on stdout instead of a summary.
    pub json: bool,
}

impl Output {
    /// A line for the human.
    pub fn say(&self, line: impl AsRef<str>) {
        // Talk that cannot be written is lost; the work is not.
        let _ = writeln!(std::io::stderr().lock(), "{}", line.as_ref());
    }

    /// The result: the summary, or with `--json` the record.
    pub fn result(&self, summary: impl AsRef<str>, record: &Value) -> Result<()> {
        let text = if self.json { stamped(record).to_string() } else { summary.as_ref().to_owned() };
        let mut out = std::io::stdout().lock();
        match writeln!(out, "{text}").and_then(|()| out.flush()) {
            // Whoever reads has seen enough.
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            other => other.context("cannot write the result to standard output"),
        }
    }

    /// A bar with rate and time left.
    pub fn bar(&self, total: u64, what: &'static str) -> ProgressBar {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        let template = "{msg:9} {wide_bar:.cyan/black} {human_pos}/{human_len}  {per_sec}  {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("━╸━"));
        }
        bar.set_message(what);
        bar
    }
}

/// A record with the command line that made it; a preset is none.
fn stamped(record: &Value) -> Value {
    let mut record = record.clone();
    if let Some(keys) = record.as_object_mut().filter(|keys| keys.contains_key("command")) {
        keys.insert("command_line".into(), command_line().into());
    }
    record
}

/// Writes a record as a JSON file, one key a line, with the command line that made it.
pub fn save_record(path: &Path, record: &Value) -> Result<()> {
    let text = serde_json::to_string_pretty(&stamped(record))? + "\n";
    write_whole(path, text.as_bytes())
}

/// Writes a file, and its folder if need be.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    make_folder_of(path)?;
    std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

/// Writes a file aside and renames it: there is the whole of it, or none.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    whole(path, |aside| {
        std::fs::write(aside, bytes).with_context(|| format!("cannot write {}", aside.display()))
    })
}

/// The same of a file that something else writes.
pub fn whole(path: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    make_folder_of(path)?;
    let aside = path.with_added_extension("new");
    write(&aside)?;
    let kept = std::fs::File::open(&aside).and_then(|file| file.sync_all());
    kept.and_then(|()| std::fs::rename(&aside, path))
        .with_context(|| format!("cannot write {}", path.display()))
}
