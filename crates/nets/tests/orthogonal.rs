//! Learned bases: values and gradients from an independent computation, finite differences, orthogonality.

use candle_core::{DType, Device, Tensor};
use sde_core::noise::Noise;
use sde_nets::ops::{orthogonal_cayley, orthogonal_exponential};
use sde_nets::{OrthogonalConfig, OrthogonalMap, Params, Result};

fn build(config: OrthogonalConfig, shape: &[usize]) -> Result<(OrthogonalMap, Params)> {
    Params::initialise(Noise::new(5), DType::F64, &Device::Cpu, |b| config.build(b, shape))
}

fn maps() -> Vec<OrthogonalConfig> {
    use OrthogonalConfig::*;
    vec![
        Exponential { std: 0.8 },
        Cayley { std: 0.8 },
        Householder { reflections: 4, std: 0.7 },
        Blocks { size: 3, std: 0.8 },
        Kronecker { std: 0.8 },
        Cosine {},
        Axes {},
    ]
}

/// A scalar that depends on every entry of P, in both directions.
fn probe(map: &OrthogonalMap, dim: usize) -> Result<Tensor> {
    let values = |phase: f64| -> Vec<f64> { (0..2 * dim).map(|k| (1.3 * k as f64 + phase).sin()).collect() };
    let x = Tensor::from_vec(values(0.1), (2, dim), &Device::Cpu)?;
    let w = Tensor::from_vec(values(0.7), (2, dim), &Device::Cpu)?;
    let frame = map.frame(DType::F64)?;
    let there = (frame.coordinates(&x)?.sqr()? * &w)?;
    Ok((frame.entries(&there)? * &w)?.sum_all()?)
}

#[test]
fn value_and_gradient_of_the_exponential_are_those_of_an_independent_computation() -> Result<()> {
    // SciPy's expm, and the Fréchet adjoint by the matrix of twice the size.
    let upper = candle_core::Var::new(&[0.3, -0.2, 0.5], &Device::Cpu)?;
    let p = orthogonal_exponential(&upper, 3)?;
    let expected = [
        [0.937032437285, 0.329794337692, -0.114916953936],
        [-0.232921164284, 0.835315605207, 0.497991537003],
        [0.260226714048, -0.439867632958, 0.859533898559],
    ];
    for (row, expected) in p.to_vec2::<f64>()?.iter().zip(&expected) {
        for (found, expected) in row.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
    }
    let weights: Vec<f64> = (0..9).map(|k| f64::from(k) / 9.0).collect();
    let loss = (p * Tensor::from_vec(weights, (3, 3), &Device::Cpu)?)?.sum_all()?;
    assert!((loss.to_scalar::<f64>()? - 1.176775009429).abs() < 1e-12);
    let gradient = loss.backward()?.get(&upper).expect("a gradient").to_vec1::<f64>()?;
    for (found, expected) in gradient.iter().zip([0.019099275659, -0.554149666208, -0.661617486893]) {
        assert!((found - expected).abs() < 1e-11, "{found} {expected}");
    }
    Ok(())
}

#[test]
fn coordinates_and_entries_are_inverse_and_the_factors_are_the_matrix() -> Result<()> {
    for shape in [vec![12], vec![3, 2, 2], vec![1, 3, 4]] {
        for config in maps() {
            let (map, _) = build(config, &shape)?;
            let frame = map.frame(DType::F64)?;
            let x: Vec<f64> = (0..24).map(|k| (2.1 * k as f64).cos()).collect();
            let x = Tensor::from_vec(x, (2, 12), &Device::Cpu)?;
            let back = frame.entries(&frame.coordinates(&x)?)?;
            let gap = (back - &x)?.abs()?.max_all()?.to_scalar::<f64>()?;
            assert!(gap < 1e-13, "{config:?}: {gap:e}");
            let mut p = vec![1.0];
            for (n, factor) in frame.factors()? {
                let rows = (p.len() as f64).sqrt() as usize;
                let kronecker = |at: usize| {
                    let (i, j) = (at / (rows * n), at % (rows * n));
                    p[i / n * rows + j / n] * factor[i % n * n + j % n]
                };
                p = (0..p.len() * n * n).map(kronecker).collect();
            }
            let p = Tensor::from_vec(p, (12, 12), &Device::Cpu)?;
            let gap = (frame.coordinates(&x)? - x.matmul(&p)?)?.abs()?.max_all()?.to_scalar::<f64>()?;
            assert!(gap < 1e-13, "{config:?} on {shape:?}: {gap:e}");
        }
    }
    Ok(())
}

