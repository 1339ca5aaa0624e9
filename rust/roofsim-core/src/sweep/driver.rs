//! Hands chunks to threads and lets the caller look up between them.
//!
//! Threads live for one call: nothing survives a fork, and a sweep that is stopped leaves nothing behind. Chunks are
//! fixed by the space alone, and what visitors keep does not depend on the order of blocks, so that results do not
//! depend on the number of threads.

use std::ops::{ControlFlow, Range};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use super::block::{Block, Place};
use super::column::Column;
use super::kernel::{BLOCK, Isa};
use super::space::Space;
use super::tables::Tables;
use crate::error::{Error, Result};

/// Pairs of a chunk: their tables stay in the second-level cache.
const CHUNK_PAIRS: usize = 8 * BLOCK;
/// Batch sizes of a chunk.
const CHUNK_BATCHES: usize = 1 << 12;
/// Rows of a chunk of whole lines, at least one line.
const CHUNK_ROWS: usize = 1 << 16;
/// How often the calling thread looks up.
const TICK: Duration = Duration::from_millis(20);

/// Told how many rows are done of how many; may stop the sweep.
pub type Progress<'a> = dyn FnMut(u128, u128) -> ControlFlow<()> + 'a;

/// Sees blocks and keeps what it wants.
pub(super) trait Visitor: Send {
    /// Sees one block.
    fn visit(&mut self, block: &Block<'_>);
}

/// How a sweep runs. Results do not depend on it.
#[derive(Debug, Clone, Copy)]
pub struct Runner {
    /// Threads; at least one.
    pub num_threads: usize,
    /// Instruction set of the loops.
    pub isa: Isa,
}

impl Runner {
    /// A runner on so many threads with the widest instructions there are.
    pub fn new(num_threads: usize) -> Self {
        Self { num_threads, isa: Isa::detect() }
    }
}

/// One piece of work: some batch sizes and some pairs of one combination.
#[derive(Debug, Clone)]
pub(super) struct Chunk {
    pub(super) combination: u64,
    pub(super) batches: Range<usize>,
    pub(super) pairs: Range<usize>,
}

/// The chunks of a space.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    num_batches: usize,
    num_pairs: usize,
    batches_per_chunk: usize,
    pairs_per_chunk: usize,
    num_combinations: u64,
}

impl Plan {
    /// Chunks for reductions: pairs whose tables stay in cache, all batch sizes over them.
    pub(super) fn blocks(space: &Space) -> Result<Self> {
        let batches = (CHUNK_BATCHES / space.query_tokens.len().max(1)).max(1);
        Self::new(space, |_, pairs| (batches, CHUNK_PAIRS.min(pairs)))
    }

    /// Chunks of whole lines: contiguous rows in order.
    pub(super) fn lines(space: &Space) -> Result<Self> {
        Self::new(space, |_, pairs| ((CHUNK_ROWS / pairs).max(1), pairs))
    }

    fn new(space: &Space, size: impl Fn(usize, usize) -> (usize, usize)) -> Result<Self> {
        let too_long = || Error::overflow("context_tokens", "contexts x query_tokens", "must stay below 2^63");
        let num_batches = space.batch_size.len();
        let num_pairs = space.context_tokens.len().checked_mul(space.query_tokens.len()).ok_or_else(too_long)?;
        let (batches, pairs) = size(num_batches, num_pairs);
        let num_combinations = space.num_combinations().unwrap_or(u64::MAX);
        let plan = Self {
            num_batches,
            num_pairs,
            batches_per_chunk: batches.min(num_batches),
            pairs_per_chunk: pairs,
            num_combinations,
        };
        let chunks = (plan.batch_chunks() as u64).checked_mul(plan.pair_chunks() as u64);
        chunks.and_then(|n| n.checked_mul(num_combinations)).ok_or_else(too_long)?;
        Ok(plan)
    }

