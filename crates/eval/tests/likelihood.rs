//! The likelihood of oracles against closed forms and against an independent solver's numbers.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use nalgebra::DMatrix;
use ndarray::ArrayD;
use sde_core::noise::{BatchNoise, Law, Noise};
use sde_core::oracle::Mixture;
use sde_core::process::{Cosine, Discrete, Edm, LinearPath, SubVp, Ve, Vp};
use sde_core::{FieldFn, LinearSde, Model, ModelField, OracleField, Pass, Prediction};
use sde_data::read::npz::read_npz;
use sde_eval::{
    DensityMap, Error, Likelihood, LogDensity, Nll, Prior, Protocol, Result, Window, nll_of_points,
};
use sde_solvers::{Adaptive, Chart, Divergence, Outcome};

const TIGHT: Adaptive = Adaptive::new(1e-9, 1e-9);

type Arrays = BTreeMap<String, ArrayD<f64>>;

fn golden(name: &str) -> Result<Arrays> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    Ok(read_npz(&path)?.iter().map(|(key, array)| (key.clone(), array.to_f64())).collect())
}

fn rows(array: &ArrayD<f64>) -> Vec<Vec<f64>> {
    array.outer_iter().map(|row| row.iter().copied().collect()).collect()
}

fn mixture(arrays: &Arrays) -> Result<Mixture> {
    let means = rows(&arrays["mu"]);
    let dim = means[0].len();
    let covariances: Vec<DMatrix<f64>> =
        rows(&arrays["cov"]).iter().map(|c| DMatrix::from_row_slice(dim, dim, c)).collect();
    Ok(Mixture::new(&rows(&arrays["w"]).concat(), &means, &covariances)?)
}

fn eight_modes() -> Result<Mixture> {
    mixture(&golden("pfode_vp_gmm8.npz")?)
}

fn tensor(points: &[Vec<f64>]) -> Result<Tensor> {
    Ok(Tensor::new(points.to_vec(), &Device::Cpu)?)
}

fn addresses(n: usize) -> BatchNoise {
    BatchNoise::new(Noise::new(5), 0, 0..n as u32)
}

fn values(found: &[LogDensity]) -> Vec<f64> {
    found.iter().map(|one| one.value.unwrap_or(f64::NAN)).collect()
}

fn worst(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    // Unlike `max`, this keeps a NaN.
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, |w, d| if d <= w { w } else { d })
}

/// Draws of the noised state at time t.
fn states(data: &[Vec<f64>], sde: &dyn LinearSde, t: f64) -> Result<Vec<Vec<f64>>> {
    let (signal, factor) = (sde.signal(t), sde.factor(t));
    let one = |(i, x): (usize, &Vec<f64>)| {
        let mut draws = Noise::new(9).draws(sde_core::noise::Stream::User, 0, i as u32);
        let noise: Vec<f64> = x.iter().map(|_| draws.normal()).collect();
        let (a, b) = (signal.apply_host(x)?, factor.apply_host(&noise)?);
        Ok(a.iter().zip(b).map(|(a, b)| a + b).collect())
    };
    data.iter().enumerate().map(one).collect()
}

#[test]
fn reproduces_an_independent_solver() -> Result<()> {
    let processes: [(&str, &dyn LinearSde); 4] =
        [("vp", &Vp::STANDARD), ("subvp", &SubVp::STANDARD), ("ve", &Ve::STANDARD), ("edm", &Edm::STANDARD)];
    for (name, sde) in processes {
        for set in ["gmm8", "ani4"] {
            let arrays = golden(&format!("pfode_{name}_{set}.npz"))?;
            let data = mixture(&arrays)?;
            let x = rows(&arrays["x0"]);
            let field = OracleField::noise(&data, sde);
            let ends = rows(&arrays["times"]).concat();
            let likelihood = Likelihood {
                start: ends[1],
                end: ends[0],
                ..Likelihood::new(sde, &field, Divergence::Exact, TIGHT)
            };
            let exact = Likelihood { prior: Prior::Exact(&data), ..likelihood };
            for (likelihood, key) in [
                (likelihood, "logp_ode_stdprior"),
                (exact, "logp_ode_exactprior"),
                (exact, "logp_closed_t0"),
                (Likelihood { chart: Chart::Clock, ..exact }, "logp_closed_t0"),
            ] {
                let found = likelihood.log_density(&tensor(&x)?, &addresses(x.len()))?;
                let expected = rows(&arrays[key]).concat();
                let gap = worst(&values(&found), &expected);
                assert!(gap < 1e-7, "{name} {set} {key} {:?}: {gap}", likelihood.chart);
            }
        }
    }
    Ok(())
}

