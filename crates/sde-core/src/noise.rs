//! The only source of randomness: Philox4x32-10, a counter-based generator.
//!
//! A draw is a pure function of an address (seed, stream, site, step, sample): there is no state to save, sample `i`
//! sees the same noise at any batch size, on any device and at any number of ranks. The 64-bit key is the seed; the
//! 128-bit counter is `[block, stream·2²⁴ + site, step, sample]`.
//!
//! Normals are made on the host, in f64, by one transform (Box–Muller): from two words `w` of 53 bits,
//! `u = (w + ½)·2⁻⁵³ ∈ (0, 1)`, `z₀ = √(−2 ln u₁) cos 2πu₂`, `z₁ = √(−2 ln u₁) sin 2πu₂`, with the logarithm, sine and
//! cosine of the `libm` crate, so that no platform's mathematics library enters. They are cast to the tensor's
//! type last.
//!
//! Reference: Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3", doi 10.1145/2063384.2063405.

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use crate::Result;

/// What a draw is used for; different streams are independent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[non_exhaustive]
pub enum Stream {
    /// Initial values of parameters.
    Init = 0,
    /// The order of a data set in an epoch.
    Shuffle = 1,
    /// Augmentation, such as flips.
    Augment = 2,
    /// Uniform dequantisation of integer-valued data.
    Dequantise = 3,
    /// The time t of a training example.
    Time = 4,
    /// The noise ε of a training example.
    Diffusion = 5,
    /// Dropout masks; the site is the layer.
    Dropout = 6,
    /// Dropping of labels for classifier-free guidance.
    LabelDrop = 7,
    /// The initial state of a sampler.
    Prior = 8,
    /// The noise that a stochastic sampler injects.
    Sampler = 9,
    /// Probes of the Hutchinson estimator.
    Probe = 10,
    /// Synthetic data sets.
    Data = 11,
    /// Random directions and subsets of a metric.
    Metric = 12,
    /// The noise of a calibration.
    Calibration = 13,
    /// Auxiliary groups of a state, such as velocities, that data does not have.
    Auxiliary = 14,
    /// Free for programs built on this crate.
    User = 255,
}

/// One Philox4x32-10 block: four words from a key and a counter.
pub fn philox4x32_10(key: [u32; 2], counter: [u32; 4]) -> [u32; 4] {
    let ([mut k0, mut k1], mut c) = (key, counter);
    for round in 0..10 {
        if round > 0 {
            k0 = k0.wrapping_add(0x9E37_79B9);
            k1 = k1.wrapping_add(0xBB67_AE85);
        }
        let p0 = u64::from(c[0]) * 0xD251_1F53;
        let p1 = u64::from(c[2]) * 0xCD9E_8D57;
        c = [(p1 >> 32) as u32 ^ c[1] ^ k0, p1 as u32, (p0 >> 32) as u32 ^ c[3] ^ k1, p0 as u32];
    }
    c
}

/// All the noise that a seed stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Noise {
    seed: u64,
}

impl Noise {
    /// The noise of a seed.
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The sequence of draws at (stream, step, sample), site 0.
    pub fn draws(&self, stream: Stream, step: u32, sample: u32) -> Draws {
        self.draws_at(stream, 0, step, sample)
    }

    /// The sequence of draws at (stream, site, step, sample); the site uses its low 24 bits.
    pub fn draws_at(&self, stream: Stream, site: u32, step: u32, sample: u32) -> Draws {
        let key = [self.seed as u32, (self.seed >> 32) as u32];
        let place = (stream as u32) << 24 | (site & 0x00FF_FFFF);
        Draws { key, counter: [0, place, step, sample], words: [0; 4], used: 4, spare: None }
    }

    /// The sequence of draws that belongs to a name (a parameter, a layer): its 64-bit FNV-1a hash is the address.
    pub fn draws_named(&self, stream: Stream, name: &str) -> Draws {
        let hash = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3));
        self.draws(stream, (hash >> 32) as u32, hash as u32)
    }
}

/// An endless sequence of random numbers at one address.
#[derive(Debug, Clone)]
pub struct Draws {
    key: [u32; 2],
    counter: [u32; 4],
    words: [u32; 4],
    used: usize,
    spare: Option<f64>,
}

