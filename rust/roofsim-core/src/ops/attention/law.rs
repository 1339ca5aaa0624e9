//! The law of attention: two kernels, the faster one counts.
//!
//! One kernel passes over the keys once: a few rows of a KV head together, or tiles of queries, whose time is the
//! makespan of tiles handed to compute units as these fall free. The other splits the KV axis over all units and
//! combines the parts. Both read the cache, and both stream keys through a unit at a finite rate: the first keys are
//! waited for before memory is busy, hence the soft maximum of the two. The minimum of monotone times is monotone.

use super::shape::{AttentionShape, Counts, NEARLY, SHORT};
use crate::arithmetic::{larger, smaller};
use crate::calibration::AttentionLaw;
use crate::error::Result;
use crate::roofline::{Machine, OpCost};

/// Soft maximum of memory time x and streaming time y: `max(x, y, OVERLAP (x + y))`. At 1 they would not overlap at
/// all, at 1/2 perfectly; between, the best value is flat.
const OVERLAP: f64 = 0.8;

/// What a request, or the sum of a batch, asks of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Load {
    /// Number of requests.
    pub requests: f64,
    /// FLOPs.
    pub flops: f64,
    /// Bytes that depend on the requests.
    pub bytes: f64,
    /// KV-splitting kernel: arithmetic of packed rows spread over all units, seconds.
    pub split_s: f64,
    /// One pass: arithmetic of all rows or tiles spread over all units, seconds.
    pub tile_s: f64,
    /// One pass: query tiles per unit; 0 where rows are packed.
    pub filled: f64,
    /// One pass: time of the longest tile, or to stream the keys of one KV head, seconds (a maximum, not a sum).
    pub longest_s: f64,
    /// One pass: what the end of the makespan adds once tiles queue, seconds (a maximum).
    pub tail_s: f64,
    /// One pass: tiles that are nearly as long as the longest, for each share of [`NEARLY`].
    pub long: [LongLoad; NEARLY.len()],
    /// One pass: time to stream the keys of one KV head, seconds (a maximum).
    pub stream_s: f64,
    /// One pass: fixed time, seconds (a maximum).
    pub pass_overhead_s: f64,
    /// KV-splitting kernel: fixed time and the cost of combining the parts, seconds (a maximum).
    pub split_overhead_s: f64,
    /// Ragged kernel, one for each limit of short requests.
    pub ragged: [RaggedLoad; SHORT.len()],
}

/// What a request asks of a launch that splits short requests and tiles long ones.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct RaggedLoad {
    /// Arithmetic of short requests split and of long ones tiled, spread over all units, seconds.
    pub compute_s: f64,
    /// Tiles per unit of the long requests.
    pub filled: f64,
    /// Time of the longest tile of a long request, seconds (a maximum).
    pub longest_s: f64,
    /// What the end of the makespan of long requests adds, seconds (a maximum).
    pub tail_s: f64,
    /// Time to stream the keys of one KV head of a long request, seconds (a maximum).
    pub stream_s: f64,
}

/// Tiles of about equal length, which units work off in whole waves.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LongLoad {
    /// How many: an integer.
    pub tiles: f64,
    /// Time of the shortest of them, seconds.
    pub tile_s: f64,
}

impl Load {
    /// `count` equal requests.
    #[inline(always)]
    #[must_use]
    pub fn times(&self, count: f64) -> Self {
        Self {
            requests: count * self.requests,
            flops: count * self.flops,
            bytes: count * self.bytes,
            split_s: count * self.split_s,
            tile_s: count * self.tile_s,
            filled: count * self.filled,
            long: self.long.map(|long| LongLoad { tiles: count * long.tiles, ..long }),
            ragged: self.ragged.map(|r| RaggedLoad { compute_s: count * r.compute_s, filled: count * r.filled, ..r }),
            ..*self
        }
    }

