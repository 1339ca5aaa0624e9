//! Quantiles: a sketch that joins, with a proven error, and exact values by looking again.
//!
//! The bits of a float, its sign bit turned round, sort as the float does. Counting rows by their leading 23 bits (sign,
//! exponent and 11 bits of the fraction) is a histogram whose bins are 2^-11 of their value wide at most: the middle of the
//! bin that holds a rank is within 2^-12 of the value there (the log-bucket idea of Masson, Rim and Lee, "`DDSketch`",
//! VLDB 2019, with the float's own logarithm). The remaining bits of an exact quantile are found digit by digit, a scan
//! each, as in a radix sort.

use std::collections::BTreeMap;

use super::super::block::Block;
use super::super::column::Column;
use super::super::driver::Progress;
use super::super::filter::Filter;
use super::super::part::{Part, rows_of};
use super::super::space::Space;
use super::histogram::check_numeric;
use super::{Kept, Reduction, Scan};
use crate::error::{Error, Result};

/// Largest relative error of a [`Sketch`]'s quantile, for values in the range of normal floats.
pub const RELATIVE_ERROR: f64 = 1.0 / 4096.0;

/// Bits below the leading digit.
const SKETCH_SHIFT: u32 = 41;
/// Bits below each further digit of an exact search: 14, 14 and 13 bits.
const FURTHER_SHIFTS: [u32; 3] = [27, 13, 0];
/// Cells of a page: one exponent, so that few pages are ever made.
const PAGE_BITS: u32 = 11;
/// Most quantiles asked for at once.
const MAX_QUANTILES: usize = 1 << 10;

/// Bits that sort as the float does.
const fn ordered(x: f64) -> u64 {
    let bits = (x + 0.0).to_bits(); // + 0.0 turns -0.0 into 0.0
    if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
}

const fn float(ordered: u64) -> f64 {
    f64::from_bits(if ordered >> 63 == 1 { ordered & !(1 << 63) } else { !ordered })
}

/// Row counts by the leading bits of a column's values: joins by adding.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sketch {
    /// Rows per occupied cell, in the order of the values.
    pub cells: BTreeMap<u32, u64>,
    /// Rows that pass and have no value.
    pub null: u64,
}

impl Sketch {
    /// Rows with a value.
    pub fn count(&self) -> u64 {
        self.cells.values().sum()
    }

    /// Takes in the rows of another sketch of the same column.
    pub fn join(&mut self, other: &Self) {
        for (&cell, rows) in &other.cells {
            *self.cells.entry(cell).or_default() += rows;
        }
        self.null += other.null;
    }

    /// The value that a share `q` of the rows does not exceed, within [`RELATIVE_ERROR`]; `None` without rows.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let mut left = rank(q, self.count())?;
        for (&cell, &rows) in &self.cells {
            if left <= rows {
                let first = u64::from(cell) << SKETCH_SHIFT;
                let (low, high) = (float(first), float(first | ((1 << SKETCH_SHIFT) - 1)));
                let exact = low.abs() < f64::MIN_POSITIVE || !high.is_finite();
                return Some(if exact { low } else { low + (high - low) / 2.0 });
            }
            left -= rows;
        }
        None
    }
}

/// The place, from 1, of the smallest value whose share of rows is at least `q` (the inverse of the distribution).
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rounded number of rows")]
fn rank(q: f64, rows: u64) -> Option<u64> {
    (rows > 0).then(|| ((q * rows as f64).ceil().max(1.0) as u64).min(rows))
}

/// Row counts by one digit of the ordered bits, for the values that begin with given bits.
struct Cells<'a> {
    /// The digit starts above this many bits and has so many.
    shift: u32,
    bits: u32,
    /// What stands above the digit, rising; one page table each.
    prefixes: &'a [u64],
    pages: Vec<Vec<Option<Box<[u64]>>>>,
}

impl<'a> Cells<'a> {
    fn new(shift: u32, bits: u32, prefixes: &'a [u64]) -> Self {
        let num_pages = 1_usize << bits.saturating_sub(PAGE_BITS);
        Self { shift, bits, prefixes, pages: prefixes.iter().map(|_| vec![None; num_pages]).collect() }
    }

    /// Counts rows whose ordered bits begin with these, the digit last among them.
    #[expect(clippy::cast_possible_truncation, reason = "a digit of at most 23 bits")]
    fn add(&mut self, leading: u64, rows: u64) {
        if rows == 0 {
            return;
        }
        let above = leading.checked_shr(self.bits).unwrap_or(0);
        let Ok(at) = self.prefixes.binary_search(&above) else { return };
        let digit = leading as usize & ((1 << self.bits) - 1);
        let page = self.pages.get_mut(at).and_then(|pages| pages.get_mut(digit >> PAGE_BITS));
        let cells = page.map(|page| page.get_or_insert_with(|| vec![0; 1 << PAGE_BITS].into_boxed_slice()));
        if let Some(cell) = cells.and_then(|cells| cells.get_mut(digit & ((1 << PAGE_BITS) - 1))) {
            *cell += rows;
        }
    }

    /// Whether values from `least` to `most` may begin with one of the prefixes.
    fn may_hold(&self, least: f64, most: f64) -> bool {
        let above = |x: f64| ordered(x).checked_shr(self.shift + self.bits).unwrap_or(0);
        let first = self.prefixes.partition_point(|&prefix| prefix < above(least));
        self.prefixes.get(first).is_some_and(|&prefix| prefix <= above(most))
    }

