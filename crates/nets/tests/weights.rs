//! The parameter store and its files: exact round trips, and errors that name every tensor.

mod common;

use candle_core::{DType, Device, Tensor};
use common::{distance, normal};
use sde_core::noise::Noise;
use sde_nets::{Builder, Error, Init, Params, Result, Weights};

const CPU: Device = Device::Cpu;

fn network(b: &Builder) -> Result<[Tensor; 3]> {
    Ok([
        b.pp("b").get(&[2, 3], "weight", Init::Normal { std: 1.0 })?,
        b.pp("a").get(&[3], "bias", Init::Constant(0.5))?,
        b.buffer(&[4], "fixed", Init::Normal { std: 2.0 })?,
    ])
}

fn fresh() -> Result<([Tensor; 3], Params)> {
    Params::initialise(Noise::new(1), DType::F32, &CPU, network)
}

#[test]
fn parameters_come_in_the_order_of_their_names() -> Result<()> {
    let (_, params) = fresh()?;
    assert_eq!(params.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["a.bias", "b.weight"]);
    let weights = params.to_weights()?;
    assert_eq!(weights.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["a.bias", "b.weight", "fixed"]);
    assert_eq!((params.count(), weights.len()), (9, 3));
    Ok(())
}

#[test]
fn equal_weights_are_equal_bytes_and_come_back() -> Result<()> {
    let bytes = fresh()?.1.to_weights()?.to_safetensors()?;
    assert_eq!(bytes, fresh()?.1.to_weights()?.to_safetensors()?);
    let back = Weights::from_safetensors(&bytes, &CPU)?;
    assert_eq!(bytes, back.to_safetensors()?);
    let (tensors, _) = Params::restore(&back, DType::F32, &CPU, network)?;
    for (a, b) in tensors.iter().zip(fresh()?.0) {
        assert_eq!(distance(a, &b)?, 0.0);
    }
    // Views are written as what they show.
    let view: Weights = [("v".to_owned(), normal(&[3, 2], 1)?.t()?)].into_iter().collect();
    let back = Weights::from_safetensors(&view.to_safetensors()?, &CPU)?;
    assert_eq!(distance(&view.into_iter().next().map(|(_, v)| v).unwrap(), back.get("v").unwrap())?, 0.0);
    Ok(())
}

#[test]
fn files_that_are_none_are_refused() -> Result<()> {
    let bytes = fresh()?.1.to_weights()?.to_safetensors()?;
    let mut huge = bytes.clone();
    huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let mut garbled = bytes.clone();
    garbled[10] = 0xFF;
    for bad in [&[][..], &bytes[..7], &bytes[..40], &bytes[..bytes.len() - 1], &huge, &garbled] {
        assert!(matches!(Weights::from_safetensors(bad, &CPU), Err(Error::Format(_))));
    }
    Ok(())
}

#[test]
fn wrong_weights_are_listed_by_name_and_change_nothing() -> Result<()> {
    let (tensors, params) = fresh()?;
    let before = params.to_weights()?.to_safetensors()?;
    let wrong: Weights = [
        ("a.bias".to_owned(), normal(&[3], 1)?),
        ("b.weight".to_owned(), normal(&[3, 2], 1)?),
        ("extra".to_owned(), normal(&[1], 1)?),
    ]
    .into_iter()
    .collect();
    let messages = [
        params.load(&wrong).unwrap_err(),
        Params::restore(&wrong, DType::F32, &CPU, network).unwrap_err(),
        wrong.freeze(DType::F32, &CPU, network).unwrap_err(),
    ];
    for error in messages {
        let Error::Weights(mismatch) = &error else { panic!("{error}") };
        assert_eq!(mismatch.missing, ["fixed"]);
        assert_eq!(mismatch.unexpected, ["extra"]);
        assert_eq!(mismatch.misshapen, [("b.weight".to_owned(), vec![2, 3], vec![3, 2])]);
        let text = error.to_string();
        assert!(
            ["1 missing: fixed", "1 unexpected: extra", "expected [2, 3], found [3, 2]"]
                .iter()
                .all(|s| text.contains(s))
        );
    }
    assert_eq!(before, params.to_weights()?.to_safetensors()?);
    assert_eq!(tensors[1].to_vec1::<f32>()?, [0.5; 3]);
    Ok(())
}

#[test]
fn loading_changes_what_is_built_and_copies_do_not_follow() -> Result<()> {
    let (tensors, params) = fresh()?;
    let copy = params.to_weights()?;
    let doubled: Weights =
        copy.iter().map(|(name, w)| Ok((name.to_owned(), (w * 2.0)?))).collect::<Result<_>>()?;
    params.load(&doubled)?;
    assert_eq!(tensors[1].to_vec1::<f32>()?, [1.0; 3]);
    assert_eq!(copy.get("a.bias").unwrap().to_vec1::<f32>()?, [0.5; 3]);
    assert_eq!(distance(&tensors[2], doubled.get("fixed").unwrap())?, 0.0);
    // From views of the variables themselves.
    let views = params.iter().map(|(name, var)| (name.to_owned(), var.as_detached_tensor()));
    params.load(&views.chain([("fixed".to_owned(), tensors[2].clone())]).collect())?;
    assert_eq!(tensors[1].to_vec1::<f32>()?, [1.0; 3]);
    Ok(())
}

#[test]
fn a_name_is_given_once() {
    let twice = |b: &Builder| {
        b.get(&[1], "same", Init::Constant(0.0))?;
        b.get(&[1], "same", Init::Constant(0.0))
    };
    let error = Params::initialise(Noise::new(0), DType::F32, &CPU, twice).unwrap_err();
    assert!(matches!(error, Error::DuplicateName(name) if name == "same"));
}
