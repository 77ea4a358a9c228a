//! Fetching data sets, and files of models, from the hub into its usual cache.
//!
//! The client has no time-outs of its own that hold everywhere, so the download runs in a thread of its own
//! and is given up when no byte comes for a while. What comes is compared with the SHA-256 that the hub names
//! it by; a wrong file is removed.
//!
//! MNIST and Fashion-MNIST are then decoded by candle-datasets, which finds the verified files in the cache.
//! CIFAR-10 is read by our own reader: candle-datasets 0.11 transposes its images.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use candle_core::DType;
use hf_hub::progress::{DownloadEvent, ProgressEvent, ProgressHandler};
use hf_hub::{HFClientBuilder, HFError};
use ndarray::Array4;

use crate::named::{Named, Progress};
use crate::read::Channels;
use crate::read::parquet::read_parquet;
use crate::read::source::{read_file, sha256};
use crate::{Error, Images, Result, Split};

/// The branch that holds every data set as Parquet.
const REVISION: &str = "refs/convert/parquet";

/// Fetches a file of a model's repository `OWNER/NAME` into the hub's cache, unless it is there; all files of one
/// repository are in one folder there, under their own paths.
///
/// # Errors
/// [`Error::Fetch`] with the reason why it cannot be had, [`Error::Hash`] where another file came than the hub names.
pub fn model_file(repository: &str, file: &str, progress: &mut dyn FnMut(Progress<'_>)) -> Result<PathBuf> {
    Hub::official().model_file(repository, file, progress)
}

/// Where a file is.
#[derive(Debug, Clone)]
struct Wanted {
    owner: String,
    name: String,
    file: String,
    /// A model; otherwise a data set, of which the branch of Parquet files is meant.
    model: bool,
}

/// Where to fetch from.
#[derive(Debug, Clone)]
pub(crate) struct Hub {
    /// Another address than the official one, and a cache of its own.
    elsewhere: Option<(String, PathBuf)>,
    /// How long to wait for the next byte.
    patience: Duration,
}

/// What the downloading thread has to say.
enum Message {
    Bytes { done: u64, total: u64 },
    Done(Result<PathBuf, String>),
}

/// Why there are no images.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The hub could not be reached, or has not got them.
    Unreachable(String),
    /// What came is wrong.
    Wrong(Error),
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Wrong(error.into())
    }
}

struct Listener(Sender<Message>);

impl ProgressHandler for Listener {
    fn on_progress(&self, event: &ProgressEvent) {
        let (done, total) = match event {
            ProgressEvent::Download(DownloadEvent::Progress { files }) => {
                (files.iter().map(|f| f.bytes_completed).sum(), files.iter().map(|f| f.total_bytes).sum())
            }
            ProgressEvent::Download(DownloadEvent::AggregateProgress {
                bytes_completed,
                total_bytes,
                ..
            }) => (*bytes_completed, *total_bytes),
            _ => return,
        };
        // Nobody listens any more once the download was given up.
        let _ = self.0.send(Message::Bytes { done, total });
    }
}

impl Hub {
    /// The hub itself, or what the environment variable `HF_ENDPOINT` says.
    pub(crate) fn official() -> Self {
        Self { elsewhere: None, patience: Duration::from_secs(30) }
    }

    /// An address where nobody answers.
    #[cfg(test)]
    pub(crate) fn unreachable(cache: &Path) -> Self {
        let elsewhere = Some(("http://127.0.0.1:1".into(), cache.join("cache")));
        Self { elsewhere, patience: Duration::from_secs(20) }
    }

