//! Negative log likelihood of a data set: `−log p` averaged over its examples, in nats, and for dequantised
//! levels in bits per dimension, `NLL / (D ln 2) + log2(levels / width of the range)`.
//!
//! Each example is solved R times, each repeat with fresh probes and, if the data is dequantised, a fresh
//! place in its cell. The standard error is that of the mean over examples (of each example's mean over
//! repeats): it holds for the whole population and contains the noise of probes. How much of it is that noise
//! alone is `estimator_error`.
//!
//! With M places in the cell a repeat is `log (1/M) Σ_m p(x + u_m)`, the importance-weighted bound of the log
//! probability of the levels: its mean rises with M towards that probability.
//!
//! Reference: Theis, van den Oord, Bethge 2016, arXiv 1511.01844, section 3.1, for dequantisation and units;
//! Burda, Grosse, Salakhutdinov 2016, arXiv 1509.00519, Theorem 1, for the bound; Hoogeboom, Cohen, Tomczak 2020,
//! arXiv 2001.11235, section 3, for its use here.
//! Differs: levels and range are part of the data's type, data that was not dequantised is refused, and
//! examples that could not be solved are counted, not averaged.

use candle_core::Tensor;
use sde_core::noise::{BatchNoise, Noise};
use sde_data::{Batch, Dataset, Encoding};
use sde_solvers::Outcome;
use serde::Serialize;

use crate::estimate::{Estimate, mean, variance};
use crate::{Error, LogDensity, PointDensity, Result};

/// How often, and with what noise, each example is solved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protocol {
    /// The noise of dequantisation and of probes: place m of repeat r of example i has the address (step r M + m,
    /// sample i).
    pub noise: Noise,
    /// R.
    pub repeats: usize,
    /// M, the places in an example's cell that one repeat averages over; 1 but for dequantised levels.
    pub dequantisations: usize,
    /// Examples solved together; the result does not depend on it, but for a network's rounding.
    pub batch: usize,
}

/// One solve of one example.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Solve {
    /// The example's index in the data set.
    pub index: usize,
    /// The repeat, from 0.
    pub repeat: usize,
    /// What came out.
    pub result: LogDensity,
}

/// Evaluations a solve took, over all solves.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Nfe {
    /// Their mean.
    pub mean: f64,
    /// The fewest.
    pub min: usize,
    /// The most.
    pub max: usize,
}

impl Nfe {
    /// Of counts, one a solve.
    pub(crate) fn of(counts: &[usize]) -> Self {
        Self {
            mean: counts.iter().sum::<usize>() as f64 / counts.len().max(1) as f64,
            min: counts.iter().copied().min().unwrap_or(0),
            max: counts.iter().copied().max().unwrap_or(0),
        }
    }
}

/// The negative log likelihood of a data set.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Nll {
    /// Nats an example; the standard error is over examples.
    pub nats: Estimate,
    /// Bits per dimension, if the data is dequantised levels.
    pub bits_per_dim: Option<Estimate>,
    /// D.
    pub dim: usize,
    /// R.
    pub repeats: usize,
    /// The standard error, in nats, that probes, draws and dequantisation alone would leave for these very examples;
    /// for one repeat that of the draws of a bound, and unknown of a likelihood.
    pub estimator_error: Option<f64>,
    /// Evaluations a solve.
    pub nfe: Nfe,
    /// Examples with a solve that did not finish; they are left out of the average, which is rather too good
    /// if there are any.
    pub unfinished: usize,
    /// Every solve, example by example.
    #[serde(skip)]
    pub solves: Vec<Solve>,
}

/// What is measured, on what, and how: for whoever keeps solves as they come. [`nll()`] does all at once.
#[derive(Clone, Copy)]
pub struct Evaluation<'a> {
    density: &'a dyn PointDensity,
    data: &'a dyn Dataset,
    protocol: Protocol,
}

