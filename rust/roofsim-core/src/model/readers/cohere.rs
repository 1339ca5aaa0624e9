//! Cohere's Command R: one norm, attention and feed-forward side by side, a tied head.

use super::config::Config;
use super::fields::MAX_WIDTH;
use super::parts::{self, Shape};
use crate::error::Result;
use crate::model::{Attention, Model, Span};

/// `CohereForCausalLM`: layer norms without bias; Command R+ normalises every query and key head with its own weights.
pub(super) fn cohere(config: &Config) -> Result<Model> {
    let f = &config.text;
    let shape = Shape::read(f)?;
    let bias = f.flag("attention_bias", false)?;
    let qk_norm = f.flag("use_qk_norm", false)?;
    let attention = Attention {
        qkv_bias: bias,
        output_bias: bias,
        qk_norm,
        vector_parameters: if qk_norm { (shape.num_heads + shape.num_kv_heads) * shape.head_dim } else { 0 },
        ..shape.attention(Span::Full)
    };
    let feed_forward = parts::gated(f.count("intermediate_size", MAX_WIDTH)?);
    let spans = parts::uniform(Span::Full, shape.num_layers);
    let mut body = parts::dense_body(config, &shape, spans, &attention, &feed_forward, config.tied(true)?)?;
    for layer in &mut body.layers {
        layer.num_norms = 1;
        layer.norm_parameters = shape.hidden_size;
        layer.parallel_residual = true;
    }
    config.model(body)
}
