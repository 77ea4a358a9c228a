//! What samples are drawn towards: classes, the weight of guidance, the range of the data.

use anyhow::Result;
use candle_core::{DType, Tensor};
use sde_core::Field;
use sde_solvers::guidance::{ClassifierFree, Clip, Clipped, Interval};
use serde_json::{Value, json};

use crate::cli::Guide;
use crate::exit::Failure;
use crate::run::Run;

/// A field, and the class of each sample if there are classes.
pub struct Guided<'a> {
    /// The field.
    pub field: Box<dyn Field + 'a>,
    /// A label for each sample.
    pub labels: Option<Vec<u32>>,
}

/// The field of a run as the options want it, for samples with these addresses.
pub fn field<'a>(run: &'a Run, options: &Guide, addresses: &[u32]) -> Result<Guided<'a>> {
    let labels = labels(run, options, addresses)?;
    let field: Box<dyn Field + 'a> = match (&labels, options.guidance) {
        (None, None) => Box::new(run.field()),
        (None, Some(_)) => {
            let text = "--guidance: this run's network knows no classes; train one with net.classes, such as digits-conditional";
            return Err(Failure::Usage(text.into()).into());
        }
        (Some(labels), None) => {
            Box::new(run.field().with_labels(Tensor::new(labels.as_slice(), &run.device)?))
        }
        (Some(_), Some(_)) if run.preset.train.label_dropout.is_none() => {
            let text = "--guidance: this run was trained without train.label_dropout, and its network does not know the data without classes";
            return Err(Failure::Usage(text.into()).into());
        }
        (Some(labels), Some(weight)) => {
            let classes = run.classes().unwrap_or(0);
            let place = (DType::F32, &run.device);
            let network: &dyn sde_core::Model = run.network();
            Box::new(ClassifierFree::of_model(network, place, labels, classes, weight, interval(options)?)?)
        }
    };
    Ok(Guided { field, labels })
}

/// Refuses what a sampler of learned variances would leave out: it asks the network itself.
pub fn check_learned(run: &Run, options: &Guide, known: bool) -> Result<()> {
    let Guide { guidance, clip, threshold, .. } = options;
    let more = guidance.is_some() || *clip || threshold.is_some() || known || run.classes().is_some();
    if more && run.preset.sampler.entry()?.wants_moments() {
        let text = format!(
            "{}: it takes the network as it is, without classes, guidance, clipping or known parts",
            run.preset.sampler.name
        );
        return Err(Failure::Usage(text).into());
    }
    Ok(())
}

/// A label for each sample, by its address, so that any range of addresses is balanced and no batch matters.
fn labels(run: &Run, options: &Guide, addresses: &[u32]) -> Result<Option<Vec<u32>>> {
    let wanted = options.class.as_deref();
    let Some(classes) = run.classes() else {
        if wanted.is_some() {
            return Err(Failure::Usage("--class: this run's network knows no classes".into()).into());
        }
        return Ok(None);
    };
    let wrong = |text: &str| {
        let text = format!("--class {text}: expected 0 to {} or all", classes.saturating_sub(1));
        anyhow::Error::from(Failure::Usage(text))
    };
    let of = |address: u32| match wanted {
        None | Some("all") => Ok(address % classes as u32),
        Some(text) => text.parse().ok().filter(|k| (*k as usize) < classes).ok_or_else(|| wrong(text)),
    };
    Ok(Some(addresses.iter().map(|&address| of(address)).collect::<Result<_>>()?))
}

fn interval(options: &Guide) -> Result<Interval> {
    let Some(text) = &options.guidance_interval else { return Ok(Interval::of_times(0.0, f64::MAX)?) };
    let bad = || Failure::Usage(format!("--guidance-interval {text}: expected A-B, such as 0.2-0.8"));
    let (low, high) = text.split_once('-').ok_or_else(bad)?;
    let (low, high) = (low.trim().parse().map_err(|_| bad())?, high.trim().parse().map_err(|_| bad())?);
    Ok(Interval::of_times(low, high)?)
}

/// The field kept in the range of the data, if that is wanted: what guidance drives out of it comes back.
pub fn clipped<'a>(run: &'a Run, options: &Guide, field: Box<dyn Field + 'a>) -> Result<Box<dyn Field + 'a>> {
    if !options.clip && options.threshold.is_none() {
        return Ok(field);
    }
    let Some((range, _)) = run.image_levels() else {
        let text = format!("--clip and --threshold: samples of shape {:?} have no range", run.shape);
        return Err(Failure::Usage(text).into());
    };
    let clip = match options.threshold {
        None => Clip::Range { low: range.low(), high: range.high() },
        Some(quantile) => Clip::Dynamic { quantile, bound: range.low().abs().max(range.high().abs()) },
    };
    Ok(Box::new(Clipped::new(field, run.sde.as_ref(), clip)?))
}

/// The options as they stand in a record; null where there are none.
pub fn record(options: &Guide, labels: Option<&[u32]>) -> Value {
    let Guide { class, guidance, guidance_interval, clip, threshold } = options;
    if labels.is_none() && guidance.is_none() && !clip && threshold.is_none() {
        return Value::Null;
    }
    json!({
        "class": labels.map(|_| class.as_deref().unwrap_or("all")),
        "weight": guidance,
        "interval": guidance_interval,
        "clip": clip,
        "threshold": threshold,
    })
}
