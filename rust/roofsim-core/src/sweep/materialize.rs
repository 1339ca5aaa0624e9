//! Every row as columns, written into memory that the caller provides.

use std::ops::Range;

use super::block::Block;
use super::column::{Column, ColumnKind, names};
use super::driver::{Chunk, Plan, Progress, Runner, Visitor};
use super::kernel::{self, BLOCK, Isa, Word};
use super::part::{Part, rows_of};
use super::reduce::Scan;
use super::space::Space;
use crate::error::{Error, Result};
use crate::parallel::Status;

/// Where one column goes; as long as the space has rows.
#[derive(Debug)]
pub enum Output<'a> {
    /// Floating point; NaN where the row is null.
    Float(&'a mut [f64]),
    /// Counts; 0 where the row is null.
    Count(&'a mut [u64]),
    /// Flags; false where the row is null.
    Flag(&'a mut [bool]),
    /// Codes into [`ColumnMeta::names`].
    Code(&'a mut [u32]),
}

/// What a column's numbers mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnMeta {
    /// The column.
    pub column: Column,
    /// Names behind the codes; empty for numbers.
    pub names: Vec<String>,
}

impl Output<'_> {
    const fn len(&self) -> usize {
        match self {
            Self::Float(x) => x.len(),
            Self::Count(x) => x.len(),
            Self::Flag(x) => x.len(),
            Self::Code(x) => x.len(),
        }
    }

    const fn kind(&self) -> ColumnKind {
        match self {
            Self::Float(_) => ColumnKind::Float,
            Self::Count(_) => ColumnKind::Count,
            Self::Flag(_) => ColumnKind::Flag,
            Self::Code(_) => ColumnKind::Code,
        }
    }

    /// Takes the first `rows` rows off the front.
    fn take(&mut self, rows: usize) -> Self {
        #[expect(clippy::mut_mut, reason = "the slice itself moves forward")]
        fn split<'a, T>(slice: &mut &'a mut [T], rows: usize) -> &'a mut [T] {
            let whole = std::mem::take(slice);
            let (first, rest) = whole.split_at_mut(rows.min(whole.len()));
            *slice = rest;
            first
        }
        match self {
            Self::Float(x) => Output::Float(split(x, rows)),
            Self::Count(x) => Output::Count(split(x, rows)),
            Self::Flag(x) => Output::Flag(split(x, rows)),
            Self::Code(x) => Output::Code(split(x, rows)),
        }
    }

    /// Bytes of a value.
    const fn width(&self) -> usize {
        match self {
            Self::Float(_) | Self::Count(_) => 8,
            Self::Code(_) => 4,
            Self::Flag(_) => 1,
        }
    }

    /// How many rows from this one on come before one where a cache line begins.
    fn before_line(&self, row: usize) -> usize {
        match self {
            Self::Float(x) => x.get(row..).map_or(0, kernel::before_line),
            Self::Count(x) => x.get(row..).map_or(0, kernel::before_line),
            Self::Flag(x) => x.get(row..).map_or(0, kernel::before_line),
            Self::Code(x) => x.get(row..).map_or(0, kernel::before_line),
        }
    }

    /// Writes a block's column at the rows `start..`, its codes moved by `offset`: those that move are the same in a block.
    fn write(
        &mut self,
        block: &Block<'_>,
        column: Column,
        offset: f64,
        inverse: Option<&[f64]>,
        store: Store,
        start: usize,
    ) {
        let rows = start..start + block.len;
        match self {
            Self::Float(out) => {
                let Some(out) = out.get_mut(rows) else { return };
                if let Some(value) = block.constant(column) {
                    store.repeat(value, out);
                } else if let Some(from_time) = block.of_times(column) {
                    let time = (block.time_s(), inverse);
                    kernel::from_time(store.isa, from_time, time, store.streams, out);
                } else {
                    store.each(out, |values| block.fill(column, values));
                }
            }
            Self::Count(out) => {
                let Some(out) = out.get_mut(rows) else { return };
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
                if let Some(value) = block.constant(column) {
                    store.repeat(value as u64, out);
                } else {
                    store.each(out, |counts| {
                        kernel::counts(store.isa, filled(block, column, &mut [0.0; BLOCK]), counts);
                    });
                }
            }
            Self::Flag(out) => {
                let Some(out) = out.get_mut(rows) else { return };
                if let (Column::Fits, Some(fitting)) = (column, block.fitting_first()) {
                    let (fit, rest) = out.split_at_mut(fitting);
                    store.repeat(true, fit);
                    store.repeat(false, rest);
                } else {
                    let values = &mut [0.0; BLOCK];
                    out.iter_mut().zip(filled(block, column, values)).for_each(|(out, x)| *out = *x == 1.0);
                }
            }
            Self::Code(out) => {
                let Some(out) = out.get_mut(rows) else { return };
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a position among names")]
                if let Some(value) = block.constant(column) {
                    store.repeat((value + offset) as u32, out);
                } else if column == Column::Bound && block.has_results() && block.all_valid() {
                    store.copy(block.bounds(), out);
                } else {
                    store.each(out, |codes| kernel::codes(store.isa, filled(block, column, &mut [0.0; BLOCK]), codes));
                }
            }
        }
    }
}

