//! `roofsim.SweepSpace`, the compiled half: axes in, columns and reductions out.

use std::ops::ControlFlow;
use std::sync::Arc;

use numpy::{Element, PyArray1, PyArrayMethods, PyReadwriteArray1};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyRange, PyRangeMethods};
use roofsim_core::calibration::CalibrationChoice;
use roofsim_core::capacity::CapacityMode;
use roofsim_core::engine::Engine;
use roofsim_core::sweep::{Axis, Column, ColumnKind, Filter, Isa, Output, Runner, Space, parse_filters};

use crate::accelerator::PyAccelerator;
use crate::arguments::{count, each, kv_format, number, shown, text, weight_format};
use crate::calibration::read;
use crate::error::{IntoPython, spec, to_python};
use crate::model::PyModel;
use crate::ranked::{Ranked, points, ranked};

/// Axes and what can be done with their product.
#[pyclass(name = "_Space", module = "roofsim._core", frozen)]
pub(crate) struct PySpace {
    pub(crate) inner: Arc<Space>,
}

/// Longest axis that is held as a list; a range may be of any length.
const MAX_LISTED: usize = 1 << 24;

fn counts(axes: &Bound<'_, PyDict>, field: &str) -> PyResult<Vec<u64>> {
    let value = axis(axes, field)?;
    // A range can be longer than memory, or than what len() may return: look before it is listed.
    let too_long = value.is_instance_of::<PyRange>() && value.len().map_or(true, |len| len > MAX_LISTED);
    if too_long {
        let rule = "an axis holds at most 2^24 listed values, each below 2^64; only rising ranges may be longer";
        return Err(spec(field, shown(&value), rule));
    }
    each(&value)?.iter().map(|value| count(field, value)).collect()
}

fn axis<'py>(axes: &Bound<'py, PyDict>, field: &str) -> PyResult<Bound<'py, PyAny>> {
    axes.get_item(field)?.ok_or_else(|| spec(field, "missing", "is an axis of every space"))
}

/// A range stays a range; anything else becomes a list.
fn numeric(axes: &Bound<'_, PyDict>, field: &str) -> PyResult<Axis> {
    let value = axis(axes, field)?;
    if let Ok(range) = value.cast::<PyRange>()
        && let (Ok(start), Ok(step)) = (range.start(), range.step())
        && start >= 0
        && step > 0
    {
        return Ok(Axis::Range {
            start: start.unsigned_abs() as u64,
            step: step.unsigned_abs() as u64,
            len: range.len().map_err(|_| spec(field, shown(&value), "holds more values than len() can count"))?,
        });
    }
    Ok(Axis::List(counts(axes, field)?))
}

fn names<T>(axes: &Bound<'_, PyDict>, field: &str, parse: impl Fn(&str) -> PyResult<T>) -> PyResult<Vec<T>> {
    each(&axis(axes, field)?)?.iter().map(|value| parse(&text(field, value)?)).collect()
}

/// The work a caller wants done between chunks.
struct Watch {
    callback: Option<Py<PyAny>>,
    failure: Option<PyErr>,
}

impl Watch {
    /// Signals first, then the user's callback; whatever is raised stops the sweep and is carried out whole.
    fn look_up(&mut self, done: u128, total: u128) -> ControlFlow<()> {
        let result = Python::attach(|py| {
            py.check_signals()?;
            match &self.callback {
                Some(callback) => callback.call1(py, (done, total)).map(|_| ()),
                None => Ok(()),
            }
        });
        match result {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                self.failure = Some(error);
                ControlFlow::Break(())
            }
        }
    }
}

/// The one gate: leave the GIL, work, come back with the result or with what was raised meanwhile.
pub(crate) fn detached<T: Send>(
    py: Python<'_>,
    callback: Option<Py<PyAny>>,
    work: impl FnOnce(&mut dyn FnMut(u128, u128) -> ControlFlow<()>) -> roofsim_core::Result<T> + Send,
) -> PyResult<T> {
    let mut watch = Watch { callback, failure: None };
    let result = py.detach(|| work(&mut |done, total| watch.look_up(done, total)));
    match (result, watch.failure) {
        (_, Some(failure)) => Err(failure),
        (Ok(value), None) => Ok(value),
        (Err(error), None) => Err(to_python(error)),
    }
}

/// So many threads, on the instruction set that `ROOFSIM_INSTRUCTION_SET` names, or the widest there is.
pub(crate) fn runner(num_threads: usize) -> PyResult<Runner> {
    const NAME: &str = "ROOFSIM_INSTRUCTION_SET";
    match std::env::var(NAME) {
        Ok(name) if !name.is_empty() => Ok(Runner { num_threads, isa: Isa::parse(NAME, &name).python()? }),
        _ => Ok(Runner::new(num_threads)),
    }
}

