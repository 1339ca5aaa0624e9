//! The rows that pass, as columns: all of them within a limit, or batch by batch without one.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::block::Block;
use super::column::{Column, ColumnKind};
use super::driver::{Progress, Runner, Visitor, looks};
use super::filter::{Filter, keep_known};
use super::kernel::{BLOCK, Mask};
use super::materialize::Output;
use super::part::{Part, rows_of};
use super::reduce::Scan;
use super::sort::sort;
use super::space::Space;
use crate::error::{Error, Result};
use crate::parallel::Status;

/// The values of one column.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// Floating point; NaN where the row is null.
    Float(Vec<f64>),
    /// Counts; 0 where the row is null.
    Count(Vec<u64>),
    /// Flags; false where the row is null.
    Flag(Vec<bool>),
    /// Codes into [`Space::names`]; 0 where the row is null.
    Code(Vec<u32>),
}

impl Values {
    /// So many zeros, for a sweep to write over.
    fn zeros(column: Column, rows: usize) -> Self {
        match column.kind() {
            ColumnKind::Float => Self::Float(vec![0.0; rows]),
            ColumnKind::Count => Self::Count(vec![0; rows]),
            ColumnKind::Flag => Self::Flag(vec![false; rows]),
            ColumnKind::Code => Self::Code(vec![0; rows]),
        }
    }

    /// To write into.
    pub fn output(&mut self) -> Output<'_> {
        match self {
            Self::Float(x) => Output::Float(x),
            Self::Count(x) => Output::Count(x),
            Self::Flag(x) => Output::Flag(x),
            Self::Code(x) => Output::Code(x),
        }
    }

    fn new(column: Column, rows: usize) -> Self {
        match column.kind() {
            ColumnKind::Float => Self::Float(Vec::with_capacity(rows)),
            ColumnKind::Count => Self::Count(Vec::with_capacity(rows)),
            ColumnKind::Flag => Self::Flag(Vec::with_capacity(rows)),
            ColumnKind::Code => Self::Code(Vec::with_capacity(rows)),
        }
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole numbers below 2^53")]
    fn extend(&mut self, values: impl Iterator<Item = f64>) {
        match self {
            Self::Float(out) => out.extend(values),
            Self::Count(out) => out.extend(values.map(|x| x as u64)),
            Self::Flag(out) => out.extend(values.map(|x| x == 1.0)),
            Self::Code(out) => out.extend(values.map(|x| x as u32)),
        }
    }

    /// Appends a piece of other values of the same kind.
    fn append(&mut self, other: &Self, piece: Range<usize>) {
        match (self, other) {
            (Self::Float(out), Self::Float(x)) => out.extend_from_slice(x.get(piece).unwrap_or(&[])),
            (Self::Count(out), Self::Count(x)) => out.extend_from_slice(x.get(piece).unwrap_or(&[])),
            (Self::Flag(out), Self::Flag(x)) => out.extend_from_slice(x.get(piece).unwrap_or(&[])),
            (Self::Code(out), Self::Code(x)) => out.extend_from_slice(x.get(piece).unwrap_or(&[])),
            _ => {}
        }
    }
}

/// Rows in the order of the space.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection {
    /// Their numbers.
    pub rows: Vec<u64>,
    /// Whether no engine would run the row.
    pub null: Vec<bool>,
    /// One per column asked for.
    pub columns: Vec<Values>,
}

/// Bytes that a row takes: its number, its null flag, its values.
fn row_bytes(columns: &[Column]) -> u64 {
    let width = |column: &Column| match column.kind() {
        ColumnKind::Float | ColumnKind::Count => 8,
        ColumnKind::Code => 4,
        ColumnKind::Flag => 1,
    };
    9 + columns.iter().map(width).sum::<u64>()
}

/// Pieces, of at most a block each, copied between two looks at whether to go on.
const LOOK: usize = 1 << 10;
/// Row numbers written between two looks.
const NUMBERED: usize = 1 << 20;

/// What one thread found: values of pieces of contiguous rows.
struct Gather<'a> {
    part: &'a Part<'a>,
    filters: &'a [Filter],
    columns: &'a [Column],
    /// Rows that all threads keep, and how many are too many.
    kept: &'a AtomicU64,
    most: u64,
    /// First row of each block that was seen and where its rows are in the selection.
    pieces: Vec<(u128, Range<usize>)>,
    found: Selection,
    mask: Box<[Mask; BLOCK]>,
}

