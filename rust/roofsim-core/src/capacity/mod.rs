//! Capacity: how many sequences fit beside the weights, per rank, and why no more.
//!
//! Two explicit modes. `Ideal` is the closed form: every sequence takes exactly the bytes its tokens need. `Runtime` is
//! what an engine allocates: whole blocks per sequence and layer group, a null block, memory for its own context.
//! Source of the runtime rules: vLLM 0.33 (`v1/core/kv_cache_utils`, `v1/worker/gpu_worker`).

mod blocks;
mod memory;

pub use memory::{activation_bytes, stage_weight_bytes};

use crate::deployment::Deployment;
use crate::error::{Error, Result};
use crate::model::{Mixer, Model, kept_tokens};
use crate::workload::MAX_TOKENS;
use blocks::BlockLayout;

/// Which KV accounting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CapacityMode {
    /// Closed form.
    Ideal,
    /// What the engine allocates.
    Runtime,
}

impl CapacityMode {
    /// The name used in specs and results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ideal => "ideal",
            Self::Runtime => "runtime",
        }
    }

    /// Parses a name.
    pub fn parse(field: &str, text: &str) -> Result<Self> {
        match text.trim().to_ascii_lowercase().as_str() {
            "ideal" => Ok(Self::Ideal),
            "runtime" => Ok(Self::Runtime),
            _ => Err(Error::spec(field, text, "must be ideal or runtime")),
        }
    }
}

/// What the operator sets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CapacityLimits {
    /// Accounting.
    pub mode: CapacityMode,
    /// Share of device memory that the engine may use.
    pub gpu_memory_utilization: f64,
    /// Tokens of one KV block.
    pub block_size: u64,
    /// Rows of the largest step: sizes the activations.
    pub max_num_batched_tokens: u64,
    /// Sequences of the largest step: sizes the logits.
    pub max_num_seqs: u64,
}

impl Default for CapacityLimits {
    fn default() -> Self {
        Self {
            mode: CapacityMode::Ideal,
            gpu_memory_utilization: 0.9,
            block_size: 16,
            max_num_batched_tokens: 8192,
            max_num_seqs: 1024,
        }
    }
}

impl CapacityLimits {
    /// Refuses values that no engine accepts.
    pub fn check(&self) -> Result<()> {
        let share = self.gpu_memory_utilization;
        if !(share > 0.0 && share <= 1.0) {
            return Err(Error::spec("gpu_memory_utilization", share, "must be above 0 and at most 1"));
        }
        let counts = [
            ("block_size", self.block_size, 1 << 20),
            ("max_num_batched_tokens", self.max_num_batched_tokens, MAX_TOKENS),
            ("max_num_seqs", self.max_num_seqs, MAX_TOKENS),
        ];
        for (field, value, most) in counts {
            if !(1..=most).contains(&value) {
                return Err(Error::spec(field, value, format!("must be between 1 and {most}")));
            }
        }
        Ok(())
    }
}

/// Bytes of the context, CUDA graphs and collectives of vLLM on one device.
///
/// Fitted: minimax of the relative error in KV blocks over eight public startup logs of vLLM (0.19 to 0.23 where the
/// version is known) on H100 and RTX 4090, dense models up to 70B: 1.30 GiB, worst error 1.9%. The logs leave between 0.2
/// and 1.4 GiB beside weights, blocks and our activations; the constant errs towards too few blocks.
const VLLM_OVERHEAD_BYTES: u64 = 1331 << 20;

/// What fits on the fullest rank.
#[derive(Debug, Clone, PartialEq)]
pub struct Capacity {
    /// Accounting.
    pub mode: CapacityMode,
    /// Bytes the engine may use.
    pub usable_bytes: u64,
    /// Weights of one rank, scales included.
    pub weight_bytes: u64,
    /// Activation peak.
    pub activation_bytes: u64,
    /// Context, graphs and collectives of the engine; 0 in `ideal`.
    pub overhead_bytes: u64,
    /// What is left for KV; 0 when nothing is.
    pub kv_cache_bytes: u64,
    /// Bytes of one block over all layers (or one layer group) of the rank; 0 for models without a KV cache.
    pub bytes_per_block: u64,
    /// Whole blocks in the pool, the null block included.
    pub num_blocks: u64,
    /// Tokens the pool holds before any window cuts in.
    pub kv_tokens: u64,
    /// Whether weights, activations and overhead leave room for at least one block.
    pub fits: bool,
    /// Why not; empty when it fits.
    pub reason: String,
    stages: Vec<Stage>,
}

/// One pipeline stage's pool.
#[derive(Debug, Clone, PartialEq)]
struct Stage {
    pool_bytes: u64,
    /// Bytes a sequence takes whatever its length.
    state_bytes: u64,
    layout: BlockLayout,
    /// (bytes per token, span) of each kind of attention layer, counts applied.
    exact: Vec<(u64, crate::model::Span)>,
}

