//! `roofsim.Accelerator`.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyType};
use roofsim_core::calibration::Calibration;
use roofsim_core::format::WeightFormat;
use roofsim_core::hardware::Accelerator;
use roofsim_core::ops::attention::AttentionShape;
use roofsim_core::ops::moe::GroupedShape;
use roofsim_core::ops::{AttentionOp, Collective, CollectiveOp, ElementwiseOp, GemmOp, GroupedGemmOp};
use roofsim_core::roofline::{Machine, OpCost, Pace};
use roofsim_core::workload::Request;

use crate::arguments::{compute_dtype, count, count_or, number};
use crate::calibration::{PyCalibration, choose};
use crate::cost::PyOpCost;
use crate::error::{IntoPython, spec};

/// An accelerator with the calibration it is costed under.
#[pyclass(name = "Accelerator", module = "roofsim", frozen, from_py_object)]
#[derive(Clone)]
pub(crate) struct PyAccelerator {
    pub(crate) inner: Arc<Accelerator>,
    pub(crate) calibration: Arc<Calibration>,
}

/// Largest size of one dimension of an operation; products of three stay exact.
const MAX_DIMENSION: u64 = 1 << 32;

fn dimension(field: &str, value: &Bound<'_, PyAny>) -> PyResult<u64> {
    let size = count(field, value)?;
    if (1..=MAX_DIMENSION).contains(&size) { Ok(size) } else { Err(spec(field, size, "must be between 1 and 2^32")) }
}

#[pymethods]
impl PyAccelerator {
    /// Build a machine from its fields: what a spec file holds, as keyword arguments.
    #[new]
    #[pyo3(signature = (**fields))]
    fn new(py: Python<'_>, fields: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        Self::read(py, None, fields)
    }

    /// Read a catalogue name, a spec file or a mapping; keyword arguments replace fields.
    #[classmethod]
    #[pyo3(signature = (source = None, **fields))]
    fn load(
        _cls: &Bound<'_, PyType>,
        py: Python<'_>,
        source: Option<&Bound<'_, PyAny>>,
        fields: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        match (source, fields) {
            (Some(source), None) => Self::coerce(py, source),
            _ => Self::read(py, source, fields),
        }
    }

    /// Typical price of one device-hour in US dollars: the median of the known prices of a kind; None where none is.
    #[pyo3(signature = (kind = "on-demand"))]
    fn usd_per_hour(&self, kind: &str) -> PyResult<Option<f64>> {
        self.inner.usd_per_hour(kind).python()
    }

    /// Read the JSON text of a spec.
    #[staticmethod]
    fn from_json(text: &str) -> PyResult<Self> {
        let inner = Arc::new(Accelerator::from_json(text).python()?);
        let calibration = Arc::new(Calibration::default_for(&inner));
        Ok(Self { inner, calibration })
    }

    fn to_json(&self) -> String {
        self.inner.to_json()
    }

    /// The same device under another calibration: "ideal", "calibrated", a file or a Calibration.
    fn with_calibration(&self, py: Python<'_>, calibration: &Bound<'_, PyAny>) -> PyResult<Self> {
        let chosen = choose(py, Some(calibration), &self.inner)?;
        Ok(Self {
            calibration: chosen.unwrap_or_else(|| Arc::new(Calibration::default_for(&self.inner))),
            inner: Arc::clone(&self.inner),
        })
    }

    #[getter]
    fn calibration(&self) -> PyCalibration {
        PyCalibration { inner: Arc::clone(&self.calibration) }
    }

    #[getter]
    fn name(&self) -> &str {
        &self.inner.name
    }

    #[getter]
    fn vendor(&self) -> &str {
        &self.inner.vendor
    }

    #[getter]
    fn family(&self) -> &str {
        &self.inner.family
    }

    #[getter]
    fn num_compute_units(&self) -> Option<u64> {
        self.inner.num_compute_units
    }

    #[getter]
    fn memory_bytes(&self) -> u64 {
        self.inner.memory_bytes
    }

    #[getter]
    fn memory_bandwidth_bytes_per_s(&self) -> f64 {
        self.inner.memory_bandwidth_bytes_per_s
    }

    #[getter]
    fn power_w(&self) -> Option<f64> {
        self.inner.power_w
    }

