//! Precision, recall, density, coverage and copies: stored counts, brute force, error bars against scatter.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use sde_core::noise::{BatchNoise, Law, Noise, Stream};
use sde_data::read::npz::read_npz;
use sde_eval::{
    Error, Estimate, FeatureSet, FeatureSpace, Result, inception_score, memorisation, memorisation_bytes,
    prdc, prdc_bytes,
};

fn golden(key: &str) -> Result<Tensor> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/metrics.npz");
    let array = read_npz(&path)?[key].to_f64();
    Ok(Tensor::from_vec(array.iter().copied().collect(), array.shape(), &Device::Cpu)?)
}

fn set(features: &Tensor) -> Result<FeatureSet> {
    let text = |t: &str| t.to_owned();
    let space = FeatureSpace {
        network: text("test"),
        weights_sha256: text("none"),
        layer: text("x"),
        resize: text("none"),
        range: text("x"),
    };
    FeatureSet::new(space, features)
}

fn normal(seed: u64, n: u32, dim: usize, scale: f64) -> Result<Tensor> {
    let noise = BatchNoise::new(Noise::new(seed), 0, 0..n);
    Ok((noise.tensor(Law::Normal, Stream::User, 0, &[dim], DType::F64, &Device::Cpu)? * scale)?)
}

#[test]
fn precision_and_recall_are_the_stored_counts() -> Result<()> {
    let (samples, references) = (set(&golden("prc_gen")?)?, set(&golden("prc_real")?)?);
    for k in [3, 5] {
        let expected = golden(&format!("prc_k{k}"))?.to_vec1::<f64>()?;
        let found = prdc(&samples, &references, k)?;
        // Stored in f32: the counts are of 80 and 100.
        assert_eq!((found.precision.value * 80.0).round(), (expected[0] * 80.0).round());
        assert!((found.precision.value - expected[0]).abs() < 1e-7);
        assert!((found.recall.value - expected[1]).abs() < 1e-7);
    }
    Ok(())
}

/// Everything by the definitions, pair by pair, for sets far from zero, where products of features cancel.
#[test]
fn blocks_agree_with_the_definitions() -> Result<()> {
    let k = 4;
    let (x, y) = ((normal(1, 300, 6, 1.0)? + 1e4)?, (normal(2, 270, 6, 1.1)? + 1e4)?);
    let found = prdc(&set(&y)?, &set(&x)?, k)?;
    let (x, y) = (x.to_vec2::<f64>()?, y.to_vec2::<f64>()?);
    let distance = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
    let radius = |set: &[Vec<f64>], i: usize| {
        let others = (0..set.len()).filter(|j| *j != i);
        let mut all: Vec<f64> = others.map(|j| distance(&set[i], &set[j])).collect();
        all.sort_by(f64::total_cmp);
        all[k - 1]
    };
    let of_x: Vec<f64> = (0..x.len()).map(|i| radius(&x, i)).collect();
    let of_y: Vec<f64> = (0..y.len()).map(|j| radius(&y, j)).collect();
    let in_x = |i: usize, j: usize| distance(&x[i], &y[j]) <= of_x[i];
    let in_y = |i: usize, j: usize| distance(&x[i], &y[j]) <= of_y[j];
    let count = |n: usize, hit: &dyn Fn(usize) -> bool| (0..n).filter(|i| hit(*i)).count() as f64 / n as f64;
    assert_eq!(found.precision.value, count(y.len(), &|j| (0..x.len()).any(|i| in_x(i, j))));
    assert_eq!(found.coverage.value, count(x.len(), &|i| (0..y.len()).any(|j| in_x(i, j))));
    assert_eq!(found.recall.value, count(x.len(), &|i| (0..y.len()).any(|j| in_y(i, j))));
    let inside = (0..x.len() * y.len()).filter(|p| in_x(p / y.len(), p % y.len())).count();
    assert_eq!(found.density.value, inside as f64 / (k * y.len()) as f64);
    Ok(())
}

/// The squared error bars, averaged over fresh pairs of sets, are the variance over those pairs.
#[test]
fn error_bars_of_precision_and_its_family_are_as_large_as_their_scatter() -> Result<()> {
    let mut all: Vec<[Estimate; 4]> = Vec::new();
    for seed in 0..100 {
        let (x, y) = (normal(2 * seed, 200, 3, 1.0)?, normal(2 * seed + 1, 200, 3, 1.4)?);
        let found = prdc(&set(&y)?, &set(&x)?, 3)?;
        all.push([found.precision, found.recall, found.density, found.coverage]);
    }
    for which in 0..4 {
        let values: Vec<f64> = all.iter().map(|found| found[which].value).collect();
        let centre = Estimate::mean(&values)?.value;
        let scatter = Estimate::mean(&values.iter().map(|v| (v - centre).powi(2)).collect::<Vec<_>>())?;
        let bars = all.iter().map(|found| found[which].standard_error.unwrap_or(f64::NAN).powi(2));
        let ratio = Estimate::mean(&bars.collect::<Vec<_>>())?.value / scatter.value;
        let error = 4.0 * scatter.standard_error.unwrap_or(f64::NAN) / scatter.value;
        // Right to a third; of a hundred pairs, so is the scatter.
        assert!((0.75 - error..1.34 + error).contains(&ratio), "{which}: {ratio} ± {error}");
    }
    Ok(())
}