/// A block's column, NaN where it is null.
fn filled<'v>(block: &Block<'_>, column: Column, values: &'v mut [f64; BLOCK]) -> &'v [f64] {
    let Some(values) = values.get_mut(..block.len) else { return &[] };
    block.fill(column, values);
    values
}

/// How columns are stored.
#[derive(Debug, Clone, Copy)]
struct Store {
    isa: Isa,
    /// Past the caches.
    streams: bool,
}

impl Store {
    fn repeat<T: Word>(self, value: T, out: &mut [T]) {
        if self.streams { kernel::repeat(self.isa, value, out) } else { out.fill(value) }
    }

    fn copy<T: Word>(self, values: &[T], out: &mut [T]) {
        if self.streams { kernel::stream(self.isa, values, out) } else { out.copy_from_slice(values) }
    }

    /// Stores what `fill` fills.
    fn each<T: Word + Default>(self, out: &mut [T], fill: impl FnOnce(&mut [T])) {
        if !self.streams {
            return fill(out);
        }
        let mut values = [T::default(); BLOCK];
        let Some(values) = values.get_mut(..out.len()) else { return };
        fill(values);
        kernel::stream(self.isa, values, out);
    }
}

/// Results up to this size are likely to be read from the caches.
const CACHED_BYTES: u128 = 4 << 20;

/// Parts of lines of fewer rows, unless they are whole cache lines, are not stored past the caches: too much of them is at
/// their ends.
const LONG_LINE: usize = 1024;

/// Neighbouring rows of every column.
#[derive(Debug)]
struct Piece<'o> {
    first_row: u128,
    rows: usize,
    outputs: Vec<Output<'o>>,
    null: Output<'o>,
    /// The latest rows that are not null and not marked so yet.
    known: Range<usize>,
}

impl<'o> Piece<'o> {
    /// Takes the next rows off the front of all columns.
    fn take(first_row: u128, rows: usize, outputs: &mut [Output<'o>], null: &mut Output<'o>) -> Self {
        let outputs = outputs.iter_mut().map(|output| output.take(rows)).collect();
        Self { first_row, rows, outputs, null: null.take(rows), known: 0..0 }
    }
}

/// One chunk's part of every column: all of it in one piece, or one piece a line.
struct Writer<'a, 'o> {
    columns: &'a [Column],
    /// What to add to the codes of each column.
    offsets: &'a [f64],
    pieces: std::vec::IntoIter<Piece<'o>>,
    piece: Option<Piece<'o>>,
    /// Whether several columns follow from `1 / time`.
    inverts: bool,
    /// `1 / time` of a block.
    inverse: [f64; BLOCK],
    store: Store,
}

impl Writer<'_, '_> {
    /// Goes on to the piece that a row is in; the row's place there.
    fn find(&mut self, row: u128) -> Option<usize> {
        while self.piece.as_ref().is_none_or(|piece| row >= piece.first_row + piece.rows as u128) {
            self.finish_piece();
            self.piece = Some(self.pieces.next()?);
        }
        usize::try_from(row - self.piece.as_ref()?.first_row).ok()
    }

