//! Predictors, correctors and annealed Langevin dynamics: parity with published samplers from given noise, stationary laws in closed form.

mod support;

use candle_core::{DType, Device, Tensor};
use sde_core::noise::{BatchNoise, Noise, NormalSource, Recorded};
use sde_core::oracle::Mixture;
use sde_core::process::{SubVp, Vp};
use sde_core::{LinearSde, OracleField, TimeGrid};
use sde_solvers::{
    AnnealedLangevin, Axis, Ddpm, Error, EulerMaruyama, Langevin, Multistep, Norms, Path, PredictorCorrector,
    RungeKutta, Sampler, ScoreSde, Solution, Tab, Tableau, Variance,
};
use support::{Golden, largest_gap, process, rotating::Rotating, scalar};

const PREDICTORS: [(&str, ScoreSde); 3] =
    [("em", ScoreSde::EulerMaruyama), ("rd", ScoreSde::ReverseDiffusion), ("anc", ScoreSde::Ancestral)];

fn corrector(steps: usize, norms: Norms) -> Langevin {
    Langevin { snr: 0.16, steps, norms }
}

#[test]
fn published_samplers_from_given_noise() {
    let mut compared = 0;
    for name in ["vp", "ve", "subvp"] {
        let golden = Golden::load(&format!("pc_{name}"));
        let (sde, data) = (process(name), golden.mixture());
        let field = OracleField::noise(&data, sde.as_ref());
        let grid = TimeGrid::new(golden.flat("t")).expect("a grid");
        let path = Path { sde: sde.as_ref(), field: &field, grid: &grid };
        let noise = golden.get("noise");
        // Without a corrector the predictor's draws are the odd rows.
        let odd: Vec<u32> = (0..50).map(|i| 2 * i + 1).collect();
        let odd = noise.index_select(&Tensor::new(odd, &Device::Cpu).expect("rows"), 0).expect("rows");
        for (key, predictor) in PREDICTORS {
            if !golden.keys().any(|k| k.starts_with(key)) {
                let found = predictor.table(sde.as_ref(), &grid);
                assert!(matches!(found, Err(Error::NoChain { .. })), "{name} {key}");
                continue;
            }
            for (suffix, steps, recorded) in [("", 0, &odd), ("_pc", 1, noise)] {
                for (end, denoise) in [("x", false), ("x_mean", true)] {
                    let sampler =
                        PredictorCorrector { predictor, corrector: corrector(steps, Norms::Batch), denoise };
                    let Solution { x, nfe } =
                        sampler.sample(&path, golden.get("xT"), &Recorded(recorded.clone())).expect("a run");
                    assert_eq!(nfe, vec![50 * (1 + steps); 8]);
                    let expected = golden.get(&format!("{key}{suffix}__{end}"));
                    let scale = golden
                        .flat(&format!("{key}{suffix}__{end}"))
                        .iter()
                        .fold(1.0, |m: f64, v| m.max(v.abs()));
                    let gap = largest_gap(&x, expected);
                    assert!(gap < 1e-10 * scale, "{name} {key}{suffix}__{end}: {gap:e}");
                    compared += 1;
                }
            }
        }
    }
    assert_eq!(compared, 4 * (3 + 3 + 2));
}

#[test]
fn the_chains_step_is_the_published_one() {
    let golden = Golden::load("pc_vp");
    let grid = TimeGrid::new(golden.flat("t")).expect("a grid");
    let table = ScoreSde::ReverseDiffusion.table(&Vp::STANDARD, &grid).expect("a table");
    let k = golden.get("k").to_vec1::<i64>().expect("indices");
    for (update, k) in table.updates.iter().zip(k) {
        let beta = (0.1 + 19.9 * k as f64 / 49.0) / 50.0;
        assert!((scalar(&update.terms[0]) - beta).abs() < 1e-15, "k = {k}");
    }
}

#[test]
fn published_predictors_approach_the_reverse_process_as_steps_grow() {
    // One step at t: everything is within O(h²) of Euler–Maruyama's.
    for sde in [process("vp"), process("ve"), process("subvp")] {
        let gap = |n: usize, predictor: ScoreSde| {
            let grid = TimeGrid::uniform(1.0, 1e-3, n - 1).expect("a grid");
            let [a, b] = [predictor, ScoreSde::EulerMaruyama].map(|p| p.table(sde.as_ref(), &grid));
            let (Ok(a), Ok(b)) = (a, b) else { return None };
            let (a, b) = (&a.updates[n / 2], &b.updates[n / 2]);
            Some(
                (scalar(&a.carry) - scalar(&b.carry)).abs()
                    + (scalar(&a.terms[0]) / scalar(&b.terms[0]) - 1.0).abs(),
            )
        };
        for predictor in [ScoreSde::ReverseDiffusion, ScoreSde::Ancestral] {
            let Some((coarse, fine)) = gap(100, predictor).zip(gap(10_000, predictor)) else { continue };
            assert!(fine <= 0.05 * coarse, "{predictor:?}: {coarse:e}, {fine:e}");
        }
    }
}

