//! Activation checkpointing: a part of a network keeps its inputs instead of a tape, and is run again when the gradient
//! arrives.
//!
//! A segment `y = f_θ(x₁, …)` becomes one operator on Candle's tape. Its backward runs f again on fresh variables, with
//! dropout from the same addresses, and differentiates `Σ y ȳ`: that gives the gradients of the inputs, and those of θ,
//! which the tape knows nothing of. [`backward`] collects these and returns all gradients together.
//!
//! A state that a segment and something behind it both use has its gradient summed in another order than without
//! checkpointing, so gradients agree to rounding, not to the bit.
//!
//! Reference: Chen, Xu, Zhang, Guestrin 2016, arXiv 1604.06174, algorithm 1, with given segments.

use std::cell::RefCell;
use std::sync::{Arc, Mutex};

use candle_core::backend::BackendStorage;
use candle_core::backprop::GradStore;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp2, CustomOp3, Layout, MetalStorage, Shape, Storage, Tensor, Var,
};

use crate::{Error, Result, ops};

/// What can be run again.
pub(crate) trait Segment: Send + Sync + 'static {
    /// f at these inputs, and nothing else that could change between two calls.
    fn run(&self, inputs: &[&Tensor]) -> Result<Tensor>;

    /// θ: the variables that f depends on.
    fn variables(&self) -> &[Tensor];
}

/// f as one operator that keeps no tape of its inside; inputs are two or three.
///
/// Where nothing that is on the tape goes in, f is run as it is.
pub(crate) fn checkpointed(segment: Arc<dyn Segment>, inputs: &[&Tensor]) -> Result<Tensor> {
    if !inputs.iter().any(|input| input.track_op()) {
        return segment.run(inputs);
    }
    let detached: Vec<Tensor> = inputs.iter().map(|input| input.detach()).collect();
    let output = segment.run(&detached.iter().collect::<Vec<_>>())?.detach().contiguous()?;
    let replay = Replay { segment, output: Mutex::new(Some(output)) };
    Ok(match inputs {
        [a, b] => a.apply_op2(b, replay)?,
        [a, b, c] => a.apply_op3(b, c, replay)?,
        _ => {
            let (what, found) = ("a segment of a network", inputs.len().to_string());
            return Err(Error::Shape { what, expected: "two or three inputs".into(), found });
        }
    })
}

/// What the segments found in one backward pass.
#[derive(Default)]
struct Collected {
    gradients: Vec<(Tensor, Tensor)>,
    failure: Option<Error>,
}

thread_local! {
    static COLLECTED: RefCell<Option<Collected>> = const { RefCell::new(None) };
}

/// The gradients of a scalar, those of the parameters inside checkpointed segments among them. Without such segments
/// this is Candle's own `backward`.
///
/// # Errors
/// [`Error::SecondDerivatives`] where the tape was asked to keep second derivatives, which a replay does not have.
pub fn backward(loss: &Tensor) -> Result<GradStore> {
    let outer = COLLECTED.replace(Some(Collected::default()));
    let store = loss.backward();
    let Some(Collected { gradients, failure }) = COLLECTED.replace(outer) else {
        return Err(Error::UncollectedGradients);
    };
    if let Some(failure) = failure {
        return Err(failure);
    }
    let mut store = store?;
    for (variable, gradient) in gradients {
        let sum = match store.get(&variable) {
            Some(sum) => (sum + gradient)?,
            None => gradient,
        };
        store.insert(&variable, sum);
    }
    Ok(store)
}

/// The operator on the tape.
struct Replay {
    segment: Arc<dyn Segment>,
    /// Computed before the operator is applied, taken by its forward.
    output: Mutex<Option<Tensor>>,
}

impl Replay {
    /// The output's storage, by its backend's own copy.
    fn output<S>(
        &self,
        copy: impl FnOnce(&Storage, &Layout) -> Option<candle_core::Result<S>>,
    ) -> candle_core::Result<(S, Shape)> {
        let output = self.output.lock().ok().and_then(|mut output| output.take());
        let output = output.ok_or_else(|| candle_core::Error::Msg("a replay was applied twice".into()))?;
        let (storage, layout) = output.storage_and_layout();
        let copy = copy(&storage, layout)
            .ok_or_else(|| candle_core::Error::Msg("a segment changed the device".into()))??;
        Ok((copy, layout.shape().clone()))
    }

