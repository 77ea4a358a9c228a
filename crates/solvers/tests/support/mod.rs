//! What the tests of samplers share: reference files, oracles, processes.
#![allow(dead_code)] // Each test binary uses its part.

#[path = "../../../sde-core/tests/support/rotating.rs"]
pub mod rotating;

pub mod moments;
pub mod orders;

use std::collections::{HashMap, VecDeque};

use candle_core::{Device, Tensor};
use nalgebra::DMatrix;
use sde_core::oracle::Mixture;
use sde_core::process::{Cosine, Edm, LinearPath, SubVp, Ve, Vp};
use sde_core::{Converted, Field, LinearSde, Op, combine};
use sde_solvers::Table;

/// A reference file.
pub struct Golden(HashMap<String, Tensor>);

impl Golden {
    pub fn load(name: &str) -> Self {
        let path = format!("{}/tests/golden/{name}.npz", env!("CARGO_MANIFEST_DIR"));
        Self(Tensor::read_npz(path).expect("reference file").into_iter().collect())
    }
    pub fn get(&self, key: &str) -> &Tensor {
        &self.0[key]
    }
    pub fn keys(&self) -> impl Iterator<Item = &String> {
        self.0.keys()
    }
    pub fn flat(&self, key: &str) -> Vec<f64> {
        self.0[key].flatten_all().and_then(|t| t.to_vec1()).expect("f64 array")
    }
    pub fn rows(&self, key: &str) -> Vec<Vec<f64>> {
        let width = *self.0[key].dims().last().expect("an array");
        self.flat(key).chunks(width).map(<[f64]>::to_vec).collect()
    }
    pub fn mixture(&self) -> Mixture {
        let mean = &self.0["mu"];
        let dim = *mean.dims().last().expect("an array");
        let means: Vec<Vec<f64>> = self.flat("mu").chunks(dim).map(<[f64]>::to_vec).collect();
        let covariances: Vec<_> =
            self.flat("cov").chunks(dim * dim).map(|c| DMatrix::from_row_slice(dim, dim, c)).collect();
        let weights = if self.0.contains_key("w") { self.flat("w") } else { vec![1.0; means.len()] };
        Mixture::new(&weights, &means, &covariances).expect("a mixture")
    }
}

pub fn process(name: &str) -> Box<dyn LinearSde> {
    match name {
        "vp" => Box::new(Vp::STANDARD),
        "subvp" => Box::new(SubVp::STANDARD),
        "ve" => Box::new(Ve::STANDARD),
        "edm" => Box::new(Edm::STANDARD),
        "cosine" => Box::new(Cosine),
        "linear" => Box::new(LinearPath),
        other => panic!("no process {other}"),
    }
}

pub fn scalar(op: &Op) -> f64 {
    op.as_scalar().expect("a scalar operator")
}

pub fn largest_gap(a: &Tensor, b: &Tensor) -> f64 {
    let gap = (a - b).and_then(|d| d.abs()?.flatten_all()?.max(0)?.to_scalar::<f64>());
    gap.expect("tensors of one shape")
}

pub fn tensor(rows: &[Vec<f64>]) -> Tensor {
    Tensor::from_vec(rows.concat(), (rows.len(), rows[0].len()), &Device::Cpu).expect("a tensor")
}

/// The end of a deterministic table that is entered at row `row`, with the state there and the predictions made before, newest first.
pub fn resume(
    table: &Table,
    row: usize,
    sde: &dyn LinearSde,
    field: &dyn Field,
    x: &Tensor,
    mut history: VecDeque<Tensor>,
) -> Tensor {
    let field = Converted::new(field, sde, table.of);
    table.updates[row..].iter().fold(x.clone(), |x, update| {
        history.push_front(field.eval(&x, &[update.from]).expect("a prediction"));
        assert!(history.len() >= update.terms.len() && update.inject.is_none(), "not to be entered here");
        let terms: Vec<_> =
            std::iter::once((&update.carry, &x)).chain(update.terms.iter().zip(&history)).collect();
        combine(&terms).expect("a sum").sum
    })
}
