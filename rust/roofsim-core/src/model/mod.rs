//! Models: one representation for every family, read from the model's own `config.json`.
//!
//! A model is an ordered list of layers, each one of a few distinct [`Layer`] kinds, between an embedding and a head.
//! A new family is one reader file in `readers/`; nothing else changes.

mod kv;
mod layer;
pub mod readers;
mod weights;

pub use kv::kept_tokens;
pub use layer::{
    Attention, Dense, FeedForward, Indexer, LatentAttention, Layer, LayerFormats, Mixer, Moe, Recurrent, Selection,
    Span,
};
pub use weights::{Role, Shard, Weight};

use crate::error::{Error, Result};
use crate::format::{ComputeDType, KvFormat, WeightFormat};

/// The part before the first layer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Embedding {
    /// Width of a token's embedding; differs from `hidden_size` only where the model projects it (OPT-350m).
    pub dim: u64,
    /// Rows of a learned position table; 0 is none.
    pub position_rows: u64,
    /// Parameters of everything else before the first layer (norms, projections in and out).
    pub other_parameters: u64,
}

/// The part after the last layer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Head {
    /// Shares the embedding's table.
    pub tied: bool,
    /// Has a bias vector.
    pub bias: bool,
}

/// A model, ready to be costed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// Catalogue name or path stem.
    pub name: String,
    /// Architecture class as the config names it, for example `LlamaForCausalLM`.
    pub architecture: String,
    /// d.
    pub hidden_size: u64,
    /// Rows of the embedding and of the head, padding included.
    pub vocab_size: u64,
    /// The model's own dtype: activations, norms, embeddings, head.
    pub dtype: WeightFormat,
    /// Before the layers.
    pub embedding: Embedding,
    /// The distinct layers.
    pub kinds: Vec<Layer>,
    /// For each layer in order, the index of its kind.
    pub order: Vec<u32>,
    /// Parameters of the norm after the last layer.
    pub final_norm_parameters: u64,
    /// After the layers.
    pub head: Head,
    /// Parameters outside the text path (vision towers, projectors): they take memory and no time.
    pub auxiliary_parameters: u64,
    /// How the published checkpoint says its KV cache is stored.
    pub kv_cache_format: KvFormat,
    /// Longest context the config declares.
    pub max_context_tokens: Option<u64>,
}

impl Model {
    /// Collapses equal layers: from the layers in order to `(kinds, order)`.
    pub fn collapse(layers: impl IntoIterator<Item = Layer>) -> (Vec<Layer>, Vec<u32>) {
        let mut kinds: Vec<Layer> = Vec::new();
        let mut order = Vec::new();
        for layer in layers {
            let index = kinds.iter().position(|kind| *kind == layer).unwrap_or_else(|| {
                kinds.push(layer);
                kinds.len() - 1
            });
            order.push(u32::try_from(index).unwrap_or(u32::MAX));
        }
        (kinds, order)
    }

    /// Layers of each kind, in the order of `kinds`.
    pub fn counts(&self) -> Vec<u64> {
        self.counts_in(0..self.order.len())
    }

    /// Layers of each kind among the layers of `range`.
    pub fn counts_in(&self, range: std::ops::Range<usize>) -> Vec<u64> {
        let mut counts = vec![0; self.kinds.len()];
        for &kind in self.order.get(range).unwrap_or(&[]) {
            if let Some(count) = counts.get_mut(kind as usize) {
                *count += 1;
            }
        }
        counts
    }

    /// The operand type of activations: the model's own dtype.
    pub const fn activation_dtype(&self) -> ComputeDType {
        self.dtype.compute(ComputeDType::Bf16)
    }

    /// L.
    pub fn num_layers(&self) -> u64 {
        self.order.len() as u64
    }

