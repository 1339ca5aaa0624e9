//! Law 9: a search gives the rows of a scan, bit for bit and ties included, and a large space does not make it long.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::ops::ControlFlow;
use std::sync::Arc;

use roofsim_core::calibration::{Calibration, CalibrationChoice};
use roofsim_core::capacity::CapacityMode;
use roofsim_core::engine::Engine;
use roofsim_core::format::{KvFormat, WeightFormat};
use roofsim_core::hardware::Accelerator;
use roofsim_core::sweep::{Axis, Column, Isa, Runner, Scan, Space, parse_filters};

use common::{Random, model};

fn device(name: &str, bandwidth: f64, units: &str) -> Arc<Accelerator> {
    let topology = if units.is_empty() { "mesh" } else { "switch" };
    let text = format!(
        r#"{{"name": "{name}", "family": "hopper", {units} "memory_bytes": 85520809984,
            "memory_bandwidth_bytes_per_s": {bandwidth:e},
            "peak_flops_per_s": {{"bf16": 989e12, "fp16": 989e12, "fp8": 1979e12, "int8": 1979e12}},
            "link": {{"bandwidth_bytes_per_s": 450e9, "num_devices": 4, "topology": "{topology}"}},
            "network": {{"bandwidth_bytes_per_s": 50e9}}}}"#
    );
    Arc::new(Accelerator::from_json(&text).unwrap())
}

impl Random {
    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.below(of.len() as u64)).unwrap()].clone()
    }

    /// A range, or a list in any order with values that stand in it twice.
    fn axis(&mut self, len: usize, most: u64) -> Axis {
        if self.below(2) == 0 {
            let start = 1 + self.below(most / 2);
            let len = 1 + usize::try_from(self.below(len as u64)).unwrap();
            return Axis::Range { start, step: 1 + self.below(1 + most / 2 / len as u64), len };
        }
        let mut values: Vec<u64> = (0..len).map(|_| 1 + self.below(most)).collect();
        values.extend_from_within(..len / 3);
        Axis::List(values)
    }
}

fn space(random: &mut Random) -> Space {
    let models = ["llama-3.1-8b", "qwen3-30b-a3b", "deepseek-v3.1", "gemma-2-9b", "llama-4-scout-fp8", "gpt-oss-120b"];
    let units = r#""num_compute_units": 132,"#;
    Space {
        models: vec![model(random.pick(&models)), model("llama-3.1-8b")],
        accelerators: vec![
            device("h100-sxm", 3.35e12, units),
            device("unitless", 1e12, ""),
            device("h100-sxm", 3.35e12, units),
        ],
        tensor_parallel_size: vec![1, 8],
        pipeline_parallel_size: vec![random.pick(&[1, 2])],
        data_parallel_size: vec![1],
        expert_parallel_size: vec![1],
        weight_dtype: vec![random.pick(&[None, Some(WeightFormat::Fp8)])],
        kv_cache_dtype: vec![None, Some(KvFormat::Fp8)],
        calibration: vec![
            random.pick(&[CalibrationChoice::Calibrated, CalibrationChoice::Fixed(Arc::new(Calibration::ideal()))]),
        ],
        engine: vec![random.pick(&Engine::ALL)],
        capacity_mode: vec![random.pick(&[CapacityMode::Ideal, CapacityMode::Runtime])],
        gpu_memory_utilization: vec![0.9],
        block_size: vec![16],
        max_num_batched_tokens: vec![8192],
        max_num_seqs: vec![1024],
        batch_size: random.axis(9, 600),
        context_tokens: random.axis(24, 40_000),
        query_tokens: random.pick(&[
            Axis::List(vec![1]),
            Axis::List(vec![1, 64, 1]),
            Axis::Range { start: 1, step: 700, len: 3 },
        ]),
        usd_per_hour: vec![Some(2.0), None, Some(2.0)],
    }
}

const OBJECTIVES: [Column; 10] = [
    Column::TimeS,
    Column::TokensPerSPerGpu,
    Column::TokensPerSPerUser,
    Column::UsdPerMtok,
    Column::TimeHighS,
    Column::Mfu,
    Column::MemoryS,
    Column::MaxSequences,
    Column::ContextTokens,
    Column::BatchSize,
];
const GROUPING: [Column; 11] = [
    Column::BatchSize,
    Column::ContextTokens,
    Column::QueryTokens,
    Column::Bound,
    Column::Fits,
    Column::Status,
    Column::NumDevices,
    Column::Model,
    Column::Accelerator,
    Column::TensorParallelSize,
    Column::KvCacheDtype,
];
const FILTERS: [&str; 17] = [
    "fits",
    "not fits",
    "time_s <= 0.02",
    "time_s > 0.005",
    "time_high_s <= 0.05",
    "context_tokens >= 4096",
    "batch_size != 7",
    "bound == memory",
    "bound == compute",
    "max_sequences < 300",
    "tokens_per_s_per_user >= 40",
    "tensor_parallel_size == 8",
    "time_low_s <= 0.01",
    "bound != memory",
    "memory_s <= 0.01",
    "mfu >= 0.1",
    "usd_per_mtok <= 5",
];

