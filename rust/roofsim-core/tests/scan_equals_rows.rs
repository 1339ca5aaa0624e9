//! A scan that looks at most blocks only once finds what all rows one by one hold, on every instruction set of the
//! machine, for every number of threads, whatever the filters.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::ops::ControlFlow;
use std::sync::Arc;

use roofsim_core::calibration::{Calibration, CalibrationChoice};
use roofsim_core::capacity::CapacityMode;
use roofsim_core::engine::Engine;
use roofsim_core::hardware::Accelerator;
use roofsim_core::sweep::{Axis, Column, Direction, Isa, Output, Runner, Space, parse_filters};

use common::{Random, model};

/// One attention operation, several, latent attention.
const MODELS: [&str; 4] = ["llama-3.1-8b", "gemma-3-27b", "deepseek-v3.1", "gpt-oss-20b"];
const OBJECTIVES: [Column; 5] =
    [Column::TokensPerSPerGpu, Column::TokensPerSPerUser, Column::UsdPerMtok, Column::TimeS, Column::ContextTokens];
const FILTERS: [&[&str]; 4] =
    [&[], &["fits"], &["fits", "time_s <= 0.03"], &["time_s > 0.01", "tokens_per_s_per_user >= 20", "not fits"]];

fn device(units: &str) -> Arc<Accelerator> {
    let text = format!(
        r#"{{"name": "h100-sxm", "family": "hopper", {units} "memory_bytes": 85520809984,
            "memory_bandwidth_bytes_per_s": 3.35e12, "link": {{"bandwidth_bytes_per_s": 450e9, "num_devices": 8}},
            "peak_flops_per_s": {{"bf16": 989e12, "fp16": 989e12, "fp8": 1979e12, "int8": 1979e12}}}}"#
    );
    Arc::new(Accelerator::from_json(&text).unwrap())
}

