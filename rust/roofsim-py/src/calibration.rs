//! `roofsim.Calibration`.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyType};
use roofsim_core::calibration::Calibration;
use roofsim_core::hardware::Accelerator;

use crate::arguments::Word;
use crate::error::IntoPython;

/// Which law with which constants stands for a device, a kernel library and a dtype.
///
/// A calibration never prices an operation below the bare roofline: efficiencies lie in (0, 1], overheads are not negative.
///
/// Examples
/// --------
/// >>> import roofsim as rs
/// >>> rs.Accelerator.load("h100-sxm").calibration.provenance["basis"]
/// 'prototype'
#[pyclass(name = "Calibration", module = "roofsim", frozen, from_py_object)]
#[derive(Clone)]
pub(crate) struct PyCalibration {
    pub(crate) inner: Arc<Calibration>,
}

#[pymethods]
impl PyCalibration {
    /// The bare roofline: datasheet rates, no overhead. A provable lower bound for cold caches, not a prediction.
    #[staticmethod]
    fn ideal() -> Self {
        Self { inner: Arc::new(Calibration::ideal()) }
    }

    /// Read a calibration in the box by name, a .json file, or a mapping.
    ///
    /// Raises
    /// ------
    /// SpecError
    ///     The name or file is unknown, or a constant would break a law (field, value and rule are named).
    #[classmethod]
    fn load(_cls: &Bound<'_, PyType>, py: Python<'_>, source: &Bound<'_, PyAny>) -> PyResult<Self> {
        let read = py.import("roofsim.catalog")?.getattr("read_calibration")?;
        Self::from_json(Word::Text(read.call1((source,))?.extract()?))
    }

    /// Read JSON text as `to_json` writes it.
    ///
    /// Raises
    /// ------
    /// SpecError
    ///     As `Calibration.load`.
    #[staticmethod]
    fn from_json(text: Word) -> PyResult<Self> {
        Ok(Self { inner: Arc::new(Calibration::from_json(text.text("calibration")?).python()?) })
    }

    /// JSON text that `from_json` reads back equal.
    fn to_json(&self) -> String {
        self.inner.to_json()
    }

    /// Name: device, kernel library, basis.
    #[getter]
    fn name(&self) -> &str {
        &self.inner.name
    }

    /// Kernel library whose kernels were timed.
    #[getter]
    fn kernel_library(&self) -> &str {
        &self.inner.kernel_library
    }

    /// Stated coverage of the intervals, 0.8 for 80%; 1 for the bound, which is not uncertain.
    #[getter]
    fn coverage(&self) -> f64 {
        self.inner.intervals.coverage
    }

    /// Where the constants come from: `basis` (`ideal`, `prototype`, `measured` or `borrowed`), `device`, `software`, `date`,
    /// `num_points` (0 where unknown) and `note`.
    #[getter]
    fn provenance<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (p, row) = (&self.inner.provenance, PyDict::new(py));
        row.set_item("basis", &p.basis)?;
        row.set_item("device", &p.device)?;
        row.set_item("software", &p.software)?;
        row.set_item("date", &p.date)?;
        row.set_item("num_points", p.num_points)?;
        row.set_item("note", &p.note)?;
        Ok(row)
    }

    fn __repr__(&self) -> String {
        format!("Calibration({:?}, {})", self.inner.name, self.inner.provenance.basis)
    }

    fn __eq__(&self, other: &Self) -> bool {
        self.inner == other.inner
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, (String,))> {
        Ok((py.get_type::<Self>().getattr("from_json")?, (self.inner.to_json(),)))
    }
}

/// `None`, a name, a path, a mapping or a calibration; `None` and `"calibrated"` mean the device's default.
pub(crate) fn choose(
    py: Python<'_>,
    source: Option<&Bound<'_, PyAny>>,
    accelerator: &Accelerator,
) -> PyResult<Option<Arc<Calibration>>> {
    let Some(source) = source.filter(|s| !s.is_none()) else { return Ok(None) };
    if let Ok(own) = source.extract::<PyCalibration>() {
        return Ok(Some(own.inner));
    }
    match source.extract::<String>().as_deref() {
        Ok("ideal") => Ok(Some(Arc::new(Calibration::ideal()))),
        Ok("calibrated") => Ok(Some(Arc::new(Calibration::default_for(accelerator)))),
        _ => Ok(Some(PyCalibration::load(&py.get_type::<PyCalibration>(), py, source)?.inner)),
    }
}
