//! Critically damped Langevin.
use nalgebra::DMatrix;
use sde_core::{FlowFactor, FlowParts, LinearSde, Op, Span};

pub struct Cld {
    pub gamma: f64,
    pub eps: f64,
    flow: FlowFactor,
}
const M: f64 = 0.25;
const BETA: f64 = 4.0;

fn parts(gamma: f64, eps: f64) -> impl Fn(f64) -> FlowParts {
    move |t| {
        FlowParts::new(mat(&drift()), mat(&Op::block([[0.0, 0.0], [0.0, 2.0 * BETA]])), &cov(gamma, eps, t))
    }
}
fn mat(op: &Op) -> DMatrix<f64> {
    op.matrix(2).unwrap()
}
fn drift() -> Op {
    Op::block([[0.0, BETA / M], [-BETA, -BETA / M]])
}
fn cov(gamma: f64, eps: f64, t: f64) -> DMatrix<f64> {
    let m = M.sqrt();
    let y = BETA * t / m;
    let z = 2.0 * y;
    let tail = if z < 0.5 {
        (3..25).rev().fold(0.0, |s: f64, k| (s + 1.0) * z / f64::from(k)) * z * z / 2.0
    } else {
        z.exp_m1() - z - z * z / 2.0
    };
    let e = (-z).exp();
    let xx = (gamma * y * y + tail + eps * ((1.0 + y).powi(2) + y * y / M)) * e;
    let xv = (m * y * (z - y * gamma + gamma) + eps * (-(1.0 + y) * BETA * t + y / m * (1.0 - y))) * e;
    let vv = (M * (z.exp_m1() + z - 2.0 * y * y + gamma * (y - 1.0).powi(2))
        + eps * ((BETA * t).powi(2) + (1.0 - y).powi(2)))
        * e;
    DMatrix::from_row_slice(2, 2, &[xx, xv, xv, vv])
}
impl Cld {
    pub fn new(gamma: f64, eps: f64) -> Self {
        let flow =
            FlowFactor::new(&parts(gamma, eps), (if eps > 0.0 { 0.0 } else { 1e-4 }, 1.0), &[]).unwrap();
        Self { gamma, eps, flow }
    }
    fn parts(&self) -> impl Fn(f64) -> FlowParts {
        parts(self.gamma, self.eps)
    }
}
impl LinearSde for Cld {
    fn span(&self) -> Span {
        Span { end: 1.0, sampling: 1e-3, likelihood: 1e-5 }
    }
    fn drift(&self, _: f64) -> Op {
        drift()
    }
    fn diffusion(&self, _: f64) -> Op {
        Op::block([[0.0, 0.0], [0.0, 2.0 * BETA]])
    }
    fn transition(&self, to: f64, from: f64) -> Op {
        let b = BETA * (to - from);
        let y = b / M.sqrt();
        Op::block([[1.0 + y, b / M], [-b, 1.0 - y]]).scale((-y).exp())
    }
    fn signal(&self, t: f64) -> Op {
        self.transition(t, 0.0)
    }
    fn signal_rate(&self, t: f64) -> Op {
        drift().mul(&self.signal(t)).unwrap()
    }
    fn covariance(&self, t: f64) -> Op {
        Op::Block(cov(self.gamma, self.eps, t))
    }
    fn factor(&self, t: f64) -> Op {
        Op::Block(self.flow.at(&self.parts(), t))
    }
    fn factor_rate(&self, t: f64) -> Op {
        let p = self.parts();
        Op::Block(p(t).factor_rate(&self.flow.rotation(&p, t)))
    }
    fn prior(&self) -> Op {
        Op::block([[1.0, 0.0], [0.0, M]])
    }
    fn groups(&self) -> usize {
        2
    }
    fn clock(&self, t: f64) -> f64 {
        0.5 * (16.0 * t).exp_m1().ln()
    }
    fn time_of_clock(&self, c: f64) -> f64 {
        (2.0 * c).exp().ln_1p() / 16.0
    }
    fn clock_rate(&self, t: f64) -> f64 {
        8.0 / -(-16.0 * t).exp_m1()
    }
}
