//! Two-sample metrics: equal laws, shifted Gaussians in closed form, an independent implementation's numbers.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use sde_core::noise::{BatchNoise, Law, Noise, Stream};
use sde_data::read::npz::read_npz;
use sde_eval::{Bandwidth, Error, Estimate, Result, SlicedWasserstein, mmd, sliced_wasserstein_squared};

/// `n` standard normal points of `dim` entries, shifted along the first axis.
fn normal(seed: u64, n: u32, dim: usize, shift: f64) -> Result<Tensor> {
    let noise = BatchNoise::new(Noise::new(seed), 0, 0..n);
    let points = noise.tensor(Law::Normal, Stream::User, 0, &[dim], DType::F64, &Device::Cpu)?;
    let mut offset = vec![0.0; dim];
    offset[0] = shift;
    Ok(points.broadcast_add(&Tensor::new(offset, &Device::Cpu)?)?)
}

fn within(estimate: Estimate, expected: f64, standard_errors: f64) -> bool {
    let bar = estimate.standard_error.unwrap_or(0.0);
    bar > 0.0 && (estimate.value - expected).abs() < standard_errors * bar
}

/// E k(x, y) for x ~ N(0, I), y ~ N(δ, I): N(δ, 2I) smoothed by the kernel's N(0, s² I).
fn mean_kernel(dim: i32, shift: f64, s: f64) -> f64 {
    (s * s / (s * s + 2.0)).powf(0.5 * f64::from(dim)) * (-0.5 * shift * shift / (s * s + 2.0)).exp()
}

#[test]
fn reproduces_an_independent_implementation() -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/two_sample.npz");
    let arrays = read_npz(&path)?;
    let tensor = |key: &str| {
        let array = arrays[key].to_f64();
        Tensor::from_vec(array.iter().copied().collect(), array.shape(), &Device::Cpu)
    };
    let number = |key: &str| arrays[key].to_f64().iter().copied().sum::<f64>();
    let (x, y) = (tensor("ot_P")?, tensor("ot_S")?);
    let distance = sliced_wasserstein_squared(&x, &y, &tensor("ot_proj")?.t()?)?.sqrt();
    assert!((distance - number("ot_SW2")).abs() < 1e-12, "{distance}");
    for (s, key) in [(0.5, "s0.5"), (1.0, "s1.0"), (2.0, "s2.0")] {
        let found = mmd(&x, &y, Bandwidth::Given(s))?.squared.value;
        assert!((found - number(&format!("mmd_rbf_unbiased_{key}"))).abs() < 1e-12, "{found}");
    }
    Ok(())
}

#[test]
fn equal_laws_are_at_distance_zero() -> Result<()> {
    let (x, y) = (normal(1, 2000, 3, 0.0)?, normal(2, 2000, 3, 0.0)?);
    let sliced = SlicedWasserstein { groups: 20, directions: 20 };
    assert!(within(sliced.squared(&x, &y, Noise::new(0))?, 0.0, 4.0));
    assert!(within(mmd(&x, &y, Bandwidth::Median(Noise::new(0)))?.squared, 0.0, 4.0));
    Ok(())
}

#[test]
fn shifted_gaussians_in_closed_form() -> Result<()> {
    let shift = 0.6;
    // Samples of different sizes.
    let (x, y) = (normal(3, 2000, 3, 0.0)?, normal(4, 1500, 3, shift)?);
    let sliced = SlicedWasserstein { groups: 20, directions: 20 }.squared(&x, &y, Noise::new(0))?;
    assert!(within(sliced, shift * shift / 3.0, 4.0));
    let found = mmd(&x, &y, Bandwidth::Given(1.3))?;
    assert!(within(found.squared, 2.0 * (mean_kernel(3, 0.0, 1.3) - mean_kernel(3, shift, 1.3)), 4.0));
    assert_eq!((found.bandwidth, found.squared.n), (1.3, 1500));
    // The median of |x − y|², over 2·χ²₃ within and a little more across, lies near 2·2.37.
    let median = mmd(&x, &y, Bandwidth::Median(Noise::new(0)))?.bandwidth;
    assert!((median - (2.0f64 * 2.45).sqrt()).abs() < 0.1, "{median}");
    Ok(())
}

