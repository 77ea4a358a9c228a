//! How the error of a step chooses the next: `h' = h · 0.9 err^{−α} err_before^{β}`, within [0.2, 10] h.
//!
//! The elementary rule has α = 1/k, β = 0, with k − 1 the order of the error estimate. The PI rule damps with the error before,
//! `β = b/k`, `α = 1/k − ¾ β`; after a rejection it leaves the error before out, as a step may then not grow at all.
//!
//! Reference: Gustafsson 1991, doi 10.1145/210232.210242; Hairer, Nørsett, Wanner 1993, section II.4; Hairer, Wanner 1996, section IV.2, for
//! the exponents.

const SAFETY: f64 = 0.9;
const SHRINK: f64 = 0.2;
const GROW: f64 = 10.0;
/// The smallest error that the PI rule remembers; also what it remembers before the first step.
const SMALLEST: f64 = 1e-4;

/// The rule for the next step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Control {
    /// From the error of the step alone.
    Elementary,
    /// From the error of the step and of the one before: steps vary less where stability limits them.
    Pi {
        /// b = k β, from 0 (elementary) to 1; 0.2 is usual and gives α = 0.17, β = 0.04 for k = 5.
        damping: f64,
    },
}

/// What the rule remembers of a solve.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    before: f64,
    rejected: bool,
}

impl Memory {
    pub(crate) const EMPTY: Self = Self { before: SMALLEST, rejected: false };
}

impl Control {
    fn damping(self) -> f64 {
        match self {
            Self::Elementary => 0.0,
            Self::Pi { damping } => damping,
        }
    }

    /// Refuses a damping that makes no sense.
    pub(crate) fn check(self) -> crate::Result<()> {
        crate::error::in_range("damping of the step control", self.damping(), 0.0, 1.0)?;
        Ok(())
    }

    /// The factor of the next step after one whose error, in units of the tolerance, is below 1.
    pub(crate) fn accept(self, error: f64, exponent: f64, memory: &mut Memory) -> f64 {
        let beta = self.damping() * exponent;
        let past = if beta == 0.0 { 1.0 } else { memory.before.powf(beta) };
        let grow = SAFETY * error.powf(0.75 * beta - exponent) * past;
        let grow = if error == 0.0 { GROW } else { grow.clamp(SHRINK, GROW) };
        // After a rejection a step may not grow at once.
        let grow = if memory.rejected { grow.min(1.0) } else { grow };
        *memory = Memory { before: error.max(SMALLEST), rejected: false };
        grow
    }

    /// The factor of the next attempt after one whose error is 1 or more, or not a number.
    pub(crate) fn reject(self, error: f64, exponent: f64, memory: &mut Memory) -> f64 {
        memory.rejected = true;
        let power = 0.75 * self.damping() * exponent - exponent;
        if error.is_finite() { (SAFETY * error.powf(power)).max(SHRINK) } else { SHRINK }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_damping_the_rule_is_the_elementary_one() {
        for error in [0.0, 1e-9, 0.3, 0.999, 1.0, 7.0, 1e9, f64::NAN] {
            for control in [Control::Elementary, Control::Pi { damping: 0.0 }] {
                let mut memory = Memory { before: 0.7, rejected: false };
                let factor = if error < 1.0 {
                    control.accept(error, 0.2, &mut memory)
                } else {
                    control.reject(error, 0.2, &mut memory)
                };
                let expected = 0.9 * f64::powf(error, -1.0 / 5.0);
                let expected = if error < 1.0 { expected.min(10.0) } else { expected.max(0.2) };
                assert_eq!(factor, expected, "{error}");
            }
        }
    }

    #[test]
    fn a_growing_error_shortens_the_step_and_a_rejection_stops_growth() {
        let (pi, exponent) = (Control::Pi { damping: 0.2 }, 0.2);
        let after = |before: f64| pi.accept(0.5, exponent, &mut Memory { before, rejected: false });
        assert!(after(0.1) < after(0.5) && after(0.5) < after(0.9));
        // Where the error stays at e the factor is 0.9 e^{β − α} = 0.9 e^{−0.13}.
        assert!((after(0.5) - 0.9 * 0.5f64.powf(-0.13)).abs() < 1e-15);
        let mut memory = Memory::EMPTY;
        assert!(pi.reject(2.0, exponent, &mut memory) < 1.0);
        assert!(pi.accept(1e-3, exponent, &mut memory) <= 1.0);
        assert!(pi.accept(1e-3, exponent, &mut memory) > 1.0);
    }
}
