//! Bounds of columns over a region of one combination, from the costs of its two corners.
//!
//! Time, FLOPs and bytes never fall when batch, context or query tokens grow, so that the corner
//! of the least sizes bounds them from below and the corner of the largest from above. Both are evaluated by the very
//! operations of `step`, and widened by far more than the rounding of any cost. Where a region asks for the same load
//! everywhere (one batch, and contexts beyond every window) both corners are the same bits and nothing is widened.
//! Quotients are bounded by quotients of bounds, and tighter where what is divided grows with what divides it.

use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use super::super::column::Column;
use super::super::combination::{tokens_per_s, usd_per_mtok};
use super::super::space::Space;
use super::super::tables::{Combination, PairTable};
use super::extent;
use super::region::{Axes, BATCH, CONTEXT, QUERY, Region};
use crate::calibration::{AttentionLaw, GemmLaw, GroupedGemmLaw};
use crate::capacity::Capacity;
use crate::deployment::Deployment;
use crate::model::Span;
use crate::ops::Load;
use crate::roofline::{Bound, OpCost};
use crate::step::RowOp;
use crate::workload::{MAX_TOKENS, Request};

/// Relative slack of a bound. Costs are sums, products, roots, minima and maxima of positive numbers: a few hundred
/// roundings of 2^-53, and the expected number of distinct experts E/k times that. This covers all with E/k below 10^5.
const SLACK: f64 = 1.0 / (1_u64 << 36) as f64;

/// Largest E/k that the slack covers.
const MOST_EXPERTS_PER_VISIT: u64 = 100_000;

/// Entries of a cache before it is emptied.
const MOST_CACHED: usize = 1 << 15;

/// Loads of one request, and how many of its context fit.
#[derive(Debug)]
struct Point {
    /// One per attention operation; empty where the span is chunked.
    loads: Vec<Load>,
    max_sequences: f64,
}

/// One corner of a region.
#[derive(Debug, Clone, Copy)]
struct Corner {
    batch: u64,
    query_tokens: u64,
    query: f64,
    time_s: f64,
    /// All parts, where some column needs them.
    cost: OpCost,
    max_sequences: f64,
}

/// Both corners of a region.
#[derive(Debug)]
pub(super) struct Corners {
    least: Corner,
    most: Corner,
    /// No row of the region takes less time for each of its sequences than this over the most of them.
    shared_s: f64,
    /// No less than any row's MBU; infinite where only the corners say something.
    most_mbu: f64,
    /// 0 where both corners are the same bits.
    slack: f64,
    contexts: (u64, u64),
}

/// A compiled combination with what was worked out about it.
#[derive(Debug)]
pub(super) struct Prospect<'a> {
    pub(super) space: &'a Space,
    pub(super) axes: &'a Axes,
    pub(super) combination: Arc<Combination>,
    /// Whether any column needs more than the time.
    pub(super) needs_costs: bool,
    /// Whether every part of a cost grows with its sizes, and not only their sum.
    parts_grow: bool,
    chunked: bool,
    /// Slack of bounds.
    slack: f64,
    times: HashMap<(u64, u64), f64>,
    costs: HashMap<(u64, u64), OpCost>,
    points: HashMap<(u64, u64), Rc<Point>>,
    tables: HashMap<(usize, Range<usize>), Rc<PairTable>>,
}

impl<'a> Prospect<'a> {
    pub(super) fn new(space: &'a Space, axes: &'a Axes, combination: Arc<Combination>, needs_costs: bool) -> Self {
        let runs = combination.runs.as_ref().ok();
        let parts_grow = runs.is_some_and(|(deployment, _)| parts_grow(deployment));
        let chunked = runs.is_some_and(|(deployment, _)| {
            deployment.step.attention.iter().any(|entry| matches!(entry.op.shape.span, Span::Chunked(_)))
        });
        let slack = runs.map_or(0.0, |(deployment, _)| slack(deployment));
        Self {
            space,
            axes,
            combination,
            needs_costs,
            parts_grow,
            chunked,
            slack,
            times: HashMap::new(),
            costs: HashMap::new(),
            points: HashMap::new(),
            tables: HashMap::new(),
        }
    }

    /// Whether a column is null in every row: nobody gave a price, or measured the power.
    pub(super) fn is_null(&self, column: Column) -> bool {
        match column {
            Column::UsdPerMtok => self.combination.usd_per_hour.is_none(),
            Column::EnergyJ => self.combination.runs.as_ref().map_or(true, |(d, _)| d.calibration.power.is_none()),
            _ => false,
        }
    }

    /// Subtotal of everything but attention.
    pub(super) fn rows_s(&mut self, deployment: &Deployment, batch: u64, query: u64) -> f64 {
        let time = || deployment.step.rows_time_s(rows(batch, query), batch);
        *kept(&mut self.times, (batch, query)).or_insert_with(time)
    }

