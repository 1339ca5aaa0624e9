//! `roofsim.Calibration`.

use std::collections::HashMap;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyType};
use roofsim_core::calibration::{Calibration, CalibrationChoice, Constant, kernel_libraries};
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
/// 'measured'
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

    /// Round numbers that no measurement stands behind: where every fit starts.
    #[staticmethod]
    fn assumed() -> Self {
        Self { inner: Arc::new(Calibration::assumed()) }
    }

    /// Names of the kernel libraries in the box. As a calibration such a word means that library's kernels on each device:
    /// its own, those of its family, or where only other libraries were measured its default, which says so.
    ///
    /// Examples
    /// --------
    /// >>> import roofsim as rs
    /// >>> rs.Calibration.kernel_libraries()
    /// ['torch', 'vllm', 'tensorrt-llm', 'sglang']
    #[staticmethod]
    fn kernel_libraries() -> Vec<&'static str> {
        kernel_libraries()
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

    /// The same laws for steps that follow one another without a pause: arithmetic at the rate that the device holds at its
    /// power limit, measured over about a second of unbroken load.
    ///
    /// By default a step is priced as a short run measures it, with pauses in which the clock recovers. The word
    /// ``sustained`` as a calibration means this of the default one.
    ///
    /// Examples
    /// --------
    /// >>> import roofsim as rs
    /// >>> short = rs.Deployment("llama-3.1-8b", "h100-sxm").prefill(prompt_tokens=4096)
    /// >>> long = rs.Deployment("llama-3.1-8b", "h100-sxm", calibration="sustained").prefill(prompt_tokens=4096)
    /// >>> bool(1.0 < long.time_s / short.time_s < 1.2)
    /// True
    fn sustained(&self) -> Self {
        Self { inner: Arc::new(self.inner.sustained()) }
    }

    /// Every constant of every law: dicts of `path` (`gemm.bf16.e_m`), `value`, `unit`, `domain` (`efficiency`: a millionth
    /// to 1; `fraction`; `slight`: at most 0.08; `non_negative`; `positive`) and `meaning`.
    ///
    /// Examples
    /// --------
    /// >>> import roofsim as rs
    /// >>> rs.Calibration.ideal().constants()[0]["path"]
    /// 'step.compute_rate'
    fn constants<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let row = |constant: Constant| {
            let row = PyDict::new(py);
            row.set_item("path", constant.path)?;
            row.set_item("value", constant.value)?;
            row.set_item("unit", constant.parameter.unit)?;
            row.set_item("domain", constant.parameter.domain.name())?;
            row.set_item("meaning", constant.parameter.meaning)?;
            Ok(row)
        };
        self.inner.constants().python()?.into_iter().map(row).collect()
    }

    /// The same calibration with some constants replaced.
    ///
    /// Parameters
    /// ----------
    /// values : dict
    ///     New values by path, in the units that `constants` gives.
    ///
    /// Raises
    /// ------
    /// SpecError
    ///     Nothing stands at a path, or a law refuses the value.
    fn with_constants(&self, values: HashMap<String, f64>) -> PyResult<Self> {
        let pairs = values.iter().map(|(path, value)| (path.as_str(), *value));
        Ok(Self { inner: Arc::new(self.inner.with_constants(pairs).python()?) })
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

    /// Powers of the device, watts: `idle_w`, `compute_w`, `memory_w`; None where nobody measured them.
    #[getter]
    fn power<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        let Some(power) = &self.inner.power else { return Ok(None) };
        let row = PyDict::new(py);
        row.set_item("idle_w", power.idle_w)?;
        row.set_item("compute_w", power.compute_w)?;
        row.set_item("memory_w", power.memory_w)?;
        Ok(Some(row))
    }

    /// Where the constants come from: `basis` (`ideal`, `assumed`, `measured` by this tool, `published` by others, or
    /// `borrowed`), `device` that was measured,
    /// `software`, `date`, `num_points`, `note`, and `errors`: by class and operand type, in percent of measured time.
    #[getter]
    fn provenance<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (p, row, errors) = (&self.inner.provenance, PyDict::new(py), PyDict::new(py));
        row.set_item("basis", &p.basis)?;
        row.set_item("device", &p.device)?;
        row.set_item("software", &p.software)?;
        row.set_item("date", &p.date)?;
        row.set_item("num_points", p.num_points)?;
        row.set_item("note", &p.note)?;
        for (name, error) in &p.errors {
            let class = PyDict::new(py);
            class.set_item("num_points", error.num_points)?;
            class.set_item("left_out", error.left_out)?;
            class.set_item("in_sample_percent", error.in_sample_percent)?;
            class.set_item("unseen_percent", error.unseen_percent)?;
            class.set_item("unseen_median_percent", error.unseen_median_percent)?;
            class.set_item("unseen_bias_percent", error.unseen_bias_percent)?;
            class.set_item("unseen_coverage", error.unseen_coverage)?;
            class.set_item("roofline_percent", error.roofline_percent)?;
            errors.set_item(name, class)?;
        }
        row.set_item("errors", errors)?;
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

/// `None`, a word, a name, a path, a mapping or a calibration. Words mean another calibration on each device: `"calibrated"`
/// its default, `"sustained"` the same under unbroken load, a kernel library that library's. `None` is left to the caller.
pub(crate) fn choose(
    py: Python<'_>,
    source: Option<&Bound<'_, PyAny>>,
    accelerator: &Accelerator,
) -> PyResult<Option<Arc<Calibration>>> {
    let Some(source) = source.filter(|s| !s.is_none()) else { return Ok(None) };
    match source.extract::<String>().ok().and_then(|word| CalibrationChoice::parse(&word)) {
        Some(word) => Ok(Some(word.on(accelerator))),
        None => read(py, source).map(Some),
    }
}

/// A name, a path, a mapping or a calibration: what means the same on every device.
pub(crate) fn read(py: Python<'_>, source: &Bound<'_, PyAny>) -> PyResult<Arc<Calibration>> {
    if let Ok(own) = source.extract::<PyCalibration>() {
        return Ok(own.inner);
    }
    match source.extract::<String>().as_deref() {
        Ok("ideal") => Ok(Arc::new(Calibration::ideal())),
        _ => Ok(PyCalibration::load(&py.get_type::<PyCalibration>(), py, source)?.inner),
    }
}
