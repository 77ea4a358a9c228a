//! The flexible diffusions: identities, golden values (computed elsewhere, by matrix exponentials in f64), and what is refused.

use std::sync::Arc;

use nalgebra::{DMatrix, DVector};
use sde_core::noise::{Noise, Stream};
use sde_core::process::{
    Clocked, Commuting, Homogeneous, Langevin, LinearPair, Vp, prior_divergence, signal_left,
};
use sde_core::quadrature::GaussLegendre;
use sde_core::{Basis, LinearSde, Op, Prediction, Result, check_process};

const B: f64 = 0.8;

fn matrix(rows: &[&[f64]]) -> DMatrix<f64> {
    DMatrix::from_fn(rows.len(), rows[0].len(), |i, j| rows[i][j])
}

/// The antisymmetric 3×3 matrix with these entries above the diagonal.
fn antisymmetric([a, b, c]: [f64; 3]) -> DMatrix<f64> {
    matrix(&[&[0.0, a, b], &[-a, 0.0, c], &[-b, -c, 0.0]])
}

fn q1() -> DMatrix<f64> {
    matrix(&[&[2.0, 0.3, 0.1], &[0.3, 1.0, -0.2], &[0.1, -0.2, 0.5]])
}

fn omega1() -> DMatrix<f64> {
    antisymmetric([0.7, -0.4, 1.1])
}

fn g1() -> Result<LinearPair> {
    LinearPair::of(q1(), &omega1(), 1.0)
}

fn g2() -> Result<Commuting> {
    let p = antisymmetric([0.3, -0.2, 0.5]).exp();
    let basis = Arc::new(Basis::new(p)?);
    Commuting::fp_noise(basis, [0.5f64, -0.25, 0.1].map(f64::exp).to_vec(), 1.0)
}

fn drift1() -> Result<Commuting> {
    Commuting::fp_drift(&omega1(), 1.0)
}

#[track_caller]
fn close(found: &Op, expected: &[&[f64]], tolerance: f64) {
    let dim = expected.len();
    let found = found.matrix(dim).expect("an operator on the state");
    let gap = (&found - matrix(expected)).amax();
    assert!(gap < tolerance, "off by {gap:e}: {found}");
}

/// A random law of each kind in `dim` entries.
fn random(seed: u64, dim: usize, precision: f64) -> Result<(Commuting, LinearPair)> {
    let mut draws = Noise::new(seed).draws(Stream::User, 0, dim as u32);
    let mut normals = |rows, columns| DMatrix::from_fn(rows, columns, |_, _| draws.normal());
    let upper = normals(dim, dim) * 0.5;
    let basis = Arc::new(Basis::new((&upper - upper.transpose()).exp())?);
    let paired: Vec<f64> = normals(dim.div_ceil(2), 1).iter().map(|v| (0.4 * v).exp()).collect();
    let eigenvalues = (0..dim).map(|i| paired[i / 2]).collect();
    let commuting = Commuting::new(basis, eigenvalues, normals(dim / 2, 1).as_slice().to_vec(), precision)?;
    let root = normals(dim, dim) * 0.7 + DMatrix::identity(dim, dim);
    let turn = normals(dim, dim);
    let pair = LinearPair::of(&root * root.transpose(), &(&turn - turn.transpose()), precision)?;
    Ok((commuting, pair))
}

#[track_caller]
fn passes<L: Homogeneous + Clone>(law: &L, rounding: f64) -> Result<()> {
    for vp in [Vp::STANDARD, Vp::new(0.0, 12.0)?, Vp::new(4.0, 4.0)?] {
        let sde = Clocked::new(law.clone(), vp)?;
        // Where the fastest direction has arrived, its rate is rounding, and relative to that nothing is small.
        let fastest = law.precision() * law.diffusion().max_abs();
        let mut times = vec![1e-4, 1e-3, 0.02, 0.1, 0.35, 0.6, 0.9];
        times.retain(|&t| fastest * vp.integral(t) < 12.0);
        let defects = check_process(&sde, &times)?;
        assert!(defects.composition < rounding && defects.factor < rounding, "{defects:?}");
        assert!(defects.largest() < 1e-7, "{defects:?}");
    }
    Ok(())
}

