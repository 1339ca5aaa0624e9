//! Core errors become Python exceptions; all of them live in `roofsim.errors`, so that they pickle.

use pyo3::PyErr;
use pyo3::exceptions::PyKeyboardInterrupt;
use roofsim_core::Error;

mod classes {
    use pyo3::import_exception;

    import_exception!(roofsim.errors, SpecError);
    import_exception!(roofsim.errors, UnsupportedError);
    import_exception!(roofsim.errors, CountOverflowError);
}

/// Maps one error.
pub(crate) fn to_python(error: Error) -> PyErr {
    match error {
        Error::Spec { field, value, rule } => classes::SpecError::new_err((field, value, rule)),
        Error::Unsupported { field, value, rule } => classes::UnsupportedError::new_err((field, value, rule)),
        Error::CountOverflow { field, value, rule } => classes::CountOverflowError::new_err((field, value, rule)),
        Error::Interrupted => PyKeyboardInterrupt::new_err("the sweep was interrupted"),
    }
}

/// A `SpecError`.
pub(crate) fn spec(field: &str, value: impl ToString, rule: &str) -> PyErr {
    classes::SpecError::new_err((field.to_owned(), value.to_string(), rule.to_owned()))
}

/// Lets `?` carry core errors out.
pub(crate) trait IntoPython<T> {
    /// Maps the error.
    fn python(self) -> Result<T, PyErr>;
}

impl<T> IntoPython<T> for roofsim_core::Result<T> {
    fn python(self) -> Result<T, PyErr> {
        self.map_err(to_python)
    }
}
