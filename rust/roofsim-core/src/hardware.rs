//! Accelerators: what a datasheet says of a machine, each value with its source and date.

use std::collections::BTreeMap;

use crate::format::ComputeDType;

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Document or measurement.
    pub source: String,
    /// Date it was read or measured, ISO 8601 (year or year-month where no more is known).
    pub date: String,
}

/// A link between accelerators.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    /// Bytes per second per device and direction.
    pub bandwidth_bytes_per_s: f64,
    /// Seconds one hop takes for an empty message; 0 where no source gives one.
    pub latency_s: f64,
    /// Devices that the link joins (an NVLink domain, a node).
    pub num_devices: u64,
}

/// A dated price.
#[derive(Debug, Clone, PartialEq)]
pub struct Price {
    /// US dollars for one device for one hour.
    pub usd_per_hour: f64,
    /// `on-demand`, `reserved` or `cost-of-ownership`.
    pub kind: String,
    /// Who asks it.
    pub provider: String,
    /// Provenance.
    pub source: Source,
}

/// One accelerator.
#[derive(Debug, Clone, PartialEq)]
pub struct Accelerator {
    /// Catalogue name, lower case with the variant: `h100-sxm`.
    pub name: String,
    /// Other names people type.
    pub aliases: Vec<String>,
    /// Maker.
    pub vendor: String,
    /// Architecture family, the key by which unmeasured devices borrow calibrations: `hopper`, `ada`, `cdna3`, ...
    pub family: String,
    /// Streaming multiprocessors, compute units, cores; absent where the notion does not apply.
    pub num_compute_units: Option<u64>,
    /// Device memory in bytes as the driver reports it.
    pub memory_bytes: u64,
    /// Peak device memory bandwidth.
    pub memory_bandwidth_bytes_per_s: f64,
    /// Last-level on-chip cache in bytes.
    pub cache_bytes: Option<u64>,
    /// Dense peaks, never 2:4-sparse, per operand type.
    pub peak_flops_per_s: BTreeMap<ComputeDType, f64>,
    /// Scale-up link (`NVLink`, xGMI, ICI); absent where devices only meet over the host bus.
    pub link: Option<Link>,
    /// Host bus (PCIe) per direction: joins devices without a scale-up link.
    pub host_link: Option<Link>,
    /// Scale-out network per device.
    pub network: Option<Link>,
    /// Board power limit in watts.
    pub power_w: Option<f64>,
    /// Known prices.
    pub prices: Vec<Price>,
    /// Provenance of each field, by its name in the spec file.
    pub sources: BTreeMap<String, Source>,
}

impl Accelerator {
    /// Dense peak of one operand type; refused when the device has none.
    pub fn peak(&self, dtype: ComputeDType) -> crate::error::Result<f64> {
        self.peak_flops_per_s.get(&dtype).copied().ok_or_else(|| {
            let known: Vec<&str> = self.peak_flops_per_s.keys().map(|d| d.name()).collect();
            crate::Error::spec("dtype", dtype.name(), format!("{} has peaks for {}", self.name, known.join(", ")))
        })
    }
}
