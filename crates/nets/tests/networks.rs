//! Whole networks: counts, gradients, initial values, dropout, classes, weights.

mod common;

use candle_core::{DType, Device, Tensor};
use common::{check_first, distance, dot, normal};
use sde_core::noise::{BatchNoise, Noise, Stream};
use sde_core::{Model, Pass, Prediction};
use sde_nets::{
    Builder, Error, MlpConfig, NetConfig, Params, Precondition, Resampling, Result, RezeroConfig,
    TimeFeatures, Unet, UnetConfig, UpAttention, Weights, count_parameters,
};

const CPU: Device = Device::Cpu;

fn sinusoidal() -> TimeFeatures {
    TimeFeatures::Sinusoidal {
        max_period: 10_000.0,
        freq_shift: 1,
        flip_sin_to_cos: false,
        time_scale: 999.0,
        time_shift: 0.0,
    }
}

fn fourier() -> TimeFeatures {
    TimeFeatures::Fourier { std: 0.5, log: false, time_scale: 1.0, time_shift: 0.0 }
}

fn tiny_unet() -> UnetConfig {
    UnetConfig {
        channels: 4,
        multipliers: vec![1, 2],
        blocks: 1,
        attention: vec![2],
        heads: 2,
        dropout: 0.5,
        groups: Some(2),
        classes: Some(3),
        time: fourier(),
        ..UnetConfig::song_ddpm()
    }
}

/// Every kind of network, small, with the shape of its samples.
fn small() -> Vec<(NetConfig, Vec<usize>)> {
    let prediction = Prediction::Score;
    let mlp = MlpConfig {
        prediction,
        hidden: vec![12, 9],
        time_dim: 6,
        time: sinusoidal(),
        state: None,
        classes: None,
    };
    let conditional = MlpConfig { classes: Some(3), ..mlp.clone() };
    let phases = MlpConfig { time: TimeFeatures::Phases { slowest: 0.1, fastest: 3.0 }, ..mlp.clone() };
    let rezero = RezeroConfig { prediction, width: 10, layers: 3, time_dim: 6, time: fourier() };
    let pooled = UnetConfig {
        resampling: Resampling::Pool,
        up_attention: UpAttention::EveryBlock,
        attention: vec![4, 2],
        groups: None,
        classes: None,
        ..tiny_unet()
    };
    let unconditional = UnetConfig { classes: None, ..tiny_unet() };
    let ddpmpp = UnetConfig { resampling: Resampling::BlockPool, rescale: true, ..unconditional.clone() };
    let ncsnpp = UnetConfig {
        resampling: Resampling::BlockFir,
        pyramid: true,
        centre: true,
        time_dim: Some(6),
        ..ddpmpp.clone()
    };
    let edm = UnetConfig {
        prediction: Prediction::Data,
        classes: Some(3),
        one_hot: true,
        augment: Some(2),
        precondition: Some(Precondition::Edm { sigma_data: 0.5 }),
        ..ncsnpp.clone()
    };
    let modulated = UnetConfig { scale_shift: true, pointwise_scale: Some(0.1), ..unconditional };
    vec![
        (NetConfig::Mlp(mlp), vec![2]),
        (NetConfig::Rezero(rezero), vec![3, 2]),
        (NetConfig::Unet(tiny_unet()), vec![1, 4, 4]),
        (NetConfig::Unet(pooled), vec![2, 4, 6]),
        (NetConfig::Unet(ddpmpp), vec![1, 4, 4]),
        (NetConfig::Unet(ncsnpp), vec![2, 4, 6]),
        (NetConfig::Unet(edm), vec![1, 4, 4]),
        (NetConfig::Unet(modulated), vec![1, 4, 4]),
        (NetConfig::Mlp(conditional), vec![2]),
        (NetConfig::Mlp(phases), vec![2]),
    ]
}

type Net = Box<dyn Model + Send + Sync>;

/// The network at weights like trained ones: none is zero.
fn away_from_the_start(config: &NetConfig, shape: &[usize]) -> Result<(Net, Params)> {
    let (_, params) = Params::initialise(Noise::new(3), DType::F64, &CPU, |b| config.build(b, shape))?;
    let moved: Weights = params
        .to_weights()?
        .into_iter()
        .enumerate()
        .map(|(i, (name, w))| Ok((name, (&w + (normal(w.dims(), i as u64)? * 0.3)?)?)))
        .collect::<Result<_>>()?;
    Params::restore(&moved, DType::F64, &CPU, |b| config.build(b, shape))
}

