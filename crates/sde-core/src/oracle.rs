//! Data whose every noised marginal is known: Gaussians, mixtures of Gaussians, finite data sets.
//!
//! If the data is `Σ_k w_k N(m_k, C_k)`, then under a linear process `p_t = Σ_k w_k N(S m_k, V_k)`, `V_k = S C_k Sᵀ + Σ_t`, so log density,
//! score, Hessian, ε and x₀ are exact. With `r_k` the posterior weights, `d_k = u − S m_k`, `s_k = −V_k⁻¹ d_k`:
//!
//! `score = Σ r_k s_k`, `Hessian = Σ r_k (s_k s_kᵀ − V_k⁻¹) − score scoreᵀ`, `x₀ = Σ r_k (m_k − C_k Sᵀ s_k)`, `ε = −Rᵀ score`.
//!
//! A point mass has C = 0; for one Gaussian under a scalar process the flow is `α' m + Q √(v'/v) Qᵀ (x − α m)`.
//!
//! Reference: Zhang 2023 (thesis), Eq. (7.15); Anderson 1982 for the reverse processes these quantities drive.

use nalgebra::{DMatrix, DVector};

use crate::noise::Draws;
use crate::{Error, LinearSde, Op, Result};

/// A symmetric positive semi-definite matrix by its spectrum; no basis means the axes.
#[derive(Debug, Clone)]
struct Spectrum {
    values: DVector<f64>,
    basis: Option<DMatrix<f64>>,
}

impl Spectrum {
    fn of(matrix: DMatrix<f64>, what: &'static str) -> Result<Self> {
        let scale = matrix.amax();
        let asymmetry = (&matrix - matrix.transpose()).amax();
        if asymmetry.is_nan() || asymmetry > 1e-9 * scale {
            return Err(Error::Mismatch {
                what,
                expected: "a finite symmetric matrix".into(),
                found: format!("entries that differ by {asymmetry} across the diagonal"),
            });
        }
        let eigen = matrix.symmetric_eigen();
        let smallest = eigen.eigenvalues.min();
        if smallest < -1e-10 * scale {
            return Err(Error::Mismatch {
                what,
                expected: "a positive semi-definite matrix".into(),
                found: format!("the eigenvalue {smallest}"),
            });
        }
        Ok(Self { values: eigen.eigenvalues.map(|v| v.max(0.0)), basis: Some(eigen.eigenvectors) })
    }

    fn dense(&self) -> DMatrix<f64> {
        let diagonal = DMatrix::from_diagonal(&self.values);
        self.basis.as_ref().map_or(diagonal.clone(), |q| q * &diagonal * q.transpose())
    }

    /// `Q f(λ) Qᵀ x`.
    fn apply(&self, x: &DVector<f64>, f: impl Fn(f64) -> f64) -> DVector<f64> {
        let scaled = |x: &DVector<f64>| x.zip_map(&self.values, |x, v| x * f(v));
        self.basis.as_ref().map_or_else(|| scaled(x), |q| q * scaled(&(q.transpose() * x)))
    }
}

#[derive(Debug, Clone)]
struct Component {
    log_weight: f64,
    mean: DVector<f64>,
    covariance: Spectrum,
}

/// A component in the axes of its covariance `Q diag(v) Qᵀ`.
#[derive(Debug, Clone)]
pub(crate) struct Axes {
    pub log_weight: f64,
    pub mean: Vec<f64>,
    pub variances: Vec<f64>,
    /// Q, row by row; none means the axes of the state.
    pub basis: Option<Vec<f64>>,
}

impl Axes {
    /// Qᵀ x.
    pub(crate) fn rotated(&self, x: &[f64]) -> Vec<f64> {
        let Some(basis) = &self.basis else { return x.to_vec() };
        let column = |j: usize| basis.iter().skip(j).step_by(x.len());
        (0..x.len()).map(|j| column(j).zip(x).map(|(q, x)| q * x).sum()).collect()
    }

    /// Q x.
    pub(crate) fn back(&self, x: &[f64]) -> Vec<f64> {
        let Some(basis) = &self.basis else { return x.to_vec() };
        basis.chunks(x.len()).map(|row| row.iter().zip(x).map(|(q, x)| q * x).sum()).collect()
    }
}