#[test]
fn every_family_passes_the_check() -> Result<()> {
    passes(&g2()?, 1e-12)?;
    passes(&drift1()?, 1e-12)?;
    passes(&g1()?, 1e-12)?;
    for (seed, dim, m) in [(0, 1, 1.0), (1, 2, 0.5), (2, 3, 3.0), (3, 4, 1.0), (4, 5, 1.7), (5, 8, 1.0)] {
        let (commuting, pair) = random(seed, dim, m)?;
        passes(&commuting, 1e-12)?;
        passes(&pair, 1e-12)?;
    }
    Ok(())
}

#[test]
fn langevin_blocks_in_every_regime_pass_the_check() -> Result<()> {
    let oscillators = [(1.0, 2.0), (-0.7, 3.0), (2.0, 0.5), (1.0, 2.0)];
    passes(&Langevin::new(Arc::new(Basis::axes(8)), &oscillators, 1.0)?, 1e-12)?;
    passes(&Langevin::new(Arc::new(Basis::dct(2, 4)), &oscillators, 2.5)?, 1e-12)
}

/// `exp(F b)` of one block, by the closed form of its regime.
fn oscillation((frequency, friction): (f64, f64), b: f64) -> [[f64; 2]; 2] {
    let delta = 0.25 * friction * friction - frequency * frequency;
    let root = delta.abs().sqrt();
    let (c, s) = match delta.total_cmp(&0.0) {
        std::cmp::Ordering::Greater => ((root * b).cosh(), (root * b).sinh() / root),
        std::cmp::Ordering::Less => ((root * b).cos(), (root * b).sin() / root),
        std::cmp::Ordering::Equal => (1.0, b),
    };
    let decay = (-0.5 * friction * b).exp();
    let half = 0.5 * friction;
    [[decay * (c + half * s), decay * frequency * s], [-decay * frequency * s, decay * (c - half * s)]]
}

#[test]
fn langevin_blocks_have_their_closed_form() -> Result<()> {
    let basis = Arc::new(Basis::axes(2));
    for oscillator in [(1.0, 2.0), (0.7, 3.0), (2.0, 0.5), (-1.0, 2.0)] {
        let law = Langevin::new(basis.clone(), &[oscillator], 1.0)?;
        for b in [1e-3, 0.3, 0.8, 5.0, 10.05] {
            let psi = oscillation(oscillator, b);
            close(&law.transition(b), &[&psi[0], &psi[1]], 1e-14);
        }
    }
    // Critically damped: e^{−b} [[1 + b, b], [−b, 1 − b]].
    let law = Langevin::new(basis, &[(1.0, 2.0)], 1.0)?;
    close(
        &law.transition(B),
        &[&[0.808792135411, 0.359463171294], &[-0.359463171294, 0.089865792823]],
        1e-12,
    );
    close(&law.covariance(B), &[&[0.216641510181, 0.258427543033], &[0.258427543033, 0.862710367764]], 1e-12);
    Ok(())
}

#[test]
fn a_pair_that_does_not_commute_has_the_covariance_of_its_transition() -> Result<()> {
    let law = g1()?;
    let psi = matrix(&[
        &[0.348192835306, -0.221490993599, 0.293886479611],
        &[0.275058474188, 0.333293016487, -0.452525126034],
        &[-0.057912169271, 0.655009807821, 0.511791395816],
    ]);
    let sigma = matrix(&[
        &[0.743334226298, 0.111039027604, 0.014834803957],
        &[0.111039027604, 0.608479611247, 0.029217504134],
        &[0.014834803957, 0.029217504134, 0.305677899478],
    ]);
    assert!((law.transition(B).matrix(3)? - &psi).amax() < 1e-12);
    assert!((law.covariance(B).matrix(3)? - &sigma).amax() < 1e-12);
    // What is printed, I − exp(−b Q), is another matrix: off by 0.123, a fifth of the whole, 0.0594 nats.
    let printed = DMatrix::identity(3, 3) - (q1() * -B).exp();
    let gap = &printed - &sigma;
    assert!((gap.amax() - 0.123).abs() < 1e-3 && (gap.norm() / sigma.norm() - 0.2).abs() < 0.01);
    let ratio = printed.try_inverse().expect("definite") * &sigma;
    let nats = 0.5 * (ratio.trace() - 3.0 - ratio.determinant().ln());
    assert!((nats - 0.0594266775).abs() < 1e-9, "{nats}");
    // The score of p(x_b | x₀).
    let residual =
        DVector::from_row_slice(&[0.3, 0.1, -0.7]) - &psi * DVector::from_row_slice(&[1.0, -2.0, 0.5]);
    let score = -law.covariance(B).inverse()?.matrix(3)? * residual;
    let expected = DVector::from_row_slice(&[1.080415842958, -1.315602065421, -1.274626775788]);
    assert!((score - expected).amax() < 1e-10);
    Ok(())
}