    /// The same with all parts.
    pub(super) fn rows_cost(&mut self, deployment: &Deployment, batch: u64, query: u64) -> OpCost {
        let cost = || deployment.step.rows_cost(rows(batch, query), batch);
        *kept(&mut self.costs, (batch, query)).or_insert_with(cost)
    }

    /// The pairs of a run of contexts with one number of query tokens.
    pub(super) fn table(&mut self, query: usize, contexts: &Range<usize>) -> Rc<PairTable> {
        let (axes, combination) = (self.axes, &self.combination);
        // Entries hold whole tables: fewer of them.
        if self.tables.len() >= MOST_CACHED / 128 {
            self.tables.clear();
        }
        let table = self.tables.entry((query, contexts.clone())).or_insert_with(|| {
            let query = axes.axis(QUERY).value(query);
            let pairs = contexts.clone().map(|context| (query, axes.axis(CONTEXT).value(context)));
            Rc::new(PairTable::alone(combination, &pairs).unwrap_or_default())
        });
        Rc::clone(table)
    }

    fn point(&mut self, deployment: &Deployment, capacity: &Capacity, query: u64, context: u64) -> Rc<Point> {
        let make = || {
            let request = Request::new(query, context).ok();
            let loads = deployment.step.attention.iter().map(|entry| match entry.op.shape.span {
                Span::Chunked(_) => Load::default(),
                _ => request.map_or_else(Load::default, |request| entry.op.load(request)),
            });
            Rc::new(Point { loads: loads.collect(), max_sequences: capacity.max_sequences(context) as f64 })
        };
        Rc::clone(kept(&mut self.points, (query, context)).or_insert_with(make))
    }

    /// The corners of a region; `None` where no row of it has a result.
    pub(super) fn corners(&mut self, region: &Region) -> Option<Corners> {
        let combination = Arc::clone(&self.combination);
        let (deployment, capacity) = combination.runs.as_ref().ok()?;
        let (first_batch, last_batch) = self.axes.ends(region, BATCH);
        let (first_query, last_query) = self.axes.ends(region, QUERY);
        let (first, last) = self.axes.ends(region, CONTEXT);
        let most_query = last.min(MAX_TOKENS / first_batch);
        if first_query > most_query {
            return None;
        }
        // A request holds no more new tokens than context, and a step no more than so many in all.
        let first = first.max(first_query);
        let last_query = last_query.min(most_query);
        let low = self.point(deployment, capacity, first_query, first);
        let high = self.point(deployment, capacity, last_query, last);
        let (low_chunked, high_chunked) = if self.chunked {
            let entries = || deployment.step.attention.iter();
            let least = |op| extent::least(op, first_query, first, last);
            let most = |op| extent::most(op, last_query, first.max(last_query), last);
            (entries().map(|e| least(&e.op)).collect(), entries().map(|e| most(&e.op)).collect())
        } else {
            (Vec::new(), Vec::new())
        };
        let low_loads = if self.chunked { &low_chunked } else { &low.loads };
        let high_loads = if self.chunked { &high_chunked } else { &high.loads };
        let least = self.corner(deployment, first_batch, first_query, low_loads, low.max_sequences);
        let flat = first_batch == last_batch && first_query == last_query && low_loads == high_loads;
        let most = if flat {
            Corner { max_sequences: high.max_sequences, ..least }
        } else {
            self.corner(deployment, last_batch, last_query, high_loads, high.max_sequences)
        };
        let mut corners = Corners {
            least,
            most,
            shared_s: least.time_s,
            most_mbu: f64::INFINITY,
            slack: if flat { 0.0 } else { self.slack },
            contexts: (first, last),
        };
        if !flat {
            self.tighten(deployment, &mut corners, low_loads, high_loads);
        }
        Some(corners)
    }

