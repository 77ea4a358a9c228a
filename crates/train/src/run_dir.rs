//! The directory of a run: what was run, how it went, and its results; one process at a time.
//!
//! ```text
//! 00003-digits/config.toml       the resolved configuration
//!              provenance.json   code revision, versions, device
//!              log.jsonl         one line of JSON an interval, each with its step
//!              tensorboard/     the same for TensorBoard, if asked for
//!              checkpoints/  samples/  records/
//!              lock              held while a process trains, with its number
//! ```
//!
//! The log is part of the state: it is forced to the disk before a checkpoint is, and cut back to the checkpoint on
//! resume, so that it has neither gap nor duplicate however a run was interrupted.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Error, Result, durable};

const CONFIG: &str = "config.toml";
const LOG: &str = "log.jsonl";
const DIRECTORIES: [&str; 3] = ["checkpoints", "samples", "records"];

/// Where a new run goes.
#[derive(Debug, Clone, Copy)]
pub enum Target<'a> {
    /// In this directory, which must not exist.
    At(&'a Path),
    /// Under the next number below a root, with a name.
    Below(&'a Path, &'a str),
}

/// A run directory that this process holds.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    log: File,
    /// Released when the file is closed, by the operating system if need be.
    _lock: File,
}

impl RunDir {
    /// Makes the next numbered directory below `root`, `00000-NAME`, and holds it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn create(
        root: &Path,
        name: &str,
        config_toml: &str,
        provenance: &BTreeMap<String, String>,
    ) -> Result<Self> {
        fs::create_dir_all(root).map_err(Error::io("create", root))?;
        let path = durable::create_first_free(numbers(root, name)?)?;
        Self::fill(path, config_toml, provenance)
    }

    /// Makes a run in the directory `path`, which is made too if need be, and holds it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn create_at(path: &Path, config_toml: &str, provenance: &BTreeMap<String, String>) -> Result<Self> {
        fs::create_dir_all(path).map_err(Error::io("create", path))?;
        Self::fill(path.to_owned(), config_toml, provenance)
    }

    /// Makes a run that appears whole or not at all, at `path`, or else as the next number below a root: `fill` adds to
    /// it before it has its name. Returns the directory, which nobody holds.
    ///
    /// # Errors
    /// [`Error::Io`], where the directory exists too; those of `fill`. Nothing is left behind then.
    pub fn create_whole(
        target: Target<'_>,
        config_toml: &str,
        provenance: &BTreeMap<String, String>,
        fill: impl FnOnce(&Self) -> Result<()>,
    ) -> Result<PathBuf> {
        let root = match target {
            Target::At(path) => path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")),
            Target::Below(root, _) => root,
        };
        fs::create_dir_all(root).map_err(Error::io("create", root))?;
        let aside = durable::create_first_free((0..u32::MAX).map(|n| root.join(format!(".run.tmp-{n}"))))?;
        let made = Self::fill(aside.clone(), config_toml, provenance).and_then(|run| fill(&run));
        let named = made.and_then(|()| {
            let free = match target {
                Target::At(path) => {
                    fs::create_dir(path).map_err(Error::io("create", path))?;
                    path.to_owned()
                }
                Target::Below(root, name) => durable::create_first_free(numbers(root, name)?)?,
            };
            // Elsewhere than on Unix nothing is renamed to what exists, even if it is empty.
            if !cfg!(unix) {
                fs::remove_dir(&free).map_err(Error::io("remove", &free))?;
            }
            // What is still empty was reserved for nothing.
            durable::rename(&aside, &free).inspect_err(|_| drop(fs::remove_dir(&free))).map(|()| free)
        });
        if named.is_err() {
            let _ = fs::remove_dir_all(&aside);
        }
        named
    }

    fn fill(path: PathBuf, config_toml: &str, provenance: &BTreeMap<String, String>) -> Result<Self> {
        let lock = lock(&path)?;
        for name in DIRECTORIES {
            let directory = path.join(name);
            fs::create_dir(&directory).map_err(Error::io("create", &directory))?;
        }
        // A map of strings has no way to fail.
        let provenance = serde_json::to_vec_pretty(provenance).unwrap_or_default();
        durable::create(&path.join("provenance.json"), &provenance)?;
        durable::create(&path.join(LOG), b"")?;
        // Last, so that a directory with a configuration is a whole one.
        durable::create(&path.join(CONFIG), config_toml.as_bytes())?;
        durable::sync_directory(&path)?;
        path.parent().map_or(Ok(()), durable::sync_directory)?;
        Self::hold(path, lock)
    }

    /// Holds an existing directory.
    ///
    /// # Errors
    /// [`Error::InUse`] while another process does; [`Error::Io`] if it is none.
    pub fn open(path: &Path) -> Result<Self> {
        let config = path.join(CONFIG);
        fs::metadata(&config).map_err(Error::io("read", &config))?;
        Self::hold(path.to_owned(), lock(path)?)
    }

    fn hold(path: PathBuf, lock: File) -> Result<Self> {
        let file = path.join(LOG);
        let log = OpenOptions::new().read(true).append(true).create(true).open(&file);
        Ok(Self { log: log.map_err(Error::io("open", &file))?, path, _lock: lock })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the checkpoints are.
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join(DIRECTORIES[0])
    }

    /// Where sample sheets go.
    pub fn samples(&self) -> PathBuf {
        self.path.join(DIRECTORIES[1])
    }

    /// Where records of evaluations go.
    pub fn records(&self) -> PathBuf {
        self.path.join(DIRECTORIES[2])
    }

    /// The configuration that the run was made with.
    pub fn config_toml(&self) -> Result<String> {
        let file = self.path.join(CONFIG);
        fs::read_to_string(&file).map_err(Error::io("read", &file))
    }

    /// Appends a line to the log, in one write.
    pub(crate) fn log(&mut self, record: &LogRecord) -> Result<()> {
        // Finite numbers under string keys: serialisation has no way to fail.
        let mut line = serde_json::to_vec(record).unwrap_or_default();
        line.push(b'\n');
        self.log.write_all(&line).map_err(Error::io("write", &self.path.join(LOG)))
    }

    /// Forces the log to the disk.
    pub(crate) fn sync_log(&self) -> Result<()> {
        self.log.sync_data().map_err(Error::io("force to disk", &self.path.join(LOG)))
    }

    /// Cuts off what the log says about later steps than `step`, and a torn last line.
    pub(crate) fn truncate_log(&mut self, step: u64) -> Result<()> {
        let file = self.path.join(LOG);
        let contents = fs::read(&file).map_err(Error::io("read", &file))?;
        let mut kept = 0;
        for (number, line) in contents.split_inclusive(|&byte| byte == b'\n').enumerate() {
            if !line.ends_with(b"\n") {
                break;
            }
            let logged = serde_json::from_slice::<Logged>(line)
                .map_err(|error| Error::corrupt(&file, format!("line {}: {error}", number + 1)))?;
            if logged.step > step {
                break;
            }
            kept += line.len() as u64;
        }
        self.log.set_len(kept).and_then(|()| self.log.sync_all()).map_err(Error::io("truncate", &file))
    }
}

