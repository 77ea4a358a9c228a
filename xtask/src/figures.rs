//! Numbers as people read them: as many digits as their error leaves.

use sde_eval::Estimate;

/// Four digits that matter.
pub fn number(value: f64) -> String {
    let size = value.abs();
    if size < 1e-15 {
        return "0".into();
    }
    if value.fract() == 0.0 && size < 1e9 {
        return format!("{value}");
    }
    if (1e-3..1e5).contains(&size) {
        let digits = (3 - size.log10().floor() as i32).clamp(0, 6) as usize;
        format!("{value:.digits$}")
    } else {
        format!("{value:.3e}")
    }
}

/// A value with its standard error, if it has one: two digits of the error, and as many of the value.
pub fn with_error(value: f64, standard_error: Option<f64>) -> String {
    match standard_error {
        _ if value.abs() < 1e-15 && standard_error.is_none_or(|e| e < 1e-15) => "0".into(),
        Some(error) if error > 0.0 && (1e-4..1e4).contains(&value.abs().max(error)) => {
            let digits = (1 - error.log10().floor() as i32).clamp(0, 8) as usize;
            format!("{value:.digits$} ± {error:.digits$}")
        }
        Some(error) if error > 0.0 => format!("{value:.2e} ± {error:.1e}"),
        _ => number(value),
    }
}

/// An estimate with its error.
pub fn short(estimate: &Estimate) -> String {
    with_error(estimate.value, estimate.standard_error)
}

/// 35218947 as 35,218,947.
pub fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_those_that_the_error_leaves() {
        assert_eq!(with_error(2.18123, Some(0.0104)), "2.181 ± 0.010");
        assert_eq!(with_error(1234.5, Some(30.2)), "1234 ± 30");
        assert_eq!(with_error(1e-7, Some(2e-8)), "1.00e-7 ± 2.0e-8");
        assert_eq!(with_error(-0.5, None), "-0.5000");
        assert_eq!(with_error(0.0, Some(0.0)), "0");
        assert_eq!(number(386_137.0), "386137");
        assert_eq!(number(12.34567), "12.35");
    }
}
