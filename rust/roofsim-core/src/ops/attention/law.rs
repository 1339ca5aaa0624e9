//! The law of attention: two kernels, the faster one counts.
//!
//! One kernel passes over the keys once: a few rows of a KV head together, or tiles of queries, whose time is the
//! makespan of tiles handed to compute units as these fall free. The other splits the KV axis over all units and
//! combines the parts. Both read the cache, and both stream keys through a unit at a finite rate: the first keys are
//! waited for before memory is busy, hence the soft maximum of the two. The minimum of monotone times is monotone.

use super::shape::{AttentionShape, Counts, PackedRows, Tiles};
use crate::arithmetic::{larger, smaller};
use crate::calibration::AttentionLaw;
use crate::error::Result;
use crate::roofline::{Machine, OpCost};

/// What a request, or the sum of a batch, asks of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Load {
    /// Number of requests.
    pub requests: f64,
    /// FLOPs.
    pub flops: f64,
    /// Bytes that depend on the requests.
    pub bytes: f64,
    /// Those of them that the kernel itself moves.
    pub moved_bytes: f64,
    /// KV-splitting kernel: arithmetic of packed rows spread over all units, seconds.
    pub split_s: f64,
    /// One pass: arithmetic of all rows or tiles spread over all units, seconds.
    pub tile_s: f64,
    /// The same if nothing were cached.
    pub whole_s: f64,
    /// One pass: query tiles per unit; 0 where rows are packed.
    pub filled: f64,
    /// One pass: time of the longest tile, or to stream the keys of one KV head, seconds (a maximum, not a sum).
    pub longest_s: f64,
    /// One pass: what the end of the makespan adds once tiles queue, seconds (a maximum).
    pub tail_s: f64,
    /// One pass: tiles that are nearly as long as the longest.
    pub long: LongLoad,
    /// One pass: time to stream the keys of one KV head, seconds (a maximum).
    pub stream_s: f64,
    /// One pass: fixed time, seconds (a maximum).
    pub pass_overhead_s: f64,
    /// KV-splitting kernel: fixed time and the cost of combining the parts, seconds (a maximum).
    pub split_overhead_s: f64,
}

/// Tiles of about equal length, which units work off in whole waves.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LongLoad {
    /// How many: an integer.
    pub tiles: f64,
    /// Time of the shortest of them, seconds.
    pub tile_s: f64,
    /// KV-splitting kernel: arithmetic of as many of them as there are units, seconds.
    pub wave_split_s: f64,
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
            moved_bytes: count * self.moved_bytes,
            split_s: count * self.split_s,
            tile_s: count * self.tile_s,
            whole_s: count * self.whole_s,
            filled: count * self.filled,
            long: LongLoad { tiles: count * self.long.tiles, ..self.long },
            ..*self
        }
    }

    /// Adds another load of the same batch; waves are left to the batch.
    pub fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.flops += other.flops;
        self.bytes += other.bytes;
        self.moved_bytes += other.moved_bytes;
        self.split_s += other.split_s;
        self.tile_s += other.tile_s;
        self.whole_s += other.whole_s;
        self.filled += other.filled;
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
    /// The KV-splitting one alone: devices without a number of compute units.
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
    /// Soft maximum of memory time and the units' time: see [`Kernel`].
    pub(super) overlap: f64,
    /// What all KV heads of a request cost besides arithmetic, spread over all units.
    heads_s: f64,
    /// Time in which all units work through a byte with the rows of one new token.
    row_seconds_per_byte: f64,
    prepare_seconds_per_element: f64,
    crowd_s: f64,
    requests_to_crowd: f64,
    /// KV-splitting kernel: seconds per FLOP of all units.
    pub(super) split_seconds_per_flop: f64,
    /// One tile of rows: seconds per FLOP of all units, exponentials included. Infinite where rows are never tiled.
    tile_seconds_per_flop: f64,
    /// Rows of a KV head in whole tiles, which some kernels pack; infinite for others.
    split_tile_seconds_per_flop: f64,
    expansion_seconds_per_flop: f64,
    stream_seconds_per_byte: f64,
    /// Fixed time of a pass by packed rows.
    pass_t0_s: f64,
    tile_t0_s: f64,
    tile_start: f64,
    tile_spread: f64,
    tile_last: f64,
    /// Time in which the last tiles are written, once tiles fill the machine.
    pub(super) tile_end_s: f64,
    prefix_tile_s: f64,
    /// Share by which blocks take longer in one launch over prefix and new tokens, if there is such a kernel.
    prefix_excess: Option<f64>,
    /// The same of the longest tile; 0 without such a kernel.
    longest_excess: f64,
    /// What two launches and their merging add to the longest tile.
    longest_merge_s: f64,
    block_s: f64,
    tiles_to_units: f64,
    units: f64,
    split_t0_s: f64,
    split_c_s: f64,
    split_rows_s: f64,
}

