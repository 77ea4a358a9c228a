//! Digits judged by one's own network: held-out digits, spoilt ones and copies are told apart.

use candle_core::{Device, Tensor};
use downstream::classes::Classifier;
use downstream::quality::{DigitFeatures, measure};
use sde_core::noise::{Noise, Stream};
use sde_data::{Images, Split, digits};
use sde_eval::{Error, Estimate};

fn levels(images: &Images, range: std::ops::Range<usize>) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let pixels: Vec<_> = range.map(|i| images.pixels(i)).collect::<Result<_, _>>()?;
    Ok(pixels.iter().flat_map(|p| p.iter().copied()).collect())
}

fn images(levels: Vec<u8>) -> candle_core::Result<Tensor> {
    let n = levels.len() / 64;
    Tensor::from_vec(levels, (n, 1, 8, 8), &Device::Cpu)
}

fn bar(estimate: Estimate) -> f64 {
    estimate.standard_error.unwrap_or(f64::NAN)
}

#[test]
fn samples_are_judged_by_the_features_of_a_classifier() -> Result<(), Box<dyn std::error::Error>> {
    let network = DigitFeatures::new(Classifier::train(Noise::new(7))?, "trained from seed 7");
    let (train, test) = (digits(Split::Train)?, digits(Split::Test)?);
    let training = images(levels(&train, 0..1000)?)?;
    let held_out = images(levels(&train, 1000..1437)?)?;
    let test = images(levels(&test, 0..360)?)?;

    let mut draws = Noise::new(1).draws(Stream::User, 0, 0);
    let spoilt = levels(&train, 1000..1437)?.into_iter();
    let spoilt =
        images(spoilt.map(|v| if draws.uniform() < 0.2 { draws.below(17) as u8 } else { v }).collect())?;
    let copies = training.narrow(0, 0, 437)?;

    let [good, bad, copied] =
        [&held_out, &spoilt, &copies].map(|samples| measure(&network, samples, &training, &test));
    let (good, bad, copied) = (good?, bad?, copied?);
    // Digits of the same law are at no kernel distance, spoilt ones far beyond the error bars of either number.
    assert!(good.kid.value.abs() < 4.0 * bar(good.kid), "{good:#?}");
    assert!(bad.kid.value > 10.0 * bar(bad.kid), "{bad:#?}");
    assert!(bad.fid.value - good.fid.value > 10.0 * bar(bad.fid).hypot(bar(good.fid)), "{good:#?} {bad:#?}");
    assert!(good.prdc.precision.value - bad.prdc.precision.value > 4.0 * bar(bad.prdc.precision));
    assert!(good.prdc.coverage.value - bad.prdc.coverage.value > 4.0 * bar(bad.prdc.coverage));
    // Held-out digits are as near to the training digits as test digits are; copies are found, every one.
    let closer = good.memorisation.closer;
    assert!((closer.value - 0.5).abs() < 4.0 * bar(closer), "{closer:?}");
    assert!(copied.memorisation.closer.value > 0.99 && copied.memorisation.authentic.value == 0.0);
    assert!(copied.memorisation.suspects.iter().all(|s| s.distance == 0.0));

    let few = measure(&network, &held_out.narrow(0, 0, 100)?, &training, &test);
    assert!(matches!(few, Err(Error::FewSamples { n: 100, dim: 128 })));
    Ok(())
}
