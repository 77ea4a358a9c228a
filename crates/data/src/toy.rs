//! The one-, two- and three-dimensional sets that papers draw: known laws, of any length, without storage.
//!
//! Point `i` of a set is a pure function of (seed, split, `i`), and training and test points have different
//! addresses. All but `plane` are standardised to zero mean and unit variance an axis by the exact moments of their law,
//! so entropies are those of the standardised set, in nats: no model's negative log-likelihood can be below.
//!
//! Each recipe is cited in its own file.

mod carpet;
mod checkerboard;
mod mixture;
mod plane;
mod ring;
mod roll;
mod spiral;
mod tree;

use candle_core::{Device, Tensor};
use rayon::prelude::*;
use sde_core::noise::{BatchNoise, Draws, Noise, Stream};
use sde_core::oracle::Mixture;

use crate::dataset::check_batch;
use crate::{Affine, Batch, Dataset, Encoding, Error, Result, Split};

/// A law before standardisation.
trait Recipe: std::fmt::Debug + Send + Sync {
    /// A point.
    fn sample(&self, draws: &mut Draws) -> Vec<f64>;
    /// Exact mean and variance of each axis.
    fn moments(&self) -> (Vec<f64>, Vec<f64>);
    /// Whether a set of it is standardised; if not, it is in the recipe's own coordinates.
    fn is_standardised(&self) -> bool {
        true
    }
    /// The exact log density, if there is a closed form.
    fn log_density(&self, _point: &[f64]) -> Option<f64> {
        None
    }
    /// The differential entropy in nats, if it is known.
    fn entropy(&self) -> Option<f64> {
        None
    }
    /// Lowest and highest corner of the boxes it is uniform on, if it is.
    fn boxes(&self) -> Option<Corners> {
        None
    }
    /// The isotropic Gaussians it is made of, if it is.
    fn gaussians(&self) -> Option<Gaussians<'_>> {
        None
    }
}

/// Lowest and highest corner of boxes.
type Corners = Vec<(Vec<f64>, Vec<f64>)>;

/// Weights, means and variances of isotropic Gaussians.
type Gaussians<'a> = (&'a [f64], &'a [Vec<f64>], &'a [f64]);

type Build = fn() -> Box<dyn Recipe>;

/// Every set, by name.
const RECIPES: [(&str, Build); 13] = [
    ("checkerboard", || Box::new(checkerboard::Checkerboard)),
    ("eight-modes", || Box::new(mixture::eight_modes())),
    ("two-modes", || Box::new(mixture::two_modes())),
    ("three-modes", || Box::new(mixture::three_modes())),
    ("swiss-roll", || Box::new(roll::SINGLE)),
    ("multi-swiss-roll", || Box::new(roll::MULTI)),
    ("two-spirals", || Box::new(spiral::TwoSpirals)),
    ("four-rings", || Box::new(ring::FOUR)),
    ("olympics", || Box::new(ring::OLYMPICS)),
    ("sharp-olympics", || Box::new(ring::SHARP_OLYMPICS)),
    ("fractal-tree", || Box::new(tree::Tree::new(tree::LEVELS))),
    ("sierpinski-carpet", || Box::new(carpet::Carpet)),
    ("plane", || Box::new(plane::Plane)),
];

/// A synthetic law, standardised.
#[derive(Debug)]
pub struct Toy {
    name: &'static str,
    recipe: Box<dyn Recipe>,
    affine: Affine,
}

impl Toy {
    /// The law of this name.
    ///
    /// # Errors
    /// If there is none; the error lists the names.
    pub fn by_name(name: &str) -> Result<Self> {
        let (name, build) =
            RECIPES.iter().find(|(known, _)| *known == name).ok_or_else(|| Error::Unknown {
                what: "synthetic set",
                name: name.into(),
                known: Self::names().collect::<Vec<_>>().join(", "),
            })?;
        let recipe = build();
        let (mean, variance) = recipe.moments();
        let affine = match recipe.is_standardised() {
            true => Affine::from_moments(mean, variance),
            false => Affine::identity(mean.len()),
        };
        Ok(Self { name, recipe, affine })
    }

