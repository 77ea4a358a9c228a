//! Samplers with a variance that was estimated from data, or that a network learned.

use super::{Accepts, Entry, Make, Stochastic};
use crate::calibration::residual_variance;
use crate::table::{AnalyticDiagonal, AnalyticDpm};
use crate::variance::LearnedVariance;

pub(super) const ENTRIES: &[Entry] = &[
    Entry {
        name: "analytic-dpm",
        what: "DDIM(η) with the optimal isotropic variance",
        order: 0,
        nfe: "1",
        stochastic: Stochastic::Yes,
        accepts: Accepts::Scalar,
        reference: "Bao, Li, Zhu, Zhang 2022, arXiv 2201.06503",
        advice: "stochastic sampling in tens of calls; a pass over data comes first",
        make: Make::Calibrated(|s, residuals| {
            let residual = residual_variance(residuals);
            Box::new(AnalyticDpm { eta: s.eta, residual, clipping: s.clipping })
        }),
    },
    Entry {
        name: "analytic-diagonal",
        what: "DDIM(η) with the optimal variance of each coordinate",
        order: 0,
        nfe: "1",
        stochastic: Stochastic::Yes,
        accepts: Accepts::Scalar,
        reference: "Bao, Li, Sun, Zhu, Zhang 2022, arXiv 2206.07309",
        advice: "as `analytic-dpm`, where coordinates differ",
        make: Make::Calibrated(|s, residuals| {
            let times = residuals.iter().map(|r| r.t).collect();
            let kappa = residuals.iter().map(|r| r.diagonal.clone()).collect();
            Box::new(AnalyticDiagonal { eta: s.eta, times, kappa, clipping: s.clipping })
        }),
    },
    Entry {
        name: "learned-variance",
        what: "DDIM(η) with a variance for each entry, which the network knows (NPR, SN)",
        order: 0,
        nfe: "1",
        stochastic: Stochastic::Yes,
        accepts: Accepts::Scalar,
        reference: "Bao, Li, Sun, Zhu, Zhang 2022, arXiv 2206.07309",
        advice: "runs with a second output, such as of `digits-npr`",
        make: Make::Moments(|s| LearnedVariance { eta: s.eta, clipping: s.clipping }),
    },
];
