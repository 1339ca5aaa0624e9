//! `roofsim.Deployment`.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use roofsim_core::capacity::{Capacity, CapacityLimits, CapacityMode};
use roofsim_core::deployment::{Deployment, DeploymentSpec};
use roofsim_core::engine::Engine;
use roofsim_core::format::WeightFormat;
use roofsim_core::parallel::Layout;
use roofsim_core::plan::Workload;
use roofsim_core::workload::{Batch, Request};

use crate::accelerator::PyAccelerator;
use crate::arguments::{Word, count, count_or, kv_format, number, shown, weight_format};
use crate::calibration::{PyCalibration, choose};
use crate::capacity::PyCapacity;
use crate::cost::PyStepCost;
use crate::error::{IntoPython, spec};
use crate::model::PyModel;
use crate::plan::step_dict;

/// A model on accelerators in a layout with formats: compiled once, then costed per step.
///
/// Parameters
/// ----------
/// model, accelerator
///     What `Model.load` and `Accelerator.load` read.
/// tensor_parallel_size, pipeline_parallel_size, data_parallel_size, expert_parallel_size : int, optional
///     Parallel sizes, 1 by default. Experts spread over tensor times data ranks; KV heads beyond their number are replicated.
/// weight_dtype, kv_cache_dtype : str, optional
///     Storage of projections and experts, and of the KV cache; None or `auto` is as published.
/// calibration : str, path, mapping or Calibration, optional
///     `ideal`, `calibrated`, `sustained`, a kernel library (`vllm`), a name or file; None inherits the accelerator's.
/// engine : str
///     Whose runtime rules hold: `ideal` or `vllm`.
///
/// Raises
/// ------
/// SpecError, UnsupportedError
///     A value out of range, or a configuration no engine would run: heads that do not divide, a format the device lacks, no
///     link that joins the ranks.
///
/// Examples
/// --------
/// >>> import roofsim as rs
/// >>> rs.Deployment("llama-3.1-70b", "h100-sxm", tensor_parallel_size=4, calibration="ideal")
/// Deployment("llama-3.1-70b" on 4 x "h100-sxm", TP 4 PP 1 DP 1 EP 1, ideal)
#[pyclass(name = "Deployment", module = "roofsim", frozen)]
pub(crate) struct PyDeployment {
    pub(crate) inner: Arc<Deployment>,
    model: PyModel,
    accelerator: PyAccelerator,
    weight_format: Option<WeightFormat>,
}

