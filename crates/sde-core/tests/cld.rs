//! Langevin diffusion: the identities of a process, values computed elsewhere to 18 digits, and the published gauge of R.

use std::collections::HashMap;

use candle_core::Tensor;
use sde_core::process::{Cld, CldParameters};
use sde_core::{LinearSde, Op, Prediction, Result, TimeGrid, check_process};

const PUBLISHED: CldParameters = CldParameters::PUBLISHED;
/// β from 0.5 to 8 and a heavy position; Γ is set.
const LINEAR: CldParameters =
    CldParameters { beta_0: 0.5, beta_1: 8.0, mass: 0.7, friction: 0.4, gamma: 0.1, jitter: 0.0 };

fn entries(op: &Op) -> [f64; 4] {
    let m = op.matrix(2).expect("two groups");
    [m[(0, 0)], m[(0, 1)], m[(1, 0)], m[(1, 1)]]
}

fn worst(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).fold(0.0, |w, (a, b)| if (a - b).abs() <= w { w } else { (a - b).abs() })
}

#[test]
fn every_damping_passes_the_check() -> Result<()> {
    let times = [1e-4, 1e-3, 0.02, 0.1, 0.35, 0.6, 0.9, 0.99];
    for jitter in [0.0, 1e-6] {
        for gamma in [0.0, 0.04] {
            for (parameters, friction) in
                [(PUBLISHED, 1.0), (PUBLISHED, 0.3), (PUBLISHED, 4.0), (LINEAR, 0.4), (LINEAR, 5.0)]
            {
                let cld = Cld::new(CldParameters { friction, gamma, jitter, ..parameters })?;
                let defects = check_process(&cld, &times)?;
                assert!(
                    defects.composition < 1e-12 && defects.factor < 1e-12,
                    "{friction} {gamma} {jitter}: {defects:?}"
                );
                assert!(defects.largest() < 1e-7, "{friction} {gamma} {jitter}: {defects:?}");
            }
        }
    }
    Ok(())
}

#[test]
fn values_of_the_specifications() -> Result<()> {
    // Zhang's thesis, section 7.4, corrected: M = 1/4, β = 4, γ = 0.04, no ε₀.
    let cld = Cld::new(CldParameters { jitter: 0.0, ..PUBLISHED })?;
    let psi = |t: f64| entries(&cld.transition(t, 0.0));
    let sigma = |t: f64| entries(&cld.covariance(t));
    assert!(worst(&psi(0.1), &[0.8087921354, 0.7189263426, -0.1797315856, 0.0898657928]) < 1e-10);
    assert!(worst(&sigma(0.1), &[0.2218100610, 0.1298598404, 0.1298598404, 0.2157583505]) < 1e-10);
    assert!(worst(&psi(0.25), &[0.4060058497, 0.5413411329, -0.1353352832, -0.1353352832]) < 1e-10);
    assert!(worst(&sigma(0.25), &[0.7648271967, 0.0725299300, 0.0725299300, 0.2272886078]) < 1e-10);
    assert!(worst(&sigma(1.0), &[0.9999839705, 7.0762e-6, 7.0762e-6, 0.2499968760]) < 1e-10);
    // Du et al., corollary 3.4: M = 1, Γ = 2, B = 0.8, from a point.
    let cld = Cld::new(CldParameters {
        beta_0: 0.8,
        beta_1: 0.8,
        mass: 1.0,
        friction: 2.0,
        gamma: 0.0,
        jitter: 0.0,
    })?;
    let psi = [0.808792135411, 0.359463171294, -0.359463171294, 0.089865792823];
    assert!(worst(&entries(&cld.signal(1.0)), &psi) < 1e-12);
    let sigma = [0.216641510181, 0.258427543033, 0.258427543033, 0.862710367764];
    assert!(worst(&entries(&cld.covariance(1.0)), &sigma) < 1e-12);
    Ok(())
}

