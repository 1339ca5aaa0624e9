//! The exact search of a space: the same answers as its scans, and what finding them took.

use pyo3::prelude::*;
use roofsim_core::sweep::{Choice, Column, SearchReport};

use crate::arguments::count;
use crate::error::IntoPython;
use crate::ranked::{Ranked, points, ranked};
use crate::reductions::{Keyed, column, keyed};
use crate::sweep::{PySpace, detached, parse_columns, runner};

/// Rows of the space, rows evaluated, boxes bounded, deployments compiled.
type Report = (u128, u128, u64, u64);

const fn report(report: SearchReport) -> Report {
    (report.num_configurations, report.num_evaluated, report.num_bounded, report.num_compiled)
}

/// Whether a search should take less time than a scan, and why; a column that is none is refused by either.
#[pyfunction]
#[pyo3(name = "_prefers_search")]
pub(crate) fn prefers_search(space: &PySpace, kept: usize, objectives: Vec<String>) -> (bool, String) {
    match parse_columns("objectives", &objectives) {
        Ok(columns) => chosen(space.inner.prefers_search(kept, &columns)),
        Err(_) => (false, String::new()),
    }
}

/// The same for the best rows of groups.
#[pyfunction]
#[pyo3(name = "_prefers_group_search")]
pub(crate) fn prefers_group_search(space: &PySpace, k: usize, by: &str, group_by: Vec<String>) -> (bool, String) {
    match (Column::parse("by", by), parse_columns("group_by", &group_by)) {
        (Ok(by), Ok(group_by)) => chosen(space.inner.prefers_group_search(k, by, &group_by)),
        _ => (false, String::new()),
    }
}

fn chosen(choice: Choice) -> (bool, String) {
    (choice.search, choice.reason)
}

/// The k best rows: their values and numbers.
#[pyfunction]
#[pyo3(name = "_search_top_k")]
pub(crate) fn search_top_k<'py>(
    py: Python<'py>,
    space: &PySpace,
    k: &Bound<'_, PyAny>,
    by: &str,
    filters: Vec<String>,
    num_threads: usize,
    progress: Option<Py<PyAny>>,
) -> PyResult<(Ranked<'py>, Report)> {
    let k = usize::try_from(count("k", k)?).unwrap_or(usize::MAX);
    let column = Column::parse("by", by).python()?;
    let filters = space.filters(&filters)?;
    let runner = runner(num_threads)?;
    let (best, done) = detached(py, progress, |tick| space.inner.search_top_k(runner, k, column, &filters, tick))?;
    Ok((ranked(py, &best.rows)?, report(done)))
}

/// The Pareto front in row order: its values, row by row, and the numbers of its rows.
#[pyfunction]
#[pyo3(name = "_search_pareto")]
pub(crate) fn search_pareto<'py>(
    py: Python<'py>,
    space: &PySpace,
    objectives: Vec<String>,
    filters: Vec<String>,
    num_threads: usize,
    progress: Option<Py<PyAny>>,
) -> PyResult<(Ranked<'py>, Report)> {
    let objectives = parse_columns("objectives", &objectives)?;
    let filters = space.filters(&filters)?;
    let runner = runner(num_threads)?;
    let (front, done) = detached(py, progress, |tick| space.inner.search_pareto(runner, &objectives, &filters, tick))?;
    Ok((points(py, &front.rows)?, report(done)))
}

/// The k best rows of every group.
#[pyfunction]
#[pyo3(name = "_search_best_per_group")]
#[expect(clippy::too_many_arguments, reason = "a question and how it is answered")]
pub(crate) fn search_best_per_group<'py>(
    py: Python<'py>,
    space: &PySpace,
    k: &Bound<'_, PyAny>,
    by: &str,
    group_by: Vec<String>,
    filters: Vec<String>,
    num_threads: usize,
    progress: Option<Py<PyAny>>,
) -> PyResult<(Keyed<'py>, Report)> {
    let k = usize::try_from(count("k", k)?).unwrap_or(usize::MAX);
    let (by, group_by) = (column("by", by)?, parse_columns("group_by", &group_by)?);
    let filters = space.filters(&filters)?;
    let runner = runner(num_threads)?;
    let (groups, done) =
        detached(py, progress, |tick| space.inner.search_best_per_group(runner, k, by, &group_by, &filters, tick))?;
    Ok((keyed(py, &space.inner, &group_by, &groups)?, report(done)))
}
