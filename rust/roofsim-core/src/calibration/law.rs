//! The laws that turn FLOPs and bytes into seconds, one per class of operation.
//!
//! Every law has the bare roofline as its ideal form and a calibrated form whose efficiencies are at most 1 and whose
//! overheads are at least 0, so that calibrated time is never below ideal time. Every calibrated form is monotone in
//! its operation's sizes. Symbols are those of `docs/`.

use serde::{Deserialize, Serialize};

use crate::arithmetic::larger;

/// Seconds a kernel takes before it does anything.
type Seconds = f64;

/// No kernel quantises an element with less traffic: a smaller constant is a fit's way of saying none.
const LEAST_QUANTISE_BYTES: f64 = 1.0;

/// GEMM of m x n x k.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "law", rename_all = "snake_case", deny_unknown_fields)]
pub enum GemmLaw {
    /// `max(F/P, bytes/W)`.
    Roofline,
    /// `t0 + ((F/(e_c P))^4 + (bytes/(e_m W))^4)^(1/4)`: for devices whose tile counts are unknown.
    Smooth {
        /// Fixed time.
        t0_s: Seconds,
        /// Compute efficiency.
        e_c: f64,
        /// Memory efficiency.
        e_m: f64,
    },
    /// The least over output tiles a x b and splits s of k of
    /// `((w step k/s)^4 + (bytes/(e_m W))^4)^(1/4) + w rows cols epilogue + [s>1] red`, plus `t0`. `w` counts waves of tiles, `step` is one tile's time per element of k: see `docs/gemm.md`.
    Tiled {
        /// Fixed time.
        t0_s: Seconds,
        /// Memory efficiency.
        e_m: f64,
        /// Matrix-unit efficiency inside a tile.
        e_c: f64,
        /// Operand bytes that one compute unit loads per second.
        load_bytes_per_s: f64,
        /// Time that 64 elements of k take in any tile, however small: latency of one stage of its pipeline.
        stage_s: Seconds,
        /// Time in which one compute unit writes a tile of 128 x 128 outputs.
        epilogue_s: Seconds,
        /// Time to reduce the partial sums of split-k.
        red_s: Seconds,
        /// Share of a partly filled last wave that is waited for: 0 where work is spread evenly, 1 for whole waves.
        tail: f64,
        /// Fixed time of quantising the activations, where the library times it too; no step has it.
        #[serde(default)]
        quantise_s: Seconds,
        /// Bytes that quantising one activation element moves, likewise.
        #[serde(default)]
        quantise_bytes: f64,
    },
}

impl GemmLaw {
    /// Whether the times it was fitted to include a kernel that quantises the activations.
    pub fn counts_quantising(self) -> bool {
        matches!(self, Self::Tiled { quantise_bytes, .. } if quantise_bytes >= LEAST_QUANTISE_BYTES)
    }
}

