//! Distances between features: stored truth, closed forms, bias and error bars, files, what is refused.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use sde_core::noise::{BatchNoise, Law, Noise, Stream};
use sde_data::read::npz::{read_npz, write_npz};
use sde_eval::{
    About, Allow, Error, Estimate, Extrapolation, FeatureGaussian, FeatureSet, FeatureSpace, GroupedMoments,
    KidSubsets, Moments, Reference, Result, Statistics, fid, fid_bootstrap, frechet_distance, kid,
    kid_of_subsets,
};

const SMALL: Allow = Allow { small: true, unknown_space: false };
const UNKNOWN: Allow = Allow { small: false, unknown_space: true };

fn space(layer: &str) -> FeatureSpace {
    FeatureSpace {
        network: "test".into(),
        weights_sha256: "none".into(),
        layer: layer.into(),
        resize: "none".into(),
        range: "x".into(),
    }
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn place() -> Result<tempfile::TempDir> {
    let path = PathBuf::from("temporary directory");
    Ok(tempfile::tempdir().map_err(|source| sde_data::Error::Io { path, source })?)
}

/// An array of one of the golden files, in f64.
fn array(file: &str, key: &str) -> Result<Tensor> {
    let array = read_npz(&golden(file))?[key].to_f64();
    Ok(Tensor::from_vec(array.iter().copied().collect(), array.shape(), &Device::Cpu)?)
}

fn numbers(file: &str, key: &str) -> Result<Vec<f64>> {
    Ok(array(file, key)?.flatten_all()?.to_vec1()?)
}

fn set(features: &Tensor) -> Result<FeatureSet> {
    FeatureSet::new(space("golden"), features)
}

/// By the moments of a stream, which is what images go through.
fn streamed(features: &Tensor) -> Result<FeatureGaussian> {
    let mut moments = Moments::new(features.dim(1)?);
    moments.push(features)?;
    FeatureGaussian::new(&Statistics::new(&moments, &space("golden"), "", "")?)
}

/// `n` independent normals of `dim` entries, with variances from 1 down to 1/dim.
fn normal(seed: u64, n: u32, dim: usize) -> Result<Tensor> {
    let noise = BatchNoise::new(Noise::new(seed), 0, 0..n);
    let points = noise.tensor(Law::Normal, Stream::User, 0, &[dim], DType::F64, &Device::Cpu)?;
    let scales: Vec<f64> = (1..=dim).map(|k| (k as f64).powf(-0.5)).collect();
    Ok(points.broadcast_mul(&Tensor::new(scales, &Device::Cpu)?)?)
}

/// The law of [`normal`].
fn normal_law(dim: usize) -> Result<FeatureGaussian> {
    let entry = |k: usize| if k.is_multiple_of(dim + 1) { 1.0 / (k / (dim + 1) + 1) as f64 } else { 0.0 };
    let covariance: Vec<f64> = (0..dim * dim).map(entry).collect();
    let about = About { space: space("golden"), n: None, source: String::new(), split: String::new() };
    FeatureGaussian::new(&Statistics::known(&vec![0.0; dim], &covariance)?.described(about))
}

fn within(estimate: Estimate, expected: f64, standard_errors: f64) -> bool {
    let bar = estimate.standard_error.unwrap_or(0.0);
    bar > 0.0 && (estimate.value - expected).abs() < standard_errors * bar
}

fn assert_close(found: f64, expected: f64, relative: f64, what: &str) {
    let error = (found / expected - 1.0).abs();
    assert!(error < relative, "{what}: {found} against {expected}, {error:.1e}");
}

#[test]
fn fid_of_given_features_is_the_stored_truth() -> Result<()> {
    for (case, regular) in [
        ("d4_n200_150", true),
        ("d16_n300_300", true),
        ("d64_n500_400", true),
        ("d64_n20_30", false),
        ("d64_n200_40", false),
        ("d128_n10_12", false),
    ] {
        let side = |letter: &str| array("metrics.npz", &format!("fid_{case}__{letter}"));
        let (x, y) = (side("X")?, side("Y")?);
        let values = numbers("metrics.npz", &format!("fid_{case}"))?;
        let kept = |t: &Tensor| FeatureGaussian::of_features(&set(t)?);
        let by_features = frechet_distance(&kept(&x)?, &kept(&y)?, SMALL)?;
        let by_moments = frechet_distance(&streamed(&x)?, &streamed(&y)?, SMALL)?;
        assert_close(by_features, values[0], 1e-10, case);
        assert_close(by_moments, values[0], 1e-8, case);
        // The other programs, where they are right.
        for peer in values[1..4].iter().filter(|_| regular) {
            assert_close(by_moments, *peer, 1e-6, case);
        }
    }
    Ok(())
}

#[test]
fn fid_and_kid_of_inception_features_are_the_stored_truth() -> Result<()> {
    for layer in [64, 192, 768, 2048] {
        let all = array("inception_features.npz", &format!("b{layer}"))?;
        let (x, y) = (all.narrow(0, 0, 10)?, all.narrow(0, 10, 10)?);
        let truth = numbers("inception_features.npz", &format!("fid_b{layer}"))?[0];
        let (a, b) = (set(&x)?, set(&y)?);
        let kept = |set: &FeatureSet| FeatureGaussian::of_features(set);
        let name = format!("b{layer}");
        assert_close(frechet_distance(&kept(&a)?, &kept(&b)?, SMALL)?, truth, 1e-8, &name);
        if layer < 2048 {
            assert_close(frechet_distance(&streamed(&x)?, &streamed(&y)?, SMALL)?, truth, 1e-8, &name);
        }
        let expected = numbers("inception_features.npz", &format!("kid_first_n_b{layer}"))?[0];
        assert_close(kid(&a, &b)?.value, expected, 1e-8, &name);
    }
    Ok(())
}

#[test]
fn gaussians_with_known_moments() -> Result<()> {
    let law = |mean: &str, covariance: &str| {
        let [mean, covariance] = [mean, covariance].map(|key| numbers("metrics.npz", key));
        FeatureGaussian::new(&Statistics::known(&mean?, &covariance?)?)
    };
    let found = frechet_distance(&law("comm_mu1", "comm_S1")?, &law("comm_mu2", "comm_S2")?, UNKNOWN)?;
    assert_close(found, numbers("metrics.npz", "comm_fid_closed")?[0], 1e-13, "commuting");
    // Planes in space that share a line: only along it do the laws have anything in common.
    let plane = |covariance: [f64; 9]| FeatureGaussian::new(&Statistics::known(&[0.0; 3], &covariance)?);
    let first = plane([4.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0])?;
    let second = plane([9.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 2.0])?;
    assert_eq!((first.rank(), second.rank()), (2, 2));
    assert_close(frechet_distance(&first, &second, UNKNOWN)?, 5.0 + 11.0 - 12.0, 1e-14, "singular");
    // A point has no covariance at all.
    let point = plane([0.0; 9])?;
    assert_close(frechet_distance(&first, &point, UNKNOWN)?, 5.0, 1e-14, "point");
    assert!(frechet_distance(&first, &first, UNKNOWN)?.abs() < 1e-14);
    Ok(())
}

#[test]
fn moments_do_not_depend_on_batches_and_survive_a_file() -> Result<()> {
    // Far from zero: the variance is 1e-14 of the mean square.
    let x = (normal(1, 700, 5)? + 1e7)?;
    let mut whole = Moments::new(5);
    whole.push(&x)?;
    let (mut parts, mut start) = (Moments::new(5), 0);
    for size in [1, 300, 99, 256, 44] {
        parts.push(&x.narrow(0, start, size)?)?;
        start += size;
        parts = Moments::from_bytes(&parts.to_bytes())?;
    }
    assert_eq!((whole.to_bytes(), whole.len()), (parts.to_bytes(), 700));

    let statistics = Statistics::new(&whole, &space(""), "", "")?;
    let rows = x.to_vec2::<f64>()?;
    let mean = |i: usize| rows.iter().map(|row| row[i] - 1e7).sum::<f64>() / 700.0;
    for (i, j) in [(0, 0), (3, 1), (1, 3), (4, 4)] {
        let product = |row: &Vec<f64>| (row[i] - 1e7 - mean(i)) * (row[j] - 1e7 - mean(j));
        let expected = rows.iter().map(product).sum::<f64>() / 699.0;
        let found = statistics.covariance(i, j).unwrap_or(f64::NAN);
        assert!((found - expected).abs() < 1e-8 * 1.5, "{found} {expected}");
    }
    let mut grouped = GroupedMoments::new(5, 3)?;
    grouped.push(&x.narrow(0, 0, 100)?)?;
    let mut again = GroupedMoments::from_bytes(&grouped.to_bytes())?;
    assert_eq!(again, grouped);
    again.push(&x.narrow(0, 100, 600)?)?;
    assert_eq!(again.groups().iter().map(Moments::len).collect::<Vec<_>>(), [234, 233, 233]);
    let merged = Statistics::new(&again.total()?, &space(""), "", "")?;
    for (i, j) in [(0, 0), (3, 1)] {
        let [found, expected] = [&merged, &statistics].map(|s| s.covariance(i, j).unwrap_or(f64::NAN));
        assert!((found - expected).abs() < 1e-8, "{found} {expected}");
    }
    let bytes = parts.to_bytes();
    assert!((0..bytes.len()).all(|cut| Moments::from_bytes(&bytes[..cut]).is_err()));
    let bytes = grouped.to_bytes();
    assert!((0..bytes.len()).all(|cut| GroupedMoments::from_bytes(&bytes[..cut]).is_err()));
    Ok(())
}

#[test]
fn no_result_depends_on_the_number_of_threads() -> Result<()> {
    let (x, y) = (normal(1, 600, 200)?, normal(2, 600, 200)?);
    let measure = || {
        let (a, b) = (streamed(&x)?, streamed(&y)?);
        let distance = frechet_distance(&a, &b, SMALL)?;
        let mut groups = GroupedMoments::new(200, 3)?;
        groups.push(&x)?;
        let grouped = fid(&groups, &space("golden"), &b, SMALL)?.estimate.standard_error.unwrap_or(f64::NAN);
        let line = Extrapolation { groups: 2, sizes: 2 };
        let infinity = line.fid(&set(&x)?, Reference::Exact(&b), SMALL)?.estimate.value;
        Ok([distance, grouped, infinity, kid(&set(&x)?, &set(&y)?)?.value].map(f64::to_bits))
    };
    let with = |threads: usize| -> Result<[u64; 4]> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        pool.install(measure)
    };
    assert_eq!(with(1)?, with(3)?);
    Ok(())
}

