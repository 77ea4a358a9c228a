//! End states against two independent libraries of samplers, run in f64 from given starts and given noise: diffusers' schedulers and
//! k-diffusion's samplers at 5, 10, 20 and 50 steps, on an exact ε. Schedulers that hold y = u/α are compared in y.
//!
//! The files' tolerance is 1e-9 relative, or the distance at which a restatement was found from the peer, which is rounding. Nothing here is further from a
//! peer than 1e-12 of the largest entry, unless a line says why.

mod support;

use std::f64::consts::FRAC_PI_2;

use sde_core::noise::{BatchNoise, Noise, Recorded};
use sde_core::process::{Discrete, Edm, Vp};
use sde_core::{LinearSde, OracleField, ScalarSde, Span, TimeGrid};
use sde_solvers::{
    Axis, Churn, Ddim, Ddpm, Dpm2, DpmSolver, Form, LogAb, Multistep, Pndm, RhoAb, RungeKutta, SdeDpmSolver,
    Slope, Start, Tableau, UniPc, Variance,
};
use support::{Golden, largest_gap, resume};

/// How a setting of a peer is run here.
struct Setting {
    sde: Box<dyn LinearSde>,
    times: Vec<f64>,
    rule: Box<dyn Multistep>,
    /// u at the start is this times the file's x_T, and the file's end state is u/`last`.
    first: f64,
    last: f64,
}

fn setting(golden: &Golden, name: &str, steps: usize) -> Option<Setting> {
    let rule = rule(golden, name, steps)?;
    let flat = |what: &str| golden.flat(&format!("{name}__N{steps}__{what}"));
    let sigmas = |sde: &dyn ScalarSde| {
        let mut sigmas = flat("sigmas");
        // Heun's list holds every inner value twice.
        sigmas.dedup();
        sigmas.iter().map(|&sigma| sde.t_of_rho(sigma)).collect::<Vec<f64>>()
    };
    let (family, chart) = name.split_once('_').unwrap_or((name, ""));
    let discrete = Discrete::ddpm();
    let setting = |sde: Box<dyn LinearSde>, times: Vec<f64>, held: bool, start: f64| {
        let alpha = |t: f64| sde.signal(t).as_scalar().expect("a scalar process");
        let (first, last) =
            if held { (alpha(times[0]) * start, alpha(times[times.len() - 1])) } else { (1.0, 1.0) };
        Setting { rule, times, sde, first, last }
    };
    Some(match family {
        "ddim" | "ddpm" | "pndm" => {
            // Index n of the peer is t = n + 1. The last step leads to the data, except with pndm, whose settings keep the α of index 0 there: its last step
            // then leads nowhere.
            let spacing = 1000 / steps;
            let data = (family != "pndm").then_some(0.0);
            let times = (0..steps).rev().map(|i| (i * spacing + 1) as f64).chain(data).collect();
            setting(Box::new(discrete), times, false, 1.0)
        }
        "heun" | "euler" => {
            let times = sigmas(&discrete);
            let start = flat("sigmas")[0];
            setting(Box::new(discrete), times, true, start)
        }
        "ipndm" => setting(Box::new(Vp::STANDARD), flat("tgrid"), false, 1.0),
        // The peer starts from √(σ_max² + 1).
        "edm" => setting(Box::new(Edm::STANDARD), sigmas(&Edm::STANDARD), true, 6401f64.sqrt()),
        "kd" if chart.ends_with("karras") => {
            setting(Box::new(Edm::STANDARD), sigmas(&Edm::STANDARD), true, 80.0)
        }
        "kd" => {
            let start = flat("sigmas")[0];
            setting(Box::new(Vp::STANDARD), sigmas(&Vp::STANDARD), true, start)
        }
        _ => setting(Box::new(discrete.clone()), sigmas(&discrete), false, 1.0),
    })
}

