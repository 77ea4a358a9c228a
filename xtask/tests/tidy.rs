//! The house's rules that no compiler checks: documents in step with code, dependency edges, and what must not stand anywhere.
//!
//! Every check collects all offences, each as `file:line: what is wrong`, before it fails.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use sde_solvers::catalog;
use serde_json::Value;

/// The edges between the workspace's crates, dev-dependencies included; ARCHITECTURE.md draws the same.
const EDGES: [(&str, &[&str]); 8] = [
    ("sde-core", &[]),
    ("sde-nets", &["sde-core"]),
    ("sde-solvers", &["sde-core"]),
    ("sde-data", &["sde-core"]),
    ("sde-train", &["sde-core", "sde-data", "sde-nets"]),
    ("sde-eval", &["sde-core", "sde-data", "sde-nets", "sde-solvers"]),
    ("xtask", &["sde-core", "sde-data", "sde-eval", "sde-nets", "sde-solvers", "sde-train"]),
    ("downstream", &["sde-core", "sde-data", "sde-eval", "sde-nets", "sde-solvers", "sde-train"]),
];

/// Dependencies that only the runner may have.
const RUNNER_ONLY: [&str; 4] = ["anyhow", "clap", "indicatif", "tracing-subscriber"];

/// Where the mathematics lives that knows no tensor.
const MATHEMATICS: [&str; 8] = [
    "crates/sde-core/src/factor.rs",
    "crates/sde-core/src/op.rs",
    "crates/sde-core/src/process.rs",
    "crates/sde-core/src/process/",
    "crates/sde-core/src/grid.rs",
    "crates/sde-core/src/quadrature.rs",
    "crates/sde-core/src/oracle.rs",
    "crates/sde-core/src/prediction.rs",
];

/// The folders that hold nothing but the project's own files; data, runs and built things lie elsewhere.
const FOLDERS: [&str; 5] = [".cargo", ".ci", "crates", "docs", "xtask"];

const MAX_LINES: usize = 500;

/// A text file of the project, by its path from the root, with `/` between the parts.
struct File {
    path: String,
    text: String,
}

impl File {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether it is compiled into a library or the runner, not into a test or an example (docs/downstream is one).
    fn is_source(&self) -> bool {
        self.is_rust() && !self.path.starts_with("docs/") && self.path.split('/').any(|part| part == "src")
    }

    /// Its lines, numbered from 1, up to the unit tests and without those that are comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let end = self.text.find("#[cfg(test)]\nmod ").unwrap_or(self.text.len());
        let numbered = self.text[..end].lines().enumerate().map(|(i, line)| (i + 1, line));
        numbered.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("the runner is a folder of the workspace").to_owned()
}