    /// All parameters, each tensor once (a tied head is not counted again), vision towers included. Exact.
    pub fn num_parameters(&self) -> Result<u64> {
        let layers = self.sum_weights(Weight::parameters)?;
        self.outer_parameters()?
            .checked_add(layers)
            .and_then(|x| x.checked_add(self.auxiliary_parameters))
            .ok_or_else(|| overflow("num_parameters"))
    }

    /// Parameters that work on one token: as [`Self::num_parameters`] without the routed experts it does not visit and
    /// without vision towers; embedding and head included. Exact.
    pub fn num_active_parameters(&self) -> Result<u64> {
        let mut total = self.outer_parameters()?;
        for (layer, count) in self.kinds.iter().zip(self.counts()) {
            let (num_experts, per_token) = match &layer.feed_forward {
                FeedForward::Moe(m) => (m.num_experts, m.experts_per_token),
                _ => (1, 1),
            };
            for weight in layer.weights(self.hidden_size, self.dtype) {
                let mut parameters = weight.parameters()?;
                if weight.role == Role::Expert {
                    parameters = parameters / num_experts * per_token;
                }
                total = parameters
                    .checked_mul(count)
                    .and_then(|x| x.checked_add(total))
                    .ok_or_else(|| overflow("num_active_parameters"))?;
            }
        }
        Ok(total)
    }

    /// Bytes of all weights as stored, scales included. Exact.
    pub fn weight_bytes(&self) -> Result<u64> {
        let outer = self
            .outer_parameters()?
            .checked_add(self.auxiliary_parameters)
            .and_then(|x| self.dtype.tensor_bytes(x, 1))
            .ok_or_else(|| overflow("weight_bytes"))?;
        let base = self.dtype;
        self.sum_weights(|w| w.bytes(base))?.checked_add(outer).ok_or_else(|| overflow("weight_bytes"))
    }

    /// The same model with every projection and expert stored in `format`.
    ///
    /// Embeddings, head, norms, biases and routers keep the model's own dtype, as engines do; an unquantised `format`
    /// replaces that dtype too.
    #[must_use]
    pub fn with_weight_format(&self, format: WeightFormat) -> Self {
        let mut model = self.clone();
        if !format.is_quantised() {
            model.dtype = format;
        }
        let layers: Vec<Layer> = self
            .order
            .iter()
            .filter_map(|&kind| self.kinds.get(kind as usize))
            .map(|layer| Layer { formats: LayerFormats::uniform(format), ..layer.clone() })
            .collect();
        (model.kinds, model.order) = Self::collapse(layers);
        model
    }

    /// Parameters of embedding, final norm and head.
    fn outer_parameters(&self) -> Result<u64> {
        let table = self.vocab_size.checked_mul(self.embedding.dim);
        let head = match (self.head.tied, self.head.bias) {
            (true, false) => Some(0),
            (true, true) => Some(self.vocab_size),
            (false, false) => table,
            (false, true) => table.and_then(|x| x.checked_add(self.vocab_size)),
        };
        let positions = self.embedding.position_rows.checked_mul(self.hidden_size);
        [table, head, positions, Some(self.embedding.other_parameters), Some(self.final_norm_parameters)]
            .into_iter()
            .try_fold(0_u64, |sum, part| part.and_then(|p| sum.checked_add(p)))
            .ok_or_else(|| overflow("embedding parameters"))
    }

    fn sum_weights(&self, of: impl Fn(&Weight) -> Result<u64>) -> Result<u64> {
        let mut total = 0_u64;
        for (layer, count) in self.kinds.iter().zip(self.counts()) {
            for weight in layer.weights(self.hidden_size, self.dtype) {
                total = of(&weight)?
                    .checked_mul(count)
                    .and_then(|x| x.checked_add(total))
                    .ok_or_else(|| overflow("sum over layers"))?;
            }
        }
        Ok(total)
    }
}

fn overflow(field: &str) -> Error {
    Error::overflow(field, "sum of the model's tensors", "must stay below 2^64")
}
