//! Guided fields against laws for which they are exact: mixtures with the Bayes classifier, tilted Gaussians; derivatives against
//! differences; and one guided sampler of every kind against the sampler of the law it should be guided to.

mod support;

use candle_core::{D, DType, Device, Tensor};
use nalgebra::DMatrix;
use sde_core::noise::{BatchNoise, Law, Noise, Stream};
use sde_core::oracle::Mixture;
use sde_core::process::Vp;
use sde_core::{
    Converted, Error, Field, FieldFn, LinearSde, Model, ModelField, OracleField, Pass, Prediction, Result,
    TimeGrid, rows_of,
};
use sde_solvers::guidance::{
    ClassifierFree, CleanGuided, Clip, Clipped, Guided, Interval, LogLikelihood, LogLikelihoodFn, Similarity,
};
use sde_solvers::{
    Adaptive, Chart, Ddim, Multistep, Path, ProbabilityFlow, Sampler, StochasticDdim, Tab, prior_sample,
};
use support::{largest_gap, process, rotating::Rotating};

const MEANS: [[f64; 2]; 2] = [[1.2, -0.4], [-0.7, 0.9]];
const VARIANCE: f64 = 0.3;
const WEIGHTS: [f64; 2] = [0.35, 0.65];

fn component(k: usize) -> Mixture {
    Mixture::diagonal(MEANS[k].to_vec(), vec![VARIANCE; 2]).expect("a Gaussian")
}

fn mixture() -> Mixture {
    let covariance = DMatrix::identity(2, 2) * VARIANCE;
    let means: Vec<Vec<f64>> = MEANS.iter().map(|m| m.to_vec()).collect();
    Mixture::new(&WEIGHTS, &means, &[covariance.clone(), covariance]).expect("a mixture")
}

fn normals(samples: u32, shape: &[usize], site: u32) -> Tensor {
    let noise = BatchNoise::new(Noise::new(11), 0, 0..samples);
    noise.tensor(Law::Normal, Stream::User, site, shape, DType::F64, &Device::Cpu).expect("normals")
}

/// log p(y | u) of the mixture's components under a scalar process, on the tape; one label a sample.
struct Bayes<'a> {
    sde: &'a dyn LinearSde,
    labels: Vec<usize>,
}

impl LogLikelihood for Bayes<'_> {
    fn log_likelihood(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        let batch = x.dim(0)?;
        let of = |op: sde_core::Op| op.as_scalar().expect("a scalar process");
        let column = |f: &dyn Fn(f64) -> f64| {
            Tensor::from_vec(t.iter().map(|&t| f(t)).collect::<Vec<f64>>(), (t.len(), 1), x.device())
        };
        let alpha = column(&|t| of(self.sde.signal(t)))?;
        let variance = column(&|t| of(self.sde.signal(t)).powi(2) * VARIANCE + of(self.sde.covariance(t)))?;
        let logits: Vec<Tensor> = (0..2)
            .map(|k| {
                let mean = alpha.broadcast_mul(&Tensor::new(&[MEANS[k]], x.device())?)?;
                let square = x.broadcast_sub(&mean)?.sqr()?.sum_keepdim(D::Minus1)?;
                Ok((square.broadcast_div(&(&variance * -2.0)?)? + WEIGHTS[k].ln())?)
            })
            .collect::<Result<_>>()?;
        let logits = Tensor::cat(&logits, 1)?;
        let chosen: Vec<u32> = self.labels.iter().map(|&l| l as u32).collect();
        let chosen = logits.gather(&Tensor::from_vec(chosen, (batch, 1), x.device())?, 1)?;
        Ok((chosen.squeeze(1)? - logits.log_sum_exp(1)?)?)
    }

    fn restrict<'a>(&'a self, samples: &[usize]) -> Result<Option<Box<dyn LogLikelihood + 'a>>> {
        let labels = samples.iter().map(|&i| self.labels[i]).collect();
        Ok(Some(Box::new(Bayes { sde: self.sde, labels })))
    }
}

/// The field of the component that each sample is labelled with.
struct Labelled<'a> {
    parts: [&'a dyn Field; 2],
    labels: Vec<usize>,
}

