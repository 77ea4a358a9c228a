//! Three-point differences in time that never leave the times of a process.
//!
//! At times t − h_s, t, t + h_d: `ḟ ≈ [h_s² f(t+h_d) + (h_d² − h_s²) f(t) − h_d² f(t−h_s)] / (h_s h_d (h_s + h_d))`, exact for t², with
//! the error h_s h_d on t³. Where the time before, or after, lies outside, all three lie on the other side of t, at the same distances.
//!
//! Reference: Lai et al. 2022, arXiv 2210.04296, section 5 and Lemma C.1.
//! Differs: the paper looks at t − h_s < 0 for small t, where VP has no noise; and our default is even in the process's clock, in which
//! the score moves evenly, where a fixed h is far too long for small t.

use sde_core::LinearSde;
use sde_core::quadrature::lagrange_rate;

use super::RateStep;
use crate::{Error, Result};

/// Times, t the first, and what f counts at each in ḟ(t).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TimeDifference {
    /// The times.
    pub times: [f64; 3],
    /// Their weights.
    pub weights: [f64; 3],
}

impl TimeDifference {
    /// The difference around `t`, within the times of the process.
    ///
    /// # Errors
    /// [`Error::Config`] for a time outside the process, or that its clock does not reach.
    pub fn new(sde: &dyn LinearSde, t: f64, step: RateStep) -> Result<Self> {
        let span = sde.span();
        // Times below that of likelihood are a training's own choice; a difference then starts there.
        let (from, to) = (span.likelihood.min(t), span.end);
        if !(t > 0.0 && t <= to && sde.clock(t).is_finite()) {
            let expected = format!("within (0, {to}], where there is signal and noise");
            return Err(Error::config("loss.time", expected, t));
        }
        Ok(match step {
            RateStep::Time { before, after } => {
                let times = three(t, (before, after), (from, to));
                Self { times, weights: weights(times) }
            }
            RateStep::Clock { step } => {
                let clocks = three(sde.clock(t), (step, step), (sde.clock(from), sde.clock(to)));
                let rate = sde.clock_rate(t);
                // The middle is t itself, not what comes back from the clock.
                let times = clocks.map(|clock| sde.time_of_clock(clock));
                Self { times: [t, times[1], times[2]], weights: weights(clocks).map(|w| w * rate) }
            }
        })
    }
}

/// t and one place at each side, or two at one where the other has no room.
fn three(t: f64, (before, after): (f64, f64), (from, to): (f64, f64)) -> [f64; 3] {
    let whole = before + after;
    match (t - before >= from, t + after <= to) {
        (true, true) => [t, t - before, t + after],
        (false, _) if t + whole <= to => [t, t + after, t + whole],
        (_, false) if t - whole >= from => [t, t - before, t - whole],
        // A span shorter than the difference: its two ends, or what is left of it.
        _ if t == from => [t, 0.5 * (t + to), to],
        _ if t == to => [t, 0.5 * (t + from), from],
        _ => [t, from, to],
    }
}

fn weights(nodes: [f64; 3]) -> [f64; 3] {
    [0, 1, 2].map(|j| lagrange_rate(&nodes, j, nodes[0]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sde_core::process::{LinearPath, Ve, Vp};

    #[test]
    fn exact_on_squares_and_off_by_the_product_of_distances_on_cubes() -> Result<()> {
        let step = RateStep::Time { before: 0.001, after: 0.0005 };
        let apply = |d: &TimeDifference, f: &dyn Fn(f64) -> f64| -> f64 {
            d.times.iter().zip(d.weights).map(|(&t, w)| w * f(t)).sum()
        };
        let inside = TimeDifference::new(&Vp::STANDARD, 0.3, step)?;
        assert!((apply(&inside, &|t| t * t) - 0.6).abs() < 1e-11);
        let off = apply(&inside, &|t| (t - 0.3).powi(3));
        assert!((off - 0.001 * 0.0005).abs() < 1e-12, "{off:e}");
        // The printed formula.
        let (h, d) = (0.001, 0.0005);
        let printed = [h * h, d * d - h * h, -d * d].map(|w: f64| w / (h * d * (h + d)));
        let [centre, before, after] = inside.weights;
        for (found, expected) in [after, centre, before].into_iter().zip(printed) {
            assert!((found / expected - 1.0).abs() < 1e-9);
        }
        Ok(())
    }

    #[test]
    fn times_stay_within_the_process_and_derivatives_right() -> Result<()> {
        let steps = [RateStep::Time { before: 0.001, after: 0.0005 }, RateStep::Clock { step: 0.03 }];
        let (vp, ve) = (Vp::STANDARD, Ve::STANDARD);
        for sde in [&vp as &dyn LinearSde, &ve] {
            for t in [1e-5, 2e-5, 3e-4, 1e-3, 0.4, 0.9997, 1.0] {
                for step in steps {
                    let found = TimeDifference::new(sde, t, step)?;
                    assert!(
                        found.times.iter().all(|t| (1e-5 * (1.0 - 1e-12)..=1.0 + 1e-12).contains(t)),
                        "{t}: {found:?}"
                    );
                    let sum: f64 = found.weights.iter().sum();
                    assert!(sum.abs() < 1e-9 * found.weights[0].abs().max(1.0));
                    // What is even in the step's own variable.
                    let rate: f64 = match step {
                        RateStep::Time { .. } => {
                            found.times.iter().zip(found.weights).map(|(t, w)| t * w).sum()
                        }
                        RateStep::Clock { .. } => {
                            let slope =
                                |(t, w): (&f64, f64)| sde.clock(*t) * w / sde.clock_rate(found.times[0]);
                            found.times.iter().zip(found.weights).map(slope).sum()
                        }
                    };
                    assert!((rate - 1.0).abs() < 1e-6, "{t} {step:?}: {rate}");
                }
            }
        }
        assert!(TimeDifference::new(&vp, 0.0, steps[0]).is_err());
        assert!(TimeDifference::new(&LinearPath, 1.0, steps[1]).is_err());
        assert!(TimeDifference::new(&vp, 1.5, steps[1]).is_err());
        Ok(())
    }
}
