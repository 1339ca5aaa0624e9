//! Dense matrix product: `m` rows times an `n` by `k` weight. FLOPs = 2 m n k (never MACs).

use super::tile::{TileConstants, TileGrid};
use crate::arithmetic::{larger, smaller};
use crate::calibration::{Bar, GemmLaw, norm4};
use crate::error::{Error, Result};
use crate::format::{ComputeDType, WeightFormat};
use crate::roofline::{Machine, OpCost};

/// Output tiles to choose from, as (rows, columns). Wider ones bring no measurable gain.
const TILES: [(f64, f64); 6] =
    [(16.0, 64.0), (16.0, 128.0), (64.0, 64.0), (64.0, 128.0), (128.0, 64.0), (128.0, 128.0)];
/// Ways to split the inner dimension.
const SPLITS: [f64; 4] = [1.0, 2.0, 4.0, 8.0];
/// Row counts evaluated together.
const LANES: usize = 64;

/// Every tile with every split, as positions.
fn candidates() -> impl Iterator<Item = (usize, usize)> {
    (0..TILES.len()).flat_map(|tile| (0..SPLITS.len()).map(move |split| (tile, split)))
}

/// A compiled GEMM: everything but the number of rows.
#[derive(Debug, Clone, PartialEq)]
pub struct GemmOp {
    /// Outputs.
    pub n: u64,
    /// Inputs.
    pub k: u64,
    /// Operand type of the matrix units.
    pub dtype: ComputeDType,
    /// Bytes of the stored weight, scales included.
    pub weight_bytes: f64,
    bytes_per_row: f64,
    flops_per_row: f64,
    seconds_per_flop: f64,
    seconds_per_byte: f64,
    law: Resolved,
    /// Quantising the activations, where that is timed too.
    quantiser: Quantiser,
    bar: Bar,
}

/// Kernels that quantise the activations before they are multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Quantiser {
    t0_s: f64,
    seconds_per_row: f64,
}

/// The law with the machine's rates folded in.
#[derive(Debug, Clone, PartialEq)]
enum Resolved {
    Roofline,
    Smooth { t0_s: f64, seconds_per_flop: f64, seconds_per_byte: f64 },
    Tiled(Box<Tiled>),
}

#[derive(Debug, Clone, PartialEq)]
struct Tiled {
    t0_s: f64,
    red_s: f64,
    n: f64,
    seconds_per_byte: f64,
    grid: TileGrid<{ TILES.len() }>,
    /// k / s.
    split_k: [f64; 4],
}

impl GemmOp {
    /// Compiles `n` by `k` in `format`, multiplied as `dtype`, as a step runs it.
    pub fn new(machine: &Machine<'_>, n: u64, k: u64, format: WeightFormat, dtype: ComputeDType) -> Result<Self> {
        let weight_bytes = format
            .tensor_bytes(n, k)
            .ok_or_else(|| Error::overflow("gemm", format!("n = {n}, k = {k}"), "weight bytes must stay below 2^64"))?;
        // Activations arrive in the multiply's own width, as engines write them in the kernel before; results leave in 16
        // bits, or 32 for fp32 and tf32.
        let (in_bits, out_bits) = (dtype.operand_bits(), dtype.operand_bits().max(16));
        let bytes_per_row = (k * in_bits).div_ceil(8) + (n * out_bits).div_ceil(8);
        let seconds_per_flop = machine.seconds_per_flop(dtype)?;
        Ok(Self {
            n,
            k,
            dtype,
            weight_bytes: weight_bytes as f64,
            bytes_per_row: bytes_per_row as f64,
            flops_per_row: 2.0 * n as f64 * k as f64,
            seconds_per_flop,
            seconds_per_byte: machine.seconds_per_byte,
            law: Resolved::new(machine, (n, k), (format, dtype), seconds_per_flop),
            quantiser: Quantiser::default(),
            bar: machine.calibration.intervals.of_gemm(dtype).bar(
                seconds_per_flop,
                machine.seconds_per_byte,
                Some((n, k)),
            ),
        })
    }

