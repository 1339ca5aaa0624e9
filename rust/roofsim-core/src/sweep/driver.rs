//! Hands chunks of lines to threads and lets the caller look up between them.
//!
//! Threads live for one call: nothing survives a fork, and a sweep that is stopped leaves nothing behind. Chunks are
//! fixed by the space alone, so that results do not depend on the number of threads.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use super::combination::Combination;
use super::line::{Row, evaluate};
use super::space::Space;
use crate::error::{Error, Result};

/// Rows of a chunk, at least one line.
const CHUNK_ROWS: u128 = 1 << 14;
/// How often the calling thread looks up.
const TICK: Duration = Duration::from_millis(20);

/// Told how many rows are done of how many; may stop the sweep.
pub type Progress<'a> = dyn FnMut(u128, u128) -> ControlFlow<()> + 'a;

/// One chunk: lines `first_line ..= last` of one combination.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chunk {
    combination: u64,
    first_batch: usize,
    num_batches: usize,
    pub(super) first_row: u128,
}

/// Runs a space.
#[derive(Debug, Clone, Copy)]
pub struct Runner {
    /// Threads; at least one.
    pub num_threads: usize,
}

/// The chunks of a space in row order.
#[derive(Debug, Clone, Copy)]
struct Plan {
    line_rows: u128,
    lines_per_chunk: usize,
    chunks_per_combination: u64,
    num_chunks: u64,
    num_batches: usize,
}

impl Plan {
    fn new(space: &Space) -> Result<Self> {
        let num_batches = space.batch_size.len();
        let line_rows = space.context_tokens.len() as u128 * space.query_tokens.len() as u128;
        let lines_per_chunk = usize::try_from((CHUNK_ROWS / line_rows.max(1)).max(1)).unwrap_or(usize::MAX);
        let chunks_per_combination = num_batches.div_ceil(lines_per_chunk) as u64;
        let num_chunks = space
            .num_combinations()
            .and_then(|n| n.checked_mul(chunks_per_combination))
            .ok_or_else(|| Error::overflow("chunks", "combinations x batch sizes", "must stay below 2^64"))?;
        Ok(Self { line_rows, lines_per_chunk, chunks_per_combination, num_chunks, num_batches })
    }

    fn chunk(&self, index: u64) -> Chunk {
        let combination = index / self.chunks_per_combination;
        let first_batch = usize::try_from(index % self.chunks_per_combination).unwrap_or(0) * self.lines_per_chunk;
        let num_batches = self.lines_per_chunk.min(self.num_batches - first_batch);
        let first_line = u128::from(combination) * self.num_batches as u128 + first_batch as u128;
        Chunk { combination, first_batch, num_batches, first_row: first_line * self.line_rows }
    }
}

impl Runner {
    /// Evaluates every row. `start` makes the state of one chunk, `visit` sees its rows in order, `finish` takes the
    /// state away; chunks finish in any order.
    pub(super) fn run<State>(
        self,
        space: &Space,
        progress: &mut Progress<'_>,
        start: impl Fn(&Chunk) -> State + Sync,
        visit: impl Fn(&mut State, &Row<'_>) + Sync,
        finish: impl Fn(State) + Sync,
    ) -> Result<()> {
        space.check()?;
        let plan = Plan::new(space)?;
        let total = space.num_configurations().unwrap_or(u128::MAX);
        let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let threads = self.num_threads.clamp(1, usize::try_from(plan.num_chunks).unwrap_or(usize::MAX).max(1));
        let (sender, receiver) = mpsc::channel::<Result<u128>>();
        let work = |sender: mpsc::Sender<Result<u128>>| {
            let mut compiled: Option<(u64, Combination)> = None;
            while !stop.load(Ordering::Relaxed) {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= plan.num_chunks {
                    break;
                }
                let chunk = plan.chunk(index);
                let ready = match compiled.take() {
                    Some((known, combination)) if known == chunk.combination => Ok(combination),
                    _ => Combination::compile(space, chunk.combination),
                };
                let combination = match ready {
                    Ok(combination) => combination,
                    Err(error) => {
                        let _ = sender.send(Err(error));
                        break;
                    }
                };
                let mut state = start(&chunk);
                let mut row = chunk.first_row;
                for batch in chunk.first_batch..chunk.first_batch + chunk.num_batches {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    evaluate(space, &combination, row, space.batch_size.at(batch), |r| visit(&mut state, r));
                    row += plan.line_rows;
                }
                finish(state);
                compiled = Some((chunk.combination, combination));
                if sender.send(Ok(row - chunk.first_row)).is_err() {
                    break;
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..threads {
                let sender = sender.clone();
                scope.spawn(|| work(sender));
            }
            drop(sender);
            let result = supervise(&receiver, total, progress);
            stop.store(true, Ordering::Relaxed);
            result
        })
    }
}

/// The calling thread: counts finished rows and asks between ticks whether to go on.
fn supervise(receiver: &mpsc::Receiver<Result<u128>>, total: u128, progress: &mut Progress<'_>) -> Result<()> {
    let mut done = 0_u128;
    let mut last = std::time::Instant::now();
    loop {
        match receiver.recv_timeout(TICK) {
            Ok(rows) => done += rows?,
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                return match progress(done, total) {
                    ControlFlow::Continue(()) => Ok(()),
                    ControlFlow::Break(()) => Err(Error::Interrupted),
                };
            }
        }
        if last.elapsed() >= TICK {
            last = std::time::Instant::now();
            if progress(done, total).is_break() {
                return Err(Error::Interrupted);
            }
        }
    }
}