#[test]
fn fp_noise_and_fp_drift_have_their_golden_values() -> Result<()> {
    let noise = g2()?;
    close(
        &noise.transition(B),
        &[
            &[0.542182219975, 0.052101258352, -0.043625780457],
            &[0.052101258352, 0.698429616527, -0.025319215431],
            &[-0.043625780457, -0.025319215431, 0.651542359047],
        ],
        1e-12,
    );
    close(
        &noise.covariance(B),
        &[
            &[0.701420690501, -0.065742008341, 0.053396329395],
            &[-0.065742008341, 0.508840466966, 0.036453189334],
            &[0.053396329395, 0.036453189334, 0.572948282977],
        ],
        1e-12,
    );
    let drift = drift1()?;
    let psi = drift.transition(B);
    close(
        &psi,
        &[
            &[0.544187286884, -0.219830995784, 0.323826333401],
            &[0.390595346635, 0.340434368254, -0.425286585981],
            &[-0.024988719411, 0.53395480925, 0.404470999824],
        ],
        1e-12,
    );
    let square = psi.mul(&psi.transpose())?.matrix(3)?;
    assert!((square - DMatrix::identity(3, 3) * 0.449328964117).amax() < 1e-12);
    assert!((drift.covariance(B).as_scalar().expect("a number") - (1.0 - 0.449328964117)).abs() < 1e-12);
    Ok(())
}

#[test]
fn two_ways_to_one_law_agree() -> Result<()> {
    // A pair of matrices that commute, by closed forms and by the general way: R up to a rotation that is constant in b.
    for (seed, dim, m) in [(7, 3, 1.0), (8, 4, 0.6), (9, 5, 2.0)] {
        let (commuting, _) = random(seed, dim, m)?;
        let (drift, q) = (commuting.drift().matrix(dim)?, commuting.diffusion().matrix(dim)?);
        let pair = LinearPair::on_state(drift.clone(), q.clone(), m)?;
        let again = Commuting::of(&q, &pair.omega(), m)?;
        let (a, b) = (Clocked::new(commuting, Vp::STANDARD)?, Clocked::new(pair, Vp::STANDARD)?);
        let again = Clocked::new(again, Vp::STANDARD)?;
        let mut gauges = Vec::new();
        for t in [0.01, 0.3, 1.0] {
            for (one, two) in [
                (a.signal(t), b.signal(t)),
                (a.covariance(t), b.covariance(t)),
                (a.signal(t), again.signal(t)),
                (a.covariance(t), again.covariance(t)),
                (a.diffusion(t), again.diffusion(t)),
            ] {
                assert!((one.matrix(dim)? - two.matrix(dim)?).amax() < 1e-11, "{t}");
            }
            gauges.push((a.factor(t).inverse()?.mul(&b.factor(t))?).matrix(dim)?);
        }
        assert!((&gauges[0] - &gauges[2]).amax() < 1e-10 && (&gauges[1] - &gauges[2]).amax() < 1e-10);
    }
    Ok(())
}

