//! Rules that look at several predictions, one evaluation a step.

use super::{Accepts, Entry, Make, Stochastic};
use crate::table::{
    CholeskyAb, DpmSolver, Form, LogAb, Pndm, RhoAb, SdeDpmSolver, Slope, Start, Tab, TabPc, UniPc,
};

const DEIS: &str = "Zhang, Chen 2022, arXiv 2204.13902";
const GDDIM: &str = "Zhang, Tao, Chen 2022, arXiv 2206.05564";
const DPM_PLUS: &str = "Lu et al. 2022, arXiv 2211.01095";

/// A deterministic rule of one evaluation a step.
const fn rule(
    name: &'static str,
    what: &'static str,
    order: u32,
    accepts: Accepts,
    reference: &'static str,
    advice: &'static str,
    make: Make,
) -> Entry {
    Entry { name, what, order, nfe: "1", stochastic: Stochastic::No, accepts, reference, advice, make }
}

/// tAB-DEIS with its corrector.
const fn corrected(name: &'static str, what: &'static str, order: u32, make: Make) -> Entry {
    let advice = "smooth fields at 20 calls and more; with fewer a call is better spent on a step";
    Entry { nfe: "2", ..rule(name, what, order, Accepts::Linear, GDDIM, advice, make) }
}

/// The exponential integrator with a Cholesky factor.
const fn cholesky(name: &'static str, what: &'static str, order: u32, make: Make) -> Entry {
    rule(name, what, order, Accepts::LinearNoise, GDDIM, "comparison: `tab` holds what is constant", make)
}

