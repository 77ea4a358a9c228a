//! Rules with several evaluations a step.

use super::{Accepts, Entry, Make, Stochastic};
use crate::table::{Axis, Churn, Dpm2, RungeKutta};
use crate::tableau::Tableau;

const RHO: &str = "Zhang, Chen 2022, arXiv 2204.13902, section 4";

/// A Runge–Kutta method in t or in ρ.
macro_rules! runge_kutta {
    ($tableau:ident, $axis:ident, $what:literal, $stages:literal, $advice:literal) => {
        Entry {
            name: Tableau::$tableau.names[Axis::$axis as usize],
            what: $what,
            order: Tableau::$tableau.order as u32,
            nfe: $stages,
            stochastic: Stochastic::No,
            accepts: if matches!(Axis::$axis, Axis::Time) { Accepts::Velocity } else { Accepts::Linear },
            reference: if matches!(Axis::$axis, Axis::Time) { "Butcher 2016, section 23" } else { RHO },
            advice: $advice,
            make: Make::Table(|_| {
                let (tableau, axis) = (Tableau::$tableau, Axis::$axis);
                Box::new(RungeKutta { tableau, axis, last_euler: false })
            }),
        }
    };
}

pub(super) const ENTRIES: &[Entry] = &[
    runge_kutta!(MIDPOINT, Time, "midpoint rule in t", "2", "baseline"),
    runge_kutta!(HEUN2, Time, "Heun's rule in t", "2", "velocity networks on the linear path"),
    runge_kutta!(RALSTON2, Time, "Ralston's rule of order 2 in t", "2", "baseline"),
    runge_kutta!(KUTTA3, Time, "Kutta's rule of order 3 in t", "3", "baseline"),
    runge_kutta!(HEUN3, Time, "Heun's rule of order 3 in t", "3", "baseline"),
    runge_kutta!(RALSTON3, Time, "Ralston's rule of order 3 in t", "3", "baseline"),
    runge_kutta!(HOUWEN3, Time, "van der Houwen's rule of order 3 in t", "3", "baseline"),
    runge_kutta!(SSPRK3, Time, "strong-stability-preserving rule of order 3 in t", "3", "baseline"),
    runge_kutta!(RK4, Time, "the classic rule of order 4 in t", "4", "velocity networks, many calls"),
    runge_kutta!(THREE_EIGHTHS, Time, "the 3/8 rule in t", "4", "baseline"),
    runge_kutta!(MIDPOINT, Rho, "ρRK, midpoint", "2", "20 calls and more"),
    runge_kutta!(HEUN2, Rho, "ρ2Heun", "2", "20 calls and more; EDM's is `edm-heun`"),
    runge_kutta!(RALSTON2, Rho, "ρRK, Ralston 2", "2", "20 calls and more"),
    runge_kutta!(KUTTA3, Rho, "ρ3Kutta", "3", "20 calls and more"),
    runge_kutta!(HEUN3, Rho, "ρRK, Heun 3", "3", "20 calls and more"),
    runge_kutta!(RALSTON3, Rho, "ρRK, Ralston 3", "3", "20 calls and more"),
    runge_kutta!(HOUWEN3, Rho, "ρRK, van der Houwen 3", "3", "20 calls and more"),
    runge_kutta!(SSPRK3, Rho, "ρRK, SSPRK3", "3", "20 calls and more"),
    runge_kutta!(RK4, Rho, "ρ4RK", "4", "50 calls and more"),
    runge_kutta!(THREE_EIGHTHS, Rho, "ρRK, the 3/8 rule", "4", "50 calls and more"),
    Entry {
        name: "edm-heun",
        what: "Heun in ρ, the last step Euler's",
        order: 2,
        nfe: "2, the last 1",
        stochastic: Stochastic::No,
        accepts: Accepts::Linear,
        reference: "Karras et al. 2022, arXiv 2206.00364, Algorithm 1",
        advice: "EDM networks on the grid `karras`",
        make: Make::Table(|_| Box::new(RungeKutta::EDM)),
    },
    Entry {
        name: "edm-churn",
        what: "Heun in ρ with noise added before every step",
        order: 0,
        nfe: "2, the last 1",
        stochastic: Stochastic::If("churn"),
        accepts: Accepts::Linear,
        reference: "Karras et al. 2022, arXiv 2206.00364, Algorithm 2",
        advice: "EDM networks with hundreds of calls",
        make: Make::Table(|s| {
            let c = s.churn;
            Box::new(Churn {
                solver: RungeKutta::EDM,
                churn: c.amount,
                lowest: c.lowest,
                highest: c.highest,
                noise: c.noise,
            })
        }),
    },
    Entry {
        name: "dpm2",
        what: "DPM-Solver-2: exponential midpoint in log ρ",
        order: 2,
        nfe: "2",
        stochastic: Stochastic::If("eta"),
        accepts: Accepts::Linear,
        reference: "Lu et al. 2022, arXiv 2206.00927, Algorithm 1",
        advice: "parity; η = 1 is DPM2 ancestral",
        make: Make::Table(|s| Box::new(Dpm2 { eta: s.eta })),
    },
];