#[test]
fn without_rotation_and_with_one_rate_it_is_vp() -> Result<()> {
    let law = Commuting::new(Arc::new(Basis::dct(4, 4)), vec![1.0; 16], vec![0.0; 8], 1.0)?;
    let (fp, vp) = (Clocked::new(law, Vp::STANDARD)?, Vp::STANDARD);
    for t in [1e-5, 1e-3, 0.1, 0.5, 1.0] {
        assert_eq!(fp.signal(t), LinearSde::signal(&vp, t));
        assert_eq!(fp.factor(t), LinearSde::factor(&vp, t));
        assert_eq!(fp.covariance(t), LinearSde::covariance(&vp, t));
        assert_eq!(fp.clock(t), LinearSde::clock(&vp, t));
        for (a, b) in [
            (fp.drift(t), LinearSde::drift(&vp, t)),
            (fp.factor_rate(t), LinearSde::factor_rate(&vp, t)),
            (fp.diffusion(t), LinearSde::diffusion(&vp, t)),
        ] {
            let gap = a.sub(&b)?.max_abs() / b.max_abs();
            // The trait's G Gᵀ of a scalar process is a difference.
            assert!(gap < 1e-12, "{gap:e} at {t}");
        }
    }
    Ok(())
}

#[test]
fn a_chain_of_any_length_takes_its_noise_from_the_last() -> Result<()> {
    // Positions, velocities, accelerations: noise in the last of three or four groups reaches the first like b⁵, b⁷.
    for k in [3, 4] {
        let mut drift = DMatrix::zeros(k, k);
        let mut q = DMatrix::zeros(k, k);
        (0..k - 1).for_each(|i| {
            (drift[(i, i + 1)], drift[(i + 1, i)]) = (1.0 + 0.5 * i as f64, -1.0 - 0.5 * i as f64)
        });
        (drift[(k - 1, k - 1)], q[(k - 1, k - 1)]) = (-2.0, 4.0);
        let law = LinearPair::on_groups(drift, q, 1.0)?;
        assert_eq!(law.groups(), k);
        let sde = Clocked::new(law, Vp::STANDARD)?;
        let defects = check_process(&sde, &[0.01, 0.1, 0.35, 0.6, 0.9])?;
        assert!(defects.largest() < 1e-6, "{k}: {defects:?}");
    }
    Ok(())
}

#[test]
fn a_scaled_prior_has_its_covariance() -> Result<()> {
    for m in [0.25, 4.0] {
        let sde = Clocked::new(LinearPair::of(q1(), &omega1(), m)?, Vp::STANDARD)?;
        assert_eq!(sde.prior(), Op::Scalar(1.0 / m));
        let (psi, end) = (sde.signal(0.3).matrix(3)?, sde.covariance(0.3).matrix(3)?);
        assert!((end - (DMatrix::identity(3, 3) - &psi * psi.transpose()) / m).amax() < 1e-14);
    }
    // The law of √m u is that of m = 1 with m Q, at the same b.
    let (one, four) =
        (LinearPair::of(q1() * 4.0, &(omega1() * 4.0), 1.0)?, LinearPair::of(q1(), &omega1(), 4.0)?);
    assert!(one.transition(B).sub(&four.transition(B))?.max_abs() < 1e-14);
    assert!(one.covariance(B).sub(&four.covariance(B).scale(4.0))?.max_abs() < 1e-14);
    Ok(())
}

#[test]
fn the_gap_to_the_prior_tells_slow_laws() -> Result<()> {
    let vp = Vp::STANDARD;
    let data = [0.3, -1.1, 0.6];
    let square: f64 = data.iter().map(|x| x * x).sum();
    let left = (-vp.integral(1.0)).exp();
    let expected = 0.5 * (left * (square - 3.0) - 3.0 * (-left).ln_1p());
    assert!((prior_divergence(&vp, &data)? - expected).abs() < 1e-14, "{expected:e}");
    assert!((signal_left(&vp)? - 6.5716e-3).abs() < 1e-6);
    // Unit data, for each entry: 2.2e-5 nats of VP, 0.014 of rates exp(N(0, 1)) in 784 coordinates.
    let unit = |n: usize| vec![1.0; n];
    assert!((prior_divergence(&vp, &unit(784))? / 784.0 - 2.2e-5).abs() < 1e-6);
    let mut draws = Noise::new(3).draws(Stream::User, 0, 0);
    let rates: Vec<f64> = (0..784).map(|_| draws.normal().exp()).collect();
    let slow = Clocked::new(Commuting::fp_noise(Arc::new(Basis::axes(784)), rates, 1.0)?, vp)?;
    let each = prior_divergence(&slow, &unit(784))? / 784.0;
    assert!((0.005..0.03).contains(&each) && signal_left(&slow)? > 0.5, "{each}");
    // A scaled prior: the same law in other units.
    let (one, four) = (
        Clocked::new(LinearPair::of(q1() * 4.0, &(omega1() * 4.0), 1.0)?, vp)?,
        Clocked::new(LinearPair::of(q1(), &omega1(), 4.0)?, vp)?,
    );
    let half: Vec<f64> = data.iter().map(|x| 0.5 * x).collect();
    assert!((prior_divergence(&one, &data)? - prior_divergence(&four, &half)?).abs() < 1e-13);
    Ok(())
}

