//! The metrics measured: each as keys of a record, and a line to read.

use std::sync::atomic::Ordering;

use anyhow::Result;
use sde_core::noise::Noise;
use sde_eval::{
    FeatureSet, KidSubsets, Reference as Against, fid, inception_score, kid, memorisation,
    memorisation_bytes, prdc, prdc_bytes,
};
use serde_json::{Map, Value, json};

use super::metric::{Metric, Metrics, line};
use super::reference::Reference;
use crate::cli::EvalFid;
use crate::exit::Failure;
use crate::features::Features;
use crate::figures::short;
use crate::output::Output;
use crate::signals;

/// Groups of samples behind the error bar of FID.
const GROUPS: usize = 3;
/// Parts of an Inception Score, as others take them.
const PARTS: usize = 10;
/// Suspected copies that are told.
const SUSPECTS: usize = 16;

/// The two sides.
pub struct Pair<'a> {
    /// The features that are measured.
    pub found: &'a Features,
    /// Their logits, if classes were asked for.
    pub classes: Option<&'a Features>,
    /// What they are measured against.
    pub reference: &'a Reference,
    /// How.
    pub args: &'a EvalFid,
}

impl Metrics {
    /// Measures, as keys of a record and lines to read.
    pub fn measure(&self, pair: &Pair<'_>, output: Output) -> Result<(Map<String, Value>, Vec<String>)> {
        let samples = if self.keeps_samples() { Some(pair.found.kept()?) } else { None };
        let stop = signals::stop_flag()?;
        let (mut record, mut lines) = (Map::new(), Vec::new());
        for metric in &self.0 {
            if stop.load(Ordering::Relaxed) {
                return Err(Failure::Stopped("all features are safe; the same command goes on".into()).into());
            }
            output.say(format!("{} …{}", metric.name(), pair.memory(*metric)));
            let (more, line) = match (metric, &samples, &pair.reference.kept) {
                (Metric::Fid, ..) => pair.distance()?,
                (Metric::Score, ..) => pair.score()?,
                (Metric::FidInfinity, Some(samples), _) => pair.infinity(samples)?,
                (Metric::Kid, Some(samples), Some(others)) => pair.kernel(samples, others)?,
                (Metric::Prdc, Some(samples), Some(others)) => pair.neighbours(samples, others)?,
                (Metric::Memorisation, Some(samples), Some(others)) => pair.copies(samples, others)?,
                _ => {
                    let text = format!("{}: no features of the reference", metric.name());
                    return Err(Failure::Usage(text).into());
                }
            };
            if let Value::Object(more) = more {
                record.extend(more);
            }
            lines.push(line);
        }
        Ok((record, lines))
    }
}

