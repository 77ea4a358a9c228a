//! score_sde's checkpoints and our own single file: a network's values, laid out as there, come back as they were.

mod common;

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use common::{distance, normal};
use sde_core::noise::Noise;
use sde_core::{Model, Pass};
use sde_nets::pretrained::score_sde::{self, Output};
use sde_nets::pretrained::single_file::{self, Card};
use sde_nets::pretrained::{diffusers, pickle};
use sde_nets::{Error, NetConfig, Params, Resampling, Result, Unet, UnetConfig, Weights};

const CPU: Device = Device::Cpu;
const SHAPE: [usize; 3] = [3, 8, 8];

/// score_sde's DDPM, small.
fn ddpm() -> UnetConfig {
    let (channels, blocks, multipliers) = (8, 1, vec![1, 2]);
    UnetConfig { channels, blocks, multipliers, attention: vec![4], dropout: 0.0, ..UnetConfig::song_ddpm() }
}

/// Its NCSN++, small.
fn ncsnpp() -> UnetConfig {
    let (channels, multipliers) = (8, vec![1, 2]);
    let base = UnetConfig::ncsnpp(1);
    UnetConfig { channels, multipliers, attention: vec![4], time_dim: Some(16), dropout: 0.0, ..base }
}

/// The modules in the order of their numbers: our path, and the layers below as (ours, theirs).
fn modules(net: &UnetConfig) -> Vec<(String, Vec<(&'static str, &'static str)>)> {
    let big = net.resampling == Resampling::BlockFir;
    let shortcut = if big { "Conv_2" } else { "NIN_0" };
    let block = vec![
        ("norm1", "GroupNorm_0"),
        ("conv1", "Conv_0"),
        ("embedding", "Dense_0"),
        ("norm2", "GroupNorm_1"),
        ("conv2", "Conv_1"),
        ("shortcut", shortcut),
    ];
    let attention = vec![
        ("norm", "GroupNorm_0"),
        ("query", "NIN_0"),
        ("key", "NIN_1"),
        ("value", "NIN_2"),
        ("output", "NIN_3"),
    ];
    let resample = if big { block.clone() } else { vec![("", "Conv_0")] };
    let plain = vec![("", "")];
    let mut list = vec![];
    if big {
        list.push(("time", vec![("frequencies", "W")]));
    }
    list.extend([
        ("time.0", plain.clone()),
        ("time.1", plain.clone()),
        ("conv_in", plain.clone()),
        ("down.0.block.0", block.clone()),
        ("down.0.downsample", resample.clone()),
    ]);
    if big {
        list.push(("down.0.pyramid", vec![("", "Conv2d_0")]));
    }
    list.extend([
        ("down.1.block.0", block.clone()),
        ("down.1.attention.0", attention.clone()),
        ("mid.block.0", block.clone()),
        ("mid.attention", attention.clone()),
        ("mid.block.1", block.clone()),
        ("up.1.block.0", block.clone()),
        ("up.1.block.1", block.clone()),
        ("up.1.attention.1", attention),
        ("up.1.upsample", resample),
        ("up.0.block.0", block.clone()),
        ("up.0.block.1", block),
        ("norm_out", plain.clone()),
        ("conv_out", plain),
    ]);
    list.into_iter().map(|(path, layers)| (path.to_owned(), layers)).collect()
}

/// Our weights under their names and in their shapes, in the order of their parameters.
fn laid_out(net: &UnetConfig, weights: &Weights) -> Result<Vec<(String, Tensor)>> {
    let mut tensors = Vec::new();
    for (number, (path, layers)) in modules(net).into_iter().enumerate() {
        for (ours, theirs) in layers {
            let join = |parts: &[&str]| {
                parts.iter().copied().filter(|p| !p.is_empty()).collect::<Vec<_>>().join(".")
            };
            if theirs == "W" {
                let tensor = weights.get("time.frequencies").unwrap().clone();
                tensors.push((format!("module.all_modules.{number}.W"), tensor));
                continue;
            }
            for (our_kind, their_kind) in [("weight", "W"), ("bias", "b")] {
                let nin = theirs.starts_with("NIN");
                let Some(tensor) = weights.get(&join(&[&path, ours, our_kind])) else { continue };
                let tensor = match our_kind {
                    // W of a NIN multiplies from the right.
                    "weight" if nin => tensor.flatten_from(1)?.t()?.contiguous()?,
                    _ => tensor.clone(),
                };
                let kind = if nin { their_kind } else { our_kind };
                tensors.push((join(&["module.all_modules", &number.to_string(), theirs, kind]), tensor));
            }
        }
    }
    Ok(tensors)
}

/// Writes pickles of protocol 2 as torch did before 1.6.
#[derive(Default)]
struct Pickler {
    bytes: Vec<u8>,
    storages: Vec<Vec<f32>>,
}

