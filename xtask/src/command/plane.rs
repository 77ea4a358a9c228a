//! What else can be said of a model of the plane: its density as a picture, and how far its samples are from the data.

use anyhow::Result;
use candle_core::{DType, Tensor};
use sde_core::noise::{BatchNoise, Noise};
use sde_data::{Dataset, Picture, Split};
use sde_eval::{Bandwidth, DensityMap, PointDensity, SlicedWasserstein, Window, mmd};
use serde_json::{Value, json};

use crate::build::Use;
use crate::output::Output;
use crate::run::Run;
use crate::sampling;

/// Half the side of the square that is drawn, in standard deviations of the data.
const REACH: f64 = 2.5;
/// Cells along a side of the density's picture.
const CELLS: usize = 100;
/// Points solved or drawn together.
const BATCH: usize = 2500;
/// Points of each sample that are compared.
const COMPARED: usize = 4000;
const DISTANCE: SlicedWasserstein = SlicedWasserstein { groups: 10, directions: 100 };

/// Writes the density's picture into the run's records, and returns keys for the record.
pub fn describe(run: &Run, points: &dyn PointDensity, seed: u64, output: Output) -> Result<Value> {
    let noise = Noise::new(seed);
    output.say("density and distances in the plane");
    let side = [-REACH, REACH];
    let window = Window { x: side, y: side, nx: CELLS, ny: CELLS };
    let map = DensityMap::new(points, &window, BATCH, noise)?;
    let path = run.path.join("records/density.png");
    Picture::map(map.values.mapv(f64::exp).view(), 4)?.save(&path)?;

    let addresses: Vec<u32> = (0..COMPARED as u32).collect();
    let drawn = sampling::of_run(run, noise, &addresses, BATCH, output)?;
    let data = run.preset.data.load(Split::Test, Use::Likelihood, run.seed, output)?;
    let reference = first_points(data.set.as_ref(), noise)?;
    let squared = DISTANCE.squared(&drawn.x, &reference, noise)?;
    let discrepancy = mmd(&drawn.x, &reference, Bandwidth::Median(noise))?;
    Ok(json!({
        "density": path.display().to_string(),
        "density_mass": map.mass(),
        "sliced_w2_squared": squared,
        "mmd_squared": discrepancy,
        "sample_nfe": drawn.nfe_record(),
        "sampler": run.preset.sampler,
    }))
}

fn first_points(data: &dyn Dataset, noise: Noise) -> Result<Tensor> {
    let indices: Vec<usize> = (0..COMPARED.min(data.len())).collect();
    let noise = BatchNoise::new(noise, 0, 0..indices.len() as u32);
    Ok(data.batch(&indices, &noise)?.x.to_dtype(DType::F64)?)
}
