//! Data sets known by name: found in a directory under their official file names, else fetched (feature
//! `hub`).
//!
//! The folder is looked into first. What is there is used and never completed from elsewhere: half a data set is an error. A file of the published length must have the
//! published SHA-256 (where one is known); files of other lengths are the user's own and only have to be well
//! formed.
//!
//! Reference: LeCun, Cortes, Burges 1998 (MNIST); Xiao, Rasul, Vollgraf 2017, arXiv 1708.07747
//! (Fashion-MNIST); Krizhevsky 2009 (CIFAR-10).

use std::path::{Path, PathBuf};

use crate::read::cifar;
use crate::read::idx::{images_of, parse_idx};
use crate::read::source::{check_published, gunzip, read_file};
use crate::{Error, Images, Result, Split};

/// A data set with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// 28×28 grey handwritten digits, 60,000 + 10,000.
    Mnist,
    /// 28×28 grey pictures of clothes, 60,000 + 10,000.
    FashionMnist,
    /// 32×32 colour pictures, 50,000 + 10,000.
    Cifar10,
}

/// How far a file has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<'a> {
    /// The file on its way.
    pub file: &'a str,
    /// The bytes that are here.
    pub done: u64,
    /// The bytes that it has; 0 if unknown.
    pub total: u64,
}