/// A mixture of Gaussians on the state space, point masses included.
#[derive(Debug, Clone)]
pub struct Mixture {
    components: Vec<Component>,
}

impl Mixture {
    /// `Σ_k w_k N(m_k, C_k)`; the weights are normalised.
    ///
    /// # Shapes
    /// K weights; K means of D entries; K covariances, D×D.
    ///
    /// # Errors
    /// When shapes disagree, a weight is not positive, or a covariance is not symmetric positive semi-definite.
    pub fn new(weights: &[f64], means: &[Vec<f64>], covariances: &[DMatrix<f64>]) -> Result<Self> {
        let spectra =
            covariances.iter().map(|c| Spectrum::of(c.clone(), "covariance of a mixture component"));
        Self::assemble(weights, means, spectra.collect::<Result<_>>()?)
    }

    /// One Gaussian with independent coordinates.
    ///
    /// # Errors
    /// As [`Mixture::new`].
    pub fn diagonal(mean: Vec<f64>, variances: Vec<f64>) -> Result<Self> {
        Self::of_diagonals(&[1.0], &[mean], vec![variances])
    }

    /// A mixture whose components have independent coordinates, with these variances.
    ///
    /// # Errors
    /// As [`Mixture::new`].
    pub fn of_diagonals(weights: &[f64], means: &[Vec<f64>], variances: Vec<Vec<f64>>) -> Result<Self> {
        let wrong = |v: &&f64| !(**v >= 0.0 && v.is_finite());
        if let Some(&found) = variances.iter().flatten().find(wrong) {
            return Err(Error::Range { what: "variance", found, low: 0.0, high: f64::MAX });
        }
        let spectrum = |values| Spectrum { values: DVector::from_vec(values), basis: None };
        Self::assemble(weights, means, variances.into_iter().map(spectrum).collect())
    }

    /// Equal point masses: a finite data set, or one point.
    ///
    /// # Errors
    /// As [`Mixture::new`].
    pub fn points(points: &[Vec<f64>]) -> Result<Self> {
        let mass = |p: &Vec<f64>| Spectrum { values: DVector::zeros(p.len()), basis: None };
        Self::assemble(&vec![1.0; points.len()], points, points.iter().map(mass).collect())
    }

    fn assemble(weights: &[f64], means: &[Vec<f64>], covariances: Vec<Spectrum>) -> Result<Self> {
        let dim = means.first().map_or(0, Vec::len);
        let fits = weights.len() == means.len() && means.len() == covariances.len() && dim > 0;
        let same = means.iter().all(|m| m.len() == dim) && covariances.iter().all(|c| c.values.len() == dim);
        if !fits || !same {
            return Err(Error::Mismatch {
                what: "mixture",
                expected: "one weight, one mean and one covariance for each component, all of one dimension"
                    .into(),
                found: format!(
                    "{} weights, means of {:?} entries, covariances of {:?}",
                    weights.len(),
                    means.iter().map(Vec::len).collect::<Vec<_>>(),
                    covariances.iter().map(|c| c.values.len()).collect::<Vec<_>>()
                ),
            });
        }
        let total: f64 = weights.iter().sum();
        if let Some(&found) = weights.iter().find(|w| !(**w > 0.0 && w.is_finite())) {
            return Err(Error::Range {
                what: "mixture weight",
                found,
                low: f64::MIN_POSITIVE,
                high: f64::MAX,
            });
        }
        if let Some(&found) = means.iter().flatten().find(|m| !m.is_finite()) {
            return Err(Error::NonFinite { what: "mean of a mixture component".into(), found });
        }
        let components = weights.iter().zip(means).zip(covariances).map(|((w, m), covariance)| Component {
            log_weight: (w / total).ln(),
            mean: DVector::from_vec(m.clone()),
            covariance,
        });
        Ok(Self { components: components.collect() })
    }

