//! A numeric axis in ascending order, with the way back to the order of the space.

use std::ops::Range;

use super::super::space::Axis;

/// Values in ascending order; positions count along it.
#[derive(Debug)]
pub(super) enum Sorted {
    /// `start + step x position`.
    Progression { start: u64, step: u64, len: usize },
    /// A list that was ascending already.
    Ascending(Vec<u64>),
    /// Any other list: values, the place of each on the axis, and the tree of least places.
    Permuted { values: Vec<u64>, place: Vec<usize>, least: Vec<usize> },
}

impl Sorted {
    pub(super) fn new(axis: &Axis) -> Self {
        match axis {
            Axis::Range { start, step, len } => Self::Progression { start: *start, step: *step, len: *len },
            Axis::List(values) if values.is_sorted() => Self::Ascending(values.clone()),
            Axis::List(values) => {
                let mut place: Vec<usize> = (0..values.len()).collect();
                place.sort_by_key(|&at| values.get(at).copied());
                let values = place.iter().map(|&at| values.get(at).copied().unwrap_or(0)).collect();
                let least = least_tree(&place);
                Self::Permuted { values, place, least }
            }
        }
    }

    pub(super) const fn len(&self) -> usize {
        match self {
            Self::Progression { len, .. } => *len,
            Self::Ascending(values) | Self::Permuted { values, .. } => values.len(),
        }
    }

    /// The value at a position below `len`.
    pub(super) fn value(&self, position: usize) -> u64 {
        match self {
            Self::Progression { start, step, .. } => start + step * position as u64,
            Self::Ascending(values) | Self::Permuted { values, .. } => values.get(position).copied().unwrap_or(0),
        }
    }

    /// Place on the axis of the value at a position.
    pub(super) fn place(&self, position: usize) -> usize {
        match self {
            Self::Permuted { place, .. } => place.get(position).copied().unwrap_or(0),
            _ => position,
        }
    }

    /// The lowest place of the positions of a range that is not empty.
    pub(super) fn least_place(&self, span: &Range<usize>) -> usize {
        match self {
            Self::Permuted { least, place, .. } => least_of(least, place.len(), span),
            _ => span.start,
        }
    }

    /// Number of values of at most `limit`.
    fn count_until(&self, limit: u64) -> usize {
        match self {
            Self::Progression { start, step, len } => {
                let steps = limit.checked_sub(*start).map(|rest| rest.checked_div(*step));
                steps.map_or(0, |n| n.map_or(*len, |n| usize::try_from(n).map_or(*len, |n| (n + 1).min(*len))))
            }
            Self::Ascending(values) | Self::Permuted { values, .. } => values.partition_point(|&v| v <= limit),
        }
    }

    /// Least and largest value of a range that is not empty.
    pub(super) fn ends(&self, span: &Range<usize>) -> (u64, u64) {
        (self.value(span.start), self.value(span.end.saturating_sub(1)))
    }

    /// Where to halve a range of at least two: at the geometric mean of its ends where these are far apart.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between two values of the axis")]
    pub(super) fn middle(&self, span: &Range<usize>) -> usize {
        let (first, last) = self.ends(span);
        let middle = if last / 2 > first {
            self.count_until((first as f64 * last as f64).sqrt() as u64)
        } else {
            usize::midpoint(span.start, span.end)
        };
        middle.clamp(span.start + 1, span.end - 1)
    }
}

/// A segment tree of minima: leaves from `len` on, parents before them, the root at 1.
fn least_tree(place: &[usize]) -> Vec<usize> {
    let len = place.len();
    let mut tree = vec![usize::MAX; len];
    tree.extend_from_slice(place);
    for node in (1..len).rev() {
        let child = |at: usize| tree.get(at).copied().unwrap_or(usize::MAX);
        let least = child(2 * node).min(child(2 * node + 1));
        if let Some(slot) = tree.get_mut(node) {
            *slot = least;
        }
    }
    tree
}

fn least_of(tree: &[usize], len: usize, span: &Range<usize>) -> usize {
    let at = |node: usize| tree.get(node).copied().unwrap_or(usize::MAX);
    let (mut from, mut to, mut least) = (span.start + len, span.end + len, usize::MAX);
    while from < to {
        if from % 2 == 1 {
            least = least.min(at(from));
            from += 1;
        }
        if to % 2 == 1 {
            to -= 1;
            least = least.min(at(to));
        }
        (from, to) = (from / 2, to / 2);
    }
    least
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Any order, with repeats: values ascend, places lead back, the least place of every range is found.
    #[test]
    fn a_permuted_axis_knows_its_order() {
        let given = vec![7_u64, 3, 3, 900, 1, 7, 2, 64, 5, 5, 1];
        let sorted = Sorted::new(&Axis::List(given.clone()));
        for position in 0..given.len() {
            assert_eq!(given[sorted.place(position)], sorted.value(position));
            assert!(position == 0 || sorted.value(position - 1) <= sorted.value(position));
        }
        for start in 0..given.len() {
            for end in start + 1..=given.len() {
                let least = (start..end).map(|position| sorted.place(position)).min();
                assert_eq!(Some(sorted.least_place(&(start..end))), least);
                if end - start > 1 {
                    let middle = sorted.middle(&(start..end));
                    assert!(start < middle && middle < end);
                }
            }
        }
    }

    #[test]
    fn a_progression_is_its_list() {
        for step in [0_u64, 1, 3, 250] {
            let axis = Axis::Range { start: 5, step, len: 40 };
            let (range, list) = (Sorted::new(&axis), Sorted::new(&Axis::List(axis.values().collect())));
            for limit in [0, 4, 5, 6, 100, 9999, 1 << 30] {
                assert_eq!(range.count_until(limit), list.count_until(limit), "{step} {limit}");
            }
            assert!((1..40).all(|end| range.middle(&(0..end + 1)) == list.middle(&(0..end + 1))));
        }
    }
}