/// FID of n samples to their own law is Σ of what each moment costs, to first order in 1/n.
#[test]
fn the_bias_of_fid_falls_as_one_over_n() -> Result<()> {
    let (dim, law) = (6, normal_law(6)?);
    // The means cost Σ λ/n; an entry of the covariance, of variance (1 + δ)λ_i λ_j/n, costs 1/(4 λ_i) on the diagonal and 1/(λ_i + λ_j)/2 off it, twice.
    let lambda = |i: usize| 1.0 / (i + 1) as f64;
    let pair = |i: usize, j: usize| lambda(i) * lambda(j) / (lambda(i) + lambda(j));
    let slope: f64 = (0..dim)
        .map(|i| {
            lambda(i) + (0..dim).map(|j| if i == j { 0.5 * lambda(i) } else { 0.5 * pair(i, j) }).sum::<f64>()
        })
        .sum();
    for n in [400, 1600] {
        let repeats = 60;
        let distance = |seed: u64| {
            let law_of_n = FeatureGaussian::of_features(&set(&normal(seed + 1000 * u64::from(n), n, dim)?)?)?;
            frechet_distance(&law_of_n, &law, Allow::NOTHING)
        };
        let distances = (0..repeats).map(distance).collect::<Result<Vec<f64>>>()?;
        let scaled = Estimate::mean(&distances)?.affine(f64::from(n), 0.0);
        assert!(within(scaled, slope, 4.0), "{n}: {scaled:?} against {slope}");
    }
    Ok(())
}

