//! Samplers that choose their steps.

use super::{Accepts, Entry, Make, Stochastic};
use crate::adaptive_sde::AdaptiveSde;
use crate::flow::AdaptiveFlow;

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
        make: Make::Adaptive(|s| Box::new(AdaptiveFlow { solver: s.adaptive, chart: s.chart })),
    },
];
