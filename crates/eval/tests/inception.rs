//! The FID's Inception network against an independent implementation, with weights by recipe; with the published ones where they are.

#![allow(clippy::print_stdout, reason = "a skipped test says so, one that ran how close it came")]

mod common;

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use common::{Arrays, golden};
use sde_eval::inception::{
    INCEPTION, Inception, InceptionFeatures, InceptionInput, InceptionLayer, InputRange, Resize,
};
use sde_eval::{Error, FeatureNetwork, Result};
use sde_nets::Weights;

const CPU: Device = Device::Cpu;
const PYTORCH_FID: InceptionInput = InceptionInput { resize: Resize::Bilinear, range: InputRange::Symmetric };
const TF: InceptionInput = InceptionInput { resize: Resize::BilinearTf1, range: InputRange::Tf };

/// u of SplitMix64 for value j of tensor k; `golden/README.md` says what is made of it.
fn uniform(k: usize, j: usize) -> f64 {
    let position = ((k as u64) << 40).wrapping_add(j as u64);
    let mut z = 2015u64.wrapping_add(position.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    (z >> 11) as f64 * 2f64.powi(-52) - 1.0
}

/// Names and shapes of all tensors.
fn tensors() -> Result<Vec<(String, Vec<usize>)>> {
    let path = golden("inception.layers.txt");
    let text = std::fs::read_to_string(&path).map_err(candle_core::Error::wrap)?;
    let mut tensors = vec![("fc.weight".into(), vec![1008, 2048]), ("fc.bias".into(), vec![1008])];
    for line in text.lines() {
        let mut words = line.split(' ');
        let name = words.next().unwrap_or_default();
        let shape: Vec<usize> = words.filter_map(|word| word.parse().ok()).collect();
        for part in ["weight", "bias", "running_mean", "running_var"] {
            tensors.push((format!("{name}.bn.{part}"), vec![shape[0]]));
        }
        tensors.push((format!("{name}.conv.weight"), shape));
    }
    tensors.sort();
    Ok(tensors)
}

/// Weights by recipe.
fn weights() -> Result<Weights> {
    let tensor = |(k, (name, shape)): (usize, (String, Vec<usize>))| {
        let fan_in: usize = shape.iter().skip(1).product();
        let (offset, scale) = match name.as_str() {
            "fc.weight" => (0.0, (3.0 / 2048f64).sqrt()),
            name if name.ends_with("conv.weight") => (0.0, (6.0 / fan_in as f64).sqrt()),
            name if name.ends_with("bn.weight") => (1.0, 0.2),
            name if name.ends_with("running_var") => (1.0, 0.5),
            _ => (0.0, 0.1),
        };
        let values: Vec<f32> =
            (1..=shape.iter().product()).map(|j| (offset + scale * uniform(k, j)) as f32).collect();
        Ok((name, Tensor::from_vec(values, shape, &CPU)?))
    };
    tensors()?.into_iter().enumerate().map(tensor).collect()
}

fn changed(weights: &Weights, change: impl Fn(&str, &Tensor) -> Result<Option<Tensor>>) -> Result<Weights> {
    let changed =
        weights.iter().map(|(name, tensor)| Ok(change(name, tensor)?.map(|t| (name.to_owned(), t))));
    changed.filter_map(Result::transpose).collect()
}

/// The largest difference of two tensors.
fn distance(a: &Tensor, b: &Tensor) -> Result<f64> {
    assert_eq!(a.dims(), b.dims());
    let difference = (a.to_dtype(DType::F64)? - b.to_dtype(DType::F64)?)?.abs()?;
    Ok(difference.flatten_all()?.max(0)?.to_scalar()?)
}

#[test]
fn every_layer_is_that_of_an_independent_implementation() -> Result<()> {
    let (arrays, weights) = (Arrays::open("inception.npz")?, weights()?);
    let (network, images) = (Inception::new(&weights, &CPU)?, arrays.levels("images")?);
    assert_eq!(network.classes(), Some(1008));
    let found = network.features(&images, PYTORCH_FID, &InceptionLayer::ALL)?;
    for (layer, found) in InceptionLayer::ALL.into_iter().zip(&found) {
        let expected = arrays.tensor(layer.name())?;
        assert_eq!(found.dims(), [2, network.dim(layer)?]);
        // Some parts of a million, of values of size up to 16: what 48 layers in f32 leave, Winograd's among them.
        let error = distance(found, &expected)?;
        assert!(error < 1e-4, "{}: {error:e}", layer.name());
    }
    for layer in [InceptionLayer::Pool64, InceptionLayer::Spatial, InceptionLayer::Pool768] {
        // Alone: no deeper than it is, without the other image, and the same bit for bit.
        let place = InceptionLayer::ALL.iter().position(|&l| l == layer).unwrap_or_default();
        let alone = network.features(&images.narrow(0, 1, 1)?, PYTORCH_FID, &[layer])?;
        assert_eq!(alone[0].to_vec2::<f32>()?[0], found[place].to_vec2::<f32>()?[1], "{}", layer.name());
    }
    Ok(())
}

#[test]
fn a_feature_network_says_what_its_features_are_of() -> Result<()> {
    let network = Inception::new(&weights()?, &CPU)?;
    let features = InceptionFeatures::new(network, "7ff4", InceptionLayer::Pool192, TF)?;
    let space = features.space();
    assert_eq!((space.network.as_str(), space.weights_sha256.as_str()), (INCEPTION, "7ff4"));
    assert_eq!([&space.layer, &space.resize, &space.range], ["192", "bilinear-tf1", "(x-128)/128"]);
    // One channel is three equal ones, and 17 images go through in two parts.
    let grey = Tensor::arange(0u8, 17 * 15, &CPU)?.reshape((17, 1, 3, 5))?;
    let colour = Tensor::cat(&[&grey, &grey, &grey], 1)?;
    let [of_grey, of_colour] = [features.features(&grey)?, features.features(&colour)?];
    assert_eq!(of_grey.dims(), [17, features.dim()]);
    assert_eq!(distance(&of_grey, &of_colour)?, 0.0);
    let last = features.features(&grey.narrow(0, 16, 1)?)?;
    assert_eq!(distance(&of_grey.narrow(0, 16, 1)?, &last)?, 0.0);
    assert_eq!(features.features(&grey.narrow(0, 0, 0)?)?.dims(), [0, features.dim()]);
    Ok(())
}

#[test]
fn images_that_do_not_fit_are_refused() -> Result<()> {
    let network = Inception::new(&weights()?, &CPU)?;
    for images in [
        Tensor::zeros((1, 4, 5, 5), DType::U8, &CPU)?,
        Tensor::zeros((1, 3, 5, 5), DType::F32, &CPU)?,
        Tensor::zeros((1, 3, 0, 5), DType::U8, &CPU)?,
        Tensor::zeros((3, 5, 5), DType::U8, &CPU)?,
    ] {
        let refused = network.features(&images, PYTORCH_FID, &[InceptionLayer::Pool64]);
        assert!(matches!(refused, Err(Error::Mismatch { .. })), "{refused:?}");
    }
    Ok(())
}

#[test]
fn weights_that_do_not_fit_are_named() -> Result<()> {
    let weights = weights()?;
    // No scale is a scale of one, and what only training needs is passed over.
    let plain = changed(&weights, |name, t| Ok((!name.ends_with("bn.weight")).then(|| t.clone())))?;
    let mut ones = changed(&weights, |name, t| {
        Ok(Some(if name.ends_with("bn.weight") { t.ones_like()? } else { t.clone() }))
    })?
    .into_iter()
    .collect::<Vec<_>>();
    ones.push(("Mixed_5b.branch1x1.bn.num_batches_tracked".into(), Tensor::new(1i64, &CPU)?));
    ones.push(("AuxLogits.fc.bias".into(), Tensor::zeros(1, DType::F32, &CPU)?));
    let image = Tensor::arange(0u8, 75, &CPU)?.reshape((1, 3, 5, 5))?;
    let of = |weights: &Weights| {
        Inception::new(weights, &CPU)?.features(&image, PYTORCH_FID, &[InceptionLayer::Pool64])
    };
    assert_eq!(distance(&of(&plain)?[0], &of(&ones.into_iter().collect())?[0])?, 0.0);

    let wrong = changed(&weights, |name, t| match name {
        "Mixed_6c.branch7x7_2.conv.weight" => Ok(Some(t.transpose(2, 3)?)),
        "Mixed_7a.branch3x3_1.bn.bias" => Ok(None),
        _ => Ok(Some(t.clone())),
    })?;
    let error = Inception::new(&wrong, &CPU).map(drop).map_err(|e| e.to_string());
    let error = error.expect_err("two tensors are wrong");
    for part in ["Mixed_6c.branch7x7_2.conv.weight", "[160, 160, 1, 7]", "Mixed_7a.branch3x3_1.bn.bias"] {
        assert!(error.contains(part), "{error}");
    }

    let headless = changed(&weights, |name, t| Ok((!name.starts_with("fc.")).then(|| t.clone())))?;
    let network = Inception::new(&headless, &CPU)?;
    assert_eq!(network.classes(), None);
    let refused = InceptionFeatures::new(network, "", InceptionLayer::Logits, TF).map_err(|e| e.to_string());
    assert!(refused.is_err_and(|e| e.contains("fc.weight")));
    Ok(())
}

/// The published weights, by `SDE_INCEPTION` or where `cargo xtask weights inception` puts them.
fn published() -> Result<Option<Inception>> {
    let stored = "../../checkpoints/inception-2015-12-05.safetensors";
    let stored = Path::new(env!("CARGO_MANIFEST_DIR")).join(stored);
    let path = std::env::var_os("SDE_INCEPTION").map(PathBuf::from).unwrap_or(stored);
    if !path.exists() {
        return Ok(None);
    }
    let bytes = std::fs::read(&path).map_err(candle_core::Error::wrap)?;
    Inception::new(&Weights::from_safetensors(&bytes, &CPU)?, &CPU).map(Some)
}

#[test]
fn the_published_weights_give_the_published_features() -> Result<()> {
    let Some(network) = published()? else {
        println!("skipped: no published weights (SDE_INCEPTION, or cargo xtask weights inception)");
        return Ok(());
    };
    let arrays = Arrays::open("inception.npz")?;
    let (images, layers) = (arrays.levels("images")?, &InceptionLayer::ALL[..5]);
    let found = network.features(&images, PYTORCH_FID, layers)?;
    for (layer, found) in layers.iter().zip(found) {
        let error = distance(&found, &arrays.tensor(&format!("published.{}", layer.name()))?)?;
        println!("{}: {error:.1e}", layer.name());
        assert!(error < 1e-4, "{}: {error:e}", layer.name());
    }
    let found = network.features(&images, TF, &[InceptionLayer::Pool2048])?;
    let error = distance(&found[0], &arrays.tensor("published.2048.tf")?)?;
    assert!(error < 1e-4, "{error:e}");
    Ok(())
}

/// Photographs, and images of CIFAR-10, which are not part of this project: a folder with `fid_golden_*.npz` by `SDE_FID_GOLDEN`.
#[test]
fn the_published_weights_see_photographs_as_the_reference_network_does() -> Result<()> {
    let folder = std::env::var_os("SDE_FID_GOLDEN").map(PathBuf::from);
    let (Some(network), Some(folder)) = (published()?, folder) else {
        println!("skipped: no published weights (SDE_INCEPTION), or no folder of features (SDE_FID_GOLDEN)");
        return Ok(());
    };
    let tf = InceptionInput { resize: Resize::Bilinear, range: InputRange::Tf };
    use InceptionLayer::{Pool64, Pool192, Pool768, Pool2048};
    for (file, key, layer, input) in [
        ("natural6", "feat_pt_range", Pool2048, PYTORCH_FID),
        ("natural6", "feat_tf_range", Pool2048, tf),
        ("cifar20", "feat", Pool2048, PYTORCH_FID),
        ("cifar20_blocks", "b64", Pool64, PYTORCH_FID),
        ("cifar20_blocks", "b192", Pool192, PYTORCH_FID),
        ("cifar20_blocks", "b768", Pool768, PYTORCH_FID),
        ("cifar20_blocks", "b2048", Pool2048, PYTORCH_FID),
    ] {
        // Beside them stand names in a type that our own reader does not have.
        let path = folder.join(format!("fid_golden_{file}.npz"));
        let arrays = Tensor::read_npz_by_name(path, &["images_u8", key])?;
        let images = arrays[0].permute((0, 3, 1, 2))?;
        let found = network.features(&images, input, &[layer])?;
        let error = distance(&found[0], &arrays[1])?;
        println!("{file} {key}: {error:.1e}");
        assert!(error < 1e-4, "{file} {key}: {error:e}");
    }
    Ok(())
}