fn batch(shape: &[usize], n: usize) -> Result<(Tensor, Tensor)> {
    let dims: Vec<usize> = [n].into_iter().chain(shape.iter().copied()).collect();
    Ok((normal(&dims, 100)?, normal(&[n], 101)?.sqr()?))
}

fn labels_of(config: &NetConfig, n: u32) -> Result<Option<Tensor>> {
    let labels = |classes: usize| Tensor::from_iter((0..n).map(|i| i % (classes as u32 + 1)), &CPU);
    Ok(config.classes().map(labels).transpose()?)
}

/// What was done to each sample, for the networks that are told.
fn augment_of(config: &NetConfig, n: usize) -> Result<Option<Tensor>> {
    match config {
        NetConfig::Unet(UnetConfig { augment: Some(entries), .. }) => Ok(Some(normal(&[n, *entries], 103)?)),
        _ => Ok(None),
    }
}

#[test]
fn published_parameter_counts() -> Result<()> {
    for (config, expected) in [
        (UnetConfig::song_ddpm(), 35_218_947),
        (UnetConfig::ho_ddpm(), 35_746_307),
        (UnetConfig::ddpmpp(4), 61_804_419),
        (UnetConfig::ddpmpp(8), 106_632_579),
        (UnetConfig::ncsnpp(4), 62_758_787),
        (UnetConfig::ncsnpp(8), 107_586_947),
        (UnetConfig::edm_ddpmpp(None), 55_733_891),
        (UnetConfig::edm_ddpmpp(Some(10)), 55_735_299),
        (UnetConfig::edm_ncsnpp(None), 56_397_827),
        (UnetConfig::edm_ncsnpp(Some(10)), 56_400_643),
    ] {
        let config = NetConfig::Unet(config);
        assert_eq!(count_parameters(|b| config.build(b, &[3, 32, 32]))?, expected, "{config:?}");
    }
    Ok(())
}

#[test]
fn counting_agrees_with_building_and_leaves_buffers_out() -> Result<()> {
    for (config, shape) in small() {
        let (_, params) = Params::initialise(Noise::new(0), DType::F32, &CPU, |b| config.build(b, &shape))?;
        assert_eq!(count_parameters(|b| config.build(b, &shape))?, params.count());
        assert!(params.iter().all(|(name, _)| !name.ends_with("frequencies")));
        let all: usize = params.to_weights()?.iter().map(|(_, w)| w.elem_count()).sum();
        let buffers = if params.to_weights()?.get("time.frequencies").is_some() { 1..4 } else { 0..1 };
        assert!(buffers.contains(&(all - params.count())));
    }
    Ok(())
}

#[test]
fn every_parameter_receives_the_gradient_that_differences_find() -> Result<()> {
    const STEP: f64 = 1e-5;
    for (config, shape) in small() {
        let (net, params) = away_from_the_start(&config, &shape)?;
        let ((x, t), labels, augment) = (batch(&shape, 4)?, labels_of(&config, 4)?, augment_of(&config, 4)?);
        let noise = BatchNoise::new(Noise::new(5), 0, 0..4);
        let pass = Pass { labels: labels.as_ref(), augment: augment.as_ref(), dropout: Some(&noise) };
        let v = normal(x.dims(), 102)?;
        let loss = || -> Result<Tensor> { Ok((net.forward(&x, &t, pass)? * &v)?.sum_all()?) };
        let gradients = loss()?.backward()?;
        for (i, (name, var)) in params.iter().enumerate() {
            let gradient = gradients.get(var.as_tensor()).unwrap_or_else(|| panic!("no gradient for {name}"));
            let (value, direction) = (var.as_detached_tensor().copy()?, normal(var.dims(), 200 + i as u64)?);
            let at = |step: f64| -> Result<f64> {
                var.set(&(&value + (&direction * step)?)?)?;
                Ok(loss()?.to_scalar()?)
            };
            let difference = (at(STEP)? - at(-STEP)?) / (2.0 * STEP);
            var.set(&value)?;
            let found = dot(gradient, &direction)?;
            assert!(
                (found - difference).abs() < 1e-6 * (1.0 + difference.abs()),
                "{name}: {found} {difference}"
            );
            // A softmax does not see a bias of its keys: what is added to a row of scores drops out.
            assert!(found.abs() > 1e-9 || name.ends_with(".key.bias"), "{name}");
        }
    }
    Ok(())
}

