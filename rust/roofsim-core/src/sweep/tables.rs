//! What many rows share, made once, kept while it is used, forgotten after.
//!
//! A deployment is compiled once, and so is everything that combinations have in common: those that differ in capacity
//! limits alone share the compiled step; equal lists of operations share their subtotals, equal operations their times,
//! equal attention its loads. Row counts are the same for all contexts: the subtotal of everything but attention is
//! tabulated per batch size. Contexts are the same for all batches: the load of one request is tabulated per (context,
//! query) pair. Every table is of one chunk, so that none grows with an axis.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use super::driver::Chunk;
use super::kernel::{self, Isa, LoadTable};
use super::space::Space;
use crate::arithmetic::larger;
use crate::capacity::Capacity;
use crate::deployment::{Deployment, DeploymentSpec};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::ops::AttentionOp;
use crate::parallel::Layout;
use crate::parallel::Status;
use crate::roofline::OpCost;
use crate::step::{CompiledStep, RowOp, Rows};
use crate::workload::{MAX_TOKENS, Request};

/// Categorical axes that make a deployment: the rest are capacity limits.
pub(super) const DEPLOYMENT_AXES: usize = 10;

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
    pub(super) runs: std::result::Result<(Arc<Deployment>, Capacity), Status>,
}

impl Combination {
    /// A combination by itself.
    #[cfg(test)]
    pub(super) fn compile(space: &Space, index: u64) -> Result<Self> {
        let (spec, _) = space.combination(index)?;
        Self::of(space, index, &compile(spec)?)
    }

    /// A combination whose deployment is compiled already.
    pub(super) fn of(space: &Space, index: u64, compiled: &Compiled) -> Result<Self> {
        let position = space.position(index);
        let (spec, limits) = space.combination(index)?;
        let runs = match compiled {
            Err(status) => Err(*status),
            Ok(deployment) => Ok((Arc::clone(deployment), Capacity::of(deployment, &limits)?)),
        };
        Ok(Self {
            position,
            layout: spec.layout,
            usd_per_hour: space.price(position[1]),
            gpu_memory_utilization: limits.gpu_memory_utilization,
            limits: [limits.block_size, limits.max_num_batched_tokens, limits.max_num_seqs],
            runs,
        })
    }
}

/// A deployment, or why it does not run.
pub(super) type Compiled = std::result::Result<Arc<Deployment>, Status>;

pub(super) fn compile(spec: DeploymentSpec) -> Result<Compiled> {
    Ok(spec.try_compile()?.map(Arc::new).map_err(|reason| reason.status))
}

/// The (context, query) pairs of part of a line, context by context.
#[derive(Debug, Default)]
pub(super) struct PairTable {
    /// Context of each pair.
    pub(super) context_tokens: Vec<f64>,
    /// New tokens of each pair.
    pub(super) query_tokens: Vec<f64>,
    /// The most of them.
    pub(super) most_query_tokens: f64,
    /// Sequences that fit at each pair's context.
    pub(super) max_sequences: Vec<f64>,
    /// Whether they never become more from a pair to the next: those at whose context something fits come first then.
    pub(super) fits_first: bool,
    /// False where a pair asks for more new tokens than the context holds.
    pub(super) valid: Vec<bool>,
    /// Whether all pairs are valid.
    pub(super) all_valid: bool,
    /// Loads of one request for each attention operation.
    pub(super) loads: Vec<Arc<LoadTable>>,
}

