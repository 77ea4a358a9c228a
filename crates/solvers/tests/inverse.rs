//! Measured data: the measurements as linear maps; reconstruction against the exact posterior of Gaussian data; replacement, to the bit; the
//! moments of tables that jump.

mod support;

use std::cell::RefCell;

use candle_core::{DType, Device, Tensor};
use nalgebra::{DMatrix, DVector};
use sde_core::noise::{BatchNoise, Law, Noise, NormalSource, Stream};
use sde_core::oracle::Mixture;
use sde_core::process::Vp;
use sde_core::{Field, LinearSde, Op, OracleField, Result, TimeGrid};
use sde_solvers::guidance::{CleanGuided, LogLikelihood};
use sde_solvers::inverse::{
    Dense, Grey, Mask, Measurement, Pool, Reconstruction, Replacement, Resampled, Spread,
};
use sde_solvers::{
    Adaptive, Chart, Ddim, Error, Form, Multistep, Path, ProbabilityFlow, Sampler, StochasticDdim, Tab,
    prior_sample,
};
use support::{largest_gap, process, rotating::Rotating};

fn normals(shape: &[usize], site: u32) -> Tensor {
    let noise = BatchNoise::new(Noise::new(21), 0, 0..shape[0] as u32);
    noise.tensor(Law::Normal, Stream::User, site, &shape[1..], DType::F64, &Device::Cpu).expect("normals")
}

fn dot(a: &Tensor, b: &Tensor) -> f64 {
    (a * b).and_then(|p| p.sum_all()?.to_scalar::<f64>()).expect("tensors of one shape")
}

/// Every kind, on states [3, 4, 4].
fn measurements() -> Vec<(&'static str, Box<dyn Measurement>)> {
    let known = Tensor::from_iter((0..16).map(|i| u8::from(i % 3 == 0)), &Device::Cpu).expect("a mask");
    let known = known.reshape((1, 4, 4)).expect("a mask");
    let matrix = normals(&[5, 48], 0);
    vec![
        ("mask", Box::new(Mask::new(&known).expect("a mask"))),
        ("grey", Box::new(Grey { channels: 3 })),
        ("pool", Box::new(Pool { side: 2 })),
        ("dense", Box::new(Dense::new(&matrix, &[3, 4, 4]).expect("a matrix"))),
    ]
}

#[test]
fn measurements_are_what_they_say() -> Result<()> {
    let (x, other) = (normals(&[2, 3, 4, 4], 1), normals(&[2, 3, 4, 4], 2));
    for (name, a) in measurements() {
        let (y, z) = (a.apply(&x)?, a.apply(&other)?);
        assert!((dot(&z, &y) - dot(&a.adjoint(&z)?, &x)).abs() < 1e-11, "{name}: adjoint");
        let weighed = a.weigh(&y, &[0.7, 1.9], 0.3)?;
        let spread = a.apply(&a.adjoint(&weighed)?)?;
        let scaled = sde_core::apply_each(&[Op::Scalar(0.7), Op::Scalar(1.9)], &spread)?;
        assert!(largest_gap(&(scaled + (&weighed * 0.3)?)?, &y) < 1e-12, "{name}: weigh");
        let projected = a.project(&other, &y)?;
        assert!(largest_gap(&a.apply(&projected)?, &y) < 1e-12, "{name}: project");
        assert!(largest_gap(&a.project(&projected, &y)?, &projected) < 1e-12, "{name}: twice");
        // Nearest: what was added is orthogonal to whatever leaves the measurement as it is.
        let free = (&x - a.project(&x, &y.zeros_like()?)?)?;
        let silent = (&x - &free)?;
        assert!(dot(&silent, &(projected - &other)?).abs() < 1e-11, "{name}: nearest");
        // One measurement for all samples.
        let one = y.narrow(0, 0, 1)?;
        assert!(largest_gap(&a.apply(&a.project(&other, &one)?)?.narrow(0, 1, 1)?, &one) < 1e-12, "{name}");
    }
    Ok(())
}