impl Pickler {
    fn text(&mut self, text: &str) {
        self.bytes.push(b'X');
        self.bytes.extend((text.len() as u32).to_le_bytes());
        self.bytes.extend(text.as_bytes());
    }

    fn ints(&mut self, ints: &[usize]) {
        self.bytes.push(b'(');
        for &int in ints {
            self.bytes.push(b'J');
            self.bytes.extend((int as u32).to_le_bytes());
        }
        self.bytes.push(b't');
    }

    fn int(&mut self, int: usize) {
        self.bytes.push(b'J');
        self.bytes.extend((int as u32).to_le_bytes());
    }

    fn tensor(&mut self, tensor: &Tensor) -> Result<()> {
        let values = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        self.bytes.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        self.text("storage");
        self.bytes.extend(b"ctorch\nFloatStorage\n");
        self.text(&self.storages.len().to_string());
        self.text("cuda:0");
        self.int(values.len());
        self.bytes.extend(b"NtQ");
        self.int(0);
        self.ints(tensor.dims());
        self.ints(tensor.stride());
        self.bytes.extend(b"\x89ccollections\nOrderedDict\n)RtR");
        self.storages.push(values);
        Ok(())
    }

    fn file(self) -> Vec<u8> {
        let mut file = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.".to_vec();
        file.extend(b"\x80\x02}(U\x10protocol_versionM\xe9\x03U\x0dlittle_endian\x88u.");
        file.extend(b"\x80\x02");
        file.extend(&self.bytes);
        file.push(b'.');
        file.extend(b"\x80\x02](");
        for key in 0..self.storages.len() {
            let key = key.to_string();
            file.extend([b'U', key.len() as u8]);
            file.extend(key.as_bytes());
        }
        file.extend(b"e.");
        for storage in self.storages {
            file.extend((storage.len() as u64).to_le_bytes());
            file.extend(storage.iter().flat_map(|value| value.to_le_bytes()));
        }
        file
    }
}

/// A checkpoint with a model, averages as a list, and the moments of an optimiser.
fn checkpoint(model: &[(String, Tensor)], averages: &[(String, Tensor)], moments: bool) -> Result<Vec<u8>> {
    let mut p = Pickler::default();
    let trained = |name: &str| !name.ends_with("0.W") || name.contains("NIN");
    p.bytes.extend(b"}(");
    p.text("optimizer");
    p.bytes.extend(b"}(");
    p.text("state");
    p.bytes.extend(b"}(");
    for (number, (name, tensor)) in averages.iter().enumerate().filter(|_| moments) {
        if trained(name) {
            p.int(number);
            p.bytes.extend(b"}(");
            p.text("step");
            p.int(5);
            p.text("exp_avg");
            p.tensor(&(tensor * 2.0)?)?;
            p.text("exp_avg_sq");
            p.tensor(&tensor.sqr()?)?;
            p.bytes.push(b'u');
        }
    }
    p.bytes.push(b'u');
    p.text("param_groups");
    p.bytes.extend(b"](}(");
    p.text("params");
    p.bytes.extend(b"](");
    (0..averages.len()).for_each(|number| p.int(number));
    p.bytes.extend(b"eueu");
    p.text("model");
    p.bytes.extend(b"ccollections\nOrderedDict\n)R(");
    p.text("module.sigmas");
    p.tensor(&Tensor::ones(1000, DType::F32, &CPU)?)?;
    for (name, tensor) in model {
        p.text(name);
        p.tensor(tensor)?;
    }
    p.bytes.push(b'u');
    p.text("ema");
    p.bytes.extend(b"}(");
    p.text("decay");
    p.bytes.push(b'G');
    p.bytes.extend(0.999f64.to_be_bytes());
    p.text("shadow_params");
    p.bytes.extend(b"](");
    for (name, tensor) in averages {
        if trained(name) {
            p.tensor(tensor)?;
        }
    }
    p.bytes.extend(b"eu");
    p.text("step");
    p.int(123_456);
    p.bytes.push(b'u');
    Ok(p.file())
}

fn fresh(net: &UnetConfig, seed: u64) -> Result<Weights> {
    Params::initialise(Noise::new(seed), DType::F32, &CPU, |b| Unet::new(b, net, &SHAPE))?.1.to_weights()
}

/// The output of a network at fixed states and times.
fn output(net: &UnetConfig, weights: &Weights) -> Result<Tensor> {
    let unet = weights.freeze(DType::F64, &CPU, |b| Unet::new(b, net, &SHAPE))?;
    let t = Tensor::new(&[0.3, 0.9], &CPU)?;
    Ok(unet.forward(&normal(&[2, 3, 8, 8], 5)?, &t, Pass::EVAL)?)
}

