//! A block: up to a few hundred neighbouring rows of one combination and batch size, evaluated together.

use std::cell::{Cell, OnceCell};
use std::sync::Arc;

use super::column::Column;
use super::combination::{tokens_per_s, usd_per_mtok};
use super::kernel::{self, BLOCK, FromTime, Isa, Mask};
use super::space::Space;
use super::tables::{Combination, PairTable};
use crate::capacity::Capacity;
use crate::deployment::Deployment;
use crate::parallel::Status;
use crate::roofline::OpCost;

/// Where a block's rows are and what they share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) space: &'a Space,
    pub(super) combination: &'a Combination,
    pub(super) isa: Isa,
    /// Position of the first row in the space.
    pub(super) first_row: u128,
    pub(super) batch_size: u64,
    pub(super) table: &'a PairTable,
    /// First pair of the block in the table, and the number of pairs.
    pub(super) first: usize,
    pub(super) len: usize,
    /// Subtotals of this batch size, one per number of query tokens.
    pub(super) rows_s: &'a [f64],
    /// The same with all parts; empty unless asked for.
    pub(super) rows_cost: &'a [OpCost],
    /// The most new tokens of a request that a step of this batch size may have.
    pub(super) most_query_tokens: f64,
}

/// Rows, evaluated as far as they are asked for.
pub(super) struct Block<'a> {
    place: Place<'a>,
    /// Where the times will stand.
    room: Cell<Option<&'a mut [f64]>>,
    time_s: OnceCell<&'a [f64]>,
    earliest: OnceCell<f64>,
    costs: OnceCell<Vec<OpCost>>,
    bounds: OnceCell<Vec<u32>>,
}

impl<'a> std::ops::Deref for Block<'a> {
    type Target = Place<'a>;

    fn deref(&self) -> &Place<'a> {
        &self.place
    }
}

/// A column as a function of time within a block, where it is one: `value = factor / time` or `factor x time`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum OfTime {
    /// `factor / time`: higher is better.
    Over(f64),
    /// `factor x time`: lower is better.
    Times(f64),
}

/// Slack that covers every rounding between a time and a column made from it.
const SLACK: f64 = 1.0 + 1.0 / (1_u64 << 48) as f64;

impl OfTime {
    /// No time above this can reach a key (the signed value, smaller is better) of at most `threshold`.
    pub(super) fn latest(self, threshold: f64) -> f64 {
        match self {
            Self::Over(factor) if threshold < 0.0 => factor / -threshold * SLACK,
            Self::Times(factor) if factor > 0.0 => threshold / factor * SLACK,
            Self::Over(_) | Self::Times(_) => f64::INFINITY,
        }
    }

    /// A key that no time of at least `earliest` betters.
    pub(super) fn best_key(self, earliest: f64) -> f64 {
        match self {
            Self::Over(factor) => -factor / earliest * SLACK,
            Self::Times(factor) => factor * earliest / SLACK,
        }
    }
}

impl<'a> Block<'a> {
    /// Rows whose times will stand in `room`, which has one place for each. No time may be below `earliest` where that is
    /// known.
    pub(super) fn new(place: Place<'a>, room: &'a mut [f64], earliest: Option<f64>) -> Self {
        Self {
            place,
            room: Cell::new(Some(room)),
            time_s: OnceCell::new(),
            earliest: earliest.map_or_else(OnceCell::new, OnceCell::from),
            costs: OnceCell::new(),
            bounds: OnceCell::new(),
        }
    }

    /// Writes the time of every row.
    fn evaluate(&self, time: &mut [f64]) {
        let Ok((deployment, _)) = &self.combination.runs else {
            time.fill(0.0);
            return;
        };
        let mut start = match self.rows_s {
            [one] => Some(*one),
            several => {
                let cycle = several.iter().cycle().skip(self.first % several.len().max(1));
                time.iter_mut().zip(cycle).for_each(|(t, rows)| *t = *rows);
                None
            }
        };
        let batch = self.batch_size as f64;
        for (entry, loads) in deployment.step.attention.iter().zip(&self.table.loads) {
            let (law, count, loads) = (&entry.op.law, entry.count as f64, (&**loads, self.first));
            kernel::add_attention(self.isa, law, count, batch, loads, start.take(), time);
        }
        // A model without attention.
        if let Some(start) = start {
            time.fill(start);
        }
    }

    /// How a column follows from time in this block, where only the time varies and every row has a result.
    pub(super) fn of_time(&self, column: Column) -> Option<OfTime> {
        let queries = self.table.query_tokens.get(self.first).filter(|_| self.rows_s.len() == 1)?;
        if !self.all_valid() {
            return None;
        }
        match column {
            Column::TimeS => Some(OfTime::Times(1.0)),
            Column::UsdPerMtok => Some(OfTime::Times(self.usd_per_second()? / queries)),
            _ => self.rate_numerator(column).map(|numerator| OfTime::Over(numerator * queries)),
        }
    }