/// Name, kind, and whether nulls can occur.
type ColumnLayout = (String, &'static str, bool);

fn layout_of(column: Column) -> ColumnLayout {
    (column.name().to_owned(), kind_of(column), !column.is_always_known())
}

/// The kind of a column as Python names it.
pub(crate) const fn kind_of(column: Column) -> &'static str {
    match column.kind() {
        ColumnKind::Float => "float",
        ColumnKind::Count => "count",
        ColumnKind::Flag => "flag",
        ColumnKind::Code => "code",
    }
}

/// Lends the memory of NumPy arrays to a sweep.
pub(crate) fn fill<T>(
    arrays: &[Bound<'_, PyAny>],
    null: &Bound<'_, PyAny>,
    work: impl FnOnce(Vec<Output<'_>>, &mut [bool]) -> PyResult<T>,
) -> PyResult<T> {
    let mut targets = arrays.iter().map(Target::new).collect::<PyResult<Vec<_>>>()?;
    let mut null = writable(null.cast::<PyArray1<bool>>()?)?;
    let outputs = targets.iter_mut().map(Target::output).collect::<PyResult<Vec<_>>>()?;
    work(outputs, null.as_slice_mut()?)
}

/// Sole access to an array, for as long as a sweep writes into it.
fn writable<'py, T: Element>(array: &Bound<'py, PyArray1<T>>) -> PyResult<PyReadwriteArray1<'py, T>> {
    array.try_readwrite().map_err(|error| spec("out", "in use", &format!("must be free to write into: {error}")))
}

