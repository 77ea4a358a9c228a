//! Variational bounds against closed forms: equalities for exact scores, quadratures for wrong ones, a density and a probability that sum to one.

use candle_core::{DType, Device, Tensor};
use nalgebra::DMatrix;
use sde_core::noise::{BatchNoise, Law, Noise, Stream};
use sde_core::oracle::Mixture;
use sde_core::process::{Cosine, Discrete, Edm, LinearPath, SubVp, Ve, Vp};
use sde_core::quadrature::GaussLegendre;
use sde_core::{Field, FieldFn, LinearSde, OracleField, Prediction, TimeGrid};
use sde_data::{Encoding, Range};
use sde_eval::{
    DiscreteBound, Elbo, Error, Estimate, LogDensity, PointDensity, Prior, Result, ReverseVariance, ScoreGap,
};

fn addresses(n: usize) -> BatchNoise {
    BatchNoise::new(Noise::new(5), 0, 0..n as u32)
}

fn tensor(points: &[Vec<f64>]) -> Result<Tensor> {
    Ok(Tensor::new(points.to_vec(), &Device::Cpu)?)
}

/// Gaps from the truth in standard errors, which must look like normal numbers (or smaller: the errors are rather too large).
fn assert_agree(what: &str, found: &[LogDensity], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (one, exact) in found.iter().zip(expected) {
        let (value, error) = (one.value.unwrap_or(f64::NAN), one.standard_error.unwrap_or(f64::NAN));
        assert!((value - exact).abs() < 4.5 * error + 1e-9, "{what}: {value} ± {error}, not {exact}");
        assert!(error < 0.3, "{what}: an error of {error} tells nothing");
    }
}

/// One value, the mean over the same point many times.
fn averaged(density: &dyn PointDensity, point: &[f64], copies: usize) -> Result<Estimate> {
    let x = tensor(&vec![point.to_vec(); copies])?;
    let found = density.log_density(&x, &addresses(copies))?;
    Estimate::mean(&found.iter().filter_map(|one| one.value).collect::<Vec<_>>())
}

fn assert_mean(what: &str, found: Estimate, expected: f64, largest: f64) {
    let error = found.standard_error.unwrap_or(f64::NAN);
    assert!(
        (found.value - expected).abs() < 4.0 * error,
        "{what}: {} ± {error}, not {expected}",
        found.value
    );
    assert!(error < largest, "{what}: an error of {error} tells nothing");
}

fn two_modes() -> Result<Mixture> {
    let covariances =
        [[0.25, 0.1, 0.1, 0.3], [0.4, -0.1, -0.1, 0.2]].map(|c| DMatrix::from_row_slice(2, 2, &c));
    Ok(Mixture::new(&[0.6, 0.4], &[vec![0.7, -0.2], vec![-0.5, 0.4]], &covariances)?)
}

#[test]
fn with_exact_scores_and_prior_the_bound_is_the_density_at_every_point() -> Result<()> {
    let points = [vec![0.3, -0.8], vec![-1.1, 0.6], vec![0.9, 0.2], vec![0.0, 2.1]];
    let (gaussian, mixture) = (Mixture::diagonal(vec![0.4, -0.1], vec![0.3, 0.05])?, two_modes()?);
    let processes: [(&str, &dyn LinearSde, f64); 5] = [
        ("vp", &Vp::STANDARD, 1.0),
        ("subvp", &SubVp::STANDARD, 1.0),
        ("ve", &Ve::STANDARD, 1.0),
        ("edm", &Edm::STANDARD, 80.0),
        ("cosine", &Cosine, 0.9),
    ];
    for (name, sde, end) in processes {
        for data in [&gaussian, &mixture] {
            let field = OracleField::noise(data, sde);
            let bound = Elbo { prior: Prior::Exact(data), end, ..Elbo::new(sde, &field, 1000) };
            let found = bound.log_density(&tensor(&points)?, &addresses(4))?;
            assert_agree(name, &found, &field.log_density(&tensor(&points)?, &[bound.start])?);
            assert!(found.iter().all(|one| one.nfe == 2000));
        }
    }
    Ok(())
}

