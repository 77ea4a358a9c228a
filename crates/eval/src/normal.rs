//! The log probability that a standard normal number lies in an interval, `log [Φ(b) − Φ(a)]`, to full precision also
//! where it underflows.
//!
//! Near the middle by the error function; in a tail by `Q(x) = φ(x) / (x + 1/(x + 2/(x + 3/(x + …))))`, Q = 1 − Φ.
//!
//! Reference: Abramowitz, Stegun 1964, 26.2.14.

use std::f64::consts::{FRAC_1_SQRT_2, TAU};

/// From where the continued fraction serves, and how many of its terms: they leave less than rounding.
const TAIL: f64 = 5.0;
const TERMS: u32 = 40;

/// log Q(x).
fn log_upper(x: f64) -> f64 {
    if x < TAIL {
        return (0.5 * libm::erfc(x * FRAC_1_SQRT_2)).ln();
    }
    let fraction = (1..=TERMS).rev().fold(x, |below, k| x + f64::from(k) / below);
    -0.5 * x * x - 0.5 * TAU.ln() - fraction.ln()
}

/// log [Φ(b) − Φ(a)], a ≤ b; either may be infinite.
pub(crate) fn log_interval(a: f64, b: f64) -> f64 {
    // Seen from the side where both ends are far from cancelling.
    let (a, b) = if a + b < 0.0 { (-b, -a) } else { (a, b) };
    if a <= 0.0 {
        return (0.5 * (libm::erf(b * FRAC_1_SQRT_2) - libm::erf(a * FRAC_1_SQRT_2))).ln();
    }
    let (near, far) = (log_upper(a), log_upper(b));
    near + (-(far - near).exp_m1()).ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sde_core::quadrature::GaussLegendre;

    #[test]
    fn it_is_the_integral_of_the_density() {
        let rule = GaussLegendre::new(40);
        // The density relative to that at the end nearer to 0, so that nothing underflows.
        for (a, b) in
            [(-1.0, 2.0), (0.3, 0.31), (-4.9, -4.0), (4.5, 5.5), (9.0, 9.7), (-60.1, -60.0), (200.0, 200.5)]
        {
            let near: f64 =
                if f64::signum(a) == f64::signum(b) { f64::min(f64::abs(a), f64::abs(b)) } else { 0.0 };
            let integral = rule.integrate(a, b, |x| (0.5 * (near * near - x * x)).exp());
            let expected = integral.ln() - 0.5 * near * near - 0.5 * TAU.ln();
            let found = log_interval(a, b);
            assert!(
                (found - expected).abs() < 1e-12 * expected.abs().max(1.0),
                "{a} {b}: {found} {expected}"
            );
        }
    }

    #[test]
    fn ends_at_infinity() {
        let infinity = f64::INFINITY;
        assert_eq!(log_interval(-infinity, infinity), 0.0);
        for x in [-37.0, -6.0, -1.0, 0.0, 2.0, 12.0] {
            let (below, above) = (log_interval(-infinity, x), log_interval(x, infinity));
            assert!((below.exp() + above.exp() - 1.0).abs() < 1e-15, "{x}");
            assert!(below.is_finite() && above.is_finite(), "{x}");
        }
    }
}
