//! Event files for TensorBoard: they say what the log says, change nothing of the run, and begin anew where a run goes on.

use serde_json::Value;

use crate::support::{Outcome, POINTS, Place};

/// What a record of an event file says: its step, and its scalars; a start of a session, or nothing.
#[derive(Debug, PartialEq)]
enum Said {
    Version(String),
    Start(u64),
    Scalars(u64, Vec<(String, f32)>),
}

/// CRC-32C bit by bit, masked.
fn masked(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    let crc = !crc;
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

fn take<'a>(bytes: &mut &'a [u8], n: usize) -> &'a [u8] {
    let (head, tail) = bytes.split_at(n);
    *bytes = tail;
    head
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = take(bytes, 1)[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return value;
        }
        shift += 7;
    }
}

/// The fields of a message: number, and the value as bytes or as a number.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>, u64)> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        found.push(match key & 7 {
            0 => (key >> 3, Vec::new(), varint(&mut bytes)),
            1 => (key >> 3, take(&mut bytes, 8).to_vec(), 0),
            2 => {
                let n = varint(&mut bytes) as usize;
                (key >> 3, take(&mut bytes, n).to_vec(), 0)
            }
            5 => (key >> 3, take(&mut bytes, 4).to_vec(), 0),
            other => panic!("a field of type {other}"),
        });
    }
    found
}

fn read(bytes: &[u8]) -> Vec<Said> {
    let (mut bytes, mut found) = (bytes, Vec::new());
    let u32_of = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("four bytes"));
    while !bytes.is_empty() {
        let length = take(&mut bytes, 8);
        assert_eq!(u32_of(take(&mut bytes, 4)), masked(length));
        let n = u64::from_le_bytes(length.try_into().expect("eight bytes")) as usize;
        let data = take(&mut bytes, n);
        assert_eq!(u32_of(take(&mut bytes, 4)), masked(data));
        let event = fields(data);
        let field = |number: u64| event.iter().find(|(found, ..)| *found == number);
        let step = field(2).map_or(0, |(_, _, step)| *step);
        if let Some((_, version, _)) = field(3) {
            found.push(Said::Version(String::from_utf8_lossy(version).into_owned()));
        } else if let Some((_, session, _)) = field(7) {
            assert_eq!(fields(session), [(1, vec![], 1)]);
            found.push(Said::Start(step));
        } else if let Some((_, summary, _)) = field(5) {
            let scalars = fields(summary).into_iter().map(|(_, value, _)| {
                let parts = fields(&value);
                let value = f32::from_le_bytes(parts[1].1.as_slice().try_into().expect("four bytes"));
                (String::from_utf8_lossy(&parts[0].1).into_owned(), value)
            });
            found.push(Said::Scalars(step, scalars.collect()));
        }
    }
    found
}

/// The lines of a log that were written at steps after `after`, as events.
fn logged(log: &str, after: u64) -> Vec<Said> {
    let keys = ["loss", "gradient_norm", "learning_rate", "held_out_loss"];
    let event = |line: &str| {
        let line: Value = serde_json::from_str(line).expect("a line of JSON");
        let scalar = |key: &&str| Some((key.to_string(), line.get(key)?.as_f64()? as f32));
        Said::Scalars(line["step"].as_u64().expect("a step"), keys.iter().filter_map(scalar).collect())
    };
    let late = |said: &Said| matches!(said, Said::Scalars(step, _) if *step > after);
    log.lines().map(event).filter(late).collect()
}

fn events(place: &Place, run: &str) -> Vec<Vec<Said>> {
    let folder = format!("{run}/tensorboard");
    let read_file =
        |name: &String| read(&std::fs::read(place.path(&format!("{folder}/{name}"))).expect("a file"));
    place.names(&folder).iter().map(read_file).collect()
}

#[test]
fn event_files_say_what_the_log_says_and_change_nothing() {
    let place = Place::new();
    place.run(&format!("train {POINTS} --out plain"));
    assert!(place.names("plain/tensorboard").is_empty(), "written only where asked for");
    let key = "--set train.tensorboard=true";
    place.run(&format!("train {POINTS} {key} --out whole"));
    place.run(&format!("train {POINTS} {key} --steps 12 --out parts"));
    place.run("train parts --resume");

    let plain = Outcome::of(&place, "plain");
    for run in ["whole", "parts"] {
        let found = Outcome::of(&place, run);
        assert_eq!((found.log, found.files), (plain.log.clone(), plain.files.clone()), "{run}");
    }
    let whole = events(&place, "whole");
    let [Said::Version(version), Said::Start(1), scalars @ ..] = whole[0].as_slice() else {
        panic!("{:?}", whole[0]);
    };
    assert_eq!((version.as_str(), whole.len()), ("brain.Event:2", 1));
    assert_eq!(scalars, logged(&plain.log, 0));
    assert!(plain.log.contains("held_out_loss"));

    let parts = events(&place, "parts");
    assert_eq!(parts.len(), 2, "a file for each call");
    assert_eq!(parts[1][1], Said::Start(13));
    assert_eq!(parts[1][2..], logged(&plain.log, 12));
    assert_eq!(parts[0].len() + parts[1].len() - 4, plain.log.lines().count());
}

/// The key bears on nothing, so a run may go on with it that was begun without.
#[test]
fn a_run_may_take_it_up() {
    let place = Place::new();
    place.run(&format!("train {POINTS} --steps 10 --out run"));
    place.run("train run --resume --set train.tensorboard=true");
    assert_eq!(events(&place, "run").len(), 1);
    assert_eq!(events(&place, "run")[0][2..], logged(&place.text("run/log.jsonl"), 10));
}
