//! Langevin dynamics: predictor–corrector samplers with their published predictors, and annealed.

use super::{Accepts, Entry, Make, Settings, Stochastic};
use crate::predictor_corrector::PredictorCorrector;
use crate::sampler::Sampler;
use crate::table::{AnnealedLangevin, Ddpm, Multistep, ScoreSde, Variance};

const SONG: &str = "Song et al. 2021, arXiv 2011.13456, algorithms 2–5";

/// A predictor with the configured corrector; the last step leaves its noise out, as published.
fn corrected(settings: &Settings, predictor: impl Multistep + 'static) -> Box<dyn Sampler> {
    Box::new(PredictorCorrector { predictor, corrector: settings.corrector, denoise: true })
}

/// A sampler of the reverse process whose order is not measured: its steps are those of a chain, or of a corrector.
const fn entry(
    name: &'static str,
    what: &'static str,
    nfe: &'static str,
    accepts: Accepts,
    advice: &'static str,
    make: Make,
) -> Entry {
    Entry { name, what, order: 0, nfe, stochastic: Stochastic::Yes, accepts, reference: SONG, advice, make }
}

pub(super) const ENTRIES: &[Entry] = &[
    entry(
        "reverse-diffusion",
        "the steps of the published chain, reversed",
        "1, and 1 at the end",
        Accepts::Linear,
        "parity with score_sde; grid `uniform`",
        Make::Table(|_| Box::new(ScoreSde::ReverseDiffusion)),
    ),
    entry(
        "pc-em",
        "Langevin corrector, then Euler–Maruyama's step of the chain",
        "1 + M, and at the end",
        Accepts::Linear,
        "parity with score_sde; grid `uniform`",
        Make::Fixed(|s| corrected(s, ScoreSde::EulerMaruyama)),
    ),
    entry(
        "pc-reverse-diffusion",
        "Langevin corrector, then reverse diffusion",
        "1 + M, and at the end",
        Accepts::Linear,
        "the published sampler of VE networks, 1000 steps; grid `uniform`",
        Make::Fixed(|s| corrected(s, ScoreSde::ReverseDiffusion)),
    ),
    entry(
        "pc-ancestral",
        "Langevin corrector, then the chain's ancestral step",
        "1 + M, and at the end",
        Accepts::Chain,
        "parity with score_sde; grid `uniform`",
        Make::Fixed(|s| corrected(s, ScoreSde::Ancestral)),
    ),
    entry(
        "pc-ddpm",
        "Langevin corrector, then the grid's ancestral step",
        "1 + M",
        Accepts::Linear,
        "correction on any grid",
        Make::Fixed(|s| corrected(s, Ddpm { variance: Variance::Small })),
    ),
    Entry {
        name: "annealed-langevin",
        what: "Langevin dynamics level by level",
        order: 0,
        nfe: "T a level, and 1",
        stochastic: Stochastic::Yes,
        accepts: Accepts::ScalarNoise,
        reference: "Song, Ermon 2019, arXiv 1907.05600, algorithm 1",
        advice: "NCSN: VE, grid `uniform`, ten levels of a hundred steps",
        make: Make::Table(|s| {
            let (step, repeats) = s.annealed;
            Box::new(AnnealedLangevin { step, repeats, denoise: true })
        }),
    },
];