    /// Bounds of what grows with the batch in numerator and denominator alike.
    ///
    /// The time of attention by packed rows is made of what is proportional to the batch, of constants, maxima and
    /// minima of these, and a charge for crowding that is concave: at `b` of at most `B` sequences it takes at least
    /// `b/B` of what it takes at `B`. So of `b / (rows + attention)` the largest batch has the most. No operation takes
    /// less than its bytes do at the full bandwidth.
    fn tighten(&mut self, deployment: &Deployment, corners: &mut Corners, low: &[Load], high: &[Load]) {
        let (least, most) = (corners.least, corners.most);
        let step = &deployment.step;
        // Long tiles work in whole waves, which no share of the batch divides.
        let packed = high.iter().all(|load| load.long.tiles == 0.0);
        if packed && least.batch < most.batch {
            corners.shared_s = self.rows_s(deployment, least.batch, least.query_tokens);
            for (entry, load) in step.attention.iter().zip(low) {
                corners.shared_s += entry.count as f64 * entry.op.law.time_s(&load.times(most.batch as f64));
            }
        }
        if !self.needs_costs {
            return;
        }
        let (low_rows, high_rows) = (
            self.rows_cost(deployment, least.batch, least.query_tokens),
            self.rows_cost(deployment, most.batch, most.query_tokens),
        );
        let (mut least_s, mut attention_s) = (0.0, 0.0);
        for ((entry, low), high) in step.attention.iter().zip(low).zip(high) {
            let (law, count) = (&entry.op.law, entry.count as f64);
            least_s += count * law.time_s(&low.times(least.batch as f64));
            let bytes = law.fixed_bytes + high.times(most.batch as f64).bytes;
            attention_s += count * bytes * law.seconds_per_byte;
        }
        let rows_s = high_rows.bytes * step.seconds_per_byte;
        corners.most_mbu = quotient(rows_s + attention_s, low_rows.time_s.max(rows_s) + least_s.max(attention_s));
    }

    fn corner(
        &mut self,
        deployment: &Deployment,
        batch: u64,
        query: u64,
        loads: &[Load],
        max_sequences: f64,
    ) -> Corner {
        let mut corner = Corner {
            batch,
            query_tokens: query,
            query: query as f64,
            time_s: 0.0,
            cost: OpCost::default(),
            max_sequences,
        };
        let entries = deployment.step.attention.iter().zip(loads);
        if self.needs_costs {
            corner.cost = self.rows_cost(deployment, batch, query);
            for (entry, load) in entries {
                corner.cost.add(entry.count as f64, &entry.op.cost(&load.times(batch as f64), query == 1));
            }
            corner.cost = corner.cost.with_joint_interval(deployment.step.joint(query == 1));
            corner.time_s = corner.cost.time_s;
        } else {
            corner.time_s = self.rows_s(deployment, batch, query);
            for (entry, load) in entries {
                corner.time_s += entry.count as f64 * entry.op.law.time_s(&load.times(batch as f64));
            }
        }
        corner
    }

    /// Least and largest value of a column over the rows of a region that have a result; a price must be known.
    pub(super) fn interval(&self, corners: &Corners, column: Column) -> (f64, f64) {
        if let Some(value) = self.combination.constant(self.space, column) {
            return (value, value);
        }
        let Corners { least, most, slack, contexts, .. } = corners;
        let fits = |corner: &Corner, most| self.combination.resident(corner.batch) <= most;
        let exact = match column {
            Column::BatchSize => Some((least.batch as f64, most.batch as f64)),
            Column::ContextTokens => Some((contexts.0 as f64, contexts.1 as f64)),
            Column::QueryTokens => Some((least.query, most.query)),
            // Rows that have a result are `ok`, the first of the statuses.
            Column::Status => Some((0.0, 0.0)),
            Column::MaxSequences => Some((most.max_sequences, least.max_sequences)),
            Column::Fits => Some((
                f64::from(u8::from(fits(most, most.max_sequences))),
                f64::from(u8::from(fits(least, least.max_sequences))),
            )),
            Column::Bound => Some(self.bound(corners)),
            _ => None,
        };
        if let Some(interval) = exact {
            return interval;
        }
        let (low, high) = self.result(corners, column);
        let or = |x: f64, unknown| if x.is_nan() { unknown } else { x };
        // Quotients of overflowed numbers say nothing; what overflows by a rounding more may be finite.
        (or(low.min(f64::MAX) * (1.0 - slack), f64::NEG_INFINITY), or(high * (1.0 + slack), f64::INFINITY))
    }

