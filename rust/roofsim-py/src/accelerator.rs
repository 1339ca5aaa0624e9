//! `roofsim.Accelerator`.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyType};
use roofsim_core::calibration::Calibration;
use roofsim_core::hardware::Accelerator;

use crate::arguments::{Word, compute_dtype};
use crate::calibration::{PyCalibration, choose};
use crate::error::IntoPython;

/// An accelerator as its datasheet describes it, with the calibration its operations are costed under.
///
/// Keyword arguments are the fields of a spec file; `name`, `memory_bytes`, `memory_bandwidth_bytes_per_s` and one entry of
/// `peak_flops_per_s` are required, everything else stays unknown when absent. Link bandwidth is per direction; peaks are
/// dense. `Accelerator.load` reads the catalogue, files and mappings.
///
/// Raises
/// ------
/// SpecError
///     A field is missing, unknown, of the wrong type or beyond its limit; field, value and rule are named.
///
/// Examples
/// --------
/// >>> import roofsim as rs
/// >>> ours = rs.Accelerator(name="ours", memory_bytes=10**11, memory_bandwidth_bytes_per_s=4e12,
/// ...                       peak_flops_per_s={"bf16": 1e15})
/// >>> ours.balance("bf16")
/// 250.0
#[pyclass(name = "Accelerator", module = "roofsim", frozen, from_py_object)]
#[derive(Clone)]
pub(crate) struct PyAccelerator {
    pub(crate) inner: Arc<Accelerator>,
    pub(crate) calibration: Arc<Calibration>,
}

#[pymethods]
impl PyAccelerator {
    /// Build a machine from its fields: what a spec file holds, as keyword arguments.
    #[new]
    #[pyo3(signature = (**fields))]
    fn new(py: Python<'_>, fields: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        Self::read(py, None, fields)
    }

    /// Read a catalogue name, a spec file or a mapping; keyword arguments replace its fields.
    ///
    /// Parameters
    /// ----------
    /// source : str, path, mapping or Accelerator, optional
    ///     A name as people type it (`h100-sxm`, `NVIDIA H100 80GB HBM3`), a .toml or .json file, or the fields.
    /// **fields
    ///     Fields of a spec file, each replacing the one read.
    ///
    /// Returns
    /// -------
    /// Accelerator
    ///     Under its default calibration: its own constants where it was measured, else borrowed ones that say so.
    ///
    /// Raises
    /// ------
    /// SpecError
    ///     The name is unknown or means several entries (they are named), the file cannot be read, or a field is wrong.
    ///
    /// Examples
    /// --------
    /// >>> import roofsim as rs
    /// >>> rs.Accelerator.load("h100-sxm").memory_bandwidth_bytes_per_s
    /// 3350000000000.0
    /// >>> rs.Accelerator.load("h100-sxm", name="h100-fast", memory_bandwidth_bytes_per_s=5e12).balance("bf16")
    /// 197.8
    #[classmethod]
    #[pyo3(signature = (source = None, **fields))]
    fn load(
        _cls: &Bound<'_, PyType>,
        py: Python<'_>,
        source: Option<&Bound<'_, PyAny>>,
        fields: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        match (source, fields) {
            (Some(source), None) => Self::coerce(py, source),
            _ => Self::read(py, source, fields),
        }
    }

    /// Typical price of one device-hour in US dollars: the median of the catalogue's prices of one kind; None where none is known.
    ///
    /// Parameters
    /// ----------
    /// kind : str
    ///     `on-demand`, `reserved` or `cost-of-ownership`; kinds are never mixed.
    ///
    /// Raises
    /// ------
    /// SpecError
    ///     The kind does not exist.
    #[pyo3(signature = (kind = Word::from("on-demand")), text_signature = "($self, kind='on-demand')")]
    fn usd_per_hour(&self, kind: Word) -> PyResult<Option<f64>> {
        self.inner.usd_per_hour(kind.text("price_kind")?).python()
    }

    /// Read the JSON text of a spec.
    ///
    /// Raises
    /// ------
    /// SpecError
    ///     As the class.
    #[staticmethod]
    fn from_json(text: Word) -> PyResult<Self> {
        Self::parse(text.text("text")?)
    }

    /// JSON text of the spec that `from_json` reads back equal; the calibration is not part of it.
    fn to_json(&self) -> String {
        self.inner.to_json()
    }

    /// The same device under another calibration.
    ///
    /// Parameters
    /// ----------
    /// calibration : str, path, mapping or Calibration
    ///     `ideal` (the bare roofline), `calibrated` (the device's default), a calibration's name, file or contents.
    ///
    /// Raises
    /// ------
    /// SpecError
    ///     As `Calibration.load`.
    ///
    /// Examples
    /// --------
    /// >>> import roofsim as rs
    /// >>> rs.Accelerator.load("h100-sxm").with_calibration("ideal").gemm(m=1, n=8192, k=8192).bound
    /// 'memory'
    fn with_calibration(&self, py: Python<'_>, calibration: &Bound<'_, PyAny>) -> PyResult<Self> {
        let chosen = choose(py, Some(calibration), &self.inner)?;
        Ok(Self {
            calibration: chosen.unwrap_or_else(|| Arc::new(Calibration::default_for(&self.inner))),
            inner: Arc::clone(&self.inner),
        })
    }