/// Times of one kernel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kernel {
    /// Time of the units.
    pub compute_s: f64,
    /// Time of the memory.
    pub memory_s: f64,
    /// Time of units that memory time hides in part: to stream keys, and the arithmetic of packed rows.
    pub stream_s: f64,
    /// Soft maximum of memory time x and that time y: `max(x, y, overlap (x + y))`.
    pub overlap: f64,
    /// Time in which nothing else happens.
    pub overhead_s: f64,
}

impl Kernel {
    #[inline(always)]
    fn time_s(&self) -> f64 {
        let hard_s = larger(self.compute_s, self.memory_s);
        self.overhead_s + larger(hard_s, self.overlap * (self.memory_s + self.stream_s))
    }

    /// The faster of two.
    #[inline(always)]
    pub(super) fn or(self, other: Self) -> Self {
        if self.time_s() < other.time_s() { self } else { other }
    }
}

impl KernelLaw {
    /// The bare roofline: no kernels.
    fn roofline(machine: &Machine<'_>, shape: &AttentionShape) -> Result<Self> {
        let seconds_per_flop = machine.seconds_per_flop(shape.dtype)?;
        Ok(Self {
            kernels: Kernels::Roofline,
            fixed_bytes: shape.fixed_bytes as f64,
            seconds_per_flop,
            seconds_per_byte: machine.seconds_per_byte,
            memory_seconds_per_byte: machine.seconds_per_byte,
            first_block_s: 0.0,
            overlap: 0.5,
            heads_s: 0.0,
            row_seconds_per_byte: 0.0,
            prepare_seconds_per_element: 0.0,
            crowd_s: 0.0,
            requests_to_crowd: 0.0,
            split_seconds_per_flop: seconds_per_flop,
            tile_seconds_per_flop: f64::INFINITY,
            split_tile_seconds_per_flop: f64::INFINITY,
            expansion_seconds_per_flop: seconds_per_flop,
            stream_seconds_per_byte: 0.0,
            pass_t0_s: 0.0,
            tile_t0_s: 0.0,
            tile_start: 0.0,
            tile_spread: 0.0,
            tile_last: 0.0,
            tile_end_s: 0.0,
            prefix_tile_s: 0.0,
            prefix_excess: None,
            longest_excess: 0.0,
            longest_merge_s: 0.0,
            block_s: 0.0,
            tiles_to_units: 0.0,
            units: 1.0,
            split_t0_s: 0.0,
            split_c_s: 0.0,
            split_rows_s: 0.0,
        })
    }

