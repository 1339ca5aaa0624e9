//! Reductions of a sweep: the best rows of a range and of groups, counts, histograms, quantiles, and their joins.

use std::ops::Range;

use numpy::{PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use pyo3::wrap_pyfunction;
use roofsim_core::Error;
use roofsim_core::sweep::{
    Column, ColumnKind, Filter, GroupKey, Groups, Pareto, RELATIVE_ERROR, Runner, Scan, Sketch, Space, TopK,
    parse_filters,
};

use crate::arguments::count;
use crate::error::IntoPython;
use crate::ranked::{Numbers, Ranked, points, ranked};
use crate::sweep::{PySpace, detached, parse_columns};

/// Which rows a reduction sees, and how it runs: `(filters, rows, num_threads, progress)`.
#[derive(FromPyObject)]
pub(crate) struct Request(Vec<String>, Option<(u128, u128)>, usize, Option<Py<PyAny>>);

impl Request {
    pub(crate) fn filters(&self, space: &Space) -> PyResult<Vec<Filter>> {
        parse_filters(space, &self.0).python()
    }

    pub(crate) fn rows(&self) -> Option<Range<u128>> {
        self.1.map(|(start, end)| start..end)
    }

    pub(crate) fn runner(&self) -> Runner {
        Runner::new(self.2)
    }

    /// Runs `work` outside of the GIL.
    pub(crate) fn run<T: Send>(
        self,
        py: Python<'_>,
        space: &Space,
        work: impl FnOnce(&Scan<'_>, &mut dyn FnMut(u128, u128) -> std::ops::ControlFlow<()>) -> roofsim_core::Result<T>
        + Send,
    ) -> PyResult<T> {
        let (filters, rows, runner) = (self.filters(space)?, self.rows(), self.runner());
        detached(py, self.3, |tick| work(&Scan { runner, filters: &filters, rows }, tick))
    }
}

pub(crate) fn column(field: &str, name: &str) -> PyResult<Column> {
    Column::parse(field, name).python()
}

/// The k best rows of a range: their values and numbers.
#[pyfunction]
fn _top_k<'py>(
    py: Python<'py>,
    space: &PySpace,
    k: &Bound<'_, PyAny>,
    by: &str,
    request: Request,
) -> PyResult<Ranked<'py>> {
    let k = usize::try_from(count("k", k)?).unwrap_or(usize::MAX);
    let by = column("by", by)?;
    let found = request.run(py, &space.inner, |scan, tick| space.inner.top_k_of(scan, k, by, tick))?;
    ranked(py, &found.rows)
}

/// The Pareto front of a range in row order: its values, row by row, and the numbers of its rows.
#[pyfunction]
fn _pareto<'py>(py: Python<'py>, space: &PySpace, objectives: Vec<String>, request: Request) -> PyResult<Ranked<'py>> {
    let objectives = parse_columns("objectives", &objectives)?;
    let found = request.run(py, &space.inner, |scan, tick| space.inner.pareto_of(scan, &objectives, tick))?;
    points(py, &found.rows)
}

/// The k best rows of several results, best first.
fn joined(py: Python<'_>, k: usize, by: &str, results: &[TopK]) -> PyResult<TopK> {
    let direction = column("by", by)?.direction();
    let total = results.iter().map(|result| result.rows.len() as u128).sum();
    detached(py, None, |tick| {
        let go_on = || if tick(total, total).is_break() { Err(Error::Interrupted) } else { Ok(()) };
        TopK::join(results, k, direction, go_on)
    })
}

/// The k best of several results of `_top_k`.
#[pyfunction]
fn _join_top_k<'py>(
    py: Python<'py>,
    k: usize,
    by: &str,
    results: Vec<(PyReadonlyArray1<'py, f64>, Numbers<'py>)>,
) -> PyResult<Ranked<'py>> {
    let rows = |(values, rows): &(PyReadonlyArray1<'py, f64>, Numbers<'py>)| {
        Ok(TopK { rows: values.as_slice()?.iter().copied().zip(rows.rows()?).collect() })
    };
    let results = results.iter().map(rows).collect::<PyResult<Vec<_>>>()?;
    ranked(py, &joined(py, k, by, &results)?.rows)
}

