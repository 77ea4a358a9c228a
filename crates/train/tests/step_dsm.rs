//! Score matching on the steps of a chain: on linear chains, whose laws and whose best score are known; and the gradient in what makes Q(x).

use std::rc::Rc;

use candle_core::{DType, Device, Tensor, Var};
use nalgebra::{DMatrix, DVector};
use sde_core::noise::{BatchNoise, Law, Noise, Stream};
use sde_core::process::Vp;
use sde_core::state_sde::{Derivative, Diagonal, Linear, StateSde, Turning};
use sde_core::{Model, Op, Pass, Prediction};
use sde_data::Batch;
use sde_train::Result;
use sde_train::loss::{Loss, StepDsm};

/// The exact score of each state of a linear Gaussian chain, times a factor.
struct ChainScore {
    times: Vec<f64>,
    means: Vec<DVector<f64>>,
    covariances: Vec<DMatrix<f64>>,
    factor: f64,
}

impl Model for ChainScore {
    fn prediction(&self) -> Prediction {
        Prediction::Score
    }
    fn forward(&self, x: &Tensor, t: &Tensor, _: Pass<'_>) -> sde_core::Result<Tensor> {
        let (rows, times) = (x.to_vec2::<f64>()?, t.to_vec1::<f64>()?);
        let scores = rows.iter().zip(&times).flat_map(|(x, t)| {
            let k =
                self.times.iter().position(|known| (known - t).abs() < 1e-12).expect("a time of the chain");
            let gap = &self.means[k] - DVector::from_row_slice(x);
            let precision = self.covariances[k].clone().try_inverse().expect("definite");
            (precision * gap * self.factor).as_slice().to_vec()
        });
        Ok(Tensor::from_vec(scores.collect::<Vec<f64>>(), x.dims(), &Device::Cpu)?)
    }
}

/// A linear chain: its loss, and the scores that are known of it.
struct Linearised {
    loss: StepDsm,
    root: DMatrix<f64>,
    steps: Vec<f64>,
    exact: ChainScore,
    root_of_data: DMatrix<f64>,
}

fn linearised(root: DMatrix<f64>, omega: DMatrix<f64>) -> Result<Linearised> {
    let vp = Vp::new(2.0, 2.0)?;
    let times = vec![0.0, 0.05, 0.15, 0.3, 0.5, 0.75, 1.0];
    let turning: Box<dyn Turning> = Box::new(Linear::turning(omega.clone())?);
    let sde = StateSde::new(vp, 1.0, Box::new(Linear::root(Op::Dense(root.clone()))), Some(turning))?;
    let dim = root.nrows();
    let q = &root * root.transpose();
    let drift = -(&q * 0.5 + omega);
    let root_of_data =
        DMatrix::from_fn(dim, dim, |i, j| if i >= j { 0.6 - 0.2 * (i - j) as f64 } else { 0.0 });
    let mut means = vec![DVector::from_fn(dim, |i, _| 0.5 - i as f64)];
    let mut covariances = vec![&root_of_data * root_of_data.transpose()];
    let steps: Vec<f64> = times.windows(2).map(|pair| 2.0 * (pair[1] - pair[0])).collect();
    for (k, step) in steps.iter().enumerate() {
        let map = DMatrix::identity(dim, dim) + &drift * *step;
        means.push(&map * &means[k]);
        covariances.push(&map * &covariances[k] * map.transpose() + &q * *step);
    }
    let exact = ChainScore { times: times.clone(), means, covariances, factor: 1.0 };
    Ok(Linearised { loss: StepDsm::new(Rc::new(sde), times)?, root, steps, exact, root_of_data })
}

impl Linearised {
    fn batch(&self, n: u32) -> Result<(Batch, BatchNoise)> {
        let noise = BatchNoise::new(Noise::new(11), 3, 0..n);
        let dim = self.root.nrows();
        let z = noise.tensor(Law::Normal, Stream::Data, 0, &[dim], DType::F64, &Device::Cpu)?;
        let mean = Tensor::new(self.exact.means[0].as_slice(), &Device::Cpu)?;
        let x = Op::Dense(self.root_of_data.clone()).apply(&z)?.broadcast_add(&mean)?;
        Ok((Batch { x, labels: None, augment: None }, noise))
    }

    /// `Σ_k Δ_k tr(Lᵀ V_{k+1}⁻¹ L)`, the squared size of the exact score that the loss sees.
    fn seen(&self) -> f64 {
        let part = |(k, step): (usize, &f64)| {
            let precision = self.exact.covariances[k + 1].clone().try_inverse().expect("definite");
            step * (self.root.transpose() * precision * &self.root).trace()
        };
        self.steps.iter().enumerate().map(part).sum()
    }
}

fn mean_and_error(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean, (variance / n).sqrt())
}