#[test]
fn gradients_reach_every_parameter_from_the_published_start() -> Result<()> {
    for (config, shape) in small() {
        let (net, params) = Params::initialise(Noise::new(3), DType::F32, &CPU, |b| config.build(b, &shape))?;
        let (x, t) = batch(&shape, 4)?;
        let (x, t) = (x.to_dtype(DType::F32)?, t.to_dtype(DType::F32)?);
        let labels = labels_of(&config, 4)?;
        let augment = augment_of(&config, 4)?.map(|a| a.to_dtype(DType::F32)).transpose()?;
        let pass = Pass { labels: labels.as_ref(), augment: augment.as_ref(), dropout: None };
        let output = net.forward(&x, &t, pass)?;
        let gradients = (output - &x)?.sqr()?.sum_all()?.backward()?;
        for (name, var) in params.iter() {
            assert!(gradients.get(var.as_tensor()).is_some(), "{name}");
        }
    }
    Ok(())
}

#[test]
fn one_time_for_all_is_the_same_time_for_each() -> Result<()> {
    for (config, shape) in small() {
        let (net, _) = away_from_the_start(&config, &shape)?;
        let (x, labels, augment) = (batch(&shape, 3)?.0, labels_of(&config, 3)?, augment_of(&config, 3)?);
        let pass = Pass { labels: labels.as_ref(), augment: augment.as_ref(), dropout: None };
        let run = |t: &[f64]| -> Result<Vec<f64>> {
            Ok(net.forward(&x, &Tensor::new(t, &CPU)?, pass)?.flatten_all()?.to_vec1()?)
        };
        assert_eq!(run(&[0.3])?, run(&[0.3; 3])?, "{config:?}");
    }
    Ok(())
}

#[test]
fn gradients_with_respect_to_state_and_time() -> Result<()> {
    for (config, shape) in small() {
        let (net, _) = away_from_the_start(&config, &shape)?;
        let ((x, t), labels) = (batch(&shape, 2)?, labels_of(&config, 2)?);
        let pass = Pass { labels: labels.as_ref(), augment: None, dropout: None };
        // Slow times: the sinusoids of the presets turn 999 times a unit. Preconditioning takes their logarithm.
        let scale =
            if matches!(&config, NetConfig::Unet(c) if c.precondition.is_some()) { 1.0 } else { 1e-3 };
        let time = (t * scale)?;
        let inputs = match config {
            NetConfig::Mlp(_) => vec![x],
            _ => vec![x, time.clone()],
        };
        let f = |i: &[Tensor]| Ok(net.forward(&i[0], i.get(1).unwrap_or(&time), pass)?);
        check_first(&format!("{config:?}"), f, &inputs)?;
    }
    Ok(())
}

#[test]
fn initial_values_depend_on_seed_and_name_alone() -> Result<()> {
    let build = |seed, config: UnetConfig| -> Result<Weights> {
        let build = |b: &Builder| Unet::new(b, &config, &[1, 8, 8]);
        Params::initialise(Noise::new(seed), DType::F32, &CPU, build)?.1.to_weights()
    };
    let (base, wider) = (tiny_unet(), UnetConfig { blocks: 3, attention: vec![], ..tiny_unet() });
    let base = UnetConfig { attention: vec![4], ..base };
    let (one, again, other) = (build(1, base.clone())?, build(1, wider)?, build(2, base)?);
    let mut shared = 0;
    for (name, value) in one.iter().filter(|(_, value)| value.rank() > 1) {
        if let Some(same) = again.get(name).filter(|same| same.dims() == value.dims()) {
            assert_eq!(distance(value, same)?, 0.0, "{name}");
            shared += 1;
        }
        assert!(other.get(name).is_some_and(|o| distance(value, o).is_ok_and(|d| d > 0.0)), "{name}");
    }
    assert!(shared > 20);
    Ok(())
}

#[test]
fn initial_laws_are_the_published_ones() -> Result<()> {
    for config in [UnetConfig::ho_ddpm(), UnetConfig::song_ddpm(), UnetConfig::edm_ncsnpp(Some(10))] {
        let config = UnetConfig { channels: 32, time_dim: None, ..config };
        initial_laws(&config)?;
    }
    Ok(())
}

