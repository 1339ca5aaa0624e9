//! A line: the rows of one combination and one batch size, over contexts and query tokens.

use super::column::Column;
use super::combination::{Combination, Runs, kv_code, weight_code};
use super::space::Space;
use crate::engine::Engine;
use crate::parallel::Status;
use crate::roofline::{Bound, OpCost};

/// One evaluated row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) space: &'a Space,
    pub(super) combination: &'a Combination,
    /// Position in the space.
    pub(super) index: u128,
    pub(super) batch_size: u64,
    pub(super) context_tokens: u64,
    pub(super) query_tokens: u64,
    pub(super) max_sequences: u64,
    pub(super) status: Status,
    pub(super) cost: OpCost,
}

/// Evaluates the rows of one line in order.
pub(super) fn evaluate<'a>(
    space: &'a Space,
    combination: &'a Combination,
    first_index: u128,
    batch_size: u64,
    mut each: impl FnMut(&Row<'a>),
) {
    let mut row = Row {
        space,
        combination,
        index: first_index,
        batch_size,
        context_tokens: 0,
        query_tokens: 0,
        max_sequences: 0,
        status: Status::Ok,
        cost: OpCost::default(),
    };
    let rows_cost = rows_cost(space, combination, batch_size);
    let mut pair = 0;
    for (position, context_tokens) in space.context_tokens.values().enumerate() {
        row.context_tokens = context_tokens;
        for (query, query_tokens) in space.query_tokens.values().enumerate() {
            row.query_tokens = query_tokens;
            match &combination.runs {
                Err(status) => row.status = *status,
                Ok(_) if query_tokens > context_tokens => row.status = Status::QueryExceedsContext,
                Ok(runs) => {
                    row.status = Status::Ok;
                    row.max_sequences = runs.max_sequences.get(position).copied().unwrap_or(0);
                    row.cost = rows_cost.get(query).copied().unwrap_or_default();
                    add_attention(runs, batch_size as f64, pair, &mut row.cost);
                }
            }
            each(&row);
            row.index += 1;
            pair += 1;
        }
    }
}

/// The subtotal that depends on rows only, for each number of query tokens.
fn rows_cost(space: &Space, combination: &Combination, batch_size: u64) -> Vec<OpCost> {
    let Ok(runs) = &combination.runs else { return Vec::new() };
    let step = &runs.deployment.step;
    space.query_tokens.values().map(|q| step.rows_cost(batch_size.saturating_mul(q), batch_size)).collect()
}

fn add_attention(runs: &Runs, batch_size: f64, pair: usize, cost: &mut OpCost) {
    for (entry, table) in runs.deployment.step.attention.iter().zip(&runs.counts) {
        if let Some(counts) = table.get(pair) {
            let work = entry.op.uniform_work(batch_size, counts);
            cost.add(entry.count as f64, &entry.op.cost(&work));
        }
    }
}