    /// The law of states of `sde`: this one of the data, and zeros in the auxiliary groups, which the process spreads.
    ///
    /// # Errors
    /// When the groups do not divide D.
    pub fn lift(&self, sde: &dyn LinearSde) -> Result<Self> {
        let rest = crate::state_shape(sde, &[self.dim()])?[0] - self.dim();
        let mut lifted = self.clone();
        for component in &mut lifted.components {
            let (old, new) = (component.mean.len(), component.mean.len() + rest);
            component.mean = component.mean.clone().resize_vertically(new, 0.0);
            let Spectrum { values, basis } = &mut component.covariance;
            *values = values.clone().resize_vertically(new, 0.0);
            *basis = basis.take().map(|q| {
                let mut whole = DMatrix::identity(new, new);
                whole.view_mut((0, 0), (old, old)).copy_from(&q);
                whole
            });
        }
        Ok(lifted)
    }

    /// D.
    pub fn dim(&self) -> usize {
        self.components[0].mean.len()
    }

    /// The components, in the axes of each.
    pub(crate) fn axes(&self) -> impl Iterator<Item = Axes> {
        self.components.iter().map(|component| Axes {
            log_weight: component.log_weight,
            mean: component.mean.as_slice().to_vec(),
            variances: component.covariance.values.as_slice().to_vec(),
            basis: component.covariance.basis.as_ref().map(|q| q.transpose().as_slice().to_vec()),
        })
    }

    /// A point of the law.
    pub fn sample(&self, draws: &mut Draws) -> Vec<f64> {
        let (u, mut passed) = (draws.uniform(), 0.0);
        let before = self.components.iter().take_while(|c| {
            passed += c.log_weight.exp();
            passed < u
        });
        // The weights may add up to a rounding error less than one.
        let component = &self.components[before.count().min(self.components.len() - 1)];
        let z = DVector::from_fn(self.dim(), |_, _| draws.normal());
        let Spectrum { values, basis } = &component.covariance;
        let along = z.zip_map(values, |z, v| z * v.sqrt());
        let moved = basis.as_ref().map_or_else(|| along.clone(), |q| q * &along);
        (moved + &component.mean).as_slice().to_vec()
    }

    /// The law of the noised state at time t.
    ///
    /// # Errors
    /// When the covariance is singular (a point mass without noise), or the process has groups that do not divide D.
    pub fn marginal(&self, sde: &dyn LinearSde, t: f64) -> Result<Marginal<'_>> {
        let (signal, noise) = (sde.signal(t), sde.covariance(t));
        let parts = self.components.iter().map(|component| {
            let mean = DVector::from_vec(signal.apply_host(component.mean.as_slice())?);
            let covariance = match (signal.as_scalar(), noise.as_scalar()) {
                (Some(s), Some(n)) => Spectrum {
                    values: component.covariance.values.map(|v| s * s * v + n),
                    basis: component.covariance.basis.clone(),
                },
                _ => {
                    let (s, n) = (expand(&signal, self.dim())?, expand(&noise, self.dim())?);
                    let v = &s * component.covariance.dense() * s.transpose() + n;
                    Spectrum::of((&v + v.transpose()) * 0.5, "covariance of a noised component")?
                }
            };
            if covariance.values.min() <= 0.0 {
                return Err(Error::Undefined {
                    what: "the density of a degenerate data law",
                    t,
                    hint: "a point mass has no density without noise; stay at t > 0",
                });
            }
            let log_norm = covariance.values.map(|v| (std::f64::consts::TAU * v).ln()).sum();
            Ok(Part { source: component, mean, covariance, log_norm })
        });
        Ok(Marginal { signal: signal.clone(), factor: sde.factor(t), parts: parts.collect::<Result<_>>()? })
    }

    /// Where the probability flow carries `x` from time `from` to time `to`.
    ///
    /// # Errors
    /// [`Error::Mismatch`] unless there is one component and the process is scalar: no closed form is known otherwise.
    pub fn flow(&self, sde: &dyn LinearSde, from: f64, to: f64, x: &[f64]) -> Result<Vec<f64>> {
        let moments = |t: f64| Some((sde.signal(t).as_scalar()?, sde.covariance(t).as_scalar()?));
        let (Some((s, n)), Some((s2, n2)), [component]) =
            (moments(from), moments(to), self.components.as_slice())
        else {
            return Err(Error::Mismatch {
                what: "closed-form flow",
                expected: "one component and a scalar process".into(),
                found: format!(
                    "{} components, a signal of {}",
                    self.components.len(),
                    sde.signal(from).describe()
                ),
            });
        };
        let centred = DVector::from_row_slice(x) - &component.mean * s;
        let moved = component.covariance.apply(&centred, |v| ((s2 * s2 * v + n2) / (s * s * v + n)).sqrt());
        Ok((moved + &component.mean * s2).as_slice().to_vec())
    }
}

