//! Columns: their names, their kinds, and which direction is better.

use super::space::Space;
use crate::capacity::CapacityMode;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::format::{KvFormat, WeightFormat};
use crate::nearest::nearest;
use crate::parallel::Status;
use crate::roofline::Bound;

/// How a column is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnKind {
    /// 64-bit floating point.
    Float,
    /// Unsigned 64-bit integer.
    Count,
    /// Yes or no.
    Flag,
    /// A position in a list of names.
    Code,
}

/// Which direction is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Larger values win.
    Higher,
    /// Smaller values win.
    Lower,
}

macro_rules! columns {
    ($($variant:ident $name:literal $kind:ident $direction:ident $doc:literal;)*) => {
        /// A result or an axis of a sweep.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Column { $(#[doc = $doc] $variant,)* }

        impl Column {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name used everywhere.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// How it is stored.
            pub const fn kind(self) -> ColumnKind {
                match self { $(Self::$variant => ColumnKind::$kind,)* }
            }

            /// Which direction is better when it is an objective.
            pub const fn direction(self) -> Direction {
                match self { $(Self::$variant => Direction::$direction,)* }
            }

            /// Meaning and unit.
            pub const fn doc(self) -> &'static str {
                match self { $(Self::$variant => $doc,)* }
            }
        }
    };
}

columns! {
    TimeS "time_s" Float Lower "Time of the step, seconds.";
    TimeLowS "time_low_s" Float Lower "Lower end of its interval, seconds.";
    TimeHighS "time_high_s" Float Lower "Upper end of its interval, seconds.";
    IdealS "ideal_s" Float Lower "The bare roofline's time, seconds.";
    ComputeS "compute_s" Float Lower "Time of the arithmetic, seconds.";
    MemoryS "memory_s" Float Lower "Time of the memory traffic, seconds.";
    NetworkS "network_s" Float Lower "Time of the link traffic, seconds.";
    OverheadS "overhead_s" Float Lower "Time of launches and waits, seconds.";
    Bound "bound" Code Lower "What takes the most time.";
    Flops "flops" Float Lower "FLOPs of the slowest rank.";
    Bytes "bytes" Float Lower "Memory traffic of the slowest rank, bytes.";
    ArithmeticIntensity "arithmetic_intensity" Float Higher "FLOPs per byte.";
    Mfu "mfu" Float Higher "Model FLOPs utilisation.";
    Mbu "mbu" Float Higher "Model bandwidth utilisation.";
    TokensPerS "tokens_per_s" Float Higher "New tokens per second, all replicas and microbatches.";
    TokensPerSPerGpu "tokens_per_s_per_gpu" Float Higher "New tokens per second over all devices.";
    TokensPerSPerUser "tokens_per_s_per_user" Float Higher "New tokens per second of one sequence.";
    UsdPerMtok "usd_per_mtok" Float Lower "US dollars per million new tokens; null without a price.";
    EnergyJ "energy_j" Float Lower "Energy of the step over all devices, joules; null where nobody measured the device's power.";
    Fits "fits" Flag Higher "Capacity holds the batch at this context.";
    MaxSequences "max_sequences" Count Higher "Sequences of this context that fit per replica.";
    KvCacheBytes "kv_cache_bytes" Count Higher "KV pool of the fullest rank, bytes.";
    WeightBytes "weight_bytes" Count Lower "Weights of the fullest rank, bytes.";
    NumDevices "num_devices" Count Lower "Devices of the deployment.";
    Status "status" Code Lower "ok, or why no engine would run the row.";
    Model "model" Code Lower "Axis.";
    Accelerator "accelerator" Code Lower "Axis.";
    TensorParallelSize "tensor_parallel_size" Count Lower "Axis.";
    PipelineParallelSize "pipeline_parallel_size" Count Lower "Axis.";
    DataParallelSize "data_parallel_size" Count Lower "Axis.";
    ExpertParallelSize "expert_parallel_size" Count Lower "Axis.";
    WeightDtype "weight_dtype" Code Lower "Axis.";
    KvCacheDtype "kv_cache_dtype" Code Lower "Axis.";
    Calibration "calibration" Code Lower "Axis.";
    Engine "engine" Code Lower "Axis.";
    CapacityMode "capacity_mode" Code Lower "Axis.";
    GpuMemoryUtilization "gpu_memory_utilization" Float Lower "Axis.";
    BlockSize "block_size" Count Lower "Axis.";
    MaxNumBatchedTokens "max_num_batched_tokens" Count Lower "Axis.";
    MaxNumSeqs "max_num_seqs" Count Lower "Axis.";
    BatchSize "batch_size" Count Higher "Axis.";
    ContextTokens "context_tokens" Count Higher "Axis.";
    QueryTokens "query_tokens" Count Higher "Axis.";
}

