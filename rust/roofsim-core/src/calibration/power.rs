//! Energy of a step from three measured powers.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A load held for a second or so.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SteadyLoad {
    /// Mean power, watts.
    pub power_w: f64,
    /// Arithmetic over the datasheet peak.
    pub compute_share: f64,
    /// Memory traffic over the datasheet bandwidth.
    pub memory_share: f64,
}

/// What one device draws, watts: `E = idle t + compute F/P + memory bytes/W`, each F at the peak of its own dtype.
///
/// Measured by the energy counter over a second each: idle, a steady read of device memory, a steady large GEMM.
/// Leaves out links, the host, and clocks that a power limit lowers (their time is in t).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Power {
    /// Drawn whatever runs.
    pub idle_w: f64,
    /// Drawn beyond idle by arithmetic at the datasheet peak.
    pub compute_w: f64,
    /// Drawn beyond idle by memory traffic at the datasheet bandwidth.
    pub memory_w: f64,
}

impl Power {
    /// Joules of one device that spends `time_s`, of which its arithmetic takes `peak_compute_s` at the datasheet peak
    /// and its traffic `peak_memory_s` at the datasheet bandwidth.
    pub fn energy_j(&self, time_s: f64, peak_compute_s: f64, peak_memory_s: f64) -> f64 {
        self.idle_w * time_s + self.compute_w * peak_compute_s + self.memory_w * peak_memory_s
    }

    /// The powers that explain three steady measurements: idle, a read, a GEMM; each of the last two with the watts
    /// drawn, and its arithmetic and traffic as shares of the datasheet rates.
    pub fn from_steady(idle_w: f64, read: SteadyLoad, gemm: SteadyLoad) -> Result<Self> {
        // Two equations: watts - idle = compute * (F/P)/t + memory * (bytes/W)/t.
        let determinant = read.compute_share * gemm.memory_share - gemm.compute_share * read.memory_share;
        let (read_w, gemm_w) = (read.power_w - idle_w, gemm.power_w - idle_w);
        let compute_w = (read_w * gemm.memory_share - gemm_w * read.memory_share) / determinant;
        let memory_w = (read.compute_share * gemm_w - gemm.compute_share * read_w) / determinant;
        let power = Self { idle_w, compute_w, memory_w };
        power.check()?;
        Ok(power)
    }

    /// Refuses powers that no device has.
    pub(super) fn check(&self) -> Result<()> {
        for (name, watts) in [("idle_w", self.idle_w), ("compute_w", self.compute_w), ("memory_w", self.memory_w)] {
            if !(watts >= 0.0 && watts.is_finite()) {
                return Err(Error::spec(format!("power.{name}"), watts, "must be finite and at least 0"));
            }
        }
        Ok(())
    }
}