/// A NumPy array that a column is written into.
enum Target<'py> {
    Float(PyReadwriteArray1<'py, f64>),
    Count(PyReadwriteArray1<'py, u64>),
    Flag(PyReadwriteArray1<'py, bool>),
    Code(PyReadwriteArray1<'py, u32>),
}

impl<'py> Target<'py> {
    fn new(array: &Bound<'py, PyAny>) -> PyResult<Self> {
        if let Ok(array) = array.cast::<PyArray1<f64>>() {
            return writable(array).map(Self::Float);
        }
        if let Ok(array) = array.cast::<PyArray1<u64>>() {
            return writable(array).map(Self::Count);
        }
        if let Ok(array) = array.cast::<PyArray1<bool>>() {
            return writable(array).map(Self::Flag);
        }
        let array = array
            .cast::<PyArray1<u32>>()
            .map_err(|_| spec("arrays", shown(array), "must be float64, uint64, bool or uint32"))?;
        writable(array).map(Self::Code)
    }

    fn output(&mut self) -> PyResult<Output<'_>> {
        Ok(match self {
            Self::Float(array) => Output::Float(array.as_slice_mut()?),
            Self::Count(array) => Output::Count(array.as_slice_mut()?),
            Self::Flag(array) => Output::Flag(array.as_slice_mut()?),
            Self::Code(array) => Output::Code(array.as_slice_mut()?),
        })
    }
}

#[pymethods]
impl PySpace {
    #[new]
    fn new(py: Python<'_>, axes: &Bound<'_, PyDict>) -> PyResult<Self> {
        let models = single_or_each(&axis(axes, "models")?)?
            .iter()
            .map(|m| Ok(PyModel::coerce(py, m)?.inner))
            .collect::<PyResult<Vec<_>>>()?;
        let devices = single_or_each(&axis(axes, "accelerators")?)?
            .iter()
            .map(|a| PyAccelerator::coerce(py, a))
            .collect::<PyResult<Vec<_>>>()?;
        let calibration = calibrations(py, axes, &devices)?;
        let shares = each(&axis(axes, "gpu_memory_utilization")?)?;
        let inner = Space {
            models,
            usd_per_hour: prices(axes, devices.len())?,
            accelerators: devices.iter().map(|d| Arc::clone(&d.inner)).collect(),
            tensor_parallel_size: counts(axes, "tensor_parallel_size")?,
            pipeline_parallel_size: counts(axes, "pipeline_parallel_size")?,
            data_parallel_size: counts(axes, "data_parallel_size")?,
            expert_parallel_size: counts(axes, "expert_parallel_size")?,
            weight_dtype: each(&axis(axes, "weight_dtype")?)?
                .iter()
                .map(|w| weight_format(Some(w)))
                .collect::<PyResult<_>>()?,
            kv_cache_dtype: each(&axis(axes, "kv_cache_dtype")?)?
                .iter()
                .map(|k| kv_format(Some(k)))
                .collect::<PyResult<_>>()?,
            calibration,
            engine: names(axes, "engine", |name| Engine::parse("engine", name).python())?,
            capacity_mode: names(axes, "capacity_mode", |name| CapacityMode::parse("capacity_mode", name).python())?,
            gpu_memory_utilization: shares
                .iter()
                .map(|x| number("gpu_memory_utilization", x))
                .collect::<PyResult<_>>()?,
            block_size: counts(axes, "block_size")?,
            max_num_batched_tokens: counts(axes, "max_num_batched_tokens")?,
            max_num_seqs: counts(axes, "max_num_seqs")?,
            batch_size: numeric(axes, "batch_size")?,
            context_tokens: numeric(axes, "context_tokens")?,
            query_tokens: numeric(axes, "query_tokens")?,
        };
        inner.check_axes().python()?;
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Instruction sets that the loops were compiled for and this machine has, narrowest first.
    #[staticmethod]
    fn instruction_sets() -> Vec<&'static str> {
        Isa::available().into_iter().map(Isa::name).collect()
    }

    /// Lengths of all axes in row order; their product is the number of configurations.
    fn axis_lengths(&self) -> Vec<usize> {
        let s = &self.inner;
        let numeric = [s.batch_size.len(), s.context_tokens.len(), s.query_tokens.len()];
        s.categorical_lengths().into_iter().chain(numeric).collect()
    }

    /// One sentence where a calibration prices these devices on kernels of different libraries.
    fn mixed_libraries(&self) -> Option<String> {
        self.inner.mixed_libraries()
    }

    /// The configuration of one row as a dict of positions and numbers.
    fn configuration<'py>(&self, py: Python<'py>, row: u128) -> PyResult<Bound<'py, PyDict>> {
        let c = self.inner.configuration(row).python()?;
        let (layout, limits, out) = (c.deployment.layout, c.limits, PyDict::new(py));
        let name = |column, axis: usize| self.inner.names(column).swap_remove(c.position[axis]);
        out.set_item("model", name(Column::Model, 0))?;
        out.set_item("accelerator", name(Column::Accelerator, 1))?;
        out.set_item("tensor_parallel_size", layout.tensor)?;
        out.set_item("pipeline_parallel_size", layout.pipeline)?;
        out.set_item("data_parallel_size", layout.data)?;
        out.set_item("expert_parallel_size", layout.expert)?;
        out.set_item("weight_dtype", c.deployment.weight_format.map_or("auto", |f| f.name()))?;
        out.set_item("kv_cache_dtype", c.deployment.kv_format.map_or("auto", |f| f.name()))?;
        out.set_item("calibration", name(Column::Calibration, 8))?;
        out.set_item("engine", c.deployment.engine.name())?;
        out.set_item("capacity_mode", limits.mode.name())?;
        out.set_item("gpu_memory_utilization", limits.gpu_memory_utilization)?;
        out.set_item("block_size", limits.block_size)?;
        out.set_item("max_num_batched_tokens", limits.max_num_batched_tokens)?;
        out.set_item("max_num_seqs", limits.max_num_seqs)?;
        out.set_item("batch_size", c.batch_size)?;
        out.set_item("context_tokens", c.context_tokens)?;
        out.set_item("query_tokens", c.query_tokens)?;
        Ok(out)
    }

    /// Kind of each column (`float`, `count`, `flag`, `code`), names behind codes, and whether nulls can occur; the
    /// number of rows comes first. Refused above `max_bytes`.
    fn layout(&self, columns: Vec<String>, max_bytes: u128) -> PyResult<(usize, Vec<ColumnLayout>)> {
        let columns = parse_columns("columns", &columns)?;
        let rows = self.inner.checked_rows(&columns, max_bytes).python()?;
        Ok((rows, columns.into_iter().map(layout_of).collect()))
    }

    /// Name and kind of each column, and whether nulls can occur.
    #[expect(clippy::unused_self, reason = "a method for Python")]
    fn kinds(&self, columns: Vec<String>) -> PyResult<Vec<ColumnLayout>> {
        let columns = columns.iter().map(|name| Column::parse("columns", name).python());
        columns.map(|column| column.map(layout_of)).collect()
    }

    /// Names behind the codes of a column.
    fn names(&self, column: &str) -> PyResult<Vec<String>> {
        Ok(self.inner.names(Column::parse("columns", column).python()?))
    }

    /// Fill one array per column (of the kind and length that `layout` gave) and the null flags; returns the names
    /// behind the codes of each column.
    fn run(
        &self,
        py: Python<'_>,
        columns: Vec<String>,
        arrays: Vec<Bound<'_, PyAny>>,
        null: &Bound<'_, PyAny>,
        num_threads: usize,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Vec<Vec<String>>> {
        let columns = parse_columns("columns", &columns)?;
        let runner = runner(num_threads)?;
        let work = |outputs: Vec<Output<'_>>, null: &mut [bool]| {
            detached(py, progress, |tick| self.inner.run(runner, &columns, outputs, null, tick))
        };
        let meta = fill(&arrays, null, work)?;
        Ok(meta.into_iter().map(|column| column.names).collect())
    }

    /// The k best rows: their values and numbers.
    fn top_k<'py>(
        &self,
        py: Python<'py>,
        k: &Bound<'_, PyAny>,
        by: &str,
        filters: Vec<String>,
        num_threads: usize,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Ranked<'py>> {
        let k = usize::try_from(count("k", k)?).unwrap_or(usize::MAX);
        let column = Column::parse("by", by).python()?;
        let filters = self.filters(&filters)?;
        let runner = runner(num_threads)?;
        let best = detached(py, progress, |tick| self.inner.top_k(runner, k, column, &filters, tick))?;
        ranked(py, &best.rows)
    }

    /// The Pareto front in row order: its values, row by row, and the numbers of its rows.
    fn pareto<'py>(
        &self,
        py: Python<'py>,
        objectives: Vec<String>,
        filters: Vec<String>,
        num_threads: usize,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Ranked<'py>> {
        let objectives = parse_columns("objectives", &objectives)?;
        let filters = self.filters(&filters)?;
        let runner = runner(num_threads)?;
        let front = detached(py, progress, |tick| self.inner.pareto(runner, &objectives, &filters, tick))?;
        points(py, &front.rows)
    }
}