/// A control leaves little of the noise of z for data like N(0, v I) at a typical point, v being told by the point, and none of it where v is
/// taken for 0.
#[test]
fn the_control_takes_the_noise_of_z_away() -> Result<()> {
    let error = |v: f64, x: f64| -> Result<f64> {
        let data = Mixture::diagonal(vec![0.0; 8], vec![v; 8])?;
        let field = OracleField::noise(&data, &Vp::STANDARD);
        let bound = Elbo::new(&Vp::STANDARD, &field, 400);
        Ok(bound.log_density(&tensor(&[vec![x; 8]])?, &addresses(1))?[0].standard_error.unwrap_or(f64::NAN))
    };
    let (typical, without) = (error(0.25, 0.5)?, error(0.25, 1e-9)?);
    assert!(typical < 0.3 * without, "{typical} {without}");
    Ok(())
}

/// N(0, v I) under the process, and a score that is `scale` times the exact one.
struct Linear<'a> {
    sde: &'a dyn LinearSde,
    v: f64,
    scale: f64,
}

impl Linear<'_> {
    /// α, σ², g² and the factor a of the score −a x.
    fn at(&self, t: f64) -> [f64; 4] {
        let of = |op: sde_core::Op| op.as_scalar().unwrap_or(f64::NAN);
        let (alpha, square) = (of(self.sde.signal(t)), of(self.sde.covariance(t)));
        [alpha, square, of(self.sde.diffusion(t)), self.scale / (alpha * alpha * self.v + square)]
    }

    fn field(&self) -> impl Field + '_ {
        FieldFn::new(Prediction::Score, |x: &Tensor, t: &[f64]| {
            let factors: Vec<f64> = t.iter().map(|&t| -self.at(t)[3]).collect();
            Ok(x.broadcast_mul(&Tensor::new(factors, x.device())?.unsqueeze(1)?)?)
        })
    }

    /// The bound at x by quadrature in the clock.
    fn bound(&self, x: &[f64], start: f64, end: f64) -> f64 {
        let (dim, square) = (x.len() as f64, x.iter().map(|x| x * x).sum::<f64>());
        let [alpha_0, square_0, ..] = self.at(start);
        let conditional = |t: f64| {
            let [alpha, noise, ..] = self.at(t);
            let psi = alpha / alpha_0;
            (psi, psi * psi * square + dim * (noise - psi * psi * square_0))
        };
        let integrand = |clock: f64| {
            let t = self.sde.time_of_clock(clock);
            let [_, _, g, a] = self.at(t);
            (0.5 * g * a * a * conditional(t).1 - g * a * dim) / self.sde.clock_rate(t)
        };
        let (first, last) = (self.sde.clock(start), self.sde.clock(end));
        let panel = |i: usize| first + (last - first) * i as f64 / 50.0;
        let rule = GaussLegendre::new(20);
        let integral: f64 = (0..50).map(|i| rule.integrate(panel(i), panel(i + 1), integrand)).sum();
        let (psi, second) = conditional(end);
        let prior = self.sde.prior().as_scalar().unwrap_or(f64::NAN);
        -0.5 * (second / prior + dim * (std::f64::consts::TAU * prior).ln()) - integral + dim * psi.ln()
    }

    /// The variance that the reverse SDE has at `start`: dV = [2(−f − g² a) V + g²] dτ, by Runge–Kutta in the clock.
    fn variance_of_the_model(&self, start: f64, end: f64) -> f64 {
        let steps = 20_000;
        let (first, last) = (self.sde.clock(start), self.sde.clock(end));
        let h = (last - first) / f64::from(steps);
        let rate = |clock: f64, v: f64| {
            let t = self.sde.time_of_clock(clock);
            let [_, _, g, a] = self.at(t);
            let f = self.sde.drift(t).as_scalar().unwrap_or(f64::NAN);
            (2.0 * (-f - g * a) * v + g) / self.sde.clock_rate(t)
        };
        let mut v = self.sde.prior().as_scalar().unwrap_or(f64::NAN);
        for i in 0..steps {
            let c = last - h * f64::from(i);
            let k1 = rate(c, v);
            let k2 = rate(c - 0.5 * h, v + 0.5 * h * k1);
            let k3 = rate(c - 0.5 * h, v + 0.5 * h * k2);
            let k4 = rate(c - h, v + h * k3);
            v += h / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4);
        }
        v
    }
}

