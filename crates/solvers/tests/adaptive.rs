//! Adaptive solvers: their orders, their evaluations and their states beside scipy's and torchdiffeq's.
//!
//! `scipy_counts.npz` is made by `scipy_counts.py` beside it, from the published formulas of the processes and of the mixtures' scores.

mod support;

use candle_core::{DType, Device, Tensor};
use sde_core::{Converted, Field, OracleField, Prediction};
use sde_solvers::adaptive::{AdaptiveSolution, Ode};
use sde_solvers::{Adaptive, Chart, Control, Outcome, Pair, ProbabilityFlow};
use support::{Golden, largest_gap, process};

const NAMES: [&str; 8] =
    ["vp_gmm8", "vp_ani4", "subvp_gmm8", "subvp_ani4", "ve_gmm8", "ve_ani4", "edm_gmm8", "edm_ani4"];
const PI: Control = Control::Pi { damping: 0.2 };

/// The flow of a reference file from its starts, in t.
fn solve(name: &str, golden: &Golden, solver: &Adaptive) -> AdaptiveSolution {
    let sde = process(name.split('_').next().expect("a process"));
    let data = golden.mixture();
    let field = OracleField::noise(&data, sde.as_ref());
    let times = golden.flat("times");
    let flow = ProbabilityFlow::new(sde.as_ref(), &field, Chart::Time);
    let solution = flow.solve(solver, golden.get("xT"), times[0], times[1]).expect("a solve");
    assert_eq!(solution.unfinished().count(), 0);
    solution
}

fn counts(golden: &Golden, key: &str) -> Vec<usize> {
    let values = golden.get(key).to_vec1::<i64>().expect("counts");
    values.into_iter().map(|n| n as usize).collect()
}

fn largest(x: &Tensor) -> f64 {
    largest_gap(x, &x.zeros_like().expect("a tensor"))
}

#[test]
fn no_more_evaluations_than_scipy_and_the_same_solution() {
    let scipy = Golden::load("scipy_counts");
    for (method, pair) in [("RK45", Pair::DORMAND_PRINCE), ("RK23", Pair::BOGACKI_SHAMPINE)] {
        for tolerance in ["1e-3", "1e-5"] {
            let tol: f64 = tolerance.parse().expect("a number");
            let (mut ours, mut theirs, mut alike, mut samples) = (0, 0, 0, 0);
            for name in NAMES {
                let golden = Golden::load(&format!("pfode_{name}"));
                let solution = solve(name, &golden, &Adaptive { pair, ..Adaptive::new(tol, tol) });
                let key = format!("{name}__{method}_{tolerance}__");
                let expected = counts(&scipy, &format!("{key}nfev"));
                ours += solution.reports.iter().map(|r| r.nfe).sum::<usize>();
                theirs += expected.iter().sum::<usize>();
                alike += solution.reports.iter().zip(&expected).filter(|(r, n)| r.nfe == **n).count();
                samples += expected.len();
                let gap = largest_gap(&solution.y, scipy.get(&format!("{key}x")));
                // The rules are the same, so states differ by rounding, however much that is amplified by the steps it moves.
                assert!(gap < tol * largest(&solution.y).max(1.0), "{key}: {gap:e}");
            }
            assert!(ours as f64 <= 1.05 * theirs as f64, "{method} {tolerance}: {ours} against {theirs}");
            // Rounding may turn the decision on a step; in a few samples at most.
            assert!(alike as f64 >= 0.95 * samples as f64, "the same count in {alike} of {samples}");
        }
    }
}

#[test]
fn at_tight_tolerances_as_scipy() {
    let (mut ours, mut theirs) = (0, 0);
    for name in NAMES {
        let golden = Golden::load(&format!("pfode_{name}"));
        let solution = solve(name, &golden, &Adaptive::new(1e-10, 1e-12));
        ours += solution.reports.iter().map(|r| r.nfe).sum::<usize>();
        theirs += counts(&golden, "nfev_rk45").iter().sum::<usize>();
        let gap = largest_gap(&solution.y, golden.get("x_rk45"));
        assert!(gap < 1e-9 * largest(&solution.y).max(1.0), "{name}: {gap:e}");
    }
    assert!(ours as f64 <= 1.05 * theirs as f64, "{ours} against {theirs}");
}

/// A whole batch as one state, as solvers without a batch see it.
struct Whole<'a, F> {
    dims: &'a [usize],
    slope: F,
}

impl<F: Fn(&Tensor, f64) -> sde_core::Result<Tensor>> Ode for Whole<'_, F> {
    fn rhs(&self, y: &Tensor, t: &[f64], _: &[usize]) -> sde_core::Result<Tensor> {
        Ok((self.slope)(&y.reshape(self.dims)?, t[0])?.reshape(y.dims())?)
    }
}

#[test]
fn a_batch_taken_as_one_state_takes_scipys_steps() {
    for name in NAMES {
        let golden = Golden::load(&format!("pfode_{name}"));
        let sde = process(name.split('_').next().expect("a process"));
        let data = golden.mixture();
        let field = OracleField::noise(&data, sde.as_ref());
        let velocity = Converted::new(&field, sde.as_ref(), Prediction::Velocity);
        let (start, times) = (golden.get("xT"), golden.flat("times"));
        let whole = Whole { dims: start.dims(), slope: |x: &Tensor, t: f64| velocity.eval(x, &[t]) };
        let flat = start.reshape((1, start.elem_count())).expect("one state");
        let solution =
            Adaptive::new(1e-5, 1e-5).integrate(&whole, &flat, times[0], times[1]).expect("a solve");
        let report = solution.reports[0];
        assert_eq!(report.nfe, counts(&golden, "nfev_rk45_batch_1e5")[0], "{name}");
        assert_eq!(report.accepted + 1, golden.get("t_rk45_batch_1e5").elem_count(), "{name}");
        let gap = largest_gap(
            &solution.y.reshape(start.dims()).expect("the batch"),
            golden.get("x_rk45_batch_1e5"),
        );
        assert!(gap < 1e-8, "{name}: {gap:e}");
    }
}

