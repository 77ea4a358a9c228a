//! The Ornstein–Uhlenbeck process, `dx = −½ β x dt + √β dw`: `α = e^{−βt/2}`, `σ² = 1 − e^{−βt}`, `ρ² = e^{βt} − 1`.

use sde_core::{ScalarSde, Span};

#[derive(Clone, Copy)]
pub struct OrnsteinUhlenbeck {
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