/// A wrong linear score makes a Gaussian SDE model, whose density is known: the bound is the quadrature, and below that density.
#[test]
fn a_wrong_score_has_the_bound_of_its_quadrature_below_the_density_of_its_sde() -> Result<()> {
    let processes: [(&str, &dyn LinearSde); 3] =
        [("vp", &Vp::STANDARD), ("subvp", &SubVp::STANDARD), ("edm", &Edm::STANDARD)];
    for (name, sde) in processes {
        for scale in [1.1, 0.8] {
            let model = Linear { sde, v: 0.25, scale };
            let field = model.field();
            let bound = Elbo::new(sde, &field, 200);
            let v = model.variance_of_the_model(bound.start, bound.end);
            for x in [vec![0.4, -0.7, 0.1], vec![1.0, 1.0, 0.0]] {
                let exact = model.bound(&x, bound.start, bound.end);
                assert_mean(name, averaged(&bound, &x, 400)?, exact, 0.02);
                let square: f64 = x.iter().map(|x| x * x).sum();
                let density = -0.5 * (square / v + 3.0 * (std::f64::consts::TAU * v).ln());
                assert!(exact < density - 1e-3, "{name} {scale}: {exact} is no bound of {density}");
            }
        }
    }
    Ok(())
}

impl Linear<'_> {
    /// The variance that the law of the model's flow has at t: V = P exp(−2 ∫_t^T (f + ½ g² a)).
    fn variance_of_the_flow(&self, t: f64, end: f64) -> f64 {
        let rate = |clock: f64| {
            let t = self.sde.time_of_clock(clock);
            let [_, _, g, a] = self.at(t);
            let f = self.sde.drift(t).as_scalar().unwrap_or(f64::NAN);
            (f + 0.5 * g * a) / self.sde.clock_rate(t)
        };
        let (first, last) = (self.sde.clock(t), self.sde.clock(end));
        let panel = |i: usize| first + (last - first) * i as f64 / 10.0;
        let rule = GaussLegendre::new(20);
        let integral: f64 = (0..10).map(|i| rule.integrate(panel(i), panel(i + 1), rate)).sum();
        self.sde.prior().as_scalar().unwrap_or(f64::NAN) * (-2.0 * integral).exp()
    }
}

/// The divergences of a wrong linear score's two models from Gaussian data are known, and made up of the gaps.
#[test]
fn gaps_of_the_score_make_up_the_divergence_of_the_flow_and_bound_that_of_the_sde() -> Result<()> {
    let (sde, v, scale, n) = (Vp::STANDARD, 0.25, 1.1, 40_000u32);
    let model = Linear { sde: &sde, v, scale };
    let data = Mixture::diagonal(vec![0.0], vec![v])?;
    let truth = OracleField::noise(&data, &sde);
    let (start, end) = (1e-3, 1.0);
    let of_flow = FieldFn::new(Prediction::Score, |x: &Tensor, t: &[f64]| {
        let factors: Vec<f64> = t.iter().map(|&t| -1.0 / model.variance_of_the_flow(t, end)).collect();
        Ok(x.broadcast_mul(&Tensor::new(factors, x.device())?.unsqueeze(1)?)?)
    });
    let noise = BatchNoise::new(Noise::new(2), 0, 0..n);
    let unit = noise.tensor(Law::Normal, Stream::User, 0, &[1], DType::F64, &Device::Cpu)?;
    let gap = ScoreGap::new(
        &sde,
        (&model.field(), &truth, Some(&of_flow)),
        &(&unit * v.sqrt())?,
        (start, end),
        &noise,
    )?;
    // KL of N(0, a) from N(0, b).
    let divergence = |a: f64, b: f64| 0.5 * (a / b - 1.0 - (a / b).ln());
    let law = |t: f64| {
        let [alpha, square, ..] = model.at(t);
        alpha * alpha * v + square
    };
    let prior = divergence(law(end), 1.0);
    let (matching, Some(difference), Some(fisher)) = (gap.score_matching, gap.difference, gap.fisher) else {
        panic!("no gaps: {gap:?}")
    };
    let total = prior + matching.value + difference.value;
    let exact = divergence(law(start), model.variance_of_the_flow(start, end));
    let error = matching.standard_error.unwrap_or(f64::NAN) + difference.standard_error.unwrap_or(f64::NAN);
    assert!((total - exact).abs() < 4.0 * error && error < 0.05 * exact, "{total} ± {error}, not {exact}");
    assert!(difference.value.powi(2) <= 1.01 * matching.value * fisher.value, "{gap:?}");
    let of_sde = divergence(law(start), model.variance_of_the_model(start, end));
    assert!(of_sde < prior + matching.value + 4.0 * error, "{of_sde} {gap:?}");
    let alone = ScoreGap::new(&sde, (&truth, &truth, None), &unit, (start, end), &noise)?;
    assert_eq!((alone.score_matching.value, alone.difference), (0.0, None));
    assert!(ScoreGap::new(&sde, (&truth, &truth, None), &unit, (0.0, end), &noise).is_err());
    Ok(())
}

