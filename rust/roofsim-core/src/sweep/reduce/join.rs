//! The best rows and the front of a range of rows, and of parts that were searched apart.

use std::collections::HashSet;

use super::super::column::{Column, Direction};
use super::super::driver::Progress;
use super::super::part::rows_of;
use super::super::space::Space;
use super::super::top_k::Best;
use super::super::{Pareto, TopK};
use super::Scan;
use crate::error::{Error, Result};

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
        let mut best = Best::new(k);
        // Parts may overlap: a row counts once.
        let mut seen = HashSet::new();
        for (count, (value, row)) in results.iter().flat_map(|result| &result.rows).enumerate() {
            if count % LOOK == LOOK - 1 {
                go_on()?;
            }
            if seen.insert(*row) {
                best.offer(direction.sign() * value, *row);
            }
        }
        Ok(Self { rows: best.into_rows(direction.sign()) })
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
        let go_on = || if progress(total, total).is_break() { Err(Error::Interrupted) } else { Ok(()) };
        TopK::join(&found, k, column.direction(), go_on)
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
        let go_on = || if progress(total, total).is_break() { Err(Error::Interrupted) } else { Ok(()) };
        Pareto::join(&found, objectives, go_on)
    }
}