impl Visitor for Gather<'_> {
    fn filters(&self) -> &[Filter] {
        self.filters
    }

    /// Once there are too many rows, how many more there are does not matter.
    fn is_done(&self) -> bool {
        self.kept.load(Ordering::Relaxed) > self.most
    }

    fn visit(&mut self, block: &Block<'_>) {
        let Some(mask) = self.mask.get_mut(..block.len) else { return };
        keep_known(block, self.filters, mask);
        let passing: u64 = mask.iter().map(|m| m & 1).sum();
        if passing == 0 || self.kept.fetch_add(passing, Ordering::Relaxed) + passing > self.most {
            return;
        }
        let start = self.found.rows.len();
        let all = passing == block.len as u64;
        let mut chosen = [0; BLOCK];
        let mut count = 0;
        for (j, m) in mask.iter().enumerate() {
            // No branch on what is kept: it may alternate.
            if let Some(slot) = chosen.get_mut(count) {
                *slot = j;
            }
            count += usize::from(*m != 0);
        }
        let chosen = chosen.get(..count).unwrap_or(&[]);
        // `select` refuses spaces whose row numbers pass 2^64.
        let first = u64::try_from(self.part.first_row + block.first_row).unwrap_or(u64::MAX);
        self.found.rows.extend(chosen.iter().map(|&j| first + j as u64));
        if !block.has_results() || block.all_valid() {
            self.found.null.resize(self.found.rows.len(), !block.has_results());
        } else {
            self.found.null.extend(chosen.iter().map(|&j| block.status(j) != Status::Ok));
        }
        let mut values = [0.0; BLOCK];
        let Some(values) = values.get_mut(..block.len) else { return };
        for (&column, out) in self.columns.iter().zip(&mut self.found.columns) {
            block.fill(column, values);
            let offset = self.part.offset(column);
            if offset != 0.0 {
                for x in values.iter_mut() {
                    *x += offset;
                }
            }
            if all {
                out.extend(values.iter().copied());
            } else {
                out.extend(chosen.iter().map(|&j| values.get(j).copied().unwrap_or(f64::NAN)));
            }
        }
        self.pieces.push((block.first_row, start..self.found.rows.len()));
    }
}

impl Selection {
    fn empty(columns: &[Column], rows: usize) -> Self {
        let columns = columns.iter().map(|&column| Values::new(column, rows)).collect();
        Self { rows: Vec::with_capacity(rows), null: Vec::with_capacity(rows), columns }
    }

    /// Appends what threads found of one part, in the order of the rows; asks now and then whether to go on.
    fn append(&mut self, found: Vec<Gather<'_>>, go_on: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        let mut pieces: Vec<(u128, usize, Range<usize>)> = Vec::new();
        let mut selections = Vec::new();
        for (at, gather) in found.into_iter().enumerate() {
            pieces.extend(gather.pieces.into_iter().map(|(row, piece)| (row, at, piece)));
            selections.push(gather.found);
        }
        // Threads take chunks in any order, and each sees the blocks of a chunk in an order of its own.
        let mut order: Vec<(u128, usize)> = pieces.iter().enumerate().map(|(at, (row, ..))| (*row, at)).collect();
        sort(&mut order, Ord::cmp, go_on)?;
        for (count, (_, at)) in order.into_iter().enumerate() {
            if count % LOOK == LOOK - 1 {
                go_on()?;
            }
            let Some((_, at, piece)) = pieces.get(at).cloned() else { continue };
            let Some(found) = selections.get(at) else { continue };
            self.rows.extend_from_slice(found.rows.get(piece.clone()).unwrap_or(&[]));
            self.null.extend_from_slice(found.null.get(piece.clone()).unwrap_or(&[]));
            for (out, values) in self.columns.iter_mut().zip(&found.columns) {
                out.append(values, piece.clone());
            }
        }
        Ok(())
    }
}

/// More rows passed than were to be kept: how many until then, of how many seen.
struct TooMany {
    kept: u64,
    seen: u128,
}