    /// Occupied cells of one prefix: digit and rows, in order.
    fn of(&self, at: usize) -> impl Iterator<Item = (u64, u64)> + '_ {
        let pages = self.pages.get(at).into_iter().flatten().enumerate();
        let cells = pages.filter_map(|(page, cells)| Some((page, cells.as_ref()?)));
        let cells = cells.flat_map(|(page, cells)| {
            cells.iter().enumerate().map(move |(cell, &rows)| ((page << PAGE_BITS | cell) as u64, rows))
        });
        cells.filter(|(_, rows)| *rows > 0)
    }
}

/// Sees the values of a column.
struct Digits<'a> {
    column: Column,
    cells: Cells<'a>,
    null: u64,
    kept: Kept,
}

impl<'a> Digits<'a> {
    fn new(column: Column, shift: u32, bits: u32, prefixes: &'a [u64]) -> Self {
        Self { column, cells: Cells::new(shift, bits, prefixes), null: 0, kept: Kept::default() }
    }
}

impl Reduction for Digits<'_> {
    fn fresh(&self) -> Self {
        Self::new(self.column, self.cells.shift, self.cells.bits, self.cells.prefixes)
    }

    fn see(&mut self, _: &Part<'_>, block: &Block<'_>, filters: &[Filter]) {
        let values = self.kept.values(block, self.column, filters);
        self.null += values.null;
        let (least, most) = values.extent();
        if values.rows.is_empty() || !self.cells.may_hold(least, most) {
            return;
        }
        let (shift, cells) = (self.cells.shift, &mut self.cells);
        values.each_cell(
            |x, _| ordered(x) >> shift,
            |leading, x| ordered(x) >> shift == *leading,
            |leading, rows| cells.add(*leading, rows),
        );
    }

    fn join(&mut self, other: Self, _: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        self.null += other.null;
        for (mine, theirs) in self.cells.pages.iter_mut().flatten().zip(other.cells.pages.into_iter().flatten()) {
            match (mine.as_mut(), theirs) {
                (Some(mine), Some(theirs)) => mine.iter_mut().zip(theirs).for_each(|(a, b)| *a += b),
                (None, theirs @ Some(_)) => *mine = theirs,
                (_, None) => {}
            }
        }
        Ok(())
    }
}

impl Space {
    /// Counts the rows that pass by the leading bits of `column`: quantiles within [`RELATIVE_ERROR`] in one scan.
    pub fn sketch(&self, scan: &Scan<'_>, column: Column, progress: &mut Progress<'_>) -> Result<Sketch> {
        check_numeric(column)?;
        let all = [0];
        let digits = Digits::new(column, SKETCH_SHIFT, 64 - SKETCH_SHIFT, &all);
        let found = scan.reduce(self, &[column], digits, progress)?;
        let cells = found.cells.of(0).filter_map(|(cell, rows)| Some((u32::try_from(cell).ok()?, rows)));
        Ok(Sketch { cells: cells.collect(), null: found.null })
    }

    /// Exact quantiles of `column` over the rows that pass: each is the value of a row, the smallest whose share of
    /// rows is at least `q`; `None` where no row has a value. Four scans, whatever the number of quantiles.
    pub fn quantiles(
        &self,
        scan: &Scan<'_>,
        column: Column,
        shares: &[f64],
        progress: &mut Progress<'_>,
    ) -> Result<Vec<Option<f64>>> {
        if !(1..=MAX_QUANTILES).contains(&shares.len()) {
            return Err(Error::spec("q", shares.len(), format!("must be between 1 and {MAX_QUANTILES} numbers")));
        }
        if let Some(q) = shares.iter().find(|q| !(0.0..=1.0).contains(*q)) {
            return Err(Error::spec("q", q, "must be between 0 and 1"));
        }
        let rows = rows_of(self, scan.rows.clone())?;
        let scan_rows = rows.end - rows.start;
        let total = scan_rows.saturating_mul(1 + FURTHER_SHIFTS.len() as u128);
        let sketch = self.sketch(scan, column, &mut |done, _| progress(done, total))?;
        let count = sketch.count();
        // For each quantile the bits found so far and the rank among the values that begin with them.
        let mut found = Vec::new();
        for &q in shares {
            let Some(mut left) = rank(q, count) else { return Ok(vec![None; shares.len()]) };
            let cells = sketch.cells.iter().map(|(&cell, &rows)| (u64::from(cell), rows));
            let digit = narrow(cells, &mut left);
            found.push((digit, left));
        }
        let mut above = SKETCH_SHIFT;
        for (round, shift) in FURTHER_SHIFTS.into_iter().enumerate() {
            let mut prefixes: Vec<u64> = found.iter().map(|(bits, _)| *bits).collect();
            prefixes.sort_unstable();
            prefixes.dedup();
            let before = scan_rows.saturating_mul(round as u128 + 1);
            let digits = Digits::new(column, shift, above - shift, &prefixes);
            let digits = scan.reduce(self, &[column], digits, &mut |done, _| progress(before + done, total))?;
            for (bits, left) in &mut found {
                if let Ok(at) = prefixes.binary_search(bits) {
                    *bits = *bits << (above - shift) | narrow(digits.cells.of(at), left);
                }
            }
            above = shift;
        }
        Ok(found.into_iter().map(|(bits, _)| Some(float(bits))).collect())
    }
}

/// The digit whose cell holds the value of rank `left`, which becomes the rank within that cell.
fn narrow(cells: impl Iterator<Item = (u64, u64)>, left: &mut u64) -> u64 {
    for (digit, rows) in cells {
        if *left <= rows {
            return digit;
        }
        *left -= rows;
    }
    0
}
