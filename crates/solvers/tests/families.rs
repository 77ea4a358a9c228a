//! Samplers on the flexible diffusions: the recursion of Euler–Maruyama against values computed elsewhere, FP-Drift as VP in a rotating frame, orders of convergence.

mod support;

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use nalgebra::{DMatrix, DVector};
use sde_core::oracle::Mixture;
use sde_core::process::{Clocked, Commuting, Langevin, LinearPair, Vp};
use sde_core::{
    Basis, Converted, Field, LinearSde, OracleField, Prediction, Result, RotatingFrame, TimeGrid,
};
use sde_solvers::{Adaptive, Chart, Ddim, EulerMaruyama, Form, Multistep, Outcome, ProbabilityFlow, Tab};
use support::moments::{Moments, exact, propagate};
use support::{largest_gap, resume, tensor};

fn q1() -> DMatrix<f64> {
    DMatrix::from_row_slice(3, 3, &[2.0, 0.3, 0.1, 0.3, 1.0, -0.2, 0.1, -0.2, 0.5])
}

fn omega1() -> DMatrix<f64> {
    DMatrix::from_row_slice(3, 3, &[0.0, 0.7, -0.4, -0.7, 0.0, 1.1, 0.4, -1.1, 0.0])
}

/// The Gaussian of the specification's golden values.
fn data() -> (DVector<f64>, DMatrix<f64>, Mixture) {
    let mean = DVector::from_row_slice(&[0.5, -1.0, 0.2]);
    let covariance = DMatrix::from_row_slice(3, 3, &[0.5, 0.2, 0.0, 0.2, 0.8, -0.1, 0.0, -0.1, 0.3]);
    let mixture = Mixture::new(&[1.0], &[mean.as_slice().to_vec()], std::slice::from_ref(&covariance));
    (mean, covariance, mixture.expect("a Gaussian"))
}

/// Both non-commuting and commuting, with VP's clock.
fn processes(vp: Vp) -> Result<[(&'static str, Box<dyn LinearSde>); 4]> {
    Ok([
        ("G1", Box::new(Clocked::new(LinearPair::of(q1(), &omega1(), 1.0)?, vp)?)),
        ("FP-Drift", Box::new(Clocked::new(Commuting::fp_drift(&omega1(), 1.0)?, vp)?)),
        ("FP-Noise", Box::new(Clocked::new(Commuting::of(&q1(), &DMatrix::zeros(3, 3), 1.0)?, vp)?)),
        ("VP", Box::new(vp)),
    ])
}

fn divergence(a: &Moments, b: &Moments) -> f64 {
    let precision = b.covariance.clone().try_inverse().expect("definite");
    let ratio = &precision * &a.covariance;
    let gap = &a.mean - &b.mean;
    0.5 * (ratio.trace() - 3.0 - ratio.determinant().ln() + gap.dot(&(&precision * &gap)))
}

#[test]
fn euler_maruyama_errs_as_its_linear_recursion_does() -> Result<()> {
    let (mean, covariance, mixture) = data();
    let grid = TimeGrid::uniform(1.0, 1e-3, 1000)?;
    let start = || Moments { mean: DVector::zeros(3), covariance: DMatrix::identity(3, 3) };
    // The divergence from the exact law at 1e-3 after 1000 uniform steps from N(0, I), λ = 1 and λ = 0.
    let expected = [(8.938e-5, 3.417e-2), (5.436e-5, 3.380e-2), (4.636e-6, 6.07e-4), (2.028e-6, 2.59e-5)];
    for ((name, sde), (stochastic, flow)) in processes(Vp::STANDARD)?.iter().zip(expected) {
        let goal = exact((&mean, &covariance), sde.as_ref(), 1e-3);
        let run = |table| divergence(&propagate(&table, &mixture, sde.as_ref(), start()), &goal);
        for (lambda, expected) in [(1.0, stochastic), (0.0, flow)] {
            let found = run(EulerMaruyama { lambda }.table(sde.as_ref(), &grid).expect("a table"));
            // Three digits are given.
            assert!(
                (found / expected - 1.0).abs() < 2e-3,
                "{name}, λ = {lambda}: {found:e} for {expected:e}"
            );
        }
        // The exact transition does not inflate rotations, of which Euler makes 3e-2.
        let ddim = run(Ddim { eta: 0.0, form: Form::Noise }.table(sde.as_ref(), &grid).expect("a table"));
        assert!(flow < 1e-2 || ddim < 0.01 * flow, "{name}: {ddim:e}");
    }
    Ok(())
}

/// The flow of `data` through one state at t = 0.6, integrated once for each time that is asked for.
struct Flow<'a> {
    sde: &'a dyn LinearSde,
    data: &'a Mixture,
    known: RefCell<HashMap<u64, Tensor>>,
}

impl Flow<'_> {
    const SPAN: (f64, f64) = (0.6, 0.2);

    fn at(&self, t: f64) -> Tensor {
        let start = || tensor(&[(0..self.data.dim()).map(|i| 1.3 - 0.9 * i as f64).collect()]);
        let solve = || {
            let field = OracleField::noise(self.data, self.sde);
            let flow = ProbabilityFlow::new(self.sde, &field, Chart::Time);
            flow.solve(&Adaptive::new(1e-12, 1e-13), &start(), Self::SPAN.0, t).expect("a solution").y
        };
        let of = |t: f64| if t == Self::SPAN.0 { start() } else { solve() };
        self.known.borrow_mut().entry(t.to_bits()).or_insert_with(|| of(t)).clone()
    }

    /// The error of tAB after `n` equal steps in t from exact states and predictions.
    fn tab_error(&self, degree: usize, n: usize) -> f64 {
        let (lead, (from, to)) = (3, Self::SPAN);
        let time = |i: usize| if i == n { from } else { to + (from - to) / n as f64 * i as f64 };
        let grid = TimeGrid::new((0..=n + lead).rev().map(time).collect()).expect("a grid");
        let table = Tab { degree }.table(self.sde, &grid).expect("a table");
        let field = OracleField::noise(self.data, self.sde);
        let before = table.updates[..lead].iter().rev().map(|update| update.from);
        let history = before.map(|t| field.eval(&self.at(t), &[t]).expect("a prediction")).collect();
        largest_gap(&resume(&table, lead, self.sde, &field, &self.at(from), history), &self.at(to))
    }
}