#[test]
fn a_sample_does_not_depend_on_its_batch_unless_asked_to() {
    let data = Mixture::diagonal(vec![0.6, -0.2], vec![0.25, 0.04]).expect("a Gaussian");
    let grid = TimeGrid::uniform(1.0, 1e-3, 20).expect("a grid");
    let all = BatchNoise::new(Noise::new(5), 0, 0..8);
    let alone = BatchNoise::new(Noise::new(5), 0, [3]);
    for sde in [process("vp"), process("subvp"), process("ve")] {
        let field = OracleField::noise(&data, sde.as_ref());
        let path = Path { sde: sde.as_ref(), field: &field, grid: &grid };
        let zeros = Tensor::zeros((8, 2), DType::F64, &Device::Cpu).expect("states");
        let x = all.normal(99, &zeros).expect("states");
        let runs = [Norms::Sample, Norms::Batch].map(|norms| {
            let predictor = EulerMaruyama { lambda: 1.0 };
            let sampler = PredictorCorrector { predictor, corrector: corrector(2, norms), denoise: true };
            let together = sampler.sample(&path, &x, &all).expect("a run");
            assert_eq!(together.nfe, vec![60; 8]);
            let row = x.narrow(0, 3, 1).expect("a row");
            let single = sampler.sample(&path, &row, &alone).expect("a run");
            largest_gap(&single.x, &together.x.narrow(0, 3, 1).expect("a row"))
        });
        assert_eq!(runs[0], 0.0);
        assert!(runs[1] > 1e-6, "batch norms should show: {runs:?}");
    }
}

#[test]
fn every_one_step_rule_is_a_predictor_on_every_process_and_no_other_is() {
    let data = Mixture::diagonal(vec![0.6, -0.2], vec![0.25, 0.04]).expect("a Gaussian");
    let noise = BatchNoise::new(Noise::new(6), 0, 0..4);
    let x = Tensor::ones((4, 2), DType::F64, &Device::Cpu).expect("states");
    let heun = RungeKutta { tableau: Tableau::HEUN2, axis: Axis::Time, last_euler: false };
    let rules: [(Box<dyn Multistep>, usize); 3] = [
        (Box::new(Ddpm { variance: Variance::Small }), 1),
        (Box::new(EulerMaruyama { lambda: 1.0 }), 1),
        (Box::new(heun), 2),
    ];
    let rotating: Box<dyn LinearSde> = Box::new(Rotating { omega: 1.3 });
    let grid = TimeGrid::uniform(0.9, 0.1, 10).expect("a grid");
    for sde in [process("vp"), process("ve"), process("subvp"), process("edm"), process("cosine"), rotating] {
        let field = OracleField::noise(&data, sde.as_ref());
        let path = Path { sde: sde.as_ref(), field: &field, grid: &grid };
        for (predictor, cost) in &rules {
            // Without correctors and with its noise kept, the predictor alone.
            let bare = PredictorCorrector {
                predictor: Borrowed(predictor.as_ref()),
                corrector: corrector(0, Norms::Sample),
                denoise: false,
            };
            let plain = predictor.sample(&path, &x, &noise).expect("a run");
            assert_eq!(largest_gap(&bare.sample(&path, &x, &noise).expect("a run").x, &plain.x), 0.0);
            let corrected = PredictorCorrector { corrector: corrector(3, Norms::Sample), ..bare };
            let run = corrected.sample(&path, &x, &noise).expect("a run");
            assert_eq!(run.nfe, vec![10 * (cost + 3); 4]);
        }
        let tab = PredictorCorrector {
            predictor: Tab { degree: 2 },
            corrector: corrector(1, Norms::Sample),
            denoise: true,
        };
        let refused = tab.sample(&path, &x, &noise).expect_err("a multistep predictor");
        assert!(matches!(refused, Error::NotOneStep { step: 1, .. }), "{refused}");
    }
}

/// A borrowed rule.
#[derive(Clone, Copy)]
struct Borrowed<'a>(&'a dyn Multistep);

impl Multistep for Borrowed<'_> {
    fn name(&self) -> &'static str {
        self.0.name()
    }
    fn table(&self, sde: &dyn LinearSde, grid: &TimeGrid) -> sde_solvers::Result<sde_solvers::Table> {
        self.0.table(sde, grid)
    }
}

