//! How a probability flow carries points onto a plane: along its normal or askew, straight or bent, towards it or first away.
//!
//! Of a path `x_0, x_1, …` with segments d_k and normal n:
//!
//! ```text
//! verticality   Σ |n·d_k| / Σ ‖d_k‖         the mean |cos| of the angle to the normal, weighted by length; 1 along it
//! straightness  ‖Σ d_k‖ / Σ ‖d_k‖           1 of a straight path
//! sense         Σ_{towards} |n·d_k| / Σ |n·d_k|    the part of the way along the normal that goes to the plane
//! ```
//!
//! The path is followed from noise to data, which is against the time of the forward process, whose velocity points away.
//!
//! Reference: "A Flexible Diffusion Model", section 4.1, which shows pictures.
//! Differs: numbers. With the identity as covariance along the plane the variance-preserving flow is vertical as it is, so the
//! experiment says something for other covariances only.

use candle_core::Tensor;
use sde_core::noise::{BatchNoise, Noise};
use sde_core::{Field, LinearSde, TimeGrid};
use sde_solvers::{Axis, Multistep, RungeKutta, Tableau, Update};
use serde::Serialize;

use crate::{Error, Estimate, Result};

/// A plane: the coordinate that is its normal, and its height there.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Plane {
    /// The coordinate, from 0.
    pub axis: usize,
    /// Where the plane is.
    pub height: f64,
}

/// The shape of the paths onto a plane.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Approach {
    /// Mean |cos| to the normal, weighted by length.
    pub verticality: Estimate,
    /// Displacement over length.
    pub straightness: Estimate,
    /// The part of the way along the normal that goes towards the plane.
    pub sense: Estimate,
    /// Evaluations of the velocity.
    pub nfe: usize,
}

/// Follows `starts`, states at the first time of `grid`, to its last, by the fourth-order Runge–Kutta method, and measures the paths.
///
/// # Shapes
/// `starts` `[N, D]`, f64.
///
/// # Errors
/// When the plane has no such coordinate, a path is not finite, or the field fails.
pub fn approach(
    sde: &dyn LinearSde,
    field: &dyn Field,
    starts: &Tensor,
    grid: &TimeGrid,
    plane: Plane,
) -> Result<Approach> {
    let (points, dim) = starts.dims2()?;
    if plane.axis >= dim {
        let found = format!("coordinate {} of {dim}", plane.axis + 1);
        return Err(Error::mismatch("normal of a plane", "a coordinate of the states", found));
    }
    let rule = RungeKutta { tableau: Tableau::RK4, axis: Axis::Time, last_euler: false };
    let table = rule.table(sde, grid)?;
    let first = starts.to_vec2::<f64>()?;
    let (mut sums, mut last) = (vec![Sums::default(); points], first.clone());
    let mut add = |_: &Update, x: Tensor| {
        let next = x.to_vec2::<f64>().map_err(sde_core::Error::from)?;
        sums.iter_mut().zip(last.iter().zip(&next)).for_each(|(sums, (a, b))| sums.add(a, b, plane));
        last = next;
        Ok(x)
    };
    // The rule draws none.
    let noise = BatchNoise::new(Noise::new(0), 0, 0..points as u32);
    table.sample_with(sde, field, starts, &noise, &mut add)?;
    let distance = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
    let ratio = |part: f64, whole: f64| if whole == 0.0 { 1.0 } else { part / whole };
    let straight: Vec<f64> =
        (0..points).map(|i| ratio(distance(&first[i], &last[i]), sums[i].length)).collect();
    if let Some(wrong) = straight.iter().find(|v| !v.is_finite()) {
        return Err(Error::mismatch("path of the flow", "finite states (more steps)", wrong));
    }
    let of = |f: &dyn Fn(&Sums) -> f64| Estimate::mean(&sums.iter().map(f).collect::<Vec<_>>());
    Ok(Approach {
        verticality: of(&|sums| ratio(sums.along, sums.length))?,
        straightness: Estimate::mean(&straight)?,
        sense: of(&|sums| ratio(sums.towards, sums.along))?,
        nfe: table.nfe(),
    })
}

/// What one path adds up.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    length: f64,
    along: f64,
    towards: f64,
}

impl Sums {
    fn add(&mut self, from: &[f64], to: &[f64], Plane { axis, height }: Plane) {
        let rise = to[axis] - from[axis];
        self.length += from.iter().zip(to).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
        self.along += rise.abs();
        if rise * (height - from[axis]) > 0.0 {
            self.towards += rise.abs();
        }
    }
}
