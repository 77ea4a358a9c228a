//! Langevin diffusion: the identities of a process, values computed elsewhere in 50 digits, and the published gauge of R.

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
            [0.9999999968001707, 0.00015998720051198635, -3.999680012799659e-5, 0.9998400095996587],
            [6.825847519093136e-13, 6.398976081915631e-9, 7.998720119459158e-5, 1.3651148986402326e-17],
        ),
        (
            LINEAR,
            1e-4,
            [0.9999999982116232, 7.148112088492122e-5, -5.0036784619444855e-5, 0.9999714057632693],
            [3.577367239323306e-10, 5.00496605975805e-6, 0.07003602571949384, 4.77313880215211e-15],
        ),
        (
            CldParameters { jitter: 1e-6, ..LINEAR },
            0.3,
            [0.8492240780360616, 0.5740675011892835, -0.40184725083249845, 0.6195970775603482],
            [0.07120081358815578, 0.11717333151441084, 0.2966619931116804, 0.007392985652049486],
        ),
        (
            point(over),
            1e-3,
            [0.9999998189571696, 0.0007183496506265381, -0.0005028447554385766, 0.9964080707040369],
            [8.672737152287004e-10, 1.8060917719434425e-6, 0.005019416792253272, 1.0912407610170172e-12],
        ),
        (
            CldParameters { jitter: 1e-6, ..over },
            0.9,
            [0.5025450201390785, 0.10349283070587133, -0.07244498149410993, -0.014919133390278127],
            [0.7407009834109425, 0.03737956144117479, 0.6946115043862703, 0.5131021927739301],
        ),
        (
            point(unit),
            1e-5,
            [0.999999999550009, 2.9999100013499864e-5, -2.9999100013499864e-5, 0.999940001349982],
            [3.599838003887935e-14, 1.7998920032399352e-9, 0.00011999280025199406, 1.0799352020735533e-18],
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