#[test]
fn orders_of_convergence_hold_on_every_family() -> Result<()> {
    let mixture = |dim: usize| {
        let entries = |a: f64| (0..dim).map(|i| a + 0.3 * i as f64).collect::<Vec<f64>>();
        Mixture::of_diagonals(&[0.6, 0.4], &[entries(-0.5), entries(0.2)], vec![entries(0.2), entries(0.4)])
    };
    let mut families: Vec<(&str, usize, Box<dyn LinearSde>)> =
        processes(Vp::STANDARD)?.into_iter().map(|(name, sde)| (name, 3, sde)).collect();
    let blocks = Langevin::new(Arc::new(Basis::dct(2, 2)), &[(1.0, 2.0), (0.8, 0.7)], 1.0)?;
    families.push(("Langevin", 4, Box::new(Clocked::new(blocks, Vp::STANDARD)?)));
    for (name, dim, sde) in &families {
        let data = mixture(*dim)?;
        let flow = Flow { sde: sde.as_ref(), data: &data, known: RefCell::default() };
        for degree in 0..=3 {
            let [coarse, fine] = [40, 80].map(|n| flow.tab_error(degree, n));
            let order = (coarse / fine).log2();
            assert!(
                (order - degree as f64 - 1.0).abs() < 0.4,
                "{name}, degree {degree}: {order:.2} ({fine:e})"
            );
        }
    }
    Ok(())
}

fn points() -> Tensor {
    tensor(&[vec![0.3, 0.1, -0.7], vec![-1.2, 0.4, 2.0]])
}

#[test]
fn fp_drift_is_vp_in_a_rotating_frame() -> Result<()> {
    let (_, _, mixture) = data();
    let process = || Clocked::new(Commuting::fp_drift(&omega1(), 1.0)?, Vp::STANDARD);
    let (fp, vp) = (process()?, Vp::STANDARD);
    let times = [0.2, 0.7];
    let same = |turned: &dyn Field, exact: &dyn Field| -> Result<()> {
        let (x, v) = (points(), tensor(&[vec![1.0, -0.3, 0.2], vec![0.5, 2.0, -1.0]]));
        assert_eq!(turned.prediction(), exact.prediction());
        assert!(largest_gap(&turned.eval(&x, &times)?, &exact.eval(&x, &times)?) < 1e-12);
        let (a, b) = (turned.vjps(&x, &times, std::slice::from_ref(&v))?, exact.vjps(&x, &times, &[v])?);
        assert!(largest_gap(&a.0, &b.0) < 1e-12 && largest_gap(&a.1[0], &b.1[0]) < 1e-11);
        Ok(())
    };
    let (of_vp, of_fp) = (OracleField::noise(&mixture, &vp), OracleField::noise(&mixture, &fp));
    same(&RotatingFrame::new(of_vp, process()?)?, &of_fp)?;
    same(
        &RotatingFrame::new(OracleField::data(&mixture, &vp), process()?)?,
        &OracleField::data(&mixture, &fp),
    )?;
    let score = |sde| Converted::new(OracleField::noise(&mixture, sde), sde, Prediction::Score);
    same(&RotatingFrame::new(score(&vp), process()?)?, &score(&fp))?;
    // What it is not made for.
    let velocity = Converted::new(of_vp, &vp, Prediction::Velocity);
    assert!(
        RotatingFrame::new(velocity, process()?).is_err_and(|e| e.to_string().contains("Prediction::Noise"))
    );
    let noise = Clocked::new(Commuting::of(&q1(), &DMatrix::zeros(3, 3), 1.0)?, Vp::STANDARD)?;
    assert!(RotatingFrame::new(of_vp, noise).is_err());
    Ok(())
}

#[test]
fn the_flow_ends_where_it_was_computed_elsewhere() -> Result<()> {
    // Clock 0 → 3 with ḃ = 1 per unit: β = 3 on [0, 1].
    let (_, _, mixture) = data();
    let ends = [
        [-0.5624686, 0.9110316, 1.4981323],
        [-0.5116562, 0.9772551, 1.4615933],
        [f64::NAN; 3],
        [1.0346441, -1.4514140, 0.4195038],
    ];
    let solver = Adaptive::new(1e-11, 1e-11);
    for ((name, sde), end) in processes(Vp::new(3.0, 3.0)?)?.iter().zip(ends) {
        let field = OracleField::noise(&mixture, sde.as_ref());
        let x = Tensor::new(&[[1.0, -2.0, 0.5]], &Device::Cpu)?;
        let flow = ProbabilityFlow::new(sde.as_ref(), &field, Chart::Time);
        let found = flow.solve(&solver, &x, 1e-9, 1.0).expect("a solution");
        assert_eq!(found.reports[0].outcome, Outcome::Finished);
        if !end[0].is_nan() {
            let gap = largest_gap(&found.y, &tensor(&[end.to_vec()]));
            assert!(gap < 1e-7, "{name}: {gap:e}");
        }
    }
    Ok(())
}