impl Draws {
    /// 32 random bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.used == 4 {
            self.words = philox4x32_10(self.key, self.counter);
            self.counter[0] = self.counter[0].wrapping_add(1);
            self.used = 0;
        }
        self.used += 1;
        self.words[self.used - 1]
    }

    /// 64 random bits, low word first.
    pub fn next_u64(&mut self) -> u64 {
        let low = u64::from(self.next_u32());
        u64::from(self.next_u32()) << 32 | low
    }

    /// Uniform in the open interval (0, 1), a multiple of 2⁻⁵⁴.
    pub fn uniform(&mut self) -> f64 {
        ((self.next_u64() >> 11) as f64 + 0.5) * (1.0 / (1u64 << 53) as f64)
    }

    /// Standard normal.
    pub fn normal(&mut self) -> f64 {
        if let Some(z) = self.spare.take() {
            return z;
        }
        let radius = (-2.0 * libm::log(self.uniform())).sqrt();
        let angle = std::f64::consts::TAU * self.uniform();
        self.spare = Some(radius * libm::sin(angle));
        radius * libm::cos(angle)
    }

    /// −1 or 1, each with probability ½.
    pub fn sign(&mut self) -> f64 {
        if self.next_u32() & 1 == 0 { -1.0 } else { 1.0 }
    }

    /// Uniform in `0..n`, without bias (Lemire's rejection); `n` must not be zero.
    pub fn below(&mut self, n: u64) -> u64 {
        assert!(n > 0, "below(0): there is no number to draw");
        let threshold = n.wrapping_neg() % n;
        loop {
            let product = u128::from(self.next_u64()) * u128::from(n);
            if product as u64 >= threshold {
                return (product >> 64) as u64;
            }
        }
    }

    /// A uniform permutation of `0..n` (Fisher–Yates).
    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i as u64 + 1) as usize);
        }
        order
    }
}

/// The law of independent entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Law {
    /// N(0, 1).
    Normal,
    /// Uniform on (0, 1).
    Uniform,
    /// −1 or 1 with equal probability.
    Rademacher,
}

impl Law {
    fn draw(self, draws: &mut Draws) -> f64 {
        match self {
            Self::Normal => draws.normal(),
            Self::Uniform => draws.uniform(),
            Self::Rademacher => draws.sign(),
        }
    }
}

/// The noise of one batch: a step, and the address of each sample in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchNoise {
    /// The noise drawn from.
    pub noise: Noise,
    /// The step (of training, or of a sampler).
    pub step: u32,
    /// The address of each sample of the batch.
    pub samples: Vec<u32>,
}

impl BatchNoise {
    /// The noise of samples `samples` at step `step`.
    pub fn new(noise: Noise, step: u32, samples: impl IntoIterator<Item = u32>) -> Self {
        Self { noise, step, samples: samples.into_iter().collect() }
    }

    /// One sequence of draws a sample.
    pub fn draws(&self, stream: Stream, site: u32) -> Vec<Draws> {
        self.samples.iter().map(|&s| self.noise.draws_at(stream, site, self.step, s)).collect()
    }

    /// A tensor of independent entries.
    ///
    /// # Shapes
    /// `[B, shape…]`, B the number of samples; row `i` depends on `samples[i]` alone.
    pub fn tensor(
        &self,
        law: Law,
        stream: Stream,
        site: u32,
        shape: &[usize],
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        let n: usize = shape.iter().product();
        let mut values = vec![0f64; n * self.samples.len()];
        values.par_chunks_mut(n.max(1)).zip(&self.samples).for_each(|(row, &sample)| {
            let mut draws = self.noise.draws_at(stream, site, self.step, sample);
            row.iter_mut().for_each(|v| *v = law.draw(&mut draws));
        });
        let dims: Vec<usize> = std::iter::once(self.samples.len()).chain(shape.iter().copied()).collect();
        host_tensor(values, &dims, dtype, device)
    }
}

/// A host vector as a tensor of another type on a device, cast on the host (not every device has f64).
pub fn host_tensor(values: Vec<f64>, dims: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
    Ok(Tensor::from_vec(values, dims, &Device::Cpu)?.to_dtype(dtype)?.to_device(device)?)
}

/// Where a stochastic sampler takes its standard normals from.
pub trait NormalSource {
    /// The noise of step `step` of the sampler, of the shape, type and device of `like`.
    fn normal(&self, step: usize, like: &Tensor) -> Result<Tensor>;
}

