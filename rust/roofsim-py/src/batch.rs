//! Many single operations at once: arrays of shapes in, arrays of costs out. What a fit and a report evaluate.

use numpy::{PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use roofsim_core::calibration::{Power, SteadyLoad};
use roofsim_core::format::KvFormat;
use roofsim_core::model::Span;
use roofsim_core::ops::attention::{AttentionShape, LatentHeads};
use roofsim_core::ops::moe::GroupedShape;
use roofsim_core::ops::{AttentionOp, Collective, CollectiveOp, DispatchOp, ElementwiseOp, GemmOp, GroupedGemmOp};
use roofsim_core::roofline::{Machine, OpCost, Pace};
use roofsim_core::workload::{Batch, Request};

use crate::accelerator::PyAccelerator;
use crate::deployment::PyDeployment;
use crate::error::{IntoPython, spec};
use crate::operations::stored_as;

type Counts<'py> = PyReadonlyArray1<'py, u64>;

/// Columns of one dimension each, all as long as the first.
fn columns<'a, const N: usize>(named: [(&str, &'a Counts<'_>); N]) -> PyResult<[&'a [u64]; N]> {
    let mut slices: [&[u64]; N] = [&[]; N];
    let mut rows = None;
    for (slot, (name, array)) in slices.iter_mut().zip(named) {
        *slot = array.as_slice().map_err(|_| spec(name, "array", "must be contiguous"))?;
        let expected = *rows.get_or_insert(slot.len());
        if slot.len() != expected {
            return Err(spec(name, slot.len(), &format!("must be as long as the other columns, {expected}")));
        }
        if let Some(wrong) = slot.iter().find(|v| !(1..=1 << 32).contains(*v)) {
            return Err(spec(name, wrong, "must be between 1 and 2^32"));
        }
    }
    Ok(slices)
}

/// Arrays of the fields of costs.
fn table<'py>(py: Python<'py>, costs: &[OpCost]) -> PyResult<Bound<'py, PyDict>> {
    let fields: [(&str, fn(&OpCost) -> f64); 6] = [
        ("time_s", |c| c.time_s),
        ("time_low_s", |c| c.time_low_s),
        ("time_high_s", |c| c.time_high_s),
        ("ideal_s", |c| c.ideal_s),
        ("flops", |c| c.flops),
        ("bytes", |c| c.bytes),
    ];
    let arrays = PyDict::new(py);
    for (name, field) in fields {
        arrays.set_item(name, PyArray1::from_iter(py, costs.iter().map(field)))?;
    }
    Ok(arrays)
}

fn machine(accelerator: &PyAccelerator) -> Machine<'_> {
    Machine::new(&accelerator.inner, &accelerator.calibration, Pace::Burst)
}

/// Costs of matrix products of m rows by n by k at burst rates, in one operand type. Neighbours of equal n and k share
/// their compiled operation, so that sorted columns are cheapest.
#[pyfunction]
#[pyo3(name = "_gemm_costs", signature = (accelerator, m, n, k, dtype, weight_dtype = None))]
pub(crate) fn gemm_costs<'py>(
    py: Python<'py>,
    accelerator: &PyAccelerator,
    m: Counts<'py>,
    n: Counts<'py>,
    k: Counts<'py>,
    dtype: &str,
    weight_dtype: Option<&str>,
) -> PyResult<Bound<'py, PyDict>> {
    let [m, n, k] = columns([("m", &m), ("n", &n), ("k", &k)])?;
    let (format, dtype) = stored_as(dtype, weight_dtype)?;
    let machine = machine(accelerator);
    let mut op: Option<GemmOp> = None;
    let mut costs = Vec::with_capacity(m.len());
    for ((&m, &n), &k) in m.iter().zip(n).zip(k) {
        let same = op.take().filter(|op| op.n == n && op.k == k);
        let compiled = || GemmOp::new(&machine, n, k, format, dtype).map(|op| op.as_timed(&machine));
        let ready = same.map_or_else(compiled, Ok).python()?;
        costs.push(ready.cost(m));
        op = Some(ready);
    }
    table(py, &costs)
}

