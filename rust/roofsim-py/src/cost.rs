//! `roofsim.OpCost` and `roofsim.StepCost`.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use roofsim_core::roofline::OpCost;
use roofsim_core::step::OpRow;
use roofsim_core::workload::Batch;

use crate::deployment::PyDeployment;

/// What an operation's cost is made of: name, count, the numbers, seconds per byte.
type OpParts = (String, u64, Vec<f64>, f64);
/// Runs of (requests, query_tokens, context_tokens).
type Runs = Vec<(u64, u64, u64)>;

macro_rules! cost_getters {
    ($class:ty { $($extra:item)* }) => {
        #[pymethods]
        impl $class {
            /// Predicted time, seconds; the bound itself in `ideal`.
            #[getter]
            fn time_s(&self) -> f64 { self.cost.time_s }
            /// Lower end of the interval, seconds; never below `ideal_s`.
            #[getter]
            fn time_low_s(&self) -> f64 { self.cost.time_low_s }
            /// Upper end of the interval, seconds.
            #[getter]
            fn time_high_s(&self) -> f64 { self.cost.time_high_s }
            /// The bare roofline's time, seconds: a lower bound for cold caches.
            #[getter]
            fn ideal_s(&self) -> f64 { self.cost.ideal_s }
            /// Time of the arithmetic at its calibrated rate, seconds.
            #[getter]
            fn compute_s(&self) -> f64 { self.cost.compute_s }
            /// Time of the memory traffic at its calibrated rate, seconds.
            #[getter]
            fn memory_s(&self) -> f64 { self.cost.memory_s }
            /// Time of the link traffic, seconds.
            #[getter]
            fn network_s(&self) -> f64 { self.cost.network_s }
            /// Time of launches, waves and reductions, seconds.
            #[getter]
            fn overhead_s(&self) -> f64 { self.cost.overhead_s }
            /// The largest part: `compute`, `memory`, `network` or `overhead`.
            #[getter]
            fn bound(&self) -> &'static str { self.cost.bound().name() }
            /// FLOPs (a multiply and an add are two).
            #[getter]
            fn flops(&self) -> f64 { self.cost.flops }
            /// Bytes to and from device memory.
            #[getter]
            fn bytes(&self) -> f64 { self.cost.bytes }
            /// FLOPs per byte of memory traffic; NaN where there is neither.
            #[getter]
            fn arithmetic_intensity(&self) -> f64 { self.cost.arithmetic_intensity() }
            /// Model FLOPs utilisation: sum of F / P over the time, each F at the peak of its own dtype.
            #[getter]
            fn mfu(&self) -> f64 { self.cost.mfu() }
            /// Model bandwidth utilisation: bytes / (W time).
            #[getter]
            fn mbu(&self) -> f64 { self.cost.mbu(self.seconds_per_byte) }
            $($extra)*
        }
    };
}

/// Cost of running one operation once on one device.
///
/// `compute_s` and `memory_s` are efficiency-adjusted; `time_s` is not their sum, since arithmetic and traffic overlap.
///
/// Examples
/// --------
/// >>> import roofsim as rs
/// >>> rs.Accelerator.load("h100-sxm").with_calibration("ideal").gemm(m=8192, n=8192, k=8192)
/// OpCost(gemm x1: 1111.741 us, compute-bound, 1.0995e12 FLOPs, 4.0265e8 bytes)
#[pyclass(name = "OpCost", module = "roofsim", frozen)]
pub(crate) struct PyOpCost {
    pub(crate) name: Cow<'static, str>,
    pub(crate) count: u64,
    pub(crate) cost: OpCost,
    pub(crate) seconds_per_byte: f64,
}

cost_getters!(PyOpCost {
    /// Operation, as engines name it.
    #[getter]
    fn name(&self) -> &str { &self.name }
    /// How often it runs in the step.
    #[getter]
    fn count(&self) -> u64 { self.count }

    fn __eq__(&self, other: &Self) -> bool {
        (&self.name, self.count, self.cost) == (&other.name, other.count, other.cost)
            && self.seconds_per_byte == other.seconds_per_byte
    }

    fn __hash__(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.name, self.count, self.cost.time_s.to_bits()).hash(&mut hasher);
        hasher.finish()
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, OpParts)> {
        let parts = (self.name.to_string(), self.count, self.cost.to_array().to_vec(), self.seconds_per_byte);
        Ok((py.get_type::<Self>().getattr("_rebuild")?, parts))
    }

    #[staticmethod]
    #[pyo3(name = "_rebuild")]
    fn rebuild(name: String, count: u64, numbers: [f64; OpCost::NUM_FIELDS], seconds_per_byte: f64) -> Self {
        Self { name: Cow::Owned(name), count, cost: OpCost::from_array(numbers), seconds_per_byte }
    }

    fn __repr__(&self) -> String {
        let cost = &self.cost;
        format!(
            "OpCost({} x{}: {:.3} us, {}-bound, {:.4e} FLOPs, {:.4e} bytes)",
            self.name, self.count, 1e6 * cost.time_s, cost.bound().name(), cost.flops, cost.bytes
        )
    }
});