    /// A split.
    pub(crate) fn images(
        &self,
        set: Named,
        split: Split,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Images, Failure> {
        let (owner, name, folder) = match set {
            Named::Mnist => ("ylecun", "mnist", "mnist"),
            Named::FashionMnist => ("zalando-datasets", "fashion_mnist", "fashion_mnist"),
            Named::Cifar10 => ("uoft-cs", "cifar10", "plain_text"),
        };
        let mut get = |split: Split| -> Result<PathBuf, Failure> {
            let file = format!("{folder}/{}/0000.parquet", split.name());
            let wanted = Wanted { owner: owner.into(), name: name.into(), file, model: false };
            let path = self.download(wanted, progress).map_err(Failure::Unreachable)?;
            verify(&path)?;
            Ok(path)
        };
        let path = get(split)?;
        let both = match set {
            Named::Cifar10 => return Ok(read_parquet(&path, Channels::Rgb, [0; 3])?.with_classes(10)?),
            // The loaders read both splits.
            Named::Mnist | Named::FashionMnist => {
                get(if split == Split::Train { Split::Test } else { Split::Train })?;
                let load = match set {
                    Named::Mnist => candle_datasets::vision::mnist::load,
                    _ => candle_datasets::vision::fashion_mnist::load,
                };
                load()?
            }
        };
        let (pixels, labels) = match split {
            Split::Train => (both.train_images, both.train_labels),
            Split::Test => (both.test_images, both.test_labels),
        };
        // The loaders divide bytes by 255.
        let pixels =
            pixels.flatten_all()?.to_vec1::<f32>()?.into_iter().map(|v| (255.0 * v).round() as u8).collect();
        let labels = labels.to_dtype(DType::U32)?.to_vec1::<u32>()?;
        let pixels = Array4::from_shape_vec((labels.len(), 1, 28, 28), pixels)
            .map_err(|e| Error::mismatch("images of the hub", "28×28 pixels", e.to_string()))?;
        Ok(Images::new(pixels, Some(labels))?.with_classes(10)?)
    }

    /// A file in the cache, fetched first if it is not there; the error is the reason why it cannot be had.
    fn download(&self, wanted: Wanted, progress: &mut dyn FnMut(Progress<'_>)) -> Result<PathBuf, String> {
        let (sender, messages) = channel();
        let (hub, file) = (self.clone(), wanted.file.clone());
        let work = move || {
            let done = hub.download_now(&wanted, Listener(sender.clone()));
            let _ = sender.send(Message::Done(done.map_err(|e| e.to_string())));
        };
        // Not joined: a thread that waits for a silent server can only be left behind.
        std::thread::Builder::new().name("fetch".into()).spawn(work).map_err(|e| e.to_string())?;
        let (mut most, mut deadline) = (0, Instant::now() + self.patience);
        loop {
            match messages.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Message::Done(outcome)) => return outcome,
                Ok(Message::Bytes { done, total }) => {
                    if done > most {
                        (most, deadline) = (done, Instant::now() + self.patience);
                    }
                    progress(Progress { file: &file, done, total });
                }
                Err(_) => {
                    return Err(format!("no byte of {file} came for {} s", self.patience.as_secs_f64()));
                }
            }
        }
    }

    fn download_now(&self, wanted: &Wanted, listener: Listener) -> Result<PathBuf, HFError> {
        let builder = HFClientBuilder::new().retry_max_attempts(2);
        let client = match &self.elsewhere {
            Some((endpoint, cache)) => builder.endpoint(endpoint).cache_dir(cache).build_sync()?,
            None => builder.build_sync()?,
        };
        let Wanted { owner, name, file, model } = wanted;
        if *model {
            let repository = client.model(owner, name);
            let request = || repository.download_file().filename(file);
            return match request().local_files_only(true).send() {
                Err(HFError::LocalEntryNotFound { .. }) => request().progress(listener).send(),
                cached => cached,
            };
        }
        let repository = client.dataset(owner, name);
        let request = || repository.download_file().filename(file).revision(REVISION);
        match request().local_files_only(true).send() {
            Err(HFError::LocalEntryNotFound { .. }) => request().progress(listener).send(),
            cached => cached,
        }
    }

    fn model_file(
        &self,
        repository: &str,
        file: &str,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<PathBuf> {
        let failed = |reason: String| Error::Fetch { what: format!("{file} of {repository}"), reason };
        let (owner, name) = repository.split_once('/').ok_or_else(|| failed("it is no OWNER/NAME".into()))?;
        let wanted = Wanted { owner: owner.into(), name: name.into(), file: file.into(), model: true };
        let path = self.download(wanted, progress).map_err(failed)?;
        verify(&path)?;
        Ok(path)
    }
}

/// Compares a cached file with its name, where that is a SHA-256, and removes it if it differs.
fn verify(path: &Path) -> Result<()> {
    let blob = path.canonicalize().map_err(Error::io(path))?;
    let name = blob.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if name.len() != 64 || !name.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(());
    }
    let found = sha256(&read_file(&blob)?);
    if found == name {
        return Ok(());
    }
    std::fs::remove_file(&blob).map_err(Error::io(&blob))?;
    Err(Error::Hash { file: blob, expected: name, found })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn temporary() -> Result<tempfile::TempDir> {
        tempfile::tempdir().map_err(Error::io(Path::new("temporary directory")))
    }