/// `op` as a dense matrix on `dim` entries, groups outermost.
fn expand(op: &Op, dim: usize) -> Result<DMatrix<f64>> {
    let columns = (0..dim).map(|j| {
        let unit: Vec<f64> = (0..dim).map(|i| f64::from(u8::from(i == j))).collect();
        op.apply_host(&unit).map(DVector::from_vec)
    });
    Ok(DMatrix::from_columns(&columns.collect::<Result<Vec<_>>>()?))
}

#[derive(Debug, Clone)]
struct Part<'a> {
    source: &'a Component,
    mean: DVector<f64>,
    covariance: Spectrum,
    /// log det(2πV)
    log_norm: f64,
}

impl Part<'_> {
    /// The diagonal of `I − Rᵀ V⁻¹ R`, the covariance of ε given the state and this component.
    fn noise_variance(&self, factor: &Op) -> Result<DVector<f64>> {
        let (values, dim) = (&self.covariance.values, self.mean.len());
        let seen = match (factor.as_scalar(), &self.covariance.basis) {
            (Some(sigma), None) => return Ok(values.map(|v| 1.0 - sigma * sigma / v)),
            (Some(sigma), Some(basis)) => basis.transpose() * sigma,
            (None, None) => expand(factor, dim)?,
            (None, Some(basis)) => basis.transpose() * expand(factor, dim)?,
        };
        // Row i of `seen` belongs to the eigenvalue i.
        let column = |j: usize| seen.column(j).component_div(values).dot(&seen.column(j));
        Ok(DVector::from_fn(dim, |j, _| 1.0 - column(j)))
    }
}

/// The law of the noised state at one time: exact density, score, ε and x₀.
#[derive(Debug, Clone)]
pub struct Marginal<'a> {
    signal: Op,
    factor: Op,
    parts: Vec<Part<'a>>,
}

/// What the exact law says at one state.
#[derive(Debug, Clone, PartialEq)]
pub struct Exact {
    /// log p_t(u).
    pub log_density: f64,
    /// ∇ log p_t(u).
    pub score: Vec<f64>,
    /// ε = −Rᵀ score.
    pub noise: Vec<f64>,
    /// E[x₀ | u].
    pub data: Vec<f64>,
}

