//! `roofsim.plan`, the compiled half: a request in, a dict out.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use roofsim_core::capacity::{CapacityLimits, CapacityMode};
use roofsim_core::engine::Engine;
use roofsim_core::plan::{Limit, Miss, Objective, Offer, Plan, PlanOption, PlanRequest, Workload};
use roofsim_core::roofline::OpCost;

use crate::accelerator::PyAccelerator;
use crate::arguments::{count, each, kv_format, number, text, weight_format};
use crate::calibration::choose;
use crate::error::{IntoPython, spec};
use crate::model::PyModel;

/// Solve a plan. `options` holds every argument of `roofsim.plan` that is not the model or an offer; `offers` are
/// (accelerator, usd_per_hour or None, kind of price).
#[pyfunction]
#[pyo3(name = "_plan")]
pub(crate) fn plan<'py>(
    py: Python<'py>,
    model: PyModel,
    offers: Vec<(PyAccelerator, Option<f64>, String)>,
    options: &Bound<'py, PyDict>,
) -> PyResult<Bound<'py, PyDict>> {
    let needed = |field: &str| -> PyResult<Bound<'py, PyAny>> {
        options.get_item(field)?.ok_or_else(|| spec(field, "missing", "is required"))
    };
    let seconds = |field: &str| -> PyResult<Option<f64>> {
        let value = needed(field)?;
        if value.is_none() { Ok(None) } else { number(field, &value).map(Some) }
    };
    let calibration = needed("calibration")?;
    let offers = offers.into_iter().map(|(device, usd_per_hour, price_kind)| {
        let own = choose(py, Some(&calibration), &device.inner)?.unwrap_or(device.calibration);
        Ok(Offer { accelerator: device.inner, calibration: Some(own), usd_per_hour, price_kind })
    });
    let offers = offers.collect::<PyResult<Vec<_>>>()?;
    let token_budget = count("max_num_batched_tokens", &needed("max_num_batched_tokens")?)?;
    let request = PlanRequest {
        model: model.inner,
        workload: Workload {
            input_tokens: count("input_tokens", &needed("input_tokens")?)?,
            output_tokens: count("output_tokens", &needed("output_tokens")?)?,
            ttft_s: seconds("ttft_s")?,
            tpot_s: seconds("tpot_s")?,
            token_budget,
        },
        objective: Objective::parse("objective", &text("objective", &needed("objective")?)?).python()?,
        max_devices: count("max_devices", &needed("max_devices")?)?,
        weight_formats: each(&needed("weight_dtypes")?)?
            .iter()
            .map(|w| weight_format(Some(w)))
            .collect::<PyResult<_>>()?,
        kv_formats: each(&needed("kv_cache_dtypes")?)?.iter().map(|k| kv_format(Some(k))).collect::<PyResult<_>>()?,
        engine: Engine::parse("engine", &text("engine", &needed("engine")?)?).python()?,
        limits: CapacityLimits {
            mode: CapacityMode::parse("capacity_mode", &text("capacity_mode", &needed("capacity_mode")?)?).python()?,
            gpu_memory_utilization: number("gpu_memory_utilization", &needed("gpu_memory_utilization")?)?,
            block_size: count("block_size", &needed("block_size")?)?,
            max_num_batched_tokens: token_budget,
            max_num_seqs: count("max_num_seqs", &needed("max_num_seqs")?)?,
        },
        offers,
    };
    let plan = py.detach(|| request.solve()).python()?;
    let answer = to_dict(py, &plan)?;
    let behind = request.offers.iter().filter_map(|offer| offer_dict(py, offer).transpose());
    answer.set_item("offers", PyList::new(py, behind.collect::<PyResult<Vec<_>>>()?)?)?;
    Ok(answer)
}

/// The device, its calibration and its price.
fn offer_dict<'py>(py: Python<'py>, offer: &Offer) -> PyResult<Option<Bound<'py, PyDict>>> {
    let Some(calibration) = &offer.calibration else { return Ok(None) };
    let row = PyDict::new(py);
    row.set_item("accelerator", &offer.accelerator.name)?;
    row.set_item("calibration", &calibration.name)?;
    row.set_item("kernel_library", &calibration.kernel_library)?;
    row.set_item("basis", &calibration.provenance.basis)?;
    row.set_item("note", &calibration.provenance.note)?;
    row.set_item("usd_per_hour", offer.usd_per_hour)?;
    row.set_item("price_kind", &offer.price_kind)?;
    Ok(Some(row))
}