impl Field for Labelled<'_> {
    fn prediction(&self) -> Prediction {
        self.parts[0].prediction()
    }
    fn eval(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        assert_eq!(x.dim(0)?, self.labels.len(), "restricted to the samples at hand");
        let of = |i: usize| if t.len() == 1 { t[0] } else { t[i] };
        let rows = (0..x.dim(0)?).map(|i| self.parts[self.labels[i]].eval(&x.narrow(0, i, 1)?, &[of(i)]));
        Ok(Tensor::cat(&rows.collect::<Result<Vec<_>>>()?, 0)?)
    }
    fn pull_back(
        &self,
        x: &Tensor,
        t: &[f64],
        cotangents: &sde_core::Cotangents<'_>,
    ) -> Result<(Tensor, Vec<Tensor>)> {
        let value = self.eval(x, t)?;
        let products = cotangents(&value)?.into_iter().map(|v| {
            let rows = (0..x.dim(0)?).map(|i| {
                let at = if t.len() == 1 { t[0] } else { t[i] };
                let v = [v.narrow(0, i, 1)?];
                Ok(self.parts[self.labels[i]].vjps(&x.narrow(0, i, 1)?, &[at], &v)?.1[0].clone())
            });
            Ok(Tensor::cat(&rows.collect::<Result<Vec<_>>>()?, 0)?)
        });
        let products = products.collect::<Result<_>>()?;
        Ok((value, products))
    }
    fn restrict<'a>(&'a self, samples: &[usize]) -> Result<Option<Box<dyn Field + 'a>>> {
        let labels = samples.iter().map(|&i| self.labels[i]).collect();
        Ok(Some(Box::new(Labelled { parts: self.parts, labels })))
    }
}

fn labels(batch: usize) -> Vec<usize> {
    (0..batch).map(|i| (i / 2) % 2).collect()
}

#[test]
fn with_the_bayes_classifier_guidance_is_the_conditional_field() -> Result<()> {
    let (all, first, second) = (mixture(), component(0), component(1));
    for name in ["vp", "subvp", "ve", "edm", "cosine", "linear"] {
        let sde = process(name);
        let sde = sde.as_ref();
        let parts = [OracleField::noise(&first, sde), OracleField::noise(&second, sde)];
        for (at, t) in [0.01, 0.3, 0.9].into_iter().enumerate() {
            let x = normals(8, &[2], at as u32);
            let bayes = Bayes { sde, labels: labels(8) };
            let found = Guided::new(OracleField::noise(&all, sde), sde, &bayes, 1.0).eval(&x, &[t])?;
            let exact = Labelled { parts: [&parts[0], &parts[1]], labels: labels(8) };
            let expected = exact.eval(&x, &[t])?;
            // ε is of the size of x/σ, and rounding of the two scores that cancel is relative to it.
            let scale = expected.abs()?.max_all()?.to_scalar::<f64>()?.max(1.0);
            let gap = largest_gap(&found, &expected);
            assert!(gap < 1e-12 * scale, "{name} at {t}: {gap}");
            // Classifier-free guidance is guidance by the network's own classifier, γ = 1 + ω.
            for weight in [-1.0, -0.4, 0.0, 1.5] {
                let free =
                    ClassifierFree::new(&exact, OracleField::noise(&all, sde), weight, Interval::ALWAYS)
                        .expect("noise and noise");
                let guided = Guided::new(OracleField::noise(&all, sde), sde, &bayes, 1.0 + weight);
                let gap = largest_gap(&free.eval(&x, &[t])?, &guided.eval(&x, &[t])?);
                assert!(gap < 1e-11 * scale, "{name} at {t}, weight {weight}: {gap}");
            }
            let unconditional = OracleField::noise(&all, sde);
            let free = ClassifierFree::new(&exact, unconditional, -1.0, Interval::ALWAYS).expect("fields");
            assert!(largest_gap(&free.eval(&x, &[t])?, &unconditional.eval(&x, &[t])?) < 1e-13 * scale);
        }
    }
    Ok(())
}

/// log p(y | u) by the difference of exact scores: for any linear process.
struct ByScores<'a> {
    given: &'a Mixture,
    all: &'a Mixture,
    sde: &'a dyn LinearSde,
}

