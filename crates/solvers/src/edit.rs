//! Editing what is there: images from images, and points between latents.
//!
//! **From a noised start** ([`noised`], [`grid_from`]): `u = S x + R ε` at a time t₀ inside the span, then any sampler from there. The larger t₀,
//! the less of x is left.
//!
//! **Between latents** ([`slerp`]): the probability flow carries data up to the prior, `flow.solve(solver, x, t₀, T)`, and any deterministic
//! sampler carries latents down; what lies between two latents looks like a sample if it has the norm of one, so the path follows the sphere.
//!
//! Reference: Meng et al. 2021, arXiv 2108.01073, Algorithm 1; Song, Meng, Ermon 2020, arXiv 2010.02502, Eq. (67); Shoemake 1985,
//! doi 10.1145/325334.325242. Differs: norm and direction are interpolated apart, so that latents of different norms do not bend the path.

use candle_core::{DType, Tensor};
use sde_core::noise::{BatchNoise, Law, Stream, host_tensor};
use sde_core::{Error, LinearSde, TimeGrid};

use crate::Result;
use crate::error::in_range;

/// `S x + R ε` at t: data, noised; ε is that of [`prior_sample`](crate::prior_sample).
///
/// # Shapes
/// `x` `[B, …]`, one sample for each of `noise`; the result has its shape.
///
/// # Errors
/// When `noise` has another number of samples.
pub fn noised(sde: &dyn LinearSde, x: &Tensor, t: f64, noise: &BatchNoise) -> Result<Tensor> {
    if x.dim(0)? != noise.samples.len() {
        return Err(Error::Mismatch {
            what: "noise of a batch",
            expected: format!("{} samples", x.dim(0)?),
            found: noise.samples.len().to_string(),
        }
        .into());
    }
    let drawn = noise.tensor(Law::Normal, Stream::Prior, 0, &x.dims()[1..], x.dtype(), x.device())?;
    Ok((sde.signal(t).apply(x)? + sde.factor(t).apply(&drawn)?)?)
}

/// The part of a grid below t, with t as its start.
///
/// # Errors
/// When t is not within the grid.
pub fn grid_from(grid: &TimeGrid, t: f64) -> Result<TimeGrid> {
    in_range("time to start from", t, grid.stop(), grid.start())?;
    let below = grid.times().iter().copied().filter(|&s| s < t);
    Ok(TimeGrid::new([t].into_iter().chain(below).collect())?)
}

/// The point at `weight` of the way from `a` to `b`, along the sphere, for each sample: 0 is a, 1 is b.
///
/// The direction goes along the great circle, the norm along the line. Between opposite directions there are many great circles; the one
/// taken goes by the axis that is nearest to orthogonal. A zero vector has no direction, and takes the other's.
///
/// # Shapes
/// `a` and `b` `[B, …]`, and so the result.
///
/// # Errors
/// When the shapes differ.
pub fn slerp(a: &Tensor, b: &Tensor, weight: f64) -> Result<Tensor> {
    if a.dims() != b.dims() {
        return Err(Error::Mismatch {
            what: "latents to interpolate between",
            expected: format!("two of shape {:?}", a.dims()),
            found: format!("{:?}", b.dims()),
        }
        .into());
    }
    let host = |x: &Tensor| x.flatten_from(1)?.to_dtype(DType::F64)?.to_vec2::<f64>();
    let rows = host(a)?.iter().zip(&host(b)?).map(|(a, b)| between(a, b, weight)).collect::<Vec<_>>();
    Ok(host_tensor(rows.concat(), a.dims(), a.dtype(), a.device())?)
}

/// Directions closer to opposite than this are taken for opposite.
const OPPOSITE: f64 = 1e-8;

fn between(a: &[f64], b: &[f64], weight: f64) -> Vec<f64> {
    let (from, to) = (norm(a), norm(b));
    // The ends themselves, bit for bit.
    if weight == 0.0 || weight == 1.0 {
        return if weight == 0.0 { a.to_vec() } else { b.to_vec() };
    }
    let length = (1.0 - weight) * from + weight * to;
    if from == 0.0 || to == 0.0 {
        let (only, of) = if from == 0.0 { (b, to) } else { (a, from) };
        return if of == 0.0 { a.to_vec() } else { only.iter().map(|x| length * (x / of)).collect() };
    }
    let (a, b): (Vec<f64>, Vec<f64>) =
        (a.iter().map(|x| x / from).collect(), b.iter().map(|x| x / to).collect());
    // Stable at both ends, where the arc cosine is not: Kahan's formula for the angle.
    let angle = 2.0 * norm(&sum(&a, &b, -1.0)).atan2(norm(&sum(&a, &b, 1.0)));
    let opposite = std::f64::consts::PI - angle < OPPOSITE;
    let across = if opposite { any_orthogonal(&a) } else { orthogonal(&a, &b) };
    let (sin, cos) = (weight * angle).sin_cos();
    a.iter().zip(&across).map(|(a, e)| length * (cos * a + sin * e)).collect()
}

fn norm(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// `a + c b`.
fn sum(a: &[f64], b: &[f64], c: f64) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a + c * b).collect()
}

/// The unit vector orthogonal to the unit vector a in the plane of a and b, towards b; zero if there is no such plane.
fn orthogonal(a: &[f64], b: &[f64]) -> Vec<f64> {
    let along = a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let rest = sum(b, a, -along);
    let length = norm(&rest);
    if length == 0.0 { rest } else { rest.iter().map(|x| x / length).collect() }
}

/// A unit vector orthogonal to a, made of the axis along which a has least.
fn any_orthogonal(a: &[f64]) -> Vec<f64> {
    let least = (0..a.len()).min_by(|&i, &j| a[i].abs().total_cmp(&a[j].abs())).unwrap_or(0);
    let axis: Vec<f64> = (0..a.len()).map(|i| f64::from(u8::from(i == least))).collect();
    orthogonal(a, &axis)
}
