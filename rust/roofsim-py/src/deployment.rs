//! `roofsim.Deployment`.

use std::sync::Arc;

use pyo3::prelude::*;
use roofsim_core::capacity::{Capacity, CapacityLimits, CapacityMode};
use roofsim_core::deployment::{Deployment, DeploymentSpec};
use roofsim_core::engine::Engine;
use roofsim_core::parallel::Layout;
use roofsim_core::workload::{Batch, Request};

use crate::accelerator::PyAccelerator;
use crate::arguments::{count, count_or, kv_format, number, shown, weight_format};
use crate::calibration::{PyCalibration, choose};
use crate::capacity::PyCapacity;
use crate::cost::PyStepCost;
use crate::error::{IntoPython, spec};
use crate::model::PyModel;

/// A model on accelerators in a layout with formats.
#[pyclass(name = "Deployment", module = "roofsim", frozen)]
pub(crate) struct PyDeployment {
    inner: Arc<Deployment>,
    model: PyModel,
    accelerator: PyAccelerator,
}

#[pymethods]
impl PyDeployment {
    #[new]
    #[pyo3(signature = (model, accelerator, *, tensor_parallel_size = None, pipeline_parallel_size = None,
                        data_parallel_size = None, expert_parallel_size = None, weight_dtype = None,
                        kv_cache_dtype = None, calibration = None, engine = "ideal"))]
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
        engine: &str,
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
        let inner = DeploymentSpec {
            model: Arc::clone(&model.inner),
            calibration: Some(calibration.unwrap_or_else(|| Arc::clone(&accelerator.calibration))),
            accelerator: Arc::clone(&accelerator.inner),
            layout,
            weight_format: weight_format(weight_dtype)?,
            kv_format: kv_format(kv_cache_dtype)?,
            engine: Engine::parse("engine", engine).python()?,
        }
        .compile()
        .python()?;
        Ok(Self { inner: Arc::new(inner), model, accelerator })
    }

    #[getter]
    fn model(&self) -> PyModel {
        self.model.clone()
    }

    #[getter]
    fn accelerator(&self) -> PyAccelerator {
        self.accelerator.clone()
    }

    #[getter]
    fn calibration(&self) -> PyCalibration {
        PyCalibration { inner: Arc::clone(&self.inner.calibration) }
    }

    #[getter]
    fn tensor_parallel_size(&self) -> u64 {
        self.inner.layout.tensor
    }

    #[getter]
    fn pipeline_parallel_size(&self) -> u64 {
        self.inner.layout.pipeline
    }

    #[getter]
    fn data_parallel_size(&self) -> u64 {
        self.inner.layout.data
    }

    #[getter]
    fn expert_parallel_size(&self) -> u64 {
        self.inner.layout.expert
    }

    #[getter]
    fn num_devices(&self) -> u64 {
        self.inner.layout.num_devices()
    }

    #[getter]
    fn kv_cache_dtype(&self) -> &'static str {
        self.inner.kv_format.name()
    }

    #[getter]
    fn engine(&self) -> &'static str {
        self.inner.engine.name()
    }

    /// One forward step over a flat batch of (query_tokens, context_tokens).
    fn step(&self, requests: &Bound<'_, PyAny>) -> PyResult<PyStepCost> {
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
        Ok(self.cost(batch))
    }

    /// One decode step: every sequence adds one token to a context that counts it.
    #[pyo3(signature = (*, batch_size, context_tokens))]
    fn decode(&self, batch_size: &Bound<'_, PyAny>, context_tokens: &Bound<'_, PyAny>) -> PyResult<PyStepCost> {
        let request = Request::new(1, count("context_tokens", context_tokens)?).python()?;
        Ok(self.cost(Batch::uniform(count("batch_size", batch_size)?, request).python()?))
    }

    /// One prefill step of whole prompts, `cached_tokens` of each already in the cache.
    #[pyo3(signature = (*, prompt_tokens, batch_size = None, cached_tokens = None))]
    fn prefill(
        &self,
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
        Ok(self.cost(Batch::uniform(count_or("batch_size", batch_size, 1)?, request).python()?))
    }

    /// How many sequences fit, per rank of one replica.
    #[pyo3(signature = (mode = "ideal", gpu_memory_utilization = None, block_size = None,
                        max_num_batched_tokens = None, max_num_seqs = None))]
    fn capacity(
        &self,
        mode: &str,
        gpu_memory_utilization: Option<&Bound<'_, PyAny>>,
        block_size: Option<&Bound<'_, PyAny>>,
        max_num_batched_tokens: Option<&Bound<'_, PyAny>>,
        max_num_seqs: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<PyCapacity> {
        let usual = CapacityLimits::default();
        let limits = CapacityLimits {
            mode: CapacityMode::parse("mode", mode).python()?,
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
        Ok(PyCapacity { inner: Capacity::of(&self.inner, &limits).python()? })
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

impl PyDeployment {
    fn cost(&self, batch: Batch) -> PyStepCost {
        PyStepCost {
            cost: self.inner.step.cost(&batch),
            seconds_per_byte: self.inner.step.seconds_per_byte,
            deployment: Arc::clone(&self.inner),
            batch,
        }
    }
}
