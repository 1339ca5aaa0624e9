//! The Pareto front over two to four columns.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use super::block::Block;
use super::column::Column;
use super::driver::{Progress, Runner, Visitor, looks};
use super::filter::{Filter, keep_passing, latest};
use super::front::{Entry, Front, MOST, Point};
use super::kernel::{BLOCK, Mask};
use super::rank::best_key;
use super::sort::sort;
use super::space::Space;
use crate::error::{Error, Result};

/// Rows copied between two looks at whether to go on.
const LOOK: usize = 1 << 14;

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

    /// In row order, with values that are not signed.
    pub(super) fn of(
        mut points: Vec<Entry>,
        objectives: &[Column],
        go_on: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Self> {
        sort(&mut points, |(_, a), (_, b)| a.cmp(b), go_on)?;
        let values =
            |point: Point| objectives.iter().zip(point).map(|(column, x)| column.direction().sign() * x).collect();
        let mut rows = Vec::with_capacity(points.len());
        for piece in points.chunks(LOOK) {
            rows.extend(piece.iter().map(|(point, row)| (values(*point), *row)));
            go_on()?;
        }
        Ok(Self { rows })
    }

    /// The front of the rows of several results over the same objectives; asks now and then whether to go on.
    pub fn join(results: &[Self], objectives: &[Column], mut go_on: impl FnMut() -> Result<()>) -> Result<Self> {
        let mut candidates = Vec::with_capacity(results.iter().map(|result| result.rows.len()).sum());
        for rows in results.iter().flat_map(|result| result.rows.chunks(LOOK)) {
            candidates.extend(rows.iter().map(|(values, row)| (signed(objectives, values), *row)));
            go_on()?;
        }
        Self::of(Front::of(candidates, objectives.len(), &mut go_on)?, objectives, &mut go_on)
    }
}

/// The values of one row, signed so that smaller is better.
fn signed(objectives: &[Column], values: &[f64]) -> Point {
    let mut point: Point = [0.0; MOST];
    for ((slot, column), value) in point.iter_mut().zip(objectives).zip(values) {
        *slot = column.direction().sign() * value;
    }
    point
}

/// A point that no row of a block betters in any objective, from the least time alone; `None` where an objective does
/// not follow from time.
pub(super) fn best_point(block: &Block<'_>, objectives: &[Column]) -> Option<Point> {
    let earliest = block.earliest();
    let mut corner: Point = [0.0; MOST];
    for (slot, &column) in corner.iter_mut().zip(objectives) {
        *slot = match block.constant(column) {
            Some(value) => column.direction().sign() * value,
            None => block.of_time(column)?.best_key(earliest),
        };
    }
    Some(corner)
}

/// A progress that tells growing fronts, too, when the sweep is stopped: those that join trees hear of nothing else.
pub(super) fn stopping<'a>(
    progress: &'a mut Progress<'_>,
    stop: &'a AtomicBool,
) -> impl FnMut(u128, u128) -> ControlFlow<()> + 'a {
    move |done, total| {
        let flow = progress(done, total);
        stop.fetch_or(flow.is_break(), Ordering::Relaxed);
        flow
    }
}

struct Search<'a> {
    objectives: &'a [Column],
    filters: &'a [Filter],
    latest: f64,
    front: Front,
    stop: &'a AtomicBool,
    values: Box<[[f64; BLOCK]; MOST]>,
    mask: Box<[Mask; BLOCK]>,
}

impl Visitor for Search<'_> {
    const SCREENS: bool = true;

    fn filters(&self) -> &[Filter] {
        self.filters
    }

    fn visit(&mut self, block: &Block<'_>) {
        if !block.has_results() || !block.any_until(self.latest) {
            return;
        }
        if best_point(block, self.objectives).is_some_and(|corner| self.front.covers(&corner, block.first_row)) {
            return;
        }
        let Some(mask) = self.mask.get_mut(..block.len) else { return };
        keep_passing(block, self.filters, mask);
        // The exact corner of the rows that pass: if the front beats it, it beats every one of them.
        let mut corner: Point = [0.0; MOST];
        for ((column, values), corner) in self.objectives.iter().zip(self.values.iter_mut()).zip(&mut corner) {
            let Some(values) = values.get_mut(..block.len) else { return };
            block.fill(*column, values);
            let Some(best) = best_key(block.isa, values, column.direction().sign(), mask) else { return };
            *corner = best;
        }
        if self.front.covers(&corner, block.first_row) {
            return;
        }
        for (j, _) in mask.iter().enumerate().filter(|&(_, &kept)| kept != 0) {
            let mut point: Point = [0.0; MOST];
            for ((column, values), slot) in self.objectives.iter().zip(self.values.iter()).zip(&mut point) {
                *slot = column.direction().sign() * values.get(j).copied().unwrap_or(f64::NAN);
            }
            if !point.iter().any(|x| x.is_nan()) {
                self.front.offer(&point, block.first_row + j as u128, self.stop);
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
        let stop = AtomicBool::new(false);
        let mut progress = stopping(progress, &stop);
        let fresh = || Search {
            objectives,
            filters,
            latest: latest(filters),
            front: Front::new(objectives.len()),
            stop: &stop,
            values: Box::new([[0.0; BLOCK]; MOST]),
            mask: Box::new([0; BLOCK]),
        };
        let found = runner.reduce(self, &columns, &mut progress, fresh)?;
        let mut go_on = looks(&mut progress, self.num_configurations().unwrap_or(u128::MAX));
        let fronts = found.into_iter().map(|search| search.front);
        Pareto::of(Front::join(fronts, &mut go_on)?, objectives, &mut go_on)
    }
}
