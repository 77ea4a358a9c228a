//! How far the law of an angle is from that of another, by histograms: KL(p ‖ q) of b equal bins of the circle.
//!
//! With c_k of N samples in bin k, its probability is taken as (c_k + ½)/(N + b/2), so that an empty bin does not make all infinite. A sample too small for its
//! bins reads high: by about (b − 1)/2N for each of the two laws. The standard error is that of leaving out a tenth of
//! both samples in turn (jackknife), each tenth a run of neighbours: states of one chain that lie close are alike, and stay together.
//!
//! Reference: Krichevsky, Trofimov 1981, doi 10.1109/TIT.1981.1056331 (the ½); Quenouille 1956 (the jackknife).

use crate::{Error, Estimate, Result};

const GROUPS: usize = 10;
const MOST_BINS: usize = 100_000;

/// Counts of angles in `bins` bins from −π to π, those of every tenth of the samples apart.
fn counts(angles: &[f64], bins: usize) -> Result<Vec<[f64; GROUPS]>> {
    let mut counts = vec![[0.0; GROUPS]; bins];
    for (i, &angle) in angles.iter().enumerate() {
        if !angle.is_finite() {
            return Err(Error::mismatch("an angle", "a finite number", angle));
        }
        let turn = (angle / std::f64::consts::TAU + 0.5).rem_euclid(1.0);
        let bin = ((turn * bins as f64) as usize).min(bins - 1);
        counts[bin][i * GROUPS / angles.len()] += 1.0;
    }
    Ok(counts)
}

/// Probabilities of the bins without one of the groups, or with all.
fn law(counts: &[[f64; GROUPS]], without: Option<usize>) -> Vec<f64> {
    let left = |bin: &[f64; GROUPS]| bin.iter().sum::<f64>() - without.map_or(0.0, |group| bin[group]) + 0.5;
    let total: f64 = counts.iter().map(left).sum();
    counts.iter().map(|bin| left(bin) / total).collect()
}

/// KL(p ‖ q) of samples of two angles, in radians, in nats.
///
/// # Errors
/// Where there are fewer than two bins or more than 100 000, fewer than twenty samples of one, or an angle that is no number.
pub fn angle_divergence(p: &[f64], q: &[f64], bins: usize) -> Result<Estimate> {
    if !(2..=MOST_BINS).contains(&bins) {
        return Err(Error::mismatch("bins of an angle", format!("from 2 to {MOST_BINS}"), bins));
    }
    let n = p.len().min(q.len());
    if n < 2 * GROUPS {
        return Err(Error::mismatch("samples of an angle", format!("at least {}", 2 * GROUPS), n));
    }
    let (p, q) = (counts(p, bins)?, counts(q, bins)?);
    let between =
        |without| law(&p, without).iter().zip(law(&q, without)).map(|(p, q)| p * (p / q).ln()).sum::<f64>();
    let parts: Vec<f64> = (0..GROUPS).map(|group| between(Some(group))).collect();
    let mean = parts.iter().sum::<f64>() / GROUPS as f64;
    let share = (GROUPS - 1) as f64 / GROUPS as f64;
    let variance = share * parts.iter().map(|part| (part - mean).powi(2)).sum::<f64>();
    Ok(Estimate { value: between(None), standard_error: Some(variance.sqrt()), n })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sde_core::noise::{Noise, Stream};

    /// Angles with the density (1 + a cos φ)/2π, by rejection.
    fn angles(a: f64, n: usize, seed: u64) -> Vec<f64> {
        let mut draws = Noise::new(seed).draws(Stream::User, 0, 0);
        let mut found = Vec::new();
        while found.len() < n {
            let angle = std::f64::consts::TAU * (draws.uniform() - 0.5);
            if draws.uniform() * (1.0 + a.abs()) < 1.0 + a * angle.cos() {
                found.push(angle);
            }
        }
        found
    }

    /// ∫ p log p/q by a sum of many points.
    fn exact(a: f64, b: f64) -> f64 {
        let n = 10_000;
        let term = |k: usize| {
            let c = (std::f64::consts::TAU * (k as f64 + 0.5) / f64::from(n as u32)).cos();
            (1.0 + a * c) * ((1.0 + a * c) / (1.0 + b * c)).ln()
        };
        (0..n).map(term).sum::<f64>() / n as f64
    }

    #[test]
    fn the_divergence_of_known_laws() -> Result<()> {
        let found = angle_divergence(&angles(0.5, 40_000, 1), &angles(-0.5, 40_000, 2), 40)?;
        let error = found.standard_error.unwrap_or(0.0);
        // Bins of 9° lose less than 1e-3; both samples read (40 − 1)/2N = 5e-4 too high.
        assert!(error < 0.02 && (found.value - exact(0.5, -0.5)).abs() < 5.0 * error + 2e-3, "{found:?}");
        let same = angle_divergence(&angles(0.5, 20_000, 3), &angles(0.5, 20_000, 4), 40)?;
        assert!(same.value < 3.0 * 2.0 * 39.0 / 40_000.0, "{same:?}");
        Ok(())
    }

    /// Samples that stand fifty times in a row say no more than once: the error is that of one each, but for the ½, which weighs less.
    #[test]
    fn repetition_is_no_evidence() -> Result<()> {
        let (p, q) = (angles(0.3, 1000, 5), angles(-0.3, 1000, 6));
        let often = |x: &[f64]| x.iter().flat_map(|x| [*x; 50]).collect::<Vec<f64>>();
        let (once, again) = (angle_divergence(&p, &q, 8)?, angle_divergence(&often(&p), &often(&q), 8)?);
        let ratio = again.standard_error.unwrap_or(0.0) / once.standard_error.unwrap_or(1.0);
        assert!((ratio - 1.0).abs() < 0.05, "{once:?} {again:?}");
        Ok(())
    }

    #[test]
    fn turns_do_not_matter_and_nonsense_is_refused() -> Result<()> {
        let (p, q) = (angles(0.3, 100, 1), angles(0.7, 100, 2));
        let turned: Vec<f64> = p.iter().map(|angle| angle + 2.0 * std::f64::consts::TAU).collect();
        let (here, there) = (angle_divergence(&p, &q, 8)?, angle_divergence(&turned, &q, 8)?);
        assert!((here.value - there.value).abs() < 1e-12);
        assert!(angle_divergence(&p, &q, usize::MAX).is_err());
        assert!(angle_divergence(&p, &q, 1).is_err() && angle_divergence(&p[..10], &q, 8).is_err());
        assert!(angle_divergence(&[f64::NAN; 30], &q, 8).is_err());
        Ok(())
    }
}