    /// All names.
    pub fn names() -> impl Iterator<Item = &'static str> {
        RECIPES.iter().map(|(name, _)| *name)
    }

    /// The name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The number of dimensions, 1 to 3.
    pub fn dim(&self) -> usize {
        self.affine.dim()
    }

    /// The map that standardised the recipe.
    pub fn affine(&self) -> &Affine {
        &self.affine
    }

    /// Point `index` of a split.
    pub fn sample(&self, noise: Noise, split: Split, index: u64) -> Vec<f64> {
        let site = match split {
            Split::Train => 0,
            Split::Test => 1,
        };
        let mut draws = noise.draws_at(Stream::Data, site, (index >> 32) as u32, index as u32);
        let mut point = self.recipe.sample(&mut draws);
        self.affine.apply(&mut point);
        point
    }

    /// The exact log density at a point of the standardised space, −∞ where it vanishes or underflows; none
    /// where there is no closed form, or if the point has another dimension.
    pub fn log_density(&self, point: &[f64]) -> Option<f64> {
        if point.len() != self.dim() {
            return None;
        }
        let mut raw = point.to_vec();
        self.affine.invert(&mut raw);
        Some(self.recipe.log_density(&raw)? + self.affine.log_scale())
    }

    /// Lowest and highest corner of the boxes on which the standardised law is uniform, where it is: they do not overlap.
    pub fn boxes(&self) -> Option<Vec<(Vec<f64>, Vec<f64>)>> {
        let mut corners = self.recipe.boxes()?;
        for (low, high) in &mut corners {
            self.affine.apply(low);
            self.affine.apply(high);
        }
        Some(corners)
    }

    /// The standardised law where it is a mixture of Gaussians, whose scores are known at every time.
    ///
    /// # Errors
    /// As [`Mixture::of_diagonals`], which it gives nothing to refuse.
    pub fn mixture(&self) -> Result<Option<Mixture>> {
        let Some((weights, means, variances)) = self.recipe.gaussians() else { return Ok(None) };
        let mut means = means.to_vec();
        means.iter_mut().for_each(|mean| self.affine.apply(mean));
        let axes = |v: &f64| self.affine.scale().iter().map(|s| v / (s * s)).collect();
        Ok(Some(Mixture::of_diagonals(weights, &means, variances.iter().map(axes).collect())?))
    }

    /// The entropy of the standardised law in nats, where it is known.
    pub fn entropy(&self) -> Option<f64> {
        Some(self.recipe.entropy()? - self.affine.log_scale())
    }
}

/// A number of points of a [`Toy`].
#[derive(Debug)]
pub struct ToySet {
    toy: Toy,
    noise: Noise,
    split: Split,
    len: usize,
    shape: [usize; 1],
}

impl ToySet {
    /// The first `len` points of a split; the seed is the set's own, not the run's.
    pub fn new(toy: Toy, seed: u64, split: Split, len: usize) -> Self {
        let shape = [toy.dim()];
        Self { toy, noise: Noise::new(seed), split, len, shape }
    }

    /// The law of the points.
    pub fn toy(&self) -> &Toy {
        &self.toy
    }
}

