//! The bodies: inlined into every copy, so that each is compiled for the copy's instruction set.

use std::ops::Range;

pub(super) use super::parts::add_parts;
use crate::arithmetic::{larger, smaller};
use crate::ops::attention::{KernelLaw, Kernels, Load, LongLoad};
use crate::roofline::Bound;
use crate::step::RowOp;

/// Rows evaluated at once: their tables and results stay in the first-level cache.
pub const BLOCK: usize = 256;

/// All ones keeps a row, zero drops it: as wide as the numbers it goes with.
pub type Mask = u64;

/// An order test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Test {
    /// `<`
    Less,
    /// `<=`
    LessEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterEqual,
}

/// Loads of one request for the rows of a line, field by field.
#[derive(Debug, Clone, Default)]
pub struct LoadTable {
    /// See [`Load`].
    pub flops: Vec<f64>,
    /// See [`Load`].
    pub bytes: Vec<f64>,
    /// See [`Load`].
    pub moved_bytes: Vec<f64>,
    /// See [`Load`].
    pub split_s: Vec<f64>,
    /// See [`Load`].
    pub tile_s: Vec<f64>,
    /// See [`Load`].
    pub whole_s: Vec<f64>,
    /// See [`Load`].
    pub filled: Vec<f64>,
    /// See [`Load`].
    pub longest_s: Vec<f64>,
    /// See [`Load`].
    pub tail_s: Vec<f64>,
    /// See [`Load`].
    pub stream_s: Vec<f64>,
    /// See [`LongLoad`].
    pub long_tiles: Vec<f64>,
    /// See [`LongLoad`].
    pub long_s: Vec<f64>,
    /// See [`LongLoad`].
    pub wave_split_s: Vec<f64>,
    /// See [`Load`].
    pub pass_overhead_s: Vec<f64>,
    /// See [`Load`].
    pub split_overhead_s: Vec<f64>,
    /// Whether some row has query tiles: without, fewer columns are read.
    pub has_tiles: bool,
}

impl LoadTable {
    /// Room for `rows` loads.
    pub fn with_capacity(rows: usize) -> Self {
        let room = || Vec::with_capacity(rows);
        Self {
            flops: room(),
            bytes: room(),
            moved_bytes: room(),
            split_s: room(),
            tile_s: room(),
            whole_s: room(),
            filled: room(),
            longest_s: room(),
            tail_s: room(),
            stream_s: room(),
            long_tiles: room(),
            long_s: room(),
            wave_split_s: room(),
            pass_overhead_s: room(),
            split_overhead_s: room(),
            has_tiles: false,
        }
    }

    /// Appends one row.
    pub fn push(&mut self, load: &Load) {
        self.flops.push(load.flops);
        self.bytes.push(load.bytes);
        self.moved_bytes.push(load.moved_bytes);
        self.split_s.push(load.split_s);
        self.tile_s.push(load.tile_s);
        self.whole_s.push(load.whole_s);
        self.filled.push(load.filled);
        self.longest_s.push(load.longest_s);
        self.tail_s.push(load.tail_s);
        self.stream_s.push(load.stream_s);
        self.long_tiles.push(load.long.tiles);
        self.long_s.push(load.long.tile_s);
        self.wave_split_s.push(load.long.wave_split_s);
        self.pass_overhead_s.push(load.pass_overhead_s);
        self.split_overhead_s.push(load.split_overhead_s);
        self.has_tiles |= load.filled > 0.0;
    }

    /// One row.
    pub fn at(&self, row: usize) -> Load {
        let pick = |column: &[f64]| column.get(row).copied().unwrap_or(0.0);
        Load {
            requests: 1.0,
            flops: pick(&self.flops),
            bytes: pick(&self.bytes),
            moved_bytes: pick(&self.moved_bytes),
            split_s: pick(&self.split_s),
            tile_s: pick(&self.tile_s),
            whole_s: pick(&self.whole_s),
            filled: pick(&self.filled),
            longest_s: pick(&self.longest_s),
            tail_s: pick(&self.tail_s),
            stream_s: pick(&self.stream_s),
            long: LongLoad {
                tiles: pick(&self.long_tiles),
                tile_s: pick(&self.long_s),
                wave_split_s: pick(&self.wave_split_s),
            },
            pass_overhead_s: pick(&self.pass_overhead_s),
            split_overhead_s: pick(&self.split_overhead_s),
        }
    }
}