    /// Adds another load of the same batch.
    pub fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.flops += other.flops;
        self.bytes += other.bytes;
        self.split_s += other.split_s;
        self.tile_s += other.tile_s;
        self.filled += other.filled;
        for (own, other) in self.ragged.iter_mut().zip(&other.ragged) {
            own.compute_s += other.compute_s;
            own.filled += other.filled;
            own.longest_s = larger(own.longest_s, other.longest_s);
            own.tail_s = larger(own.tail_s, other.tail_s);
            own.stream_s = larger(own.stream_s, other.stream_s);
        }
        self.longest_s = larger(self.longest_s, other.longest_s);
        self.tail_s = larger(self.tail_s, other.tail_s);
        self.stream_s = larger(self.stream_s, other.stream_s);
        self.pass_overhead_s = larger(self.pass_overhead_s, other.pass_overhead_s);
        self.split_overhead_s = larger(self.split_overhead_s, other.split_overhead_s);
    }
}

/// Which kernels the law has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernels {
    /// None: the bare roofline.
    Roofline,
    /// The KV-splitting one alone: latent attention, and devices without a number of compute units.
    Split,
    /// Both.
    PassAndSplit,
}

/// The law with the machine's rates folded in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KernelLaw {
    /// Which kernels there are.
    pub kernels: Kernels,
    /// Bytes read once whatever the batch.
    pub fixed_bytes: f64,
    /// `1/P`.
    pub seconds_per_flop: f64,
    /// `1/W`.
    pub seconds_per_byte: f64,
    /// `1/(e_m W)`.
    pub memory_seconds_per_byte: f64,
    /// Time to stream the first block of keys of one KV head.
    pub first_block_s: f64,
    crowd_s: f64,
    requests_to_crowd: f64,
    split_seconds_per_flop: f64,
    stream_seconds_per_byte: f64,
    /// Fixed time of a pass by packed rows.
    pub pass_t0_s: f64,
    tile_t0_s: f64,
    tile_start: f64,
    tile_spread: f64,
    tile_last: f64,
    tile_end_s: f64,
    prefix_tile_s: f64,
    block_s: f64,
    tiles_to_units: f64,
    units: f64,
    split_t0_s: f64,
    split_c_s: f64,
    split_rows_s: f64,
}

/// Times of one kernel.
#[derive(Debug, Clone, Copy)]
struct Kernel {
    compute_s: f64,
    memory_s: f64,
    /// Time to stream keys through one unit, which memory time hides in part.
    stream_s: f64,
    overhead_s: f64,
}

impl Kernel {
    #[inline(always)]
    fn time_s(&self) -> f64 {
        let hard_s = larger(self.compute_s, self.memory_s);
        self.overhead_s + larger(hard_s, OVERLAP * self.memory_s + OVERLAP * self.stream_s)
    }
}

