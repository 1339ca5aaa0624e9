//! Loads of attention over a region: the least and the most that any request of it asks for.
//!
//! Every count of a request grows with its query tokens, and with its context too unless keys are cut in chunks. There
//! the pairs and the keys repeat with the chunk: they turn only where the first new row, or the last, meets a boundary.

use crate::model::Span;
use crate::ops::attention::LongLoad;
use crate::ops::{AttentionOp, Load};
use crate::workload::Request;

/// Part by part, the smaller or the larger.
fn each(a: &Load, b: &Load, pick: fn(f64, f64) -> f64) -> Load {
    // Without `..`: a part that is added to `Load` must be added here.
    let Load {
        requests,
        flops,
        bytes,
        moved_bytes,
        split_s,
        tile_s,
        whole_s,
        filled,
        longest_s,
        long,
        tail_s,
        stream_s,
        pass_overhead_s,
        split_overhead_s,
    } = *a;
    Load {
        requests: pick(requests, b.requests),
        flops: pick(flops, b.flops),
        bytes: pick(bytes, b.bytes),
        moved_bytes: pick(moved_bytes, b.moved_bytes),
        split_s: pick(split_s, b.split_s),
        tile_s: pick(tile_s, b.tile_s),
        whole_s: pick(whole_s, b.whole_s),
        filled: pick(filled, b.filled),
        longest_s: pick(longest_s, b.longest_s),
        long: LongLoad {
            tiles: pick(long.tiles, b.long.tiles),
            tile_s: pick(long.tile_s, b.long.tile_s),
            wave_split_s: pick(long.wave_split_s, b.long.wave_split_s),
        },
        tail_s: pick(tail_s, b.tail_s),
        stream_s: pick(stream_s, b.stream_s),
        pass_overhead_s: pick(pass_overhead_s, b.pass_overhead_s),
        split_overhead_s: pick(split_overhead_s, b.split_overhead_s),
    }
}

fn load(op: &AttentionOp, query: u64, context: u64) -> Load {
    Request::new(query, context).map(|request| op.load(request)).unwrap_or_default()
}

/// Least load, part by part, of contexts from `first` to `last` with `query` new tokens, at most `first`.
pub(super) fn least(op: &AttentionOp, query: u64, first: u64, last: u64) -> Load {
    match op.shape.span {
        Span::Full | Span::Sliding(_) | Span::Selected(_) => load(op, query, first),
        Span::Chunked(chunk) => turns(op, query, first, last, chunk, f64::min),
    }
}

/// Most load, part by part, of the same.
pub(super) fn most(op: &AttentionOp, query: u64, first: u64, last: u64) -> Load {
    match op.shape.span {
        Span::Full | Span::Sliding(_) | Span::Selected(_) => load(op, query, last),
        Span::Chunked(chunk) => turns(op, query, first, last, chunk, f64::max),
    }
}

/// The extreme over both ends and every place where a count may turn.
fn turns(op: &AttentionOp, query: u64, first: u64, last: u64, chunk: u64, pick: fn(f64, f64) -> f64) -> Load {
    let mut extreme = each(&load(op, query, first), &load(op, query, last), pick);
    // Counts repeat with the tokens before the new ones, modulo the chunk; they turn at its start and its end, and
    // where the last new row enters the next chunk.
    let before = first - query;
    for rest in [0, (chunk - query % chunk) % chunk, chunk - 1] {
        let context = first + (rest + chunk - before % chunk) % chunk;
        if context <= last {
            extreme = each(&extreme, &load(op, query, context), pick);
        }
    }
    extreme
}
