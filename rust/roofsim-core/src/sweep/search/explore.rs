//! Branch and bound over the regions of one combination.
//!
//! A region is dropped when it provably holds no row that passes the filters or none that the goal would keep; else it
//! is divided, and runs of contexts that are short enough are evaluated row by row, as a scan does it.

use std::sync::atomic::{AtomicBool, Ordering};

use super::super::block::{Block, Place};
use super::super::column::Column;
use super::super::filter::{Filter, keep_passing, latest};
use super::super::front::{Entry, MOST, Point};
use super::super::kernel::{BLOCK, Isa, Mask};
use super::super::pareto::best_point;
use super::super::rank::best_key;
use super::super::reduce::{Places, Span};
use super::super::tables::PairTable;
use super::bounds::{Corners, Prospect};
use super::goal::Goal;
use super::influence::{AxisSet, Wishes};
use super::region::{BATCH, CONTEXT, QUERY, Region};
use crate::workload::MAX_TOKENS;

/// Rows of a region that is evaluated and not divided: few enough to cost no more than further bounds.
const RUN: usize = 32;
/// Rows of a combination that are evaluated before its bounds may be found useless.
const TRIAL: u128 = 1 << 12;
/// Rows of a region that is scanned where bounds are useless.
const SCANNED: u128 = 1 << 18;
/// Rows of a region that is scanned where bounds rule out less than `WORTHWHILE` times what is evaluated.
const WHOLE_BLOCK: u128 = BLOCK as u128;
const WORTHWHILE: u128 = 16;
/// Values of each axis that are tried first.
const TRIED: [usize; 3] = [12, 12, 3];

/// What is asked of every region.
#[derive(Debug)]
pub(super) struct Question<'a, G> {
    pub(super) goal: &'a G,
    pub(super) filters: &'a [Filter],
    /// No time above this passes.
    latest: f64,
    pub(super) wishes: Wishes,
    pub(super) isa: Isa,
    pub(super) stop: &'a AtomicBool,
}

impl<'a, G: Goal> Question<'a, G> {
    pub(super) fn new(goal: &'a G, filters: &'a [Filter], isa: Isa, stop: &'a AtomicBool) -> Self {
        Self { goal, filters, latest: latest(filters), wishes: Wishes::of(goal.objectives()), isa, stop }
    }
}

/// What was done.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Effort {
    /// Rows evaluated.
    pub(super) evaluated: u128,
    /// Regions whose corners were evaluated.
    pub(super) bounded: u64,
    /// Rows evaluated or ruled out.
    pub(super) settled: u128,
}

/// A region that may hold rows to keep.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) region: Region,
    /// The goal's groups that its rows may be in.
    pub(super) groups: Span,
    /// No row is better than this in any objective.
    pub(super) corner: Point,
    pub(super) first_row: u128,
    /// Axes along which an undecided filter differs, or the groups.
    undecided: AxisSet,
}

/// Branch and bound over one combination.
#[derive(Debug)]
pub(super) struct Explorer<'a> {
    pub(super) prospect: Prospect<'a>,
    /// First row of the combination.
    pub(super) first_row: u128,
    /// Positions whose rows were offered before any bound was made, and whether that is going on.
    tried: [Vec<usize>; 3],
    sampling: bool,
    /// Rows evaluated in runs and rows ruled out by bounds.
    evaluated: u128,
    ruled_out: u128,
    values: Box<[[f64; BLOCK]; MOST]>,
    time: Box<[f64; BLOCK]>,
    mask: Box<[Mask; BLOCK]>,
    /// Rows of a block that pass, with their groups.
    passing: Vec<(usize, Entry)>,
}

impl<'a> Explorer<'a> {
    pub(super) fn new(prospect: Prospect<'a>, first_row: u128) -> Self {
        Self {
            first_row,
            tried: [BATCH, CONTEXT, QUERY].map(|axis| spread(prospect.axes.axis(axis).len(), TRIED[axis])),
            sampling: false,
            prospect,
            evaluated: 0,
            ruled_out: 0,
            values: Box::new([[0.0; BLOCK]; MOST]),
            time: Box::new([0.0; BLOCK]),
            mask: Box::new([0; BLOCK]),
            passing: Vec::new(),
        }
    }