    /// The same as kernel libraries time it, which measurements are set beside: the calibration's `quantise_s` and
    /// `quantise_bytes` count.
    #[must_use]
    pub fn as_timed(self, machine: &Machine<'_>) -> Self {
        let GemmLaw::Tiled { e_m, quantise_s, quantise_bytes, .. } = machine.calibration.gemm_law(self.dtype) else {
            return self;
        };
        let seconds_per_byte = machine.seconds_per_byte / (e_m * machine.memory_rate);
        let seconds_per_row = quantise_bytes * self.k as f64 * seconds_per_byte;
        Self { quantiser: Quantiser { t0_s: quantise_s, seconds_per_row }, ..self }
    }

    /// Cost of `rows` rows.
    pub fn cost(&self, rows: u64) -> OpCost {
        let m = rows as f64;
        let flops = m * self.flops_per_row;
        let bytes = self.weight_bytes + m * self.bytes_per_row;
        let peak_compute_s = flops * self.seconds_per_flop;
        let ideal_memory_s = bytes * self.seconds_per_byte;
        let ideal_s = larger(peak_compute_s, ideal_memory_s);
        let parts = match &self.law {
            Resolved::Roofline => {
                Parts { time_s: ideal_s, compute_s: peak_compute_s, memory_s: ideal_memory_s, overhead_s: 0.0 }
            }
            Resolved::Smooth { t0_s, seconds_per_flop, seconds_per_byte } => {
                let (compute_s, memory_s) = (flops * seconds_per_flop, bytes * seconds_per_byte);
                Parts { time_s: t0_s + norm4(compute_s, memory_s), compute_s, memory_s, overhead_s: *t0_s }
            }
            Resolved::Tiled(tiled) => tiled.parts(m, bytes),
        };
        let quantise_s = m * self.quantiser.seconds_per_row;
        OpCost {
            time_s: larger(parts.time_s, ideal_s) + (self.quantiser.t0_s + quantise_s),
            ideal_s,
            compute_s: parts.compute_s,
            memory_s: parts.memory_s + quantise_s,
            overhead_s: parts.overhead_s + self.quantiser.t0_s,
            flops,
            bytes,
            peak_compute_s,
            ..OpCost::default()
        }
        .with_interval(self.bar)
    }

    /// `F/P` of one row.
    pub fn peak_seconds_per_row(&self) -> f64 {
        self.flops_per_row * self.seconds_per_flop
    }