fn same(a: &Weights, b: &Weights) -> Result<bool> {
    Ok(a.to_safetensors()? == b.to_safetensors()?)
}

#[test]
fn score_sde_checkpoints_are_the_networks_that_they_were_made_from() -> Result<()> {
    for (net, output_is) in [(ddpm(), Output::Noise), (ncsnpp(), Output::NegativeNoise)] {
        let (model, averages) = (fresh(&net, 1)?, fresh(&net, 2)?);
        // The frequencies are no parameter: the average has the model's.
        let frequencies = model.get("time.frequencies").cloned();
        let averages: Weights = averages
            .into_iter()
            .map(|(name, tensor)| match &frequencies {
                Some(fixed) if name == "time.frequencies" => (name, fixed.clone()),
                _ => (name, tensor),
            })
            .collect();
        let file = checkpoint(&laid_out(&net, &model)?, &laid_out(&net, &averages)?, true)?;
        let checkpoint = pickle::read_pth(file)?;
        let read = score_sde::read(&checkpoint, &net, &SHAPE, output_is)?;
        assert_eq!((&read.net, read.sample_shape.as_slice(), read.step), (&net, &SHAPE[..], 123_456));
        let (average, moments) = (read.average.unwrap(), read.moments.unwrap());
        let sign = if output_is == Output::Noise { 1.0 } else { -1.0 };
        for (read, made) in [(&read.weights, &model), (&average, &averages)] {
            // The score times σ is minus the noise.
            assert!(distance(&output(&net, read)?, &(output(&net, made)? * sign)?)? < 1e-12);
        }
        for (name, made) in averages.iter().filter(|(name, _)| *name != "time.frequencies") {
            let sign = if name.starts_with("conv_out") { sign } else { 1.0 };
            assert_eq!(distance(moments.first.get(name).unwrap(), &(made * (2.0 * sign))?)?, 0.0, "{name}");
            assert_eq!(distance(moments.second.get(name).unwrap(), &made.sqr()?)?, 0.0, "{name}");
        }
        assert_eq!(moments.first.len(), averages.len() - usize::from(frequencies.is_some()));
    }
    Ok(())
}

#[test]
fn what_does_not_fit_is_listed_under_their_names() -> Result<()> {
    let net = ddpm();
    let model = laid_out(&net, &fresh(&net, 1)?)?;
    let read = |model: &[(String, Tensor)], averages: &[(String, Tensor)], net: &UnetConfig| {
        let value = pickle::read_pth(checkpoint(model, averages, false).unwrap()).unwrap();
        score_sde::read(&value, net, &SHAPE, Output::Noise)
    };
    assert!(read(&model, &model, &net)?.moments.is_none());
    let mut wrong = model.clone();
    wrong[0].0 = "module.all_modules.99.weight".into();
    let last = wrong.len() - 1;
    wrong[last].1 = Tensor::zeros(4, DType::F32, &CPU)?;
    let Error::Weights(mismatch) = read(&wrong, &model, &net).unwrap_err() else { panic!("no mismatch") };
    assert_eq!(mismatch.missing, ["module.all_modules.0.weight"]);
    assert_eq!(mismatch.unexpected, ["module.all_modules.99.weight"]);
    assert_eq!(mismatch.misshapen, [("module.all_modules.17.bias".to_owned(), vec![3], vec![4])]);

    let fewer = read(&model, &model[1..], &net).unwrap_err().to_string();
    let expected = format!("`ema.shadow_params` has {} tensors, the network {}", last, last + 1);
    assert!(fewer.contains(&expected), "{fewer}");
    let mut swapped = model.clone();
    swapped.swap(0, 1);
    let swapped = read(&model, &swapped, &net).unwrap_err().to_string();
    assert!(swapped.contains("ema.shadow_params[0] (all_modules.0.weight) (expected [32, 8]"), "{swapped}");

    let cases = [
        (UnetConfig::ho_ddpm(), "up_attention"),
        (UnetConfig::edm_ddpmpp(None), "augment"),
        (UnetConfig { scale_shift: true, attention: vec![16], ..ddpm() }, "scale_shift"),
    ];
    for (net, key) in cases {
        let shape = [3, 32, 32];
        let value = pickle::Value::Dict(vec![]);
        let error = score_sde::read(&value, &net, &shape, Output::Noise).unwrap_err();
        assert!(matches!(&error, Error::Unsupported { key: found, .. } if found == key), "{error}");
    }
    Ok(())
}

