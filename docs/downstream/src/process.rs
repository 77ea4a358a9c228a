//! The Ornstein–Uhlenbeck process, `dx = −½ β x dt + √β dw`: `α = e^{−βt/2}`, `σ² = 1 − e^{−βt}`, `ρ² = e^{βt} − 1`.

use sde_core::{ScalarSde, Span};

/// The process with a constant rate.
#[derive(Clone, Copy)]
pub struct OrnsteinUhlenbeck {
    /// β.
    pub beta: f64,
}

impl ScalarSde for OrnsteinUhlenbeck {
    fn span(&self) -> Span {
        Span { end: 1.0, sampling: 1e-4, likelihood: 1e-5 }
    }
    fn alpha(&self, t: f64) -> f64 {
        (-0.5 * self.beta * t).exp()
    }
    fn sigma(&self, t: f64) -> f64 {
        (-(-self.beta * t).exp_m1()).sqrt()
    }
    fn alpha_rate(&self, t: f64) -> f64 {
        -0.5 * self.beta * self.alpha(t)
    }
    fn sigma_rate(&self, t: f64) -> f64 {
        0.5 * self.beta * self.alpha(t).powi(2) / self.sigma(t)
    }
    fn t_of_rho(&self, rho: f64) -> f64 {
        (rho * rho).ln_1p() / self.beta
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_satisfies_its_identities() -> sde_core::Result<()> {
        let times = [1e-3, 0.1, 0.4, 0.7, 1.0];
        let defects = sde_core::check_process(&OrnsteinUhlenbeck { beta: 10.0 }, &times)?;
        assert!(defects.largest() < 1e-7, "{defects:?}");
        Ok(())
    }
}
