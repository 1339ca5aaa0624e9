//! Bounds hold: over random regions of random spaces no row of a region lies outside them, in any column.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use super::super::column::{Column, ColumnKind};
use super::super::driver::Runner;
use super::super::materialize::Output;
use super::super::reduce::Keys;
use super::super::space::{Axis, Space};
use super::super::tables::Combination;
use super::bounds::Prospect;
use super::region::{Axes, BATCH, CONTEXT, QUERY, Region};
use crate::calibration::{Calibration, CalibrationChoice};
use crate::capacity::CapacityMode;
use crate::engine::Engine;
use crate::hardware::Accelerator;
use crate::model::Model;

/// One of each kind: dense, experts, latent attention, windows, chunks, sinks.
const MODELS: [&str; 6] =
    ["llama-3.1-8b", "qwen3-30b-a3b", "deepseek-v3.1", "gemma-3-27b", "llama-4-scout-fp8", "gpt-oss-20b"];

/// Columns whose values are the same in every row of a combination are not bounded.
fn is_bounded(column: Column) -> bool {
    !matches!(column.kind(), ColumnKind::Code) || column == Column::Bound
}

/// A small generator, so that the regions are the same on every run (xorshift, Marsaglia 2003).
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }

    /// Values of all magnitudes, some of them twice.
    fn values(&mut self, len: usize, most: u64) -> Vec<u64> {
        let mut value = || {
            let magnitude = self.below(16);
            1 + self.below(1 + (most >> magnitude))
        };
        let mut values: Vec<u64> = (1..len).map(|_| value()).collect();
        values.push(values.first().copied().unwrap_or(1));
        values
    }

    fn span(&mut self, len: usize) -> std::ops::Range<usize> {
        let start = usize::try_from(self.below(len as u64)).unwrap();
        start..start + 1 + usize::try_from(self.below((len - start) as u64)).unwrap()
    }
}

fn model(name: &str) -> Arc<Model> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../python/roofsim/catalog/models");
    let text = std::fs::read_to_string(folder.join(format!("{name}.json"))).unwrap();
    Arc::new(Model::from_config_json(&text, name).unwrap())
}

fn device() -> Arc<Accelerator> {
    let text = r#"{"name": "h100-sxm", "family": "hopper", "num_compute_units": 132, "memory_bytes": 85520809984,
        "memory_bandwidth_bytes_per_s": 3.35e12, "link": {"bandwidth_bytes_per_s": 450e9, "num_devices": 16},
        "peak_flops_per_s": {"bf16": 989e12, "fp16": 989e12, "fp8": 1979e12, "int8": 1979e12}}"#;
    Arc::new(Accelerator::from_json(text).unwrap())
}

fn space(name: &str, random: &mut Random) -> Space {
    Space {
        models: vec![model(name)],
        accelerators: vec![device()],
        tensor_parallel_size: vec![1, 8],
        pipeline_parallel_size: vec![1 + random.below(2)],
        data_parallel_size: vec![1],
        expert_parallel_size: vec![1],
        weight_dtype: vec![None],
        kv_cache_dtype: vec![None],
        calibration: vec![CalibrationChoice::Calibrated, CalibrationChoice::Fixed(Arc::new(Calibration::ideal()))],
        engine: vec![Engine::Ideal, Engine::Vllm],
        capacity_mode: vec![if random.below(2) == 0 { CapacityMode::Ideal } else { CapacityMode::Runtime }],
        gpu_memory_utilization: vec![0.9],
        block_size: vec![16],
        max_num_batched_tokens: vec![8192],
        max_num_seqs: vec![1024],
        batch_size: Axis::List(random.values(6, 4096)),
        context_tokens: Axis::List(random.values(12, 131_072)),
        query_tokens: Axis::List(random.values(4, 16_384)),
        usd_per_hour: vec![Some(2.5)],
    }
}

/// All rows of the float, count, flag and bound columns as numbers; NaN where null.
fn evaluate(space: &Space, columns: &[Column]) -> Vec<Vec<f64>> {
    let rows = usize::try_from(space.num_configurations().unwrap()).unwrap();
    let mut tables = Vec::new();
    for &column in columns {
        let (mut floats, mut counts, mut flags, mut codes) = (vec![], vec![], vec![], vec![]);
        let mut null = vec![false; rows];
        let output = match column.kind() {
            ColumnKind::Float => {
                floats.resize(rows, 0.0);
                Output::Float(&mut floats)
            }
            ColumnKind::Count => {
                counts.resize(rows, 0_u64);
                Output::Count(&mut counts)
            }
            ColumnKind::Flag => {
                flags.resize(rows, false);
                Output::Flag(&mut flags)
            }
            ColumnKind::Code => {
                codes.resize(rows, 0_u32);
                Output::Code(&mut codes)
            }
        };
        let mut go_on = |_, _| ControlFlow::Continue(());
        space.run(Runner::new(1), &[column], vec![output], &mut null, &mut go_on).unwrap();
        floats.extend(counts.iter().map(|&n| n as f64));
        floats.extend(flags.iter().map(|&f| f64::from(u8::from(f))));
        floats.extend(codes.iter().map(|&c| f64::from(c)));
        floats.iter_mut().zip(null).for_each(|(x, null)| *x = if null { f64::NAN } else { *x });
        tables.push(floats);
    }
    tables
}