    fn batch_chunks(&self) -> usize {
        self.num_batches.div_ceil(self.batches_per_chunk)
    }

    fn pair_chunks(&self) -> usize {
        self.num_pairs.div_ceil(self.pairs_per_chunk)
    }

    pub(super) fn num_chunks(&self) -> u64 {
        self.num_combinations * self.batch_chunks() as u64 * self.pair_chunks() as u64
    }

    /// Combinations, then batch sizes, then pairs: contiguous rows wherever chunks are whole lines.
    #[expect(clippy::cast_possible_truncation, reason = "remainders of usize counts")]
    pub(super) fn chunk(&self, index: u64) -> Chunk {
        let (pair_chunks, batch_chunks) = (self.pair_chunks() as u64, self.batch_chunks() as u64);
        let piece = |at: u64, size: usize, of: usize| {
            let start = at as usize * size;
            start..(start + size).min(of)
        };
        Chunk {
            combination: index / (pair_chunks * batch_chunks),
            batches: piece(index / pair_chunks % batch_chunks, self.batches_per_chunk, self.num_batches),
            pairs: piece(index % pair_chunks, self.pairs_per_chunk, self.num_pairs),
        }
    }
}

/// Everything the threads share.
struct Work<'a> {
    space: &'a Space,
    isa: Isa,
    tables: Tables<'a>,
    stop: AtomicBool,
    needs_costs: bool,
}

impl Runner {
    /// Shows every block to one of the visitors, one per thread, and returns them.
    pub(super) fn reduce<V: Visitor>(
        self,
        space: &Space,
        columns: &[Column],
        progress: &mut Progress<'_>,
        fresh: impl Fn() -> V,
    ) -> Result<Vec<V>> {
        let plan = Plan::blocks(space)?;
        let visitors = Mutex::new(Vec::new());
        let idle: Mutex<Vec<V>> = Mutex::new((0..self.threads(&plan)).map(|_| fresh()).collect());
        let next = AtomicU64::new(0);
        self.run(space, &plan, columns, progress, |work, report| {
            let Some(mut visitor) = idle.lock().ok().and_then(|mut idle| idle.pop()) else { return };
            while !work.stop.load(Ordering::Relaxed) {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= plan.num_chunks() {
                    break;
                }
                if report.send(work.chunk(&plan.chunk(index), &mut visitor)).is_err() {
                    break;
                }
            }
            if let Ok(mut visitors) = visitors.lock() {
                visitors.push(visitor);
            }
        })?;
        visitors.into_inner().map_err(|_| Error::Interrupted)
    }

    /// Shows every block of whole lines to the visitor that `next` hands out for its chunk, in any order.
    pub(super) fn each_line<V: Visitor>(
        self,
        space: &Space,
        columns: &[Column],
        progress: &mut Progress<'_>,
        next: impl FnMut(&Chunk) -> V + Send,
    ) -> Result<()> {
        let plan = Plan::lines(space)?;
        let queue = Mutex::new((0_u64, next));
        self.run(space, &plan, columns, progress, |work, report| {
            while !work.stop.load(Ordering::Relaxed) {
                let Ok(mut queue) = queue.lock() else { return };
                if queue.0 >= plan.num_chunks() {
                    return;
                }
                let chunk = plan.chunk(queue.0);
                queue.0 += 1;
                let mut visitor = (queue.1)(&chunk);
                drop(queue);
                if report.send(work.chunk(&chunk, &mut visitor)).is_err() {
                    return;
                }
            }
        })
    }

    fn threads(self, plan: &Plan) -> usize {
        self.num_threads.clamp(1, usize::try_from(plan.num_chunks()).unwrap_or(usize::MAX).max(1))
    }