impl Capacity {
    /// Capacity of a deployment under limits.
    pub fn of(deployment: &Deployment, limits: &CapacityLimits) -> Result<Self> {
        limits.check()?;
        let (model, layout) = (&*deployment.model, deployment.layout);
        let usable_bytes = usable(deployment.accelerator.memory_bytes, limits);
        let overhead_bytes = if limits.mode == CapacityMode::Runtime { VLLM_OVERHEAD_BYTES } else { 0 };
        let mut ranks = Vec::new();
        for (index, range) in layout.stages(model.num_layers()).into_iter().enumerate() {
            let counts = model.counts_in(range);
            let last = index as u64 + 1 == layout.pipeline;
            let weight_bytes = stage_weight_bytes(model, layout, &counts, index == 0, last)?;
            let activation_bytes = activation_bytes(model, layout, &counts, last, limits)?;
            let used = weight_bytes.saturating_add(activation_bytes).saturating_add(overhead_bytes);
            let stage = Stage::new(deployment, limits, &counts, usable_bytes.saturating_sub(used))?;
            ranks.push((weight_bytes, activation_bytes, stage));
        }
        let mode = limits.mode;
        let Some((weight_bytes, activation_bytes, stage)) =
            ranks.iter().min_by_key(|(_, _, stage)| (stage.tokens(mode), stage.pool_bytes)).cloned()
        else {
            return Err(Error::spec("num_hidden_layers", 0, "a model needs at least one layer"));
        };
        let kv_cache_bytes = stage.pool_bytes;
        let mut capacity = Self {
            mode,
            usable_bytes,
            weight_bytes,
            activation_bytes,
            overhead_bytes,
            kv_cache_bytes,
            bytes_per_block: stage.layout.bytes_per_block,
            num_blocks: stage.layout.num_blocks(kv_cache_bytes),
            kv_tokens: stage.tokens(mode),
            fits: false,
            reason: String::new(),
            stages: ranks.into_iter().map(|(_, _, stage)| stage).collect(),
        };
        capacity.fits = capacity.max_sequences(1) > 0;
        if !capacity.fits {
            capacity.reason = capacity.explain(deployment.accelerator.memory_bytes, limits);
        }
        Ok(capacity)
    }

    /// Sequences of `context_tokens` that fit at once on every rank. Exact: that many fit and one more does not.
    pub fn max_sequences(&self, context_tokens: u64) -> u64 {
        let tokens = context_tokens.max(1);
        self.stages.iter().map(|stage| stage.max_sequences(self.mode, tokens)).min().unwrap_or(0)
    }

    fn explain(&self, memory_bytes: u64, limits: &CapacityLimits) -> String {
        let gb = |bytes: u64| format!("{:.1} GB", bytes as f64 / 1e9);
        let needs = format!(
            "weights {} + activations {} + engine {}",
            gb(self.weight_bytes),
            gb(self.activation_bytes),
            gb(self.overhead_bytes)
        );
        format!(
            "{needs} leave no KV block in {} ({} x {} of device memory)",
            gb(self.usable_bytes),
            limits.gpu_memory_utilization,
            gb(memory_bytes)
        )
    }
}

/// Bytes the engine may use: vLLM rounds up, the ideal rounds down.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a u64 is a u64")]
fn usable(memory_bytes: u64, limits: &CapacityLimits) -> u64 {
    let share = memory_bytes as f64 * limits.gpu_memory_utilization;
    match limits.mode {
        CapacityMode::Ideal => share.floor() as u64,
        CapacityMode::Runtime => share.ceil() as u64,
    }
}

impl Stage {
    fn new(deployment: &Deployment, limits: &CapacityLimits, counts: &[u64], pool_bytes: u64) -> Result<Self> {
        let (model, tp) = (&*deployment.model, deployment.layout.tensor);
        let element = deployment.kv_format.element_bytes();
        let mut exact: Vec<(u64, crate::model::Span)> = Vec::new();
        let mut layers = Vec::new();
        for (layer, &count) in model.kinds.iter().zip(counts) {
            let token_bytes = layer.mixer.kv_elements_per_token_rank(tp) * element;
            if token_bytes == 0 || count == 0 {
                continue;
            }
            exact.push((token_bytes * count, layer.mixer.span()));
            layers.push((layer.mixer.span(), token_bytes, count));
        }
        Ok(Self {
            pool_bytes,
            state_bytes: state_bytes(model, counts, tp),
            layout: BlockLayout::new(&layers, limits.block_size)?,
            exact,
        })
    }

    /// Exact bytes of one sequence.
    fn sequence_bytes(&self, tokens: u64) -> u64 {
        let cache = self.exact.iter().map(|&(bytes, span)| bytes.saturating_mul(kept_tokens(span, tokens)));
        cache.fold(self.state_bytes, u64::saturating_add)
    }

    fn max_sequences(&self, mode: CapacityMode, tokens: u64) -> u64 {
        let (pool, each) = match mode {
            CapacityMode::Ideal => (self.pool_bytes, self.sequence_bytes(tokens)),
            CapacityMode::Runtime => {
                // The null block is never handed out.
                let whole = self.layout.num_blocks(self.pool_bytes).saturating_sub(1);
                let each = self.layout.blocks(tokens).saturating_mul(self.layout.bytes_per_block);
                let pool = if self.layout.bytes_per_block == 0 {
                    self.pool_bytes
                } else {
                    whole.saturating_mul(self.layout.bytes_per_block)
                };
                (pool, each.saturating_add(self.state_bytes))
            }
        };
        // A stage that keeps nothing per sequence does not limit them.
        pool.checked_div(each).unwrap_or(MAX_TOKENS)
    }

    /// Tokens the pool holds before windows cut in.
    fn tokens(&self, mode: CapacityMode) -> u64 {
        let per_token: u64 = self.exact.iter().map(|&(bytes, _)| bytes).sum();
        match mode {
            CapacityMode::Ideal => self.pool_bytes.checked_div(per_token).unwrap_or(MAX_TOKENS),
            CapacityMode::Runtime => self.layout.tokens(self.pool_bytes),
        }
    }
}

/// Recurrent state of one sequence on one rank.
fn state_bytes(model: &Model, counts: &[u64], tp: u64) -> u64 {
    let conv_element = model.dtype.element_bits() / 8;
    let states = model.kinds.iter().zip(counts).map(|(layer, &count)| match &layer.mixer {
        Mixer::Recurrent(r) => {
            let state = r.state_elements * r.state_element_bytes + r.conv_state_elements * conv_element;
            state.div_ceil(tp) * count
        }
        _ => 0,
    });
    states.sum()
}
