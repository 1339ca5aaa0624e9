//! Hands chunks to threads and lets the caller look up between them.
//!
//! Threads live for one call: nothing survives a fork, and a sweep that is stopped leaves nothing behind. Chunks are
//! fixed by the space alone, and what visitors keep does not depend on the order of blocks, so that results do not
//! depend on the number of threads.

use std::ops::{ControlFlow, Range};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use super::block::{Block, Place};
use super::column::Column;
use super::filter::Filter;
use super::kernel::{self, BLOCK, Isa};
use super::space::{Axis, Space};
use super::tables::{Combination, PairTable, Tables};
use crate::deployment::Deployment;
use crate::error::{Error, Result};
use crate::workload::MAX_TOKENS;

/// Pairs of a chunk, where a line has more: their tables stay in the second-level cache.
const CHUNK_PAIRS: usize = 8 * BLOCK;
/// Batch sizes of a chunk.
const CHUNK_BATCHES: usize = 256;
/// Batch sizes times numbers of query tokens of a chunk.
const CHUNK_ROW_COUNTS: usize = 1 << 15;
/// How often the calling thread looks up.
const TICK: Duration = Duration::from_millis(20);

/// Told how many rows are done of how many; may stop the sweep.
pub type Progress<'a> = dyn FnMut(u128, u128) -> ControlFlow<()> + 'a;

/// Sees blocks and keeps what it wants.
pub(super) trait Visitor: Send {
    /// Whether the blocks of a chunk come line by line; otherwise all batch sizes come for the same pairs, whose tables
    /// then stay in the first-level cache.
    const BY_LINE: bool = false;

    /// Whether blocks come with their least time, and most are not looked at any further.
    const SCREENS: bool = false;

    /// Whether the best rows have large batch sizes: those come first then. A hint.
    fn prefers_large_batches(&self) -> bool {
        false
    }

    /// With [`Self::BY_LINE`]: how many rows the first block of a line shall have, whose first row is given.
    fn lead(&mut self, _first_row: u128) -> usize {
        BLOCK
    }

    /// Conditions without which no row is kept: chunks where none can pass are not shown, nor are tables made for them.
    fn filters(&self) -> &[Filter] {
        &[]
    }

    /// Whether what is not seen yet can be left out.
    fn is_done(&self) -> bool {
        false
    }

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

/// One piece of work: some batch sizes over some (context, query) pairs of one combination. In a line its pairs are
/// neighbours: it has all query tokens, or one context.
#[derive(Debug, Clone)]
pub(super) struct Chunk {
    pub(super) combination: u64,
    pub(super) batches: Range<usize>,
    pub(super) contexts: Range<usize>,
    pub(super) queries: Range<usize>,
}

/// An axis cut into pieces.
#[derive(Debug, Clone, Copy)]
struct Pieces {
    size: usize,
    of: usize,
}

impl Pieces {
    fn new(size: usize, of: usize) -> Self {
        Self { size: size.clamp(1, of.max(1)), of }
    }

    const fn count(self) -> u64 {
        self.of.div_ceil(self.size) as u64
    }

    #[expect(clippy::cast_possible_truncation, reason = "positions on an axis")]
    fn at(self, index: u64) -> Range<usize> {
        let start = index as usize * self.size;
        start..(start + self.size).min(self.of)
    }
}

/// The chunks of a space, fixed by the space alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    batches: Pieces,
    contexts: Pieces,
    queries: Pieces,
    num_combinations: u64,
}

impl Plan {
    /// Cuts so that the tables of a chunk stay small, however long the axes are.
    fn of(batches: usize, contexts: usize, queries: usize, num_combinations: u64) -> Self {
        let pieces = Pieces::new(CHUNK_PAIRS, queries);
        Self {
            batches: Pieces::new(CHUNK_BATCHES.min(CHUNK_ROW_COUNTS / pieces.size), batches),
            contexts: Pieces::new(CHUNK_PAIRS / queries.max(1), contexts),
            queries: pieces,
            num_combinations,
        }
    }