/// Batch sizes in no order, contexts for a block and a part of one, rows that tie.
fn space(name: &str, random: &mut Random, query_tokens: u64) -> Space {
    let mut list = |len: usize, most: u64| -> Vec<u64> {
        let mut values: Vec<u64> = (0..len).map(|_| 1 + random.below(most)).collect();
        values[len - 1] = values[0];
        values
    };
    let contexts = list(256 + 13, 100_000);
    Space {
        models: vec![model(name)],
        accelerators: vec![device(r#""num_compute_units": 132,"#), device("")],
        tensor_parallel_size: vec![4],
        pipeline_parallel_size: vec![1, 2],
        data_parallel_size: vec![1],
        expert_parallel_size: vec![1],
        weight_dtype: vec![None],
        kv_cache_dtype: vec![None],
        calibration: vec![CalibrationChoice::Calibrated, CalibrationChoice::Fixed(Arc::new(Calibration::ideal()))],
        engine: vec![Engine::Ideal],
        capacity_mode: vec![CapacityMode::Ideal],
        gpu_memory_utilization: vec![0.9],
        block_size: vec![16],
        max_num_batched_tokens: vec![8192],
        max_num_seqs: vec![1024],
        batch_size: Axis::List(list(9, 400)),
        context_tokens: Axis::List(contexts),
        query_tokens: Axis::List(vec![query_tokens]),
        usd_per_hour: vec![Some(2.0), Some(3.0)],
    }
}

/// A column of all rows; NaN where a row has no result.
fn column(space: &Space, column: Column) -> Vec<f64> {
    let rows = usize::try_from(space.num_configurations().unwrap()).unwrap();
    let (mut null, mut floats, mut counts) = (vec![false; rows], vec![0.0; rows], vec![0; rows]);
    let output = if column == Column::ContextTokens { Output::Count(&mut counts) } else { Output::Float(&mut floats) };
    space.run(Runner::new(1), &[column], vec![output], &mut null, &mut |_, _| ControlFlow::Continue(())).unwrap();
    if column == Column::ContextTokens {
        return counts.into_iter().map(|n: u64| n as f64).collect();
    }
    floats.into_iter().zip(null).map(|(x, null)| if null { f64::NAN } else { x }).collect()
}

#[test]
fn the_best_rows_and_the_front_are_those_of_all_rows() {
    let mut random = Random(0x2545_F491_4F6C_DD1D);
    let mut found = 0;
    for (name, query_tokens) in MODELS.into_iter().flat_map(|name| [(name, 1), (name, 200)]) {
        let space = space(name, &mut random, query_tokens);
        let columns = OBJECTIVES.map(|objective| column(&space, objective));
        let fits = {
            let rows = usize::try_from(space.num_configurations().unwrap()).unwrap();
            let (mut null, mut fits) = (vec![false; rows], vec![false; rows]);
            let output = vec![Output::Flag(&mut fits)];
            space
                .run(Runner::new(1), &[Column::Fits], output, &mut null, &mut |_, _| ControlFlow::Continue(()))
                .unwrap();
            fits
        };
        let [_, user, _, time, _] = &columns;
        for (which, filters) in FILTERS.iter().enumerate() {
            let passes = |row: usize| match which {
                0 => !time[row].is_nan(),
                1 => fits[row] && !time[row].is_nan(),
                2 => fits[row] && time[row] <= 0.03,
                _ => time[row] > 0.01 && user[row] >= 20.0 && !fits[row],
            };
            let texts: Vec<String> = filters.iter().map(|&text| text.to_owned()).collect();
            let filters = parse_filters(&space, &texts).unwrap();
            for (objective, values) in OBJECTIVES.into_iter().zip(&columns) {
                let sign = if objective.direction() == Direction::Higher { -1.0 } else { 1.0 };
                let mut rows: Vec<(f64, u128)> =
                    (0..values.len()).filter(|&row| passes(row)).map(|row| (sign * values[row], row as u128)).collect();
                rows.sort_by(|a, b| a.partial_cmp(b).unwrap());
                for (at, isa) in Isa::available().into_iter().enumerate() {
                    for k in [1, 10] {
                        let runner = Runner { num_threads: 1 + (at + k / 10) % 3, isa };
                        let best =
                            space.top_k(runner, k, objective, &filters, &mut |_, _| ControlFlow::Continue(())).unwrap();
                        let expected: Vec<(f64, u128)> = rows.iter().take(k).map(|(x, row)| (sign * x, *row)).collect();
                        assert_eq!(best.rows, expected, "{name} {query_tokens} {texts:?} {objective:?} {isa:?}");
                        found += best.rows.len();
                    }
                }
            }
            // The front of speed and throughput: sorted by the one, the other must rise.
            let [per_gpu, ..] = &columns;
            let mut rows: Vec<usize> = (0..time.len()).filter(|&row| passes(row)).collect();
            rows.sort_by(|&a, &b| (user[b], per_gpu[b], a).partial_cmp(&(user[a], per_gpu[a], b)).unwrap());
            let mut most = f64::NEG_INFINITY;
            rows.retain(|&row| {
                let before = most;
                most = most.max(per_gpu[row]);
                per_gpu[row] > before
            });
            rows.sort_unstable();
            let objectives = [Column::TokensPerSPerGpu, Column::TokensPerSPerUser];
            for (at, isa) in Isa::available().into_iter().enumerate() {
                let runner = Runner { num_threads: 2 - at % 2, isa };
                let front = space.pareto(runner, &objectives, &filters, &mut |_, _| ControlFlow::Continue(())).unwrap();
                let expected: Vec<(Vec<f64>, u128)> =
                    rows.iter().map(|&row| (vec![per_gpu[row], user[row]], row as u128)).collect();
                assert_eq!(front.rows, expected, "{name} {query_tokens} {texts:?} {isa:?}");
                found += front.rows.len();
            }
        }
    }
    assert!(found > 1000, "the filters leave enough to find: {found}");
}
