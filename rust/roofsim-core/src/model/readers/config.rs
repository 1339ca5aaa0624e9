//! A parsed config: where the text model's fields are, what it is stored in, and how a reader's findings become a
//! [`Model`].

use serde_json::Value;

use super::defaults;
use super::fields::{Fields, MAX_TOKENS, cut};
use super::quantisation::{Modules, Quantisation};
use crate::error::{Error, Result};
use crate::format::{KvFormat, WeightFormat};
use crate::model::{Embedding, Head, Layer, LayerFormats, Model};

/// Keys under which multimodal configs nest their text model.
const TEXT_KEYS: [&str; 2] = ["text_config", "llm_config"];

/// Everything a family's reader needs.
#[derive(Debug)]
pub(super) struct Config<'a> {
    /// Name the model will carry.
    pub(super) name: &'a str,
    /// Architecture class, or the model type where the file names no class.
    pub(super) architecture: &'a str,
    /// True when `architecture` is a model type.
    pub(super) architecture_is_type: bool,
    /// The file's own fields.
    pub(super) top: Fields<'a>,
    /// The fields of the text model; the same as `top` where nothing is nested.
    pub(super) text: Fields<'a>,
    /// The model's own dtype.
    pub(super) dtype: WeightFormat,
    /// How the matrices are stored.
    quantisation: Quantisation,
}

impl<'a> Config<'a> {
    /// Finds architecture, text model, dtype and quantisation.
    pub(super) fn new(value: &'a Value, quant: Option<&'a Value>, name: &'a str) -> Result<Self> {
        let object = value.as_object().ok_or_else(|| not_an_object("config.json", value))?;
        let top = Fields::new(object, "");
        let mut text = top.clone();
        for key in TEXT_KEYS {
            if let Some(nested) = top.object(key)? {
                text = nested;
                break;
            }
        }
        let (architecture, architecture_is_type) = architecture(&top)?;
        let text = text.with_defaults(defaults::of(architecture));
        let quant = match quant {
            Some(value) => {
                let object = value.as_object().ok_or_else(|| not_an_object("hf_quant_config.json", value))?;
                Some(Fields::new(object, "hf_quant_config"))
            }
            None => None,
        };
        let dtype = dtype(&text, &top)?;
        let quantisation = Quantisation::read(&top, &text, quant.as_ref(), dtype)?;
        Ok(Self { name, architecture, architecture_is_type, top, text, dtype, quantisation })
    }

    /// How the matrices of one layer are stored.
    pub(super) fn formats(&self, layer: u64, modules: &Modules) -> Result<LayerFormats> {
        self.quantisation.formats(layer, modules)
    }

    /// The embedding's table is also the head's. The outer key wins: it is the one the outer class obeys.
    pub(super) fn tied(&self, default: bool) -> Result<bool> {
        let key = "tie_word_embeddings";
        match self.top.optional_flag(key)? {
            Some(tied) => Ok(tied),
            None => self.text.flag(key, default),
        }
    }

    /// Puts the parts together and makes sure that its totals can be counted.
    pub(super) fn model(&self, body: Body) -> Result<Model> {
        let (kinds, order) = Model::collapse(body.layers);
        let model = Model {
            name: self.name.to_owned(),
            architecture: self.architecture.to_owned(),
            hidden_size: body.hidden_size,
            vocab_size: body.vocab_size,
            dtype: self.dtype,
            embedding: body.embedding,
            kinds,
            order,
            final_norm_parameters: body.final_norm_parameters,
            head: body.head,
            auxiliary_parameters: body.auxiliary_parameters,
            kv_cache_format: self.quantisation.kv_cache_format(),
            max_context_tokens: match body.max_context_tokens {
                Some(tokens) => Some(tokens),
                None => self.text.optional_count("max_position_embeddings", MAX_TOKENS)?,
            },
        };
        // A model whose totals do not fit in 64 bits is refused here, not when a user asks for them.
        model.num_parameters()?;
        model.with_weight_format(WeightFormat::Fp32).weight_bytes()?;
        model.weight_bytes()?;
        model.kv_bytes_per_token(KvFormat::Fp32)?;
        Ok(model)
    }
}

/// What a reader finds.
#[derive(Debug)]
pub(super) struct Body {
    /// d.
    pub(super) hidden_size: u64,
    /// Rows of the embedding.
    pub(super) vocab_size: u64,
    /// All layers in order.
    pub(super) layers: Vec<Layer>,
    /// Before the layers.
    pub(super) embedding: Embedding,
    /// Parameters of the norm after the last layer.
    pub(super) final_norm_parameters: u64,
    /// After the layers.
    pub(super) head: Head,
    /// Vision towers and projectors.
    pub(super) auxiliary_parameters: u64,
    /// Longest context, where the family does not call it `max_position_embeddings`.
    pub(super) max_context_tokens: Option<u64>,
}

impl Body {
    /// The usual frame: a token table, layers, one root-mean-square norm, a head without bias.
    pub(super) fn new(hidden_size: u64, vocab_size: u64, layers: Vec<Layer>, tied: bool) -> Self {
        Self {
            hidden_size,
            vocab_size,
            layers,
            embedding: Embedding { dim: hidden_size, position_rows: 0, other_parameters: 0 },
            final_norm_parameters: hidden_size,
            head: Head { tied, bias: false },
            auxiliary_parameters: 0,
            max_context_tokens: None,
        }
    }
}

fn not_an_object(file: &str, value: &Value) -> Error {
    Error::spec(file, cut(&value.to_string()), "must be a JSON object")
}

/// `architectures[0]`, or `model_type` where a file names no class.
fn architecture<'a>(top: &Fields<'a>) -> Result<(&'a str, bool)> {
    if let Some(class) = top.texts("architectures")?.and_then(|list| list.first().copied()) {
        return Ok((class, false));
    }
    match top.text("model_type")? {
        Some(model_type) => Ok((model_type, true)),
        None => Err(top.refuse("architectures", "must be given: a list whose first entry is the model's class")),
    }
}

/// The dtype that engines serve the model in.
///
/// The key is `torch_dtype` in older files and `dtype` in newer ones. A file that says `float32` (Gemma 2, Reflection)
/// describes the training checkpoint: vLLM, SGLang and TensorRT-LLM serve it in bf16, and the published `-it`
/// checkpoint of Gemma 2 is bf16, so float32 is read as bf16. A file that says nothing is read as bf16 too.
fn dtype(text: &Fields, top: &Fields) -> Result<WeightFormat> {
    for fields in [text, top] {
        for key in ["dtype", "torch_dtype"] {
            let Some(name) = fields.text(key)? else { continue };
            return match WeightFormat::parse(&fields.path_of(key), name) {
                Ok(WeightFormat::Fp32 | WeightFormat::Bf16) => Ok(WeightFormat::Bf16),
                Ok(WeightFormat::Fp16) => Ok(WeightFormat::Fp16),
                _ if name == "auto" => Ok(WeightFormat::Bf16),
                _ => Err(fields.refuse(key, "must be one of float32, bfloat16, float16")),
            };
        }
    }
    Ok(WeightFormat::Bf16)
}
