//! How many rows pass, by the values of some columns.

use super::super::block::Block;
use super::super::column::Column;
use super::super::driver::Progress;
use super::super::filter::Filter;
use super::super::kernel::BLOCK;
use super::super::part::Part;
use super::super::space::Space;
use super::key::{GroupKey, Keys, Places};
use super::{Kept, Reduction, Scan};
use crate::error::Result;

struct Counts<'a> {
    keys: &'a Keys,
    counts: Vec<u64>,
    kept: Kept,
}

impl Reduction for Counts<'_> {
    fn fresh(&self) -> Self {
        Self { keys: self.keys, counts: vec![0; self.counts.len()], kept: Kept::default() }
    }

    fn see(&mut self, part: &Part<'_>, block: &Block<'_>, filters: &[Filter]) {
        // Without a filter every row counts.
        let mask = if filters.is_empty() { &[] } else { self.kept.rows(block, filters) };
        let mut each = [0; BLOCK];
        let counts = &mut self.counts;
        let mut add = |group: usize, rows: u64| {
            if let Some(count) = counts.get_mut(group) {
                *count += rows;
            }
        };
        match self.keys.places(part, block, &mut each) {
            Places::One(group) if filters.is_empty() => add(group, block.len as u64),
            Places::One(group) => add(group, mask.iter().map(|m| m & 1).sum()),
            // Neighbours are alike: one addition for as many as are in the same group.
            Places::Each(groups) if filters.is_empty() => {
                groups.chunk_by(|a, b| a == b).for_each(|run| add(run.first().copied().unwrap_or(0), run.len() as u64));
            }
            Places::Each(groups) => {
                let (mut group, mut rows) = (0, 0);
                for (&of_row, m) in groups.iter().zip(mask) {
                    if of_row != group {
                        add(group, std::mem::take(&mut rows));
                        group = of_row;
                    }
                    rows += m & 1;
                }
                add(group, rows);
            }
        }
    }

    fn join(&mut self, other: Self, _: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        self.counts.iter_mut().zip(other.counts).for_each(|(mine, theirs)| *mine += theirs);
        Ok(())
    }
}

impl Space {
    /// Rows that pass, by the values of `by`, groups without rows left out. Rows that no engine would run count where
    /// no filter asks for a result; in a result column their value is null. Without columns: one group of all rows.
    pub fn counts(&self, scan: &Scan<'_>, by: &[Column], progress: &mut Progress<'_>) -> Result<Vec<(GroupKey, u64)>> {
        let keys = Keys::new(self, "by", by)?;
        let empty = Counts { keys: &keys, counts: vec![0; keys.num_groups()], kept: Kept::default() };
        let found = scan.reduce(self, by, empty, progress)?;
        let groups = found.counts.into_iter().enumerate().filter(|(_, rows)| *rows > 0);
        Ok(groups.map(|(group, rows)| (keys.key(group), rows)).collect())
    }
}
