//! Every row as columns, written into memory that the caller provides.

use std::ops::Range;

use super::block::Block;
use super::column::{Column, ColumnKind, names};
use super::driver::{Chunk, Plan, Progress, Runner, Visitor};
use super::kernel::{self, BLOCK, Isa, LINE};
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

    /// Writes a block's column at the rows `start..`; of floating-point numbers see [`Staged`].
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole numbers below 2^53")]
    fn write(&mut self, block: &Block<'_>, column: Column, start: usize) {
        let range = start..start + block.len;
        let mut values = [0.0; BLOCK];
        let Some(values) = values.get_mut(..block.len) else { return };
        block.fill(column, values);
        // NaN becomes 0 in the casts below: a null row is masked anyway.
        match self {
            Self::Float(out) => {
                if let Some(out) = out.get_mut(range) {
                    out.copy_from_slice(values);
                }
            }
            Self::Count(out) => {
                let out = out.get_mut(range).into_iter().flatten();
                out.zip(values).for_each(|(o, v)| *o = *v as u64);
            }
            Self::Flag(out) => {
                let out = out.get_mut(range).into_iter().flatten();
                out.zip(values).for_each(|(o, v)| *o = *v == 1.0);
            }
            Self::Code(out) => {
                let out = out.get_mut(range).into_iter().flatten();
                out.zip(values).for_each(|(o, v)| *o = *v as u32);
            }
        }
    }
}

/// A floating-point column on its way past the caches: rows that do not fill a cache line wait for the next block, because
/// a line written in two parts takes several times as long.
#[derive(Debug, Clone)]
struct Staged {
    values: [f64; LINE + BLOCK],
    /// Rows that wait.
    held: usize,
}

/// Results up to this size are likely to be read from the caches.
const CACHED_BYTES: u128 = 4 << 20;

impl Staged {
    const EMPTY: Self = Self { values: [0.0; LINE + BLOCK], held: 0 };

    /// Takes a block's column; `start` is its place in `out`.
    fn take(&mut self, block: &Block<'_>, column: Column, inverse: Option<&[f64]>, out: &mut [f64], start: usize) {
        let staged = self.held + block.len;
        let Some(out) = start.checked_sub(self.held).and_then(|first| out.get_mut(first..)) else { return };
        let Some(values) = self.values.get_mut(self.held..staged) else { return };
        block.fill_given(column, inverse, values);
        let whole = if staged == out.len() {
            staged
        } else {
            let head = out.as_ptr().align_offset(LINE * size_of::<f64>()).min(staged);
            head + (staged - head) / LINE * LINE
        };
        if let (Some(values), Some(out)) = (self.values.get(..whole), out.get_mut(..whole)) {
            kernel::stream(block.isa, values, out);
        }
        self.values.copy_within(whole..staged, 0);
        self.held = staged - whole;
    }
}

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
    pieces: std::vec::IntoIter<Piece<'o>>,
    piece: Option<Piece<'o>>,
    /// One for each column; `None` where the whole result stays in the caches.
    staged: Option<Vec<Staged>>,
    /// Whether several columns follow from `1 / time`.
    inverts: bool,
    isa: Isa,
}

impl<'o> Writer<'_, 'o> {
    /// The piece that a row is in, and its place there.
    fn find(&mut self, row: u128) -> Option<(&mut Piece<'o>, usize)> {
        while self.piece.as_ref().is_none_or(|piece| row >= piece.first_row + piece.rows as u128) {
            self.finish_piece();
            self.piece = Some(self.pieces.next()?);
        }
        let piece = self.piece.as_mut()?;
        let start = usize::try_from(row - piece.first_row).ok()?;
        Some((piece, start))
    }

    fn finish_piece(&mut self) {
        if let Some(piece) = &mut self.piece {
            piece.clear(self.isa);
        }
    }
}

impl Piece<'_> {
    /// Notes whether rows from `start` on are null.
    fn mark(&mut self, block: &Block<'_>, start: usize) {
        if block.all_valid() && block.has_results() {
            if self.known.end != start {
                self.clear(block.isa);
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
    fn clear(&mut self, isa: Isa) {
        if let Output::Flag(null) = &mut self.null
            && let Some(null) = null.get_mut(std::mem::take(&mut self.known))
        {
            kernel::clear(isa, null);
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

    fn visit(&mut self, block: &Block<'_>) {
        let mut inverse = [0.0; BLOCK];
        let inverse = inverse.get_mut(..block.len).filter(|_| self.inverts && block.has_results());
        let inverse = inverse.map(|inverse| {
            block.inverse(inverse);
            &*inverse
        });
        let (columns, mut staged) = (self.columns, self.staged.take());
        if let Some((piece, start)) = self.find(block.first_row) {
            for (at, (output, &column)) in piece.outputs.iter_mut().zip(columns).enumerate() {
                match (output, staged.as_mut().and_then(|staged| staged.get_mut(at))) {
                    (Output::Float(out), Some(staged)) => staged.take(block, column, inverse, out, start),
                    (output, _) => output.write(block, column, start),
                }
            }
            piece.mark(block, start);
        }
        self.staged = staged;
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
        let rows = self.checked_rows(columns, u128::MAX)?;
        let fitting = outputs.len() == columns.len()
            && null.len() == rows
            && outputs.iter().zip(columns).all(|(o, c)| o.len() == rows && o.kind() == c.kind());
        if !fitting {
            return Err(Error::spec("outputs", outputs.len(), "must hold one slice of every column's kind and length"));
        }
        let plan = Plan::new(self)?;
        let null = Output::Flag(null);
        let mut deal = Deal { space: self, plan, outputs, null, next_row: 0, combination: None, cut: Vec::new() };
        let streams = self.result_bytes(columns).is_none_or(|bytes| bytes > CACHED_BYTES);
        let staged = || vec![Staged::EMPTY; columns.len()];
        let inverts = columns.iter().filter(|column| column.is_rate()).count() > 1;
        let next = |chunk: &Chunk| Writer {
            columns,
            pieces: deal.pieces(chunk).into_iter(),
            piece: None,
            staged: streams.then(staged),
            inverts,
            isa: runner.isa,
        };
        runner.each_chunk(self, &plan, columns, progress, next)?;
        Ok(columns.iter().map(|&column| ColumnMeta { column, names: names(self, column) }).collect())
    }
}
