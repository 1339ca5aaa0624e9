//! `roofsim.Model`.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyType};
use roofsim_core::format::{KvFormat, WeightFormat};
use roofsim_core::model::{FeedForward, Mixer, Model, Span};

use crate::error::IntoPython;

/// What pickle needs: a function and its arguments.
type Rebuild<'py, 'a> = (Bound<'py, PyAny>, (&'a str, &'a str, Option<&'a str>));

/// A model read from its own config.json.
#[pyclass(name = "Model", module = "roofsim", frozen, from_py_object)]
#[derive(Clone)]
pub(crate) struct PyModel {
    pub(crate) inner: Arc<Model>,
    config: Arc<str>,
    quantisation: Option<Arc<str>>,
}

#[pymethods]
impl PyModel {
    /// Read a catalogue name, a path or directory, or a dict.
    #[classmethod]
    fn load(_cls: &Bound<'_, PyType>, py: Python<'_>, source: &Bound<'_, PyAny>) -> PyResult<Self> {
        Self::coerce(py, source)
    }

    /// Read the text of a config.json.
    #[staticmethod]
    #[pyo3(signature = (config, name = "model", hf_quant_config = None))]
    fn from_json(config: &str, name: &str, hf_quant_config: Option<&str>) -> PyResult<Self> {
        Self::from_config(config, name, hf_quant_config)
    }

    #[getter]
    fn name(&self) -> &str {
        &self.inner.name
    }

    #[getter]
    fn architecture(&self) -> &str {
        &self.inner.architecture
    }

    #[getter]
    fn hidden_size(&self) -> u64 {
        self.inner.hidden_size
    }

    #[getter]
    fn vocab_size(&self) -> u64 {
        self.inner.vocab_size
    }

    #[getter]
    fn num_layers(&self) -> u64 {
        self.inner.num_layers()
    }

    #[getter]
    fn max_context_tokens(&self) -> Option<u64> {
        self.inner.max_context_tokens
    }

    #[getter]
    fn dtype(&self) -> &'static str {
        self.inner.dtype.name()
    }

    #[getter]
    fn kv_cache_dtype(&self) -> &'static str {
        self.inner.kv_cache_format.name()
    }

    #[getter]
    fn num_parameters(&self) -> PyResult<u64> {
        self.inner.num_parameters().python()
    }

    #[getter]
    fn num_active_parameters(&self) -> PyResult<u64> {
        self.inner.num_active_parameters().python()
    }

    /// Distinct layers with their counts.
    #[getter]
    fn layers<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let rows = self.inner.kinds.iter().zip(self.inner.counts());
        rows.map(|(layer, count)| {
            let row = PyDict::new(py);
            row.set_item("count", count)?;
            row.set_item("mixer", mixer_name(&layer.mixer))?;
            row.set_item("window", window(&layer.mixer))?;
            row.set_item("feed_forward", feed_forward_name(&layer.feed_forward))?;
            row.set_item("mixer_dtype", layer.formats.mixer.name())?;
            row.set_item("feed_forward_dtype", feed_forward_format(layer).name())?;
            Ok(row)
        })
        .collect()
    }

    #[pyo3(signature = (weight_dtype = None))]
    fn weight_bytes(&self, weight_dtype: Option<&Bound<'_, PyAny>>) -> PyResult<u64> {
        match crate::arguments::weight_format(weight_dtype)? {
            None => self.inner.weight_bytes().python(),
            Some(format) => self.stored_as(format).weight_bytes().python(),
        }
    }

    #[pyo3(signature = (kv_cache_dtype = "bf16"))]
    fn kv_bytes_per_token(&self, kv_cache_dtype: &str) -> PyResult<u64> {
        self.inner.kv_bytes_per_token(self.kv_format(kv_cache_dtype)?).python()
    }

    #[pyo3(signature = (context_tokens, kv_cache_dtype = "bf16"))]
    fn kv_cache_bytes(&self, context_tokens: &Bound<'_, PyAny>, kv_cache_dtype: &str) -> PyResult<u64> {
        let tokens = crate::arguments::count("context_tokens", context_tokens)?;
        self.inner.kv_cache_bytes(tokens, self.kv_format(kv_cache_dtype)?).python()
    }

    fn state_bytes(&self) -> PyResult<u64> {
        self.inner.state_bytes().python()
    }

    fn __repr__(&self) -> String {
        let billions = self.inner.num_parameters().map_or(0.0, |n| n as f64 / 1e9);
        format!("Model({:?}, {}, {billions:.2}B parameters)", self.inner.name, self.inner.architecture)
    }

    fn __eq__(&self, other: &Self) -> bool {
        self.inner == other.inner
    }

    fn __hash__(&self) -> u64 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        (&self.inner.name, &self.inner.architecture, &self.inner.kinds).hash(&mut hasher);
        hasher.finish()
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Rebuild<'py, '_>> {
        let build = py.get_type::<Self>().getattr("from_json")?;
        Ok((build, (&self.config, &self.inner.name, self.quantisation.as_deref())))
    }
}

impl PyModel {
    /// A model as it is, or whatever `Model.load` reads.
    pub(crate) fn coerce(py: Python<'_>, source: &Bound<'_, PyAny>) -> PyResult<Self> {
        if let Ok(model) = source.extract::<Self>() {
            return Ok(model);
        }
        let read = py.import("roofsim.catalog")?.getattr("read_model")?;
        let (config, name, quantisation): (String, String, Option<String>) = read.call1((source,))?.extract()?;
        Self::from_config(&config, &name, quantisation.as_deref())
    }

    fn from_config(config: &str, name: &str, quantisation: Option<&str>) -> PyResult<Self> {
        let inner = Model::from_config_and_quant_json(config, quantisation, name).python()?;
        Ok(Self { inner: Arc::new(inner), config: config.into(), quantisation: quantisation.map(Into::into) })
    }

    fn stored_as(&self, format: WeightFormat) -> Model {
        self.inner.with_weight_format(format)
    }

    fn kv_format(&self, name: &str) -> PyResult<KvFormat> {
        if name.eq_ignore_ascii_case("auto") {
            return Ok(self.inner.kv_cache_format);
        }
        KvFormat::parse("kv_cache_dtype", name).python()
    }
}

fn mixer_name(mixer: &Mixer) -> &'static str {
    match mixer {
        Mixer::Attention(a) => match a.span {
            Span::Full => "full_attention",
            Span::Sliding(_) => "sliding_attention",
            Span::Chunked(_) => "chunked_attention",
        },
        Mixer::Latent(_) => "latent_attention",
        Mixer::Recurrent(_) => "recurrent",
        Mixer::None => "none",
    }
}

fn window(mixer: &Mixer) -> Option<u64> {
    match mixer.span() {
        Span::Full => None,
        Span::Sliding(tokens) | Span::Chunked(tokens) => Some(tokens),
    }
}

fn feed_forward_name(feed_forward: &FeedForward) -> &'static str {
    match feed_forward {
        FeedForward::Dense(f) if f.gated => "gated",
        FeedForward::Dense(_) => "dense",
        FeedForward::Moe(_) => "moe",
        FeedForward::None => "none",
    }
}

fn feed_forward_format(layer: &roofsim_core::model::Layer) -> WeightFormat {
    match layer.feed_forward {
        FeedForward::Moe(_) => layer.formats.routed_experts,
        _ => layer.formats.dense,
    }
}
