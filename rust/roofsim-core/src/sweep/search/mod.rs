//! Exact search without a scan: branch and bound over the numeric axes of every combination.
//!
//! Time grows with batch, context and query tokens, and what fits shrinks with them, so that two corners bound every
//! column over a whole box of rows (`bounds`, `extent`). Boxes that cannot hold a row to keep are dropped, the others
//! divided (`explore`), the most promising first (`driver`), as long as the `goal` could keep one of their rows. Only runs of rows that no bound settles are evaluated, by
//! the same code as in a scan: the result is the scan's, bit for bit, ties included.

mod axis;
mod bounds;
mod driver;
mod explore;
mod extent;
mod goal;
mod groups;
mod influence;
mod known;
mod region;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;

use std::sync::atomic::AtomicBool;

use super::column::Column;
use super::driver::{Progress, Runner, looks};
use super::filter::Filter;
use super::front::Front;
use super::pareto::{Pareto, stopping};
use super::rank::ranked;
use super::space::Space;
use super::top_k::TopK;
use crate::error::Result;
use goal::{BestRows, SharedFront};

/// What a search did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SearchReport {
    /// Rows of the space.
    pub num_configurations: u128,
    /// Rows evaluated one by one.
    pub num_evaluated: u128,
    /// Boxes of rows that were bounded; each takes the cost of at most two corners.
    pub num_bounded: u64,
    /// Deployments compiled; those of many combinations are compiled again when they are asked for again.
    pub num_compiled: u64,
}

/// Search or scan, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Whether a search should take less time.
    pub search: bool,
    /// Why.
    pub reason: String,
}

impl Choice {
    fn scan(reason: impl Into<String>) -> Self {
        Self { search: false, reason: reason.into() }
    }
}

/// Rows below which a scan takes less time than to look for what to leave out.
const SMALL: u128 = 1 << 20;
/// Rows of a combination below which a few rows all over it are nearly all.
const SHORT: u128 = 1 << 12;
/// Rows of a space for each row to keep below which bounds rule out too little.
const ROWS_PER_KEPT: u128 = 1 << 10;

impl Space {
    /// The `k` best rows by `column` among those that pass all filters, as [`Space::top_k`] finds them.
    pub fn search_top_k(
        &self,
        runner: Runner,
        k: usize,
        column: Column,
        filters: &[Filter],
        progress: &mut Progress<'_>,
    ) -> Result<(TopK, SearchReport)> {
        self.check()?;
        TopK::check(k, column)?;
        let goal = BestRows::new(k, column);
        let report = driver::search(self, runner, &goal, filters, progress)?;
        let mut go_on = looks(progress, report.num_configurations);
        let rows = ranked(goal.into_best().into_entries(), k, column.direction().sign(), &mut go_on)?;
        Ok((TopK { rows }, report))
    }

    /// The Pareto front of `objectives` among the rows that pass all filters, as [`Space::pareto`] finds it.
    pub fn search_pareto(
        &self,
        runner: Runner,
        objectives: &[Column],
        filters: &[Filter],
        progress: &mut Progress<'_>,
    ) -> Result<(Pareto, SearchReport)> {
        self.check()?;
        Pareto::check(objectives)?;
        let stop = AtomicBool::new(false);
        let mut progress = stopping(progress, &stop);
        let goal = SharedFront::new(objectives, &stop);
        let report = driver::search(self, runner, &goal, filters, &mut progress)?;
        let mut go_on = looks(&mut progress, report.num_configurations);
        let front = Front::join([goal.into_front()], &mut go_on)?;
        Ok((Pareto::of(front, objectives, &mut go_on)?, report))
    }

    /// Whether a search for `kept` rows should take less time than a scan, and why.
    ///
    /// Parts of a calibrated cost are bounded loosely: a search that ranks by them looks at most rows, for a little more than a scan takes.
    pub fn prefers_search(&self, kept: usize, objectives: &[Column]) -> Choice {
        let rows = self.num_configurations().unwrap_or(u128::MAX);
        let each = self.rows_per_combination();
        let loose = |column: &&Column| {
            use Column::{ComputeS, MemoryS, OverheadS};
            matches!(column, ComputeS | MemoryS | OverheadS)
        };
        if rows < SMALL {
            return Choice::scan(format!("{rows} rows are evaluated sooner than bounded (below {SMALL})"));
        }
        if each < SHORT {
            let rule = format!(
                "the numeric axes make {each} rows of each combination: too few to leave any out (below {SHORT})"
            );
            return Choice::scan(rule);
        }
        if let Some(column) = objectives.iter().find(loose) {
            return Choice::scan(format!("bounds of {} are too loose to rule rows out", column.name()));
        }
        if rows / ROWS_PER_KEPT < kept as u128 {
            return Choice::scan(format!("bounds rule out too little where {kept} of {rows} rows are kept"));
        }
        Choice { search: true, reason: format!("bounds rule out most of {rows} rows") }
    }
}