/// (parameters, t, Ψ(t, 0), (Σ_xx, Σ_xv, Σ_vv, det Σ)), by the exponential of the matrix in 50 digits.
fn references() -> [(CldParameters, f64, [f64; 4], [f64; 4]); 6] {
    let point = |parameters| CldParameters { gamma: 0.0, jitter: 0.0, ..parameters };
    let unit = CldParameters { beta_0: 3.0, beta_1: 3.0, mass: 1.0, friction: 2.0, ..PUBLISHED };
    let over = CldParameters { friction: 5.0, ..LINEAR };
    [
        (
            point(PUBLISHED),
            1e-5,
            [0.999999996800170662, 0.000159987200511986347, -0.0000399968001279965867, 0.999840009599658675],
            [
                6.82584751909313658e-13,
                6.39897608191563111e-9,
                0.0000799872011945915768,
                1.36511489864023268e-17,
            ],
        ),
        (
            LINEAR,
            1e-4,
            [0.999999998211623184, 0.0000714811208849212204, -0.0000500367846194448543, 0.999971405763269215],
            [3.57736723932330597e-10, 5.00496605975804998e-6, 0.0700360257194938378, 4.77313880215211002e-15],
        ),
        (
            CldParameters { jitter: 1e-6, ..LINEAR },
            0.3,
            [0.849224078036061575, 0.574067501189283521, -0.401847250832498465, 0.619597077560348167],
            [0.0712008135881557746, 0.117173331514410834, 0.296661993111680401, 0.00739298565204948568],
        ),
        (
            point(over),
            1e-3,
            [0.99999981895716956, 0.000718349650626538058, -0.000502844755438576641, 0.996408070704036869],
            [
                8.67273715228700444e-10,
                1.80609177194344251e-6,
                0.00501941679225327189,
                1.09124076101701721e-12,
            ],
        ),
        (
            CldParameters { jitter: 1e-6, ..over },
            0.9,
            [0.502545020139078529, 0.103492830705871331, -0.0724449814941099318, -0.0149191333902781264],
            [0.740700983410942519, 0.0373795614411747876, 0.6946115043862703, 0.513102192773930063],
        ),
        (
            point(unit),
            1e-5,
            [0.999999999550009, 0.000029999100013499865, -0.000029999100013499865, 0.999940001349982],
            [3.5998380038879352e-14, 1.7998920032399352e-9, 0.00011999280025199406, 1.07993520207355334e-18],
        ),
    ]
}

#[test]
fn small_times_keep_all_digits() -> Result<()> {
    for (parameters, t, psi, [xx, xv, vv, determinant]) in references() {
        let cld = Cld::new(parameters)?;
        let relative = |found: f64, expected: f64| (found / expected - 1.0).abs();
        let (found, sigma) = (entries(&cld.transition(t, 0.0)), entries(&cld.covariance(t)));
        let psi = psi.iter().zip(found).map(|(e, f)| relative(f, *e)).fold(0.0, f64::max);
        let sigma = [(sigma[0], xx), (sigma[1], xv), (sigma[3], vv)].map(|(f, e)| relative(f, e));
        assert!(psi < 2e-14 && sigma.iter().all(|d| *d < 1e-14), "{parameters:?} {psi:e} {sigma:?}");
        // det Σ = (det R)², with no digit lost to the difference of its two products.
        let [a, b, c, d] = entries(&cld.factor(t));
        assert!(relative((a * d - b * c).powi(2), determinant) < 4e-14, "{parameters:?}");
    }
    Ok(())
}

