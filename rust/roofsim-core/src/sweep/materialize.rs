//! Every row as columns in memory.

use std::sync::Mutex;

use super::column::{Column, ColumnKind};
use super::driver::{Chunk, Progress, Runner};
use super::line::{Row, names};
use super::space::Space;
use crate::error::{Error, Result};
use crate::parallel::Status;

/// Values of one column.
#[derive(Debug, Clone, PartialEq)]
pub enum ColumnData {
    /// Floating point; NaN where the row is null.
    Float(Vec<f64>),
    /// Counts; 0 where the row is null.
    Count(Vec<u64>),
    /// Flags; false where the row is null.
    Flag(Vec<bool>),
    /// Codes into `names`.
    Code {
        /// One code a row.
        codes: Vec<u32>,
        /// What the codes mean.
        names: Vec<String>,
    },
}

/// All requested columns.
#[derive(Debug, Clone, PartialEq)]
pub struct Columns {
    /// In the order asked for.
    pub columns: Vec<(Column, ColumnData)>,
    /// Which rows have no result; a row is null in every column that is not always known.
    pub null: Vec<bool>,
}

/// A column while it is filled, chunk by chunk.
#[derive(Debug)]
enum Part {
    Float(Vec<f64>),
    Count(Vec<u64>),
    Flag(Vec<bool>),
    Code(Vec<u32>),
}

#[derive(Debug)]
struct Block {
    first_row: u128,
    parts: Vec<Part>,
    null: Vec<bool>,
}

impl Part {
    const fn new(kind: ColumnKind) -> Self {
        match kind {
            ColumnKind::Float => Self::Float(Vec::new()),
            ColumnKind::Count => Self::Count(Vec::new()),
            ColumnKind::Flag => Self::Flag(Vec::new()),
            ColumnKind::Code => Self::Code(Vec::new()),
        }
    }

    fn push(&mut self, row: &Row<'_>, column: Column) {
        let known = row.status == Status::Ok || column.is_always_known();
        let count = || if known { row.count(column).unwrap_or(0) } else { 0 };
        match self {
            Self::Float(values) => values.push(row.value(column).unwrap_or(f64::NAN)),
            Self::Count(values) => values.push(count()),
            Self::Flag(values) => values.push(count() == 1),
            Self::Code(values) => values.push(u32::try_from(count()).unwrap_or(0)),
        }
    }
}

impl Space {
    /// Bytes that [`Self::run`] would return for these columns; `None` past the address space.
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

    /// Evaluates every row into columns, refusing results above `max_bytes`.
    pub fn run(
        &self,
        runner: Runner,
        columns: &[Column],
        max_bytes: u128,
        progress: &mut Progress<'_>,
    ) -> Result<Columns> {
        self.check()?;
        let bytes = self.result_bytes(columns).unwrap_or(u128::MAX);
        if bytes > max_bytes {
            let rule = format!(
                "the columns would take more than max_bytes = {max_bytes}; keep the best rows with top_k or pareto, \
                 narrow the axes, or raise max_bytes"
            );
            return Err(Error::spec("result_bytes", bytes, rule));
        }
        let blocks = Mutex::new(Vec::new());
        let start = |chunk: &Chunk| Block {
            first_row: chunk.first_row,
            parts: columns.iter().map(|c| Part::new(c.kind())).collect(),
            null: Vec::new(),
        };
        let visit = |block: &mut Block, row: &Row<'_>| {
            for (part, &column) in block.parts.iter_mut().zip(columns) {
                part.push(row, column);
            }
            block.null.push(row.status != Status::Ok);
        };
        let finish = |block: Block| {
            if let Ok(mut blocks) = blocks.lock() {
                blocks.push(block);
            }
        };
        runner.run(self, progress, start, visit, finish)?;
        let mut blocks = blocks.into_inner().map_err(|_| Error::Interrupted)?;
        blocks.sort_unstable_by_key(|block| block.first_row);
        Ok(join(self, columns, blocks))
    }
}

fn join(space: &Space, columns: &[Column], blocks: Vec<Block>) -> Columns {
    let mut parts: Vec<Part> = columns.iter().map(|c| Part::new(c.kind())).collect();
    let mut null = Vec::new();
    for block in blocks {
        for (all, part) in parts.iter_mut().zip(block.parts) {
            match (all, part) {
                (Part::Float(all), Part::Float(part)) => all.extend(part),
                (Part::Count(all), Part::Count(part)) => all.extend(part),
                (Part::Flag(all), Part::Flag(part)) => all.extend(part),
                (Part::Code(all), Part::Code(part)) => all.extend(part),
                _ => {}
            }
        }
        null.extend(block.null);
    }
    let columns = columns.iter().zip(parts).map(|(&column, part)| {
        let data = match part {
            Part::Float(values) => ColumnData::Float(values),
            Part::Count(values) => ColumnData::Count(values),
            Part::Flag(values) => ColumnData::Flag(values),
            Part::Code(codes) => ColumnData::Code { codes, names: names(space, column) },
        };
        (column, data)
    });
    Columns { columns: columns.collect(), null }
}
