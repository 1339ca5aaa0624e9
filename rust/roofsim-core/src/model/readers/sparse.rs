//! Mixtures of experts in every layer that differ from Mixtral in their attention: `OLMoE`, `MiniMax` M2, Granite.

use super::config::{Body, Config};
use super::fields::MAX_WIDTH;
use super::parts::{self, Shape};
use super::quantisation::Modules;
use crate::error::{Error, Result};
use crate::model::{Attention, FeedForward, Mixer, Model, Moe, Span};

/// Granite stacks its experts into two tensors.
const GRANITE: Modules = Modules {
    routed_experts: &["block_sparse_moe.input_linear", "block_sparse_moe.output_linear"],
    ..Modules::MIXTRAL
};

/// `OLMoE` has experts under Qwen's names and none that are shared.
const OLMOE: Modules = Modules { shared_experts: &[], ..Modules::QWEN_MOE };

/// `OlmoeForCausalLM`: query and key are normalised over their whole width.
pub(super) fn olmoe(config: &Config) -> Result<Model> {
    let f = &config.text;
    let shape = Shape::read(f)?;
    let bias = f.flag("attention_bias", false)?;
    let attention = Attention { qkv_bias: bias, output_bias: bias, ..wide_norm(&shape) };
    let moe = parts::moe(f, (&["num_experts"], &["num_experts_per_tok"], "intermediate_size"))?;
    every_layer(config, &shape, &attention, &moe, &OLMOE)
}

/// `MiniMaxM2ForCausalLM`: as `OLMoE`, under Mixtral's names. `attn_type_list` must say softmax attention throughout.
pub(super) fn minimax_m2(config: &Config) -> Result<Model> {
    let f = &config.text;
    let shape = Shape::read(f)?;
    for (index, kind) in f.counts("attn_type_list", 0, 1)?.unwrap_or_default().iter().enumerate() {
        if *kind != 1 {
            let field = format!("{}[{index}]", f.path_of("attn_type_list"));
            return Err(Error::unsupported(
                field,
                kind,
                "must be 1, softmax attention: linear attention has no reader",
            ));
        }
    }
    let attention = if f.flag("use_qk_norm", true)? { wide_norm(&shape) } else { shape.attention(Span::Full) };
    let moe = parts::moe(f, (&["num_local_experts"], &["num_experts_per_tok"], "intermediate_size"))?;
    if f.whole_or("shared_intermediate_size", MAX_WIDTH, 0)? != 0 {
        return Err(f.unsupported("shared_intermediate_size", "must be 0: shared experts were never published"));
    }
    every_layer(config, &shape, &attention, &moe, &Modules::MIXTRAL)
}

/// `GraniteMoeForCausalLM`.
pub(super) fn granite_moe(config: &Config) -> Result<Model> {
    let f = &config.text;
    let shape = Shape::read(f)?;
    let bias = f.flag("attention_bias", false)?;
    let attention = Attention { qkv_bias: bias, output_bias: bias, ..shape.attention(Span::Full) };
    let moe = parts::moe(f, (&["num_local_experts"], &["num_experts_per_tok"], "intermediate_size"))?;
    every_layer(config, &shape, &attention, &moe, &GRANITE)
}

/// One norm weight for every element of query and key.
fn wide_norm(shape: &Shape) -> Attention {
    Attention {
        qk_norm: true,
        vector_parameters: (shape.num_heads + shape.num_kv_heads) * shape.head_dim,
        ..shape.attention(Span::Full)
    }
}

fn every_layer(config: &Config, shape: &Shape, attention: &Attention, moe: &Moe, modules: &Modules) -> Result<Model> {
    let mut layers = Vec::new();
    for index in 0..shape.num_layers {
        let mixer = Mixer::Attention(attention.clone());
        let feed_forward = FeedForward::Moe(moe.clone());
        layers.push(parts::layer(config, index, modules, shape.hidden_size, mixer, feed_forward)?);
    }
    config.model(Body::new(shape.hidden_size, shape.vocab_size, layers, config.tied(false)?))
}
