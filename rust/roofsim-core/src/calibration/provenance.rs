//! How the constants of a calibration were obtained, and how well they did.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How the constants were obtained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// `ideal`, `assumed`, `measured` (by this tool), `published` (fitted to tables that others published) or `borrowed`.
    pub basis: String,
    /// Catalogue name of the device that was measured; empty for `ideal` and `assumed`.
    pub device: String,
    /// Its architecture family.
    #[serde(default)]
    pub family: String,
    /// Its datasheet bandwidth: a device of the same name with another datasheet is another device.
    #[serde(default)]
    pub memory_bandwidth_bytes_per_s: f64,
    /// Its number of compute units, where known.
    #[serde(default)]
    pub num_compute_units: Option<u64>,
    /// Software and driver versions.
    pub software: String,
    /// Date of the measurements.
    pub date: String,
    /// Measured points behind the fit.
    pub num_points: u64,
    /// Errors by class and operand type, `gemm.bf16`.
    #[serde(default)]
    pub errors: BTreeMap<String, ClassError>,
    /// What a reader must know.
    pub note: String,
}

/// How far a class was off, in percent of the measured time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassError {
    /// Points fitted.
    pub num_points: u64,
    /// Points left out of fit and score: below the bare roofline, or without a correct kernel.
    pub left_out: u64,
    /// Mean absolute error on the points of the fit itself.
    pub in_sample_percent: f64,
    /// Mean absolute error on shapes that the fit did not see.
    pub unseen_percent: f64,
    /// Median absolute error on shapes that the fit did not see.
    pub unseen_median_percent: f64,
    /// Mean error on shapes that the fit did not see; positive where predictions are too long.
    pub unseen_bias_percent: f64,
    /// Share of unseen points inside the interval.
    pub unseen_coverage: f64,
    /// Mean absolute error of the bare roofline.
    pub roofline_percent: f64,
}