/// Numbers of an independent computation: three correlated coordinates at (1, −2, ½) under VP with ∫β = 3.
#[test]
fn a_correlated_gaussian_has_the_bounds_computed_elsewhere() -> Result<()> {
    let covariance = DMatrix::from_row_slice(3, 3, &[0.5, 0.2, 0.0, 0.2, 0.8, -0.1, 0.0, -0.1, 0.3]);
    let data = Mixture::new(&[1.0], &[vec![0.5, -1.0, 0.2]], &[covariance])?;
    let sde = Vp::new(3.0, 3.0)?;
    let oracle = OracleField::noise(&data, &sde);
    let wrong = FieldFn::new(Prediction::Noise, |x: &Tensor, t: &[f64]| Ok((oracle.eval(x, t)? * 1.1)?));
    let fields: [&dyn Field; 3] = [&oracle, &oracle, &wrong];
    let priors = [Prior::Exact(&data), Prior::Standard, Prior::Exact(&data)];
    let expected = [-2.901370415403, -2.999252342917, -2.912762923043];
    for ((field, prior), expected) in fields.into_iter().zip(priors).zip(expected) {
        let bound = Elbo { prior, start: 1e-6, ..Elbo::new(&sde, field, 200) };
        assert_mean("golden", averaged(&bound, &[1.0, -2.0, 0.5], 2000)?, expected, 0.006);
    }
    Ok(())
}

/// The chain's bound for data N(0, v) at x, with the exact prediction x̂₀ = k x_t.
fn discrete(sde: &dyn LinearSde, v: f64, x: f64, grid: &TimeGrid, variances: &[f64]) -> f64 {
    let of = |op: sde_core::Op| op.as_scalar().unwrap_or(f64::NAN);
    let times: Vec<f64> = grid.times().iter().rev().copied().filter(|t| of(sde.factor(*t)) > 0.0).collect();
    let (mut before, mut total) = ((1.0, 0.0), 0.0);
    for (n, (&t, variance)) in times.iter().zip(variances).enumerate() {
        let (alpha, square) = (of(sde.signal(t)), of(sde.covariance(t)));
        let forward = square - (alpha / before.0).powi(2) * before.1;
        let posterior = forward * before.1 / square;
        let k = alpha * v / (alpha * alpha * v + square);
        let error = ((1.0 - k * alpha) * x).powi(2) + k * k * square;
        total += if n == 0 {
            0.5 * error / variance + 0.5 * (std::f64::consts::TAU * variance).ln()
        } else {
            let ratio = posterior / variance;
            0.5 * (ratio - 1.0 - ratio.ln() + (before.0 * forward / square).powi(2) * error / variance)
        };
        before = (alpha, square);
    }
    total + 0.5 * (before.1 - 1.0 - before.1.ln() + (before.0 * x).powi(2))
}

#[test]
fn the_bound_of_a_chain_is_its_closed_form_and_tight_with_the_best_variances() -> Result<()> {
    let (v, points) = (0.25, [0.1, -0.9]);
    let data = Mixture::diagonal(vec![0.0], vec![v])?;
    let ddpm = Discrete::ddpm();
    let processes: [(&str, &dyn LinearSde, TimeGrid); 3] = [
        ("ddpm", &ddpm, TimeGrid::discrete(1000, 1000)?),
        ("vp", &Vp::STANDARD, TimeGrid::power(1.0, 1e-3, 30, 2.0)?),
        ("linear", &LinearPath, TimeGrid::power(1.0, 1e-2, 20, 2.0)?),
    ];
    for (name, sde, grid) in processes {
        let of = |op: sde_core::Op| op.as_scalar().unwrap_or(f64::NAN);
        let times: Vec<f64> = grid.times().iter().rev().copied().filter(|t| *t > 0.0).collect();
        let (mut before, mut small, mut large, mut best) = ((1.0, 0.0), vec![], vec![], vec![]);
        for &t in &times {
            let (alpha, square) = (of(sde.signal(t)), of(sde.covariance(t)));
            let forward = square - (alpha / before.0).powi(2) * before.1;
            small.push(forward * before.1 / square);
            large.push(forward);
            let left = v * square / (alpha * alpha * v + square);
            best.push(forward * before.1 / square + (before.0 * forward / square).powi(2) * left);
            before = (alpha, square);
        }
        // Of the published chain the last step has the variance of the one before; shorter steps there have ρ².
        let ratio = of(sde.factor(times[0])) / of(sde.signal(times[0]));
        small[0] = if small[1] >= 0.5 * ratio * ratio { small[1] } else { ratio * ratio };
        assert!(name != "ddpm" || small[0] == small[1]);
        let field = OracleField::data(&data, sde);
        let given = ReverseVariance::Given(best.clone());
        for (which, variances) in
            [(ReverseVariance::Small, &small), (ReverseVariance::Large, &large), (given.clone(), &best)]
        {
            let make = (sde, &field as &dyn Field);
            let bound = DiscreteBound::new(make, Prior::Standard, &grid, &which, Encoding::Continuous, 50)?;
            assert_eq!(bound.steps(), times.len());
            for x in points {
                let expected = -discrete(sde, v, x, &grid, variances);
                assert_mean(&format!("{name} {which:?}"), averaged(&bound, &[x], 400)?, expected, 0.1);
            }
        }
        let make = (sde, &field as &dyn Field);
        let tight = DiscreteBound::new(make, Prior::Exact(&data), &grid, &given, Encoding::Continuous, 50)?;
        for x in points {
            let exact = -0.5 * (x * x / v + (std::f64::consts::TAU * v).ln());
            assert_mean(name, averaged(&tight, &[x], 400)?, exact, 0.1);
        }
    }
    Ok(())
}

