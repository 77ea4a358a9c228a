//! `demo`: the tour. Train on the embedded digits, sample in ten network calls, measure bits per dimension against a Gaussian.

use anyhow::Result;
use sde_core::noise::Noise;
use sde_data::Split;
use sde_eval::Gaussian;
use serde_json::json;

use super::sample::{merge, picture};
use super::{eval_nll, train};
use crate::build::Use;
use crate::cli::{Demo, Train};
use crate::device;
use crate::output::{Output, save_record};
use crate::run::Run;
use crate::sampling;

const PRESET: &str = "digits";
const SAMPLES: u32 = 64;

/// Runs the command.
pub fn run(args: &Demo, output: Output) -> Result<()> {
    let begun = std::time::Instant::now();
    let training = Train {
        preset: PRESET.into(),
        steps: None,
        seed: Some(args.seed),
        sets: args.sets.clone(),
        out: args.out.clone(),
        resume: false,
        from: None,
        dry_run: false,
        device: crate::cli::DeviceArg { name: args.device.name.clone() },
    };
    let (path, ..) = train::fit_preset(&training, output)?;
    let device = device::select(&args.device.name, output)?;
    let run = Run::open(Some(&path), None, &[], |_| (), &device, output)?;

    let (noise, addresses) = (Noise::new(args.seed), (0..SAMPLES).collect::<Vec<_>>());
    let drawn = sampling::of_run(&run, noise, &addresses, addresses.len(), output)?;
    let sheet = path.join("samples.png");
    if let Some(picture) = picture(&run, &drawn.x, output)? {
        picture.save(&sheet)?;
    }

    let (found, mut record) = eval_nll::measure(&run, Split::Test, noise, output)?;
    let [fitted, held_out] = [Split::Train, Split::Test]
        .map(|split| run.preset.data.load(split, Use::Likelihood, args.seed, output));
    let gaussian = Gaussian::fit(fitted?.set.as_ref(), noise)?.nll(held_out?.set.as_ref(), noise)?;
    let baseline = gaussian.bits_per_dim.unwrap_or(gaussian.nats);
    merge(
        &mut record,
        json!({
            "command": "demo",
            "gaussian_bits_per_dim": baseline.value,
            "gaussian_stderr": baseline.standard_error,
            "sampler": run.preset.sampler,
            "sample_nfe": drawn.nfe_record(),
            "samples": SAMPLES,
            "seed": args.seed,
            "seconds": begun.elapsed().as_secs_f64(),
            "files": [sheet.display().to_string(), path.join("loss.svg").display().to_string()],
        }),
    );
    save_record(&path.join("records/demo.json"), &record)?;
    let text = [
        format!("samples     {} ({} in {} network calls each)", sheet.display(), SAMPLES, drawn.nfe_record()),
        format!("loss curve  {}", path.join("loss.svg").display()),
        format!("record      {}", path.join("records/demo.json").display()),
        format!("likelihood  {}", eval_nll::summary(&found)),
        format!("gaussian    {} bits/dim, full covariance, same data", eval_nll::estimate(&baseline)),
        format!("time        {:.0} s", begun.elapsed().as_secs_f64()),
    ];
    output.result(text.join("\n"), &record)
}
