//! The law of attention: two kernels, the faster one counts.
//!
//! One kernel tiles the queries: its time is the makespan of tiles handed to compute units as these fall free. The
//! other packs the query heads that share a KV head as rows and splits the KV axis: splitting S keys n ways costs
//! S/n + n, least at sqrt(S). Both must also read the cache. The minimum of two monotone times is monotone.

use super::shape::{AttentionShape, Counts, SHORT};
use crate::arithmetic::{larger, smaller};
use crate::calibration::AttentionLaw;
use crate::error::Result;
use crate::roofline::{Machine, OpCost};

/// What a request, or the sum of a batch, asks of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Load {
    /// FLOPs.
    pub flops: f64,
    /// Bytes that depend on the requests.
    pub bytes: f64,
    /// FLOPs of the KV-splitting kernel, whose rows are padded to its tile.
    pub split_flops: f64,
    /// Query-tiled kernel: time of all tiles spread over all units, seconds.
    pub tile_s: f64,
    /// Query-tiled kernel: tiles per unit.
    pub filled: f64,
    /// Query-tiled kernel: time of the longest tile, seconds (a maximum, not a sum).
    pub longest_s: f64,
    /// KV-splitting kernel: fixed time and the cost of splitting the longest context, seconds (a maximum).
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
}

impl Load {
    /// `count` equal requests.
    #[inline(always)]
    #[must_use]
    pub fn times(&self, count: f64) -> Self {
        Self {
            flops: count * self.flops,
            bytes: count * self.bytes,
            split_flops: count * self.split_flops,
            tile_s: count * self.tile_s,
            filled: count * self.filled,
            ragged: self.ragged.map(|r| RaggedLoad {
                compute_s: count * r.compute_s,
                filled: count * r.filled,
                longest_s: r.longest_s,
            }),
            ..*self
        }
    }

    /// Adds another load of the same batch.
    pub fn add(&mut self, other: &Self) {
        self.flops += other.flops;
        self.bytes += other.bytes;
        self.split_flops += other.split_flops;
        self.tile_s += other.tile_s;
        self.filled += other.filled;
        for (own, other) in self.ragged.iter_mut().zip(&other.ragged) {
            own.compute_s += other.compute_s;
            own.filled += other.filled;
            own.longest_s = larger(own.longest_s, other.longest_s);
        }
        self.longest_s = larger(self.longest_s, other.longest_s);
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
    TileAndSplit,
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
    /// Query-tiled kernel: fixed time.
    pub tile_t0_s: f64,
    /// Query-tiled kernel: share of the longest tile that shows at the end of the makespan.
    pub tile_tail: f64,
    /// KV-splitting kernel: `1/(e_c P)`.
    pub split_seconds_per_flop: f64,
    tile_tau_s: f64,
    block_s: f64,
    tiles_to_units: f64,
    split_t0_s: f64,
    split_c_s: f64,
}

/// Times of one kernel.
#[derive(Debug, Clone, Copy)]
struct Kernel {
    compute_s: f64,
    memory_s: f64,
    overhead_s: f64,
}

impl Kernel {
    #[inline(always)]
    fn time_s(&self) -> f64 {
        self.overhead_s + larger(self.compute_s, self.memory_s)
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
            tile_t0_s: 0.0,
            tile_tail: 0.0,
            split_seconds_per_flop: seconds_per_flop,
            tile_tau_s: 0.0,
            block_s: 0.0,
            tiles_to_units: 0.0,
            split_t0_s: 0.0,
            split_c_s: 0.0,
        };
        let AttentionLaw::Kernels { tile_t0_s, tile_e_c, tile_tau_s, tile_tail, split_t0_s, split_e_c, split_c_s, e_m } =
            machine.calibration.attention
        else {
            return Ok(roofline);
        };
        let units = machine.compute_units();
        let tiled = units.is_some() && shape.has_query_tiles();
        let units = units.unwrap_or(1.0);
        Ok(Self {
            kernels: if tiled { Kernels::TileAndSplit } else { Kernels::Split },
            memory_seconds_per_byte: machine.seconds_per_byte / (e_m * machine.memory_rate),
            tile_t0_s,
            tile_tail,
            split_seconds_per_flop: seconds_per_flop / (split_e_c * machine.compute_rate),
            tile_tau_s,
            block_s: shape.block_flops() * units * (seconds_per_flop / (tile_e_c * machine.compute_rate)),
            tiles_to_units: 1.0 / units,
            split_t0_s,
            split_c_s,
            ..roofline
        })
    }

