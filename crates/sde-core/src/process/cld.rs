//! Critically damped Langevin diffusion: noise enters the velocity alone, and a harmonic force carries it into the position,
//!
//! `dx = β v/M dt`, `dv = −β x dt − β (Γ/M) v dt + √(2Γβ) dw`, stationary at `N(0, I) × N(0, M I)`, critical at `Γ² = 4M`.
//!
//! With `B = ∫β`, `a = Γ/2M`, `Δ = a² − 1/M`, `f = e^{−aB} sinh(√Δ B)/√Δ` and `g = ḟ` (derivatives in B), any damping has
//!
//! `Ψ = [[g + 2a f, f/M], [−f, g]]`, and started in a point `N_xx = (2Γ/M²) ∫ f²`, `N_xv = (Γ/M) f²`, `N_vv = 2Γ f g + M N_xx + (Γ²/M) f²`,
//!
//! and `Σ = N + Ψ Σ_0 Ψᵀ`, `Σ_0 = diag(ε₀, γM + ε₀)`: velocities start from `N(0, γM I)`, marginalised (hybrid score matching), and
//! ε₀ is numerical. Entries and determinant are sums without cancellation, so they have all digits from t = 0 on, where `Σ_xx ~ t³`.
//!
//! Reference: Dockhorn, Vahdat, Kreis 2022, arXiv 2112.07068, Eq. (3), (7), appendix B; Zhang, Tao, Chen 2022, arXiv 2206.05564, for R.
//! Differs: any damping and a linear β; the closed covariance `diag(1, M) + Ψ (Σ_0 − diag(1, M)) Ψᵀ` of the references, which loses all digits
//! at small t, serves for large t alone.

use nalgebra::DMatrix;

use crate::error::{Result, in_range};
use crate::factor::{FlowFactor, FlowParts};
use crate::process::Auxiliary;
use crate::quadrature::GaussLegendre;
use crate::{LinearSde, Op, Span};

const SPAN: Span = Span { end: 1.0, sampling: 1e-3, likelihood: 1e-5 };

/// Nodes of ∫ f², which is used up to where its integrand has decayed once.
const NODES: usize = 12;

/// What distinguishes one Langevin diffusion from another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CldParameters {
    /// β at t = 0.
    pub beta_0: f64,
    /// β at t = 1, linear in between.
    pub beta_1: f64,
    /// M.
    pub mass: f64,
    /// Γ; `2√M` is critical.
    pub friction: f64,
    /// γ: velocities start with the variance γM.
    pub gamma: f64,
    /// ε₀, added to both variances at t = 0.
    pub jitter: f64,
}

impl CldParameters {
    /// The published ones for images: M = 1/4, β = 4, Γ = 1 (critical), γ = 0.04, ε₀ = 1e-6.
    pub const PUBLISHED: Self =
        Self { beta_0: 4.0, beta_1: 4.0, mass: 0.25, friction: 1.0, gamma: 0.04, jitter: 1e-6 };
}

/// Langevin diffusion of positions and velocities, t in [0, 1].
#[derive(Debug, Clone)]
pub struct Cld {
    motion: Motion,
    flow: FlowFactor,
}

/// What is known in closed form.
#[derive(Debug, Clone)]
struct Motion {
    parameters: CldParameters,
    rule: GaussLegendre,
}

/// f and g of the closed forms, and Ψ_xx.
#[derive(Debug, Clone, Copy)]
struct Response {
    position: f64,
    f: f64,
    g: f64,
}

/// Σ and its determinant.
#[derive(Debug, Clone, Copy)]
struct Spread {
    xx: f64,
    xv: f64,
    vv: f64,
    determinant: f64,
}

impl Cld {
    /// The process with these parameters.
    ///
    /// # Errors
    /// Unless `0 ≤ β₀ ≤ β₁ ≤ 1000`, `β₁ > 0`, M and Γ lie in [1e-4, 1e4], γ in [0, 1e4], ε₀ in [0, 1] and the damping ratio Γ/(2√M) is at most 100.
    pub fn new(parameters: CldParameters) -> Result<Self> {
        let CldParameters { beta_0, beta_1, mass, friction, gamma, jitter } = parameters;
        in_range("beta_0", beta_0, 0.0, 1000.0)?;
        in_range("beta_1", beta_1, beta_0.max(f64::MIN_POSITIVE), 1000.0)?;
        in_range("mass", mass, 1e-4, 1e4)?;
        in_range("friction", friction, 1e-4, 1e4)?;
        in_range("gamma", gamma, 0.0, 1e4)?;
        in_range("jitter", jitter, 0.0, 1.0)?;
        // Damped more, a position has hardly moved when its velocity has forgotten all, and its variance is a difference of what is nearly 1.
        in_range("damping ratio Γ/(2√M)", 0.5 * friction / mass.sqrt(), 0.0, 100.0)?;
        let motion = Motion { parameters, rule: GaussLegendre::new(NODES) };
        // Without any noise at t = 0 the factor turns without end as t falls to 0, so it takes its bearings later.
        let first = if motion.initial().1 > 0.0 { 0.0 } else { SPAN.likelihood };
        let flow = FlowFactor::new(&|t| motion.parts(t), (first, SPAN.end), &[])?;
        Ok(Self { motion, flow })
    }

