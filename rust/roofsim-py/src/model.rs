//! `roofsim.Model`.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyType};
use roofsim_core::format::{KvFormat, WeightFormat};
use roofsim_core::model::{FeedForward, Mixer, Model, Span};

use crate::arguments::Word;
use crate::error::IntoPython;

/// What pickle needs: a function and its arguments.
type Rebuild<'py, 'a> = (Bound<'py, PyAny>, (&'a str, &'a str, Option<&'a str>));

/// A model as its own config.json describes it: layer groups, formats, sizes. Build one with `Model.load`.
///
/// All counts are exact integers. Leaves out adapters, draft heads and anything the config does not state.
///
/// Examples
/// --------
/// >>> import roofsim as rs
/// >>> model = rs.Model.load("llama-3.1-70b")
/// >>> model.num_parameters, model.weight_bytes()
/// (70553706496, 141107412992)
#[pyclass(name = "Model", module = "roofsim", frozen, from_py_object)]
#[derive(Clone)]
pub(crate) struct PyModel {
    pub(crate) inner: Arc<Model>,
    config: Arc<str>,
    quantisation: Option<Arc<str>>,
}

#[pymethods]
impl PyModel {
    /// Read a catalogue name or Hugging Face id, the path of a config.json or of its directory, or the config as a dict.
    ///
    /// Parameters
    /// ----------
    /// source : str, path, mapping or Model
    ///     A name (`roofsim models` lists them), a path, or the config itself. A quantisation file beside the config is read too.
    ///
    /// Returns
    /// -------
    /// Model
    ///
    /// Raises
    /// ------
    /// SpecError
    ///     The name is unknown (the nearest are given), the file cannot be read, or a field is missing or absurd.
    /// UnsupportedError
    ///     No reader knows the architecture (the nearest known are given). No number is ever invented.
    ///
    /// Examples
    /// --------
    /// >>> import roofsim as rs
    /// >>> rs.Model.load("meta-llama/Llama-3.1-70B")
    /// Model("llama-3.1-70b", LlamaForCausalLM, 70.55B parameters)
    #[classmethod]
    fn load(_cls: &Bound<'_, PyType>, py: Python<'_>, source: &Bound<'_, PyAny>) -> PyResult<Self> {
        Self::coerce(py, source)
    }

