//! Bits per dimension: independent of the range, those of a closed form, refused without dequantisation; and the Gaussian baseline.

use candle_core::{Device, Tensor};
use ndarray::{Array2, array};
use sde_core::OracleField;
use sde_core::noise::{BatchNoise, Law, Noise, Stream};
use sde_core::oracle::Mixture;
use sde_core::process::{Edm, Vp};
use sde_core::quadrature::GaussLegendre;
use sde_data::{Batch, Dataset, Encoding, Points, Range, Split, digits};
use sde_eval::{Error, Gaussian, Likelihood, Nll, Prior, Protocol, Result, nll};
use sde_solvers::{Adaptive, Divergence};

/// Some levels of three pixels, in f64 so that two ranges can be compared beyond f32.
struct Levels {
    encoding: Encoding,
    levels: Vec<[u32; 3]>,
}

const LEVELS: u32 = 16;

impl Levels {
    fn new(range: Range) -> Self {
        let levels = (0..20).map(|i| [4 + i % 5, 7 + i * 3 % 4, i * 7 % 16]).collect();
        Self { encoding: Encoding::Dequantised { levels: LEVELS, range }, levels }
    }

    fn range(&self) -> Range {
        match self.encoding {
            Encoding::Dequantised { range, .. } | Encoding::Quantised { range, .. } => range,
            _ => Range::UNIT,
        }
    }
}

impl Dataset for Levels {
    fn len(&self) -> usize {
        self.levels.len()
    }
    fn shape(&self) -> &[usize] {
        &[3]
    }
    fn encoding(&self) -> Encoding {
        self.encoding
    }
    fn classes(&self) -> usize {
        0
    }
    fn batch(&self, indices: &[usize], noise: &BatchNoise) -> sde_data::Result<Batch> {
        let range = self.range();
        let mut values = Vec::new();
        for (&i, mut draws) in indices.iter().zip(noise.draws(Stream::Dequantise, 0)) {
            let mut place =
                |k: u32| range.low() + range.width() * (f64::from(k) + draws.uniform()) / f64::from(LEVELS);
            values.extend(self.levels[i].map(&mut place));
        }
        Ok(Batch {
            x: Tensor::from_vec(values, (indices.len(), 3), &Device::Cpu)?,
            labels: None,
            augment: None,
        })
    }
}

/// The law N(m, v) of pixels in [0, 1], in another range.
fn law(range: Range) -> Result<Mixture> {
    let mean = [0.4, 0.5, 0.5].map(|m| range.low() + range.width() * m);
    let variance = [0.02, 0.01, 0.09].map(|v| range.width().powi(2) * v);
    Ok(Mixture::diagonal(mean.to_vec(), variance.to_vec())?)
}

fn protocol(repeats: usize) -> Protocol {
    Protocol { noise: Noise::new(1), repeats, dequantisations: 1, batch: 8 }
}

/// A process whose σ scales with the range treats both ranges alike, so that bits per dimension must not differ at all.
#[test]
fn the_range_does_not_change_bits_per_dim() -> Result<()> {
    let in_range = |range: Range| -> Result<Nll> {
        let (data, law) = (Levels::new(range), law(range)?);
        let sde = Edm::new(0.001 * range.width(), 40.0 * range.width())?;
        let field = OracleField::noise(&law, &sde);
        let likelihood = Likelihood {
            prior: Prior::Exact(&law),
            ..Likelihood::new(&sde, &field, Divergence::Exact, Adaptive::new(1e-10, 1e-12))
        };
        let indices: Vec<usize> = (0..data.len()).collect();
        let found = nll(&likelihood, &data, &indices, &protocol(2), &mut |_| ())?;
        // The same average of the closed form, over the very same points.
        let marginal = law.marginal(&sde, likelihood.start)?;
        let mut total = 0.0;
        for repeat in 0..2 {
            let x = data.batch(&indices, &BatchNoise::new(Noise::new(1), repeat, 0..20))?.x;
            for row in x.to_vec2::<f64>()? {
                total -= marginal.at(&row)?.log_density / 40.0;
            }
        }
        assert!((found.nats.value - total).abs() < 1e-7, "{} {total}", found.nats.value);
        Ok(found)
    };
    let (signed, unit) = (in_range(Range::SIGNED)?, in_range(Range::UNIT)?);
    let bits = |nll: &Nll| nll.bits_per_dim.map_or(f64::NAN, |b| b.value);
    assert!((bits(&signed) - bits(&unit)).abs() < 1e-9);
    assert!((signed.nats.value - unit.nats.value - 3.0 * 2.0f64.ln()).abs() < 1e-8, "nats do differ");
    Ok(())
}