#[test]
fn impossible_measurements_are_refused() -> Result<()> {
    let cpu = &Device::Cpu;
    assert!(Mask::new(&Tensor::new(&[1.0, 0.5], cpu)?).is_err());
    assert!(Mask::new(&Tensor::new(&[1.0, 0.0], cpu)?)?.apply(&normals(&[2, 3], 0)).is_err());
    assert!(Grey { channels: 3 }.apply(&normals(&[2, 1, 4, 4], 0)).is_err());
    for side in [0, 3] {
        assert!(Pool { side }.apply(&normals(&[2, 3, 4, 4], 0)).is_err());
    }
    assert!(Dense::new(&normals(&[5, 4], 0), &[5]).is_err());
    let twice = Tensor::new(&[[1.0, 2.0, 3.0], [2.0, 4.0, 6.0]], cpu)?;
    let text = Dense::new(&twice, &[3]).map_err(|e| e.to_string()).err();
    assert!(text.is_some_and(|t| t.contains("independent rows")));
    assert!(Dense::new(&Tensor::new(&[[f64::NAN, 1.0]], cpu)?, &[2]).is_err());
    assert!(Dense::new(&Tensor::zeros((0, 2), DType::F64, cpu)?, &[2]).is_err());
    Ok(())
}

#[test]
fn reconstruction_is_the_posterior_of_gaussian_data() -> Result<()> {
    let (variance, noise, shape) = (0.6, 0.2, [3, 4, 4]);
    let dim = 48;
    let mean = normals(&[1, dim], 3).squeeze(0)?.to_vec1::<f64>()?;
    let data = Mixture::diagonal(mean.clone(), vec![variance; dim])?;
    let truth = normals(&[2, 3, 4, 4], 4);
    let flat = |x: &Tensor| x.flatten_from(1);
    for (name, a) in measurements() {
        let y = a.apply(&truth)?;
        // The rows of A, read off its action on the axes; those of a mask that are zero say nothing.
        let axes = Tensor::eye(dim, DType::F64, &Device::Cpu)?.reshape((dim, 3, 4, 4))?;
        let columns = a.apply(&axes)?.flatten_from(1)?.to_vec2::<f64>()?;
        let full = DMatrix::from_fn(columns[0].len(), dim, |i, j| columns[j][i]);
        let rows: Vec<usize> = (0..full.nrows()).filter(|&i| full.row(i).norm() > 0.0).collect();
        let matrix = full.select_rows(&rows);
        let mut spread = &matrix * matrix.transpose() * variance;
        spread += DMatrix::identity(rows.len(), rows.len()) * (noise * noise);
        let gain = matrix.transpose() * spread.try_inverse().expect("a covariance") * variance;
        let m = DVector::from_vec(mean.clone());
        let covariance = DMatrix::identity(dim, dim) * variance - &gain * &matrix * variance;
        let covariance = (&covariance + covariance.transpose()) * 0.5;
        for sde in ["vp", "ve", "linear"].map(process) {
            let sde = sde.as_ref();
            let spread = Spread::OfData { variance };
            let likelihood = Reconstruction::new(&a, y.clone(), sde, spread, noise);
            for t in [0.05, 0.4, 0.9] {
                let u = normals(&[2, 3, 4, 4], 5);
                let image = Images(OracleField::noise(&data, sde), shape);
                let guided = CleanGuided::new(&image, sde, &likelihood, 1.0);
                let found = guided.eval(&u, &[t])?;
                for sample in 0..2 {
                    let seen = flat(&y)?.get(sample)?.to_vec1::<f64>()?;
                    let seen = DVector::from_iterator(rows.len(), rows.iter().map(|&i| seen[i]));
                    let posterior = &m + &gain * (seen - &matrix * &m);
                    let law = Mixture::new(
                        &[1.0],
                        &[posterior.as_slice().to_vec()],
                        std::slice::from_ref(&covariance),
                    )?;
                    let exact = OracleField::noise(&law, sde).eval(&flat(&u)?.narrow(0, sample, 1)?, &[t])?;
                    let scale = exact.abs()?.max_all()?.to_scalar::<f64>()?.max(1.0);
                    let gap = largest_gap(&flat(&found)?.narrow(0, sample, 1)?, &exact);
                    // x̂₀ is (u − σ ε)/α, 1/α up to 1e2 at t = 0.9.
                    assert!(gap < 1e-10 * scale, "{name} at {t}: {gap}");
                }
            }
        }
    }
    Ok(())
}

