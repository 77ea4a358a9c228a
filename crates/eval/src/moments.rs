//! Mean and covariance of features that stream by and are not held.
//!
//! Blocks of b rows with mean `m_b` join n rows with mean m by
//!
//! `S ← S + Σ_b (x − m_b)(x − m_b)ᵀ + (n b / (n + b)) δ δᵀ`,  `m ← m + (b / (n + b)) δ`,  `δ = m_b − m`,
//!
//! in f64: every block is centred by itself, so nothing cancels however far the mean is from zero. Blocks are always of
//! the same size, filled up by whatever comes: the result does not depend, bit for bit, on the batches the rows came in, nor on where
//! a run was interrupted.
//!
//! Reference: Chan, Golub, LeVeque 1983, doi 10.1080/00031305.1983.10483115, Eq. (1.5).

use candle_core::Tensor;
use faer::Mat;

use crate::rows::Rows;
use crate::{Error, Result, matrix};

/// Rows taken in together.
const BLOCK: usize = 256;
/// What saved moments begin with.
const MAGIC: &[u8; 16] = b"sde-eval moments";

/// The first two moments of the rows so far.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    dim: usize,
    /// Rows in `mean` and `scatter`.
    taken: usize,
    mean: Vec<f64>,
    /// `Σ (x − m)(x − m)ᵀ`, lower triangle.
    scatter: Mat<f64>,
    /// Rows that do not fill a block yet.
    waiting: Vec<f64>,
}

impl Moments {
    /// Of no rows of `dim` entries yet.
    pub fn new(dim: usize) -> Self {
        let (mean, scatter) = (vec![0.0; dim], Mat::zeros(dim, dim));
        Self { dim, taken: 0, mean, scatter, waiting: Vec::new() }
    }

    /// Entries of a row.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The number of rows so far.
    pub fn len(&self) -> usize {
        self.taken + self.waiting.len().checked_div(self.dim).unwrap_or(0)
    }

    /// Whether there was no row yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes in rows.
    ///
    /// # Shapes
    /// `features` `[B, dim]`.
    ///
    /// # Errors
    /// For another shape, and for entries that are not finite; then nothing was taken in.
    pub fn push(&mut self, features: &Tensor) -> Result<()> {
        let rows = Rows::new(features, "features")?;
        self.check_dim(rows.dim())?;
        (0..rows.len()).for_each(|i| self.push_row(rows.row(i)));
        Ok(())
    }

    fn check_dim(&self, found: usize) -> Result<()> {
        if found == self.dim {
            return Ok(());
        }
        Err(Error::mismatch("features", format!("{} entries each", self.dim), found))
    }

    /// Takes in a finite row of the right length.
    pub(crate) fn push_row(&mut self, row: &[f64]) {
        self.waiting.extend_from_slice(row);
        if self.waiting.len() == BLOCK * self.dim {
            self.settle();
        }
    }

    /// Takes in what is waiting.
    fn settle(&mut self) {
        let rows = std::mem::take(&mut self.waiting);
        let count = rows.len().checked_div(self.dim).unwrap_or(0);
        if count == 0 {
            return;
        }
        let mut mean = vec![0.0; self.dim];
        for row in rows.chunks(self.dim) {
            mean.iter_mut().zip(row).for_each(|(m, x)| *m += x / count as f64);
        }
        let (n, b) = (self.taken as f64, count as f64);
        let weight = (n * b / (n + b)).sqrt();
        // Rows stand as columns; the last one is the step between the means.
        let joined = Mat::from_fn(self.dim, count + 1, |i, k| match k == count {
            true => weight * (mean[i] - self.mean[i]),
            false => rows[k * self.dim + i] - mean[i],
        });
        matrix::add_gram(self.scatter.as_mut(), joined.as_ref());
        self.join_means(&mean, count);
    }