    /// Times of many row counts at once, as a step runs them: the same bits as [`Self::cost`], candidate by candidate so that the loop over
    /// rows is one the compiler vectorises.
    #[inline(always)]
    pub(crate) fn times(&self, rows: &[f64], out: &mut [f64]) {
        let ideal = |m: f64| {
            let (flops, bytes) = (m * self.flops_per_row, self.weight_bytes + m * self.bytes_per_row);
            larger(flops * self.seconds_per_flop, bytes * self.seconds_per_byte)
        };
        match &self.law {
            Resolved::Roofline => {
                for (t, &m) in out.iter_mut().zip(rows) {
                    *t = ideal(m);
                }
            }
            Resolved::Smooth { t0_s, seconds_per_flop, seconds_per_byte } => {
                for (t, &m) in out.iter_mut().zip(rows) {
                    let (flops, bytes) = (m * self.flops_per_row, self.weight_bytes + m * self.bytes_per_row);
                    *t = larger(t0_s + norm4(flops * seconds_per_flop, bytes * seconds_per_byte), ideal(m));
                }
            }
            Resolved::Tiled(tiled) => {
                for (rows, out) in rows.chunks(LANES).zip(out.chunks_mut(LANES)) {
                    out.fill(f64::INFINITY);
                    let (least, most) =
                        rows.iter().fold((f64::INFINITY, 0.0), |(a, b), &m| (smaller(a, m), larger(b, m)));
                    let time_s = |(tile, split): (usize, usize), m: f64| {
                        let parts = tiled.candidate(tile, split, m, self.weight_bytes + m * self.bytes_per_row);
                        norm4(parts.compute_s, parts.memory_s) + parts.overhead_s
                    };
                    // Every candidate is monotone in the rows, rounding included: one that for the fewest rows takes
                    // as long as another for the most is nowhere below it.
                    let limit_s = candidates().fold(f64::INFINITY, |best, at| smaller(time_s(at, most), best));
                    for at in candidates().filter(|&at| time_s(at, least) <= limit_s) {
                        for (t, &m) in out.iter_mut().zip(rows) {
                            *t = smaller(time_s(at, m), *t);
                        }
                    }
                }
                for (t, &m) in out.iter_mut().zip(rows) {
                    *t = larger(tiled.t0_s + *t, ideal(m));
                }
            }
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Parts {
    time_s: f64,
    compute_s: f64,
    memory_s: f64,
    overhead_s: f64,
}

impl Resolved {
    fn new(
        machine: &Machine<'_>,
        (n, k): (u64, u64),
        (format, dtype): (WeightFormat, ComputeDType),
        seconds_per_flop: f64,
    ) -> Self {
        let (compute_rate, memory_rate) = (machine.compute_rate, machine.memory_rate);
        let memory = |e_m: f64| machine.seconds_per_byte / (e_m * memory_rate);
        let compute = |e: f64| seconds_per_flop / (e * compute_rate);
        match (machine.calibration.gemm_law(dtype), machine.compute_units()) {
            (GemmLaw::Roofline, _) => Self::Roofline,
            // Without a count of compute units there are no waves: the tiled law's own asymptotes remain.
            (GemmLaw::Smooth { t0_s, e_c, e_m }, _) | (GemmLaw::Tiled { t0_s, e_m, e_c, .. }, None) => {
                Self::Smooth { t0_s, seconds_per_flop: compute(e_c), seconds_per_byte: memory(e_m) }
            }
            (
                GemmLaw::Tiled { t0_s, e_m, e_c, load_bytes_per_s, stage_s, epilogue_s, red_s, tail, .. },
                Some(units),
            ) => {
                let seconds_per_byte = memory(e_m);
                // Scales are too few to count here; without them the load of a tile never falls when n grows.
                let load = |bits: u64| bits as f64 / 8.0 / load_bytes_per_s;
                let constants = TileConstants {
                    units,
                    seconds_per_flop: compute(e_c),
                    row_load_s: load(dtype.operand_bits()),
                    column_load_s: load(format.element_bits()),
                    stage_s,
                    epilogue_s,
                    tail,
                };
                Self::Tiled(Box::new(Tiled {
                    t0_s,
                    red_s,
                    n: n as f64,
                    seconds_per_byte,
                    grid: TileGrid::new(constants, TILES, n as f64),
                    split_k: SPLITS.map(|s| k as f64 / s),
                }))
            }
        }
    }
}

impl Tiled {
    /// The best tile and split for `m` rows.
    fn parts(&self, m: f64, bytes: f64) -> Parts {
        let mut best = Parts { time_s: f64::INFINITY, compute_s: 0.0, memory_s: 0.0, overhead_s: 0.0 };
        for (tile, split) in candidates() {
            let parts = self.candidate(tile, split, m, bytes);
            // The norm is at least its larger part: most candidates lose before any root is taken.
            if larger(parts.compute_s, parts.memory_s) + parts.overhead_s >= best.time_s {
                continue;
            }
            let time_s = norm4(parts.compute_s, parts.memory_s) + parts.overhead_s;
            if time_s < best.time_s {
                best = Parts { time_s, ..parts };
            }
        }
        Parts { time_s: self.t0_s + best.time_s, overhead_s: self.t0_s + best.overhead_s, ..best }
    }

    /// One tile and split: its parts, without the norm that joins them.
    #[inline(always)]
    fn candidate(&self, tile: usize, split: usize, m: f64, bytes: f64) -> Parts {
        let (a, s) = (self.grid.rows(tile), SPLITS[split]);
        let (compute_s, epilogue_s) = self.grid.seconds(tile, (m / a).ceil() * s, smaller(a, m), self.split_k[split]);
        // Each split writes its fp32 partial sums and the reduction reads them again.
        let partial_bytes = if split > 0 { 8.0 * s * m * self.n } else { 0.0 };
        let memory_s = (bytes + partial_bytes) * self.seconds_per_byte;
        let overhead_s = epilogue_s + if split > 0 { self.red_s } else { 0.0 };
        Parts { time_s: 0.0, compute_s, memory_s, overhead_s }
    }
}
