//! Readers of the formats that data comes in, one a file.
//!
//! Files are material to distrust: every size that a header states is checked against the bytes that are
//! there before anything is allocated, what is decompressed is bounded (to 200 times its
//! compressed size, 32 MiB at least, and to 8 GiB a file), and whatever is wrong is a typed error with the
//! file and the place.

pub mod amber;
pub mod cifar;
pub mod csv;
pub mod folder;
pub mod idx;
pub mod npy;
pub mod npz;
pub mod parquet;
mod picture;
pub(crate) mod source;

pub use picture::Channels;