    fn join_means(&mut self, mean: &[f64], count: usize) {
        let part = count as f64 / (self.taken + count) as f64;
        self.mean.iter_mut().zip(mean).for_each(|(m, other)| *m += part * (other - *m));
        self.taken += count;
    }

    /// The moments of these rows and those of `other` together; equal to having taken in all rows up to rounding.
    ///
    /// # Errors
    /// For rows of another length.
    pub fn merged(&self, other: &Self) -> Result<Self> {
        self.check_dim(other.dim)?;
        let (mut all, mut other) = (self.clone(), other.clone());
        all.settle();
        other.settle();
        if other.taken == 0 {
            return Ok(all);
        }
        let (n, b) = (all.taken as f64, other.taken as f64);
        let weight = (n * b / (n + b)).sqrt();
        let step = Mat::from_fn(all.dim, 1, |i, _| weight * (other.mean[i] - all.mean[i]));
        all.scatter += &other.scatter;
        matrix::add_gram(all.scatter.as_mut(), step.as_ref());
        all.join_means(&other.mean, other.taken);
        Ok(all)
    }

    /// Mean and unbiased covariance (divisor n − 1).
    ///
    /// # Errors
    /// For fewer than two rows.
    pub(crate) fn mean_and_covariance(&self) -> Result<(Vec<f64>, Mat<f64>)> {
        let n = self.len();
        if n < 2 {
            return Err(Error::mismatch("rows behind a covariance", "at least 2", n));
        }
        let mut all = self.clone();
        all.settle();
        let entry = |i: usize, j: usize| all.scatter[(i.max(j), i.min(j))] / (n - 1) as f64;
        let covariance = Mat::from_fn(self.dim, self.dim, entry);
        Ok((all.mean, covariance))
    }

    /// Everything, as bytes that [`from_bytes`](Self::from_bytes) reads: equal moments are equal bytes. There is no hash in them.
    pub fn to_bytes(&self) -> Vec<u8> {
        let counts = [self.dim, self.taken, self.waiting.len()].map(|count| count as u64);
        let lower = (0..self.dim).flat_map(|j| (j..self.dim).map(move |i| self.scatter[(i, j)]));
        let numbers = self.mean.iter().copied().chain(lower).chain(self.waiting.iter().copied());
        let counts = counts.iter().flat_map(|count| count.to_le_bytes());
        MAGIC.iter().copied().chain(counts).chain(numbers.flat_map(f64::to_le_bytes)).collect()
    }

    /// What [`to_bytes`](Self::to_bytes) wrote, bit for bit.
    ///
    /// # Errors
    /// Unless the bytes are exactly that.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let wrong =
            |found: String| Error::mismatch("saved moments", "what `Moments::to_bytes` writes", found);
        let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| wrong("another beginning".into()))?;
        let (words, tail) = rest.as_chunks::<8>();
        let [dim, taken, waiting, numbers @ ..] = words else {
            return Err(wrong(format!("{} bytes", bytes.len())));
        };
        let [dim, taken, waiting] = [dim, taken, waiting].map(|word| u64::from_le_bytes(*word) as usize);
        let triangle = dim.checked_add(1).and_then(|next| next.checked_mul(dim)).map(|twice| twice / 2);
        let expected = triangle.and_then(|t| t.checked_add(dim)?.checked_add(waiting));
        // More rows than f64 counts were never taken.
        let taken = if taken as u64 > 1 << 53 { return Err(wrong(format!("{taken} rows"))) } else { taken };
        let whole = waiting.checked_rem(dim).unwrap_or(waiting) == 0 && waiting < BLOCK.saturating_mul(dim);
        if expected != Some(numbers.len()) || !tail.is_empty() || !(whole || waiting == 0) {
            let found = format!("{} bytes for {dim} entries a row, {waiting} numbers waiting", bytes.len());
            return Err(wrong(found));
        }
        let numbers: Vec<f64> = numbers.iter().map(|word| f64::from_le_bytes(*word)).collect();
        if let Some(found) = numbers.iter().find(|number| !number.is_finite()) {
            return Err(wrong(found.to_string()));
        }
        let (mean, rest) = numbers.split_at(dim);
        let (lower, waiting) = rest.split_at(rest.len() - waiting);
        // Column j of the lower triangle begins behind those before it.
        let at = |i: usize, j: usize| j * dim - j * j.saturating_sub(1) / 2 + i - j;
        let scatter = Mat::from_fn(dim, dim, |i, j| if i >= j { lower[at(i, j)] } else { 0.0 });
        Ok(Self { dim, taken, mean: mean.to_vec(), scatter, waiting: waiting.to_vec() })
    }
}