    #[expect(clippy::too_many_lines, reason = "one line for each constant")]
    pub(super) fn new(machine: &Machine<'_>, shape: &AttentionShape) -> Result<Self> {
        let roofline = Self::roofline(machine, shape)?;
        let seconds_per_flop = roofline.seconds_per_flop;
        let calibration = machine.calibration;
        let law = match shape.latent {
            Some(_) => calibration.latent_attention_law(shape.dtype, shape.kv_format),
            None => calibration.attention_law(shape.dtype, shape.kv_format),
        };
        let AttentionLaw::Kernels {
            e_m,
            stream_bytes_per_s,
            crowd_s,
            crowd_heads,
            head_s,
            overlap,
            pass_t0_s,
            ungrouped_t0_s,
            ungrouped_e_m,
            ungrouped_head_s,
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
            prefix_excess,
            prepare_bytes,
            split_tiles,
            latent_e_c,
            latent_t0_s,
        } = law
        else {
            return Ok(roofline);
        };
        // One query head a KV head: another kernel.
        let own =
            |ungrouped: Option<f64>, other: f64| if shape.is_ungrouped() { ungrouped.unwrap_or(other) } else { other };
        let (e_m, pass_t0_s) = (own(ungrouped_e_m, e_m), own(ungrouped_t0_s, pass_t0_s));
        let head_s = if shape.latent.is_some() { 0.0 } else { own(ungrouped_head_s, head_s) };
        let units = machine.compute_units();
        let tiled = units.is_some();
        let (split_e_c, own_t0_s) = if shape.latent.is_some() { (latent_e_c, latent_t0_s) } else { (split_e_c, 0.0) };
        let crowded = if units.is_some() { crowd_s * shape.relative_width().sqrt() } else { 0.0 };
        let heads_s = head_s * shape.relative_width().sqrt() * shape.streamed_heads();
        let heads_s = units.map_or(0.0, |units| heads_s / units);
        let units = units.unwrap_or(1.0);
        let stream_seconds_per_byte = 1.0 / stream_bytes_per_s;
        // Products and exponentials of a block overlap in part.
        let product_s = shape.block_flops() * units * (seconds_per_flop / tile_e_c);
        let softmax_s = AttentionShape::block_exponentials() / tile_exp_per_s;
        let block_s = larger((product_s * product_s + softmax_s * softmax_s).sqrt(), product_s);
        let block_s = larger(block_s / machine.compute_rate, block_s);
        // So do those of packed rows; latent attention's are in its own efficiency.
        // Where one launch of tiles serves every request, packed rows stream no slower than a tile of theirs would.
        let one_launch = tiled && prefix_excess.is_some();
        let tile_seconds_per_byte = block_s / (AttentionShape::block_keys() * shape.head_bytes());
        let stream_seconds_per_byte =
            if one_launch { smaller(stream_seconds_per_byte, tile_seconds_per_byte) } else { stream_seconds_per_byte };
        let split_product_s = seconds_per_flop / split_e_c;
        let exponential = if tiled && shape.latent.is_none() { softmax_s / (units * shape.block_flops()) } else { 0.0 };
        let split_s = larger((split_product_s * split_product_s + exponential * exponential).sqrt(), split_product_s);
        let split_seconds_per_flop = larger(split_s / machine.compute_rate, split_s);
        let tile_seconds_per_flop =
            if tiled && shape.latent.is_none() { block_s / (shape.block_flops() * units) } else { f64::INFINITY };
        Ok(Self {
            kernels: if tiled { Kernels::PassAndSplit } else { Kernels::Split },
            memory_seconds_per_byte: machine.seconds_per_byte / (e_m * machine.memory_rate),
            first_block_s: AttentionShape::block_keys() * shape.head_bytes() * stream_seconds_per_byte,
            overlap,
            heads_s,
            row_seconds_per_byte: if tiled { shape.row_flops_per_byte() * split_seconds_per_flop } else { 0.0 },
            prepare_seconds_per_element: prepare_bytes * machine.seconds_per_byte,
            crowd_s: crowded,
            requests_to_crowd: shape.streamed_heads() / (crowd_heads * units),
            split_seconds_per_flop,
            tile_seconds_per_flop,
            split_tile_seconds_per_flop: if split_tiles > 0.0 {
                tile_seconds_per_flop / split_tiles
            } else {
                f64::INFINITY
            },
            expansion_seconds_per_flop: seconds_per_flop / (tile_e_c * machine.compute_rate),
            stream_seconds_per_byte,
            pass_t0_s: pass_t0_s + own_t0_s,
            tile_t0_s: larger(tile_t0_s, pass_t0_s) + own_t0_s,
            tile_start,
            tile_spread,
            tile_last,
            prefix_tile_s: prefix_tile_s * shape.relative_width(),
            prefix_excess,
            longest_excess: prefix_excess.unwrap_or(0.0),
            longest_merge_s: prefix_tile_s * shape.relative_width() + larger(tile_t0_s, pass_t0_s),
            tile_end_s: tile_end * block_s,
            block_s,
            tiles_to_units: 1.0 / units,
            units,
            split_t0_s: pass_t0_s + own_t0_s + split_t0_s,
            split_c_s,
            split_rows_s: split_rows_s * shape.relative_width(),
            ..roofline
        })
    }