impl Pair<'_> {
    /// What a metric holds in memory, in words.
    fn memory(&self, metric: Metric) -> String {
        let (n, dim) = (self.found.len(), self.found.dim());
        let m = self.reference.kept.as_ref().map_or(0, FeatureSet::len);
        let bytes = match metric {
            Metric::Fid | Metric::Score => return String::new(),
            Metric::FidInfinity | Metric::Kid => ((n + m) * dim * size_of::<f32>()) as u64,
            Metric::Prdc => prdc_bytes(n, m, dim, self.args.neighbours),
            Metric::Memorisation => {
                memorisation_bytes(n, m, self.reference.held_out.as_ref().map_or(0, FeatureSet::len), dim)
            }
        };
        format!(" about {:.0} MB are in memory", bytes as f64 / 1e6)
    }

    fn distance(&self) -> Result<(Value, String)> {
        // Two samples are the least that has a covariance.
        let groups = GROUPS.min(self.found.len() / 2);
        let moments = self.found.grouped(groups)?;
        let measured =
            fid(&moments, self.found.space(), &self.reference.law, self.reference.allow(self.args))?;
        let record = json!({
            "fid": measured.estimate.value,
            "fid_stderr": measured.estimate.standard_error,
            "fid_groups": measured.groups,
            "fid_degrees_of_freedom": groups - 1,
        });
        let (text, n) = (short(&measured.estimate), measured.estimate.n);
        Ok((record, format!("FID   {text}  (n = {n}; error bar of {groups} groups)")))
    }

    fn infinity(&self, samples: &FeatureSet) -> Result<(Value, String)> {
        let kept = self.reference.kept.as_ref();
        let against = kept.map_or(Against::Exact(&self.reference.law), Against::Features);
        let n = samples.len().min(kept.map_or(usize::MAX, FeatureSet::len));
        let line = line(n, samples.dim());
        let measured = line.fid(samples, against, self.reference.allow(self.args))?;
        let record = json!({
            "fid_infinity": measured.estimate.value,
            "fid_infinity_stderr": measured.estimate.standard_error,
            "fid_infinity_groups": line.groups,
            "fid_infinity_degrees_of_freedom": line.groups - 1,
            "fid_infinity_sizes": measured.sizes,
            "fid_infinity_distances": measured.distances,
            "fid_infinity_reference": if kept.is_some() { "extrapolated, too" } else { "exact" },
        });
        let sizes: Vec<String> = measured.sizes.iter().map(ToString::to_string).collect();
        let text = short(&measured.estimate);
        Ok((
            record,
            format!("FID∞  {text}  ({} groups, lines through n = {})", line.groups, sizes.join(", ")),
        ))
    }

    fn kernel(&self, samples: &FeatureSet, others: &FeatureSet) -> Result<(Value, String)> {
        let measured = kid(samples, others)?;
        let mut record = json!({ "kid": measured.value, "kid_stderr": measured.standard_error });
        let mut text = format!("KID   {}  (all pairs)", short(&measured));
        let (smaller, count) = (samples.len().min(others.len()), self.args.kid_subsets);
        let size = match self.args.kid_subset_size {
            // Subsets that are nearly everything say nothing.
            None => Some(1000).filter(|size| 2 * size <= smaller),
            given => given,
        };
        if let Some(size) = size {
            let subsets = KidSubsets { size, count }.kid(samples, others, Noise::new(self.args.seed))?;
            record["kid_of_subsets"] = json!({
                "mean": subsets.estimate.value,
                "standard_error": subsets.estimate.standard_error,
                "standard_deviation": subsets.spread,
                "subsets": count,
                "size": size,
            });
            text += &format!(
                "\n      {:.6}, standard deviation {:.6}  ({count} subsets of {size}, as others print it)",
                subsets.estimate.value, subsets.spread
            );
        }
        Ok((record, text))
    }

    fn neighbours(&self, samples: &FeatureSet, others: &FeatureSet) -> Result<(Value, String)> {
        let k = self.args.neighbours;
        let measured = prdc(samples, others, k)?;
        let record = json!({ "prdc": measured, "prdc_neighbours": k });
        let lines = [
            ("precision", measured.precision),
            ("recall", measured.recall),
            ("density", measured.density),
            ("coverage", measured.coverage),
        ];
        let lines = lines.map(|(name, value)| format!("{name:9}  {}", short(&value)));
        Ok((record, format!("{}  ({k} neighbours)", lines.join("\n"))))
    }

    fn copies(&self, samples: &FeatureSet, training: &FeatureSet) -> Result<(Value, String)> {
        let held_out = self.reference.held_out.as_ref().ok_or_else(|| {
            let text = "memorisation needs --held-out SOURCE: data that was not trained on, to know how near is near";
            Failure::Usage(text.into())
        })?;
        let measured = memorisation(samples, training, held_out, SUSPECTS)?;
        let record = json!({ "memorisation": measured, "held_out_n": held_out.len() });
        let text = format!(
            "closer     {}  (½: as near to the training data as held-out data is)\nauthentic  {}\nnearest    {}",
            short(&measured.closer),
            short(&measured.authentic),
            nearest(&measured.suspects)
        );
        Ok((record, text))
    }

    fn score(&self) -> Result<(Value, String)> {
        let logits = self.classes.ok_or_else(|| Failure::Usage("no classes were computed".into()))?;
        let parts = PARTS.min(logits.len());
        let measured = inception_score(&logits.rows()?, parts)?;
        let record = json!({
            "inception_score": measured.estimate.value,
            "inception_score_stderr": measured.estimate.standard_error,
            "inception_score_spread": measured.spread,
            "inception_score_parts": parts,
            "inception_score_weights_sha256": logits.space().weights_sha256,
        });
        let text = short(&measured.estimate);
        Ok((
            record,
            format!("IS    {text}  ({parts} parts, their standard deviation {:.4})", measured.spread),
        ))
    }
}

/// The three most suspicious samples.
fn nearest(suspects: &[sde_eval::Suspect]) -> String {
    let one = |s: &sde_eval::Suspect| format!("{} to {} (ratio {:.2})", s.sample, s.training, s.ratio);
    suspects.iter().take(3).map(one).collect::<Vec<_>>().join(", ")
}