#[test]
fn extrapolated_fid_of_equal_laws_is_within_its_error_of_zero() -> Result<()> {
    let (x, y) = (set(&normal(3, 4000, 6)?)?, set(&normal(4, 4000, 6)?)?);
    let line = Extrapolation { groups: 5, sizes: 4 };
    let against_law = line.fid(&x, Reference::Exact(&normal_law(6)?), Allow::NOTHING)?;
    assert!(within(against_law.estimate, 0.0, 4.0), "{against_law:?}");
    // Two halves of one law, with the bias of both gone.
    let halves = line.fid(&x, Reference::Features(&y), Allow::NOTHING)?;
    assert!(within(halves.estimate, 0.0, 4.0), "{halves:?}");
    assert_eq!(halves.sizes, [800, 400, 266, 200]);
    // The plain distance of 200 is told from zero by many error bars.
    assert!(halves.distances[3] > 10.0 * halves.estimate.standard_error.unwrap_or(f64::NAN));
    let few = line.fid(&x.select(&(0..100).collect::<Vec<_>>())?, Reference::Features(&y), Allow::NOTHING);
    assert!(matches!(few, Err(Error::FewSamples { n: 5, dim: 6 })));
    Ok(())
}

/// The squared error bars, averaged over many samples, are the variance of the distance.
#[test]
fn error_bars_of_fid_are_as_large_as_its_scatter() -> Result<()> {
    let (dim, n) = (3, 600);
    let law = normal_law(dim)?;
    let (mut values, mut by_groups, mut by_bootstrap) = (Vec::new(), Vec::new(), Vec::new());
    for seed in 0..120 {
        let x = (normal(seed, n, dim)? + 0.5)?;
        let mut grouped = GroupedMoments::new(dim, 3)?;
        grouped.push(&x)?;
        let found = fid(&grouped, &space("golden"), &law, Allow::NOTHING)?.estimate;
        values.push(found.value);
        by_groups.push(found.standard_error.unwrap_or(f64::NAN).powi(2));
        let bootstrap = fid_bootstrap(&set(&x)?, &law, 20, Noise::new(seed), Allow::NOTHING)?;
        assert_close(bootstrap.value, found.value, 1e-10, "the value of a bootstrap");
        by_bootstrap.push(bootstrap.standard_error.unwrap_or(f64::NAN).powi(2));
    }
    let centre = Estimate::mean(&values)?.value;
    let scatter = Estimate::mean(&values.iter().map(|v| (v - centre).powi(2)).collect::<Vec<_>>())?;
    for bars in [by_groups, by_bootstrap] {
        let bars = Estimate::mean(&bars)?;
        let error = bars.standard_error.unwrap_or(f64::NAN).hypot(scatter.standard_error.unwrap_or(f64::NAN));
        assert!((bars.value - scatter.value).abs() < 4.0 * error, "{bars:?} against {scatter:?}");
        assert!(error < 0.25 * scatter.value);
    }
    Ok(())
}