/// All rows of `rows`: nothing has to be looked at before it is known where a row goes.
fn whole(
    space: &Space,
    scan: &Scan<'_>,
    rows: Range<u128>,
    columns: &[Column],
    progress: &mut Progress<'_>,
) -> Result<Selection> {
    let num_rows = usize::try_from(rows.end - rows.start)
        .map_err(|_| Error::overflow("rows", rows.end - rows.start, "must stay below 2^63"))?;
    let mut nothing_yet = |_: u128, total: u128| progress(0, total);
    let mut go_on = looks(&mut nothing_yet, rows.end - rows.start);
    let mut numbers = Vec::with_capacity(num_rows);
    for first in (rows.start..rows.end).step_by(NUMBERED) {
        // `check_row_numbers` refused larger ones.
        let piece = first..rows.end.min(first + NUMBERED as u128);
        numbers.extend(piece.map(|row| u64::try_from(row).unwrap_or(u64::MAX)));
        go_on()?;
    }
    drop(go_on);
    let mut found = Selection {
        rows: numbers,
        null: vec![false; num_rows],
        columns: columns.iter().map(|&column| Values::zeros(column, num_rows)).collect(),
    };
    let outputs = found.columns.iter_mut().map(Values::output).collect();
    space.run_rows(scan.runner, rows, columns, outputs, &mut found.null, progress)?;
    Ok(found)
}

/// The rows of `rows` that pass, or that they are more than `most`.
fn gather(
    space: &Space,
    scan: &Scan<'_>,
    rows: Range<u128>,
    columns: &[Column],
    most: u64,
    progress: &mut Progress<'_>,
) -> Result<std::result::Result<Selection, TooMany>> {
    if scan.filters.is_empty() {
        let (seen, kept) = (rows.end, u64::try_from(rows.end - rows.start).unwrap_or(u64::MAX));
        if kept > most {
            return Ok(Err(TooMany { kept, seen }));
        }
        return whole(space, scan, rows, columns, progress).map(Ok);
    }
    let needed: Vec<Column> = scan.filters.iter().map(|f| f.column).chain(columns.iter().copied()).collect();
    let kept = AtomicU64::new(0);
    let mut seen = 0;
    let mut whole = Selection::empty(columns, 0);
    let outcome = scan.each_part(space, rows, progress, |part, filters, tick| {
        let fresh = || Gather {
            part,
            filters,
            columns,
            kept: &kept,
            most,
            pieces: Vec::new(),
            found: Selection::empty(columns, 0),
            mask: Box::new([0; BLOCK]),
        };
        let found = scan.runner.reduce(
            &part.space,
            &needed,
            &mut |done, total| {
                seen = part.first_row + done;
                if kept.load(Ordering::Relaxed) > most { ControlFlow::Break(()) } else { tick(done, total) }
            },
            fresh,
        )?;
        whole.append(found, &mut looks(tick, part.space.num_configurations().unwrap_or(u128::MAX)))
    });
    let kept = kept.into_inner();
    match outcome {
        _ if kept > most => Ok(Err(TooMany { kept, seen })),
        Err(error) => Err(error),
        Ok(()) => Ok(Ok(whole)),
    }
}

fn check_row_numbers(rows: &Range<u128>) -> Result<()> {
    if rows.end > 1 << 64 {
        return Err(Error::overflow("rows", rows.end, "row numbers must stay below 2^64 to be a column"));
    }
    Ok(())
}

impl Space {
    /// The rows that pass as columns, refused as soon as they take more than `max_bytes`.
    pub fn select(
        &self,
        scan: &Scan<'_>,
        columns: &[Column],
        max_bytes: u128,
        progress: &mut Progress<'_>,
    ) -> Result<Selection> {
        let rows = rows_of(self, scan.rows.clone())?;
        check_row_numbers(&rows)?;
        let width = row_bytes(columns);
        let most = u64::try_from(max_bytes / u128::from(width)).unwrap_or(u64::MAX);
        let (first, total) = (rows.start, rows.end - rows.start);
        gather(self, scan, rows, columns, most, progress)?.map_err(|TooMany { kept, seen }| {
            let rule = format!(
                "rows that pass take more than max_bytes = {max_bytes}, {width} bytes each: {kept} passed by the time \
                 {} of {total} had been looked at; take them in pieces with record_batches, write them with \
                 write_parquet, reduce them with top_k, pareto, best_per_group, counts, histogram or quantiles, filter \
                 more, or raise max_bytes",
                seen.saturating_sub(first)
            );
            Error::spec("result_bytes", u128::from(kept) * u128::from(width), rule)
        })
    }
}