/// Over many pairs of samples the squared error bars must average to the squared errors.
#[test]
fn error_bars_of_mmd_are_as_large_as_its_errors() -> Result<()> {
    // For equal laws the bars are known to be too large, by less than a factor √2.
    for (shift, largest) in [(0.0, 2.0), (0.4, 1.1), (1.5, 1.1)] {
        let expected = 2.0 * (mean_kernel(2, 0.0, 1.0) - mean_kernel(2, shift, 1.0));
        let (mut squares, mut variances) = (Vec::new(), Vec::new());
        for pair in 0..400 {
            let (x, y) = (normal(2 * pair, 60, 2, 0.0)?, normal(2 * pair + 1, 80, 2, shift)?);
            let found = mmd(&x, &y, Bandwidth::Given(1.0))?.squared;
            squares.push((found.value - expected).powi(2));
            variances.push(found.standard_error.unwrap_or(f64::NAN).powi(2));
        }
        let (errors, bars) = (Estimate::mean(&squares)?, Estimate::mean(&variances)?);
        let ratio = bars.value / errors.value;
        let scatter = 4.0 * errors.standard_error.unwrap_or(f64::NAN) / errors.value;
        assert!((0.9 - scatter..largest + scatter).contains(&ratio), "shift {shift}: {ratio} ± {scatter}");
    }
    Ok(())
}

#[test]
fn samples_of_different_sizes_have_the_distance_of_their_quantiles() -> Result<()> {
    let column = |v: &[f64]| Tensor::new(v, &Device::Cpu)?.unsqueeze(1);
    let direction = column(&[1.0])?;
    let (x, y) = (column(&[3.0, 0.0])?, column(&[5.0, 0.0, 1.0])?);
    // Quantiles on sixths: 0 0 0 3 3 3 against 0 0 1 1 5 5.
    let expected = (0.0 + 0.0 + 1.0 + 4.0 + 4.0 + 4.0) / 6.0;
    assert!((sliced_wasserstein_squared(&x, &y, &direction)? - expected).abs() < 1e-15);
    let twice = Tensor::cat(&[&x, &x], 0)?;
    assert_eq!(sliced_wasserstein_squared(&x, &twice, &direction)?, 0.0);
    Ok(())
}

#[test]
fn what_makes_no_sense_is_refused() -> Result<()> {
    let (x, y) = (normal(0, 10, 2, 0.0)?, normal(1, 10, 3, 0.0)?);
    let sliced = SlicedWasserstein { groups: 2, directions: 5 };
    assert!(matches!(sliced.squared(&x, &y, Noise::new(0)), Err(Error::Mismatch { .. })));
    assert!(SlicedWasserstein { groups: 3, ..sliced }.squared(&x, &x, Noise::new(0)).is_err());
    assert!(SlicedWasserstein { groups: 0, ..sliced }.squared(&x, &x, Noise::new(0)).is_err());
    assert!(mmd(&x, &x, Bandwidth::Given(0.0)).is_err());
    assert!(mmd(&x, &x.narrow(0, 0, 3)?, Bandwidth::Given(1.0)).is_err());
    let same = Tensor::zeros((10, 2), DType::F64, &Device::Cpu)?;
    let message = mmd(&same, &same, Bandwidth::Median(Noise::new(0))).map_err(|e| e.to_string());
    assert!(matches!(message, Err(text) if text.contains("most points coincide")));
    let broken = (x.narrow(0, 0, 4)? / 0.0)?;
    assert!(matches!(mmd(&x, &broken, Bandwidth::Given(1.0)), Err(Error::NonFinite { row: 0, .. })));
    assert!(mmd(&x, &Tensor::zeros(3, DType::F64, &Device::Cpu)?, Bandwidth::Given(1.0)).is_err());
    Ok(())
}