#[test]
fn kid_of_given_subsets_is_that_of_other_programs() -> Result<()> {
    for case in ["kid_d16_m40", "kid_d64_m50"] {
        let get = |key: &str| array("metrics.npz", &format!("{case}__{key}"));
        let (x, y) = (set(&get("X")?)?, set(&get("Y")?)?);
        let rows = |key: &str| -> Result<Vec<Vec<usize>>> {
            let rows = get(key)?.to_vec2::<f64>()?;
            Ok(rows.iter().map(|row| row.iter().map(|i| *i as usize).collect()).collect())
        };
        let subsets = rows("idx1")?.into_iter().zip(rows("idx2")?).map(|(a, b)| [a, b]);
        let found = kid_of_subsets(&x, &y, subsets)?;
        let one = |key: &str| -> Result<f64> { Ok(get(key)?.flatten_all()?.to_vec1::<f64>()?[0]) };
        for (value, expected) in found.values.iter().zip(get("mmd2_poly_unbiased")?.to_vec1::<f64>()?) {
            assert_close(*value, expected, 1e-12, case);
        }
        assert_close(found.estimate.value, one("mean")?, 1e-12, case);
        assert_close(found.estimate.value, one("cleanfid")?, 1e-12, case);
        assert_close(found.spread, one("std_pop")?, 1e-12, case);
    }
    Ok(())
}

