//! The metrics by name, and what each says.

use anyhow::Result;
use sde_core::noise::Noise;
use sde_eval::{
    Estimate, Extrapolation, FeatureNetwork, FeatureSet, KidSubsets, Reference as Against, fid, kid,
};
use serde_json::{Map, Value, json};

use super::reference::Reference;
use crate::build::sampler::unknown;
use crate::cli::EvalFid;
use crate::command::eval_nll::estimate;
use crate::exit::Failure;
use crate::features::Features;
use crate::output::Output;

/// Groups of samples behind the error bar of FID.
const GROUPS: usize = 3;
/// How FID is extrapolated: groups, and sizes in each.
const LINE: Extrapolation = Extrapolation { groups: 4, sizes: 4 };

/// A metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Metric {
    Fid,
    FidInfinity,
    Kid,
}

impl Metric {
    const ALL: [(&'static str, Self); 3] =
        [("fid", Self::Fid), ("fid-infinity", Self::FidInfinity), ("kid", Self::Kid)];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, metric)| *metric == self).map_or("", |(name, _)| name)
    }
}

/// Those that were asked for.
pub struct Metrics(Vec<Metric>);

impl Metrics {
    /// By their names.
    pub fn named(names: &[String]) -> Result<Self> {
        let find = |name: &String| {
            let found = Metric::ALL.iter().find(|(known, _)| known == name).map(|(_, metric)| *metric);
            found.ok_or_else(|| unknown("metric", name, &Metric::ALL.map(|(name, _)| name)).into())
        };
        names.iter().map(find).collect::<Result<_>>().map(Self)
    }
}

impl Metrics {
    /// Whether all features have to be in memory.
    pub fn keep_features(&self) -> bool {
        self.0.iter().any(|metric| metric.keeps_reference())
    }

    /// The metrics that need the features of the reference.
    pub fn names_of_kept(&self) -> Vec<&'static str> {
        self.0.iter().filter(|metric| metric.keeps_reference()).map(|metric| metric.name()).collect()
    }

    /// Refuses too few pictures before the work, and says what memory the work takes.
    pub fn check_size(
        &self,
        n: usize,
        network: &dyn FeatureNetwork,
        args: &EvalFid,
        output: Output,
    ) -> Result<()> {
        let (dim, few) = (network.dim(), n <= network.dim() && !args.allow_small);
        if few && self.0.iter().any(|metric| matches!(metric, Metric::Fid | Metric::FidInfinity)) {
            let text = format!(
                "{n} pictures and features of {dim} entries: the covariance is singular and the distance far too high; take more than {dim}, --metrics kid, which has no bias, a smaller layer (--dims), or --allow-small"
            );
            return Err(Failure::Config(text).into());
        }
        if self.0.iter().any(|metric| *metric != Metric::Fid) {
            let bytes = n * dim * size_of::<f32>();
            output.say(format!("{n} features of {dim} entries stay in memory, {:.0} MB", bytes as f64 / 1e6));
        }
        Ok(())
    }

    /// Measures, as keys of a record and lines to read.
    pub fn measure(
        &self,
        found: &Features,
        reference: &Reference,
        args: &EvalFid,
        output: Output,
    ) -> Result<(Map<String, Value>, Vec<String>)> {
        let samples =
            if self.0.iter().any(|metric| *metric != Metric::Fid) { Some(found.kept()?) } else { None };
        let (mut record, mut lines) = (Map::new(), Vec::new());
        for metric in &self.0 {
            output.say(format!("{} …", metric.name()));
            let (more, line) = match (metric, &samples, &reference.kept) {
                (Metric::Fid, ..) => distance(found, reference, args)?,
                (Metric::FidInfinity, Some(samples), _) => infinity(samples, reference, args)?,
                (Metric::Kid, Some(samples), Some(others)) => kernel(samples, others, args)?,
                _ => {
                    return Err(
                        Failure::Usage(format!("{}: no features of the reference", metric.name())).into()
                    );
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

impl Metric {
    fn keeps_reference(self) -> bool {
        matches!(self, Self::Kid)
    }
}

fn distance(found: &Features, reference: &Reference, args: &EvalFid) -> Result<(Value, String)> {
    let measured = fid(&found.grouped(GROUPS)?, found.space(), &reference.law, reference.allow(args))?;
    let record = json!({
        "fid": measured.estimate.value,
        "fid_stderr": measured.estimate.standard_error,
        "fid_groups": measured.groups,
    });
    let text = estimate(&measured.estimate);
    Ok((record, format!("FID   {text}  (n = {}; error bar of {GROUPS} groups)", measured.estimate.n)))
}

fn infinity(samples: &FeatureSet, reference: &Reference, args: &EvalFid) -> Result<(Value, String)> {
    let against = reference.kept.as_ref().map_or(Against::Exact(&reference.law), Against::Features);
    let measured = LINE.fid(samples, against, reference.allow(args))?;
    let record = json!({
        "fid_infinity": measured.estimate.value,
        "fid_infinity_stderr": measured.estimate.standard_error,
        "fid_infinity_sizes": measured.sizes,
        "fid_infinity_distances": measured.distances,
    });
    let sizes: Vec<String> = measured.sizes.iter().map(ToString::to_string).collect();
    Ok((record, format!("FID∞  {}  (line through n = {})", estimate(&measured.estimate), sizes.join(", "))))
}

fn kernel(samples: &FeatureSet, others: &FeatureSet, args: &EvalFid) -> Result<(Value, String)> {
    let measured = kid(samples, others)?;
    let mut record = json!({ "kid": measured.value, "kid_stderr": measured.standard_error });
    let mut text = format!("KID   {}  (all pairs)", small(&measured));
    let (size, count) = (args.kid_subset_size, args.kid_subsets);
    // Subsets that are nearly everything say nothing.
    if 2 * size <= samples.len().min(others.len()) {
        let subsets = KidSubsets { size, count }.kid(samples, others, Noise::new(args.seed))?;
        record["kid_of_subsets"] = json!({
            "mean": subsets.estimate.value,
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

/// A small number with its standard error.
fn small(estimate: &Estimate) -> String {
    let error = estimate.standard_error.map_or(String::new(), |error| format!(" ± {error:.6}"));
    format!("{:.6}{error}", estimate.value)
}
