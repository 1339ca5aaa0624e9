//! Routed experts: a grouped GEMM over the experts that a batch hits.

use super::tile::{TileConstants, TileGrid};
use crate::arithmetic::larger;
use crate::calibration::{Bar, GroupedGemmLaw};
use crate::error::{Error, Result};
use crate::format::{ComputeDType, WeightFormat};
use crate::roofline::{Machine, OpCost};

/// Expected number of distinct experts among `num_experts` that `num_tokens` tokens hit when each visits
/// `experts_per_token` of them uniformly: `E (1 - (1 - k/E)^T)`.
///
/// The power is taken by repeated squaring, so that every path gives the same bits.
pub fn expected_distinct_experts(num_experts: u64, experts_per_token: u64, num_tokens: u64) -> f64 {
    let experts = num_experts as f64;
    let missed = (num_experts - experts_per_token.min(num_experts)) as f64 / experts;
    let (mut base, mut exponent, mut power) = (missed, num_tokens, 1.0_f64);
    while exponent > 0 {
        if exponent & 1 == 1 {
            power *= base;
        }
        base *= base;
        exponent >>= 1;
    }
    experts * (1.0 - power)
}

/// Row counts evaluated together.
const LANES: usize = 64;
/// Tile sizes of one kernel.
const NUM_TILES: usize = 3;
/// Output tiles, as (rows, columns), of a kernel that starts one program a tile: quick to start, best for few rows.
const LIGHT_TILES: [(f64, f64); NUM_TILES] = [(16.0, 64.0), (16.0, 128.0), (64.0, 128.0)];
/// Those of a persistent kernel, whose units first learn where every expert's rows lie.
const WIDE_TILES: [(f64, f64); NUM_TILES] = [(64.0, 64.0), (64.0, 128.0), (128.0, 256.0)];

/// [`expected_distinct_experts`] of many numbers of tokens: the squares are the same for all of them.
#[inline(always)]
fn expected_distinct(num_experts: u64, experts_per_token: u64, num_tokens: &[u64; LANES]) -> [f64; LANES] {
    let experts = num_experts as f64;
    let mut base = (num_experts - experts_per_token.min(num_experts)) as f64 / experts;
    let mut power = [1.0_f64; LANES];
    let bits = u64::BITS - num_tokens.iter().fold(0, |all, n| all | n).leading_zeros();
    for bit in 0..bits {
        for (power, tokens) in power.iter_mut().zip(num_tokens) {
            let raised = *power * base;
            *power = if (tokens >> bit) & 1 == 1 { raised } else { *power };
        }
        base *= base;
    }
    power.map(|power| experts * (1.0 - power))
}

/// Shape of a grouped GEMM on one rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupedShape {
    /// Routed experts of the whole group.
    pub num_experts: u64,
    /// Experts that one token visits.
    pub experts_per_token: u64,
    /// Ranks that the experts are divided over.
    pub expert_ranks: u64,
    /// Replicas whose tokens meet in this group.
    pub token_replicas: u64,
    /// Outputs of one expert on one rank.
    pub n: u64,
    /// Inputs of one expert on one rank.
    pub k: u64,
    /// Storage of the experts.
    pub format: WeightFormat,
    /// Operand type.
    pub dtype: ComputeDType,
    /// Fixed number of experts hit, instead of the expectation.
    pub active_experts: Option<u64>,
}

/// A compiled grouped GEMM.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupedGemmOp {
    /// Its shape.
    pub shape: GroupedShape,
    expert_bytes: f64,
    bytes_per_routed_row: f64,
    flops_per_routed_row: f64,
    seconds_per_flop: f64,
    seconds_per_byte: f64,
    law: Resolved,
    bar: Bar,
}

#[derive(Debug, Clone, PartialEq)]
enum Resolved {
    Roofline,
    /// Also the tiled law's own asymptotes where the number of compute units is unknown.
    Smooth {
        t0_s: f64,
        seconds_per_flop: f64,
        seconds_per_byte: f64,
        exposed: f64,
    },
    Tiled {
        t0_s: f64,
        seconds_per_byte: f64,
        exposed: f64,
        k: f64,
        kernels: Box<[Kernel; 2]>,
    },
}

/// One of the kernels that a library has for routed experts.
#[derive(Debug, Clone, PartialEq)]
struct Kernel {
    /// What it takes to start beyond the fixed time of both.
    start_s: f64,
    grid: TileGrid<NUM_TILES>,
}