fn initial_laws(config: &UnetConfig) -> Result<()> {
    let build = |b: &Builder| Unet::new(b, config, &[3, 32, 32]);
    let weights = Params::initialise(Noise::new(0), DType::F64, &CPU, build)?.1.to_weights()?;
    let pointwise = config.pointwise_scale.unwrap_or(1.0);
    let shortcut = if config.resampling == Resampling::Conv { pointwise } else { 1.0 };
    for (name, value) in weights.iter().filter(|(name, _)| *name != "time.frequencies") {
        let largest = value.abs()?.flatten_all()?.max(0)?.to_scalar::<f64>()?;
        let norm = name.contains("norm");
        match name.rsplit('.').next() {
            Some("bias") => assert_eq!(largest, 0.0, "{name}"),
            _ if norm => assert_eq!(distance(value, &value.ones_like()?)?, 0.0, "{name}"),
            _ => {
                let taps: usize = value.dims()[2..].iter().product();
                let fans = (value.dims()[0] + value.dims()[1]) * taps;
                let nothing = ["conv2.weight", "output.weight", "conv_out.weight"];
                let ends = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
                let scale = match () {
                    () if ends(&nothing) => 1e-10,
                    () if ends(&["query.weight", "key.weight", "value.weight"]) => pointwise,
                    () if ends(&["shortcut.weight"]) => shortcut,
                    () => 1.0,
                };
                let variance = 2.0 * scale / fans as f64;
                let n = value.elem_count() as f64;
                let found = value.sqr()?.mean_all()?.to_scalar::<f64>()?;
                // Of a uniform law with variance v: E u⁴ − v² = 0.8 v², and |u| ≤ √(3 v).
                assert!(
                    (found / variance - 1.0).abs() < 5.0 * (0.8 / n).sqrt(),
                    "{name}: {found} {variance}"
                );
                assert!(largest <= (3.0 * variance).sqrt(), "{name}");
            }
        }
    }
    Ok(())
}

#[test]
fn dropout_is_the_same_at_any_split_and_off_by_default() -> Result<()> {
    let (config, shape) = (NetConfig::Unet(UnetConfig { classes: None, ..tiny_unet() }), [1, 4, 4]);
    let (net, _) = away_from_the_start(&config, &shape)?;
    let (x, t) = batch(&shape, 6)?;
    let run = |ids: std::ops::Range<u32>| -> Result<Tensor> {
        let noise = BatchNoise::new(Noise::new(1), 7, ids.clone());
        let (start, len) = (ids.start as usize, ids.len());
        let pass = Pass { labels: None, augment: None, dropout: Some(&noise) };
        Ok(net.forward(&x.narrow(0, start, len)?, &t.narrow(0, start, len)?, pass)?)
    };
    let whole = run(0..6)?;
    assert!(distance(&whole, &Tensor::cat(&[run(0..1)?, run(1..4)?, run(4..6)?], 0)?)? < 1e-12);
    assert!(distance(&whole, &net.forward(&x, &t, Pass::EVAL)?)? > 1e-3);
    Ok(())
}

#[test]
fn classes_condition_and_the_last_label_is_none() -> Result<()> {
    let conditional = small().into_iter().filter(|(config, _)| matches!(config.classes(), Some(3)));
    let kinds: Vec<_> = conditional.collect();
    assert!(kinds.iter().any(|(config, _)| matches!(config, NetConfig::Mlp(_))));
    for (config, shape) in kinds {
        let (net, _) = away_from_the_start(&config, &shape)?;
        let (x, t) = batch(&shape, 2)?;
        let with = |labels: &[u32]| -> Result<Tensor> {
            let labels = Tensor::new(labels, &CPU)?;
            Ok(net.forward(&x, &t, Pass { labels: Some(&labels), augment: None, dropout: None })?)
        };
        assert!(distance(&with(&[0, 1])?, &with(&[0, 2])?)? > 1e-3);
        assert_eq!(distance(&with(&[3, 3])?, &net.forward(&x, &t, Pass::EVAL)?)?, 0.0);
        assert!(with(&[0]).is_err() && with(&[0, 4]).is_err());
    }

    let (plain, shape) = small().swap_remove(3);
    let (net, _) = away_from_the_start(&plain, &shape)?;
    let ((x, t), labels) = (batch(&shape, 2)?, Tensor::new(&[0u32, 1], &CPU)?);
    assert!(net.forward(&x, &t, Pass { labels: Some(&labels), augment: None, dropout: None }).is_err());
    assert!(net.forward(&x.narrow(3, 0, 5)?, &t, Pass::EVAL).is_err());
    Ok(())
}