#[test]
fn kid_of_equal_laws_is_within_its_error_of_zero() -> Result<()> {
    let (x, y) = (set(&normal(5, 900, 8)?)?, set(&normal(6, 700, 8)?)?);
    assert!(within(kid(&x, &y)?, 0.0, 4.0));
    let by_subsets = KidSubsets { size: 100, count: 50 }.kid(&x, &y, Noise::new(0))?;
    assert!(within(by_subsets.estimate, 0.0, 4.0));
    assert_eq!(by_subsets.values.len(), 50);
    let all = KidSubsets { size: 700, count: 1 }.kid(&x, &y, Noise::new(0))?;
    assert_eq!(all.estimate.standard_error, None);
    assert!(KidSubsets { size: 701, count: 1 }.kid(&x, &y, Noise::new(0)).is_err());
    assert!(KidSubsets { size: 10, count: 0 }.kid(&x, &y, Noise::new(0)).is_err());
    Ok(())
}

/// The error bar of subsets is at least the scatter over fresh samples, and not far above it where the laws differ.
#[test]
fn error_bars_of_kid_cover_its_scatter() -> Result<()> {
    let (mut values, mut bars) = (Vec::new(), Vec::new());
    for seed in 0..150 {
        let (x, y) = (normal(2 * seed, 200, 4)?, (normal(2 * seed + 1, 200, 4)? + 0.6)?);
        let found = KidSubsets { size: 50, count: 30 }.kid(&set(&x)?, &set(&y)?, Noise::new(seed))?.estimate;
        values.push(found.value);
        bars.push(found.standard_error.unwrap_or(f64::NAN).powi(2));
    }
    let centre = Estimate::mean(&values)?.value;
    let scatter = Estimate::mean(&values.iter().map(|v| (v - centre).powi(2)).collect::<Vec<_>>())?;
    let ratio = Estimate::mean(&bars)?.value / scatter.value;
    let error = 4.0 * scatter.standard_error.unwrap_or(f64::NAN) / scatter.value;
    assert!((1.0 - error..1.5 + error).contains(&ratio), "{ratio} ± {error}");
    Ok(())
}

#[test]
fn statistics_files_are_those_of_pytorch_fid() -> Result<()> {
    let theirs = Statistics::read(&golden("pytorch_fid_stats.npz"))?;
    let mut moments = Moments::new(6);
    moments.push(&array("metrics.npz", "stats_features")?)?;
    let ours = Statistics::new(&moments, &space("six"), "noise", "train")?;
    for i in 0..6 {
        assert!((ours.mean()[i] - theirs.mean()[i]).abs() < 1e-15);
        for j in 0..6 {
            let [a, b] = [&ours, &theirs].map(|s| s.covariance(i, j).unwrap_or(f64::NAN));
            assert!((a - b).abs() < 1e-16, "{a} {b}");
        }
    }
    let place = place()?;
    let (first, second) = (place.path().join("a.npz"), place.path().join("b.npz"));
    ours.write(&first)?;
    let read = Statistics::read(&first)?;
    assert_eq!(read, ours);
    assert_eq!(read.about().map(|about| (about.n, about.split.as_str())), Some((Some(12), "train")));
    read.write(&second)?;
    assert_eq!(std::fs::read(&first).ok(), std::fs::read(&second).ok());
    let arrays = read_npz(&first)?;
    let shapes: Vec<(&str, &[usize])> = arrays.iter().map(|(k, v)| (k.as_str(), v.shape())).collect();
    assert_eq!(shapes[1..], [("mu", [6].as_slice()), ("sigma", &[6, 6])]);

    // What does not say what it is of is compared only where that is wanted.
    let (theirs, ours) = (FeatureGaussian::new(&theirs)?, FeatureGaussian::new(&ours)?);
    let refused = frechet_distance(&theirs, &ours, Allow::NOTHING).map_err(|e| e.to_string());
    assert!(refused.is_err_and(|e| e.contains("feature space") && e.contains("unknown")));
    assert!(frechet_distance(&theirs, &ours, UNKNOWN)?.abs() < 1e-12);
    Ok(())
}

