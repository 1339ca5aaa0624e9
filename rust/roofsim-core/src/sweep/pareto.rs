//! The Pareto front over two to four columns.

use super::block::Block;
use super::column::Column;
use super::driver::{Progress, Runner, Visitor};
use super::filter::{Filter, keep_passing, latest};
use super::kernel::{self, BLOCK, Mask};
use super::space::Space;
use crate::error::{Error, Result};

/// The rows that no other row beats in every objective, in row order. Of rows equal in all objectives the lowest stays.
#[derive(Debug, Clone, PartialEq)]
pub struct Pareto {
    /// `(values in the order of the objectives, row)`.
    pub rows: Vec<(Vec<f64>, u128)>,
}

impl Pareto {
    /// Refuses too few or too many objectives, and names.
    pub(super) fn check(objectives: &[Column]) -> Result<()> {
        if !(2..=MOST).contains(&objectives.len()) {
            return Err(Error::spec("objectives", objectives.len(), "must be 2 to 4 columns"));
        }
        objectives.iter().try_for_each(|objective| objective.check_objective("objectives"))
    }
}

pub(super) const MOST: usize = 4;

/// Signed values, smaller is better; unused objectives are 0.
pub(super) type Point = [f64; MOST];

#[derive(Debug, Default)]
pub(super) struct Front {
    /// Ascending in the first objective, so that whatever beats a point stands before it.
    pub(super) points: Vec<(Point, u128)>,
}

fn no_worse(a: &Point, b: &Point) -> bool {
    a.iter().zip(b).all(|(a, b)| a <= b)
}

impl Front {
    /// Whether some point is no worse than `corner` everywhere and better somewhere: then it beats everything that is
    /// no better than the corner.
    pub(super) fn beats(&self, corner: &Point, objectives: usize) -> bool {
        let end = self.points.partition_point(|(point, _)| point[0] <= corner[0]);
        // The best rivals in the other objectives stand last; with two objectives only the very last can be one.
        let rivals = if objectives == 2 { 1 } else { end };
        self.points.iter().take(end).rev().take(rivals).any(|(point, _)| no_worse(point, corner) && point != corner)
    }

    /// Whether nothing that is no better than the corner and stands at `first_row` or below it could enter.
    pub(super) fn covers(&self, corner: &Point, objectives: usize, first_row: u128) -> bool {
        let start = self.points.partition_point(|(point, _)| point[0] < corner[0]);
        let mut equal = self.points.iter().skip(start).take_while(|(point, _)| point[0] == corner[0]);
        equal.any(|(point, row)| point == corner && *row < first_row) || self.beats(corner, objectives)
    }

    /// The values of one row, signed.
    pub(super) fn point(objectives: &[Column], values: &[f64]) -> Point {
        let mut point: Point = [0.0; MOST];
        for ((slot, column), value) in point.iter_mut().zip(objectives).zip(values) {
            *slot = column.direction().sign() * value;
        }
        point
    }

    pub(super) fn into_pareto(mut self, objectives: &[Column]) -> Pareto {
        self.points.sort_unstable_by_key(|(_, row)| *row);
        let values =
            |point: Point| objectives.iter().zip(point).map(|(column, x)| column.direction().sign() * x).collect();
        Pareto { rows: self.points.into_iter().map(|(point, row)| (values(point), row)).collect() }
    }

    pub(super) fn offer(&mut self, point: Point, row: u128) {
        let end = self.points.partition_point(|(other, _)| other[0] <= point[0]);
        for (other, other_row) in self.points.iter_mut().take(end).rev() {
            if no_worse(other, &point) {
                // Equal in everything: the lower row stays.
                if *other == point {
                    *other_row = row.min(*other_row);
                }
                return;
            }
        }
        let start = self.points.partition_point(|(other, _)| other[0] < point[0]);
        let mut at = start;
        self.points.retain({
            let mut position = 0;
            move |(other, _)| {
                let keep = position < start || !no_worse(&point, other);
                position += 1;
                keep
            }
        });
        at = at.min(self.points.len());
        self.points.insert(at, (point, row));
    }
}

struct Search<'a> {
    objectives: &'a [Column],
    filters: &'a [Filter],
    latest: f64,
    front: Front,
    values: Box<[[f64; BLOCK]; MOST]>,
    mask: Box<[Mask; BLOCK]>,
}

impl Search<'_> {
    /// A point that no row of the block betters in any objective, from the least time alone; `None` where an
    /// objective does not follow from time.
    fn corner(&self, block: &Block<'_>) -> Option<Point> {
        let earliest = block.earliest();
        let mut corner: Point = [0.0; MOST];
        for (slot, &column) in corner.iter_mut().zip(self.objectives) {
            *slot = match block.constant(column) {
                Some(value) => column.direction().sign() * value,
                None => block.of_time(column)?.best_key(earliest),
            };
        }
        Some(corner)
    }
}

impl Visitor for Search<'_> {
    const SCREENS: bool = true;

    fn visit(&mut self, block: &Block<'_>) {
        let count = self.objectives.len();
        if !block.has_results() || !block.any_until(self.latest) {
            return;
        }
        if self.corner(block).is_some_and(|corner| self.front.beats(&corner, count)) {
            return;
        }
        let Some(mask) = self.mask.get_mut(..block.len) else { return };
        keep_passing(block, self.filters, mask);
        // The exact corner of the rows that pass: if the front beats it, it beats every one of them.
        let mut corner: Point = [0.0; MOST];
        for ((column, values), corner) in self.objectives.iter().zip(self.values.iter_mut()).zip(&mut corner) {
            let Some(values) = values.get_mut(..block.len) else { return };
            block.fill(*column, values);
            *corner = kernel::least(block.isa, values, column.direction().sign(), mask);
            if *corner == f64::INFINITY {
                return;
            }
        }
        if self.front.beats(&corner, count) {
            return;
        }
        for (j, _) in mask.iter().enumerate().filter(|&(_, &kept)| kept != 0) {
            let mut point: Point = [0.0; MOST];
            for ((column, values), slot) in self.objectives.iter().zip(self.values.iter()).zip(&mut point) {
                *slot = column.direction().sign() * values.get(j).copied().unwrap_or(f64::NAN);
            }
            if !point.iter().any(|x| x.is_nan()) {
                self.front.offer(point, block.first_row + j as u128);
            }
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
        self.check()?;
        Pareto::check(objectives)?;
        let columns: Vec<Column> = filters.iter().map(|f| f.column).chain(objectives.iter().copied()).collect();
        let fresh = || Search {
            objectives,
            filters,
            latest: latest(filters),
            front: Front::default(),
            values: Box::new([[0.0; BLOCK]; MOST]),
            mask: Box::new([0; BLOCK]),
        };
        let mut all = Front::default();
        let found = runner.reduce(self, &columns, progress, fresh)?;
        let points = found.into_iter().flat_map(|search| search.front.points);
        let total = self.num_configurations().unwrap_or(u128::MAX);
        for (count, (point, row)) in points.enumerate() {
            // Fronts of many points take long to join.
            if count % 1024 == 1023 && progress(total, total).is_break() {
                return Err(Error::Interrupted);
            }
            all.offer(point, row);
        }
        Ok(all.into_pareto(objectives))
    }
}
