//! Attention over a flat batch of requests.
//!
//! `shape` holds the exact integer counts of one request; this file holds the law that turns their sum into time.
//! The sum is the only thing the law sees, which is what lets a sweep evaluate it from tables, bit for bit.

mod shape;

pub use shape::{AttentionShape, Counts, LatentHeads, attended_pairs, keys_read};

use crate::calibration::{AttentionLaw, Interval};
use crate::error::Result;
use crate::roofline::{Machine, OpCost};
use crate::workload::{Batch, Request};

/// The counts of a whole batch as the law sees them.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Work {
    /// FLOPs.
    pub flops: f64,
    /// Bytes that depend on the requests.
    pub bytes: f64,
    /// FLOPs of the KV-splitting kernel, whose query rows are padded to its tile.
    pub split_flops: f64,
    /// Key blocks of all query tiles.
    pub blocks: f64,
    /// Query tiles.
    pub tiles: f64,
    /// Key blocks of the longest query tile.
    pub longest_blocks: f64,
    /// Square root of the longest context that is kept.
    pub root_context: f64,
}

/// A compiled attention operation on one rank.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionOp {
    /// Its shape.
    pub shape: AttentionShape,
    fixed_bytes: f64,
    seconds_per_flop: f64,
    seconds_per_byte: f64,
    law: Resolved,
    interval: Interval,
}

/// The law with the machine's rates folded in.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Resolved {
    roofline: bool,
    tiled: bool,
    memory_seconds_per_byte: f64,
    tile_t0_s: f64,
    tile_tau_s: f64,
    tile_tail: f64,
    block_s: f64,
    per_unit: f64,
    split_t0_s: f64,
    split_seconds_per_flop: f64,
    split_c_s: f64,
}

impl AttentionOp {
    /// Compiles a shape.
    pub fn new(machine: &Machine<'_>, shape: AttentionShape) -> Result<Self> {
        let seconds_per_flop = machine.seconds_per_flop(shape.dtype)?;
        let law = Resolved::new(machine, &shape, seconds_per_flop);
        Ok(Self {
            fixed_bytes: shape.fixed_bytes as f64,
            seconds_per_flop,
            seconds_per_byte: machine.seconds_per_byte,
            law,
            interval: machine.calibration.intervals.attention,
            shape,
        })
    }

    /// The counts of `count` equal requests. Products of exact integers: the same bits as summing them one by one.
    #[inline]
    pub fn uniform_work(&self, count: f64, one: &Counts) -> Work {
        Work {
            flops: count * one.flops,
            bytes: count * one.bytes,
            split_flops: count * one.split_flops,
            blocks: count * one.blocks,
            tiles: count * one.tiles,
            longest_blocks: one.longest_blocks,
            root_context: one.root_context,
        }
    }

    /// The counts of a flat batch.
    pub fn work(&self, batch: &Batch) -> Work {
        let mut runs = batch.runs().iter();
        let Some(&(count, request)) = runs.next() else { return Work::default() };
        let mut work = self.uniform_work(count as f64, &self.shape.counts(request));
        for &(count, request) in runs {
            let more = self.uniform_work(count as f64, &self.shape.counts(request));
            work = Work {
                flops: work.flops + more.flops,
                bytes: work.bytes + more.bytes,
                split_flops: work.split_flops + more.split_flops,
                blocks: work.blocks + more.blocks,
                tiles: work.tiles + more.tiles,
                longest_blocks: work.longest_blocks.max(more.longest_blocks),
                root_context: work.root_context.max(more.root_context),
            };
        }
        work
    }

    /// Time alone: the sweep's inner loop. Equals `cost(work).time_s` bit for bit.
    #[inline]
    pub fn time_s(&self, work: &Work) -> f64 {
        if self.law.roofline {
            let bytes = self.fixed_bytes + work.bytes;
            return (work.flops * self.seconds_per_flop).max(bytes * self.seconds_per_byte);
        }
        let [tile, split] = self.kernels(work);
        if self.law.tiled { tile.time_s().min(split.time_s()) } else { split.time_s() }
    }

