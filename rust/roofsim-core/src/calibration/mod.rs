//! Calibrations: which law with which constants stands for a device, a kernel library and a dtype.

mod builtin;
mod law;
mod parameters;
mod spec;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use law::{AttentionLaw, CollectiveLaw, ElementwiseLaw, GemmLaw, GroupedGemmLaw, norm4, norm8};

pub use parameters::{Constant, Domain, PARAMETERS, Parameter};

use crate::format::ComputeDType;
use crate::hardware::Accelerator;

/// Relative half-widths of a prediction interval: `[t (1 - below), t (1 + above)]`, cut at the ideal time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interval {
    /// Fraction below the prediction.
    pub below: f64,
    /// Fraction above the prediction.
    pub above: f64,
}

impl Interval {
    /// No width: the value of a bound is not uncertain.
    pub const NONE: Self = Self { below: 0.0, above: 0.0 };

    /// Symmetric.
    pub const fn symmetric(width: f64) -> Self {
        Self { below: width, above: width }
    }
}

/// Interval of each class of operation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intervals {
    /// Stated coverage, 0.8 for 80%.
    pub coverage: f64,
    /// GEMM.
    pub gemm: Interval,
    /// Attention.
    pub attention: Interval,
    /// Grouped GEMM.
    pub grouped_gemm: Interval,
    /// Element-wise.
    pub elementwise: Interval,
    /// Collectives.
    pub collective: Interval,
}

/// How the constants were obtained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// `ideal`, `prototype`, `measured` or `borrowed`.
    pub basis: String,
    /// Device that was measured; empty for `ideal`.
    pub device: String,
    /// Software versions.
    pub software: String,
    /// Date.
    pub date: String,
    /// Points behind the fit; 0 where unknown.
    pub num_points: u64,
    /// What a reader must know.
    pub note: String,
}

/// One calibration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Name: device, kernel library.
    pub name: String,
    /// Kernel library whose kernels were timed.
    pub kernel_library: String,
    /// GEMM per operand type; a type that is not listed uses the bf16 law.
    pub gemm: BTreeMap<ComputeDType, GemmLaw>,
    /// Attention.
    pub attention: AttentionLaw,
    /// Grouped GEMM.
    pub grouped_gemm: GroupedGemmLaw,
    /// Element-wise.
    pub elementwise: ElementwiseLaw,
    /// Collectives.
    pub collective: CollectiveLaw,
    /// Sustained compute rate over burst rate: a step is priced at sustained.
    pub sustained_compute: f64,
    /// Memory rate inside a step over the rate of isolated kernels.
    pub sustained_memory: f64,
    /// Error bars.
    pub intervals: Intervals,
    /// Where it comes from.
    pub provenance: Provenance,
}

impl Calibration {
    /// The bare roofline: datasheet rates, no overhead. A provable bound for cold caches.
    pub fn ideal() -> Self {
        builtin::ideal()
    }

    /// The default for a device: its own constants where it was measured, else those of its architecture family, else
    /// the generic ones, saying so in the provenance and with wider bars.
    pub fn default_for(accelerator: &Accelerator) -> Self {
        builtin::default_for(accelerator)
    }

    /// True for the bare roofline.
    pub fn is_ideal(&self) -> bool {
        self.provenance.basis == "ideal"
    }

    /// The law for one operand type.
    pub fn gemm_law(&self, dtype: ComputeDType) -> GemmLaw {
        self.gemm.get(&dtype).or_else(|| self.gemm.get(&ComputeDType::Bf16)).copied().unwrap_or(GemmLaw::Roofline)
    }
}