    /// Dense peaks by dtype, FLOP/s.
    #[getter]
    fn peak_flops_per_s<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let peaks = PyDict::new(py);
        for (dtype, peak) in &self.inner.peak_flops_per_s {
            peaks.set_item(dtype.name(), peak)?;
        }
        Ok(peaks)
    }

    /// Machine balance P / W in FLOPs per byte.
    #[pyo3(signature = (dtype = "bf16"))]
    fn balance(&self, dtype: &str) -> PyResult<f64> {
        self.inner.balance(compute_dtype("dtype", dtype)?).python()
    }

    #[pyo3(signature = (*, m, n, k, dtype = "bf16", weight_dtype = None))]
    fn gemm(
        &self,
        m: &Bound<'_, PyAny>,
        n: &Bound<'_, PyAny>,
        k: &Bound<'_, PyAny>,
        dtype: &str,
        weight_dtype: Option<&str>,
    ) -> PyResult<PyOpCost> {
        let (m, n, k) = (dimension("m", m)?, dimension("n", n)?, dimension("k", k)?);
        let (format, dtype) = stored(dtype, weight_dtype)?;
        let op = GemmOp::new(&self.machine(), n, k, format, dtype).python()?;
        Ok(self.cost("gemm", op.cost(m)))
    }

    #[pyo3(signature = (*, batch_size, query_tokens, context_tokens, num_heads, num_kv_heads, head_dim,
                        v_head_dim = None, dtype = "bf16", kv_cache_dtype = "bf16", sliding_window = None))]
    #[expect(clippy::too_many_arguments, reason = "the shape of attention")]
    fn attention(
        &self,
        batch_size: &Bound<'_, PyAny>,
        query_tokens: &Bound<'_, PyAny>,
        context_tokens: &Bound<'_, PyAny>,
        num_heads: &Bound<'_, PyAny>,
        num_kv_heads: &Bound<'_, PyAny>,
        head_dim: &Bound<'_, PyAny>,
        v_head_dim: Option<&Bound<'_, PyAny>>,
        dtype: &str,
        kv_cache_dtype: &str,
        sliding_window: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<PyOpCost> {
        let heads = dimension("num_heads", num_heads)?;
        let kv_heads = dimension("num_kv_heads", num_kv_heads)?;
        if !heads.is_multiple_of(kv_heads) {
            return Err(spec("num_kv_heads", kv_heads, &format!("must divide num_heads = {heads}")));
        }
        let head_dim = small("head_dim", head_dim)?;
        let span = match sliding_window {
            Some(window) if !window.is_none() => {
                roofsim_core::model::Span::Sliding(dimension("sliding_window", window)?)
            }
            _ => roofsim_core::model::Span::Full,
        };
        let shape = AttentionShape {
            num_heads: limit_heads(heads)?,
            num_kv_heads: kv_heads,
            head_dim,
            v_head_dim: v_head_dim.map_or(Ok(head_dim), |v| small("v_head_dim", v))?,
            span,
            latent: None,
            dtype: compute_dtype("dtype", dtype)?,
            kv_format: roofsim_core::format::KvFormat::parse("kv_cache_dtype", kv_cache_dtype).python()?,
            fixed_bytes: 0,
        };
        let batch = dimension("batch_size", batch_size)?;
        let request =
            Request::new(count("query_tokens", query_tokens)?, count("context_tokens", context_tokens)?).python()?;
        let op = AttentionOp::new(&self.machine(), shape).python()?;
        Ok(self.cost("attention", op.request_cost(batch, request)))
    }

    #[pyo3(signature = (*, num_tokens, num_experts, experts_per_token, n, k, dtype = "bf16", weight_dtype = None,
                        active_experts = None))]
    #[expect(clippy::too_many_arguments, reason = "the shape of a grouped GEMM")]
    fn grouped_gemm(
        &self,
        num_tokens: &Bound<'_, PyAny>,
        num_experts: &Bound<'_, PyAny>,
        experts_per_token: &Bound<'_, PyAny>,
        n: &Bound<'_, PyAny>,
        k: &Bound<'_, PyAny>,
        dtype: &str,
        weight_dtype: Option<&str>,
        active_experts: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<PyOpCost> {
        let (format, dtype) = stored(dtype, weight_dtype)?;
        let num_experts = dimension("num_experts", num_experts)?;
        let active_experts = match active_experts.filter(|a| !a.is_none()) {
            None => None,
            Some(active) => match dimension("active_experts", active)? {
                active if active <= num_experts => Some(active),
                active => {
                    let rule = format!("must be at most num_experts = {num_experts}");
                    return Err(spec("active_experts", active, &rule));
                }
            },
        };
        let shape = GroupedShape {
            num_experts,
            experts_per_token: dimension("experts_per_token", experts_per_token)?,
            expert_ranks: 1,
            token_replicas: 1,
            n: dimension("n", n)?,
            k: dimension("k", k)?,
            format,
            dtype,
            active_experts,
        };
        let op = GroupedGemmOp::new(&self.machine(), shape).python()?;
        Ok(self.cost("grouped_gemm", op.cost(dimension("num_tokens", num_tokens)?)))
    }

    #[pyo3(signature = (*, read_bytes, write_bytes))]
    fn elementwise(&self, read_bytes: &Bound<'_, PyAny>, write_bytes: &Bound<'_, PyAny>) -> PyResult<PyOpCost> {
        let bytes = |field, value| {
            let bytes = number(field, value)?;
            if (0.0..9e15).contains(&bytes) {
                Ok(bytes)
            } else {
                Err(spec(field, bytes, "must be at least 0 and below 9e15"))
            }
        };
        let total = bytes("read_bytes", read_bytes)? + bytes("write_bytes", write_bytes)?;
        Ok(self.cost("elementwise", ElementwiseOp::new(&self.machine(), total, 0.0).cost(1)))
    }

    #[pyo3(signature = (kind, *, num_bytes, num_devices))]
    fn collective(
        &self,
        kind: &str,
        num_bytes: &Bound<'_, PyAny>,
        num_devices: &Bound<'_, PyAny>,
    ) -> PyResult<PyOpCost> {
        let kind = Collective::parse("kind", kind).python()?;
        let devices = count_or("num_devices", Some(num_devices), 0)?;
        let bytes = number("num_bytes", num_bytes)?;
        if !(0.0..9e15).contains(&bytes) {
            return Err(spec("num_bytes", bytes, "must be at least 0 and below 9e15"));
        }
        let op = CollectiveOp::new(&self.machine(), kind, devices, bytes).python()?;
        Ok(self.cost("collective", op.cost(1)))
    }

    fn __repr__(&self) -> String {
        let a = &self.inner;
        format!(
            "Accelerator({:?}, {:.1} GB, {:.0} GB/s, {})",
            a.name,
            a.memory_bytes as f64 / 1e9,
            a.memory_bandwidth_bytes_per_s / 1e9,
            self.calibration.name
        )
    }

    fn __eq__(&self, other: &Self) -> bool {
        self.inner == other.inner && self.calibration == other.calibration
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, (String, String))> {
        let build = py.get_type::<Self>().getattr("_rebuild")?;
        Ok((build, (self.inner.to_json(), self.calibration.to_json())))
    }

    #[staticmethod]
    #[pyo3(name = "_rebuild")]
    fn rebuild(spec: &str, calibration: &str) -> PyResult<Self> {
        Ok(Self {
            inner: Arc::new(Accelerator::from_json(spec).python()?),
            calibration: Arc::new(Calibration::from_json(calibration).python()?),
        })
    }
}