    fn finish_piece(&mut self) {
        if let Some(piece) = &mut self.piece {
            piece.clear(self.store);
        }
    }
}

impl Piece<'_> {
    /// Notes whether rows from `start` on are null.
    fn mark(&mut self, block: &Block<'_>, store: Store, start: usize) {
        if block.all_valid() && block.has_results() {
            if self.known.end != start {
                self.clear(store);
                self.known.start = start;
            }
            self.known.end = start + block.len;
            return;
        }
        let Output::Flag(null) = &mut self.null else { return };
        let Some(null) = null.get_mut(start..start + block.len) else { return };
        if block.all_valid() {
            null.fill(true);
        } else {
            null.iter_mut().enumerate().for_each(|(j, n)| *n = block.status(j) != Status::Ok);
        }
    }

    /// Writes that the rows noted as known are not null.
    fn clear(&mut self, store: Store) {
        if let Output::Flag(null) = &mut self.null
            && let Some(null) = null.get_mut(std::mem::take(&mut self.known))
        {
            store.repeat(false, null);
        }
    }
}

impl Drop for Writer<'_, '_> {
    fn drop(&mut self) {
        self.finish_piece();
        kernel::fence();
    }
}

impl Visitor for Writer<'_, '_> {
    const BY_LINE: bool = true;

    /// Ends the first block where a cache line of the widest columns begins, and of others with it where they agree.
    fn lead(&mut self, first_row: u128) -> usize {
        if !self.store.streams {
            return BLOCK;
        }
        let start = self.find(first_row);
        let (Some(start), Some(piece)) = (start, &self.piece) else { return BLOCK };
        let (mut lead, mut lines) = (0, 1);
        for width in [8, 4, 1] {
            for output in piece.outputs.iter().filter(|output| output.width() == width) {
                let before = output.before_line(start);
                if before % lines == lead {
                    (lead, lines) = (before, kernel::LINE_BYTES / width);
                }
            }
        }
        if lead == 0 { BLOCK } else { BLOCK - kernel::LINE_BYTES + lead }
    }

    fn visit(&mut self, block: &Block<'_>) {
        let store = self.store;
        let Some(start) = self.find(block.first_row) else { return };
        let Some(piece) = &mut self.piece else { return };
        let inverse = self.inverse.get_mut(..block.len).filter(|_| self.inverts && block.has_results());
        let inverse = inverse.and_then(|inverse| {
            let usable = kernel::invert(block.isa, block.time_s(), inverse);
            usable.then_some(&*inverse)
        });
        for ((output, &column), &offset) in piece.outputs.iter_mut().zip(self.columns).zip(self.offsets) {
            output.write(block, column, offset, inverse, store, start);
        }
        piece.mark(block, store, start);
    }
}

/// Hands every chunk its part of the columns. Chunks come in order, combination by combination; where they cut lines,
/// the lines of one combination are cut beforehand.
struct Deal<'a, 'o> {
    space: &'a Space,
    plan: Plan,
    outputs: Vec<Output<'o>>,
    null: Output<'o>,
    next_row: u128,
    combination: Option<u64>,
    /// Line by line, part by part.
    cut: Vec<Option<Piece<'o>>>,
}

impl<'o> Deal<'_, 'o> {
    fn take(&mut self, rows: usize) -> Piece<'o> {
        let piece = Piece::take(self.next_row, rows, &mut self.outputs, &mut self.null);
        self.next_row += rows as u128;
        piece
    }

    fn pieces(&mut self, chunk: &Chunk) -> Vec<Piece<'o>> {
        if self.plan.has_whole_lines() {
            return vec![self.take(chunk.batches.len() * chunk.contexts.len() * chunk.queries.len())];
        }
        let parts: Vec<usize> = self.plan.parts_of_line().collect();
        if self.combination != Some(chunk.combination) {
            self.combination = Some(chunk.combination);
            let lines = 0..self.space.batch_size.len();
            self.cut = lines.flat_map(|_| &parts).map(|&rows| Some(self.take(rows))).collect();
        }
        let part = self.plan.part(chunk);
        let of_lines = chunk.batches.clone().map(|line| line * parts.len() + part);
        of_lines.filter_map(|at| self.cut.get_mut(at).and_then(Option::take)).collect()
    }
}