#[test]
fn the_factor_has_the_published_gauge() -> Result<()> {
    let cld = Cld::published()?;
    for name in ["gddim_cld_t2_N5", "gddim_cld_t2_N10", "gddim_cld_t1_N10"] {
        let path = format!("{}/tests/golden/{name}.npz", env!("CARGO_MANIFEST_DIR"));
        let arrays: HashMap<String, Tensor> =
            Tensor::read_npz(path).expect("golden file").into_iter().collect();
        let flat = |key: &str| arrays[key].flatten_all().and_then(|a| a.to_vec1::<f64>()).expect("f64 array");
        let (times, factors, sigmas, steps) = (flat("t"), flat("R"), flat("Sigma"), flat("Psi"));
        let mut gaps = [0.0f64; 3];
        for (i, &t) in times.iter().enumerate() {
            gaps[0] = gaps[0].max(worst(&entries(&cld.factor(t)), &factors[4 * i..4 * i + 4]));
            gaps[1] = gaps[1].max(worst(&entries(&cld.covariance(t)), &sigmas[4 * i..4 * i + 4]));
        }
        for (i, pair) in times.windows(2).enumerate() {
            let psi = entries(&cld.transition(pair[1], pair[0]));
            gaps[2] = gaps[2].max(worst(&psi, &steps[4 * i..4 * i + 4]));
        }
        // Ψ backwards over the whole span is as large as 1e3, R and Σ are no larger than 1.
        assert!(gaps[0] < 1e-14 && gaps[1] < 1e-15 && gaps[2] < 1e-12, "{name}: {gaps:?}");
    }
    Ok(())
}

#[test]
fn the_noise_of_a_point_is_constant_along_its_flow() -> Result<()> {
    // Zhang's thesis, section 7.7: x₀ = 0.6, from u_T = (0.9, −0.4).
    let cld = Cld::published()?;
    let (end, start) = (1.0, 1e-3);
    let noise = Prediction::Data.conversion(Prediction::Noise, &cld, end)?;
    let (state, data) = ([0.9, -0.4], [0.6, 0.0]);
    let sum = |a: Vec<f64>, b: Vec<f64>| a.iter().zip(b).map(|(a, b)| a + b).collect::<Vec<f64>>();
    let eps = sum(noise.state.apply_host(&state)?, noise.value.apply_host(&data)?);
    let arrive = sum(cld.signal(start).apply_host(&data)?, cld.factor(start).apply_host(&eps)?);
    assert!(worst(&arrive, &[0.599065, -0.137399]) < 1e-6, "{arrive:?}");
    assert!(worst(&eps, &[0.829651, -0.869419]) < 1e-6, "{eps:?}");
    Ok(())
}

#[test]
fn its_ends() -> Result<()> {
    let cld = Cld::published()?;
    let [a, b, c, d] = entries(&cld.factor(0.0));
    assert!((a - 1e-3).abs() < 1e-18 && b == 0.0 && c == 0.0 && (d - 0.010001f64.sqrt()).abs() < 1e-15);
    assert!(cld.auxiliary().is_some_and(|aux| aux.groups == 1 && (aux.variance - 0.010001).abs() < 1e-15));
    let grid = TimeGrid::log_rho(&cld, 1.0, 1e-5, 30)?;
    for &t in grid.times() {
        assert!((cld.time_of_clock(cld.clock(t)) / t - 1.0).abs() < 1e-11);
    }
    // Neither end of the ranges breaks the closed forms.
    for (mass, friction) in [(1e-3, 1.0), (100.0, 0.01), (1.0, 100.0)] {
        let cld = Cld::new(CldParameters { mass, friction, ..PUBLISHED })?;
        assert!(cld.factor(1.0).is_finite() && cld.factor(1e-5).is_finite(), "{mass} {friction}");
    }
    let refused = [
        CldParameters { mass: 0.0, ..PUBLISHED },
        CldParameters { friction: f64::NAN, ..PUBLISHED },
        CldParameters { beta_0: 5.0, ..PUBLISHED },
        CldParameters { gamma: -1.0, ..PUBLISHED },
    ];
    assert!(refused.into_iter().all(|parameters| Cld::new(parameters).is_err()));
    Ok(())
}