#[test]
fn probabilities_of_levels_sum_to_one() -> Result<()> {
    // One step from a state that holds next to nothing of the data, whatever it is predicted to be.
    let constant =
        FieldFn::new(Prediction::Data, |x: &Tensor, _: &[f64]| Ok(x.zeros_like()?.affine(0.0, 0.37)?));
    let encoding = Encoding::Quantised { levels: 7, range: Range::SIGNED };
    let grid = TimeGrid::new(vec![1.0, 0.0])?;
    for variance in [1e-4, 0.05, 4.0] {
        let make = (&Vp::STANDARD as &dyn LinearSde, &constant as &dyn Field);
        let given = ReverseVariance::Given(vec![variance]);
        let bound = DiscreteBound::new(make, Prior::Standard, &grid, &given, encoding, 1)?;
        assert!(bound.is_of_levels());
        let levels: Vec<Vec<f64>> = (0..7).map(|k| vec![f64::from(k) / 3.0 - 1.0]).collect();
        let found = bound.log_density(&tensor(&levels)?, &addresses(7))?;
        let total: f64 = found.iter().filter_map(|one| one.value).map(f64::exp).sum();
        // The prior's term is at most ½ α_T² = 2e-5.
        assert!((total - 1.0).abs() < 3e-5, "{variance}: {total}");
        assert!(found.iter().all(|one| one.standard_error.is_none() && one.nfe == 2));
    }
    Ok(())
}

#[test]
fn what_makes_no_sense_is_refused() -> Result<()> {
    let data = two_modes()?;
    let field = OracleField::data(&data, &LinearPath);
    let x = tensor(&[vec![0.1, 0.2]])?;
    let message = |found: Result<Vec<LogDensity>>| found.err().map(|e| e.to_string()).unwrap_or_default();
    let elbo = Elbo::new(&LinearPath, &field, 4);
    assert!(message(elbo.log_density(&x, &addresses(1))).contains("signal and noise left at both"));
    let elbo = Elbo { end: 0.9, ..elbo };
    assert_eq!(elbo.log_density(&x, &addresses(1))?.len(), 1);
    assert!(message(elbo.log_density(&x, &addresses(2))).contains("1 addresses"));
    assert!(message(Elbo { draws: 0, ..elbo }.log_density(&x, &addresses(1))).contains("draws"));
    assert!(message(Elbo { start: 0.95, ..elbo }.log_density(&x, &addresses(1))).contains("start < end"));
    let grid = TimeGrid::uniform(0.9, 0.1, 4)?;
    let make = |variance: &ReverseVariance, draws: usize| {
        let pair = (&LinearPath as &dyn LinearSde, &field as &dyn Field);
        DiscreteBound::new(pair, Prior::Standard, &grid, variance, Encoding::Continuous, draws)
    };
    assert!(make(&ReverseVariance::Small, 0).is_err());
    let short =
        make(&ReverseVariance::Given(vec![0.1; 4]), 1).err().map(|e| e.to_string()).unwrap_or_default();
    assert!(short.contains("5 steps"), "{short}");
    let nothing = tensor(&[vec![f64::NAN, 0.2]])?;
    let refused = make(&ReverseVariance::Large, 1)?.log_density(&nothing, &addresses(1));
    assert!(matches!(refused, Err(Error::NonFinite { row: 0, entry: 0, .. })));
    Ok(())
}
