//! Step sizes that adapt to a rate of acceptance, by dual averaging.
//!
//! With H̄_m = (1 − 1/(m+t₀)) H̄_{m−1} + (δ − a_m)/(m+t₀): log ε_m = μ − √m/γ H̄_m, and the size that is kept is the average
//! log ε̄_m = m^{−κ} log ε_m + (1 − m^{−κ}) log ε̄_{m−1}, with μ = log 10ε₀, γ = 0.05, t₀ = 10, κ = 0.75.
//!
//! Reference: Hoffman, Gelman 2014, arXiv 1111.4246, section 3.2, eq. 6.

/// The step size of one chain in its warm-up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct DualAveraging {
    goal: f64,
    centre: f64,
    gap: f64,
    log_mean: f64,
    log_now: f64,
    seen: f64,
}

impl DualAveraging {
    /// From a first size ε₀, towards a mean acceptance δ.
    pub(super) fn new(first: f64, goal: f64) -> Self {
        Self { goal, centre: (10.0 * first).ln(), gap: 0.0, log_mean: 0.0, log_now: first.ln(), seen: 0.0 }
    }

    /// The size for the next iteration of the warm-up.
    pub(super) fn now(&self) -> f64 {
        self.log_now.exp()
    }

    /// The size for after it.
    pub(super) fn kept(&self) -> f64 {
        if self.seen > 0.0 { self.log_mean.exp() } else { self.now() }
    }

    /// Learns of an acceptance in [0, 1].
    pub(super) fn learn(&mut self, acceptance: f64) {
        const GAMMA: f64 = 0.05;
        const DELAY: f64 = 10.0;
        const KAPPA: f64 = 0.75;
        self.seen += 1.0;
        let weight = 1.0 / (self.seen + DELAY);
        self.gap = (1.0 - weight) * self.gap + weight * (self.goal - acceptance);
        self.log_now = self.centre - self.seen.sqrt() / GAMMA * self.gap;
        let fade = self.seen.powf(-KAPPA);
        self.log_mean = fade * self.log_now + (1.0 - fade) * self.log_mean;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An acceptance e^{−ε} wants ε = −log δ.
    #[test]
    fn the_size_finds_its_acceptance() {
        for goal in [0.3, 0.65, 0.9] {
            let mut size = DualAveraging::new(0.1, goal);
            (0..3000).for_each(|_| size.learn((-size.now()).exp()));
            assert!(((-size.kept()).exp() - goal).abs() < 0.01, "{goal}: {}", size.kept());
        }
    }
}
