//! Reading and writing calibration files, and what a calibration must hold to be lawful.

use super::Calibration;
use crate::error::{Error, Result};

impl Calibration {
    /// Reads a calibration file. Efficiencies must lie in (0, 1] and overheads must not be negative: that is what keeps
    /// calibrated time at or above ideal time.
    pub fn from_json(text: &str) -> Result<Self> {
        let calibration: Self = serde_json::from_str(text)
            .map_err(|error| Error::spec("calibration", shorten(text), format!("not a calibration file: {error}")))?;
        calibration.check()?;
        Ok(calibration)
    }

    /// Writes it as JSON that [`Self::from_json`] reads back equal.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// Refuses constants that would break a law.
    pub fn check(&self) -> Result<()> {
        if self.name.trim().is_empty() {
            return Err(Error::spec("name", format!("{:?}", self.name), "must not be empty"));
        }
        for constant in self.constants()? {
            if let Some(rule) = constant.parameter.broken_by(constant.value) {
                return Err(Error::spec(constant.path, constant.value, rule));
            }
        }
        if let Some(power) = &self.power {
            power.check()?;
        }
        self.intervals.check()
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(40).collect()
}
