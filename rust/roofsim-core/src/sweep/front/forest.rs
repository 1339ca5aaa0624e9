//! A front over three or four objectives: k-d trees of doubling sizes.
//!
//! New points gather in a short list; a full one is joined with the trees that are no larger into one tree, of which
//! the beaten points are left out. A tree answers whether it beats a point by leaving out subtrees that start behind it
//! and by stopping at the first that ends before it. Points that newer ones beat stay until their tree is joined: they
//! can only beat what is beaten anyway. For the same reason a point may be taken in before all trees are looked through.
//!
//! Source: J. L. Bentley, J. B. Saxe, "Decomposable searching problems I", J. Algorithms 1 (1980).

use std::cmp::Ordering;
use std::sync::atomic::{self, AtomicBool};

use super::maxima::maxima;
use super::{Entry, Point, beats, no_worse};
use crate::error::Error;

/// Points that are gathered before they become a tree.
const RECENT: usize = 256;
/// Points of a leaf.
const LEAF: usize = 8;
/// Nodes that are looked at before a point is taken in unseen: what beats it leaves it out when trees are joined.
const MOST_NODES: usize = 256;
/// Deepest stack of a walk: one place per level of a tree.
const DEEPEST: usize = 64;

/// A subtree: its left part stands right behind it.
#[derive(Debug)]
struct Node {
    /// Least and most in each objective.
    low: Point,
    high: Point,
    /// Place of the right part; 0 in a leaf.
    right: usize,
    /// Points of a leaf.
    first: usize,
    end: usize,
}

#[derive(Debug)]
struct Tree {
    nodes: Vec<Node>,
    points: Vec<Entry>,
}

impl Tree {
    fn new(mut points: Vec<Entry>, objectives: usize, stop: &AtomicBool) -> Self {
        let mut nodes = Vec::with_capacity(2 * points.len().div_ceil(LEAF));
        grow(&mut points, 0, 0, objectives, &mut nodes, stop);
        Self { nodes, points }
    }

    /// Whether a point beats the corner; false too where that is not known after so many nodes.
    fn covers(&self, corner: &Point, first_row: u128, nodes: &mut usize) -> bool {
        let mut open = [0_usize; DEEPEST];
        let mut depth = 1;
        while depth > 0 && *nodes > 0 {
            depth -= 1;
            *nodes -= 1;
            let Some((at, node)) = open.get(depth).and_then(|&at| Some((at, self.nodes.get(at)?))) else { continue };
            if !no_worse(&node.low, corner) {
                continue;
            }
            // Every point is no worse, and where the corner differs from the worst of them, better.
            if no_worse(&node.high, corner) && node.high != *corner {
                return true;
            }
            if node.right == 0 {
                let points = self.points.get(node.first..node.end).unwrap_or(&[]);
                if points.iter().any(|entry| beats(entry, corner, first_row)) {
                    return true;
                }
            } else if let Some([right, left]) = open.get_mut(depth..).and_then(|rest| rest.first_chunk_mut()) {
                (*right, *left) = (node.right, at + 1);
                depth += 2;
            }
        }
        false
    }
}

/// Puts the points into the order of the leaves and appends their nodes; a stop leaves large leaves.
fn grow(points: &mut [Entry], first: usize, axis: usize, objectives: usize, nodes: &mut Vec<Node>, stop: &AtomicBool) {
    let (mut low, mut high) = ([f64::INFINITY; 4], [f64::NEG_INFINITY; 4]);
    for (point, _) in &*points {
        for ((low, high), &x) in low.iter_mut().zip(&mut high).zip(point) {
            *low = if x < *low { x } else { *low };
            *high = if x > *high { x } else { *high };
        }
    }
    let at = nodes.len();
    nodes.push(Node { low, high, right: 0, first, end: first + points.len() });
    if points.len() <= LEAF || stop.load(atomic::Ordering::Relaxed) {
        return;
    }
    let middle = points.len() / 2;
    let value = |entry: &Entry| entry.0.get(axis).copied().unwrap_or(0.0);
    points.select_nth_unstable_by(middle, |a, b| value(a).partial_cmp(&value(b)).unwrap_or(Ordering::Equal));
    let (left, right) = points.split_at_mut(middle);
    let next = (axis + 1) % objectives;
    grow(left, first, next, objectives, nodes, stop);
    let behind = nodes.len();
    grow(right, first + middle, next, objectives, nodes, stop);
    if let Some(node) = nodes.get_mut(at) {
        node.right = behind;
    }
}

/// Trees, larger ones first, and the points that no tree has yet.
#[derive(Debug)]
pub(super) struct Forest {
    objectives: usize,
    trees: Vec<Tree>,
    recent: Vec<Entry>,
}

impl Forest {
    pub(super) const fn new(objectives: usize) -> Self {
        Self { objectives, trees: Vec::new(), recent: Vec::new() }
    }

    /// Whether nothing that is no better than the corner and stands at `first_row` or above it could enter.
    pub(super) fn covers(&self, corner: &Point, first_row: u128) -> bool {
        self.covers_within(corner, first_row, usize::MAX)
    }

    /// The same, or false where that is not known after so many nodes.
    fn covers_within(&self, corner: &Point, first_row: u128, mut nodes: usize) -> bool {
        self.trees.iter().any(|tree| tree.covers(corner, first_row, &mut nodes))
            || self.recent.iter().any(|entry| beats(entry, corner, first_row))
    }

    /// Takes a point in unless another is no worse; of equal points the lower row counts in the end. Trees that join may
    /// take long: a stop leaves their points out.
    pub(super) fn offer(&mut self, point: &Point, row: u128, stop: &AtomicBool) {
        if self.covers_within(point, row.saturating_add(1), MOST_NODES) {
            return;
        }
        self.recent.retain(|(other, _)| !no_worse(point, other));
        self.recent.push((*point, row));
        if self.recent.len() < RECENT {
            return;
        }
        let mut points = std::mem::take(&mut self.recent);
        while let Some(tree) = self.trees.pop_if(|tree| tree.points.len() <= points.len()) {
            points.extend(tree.points);
        }
        let go_on = || if stop.load(atomic::Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) };
        if let Ok(points) = maxima(points, self.objectives, &mut { go_on }) {
            self.trees.push(Tree::new(points, self.objectives, stop));
        }
    }

    /// All points that may be of the front.
    pub(super) fn into_candidates(self) -> Vec<Entry> {
        self.trees.into_iter().flat_map(|tree| tree.points).chain(self.recent).collect()
    }
}