#[test]
fn cosine_discrete_and_straight_path_match_the_closed_form() -> Result<()> {
    let data = eight_modes()?;
    let points: Vec<Vec<f64>> =
        (0..8).map(|i| vec![0.4 * f64::from(i) - 1.0, 1.2 - 0.3 * f64::from(i)]).collect();
    let ddpm = Discrete::ddpm();
    let processes: [(&str, &dyn LinearSde, f64); 3] =
        [("cosine", &Cosine, 0.9946), ("ddpm", &ddpm, 1000.0), ("linear path", &LinearPath, 0.999)];
    for (name, sde, end) in processes {
        let field = OracleField::noise(&data, sde);
        let likelihood = Likelihood {
            prior: Prior::Exact(&data),
            end,
            ..Likelihood::new(sde, &field, Divergence::Exact, TIGHT)
        };
        let x = states(&points, sde, likelihood.start)?;
        let found = likelihood.log_density(&tensor(&x)?, &addresses(x.len()))?;
        let expected = field.log_density(&tensor(&x)?, &[likelihood.start])?;
        let gap = worst(&values(&found), &expected);
        assert!(gap < 1e-7, "{name}: {gap}");
    }
    Ok(())
}

/// The velocity exists at T = 1 although the signal is gone, and the standard prior is the exact one there.
#[test]
fn straight_path_to_its_very_end() -> Result<()> {
    let (mean, variance) = (0.7, 0.3);
    let field = FieldFn::new(Prediction::Velocity, |x: &Tensor, t: &[f64]| {
        // v = −m + ½ (V'/V) (x − (1 − t) m), V = (1 − t)² s² + t².
        let moment = |t: &f64| {
            let rate = (t - (1.0 - t) * variance) / ((1.0 - t).powi(2) * variance + t * t);
            [rate, -mean - rate * (1.0 - t) * mean]
        };
        let (scale, shift): (Vec<f64>, Vec<f64>) = t.iter().map(moment).map(|[a, b]| (a, b)).unzip();
        let column = |v: Vec<f64>| Tensor::new(v, x.device())?.unsqueeze(1);
        Ok(x.broadcast_mul(&column(scale)?)?.broadcast_add(&column(shift)?)?)
    });
    let data = Mixture::diagonal(vec![mean; 3], vec![variance; 3])?;
    let likelihood = Likelihood::new(&LinearPath, &field, Divergence::Exact, TIGHT);
    let x = [vec![0.1, 0.5, -0.4], vec![1.0, 2.0, 0.7]];
    let found = likelihood.log_density(&tensor(&x)?, &addresses(2))?;
    let marginal = data.marginal(&LinearPath, likelihood.start)?;
    for (point, found) in x.iter().zip(values(&found)) {
        assert!((found - marginal.at(point)?.log_density).abs() < 1e-7, "{found}");
    }
    // The divergence is the same in all directions: one sign a coordinate tells it, at the end, too, where drift and diffusion are infinite.
    let signs = Divergence::Hutchinson { law: Law::Rademacher, probes: 1 };
    let random = Likelihood { divergence: signs, ..likelihood }.log_density(&tensor(&x)?, &addresses(2))?;
    for (random, found) in values(&random).iter().zip(values(&found)) {
        assert!((random - found).abs() < 1e-7, "{random} for {found}");
    }
    let noise = OracleField::noise(&data, &LinearPath);
    let likelihood = Likelihood::new(&LinearPath, &noise, Divergence::Exact, TIGHT);
    let refused = likelihood.log_density(&tensor(&x)?, &addresses(2));
    assert!(matches!(refused, Err(Error::Core(sde_core::Error::Undefined { t: 1.0, .. }))));
    Ok(())
}

/// The exact velocity of N(0, s²) on the straight path, as a network in f32.
struct Shrinking {
    variance: f64,
}

impl Model for Shrinking {
    fn prediction(&self) -> Prediction {
        Prediction::Velocity
    }
    fn forward(&self, x: &Tensor, t: &Tensor, _: Pass<'_>) -> sde_core::Result<Tensor> {
        let left = t.affine(-1.0, 1.0)?;
        let numerator = (t - (&left * self.variance)?)?;
        let denominator = ((left.sqr()? * self.variance)? + t.sqr()?)?;
        Ok(x.broadcast_mul(&(numerator / denominator)?.reshape((t.dim(0)?, 1, 1))?)?)
    }
}