fn rule(golden: &Golden, name: &str, steps: usize) -> Option<Box<dyn Multistep>> {
    // diffusers lowers the order at the end below 15 steps.
    let lower_final = steps < 15;
    let log_ab = |form, degree| Box::new(LogAb { form, degree, lower_final });
    let dpm = |form, order| Box::new(DpmSolver { form, order, lower_final });
    let name = name.strip_suffix("_karras").unwrap_or(name);
    let name = name.strip_suffix("_vp").unwrap_or(name);
    Some(match name {
        "ddim_eta0" | "euler" | "edm_euler" | "kd_euler" => Box::new(Ddim::DETERMINISTIC),
        // Euler-ancestral is DDIM with η = 1: y + (ρ_down − ρ) ε + ρ_up z, ρ_up = ρ' √(1 − ρ'²/ρ²), ρ_down² = ρ'² − ρ_up².
        "ddim_eta1" | "kd_euler_ancestral" => Box::new(Ddim { eta: 1.0, form: Form::Noise }),
        "ddpm_small" => Box::new(Ddpm { variance: Variance::Small }),
        "ddpm_large" | "ddpm_large_long" => Box::new(Ddpm { variance: Variance::Large }),
        "deis_logrho_o1" => log_ab(Form::Noise, 0),
        "deis_logrho_o2" => log_ab(Form::Noise, 1),
        "deis_logrho_o3" => log_ab(Form::Noise, 2),
        "dpmpp_2m_midpoint_zero" => dpm(Form::Data, 2),
        "dpmpp_2m_heun_sigmamin" => log_ab(Form::Data, 1),
        "dpm_2m_sigmamin" => dpm(Form::Noise, 2),
        "dpm_3m_sigmamin" => dpm(Form::Noise, 3),
        "sde_dpmpp_2m_zero" => Box::new(SdeDpmSolver { lambda: 1.0, slope: Slope::Midpoint, lower_final }),
        "unipc_bh2_o2" => Box::new(UniPc { order: 2, lower_final: true }),
        "heun" => Box::new(RungeKutta::EDM),
        "kd_heun" => Box::new(RungeKutta { last_euler: false, ..RungeKutta::EDM }),
        "pndm_prk" => Box::new(Pndm { start: Start::RungeKutta, order: 4 }),
        "pndm_skipprk" => Box::new(Pndm { start: Start::Heun, order: 4 }),
        "ipndm_vplinear" => Box::new(Pndm { start: Start::Lower, order: 4 }),
        "kd_lms4" => Box::new(RhoAb { degree: 3 }),
        "kd_lms2" => Box::new(RhoAb { degree: 1 }),
        "kd_dpm2" => Box::new(Dpm2 { eta: 0.0 }),
        "kd_dpmpp2m" => Box::new(DpmSolver { form: Form::Data, order: 2, lower_final: false }),
        "kd_dpmpp2m_sde_midpoint" => {
            Box::new(SdeDpmSolver { lambda: 1.0, slope: Slope::Midpoint, lower_final: false })
        }
        "kd_heun_churn" => {
            let key = golden.keys().find(|key| key.ends_with("__churn"))?;
            let [churn, lowest, highest, noise] = golden.flat(key).try_into().ok()?;
            let solver = RungeKutta { tableau: Tableau::HEUN2, axis: Axis::Rho, last_euler: false };
            Box::new(Churn { solver, churn, lowest, highest, noise })
        }
        _ => return None,
    })
}

#[test]
fn end_states_agree_with_two_libraries() {
    let mut compared = 0;
    for file in ["samplers_gmm8", "samplers_ani4"] {
        let golden = Golden::load(file);
        let data = golden.mixture();
        for key in golden.keys().filter(|key| key.ends_with("__x")) {
            let parts: Vec<&str> = key.split("__").collect();
            let (name, steps) = (parts[0], parts[1][1..].parse().expect("a number of steps"));
            let Some(Setting { sde, times, rule, first, last }) = setting(&golden, name, steps) else {
                assert!(name.starts_with("ipndm_native"), "{key} is not compared");
                continue;
            };
            let long = |what: &str| {
                let own = key.replace("__x", &format!("__{what}"));
                golden.get(if golden.keys().any(|k| *k == own) { &own } else { what }).clone()
            };
            let field = OracleField::noise(&data, sde.as_ref());
            let table = rule.table(sde.as_ref(), &TimeGrid::new(times).expect("a grid")).expect("a table");
            let start = (long("xT") * first).expect("a start");
            let end = table.sample(sde.as_ref(), &field, &start, &Recorded(long("noise"))).expect("a run").x;
            let end = (end / last).expect("an end");
            let scale = golden.flat(key).iter().fold(1.0, |m: f64, v| m.max(v.abs()));
            let gap = largest_gap(&end, golden.get(key)) / scale;
            // The third order in log ρ of the peer cancels; its restatement was found 8.5e-12 from it.
            let tolerance = if name == "deis_logrho_o3" { 8.5e-12 } else { 1e-12 };
            assert!(gap < tolerance, "{file} {key}: {gap:e}");
            compared += 1;
        }
    }
    // 20 settings of diffusers and 18 of k-diffusion at 4 step counts, and one long run; two data laws.
    assert_eq!(compared, 2 * 38 * 4 + 1);
}