/// Costs of causal attention of uniform batches at burst rates, in one operand type and cache format.
#[pyfunction]
#[pyo3(
    name = "_attention_costs",
    signature = (accelerator, batch_size, query_tokens, context_tokens, num_heads, num_kv_heads, head_dim, dtype,
                 kv_cache_dtype, sliding_window = None)
)]
#[expect(clippy::too_many_arguments, reason = "the shape of attention")]
pub(crate) fn attention_costs<'py>(
    py: Python<'py>,
    accelerator: &PyAccelerator,
    batch_size: Counts<'py>,
    query_tokens: Counts<'py>,
    context_tokens: Counts<'py>,
    num_heads: Counts<'py>,
    num_kv_heads: Counts<'py>,
    head_dim: Counts<'py>,
    dtype: &str,
    kv_cache_dtype: &str,
    sliding_window: Option<u64>,
) -> PyResult<Bound<'py, PyDict>> {
    let columns = columns([
        ("batch_size", &batch_size),
        ("query_tokens", &query_tokens),
        ("context_tokens", &context_tokens),
        ("num_heads", &num_heads),
        ("num_kv_heads", &num_kv_heads),
        ("head_dim", &head_dim),
    ])?;
    let dtype = crate::arguments::compute_dtype("dtype", dtype)?;
    let kv_format = KvFormat::parse("kv_cache_dtype", kv_cache_dtype).python()?;
    let machine = machine(accelerator);
    let mut costs = Vec::with_capacity(columns[0].len());
    for row in 0..columns[0].len() {
        let [batch, query, context, num_heads, num_kv_heads, head_dim] = columns.map(|column| column[row]);
        let shape = AttentionShape {
            num_heads,
            num_kv_heads,
            head_dim,
            v_head_dim: head_dim,
            span: sliding_window.map_or(Span::Full, Span::Sliding),
            latent: None,
            dtype,
            kv_format,
            fixed_bytes: 0,
        };
        let op = AttentionOp::new(&machine, shape).python()?;
        costs.push(op.request_cost(batch, Request::new(query, context).python()?));
    }
    table(py, &costs)
}

/// Costs of latent attention of uniform batches at burst rates, of DeepSeek V3's heads and without the up-projections:
/// what published tables of its kernels time.
#[pyfunction]
#[pyo3(
    name = "_latent_attention_costs",
    signature = (accelerator, batch_size, query_tokens, context_tokens, num_heads, dtype, kv_cache_dtype)
)]
#[expect(clippy::too_many_arguments, reason = "the shape of attention")]
pub(crate) fn latent_attention_costs<'py>(
    py: Python<'py>,
    accelerator: &PyAccelerator,
    batch_size: Counts<'py>,
    query_tokens: Counts<'py>,
    context_tokens: Counts<'py>,
    num_heads: Counts<'py>,
    dtype: &str,
    kv_cache_dtype: &str,
) -> PyResult<Bound<'py, PyDict>> {
    let columns = columns([
        ("batch_size", &batch_size),
        ("query_tokens", &query_tokens),
        ("context_tokens", &context_tokens),
        ("num_heads", &num_heads),
    ])?;
    let dtype = crate::arguments::compute_dtype("dtype", dtype)?;
    let kv_format = KvFormat::parse("kv_cache_dtype", kv_cache_dtype).python()?;
    let machine = machine(accelerator);
    let latent = LatentHeads {
        kv_lora_rank: 512,
        qk_nope_head_dim: 128,
        qk_rope_head_dim: 64,
        v_head_dim: 128,
        projects: false,
    };
    let mut costs = Vec::with_capacity(columns[0].len());
    for row in 0..columns[0].len() {
        let [batch, query, context, num_heads] = columns.map(|column| column[row]);
        let shape = AttentionShape {
            num_heads,
            num_kv_heads: num_heads,
            head_dim: latent.qk_nope_head_dim + latent.qk_rope_head_dim,
            v_head_dim: latent.v_head_dim,
            span: Span::Full,
            latent: Some(latent),
            dtype,
            kv_format,
            fixed_bytes: 0,
        };
        let op = AttentionOp::new(&machine, shape).python()?;
        costs.push(op.request_cost(batch, Request::new(query, context).python()?));
    }
    table(py, &costs)
}

