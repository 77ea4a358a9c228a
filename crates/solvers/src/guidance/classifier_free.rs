//! Classifier-free guidance: `p̃ = (1 + ω) p(u, y) − ω p(u, ∅)`, p any prediction, ∅ no class.
//!
//! ω = −1 is unconditional, 0 conditional, and above 0 the condition counts more than the data says. It is guidance by the network's own
//! classifier, `log p(y | u) = log p(u | y) − log p(u)`, with γ = 1 + ω. Outside an interval of times, and where ω is 0, the conditional
//! field is evaluated alone.
//!
//! **What is counted.** A solver counts an evaluation of this field as one. The network sees two rows a sample inside the interval, one outside:
//! [`ClassifierFree::passes`]. A field of doubled batches sees them in one call.
//!
//! Reference: Ho, Salimans 2022, arXiv 2207.12598, Eq. (6), whose w is ω; Kynkäänniemi et al. 2024, arXiv 2404.07724, Eq. (5), for the interval.

use std::cell::RefCell;

use candle_core::{DType, Device, Tensor};
use sde_core::{
    Cotangents, Error, Field, LinearSde, Model, ModelField, Op, Prediction, Result, combine, per_sample,
    rows_of,
};

use crate::error::in_range;

/// The times at which guidance acts: `low < t ≤ high`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    low: f64,
    high: f64,
}

impl Interval {
    /// Every time.
    pub const ALWAYS: Self = Self { low: f64::NEG_INFINITY, high: f64::INFINITY };

    /// The times above `low`, up to `high`.
    ///
    /// # Errors
    /// When an end is NaN, or they are out of order.
    pub fn of_times(low: f64, high: f64) -> crate::Result<Self> {
        in_range("low end of the guidance interval", low, f64::NEG_INFINITY, f64::INFINITY)?;
        in_range("high end of the guidance interval", high, low, f64::INFINITY)?;
        Ok(Self { low, high })
    }

    /// The noise-to-signal ratios ρ (the σ of EDM) above `low`, up to `high`; 0 and ∞ are ends that exclude nothing.
    ///
    /// # Errors
    /// When an end is negative or NaN, or they are out of order.
    pub fn of_rho(sde: &dyn LinearSde, low: f64, high: f64) -> crate::Result<Self> {
        in_range("low end of the guidance interval", low, 0.0, f64::INFINITY)?;
        in_range("high end of the guidance interval", high, low, f64::INFINITY)?;
        let time = |rho: f64| sde.time_of_clock(rho.ln());
        let low = if low == 0.0 { f64::NEG_INFINITY } else { time(low) };
        let high = if high == f64::INFINITY { high } else { time(high) };
        Ok(Self { low, high })
    }

    /// Whether guidance acts at t.
    pub fn contains(&self, t: f64) -> bool {
        self.low < t && t <= self.high
    }
}

enum Fields<C, U> {
    Two(C, U),
    Doubled { field: C, batch: usize },
}

/// A conditional field guided against the unconditional one.
pub struct ClassifierFree<C, U = C> {
    fields: Fields<C, U>,
    weight: f64,
    interval: Interval,
}

impl<C: Field, U: Field> ClassifierFree<C, U> {
    /// Guidance of `conditional` against `unconditional`, two fields of one prediction, with the weight ω inside `interval`.
    ///
    /// # Errors
    /// When the predictions differ, or the weight is not finite.
    pub fn new(conditional: C, unconditional: U, weight: f64, interval: Interval) -> crate::Result<Self> {
        in_range("guidance weight", weight, f64::MIN, f64::MAX)?;
        if conditional.prediction() != unconditional.prediction() {
            return Err(Error::Mismatch {
                what: "unconditional field of classifier-free guidance",
                expected: format!("the prediction of the conditional one, {:?}", conditional.prediction()),
                found: format!("{:?}", unconditional.prediction()),
            }
            .into());
        }
        Ok(Self { fields: Fields::Two(conditional, unconditional), weight, interval })
    }
}