/// Rows that pass, batch by batch: memory for one batch, whatever the size of the space.
#[derive(Debug)]
pub struct Batches {
    space: Arc<Space>,
    runner: Runner,
    columns: Vec<Column>,
    filters: Vec<Filter>,
    rows: Range<u128>,
    /// The row that the first batch began to look at.
    first: u128,
    /// Rows looked at for one batch; grows where few pass.
    window: u128,
    batch_rows: u64,
}

/// Most rows that are looked at before the caller has its say.
const MAX_WINDOW: u128 = 1 << 27;
/// Most rows of a batch.
const MAX_BATCH_ROWS: u64 = 1 << 28;

impl Batches {
    /// Batches of at most `batch_rows` rows that pass, empty ones left out.
    pub fn new(
        space: Arc<Space>,
        runner: Runner,
        columns: Vec<Column>,
        filters: Vec<Filter>,
        rows: Option<Range<u128>>,
        batch_rows: u64,
    ) -> Result<Self> {
        if !(1..=MAX_BATCH_ROWS).contains(&batch_rows) {
            return Err(Error::spec("batch_rows", batch_rows, format!("must be between 1 and {MAX_BATCH_ROWS}")));
        }
        let rows = rows_of(&space, rows)?;
        check_row_numbers(&rows)?;
        let (first, window) = (rows.start, u128::from(batch_rows));
        Ok(Self { space, runner, columns, filters, rows, first, window, batch_rows })
    }

    /// The columns.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The space.
    pub const fn space(&self) -> &Arc<Space> {
        &self.space
    }

    /// The row behind the last one that was looked at.
    pub const fn next_row(&self) -> u128 {
        self.rows.start
    }

    /// The rows of the next batch, where there is no filter to pass: all of them, for [`Self::fill`].
    pub fn next_rows(&self) -> Option<Range<u128>> {
        let end = self.rows.end.min(self.rows.start + u128::from(self.batch_rows));
        self.filters.is_empty().then_some(self.rows.start..end)
    }

    /// Writes the rows that [`Self::next_rows`] named into memory that the caller provides, see [`Space::run_rows`], and
    /// goes on behind them.
    pub fn fill(&mut self, outputs: Vec<Output<'_>>, null: &mut [bool], progress: &mut Progress<'_>) -> Result<()> {
        let Some(rows) = self.next_rows() else {
            return Err(Error::spec("batches", "filtered", "how many rows pass is not known before"));
        };
        let (before, total) = (rows.start - self.first, self.rows.end - self.first);
        let mut tick = |done: u128, _: u128| progress(before + done, total);
        self.space.run_rows(self.runner, rows.clone(), &self.columns, outputs, null, &mut tick)?;
        self.rows.start = rows.end;
        Ok(())
    }

    /// The next batch that has rows; `None` at the end. Progress counts the rows of all batches.
    pub fn next(&mut self, progress: &mut Progress<'_>) -> Result<Option<Selection>> {
        let total = self.rows.end - self.first;
        while !self.rows.is_empty() {
            let end = self.rows.end.min(self.rows.start + self.window);
            let scan = Scan { runner: self.runner, filters: &self.filters, rows: None };
            let window = self.rows.start..end;
            let before = self.rows.start - self.first;
            let mut tick = |done: u128, _: u128| progress(before + done, total);
            match gather(&self.space, &scan, window, &self.columns, self.batch_rows, &mut tick)? {
                // Only a window that had grown holds more rows than a batch: look at half of it.
                Err(TooMany { .. }) => self.window = (self.window / 2).max(u128::from(self.batch_rows)),
                Ok(found) => {
                    self.rows.start = end;
                    if found.rows.len() as u64 <= self.batch_rows / 4 {
                        self.window = (self.window * 2).min(MAX_WINDOW.max(u128::from(self.batch_rows)));
                    }
                    if !found.rows.is_empty() {
                        return Ok(Some(found));
                    }
                }
            }
        }
        Ok(None)
    }
}