/// The solver's f64 state passes through the network's f32 and its tape, images keep their shape.
#[test]
fn a_network_in_f32_is_as_good_as_its_rounding() -> Result<()> {
    let field = ModelField::new(Shrinking { variance: 0.3 }, DType::F32, &Device::Cpu);
    let likelihood = Likelihood::new(&LinearPath, &field, Divergence::Exact, Adaptive::new(1e-6, 1e-6));
    let x = Tensor::new(&[[[0.1f32, 0.5], [-0.4, 0.2]], [[1.0, 0.9], [0.7, -1.3]]], &Device::Cpu)?;
    let found = values(&likelihood.log_density(&x, &addresses(2))?);
    let data = Mixture::diagonal(vec![0.0; 4], vec![0.3; 4])?;
    let oracle = OracleField::noise(&data, &LinearPath);
    let gap = worst(&found, &oracle.log_density(&x, &[likelihood.start])?);
    assert!(gap < 1e-4, "{gap}");
    Ok(())
}

#[test]
fn a_sample_alone_is_bitwise_the_sample_in_a_batch() -> Result<()> {
    let data = eight_modes()?;
    let field = OracleField::noise(&data, &Vp::STANDARD);
    let points: Vec<Vec<f64>> =
        (0..64).map(|i| vec![f64::from(i) / 20.0 - 1.5, f64::from(i * i % 37) / 15.0 - 1.0]).collect();
    for divergence in [Divergence::Exact, Divergence::Hutchinson { law: Law::Rademacher, probes: 2 }] {
        let likelihood = Likelihood::new(&Vp::STANDARD, &field, divergence, Adaptive::new(1e-5, 1e-5));
        let together = likelihood.log_density(&tensor(&points)?, &addresses(64))?;
        for i in [0, 17, 63] {
            let noise = BatchNoise::new(Noise::new(5), 0, [i as u32]);
            let alone = likelihood.log_density(&tensor(&points[i..=i])?, &noise)?;
            assert_eq!(alone[0].value.map(f64::to_bits), together[i].value.map(f64::to_bits));
            assert_eq!(alone[0].nfe, together[i].nfe);
        }
    }
    Ok(())
}

fn protocol(repeats: usize) -> Protocol {
    Protocol { noise: Noise::new(3), repeats, dequantisations: 1, batch: 7 }
}

#[test]
fn hutchinson_agrees_within_its_own_error_bar() -> Result<()> {
    let arrays = golden("pfode_vp_ani4.npz")?;
    let data = mixture(&arrays)?;
    let x = tensor(&rows(&arrays["x0"]))?;
    let field = OracleField::noise(&data, &Vp::STANDARD);
    let likelihood = Likelihood {
        prior: Prior::Exact(&data),
        start: 1e-3,
        ..Likelihood::new(&Vp::STANDARD, &field, Divergence::Exact, Adaptive::new(1e-6, 1e-6))
    };
    let exact = nll_of_points(&likelihood, &x, &protocol(1), &mut |_| ())?;
    assert_eq!(exact.estimator_error, None);
    let mut errors = Vec::new();
    for (law, probes) in [(Law::Rademacher, 1), (Law::Rademacher, 4), (Law::Normal, 4)] {
        let likelihood = Likelihood { divergence: Divergence::Hutchinson { law, probes }, ..likelihood };
        let found = nll_of_points(&likelihood, &x, &protocol(40), &mut |_| ())?;
        let error = found.estimator_error.unwrap_or(0.0);
        let gap = found.nats.value - exact.nats.value;
        assert!(gap.abs() < 4.0 * error, "{law:?} {probes}: {gap} ± {error}");
        errors.push(error);
    }
    // Four probes halve the error; 320 solves tell it to 1/√640 = 4 %, so the ratio to 6 %.
    assert!((errors[0] / errors[1] - 2.0).abs() < 5.0 * 0.06 * 2.0, "{errors:?}");
    assert!(errors[1] < errors[2], "Rademacher probes have the smaller variance: {errors:?}");
    Ok(())
}

