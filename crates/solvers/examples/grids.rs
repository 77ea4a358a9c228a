//! Where to put the steps: the error of three samplers on four time grids, for every process with the exact ε.
//!
//! The error is the mean distance, over 256 starts, from where the probability flow itself ends. The defaults in
//! docs/solvers.md come from this table; grids in ρ depend on the process, grids in t on how it names its times.
//!
//! Reference: Zhang, Chen 2022, arXiv 2204.13902, section 4; Karras et al. 2022, arXiv 2206.00364, Eq. (5).
//!
//! `cargo run --release -p sde-solvers --example grids [STEPS]`
#![allow(clippy::print_stdout, reason = "an example that reports")]

mod support;

use candle_core::{DType, Device};
use sde_core::noise::{BatchNoise, Noise};
use sde_core::process::{Cosine, Discrete, Edm, LinearPath, SubVp, Ve, Vp};
use sde_core::{LinearSde, OracleField, TimeGrid};
use sde_solvers::{Adaptive, Chart, Ddim, Multistep, ProbabilityFlow, Result, Tab, prior_sample};

// 10 steps            grid      ddim      tab1      tab3
// vp               uniform    1.4e-1    1.2e-1    1.6e-1
// vp             quadratic    2.5e-2    1.1e-2    8.7e-3
// …
// edm              uniform     1.3e0     1.2e0     1.2e0
// edm               karras    5.9e-2    2.9e-2    2.0e-2
fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let steps = std::env::args().nth(1).map_or(Ok(10), |steps| steps.parse())?;
    println!("{steps} steps{:>16}{:>10}{:>10}{:>10}", "grid", "ddim", "tab1", "tab3");
    // The linear path has no signal at its end.
    let processes: [(&str, &dyn LinearSde, f64); 7] = [
        ("vp", &Vp::STANDARD, 1.0),
        ("subvp", &SubVp::STANDARD, 1.0),
        ("cosine", &Cosine, Cosine.span().end),
        ("linear", &LinearPath, 0.999),
        ("ve", &Ve::STANDARD, 1.0),
        ("edm", &Edm::STANDARD, 80.0),
        ("ddpm", &Discrete::ddpm(), 1000.0),
    ];
    for (name, sde, from) in processes {
        measure(name, sde, from, steps)?;
    }
    Ok(())
}

/// One process: a row for each grid.
fn measure(name: &str, sde: &dyn LinearSde, from: f64, steps: usize) -> Result<()> {
    let data = support::eight_modes()?;
    let (field, to) = (OracleField::noise(&data, sde), sde.span().sampling);
    let noise = BatchNoise::new(Noise::new(0), 0, 0..256);
    let x = prior_sample(sde, &noise, &[2], DType::F64, &Device::Cpu)?;
    let flow = ProbabilityFlow::new(sde, &field, Chart::Clock);
    let exact = flow.solve(&Adaptive::new(1e-9, 1e-9), &x, from, to)?.y;
    let grids = [
        ("uniform", TimeGrid::uniform(from, to, steps)?),
        ("quadratic", TimeGrid::power(from, to, steps, 2.0)?),
        ("power 3", TimeGrid::power(from, to, steps, 3.0)?),
        ("karras", TimeGrid::karras(sde, from, to, steps, 7.0)?),
        ("log-rho", TimeGrid::log_rho(sde, from, to, steps)?),
    ];
    let rules: [&dyn Multistep; 3] = [&Ddim::DETERMINISTIC, &Tab { degree: 1 }, &Tab { degree: 3 }];
    for (grid_name, grid) in grids {
        print!("{name:<8}{grid_name:>16}");
        for rule in rules {
            let solution = rule.table(sde, &grid)?.sample(sde, &field, &x, &noise)?;
            print!("{:>10.1e}", support::distance(&solution.x, &exact)?);
        }
        println!();
    }
    Ok(())
}
