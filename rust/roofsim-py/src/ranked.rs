//! Rows that were chosen, as NumPy arrays: the values they were chosen by, and their numbers.

use numpy::{PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;
use pyo3::types::PyList;

/// Values, row by row, and row numbers: an array of unsigned 64-bit integers, or a list where one is larger.
pub(crate) type Ranked<'py> = (Bound<'py, PyArray1<f64>>, Bound<'py, PyAny>);

/// Row numbers as Python gives them back.
#[derive(FromPyObject)]
pub(crate) enum Numbers<'py> {
    Array(PyReadonlyArray1<'py, u64>),
    List(Vec<u128>),
}

impl Numbers<'_> {
    pub(crate) fn rows(&self) -> PyResult<Vec<u128>> {
        Ok(match self {
            Self::Array(array) => array.as_slice()?.iter().map(|&row| u128::from(row)).collect(),
            Self::List(rows) => rows.clone(),
        })
    }
}

/// The rows of a ranking.
pub(crate) fn ranked<'py>(py: Python<'py>, rows: &[(f64, u128)]) -> PyResult<Ranked<'py>> {
    let values = rows.iter().map(|(value, _)| *value).collect();
    Ok((PyArray1::from_vec(py, values), numbers(py, rows.iter().map(|(_, row)| *row))?))
}

/// The rows of a front.
pub(crate) fn points<'py>(py: Python<'py>, rows: &[(Vec<f64>, u128)]) -> PyResult<Ranked<'py>> {
    let values = rows.iter().flat_map(|(values, _)| values.iter().copied()).collect();
    Ok((PyArray1::from_vec(py, values), numbers(py, rows.iter().map(|(_, row)| *row))?))
}

fn numbers(py: Python<'_>, rows: impl ExactSizeIterator<Item = u128> + Clone) -> PyResult<Bound<'_, PyAny>> {
    match rows.clone().map(u64::try_from).collect::<Result<Vec<u64>, _>>() {
        Ok(rows) => Ok(PyArray1::from_vec(py, rows).into_any()),
        Err(_) => Ok(PyList::new(py, rows)?.into_any()),
    }
}
