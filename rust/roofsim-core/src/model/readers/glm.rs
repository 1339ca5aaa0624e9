//! Zhipu's GLM 4.5 to 4.7 and the first `DeepSeekMoE`: plain attention with `DeepSeek`'s arrangement of experts.

use super::config::{Body, Config};
use super::deepseek;
use super::fields::MAX_WIDTH;
use super::parts::{self, Shape};
use super::quantisation::Modules;
use crate::error::Result;
use crate::model::{Attention, FeedForward, Mixer, Model, Span};

/// `Glm4MoeForCausalLM`: `attention_bias` covers query, key and value, not the output.
pub(super) fn glm4_moe(config: &Config) -> Result<Model> {
    let f = &config.text;
    let shape = Shape::read(f)?;
    let qk_norm = f.flag("use_qk_norm", false)?;
    let attention = Attention {
        qkv_bias: f.flag("attention_bias", false)?,
        qk_norm,
        vector_parameters: if qk_norm { 2 * shape.head_dim } else { 0 },
        ..shape.attention(Span::Full)
    };
    build(config, &shape, &attention)
}

/// `DeepseekForCausalLM` (`DeepSeekMoE` 16B): `attention_bias` covers the output too.
pub(super) fn deepseek_moe(config: &Config) -> Result<Model> {
    let shape = Shape::read(&config.text)?;
    let bias = config.text.flag("attention_bias", false)?;
    let attention = Attention { qkv_bias: bias, output_bias: bias, ..shape.attention(Span::Full) };
    build(config, &shape, &attention)
}

fn build(config: &Config, shape: &Shape, attention: &Attention) -> Result<Model> {
    let f = &config.text;
    let sparse = deepseek::sparse_layers(f)?;
    let mut layers = Vec::new();
    for index in 0..shape.num_layers {
        let mixer = Mixer::Attention(attention.clone());
        let (modules, feed_forward) = if let Some(moe) = sparse.moe_at(index) {
            (&Modules::DEEPSEEK_MOE, FeedForward::Moe(moe.clone()))
        } else {
            (&Modules::LLAMA, parts::gated(f.count("intermediate_size", MAX_WIDTH)?))
        };
        layers.push(parts::layer(config, index, modules, shape.hidden_size, mixer, feed_forward)?);
    }
    config.model(Body::new(shape.hidden_size, shape.vocab_size, layers, config.tied(false)?))
}
