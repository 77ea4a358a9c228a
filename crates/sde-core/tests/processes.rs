//! Every process passes the same check, and agrees with schedules computed elsewhere to 34 digits.

#[path = "support/rotating.rs"]
mod rotating;

use std::collections::HashMap;

use candle_core::Tensor;
use rotating::Rotating;
use sde_core::process::{Blurring, Cosine, Discrete, Edm, Heat, LinearPath, SubVp, Ve, Vp};
use sde_core::{LinearSde, Op, Result, ScalarSde, check_process};

fn golden(name: &str) -> HashMap<String, Tensor> {
    let path = format!("{}/tests/golden/{name}.npz", env!("CARGO_MANIFEST_DIR"));
    Tensor::read_npz(path).expect("golden file").into_iter().collect()
}

fn check(name: &str, sde: &dyn LinearSde, times: &[f64]) {
    let defects = check_process(sde, times).expect("operators that fit");
    assert!(defects.composition < 1e-12 && defects.factor < 1e-12, "{name}: {defects:?}");
    assert!(defects.largest() < 1e-7, "{name}: {defects:?}");
}

#[test]
fn every_process_passes_its_check() -> Result<()> {
    let unit = [1e-4, 1e-3, 0.02, 0.1, 0.35, 0.6, 0.9, 0.99];
    check("vp", &Vp::STANDARD, &unit);
    check("vp without offset", &Vp::new(0.0, 20.0)?, &unit);
    check("vp constant", &Vp::new(3.0, 3.0)?, &unit);
    check("sub-vp", &SubVp::STANDARD, &unit);
    check("ve", &Ve::STANDARD, &unit);
    check("ve wide", &Ve::new(1e-3, 378.0)?, &unit);
    check("cosine", &Cosine, &unit);
    check("linear path", &LinearPath, &unit);
    check("edm", &Edm::STANDARD, &[2e-3, 0.1, 1.0, 20.0, 79.0]);
    check("rotating", &Rotating { omega: 1.7 }, &[1e-3, 0.1, 0.5, 1.0, 3.0]);
    let blurring = Blurring::new((4, 6), 3.0, 0.001)?;
    check("blurring", &blurring, &[1e-3, 0.02, 0.1, 0.35, 0.6, 0.9, 0.98]);
    let colour = Op::block([[2.0, 0.7], [0.7, 1.0]]);
    check("heat", &Heat::new(colour, [0.01, 20.0])?, &[0.01, 0.1, 1.0, 19.0]);
    // Derivatives exist between the indices of a chain, not at them.
    check("ddpm", &Discrete::ddpm(), &[0.5, 10.5, 100.5, 499.5, 999.5]);
    Ok(())
}

/// A process whose diffusion lacks a factor must be caught.
struct Wrong;

impl ScalarSde for Wrong {
    fn span(&self) -> sde_core::Span {
        ScalarSde::span(&Vp::STANDARD)
    }
    fn alpha(&self, t: f64) -> f64 {
        Vp::STANDARD.alpha(t)
    }
    fn sigma(&self, t: f64) -> f64 {
        Vp::STANDARD.sigma(t)
    }
    fn alpha_rate(&self, t: f64) -> f64 {
        Vp::STANDARD.alpha_rate(t)
    }
    fn sigma_rate(&self, t: f64) -> f64 {
        2.0 * Vp::STANDARD.sigma_rate(t)
    }
    fn t_of_rho(&self, rho: f64) -> f64 {
        Vp::STANDARD.t_of_rho(rho)
    }
}

#[test]
fn the_check_catches_a_wrong_process() -> Result<()> {
    assert!(check_process(&Wrong, &[0.1, 0.5])?.largest() > 0.1);
    Ok(())
}

#[test]
fn what_is_not_a_number_does_not_pass() -> Result<()> {
    // Every operator of a turn without a rate is NaN.
    assert!(check_process(&Rotating { omega: f64::NAN }, &[0.1, 0.5])?.largest().is_nan());
    Ok(())
}

#[test]
fn times_return_from_rho() -> Result<()> {
    let ddpm = Discrete::ddpm();
    let processes: [(&dyn ScalarSde, f64); 8] = [
        (&Vp::STANDARD, 1.0),
        (&SubVp::STANDARD, 1.0),
        (&Ve::STANDARD, 1.0),
        (&Cosine, 0.9946),
        (&LinearPath, 0.999),
        (&Edm::STANDARD, 80.0),
        (&ddpm, 1000.0),
        (&Vp::new(0.0, 20.0)?, 1.0),
    ];
    for (sde, end) in processes {
        for i in 1..=200 {
            let t = end * f64::from(i) / 200.0;
            let back = sde.t_of_rho(sde.rho(t));
            assert!((back / t - 1.0).abs() < 1e-11, "{back} for {t}");
        }
    }
    Ok(())
}

#[test]
fn schedules_agree_with_34_digit_values() {
    let golden = golden("schedules");
    let flat = |key: &str| golden[key].flatten_all().and_then(|t| t.to_vec1::<f64>()).expect("f64 array");
    let processes: [(&str, &dyn ScalarSde); 4] =
        [("vp", &Vp::STANDARD), ("subvp", &SubVp::STANDARD), ("ve", &Ve::STANDARD), ("cosine", &Cosine)];
    for (name, sde) in processes {
        let expected: Vec<Vec<f64>> =
            ["a", "sigma", "g2", "rho"].iter().map(|k| flat(&format!("{name}_{k}"))).collect();
        for (i, t) in flat("t").into_iter().take(expected[0].len()).enumerate() {
            let g2 = sde.diffusion(t).as_scalar().expect("a scalar process");
            for (found, row) in [sde.alpha(t), sde.sigma(t), g2, sde.rho(t)].iter().zip(&expected) {
                assert!((found / row[i] - 1.0).abs() < 2e-13, "{name} at {t}: {found} for {}", row[i]);
            }
        }
    }
    let ddpm = Discrete::ddpm();
    for (n, squared) in flat("disc_linear_alphas_cumprod").into_iter().enumerate() {
        assert!((ddpm.alpha(n as f64 + 1.0).powi(2) - squared).abs() < 1e-15);
    }
}

#[test]
fn published_values() {
    // design values: ᾱ(1), EDM's σ(1), σ(1e-3), σ(1e-5) of VP 0.1/20; the default table of Ho et al.
    let vp = Vp::STANDARD;
    assert!((vp.alpha(1.0).powi(2) / 4.318575e-5 - 1.0).abs() < 1e-6);
    assert!((vp.rho(1.0) - 152.1669702839).abs() < 1e-9);
    assert!((vp.rho(1e-3) - 0.0104859928).abs() < 1e-10);
    assert!((Discrete::ddpm().alpha(1000.0) - 0.0063528).abs() < 1e-7);
    // The schedule b_t² = 0.02 t/T, spec values.
    let betas: Vec<f64> = (1..=1000).map(|t| 0.02 * f64::from(t) / 1000.0).collect();
    let chain = Discrete::new(&betas).expect("betas in (0, 1)");
    for (t, alpha, sigma) in [
        (1.0, 0.9999899999499995, 0.004472135955001816),
        (100.0, 0.9507217280906125, 0.31004547365894475),
        (1000.0, 0.006482030852144703, 0.9999789914173356),
    ] {
        assert!((chain.alpha(t) - alpha).abs() < 1e-13 && (chain.sigma(t) - sigma).abs() < 1e-13);
    }
}