impl LogLikelihood for ByScores<'_> {
    fn log_likelihood(&self, _: &Tensor, _: &[f64]) -> Result<Tensor> {
        unreachable!("only its gradient is asked for")
    }
    fn gradient(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        let score =
            |data| Converted::new(OracleField::noise(data, self.sde), self.sde, Prediction::Score).eval(x, t);
        Ok((score(self.given)? - score(self.all)?)?)
    }
    fn hessian_product(&self, x: &Tensor, t: &[f64], v: &Tensor) -> Result<Tensor> {
        let product = |data| {
            let score = Converted::new(OracleField::noise(data, self.sde), self.sde, Prediction::Score);
            Ok::<_, Error>(score.vjps(x, t, std::slice::from_ref(v))?.1[0].clone())
        };
        Ok((product(self.given)? - product(self.all)?)?)
    }
}

#[test]
fn it_holds_for_a_process_with_groups_and_so_do_its_derivatives() -> Result<()> {
    let sde = Rotating { omega: 0.8 };
    let (all, given) = (mixture(), component(1));
    let likelihood = ByScores { given: &given, all: &all, sde: &sde };
    let guided = Guided::new(OracleField::noise(&all, &sde), &sde, likelihood, 1.0);
    let exact = OracleField::noise(&given, &sde);
    let (x, vs) = (normals(5, &[2], 0), [normals(5, &[2], 1), normals(5, &[2], 2)]);
    let t = [0.05, 0.2, 0.6, 1.5, 4.0];
    let (value, products) = guided.vjps(&x, &t, &vs)?;
    let (expected, expected_products) = exact.vjps(&x, &t, &vs)?;
    assert!(largest_gap(&value, &expected) < 1e-12);
    assert!(largest_gap(&guided.eval(&x, &t)?, &expected) < 1e-12);
    for (found, expected) in products.iter().zip(&expected_products) {
        // Derivatives are of the size of 1/σ, 1/0.22 at the first time.
        assert!(largest_gap(found, expected) < 1e-11);
    }
    Ok(())
}

#[test]
fn a_gradient_of_a_gradient_is_refused_where_it_is_not_known() {
    let (all, sde, x) = (mixture(), Vp::STANDARD, normals(2, &[2], 0));
    let bayes = Bayes { sde: &sde, labels: labels(2) };
    let guided = Guided::new(OracleField::noise(&all, &sde), &sde, &bayes, 1.0);
    let clean = CleanGuided::new(OracleField::noise(&all, &sde), &sde, &bayes, 1.0);
    for field in [&guided as &dyn Field, &clean] {
        let error = field.vjps(&x, &[0.5], std::slice::from_ref(&x)).expect_err("no second derivative");
        assert!(matches!(error, Error::NoGradient { .. }), "{error}");
        // Neither does the tape carry half of one out of an evaluation.
        assert!(
            !field
                .eval(candle_core::Var::from_tensor(&x).expect("a variable").as_tensor(), &[0.5])
                .expect("a value")
                .track_op()
        );
    }
    let wrong = LogLikelihoodFn(|x: &Tensor, _: &[f64]| Ok(x.sqr()?));
    let text = Guided::new(OracleField::noise(&all, &sde), &sde, wrong, 1.0).eval(&x, &[0.5]);
    assert_eq!(
        text.map_err(|e| e.to_string()).err().as_deref(),
        Some("value of a log-likelihood: expected [2], one number a sample, found [2, 2]")
    );
}

