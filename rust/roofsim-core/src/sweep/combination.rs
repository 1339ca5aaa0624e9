//! One categorical combination, compiled: the deployment, its capacity and the tables its rows share.

use crate::capacity::Capacity;
use crate::deployment::Deployment;
use crate::error::{Error, Result};
use crate::format::{KvFormat, WeightFormat};
use crate::ops::attention::Counts;
use crate::parallel::{Layout, Status};
use crate::sweep::space::Space;
use crate::workload::Request;

/// A compiled combination.
#[derive(Debug)]
pub(super) struct Combination {
    /// Positions on the categorical axes.
    pub(super) position: [usize; 15],
    /// Parallel sizes.
    pub(super) layout: Layout,
    /// Price of one device-hour.
    pub(super) usd_per_hour: Option<f64>,
    /// Share of memory.
    pub(super) gpu_memory_utilization: f64,
    /// `[block_size, max_num_batched_tokens, max_num_seqs]`.
    pub(super) limits: [u64; 3],
    /// What runs, or why nothing does.
    pub(super) runs: std::result::Result<Runs, Status>,
}

/// The part that exists only where an engine would run the combination.
#[derive(Debug)]
pub(super) struct Runs {
    /// The deployment.
    pub(super) deployment: Deployment,
    /// Its capacity.
    pub(super) capacity: Capacity,
    /// Sequences that fit, for each context of the axis.
    pub(super) max_sequences: Vec<u64>,
    /// For each attention operation and each (context, query) pair of a line: the counts of one request.
    pub(super) counts: Vec<Vec<Counts>>,
}

impl Combination {
    pub(super) fn compile(space: &Space, index: u64) -> Result<Self> {
        let position = space.position(index);
        let (spec, limits) = space.combination(index)?;
        let layout = spec.layout;
        let runs = match spec.try_compile()? {
            Err(reason) => Err(reason.status),
            Ok(deployment) => {
                let capacity = Capacity::of(&deployment, &limits)?;
                let max_sequences = space.context_tokens.values().map(|s| capacity.max_sequences(s)).collect();
                let counts = counts(space, &deployment)?;
                Ok(Runs { deployment, capacity, max_sequences, counts })
            }
        };
        Ok(Self {
            position,
            layout,
            usd_per_hour: space.price(position[1]),
            gpu_memory_utilization: limits.gpu_memory_utilization,
            limits: [limits.block_size, limits.max_num_batched_tokens, limits.max_num_seqs],
            runs,
        })
    }
}

fn counts(space: &Space, deployment: &Deployment) -> Result<Vec<Vec<Counts>>> {
    let pairs = space.context_tokens.len().checked_mul(space.query_tokens.len()).ok_or_else(|| {
        Error::overflow("context_tokens", "contexts x query_tokens", "one line of the sweep must fit in memory")
    })?;
    let table = |entry: &crate::step::Entry<crate::ops::AttentionOp>| {
        let mut table = Vec::with_capacity(pairs);
        for context_tokens in space.context_tokens.values() {
            for query_tokens in space.query_tokens.values() {
                let counts = Request::new(query_tokens, context_tokens).map(|r| entry.op.shape.counts(r));
                table.push(counts.unwrap_or_default());
            }
        }
        table
    };
    Ok(deployment.step.attention.iter().map(table).collect())
}

/// Names of the weight formats as codes: 0 is as published.
pub(super) fn weight_code(format: Option<WeightFormat>) -> u32 {
    format.map_or(0, |f| 1 + WeightFormat::ALL.iter().position(|x| *x == f).unwrap_or(0) as u32)
}

/// Names of the KV formats as codes: 0 is as published.
pub(super) fn kv_code(format: Option<KvFormat>) -> u32 {
    format.map_or(0, |f| 1 + KvFormat::ALL.iter().position(|x| *x == f).unwrap_or(0) as u32)
}
