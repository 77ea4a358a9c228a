//! The update of Adam in one pass against its formulas, value by value, and against Candle's own operators.

use candle_core::{DType, Device, Result, Tensor, Var};
use sde_nets::ops::{AdamUpdate, lerp, sums_of_squares};

const UPDATE: AdamUpdate = AdamUpdate {
    gradient_scale: 0.7,
    penalty: 0.02,
    first: 0.1,
    second: 0.01,
    keep: 0.99,
    rate: 0.01,
    scale: 1.3,
    eps: 1e-3,
};

/// More than one chunk, and not a whole number of them.
const N: usize = 40_003;

fn fill(k: f64, dtype: DType) -> Result<Tensor> {
    Tensor::from_iter((0..N).map(|i| (i as f64 * k).sin()), &Device::Cpu)?.to_dtype(dtype)
}

fn values(tensor: &Tensor) -> Result<Vec<f64>> {
    tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1()
}

/// Parameter, moments, gradient and two averages.
type Before = [Vec<f64>; 6];
/// The same but for the gradient.
type After = [Vec<f64>; 5];

/// What there is before an update, and after it.
fn updated(dtype: DType) -> Result<(Before, After)> {
    let (p, g) = (Var::from_tensor(&fill(0.7, dtype)?)?, fill(1.1, dtype)?);
    let (mut m, mut v) = (fill(0.3, dtype)?, fill(0.9, dtype)?.sqr()?);
    let (mut near, mut far) = (fill(0.5, dtype)?, fill(0.6, dtype)?);
    let before = [values(&p)?, values(&m)?, values(&v)?, values(&g)?, values(&near)?, values(&far)?];
    UPDATE.apply(&p, &g, [&mut m, &mut v], &mut [(&mut near, 0.5), (&mut far, 0.001)])?;
    Ok((before, [values(&p)?, values(&m)?, values(&v)?, values(&near)?, values(&far)?]))
}

/// Half precision has no kernel, so it goes through the composed operators that other devices use.
#[test]
fn the_update_is_its_formula_in_every_type() -> Result<()> {
    for (dtype, tolerance) in [(DType::F64, 1e-15), (DType::F32, 1e-6), (DType::BF16, 3e-2)] {
        let ([p, m, v, g, near, far], found) = updated(dtype)?;
        for i in 0..N {
            let g = 0.7 * g[i] + 0.02 * p[i];
            let (m, v) = (m[i] + 0.1 * (g - m[i]), v[i] + 0.01 * (g * g - v[i]));
            let new = 0.99 * p[i] - 0.01 * m / (v.sqrt() * 1.3 + 1e-3);
            let expected = [new, m, v, near[i] + 0.5 * (new - near[i]), far[i] + 0.001 * (new - far[i])];
            for (found, expected) in found.iter().zip(expected) {
                // √v is steep where v is small: there its rounding is seen 1/(2√v) times as large.
                let steep = if dtype == DType::F64 { 1.0 } else { 1.0 + 0.005 / v.max(1e-6).sqrt() };
                assert!(
                    (found[i] - expected).abs() < tolerance * steep,
                    "{dtype:?} {i}: {} {expected}",
                    found[i]
                );
            }
        }
    }
    Ok(())
}

/// The kernel is plain arithmetic on each value, so a loop over f32 has the same bits.
#[test]
fn f32_is_computed_in_f32_and_rounds_coefficients_once() -> Result<()> {
    let (before, found) = updated(DType::F32)?;
    let [p, m, v, g, near, _] = before.map(|values| values.iter().map(|v| *v as f32).collect::<Vec<f32>>());
    for i in 0..N {
        let g = 0.7f32 * g[i] + 0.02f32 * p[i];
        let (m, v) = (m[i] + 0.1f32 * (g - m[i]), v[i] + 0.01f32 * (g * g - v[i]));
        let new = 0.99f32 * p[i] - 0.01f32 * m / (v.sqrt() * 1.3f32 + 1e-3f32);
        let expected = [new, m, v, near[i] + 0.5f32 * (new - near[i])];
        assert_eq!([0, 1, 2, 3].map(|k| found[k][i] as f32), expected, "{i}");
    }
    Ok(())
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() -> Result<()> {
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        pool.install(|| -> Result<_> {
            Ok((updated(DType::F32)?, sums_of_squares(&[&fill(0.3, DType::F32)?])?))
        })
    };
    assert_eq!(on(1)?, on(3)?);
    Ok(())
}

#[test]
fn sums_of_squares_are_exact_where_they_can_be_and_show_what_is_not_finite() -> Result<()> {
    // Whole numbers, so no order of summation rounds; transposed, which must not matter.
    let whole = Tensor::from_iter((0..N as u32).map(|i| f64::from(i % 100)), &Device::Cpu)?;
    let expected: f64 = (0..N).map(|i| ((i % 100) * (i % 100)) as f64).sum();
    let square = Tensor::arange(0f32, 12f32, &Device::Cpu)?.reshape((3, 4))?.t()?;
    assert_eq!(sums_of_squares(&[&whole, &whole.to_dtype(DType::F32)?])?, [expected, expected]);
    assert_eq!(sums_of_squares(&[&square, &square.to_dtype(DType::BF16)?])?, [506.0, 506.0]);
    // f32 squares above 3.4e38 do not overflow in f64.
    assert!(sums_of_squares(&[&Tensor::new(&[1e30f32], &Device::Cpu)?])?[0].is_finite());
    for bad in [f32::NAN, f32::INFINITY] {
        assert!(!sums_of_squares(&[&Tensor::new(&[1.0, bad], &Device::Cpu)?])?[0].is_finite());
    }
    Ok(())
}

#[test]
fn shared_memory_and_other_shapes_are_refused_instead_of_waiting_for_ever() -> Result<()> {
    let p = Var::from_tensor(&fill(0.7, DType::F32)?)?;
    let (mut m, mut v) = (fill(0.3, DType::F32)?, fill(0.9, DType::F32)?.sqr()?);
    // A gradient that is the parameter itself is read before it changes.
    let old = values(&p)?;
    UPDATE.apply(&p, &p.as_detached_tensor(), [&mut m, &mut v], &mut [])?;
    assert_ne!(values(&p)?, old);
    let mut alias = m.clone();
    assert!(UPDATE.apply(&p, &fill(1.1, DType::F32)?, [&mut m, &mut alias], &mut []).is_err());
    assert!(UPDATE.apply(&p, &fill(1.1, DType::F64)?, [&mut m, &mut v], &mut []).is_err());
    assert!(UPDATE.apply(&p, &fill(1.1, DType::F32)?.narrow(0, 0, 5)?, [&mut m, &mut v], &mut []).is_err());
    let value = m.clone();
    assert!(lerp(&mut m, &value, 0.5).is_err());
    Ok(())
}