/// The moments of disjoint groups of the same rows, dealt in turn: what gives a distance its error bar.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupedMoments {
    groups: Vec<Moments>,
}

impl GroupedMoments {
    /// `groups` of no rows of `dim` entries yet.
    ///
    /// # Errors
    /// For no group.
    pub fn new(dim: usize, groups: usize) -> Result<Self> {
        if groups == 0 {
            return Err(Error::mismatch("groups of samples", "at least 1", 0));
        }
        Ok(Self { groups: vec![Moments::new(dim); groups] })
    }

    /// The number of rows so far.
    pub fn len(&self) -> usize {
        self.groups.iter().map(Moments::len).sum()
    }

    /// Whether there was no row yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Deals out rows: row k goes to group k modulo the number of groups.
    ///
    /// # Shapes
    /// `features` `[B, dim]`.
    ///
    /// # Errors
    /// As [`Moments::push`].
    pub fn push(&mut self, features: &Tensor) -> Result<()> {
        let rows = Rows::new(features, "features")?;
        let (first, groups) = (self.len(), self.groups.len());
        self.groups[0].check_dim(rows.dim())?;
        (0..rows.len()).for_each(|i| self.groups[(first + i) % groups].push_row(rows.row(i)));
        Ok(())
    }

    /// Each group by itself.
    pub fn groups(&self) -> &[Moments] {
        &self.groups
    }

    /// All rows together.
    ///
    /// # Errors
    /// None but those of [`Moments::merged`].
    pub fn total(&self) -> Result<Moments> {
        let (first, others) = (self.groups[0].clone(), &self.groups[1..]);
        others.iter().try_fold(first, |all, group| all.merged(group))
    }

    /// As [`Moments::to_bytes`].
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = (self.groups.len() as u64).to_le_bytes().to_vec();
        for group in &self.groups {
            let group = group.to_bytes();
            bytes.extend((group.len() as u64).to_le_bytes());
            bytes.extend(group);
        }
        bytes
    }

    /// As [`Moments::from_bytes`].
    ///
    /// # Errors
    /// Unless the bytes are exactly what [`to_bytes`](Self::to_bytes) wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let wrong =
            |found: &str| Error::mismatch("saved moments", "what `GroupedMoments::to_bytes` writes", found);
        let number = |bytes: &[u8]| bytes.first_chunk::<8>().map(|word| u64::from_le_bytes(*word));
        let count = number(bytes).ok_or_else(|| wrong("too few bytes"))?;
        let (mut groups, mut rest) = (Vec::new(), &bytes[8..]);
        while !rest.is_empty() {
            let length = number(rest).and_then(|length| usize::try_from(length).ok());
            let split = length.and_then(|length| rest[8..].split_at_checked(length));
            let (group, after) = split.ok_or_else(|| wrong("the end within a group"))?;
            groups.push(Moments::from_bytes(group)?);
            rest = after;
        }
        let alike = groups.iter().zip(groups.iter().skip(1)).all(|(a, b)| a.dim == b.dim);
        if groups.is_empty() || groups.len() as u64 != count || !alike {
            return Err(wrong("another number of groups, or groups of different rows"));
        }
        Ok(Self { groups })
    }
}