/// A field of vectors as one of images.
struct Images<'a>(OracleField<'a>, [usize; 3]);

impl Field for Images<'_> {
    fn prediction(&self) -> sde_core::Prediction {
        self.0.prediction()
    }
    fn eval(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        Ok(self.0.eval(&x.flatten_from(1)?, t)?.reshape(x.dims())?)
    }
    fn pull_back(
        &self,
        x: &Tensor,
        t: &[f64],
        cotangents: &sde_core::Cotangents<'_>,
    ) -> Result<(Tensor, Vec<Tensor>)> {
        let images = |value: &Tensor| value.reshape((value.dim(0)?, self.1[0], self.1[1], self.1[2]));
        let (value, products) = self.0.pull_back(&x.flatten_from(1)?, t, &|value| {
            cotangents(&images(value)?)?.iter().map(|v| Ok(v.flatten_from(1)?)).collect()
        })?;
        let products = products.iter().map(|product| Ok(images(product)?)).collect::<Result<_>>()?;
        Ok((images(&value)?, products))
    }
}

#[test]
fn the_likelihood_has_the_derivatives_it_says() -> Result<()> {
    let sde = Vp::STANDARD;
    let (x, v, t, h) = (normals(&[2, 3, 4, 4], 6), normals(&[2, 3, 4, 4], 7), [0.3, 0.6], 1e-5);
    for (name, a) in measurements() {
        for spread in [Spread::OfData { variance: 0.5 }, Spread::OfNoise { weight: 2.0 }, Spread::None] {
            let y = a.apply(&normals(&[2, 3, 4, 4], 8))?;
            let likelihood = Reconstruction::new(&a, y, &sde, spread, 0.4);
            let (ahead, behind) = ((&x + (&v * h)?)?, (&x - (&v * h)?)?);
            let of = |x: &Tensor| likelihood.log_likelihood(x, &t);
            let along = (likelihood.gradient(&x, &t)? * &v)?.flatten_from(1)?.sum(1)?;
            // Quadratic, so central differences are exact but for rounding, 1e-14 of a value of 1e2, over h.
            let gap = largest_gap(&((of(&ahead)? - of(&behind)?)? / (2.0 * h))?, &along);
            assert!(gap < 1e-6, "{name} {spread:?}: {gap}");
            let gradient = |x: &Tensor| likelihood.gradient(x, &t);
            let difference = ((gradient(&ahead)? - gradient(&behind)?)? / (2.0 * h))?;
            let gap = largest_gap(&difference, &likelihood.hessian_product(&x, &t, &v)?);
            assert!(gap < 1e-7, "{name} {spread:?}: {gap}");
        }
    }
    // How much of the data is known is a number for scalar processes; without it the likelihood asks for none.
    let rotating = Rotating { omega: 1.0 };
    let grouped = |spread: Spread| {
        let likelihood =
            Reconstruction::new(Grey { channels: 2 }, normals(&[1, 1], 0), &rotating, spread, 1.0);
        likelihood.gradient(&normals(&[1, 2], 0), &[0.5]).map_err(|e| e.to_string())
    };
    assert!(grouped(Spread::OfNoise { weight: 1.0 }).is_err_and(|text| text.contains("Spread::None")));
    assert!(grouped(Spread::None).is_ok());
    Ok(())
}

