//! All that training changes, and its way into a checkpoint and back.
//!
//! There is no state of a random generator and no cursor into the data: noise and order are functions of (seed,
//! step).

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use sde_nets::{Params, Weights};

use crate::adam::{Adam, Gradients};
use crate::checkpoint::{self, Checkpoint, Origin};
use crate::config::TrainConfig;
use crate::ema::Ema;
use crate::group::{Group, Groups};
use crate::{Error, Result};

/// The file of the weights that training changes.
pub const WEIGHTS: &str = "weights.safetensors";
const ADAM: &str = "adam.safetensors";
const WINDOW: &str = "window.safetensors";

/// The file of the average of this name.
pub fn ema_file(name: &str) -> String {
    format!("ema-{name}.safetensors")
}

/// Makes the tensors of a file.
type MakeWeights<'a> = Box<dyn Fn() -> Result<Weights> + 'a>;

/// The losses since the last line of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Window {
    sum: f64,
    count: f64,
}

impl Window {
    pub(crate) fn add(&mut self, loss: f64) {
        self.sum += loss;
        self.count += 1.0;
    }

    /// The mean, and an empty window.
    pub(crate) fn take_mean(&mut self) -> f64 {
        let Self { sum, count } = std::mem::take(self);
        sum / count
    }

    fn to_weights(self) -> Result<Weights> {
        let tensor = Tensor::new(&[self.sum, self.count], &Device::Cpu)?;
        Ok([("losses".to_owned(), tensor)].into_iter().collect())
    }

    fn of(weights: &Weights) -> Result<Self> {
        match weights.get("losses").map(Tensor::to_vec1::<f64>).transpose()?.as_deref() {
            Some(&[sum, count]) => Ok(Self { sum, count }),
            _ => Ok(Self::default()),
        }
    }
}

/// Parameters, optimiser and averages after a number of updates.
#[derive(Debug)]
pub struct State {
    step: u64,
    params: Params,
    adam: Adam,
    averages: Vec<Ema>,
    groups: Vec<Group>,
    pub(crate) window: Window,
}