    /// The whole combination, unless it is hopeless.
    pub(super) fn root<G: Goal>(&mut self, question: &Question<'_, G>, effort: &mut Effort) -> Option<Candidate> {
        let objectives = question.goal.objectives().iter().copied();
        let mut columns = objectives.chain(question.filters.iter().map(|filter| filter.column));
        // A null never passes and never ranks.
        if columns.any(|column| self.prospect.is_null(column)) {
            effort.settled += self.prospect.axes.whole().rows();
            return None;
        }
        self.assess(question, self.prospect.axes.whole(), effort)
    }

    /// Bounds a region; rules it out where that is proved.
    fn assess<G: Goal>(
        &mut self,
        question: &Question<'_, G>,
        region: Region,
        effort: &mut Effort,
    ) -> Option<Candidate> {
        effort.bounded += 1;
        let rows = region.rows();
        let candidate = self.bound(question, region);
        if candidate.is_none() {
            self.ruled_out += rows;
            effort.settled += rows;
        }
        candidate
    }

    fn bound<G: Goal>(&mut self, question: &Question<'_, G>, region: Region) -> Option<Candidate> {
        let corners = self.prospect.corners(&region)?;
        let first_row = self.first_row + self.prospect.axes.first_row(&region);
        let corner = self.best_corner(question.goal.objectives(), &corners);
        let mut undecided = AxisSet::NONE;
        let mut groups = Span::default();
        if let Some(keys) = question.goal.keys() {
            groups = keys.span(|column| self.prospect.interval(&corners, column));
            for (&column, _) in keys.columns().iter().zip(groups.widths()).filter(|(_, width)| *width > 1) {
                undecided = undecided.with(AxisSet::behind(column));
            }
        }
        if question.goal.all_hopeless(&groups, &corner, first_row) {
            return None;
        }
        for filter in question.filters {
            let (least, most) = self.prospect.interval(&corners, filter.column);
            if filter.excludes(least, most) {
                return None;
            }
            if !filter.admits(least, most) {
                undecided = undecided.with(AxisSet::behind(filter.column));
            }
        }
        Some(Candidate { region, groups, corner, first_row, undecided })
    }

    fn best_corner(&self, objectives: &[Column], corners: &Corners) -> Point {
        let mut corner: Point = [0.0; MOST];
        for (slot, &column) in corner.iter_mut().zip(objectives) {
            let (least, most) = self.prospect.interval(corners, column);
            let sign = column.direction().sign();
            *slot = if sign > 0.0 { least } else { sign * most };
        }
        corner
    }

    /// Evaluates a few rows all over the combination, so that the goal has something to compare with.
    pub(super) fn sample<G: Goal>(&mut self, question: &Question<'_, G>, effort: &mut Effort) {
        let axes = self.prospect.axes;
        let [batches, contexts, queries] = self.tried.clone();
        self.sampling = true;
        for &query in &queries {
            let tokens = axes.axis(QUERY).value(query);
            let pairs = contexts.iter().map(|&context| (tokens, axes.axis(CONTEXT).value(context)));
            let Ok(table) = PairTable::alone(&self.prospect.combination, &pairs) else { continue };
            for &batch in &batches {
                let context = |at| contexts.get(at).copied().unwrap_or(0);
                self.visit(question, &table, [batch, query], self.first_row, context);
                effort.evaluated += contexts.len() as u128;
            }
        }
        self.sampling = false;
    }

    /// Divides a region until it is settled, the more promising part first.
    pub(super) fn explore<G: Goal>(&mut self, question: &Question<'_, G>, start: Candidate, effort: &mut Effort) {
        let mut open = vec![start];
        while let Some(candidate) = open.pop() {
            if question.stop.load(Ordering::Relaxed) {
                return;
            }
            if question.goal.all_hopeless(&candidate.groups, &candidate.corner, candidate.first_row) {
                self.ruled_out += candidate.region.rows();
                effort.settled += candidate.region.rows();
            } else if self.is_small(&candidate.region) {
                self.evaluate(question, &candidate.region, effort);
            } else {
                self.divide(question, candidate, &mut open, effort);
            }
        }
    }

