//! What an error of a network's noise prediction is worth in the other predictions, over the times of a process.
//!
//! Every prediction is an affine image of every other, `to = A u + B p`; |B| is how far an error of p is carried. A
//! network that predicts noise knows the data well near t = 0 and not at all near T.
//!
//! `cargo run --release -p sde-core --example conversions`
#![allow(clippy::print_stdout, reason = "an example that reports")]

use sde_core::process::{LinearPath, Vp};
use sde_core::{LinearSde, Prediction, Result};

//  vp     t       data   velocity      score          v
//     0.001      0.010      5.717     95.371      1.000
//       0.5      3.413      5.236      1.042      3.556
//      0.99    137.754      9.901      1.000    137.758
fn main() -> Result<()> {
    let processes: [(&str, &dyn LinearSde); 2] = [("vp", &Vp::STANDARD), ("linear", &LinearPath)];
    for (name, sde) in processes {
        println!("{name}: an error of 1 in the noise is an error of");
        println!("{:>8} {:>10} {:>10} {:>10} {:>10}", "t", "data", "velocity", "score", "v");
        for t in [0.001, 0.01, 0.1, 0.5, 0.9, 0.99] {
            print!("{t:>8}");
            for to in [Prediction::Data, Prediction::Velocity, Prediction::Score, Prediction::V] {
                print!(" {:>10.3}", Prediction::Noise.conversion(to, sde, t)?.value.max_abs());
            }
            println!();
        }
    }
    Ok(())
}