impl<'a> Evaluation<'a> {
    /// An evaluation of `data` under `density`.
    ///
    /// # Errors
    /// [`Error::Quantised`] for levels that were not dequantised, unless their probability is told;
    /// [`Error::Mismatch`] for a count of nothing, for more than one place in the cells of data that has none, or
    /// of a density that is not exact.
    pub fn new(density: &'a dyn PointDensity, data: &'a dyn Dataset, protocol: Protocol) -> Result<Self> {
        let Protocol { repeats, dequantisations, batch, .. } = protocol;
        let counts = [("repeats", repeats), ("places in a cell", dequantisations), ("batch size", batch)];
        for (what, count) in counts {
            if count == 0 {
                return Err(Error::mismatch(what, "at least 1", 0));
            }
        }
        let encoding = data.encoding();
        match encoding {
            Encoding::Quantised { levels, .. } if !density.is_of_levels() => {
                return Err(Error::Quantised { levels });
            }
            Encoding::Quantised { .. } => {}
            _ if density.is_of_levels() => {
                let found = format!("{encoding:?}");
                return Err(Error::mismatch(
                    "data of a bound of levels",
                    "levels without dequantisation",
                    found,
                ));
            }
            _ => {}
        }
        if dequantisations > 1 {
            let what = "importance-weighted dequantisation";
            if !matches!(encoding, Encoding::Dequantised { .. }) {
                return Err(Error::mismatch(what, "dequantised levels", format!("{encoding:?}")));
            }
            if !density.is_exact() {
                let found = "estimates, whose exponentials are too large on average";
                return Err(Error::mismatch(what, "a density by exact divergence", found));
            }
        }
        Ok(Self { density, data, protocol })
    }

    /// All repeats of some examples, solved together, example by example; `progress` is told the number of solves
    /// done after each repeat.
    ///
    /// # Errors
    /// Whatever data and density return.
    pub fn solve(&self, indices: &[usize], progress: &mut dyn FnMut(usize)) -> Result<Vec<Solve>> {
        let Protocol { repeats, dequantisations, .. } = self.protocol;
        let mut results = Vec::with_capacity(repeats);
        for repeat in 0..repeats {
            let steps = repeat * dequantisations..(repeat + 1) * dequantisations;
            let places = steps.map(|step| self.at(indices, step)).collect::<Result<Vec<_>>>()?;
            let of_example = |i: usize| mean_of_densities(places.iter().map(|place| place[i]));
            results.push((0..indices.len()).map(of_example).collect::<Vec<LogDensity>>());
            progress(results.len() * indices.len());
        }
        let solve = |(i, &index): (usize, &usize)| {
            let of_repeat =
                move |(repeat, all): (usize, &Vec<LogDensity>)| Solve { index, repeat, result: all[i] };
            results.iter().enumerate().map(of_repeat).collect::<Vec<_>>()
        };
        Ok(indices.iter().enumerate().flat_map(solve).collect())
    }

    /// The densities of some examples at one step of their noise.
    fn at(&self, indices: &[usize], step: usize) -> Result<Vec<LogDensity>> {
        let samples = indices.iter().map(|&i| address(i)).collect::<Result<_>>()?;
        let noise = BatchNoise { noise: self.protocol.noise, step: address(step)?, samples };
        let x = self.data.batch(indices, &noise)?.x;
        self.density.log_density(&x, &noise).map_err(|error| error.of_examples(indices))
    }

    /// The average of solves that are ordered example by example, as [`Evaluation::solve`] gives them.
    ///
    /// # Errors
    /// [`Error::Unfinished`] when no example could be solved.
    pub fn summarise(&self, solves: Vec<Solve>) -> Result<Nll> {
        let offset = match self.data.encoding() {
            // A probability needs no volume of a cell.
            Encoding::Quantised { .. } => Some(0.0),
            encoding => encoding.bits_offset(),
        };
        Nll::of(solves, self.data.shape().iter().product(), self.protocol.repeats, offset)
    }
}

/// `log (1/M) Σ p` of the same example at several places of its cell.
fn mean_of_densities(places: impl ExactSizeIterator<Item = LogDensity> + Clone) -> LogDensity {
    let count = places.len() as f64;
    let mut first = places.clone();
    if let (1, Some(only)) = (places.len(), first.next()) {
        return only;
    }
    let outcome = places.clone().map(|p| p.outcome).find(|o| *o != Outcome::Finished);
    let top = places.clone().filter_map(|p| p.value).fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = places.clone().filter_map(|p| p.value).map(|v| (v - top).exp()).sum();
    let nfe = places.map(|p| p.nfe).sum();
    LogDensity::new(top + (total / count).ln(), nfe, outcome.unwrap_or(Outcome::Finished))
}

