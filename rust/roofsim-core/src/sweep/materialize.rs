//! Every row as columns, written into memory that the caller provides.

use super::block::Block;
use super::column::{Column, ColumnKind, names};
use super::driver::{Chunk, Progress, Runner, Visitor};
use super::kernel::BLOCK;
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

    /// Writes a block's column at the rows `start..`.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole numbers below 2^53")]
    fn write(&mut self, block: &Block<'_>, column: Column, start: usize) {
        let range = start..start + block.len;
        if let Self::Float(out) = self {
            if let Some(out) = out.get_mut(range) {
                block.fill(column, out);
            }
            return;
        }
        let mut values = [0.0; BLOCK];
        let Some(values) = values.get_mut(..block.len) else { return };
        block.fill(column, values);
        // NaN becomes 0 in the casts below: a null row is masked anyway.
        match self {
            Self::Float(_) => {}
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

/// One chunk's part of every column.
struct Writer<'a, 'o> {
    columns: &'a [Column],
    outputs: Vec<Output<'o>>,
    null: Output<'o>,
    first_row: u128,
}

impl Visitor for Writer<'_, '_> {
    fn visit(&mut self, block: &Block<'_>) {
        let start = usize::try_from(block.first_row - self.first_row).unwrap_or(usize::MAX);
        for (output, &column) in self.outputs.iter_mut().zip(self.columns) {
            output.write(block, column, start);
        }
        if let Output::Flag(null) = &mut self.null
            && let Some(null) = null.get_mut(start..start + block.len)
        {
            if block.table.all_valid {
                null.fill(block.combination.runs.is_err());
            } else {
                null.iter_mut().enumerate().for_each(|(j, n)| *n = block.status(j) != Status::Ok);
            }
        }
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
        let pairs = self.context_tokens.len() as u128 * self.query_tokens.len() as u128;
        let (mut outputs, mut null) = (outputs, Output::Flag(null));
        let next = |chunk: &Chunk| {
            let first_line = u128::from(chunk.combination) * self.batch_size.len() as u128;
            let rows = chunk.batches.len() * chunk.pairs.len();
            Writer {
                columns,
                outputs: outputs.iter_mut().map(|output| output.take(rows)).collect(),
                null: null.take(rows),
                first_row: (first_line + chunk.batches.start as u128) * pairs,
            }
        };
        runner.each_line(self, columns, progress, next)?;
        Ok(columns.iter().map(|&column| ColumnMeta { column, names: names(self, column) }).collect())
    }
}