    /// Puts what is left of the two parts of a candidate on the stack, the better one last.
    pub(super) fn divide<G: Goal>(
        &mut self,
        question: &Question<'_, G>,
        candidate: Candidate,
        open: &mut Vec<Candidate>,
        effort: &mut Effort,
    ) {
        let (axis, at) = self.cut(question, &candidate);
        let [first, second] = candidate.region.split(axis, at).map(|part| self.assess(question, part, effort));
        match (first, second) {
            (Some(first), Some(second)) if before(&first, &second) => open.extend([second, first]),
            (first, second) => open.extend(first.into_iter().chain(second)),
        }
    }

    /// Whether a region is evaluated as it is: few rows, or more where bounds have turned out useless.
    pub(super) fn is_small(&self, region: &Region) -> bool {
        let rows = region.rows();
        let most = if self.evaluated <= TRIAL || self.evaluated.saturating_mul(WORTHWHILE) <= self.ruled_out {
            RUN as u128
        } else if self.evaluated <= self.ruled_out {
            WHOLE_BLOCK
        } else {
            SCANNED
        };
        rows <= most
    }

    /// The axis to divide, and where.
    fn cut<G: Goal>(&self, question: &Question<'_, G>, candidate: &Candidate) -> (usize, usize) {
        let (axes, region) = (self.prospect.axes, &candidate.region);
        let matters = question.wishes.torn.with(candidate.undecided);
        let width = |axis: usize| {
            let (first, last) = axes.ends(region, axis);
            (last as f64 / first as f64, region.span(axis).len())
        };
        // Of the axes that matter (of all, where none does) the one whose ends are farthest apart.
        let widest = |only_mattering: bool| {
            [BATCH, CONTEXT, QUERY]
                .into_iter()
                .filter(|&axis| region.span(axis).len() > 1 && (!only_mattering || matters.has(axis)))
                .max_by(|&a, &b| width(a).0.total_cmp(&width(b).0).then(width(a).1.cmp(&width(b).1)))
        };
        let Some(axis) = widest(true).or_else(|| widest(false)) else { return (CONTEXT, region.span(CONTEXT).end) };
        let span = region.span(axis);
        if axis == CONTEXT && !matters.has(CONTEXT) && span.len() > 2 * RUN {
            // Every row is best at one end: what is kept, if anything, lies there.
            return (axis, if question.wishes.high.has(axis) { span.end - RUN } else { span.start + RUN });
        }
        (axis, axes.axis(axis).middle(span))
    }

    /// Shows every row of a region to the goal.
    fn evaluate<G: Goal>(&mut self, question: &Question<'_, G>, region: &Region, effort: &mut Effort) {
        let contexts = region.span(CONTEXT);
        for query in region.span(QUERY).clone() {
            for start in contexts.clone().step_by(BLOCK) {
                let run = start..contexts.end.min(start + BLOCK);
                let table = self.prospect.table(query, &run);
                for batch in region.span(BATCH).clone() {
                    if question.stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let line = Region { spans: [batch..batch + 1, run.clone(), query..query + 1] };
                    let lowest = self.first_row + self.prospect.axes.first_row(&line);
                    self.visit(question, &table, [batch, query], lowest, |at| start + at);
                }
            }
        }
        self.evaluated += region.rows();
        effort.evaluated += region.rows();
        effort.settled += region.rows();
    }

    /// Whether a position is one of those that are tried first.
    fn was_tried(&self, axis: usize, position: usize) -> bool {
        self.tried.get(axis).is_some_and(|tried| tried.binary_search(&position).is_ok())
    }

