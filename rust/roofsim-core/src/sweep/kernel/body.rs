//! The bodies: inlined into every copy, so that each is compiled for the copy's instruction set.

pub(super) use super::parts::add_parts;
use crate::ops::attention::{KernelLaw, Kernels, Load, LongLoad, NEARLY};
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
    pub split_s: Vec<f64>,
    /// See [`Load`].
    pub tile_s: Vec<f64>,
    /// See [`Load`].
    pub filled: Vec<f64>,
    /// See [`Load`].
    pub longest_s: Vec<f64>,
    /// See [`Load`].
    pub tail_s: Vec<f64>,
    /// See [`Load`].
    pub stream_s: Vec<f64>,
    /// See [`LongLoad`].
    pub long_tiles: [Vec<f64>; NEARLY.len()],
    /// See [`LongLoad`].
    pub long_s: [Vec<f64>; NEARLY.len()],
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
            split_s: room(),
            tile_s: room(),
            filled: room(),
            longest_s: room(),
            tail_s: room(),
            stream_s: room(),
            long_tiles: NEARLY.map(|_| room()),
            long_s: NEARLY.map(|_| room()),
            pass_overhead_s: room(),
            split_overhead_s: room(),
            has_tiles: false,
        }
    }

    /// Appends one row.
    pub fn push(&mut self, load: &Load) {
        self.flops.push(load.flops);
        self.bytes.push(load.bytes);
        self.split_s.push(load.split_s);
        self.tile_s.push(load.tile_s);
        self.filled.push(load.filled);
        self.longest_s.push(load.longest_s);
        self.tail_s.push(load.tail_s);
        self.stream_s.push(load.stream_s);
        for (share, long) in load.long.iter().enumerate() {
            self.long_tiles[share].push(long.tiles);
            self.long_s[share].push(long.tile_s);
        }
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
            split_s: pick(&self.split_s),
            tile_s: pick(&self.tile_s),
            filled: pick(&self.filled),
            longest_s: pick(&self.longest_s),
            tail_s: pick(&self.tail_s),
            stream_s: pick(&self.stream_s),
            long: std::array::from_fn(|share| LongLoad {
                tiles: pick(&self.long_tiles[share]),
                tile_s: pick(&self.long_s[share]),
            }),
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
) -> f64 {
    let n = time.len();
    let bytes = part(&table.bytes, first, n);
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
                let load = Load {
                    requests: 1.0,
                    bytes: bytes[j],
                    split_s: split_s[j],
                    split_overhead_s: split_overhead_s[j],
                    ..Load::default()
                };
                count * law.split_time_s(&load.times(batch))
            });
        }
        Kernels::PassAndSplit if table.has_tiles => {
            let split_s = part(&table.split_s, first, n);
            let split_overhead_s = part(&table.split_overhead_s, first, n);
            let tile_s = part(&table.tile_s, first, n);
            let filled = part(&table.filled, first, n);
            let longest_s = part(&table.longest_s, first, n);
            let tail_s = part(&table.tail_s, first, n);
            let long_tiles: [&[f64]; NEARLY.len()] = std::array::from_fn(|i| part(&table.long_tiles[i], first, n));
            let long_s: [&[f64]; NEARLY.len()] = std::array::from_fn(|i| part(&table.long_s[i], first, n));
            let stream_s = part(&table.stream_s, first, n);
            let pass_overhead_s = part(&table.pass_overhead_s, first, n);
            add_each!(time, start, j => {
                let load = Load {
                    requests: 1.0,
                    bytes: bytes[j],
                    split_s: split_s[j],
                    tile_s: tile_s[j],
                    filled: filled[j],
                    longest_s: longest_s[j],
                    tail_s: tail_s[j],
                    long: std::array::from_fn(|i| LongLoad { tiles: long_tiles[i][j], tile_s: long_s[i][j] }),
                    stream_s: stream_s[j],
                    pass_overhead_s: pass_overhead_s[j],
                    split_overhead_s: split_overhead_s[j],
                    ..Load::default()
                };
                count * law.fastest_time_s(&load.times(batch))
            });
        }
        Kernels::PassAndSplit => {
            // Packed rows: one pass differs from the split by its overhead and by what it streams alone.
            let split_s = part(&table.split_s, first, n);
            let split_overhead_s = part(&table.split_overhead_s, first, n);
            let stream_s = part(&table.stream_s, first, n);
            add_each!(time, start, j => {
                let load = Load {
                    requests: 1.0,
                    bytes: bytes[j],
                    split_s: split_s[j],
                    tile_s: split_s[j],
                    longest_s: stream_s[j],
                    stream_s: stream_s[j],
                    pass_overhead_s: law.pass_t0_s,
                    split_overhead_s: split_overhead_s[j],
                    ..Load::default()
                };
                count * law.fastest_time_s(&load.times(batch))
            });
        }
    }
    earliest(time)
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
pub(super) fn any_within(value: &[f64], sign: f64, threshold: f64, mask: &[Mask]) -> bool {
    let mut any = 0;
    for (&v, &m) in value.iter().zip(mask) {
        any |= m & when(sign * v <= threshold);
    }
    any != 0
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
