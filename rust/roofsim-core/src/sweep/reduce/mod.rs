//! Reductions that keep little however many rows they see, and join: of any range of rows, on any number of threads.
//!
//! What a reduction keeps does not depend on the order of its blocks or on how they were shared out: counts add up, and
//! the best rows are chosen by a total order. So the threads of one sweep, and parts of a space reduced apart, join to
//! the same result.

mod counts;
mod groups;
mod histogram;
mod join;
mod key;
mod quantiles;

use std::ops::{ControlFlow, Range};

use super::block::Block;
use super::column::Column;
use super::driver::{Progress, Runner, Visitor, looks};
use super::filter::{Filter, keep_known};
use super::kernel::{self, BLOCK, Mask};
use super::part::{Part, parts, rows_of};
use super::space::Space;
use crate::error::Result;
use crate::parallel::Status;

pub(super) use groups::ranked_groups;
pub use groups::{Group, Groups};
pub use histogram::Histogram;
pub use key::{GroupKey, MAX_GROUPS};
pub(super) use key::{Keys, Places, Span};
pub use quantiles::{RELATIVE_ERROR, Sketch};

/// Which rows a reduction sees, and on how many threads.
#[derive(Debug, Clone)]
pub struct Scan<'a> {
    /// Threads and instruction set; results do not depend on it.
    pub runner: Runner,
    /// Conditions that must all hold.
    pub filters: &'a [Filter],
    /// Row numbers; `None` is all of them.
    pub rows: Option<Range<u128>>,
}

/// What is kept of the rows.
pub(super) trait Reduction: Send + Sized {
    /// One that has seen nothing.
    fn fresh(&self) -> Self;

    /// Sees a block of a part; `filters` are those of the part.
    fn see(&mut self, part: &Part<'_>, block: &Block<'_>, filters: &[Filter]);

    /// Takes in what another one has seen; asks now and then whether to go on where that takes long.
    fn join(&mut self, other: Self, go_on: &mut dyn FnMut() -> Result<()>) -> Result<()>;
}

/// Room for what is kept of a block.
pub(super) struct Kept {
    mask: Box<[Mask; BLOCK]>,
    values: Box<[f64; BLOCK]>,
}

impl Default for Kept {
    fn default() -> Self {
        Self { mask: Box::new([0; BLOCK]), values: Box::new([0.0; BLOCK]) }
    }
}

impl Kept {
    /// One mask per row of the block: all ones where it passes. A row without a result may, where no filter asks for one.
    pub(super) fn rows(&mut self, block: &Block<'_>, filters: &[Filter]) -> &[Mask] {
        let mask = self.mask.get_mut(..block.len).unwrap_or_default();
        keep_known(block, filters, mask);
        mask
    }

    /// Values of a column in the rows that pass, and how many rows pass without one.
    pub(super) fn values(&mut self, block: &Block<'_>, column: Column, filters: &[Filter]) -> Values<'_> {
        let none = Values { rows: &[], rise: true, null: 0 };
        let (mask, values) = (self.mask.get_mut(..block.len), self.values.get_mut(..block.len));
        let (Some(mask), Some(values)) = (mask, values) else { return none };
        if filters.is_empty() {
            // Along a line of rising contexts times rise and rates fall.
            fill_known(block, column, values);
            if values.first() > values.last() {
                values.reverse();
            }
            if kernel::rises(block.isa, values) {
                return Values { rows: values, rise: true, null: 0 };
            }
            mask.fill(Mask::MAX);
        } else {
            keep_known(block, filters, mask);
            if mask.iter().all(|&m| m == 0) {
                return none;
            }
            fill_known(block, column, values);
        }
        let (mut kept, mut null) = (0, 0);
        // No branch on what is kept: it may alternate.
        for row in 0..mask.len() {
            let (x, passes) = (values[row], mask[row] & 1);
            let known = passes & u64::from(!x.is_nan());
            values[kept] = x;
            kept += usize::from(known == 1);
            null += passes - known;
        }
        Values { rows: values.get(..kept).unwrap_or(&[]), rise: false, null }
    }
}

/// Values of the rows of a block that pass.
pub(super) struct Values<'a> {
    /// Those that have one, in any order.
    pub(super) rows: &'a [f64],
    /// Whether they are known to rise.
    pub(super) rise: bool,
    /// Rows that have none.
    pub(super) null: u64,
}

