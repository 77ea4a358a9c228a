//! A process with velocities, end to end: states are trained on, and everything that is kept or shown is data.

use crate::processes::{LAW, SAMPLERS, SMALL};
use crate::support::Place;

#[test]
fn images_with_velocities() {
    let place = Place::new();
    place.run(&format!("train digits-cld {SMALL} --out run"));
    for sampler in SAMPLERS {
        place.run(&format!(
            "sample run --sampler {sampler} --steps 4 --n 2 --out {sampler}.npy --set sampler.max_nfe=5000"
        ));
        assert_eq!(place.get(&format!("{sampler}.npy")).shape(), [2, 1, 8, 8], "{sampler}");
    }
    place.run("sample run --steps 4 --n 2 --out drawn");
    assert!(place.path("drawn/samples.png").is_file() && place.path("drawn/samples.npz").is_file());
    let loose = "--set sampler.rtol=1e-3 --set sampler.atol=1e-3";
    let found = place.record(&format!("eval-nll run --n 2 --velocities 2 {loose}"));
    assert!(found["bound_bits_per_dim"].as_f64().is_some_and(f64::is_finite), "{found}");
    assert!(found.get("bits_per_dim").is_none());
    // A random divergence leaves estimates, whose exponentials are not averaged.
    assert_eq!((&found["velocities"], &found["velocity_average"]), (&2.into(), &"logs".into()));
    let told = place.run(&format!("eval-nll run --n 2 --bound elbo --draws 3 {loose}")).stdout;
    assert!(told.contains("bound of the SDE's likelihood, by one draw of velocities"), "{told}");
    place
        .call("eval-nll run --n 2 --velocities 2 --velocity-average densities")
        .fails(78, &["exact divergence"]);
    place.run("eval-score run --n 4 --count 2");
    place.run("paths run --n 2 --count 3");
    place.call("sample run --sampler dpm++-2m --n 2").fails(78, &["dpm++-2m", "data-ab1"]);
    place.run("export run --out run.safetensors");
    place.run("import run.safetensors --out again");
    place.run("sample again --steps 2 --n 2 --out again.npy");
}

#[test]
fn points_with_velocities() {
    let place = Place::new();
    place.write("law.json", LAW);
    let draw = "sample --oracle law.json --process cld --n 500 --steps 60 --set sampler.grid=quadratic";
    place.run(&format!("{draw} --sampler tab2 --out points.npy"));
    let points = place.get("points.npy");
    assert_eq!(points.shape(), [500, 2]);
    // The first coordinate is ±1 with weights 0.3 and 0.7: its mean −0.4, whose standard error is 0.045.
    let mean = points.index_axis(ndarray::Axis(1), 0).sum() / 500.0;
    assert!((mean + 0.4).abs() < 4.0 * 0.045, "{mean}");
    let by = |k: usize| {
        let line = format!("eval-nll --oracle law.json --process cld --points points.npy --velocities {k}");
        place.record(&format!("{line} --set sampler.rtol=1e-4 --set sampler.atol=1e-4"))
    };
    let (one, four) = (by(1), by(4));
    assert_eq!((&four["velocity_average"], &four["products_per_call"]), (&"densities".into(), &4.into()));
    let nats = |record: &serde_json::Value| record["bound_nats"].as_f64().expect("a bound");
    // At t = 1e-3 velocities have the variance 0.0176 for 0.01, which costs one draw 0.134 nats; the standard error of the difference is 0.01.
    let gain = nats(&one) - nats(&four);
    assert!(gain > 0.04 && gain < 0.134 + 0.04, "{gain}");
    place
        .call("eval-nll --oracle law.json --process vp --points points.npy --velocities 2")
        .fails(64, &["cld"]);
}
