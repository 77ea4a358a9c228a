//! Presets: TOML files with every number spelled out, overrides on top, unknown keys refused with the nearest known one.
//!
//! A preset is text until [`Source::parse`]: `--set` edits the text's tables, so that a run's resolved configuration is again a preset.

use std::path::Path;

use anyhow::Result;
use sde_nets::NetConfig;
use sde_nets::ops::Products;
use sde_train::TrainConfig;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::build::{
    DataConfig, LikelihoodConfig, LossConfig, ProcessConfig, SamplerConfig, StartConfig, VarianceConfig,
};
use crate::exit::Failure;

/// Everything that configures a run.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Preset {
    /// Its name, which is also its file's.
    pub name: String,
    /// One line: what it is and where its numbers are from.
    pub about: String,
    /// The type in which the network forms its products while it is trained: `bf16`, or its own if absent. Parameters,
    /// normalisation and loss stay in its own; sampling and likelihood use that throughout.
    pub products: Option<Products>,
    /// Whether f32 products on CUDA may round their factors to TF32 while the network is trained; not if absent.
    pub tf32: Option<bool>,
    /// The variance of the Gaussian data whose exact ε is added to what the network predicts, so that it learns the rest; none
    /// is, if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mixed_score: Option<f64>,
    /// The data.
    pub data: DataConfig,
    /// The forward process.
    pub process: ProcessConfig,
    /// The network.
    pub net: NetConfig,
    /// What is minimised.
    pub loss: LossConfig,
    /// A second output that is trained instead of the network, on the frozen network of another run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variance: Option<VarianceConfig>,
    /// The run whose weights this one starts from; fresh ones, if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<StartConfig>,
    /// How it is minimised.
    pub train: TrainConfig,
    /// How samples are drawn.
    pub sampler: SamplerConfig,
    /// How likelihood is measured.
    pub likelihood: LikelihoodConfig,
}

macro_rules! presets {
    ($($name:literal),* $(,)?) => {
        /// The built-in presets, name and text.
        const BUILT_IN: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../presets/", $name, ".toml")))),*];
    };
}

presets!(
    "digits",
    "digits-blurring",
    "digits-fp-noise",
    "digits-fp-drift",
    "digits-cld",
    "digits-conditional",
    "digits-npr",
    "digits-sn",
    "mnist",
    "mnist-fp-noise",
    "fashion-mnist",
    "cifar10",
    "cifar10-cld",
    "cifar10-ddpm",
    "cifar10-ddpmpp",
    "cifar10-ddpmpp-deep",
    "cifar10-subvp",
    "cifar10-ncsnpp-ve",
    "cifar10-ncsnpp-ve-deep",
    "cifar10-edm",
    "cifar10-tiny",
    "cifar10-blurring",
    "checkerboard",
    "checkerboard-cld",
    "eight-modes",
    "two-modes",
    "swiss-roll",
    "multi-swiss-roll",
    "two-spirals",
    "four-rings",
    "olympics",
    "sharp-olympics",
    "fractal-tree",
    "sierpinski-carpet",
    "three-modes",
    "plane3d",
    "plane3d-vp",
    "plane3d-reg",
    "checkerboard-fpe",
    "swiss-roll-fpe",
    "multi-swiss-roll-fpe",
    "eight-modes-fpe",
    "three-modes-fpe",
    "two-modes-fpe",
    "two-modes-cauchy",
    "digits-fpe",
    "mnist-fpe",
    "fashion-mnist-fpe",
    "cifar10-fpe",
    "checkerboard-diffflow",
    "two-spirals-diffflow",
    "olympics-diffflow",
    "sharp-olympics-diffflow",
    "fractal-tree-diffflow",
    "sierpinski-carpet-diffflow",
    "digits-diffflow",
    "mnist-diffflow",
    "pis-gaussian",
    "pis-mixture",
    "pis-funnel",
    "pis-rings",
    "pis-cox",
    "pis-vae",
    "vae-digits",
);

/// The settings of a sampler and a likelihood where there is no preset: a run on a known density.
const ORACLE: &str = include_str!("../presets/oracle.defaults");

/// A configuration as text: where it came from, and its tables.
#[derive(Debug, Clone)]
pub struct Source {
    origin: String,
    table: toml::Table,
}

impl Source {
    /// A built-in preset, or a TOML file if `name` is a path to one.
    pub fn find(name: &str) -> Result<Self> {
        if let Some((_, text)) = BUILT_IN.iter().find(|(known, _)| *known == name) {
            return Self::of_text(&format!("preset {name}"), text);
        }
        if Path::new(name).extension().is_some_and(|e| e == "toml") {
            return Self::read(Path::new(name));
        }
        let hint = nearest(name, names()).map_or(String::new(), |n| format!(" (did you mean `{n}`?)"));
        let known = names().collect::<Vec<_>>().join(", ");
        Err(Failure::Config(format!(
            "unknown preset `{name}`{hint}; known: {known}; or a path that ends in .toml"
        ))
        .into())
    }

