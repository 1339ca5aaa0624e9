//! A front over two objectives: as the first gets worse the second gets better, step by step.
//!
//! Every operation takes time that grows with the logarithm of the steps, so that fronts of a hundred thousand rows
//! (every context of an axis, say) stay cheap.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::{Entry, Point};

/// A value of the first objective; never NaN, 0 and -0 are equal.
#[derive(Debug, Clone, Copy)]
struct Step(f64);

impl Ord for Step {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.partial_cmp(&other.0).unwrap_or(Ordering::Equal)
    }
}

impl PartialOrd for Step {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Step {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Step {}

/// First objective to (second objective, row), smaller is better in both.
#[derive(Debug, Default)]
pub(super) struct Staircase {
    steps: BTreeMap<Step, (f64, u128)>,
}

impl Staircase {
    /// The step that is best in the second objective among those no worse in the first.
    fn rival(&self, point: &Point) -> Option<(f64, f64, u128)> {
        self.steps.range(..=Step(point[0])).next_back().map(|(first, &(second, row))| (first.0, second, row))
    }

    /// Whether nothing that is no better than the corner and stands at `first_row` or below it could enter.
    pub(super) fn covers(&self, corner: &Point, first_row: u128) -> bool {
        self.rival(corner).is_some_and(|(first, second, row)| {
            let equal = first == corner[0] && second == corner[1];
            second <= corner[1] && (!equal || row < first_row)
        })
    }

    /// Takes a point in unless another is no worse; of equal points the lower row stays.
    pub(super) fn offer(&mut self, point: &Point, row: u128) {
        let row = match self.rival(point) {
            Some((first, second, known)) if second <= point[1] => {
                if first != point[0] || second != point[1] {
                    return;
                }
                row.min(known)
            }
            _ => row,
        };
        // Whatever is no better in either stands right behind.
        while let Some((&step, _)) = self.steps.range(Step(point[0])..).next().filter(|(_, step)| step.0 >= point[1]) {
            self.steps.remove(&step);
        }
        self.steps.insert(Step(point[0]), (point[1], row));
    }

    /// All points with their rows.
    pub(super) fn into_points(self) -> Vec<Entry> {
        self.steps.into_iter().map(|(first, (second, row))| ([first.0, second, 0.0, 0.0], row)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Points on a coarse grid, so that ties of every kind occur, against comparing every pair.
    #[test]
    fn a_staircase_is_comparing_every_pair() {
        let mut state = 9_u64;
        let mut below = |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % n
        };
        for _ in 0..200 {
            let points: Vec<(Point, u128)> = (0..60)
                .map(|_| ([below(9) as f64 - 4.0, below(9) as f64, 0.0, 0.0], u128::from(below(1000))))
                .collect();
            let mut staircase = Staircase::default();
            for (point, row) in &points {
                if !staircase.covers(point, *row) {
                    staircase.offer(point, *row);
                }
            }
            let beats = |a: &(Point, u128), b: &(Point, u128)| {
                a.0[0] <= b.0[0] && a.0[1] <= b.0[1] && (a.0 != b.0 || a.1 < b.1)
            };
            let mut front: Vec<_> = points.iter().filter(|b| !points.iter().any(|a| beats(a, b))).copied().collect();
            front.sort_by(|a, b| a.0[0].total_cmp(&b.0[0]));
            front.dedup();
            assert_eq!(staircase.into_points(), front);
        }
    }
}
