//! A process of one's own, and what `check_process` says about it: with the right derivative of σ, and with one
//! factor forgotten.
//!
//! The variance-preserving process whose log ρ is linear in t, `ρ = ρ₀^{1−t} ρ₁^t`, `α = 1/√(1 + ρ²)`, `σ = ρ α`:
//! `α̇ = −c σ² α`, `σ̇ = c α² σ`, `c = log(ρ₁/ρ₀)`.
//!
//! Reference: Kingma et al. 2021, arXiv 2107.00630, section 4 (a linear log signal-to-noise ratio).
//!
//! `cargo run --release -p sde-core --example my_process`
#![allow(clippy::print_stdout, reason = "an example that reports")]

use sde_core::{Result, ScalarSde, Span, check_process};

struct LogLinear {
    rho_0: f64,
    rho_1: f64,
    /// Whether the derivative of σ lacks its factor α².
    mistaken: bool,
}

impl LogLinear {
    fn c(&self) -> f64 {
        (self.rho_1 / self.rho_0).ln()
    }
}

impl ScalarSde for LogLinear {
    fn span(&self) -> Span {
        Span { end: 1.0, sampling: 0.0, likelihood: 0.0 }
    }
    fn alpha(&self, t: f64) -> f64 {
        self.rho(t).hypot(1.0).recip()
    }
    fn sigma(&self, t: f64) -> f64 {
        self.rho(t) * self.alpha(t)
    }
    fn alpha_rate(&self, t: f64) -> f64 {
        -self.c() * self.sigma(t).powi(2) * self.alpha(t)
    }
    fn sigma_rate(&self, t: f64) -> f64 {
        let factor = if self.mistaken { 1.0 } else { self.alpha(t).powi(2) };
        self.c() * factor * self.sigma(t)
    }
    // Given, because α and σ follow from it here; the default is their ratio.
    fn rho(&self, t: f64) -> f64 {
        self.rho_0 * (self.c() * t).exp()
    }
    fn t_of_rho(&self, rho: f64) -> f64 {
        (rho / self.rho_0).ln() / self.c()
    }
}

// defect            right     mistaken
// Ψ composes      2.0e-16      2.0e-16
// dΨ/dt           2.4e-12      2.4e-12
// dΣ/dt           5.3e-10        1.0e0
// R Rᵀ = Σ          0.0e0        0.0e0
// dR/dt           1.6e-12        1.1e1
// clock           1.6e-12       5.0e-1
fn main() -> Result<()> {
    println!("{:<10} {:>12} {:>12}", "defect", "right", "mistaken");
    let defects = |mistaken| {
        check_process(&LogLinear { rho_0: 1e-3, rho_1: 1e2, mistaken }, &[0.05, 0.2, 0.4, 0.6, 0.8, 0.95])
    };
    let (right, wrong) = (defects(false)?, defects(true)?);
    let rows = [
        ("Ψ composes", right.composition, wrong.composition),
        ("dΨ/dt", right.transition_rate, wrong.transition_rate),
        ("dΣ/dt", right.covariance_rate, wrong.covariance_rate),
        ("R Rᵀ = Σ", right.factor, wrong.factor),
        ("dR/dt", right.rates, wrong.rates),
        ("clock", right.clock, wrong.clock),
    ];
    for (identity, right, wrong) in rows {
        println!("{identity:<10} {right:>12.1e} {wrong:>12.1e}");
    }
    Ok(())
}