/// The front of several results of `_pareto`.
#[pyfunction]
fn _join_pareto<'py>(
    py: Python<'py>,
    objectives: Vec<String>,
    results: Vec<(PyReadonlyArray1<'py, f64>, Numbers<'py>)>,
) -> PyResult<Ranked<'py>> {
    let objectives = parse_columns("objectives", &objectives)?;
    let rows = |(values, rows): &(PyReadonlyArray1<'py, f64>, Numbers<'py>)| {
        let values = values.as_slice()?.chunks_exact(objectives.len()).map(<[f64]>::to_vec);
        Ok(Pareto { rows: values.zip(rows.rows()?).collect() })
    };
    let results = results.iter().map(rows).collect::<PyResult<Vec<_>>>()?;
    let total = results.iter().map(|result| result.rows.len() as u128).sum();
    let front = detached(py, None, |tick| {
        let go_on = || if tick(total, total).is_break() { Err(Error::Interrupted) } else { Ok(()) };
        Pareto::join(&results, &objectives, go_on)
    })?;
    points(py, &front.rows)
}

/// Rows of a range that ranking by these columns leaves out, and the accelerators without a price, and without a
/// measured power.
#[pyfunction]
fn _unranked(
    space: &PySpace,
    columns: Vec<String>,
    rows: Option<(u128, u128)>,
) -> PyResult<(u128, Vec<String>, Vec<String>)> {
    let columns = parse_columns("columns", &columns)?;
    let found = space.inner.unranked(&columns, rows.map(|(start, end)| start..end)).python()?;
    Ok((found.num_configurations, found.without_price, found.without_power))
}

/// Groups between two looks for signals.
const LOOK: usize = 1 << 12;

/// Keys of groups as tuples of Python values: names, numbers, flags; None where null.
fn keys<'py, 'k>(
    py: Python<'py>,
    space: &Space,
    columns: &[Column],
    keys: impl Iterator<Item = &'k GroupKey>,
) -> PyResult<Vec<Bound<'py, PyTuple>>> {
    let known: Vec<_> = columns.iter().map(|&column| (column, space.names(column))).collect();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole numbers below 2^53")]
    let value = |(column, names): &(Column, Vec<String>), x: Option<f64>| -> PyResult<Bound<'py, PyAny>> {
        let Some(x) = x else { return Ok(py.None().into_bound(py)) };
        Ok(match column.kind() {
            ColumnKind::Float => x.into_pyobject(py)?.into_any(),
            ColumnKind::Count => (x as u64).into_pyobject(py)?.into_any(),
            ColumnKind::Flag => (x == 1.0).into_pyobject(py)?.to_owned().into_any(),
            ColumnKind::Code => names.get(x as usize).into_pyobject(py)?,
        })
    };
    let mut made = Vec::new();
    for key in keys {
        let values = known.iter().zip(key).map(|(column, x)| value(column, *x));
        made.push(PyTuple::new(py, values.collect::<PyResult<Vec<_>>>()?)?);
        if made.len() % LOOK == 0 {
            py.check_signals()?;
        }
    }
    Ok(made)
}

/// Keys of groups in their order, where the rows of each end, and all rows: their values and numbers.
pub(crate) type Keyed<'py> = (Vec<Bound<'py, PyTuple>>, Bound<'py, PyArray1<u64>>, Ranked<'py>);

/// The k best rows of every group.
#[pyfunction]
fn _best_per_group<'py>(
    py: Python<'py>,
    space: &PySpace,
    k: &Bound<'_, PyAny>,
    by: &str,
    group_by: Vec<String>,
    request: Request,
) -> PyResult<Keyed<'py>> {
    let k = usize::try_from(count("k", k)?).unwrap_or(usize::MAX);
    let (by, group_by) = (column("by", by)?, parse_columns("group_by", &group_by)?);
    let groups =
        request.run(py, &space.inner, |scan, tick| space.inner.best_per_group(scan, k, by, &group_by, tick))?;
    keyed(py, &space.inner, &group_by, &groups)
}

/// Groups with the Python values of their columns, the rows of all in one array.
pub(crate) fn keyed<'py>(py: Python<'py>, space: &Space, group_by: &[Column], groups: &Groups) -> PyResult<Keyed<'py>> {
    let (ends, rows) = detached(py, None, |tick| {
        let (mut ends, mut rows) = (Vec::with_capacity(groups.len()), Vec::new());
        for group in groups {
            rows.extend_from_slice(&group.rows);
            ends.push(rows.len() as u64);
            if ends.len() % LOOK == 0 && tick(ends.len() as u128, groups.len() as u128).is_break() {
                return Err(Error::Interrupted);
            }
        }
        Ok((ends, rows))
    })?;
    let keys = keys(py, space, group_by, groups.iter().map(|group| &group.key))?;
    Ok((keys, PyArray1::from_vec(py, ends), ranked(py, &rows)?))
}

