//! Qwen 1 to 3, dense and mixture of experts, with and without vision towers; `MiMo` 7B.

use super::config::{Body, Config};
use super::fields::{Fields, MAX_HEADS, MAX_LAYERS, MAX_TOKENS, MAX_WIDTH};
use super::parts::{self, Shape};
use super::quantisation::Modules;
use super::vision;
use crate::error::Result;
use crate::model::{Attention, FeedForward, Mixer, Model, Moe, Span};

/// `QWenLMHeadModel` (Qwen 1): `intermediate_size` is that of gate and up together; bias as in Qwen 2.
pub(super) fn qwen1(config: &Config) -> Result<Model> {
    let f = &config.text;
    let shape = Shape::read(f)?;
    let key = "intermediate_size";
    let both = f.count(key, MAX_WIDTH)?;
    if !both.is_multiple_of(2) {
        return Err(f.refuse(key, "must be even: it is the width of gate and up together"));
    }
    let head_dim = f.count_or("kv_channels", MAX_HEADS, shape.head_dim)?;
    let shape = Shape { head_dim, ..shape };
    let attention = Attention { qkv_bias: true, ..shape.attention(Span::Full) };
    let spans = parts::uniform(Span::Full, shape.num_layers);
    parts::dense_decoder(config, &shape, spans, &attention, &parts::gated(both / 2), config.tied(false)?)
}

/// `Qwen2ForCausalLM`: bias on query, key and value, for which the file has no key.
pub(super) fn qwen2(config: &Config) -> Result<Model> {
    dense(config, qwen2_attention, 0)
}

/// `Qwen3ForCausalLM`: norms of query and key per head instead of the bias.
pub(super) fn qwen3(config: &Config) -> Result<Model> {
    dense(config, qwen3_attention, 0)
}

/// `Qwen2MoeForCausalLM`: shared experts behind a gate of their own.
pub(super) fn qwen2_moe(config: &Config) -> Result<Model> {
    let moe = Moe {
        shared_intermediate_size: config.text.count("shared_expert_intermediate_size", MAX_WIDTH)?,
        shared_gate: true,
        ..routed(&config.text)?
    };
    sparse(config, qwen2_attention, &moe, 0)
}

/// `Qwen3MoeForCausalLM`: no shared experts.
pub(super) fn qwen3_moe(config: &Config) -> Result<Model> {
    sparse(config, qwen3_attention, &routed(&config.text)?, 0)
}

/// `Qwen2_5_VLForConditionalGeneration`: Qwen 2.5 beside a vision tower.
pub(super) fn qwen2_5_vl(config: &Config) -> Result<Model> {
    dense(config, qwen2_attention, vision::qwen2_5_vl(config)?)
}

/// `Qwen3VLForConditionalGeneration`: Qwen 3 beside a vision tower.
pub(super) fn qwen3_vl(config: &Config) -> Result<Model> {
    dense(config, qwen3_attention, vision::qwen3_vl(config)?)
}

/// `Qwen3VLMoeForConditionalGeneration`: the mixture of experts beside the same tower.
pub(super) fn qwen3_vl_moe(config: &Config) -> Result<Model> {
    sparse(config, qwen3_attention, &routed(&config.text)?, vision::qwen3_vl(config)?)
}

type ReadAttention = fn(&Fields, &Shape) -> Result<Attention>;

/// Bias on query, key and value only; `qkv_bias` is written by newer mixture-of-experts files alone.
fn qwen2_attention(f: &Fields, shape: &Shape) -> Result<Attention> {
    Ok(Attention { qkv_bias: f.flag("qkv_bias", true)?, ..shape.attention(Span::Full) })
}

/// One norm vector of a head's width each for query and key.
fn qwen3_attention(f: &Fields, shape: &Shape) -> Result<Attention> {
    let bias = f.flag("attention_bias", false)?;
    Ok(Attention {
        qkv_bias: bias,
        output_bias: bias,
        qk_norm: true,
        vector_parameters: 2 * shape.head_dim,
        ..shape.attention(Span::Full)
    })
}

/// A dense Qwen beside `auxiliary_parameters` of a vision tower.
fn dense(config: &Config, attention: ReadAttention, auxiliary_parameters: u64) -> Result<Model> {
    let f = &config.text;
    let shape = Shape::read(f)?;
    let attention = attention(f, &shape)?;
    let feed_forward = parts::gated(f.count("intermediate_size", MAX_WIDTH)?);
    let tied = config.tied(false)?;
    let mut body = parts::dense_body(config, &shape, spans(f, shape.num_layers)?, &attention, &feed_forward, tied)?;
    body.auxiliary_parameters = auxiliary_parameters;
    config.model(body)
}

fn routed(f: &Fields) -> Result<Moe> {
    parts::moe(f, (&["num_experts", "num_local_experts"], &["num_experts_per_tok"], "moe_intermediate_size"))
}

/// A mixture of experts. A layer has one when its number, counted from 1, is a multiple of `decoder_sparse_step` and it
/// is not listed in `mlp_only_layers`; the others are dense and `intermediate_size` wide.
fn sparse(config: &Config, attention: ReadAttention, moe: &Moe, auxiliary_parameters: u64) -> Result<Model> {
    let f = &config.text;
    let shape = Shape::read(f)?;
    let attention = attention(f, &shape)?;
    let step = f.count_or("decoder_sparse_step", MAX_LAYERS, 1)?;
    let dense_only = f.counts("mlp_only_layers", 0, MAX_LAYERS)?.unwrap_or_default();
    let mut layers = Vec::new();
    for (index, span) in (0..).zip(spans(f, shape.num_layers)?) {
        let mixer = Mixer::Attention(Attention { span, ..attention.clone() });
        let (modules, feed_forward) = if (index + 1_u64).is_multiple_of(step) && !dense_only.contains(&index) {
            (&Modules::QWEN_MOE, FeedForward::Moe(moe.clone()))
        } else {
            (&Modules::LLAMA, parts::gated(f.count("intermediate_size", MAX_WIDTH)?))
        };
        layers.push(parts::layer(config, index, modules, shape.hidden_size, mixer, feed_forward)?);
    }
    let mut body = Body::new(shape.hidden_size, shape.vocab_size, layers, config.tied(false)?);
    body.auxiliary_parameters = auxiliary_parameters;
    config.model(body)
}

/// Most Qwen files carry a `sliding_window` that is switched off: it counts only with `use_sliding_window`, and then
/// from layer `max_window_layers` on.
fn spans(f: &Fields, num_layers: u64) -> Result<Vec<Span>> {
    if let Some(spans) = parts::layer_types(f, num_layers)? {
        return Ok(spans);
    }
    let window = if f.flag("use_sliding_window", false)? { parts::window(f)? } else { Span::Full };
    let first = f.whole_or("max_window_layers", MAX_TOKENS, 0)?;
    Ok((0..num_layers).map(|index| if index >= first { window } else { Span::Full }).collect())
}