impl PairTable {
    /// The table of any (query, context) pairs.
    pub(super) fn of(
        combination: &Combination,
        pairs: impl ExactSizeIterator<Item = (u64, u64)> + Clone,
        loads: impl Fn(&AttentionOp) -> Result<Arc<LoadTable>>,
    ) -> Result<Self> {
        let mut table = Self { all_valid: true, fits_first: true, ..Self::default() };
        for column in [&mut table.context_tokens, &mut table.query_tokens, &mut table.max_sequences] {
            column.reserve(pairs.len());
        }
        table.valid.reserve(pairs.len());
        let runs = combination.runs.as_ref().ok();
        let (mut last, mut fits) = (0, 0.0);
        for (query, context) in pairs {
            if context != last {
                last = context;
                let before = fits;
                fits = runs.map_or(0, |(_, capacity)| capacity.max_sequences(context)) as f64;
                table.fits_first &= fits <= before || table.max_sequences.is_empty();
            }
            table.context_tokens.push(context as f64);
            table.query_tokens.push(query as f64);
            table.most_query_tokens = larger(query as f64, table.most_query_tokens);
            table.valid.push(query <= context);
            table.all_valid &= query <= context;
            table.max_sequences.push(fits);
        }
        let attention = runs.map_or(&[][..], |(deployment, _)| &deployment.step.attention);
        table.loads = attention.iter().map(|entry| loads(&entry.op)).collect::<Result<_>>()?;
        Ok(table)
    }

    /// The table of any pairs by itself, its loads among it.
    pub(super) fn alone(
        combination: &Combination,
        pairs: &(impl ExactSizeIterator<Item = (u64, u64)> + Clone),
    ) -> Result<Self> {
        Self::of(combination, pairs.clone(), |op| Ok(Arc::new(Self::loads(op, pairs.clone()))))
    }

    /// Loads of one request of any (query, context) pairs; nothing where a pair is not valid.
    pub(super) fn loads(op: &AttentionOp, pairs: impl ExactSizeIterator<Item = (u64, u64)>) -> LoadTable {
        let mut loads = LoadTable::with_capacity(pairs.len());
        for (query, context) in pairs {
            loads.push(&Request::new(query, context).map(|request| op.load(request)).unwrap_or_default());
        }
        loads
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
            if let Some(at) = slots.iter().rposition(|(known, _)| *known == key) {
                // Neighbours ask for the same things: the last one is there already.
                if at + 1 < slots.len() {
                    let entry = slots.remove(at);
                    slots.extend(entry);
                }
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

/// The row times or costs of one list of operations.
#[derive(Debug)]
struct StepKey {
    batches: Range<usize>,
    queries: Range<usize>,
    deployment: Arc<Deployment>,
}

impl PartialEq for StepKey {
    /// Deployments that differ in attention or capacity alone have equal lists.
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (&self.deployment, &other.deployment);
        self.batches == other.batches
            && self.queries == other.queries
            && (Arc::ptr_eq(a, b) || (a.step.engine == b.step.engine && a.step.row_ops == b.step.row_ops))
    }
}

/// Cheapest comparison first.
type OperationKey = (Range<usize>, Range<usize>, Rows, Engine, RowOp);
type LoadKey = (Range<usize>, Range<usize>, AttentionOp);
type PairKey = (u64, Range<usize>, Range<usize>);

/// All tables of one sweep.
#[derive(Debug)]
pub(super) struct Tables<'a> {
    space: &'a Space,
    isa: Isa,
    /// Set when the sweep shall stop: whatever takes long asks.
    pub(super) stop: AtomicBool,
    deployments: Recent<Vec<usize>, Compiled>,
    combinations: Recent<u64, Combination>,
    pairs: Recent<PairKey, PairTable>,
    loads: Recent<LoadKey, LoadTable>,
    rows: Recent<StepKey, Vec<f64>>,
    costs: Recent<StepKey, Vec<OpCost>>,
    operations: Recent<OperationKey, Vec<f64>>,
}

impl<'a> Tables<'a> {
    pub(super) const fn new(space: &'a Space, isa: Isa) -> Self {
        Self {
            space,
            isa,
            stop: AtomicBool::new(false),
            deployments: Recent::new(8),
            combinations: Recent::new(8),
            pairs: Recent::new(8),
            loads: Recent::new(32),
            rows: Recent::new(64),
            costs: Recent::new(8),
            operations: Recent::new(128),
        }
    }