impl NormalSource for BatchNoise {
    fn normal(&self, step: usize, like: &Tensor) -> Result<Tensor> {
        let at = Self { step: step as u32, ..self.clone() };
        at.tensor(Law::Normal, Stream::Sampler, 0, &like.dims()[1..], like.dtype(), like.device())
    }
}

/// Another source from a later step on: step k has its step `by + k`.
pub struct Shifted<'a> {
    /// The source.
    pub source: &'a dyn NormalSource,
    /// How many of its steps are passed over.
    pub by: usize,
}

impl NormalSource for Shifted<'_> {
    fn normal(&self, step: usize, like: &Tensor) -> Result<Tensor> {
        self.source.normal(self.by + step, like)
    }
}

/// Normals recorded beforehand, `[steps, B, …]`: step `i` uses row `i`.
#[derive(Debug, Clone)]
pub struct Recorded(pub Tensor);

impl NormalSource for Recorded {
    fn normal(&self, step: usize, like: &Tensor) -> Result<Tensor> {
        let recorded = self.0.dims().first().copied().unwrap_or(0);
        if step >= recorded {
            return Err(crate::Error::Mismatch {
                what: "recorded noise",
                expected: format!("step {step}"),
                found: format!("{recorded} steps"),
            });
        }
        let row = self.0.get(step)?;
        if row.dims() != like.dims() {
            return Err(crate::Error::Mismatch {
                what: "recorded noise of one step",
                expected: format!("{:?}", like.dims()),
                found: format!("{:?}", row.dims()),
            });
        }
        Ok(row.to_dtype(like.dtype())?.to_device(like.device())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_known_answers() {
        // The three vectors published with the generator.
        let cases = [
            ([0, 0], [0, 0, 0, 0], [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]),
            ([u32::MAX; 2], [u32::MAX; 4], [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]),
            (
                [0xa4093822, 0x299f31d0],
                [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
                [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
            ),
        ];
        for (key, counter, expected) in cases {
            assert_eq!(philox4x32_10(key, counter), expected);
        }
    }

    #[test]
    fn moments_within_five_standard_errors() {
        let n = 200_000;
        let mut draws = Noise::new(7).draws(Stream::User, 3, 11);
        let z: Vec<f64> = (0..n).map(|_| draws.normal()).collect();
        let moment = |k: i32| z.iter().map(|v| v.powi(k)).sum::<f64>() / n as f64;
        // Var(z^k) = E z^2k − (E z^k)²: 1, 2, 15, 96.
        for (k, mean, variance) in [(1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)] {
            let standard_error = f64::sqrt(variance / f64::from(n));
            assert!((moment(k) - mean).abs() < 5.0 * standard_error, "moment {k}: {}", moment(k));
        }
    }

    #[test]
    fn below_is_uniform_and_permutation_is_one() {
        let mut draws = Noise::new(1).draws(Stream::Shuffle, 0, 0);
        let mut counts = [0u32; 6];
        (0..60_000).for_each(|_| counts[draws.below(6) as usize] += 1);
        // Binomial standard error √(60000·1/6·5/6) = 91.
        assert!(counts.iter().all(|&c| (f64::from(c) - 10_000.0).abs() < 5.0 * 91.3), "{counts:?}");
        let mut order = draws.permutation(100);
        assert_ne!(order, (0..100).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn noise_of_a_sample_does_not_depend_on_its_batch() -> Result<()> {
        let noise = Noise::new(42);
        let of = |ids: Vec<u32>| {
            BatchNoise::new(noise, 5, ids).tensor(
                Law::Normal,
                Stream::Diffusion,
                0,
                &[3, 2],
                DType::F64,
                &Device::Cpu,
            )
        };
        let (alone, batch) = (of(vec![7])?, of((0..64).collect())?);
        assert_eq!(alone.flatten_all()?.to_vec1::<f64>()?, batch.get(7)?.flatten_all()?.to_vec1::<f64>()?);
        Ok(())
    }

    #[test]
    fn addresses_are_distinct() {
        let noise = Noise::new(0);
        let mut first: Vec<u64> = Vec::new();
        for stream in [Stream::Init, Stream::Dropout, Stream::User] {
            for (site, step, sample) in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)] {
                first.push(noise.draws_at(stream, site, step, sample).next_u64());
            }
        }
        let n = first.len();
        first.sort_unstable();
        first.dedup();
        assert_eq!(first.len(), n);
    }
}