impl Dataset for ToySet {
    fn len(&self) -> usize {
        self.len
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn encoding(&self) -> Encoding {
        Encoding::Continuous
    }

    fn classes(&self) -> usize {
        0
    }

    fn batch(&self, indices: &[usize], noise: &BatchNoise) -> Result<Batch> {
        check_batch(self.len, indices, noise)?;
        let point = |&i: &usize| self.toy.sample(self.noise, self.split, i as u64);
        let values: Vec<f32> = indices.par_iter().flat_map_iter(point).map(|v| v as f32).collect();
        Ok(Batch {
            x: Tensor::from_vec(values, (indices.len(), self.shape[0]), &Device::Cpu)?,
            labels: None,
            augment: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(toy: &Toy, n: u64) -> Vec<Vec<f64>> {
        (0..n).into_par_iter().map(|i| toy.sample(Noise::new(1), Split::Train, i)).collect()
    }

    /// Mean and standard error of the mean.
    fn estimate(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
        let n = values.clone().count() as f64;
        let mean = values.clone().sum::<f64>() / n;
        let variance = values.map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
        (mean, (variance / n).sqrt())
    }

    #[test]
    fn every_set_has_zero_mean_and_unit_variance_or_its_own() -> Result<()> {
        for name in Toy::names() {
            let toy = Toy::by_name(name)?;
            let points = points(&toy, 100_000);
            let (means, variances) = match toy.recipe.is_standardised() {
                true => (vec![0.0; toy.dim()], vec![1.0; toy.dim()]),
                false => toy.recipe.moments(),
            };
            for axis in 0..toy.dim() {
                for (power, moment) in [(1, means[axis]), (2, variances[axis] + means[axis].powi(2))] {
                    let (mean, error) = estimate(points.iter().map(|p| p[axis].powi(power)));
                    assert!((mean - moment).abs() < 5.0 * error, "{name}, axis {axis}: {mean} ± {error}");
                }
            }
        }
        Ok(())
    }

    #[test]
    fn entropies_are_the_mean_of_minus_log_density() -> Result<()> {
        let mut checked = Vec::new();
        for name in Toy::names() {
            let toy = Toy::by_name(name)?;
            let Some(entropy) = toy.entropy() else { continue };
            let surprise: Option<Vec<f64>> =
                points(&toy, 100_000).iter().map(|p| toy.log_density(p).map(|l| -l)).collect();
            let surprise = surprise.ok_or(Error::Empty("log density"))?;
            let (mean, error) = estimate(surprise.iter().copied());
            // A uniform law has no spread at all: then only rounding is left.
            assert!((mean - entropy).abs() < 5.0 * error + 1e-9, "{name}: {mean} ± {error}, not {entropy}");
            checked.push(name);
        }
        let expected = "checkerboard eight-modes two-modes three-modes four-rings olympics sharp-olympics sierpinski-carpet plane";
        assert_eq!(checked.join(" "), expected);
        Ok(())
    }

    #[test]
    fn every_point_lies_in_one_box() -> Result<()> {
        let mut names = Vec::new();
        for name in Toy::names() {
            let toy = Toy::by_name(name)?;
            let Some(boxes) = toy.boxes() else { continue };
            for point in points(&toy, 500) {
                let inside = |(low, high): &&(Vec<f64>, Vec<f64>)| {
                    point.iter().zip(low.iter().zip(high)).all(|(x, (a, b))| (*a..*b).contains(x))
                };
                assert_eq!(boxes.iter().filter(inside).count(), 1, "{name}: {point:?}");
            }
            let volume: f64 =
                boxes.iter().map(|(a, b)| a.iter().zip(b).map(|(a, b)| b - a).product::<f64>()).sum();
            let entropy = toy.entropy().ok_or(Error::Empty("entropy"))?;
            assert!((volume.ln() - entropy).abs() < 1e-12, "{name}");
            names.push(name);
        }
        assert_eq!(names, ["checkerboard", "sierpinski-carpet"]);
        Ok(())
    }

    #[test]
    fn mixtures_have_the_density_of_their_set() -> Result<()> {
        // A process without noise at 0 and with the data as they are: what is noised is the set itself.
        let still = sde_core::process::LinearPath;
        let mut names = Vec::new();
        for name in Toy::names() {
            let toy = Toy::by_name(name)?;
            let Some(mixture) = toy.mixture()? else { continue };
            let marginal = mixture.marginal(&still, 0.0)?;
            for point in points(&toy, 50) {
                let expected = toy.log_density(&point).unwrap_or(f64::NAN);
                assert!((marginal.at(&point)?.log_density - expected).abs() < 1e-10, "{name}: {point:?}");
            }
            names.push(name);
        }
        assert_eq!(names, ["eight-modes", "two-modes", "three-modes"]);
        Ok(())
    }

    #[test]
    fn floors_of_the_literature() -> Result<()> {
        for (name, floor, tolerance) in [
            ("checkerboard", 32f64.ln() - (16.0f64 / 3.0).ln(), 1e-12),
            ("sierpinski-carpet", 2.014, 5e-4),
            ("olympics", 1.220, 2e-3),
        ] {
            let entropy = Toy::by_name(name)?.entropy().ok_or(Error::Empty("entropy"))?;
            assert!((entropy - floor).abs() < tolerance, "{name}: {entropy}");
        }
        Ok(())
    }

    #[test]
    fn points_are_functions_of_seed_split_and_index() -> Result<()> {
        let set = |seed, split| Ok::<_, Error>(ToySet::new(Toy::by_name("two-spirals")?, seed, split, 50));
        let rows = |set: &ToySet, indices: &[usize], step| {
            let noise = BatchNoise::new(Noise::new(step), step as u32, 0..indices.len() as u32);
            Ok::<_, Error>(set.batch(indices, &noise)?.x.to_vec2::<f32>()?)
        };
        let train = set(3, Split::Train)?;
        let whole = rows(&train, &(0..50).collect::<Vec<_>>(), 0)?;
        assert_eq!(rows(&train, &[7, 40], 1)?, [whole[7].clone(), whole[40].clone()]);
        assert_ne!(rows(&set(4, Split::Train)?, &[7], 0)?[0], whole[7]);
        let test = rows(&set(3, Split::Test)?, &(0..50).collect::<Vec<_>>(), 0)?;
        assert!(test.iter().all(|point| !whole.contains(point)));
        assert!(matches!(rows(&train, &[50], 0), Err(Error::Index { index: 50, len: 50 })));
        Ok(())
    }

    #[test]
    fn unknown_names_list_the_known() {
        let message = Toy::by_name("checkbord").err().map(|e| e.to_string()).unwrap_or_default();
        assert!(
            message.starts_with("unknown synthetic set \"checkbord\"; known: checkerboard, "),
            "{message}"
        );
    }
}
