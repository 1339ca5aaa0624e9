//! The k best rows by one column.

use std::collections::BinaryHeap;
use std::sync::atomic::{self, AtomicU64};

use super::block::Block;
use super::column::Column;
use super::driver::{Progress, Runner, Visitor, looks};
use super::filter::{Filter, keep_passing, latest};
use super::kernel::{self, BLOCK, Mask, Test};
use super::rank::{Entry, ranked};
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
    /// The worst on top.
    rows: BinaryHeap<Entry>,
}

impl Best {
    pub(super) const fn new(k: usize) -> Self {
        Self { k, rows: BinaryHeap::new() }
    }

    /// Keys above this cannot enter; infinity until k rows are known.
    pub(super) fn threshold(&self) -> f64 {
        self.worst().map_or(f64::INFINITY, |worst| worst.0)
    }

    /// Takes a row in, in time that grows with the logarithm of k.
    pub(super) fn offer(&mut self, key: f64, row: u128) {
        let entry = Entry(key, row);
        if self.rows.len() < self.k {
            self.rows.push(entry);
        } else if let Some(mut worst) = self.rows.peek_mut()
            && entry < *worst
        {
            *worst = entry;
        }
    }

    /// The worst of k rows; `None` until so many are known.
    pub(super) fn worst(&self) -> Option<&Entry> {
        if self.rows.len() < self.k { None } else { self.rows.peek() }
    }

    /// The rows, in no order.
    pub(super) fn into_entries(self) -> Vec<Entry> {
        self.rows.into_vec()
    }
}

/// The least threshold that any thread knows: what cannot enter there cannot be among the best of all.
#[derive(Debug)]
struct Threshold(AtomicU64);

impl Threshold {
    const fn new() -> Self {
        Self(AtomicU64::new(f64::INFINITY.to_bits()))
    }

    fn get(&self) -> f64 {
        f64::from_bits(self.0.load(atomic::Ordering::Relaxed))
    }

    fn lower(&self, key: f64) {
        let lowered = |bits: u64| (key < f64::from_bits(bits)).then_some(key.to_bits());
        // Nothing is lower than what is there already: fine.
        let _ = self.0.fetch_update(atomic::Ordering::Relaxed, atomic::Ordering::Relaxed, lowered);
    }
}

struct Search<'a> {
    column: Column,
    filters: &'a [Filter],
    latest: f64,
    best: Best,
    threshold: &'a Threshold,
    values: Box<[f64; BLOCK]>,
    mask: Box<[Mask; BLOCK]>,
}

impl Visitor for Search<'_> {
    const SCREENS: bool = true;

    fn filters(&self) -> &[Filter] {
        self.filters
    }

    fn prefers_large_batches(&self) -> bool {
        matches!(self.column, Column::TokensPerS | Column::TokensPerSPerGpu | Column::UsdPerMtok | Column::Mfu)
    }

    fn visit(&mut self, block: &Block<'_>) {
        if !block.has_results() {
            return;
        }
        // One look at the least time tells for most blocks that no row can enter: no mask, no division.
        let threshold = self.threshold.get();
        let of_time = block.of_time(self.column);
        let latest = of_time.map_or(f64::INFINITY, |of_time| of_time.latest(threshold)).min(self.latest);
        if !block.any_until(latest) {
            return;
        }
        let (Some(values), Some(mask)) = (self.values.get_mut(..block.len), self.mask.get_mut(..block.len)) else {
            return;
        };
        keep_passing(block, self.filters, mask);
        if latest < f64::INFINITY {
            kernel::keep(block.isa, block.time_s(), Test::LessEqual, latest, mask);
        }
        if mask.iter().fold(0, |any, kept| any | kept) == 0 {
            return;
        }
        block.fill(self.column, values);
        let sign = self.column.direction().sign();
        for (j, (&value, &kept)) in values.iter().zip(&*mask).enumerate() {
            if kept != 0 && sign * value <= threshold {
                self.best.offer(sign * value, block.first_row + j as u128);
            }
        }
        self.threshold.lower(self.best.threshold());
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
        let threshold = Threshold::new();
        let fresh = || Search {
            column,
            filters,
            latest: latest(filters),
            best: Best::new(k),
            threshold: &threshold,
            values: Box::new([0.0; BLOCK]),
            mask: Box::new([0; BLOCK]),
        };
        let found = runner.reduce(self, &columns, progress, fresh)?;
        let mut go_on = looks(progress, self.num_configurations().unwrap_or(u128::MAX));
        let mut entries = Vec::new();
        for search in found {
            go_on()?;
            entries.append(&mut search.best.into_entries());
        }
        Ok(TopK { rows: ranked(entries, k, column.direction().sign(), &mut go_on)? })
    }
}
