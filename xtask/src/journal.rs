//! Work of hours on its way to a file: bytes are appended to `NAME.partial`, and `NAME.partial.json` says how many are safe and what they are part
//! of, so that a call that was cut off goes on where it stood.
//!
//! The note is replaced by a rename, after the bytes are on the disk; bytes beyond those it counts are cut off when work goes on. A second
//! process at the same file is kept out, where the system has locks.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sde_train::hash::sha256;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::exit::Failure;
use crate::files::make_folder_of;

/// What is known of the bytes that are safe.
#[derive(Debug, Serialize, Deserialize)]
struct Note<F> {
    /// SHA-256 of what the bytes are part of.
    identity: String,
    /// Bytes that are safe.
    length: u64,
    /// What else is kept of them.
    #[serde(flatten)]
    facts: F,
}

/// A file under way, with facts about it.
pub struct Journal<F> {
    name: PathBuf,
    path: PathBuf,
    file: File,
    note: Note<F>,
}

/// The hash that an identity is known by.
pub fn fingerprint(identity: &Value) -> String {
    sha256(identity.to_string().as_bytes())
}

fn partial(name: &Path) -> PathBuf {
    let mut path = name.as_os_str().to_owned();
    path.push(".partial");
    path.into()
}

impl<F: Serialize + DeserializeOwned + Default> Journal<F> {
    /// The journal of what will be called `name`: a new one, or what an earlier call with the same identity left.
    ///
    /// # Errors
    /// When that of something else is there, which `other` names with the way out, and when another process is at it.
    pub fn open(name: &Path, identity: &Value, other: &str) -> Result<Self> {
        let path = partial(name);
        make_folder_of(&path)?;
        let identity = fingerprint(identity);
        // A note without its file is what is left of work that was finished.
        let begun = path.exists();
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        // Before anything is believed or cut off: the other process may be in the middle of it.
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            let text = format!("{}: another process is at work on it; wait for it", path.display());
            return Err(Failure::InUse(text).into());
        }
        let there = if begun { Self::note_of(&path)? } else { None };
        if there.as_ref().is_some_and(|note| note.identity != identity) {
            return Err(Failure::Config(format!("{}: {other}", path.display())).into());
        }
        let note = there.unwrap_or_else(|| Note { identity, length: 0, facts: F::default() });
        let mut journal = Self { name: name.to_owned(), path, file, note };
        if journal.file.metadata()?.len() < journal.note.length {
            let text =
                format!("{}: shorter than its note says; remove it and begin anew", journal.path.display());
            return Err(Failure::Data(text).into());
        }
        journal.file.set_len(journal.note.length)?;
        journal.file.seek(SeekFrom::End(0))?;
        Ok(journal)
    }

    /// Where the bytes are.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn note_of(path: &Path) -> Result<Option<Note<F>>> {
        let place = path.with_added_extension("json");
        match fs::read(&place) {
            Ok(bytes) => {
                let note = serde_json::from_slice(&bytes);
                note.map(Some).map_err(|e| Failure::Data(format!("{}: {e}", place.display())).into())
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(anyhow::Error::from(e).context(format!("cannot read {}", place.display()))),
        }
    }

    /// What is kept of the bytes that are safe.
    pub fn facts(&self) -> &F {
        &self.note.facts
    }

    /// Whether there is nothing yet.
    pub fn is_empty(&self) -> bool {
        self.note.length == 0
    }

    /// Appends bytes, for good, and brings the facts up to date.
    pub fn append(&mut self, bytes: &[u8], update: impl FnOnce(&mut F)) -> Result<()> {
        let failed = || format!("cannot write {}", self.path.display());
        self.file.write_all(bytes).and_then(|()| self.file.sync_data()).with_context(failed)?;
        update(&mut self.note.facts);
        self.note.length += bytes.len() as u64;
        let (place, fresh) =
            (self.path.with_added_extension("json"), self.path.with_added_extension("json.new"));
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&fresh)?;
            file.write_all(serde_json::to_string(&self.note)?.as_bytes())?;
            file.sync_data()?;
            fs::rename(&fresh, &place)
        };
        write().with_context(|| format!("cannot write {}", place.display()))
    }

    /// All bytes.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        fs::read(&self.path).with_context(|| format!("cannot read {}", self.path.display()))
    }

    /// Gives the file its name, in place of one that may be there.
    pub fn finish(self) -> Result<()> {
        fs::rename(&self.path, &self.name)
            .with_context(|| format!("cannot rename {}", self.path.display()))?;
        match fs::remove_file(self.path.with_added_extension("json")) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.into()),
            _ => Ok(()),
        }
    }

    /// Removes the journal, once what was in it stands elsewhere. Another journal of the same file may have done it.
    pub fn remove(self) -> Result<()> {
        for path in [self.path.with_added_extension("json"), self.path] {
            match fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(anyhow::Error::from(e).context(format!("cannot remove {}", path.display())));
                }
                _ => {}
            }
        }
        Ok(())
    }
}