#[test]
fn what_is_no_such_law_is_refused_and_the_message_says_why() -> Result<()> {
    let says = |found: String, words: &[&str]| {
        assert!(words.iter().all(|word| found.contains(word)), "{found}");
    };
    let pair = |f: DMatrix<f64>, q: DMatrix<f64>, m: f64| match LinearPair::on_state(f, q, m) {
        Ok(_) => "accepted".to_owned(),
        Err(error) => error.to_string(),
    };
    let drift = (q1() * 0.5 + omega1()) * -2.0;
    says(
        pair(drift.clone(), q1(), 1.0),
        &["F + Fᵀ + m G Gᵀ = 0 with m = 1", "the m of the traces is 2.000000"],
    );
    says(pair(drift.clone(), q1() - DMatrix::identity(3, 3), 1.0), &["positive semi-definite"]);
    says(pair(drift.clone(), DMatrix::identity(2, 2), 1.0), &["one size"]);
    says(pair(drift.clone(), q1() * f64::NAN, 1.0), &["finite"]);
    says(pair(drift * -1.0, q1(), 2.0), &["stationary"]);
    says(pair(DMatrix::zeros(0, 0), DMatrix::zeros(0, 0), 1.0), &["one size"]);
    // W = diag(1, 0) couples one of two velocities: the other position is never reached. W = diag(±1, ±2) reaches both.
    let coupled = |w: [f64; 2]| {
        let mut f = DMatrix::zeros(4, 4);
        let mut q = DMatrix::zeros(4, 4);
        for (i, w) in w.into_iter().enumerate() {
            (f[(i, i + 2)], f[(i + 2, i)], f[(i + 2, i + 2)], q[(i + 2, i + 2)]) = (-w, w, -1.0, 2.0);
        }
        pair(f, q, 1.0)
    };
    says(coupled([1.0, 0.0]), &["controllable", "3 of 4", "never forgotten", "1.000"]);
    assert_eq!([coupled([-1.0, -2.0]), coupled([1.0, -2.0])], ["accepted", "accepted"]);
    // The commuting family.
    let axes = |n: usize| Arc::new(Basis::axes(n));
    let law = |n, a: &[f64], l: &[f64], m| match Commuting::new(axes(n), a.to_vec(), l.to_vec(), m) {
        Ok(_) => "accepted".to_owned(),
        Err(error) => error.to_string(),
    };
    says(law(3, &[1.0, 2.0], &[], 1.0), &["3, one for each coordinate"]);
    says(law(2, &[1.0, -2.0], &[], 1.0), &["eigenvalue"]);
    says(law(2, &[1.0, f64::NAN], &[], 1.0), &["eigenvalue"]);
    says(law(2, &[1.0, 2.0], &[0.5], 1.0), &["two equal eigenvalues", "LinearPair"]);
    says(law(3, &[1.0; 3], &[0.5, 0.5], 1.0), &["1 finite numbers"]);
    says(law(2, &[1.0; 2], &[f64::NAN], 1.0), &["finite"]);
    says(law(2, &[1.0; 2], &[], 0.0), &["precision m"]);
    assert_eq!(law(2, &[1.0, 2.0], &[0.0], 1.0), "accepted");
    let commuting = |q: DMatrix<f64>, omega: DMatrix<f64>| match Commuting::of(&q, &omega, 1.0) {
        Ok(_) => "accepted".to_owned(),
        Err(error) => error.to_string(),
    };
    says(commuting(q1(), omega1()), &["Qω − ωQ", "LinearPair"]);
    says(commuting(q1(), q1()), &["ω + ωᵀ"]);
    says(commuting(omega1(), omega1()), &["Q − Qᵀ"]);
    assert!(Langevin::new(axes(4), &[(1.0, 2.0)], 1.0).is_err());
    assert!(Langevin::new(axes(2), &[(0.0, 2.0)], 1.0).is_err());
    assert!(Langevin::new(axes(2), &[(1.0, -2.0)], 1.0).is_err());
    Ok(())
}

