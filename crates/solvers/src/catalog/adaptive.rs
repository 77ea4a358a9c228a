//! Samplers that choose their steps.

use super::{Accepts, Entry, Make, Stochastic};
use crate::flow::AdaptiveFlow;

pub(super) const ENTRIES: &[Entry] = &[Entry {
    name: "rk45",
    what: "Dormand–Prince 5(4) on the flow, error control for each sample",
    order: 5,
    nfe: "6 an attempt, 2 at the start",
    stochastic: Stochastic::No,
    accepts: Accepts::Velocity,
    reference: "Dormand, Prince 1980",
    advice: "reference solutions; likelihood; encoding",
    make: Make::Adaptive(|s| Box::new(AdaptiveFlow { solver: s.adaptive, chart: s.chart })),
}];