    /// Bounds of a column that is not exact, before any slack; all such columns are at least 0.
    fn result(&self, corners: &Corners, column: Column) -> (f64, f64) {
        let Corners { least, most, shared_s, most_mbu, .. } = corners;
        let (low, high) = (&least.cost, &most.cost);
        let of = |part: fn(&OpCost) -> f64| (part(low), part(high));
        // A part of a cost is never more than the whole.
        let part = |part: fn(&OpCost) -> f64| if self.parts_grow { of(part) } else { (0.0, high.time_s) };
        let rate = || {
            let at =
                |corner: &Corner, time_s| tokens_per_s(self.combination.sequences(corner.batch), corner.query, time_s);
            (at(least, most.time_s), at(most, *shared_s))
        };
        match column {
            Column::TimeS => (least.time_s, most.time_s),
            // Error bars change with the class of an operation and widen outside what was measured: they follow no order.
            Column::TimeLowS => (low.ideal_s, high.time_s),
            Column::TimeHighS => (low.time_s, f64::INFINITY),
            Column::IdealS => of(|cost| cost.ideal_s),
            Column::NetworkS => of(|cost| cost.network_s),
            Column::Flops => of(|cost| cost.flops),
            Column::Bytes => of(|cost| cost.bytes),
            Column::ComputeS => part(|cost| cost.compute_s),
            Column::MemoryS => part(|cost| cost.memory_s),
            Column::OverheadS => part(|cost| cost.overhead_s),
            Column::ArithmeticIntensity => (quotient(low.flops, high.bytes), quotient(high.flops, low.bytes)),
            Column::Mfu => (quotient(low.peak_compute_s, high.time_s), quotient(high.peak_compute_s, low.time_s)),
            Column::Mbu => {
                let seconds_per_byte = self.combination.runs.as_ref().map_or(0.0, |(d, _)| d.step.seconds_per_byte);
                let [low_s, high_s] = [low, high].map(|cost| cost.bytes * seconds_per_byte);
                (quotient(low_s, high.time_s), quotient(high_s, low.time_s).min(*most_mbu))
            }
            Column::EnergyJ => {
                let joules = |cost| self.combination.runs.as_ref().ok().and_then(|(d, _)| d.energy_j(cost));
                (joules(low).unwrap_or(f64::NEG_INFINITY), joules(high).unwrap_or(f64::INFINITY))
            }
            Column::TokensPerS => rate(),
            Column::TokensPerSPerUser => {
                (tokens_per_s(1.0, least.query, most.time_s), tokens_per_s(1.0, most.query, least.time_s))
            }
            Column::TokensPerSPerGpu => {
                let (low, high) = rate();
                let devices = self.combination.layout.num_devices() as f64;
                (low / devices, high / devices)
            }
            Column::UsdPerMtok => {
                let usd = |batch: &Corner, query: f64, time_s: f64| {
                    let usd = self.combination.usd_per_second(batch.batch);
                    usd.map_or(f64::NAN, |usd| usd_per_mtok(usd, query, time_s))
                };
                (usd(most, most.query, *shared_s), usd(least, least.query, most.time_s))
            }
            _ => (f64::NEG_INFINITY, f64::INFINITY),
        }
    }

    /// The only bound that the parts leave open, or all.
    fn bound(&self, corners: &Corners) -> (f64, f64) {
        const PARTS: [Column; 4] = [Column::ComputeS, Column::MemoryS, Column::NetworkS, Column::OverheadS];
        let parts = PARTS.map(|column| self.interval(corners, column));
        let floor = parts.iter().map(|part| part.0).fold(f64::NEG_INFINITY, f64::max);
        let mut open = Bound::ALL.iter().zip(&parts).filter(|(_, part)| part.1 >= floor);
        match (open.next(), open.next()) {
            (Some((&only, _)), None) => (f64::from(only as u8), f64::from(only as u8)),
            _ => (0.0, (PARTS.len() - 1) as f64),
        }
    }
}

/// The entries of a cache that is emptied when it is full: what is asked for again is soon made again.
fn kept<K: Eq + std::hash::Hash, V>(cache: &mut HashMap<K, V>, key: K) -> std::collections::hash_map::Entry<'_, K, V> {
    if cache.len() >= MOST_CACHED {
        cache.clear();
    }
    cache.entry(key)
}

/// Rows of a step; those that no step may have count as the most it may, as in the tables of a scan.
fn rows(batch: u64, query: u64) -> u64 {
    batch.saturating_mul(query).min(MAX_TOKENS)
}

/// `x / y` with 0 of nothing being 0, as in a cost.
fn quotient(x: f64, y: f64) -> f64 {
    if x > 0.0 { x / y } else { 0.0 }
}

/// Infinite where a mixture has so many experts that the slack would not cover their expectation: bounds say nothing.
fn slack(deployment: &Deployment) -> f64 {
    let covered = deployment.step.row_ops.iter().all(|entry| match &entry.op {
        RowOp::GroupedGemm(op) => op.shape.num_experts / op.shape.experts_per_token.max(1) <= MOST_EXPERTS_PER_VISIT,
        _ => true,
    });
    if covered { SLACK } else { f64::INFINITY }
}

/// Whether compute, memory and overhead each grow with the sizes. Laws that choose among kernels or tiles report the
/// parts of the chosen one, which may fall where the choice changes.
fn parts_grow(deployment: &Deployment) -> bool {
    let calibration = &deployment.calibration;
    calibration.gemm.values().all(|law| matches!(law, GemmLaw::Roofline | GemmLaw::Smooth { .. }))
        && matches!(calibration.attention, AttentionLaw::Roofline)
        && calibration.attention_by_dtype.is_empty()
        && calibration.attention_by_kv_cache.is_empty()
        && calibration.latent_attention.is_empty()
        && matches!(calibration.grouped_gemm, GroupedGemmLaw::Roofline)
}
