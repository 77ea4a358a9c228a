//! The element-wise updates of optimiser and averages, in place on a CPU (parallel, so memory is read and written
//! once), composed of tensor operations on other devices.
//!
//! A tensor updated here shares its memory with every shallow clone of it: whoever wants a snapshot copies.

use candle_core::{CpuStorage, DType, InplaceOp2, InplaceOp3, Layout, Result, Tensor, Var, WithDType};
use rayon::prelude::*;

/// Elements a task of the thread pool works on.
const CHUNK: usize = 1 << 14;

/// `average += weight (value − average)`.
pub(crate) fn lerp(average: &mut Tensor, value: &Tensor, weight: f64) -> Result<()> {
    if in_place(average) {
        return average.inplace_op2(&value.contiguous()?, &Update(|a: f64, v: f64| a + weight * (v - a)));
    }
    *average = (&*average + ((value - &*average)? * weight)?)?.detach();
    Ok(())
}

/// `average += weight (value² − average)`.
pub(crate) fn lerp_square(average: &mut Tensor, value: &Tensor, weight: f64) -> Result<()> {
    if in_place(average) {
        return average.inplace_op2(&value.contiguous()?, &Update(|a: f64, v: f64| a + weight * (v * v - a)));
    }
    *average = (&*average + ((value.sqr()? - &*average)? * weight)?)?.detach();
    Ok(())
}

/// `p ← keep p − rate m / (√v · scale + eps)`.
pub(crate) struct AdamUpdate {
    pub keep: f64,
    pub rate: f64,
    pub scale: f64,
    pub eps: f64,
}

impl AdamUpdate {
    /// Updates a variable.
    pub(crate) fn apply(&self, p: &Var, m: &Tensor, v: &Tensor) -> Result<()> {
        if in_place(p) {
            return p.inplace_op3(m, v, self);
        }
        let step = (m / ((v.sqrt()? * self.scale)? + self.eps)?)?;
        p.set(&((p.as_detached_tensor() * self.keep)? - (step * self.rate)?)?)
    }

    /// In the elements' own type: a square root and a division in f64 would take longer than memory does.
    fn run<T: Real>(&self, p: &mut [T], m: &[T], v: &[T]) {
        let [keep, rate, scale, eps] = [self.keep, self.rate, self.scale, self.eps].map(T::from_f64);
        p.par_chunks_mut(CHUNK).zip(m.par_chunks(CHUNK)).zip(v.par_chunks(CHUNK)).for_each(|((p, m), v)| {
            for ((p, &m), &v) in p.iter_mut().zip(m).zip(v) {
                *p = keep * *p - rate * m / (v.root() * scale + eps);
            }
        });
    }
}

impl InplaceOp3 for AdamUpdate {
    fn name(&self) -> &'static str {
        "adam"
    }
    fn cpu_fwd(
        &self,
        p: &mut CpuStorage,
        lp: &Layout,
        m: &CpuStorage,
        lm: &Layout,
        v: &CpuStorage,
        lv: &Layout,
    ) -> Result<()> {
        match (p, m, v) {
            (CpuStorage::F32(p), CpuStorage::F32(m), CpuStorage::F32(v)) => {
                self.run(elements_mut(p, lp)?, elements(m, lm)?, elements(v, lv)?);
            }
            (CpuStorage::F64(p), CpuStorage::F64(m), CpuStorage::F64(v)) => {
                self.run(elements_mut(p, lp)?, elements(m, lm)?, elements(v, lv)?);
            }
            _ => candle_core::bail!("adam: all tensors must be f32, or all f64"),
        }
        Ok(())
    }
}

/// A type with a square root.
trait Real: WithDType {
    fn root(self) -> Self;
}

impl Real for f32 {
    fn root(self) -> Self {
        self.sqrt()
    }
}

impl Real for f64 {
    fn root(self) -> Self {
        self.sqrt()
    }
}