/// An official IDX file: name, length and SHA-256 without compression.
struct Published {
    name: &'static str,
    length: u64,
    sha256: [&'static str; 2],
}

/// Images and labels of each split; hashes of MNIST and of Fashion-MNIST.
const IDX_FILES: [[Published; 2]; 2] = [
    [
        Published {
            name: "train-images-idx3-ubyte",
            length: 47_040_016,
            sha256: [
                "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            ],
        },
        Published {
            name: "train-labels-idx1-ubyte",
            length: 60_008,
            sha256: [
                "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            ],
        },
    ],
    [
        Published {
            name: "t10k-images-idx3-ubyte",
            length: 7_840_016,
            sha256: [
                "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            ],
        },
        Published {
            name: "t10k-labels-idx1-ubyte",
            length: 10_008,
            sha256: [
                "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
                "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            ],
        },
    ],
];

impl Named {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Mnist, Self::FashionMnist, Self::Cifar10];

    /// The name, which is that of its usual folder too.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mnist => "mnist",
            Self::FashionMnist => "fashion-mnist",
            Self::Cifar10 => "cifar10",
        }
    }

    /// The data set of this name.
    ///
    /// # Errors
    /// If there is none; the error lists the names.
    pub fn by_name(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|set| set.name() == name).ok_or_else(|| Error::Unknown {
            what: "data set",
            name: name.into(),
            known: Self::ALL.map(Self::name).join(", "),
        })
    }

    /// A split, from the data set's own folder or from the hub; `progress` hears of what is fetched. Only
    /// CIFAR-10, and only on the disk, may be partial.
    ///
    /// # Errors
    /// If a file is malformed or damaged, or the split is neither on the disk nor can be fetched: then the
    /// error says which files to put where.
    pub fn load(
        self,
        split: Split,
        folder: &Path,
        allow_partial: bool,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Images> {
        match self.find(split, folder, allow_partial)? {
            Some(images) => Ok(images),
            None => self.fetch(split, folder, progress),
        }
    }

    /// The split in its own folder, or nothing if none of its files is there.
    fn find(self, split: Split, folder: &Path, allow_partial: bool) -> Result<Option<Images>> {
        if self == Self::Cifar10 {
            let any = cifar::file_names(split).iter().any(|name| folder.join(name).is_file());
            return if any { cifar::read_cifar10(folder, split, allow_partial).map(Some) } else { Ok(None) };
        }
        let [images, labels] = self.idx_files(split);
        match (on_disk(folder, images.name), on_disk(folder, labels.name)) {
            (Some(image_file), Some(label_file)) => {
                let pixels = parse_idx(&self.verified(images, &image_file)?, &image_file)?;
                let classes = parse_idx(&self.verified(labels, &label_file)?, &label_file)?;
                Ok(Some(images_of(pixels, &image_file, classes, &label_file)?.with_classes(10)?))
            }
            (None, None) => Ok(None),
            (Some(there), None) | (None, Some(there)) => {
                Err(self.missing(split, folder, format!("of the two there is only {}", there.display())))
            }
        }
    }

    fn idx_files(self, split: Split) -> &'static [Published; 2] {
        let [train, test] = &IDX_FILES;
        match split {
            Split::Train => train,
            Split::Test => test,
        }
    }

    fn verified(self, published: &Published, path: &Path) -> Result<Vec<u8>> {
        let bytes = gunzip(read_file(path)?, path)?;
        let [mnist, fashion] = published.sha256;
        let sha256 = if self == Self::Mnist { mnist } else { fashion };
        check_published(&bytes, path, published.length, sha256)?;
        Ok(bytes)
    }

    fn missing(self, split: Split, folder: &Path, reason: String) -> Error {
        let (set, files) = match self {
            Self::Cifar10 => ("CIFAR-10", cifar::file_names(split).join(", ")),
            Self::Mnist | Self::FashionMnist => {
                let names: Vec<&str> = self.idx_files(split).iter().map(|file| file.name).collect();
                let set = if self == Self::Mnist { "MNIST" } else { "Fashion-MNIST" };
                (set, format!("{} (or both with .gz)", names.join(" and ")))
            }
        };
        Error::Missing { set, files, directory: folder.to_owned(), reason }
    }

    #[cfg(feature = "hub")]
    fn fetch(self, split: Split, folder: &Path, progress: &mut dyn FnMut(Progress<'_>)) -> Result<Images> {
        self.fetch_from(&crate::hub::Hub::official(), split, folder, progress)
    }

    #[cfg(feature = "hub")]
    fn fetch_from(
        self,
        hub: &crate::hub::Hub,
        split: Split,
        folder: &Path,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Images> {
        use crate::hub::Failure;
        hub.images(self, split, progress).map_err(|failure| match failure {
            Failure::Wrong(error) => error,
            Failure::Unreachable(reason) => self.missing(split, folder, format!("fetching failed: {reason}")),
        })
    }

    #[cfg(not(feature = "hub"))]
    fn fetch(self, split: Split, folder: &Path, _progress: &mut dyn FnMut(Progress<'_>)) -> Result<Images> {
        let reason = "this program was built without the feature `hub`, which fetches it".into();
        Err(self.missing(split, folder, reason))
    }
}

/// The file of this name, or with `.gz`.
fn on_disk(folder: &Path, name: &str) -> Option<PathBuf> {
    [folder.join(name), folder.join(format!("{name}.gz"))].into_iter().find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dataset;
    use crate::read::source::gzip;

    fn temporary() -> Result<tempfile::TempDir> {
        tempfile::tempdir().map_err(Error::io(Path::new("temporary directory")))
    }

    fn put(path: &Path, bytes: &[u8]) -> Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        }
        std::fs::write(path, bytes).map_err(Error::io(path))
    }

    fn idx(shape: &[u32], entries: impl IntoIterator<Item = u8>) -> Vec<u8> {
        let sizes = shape.iter().flat_map(|s| s.to_be_bytes());
        [0, 0, 8, shape.len() as u8].into_iter().chain(sizes).chain(entries).collect()
    }

    fn load(set: Named, split: Split, root: &Path) -> Result<Images> {
        set.find(split, &root.join(set.name()), false)?.ok_or(Error::Empty("the folder"))
    }

    #[test]
    fn official_names_are_found_compressed_or_not() -> Result<()> {
        let directory = temporary()?;
        let root = directory.path();
        put(&root.join("mnist/train-images-idx3-ubyte.gz"), &gzip(&idx(&[2, 2, 2], 0..8)))?;
        let message = load(Named::Mnist, Split::Train, root).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(message.contains("of the two there is only"), "{message}");
        put(&root.join("mnist/train-labels-idx1-ubyte"), &idx(&[2], [5, 1]))?;
        let train = load(Named::Mnist, Split::Train, root)?;
        assert_eq!((train.len(), train.classes(), train.label(0)?), (2, 10, Some(5)));
        assert!(matches!(load(Named::Mnist, Split::Test, root), Err(Error::Empty(_))));
        assert!(matches!(load(Named::FashionMnist, Split::Train, root), Err(Error::Empty(_))));
        let record: Vec<u8> = [vec![7; 3073], vec![9; 3073]].concat();
        put(&root.join("cifar10/test_batch.bin"), &record)?;
        assert_eq!(load(Named::Cifar10, Split::Test, root)?.len(), 2);
        Ok(())
    }

    #[test]
    fn a_file_of_the_published_length_has_the_published_hash() -> Result<()> {
        let directory = temporary()?;
        let root = directory.path();
        put(&root.join("fashion-mnist/t10k-images-idx3-ubyte"), &idx(&[1, 2, 2], 0..4))?;
        let labels = root.join("fashion-mnist/t10k-labels-idx1-ubyte.gz");
        put(&labels, &gzip(&idx(&[10_000], (0..10_000).map(|i| (i % 10) as u8))))?;
        let message =
            load(Named::FashionMnist, Split::Test, root).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(message.contains("the published file has 0402a96d"), "{message}");
        Ok(())
    }

    #[cfg(feature = "hub")]
    #[test]
    fn offline_the_error_says_which_files_to_put_where() -> Result<()> {
        let directory = temporary()?;
        let hub = crate::hub::Hub::unreachable(directory.path());
        for (set, split, start) in [
            (
                Named::Mnist,
                Split::Train,
                "MNIST not found: put train-images-idx3-ubyte and train-labels-idx1-ubyte (or both",
            ),
            (
                Named::FashionMnist,
                Split::Test,
                "Fashion-MNIST not found: put t10k-images-idx3-ubyte and t10k-labels",
            ),
            (Named::Cifar10, Split::Test, "CIFAR-10 not found: put test_batch.bin into "),
        ] {
            let error =
                set.fetch_from(&hub, split, &Path::new("datasets").join(set.name()), &mut |_| {}).err();
            let message = error.map(|e| e.to_string()).unwrap_or_default();
            assert!(message.starts_with(start), "{message}");
            assert!(
                message.contains(&format!("into datasets/{} (fetching failed: ", set.name())),
                "{message}"
            );
            assert_eq!(message.lines().count(), 1, "{message}");
        }
        Ok(())
    }

    #[test]
    fn names() -> Result<()> {
        for set in Named::ALL {
            assert_eq!(Named::by_name(set.name())?, set);
        }
        let message = Named::by_name("cifar-10").err().map(|e| e.to_string());
        assert_eq!(
            message.as_deref(),
            Some("unknown data set \"cifar-10\"; known: mnist, fashion-mnist, cifar10")
        );
        Ok(())
    }
}
