//! Solves as csv, a row each, `index,repeat,log_density,nfe,outcome,stderr` in nats: what an evaluation writes as
//! it goes, and reads again when it goes on.
//!
//! The density of an unfinished solve is empty, and so is the standard error of a value that has none. Numbers are
//! written so that they come back to the last bit.

use std::fmt::Write as _;
use std::io;

use sde_solvers::Outcome;

use crate::{Error, LogDensity, Nll, Result, Solve};

const OUTCOMES: [(Outcome, &str); 4] = [
    (Outcome::Finished, "finished"),
    (Outcome::StepTooSmall, "step_too_small"),
    (Outcome::NfeCap, "nfe_cap"),
    (Outcome::NonFinite, "non_finite"),
];

impl Solve {
    /// The first line of a file.
    pub const CSV_HEADER: &str = "index,repeat,log_density,nfe,outcome,stderr\n";

    /// Its row, the end of the line included.
    pub fn to_csv(&self) -> String {
        let LogDensity { value, standard_error, nfe, outcome } = self.result;
        let name = OUTCOMES.iter().find(|(known, _)| *known == outcome).map_or("", |(_, name)| name);
        let mut row = format!("{},{},", self.index, self.repeat);
        let mut number = |value: Option<f64>, end: &str| {
            // Writing to a string does not fail.
            let _ = value.map_or(Ok(()), |v| write!(row, "{v}"));
            row.push_str(end);
        };
        number(value, &format!(",{nfe},{name},"));
        number(standard_error, "\n");
        row
    }

    /// The solve of a row.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for a row that is not of this form.
    pub fn from_csv(row: &str) -> Result<Self> {
        let parsed = || {
            let fields: Vec<&str> = row.trim_end_matches(['\n', '\r']).split(',').collect();
            let [index, repeat, value, nfe, outcome, error] = fields.as_slice() else { return None };
            let number =
                |text: &str| if text.is_empty() { Some(None) } else { Some(Some(text.parse().ok()?)) };
            let result = LogDensity {
                value: number(value)?,
                standard_error: number(error)?,
                nfe: nfe.parse().ok()?,
                outcome: OUTCOMES.iter().find(|(_, name)| name == outcome)?.0,
            };
            Some(Self { index: index.parse().ok()?, repeat: repeat.parse().ok()?, result })
        };
        parsed()
            .ok_or_else(|| Error::mismatch("row of solves", Self::CSV_HEADER.trim_end(), format!("{row:?}")))
    }
}

impl Nll {
    /// Writes every solve, under the header.
    ///
    /// # Errors
    /// Whatever the writer refuses.
    pub fn write_csv(&self, mut to: impl io::Write) -> io::Result<()> {
        to.write_all(Solve::CSV_HEADER.as_bytes())?;
        self.solves.iter().try_for_each(|solve| to.write_all(solve.to_csv().as_bytes()))?;
        to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_to_the_last_bit() -> Result<()> {
        let numbers = [None, Some(-1.0 / 3.0), Some(f64::MIN_POSITIVE), Some(-1e300), Some(5.0)];
        for (i, value) in numbers.into_iter().enumerate() {
            for (outcome, _) in OUTCOMES {
                let result = LogDensity { value, standard_error: numbers[(i + 1) % 5], nfe: 7 * i, outcome };
                let solve = Solve { index: i, repeat: 3, result };
                assert_eq!(Solve::from_csv(&solve.to_csv())?, solve);
            }
        }
        for row in
            ["", "1,2", "1,2,0.5,3,finished", "1,2,0.5,3,done,", "1,2,x,3,finished,", "1,-2,0,3,finished,"]
        {
            assert!(matches!(Solve::from_csv(row), Err(Error::Mismatch { .. })), "{row}");
        }
        Ok(())
    }
}
