//! A directory of its own for each test, the runner called in it, and runs small enough to train in a blink.

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use ndarray::{ArrayD, Axis, IxDyn};
use sde_data::read::npy::{NpyArray, read_npy, write_npy};
use sde_train::hash::sha256;
use serde_json::Value;
use tempfile::TempDir;

/// A U-Net on the digits, dropout and averages included: 41,609 parameters.
pub const IMAGES: &str = "digits --set net.channels=8 --set net.groups=4 --set net.attention=[] --set train.batch=8 \
     --set train.steps=60 --set train.schedule.warmup_steps=5 --set train.log_every=1 --set train.checkpoint_every=3 \
     --set train.held_out.every=10 --set train.held_out.examples=8";

/// A network of one hidden layer for points of the plane.
pub const POINTS: &str = "checkerboard --set net.hidden=[16] --set net.time_dim=8 --set train.batch=16 \
     --set train.steps=20 --set train.schedule.warmup_steps=5 --set train.log_every=1 --set train.checkpoint_every=10 \
     --set train.held_out.every=10 --set train.held_out.examples=16 --set data.points=500";

/// An empty directory to call the runner in.
pub struct Place(TempDir);

impl Place {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    /// A place with a run at `run`, with checkpoints after 3 and 6 updates.
    pub fn with_run() -> Self {
        let place = Self::new();
        place.run(&format!("train {IMAGES} --steps 6 --out run"));
        assert_eq!(place.names("run/checkpoints"), ["step-3", "step-6"]);
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The runner with the arguments of a line, which are parted by spaces.
    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        // With this set, whatever can print a backtrace does.
        command.args(line.split_whitespace()).current_dir(self.0.path()).env("RUST_BACKTRACE", "1");
        command
    }

    pub fn call(&self, line: &str) -> Called {
        Called::of(line, self.command(line).output().expect("the runner starts"))
    }

    /// Calls the runner, which must succeed.
    pub fn run(&self, line: &str) -> Called {
        let called = self.call(line);
        assert_eq!(called.code, Some(0), "{line}: {}", called.stderr);
        called
    }

    /// The record that `--json` prints: one value on one line, and nothing else.
    pub fn record(&self, line: &str) -> Value {
        let called = self.run(&format!("{line} --json"));
        assert_eq!(called.stdout.lines().count(), 1, "{line}: {}", called.stdout);
        serde_json::from_str(&called.stdout).unwrap_or_else(|e| panic!("{line}: {e}: {}", called.stdout))
    }

    /// Starts the runner and leaves it running, without a word.
    pub fn start(&self, line: &str) -> Child {
        let mut command = self.command(line);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the runner starts")
    }

    /// Calls the runner again and again, and kills it, `kills` times at most, whenever its progress has grown; the last call ends by itself.
    pub fn run_through_kills(&self, line: &str, kills: usize, progress: impl Fn(&Self) -> usize) {
        let mut killed = 0;
        loop {
            let mut child = self.start(line);
            let (before, begun) = (progress(self), Instant::now());
            while progress(self) <= before
                && child.try_wait().expect("a child").is_none()
                && begun.elapsed().as_secs() < 60
            {
                std::thread::sleep(Duration::from_millis(1));
            }
            if killed == kills || child.try_wait().expect("a child").is_some() {
                assert!(child.wait().expect("an end").success(), "{line}, after {killed} kills");
                break;
            }
            child.kill().expect("a running child");
            child.wait().expect("an end");
            killed += 1;
        }
        assert!(killed >= 1, "{line}: it ended too soon to be killed");
    }

    /// Waits until the log of a run has a number of lines.
    pub fn await_log(&self, run: &str, lines: usize) {
        let begun = Instant::now();
        while self.text(&format!("{run}/log.jsonl")).lines().count() < lines {
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "{run} does not get to line {lines} of its log"
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// A text file, empty if it is not there.
    pub fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    pub fn json(&self, name: &str) -> Value {
        serde_json::from_str(&self.text(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, bytes).expect("a file");
    }

    /// The names in a directory, sorted; none if it is not there.
    pub fn names(&self, folder: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(folder)).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    pub fn put(&self, name: &str, array: &ArrayD<f64>) {
        write_npy(&self.path(name), &NpyArray::F64(array.clone())).expect("an npy file");
    }

    pub fn get(&self, name: &str) -> ArrayD<f64> {
        read_npy(&self.path(name)).expect("an npy file").to_f64()
    }
}

/// How a call of the runner ended.
pub struct Called {
    line: String,
    /// None if a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Called {
    pub fn of(line: &str, output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            line: line.to_owned(),
            code: output.status.code(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }

    /// The error: the one line that begins so, and the last one, of a call that ended with this code and no result.
    pub fn error(&self, code: i32) -> &str {
        let Self { line, stderr, .. } = self;
        assert_eq!(self.code, Some(code), "{line}: {stderr}");
        assert_eq!(self.stdout, "", "{line}: a failure has no result");
        assert!(!stderr.contains("panicked") && !stderr.contains("stack backtrace"), "{line}: {stderr}");
        let mut errors = stderr.lines().skip_while(|line| !line.starts_with("error: "));
        let error = errors.next().unwrap_or_else(|| panic!("{line}: no error is told: {stderr}"));
        assert_eq!(errors.next(), None, "{line}: more than one line: {stderr}");
        assert!(!error.ends_with('.') && error.len() > "error: ".len(), "{line}: {error}");
        error
    }

    /// That the error says all of these words.
    pub fn fails(&self, code: i32, words: &[&str]) {
        let error = self.error(code);
        for word in words {
            assert!(error.contains(word), "{}: no `{word}` in: {error}", self.line);
        }
    }
}

/// What training has made.
#[derive(Debug, PartialEq)]
pub struct Outcome {
    pub log: String,
    /// The names of all checkpoints.
    pub checkpoints: Vec<String>,
    /// The files of the last one and their hashes, without the manifest: it names the revision of the code, which may change while
    /// this test runs.
    pub files: Vec<(String, String)>,
}

impl Outcome {
    pub fn of(place: &Place, run: &str) -> Self {
        let checkpoints = place.names(&format!("{run}/checkpoints"));
        let step =
            |name: &String| name.trim_start_matches("step-").parse::<u64>().expect("a checkpoint's name");
        let last = checkpoints.iter().max_by_key(|name| step(name)).expect("a checkpoint");
        let folder = format!("{run}/checkpoints/{last}");
        let hash = |name: String| {
            let bytes =
                std::fs::read(place.path(&format!("{folder}/{name}"))).expect("a file of the checkpoint");
            (name, sha256(&bytes))
        };
        let files =
            place.names(&folder).into_iter().filter(|name| name != "manifest.json").map(hash).collect();
        Self { log: place.text(&format!("{run}/log.jsonl")), checkpoints, files }
    }
}

/// An array of these entries.
pub fn array(shape: &[usize], entries: impl IntoIterator<Item = f64>) -> ArrayD<f64> {
    ArrayD::from_shape_vec(IxDyn(shape), entries.into_iter().collect()).expect("entries of the shape")
}

/// Some rows of an array.
pub fn rows(of: &ArrayD<f64>, range: std::ops::Range<usize>) -> ArrayD<f64> {
    of.slice_axis(Axis(0), range.into()).to_owned()
}

/// The largest difference of two arrays of one shape.
pub fn gap(a: &ArrayD<f64>, b: &ArrayD<f64>) -> f64 {
    assert_eq!(a.shape(), b.shape());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}
