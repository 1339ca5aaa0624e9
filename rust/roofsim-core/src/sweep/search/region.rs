//! Regions: boxes of batch sizes, contexts and numbers of query tokens, by position on the ascending axes.

use std::ops::Range;

use super::super::space::Space;
use super::axis::Sorted;

/// The numeric axes, ascending.
#[derive(Debug)]
pub(super) struct Axes {
    /// Batch size, context tokens, query tokens.
    pub(super) axes: [Sorted; 3],
}

/// Positions on the three axes; none of the ranges is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Region {
    pub(super) spans: [Range<usize>; 3],
}

/// Batch size.
pub(super) const BATCH: usize = 0;
/// Context tokens.
pub(super) const CONTEXT: usize = 1;
/// Query tokens.
pub(super) const QUERY: usize = 2;

impl Axes {
    pub(super) fn new(space: &Space) -> Self {
        Self { axes: [&space.batch_size, &space.context_tokens, &space.query_tokens].map(Sorted::new) }
    }

    /// All rows of a combination.
    pub(super) fn whole(&self) -> Region {
        Region { spans: [0, 1, 2].map(|axis| 0..self.axis(axis).len()) }
    }

    pub(super) const fn axis(&self, axis: usize) -> &Sorted {
        let [batch, context, query] = &self.axes;
        match axis {
            BATCH => batch,
            CONTEXT => context,
            _ => query,
        }
    }

    /// Row within the combination of places on the axes.
    const fn row(&self, places: [usize; 3]) -> u128 {
        let [batch, context, query] = places;
        let (contexts, queries) = (self.axis(CONTEXT).len() as u128, self.axis(QUERY).len() as u128);
        (batch as u128 * contexts + context as u128) * queries + query as u128
    }

    /// Row within the combination of the positions of one row.
    pub(super) fn row_at(&self, positions: [usize; 3]) -> u128 {
        let [batch, context, query] = positions;
        self.row([self.axis(BATCH).place(batch), self.axis(CONTEXT).place(context), self.axis(QUERY).place(query)])
    }

    /// The lowest row of a region within the combination.
    pub(super) fn first_row(&self, region: &Region) -> u128 {
        let [batch, context, query] = &region.spans;
        let least = |axis: usize, span| self.axis(axis).least_place(span);
        self.row([least(BATCH, batch), least(CONTEXT, context), least(QUERY, query)])
    }

    /// Least and largest value of a region on an axis.
    pub(super) fn ends(&self, region: &Region, axis: usize) -> (u64, u64) {
        self.axis(axis).ends(region.span(axis))
    }
}

impl Region {
    pub(super) const fn span(&self, axis: usize) -> &Range<usize> {
        let [batch, context, query] = &self.spans;
        match axis {
            BATCH => batch,
            CONTEXT => context,
            _ => query,
        }
    }

    pub(super) fn rows(&self) -> u128 {
        self.spans.iter().map(|span| span.len() as u128).product()
    }

    /// The two parts before and from a position on an axis.
    pub(super) fn split(self, axis: usize, at: usize) -> [Self; 2] {
        let mut parts = [self.clone(), self];
        let [before, from] = &mut parts;
        if let (Some(before), Some(from)) = (before.spans.get_mut(axis), from.spans.get_mut(axis)) {
            before.end = at;
            from.start = at;
        }
        parts
    }
}