    fn run(
        self,
        space: &Space,
        plan: &Plan,
        columns: &[Column],
        progress: &mut Progress<'_>,
        body: impl Fn(&Work<'_>, &mpsc::Sender<Result<u128>>) + Sync,
    ) -> Result<()> {
        space.check()?;
        let work = Work {
            space,
            isa: self.isa,
            tables: Tables::new(space, self.isa),
            stop: AtomicBool::new(false),
            needs_costs: columns.iter().any(|c| c.needs_costs()),
        };
        let total = space.num_configurations().unwrap_or(u128::MAX);
        let (sender, receiver) = mpsc::channel();
        std::thread::scope(|scope| {
            for _ in 0..self.threads(plan) {
                let (sender, work, body) = (sender.clone(), &work, &body);
                scope.spawn(move || body(work, &sender));
            }
            drop(sender);
            let result = supervise(&receiver, &mut 0, total, progress);
            work.stop.store(true, Ordering::Relaxed);
            result
        })
    }
}

impl Work<'_> {
    /// Shows the blocks of a chunk to a visitor; returns the number of rows.
    fn chunk(&self, chunk: &Chunk, visitor: &mut impl Visitor) -> Result<u128> {
        let combination = self.tables.combination(chunk.combination)?;
        let table = self.tables.pairs(chunk.combination, &combination, &chunk.pairs)?;
        let queries = self.space.query_tokens.len();
        let (rows, costs) = match &combination.runs {
            Err(_) => (None, None),
            Ok((deployment, _)) => {
                let rows = self.tables.rows(chunk.combination, deployment, &chunk.batches)?;
                let costs = self.needs_costs.then(|| self.tables.costs(chunk.combination, deployment, &chunk.batches));
                (Some(rows), costs.transpose()?)
            }
        };
        let of_batch = |at: usize| at * queries..(at + 1) * queries;
        let pairs_of_line = self.space.context_tokens.len() as u128 * queries as u128;
        let first_line = u128::from(chunk.combination) * self.space.batch_size.len() as u128;
        let mut place = Place {
            space: self.space,
            combination: &combination,
            isa: self.isa,
            first_row: 0,
            batch_size: 0,
            table: &table,
            first: 0,
            len: 0,
            first_pair: 0,
            rows_s: &[],
            rows_cost: &[],
        };
        let num_pairs = chunk.pairs.len();
        let mut time = [0.0; BLOCK];
        for first in (0..num_pairs).step_by(BLOCK) {
            for (at, batch) in chunk.batches.clone().enumerate() {
                if at % 64 == 0 && self.stop.load(Ordering::Relaxed) {
                    return Err(Error::Interrupted);
                }
                place.first = first;
                place.first_pair = chunk.pairs.start + first;
                place.len = BLOCK.min(num_pairs - first);
                place.batch_size = self.space.batch_size.at(batch);
                place.first_row = (first_line + batch as u128) * pairs_of_line + place.first_pair as u128;
                place.rows_s = rows.as_ref().and_then(|r| r.get(of_batch(at))).unwrap_or(&[]);
                place.rows_cost = costs.as_ref().and_then(|c| c.get(of_batch(at))).unwrap_or(&[]);
                if let Some(time) = time.get_mut(..place.len) {
                    visitor.visit(&Block::evaluate(place, time));
                }
            }
        }
        Ok(num_pairs as u128 * chunk.batches.len() as u128)
    }
}

/// The calling thread: adds finished rows to `done` and asks between ticks whether to go on.
pub(super) fn supervise(
    receiver: &mpsc::Receiver<Result<u128>>,
    done: &mut u128,
    total: u128,
    progress: &mut Progress<'_>,
) -> Result<()> {
    let mut last = Instant::now();
    loop {
        match receiver.recv_timeout(TICK) {
            Ok(rows) => *done += rows?,
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                return match progress(*done, total) {
                    ControlFlow::Continue(()) => Ok(()),
                    ControlFlow::Break(()) => Err(Error::Interrupted),
                };
            }
        }
        if last.elapsed() >= TICK {
            last = Instant::now();
            if progress(*done, total).is_break() {
                return Err(Error::Interrupted);
            }
        }
    }
}
