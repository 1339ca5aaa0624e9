//! How many rows fall between given edges.

use super::super::block::Block;
use super::super::column::{Column, ColumnKind};
use super::super::driver::Progress;
use super::super::filter::Filter;
use super::super::part::Part;
use super::super::space::Space;
use super::{Kept, Reduction, Scan};
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
    /// The edges, the last one moved up by one float: its bin holds it.
    bounds: &'a [f64],
    found: Histogram,
    kept: Kept,
}

impl<'a> Bins<'a> {
    fn new(column: Column, bounds: &'a [f64]) -> Self {
        let found = Histogram { counts: vec![0; bounds.len().saturating_sub(1)], ..Histogram::default() };
        Self { column, bounds, found, kept: Kept::default() }
    }
}

impl Histogram {
    fn add(&mut self, slot: usize, rows: u64) {
        let count = match slot.checked_sub(1) {
            None => &mut self.below,
            Some(bin) => self.counts.get_mut(bin).unwrap_or(&mut self.above),
        };
        *count += rows;
    }
}

/// A bin, or what lies before the first or behind the last.
#[derive(Debug, Clone, Copy)]
struct Bin {
    /// Bounds at or below its values.
    slot: usize,
    /// Its values are at least this.
    low: f64,
    /// And below this.
    high: f64,
}

impl Bin {
    /// The bin of a value, looked for from the slot of another on.
    fn of(bounds: &[f64], x: f64, near: usize) -> Self {
        let (mut low, mut high, mut step) = (near, near, 1);
        let bound = |at: usize| bounds.get(at).copied().unwrap_or(f64::INFINITY);
        while low > 0 && bound(low - 1) > x {
            high = low - 1;
            low = low.saturating_sub(step);
            step *= 2;
        }
        while high < bounds.len() && bound(high) <= x {
            low = high + 1;
            high = (high + step).min(bounds.len());
            step *= 2;
        }
        let slot = low + bounds.get(low..high).map_or(0, |between| between.partition_point(|&bound| bound <= x));
        Self { slot, low: if slot == 0 { f64::NEG_INFINITY } else { bound(slot - 1) }, high: bound(slot) }
    }

    const fn holds(&self, x: f64) -> bool {
        x >= self.low && x < self.high
    }
}

impl Reduction for Bins<'_> {
    fn fresh(&self) -> Self {
        Self::new(self.column, self.bounds)
    }

    fn see(&mut self, _: &Part<'_>, block: &Block<'_>, filters: &[Filter]) {
        let values = self.kept.values(block, self.column, filters);
        self.found.null += values.null;
        // Neighbours are alike: often one bin has all, else the next value is in the bin of the last or near it.
        let (least, most) = values.extent();
        let bin = Bin::of(self.bounds, least, 0);
        if bin.holds(most) {
            self.found.add(bin.slot, values.rows.len() as u64);
            return;
        }
        let (bounds, found) = (self.bounds, &mut self.found);
        values.each_cell(
            |x, last: Option<&Bin>| Bin::of(bounds, x, last.map_or(bin.slot, |last| last.slot)),
            Bin::holds,
            |bin, rows| found.add(bin.slot, rows),
        );
    }

    fn join(&mut self, other: Self, _: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        self.found.counts.iter_mut().zip(other.found.counts).for_each(|(mine, theirs)| *mine += theirs);
        self.found.below += other.found.below;
        self.found.above += other.found.above;
        self.found.null += other.found.null;
        Ok(())
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
            let rule = format!("must have between 2 and {} edges, for 1 to {MAX_BINS} bins", MAX_BINS + 1);
            return Err(Error::spec("bins", format!("{} edges", edges.len()), rule));
        }
        if let Some((at, edge)) = edges.iter().enumerate().find(|(_, edge)| !edge.is_finite()) {
            return Err(Error::spec(format!("bins[{at}]"), edge, "edges must be finite numbers"));
        }
        let mut pairs = edges.iter().zip(edges.iter().skip(1)).enumerate();
        if let Some((at, (low, high))) = pairs.find(|(_, (low, high))| low >= high) {
            let rule = format!("edges must rise: it must be above the edge before it, {low}");
            return Err(Error::spec(format!("bins[{}]", at + 1), high, rule));
        }
        let mut bounds = edges.to_vec();
        if let Some(last) = bounds.last_mut() {
            *last = last.next_up();
        }
        Ok(scan.reduce(self, &[column], Bins::new(column, &bounds), progress)?.found)
    }
}

/// Refuses names.
pub(super) fn check_numeric(column: Column) -> Result<()> {
    if column.kind() == ColumnKind::Code {
        return Err(Error::spec("column", column.name(), "its values are names, not numbers: see counts"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Bin;

    #[test]
    fn a_bin_is_found_from_anywhere() {
        let bounds: Vec<f64> = (0..37).map(|i| f64::from(i * i)).collect();
        let values = (-3..1400).map(f64::from).chain([f64::NEG_INFINITY, f64::INFINITY, 0.5, 1295.5]);
        for x in values {
            let slot = bounds.iter().filter(|bound| **bound <= x).count();
            for near in 0..=bounds.len() {
                let bin = Bin::of(&bounds, x, near);
                assert_eq!(bin.slot, slot, "{x} looked for from {near}");
                assert!(bin.holds(x) || x == f64::INFINITY);
            }
        }
    }
}