/// The negative log likelihood of some examples of a data set.
///
/// `progress` is called after each batch with the number of solves done, of `indices.len() · repeats`.
///
/// # Errors
/// As [`Evaluation`], and for no examples.
pub fn nll(
    density: &dyn PointDensity,
    data: &dyn Dataset,
    indices: &[usize],
    protocol: &Protocol,
    progress: &mut dyn FnMut(usize),
) -> Result<Nll> {
    let evaluation = Evaluation::new(density, data, *protocol)?;
    if indices.is_empty() {
        return Err(Error::mismatch("examples of a likelihood", "at least 1", 0));
    }
    let mut solves = Vec::with_capacity(indices.len() * protocol.repeats);
    for chunk in indices.chunks(protocol.batch) {
        let before = solves.len();
        solves.extend(evaluation.solve(chunk, &mut |done| progress(before + done))?);
    }
    evaluation.summarise(solves)
}

/// The negative log likelihood of given points, in nats.
///
/// # Shapes
/// `points` `[N, …]`.
///
/// # Errors
/// As [`nll`].
pub fn nll_of_points(
    density: &dyn PointDensity,
    points: &Tensor,
    protocol: &Protocol,
    progress: &mut dyn FnMut(usize),
) -> Result<Nll> {
    let indices: Vec<usize> = (0..points.dim(0)?).collect();
    nll(density, &Given(points), &indices, protocol, progress)
}

/// Points as a data set.
struct Given<'a>(&'a Tensor);

impl Dataset for Given<'_> {
    fn len(&self) -> usize {
        self.0.dims().first().copied().unwrap_or(0)
    }
    fn shape(&self) -> &[usize] {
        self.0.dims().get(1..).unwrap_or_default()
    }
    fn encoding(&self) -> Encoding {
        Encoding::Continuous
    }
    fn classes(&self) -> usize {
        0
    }
    fn batch(&self, indices: &[usize], _: &BatchNoise) -> sde_data::Result<Batch> {
        Ok(Batch { x: sde_core::rows_of(self.0, indices)?, labels: None, augment: None })
    }
}

/// Noise is addressed by 32-bit numbers.
fn address(i: usize) -> Result<u32> {
    u32::try_from(i).map_err(|_| Error::mismatch("index of an example or a repeat", "less than 2³²", i))
}

impl Nll {
    /// Averages solves that are ordered example by example.
    fn of(solves: Vec<Solve>, dim: usize, repeats: usize, bits_offset: Option<f64>) -> Result<Self> {
        let samples = solves.len() / repeats;
        let values = |example: &[Solve]| example.iter().map(|solve| solve.result.value.map(|v| -v)).collect();
        let finished: Vec<Vec<f64>> = solves.chunks(repeats).filter_map(values).collect();
        let mut outcomes = solves.iter().map(|solve| solve.result.outcome);
        if let (true, Some(first)) = (finished.is_empty(), outcomes.find(|o| *o != Outcome::Finished)) {
            return Err(Error::Unfinished { samples, first });
        }
        let means: Vec<f64> = finished.iter().map(|repeats| mean(repeats)).collect();
        let nats = Estimate::mean(&means)?;
        // The mean over n examples of means over R repeats has the variance Σ s²/R / n².
        let within: Option<f64> = match repeats {
            // One value of each, which may tell its own error.
            1 => solves
                .iter()
                .filter(|s| s.result.value.is_some())
                .map(|s| Some(s.result.standard_error?.powi(2)))
                .sum(),
            _ => finished.iter().map(|repeats| variance(repeats)).sum(),
        };
        let counts: Vec<usize> = solves.iter().map(|solve| solve.result.nfe).collect();
        let bits = |offset| nats.affine(1.0 / (dim as f64 * std::f64::consts::LN_2), offset);
        Ok(Self {
            nats,
            bits_per_dim: bits_offset.map(bits),
            dim,
            repeats,
            estimator_error: within.map(|sum| (sum / repeats as f64).sqrt() / finished.len() as f64),
            nfe: Nfe::of(&counts),
            unfinished: samples - finished.len(),
            solves,
        })
    }
}
