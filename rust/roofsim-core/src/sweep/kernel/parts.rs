//! What a row's time is made of, where no more of its cost is asked for.

use super::body::{LoadTable, packed, part};
use crate::ops::attention::{KernelLaw, Kernels, Load, LongLoad};

/// The body; see the dispatcher.
#[inline(always)]
pub(super) fn add_parts(
    law: &KernelLaw,
    count: f64,
    batch: f64,
    loads: (&LoadTable, usize),
    [compute, memory, overhead]: [&mut [f64]; 3],
) {
    // One loop for each kind of kernel: the kind is a constant in it.
    let mut law = *law;
    match law.kernels {
        Kernels::Roofline => law.kernels = Kernels::Roofline,
        Kernels::Split => {
            law.kernels = Kernels::Split;
            return add(&law, count, batch, loads, compute, memory, overhead);
        }
        Kernels::PassAndSplit if !loads.0.has_tiles => {
            return add_packed(&law, count, batch, loads, compute, memory, overhead);
        }
        Kernels::PassAndSplit => {
            law.kernels = Kernels::PassAndSplit;
            return add(&law, count, batch, loads, compute, memory, overhead);
        }
    }
    add(&law, count, batch, loads, compute, memory, overhead);
}

#[inline(always)]
fn add(
    law: &KernelLaw,
    count: f64,
    batch: f64,
    (table, first): (&LoadTable, usize),
    compute: &mut [f64],
    memory: &mut [f64],
    overhead: &mut [f64],
) {
    let n = compute.len();
    let (memory, overhead) = (&mut memory[..n], &mut overhead[..n]);
    let flops = part(&table.flops, first, n);
    let bytes = part(&table.bytes, first, n);
    let moved_bytes = part(&table.moved_bytes, first, n);
    let split_s = part(&table.split_s, first, n);
    let tile_s = part(&table.tile_s, first, n);
    let whole_s = part(&table.whole_s, first, n);
    let filled = part(&table.filled, first, n);
    let longest_s = part(&table.longest_s, first, n);
    let tail_s = part(&table.tail_s, first, n);
    let stream_s = part(&table.stream_s, first, n);
    let long_tiles = part(&table.long_tiles, first, n);
    let long_s = part(&table.long_s, first, n);
    let wave_split_s = part(&table.wave_split_s, first, n);
    let pass_overhead_s = part(&table.pass_overhead_s, first, n);
    let split_overhead_s = part(&table.split_overhead_s, first, n);
    for j in 0..n {
        let load = Load {
            requests: 1.0,
            flops: flops[j],
            bytes: bytes[j],
            moved_bytes: moved_bytes[j],
            split_s: split_s[j],
            tile_s: tile_s[j],
            whole_s: whole_s[j],
            filled: filled[j],
            longest_s: longest_s[j],
            tail_s: tail_s[j],
            stream_s: stream_s[j],
            long: LongLoad { tiles: long_tiles[j], tile_s: long_s[j], wave_split_s: wave_split_s[j] },
            pass_overhead_s: pass_overhead_s[j],
            split_overhead_s: split_overhead_s[j],
        };
        let [c, m, o] = law.parts_s(&load.times(batch));
        compute[j] += count * c;
        memory[j] += count * m;
        overhead[j] += count * o;
    }
}

#[inline(always)]
fn add_packed(
    law: &KernelLaw,
    count: f64,
    batch: f64,
    (table, first): (&LoadTable, usize),
    compute: &mut [f64],
    memory: &mut [f64],
    overhead: &mut [f64],
) {
    let n = compute.len();
    let (memory, overhead) = (&mut memory[..n], &mut overhead[..n]);
    let bytes = part(&table.bytes, first, n);
    let moved_bytes = part(&table.moved_bytes, first, n);
    let split_s = part(&table.split_s, first, n);
    let stream_s = part(&table.stream_s, first, n);
    let split_overhead_s = part(&table.split_overhead_s, first, n);
    for j in 0..n {
        let load = Load { bytes: bytes[j], ..packed(moved_bytes[j], split_s[j], stream_s[j], split_overhead_s[j]) };
        let [c, m, o] = law.packed_parts_s(&load.times(batch));
        compute[j] += count * c;
        memory[j] += count * m;
        overhead[j] += count * o;
    }
}