/// A source that writes down for which steps it was asked.
struct Recorder<'a>(&'a BatchNoise, RefCell<Vec<usize>>);

impl NormalSource for Recorder<'_> {
    fn normal(&self, step: usize, like: &Tensor) -> Result<Tensor> {
        self.1.borrow_mut().push(step);
        self.0.normal(step, like)
    }
}

#[test]
fn replacement_ends_at_the_measurement_and_repeats_no_noise() -> Result<()> {
    let (sde, dim) = (Vp::STANDARD, 48);
    let data = Mixture::diagonal(vec![0.1; dim], vec![0.4; dim])?;
    let field = Images(OracleField::noise(&data, &sde), [3, 4, 4]);
    let grid = TimeGrid::power(1.0, 1e-3, 7, 2.0)?;
    let noise = BatchNoise::new(Noise::new(4), 0, 0..3);
    let start = prior_sample(&sde, &noise, &[3, 4, 4], DType::F64, &Device::Cpu).expect("a start");
    let truth = normals(&[3, 3, 4, 4], 9);
    let path = Path { sde: &sde, field: &field, grid: &grid };
    let ancestral = Ddim { eta: 1.0, form: Form::Noise };
    let resampled = Resampled { rule: ancestral, jump: 2, times: 3 };
    let of = |kind: usize| -> (Box<dyn Multistep>, usize) {
        match kind {
            0 => (Box::new(Ddim::DETERMINISTIC), 7),
            1 => (Box::new(ancestral), 7),
            2 => (Box::new(Tab { degree: 3 }), 7),
            _ => (Box::new(resampled), 21),
        }
    };
    for kind in 0..4 {
        for (name, a) in measurements() {
            let (rule, nfe) = of(kind);
            let y = a.apply(&truth)?;
            let source = Recorder(&noise, RefCell::default());
            let solution =
                Replacement::new(rule, &a, y.clone()).sample(&path, &start, &source).expect("a solution");
            assert_eq!(solution.nfe, [nfe; 3]);
            let found = a.apply(&solution.x)?;
            if name == "mask" {
                // To the bit.
                assert_eq!(found.flatten_all()?.to_vec1::<f64>()?, y.flatten_all()?.to_vec1::<f64>()?);
            }
            assert!(largest_gap(&found, &y) < 1e-12, "{name}");
            let mut asked = source.1.into_inner();
            let count = asked.len();
            asked.sort_unstable();
            asked.dedup();
            assert_eq!(asked.len(), count, "rule {kind}: a draw was used twice");
        }
    }
    let two = Rotating { omega: 0.5 };
    let pair = Mixture::diagonal(vec![0.0; 2], vec![1.0; 2])?;
    let field = OracleField::noise(&pair, &two);
    let grid = TimeGrid::uniform(2.0, 0.1, 3)?;
    let mask = Mask::new(&Tensor::new(&[1.0, 0.0], &Device::Cpu)?)?;
    let refused = Replacement::new(Ddim::DETERMINISTIC, mask, normals(&[3, 2], 0)).sample(
        &Path { sde: &two, field: &field, grid: &grid },
        &normals(&[3, 2], 1),
        &noise,
    );
    assert!(matches!(refused, Err(Error::NotScalar { .. })));
    Ok(())
}

