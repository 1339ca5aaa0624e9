//! Rows that were chosen, as NumPy arrays: the values they were chosen by, and their numbers.

use numpy::{PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;
use pyo3::types::PyList;
use roofsim_core::Error;

use crate::sweep::detached;

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

/// Rows copied between two looks at whether to go on.
const COPIED: usize = 1 << 16;

/// Copies rows apart into values and numbers, outside of the GIL and stopped by Ctrl-C.
fn apart<'py, R: Sync>(
    py: Python<'py>,
    rows: &[R],
    values_of: impl Fn(&R, &mut Vec<f64>) + Sync,
    number: impl Fn(&R) -> u128 + Sync,
) -> PyResult<Ranked<'py>> {
    let (values, numbers, large) = detached(py, None, |tick| {
        let (mut values, mut numbers, mut large) = (Vec::new(), Vec::with_capacity(rows.len()), Vec::new());
        for piece in rows.chunks(COPIED) {
            for row in piece {
                values_of(row, &mut values);
                match u64::try_from(number(row)) {
                    Ok(row) => numbers.push(row),
                    Err(_) => large.push(number(row)),
                }
            }
            let done = numbers.len() as u128;
            if tick(done, rows.len() as u128).is_break() {
                return Err(Error::Interrupted);
            }
        }
        Ok((values, numbers, large))
    })?;
    let numbers = if large.is_empty() {
        PyArray1::from_vec(py, numbers).into_any()
    } else {
        PyList::new(py, rows.iter().map(number))?.into_any()
    };
    Ok((PyArray1::from_vec(py, values), numbers))
}

/// The rows of a ranking.
pub(crate) fn ranked<'py>(py: Python<'py>, rows: &[(f64, u128)]) -> PyResult<Ranked<'py>> {
    apart(py, rows, |(value, _), values| values.push(*value), |(_, row)| *row)
}

/// The rows of a front.
pub(crate) fn points<'py>(py: Python<'py>, rows: &[(Vec<f64>, u128)]) -> PyResult<Ranked<'py>> {
    apart(py, rows, |(point, _), values| values.extend(point), |(_, row)| *row)
}