pub(super) const ENTRIES: &[Entry] = &[
    rule(
        "tab0",
        "tAB-DEIS, ε constant in t",
        1,
        Accepts::Linear,
        DEIS,
        "comparison: it is `ddim`",
        Make::Table(|_| Box::new(Tab { degree: 0 })),
    ),
    rule(
        "tab1",
        "tAB-DEIS, ε a line in t",
        2,
        Accepts::Linear,
        DEIS,
        "the safest of the multistep rules",
        Make::Table(|_| Box::new(Tab { degree: 1 })),
    ),
    rule(
        "tab2",
        "tAB-DEIS, ε a parabola in t",
        3,
        Accepts::Linear,
        DEIS,
        "10 to 50 calls",
        Make::Table(|_| Box::new(Tab { degree: 2 })),
    ),
    rule(
        "tab3",
        "tAB-DEIS, ε a cubic in t",
        4,
        Accepts::Linear,
        DEIS,
        "10 to 50 calls; the runner's default",
        Make::Table(|_| Box::new(Tab { degree: 3 })),
    ),
    corrected(
        "tab0-pc",
        "`tab0`, corrected by a line through ε at its end",
        2,
        Make::Table(|_| Box::new(TabPc { degree: 0 })),
    ),
    corrected(
        "tab1-pc",
        "`tab1`, corrected by a parabola through ε at its end",
        3,
        Make::Table(|_| Box::new(TabPc { degree: 1 })),
    ),
    corrected(
        "tab2-pc",
        "`tab2`, corrected by a cubic through ε at its end",
        4,
        Make::Table(|_| Box::new(TabPc { degree: 2 })),
    ),
    cholesky(
        "chol-ab0",
        "as `tab0`, in the noise of a Cholesky factor (L_t)",
        1,
        Make::Table(|_| Box::new(CholeskyAb { degree: 0 })),
    ),
    cholesky(
        "chol-ab1",
        "as `tab1`, in the noise of a Cholesky factor (L_t)",
        2,
        Make::Table(|_| Box::new(CholeskyAb { degree: 1 })),
    ),
    cholesky(
        "chol-ab2",
        "as `tab2`, in the noise of a Cholesky factor (L_t)",
        3,
        Make::Table(|_| Box::new(CholeskyAb { degree: 2 })),
    ),
    cholesky(
        "chol-ab3",
        "as `tab3`, in the noise of a Cholesky factor (L_t)",
        4,
        Make::Table(|_| Box::new(CholeskyAb { degree: 3 })),
    ),
    rule(
        "rho-ab1",
        "ρAB-DEIS, ε a line in ρ; LMS of order 2",
        2,
        Accepts::Linear,
        DEIS,
        "where the grid is even in ρ",
        Make::Table(|_| Box::new(RhoAb { degree: 1 })),
    ),
    rule(
        "rho-ab2",
        "ρAB-DEIS, ε a parabola in ρ; LMS of order 3",
        3,
        Accepts::Linear,
        DEIS,
        "where the grid is even in ρ",
        Make::Table(|_| Box::new(RhoAb { degree: 2 })),
    ),
    rule(
        "rho-ab3",
        "ρAB-DEIS, ε a cubic in ρ; LMS of order 4",
        4,
        Accepts::Linear,
        DEIS,
        "where the grid is even in ρ",
        Make::Table(|_| Box::new(RhoAb { degree: 3 })),
    ),
    rule(
        "log-ab1",
        "DEIS in log ρ, ε a line",
        2,
        Accepts::Linear,
        DEIS,
        "diffusers' DEIS of order 2",
        Make::Table(|s| Box::new(LogAb { form: Form::Noise, degree: 1, lower_final: s.lower_final })),
    ),
    rule(
        "log-ab2",
        "DEIS in log ρ, ε a parabola",
        3,
        Accepts::Linear,
        DEIS,
        "diffusers' DEIS of order 3",
        Make::Table(|s| Box::new(LogAb { form: Form::Noise, degree: 2, lower_final: s.lower_final })),
    ),
    rule(
        "data-ab1",
        "exact DPM-Solver++ in log ρ, x₀ a line: the heun variant of 2M",
        2,
        Accepts::Linear,
        DPM_PLUS,
        "guided models: x₀ can be clipped",
        Make::Table(|s| Box::new(LogAb { form: Form::Data, degree: 1, lower_final: s.lower_final })),
    ),
    rule(
        "data-ab2",
        "exact DPM-Solver++ in log ρ, x₀ a parabola",
        3,
        Accepts::Linear,
        DPM_PLUS,
        "guided models; the third order that the published 3M misses",
        Make::Table(|s| Box::new(LogAb { form: Form::Data, degree: 2, lower_final: s.lower_final })),
    ),
    rule(
        "dpm++-2m",
        "DPM-Solver++(2M), midpoint",
        2,
        Accepts::Scalar,
        DPM_PLUS,
        "guided models; what others call DPM++ 2M",
        Make::Table(|s| Box::new(DpmSolver { form: Form::Data, order: 2, lower_final: s.lower_final })),
    ),
    rule(
        "dpm++-3m",
        "DPM-Solver++(3M) as published",
        2,
        Accepts::Scalar,
        DPM_PLUS,
        "parity; `data-ab2` is what it means",
        Make::Table(|s| Box::new(DpmSolver { form: Form::Data, order: 3, lower_final: s.lower_final })),
    ),
    rule(
        "dpm-2m",
        "DPM-Solver(2M) on ε, midpoint",
        2,
        Accepts::ScalarNoise,
        "Lu et al. 2022, arXiv 2206.00927",
        "parity; `log-ab1` is its exact form",
        Make::Table(|s| Box::new(DpmSolver { form: Form::Noise, order: 2, lower_final: s.lower_final })),
    ),
    rule(
        "dpm-3m",
        "DPM-Solver(3M) on ε as published",
        2,
        Accepts::ScalarNoise,
        "Lu et al. 2022, arXiv 2206.00927",
        "parity; `log-ab2` is what it means",
        Make::Table(|s| Box::new(DpmSolver { form: Form::Noise, order: 3, lower_final: s.lower_final })),
    ),
    rule(
        "unipc1",
        "UniPC(1), bh2: predictor of order 1, corrected",
        2,
        Accepts::Scalar,
        "Zhao et al. 2023, arXiv 2302.04867",
        "very few calls",
        Make::Table(|s| Box::new(UniPc { order: 1, lower_final: s.lower_final })),
    ),
    rule(
        "unipc2",
        "UniPC(2), bh2: predictor of order 2, corrected",
        3,
        Accepts::Scalar,
        "Zhao et al. 2023, arXiv 2302.04867",
        "5 to 20 calls",
        Make::Table(|s| Box::new(UniPc { order: 2, lower_final: s.lower_final })),
    ),
    rule(
        "unipc3",
        "UniPC(3), bh2: predictor of order 3, corrected",
        4,
        Accepts::Scalar,
        "Zhao et al. 2023, arXiv 2302.04867",
        "10 to 20 calls",
        Make::Table(|s| Box::new(UniPc { order: 3, lower_final: s.lower_final })),
    ),
    rule(
        "ipndm",
        "iPNDM: four ε with equal-step weights, lower orders first",
        2,
        Accepts::Linear,
        DEIS,
        "parity; `tab3` has the weights of the grid",
        Make::Table(|_| Box::new(Pndm { start: Start::Lower, order: 4 })),
    ),
    Entry {
        name: "s-pndm",
        what: "S-PNDM: two ε, a pseudo Heun start",
        order: 2,
        nfe: "1, and 1 at the start",
        stochastic: Stochastic::No,
        accepts: Accepts::Linear,
        reference: "Liu et al. 2022, arXiv 2202.09778",
        advice: "parity",
        make: Make::Table(|_| Box::new(Pndm { start: Start::Heun, order: 2 })),
    },
    Entry {
        name: "plms",
        what: "PLMS: four ε, a pseudo Heun start",
        order: 2,
        nfe: "1, and 1 at the start",
        stochastic: Stochastic::No,
        accepts: Accepts::Linear,
        reference: "Liu et al. 2022, arXiv 2202.09778",
        advice: "parity: what Stable Diffusion calls PNDM",
        make: Make::Table(|_| Box::new(Pndm { start: Start::Heun, order: 4 })),
    },
    Entry {
        name: "f-pndm",
        what: "F-PNDM: four ε, a pseudo Runge–Kutta start",
        order: 2,
        nfe: "1, and 9 at the start",
        stochastic: Stochastic::No,
        accepts: Accepts::Linear,
        reference: "Liu et al. 2022, arXiv 2202.09778",
        advice: "parity",
        make: Make::Table(|_| Box::new(Pndm { start: Start::RungeKutta, order: 4 })),
    },
    Entry {
        name: "sde-dpm++-2m",
        what: "SDE-DPM-Solver++(2M), midpoint",
        order: 2,
        nfe: "1",
        stochastic: Stochastic::If("lambda"),
        accepts: Accepts::Scalar,
        reference: DPM_PLUS,
        advice: "stochastic sampling in tens of calls",
        make: Make::Table(|s| {
            Box::new(SdeDpmSolver { lambda: s.lambda, slope: Slope::Midpoint, lower_final: s.lower_final })
        }),
    },
    Entry {
        name: "sde-dpm++-2m-heun",
        what: "SDE-DPM-Solver++(2M), x₀ a line exactly",
        order: 2,
        nfe: "1",
        stochastic: Stochastic::If("lambda"),
        accepts: Accepts::Scalar,
        reference: DPM_PLUS,
        advice: "stochastic sampling in tens of calls",
        make: Make::Table(|s| {
            Box::new(SdeDpmSolver { lambda: s.lambda, slope: Slope::Heun, lower_final: s.lower_final })
        }),
    },
];
