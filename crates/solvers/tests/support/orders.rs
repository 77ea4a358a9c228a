//! The order of convergence of a table against a flow that is known to 1e-13, entered in its middle with exact history.

use std::cell::RefCell;
use std::collections::HashMap;

use candle_core::Tensor;
use nalgebra::DMatrix;
use sde_core::Field;
use sde_core::oracle::Mixture;
use sde_core::{Converted, LinearSde, OracleField, TimeGrid};
use sde_solvers::catalog::{ChurnSettings, Settings};
use sde_solvers::{Adaptive, Chart, Clipping, Error, Langevin, Multistep, Norms, ProbabilityFlow};

use super::rotating::Rotating;
use super::{largest_gap, process, resume, tensor};

/// Steps before the interval: enough for the history of any rule.
pub const LEAD: usize = 4;

/// A process, data, and the interval the order is measured on.
pub struct Case {
    pub name: &'static str,
    pub sde: Box<dyn LinearSde>,
    data: Mixture,
    from: f64,
    to: f64,
    /// States of one solution of the probability flow, by the bits of the time.
    flow: RefCell<HashMap<u64, Tensor>>,
}

/// The scalar processes, and one that turns.
pub fn cases() -> Vec<Case> {
    let intervals = [
        ("vp", 0.6, 0.1),
        ("ve", 0.8, 0.4),
        ("subvp", 0.5, 0.15),
        ("edm", 2.0, 0.3),
        ("linear", 0.7, 0.2),
        ("cosine", 0.7, 0.2),
    ];
    let scalar = intervals.into_iter().map(|(name, from, to)| Case::new(name, process(name), (from, to)));
    let rotating = Case::new("rotating", Box::new(Rotating { omega: 1.3 }), (1.0, 0.2));
    scalar.chain(std::iter::once(rotating)).collect()
}

impl Case {
    /// On data of two entries that is not Gaussian.
    pub fn new(name: &'static str, sde: Box<dyn LinearSde>, (from, to): (f64, f64)) -> Self {
        let covariances =
            [[0.25, 0.1, 0.1, 0.3], [0.4, -0.1, -0.1, 0.2]].map(|c| DMatrix::from_row_slice(2, 2, &c));
        let means = [vec![0.7, -0.2], vec![-0.5, 0.4]];
        let data = Mixture::new(&[0.6, 0.4], &means, &covariances).expect("a mixture");
        Self { name, sde, data, from, to, flow: RefCell::new(HashMap::new()) }
    }

    fn scale(&self) -> f64 {
        self.sde.factor(self.from).max_abs()
    }

    /// The solution that starts at (1.3, −0.6) times the noise's deviation.
    fn exact(&self, t: f64) -> Tensor {
        let start = || tensor(&[vec![1.3 * self.scale(), -0.6 * self.scale()]]);
        if t == self.from {
            return start();
        }
        let solve = || {
            let field = OracleField::noise(&self.data, self.sde.as_ref());
            let flow = ProbabilityFlow::new(self.sde.as_ref(), &field, Chart::Time);
            let solution = flow.solve(&Adaptive::new(1e-13, 1e-14), &start(), self.from, t).expect("a solve");
            assert_eq!(solution.unfinished().count(), 0);
            solution.y
        };
        self.flow.borrow_mut().entry(t.to_bits()).or_insert_with(solve).clone()
    }

    /// The error of a rule after `n` equal steps, relative to the noise at the start; `lead` steps of exact history.
    fn error(&self, rule: &dyn Multistep, n: usize, lead: usize) -> Result<f64, Error> {
        let sde = self.sde.as_ref();
        let h = (self.from - self.to) / n as f64;
        let time = |i: usize| if i == n { self.from } else { self.to + h * i as f64 };
        let times = (0..=n + lead).rev().map(time).collect();
        let table = rule.table(sde, &TimeGrid::new(times).expect("a grid"))?;
        let row = table.updates.iter().position(|update| update.step == lead).expect("a row");
        let field = OracleField::noise(&self.data, sde);
        let converted = Converted::new(&field, sde, table.of);
        let before = table.updates[..row].iter().rev().map(|update| update.from);
        let history = before.map(|t| converted.eval(&self.exact(t), &[t]).expect("a prediction")).collect();
        let end = resume(&table, row, sde, &field, &self.exact(self.from), history);
        Ok(largest_gap(&end, &self.exact(self.to)) / self.scale())
    }

    /// The order between the finest two step counts whose errors are above that of the exact solution.
    fn order(&self, rule: &dyn Multistep, lead: usize, finest: usize) -> Result<f64, Error> {
        let mut pair = [f64::NAN; 2];
        for n in [20, 40, 80, 160, 320, 640, 1280].into_iter().filter(|n| *n <= finest) {
            let error = self.error(rule, n, lead)?;
            if error < 3e-11 {
                break;
            }
            pair = [pair[1], error];
        }
        Ok((pair[0] / pair[1]).log2())
    }
}

/// Asserts the order of each rule on each process; a rule that is for scalar processes must refuse the others.
pub fn assert_orders(cases: &[Case], rules: &[(Box<dyn Multistep>, f64)], lead: usize, finest: usize) {
    let mut wrong = Vec::new();
    for case in cases {
        for (rule, expected) in rules {
            let name = rule.name();
            match case.order(rule.as_ref(), lead, finest) {
                Ok(order) if (order - expected).abs() < 0.4 => {}
                Ok(order) => wrong.push(format!("{} {name}: order {order:.3}, not {expected}", case.name)),
                Err(Error::NotScalar { .. }) => assert!(
                    case.sde.transition(case.from, case.to).as_scalar().is_none(),
                    "{} {name}",
                    case.name
                ),
                Err(other) => panic!("{} {name}: {other}", case.name),
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

pub fn boxed(rule: impl Multistep + 'static, order: f64) -> (Box<dyn Multistep>, f64) {
    (Box::new(rule), order)
}

/// Settings without noise where it can be turned off, but for churn.
pub fn settings() -> Settings {
    Settings {
        eta: 0.0,
        lambda: 0.0,
        lower_final: false,
        churn: ChurnSettings::CIFAR10_VP,
        between: 0.5,
        corrector: Langevin { snr: 0.16, steps: 1, norms: Norms::Sample },
        annealed: (2e-5, 3),
        clipping: Clipping::NONE,
        sde_tolerances: [1e-2, 1e-2],
        adaptive: Adaptive::new(1e-9, 1e-9),
        chart: None,
    }
}
