//! Fronts as they grow: whether anything kept beats a point, in time far below the number of points.
//!
//! Over two objectives a front is a `staircase`, over three or four a `forest`. What is left in the end does not depend
//! on the order in which points are offered, nor on offering one twice, so that fronts of parts join (`maxima`).

mod forest;
mod maxima;
mod staircase;

use std::sync::atomic::AtomicBool;

use crate::error::Result;
use forest::Forest;
use staircase::Staircase;

/// Most objectives.
pub(super) const MOST: usize = 4;

/// Signed values, smaller is better; unused objectives are 0. Never NaN.
pub(super) type Point = [f64; MOST];

/// A point and its row. Of points equal in everything the lower row stays.
pub(super) type Entry = (Point, u128);

#[inline]
#[expect(clippy::needless_bitwise_bool, reason = "one vector comparison instead of four branches")]
fn no_worse(a: &Point, b: &Point) -> bool {
    (a[0] <= b[0]) & (a[1] <= b[1]) & (a[2] <= b[2]) & (a[3] <= b[3])
}

/// Whether an entry beats everything that is no better than the corner and stands at `first_row` or above.
#[inline]
fn beats((point, row): &Entry, corner: &Point, first_row: u128) -> bool {
    no_worse(point, corner) && (point != corner || *row < first_row)
}

#[derive(Debug)]
enum Growing {
    Staircase(Staircase),
    Forest(Forest),
}

/// The points that no other beats.
#[derive(Debug)]
pub(super) struct Front {
    objectives: usize,
    growing: Growing,
}

impl Front {
    /// An empty front over two to four objectives.
    pub(super) fn new(objectives: usize) -> Self {
        let growing = match objectives {
            0..=2 => Growing::Staircase(Staircase::default()),
            _ => Growing::Forest(Forest::new(objectives)),
        };
        Self { objectives, growing }
    }

    /// Whether nothing that is no better than the corner and stands at `first_row` or above it could enter.
    pub(super) fn covers(&self, corner: &Point, first_row: u128) -> bool {
        match &self.growing {
            Growing::Staircase(staircase) => staircase.covers(corner, first_row),
            Growing::Forest(forest) => forest.covers(corner, first_row),
        }
    }

    /// Takes a point in unless another is no worse; of equal points the lower row stays. Once told to stop, the front is
    /// of no use.
    pub(super) fn offer(&mut self, point: &Point, row: u128, stop: &AtomicBool) {
        match &mut self.growing {
            Growing::Staircase(staircase) => staircase.offer(point, row),
            Growing::Forest(forest) => forest.offer(point, row, stop),
        }
    }

    fn into_candidates(self) -> Vec<Entry> {
        match self.growing {
            Growing::Staircase(staircase) => staircase.into_points(),
            Growing::Forest(forest) => forest.into_candidates(),
        }
    }

    /// The points of several fronts over the same objectives that no point of any of them beats; asks now and then
    /// whether to go on.
    pub(super) fn join(
        fronts: impl IntoIterator<Item = Self>,
        mut go_on: impl FnMut() -> Result<()>,
    ) -> Result<Vec<Entry>> {
        let (mut objectives, mut candidates) = (2, Vec::new());
        for front in fronts {
            objectives = front.objectives;
            candidates.append(&mut front.into_candidates());
        }
        maxima::maxima(candidates, objectives, &mut go_on)
    }

    /// The points that no other of them beats, in any order; asks now and then whether to go on.
    pub(super) fn of(
        candidates: Vec<Entry>,
        objectives: usize,
        mut go_on: impl FnMut() -> Result<()>,
    ) -> Result<Vec<Entry>> {
        maxima::maxima(candidates, objectives, &mut go_on)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Points on coarse and fine grids, so that ties of every kind occur, against comparing every pair: offered in any
    /// order, some twice, to one front or shared out over several.
    #[test]
    fn a_front_is_comparing_every_pair() {
        let mut state = 9_u64;
        let mut below = |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % n
        };
        for round in 0..240_usize {
            let objectives = 2 + round % 3;
            let len = [40, 300, 1500][round / 3 % 3];
            let grid = [4, 12, 1000][round / 9 % 3];
            let mut points: Vec<Entry> = Vec::new();
            while points.len() < len {
                let mut point = [0.0; MOST];
                // Values that trade off against each other make long fronts.
                let mut left = grid * 2;
                for slot in point.iter_mut().take(objectives) {
                    let value = below(grid.min(left) + 1);
                    left = left.saturating_sub(value);
                    *slot = -(value as f64);
                }
                points.push((point, u128::from(below(5000))));
                if below(5) == 0 {
                    points.push(*points.last().unwrap_or(&(point, 0)));
                }
            }
            let mut fronts: Vec<Front> = (0..=round % 4).map(|_| Front::new(objectives)).collect();
            let shares = fronts.len();
            for (at, (point, row)) in points.iter().enumerate() {
                let front = &mut fronts[at % shares];
                if !front.covers(point, *row) {
                    front.offer(point, *row, &AtomicBool::new(false));
                }
                assert!(front.covers(point, row + 1), "what was offered is covered");
            }
            let mut found = Front::join(fronts, || Ok(())).unwrap_or_default();
            let beaten = |b: &Entry| points.iter().any(|a| beats(a, &b.0, b.1));
            let mut front: Vec<Entry> = points.iter().filter(|b| !beaten(b)).copied().collect();
            let order =
                |a: &Entry, b: &Entry| a.1.cmp(&b.1).then(a.0.partial_cmp(&b.0).unwrap_or(std::cmp::Ordering::Equal));
            front.sort_by(order);
            front.dedup();
            found.sort_by(order);
            assert_eq!(found, front, "{objectives} objectives");
            let mut again = Front::of(points, objectives, || Ok(())).unwrap_or_default();
            again.sort_by(order);
            assert_eq!(again, front);
        }
    }
}