    pub(super) fn new(space: &Space) -> Result<Self> {
        let (contexts, queries) = (space.context_tokens.len(), space.query_tokens.len());
        let combinations = space.num_combinations().unwrap_or(u64::MAX);
        let plan = Self::of(space.batch_size.len(), contexts, queries, combinations);
        let counts = [plan.batches.count(), plan.contexts.count(), plan.queries.count(), plan.num_combinations];
        let chunks = counts.iter().try_fold(1_u64, |product, &count| product.checked_mul(count));
        chunks.filter(|&n| n < u64::MAX / 2).ok_or_else(|| {
            Error::overflow("configurations", "product of the axes", "must take fewer than 2^63 chunks of 2^19 rows")
        })?;
        Ok(plan)
    }

    /// Whether the rows of a chunk are neighbours in the space.
    pub(super) const fn has_whole_lines(&self) -> bool {
        self.contexts.size == self.contexts.of && self.queries.size == self.queries.of
    }

    /// Pairs of each part of a line that chunks cut it into, in order.
    pub(super) fn parts_of_line(&self) -> impl Iterator<Item = usize> + use<> {
        let (contexts, queries) = (self.contexts, self.queries);
        (0..contexts.count()).flat_map(move |context| {
            (0..queries.count()).map(move |query| contexts.at(context).len() * queries.at(query).len())
        })
    }

    /// Which part of its lines a chunk has.
    pub(super) const fn part(&self, chunk: &Chunk) -> usize {
        let queries = self.queries.of.div_ceil(self.queries.size);
        chunk.contexts.start / self.contexts.size * queries + chunk.queries.start / self.queries.size
    }

    /// Chunks in a row that have most tables in common.
    const fn run(&self) -> u64 {
        if self.queries.count() > 1 { self.contexts.count() } else { self.batches.count() }
    }

    pub(super) const fn num_chunks(&self) -> u64 {
        self.batches.count() * self.contexts.count() * self.queries.count() * self.num_combinations
    }

    /// Combinations, then query tokens, then contexts, then batch sizes, so that tables of loads are used up before the
    /// next one is made. Long axes of query tokens have larger tables of rows than of loads: there contexts come last.
    pub(super) fn chunk(&self, index: u64) -> Chunk {
        let (batches, contexts, queries) = (self.batches.count(), self.contexts.count(), self.queries.count());
        let (inner, outer) = if queries > 1 {
            (index / contexts % batches, index % contexts)
        } else {
            (index % batches, index / batches % contexts)
        };
        let index = index / (batches * contexts);
        Chunk {
            combination: index / queries,
            batches: self.batches.at(inner),
            contexts: self.contexts.at(outer),
            queries: self.queries.at(index % queries),
        }
    }
}

/// Hands out the chunks of a plan. Each thread works off runs of its own, so that none waits for tables that another one
/// makes; once there are no more, threads help each other.
struct Queue {
    run: u64,
    num_runs: u64,
    next_run: AtomicU64,
    /// What is left of each thread's run.
    left: Vec<Mutex<Range<u64>>>,
}

impl Queue {
    fn new(plan: &Plan, threads: usize) -> Self {
        Self {
            run: plan.run(),
            num_runs: plan.num_chunks() / plan.run(),
            next_run: AtomicU64::new(0),
            left: (0..threads).map(|_| Mutex::new(0..0)).collect(),
        }
    }

    /// The next chunk for a thread. Neighbours start at opposite ends of their runs: a table that both need is there by
    /// the time the other one comes to it.
    fn take(&self, thread: usize) -> Option<u64> {
        let own = self.left.get(thread)?;
        loop {
            let mut left = own.lock().ok()?;
            let chunk = if thread.is_multiple_of(2) { left.next_back() } else { left.next() };
            if chunk.is_some() {
                return chunk;
            }
            let run = self.next_run.fetch_add(1, Ordering::Relaxed);
            if run >= self.num_runs {
                break;
            }
            *left = run * self.run..(run + 1) * self.run;
        }
        self.left.iter().find_map(|left| left.lock().ok()?.next())
    }
}

/// Tells the calling thread of finished rows: not of each chunk, for waking it takes a while from a thread that works.
struct Report {
    sender: mpsc::Sender<Result<u128>>,
    rows: u128,
    last: Instant,
}

impl Report {
    fn new(sender: mpsc::Sender<Result<u128>>) -> Self {
        Self { sender, rows: 0, last: Instant::now() }
    }