impl Space {
    /// Bytes that the columns and the null flags take; `None` past any address space.
    pub fn result_bytes(&self, columns: &[Column]) -> Option<u128> {
        let width: u128 = columns
            .iter()
            .map(|column| match column.kind() {
                ColumnKind::Float | ColumnKind::Count => 8,
                ColumnKind::Code => 4,
                ColumnKind::Flag => 1,
            })
            .sum();
        self.num_configurations()?.checked_mul(width + 1)
    }

    /// Number of rows, refused where the columns would take more than `max_bytes`.
    pub fn checked_rows(&self, columns: &[Column], max_bytes: u128) -> Result<usize> {
        self.check()?;
        let bytes = self.result_bytes(columns).unwrap_or(u128::MAX);
        if bytes > max_bytes {
            let rule = format!(
                "the columns would take more than max_bytes = {max_bytes}; take the rows in pieces with record_batches, \
                 write them with write_parquet, reduce them with top_k, pareto, best_per_group, counts, histogram or \
                 quantiles, keep those that pass a filter (where), narrow the axes, or raise max_bytes"
            );
            return Err(Error::spec("result_bytes", bytes, rule));
        }
        let rows = self.num_configurations().unwrap_or(u128::MAX);
        usize::try_from(rows).map_err(|_| Error::overflow("rows", rows, "must stay below 2^63"))
    }

    /// Evaluates every row into `outputs` (one per column, each of the column's kind) and marks null rows.
    pub fn run(
        &self,
        runner: Runner,
        columns: &[Column],
        outputs: Vec<Output<'_>>,
        null: &mut [bool],
        progress: &mut Progress<'_>,
    ) -> Result<Vec<ColumnMeta>> {
        let rows = 0..self.checked_rows(columns, u128::MAX)? as u128;
        self.run_rows(runner, rows, columns, outputs, null, progress)?;
        Ok(columns.iter().map(|&column| ColumnMeta { column, names: names(self, column) }).collect())
    }

    /// As [`Self::run`], of a range of rows.
    pub fn run_rows(
        &self,
        runner: Runner,
        rows: Range<u128>,
        columns: &[Column],
        mut outputs: Vec<Output<'_>>,
        null: &mut [bool],
        progress: &mut Progress<'_>,
    ) -> Result<()> {
        let rows = rows_of(self, Some(rows))?;
        let num_rows = rows.end - rows.start;
        let fitting = outputs.len() == columns.len()
            && null.len() as u128 == num_rows
            && outputs.iter().zip(columns).all(|(o, c)| o.len() as u128 == num_rows && o.kind() == c.kind());
        if !fitting {
            return Err(Error::spec("outputs", outputs.len(), "must hold one slice of every column's kind and length"));
        }
        let mut null = Output::Flag(null);
        let scan = Scan { runner, filters: &[], rows: None };
        scan.each_part(self, rows, progress, |part, _, tick| {
            let rows = usize::try_from(part.space.num_configurations().unwrap_or(0)).unwrap_or(0);
            let part_outputs = outputs.iter_mut().map(|output| output.take(rows)).collect();
            run_part(part, runner, columns, part_outputs, null.take(rows), tick)
        })
    }
}

/// Evaluates a part.
fn run_part(
    part: &Part<'_>,
    runner: Runner,
    columns: &[Column],
    outputs: Vec<Output<'_>>,
    null: Output<'_>,
    progress: &mut Progress<'_>,
) -> Result<()> {
    let space: &Space = &part.space;
    let plan = Plan::new(space)?;
    let mut deal = Deal { space, plan, outputs, null, next_row: 0, combination: None, cut: Vec::new() };
    let is_long = |rows: usize| rows >= LONG_LINE || rows.is_multiple_of(kernel::LINE_BYTES);
    let streams = space.result_bytes(columns).is_none_or(|bytes| bytes > CACHED_BYTES);
    let inverts = columns.iter().filter(|column| column.is_rate()).count() > 1;
    let offsets: Vec<f64> = columns.iter().map(|&column| part.offset(column)).collect();
    let next = |chunk: &Chunk| Writer {
        columns,
        offsets: &offsets,
        pieces: deal.pieces(chunk).into_iter(),
        piece: None,
        inverts,
        inverse: [0.0; BLOCK],
        store: Store { isa: runner.isa, streams: streams && is_long(chunk.contexts.len() * chunk.queries.len()) },
    };
    runner.each_chunk(space, &plan, columns, progress, next)
}
