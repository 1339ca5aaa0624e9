//! The best rows of every group.

use super::super::block::Block;
use super::super::column::Column;
use super::super::driver::{Progress, looks};
use super::super::filter::{Filter, keep_passing, latest};
use super::super::kernel::{BLOCK, Mask};
use super::super::part::Part;
use super::super::rank::{Entry, ranked};
use super::super::space::Space;
use super::super::top_k::Best;
use super::key::{GroupKey, Keys, Places};
use super::{Reduction, Scan};
use crate::error::{Error, Result};

/// A group's best rows, best first; ties go to the lower row.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// Values of the grouping columns.
    pub key: GroupKey,
    /// `(value, row)`.
    pub rows: Vec<(f64, u128)>,
}

/// Groups that have a row, in the order of their values.
pub type Groups = Vec<Group>;

/// Rows joined between two looks at whether to go on.
const LOOK: usize = 1 << 13;

/// Mark of a group that no row was seen of.
const UNSEEN: u32 = u32::MAX;

struct Search<'a> {
    keys: &'a Keys,
    column: Column,
    k: usize,
    /// Where in `best` each group is.
    slots: Vec<u32>,
    best: Vec<Best>,
    values: Box<[f64; BLOCK]>,
    mask: Box<[Mask; BLOCK]>,
}

impl<'a> Search<'a> {
    fn new(keys: &'a Keys, column: Column, k: usize) -> Self {
        Self {
            keys,
            column,
            k,
            slots: vec![UNSEEN; keys.num_groups()],
            best: Vec::new(),
            values: Box::new([0.0; BLOCK]),
            mask: Box::new([0; BLOCK]),
        }
    }

    fn seen(&self, group: usize) -> Option<&Best> {
        self.slots.get(group).and_then(|&slot| self.best.get(slot as usize))
    }

    fn offer(&mut self, group: usize, key: f64, row: u128) {
        let Some(slot) = self.slots.get_mut(group) else { return };
        if *slot == UNSEEN {
            *slot = u32::try_from(self.best.len()).unwrap_or(UNSEEN);
            self.best.push(Best::new(self.k));
        }
        if let Some(best) = self.best.get_mut(*slot as usize)
            && key <= best.threshold()
        {
            best.offer(key, row);
        }
    }
}

impl Reduction for Search<'_> {
    fn fresh(&self) -> Self {
        Self::new(self.keys, self.column, self.k)
    }

    fn see(&mut self, part: &Part<'_>, block: &Block<'_>, filters: &[Filter]) {
        if !block.has_results() {
            return;
        }
        let mut each = [0; BLOCK];
        let places = self.keys.places(part, block, &mut each);
        // Where all rows are of one group, one look at the times tells for most blocks that none can enter.
        let reachable = match places {
            Places::One(group) => {
                let threshold = self.seen(group).map_or(f64::INFINITY, Best::threshold);
                block.of_time(self.column).map_or(f64::INFINITY, |of_time| of_time.latest(threshold))
            }
            Places::Each(_) => f64::INFINITY,
        };
        let latest = reachable.min(latest(filters));
        if latest < f64::INFINITY && !block.any_until(latest) {
            return;
        }
        let mut values = std::mem::replace(&mut self.values, Box::new([0.0; BLOCK]));
        let mut mask = std::mem::replace(&mut self.mask, Box::new([0; BLOCK]));
        if let (Some(values), Some(mask)) = (values.get_mut(..block.len), mask.get_mut(..block.len)) {
            keep_passing(block, filters, mask);
            block.fill(self.column, values);
            let sign = self.column.direction().sign();
            for (j, (&value, _)) in values.iter().zip(&*mask).enumerate().filter(|(_, (x, m))| **m != 0 && !x.is_nan())
            {
                let group = match places {
                    Places::One(group) => group,
                    Places::Each(groups) => groups.get(j).copied().unwrap_or(usize::MAX),
                };
                self.offer(group, sign * value, part.first_row + block.first_row + j as u128);
            }
        }
        (self.values, self.mask) = (values, mask);
    }

    fn join(&mut self, mut other: Self, go_on: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        let mut joined = 0;
        for (group, &slot) in other.slots.iter().enumerate().filter(|(_, slot)| **slot != UNSEEN) {
            let Some(best) = other.best.get_mut(slot as usize) else { continue };
            let entries = std::mem::replace(best, Best::new(0)).into_entries();
            for Entry(key, row) in entries {
                self.offer(group, key, row);
                joined += 1;
                if joined % LOOK == 0 {
                    go_on()?;
                }
            }
        }
        Ok(())
    }
}

/// Groups by their numbers with the rows of each, ranked; asks now and then whether to go on.
pub(in super::super) fn ranked_groups(
    keys: &Keys,
    found: impl Iterator<Item = (usize, Best)>,
    (k, sign): (usize, f64),
    go_on: &mut dyn FnMut() -> Result<()>,
) -> Result<Groups> {
    let mut groups = Vec::new();
    for (group, best) in found {
        let rows = ranked(best.into_entries(), k, sign, go_on)?;
        groups.push(Group { key: keys.key(group), rows });
        if groups.len() % LOOK == 0 {
            go_on()?;
        }
    }
    Ok(groups)
}

impl Space {
    /// The `k` best rows by `column` of every group that the columns `group_by` make, among those that pass.
    pub fn best_per_group(
        &self,
        scan: &Scan<'_>,
        k: usize,
        column: Column,
        group_by: &[Column],
        progress: &mut Progress<'_>,
    ) -> Result<Groups> {
        if k == 0 {
            return Err(Error::spec("k", k, "must be at least 1"));
        }
        column.check_objective("by")?;
        let keys = Keys::new(self, "group_by", group_by)?;
        let columns: Vec<Column> = group_by.iter().copied().chain([column]).collect();
        let found = scan.reduce(self, &columns, Search::new(&keys, column, k), progress)?;
        let Search { slots, mut best, .. } = found;
        let groups = slots
            .into_iter()
            .enumerate()
            .filter_map(|(group, slot)| Some((group, std::mem::replace(best.get_mut(slot as usize)?, Best::new(0)))));
        let mut go_on = looks(progress, self.num_configurations().unwrap_or(u128::MAX));
        ranked_groups(&keys, groups, (k, column.direction().sign()), &mut go_on)
    }
}