    /// Refuses to go on once the sweep shall stop.
    pub(super) fn check_stop(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
    }

    pub(super) fn combination(&self, index: u64) -> Result<Arc<Combination>> {
        self.combinations.get(index, || {
            // Everything but the capacity limits makes a deployment.
            let position = self.space.position(index);
            let compiled = self.deployments.get(position.iter().take(DEPLOYMENT_AXES).copied().collect(), || {
                let (spec, _) = self.space.combination(index)?;
                compile(spec)
            })?;
            Combination::of(self.space, index, &compiled)
        })
    }

    pub(super) fn pairs(&self, chunk: &Chunk, combination: &Combination) -> Result<Arc<PairTable>> {
        let Chunk { contexts, queries, .. } = chunk;
        let num_queries = queries.len();
        let pairs = (0..contexts.len() * num_queries).map(|pair| {
            let query = self.space.query_tokens.at(queries.start + pair % num_queries);
            (query, self.space.context_tokens.at(contexts.start + pair / num_queries))
        });
        self.pairs.get((chunk.combination, contexts.clone(), queries.clone()), || {
            PairTable::of(combination, pairs.clone(), |op| {
                let key = (contexts.clone(), queries.clone(), op.clone());
                self.loads.get(key, || Ok(PairTable::loads(op, pairs.clone())))
            })
        })
    }

    /// Subtotals that depend on rows only, seconds: for each batch size of the chunk, one per number of query tokens.
    pub(super) fn rows(&self, chunk: &Chunk, deployment: &Arc<Deployment>) -> Result<Arc<Vec<f64>>> {
        self.rows.get(StepKey::new(chunk, deployment), || {
            let mut total = vec![0.0; chunk.batches.len() * chunk.queries.len()];
            for entry in &deployment.step.row_ops {
                self.check_stop()?;
                let times = self.operation(chunk, &deployment.step, &entry.op, entry.rows)?;
                kernel::accumulate(self.isa, entry.count as f64, &times, &mut total);
            }
            Ok(total)
        })
    }

    /// As [`Self::rows`], with all parts.
    pub(super) fn costs(&self, chunk: &Chunk, deployment: &Arc<Deployment>) -> Result<Arc<Vec<OpCost>>> {
        self.costs.get(StepKey::new(chunk, deployment), || {
            let cost = |(rows, requests)| {
                self.check_stop()?;
                Ok(deployment.step.rows_cost(rows, requests))
            };
            self.row_counts(chunk).map(cost).collect()
        })
    }

    /// `(rows, requests)` of each batch size of the chunk and number of query tokens; rows that no step may have count
    /// as the most it may: they are null.
    fn row_counts(&self, chunk: &Chunk) -> impl Iterator<Item = (u64, u64)> + use<'_, 'a> {
        let queries = chunk.queries.clone();
        chunk.batches.clone().flat_map(move |batch| {
            let requests = self.space.batch_size.at(batch);
            let rows = move |query| self.space.query_tokens.at(query).saturating_mul(requests).min(MAX_TOKENS);
            queries.clone().map(move |query| (rows(query), requests))
        })
    }

    /// Times of one operation, shared by every combination that has it.
    fn operation(&self, chunk: &Chunk, step: &CompiledStep, op: &RowOp, rows: Rows) -> Result<Arc<Vec<f64>>> {
        let key = (chunk.batches.clone(), chunk.queries.clone(), rows, step.engine, op.clone());
        self.operations.get(key, || {
            let counts: Vec<f64> =
                self.row_counts(chunk).map(|(all, last)| step.rows_of(rows, all, last) as f64).collect();
            let mut times = vec![0.0; counts.len()];
            kernel::row_times(self.isa, op, &counts, &mut times);
            Ok(times)
        })
    }
}

impl StepKey {
    fn new(chunk: &Chunk, deployment: &Arc<Deployment>) -> Self {
        Self { batches: chunk.batches.clone(), queries: chunk.queries.clone(), deployment: Arc::clone(deployment) }
    }
}