impl KernelLaw {
    pub(super) fn new(machine: &Machine<'_>, shape: &AttentionShape) -> Result<Self> {
        let seconds_per_flop = machine.seconds_per_flop(shape.dtype)?;
        let roofline = Self {
            kernels: Kernels::Roofline,
            fixed_bytes: shape.fixed_bytes as f64,
            seconds_per_flop,
            seconds_per_byte: machine.seconds_per_byte,
            memory_seconds_per_byte: machine.seconds_per_byte,
            first_block_s: 0.0,
            crowd_s: 0.0,
            requests_to_crowd: 0.0,
            split_seconds_per_flop: seconds_per_flop,
            stream_seconds_per_byte: 0.0,
            pass_t0_s: 0.0,
            tile_t0_s: 0.0,
            tile_start: 0.0,
            tile_spread: 0.0,
            tile_last: 0.0,
            tile_end_s: 0.0,
            prefix_tile_s: 0.0,
            block_s: 0.0,
            tiles_to_units: 0.0,
            units: 1.0,
            split_t0_s: 0.0,
            split_c_s: 0.0,
            split_rows_s: 0.0,
        };
        let AttentionLaw::Kernels {
            e_m,
            stream_bytes_per_s,
            crowd_s,
            crowd_heads,
            pass_t0_s,
            split_t0_s,
            split_c_s,
            split_rows_s,
            split_e_c,
            tile_t0_s,
            tile_e_c,
            tile_exp_per_s,
            tile_start,
            tile_spread,
            tile_last,
            tile_end,
            prefix_tile_s,
        } = machine.calibration.attention
        else {
            return Ok(roofline);
        };
        let units = machine.compute_units();
        let tiled = units.is_some() && shape.has_query_tiles();
        let crowded = if units.is_some() { crowd_s * shape.relative_width().sqrt() } else { 0.0 };
        let units = units.unwrap_or(1.0);
        let stream_seconds_per_byte = 1.0 / stream_bytes_per_s;
        // Products and exponentials of a block overlap in part.
        let product_s = shape.block_flops() * units * (seconds_per_flop / tile_e_c);
        let softmax_s = AttentionShape::block_exponentials() / tile_exp_per_s;
        let block_s = larger((product_s * product_s + softmax_s * softmax_s).sqrt(), product_s);
        let block_s = larger(block_s / machine.compute_rate, block_s);
        Ok(Self {
            kernels: if tiled { Kernels::PassAndSplit } else { Kernels::Split },
            memory_seconds_per_byte: machine.seconds_per_byte / (e_m * machine.memory_rate),
            first_block_s: AttentionShape::block_keys() * shape.head_bytes() * stream_seconds_per_byte,
            crowd_s: crowded,
            requests_to_crowd: shape.streamed_heads() / (crowd_heads * units),
            split_seconds_per_flop: seconds_per_flop / (split_e_c * machine.compute_rate),
            stream_seconds_per_byte,
            pass_t0_s,
            tile_t0_s: larger(tile_t0_s, pass_t0_s),
            tile_start,
            tile_spread,
            tile_last,
            prefix_tile_s: prefix_tile_s * shape.relative_width(),
            tile_end_s: tile_end * block_s,
            block_s,
            tiles_to_units: 1.0 / units,
            units,
            split_t0_s: pass_t0_s + split_t0_s,
            split_c_s,
            split_rows_s: split_rows_s * shape.relative_width(),
            ..roofline
        })
    }

    /// The load of one request.
    pub fn load(&self, counts: &Counts) -> Load {
        let split_s = counts.split_flops * self.split_seconds_per_flop;
        let stream_s = counts.head_bytes * self.stream_seconds_per_byte;
        let split_overhead_s =
            self.split_t0_s + self.split_c_s * counts.root_context + self.split_rows_s * counts.row_share;
        let tiled = self.tiled(counts, stream_s);
        let ragged = std::array::from_fn(|limit| {
            if counts.is_short[limit] {
                let stream_s = self.first_block_s;
                return RaggedLoad { compute_s: split_s, longest_s: stream_s, stream_s, ..RaggedLoad::default() };
            }
            // Never cheaper than the longest short request, so that one more row never helps.
            let short_s = counts.short_flops[limit] * self.split_seconds_per_flop;
            RaggedLoad {
                compute_s: larger(tiled.tile_s, short_s),
                filled: tiled.filled,
                longest_s: larger(tiled.longest_s, self.first_block_s),
                tail_s: tiled.tail_s,
                stream_s: larger(stream_s, self.first_block_s),
            }
        });
        let pass = if counts.is_packed {
            Load { tile_s: split_s, longest_s: stream_s, pass_overhead_s: self.pass_t0_s, ..Load::default() }
        } else {
            tiled
        };
        Load {
            requests: 1.0,
            flops: counts.flops,
            bytes: counts.bytes,
            split_s,
            stream_s,
            split_overhead_s,
            ragged,
            ..pass
        }
    }

