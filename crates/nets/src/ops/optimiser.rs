//! The update of Adam, its moments and running averages of the weights, in one pass over memory.
//!
//! With the gradient `g ← c g + λ p` of the parameter p,
//!
//! ```text
//! m ← m + (1 − β₁)(g − m)    v ← v + (1 − β₂)(g² − v)    p ← k p − η m / (s √v + ε)    w̄ ← w̄ + d (p − w̄)
//! ```
//!
//! An update is bound by memory, not by arithmetic: parameter, moments and gradient are read once, and an
//! average takes the new values from the cache. Arithmetic is in the type of the values, its coefficients
//! rounded once; each value is on its own, so nothing depends on the number of threads. A tensor updated here
//! shares its memory with every shallow clone of it: whoever wants a snapshot copies.
//!
//! Reference: Kingma, Ba 2015, arXiv 1412.6980, Algorithm 1; Loshchilov, Hutter 2019, arXiv 1711.05101,
//! Algorithm 2.
//! Differs: the corrections of the bias are in `η` and `s`, which the caller makes in f64.

use std::cell::RefCell;

use candle_core::{CpuStorage, DType, Device, InplaceOp1, Layout, Result, Storage, Tensor, Var};
use rayon::prelude::*;

use super::kernel::{Real, has_kernels, sums, vectorised, with_values};

/// Values a task of the thread pool works on: what it touches stays in the cache between its loops.
const CHUNK: usize = 1 << 13;

/// The coefficients of one update of Adam.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamUpdate {
    /// c, the factor of the gradient: below 1 where it is clipped.
    pub gradient_scale: f64,
    /// λ, the L2 penalty.
    pub penalty: f64,
    /// 1 − β₁.
    pub first: f64,
    /// 1 − β₂.
    pub second: f64,
    /// k, 1 less the decoupled decay.
    pub keep: f64,
    /// η, the learning rate over the first bias.
    pub rate: f64,
    /// s, one over the root of the second bias.
    pub scale: f64,
    /// ε.
    pub eps: f64,
}

/// A running average and its coefficient d, the weight of the new value.
pub type Averaged<'a> = (&'a mut Tensor, f64);

