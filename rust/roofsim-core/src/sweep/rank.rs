//! The order in which rows rank, decided once: for scans, searches, groups, fronts and joins.
//!
//! A key is a value signed so that smaller is better. Infinities are values like others (a price may overflow): they
//! rank where their size puts them and tie with each other. What is not a number is no value and does not rank. 0 and
//! -0 tie. Ties go to the lower row, so that the order is total and any way of sharing rows out gives the same result.

use std::cmp::Ordering;

use super::column::Direction;
use super::kernel::{self, Isa, Mask};
use super::sort::sort;
use crate::error::Result;

/// A key and its row; the better one comes first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Entry(pub(super) f64, pub(super) u128);

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// Keys are never NaN.
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.partial_cmp(&other.0).unwrap_or(Ordering::Equal).then(self.1.cmp(&other.1))
    }
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

/// The best key of the rows that pass; `None` where none of them has a value.
pub(super) fn best_key(isa: Isa, values: &[f64], sign: f64, mask: &[Mask]) -> Option<f64> {
    let best = kernel::least(isa, values, sign, mask);
    // Infinity is what is left where no row passes, too.
    let ranks = || values.iter().zip(mask).any(|(x, &m)| m != 0 && !x.is_nan());
    (best < f64::INFINITY || ranks()).then_some(best)
}

/// Rows copied between two looks at whether to go on.
const COPIED: usize = 1 << 17;

/// The first `k` of the entries as (value, row), each row once; asks now and then whether to go on.
pub(super) fn ranked(
    mut entries: Vec<Entry>,
    k: usize,
    sign: f64,
    go_on: &mut dyn FnMut() -> Result<()>,
) -> Result<Vec<(f64, u128)>> {
    sort(&mut entries, Entry::cmp, go_on)?;
    entries.dedup();
    entries.truncate(k);
    let mut rows = Vec::with_capacity(entries.len());
    for piece in entries.chunks(COPIED) {
        rows.extend(piece.iter().map(|Entry(key, row)| (sign * key, *row)));
        if rows.len() < entries.len() {
            go_on()?;
        }
    }
    Ok(rows)
}