#[test]
fn a_linear_log_likelihood_tilts_a_gaussian_exactly() -> Result<()> {
    let (mean, variances, tilt) = ([0.6, -0.2], [0.25, 0.04], [1.5, -2.0]);
    let data = Mixture::diagonal(mean.to_vec(), variances.to_vec())?;
    // p₀ e^{γ w·x₀} is N(m + γ C w, C); of the noised law, N(S m + γ V w, V).
    let gamma = 0.7;
    let shifted: Vec<f64> = (0..2).map(|i| mean[i] + gamma * variances[i] * tilt[i]).collect();
    let clean_law = Mixture::diagonal(shifted, variances.to_vec())?;
    let w = Tensor::new(&[tilt], &Device::Cpu)?;
    let linear = LogLikelihoodFn(|x: &Tensor, _: &[f64]| Ok(x.broadcast_mul(&w)?.sum(1)?));
    for name in ["vp", "ve", "linear"] {
        let sde = process(name);
        let sde = sde.as_ref();
        for t in [0.02, 0.4, 0.95] {
            let x = normals(6, &[2], 3);
            let expected = OracleField::noise(&clean_law, sde).eval(&x, &[t])?;
            let scale = expected.abs()?.max_all()?.to_scalar::<f64>()?.max(1.0);
            for field in [OracleField::noise(&data, sde), OracleField::data(&data, sde)] {
                let clean = CleanGuided::new(field, sde, &linear, gamma).eval(&x, &[t])?;
                let gap = largest_gap(&clean, &expected);
                // x̂₀ goes through a division by the signal, or ε through one by the noise.
                assert!(gap < 1e-11 * scale, "{name} at {t}: {gap}");
            }
            let (s, n) = (support::scalar(&sde.signal(t)), support::scalar(&sde.covariance(t)));
            let moved: Vec<f64> =
                (0..2).map(|i| mean[i] + gamma * (s * s * variances[i] + n) / s * tilt[i]).collect();
            let noised_law = Mixture::diagonal(moved, variances.to_vec())?;
            let found = Guided::new(OracleField::noise(&data, sde), sde, &linear, gamma).eval(&x, &[t])?;
            let expected = OracleField::noise(&noised_law, sde).eval(&x, &[t])?;
            let scale = expected.abs()?.max_all()?.to_scalar::<f64>()?.max(1.0);
            let gap = largest_gap(&found, &expected);
            assert!(gap < 1e-12 * scale, "{name} at {t}, noised: {gap}");
        }
    }
    Ok(())
}

#[test]
fn similarity_has_the_gradient_of_a_cosine_and_no_scale() -> Result<()> {
    let (map, wanted) = (normals(3, &[4], 4), normals(5, &[4], 5));
    let encoder = |scale: f64| {
        let map = map.clone();
        move |x: &Tensor, _: &[f64]| Ok((x.matmul(&map)?.tanh()? * scale)?)
    };
    let x = normals(5, &[3], 6);
    let similarity = Similarity::new(encoder(1.0), wanted.clone());
    let gradient = similarity.gradient(&x, &[0.5])?;
    let scaled = Similarity::new(encoder(7.5), (&wanted * 0.01)?);
    assert!(largest_gap(&gradient, &scaled.gradient(&x, &[0.5])?) < 1e-14);
    let value = similarity.log_likelihood(&x, &[0.5])?;
    assert!(value.abs()?.max_all()?.to_scalar::<f64>()? <= 1.0 + 1e-15);
    // Central differences of step h: h²/6 of a third derivative, and rounding 1e-16/h.
    let h = 1e-5;
    for axis in 0..3 {
        let unit: Vec<f64> = (0..3).map(|i| if i == axis { h } else { 0.0 }).collect();
        let unit = Tensor::from_vec(unit, (1, 3), &Device::Cpu)?;
        let ahead = similarity.log_likelihood(&x.broadcast_add(&unit)?, &[0.5])?;
        let behind = similarity.log_likelihood(&x.broadcast_sub(&unit)?, &[0.5])?;
        let difference = ((ahead - behind)? / (2.0 * h))?;
        assert!(largest_gap(&difference, &gradient.narrow(1, axis, 1)?.squeeze(1)?) < 1e-8);
    }
    // Its wanted encodings belong to samples.
    let few = similarity.restrict(&[3, 1])?.expect("it holds something of each sample");
    let found = few.gradient(&rows_of(&x, &[3, 1])?, &[0.5])?;
    assert!(largest_gap(&found, &rows_of(&gradient, &[3, 1])?) < 1e-15);
    Ok(())
}

/// A network with three classes and none, row by row the same in any batch.
struct Network;

