//! The targets of `cargo xtask target` by name: the law, where chains start, what their coordinates weigh, what of them is drawn.

pub mod baseline;
pub mod path_integral;

use std::path::PathBuf;

use anyhow::Result;
use candle_core::Tensor;
use sde_core::Target;
use sde_core::molecule::{Boltzmann, dihedral};
use sde_core::oracle::Mixture;
use sde_core::target::{Cox, CoxGrid, Funnel, MixtureTarget, Rings, gaussian};
use sde_data::read::csv::{Header, read_csv};
use sde_data::{ALANINE_TORSIONS, Range, alanine_dipeptide};
use sde_solvers::mcmc::{Base, Mass};
use serde::{Deserialize, Serialize};

use crate::build::unknown;
use crate::exit::Failure;
use crate::method::vae;

/// The names of the targets.
pub const NAMES: &[&str] = &["mixture", "funnel", "rings", "gaussian", "cox", "vae", "alanine"];

/// Atoms lighter than this move as if they were as heavy: in a Markov chain a mass is free, and light ones make steps short.
const LIGHTEST: f64 = 4.0;

/// Which target: its name, and what is to be told of it beside.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TargetConfig {
    /// One of [`NAMES`].
    pub name: String,
    /// Dimensions of the funnel, of the Gaussian, or cells of the Cox process; 10, 2 and 1600 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dim: Option<usize>,
    /// The variance of the funnel's neck; 9 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variance: Option<f64>,
    /// The points of the Cox process, a CSV file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub points: Option<PathBuf>,
    /// The run of the autoencoder whose posterior is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vae: Option<PathBuf>,
    /// The test image that the posterior is of; the first if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<usize>,
    /// The deviation that chains start with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<f64>,
    /// What is to be told of alanine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub molecule: Option<MoleculeConfig>,
}

/// A molecule's surroundings.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct MoleculeConfig {
    /// In kelvin.
    pub temperature: f64,
    /// Whether there is implicit water.
    pub water: bool,
    /// How many auxiliary coordinates there are.
    pub auxiliary: usize,
}

/// A target with what goes with it.
pub struct Chosen {
    /// The law.
    pub target: Box<dyn Target>,
    /// Where chains start.
    pub base: Base,
    /// The mass of the coordinates.
    pub mass: Mass,
    /// The law as a mixture of Gaussians, where it is one: what steers to it best is then known.
    pub mixture: Option<Mixture>,
    /// The window of a picture in the plane.
    pub window: Option<Range>,
}

/// A target by name.
///
/// # Errors
/// For an unknown name, a file that is missing or damaged, and settings out of their range.
pub fn find(args: &TargetConfig) -> Result<Chosen> {
    let window = |reach: f64| Range::new(-reach, reach);
    let plain = |target: Box<dyn Target>, window| {
        let base = Base::isotropic(target.dim(), args.start.unwrap_or(1.0))?;
        Ok(Chosen { target, base, mass: Mass::Unit, mixture: None, window })
    };
    match args.name.as_str() {
        "mixture" => {
            let mixture = nine_modes()?;
            let target = MixtureTarget::new("mixture", &mixture, 0.0)?;
            Ok(Chosen { mixture: Some(mixture), ..plain(Box::new(target), Some(window(8.0)?))? })
        }
        "funnel" => plain(Box::new(Funnel::new(args.dim.unwrap_or(10), args.variance.unwrap_or(9.0))?), None),
        "rings" => plain(Box::new(Rings), Some(window(6.0)?)),
        "gaussian" => {
            let dim = args.dim.unwrap_or(2);
            let mean: Vec<f64> = (0..dim).map(|k| 0.5 * (k % 3) as f64).collect();
            let variances: Vec<f64> = (0..dim).map(|k| 0.25 + 0.5 * (k % 2) as f64).collect();
            let mixture = Some(Mixture::diagonal(mean.clone(), variances.clone())?);
            let window = (dim == 2).then(|| window(4.0)).transpose()?;
            Ok(Chosen { mixture, ..plain(Box::new(gaussian(mean, variances, 2.0)?), window)? })
        }
        "cox" => plain(Box::new(cox(args)?), None),
        "vae" => {
            let run = args.vae.as_ref().ok_or_else(|| {
                let text =
                    "the target vae needs --vae RUN (target.vae in a preset): `train vae-digits` makes one";
                Failure::Usage(text.into())
            })?;
            plain(Box::new(vae::posterior(run, args.image.unwrap_or(0))?), None)
        }
        "alanine" => alanine(args),
        other => Err(unknown("target", other, NAMES).into()),
    }
}