#[test]
fn a_single_file_holds_weights_and_what_they_are_of() -> Result<()> {
    let net = ddpm();
    let weights = fresh(&net, 3)?;
    let card = Card {
        preset: Some("name = \"x\"".into()),
        step: 7,
        average: Some("main".into()),
        provenance: BTreeMap::from([
            ("code_revision".into(), "abc".into()),
            ("source".into(), "x.pth".into()),
        ]),
        ..Card::new(NetConfig::Unet(net.clone()), &SHAPE)
    };
    let bytes = single_file::write(&card, &weights)?;
    assert_eq!(bytes, single_file::write(&card, &weights)?);
    assert!(single_file::is_single_file(&bytes) && !single_file::is_single_file(&weights.to_safetensors()?));
    let (found, read) = single_file::read(&bytes)?;
    assert_eq!(found, card);
    assert!(same(&read, &weights)?);
    assert_eq!(single_file::write(&found, &read)?, bytes);
    // Any reader of safetensors reads the tensors.
    assert!(same(&Weights::from_safetensors(&bytes, &CPU)?, &weights)?);

    let other = Card { net: NetConfig::Unet(UnetConfig { blocks: 2, ..net }), ..card };
    assert!(matches!(single_file::write(&other, &weights), Err(Error::Weights(_))));
    assert!(matches!(single_file::read(&weights.to_safetensors()?), Err(Error::Format(_))));
    for end in (0..bytes.len()).step_by(97) {
        assert!(matches!(single_file::read(&bytes[..end]), Err(Error::Format(_))), "cut at {end}");
    }
    Ok(())
}

#[test]
fn what_diffusers_has_no_network_for_is_named() -> Result<()> {
    let refused = |net: UnetConfig| {
        let found = diffusers::write(&net, &[3, 32, 32], None, &Weights::default());
        match found.unwrap_err() {
            Error::Unsupported { key, .. } => key,
            other => other.to_string(),
        }
    };
    let base = UnetConfig::ho_ddpm;
    assert!(matches!(
        diffusers::write(&base(), &[3, 32, 32], None, &Weights::default()),
        Err(Error::Weights(_))
    ));
    let cases = [
        (UnetConfig::song_ddpm(), "up_attention"),
        (UnetConfig::ddpmpp(4), "rescale"),
        (UnetConfig::edm_ddpmpp(None), "rescale"),
        (UnetConfig { time: UnetConfig::song_ddpm().time, ..base() }, "time"),
        (UnetConfig { resampling: Resampling::Pool, ..base() }, "resampling"),
        (UnetConfig { channels: 64, ..base() }, "groups"),
        (UnetConfig { heads: 4, attention: vec![32, 8], ..base() }, "heads"),
        (UnetConfig { classes: Some(10), ..base() }, "classes"),
        (UnetConfig { prediction: sde_core::Prediction::Score, ..base() }, "prediction"),
    ];
    for (net, key) in cases {
        assert_eq!(refused(net), key);
    }
    Ok(())
}

#[test]
fn settings_of_diffusers_that_we_have_no_network_for_are_named() {
    let golden = include_str!("golden/unet_small.config.json");
    let refused = |change: &dyn Fn(&mut serde_json::Value)| {
        let folder = tempfile::tempdir().unwrap();
        let mut config: serde_json::Value = serde_json::from_str(golden).unwrap();
        change(&mut config);
        std::fs::write(folder.path().join(diffusers::CONFIG), config.to_string()).unwrap();
        std::fs::write(
            folder.path().join(diffusers::WEIGHTS[0]),
            Weights::default().to_safetensors().unwrap(),
        )
        .unwrap();
        diffusers::Folder::open(folder.path()).unwrap().read().unwrap_err().to_string()
    };
    assert!(refused(&|_| ()).contains("missing"));
    let set = |key: &'static str, value: serde_json::Value| {
        move |config: &mut serde_json::Value| config[key] = value.clone()
    };
    let cases = [
        (set("class_embed_type", "timestep".into()), "`class_embed_type` is \"timestep\"; supported: null"),
        (
            set("time_embedding_type", "fourier".into()),
            "`time_embedding_type` is \"fourier\"; supported: \"positional\"",
        ),
        (set("out_channels", 6.into()), "`out_channels` is 6; supported: 3"),
        (set("resnet_time_scale_shift", "scale_shift".into()), "supported: \"default\""),
        (set("sample_size", serde_json::Value::Null), "`sample_size` is null"),
        (
            set("block_out_channels", vec![32, 48].into()),
            "`block_out_channels` is [32,48]; supported: multiples",
        ),
        (
            set("up_block_types", vec!["UpBlock2D", "AttnUpBlock2D"].into()),
            "attention at the same resolutions",
        ),
        (
            set("down_block_types", vec!["DownBlock2D", "SkipDownBlock2D"].into()),
            "DownBlock2D and AttnDownBlock2D",
        ),
        (set("brand_new", 1.into()), "`brand_new` is 1; supported: none; the setting is not known"),
    ];
    for (change, words) in cases {
        let found = refused(&change);
        assert!(found.contains(words), "{words}: {found}");
    }
}
