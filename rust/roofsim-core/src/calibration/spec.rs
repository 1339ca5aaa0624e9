//! Reading and writing calibration files, and what a calibration must hold to be lawful.

use super::law::{AttentionLaw, CollectiveLaw, ElementwiseLaw, GemmLaw, GroupedGemmLaw};
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
        for (dtype, law) in &self.gemm {
            check_gemm(&format!("gemm.{}", dtype.name()), *law)?;
        }
        check_attention(self.attention)?;
        check_grouped(self.grouped_gemm)?;
        if let ElementwiseLaw::Launched { launch_s, e_m } = self.elementwise {
            duration("elementwise.launch_s", launch_s)?;
            efficiency("elementwise.e_m", e_m)?;
        }
        if let CollectiveLaw::AlphaBeta { t0_s, hop_s, e_link } = self.collective {
            duration("collective.t0_s", t0_s)?;
            duration("collective.hop_s", hop_s)?;
            efficiency("collective.e_link", e_link)?;
        }
        efficiency("sustained_compute", self.sustained_compute)?;
        efficiency("sustained_memory", self.sustained_memory)?;
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

fn check_gemm(field: &str, law: GemmLaw) -> Result<()> {
    match law {
        GemmLaw::Roofline => Ok(()),
        GemmLaw::Smooth { t0_s, e_c, e_m } => {
            duration(&format!("{field}.t0_s"), t0_s)?;
            efficiency(&format!("{field}.e_c"), e_c)?;
            efficiency(&format!("{field}.e_m"), e_m)
        }
        GemmLaw::Tiled { t0_s, e_m, e_tile, half, tau_s, red_s, e_p } => {
            duration(&format!("{field}.t0_s"), t0_s)?;
            duration(&format!("{field}.tau_s"), tau_s)?;
            duration(&format!("{field}.red_s"), red_s)?;
            duration(&format!("{field}.half"), half)?;
            efficiency(&format!("{field}.e_m"), e_m)?;
            efficiency(&format!("{field}.e_p"), e_p)?;
            if e_tile > 0.0 && e_tile.is_finite() {
                Ok(())
            } else {
                Err(Error::spec(format!("{field}.e_tile"), e_tile, "must be positive"))
            }
        }
    }
}

fn check_attention(law: AttentionLaw) -> Result<()> {
    let AttentionLaw::Kernels { tile_t0_s, tile_e_c, tile_tau_s, tile_tail, split_t0_s, split_e_c, split_c_s, e_m } =
        law
    else {
        return Ok(());
    };
    for (name, value) in
        [("tile_t0_s", tile_t0_s), ("tile_tau_s", tile_tau_s), ("split_t0_s", split_t0_s), ("split_c_s", split_c_s)]
    {
        duration(&format!("attention.{name}"), value)?;
    }
    for (name, value) in [("tile_e_c", tile_e_c), ("split_e_c", split_e_c), ("e_m", e_m)] {
        efficiency(&format!("attention.{name}"), value)?;
    }
    if (0.0..=1.0).contains(&tile_tail) {
        Ok(())
    } else {
        Err(Error::spec("attention.tile_tail", tile_tail, "must be between 0 and 1"))
    }
}

fn check_grouped(law: GroupedGemmLaw) -> Result<()> {
    let GroupedGemmLaw::Loaded { t0_s, e_m, load_bytes_per_flop, e_tile } = law else { return Ok(()) };
    duration("grouped_gemm.t0_s", t0_s)?;
    efficiency("grouped_gemm.e_m", e_m)?;
    efficiency("grouped_gemm.e_tile", e_tile)?;
    if load_bytes_per_flop > 0.0 && load_bytes_per_flop.is_finite() {
        Ok(())
    } else {
        Err(Error::spec("grouped_gemm.load_bytes_per_flop", load_bytes_per_flop, "must be positive"))
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