#[inline(always)]
pub(super) fn part(column: &[f64], first: usize, len: usize) -> &[f64] {
    &column[first..first + len]
}

/// Adds the expression to each row, or to one start for all of them where there is one. Not a function of a closure:
/// those do not always become one loop that vectorises.
macro_rules! add_each {
    ($time:ident, $start:ident, $j:ident => $attention:expr) => {
        match $start {
            Some(start) => {
                for $j in 0..$time.len() {
                    $time[$j] = start + $attention;
                }
            }
            None => {
                for $j in 0..$time.len() {
                    $time[$j] += $attention;
                }
            }
        }
    };
}

#[inline(always)]
pub(super) fn add_attention(
    law: &KernelLaw,
    count: f64,
    batch: f64,
    (table, first): (&LoadTable, usize),
    start: Option<f64>,
    time: &mut [f64],
) {
    let n = time.len();
    let bytes = part(&table.bytes, first, n);
    let moved_bytes = part(&table.moved_bytes, first, n);
    match law.kernels {
        Kernels::Roofline => {
            let flops = part(&table.flops, first, n);
            add_each!(time, start, j => {
                let load = Load { flops: flops[j], bytes: bytes[j], ..Load::default() };
                count * law.roofline_time_s(&load.times(batch))
            });
        }
        Kernels::Split => {
            let split_s = part(&table.split_s, first, n);
            let split_overhead_s = part(&table.split_overhead_s, first, n);
            add_each!(time, start, j => {
                let load = packed(moved_bytes[j], split_s[j], 0.0, split_overhead_s[j]);
                count * law.split_time_s(&load.times(batch))
            });
        }
        Kernels::PassAndSplit if table.has_tiles => {
            let split_s = part(&table.split_s, first, n);
            let split_overhead_s = part(&table.split_overhead_s, first, n);
            let tile_s = part(&table.tile_s, first, n);
            let whole_s = part(&table.whole_s, first, n);
            let filled = part(&table.filled, first, n);
            let longest_s = part(&table.longest_s, first, n);
            let tail_s = part(&table.tail_s, first, n);
            let long_tiles = part(&table.long_tiles, first, n);
            let long_s = part(&table.long_s, first, n);
            let wave_split_s = part(&table.wave_split_s, first, n);
            let stream_s = part(&table.stream_s, first, n);
            let pass_overhead_s = part(&table.pass_overhead_s, first, n);
            add_each!(time, start, j => {
                let load = Load {
                    requests: 1.0,
                    bytes: bytes[j],
                    moved_bytes: moved_bytes[j],
                    split_s: split_s[j],
                    tile_s: tile_s[j],
                    whole_s: whole_s[j],
                    filled: filled[j],
                    longest_s: longest_s[j],
                    tail_s: tail_s[j],
                    long: LongLoad { tiles: long_tiles[j], tile_s: long_s[j], wave_split_s: wave_split_s[j] },
                    stream_s: stream_s[j],
                    pass_overhead_s: pass_overhead_s[j],
                    split_overhead_s: split_overhead_s[j],
                    ..Load::default()
                };
                count * law.fastest_time_s(&load.times(batch))
            });
        }
        Kernels::PassAndSplit => {
            let split_s = part(&table.split_s, first, n);
            let split_overhead_s = part(&table.split_overhead_s, first, n);
            let stream_s = part(&table.stream_s, first, n);
            add_each!(time, start, j => {
                let load = packed(moved_bytes[j], split_s[j], stream_s[j], split_overhead_s[j]);
                count * law.packed_time_s(&load.times(batch))
            });
        }
    }
}

/// The load of a request of packed rows, as far as its time depends on it.
#[inline(always)]
pub(super) fn packed(moved_bytes: f64, split_s: f64, stream_s: f64, split_overhead_s: f64) -> Load {
    Load { requests: 1.0, moved_bytes, split_s, stream_s, split_overhead_s, ..Load::default() }
}