impl Model for Network {
    fn prediction(&self) -> Prediction {
        Prediction::Noise
    }
    fn forward(&self, x: &Tensor, t: &Tensor, pass: Pass<'_>) -> Result<Tensor> {
        let table = Tensor::new(&[[0.3, -1.0], [1.1, 0.2], [-0.6, 0.7], [0.0, 0.4]], x.device())?;
        let shift = table.index_select(pass.labels.expect("labels"), 0)?;
        Ok(((x.broadcast_mul(&(t.unsqueeze(1)? + 0.5)?)? + &shift)?.tanh()? + (x.sqr()? * shift)?)?)
    }
}

#[test]
fn a_doubled_batch_is_two_fields_inside_the_interval_and_one_outside() -> Result<()> {
    let given = [2, 0, 1, 2, 0];
    let one = |labels: &[u32]| {
        let labels = Tensor::new(labels, &Device::Cpu).expect("labels");
        ModelField::new(Network, DType::F64, &Device::Cpu).with_labels(labels)
    };
    let (x, vs) = (normals(5, &[2], 7), [normals(5, &[2], 8), normals(5, &[2], 9)]);
    let interval = Interval::of_times(0.2, 0.6).expect("an interval");
    let device = (DType::F64, &Device::Cpu);
    let doubled = ClassifierFree::of_model(Network, device, &given, 3, 1.7, interval).expect("labels");
    let two = ClassifierFree::new(one(&given), one(&[3; 5]), 1.7, interval).expect("two fields");
    for t in [vec![0.4], vec![0.2], vec![0.6], vec![0.1, 0.3, 0.7, 0.5, 0.2]] {
        let (value, products) = doubled.vjps(&x, &t, &vs)?;
        let (expected, expected_products) = two.vjps(&x, &t, &vs)?;
        assert_eq!(largest_gap(&value, &expected), 0.0, "{t:?}");
        assert_eq!(largest_gap(&value, &doubled.eval(&x, &t)?), 0.0, "{t:?}");
        assert_eq!(largest_gap(&value, &two.eval(&x, &t)?), 0.0, "{t:?}");
        for (found, expected) in products.iter().zip(&expected_products) {
            assert!(largest_gap(found, expected) < 1e-14, "{t:?}");
        }
        // Against the definition, row by row.
        let (c, u) = (one(&given).eval(&x, &t)?, one(&[3; 5]).eval(&x, &t)?);
        for row in 0..5 {
            let at = if t.len() == 1 { t[0] } else { t[row] };
            let inside = 0.2 < at && at <= 0.6;
            assert_eq!(doubled.passes(at), if inside { 2 } else { 1 });
            let (c, u) = (c.get(row)?, u.get(row)?);
            let by_hand = if inside { ((&c * 2.7)? - (u * 1.7)?)? } else { c };
            assert!(largest_gap(&value.get(row)?, &by_hand) < 1e-14);
        }
        // A sample alone, and some of them in another order.
        let some = [4, 1];
        let few = doubled.restrict(&some)?.expect("it holds labels");
        let t: Vec<f64> = if t.len() == 1 { t } else { some.iter().map(|&i| t[i]).collect() };
        assert_eq!(largest_gap(&few.eval(&rows_of(&x, &some)?, &t)?, &rows_of(&value, &some)?), 0.0);
    }
    // The products against differences.
    let h = 1e-6;
    let (_, products) = doubled.vjps(&x, &[0.1, 0.3, 0.7, 0.5, 0.2], &vs)?;
    let along = normals(5, &[2], 10);
    let at = |x: Tensor| doubled.eval(&x, &[0.1, 0.3, 0.7, 0.5, 0.2]);
    let difference = ((at((&x + (&along * h)?)?)? - at((&x - (&along * h)?)?)?)? / (2.0 * h))?;
    for (v, product) in vs.iter().zip(&products) {
        let gap = largest_gap(&(v * &difference)?.sum(1)?, &(product * &along)?.sum(1)?);
        assert!(gap < 1e-8, "{gap}");
    }
    Ok(())
}