impl Row<'_> {
    /// New tokens per second of the whole deployment.
    fn tokens_per_s(&self) -> f64 {
        let layout = self.combination.layout;
        // One microbatch in flight per stage, every replica with its own batch.
        let in_flight = self.batch_size * self.query_tokens * layout.pipeline * layout.data;
        in_flight as f64 / self.cost.time_s
    }

    /// Whether capacity holds the batch: under pipeline parallelism one microbatch per stage is resident.
    fn fits(&self) -> bool {
        self.batch_size.saturating_mul(self.combination.layout.pipeline) <= self.max_sequences
    }

    /// Value of a column as a number: codes as their position, flags as 0 or 1; `None` where it is null.
    pub(super) fn value(&self, column: Column) -> Option<f64> {
        if self.status != Status::Ok && !column.is_always_known() {
            return None;
        }
        Some(match column {
            Column::TimeS => self.cost.time_s,
            Column::TimeLowS => self.cost.time_low_s,
            Column::TimeHighS => self.cost.time_high_s,
            Column::IdealS => self.cost.ideal_s,
            Column::ComputeS => self.cost.compute_s,
            Column::MemoryS => self.cost.memory_s,
            Column::NetworkS => self.cost.network_s,
            Column::OverheadS => self.cost.overhead_s,
            Column::Flops => self.cost.flops,
            Column::Bytes => self.cost.bytes,
            Column::ArithmeticIntensity => self.cost.arithmetic_intensity(),
            Column::Mfu => self.cost.mfu(),
            Column::Mbu => self.runs().map(|r| self.cost.mbu(r.deployment.step.seconds_per_byte))?,
            Column::TokensPerS => self.tokens_per_s(),
            Column::TokensPerSPerGpu => self.tokens_per_s() / self.combination.layout.num_devices() as f64,
            Column::TokensPerSPerUser => self.query_tokens as f64 / self.cost.time_s,
            Column::UsdPerMtok => {
                let usd_per_s = self.combination.usd_per_hour? * self.combination.layout.num_devices() as f64 / 3600.0;
                1e6 * usd_per_s / self.tokens_per_s()
            }
            Column::Fits => f64::from(u8::from(self.fits())),
            Column::Bound => f64::from(self.cost.bound() as u8),
            Column::GpuMemoryUtilization => self.combination.gpu_memory_utilization,
            _ => self.count(column)? as f64,
        })
    }

    /// Value of an integer column or the code of a categorical one.
    pub(super) fn count(&self, column: Column) -> Option<u64> {
        let (space, p) = (self.space, &self.combination.position);
        let layout = self.combination.layout;
        Some(match column {
            Column::Bound => u64::from(self.cost.bound() as u8),
            Column::Fits => u64::from(self.fits()),
            Column::MaxSequences => self.max_sequences,
            Column::KvCacheBytes => self.runs()?.capacity.kv_cache_bytes,
            Column::WeightBytes => self.runs()?.capacity.weight_bytes,
            Column::NumDevices => layout.num_devices(),
            Column::Status => self.status as u64,
            Column::Model => p[0] as u64,
            Column::Accelerator => p[1] as u64,
            Column::TensorParallelSize => layout.tensor,
            Column::PipelineParallelSize => layout.pipeline,
            Column::DataParallelSize => layout.data,
            Column::ExpertParallelSize => layout.expert,
            Column::WeightDtype => u64::from(weight_code(space.weight_dtype.get(p[6]).copied().flatten())),
            Column::KvCacheDtype => u64::from(kv_code(space.kv_cache_dtype.get(p[7]).copied().flatten())),
            Column::Calibration => p[8] as u64,
            Column::Engine => space.engine.get(p[9]).map_or(0, |e| *e as u64),
            Column::CapacityMode => space.capacity_mode.get(p[10]).map_or(0, |m| *m as u64),
            Column::BlockSize => self.combination.limits[0],
            Column::MaxNumBatchedTokens => self.combination.limits[1],
            Column::MaxNumSeqs => self.combination.limits[2],
            Column::BatchSize => self.batch_size,
            Column::ContextTokens => self.context_tokens,
            Column::QueryTokens => self.query_tokens,
            _ => return None,
        })
    }

    fn runs(&self) -> Option<&Runs> {
        self.combination.runs.as_ref().ok()
    }
}

/// Names behind the codes of a categorical column.
pub(super) fn names(space: &Space, column: Column) -> Vec<String> {
    let published = std::iter::once("auto".to_owned());
    match column {
        Column::Bound => Bound::ALL.iter().map(|x| x.name().to_owned()).collect(),
        Column::Status => Status::ALL.iter().map(|x| x.name().to_owned()).collect(),
        Column::Model => space.models.iter().map(|m| m.name.clone()).collect(),
        Column::Accelerator => space.accelerators.iter().map(|a| a.name.clone()).collect(),
        Column::WeightDtype => {
            published.chain(crate::format::WeightFormat::ALL.iter().map(|f| f.name().to_owned())).collect()
        }
        Column::KvCacheDtype => {
            published.chain(crate::format::KvFormat::ALL.iter().map(|f| f.name().to_owned())).collect()
        }
        Column::Calibration => space
            .calibration
            .iter()
            .map(|c| c.as_ref().map_or_else(|| "calibrated".to_owned(), |c| c.name.clone()))
            .collect(),
        Column::Engine => Engine::ALL.iter().map(|e| e.name().to_owned()).collect(),
        Column::CapacityMode => vec!["ideal".to_owned(), "runtime".to_owned()],
        _ => Vec::new(),
    }
}