fn in_place(tensor: &Tensor) -> bool {
    tensor.device().is_cpu() && tensor.is_contiguous() && matches!(tensor.dtype(), DType::F32 | DType::F64)
}

/// A function of f64 applied to f32 or f64 elements.
struct Update<F>(F);

impl<F: Fn(f64, f64) -> f64 + Sync> InplaceOp2 for Update<F> {
    fn name(&self) -> &'static str {
        "update"
    }
    fn cpu_fwd(&self, a: &mut CpuStorage, la: &Layout, b: &CpuStorage, lb: &Layout) -> Result<()> {
        fn run<T: WithDType>(a: &mut [T], b: &[T], f: impl Fn(f64, f64) -> f64 + Sync) {
            a.par_chunks_mut(CHUNK).zip(b.par_chunks(CHUNK)).for_each(|(a, b)| {
                a.iter_mut().zip(b).for_each(|(a, b)| *a = T::from_f64(f(a.to_f64(), b.to_f64())));
            });
        }
        match (a, b) {
            (CpuStorage::F32(a), CpuStorage::F32(b)) => run(elements_mut(a, la)?, elements(b, lb)?, &self.0),
            (CpuStorage::F64(a), CpuStorage::F64(b)) => run(elements_mut(a, la)?, elements(b, lb)?, &self.0),
            _ => candle_core::bail!("in-place update: both tensors must be f32, or both f64"),
        }
        Ok(())
    }
}

/// The elements that a contiguous layout covers.
pub(crate) fn elements<'a, T>(storage: &'a [T], layout: &Layout) -> Result<&'a [T]> {
    match layout.contiguous_offsets().and_then(|(from, to)| storage.get(from..to)) {
        Some(elements) => Ok(elements),
        None => candle_core::bail!("expected a contiguous tensor, found strides {:?}", layout.stride()),
    }
}

fn elements_mut<'a, T>(storage: &'a mut [T], layout: &Layout) -> Result<&'a mut [T]> {
    match layout.contiguous_offsets().and_then(|(from, to)| storage.get_mut(from..to)) {
        Some(elements) => Ok(elements),
        None => candle_core::bail!("expected a contiguous tensor, found strides {:?}", layout.stride()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn values(tensor: &Tensor) -> Result<Vec<f64>> {
        tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1()
    }

    /// A half-precision tensor is not updated in place, so it goes through the composed operations that other devices
    /// use.
    #[test]
    fn composed_and_in_place_updates_agree() -> Result<()> {
        let fill = |k: f64| Tensor::from_iter((0..40_000).map(|i| (f64::from(i) * k).sin()), &Device::Cpu);
        let (p, m, v, g) = (fill(0.7)?, fill(0.3)?, fill(0.9)?.sqr()?, fill(1.1)?);
        let update = AdamUpdate { keep: 0.99, rate: 0.01, scale: 1.3, eps: 1e-3 };
        for dtype in [DType::F32, DType::BF16] {
            let cast = |t: &Tensor| t.to_dtype(dtype);
            let (mut first, mut second) = (cast(&m)?.copy()?, cast(&v)?.copy()?);
            let var = Var::from_tensor(&cast(&p)?)?;
            lerp(&mut first, &cast(&g)?, 0.1)?;
            lerp_square(&mut second, &cast(&g)?, 0.1)?;
            update.apply(&var, &first, &second)?;
            let (p, m, v, g) = (values(&p)?, values(&m)?, values(&v)?, values(&g)?);
            let found = values(&var)?;
            for i in 0..p.len() {
                let (m, v) = (m[i] + 0.1 * (g[i] - m[i]), v[i] + 0.1 * (g[i] * g[i] - v[i]));
                let expected = 0.99 * p[i] - 0.01 * m / (v.sqrt() * 1.3 + 1e-3);
                let tolerance = if dtype == DType::F32 { 1e-5 } else { 3e-2 };
                assert!((found[i] - expected).abs() < tolerance, "{dtype:?} {i}: {} {expected}", found[i]);
            }
        }
        Ok(())
    }
}