    /// Adds the rows of a chunk; returns whether to go on.
    fn add(&mut self, rows: Result<u128>) -> bool {
        match rows {
            Ok(rows) => self.rows += rows,
            Err(error) => {
                let _ = self.sender.send(Err(error));
                return false;
            }
        }
        if self.last.elapsed() < TICK / 4 {
            return true;
        }
        self.last = Instant::now();
        self.sender.send(Ok(std::mem::take(&mut self.rows))).is_ok()
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        let _ = self.sender.send(Ok(self.rows));
    }
}

/// Everything the threads share.
struct Work<'a> {
    space: &'a Space,
    isa: Isa,
    tables: Tables<'a>,
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
        let plan = Plan::new(space)?;
        let threads = self.threads(&plan);
        let queue = Queue::new(&plan, threads);
        let visitors: Mutex<Vec<V>> = Mutex::new(Vec::new());
        let idle: Mutex<Vec<V>> = Mutex::new((0..threads).map(|_| fresh()).collect());
        self.run(space, &plan, columns, progress, |thread, work, report| {
            let Some(mut visitor) = idle.lock().ok().and_then(|mut idle| idle.pop()) else { return };
            while !work.tables.stop.load(Ordering::Relaxed) && !visitor.is_done() {
                let Some(index) = queue.take(thread) else { break };
                if !report.add(work.chunk(&plan.chunk(index), &mut visitor)) {
                    break;
                }
            }
            if let Ok(mut visitors) = visitors.lock() {
                visitors.push(visitor);
            }
        })?;
        visitors.into_inner().map_err(|_| Error::Interrupted)
    }

    /// Shows every block to the visitor that `next` hands out for its chunk; chunks are handed out in order.
    pub(super) fn each_chunk<V: Visitor>(
        self,
        space: &Space,
        plan: &Plan,
        columns: &[Column],
        progress: &mut Progress<'_>,
        next: impl FnMut(&Chunk) -> V + Send,
    ) -> Result<()> {
        let queue = Mutex::new((0_u64, next));
        self.run(space, plan, columns, progress, |_, work, report| {
            while !work.tables.stop.load(Ordering::Relaxed) {
                let Ok(mut queue) = queue.lock() else { return };
                if queue.0 >= plan.num_chunks() {
                    return;
                }
                let chunk = plan.chunk(queue.0);
                queue.0 += 1;
                let mut visitor = (queue.1)(&chunk);
                drop(queue);
                if !report.add(work.chunk(&chunk, &mut visitor)) {
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
        body: impl Fn(usize, &Work<'_>, &mut Report) + Sync,
    ) -> Result<()> {
        space.check()?;
        let work = Work {
            space,
            isa: self.isa,
            tables: Tables::new(space, self.isa),
            needs_costs: columns.iter().any(|c| c.needs_costs()),
        };
        let total = space.num_configurations().unwrap_or(u128::MAX);
        let (sender, receiver) = mpsc::channel();
        std::thread::scope(|scope| {
            for thread in 0..self.threads(plan) {
                let (mut report, work, body) = (Report::new(sender.clone()), &work, &body);
                scope.spawn(move || body(thread, work, &mut report));
            }
            drop(sender);
            let result = supervise(&receiver, &mut 0, total, progress);
            work.tables.stop.store(true, Ordering::Relaxed);
            result
        })
    }
}

impl Work<'_> {
    /// Whether the values of the axes tell that no row of a chunk passes a filter.
    fn excluded(&self, chunk: &Chunk, combination: &Combination, filter: &Filter) -> bool {
        let extent = |axis: &Axis, places: &Range<usize>| {
            let (least, most) = axis.extent(places);
            (least as f64, most as f64)
        };
        let (least, most) = match filter.column {
            Column::BatchSize => extent(&self.space.batch_size, &chunk.batches),
            Column::ContextTokens => extent(&self.space.context_tokens, &chunk.contexts),
            Column::QueryTokens => extent(&self.space.query_tokens, &chunk.queries),
            column => match combination.constant(self.space, column) {
                Some(value) => (value, value),
                None => return false,
            },
        };
        filter.excludes(least, most)
    }

    /// Shows the blocks of a chunk to a visitor; returns the number of rows.
    fn chunk<V: Visitor>(&self, chunk: &Chunk, visitor: &mut V) -> Result<u128> {
        let combination = self.tables.combination(chunk.combination)?;
        if visitor.filters().iter().any(|filter| self.excluded(chunk, &combination, filter)) {
            return Ok(chunk.contexts.len() as u128 * chunk.queries.len() as u128 * chunk.batches.len() as u128);
        }
        let table = self.tables.pairs(chunk, &combination)?;
        let (rows, costs) = match &combination.runs {
            Err(_) => (None, None),
            Ok((deployment, _)) => {
                let rows = self.tables.rows(chunk, deployment)?;
                let costs = self.needs_costs.then(|| self.tables.costs(chunk, deployment));
                (Some(rows), costs.transpose()?)
            }
        };
        let queries = chunk.queries.len();
        let all_queries = self.space.query_tokens.len() as u128;
        let pairs_of_line = self.space.context_tokens.len() as u128 * all_queries;
        let line = u128::from(chunk.combination) * self.space.batch_size.len() as u128 + chunk.batches.start as u128;
        let first_row = line * pairs_of_line + chunk.contexts.start as u128 * all_queries + chunk.queries.start as u128;
        let num_pairs = chunk.contexts.len() * queries;
        let large_first = visitor.prefers_large_batches();
        let mut time = [0.0; BLOCK];
        let mut show = |visitor: &mut V, pairs: Range<usize>, at: usize, earliest: Option<f64>| -> Result<()> {
            self.tables.check_stop()?;
            let of_batch = at * queries..(at + 1) * queries;
            let (first, len) = (pairs.start, pairs.len());
            let batch_size = self.space.batch_size.at(chunk.batches.start + at);
            let place = Place {
                space: self.space,
                combination: &combination,
                isa: self.isa,
                first_row: first_row + at as u128 * pairs_of_line + first as u128,
                batch_size,
                table: &table,
                first,
                len,
                rows_s: rows.as_ref().and_then(|r| r.get(of_batch.clone())).unwrap_or(&[]),
                rows_cost: costs.as_ref().and_then(|c| c.get(of_batch)).unwrap_or(&[]),
                most_query_tokens: (MAX_TOKENS / batch_size) as f64,
            };
            if let Some(time) = time.get_mut(..len) {
                visitor.visit(&Block::new(place, time, earliest));
            }
            Ok(())
        };
        let num_batches = chunk.batches.len();
        if V::BY_LINE {
            for at in 0..num_batches {
                let lead = visitor.lead(first_row + at as u128 * pairs_of_line);
                let mut pairs = 0..lead.clamp(1, BLOCK).min(num_pairs);
                while !pairs.is_empty() {
                    show(visitor, pairs.clone(), at, None)?;
                    pairs = pairs.end..num_pairs.min(pairs.end + BLOCK);
                }
            }
            return Ok(num_pairs as u128 * num_batches as u128);
        }
        let screen = match (&combination.runs, &rows) {
            (Ok((deployment, _)), Some(rows)) if V::SCREENS && queries == 1 => {
                Some(Screen::new(self.isa, self.space, chunk, deployment, &table, rows))
            }
            _ => None,
        };
        let mut earliest = [0.0; CHUNK_BATCHES];
        for first in (0..num_pairs).step_by(BLOCK) {
            let pairs = first..num_pairs.min(first + BLOCK);
            if let Some(screen) = &screen {
                screen.earliest(pairs.clone(), &mut earliest);
            }
            for at in 0..num_batches {
                let at = if large_first { num_batches - 1 - at } else { at };
                let earliest = earliest.get(at).copied().filter(|_| screen.is_some());
                show(visitor, pairs.clone(), at, earliest)?;
            }
        }
        Ok(num_pairs as u128 * chunk.batches.len() as u128)
    }
}

/// Least times of blocks, for all batch sizes of a chunk of one number of query tokens at once.
struct Screen<'a> {
    isa: Isa,
    deployment: &'a Deployment,
    table: &'a PairTable,
    /// Subtotals of the batch sizes.
    rows_s: &'a [f64],
    batches: Vec<f64>,
}

impl<'a> Screen<'a> {
    fn new(
        isa: Isa,
        space: &Space,
        chunk: &Chunk,
        deployment: &'a Deployment,
        table: &'a PairTable,
        rows_s: &'a [f64],
    ) -> Self {
        let batches = chunk.batches.clone().map(|at| space.batch_size.at(at) as f64).collect();
        Self { isa, deployment, table, rows_s, batches }
    }

    /// For each batch size a time that no row of these pairs goes below: the least one, where there is one attention
    /// operation. Rounding is monotone, so the least of the sums is the sum of the least, to the last bit.
    fn earliest(&self, pairs: Range<usize>, earliest: &mut [f64; CHUNK_BATCHES]) {
        let Some(earliest) = earliest.get_mut(..self.rows_s.len()) else { return };
        earliest.copy_from_slice(self.rows_s);
        for (entry, loads) in self.deployment.step.attention.iter().zip(&self.table.loads) {
            let (law, count) = (&entry.op.law, entry.count as f64);
            kernel::add_least_attention(self.isa, law, count, &self.batches, (loads, pairs.clone()), earliest);
        }
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

/// Asks, at most once a tick, whether to go on with what is left to do once every row was seen.
pub(super) fn looks<'a>(progress: &'a mut Progress<'_>, total: u128) -> impl FnMut() -> Result<()> + 'a {
    let mut last: Option<Instant> = None;
    move || {
        if last.is_none_or(|last| last.elapsed() >= TICK) {
            last = Some(Instant::now());
            if progress(total, total).is_break() {
                return Err(Error::Interrupted);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{BLOCK, CHUNK_BATCHES, CHUNK_PAIRS, CHUNK_ROW_COUNTS, Pieces, Plan};

    #[test]
    fn chunks_cover_every_row_once_and_tables_stay_small() {
        let lengths = [1, 2, 257, CHUNK_PAIRS, CHUNK_PAIRS + 1];
        let at = |index: usize| lengths[index % lengths.len()];
        for index in 0..lengths.len().pow(3) {
            let (batches, contexts, queries) = (at(index), at(index / lengths.len()), at(index / lengths.len().pow(2)));
            if batches * contexts * queries > 4_000_000 {
                continue;
            }
            let plan = Plan::of(batches, contexts, queries, 2);
            let parts: Vec<usize> = plan.parts_of_line().collect();
            let mut rows = 0;
            let mut last_end = 0;
            for index in 0..plan.num_chunks() {
                let chunk = plan.chunk(index);
                let pairs = chunk.contexts.len() * chunk.queries.len();
                assert!(pairs <= CHUNK_PAIRS && chunk.batches.len() <= CHUNK_BATCHES);
                assert!(chunk.batches.len() * chunk.queries.len() <= CHUNK_ROW_COUNTS);
                assert!(chunk.queries.len() == queries || chunk.contexts.len() == 1, "neighbours in a line");
                assert!(pairs > 0 && !chunk.batches.is_empty() && chunk.batches.end <= batches);
                assert!(chunk.contexts.end <= contexts && chunk.queries.end <= queries && chunk.combination < 2);
                assert_eq!(pairs, parts[plan.part(&chunk)]);
                if plan.has_whole_lines() {
                    let first = usize::try_from(chunk.combination).unwrap_or(9) * batches + chunk.batches.start;
                    assert_eq!(first, last_end, "neighbours in the space");
                    last_end = first + chunk.batches.len();
                }
                rows += pairs * chunk.batches.len();
            }
            // As many rows as there are, and no two chunks alike: every row once.
            assert_eq!(rows, 2 * batches * contexts * queries);
            let places: std::collections::HashSet<_> = (0..plan.num_chunks())
                .map(|index| plan.chunk(index))
                .map(|c| (c.combination, c.batches.start, c.contexts.start, c.queries.start))
                .collect();
            assert_eq!(places.len() as u64, plan.num_chunks());
            assert_eq!(parts.iter().sum::<usize>(), contexts * queries);
        }
    }

    #[test]
    fn pieces_cover_an_axis() {
        for (size, of) in [(0, 1), (1, 1), (3, 10), (10, 3), (BLOCK, 2 * BLOCK)] {
            let pieces = Pieces::new(size, of);
            let all: Vec<usize> = (0..pieces.count()).flat_map(|at| pieces.at(at)).collect();
            assert_eq!(all, (0..of).collect::<Vec<_>>());
        }
    }
}