    /// Evaluates the rows of a table at one batch size and number of query tokens, none of them above `lowest`, and
    /// offers those that pass.
    fn visit<G: Goal>(
        &mut self,
        question: &Question<'_, G>,
        table: &PairTable,
        [batch, query]: [usize; 2],
        lowest: u128,
        context: impl Fn(usize) -> usize,
    ) {
        let combination = std::sync::Arc::clone(&self.prospect.combination);
        let Ok((deployment, _)) = &combination.runs else { return };
        let axes = self.prospect.axes;
        let (batch_size, tokens) = (axes.axis(BATCH).value(batch), axes.axis(QUERY).value(query));
        let rows_s = [self.prospect.rows_s(deployment, batch_size, tokens)];
        let rows_cost = if self.prospect.needs_costs {
            vec![self.prospect.rows_cost(deployment, batch_size, tokens)]
        } else {
            Vec::new()
        };
        let len = table.context_tokens.len();
        let place = Place {
            space: self.prospect.space,
            combination: &combination,
            isa: question.isa,
            first_row: 0,
            batch_size,
            table,
            first: 0,
            len,
            rows_s: &rows_s,
            rows_cost: &rows_cost,
            most_query_tokens: (MAX_TOKENS / batch_size) as f64,
        };
        let (Some(time), Some(mask)) = (self.time.get_mut(..len), self.mask.get_mut(..len)) else { return };
        let block = Block::new(place, time, None);
        if !block.any_until(question.latest) {
            return;
        }
        let objectives = question.goal.objectives();
        let mut each = [0; BLOCK];
        let groups = match question.goal.keys() {
            None => Places::One(0),
            Some(keys) => keys.places_from(|_| 0.0, &block, &mut each),
        };
        // As in a scan, one look at the times tells for most blocks that no row can be kept.
        if let Places::One(group) = groups
            && best_point(&block, objectives).is_some_and(|best| question.goal.hopeless(group, &best, lowest))
        {
            return;
        }
        keep_passing(&block, question.filters, mask);
        // No row that passes is better than this in any objective.
        let mut best: Point = [0.0; MOST];
        for ((&column, values), best) in objectives.iter().zip(self.values.iter_mut()).zip(&mut best) {
            if let Some(values) = values.get_mut(..len) {
                block.fill(column, values);
                let Some(key) = best_key(question.isa, values, column.direction().sign(), mask) else { return };
                *best = key;
            }
        }
        if let Places::One(group) = groups
            && question.goal.hopeless(group, &best, lowest)
        {
            return;
        }
        self.passing.clear();
        let line_was_tried = !self.sampling && self.was_tried(BATCH, batch) && self.was_tried(QUERY, query);
        for (at, _) in self.mask.iter().take(len).enumerate().filter(|&(_, &kept)| kept != 0) {
            // Each row is offered once.
            if line_was_tried && self.was_tried(CONTEXT, context(at)) {
                continue;
            }
            let mut point: Point = [0.0; MOST];
            for ((slot, values), column) in point.iter_mut().zip(self.values.iter()).zip(objectives) {
                *slot = column.direction().sign() * values.get(at).copied().unwrap_or(f64::NAN);
            }
            if !point.iter().any(|x| x.is_nan()) {
                let group = match groups {
                    Places::One(group) => group,
                    Places::Each(groups) => groups.get(at).copied().unwrap_or(usize::MAX),
                };
                let row = self.first_row + axes.row_at([batch, context(at), query]);
                self.passing.push((group, (point, row)));
            }
        }
        question.goal.offer_all(&self.passing);
    }
}

/// Whether a candidate is the more promising one.
fn before(a: &Candidate, b: &Candidate) -> bool {
    a.corner.partial_cmp(&b.corner).is_none_or(|order| order.then(a.first_row.cmp(&b.first_row)).is_le())
}

/// At most `count` of `len` positions, both ends among them, close together at the start.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and len")]
fn spread(len: usize, count: usize) -> Vec<usize> {
    if len <= count {
        return (0..len).collect();
    }
    let ratio = (len as f64).powf(1.0 / (count - 1) as f64);
    let mut positions: Vec<usize> =
        (0..count).map(|at| ratio.powf(at as f64) as usize).map(|p| p.clamp(1, len) - 1).collect();
    positions.dedup();
    positions
}