#[test]
fn normalised_laws_have_one_total_speed() -> Result<()> {
    let law = Commuting::fp_noise(Arc::new(Basis::axes(3)), vec![1.0, 2.0, 4.0], 1.0)?.normalised();
    assert!((law.eigenvalues().iter().map(|a| a * a).sum::<f64>() - 3.0).abs() < 1e-14);
    assert!((law.eigenvalues()[2] / law.eigenvalues()[0] - 4.0).abs() < 1e-14);
    Ok(())
}

/// The Gaussian data of the golden values below.
fn gaussian() -> (DVector<f64>, DMatrix<f64>) {
    let covariance = matrix(&[&[0.5, 0.2, 0.0], &[0.2, 0.8, -0.1], &[0.0, -0.1, 0.3]]);
    (DVector::from_row_slice(&[0.5, -1.0, 0.2]), covariance)
}

/// Mean and covariance of the Gaussian data after b.
fn noised(law: &dyn Homogeneous, b: f64) -> Result<(DVector<f64>, DMatrix<f64>)> {
    let (mean, covariance) = gaussian();
    let psi = law.transition(b).matrix(3)?;
    Ok((&psi * mean, &psi * covariance * psi.transpose() + law.covariance(b).matrix(3)?))
}

/// G1, FP-Drift of its ω, FP-Noise of its Q, VP.
fn laws() -> Result<[Box<dyn Homogeneous>; 4]> {
    let vp = Commuting::fp_noise(Arc::new(Basis::axes(3)), vec![1.0; 3], 1.0)?;
    let noise = Commuting::of(&q1(), &DMatrix::zeros(3, 3), 1.0)?;
    Ok([Box::new(g1()?), Box::new(drift1()?), Box::new(noise), Box::new(vp)])
}

fn inverse(m: &DMatrix<f64>) -> DMatrix<f64> {
    m.clone().try_inverse().expect("definite")
}

#[test]
fn gaps_and_energies_of_gaussian_data() -> Result<()> {
    // E‖∇log q_b‖² − E‖∇log q_{b|0}‖² at b = 0.8; E‖v‖² and ‖∇v‖² of the probability flow, per unit of b.
    let expected = [
        (-2.322285085429, 4.355865182862, 4.187799097797),
        (-1.564399263609, 4.185219940472, 3.811331453844),
        (-1.564399263609, 0.208518303272, 0.091331453843),
    ];
    let [turned, drift, _, vp] = laws()?;
    for (law, (gap, energy, slope)) in [turned, drift, vp].iter().zip(expected) {
        let (mean, v) = noised(law.as_ref(), B)?;
        let found = inverse(&v).trace() - inverse(&law.covariance(B).matrix(3)?).trace();
        let (f, q) = (law.drift().matrix(3)?, law.diffusion().matrix(3)?);
        // v = F u + ½ Q V⁻¹ (u − mean)
        let c = &f + q * inverse(&v) * 0.5;
        let kinetic = (&c * &v * c.transpose()).trace() + (&f * &mean).norm_squared();
        for (found, expected) in [(found, gap), (kinetic, energy), (c.norm_squared(), slope)] {
            assert!((found - expected).abs() < 1e-10, "{found} for {expected}");
        }
    }
    // Turning costs exactly the energy of the rotation: E‖v‖² = E‖v of VP‖² + E‖ωu‖².
    let (mean, v) = noised(&drift1()?, B)?;
    let turning = (omega1() * v * omega1().transpose()).trace() + (omega1() * mean).norm_squared();
    assert!((turning + 0.208518303272 - 4.185219940472).abs() < 1e-10);
    Ok(())
}

