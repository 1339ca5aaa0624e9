//! `roofsim.OpCost` and `roofsim.StepCost`.

use std::sync::Arc;

use pyo3::prelude::*;
use roofsim_core::deployment::Deployment;
use roofsim_core::roofline::OpCost;
use roofsim_core::workload::Batch;

macro_rules! cost_getters {
    ($class:ty { $($extra:item)* }) => {
        #[pymethods]
        impl $class {
            #[getter]
            fn time_s(&self) -> f64 { self.cost.time_s }
            #[getter]
            fn time_low_s(&self) -> f64 { self.cost.time_low_s }
            #[getter]
            fn time_high_s(&self) -> f64 { self.cost.time_high_s }
            #[getter]
            fn ideal_s(&self) -> f64 { self.cost.ideal_s }
            #[getter]
            fn compute_s(&self) -> f64 { self.cost.compute_s }
            #[getter]
            fn memory_s(&self) -> f64 { self.cost.memory_s }
            #[getter]
            fn network_s(&self) -> f64 { self.cost.network_s }
            #[getter]
            fn overhead_s(&self) -> f64 { self.cost.overhead_s }
            #[getter]
            fn bound(&self) -> &'static str { self.cost.bound().name() }
            #[getter]
            fn flops(&self) -> f64 { self.cost.flops }
            #[getter]
            fn bytes(&self) -> f64 { self.cost.bytes }
            #[getter]
            fn arithmetic_intensity(&self) -> f64 { self.cost.arithmetic_intensity() }
            #[getter]
            fn mfu(&self) -> f64 { self.cost.mfu() }
            #[getter]
            fn mbu(&self) -> f64 { self.cost.mbu(self.seconds_per_byte) }
            $($extra)*
        }
    };
}

/// Cost of one operation on one device.
#[pyclass(name = "OpCost", module = "roofsim", frozen)]
pub(crate) struct PyOpCost {
    pub(crate) name: &'static str,
    pub(crate) count: u64,
    pub(crate) cost: OpCost,
    pub(crate) seconds_per_byte: f64,
}

cost_getters!(PyOpCost {
    #[getter]
    fn name(&self) -> &'static str { self.name }
    #[getter]
    fn count(&self) -> u64 { self.count }
    fn __repr__(&self) -> String {
        let cost = &self.cost;
        format!(
            "OpCost({} x{}: {:.3} us, {}-bound, {:.4e} FLOPs, {:.4e} bytes)",
            self.name, self.count, 1e6 * cost.time_s, cost.bound().name(), cost.flops, cost.bytes
        )
    }
});

/// Cost of one forward step of a deployment.
#[pyclass(name = "StepCost", module = "roofsim", frozen)]
pub(crate) struct PyStepCost {
    pub(crate) deployment: Arc<Deployment>,
    pub(crate) batch: Batch,
    pub(crate) cost: OpCost,
    pub(crate) seconds_per_byte: f64,
}

cost_getters!(PyStepCost {
    /// One OpCost per distinct operation; `count` says how often it runs.
    #[getter]
    fn ops(&self) -> Vec<PyOpCost> {
        let rows = self.deployment.step.table(&self.batch).into_iter();
        rows.map(|row| PyOpCost {
            name: row.name,
            count: row.count,
            cost: row.cost,
            seconds_per_byte: self.seconds_per_byte,
        })
        .collect()
    }
    /// Name of the calibration behind the numbers.
    #[getter]
    fn calibration(&self) -> &str { &self.deployment.calibration.name }
    fn __repr__(&self) -> String {
        let cost = &self.cost;
        format!(
            "StepCost({:.4} ms [{:.4}, {:.4}], {}-bound, MFU {:.3}, MBU {:.3})",
            1e3 * cost.time_s, 1e3 * cost.time_low_s, 1e3 * cost.time_high_s, cost.bound().name(),
            cost.mfu(), cost.mbu(self.seconds_per_byte)
        )
    }
});