#[test]
fn what_makes_no_sense_is_refused() -> Result<()> {
    let (x, y) = (normal(1, 20, 3)?, normal(2, 20, 3)?);
    let other = FeatureSet::new(space("other"), &y)?;
    assert!(matches!(kid(&set(&x)?, &other), Err(Error::FeatureSpaces { .. })));
    let law = FeatureGaussian::of_features(&other)?;
    let x_law = FeatureGaussian::of_features(&set(&x)?)?;
    assert!(matches!(frechet_distance(&x_law, &law, UNKNOWN), Err(Error::FeatureSpaces { .. })));
    let few = FeatureGaussian::of_features(&set(&x.narrow(0, 0, 3)?)?)?;
    let refused = frechet_distance(&few, &x_law, Allow::NOTHING).map_err(|e| e.to_string());
    assert!(refused.is_err_and(|e| e.contains("KID") && e.contains("3 samples")));
    assert!(frechet_distance(&few, &x_law, SMALL).is_ok());
    assert!(FeatureGaussian::of_features(&set(&x.narrow(0, 0, 1)?)?).is_err());
    let mut moments = Moments::new(4);
    assert!(matches!(moments.push(&x), Err(Error::Mismatch { .. })));
    let mut set = set(&x)?;
    assert!(set.push(&x.to_dtype(DType::F32)?).is_err());
    assert!(matches!(set.push(&(x / 0.0)?), Err(Error::NonFinite { row: 0, .. })));
    assert_eq!(set.len(), 20);
    assert!(set.select(&[20]).is_err() && set.select(&[]).is_err());
    assert!(GroupedMoments::new(3, 0).is_err());

    let place = place()?;
    let path = place.path().join("wrong.npz");
    let arrays = read_npz(&golden("pytorch_fid_stats.npz"))?;
    write_npz(&path, [("mu", &arrays["mu"])])?;
    let refused = Statistics::read(&path).map_err(|e| e.to_string());
    assert!(refused.is_err_and(|e| e.contains("sigma") && e.contains("wrong.npz")));
    write_npz(&path, [("mu", &arrays["mu"]), ("sigma", &arrays["mu"])])?;
    assert!(Statistics::read(&path).is_err());
    write_npz(&path, [("mu", &arrays["mu"]), ("sigma", &arrays["sigma"]), ("about", &arrays["mu"])])?;
    assert!(Statistics::read(&path).is_err());
    assert!(Statistics::known(&[0.0, 0.0], &[1.0, 0.5, 0.0, 1.0]).is_err());
    assert!(Statistics::known(&[0.0, 0.0], &[1.0, 0.0, 0.0, -1.0]).is_err());
    assert!(Statistics::known(&[0.0, f64::NAN], &[1.0, 0.0, 0.0, 1.0]).is_err());
    Ok(())
}

/// What cannot be compared is an error before any product of matrices.
#[test]
fn a_reference_of_another_length_or_of_no_law_is_refused() -> Result<()> {
    let mut samples = GroupedMoments::new(4, 3)?;
    samples.push(&normal(1, 60, 4)?)?;
    let wide = FeatureGaussian::of_features(&set(&normal(2, 60, 6)?)?)?;
    let error = fid(&samples, &space("golden"), &wide, Allow { small: true, unknown_space: true });
    assert!(matches!(error, Err(Error::FeatureSpaces { .. } | Error::Mismatch { .. })), "{error:?}");
    // Correlations beyond one: a direction of negative variance.
    let error = FeatureGaussian::new(&Statistics::known(&[0.0, 0.0], &[1.0, 1.5, 1.5, 1.0])?);
    assert!(error.is_err_and(|e| e.to_string().contains("negative variance")));
    Ok(())
}