#[test]
fn the_exact_score_of_the_chain_is_the_minimiser() -> Result<()> {
    let turn = DMatrix::from_row_slice(3, 3, &[0.0, 0.7, -0.4, -0.7, 0.0, 1.1, 0.4, -1.1, 0.0]);
    let full = DMatrix::from_row_slice(3, 3, &[1.2, 0.3, 0.1, 0.0, 0.9, -0.2, 0.4, 0.0, 0.6]);
    // Noise in the last coordinate alone.
    let degenerate = DMatrix::from_row_slice(3, 3, &[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.5]);
    for root in [full, degenerate] {
        let mut chain = linearised(root, turn.clone())?;
        let (batch, noise) = chain.batch(20_000)?;
        let rows = |chain: &Linearised| -> Result<Vec<f64>> {
            Ok(chain.loss.per_sample(&chain.exact, &batch, &noise)?.to_vec1::<f64>()?)
        };
        let (dim, steps) = (chain.root.nrows() as f64, chain.steps.len() as f64);
        let best = rows(&chain)?;
        let (found, error) = mean_and_error(&best);
        // E ‖√Δ Lᵀ s + ξ‖² = E ‖ξ‖² − Δ E ‖Lᵀ s‖², because ξ and the next state have the covariance √Δ L.
        let expected = 0.5 * (steps * dim - chain.seen());
        assert!((found - expected).abs() < 5.0 * error, "{found} ± {error} for {expected}");
        // A score that is wrong by a factor costs δ² of that size more, either way.
        for delta in [-0.3, 0.2] {
            chain.exact.factor = 1.0 + delta;
            let gap: Vec<f64> = rows(&chain)?.iter().zip(&best).map(|(a, b)| a - b).collect();
            let (found, error) = mean_and_error(&gap);
            let expected = 0.5 * delta * delta * chain.seen();
            assert!((found - expected).abs() < 5.0 * error, "{delta}: {found} ± {error} for {expected}");
            assert!(expected > 3.0 * error, "{delta}: nothing would be seen");
        }
    }
    Ok(())
}

#[test]
fn a_batch_is_the_mean_of_its_parts() -> Result<()> {
    let chain = linearised(DMatrix::identity(2, 2), DMatrix::zeros(2, 2))?;
    let (batch, noise) = chain.batch(6)?;
    let whole = chain.loss.loss(&chain.exact, &batch, &noise)?.total.to_scalar::<f64>()?;
    let part = |from: usize| -> Result<f64> {
        let batch = Batch { x: batch.x.narrow(0, from, 3)?, labels: None, augment: None };
        let noise = BatchNoise { samples: noise.samples[from..from + 3].to_vec(), ..noise.clone() };
        Ok(chain.loss.loss(&chain.exact, &batch, &noise)?.total.to_scalar()?)
    };
    assert!((whole - 0.5 * (part(0)? + part(3)?)).abs() < 1e-12);
    for times in [vec![0.0], vec![0.1, 0.2], vec![0.0, 0.2, 0.1], vec![0.0, 1.5], vec![0.0, f64::NAN]] {
        let sde = StateSde::new(Vp::STANDARD, 1.0, Box::new(Linear::root(Op::IDENTITY)), None)?;
        assert!(StepDsm::new(Rc::new(sde), times).is_err());
    }
    Ok(())
}

/// s = −x, of VP's noise: the parametrisation of a network that predicts ε.
struct Plain(Prediction);

impl Model for Plain {
    fn prediction(&self) -> Prediction {
        self.0
    }
    fn forward(&self, x: &Tensor, t: &Tensor, _: Pass<'_>) -> sde_core::Result<Tensor> {
        if self.0 == Prediction::Score {
            return Ok(x.neg()?);
        }
        let sigma: Vec<f64> =
            t.to_vec1::<f64>()?.iter().map(|&t| sde_core::ScalarSde::sigma(&Vp::STANDARD, t)).collect();
        Ok(x.broadcast_mul(&Tensor::new(sigma, x.device())?.unsqueeze(1)?)?)
    }
}

#[test]
fn the_gradient_in_a_learned_diffusion_goes_through_the_path() -> Result<()> {
    let start = [0.3, -0.5];
    let noise = BatchNoise::new(Noise::new(2), 0, 0..5);
    let x = noise.tensor(Law::Normal, Stream::Data, 0, &[2], DType::F64, &Device::Cpu)?;
    let batch = Batch { x, labels: None, augment: None };
    // q_i(x) = exp(θ_i sin x_i), whose divergence is taken by differences.
    let loss_of = |theta: Tensor, model: &dyn Model| -> Result<Tensor> {
        let entries = move |x: &Tensor| Ok(x.sin()?.broadcast_mul(&theta)?.exp()?);
        let matrix = Diagonal::new(entries, Derivative::Differences(1e-4));
        let sde = StateSde::new(Vp::STANDARD, 1.0, Box::new(matrix), None)?;
        let times = (0..=8).map(|k| f64::from(k) / 8.0).collect();
        Ok(StepDsm::new(Rc::new(sde), times)?.loss(model, &batch, &noise)?.total)
    };
    let theta = Var::new(&start, &Device::Cpu)?;
    let score = Plain(Prediction::Score);
    let gradient = loss_of(theta.as_tensor().clone(), &score)?.backward()?;
    let gradient = gradient.get(&theta).expect("a gradient").to_vec1::<f64>()?;
    for i in 0..2 {
        let at = |h: f64| -> Result<f64> {
            let mut theta = start;
            theta[i] += h;
            Ok(loss_of(Tensor::new(&theta, &Device::Cpu)?, &score)?.to_scalar()?)
        };
        let slope = (at(1e-5)? - at(-1e-5)?) / 2e-5;
        assert!((gradient[i] - slope).abs() < 1e-5 * slope.abs().max(1.0), "{} for {slope}", gradient[i]);
        assert!(slope.abs() > 1e-3);
    }
    // A prediction of noise is another parametrisation of the same score.
    let theta = Tensor::new(&start, &Device::Cpu)?;
    let [a, b] = [Prediction::Score, Prediction::Noise].map(|kind| loss_of(theta.clone(), &Plain(kind)));
    assert!((a?.to_scalar::<f64>()? - b?.to_scalar::<f64>()?).abs() < 1e-12);
    Ok(())
}