#[test]
fn end_states_of_torchdiffeq() {
    let golden = Golden::load("torchdiffeq_vp_gmm8");
    let (sde, data) = (process("vp"), golden.mixture());
    let field = OracleField::noise(&data, sde.as_ref());
    let start = golden.get("xT");
    let (alpha, last) = (support::scalar(&sde.signal(1.0)), support::scalar(&sde.signal(1e-3)));
    // dy/dl = ρ ε(α y), l = log ρ, y = x/α.
    let slope = |y: &Tensor, l: f64| {
        let t = sde.time_of_clock(l);
        let noise = field.eval(&y.affine(support::scalar(&sde.signal(t)), 0.0)?, &[t])?;
        Ok(noise.affine(l.exp(), 0.0)?)
    };
    let y =
        start.affine(1.0 / alpha, 0.0).and_then(|y| y.reshape((1, start.elem_count()))).expect("one state");
    let whole = Whole { dims: start.dims(), slope };
    let run = |solver: Adaptive| {
        let solution = solver.integrate(&whole, &y, sde.clock(1.0), sde.clock(1e-3)).expect("a solve");
        solution.y.reshape(start.dims()).and_then(|y| y.affine(last, 0.0)).expect("the batch")
    };
    let exact = run(Adaptive::new(1e-13, 1e-14));
    for (name, pair) in [("dopri5", Pair::DORMAND_PRINCE), ("bosh3", Pair::BOGACKI_SHAMPINE)] {
        for tolerance in ["0.001", "1e-05"] {
            let tol: f64 = tolerance.parse().expect("a number");
            let x = run(Adaptive { pair, ..Adaptive::new(tol, tol) });
            let theirs = golden.get(&format!("{name}_{tolerance}__x"));
            let gap = largest_gap(&x, theirs);
            let (ours, peer) = (largest_gap(&x, &exact), largest_gap(theirs, &exact));
            // The peer has a control of its own, so the two differ by their errors; ours is of the same size or smaller.
            assert!(ours < 2.0 * peer, "{name} {tolerance}: {ours:e} from the flow, the peer {peer:e}");
            assert!(gap < 100.0 * tol, "{name} {tolerance}: {gap:e} from the peer");
        }
    }
}

#[test]
fn every_pair_and_control_reaches_the_flow_and_pi_rejects_less() {
    let mut rejected = [0, 0];
    for name in NAMES {
        let golden = Golden::load(&format!("pfode_{name}"));
        for pair in Pair::ALL {
            let mut nfe = [0, 0];
            for (i, control) in [Control::Elementary, PI].into_iter().enumerate() {
                let solver = Adaptive { pair, control, ..Adaptive::new(1e-6, 1e-6) };
                let solution = solve(name, &golden, &solver);
                nfe[i] = solution.reports.iter().map(|r| r.nfe).sum::<usize>();
                rejected[i] += solution.reports.iter().map(|r| r.rejected).sum::<usize>();
                let gap = largest_gap(&solution.y, golden.get("x_best"));
                assert!(gap < 3e-4, "{name} {} {control:?}: {gap:e}", pair.name());
            }
            assert!(nfe[1] as f64 <= 1.25 * nfe[0] as f64, "{name} {}: {nfe:?}", pair.name());
        }
    }
    assert!(rejected[1] < rejected[0], "{rejected:?}");
}

/// y' = −2 t y.
struct Bell;

impl Ode for Bell {
    fn rhs(&self, y: &Tensor, t: &[f64], _: &[usize]) -> sde_core::Result<Tensor> {
        let t = Tensor::new(t, y.device())?.unsqueeze(1)?;
        Ok(y.broadcast_mul(&t)?.affine(-2.0, 0.0)?)
    }
}

#[test]
fn errors_fall_with_the_order_of_the_pair() {
    let y = Tensor::ones((1, 1), DType::F64, &Device::Cpu).expect("a tensor");
    for pair in Pair::ALL {
        for control in [Control::Elementary, PI] {
            let error = |rtol: f64| {
                let solver = Adaptive { pair, control, ..Adaptive::new(rtol, 0.0) };
                let solution = solver.integrate(&Bell, &y, 0.0, 1.5).expect("a solve");
                assert_eq!((solution.reports[0].outcome, solution.reports[0].t), (Outcome::Finished, 1.5));
                let value = solution.y.to_vec2::<f64>().expect("a number")[0][0];
                ((value / (-2.25f64).exp() - 1.0).abs(), solution.reports[0].accepted as f64)
            };
            let ((coarse, n1), (fine, n2)) = (error(1e-8), error(1e-12));
            let order = (coarse / fine).ln() / (n2 / n1).ln();
            let gap = order - pair.order() as f64;
            // Where leading terms of the error cancel along this solution, it falls faster.
            assert!((-0.5..1.5).contains(&gap), "{} {control:?}: order {order}", pair.name());
        }
    }
}

#[test]
fn a_damping_that_makes_no_sense_is_refused() {
    let y = Tensor::ones((1, 1), DType::F64, &Device::Cpu).expect("a tensor");
    let solver = Adaptive { control: Control::Pi { damping: 1.5 }, ..Adaptive::new(1e-3, 1e-3) };
    let error = solver.integrate(&Bell, &y, 0.0, 1.0).expect_err("a damping above 1");
    assert!(error.to_string().contains("damping"), "{error}");
}