/// Cost of one forward step of a deployment, on its slowest rank: the sum of its operations, each times its count.
///
/// Examples
/// --------
/// >>> import roofsim as rs
/// >>> dep = rs.Deployment("llama-3.1-70b", "h100-sxm", tensor_parallel_size=4, calibration="ideal")
/// >>> step = dep.decode(batch_size=32, context_tokens=4096)
/// >>> max(step.ops, key=lambda op: op.count * op.time_s).name
/// 'gate_up_proj'
#[pyclass(name = "StepCost", module = "roofsim", frozen)]
pub(crate) struct PyStepCost {
    owner: Py<PyDeployment>,
    batch: Batch,
    cost: OpCost,
    seconds_per_byte: f64,
}

impl PyStepCost {
    fn rows(&self, table: Vec<OpRow>) -> Vec<PyOpCost> {
        let row = |row: OpRow| PyOpCost {
            name: Cow::Borrowed(row.name),
            count: row.count,
            cost: row.cost,
            seconds_per_byte: self.seconds_per_byte,
        };
        table.into_iter().map(row).collect()
    }

    pub(crate) fn new(owner: &Bound<'_, PyDeployment>, batch: Batch) -> Self {
        let step = &owner.get().inner.step;
        Self { cost: step.cost(&batch), seconds_per_byte: step.seconds_per_byte, owner: owner.clone().unbind(), batch }
    }
}

cost_getters!(PyStepCost {
    /// One OpCost per distinct operation, in the order in which the step's time sums them; `count` says how often it runs.
    #[getter]
    fn ops(&self) -> Vec<PyOpCost> {
        self.rows(self.owner.get().inner.step.table(&self.batch))
    }
    /// The same operations in the order of a forward pass.
    #[getter]
    fn forward_pass(&self) -> Vec<PyOpCost> {
        self.rows(self.owner.get().inner.step.forward_pass(&self.batch))
    }
    /// Energy of the step over all devices, joules; None where nobody measured the device's power.
    ///
    /// E = idle t + compute F/P + memory bytes/W per device, with the powers of `Calibration.power`. Leaves out links and the host.
    #[getter]
    fn energy_j(&self) -> Option<f64> { self.owner.get().inner.energy_j(&self.cost) }
    /// Shapes of the kernels behind `ops`, one dict each: `name`, `count`, `family` ("gemm", "grouped_gemm",
    /// "attention", "elementwise"), formats and sizes by name. Communication and latent attention have none.
    #[getter]
    fn shapes<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let to_dict = |shape: roofsim_core::step::OpShape| {
            let dict = PyDict::new(py);
            dict.set_item("name", shape.name)?;
            dict.set_item("count", shape.count)?;
            dict.set_item("family", shape.family)?;
            for (name, format) in shape.formats {
                dict.set_item(name, format)?;
            }
            for (name, size) in shape.sizes {
                dict.set_item(name, size)?;
            }
            if let Some((name, bytes)) = shape.bytes {
                dict.set_item(name, bytes)?;
            }
            Ok(dict)
        };
        self.owner.get().inner.step.shapes(&self.batch).into_iter().map(to_dict).collect()
    }
    fn __eq__(&self, other: &Self) -> bool {
        let (mine, theirs) = (&self.owner.get().inner, &other.owner.get().inner);
        self.cost == other.cost && self.batch == other.batch && (Arc::ptr_eq(mine, theirs) || **mine == **theirs)
    }

    fn __hash__(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.cost.time_s.to_bits(), self.batch.rows()).hash(&mut hasher);
        hasher.finish()
    }

    /// In another process the same deployment is asked again.
    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, (Runs,))> {
        let runs = self.batch.runs().iter().map(|(n, request)| (*n, request.query_tokens, request.context_tokens));
        Ok((self.owner.bind(py).getattr("_step_of_runs")?, (runs.collect(),)))
    }

    /// Name of the calibration behind the numbers.
    #[getter]
    fn calibration(&self) -> &str { &self.owner.get().inner.calibration.name }
    fn __repr__(&self) -> String {
        let cost = &self.cost;
        format!(
            "StepCost({:.4} ms [{:.4}, {:.4}], {}-bound, MFU {:.3}, MBU {:.3})",
            1e3 * cost.time_s, 1e3 * cost.time_low_s, 1e3 * cost.time_high_s, cost.bound().name(),
            cost.mfu(), cost.mbu(self.seconds_per_byte)
        )
    }
});