impl<F: Field> ClassifierFree<F> {
    /// Guidance by one field of 2 × `batch` samples: with their conditions, then the same without. One call serves both.
    ///
    /// # Errors
    /// When the weight is not finite.
    pub fn doubled(field: F, batch: usize, weight: f64, interval: Interval) -> crate::Result<Self> {
        in_range("guidance weight", weight, f64::MIN, f64::MAX)?;
        Ok(Self { fields: Fields::Doubled { field, batch }, weight, interval })
    }
}

impl<M: Model> ClassifierFree<ModelField<M>> {
    /// Guidance of a network with `classes` classes, for which the label `classes` means none, towards a label for each sample.
    ///
    /// `dtype` and `device` are those of its parameters.
    ///
    /// # Errors
    /// When a label is no class of the network, or the weight is not finite.
    pub fn of_model(
        model: M,
        (dtype, device): (DType, &Device),
        labels: &[u32],
        classes: usize,
        weight: f64,
        interval: Interval,
    ) -> crate::Result<Self> {
        if let Some(label) = labels.iter().find(|&&label| label as usize >= classes) {
            return Err(Error::Mismatch {
                what: "label of a sample",
                expected: format!("a class of the network, 0 to {}", classes.saturating_sub(1)),
                found: label.to_string(),
            }
            .into());
        }
        let none = std::iter::repeat_n(classes as u32, labels.len());
        let both: Vec<u32> = labels.iter().copied().chain(none).collect();
        let field = ModelField::new(model, dtype, device).with_labels(Tensor::new(both, device)?);
        Self::doubled(field, labels.len(), weight, interval)
    }
}

/// Which rows of a batch are guided, and their times.
struct Plan {
    times: Vec<f64>,
    batch: usize,
    inside: Vec<usize>,
}

impl Plan {
    /// The times of the conditional rows, then of the unconditional ones.
    fn doubled_times(&self) -> Vec<f64> {
        if self.times.len() == 1 {
            return self.times.clone();
        }
        self.times.iter().copied().chain(self.inside_times()).collect()
    }

    fn inside_times(&self) -> Vec<f64> {
        if self.times.len() == 1 {
            return self.times.clone();
        }
        self.inside.iter().map(|&i| self.times[i]).collect()
    }

    fn is_full(&self) -> bool {
        self.inside.len() == self.batch
    }

    /// The guided rows of a tensor.
    fn narrow(&self, x: &Tensor) -> Result<Tensor> {
        if self.is_full() { Ok(x.clone()) } else { rows_of(x, &self.inside) }
    }

    /// All rows, then the guided ones again.
    fn stacked(&self, x: &Tensor) -> Result<Tensor> {
        if self.inside.is_empty() { Ok(x.clone()) } else { Ok(Tensor::cat(&[x, &self.narrow(x)?], 0)?) }
    }

    /// `x`, with `part` added to the guided rows.
    fn add(&self, x: &Tensor, part: &Tensor) -> Result<Tensor> {
        if self.is_full() {
            return Ok((x + part)?);
        }
        let index: Vec<u32> = self.inside.iter().map(|&i| i as u32).collect();
        Ok(x.index_add(&Tensor::new(index, x.device())?, part, 0)?)
    }

    /// `c + ω (c − u)` in the guided rows, c elsewhere.
    fn guided(&self, c: &Tensor, u: &Tensor, weight: f64) -> Result<Tensor> {
        let (more, less) = (Op::Scalar(1.0 + weight), Op::Scalar(-weight));
        if self.is_full() {
            return Ok(combine(&[(&more, c), (&less, u)])?.sum);
        }
        self.add(c, &((self.narrow(c)? - u)? * weight)?)
    }
}

impl<C: Field, U: Field> ClassifierFree<C, U> {
    /// How many rows a sample costs the network at time t: 2 inside the interval, 1 outside or with weight 0.
    pub fn passes(&self, t: f64) -> usize {
        if self.weight != 0.0 && self.interval.contains(t) { 2 } else { 1 }
    }