    /// A TOML file.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|e| anyhow::Error::from(e).context(format!("cannot read {}", path.display())))?;
        Self::of_text(&path.display().to_string(), &text)
    }

    /// The settings of a run on a known density.
    pub fn oracle() -> Result<Self> {
        Self::of_text("oracle defaults", ORACLE)
    }

    /// A configuration that was put together from several.
    pub fn of_preset(origin: &str, preset: &Preset) -> Result<Self> {
        Self::of_text(origin, &toml::to_string(preset)?)
    }

    /// The text of a TOML file; `origin` names it in errors.
    pub fn of_text(origin: &str, text: &str) -> Result<Self> {
        let table = text.parse::<toml::Table>().map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            let message = error.message().lines().collect::<Vec<_>>().join(", ");
            Failure::Config(format!("{origin}, line {line}: {message}"))
        })?;
        Ok(Self { origin: origin.to_owned(), table })
    }

    /// Applies `key.key=value`; the value is TOML, or else a string.
    pub fn set(&mut self, assignment: &str) -> Result<()> {
        let Some((key, text)) = assignment.split_once('=') else {
            return Err(Failure::Usage(format!(
                "--set {assignment}: expected key=value, such as train.batch=64"
            ))
            .into());
        };
        let value = format!("v = {text}")
            .parse::<toml::Table>()
            .ok()
            .and_then(|mut t| t.remove("v"))
            .unwrap_or_else(|| toml::Value::String(text.to_owned()));
        let mut path: Vec<&str> = key.split('.').collect();
        let last = path.pop().unwrap_or_default();
        let mut table = &mut self.table;
        for (depth, part) in path.iter().enumerate() {
            let known: Vec<String> = table.keys().cloned().collect();
            table = table.get_mut(*part).and_then(toml::Value::as_table_mut).ok_or_else(|| {
                let at = path[..=depth].join(".");
                let hint = nearest(part, known.iter().map(String::as_str));
                Failure::Config(format!("--set {key}: there is no section \"{at}\"{}", did_you_mean(hint)))
            })?;
        }
        // An integer where a float stands, and the other way about where it is whole, is no change of type.
        let value = match (table.get(last), value) {
            (Some(toml::Value::Float(_)), toml::Value::Integer(i)) => toml::Value::Float(i as f64),
            (Some(toml::Value::Integer(_)), toml::Value::Float(f)) if f.fract() == 0.0 => {
                toml::Value::Integer(f as i64)
            }
            (_, value) => value,
        };
        table.insert(last.to_owned(), value);
        Ok(())
    }

    /// What the configuration says that it is of; nothing for a score model.
    pub fn method(&self) -> Option<&str> {
        self.table.get("method").and_then(toml::Value::as_str)
    }

    /// The configuration of a score model.
    ///
    /// # Errors
    /// Where it is of another method, and as [`Source::parse`].
    pub fn score(&self) -> Result<Preset> {
        match self.method() {
            None => self.parse(),
            Some(method) => {
                let text = format!(
                    "{}: method = \"{method}\", and what is asked for needs a score model",
                    self.origin
                );
                Err(Failure::Usage(text).into())
            }
        }
    }

    /// Sets a value that an option of its own gives.
    pub fn put(&mut self, section: &str, key: &str, value: impl Into<toml::Value>) {
        if let Some(table) = self.table.get_mut(section).and_then(toml::Value::as_table_mut) {
            table.insert(key.to_owned(), value.into());
        }
    }

    /// Adds a section.
    pub fn add(&mut self, section: &str, value: toml::Value) {
        self.table.insert(section.to_owned(), value);
    }

    /// The typed configuration.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        serde_path_to_error::deserialize(self.table.clone()).map_err(|error| {
            let path = error.path().to_string();
            Failure::Config(format!("{}: {}", self.origin, explain(&path, error.inner().message()))).into()
        })
    }
}

/// The names of the built-in presets.
pub fn names() -> impl Iterator<Item = &'static str> {
    BUILT_IN.iter().map(|(name, _)| *name)
}

/// serde's complaint about `path`, in our words where it is about an unknown key.
fn explain(path: &str, message: &str) -> String {
    let message = message.lines().next().unwrap_or(message).trim_end();
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    match quoted.split_first() {
        Some((unknown, known)) if message.starts_with("unknown field") => {
            // The path ends in the key itself where serde tracked it so far.
            let section = path.strip_suffix(unknown).unwrap_or(path).trim_end_matches('.');
            let section = if section == "." { "" } else { section };
            let key = if section.is_empty() { (*unknown).to_owned() } else { format!("{section}.{unknown}") };
            format!("unknown key \"{key}\"{}", did_you_mean(nearest(unknown, known.iter().copied())))
        }
        _ => format!("{path}: {message}"),
    }
}

/// A hint at the end of a message.
pub fn did_you_mean(hint: Option<&str>) -> String {
    hint.map_or(String::new(), |hint| format!("; hint: did you mean \"{hint}\"?"))
}

/// The known word most like `word`.
pub fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|candidate| (strsim::jaro_winkler(word, candidate), candidate))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(likeness, _)| *likeness > 0.6)
        .map(|(_, candidate)| candidate)
}
