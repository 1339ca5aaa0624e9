//! Python arguments to core values, each refusal naming the field, the value and the rule.

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyFloat, PyString};
use roofsim_core::format::{ComputeDType, KvFormat, WeightFormat};

use crate::error::{IntoPython, spec};

/// `repr` of a value, cut short.
pub(crate) fn shown(value: &Bound<'_, PyAny>) -> String {
    let text = value.repr().map_or_else(|_| "<unprintable>".to_owned(), |r| r.to_string());
    if text.chars().count() > 60 { text.chars().take(57).chain("...".chars()).collect() } else { text }
}

/// A whole number of at least 0: a Python or `NumPy` integer, never a bool or a float.
pub(crate) fn count(field: &str, value: &Bound<'_, PyAny>) -> PyResult<u64> {
    const RULE: &str = "must be a whole number of at least 0 and below 2^64";
    if value.is_instance_of::<PyBool>() || value.is_instance_of::<PyFloat>() {
        return Err(spec(field, shown(value), RULE));
    }
    value.extract::<u64>().map_err(|_| spec(field, shown(value), RULE))
}

/// A count with a default.
pub(crate) fn count_or(field: &str, value: Option<&Bound<'_, PyAny>>, default: u64) -> PyResult<u64> {
    value.map_or(Ok(default), |value| count(field, value))
}

/// A finite number.
pub(crate) fn number(field: &str, value: &Bound<'_, PyAny>) -> PyResult<f64> {
    // NumPy's booleans turn into floats without complaint.
    let flag = value.is_instance_of::<PyBool>() || value.get_type().name().is_ok_and(|name| name == "bool");
    let number = if flag { None } else { value.extract::<f64>().ok() };
    number.filter(|x| x.is_finite()).ok_or_else(|| spec(field, shown(value), "must be a finite number"))
}

/// A string.
pub(crate) fn text(field: &str, value: &Bound<'_, PyAny>) -> PyResult<String> {
    match value.cast::<PyString>() {
        Ok(text) => Ok(text.to_string_lossy().into_owned()),
        Err(_) => Err(spec(field, shown(value), "must be a string")),
    }
}

/// An argument that must be a string: what else was given is refused under its own name, not as a `TypeError`.
pub(crate) enum Word {
    /// A string.
    Text(String),
    /// Something else, as shown.
    Other(String),
}

impl From<&str> for Word {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl<'py> FromPyObject<'_, 'py> for Word {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        Ok(match value.cast::<PyString>() {
            Ok(text) => Self::Text(text.to_string_lossy().into_owned()),
            Err(_) => Self::Other(shown(&value)),
        })
    }
}

impl Word {
    /// The string, or a refusal that names the field.
    pub(crate) fn text(&self, field: &str) -> PyResult<&str> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Other(shown) => Err(spec(field, shown, "must be a string")),
        }
    }
}

/// A weight format; `auto` and `None` mean as published.
pub(crate) fn weight_format(value: Option<&Bound<'_, PyAny>>) -> PyResult<Option<WeightFormat>> {
    optional_format("weight_dtype", value, WeightFormat::parse)
}

/// A KV format; `auto` and `None` mean as published.
pub(crate) fn kv_format(value: Option<&Bound<'_, PyAny>>) -> PyResult<Option<KvFormat>> {
    optional_format("kv_cache_dtype", value, KvFormat::parse)
}

fn optional_format<F>(
    field: &str,
    value: Option<&Bound<'_, PyAny>>,
    parse: impl Fn(&str, &str) -> roofsim_core::Result<F>,
) -> PyResult<Option<F>> {
    let Some(value) = value.filter(|v| !v.is_none()) else { return Ok(None) };
    let name = text(field, value)?;
    if name.eq_ignore_ascii_case("auto") { Ok(None) } else { parse(field, &name).map(Some).python() }
}

/// The operand type of the matrix units.
pub(crate) fn compute_dtype(field: &str, name: &str) -> PyResult<ComputeDType> {
    ComputeDType::parse(field, name).python()
}

/// One value or a sequence of values.
pub(crate) fn each<'py>(value: &Bound<'py, PyAny>) -> PyResult<Vec<Bound<'py, PyAny>>> {
    let single = value.is_instance_of::<PyString>() || value.is_none() || value.try_iter().is_err();
    if single { Ok(vec![value.clone()]) } else { value.try_iter()?.collect() }
}
