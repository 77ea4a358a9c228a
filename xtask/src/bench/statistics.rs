//! Median, quartiles and range of a few numbers.

use serde_json::{Value, json};

/// A summary of numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The middle.
    pub median: f64,
    /// The first and the third quartile.
    pub quartiles: [f64; 2],
    /// The least and the greatest.
    pub range: [f64; 2],
}

impl Spread {
    /// The spread of one number or more; of none, NaN.
    pub fn of(numbers: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = numbers.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let at = |p: f64| quantile(&sorted, p);
        Self { median: at(0.5), quartiles: [at(0.25), at(0.75)], range: [at(0.0), at(1.0)] }
    }

    /// As in a record.
    pub fn record(&self) -> Value {
        json!({ "median": self.median, "quartiles": self.quartiles, "min": self.range[0], "max": self.range[1] })
    }
}

/// Linear between order statistics.
fn quantile(sorted: &[f64], p: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let place = p * last as f64;
    let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    low + (high - low) * place.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_of_few_numbers() {
        let spread = Spread::of([4.0, 1.0, 2.0, 3.0, 10.0]);
        assert_eq!(spread, Spread { median: 3.0, quartiles: [2.0, 4.0], range: [1.0, 10.0] });
        assert_eq!(Spread::of([1.0, 2.0]).median, 1.5);
        assert_eq!(Spread::of([7.0]).quartiles, [7.0, 7.0]);
        assert!(Spread::of([]).median.is_nan());
    }
}