    /// The load of one request.
    pub fn load(&self, counts: &Counts) -> Load {
        let tile_s = (counts.blocks * self.block_s + counts.tiles * self.tile_tau_s) * self.tiles_to_units;
        let filled = counts.tiles * self.tiles_to_units;
        let longest_s = counts.longest_blocks * self.block_s + self.tile_tau_s;
        let ragged = std::array::from_fn(|limit| {
            if counts.is_short[limit] {
                let compute_s = counts.split_flops * self.split_seconds_per_flop;
                return RaggedLoad { compute_s, ..RaggedLoad::default() };
            }
            // Never cheaper than the longest short request, so that one more row never helps.
            let short_s = counts.short_flops[limit] * self.split_seconds_per_flop;
            RaggedLoad { compute_s: larger(tile_s, short_s), filled, longest_s }
        });
        Load {
            flops: counts.flops,
            bytes: counts.bytes,
            split_flops: counts.split_flops,
            tile_s,
            filled,
            longest_s,
            ragged,
            split_overhead_s: self.split_t0_s + self.split_c_s * counts.root_context,
        }
    }

    #[inline(always)]
    fn memory_s(&self, load: &Load) -> f64 {
        (self.fixed_bytes + load.bytes) * self.memory_seconds_per_byte
    }

    #[inline(always)]
    fn tile_kernel(&self, load: &Load) -> Kernel {
        // Mean load of a unit, plus a share of the longest tile once tiles queue, and never under the longest itself.
        let queued_s = load.tile_s + self.tile_tail * load.longest_s * smaller(load.filled, 1.0);
        Kernel {
            compute_s: larger(queued_s, load.longest_s),
            memory_s: self.memory_s(load),
            overhead_s: self.tile_t0_s,
        }
    }

    #[inline(always)]
    fn split_kernel(&self, load: &Load) -> Kernel {
        Kernel {
            compute_s: load.split_flops * self.split_seconds_per_flop,
            memory_s: self.memory_s(load),
            overhead_s: load.split_overhead_s,
        }
    }

    /// One launch over requests of different lengths, as ragged kernels do it: short requests split the KV axis, long
    /// ones tile their queries, all share the units. For equal requests it is never faster than the other two, so that
    /// only ragged batches need it.
    fn ragged_kernel(&self, load: &Load, ragged: &RaggedLoad) -> Kernel {
        let queued_s = ragged.compute_s + self.tile_tail * ragged.longest_s * smaller(ragged.filled, 1.0);
        Kernel {
            compute_s: larger(queued_s, ragged.longest_s),
            memory_s: self.memory_s(load),
            overhead_s: larger(load.split_overhead_s, self.tile_t0_s),
        }
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
        smaller(self.tile_kernel(load).time_s(), self.split_kernel(load).time_s())
    }

    /// Time of a load.
    #[inline(always)]
    pub fn time_s(&self, load: &Load) -> f64 {
        match self.kernels {
            Kernels::Roofline => self.roofline_time_s(load),
            Kernels::Split => self.split_time_s(load),
            Kernels::TileAndSplit => self.fastest_time_s(load),
        }
    }

    /// Cost of a load, without its interval; `ragged` where requests differ.
    pub(super) fn cost(&self, load: &Load, ragged: bool) -> OpCost {
        let bytes = self.fixed_bytes + load.bytes;
        let peak_compute_s = load.flops * self.seconds_per_flop;
        let ideal_memory_s = bytes * self.seconds_per_byte;
        let kernel = match self.kernels {
            Kernels::Roofline => Kernel { compute_s: peak_compute_s, memory_s: ideal_memory_s, overhead_s: 0.0 },
            Kernels::Split => self.split_kernel(load),
            Kernels::TileAndSplit => {
                let (tile, split) = (self.tile_kernel(load), self.split_kernel(load));
                let mut best = if tile.time_s() < split.time_s() { tile } else { split };
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