#[pymethods]
impl PyDeployment {
    #[new]
    #[pyo3(signature = (model, accelerator, *, tensor_parallel_size = None, pipeline_parallel_size = None,
                        data_parallel_size = None, expert_parallel_size = None, weight_dtype = None,
                        kv_cache_dtype = None, calibration = None, engine = Word::from("ideal")),
           text_signature = "(model, accelerator, *, tensor_parallel_size=None, pipeline_parallel_size=None, \
                             data_parallel_size=None, expert_parallel_size=None, weight_dtype=None, \
                             kv_cache_dtype=None, calibration=None, engine='ideal')")]
    #[expect(clippy::too_many_arguments, reason = "every one is a choice of the operator")]
    fn new(
        py: Python<'_>,
        model: &Bound<'_, PyAny>,
        accelerator: &Bound<'_, PyAny>,
        tensor_parallel_size: Option<&Bound<'_, PyAny>>,
        pipeline_parallel_size: Option<&Bound<'_, PyAny>>,
        data_parallel_size: Option<&Bound<'_, PyAny>>,
        expert_parallel_size: Option<&Bound<'_, PyAny>>,
        weight_dtype: Option<&Bound<'_, PyAny>>,
        kv_cache_dtype: Option<&Bound<'_, PyAny>>,
        calibration: Option<&Bound<'_, PyAny>>,
        engine: Word,
    ) -> PyResult<Self> {
        let model = PyModel::coerce(py, model)?;
        let accelerator = PyAccelerator::coerce(py, accelerator)?;
        let layout = Layout::new(
            count_or("tensor_parallel_size", tensor_parallel_size, 1)?,
            count_or("pipeline_parallel_size", pipeline_parallel_size, 1)?,
            count_or("data_parallel_size", data_parallel_size, 1)?,
            count_or("expert_parallel_size", expert_parallel_size, 1)?,
        )
        .python()?;
        let calibration = choose(py, calibration, &accelerator.inner)?;
        let weight_format = weight_format(weight_dtype)?;
        let inner = DeploymentSpec {
            model: Arc::clone(&model.inner),
            calibration: Some(calibration.unwrap_or_else(|| Arc::clone(&accelerator.calibration))),
            accelerator: Arc::clone(&accelerator.inner),
            layout,
            weight_format,
            kv_format: kv_format(kv_cache_dtype)?,
            engine: Engine::parse("engine", engine.text("engine")?).python()?,
        }
        .compile()
        .python()?;
        Ok(Self { inner: Arc::new(inner), model, accelerator, weight_format })
    }

    /// What a copy in another process is made of.
    fn __getnewargs_ex__<'py>(&self, py: Python<'py>) -> PyResult<((PyModel, PyAccelerator), Bound<'py, PyDict>)> {
        let Layout { tensor, pipeline, data, expert } = self.inner.layout;
        let settings = PyDict::new(py);
        settings.set_item("tensor_parallel_size", tensor)?;
        settings.set_item("pipeline_parallel_size", pipeline)?;
        settings.set_item("data_parallel_size", data)?;
        settings.set_item("expert_parallel_size", expert)?;
        settings.set_item("weight_dtype", self.weight_format.map(WeightFormat::name))?;
        settings.set_item("kv_cache_dtype", self.kv_cache_dtype())?;
        settings.set_item("calibration", self.calibration())?;
        settings.set_item("engine", self.engine())?;
        Ok(((self.model(), self.accelerator()), settings))
    }

    /// The model, as it was given.
    #[getter]
    fn model(&self) -> PyModel {
        self.model.clone()
    }

    /// The device.
    #[getter]
    fn accelerator(&self) -> PyAccelerator {
        self.accelerator.clone()
    }

    /// The calibration in force.
    #[getter]
    fn calibration(&self) -> PyCalibration {
        PyCalibration { inner: Arc::clone(&self.inner.calibration) }
    }

    /// Ranks that share every layer.
    #[getter]
    fn tensor_parallel_size(&self) -> u64 {
        self.inner.layout.tensor
    }

    /// Stages.
    #[getter]
    fn pipeline_parallel_size(&self) -> u64 {
        self.inner.layout.pipeline
    }

    /// Replicas.
    #[getter]
    fn data_parallel_size(&self) -> u64 {
        self.inner.layout.data
    }

    /// Ranks that share the experts.
    #[getter]
    fn expert_parallel_size(&self) -> u64 {
        self.inner.layout.expert
    }

    /// Devices: tensor times pipeline times data.
    #[getter]
    fn num_devices(&self) -> u64 {
        self.inner.layout.num_devices()
    }

    /// Storage of the KV cache in force.
    #[getter]
    fn kv_cache_dtype(&self) -> &'static str {
        self.inner.kv_format.name()
    }

    /// Whose runtime rules hold.
    #[getter]
    fn engine(&self) -> &'static str {
        self.inner.engine.name()
    }

    /// Cost of one forward step over a flat batch, as a short run measures it; under unbroken load with a calibration that is
    /// `Calibration.sustained`.
    ///
    /// Every operation is costed once for the rows of the whole batch, attention for each request's context; the step is their
    /// sum: weights are read once whatever the batch. Only the last row of each request passes the head.
    ///
    /// Parameters
    /// ----------
    /// requests : iterable of (int, int)
    ///     (query_tokens, context_tokens) of each request; the context counts the new tokens.
    ///
    /// Returns
    /// -------
    /// StepCost
    ///     Exact counts; time is a bound in `ideal`, else a prediction with an interval.
    ///
    /// Raises
    /// ------
    /// SpecError
    ///     No request, a pair that is none, query_tokens of 0 or above context_tokens, a count beyond its limit.
    ///
    /// Notes
    /// -----
    /// Leaves out queueing, the sampler, host work of the engine and communication hidden behind arithmetic. FLOPs and bytes are of
    /// the slowest rank; under pipeline parallelism the time is the latency through all stages.
    ///
    /// Examples
    /// --------
    /// >>> import roofsim as rs
    /// >>> dep = rs.Deployment("llama-3.1-70b", "h100-sxm", tensor_parallel_size=4, calibration="ideal")
    /// >>> dep.step([(1, 4096)] * 32).bound, dep.step([(1, 4096)] * 32 + [(512, 512)]).bound
    /// ('memory', 'compute')
    fn step(slf: &Bound<'_, Self>, requests: &Bound<'_, PyAny>) -> PyResult<PyStepCost> {
        const RULE: &str = "must be a sequence of (query_tokens, context_tokens) pairs of whole numbers";
        let mut batch = Batch::default();
        for pair in requests.try_iter().map_err(|_| spec("requests", shown(requests), RULE))? {
            let pair = pair?;
            let (query, context): (Bound<'_, PyAny>, Bound<'_, PyAny>) =
                pair.extract().map_err(|_| spec("requests", shown(&pair), RULE))?;
            let request = Request::new(count("query_tokens", &query)?, count("context_tokens", &context)?).python()?;
            batch.push(1, request).python()?;
        }
        if batch.requests() == 0 {
            return Err(spec("requests", "[]", "must hold at least one (query_tokens, context_tokens) pair"));
        }
        Ok(PyStepCost::new(slf, batch))
    }

    /// A step's cost in another process: runs of (requests, query_tokens, context_tokens).
    #[pyo3(name = "_step_of_runs")]
    fn step_of_runs(slf: &Bound<'_, Self>, runs: Vec<(u64, u64, u64)>) -> PyResult<PyStepCost> {
        let mut batch = Batch::default();
        for (count, query, context) in runs {
            batch.push(count, Request::new(query, context).python()?).python()?;
        }
        Ok(PyStepCost::new(slf, batch))
    }

    /// Cost of one decode step: every sequence adds one token to a context that counts it. Equals `step([(1, S)] * B)`.
    ///
    /// The floor is (weights + B S kv_bytes_per_token) / W over the tensor-parallel ranks: batching is nearly free until
    /// arithmetic catches up, and long contexts make the KV reads dominate.
    ///
    /// Parameters
    /// ----------
    /// batch_size : int
    ///     Sequences B per data-parallel replica; at least 1.
    /// context_tokens : int
    ///     Context S of each, the new token included; at least 1.
    ///
    /// Returns
    /// -------
    /// StepCost
    ///     Exact counts; time is a bound in `ideal`, else a prediction with an interval.
    ///
    /// Raises
    /// ------
    /// SpecError
    ///     A count that is no whole number or out of range.
    ///
    /// Notes
    /// -----
    /// Leaves out queueing, the sampler, host work of the engine and communication hidden behind arithmetic. FLOPs and bytes are of
    /// the slowest rank; under pipeline parallelism the time is the latency through all stages. Source: Pope et al., "Efficiently Scaling Transformer Inference", 2022.
    ///
    /// Examples
    /// --------
    /// >>> import roofsim as rs
    /// >>> dep = rs.Deployment("llama-3.1-70b", "h100-sxm", tensor_parallel_size=4, calibration="ideal")
    /// >>> step = dep.decode(batch_size=32, context_tokens=4096)
    /// >>> round(1e3 * step.time_s, 1), step.bound
    /// (14.1, 'memory')
    #[pyo3(signature = (*, batch_size, context_tokens))]
    fn decode(
        slf: &Bound<'_, Self>,
        batch_size: &Bound<'_, PyAny>,
        context_tokens: &Bound<'_, PyAny>,
    ) -> PyResult<PyStepCost> {
        let request = Request::new(1, count("context_tokens", context_tokens)?).python()?;
        Ok(PyStepCost::new(slf, Batch::uniform(count("batch_size", batch_size)?, request).python()?))
    }

    /// Cost of one prefill step of whole prompts. Equals `step([(prompt - cached, prompt)] * B)`.
    ///
    /// Parameters
    /// ----------
    /// prompt_tokens : int
    ///     Tokens of each prompt; at least 1.
    /// batch_size : int, optional
    ///     Prompts per data-parallel replica; 1 by default.
    /// cached_tokens : int, optional
    ///     Tokens of each prompt that are in the cache already; 0 by default, below `prompt_tokens`.
    ///
    /// Returns
    /// -------
    /// StepCost
    ///     Exact counts; time is a bound in `ideal`, else a prediction with an interval.
    ///
    /// Raises
    /// ------
    /// SpecError
    ///     A count that is no whole number or out of range, everything cached.
    ///
    /// Notes
    /// -----
    /// Leaves out queueing, the sampler, host work of the engine and communication hidden behind arithmetic. FLOPs and bytes are of
    /// the slowest rank; under pipeline parallelism the time is the latency through all stages. Chunking under a token budget is `roofsim.plan`'s subject.
    ///
    /// Examples
    /// --------
    /// >>> import roofsim as rs
    /// >>> dep = rs.Deployment("llama-3.1-70b", "h100-sxm", tensor_parallel_size=4, calibration="ideal")
    /// >>> dep.prefill(prompt_tokens=4096).bound
    /// 'compute'
    #[pyo3(signature = (*, prompt_tokens, batch_size = None, cached_tokens = None))]
    fn prefill(
        slf: &Bound<'_, Self>,
        prompt_tokens: &Bound<'_, PyAny>,
        batch_size: Option<&Bound<'_, PyAny>>,
        cached_tokens: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<PyStepCost> {
        let prompt = count("prompt_tokens", prompt_tokens)?;
        let cached = count_or("cached_tokens", cached_tokens, 0)?;
        if prompt == 0 {
            return Err(spec("prompt_tokens", prompt, "must be at least 1"));
        }
        if cached >= prompt {
            let rule = format!("must be below prompt_tokens = {prompt}: at least one token is computed");
            return Err(spec("cached_tokens", cached, &rule));
        }
        let request = Request::new(prompt - cached, prompt).python()?;
        Ok(PyStepCost::new(slf, Batch::uniform(count_or("batch_size", batch_size, 1)?, request).python()?))
    }

    /// What a server does at a steady concurrency: decodes share some steps with the prompts that replace finished requests.
    ///
    /// Of every O steps N = ceil(B I / (M - B)) are mixed; TPOT = (N mixed + (O - N) decode) / O. The same formula as `roofsim.plan`'s.
    ///
    /// Parameters
    /// ----------
    /// batch_size : int
    ///     Requests in flight B per data-parallel replica: the server's concurrency over its replicas.
    /// input_tokens, output_tokens : int
    ///     Tokens of a prompt I, tokens generated O, alike for all requests; the mean where they vary.
    /// max_num_batched_tokens : int, optional
    ///     Rows M that one step may hold; 8192 by default.
    ///
    /// Returns
    /// -------
    /// dict
    ///     Seconds: `tpot_s`, `ttft_s` (chunks of one prompt, no queue) with `_low_s` and `_high_s`, `itl_max_s`, `burst_ttft_s` (mean of B
    ///     requests that arrive at once); `mixed_steps`; `tokens_per_s` of all replicas; `decode_step` and `mixed_step`.
    ///
    /// Raises
    /// ------
    /// SpecError
    ///     A count out of range, or prompts that do not fit between the decodes: N > O.
    ///
    /// Notes
    /// -----
    /// Leaves out random arrivals, requests of different lengths, the network and the client. Whether the requests fit the memory is
    /// `capacity`'s subject. How far off public measurements: docs/serving.md. Source: Agrawal et al., "Sarathi-Serve", OSDI 2024.
    ///
    /// Examples
    /// --------
    /// >>> import roofsim as rs
    /// >>> dep = rs.Deployment("llama-3.1-70b", "h100-sxm", tensor_parallel_size=4, calibration="ideal")
    /// >>> state = dep.steady_state(batch_size=64, input_tokens=1024, output_tokens=1024)
    /// >>> state["mixed_steps"], round(1e3 * state["tpot_s"], 1)
    /// (9, 16.8)
    #[pyo3(signature = (*, batch_size, input_tokens, output_tokens, max_num_batched_tokens = None))]
    fn steady_state<'py>(
        &self,
        py: Python<'py>,
        batch_size: &Bound<'py, PyAny>,
        input_tokens: &Bound<'py, PyAny>,
        output_tokens: &Bound<'py, PyAny>,
        max_num_batched_tokens: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let batch = count("batch_size", batch_size)?;
        let workload = Workload {
            input_tokens: count("input_tokens", input_tokens)?,
            output_tokens: count("output_tokens", output_tokens)?,
            ttft_s: None,
            tpot_s: None,
            token_budget: count_or(
                "max_num_batched_tokens",
                max_num_batched_tokens,
                CapacityLimits::default().max_num_batched_tokens,
            )?,
        };
        let state = workload.steady_state(&self.inner, batch).python()?;
        let in_flight = batch * self.inner.layout.pipeline * self.inner.layout.data;
        let row = PyDict::new(py);
        row.set_item("tpot_s", state.tpot_s)?;
        row.set_item("ttft_s", state.ttft_s)?;
        for (field, [low, high]) in [("ttft", state.ttft_interval_s), ("tpot", state.tpot_interval_s)] {
            row.set_item(format!("{field}_low_s"), low)?;
            row.set_item(format!("{field}_high_s"), high)?;
        }
        row.set_item("itl_max_s", state.itl_max_s)?;
        row.set_item("burst_ttft_s", workload.burst_ttft_s(&self.inner, batch).python()?)?;
        row.set_item("mixed_steps", state.mixed_steps)?;
        row.set_item("tokens_per_s", in_flight as f64 / state.tpot_s)?;
        row.set_item("decode_step", step_dict(py, &state.decode)?)?;
        row.set_item("mixed_step", step_dict(py, &state.mixed)?)?;
        Ok(row)
    }

    /// How many sequences fit, on the fullest rank of one replica.
    ///
    /// usable = memory x utilisation; KV pool = usable - weights - activation peak - engine; sequences = pool / bytes of one.
    ///
    /// Parameters
    /// ----------
    /// mode : str
    ///     `ideal`: closed form, exact. `runtime`: what vLLM allocates (whole blocks, a null block, its own context).
    /// gpu_memory_utilization : float, optional
    ///     Share of device memory the engine may use, above 0 and at most 1; 0.9 by default.
    /// block_size : int, optional
    ///     Tokens of one KV block; 16 by default.
    /// max_num_batched_tokens : int, optional
    ///     Rows of the largest step, which size the activations; 8192 by default.
    /// max_num_seqs : int, optional
    ///     Sequences of the largest step, which size the logits; 1024 by default.
    ///
    /// Returns
    /// -------
    /// Capacity
    ///     "Does not fit" is a result with a reason, not an error.
    ///
    /// Raises
    /// ------
    /// SpecError
    ///     A value out of range.
    ///
    /// Notes
    /// -----
    /// Leaves out prefix sharing, host offload and fragmentation beyond blocks. The engine's own memory in `runtime` is a mean over
    /// public startup logs; single ones lie 0.4 GiB around it. Source of the rules: vLLM V1 (`kv_cache_utils`, `gpu_worker`).
    ///
    /// Examples
    /// --------
    /// >>> import roofsim as rs
    /// >>> room = rs.Deployment("llama-3.1-70b", "h100-sxm", tensor_parallel_size=4).capacity()
    /// >>> room.fits, room.max_sequences(4096)
    /// (True, 121)
    #[pyo3(signature = (mode = Word::from("ideal"), gpu_memory_utilization = None, block_size = None,
                        max_num_batched_tokens = None, max_num_seqs = None),
           text_signature = "($self, mode='ideal', gpu_memory_utilization=None, block_size=None, \
                             max_num_batched_tokens=None, max_num_seqs=None)")]
    fn capacity(
        slf: &Bound<'_, Self>,
        mode: Word,
        gpu_memory_utilization: Option<&Bound<'_, PyAny>>,
        block_size: Option<&Bound<'_, PyAny>>,
        max_num_batched_tokens: Option<&Bound<'_, PyAny>>,
        max_num_seqs: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<PyCapacity> {
        let usual = CapacityLimits::default();
        let limits = CapacityLimits {
            mode: CapacityMode::parse("mode", mode.text("mode")?).python()?,
            gpu_memory_utilization: gpu_memory_utilization
                .map_or(Ok(usual.gpu_memory_utilization), |x| number("gpu_memory_utilization", x))?,
            block_size: count_or("block_size", block_size, usual.block_size)?,
            max_num_batched_tokens: count_or(
                "max_num_batched_tokens",
                max_num_batched_tokens,
                usual.max_num_batched_tokens,
            )?,
            max_num_seqs: count_or("max_num_seqs", max_num_seqs, usual.max_num_seqs)?,
        };
        let inner = Capacity::of(&slf.get().inner, &limits).python()?;
        Ok(PyCapacity { inner, owner: slf.clone().unbind(), limits })
    }

    fn __eq__(&self, other: &Self) -> bool {
        *self.inner == *other.inner
    }

    fn __hash__(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.inner.model.name, &self.inner.accelerator.name, self.inner.layout.num_devices()).hash(&mut hasher);
        hasher.finish()
    }

    fn __repr__(&self) -> String {
        let (d, l) = (&self.inner, self.inner.layout);
        format!(
            "Deployment({:?} on {} x {:?}, TP {} PP {} DP {} EP {}, {})",
            d.model.name,
            l.num_devices(),
            d.accelerator.name,
            l.tensor,
            l.pipeline,
            l.data,
            l.expert,
            d.calibration.name
        )
    }
}
