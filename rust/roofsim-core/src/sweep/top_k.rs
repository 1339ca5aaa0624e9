//! The k best rows by one column.

use super::block::Block;
use super::column::{Column, Direction};
use super::driver::{Progress, Runner, Visitor};
use super::filter::{Filter, keep_passing, latest};
use super::kernel::{self, BLOCK, Mask};
use super::space::Space;
use crate::error::{Error, Result};

/// The best rows, best first; ties go to the lower row.
#[derive(Debug, Clone, PartialEq)]
pub struct TopK {
    /// `(value, row)`.
    pub rows: Vec<(f64, u128)>,
}

impl TopK {
    /// Refuses to keep nothing, or to rank by names.
    pub(super) fn check(k: usize, column: Column) -> Result<()> {
        if k == 0 {
            return Err(Error::spec("k", k, "must be at least 1"));
        }
        column.check_objective("by")
    }
}

/// Keeps the k best of what it is shown. The order is total, so any way of splitting the rows gives the same result.
#[derive(Debug, Clone)]
pub(super) struct Best {
    k: usize,
    /// `(key, row)`, ascending: smaller is better.
    rows: Vec<(f64, u128)>,
}

impl Best {
    pub(super) const fn new(k: usize) -> Self {
        Self { k, rows: Vec::new() }
    }

    /// Keys above this cannot enter; infinity until k rows are known.
    pub(super) fn threshold(&self) -> f64 {
        if self.rows.len() < self.k { f64::INFINITY } else { self.rows.last().map_or(f64::INFINITY, |row| row.0) }
    }

    pub(super) fn offer(&mut self, key: f64, row: u128) {
        let entry = (key, row);
        if self.rows.len() == self.k && self.rows.last().is_some_and(|worst| !before(&entry, worst)) {
            return;
        }
        let at = self.rows.partition_point(|other| before(other, &entry));
        self.rows.insert(at, entry);
        self.rows.truncate(self.k);
    }

    pub(super) fn merge(mut self, other: Self) -> Self {
        for (key, row) in other.rows {
            self.offer(key, row);
        }
        self
    }

    pub(super) fn into_rows(self, sign: f64) -> Vec<(f64, u128)> {
        self.rows.into_iter().map(|(key, row)| (sign * key, row)).collect()
    }
}

fn before(a: &(f64, u128), b: &(f64, u128)) -> bool {
    a.0 < b.0 || (a.0 == b.0 && a.1 < b.1)
}

impl Direction {
    /// Multiplies values so that smaller is better.
    pub(super) const fn sign(self) -> f64 {
        match self {
            Self::Higher => -1.0,
            Self::Lower => 1.0,
        }
    }
}

struct Search<'a> {
    column: Column,
    filters: &'a [Filter],
    latest: f64,
    best: Best,
    values: Box<[f64; BLOCK]>,
    mask: Box<[Mask; BLOCK]>,
}

impl Visitor for Search<'_> {
    fn visit(&mut self, block: &Block<'_>) {
        if !block.has_results() {
            return;
        }
        // One look at the times tells for most blocks that no row can enter: no mask, no division.
        let threshold = self.best.threshold();
        let reachable = block.of_time(self.column).map_or(f64::INFINITY, |of_time| of_time.latest(threshold));
        let latest = reachable.min(self.latest);
        if latest < f64::INFINITY && !block.any_until(latest) {
            return;
        }
        let (Some(values), Some(mask)) = (self.values.get_mut(..block.len), self.mask.get_mut(..block.len)) else {
            return;
        };
        keep_passing(block, self.filters, mask);
        block.fill(self.column, values);
        let sign = self.column.direction().sign();
        if !kernel::any_within(block.isa, values, sign, threshold, mask) {
            return;
        }
        for (j, (&value, &kept)) in values.iter().zip(&*mask).enumerate() {
            if kept != 0 && !value.is_nan() {
                self.best.offer(sign * value, block.first_row + j as u128);
            }
        }
    }
}

impl Space {
    /// The `k` best rows by `column` among those that pass all filters.
    pub fn top_k(
        &self,
        runner: Runner,
        k: usize,
        column: Column,
        filters: &[Filter],
        progress: &mut Progress<'_>,
    ) -> Result<TopK> {
        self.check()?;
        TopK::check(k, column)?;
        let columns: Vec<Column> = filters.iter().map(|f| f.column).chain([column]).collect();
        let fresh = || Search {
            column,
            filters,
            latest: latest(filters),
            best: Best::new(k),
            values: Box::new([0.0; BLOCK]),
            mask: Box::new([0; BLOCK]),
        };
        let found = runner.reduce(self, &columns, progress, fresh)?;
        let best = found.into_iter().map(|search| search.best).fold(Best::new(k), Best::merge);
        Ok(TopK { rows: best.into_rows(column.direction().sign()) })
    }
}