    /// The calibration in force.
    #[getter]
    fn calibration(&self) -> PyCalibration {
        PyCalibration { inner: Arc::clone(&self.calibration) }
    }

    /// Catalogue name, lower case with the variant.
    #[getter]
    fn name(&self) -> &str {
        &self.inner.name
    }

    /// Maker; `unknown` where the spec names none.
    #[getter]
    fn vendor(&self) -> &str {
        &self.inner.vendor
    }

    /// Architecture family, by which unmeasured devices borrow a calibration.
    #[getter]
    fn family(&self) -> &str {
        &self.inner.family
    }

    /// Streaming multiprocessors, compute units or cores; None where unknown.
    #[getter]
    fn num_compute_units(&self) -> Option<u64> {
        self.inner.num_compute_units
    }

    /// Device memory as the driver reports it, bytes.
    #[getter]
    fn memory_bytes(&self) -> u64 {
        self.inner.memory_bytes
    }

    /// Peak memory bandwidth W, bytes/s.
    #[getter]
    fn memory_bandwidth_bytes_per_s(&self) -> f64 {
        self.inner.memory_bandwidth_bytes_per_s
    }

    /// Board power limit, watts; None where unknown.
    #[getter]
    fn power_w(&self) -> Option<f64> {
        self.inner.power_w
    }

    /// Dense peaks P by dtype, FLOP/s (never 2:4-sparse).
    #[getter]
    fn peak_flops_per_s<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let peaks = PyDict::new(py);
        for (dtype, peak) in &self.inner.peak_flops_per_s {
            peaks.set_item(dtype.name(), peak)?;
        }
        Ok(peaks)
    }

    /// Machine balance (ridge point) I* = P / W, FLOP per byte: below it an operation is memory-bound, above it compute-bound.
    ///
    /// Leaves out caches and what kernels reach: both terms are datasheet peaks. Source: Williams, Waterman, Patterson,
    /// "Roofline", CACM 52(4), 2009.
    ///
    /// Parameters
    /// ----------
    /// dtype : str
    ///     Operand type.
    ///
    /// Raises
    /// ------
    /// SpecError, UnsupportedError
    ///     The dtype is unknown, or the device lists no peak for it.
    ///
    /// Examples
    /// --------
    /// >>> import roofsim as rs
    /// >>> round(rs.Accelerator.load("h100-sxm").balance("bf16"), 1)
    /// 295.2
    #[pyo3(signature = (dtype = Word::from("bf16")), text_signature = "($self, dtype='bf16')")]
    fn balance(&self, dtype: Word) -> PyResult<f64> {
        self.inner.balance(compute_dtype("dtype", dtype.text("dtype")?)?).python()
    }

    fn __repr__(&self) -> String {
        let a = &self.inner;
        format!(
            "Accelerator({:?}, {:.1} GB, {:.0} GB/s, {})",
            a.name,
            a.memory_bytes as f64 / 1e9,
            a.memory_bandwidth_bytes_per_s / 1e9,
            self.calibration.name
        )
    }

    fn __eq__(&self, other: &Self) -> bool {
        self.inner == other.inner && self.calibration == other.calibration
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, (String, String))> {
        let build = py.get_type::<Self>().getattr("_rebuild")?;
        Ok((build, (self.inner.to_json(), self.calibration.to_json())))
    }

    #[staticmethod]
    #[pyo3(name = "_rebuild")]
    fn rebuild(spec: &str, calibration: &str) -> PyResult<Self> {
        Ok(Self {
            inner: Arc::new(Accelerator::from_json(spec).python()?),
            calibration: Arc::new(Calibration::from_json(calibration).python()?),
        })
    }
}

impl PyAccelerator {
    /// An accelerator as it is, or whatever `Accelerator.load` reads.
    pub(crate) fn coerce(py: Python<'_>, source: &Bound<'_, PyAny>) -> PyResult<Self> {
        if let Ok(own) = source.extract::<Self>() { Ok(own) } else { Self::read(py, Some(source), None) }
    }

    fn read(py: Python<'_>, source: Option<&Bound<'_, PyAny>>, fields: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        let read = py.import("roofsim.catalog")?.getattr("accelerator_text")?;
        Self::parse(&read.call1((source, fields))?.extract::<String>()?)
    }

    fn parse(text: &str) -> PyResult<Self> {
        let inner = Arc::new(Accelerator::from_json(text).python()?);
        let calibration = Arc::new(Calibration::default_for(&inner));
        Ok(Self { inner, calibration })
    }
}