#[test]
fn what_cannot_be_guided_is_refused() {
    let device = (DType::F64, &Device::Cpu);
    let refused = ClassifierFree::of_model(Network, device, &[0, 3], 3, 1.0, Interval::ALWAYS).err();
    let text = refused.map(|e| e.to_string());
    assert_eq!(text.as_deref(), Some("label of a sample: expected a class of the network, 0 to 2, found 3"));
    assert!(ClassifierFree::of_model(Network, device, &[0], 3, f64::NAN, Interval::ALWAYS).is_err());
    let field =
        ClassifierFree::of_model(Network, device, &[0, 1], 3, 1.0, Interval::ALWAYS).expect("a field");
    assert!(matches!(field.eval(&normals(3, &[2], 0), &[0.5]), Err(Error::Mismatch { .. })));
    let (data, sde) = (component(0), Vp::STANDARD);
    let (noise, clean) = (OracleField::noise(&data, &sde), OracleField::data(&data, &sde));
    assert!(ClassifierFree::new(noise, clean, 1.0, Interval::ALWAYS).is_err());
    assert!(Interval::of_times(0.5, 0.4).is_err() && Interval::of_times(f64::NAN, 0.4).is_err());
    assert!(Interval::of_rho(&sde, -1.0, 0.4).is_err());
    assert!(Clipped::new(noise, &sde, Clip::Range { low: 1.0, high: -1.0 }).is_err());
    assert!(Clipped::new(noise, &sde, Clip::Dynamic { quantile: 1.1, bound: 1.0 }).is_err());
}

#[test]
fn an_interval_of_noise_levels_is_one_of_times() -> Result<()> {
    for name in ["vp", "edm", "ve"] {
        let sde = process(name);
        let interval = Interval::of_rho(sde.as_ref(), 0.3, 5.0).expect("an interval");
        let open = Interval::of_rho(sde.as_ref(), 0.0, f64::INFINITY).expect("an interval");
        for t in [0.01, 0.1, 0.3, 0.5, 0.7, 0.99] {
            let rho = sde.clock(t).exp();
            assert_eq!(interval.contains(t), 0.3 < rho && rho <= 5.0, "{name} at {t}");
            assert!(open.contains(t));
        }
    }
    Ok(())
}

#[test]
fn x0_stays_in_range_and_its_derivatives_are_those_of_the_map() -> Result<()> {
    let sde = Vp::STANDARD;
    let known = [[3.0, -1.0, 0.5, -0.2, 2.0], [0.5, -0.9, 0.1, 0.3, 0.0]];
    let data = Tensor::new(&known, &Device::Cpu)?;
    let constant = FieldFn::new(Prediction::Data, |_: &Tensor, _: &[f64]| Ok(data.clone()));
    let clipped = |clip| Clipped::new(&constant, &sde, clip).expect("a clip").eval(&data, &[0.5]);
    let found = clipped(Clip::Range { low: -0.5, high: 1.0 })?.to_vec2::<f64>()?;
    assert_eq!(found, [vec![1.0, -0.5, 0.5, -0.2, 1.0], vec![0.5, -0.5, 0.1, 0.3, 0.0]]);
    // |x| = 0.2, 0.5, 1, 2, 3: the 0.8-quantile lies at place 3.2, 2.2. The other sample is in range.
    let found = clipped(Clip::Dynamic { quantile: 0.8, bound: 1.0 })?;
    let s = 2.2;
    let expected = Tensor::new(&[[1.0, -1.0 / s, 0.5 / s, -0.2 / s, 2.0 / s], known[1]], &Device::Cpu)?;
    assert!(largest_gap(&found, &expected) < 1e-15);
    // Derivatives, through a field with one of its own, away from kinks.
    let law = Mixture::diagonal(vec![1.5, -2.0, 0.3], vec![0.5, 2.0, 0.1])?;
    let (x, v, along) = (normals(6, &[3], 12), normals(6, &[3], 13), normals(6, &[3], 14));
    let h = 1e-6;
    for clip in [Clip::Range { low: -1.0, high: 1.0 }, Clip::Dynamic { quantile: 0.75, bound: 0.8 }] {
        let field = Clipped::new(OracleField::noise(&law, &sde), &sde, clip).expect("a clip");
        let (value, products) = field.vjps(&x, &[0.3], std::slice::from_ref(&v))?;
        assert!(value.abs()?.max_all()?.to_scalar::<f64>()? <= 1.0 + 1e-15);
        let difference = ((field.eval(&(&x + (&along * h)?)?, &[0.3])?
            - field.eval(&(&x - (&along * h)?)?, &[0.3])?)?
            / (2.0 * h))?;
        let gap = largest_gap(&(&v * &difference)?.sum(1)?, &(&products[0] * &along)?.sum(1)?);
        assert!(gap < 1e-7, "{clip:?}: {gap}");
    }
    Ok(())
}