impl AdamUpdate {
    /// Updates the parameter `p` by its gradient `g`, the two `moments`, and `averages` of the new parameter.
    ///
    /// # Shapes
    /// All of the shape and type of `p`.
    ///
    /// # Errors
    /// If they are not, or two of those that change share memory.
    pub fn apply(
        &self,
        p: &Var,
        g: &Tensor,
        moments: [&mut Tensor; 2],
        averages: &mut [Averaged<'_>],
    ) -> Result<()> {
        let [m, v] = moments;
        let changed: Vec<&Tensor> =
            [p.as_tensor(), m, v].into_iter().chain(averages.iter().map(|a| &*a.0)).collect();
        for tensor in changed.iter().copied().chain([g]) {
            if (tensor.shape(), tensor.dtype()) != (p.shape(), p.dtype()) {
                candle_core::bail!(
                    "update of Adam: expected {:?} of {:?}, found {:?} of {:?}",
                    p.dtype(),
                    p.dims(),
                    tensor.dtype(),
                    tensor.dims()
                );
            }
        }
        if !changed.iter().all(|t| has_kernels(t) && t.is_contiguous()) {
            return self.composed(p, g, [m, v], averages);
        }
        let places: Vec<usize> = changed.iter().map(|t| place(t)).collect();
        if (1..places.len()).any(|i| places[..i].contains(&places[i])) {
            candle_core::bail!(
                "update of Adam: parameter, moments and averages must not share memory; copy one of them"
            );
        }
        let g = if places.contains(&place(g)) { g.copy()? } else { g.contiguous()? };
        let shares: Vec<f64> = averages.iter().map(|a| a.1).collect();
        match p.dtype() {
            DType::F32 => self.on_host::<f32>(&changed, &g, &shares),
            _ => self.on_host::<f64>(&changed, &g, &shares),
        }
    }

    fn on_host<T: Stored>(&self, changed: &[&Tensor], g: &Tensor, shares: &[f64]) -> Result<()> {
        let shares: Vec<T> = shares.iter().map(|&share| T::from_f64(share)).collect();
        with_values([g], |[g]: [&[T]; 1]| {
            with_values_mut(changed, Vec::new(), &mut |changed: Vec<&mut [T]>| {
                self.run(changed, g, &shares);
            })
        })
    }

    /// The same chunk of every tensor is a task: first Adam's loop, then one for each average.
    fn run<T: Real>(&self, changed: Vec<&mut [T]>, g: &[T], shares: &[T]) {
        let mut chunks: Vec<_> = changed.into_iter().map(|values| values.chunks_mut(CHUNK)).collect();
        let tasks: Vec<(Vec<&mut [T]>, &[T])> =
            g.chunks(CHUNK).map(|g| (chunks.iter_mut().filter_map(Iterator::next).collect(), g)).collect();
        tasks.into_par_iter().for_each(|(mut values, g)| {
            let [p, m, v, averages @ ..] = values.as_mut_slice() else { return };
            vectorised(|| {
                self.step(p, m, v, g);
                for (average, &share) in averages.iter_mut().zip(shares) {
                    move_towards(average, p, share);
                }
            });
        });
    }

    #[inline(always)]
    fn step<T: Real>(&self, p: &mut [T], m: &mut [T], v: &mut [T], g: &[T]) {
        let coefficients = [self.gradient_scale, self.penalty, self.first, self.second];
        let [gradient_scale, penalty, first, second] = coefficients.map(T::from_f64);
        let [keep, rate, scale, eps] = [self.keep, self.rate, self.scale, self.eps].map(T::from_f64);
        for ((p, m), (v, &g)) in p.iter_mut().zip(m).zip(v.iter_mut().zip(g)) {
            let g = gradient_scale * g + penalty * *p;
            let (new_m, new_v) = (*m + first * (g - *m), *v + second * (g * g - *v));
            *p = keep * *p - rate * new_m / (new_v.sqrt() * scale + eps);
            (*m, *v) = (new_m, new_v);
        }
    }

    /// The same of Candle's own operators, for other devices and types.
    fn composed(
        &self,
        p: &Var,
        g: &Tensor,
        [m, v]: [&mut Tensor; 2],
        averages: &mut [Averaged<'_>],
    ) -> Result<()> {
        let old = p.as_detached_tensor();
        let g = ((g.detach() * self.gradient_scale)? + (&old * self.penalty)?)?;
        *m = (&*m + ((&g - &*m)? * self.first)?)?;
        *v = (&*v + ((g.sqr()? - &*v)? * self.second)?)?;
        let step = (&*m / ((v.sqrt()? * self.scale)? + self.eps)?)?;
        p.set(&((old * self.keep)? - (step * self.rate)?)?)?;
        averages.iter_mut().try_for_each(|(average, share)| lerp(average, &p.as_detached_tensor(), *share))
    }
}

/// `average ← average + share (value − average)`, in place where there is a kernel.
///
/// # Shapes
/// Both of one shape and type.
///
/// # Errors
/// If they are not, or share memory.
pub fn lerp(average: &mut Tensor, value: &Tensor, share: f64) -> Result<()> {
    if !(has_kernels(average) && average.is_contiguous()) {
        *average = (&*average + ((value.detach() - &*average)? * share)?)?;
        return Ok(());
    }
    if (average.shape(), average.dtype()) != (value.shape(), value.dtype()) || place(average) == place(value)
    {
        candle_core::bail!(
            "running average: expected a value of the average's shape and type, in memory of its own"
        );
    }
    let value = value.contiguous()?;
    match average.dtype() {
        DType::F32 => lerp_on_host::<f32>(average, &value, share),
        _ => lerp_on_host::<f64>(average, &value, share),
    }
}

fn lerp_on_host<T: Stored>(average: &Tensor, value: &Tensor, share: f64) -> Result<()> {
    let share = T::from_f64(share);
    with_values([value], |[value]: [&[T]; 1]| {
        with_values_mut(&[average], Vec::new(), &mut |mut changed: Vec<&mut [T]>| {
            let [average] = changed.as_mut_slice() else { return };
            let chunks = average.par_chunks_mut(CHUNK).zip(value.par_chunks(CHUNK));
            chunks.for_each(|(average, value)| vectorised(|| move_towards(average, value, share)));
        })
    })
}

#[inline(always)]
fn move_towards<T: Real>(average: &mut [T], value: &[T], share: T) {
    for (average, &value) in average.iter_mut().zip(value) {
        *average += share * (value - *average);
    }
}

/// Σ x² of each tensor, in f64 on the host, in an order that does not depend on the number of threads; not
/// finite if a value is not. On another device it is summed there, in f32, and fetched in one transfer.
pub fn sums_of_squares(tensors: &[&Tensor]) -> Result<Vec<f64>> {
    if tensors.iter().all(|tensor| has_kernels(tensor)) {
        return tensors
            .iter()
            .map(|tensor| {
                let tensor = tensor.contiguous()?;
                match tensor.dtype() {
                    DType::F32 => with_values([&tensor], |[x]: [&[f32]; 1]| Ok(sum_of_squares(x))),
                    _ => with_values([&tensor], |[x]: [&[f64]; 1]| Ok(sum_of_squares(x))),
                }
            })
            .collect();
    }
    let sums = tensors.iter().map(|tensor| tensor.to_dtype(DType::F32)?.sqr()?.sum_all());
    let sums = Tensor::stack(&sums.collect::<Result<Vec<_>>>()?, 0)?;
    sums.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_vec1()
}

fn sum_of_squares<T: Real>(x: &[T]) -> f64 {
    let of_chunk = |x: &[T]| {
        vectorised(|| {
            let [sum] = sums(x.len(), |i| [x[i].to_f64() * x[i].to_f64()]);
            sum
        })
    };
    // Collected in order: a parallel sum would depend on how the threads divide it.
    x.par_chunks(CHUNK).map(of_chunk).collect::<Vec<f64>>().into_iter().sum()
}

/// The address of a tensor's storage, which tells whether two tensors share it.
fn place(tensor: &Tensor) -> usize {
    let (storage, _) = tensor.storage_and_layout();
    let storage: &Storage = &storage;
    std::ptr::from_ref(storage).addr()
}

/// Runs `f` on the values of contiguous CPU tensors of one type, no two of which share memory.
///
/// Candle lends one tensor at a time to be changed, so the loans are nested.
fn with_values_mut<'a, T: Stored>(
    tensors: &[&Tensor],
    lent: Vec<&'a mut [T]>,
    f: &mut dyn FnMut(Vec<&mut [T]>),
) -> Result<()> {
    let Some((tensor, rest)) = tensors.split_first() else {
        f(lent);
        return Ok(());
    };
    let loan = RefCell::new(Some((lent, f)));
    tensor.inplace_op1(&Lend(|storage: &mut CpuStorage, layout: &Layout| {
        let Some((lent, f)) = loan.take() else { return Ok(()) };
        let Some((start, end)) = layout.contiguous_offsets() else {
            candle_core::bail!("expected a contiguous tensor, found strides {:?}", layout.stride())
        };
        let values = &mut T::changed(storage)?[start..end];
        let lent = lent.into_iter().chain([values]).collect();
        with_values_mut(rest, lent, f)
    }))
}

/// A number type whose storage can be changed.
trait Stored: Real {
    /// The values of a storage.
    fn changed(storage: &mut CpuStorage) -> Result<&mut [Self]>;
}

impl Stored for f32 {
    fn changed(storage: &mut CpuStorage) -> Result<&mut [Self]> {
        match storage {
            CpuStorage::F32(values) => Ok(values),
            _ => candle_core::bail!("update: expected values of type f32"),
        }
    }
}

impl Stored for f64 {
    fn changed(storage: &mut CpuStorage) -> Result<&mut [Self]> {
        match storage {
            CpuStorage::F64(values) => Ok(values),
            _ => candle_core::bail!("update: expected values of type f64"),
        }
    }
}

/// Lends the storage of a tensor to a function.
struct Lend<F>(F);

impl<F: Fn(&mut CpuStorage, &Layout) -> Result<()>> InplaceOp1 for Lend<F> {
    fn name(&self) -> &'static str {
        "update"
    }
    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        self.0(storage, layout)
    }
}