impl GroupedGemmOp {
    /// Compiles a shape.
    pub fn new(machine: &Machine<'_>, shape: GroupedShape) -> Result<Self> {
        if shape.experts_per_token > shape.num_experts {
            let rule = format!("must be at most num_experts = {}", shape.num_experts);
            return Err(Error::spec("experts_per_token", shape.experts_per_token, rule));
        }
        let (n, k) = (shape.n, shape.k);
        let expert_bytes = shape.format.tensor_bytes(n, k).ok_or_else(|| {
            Error::overflow("grouped_gemm", format!("n = {n}, k = {k}"), "weight bytes must stay below 2^64")
        })?;
        let (in_bits, out_bits) = (shape.dtype.operand_bits(), shape.dtype.operand_bits().max(16));
        let seconds_per_flop = machine.seconds_per_flop(shape.dtype)?;
        Ok(Self {
            shape,
            expert_bytes: expert_bytes as f64,
            bytes_per_routed_row: ((k * in_bits).div_ceil(8) + (n * out_bits).div_ceil(8)) as f64,
            flops_per_routed_row: 2.0 * n as f64 * k as f64,
            seconds_per_flop,
            seconds_per_byte: machine.seconds_per_byte,
            law: Resolved::new(machine, &shape, seconds_per_flop),
            bar: machine.calibration.intervals.of_grouped_gemm(shape.dtype).bar(
                seconds_per_flop,
                machine.seconds_per_byte,
                Some((n, k)),
            ),
        })
    }

    /// Cost for `rows` tokens of one replica, of the rank with the average load (uniform routing).
    pub fn cost(&self, rows: u64) -> OpCost {
        let shape = &self.shape;
        let tokens = rows.saturating_mul(shape.token_replicas);
        let hit = match shape.active_experts {
            Some(active) => active as f64,
            None => expected_distinct_experts(shape.num_experts, shape.experts_per_token, tokens),
        };
        self.evaluate(tokens as f64, hit)
    }

    /// `F/P` of one row of one replica, on the rank with the average load.
    pub fn peak_seconds_per_row(&self) -> f64 {
        let routed = (self.shape.experts_per_token * self.shape.token_replicas) as f64 / self.shape.expert_ranks as f64;
        routed * self.flops_per_routed_row * self.seconds_per_flop
    }

    /// Times of many row counts at once.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole numbers up to 2^53")]
    pub(crate) fn times(&self, rows: &[f64], out: &mut [f64]) {
        let shape = &self.shape;
        for (rows, out) in rows.chunks(LANES).zip(out.chunks_mut(LANES)) {
            let mut tokens = [0; LANES];
            for (tokens, &m) in tokens.iter_mut().zip(rows) {
                *tokens = (m as u64).saturating_mul(shape.token_replicas);
            }
            let hit = match shape.active_experts {
                Some(active) => [active as f64; LANES],
                None => expected_distinct(shape.num_experts, shape.experts_per_token, &tokens),
            };
            for ((t, &tokens), &hit) in out.iter_mut().zip(&tokens).zip(&hit) {
                *t = self.evaluate(tokens as f64, hit).time_s;
            }
        }
    }

    /// Cost of so many tokens of all replicas that hit so many experts.
    #[inline(always)]
    fn evaluate(&self, tokens: f64, hit: f64) -> OpCost {
        let shape = &self.shape;
        let ranks = shape.expert_ranks as f64;
        let active = hit / ranks;
        let routed = tokens * shape.experts_per_token as f64 / ranks;
        let weight_bytes = active * self.expert_bytes;
        let row_bytes = routed * self.bytes_per_routed_row;
        let flops = routed * self.flops_per_routed_row;
        let bytes = weight_bytes + row_bytes;
        let peak_compute_s = flops * self.seconds_per_flop;
        let ideal_memory_s = bytes * self.seconds_per_byte;
        let ideal_s = peak_compute_s.max(ideal_memory_s);
        let (time_s, compute_s, memory_s, overhead_s) = match &self.law {
            Resolved::Roofline => (ideal_s, peak_compute_s, ideal_memory_s, 0.0),
            Resolved::Smooth { t0_s, seconds_per_flop, seconds_per_byte, exposed } => {
                let (compute_s, memory_s) = (flops * seconds_per_flop, bytes * seconds_per_byte);
                (t0_s + overlapped(compute_s, memory_s, *exposed), compute_s, memory_s, *t0_s)
            }
            Resolved::Tiled { t0_s, seconds_per_byte, exposed, k, kernels } => {
                let memory_s = bytes * seconds_per_byte;
                let (time_s, compute_s, alone_s) = best_tile(kernels, (active, routed), *k, memory_s, *exposed);
                (t0_s + time_s, compute_s, memory_s, t0_s + alone_s)
            }
        };
        OpCost {
            time_s: time_s.max(ideal_s),
            ideal_s,
            compute_s,
            memory_s,
            overhead_s,
            flops,
            bytes,
            peak_compute_s,
            ..OpCost::default()
        }
        .with_interval(self.bar)
    }
}

