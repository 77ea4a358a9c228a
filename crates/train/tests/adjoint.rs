//! The adjoint's gradients against one tape's and against finite differences, of a chain of networks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::{CpuStorage, CustomOp1, DType, Device, Layout, Shape, Tensor};
use sde_core::noise::{BatchNoise, Law, Noise, Stream};
use sde_core::{Model, Pass, Prediction};
use sde_nets::{MlpConfig, NetConfig, Params, TimeFeatures};
use sde_train::Result;
use sde_train::adjoint::{Chain, Route, Traced, roll, trace};

const BATCH: usize = 3;

/// x′ = x + f(x) Δ + √Δ ξ, with the cost ½‖f(x)‖² Δ + ½‖r‖², r = x − x′ carried along, and ½‖x_N‖² + ½‖r_N‖² at the end.
struct Walk {
    net: Box<dyn Model + Send + Sync>,
    noise: BatchNoise,
    steps: usize,
}

fn walk(steps: usize) -> Result<(Walk, Params)> {
    let time = TimeFeatures::Fourier { std: 1.0, log: false, time_scale: 1.0, time_shift: 0.0 };
    let config = MlpConfig {
        prediction: Prediction::Noise,
        hidden: vec![8, 8],
        time_dim: 4,
        time,
        state: None,
        classes: None,
    };
    let build = |b: &sde_nets::Builder| NetConfig::Mlp(config).build(b, &[2]);
    let (net, params) = Params::initialise(Noise::new(3), DType::F64, &Device::Cpu, build)?;
    Ok((Walk { net, noise: BatchNoise::new(Noise::new(4), 0, 0..BATCH as u32), steps }, params))
}

fn half_square(x: &Tensor) -> Result<Tensor> {
    Ok((x.sqr()?.sum(1)? * 0.5)?)
}

impl Chain for Walk {
    fn steps(&self) -> usize {
        self.steps
    }

    fn step(&self, k: usize, state: &[Tensor]) -> Result<(Vec<Tensor>, Tensor)> {
        let [x, r] = state else { unreachable!("two parts") };
        let delta = 1.0 / self.steps as f64;
        let t = Tensor::full(k as f64 * delta, BATCH, x.device())?;
        let drift = self.net.forward(x, &t, Pass::EVAL)?;
        let xi = self.noise.tensor(Law::Normal, Stream::Diffusion, k as u32, &[2], DType::F64, x.device())?;
        let move_ = ((&drift * delta)? + (xi * delta.sqrt())?)?;
        let cost = ((half_square(&drift)? * delta)? + half_square(r)?)?;
        Ok((vec![(x + &move_)?, move_.neg()?], cost))
    }

    fn terminal(&self, state: &[Tensor]) -> Result<Tensor> {
        Ok((half_square(&state[0])? + half_square(&state[1])?)?)
    }
}

fn start() -> Result<Vec<Tensor>> {
    let x = Tensor::new(&[[0.3, -1.0], [0.8, 0.1], [-0.4, 0.6]], &Device::Cpu)?;
    let r = x.zeros_like()?;
    Ok(vec![x, r])
}

fn values(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(tensor.flatten_all()?.to_vec1()?)
}

#[test]
fn the_adjoint_is_backpropagation() -> Result<()> {
    for steps in [1, 5, 30, 100] {
        let (walk, params) = walk(steps)?;
        let Traced { cost, last, gradients } = trace(&walk, &start()?, Route::Adjoint)?;
        let tape = trace(&walk, &start()?, Route::Backpropagation)?;
        assert_eq!(values(&cost)?, values(&tape.cost)?);
        assert_eq!(values(&last[0])?, values(&tape.last[0])?);
        assert_eq!(values(&roll(&walk, &start()?)?.0)?, values(&cost)?);
        for (name, var) in params.iter() {
            let (a, b) =
                (gradients.get(var).expect("a gradient"), tape.gradients.get(var).expect("a gradient"));
            let scale = values(b)?.iter().fold(0.0f64, |m, v| m.max(v.abs()));
            for (a, b) in values(a)?.iter().zip(values(b)?) {
                assert!((a - b).abs() < 1e-12 * scale, "{name}, {steps} steps: {a} for {b}");
            }
        }
    }
    Ok(())
}

