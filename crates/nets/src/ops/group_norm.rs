//! Group normalisation, with SiLU fused behind it where asked.
//!
//! For each sample and each group of channels, with mean μ and variance v over the group's channels and
//! positions,
//!
//! ```text
//! n = (x − μ) / √(v + ε)        z = w n + b        y = z, or z σ(z)
//! ```
//!
//! and backwards, with z̄ the gradient of z, n̄ = w z̄ and ⟨·⟩ the mean over the group,
//!
//! ```text
//! x̄ = (n̄ − ⟨n̄⟩ − n ⟨n̄ n⟩) / √(v + ε)        w̄ = Σ z̄ n        b̄ = Σ z̄
//! ```
//!
//! The fused backward leaves the tape; where second derivatives are taped, the same formulas are composed of
//! Candle's operators instead.
//!
//! Reference: Wu, He 2018, arXiv 1803.08494, equations 1–3.

use candle_core::{CpuStorage, CustomOp3, D, DType, Layout, Shape, Tensor};
use rayon::prelude::*;

use super::kernel::{Real, for_real, is_accelerated, sums, values, vectorised, with_values};
use super::tape::second_derivatives_are_taped;
use crate::{Error, Result};

/// What a group normalisation does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GroupNormArgs {
    /// The number of groups, a divisor of the number of channels.
    pub groups: usize,
    /// ε, added to the variance.
    pub epsilon: f64,
    /// Whether SiLU follows.
    pub silu: bool,
}

/// The group normalisation of `x`, scaled and shifted by channel.
///
/// # Shapes
/// `x` `[B, C, …]`, `weight` and `bias` `[C]`; the output has the shape of `x`.
///
/// # Errors
/// [`Error::Shape`] where these do not fit, or the groups do not divide the channels.
pub fn group_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, args: GroupNormArgs) -> Result<Tensor> {
    let channels = x.dim(1)?;
    if channels == 0 || args.groups == 0 || !channels.is_multiple_of(args.groups) {
        return Err(Error::Shape {
            what: "group normalisation",
            expected: format!("a number of groups that divides {channels} channels"),
            found: args.groups.to_string(),
        });
    }
    if weight.dims() != [channels] || bias.dims() != [channels] {
        return Err(Error::Shape {
            what: "group normalisation",
            expected: format!("weight and bias of shape [{channels}]"),
            found: format!("{:?} and {:?}", weight.dims(), bias.dims()),
        });
    }
    if x.dtype() == DType::BF16 && is_accelerated(x) {
        // Scale and shift have the type of the statistics, and so does everything where second derivatives are taped.
        let (weight, bias) = (weight.to_dtype(DType::F32)?, bias.to_dtype(DType::F32)?);
        if second_derivatives_are_taped() {
            let wide = x.to_dtype(DType::F32)?.contiguous()?;
            return Ok(wide.apply_op3(&weight, &bias, GroupNorm(args))?.to_dtype(DType::BF16)?);
        }
        return Ok(x.contiguous()?.apply_op3(&weight, &bias, GroupNorm(args))?);
    }
    if !is_accelerated(x) {
        let z = affine(&normalise(x, args)?.0, x, weight, bias)?;
        return Ok(if args.silu { z.silu()? } else { z });
    }
    let (weight, bias) = (weight.contiguous()?, bias.contiguous()?);
    Ok(x.contiguous()?.apply_op3(&weight, &bias, GroupNorm(args))?)
}

type CandleResult<T> = candle_core::Result<T>;

/// z from n, of the shape of `x`.
fn affine(normalised: &Tensor, x: &Tensor, weight: &Tensor, bias: &Tensor) -> CandleResult<Tensor> {
    let by_channel = by_channel(x);
    let normalised = normalised.reshape(x.dims())?;
    normalised
        .broadcast_mul(&weight.reshape(by_channel.as_slice())?)?
        .broadcast_add(&bias.reshape(by_channel.as_slice())?)
}

/// n, and 1 / √(v + ε), as `[B, G, …]`.
fn normalise(x: &Tensor, args: GroupNormArgs) -> CandleResult<(Tensor, Tensor)> {
    let grouped = x.reshape((x.dim(0)?, args.groups, ()))?;
    let centred = grouped.broadcast_sub(&grouped.mean_keepdim(D::Minus1)?)?;
    let inverse = (centred.sqr()?.mean_keepdim(D::Minus1)? + args.epsilon)?.sqrt()?.recip()?;
    Ok((centred.broadcast_mul(&inverse)?, inverse))
}

/// The shape `[1, C, 1, …]`.
fn by_channel(x: &Tensor) -> Vec<usize> {
    x.dims().iter().enumerate().map(|(i, &n)| if i == 1 { n } else { 1 }).collect()
}

struct GroupNorm(GroupNormArgs);

/// Gradients with respect to x, weight and bias.
type Gradients = (Option<Tensor>, Option<Tensor>, Option<Tensor>);