#[test]
fn copies_are_found_and_fresh_samples_are_not_suspected() -> Result<()> {
    let (training, held_out) = (normal(1, 400, 5, 1.0)?, normal(2, 300, 5, 1.0)?);
    let (train, held) = (set(&training)?, set(&held_out)?);
    let check = |samples: &Tensor| memorisation(&set(samples)?, &train, &held, 2);
    let within = |estimate: Estimate, value: f64| {
        (estimate.value - value).abs() < 4.0 * estimate.standard_error.unwrap_or(0.0)
    };
    let fresh = check(&normal(3, 500, 5, 1.0)?)?;
    assert!(within(fresh.closer, 0.5), "{fresh:?}");
    assert!(fresh.authentic.value > 0.4 && fresh.authentic.value < 0.7, "{fresh:?}");
    // Two copies, one of them not quite, among fresh samples.
    let copies = [training.narrow(0, 17, 1)?, (training.narrow(0, 5, 1)? + 1e-4)?];
    let mixed = check(&Tensor::cat(&[&normal(3, 100, 5, 1.0)?, &copies[0], &copies[1]], 0)?)?;
    let suspects: Vec<(usize, usize)> = mixed.suspects.iter().map(|s| (s.sample, s.training)).collect();
    assert_eq!(suspects, [(100, 17), (101, 5)]);
    assert_eq!((mixed.suspects[0].distance, mixed.suspects[0].ratio), (0.0, 0.0));
    assert!((mixed.suspects[1].distance - 1e-4 * 5f64.sqrt()).abs() < 1e-12);
    let all = check(&training)?;
    assert_eq!((all.closer.value, all.authentic.value), (1.0, 0.0));
    assert_eq!(check(&(normal(4, 50, 5, 1.0)? + 100.0)?)?.closer.value, 0.0);
    Ok(())
}

/// The squared error bars of `closer` are its variance over fresh samples and held-out examples, the training set fixed.
#[test]
fn error_bars_of_the_memorisation_check() -> Result<()> {
    let train = set(&normal(0, 200, 3, 1.0)?)?;
    let (mut values, mut bars) = (Vec::new(), Vec::new());
    for seed in 1..200 {
        let (samples, held) = (normal(2 * seed, 60, 3, 0.8)?, normal(2 * seed + 1, 90, 3, 1.0)?);
        let found = memorisation(&set(&samples)?, &train, &set(&held)?, 0)?.closer;
        values.push(found.value);
        bars.push(found.standard_error.unwrap_or(f64::NAN).powi(2));
    }
    let centre = Estimate::mean(&values)?.value;
    let scatter = Estimate::mean(&values.iter().map(|v| (v - centre).powi(2)).collect::<Vec<_>>())?;
    let bars = Estimate::mean(&bars)?;
    assert!(
        (bars.value - scatter.value).abs() < 4.0 * scatter.standard_error.unwrap_or(0.0),
        "{bars:?} {scatter:?}"
    );
    Ok(())
}

#[test]
fn inception_scores_are_the_stored_ones() -> Result<()> {
    let logits = golden("is_logits")?;
    for parts in [1, 10] {
        let expected = golden(&format!("is_splits{parts}"))?.to_vec1::<f64>()?;
        let found = inception_score(&logits, parts)?;
        assert!((found.estimate.value - expected[0]).abs() < 1e-10, "{found:?}");
        assert!((found.spread - expected[1]).abs() < 1e-10, "{found:?}");
    }
    // Two classes, each certain, in equal parts: exp(log 2).
    let certain = Tensor::new(&[[0.0, -1e4], [-1e4, 0.0]], &Device::Cpu)?;
    assert!((inception_score(&certain, 1)?.estimate.value - 2.0).abs() < 1e-14);
    assert!(inception_score(&certain, 0).is_err() && inception_score(&certain, 3).is_err());
    Ok(())
}

#[test]
fn what_makes_no_sense_is_refused() -> Result<()> {
    let (x, few) = (set(&normal(1, 30, 2, 1.0)?)?, set(&normal(1, 12, 2, 1.0)?)?);
    assert!(matches!(prdc(&x, &few, 3), Err(Error::Mismatch { .. })));
    assert!(prdc(&x, &x, 0).is_err() && prdc(&x, &x, 6).is_err() && prdc(&x, &x, 5).is_ok());
    let other = set(&normal(1, 30, 3, 1.0)?)?;
    assert!(prdc(&x, &other, 3).is_err() && memorisation(&x, &x, &other, 1).is_err());
    // Ten thousand Inception features a side take their own size and a little more.
    let features = 4 * 20_000 * 2048;
    for bytes in [prdc_bytes(10_000, 10_000, 2048, 5), memorisation_bytes(10_000, 9_000, 1_000, 2048)] {
        assert!((features..2 * features).contains(&bytes), "{bytes}");
    }
    Ok(())
}