#[test]
fn a_solve_that_does_not_arrive_is_told_not_averaged() -> Result<()> {
    // The exact velocity of N(0, I), zero, but without value in half of the plane.
    let field = FieldFn::new(Prediction::Velocity, |x: &Tensor, _: &[f64]| {
        let factor = |row: &Vec<f64>| if row[0] < 0.0 { f64::NAN } else { 0.0 };
        let factors: Vec<f64> = x.to_vec2()?.iter().map(factor).collect();
        Ok(x.broadcast_mul(&Tensor::new(factors, x.device())?.unsqueeze(1)?)?)
    });
    let likelihood = Likelihood::new(
        &Vp::STANDARD,
        &field,
        Divergence::Hutchinson { law: Law::Rademacher, probes: 1 },
        Adaptive::new(1e-4, 1e-4),
    );
    let x = tensor(&[vec![0.5, 0.1], vec![-0.5, 0.2], vec![1.5, 0.3]])?;
    let mut done = Vec::new();
    let found = nll_of_points(&likelihood, &x, &protocol(2), &mut |n| done.push(n))?;
    assert_eq!((found.unfinished, found.nats.n, done), (1, 2, vec![3, 6]));
    let outcomes: Vec<Outcome> = found.solves.iter().map(|solve| solve.result.outcome).collect();
    let (good, bad) = (Outcome::Finished, Outcome::NonFinite);
    assert_eq!(outcomes, [good, good, bad, bad, good, good]);

    let mut csv = Vec::new();
    assert!(found.write_csv(&mut csv).is_ok());
    let text = String::from_utf8_lossy(&csv).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines.len(), lines[0]), (7, "index,repeat,log_density,nfe,outcome,stderr"));
    assert!(lines[3].starts_with("1,0,,") && lines[3].ends_with(",non_finite,"), "{}", lines[3]);
    let read_back: Option<f64> = lines[2].split(',').nth(2).and_then(|v| v.parse().ok());
    assert_eq!(read_back, found.solves[1].result.value);

    let nothing = nll_of_points(&likelihood, &x.narrow(0, 1, 1)?, &protocol(1), &mut |_| ());
    assert!(matches!(nothing, Err(Error::Unfinished { samples: 1, first: Outcome::NonFinite })));
    Ok(())
}

#[test]
fn what_makes_no_sense_is_refused() -> Result<()> {
    let data = Mixture::diagonal(vec![0.0, 0.0], vec![1.0, 1.0])?;
    let field = OracleField::noise(&data, &Vp::STANDARD);
    let likelihood = Likelihood::new(&Vp::STANDARD, &field, Divergence::Exact, TIGHT);
    let x = tensor(&[vec![0.5, 0.1], vec![0.3, f64::NAN]])?;
    let message = |found: Result<Vec<LogDensity>>| found.err().map(|e| e.to_string()).unwrap_or_default();
    assert_eq!(
        message(likelihood.log_density(&x, &addresses(2))),
        "points whose density is asked: entry 1 of row 1 is NaN; remove or replace it"
    );
    let x = x.narrow(0, 0, 1)?;
    assert!(message(likelihood.log_density(&x, &addresses(2))).contains("1 addresses"));
    let backwards = Likelihood { start: 1.0, end: 0.5, ..likelihood };
    assert!(message(backwards.log_density(&x, &addresses(1))).contains("start < end"));
    let refused =
        |protocol: Protocol| -> Result<Nll> { nll_of_points(&likelihood, &x, &protocol, &mut |_| ()) };
    assert!(refused(Protocol { batch: 0, ..protocol(1) }).is_err());
    assert!(refused(protocol(0)).is_err());
    let mut points = vec![vec![0.1, 0.2]; 10];
    points[9][0] = f64::INFINITY;
    // Of the second batch, but told by its place among all.
    let found = nll_of_points(&likelihood, &tensor(&points)?, &protocol(1), &mut |_| ());
    assert!(matches!(found, Err(Error::NonFinite { row: 9, entry: 0, .. })));
    Ok(())
}

#[test]
fn the_density_of_a_mixture_integrates_to_one() -> Result<()> {
    let data = eight_modes()?;
    let field = OracleField::noise(&data, &Vp::STANDARD);
    let likelihood = Likelihood {
        prior: Prior::Exact(&data),
        ..Likelihood::new(&Vp::STANDARD, &field, Divergence::Exact, Adaptive::new(1e-5, 1e-5))
    };
    // Cells of 0.1, half a component's deviation; the window ends 5 deviations outside the modes' circle.
    let window = Window { x: [-3.0, 3.0], y: [-3.0, 3.0], nx: 60, ny: 60 };
    let map = DensityMap::new(&likelihood, &window, 1000, Noise::new(0))?;
    assert_eq!((map.values.dim(), map.unfinished), ((60, 60), 0));
    assert!((map.mass() - 1.0).abs() < 1e-3, "{}", map.mass());
    // Row 3, column 50 is the cell around (2.05, −2.65): low, to the right.
    let expected = field.log_density(&tensor(&[vec![2.05, -2.65]])?, &[likelihood.start])?;
    assert!((map.values[(3, 50)] - expected[0]).abs() < 1e-3);
    assert!(DensityMap::new(&likelihood, &Window { nx: 0, ..window }, 10, Noise::new(0)).is_err());
    Ok(())
}