    /// A hub at a local port.
    fn at(listener: &TcpListener, cache: &Path) -> Result<Hub> {
        let address = listener.local_addr().map_err(Error::io(Path::new("loopback")))?;
        let elsewhere = Some((format!("http://{address}"), cache.join("cache")));
        Ok(Hub { elsewhere, patience: Duration::from_millis(500) })
    }

    fn loopback() -> Result<TcpListener> {
        TcpListener::bind("127.0.0.1:0").map_err(Error::io(Path::new("loopback")))
    }

    #[test]
    fn silent_and_absent_servers_end_in_a_reason() -> Result<()> {
        let directory = temporary()?;
        let reason = |hub: &Hub, set| match hub.images(set, Split::Train, &mut |_| {}) {
            Err(Failure::Unreachable(reason)) => reason,
            other => format!("{other:?}"),
        };
        let silent = loopback()?;
        let hub = at(&silent, directory.path())?;
        assert_eq!(reason(&hub, Named::Mnist), "no byte of mnist/train/0000.parquet came for 0.5 s");
        let gone = reason(&Hub::unreachable(directory.path()), Named::Cifar10);
        assert!(gone.contains("request"), "{gone}");
        Ok(())
    }

    #[test]
    fn a_cached_file_is_checked_against_its_name() -> Result<()> {
        let directory = temporary()?;
        let write = |name: &str, bytes: &[u8]| {
            let path = directory.path().join(name);
            std::fs::write(&path, bytes).map_err(Error::io(&path)).map(|()| path)
        };
        let good = write(&sha256(b"good"), b"good")?;
        verify(&good)?;
        let bad = write(&sha256(b"better"), b"worse")?;
        assert!(matches!(verify(&bad), Err(Error::Hash { .. })));
        assert!(!bad.exists() && good.exists());
        verify(&write("an-etag-of-another-kind", b"anything")?)
    }

    #[test]
    fn cifar_comes_through_our_own_reader_from_the_cache() -> Result<()> {
        // The cache as the hub's clients lay it out, with the fixture of the Parquet reader in the place of
        // CIFAR-10.
        let directory = temporary()?;
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pictures.parquet");
        let bytes = read_file(&fixture)?;
        let root = directory.path().join("cache/datasets--uoft-cs--cifar10");
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let folder = root.join("snapshots").join(commit).join("plain_text/test");
        let reference = root.join("refs").join(REVISION);
        for needed in [&folder, &reference.parent().unwrap_or(&root).to_owned()] {
            std::fs::create_dir_all(needed).map_err(Error::io(needed))?;
        }
        std::fs::write(&reference, commit).map_err(Error::io(&reference))?;
        std::fs::write(folder.join("0000.parquet"), bytes).map_err(Error::io(&folder))?;
        let gone = loopback()?;
        let hub = at(&gone, directory.path())?;
        let images = hub.images(Named::Cifar10, Split::Test, &mut |_| {});
        assert_eq!(images.ok().map(|images| crate::Dataset::len(&images)), Some(7));
        Ok(())
    }

    #[test]
    fn files_of_a_model_come_from_the_cache_and_lie_in_one_folder() -> Result<()> {
        let directory = temporary()?;
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let root = directory.path().join("cache/models--owner--net");
        let snapshot = root.join("snapshots").join(commit);
        let write = |path: PathBuf, bytes: &[u8]| {
            std::fs::create_dir_all(path.parent().unwrap_or(&root)).map_err(Error::io(&root))?;
            std::fs::write(&path, bytes).map_err(Error::io(&path))
        };
        write(root.join("refs/main"), commit.as_bytes())?;
        write(snapshot.join("unet/config.json"), b"{}")?;
        write(snapshot.join("scheduler/scheduler_config.json"), b"{}")?;
        let hub = Hub::unreachable(directory.path());
        for file in ["unet/config.json", "scheduler/scheduler_config.json"] {
            assert_eq!(hub.model_file("owner/net", file, &mut |_| {})?, snapshot.join(file));
        }
        let gone = hub.model_file("owner/net", "other.bin", &mut |_| {});
        assert!(
            matches!(&gone, Err(Error::Fetch { what, .. }) if what == "other.bin of owner/net"),
            "{gone:?}"
        );
        assert!(matches!(hub.model_file("net", "config.json", &mut |_| {}), Err(Error::Fetch { .. })));
        Ok(())
    }
}