/// The dimension of a target, also where what it is made of is not told yet.
///
/// # Errors
/// As [`find`].
pub fn dimension(config: &TargetConfig) -> Result<usize> {
    match config.name.as_str() {
        "cox" if config.points.is_none() => Ok(config.dim.unwrap_or(1600)),
        // That of the preset vae-digits.
        "vae" if config.vae.is_none() => Ok(10),
        _ => Ok(find(config)?.target.dim()),
    }
}

fn nine_modes() -> Result<Mixture> {
    let places = [-5.0, 0.0, 5.0];
    let means: Vec<Vec<f64>> = places.iter().flat_map(|&a| places.iter().map(move |&b| vec![a, b])).collect();
    Ok(Mixture::of_diagonals(&[1.0 / 9.0; 9], &means, vec![vec![0.3; 2]; 9])?)
}

fn cox(args: &TargetConfig) -> Result<Cox> {
    let Some(file) = &args.points else {
        let text = "the target cox needs --points FILE (target.points in a preset): a table of points in the unit square, x and y a line";
        return Err(Failure::Usage(text.into()).into());
    };
    let table = read_csv(file, Header::Detect)?.values;
    if table.ncols() != 2 {
        let text = format!("{}: expected two columns, found {}", file.display(), table.ncols());
        return Err(Failure::Data(text).into());
    }
    let points: Vec<[f64; 2]> = table.rows().into_iter().map(|row| [row[0], row[1]]).collect();
    let side = args.dim.map_or(40, usize::isqrt);
    if let Some(dim) = args.dim.filter(|dim| side * side != *dim) {
        let text = format!(
            "the target cox has the cells of a square grid: {} or {}, not {dim}",
            side.pow(2),
            (side + 1).pow(2)
        );
        return Err(Failure::Usage(text).into());
    }
    let grid = CoxGrid::published(side, points.len());
    Ok(Cox::new(grid, &grid.counts(&points)?, true)?)
}

fn alanine(args: &TargetConfig) -> Result<Chosen> {
    let settings =
        args.molecule.unwrap_or(MoleculeConfig { temperature: 300.0, water: false, auxiliary: 66 });
    let (molecule, places) = alanine_dipeptide()?;
    let force_field = if settings.water { molecule.force_field } else { molecule.force_field.in_vacuum() };
    let target = Boltzmann::new("alanine", force_field, settings.temperature, 1.0, settings.auxiliary)?;
    let centre = |axis: usize| places.iter().skip(axis).step_by(3).sum::<f64>() / (places.len() / 3) as f64;
    let centre = [centre(0), centre(1), centre(2)];
    let mut mean: Vec<f64> = places.iter().enumerate().map(|(i, x)| x - centre[i % 3]).collect();
    let mut deviation = vec![args.start.unwrap_or(0.01); mean.len()];
    let mut mass: Vec<f64> = molecule.masses.iter().flat_map(|m| [m.max(LIGHTEST); 3]).collect();
    mean.resize(target.dim(), 0.0);
    deviation.resize(target.dim(), 1.0);
    // A period of 2π√m of about a trajectory's length.
    mass.resize(target.dim(), 0.01);
    let base = Base::new(mean, deviation)?;
    Ok(Chosen { target: Box::new(target), base, mass: Mass::Diagonal(mass), mixture: None, window: None })
}

/// The torsions of samples of alanine dipeptide: a name and one angle a sample.
///
/// # Errors
/// Where samples hold fewer coordinates than the molecule.
pub fn torsions(samples: &Tensor) -> Result<Vec<(&'static str, Vec<f64>)>> {
    let rows = samples.to_vec2::<f64>()?;
    let angles = |(name, atoms): (&'static str, [usize; 4])| {
        let angles = rows.iter().map(|row| dihedral(row, atoms)).collect::<sde_core::Result<_>>()?;
        Ok((name, angles))
    };
    ALANINE_TORSIONS.into_iter().map(angles).collect()
}