#[test]
fn a_search_finds_what_a_scan_finds() {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let mut go_on = |_, _| ControlFlow::Continue(());
    let mut found = 0;
    for round in 0..40 {
        let space = space(&mut random);
        let texts: Vec<String> = (0..random.below(3)).map(|_| random.pick(&FILTERS).to_owned()).collect();
        let filters = parse_filters(&space, &texts).unwrap();
        let isa = random.pick(&Isa::available());
        let runner = Runner { num_threads: 1 + round % 2, isa };
        let by = random.pick(&OBJECTIVES);
        let most = if round % 8 == 0 { 1 << 20 } else { 500 };
        for k in [1, 2 + usize::try_from(random.below(60)).unwrap(), most] {
            let scan = space.top_k(Runner::new(1), k, by, &filters, &mut go_on).unwrap();
            let (search, report) = space.search_top_k(runner, k, by, &filters, &mut go_on).unwrap();
            let bits =
                |rows: &[(f64, u128)]| rows.iter().map(|&(value, row)| (value.to_bits(), row)).collect::<Vec<_>>();
            assert_eq!(bits(&scan.rows), bits(&search.rows), "{k} by {by:?} where {texts:?}");
            assert_eq!(Some(report.num_configurations), space.num_configurations());
            found += scan.rows.len();
        }
        let mut group_by: Vec<Column> = Vec::new();
        for _ in 0..=random.below(3) {
            let column = random.pick(&GROUPING);
            if !group_by.contains(&column) {
                group_by.push(column);
            }
        }
        for k in [1, 2 + usize::try_from(random.below(9)).unwrap()] {
            let scan = Scan { runner: Runner::new(1), filters: &filters, rows: None };
            let groups = space.best_per_group(&scan, k, by, &group_by, &mut go_on).unwrap();
            let (search, _) = space.search_best_per_group(runner, k, by, &group_by, &filters, &mut go_on).unwrap();
            assert_eq!(groups, search, "{k} by {by:?} of {group_by:?} where {texts:?}");
            found += groups.len();
        }
        let count = 2 + usize::try_from(random.below(3)).unwrap();
        let mut objectives: Vec<Column> = Vec::new();
        while objectives.len() < count {
            let column = random.pick(&OBJECTIVES);
            if !objectives.contains(&column) {
                objectives.push(column);
            }
        }
        let scan = space.pareto(Runner::new(1), &objectives, &filters, &mut go_on).unwrap();
        let (search, _) = space.search_pareto(runner, &objectives, &filters, &mut go_on).unwrap();
        assert_eq!(scan, search, "{objectives:?} where {texts:?}");
        found += scan.rows.len();
    }
    assert!(found > 10_000, "{found}");
}

/// Every value equal: the rows are the first ones, in order.
#[test]
fn ties_go_to_the_lower_row() {
    let mut random = Random(3);
    let mut space = space(&mut random);
    space.models = vec![model("llama-3.1-8b"); 2];
    space.batch_size = Axis::List(vec![9, 5, 5, 9, 5]);
    space.context_tokens = Axis::List(vec![4096; 50]);
    space.query_tokens = Axis::List(vec![1, 1, 1]);
    let mut go_on = |_, _| ControlFlow::Continue(());
    for k in [1, 149, 151, 700] {
        let scan = space.top_k(Runner::new(2), k, Column::TimeS, &[], &mut go_on).unwrap();
        let (search, _) = space.search_top_k(Runner::new(2), k, Column::TimeS, &[], &mut go_on).unwrap();
        assert_eq!(scan, search);
    }
}