#[test]
fn the_bound_is_an_equality_for_the_exact_score_whatever_the_law() -> Result<()> {
    // E log π(X_T) − ∫ E[½ sᵀQs + ∇·(Q s) − ∇·f], b from 0 to 3, at x₀ = (1, −2, ½): π = q_T, N(0, I), and s 10 % too large with q_T.
    let expected = [
        [-2.901370415403, -3.036033693620, -2.920531614325],
        [-2.901370415403, -2.999252342917, -2.912762923043],
        [-2.901370415403, -3.033688447013, -2.925473351817],
        [-2.901370415403, -2.999252342917, -2.912762923043],
    ];
    let x0 = DVector::from_row_slice(&[1.0, -2.0, 0.5]);
    let (mean, covariance) = gaussian();
    let log_normal = |spread: &DMatrix<f64>, at: &DVector<f64>, law: &DMatrix<f64>| {
        // E log N(·; 0, law) over N(at, spread)
        let precision = inverse(law);
        let square = (&precision * spread).trace() + at.dot(&(&precision * at));
        -0.5 * (square + law.determinant().ln() + 3.0 * std::f64::consts::TAU.ln())
    };
    let exact = log_normal(&DMatrix::zeros(3, 3), &(&x0 - &mean), &covariance);
    assert!((exact + 2.901370415403).abs() < 1e-11);
    for (law, expected) in laws()?.iter().zip(expected) {
        let (q, f) = (law.diffusion().matrix(3)?, law.drift().matrix(3)?);
        let rate = |b: f64, size: f64| -> Result<f64> {
            let precision = inverse(&noised(law.as_ref(), b)?.1);
            let (psi, spread) = (law.transition(b).matrix(3)?, law.covariance(b).matrix(3)?);
            let (middle, offset) = (&precision * &q * &precision, psi * (&x0 - &mean));
            let square = (&middle * spread).trace() + offset.dot(&(&middle * &offset));
            Ok(0.5 * size * size * square - size * (&q * precision).trace() - f.trace())
        };
        let integral = |size: f64| -> Result<f64> {
            let rule = GaussLegendre::new(40);
            rule.on(0.0, 3.0).map(|(b, w)| Ok(w * rate(b, size)?)).sum()
        };
        let (end_mean, end_law) = noised(law.as_ref(), 3.0)?;
        let (psi, spread) = (law.transition(3.0).matrix(3)?, law.covariance(3.0).matrix(3)?);
        let start = &psi * &x0;
        let exact_prior = log_normal(&spread, &(&start - end_mean), &end_law);
        let standard = log_normal(&spread, &start, &DMatrix::identity(3, 3));
        let found = [exact_prior - integral(1.0)?, standard - integral(1.0)?, exact_prior - integral(1.1)?];
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-10, "{found} for {expected}");
        }
    }
    Ok(())
}

#[test]
fn the_prediction_v_exists_where_one_direction_is_long_gone() -> Result<()> {
    // Overdamped: of two coordinates that no basis parts, one decays by 1e-11 and the other by 2e-2.
    let law = Langevin::new(Arc::new(Basis::axes(2)), &[(1.0, 3.0)], 2.0)?;
    let sde = Clocked::new(law, Vp::STANDARD)?;
    for t in [1e-3, 0.3, 0.8, 1.0] {
        let (s, r) = (sde.signal(t).matrix(2)?, sde.factor(t).matrix(2)?);
        let (x0, eps) = (DVector::from_row_slice(&[0.7, -0.2]), DVector::from_row_slice(&[-1.3, 0.4]));
        let u = &s * &x0 + &r * &eps;
        let (of_data, of_noise) = Prediction::V.of_data_and_noise(&sde, t)?;
        let v = of_data.matrix(2)? * &x0 + of_noise.matrix(2)? * &eps;
        for (to, expected) in [(Prediction::Noise, &eps), (Prediction::Data, &x0)] {
            let map = Prediction::V.conversion(to, &sde, t)?;
            let found = map.state.matrix(2)? * &u + map.value.matrix(2)? * &v;
            assert!((found - expected).amax() < 1e-6, "{to:?} at {t}");
        }
    }
    Ok(())
}