    /// Sequences behind a rate column.
    fn rate_numerator(&self, column: Column) -> Option<f64> {
        match column {
            Column::TokensPerS => Some(self.sequences()),
            Column::TokensPerSPerGpu => Some(self.sequences() / self.num_devices()),
            Column::TokensPerSPerUser => Some(1.0),
            _ => None,
        }
    }

    /// US dollars per million new tokens for each second of a step of one query token.
    fn usd_per_second(&self) -> Option<f64> {
        self.combination.usd_per_second(self.batch_size)
    }

    /// Times of the rows.
    pub(super) fn time_s(&self) -> &[f64] {
        self.time_s.get_or_init(|| {
            let time = self.room.take().unwrap_or_default();
            self.evaluate(time);
            time
        })
    }

    /// The rows' part of a column of the pair table.
    fn pairs<'t, T>(&self, column: &'t [T]) -> &'t [T] {
        column.get(self.first..self.first + self.len).unwrap_or(&[])
    }

    /// What runs.
    fn runs(&self) -> Option<&'a (Arc<Deployment>, Capacity)> {
        self.combination.runs.as_ref().ok()
    }

    /// Whether any time may be at most `latest`.
    pub(super) fn any_until(&self, latest: f64) -> bool {
        self.earliest() <= latest
    }

    /// No row takes less.
    pub(super) fn earliest(&self) -> f64 {
        *self.earliest.get_or_init(|| kernel::earliest(self.isa, self.time_s()))
    }

    /// Whether any row has a result.
    pub(super) fn has_results(&self) -> bool {
        self.runs().is_some()
    }

    /// All ones where the row has a result.
    pub(super) fn valid(&self, mask: &mut [Mask]) {
        if self.runs().is_none() {
            mask.fill(0);
        } else if self.all_valid() {
            mask.fill(Mask::MAX);
        } else {
            mask.iter_mut().enumerate().for_each(|(row, m)| *m = if self.is_valid(row) { Mask::MAX } else { 0 });
        }
    }

    /// Whether every pair of the block is one that a step may have.
    pub(super) fn all_valid(&self) -> bool {
        self.table.all_valid && self.table.most_query_tokens <= self.most_query_tokens
    }

    /// Whether the pair of a row is one that a step may have.
    fn is_valid(&self, row: usize) -> bool {
        self.status_of_pair(row) == Status::Ok
    }

    fn status_of_pair(&self, row: usize) -> Status {
        if self.pairs(&self.table.valid).get(row) == Some(&false) {
            Status::QueryExceedsContext
        } else if self.pairs(&self.table.query_tokens).get(row).is_some_and(|&query| query > self.most_query_tokens) {
            Status::TooManyRows
        } else {
            Status::Ok
        }
    }

    /// Status of one row.
    pub(super) fn status(&self, row: usize) -> Status {
        match &self.combination.runs {
            Err(status) => *status,
            Ok(_) => self.status_of_pair(row),
        }
    }

    /// Status of all rows, where it is the same.
    fn shared_status(&self) -> Option<Status> {
        match &self.combination.runs {
            Err(status) => Some(*status),
            Ok(_) => self.all_valid().then_some(Status::Ok),
        }
    }

    /// Full costs of the rows, made when first asked for.
    pub(super) fn costs(&self) -> &[OpCost] {
        self.costs.get_or_init(|| {
            let Some((deployment, _)) = self.runs() else { return vec![OpCost::default(); self.len] };
            let queries = self.rows_cost.len().max(1);
            let batch = self.batch_size as f64;
            let cost = |row: usize| {
                let decodes = self.pairs(&self.table.query_tokens).get(row) == Some(&1.0);
                let mut cost = self.rows_cost.get((self.first + row) % queries).copied().unwrap_or_default();
                for (entry, loads) in deployment.step.attention.iter().zip(&self.table.loads) {
                    let load = loads.at(self.first + row).times(batch);
                    cost.add(entry.count as f64, &entry.op.cost(&load, decodes));
                }
                cost.with_joint_interval(deployment.step.joint(decodes))
            };
            (0..self.len).map(cost).collect()
        })
    }

    /// What the rows' time is made of, part by part: the sums that [`Self::costs`] has, without the rest of it.
    fn fill_parts(&self, parts: &mut Parts) {
        let Some((deployment, _)) = self.runs() else { return };
        if let [cost] = self.rows_cost {
            for (part, value) in parts.each_mut().into_iter().zip(each_part(cost)) {
                part.iter_mut().take(self.len).for_each(|x| *x = value);
            }
        } else {
            let of_rows = self.rows_cost.iter().cycle().skip(self.first % self.rows_cost.len().max(1));
            for (row, cost) in of_rows.take(self.len).enumerate() {
                for (part, value) in parts.each_mut().into_iter().zip(each_part(cost)) {
                    part.iter_mut().skip(row).take(1).for_each(|x| *x = value);
                }
            }
        }
        for (entry, loads) in deployment.step.attention.iter().zip(&self.table.loads) {
            let (compute, memory, overhead) = (
                parts.compute_s.get_mut(..self.len).unwrap_or_default(),
                parts.memory_s.get_mut(..self.len).unwrap_or_default(),
                parts.overhead_s.get_mut(..self.len).unwrap_or_default(),
            );
            let (batch, count, loads) = (self.batch_size as f64, entry.count as f64, (&**loads, self.first));
            kernel::add_parts(self.isa, &entry.op.law, count, batch, loads, [compute, memory, overhead]);
        }
    }

    /// New tokens in flight per query token.
    const fn sequences(&self) -> f64 {
        self.place.combination.sequences(self.place.batch_size)
    }

    /// Devices of the deployment.
    fn num_devices(&self) -> f64 {
        self.combination.layout.num_devices() as f64
    }

    /// Sequences that must be resident on a rank.
    pub(super) const fn resident(&self) -> f64 {
        self.place.combination.resident(self.place.batch_size)
    }

    /// Sequences that fit, row by row.
    pub(super) fn max_sequences(&self) -> &[f64] {
        self.pairs(&self.table.max_sequences)
    }

    /// The value of a column that is the same in every row of a block; `None` where it is not, or is null.
    pub(super) fn constant(&self, column: Column) -> Option<f64> {
        match column {
            Column::BatchSize => Some(self.batch_size as f64),
            Column::Status => self.shared_status().map(|status| f64::from(status as u8)),
            _ => self.combination.constant(self.space, column),
        }
    }

    /// How a column follows from time in this block, where it does so in every row.
    pub(super) fn of_times(&self, column: Column) -> Option<FromTime> {
        if !self.has_results() || !self.all_valid() || self.rows_s.len() != 1 {
            return None;
        }
        let queries = *self.table.query_tokens.get(self.first)?;
        let over = |numerator: f64, divisor: f64| Some(FromTime::Over { numerator: numerator * queries, divisor });
        match column {
            Column::TimeS => Some(FromTime::Itself),
            Column::UsdPerMtok => Some(FromTime::Times(self.usd_per_second()? / queries)),
            Column::TokensPerS => over(self.sequences(), 1.0),
            Column::TokensPerSPerGpu => over(self.sequences(), self.num_devices()),
            Column::TokensPerSPerUser => over(1.0, 1.0),
            _ => None,
        }
    }

    /// Fills `out` with a column; counts, codes and flags as whole numbers, NaN where a result is null.
    pub(super) fn fill(&self, column: Column, out: &mut [f64]) {
        if let Some(value) = self.constant(column) {
            out.fill(value);
            return;
        }
        if self.runs().is_none() && !column.is_always_known() {
            out.fill(f64::NAN);
            return;
        }
        if let Some(from_time) = self.of_times(column) {
            kernel::from_time(self.isa, from_time, (self.time_s(), None), false, out);
            return;
        }
        match column {
            Column::ContextTokens => out.copy_from_slice(self.pairs(&self.table.context_tokens)),
            Column::QueryTokens => out.copy_from_slice(self.pairs(&self.table.query_tokens)),
            Column::Status => out.iter_mut().enumerate().for_each(|(j, x)| *x = f64::from(self.status(j) as u8)),
            _ => {
                self.fill_result(column, out);
                if !self.all_valid() {
                    let rows = out.iter_mut().enumerate();
                    rows.for_each(|(row, x)| *x = if self.is_valid(row) { *x } else { f64::NAN });
                }
            }
        }
    }

    fn fill_result(&self, column: Column, out: &mut [f64]) {
        match column {
            Column::TokensPerS => self.rate(self.sequences(), 1.0, out),
            Column::TokensPerSPerUser => self.rate(1.0, 1.0, out),
            Column::TokensPerSPerGpu => self.rate(self.sequences(), self.num_devices(), out),
            Column::TimeS => out.copy_from_slice(self.time_s()),
            Column::UsdPerMtok => match self.usd_per_second() {
                None => out.fill(f64::NAN),
                Some(usd) => {
                    let rows = out.iter_mut().zip(self.time_s()).zip(self.pairs(&self.table.query_tokens));
                    rows.for_each(|((x, &t), &q)| *x = usd_per_mtok(usd, q, t));
                }
            },
            Column::Fits => {
                let resident = self.resident();
                let rows = out.iter_mut().zip(self.max_sequences());
                rows.for_each(|(x, &most)| *x = if resident <= most { 1.0 } else { 0.0 });
            }
            Column::MaxSequences => out.copy_from_slice(self.max_sequences()),
            Column::ComputeS | Column::MemoryS | Column::NetworkS | Column::OverheadS => {
                let mut parts = Parts::ZERO;
                self.fill_parts(&mut parts);
                let part = match column {
                    Column::ComputeS => &parts.compute_s,
                    Column::MemoryS => &parts.memory_s,
                    Column::NetworkS => &parts.network_s,
                    _ => &parts.overhead_s,
                };
                out.iter_mut().zip(part).for_each(|(x, s)| *x = *s);
            }
            Column::Bound => {
                out.iter_mut().zip(self.bounds()).for_each(|(x, code)| *x = f64::from(*code));
            }
            Column::EnergyJ => {
                let joules = |cost| self.runs().and_then(|(d, _)| d.energy_j(cost)).unwrap_or(f64::NAN);
                out.iter_mut().zip(self.costs()).for_each(|(x, cost)| *x = joules(cost));
            }
            _ => {
                let seconds_per_byte = self.runs().map_or(0.0, |(d, _)| d.step.seconds_per_byte);
                let rows = out.iter_mut().zip(self.costs());
                rows.for_each(|(x, cost)| *x = part(column, cost, seconds_per_byte));
            }
        }
    }

    /// `out = numerator x query tokens / time / devices`.
    fn rate(&self, numerator: f64, devices: f64, out: &mut [f64]) {
        let rows = out.iter_mut().zip(self.time_s()).zip(self.pairs(&self.table.query_tokens));
        rows.for_each(|((x, &t), &q)| *x = tokens_per_s(numerator, q, t) / devices);
    }

    /// Codes of what binds each row, made when first asked for; of rows without a result they mean nothing.
    pub(super) fn bounds(&self) -> &[u32] {
        self.bounds.get_or_init(|| {
            let mut parts = Parts::ZERO;
            self.fill_parts(&mut parts);
            let Parts { compute_s, memory_s, network_s, overhead_s } = &parts;
            let mut codes = vec![0; self.len];
            kernel::bounds(self.isa, [compute_s, memory_s, network_s, overhead_s], &mut codes);
            codes
        })
    }

    /// The value of a column that is the same in every row of the block, if it was cheap to see that it is.
    pub(super) fn same(&self, column: Column) -> Option<f64> {
        match column {
            Column::Fits => match self.fitting_first()? {
                0 => Some(0.0),
                all if all == self.len => Some(1.0),
                _ => None,
            },
            Column::Bound if self.has_results() && self.all_valid() => {
                let codes = self.bounds();
                let first = codes.first().filter(|_| kernel::alike(self.isa, codes))?;
                Some(f64::from(*first))
            }
            _ => self.constant(column),
        }
    }

    /// How many rows fit, where those are the first ones and every row has a result.
    pub(super) fn fitting_first(&self) -> Option<usize> {
        let resident = self.resident();
        let known = self.table.fits_first && self.has_results() && self.all_valid();
        known.then(|| self.max_sequences().partition_point(|&most| resident <= most))
    }
}

