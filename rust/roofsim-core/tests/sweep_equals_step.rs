//! Law 9: the sweep gives the numbers of `step`, bit for bit, over every model of the catalogue, on every instruction
//! set of the machine.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use roofsim_core::calibration::{Calibration, CalibrationChoice};
use roofsim_core::capacity::{Capacity, CapacityMode};
use roofsim_core::engine::Engine;
use roofsim_core::format::{KvFormat, WeightFormat};
use roofsim_core::hardware::Accelerator;
use roofsim_core::model::Model;
use roofsim_core::sweep::{Axis, Column, Isa, Output, Runner, Space};
use roofsim_core::workload::{Batch, Request};

use common::{Random, model};

fn catalogue() -> Vec<Arc<Model>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../python/roofsim/catalog/models");
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .collect();
    paths.sort();
    paths.iter().map(|path| model(&path.file_stem().unwrap().to_string_lossy())).collect()
}

/// Three devices, one per form of the laws: tiled GEMM (H100), smooth GEMM with units, and neither; behind a switch, in a
/// mesh and in a torus, the latter two with a network beyond.
fn devices() -> Vec<Arc<Accelerator>> {
    let spec = |name: &str, family: &str, units: &str, link: &str| {
        format!(
            r#"{{"name": "{name}", "family": "{family}", {units} "memory_bytes": 85520809984,
                "memory_bandwidth_bytes_per_s": 3.35e12,
                "peak_flops_per_s": {{"bf16": 989e12, "fp16": 989e12, "fp8": 1979e12, "int8": 1979e12}},
                "link": {{"bandwidth_bytes_per_s": 450e9, {link}}}}}"#
        )
    };
    // The table that stands last is closed by the spec.
    let network = r#""network": {"bandwidth_bytes_per_s": 50e9, "latency_s": 2e-6"#;
    [
        spec("h100-sxm", "hopper", r#""num_compute_units": 132,"#, r#""num_devices": 8"#),
        spec(
            "other",
            "generic",
            r#""num_compute_units": 80,"#,
            &format!(r#""num_devices": 4, "topology": "mesh"}}, {network}"#),
        ),
        spec(
            "unitless",
            "hopper",
            "",
            &format!(r#""num_devices": 8, "topology": "torus", "shape": [4, 2]}}, {network}"#),
        ),
    ]
    .iter()
    .map(|text| Arc::new(Accelerator::from_json(text).unwrap()))
    .collect()
}

impl Random {
    fn list(&mut self, len: usize, most: u64) -> Axis {
        Axis::List((0..len).map(|_| 1 + self.below(most)).collect())
    }
}

fn space(models: Vec<Arc<Model>>, random: &mut Random, batches: usize, contexts: usize) -> Space {
    Space {
        models,
        accelerators: devices(),
        tensor_parallel_size: vec![1, 4, 8],
        pipeline_parallel_size: vec![1, 2],
        data_parallel_size: vec![1],
        expert_parallel_size: vec![1],
        weight_dtype: vec![None, Some(WeightFormat::Fp8)],
        kv_cache_dtype: vec![None, Some(KvFormat::Fp8)],
        calibration: vec![CalibrationChoice::Calibrated, CalibrationChoice::Fixed(Arc::new(Calibration::ideal()))],
        engine: vec![Engine::Ideal, Engine::Vllm],
        capacity_mode: vec![CapacityMode::Runtime],
        gpu_memory_utilization: vec![0.9],
        block_size: vec![16],
        max_num_batched_tokens: vec![8192],
        max_num_seqs: vec![1024],
        batch_size: random.list(batches, 4096),
        context_tokens: random.list(contexts, 131_072),
        query_tokens: Axis::List(vec![1, 1 + random.below(700)]),
        usd_per_hour: vec![Some(2.0), None, Some(1.0)],
    }
}

struct Result {
    time_s: Vec<f64>,
    fits: Vec<bool>,
    bound: Vec<u32>,
    null: Vec<bool>,
}

fn sweep(space: &Space, isa: Isa, threads: usize) -> Result {
    let rows = usize::try_from(space.num_configurations().unwrap()).unwrap();
    let mut result =
        Result { time_s: vec![0.0; rows], fits: vec![false; rows], bound: vec![0; rows], null: vec![false; rows] };
    let outputs =
        vec![Output::Float(&mut result.time_s), Output::Flag(&mut result.fits), Output::Code(&mut result.bound)];
    let runner = Runner { num_threads: threads, isa };
    let columns = [Column::TimeS, Column::Fits, Column::Bound];
    space.run(runner, &columns, outputs, &mut result.null, &mut |_, _| ControlFlow::Continue(())).unwrap();
    result
}

#[test]
fn a_million_rows_over_the_whole_catalogue() {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let (mut compared, mut differing) = (0_u64, Vec::new());
    for model in catalogue() {
        let space = space(vec![model], &mut random, 7, 9);
        let isas = Isa::available();
        let results: Vec<Result> = isas.iter().enumerate().map(|(i, &isa)| sweep(&space, isa, 1 + i)).collect();
        let per_combination = usize::try_from(space.rows_per_combination()).unwrap();
        for combination in 0..space.num_combinations().unwrap() {
            let (spec, limits) = space.combination(combination).unwrap();
            let first = usize::try_from(combination).unwrap() * per_combination;
            let Ok(deployment) = spec.try_compile().unwrap() else {
                assert!(results.iter().all(|r| r.null[first..first + per_combination].iter().all(|&n| n)));
                continue;
            };
            let capacity = Capacity::of(&deployment, &limits).unwrap();
            for row in first..first + per_combination {
                let at = space.configuration(row as u128).unwrap();
                let request = Request::new(at.query_tokens, at.context_tokens);
                for result in &results {
                    assert_eq!(result.null[row], request.is_err());
                }
                let Ok(request) = request else { continue };
                let cost = deployment.step.cost(&Batch::uniform(at.batch_size, request).unwrap());
                let resident = at.batch_size * deployment.layout.pipeline;
                let fits = resident <= capacity.max_sequences(at.context_tokens);
                for (result, isa) in results.iter().zip(&isas) {
                    compared += 1;
                    let same = result.time_s[row].to_bits() == cost.time_s.to_bits()
                        && result.fits[row] == fits
                        && result.bound[row] == cost.bound() as u32;
                    if !same {
                        differing.push(format!("{isa:?} {at:?}: {} {}", result.time_s[row], cost.time_s));
                    }
                }
            }
        }
    }
    println!("sweep = step: {} of {compared} rows agree bit for bit", compared - differing.len() as u64);
    assert!(differing.is_empty(), "{}", differing[..differing.len().min(3)].join("\n"));
    assert!(compared >= 1_000_000, "only {compared} rows");
}
