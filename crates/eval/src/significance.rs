//! Whether a difference is more than chance: the two-sided probability of one at least as large between equal values.
//!
//! Where standard errors e₁, e₂ are known well, `z = Δ/√(e₁² + e₂²)` is normal and `p = erfc(|z|/√2)`. An error estimated from G groups is itself
//! uncertain, with ν = G − 1 degrees of freedom; then z follows Student's law with
//!
//! `ν = (e₁² + e₂²)² / (e₁⁴/ν₁ + e₂⁴/ν₂)`,  `p = I_x(ν/2, ½)`,  `x = ν/(ν + z²)`,
//!
//! I the regularised incomplete beta function, here by its continued fraction.
//!
//! Reference: Welch 1947, doi 10.1093/biomet/34.1-2.28; NIST Digital Library of Mathematical Functions, 8.17.22.

/// A standard error, and the degrees of freedom that it was estimated with; none where they are many.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ErrorBar {
    /// The standard error.
    pub standard_error: f64,
    /// Degrees of freedom.
    pub degrees_of_freedom: Option<f64>,
}

/// The probability of a difference at least as large by chance, if both values are equal in truth.
pub fn two_sided(difference: f64, errors: [ErrorBar; 2]) -> f64 {
    let squares = errors.map(|e| e.standard_error.powi(2));
    let total: f64 = squares.iter().sum();
    let z = difference.abs() / total.sqrt();
    let uncertain: f64 = errors
        .iter()
        .zip(squares)
        .filter_map(|(e, square)| Some(square.powi(2) / e.degrees_of_freedom?))
        .sum();
    if uncertain == 0.0 {
        return libm::erfc(z / std::f64::consts::SQRT_2);
    }
    let nu = total.powi(2) / uncertain;
    incomplete_beta(0.5 * nu, 0.5, nu / (nu + z * z))
}

/// `I_x(a, b)`.
fn incomplete_beta(a: f64, b: f64, x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return x.clamp(0.0, 1.0);
    }
    // The fraction converges fast on this side.
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(b, a, 1.0 - x);
    }
    let log_front = a * x.ln() + b * (1.0 - x).ln() + libm::lgamma(a + b) - libm::lgamma(a) - libm::lgamma(b);
    log_front.exp() / (a * fraction(a, b, x))
}

/// `1 + d₁/(1 + d₂/(1 + …))`, from the inside out: 200 terms are more than it ever needs.
fn fraction(a: f64, b: f64, x: f64) -> f64 {
    let term = |m: u32| {
        let k = f64::from(m / 2);
        if m.is_multiple_of(2) {
            k * (b - k) * x / ((a + 2.0 * k - 1.0) * (a + 2.0 * k))
        } else {
            -(a + k) * (a + b + k) * x / ((a + 2.0 * k) * (a + 2.0 * k + 1.0))
        }
    };
    (1..=200).rev().fold(1.0, |inner, m| 1.0 + term(m) / inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(z: f64, degrees: Option<f64>) -> f64 {
        let known = ErrorBar { standard_error: 0.0, degrees_of_freedom: None };
        two_sided(z, [ErrorBar { standard_error: 1.0, degrees_of_freedom: degrees }, known])
    }

    /// Quantiles from tables of the normal and of Student's law.
    #[test]
    fn probabilities_are_those_of_tables() {
        let cases = [
            (1.959_963_984_540, None, 0.05),
            (-2.575_829_303_549, None, 0.01),
            (0.0, None, 1.0),
            (12.706_204_736_175, Some(1.0), 0.05),
            (4.302_652_729_911, Some(2.0), 0.05),
            (2.776_445_105_198, Some(4.0), 0.05),
            (8.610_301_581_379, Some(4.0), 0.001),
            (2.042_272_456_301, Some(30.0), 0.05),
            (0.0, Some(3.0), 1.0),
        ];
        for (z, degrees, expected) in cases {
            assert!((p(z, degrees) - expected).abs() < 1e-9, "{z} {degrees:?}: {}", p(z, degrees));
        }
        // Of one degree the law is Cauchy's.
        for z in [0.1f64, 1.0, 5.0, 100.0] {
            let cauchy = 1.0 - 2.0 * z.atan() / std::f64::consts::PI;
            assert!((p(z, Some(1.0)) - cauchy).abs() < 1e-12);
        }
    }

    #[test]
    fn equal_errors_add_their_degrees() {
        let error = ErrorBar { standard_error: 3.0, degrees_of_freedom: Some(2.0) };
        let together = two_sided(2.776_445_105_198 * 18f64.sqrt(), [error, error]);
        assert!((together - 0.05).abs() < 1e-9, "{together}");
    }
}