/// Positions of all rows of a region.
fn positions(region: &Region) -> Vec<[usize; 3]> {
    let mut all = Vec::new();
    for batch in region.span(BATCH).clone() {
        for context in region.span(CONTEXT).clone() {
            all.extend(region.span(QUERY).clone().map(|query| [batch, context, query]));
        }
    }
    all
}

#[test]
fn no_row_lies_outside_its_bounds() {
    let mut random = Random(0x2545_F491_4F6C_DD1D);
    let columns: Vec<Column> = Column::ALL.iter().copied().filter(|&column| is_bounded(column)).collect();
    let (mut compared, mut tight) = (0_u64, 0_u64);
    for name in MODELS {
        for _ in 0..2 {
            let space = space(name, &mut random);
            let tables = evaluate(&space, &columns);
            let axes = Axes::new(&space);
            for index in 0..space.num_combinations().unwrap() {
                let combination = Arc::new(Combination::compile(&space, index).unwrap());
                let first = u128::from(index) * space.rows_per_combination();
                let mut prospect = Prospect::new(&space, &axes, combination, true);
                for _ in 0..60 {
                    let region =
                        Region { spans: [BATCH, CONTEXT, QUERY].map(|axis| random.span(axes.axis(axis).len())) };
                    let corners = prospect.corners(&region);
                    for positions in positions(&region) {
                        let row = usize::try_from(first + axes.row_at(positions)).unwrap();
                        assert!(first + axes.row_at(positions) >= first + axes.first_row(&region));
                        for (column, table) in columns.iter().zip(&tables) {
                            let null = tables[0][row].is_nan();
                            let Some(corners) = &corners else {
                                assert!(null, "{name} {region:?} was said to have no result");
                                continue;
                            };
                            if null {
                                continue;
                            }
                            let (least, most) = prospect.interval(corners, *column);
                            let value = table[row];
                            // Nobody measured the power of this device.
                            if *column == Column::EnergyJ && value.is_nan() {
                                continue;
                            }
                            assert!(
                                least <= value && value <= most,
                                "{name} {column:?} {region:?}: {value} not in {least}..{most}"
                            );
                            compared += 1;
                            tight += u64::from(most <= 2.0 * least);
                        }
                    }
                }
            }
        }
    }
    // Bounds that always hold because they say nothing would be no bounds.
    assert!(compared > 500_000 && tight * 3 > compared, "{tight} of {compared}");
}

/// Whatever makes the groups, every row of a region is in one of the groups that the region is said to be in.
#[test]
fn rows_are_in_the_groups_of_their_region() {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let (mut compared, mut narrow) = (0_u64, 0_u64);
    for name in ["llama-3.1-8b", "gemma-3-27b"] {
        let space = Space { tensor_parallel_size: vec![1, 7, 8], ..space(name, &mut random) };
        let axes = Axes::new(&space);
        for column in Column::ALL.iter().copied() {
            let Ok(keys) = Keys::new(&space, "group_by", &[Column::TensorParallelSize, column]) else { continue };
            let values = evaluate(&space, &[column, Column::TimeS]);
            for index in 0..space.num_combinations().unwrap() {
                let combination = Arc::new(Combination::compile(&space, index).unwrap());
                let first = u128::from(index) * space.rows_per_combination();
                let tensor = combination.layout.tensor as f64;
                let mut prospect = Prospect::new(&space, &axes, combination, true);
                for _ in 0..8 {
                    let region =
                        Region { spans: [BATCH, CONTEXT, QUERY].map(|axis| random.span(axes.axis(axis).len())) };
                    let Some(corners) = prospect.corners(&region) else { continue };
                    let span = keys.span(|column| prospect.interval(&corners, column));
                    let mut groups = Vec::new();
                    keys.all(&span, &mut |group| {
                        groups.push(keys.key(group));
                        true
                    });
                    for positions in positions(&region) {
                        let row = usize::try_from(first + axes.row_at(positions)).unwrap();
                        if values[1][row].is_nan() {
                            continue;
                        }
                        let key = vec![Some(tensor), Some(values[0][row])];
                        assert!(groups.contains(&key), "{name} {column:?} {region:?}: {key:?} not in {groups:?}");
                        compared += 1;
                        narrow += u64::from(groups.len() == 1);
                    }
                }
            }
        }
    }
    assert!(compared > 10_000 && narrow * 5 > compared, "{narrow} of {compared}");
}