/// Costs of grouped matrix products at burst rates, in one operand type; `active_experts` where the routing is known.
#[pyfunction]
#[pyo3(
    name = "_grouped_gemm_costs",
    signature = (accelerator, num_tokens, num_experts, experts_per_token, expert_ranks, n, k, dtype, weight_dtype = None,
                 active_experts = None)
)]
#[expect(clippy::too_many_arguments, reason = "the shape of a grouped GEMM")]
pub(crate) fn grouped_gemm_costs<'py>(
    py: Python<'py>,
    accelerator: &PyAccelerator,
    num_tokens: Counts<'py>,
    num_experts: Counts<'py>,
    experts_per_token: Counts<'py>,
    expert_ranks: Counts<'py>,
    n: Counts<'py>,
    k: Counts<'py>,
    dtype: &str,
    weight_dtype: Option<&str>,
    active_experts: Option<Counts<'py>>,
) -> PyResult<Bound<'py, PyDict>> {
    let columns = columns([
        ("num_tokens", &num_tokens),
        ("num_experts", &num_experts),
        ("experts_per_token", &experts_per_token),
        ("expert_ranks", &expert_ranks),
        ("n", &n),
        ("k", &k),
        ("active_experts", active_experts.as_ref().unwrap_or(&num_experts)),
    ])?;
    let (format, dtype) = stored_as(dtype, weight_dtype)?;
    let machine = machine(accelerator);
    let mut costs = Vec::with_capacity(columns[0].len());
    for row in 0..columns[0].len() {
        let [tokens, num_experts, experts_per_token, expert_ranks, n, k, active] = columns.map(|column| column[row]);
        let shape = GroupedShape {
            num_experts,
            experts_per_token,
            expert_ranks,
            token_replicas: 1,
            n,
            k,
            format,
            dtype,
            // Counted on the one rank that was measured: the shape means all ranks together.
            active_experts: active_experts.is_some().then_some(active * expert_ranks),
        };
        costs.push(GroupedGemmOp::new(&machine, shape).python()?.cost(tokens));
    }
    table(py, &costs)
}

/// Powers that explain steady measurements: idle watts, then (watts, bytes/s) of a read and (watts, FLOP/s, bytes/s) of a
/// GEMM in one operand type.
#[pyfunction]
#[pyo3(name = "_steady_power")]
pub(crate) fn steady_power<'py>(
    py: Python<'py>,
    accelerator: &PyAccelerator,
    idle_w: f64,
    read: (f64, f64),
    gemm: (f64, f64, f64),
    dtype: &str,
) -> PyResult<Bound<'py, PyDict>> {
    let machine = machine(accelerator);
    let per_flop = machine.seconds_per_flop(crate::arguments::compute_dtype("dtype", dtype)?).python()?;
    let load = |power_w, flops_per_s: f64, bytes_per_s: f64| SteadyLoad {
        power_w,
        compute_share: flops_per_s * per_flop,
        memory_share: bytes_per_s * machine.seconds_per_byte,
    };
    let power = Power::from_steady(idle_w, load(read.0, 0.0, read.1), load(gemm.0, gemm.1, gemm.2)).python()?;
    let row = PyDict::new(py);
    row.set_item("idle_w", power.idle_w)?;
    row.set_item("compute_w", power.compute_w)?;
    row.set_item("memory_w", power.memory_w)?;
    Ok(row)
}