#[test]
fn guidance_by_reconstruction_finds_the_posterior_with_any_sampler() -> Result<()> {
    // Two coordinates of correlation 0.8 in a mixture of one: x₂ given x₁ = 1 is N(0.8, 0.36). The data is not isotropic, so r is that of
    // the right trace, and what is tested is that samplers of every kind agree on the guided law.
    let sde = Vp::STANDARD;
    let data =
        Mixture::new(&[1.0], &[vec![0.0; 2]], &[DMatrix::from_row_slice(2, 2, &[1.0, 0.8, 0.8, 1.0])])?;
    let mask = Mask::new(&Tensor::new(&[1.0, 0.0], &Device::Cpu)?)?;
    let y = Tensor::new(&[[1.0, 0.0], [-0.5, 0.0], [0.2, 0.0], [2.0, 0.0]], &Device::Cpu)?;
    let likelihood = Reconstruction::new(&mask, y.clone(), &sde, Spread::OfData { variance: 1.0 }, 0.05);
    let guided = CleanGuided::new(OracleField::noise(&data, &sde), &sde, &likelihood, 1.0);
    let start = normals(&[4, 2], 10);
    let solver = Adaptive::new(1e-7, 1e-7);
    let solve = |field: &dyn Field, x: &Tensor| {
        ProbabilityFlow::new(&sde, field, Chart::Clock).solve(&solver, x, 0.999, 1e-3).expect("a solution").y
    };
    let exact = solve(&guided, &start);
    for sample in 0..4 {
        let alone = guided.restrict(&[sample])?.expect("it holds measurements");
        assert_eq!(
            largest_gap(&solve(alone.as_ref(), &start.narrow(0, sample, 1)?), &exact.narrow(0, sample, 1)?),
            0.0
        );
    }
    // The known entry is met to about three standard deviations of its noise, s, and the spread that is left at the last time.
    assert!(largest_gap(&exact.narrow(1, 0, 1)?, &y.narrow(1, 0, 1)?) < 0.2);
    let noise = BatchNoise::new(Noise::new(0), 0, 0..4);
    let error = |steps| -> Result<f64> {
        let grid = TimeGrid::log_rho(&sde, 0.999, 1e-3, steps)?;
        let path = Path { sde: &sde, field: &guided, grid: &grid };
        let found = Tab { degree: 2 }.sample(&path, &start, &noise).expect("a solution").x;
        Ok(largest_gap(&found, &exact))
    };
    let (coarse, fine) = (error(40)?, error(80)?);
    assert!(fine < 1e-2 && fine < coarse / 4.0, "{coarse} {fine}");
    Ok(())
}

fn dense(op: &Op, dim: usize) -> DMatrix<f64> {
    op.matrix(dim).expect("a block of the state")
}

#[test]
fn a_jump_is_the_forward_process_for_every_process() {
    let mean = DVector::from_vec(vec![0.7, -0.3]);
    let covariance = DMatrix::from_row_slice(2, 2, &[0.5, 0.2, 0.2, 0.3]);
    let rotating: Box<dyn LinearSde> = Box::new(Rotating { omega: 0.8 });
    let scalar = ["vp", "subvp", "ve", "edm", "cosine", "linear"].map(process);
    for sde in scalar.into_iter().chain([rotating]) {
        let sde = sde.as_ref();
        let span = sde.span();
        let grid = TimeGrid::power(span.end * 0.98, span.sampling.max(1e-3), 7, 2.0).expect("a grid");
        let rule = Resampled { rule: Ddim::DETERMINISTIC, jump: 3, times: 2 };
        let table = rule.table(sde, &grid).expect("a table");
        let exact = |t: f64| {
            let (s, sigma) = (dense(&sde.signal(t), 2), dense(&sde.covariance(t), 2));
            (&s * &mean, &s * &covariance * s.transpose() + sigma)
        };
        let jumps: Vec<_> = table.updates.iter().filter(|row| row.terms.is_empty()).collect();
        assert_eq!(jumps.len(), 3);
        for row in jumps {
            assert!(row.to > row.from);
            let (before, after) = (exact(row.from), exact(row.to));
            let psi = dense(&row.carry, 2);
            let n = row.inject.as_ref().map_or(DMatrix::zeros(2, 2), |n| dense(n, 2));
            let scale = after.1.amax().max(1.0);
            assert!((&psi * before.0 - after.0).amax() < 1e-12 * scale);
            let gap = (&psi * before.1 * psi.transpose() + &n * n.transpose() - after.1).amax();
            assert!(gap < 1e-12 * scale, "{gap}");
        }
    }
}

