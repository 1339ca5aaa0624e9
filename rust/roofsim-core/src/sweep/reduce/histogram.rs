//! How many rows fall between given edges.

use super::super::block::Block;
use super::super::column::{Column, ColumnKind};
use super::super::driver::Progress;
use super::super::filter::Filter;
use super::super::kernel::BLOCK;
use super::super::part::Part;
use super::super::space::Space;
use super::{Kept, Reduction, Scan, fill_known};
use crate::error::{Error, Result};

/// Rows per bin. A bin holds its lower edge and not its upper one, the last bin holds both.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Histogram {
    /// Rows of each bin.
    pub counts: Vec<u64>,
    /// Rows below the first edge.
    pub below: u64,
    /// Rows above the last edge.
    pub above: u64,
    /// Rows that pass and have no value.
    pub null: u64,
}

/// Most bins.
const MAX_BINS: usize = 1 << 20;

struct Bins<'a> {
    column: Column,
    edges: &'a [f64],
    found: Histogram,
    kept: Kept,
}

impl<'a> Bins<'a> {
    fn new(column: Column, edges: &'a [f64]) -> Self {
        let found = Histogram { counts: vec![0; edges.len().saturating_sub(1)], ..Histogram::default() };
        Self { column, edges, found, kept: Kept::default() }
    }
}

impl Reduction for Bins<'_> {
    fn fresh(&self) -> Self {
        Self::new(self.column, self.edges)
    }

    fn see(&mut self, _: &Part<'_>, block: &Block<'_>, filters: &[Filter]) {
        let mask = self.kept.rows(block, filters);
        if mask.iter().all(|&m| m == 0) {
            return;
        }
        let mut values = [0.0; BLOCK];
        let Some(values) = values.get_mut(..block.len) else { return };
        fill_known(block, self.column, values);
        let last = self.edges.last().copied().unwrap_or(f64::NAN);
        for (&x, _) in values.iter().zip(mask).filter(|(_, m)| **m != 0) {
            // Edges at or below the value: 0 is below all, and the last edge belongs to the last bin.
            let at = self.edges.partition_point(|&edge| edge <= x) - usize::from(x == last);
            let slot = match at {
                _ if x.is_nan() => Some(&mut self.found.null),
                0 => Some(&mut self.found.below),
                _ if at == self.edges.len() => Some(&mut self.found.above),
                _ => self.found.counts.get_mut(at - 1),
            };
            if let Some(slot) = slot {
                *slot += 1;
            }
        }
    }

    fn join(&mut self, other: Self) {
        self.found.counts.iter_mut().zip(other.found.counts).for_each(|(mine, theirs)| *mine += theirs);
        self.found.below += other.found.below;
        self.found.above += other.found.above;
        self.found.null += other.found.null;
    }
}

impl Space {
    /// Rows that pass, by where their value of `column` lies among rising `edges`.
    pub fn histogram(
        &self,
        scan: &Scan<'_>,
        column: Column,
        edges: &[f64],
        progress: &mut Progress<'_>,
    ) -> Result<Histogram> {
        check_numeric(column)?;
        if !(2..=MAX_BINS + 1).contains(&edges.len()) {
            return Err(Error::spec("edges", edges.len(), format!("must be between 2 and {} numbers", MAX_BINS + 1)));
        }
        let rises = |low: f64, high: f64| low < high && (high - low).is_finite();
        let mut pairs = edges.iter().zip(edges.iter().skip(1));
        if let Some((low, high)) = pairs.find(|(low, high)| !rises(**low, **high)) {
            return Err(Error::spec("edges", format!("{low}, {high}"), "must be finite and rise"));
        }
        Ok(scan.reduce(self, &[column], Bins::new(column, edges), progress)?.found)
    }
}

/// Refuses names.
pub(super) fn check_numeric(column: Column) -> Result<()> {
    if column.kind() == ColumnKind::Code {
        return Err(Error::spec("column", column.name(), "its values are names, not numbers: see counts"));
    }
    Ok(())
}