/// Rows side by side whose least is kept for each place: a single running minimum would wait for itself.
const LANES: usize = 8;

/// The least value of the expression over all rows. The columns go by their own names in it.
macro_rules! least_each {
    ($rows:expr, [$($column:ident),*], $j:ident => $value:expr) => {{
        let rows = $rows;
        $(let ($column, _) = $column.as_chunks::<LANES>();)*
        $(let $column = &$column[..rows / LANES];)*
        let mut lanes = [f64::INFINITY; LANES];
        for i in 0..rows / LANES {
            $(let $column = &$column[i];)*
            for $j in 0..LANES {
                lanes[$j] = smaller($value, lanes[$j]);
            }
        }
        lanes.iter().fold(f64::INFINITY, |least, &lane| smaller(lane, least))
    }};
}

/// Least time of one attention operation over some rows of a table, for `batch` requests each.
#[inline(always)]
fn least_attention(law: &KernelLaw, batch: f64, table: &LoadTable, rows: Range<usize>) -> f64 {
    let (first, n) = (rows.start, rows.len());
    if table.has_tiles && law.kernels == Kernels::PassAndSplit {
        let mut times = [0.0; BLOCK];
        add_attention(law, 1.0, batch, (table, first), Some(0.0), &mut times[..n]);
        return earliest(&times[..n]);
    }
    let moved_bytes = part(&table.moved_bytes, first, n);
    let least = match law.kernels {
        Kernels::Roofline => {
            let (bytes, flops) = (part(&table.bytes, first, n), part(&table.flops, first, n));
            least_each!(n, [bytes, flops], j => {
                let load = Load { flops: flops[j], bytes: bytes[j], ..Load::default() };
                law.roofline_time_s(&load.times(batch))
            })
        }
        Kernels::Split => {
            let split_s = part(&table.split_s, first, n);
            let split_overhead_s = part(&table.split_overhead_s, first, n);
            least_each!(n, [moved_bytes, split_s, split_overhead_s], j => {
                let load = packed(moved_bytes[j], split_s[j], 0.0, split_overhead_s[j]);
                law.split_time_s(&load.times(batch))
            })
        }
        Kernels::PassAndSplit => {
            let split_s = part(&table.split_s, first, n);
            let split_overhead_s = part(&table.split_overhead_s, first, n);
            let stream_s = part(&table.stream_s, first, n);
            least_each!(n, [moved_bytes, split_s, stream_s, split_overhead_s], j => {
                let load = packed(moved_bytes[j], split_s[j], stream_s[j], split_overhead_s[j]);
                law.packed_time_s(&load.times(batch))
            })
        }
    };
    let odd = n % LANES;
    if odd == 0 {
        return least;
    }
    let mut times = [0.0; LANES];
    add_attention(law, 1.0, batch, (table, rows.end - odd), Some(0.0), &mut times[..odd]);
    smaller(earliest(&times[..odd]), least)
}

#[inline(always)]
pub(super) fn add_least_attention(
    law: &KernelLaw,
    count: f64,
    batches: &[f64],
    (table, rows): (&LoadTable, Range<usize>),
    earliest: &mut [f64],
) {
    for (earliest, &batch) in earliest.iter_mut().zip(batches) {
        *earliest += count * least_attention(law, batch, table, rows.clone());
    }
}

#[inline(always)]
pub(super) fn divide(numerator: f64, x: &[f64], divisor: f64, out: &mut [f64]) {
    if divisor == 1.0 {
        for (out, x) in out.iter_mut().zip(x) {
            *out = numerator / x;
        }
    } else {
        for (out, x) in out.iter_mut().zip(x) {
            *out = numerator / x / divisor;
        }
    }
}

#[inline(always)]
fn when(kept: bool) -> Mask {
    if kept { Mask::MAX } else { 0 }
}

#[inline(always)]
pub(super) fn keep(x: &[f64], test: Test, value: f64, mask: &mut [Mask]) {
    let pairs = mask.iter_mut().zip(x);
    match test {
        Test::Less => pairs.for_each(|(m, &x)| *m &= when(x < value)),
        Test::LessEqual => pairs.for_each(|(m, &x)| *m &= when(x <= value)),
        Test::Greater => pairs.for_each(|(m, &x)| *m &= when(x > value)),
        Test::GreaterEqual => pairs.for_each(|(m, &x)| *m &= when(x >= value)),
    }
}

