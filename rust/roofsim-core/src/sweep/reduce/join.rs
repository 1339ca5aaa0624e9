//! The best rows and the front of a range of rows, and of parts that were searched apart.

use super::super::column::{Column, Direction};
use super::super::driver::{Progress, looks};
use super::super::part::rows_of;
use super::super::rank::{Entry, ranked};
use super::super::space::Space;
use super::super::{Pareto, TopK};
use super::Scan;
use crate::error::Result;

/// Rows joined between two looks at whether to go on.
const LOOK: usize = 1 << 16;

impl TopK {
    /// The `k` best of the rows of several results by one column; asks now and then whether to go on.
    pub fn join(
        results: &[Self],
        k: usize,
        direction: Direction,
        mut go_on: impl FnMut() -> Result<()>,
    ) -> Result<Self> {
        let sign = direction.sign();
        let mut entries = Vec::with_capacity(results.iter().map(|result| result.rows.len()).sum());
        // Parts may overlap: a row counts once.
        for rows in results.iter().flat_map(|result| result.rows.chunks(LOOK)) {
            entries.extend(rows.iter().filter(|(x, _)| !x.is_nan()).map(|(x, row)| Entry(sign * x, *row)));
            go_on()?;
        }
        Ok(Self { rows: ranked(entries, k, sign, &mut go_on)? })
    }
}

impl Space {
    /// As [`Space::top_k`], of a range of rows.
    pub fn top_k_of(&self, scan: &Scan<'_>, k: usize, column: Column, progress: &mut Progress<'_>) -> Result<TopK> {
        let rows = rows_of(self, scan.rows.clone())?;
        let total = rows.end - rows.start;
        let mut found = Vec::new();
        scan.each_part(self, rows, progress, |part, filters, tick| {
            let best = part.space.top_k(scan.runner, k, column, filters, tick)?;
            found.push(TopK { rows: best.rows.into_iter().map(|(x, row)| (x, row + part.first_row)).collect() });
            Ok(())
        })?;
        TopK::join(&found, k, column.direction(), looks(progress, total))
    }

    /// As [`Space::pareto`], of a range of rows.
    pub fn pareto_of(&self, scan: &Scan<'_>, objectives: &[Column], progress: &mut Progress<'_>) -> Result<Pareto> {
        let rows = rows_of(self, scan.rows.clone())?;
        let total = rows.end - rows.start;
        let mut found = Vec::new();
        scan.each_part(self, rows, progress, |part, filters, tick| {
            let front = part.space.pareto(scan.runner, objectives, filters, tick)?;
            found.push(Pareto { rows: front.rows.into_iter().map(|(x, row)| (x, row + part.first_row)).collect() });
            Ok(())
        })?;
        Pareto::join(&found, objectives, looks(progress, total))
    }
}
