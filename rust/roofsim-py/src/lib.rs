//! Python bindings: convert, leave the GIL, check signals, map errors. No arithmetic.

use pyo3::prelude::*;

/// The compiled core.
#[pymodule]
fn _core(_module: &Bound<'_, PyModule>) -> PyResult<()> {
    Ok(())
}