    /// The load of one request.
    pub fn load(&self, counts: &Counts) -> Load {
        let mut split_s = if counts.is_packed {
            self.packed_s(counts.rows.flops, counts)
        } else {
            self.split_s(&counts.rows, counts.prepared_elements)
        };
        if self.kernels == Kernels::Split && counts.expanded_flops > 0.0 {
            split_s = smaller(split_s, counts.expanded_flops * self.expansion_seconds_per_flop);
        }
        let pass = if counts.is_packed {
            let stream_s = self.stream_s(counts);
            Load {
                tile_s: split_s,
                whole_s: split_s,
                longest_s: stream_s,
                stream_s,
                pass_overhead_s: self.pass_t0_s,
                ..Load::default()
            }
        } else {
            self.tiled(counts)
        };
        Load {
            requests: 1.0,
            flops: counts.flops,
            bytes: counts.bytes,
            moved_bytes: if self.kernels == Kernels::Split { counts.bytes } else { counts.moved_bytes },
            split_s,
            split_overhead_s: self.split_t0_s
                + self.split_c_s * counts.root_context
                + self.split_rows_s * counts.row_share,
            ..pass
        }
    }

    /// Time of the KV-splitting kernel's arithmetic and of preparing its queries, spread over all units.
    pub(super) fn split_s(&self, rows: &PackedRows, prepared_elements: f64) -> f64 {
        self.split_arithmetic_s(rows) + self.heads_s + prepared_elements * self.prepare_seconds_per_element
    }

    /// Some kernels pack more rows of a KV head than one pass takes into whole tiles, behind cached keys: the new tokens
    /// alone are never cheaper by that than tiles of their queries.
    fn split_arithmetic_s(&self, rows: &PackedRows) -> f64 {
        let tiles_s = larger(rows.flops, rows.one_tile_flops) * self.split_tile_seconds_per_flop;
        smaller(rows.flops * self.split_seconds_per_flop, larger(tiles_s, self.blocks_s(&rows.own)))
    }

    /// Time of the blocks of query tiles, spread over all units.
    fn blocks_s(&self, tiles: &Tiles) -> f64 {
        (tiles.blocks + self.tile_start * tiles.count) * self.block_s * self.tiles_to_units
    }

    /// Time of the arithmetic of packed rows, spread over all units: never more than that of a whole tile of rows, so
    /// that a kernel which one row keeps busy does not price many rows at many times that.
    fn packed_s(&self, flops: f64, counts: &Counts) -> f64 {
        let arithmetic_s = flops * self.split_seconds_per_flop;
        self.heads_s + smaller(arithmetic_s, counts.rows.one_tile_flops * self.tile_seconds_per_flop)
    }

    /// Time to stream the keys of one KV head through one unit.
    fn stream_s(&self, counts: &Counts) -> f64 {
        counts.head_bytes * self.stream_seconds_per_byte
    }

    /// The fields of a request whose queries are tiled.
    pub(super) fn tiled(&self, counts: &Counts) -> Load {
        let stream_s = self.stream_s(counts);
        let longest_s = (counts.longest_blocks + self.tile_start) * self.block_s;
        let prepare_s = (counts.prepared_elements + counts.written_elements) * self.prepare_seconds_per_element;
        let before_s = counts.expansion_flops * self.expansion_seconds_per_flop + prepare_s;
        let packed_s = self.packed_s(counts.packed_limit_flops, counts);
        // Never cheaper than the most rows that are packed, so that one more row never helps.
        let whole_s = larger(self.blocks_s(&counts.whole) + before_s, packed_s);
        // Behind a prefix two launches are merged, or one has slower blocks; where that costs more than the whole context
        // from its beginning, the latter counts: so that one more new token of the same context never helps.
        let behind_s = if counts.has_prefix {
            let blocks_s = self.blocks_s(&counts.tiles);
            let merged_s = counts.tiles.count * self.prefix_tile_s * self.tiles_to_units;
            let more_s = self.prefix_excess.map_or(merged_s, |share| smaller(share * blocks_s, merged_s));
            larger(blocks_s + more_s + before_s, packed_s)
        } else {
            whole_s
        };
        let tail_s = |spread: f64| self.tile_spread * (spread * self.block_s) + self.tile_last * longest_s;
        // What it costs more shows in the tail, which the whole context has too.
        let excess_s = self.prefix_excess.map_or(0.0, |_| larger(behind_s - whole_s, 0.0));
        let split_s = self.split_arithmetic_s(&counts.rows);
        Load {
            tile_s: smaller(behind_s, whole_s),
            whole_s,
            filled: counts.tiles.count * self.tiles_to_units,
            longest_s: larger(longest_s, stream_s),
            stream_s,
            long: LongLoad {
                tiles: counts.long.count,
                tile_s: (counts.long.blocks + self.tile_start) * self.block_s,
                wave_split_s: split_s * self.units / counts.long.count,
            },
            tail_s: smaller(tail_s(counts.spread_blocks) + excess_s, tail_s(counts.longest_blocks - 1.0)),
            pass_overhead_s: self.tile_t0_s,
            ..Load::default()
        }
    }