/// Columns that a refusal offers.
const OFFERED: usize = 3;

impl Column {
    /// Parses a name; the nearest known ones are named in the error.
    pub fn parse(field: &str, text: &str) -> Result<Self> {
        let bare = text.trim();
        Self::ALL.iter().copied().find(|column| column.name() == bare).ok_or_else(|| {
            let typed: String = bare.chars().take(80).collect();
            let near = nearest(&typed, Self::ALL.iter().map(|column| column.name()), OFFERED).join(", ");
            Error::spec(field, typed, format!("must be a column; near it are {near} (roofsim.sweep.COLUMNS lists all)"))
        })
    }

    /// Whether its value stands even where no engine would run the row.
    pub const fn is_always_known(self) -> bool {
        !matches!(self.kind(), ColumnKind::Float)
            && !matches!(self, Self::Bound | Self::Fits | Self::MaxSequences | Self::KvCacheBytes | Self::WeightBytes)
            || matches!(self, Self::GpuMemoryUtilization)
    }
}

impl Column {
    /// Refuses a column whose values have no order.
    pub(super) fn check_objective(self, field: &str) -> Result<()> {
        if self.kind() == ColumnKind::Code {
            return Err(Error::spec(field, self.name(), "its values are names and have no order"));
        }
        Ok(())
    }

    /// Whether it is a number over the time of a row.
    pub(super) const fn is_rate(self) -> bool {
        matches!(self, Self::TokensPerS | Self::TokensPerSPerGpu | Self::TokensPerSPerUser)
    }

    /// Whether it needs more than the time of a row.
    pub(super) const fn needs_costs(self) -> bool {
        matches!(
            self,
            Self::TimeLowS
                | Self::TimeHighS
                | Self::IdealS
                | Self::ComputeS
                | Self::MemoryS
                | Self::NetworkS
                | Self::OverheadS
                | Self::Bound
                | Self::Flops
                | Self::Bytes
                | Self::ArithmeticIntensity
                | Self::Mfu
                | Self::Mbu
                | Self::EnergyJ
        )
    }
}

/// Names behind the codes of a categorical column; empty for numbers.
pub(super) fn names(space: &Space, column: Column) -> Vec<String> {
    fn all<T: Copy>(items: &[T], name: impl Fn(T) -> &'static str) -> Vec<String> {
        items.iter().map(|&item| name(item).to_owned()).collect()
    }
    let with_auto = |mut names: Vec<String>| {
        names.insert(0, "auto".to_owned());
        names
    };
    match column {
        Column::Bound => all(&Bound::ALL, Bound::name),
        Column::Status => all(&Status::ALL, Status::name),
        Column::Model => distinct(&space.models, |m| m.name.clone()),
        Column::Accelerator => distinct(&space.accelerators, |a| a.name.clone()),
        Column::WeightDtype => with_auto(all(&WeightFormat::ALL, WeightFormat::name)),
        Column::KvCacheDtype => with_auto(all(&KvFormat::ALL, KvFormat::name)),
        Column::Calibration => distinct(&space.calibration, |choice| choice.name().to_owned()),
        Column::Engine => all(&Engine::ALL, Engine::name),
        Column::CapacityMode => all(&[CapacityMode::Ideal, CapacityMode::Runtime], CapacityMode::name),
        _ => Vec::new(),
    }
}

/// Names of the values of an axis: equal values share a name, different values of one name are numbered (`model`,
/// `model#2`, in the order of the axis), so that a filter or a group never means two things.
fn distinct<T: PartialEq>(axis: &[T], name: impl Fn(&T) -> String) -> Vec<String> {
    let mut found: Vec<(String, &T)> = Vec::new();
    for value in axis {
        let bare = name(value);
        let taken = |text: &str| found.iter().any(|(known, other)| known == text && *other != value);
        let numbered = (2_usize..).map(|n| format!("{bare}#{n}"));
        let text = std::iter::once(bare.clone()).chain(numbered).find(|text| !taken(text)).unwrap_or(bare);
        found.push((text, value));
    }
    found.into_iter().map(|(text, _)| text).collect()
}

impl Space {
    /// Names behind the codes of a categorical column; empty for numbers. Equal values of an axis share a name.
    pub fn names(&self, column: Column) -> Vec<String> {
        names(self, column)
    }
}