#[test]
fn gradients_are_those_of_finite_differences() -> Result<()> {
    for config in maps() {
        let (map, params) = build(config, &[3, 2, 2])?;
        let gradients = probe(&map, 12)?.backward()?;
        for (name, var) in params.iter() {
            let gradient = gradients.get(var).expect("a gradient").flatten_all()?.to_vec1::<f64>()?;
            let values = var.flatten_all()?.to_vec1::<f64>()?;
            for place in [0, values.len() / 2, values.len() - 1] {
                let at = |step: f64| -> Result<f64> {
                    let mut moved = values.clone();
                    moved[place] += step;
                    var.set(&Tensor::from_vec(moved, var.dims(), &Device::Cpu)?)?;
                    Ok(probe(&map, 12)?.to_scalar()?)
                };
                let h = 1e-3;
                // Fourth order.
                let near = (at(h)? - at(-h)?) / (2.0 * h);
                let far = (at(2.0 * h)? - at(-2.0 * h)?) / (4.0 * h);
                let (found, expected) = (gradient[place], (4.0 * near - far) / 3.0);
                assert!((found - expected).abs() < 1e-8, "{config:?} {name}[{place}]: {found} {expected}");
            }
            var.set(&Tensor::from_vec(values, var.dims(), &Device::Cpu)?)?;
        }
    }
    Ok(())
}

#[test]
fn learned_maps_start_near_the_identity_and_stay_orthogonal_in_f32() -> Result<()> {
    use OrthogonalConfig::*;
    for config in [Exponential { std: 0.01 }, Cayley { std: 0.01 }, Householder { reflections: 8, std: 0.01 }]
    {
        let (map, _) = build(config, &[40])?;
        let x = Tensor::eye(40, DType::F32, &Device::Cpu)?;
        let p = map.frame(DType::F32)?.entries(&x)?;
        let gap = (&p - &x)?.abs()?.max_all()?.to_scalar::<f32>()?;
        assert!(gap > 1e-4 && gap < 0.05, "{config:?}: {gap}");
        let defect = (p.matmul(&p.t()?)? - x)?.abs()?.max_all()?.to_scalar::<f32>()?;
        assert!(defect < 2e-6, "{config:?}: {defect}");
    }
    Ok(())
}

#[test]
fn a_large_map_is_orthogonal_and_its_gradient_that_of_finite_differences() -> Result<()> {
    // 300 rows: across tasks of the product, and one more squaring than Taylor's polynomial alone.
    let n = 300;
    let entry = |k: usize| 0.12 * (1.7 * k as f64 + 0.4).sin();
    let values: Vec<f64> = (0..n * (n - 1) / 2).map(entry).collect();
    let weights: Vec<f64> = (0..n * n).map(|k| (0.3 * k as f64).cos()).collect();
    let weights = Tensor::from_vec(weights, (n, n), &Device::Cpu)?;
    for map in [orthogonal_exponential, orthogonal_cayley] {
        let upper = candle_core::Var::from_vec(values.clone(), n * (n - 1) / 2, &Device::Cpu)?;
        let p = map(&upper, n)?;
        let defect = (p.t()?.matmul(&p)? - Tensor::eye(n, DType::F64, &Device::Cpu)?)?;
        assert!(defect.abs()?.max_all()?.to_scalar::<f64>()? < 1e-14);
        let gradients = (&p * &weights)?.sum_all()?.backward()?;
        let gradient = gradients.get(&upper).expect("a gradient").to_vec1::<f64>()?;
        let at = |place: usize, step: f64| -> Result<f64> {
            let mut moved = values.clone();
            moved[place] += step;
            let p = map(&Tensor::from_vec(moved, values.len(), &Device::Cpu)?, n)?;
            Ok((p * &weights)?.sum_all()?.to_scalar()?)
        };
        for place in [7, values.len() - 3] {
            let h = 1e-4;
            let expected = (at(place, h)? - at(place, -h)?) / (2.0 * h);
            assert!((gradient[place] - expected).abs() < 1e-5 * (1.0 + expected.abs()), "{expected}");
        }
    }
    Ok(())
}

#[test]
fn maps_that_do_not_fit_are_errors_that_say_why() {
    use OrthogonalConfig::*;
    for (config, shape, word) in [
        (Householder { reflections: 3, std: 0.1 }, vec![4], "reflections"),
        (Blocks { size: 5, std: 0.1 }, vec![12], "size"),
        (Exponential { std: f64::NAN }, vec![4], "std"),
        (Axes {}, vec![0], "map"),
    ] {
        let error = build(config, &shape).expect_err("a map that does not fit").to_string();
        assert!(error.contains(word), "{error}");
    }
}
