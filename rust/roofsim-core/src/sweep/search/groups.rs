//! The best rows of every group, where all rows of a combination are in one: each is searched against its own group.

use std::sync::OnceLock;

use super::super::column::Column;
use super::super::driver::{Progress, Runner};
use super::super::filter::Filter;
use super::super::pareto::Point;
use super::super::reduce::{Group, Groups, Keys};
use super::super::space::Space;
use super::super::tables::Combination;
use super::super::top_k::TopK;
use super::goal::{BestRows, Goal};
use super::{SearchReport, driver};
use crate::error::Result;

/// The k best rows of every group by one column.
#[derive(Debug)]
struct BestOfGroups<'a> {
    keys: &'a Keys,
    objective: [Column; 1],
    k: usize,
    /// Empty where no row was offered.
    groups: Vec<OnceLock<Box<BestRows>>>,
}

impl<'a> BestOfGroups<'a> {
    fn new(keys: &'a Keys, k: usize, objective: Column) -> Self {
        let groups = (0..keys.num_groups()).map(|_| OnceLock::new()).collect();
        Self { keys, objective: [objective], k, groups }
    }

    fn into_groups(self) -> Groups {
        let keys = self.keys;
        let found = self.groups.into_iter().enumerate();
        let found = found.filter_map(|(group, best)| Some((group, best.into_inner()?.into_rows())));
        found.map(|(group, rows)| Group { key: keys.key(group), rows }).collect()
    }
}

impl Goal for BestOfGroups<'_> {
    fn objectives(&self) -> &[Column] {
        &self.objective
    }

    fn group(&self, space: &Space, combination: &Combination) -> usize {
        self.keys.of_combination(space, combination)
    }

    fn hopeless(&self, group: usize, corner: &Point, first_row: u128) -> bool {
        let best = self.groups.get(group).and_then(OnceLock::get);
        best.is_some_and(|best| best.hopeless(group, corner, first_row))
    }

    fn offer(&self, group: usize, point: &Point, row: u128) {
        let [objective] = self.objective;
        if let Some(best) = self.groups.get(group) {
            best.get_or_init(|| Box::new(BestRows::new(self.k, objective))).offer(group, point, row);
        }
    }
}

impl Space {
    /// The `k` best rows by `column` of every group, as [`Space::best_per_group`] finds them.
    ///
    /// Columns of `group_by` must be the same in all rows of a combination: no batch size, context or query tokens, and no result.
    pub fn search_best_per_group(
        &self,
        runner: Runner,
        k: usize,
        column: Column,
        group_by: &[Column],
        filters: &[Filter],
        progress: &mut Progress<'_>,
    ) -> Result<(Groups, SearchReport)> {
        TopK::check(k, column)?;
        let keys = Keys::new(self, group_by)?;
        keys.check_of_combination()?;
        let goal = BestOfGroups::new(&keys, k, column);
        let report = driver::search(self, runner, &goal, filters, progress)?;
        Ok((goal.into_groups(), report))
    }

    /// Whether a search for the `k` best rows of every group can be made and should take less time than a scan.
    pub fn prefers_group_search(&self, k: usize, column: Column, group_by: &[Column]) -> bool {
        let Ok(keys) = Keys::new(self, group_by) else { return false };
        let kept = k.saturating_mul(keys.num_known());
        keys.check_of_combination().is_ok() && self.prefers_search(kept, &[column])
    }
}
