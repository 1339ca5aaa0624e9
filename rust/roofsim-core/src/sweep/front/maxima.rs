//! The points of a list that no other beats: `n log n` over two and three objectives, `n log^2 n` over four.
//!
//! In lexicographic order whatever beats a point stands before it, so that one objective less is left to compare: over
//! three objectives a staircase of the last two is swept along; over four the list is halved, and the first half's
//! points beat those of the second that they beat in the last three, again by a sweep.
//!
//! Source: H. T. Kung, F. Luccio, F. P. Preparata, "On finding the maxima of a set of vectors", J. ACM 22 (1975).

use std::cmp::Ordering;

use super::super::sort::sort;
use super::staircase::Staircase;
use super::{Entry, Point};
use crate::error::Result;

/// Points between two looks at whether to go on.
const LOOK: usize = 1 << 14;
/// Points that are compared pair by pair.
const FEW: usize = 24;

/// What is left of the points, in lexicographic order.
pub(super) fn maxima(
    mut points: Vec<Entry>,
    objectives: usize,
    go_on: &mut dyn FnMut() -> Result<()>,
) -> Result<Vec<Entry>> {
    go_on()?;
    let order = |a: &Entry, b: &Entry| a.0.partial_cmp(&b.0).unwrap_or(Ordering::Equal).then(a.1.cmp(&b.1));
    sort(&mut points, order, go_on)?;
    if objectives > 3 {
        return halved(&points, go_on);
    }
    let mut steps = Staircase::default();
    let mut kept = Vec::new();
    for (count, entry) in points.into_iter().enumerate() {
        if count % LOOK == LOOK - 1 {
            go_on()?;
        }
        let [_, second, third, _] = entry.0;
        let rest = [second, third, 0.0, 0.0];
        if !covers(&steps, &rest) {
            steps.offer(&rest, 0);
            kept.push(entry);
        }
    }
    Ok(kept)
}

/// Whether a step is no worse.
fn covers(steps: &Staircase, rest: &Point) -> bool {
    steps.covers(rest, u128::MAX)
}

/// Of points in lexicographic order over four objectives.
fn halved(points: &[Entry], go_on: &mut dyn FnMut() -> Result<()>) -> Result<Vec<Entry>> {
    if points.len() <= FEW {
        let mut kept: Vec<Entry> = Vec::with_capacity(points.len());
        for entry in points {
            if !kept.iter().any(|(other, _)| (1..4).all(|axis| other[axis] <= entry.0[axis])) {
                kept.push(*entry);
            }
        }
        return Ok(kept);
    }
    let (first, second) = points.split_at(points.len() / 2);
    let (mut first, second) = (halved(first, go_on)?, halved(second, go_on)?);
    if points.len() >= LOOK {
        go_on()?;
    }
    let mut kept = unbeaten(&first, second, go_on)?;
    first.append(&mut kept);
    Ok(first)
}

/// The later points that no earlier one is no worse than in the last three objectives.
fn unbeaten(earlier: &[Entry], later: Vec<Entry>, go_on: &mut dyn FnMut() -> Result<()>) -> Result<Vec<Entry>> {
    let order = |a: f64, b: f64| a.partial_cmp(&b).unwrap_or(Ordering::Equal);
    let mut rivals: Vec<&Point> = earlier.iter().map(|(point, _)| point).collect();
    sort(&mut rivals, |a, b| order(a[1], b[1]), go_on)?;
    let mut asked: Vec<usize> = (0..later.len()).collect();
    let second = |at: usize| later.get(at).map_or(f64::NAN, |(point, _)| point[1]);
    sort(&mut asked, |&a, &b| order(second(a), second(b)), go_on)?;
    let mut keep = vec![true; later.len()];
    let mut steps = Staircase::default();
    let mut rivals = rivals.into_iter().peekable();
    let mut looked = 0_usize;
    for at in asked {
        let Some((point, _)) = later.get(at) else { continue };
        while let Some(rival) = rivals.next_if(|rival| rival[1] <= point[1]) {
            steps.offer(&[rival[2], rival[3], 0.0, 0.0], 0);
            looked += 1;
            if looked.is_multiple_of(LOOK) {
                go_on()?;
            }
        }
        looked += 1;
        if looked.is_multiple_of(LOOK) {
            go_on()?;
        }
        if let Some(keep) = keep.get_mut(at) {
            *keep = !covers(&steps, &[point[2], point[3], 0.0, 0.0]);
        }
    }
    Ok(later.into_iter().zip(keep).filter_map(|(entry, keep)| keep.then_some(entry)).collect())
}