impl Resolved {
    fn new(machine: &Machine<'_>, shape: &GroupedShape, seconds_per_flop: f64) -> Self {
        let narrow = shape.dtype.operand_bits() < 16;
        let law = machine.calibration.grouped_gemm;
        let (t0_s, e_m, e_c, exposed) = match law {
            GroupedGemmLaw::Roofline => return Self::Roofline,
            GroupedGemmLaw::Smooth { t0_s, e_m, e_c, exposed } => (t0_s, e_m, e_c, exposed),
            GroupedGemmLaw::Tiled { t0_s, e_m, e_c, e_c_narrow, exposed, .. } => {
                (t0_s, e_m, if narrow { e_c_narrow } else { e_c }, exposed)
            }
        };
        let seconds_per_byte = machine.seconds_per_byte / (e_m * machine.memory_rate);
        let compute = |e: f64| seconds_per_flop / (e * machine.compute_rate);
        let (GroupedGemmLaw::Tiled { e_c_light, stage_s, epilogue_s, wide_t0_s, .. }, Some(units)) =
            (law, machine.compute_units())
        else {
            return Self::Smooth { t0_s, seconds_per_flop: compute(e_c), seconds_per_byte, exposed };
        };
        let kernel = |start_s: f64, e: f64, sizes: [(f64, f64); NUM_TILES]| {
            let constants = TileConstants {
                units,
                seconds_per_flop: compute(e),
                // Loads are part of the exposed traffic here, and the routing is too uneven for waves to overlap.
                row_load_s: 0.0,
                column_load_s: 0.0,
                stage_s,
                epilogue_s,
                tail: 1.0,
            };
            Kernel { start_s, grid: TileGrid::new(constants, sizes, shape.n as f64) }
        };
        let kernels = Box::new([kernel(0.0, e_c_light, LIGHT_TILES), kernel(wide_t0_s, e_c, WIDE_TILES)]);
        Self::Tiled { t0_s, seconds_per_byte, exposed, k: shape.k as f64, kernels }
    }
}

/// Two times that hide each other in part: `sqrt(x^2 + y^2 + 2 exposed x y)`, their sum where `exposed` is 1.
///
/// Never under its larger argument, whatever the rounding.
#[inline(always)]
fn overlapped(compute_s: f64, memory_s: f64, exposed: f64) -> f64 {
    let squares = compute_s * compute_s + memory_s * memory_s;
    larger((squares + 2.0 * exposed * (compute_s * memory_s)).sqrt(), larger(compute_s, memory_s))
}

/// `(time, compute, start and epilogue)` seconds with the best kernel and tile for so many `(active experts, routed
/// rows)`.
#[inline(always)]
fn best_tile(
    kernels: &[Kernel; 2],
    (active, routed): (f64, f64),
    k: f64,
    memory_s: f64,
    exposed: f64,
) -> (f64, f64, f64) {
    let mut best = (f64::INFINITY, 0.0, 0.0);
    for Kernel { start_s, grid } in kernels {
        for tile in 0..NUM_TILES {
            // Rows of an expert vary with the routing, so that its last tile is half full on average; each has at least
            // one.
            let row_tiles = larger(routed / grid.rows(tile) + 0.5 * active, active);
            let (compute_s, epilogue_s) = grid.seconds(tile, row_tiles, routed / row_tiles, k);
            let alone_s = start_s + epilogue_s;
            let time_s = overlapped(compute_s, memory_s, exposed) + alone_s;
            if time_s < best.0 {
                best = (time_s, compute_s, alone_s);
            }
        }
    }
    best
}
