//! Baidu's ERNIE 4.5 mixture of experts.

use super::config::{Body, Config};
use super::fields::{MAX_EXPERTS, MAX_LAYERS, MAX_WIDTH};
use super::parts::{self, Shape};
use super::quantisation::Modules;
use crate::error::Result;
use crate::model::{Attention, Dense, FeedForward, Mixer, Model, Moe, Span};

/// `Ernie4_5_MoeForCausalLM`: experts from `moe_layer_start_index` to `moe_layer_end_index`, every
/// `moe_layer_interval` layers; one `use_bias` for all projections.
pub(super) fn ernie4_5_moe(config: &Config) -> Result<Model> {
    let f = &config.text;
    let shape = Shape::read(f)?;
    let bias = f.flag("use_bias", false)?;
    let attention = Attention { qkv_bias: bias, output_bias: bias, ..shape.attention(Span::Full) };
    let routed = parts::moe(f, (&["moe_num_experts"], &["moe_k"], "moe_intermediate_size"))?;
    let num_shared = f.whole_or("moe_num_shared_experts", MAX_EXPERTS, 0)?;
    // The router's correction bias is a parameter here, where DeepSeek's is a buffer.
    let moe =
        Moe { bias, router_bias: true, shared_intermediate_size: num_shared * routed.intermediate_size, ..routed };
    let dense = Dense { intermediate_size: f.count("intermediate_size", MAX_WIDTH)?, gated: true, bias };
    let first = f.whole_or("moe_layer_start_index", MAX_LAYERS, 1)?;
    let interval = f.count_or("moe_layer_interval", MAX_LAYERS, 1)?;
    // -1 is the last layer.
    let last = match f.value("moe_layer_end_index").and_then(serde_json::Value::as_i64) {
        Some(-1) => shape.num_layers - 1,
        _ => f.whole_or("moe_layer_end_index", MAX_LAYERS, shape.num_layers - 1)?,
    };
    let mut layers = Vec::new();
    for index in 0..shape.num_layers {
        let mixer = Mixer::Attention(attention.clone());
        let (modules, feed_forward) = if (first..=last).contains(&index) && (index + 1).is_multiple_of(interval) {
            (&Modules::DEEPSEEK_MOE, FeedForward::Moe(moe.clone()))
        } else {
            (&Modules::LLAMA, FeedForward::Dense(dense.clone()))
        };
        layers.push(parts::layer(config, index, modules, shape.hidden_size, mixer, feed_forward)?);
    }
    config.model(Body::new(shape.hidden_size, shape.vocab_size, layers, config.tied(true)?))
}