#[test]
fn levels_without_dequantisation_are_refused() -> Result<()> {
    let law = law(Range::UNIT)?;
    let data = Levels {
        encoding: Encoding::Quantised { levels: LEVELS, range: Range::UNIT },
        ..Levels::new(Range::UNIT)
    };
    let field = OracleField::noise(&law, &Vp::STANDARD);
    let likelihood = Likelihood::new(&Vp::STANDARD, &field, Divergence::Exact, Adaptive::new(1e-3, 1e-3));
    let refused = nll(&likelihood, &data, &[0], &protocol(1), &mut |_| ());
    let message = refused.err().map(|e| e.to_string()).unwrap_or_default();
    assert!(message.contains("16 levels has no density") && message.contains("dequantise it"), "{message}");
    assert!(matches!(Gaussian::fit(&data, Noise::new(0)), Err(Error::Quantised { levels: 16 })));
    assert!(nll(&likelihood, &Levels::new(Range::UNIT), &[], &protocol(1), &mut |_| ()).is_err());
    Ok(())
}

/// Under its own maximum-likelihood Gaussian a set has the mean `½ (D + log det 2πC)`, exactly.
#[test]
fn a_gaussian_on_its_own_training_set_is_a_closed_form() -> Result<()> {
    let rows = array![[1.0, 2.0], [3.0, -1.0], [0.5, 0.0], [-2.0, 4.0], [1.5, 1.0]];
    let n = rows.nrows() as f64;
    let (a, b) = (rows.column(0).sum() / n, rows.column(1).sum() / n);
    let moment = |f: fn(f64, f64) -> f64| rows.outer_iter().map(|r| f(r[0] - a, r[1] - b)).sum::<f64>() / n;
    let det = moment(|x, _| x * x) * moment(|_, y| y * y) - moment(|x, y| x * y).powi(2);
    let expected = 1.0 + std::f64::consts::TAU.ln() + 0.5 * det.ln();

    let data = Points::new(rows.view())?;
    let gaussian = Gaussian::fit(&data, Noise::new(0))?;
    let found = gaussian.nll(&data, Noise::new(0))?;
    // Points are served in f32.
    assert!((found.nats.value - expected).abs() < 1e-6, "{found:?} {expected}");
    assert_eq!((found.ridge, gaussian.ridge(), found.nats.n, found.bits_per_dim), (0.0, 0.0, 5, None));
    let other = Points::new(Array2::<f64>::zeros((2, 3)).view())?;
    assert!(matches!(gaussian.nll(&other, Noise::new(0)), Err(Error::Mismatch { .. })));
    Ok(())
}

#[test]
fn a_singular_covariance_gets_a_ridge_and_says_so() -> Result<()> {
    // The third coordinate is the sum of the others.
    let rows = Array2::from_shape_fn((40, 3), |(i, j)| {
        let (a, b) = ((i * 7 % 11) as f64, (i * 5 % 13) as f64);
        [a, b, a + b][j]
    });
    let gaussian = Gaussian::fit(&Points::new(rows.view())?, Noise::new(0))?;
    let variance = rows.var_axis(ndarray::Axis(0), 0.0).sum() / 3.0;
    assert!((gaussian.ridge() / variance - 1e-6).abs() < 1e-9, "{}", gaussian.ridge());
    let constant = Points::new(Array2::<f64>::ones((5, 2)).view())?;
    assert!(Gaussian::fit(&constant, Noise::new(0)).is_err());
    Ok(())
}