#[test]
fn the_adjoint_is_the_derivative() -> Result<()> {
    let (walk, params) = walk(5)?;
    let gradients = trace(&walk, &start()?, Route::Adjoint)?.gradients;
    for (name, var) in params.iter() {
        let kept = var.as_tensor().detach().copy()?;
        let flat = values(&kept)?;
        let mean = |i: usize, h: f64| -> Result<f64> {
            let mut moved = flat.clone();
            moved[i] += h;
            var.set(&Tensor::from_vec(moved, kept.dims(), &Device::Cpu)?)?;
            Ok(roll(&walk, &start()?)?.0.mean_all()?.to_scalar()?)
        };
        let found = values(gradients.get(var).expect("a gradient"))?;
        // Five points: error h⁴ f⁽⁵⁾, and ε/h of rounding; both near 1e-12.
        let h = 1e-3;
        for i in [0, flat.len() - 1] {
            let exact =
                (8.0 * (mean(i, h)? - mean(i, -h)?) - (mean(i, 2.0 * h)? - mean(i, -2.0 * h)?)) / (12.0 * h);
            assert!(
                (found[i] - exact).abs() < 1e-9 * (1.0 + exact.abs()),
                "{name}: {} for {exact}",
                found[i]
            );
        }
        var.set(&kept)?;
    }
    Ok(())
}

#[test]
fn what_a_chain_does_not_depend_on_has_no_gradient_and_costs_nothing() -> Result<()> {
    // Without steps there is the terminal cost alone.
    let (walk, params) = walk(0)?;
    let traced = trace(&walk, &start()?, Route::Adjoint)?;
    assert!(params.iter().all(|(_, var)| traced.gradients.get(var).is_none()));
    assert_eq!(values(&traced.cost)?, values(&half_square(&start()?[0])?)?);
    Ok(())
}

/// Operators that are kept by some tape, now and at most.
#[derive(Default)]
struct Kept {
    now: AtomicUsize,
    most: AtomicUsize,
}

/// The identity, which is counted for as long as a tape holds it.
struct Counted(Arc<Kept>);

impl Counted {
    fn new(kept: &Arc<Kept>) -> Self {
        let now = kept.now.fetch_add(1, Ordering::SeqCst) + 1;
        kept.most.fetch_max(now, Ordering::SeqCst);
        Self(kept.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

impl CustomOp1 for Counted {
    fn name(&self) -> &'static str {
        "counted"
    }
    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let values =
            storage.as_slice::<f64>()?[layout.start_offset()..][..layout.shape().elem_count()].to_vec();
        Ok((CpuStorage::F64(values), layout.shape().clone()))
    }
    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> candle_core::Result<Option<Tensor>> {
        Ok(Some(gradient.clone()))
    }
}

/// A chain whose steps each put one counted operator on the tape.
struct Watched {
    walk: Walk,
    kept: Arc<Kept>,
}

impl Chain for Watched {
    fn steps(&self) -> usize {
        self.walk.steps()
    }
    fn step(&self, k: usize, state: &[Tensor]) -> Result<(Vec<Tensor>, Tensor)> {
        let (mut next, cost) = self.walk.step(k, state)?;
        next[0] = next[0].apply_op1(Counted::new(&self.kept))?;
        Ok((next, cost))
    }
    fn terminal(&self, state: &[Tensor]) -> Result<Tensor> {
        self.walk.terminal(state)
    }
}

#[test]
fn the_adjoint_never_has_the_tape_of_two_steps() -> Result<()> {
    for steps in [5, 30, 100] {
        let most = |route| -> Result<usize> {
            let chain = Watched { walk: walk(steps)?.0, kept: Arc::default() };
            trace(&chain, &start()?, route)?;
            assert_eq!(chain.kept.now.load(Ordering::SeqCst), 0);
            Ok(chain.kept.most.load(Ordering::SeqCst))
        };
        assert_eq!((most(Route::Adjoint)?, most(Route::Backpropagation)?), (1, steps));
    }
    Ok(())
}