/// What the time of the rows of a block is made of.
#[derive(Debug)]
struct Parts {
    compute_s: [f64; BLOCK],
    memory_s: [f64; BLOCK],
    network_s: [f64; BLOCK],
    overhead_s: [f64; BLOCK],
}

impl Parts {
    const ZERO: Self =
        Self { compute_s: [0.0; BLOCK], memory_s: [0.0; BLOCK], network_s: [0.0; BLOCK], overhead_s: [0.0; BLOCK] };

    const fn each_mut(&mut self) -> [&mut [f64; BLOCK]; 4] {
        [&mut self.compute_s, &mut self.memory_s, &mut self.network_s, &mut self.overhead_s]
    }
}

/// The parts of a cost in the order of [`Parts`].
const fn each_part(cost: &OpCost) -> [f64; 4] {
    [cost.compute_s, cost.memory_s, cost.network_s, cost.overhead_s]
}

/// A column that needs the whole cost.
fn part(column: Column, cost: &OpCost, seconds_per_byte: f64) -> f64 {
    match column {
        Column::TimeLowS => cost.time_low_s,
        Column::TimeHighS => cost.time_high_s,
        Column::IdealS => cost.ideal_s,
        Column::Flops => cost.flops,
        Column::Bytes => cost.bytes,
        Column::ArithmeticIntensity => cost.arithmetic_intensity(),
        Column::Mfu => cost.mfu(),
        Column::Mbu => cost.mbu(seconds_per_byte),
        _ => f64::NAN,
    }
}