impl Marginal<'_> {
    /// The posterior weights, the component scores, and the log density.
    fn posterior(&self, u: &DVector<f64>) -> (Vec<f64>, Vec<DVector<f64>>, f64) {
        let scores: Vec<DVector<f64>> =
            self.parts.iter().map(|p| p.covariance.apply(&(&p.mean - u), |v| 1.0 / v)).collect();
        let logs: Vec<f64> = (self.parts.iter().zip(&scores))
            .map(|(p, s)| p.source.log_weight - 0.5 * (p.log_norm + s.dot(&(&p.mean - u))))
            .collect();
        let top = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = logs.iter().map(|l| (l - top).exp()).sum();
        let log_density = top + total.ln();
        (logs.iter().map(|l| (l - log_density).exp()).collect(), scores, log_density)
    }

    fn state(&self, u: &[f64]) -> Result<DVector<f64>> {
        let dim = self.parts[0].mean.len();
        if u.len() == dim {
            return Ok(DVector::from_row_slice(u));
        }
        Err(Error::Mismatch {
            what: "state given to an oracle",
            expected: format!("{dim} entries"),
            found: u.len().to_string(),
        })
    }

    /// Density, score, ε and x₀ at `u`.
    ///
    /// # Errors
    /// When `u` has another dimension than the data.
    pub fn at(&self, u: &[f64]) -> Result<Exact> {
        let u = self.state(u)?;
        let (weights, scores, log_density) = self.posterior(&u);
        let signal_t = self.signal.transpose();
        let mut score = DVector::zeros(u.len());
        let mut data = DVector::zeros(u.len());
        for ((part, r), s) in self.parts.iter().zip(&weights).zip(&scores) {
            score += s * *r;
            let back = DVector::from_vec(signal_t.apply_host(s.as_slice())?);
            data += (&part.source.mean - part.source.covariance.apply(&back, |v| v)) * *r;
        }
        let noise = self.factor.transpose().scale(-1.0).apply_host(score.as_slice())?;
        Ok(Exact { log_density, score: score.as_slice().to_vec(), noise, data: data.as_slice().to_vec() })
    }

    /// The variance of each coordinate of ε given `u`: over the components, `Σ r_k [(ε_k − ε)² + diag(I − Rᵀ V_k⁻¹ R)]`.
    ///
    /// # Errors
    /// When `u` has another dimension than the data.
    pub fn noise_variance(&self, u: &[f64]) -> Result<Vec<f64>> {
        let u = self.state(u)?;
        let (weights, scores, _) = self.posterior(&u);
        let back = self.factor.transpose().scale(-1.0);
        let noise_of = |s: &DVector<f64>| back.apply_host(s.as_slice()).map(DVector::from_vec);
        let noises = scores.iter().map(noise_of).collect::<Result<Vec<_>>>()?;
        let mean = noises.iter().zip(&weights).fold(DVector::zeros(u.len()), |sum, (e, r)| sum + e * *r);
        let mut variance = DVector::zeros(u.len());
        for ((part, r), noise) in self.parts.iter().zip(&weights).zip(&noises) {
            let between = (noise - &mean).map(|e| e * e);
            variance += (between + part.noise_variance(&self.factor)?) * *r;
        }
        Ok(variance.as_slice().to_vec())
    }

    /// The Hessian of the log density at `u`, times `v`.
    ///
    /// # Errors
    /// When `u` or `v` has another dimension than the data.
    pub fn hessian_product(&self, u: &[f64], v: &[f64]) -> Result<Vec<f64>> {
        let (u, v) = (self.state(u)?, self.state(v)?);
        let (weights, scores, _) = self.posterior(&u);
        let mut score = DVector::zeros(u.len());
        let mut product = DVector::zeros(u.len());
        for ((part, r), s) in self.parts.iter().zip(&weights).zip(&scores) {
            score += s * *r;
            product += (s * s.dot(&v) - part.covariance.apply(&v, |v| 1.0 / v)) * *r;
        }
        product -= &score * score.dot(&v);
        Ok(product.as_slice().to_vec())
    }

    /// The derivative of E[x₀ | u] along `v`, transposed: `vᵀ ∂x₀/∂u`, for which `∂x₀/∂u = Cov(x₀ | u) Sᵀ Σ⁻¹`.
    ///
    /// It needs no division by the signal, so it exists where the signal is gone.
    ///
    /// # Errors
    /// When `u` or `v` has another dimension than the data, or there is no noise.
    pub fn data_vjp(&self, u: &[f64], v: &[f64]) -> Result<Vec<f64>> {
        let (u, v) = (self.state(u)?, self.state(v)?);
        let (weights, scores, _) = self.posterior(&u);
        let signal_t = self.signal.transpose();
        let mut mean = DVector::zeros(u.len());
        let mut product = DVector::zeros(u.len());
        for ((part, r), s) in self.parts.iter().zip(&weights).zip(&scores) {
            let prior = |x: &DVector<f64>| part.source.covariance.apply(x, |v| v);
            let back = |x: &DVector<f64>| signal_t.apply_host(x.as_slice()).map(DVector::from_vec);
            let component = &part.source.mean - prior(&back(s)?);
            // Cov(x₀ | u, k) v = C v − C Sᵀ V⁻¹ S C v
            let spread = prior(&v);
            let seen = DVector::from_vec(self.signal.apply_host(spread.as_slice())?);
            let explained = prior(&back(&part.covariance.apply(&seen, |v| 1.0 / v))?);
            product += (spread - explained + &component * component.dot(&v)) * *r;
            mean += component * *r;
        }
        product -= &mean * mean.dot(&v);
        let through = self.signal.apply_host(product.as_slice())?;
        self.factor.mul(&self.factor.transpose())?.inverse()?.transpose().apply_host(&through)
    }

    /// The factor R at this time.
    pub fn factor(&self) -> &Op {
        &self.factor
    }
}
