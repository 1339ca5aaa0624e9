//! Python bindings: convert, leave the GIL, check signals, map errors. No arithmetic.

#![allow(
    clippy::doc_markdown,
    clippy::doc_lazy_continuation,
    clippy::doc_link_with_quotes,
    reason = "the comments on classes and methods are numpydoc: Python's help() shows them"
)]
#![allow(
    clippy::needless_pass_by_value,
    clippy::type_complexity,
    reason = "pyo3 hands arguments over by value and takes results as tuples"
)]

mod accelerator;
mod arguments;
mod arrow;
mod batch;
mod batches;
mod calibration;
mod capacity;
mod cost;
mod deployment;
mod error;
mod model;
mod operations;
mod plan;
mod ranked;
mod reductions;
mod search;
mod sweep;

use numpy::{PyArray1, PyArrayMethods};
use pyo3::prelude::*;
use roofsim_core::sweep::{Column, ColumnKind, Direction};

/// NumPy's functions are looked up at their first use and nothing may go wrong then, not even Ctrl-C: before a long
/// sweep, not in it, and not where nobody asks for arrays.
#[pyfunction]
#[pyo3(name = "_look_up_numpy")]
fn look_up_numpy(py: Python<'_>) {
    drop(PyArray1::<f64>::zeros(py, 0, false).readwrite());
}

/// The compiled core.
#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("DEBUG_BUILD", cfg!(debug_assertions))?;
    let columns: Vec<(&str, &str, &str)> = Column::ALL
        .iter()
        .map(|c| {
            let direction = match (c.kind(), c.direction()) {
                (ColumnKind::Code, _) => "none",
                (_, Direction::Higher) => "higher",
                (_, Direction::Lower) => "lower",
            };
            (c.name(), direction, c.doc())
        })
        .collect();
    module.add("COLUMNS", columns)?;
    module.add("ARCHITECTURES", roofsim_core::model::Model::known_architectures())?;
    module.add_class::<model::PyModel>()?;
    module.add_class::<accelerator::PyAccelerator>()?;
    module.add_class::<calibration::PyCalibration>()?;
    module.add_class::<cost::PyOpCost>()?;
    module.add_class::<cost::PyStepCost>()?;
    module.add_class::<deployment::PyDeployment>()?;
    module.add_class::<capacity::PyCapacity>()?;
    module.add_class::<sweep::PySpace>()?;
    module.add_function(wrap_pyfunction!(search::prefers_search, module)?)?;
    module.add_function(wrap_pyfunction!(search::search_top_k, module)?)?;
    module.add_function(wrap_pyfunction!(search::search_pareto, module)?)?;
    module.add_function(wrap_pyfunction!(search::prefers_group_search, module)?)?;
    module.add_function(wrap_pyfunction!(search::search_best_per_group, module)?)?;
    module.add_function(wrap_pyfunction!(look_up_numpy, module)?)?;
    reductions::add_to(module)?;
    batches::add_to(module)?;
    arrow::add_to(module)?;
    module.add_function(wrap_pyfunction!(batch::steady_power, module)?)?;
    module.add_function(wrap_pyfunction!(batch::step_costs, module)?)?;
    module.add_function(wrap_pyfunction!(batch::gemm_costs, module)?)?;
    module.add_function(wrap_pyfunction!(batch::attention_costs, module)?)?;
    module.add_function(wrap_pyfunction!(batch::latent_attention_costs, module)?)?;
    module.add_function(wrap_pyfunction!(batch::grouped_gemm_costs, module)?)?;
    module.add_function(wrap_pyfunction!(batch::elementwise_costs, module)?)?;
    module.add_function(wrap_pyfunction!(batch::dispatch_costs, module)?)?;
    module.add_function(wrap_pyfunction!(batch::collective_costs, module)?)?;
    module.add_function(wrap_pyfunction!(plan::plan, module)?)
}
