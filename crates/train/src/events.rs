//! The log of a run once more, as event files that TensorBoard reads: `tensorboard/events.out.tfevents.…` in the run's directory.
//!
//! A file is a sequence of records, `length u64 · crc(length) u32 · bytes · crc(bytes) u32`, little-endian, each checksum a CRC-32C masked
//! as `rotate_right(crc, 15) + 0xa282ead8`; the bytes are a protocol buffer `Event`: time, step, and a version, the start of a session or
//! scalars.
//!
//! Events carry the time of day, so they are no part of a run's state: nothing is read back, and every call of training begins a file of
//! its own, whose session starts at the step it goes on from. TensorBoard then forgets what earlier files say of later steps, as the log
//! does.
//!
//! Reference: the comments of `record_writer.h`, `event.proto` and `summary.proto` in TensorFlow for the formats; RFC 3720, appendix B.4,
//! for the checksum.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::{Error, LogRecord, Result};

/// Where in a run's directory they are.
const DIRECTORY: &str = "tensorboard";

/// An event file being written.
#[derive(Debug)]
pub(crate) struct Events {
    path: PathBuf,
    file: File,
}

impl Events {
    /// Begins a file in the directory `run`, for a session that goes on from `step`.
    pub fn create(run: &Path, step: u64) -> Result<Self> {
        let folder = run.join(DIRECTORY);
        fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
        let seconds = now() as u64;
        // TensorBoard reads files in the order of their names.
        let names = (0..u32::MAX).map(|n| folder.join(format!("events.out.tfevents.{seconds:010}.{n:04}")));
        for path in names {
            match File::create_new(&path) {
                Ok(file) => {
                    let mut events = Self { path, file };
                    events.write(&Event { time: now(), step: 0, what: What::Version })?;
                    // What is logged next comes after `step`.
                    events.write(&Event { time: now(), step: step + 1, what: What::Start })?;
                    return Ok(events);
                }
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::io("create", &path)(error)),
            }
        }
        let source = std::io::Error::other("all numbers are taken");
        Err(Error::io("create", &folder)(source))
    }

    /// Adds a line of the log: one scalar for each of its numbers.
    pub fn log(&mut self, record: &LogRecord) -> Result<()> {
        let LogRecord { step, loss, gradient_norm, learning_rate, terms, held_out_loss } = record;
        let mut scalars = vec![
            ("loss".to_owned(), *loss),
            ("gradient_norm".to_owned(), *gradient_norm),
            ("learning_rate".to_owned(), *learning_rate),
        ];
        scalars.extend(held_out_loss.map(|loss| ("held_out_loss".to_owned(), loss)));
        scalars.extend(terms.iter().map(|(name, value)| (format!("terms/{name}"), *value)));
        self.write(&Event { time: now(), step: *step, what: What::Scalars(&scalars) })
    }

    fn write(&mut self, event: &Event<'_>) -> Result<()> {
        self.file.write_all(&framed(&event.bytes())).map_err(Error::io("write", &self.path))
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// A record around `bytes`.
fn framed(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u64).to_le_bytes();
    [&length[..], &masked(&length).to_le_bytes(), bytes, &masked(bytes).to_le_bytes()].concat()
}

fn masked(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// A message `Event`.
struct Event<'a> {
    time: f64,
    step: u64,
    what: What<'a>,
}

enum What<'a> {
    /// `file_version`, what every file begins with.
    Version,
    /// `session_log` with the status START.
    Start,
    /// `summary` with a `simple_value` for each tag.
    Scalars(&'a [(String, f64)]),
}

impl Event<'_> {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![tag(1, Wire::Fixed64)];
        bytes.extend(self.time.to_le_bytes());
        bytes.push(tag(2, Wire::Varint));
        varint(self.step, &mut bytes);
        match self.what {
            What::Version => delimited(3, b"brain.Event:2", &mut bytes),
            What::Start => delimited(7, &[tag(1, Wire::Varint), 1], &mut bytes),
            What::Scalars(scalars) => {
                let mut summary = Vec::new();
                for (name, value) in scalars {
                    let mut entry = Vec::new();
                    delimited(1, name.as_bytes(), &mut entry);
                    entry.push(tag(2, Wire::Fixed32));
                    entry.extend((*value as f32).to_le_bytes());
                    delimited(1, &entry, &mut summary);
                }
                delimited(5, &summary, &mut bytes);
            }
        }
        bytes
    }
}

/// How the value of a field is written.
#[derive(Clone, Copy)]
enum Wire {
    Varint = 0,
    Fixed64 = 1,
    Delimited = 2,
    Fixed32 = 5,
}

/// The key of field `number`, below 16.
fn tag(number: u8, wire: Wire) -> u8 {
    number << 3 | wire as u8
}

/// Seven bits a byte, the lowest first.
fn varint(mut value: u64, into: &mut Vec<u8>) {
    while value >= 0x80 {
        into.push(value as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}

fn delimited(number: u8, bytes: &[u8], into: &mut Vec<u8>) {
    into.push(tag(number, Wire::Delimited));
    varint(bytes.len() as u64, into);
    into.extend(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of RFC 3720, appendix B.4.
    #[test]
    fn the_checksum_is_that_of_iscsi() {
        let ascending: Vec<u8> = (0..32).collect();
        let descending: Vec<u8> = (0..32).rev().collect();
        for (bytes, expected) in [
            (&[0u8; 32][..], 0x8a91_36aa_u32),
            (&[0xff; 32], 0x62a8_ab43),
            (&ascending, 0x46dd_794e),
            (&descending, 0x113f_db5c),
            (b"123456789", 0xe306_9283),
        ] {
            assert_eq!(crc32c::crc32c(bytes), expected);
            assert_eq!(masked(bytes), expected.rotate_right(15).wrapping_add(0xa282_ead8));
        }
    }

    /// Put together by hand from the definition of the messages.
    #[test]
    fn an_event_is_these_bytes() {
        let scalars = [("loss".to_owned(), 0.5)];
        let event = Event { time: 2.0, step: 300, what: What::Scalars(&scalars) };
        let mut expected = vec![0x09, 0, 0, 0, 0, 0, 0, 0, 0x40];
        expected.extend([0x10, 0xac, 0x02]);
        expected.extend([0x2a, 13, 0x0a, 11, 0x0a, 4, b'l', b'o', b's', b's', 0x15, 0, 0, 0, 0x3f]);
        assert_eq!(event.bytes(), expected);
        let record = framed(&expected);
        assert_eq!(record.len(), 8 + 4 + expected.len() + 4);
        assert_eq!(record[..8], 27u64.to_le_bytes());
        assert_eq!(record[12..12 + expected.len()], expected);
        let start = Event { time: 0.0, step: 1, what: What::Start };
        assert_eq!(start.bytes()[9..], [0x10, 1, 0x3a, 2, 0x08, 1]);
    }
}