impl PySpace {
    pub(crate) fn filters(&self, texts: &[String]) -> PyResult<Vec<Filter>> {
        parse_filters(&self.inner, texts).python()
    }
}

pub(crate) fn parse_columns(field: &str, names: &[String]) -> PyResult<Vec<Column>> {
    if names.is_empty() {
        return Err(spec(field, "[]", "must name at least one column"));
    }
    names.iter().map(|name| Column::parse(field, name).python()).collect()
}

/// A dict is one model or accelerator, not a sequence of them.
fn single_or_each<'py>(value: &Bound<'py, PyAny>) -> PyResult<Vec<Bound<'py, PyAny>>> {
    if value.is_instance_of::<PyDict>() || value.hasattr("__fspath__")? { Ok(vec![value.clone()]) } else { each(value) }
}

/// Without a calibration axis every device keeps the calibration it came with; these differ only where the user
/// changed one, and a device with a changed calibration brings it along as the whole axis. Words stay words: they mean
/// another calibration on each device.
fn calibrations(
    py: Python<'_>,
    axes: &Bound<'_, PyDict>,
    devices: &[PyAccelerator],
) -> PyResult<Vec<CalibrationChoice>> {
    let axis = axis(axes, "calibration")?;
    let listed = single_or_each(&axis)?;
    let changed = |d: &&PyAccelerator| *d.calibration != roofsim_core::calibration::Calibration::default_for(&d.inner);
    let mut chosen = Vec::new();
    for value in &listed {
        let name = value.extract::<String>().ok();
        if value.is_none() {
            match devices.iter().find(changed) {
                None => chosen.push(CalibrationChoice::Calibrated),
                Some(device) if devices.iter().all(|d| d.calibration == device.calibration) => {
                    chosen.push(CalibrationChoice::Fixed(Arc::clone(&device.calibration)));
                }
                Some(device) => {
                    let rule = "accelerators with different calibrations need the calibration axis spelled out";
                    return Err(spec("calibration", &device.calibration.name, rule));
                }
            }
        } else if let Some(word) = name.as_deref().and_then(CalibrationChoice::parse) {
            chosen.push(word);
        } else {
            chosen.push(CalibrationChoice::Fixed(read(py, value)?));
        }
    }
    Ok(chosen)
}

fn prices(axes: &Bound<'_, PyDict>, devices: usize) -> PyResult<Vec<Option<f64>>> {
    let prices = each(&axis(axes, "usd_per_hour")?)?;
    if prices.len() != devices {
        return Err(spec("prices", shown(&axis(axes, "usd_per_hour")?), "must give one price per accelerator"));
    }
    prices.iter().map(|p| if p.is_none() { Ok(None) } else { number("prices", p).map(Some) }).collect()
}
