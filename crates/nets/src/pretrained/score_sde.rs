//! The layout of score_sde's PyTorch checkpoints: numbered modules, transposed maps, averages as a list.
//!
//! ```text
//! {"model": {"module.all_modules.3.Conv_0.weight": …, "module.sigmas": …},
//!  "ema": {"decay": …, "num_updates": …, "shadow_params": [ … ]},  "optimizer": …,  "step": …}
//! ```
//!
//! The file does not say which network it holds: the caller does. Modules are numbered in the order in which the
//! network is put together: time features where they have weights, two linear maps, the first convolution, the path
//! down, the middle, the path up, normalisation, last convolution. Inside, `NIN` is a linear map of channels that
//! multiplies from the right: W is `[in, out]`, ours `[out, in, 1, 1]`. The averages are those of the trainable
//! parameters in the same order, so the fixed frequencies are not among them. `sigmas` is a table of the process, and
//! is not asked for.
//!
//! A variance-exploding network of theirs, divided by σ, is the score: it is minus the noise. Ours predict noise, so
//! the sign goes into the last convolution, [`Output::NegativeNoise`].
//!
//! Reference: Song et al. 2021, arXiv 2011.13456, appendix H, for the networks.

mod plan;

use std::collections::BTreeMap;

use self::plan::Module;
use super::dictionary::{Dictionary, Form, Word};
use super::pickle::Value;
use super::{Moments, Pretrained};
use crate::builder::Role;
use crate::params::layout;
use crate::{Error, Result, Unet, UnetConfig, Weights};

/// What the network's output is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// The noise: networks of VP and sub-VP.
    Noise,
    /// Minus the noise: networks of VE.
    NegativeNoise,
}

/// The tensors of a network in the order of their parameters, and which of them are trained.
struct Plan {
    words: Dictionary,
    trained: Vec<bool>,
}

impl Plan {
    fn new(net: &UnetConfig, sample_shape: &[usize], output: Output) -> Result<Self> {
        let entries = layout(|b| Unet::new(b, net, sample_shape))?;
        let (mut words, mut trained) = (Vec::new(), Vec::new());
        for (number, module) in plan::modules(net, sample_shape)?.into_iter().enumerate() {
            for (ours, theirs) in module.tensors(|name| entries.contains_key(name)) {
                let Some(entry) = entries.get(&ours) else { continue };
                let form = match (theirs.as_str(), &module) {
                    (name, _) if name.starts_with("NIN") && name.ends_with('W') => Form::Transposed,
                    (_, Module::Output) if output == Output::NegativeNoise => Form::Negative,
                    _ => Form::Same,
                };
                let name = format!("all_modules.{number}.{theirs}");
                let theirs = vec![format!("module.{name}"), name];
                words.push(Word { ours, shape: entry.shape.clone(), theirs, form });
                trained.push(entry.role == Role::Trainable);
            }
        }
        Ok(Self { words: Dictionary(words), trained })
    }

    /// The words of what is trained, renamed.
    fn trained(&self, rename: impl Fn(usize, &Word) -> Word) -> Dictionary {
        let trained = self.words.0.iter().zip(&self.trained).filter(|(_, trained)| **trained);
        Dictionary(trained.enumerate().map(|(k, (word, _))| rename(k, word)).collect())
    }
}

/// The network `net` in a checkpoint, or in the dictionary of tensors of its model alone.
///
/// # Errors
/// [`Error::Unsupported`] where no network of theirs is like it; [`Error::Weights`] under their names;
/// [`Error::Pth`] where the checkpoint is laid out in another way.
pub fn read(
    checkpoint: &Value,
    net: &UnetConfig,
    sample_shape: &[usize],
    output: Output,
) -> Result<Pretrained> {
    let plan = Plan::new(net, sample_shape, output)?;
    let model = checkpoint.get("model").unwrap_or(checkpoint).to_weights()?;
    let weights = plan.words.read(&model, is_table)?;
    let averages = checkpoint.get("ema").map(|ema| {
        let shadow = ema.get("shadow_params").and_then(Value::as_list);
        shadow.ok_or_else(|| Error::Pth("`ema` has no list `shadow_params`".into()))
    });
    let average = averages.transpose()?.map(|list| average(&plan, list, &weights)).transpose()?;
    let moments = checkpoint.get("optimizer").map(|state| moments(&plan, state)).transpose()?.flatten();
    let step = checkpoint.get("step").and_then(Value::as_int).unwrap_or(0);
    let step = u64::try_from(step).map_err(|_| Error::Pth(format!("`step` is {step}")))?;
    Ok(Pretrained { net: net.clone(), sample_shape: sample_shape.to_vec(), weights, average, moments, step })
}