impl Values<'_> {
    /// Least and greatest value; infinities the wrong way round without any.
    fn extent(&self) -> (f64, f64) {
        match self.rows {
            [least, .., most] if self.rise => (*least, *most),
            rows => extent(rows),
        }
    }

    /// Calls `add` with the cell of values and how many of them: `cell` of a value, starting from the cell before it,
    /// and `holds` whether a value is in a cell. Equal cells may come again.
    fn each_cell<C>(
        &self,
        mut cell: impl FnMut(f64, Option<&C>) -> C,
        holds: impl Fn(&C, f64) -> bool,
        mut add: impl FnMut(&C, u64),
    ) {
        let mut last = None;
        let mut rest = self.rows;
        while let [first, others @ ..] = rest {
            let found = cell(*first, last.as_ref());
            let more = if self.rise {
                leading(others, |x| holds(&found, x))
            } else {
                // Neighbours are alike.
                others.iter().position(|&x| !holds(&found, x)).unwrap_or(others.len())
            };
            add(&found, 1 + more as u64);
            rest = others.get(more..).unwrap_or(&[]);
            last = Some(found);
        }
    }
}

/// How many values in front pass a test that none passes behind one that fails.
fn leading(values: &[f64], test: impl Fn(f64) -> bool) -> usize {
    let mut end = 1;
    while values.get(end - 1).is_some_and(|&x| test(x)) {
        end *= 2;
    }
    let start = end / 2;
    start + values.get(start..values.len().min(end)).map_or(0, |part| part.partition_point(|&x| test(x)))
}

/// Fills `values` with a column, NaN where a row has no result: also where the column is the same in all other rows.
fn fill_known(block: &Block<'_>, column: Column, values: &mut [f64]) {
    block.fill(column, values);
    if !column.is_always_known() && !block.all_valid() {
        for (row, value) in values.iter_mut().enumerate() {
            if block.status(row) != Status::Ok {
                *value = f64::NAN;
            }
        }
    }
}

/// Least and greatest value; infinities the wrong way round without any.
fn extent(values: &[f64]) -> (f64, f64) {
    // Eight at a time: a single running value would wait for itself.
    let (mut least, mut most) = ([f64::INFINITY; 8], [f64::NEG_INFINITY; 8]);
    let chunks = values.chunks_exact(8);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, &x) in chunk.iter().enumerate() {
            least[lane] = if x < least[lane] { x } else { least[lane] };
            most[lane] = if x > most[lane] { x } else { most[lane] };
        }
    }
    let least = least.iter().chain(rest).fold(f64::INFINITY, |a, &x| if x < a { x } else { a });
    let most = most.iter().chain(rest).fold(f64::NEG_INFINITY, |a, &x| if x > a { x } else { a });
    (least, most)
}

struct Eyes<'a, R> {
    part: &'a Part<'a>,
    filters: &'a [Filter],
    reduction: R,
}

impl<R: Reduction> Visitor for Eyes<'_, R> {
    fn filters(&self) -> &[Filter] {
        self.filters
    }

    fn visit(&mut self, block: &Block<'_>) {
        self.reduction.see(self.part, block, self.filters);
    }
}

impl Scan<'_> {
    /// Shows every block of the rows to the reduction.
    pub(super) fn reduce<R: Reduction + Sync>(
        &self,
        space: &Space,
        columns: &[Column],
        mut whole: R,
        progress: &mut Progress<'_>,
    ) -> Result<R> {
        let rows = rows_of(space, self.rows.clone())?;
        let columns: Vec<Column> = self.filters.iter().map(|f| f.column).chain(columns.iter().copied()).collect();
        self.each_part(space, rows, progress, |part, filters, tick| {
            let fresh = || Eyes { part, filters, reduction: whole.fresh() };
            let found = self.runner.reduce(&part.space, &columns, tick, fresh)?;
            let found: Vec<R> = found.into_iter().map(|eyes| eyes.reduction).collect();
            let mut go_on = looks(tick, part.space.num_configurations().unwrap_or(u128::MAX));
            for one in found {
                whole.join(one, &mut go_on)?;
            }
            Ok(())
        })?;
        Ok(whole)
    }

    /// Calls `work` with each part of the rows, its filters, and a progress that counts all rows.
    pub(super) fn each_part(
        &self,
        space: &Space,
        rows: Range<u128>,
        progress: &mut Progress<'_>,
        mut work: impl FnMut(&Part<'_>, &[Filter], &mut Progress<'_>) -> Result<()>,
    ) -> Result<()> {
        let (start, total) = (rows.start, rows.end - rows.start);
        for part in parts(space, rows) {
            let before = part.first_row - start;
            let mut tick = |done: u128, _: u128| -> ControlFlow<()> { progress(before + done, total) };
            work(&part, &part.filters(self.filters), &mut tick)?;
        }
        Ok(())
    }
}