/// Attention over a flat batch.
#[expect(clippy::large_enum_variant, reason = "copied once an operation; the law is a plain value")]
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "law", rename_all = "snake_case", deny_unknown_fields)]
pub enum AttentionLaw {
    /// `max(F/P, bytes/W)`.
    Roofline,
    /// The faster of two kernels: one pass over the keys, by packed rows or by query tiles, and one that splits the KV
    /// axis. See `docs/attention.md`.
    Kernels {
        /// Memory efficiency of all kernels.
        e_m: f64,
        /// Bytes of keys and values that one compute unit streams per second.
        stream_bytes_per_s: f64,
        /// Time that a launch over very many KV heads of width 128 takes more than one over few.
        crowd_s: Seconds,
        /// KV heads per compute unit at which half of `crowd_s` is reached.
        crowd_heads: f64,
        /// Time that a compute unit spends on each KV head of width 128 besides its arithmetic.
        #[serde(default)]
        head_s: Seconds,
        /// Share of the sum of memory time and the units' time that a launch takes at least.
        #[serde(default = "overlap")]
        overlap: f64,
        /// Fixed time of a pass by packed rows, and of every launch.
        pass_t0_s: Seconds,
        /// The same where every KV head serves one query head, which engines run by another kernel.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ungrouped_t0_s: Option<Seconds>,
        /// Memory efficiency there.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ungrouped_e_m: Option<f64>,
        /// `head_s` there.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ungrouped_head_s: Option<Seconds>,
        /// Time that combining the parts of a split KV axis adds.
        split_t0_s: Seconds,
        /// Split KV axis: seconds per square root of the longest context, at a head width of 128.
        split_c_s: Seconds,
        /// Split KV axis: time to combine the parts of tiles of 128 rows of width 128.
        split_rows_s: Seconds,
        /// Split KV axis: compute efficiency.
        split_e_c: f64,
        /// Query tiles: fixed time, where longer than `pass_t0_s`.
        tile_t0_s: Seconds,
        /// Query tiles: efficiency of the products of a block of 128 queries by 128 keys.
        tile_e_c: f64,
        /// Query tiles: exponentials that one compute unit evaluates per second.
        tile_exp_per_s: f64,
        /// Query tiles: blocks that the start and end of a tile are worth.
        tile_start: f64,
        /// Query tiles: share of the difference of longest and shortest tile that shows at the end of the makespan.
        tile_spread: f64,
        /// Query tiles: share of the longest tile that shows there.
        tile_last: f64,
        /// Query tiles: blocks that the launch's last tiles take to be written, once tiles fill the machine.
        tile_end: f64,
        /// Query tiles behind a cached prefix: time of one compute unit to merge a tile of width 128 with its prefix.
        prefix_tile_s: Seconds,
        /// The same, in one launch that merges nothing: share by which its blocks take longer. Absent where the library
        /// always merges.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        prefix_excess: Option<f64>,
        /// Rate of a KV head's packed rows beyond one pass, in whole tiles, over that of query tiles; 0: never packed.
        #[serde(default)]
        split_tiles: f64,
        /// Query tiles: bytes per element of the new queries, keys and values that a kernel before it moves, which
        /// rotates and stores them, where the library counts it in.
        #[serde(default)]
        prepare_bytes: f64,
        /// Latent attention, absorbed form: compute efficiency.
        #[serde(default = "latent_e_c")]
        latent_e_c: f64,
        /// Latent attention: fixed time of every launch beyond that of other attention.
        #[serde(default = "latent_t0_s")]
        latent_t0_s: Seconds,
    },
}

impl AttentionLaw {
    /// Whether the kernels that it describes rotate queries and keys too.
    pub fn rotates(&self) -> bool {
        matches!(self, Self::Kernels { prepare_bytes, .. } if *prepare_bytes > 0.0)
    }
}

/// At 1 memory and units would not overlap at all, at 1/2 perfectly; between, the best value of torch's kernels is flat.
const fn overlap() -> f64 {
    0.8
}

/// Where a calibration does not say: SGLang's kernel on Hopper, from published tables.
const fn latent_e_c() -> f64 {
    0.55
}

/// As [`latent_e_c`].
const fn latent_t0_s() -> Seconds {
    9e-6
}

/// Grouped GEMM over the experts that a batch hits.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "law", rename_all = "snake_case", deny_unknown_fields)]
pub enum GroupedGemmLaw {
    /// `max(F/P, bytes/W)`.
    Roofline,
    /// `t0 + sqrt(x^2 + y^2 + 2 exposed x y)`, x the arithmetic against `e_c P`, y the bytes against `e_m W`: for devices
    /// whose tiles are unknown.
    Smooth {
        /// Fixed time.
        t0_s: Seconds,
        /// Memory efficiency.
        e_m: f64,
        /// Compute efficiency.
        e_c: f64,
        /// How little arithmetic and memory traffic hide each other: 1 where they add up.
        exposed: f64,
    },
    /// The faster of two kernels, each the least over its output tiles of `sqrt(x^2 + y^2 + 2 exposed x y) + w rows cols
    /// epilogue`, plus `t0`, of the times of the tiles in whole waves and of the bytes against `e_m W`. The light kernel
    /// starts a program a tile, the wide one keeps its units busy with large tiles: see `docs/moe.md`.
    Tiled {
        /// Fixed time.
        t0_s: Seconds,
        /// Memory efficiency.
        e_m: f64,
        /// Wide kernel: matrix-unit efficiency inside a tile of operands of 16 bits and more.
        e_c: f64,
        /// The same for narrower operands.
        e_c_narrow: f64,
        /// Light kernel: matrix-unit efficiency inside a tile.
        e_c_light: f64,
        /// Wide kernel: time that it takes to start more than the light one.
        wide_t0_s: Seconds,
        /// Time that 64 elements of k take in any tile, however small.
        stage_s: Seconds,
        /// Time in which one compute unit writes a tile of 128 x 128 outputs.
        epilogue_s: Seconds,
        /// How little arithmetic and memory traffic hide each other: 1 where they add up.
        exposed: f64,
    },
}