/// Every text file of the project: those of its folders, and those beside them.
fn files() -> Vec<File> {
    let mut found = Vec::new();
    for folder in FOLDERS {
        walk(&format!("{folder}/"), true, &mut found);
    }
    walk("", false, &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn walk(folder: &str, deep: bool, found: &mut Vec<File>) {
    let entries = std::fs::read_dir(root().join(folder)).unwrap_or_else(|e| panic!("{folder}: {e}"));
    for entry in entries.map(|entry| entry.expect("an entry of a folder")) {
        let path = format!("{folder}{}", entry.file_name().to_string_lossy());
        let kind = entry.file_type().expect("a type of file");
        if kind.is_dir() && deep {
            walk(&format!("{path}/"), deep, found);
        } else if kind.is_file()
            && let Ok(text) = std::fs::read_to_string(entry.path())
        {
            found.push(File { path, text });
        }
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn report(rule: &str, offences: &[String]) {
    assert!(offences.is_empty(), "{rule}:\n  {}\n", offences.join("\n  "));
}

/// A package of the workspace, by its manifest and the names of all its dependencies.
struct Package {
    name: String,
    manifest: String,
    dependencies: BTreeSet<String>,
}

impl Package {
    /// `file:line` where a dependency stands in the manifest; the first line if it stands nowhere.
    fn place(&self, dependency: &str) -> String {
        let text = read(&self.manifest);
        let line = text.lines().position(|line| line.split(['.', ' ', '=']).next() == Some(dependency));
        format!("{}:{}", self.manifest, line.unwrap_or(0) + 1)
    }
}

fn packages() -> Vec<Package> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let package = |package: &Value| Package {
        name: text(&package["name"]),
        manifest: text(&package["manifest_path"]).replacen(&format!("{}/", root().display()), "", 1),
        dependencies: list(&package["dependencies"]).iter().map(|d| text(&d["name"])).collect(),
    };
    list(&metadata["packages"]).iter().map(package).collect()
}

#[test]
fn every_file_is_one_idea_and_says_which() {
    let mut offences = Vec::new();
    for file in files().iter().filter(|file| file.is_rust()) {
        let lines = file.text.lines().count();
        if lines > MAX_LINES {
            offences.push(format!("{}:{MAX_LINES}: has {lines} lines; cut it into two ideas", file.path));
        }
        if !file.text.starts_with("//!") {
            offences.push(format!("{}:1: does not open with `//!`; say what the file is", file.path));
        }
        let by_paper = ["process", "table", "loss"].map(|folder| format!("/src/{folder}/"));
        if by_paper.iter().any(|folder| file.path.contains(folder)) && !file.text.contains("Reference:") {
            offences
                .push(format!("{}:1: has no line `Reference:`; cite author, year and equation", file.path));
        }
    }
    report("files without a head, or too long", &offences);
}

#[test]
fn libraries_neither_panic_nor_print() {
    let banned = [".unwrap()", ".expect(", "panic!(", "todo!(", "unimplemented!(", "dbg!("];
    let printing = ["print!(", "println!("];
    let mut offences = Vec::new();
    for file in files().iter().filter(|file| file.is_source()) {
        for (number, line) in file.code() {
            for word in banned.iter().filter(|word| line.contains(**word)) {
                offences
                    .push(format!("{}:{number}: `{word}` outside tests; return a typed error", file.path));
            }
            // `eprintln!(` ends in `println!(`, too.
            if file.path != "xtask/src/output.rs" && printing.iter().any(|word| line.contains(word)) {
                offences.push(format!("{}:{number}: prints; only xtask/src/output.rs may", file.path));
            }
            if line.contains("allow(unsafe_code") && !file.path.starts_with("crates/nets/src/ops") {
                offences.push(format!("{}:{number}: unsafe code; only crates/nets/src/ops may", file.path));
            }
        }
    }
    report("code that panics, prints or is unsafe where it may not", &offences);
}

#[test]
fn no_test_is_switched_off() {
    let mark = concat!("#[", "ignore");
    let mut offences = Vec::new();
    for file in files().iter().filter(|file| file.is_rust()) {
        for (i, _) in file.text.lines().enumerate().filter(|(_, line)| line.trim_start().starts_with(mark)) {
            offences.push(format!("{}:{}: an ignored test; mend it or remove it", file.path, i + 1));
        }
    }
    report("tests that do not run", &offences);
}

#[test]
fn the_mathematics_knows_no_tensor() {
    let mut offences = Vec::new();
    let ours = |file: &&File| MATHEMATICS.iter().any(|path| file.path.starts_with(path));
    let files = files();
    let mathematics: Vec<&File> = files.iter().filter(ours).collect();
    for path in MATHEMATICS {
        let there = mathematics.iter().any(|file| file.path.starts_with(path));
        assert!(there, "{path} is gone; bring MATHEMATICS in this test up to date");
    }
    for file in mathematics {
        for (number, _) in file.code().filter(|(_, line)| line.contains("Tensor") || line.contains("candle"))
        {
            offences
                .push(format!("{}:{number}: names a tensor; see tensor.rs for where they meet", file.path));
        }
    }
    report("mathematics that knows of tensors", &offences);
}

#[test]
fn dependency_edges_are_those_of_the_architecture() {
    let packages = packages();
    let mut offences = Vec::new();
    for package in &packages {
        let Some((_, allowed)) = EDGES.iter().find(|(name, _)| *name == package.name) else {
            offences.push(format!(
                "{}: a package without a place in EDGES of xtask/tests/tidy.rs",
                package.place("name")
            ));
            continue;
        };
        let ours = |name: &&String| packages.iter().any(|p| p.name == **name);
        let found: BTreeSet<&str> = package.dependencies.iter().filter(ours).map(String::as_str).collect();
        let allowed: BTreeSet<&str> = allowed.iter().copied().collect();
        for edge in found.difference(&allowed) {
            offences.push(format!("{}: {edge} is no edge of the architecture", package.place(edge)));
        }
        for edge in allowed.difference(&found) {
            let what = format!("{edge} is gone; take the edge out of EDGES and ARCHITECTURE.md");
            offences.push(format!("{}: {what}", package.place(edge)));
        }
        let foreign = |name: &&&str| package.name != "xtask" && package.dependencies.contains(**name);
        for dependency in RUNNER_ONLY.iter().filter(foreign) {
            offences.push(format!("{}: {dependency} is for xtask alone", package.place(dependency)));
        }
    }
    report("dependencies", &offences);
}

/// The rows of the first table under a heading of docs/solvers.md, with their line numbers and names.
fn documented(heading: &str) -> Vec<(usize, String, String)> {
    let text = read("docs/solvers.md");
    let below = text.lines().enumerate().skip_while(|(_, line)| *line != heading);
    let table =
        below.skip_while(|(_, line)| !line.starts_with('|')).take_while(|(_, line)| line.starts_with('|'));
    let name = |line: &str| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned());
    table.filter_map(|(i, line)| Some((i + 1, name(line)?, line.to_owned()))).collect()
}

#[test]
fn samplers_are_documented_as_the_catalog_has_them() {
    let rows = documented("## All of them");
    let mut offences = Vec::new();
    for entry in catalog::all() {
        let row = entry.markdown();
        match rows.iter().find(|(_, name, _)| name == entry.name) {
            None => offences.push(format!("docs/solvers.md:1: no row for `{}`: {row}", entry.name)),
            Some((line, _, found)) if *found != row => {
                offences.push(format!("docs/solvers.md:{line}: expected {row}"));
            }
            Some(_) => {}
        }
    }
    for (line, name, _) in rows.iter().filter(|(_, name, _)| catalog::find(name).is_none()) {
        offences.push(format!("docs/solvers.md:{line}: there is no sampler `{name}`"));
    }
    report("docs/solvers.md (`cargo xtask samplers --markdown` prints the table)", &offences);
}

/// The strings of `pub const GRIDS: &[&str] = &[…];` in the runner.
fn grids() -> BTreeSet<String> {
    let text = read("xtask/src/build/sampler.rs");
    let list = text.split_once("const GRIDS: &[&str] =").and_then(|(_, rest)| rest.split_once("];"));
    list.expect("the list of grids").0.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn grids_are_documented() {
    let (known, rows) = (grids(), documented("## Time grids"));
    let mut offences: Vec<String> = rows
        .iter()
        .filter(|(_, name, _)| !known.contains(name))
        .map(|(line, name, _)| format!("docs/solvers.md:{line}: `{name}` is no grid of the runner"))
        .collect();
    for name in known.iter().filter(|name| !rows.iter().any(|(_, row, _)| row == *name)) {
        offences.push(format!("docs/solvers.md:1: the grid `{name}` has no row under \"## Time grids\""));
    }
    report("docs/solvers.md", &offences);
}

#[test]
fn no_path_of_a_machine() {
    let machines = ["tmp", "root", "home", "work"].map(|folder| format!("/{folder}/"));
    let mut offences = Vec::new();
    for file in &files() {
        for (i, line) in file.text.lines().enumerate() {
            // Absolute only: nothing that belongs to a path or an address stands before it.
            let absolute =
                |at: usize| !line[..at].ends_with(|c: char| c.is_alphanumeric() || "./_-}".contains(c));
            let hit =
                machines.iter().find(|path| line.match_indices(path.as_str()).any(|(at, _)| absolute(at)));
            if let Some(path) = hit {
                offences.push(format!("{}:{}: names {path}…; no other machine has it", file.path, i + 1));
            }
        }
    }
    report("paths of one machine", &offences);
}

#[test]
fn results_are_those_of_the_records() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let called =
        Command::new(env!("CARGO_BIN_EXE_xtask")).args(["results", "--check"]).current_dir(root).output();
    let called = called.expect("the runner starts");
    assert!(called.status.success(), "{}", String::from_utf8_lossy(&called.stderr));
}