    /// With the published parameters.
    ///
    /// # Errors
    /// None: it can be constructed.
    pub fn published() -> Result<Self> {
        Self::new(CldParameters::PUBLISHED)
    }

    /// What it was made from.
    pub fn parameters(&self) -> CldParameters {
        self.motion.parameters
    }

    /// Q of R = L Q.
    fn rotation(&self, t: f64) -> DMatrix<f64> {
        self.flow.rotation(&|t| self.motion.parts(t), t)
    }
}

impl Motion {
    /// β_t.
    fn beta(&self, t: f64) -> f64 {
        self.parameters.beta_0 + t * (self.parameters.beta_1 - self.parameters.beta_0)
    }

    /// B = ∫₀ᵗ β.
    fn integral(&self, t: f64) -> f64 {
        t * (self.parameters.beta_0 + 0.5 * t * (self.parameters.beta_1 - self.parameters.beta_0))
    }

    /// The time at which ∫₀ᵗ β equals `integral`, in the form without cancellation.
    fn time_of_integral(&self, integral: f64) -> f64 {
        let CldParameters { beta_0, beta_1, .. } = self.parameters;
        let root = (beta_0.powi(2) + 2.0 * (beta_1 - beta_0) * integral).sqrt();
        if integral == 0.0 { 0.0 } else { 2.0 * integral / (beta_0 + root) }
    }

    /// The variances of Σ_0.
    fn initial(&self) -> (f64, f64) {
        let CldParameters { mass, gamma, jitter, .. } = self.parameters;
        (jitter, gamma * mass + jitter)
    }

    /// a and Δ.
    fn damping(&self) -> (f64, f64) {
        let CldParameters { mass, friction, .. } = self.parameters;
        let a = 0.5 * friction / mass;
        (a, a * a - 1.0 / mass)
    }

    /// Ψ over a stretch b of B, which may be negative.
    fn response(&self, b: f64) -> Response {
        let (a, discriminant) = self.damping();
        let root = discriminant.abs().sqrt();
        let (cosine, sine) = if discriminant > 0.0 {
            // e^{−(a−δ)b} (1 ± e^{−2δb})/2, with (a−δ)(a+δ) = 1/M.
            let slow = (-b / (self.parameters.mass * (a + root))).exp();
            let gap = -(-2.0 * root * b).exp_m1();
            (slow * (1.0 - 0.5 * gap), slow * gap / (2.0 * root))
        } else if discriminant < 0.0 {
            let (sin, cos) = (root * b).sin_cos();
            let decay = (-a * b).exp();
            (decay * cos, decay * sin / root)
        } else {
            let decay = (-a * b).exp();
            (decay, decay * b)
        };
        Response { position: cosine + a * sine, f: sine, g: cosine - a * sine }
    }

    /// Σ after a stretch b.
    fn spread(&self, b: f64) -> Spread {
        let CldParameters { mass, friction, .. } = self.parameters;
        let (a, discriminant) = self.damping();
        let Response { position, f, g } = self.response(b);
        let nxx = if b * (a + discriminant.abs().sqrt()) < 1.0 {
            let square = |tau: f64| self.response(tau).f.powi(2);
            2.0 * friction / (mass * mass) * self.rule.integrate(0.0, b, square)
        } else {
            1.0 - position * position - f * f / mass
        };
        let nxv = friction / mass * f * f;
        let nvv = 2.0 * friction * f * g + mass * nxx + friction * nxv;
        // The columns of Ψ: where a unit of position and of velocity at t = 0 has gone.
        let (of_x, of_v) = ([position, -f], [f / mass, g]);
        let (sx, sv) = self.initial();
        let across = |[x, v]: [f64; 2]| nvv * x * x - 2.0 * nxv * x * v + nxx * v * v;
        let volume = (-4.0 * a * b).exp();
        Spread {
            xx: nxx + sx * of_x[0] * of_x[0] + sv * of_v[0] * of_v[0],
            xv: nxv + sx * of_x[0] * of_x[1] + sv * of_v[0] * of_v[1],
            vv: nvv + sx * of_x[1] * of_x[1] + sv * of_v[1] * of_v[1],
            determinant: nxx * nvv - nxv * nxv + sx * across(of_x) + sv * across(of_v) + sx * sv * volume,
        }
    }

