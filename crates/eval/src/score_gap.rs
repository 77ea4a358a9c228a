//! What an error of the score costs in likelihood, where the true score is known: with q the law of the data's noised states,
//!
//! ```text
//! J_SM     = ½ ∫ E_q ‖s_θ − s‖²_{G Gᵀ} dt            J_Fisher = ½ ∫ E_q ‖s_θ − s_ODE‖²_{G Gᵀ} dt
//! J_Diff   = ½ ∫ E_q ⟨s_θ − s, s_ODE − s_θ⟩_{G Gᵀ} dt
//! KL(q ‖ p_SDE) ≤ KL(q_T ‖ π) + J_SM                 KL(q ‖ p_ODE) = KL(q_T ‖ π) + J_SM + J_Diff
//! |J_Diff| ≤ √(J_SM J_Fisher)
//! ```
//!
//! s the true score, s_θ the model's, s_ODE the score of the law that the model's probability flow has. All at t₀, the lower end of the integrals.
//! t is stratified over the points and uniform in the clock.
//!
//! Reference: Song, Durkan, Murray, Ermon 2021, arXiv 2101.09258, Theorem 1; Lu et al. 2022, arXiv 2206.08265, Theorem 3.1 and Eq. (10).

use candle_core::{DType, Tensor};
use sde_core::noise::{BatchNoise, Stream};
use sde_core::{Converted, Field, LinearSde, Prediction, apply_each};

use crate::likelihood::checked_points;
use crate::{Error, Estimate, Result};

/// The gaps between scores, in nats.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScoreGap {
    /// J_SM.
    pub score_matching: Estimate,
    /// J_Diff; none without the score of the model's flow.
    pub difference: Option<Estimate>,
    /// J_Fisher; none without it.
    pub fisher: Option<Estimate>,
}

impl ScoreGap {
    /// The gaps between `model` and `truth`, and with the score of the model's flow, `of_flow`, if that is known, over
    /// the times from `start` to `end`.
    ///
    /// # Shapes
    /// `data` `[N, …]`, draws from the law of the data; `noise` has one address for each.
    ///
    /// # Errors
    /// For ends without signal or noise, points that are not finite, and whatever the fields return.
    pub fn new(
        sde: &dyn LinearSde,
        (model, truth, of_flow): (&dyn Field, &dyn Field, Option<&dyn Field>),
        data: &Tensor,
        (start, end): (f64, f64),
        noise: &BatchNoise,
    ) -> Result<Self> {
        let n = checked_points(data, noise)?.len();
        let (first, last) = (sde.clock(start), sde.clock(end));
        if !(first < last && first.is_finite() && last.is_finite()) {
            let found = format!("start {start}, end {end}");
            return Err(Error::mismatch(
                "times of a gap",
                "start < end, with signal and noise left at both",
                found,
            ));
        }
        let place = |(i, mut draws): (usize, sde_core::noise::Draws)| {
            let clock = first + (last - first) * (i as f64 + draws.uniform()) / n as f64;
            sde.time_of_clock(clock).clamp(start, end)
        };
        let times: Vec<f64> = noise.draws(Stream::Metric, 0).into_iter().enumerate().map(place).collect();
        let data = data.to_dtype(DType::F64)?;
        let eps = noise.tensor(
            sde_core::noise::Law::Normal,
            Stream::Metric,
            1,
            &data.dims()[1..],
            DType::F64,
            data.device(),
        )?;
        let at = |op: &dyn Fn(f64) -> sde_core::Op| times.iter().map(|&t| op(t)).collect::<Vec<_>>();
        let signal = apply_each(&at(&|t| sde.signal(t)), &data)?;
        let x = (signal + apply_each(&at(&|t| sde.factor(t)), &eps)?)?;
        let score = |field| Converted::new(field, sde, Prediction::Score).eval(&x, &times);
        // The law of a time has the density clock'(t) / (last − first).
        let weights = at(&|t| sde.diffusion(t).scale(0.5 * (last - first) / sde.clock_rate(t)));
        let mean = |a: &Tensor, b: &Tensor| {
            let products = (a * apply_each(&weights, b)?)?.flatten_from(1)?.sum(1)?.to_vec1::<f64>()?;
            Estimate::mean(&products)
        };
        let model = score(model)?;
        let off = (&model - score(truth)?)?;
        let beyond = of_flow.map(|field| Ok::<Tensor, Error>((score(field)? - &model)?)).transpose()?;
        Ok(Self {
            score_matching: mean(&off, &off)?,
            difference: beyond.as_ref().map(|beyond| mean(&off, beyond)).transpose()?,
            fisher: beyond.as_ref().map(|beyond| mean(beyond, beyond)).transpose()?,
        })
    }
}