    /// Read the text of a config.json.
    ///
    /// Parameters
    /// ----------
    /// config : str
    ///     JSON text.
    /// name : str
    ///     What the model calls itself in results.
    /// hf_quant_config : str, optional
    ///     JSON text of TensorRT Model Optimizer's description of the formats.
    ///
    /// Raises
    /// ------
    /// SpecError, UnsupportedError
    ///     As `Model.load`.
    #[staticmethod]
    #[pyo3(signature = (config, name = Word::from("model"), hf_quant_config = None),
           text_signature = "(config, name='model', hf_quant_config=None)")]
    fn from_json(config: Word, name: Word, hf_quant_config: Option<Word>) -> PyResult<Self> {
        let quantisation = hf_quant_config.as_ref().map(|text| text.text("hf_quant_config")).transpose()?;
        Self::from_config(config.text("config")?, name.text("name")?, quantisation)
    }

    /// Catalogue name, else the directory's or file's name, else what the config calls itself.
    #[getter]
    fn name(&self) -> &str {
        &self.inner.name
    }

    /// The class name under `architectures` in the config.
    #[getter]
    fn architecture(&self) -> &str {
        &self.inner.architecture
    }

    /// Width d of the residual stream, elements.
    #[getter]
    fn hidden_size(&self) -> u64 {
        self.inner.hidden_size
    }

    /// Rows of the embedding, tokens.
    #[getter]
    fn vocab_size(&self) -> u64 {
        self.inner.vocab_size
    }

    /// Decoder layers L, all kinds together.
    #[getter]
    fn num_layers(&self) -> u64 {
        self.inner.num_layers()
    }

    /// Longest context the config declares, tokens; None where it declares none.
    #[getter]
    fn max_context_tokens(&self) -> Option<u64> {
        self.inner.max_context_tokens
    }

    /// Published dtype of activations and of weights that no quantisation covers.
    #[getter]
    fn dtype(&self) -> &'static str {
        self.inner.dtype.name()
    }

    /// Published storage of the KV cache: what `auto` means.
    #[getter]
    fn kv_cache_dtype(&self) -> &'static str {
        self.inner.kv_cache_format.name()
    }

    /// Total parameters, exact: embeddings, head, norms, biases, routers and all experts; scales of quantised weights are not
    /// parameters. Tied embeddings count once.
    #[getter]
    fn num_parameters(&self) -> PyResult<u64> {
        self.inner.num_parameters().python()
    }

    /// Parameters that one token passes, exact: all but the experts it is not routed to. Embeddings and head count.
    #[getter]
    fn num_active_parameters(&self) -> PyResult<u64> {
        self.inner.num_active_parameters().python()
    }

    /// Distinct layers in order of appearance, one dict each: `count`, `mixer`, `window` (tokens or None), `feed_forward`,
    /// `mixer_dtype`, `feed_forward_dtype`.
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

    /// Bytes of all weights, scales of quantised formats included; exact, unsharded.
    ///
    /// Parameters
    /// ----------
    /// weight_dtype : str, optional
    ///     Storage of projections and experts (`bf16`, `fp8`, `mxfp4`, ...); embeddings, norms and routers keep theirs. None or
    ///     `auto`: as published.
    ///
    /// Returns
    /// -------
    /// int
    ///
    /// Raises
    /// ------
    /// SpecError
    ///     The format is unknown.
    ///
    /// Examples
    /// --------
    /// >>> import roofsim as rs
    /// >>> rs.Model.load("llama-3.1-70b").weight_bytes("fp8")
    /// 72656373632
    #[pyo3(signature = (weight_dtype = None))]
    fn weight_bytes(&self, weight_dtype: Option<&Bound<'_, PyAny>>) -> PyResult<u64> {
        match crate::arguments::weight_format(weight_dtype)? {
            None => self.inner.weight_bytes().python(),
            Some(format) => self.stored_as(format).weight_bytes().python(),
        }
    }

    /// Bytes that one token adds to the KV cache over all layers, before any window cuts in; exact, unsharded.
    ///
    /// For grouped heads the sum over attention layers of (K h + K h_v) elements: K KV heads of width h and h_v. For latent
    /// attention one latent and one rotary key per layer.
    ///
    /// Parameters
    /// ----------
    /// kv_cache_dtype : str
    ///     Storage; `auto` is as published.
    ///
    /// Returns
    /// -------
    /// int
    ///
    /// Raises
    /// ------
    /// SpecError
    ///     The format is unknown.
    ///
    /// Examples
    /// --------
    /// >>> import roofsim as rs
    /// >>> rs.Model.load("llama-3.1-70b").kv_bytes_per_token()  # 80 layers x 2 x 8 heads x 128 x 2 bytes
    /// 327680
    #[pyo3(signature = (kv_cache_dtype = Word::from("bf16")), text_signature = "($self, kv_cache_dtype='bf16')")]
    fn kv_bytes_per_token(&self, kv_cache_dtype: Word) -> PyResult<u64> {
        self.inner.kv_bytes_per_token(self.kv_format(kv_cache_dtype.text("kv_cache_dtype")?)?).python()
    }

    /// Bytes of the KV cache of one sequence; exact, unsharded, windows and latent layouts applied. Leaves out blocks:
    /// `Deployment.capacity("runtime")` rounds up to them.
    ///
    /// Parameters
    /// ----------
    /// context_tokens : int
    ///     Tokens in the cache.
    /// kv_cache_dtype : str
    ///     Storage; `auto` is as published.
    ///
    /// Returns
    /// -------
    /// int
    ///
    /// Raises
    /// ------
    /// SpecError
    ///     A count that is negative or no whole number, an unknown format.
    /// CountOverflowError
    ///     The exact count leaves 64 bits.
    ///
    /// Examples
    /// --------
    /// >>> import roofsim as rs
    /// >>> rs.Model.load("gpt-oss-20b").kv_cache_bytes(4096)  # half the layers keep 128 tokens
    /// 103809024
    #[pyo3(signature = (context_tokens, kv_cache_dtype = Word::from("bf16")),
           text_signature = "($self, context_tokens, kv_cache_dtype='bf16')")]
    fn kv_cache_bytes(&self, context_tokens: &Bound<'_, PyAny>, kv_cache_dtype: Word) -> PyResult<u64> {
        let tokens = crate::arguments::count("context_tokens", context_tokens)?;
        self.inner.kv_cache_bytes(tokens, self.kv_format(kv_cache_dtype.text("kv_cache_dtype")?)?).python()
    }

    /// Bytes of the recurrent state of one sequence, whatever its length; 0 for models of attention only.
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
            Span::Selected(_) => "selected_attention",
        },
        Mixer::Latent(_) => "latent_attention",
        Mixer::Recurrent(_) => "recurrent",
        Mixer::None => "none",
    }
}

fn window(mixer: &Mixer) -> Option<u64> {
    match mixer.span() {
        Span::Full => None,
        Span::Sliding(tokens) | Span::Chunked(tokens) | Span::Selected(tokens) => Some(tokens),
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
