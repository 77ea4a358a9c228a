//! Rules that look at several predictions.

use super::{Accepts, Entry, Make, Stochastic};
use crate::table::Tab;

/// tAB-DEIS of a degree.
const fn tab(degree: usize, name: &'static str, what: &'static str, advice: &'static str) -> Entry {
    const MAKE: [Make; 4] = [
        Make::Table(|_| Box::new(Tab { degree: 0 })),
        Make::Table(|_| Box::new(Tab { degree: 1 })),
        Make::Table(|_| Box::new(Tab { degree: 2 })),
        Make::Table(|_| Box::new(Tab { degree: 3 })),
    ];
    Entry {
        name,
        what,
        order: degree as u32 + 1,
        nfe: "1",
        stochastic: Stochastic::No,
        accepts: if degree == 0 { Accepts::Linear } else { Accepts::LinearNoise },
        reference: "Zhang, Chen 2022, arXiv 2204.13902, Eq. (15)",
        advice,
        make: MAKE[degree],
    }
}

pub(super) const ENTRIES: &[Entry] = &[
    tab(0, "tab0", "DEIS, ε constant in t", "comparison: it is `ddim`"),
    tab(1, "tab1", "DEIS, ε a line in t", "the safest of the multistep rules"),
    tab(2, "tab2", "DEIS, ε a parabola in t", "10 to 50 calls"),
    tab(3, "tab3", "DEIS, ε a cubic in t", "10 to 50 calls; the runner's default"),
];
