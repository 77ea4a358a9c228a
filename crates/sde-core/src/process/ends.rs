//! A process between other ends of time: all that it is, but where sampling starts and stops.
//!
//! VP between the ends of a flow carries the flow's velocity: the prior is N(0, I), and data of unit variance keeps it.
//!
//! Reference: Song et al. 2021, arXiv 2011.13456, Eq. (32)–(33), for VP.

use super::ChainStep;
use crate::error::in_range;
use crate::{Result, ScalarSde, Span};

/// `process`, with other times that matter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ends<P> {
    process: P,
    span: Span,
}

impl<P: ScalarSde> Ends<P> {
    /// The process from `start`, where sampling stops and likelihood starts, to `end`.
    ///
    /// # Errors
    /// Unless `0 ≤ start < end`.
    pub fn new(process: P, start: f64, end: f64) -> Result<Self> {
        in_range("end of time", end, f64::MIN_POSITIVE, f64::MAX)?;
        in_range("start of time", start, 0.0, end.next_down())?;
        Ok(Self { process, span: Span { end, sampling: start, likelihood: start } })
    }
}

impl<P: ScalarSde> ScalarSde for Ends<P> {
    fn span(&self) -> Span {
        self.span
    }
    fn alpha(&self, t: f64) -> f64 {
        self.process.alpha(t)
    }
    fn sigma(&self, t: f64) -> f64 {
        self.process.sigma(t)
    }
    fn alpha_rate(&self, t: f64) -> f64 {
        self.process.alpha_rate(t)
    }
    fn sigma_rate(&self, t: f64) -> f64 {
        self.process.sigma_rate(t)
    }
    fn rho(&self, t: f64) -> f64 {
        self.process.rho(t)
    }
    fn t_of_rho(&self, rho: f64) -> f64 {
        self.process.t_of_rho(rho)
    }
    fn prior_variance(&self) -> f64 {
        self.process.prior_variance()
    }
    fn kinks(&self) -> &[f64] {
        self.process.kinks()
    }
    fn chain(&self, k: usize, steps: usize) -> Option<ChainStep> {
        self.process.chain(k, steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Vp;
    use crate::{LinearSde, check_process};

    #[test]
    fn only_the_ends_are_others() -> Result<()> {
        let sde = Ends::new(Vp::STANDARD, 0.02, 0.9)?;
        let span = LinearSde::span(&sde);
        assert_eq!((span.sampling, span.likelihood, span.end), (0.02, 0.02, 0.9));
        assert!(check_process(&sde, &[0.02, 0.3, 0.9])?.largest() < 1e-6);
        assert_eq!(ScalarSde::alpha(&sde, 0.4), ScalarSde::alpha(&Vp::STANDARD, 0.4));
        assert!(Ends::new(Vp::STANDARD, 0.5, 0.5).is_err() && Ends::new(Vp::STANDARD, -0.1, 0.5).is_err());
        Ok(())
    }
}
