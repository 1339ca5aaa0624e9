//! The spaces that the benches of the core measure, and how to walk them.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use roofsim_core::calibration::{Calibration, CalibrationChoice};
use roofsim_core::capacity::{Capacity, CapacityMode};
use roofsim_core::engine::Engine;
use roofsim_core::error::{Error, Result};
use roofsim_core::format::{KvFormat, WeightFormat};
use roofsim_core::hardware::Accelerator;
use roofsim_core::model::Model;
use roofsim_core::sweep::{
    Axis, Batches, Column, GroupKey, Histogram, Output, Pareto, Runner, Scan, Space, TopK, parse_filters,
};
use roofsim_core::workload::{Batch, Request};

fn read(path: &str) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    std::fs::read_to_string(&path).map_err(|error| Error::spec("path", path.display(), error.to_string()))
}

/// A dense, a mixture-of-experts and a latent-attention model of the catalogue.
pub const MODELS: [&str; 3] = ["llama-3.1-70b", "mixtral-8x7b", "deepseek-v3.1"];

/// A space of catalogue models on H100 SXM, with so many batch sizes and contexts per combination.
pub fn space(models: &[&str], batches: usize, contexts: usize) -> Result<Space> {
    let model = |name: &&str| {
        Model::from_config_json(&read(&format!("python/roofsim/catalog/models/{name}.json"))?, name).map(Arc::new)
    };
    let mut device = Accelerator::from_json(&read("rust/roofsim-core/examples/h100-sxm.json")?)?;
    // Room for all three models on eight devices.
    device.memory_bytes = 144_000_000_000;
    Ok(Space {
        models: models.iter().map(model).collect::<Result<_>>()?,
        accelerators: vec![Arc::new(device)],
        tensor_parallel_size: vec![8],
        pipeline_parallel_size: vec![1],
        data_parallel_size: vec![1],
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
        batch_size: Axis::Range { start: 1, step: 1, len: batches },
        context_tokens: Axis::Range { start: 4, step: 4, len: contexts },
        query_tokens: Axis::List(vec![1]),
        usd_per_hour: vec![Some(2.0)],
    })
}

/// Many combinations with few contexts each: what tables cost shows here.
pub fn categorical(batches: usize, contexts: usize) -> Result<Space> {
    Ok(Space {
        tensor_parallel_size: vec![4, 8],
        pipeline_parallel_size: vec![1, 2],
        data_parallel_size: vec![1, 2, 4],
        weight_dtype: vec![None, Some(WeightFormat::Fp8)],
        kv_cache_dtype: vec![None, Some(KvFormat::Fp8)],
        gpu_memory_utilization: vec![0.85, 0.9],
        block_size: vec![16, 32],
        capacity_mode: vec![CapacityMode::Runtime],
        ..space(&MODELS, batches, contexts)?
    })
}

/// Runs to the end.
fn on(_: u128, _: u128) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// The latency limit of the searches, seconds.
const LIMIT_S: f64 = 0.03;

/// The k best rows within a latency limit.
pub fn best(space: &Space, runner: Runner, k: usize) -> Result<TopK> {
    let filters = parse_filters(space, &["fits".to_owned(), format!("time_s <= {LIMIT_S}")])?;
    space.top_k(runner, k, Column::TokensPerSPerGpu, &filters, &mut on)
}

/// The best row as [`best`] finds it, by a loop that evaluates one step after the other.
pub fn best_by_step(space: &Space) -> Result<Option<(f64, u128)>> {
    let mut best: Option<(f64, u128)> = None;
    let mut row = 0;
    for combination in 0..space.num_combinations().unwrap_or(0) {
        let (spec, limits) = space.combination(combination)?;
        let deployment = spec.compile()?;
        let capacity = Capacity::of(&deployment, &limits)?;
        let layout = deployment.layout;
        for batch in space.batch_size.values() {
            for context in space.context_tokens.values() {
                let request = Request::new(1, context)?;
                let time_s = deployment.step.cost(&Batch::uniform(batch, request)?).time_s;
                let fits = batch * layout.pipeline <= capacity.max_sequences(context);
                let sequences = (batch * layout.pipeline * layout.data) as f64;
                let value = sequences / time_s / layout.num_devices() as f64;
                if fits && time_s <= LIMIT_S && best.is_none_or(|(most, _)| value > most) {
                    best = Some((value, row));
                }
                row += 1;
            }
        }
    }
    Ok(best)
}

/// The front of throughput and speed.
pub fn front(space: &Space, runner: Runner) -> Result<Pareto> {
    let filters = parse_filters(space, &["fits".to_owned()])?;
    space.pareto(runner, &[Column::TokensPerSPerGpu, Column::TokensPerSPerUser], &filters, &mut on)
}

/// Memory for three columns of a space.
#[derive(Debug)]
pub struct Columns {
    values: [Vec<f64>; 3],
    null: Vec<bool>,
}

impl Columns {
    /// Fresh memory; its pages are touched here.
    pub fn of(space: &Space) -> Result<Self> {
        let rows = space.checked_rows(&[], u128::MAX)?;
        Ok(Self { values: [vec![1.0; rows], vec![1.0; rows], vec![1.0; rows]], null: vec![true; rows] })
    }

    /// Materialises three columns.
    pub fn fill(&mut self, space: &Space, runner: Runner) -> Result<()> {
        let columns = [Column::TimeS, Column::TokensPerSPerGpu, Column::TokensPerSPerUser];
        let outputs = self.values.iter_mut().map(|x| Output::Float(x)).collect();
        space.run(runner, &columns, outputs, &mut self.null, &mut on).map(|_| ())
    }
}

/// What binds each row, as a column.
pub fn bound(space: &Space, runner: Runner, codes: &mut Vec<u32>, null: &mut Vec<bool>) -> Result<()> {
    let rows = space.checked_rows(&[], u128::MAX)?;
    codes.resize(rows, 0);
    null.resize(rows, false);
    space.run(runner, &[Column::Bound], vec![Output::Code(codes)], null, &mut on).map(|_| ())
}

/// Rows by what binds them.
pub fn counts(space: &Space, runner: Runner) -> Result<Vec<(GroupKey, u64)>> {
    space.counts(&Scan { runner, filters: &[], rows: None }, &[Column::Bound], &mut on)
}

/// Rows by time, in a hundred bins.
pub fn histogram(space: &Space, runner: Runner) -> Result<Histogram> {
    let edges: Vec<f64> = (0..=100).map(|edge| f64::from(edge) * 0.0005).collect();
    space.histogram(&Scan { runner, filters: &[], rows: None }, Column::TimeS, &edges, &mut on)
}

/// Three columns in batches: the number of rows.
pub fn batches(space: &Arc<Space>, runner: Runner) -> Result<usize> {
    let columns = vec![Column::TimeS, Column::TokensPerSPerGpu, Column::TokensPerSPerUser];
    let mut batches = Batches::new(Arc::clone(space), runner, columns, Vec::new(), None, 1 << 18)?;
    let mut rows = 0;
    while let Some(batch) = batches.next(&mut on)? {
        rows += batch.rows.len();
    }
    Ok(rows)
}

/// The same space under the bare roofline.
pub fn ideal(space: Space) -> Space {
    Space { calibration: vec![CalibrationChoice::Fixed(Arc::new(Calibration::ideal()))], ..space }
}
