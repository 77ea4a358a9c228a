//! Adam, clipping, averages and schedules against recorded runs of PyTorch, on one quadratic with noisy gradients.
//!
//! `golden/optim.npz` was made with torch 2.15: the gradient at step i is `H p − b + noise[i]`; learning rate 0.05,
//! weight decay 0.1.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use sde_core::noise::Noise;
use sde_nets::{Init, Params};
use sde_train::clip::{clip, global_norm, replace_non_finite};
use sde_train::{Adam, AdamConfig, AdamKind, Decay, Ema, EmaConfig, EmaLaw, Gradients, Result, Schedule};

struct Golden(Vec<(String, Tensor)>);

impl Golden {
    fn read() -> Result<Self> {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/optim.npz");
        Ok(Self(Tensor::read_npz(file)?))
    }
    fn get(&self, name: &str) -> &Tensor {
        &self.0.iter().find(|(n, _)| n == name).unwrap_or_else(|| panic!("no array {name}")).1
    }
    fn rows(&self, name: &str) -> Result<Vec<Vec<f64>>> {
        Ok(self.get(name).to_vec2()?)
    }
    fn row(&self, name: &str) -> Result<Vec<f64>> {
        Ok(self.get(name).to_dtype(DType::F64)?.to_vec1()?)
    }
}

fn params_at(values: &[f64], dtype: DType) -> Result<Params> {
    let build = |b: &sde_nets::Builder| b.get(&[values.len()], "p", Init::Constant(0.0));
    let (_, params) = Params::initialise(Noise::new(0), dtype, &Device::Cpu, build)?;
    set(&params, values)?;
    Ok(params)
}

fn set(params: &Params, values: &[f64]) -> Result<()> {
    let tensor = Tensor::new(values, &Device::Cpu)?.to_dtype(params.dtype())?;
    Ok(params.load(&[("p".to_owned(), tensor)].into_iter().collect())?)
}

fn host(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(tensor.to_dtype(DType::F64)?.to_vec1()?)
}

fn value(params: &Params) -> Result<Vec<f64>> {
    host(params.to_weights()?.get("p").expect("the parameter"))
}

fn assert_close(found: &[f64], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (f, e) in found.iter().zip(expected) {
        assert!((f - e).abs() <= tolerance * e.abs().max(1.0), "{what}: {found:?}, expected {expected:?}");
    }
}

#[test]
fn trajectories_are_those_of_torch() -> Result<()> {
    let golden = Golden::read()?;
    let cases = [
        ("adam", AdamKind::Adam, 0.0, DType::F64),
        ("adam_wd", AdamKind::Adam, 0.1, DType::F64),
        ("adamw", AdamKind::AdamW, 0.1, DType::F64),
        ("adam_f32", AdamKind::Adam, 0.0, DType::F32),
        ("adamw_f32", AdamKind::AdamW, 0.1, DType::F32),
    ];
    for (name, kind, weight_decay, dtype) in cases {
        for (name, max) in [(name.to_owned(), None), (format!("{name}_clip"), Some(1.0))] {
            let config = AdamConfig { kind, lr: 0.05, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay };
            let tolerance = if dtype == DType::F64 { 1e-13 } else { 2e-6 };
            run(&golden, &name, config, dtype, max, tolerance)?;
        }
    }
    Ok(())
}

fn run(
    golden: &Golden,
    name: &str,
    config: AdamConfig,
    dtype: DType,
    max: Option<f64>,
    tolerance: f64,
) -> Result<()> {
    let cast = |name: &str| golden.get(name).to_dtype(dtype);
    let (h, b, noise) = (cast("H")?, cast("b")?, cast("noise")?);
    let expected = golden.rows(name)?;
    let norms = golden.row(&format!("{name}__gradnorm"))?;
    let params = params_at(&expected[0], dtype)?;
    let mut adam = Adam::new(config, &params)?;
    for (i, (row, norm)) in expected[1..].iter().zip(norms).enumerate() {
        let p = params.to_weights()?.get("p").expect("the parameter").unsqueeze(1)?;
        let g = ((h.matmul(&p)?.squeeze(1)? - &b)? + noise.get(i)?)?;
        let mut gradients = Gradients::from([("p".to_owned(), g)]);
        let found = global_norm(&gradients)?;
        assert!((found - norm).abs() <= tolerance * norm, "{name}: norm {found}, expected {norm}");
        if let Some(max) = max {
            clip(&mut gradients, found, max)?;
        }
        adam.update(&params, &gradients, i as u64 + 1, config.lr)?;
        assert_close(&value(&params)?, row, tolerance, &format!("{name}, update {i}"));
    }
    if golden.0.iter().any(|(n, _)| *n == format!("{name}__m")) {
        let moments = adam.to_weights()?;
        for (ours, theirs) in [("first.p", "m"), ("second.p", "v")] {
            let found = host(moments.get(ours).expect("a moment"))?;
            assert_close(&found, &golden.row(&format!("{name}__{theirs}"))?, tolerance, theirs);
        }
    }
    Ok(())
}