/// Whoever trains on augmented data with a network that is not told of it would learn the augmented data.
#[test]
fn networks_that_are_not_told_of_augmentations_refuse_their_features() -> Result<()> {
    for (config, shape) in small() {
        if augment_of(&config, 2)?.is_some() {
            continue;
        }
        let (net, _) = away_from_the_start(&config, &shape)?;
        let ((x, t), features) = (batch(&shape, 2)?, Tensor::zeros((2, 9), DType::F64, &CPU)?);
        let refused = net.forward(&x, &t, Pass { augment: Some(&features), ..Pass::EVAL });
        assert!(refused.is_err_and(|e| e.to_string().contains("augmentation")), "{config:?}");
    }
    Ok(())
}

#[test]
fn unit_vectors_of_classes_and_features_of_augmentations() -> Result<()> {
    let (config, shape) = small().swap_remove(6);
    let (net, params) = away_from_the_start(&config, &shape)?;
    let (x, t) = batch(&shape, 2)?;
    let with = |labels: Option<[u32; 2]>, augment: Option<Tensor>| -> Result<Tensor> {
        let labels = labels.map(|labels| Tensor::new(&labels, &CPU)).transpose()?;
        Ok(net.forward(&x, &t, Pass { labels: labels.as_ref(), augment: augment.as_ref(), dropout: None })?)
    };
    assert!(distance(&with(Some([0, 1]), None)?, &with(Some([0, 2]), None)?)? > 1e-3);
    assert_eq!(distance(&with(Some([3, 3]), None)?, &with(None, None)?)?, 0.0);
    let zeros = Tensor::zeros((2, 2), DType::F64, &CPU)?;
    assert_eq!(distance(&with(None, Some(zeros))?, &with(None, None)?)?, 0.0);
    assert!(distance(&with(None, Some(normal(&[2, 2], 5)?))?, &with(None, None)?)? > 1e-3);
    assert!(with(None, Some(normal(&[2, 3], 5)?)).is_err());

    // A class is √n times its column: the same as an augmentation whose map has that column.
    let map = params.get("classes.weight").expect("a map of classes").as_detached_tensor();
    params.get("augment.weight").expect("a map").set(&map.narrow(1, 0, 2)?.contiguous()?)?;
    let second = Tensor::new(&[[0.0, 3f64.sqrt()]; 2], &CPU)?;
    assert!(distance(&with(Some([1, 1]), None)?, &with(None, Some(second))?)? < 1e-12);
    Ok(())
}

#[test]
fn frozen_and_trainable_networks_agree_and_only_one_is_taped() -> Result<()> {
    for (config, shape) in small() {
        let (net, params) = away_from_the_start(&config, &shape)?;
        let frozen = params.to_weights()?.freeze(DType::F64, &CPU, |b| config.build(b, &shape))?;
        let ((x, t), labels) = (batch(&shape, 3)?, labels_of(&config, 3)?);
        let pass = Pass { labels: labels.as_ref(), augment: None, dropout: None };
        let (taped, plain) = (net.forward(&x, &t, pass)?, frozen.forward(&x, &t, pass)?);
        assert_eq!(distance(&taped, &plain)?, 0.0);
        assert!(taped.track_op() && !plain.track_op());
        assert_eq!(net.prediction(), frozen.prediction());
    }
    Ok(())
}

#[test]
fn configurations_round_trip_and_reject_unknown_keys() -> std::result::Result<(), Box<dyn std::error::Error>>
{
    for (config, _) in small() {
        let text = toml::to_string(&config)?;
        assert_eq!(toml::from_str::<NetConfig>(&text)?, config);
        for (good, bad) in [("time_shift", "time_shfit"), ("slowest", "slow"), ("prediction", "predicts")] {
            let parsed = toml::from_str::<NetConfig>(&text.replace(good, bad));
            let message = parsed.map_or_else(|error| error.to_string(), |same| format!("{same:?}"));
            assert!(message.contains(bad) || !text.contains(good), "{message}");
        }
        let message = toml::from_str::<NetConfig>(&format!("extra = 1\n{text}")).unwrap_err().to_string();
        assert!(message.contains("extra"), "{message}");
    }
    Ok(())
}

