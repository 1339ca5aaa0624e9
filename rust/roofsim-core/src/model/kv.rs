//! What one sequence keeps on the device: the KV cache of its attention layers and the state of its recurrent ones.

use super::Model;
use super::layer::{Mixer, Span};
use crate::error::{Error, Result};
use crate::format::KvFormat;

/// Tokens of a sequence of `context_tokens` whose keys and values a layer of this span keeps.
pub fn kept_tokens(span: Span, context_tokens: u64) -> u64 {
    match span {
        Span::Full | Span::Selected(_) => context_tokens,
        Span::Sliding(limit) | Span::Chunked(limit) => context_tokens.min(limit),
    }
}

impl Mixer {
    /// Cached elements per token of one layer, unsharded: `K (h + h_v)`, or the latent and its rotary part, with the
    /// indexer's key where the layer has one.
    pub fn kv_elements_per_token(&self) -> u64 {
        match self {
            Self::Attention(a) => a.num_kv_heads * (a.head_dim + a.v_head_dim),
            Self::Latent(a) => {
                let indexer = a.selection.and_then(|selection| selection.indexer);
                a.kv_lora_rank + a.qk_rope_head_dim + indexer.map_or(0, |i| i.head_dim)
            }
            Self::Recurrent(_) | Self::None => 0,
        }
    }

    /// Cached elements per token on one rank: KV heads are divided while there are enough and replicated beyond;
    /// a latent is whole on every rank.
    pub fn kv_elements_per_token_rank(&self, tensor_parallel_size: u64) -> u64 {
        match self {
            Self::Attention(a) => a.num_kv_heads.div_ceil(tensor_parallel_size) * (a.head_dim + a.v_head_dim),
            Self::Latent(_) | Self::Recurrent(_) | Self::None => self.kv_elements_per_token(),
        }
    }

    /// The span of its cache; latent attention keeps everything.
    pub fn span(&self) -> Span {
        match self {
            Self::Attention(a) => a.span,
            _ => Span::Full,
        }
    }
}

impl Model {
    /// KV bytes of one token in all layers, before any window cuts in, unsharded. Exact.
    pub fn kv_bytes_per_token(&self, format: KvFormat) -> Result<u64> {
        self.sum_layers(|layer| layer.mixer.kv_elements_per_token().checked_mul(format.element_bytes()))
    }

    /// KV bytes of one sequence of `context_tokens`, windows and latent layouts applied, unsharded. Exact.
    pub fn kv_cache_bytes(&self, context_tokens: u64, format: KvFormat) -> Result<u64> {
        self.sum_layers(|layer| {
            let tokens = kept_tokens(layer.mixer.span(), context_tokens);
            layer.mixer.kv_elements_per_token().checked_mul(format.element_bytes())?.checked_mul(tokens)
        })
    }

    /// Bytes of recurrent and convolution state of one sequence, unsharded. Exact; 0 for pure attention models.
    pub fn state_bytes(&self) -> Result<u64> {
        let conv_bytes = self.dtype.element_bits() / 8;
        self.sum_layers(|layer| match &layer.mixer {
            Mixer::Recurrent(r) => r
                .state_elements
                .checked_mul(r.state_element_bytes)?
                .checked_add(r.conv_state_elements.checked_mul(conv_bytes)?),
            _ => Some(0),
        })
    }

    fn sum_layers(&self, bytes: impl Fn(&super::Layer) -> Option<u64>) -> Result<u64> {
        self.kinds.iter().zip(self.counts()).try_fold(0_u64, |sum, (layer, count)| {
            bytes(layer)
                .and_then(|b| b.checked_mul(count))
                .and_then(|b| sum.checked_add(b))
                .ok_or_else(|| Error::overflow("kv_cache_bytes", "sum over layers", "must stay below 2^64 bytes"))
        })
    }
}