/// The table that the peer's iPNDM has of its own: σ = sin²(πt/2), α² = 1 − σ².
struct SineSquared;

impl ScalarSde for SineSquared {
    fn span(&self) -> Span {
        Span { end: 1.0, sampling: 0.0, likelihood: 1e-5 }
    }
    fn alpha(&self, t: f64) -> f64 {
        (1.0 - self.sigma(t).powi(2)).sqrt()
    }
    fn sigma(&self, t: f64) -> f64 {
        (FRAC_PI_2 * t).sin().powi(2)
    }
    fn alpha_rate(&self, t: f64) -> f64 {
        -self.sigma(t) * self.sigma_rate(t) / self.alpha(t)
    }
    fn sigma_rate(&self, t: f64) -> f64 {
        FRAC_PI_2 * (2.0 * FRAC_PI_2 * t).sin()
    }
    fn t_of_rho(&self, rho: f64) -> f64 {
        (rho / (1.0 + rho * rho).sqrt()).sqrt().asin() / FRAC_PI_2
    }
}

/// The peer's own table starts at α = 0, where the state is ε and says nothing of the data. It takes x₀ = 0 there (0 divided by 1e-8), so that its first
/// step leads to σ₁ x_T with x_T as the first ε. No table has that step; everything after it is compared.
#[test]
fn ipndm_on_its_own_table_agrees_after_the_first_step() {
    for file in ["samplers_gmm8", "samplers_ani4"] {
        let golden = Golden::load(file);
        let data = golden.mixture();
        let field = OracleField::noise(&data, &SineSquared);
        for steps in [5, 10, 20, 50] {
            // The start is moved off the singularity; the weights of the later rows do not see it.
            let times =
                (0..=steps).rev().map(|i| (f64::from(i) / f64::from(steps)).min(1.0 - 1e-3)).collect();
            let grid = TimeGrid::new(times).expect("a grid");
            let table = Pndm { start: Start::Lower, order: 4 }.table(&SineSquared, &grid).expect("a table");
            let first = golden.get("xT");
            let x = (first * SineSquared.sigma(grid.times()[1])).expect("a state");
            let end = resume(&table, 1, &SineSquared, &field, &x, [first.clone()].into());
            let gap = largest_gap(&end, golden.get(&format!("ipndm_native__N{steps}__x")));
            assert!(gap < 1e-12, "{file} {steps}: {gap:e}");
        }
    }
}

#[test]
fn fixed_steps_in_t_agree_with_a_library_of_ordinary_differential_equations() {
    let golden = Golden::load("torchdiffeq_vp_gmm8");
    let (sde, data) = (Vp::STANDARD, golden.mixture());
    let field = OracleField::noise(&data, &sde);
    let grid = TimeGrid::new(golden.flat("tgrid")).expect("a grid");
    let noise = BatchNoise::new(Noise::new(0), 0, 0..8);
    let cases = [
        ("fixed_euler__x", Tableau::EULER),
        ("fixed_midpoint__x", Tableau::MIDPOINT),
        ("fixed_heun2__x", Tableau::HEUN2),
        ("fixed_heun3__x", Tableau::HEUN3),
        // What the library calls rk4 is the 3/8 rule; a restatement of either is beside it.
        ("fixed_rk4__x", Tableau::THREE_EIGHTHS),
        ("own_rk4_38", Tableau::THREE_EIGHTHS),
        ("own_rk4_classic", Tableau::RK4),
    ];
    for (key, tableau) in cases {
        let rule = RungeKutta { tableau, axis: Axis::Time, last_euler: false };
        let table = rule.table(&sde, &grid).expect("a table");
        let end = table.sample(&sde, &field, golden.get("xT"), &noise).expect("a run").x;
        let gap = largest_gap(&end, golden.get(key));
        assert!(gap < 1e-12, "{key}: {gap:e}");
    }
}