impl State {
    /// The state before the first update.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn new(config: &TrainConfig, params: &Params) -> Result<Self> {
        config.check()?;
        config.check_groups(params)?;
        let averages = config.ema.iter().map(|ema| Ema::new(ema.clone(), params)).collect::<Result<_>>()?;
        let adam = Adam::new(config.optimiser, params)?;
        let groups = config.groups.clone();
        Ok(Self { step: 0, params: params.clone(), adam, averages, groups, window: Window::default() })
    }

    /// The state of a training that went on elsewhere: `params` as they are, every average from `average` if there is
    /// one, and Adam from its moments. Without moments Adam starts anew, and so does the count of updates: its
    /// correction of bias, and the warm-up, count from where the moments were zero.
    ///
    /// # Errors
    /// [`Error::Config`]; [`Error::Corrupt`] where average or moments are not those of the parameters.
    pub fn adopt(
        config: &TrainConfig,
        params: &Params,
        average: Option<&Weights>,
        moments: Option<(&Weights, &Weights)>,
        step: u64,
    ) -> Result<Self> {
        let mut state = Self::new(config, params)?;
        if let Some(average) = average {
            for ema in &mut state.averages {
                let fitted = fit("the average", &ema.to_weights()?, average)?;
                ema.load(&fitted)?;
            }
        }
        if let Some((first, second)) = moments {
            let named = |prefix: &'static str, moments: &Weights| -> Vec<(String, Tensor)> {
                moments.iter().map(|(name, tensor)| (format!("{prefix}.{name}"), tensor.clone())).collect()
            };
            let moments = named("first", first).into_iter().chain(named("second", second)).collect();
            let fitted = fit("the moments", &state.adam.to_weights()?, &moments)?;
            state.adam.load(&fitted)?;
            state.step = step;
        }
        Ok(state)
    }

    /// The number of updates made.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// The parameters: the variables that the network was built on.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The averages of the weights, in the order of the configuration.
    pub fn averages(&self) -> &[Ema] {
        &self.averages
    }

    /// Makes an update of optimiser and averages, with gradients scaled by `gradient_scale`.
    pub(crate) fn update(
        &mut self,
        gradients: &Gradients,
        gradient_scale: f64,
        learning_rate: f64,
    ) -> Result<()> {
        let n = self.step + 1;
        let (params, groups, averages) = (&self.params, Groups(&self.groups), &mut self.averages);
        self.adam.update_all(params, gradients, gradient_scale, n, learning_rate, groups, averages)?;
        self.step = n;
        Ok(())
    }

    /// Every file of the state: its name and the tensors in it, made when asked for.
    fn files(&self) -> Vec<(String, MakeWeights<'_>)> {
        let mut files: Vec<(String, MakeWeights<'_>)> = vec![
            (WEIGHTS.into(), Box::new(|| Ok(self.params.to_weights()?))),
            (ADAM.into(), Box::new(|| self.adam.to_weights())),
            (WINDOW.into(), Box::new(|| self.window.to_weights())),
        ];
        for average in &self.averages {
            files.push((ema_file(average.name()), Box::new(|| average.to_weights())));
        }
        files
    }

    /// Saves a checkpoint below `root`; see [`checkpoint::save`].
    pub fn save(&self, root: &Path, origin: &Origin) -> Result<PathBuf> {
        let files = self.files().into_iter().map(|(name, make)| {
            let what = name.clone();
            (name, move || checkpoint::encode(&what, self.step, &make()?))
        });
        checkpoint::save(root, self.step, origin, files)
    }

    /// Takes over a checkpoint: all of it, or on an error nothing.
    ///
    /// # Errors
    /// [`Error::Resume`] when it is of another configuration or seed, [`Error::Corrupt`] when a file has not exactly
    /// the tensors of this state.
    pub fn restore(&mut self, saved: &Checkpoint, origin: &Origin) -> Result<()> {
        let manifest = saved.manifest();
        let differs = |what, expected: &dyn ToString, found: &dyn ToString| Error::Resume {
            path: saved.path().to_owned(),
            what,
            expected: expected.to_string(),
            found: found.to_string(),
        };
        if manifest.origin.seed != origin.seed {
            return Err(differs("seed", &manifest.origin.seed, &origin.seed));
        }
        if manifest.origin.config_sha256 != origin.config_sha256 {
            return Err(differs("configuration", &manifest.origin.config_sha256, &origin.config_sha256));
        }
        let mut loaded = Vec::new();
        for (name, current) in self.files() {
            let weights = saved.weights(&name)?;
            checkpoint::same_layout(&saved.path().join(&name), &current()?, &weights)?;
            loaded.push(weights);
        }
        let [weights, adam, window, averages @ ..] = loaded.as_slice() else { return Ok(()) };
        self.params.load(weights)?;
        self.adam.load(adam)?;
        self.window = Window::of(window)?;
        self.averages.iter_mut().zip(averages).try_for_each(|(average, weights)| average.load(weights))?;
        self.step = manifest.step;
        Ok(())
    }
}

/// `given` in the types and on the devices of `current`, if it has its names and shapes.
fn fit(what: &str, current: &Weights, given: &Weights) -> Result<Weights> {
    let fitted = given.iter().map(|(name, tensor)| {
        let tensor = match current.get(name) {
            // A copy, since updates are in place and what was given is the caller's.
            Some(like) => tensor.to_dtype(like.dtype())?.to_device(like.device())?.copy()?,
            None => tensor.clone(),
        };
        Ok((name.to_owned(), tensor))
    });
    let fitted = fitted.collect::<Result<Weights>>()?;
    checkpoint::same_layout(Path::new(what), current, &fitted)?;
    Ok(fitted)
}
