//! A result that is stored past the caches, from any place in memory, holds what small pieces of it hold that are not, on
//! every instruction set of the machine: every kind of column, bit for bit.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use roofsim_core::calibration::CalibrationChoice;
use roofsim_core::capacity::CapacityMode;
use roofsim_core::engine::Engine;
use roofsim_core::hardware::Accelerator;
use roofsim_core::sweep::{Axis, Column, Isa, Output, Runner, Space};

use common::{Random, model};

const FLOATS: [Column; 6] = [
    Column::TimeS,
    Column::TokensPerSPerGpu,
    Column::TokensPerSPerUser,
    Column::UsdPerMtok,
    Column::MemoryS,
    Column::GpuMemoryUtilization,
];
const COUNTS: [Column; 3] = [Column::ContextTokens, Column::MaxSequences, Column::BatchSize];
const CODES: [Column; 3] = [Column::Bound, Column::Model, Column::Status];

/// Lines of an odd number of rows: some are longer than a chunk's part of them.
fn space(contexts: usize, query_tokens: Vec<u64>) -> Space {
    let mut random = Random(contexts as u64);
    let text = r#"{"name": "h100-sxm", "family": "hopper", "num_compute_units": 132, "memory_bytes": 85520809984,
        "memory_bandwidth_bytes_per_s": 3.35e12, "link": {"bandwidth_bytes_per_s": 450e9, "num_devices": 8},
        "peak_flops_per_s": {"bf16": 989e12, "fp16": 989e12, "fp8": 1979e12, "int8": 1979e12}}"#;
    Space {
        models: vec![model("gemma-3-27b"), model("deepseek-v3.1"), model("llama-3.1-8b")],
        accelerators: vec![Arc::new(Accelerator::from_json(text).unwrap())],
        // No model has heads for seven.
        tensor_parallel_size: vec![4, 7],
        pipeline_parallel_size: vec![1],
        data_parallel_size: vec![3],
        expert_parallel_size: vec![1],
        weight_dtype: vec![None],
        kv_cache_dtype: vec![None],
        calibration: vec![CalibrationChoice::Calibrated],
        engine: vec![Engine::Ideal],
        capacity_mode: vec![CapacityMode::Ideal],
        gpu_memory_utilization: vec![0.9],
        block_size: vec![16],
        max_num_batched_tokens: vec![8192],
        max_num_seqs: vec![1024],
        batch_size: Axis::List((0..4).map(|_| 1 + random.below(400)).collect()),
        context_tokens: Axis::Range { start: 8, step: 16, len: contexts },
        query_tokens: Axis::List(query_tokens),
        usd_per_hour: vec![Some(2.0)],
    }
}

/// Rows of every column as bits, and whether they are null; outputs begin `offset` values into their memory.
fn bits(space: &Space, runner: Runner, rows: Range<u128>, offset: usize) -> Vec<Vec<u64>> {
    let num_rows = usize::try_from(rows.end - rows.start).unwrap();
    let size = num_rows + offset;
    let mut floats = vec![vec![-1.0; size]; FLOATS.len()];
    let mut counts = vec![vec![9_u64; size]; COUNTS.len()];
    let mut codes = vec![vec![9_u32; size]; CODES.len()];
    let (mut fits, mut null) = (vec![true; size], vec![true; size]);
    let columns: Vec<Column> = FLOATS.into_iter().chain(COUNTS).chain(CODES).chain([Column::Fits]).collect();
    let mut outputs: Vec<Output<'_>> = floats.iter_mut().map(|x| Output::Float(&mut x[offset..])).collect();
    outputs.extend(counts.iter_mut().map(|x| Output::Count(&mut x[offset..])));
    outputs.extend(codes.iter_mut().map(|x| Output::Code(&mut x[offset..])));
    outputs.push(Output::Flag(&mut fits[offset..]));
    let null_flags = &mut null[offset..];
    space.run_rows(runner, rows, &columns, outputs, null_flags, &mut |_, _| ControlFlow::Continue(())).unwrap();
    let floats = floats.iter().map(|x| x[offset..].iter().map(|x| x.to_bits()).collect());
    let counts = counts.iter().map(|x| x[offset..].to_vec());
    let codes = codes.iter().map(|x| x[offset..].iter().map(|&x| u64::from(x)).collect());
    let flags = [&fits, &null].map(|x| x[offset..].iter().map(|&x| u64::from(x)).collect());
    floats.chain(counts).chain(codes).chain(flags).collect()
}

#[test]
fn whole_results_are_their_pieces() {
    // Query tokens that a context does not hold make null rows among others.
    for (contexts, query_tokens) in [(2731, vec![1]), (1600, vec![1, 64]), (2048, vec![100])] {
        let space = space(contexts, query_tokens);
        let rows = space.num_configurations().unwrap();
        let piece = 9973_usize;
        let mut expected: Vec<Vec<u64>> = Vec::new();
        for start in (0..rows).step_by(piece) {
            let runner = Runner { num_threads: 1, isa: Isa::BASELINE };
            let found = bits(&space, runner, start..rows.min(start + piece as u128), 0);
            expected.resize(found.len(), Vec::new());
            expected.iter_mut().zip(found).for_each(|(all, more)| all.extend(more));
        }
        for (at, isa) in Isa::available().into_iter().enumerate() {
            for offset in [0, 3] {
                let found = bits(&space, Runner { num_threads: 1 + (at + offset) % 3, isa }, 0..rows, offset);
                for (column, (found, expected)) in found.iter().zip(&expected).enumerate() {
                    let wrong = found.iter().zip(expected).position(|(a, b)| a != b);
                    assert_eq!(wrong, None, "column {column} of {contexts} contexts on {isa:?} from {offset}");
                }
            }
        }
    }
}