#[inline(always)]
pub(super) fn keep_equal(x: &[f64], value: f64, wanted: bool, mask: &mut [Mask]) {
    for (m, &x) in mask.iter_mut().zip(x) {
        *m &= when((x == value) == wanted);
    }
}

#[inline(always)]
pub(super) fn earliest(time: &[f64]) -> f64 {
    let mut lanes = [f64::INFINITY; 16];
    let chunks = time.chunks_exact(16);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, &t) in lanes.iter_mut().zip(chunk) {
            *lane = if t < *lane { t } else { *lane };
        }
    }
    lanes.iter().chain(rest).fold(f64::INFINITY, |best, &t| if t < best { t } else { best })
}

#[inline(always)]
pub(super) fn least(value: &[f64], sign: f64, mask: &[Mask]) -> f64 {
    // Eight running minima: a single one would wait for itself.
    let mut lanes = [f64::INFINITY; 8];
    let (values, masks) = (value.chunks_exact(8), mask.chunks_exact(8));
    let rest = values.remainder().iter().zip(masks.remainder());
    for (v, m) in values.zip(masks) {
        for j in 0..8 {
            let x = if m[j] == 0 { f64::INFINITY } else { sign * v[j] };
            lanes[j] = if x < lanes[j] { x } else { lanes[j] };
        }
    }
    let mut best = f64::INFINITY;
    for (v, &m) in rest {
        let x = if m == 0 { f64::INFINITY } else { sign * v };
        best = if x < best { x } else { best };
    }
    lanes.iter().fold(best, |best, &x| if x < best { x } else { best })
}

#[inline(always)]
pub(super) fn row_times(op: &RowOp, rows: &[f64], out: &mut [f64]) {
    op.times(rows, out);
}

#[inline(always)]
pub(super) fn accumulate(count: f64, x: &[f64], out: &mut [f64]) {
    for (out, x) in out.iter_mut().zip(x) {
        *out += count * x;
    }
}

#[inline(always)]
pub(super) fn rises(x: &[f64]) -> bool {
    let mut falls = x.first().map_or(0, |first| u64::from(first.is_nan()));
    for (before, x) in x.iter().zip(x.iter().skip(1)) {
        falls |= if before <= x { 0 } else { Mask::MAX };
    }
    falls == 0
}

#[inline(always)]
pub(super) fn alike(codes: &[u32]) -> bool {
    let mut differ = 0;
    if let Some(first) = codes.first() {
        for code in codes {
            differ |= code ^ first;
        }
    }
    differ == 0
}

/// Adding it to a whole number below it leaves the number in the lower bits of the sum.
const WHOLE: f64 = (1_u64 << 52) as f64;

#[inline(always)]
pub(super) fn counts(x: &[f64], out: &mut [u64]) {
    let mut most = 0.0;
    for (out, &x) in out.iter_mut().zip(x) {
        // NaN is not larger.
        let x = larger(x, 0.0);
        most = larger(x, most);
        *out = (x + WHOLE).to_bits() - WHOLE.to_bits();
    }
    if most >= WHOLE {
        // The cast makes 0 of NaN, too.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts")]
        out.iter_mut().zip(x).for_each(|(out, &x)| *out = x as u64);
    }
}

#[inline(always)]
pub(super) fn codes(x: &[f64], out: &mut [u32]) {
    for (out, &x) in out.iter_mut().zip(x) {
        #[expect(clippy::cast_possible_truncation, reason = "a position among names")]
        let code = (larger(x, 0.0) + WHOLE).to_bits() as u32;
        *out = code;
    }
}

#[inline(always)]
pub(super) fn bounds([compute, memory, network, overhead]: [&[f64]; 4], out: &mut [u32]) {
    let rows = out.iter_mut().zip(compute).zip(memory).zip(network).zip(overhead);
    for ((((out, &c), &m), &n), &o) in rows {
        *out = u32::from(Bound::of(c, m, n, o) as u8);
    }
}
