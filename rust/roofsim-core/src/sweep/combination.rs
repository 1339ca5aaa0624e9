//! What a combination says about columns, whatever the batch and the context: constants, and scalar rates.
//!
//! Blocks of rows and bounds of whole regions both go through these, so that they give the same bits.

use super::column::Column;
use super::space::Space;
use super::tables::Combination;
use crate::format::{KvFormat, WeightFormat};

impl Combination {
    /// New tokens in flight per query token: sequences of all replicas and of the microbatches of all stages.
    pub(super) const fn sequences(&self, batch_size: u64) -> f64 {
        (batch_size * self.layout.pipeline * self.layout.data) as f64
    }

    /// Sequences that must be resident on a rank: one microbatch per stage.
    pub(super) const fn resident(&self, batch_size: u64) -> f64 {
        (batch_size * self.layout.pipeline) as f64
    }

    /// US dollars per million new tokens for each second of a step of one query token.
    pub(super) fn usd_per_second(&self, batch_size: u64) -> Option<f64> {
        let usd_per_s = self.usd_per_hour? * self.layout.num_devices() as f64 / 3600.0;
        Some(1e6 * usd_per_s / self.sequences(batch_size))
    }

    /// The value of a column that is the same in every row of the combination; `None` where it is not, or is null.
    pub(super) fn constant(&self, space: &Space, column: Column) -> Option<f64> {
        let p = &self.position;
        let layout = self.layout;
        let count = |n: u64| Some(n as f64);
        match column {
            Column::NumDevices => count(layout.num_devices()),
            Column::Model => count(p[0] as u64),
            Column::Accelerator => count(p[1] as u64),
            Column::TensorParallelSize => count(layout.tensor),
            Column::PipelineParallelSize => count(layout.pipeline),
            Column::DataParallelSize => count(layout.data),
            Column::ExpertParallelSize => count(layout.expert),
            Column::WeightDtype => count(weight_code(space.weight_dtype.get(p[6]).copied().flatten())),
            Column::KvCacheDtype => count(kv_code(space.kv_cache_dtype.get(p[7]).copied().flatten())),
            Column::Calibration => count(p[8] as u64),
            Column::Engine => count(space.engine.get(p[9]).map_or(0, |e| *e as u64)),
            Column::CapacityMode => count(space.capacity_mode.get(p[10]).map_or(0, |m| *m as u64)),
            Column::GpuMemoryUtilization => Some(self.gpu_memory_utilization),
            Column::BlockSize => count(self.limits[0]),
            Column::MaxNumBatchedTokens => count(self.limits[1]),
            Column::MaxNumSeqs => count(self.limits[2]),
            Column::KvCacheBytes => self.runs.as_ref().ok().map(|(_, capacity)| capacity.kv_cache_bytes as f64),
            Column::WeightBytes => self.runs.as_ref().ok().map(|(_, capacity)| capacity.weight_bytes as f64),
            _ => None,
        }
    }
}

/// New tokens per second of `numerator` sequences that add `query_tokens` each in a step.
#[inline]
pub(super) const fn tokens_per_s(numerator: f64, query_tokens: f64, time_s: f64) -> f64 {
    numerator * query_tokens / time_s
}

/// US dollars per million new tokens of a step.
#[inline]
pub(super) const fn usd_per_mtok(usd_per_second: f64, query_tokens: f64, time_s: f64) -> f64 {
    usd_per_second / query_tokens * time_s
}

/// Code of a weight format: 0 is as published.
fn weight_code(format: Option<WeightFormat>) -> u64 {
    format.map_or(0, |f| 1 + WeightFormat::ALL.iter().position(|x| *x == f).unwrap_or(0) as u64)
}

/// Code of a KV format: 0 is as published.
fn kv_code(format: Option<KvFormat>) -> u64 {
    format.map_or(0, |f| 1 + KvFormat::ALL.iter().position(|x| *x == f).unwrap_or(0) as u64)
}