    /// Cost of a batch.
    pub fn cost(&self, work: &Work) -> OpCost {
        let bytes = self.fixed_bytes + work.bytes;
        let peak_compute_s = work.flops * self.seconds_per_flop;
        let ideal_memory_s = bytes * self.seconds_per_byte;
        let kernel = if self.law.roofline {
            Kernel { compute_s: peak_compute_s, memory_s: ideal_memory_s, overhead_s: 0.0 }
        } else {
            let [tile, split] = self.kernels(work);
            if self.law.tiled && tile.time_s() < split.time_s() { tile } else { split }
        };
        OpCost {
            time_s: kernel.time_s(),
            ideal_s: peak_compute_s.max(ideal_memory_s),
            compute_s: kernel.compute_s,
            memory_s: kernel.memory_s,
            overhead_s: kernel.overhead_s,
            flops: work.flops,
            bytes,
            peak_compute_s,
            ..OpCost::default()
        }
        .with_interval(self.interval)
    }

    /// Cost of one request alone.
    pub fn request_cost(&self, count: u64, request: Request) -> OpCost {
        self.cost(&self.uniform_work(count as f64, &self.shape.counts(request)))
    }

    /// The query-tiled and the KV-splitting kernel.
    #[inline]
    fn kernels(&self, work: &Work) -> [Kernel; 2] {
        let law = &self.law;
        let memory_s = (self.fixed_bytes + work.bytes) * law.memory_seconds_per_byte;
        // Makespan of tiles handed to compute units as these fall free: the mean load, plus a share of the longest
        // tile once there are more tiles than units, and never under the longest tile itself.
        let total_s = (work.blocks * law.block_s + work.tiles * law.tile_tau_s) * law.per_unit;
        let longest_s = work.longest_blocks * law.block_s + law.tile_tau_s;
        let filled = (work.tiles * law.per_unit).min(1.0);
        let makespan_s = (total_s + law.tile_tail * longest_s * filled).max(longest_s);
        [
            Kernel { compute_s: makespan_s, memory_s, overhead_s: law.tile_t0_s },
            Kernel {
                compute_s: work.split_flops * law.split_seconds_per_flop,
                memory_s,
                overhead_s: law.split_t0_s + law.split_c_s * work.root_context,
            },
        ]
    }
}

#[derive(Debug, Clone, Copy)]
struct Kernel {
    compute_s: f64,
    memory_s: f64,
    overhead_s: f64,
}

impl Kernel {
    #[inline]
    fn time_s(&self) -> f64 {
        self.overhead_s + self.compute_s.max(self.memory_s)
    }
}

impl Resolved {
    fn new(machine: &Machine<'_>, shape: &AttentionShape, seconds_per_flop: f64) -> Self {
        let AttentionLaw::Kernels { tile_t0_s, tile_e_c, tile_tau_s, tile_tail, split_t0_s, split_e_c, split_c_s, e_m } =
            machine.calibration.attention
        else {
            return Self {
                roofline: true,
                tiled: false,
                memory_seconds_per_byte: machine.seconds_per_byte,
                tile_t0_s: 0.0,
                tile_tau_s: 0.0,
                tile_tail: 0.0,
                block_s: 0.0,
                per_unit: 0.0,
                split_t0_s: 0.0,
                split_seconds_per_flop: seconds_per_flop,
                split_c_s: 0.0,
            };
        };
        let units = machine.compute_units();
        let tile_seconds_per_flop = seconds_per_flop / (tile_e_c * machine.compute_rate);
        Self {
            roofline: false,
            // The makespan needs a number of units; latent attention has only the splitting kernel.
            tiled: units.is_some() && shape.has_query_tiles(),
            memory_seconds_per_byte: machine.seconds_per_byte / (e_m * machine.memory_rate),
            tile_t0_s,
            tile_tau_s,
            tile_tail,
            block_s: shape.block_flops() * tile_seconds_per_flop * units.unwrap_or(1.0),
            per_unit: 1.0 / units.unwrap_or(1.0),
            split_t0_s,
            split_seconds_per_flop: seconds_per_flop / (split_e_c * machine.compute_rate),
            split_c_s,
        }
    }
}
