//! Every sampler of the catalog on states of two groups, of images in a cosine basis, and of vectors under dense operators: it runs, to where the flow ends if it
//! follows the flow, or says what to take instead.

mod support;

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use nalgebra::DMatrix;
use sde_core::noise::{BatchNoise, Noise};
use sde_core::oracle::Mixture;
use sde_core::process::{Blurring, Cld, Clocked, Heat, Langevin, LinearPair, Vp};
use sde_core::{Basis, LinearSde, OracleField, TimeGrid};
use sde_solvers::catalog::{self, Accepts, Evidence, Make, Settings};
use sde_solvers::{Adaptive, Error, Path, Sampler, prior_sample};
use support::largest_gap;
use support::orders::settings;

/// A process for states of four entries, and their shape.
type Example = (&'static str, Box<dyn LinearSde>, &'static [usize]);

fn examples() -> Vec<Example> {
    let oscillators = Langevin::new(Arc::new(Basis::dct(2, 2)), &[(0.8, 1.1), (1.0, 2.0)], 1.0);
    // Neither symmetric nor commuting with anything.
    let root =
        DMatrix::from_fn(4, 4, |i, j| if i == j { 1.0 } else { 0.3 * (i as f64 - 0.7 * j as f64).sin() });
    let turn = DMatrix::from_fn(4, 4, |i, j| 0.4 * (i as f64 + 2.0 * j as f64).cos());
    let pair = LinearPair::of(&root * root.transpose(), &(&turn - turn.transpose()), 1.0);
    let clocked = |law| Clocked::new(law, Vp::STANDARD);
    let colour = Heat::of_slope((2, 2), 0.5).expect("a colour");
    vec![
        ("cld", Box::new(Cld::published().expect("a process")), &[2, 2]),
        ("blurring", Box::new(Blurring::new((2, 2), 1.5, 0.01).expect("a process")), &[1, 2, 2]),
        ("heat", Box::new(Heat::new(colour, [1e-2, 20.0]).expect("a process")), &[1, 2, 2]),
        ("linear pair", Box::new(clocked(pair.expect("a law")).expect("a process")), &[4]),
        (
            "langevin blocks",
            Box::new(Clocked::new(oscillators.expect("a law"), Vp::STANDARD).expect("a process")),
            &[1, 2, 2],
        ),
    ]
}

fn data() -> Mixture {
    let means = [vec![0.8, -0.5, 0.0, 0.0], vec![-0.6, 0.3, 0.0, 0.0]];
    Mixture::of_diagonals(&[0.4, 0.6], &means, vec![vec![0.1, 0.2, 0.05, 0.05], vec![0.3, 0.1, 0.1, 0.02]])
        .expect("a mixture")
}

/// Three runs of a sampler from the prior.
fn run(example: &Example, sampler: &dyn Sampler, steps: usize) -> Result<Tensor, Error> {
    let (sde, data) = (example.1.as_ref(), data());
    let grid = TimeGrid::power(sde.span().end, 10.0 * sde.span().sampling, steps, 3.0)?;
    let field = OracleField::noise(&data, sde);
    let noise = BatchNoise::new(Noise::new(7), 0, 0..3);
    let x = prior_sample(sde, &noise, example.2, DType::F64, &Device::Cpu)?;
    Ok(sampler.sample(&Path { sde, field: &field, grid: &grid }, &x, &noise)?.x)
}

#[test]
fn every_sampler_runs_or_says_what_to_take_instead() {
    let settings = Settings { adaptive: Adaptive::new(1e-4, 1e-4), lambda: 0.5, ..settings() };
    for example in examples() {
        let mut refused = Vec::new();
        let mut ran = Vec::new();
        for entry in catalog::all().filter(|e| !matches!(e.make, Make::Calibrated(_) | Make::Moments(_))) {
            let sampler = entry.sampler(&settings, Evidence::NONE).expect("a sampler");
            let scalar = matches!(
                entry.accepts,
                Accepts::Chain | Accepts::Scalar | Accepts::ScalarNoise | Accepts::ScalarData
            );
            match run(&example, sampler.as_ref(), 8) {
                Ok(x) => {
                    assert!(!scalar, "{} {}", example.0, entry.name);
                    assert_eq!(&x.dims()[1..], example.2);
                    assert!(largest_gap(&x, &x) == 0.0, "{} {}: not a number", example.0, entry.name);
                    ran.push(entry.name);
                }
                Err(Error::NotScalar { hint, .. } | Error::NoChain { hint, .. }) => {
                    assert!(scalar, "{} {}", example.0, entry.name);
                    refused.push((entry.name, hint));
                }
                Err(other) => panic!("{} {}: {other}", example.0, entry.name),
            }
        }
        for (name, hint) in refused {
            let words = |text: &'static str| text.split(|c: char| c.is_whitespace() || ",;:".contains(c));
            assert!(words(hint).any(|word| ran.contains(&word)), "{name} on {}: {hint}", example.0);
        }
        assert!(ran.len() >= 55, "{}: {} samplers", example.0, ran.len());
    }
}

#[test]
fn rules_of_the_flow_end_where_it_ends() {
    // The orders are measured elsewhere, on the host's operators; a rule whose tensors were moved otherwise would be off by a tenth and more.
    let settings =
        Settings { adaptive: Adaptive::new(1e-7, 1e-7), sde_tolerances: [1e-3, 1e-3], ..settings() };
    for example in examples() {
        let end = |name: &str, steps: usize| {
            let entry = catalog::find(name).expect("a sampler");
            let sampler = entry.sampler(&settings, Evidence::NONE).expect("a sampler");
            run(&example, sampler.as_ref(), steps).expect("a run")
        };
        let exact = end("rk45", 1);
        for name in ["adaptive-sde", "tab1", "tab2", "tab1-pc", "rho-ab2", "data-ab2", "rk4", "dpm2"] {
            let gap = largest_gap(&end(name, 60), &exact);
            assert!(gap < 0.04, "{} {name}: {gap:e}", example.0);
        }
    }
}
