//! Mean and covariance through a table: for Gaussian data the exact prediction is affine in the state.

use candle_core::{Device, Tensor};
use nalgebra::{DMatrix, DVector};
use sde_core::noise::Recorded;
use sde_core::oracle::Mixture;
use sde_core::{LinearSde, Op, Prediction};
use sde_solvers::{Solution, Table};

use super::tensor;

pub fn dense(op: &Op, dim: usize) -> DMatrix<f64> {
    let columns: Vec<DVector<f64>> = (0..dim)
        .map(|j| {
            let unit: Vec<f64> = (0..dim).map(|i| f64::from(u8::from(i == j))).collect();
            DVector::from_vec(op.apply_host(&unit).expect("a state"))
        })
        .collect();
    DMatrix::from_columns(&columns)
}

/// The exact prediction as the affine map `bias + slope u`, read off the oracle.
pub fn affine(data: &Mixture, sde: &dyn LinearSde, of: Prediction, t: f64) -> (DVector<f64>, DMatrix<f64>) {
    let marginal = data.marginal(sde, t).expect("a density");
    let (of_data, of_noise) = of.of_data_and_noise(sde, t).expect("a prediction");
    let (of_data, of_noise) = (dense(&of_data, data.dim()), dense(&of_noise, data.dim()));
    let value = |u: &[f64]| {
        let exact = marginal.at(u).expect("a state");
        &of_data * DVector::from_vec(exact.data) + &of_noise * DVector::from_vec(exact.noise)
    };
    let dim = data.dim();
    let bias = value(&vec![0.0; dim]);
    let columns: Vec<DVector<f64>> = (0..dim)
        .map(|j| value(&(0..dim).map(|i| f64::from(u8::from(i == j))).collect::<Vec<_>>()) - &bias)
        .collect();
    (bias, DMatrix::from_columns(&columns))
}

pub struct Moments {
    pub mean: DVector<f64>,
    pub covariance: DMatrix<f64>,
}

/// The exact moments of the noised state.
pub fn exact(data: (&DVector<f64>, &DMatrix<f64>), sde: &dyn LinearSde, t: f64) -> Moments {
    let dim = data.0.len();
    let (s, sigma) = (dense(&sde.signal(t), dim), dense(&sde.covariance(t), dim));
    Moments { mean: &s * data.0, covariance: &s * data.1 * s.transpose() + sigma }
}

/// Moments after a table, started from `start`. The state is passed on together with the predictions that later rows use.
pub fn propagate(table: &Table, data: &Mixture, sde: &dyn LinearSde, start: Moments) -> Moments {
    let dim = data.dim();
    let depth = table.updates.iter().map(|update| update.terms.len()).max().unwrap_or(0);
    let size = dim * (1 + depth);
    let mut joint = Moments { mean: DVector::zeros(size), covariance: DMatrix::zeros(size, size) };
    joint.mean.rows_mut(0, dim).copy_from(&start.mean);
    joint.covariance.view_mut((0, 0), (dim, dim)).copy_from(&start.covariance);
    let mut drawn = Vec::new();
    for update in &table.updates {
        let (mut map, mut shift) = (DMatrix::identity(size, size), DVector::zeros(size));
        if !update.terms.is_empty() {
            // The predictions move on by one, and the newest is an affine function of the state.
            let (bias, slope) = affine(data, sde, table.of, update.from);
            map.view_mut((dim, 0), (size - dim, size)).fill(0.0);
            map.view_mut((dim, 0), (dim, dim)).copy_from(&slope);
            shift.rows_mut(dim, dim).copy_from(&bias);
            let older = size - 2 * dim;
            map.view_mut((2 * dim, dim), (older, older)).fill_with_identity();
        }
        let mut step = DMatrix::identity(size, size);
        step.view_mut((0, 0), (dim, dim)).copy_from(&dense(&update.carry, dim));
        for (j, term) in update.terms.iter().enumerate() {
            step.view_mut((0, dim * (1 + j)), (dim, dim)).copy_from(&dense(term, dim));
        }
        let map = &step * map;
        joint.mean = &map * &joint.mean + &step * shift;
        joint.covariance = &map * &joint.covariance * map.transpose();
        if let Some(factor) = &update.inject {
            assert!(!drawn.contains(&update.step), "two draws of one step are one draw");
            drawn.push(update.step);
            let factor = dense(factor, dim);
            let mut corner = joint.covariance.view_mut((0, 0), (dim, dim));
            corner += &factor * factor.transpose();
        }
    }
    let mean = joint.mean.rows(0, dim).into_owned();
    Moments { mean, covariance: joint.covariance.view((0, 0), (dim, dim)).into_owned() }
}

pub fn error(a: &Moments, b: &Moments) -> f64 {
    (&a.mean - &b.mean).amax().max((&a.covariance - &b.covariance).amax())
}

/// The law that a sampler makes of x ~ N(mean, diag(variances)): its map of state and noise is affine, and read off from unit vectors.
pub fn response(
    run: &dyn Fn(&Tensor, &Recorded) -> Solution,
    steps: usize,
    (mean, variances): (&[f64], &[f64]),
) -> (Vec<f64>, DMatrix<f64>) {
    let dim = mean.len();
    // Sample 0 is the mean without noise, then one for each entry of the state, then of each draw.
    let batch = 1 + dim * (1 + steps);
    let mut x = vec![mean.to_vec(); batch];
    let mut noise = vec![0.0; steps * batch * dim];
    for i in 0..dim {
        x[1 + i][i] += variances[i].sqrt();
        for step in 0..steps {
            noise[(step * batch + 1 + dim * (1 + step) + i) * dim + i] = 1.0;
        }
    }
    let noise = Recorded(Tensor::from_vec(noise, (steps, batch, dim), &Device::Cpu).expect("noise"));
    let end = run(&tensor(&x), &noise).x.to_vec2::<f64>().expect("rows");
    let columns: Vec<DVector<f64>> = end[1..]
        .iter()
        .map(|row| DVector::from_vec(row.iter().zip(&end[0]).map(|(a, b)| a - b).collect()))
        .collect();
    let map = DMatrix::from_columns(&columns);
    (end[0].clone(), &map * map.transpose())
}
