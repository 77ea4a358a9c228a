//! Sampling in few evaluations: DDIM against tAB-DEIS against an adaptive solver, on VP with the exact ε.
//!
//! The error is the mean distance, over 256 starts, from where the probability flow itself ends (solved to 1e-10); for
//! each entry on the best of five time grids, which is named behind it.
//!
//! Reference: Zhang, Chen 2022, arXiv 2204.13902, Table 2 (best grid for each entry, too), whose ordering in FID this
//! has in distance: the higher the degree the better, DDIM the worst, and an adaptive solver needs several times as
//! many evaluations.
//!
//! `cargo run --release -p sde-solvers --example few_steps`
#![allow(clippy::print_stdout, reason = "an example that reports")]

mod support;

use candle_core::{DType, Device};
use sde_core::noise::{BatchNoise, Noise};
use sde_core::{OracleField, TimeGrid, process::Vp};
use sde_solvers::{Adaptive, Chart, Ddim, Multistep, ProbabilityFlow, Result, Tab, prior_sample};

fn main() -> Result<()> {
    let (sde, data) = (Vp::STANDARD, support::eight_modes()?);
    let field = OracleField::noise(&data, &sde);
    let (from, to) = (1.0, 1e-3);
    let noise = BatchNoise::new(Noise::new(0), 0, 0..256);
    let x = prior_sample(&sde, &noise, &[2], DType::F64, &Device::Cpu)?;
    let flow = ProbabilityFlow::new(&sde, &field, Chart::Time);
    let exact = flow.solve(&Adaptive::new(1e-10, 1e-10), &x, from, to)?.y;

    //    NFE             ddim             tab1             tab2             tab3
    //      5    6.1e-2 t^2       2.6e-2 t^3       1.9e-2 t^3       1.8e-2 t^3
    //     10    2.5e-2 t^2       9.0e-3 t^3       5.5e-3 t^3       4.9e-3 t^3
    //     15    1.6e-2 t^2       4.9e-3 t^3       2.7e-3 t^3       2.2e-3 t^3
    //     20    1.2e-2 t^2       3.1e-3 t^3       1.6e-3 t^3       1.2e-3 t^3
    //     50    4.8e-3 t^2       6.5e-4 t^3       2.1e-4 t^3       1.0e-4 t^3
    let rules: [&dyn Multistep; 4] =
        [&Ddim::DETERMINISTIC, &Tab { degree: 1 }, &Tab { degree: 2 }, &Tab { degree: 3 }];
    println!("   NFE{:>17}{:>17}{:>17}{:>17}", "ddim", "tab1", "tab2", "tab3");
    for nfe in [5, 10, 15, 20, 50] {
        let grids = [
            ("t", TimeGrid::uniform(from, to, nfe)?),
            ("t^2", TimeGrid::power(from, to, nfe, 2.0)?),
            ("t^3", TimeGrid::power(from, to, nfe, 3.0)?),
            ("rho^7", TimeGrid::karras(&sde, from, to, nfe, 7.0)?),
            ("log-rho", TimeGrid::log_rho(&sde, from, to, nfe)?),
        ];
        print!("{nfe:>6}");
        for rule in rules {
            let mut best = (f64::INFINITY, "");
            for (name, grid) in &grids {
                let solution = rule.table(&sde, grid)?.sample(&sde, &field, &x, &noise)?;
                let error = support::distance(&solution.x, &exact)?;
                if error < best.0 {
                    best = (error, name);
                }
            }
            print!("{:>10.1e} {:<6}", best.0, best.1);
        }
        println!();
    }

    //    NFE            error
    //     28    3.0e-1 at rtol 1e-1
    //     39    2.8e-2 at rtol 1e-2
    //     57    2.1e-3 at rtol 1e-3
    //     79    3.2e-4 at rtol 1e-4
    println!("\n   NFE{:>17}", "rk45");
    for tolerance in [1e-1, 1e-2, 1e-3, 1e-4] {
        let solution = flow.solve(&Adaptive::new(tolerance, tolerance), &x, from, to)?;
        let total: usize = solution.reports.iter().map(|report| report.nfe).sum();
        let nfe = total as f64 / solution.reports.len() as f64;
        println!("{nfe:>6.0}{:>10.1e} at rtol {tolerance:e}", support::distance(&solution.y, &exact)?);
    }
    Ok(())
}