    /// The fields of a request whose queries are tiled.
    fn tiled(&self, counts: &Counts, stream_s: f64) -> Load {
        let time_s = |blocks: f64, tiles: f64| (blocks + self.tile_start * tiles) * self.block_s * self.tiles_to_units;
        let whole_s = time_s(counts.whole.blocks, counts.whole.count);
        // Parts behind a prefix are merged; where that costs more than the whole context from its beginning, the
        // latter counts: so that one more new token of the same context never helps.
        let tile_s = if counts.has_prefix {
            let merged_s = counts.tiles.count * self.prefix_tile_s * self.tiles_to_units;
            smaller(time_s(counts.tiles.blocks, counts.tiles.count) + merged_s, whole_s)
        } else {
            whole_s
        };
        let longest_s = (counts.longest_blocks + self.tile_start) * self.block_s;
        Load {
            // Never cheaper than the most rows that are packed, so that one more row never helps.
            tile_s: larger(tile_s, counts.packed_limit_flops * self.split_seconds_per_flop),
            filled: counts.tiles.count * self.tiles_to_units,
            longest_s: larger(longest_s, stream_s),
            long: counts.long.map(|long| LongLoad {
                tiles: long.count,
                tile_s: (long.blocks + self.tile_start) * self.block_s,
            }),
            tail_s: self.tile_spread * (counts.spread_blocks * self.block_s) + self.tile_last * longest_s,
            pass_overhead_s: self.tile_t0_s,
            ..Load::default()
        }
    }

    #[inline(always)]
    fn memory_s(&self, load: &Load) -> f64 {
        (self.fixed_bytes + load.bytes) * self.memory_seconds_per_byte
    }

    /// What more KV heads at once than the machine has units cost every launch: at most `crowd_s`.
    #[inline(always)]
    fn crowding_s(&self, load: &Load) -> f64 {
        // Written so that rounding keeps it monotone.
        self.crowd_s * (1.0 - 1.0 / (1.0 + load.requests * self.requests_to_crowd))
    }

    /// Whole waves of tiles that take at least so long each: of `tiles` on `units`, some unit gets `ceil(tiles/units)`.
    #[inline(always)]
    fn waves_s(&self, long: &LongLoad) -> f64 {
        (long.tiles / self.units).ceil() * long.tile_s
    }

    #[inline(always)]
    fn pass_kernel(&self, load: &Load) -> Kernel {
        // Mean load of a unit, plus the tail once tiles queue, and never under the longest tile.
        let filled = smaller(load.filled, 1.0);
        let queued_s = load.tile_s + load.tail_s * filled;
        let whole_s = load.long.iter().fold(load.longest_s, |most, long| larger(most, self.waves_s(long)));
        Kernel {
            compute_s: larger(queued_s, whole_s),
            memory_s: self.memory_s(load),
            stream_s: load.stream_s,
            overhead_s: self.crowding_s(load) + load.pass_overhead_s + self.tile_end_s * filled,
        }
    }

    #[inline(always)]
    fn split_kernel(&self, load: &Load) -> Kernel {
        Kernel {
            compute_s: larger(load.split_s, self.first_block_s),
            memory_s: self.memory_s(load),
            stream_s: self.first_block_s,
            overhead_s: self.crowding_s(load) + load.split_overhead_s,
        }
    }

    /// One launch over requests of different lengths, as ragged kernels do it: short requests split the KV axis, long
    /// ones tile their queries, all share the units. For equal requests it is never faster than the other two, so that
    /// only ragged batches need it.
    fn ragged_kernel(&self, load: &Load, ragged: &RaggedLoad) -> Kernel {
        let filled = smaller(ragged.filled, 1.0);
        let queued_s = ragged.compute_s + ragged.tail_s * filled;
        Kernel {
            compute_s: larger(queued_s, ragged.longest_s),
            memory_s: self.memory_s(load),
            stream_s: ragged.stream_s,
            overhead_s: self.crowding_s(load)
                + larger(load.split_overhead_s, load.pass_overhead_s)
                + self.tile_end_s * filled,
        }
    }