#[test]
fn a_table_that_goes_back_is_the_table_block_by_block() -> sde_solvers::Result<()> {
    let (sde, grid) = (Vp::STANDARD, TimeGrid::uniform(1.0, 1e-3, 5)?);
    let plain = StochasticDdim { lambda: 1.0 };
    let (table, base) =
        (Resampled { rule: plain, jump: 2, times: 3 }.table(&sde, &grid)?, plain.table(&sde, &grid)?);
    assert_eq!((table.nfe(), table.updates.len()), (15, 15 + 6));
    assert!(table.updates.windows(2).all(|pair| pair[0].to == pair[1].from));
    assert!(table.updates.iter().enumerate().all(|(i, row)| row.step == i));
    let times: Vec<f64> = table.updates.iter().map(|row| row.to).collect();
    let t = grid.times();
    assert_eq!(times[..9], [t[1], t[2], t[0], t[1], t[2], t[0], t[1], t[2], t[3]]);
    assert_eq!(times.last(), t.last());
    assert_eq!(Resampled { rule: plain, jump: 4, times: 1 }.table(&sde, &grid)?, base);
    assert!(Resampled { rule: plain, jump: 0, times: 1 }.table(&sde, &grid).is_err());
    // A rule that looks back only where the table does: degree 0 has no history, and one pass needs none.
    let of = |degree, times| Resampled { rule: Tab { degree }, jump: 2, times }.table(&sde, &grid);
    assert!(of(0, 2).is_ok() && of(2, 1).is_ok());
    assert!(matches!(of(2, 2), Err(Error::History { .. })));
    Ok(())
}

/// Replacement on correlated Gaussian data ignores part of the correlation; going back brings it in.
#[test]
fn resampling_brings_replacement_nearer_to_the_posterior() -> Result<()> {
    let (sde, n) = (Vp::STANDARD, 4000u32);
    let data =
        Mixture::new(&[1.0], &[vec![0.0; 2]], &[DMatrix::from_row_slice(2, 2, &[1.0, 0.8, 0.8, 1.0])])?;
    let field = OracleField::noise(&data, &sde);
    let grid = TimeGrid::power(1.0, 1e-3, 20, 2.0)?;
    let noise = BatchNoise::new(Noise::new(9), 0, 0..n);
    let start = prior_sample(&sde, &noise, &[2], DType::F64, &Device::Cpu).expect("a start");
    let mask = Mask::new(&Tensor::new(&[1.0, 0.0], &Device::Cpu)?)?;
    let y = Tensor::new(&[[1.0, 0.0]], &Device::Cpu)?;
    let mean = |times: usize| -> Result<(f64, f64)> {
        let rule = Resampled { rule: Ddim { eta: 1.0, form: Form::Noise }, jump: 2, times };
        let path = Path { sde: &sde, field: &field, grid: &grid };
        let x = Replacement::new(rule, &mask, y.clone()).sample(&path, &start, &noise).expect("a solution").x;
        let values = x.narrow(1, 1, 1)?.flatten_all()?.to_vec1::<f64>()?;
        let mean = values.iter().sum::<f64>() / f64::from(n);
        let square = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / f64::from(n - 1);
        Ok((mean, (square / f64::from(n)).sqrt()))
    };
    // E[x₂ | x₁ = 1] = 0.8.
    let ((once, error), (often, other)) = (mean(1)?, mean(8)?);
    let (far, near) = ((once - 0.8).abs(), (often - 0.8).abs());
    let spread = (error * error + other * other).sqrt();
    assert!(far - near > 5.0 * spread, "{once} ± {error} once, {often} ± {other} often");
    Ok(())
}