    fn on_cpu(&self) -> candle_core::Result<(CpuStorage, Shape)> {
        self.output(|s, l| if let Storage::Cpu(s) = s { Some(s.try_clone(l)) } else { None })
    }

    fn on_cuda(&self) -> candle_core::Result<(CudaStorage, Shape)> {
        self.output(|s, l| if let Storage::Cuda(s) = s { Some(s.try_clone(l)) } else { None })
    }

    fn on_metal(&self) -> candle_core::Result<(MetalStorage, Shape)> {
        self.output(|s, l| if let Storage::Metal(s) = s { Some(s.try_clone(l)) } else { None })
    }

    /// The gradients of the inputs; those of the variables go to the collection.
    fn gradients<const N: usize>(
        &self,
        inputs: [&Tensor; N],
        gradient: &Tensor,
    ) -> candle_core::Result<[Option<Tensor>; N]> {
        self.replay(inputs, gradient).map_err(|error| {
            let told = candle_core::Error::Msg(error.to_string());
            COLLECTED.with_borrow_mut(|collected| {
                if let Some(collected) = collected {
                    collected.failure.get_or_insert(error);
                }
            });
            told
        })
    }

    fn replay<const N: usize>(&self, inputs: [&Tensor; N], gradient: &Tensor) -> Result<[Option<Tensor>; N]> {
        if ops::second_derivatives_are_taped() {
            return Err(Error::SecondDerivatives);
        }
        let fresh = inputs.iter().map(|input| Ok(Var::from_tensor(&input.detach())?));
        let fresh = fresh.collect::<Result<Vec<Var>>>()?;
        let output = self.segment.run(&fresh.iter().map(Var::as_tensor).collect::<Vec<_>>())?;
        let mut store = (output * gradient.detach())?.sum_all()?.backward()?;

        // Detached: a gradient remembers what it was computed from, and so would keep the tape of the replay.
        let mut gradient = |of: &Tensor| store.remove(of).map(|gradient| gradient.detach());
        let variables = self.segment.variables();
        let found: Vec<(Tensor, Tensor)> =
            variables.iter().filter_map(|v| Some((v.clone(), gradient(v)?))).collect();
        let collected = COLLECTED.with_borrow_mut(|collected| match collected {
            Some(collected) => {
                collected.gradients.extend(found);
                true
            }
            None => found.is_empty(),
        });
        if !collected {
            return Err(Error::UncollectedGradients);
        }
        let mut fresh = fresh.iter();
        Ok(inputs.map(|_| fresh.next().and_then(|var| gradient(var))))
    }
}

impl CustomOp2 for Replay {
    fn name(&self) -> &'static str {
        "checkpointed segment"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        self.on_cpu()
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> candle_core::Result<(CudaStorage, Shape)> {
        self.on_cuda()
    }

    fn metal_fwd(
        &self,
        _: &MetalStorage,
        _: &Layout,
        _: &MetalStorage,
        _: &Layout,
    ) -> candle_core::Result<(MetalStorage, Shape)> {
        self.on_metal()
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        self.gradients([a, b], gradient).map(|[a, b]| (a, b))
    }
}

impl CustomOp3 for Replay {
    fn name(&self) -> &'static str {
        "checkpointed segment"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        self.on_cpu()
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> candle_core::Result<(CudaStorage, Shape)> {
        self.on_cuda()
    }

    fn metal_fwd(
        &self,
        _: &MetalStorage,
        _: &Layout,
        _: &MetalStorage,
        _: &Layout,
        _: &MetalStorage,
        _: &Layout,
    ) -> candle_core::Result<(MetalStorage, Shape)> {
        self.on_metal()
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        c: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        self.gradients([a, b, c], gradient).map(|[a, b, c]| (a, b, c))
    }
}