impl CustomOp3 for GroupNorm {
    fn name(&self) -> &'static str {
        "group norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let y = for_real!(x, T => {
            let (x, w, b) = (values::<T>(x, x_layout)?, values(w, w_layout)?, values(b, b_layout)?);
            CandleResult::Ok(self.forward(x, w, b, x_layout.dims()))
        })?;
        Ok((y, x_layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &candle_core::CudaStorage,
        x_layout: &Layout,
        w: &candle_core::CudaStorage,
        w_layout: &Layout,
        b: &candle_core::CudaStorage,
        b_layout: &Layout,
    ) -> CandleResult<(candle_core::CudaStorage, Shape)> {
        let y = super::cuda::group_norm_forward(self.0, (x, x_layout), (w, w_layout), (b, b_layout))?;
        Ok((y, x_layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, w: &Tensor, b: &Tensor, _y: &Tensor, grad: &Tensor) -> CandleResult<Gradients> {
        if second_derivatives_are_taped() {
            return self.composed_backward(x, w, b, grad);
        }
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            let [for_x, for_w, for_b] = super::cuda::group_norm_backward(self.0, [x, w, b, grad])?;
            return Ok((Some(for_x), Some(for_w), Some(for_b)));
        }
        match x.dtype() {
            DType::F64 => self.fused_backward::<f64>(x, w, b, grad),
            _ => self.fused_backward::<f32>(x, w, b, grad),
        }
    }
}

impl GroupNorm {
    fn forward<T: Real>(&self, x: &[T], w: &[T], b: &[T], dims: &[usize]) -> Vec<T> {
        let sizes = Sizes::new(dims, self.0.groups);
        let mut y = vec![T::zero(); x.len()];
        y.par_chunks_mut(sizes.sample()).zip(x.par_chunks(sizes.sample())).for_each(|(y, x)| {
            vectorised(
                #[inline(always)]
                || {
                    for group in 0..self.0.groups {
                        let range = sizes.group_range(group);
                        let channels = sizes.channel_range(group);
                        let (y, x) = (&mut y[range.clone()], &x[range]);
                        let (mean, inverse) = moments(x, self.0.epsilon);
                        let affine = w[channels.clone()].iter().zip(&b[channels]);
                        let planes = y.chunks_exact_mut(sizes.positions).zip(x.chunks_exact(sizes.positions));
                        for ((y, x), (&w, &b)) in planes.zip(affine) {
                            let scale = w * inverse;
                            let shift = b - scale * mean;
                            if self.0.silu {
                                y.iter_mut().zip(x).for_each(|(y, &x)| {
                                    let z = x * scale + shift;
                                    *y = z * z.sigmoid();
                                });
                            } else {
                                y.iter_mut().zip(x).for_each(|(y, &x)| *y = x * scale + shift);
                            }
                        }
                    }
                },
            );
        });
        y
    }

    fn fused_backward<T: Real>(
        &self,
        x: &Tensor,
        w: &Tensor,
        b: &Tensor,
        grad: &Tensor,
    ) -> CandleResult<Gradients> {
        let grad = grad.contiguous()?;
        let sizes = Sizes::new(x.dims(), self.0.groups);
        let channels = sizes.channels();
        let mut for_x = vec![T::zero(); x.elem_count()];
        let mut by_sample = vec![T::zero(); 2 * channels * x.dim(0)?];
        with_values([x, w, b, &grad], |[x, w, b, grad]| {
            for_x
                .par_chunks_mut(sizes.sample())
                .zip(by_sample.par_chunks_mut(2 * channels))
                .zip(x.par_chunks(sizes.sample()).zip(grad.par_chunks(sizes.sample())))
                .for_each(|((for_x, sums), (x, grad))| {
                    let (for_w, for_b) = sums.split_at_mut(channels);
                    vectorised(
                        #[inline(always)]
                        || {
                            for group in 0..self.0.groups {
                                let (range, channels) =
                                    (sizes.group_range(group), sizes.channel_range(group));
                                let affine = (&w[channels.clone()], &b[channels.clone()]);
                                let sums = (&mut for_w[channels.clone()], &mut for_b[channels]);
                                let (x, grad) = (&x[range.clone()], &grad[range.clone()]);
                                self.group_backward(x, affine, grad, &mut for_x[range], sums);
                            }
                        },
                    );
                });
            Ok(())
        })?;
        let mut totals = vec![T::zero(); 2 * channels];
        for sample in by_sample.chunks_exact(2 * channels) {
            totals.iter_mut().zip(sample).for_each(|(total, &v)| *total += v);
        }
        let for_b = totals.split_off(channels);
        let device = x.device();
        Ok((
            Some(Tensor::from_vec(for_x, x.dims(), device)?),
            Some(Tensor::from_vec(totals, channels, device)?),
            Some(Tensor::from_vec(for_b, channels, device)?),
        ))
    }

    /// One group of one sample; (w, b) are its channels', `for_x` first holds z̄.
    #[inline(always)]
    fn group_backward<T: Real>(
        &self,
        x: &[T],
        (w, b): (&[T], &[T]),
        grad: &[T],
        for_x: &mut [T],
        (for_w, for_b): (&mut [T], &mut [T]),
    ) {
        let (mean, inverse) = moments(x, self.0.epsilon);
        let positions = x.len() / w.len();
        let (mut sum, mut sum_with_n) = (T::zero(), T::zero());
        for c in 0..w.len() {
            let range = c * positions..(c + 1) * positions;
            let (x, grad, for_z) = (&x[range.clone()], &grad[range.clone()], &mut for_x[range]);
            if self.0.silu {
                let (scale, shift) = (w[c] * inverse, b[c] - w[c] * inverse * mean);
                for_z.iter_mut().zip(x.iter().zip(grad)).for_each(|(for_z, (&x, &grad))| {
                    let z = x * scale + shift;
                    let s = z.sigmoid();
                    *for_z = grad * s * (T::one() + z * (T::one() - s));
                });
            } else {
                for_z.copy_from_slice(grad);
            }
            let [for_bias, with_x] = sums(
                positions,
                #[inline(always)]
                |i| [for_z[i], for_z[i] * (x[i] - mean)],
            );
            for_b[c] = for_bias;
            for_w[c] = with_x * inverse;
            sum += w[c] * for_bias;
            sum_with_n += w[c] * for_w[c];
        }
        let count = T::from_f64(x.len() as f64);
        let (mean_n, mean_with_n) = (sum / count, sum_with_n / count);
        for (c, &w) in w.iter().enumerate() {
            let range = c * positions..(c + 1) * positions;
            let (scale, slope) = (w * inverse, mean_with_n * inverse * inverse);
            let shift = mean_n * inverse;
            for_x[range.clone()].iter_mut().zip(&x[range]).for_each(|(v, &x)| {
                *v = *v * scale - shift - (x - mean) * slope;
            });
        }
    }

    /// The formulas of the module's head on the tape.
    fn composed_backward(
        &self,
        x: &Tensor,
        w: &Tensor,
        b: &Tensor,
        grad: &Tensor,
    ) -> CandleResult<Gradients> {
        let (normalised, inverse) = normalise(x, self.0)?;
        let for_z = match self.0.silu {
            true => super::silu::slope(&affine(&normalised, x, w, b)?)?.mul(grad)?,
            false => grad.clone(),
        };
        let others: Vec<usize> = (0..x.rank()).filter(|&d| d != 1).collect();
        let n = normalised.reshape(x.dims())?;
        let for_w = (&for_z * &n)?.sum(others.as_slice())?;
        let for_b = for_z.sum(others.as_slice())?;
        let for_n = for_z.broadcast_mul(&w.reshape(by_channel(x))?)?.reshape(normalised.dims())?;
        let mean = for_n.mean_keepdim(D::Minus1)?;
        let mean_with_n = (&for_n * &normalised)?.mean_keepdim(D::Minus1)?;
        let for_x = for_n
            .broadcast_sub(&mean)?
            .sub(&normalised.broadcast_mul(&mean_with_n)?)?
            .broadcast_mul(&inverse)?
            .reshape(x.dims())?;
        Ok((Some(for_x), Some(for_w), Some(for_b)))
    }
}

/// Mean, and 1 / √(variance + ε), of one group.
#[inline(always)]
fn moments<T: Real>(x: &[T], epsilon: f64) -> (T, T) {
    let count = T::from_f64(x.len() as f64);
    let [sum] = sums(
        x.len(),
        #[inline(always)]
        |i| [x[i]],
    );
    let mean = sum / count;
    let [squares] = sums(
        x.len(),
        #[inline(always)]
        |i| [(x[i] - mean) * (x[i] - mean)],
    );
    (mean, T::one() / (squares / count + T::from_f64(epsilon)).sqrt())
}

/// The sizes of a normalisation.
#[derive(Clone, Copy)]
struct Sizes {
    groups: usize,
    channels_of_group: usize,
    positions: usize,
}

impl Sizes {
    fn new(dims: &[usize], groups: usize) -> Self {
        Self { groups, channels_of_group: dims[1] / groups, positions: dims[2..].iter().product() }
    }
    fn channels(self) -> usize {
        self.groups * self.channels_of_group
    }
    fn sample(self) -> usize {
        (self.channels() * self.positions).max(1)
    }
    fn group_range(self, group: usize) -> std::ops::Range<usize> {
        let len = self.channels_of_group * self.positions;
        group * len..(group + 1) * len
    }
    fn channel_range(self, group: usize) -> std::ops::Range<usize> {
        group * self.channels_of_group..(group + 1) * self.channels_of_group
    }
}