/// The part of a line of the log that truncation looks at.
#[derive(Deserialize)]
struct Logged {
    step: u64,
}

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LogRecord {
    /// The number of updates made.
    pub step: u64,
    /// The mean training loss since the line before.
    pub loss: f64,
    /// The norm of the gradients of the last update, before clipping.
    pub gradient_norm: f64,
    /// The learning rate of the last update.
    pub learning_rate: f64,
    /// The parts of the loss of the last update, if it has any.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub terms: BTreeMap<&'static str, f64>,
    /// The held-out loss, where it was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_out_loss: Option<f64>,
}

/// The run below `root` with the highest number.
///
/// # Errors
/// [`Error::Io`] if `root` cannot be read.
pub fn newest_run(root: &Path) -> Result<Option<PathBuf>> {
    Ok(numbered(root)?
        .into_iter()
        .rev()
        .map(|(_, name)| root.join(name))
        .find(|path| path.join(CONFIG).is_file()))
}

/// Names for the next run below `root`.
fn numbers(root: &Path, name: &str) -> Result<impl Iterator<Item = PathBuf>> {
    let next = numbered(root)?.last().map_or(0, |(number, _)| number + 1);
    Ok((next..u32::MAX).map(move |n| root.join(format!("{n:05}-{name}"))))
}

/// The numbered directories below `root`, by number.
fn numbered(root: &Path) -> Result<Vec<(u32, String)>> {
    let number = |name: &str| name.split_once('-')?.0.parse::<u32>().ok();
    let mut runs: Vec<(u32, String)> =
        durable::names(root)?.into_iter().filter_map(|name| Some((number(&name)?, name))).collect();
    runs.sort_unstable();
    Ok(runs)
}

fn lock(path: &Path) -> Result<File> {
    let file = path.join("lock");
    let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&file);
    let mut lock = options.map_err(Error::io("open", &file))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let pid = fs::read_to_string(&file).ok().and_then(|pid| pid.trim().parse().ok());
            return Err(Error::InUse { path: path.to_owned(), pid });
        }
        Err(TryLockError::Error(error)) => return Err(Error::io("lock", &file)(error)),
    }
    let pid = std::process::id().to_string();
    lock.set_len(0).and_then(|()| lock.write_all(pid.as_bytes())).map_err(Error::io("write", &file))?;
    Ok(lock)
}