/// Costs of steps of equal requests under the deployment's calibration, and their energy in joules (NaN where no power was
/// measured).
#[pyfunction]
#[pyo3(name = "_step_costs")]
pub(crate) fn step_costs<'py>(
    py: Python<'py>,
    deployment: &PyDeployment,
    batch_size: Counts<'py>,
    query_tokens: Counts<'py>,
    context_tokens: Counts<'py>,
) -> PyResult<Bound<'py, PyDict>> {
    let [batch, query, context] =
        columns([("batch_size", &batch_size), ("query_tokens", &query_tokens), ("context_tokens", &context_tokens)])?;
    let mut costs = Vec::with_capacity(batch.len());
    for ((&batch, &query), &context) in batch.iter().zip(query).zip(context) {
        let batch = Batch::uniform(batch, Request::new(query, context).python()?).python()?;
        costs.push(deployment.inner.step.cost(&batch));
    }
    let arrays = table(py, &costs)?;
    let joules = costs.iter().map(|cost| deployment.inner.energy_j(cost).unwrap_or(f64::NAN));
    arrays.set_item("energy_j", PyArray1::from_iter(py, joules))?;
    Ok(arrays)
}

/// Costs of kernels that only move memory: `num_bytes` read and written; `row_elements` where rows of so many are reduced
/// (norms), 0 where none are.
#[pyfunction]
#[pyo3(name = "_elementwise_costs")]
pub(crate) fn elementwise_costs<'py>(
    py: Python<'py>,
    accelerator: &PyAccelerator,
    num_bytes: Counts<'py>,
    row_elements: Counts<'py>,
) -> PyResult<Bound<'py, PyDict>> {
    let [bytes] = columns([("num_bytes", &num_bytes)])?;
    let elements = row_elements.as_slice().map_err(|_| spec("row_elements", "array", "must be contiguous"))?;
    if elements.len() != bytes.len() {
        let rule = format!("must be as long as the other columns, {}", bytes.len());
        return Err(spec("row_elements", elements.len(), &rule));
    }
    let machine = machine(accelerator);
    let costs = bytes.iter().zip(elements);
    let costs = costs.map(|(&bytes, &elements)| ElementwiseOp::reducing(&machine, bytes as f64, 0.0, elements).cost(1));
    table(py, &costs.collect::<Vec<_>>())
}

/// Costs of bringing tokens to their experts, copying so many bytes in all.
#[pyfunction]
#[pyo3(name = "_dispatch_costs")]
pub(crate) fn dispatch_costs<'py>(
    py: Python<'py>,
    accelerator: &PyAccelerator,
    num_bytes: Counts<'py>,
) -> PyResult<Bound<'py, PyDict>> {
    let [bytes] = columns([("num_bytes", &num_bytes)])?;
    let machine = machine(accelerator);
    let costs = bytes.iter().map(|&bytes| DispatchOp::new(&machine, bytes as f64).cost(1));
    table(py, &costs.collect::<Vec<_>>())
}

/// Costs of one kind of collective over buffers of some bytes among some devices.
#[pyfunction]
#[pyo3(name = "_collective_costs")]
pub(crate) fn collective_costs<'py>(
    py: Python<'py>,
    accelerator: &PyAccelerator,
    num_bytes: Counts<'py>,
    num_devices: Counts<'py>,
    kind: &str,
) -> PyResult<Bound<'py, PyDict>> {
    let [bytes, devices] = columns([("num_bytes", &num_bytes), ("num_devices", &num_devices)])?;
    let kind = Collective::parse("kind", kind).python()?;
    let machine = machine(accelerator);
    let cost = |(&bytes, &devices): (&u64, &u64)| {
        CollectiveOp::new(&machine, kind, devices, bytes as f64).map(|op| op.cost(1)).python()
    };
    table(py, &bytes.iter().zip(devices).map(cost).collect::<PyResult<Vec<_>>>()?)
}
