//! The exponential midpoint rule: a DDIM step half way in the clock, then the whole step with the noise found there.
//!
//! With m between t and t', half way in log ρ: `u_m = Ψ(m,t) u + D(m,t) ε_t`, `u' = Ψ(t',t) u + D(t',t) ε_m`,
//! `D(b,a) = R_b − Ψ(b,a) R_a`. As rows of a table the second is `u' = Ψ(t',m) u_m + D(t',t) ε_m − Ψ(t',m) D(m,t) ε_t`.
//!
//! Reference: Lu et al. 2022, arXiv 2206.00927, Algorithm 1 (DPM-Solver-2).
//! Differs: for any linear process.

use sde_core::{LinearSde, Prediction, TimeGrid};
use sde_solvers::{Multistep, Result, Table, Update};

/// The rule; two evaluations a step of the grid.
pub struct Midpoint;

impl Multistep for Midpoint {
    fn name(&self) -> &'static str {
        "midpoint"
    }

    fn table(&self, sde: &dyn LinearSde, grid: &TimeGrid) -> Result<Table> {
        let ddim = |to: f64, from: f64| sde.factor(to).sub(&sde.transition(to, from).mul(&sde.factor(from))?);
        let mut updates = Vec::new();
        for (step, pair) in grid.times().windows(2).enumerate() {
            let (from, to) = (pair[0], pair[1]);
            let middle = sde.time_of_clock(0.5 * (sde.clock(from) + sde.clock(to)));
            let row = |from, to, terms| Update::new(from, to, sde.transition(to, from), terms).of_step(step);
            updates.push(row(from, middle, vec![ddim(middle, from)?]));
            let undo = sde.transition(to, middle).mul(&ddim(middle, from)?)?.scale(-1.0);
            updates.push(row(middle, to, vec![ddim(to, from)?, undo]));
        }
        Ok(Table { of: Prediction::Noise, updates })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};
    use sde_core::noise::{BatchNoise, Noise};
    use sde_core::{OracleField, oracle::Mixture};

    use super::*;
    use crate::process::OrnsteinUhlenbeck;

    #[test]
    fn the_sampler_is_of_second_order() -> Result<()> {
        let (sde, data) = (OrnsteinUhlenbeck { beta: 10.0 }, Mixture::diagonal(vec![0.7], vec![0.25])?);
        let exact = data.flow(&sde, 0.6, 0.1, &[1.3])?[0];
        let error = |steps| -> Result<f64> {
            let table = Midpoint.table(&sde, &TimeGrid::uniform(0.6, 0.1, steps)?)?;
            let (x, noise) = (Tensor::new(&[[1.3]], &Device::Cpu)?, BatchNoise::new(Noise::new(0), 0, [0]));
            let end = table.sample(&sde, &OracleField::noise(&data, &sde), &x, &noise)?.x;
            Ok((end.flatten_all()?.to_vec1::<f64>()?[0] - exact).abs())
        };
        let order = (error(50)? / error(100)?).log2();
        assert!((order - 2.0).abs() < 0.1, "order {order}");
        Ok(())
    }
}