#[test]
fn the_norm_is_taken_over_all_tensors() -> Result<()> {
    let golden = Golden::read()?;
    let mut gradients = Gradients::from([
        ("a".to_owned(), golden.get("clip2_in1").clone()),
        // Another layout must not matter.
        ("b".to_owned(), golden.get("clip2_in2").reshape((2, 3))?.t()?),
    ]);
    let norm = global_norm(&gradients)?;
    assert_close(&[norm], &golden.row("clip2_total")?, 1e-13, "norm");
    clip(&mut gradients, norm, 1.0)?;
    assert_close(&host(&gradients["a"])?, &golden.row("clip2_out1")?, 1e-13, "a");
    assert_close(&host(&gradients["b"].t()?.flatten_all()?)?, &golden.row("clip2_out2")?, 1e-13, "b");
    // Short gradients stay as they are.
    let before = host(&gradients["a"])?;
    clip(&mut gradients, 0.5, 1.0)?;
    assert_eq!(host(&gradients["a"])?, before);
    Ok(())
}

#[test]
fn what_is_not_finite_is_replaced_and_the_rest_stays() -> Result<()> {
    for dtype in [DType::F32, DType::F64] {
        let g = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 3e8, -3e8, 0.0, 1e-30, -f64::NAN];
        let mut gradients =
            Gradients::from([("a".to_owned(), Tensor::new(&g, &Device::Cpu)?.to_dtype(dtype)?)]);
        replace_non_finite(&mut gradients, 1e5)?;
        let expected = Tensor::new(&[0.0, 1e5, -1e5, 3e8, -3e8, 0.0, 1e-30, 0.0], &Device::Cpu)?;
        assert_eq!(host(&gradients["a"])?, host(&expected.to_dtype(dtype)?)?);
    }
    Ok(())
}

/// After the ramp, an average of EDM has taken in half of a jump of the weights one half-life later.
#[test]
fn a_half_life_halves_and_its_ramp_is_a_fraction_of_the_past() -> Result<()> {
    let law = EmaLaw::HalfLife { steps: 50.0, ramp: Some(0.05) };
    let params = params_at(&[0.0], DType::F64)?;
    let mut ema = Ema::new(EmaConfig { name: "main".into(), law }, &params)?;
    // In the ramp the half-life is 0.05 (n − 1); 0.05 · 1000 = 50 ends it.
    assert_eq!((law.decay(1), law.decay(21)), (0.0, 0.5));
    assert!((law.decay(1001).powi(50) - 0.5).abs() < 1e-12 && law.decay(5000) == law.decay(1001));
    (1..=1000).try_for_each(|n| ema.update(&params, n))?;
    set(&params, &[1.0])?;
    (1001..=1050).try_for_each(|n| ema.update(&params, n))?;
    let found = host(ema.to_weights()?.get("p").expect("the parameter"))?;
    assert!((found[0] - 0.5).abs() < 1e-12, "{found:?}");
    Ok(())
}

#[test]
fn averages_are_the_published_ones() -> Result<()> {
    let golden = Golden::read()?;
    let rows = golden.rows("adam")?;
    let cases = [
        ("ema_const_0.9", EmaLaw::Constant { decay: 0.9 }),
        ("ema_const_0.999", EmaLaw::Constant { decay: 0.999 }),
        ("ema_ramp_0.9", EmaLaw::Ramp { decay: 0.9 }),
        ("ema_ramp_0.999", EmaLaw::Ramp { decay: 0.999 }),
        ("ema_edm", EmaLaw::HalfLife { steps: 500_000.0 / 512.0, ramp: Some(0.05) }),
    ];
    for (name, law) in cases {
        let expected = golden.rows(name)?;
        let params = params_at(&rows[0], DType::F64)?;
        let mut ema = Ema::new(EmaConfig { name: "main".into(), law }, &params)?;
        for (n, (row, expected)) in rows.iter().zip(&expected).enumerate().skip(1) {
            set(&params, row)?;
            ema.update(&params, n as u64)?;
            let found = host(ema.to_weights()?.get("p").expect("the parameter"))?;
            assert_close(&found, expected, 1e-13, name);
        }
    }
    let edm = EmaLaw::HalfLife { steps: 500_000.0 / 512.0, ramp: Some(0.05) };
    let decays: Vec<f64> = (1..=10).map(|n| edm.decay(n)).collect();
    assert_close(&decays, &golden.row("ema_edm__beta")?, 1e-13, "decays");
    Ok(())
}

#[test]
fn a_snapshot_is_not_moved_by_later_updates() -> Result<()> {
    let params = params_at(&[1.0], DType::F32)?;
    let law = EmaLaw::Constant { decay: 0.5 };
    let mut ema = Ema::new(EmaConfig { name: "main".into(), law }, &params)?;
    let before = ema.to_weights()?;
    set(&params, &[3.0])?;
    ema.update(&params, 1)?;
    assert_eq!(host(before.get("p").expect("the parameter"))?, [1.0]);
    assert_eq!(host(ema.to_weights()?.get("p").expect("the parameter"))?, [2.0]);
    Ok(())
}

#[test]
fn warm_ups_are_the_published_ones() -> Result<()> {
    let golden = Golden::read()?;
    let cases = [("lr_score_sde_warm", 2e-4, 5000.0), ("lr_edm_ramp_batch512", 1e-3, 10e6 / 512.0)];
    for (name, lr, warmup_steps) in cases {
        let schedule = Schedule { warmup_steps, decay: Decay::Constant };
        let steps = golden.row("lr_steps")?;
        let found: Vec<f64> = steps.iter().map(|&n| lr * schedule.factor(n as u64, 1_300_001)).collect();
        for (f, e) in found.iter().zip(golden.row(name)?) {
            assert!((f - e).abs() <= 1e-12 * e, "{name}: {f} {e}");
        }
    }
    Ok(())
}
