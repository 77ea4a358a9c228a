//! What guidance does to samples of the embedded digits: how often a classifier finds the class that was asked for, and how far samples of
//! one class lie apart, against the weight ω of classifier-free guidance.

use candle_core::{DType, Device, Result as CandleResult, Tensor};
use sde_core::noise::{BatchNoise, Law, Noise, Stream};
use sde_core::{LinearSde, Model, TimeGrid};
use sde_data::{Dataset, Split, digits};
use sde_eval::{Estimate, Result};
use sde_nets::{Init, Params};
use sde_solvers::guidance::{ClassifierFree, Clip, Clipped, Interval};
use sde_solvers::{Multistep, Tab, denoise, prior_sample};
use sde_train::{Adam, AdamConfig, AdamKind, Gradients};

const CPU: Device = Device::Cpu;
const CLASSES: usize = 10;
const PIXELS: usize = 64;
/// Units of the hidden layer.
pub const HIDDEN: usize = 128;
const UPDATES: u32 = 500;
const BATCH: u32 = 256;
/// Of the noise that the classifier is trained with, on pixels in [−1, 1].
const JITTER: f64 = 0.2;

/// A classifier of digits: two layers, trained on the training split.
pub struct Classifier {
    layers: [Tensor; 4],
}

impl Classifier {
    /// Trains one.
    ///
    /// # Errors
    /// Those of data and optimiser.
    pub fn train(noise: Noise) -> sde_train::Result<Self> {
        let (layers, params) = Params::initialise(noise, DType::F32, &CPU, |b| {
            let weight = Init::FanAverage { scale: 1.0 };
            Ok([
                b.get(&[HIDDEN, PIXELS], "in.weight", weight)?,
                b.get(&[HIDDEN], "in.bias", Init::Constant(0.0))?,
                b.get(&[CLASSES, HIDDEN], "out.weight", weight)?,
                b.get(&[CLASSES], "out.bias", Init::Constant(0.0))?,
            ])
        })?;
        let (kind, lr) = (AdamKind::Adam, 3e-3);
        let config = AdamConfig { kind, lr, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 };
        let (mut adam, data) = (Adam::new(config, &params)?, digits(Split::Train)?);
        for step in 0..UPDATES {
            let noise = BatchNoise::new(noise, step, 0..BATCH);
            let order = noise.noise.draws(Stream::Shuffle, step, 0).permutation(data.len());
            let batch = data.batch(&order[..BATCH as usize], &noise)?;
            let jitter =
                noise.tensor(Law::Normal, Stream::User, 0, &batch.x.dims()[1..], DType::F32, &CPU)?;
            let logits = logits(&layers, &(batch.x + (jitter * JITTER)?)?)?;
            let labels = batch.labels.unwrap_or(Tensor::zeros(BATCH as usize, DType::U32, &CPU)?);
            let right = logits.gather(&labels.unsqueeze(1)?, 1)?.squeeze(1)?;
            let tape = (logits.log_sum_exp(1)? - right)?.mean_all()?.backward()?;
            let gradients: Gradients = params
                .iter()
                .filter_map(|(name, var)| Some((name.to_owned(), tape.get(var)?.clone())))
                .collect();
            adam.update(&params, &gradients, u64::from(step) + 1, lr)?;
        }
        Ok(Self { layers: layers.map(|layer| layer.detach()) })
    }

    /// 1 for each image whose class is its label, 0 for the others.
    ///
    /// # Shapes
    /// `x` `[N, 1, 8, 8]` in [−1, 1], `labels` `[N]`.
    ///
    /// # Errors
    /// When the shapes are others.
    pub fn hits(&self, x: &Tensor, labels: &Tensor) -> CandleResult<Vec<f64>> {
        let found = logits(&self.layers, &x.to_dtype(DType::F32)?)?.argmax(1)?;
        found.eq(labels)?.to_dtype(DType::F64)?.to_vec1()
    }

    /// What its first layer sees.
    ///
    /// # Shapes
    /// `x` `[N, 1, 8, 8]` in [−1, 1]; the output is `[N, 128]`.
    ///
    /// # Errors
    /// When the shape is another.
    pub fn hidden(&self, x: &Tensor) -> CandleResult<Tensor> {
        hidden(&self.layers, x)
    }

    /// How often it is right on the held-out digits.
    ///
    /// # Errors
    /// Those of the data.
    pub fn held_out(&self) -> Result<Estimate> {
        let data = digits(Split::Test)?;
        let noise = BatchNoise::new(Noise::new(0), 0, 0..data.len() as u32);
        let batch = data.batch(&(0..data.len()).collect::<Vec<_>>(), &noise)?;
        let labels = batch.labels.unwrap_or(Tensor::zeros(data.len(), DType::U32, &CPU)?);
        Estimate::mean(&self.hits(&batch.x, &labels)?)
    }
}

fn hidden([w, b, ..]: &[Tensor; 4], x: &Tensor) -> CandleResult<Tensor> {
    x.flatten_from(1)?.matmul(&w.t()?)?.broadcast_add(b)?.relu()
}

fn logits(layers: &[Tensor; 4], x: &Tensor) -> CandleResult<Tensor> {
    let [_, _, v, c] = layers;
    hidden(layers, x)?.matmul(&v.t()?)?.broadcast_add(c)
}

/// What a weight does.
#[derive(Debug, Clone, Copy)]
pub struct Guided {
    /// ω.
    pub weight: f64,
    /// How often the classifier finds the class asked for.
    pub accuracy: Estimate,
    /// The mean distance of two samples of one class, by disjoint pairs.
    pub diversity: Estimate,
}

/// Draws `pairs` pairs of each class from a network with ten classes, in f32, at every weight from the same noise.
///
/// # Errors
/// Those of the sampler.
pub fn measure(
    model: &dyn Model,
    sde: &dyn LinearSde,
    classifier: &Classifier,
    weights: &[f64],
    pairs: usize,
) -> Result<Vec<Guided>> {
    let labels: Vec<u32> =
        (0..CLASSES as u32).flat_map(|class| std::iter::repeat_n(class, 2 * pairs)).collect();
    let noise = BatchNoise::new(Noise::new(1), 0, 0..labels.len() as u32);
    let start = prior_sample(sde, &noise, &[1, 8, 8], DType::F64, &CPU)?;
    let grid = TimeGrid::power(sde.span().end, sde.span().sampling, 12, 2.0)?;
    let table = Tab { degree: 2 }.table(sde, &grid)?;
    let mut rows = Vec::new();
    for &weight in weights {
        let field =
            ClassifierFree::of_model(model, (DType::F32, &CPU), &labels, CLASSES, weight, Interval::ALWAYS)?;
        let field = Clipped::new(field, sde, Clip::Range { low: -1.0, high: 1.0 })?;
        let x = table.sample(sde, &field, &start, &noise)?.x;
        let x = denoise(sde, &field, &x, grid.stop())?;
        let accuracy = Estimate::mean(&classifier.hits(&x, &Tensor::new(labels.as_slice(), &CPU)?)?)?;
        let halves = x.flatten_from(1)?.reshape((labels.len() / 2, 2, PIXELS))?;
        let apart =
            (halves.narrow(1, 0, 1)? - halves.narrow(1, 1, 1)?)?.sqr()?.sum(2)?.sqrt()?.flatten_all()?;
        let diversity = Estimate::mean(&apart.to_vec1::<f64>()?)?;
        rows.push(Guided { weight, accuracy, diversity });
    }
    Ok(rows)
}
