//! The k best rows by one column.

use std::sync::Mutex;

use super::column::{Column, Direction};
use super::driver::{Progress, Runner};
use super::filter::Filter;
use super::line::Row;
use super::space::Space;
use crate::error::{Error, Result};

/// The best rows, best first; ties go to the lower row.
#[derive(Debug, Clone, PartialEq)]
pub struct TopK {
    /// `(value, row)`.
    pub rows: Vec<(f64, u128)>,
}

/// Keeps the k best of what it is shown. The order is total, so any way of splitting the rows gives the same result.
#[derive(Debug)]
struct Best {
    k: usize,
    sign: f64,
    /// `(sign x value, row)`, ascending: smaller is better.
    rows: Vec<(f64, u128)>,
}

impl Best {
    fn offer(&mut self, value: f64, row: u128) {
        let key = (self.sign * value, row);
        let full = self.rows.len() == self.k;
        if full && self.rows.last().is_some_and(|worst| !before(&key, worst)) {
            return;
        }
        let at = self.rows.partition_point(|other| before(other, &key));
        self.rows.insert(at, key);
        self.rows.truncate(self.k);
    }

    fn merge(&mut self, other: Self) {
        for (key, row) in other.rows {
            self.offer(self.sign * key, row);
        }
    }
}

fn before(a: &(f64, u128), b: &(f64, u128)) -> bool {
    a.0 < b.0 || (a.0 == b.0 && a.1 < b.1)
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
        if k == 0 {
            return Err(Error::spec("k", k, "must be at least 1"));
        }
        let sign = if column.direction() == Direction::Higher { -1.0 } else { 1.0 };
        let fresh = || Best { k, sign, rows: Vec::new() };
        let all = Mutex::new(fresh());
        let visit = |best: &mut Best, row: &Row<'_>| {
            if row.status == crate::parallel::Status::Ok
                && filters.iter().all(|f| f.holds(row))
                && let Some(value) = row.value(column)
                && !value.is_nan()
            {
                best.offer(value, row.index);
            }
        };
        let finish = |best: Best| {
            if let Ok(mut all) = all.lock() {
                all.merge(best);
            }
        };
        runner.run(self, progress, |_| fresh(), visit, finish)?;
        let best = all.into_inner().map_err(|_| Error::Interrupted)?;
        Ok(TopK { rows: best.rows.into_iter().map(|(key, row)| (sign * key, row)).collect() })
    }
}