#[test]
fn impossible_configurations_are_refused() {
    let base = || UnetConfig { classes: None, ..tiny_unet() };
    let cases: Vec<(&str, UnetConfig)> = vec![
        ("groups", UnetConfig { groups: Some(3), ..base() }),
        ("groups", UnetConfig { groups: Some(0), ..base() }),
        ("multipliers", UnetConfig { multipliers: vec![1, 1, 1, 1], attention: vec![], ..base() }),
        ("multipliers", UnetConfig { multipliers: vec![], ..base() }),
        ("multipliers", UnetConfig { multipliers: vec![1, 0], ..base() }),
        ("multipliers", UnetConfig { multipliers: vec![1; 80], ..base() }),
        ("attention", UnetConfig { attention: vec![3], ..base() }),
        ("heads", UnetConfig { heads: 3, ..base() }),
        ("heads", UnetConfig { heads: 0, ..base() }),
        ("channels", UnetConfig { channels: 0, ..base() }),
        ("blocks", UnetConfig { blocks: 0, ..base() }),
        ("pyramid", UnetConfig { pyramid: true, ..base() }),
        ("pointwise_scale", UnetConfig { pointwise_scale: Some(0.0), ..base() }),
        ("one_hot", UnetConfig { one_hot: true, ..base() }),
        ("augment", UnetConfig { augment: Some(0), ..base() }),
        ("classes", UnetConfig { classes: Some(0), ..base() }),
        ("time features", UnetConfig { time_dim: Some(3), ..base() }),
        ("prediction", UnetConfig { precondition: Some(Precondition::Ve {}), ..base() }),
        (
            "precondition.sigma_data",
            UnetConfig {
                precondition: Some(Precondition::Edm { sigma_data: 0.0 }),
                prediction: Prediction::Data,
                ..base()
            },
        ),
        ("dropout", UnetConfig { dropout: 1.0, ..base() }),
        ("dropout", UnetConfig { dropout: f64::NAN, ..base() }),
        ("time features", UnetConfig { channels: 5, groups: Some(1), heads: 1, ..base() }),
    ];
    for (key, config) in cases {
        let found = count_parameters(|b| Unet::new(b, &config, &[1, 4, 4]));
        assert!(matches!(&found, Err(Error::Config { field, .. }) if *field == key), "{key}: {found:?}");
    }
    for shape in [&[4, 4][..], &[0, 4, 4], &[1, 0, 4], &[1, 4, 4, 4]] {
        assert!(count_parameters(|b| Unet::new(b, &base(), shape)).is_err());
    }
    let mlp = |hidden| MlpConfig {
        prediction: Prediction::Data,
        hidden,
        time_dim: 4,
        time: fourier(),
        state: None,
        classes: None,
    };
    for config in [mlp(vec![]), mlp(vec![3, 0])] {
        assert!(count_parameters(|b| NetConfig::Mlp(config).build(b, &[2])).is_err());
    }
}

#[test]
fn random_frequencies_are_stored_but_not_trained() -> Result<()> {
    let config = UnetConfig { classes: None, ..tiny_unet() };
    let build = |b: &Builder| Unet::new(b, &config, &[1, 4, 4]);
    let (net, params) = Params::initialise(Noise::new(1), DType::F64, &CPU, build)?;
    let mut expected = Noise::new(1).draws_named(Stream::Init, "time.frequencies");
    let weights = params.to_weights()?;
    let stored = weights.get("time.frequencies").map(|w| w.to_vec1::<f64>()).transpose()?;
    assert_eq!(stored, Some(vec![0.5 * expected.normal(), 0.5 * expected.normal()]));

    // Loading reaches the network that is already built.
    let (x, t) = batch(&[1, 4, 4], 2)?;
    let other = away_from_the_start(&NetConfig::Unet(config.clone()), &[1, 4, 4])?;
    params.load(&other.1.to_weights()?)?;
    let outputs = (net.forward(&x, &t, Pass::EVAL)?, other.0.forward(&x, &t, Pass::EVAL)?);
    assert_eq!(distance(&outputs.0, &outputs.1)?, 0.0);
    Ok(())
}