/// Rows by the values of columns as (key, rows) pairs, in the order of the keys.
#[pyfunction]
fn _counts<'py>(
    py: Python<'py>,
    space: &PySpace,
    by: Vec<String>,
    request: Request,
) -> PyResult<Vec<(Bound<'py, PyTuple>, u64)>> {
    let by = by.iter().map(|name| column("by", name)).collect::<PyResult<Vec<_>>>()?;
    let found = request.run(py, &space.inner, |scan, tick| space.inner.counts(scan, &by, tick))?;
    let keys = keys(py, &space.inner, &by, found.iter().map(|(group, _)| group))?;
    Ok(keys.into_iter().zip(found.iter().map(|(_, rows)| *rows)).collect())
}

/// Rows per bin, below, above and without a value.
#[pyfunction]
fn _histogram(
    py: Python<'_>,
    space: &PySpace,
    name: &str,
    edges: Vec<f64>,
    request: Request,
) -> PyResult<(Vec<u64>, u64, u64, u64)> {
    let column = column("column", name)?;
    let found = request.run(py, &space.inner, |scan, tick| space.inner.histogram(scan, column, &edges, tick))?;
    Ok((found.counts, found.below, found.above, found.null))
}

/// Cells with rows as (cell, rows) pairs, and rows without a value.
#[pyfunction]
fn _sketch(py: Python<'_>, space: &PySpace, name: &str, request: Request) -> PyResult<(Vec<(u32, u64)>, u64)> {
    let column = column("column", name)?;
    let found = request.run(py, &space.inner, |scan, tick| space.inner.sketch(scan, column, tick))?;
    Ok((found.cells.into_iter().collect(), found.null))
}

/// Quantiles of a sketch's cells; None without rows.
#[pyfunction]
fn _sketch_quantiles(cells: Vec<(u32, u64)>, shares: Vec<f64>) -> Vec<Option<f64>> {
    let sketch = Sketch { cells: cells.into_iter().collect(), null: 0 };
    shares.into_iter().map(|q| sketch.quantile(q)).collect()
}

/// The cells of several sketches together.
#[pyfunction]
fn _join_sketches(cells: Vec<Vec<(u32, u64)>>) -> Vec<(u32, u64)> {
    let mut whole = Sketch::default();
    for cells in cells {
        whole.join(&Sketch { cells: cells.into_iter().collect(), null: 0 });
    }
    whole.cells.into_iter().collect()
}

/// Exact quantiles; None without rows.
#[pyfunction]
fn _quantiles(
    py: Python<'_>,
    space: &PySpace,
    name: &str,
    shares: Vec<f64>,
    request: Request,
) -> PyResult<Vec<Option<f64>>> {
    let column = column("column", name)?;
    request.run(py, &space.inner, |scan, tick| space.inner.quantiles(scan, column, &shares, tick))
}

/// Adds the functions and the error of a sketch to the module.
pub(crate) fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("_SKETCH_RELATIVE_ERROR", RELATIVE_ERROR)?;
    module.add_function(wrap_pyfunction!(_top_k, module)?)?;
    module.add_function(wrap_pyfunction!(_pareto, module)?)?;
    module.add_function(wrap_pyfunction!(_join_top_k, module)?)?;
    module.add_function(wrap_pyfunction!(_unranked, module)?)?;
    module.add_function(wrap_pyfunction!(_join_pareto, module)?)?;
    module.add_function(wrap_pyfunction!(_best_per_group, module)?)?;
    module.add_function(wrap_pyfunction!(_counts, module)?)?;
    module.add_function(wrap_pyfunction!(_histogram, module)?)?;
    module.add_function(wrap_pyfunction!(_sketch, module)?)?;
    module.add_function(wrap_pyfunction!(_sketch_quantiles, module)?)?;
    module.add_function(wrap_pyfunction!(_join_sketches, module)?)?;
    module.add_function(wrap_pyfunction!(_quantiles, module)?)
}
