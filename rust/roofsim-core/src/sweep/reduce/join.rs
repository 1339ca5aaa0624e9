//! The best rows and the front of a range of rows, and of parts that were searched apart.

use super::super::column::{Column, Direction};
use super::super::driver::Progress;
use super::super::pareto::Front;
use super::super::part::rows_of;
use super::super::space::Space;
use super::super::top_k::Best;
use super::super::{Pareto, TopK};
use super::Scan;
use crate::error::Result;

impl TopK {
    /// The `k` best of the rows of several results by one column.
    #[must_use]
    pub fn join(results: &[Self], k: usize, direction: Direction) -> Self {
        let mut best = Best::new(k);
        // Parts may overlap: a row counts once.
        let mut seen = std::collections::HashSet::new();
        for (value, row) in results.iter().flat_map(|result| &result.rows).filter(|(_, row)| seen.insert(*row)) {
            best.offer(direction.sign() * value, *row);
        }
        Self { rows: best.into_rows(direction.sign()) }
    }
}

impl Pareto {
    /// The front of the rows of several results over the same objectives.
    #[must_use]
    pub fn join(results: &[Self], objectives: &[Column]) -> Self {
        let mut front = Front::default();
        for (values, row) in results.iter().flat_map(|result| &result.rows) {
            front.offer(Front::point(objectives, values), *row);
        }
        front.into_pareto(objectives)
    }
}

impl Space {
    /// As [`Space::top_k`], of a range of rows.
    pub fn top_k_of(&self, scan: &Scan<'_>, k: usize, column: Column, progress: &mut Progress<'_>) -> Result<TopK> {
        let rows = rows_of(self, scan.rows.clone())?;
        let mut found = Vec::new();
        scan.each_part(self, rows, progress, |part, filters, tick| {
            let best = part.space.top_k(scan.runner, k, column, filters, tick)?;
            found.push(TopK { rows: best.rows.into_iter().map(|(x, row)| (x, row + part.first_row)).collect() });
            Ok(())
        })?;
        Ok(TopK::join(&found, k, column.direction()))
    }

    /// As [`Space::pareto`], of a range of rows.
    pub fn pareto_of(&self, scan: &Scan<'_>, objectives: &[Column], progress: &mut Progress<'_>) -> Result<Pareto> {
        let rows = rows_of(self, scan.rows.clone())?;
        let mut found = Vec::new();
        scan.each_part(self, rows, progress, |part, filters, tick| {
            let front = part.space.pareto(scan.runner, objectives, filters, tick)?;
            found.push(Pareto { rows: front.rows.into_iter().map(|(x, row)| (x, row + part.first_row)).collect() });
            Ok(())
        })?;
        Ok(Pareto::join(&found, objectives))
    }
}
