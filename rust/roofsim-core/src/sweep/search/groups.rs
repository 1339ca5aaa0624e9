//! The best rows of every group. A region is ruled out where every group that its rows may be in has better ones; one
//! that may hold rows of several groups is divided along the axes that tell them apart.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::column::Column;
use super::super::driver::{Progress, Runner, looks};
use super::super::filter::Filter;
use super::super::front::Point;
use super::super::reduce::{Groups, Keys, ranked_groups};
use super::super::space::Space;
use super::super::top_k::TopK;
use super::goal::{BestRows, Goal};
use super::{Choice, SearchReport, driver};
use crate::error::Result;

/// The k best rows of every group by one column.
#[derive(Debug)]
struct BestOfGroups<'a> {
    keys: &'a Keys,
    objective: [Column; 1],
    k: usize,
    /// Empty where no row was offered.
    groups: Vec<OnceLock<Box<BestRows>>>,
    /// Bits of a key of each group above which none is kept: at hand for looking through many groups.
    thresholds: Vec<AtomicU64>,
}

impl<'a> BestOfGroups<'a> {
    fn new(keys: &'a Keys, k: usize, objective: Column) -> Self {
        let groups = (0..keys.num_groups()).map(|_| OnceLock::new()).collect();
        let thresholds = (0..keys.num_groups()).map(|_| AtomicU64::new(f64::INFINITY.to_bits())).collect();
        Self { keys, objective: [objective], k, groups, thresholds }
    }

    fn into_groups(self, go_on: &mut dyn FnMut() -> Result<()>) -> Result<Groups> {
        let found = self.groups.into_iter().enumerate();
        let found = found.filter_map(|(group, best)| Some((group, best.into_inner()?.into_best())));
        let [objective] = self.objective;
        ranked_groups(self.keys, found, (self.k, objective.direction().sign()), go_on)
    }
}

impl Goal for BestOfGroups<'_> {
    fn objectives(&self) -> &[Column] {
        &self.objective
    }

    fn keys(&self) -> Option<&Keys> {
        Some(self.keys)
    }

    fn hopeless(&self, group: usize, corner: &Point, first_row: u128) -> bool {
        let threshold = self.thresholds.get(group).map_or(f64::INFINITY, |t| f64::from_bits(t.load(Ordering::Relaxed)));
        if corner[0] != threshold {
            return corner[0] > threshold;
        }
        let best = self.groups.get(group).and_then(OnceLock::get);
        best.is_some_and(|best| best.hopeless(group, corner, first_row))
    }

    fn offer(&self, group: usize, point: &Point, row: u128) {
        let [objective] = self.objective;
        if let Some(best) = self.groups.get(group) {
            let best = best.get_or_init(|| Box::new(BestRows::new(self.k, objective)));
            best.offer(group, point, row);
            if let Some(threshold) = self.thresholds.get(group) {
                // Another thread may have stored a lower one meanwhile: a higher one rules out less.
                threshold.store(best.threshold().to_bits(), Ordering::Relaxed);
            }
        }
    }
}

impl Space {
    /// The `k` best rows by `column` of every group, as [`Space::best_per_group`] finds them.
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
        let keys = Keys::new(self, "group_by", group_by)?;
        let goal = BestOfGroups::new(&keys, k, column);
        let report = driver::search(self, runner, &goal, filters, progress)?;
        Ok((goal.into_groups(&mut looks(progress, report.num_configurations))?, report))
    }

    /// Whether a search for the `k` best rows of every group should take less time than a scan, and why; groups that
    /// neither can make are left to a scan to refuse.
    pub fn prefers_group_search(&self, k: usize, column: Column, group_by: &[Column]) -> Choice {
        let Ok(keys) = Keys::new(self, "group_by", group_by) else { return Choice::scan("the groups are refused") };
        self.prefers_search(k.saturating_mul(keys.num_known()), &[column])
    }
}
