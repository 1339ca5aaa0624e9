//! How a published checkpoint stores its matrices: `quantization_config` of `config.json`, or NVIDIA's own
//! `hf_quant_config.json`, turned into a format for each matrix of each layer.
//!
//! Embeddings, the head, norms, biases and routers keep the model's own dtype whatever the method, as engines serve
//! them. Routed experts are looked up under the name of expert 0: a checkpoint that stores the experts of one layer
//! differently is not told apart.

mod methods;
mod patterns;

use super::fields::Fields;
use crate::error::{Error, Result};
use crate::format::{KvFormat, WeightFormat};
use crate::model::LayerFormats;
use patterns::Patterns;

/// The matrices of one kind of layer as checkpoints name them, below `model.layers.N.`. A group that the layer lacks
/// is empty.
#[derive(Debug, Clone, Copy)]
pub(super) struct Modules {
    /// Projections into the mixer.
    pub(super) mixer: &'static [&'static str],
    /// Projection out of the mixer.
    pub(super) mixer_output: &'static [&'static str],
    /// Projections of the indexer of sparse attention.
    pub(super) indexer: &'static [&'static str],
    /// Dense feed-forward.
    pub(super) dense: &'static [&'static str],
    /// Shared experts.
    pub(super) shared_experts: &'static [&'static str],
    /// Routed experts.
    pub(super) routed_experts: &'static [&'static str],
}

impl Modules {
    /// A dense layer of Llama and of most families that copied its names.
    pub(super) const LLAMA: Self = Self {
        mixer: &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
        mixer_output: &["self_attn.o_proj"],
        indexer: &[],
        dense: &["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"],
        shared_experts: &[],
        routed_experts: &[],
    };

    /// A layer of Qwen's mixtures of experts.
    pub(super) const QWEN_MOE: Self = Self {
        dense: &[],
        shared_experts: &["mlp.shared_expert.gate_proj", "mlp.shared_expert.up_proj", "mlp.shared_expert.down_proj"],
        routed_experts: &["mlp.experts.0.gate_proj", "mlp.experts.0.up_proj", "mlp.experts.0.down_proj"],
        ..Self::LLAMA
    };

    /// A layer of Mixtral and of those that copied its names.
    pub(super) const MIXTRAL: Self = Self {
        shared_experts: &[],
        routed_experts: &[
            "block_sparse_moe.experts.0.w1",
            "block_sparse_moe.experts.0.w2",
            "block_sparse_moe.experts.0.w3",
        ],
        ..Self::QWEN_MOE
    };

    /// A mixture-of-experts layer of DeepSeek, GLM and those that copied its names.
    pub(super) const DEEPSEEK_MOE: Self = Self {
        shared_experts: &["mlp.shared_experts.gate_proj", "mlp.shared_experts.up_proj", "mlp.shared_experts.down_proj"],
        ..Self::QWEN_MOE
    };
}

/// One format and the modules that are stored in it.
#[derive(Debug, Clone)]
struct Rule {
    /// `None` is every linear layer.
    targets: Option<Patterns>,
    format: WeightFormat,
}

/// How a checkpoint stores its matrices and its KV cache.
#[derive(Debug, Clone)]
pub(super) struct Quantisation {
    base: WeightFormat,
    /// Where the rules stand, for errors.
    field: String,
    /// The first rule that covers a module decides.
    rules: Vec<Rule>,
    ignore: Patterns,
    kv_cache: Option<KvFormat>,
}

impl Quantisation {
    /// Reads what the files say. `hf_quant_config.json` wins over `config.json`: where both exist, NVIDIA's exporter wrote
    /// the first, and the second may be left over from the checkpoint it started from.
    pub(super) fn read(top: &Fields, text: &Fields, quant: Option<&Fields>, base: WeightFormat) -> Result<Self> {
        if let Some(file) = quant {
            let inner = file
                .object("quantization")?
                .ok_or_else(|| file.refuse("quantization", "must be given: an object with quant_algo"))?;
            return methods::modelopt(&inner, base);
        }
        let key = "quantization_config";
        let inner = match top.object(key)? {
            Some(inner) => Some(inner),
            None => text.object(key)?,
        };
        match inner {
            Some(inner) => methods::read(&inner, text, base),
            None => Ok(Self::none(base)),
        }
    }

    /// Everything in the model's own dtype.
    fn none(base: WeightFormat) -> Self {
        Self { base, field: String::new(), rules: Vec::new(), ignore: Patterns::default(), kv_cache: None }
    }

    /// How the KV cache is stored: as the checkpoint says, else in the model's own dtype.
    pub(super) fn kv_cache_format(&self) -> KvFormat {
        self.kv_cache.unwrap_or(if self.base == WeightFormat::Fp16 { KvFormat::Fp16 } else { KvFormat::Bf16 })
    }

    /// The format of every group of matrices of one layer.
    pub(super) fn formats(&self, layer: u64, modules: &Modules) -> Result<LayerFormats> {
        Ok(LayerFormats {
            mixer: self.group(layer, modules.mixer)?,
            mixer_output: self.group(layer, modules.mixer_output)?,
            indexer: self.group(layer, modules.indexer)?,
            dense: self.group(layer, modules.dense)?,
            shared_experts: self.group(layer, modules.shared_experts)?,
            routed_experts: self.group(layer, modules.routed_experts)?,
        })
    }

    /// The one format of a group. Engines fuse its matrices into one kernel and refuse groups that disagree; so do we.
    fn group(&self, layer: u64, modules: &[&str]) -> Result<WeightFormat> {
        let mut found: Option<(WeightFormat, &str)> = None;
        if self.rules.is_empty() {
            return Ok(self.base);
        }
        for module in modules {
            let format = self.format(&format!("layers.{layer}.{module}"));
            match found {
                Some((first, other)) if first != format => {
                    let value = format!("layer {layer}: {other} {}, {module} {}", first.name(), format.name());
                    let rule = "matrices that engines fuse into one operation must share a format";
                    return Err(Error::unsupported(self.field.clone(), value, rule));
                }
                _ => found = Some((format, module)),
            }
        }
        Ok(found.map_or(self.base, |(format, _)| format))
    }

    fn format(&self, module: &str) -> WeightFormat {
        if self.ignore.matches(module) {
            return self.base;
        }
        self.rules
            .iter()
            .find(|rule| rule.targets.as_ref().is_none_or(|targets| targets.matches(module)))
            .map_or(self.base, |rule| rule.format)
    }
}
