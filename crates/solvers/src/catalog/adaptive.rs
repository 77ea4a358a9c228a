//! Samplers that choose their steps.

use super::{Accepts, Entry, Make, Settings, Stochastic};
use crate::adaptive::{Adaptive, Pair};
use crate::adaptive_sde::AdaptiveSde;
use crate::flow::AdaptiveFlow;
use crate::sampler::Sampler;

/// The flow by an embedded pair.
fn flow(settings: &Settings, pair: Pair) -> Box<dyn Sampler> {
    Box::new(AdaptiveFlow { solver: Adaptive { pair, ..settings.adaptive }, chart: settings.chart })
}

pub(super) const ENTRIES: &[Entry] = &[
    Entry {
        name: "adaptive-sde",
        what: "stochastic Heun on the λ-family, error control for each sample, noise from a Brownian bridge",
        order: 0,
        nfe: "2, 1 after a rejection",
        stochastic: Stochastic::If("lambda"),
        accepts: Accepts::Linear,
        reference: "Jolicoeur-Martineau et al. 2021, arXiv 2105.14080",
        advice: "the reverse SDE without a grid; hundreds of calls",
        make: Make::Adaptive(|s| {
            let ([rtol, atol], max_nfe) = (s.sde_tolerances, s.adaptive.max_nfe);
            Box::new(AdaptiveSde { lambda: s.lambda, rtol, atol, max_nfe })
        }),
    },
    Entry {
        name: "rk45",
        what: "Dormand–Prince 5(4) on the flow, error control for each sample",
        order: 5,
        nfe: "6 an attempt, 2 at the start",
        stochastic: Stochastic::No,
        accepts: Accepts::Velocity,
        reference: "Dormand, Prince 1980",
        advice: "reference solutions; likelihood; encoding",
        make: Make::Adaptive(|s| flow(s, Pair::DORMAND_PRINCE)),
    },
    Entry {
        name: "tsit5",
        what: "Tsitouras 5(4) on the flow, the same control",
        order: 5,
        nfe: "6 an attempt, 2 at the start",
        stochastic: Stochastic::No,
        accepts: Accepts::Velocity,
        reference: "Tsitouras 2011",
        advice: "as `rk45`, with smaller error constants",
        make: Make::Adaptive(|s| flow(s, Pair::TSITOURAS)),
    },
    Entry {
        name: "rk23",
        what: "Bogacki–Shampine 3(2) on the flow, the same control",
        order: 3,
        nfe: "3 an attempt, 2 at the start",
        stochastic: Stochastic::No,
        accepts: Accepts::Velocity,
        reference: "Bogacki, Shampine 1989",
        advice: "loose tolerances",
        make: Make::Adaptive(|s| flow(s, Pair::BOGACKI_SHAMPINE)),
    },
];