/// Whether a checkpoint's model has the tensors of `net`, as far as names and shapes tell; none is copied.
///
/// # Errors
/// As [`read`].
pub fn check(checkpoint: &Value, net: &UnetConfig, sample_shape: &[usize]) -> Result<()> {
    let plan = Plan::new(net, sample_shape, Output::Noise)?;
    let model = checkpoint.get("model").unwrap_or(checkpoint);
    let Value::Dict(entries) = model else {
        return Err(Error::Pth(format!("expected a dict of tensors, found {}", model.kind())));
    };
    let shape = |(key, value): &(Value, Value)| match (key, value) {
        (Value::Text(name), Value::Tensor(tensor)) => Some((name.to_string(), tensor.shape().to_vec())),
        _ => None,
    };
    plan.words.check(&entries.iter().filter_map(shape).collect(), is_table)
}

/// A table of the process, which is no part of the network.
fn is_table(name: &str) -> bool {
    name.rsplit('.').next() == Some("sigmas")
}

/// A name of an element of the list of averages, which has none in the file.
fn shadow(k: usize, word: &Word) -> String {
    format!("ema.shadow_params[{k}] ({})", word.theirs.last().map_or("", String::as_str))
}

/// The averages; what is not trained is that of the model.
fn average(plan: &Plan, list: &[Value], weights: &Weights) -> Result<Weights> {
    let words = plan.trained(|k, word| Word { theirs: vec![shadow(k, word)], ..word.clone() });
    if list.len() != words.0.len() {
        let text = format!(
            "`ema.shadow_params` has {} tensors, the network {} trainable parameters",
            list.len(),
            words.0.len()
        );
        return Err(Error::Pth(text));
    }
    let named = words.0.iter().zip(list).map(|(word, value)| match value {
        Value::Tensor(tensor) => Ok((word.theirs.concat(), tensor.to_tensor()?)),
        other => {
            Err(Error::Pth(format!("{}: expected a tensor, found {}", word.theirs.concat(), other.kind())))
        }
    });
    let averages = words.read(&named.collect::<Result<_>>()?, |_| false)?;
    let fixed = weights.iter().filter(|(name, _)| averages.get(name).is_none());
    let fixed: Vec<_> = fixed.map(|(name, tensor)| (name.to_owned(), tensor.clone())).collect();
    Ok(averages.into_iter().chain(fixed).collect())
}

/// The moments of Adam, if the optimiser's state has them for every parameter.
fn moments(plan: &Plan, optimiser: &Value) -> Result<Option<Moments>> {
    let (Some(Value::Dict(states)), Some([group])) =
        (optimiser.get("state"), optimiser.get("param_groups").and_then(Value::as_list))
    else {
        return Ok(None);
    };
    // Parameters are numbered in their order; those that are not trained have a number, and no state.
    let numbers = group.get("params").and_then(Value::as_list).unwrap_or_default();
    let states: BTreeMap<i64, &Value> =
        states.iter().filter_map(|(number, state)| Some((number.as_int()?, state))).collect();
    let all = numbers.len() == plan.trained.len();
    let numbers: Vec<i64> = match all {
        true => {
            let trained = numbers.iter().zip(&plan.trained).filter(|(_, trained)| **trained);
            trained.filter_map(|(number, _)| number.as_int()).collect()
        }
        false => numbers.iter().filter_map(Value::as_int).collect(),
    };
    let of = |key: &str, squared: bool| -> Result<Option<Weights>> {
        let words = plan.trained(|k, word| {
            let form = if squared && word.form == Form::Negative { Form::Same } else { word.form };
            Word { theirs: vec![format!("optimizer {key} of parameter {k}")], form, ..word.clone() }
        });
        if numbers.len() != words.0.len() {
            return Ok(None);
        }
        let mut tensors = Vec::new();
        for (word, number) in words.0.iter().zip(&numbers) {
            let Some(Value::Tensor(tensor)) = states.get(number).and_then(|state| state.get(key)) else {
                return Ok(None);
            };
            tensors.push((word.theirs.concat(), tensor.to_tensor()?));
        }
        words.read(&tensors.into_iter().collect(), |_| false).map(Some)
    };
    let (first, second) = (of("exp_avg", false)?, of("exp_avg_sq", true)?);
    Ok(first.zip(second).map(|(first, second)| Moments { first, second }))
}