    fn plan(&self, x: &Tensor, t: &[f64]) -> Result<Plan> {
        let batch = x.dim(0)?;
        let times = if t.len() == 1 { t.to_vec() } else { per_sample(t, batch)? };
        let time = |i: usize| if times.len() == 1 { times[0] } else { times[i] };
        let inside = (0..batch).filter(|&i| self.passes(time(i)) == 2).collect();
        if let Fields::Doubled { batch: expected, .. } = self.fields
            && batch != expected
        {
            return Err(Error::Mismatch {
                what: "batch of a guided field",
                expected: format!("{expected} samples, as many as it has labels"),
                found: batch.to_string(),
            });
        }
        Ok(Plan { times, batch, inside })
    }
}

/// The field of the rows of a doubled batch that are needed, if not of all.
fn needed<'a, F: Field>(field: &'a F, plan: &Plan) -> Result<Option<Box<dyn Field + 'a>>> {
    if plan.is_full() {
        return Ok(None);
    }
    let rows: Vec<usize> = (0..plan.batch).chain(plan.inside.iter().map(|i| i + plan.batch)).collect();
    field.restrict(&rows)
}

impl<C: Field, U: Field> Field for ClassifierFree<C, U> {
    fn prediction(&self) -> Prediction {
        match &self.fields {
            Fields::Two(field, _) | Fields::Doubled { field, .. } => field.prediction(),
        }
    }

    fn eval(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        let plan = self.plan(x, t)?;
        match &self.fields {
            Fields::Two(conditional, unconditional) => self.eval_two(conditional, unconditional, &plan, x),
            Fields::Doubled { field, .. } => self.eval_doubled(field, &plan, x),
        }
    }

    fn pull_back(&self, x: &Tensor, t: &[f64], cotangents: &Cotangents<'_>) -> Result<(Tensor, Vec<Tensor>)> {
        let plan = self.plan(x, t)?;
        match &self.fields {
            Fields::Two(conditional, unconditional) => {
                self.pull_back_two(conditional, unconditional, &plan, x, cotangents)
            }
            Fields::Doubled { field, .. } => self.pull_back_doubled(field, &plan, x, cotangents),
        }
    }

    fn restrict<'b>(&'b self, samples: &[usize]) -> Result<Option<Box<dyn Field + 'b>>> {
        let (weight, interval) = (self.weight, self.interval);
        match &self.fields {
            Fields::Two(conditional, unconditional) => {
                let parts = (conditional.restrict(samples)?, unconditional.restrict(samples)?);
                if let (None, None) = parts {
                    return Ok(None);
                }
                let conditional = parts.0.unwrap_or_else(|| Box::new(conditional));
                let unconditional = parts.1.unwrap_or_else(|| Box::new(unconditional));
                let fields = Fields::Two(conditional, unconditional);
                Ok(Some(Box::new(ClassifierFree { fields, weight, interval })))
            }
            Fields::Doubled { field, batch } => {
                let rows: Vec<usize> =
                    samples.iter().copied().chain(samples.iter().map(|i| i + batch)).collect();
                let field = field.restrict(&rows)?.unwrap_or_else(|| Box::new(field));
                let fields: Fields<_, Box<dyn Field + 'b>> = Fields::Doubled { field, batch: samples.len() };
                Ok(Some(Box::new(ClassifierFree { fields, weight, interval })))
            }
        }
    }
}

impl<C: Field, U: Field> ClassifierFree<C, U> {
    fn eval_two(&self, conditional: &C, unconditional: &U, plan: &Plan, x: &Tensor) -> Result<Tensor> {
        let c = conditional.eval(x, &plan.times)?;
        if plan.inside.is_empty() {
            return Ok(c);
        }
        let fewer = if plan.is_full() { None } else { unconditional.restrict(&plan.inside)? };
        let (x, times) = (plan.narrow(x)?, plan.inside_times());
        let u = match fewer {
            Some(field) => field.eval(&x, &times)?,
            None => unconditional.eval(&x, &times)?,
        };
        plan.guided(&c, &u, self.weight)
    }