    #[inline(always)]
    pub(super) fn memory_s(&self, load: &Load) -> f64 {
        (self.fixed_bytes + load.moved_bytes) * self.memory_seconds_per_byte
    }

    /// Time of the units for the rows of one new token a request, which memory time hides in part: of every KV head, and
    /// of every byte.
    #[inline(always)]
    pub(super) fn heads_s(&self, load: &Load) -> f64 {
        load.requests * self.heads_s + load.moved_bytes * self.row_seconds_per_byte
    }

    /// What more KV heads at once than the machine has units cost every launch: at most `crowd_s`.
    #[inline(always)]
    pub(super) fn crowding_s(&self, load: &Load) -> f64 {
        // Written so that rounding keeps it monotone.
        self.crowd_s * (1.0 - 1.0 / (1.0 + load.requests * self.requests_to_crowd))
    }

    /// Tiles that take at least so long each, in waves: of `tiles` on `units` some unit gets `ceil(tiles/units)`, unless
    /// it is faster to split the KV axis of those in the last wave. Therefore two batches never lose by merging.
    #[inline(always)]
    pub(super) fn waves_s(&self, long: &LongLoad, split_overhead_s: f64) -> f64 {
        let waves = long.tiles / self.units;
        let whole = waves.ceil() - 1.0;
        whole * long.tile_s + smaller(long.tile_s, split_overhead_s + (waves - whole) * long.wave_split_s)
    }

    /// Time of packed rows or of tiles: the mean load of a unit, plus the tail once tiles queue, and never under the
    /// longest tile or the waves of long ones.
    #[inline(always)]
    fn tiles_s(&self, load: &Load) -> f64 {
        let queued_s = load.tile_s + load.tail_s * smaller(load.filled, 1.0);
        let waves_s = self.waves_s(&load.long, load.split_overhead_s);
        larger(queued_s, larger(self.longest_tile_s(load.longest_s, load.whole_s), waves_s))
    }

    /// The longest tile behind a cached prefix: slower blocks or the merging of two launches make it longer, up to the
    /// time of the whole contexts without one. That time does not depend on the new tokens, and whole prompts take it anyway.
    #[inline(always)]
    pub(super) fn longest_tile_s(&self, longest_s: f64, whole_s: f64) -> f64 {
        let longer_s = longest_s + smaller(self.longest_excess * longest_s, self.longest_merge_s);
        larger(longest_s, smaller(longer_s, whole_s))
    }

    #[inline(always)]
    pub(super) fn pass_kernel(&self, load: &Load) -> Kernel {
        Kernel {
            compute_s: self.tiles_s(load),
            memory_s: self.memory_s(load),
            stream_s: larger(load.stream_s, self.heads_s(load)),
            overlap: self.overlap,
            overhead_s: self.crowding_s(load) + load.pass_overhead_s + self.tile_end_s * smaller(load.filled, 1.0),
        }
    }

    /// The KV-splitting kernel, whose arithmetic takes `compute_s`.
    #[inline(always)]
    fn split_kernel(&self, load: &Load, compute_s: f64) -> Kernel {
        Kernel {
            compute_s: larger(compute_s, self.first_block_s),
            memory_s: self.memory_s(load),
            stream_s: larger(self.first_block_s, self.heads_s(load)),
            overlap: self.overlap,
            overhead_s: self.crowding_s(load) + load.split_overhead_s,
        }
    }

