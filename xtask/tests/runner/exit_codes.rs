//! What a user gets for every kind of mistake: the documented exit code, and one line that helps.

use std::process::Stdio;

use ndarray::Array2;

use crate::support::{Called, IMAGES, POINTS, Place, array};

/// Exit codes, as `src/exit.rs` documents them.
const USAGE: i32 = 64;
const DATA: i32 = 65;
const NON_FINITE: i32 = 70;
const IN_USE: i32 = 73;
const IO: i32 = 74;
const CONFIG: i32 = 78;

/// A place with a known density, `density.json`, and points for it, `points.npy`.
fn with_density() -> Place {
    let place = Place::new();
    place.write("density.json", r#"{"mu": [0, 1], "cov": [[1, 0], [0, 2]]}"#);
    place.put("points.npy", &Array2::zeros((4, 2)).into_dyn());
    place
}

#[test]
fn a_command_line_that_makes_no_sense_is_64() {
    let place = with_density();
    let cases: [(&str, &[&str]); 26] = [
        ("trian digits", &["trian", "hint: a similar subcommand exists: 'train'", "--help"]),
        ("train", &["<PRESET>"]),
        ("train digits --stpes 3", &["--stpes", "hint: ", "'--steps'"]),
        ("train digits --steps many", &["many", "--steps <N>"]),
        ("train digits --steps 0", &["--steps <N>", "1 or more"]),
        ("train digits --set batch", &["--set batch: expected key=value"]),
        ("train digits --device gpu", &["unknown device `gpu`", "cuda:N"]),
        ("train digits --device cdua:0", &["did you mean `cuda:N`?"]),
        ("train digits --resume", &["no run of digits", "--out"]),
        ("train digits --resume --out nowhere", &["nowhere: no run is there"]),
        ("sample", &["no run under checkpoints/"]),
        ("sample nowhere", &["nowhere: no run is there"]),
        ("eval-nll nowhere", &["nowhere: no run is there"]),
        ("sample --n 0", &["--n <N>"]),
        ("sample --batch 0", &["--batch <N>", "1 or more"]),
        ("sample --oracle density.json --n 2 --seeds 0-1", &["--n <N>", "--seeds <A-B>"]),
        ("sample --oracle density.json --seeds 5-3", &["--seeds 5-3: expected A-B"]),
        ("sample --oracle density.json --init points.npy --n 3", &["4 states", "3 samples"]),
        ("sample --oracle density.json --sampler tab9", &["unknown sampler `tab9`", "did you mean `tab"]),
        ("sample --oracle density.json --grid karas", &["unknown grid `karas`", "did you mean `karras`?"]),
        ("sample --oracle density.json --process vq", &["unknown process `vq`", "did you mean `v"]),
        ("eval-nll --oracle density.json", &["--points FILE.npy"]),
        ("eval-nll --oracle density.json --points points.npy --prior exat", &["did you mean `exact`?"]),
        ("eval-nll --points points.npy", &["--oracle <FILE>"]),
        ("eval-nll run --points points.npy", &["--points <FILE>", "[RUN]"]),
        ("sample run --process ve", &["--process <NAME>", "[RUN]"]),
    ];
    for (line, words) in cases {
        place.call(line).fails(USAGE, words);
    }
    assert_eq!(place.names(""), ["density.json", "points.npy"], "a refused command leaves nothing behind");
}

#[test]
fn a_configuration_that_makes_no_sense_is_78() {
    let place = with_density();
    place.write("broken.toml", "name = \"x\"\nabout = [\n");
    place.write("short.toml", "name = \"x\"\nabout = \"y\"\n");
    let printed = place.run("show digits").stdout;
    place.write("typo.toml", printed.replace("log_every", "log_evry"));
    place.put("rising.npy", &array(&[2], [0.1, 1.0]));
    let cases: [(&str, &[&str]); 18] = [
        ("show digitz", &["unknown preset `digitz`", "did you mean `digits`?", "cifar10"]),
        ("train digitz", &["unknown preset `digitz`"]),
        ("show typo.toml", &["typo.toml: unknown key \"train.log_evry\"", "did you mean \"log_every\"?"]),
        ("show broken.toml", &["broken.toml, line 2: "]),
        ("show short.toml", &["short.toml: ", "missing field `data`"]),
        ("show digits --set train.bacth=3", &["unknown key \"train.bacth\"", "did you mean \"batch\"?"]),
        ("show digits --set trian.batch=3", &["no section \"trian\"", "did you mean \"train\"?"]),
        ("show digits --set train.batch=many", &["train.batch", "many"]),
        ("show digits --set train.batch=0", &["`batch`", "found 0"]),
        ("show digits --set net.groups=5", &["`groups`", "found 5"]),
        ("show digits --set net.kind=unett", &["net.kind", "`unett`", "`unet`"]),
        ("train digits --set process.beta_0=-1", &["beta_0", "-1"]),
        ("train digits --set loss.time.from=2", &["`time`", "2"]),
        ("train digits --device cuda:9999", &["device cuda:9999: ", "no CUDA", "--device cpu"]),
        ("train checkerboard --set data.name=npy", &["needs a file: --set data.path="]),
        ("sample --oracle density.json --times rising.npy", &["rising.npy", "must decrease"]),
        ("sample --oracle density.json --set sampler.rtol=-1 --sampler rk45", &["rtol", "-1"]),
        ("eval-nll --oracle density.json --points points.npy --set likelihood.repeats=0", &["repeats"]),
    ];
    for (line, words) in cases {
        place.call(line).fails(CONFIG, words);
    }
    assert!(place.names("checkpoints").is_empty(), "a refused configuration leaves no run behind");
}

/// The header of an idx file of bytes.
fn idx(shape: &[u32]) -> Vec<u8> {
    let sizes = shape.iter().flat_map(|size| size.to_be_bytes());
    [0, 0, 8, shape.len() as u8].into_iter().chain(sizes).collect()
}

#[test]
fn truncated_and_foreign_data_is_65() {
    let place = Place::new();
    let record = 3073;
    for batch in 1..=5 {
        place.write(&format!("cifar/data_batch_{batch}.bin"), vec![1; 4 * record]);
    }
    for length in [0, 1, record - 1, 4 * record - 1] {
        place.write("cifar/data_batch_3.bin", vec![1; length]);
        let called = place.call("train cifar10-tiny --set data.path=cifar");
        called.fails(DATA, &["data_batch_3.bin", "3073 bytes"]);
    }
    std::fs::remove_file(place.path("cifar/data_batch_3.bin")).expect("the file is there");
    let called = place.call("train cifar10-tiny --set data.path=cifar");
    called.fails(DATA, &["put data_batch_3.bin into cifar", "4 of 5"]);

    let images = [idx(&[10, 28, 28]), vec![0; 10 * 784]].concat();
    place.write("mnist/train-labels-idx1-ubyte", [idx(&[10]), vec![3; 10]].concat());
    for length in [0, 3, 15, 16, 5000, images.len() - 1] {
        place.write("mnist/train-images-idx3-ubyte", &images[..length]);
        let called = place.call("train mnist --set data.path=mnist");
        called.fails(DATA, &["train-images-idx3-ubyte", "byte"]);
    }
    place.write("mnist/train-images-idx3-ubyte", &images);
    place.write("mnist/train-labels-idx1-ubyte", [idx(&[9]), vec![3; 9]].concat());
    place.call("train mnist --set data.path=mnist").fails(DATA, &["9", "10"]);

    place.write("data/pictures.npz", images);
    let points = "train checkerboard --set data.name=npy --set data.path";
    place.call(&format!("{points}=data/pictures.npz")).fails(DATA, &["pictures.npz", "byte 0"]);
    assert!(place.names("checkpoints").is_empty(), "data that cannot be read leaves no run behind");
}

#[test]
fn densities_and_points_that_do_not_fit_are_65() {
    let place = with_density();
    let density = |name: &str, text: &str| place.write(name, text);
    density("keys.json", r#"{"mean": [0, 1], "cov": [[1, 0], [0, 2]]}"#);
    density("ragged.json", r#"{"mu": [0, 1], "cov": [[1, 0], [0]]}"#);
    density("shape.json", r#"{"mu": [0, 1], "cov": [[1, 0, 0], [0, 2, 0], [0, 0, 3]]}"#);
    density("weights.json", r#"{"w": [1, 1], "mu": [0, 1], "cov": [[1, 0], [0, 2]]}"#);
    density("negative.json", r#"{"mu": [0, 1], "cov": [[1, 0], [0, -2]]}"#);
    density("torn.json", r#"{"mu": [0, 1], "cov""#);
    density("text.npz", "not an archive");
    let array = |values| sde_data::read::npy::NpyArray::F64(array(&[2], values));
    let arrays = [("mean", array([0.0, 1.0])), ("cov", array([1.0, 1.0]))];
    sde_data::read::npz::write_npz(&place.path("keys.npz"), arrays.iter().map(|(k, a)| (*k, a)))
        .expect("an npz");
    for (file, words) in [
        ("keys.json", "no array \"mu\""),
        ("keys.npz", "no array \"mu\""),
        ("ragged.json", "\"cov\""),
        ("shape.json", "expected [1, 2, 2]"),
        ("weights.json", "\"w\""),
        ("negative.json", "-2"),
        ("torn.json", "line 1"),
        ("text.npz", "zip"),
    ] {
        place.call(&format!("sample --oracle {file}")).fails(DATA, &[file, words]);
    }

    let mut points = Array2::zeros((4, 2)).into_dyn();
    points[[1, 1]] = f64::NAN;
    place.put("nan.npy", &points);
    place.put("wide.npy", &Array2::zeros((4, 3)).into_dyn());
    let line = "eval-nll --oracle density.json --points";
    place.call(&format!("{line} nan.npy")).fails(DATA, &["nan.npy", "entry 3", "not finite"]);
    place.call(&format!("{line} wide.npy")).fails(DATA, &["wide.npy", "[N, 2]", "[4, 3]"]);
    let line = "sample --oracle density.json --init points.npy --sampler em --steps 3 --noise";
    place.call(&format!("{line} points.npy")).fails(DATA, &["points.npy", "3 steps", "[4, 2]"]);
    place.call("sample --oracle density.json --init nan.npy").fails(DATA, &["nan.npy", "not finite"]);
    let line = "train checkerboard --set data.name=npy --set data.path=nan.npy";
    place.call(line).fails(DATA, &["nan.npy", "row 1, column 1", "NaN"]);
}

#[test]
fn numbers_that_run_away_are_70() {
    let place = with_density();
    place.put("far.npy", &Array2::from_elem((4, 2), 1e300).into_dyn());
    place.call("sample --oracle density.json --init far.npy").fails(NON_FINITE, &["not finite", "t = "]);
    place.call("eval-nll --oracle density.json --points far.npy").fails(NON_FINITE, &["none of 4"]);
    let line = "sample --oracle density.json --sampler rk45 --n 2 --set sampler.max_nfe=10";
    place.call(line).fails(NON_FINITE, &["max_nfe"]);

    let sets = "--set train.optimiser.lr=1e38 --set train.schedule.warmup_steps=0";
    let called = place.call(&format!("train {IMAGES} {sets} --out run"));
    called.fails(NON_FINITE, &["at step 2", "learning rate"]);
    assert!(place.names("run/checkpoints").is_empty(), "what is not finite is not saved");
}

#[test]
fn a_run_in_use_is_73() {
    let place = Place::new();
    let line = format!("train {POINTS} --set train.steps=1000000 --out run");
    let mut holder = place.start(&line);
    place.await_log("run", 1);
    let pid = holder.id().to_string();
    for line in [line.clone(), format!("{line} --resume")] {
        place.call(&line).fails(IN_USE, &["run: in use by process", &pid]);
    }
    holder.kill().expect("it runs");
    holder.wait().expect("it ends");
    // The lock of a process that is gone holds nobody up.
    place.run(&format!("train {POINTS} --set train.steps=1000000 --resume --out run --steps 10"));
}

#[test]
fn what_the_system_refuses_is_74_and_a_full_output_no_panic() {
    let place = with_density();
    place.call("show nowhere.toml").fails(IO, &["nowhere.toml", "No such file"]);
    place.call("sample --oracle nowhere.npz").fails(IO, &["nowhere.npz", "No such file"]);
    place
        .call("train checkerboard --set data.name=npy --set data.path=nowhere.npy")
        .fails(IO, &["nowhere.npy"]);
    place.call("train digits --out density.json").fails(IO, &["density.json"]);
    place.call("train digits --out density.json/run").fails(IO, &["density.json"]);
    place.call("sample --oracle density.json --out density.json/x.npy").fails(IO, &["density.json"]);

    for line in ["presets --json", "sample --oracle density.json --json", "show digits"] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("a full device");
        let output =
            place.command(line).stdout(full).stderr(Stdio::piped()).output().expect("the runner starts");
        Called::of(line, output).fails(IO, &["standard output", "No space left"]);
    }
    place.call("sample --oracle density.json --n 2 --out /dev/full").fails(IO, &["No space left"]);
}

#[test]
fn a_run_goes_on_only_as_what_it_was_started_as() {
    let place = Place::with_run();
    let resume = |options: &str| place.call(&format!("train digits --resume --out run {options}"));
    resume("--set train.batch=16").fails(CONFIG, &["train.batch is 8, asked for is 16", "start a new one"]);
    resume("--set net.dropout=0").fails(CONFIG, &["net.dropout is 0.1, asked for is 0.0"]);
    resume("--set process.beta_1=19").fails(CONFIG, &["process.beta_1"]);
    resume("--seed 1").fails(CONFIG, &["seed 0", "1"]);
    place
        .call("train checkerboard --resume --out run")
        .fails(CONFIG, &["run of digits, not of checkerboard"]);
    place.call("train digits --out run").fails(USAGE, &["a run is there already", "--resume"]);
    place.write("taken/checkpoints/notes.txt", "not a run");
    place.call("train digits --out taken").fails(USAGE, &["taken: something is there that is no run"]);
    assert_eq!(place.text("taken/checkpoints/notes.txt"), "not a run");
    // How often it is logged, saved and measured is free.
    place.run(
        "train digits --resume --out run --steps 8 --set train.log_every=2 --set train.checkpoint_every=8",
    );
    assert_eq!(place.names("run/checkpoints"), ["step-6", "step-8"]);
}