#[test]
fn samplers_of_every_kind_take_a_guided_field() -> Result<()> {
    let (sde, batch) = (Vp::STANDARD, 6);
    let (all, first, second) = (mixture(), component(0), component(1));
    let parts = [OracleField::noise(&first, &sde), OracleField::noise(&second, &sde)];
    let exact = Labelled { parts: [&parts[0], &parts[1]], labels: labels(batch) };
    let bayes = Bayes { sde: &sde, labels: labels(batch) };
    let guided = Guided::new(OracleField::noise(&all, &sde), &sde, &bayes, 1.0);
    let free =
        ClassifierFree::new(&exact, OracleField::noise(&all, &sde), 0.0, Interval::ALWAYS).expect("two");
    let wide = Clip::Range { low: -50.0, high: 50.0 };
    let clipped = Clipped::new(&guided, &sde, wide).expect("a clip");

    let grid = TimeGrid::power(1.0, 1e-3, 10, 2.0)?;
    let noise = BatchNoise::new(Noise::new(3), 0, 0..batch as u32);
    let start = prior_sample(&sde, &noise, &[2], DType::F64, &Device::Cpu).expect("a start");
    let run = |rule: &dyn Multistep, field: &dyn Field| {
        let path = Path { sde: &sde, field, grid: &grid };
        rule.sample(&path, &start, &noise).expect("a solution").x
    };
    let rules: [&dyn Multistep; 4] = [
        &Ddim::DETERMINISTIC,
        &Ddim { eta: 1.0, ..Ddim::DETERMINISTIC },
        &Tab { degree: 3 },
        &StochasticDdim { lambda: 1.0 },
    ];
    for rule in rules {
        let expected = run(rule, &exact);
        for field in [&guided as &dyn Field, &free, &clipped] {
            // Ten steps of factors below 1e3 (1/α at T) on differences of 1e-13.
            let gap = largest_gap(&run(rule, field), &expected);
            assert!(gap < 1e-9, "{}: {gap}", rule.name());
        }
        // With more weight both know: (1 + ω) ε(u, y) − ω ε(u) is guidance by the Bayes classifier with γ = 1 + ω.
        let stronger = Guided::new(OracleField::noise(&all, &sde), &sde, &bayes, 1.7);
        let both = ClassifierFree::new(&exact, OracleField::noise(&all, &sde), 0.7, Interval::ALWAYS);
        let gap = largest_gap(&run(rule, &both.expect("two")), &run(rule, &stronger));
        assert!(gap < 1e-8, "{}: {gap}", rule.name());
    }

    // The adaptive solver drops samples that have arrived: each is what it is alone, bit for bit, with its own label.
    let solver = Adaptive { max_nfe: 10_000, ..Adaptive::new(1e-5, 1e-5) };
    let solve = |field: &dyn Field, x: &Tensor| {
        ProbabilityFlow::new(&sde, field, Chart::Time).solve(&solver, x, 1.0, 1e-3).expect("a solution")
    };
    let tight = Adaptive { rtol: 1e-9, atol: 1e-9, ..solver };
    let expected =
        ProbabilityFlow::new(&sde, &exact, Chart::Time).solve(&tight, &start, 1.0, 1e-3).expect("a solution");
    for field in [&guided as &dyn Field, &free, &clipped] {
        let together = solve(field, &start);
        let nfe: Vec<usize> = together.reports.iter().map(|r| r.nfe).collect();
        assert!(nfe.iter().any(|n| *n != nfe[0]), "samples leave at different times: {nfe:?}");
        assert!(largest_gap(&together.y, &expected.y) < 1e-3);
        for sample in 0..batch {
            let alone = field.restrict(&[sample])?.expect("it holds labels");
            let found = solve(alone.as_ref(), &start.narrow(0, sample, 1)?);
            assert_eq!(largest_gap(&found.y, &together.y.narrow(0, sample, 1)?), 0.0);
        }
    }
    Ok(())
}