    fn parts(&self, t: f64) -> FlowParts {
        let CldParameters { mass, friction, .. } = self.parameters;
        let (beta, spread) = (self.beta(t), self.spread(self.integral(t)));
        let corner = spread.xx.sqrt();
        // At t = 0 without ε₀ the position has no noise, and nothing to share with the velocity's.
        let (shared, own) = if corner > 0.0 {
            (spread.xv / corner, (spread.determinant / spread.xx).sqrt())
        } else {
            (0.0, spread.vv.sqrt())
        };
        let drift = [0.0, beta / mass, -beta, -beta * friction / mass];
        let diffusion = [0.0, 0.0, 0.0, 2.0 * friction * beta];
        FlowParts {
            cholesky: DMatrix::from_row_slice(2, 2, &[corner, 0.0, shared, own]),
            drift: DMatrix::from_row_slice(2, 2, &drift),
            diffusion: DMatrix::from_row_slice(2, 2, &diffusion),
        }
    }

    /// How fast the process of the clock, `log ρ` of the variance-preserving one that decays as this one does, forgets.
    fn forgetting(&self) -> f64 {
        2.0 / self.parameters.mass.sqrt()
    }
}

impl LinearSde for Cld {
    fn span(&self) -> Span {
        SPAN
    }
    fn drift(&self, t: f64) -> Op {
        Op::Block(self.motion.parts(t).drift)
    }
    fn diffusion(&self, t: f64) -> Op {
        Op::Block(self.motion.parts(t).diffusion)
    }
    fn transition(&self, to: f64, from: f64) -> Op {
        let Response { position, f, g } =
            self.motion.response(self.motion.integral(to) - self.motion.integral(from));
        Op::block([[position, f / self.motion.parameters.mass], [-f, g]])
    }
    fn signal(&self, t: f64) -> Op {
        self.transition(t, 0.0)
    }
    fn signal_rate(&self, t: f64) -> Op {
        let CldParameters { mass, friction, .. } = self.motion.parameters;
        let (Response { position, f, g }, beta) =
            (self.motion.response(self.motion.integral(t)), self.motion.beta(t));
        let damped = friction / mass;
        Op::block([
            [-beta * f / mass, beta * g / mass],
            [beta * (damped * f - position), -beta * (f / mass + damped * g)],
        ])
    }
    fn covariance(&self, t: f64) -> Op {
        let Spread { xx, xv, vv, .. } = self.motion.spread(self.motion.integral(t));
        Op::block([[xx, xv], [xv, vv]])
    }
    fn factor(&self, t: f64) -> Op {
        Op::Block(self.motion.parts(t).cholesky * self.rotation(t))
    }
    fn factor_rate(&self, t: f64) -> Op {
        Op::Block(self.motion.parts(t).factor_rate(&self.rotation(t)))
    }
    fn prior(&self) -> Op {
        Op::block([[1.0, 0.0], [0.0, self.motion.parameters.mass]])
    }
    fn groups(&self) -> usize {
        2
    }
    fn auxiliary(&self) -> Option<Auxiliary> {
        Some(Auxiliary { groups: 1, variance: self.motion.initial().1 })
    }
    fn clock(&self, t: f64) -> f64 {
        // ½ log (e^b − 1)
        let b = self.motion.forgetting() * self.motion.integral(t);
        0.5 * (b + (-(-b).exp_m1()).ln())
    }
    fn time_of_clock(&self, clock: f64) -> f64 {
        // log(1 + e^{2c}), whose exponential may not overflow.
        let b = 2.0 * clock.max(0.0) + (-2.0 * clock.abs()).exp().ln_1p();
        self.motion.time_of_integral(b / self.motion.forgetting())
    }
    fn clock_rate(&self, t: f64) -> f64 {
        let b = self.motion.forgetting() * self.motion.integral(t);
        -0.5 * self.motion.forgetting() * self.motion.beta(t) / (-b).exp_m1()
    }
}
