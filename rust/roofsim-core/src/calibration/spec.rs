//! Reading and writing calibration files, and what a calibration must hold to be lawful.

use super::{Calibration, Interval};
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
            if !constant.parameter.domain.holds(constant.value) {
                return Err(Error::spec(constant.path, constant.value, constant.parameter.domain.rule()));
            }
        }
        self.check_intervals()
    }

    fn check_intervals(&self) -> Result<()> {
        let bars = &self.intervals;
        efficiency("intervals.coverage", bars.coverage)?;
        let named = [
            ("gemm", bars.gemm),
            ("attention", bars.attention),
            ("grouped_gemm", bars.grouped_gemm),
            ("elementwise", bars.elementwise),
            ("collective", bars.collective),
        ];
        for (name, Interval { below, above }) in named {
            if !(0.0..1.0).contains(&below) {
                return Err(Error::spec(format!("intervals.{name}.below"), below, "must be at least 0 and below 1"));
            }
            duration(&format!("intervals.{name}.above"), above)?;
        }
        Ok(())
    }
}

fn efficiency(field: &str, value: f64) -> Result<()> {
    if value > 0.0 && value <= 1.0 { Ok(()) } else { Err(Error::spec(field, value, "must be above 0 and at most 1")) }
}

fn duration(field: &str, value: f64) -> Result<()> {
    if value >= 0.0 && value.is_finite() {
        Ok(())
    } else {
        Err(Error::spec(field, value, "must be finite and at least 0"))
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(40).collect()
}
