//! What many rows share, made once, kept while it is used, forgotten after.
//!
//! A combination is compiled once. Row counts are the same for all its contexts: the subtotal of everything but
//! attention is tabulated per batch size, from per-operation tables that combinations with equal operations share.
//! Contexts are the same for all its batches: the load of one request is tabulated per (context, query) pair.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock};

use super::kernel::{self, Isa, LoadTable};
use super::space::Space;
use crate::capacity::Capacity;
use crate::deployment::Deployment;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::parallel::{Layout, Status};
use crate::roofline::OpCost;
use crate::step::{RowOp, Rows};
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
    /// What runs and its capacity, or why nothing does.
    pub(super) runs: std::result::Result<(Deployment, Capacity), Status>,
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
                Ok((deployment, capacity))
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

/// The (context, query) pairs of part of a line, context by context.
#[derive(Debug, Default)]
pub(super) struct PairTable {
    /// Context of each pair.
    pub(super) context_tokens: Vec<f64>,
    /// New tokens of each pair.
    pub(super) query_tokens: Vec<f64>,
    /// Sequences that fit at each pair's context.
    pub(super) max_sequences: Vec<f64>,
    /// False where a pair asks for more new tokens than the context holds.
    pub(super) valid: Vec<bool>,
    /// Whether all pairs are valid.
    pub(super) all_valid: bool,
    /// Loads of one request for each attention operation.
    pub(super) loads: Vec<LoadTable>,
}

impl PairTable {
    fn new(space: &Space, combination: &Combination, pairs: &Range<usize>) -> Self {
        let queries = space.query_tokens.len();
        let pair = |pair| (space.query_tokens.at(pair % queries), space.context_tokens.at(pair / queries));
        Self::of(combination, pairs.clone().map(pair))
    }

    /// The table of any (query, context) pairs.
    pub(super) fn of(combination: &Combination, pairs: impl ExactSizeIterator<Item = (u64, u64)>) -> Self {
        let mut table = Self { all_valid: true, ..Self::default() };
        let attention = combination.runs.as_ref().map_or(&[][..], |(d, _)| &d.step.attention);
        table.loads = attention.iter().map(|_| LoadTable::with_capacity(pairs.len())).collect();
        for (query, context) in pairs {
            let request = Request::new(query, context);
            table.context_tokens.push(context as f64);
            table.query_tokens.push(query as f64);
            table.valid.push(request.is_ok());
            table.all_valid &= request.is_ok();
            let fits = combination.runs.as_ref().map_or(0, |(_, capacity)| capacity.max_sequences(context));
            table.max_sequences.push(fits as f64);
            for (loads, entry) in table.loads.iter_mut().zip(attention) {
                loads.push(&request.as_ref().map(|r| entry.op.load(*r)).unwrap_or_default());
            }
        }
        table
    }
}

/// A value that several threads may ask for and one makes.
type Slot<T> = Arc<OnceLock<Result<Arc<T>>>>;

/// The most recent values by key.
#[derive(Debug)]
struct Recent<K, T> {
    most: usize,
    slots: Mutex<VecDeque<(K, Slot<T>)>>,
}

impl<K: PartialEq, T> Recent<K, T> {
    const fn new(most: usize) -> Self {
        Self { most, slots: Mutex::new(VecDeque::new()) }
    }

    fn get(&self, key: K, make: impl FnOnce() -> Result<T>) -> Result<Arc<T>> {
        let slot = {
            let mut slots = self.slots.lock().map_err(|_| Error::Interrupted)?;
            if let Some(at) = slots.iter().position(|(known, _)| *known == key) {
                let entry = slots.remove(at);
                slots.extend(entry);
            } else {
                if slots.len() == self.most {
                    slots.pop_front();
                }
                slots.push_back((key, Slot::default()));
            }
            slots.back().map(|(_, slot)| Arc::clone(slot)).unwrap_or_default()
        };
        slot.get_or_init(|| make().map(Arc::new)).clone()
    }
}

/// All tables of one sweep.
#[derive(Debug)]
pub(super) struct Tables<'a> {
    space: &'a Space,
    isa: Isa,
    combinations: Recent<u64, Combination>,
    pairs: Recent<(u64, Range<usize>), PairTable>,
    rows: Recent<(u64, Range<usize>), Vec<f64>>,
    costs: Recent<(u64, Range<usize>), Vec<OpCost>>,
    operations: Recent<(RowOp, Rows, Engine, Range<usize>), Vec<f64>>,
}

impl<'a> Tables<'a> {
    pub(super) const fn new(space: &'a Space, isa: Isa) -> Self {
        Self {
            space,
            isa,
            combinations: Recent::new(8),
            pairs: Recent::new(8),
            rows: Recent::new(8),
            costs: Recent::new(8),
            operations: Recent::new(96),
        }
    }

    pub(super) fn combination(&self, index: u64) -> Result<Arc<Combination>> {
        self.combinations.get(index, || Combination::compile(self.space, index))
    }

    pub(super) fn pairs(&self, index: u64, combination: &Combination, pairs: &Range<usize>) -> Result<Arc<PairTable>> {
        self.pairs.get((index, pairs.clone()), || Ok(PairTable::new(self.space, combination, pairs)))
    }

    /// Subtotals that depend on rows only, seconds: for each batch size of the range, one per number of query tokens.
    pub(super) fn rows(&self, index: u64, deployment: &Deployment, batches: &Range<usize>) -> Result<Arc<Vec<f64>>> {
        self.rows.get((index, batches.clone()), || {
            let mut total = vec![0.0; batches.len() * self.space.query_tokens.len()];
            for entry in &deployment.step.row_ops {
                let times = self.operation(deployment, &entry.op, entry.rows, batches)?;
                kernel::accumulate(self.isa, entry.count as f64, &times, &mut total);
            }
            Ok(total)
        })
    }

    /// As [`Self::rows`], with all parts.
    pub(super) fn costs(
        &self,
        index: u64,
        deployment: &Deployment,
        batches: &Range<usize>,
    ) -> Result<Arc<Vec<OpCost>>> {
        self.costs.get((index, batches.clone()), || {
            let counts = self.row_counts(batches);
            Ok(counts.map(|(rows, requests)| deployment.step.rows_cost(rows, requests)).collect())
        })
    }

    /// `(rows, requests)` of each batch size of the range and number of query tokens.
    fn row_counts(&self, batches: &Range<usize>) -> impl Iterator<Item = (u64, u64)> + use<'_, 'a> {
        batches.clone().flat_map(|batch| {
            let requests = self.space.batch_size.at(batch);
            self.space.query_tokens.values().map(move |q| (requests.saturating_mul(q), requests))
        })
    }

    /// Times of one operation, shared by every combination that has it.
    fn operation(
        &self,
        deployment: &Deployment,
        op: &RowOp,
        rows: Rows,
        batches: &Range<usize>,
    ) -> Result<Arc<Vec<f64>>> {
        let step = &deployment.step;
        self.operations.get((op.clone(), rows, step.engine, batches.clone()), || {
            let counts = self.row_counts(batches).map(|(all, last)| step.rows_of(rows, all, last));
            if let RowOp::Gemm(gemm) = op {
                let counts: Vec<f64> = counts.map(|n| n as f64).collect();
                let mut times = vec![0.0; counts.len()];
                kernel::gemm_times(self.isa, gemm, &counts, &mut times);
                return Ok(times);
            }
            Ok(counts.map(|n| op.cost(n).time_s).collect())
        })
    }
}