fn large() -> Space {
    let units = r#""num_compute_units": 132,"#;
    let devices = (1..=20).map(|n| device("h100-sxm", f64::from(n) * 2e11, units));
    Space {
        models: vec![model("llama-3.1-70b"), model("mixtral-8x7b"), model("deepseek-v2.5")],
        accelerators: devices.collect(),
        tensor_parallel_size: vec![1, 2, 4, 8],
        pipeline_parallel_size: vec![1, 2],
        data_parallel_size: vec![1],
        expert_parallel_size: vec![1],
        weight_dtype: vec![None, Some(WeightFormat::Fp8)],
        kv_cache_dtype: vec![None, Some(KvFormat::Fp8)],
        calibration: vec![CalibrationChoice::Calibrated],
        engine: vec![Engine::Vllm],
        capacity_mode: vec![CapacityMode::Runtime],
        gpu_memory_utilization: vec![0.9],
        block_size: vec![16],
        max_num_batched_tokens: vec![8192],
        max_num_seqs: vec![1024],
        batch_size: Axis::Range { start: 1, step: 1, len: 4096 },
        context_tokens: Axis::Range { start: 1, step: 1, len: 131_072 },
        query_tokens: Axis::List(vec![1]),
        usd_per_hour: (1..=20).map(|n| Some(f64::from(n))).collect(),
    }
}

/// Of 1e12 rows a search looks at fewer than one in a million, tells of all of them, and what it finds is the best of
/// every sampled part.
#[test]
fn a_million_million_rows_are_settled_by_looking_at_few() {
    let space = large();
    let total = space.num_configurations().unwrap();
    assert_eq!(total, 3 * 20 * 4 * 2 * 2 * 2 * 4096 * 131_072);
    assert!(total > 1_000_000_000_000);
    let where_ = ["fits", "time_s <= 0.03", "context_tokens >= 2000"].map(str::to_owned);
    let filters = parse_filters(&space, &where_).unwrap();
    let mut seen = (0, 0);
    let mut progress = |done, of| {
        seen = (done, of);
        ControlFlow::Continue(())
    };
    let (best, report) =
        space.search_top_k(Runner::new(1), 10, Column::TokensPerSPerGpu, &filters, &mut progress).unwrap();
    assert_eq!(seen, (total, total));
    assert!(report.num_evaluated * 1_000_000 < total, "{report:?}");
    assert!(report.num_bounded < 200_000, "{report:?}");
    assert_eq!(best.rows.len(), 10);
    // The whole line of the best row, and lines near it, by a scan: nothing better, nothing of the same value before.
    let row = space.configuration(best.rows[0].1).unwrap();
    let mut part = space.clone();
    part.models = vec![row.deployment.model];
    part.accelerators = vec![row.deployment.accelerator];
    part.batch_size = Axis::Range { start: row.batch_size.saturating_sub(3).max(1), step: 1, len: 7 };
    part.context_tokens = Axis::Range { start: 1, step: 1, len: 9000 };
    let scan = part.top_k(Runner::new(1), 1, Column::TokensPerSPerGpu, &filters, &mut |_, _| ControlFlow::Continue(()));
    assert_eq!(scan.unwrap().rows[0].0.to_bits(), best.rows[0].0.to_bits());
    let objectives = [Column::TokensPerSPerGpu, Column::TokensPerSPerUser];
    let (front, report) =
        space.search_pareto(Runner::new(1), &objectives, &filters, &mut |_, _| ControlFlow::Continue(())).unwrap();
    assert!(front.rows.len() > 20 && report.num_evaluated * 1_000_000 < total, "{report:?}");
}

/// Rows beyond 2^64 keep their numbers; beyond 2^128 they are refused by name.
#[test]
fn rows_are_numbered_in_128_bits() {
    let mut space = large();
    space.tensor_parallel_size = vec![16; 1 << 12];
    space.pipeline_parallel_size = vec![64; 1 << 12];
    space.data_parallel_size = vec![1; 1 << 12];
    let total = space.num_configurations().unwrap();
    assert!(total > 1 << 70 && space.check().is_ok());
    let last = space.configuration(total - 1).unwrap();
    assert_eq!((last.batch_size, last.context_tokens, last.query_tokens), (4096, 131_072, 1));
    assert!(space.configuration(total).is_err());
    space.block_size = vec![16; 1 << 12];
    space.max_num_seqs = vec![1024; 1 << 12];
    assert_eq!(space.num_configurations(), None);
    assert!(space.check_axes().is_ok());
    let error = space.search_top_k(Runner::new(1), 1, Column::TimeS, &[], &mut |_, _| ControlFlow::Continue(()));
    assert!(error.unwrap_err().to_string().contains("num_configurations"));
}

#[test]
fn a_search_stops_when_it_is_told_to() {
    let space = large();
    // Nothing passes, and bounds cannot tell: the search would look at every row.
    let filters =
        parse_filters(&space, &["bound == network".to_owned(), "tensor_parallel_size == 1".to_owned()]).unwrap();
    let mut ticks = 0;
    let mut progress = |_, _| {
        ticks += 1;
        if ticks > 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let result = space.search_top_k(Runner::new(2), 1, Column::TokensPerS, &filters, &mut progress);
    assert!(result.is_err() && ticks == 4);
}
