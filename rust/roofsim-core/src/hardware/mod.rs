//! Accelerators: what a datasheet says of a machine, each value with its source and date.
//!
//! [`Accelerator::from_json`] and [`Accelerator::to_json`] read and write the spec file; [`Accelerator::peak`] is the only
//! way to a peak and refuses an operand type that the datasheet does not give.

mod route;
mod spec;
mod table;
mod topology;

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::format::ComputeDType;
pub use route::{Level, Reach, Route};
pub use spec::PRICE_KINDS;
pub use topology::{MAX_AXES, Topology, Torus};

/// The family of a device whose spec names none: it borrows no device's calibration.
pub const GENERIC_FAMILY: &str = "generic";

/// The vendor of a device whose spec names none.
pub const UNKNOWN_VENDOR: &str = "unknown";

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
    /// Bytes per second per device and direction, over all its links or ports.
    pub bandwidth_bytes_per_s: f64,
    /// Seconds one hop takes for an empty message; 0 where no source gives one.
    pub latency_s: f64,
    /// Devices that the link joins (an `NVLink` domain, a node); [`Link::UNBOUNDED_DEVICES`] where nothing bounds them.
    pub num_devices: u64,
    /// How they are wired; only the scale-up link may be anything but a switch.
    pub topology: Topology,
}

impl Link {
    /// Stands for a network whose size no source bounds; also the largest domain a spec may name.
    pub const UNBOUNDED_DEVICES: u64 = 1 << 20;

    /// Bytes per second and direction between a device and the rest of the best placed group of so many.
    pub fn group_bandwidth(&self, group: u64) -> f64 {
        self.bandwidth_bytes_per_s * self.topology.group_share(group, self.num_devices)
    }

    /// The same while every member sends something else to each other one.
    pub fn exchange_bandwidth(&self, group: u64) -> f64 {
        self.bandwidth_bytes_per_s * self.topology.exchange_share(group, self.num_devices)
    }

    /// Bytes per second and direction between a device and its nearest neighbour.
    pub fn pair_bandwidth(&self) -> f64 {
        self.bandwidth_bytes_per_s * self.topology.pair_share(self.num_devices)
    }
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
    /// Host bus (`PCIe`) per direction: joins devices without a scale-up link.
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
    /// Dense peak P of the matrix units for one operand type, in FLOP/s.
    ///
    /// No peak is derived from another one: a device that lists fp16 and not bf16 (V100, T4) has no bf16 units, and one
    /// that lists bf16 and not fp16 (TPUs) has no fp16 units, so the missing twin is refused like any other absent type.
    ///
    /// # Errors
    /// [`Error::Unsupported`] naming the operand type and the ones the device has.
    pub fn peak(&self, dtype: ComputeDType) -> Result<f64> {
        self.peak_flops_per_s.get(&dtype).copied().ok_or_else(|| {
            let known: Vec<&str> = self.peak_flops_per_s.keys().map(|known| known.name()).collect();
            let rule = format!("{} lists no peak for this operand type; it has {}", self.name, known.join(", "));
            Error::unsupported("dtype", dtype.name(), rule)
        })
    }

    /// Typical price of one device-hour in US dollars: the median of the known prices of one kind, `None` where none is
    /// known. An even number of prices gives the mean of the middle two.
    ///
    /// # Errors
    /// [`Error::Spec`] for a kind that does not exist.
    pub fn usd_per_hour(&self, kind: &str) -> Result<Option<f64>> {
        if !PRICE_KINDS.contains(&kind) {
            return Err(Error::spec("price_kind", kind, format!("must be one of {}", PRICE_KINDS.join(", "))));
        }
        let mut known: Vec<f64> = self.prices.iter().filter(|p| p.kind == kind).map(|p| p.usd_per_hour).collect();
        known.sort_by(f64::total_cmp);
        let (low, high) = (known.len().saturating_sub(1) / 2, known.len() / 2);
        Ok(known.get(low).zip(known.get(high)).map(|(low, high)| f64::midpoint(*low, *high)))
    }

    /// Machine balance (ridge point) I* = P / W in FLOP per byte: below it an operation is memory-bound, above it
    /// compute-bound.
    ///
    /// Leaves out caches and what a kernel reaches in practice: both terms are datasheet peaks. Source: Williams, Waterman
    /// and Patterson, "Roofline", CACM 52(4), 2009. An H100 SXM in bf16: 989e12 / 3350e9 = 295.2.
    ///
    /// # Errors
    /// As [`Accelerator::peak`].
    pub fn balance(&self, dtype: ComputeDType) -> Result<f64> {
        Ok(self.peak(dtype)? / self.memory_bandwidth_bytes_per_s)
    }
}