    /// Time of all bytes under the bare roofline: new entries that a kernel leaves to another one are written too.
    #[inline(always)]
    fn least_s(&self, load: &Load) -> f64 {
        (self.fixed_bytes + load.bytes) * self.seconds_per_byte
    }

    /// Time under the bare roofline.
    #[inline(always)]
    pub fn roofline_time_s(&self, load: &Load) -> f64 {
        larger(load.flops * self.seconds_per_flop, self.least_s(load))
    }

    /// Time with the KV-splitting kernel alone.
    #[inline(always)]
    pub fn split_time_s(&self, load: &Load) -> f64 {
        self.split_kernel(load, load.split_s).time_s()
    }

    /// Time with the faster of both kernels where all rows are packed: what [`Self::fastest_time_s`] says then, bit for
    /// bit, of fewer parts of the load.
    #[inline(always)]
    pub fn packed_time_s(&self, load: &Load) -> f64 {
        smaller(self.packed_pass_kernel(load).time_s(), self.split_time_s(load))
    }

    /// One pass by packed rows.
    #[inline(always)]
    fn packed_pass_kernel(&self, load: &Load) -> Kernel {
        Kernel {
            compute_s: larger(load.split_s, load.stream_s),
            memory_s: self.memory_s(load),
            stream_s: larger(load.stream_s, self.heads_s(load)),
            overlap: self.overlap,
            overhead_s: self.crowding_s(load) + self.pass_t0_s,
        }
    }

    /// What [`Self::parts_s`] says with both kernels where all rows are packed, bit for bit, of fewer parts of the load.
    #[inline(always)]
    pub fn packed_parts_s(&self, load: &Load) -> [f64; 3] {
        let kernel = self.packed_pass_kernel(load).or(self.split_kernel(load, load.split_s));
        [kernel.compute_s, larger(kernel.memory_s, self.least_s(load)), kernel.overhead_s]
    }

    /// Time with the faster of both kernels.
    #[inline(always)]
    pub fn fastest_time_s(&self, load: &Load) -> f64 {
        let pass = self.pass_kernel(load);
        let split = self.split_kernel(load, smaller(load.split_s, pass.compute_s));
        larger(smaller(pass.time_s(), split.time_s()), self.least_s(load))
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

    /// Compute, memory and overhead time of a load: what its cost has of them.
    #[inline(always)]
    pub fn parts_s(&self, load: &Load) -> [f64; 3] {
        let kernel = self.kernel(load);
        [kernel.compute_s, larger(kernel.memory_s, self.least_s(load)), kernel.overhead_s]
    }

    /// The kernel that serves a load.
    #[inline(always)]
    pub(super) fn kernel(&self, load: &Load) -> Kernel {
        match self.kernels {
            Kernels::Roofline => Kernel {
                compute_s: load.flops * self.seconds_per_flop,
                memory_s: self.least_s(load),
                stream_s: 0.0,
                overlap: self.overlap,
                overhead_s: 0.0,
            },
            Kernels::Split => self.split_kernel(load, load.split_s),
            Kernels::PassAndSplit => {
                let pass = self.pass_kernel(load);
                // Parts of the KV axis may be attended by tiles too.
                pass.or(self.split_kernel(load, smaller(load.split_s, pass.compute_s)))
            }
        }
    }

    /// Cost of a load under a kernel, without its interval.
    pub(super) fn cost(&self, load: &Load, kernel: &Kernel) -> OpCost {
        let least_s = self.least_s(load);
        let peak_compute_s = load.flops * self.seconds_per_flop;
        OpCost {
            time_s: larger(kernel.time_s(), least_s),
            ideal_s: larger(peak_compute_s, least_s),
            compute_s: kernel.compute_s,
            memory_s: larger(kernel.memory_s, least_s),
            overhead_s: kernel.overhead_s,
            flops: load.flops,
            bytes: self.fixed_bytes + load.bytes,
            peak_compute_s,
            ..OpCost::default()
        }
    }
}
