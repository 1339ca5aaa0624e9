//! The Pareto front over two to four columns.

use std::sync::Mutex;

use super::column::{Column, Direction};
use super::driver::{Progress, Runner};
use super::filter::Filter;
use super::line::Row;
use super::space::Space;
use crate::error::{Error, Result};

/// The rows that no other row beats in every objective, by row number. Of rows equal in all objectives the lowest stays.
#[derive(Debug, Clone, PartialEq)]
pub struct Pareto {
    /// `(values in the order of the objectives, row)`.
    pub rows: Vec<(Vec<f64>, u128)>,
}

const MOST: usize = 4;

#[derive(Debug, Default)]
struct Front {
    /// Signed so that smaller is better; unused objectives are 0.
    points: Vec<([f64; MOST], u128)>,
}

impl Front {
    fn offer(&mut self, point: [f64; MOST], row: u128) {
        let mut keep = true;
        self.points.retain(|(other, other_row)| {
            if !keep {
                return true;
            }
            let no_worse = other.iter().zip(&point).all(|(a, b)| a <= b);
            let no_better = point.iter().zip(other).all(|(a, b)| a <= b);
            match (no_worse, no_better) {
                // Equal in everything: the lower row stays.
                (true, true) => {
                    keep = row < *other_row;
                    !keep
                }
                (true, false) => {
                    keep = false;
                    true
                }
                (false, true) => false,
                (false, false) => true,
            }
        });
        if keep {
            self.points.push((point, row));
        }
    }
}

impl Space {
    /// The Pareto front of `objectives` among the rows that pass all filters; each column knows its better direction.
    pub fn pareto(
        &self,
        runner: Runner,
        objectives: &[Column],
        filters: &[Filter],
        progress: &mut Progress<'_>,
    ) -> Result<Pareto> {
        if !(2..=MOST).contains(&objectives.len()) {
            return Err(Error::spec("objectives", objectives.len(), "must be 2 to 4 columns"));
        }
        let sign = |column: Column| if column.direction() == Direction::Higher { -1.0 } else { 1.0 };
        let all = Mutex::new(Front::default());
        let visit = |front: &mut Front, row: &Row<'_>| {
            if row.status != crate::parallel::Status::Ok || !filters.iter().all(|f| f.holds(row)) {
                return;
            }
            let mut point = [0.0; MOST];
            for (slot, &column) in point.iter_mut().zip(objectives) {
                match row.value(column) {
                    Some(value) if !value.is_nan() => *slot = sign(column) * value,
                    _ => return,
                }
            }
            front.offer(point, row.index);
        };
        let finish = |front: Front| {
            if let Ok(mut all) = all.lock() {
                for (point, row) in front.points {
                    all.offer(point, row);
                }
            }
        };
        runner.run(self, progress, |_| Front::default(), visit, finish)?;
        let mut points = all.into_inner().map_err(|_| Error::Interrupted)?.points;
        points.sort_unstable_by_key(|(_, row)| *row);
        let values = |point: [f64; MOST]| objectives.iter().zip(point).map(|(&c, x)| sign(c) * x).collect();
        Ok(Pareto { rows: points.into_iter().map(|(point, row)| (values(point), row)).collect() })
    }
}
