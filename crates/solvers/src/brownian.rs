//! One path of Brownian motion, revealed point by point: W(0) = 0, and whatever was revealed stays so.
//!
//! A solver that rejects a step has seen W at the end of it. If it drew a new increment for the shorter step, small increments would be accepted more
//! often than large ones, and its law would be wrong. Here the end stays on the path, and a point before it is drawn from the bridge between its neighbours,
//!
//! `W(s) | W(a), W(b) ~ N(W(a) + (s − a)/(b − a) (W(b) − W(a)), (s − a)(b − s)/(b − a) I)`.
//!
//! Reference: Lévy 1948 for the bridge; Rackauckas, Nie 2017, doi 10.3934/dcdsb.2017133 (RSwM), for its use with rejected steps.

/// A path in some dimensions; points before the present are forgotten.
#[derive(Debug, Clone)]
pub(crate) struct BrownianPath {
    /// Times and values, increasing; the first is the present.
    known: Vec<(f64, Vec<f64>)>,
}

impl BrownianPath {
    /// A path at its start.
    pub(crate) fn new(dim: usize) -> Self {
        Self { known: vec![(0.0, vec![0.0; dim])] }
    }

    /// W(s) less W at the present, for s after it; `normal` is used if s was not revealed before.
    pub(crate) fn increment(&mut self, s: f64, normal: &[f64]) -> Vec<f64> {
        let after = self.known.partition_point(|(at, _)| *at < s);
        if self.known.get(after).is_none_or(|(at, _)| *at != s) {
            let value = self.reveal(after, s, normal);
            self.known.insert(after, (s, value));
        }
        self.known[after].1.iter().zip(&self.known[0].1).map(|(w, now)| w - now).collect()
    }

    /// A new value at s, before the known point `after`.
    fn reveal(&self, after: usize, s: f64, normal: &[f64]) -> Vec<f64> {
        let (a, before) = &self.known[after - 1];
        match self.known.get(after) {
            None => before.iter().zip(normal).map(|(w, z)| w + (s - a).sqrt() * z).collect(),
            Some((b, next)) => {
                let (part, deviation) = ((s - a) / (b - a), ((s - a) * (b - s) / (b - a)).sqrt());
                let bridge = |((w, next), z): ((&f64, &f64), &f64)| w + part * (next - w) + deviation * z;
                before.iter().zip(next).zip(normal).map(bridge).collect()
            }
        }
    }

    /// Goes on to s, which was revealed.
    pub(crate) fn advance(&mut self, s: f64) {
        self.known.retain(|(at, _)| *at >= s);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sde_core::noise::{Noise, Stream};

    /// W(1) by steps that are halved as long as the increment is large for them, and W(1) by the same with increments drawn anew.
    fn ends(sample: u32) -> [f64; 2] {
        let mut draws = Noise::new(5).draws(Stream::User, 0, sample);
        let mut path = BrownianPath::new(1);
        let (mut kept, mut redrawn, mut s) = (0.0, 0.0, 0.0);
        while s < 1.0 {
            let mut h = (1.0_f64 - s).min(0.25);
            loop {
                let increment = path.increment(s + h, &[draws.normal()])[0];
                if increment.abs() < 0.8 * h.sqrt() || h < 1e-3 {
                    (kept, s) = (kept + increment, s + h);
                    path.advance(s);
                    break;
                }
                h *= 0.5;
            }
        }
        let mut s = 0.0;
        while s < 1.0 {
            let mut h = (1.0_f64 - s).min(0.25);
            loop {
                let increment = h.sqrt() * draws.normal();
                if increment.abs() < 0.8 * h.sqrt() || h < 1e-3 {
                    (redrawn, s) = (redrawn + increment, s + h);
                    break;
                }
                h *= 0.5;
            }
        }
        [kept, redrawn]
    }

    #[test]
    fn rejections_do_not_change_the_law() {
        let n = 4000;
        let all: Vec<[f64; 2]> = (0..n).map(ends).collect();
        let second = |which: usize| all.iter().map(|e| e[which] * e[which]).sum::<f64>() / f64::from(n);
        // W(1)² has mean 1 and variance 2.
        let standard_error = (2.0 / f64::from(n)).sqrt();
        assert!((second(0) - 1.0).abs() < 4.0 * standard_error, "{}", second(0));
        // Increments drawn anew are those of a normal cut off at 0.8: the test would see it.
        assert!(second(1) < 0.5, "{}", second(1));
        let mean = all.iter().map(|e| e[0]).sum::<f64>() / f64::from(n);
        assert!(mean.abs() < 4.0 / f64::from(n).sqrt(), "{mean}");
    }

    #[test]
    fn what_was_revealed_stays() {
        let mut path = BrownianPath::new(2);
        let end = path.increment(1.0, &[1.0, -2.0]);
        let middle = path.increment(0.25, &[0.0, 0.0]);
        assert_eq!((end.as_slice(), middle.as_slice()), (&[1.0, -2.0][..], &[0.25, -0.5][..]));
        path.advance(0.25);
        assert_eq!(path.increment(1.0, &[9.0, 9.0]), [0.75, -1.5]);
    }
}