    /// The load of a flat batch of runs of equal requests.
    pub(super) fn batch_load(&self, requests: impl Iterator<Item = (f64, Load)>) -> Load {
        let mut total = Load::default();
        let mut tiled: Vec<Load> = Vec::new();
        let mut runs = 0;
        for (count, load) in requests {
            let run = load.times(count);
            total.add(&run);
            if run.filled > 0.0 {
                tiled.push(run);
            }
            runs += 1;
        }
        if let (1, [run]) = (runs, tiled.as_slice()) {
            total.long = run.long;
            return total;
        }
        for share in 0..NEARLY.len() {
            // Longest first: what a tile's waves have to hold are the tiles that are at least as long. Sums of integers
            // are exact, so that the order of requests cannot move a wave.
            tiled.sort_unstable_by(|one, other| other.long[share].tile_s.total_cmp(&one.long[share].tile_s));
            let mut tiles = 0.0;
            let mut split_off = [0.0; SHORT.len()];
            for run in &tiled {
                let LongLoad { tiles: own, tile_s } = run.long[share];
                tiles += own;
                total.longest_s = larger(total.longest_s, self.waves_s(&LongLoad { tiles, tile_s }));
                for ((short, ragged), own_ragged) in split_off.iter_mut().zip(&mut total.ragged).zip(&run.ragged) {
                    if own_ragged.filled > 0.0 {
                        let long = LongLoad { tiles: tiles - *short, tile_s };
                        ragged.longest_s = larger(ragged.longest_s, self.waves_s(&long));
                    } else {
                        *short += own;
                    }
                }
            }
        }
        total
    }

    /// Time under the bare roofline.
    #[inline(always)]
    pub fn roofline_time_s(&self, load: &Load) -> f64 {
        larger(load.flops * self.seconds_per_flop, (self.fixed_bytes + load.bytes) * self.seconds_per_byte)
    }

    /// Time with the KV-splitting kernel alone.
    #[inline(always)]
    pub fn split_time_s(&self, load: &Load) -> f64 {
        self.split_kernel(load).time_s()
    }

    /// Time with the faster of both kernels.
    #[inline(always)]
    pub fn fastest_time_s(&self, load: &Load) -> f64 {
        smaller(self.pass_kernel(load).time_s(), self.split_kernel(load).time_s())
    }

    /// Time of a load.
    #[inline(always)]
    pub fn time_s(&self, load: &Load) -> f64 {
        match self.kernels {
            Kernels::Roofline => self.roofline_time_s(load),
            Kernels::Split => self.split_time_s(load),
            Kernels::PassAndSplit => self.fastest_time_s(load),
        }
    }

    /// Cost of a load, without its interval; `ragged` where requests differ.
    pub(super) fn cost(&self, load: &Load, ragged: bool) -> OpCost {
        let bytes = self.fixed_bytes + load.bytes;
        let peak_compute_s = load.flops * self.seconds_per_flop;
        let ideal_memory_s = bytes * self.seconds_per_byte;
        let kernel = match self.kernels {
            Kernels::Roofline => {
                Kernel { compute_s: peak_compute_s, memory_s: ideal_memory_s, stream_s: 0.0, overhead_s: 0.0 }
            }
            Kernels::Split => self.split_kernel(load),
            Kernels::PassAndSplit => {
                let (pass, split) = (self.pass_kernel(load), self.split_kernel(load));
                let mut best = if pass.time_s() < split.time_s() { pass } else { split };
                for one in load.ragged.iter().filter(|_| ragged) {
                    let kernel = self.ragged_kernel(load, one);
                    best = if kernel.time_s() < best.time_s() { kernel } else { best };
                }
                best
            }
        };
        OpCost {
            time_s: kernel.time_s(),
            ideal_s: larger(peak_compute_s, ideal_memory_s),
            compute_s: kernel.compute_s,
            memory_s: kernel.memory_s,
            overhead_s: kernel.overhead_s,
            flops: load.flops,
            bytes,
            peak_compute_s,
            ..OpCost::default()
        }
    }
}