/// Element-wise and normalisation kernels.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "law", rename_all = "snake_case", deny_unknown_fields)]
pub enum ElementwiseLaw {
    /// `bytes/W`.
    Roofline,
    /// `launch + bytes/(e_m W)`, plus `reduce` for every 4096 elements of a row that is reduced (a norm).
    Launched {
        /// Time of one kernel inside a captured graph.
        launch_s: Seconds,
        /// Memory efficiency.
        e_m: f64,
        /// Time in which a row of 4096 elements is reduced; every row waits for its own sum, however few there are.
        #[serde(default)]
        reduce_s: Seconds,
    },
}

/// Collectives over a link.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "law", rename_all = "snake_case", deny_unknown_fields)]
pub enum CollectiveLaw {
    /// `hops latency + wire bytes / link`.
    Roofline,
    /// `t0 + hops (latency + hop) + wire bytes / (e link)`.
    AlphaBeta {
        /// Fixed time.
        t0_s: Seconds,
        /// Time of one hop beyond the link's own latency.
        hop_s: Seconds,
        /// Link efficiency.
        e_link: f64,
    },
    /// `t0 + graph + hops (latency + hop) + v + sqrt(pipe v)`, v = `(share + own/N) s / (e link)`: pipelined by the best size of
    /// chunk. Inside a node rings; where the scale-up link has a switch that reduces, an all-reduce may go through it.
    Pipelined {
        /// Fixed time.
        t0_s: Seconds,
        /// Time of one hop beyond the link's own latency.
        hop_s: Seconds,
        /// Link efficiency.
        e_link: f64,
        /// Weight of the rank's own part of the buffer, which it copies but does not send.
        own: f64,
        /// What chunks cost: time at which filling the pipeline takes as long as the transfer.
        pipe_s: Seconds,
        /// Link efficiency of a buffer reduced inside the switch; 0 where the switch does not reduce.
        e_switch: f64,
        /// Time of a call replayed from a captured graph beyond one of the library's own loop, whose launches overlap.
        #[serde(default)]
        graph_s: Seconds,
    },
}

/// An engine's own all-reduce among the devices of a node: one kernel that reads its peers' buffers.
///
/// The least of one shot, `t0 + (N-1) hop + (N-1) s / (e link)`, and two, `sync` more and `2 (N-1)/N s / (e link)`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectAllReduceLaw {
    /// Fixed time.
    pub t0_s: Seconds,
    /// Time of each peer.
    pub hop_s: Seconds,
    /// Link efficiency.
    pub e_link: f64,
    /// Time of the second meeting of all ranks.
    pub sync_s: Seconds,
}

/// What operations do inside a step that they do not do alone. A step is the sum of its operations at these rates.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepLaw {
    /// Compute rate inside a short step over that of kernels alone.
    pub compute_rate: f64,
    /// Memory rate inside a step over that of kernels alone.
    pub memory_rate: f64,
    /// Share of its arithmetic that a very long step takes more, since the clock falls under load.
    pub slowdown: f64,
    /// Arithmetic of a step, in seconds at the datasheet peak, at which half of `slowdown` is reached.
    pub slowdown_s: Seconds,
    /// Time to sort the tokens of a batch by expert, once in each layer of experts.
    pub dispatch_s: Seconds,
    /// Compute rate of steps that follow one another without a pause, at the power limit, over that of kernels alone.
    pub sustained_compute: f64,
}

impl StepLaw {
    /// A plain sum.
    pub const IDEAL: Self = Self {
        compute_rate: 1.0,
        memory_rate: 1.0,
        slowdown: 0.0,
        slowdown_s: 1.0,
        dispatch_s: 0.0,
        sustained_compute: 1.0,
    };

    /// The law of steps that follow one another without a pause.
    #[must_use]
    pub fn sustained(self) -> Self {
        Self { compute_rate: self.sustained_compute, slowdown: 0.0, ..self }
    }
}

/// `(x^4 + y^4)^(1/4)` for x, y >= 0, without a power function: powers by multiplication, roots by square roots.
///
/// Never under its larger argument, whatever the rounding. Seconds between 1e-70 and 1e70 neither vanish nor overflow.
#[inline(always)]
pub fn norm4(x: f64, y: f64) -> f64 {
    let (x2, y2) = (x * x, y * y);
    larger((x2 * x2 + y2 * y2).sqrt().sqrt(), larger(x, y))
}
