//! What a search keeps: shared by its threads, and the judge of which regions are hopeless.
//!
//! What is kept in the end does not depend on the order in which rows are offered. Each is offered once.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use super::super::column::Column;
use super::super::front::{Entry as PointOfRow, Front, Point};
use super::super::rank::Entry;
use super::super::reduce::{Keys, Span};
use super::super::top_k::Best;

/// Keeps rows by their objectives, signed so that smaller is better.
pub(super) trait Goal: Sync {
    /// The columns whose values rows are kept by.
    fn objectives(&self) -> &[Column];

    /// The groups of rows that are kept apart; `None` where there is one.
    fn keys(&self) -> Option<&Keys> {
        None
    }

    /// Whether no row of a group can be kept that is nowhere better than `corner` and not above `first_row`.
    fn hopeless(&self, group: usize, corner: &Point, first_row: u128) -> bool;

    /// The same of all groups of a span.
    fn all_hopeless(&self, groups: &Span, corner: &Point, first_row: u128) -> bool {
        match self.keys() {
            None => self.hopeless(0, corner, first_row),
            Some(keys) => keys.all(groups, &mut |group| self.hopeless(group, corner, first_row)),
        }
    }

    /// Offers a row of a group, once.
    fn offer(&self, group: usize, point: &Point, row: u128);

    /// Offers rows together, each with its group.
    fn offer_all(&self, rows: &[(usize, PointOfRow)]) {
        for (group, (point, row)) in rows {
            self.offer(*group, point, *row);
        }
    }
}

/// The k best rows by one column.
#[derive(Debug)]
pub(super) struct BestRows {
    objective: [Column; 1],
    best: Mutex<Best>,
    /// Bits of the worst key that is kept; infinity until there are k.
    threshold: AtomicU64,
}

impl BestRows {
    pub(super) const fn new(k: usize, objective: Column) -> Self {
        let threshold = AtomicU64::new(f64::INFINITY.to_bits());
        Self { objective: [objective], best: Mutex::new(Best::new(k)), threshold }
    }

    pub(super) fn into_best(self) -> Best {
        self.best.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keys above this cannot enter; infinity until there are k.
    pub(super) fn threshold(&self) -> f64 {
        f64::from_bits(self.threshold.load(Ordering::Relaxed))
    }

    /// Whether an entry stands behind k others.
    fn is_late(&self, entry: Entry) -> bool {
        let threshold = self.threshold();
        if entry.0 != threshold {
            return entry.0 > threshold;
        }
        let best = self.best.lock().unwrap_or_else(PoisonError::into_inner);
        best.worst().is_some_and(|worst| entry > *worst)
    }
}

impl Goal for BestRows {
    fn objectives(&self) -> &[Column] {
        &self.objective
    }

    fn hopeless(&self, _group: usize, corner: &Point, first_row: u128) -> bool {
        self.is_late(Entry(corner[0], first_row))
    }

    fn offer(&self, _group: usize, point: &Point, row: u128) {
        let entry = Entry(point[0], row);
        if self.is_late(entry) {
            return;
        }
        let mut best = self.best.lock().unwrap_or_else(PoisonError::into_inner);
        best.offer(entry.0, entry.1);
        self.threshold.store(best.threshold().to_bits(), Ordering::Relaxed);
    }
}

/// The rows that nothing beats.
#[derive(Debug)]
pub(super) struct SharedFront<'a> {
    objectives: &'a [Column],
    front: RwLock<Front>,
    stop: &'a AtomicBool,
}

impl<'a> SharedFront<'a> {
    /// An empty one; whoever stops the search sets `stop`.
    pub(super) fn new(objectives: &'a [Column], stop: &'a AtomicBool) -> Self {
        Self { objectives, front: RwLock::new(Front::new(objectives.len())), stop }
    }

    pub(super) fn into_front(self) -> Front {
        self.front.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Goal for SharedFront<'_> {
    fn objectives(&self) -> &[Column] {
        self.objectives
    }

    fn hopeless(&self, _group: usize, corner: &Point, first_row: u128) -> bool {
        self.front.read().unwrap_or_else(PoisonError::into_inner).covers(corner, first_row)
    }

    fn offer(&self, group: usize, point: &Point, row: u128) {
        if self.hopeless(group, point, row) {
            return;
        }
        self.front.write().unwrap_or_else(PoisonError::into_inner).offer(point, row, self.stop);
    }

    fn offer_all(&self, rows: &[(usize, PointOfRow)]) {
        if !rows.is_empty() {
            let mut front = self.front.write().unwrap_or_else(PoisonError::into_inner);
            for (_, (point, row)) in rows {
                front.offer(point, *row, self.stop);
            }
        }
    }
}
