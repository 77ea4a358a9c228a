//! A disk that fills up, a checkpoint that is damaged: training ends with a word, loses nothing that was saved, and goes on from there.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::{Called, IMAGES, Outcome, Place};

/// Exit codes, as `src/exit.rs` documents them.
const DATA: i32 = 65;
const IO: i32 = 74;

#[test]
fn a_disk_that_fills_up_costs_nothing_but_the_wait() {
    let place = Place::with_run();
    place.run(&format!("train {IMAGES} --out whole --steps 12"));

    // A limit on the size of a file does to a write what a full disk does, and needs no rights.
    let resume = format!("train {IMAGES} --out run --resume --steps 12");
    let limit = format!("ulimit -f 8; exec {} {resume}", env!("CARGO_BIN_EXE_xtask"));
    let mut shell = Command::new("sh");
    let output = shell.args(["-c", &limit]).current_dir(place.path("")).output().expect("a shell");
    Called::of(&resume, output).fails(IO, &["cannot write", "safetensors", "File too large"]);
    assert_eq!(place.names("run/checkpoints"), ["step-3", "step-6"], "a half-written checkpoint is removed");

    place.run(&resume);
    assert_eq!(Outcome::of(&place, "run"), Outcome::of(&place, "whole"));
}

/// A disk in memory.
struct Disk(PathBuf);

impl Disk {
    /// None where this user may not mount; the limit on the size of a file is tested all the same.
    fn mount(place: &Place, name: &str, size: &str) -> Option<Self> {
        let path = place.path(name);
        std::fs::create_dir(&path).expect("a folder");
        let disk = Self(path);
        disk.mount_with(&format!("size={size}")).then_some(disk)
    }

    fn mount_with(&self, options: &str) -> bool {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&self.0).stderr(Stdio::null());
        mount.status().is_ok_and(|status| status.success())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // What was never mounted cannot be unmounted.
        let _ = Command::new("umount").arg(&self.0).stderr(Stdio::null()).status();
    }
}

#[test]
#[expect(clippy::print_stderr, reason = "whoever reads the log is to know what did not run")]
fn a_full_disk_is_74_and_room_made_is_used() {
    let place = Place::new();
    // A checkpoint of this network has 0.7 MB: there is room for one.
    let Some(disk) = Disk::mount(&place, "disk", "1200k") else {
        eprintln!("not run: this user may not mount a disk in memory");
        return;
    };
    let line = format!("train {IMAGES} --steps 9");
    place
        .call(&format!("{line} --out disk/run"))
        .fails(IO, &["disk/run/checkpoints/step-6.tmp-0/", "No space left"]);
    assert_eq!(place.names("disk/run/checkpoints"), ["step-3"]);
    place.run("sample disk/run --n 1 --steps 2 --out x.npy");

    assert!(disk.mount_with("remount,size=8m"));
    place.run(&format!("{line} --out disk/run --resume"));
    place.run(&format!("{line} --out whole"));
    assert_eq!(Outcome::of(&place, "disk/run"), Outcome::of(&place, "whole"));
}

fn flip_a_byte(path: &Path) {
    let mut bytes = std::fs::read(path).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).expect("the file can be written");
}

#[test]
fn a_corrupt_checkpoint_is_passed_over_with_a_word_and_nothing_left_is_65() {
    let place = Place::with_run();
    place.run(&format!("train {IMAGES} --steps 6 --out whole"));
    flip_a_byte(&place.path("run/checkpoints/step-6/ema-main.safetensors"));

    let line = "sample run --n 1 --steps 2 --json";
    let called = place.run(line);
    assert!(called.stderr.contains("passing over run/checkpoints/step-6: "), "{}", called.stderr);
    assert!(called.stderr.contains("ema-main.safetensors: SHA-256"), "{}", called.stderr);
    assert!(called.stdout.contains("\"step\":3"), "{}", called.stdout);

    // Training goes on from the one before, to where it would have come.
    let resume = format!("train {IMAGES} --steps 6 --resume --out run");
    let called = place.run(&resume);
    assert!(called.stderr.contains("passing over run/checkpoints/step-6: "), "{}", called.stderr);
    assert_eq!(Outcome::of(&place, "run"), Outcome::of(&place, "whole"));

    for (step, file) in [(3, "adam.safetensors"), (6, "manifest.json")] {
        flip_a_byte(&place.path(&format!("run/checkpoints/step-{step}/{file}")));
    }
    for line in [line, &resume, "eval-nll run"] {
        place
            .call(line)
            .fails(DATA, &["run/checkpoints: none of the 2 checkpoints can be read", "manifest.json"]);
    }
}
