//! Weights of others become runs that can be sampled, measured and trained further, and go out again.

use std::path::Path;

use crate::support::{Outcome, POINTS, Place};

/// The settings of the fixture `checkpoint_5.pth` on top of the preset `digits`.
const CHECKPOINT: &str = "--preset digits --set net.channels=4 --set net.multipliers=[1] --set net.attention=[] \
     --set net.groups=2 --set net.prediction=noise --set \
     net.time={kind=\"sinusoidal\",max_period=10000.0,freq_shift=1,flip_sin_to_cos=false,time_scale=999.0,time_shift=0.0}";

fn fixture(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name).display().to_string()
}

/// Samples, measures and trains a run that was imported after `step` updates.
fn use_it(place: &Place, run: &str, step: u64) {
    let drawn = place.record(&format!("sample {run} --n 2 --sampler tab1 --grid quadratic --steps 3"));
    assert_eq!((&drawn["step"], &drawn["n"]), (&step.into(), &2.into()));
    let measured =
        place.record(&format!("eval-nll {run} --n 2 --set sampler.rtol=0.1 --set sampler.atol=0.1"));
    assert!(measured["bits_per_dim"].as_f64().is_some_and(f64::is_finite), "{measured}");
    let trained = place.record(&format!("train {run} --resume --steps {}", step + 2));
    assert_eq!(trained["step"], step + 2);
    assert!(place.path(&format!("{run}/checkpoints/step-{}", step + 2)).is_dir());
}

#[test]
fn a_pipeline_of_diffusers_is_a_run() {
    let place = Place::new();
    let record = place.record(&format!("import {} --preset digits --out run", fixture("pipeline")));
    assert_eq!((&record["format"], &record["step"]), (&"diffusers".into(), &0.into()));
    let config = place.text("run/config.toml");
    for line in
        ["kind = \"ddpm\"", "steps = 100", "resampling = \"conv_centred\"", "head_channels = 2", "n = 100"]
    {
        assert!(config.contains(line), "{line}: {config}");
    }
    let provenance = place.json("run/provenance.json");
    assert_eq!((&provenance["source_format"], &provenance["seed"]), (&"diffusers".into(), &"0".into()));
    assert_eq!(provenance["source_sha256"], record["source_sha256"]);
    use_it(&place, "run", 0);
    // Without a number of its own it is the next run, under the name of the folder.
    place.run(&format!("import {} --preset digits", fixture("pipeline")));
    assert_eq!(place.names("checkpoints"), ["00000-pipeline"]);
}

#[test]
fn a_checkpoint_of_score_sde_is_a_run_in_the_middle_of_its_training() {
    let place = Place::new();
    let record = place.record(&format!("import {} {CHECKPOINT} --out run", fixture("checkpoint_5.pth")));
    assert_eq!(
        (&record["step"], &record["average"], &record["optimiser"]),
        (&5.into(), &true.into(), &true.into())
    );
    let Outcome { checkpoints, files, .. } = Outcome::of(&place, "run");
    assert_eq!(checkpoints, ["step-5"]);
    let hash = |name: &str| &files.iter().find(|(file, _)| file == name).expect("a file").1;
    assert_ne!(hash("weights.safetensors"), hash("ema-main.safetensors"));
    assert_eq!(record["weights_sha256"], **hash("weights.safetensors"));
    use_it(&place, "run", 5);

    // Another process: the network's times in those of the chain.
    place.run(&format!("import {} {CHECKPOINT} --process ddpm --out chain", fixture("checkpoint_5.pth")));
    let config = place.text("chain/config.toml");
    assert!(config.contains("time_shift = -1.0") && config.contains("discrete_indices"), "{config}");
}

#[test]
fn what_goes_out_comes_back_as_it_was() {
    let place = Place::new();
    place.run(&format!("import {} --preset digits --out first", fixture("pipeline")));
    let first = place.record("export first --format diffusers --out folder");
    let original = std::fs::read(format!("{}/unet/diffusion_pytorch_model.safetensors", fixture("pipeline")));
    let written = std::fs::read(place.path("folder/unet/diffusion_pytorch_model.safetensors"));
    assert_eq!(original.expect("the fixture"), written.expect("a file"));
    place.run("import folder --preset digits --out second");

    let alone = place.record("export second --out alone.safetensors");
    place.run("import alone.safetensors --out third");
    let hash = |run: &str| {
        place.record(&format!("sample {run} --n 1 --sampler ddim --grid uniform --steps 1"))["weights_sha256"]
            .clone()
    };
    assert_eq!(hash("third"), first["weights_sha256"]);
    assert_eq!(alone["weights_sha256"], first["weights_sha256"]);
    assert_eq!(
        place.text("third/config.toml").lines().skip(2).collect::<Vec<_>>(),
        place.text("second/config.toml").lines().skip(2).collect::<Vec<_>>()
    );
    assert!(place.json("third/provenance.json")["exported_source_sha256"].is_string());
    use_it(&place, "third", 0);

    // Any network goes into a file of ours.
    place.run(&format!("train {POINTS} --steps 2 --out points"));
    place.run("export points --weights raw --out points.safetensors");
    place.run("import points.safetensors --out again");
    place.run("sample again --n 5 --steps 2 --out x.npy");
    place.call("export points --format diffusers --out no").fails(78, &["diffusers has no such network"]);
    place.call("export points --out points.safetensors").fails(64, &["it exists"]);
}

#[test]
fn what_does_not_fit_leaves_nothing_behind() {
    let place = Place::new();
    let (pipeline, checkpoint) = (fixture("pipeline"), fixture("checkpoint_5.pth"));
    let line = format!("import {checkpoint} {CHECKPOINT}");
    place.call(&format!("{line} --set net.blocks=2")).fails(
        78,
        &[
            "checkpoint_5.pth: these weights",
            "missing: module.all_modules.",
            "these weights belong to another network",
        ],
    );
    place.call(&format!("import {checkpoint}")).fails(78, &["no preset has the network"]);
    place.call(&format!("{line} --process ve")).fails(78, &["--process"]);
    place.call(&format!("{line} --process vpp")).fails(64, &["unknown process `vpp` (did you mean `vp`?)"]);
    place.call(&format!("import {pipeline}")).fails(78, &["shape [1, 8, 8]", "cifar10", "--preset"]);
    place.call(&format!("import {pipeline} --preset digits --format single")).fails(64, &["--format single"]);
    place.call("import nowhere").fails(64, &["neither a file, nor a folder, nor a repository OWNER/NAME"]);
    place.call("import .").fails(64, &["config.json"]);
    place.write("bare/diffusion_pytorch_model.bin", b"PK\x03\x04");
    std::fs::copy(format!("{pipeline}/unet/config.json"), place.path("bare/config.json")).expect("a copy");
    place.call("import bare --preset digits --process ddpm").fails(65, &["not a readable .pth file"]);
    place.write("evil.pth", b"cos\nsystem\n(S'true'\ntR.");
    place.call("import evil.pth --preset digits").fails(65, &["evil.pth", "not a readable .pth file"]);
    place.write("some.safetensors", [2, 0, 0, 0, 0, 0, 0, 0, b'{', b'}']);
    place.call("import some.safetensors").fails(64, &["says nothing of its network"]);
    place.write("there/x", b"");
    place.call(&format!("import {pipeline} --preset digits --out there")).fails(64, &["it exists"]);
    assert_eq!(place.names(""), ["bare", "evil.pth", "some.safetensors", "there"]);
}
