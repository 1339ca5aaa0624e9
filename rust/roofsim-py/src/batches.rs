//! Rows that pass, as NumPy arrays at once or in batches, and the same batches as an Arrow stream.

use std::sync::Arc;

use numpy::IntoPyArray;
use pyo3::prelude::*;
use pyo3::types::PyCapsule;
use pyo3::wrap_pyfunction;
use roofsim_core::sweep::{Batches, Column, Selection, Values};

use crate::arrow::{self, BatchReader};
use crate::error::{IntoPython, spec};
use crate::reductions::Request;
use crate::sweep::{PySpace, detached, fill, kind_of, parse_columns};

/// The name that stands for the row's number among columns.
pub(crate) const ROW: &str = "row";

/// The columns asked for: the core's, and where the row number stands among them.
pub(crate) struct Wanted {
    /// What the core evaluates.
    pub(crate) columns: Vec<Column>,
    /// For each name the place in `columns`; `None` is the row number.
    pub(crate) order: Vec<Option<usize>>,
}

impl Wanted {
    fn parse(names: &[String]) -> PyResult<Self> {
        if names.is_empty() {
            return Err(spec("columns", "[]", "must name at least one column"));
        }
        let mut wanted = Self { columns: Vec::new(), order: Vec::new() };
        for name in names {
            if name == ROW {
                wanted.order.push(None);
            } else {
                wanted.order.push(Some(wanted.columns.len()));
                wanted.columns.extend(parse_columns("columns", std::slice::from_ref(name))?);
            }
        }
        Ok(wanted)
    }
}

/// Row numbers (of neighbouring rows the first alone), null flags, and one array per column.
type Arrays<'py> = (Bound<'py, PyAny>, Bound<'py, PyAny>, Vec<Bound<'py, PyAny>>);

fn arrays(py: Python<'_>, found: Selection) -> Arrays<'_> {
    let columns = found.columns.into_iter().map(|values| match values {
        Values::Float(x) => x.into_pyarray(py).into_any(),
        Values::Count(x) => x.into_pyarray(py).into_any(),
        Values::Flag(x) => x.into_pyarray(py).into_any(),
        Values::Code(x) => x.into_pyarray(py).into_any(),
    });
    let columns = columns.collect();
    (found.rows.into_pyarray(py).into_any(), found.null.into_pyarray(py).into_any(), columns)
}

/// The rows of a range that pass, refused where they take more than `max_bytes`.
#[pyfunction]
fn _select<'py>(
    py: Python<'py>,
    space: &PySpace,
    columns: Vec<String>,
    max_bytes: u128,
    request: Request,
) -> PyResult<Arrays<'py>> {
    let columns = if columns.is_empty() { Vec::new() } else { parse_columns("columns", &columns)? };
    let found = request.run(py, &space.inner, |scan, tick| space.inner.select(scan, &columns, max_bytes, tick))?;
    Ok(arrays(py, found))
}

fn batches(space: &PySpace, columns: Vec<Column>, batch_rows: u64, request: &Request) -> PyResult<Batches> {
    let filters = request.filters(&space.inner)?;
    Batches::new(Arc::clone(&space.inner), request.runner(), columns, filters, request.rows(), batch_rows).python()
}

/// Batches of rows that pass, one after the other.
#[pyclass(name = "_Batches", module = "roofsim._core")]
pub(crate) struct PyBatches {
    inner: Batches,
}

#[pymethods]
impl PyBatches {
    #[new]
    fn new(space: &PySpace, columns: Vec<String>, batch_rows: u64, request: Request) -> PyResult<Self> {
        let columns = if columns.is_empty() { Vec::new() } else { parse_columns("columns", &columns)? };
        Ok(Self { inner: batches(space, columns, batch_rows, &request)? })
    }

    /// The next batch; None at the end.
    fn next<'py>(&mut self, py: Python<'py>, progress: Option<Py<PyAny>>) -> PyResult<Option<Arrays<'py>>> {
        let inner = &mut self.inner;
        if let Some(rows) = inner.next_rows() {
            if rows.is_empty() {
                return Ok(None);
            }
            let kinds: Vec<&str> = inner.columns().iter().map(|column| kind_of(*column)).collect();
            let memory = py.import("roofsim.columns")?.getattr("memory")?.call1((rows.end - rows.start, kinds))?;
            let (arrays, null): (Vec<Bound<'py, PyAny>>, Bound<'py, PyAny>) = memory.extract()?;
            fill(&arrays, &null, |outputs, null| detached(py, progress, |tick| inner.fill(outputs, null, tick)))?;
            return Ok(Some((rows.start.into_pyobject(py)?.into_any(), null, arrays)));
        }
        let found = detached(py, progress, |tick| inner.next(tick))?;
        Ok(found.map(|found| arrays(py, found)))
    }

    /// The row behind the last one that was looked at.
    #[getter]
    fn next_row(&self) -> u128 {
        self.inner.next_row()
    }
}

/// The same batches as an Arrow stream, made as they are asked for.
#[pyfunction]
fn _batches_stream<'py>(
    py: Python<'py>,
    space: &PySpace,
    columns: Vec<String>,
    batch_rows: u64,
    request: Request,
) -> PyResult<Bound<'py, PyCapsule>> {
    let wanted = Wanted::parse(&columns)?;
    let batches = batches(space, wanted.columns.clone(), batch_rows, &request)?;
    arrow::capsule(py, Box::new(BatchReader::new(batches, wanted)))
}

/// Adds the functions and the class to the module.
pub(crate) fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyBatches>()?;
    module.add_function(wrap_pyfunction!(_select, module)?)?;
    module.add_function(wrap_pyfunction!(_batches_stream, module)?)
}
