//! Batches of unequal requests: one launch over all of them, as ragged kernels do it.
//!
//! Some requests split the KV axis, the others tile their queries, all share the units. Which ones is decided by two
//! limits, and the best pair of limits counts. A request beyond a limit never costs less than one at the limit, so that
//! no growth of a request helps; and a launch over equal requests is never faster than one of the two kernels alone, so
//! that only ragged batches need it.

use super::law::{Kernel, KernelLaw, Kernels, Load, LongLoad};
use super::shape::AttentionShape;
use crate::arithmetic::{larger, smaller};
use crate::workload::Request;

/// New tokens up to which a request is split.
const SHORT: [u64; 12] = [16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536];
/// Context tokens beyond which a request is split, however many tokens are new.
const LONG: [u64; 9] = [1024, 2048, 4096, 8192, 16_384, 32_768, 65_536, 131_072, u64::MAX];

/// Equal requests of a batch.
struct Run {
    request: Request,
    split_s: f64,
    /// For each limit of new tokens: what it costs to split as many rows as the limit over the same keys.
    short_s: Vec<f64>,
    /// For each limit of the context: the requests in tiles, cut off at the limit.
    tiled: Vec<Load>,
}

/// The limits worth trying: of those between the same two requests the least dear one.
struct Limits {
    short: Vec<u64>,
    long: Vec<u64>,
}

impl Limits {
    fn new(batch: &[(u64, Request)]) -> Self {
        let longer = || batch.iter().map(|(_, request)| request).filter(|request| request.query_tokens > SHORT[0]);
        let between = |low: u64, x: u64, high: u64| low < x && x <= high;
        let mut short = vec![SHORT[0]];
        for pair in SHORT.windows(2) {
            if longer().any(|request| between(pair[0], request.query_tokens, pair[1])) {
                short.push(pair[1]);
            }
        }
        let mut long = vec![LONG[0]];
        for pair in LONG.windows(2) {
            if longer().any(|request| between(pair[0], request.context_tokens, pair[1])) {
                long.push(pair[1]);
            }
        }
        Self { short, long }
    }
}

impl KernelLaw {
    /// The load of a batch of unequal requests, and the kernel that serves it fastest.
    pub(super) fn ragged(&self, shape: &AttentionShape, batch: &[(u64, Request)]) -> (Load, Kernel) {
        let limits = Limits::new(batch);
        let mut total = Load::default();
        let mut tiled = Vec::new();
        let mut runs = Vec::with_capacity(batch.len());
        for &(count, request) in batch {
            let load = self.load(&shape.counts(request)).times(count as f64);
            total.add(&load);
            if load.filled > 0.0 {
                tiled.push(load.long);
            }
            runs.push(self.run(shape, &limits, count as f64, request, load.split_s));
        }
        total.longest_s = larger(total.longest_s, self.most_waves_s(&mut tiled, total.split_overhead_s));
        let mut best = self.kernel(&total);
        if self.kernels == Kernels::PassAndSplit {
            for long in limits.long.iter().enumerate() {
                for short in limits.short.iter().enumerate() {
                    best = best.or(self.launch(&total, &runs, short, long));
                }
            }
        }
        (total, best)
    }

    fn run(&self, shape: &AttentionShape, limits: &Limits, count: f64, request: Request, split_s: f64) -> Run {
        let mut run = Run { request, split_s, short_s: Vec::new(), tiled: Vec::new() };
        if request.query_tokens > SHORT[0] {
            let short_s =
                |most: &u64| count * self.split_s(&shape.rows(*most, request), shape.prepared_elements(*most));
            run.short_s = limits.short.iter().map(short_s).collect();
            let tiled = |most: &u64| {
                let context_tokens = request.context_tokens.min(*most);
                let query_tokens = request.query_tokens.min(context_tokens);
                self.tiled(&shape.counts(Request { query_tokens, context_tokens })).times(count)
            };
            run.tiled = limits.long.iter().map(tiled).collect();
        }
        run
    }

    /// One launch with given limits.
    fn launch(&self, total: &Load, runs: &[Run], (j, short): (usize, &u64), (i, long): (usize, &u64)) -> Kernel {
        let mut load = Load { longest_s: self.first_block_s, stream_s: self.first_block_s, ..Load::default() };
        let mut waves = Vec::new();
        for run in runs {
            if run.request.query_tokens <= *short {
                load.tile_s += run.split_s;
                load.whole_s += run.split_s;
                continue;
            }
            let tiled = &run.tiled[i];
            let least_s = if run.request.context_tokens > *long { run.split_s } else { run.short_s[j] };
            let more_s = larger(least_s - tiled.tile_s, 0.0);
            load.tile_s += tiled.tile_s + more_s;
            load.whole_s += larger(tiled.whole_s, least_s);
            load.filled += tiled.filled;
            load.longest_s = larger(load.longest_s, tiled.longest_s);
            load.tail_s = larger(load.tail_s, tiled.tail_s - more_s);
            waves.push(tiled.long);
        }
        let filled = smaller(load.filled, 1.0);
        let queued_s = load.tile_s + load.tail_s * filled;
        let longest_s = self.longest_tile_s(load.longest_s, load.whole_s);
        Kernel {
            compute_s: larger(queued_s, larger(longest_s, self.most_waves_s(&mut waves, total.split_overhead_s))),
            memory_s: self.memory_s(total),
            stream_s: larger(load.stream_s, self.heads_s(total)),
            overlap: self.overlap,
            overhead_s: self.crowding_s(total)
                + larger(total.split_overhead_s, total.pass_overhead_s)
                + self.tile_end_s * filled,
        }
    }

    /// The longest waves of tiles: those as long as some request's have to hold all tiles that are no shorter. Sums of
    /// integers are exact, so that the order of requests cannot move a wave.
    fn most_waves_s(&self, runs: &mut [LongLoad], split_overhead_s: f64) -> f64 {
        runs.sort_unstable_by(|one, other| other.tile_s.total_cmp(&one.tile_s));
        let (mut most_s, mut tiles, mut split_s) = (0.0, 0.0, 0.0);
        for run in &*runs {
            tiles += run.tiles;
            split_s += run.tiles * run.wave_split_s;
            let long = LongLoad { tiles, tile_s: run.tile_s, wave_split_s: split_s / tiles };
            most_s = larger(most_s, self.waves_s(&long, split_overhead_s));
        }
        most_s
    }
}