#[test]
fn every_level_of_langevin_dynamics_reaches_its_stationary_law() {
    // Gaussian data N(m, v) at level ρ: y ← (1 − a/(2V)) y + …, V = v + ρ², has the stationary variance a / (1 − (1 − a/(2V))²), the mean m.
    let (m, v, repeats, step) = (0.6, 0.25, 4000, 2e-3);
    for (name, grid) in [
        ("ve", TimeGrid::uniform(0.6, 0.2, 8).expect("a grid")),
        ("vp", TimeGrid::uniform(0.4, 0.05, 8).expect("a grid")),
        ("subvp", TimeGrid::uniform(0.5, 0.15, 8).expect("a grid")),
    ] {
        let sde = process(name);
        let rule = AnnealedLangevin { step, repeats, denoise: true };
        let table = rule.table(sde.as_ref(), &grid).expect("a table");
        assert_eq!(table.nfe(), 9 * repeats + 1);
        let rho = |t: f64| scalar(&sde.factor(t)) / scalar(&sde.signal(t));
        let (mut mean, mut variance) = (0.0, 1.0);
        for (i, update) in table.updates.iter().enumerate() {
            let (alpha, sigma) = (scalar(&sde.signal(update.from)), scalar(&sde.factor(update.from)));
            let spread = alpha * alpha * v + sigma * sigma;
            let (carry, term) = (scalar(&update.carry), scalar(&update.terms[0]));
            let inject = update.inject.as_ref().map_or(0.0, scalar);
            mean = carry * mean - term * (mean - alpha * m) / spread;
            variance = (carry - term / spread).powi(2) * variance + inject * inject;
            if i < 9 * repeats && (i + 1) % repeats == 0 {
                let a = step * (rho(update.from) / rho(grid.stop())).powi(2);
                let shrink = 1.0 - 0.5 * a / (v + rho(update.from).powi(2));
                let signal = scalar(&sde.signal(update.to));
                let expected = a / (1.0 - shrink * shrink) * signal * signal;
                // What is left of the start after the level, plus rounding.
                let left = shrink.powi(2 * repeats as i32) * 10.0 + 1e-12;
                assert!(
                    (variance / expected - 1.0).abs() < left.max(1e-9),
                    "{name} {i}: {variance} {expected}"
                );
                assert!((mean / signal - m).abs() < left.sqrt().max(1e-9), "{name} {i}: {mean}");
            }
        }
        // The last mean: m + v/(v + ρ²) (y − m).
        let a = step;
        let big = v + rho(grid.stop()).powi(2);
        let stationary = a / (1.0 - (1.0 - 0.5 * a / big).powi(2));
        assert!((variance - stationary * (v / big).powi(2)).abs() < 1e-6, "{name}: {variance}");
    }
}

#[test]
fn langevin_dynamics_is_the_published_loop() {
    let golden = Golden::load("pc_ve");
    let (sde, data) = (process("ve"), golden.mixture());
    let field = OracleField::noise(&data, sde.as_ref());
    let grid = TimeGrid::uniform(1.0, 0.3, 9).expect("a grid");
    let noise = Recorded(golden.get("noise").clone());
    let rule = AnnealedLangevin { step: 2e-5, repeats: 4, denoise: true };
    let path = Path { sde: sde.as_ref(), field: &field, grid: &grid };
    let found = rule.sample(&path, golden.get("xT"), &noise).expect("a run").x;
    let mut x = golden.rows("xT");
    let draws = golden.flat("noise");
    let sigma = |t: f64| 0.01 * 5000f64.powf(t);
    let score =
        |x: &[f64], t: f64| data.marginal(sde.as_ref(), t).and_then(|p| p.at(x)).expect("a score").score;
    let mut draw = draws.iter();
    for &t in grid.times() {
        let a = 2e-5 * (sigma(t) / sigma(0.3)).powi(2);
        for _ in 0..4 {
            for row in &mut x {
                let s = score(row, t);
                for (v, s) in row.iter_mut().zip(s) {
                    *v += 0.5 * a * s + a.sqrt() * draw.next().expect("a draw");
                }
            }
        }
    }
    for row in &mut x {
        let s = score(row, 0.3);
        row.iter_mut().zip(s).for_each(|(v, s)| *v += sigma(0.3).powi(2) * s);
    }
    let gap = largest_gap(&found, &support::tensor(&x));
    assert!(gap < 1e-11, "{gap:e}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let grid = TimeGrid::uniform(1.0, 1e-3, 4).expect("a grid");
    let rule = AnnealedLangevin { step: 0.0, repeats: 1, denoise: false };
    assert!(rule.table(&Vp::STANDARD, &grid).is_err());
    assert!(AnnealedLangevin { step: 1e-3, repeats: 0, ..rule }.table(&Vp::STANDARD, &grid).is_err());
    let rotating = AnnealedLangevin { step: 1e-3, repeats: 1, ..rule }.table(&Rotating { omega: 1.3 }, &grid);
    assert!(matches!(rotating, Err(Error::NotScalar { .. })));
    let refused = ScoreSde::Ancestral.table(&SubVp::STANDARD, &grid).expect_err("a process without a chain");
    assert!(refused.to_string().contains("reverse-diffusion"), "{refused}");
    // β₁/N must be a probability: 21 steps at least.
    let coarse = ScoreSde::Ancestral.table(&Vp::STANDARD, &grid);
    assert!(coarse.is_err());
}
