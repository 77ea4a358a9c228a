//! Writing so that a power cut leaves the old state or the new one: contents are forced to the disk before a name
//! refers to them, and names before anything relies on them.
//!
//! Reference: Pillai et al. 2014, "All file systems are not created equal", OSDI, on why each of the three is needed.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// Creates a file that does not exist yet, with its contents on the disk.
pub(crate) fn create(path: &Path, contents: &[u8]) -> Result<()> {
    let mut file = File::create_new(path).map_err(Error::io("create", path))?;
    file.write_all(contents).map_err(Error::io("write", path))?;
    file.sync_all().map_err(Error::io("force to disk", path))
}

/// Forces the names in a directory to the disk; a no-op where a directory cannot be opened as a file.
pub(crate) fn sync_directory(path: &Path) -> Result<()> {
    if cfg!(unix) {
        // The parent of a bare name is empty: it is the working directory.
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        File::open(path).and_then(|dir| dir.sync_all()).map_err(Error::io("force to disk", path))?;
    }
    Ok(())
}

/// Renames, for good.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(Error::io("rename to", to))?;
    to.parent().map_or(Ok(()), sync_directory)
}

/// The names in a directory, sorted; names that are not Unicode are shown with replacement characters, so they match
/// nothing.
pub(crate) fn names(path: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(path).map_err(Error::io("read", path))?;
    let mut names = entries
        .map(|entry| Ok(entry.map_err(Error::io("read", path))?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<Vec<_>>>()?;
    names.sort_unstable();
    Ok(names)
}

/// Makes a directory that nobody had made before: the first of `candidates` that is free.
pub(crate) fn create_first_free(candidates: impl Iterator<Item = PathBuf>) -> Result<PathBuf> {
    for path in candidates {
        match fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Error::io("create", &path)(error)),
        }
    }
    let source = std::io::Error::other("all numbers are taken");
    Err(Error::Io { action: "create", path: PathBuf::new(), source })
}
