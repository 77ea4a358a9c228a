//! Negative log likelihood of a data set: `−log p` averaged over its examples, in nats, and for dequantised
//! levels in bits per dimension, `NLL / (D ln 2) + log2(levels / width of the range)`.
//!
//! Each example is solved R times, each repeat with fresh probes and, if the data is dequantised, a fresh
//! place in its cell. The standard error is that of the mean over examples (of each example's mean over
//! repeats): it holds for the whole population and contains the noise of probes. How much of it is that noise
//! alone is `estimator_error`.
//!
//! Reference: Theis, van den Oord, Bethge 2016, arXiv 1511.01844, section 3.1, for dequantisation and units.
//! Differs: levels and range are part of the data's type, data that was not dequantised is refused, and
//! examples that could not be solved are counted, not averaged.

use std::io;

use candle_core::Tensor;
use sde_core::noise::{BatchNoise, Noise};
use sde_data::{Dataset, Encoding};
use sde_solvers::Outcome;
use serde::Serialize;

use crate::estimate::{Estimate, mean, variance};
use crate::{Error, Likelihood, LogDensity, Result};

/// How often, and with what noise, each example is solved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protocol {
    /// The noise of dequantisation and of probes: repeat r of example i has the address (step r, sample i).
    pub noise: Noise,
    /// R.
    pub repeats: usize,
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
    /// The standard error, in nats, that probes and dequantisation alone would leave for these very examples;
    /// unknown for one repeat.
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

/// The negative log likelihood of some examples of a data set.
///
/// `progress` is called after each batch with the number of solves done, of `indices.len() · repeats`.
///
/// # Errors
/// [`Error::Quantised`] for levels that were not dequantised, [`Error::Unfinished`] when no example could be
/// solved, and as
/// [`Likelihood::log_density`].
pub fn nll(
    likelihood: &Likelihood<'_>,
    data: &dyn Dataset,
    indices: &[usize],
    protocol: &Protocol,
    progress: &mut dyn FnMut(usize),
) -> Result<Nll> {
    let encoding = data.encoding();
    if let Encoding::Quantised { levels, .. } = encoding {
        return Err(Error::Quantised { levels });
    }
    let fetch = |indices: &[usize], noise: &BatchNoise| Ok(data.batch(indices, noise)?.x);
    let solves = solve_all(likelihood, indices, fetch, protocol, progress)?;
    Nll::of(solves, data.shape().iter().product(), protocol.repeats, encoding.bits_offset())
}

/// The negative log likelihood of given points, in nats.
///
/// # Shapes
/// `points` `[N, …]`.
///
/// # Errors
/// As [`nll`].
pub fn nll_of_points(
    likelihood: &Likelihood<'_>,
    points: &Tensor,
    protocol: &Protocol,
    progress: &mut dyn FnMut(usize),
) -> Result<Nll> {
    let n = points.dim(0)?;
    let indices: Vec<usize> = (0..n).collect();
    let fetch = |indices: &[usize], _: &BatchNoise| {
        // Batches of points are contiguous, because the indices are.
        let first = indices.first().copied().unwrap_or(0);
        Ok(points.narrow(0, first, indices.len())?)
    };
    let solves = solve_all(likelihood, &indices, fetch, protocol, progress)?;
    Nll::of(solves, points.elem_count() / n.max(1), protocol.repeats, None)
}

fn solve_all(
    likelihood: &Likelihood<'_>,
    indices: &[usize],
    fetch: impl Fn(&[usize], &BatchNoise) -> Result<Tensor>,
    protocol: &Protocol,
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<Solve>> {
    let Protocol { noise, repeats, batch } = *protocol;
    for (what, count) in
        [("examples of a likelihood", indices.len()), ("repeats", repeats), ("batch size", batch)]
    {
        if count == 0 {
            return Err(Error::mismatch(what, "at least 1", 0));
        }
    }
    let mut solves = Vec::with_capacity(indices.len() * repeats);
    for repeat in 0..repeats {
        for chunk in indices.chunks(batch) {
            let samples = chunk.iter().map(|&i| address(i)).collect::<Result<_>>()?;
            let addresses = BatchNoise { noise, step: address(repeat)?, samples };
            let results = fetch(chunk, &addresses)
                .and_then(|x| likelihood.log_density(&x, &addresses))
                .map_err(|error| error.of_examples(chunk))?;
            let named = chunk.iter().zip(results);
            solves.extend(named.map(|(&index, result)| Solve { index, repeat, result }));
            progress(solves.len());
        }
    }
    // Example by example, in the order given.
    let n = indices.len();
    Ok((0..n * repeats).map(|k| solves[k % repeats * n + k / repeats]).collect())
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
        let within: Option<f64> = finished.iter().map(|repeats| variance(repeats)).sum();
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

    /// Writes every solve as csv, `index,repeat,log_density,nfe,outcome` in nats; the density of an
    /// unfinished solve is empty.
    ///
    /// # Errors
    /// Whatever the writer refuses.
    pub fn write_csv(&self, mut to: impl io::Write) -> io::Result<()> {
        writeln!(to, "index,repeat,log_density,nfe,outcome")?;
        for Solve { index, repeat, result } in &self.solves {
            let value = result.value.map_or_else(String::new, |v| v.to_string());
            let outcome = match result.outcome {
                Outcome::Finished => "finished",
                Outcome::StepTooSmall => "step_too_small",
                Outcome::NfeCap => "nfe_cap",
                Outcome::NonFinite => "non_finite",
            };
            writeln!(to, "{index},{repeat},{value},{},{outcome}", result.nfe)?;
        }
        to.flush()
    }
}