    fn eval_doubled(&self, field: &C, plan: &Plan, x: &Tensor) -> Result<Tensor> {
        let (fewer, stacked, times) = (needed(field, plan)?, plan.stacked(x)?, plan.doubled_times());
        let value = match fewer {
            Some(field) => field.eval(&stacked, &times)?,
            None => field.eval(&stacked, &times)?,
        };
        if plan.inside.is_empty() {
            return Ok(value);
        }
        let c = value.narrow(0, 0, plan.batch)?;
        plan.guided(&c, &value.narrow(0, plan.batch, plan.inside.len())?, self.weight)
    }

    /// One evaluation of each field, that of the unconditional one inside that of the conditional one.
    fn pull_back_two(
        &self,
        conditional: &C,
        unconditional: &U,
        plan: &Plan,
        x: &Tensor,
        cotangents: &Cotangents<'_>,
    ) -> Result<(Tensor, Vec<Tensor>)> {
        if plan.inside.is_empty() {
            return conditional.pull_back(x, &plan.times, cotangents);
        }
        let fewer = if plan.is_full() { None } else { unconditional.restrict(&plan.inside)? };
        let (inner_x, inner_times) = (plan.narrow(x)?, plan.inside_times());
        // The guided value, the cotangents it was given, and the products of the unconditional part.
        let made = RefCell::new((None, Vec::new()));
        let through = |c: &Tensor| {
            let asked = RefCell::new(Vec::new());
            let inner = |u: &Tensor| {
                let value = plan.guided(c, u, self.weight)?;
                let vs = cotangents(&value)?;
                made.borrow_mut().0 = Some(value);
                let pulled = vs.iter().map(|v| Ok((plan.narrow(v)? * -self.weight)?)).collect();
                asked.replace(vs);
                pulled
            };
            let (_, products) = match &fewer {
                Some(field) => field.pull_back(&inner_x, &inner_times, &inner)?,
                None => unconditional.pull_back(&inner_x, &inner_times, &inner)?,
            };
            made.borrow_mut().1 = products;
            let asked = asked.into_inner();
            asked.iter().map(|v| plan.add(v, &(plan.narrow(v)? * self.weight)?)).collect()
        };
        let (_, products) = conditional.pull_back(x, &plan.times, &through)?;
        let (value, parts) = made.into_inner();
        let products = products.iter().zip(&parts).map(|(product, part)| plan.add(product, part));
        Ok((value.ok_or(UNUSED)?, products.collect::<Result<_>>()?))
    }

    /// One evaluation of the field of doubled batches.
    fn pull_back_doubled(
        &self,
        field: &C,
        plan: &Plan,
        x: &Tensor,
        cotangents: &Cotangents<'_>,
    ) -> Result<(Tensor, Vec<Tensor>)> {
        let fewer = needed(field, plan)?;
        let (batch, guided) = (plan.batch, plan.inside.len());
        let stacked = plan.stacked(x)?;
        let made = RefCell::new(None);
        let through = |value: &Tensor| {
            let c = value.narrow(0, 0, batch)?;
            if guided == 0 {
                let vs = cotangents(&c)?;
                made.replace(Some(c));
                return Ok(vs);
            }
            let value = plan.guided(&c, &value.narrow(0, batch, guided)?, self.weight)?;
            let pulled = cotangents(&value)?.into_iter().map(|v| {
                let inside = (plan.narrow(&v)? * self.weight)?;
                Ok(Tensor::cat(&[plan.add(&v, &inside)?, inside.neg()?], 0)?)
            });
            let pulled = pulled.collect::<Result<Vec<_>>>()?;
            made.replace(Some(value));
            Ok(pulled)
        };
        let times = plan.doubled_times();
        let (_, products) = match &fewer {
            Some(field) => field.pull_back(&stacked, &times, &through)?,
            None => field.pull_back(&stacked, &times, &through)?,
        };
        let halves = products.iter().map(|product| {
            let conditional = product.narrow(0, 0, batch)?;
            if guided == 0 {
                return Ok(conditional);
            }
            plan.add(&conditional, &product.narrow(0, batch, guided)?)
        });
        Ok((made.into_inner().ok_or(UNUSED)?, halves.collect::<Result<_>>()?))
    }
}

const UNUSED: Error = Error::NoGradient { hint: "`pull_back` of the field must ask for its cotangents" };
