//! Calibrations: which law with which constants stands for a device, a kernel library and a dtype.

mod builtin;
mod choice;
mod interval;
mod law;
mod parameters;
mod power;
mod provenance;
mod spec;

use std::collections::BTreeMap;

pub use choice::{CalibrationChoice, kernel_libraries, mixed_libraries};
use serde::{Deserialize, Serialize};

pub use interval::{Bar, Interval, Intervals, Joint, MeasuredRange, OpSizes, Width};
pub use law::{
    AttentionLaw, CollectiveLaw, DirectAllReduceLaw, ElementwiseLaw, GemmLaw, GroupedGemmLaw, StepLaw, norm4,
};

pub use parameters::{Constant, Domain, PARAMETERS, Parameter};
pub use power::{Power, SteadyLoad};
pub use provenance::{ClassError, Provenance};

use crate::format::{ComputeDType, KvFormat};
use crate::hardware::Accelerator;

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
    /// Attention in operand types whose kernels are others than those of `attention`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attention_by_dtype: BTreeMap<ComputeDType, AttentionLaw>,
    /// Attention of other operand types over caches whose kernels are others than those of `attention`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attention_by_kv_cache: BTreeMap<KvFormat, AttentionLaw>,
    /// Latent attention by storage of the cache, where the library's kernels of it were measured.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub latent_attention: BTreeMap<KvFormat, AttentionLaw>,
    /// Grouped GEMM.
    pub grouped_gemm: GroupedGemmLaw,
    /// Element-wise.
    pub elementwise: ElementwiseLaw,
    /// Collectives.
    pub collective: CollectiveLaw,
    /// The engine's own all-reduce: the faster of it and the library's counts. Absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direct_all_reduce: Option<DirectAllReduceLaw>,
    /// What operations do inside a step.
    pub step: StepLaw,
    /// Powers of the device; absent where nobody measured them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power: Option<Power>,
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

    /// Round numbers that no measurement stands behind: where every fit starts.
    pub fn assumed() -> Self {
        builtin::assumed()
    }

    /// The default for a device: its own constants where it was measured, else those of its architecture family, else
    /// the generic ones, saying so in the provenance and with wider bars.
    pub fn default_for(accelerator: &Accelerator) -> Self {
        builtin::default_for(accelerator)
    }

    /// The same laws for steps that follow one another without a pause, at the device's power limit.
    #[must_use]
    pub fn sustained(&self) -> Self {
        Self { name: format!("{}/sustained", self.name), step: self.step.sustained(), ..self.clone() }
    }

    /// True for the bare roofline.
    pub fn is_ideal(&self) -> bool {
        self.provenance.basis == "ideal"
    }

    /// The law of attention in one operand type over one storage of the cache.
    pub fn attention_law(&self, dtype: ComputeDType, kv_format: KvFormat) -> AttentionLaw {
        let own = self.attention_by_dtype.get(&dtype).or_else(|| self.attention_by_kv_cache.get(&kv_format));
        own.copied().unwrap_or(self.attention)
    }

    /// The law of latent attention: the kernels' own, else that of other attention with its `latent_*` constants.
    pub fn latent_attention_law(&self, dtype: ComputeDType, kv_format: KvFormat) -> AttentionLaw {
        self.latent_attention.get(&kv_format).copied().unwrap_or_else(|| self.attention_law(dtype, kv_format))
    }

    /// The law for one operand type.
    pub fn gemm_law(&self, dtype: ComputeDType) -> GemmLaw {
        self.gemm.get(&dtype).or_else(|| self.gemm.get(&ComputeDType::Bf16)).copied().unwrap_or(GemmLaw::Roofline)
    }
}