#[test]
fn the_gaussian_baseline_of_the_digits() -> Result<()> {
    let mut values = Vec::new();
    for range in [Range::SIGNED, Range::UNIT] {
        let encoding = Encoding::Dequantised { levels: 17, range };
        let [train, test] =
            [digits(Split::Train)?.with_encoding(encoding)?, digits(Split::Test)?.with_encoding(encoding)?];
        let found = Gaussian::fit(&train, Noise::new(0))?.nll(&test, Noise::new(0))?;
        assert_eq!((found.ridge, found.nats.n), (0.0, 360));
        values.extend(found.bits_per_dim.map(|bits| bits.value));
    }
    // 2.96 ± 0.02 on random splits of four to one; the ranges differ by rounding to f32 alone.
    assert!((values[0] - 2.96).abs() < 0.06 && (values[0] - values[1]).abs() < 1e-5, "{values:?}");
    Ok(())
}

/// The log probability of levels under the law with independent pixels: a product of integrals over cells, less what ends of the range cut off.
fn log_probability(law: &[(f64, f64)], levels: &[u32; 3]) -> f64 {
    let rule = GaussLegendre::new(30);
    let of_pixel = |(&(mean, variance), &level): (&(f64, f64), &u32)| {
        let density =
            |x: f64| (-0.5 * (x - mean).powi(2) / variance).exp() / (std::f64::consts::TAU * variance).sqrt();
        let cell = 1.0 / f64::from(LEVELS);
        rule.integrate(f64::from(level) * cell, f64::from(level + 1) * cell, density).ln()
    };
    law.iter().zip(levels).map(of_pixel).sum()
}

#[test]
fn more_places_in_a_cell_come_nearer_to_the_probability_of_its_level() -> Result<()> {
    // Narrow against a cell, so that the density varies in it.
    let pixels = [(0.4, 0.002), (0.5, 0.001), (0.5, 0.09)];
    let law = Mixture::diagonal(pixels.map(|p| p.0).to_vec(), pixels.map(|p| p.1).to_vec())?;
    let sde = Edm::new(1e-4, 40.0)?;
    let field = OracleField::noise(&law, &sde);
    let likelihood = Likelihood {
        prior: Prior::Exact(&law),
        ..Likelihood::new(&sde, &field, Divergence::Exact, Adaptive::new(1e-4, 1e-5))
    };
    let data = Levels::new(Range::UNIT);
    let indices: Vec<usize> = (0..data.len()).collect();
    // Densities in [0, 1] are probabilities times levels.
    let offset = 3.0 * f64::from(LEVELS).ln();
    let mut bounds = Vec::new();
    for dequantisations in [1, 4, 16] {
        let many = Protocol { dequantisations, ..protocol(24 / dequantisations.min(8)) };
        let found = nll(&likelihood, &data, &indices, &many, &mut |_| ())?;
        assert!(found.nfe.min >= 20 * dequantisations, "{:?}", found.nfe);
        bounds.push((found.nats.value + offset, found.estimator_error.unwrap_or(f64::NAN)));
    }
    let exact = data.levels.iter().map(|levels| -log_probability(&pixels, levels)).sum::<f64>() / 20.0;
    for pair in bounds.windows(2) {
        let error = pair[0].1.hypot(pair[1].1);
        assert!(pair[1].0 < pair[0].0 - 2.0 * error, "{bounds:?} do not fall");
    }
    let (last, error) = bounds[2];
    assert!(last > exact - 4.0 * error && last < exact + 0.5 * (bounds[0].0 - exact), "{bounds:?} {exact}");
    Ok(())
}

#[test]
fn places_in_cells_are_for_cells_and_for_exact_densities() -> Result<()> {
    let law = law(Range::UNIT)?;
    let field = OracleField::noise(&law, &Vp::STANDARD);
    let many = Protocol { dequantisations: 3, ..protocol(1) };
    let refused = |divergence: Divergence, encoding: Option<Encoding>| {
        let likelihood = Likelihood::new(&Vp::STANDARD, &field, divergence, Adaptive::new(1e-3, 1e-3));
        let data = Levels::new(Range::UNIT);
        let data = Levels { encoding: encoding.unwrap_or(data.encoding), ..data };
        nll(&likelihood, &data, &[0], &many, &mut |_| ()).err().map(|e| e.to_string()).unwrap_or_default()
    };
    let noisy = refused(Divergence::Hutchinson { law: Law::Rademacher, probes: 1 }, None);
    assert!(noisy.contains("exact divergence"), "{noisy}");
    let points = refused(Divergence::Exact, Some(Encoding::Continuous));
    assert!(points.contains("dequantised levels"), "{points}");
    Ok(())
}