fn to_dict<'py>(py: Python<'py>, plan: &Plan) -> PyResult<Bound<'py, PyDict>> {
    let out = PyDict::new(py);
    let options = plan.options.iter().map(|o| option_dict(py, o)).collect::<PyResult<Vec<_>>>()?;
    let misses = plan.misses.iter().map(|m| miss_dict(py, m)).collect::<PyResult<Vec<_>>>()?;
    out.set_item("options", PyList::new(py, options)?)?;
    out.set_item("misses", PyList::new(py, misses)?)?;
    out.set_item("notes", &plan.notes)?;
    Ok(out)
}

fn option_dict<'py>(py: Python<'py>, o: &PlanOption) -> PyResult<Bound<'py, PyDict>> {
    let row = PyDict::new(py);
    row.set_item("accelerator", &o.accelerator.name)?;
    row.set_item("num_devices", o.layout.num_devices())?;
    row.set_item("tensor_parallel_size", o.layout.tensor)?;
    row.set_item("pipeline_parallel_size", o.layout.pipeline)?;
    row.set_item("data_parallel_size", o.layout.data)?;
    row.set_item("expert_parallel_size", o.layout.expert)?;
    row.set_item("weight_dtype", o.weight_format.map_or("auto", |f| f.name()))?;
    row.set_item("kv_cache_dtype", o.kv_format.name())?;
    row.set_item("batch_size", o.batch_size)?;
    row.set_item("sequences", o.sequences)?;
    row.set_item("max_sequences", o.max_sequences)?;
    row.set_item("ttft_s", o.steady.ttft_s)?;
    row.set_item("tpot_s", o.steady.tpot_s)?;
    row.set_item("itl_max_s", o.steady.itl_max_s)?;
    for (field, [low, high]) in [("ttft", o.steady.ttft_interval_s), ("tpot", o.steady.tpot_interval_s)] {
        row.set_item(format!("{field}_low_s"), low)?;
        row.set_item(format!("{field}_high_s"), high)?;
    }
    row.set_item("mixed_steps", o.steady.mixed_steps)?;
    row.set_item("tokens_per_s", o.tokens_per_s)?;
    row.set_item("tokens_per_s_per_gpu", o.tokens_per_s_per_gpu)?;
    row.set_item("tokens_per_s_per_user", 1.0 / o.steady.tpot_s)?;
    row.set_item("usd_per_mtok", o.usd_per_mtok)?;
    row.set_item("price_kind", if o.usd_per_mtok.is_some() { o.price_kind.as_str() } else { "unknown" })?;
    row.set_item("bound", o.bound.name())?;
    row.set_item("limit", o.limit.name())?;
    row.set_item("weight_bytes", o.capacity.weight_bytes)?;
    row.set_item("kv_cache_bytes", o.capacity.kv_cache_bytes)?;
    row.set_item("decode_step", step_dict(py, &o.steady.decode)?)?;
    row.set_item("mixed_step", step_dict(py, &o.steady.mixed)?)?;
    row.set_item("calibration", &o.calibration)?;
    row.set_item("no_better_than", o.no_better_than)?;
    row.set_item("why_not_first", &o.why_not_first)?;
    Ok(row)
}

pub(crate) fn step_dict<'py>(py: Python<'py>, cost: &OpCost) -> PyResult<Bound<'py, PyDict>> {
    let row = PyDict::new(py);
    row.set_item("time_s", cost.time_s)?;
    row.set_item("time_low_s", cost.time_low_s)?;
    row.set_item("time_high_s", cost.time_high_s)?;
    row.set_item("compute_s", cost.compute_s)?;
    row.set_item("memory_s", cost.memory_s)?;
    row.set_item("network_s", cost.network_s)?;
    row.set_item("overhead_s", cost.overhead_s)?;
    Ok(row)
}

fn miss_dict<'py>(py: Python<'py>, m: &Miss) -> PyResult<Bound<'py, PyDict>> {
    let row = PyDict::new(py);
    row.set_item("accelerator", &m.accelerator.name)?;
    row.set_item("num_devices", m.layout.num_devices())?;
    row.set_item("tensor_parallel_size", m.layout.tensor)?;
    row.set_item("pipeline_parallel_size", m.layout.pipeline)?;
    row.set_item("data_parallel_size", m.layout.data)?;
    row.set_item("expert_parallel_size", m.layout.expert)?;
    row.set_item("weight_dtype", m.weight_format.map_or("auto", |f| f.name()))?;
    row.set_item("kv_cache_dtype", m.kv_format.map_or("auto", |f| f.name()))?;
    row.set_item("limit", m.limit.map(Limit::name))?;
    row.set_item("reason", &m.reason)?;
    row.set_item("factor", if m.factor.is_finite() { Some(m.factor) } else { None })?;
    Ok(row)
}