fn small(field: &str, value: &Bound<'_, PyAny>) -> PyResult<u64> {
    let size = count(field, value)?;
    if (1..=65_536).contains(&size) { Ok(size) } else { Err(spec(field, size, "must be between 1 and 65536")) }
}

fn limit_heads(heads: u64) -> PyResult<u64> {
    if heads <= 65_536 { Ok(heads) } else { Err(spec("num_heads", heads, "must be at most 65536")) }
}

/// Storage of the weight and operand type: without `weight_dtype` the weight is stored as it is multiplied.
fn stored(dtype: &str, weight_dtype: Option<&str>) -> PyResult<(WeightFormat, roofsim_core::format::ComputeDType)> {
    let compute = compute_dtype("dtype", dtype)?;
    let format = match weight_dtype {
        Some(name) => WeightFormat::parse("weight_dtype", name).python()?,
        None if compute.name() == "tf32" => WeightFormat::Fp32,
        None => {
            WeightFormat::parse("dtype", dtype).or_else(|_| WeightFormat::parse("dtype", compute.name())).python()?
        }
    };
    Ok((format, compute))
}

impl PyAccelerator {
    /// An accelerator as it is, or whatever `Accelerator.load` reads.
    pub(crate) fn coerce(py: Python<'_>, source: &Bound<'_, PyAny>) -> PyResult<Self> {
        if let Ok(own) = source.extract::<Self>() { Ok(own) } else { Self::read(py, Some(source), None) }
    }

    fn read(py: Python<'_>, source: Option<&Bound<'_, PyAny>>, fields: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        let read = py.import("roofsim.catalog")?.getattr("accelerator_text")?;
        Self::from_json(&read.call1((source, fields))?.extract::<String>()?)
    }

    fn machine(&self) -> Machine<'_> {
        Machine::new(&self.inner, &self.calibration, Pace::Burst)
    }

    fn cost(&self, name: &'static str, cost: OpCost) -> PyOpCost {
        PyOpCost { name, count: 1, cost, seconds_per_byte: self.machine().seconds_per_byte }
    }
}
